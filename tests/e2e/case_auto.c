/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_auto.c: ktls = auto. A session begins in userspace, and what is read goes to the kernel when
 * enough full records have come, in the middle of whatever is under way, without a byte lost or
 * twice, after changes of the keys as well. A session that is short or has small records stays, and
 * so does what is sent.
 */

#include "tests/e2e/case.h"
#include <stdio.h>
#include <string.h>

#define WAITS "auto:waits-for-more"

struct auto_row {
	size_t bytes; /* of a body; 0: NOOPs */
	size_t record_bytes;
	bool by_bdat, out_bdat;
	const char *suite; /* NULL: TLS 1.2 */
};

static void auto_open(const struct auto_row *row, struct client *client, struct hop **out_hop,
	struct tls_stat *out_stat)
{
	int version = row->suite == NULL ? TLS1_2_VERSION : TLS1_3_VERSION;
	const struct tls_side side = {.version_max = version};
	const struct hop_plan plan = {.tls = {.tickets = 1, .version_max = version},
		.lacks = row->out_bdat ? 0 : HOP_NO_CHUNKING};
	char lines[128] = "";
	const struct relay_options options = {.ktls = "auto", .tls = lines};

	if (!suite.is_kernel)
		case_skip("records are in userspace");
	if (row->suite != NULL)
		(void)snprintf(lines, sizeof(lines), "\tciphersuites = \"%s\"\n", row->suite);
	*out_hop = case_start(&plan, &options);
	*out_stat = tls_stat_read();
	client_open_secured(client, &side);
	(void)relay_await_log(1, "event=tls record=user(" WAITS ")");
}

/* So many receive directions were given to the kernel since then, and nothing that is sent. */
static void auto_check(const struct tls_stat *before, unsigned long rx)
{
	struct tls_stat after = tls_stat_read();

	case_check(after.tx == before->tx, "TlsTxSw grew by %lu", after.tx - before->tx);
	case_check(after.rx - before->rx == rx, "TlsRxSw grew by %lu, expected %lu",
		after.rx - before->rx, rx);
	case_check(after.decrypt_errors == before->decrypt_errors, "TlsDecryptError grew");
	case_check(relay_counter("ktls_auto") == rx, "ktls_auto=%lu, expected %lu",
		relay_counter("ktls_auto"), rx);
	case_check(
		relay_counter("ktls_failed") == 0, "ktls_failed=%lu", relay_counter("ktls_failed"));
}

/* What is read goes once, what is sent never; replies of the next hop are never bulk. */
static void auto_check_moved(const struct tls_stat *before)
{
	(void)relay_await_log(1, "event=record record=kernel-rx,user-tx(auto:no-gain)");
	case_check(relay_count_log("event=record") == 1, "the client's records moved again");
	case_check(relay_count_log("event=nexthop-record") == 0, "the next hop's records moved");
	auto_check(before, 1);
}

static void auto_check_stays(const struct tls_stat *before)
{
	case_check(relay_count_log("event=record") == 0, "the client's records moved");
	case_check(relay_count_log("event=nexthop-record") == 0, "the next hop's records moved");
	auto_check(before, 0);
}

/* Message number (from 0) is accepted, and at the next hop as it was sent. */
static void auto_send(
	struct client *client, struct hop *hop, const struct mail *mail, unsigned number)
{
	case_check(client_send(client, mail) == 250, "message %u got \"%s\"", number + 1,
		client->last);
	hop_check_body(hop, number, mail->body, false);
}

/* One large body, in full records or in smaller ones, and once more. */
static void run_bulk(const struct test_case *test)
{
	const struct auto_row *row = test->data;
	const bool is_full = row->record_bytes == 0 || row->record_bytes > 16000;
	struct text body = {0};
	struct mail mail = {
		.body = &body, .by_bdat = row->by_bdat, .record_bytes = row->record_bytes};
	struct tls_stat before;
	struct client client;
	struct hop *hop;

	auto_open(row, &client, &hop, &before);
	body_make(&body, row->bytes);
	for (unsigned i = 0; i < 2; i++) {
		auto_send(&client, hop, &mail, i);
		if (is_full)
			auto_check_moved(&before);
		else
			auto_check_stays(&before);
	}
	client_quit(&client);
	case_finish(hop);
}

/* Many small records both ways, with more of them in flight at any time: nothing moves. */
static void run_small(const struct test_case *test)
{
	enum { COUNT = 60 };
	const struct auto_row *row = test->data;
	struct text noops = {0};
	struct text body = {0};
	struct mail mail = {.body = &body};
	struct tls_stat before;
	struct client client;
	struct hop *hop;

	auto_open(row, &client, &hop, &before);
	for (unsigned i = 0; i < COUNT; i++)
		text_add(&noops, "NOOP\r\n", 6);
	case_check(wire_write_records(&client.wire, noops.data, noops.len, row->record_bytes),
		"the relay takes no NOOPs");
	for (unsigned i = 0; i < COUNT; i++)
		client_expect(&client, "250 2.0.0");
	for (unsigned i = 0; i < COUNT; i++)
		client_ask(&client, "NOOP", "250 2.0.0");
	body_make(&body, 3000);
	auto_send(&client, hop, &mail, 0);
	auto_check_stays(&before);
	client_quit(&client);
	case_finish(hop);
}

