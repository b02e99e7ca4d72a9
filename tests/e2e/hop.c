/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/e2e/hop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct hop_session {
	struct hop *hop;
	struct wire wire;
	struct text line;
	struct hop_message message; /* under way */
	bool has_mail;
	unsigned carried; /* messages */
	bool is_cut_off;  /* counted already */
	bool has_acted;   /* at HOP_BODY, in this message */
};

enum hop_go {
	HOP_GO,   /* as usual; the usual reply was not sent */
	HOP_DONE, /* the plan's reply was sent */
	HOP_OVER, /* the session ends */
};

/* Waits of a session are long: the relay has the shorter ones. */
static unsigned hop_patience_ms(void)
{
	return 6 * wire_patience_ms();
}

static void hop_add(struct hop *hop, unsigned *counter)
{
	(void)pthread_mutex_lock(&hop->lock);
	(*counter)++;
	(void)pthread_cond_broadcast(&hop->changed);
	(void)pthread_mutex_unlock(&hop->lock);
}

/* The session ends inside a body, or between two of its chunks. */
static void hop_cut_off(struct hop_session *session)
{
	if (!session->is_cut_off)
		hop_add(session->hop, &session->hop->cut_off);
	session->is_cut_off = true;
}

static bool hop_reply(struct hop_session *session, const char *reply)
{
	struct text text = {0};
	bool done;

	text_print(&text, "%s\r\n", reply);
	done = wire_write(&session->wire, text.data, text.len);
	text_free(&text);
	return done;
}

/* An end, and a wait for the relay's own, so that nothing is lost to a RST. */
static void hop_close(struct hop_session *session, bool with_goodbye)
{
	if (with_goodbye && session->wire.ssl != NULL)
		(void)wire_say_goodbye(&session->wire);
	wire_finish(&session->wire);
	(void)wire_drain(&session->wire, hop_patience_ms());
}

static enum hop_go hop_act(struct hop_session *session, const struct hop_plan *plan)
{
	switch (plan->act) {
	case HOP_ANSWER:
		if (!hop_reply(session, plan->answer))
			return HOP_OVER;
		if (strncmp(plan->answer, "421", 3) != 0)
			return HOP_DONE;
		hop_close(session, true);
		return HOP_OVER;
	case HOP_STALL:
		while (session->wire.end == WIRE_OPEN)
			(void)wire_drain(&session->wire, hop_patience_ms());
		return HOP_OVER;
	case HOP_DEAF:
		pause_ms(hop_patience_ms());
		return HOP_OVER;
	case HOP_CLOSE:
		hop_close(session, true);
		return HOP_OVER;
	case HOP_FIN:
		hop_close(session, false);
		return HOP_OVER;
	case HOP_RESET:
		wire_reset(&session->wire);
		return HOP_OVER;
	case HOP_UPDATE:
		(void)wire_update_keys(&session->wire, SSL_KEY_UPDATE_NOT_REQUESTED);
		return HOP_GO;
	case HOP_UPDATE_ASKED:
		(void)wire_update_keys(&session->wire, SSL_KEY_UPDATE_REQUESTED);
		return HOP_GO;
	case HOP_INJECT:
		return HOP_GO;
	case HOP_SLEEP:
		pause_ms(1000);
		return HOP_GO;
	}
	return HOP_OVER;
}

/* Is it this session's turn to misbehave, at this step? */
static bool hop_is_due(struct hop_session *session, enum hop_step step, struct hop_plan *out)
{
	struct hop *hop = session->hop;
	bool is_due;

	(void)pthread_mutex_lock(&hop->lock);
	*out = hop->plan;
	is_due = hop->plan.step == step && session->carried >= hop->plan.after;
	if (is_due) {
		hop->acted++;
		(void)pthread_cond_broadcast(&hop->changed);
	}
	(void)pthread_mutex_unlock(&hop->lock);
	return is_due;
}

/* A step: the plan's way if it is due, else the usual reply. */
static enum hop_go hop_step(struct hop_session *session, enum hop_step step, const char *usual)
{
	struct hop_plan plan;
	struct text both = {0};
	enum hop_go go = HOP_GO;

	if (hop_is_due(session, step, &plan))
		go = hop_act(session, &plan);
	else
		plan.act = HOP_ANSWER;
	if (go != HOP_GO || usual == NULL)
		return go;
	text_print(&both, "%s", usual);
	if (plan.act == HOP_INJECT)
		text_print(&both, "\r\n%s", plan.answer);
	go = hop_reply(session, both.data) ? HOP_GO : HOP_OVER;
	text_free(&both);
	return go;
}

/* The message. */

static void hop_message_free(struct hop_message *message)
{
	text_free(&message->recipients);
	text_free(&message->body);
	*message = (struct hop_message){0};
}

