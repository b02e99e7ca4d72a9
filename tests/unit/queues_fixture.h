/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * queues_fixture.h: the queues of a worker with a spool in a folder of its own, a clock that the
 * test moves, and next hops that answer by a script. All in one thread: the next hops take their
 * turn between two turns of the loop.
 */

#include "relay/base/clock.h"
#include "relay/base/stats.h"
#include "relay/mail/queues_private.h"
#include "relay/mail/spool_folder.h"
#include "tests/unit/config_fixture.h"
#include "tests/unit/loop_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#define HOPS 2
#define HOP_CONNS 64
#define HOP_MESSAGES 512
#define RIG_MS UINT64_C(30000)
#define MINUTE_MS INT64_C(60000)
#define HOUR_MS (60 * MINUTE_MS)

struct hop_conn {
	int fd;
	bool in_data;
	unsigned accepted;
	size_t len;
	char in[65536];
	char rcpts[4096]; /* of the transaction, accepted: "a@x b@x " */
	char sender[600];
	char body[8192];
	size_t body_len;
};

/* A message that the next hop took. */
struct hop_message {
	char sender[600];
	char rcpts[4096];
	char body[8192];
};

/*
 * A recipient decides: "no..." gets 550, "later..." 451, all others 250. NULL: as a good next hop.
 */
struct hop {
	int listener; /* -1: nobody listens */
	unsigned port;
	const char *greeting, *mail, *end;
	const char *keywords; /* lines of EHLO between the first and the last */
	bool closes_at_mail;
	bool closes_at_end; /* without an answer to the message */
	bool holds_end;     /* the answer to the message does not come for now */
	struct hop_conn conns[HOP_CONNS];
	unsigned connections, mails;
	unsigned count; /* messages taken */
	struct hop_message messages[HOP_MESSAGES];
};

static struct rig {
	struct loop *loop;
	struct conn_net net;
	struct policy *policy;
	struct router *router;
	struct spool_folder *folder;
	struct spool *spools[2];
	unsigned spool_count;
	unsigned log; /* that mail is put into */
	struct queues *queues;
	char path[64];
	struct hop hops[HOPS];
	const char *config;
} rig;

static int64_t clock_ms;

static int64_t rig_now_ms(void)
{
	return clock_ms;
}

/* The next hops. */

