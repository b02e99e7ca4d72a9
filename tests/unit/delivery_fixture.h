/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * delivery_fixture.h: a delivery with its client, and what stands at either end of it: a spool that
 * is an array, and a next hop that answers by a script. All in one thread: the next hop takes its
 * turn between two turns of the loop. It checks by itself what a client may never do.
 */

#include "relay/base/stats.h"
#include "relay/mail/delivery.h"
#include "tests/unit/loop_fixture.h"

#include <arpa/inet.h>
#include <stdlib.h>

#define HOP_BYTES_MAX 8388608UL
#define RIG_TURNS_MAX 10000000
#define RIG_RCPTS_MAX 128
#define RIG_PATIENCE_MS 100000

/* What the next hop says, NULL: what a good one would. "close": it goes; "silent": nothing from
 * then on. */
struct hop_script {
	const char *keywords; /* of EHLO, blanks between; NULL: EHLO is not understood */
	const char *mail;
	const char *rcpt[4]; /* to the first RCPTs */
	const char *data;
	const char *chunk;    /* to chunks that are not the last */
	const char *last;     /* to the last one */
	const char *end;      /* to the end of DATA */
	const char *rset;     /* to RSET */
	const char *in_body;  /* in the middle of DATA's text, unasked */
	bool takes_empty;     /* 354 though nobody was accepted (RFC 2920 3.1) */
	bool takes_any_rcpt;  /* 250 to RCPT though there is no sender */
	size_t bytes_in_turn; /* read so much at a time; 0: all */
	unsigned deaf_turns;  /* reads nothing of the text for so long */
};

enum hop_mode { HOP_COMMAND, HOP_DATA, HOP_CHUNK };

struct hop {
	struct hop_script script;
	int listener, fd;
	struct sockaddr_in at;
	enum hop_mode mode;
	uint8_t *in;
	size_t in_start, in_end;
	char out[8192];
	size_t out_len;
	uint64_t chunk_left;
	bool chunk_is_last, is_dead, has_mail, has_failed, has_spoken, is_silent;
	unsigned rcpt_count, accepted, connections;

	/* What has come. */
	char verbs[2048];     /* "MAIL RCPT DATA . ": those of this transaction */
	char mail_line[4096]; /* the last one */
	char rcpt_line[4096]; /* the last one */
	uint8_t *body;        /* text of the message that is coming, or came last */
	size_t body_len;
	unsigned messages; /* that were taken */
	unsigned ends;     /* ends of text, taken or not */
	unsigned chunks;
	unsigned chunks_after_refusal;
};

/* The spool: one message. */
struct spool {
	struct envelope envelope;
	uint8_t recipients[256 * 1024];
	struct span body;
	size_t piece_bytes;    /* 0: all of it */
	bool has_separate_end; /* the last piece is empty */
	int envelope_error;    /* -errno */
	int error;             /* of the piece at or behind error_at */
	size_t error_at;
	bool is_held; /* nothing is answered for now */

	struct spool_message message;
	struct spool_reader *reader; /* open */
	size_t at;
	unsigned asked; /* pieces */
	unsigned opened, ended;
	uint8_t *piece; /* what was given last: gone with the next call */
	size_t piece_len;
};

struct rig {
	struct loop *loop;
	struct conn_net net;
	struct send_connector connector;
	struct send_requirement requirement;
	struct client client;
	struct delivery delivery;
	struct spool spool;
	struct hop hop;

	uint32_t picks[RIG_RCPTS_MAX]; /* what pick() says */
	uint32_t pick_count;
	struct delivery_result results[RIG_RCPTS_MAX]; /* by index */
	unsigned told[RIG_RCPTS_MAX];
	bool is_ready, is_closed, has_ended, is_usable;
	char lost[256]; /* "": it was not */
	bool is_answered;
	int read_error;
	unsigned again; /* deliveries to start from within on_end */
};

static struct rig rig;

/*
 * The functions of spool.c and envelope.c that a delivery calls; being here, they take the place of
 * those in the archive.
 */