/* The message is whole: it is kept, then answered. */
static enum hop_go hop_end_message(struct hop_session *session)
{
	struct hop *hop = session->hop;
	char reply[96];
	unsigned index;
	enum hop_go go;

	(void)pthread_mutex_lock(&hop->lock);
	index = hop->message_count;
	if (index < HOP_MESSAGES_MAX) {
		hop->messages[index] = session->message;
		session->message = (struct hop_message){0};
		hop->message_count++;
	}
	(void)pthread_mutex_unlock(&hop->lock);
	hop_message_free(&session->message);
	session->has_mail = false;
	(void)snprintf(reply, sizeof(reply), "250 2.0.0 <queued> as HOP-%u", index + 1);
	go = hop_step(session, HOP_END, NULL);
	if (go != HOP_GO)
		return go;
	/* Counted first, since the client may look as soon as it has the reply. */
	(void)pthread_mutex_lock(&hop->lock);
	hop->accepted++;
	if (index < HOP_MESSAGES_MAX)
		hop->messages[index].is_answered = true;
	(void)pthread_mutex_unlock(&hop->lock);
	if (!hop_reply(session, reply))
		return HOP_OVER;
	session->carried++;
	return hop_step(session, HOP_IDLE, NULL);
}

static void hop_saw_body(struct hop *hop, size_t bytes)
{
	(void)pthread_mutex_lock(&hop->lock);
	hop->body_seen = (unsigned)bytes;
	(void)pthread_cond_broadcast(&hop->changed);
	(void)pthread_mutex_unlock(&hop->lock);
}

/* More of a body, of which so much has come. */
static bool hop_wait_body(struct hop_session *session, size_t have)
{
	struct hop *hop = session->hop;

	hop_saw_body(hop, have);
	if (!session->has_acted && have >= hop->plan.body_bytes && hop->plan.act != HOP_ANSWER) {
		session->has_acted = true;
		if (hop_step(session, HOP_BODY, NULL) != HOP_GO)
			return false;
	}
	return wire_wait(&session->wire, hop_patience_ms()) && session->wire.end == WIRE_OPEN;
}

/*
 * Takes lines with their CR LF off raw, from *at on, and the stuffed dots out of them
 * (RFC 5321 4.5.2). True at the end of data; *at is then behind it.
 */
static bool hop_unstuff(const struct text *raw, size_t *at, struct text *out)
{
	size_t end;

	while ((end = text_line_end(raw, *at)) < raw->len) {
		size_t from = *at;
		bool has_dot = raw->data[from] == '.';

		*at = end + 2;
		if (has_dot && end - from == 1)
			return true;
		from += has_dot ? 1 : 0;
		text_add(out, raw->data + from, end + 2 - from);
	}
	return false;
}

static enum hop_go hop_take_data(struct hop_session *session)
{
	struct wire *wire = &session->wire;
	struct text *body = &session->message.body;
	size_t at = 0;

	while (!hop_unstuff(&wire->in, &at, body)) {
		text_drop(&wire->in, at);
		at = 0;
		if (!hop_wait_body(session, body->len)) {
			hop_cut_off(session);
			return HOP_OVER;
		}
	}
	text_drop(&wire->in, at);
	return hop_end_message(session);
}

static enum hop_go hop_take_chunk(struct hop_session *session, const char *argument)
{
	struct wire *wire = &session->wire;
	char *rest;
	size_t bytes = strtoul(argument, &rest, 10);
	bool is_first = !session->message.by_bdat;
	enum hop_go go = HOP_GO;

	session->message.by_bdat = true;
	while (bytes > 0) {
		size_t take = wire->in.len < bytes ? wire->in.len : bytes;

		if (take > 0)
			text_add(&session->message.body, wire->in.data, take);
		text_drop(&wire->in, take);
		bytes -= take;
		if (bytes > 0 && !hop_wait_body(session, session->message.body.len)) {
			hop_cut_off(session);
			return HOP_OVER;
		}
	}
	hop_saw_body(session->hop, session->message.body.len);
	/* Small chunks: the body may have grown past the mark between two of them. */
	if (session->message.body.len >= session->hop->plan.body_bytes && !session->has_acted) {
		session->has_acted = true;
		go = hop_step(session, HOP_BODY, NULL);
	}
	if (go == HOP_GO && is_first)
		go = hop_step(session, HOP_DATA, NULL);
	if (go == HOP_DONE) {
		hop_message_free(&session->message);
		session->has_mail = false;
		return HOP_GO;
	}
	if (go == HOP_OVER)
		return HOP_OVER;
	if (strcmp(rest, " LAST") == 0)
		return hop_end_message(session);
	return hop_reply(session, "250 2.0.0 chunk taken") ? HOP_GO : HOP_OVER;
}