static inline void hop_listen(struct hop *hop)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)hop->port)};
	socklen_t len = sizeof(at);
	const int on = 1;

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	hop->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_true(hop->listener >= 0);
	assert_int_equal(setsockopt(hop->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	assert_int_equal(bind(hop->listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(hop->listener, 64), 0);
	assert_int_equal(getsockname(hop->listener, (struct sockaddr *)&at, &len), 0);
	hop->port = ntohs(at.sin_port);
}

static inline void hop_hang_up(struct hop *hop)
{
	for (unsigned i = 0; i < HOP_CONNS; i++) {
		if (hop->conns[i].fd >= 0)
			(void)close(hop->conns[i].fd);
		hop->conns[i].fd = -1;
	}
}

/* Nobody is there any more, and those that were connected see the end. */
static inline void hop_down(struct hop *hop)
{
	if (hop->listener >= 0)
		(void)close(hop->listener);
	hop->listener = -1;
	hop_hang_up(hop);
}

static inline void hop_open(struct hop *hop)
{
	memset(hop, 0, sizeof(*hop));
	for (unsigned i = 0; i < HOP_CONNS; i++)
		hop->conns[i].fd = -1;
	hop_listen(hop);
}

static inline void hop_say(const struct hop_conn *conn, const char *line)
{
	(void)dprintf(conn->fd, "%s\r\n", line);
}

static inline void hop_take(struct hop *hop, struct hop_conn *conn)
{
	struct hop_message *message = &hop->messages[hop->count % HOP_MESSAGES];

	hop->count++;
	memcpy(message->sender, conn->sender, sizeof(message->sender));
	memcpy(message->rcpts, conn->rcpts, sizeof(message->rcpts));
	memcpy(message->body, conn->body, sizeof(message->body));
}

static inline void hop_end_data(struct hop *hop, struct hop_conn *conn)
{
	conn->in_data = false;
	if (hop->closes_at_end) {
		(void)close(conn->fd);
		conn->fd = -1;
		return;
	}
	if (hop->end != NULL) {
		hop_say(conn, hop->end);
		return;
	}
	hop_take(hop, conn);
	if (!hop->holds_end)
		hop_say(conn, "250 2.6.0 Queued mail for delivery");
}

/* The answers that were held back. */
static inline void hop_release(struct hop *hop)
{
	hop->holds_end = false;
	for (unsigned i = 0; i < HOP_CONNS; i++) {
		if (hop->conns[i].fd >= 0)
			hop_say(&hop->conns[i], "250 2.6.0 Queued mail for delivery");
	}
}

static inline void hop_on_rcpt(struct hop_conn *conn, const char *line)
{
	const char *path = strchr(line, '<') + 1;
	const size_t len = strcspn(path, ">");
	const size_t have = strlen(conn->rcpts);

	if (strncmp(path, "no", 2) == 0) {
		hop_say(conn, "550 5.1.1 No such user");
		return;
	}
	if (strncmp(path, "later", 5) == 0) {
		hop_say(conn, "451 4.2.0 Come back later");
		return;
	}
	conn->accepted++;
	assert_true(have + len + 2 < sizeof(conn->rcpts));
	(void)snprintf(conn->rcpts + have, sizeof(conn->rcpts) - have, "%.*s ", (int)len, path);
	hop_say(conn, "250 2.1.5 Recipient OK");
}

static inline void hop_on_mail(struct hop *hop, struct hop_conn *conn, const char *line)
{
	hop->mails++;
	conn->rcpts[0] = '\0';
	conn->accepted = 0;
	conn->body_len = 0;
	conn->body[0] = '\0';
	(void)snprintf(conn->sender, sizeof(conn->sender), "%.*s", (int)strcspn(line + 10, " "),
		line + 10);
	if (hop->closes_at_mail) {
		(void)close(conn->fd);
		conn->fd = -1;
		return;
	}
	hop_say(conn, hop->mail != NULL ? hop->mail : "250 2.1.0 Sender OK");
}

static inline void hop_on_line(struct hop *hop, struct hop_conn *conn, const char *line)
{
	if (conn->in_data) {
		const size_t len = strlen(line);

		if (strcmp(line, ".") == 0) {
			hop_end_data(hop, conn);
		} else if (conn->body_len + len + 2 < sizeof(conn->body)) {
			memcpy(conn->body + conn->body_len, line, len);
			conn->body_len += len;
			conn->body[conn->body_len++] = '\n';
			conn->body[conn->body_len] = '\0';
		}
	} else if (strncmp(line, "EHLO", 4) == 0) {
		hop_say(conn,
			hop->keywords != NULL ? hop->keywords : "250-hop.test\r\n250 PIPELINING");
	} else if (strncmp(line, "MAIL FROM:", 10) == 0) {
		hop_on_mail(hop, conn, line);
	} else if (strncmp(line, "RCPT TO:", 8) == 0) {
		hop_on_rcpt(conn, line);
	} else if (strcmp(line, "DATA") == 0) {
		conn->in_data = conn->accepted > 0;
		hop_say(conn, conn->in_data ? "354 Go on" : "554 5.5.1 No valid recipients");
	} else if (strcmp(line, "QUIT") == 0) {
		hop_say(conn, "221 2.0.0 Bye");
	} else {
		hop_say(conn, "250 2.0.0 OK");
	}
}

static inline bool hop_read(struct hop *hop, struct hop_conn *conn)
{
	const ssize_t got = recv(
		conn->fd, conn->in + conn->len, sizeof(conn->in) - conn->len - 1, MSG_DONTWAIT);
	char *line = conn->in;
	char *end;

	if (got < 0)
		return false;
	if (got == 0) {
		(void)close(conn->fd);
		conn->fd = -1;
		return true;
	}
	conn->len += (size_t)got;
	conn->in[conn->len] = '\0';
	while (conn->fd >= 0 && (end = strstr(line, "\r\n")) != NULL) {
		*end = '\0';
		hop_on_line(hop, conn, line);
		line = end + 2;
	}
	conn->len -= (size_t)(line - conn->in);
	memmove(conn->in, line, conn->len + 1);
	return true;
}

static inline bool hop_accept(struct hop *hop)
{
	const int fd = hop->listener < 0
			       ? -1
			       : accept4(hop->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	unsigned i = 0;

	if (fd < 0)
		return false;
	while (i < HOP_CONNS && hop->conns[i].fd >= 0)
		i++;
	if (i == HOP_CONNS) {
		fail_msg("more than %d connections", HOP_CONNS);
		return false;
	}
	hop->connections++;
	hop->conns[i].fd = fd;
	hop->conns[i].len = 0;
	hop->conns[i].in_data = false;
	hop_say(&hop->conns[i], hop->greeting != NULL ? hop->greeting : "220 hop.test ready");
	return true;
}

static inline bool hop_turn(struct hop *hop)
{
	bool did = hop_accept(hop);

	for (unsigned i = 0; i < HOP_CONNS; i++) {
		if (hop->conns[i].fd >= 0)
			did = hop_read(hop, &hop->conns[i]) || did;
	}
	return did;
}

/* Turns. */

static inline void rig_turn(void)
{
	bool did = false;

	loop_turn_now(rig.loop);
	for (unsigned i = 0; i < HOPS; i++)
		did = hop_turn(&rig.hops[i]) || did;
	if (!did)
		(void)poll(NULL, 0, 1);
}

/* So many turns in which nothing is expected to happen. */
static inline void rig_idle(unsigned turns)
{
	for (unsigned i = 0; i < turns; i++)
		rig_turn();
}

static inline void rig_turn_before(uint64_t until_ms, int line, const char *what)
{
	if (clock_now_ms() > until_ms)
		fail_msg("line %d: in vain: %s", line, what);
	rig_turn();
}

#define AWAIT(condition)                                                 \
	do {                                                             \
		const uint64_t until_ms = clock_now_ms() + RIG_MS;       \
		while (!(condition))                                     \
			rig_turn_before(until_ms, __LINE__, #condition); \
	} while (0)

static inline void rig_wait(int64_t ms)
{
	clock_ms += ms;
	queues_look(rig.queues);
	rig_idle(3);
}

/* Start and end. */

static inline void rig_set_policy(struct policy *policy)
{
	policy->queue = (struct queue_policy){.spool_folder = rig.path,
		.spool_segment_bytes = 16 << 20,
		.spool_max_bytes = 1 << 30,
		.max_messages = 120000,
		.glitch_retry_count = 4,
		.glitch_retry_ms = 60000,
		.transient_retry_count = 6,
		.transient_retry_ms = 600000,
		.steady_retry_ms = 1800000,
		.message_retry_ms = 900000,
		.delay_notification_ms = 14400000,
		.expiration_ms = 172800000,
		.idle_before_resubmit_ms = 43200000,
		.queue_idle_ms = 180000,
		.postmaster = "postmaster@contoso.test",
		.notice_original_bytes = 10 << 20,
		.pressure_medium = 96,
		.pressure_high = 99,
		.pressure_high_end = 97,
		.pressure_medium_end = 94,
		.tracking_log_subject = true};
	for (unsigned i = 0; i < policy->send_connector_count; i++)
		policy->send_connectors[i].max_deliveries = 20;
}

/* "@0" and "@1" in it are the ports of the next hops. */
static inline struct policy *rig_load(const char *config)
{
	struct policy *policy = NULL;
	char text[8192];
	size_t len = 0;

	for (const char *at = config; *at != '\0'; at++) {
		assert_true(len + 8 < sizeof(text));
		if (*at == '@')
			len += (size_t)snprintf(
				text + len, sizeof(text) - len, "%u", rig.hops[*++at - '0'].port);
		else
			text[len++] = *at;
	}
	text[len] = '\0';
	if (load_text(text, &policy) != 0)
		fail_msg("the configuration is not right: %s", said);
	rig_set_policy(policy);
	return policy;
}

static inline struct router *rig_router(const struct policy *policy)
{
	const struct router_options options = {.policy = policy, .net = &rig.net};
	struct router *router = NULL;

	assert_int_equal(router_create(&options, stderr, &router), 0);
	assert_int_equal(router_open(router), 0);
	return router;
}

static inline void rig_start(void)
{
	const struct spool_folder_options folder_options = {.path = rig.path,
		.segment_bytes = 16 << 20,
		.bytes_max = 1 << 30,
		.logs = rig.spool_count,
		.pressure_medium = 96,
		.pressure_high = 99,
		.pressure_high_end = 97,
		.pressure_medium_end = 94};
	const struct queues_options options = {.net = &rig.net,
		.spools = rig.spools,
		.spool_count = rig.spool_count,
		.policy = rig.policy,
		.now_ms = rig_now_ms};
	struct spool_options spool_options = {.loop = rig.loop, .events = &queues_spool_events};

	assert_int_equal(spool_folder_create(&folder_options, stderr, &rig.folder), 0);
	assert_int_equal(queues_create(&options, &rig.queues), 0);
	spool_options.folder = rig.folder;
	spool_options.owner = rig.queues;
	for (unsigned i = 0; i < rig.spool_count; i++) {
		spool_options.log = i;
		queues_replay_log(rig.queues, i);
		assert_int_equal(
			spool_create(&spool_options, &queues_replay, rig.queues, &rig.spools[i]),
			0);
	}
	rig.router = rig_router(rig.policy);
	queues_use(rig.queues, rig.router, rig.policy);
	queues_start(rig.queues);
}

/* Cuts all that is under way. */
static inline void rig_stop(void)
{
	queues_abort(rig.queues);
	AWAIT(queues_are_closed(rig.queues));
	router_drain(rig.router);
	router_abort(rig.router);
	AWAIT(router_is_closed(rig.router));
	for (unsigned i = 0; i < rig.spool_count; i++)
		spool_drain(rig.spools[i]);
	for (unsigned i = 0; i < rig.spool_count; i++) {
		AWAIT(spool_is_closed(rig.spools[i]));
		spool_destroy(&rig.spools[i]);
	}
	queues_destroy(&rig.queues);
	router_destroy(&rig.router);
	spool_folder_destroy(&rig.folder);
}

/* As after a restart of the relay. */
static inline void rig_restart(void)
{
	rig_stop();
	rig_start();
}

static inline int rig_setup(void **state)
{
	static const struct ktls_support no_ktls;

	if (fixture_setup(state) < 0)
		return -1;
	(void)snprintf(rig.path, sizeof(rig.path), "%s/spool", folder);
	clock_ms = INT64_C(1796000000000);
	for (unsigned i = 0; i < HOPS; i++)
		hop_open(&rig.hops[i]);
	assert_int_equal(loop_create(&found, 256, &rig.loop), 0);
	assert_int_equal(conn_net_create(&rig.net, rig.loop, 400, 16, &no_ktls), 0);
	rig.policy = rig_load(rig.config);
	rig.spool_count = rig.spool_count > 0 ? rig.spool_count : 1;
	rig.log = 0;
	rig_start();
	return 0;
}

static inline int rig_teardown(void **state)
{
	char path[128];

	rig_stop();
	for (unsigned i = 0; i < HOPS; i++)
		hop_down(&rig.hops[i]);
	policy_destroy(&rig.policy);
	rig_idle(5);
	conn_net_destroy(&rig.net);
	loop_destroy(&rig.loop);
	for (unsigned i = 0; i < rig.spool_count; i++) {
		(void)snprintf(path, sizeof(path), "%s/spool/%02u", folder, i);
		empty_folder(path);
	}
	rig.spool_count = 1;
	empty_folder(rig.path);
	(void)fixture_teardown(state);
	said = NULL;
	(void)snprintf(folder, sizeof(folder), "/tmp/postern-test-config-XXXXXX");
	return 0;
}

/* Mail. */

struct mail {
	struct spool_writer writer;
	struct message *message;
	size_t len;
	bool is_done;
	int result;
	uint8_t envelope[ENVELOPE_BYTES_MAX];
};

static void mail_on_room(struct spool_writer *writer)
{
	(void)writer;
}

static void mail_on_committed(struct spool_writer *writer, int result)
{
	struct mail *mail = OWNER_OF(writer, struct mail, writer);
	struct envelope envelope;

	mail->result = result;
	mail->is_done = true;
	if (result < 0)
		return;
	assert_true(envelope_read(span_make(mail->envelope, mail->len), &envelope));
	queues_submit(rig.queues, &mail->message, &envelope);
}

static void mail_on_broken(struct spool_writer *writer, int error)
{
	(void)writer;
	fail_msg("the spool broke: %d", error);
}

static const struct spool_writer_events mail_events = {
	.on_room = mail_on_room,
	.on_committed = mail_on_committed,
	.on_broken = mail_on_broken,
};

struct mail_options {
	const char *sender; /* NULL: <sender@contoso.test> */
	const char *notify;
	const char *send_connector;
	uint64_t says_bytes; /* the length that its envelope has, 0: the true one */
};

/* rcpts: paths with their brackets, blanks between. */
static inline void mail_encode(
	struct mail *mail, const char *rcpts, struct mail_options options, size_t body_bytes)
{
	struct envelope envelope = {.arrived_ms = clock_ms,
		.expires_ms = clock_ms + (int64_t)rig.policy->queue.expiration_ms,
		.body_bytes = options.says_bytes != 0 ? options.says_bytes : body_bytes,
		.header_bytes = body_bytes,
		.sender =
			span_of(options.sender != NULL ? options.sender : "<sender@contoso.test>"),
		.send_connector =
			span_of(options.send_connector != NULL ? options.send_connector : ""),
		.connector = span_of("in"),
		.session = span_of("0a1b"),
		.message_id = span_of("<1@contoso.test>"),
		.subject = span_of("Hello")};

	for (const char *at = rcpts; *at != '\0'; at++)
		envelope.rcpt_count += *at == '<';
	mail->len = envelope_write(&envelope, mail->envelope, sizeof(mail->envelope));
	assert_true(mail->len > 0);
	for (const char *at = strchr(rcpts, '<'); at != NULL; at = strchr(at + 1, '<')) {
		const struct envelope_rcpt rcpt = {.path = span_make(at, strcspn(at, ">") + 1),
			.notify = span_of(options.notify != NULL ? options.notify : ""),
			.orcpt = span_of("")};
		const size_t len = envelope_write_rcpt(
			&rcpt, mail->envelope + mail->len, sizeof(mail->envelope) - mail->len);

		assert_true(len > 0);
		mail->len += len;
	}
}

static inline void mail_begin(struct mail *mail, const char *rcpts, struct mail_options options)
{
	static const char body[] = "Subject: Hello\r\n\r\nHello\r\n";

	mail->is_done = false;
	mail->message = message_take(rig.queues, rig.spools[rig.log]);
	assert_non_null(mail->message);
	spool_writer_init(&mail->writer, rig.spools[rig.log], &mail_events);
	AWAIT(spool_begin(&mail->writer, message_spool(mail->message)->id) == 0);
	AWAIT(spool_room(&mail->writer) > 0);
	spool_write(&mail->writer, span_of(body));
	mail_encode(mail, rcpts, options, sizeof(body) - 1);
	spool_commit(&mail->writer, span_make(mail->envelope, mail->len), DURABILITY_RELAXED,
		message_spool(mail->message));
}

/* Returns the id. */
static inline uint64_t mail_send_with(const char *rcpts, struct mail_options options)
{
	static struct mail mail;
	uint64_t id;

	mail_begin(&mail, rcpts, options);
	id = message_spool(mail.message)->id;
	AWAIT(mail.is_done);
	assert_int_equal(mail.result, 0);
	return id;
}

static inline uint64_t mail_send(const char *rcpts)
{
	return mail_send_with(rcpts, (struct mail_options){0});
}

/* Questions. */

static inline uint64_t rig_messages(void)
{
	struct queues_facts facts;

	queues_facts(rig.queues, &facts);
	return facts.messages;
}

static struct queue_row queue_rows[64];
static struct message_row message_rows[64];
static struct queue_ask ask;

/* Asks to the end; returns how many turns that took. */
static inline unsigned rig_ask(
	enum queue_verb verb, const struct queue_filter *filter, const char *target)
{
	unsigned turns = 0;

	memset(&ask, 0, sizeof(ask));
	ask.verb = verb;
	if (filter != NULL)
		ask.filter = *filter;
	(void)snprintf(ask.target, sizeof(ask.target), "%s", target != NULL ? target : "");
	ask.rows_max = COUNT_OF(queue_rows);
	ask.queue_rows = queue_rows;
	ask.message_rows = message_rows;
	for (; !ask.is_done; turns++) {
		assert_true(turns < 100000);
		queue_ask_run(rig.queues, &ask);
		if (!ask.is_done)
			rig_turn();
	}
	return turns;
}

/* The row of that queue; one that is empty, without a name, if there is none. */
static inline const struct queue_row *rig_queue(const char *identity)
{
	struct queue_filter filter = {.has_status = false};

	(void)snprintf(filter.queue, sizeof(filter.queue), "%s", identity);
	(void)rig_ask(QUEUE_ASK_LIST, &filter, NULL);
	if (ask.rows == 0)
		queue_rows[0] = (struct queue_row){.messages = 0};
	return &queue_rows[0];
}

static inline uint64_t rig_do(enum queue_verb verb, const char *queue, const char *target)
{
	struct queue_filter filter = {.has_status = false};

	(void)snprintf(filter.queue, sizeof(filter.queue), "%s", queue);
	(void)rig_ask(verb, &filter, target);
	return ask.matched;
}

static inline uint64_t rig_do_message(enum queue_verb verb, uint64_t id)
{
	const struct queue_filter filter = {.id = id};

	(void)rig_ask(verb, &filter, NULL);
	return ask.matched;
}

/* Its first row; one that is empty if it is not there. */
static inline const struct message_row *rig_message(uint64_t id)
{
	const struct queue_filter filter = {.id = id};

	(void)rig_ask(QUEUE_ASK_MESSAGES, &filter, NULL);
	if (ask.rows == 0)
		message_rows[0] = (struct message_row){.id = 0};
	return &message_rows[0];
}