bool envelope_next(const struct envelope *envelope, size_t *at, struct envelope_rcpt *out)
{
	struct span rest = span_skip(envelope->recipients, *at);
	struct span *parts[] = {&out->path, &out->notify, &out->orcpt};

	if (rest.len == 0)
		return false;
	out->state = rest.data[0];
	rest = span_skip(rest, 1);
	for (unsigned i = 0; i < COUNT_OF(parts); i++) {
		size_t len = rest.data[0] | (size_t)rest.data[1] << 8;

		*parts[i] = span_head(span_skip(rest, 2), len);
		rest = span_skip(rest, 2 + len);
	}
	*at = envelope->recipients.len - rest.len;
	return true;
}

void message_id_print(uint64_t id, char out[MESSAGE_ID_TEXT_BYTES])
{
	(void)snprintf(out, MESSAGE_ID_TEXT_BYTES, "%016lx", (unsigned long)id);
}

static void spool_forget_piece(struct spool *spool)
{
	if (spool->piece != NULL)
		memset(spool->piece, 0xee, spool->piece_len);
	free(spool->piece);
	spool->piece = NULL;
}

static void spool_give_piece(struct spool *spool)
{
	size_t left = spool->body.len - spool->at;
	size_t len =
		spool->piece_bytes > 0 && spool->piece_bytes < left ? spool->piece_bytes : left;
	const bool is_last = len == left && !(spool->has_separate_end && len > 0);

	if (spool->error != 0 && spool->at >= spool->error_at) {
		spool->reader->events->on_failed(spool->reader, spool->error);
		return;
	}
	spool->piece = malloc(len + 1);
	assert_non_null(spool->piece);
	spool->piece_len = len;
	if (len > 0)
		memcpy(spool->piece, spool->body.data + spool->at, len);
	spool->at += len;
	spool->reader->text = span_make(spool->piece, len);
	spool->reader->events->on_text(spool->reader, spool->reader->text, is_last);
}

static void spool_answer(struct task *task)
{
	struct spool_reader *reader = OWNER_OF(task, struct spool_reader, task);
	struct spool *spool = reader->spool;

	assert_ptr_equal(reader, spool->reader);
	if (reader->state == 2)
		spool_give_piece(spool);
	else if (spool->envelope_error != 0)
		reader->events->on_failed(reader, spool->envelope_error);
	else
		reader->events->on_envelope(reader, &spool->envelope);
}

static void spool_ask(struct spool_reader *reader, unsigned state)
{
	assert_false(link_is_queued(&reader->task.link));
	reader->state = state;
	if (!reader->spool->is_held)
		loop_task_add(rig.loop, &reader->task);
}

void spool_reader_init(
	struct spool_reader *reader, struct spool *spool, const struct spool_reader_events *events)
{
	*reader = (struct spool_reader){.spool = spool, .events = events};
	task_init(&reader->task, spool_answer);
}

void spool_read(struct spool_reader *reader, struct spool_message *message)
{
	struct spool *spool = reader->spool;

	assert_null(spool->reader);
	assert_ptr_equal(message, &spool->message);
	spool->reader = reader;
	spool->at = 0;
	spool->asked = 0;
	spool->opened++;
	reader->text = (struct span){0};
	spool_ask(reader, 1);
}

void spool_read_more(struct spool_reader *reader)
{
	assert_ptr_equal(reader->spool->reader, reader);
	/* A piece is asked for when the one before has gone. */
	assert_int_equal(reader->text.len, 0);
	spool_forget_piece(reader->spool);
	reader->spool->asked++;
	spool_ask(reader, 2);
}

void spool_read_end(struct spool_reader *reader)
{
	struct spool *spool = reader->spool;

	if (spool->reader != reader)
		return;
	loop_task_cancel(&reader->task);
	spool_forget_piece(spool);
	spool->reader = NULL;
	spool->ended++;
}

static inline void spool_add_part(struct spool *spool, const char *text)
{
	uint8_t *at = spool->recipients + spool->envelope.recipients.len;
	size_t len = strlen(text);

	assert_true(spool->envelope.recipients.len + len + 2 < sizeof(spool->recipients));
	at[0] = (uint8_t)(len & 0xff);
	at[1] = (uint8_t)(len >> 8);
	memcpy(at + 2, text, len);
	spool->envelope.recipients.len += 2 + len;
}

static inline void spool_add_rcpt(
	struct spool *spool, const char *path, const char *notify, const char *orcpt)
{
	spool->recipients[spool->envelope.recipients.len++] = RCPT_OPEN;
	spool_add_part(spool, path);
	spool_add_part(spool, notify);
	spool_add_part(spool, orcpt);
	spool->envelope.recipients.data = spool->recipients;
	spool->envelope.rcpt_count++;
}

