/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/sink.h"

#include "tests/crash/ledger.h"
#include "tests/crash/line.h"
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SINK_RCPTS_MAX 128

/* A letter, and what carriers put in front of it. */
#define SINK_BYTES_MAX (LETTER_BYTES_MAX + 65536)

struct sink_talk {
	struct line line;
	uint64_t lot;
	char *body;
	size_t bytes;
	uint64_t sender; /* the number in it; UINT64_MAX: there is no transaction */
	uint64_t ids[SINK_RCPTS_MAX];
	unsigned rcpts[SINK_RCPTS_MAX];
	unsigned count;
	/* What the last 250 was for, until a command comes behind it. */
	uint64_t said_ids[SINK_RCPTS_MAX];
	unsigned said_rcpts[SINK_RCPTS_MAX];
	unsigned said;
};

static int sink_listener;
static uint16_t sink_port;
static uint64_t sink_seed;
static enum sink_spoil sink_spoil;
static _Atomic enum sink_mood sink_mood;
static atomic_uint sink_talks;
static atomic_uint sink_accepted;

static void sink_wait_ms(unsigned ms)
{
	const struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};

	(void)nanosleep(&time, NULL);
}

static uint64_t sink_lot(struct sink_talk *talk)
{
	talk->lot = letter_lot(talk->lot, talk->bytes);
	return talk->lot >> 8;
}

/* Puts off, by lot? In which of four places says the same lot. */
static bool sink_is_busy(struct sink_talk *talk)
{
	return atomic_load(&sink_mood) == SINK_BUSY && sink_lot(talk) % 6 == 0;
}

static bool sink_say(struct sink_talk *talk, const char *text)
{
	if (atomic_load(&sink_mood) == SINK_SLOW)
		sink_wait_ms(1 + (unsigned)(sink_lot(talk) % 15));
	return line_say(&talk->line, text);
}

static void sink_forget(struct sink_talk *talk)
{
	talk->sender = UINT64_MAX;
	talk->count = 0;
	talk->bytes = 0;
}

static bool sink_mail(struct sink_talk *talk, const char *line)
{
	const char *open = strstr(line, "<c");

	sink_forget(talk);
	if (sink_is_busy(talk))
		return sink_say(talk, "451 4.3.2 not now\r\n");
	/* A notice comes from nobody, and is no letter. */
	talk->sender = open == NULL ? UINT64_MAX - 1 : strtoull(open + 2, NULL, 10);
	return sink_say(talk, "250 2.1.0 sender\r\n");
}

static bool sink_rcpt(struct sink_talk *talk, const char *line)
{
	const char *open = strstr(line, "<r");
	char *rest;

	if (talk->sender == UINT64_MAX)
		return sink_say(talk, "503 5.5.1 MAIL first\r\n");
	if (open == NULL || talk->count == SINK_RCPTS_MAX)
		return sink_say(talk, "550 5.1.1 nobody\r\n");
	if (sink_is_busy(talk))
		return sink_say(talk, "451 4.3.2 not now\r\n");
	talk->rcpts[talk->count] = (unsigned)strtoul(open + 2, &rest, 10);
	talk->ids[talk->count] = *rest == '.' ? strtoull(rest + 1, NULL, 10) : UINT64_MAX;
	talk->count++;
	return sink_say(talk, "250 2.1.5 recipient\r\n");
}

/* The message is here: is it what it was, and for whom it was? */
static void sink_take(struct sink_talk *talk)
{
	uint64_t lot = sink_lot(talk) % 100;
	uint64_t id;

	if (sink_spoil == SINK_CORRUPT && lot == 0)
		talk->body[talk->bytes / 2] ^= 1;
	if (!letter_is_good(talk->body, talk->bytes, &id)) {
		ledger_bad("is not what was sent", id);
		return;
	}
	for (unsigned i = 0; i < talk->count; i++) {
		if (talk->ids[i] != id || talk->sender != id) {
			ledger_bad("came with another's envelope", id);
			continue;
		}
		if (sink_spoil == SINK_LOSES && lot == 0)
			continue;
		ledger_took(id, talk->rcpts[i]);
		if (sink_spoil == SINK_TWICE && lot == 0)
			ledger_took(id, talk->rcpts[i]);
	}
}

static bool sink_finish(struct sink_talk *talk)
{
	if (sink_is_busy(talk)) {
		sink_forget(talk);
		return sink_say(talk, "451 4.3.2 not now\r\n");
	}
	sink_take(talk);
	memcpy(talk->said_ids, talk->ids, sizeof(talk->ids));
	memcpy(talk->said_rcpts, talk->rcpts, sizeof(talk->rcpts));
	talk->said = talk->count;
	sink_forget(talk);
	return sink_say(talk, "250 2.6.0 taken\r\n");
}

