/* SPDX-License-Identifier: Apache-2.0 */

/*
 * handshake.c: what a mutual handshake costs each side, by the relay's TLS and by stock OpenSSL.
 *
 * Client and server are back to back in memory, so no socket, no ring and no scheduler is in the
 * figures: only what each side does, from the making of its TLS object to its end. "relay" is
 * tls.h as a worker uses it (contexts, tickets, the facts, the verdict by the store of peers);
 * "stock" is the same OpenSSL with its own verification, as any program would use it. Both check
 * the other's certificate by chain, date, purpose and name or list, ECDSA P-256, one intermediate
 * on the relay's side.
 *
 * A process measures one side only: the relay's provider (provider.h) is the whole process's, and
 * stock OpenSSL must not gain by it. Versions and kinds take turns within each repetition; a figure
 * is the median over the repetitions of the processor time of one handshake of that side, spread is
 * (highest - lowest) / median.
 */

#include "bench/common/options.h"
#include "relay/net/tls.h"
#include "relay/pki/provider.h"
#include "relay/pki/trust.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WIRE_BYTES 65536
#define REPETITIONS_MAX 99
#define WARM_UP 20

static const char usage[] = "usage: handshake [OPTION]...\n"
			    "  --pki FOLDER        of tests/pki.sh (build/pki)\n"
			    "  --version 1.2|1.3   only this (both)\n"
			    "  --kind full|resumed only this (both)\n"
			    "  --side NAME         relay-server or relay-client, against stock "
			    "OpenSSL, or stock,\n"
			    "                      which is both sides (stock)\n"
			    "  --count N           handshakes of each way in a repetition (100)\n"
			    "  --repetitions N     (7)\n"
			    "  --tickets N         that a server gives in TLS 1.3 (1)\n"
			    "  --json              one line of JSON\n"
			    "Exit status: 0, 1 when a handshake failed, 2 wrong options.\n";

static const char *const versions[] = {"1.2", "1.3"};
static const char *const kinds[] = {"full", "resumed"};
enum way { WAY_STOCK, WAY_SERVER, WAY_CLIENT, WAY_COUNT };
static const char *const ways[] = {"stock", "relay-server", "relay-client"};

static struct {
	const char *pki, *version, *kind, *side;
	uint64_t count, repetitions, tickets;
	bool json;
	struct trust *trust[2]; /* what the relay believes: as client, as server */
} bench = {.pki = "build/pki", .side = "stock", .count = 100, .repetitions = 7, .tickets = 1};

/* One end. Its bytes for the other lie in wire. */
struct end {
	bool is_server, is_relay;
	struct tls_context context; /* the relay's */
	SSL_CTX *ctx;               /* stock OpenSSL's */
	struct tls tls;
	SSL *ssl;
	SSL_SESSION *session; /* a client's, to resume */
	uint8_t wire[WIRE_BYTES];
	size_t wire_len;
	bool is_done, failed, is_resumed;
	uint64_t spent_ns;
};

static _Noreturn void die(const char *what, const char *why)
{
	(void)fprintf(stderr, "handshake: %s: %s\n", what, why);
	exit(1);
}

static const char *path_of(const char *name, const char *ending)
{
	static char paths[4][512];
	static unsigned next;
	char *path = paths[next++ % 4];

	(void)snprintf(path, sizeof(paths[0]), "%s/%s%s", bench.pki, name, ending);
	return path;
}

/* The clock of this thread: others on the machine are not in it. */
static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Contexts. */

static void relay_context(struct end *end, const char *version)
{
	const char *who = end->is_server ? "adatum" : "treyresearch";
	const struct certificate certificate = {
		.name = who, .chain = path_of(who, ".pem"), .key = path_of(who, ".key")};
	const char *tls_version = strcmp(version, "1.2") == 0 ? "TLSv1.2" : "TLSv1.3";
	const struct tls_settings settings = {.certificate = &certificate,
		.trust_anchors = path_of(end->is_server ? "treyresearch-ca" : "adatum-ca", ".pem"),
		.tls_min = tls_version,
		.tls_max = tls_version,
		.ciphers = "ECDHE+AESGCM:ECDHE+CHACHA20",
		.ciphersuites = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256",
		.session_tickets = (unsigned)bench.tickets};
	const struct tls_context_options options = {.settings = &settings,
		.is_server = end->is_server,
		.client_certificate = CLIENT_CERTIFICATE_REQUIRE,
		.name = "bench",
		.trust = bench.trust[end->is_server]};
	char error[512] = "";

	if (tls_context_create(&options, &end->context, error, sizeof(error)) != 0)
		die("context", error);
}

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
	struct end *end = SSL_get_app_data(ssl);

	SSL_SESSION_free(end->session);
	end->session = session;
	return 1;
}

