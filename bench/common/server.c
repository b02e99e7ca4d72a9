/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/server.h"

#include "bench/common/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void server_init(
	struct server *server, const struct server_policy *policy, struct server_counters *counters)
{
	*server = (struct server){.policy = policy, .counters = counters};
}

void server_fini(struct server *server)
{
	if (server->state == SERVER_DATA || server->in_bdat)
		SERVER_ADD(server->counters, incomplete, 1);
	free(server->out);
	server->out = NULL;
}

static void server_say(struct server *server, const char *text)
{
	size_t bytes = strlen(text);
	size_t room = server->out_room > 0 ? server->out_room : 1024;
	char *grown;

	while (room < server->out_bytes + bytes && room < SERVER_OUT_BYTES_MAX)
		room *= 2;
	if (room != server->out_room) {
		grown = realloc(server->out, room);
		if (grown == NULL)
			room = server->out_room;
		else
			server->out = grown;
		server->out_room = room;
	}
	if (server->out_bytes + bytes > room) {
		server->state = SERVER_CLOSE;
		return;
	}
	memcpy(server->out + server->out_bytes, text, bytes);
	server->out_bytes += bytes;
}

/* Forgets the transaction. */
static void server_reset(struct server *server)
{
	server->has_mail = server->has_rcpt = server->in_bdat = false;
	server->body_bytes = 0;
}

/* The reply is given now, or when its time has come. */
static void server_answer(struct server *server, const char *reply, enum server_state next)
{
	if (server->hold_ms == 0) {
		server->state = next;
		server_say(server, reply);
		return;
	}
	SERVER_ADD(server->counters, delays, 1);
	(void)snprintf(server->held, sizeof(server->held), "%s", reply);
	server->held_state = next;
	server->state = SERVER_HOLD;
}

void server_release(struct server *server)
{
	server->state = server->held_state;
	server_say(server, server->held);
}

/*
 * A reply of some step is due: how long it shall wait, and what is to go wrong. True: that has
 * been answered, and the step has failed.
 */
static bool server_fails(struct server *server, enum faults_step step)
{
	struct faults *faults = server->policy->faults;
	char reply[sizeof(server->held)];
	unsigned what;

	server->hold_ms = 0;
	if (faults == NULL)
		return false;
	server->hold_ms = faults_draw_delay(faults, step);
	what = faults_draw(faults, step);
	if (what == FAULTS_NONE)
		return false;
	SERVER_ADD(server->counters, faults[step], 1);
	if (what == FAULTS_CLOSE) {
		server_answer(server, "", SERVER_CLOSE);
		return true;
	}
	(void)snprintf(
		reply, sizeof(reply), "%u %u.3.0 injected by the sink\r\n", what, what / 100);
	server_answer(server, reply,
		what == 421 || step == FAULTS_ACCEPT ? SERVER_CLOSE : SERVER_COMMAND);
	return true;
}

static void server_check_end(struct server *server)
{
	switch (check_finish(&server->check)) {
	case CHECK_FOREIGN:
		SERVER_ADD(server->counters, foreign, 1);
		return;
	case CHECK_CORRUPT:
		SERVER_ADD(server->counters, corrupt, 1);
		return;
	case CHECK_GOOD:
		SERVER_ADD(server->counters, verified, 1);
		break;
	}
	if (!seen_add(server->policy->seen, server->check.run, server->check.id))
		SERVER_ADD(server->counters, duplicates, 1);
}

/* A whole message is here. */
static void server_message(struct server *server, bool is_bdat)
{
	struct server_counters *counters = server->counters;
	uint64_t now_us = clock_us();

	if (server_fails(server, FAULTS_BODY)) {
		server_reset(server);
		return;
	}
	SERVER_ADD(counters, messages, 1);
	SERVER_ADD(counters, message_bytes, server->body_bytes);
	if (is_bdat)
		SERVER_ADD(counters, bdat, 1);
	else
		SERVER_ADD(counters, data, 1);
	/* Each thread has counters of its own, which another only reads or sets to 0. */
	if (atomic_load_explicit(&counters->first_us, memory_order_relaxed) == 0)
		atomic_store_explicit(&counters->first_us, now_us, memory_order_relaxed);
	atomic_store_explicit(&counters->last_us, now_us, memory_order_relaxed);
	if (server->policy->is_verifying)
		server_check_end(server);
	server_reset(server);
	server_answer(server, "250 2.0.0 discarded\r\n", SERVER_COMMAND);
}

