/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/model.h"

#include "tests/crash/letter.h"
#include "tests/crash/line.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MODEL_COURIERS 4
#define MODEL_ENVELOPE_BYTES 4096

static struct {
	const struct model_keeper *keeper;
	const char *kind;
	const char *folder;
	int folder_fd;
	uint16_t port, sink_port;
	pthread_mutex_t lock;
	pthread_cond_t came;
	struct model_mail *first, **last;
	unsigned long number;
} model = {
	.lock = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER, .last = &model.first};

static bool model_is(const char *kind)
{
	return strcmp(model.kind, kind) == 0;
}

void model_mail_add(struct model_mail *mail, const char *bytes, size_t len)
{
	if (mail->len + len > mail->cap) {
		mail->cap = 2 * (mail->len + len);
		mail->bytes = realloc(mail->bytes, mail->cap);
		if (mail->bytes == NULL)
			abort();
	}
	memcpy(mail->bytes + mail->len, bytes, len);
	mail->len += len;
}

struct model_mail *model_mail_create(void)
{
	struct model_mail *mail = calloc(1, sizeof(*mail));

	if (mail == NULL)
		abort();
	return mail;
}

static void model_forget(struct model_mail *mail)
{
	free(mail->bytes);
	free(mail);
}

void model_queue(struct model_mail *mail)
{
	(void)pthread_mutex_lock(&model.lock);
	mail->next = NULL;
	*model.last = mail;
	model.last = &mail->next;
	(void)pthread_cond_signal(&model.came);
	(void)pthread_mutex_unlock(&model.lock);
}

static bool model_flush(int fd)
{
	return model_is("unflushed") || fsync(fd) == 0;
}

