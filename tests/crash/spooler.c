/* SPDX-License-Identifier: Apache-2.0 */

/*
 * spooler.c: the model (model.h) on the relay's real spool, and on nothing else of the relay: to
 * kill and to cut the spool by itself.
 *
 *   crash --postern build/release/crash/spooler ...
 *
 * One thread has the ring and the spool. The model's threads ask it to keep a message and wait
 * until it is committed, or tell it that one is delivered.
 */

#include "relay/mail/spool.h"
#include "relay/mail/spool_folder.h"
#include "tests/crash/model.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A message that the spool has, or gets. */
struct spooler_entry {
	struct spooler_entry *next; /* of those that are asked for, or were found */
	struct spool_message message;
	struct spool_writer writer;
	struct model_mail *mail;
	size_t written; /* of the mail's bytes */
	bool is_kept;   /* and now it is delivered */
	bool is_settled, is_done;
	int result;
	uint8_t envelope[8192];
	size_t envelope_bytes;
};

static struct {
	struct loop *loop;
	struct spool *spool;
	enum durability durability;
	pthread_mutex_t lock;
	pthread_cond_t settled;
	struct spooler_entry *asked;
	struct spooler_entry *found; /* by the replay */
	struct spool_reader reader;
	struct op op;
	int event;
} spooler = {.lock = PTHREAD_MUTEX_INITIALIZER, .settled = PTHREAD_COND_INITIALIZER};

static _Noreturn void spooler_die(const char *what, int error)
{
	(void)fprintf(stderr, "spooler: %s: %s\n", what, strerror(error < 0 ? -error : error));
	exit(EXIT_FAILURE);
}

static struct spooler_entry *spooler_entry_create(struct model_mail *mail)
{
	struct spooler_entry *entry = calloc(1, sizeof(*entry));

	if (entry == NULL)
		abort();
	entry->mail = mail;
	if (mail != NULL)
		mail->own = entry;
	return entry;
}

/* The envelope. */

static struct span spooler_path(const char *command)
{
	const char *open = strchr(command, '<');
	const char *close = open == NULL ? NULL : strchr(open, '>');

	if (close == NULL)
		return span_of("<>");
	return (struct span){(const uint8_t *)open, (size_t)(close - open) + 1};
}

static void spooler_make_envelope(struct spooler_entry *entry)
{
	const char *commands = entry->mail->bytes;
	struct envelope envelope = {.sender = spooler_path(commands),
		.arrived_ms = 1,
		.expires_ms = 2,
		.body_bytes = entry->mail->len - strlen(commands) - 1};
	const char *rcpts = strchr(commands, '\n') + 1;

	for (const char *at = rcpts; *at != '\0'; at = strchr(at, '\n') + 1)
		envelope.rcpt_count++;
	entry->envelope_bytes = envelope_write(&envelope, entry->envelope, sizeof(entry->envelope));
	for (const char *at = rcpts; *at != '\0'; at = strchr(at, '\n') + 1) {
		const struct envelope_rcpt rcpt = {.path = spooler_path(at)};

		entry->envelope_bytes +=
			envelope_write_rcpt(&rcpt, entry->envelope + entry->envelope_bytes,
				sizeof(entry->envelope) - entry->envelope_bytes);
	}
}

/* Keeping, on the ring's thread. */

static void spooler_settle(struct spooler_entry *entry, int result)
{
	(void)pthread_mutex_lock(&spooler.lock);
	entry->result = result;
	entry->is_settled = true;
	(void)pthread_cond_broadcast(&spooler.settled);
	(void)pthread_mutex_unlock(&spooler.lock);
}

static void spooler_go_on(struct spooler_entry *entry)
{
	while (entry->written < entry->mail->len) {
		size_t room = spool_room(&entry->writer);
		size_t left = entry->mail->len - entry->written;
		size_t take = room < left ? room : left;

		if (room == 0)
			return;
		spool_write(&entry->writer,
			(struct span){(const uint8_t *)entry->mail->bytes + entry->written, take});
		entry->written += take;
	}
	spool_commit(&entry->writer, (struct span){entry->envelope, entry->envelope_bytes},
		spooler.durability, &entry->message);
}

static void spooler_on_room(struct spool_writer *writer)
{
	spooler_go_on(OWNER_OF(writer, struct spooler_entry, writer));
}

static void spooler_on_committed(struct spool_writer *writer, int result)
{
	spooler_settle(OWNER_OF(writer, struct spooler_entry, writer), result);
}