/* A short session stays where it is; another does not go because of it. */
static void run_short(const struct test_case *test)
{
	struct text body = {0};
	struct mail mail = {.body = &body};
	struct tls_stat before;
	struct client client;
	struct hop *hop;

	body_make(&body, 20000);
	auto_open(test->data, &client, &hop, &before);
	for (unsigned i = 0; i < 6; i++) {
		auto_send(&client, hop, &mail, i);
		client_quit(&client);
		client_open_secured(&client, NULL);
	}
	auto_check_stays(&before);
	client_quit(&client);
	relay_stop();
}

/* Messages of one full record each, and more that goes on after the hand-over. */
static void run_pool(const struct test_case *test)
{
	struct text body = {0};
	struct mail mail = {.body = &body};
	struct tls_stat before;
	struct client client;
	struct hop *hop;

	auto_open(test->data, &client, &hop, &before);
	for (unsigned i = 0; i < 20; i++) {
		if (i == 10)
			auto_check_stays(&before);
		body_make(&body, (size_t)17000 + (size_t)777 * i);
		mail.by_bdat = i % 2 == 1;
		auto_send(&client, hop, &mail, i);
	}
	auto_check_moved(&before);
	case_check(hop_count(hop, &hop->sessions) == 1, "%u sessions with the next hop, expected 1",
		hop_count(hop, &hop->sessions));
	client_quit(&client);
	case_finish(hop);
}

/* The kernel gets the keys that are in force after the client has changed them, twice. */
static void run_rekeyed(const struct test_case *test)
{
	struct text body = {0};
	struct mail mail = {.body = &body};
	struct tls_stat before;
	struct client client;
	struct hop *hop;

	auto_open(test->data, &client, &hop, &before);
	case_check(wire_update_keys(&client.wire, SSL_KEY_UPDATE_REQUESTED), "no KeyUpdate");
	client_ask(&client, "NOOP", "250 2.0.0");
	case_check(wire_update_keys(&client.wire, SSL_KEY_UPDATE_NOT_REQUESTED), "no KeyUpdate");
	body_make(&body, 200000);
	for (unsigned i = 0; i < 2; i++) {
		auto_send(&client, hop, &mail, i);
	}
	auto_check_moved(&before);
	client_quit(&client);
	case_finish(hop);
}

#define AES128 "TLS_AES_128_GCM_SHA256"
#define AES256 "TLS_AES_256_GCM_SHA384"
#define CHACHA "TLS_CHACHA20_POLY1305_SHA256"

#define AUTO(label, function, ...)                                        \
	{                                                                 \
		label, function, &(const struct auto_row){__VA_ARGS__}, 0 \
	}

static const struct test_case rows[] = {
	AUTO("auto/bdat-1.3-aes128", run_bulk, 400000, 0, true, true, AES128),
	AUTO("auto/bdat-1.3-aes256", run_bulk, 400000, 0, true, true, AES256),
	AUTO("auto/bdat-1.3-chacha", run_bulk, 400000, 0, true, true, CHACHA),
	AUTO("auto/bdat-1.2", run_bulk, 400000, 0, true, true, NULL),
	AUTO("auto/data-1.3", run_bulk, 400000, 0, false, false, AES256),
	AUTO("auto/data-1.2", run_bulk, 400000, 0, false, false, NULL),
	AUTO("auto/data-to-bdat", run_bulk, 300000, 0, false, true, AES256),
	AUTO("auto/bdat-to-data", run_bulk, 300000, 0, true, false, AES256),
	AUTO("auto/records-of-100", run_bulk, 60000, 100, true, true, AES256),
	AUTO("auto/records-of-1000", run_bulk, 200000, 1000, false, true, AES256),
	AUTO("auto/records-of-5000", run_bulk, 300000, 5000, true, true, AES128),
	AUTO("auto/records-of-16383", run_bulk, 300000, 16383, true, true, AES256),
	AUTO("auto/noops-1.3", run_small, 0, 6, false, false, AES256),
	AUTO("auto/noops-1.3-split", run_small, 0, 5, false, false, AES128),
	AUTO("auto/noops-1.2", run_small, 0, 6, false, false, NULL),
	AUTO("auto/short", run_short, 0, 0, false, false, AES256),
	AUTO("auto/pool-1.3", run_pool, 0, 0, false, true, AES256),
	AUTO("auto/pool-1.2", run_pool, 0, 0, false, true, NULL),
	AUTO("auto/rekeyed", run_rekeyed, 0, 0, false, true, AES256),
};

const struct case_table case_auto = {rows, COUNT_OF(rows)};
