/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/limits.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/net/conn.h"
#include "relay/net/listener.h"
#include "relay/pki/provider.h"
#include "relay/pki/trust.h"
#include "tests/tools/http.h"
#include "tests/tools/tls_server_options.h"
#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

/*
 * tls_server.c: Postern's TLS engine (loop, conn, tls, ktls) behind a few lines
 * of HTTP, or behind an echo, for tools that test TLS and do not speak SMTP.
 * TLS from the first byte; one thread; no shortcut around what the relay uses.
 *
 *   --mode http  GET /          200, text/plain: what is known of the connection, "key: value"
 *                GET /bytes/N   200, N bytes: byte i is i % 251
 *                GET, other     404
 *                all else       400, and the connection ends
 *                HTTP/1.1 stays open unless told "Connection: close"; HTTP/1.0 the other way round.
 *                Lines may end with a bare LF, as the tools like to send.
 *   --mode echo  sends every byte back
 *
 *   --client-cert require: a peer without a valid certificate gets 403 for each request (http),
 *   or is closed right after the handshake (echo).
 *
 * Standard output has one line, "ready ADDR:PORT", once it listens (port 0 picks one); standard
 * error has a line an event, like the relay's. SIGTERM and SIGINT end it: connections get their
 * close_notify, and the exit status is 0. Wrong usage is 2, anything else that fails 1.
 */

#define EXIT_USAGE 2
#define PEERS_MAX 1024
#define BULK_BUFFERS 64
#define RING_ENTRIES 256

/* A peer that says nothing for so long is closed; a test that hangs must end. */
#define IDLE_MS 60000

/* After SIGTERM connections may say goodbye for so long. */
#define DRAIN_MS 500

/* A longer header field is thrown away; what is left unread leaves room for one record. */
#define LINE_MAX_BYTES 4096

/* Room for a whole response without its bytes. */
#define RESPONSE_BYTES 2048

/* Transfers above this use large buffers, those below small ones: both paths are walked. */
#define BULK_ABOVE_BYTES 65536

struct server;

struct caller {
	struct conn conn;
	struct server *server;
	struct link link;
	char id[16];
	struct request request;
	bool is_skipping;    /* the rest of a line that is too long */
	bool is_blocked;     /* goes on when what was written has left */
	bool is_last;        /* close once the response is written */
	bool has_ended;      /* the peer sends nothing more */
	uint64_t bytes_left; /* of GET /bytes/N */
	uint64_t bytes_sent;
	uint64_t echoed;
};

struct server {
	struct options options;
	struct ktls_support ktls_support;
	struct receive_connector connector;
	struct tls_context context;
	struct trust *trust; /* NULL: nobody is trusted */
	struct listener listener;
	struct loop *loop;
	struct conn_net net;
	struct pool pool; /* of struct caller */
	struct link peers;
	uint64_t accepted;
	struct op stop_op;
	uint64_t stop_value;
	struct timer drain_timer;
};

static struct caller *peer_of(struct conn *conn)
{
	return OWNER_OF(conn, struct caller, conn);
}

static void peer_restart_deadline(struct caller *peer)
{
	conn_deadline(&peer->conn, loop_now_ms(peer->conn.net->loop) + IDLE_MS);
}

/* Is this peer one that --client-cert require lets in? */
static bool peer_is_welcome(const struct caller *peer)
{
	return peer->server->options.client_certificate != CLIENT_CERTIFICATE_REQUIRE ||
	       peer->conn.facts.verdict == VERDICT_VALID;
}

/* HTTP (RFC 9112), as little as the tools need. */