/* A message from a@contoso.test; recipients are added to it. */
static inline void spool_put(struct spool *spool, struct span body)
{
	uint8_t *piece = spool->piece;

	assert_null(spool->reader);
	assert_null(piece);
	spool->envelope =
		(struct envelope){.sender = span_of("<a@contoso.test>"), .body_bytes = body.len};
	spool->body = body;
	spool->piece_bytes = 0;
	spool->has_separate_end = false;
	spool->envelope_error = 0;
	spool->error = 0;
	spool->error_at = 0;
	spool->is_held = false;
	spool->message.id = 0x1234;
}

/* While it is held: answers what was asked last. */
static inline void spool_answer_now(struct spool *spool)
{
	loop_task_add(rig.loop, &spool->reader->task);
}

/* The next hop. */

static inline void hop_close(struct hop *hop)
{
	if (hop->fd >= 0)
		(void)close(hop->fd);
	hop->fd = -1;
	hop->is_dead = true;
}

static inline void hop_say(struct hop *hop, const char *reply)
{
	size_t len = strlen(reply);

	if (strcmp(reply, "close") == 0) {
		hop_close(hop);
		return;
	}
	hop->is_silent |= strcmp(reply, "silent") == 0;
	if (hop->is_silent)
		return;
	assert_true(hop->out_len + len + 2 < sizeof(hop->out));
	memcpy(hop->out + hop->out_len, reply, len);
	memcpy(hop->out + hop->out_len + len, "\r\n", 2);
	hop->out_len += len + 2;
}

static inline bool hop_offers(const struct hop *hop, const char *keyword)
{
	return hop->script.keywords != NULL && strstr(hop->script.keywords, keyword) != NULL;
}

static inline void hop_note(struct hop *hop, const char *verb)
{
	size_t len = strlen(hop->verbs);

	assert_true(len + strlen(verb) + 2 < sizeof(hop->verbs));
	(void)snprintf(hop->verbs + len, sizeof(hop->verbs) - len, "%s ", verb);
}

static inline void hop_say_ehlo(struct hop *hop)
{
	char words[512];
	char *rest = words;
	char *word;

	if (hop->script.keywords == NULL) {
		hop_say(hop, "502 5.5.1 Not here");
		return;
	}
	(void)snprintf(words, sizeof(words), "%s", hop->script.keywords);
	hop_say(hop, "250-hop.test");
	while ((word = strsep(&rest, " ")) != NULL) {
		char line[64];

		if (word[0] == '\0')
			continue;
		(void)snprintf(line, sizeof(line), "250-%s", word);
		if (strchr(line, '=') != NULL)
			*strchr(line, '=') = ' ';
		hop_say(hop, line);
	}
	hop_say(hop, "250 HELP");
}

static inline void hop_end_transaction(struct hop *hop)
{
	hop->has_mail = false;
	hop->has_failed = false;
	hop->rcpt_count = 0;
	hop->accepted = 0;
}

static inline void hop_take_mail(struct hop *hop, const char *line)
{
	const char *reply = hop->script.mail != NULL ? hop->script.mail : "250 2.1.0 Sender OK";

	assert_false(hop->has_mail);
	hop_end_transaction(hop);
	(void)snprintf(hop->mail_line, sizeof(hop->mail_line), "%s", line);
	hop->has_mail = reply[0] == '2';
	hop->body_len = 0;
	hop_say(hop, reply);
}

static inline void hop_take_rcpt(struct hop *hop, const char *line)
{
	const unsigned number = hop->rcpt_count++;
	const char *reply = "250 2.1.5 Recipient OK";

	(void)snprintf(hop->rcpt_line, sizeof(hop->rcpt_line), "%s", line);
	if (!hop->has_mail && !hop->script.takes_any_rcpt)
		reply = "503 5.5.1 MAIL first";
	else if (number < COUNT_OF(hop->script.rcpt) && hop->script.rcpt[number] != NULL)
		reply = hop->script.rcpt[number];
	hop->accepted += reply[0] == '2';
	hop_say(hop, reply);
}