/* The envelope. */

static enum hop_go hop_take_mail(struct hop_session *session, const char *line)
{
	enum hop_go go;

	hop_add(session->hop, &session->hop->mails);
	if (session->has_mail)
		return hop_reply(session, "503 5.5.1 nested MAIL") ? HOP_GO : HOP_OVER;
	go = hop_step(session, HOP_MAIL, "250 2.1.0 hop likes the sender");
	if (go == HOP_GO) {
		hop_message_free(&session->message);
		session->has_mail = true;
		session->has_acted = false;
		(void)snprintf(session->message.sender, sizeof(session->message.sender), "%.100s",
			line + strlen("MAIL FROM:"));
	}
	return go;
}

static enum hop_go hop_take_rcpt(struct hop_session *session, const char *line)
{
	const char *address = line + strlen("RCPT TO:");
	const char *reply = "250 2.1.5 hop likes the recipient";
	enum hop_go go;

	if (!session->has_mail)
		reply = "503 5.5.1 RCPT without MAIL";
	else if (strncmp(address, "<refused", 8) == 0)
		reply = "550 5.1.1 hop knows no such user";
	else if (strncmp(address, "<later", 6) == 0)
		reply = "450 4.2.0 hop may know them later";
	go = hop_step(session, HOP_RCPT, reply);
	if (go == HOP_GO && reply[0] == '2') {
		text_print(&session->message.recipients, "%.300s\n", address);
		session->message.recipient_count++;
	}
	return go;
}

static enum hop_go hop_take_body(struct hop_session *session, const char *line)
{
	bool is_data = strcmp(line, "DATA") == 0;
	enum hop_go go;

	if (session->message.recipient_count == 0) {
		/* Chunks are consumed even so (RFC 3030 2). */
		size_t bytes = is_data ? 0 : strtoul(line + 5, NULL, 10);

		while (session->wire.in.len < bytes &&
			wire_wait(&session->wire, hop_patience_ms()) &&
			session->wire.end == WIRE_OPEN)
			;
		if (session->wire.in.len < bytes)
			return HOP_OVER;
		text_drop(&session->wire.in, bytes);
		return hop_reply(session, "503 5.5.1 no recipients") ? HOP_GO : HOP_OVER;
	}
	if (!is_data)
		return hop_take_chunk(session, line + 5);
	go = hop_step(session, HOP_DATA, "354 hop waits for the body");
	return go == HOP_GO ? hop_take_data(session) : go;
}

/* The session. */

static enum hop_go hop_take_ehlo(struct hop_session *session)
{
	unsigned lacks = session->hop->plan.lacks;
	struct text reply = {0};
	enum hop_go go;

	text_print(&reply, "250-mx.treyresearch.test\r\n250-PIPELINING\r\n250-SIZE 2000000000\r\n");
	text_print(&reply, "250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250-SMTPUTF8\r\n");
	if (!(lacks & HOP_NO_8BITMIME))
		text_print(&reply, "250-8BITMIME\r\n");
	if (!(lacks & HOP_NO_CHUNKING))
		text_print(&reply, "250-CHUNKING\r\n");
	if (!(lacks & (HOP_NO_CHUNKING | HOP_NO_BINARYMIME)))
		text_print(&reply, "250-BINARYMIME\r\n");
	if (session->wire.ssl == NULL && !(lacks & HOP_NO_STARTTLS))
		text_print(&reply, "250-STARTTLS\r\n");
	text_print(&reply, "250 HELP");
	go = hop_step(session, session->wire.ssl == NULL ? HOP_EHLO : HOP_EHLO_TLS, reply.data);
	text_free(&reply);
	return go;
}

static enum hop_go hop_take_starttls(struct hop_session *session)
{
	enum hop_go go = hop_step(session, HOP_STARTTLS, "220 2.0.0 hop is ready for TLS");

	if (go == HOP_GO)
		go = hop_step(session, HOP_HANDSHAKE, NULL);
	if (go != HOP_GO)
		return go;
	if (!wire_handshake(&session->wire, session->hop->ctx, true, NULL))
		return HOP_OVER;
	hop_add(session->hop, &session->hop->handshakes);
	return HOP_GO;
}