static size_t http_describe(const struct caller *peer, char *out, size_t out_bytes)
{
	const struct tls_facts *facts = &peer->conn.facts;
	char record[128];
	int len = snprintf(out, out_bytes,
		"version: %s\ncipher: %s\nbits: %u\nresumed: %s\nclient-cert: %s\nsubject: %s\n"
		"spki: %s\nrecord: %s\n",
		facts->version, facts->cipher, facts->cipher_bits, facts->is_resumed ? "yes" : "no",
		verdict_word(facts->verdict), facts->subject[0] == '\0' ? "-" : facts->subject,
		facts->spki_sha256[0] == '\0' ? "-" : facts->spki_sha256,
		conn_record_print(&peer->conn, record, sizeof(record)));

	ASSERT(len > 0 && (size_t)len < out_bytes);
	return (size_t)len;
}

/* Writes the head of a response, and its body if that is text. The caller has seen to the room. */
static void http_respond(struct caller *peer, const char *status, uint64_t bytes, struct span text)
{
	char head[256];
	int len = snprintf(head, sizeof(head),
		"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %lu\r\n"
		"Connection: %s\r\n\r\n",
		status, (unsigned long)bytes, peer->is_last ? "close" : "keep-alive");
	size_t written;

	ASSERT(len > 0 && (size_t)len < sizeof(head));
	written = conn_write(&peer->conn, span_make(head, (size_t)len));
	written += conn_write(&peer->conn, text);
	ASSERT(written == (size_t)len + text.len);
}

static void http_answer(struct caller *peer)
{
	static const struct span none = {0};
	const struct request request = peer->request;
	char text[1024];
	uint64_t bytes = 0;

	peer->request = (struct request){0};
	peer->is_last = request.is_bad || !request.is_get || !request.stays_open;
	if (!peer_is_welcome(peer)) {
		bytes = http_describe(peer, text, sizeof(text));
		http_respond(peer, "403 Forbidden", bytes, span_make(text, bytes));
	} else if (request.is_bad || !request.is_get) {
		http_respond(peer, "400 Bad Request", 0, none);
	} else if (strcmp(request.target, "/") == 0) {
		bytes = http_describe(peer, text, sizeof(text));
		http_respond(peer, "200 OK", bytes, span_make(text, bytes));
	} else if (request_wants_bytes(request.target, &bytes)) {
		http_respond(peer, "200 OK", bytes, none);
		peer->bytes_left = bytes;
		peer->bytes_sent = 0;
		peer->conn.is_bulk_out = bytes > BULK_ABOVE_BYTES;
	} else {
		http_respond(peer, "404 Not Found", 0, none);
	}
}

/* One line without its end; the empty one ends a request. */
static void http_take_line(struct caller *peer, struct span line)
{
	if (peer->request.has_line && line.len == 0)
		http_answer(peer);
	else if (peer->request.has_line)
		request_take_field(&peer->request, line);
	else if (line.len > 0)
		request_take_line(&peer->request, line);
	/* Empty lines before a request are to be ignored (RFC 9112 2.2). */
}

/* Each step says whether another one may follow at once. */

static bool http_step_line(struct caller *peer)
{
	struct span in = conn_input(&peer->conn);
	struct span line = span_head(in, span_find(in, '\n'));
	bool is_whole = line.len < in.len;
	bool is_long = peer->is_skipping || line.len > LINE_MAX_BYTES;
	size_t consumed = line.len + (is_whole ? 1 : 0);

	if (conn_room(&peer->conn) < RESPONSE_BYTES) {
		peer->is_blocked = true;
		return false;
	}
	if (!is_whole && !is_long)
		return false;
	if (is_long) {
		/* Too long for a request line; any other field of that size means nothing here. */
		if (!peer->request.has_line)
			peer->request = (struct request){.has_line = true, .is_bad = true};
		peer->is_skipping = !is_whole;
	} else {
		if (line.len > 0 && line.data[line.len - 1] == '\r')
			line.len--;
		http_take_line(peer, line);
	}
	conn_consume(&peer->conn, consumed);
	return is_whole;
}

static bool http_step_bytes(struct caller *peer)
{
	size_t room;
	uint8_t *to = conn_out_space(&peer->conn, 0, &room);

	if (room > peer->bytes_left)
		room = (size_t)peer->bytes_left;
	for (size_t i = 0; i < room; i++)
		to[i] = (uint8_t)((peer->bytes_sent + i) % 251);
	conn_out_commit(&peer->conn, room);
	peer->bytes_sent += room;
	peer->bytes_left -= room;
	peer->is_blocked = peer->bytes_left > 0;
	return !peer->is_blocked;
}