static inline void hop_take_data(struct hop *hop)
{
	const char *reply =
		hop->script.data != NULL ? hop->script.data : "354 Go on, end with a dot";

	/* Nothing may follow DATA before its answer (RFC 2920 3.1). */
	assert_int_equal(hop->in_start, hop->in_end);
	if (!hop->has_mail && !hop->script.takes_empty)
		reply = "503 5.5.1 MAIL first";
	else if (hop->accepted == 0 && !hop->script.takes_empty)
		reply = "554 5.5.1 No valid recipients";
	if (strncmp(reply, "354", 3) == 0)
		hop->mode = HOP_DATA;
	hop_say(hop, reply);
}

static inline void hop_take_bdat(struct hop *hop, const char *line)
{
	char *end;

	assert_true(hop_offers(hop, "CHUNKING"));
	/* A chunk for nobody is what was sent before the answers to RCPT could be known. */
	assert_true(hop->accepted > 0 || hop_offers(hop, "PIPELINING"));
	hop->chunk_left = strtoull(line + 5, &end, 10);
	hop->chunk_is_last = strcmp(end, " LAST") == 0;
	assert_true(hop->chunk_is_last || *end == '\0');
	hop->chunks++;
	hop->chunks_after_refusal += hop->has_failed;
	hop->mode = HOP_CHUNK;
}

/* The text has come to its end. */
static inline void hop_end_text(struct hop *hop, const char *reply)
{
	hop->ends++;
	if (reply == NULL)
		reply = hop->accepted == 0 || hop->has_failed ? "554 5.5.1 No valid recipients"
							      : "250 2.6.0 Taken";
	hop->messages += reply[0] == '2';
	/* After a refused chunk only RSET brings it back (RFC 3030 2). */
	if (hop->mode == HOP_DATA || reply[0] == '2')
		hop_end_transaction(hop);
	hop->mode = HOP_COMMAND;
	hop_say(hop, reply);
}

static inline void hop_take_command(struct hop *hop, const char *line)
{
	char verb[8] = "";

	(void)snprintf(verb, sizeof(verb), "%.4s", line);
	if (strcmp(verb, "EHLO") == 0) {
		hop_say_ehlo(hop);
		return;
	}
	if (strcmp(verb, "HELO") == 0) {
		hop_say(hop, "250 hop.test");
		return;
	}
	if (strcmp(verb, "QUIT") == 0) {
		hop_say(hop, "221 2.0.0 Bye");
		return;
	}
	/* Without PIPELINING nothing is said before the answer. */
	if (!hop_offers(hop, "PIPELINING") && strcmp(verb, "BDAT") != 0)
		assert_int_equal(hop->in_start, hop->in_end);
	/* Chunks are as many as they happen to be. */
	if (strcmp(verb, "BDAT") != 0)
		hop_note(hop, verb);
	if (strcmp(verb, "MAIL") == 0) {
		hop_take_mail(hop, line);
	} else if (strcmp(verb, "RCPT") == 0) {
		hop_take_rcpt(hop, line);
	} else if (strcmp(verb, "DATA") == 0) {
		hop_take_data(hop);
	} else if (strcmp(verb, "BDAT") == 0) {
		hop_take_bdat(hop, line);
	} else if (strcmp(verb, "RSET") == 0) {
		hop_end_transaction(hop);
		hop_say(hop, hop->script.rset != NULL ? hop->script.rset : "250 2.0.0 OK");
	} else {
		fail_msg("no command: %.40s", line);
	}
}

static inline void hop_add_text(struct hop *hop, struct span text)
{
	assert_true(hop->body_len + text.len < HOP_BYTES_MAX);
	memcpy(hop->body + hop->body_len, text.data, text.len);
	hop->body_len += text.len;
}

/* One line of DATA, without its CR LF. */
static inline void hop_take_text(struct hop *hop, struct span line)
{
	if (span_equal(line, span_of("."))) {
		hop_note(hop, ".");
		hop_end_text(hop, hop->script.end);
		return;
	}
	if (line.len > 0 && line.data[0] == '.')
		line = span_skip(line, 1);
	hop_add_text(hop, line);
	hop_add_text(hop, span_of("\r\n"));
	if (hop->script.in_body != NULL && !hop->has_spoken) {
		hop->has_spoken = true;
		hop_say(hop, hop->script.in_body);
	}
}