static bool sink_data(struct sink_talk *talk)
{
	char line[LINE_BYTES_MAX];

	if (talk->count == 0)
		return sink_say(talk, "554 5.5.1 no valid recipients\r\n");
	if (sink_is_busy(talk)) {
		sink_forget(talk);
		return sink_say(talk, "451 4.3.2 not now\r\n");
	}
	if (!sink_say(talk, "354 go on\r\n"))
		return false;
	for (;;) {
		size_t length;
		const char *text = line;

		if (!line_read(&talk->line, line))
			return false;
		if (strcmp(line, ".") == 0)
			return sink_finish(talk);
		text += *text == '.';
		length = strlen(text);
		if (talk->bytes + length + 2 > SINK_BYTES_MAX)
			return false;
		memcpy(talk->body + talk->bytes, text, length);
		memcpy(talk->body + talk->bytes + length, "\r\n", 2);
		talk->bytes += length + 2;
	}
}

static bool sink_bdat(struct sink_talk *talk, const char *line)
{
	char *rest;
	size_t bytes = strtoull(line + 5, &rest, 10);

	if (talk->bytes + bytes > SINK_BYTES_MAX ||
		!line_read_bytes(&talk->line, talk->body + talk->bytes, bytes))
		return false;
	if (talk->count == 0)
		return sink_say(talk, "554 5.5.1 no valid recipients\r\n");
	talk->bytes += bytes;
	if (strcasecmp(rest, " LAST") == 0)
		return sink_finish(talk);
	return sink_say(talk, "250 2.0.0 chunk\r\n");
}

static bool sink_command(struct sink_talk *talk, const char *line)
{
	for (unsigned i = 0; i < talk->said; i++)
		ledger_heard(talk->said_ids[i], talk->said_rcpts[i]);
	talk->said = 0;
	if (strncasecmp(line, "EHLO", 4) == 0)
		return sink_say(talk, "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n"
				      "250-SIZE 104857600\r\n250 CHUNKING\r\n");
	if (strncasecmp(line, "MAIL", 4) == 0)
		return sink_mail(talk, line);
	if (strncasecmp(line, "RCPT", 4) == 0)
		return sink_rcpt(talk, line);
	if (strncasecmp(line, "DATA", 4) == 0)
		return sink_data(talk);
	if (strncasecmp(line, "BDAT ", 5) == 0)
		return sink_bdat(talk, line);
	if (strncasecmp(line, "QUIT", 4) == 0) {
		(void)sink_say(talk, "221 2.0.0 bye\r\n");
		return false;
	}
	sink_forget(talk);
	return sink_say(talk, "250 2.0.0 well\r\n");
}

static void *sink_talk(void *argument)
{
	struct sink_talk *talk = argument;
	char line[LINE_BYTES_MAX];

	sink_forget(talk);
	if (atomic_load(&sink_mood) != SINK_DEAD && sink_say(talk, "220 sink.test ESMTP\r\n")) {
		while (line_read(&talk->line, line) && sink_command(talk, line))
			;
	}
	line_close(&talk->line);
	free(talk->body);
	free(talk);
	(void)atomic_fetch_sub(&sink_talks, 1);
	return NULL;
}

static void *sink_run(void *argument)
{
	(void)argument;
	for (;;) {
		int fd = accept4(sink_listener, NULL, NULL, SOCK_CLOEXEC);
		struct sink_talk *talk;
		pthread_t thread;

		if (fd < 0)
			continue;
		talk = calloc(1, sizeof(*talk));
		if (talk == NULL || (talk->body = malloc(SINK_BYTES_MAX)) == NULL)
			abort();
		line_init(&talk->line, fd);
		talk->lot = letter_lot(sink_seed, atomic_load(&sink_accepted));
		(void)atomic_fetch_add(&sink_talks, 1);
		(void)atomic_fetch_add(&sink_accepted, 1);
		if (pthread_create(&thread, NULL, sink_talk, talk) != 0)
			abort();
		(void)pthread_detach(thread);
	}
	return NULL;
}

uint16_t sink_start(uint64_t seed, enum sink_spoil spoil)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	pthread_t thread;

	sink_seed = seed;
	sink_spoil = spoil;
	sink_listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sink_listener < 0 || bind(sink_listener, (struct sockaddr *)&at, sizeof(at)) < 0 ||
		listen(sink_listener, 512) < 0 ||
		getsockname(sink_listener, (struct sockaddr *)&at, &len) < 0 ||
		pthread_create(&thread, NULL, sink_run, NULL) != 0)
		abort();
	(void)pthread_detach(thread);
	sink_port = ntohs(at.sin_port);
	return sink_port;
}

void sink_set_mood(enum sink_mood mood)
{
	atomic_store(&sink_mood, mood);
}

void sink_settle(void)
{
	struct line line;
	char byte;

	/* Connections are accepted in the order in which they came: behind ours none is left. */
	if (line_connect(&line, sink_port)) {
		(void)line_read_bytes(&line, &byte, 1);
		line_close(&line);
	}
	while (atomic_load(&sink_talks) > 0)
		sink_wait_ms(1);
}