static bool echo_step(struct caller *peer)
{
	struct span in = conn_input(&peer->conn);
	size_t taken;

	if (in.len == 0)
		return false;
	taken = conn_write(&peer->conn, in);
	conn_consume(&peer->conn, taken);
	peer->echoed += taken;
	peer->is_blocked = taken < in.len;
	peer->conn.is_bulk_in = peer->echoed > BULK_ABOVE_BYTES;
	peer->conn.is_bulk_out = peer->conn.is_bulk_in;
	return !peer->is_blocked;
}

static bool peer_step(struct caller *peer)
{
	if (peer->bytes_left > 0)
		return http_step_bytes(peer);
	if (peer->is_last)
		return false;
	return peer->server->options.mode == MODE_ECHO ? echo_step(peer) : http_step_line(peer);
}

/* Goes as far as input and output allow, then says what it waits for. Every event ends here. */
static void peer_run(struct caller *peer)
{
	peer->is_blocked = false;
	while (peer_step(peer))
		;
	conn_flush(&peer->conn);
	peer_restart_deadline(peer);
	if (peer->is_blocked)
		return;
	if (peer->is_last || peer->has_ended)
		conn_close(&peer->conn);
	else
		conn_read(&peer->conn);
}

/* What conn tells. */

static void peer_on_connected(struct conn *conn, int result)
{
	(void)conn;
	(void)result;
	UNREACHABLE();
}

static void peer_on_input(struct conn *conn)
{
	peer_run(peer_of(conn));
}

static void peer_on_drained(struct conn *conn)
{
	if (peer_of(conn)->is_blocked)
		peer_run(peer_of(conn));
}

static void peer_on_tls(struct conn *conn)
{
	struct caller *peer = peer_of(conn);
	const struct options *options = &peer->server->options;

	conn_allow_ktls(conn, options->tls.ktls, "configured");
	if (options->mode == MODE_ECHO && !peer_is_welcome(peer))
		conn_close(conn);
	else
		peer_run(peer);
}

static void peer_on_record(struct conn *conn)
{
	const struct tls_facts *facts = &conn->facts;
	char record[128];
	char subject[PEER_SUBJECT_BYTES];

	log_event(LOG_LEVEL_INFO, peer_of(conn)->id, conn->has_moved ? "record" : "tls",
		"version=%s cipher=%s bits=%u resumed=%s client-cert=%s subject=%s spki=%s "
		"record=%s",
		facts->version, facts->cipher, facts->cipher_bits, facts->is_resumed ? "yes" : "no",
		verdict_word(facts->verdict),
		log_quote_text(facts->subject[0] == '\0' ? NULL : facts->subject, subject,
			sizeof(subject)),
		facts->spki_sha256[0] == '\0' ? "-" : facts->spki_sha256,
		conn_record_print(conn, record, sizeof(record)));
}

static void peer_on_end(struct conn *conn, enum conn_end why)
{
	static const char *const words[] = {[CONN_END_EOF] = "eof",
		[CONN_END_RESET] = "reset",
		[CONN_END_TLS] = "tls",
		[CONN_END_KEY_UPDATE] = "key-update"};
	struct caller *peer = peer_of(conn);
	char text[160];

	log_event(LOG_LEVEL_INFO, peer->id, why == CONN_END_TLS ? "tls-failed" : "end",
		"why=%s error=%s", words[why],
		log_quote_text(conn->tls != NULL && tls_error(conn->tls)[0] != '\0'
				       ? tls_error(conn->tls)
				       : NULL,
			text, sizeof(text)));
	peer->has_ended = true;
	/* A half-closed peer still gets what it asked for. */
	if (why != CONN_END_EOF || !peer->is_blocked)
		conn_close(conn);
}