static inline void hop_take_chunk(struct hop *hop, struct span text)
{
	const char *reply = hop->script.chunk != NULL ? hop->script.chunk : "250 2.6.0 Chunk";

	hop_add_text(hop, text);
	hop->in_start += text.len;
	hop->chunk_left -= text.len;
	if (hop->chunk_left > 0)
		return;
	if (hop->chunk_is_last) {
		hop_note(hop, "LAST");
		hop_end_text(hop, hop->script.last);
		return;
	}
	hop->mode = HOP_COMMAND;
	hop->has_failed |= reply[0] != '2' || hop->accepted == 0;
	hop_say(hop, hop->has_failed && reply[0] == '2' ? "503 5.5.1 RSET first" : reply);
}

/* Takes the next thing out of what has come; false: it is not whole. */
static inline bool hop_take(struct hop *hop)
{
	struct span in = span_make(hop->in + hop->in_start, hop->in_end - hop->in_start);
	const uint8_t *end;
	char line[4096];
	struct span text;

	if (hop->fd < 0)
		return false;
	if (hop->mode == HOP_CHUNK) {
		if (in.len == 0 && hop->chunk_left > 0)
			return false;
		hop_take_chunk(hop, span_head(in, hop->chunk_left));
		return true;
	}
	end = in.len == 0 ? NULL : memmem(in.data, in.len, "\r\n", 2);
	if (end == NULL)
		return false;
	text = span_make(in.data, (size_t)(end - in.data));
	hop->in_start += text.len + 2;
	if (hop->mode == HOP_DATA) {
		hop_take_text(hop, text);
		return true;
	}
	assert_true(text.len < sizeof(line));
	(void)snprintf(line, sizeof(line), "%.*s", (int)text.len, (const char *)text.data);
	hop_take_command(hop, line);
	return true;
}

static inline void hop_read(struct hop *hop)
{
	size_t room;
	ssize_t got;

	if (hop->in_start == hop->in_end) {
		hop->in_start = 0;
		hop->in_end = 0;
	}
	room = HOP_BYTES_MAX - hop->in_end;
	if (hop->script.bytes_in_turn > 0 && hop->script.bytes_in_turn < room)
		room = hop->script.bytes_in_turn;
	got = recv(hop->fd, hop->in + hop->in_end, room, MSG_DONTWAIT);
	if (got > 0)
		hop->in_end += (size_t)got;
	else if (got == 0 || errno != EAGAIN)
		hop_close(hop);
}

static inline void hop_step(struct hop *hop)
{
	if (hop->fd < 0) {
		hop->fd = accept4(hop->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (hop->fd < 0)
			return;
		hop->connections++;
		hop->is_dead = false;
		hop->mode = HOP_COMMAND;
		hop->in_start = 0;
		hop->in_end = 0;
		hop->out_len = 0;
		hop_end_transaction(hop);
		hop_say(hop, "220 hop.test");
	}
	if (hop->mode != HOP_COMMAND && hop->script.deaf_turns > 0)
		hop->script.deaf_turns--;
	else
		hop_read(hop);
	while (hop_take(hop))
		continue;
	if (hop->fd >= 0 && hop->out_len > 0) {
		ssize_t sent = send(hop->fd, hop->out, hop->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent > 0) {
			memmove(hop->out, hop->out + sent, hop->out_len - (size_t)sent);
			hop->out_len -= (size_t)sent;
		}
	}
}

static inline void hop_open(struct hop *hop)
{
	socklen_t len = sizeof(hop->at);
	int bytes = 8192;

	hop->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	hop->fd = -1;
	hop->at = (struct sockaddr_in){.sin_family = AF_INET};
	hop->at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(hop->listener >= 0);
	/* Small, so that a next hop that does not read is felt soon. */
	assert_int_equal(
		setsockopt(hop->listener, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)), 0);
	assert_int_equal(bind(hop->listener, (struct sockaddr *)&hop->at, sizeof(hop->at)), 0);
	assert_int_equal(listen(hop->listener, 8), 0);
	assert_int_equal(getsockname(hop->listener, (struct sockaddr *)&hop->at, &len), 0);
	hop->in = malloc(HOP_BYTES_MAX);
	hop->body = malloc(HOP_BYTES_MAX);
	assert_non_null(hop->in);
	assert_non_null(hop->body);
}

/* A new script, and nothing noted so far. */
static inline void hop_begin(struct hop *hop, const struct hop_script *script)
{
	hop->script = *script;
	hop->verbs[0] = '\0';
	hop->mail_line[0] = '\0';
	hop->rcpt_line[0] = '\0';
	hop->body_len = 0;
	hop->messages = 0;
	hop->ends = 0;
	hop->chunks = 0;
	hop->chunks_after_refusal = 0;
	hop->has_spoken = false;
	hop->is_silent = false;
}