static void spooler_on_broken(struct spool_writer *writer, int error)
{
	spool_abandon(writer);
	spooler_settle(OWNER_OF(writer, struct spooler_entry, writer), error);
}

static void spooler_begin(struct spooler_entry *entry)
{
	static const struct spool_writer_events events = {.on_room = spooler_on_room,
		.on_committed = spooler_on_committed,
		.on_broken = spooler_on_broken};
	int rc;

	spooler_make_envelope(entry);
	entry->written = strlen(entry->mail->bytes) + 1;
	spool_writer_init(&entry->writer, spooler.spool, &events);
	rc = spool_begin(&entry->writer, spool_next_id(spooler.spool));
	if (rc < 0)
		spooler_settle(entry, rc);
	else
		spooler_go_on(entry);
}

static void spooler_on_asked(struct op *op, int32_t result, uint32_t flags)
{
	struct spooler_entry *entry;
	uint64_t count;

	(void)result, (void)flags;
	(void)!read(spooler.event, &count, sizeof(count));
	(void)pthread_mutex_lock(&spooler.lock);
	entry = spooler.asked;
	spooler.asked = NULL;
	(void)pthread_mutex_unlock(&spooler.lock);
	while (entry != NULL) {
		struct spooler_entry *next = entry->next;

		if (entry->is_kept) {
			spool_done(spooler.spool, &entry->message, RECORD_DONE_DELIVERED, NULL);
			free(entry);
		} else {
			spooler_begin(entry);
		}
		entry = next;
	}
	loop_poll(spooler.loop, op, spooler.event, POLLIN);
}

/* The model's threads. */

static void spooler_ask(struct spooler_entry *entry)
{
	const uint64_t one = 1;

	(void)pthread_mutex_lock(&spooler.lock);
	entry->next = spooler.asked;
	spooler.asked = entry;
	(void)pthread_mutex_unlock(&spooler.lock);
	(void)!write(spooler.event, &one, sizeof(one));
}

static bool spooler_store(struct model_mail *mail)
{
	struct spooler_entry *entry = spooler_entry_create(mail);
	bool is_kept;

	spooler_ask(entry);
	(void)pthread_mutex_lock(&spooler.lock);
	while (!entry->is_settled)
		(void)pthread_cond_wait(&spooler.settled, &spooler.lock);
	(void)pthread_mutex_unlock(&spooler.lock);
	/* One that failed is not freed: the spool may still be in the call that said so. */
	is_kept = entry->result == 0;
	entry->is_kept = is_kept;
	return is_kept;
}

static void spooler_done(struct model_mail *mail)
{
	spooler_ask(mail->own);
}

/* What was there. */

static struct spool_message *spooler_on_message(
	void *owner, uint64_t id, const struct envelope *envelope, struct spool_message *known)
{
	struct spooler_entry *entry;

	(void)owner, (void)id, (void)envelope;
	if (known != NULL)
		return known;
	entry = spooler_entry_create(NULL);
	entry->next = spooler.found;
	spooler.found = entry;
	return &entry->message;
}

static void spooler_on_change(void *owner, struct spool_message *message, int64_t time_ms,
	const struct envelope_change *change)
{
	(void)owner, (void)message, (void)time_ms, (void)change;
}

static void spooler_on_done(void *owner, struct spool_message *message)
{
	(void)owner;
	OWNER_OF(message, struct spooler_entry, message)->is_done = true;
}

static void spooler_on_note(void *owner, uint64_t key, struct span payload)
{
	(void)owner, (void)key, (void)payload;
}

/* The next one that was found, and is not done. */
static void spooler_read_next(void)
{
	while (spooler.found != NULL && spooler.found->is_done) {
		struct spooler_entry *done = spooler.found;

		spooler.found = done->next;
		free(done);
	}
	if (spooler.found == NULL)
		return;
	spooler.found->mail = model_mail_create();
	spooler.found->mail->own = spooler.found;
	spool_read(&spooler.reader, &spooler.found->message);
}

static void spooler_add_command(struct model_mail *mail, const char *command, struct span path)
{
	model_mail_add(mail, command, strlen(command));
	model_mail_add(mail, (const char *)path.data, path.len);
	model_mail_add(mail, "\r\n", 2);
}

static void spooler_on_envelope(struct spool_reader *reader, const struct envelope *envelope)
{
	struct model_mail *mail = spooler.found->mail;
	struct envelope_rcpt rcpt;
	size_t at = 0;

	spooler_add_command(mail, "MAIL FROM:", envelope->sender);
	while (envelope_next(envelope, &at, &rcpt))
		spooler_add_command(mail, "RCPT TO:", rcpt.path);
	model_mail_add(mail, "", 1);
	spool_read_more(reader);
}