static void peer_on_timeout(struct conn *conn)
{
	log_event(LOG_LEVEL_INFO, peer_of(conn)->id, "timeout", "%s", "");
	conn_close(conn);
}

static void peer_on_closed(struct conn *conn)
{
	struct caller *peer = peer_of(conn);

	log_event(LOG_LEVEL_INFO, peer->id, "closed", "echoed=%lu", (unsigned long)peer->echoed);
	link_remove(&peer->link);
	pool_put(&peer->server->pool, peer);
}

static const struct conn_events peer_events = {
	.on_connected = peer_on_connected,
	.on_input = peer_on_input,
	.on_drained = peer_on_drained,
	.on_tls = peer_on_tls,
	.on_record = peer_on_record,
	.on_end = peer_on_end,
	.on_timeout = peer_on_timeout,
	.on_closed = peer_on_closed,
};

/* The server. */

static void server_on_accept(struct listener *listener, int fd)
{
	struct server *server = listener->owner;
	struct caller *peer = pool_take(&server->pool);

	if (peer == NULL) {
		log_event(LOG_LEVEL_WARNING, NULL, "refused", "why=too-many-connections");
		(void)close(fd);
		return;
	}
	memset(peer, 0, sizeof(*peer));
	peer->server = server;
	(void)snprintf(
		peer->id, sizeof(peer->id), "%06x", (unsigned)(server->accepted++ & 0xffffff));
	link_init(&peer->link);
	list_append(&server->peers, &peer->link);
	conn_open(&peer->conn, &server->net, &peer_events, fd);
	peer_restart_deadline(peer);
	if (conn_start_tls(&peer->conn, &server->context, NULL, NULL) < 0)
		conn_abort(&peer->conn);
	if (server->accepted == server->options.max_connections)
		listener_close(listener);
}

static void server_drain_expired(struct timer *timer)
{
	struct server *server = OWNER_OF(timer, struct server, drain_timer);
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &server->peers)
		conn_abort(&OWNER_OF(link, struct caller, link)->conn);
}

static void server_on_stop(struct op *op, int32_t result, uint32_t flags)
{
	struct server *server = OWNER_OF(op, struct server, stop_op);
	struct link *link;
	struct link *after;

	(void)flags;
	if (result < 0)
		return;
	log_event(LOG_LEVEL_INFO, NULL, "drain", "accepted=%lu", (unsigned long)server->accepted);
	listener_close(&server->listener);
	LIST_FOR_EACH (link, after, &server->peers)
		conn_close(&OWNER_OF(link, struct caller, link)->conn);
	timer_set(loop_timers(server->loop), &server->drain_timer,
		loop_now_ms(server->loop) + DRAIN_MS);
}

/* Written by the signals, read by the loop. */
static int stop_fd = -1;

static void on_signal(int number)
{
	const uint64_t one = 1;
	ssize_t written = write(stop_fd, &one, sizeof(one));

	(void)number;
	(void)written;
}

static int catch_signals(void)
{
	const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	stop_fd = eventfd(0, EFD_CLOEXEC);
	if (stop_fd < 0 || sigaction(SIGTERM, &action, NULL) < 0 ||
		sigaction(SIGINT, &action, NULL) < 0)
		return -errno;
	(void)signal(SIGPIPE, SIG_IGN);
	return 0;
}

/* Tells what it listens on, with the port that the kernel picked. */
static void server_say_ready(const struct server *server)
{
	struct address address = {.len = sizeof(address.sockaddr)};
	char text[64];

	(void)getsockname(server->listener.fd, (struct sockaddr *)&address.sockaddr, &address.len);
	address_print(&address, text, sizeof(text));
	log_event(LOG_LEVEL_INFO, NULL, "ready", "address=%s ktls=%s", text,
		server->ktls_support.why_not == NULL ? "yes" : server->ktls_support.why_not);
	(void)printf("ready %s\n", text);
	(void)fflush(stdout);
}