static void server_body_begin(struct server *server)
{
	server->body_bytes = 0;
	server->dot = DOT_LINE;
	check_init(&server->check);
}

static void server_take(void *owner, const char *text, size_t bytes)
{
	check_feed(owner, text, bytes);
}

static size_t server_data(struct server *server, const char *data, size_t bytes)
{
	size_t used = server->policy->is_verifying
			      ? dot_unstuff(&server->dot, data, bytes, server_take, &server->check)
			      : dot_feed(&server->dot, data, bytes);

	server->body_bytes += used;
	if (server->dot == DOT_END) {
		server->body_bytes -= 3;
		server_message(server, false);
	}
	return used;
}

static void server_wrong(struct server *server, const char *reply)
{
	SERVER_ADD(server->counters, bad_commands, 1);
	server_say(server, reply);
}

static void server_chunk_end(struct server *server)
{
	server->state = SERVER_COMMAND;
	if (server->is_void) {
		server->is_void = false;
		server_wrong(server, "503 5.5.1 no recipients\r\n");
	} else if (server->is_last) {
		server_message(server, true);
	} else {
		server_say(server, "250 2.0.0 chunk\r\n");
	}
}

static size_t server_chunk(struct server *server, const char *data, size_t bytes)
{
	size_t used = bytes < server->chunk_left ? bytes : (size_t)server->chunk_left;

	if (server->policy->is_verifying && !server->is_void)
		check_feed(&server->check, data, used);
	server->body_bytes += used;
	server->chunk_left -= used;
	if (server->chunk_left == 0)
		server_chunk_end(server);
	return used;
}

static void server_ehlo(struct server *server)
{
	server_reset(server);
	server_say(server,
		"250-sink.test\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
		"250-DSN\r\n");
	if (server->policy->has_chunking)
		server_say(server, "250-CHUNKING\r\n250-BINARYMIME\r\n");
	if (server->policy->has_starttls && !server->is_tls)
		server_say(server, "250-STARTTLS\r\n");
	server_say(server, "250 ENHANCEDSTATUSCODES\r\n");
}

static void server_bdat(struct server *server, const char *line)
{
	char *end = NULL;

	if (!server->policy->has_chunking) {
		server_wrong(server, "502 5.5.1 not implemented\r\n");
		return;
	}
	errno = 0;
	server->chunk_left = strtoull(line + 4, &end, 10);
	server->is_last = strcasecmp(end, " LAST") == 0;
	if (line[4] != ' ' || line[5] < '0' || line[5] > '9' || errno != 0 ||
		(*end != '\0' && !server->is_last)) {
		/* Where the chunk ends is unknown, so nothing behind it can be understood. */
		server_wrong(server, "501 5.5.4 BDAT size [LAST]\r\n");
		server->state = SERVER_CLOSE;
		return;
	}
	/* What was sent ahead of the refusal has to be read all the same (RFC 3030 2). */
	server->is_void = !server->has_rcpt;
	if (!server->in_bdat)
		server_body_begin(server);
	server->in_bdat = !server->is_void;
	server->state = SERVER_CHUNK;
	if (server->chunk_left == 0)
		server_chunk_end(server);
}

static void server_data_begin(struct server *server)
{
	if (!server->has_rcpt || server->in_bdat) {
		server_wrong(server, "503 5.5.1 no recipients, or BDAT before\r\n");
		return;
	}
	if (server_fails(server, FAULTS_DATA)) {
		server_reset(server);
		return;
	}
	server_body_begin(server);
	server_answer(server, "354 go on\r\n", SERVER_DATA);
}

static void server_mail(struct server *server)
{
	if (server->has_mail) {
		server_wrong(server, "503 5.5.1 nested MAIL\r\n");
		return;
	}
	if (server->policy->needs_tls && !server->is_tls) {
		server_wrong(server, "530 5.7.0 STARTTLS first\r\n");
		return;
	}
	if (server_fails(server, FAULTS_MAIL))
		return;
	server->has_mail = true;
	server_answer(server, "250 2.1.0 sender ok\r\n", SERVER_COMMAND);
}