/* The owner of the delivery. */

static inline void rig_on_ready(struct client *client)
{
	(void)client;
	rig.is_ready = true;
}

static inline void rig_on_failed(struct client *client, const char *why)
{
	(void)client;
	fail_msg("no session: %s", why);
}

static inline void rig_on_reply(struct client *client, const struct reply *reply)
{
	(void)client;
	fail_msg("a reply that the delivery did not await: %u", reply->code);
}

static inline void rig_on_drained(struct client *client)
{
	(void)client;
}

static inline void rig_on_lost(struct client *client, const char *why)
{
	(void)client;
	(void)why;
}

static inline void rig_on_closed(struct client *client)
{
	(void)client;
	rig.is_closed = true;
}

static const struct client_events rig_client_events = {
	.on_ready = rig_on_ready,
	.on_failed = rig_on_failed,
	.on_reply = rig_on_reply,
	.on_drained = rig_on_drained,
	.on_lost = rig_on_lost,
	.on_closed = rig_on_closed,
};

static inline uint32_t rig_pick(
	struct delivery *delivery, const struct envelope *envelope, uint32_t *indexes, uint32_t max)
{
	assert_ptr_equal(delivery, &rig.delivery);
	assert_true(rig.pick_count <= max && envelope->rcpt_count == rig.spool.envelope.rcpt_count);
	memcpy(indexes, rig.picks, rig.pick_count * sizeof(*indexes));
	return rig.pick_count;
}

static inline void rig_on_result(struct delivery *delivery, const struct delivery_result *result)
{
	assert_false(rig.has_ended);
	assert_true(result->index < RIG_RCPTS_MAX);
	rig.told[result->index]++;
	rig.results[result->index] = *result;
	rig.is_answered = delivery->is_answered;
	/* A reply in any case, and the code is in it. */
	assert_int_equal(strtoul(result->text, NULL, 10), result->code);
	assert_null(strpbrk(result->text, "\r\n"));
}

static inline void rig_on_end(struct delivery *delivery, bool is_usable, int read_error)
{
	assert_false(rig.has_ended);
	assert_null(rig.spool.reader);
	if (rig.again > 0) {
		rig.again--;
		assert_true(is_usable);
		memset(rig.told, 0, sizeof(rig.told));
		delivery_start(delivery, &rig.spool, &rig.spool.message);
		return;
	}
	rig.has_ended = true;
	rig.is_usable = is_usable;
	rig.read_error = read_error;
	rig.is_answered = delivery->is_answered;
	(void)snprintf(
		rig.lost, sizeof(rig.lost), "%s", delivery->lost == NULL ? "" : delivery->lost);
	if (is_usable) {
		assert_int_equal(rig.client.owed, 0);
		assert_int_equal(conn_gathered(&rig.client.conn), 0);
		assert_false(rig.client.conn.is_corked);
	}
	rig.client.events = &rig_client_events;
	/* What nexthop_put() does; one that was lost ends by itself. */
	if (!is_usable && delivery->lost == NULL)
		client_abort(&rig.client);
}

static const struct delivery_events rig_events = {
	.pick = rig_pick,
	.on_result = rig_on_result,
	.on_end = rig_on_end,
};

static inline void rig_turn(void)
{
	hop_step(&rig.hop);
	loop_turn_now(rig.loop);
}

static inline void rig_await(const bool *what)
{
	timer_set(loop_timers(rig.loop), &guard, loop_now_ms(rig.loop) + GUARD_MS);
	for (unsigned turn = 0; !*what; turn++) {
		assert_true(turn < RIG_TURNS_MAX);
		rig_turn();
	}
}