static enum hop_go hop_take_line(struct hop_session *session, const char *line)
{
	if (strncmp(line, "EHLO ", 5) == 0)
		return hop_take_ehlo(session);
	if (strcmp(line, "STARTTLS") == 0)
		return hop_take_starttls(session);
	if (strncmp(line, "MAIL FROM:", 10) == 0)
		return hop_take_mail(session, line);
	if (strncmp(line, "RCPT TO:", 8) == 0)
		return hop_take_rcpt(session, line);
	if (strcmp(line, "DATA") == 0 || strncmp(line, "BDAT ", 5) == 0)
		return hop_take_body(session, line);
	if (strcmp(line, "RSET") == 0) {
		hop_message_free(&session->message);
		session->has_mail = false;
		return hop_reply(session, "250 2.0.0 reset") ? HOP_GO : HOP_OVER;
	}
	if (strcmp(line, "QUIT") == 0) {
		hop_add(session->hop, &session->hop->quits);
		(void)hop_reply(session, "221 2.0.0 bye");
		hop_close(session, true);
		return HOP_OVER;
	}
	return hop_reply(session, "500 5.5.1 hop does not know this command") ? HOP_GO : HOP_OVER;
}

static void *hop_serve(void *arg)
{
	struct hop_session *session = arg;
	struct hop *hop = session->hop;
	const char *line;

	if (hop_step(session, HOP_GREETING, "220 mx.treyresearch.test ESMTP hop") != HOP_OVER) {
		while ((line = wire_line(&session->wire, &session->line, hop_patience_ms())) !=
			NULL) {
			struct text copy = {0};
			enum hop_go go;

			text_print(&copy, "%.1000s", line);
			go = hop_take_line(session, copy.data);
			text_free(&copy);
			if (go == HOP_OVER)
				break;
		}
	}
	if (session->message.by_bdat)
		hop_cut_off(session);
	/* The relay's close_notify or FIN is answered in kind. */
	if (session->wire.fd >= 0 && session->wire.end == WIRE_GOODBYE)
		(void)wire_say_goodbye(&session->wire);
	wire_close(&session->wire);
	hop_message_free(&session->message);
	text_free(&session->line);
	free(session);
	hop_add(hop, &hop->ended);
	return NULL;
}

static void *hop_accept(void *arg)
{
	struct hop *hop = arg;

	for (;;) {
		int fd = accept4(hop->fd, NULL, NULL, SOCK_CLOEXEC);
		struct hop_session *session;
		pthread_t thread;

		if (fd < 0 && errno != EINTR)
			return NULL;
		if (fd < 0)
			continue;
		session = calloc(1, sizeof(*session));
		if (session == NULL)
			abort();
		session->hop = hop;
		wire_open(&session->wire, fd);
		hop_add(hop, &hop->sessions);
		if (pthread_create(&thread, NULL, hop_serve, session) != 0)
			abort();
		(void)pthread_detach(thread);
	}
}

/* Listening. */

static int hop_bind(int backlog, uint16_t *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)inet_pton(AF_INET, suite.address, &address.sin_addr);
	case_check(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
			   (backlog < 0 || listen(fd, backlog) == 0) &&
			   getsockname(fd, (struct sockaddr *)&address, &len) == 0,
		"cannot listen on %s: %s", suite.address, strerror(errno));
	*port = ntohs(address.sin_port);
	return fd;
}

void hop_start(struct hop *hop, const struct hop_plan *plan)
{
	pthread_t thread;

	*hop = (struct hop){.plan = *plan};
	(void)pthread_mutex_init(&hop->lock, NULL);
	(void)pthread_cond_init(&hop->changed, NULL);
	hop->ctx = tls_side_make(&plan->tls, true);
	case_check(hop->ctx != NULL, "the next hop's TLS context cannot be made");
	hop->fd = hop_bind(64, &hop->port);
	case_check(pthread_create(&thread, NULL, hop_accept, hop) == 0, "no thread");
	(void)pthread_detach(thread);
}

void hop_heal(struct hop *hop)
{
	(void)pthread_mutex_lock(&hop->lock);
	hop->plan.step = HOP_NEVER;
	(void)pthread_mutex_unlock(&hop->lock);
}

unsigned hop_count(struct hop *hop, const unsigned *counter)
{
	unsigned count;

	(void)pthread_mutex_lock(&hop->lock);
	count = *counter;
	(void)pthread_mutex_unlock(&hop->lock);
	return count;
}

void hop_await(struct hop *hop, const unsigned *counter, unsigned count, const char *what)
{
	uint64_t until = now_ms() + wire_patience_ms();

	while (hop_count(hop, counter) < count) {
		case_check(now_ms() < until, "next hop: %u %s, expected %u",
			hop_count(hop, counter), what, count);
		pause_ms(2);
	}
}

uint16_t hop_dead_port(void)
{
	uint16_t port;

	/* Bound, and not listening: nobody else can take it. */
	(void)hop_bind(-1, &port);
	return port;
}

uint16_t hop_mute_port(void)
{
	uint16_t port;

	(void)hop_bind(0, &port);
	for (unsigned i = 0; i < 2; i++) {
		struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		(void)inet_pton(AF_INET, suite.address, &to.sin_addr);
		(void)connect(fd, (struct sockaddr *)&to, sizeof(to));
	}
	pause_ms(20);
	return port;
}