static void spooler_on_text(struct spool_reader *reader, struct span text, bool is_last)
{
	struct spooler_entry *entry = spooler.found;

	model_mail_add(entry->mail, (const char *)text.data, text.len);
	if (!is_last) {
		spool_read_more(reader);
		return;
	}
	spool_read_end(reader);
	spooler.found = entry->next;
	entry->is_kept = true;
	model_queue(entry->mail);
	spooler_read_next();
}

static void spooler_on_failed(struct spool_reader *reader, int error)
{
	(void)reader;
	spooler_die("a message cannot be read", error);
}

static void spooler_on_move(void *owner, struct spool_message *message, uint8_t *bytes, size_t len)
{
	(void)owner, (void)message, (void)bytes, (void)len;
}

static void spooler_on_level(void *owner)
{
	(void)owner;
}

/* The beginning. */

static void spooler_open(const char *folder_path)
{
	static const struct spool_events events = {
		.on_move = spooler_on_move, .on_level = spooler_on_level};
	static const struct spool_replay replay = {.on_message = spooler_on_message,
		.on_change = spooler_on_change,
		.on_done = spooler_on_done,
		.on_note = spooler_on_note};
	const struct spool_folder_options options = {.path = folder_path,
		.segment_bytes = 4U << 20,
		.bytes_max = 256U << 20,
		.logs = 1,
		.pressure_medium = 90,
		.pressure_high = 95,
		.pressure_high_end = 92,
		.pressure_medium_end = 85};
	struct spool_options own = {.log = 0, .events = &events, .owner = &spooler};
	struct loop_caps caps;
	int rc = spool_folder_create(&options, stderr, &own.folder);

	if (rc < 0)
		spooler_die(folder_path, rc);
	rc = loop_probe(&caps);
	if (rc == 0)
		rc = loop_create(&caps, 256, &spooler.loop);
	if (rc < 0)
		spooler_die("io_uring", rc);
	own.loop = spooler.loop;
	rc = spool_create(&own, &replay, &spooler, &spooler.spool);
	if (rc < 0)
		spooler_die("spool", rc);
}

static void *spooler_run(void *folder_path)
{
	static const struct spool_reader_events events = {.on_envelope = spooler_on_envelope,
		.on_text = spooler_on_text,
		.on_failed = spooler_on_failed};
	int rc;

	spooler_open(folder_path);
	spool_reader_init(&spooler.reader, spooler.spool, &events);
	spooler_read_next();
	spooler.op.done = spooler_on_asked;
	loop_poll(spooler.loop, &spooler.op, spooler.event, POLLIN);
	while ((rc = loop_turn(spooler.loop)) >= 0)
		;
	spooler_die("io_uring", rc);
}

/* A value of the relay's configuration, out of quotes. */
static bool spooler_value(const char *config, const char *keyword, char *out, size_t out_bytes)
{
	FILE *in = fopen(config, "re");
	char line[512];
	bool is_there = false;

	while (in != NULL && fgets(line, sizeof(line), in) != NULL) {
		const char *at = strstr(line, keyword);

		if (at == NULL)
			continue;
		at += strlen(keyword) + strspn(at + strlen(keyword), " =\"");
		(void)snprintf(out, out_bytes, "%.*s", (int)strcspn(at, "\"\n"), at);
		is_there = true;
	}
	if (in != NULL)
		(void)fclose(in);
	return is_there;
}

int main(int argc, char **argv)
{
	static const struct model_keeper keeper = {.store = spooler_store, .done = spooler_done};
	static char folder[512];
	char durability[32] = "";
	pthread_t thread;

	if (argc != 3 || strcmp(argv[1], "--config") != 0 ||
		!spooler_value(argv[2], "spool-folder", folder, sizeof(folder))) {
		(void)fputs("usage: spooler --config FILE\n", stderr);
		return 2;
	}
	(void)spooler_value(argv[2], "durability", durability, sizeof(durability));
	spooler.durability =
		strcmp(durability, "relaxed") == 0 ? DURABILITY_RELAXED : DURABILITY_DURABLE;
	spooler.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (spooler.event < 0 || pthread_create(&thread, NULL, spooler_run, folder) != 0)
		spooler_die("begin", errno);
	return model_serve(argv[2], &keeper);
}