static int server_create_context(struct server *server)
{
	const struct trust_options trust_options = {
		.anchors = server->options.tls.trust_anchors, .depth = -1};
	struct tls_context_options options = {.settings = &server->options.tls,
		.is_server = true,
		.client_certificate = server->options.client_certificate,
		.name = server->connector.name};
	char error[512] = "no memory";
	int rc;

	provider_init();
	rc = tls_init();
	if (rc == 0)
		rc = peer_cache_create(PEERS_MAX);
	if (rc == 0 && trust_options.anchors != NULL)
		rc = trust_create(&trust_options, &server->trust, error, sizeof(error));
	options.trust = server->trust;
	if (rc == 0)
		rc = tls_context_create(&options, &server->context, error, sizeof(error));
	if (rc < 0)
		(void)fprintf(stderr, "tls_server: %s\n", error);
	return rc;
}

static int server_create(struct server *server)
{
	int rc;

	link_init(&server->peers);
	timer_init(&server->drain_timer, server_drain_expired);
	server->stop_op.done = server_on_stop;
	server->connector.name = "tls-server";
	server->listener.owner = server;
	server->listener.on_accept = server_on_accept;
	server->listener.fd = -1;
	rc = server_create_context(server);
	if (rc == 0)
		rc = loop_create(&server->options.caps, RING_ENTRIES, &server->loop);
	if (rc == 0)
		rc = conn_net_create(
			&server->net, server->loop, PEERS_MAX, BULK_BUFFERS, &server->ktls_support);
	if (rc == 0)
		rc = pool_create(&server->pool, PEERS_MAX, sizeof(struct caller), 64);
	if (rc == 0)
		rc = catch_signals();
	if (rc == 0)
		rc = listener_create(&server->listener, &server->options.listen);
	return rc;
}

static int server_run(struct server *server)
{
	int rc = 0;

	listener_start(&server->listener, server->loop);
	loop_read(server->loop, &server->stop_op, stop_fd, &server->stop_value,
		sizeof(server->stop_value));
	server_say_ready(server);
	while (rc == 0 && !(listener_is_closed(&server->listener) && list_is_empty(&server->peers)))
		rc = loop_turn(server->loop);
	return rc;
}

static void server_destroy(struct server *server)
{
	listener_destroy(&server->listener);
	tls_context_destroy(&server->context);
	trust_destroy(&server->trust);
	if (server->loop != NULL) {
		loop_destroy(&server->loop);
		pool_destroy(&server->pool);
		conn_net_destroy(&server->net);
	}
	peer_cache_destroy();
	if (stop_fd >= 0)
		(void)close(stop_fd);
}

/* Each connection is a descriptor; a few more are ours. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	static struct stats stats;
	static struct server server = {.options.tls = {.tls_min = "TLSv1.2",
					       .tls_max = "TLSv1.3",
					       .ciphers = "ECDHE+AESGCM:ECDHE+CHACHA20",
					       .ciphersuites = "TLS_AES_128_GCM_SHA256:"
							       "TLS_AES_256_GCM_SHA384:"
							       "TLS_CHACHA20_POLY1305_SHA256",
					       .session_tickets = 2}};
	int rc = loop_probe(&server.options.caps);

	if (rc < 0) {
		(void)fprintf(stderr, "tls_server: io_uring: %s\n", loop_why_not(-rc));
		return EXIT_FAILURE;
	}
	if (!options_parse(argc, argv, &server.options)) {
		(void)fputs(OPTIONS_USAGE, stderr);
		return EXIT_USAGE;
	}
	stats_mine = &stats;
	raise_descriptor_limit();
	ktls_probe(&server.ktls_support);
	rc = server_create(&server);
	if (rc == 0)
		rc = server_run(&server);
	log_event(LOG_LEVEL_INFO, NULL, "stop", "result=%s", rc == 0 ? "ok" : strerror(-rc));
	/* After an error of the ring its connections are as they were: the process ends. */
	if (rc < 0)
		return EXIT_FAILURE;
	server_destroy(&server);
	return EXIT_SUCCESS;
}