static void stock_context(struct end *end, const char *version)
{
	const char *who = end->is_server ? "adatum" : "treyresearch";
	const char *ca = path_of(end->is_server ? "treyresearch-ca" : "adatum-ca", ".pem");
	int number = strcmp(version, "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
	int verify = SSL_VERIFY_PEER | (end->is_server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);
	static const unsigned char id[] = "bench";

	end->ctx = SSL_CTX_new(end->is_server ? TLS_server_method() : TLS_client_method());
	if (end->ctx == NULL || SSL_CTX_set_min_proto_version(end->ctx, number) != 1 ||
		SSL_CTX_set_max_proto_version(end->ctx, number) != 1 ||
		SSL_CTX_use_certificate_chain_file(end->ctx, path_of(who, ".pem")) != 1 ||
		!provider_use_key(end->ctx, path_of(who, ".key")) ||
		SSL_CTX_load_verify_file(end->ctx, ca) != 1)
		die("context", ERR_reason_error_string(ERR_peek_error()));
	SSL_CTX_set_verify(end->ctx, verify, NULL);
	if (end->is_server) {
		SSL_CTX_set_client_CA_list(end->ctx, SSL_load_client_CA_file(ca));
		(void)SSL_CTX_set_session_id_context(end->ctx, id, sizeof(id) - 1);
		(void)SSL_CTX_set_num_tickets(end->ctx, bench.tickets);
		(void)SSL_CTX_set_session_cache_mode(end->ctx, SSL_SESS_CACHE_OFF);
	} else {
		(void)SSL_CTX_set_session_cache_mode(
			end->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
		SSL_CTX_sess_set_new_cb(end->ctx, keep_session);
	}
}

/* The relay's end. What is measured is called from the two functions named _measured only. */

static void relay_open(struct end *end)
{
	tls_context_refresh(&end->context, 1);
	if (tls_open(&end->tls, &end->context, end->is_server ? NULL : "adatum.test",
		    end->is_server ? NULL : &end->session) != 0)
		end->failed = true;
}

static void relay_done(struct end *end)
{
	struct tls_facts facts;
	struct peer *peer = tls_facts_read(&end->tls, NULL, time(NULL), &facts);

	end->is_done = true;
	end->is_resumed = facts.is_resumed;
	if (facts.verdict != VERDICT_VALID ||
		(!end->is_server && !names_have(&peer->names, "adatum.test")))
		end->failed = true;
	peer_release(&peer);
}

static void relay_step(struct end *end, struct span record)
{
	uint8_t text[64];
	size_t len;
	enum tls_status status;

	if (record.len > 0)
		tls_feed(&end->tls, record);
	tls_sink(&end->tls, end->wire + end->wire_len, WIRE_BYTES - end->wire_len);
	if (end->is_done) {
		status = tls_read(&end->tls, text, sizeof(text), &len);
	} else {
		status = tls_handshake(&end->tls);
		if (status == TLS_DONE)
			relay_done(end);
	}
	end->wire_len += end->tls.sink_len;
	end->failed = end->failed || status == TLS_FAILED || status == TLS_CLOSED;
}

/* Stock OpenSSL's end: memory on both sides. */

static void stock_open(struct end *end)
{
	end->ssl = SSL_new(end->ctx);
	if (end->ssl == NULL) {
		end->failed = true;
		return;
	}
	SSL_set_bio(end->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	(void)SSL_set_app_data(end->ssl, end);
	if (end->is_server) {
		SSL_set_accept_state(end->ssl);
		return;
	}
	SSL_set_connect_state(end->ssl);
	if (SSL_set1_host(end->ssl, "adatum.test") != 1 ||
		SSL_set_tlsext_host_name(end->ssl, (char[]){"adatum.test"}) != 1)
		end->failed = true;
	if (end->session != NULL)
		(void)SSL_set_session(end->ssl, end->session);
}

static void stock_step(struct end *end, struct span record)
{
	char text[64];
	int rc;
	int len;

	if (record.len > 0)
		(void)BIO_write(SSL_get_rbio(end->ssl), record.data, (int)record.len);
	ERR_clear_error();
	rc = end->is_done ? SSL_read(end->ssl, text, sizeof(text)) : SSL_do_handshake(end->ssl);
	if (rc <= 0 && SSL_get_error(end->ssl, rc) != SSL_ERROR_WANT_READ)
		end->failed = true;
	if (rc == 1 && !end->is_done) {
		end->is_done = true;
		end->is_resumed = SSL_session_reused(end->ssl) == 1;
	}
	len = BIO_read(SSL_get_wbio(end->ssl), end->wire + end->wire_len,
		(int)(WIRE_BYTES - end->wire_len));
	if (len > 0)
		end->wire_len += (size_t)len;
}

static void stock_close(struct end *end)
{
	SSL_set_shutdown(end->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(end->ssl);
	end->ssl = NULL;
}

enum work { WORK_OPEN, WORK_STEP, WORK_CLOSE };

static void end_work(struct end *end, enum work work, struct span record)
{
	if (work == WORK_OPEN)
		end->is_relay ? relay_open(end) : stock_open(end);
	else if (work == WORK_STEP)
		end->is_relay ? relay_step(end, record) : stock_step(end, record);
	else
		end->is_relay ? tls_close(&end->tls) : stock_close(end);
}

/* Names for callgrind's --toggle-collect: see handshake.sh. */
void server_measured(struct end *end, enum work work, struct span record);
void client_measured(struct end *end, enum work work, struct span record);

__attribute__((noinline)) void server_measured(struct end *end, enum work work, struct span record)
{
	uint64_t begun = now_ns();

	end_work(end, work, record);
	end->spent_ns += now_ns() - begun;
}

__attribute__((noinline)) void client_measured(struct end *end, enum work work, struct span record)
{
	uint64_t begun = now_ns();

	end_work(end, work, record);
	end->spent_ns += now_ns() - begun;
}

static void end_do(struct end *end, enum work work, struct span record, bool measured)
{
	if (!measured)
		end_work(end, work, record);
	else if (end->is_server)
		server_measured(end, work, record);
	else
		client_measured(end, work, record);
}

/* Gives all whole records of from to to, one at a time, as a connection does. */
static bool deliver(struct end *from, struct end *to, bool measured)
{
	size_t at = 0;
	bool moved = from->wire_len > 0;

	while (at < from->wire_len && !to->failed) {
		struct span rest = span_make(from->wire + at, from->wire_len - at);
		int length = tls_record_length(rest);

		if (length <= 0 || (size_t)length > rest.len)
			die("record", "not whole");
		end_do(to, WORK_STEP, span_head(rest, (size_t)length), measured);
		at += (size_t)length;
	}
	from->wire_len = 0;
	return moved;
}

/* One of a pair: from nothing to both ends done, tickets taken, and gone again. */
static void shake(struct end *client, struct end *server, bool resumed, bool measured)
{
	const struct span none = {0};

	if (!resumed)
		tls_session_drop(&client->session);
	client->is_done = server->is_done = false;
	client->wire_len = server->wire_len = 0;
	end_do(client, WORK_OPEN, none, measured);
	end_do(server, WORK_OPEN, none, measured);
	end_do(client, WORK_STEP, none, measured);
	for (unsigned turn = 0; turn < 16; turn++) {
		bool moved = deliver(client, server, measured);

		if (!deliver(server, client, measured) && !moved)
			break;
	}
	if (client->failed || server->failed || !client->is_done || !server->is_done)
		die("handshake failed", client->is_relay   ? tls_error(&client->tls)
					: server->is_relay ? tls_error(&server->tls)
							   : "stock OpenSSL");
	if (client->is_resumed != resumed || server->is_resumed != resumed)
		die("resumed", resumed ? "it was not" : "it was");
	end_do(client, WORK_CLOSE, none, measured);
	end_do(server, WORK_CLOSE, none, measured);
}

/* A row of the result: a version, a kind and a way, and both sides' times. */
struct row {
	unsigned version, kind;
	enum way way;
	struct end *client, *server;
	double us[2][REPETITIONS_MAX]; /* [0] client, [1] server */
};

static struct row rows[12];
static unsigned row_count;

static struct end *end_create(bool is_server, bool is_relay, const char *version)
{
	struct end *end = calloc(1, sizeof(*end));

	if (end == NULL)
		die("memory", "none");
	end->is_server = is_server;
	end->is_relay = is_relay;
	if (is_relay)
		relay_context(end, version);
	else
		stock_context(end, version);
	return end;
}

static void rows_create(void)
{
	for (unsigned version = 0; version < 2; version++) {
		for (unsigned kind = 0; kind < 2; kind++) {
			for (unsigned way = 0; way < WAY_COUNT; way++) {
				struct row *row = &rows[row_count];

				if ((bench.version &&
					    strcmp(bench.version, versions[version]) != 0) ||
					(bench.kind && strcmp(bench.kind, kinds[kind]) != 0) ||
					strcmp(bench.side, ways[way]) != 0)
					continue;
				*row = (struct row){.version = version, .kind = kind, .way = way};
				row->client =
					end_create(false, way == WAY_CLIENT, versions[version]);
				row->server =
					end_create(true, way == WAY_SERVER, versions[version]);
				row_count++;
			}
		}
	}
	if (row_count == 0)
		options_wrong(usage, "nothing to do");
}

static void row_run(struct row *row, unsigned repetition)
{
	bool resumed = row->kind == 1;

	if (repetition == 0) {
		for (unsigned i = 0; i < WARM_UP; i++)
			shake(row->client, row->server, resumed && i > 0, false);
	}
	row->client->spent_ns = row->server->spent_ns = 0;
	for (uint64_t i = 0; i < bench.count; i++)
		shake(row->client, row->server, resumed, true);
	row->us[0][repetition] = (double)row->client->spent_ns / 1000 / (double)bench.count;
	row->us[1][repetition] = (double)row->server->spent_ns / 1000 / (double)bench.count;
}

static int by_value(const void *left, const void *right)
{
	double a = *(const double *)left;
	double b = *(const double *)right;

	return (a > b) - (a < b);
}

static double median(double *us, double *spread)
{
	qsort(us, bench.repetitions, sizeof(*us), by_value);
	*spread = (us[bench.repetitions - 1] - us[0]) / us[bench.repetitions / 2];
	return us[bench.repetitions / 2];
}

/* The sides that the row is about: of a relay's row only the relay's own. */
static void row_print(struct row *row, bool *is_first)
{
	for (unsigned side = 0; side < 2; side++) {
		const char *code = row->way == WAY_STOCK ? "stock" : "relay";
		const char *word = side == 0 ? "client" : "server";
		double spread;
		double us = median(row->us[side], &spread);

		if ((row->way == WAY_SERVER && side == 0) || (row->way == WAY_CLIENT && side == 1))
			continue;
		if (bench.json)
			(void)printf("%s{\"name\":\"%s %s, TLS %s %s\",\"unit\":\"us\","
				     "\"value\":%.1f,\"spread\":%.3f,\"code\":\"%s\","
				     "\"side\":\"%s\",\"version\":\"%s\",\"kind\":\"%s\"}",
				*is_first ? "" : ",", code, word, versions[row->version],
				kinds[row->kind], us, spread, code, word, versions[row->version],
				kinds[row->kind]);
		else
			(void)printf("TLS %s %-8s %-6s %-6s %8.1f us  spread %3.0f %%\n",
				versions[row->version], kinds[row->kind], word, code, us,
				100 * spread);
		*is_first = false;
	}
}

static void options_read(int argc, char **argv)
{
	const struct options_entry entries[] = {
		{"pki", OPTIONS_TEXT, {.text = &bench.pki}, 0, 0},
		{"version", OPTIONS_TEXT, {.text = &bench.version}, 0, 0},
		{"kind", OPTIONS_TEXT, {.text = &bench.kind}, 0, 0},
		{"side", OPTIONS_TEXT, {.text = &bench.side}, 0, 0},
		{"count", OPTIONS_NUMBER, {.number = &bench.count}, 1, 1000000},
		{"repetitions", OPTIONS_NUMBER, {.number = &bench.repetitions}, 1, REPETITIONS_MAX},
		{"tickets", OPTIONS_NUMBER, {.number = &bench.tickets}, 1, 8},
		{"json", OPTIONS_FLAG, {.flag = &bench.json}, 0, 0},
	};

	options_parse(argc, argv, entries, sizeof(entries) / sizeof(*entries), usage);
}

static void trust_make(void)
{
	char error[512] = "";

	for (unsigned is_server = 0; is_server < 2; is_server++) {
		const struct trust_options options = {
			.anchors = path_of(is_server ? "treyresearch-ca" : "adatum-ca", ".pem"),
			.depth = -1};

		if (trust_create(&options, &bench.trust[is_server], error, sizeof(error)) != 0)
			die("trust", error);
	}
}

static void end_destroy(struct end *end)
{
	tls_session_drop(&end->session);
	if (end->is_relay)
		tls_context_destroy(&end->context);
	SSL_CTX_free(end->ctx);
	free(end);
}

int main(int argc, char **argv)
{
	bool is_first = true;

	options_read(argc, argv);
	if (strcmp(bench.side, "stock") != 0)
		provider_init();
	if (tls_init() != 0 || peer_cache_create(64) != 0)
		die("start", "no memory");
	trust_make();
	rows_create();
	for (unsigned repetition = 0; repetition < bench.repetitions; repetition++) {
		for (unsigned i = 0; i < row_count; i++)
			row_run(&rows[i], repetition);
	}
	if (bench.json)
		(void)printf("{\"part\":\"handshake\",\"library\":\"%s\",\"count\":%lu,"
			     "\"repetitions\":%lu,\"rows\":[",
			tls_library(), bench.count, bench.repetitions);
	for (unsigned i = 0; i < row_count; i++) {
		row_print(&rows[i], &is_first);
		end_destroy(rows[i].client);
		end_destroy(rows[i].server);
	}
	if (bench.json)
		(void)puts("]}");
	for (unsigned is_server = 0; is_server < 2; is_server++)
		trust_destroy(&bench.trust[is_server]);
	peer_cache_destroy();
	return 0;
}