/* A usable session with a next hop that follows the script. */
static inline void rig_connect(const struct hop_script *script)
{
	struct address to = {.len = sizeof(rig.hop.at)};
	int bytes = 8192;

	memcpy(&to.sockaddr, &rig.hop.at, sizeof(rig.hop.at));
	hop_begin(&rig.hop, script);
	rig.client = (struct client){.events = &rig_client_events,
		.connector = &rig.connector,
		.requirement = &rig.requirement,
		.host = "hop.test",
		.id = "test"};
	rig.is_ready = false;
	rig.is_closed = false;
	assert_int_equal(client_open(&rig.client, &rig.net, &to), 0);
	rig_await(&rig.is_ready);
	assert_int_equal(
		setsockopt(rig.client.conn.fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
}

/* Picks all that the message has, up to what one attempt takes. */
static inline void rig_pick_all(void)
{
	rig.pick_count = rig.spool.envelope.rcpt_count;
	for (uint32_t i = 0; i < rig.pick_count; i++)
		rig.picks[i] = i;
}

static inline void rig_start(void)
{
	memset(rig.told, 0, sizeof(rig.told));
	memset(rig.results, 0, sizeof(rig.results));
	rig.has_ended = false;
	rig.delivery.events = &rig_events;
	rig.delivery.owner = &rig;
	rig.delivery.client = &rig.client;
	delivery_start(&rig.delivery, &rig.spool, &rig.spool.message);
}

/* What each that was picked was told, one letter each; each must have been told once. */
static inline const char *rig_verdicts(void)
{
	static const char letters[] = "SFLU";
	static char text[RIG_RCPTS_MAX + 1];
	uint32_t at = 0;

	for (uint32_t i = 0; i < RIG_RCPTS_MAX; i++) {
		bool is_picked = at < rig.pick_count && rig.picks[at] == i;

		assert_int_equal(rig.told[i], is_picked);
		if (is_picked)
			text[at++] = letters[rig.results[i].verdict];
	}
	text[at] = '\0';
	return text;
}

/* One attempt, from its beginning to its end. */
static inline const char *rig_deliver(void)
{
	rig_start();
	rig_await(&rig.has_ended);
	return rig_verdicts();
}

/* The session ends, if it has not yet. */
static inline void rig_disconnect(void)
{
	if (!rig.is_closed && rig.client.state == CLIENT_READY)
		client_quit(&rig.client);
	rig_await(&rig.is_closed);
	for (unsigned turn = 0; rig.hop.fd >= 0; turn++) {
		assert_true(turn < RIG_TURNS_MAX);
		rig_turn();
	}
}

static const char body_text[] = "Subject: test\r\n\r\nHello\r\n";

static const struct hop_script good = {.keywords = "PIPELINING CHUNKING"};

/* A message for count recipients, all of them picked. */
static inline void put_message(unsigned count)
{
	char path[64];

	spool_put(&rig.spool, span_of(body_text));
	for (unsigned i = 0; i < count; i++) {
		(void)snprintf(path, sizeof(path), "<r%u@adatum.test>", i);
		spool_add_rcpt(&rig.spool, path, "", "");
	}
	rig_pick_all();
}

/* Is the session in step? Then another message goes by it. */
static inline void assert_in_step(void)
{
	hop_begin(&rig.hop, &(struct hop_script){.keywords = rig.hop.script.keywords});
	put_message(2);
	assert_string_equal(rig_deliver(), "SS");
	assert_true(rig.is_usable);
	assert_int_equal(rig.hop.messages, 1);
	assert_int_equal(rig.hop.body_len, strlen(body_text));
}

static inline int rig_setup(void **state)
{
	static const struct ktls_support no_ktls;

	(void)state;
	caps = &found;
	rig.loop = loop_begin_with(64);
	assert_int_equal(conn_net_create(&rig.net, rig.loop, 4, 4, &no_ktls), 0);
	rig.connector = (struct send_connector){.name = "out",
		.fqdn = "relay.test",
		.chunking = true,
		.connect_timeout_ms = RIG_PATIENCE_MS,
		.tls_auth_level = TLS_AUTH_NONE,
		.connection_inactivity_timeout_ms = RIG_PATIENCE_MS};
	hop_open(&rig.hop);
	delivery_init(&rig.delivery);
	return 0;
}

static inline int rig_teardown(void **state)
{
	(void)state;
	hop_close(&rig.hop);
	(void)close(rig.hop.listener);
	free(rig.hop.in);
	free(rig.hop.body);
	conn_net_destroy(&rig.net);
	loop_destroy(&rig.loop);
	return 0;
}

/* Runs the tests with one rig; 77: there is no io_uring here. */
#define RIG_RUN(tests)                                               \
	(loop_probe(&found) < 0 ? (printf("no io_uring here\n"), 77) \
				: cmocka_run_group_tests(tests, rig_setup, rig_teardown))