/* On disk, under a name that says so. */
static bool model_store(struct model_mail *mail)
{
	char draft[64];
	char name[64];
	bool is_stored;
	int fd;

	(void)pthread_mutex_lock(&model.lock);
	mail->number = ++model.number;
	(void)pthread_mutex_unlock(&model.lock);
	if (model_is("ack"))
		return true;
	(void)snprintf(draft, sizeof(draft), "%lu.draft", mail->number);
	(void)snprintf(name, sizeof(name), "%lu.mail", mail->number);
	fd = openat(model.folder_fd, draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	is_stored = fd >= 0 && write(fd, mail->bytes, mail->len) == (ssize_t)mail->len &&
		    model_flush(fd) &&
		    renameat(model.folder_fd, draft, model.folder_fd, name) == 0 &&
		    model_flush(model.folder_fd);
	(void)close(fd);
	return is_stored;
}

static void model_remove(struct model_mail *mail)
{
	char name[64];

	(void)snprintf(name, sizeof(name), "%lu.mail", mail->number);
	if (!model_is("forgetful") && !model_is("ack"))
		(void)unlinkat(model.folder_fd, name, 0);
}

/* Next hop. */

static bool model_say_body(struct line *line, const char *text, const char *end)
{
	while (text < end) {
		const char *next = memchr(text, '\n', (size_t)(end - text));

		next = next == NULL ? end : next + 1;
		if ((*text == '.' && !line_say(line, ".")) ||
			!line_write(line, text, (size_t)(next - text)))
			return false;
		text = next;
	}
	return line_say(line, ".\r\n");
}

/* All or nothing: the model has no memory for single recipients. */
static bool model_deliver(const struct model_mail *mail)
{
	static const char rest[] = "DATA\r\n";
	struct line line;
	const char *text = mail->bytes + strlen(mail->bytes) + 1;
	bool is_sent;

	if (!line_connect(&line, model.sink_port))
		return false;
	is_sent = line_reply(&line) == 220 && line_say(&line, "EHLO model.test\r\n") &&
		  line_reply(&line) == 250;
	for (const char *at = mail->bytes; is_sent && *at != '\0';) {
		const char *next = strchr(at, '\n') + 1;

		is_sent = line_write(&line, at, (size_t)(next - at)) && line_reply(&line) == 250;
		at = next;
	}
	is_sent = is_sent && line_say(&line, rest) && line_reply(&line) == 354 &&
		  model_say_body(&line, text, mail->bytes + mail->len) && line_reply(&line) == 250;
	if (is_sent && line_say(&line, "QUIT\r\n"))
		(void)line_reply(&line);
	line_close(&line);
	return is_sent;
}

static void *model_courier(void *unused)
{
	const struct timespec pause = {0, 50000000};

	(void)unused;
	for (;;) {
		struct model_mail *mail;

		(void)pthread_mutex_lock(&model.lock);
		while (model.first == NULL)
			(void)pthread_cond_wait(&model.came, &model.lock);
		mail = model.first;
		model.first = mail->next;
		if (model.first == NULL)
			model.last = &model.first;
		(void)pthread_mutex_unlock(&model.lock);
		if (!model_deliver(mail)) {
			(void)nanosleep(&pause, NULL);
			model_queue(mail);
			continue;
		}
		model.keeper->done(mail);
		model_forget(mail);
	}
	return NULL;
}

/* Clients. */

struct model_talk {
	struct line line;
	struct model_mail *mail;
	bool has_text;
};

static bool model_end(struct model_talk *talk)
{
	struct model_mail *mail = talk->mail;

	talk->mail = model_mail_create();
	talk->has_text = false;
	if (!model.keeper->store(mail)) {
		model_forget(mail);
		return line_say(&talk->line, "451 4.3.0 the disk\r\n");
	}
	model_queue(mail);
	return line_say(&talk->line, "250 2.6.0 kept\r\n");
}

static bool model_data(struct model_talk *talk)
{
	char line[LINE_BYTES_MAX];

	model_mail_add(talk->mail, "", 1);
	if (!line_say(&talk->line, "354 go on\r\n"))
		return false;
	while (line_read(&talk->line, line)) {
		const char *text = line[0] == '.' ? line + 1 : line;

		if (strcmp(line, ".") == 0)
			return model_end(talk);
		model_mail_add(talk->mail, text, strlen(text));
		model_mail_add(talk->mail, "\r\n", 2);
	}
	return false;
}

static bool model_bdat(struct model_talk *talk, const char *line)
{
	char *rest;
	size_t bytes = strtoull(line + 5, &rest, 10);
	char *chunk = malloc(bytes + 1);
	bool is_read = chunk != NULL && line_read_bytes(&talk->line, chunk, bytes);

	if (is_read) {
		if (!talk->has_text)
			model_mail_add(talk->mail, "", 1);
		talk->has_text = true;
		model_mail_add(talk->mail, chunk, bytes);
	}
	free(chunk);
	if (!is_read)
		return false;
	return strcmp(rest, " LAST") == 0 ? model_end(talk)
					  : line_say(&talk->line, "250 2.0.0 chunk\r\n");
}

static bool model_command(struct model_talk *talk, const char *line)
{
	if (strncasecmp(line, "EHLO", 4) == 0)
		return line_say(
			&talk->line, "250-model.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
	if (strncasecmp(line, "MAIL", 4) == 0)
		talk->mail->len = 0;
	if (strncasecmp(line, "MAIL", 4) == 0 || strncasecmp(line, "RCPT", 4) == 0) {
		model_mail_add(talk->mail, line, strlen(line));
		model_mail_add(talk->mail, "\r\n", 2);
	}
	if (strncasecmp(line, "DATA", 4) == 0)
		return model_data(talk);
	if (strncasecmp(line, "BDAT ", 5) == 0)
		return model_bdat(talk, line);
	return line_say(&talk->line, "250 2.0.0 well\r\n");
}

static void *model_talk(void *argument)
{
	struct model_talk *talk = argument;
	char line[LINE_BYTES_MAX];

	talk->mail = model_mail_create();
	if (line_say(&talk->line, "220 model.test ESMTP\r\n")) {
		while (line_read(&talk->line, line) && model_command(talk, line))
			;
	}
	line_close(&talk->line);
	model_forget(talk->mail);
	free(talk);
	return NULL;
}

/* The beginning. */

static void model_load(const char *name)
{
	struct model_mail *mail = model_mail_create();
	char bytes[65536];
	ssize_t count;
	int fd = openat(model.folder_fd, name, O_RDONLY | O_CLOEXEC);

	mail->number = strtoul(name, NULL, 10);
	while (fd >= 0 && (count = read(fd, bytes, sizeof(bytes))) > 0)
		model_mail_add(mail, bytes, (size_t)count);
	(void)close(fd);
	if (mail->number > model.number)
		model.number = mail->number;
	/* Only without a flush can it be less than it was. */
	if (mail->len > 0 && memchr(mail->bytes, '\0', mail->len) != NULL &&
		strncmp(mail->bytes, "MAIL", 4) == 0)
		model_queue(mail);
	else
		model_forget(mail);
}

static void model_load_all(void)
{
	DIR *folder = opendir(model.folder);
	const struct dirent *entry;

	while (folder != NULL && (entry = readdir(folder)) != NULL) {
		if (strstr(entry->d_name, ".mail") != NULL)
			model_load(entry->d_name);
		else if (strstr(entry->d_name, ".draft") != NULL)
			(void)unlinkat(model.folder_fd, entry->d_name, 0);
	}
	if (folder != NULL)
		(void)closedir(folder);
}

/* The ports, out of the relay's configuration. */
static bool model_read_config(const char *config)
{
	FILE *in = fopen(config, "re");
	char line[512];

	while (in != NULL && fgets(line, sizeof(line), in) != NULL) {
		const char *at = strstr(line, "127.0.0.1:");

		if (at != NULL && strstr(line, "bindings") != NULL)
			model.port = (uint16_t)strtoul(at + 10, NULL, 10);
		else if (at != NULL)
			model.sink_port = (uint16_t)strtoul(at + 10, NULL, 10);
	}
	if (in != NULL)
		(void)fclose(in);
	return model.port != 0 && model.sink_port != 0;
}

static int model_listen(void)
{
	const struct sockaddr_in at = {.sin_family = AF_INET,
		.sin_port = htons(model.port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const int one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
		bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 512) < 0)
		abort();
	return fd;
}

static void model_quit(int unused)
{
	(void)unused;
	_exit(0);
}

int model_serve(const char *config, const struct model_keeper *keeper)
{
	pthread_t thread;
	int listener;

	model.keeper = keeper;
	if (!model_read_config(config))
		return 2;
	(void)signal(SIGTERM, model_quit);
	listener = model_listen();
	for (unsigned i = 0; i < MODEL_COURIERS; i++) {
		if (pthread_create(&thread, NULL, model_courier, NULL) != 0)
			abort();
	}
	(void)fprintf(stderr, "event=ready\n");
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		struct model_talk *talk;

		if (fd < 0)
			continue;
		talk = calloc(1, sizeof(*talk));
		if (talk == NULL)
			abort();
		line_init(&talk->line, fd);
		if (pthread_create(&thread, NULL, model_talk, talk) != 0)
			abort();
		(void)pthread_detach(thread);
	}
}

int model_run(const char *kind, const char *config, const char *spool)
{
	static const struct model_keeper files = {.store = model_store, .done = model_remove};

	model.kind = kind;
	model.folder = spool;
	(void)mkdir(spool, 0700);
	model.folder_fd = open(spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (model.folder_fd < 0)
		return 2;
	model_load_all();
	return model_serve(config, &files);
}