static void server_rcpt(struct server *server)
{
	if (!server->has_mail) {
		server_wrong(server, "503 5.5.1 no MAIL\r\n");
		return;
	}
	if (server_fails(server, FAULTS_RCPT))
		return;
	server->has_rcpt = true;
	SERVER_ADD(server->counters, recipients, 1);
	server_answer(server, "250 2.1.5 recipient ok\r\n", SERVER_COMMAND);
}

static void server_starttls(struct server *server)
{
	if (!server->policy->has_starttls || server->is_tls) {
		server_wrong(server, "502 5.5.1 not implemented\r\n");
		return;
	}
	server_reset(server);
	server_say(server, "220 2.0.0 go on\r\n");
	server->state = SERVER_TLS;
}

static bool server_is_verb(const char *line, const char *verb)
{
	return strncasecmp(line, verb, strlen(verb)) == 0;
}

static void server_command(struct server *server, const char *line)
{
	if (server_is_verb(line, "MAIL FROM:")) {
		server_mail(server);
	} else if (server_is_verb(line, "RCPT TO:")) {
		server_rcpt(server);
	} else if (server_is_verb(line, "BDAT")) {
		server_bdat(server, line);
	} else if (strcasecmp(line, "DATA") == 0) {
		server_data_begin(server);
	} else if (server_is_verb(line, "EHLO ")) {
		server_ehlo(server);
	} else if (server_is_verb(line, "HELO ")) {
		server_reset(server);
		server_say(server, "250 sink.test\r\n");
	} else if (strcasecmp(line, "RSET") == 0) {
		server_reset(server);
		server_say(server, "250 2.0.0 ok\r\n");
	} else if (server_is_verb(line, "NOOP")) {
		server_say(server, "250 2.0.0 ok\r\n");
	} else if (server_is_verb(line, "VRFY")) {
		server_say(server, "252 2.0.0 perhaps\r\n");
	} else if (strcasecmp(line, "QUIT") == 0) {
		server_say(server, "221 2.0.0 bye\r\n");
		server->state = SERVER_CLOSE;
	} else if (strcasecmp(line, "STARTTLS") == 0) {
		server_starttls(server);
	} else {
		server_wrong(server, "500 5.5.2 unknown command\r\n");
	}
}

/* Takes bytes up to the end of the command line; handles it when it is whole. */
static size_t server_line(struct server *server, const char *data, size_t bytes)
{
	const char *end = memchr(data, '\n', bytes);
	size_t used = end != NULL ? (size_t)(end - data) + 1 : bytes;

	if (server->line_bytes + used > sizeof(server->line)) {
		server_wrong(server, "500 5.5.2 line too long\r\n");
		server->state = SERVER_CLOSE;
		return used;
	}
	memcpy(server->line + server->line_bytes, data, used);
	server->line_bytes += used;
	if (end == NULL)
		return used;
	/* The LF makes room for the NUL. */
	server->line[--server->line_bytes] = '\0';
	if (server->line_bytes > 0 && server->line[server->line_bytes - 1] == '\r')
		server->line[server->line_bytes - 1] = '\0';
	server->line_bytes = 0;
	server_command(server, server->line);
	return used;
}

void server_greet(struct server *server)
{
	if (!server_fails(server, FAULTS_ACCEPT))
		server_answer(server, "220 sink.test ESMTP\r\n", SERVER_COMMAND);
}

void server_secured(struct server *server)
{
	server_reset(server);
	server->is_tls = true;
	server->line_bytes = 0;
	server->state = SERVER_COMMAND;
}

size_t server_feed(struct server *server, const char *data, size_t bytes)
{
	size_t used = 0;

	while (used < bytes) {
		switch (server->state) {
		case SERVER_COMMAND:
			used += server_line(server, data + used, bytes - used);
			break;
		case SERVER_DATA:
			used += server_data(server, data + used, bytes - used);
			break;
		case SERVER_CHUNK:
			used += server_chunk(server, data + used, bytes - used);
			break;
		case SERVER_HOLD:
		case SERVER_TLS:
		case SERVER_CLOSE:
			return used;
		}
	}
	return used;
}
