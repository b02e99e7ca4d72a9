/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_tls.c: versions, ciphers and tickets on both legs; who does the records; and
 * records that come together with the client's Finished, whole or in part.
 */

#include "tests/e2e/case.h"
#include <stdio.h>
#include <string.h>

#define AES128 "AES128-GCM-SHA256", "TLS_AES_128_GCM_SHA256", "AES_128_GCM_SHA256"
#define AES256 "AES256-GCM-SHA384", "TLS_AES_256_GCM_SHA384", "AES_256_GCM_SHA384"
#define CHACHA "CHACHA20-POLY1305", "TLS_CHACHA20_POLY1305_SHA256", "CHACHA20_POLY1305_SHA256"

struct tls_row {
	bool is_13;
	const char *cipher; /* the end of OpenSSL's name, for TLS 1.2 */
	const char *suite;  /* TLS 1.3 */
	const char *log;    /* the end of the name in the log */
	int tickets;        /* of relay and next hop */
	const char *ktls;   /* NULL: as the kernel is */
	const char *record; /* NULL: as the kernel is */
	bool is_other_13;   /* the next hop's leg has the other version */
	const char *key;    /* certificate of the client and the next hop; NULL: ECDSA */
};

static void tls_make_side(const struct tls_row *row, bool is_13, struct tls_side *out)
{
	*out = (struct tls_side){.tickets = row->tickets,
		.certificate = row->key,
		.version_min = is_13 ? TLS1_3_VERSION : TLS1_2_VERSION,
		.version_max = is_13 ? TLS1_3_VERSION : TLS1_2_VERSION};
}

/* The relay's own lines: the cipher for either version; the peers choose the version. */
static void tls_make_lines(const struct tls_row *row, char *out, size_t out_bytes)
{
	(void)snprintf(out, out_bytes,
		"\tciphers = \"ECDHE-ECDSA-%s:ECDHE-RSA-%s\"\n\tciphersuites = \"%s\"\n"
		"\tsession-tickets = %d\n",
		row->cipher, row->cipher, row->suite, row->tickets);
}

static void tls_check_line(const struct tls_row *row, const char *event, bool is_13)
{
	const char *line = relay_await_log(1, event);
	char value[128];
	char want[128];

	(void)relay_log_value(line, "version", value, sizeof(value));
	case_check(
		strcmp(value, is_13 ? "TLSv1.3" : "TLSv1.2") == 0, "%s version=%s", event, value);
	(void)snprintf(want, sizeof(want), is_13 ? "TLS_%s" : "TLS_ECDHE_ECDSA_WITH_%s", row->log);
	(void)relay_log_value(line, "cipher", value, sizeof(value));
	case_check(strcmp(value, want) == 0, "%s cipher=%s, expected %s", event, value, want);
	if (row->record == NULL) {
		case_check_record(line);
		return;
	}
	(void)relay_log_value(line, "record", value, sizeof(value));
	case_check(strcmp(value, row->record) == 0, "%s record=%s, expected %s", event, value,
		row->record);
}

static void tls_check_stat(const struct tls_stat *before, unsigned long tx, unsigned long rx)
{
	struct tls_stat after = tls_stat_read();

	case_check(after.tx - before->tx == tx, "TlsTxSw grew by %lu, expected %lu",
		after.tx - before->tx, tx);
	case_check(after.rx - before->rx == rx, "TlsRxSw grew by %lu, expected %lu",
		after.rx - before->rx, rx);
	case_check(after.decrypt_errors == before->decrypt_errors, "TlsDecryptError grew by %lu",
		after.decrypt_errors - before->decrypt_errors);
}

static void tls_check_tickets(const struct tls_row *row, struct client *client)
{
	if (!row->is_13)
		return;
	case_check(client->wire.tickets == (unsigned)row->tickets, "%u tickets, expected %d",
		client->wire.tickets, row->tickets);
}

static void run_tls(const struct test_case *test)
{
	const struct tls_row *row = test->data;
	struct relay_options options = {.ktls = row->ktls};
	struct hop_plan plan = {0};
	struct tls_side side;
	struct tls_stat before;
	struct text body = {0};
	struct mail mail = {.body = &body};
	struct client client;
	char lines[512];
	struct hop *hop;

	tls_make_lines(row, lines, sizeof(lines));
	options.tls = lines;
	tls_make_side(row, row->is_13 != row->is_other_13, &plan.tls);
	tls_make_side(row, row->is_13, &side);
	hop = case_start(&plan, &options);
	before = tls_stat_read();
	body_make(&body, 50000);
	client_open_secured(&client, &side);
	case_check(client_send(&client, &mail) == 250, "the message got \"%s\"", client.last);
	case_check(strcmp(client.last, "250 2.0.0 <queued> as HOP-1") == 0,
		"the next hop's reply became \"%s\"", client.last);
	hop_check_body(hop, 0, &body, false);
	tls_check_tickets(row, &client);
	tls_check_line(row, "event=tls", row->is_13);
	tls_check_line(row, "event=nexthop-tls", row->is_13 != row->is_other_13);
	if (suite.is_kernel && row->ktls == NULL)
		tls_check_stat(&before, 2, 2);
	else if (suite.is_kernel && row->record != NULL)
		tls_check_stat(&before, strstr(row->record, "kernel-tx") != NULL ? 2 : 0,
			strstr(row->record, "kernel-rx") != NULL ? 2 : 0);
	client_quit(&client);
	relay_stop();
}

static void run_tls_kernel_only(const struct test_case *test)
{
	if (!suite.is_kernel)
		case_skip("records are in userspace");
	run_tls(test);
}

/* Without the kernel's help "auto" is userspace, and the log says why. */
static void run_fallback(const struct test_case *test)
{
	(void)test;
	if (kernel_has_tls())
		case_skip("this kernel has TLS");
	static const struct tls_row row = {
		true, AES128, .ktls = "auto", .record = "user(kernel-has-no-tls-module)"};
	const struct test_case inner = {.data = &row};

	run_tls(&inner);
}

/* A second session resumes the first one's; the certificate still counts. */
static void run_resume(const struct test_case *test)
{
	const struct tls_row *row = test->data;
	struct relay_options options = {0};
	struct hop_plan plan = {0};
	struct tls_side side;
	struct text body = {0};
	struct mail mail = {.body = &body};
	struct client first;
	struct client second;
	char lines[512];
	struct hop *hop;
	bool is_resumed;

	tls_make_lines(row, lines, sizeof(lines));
	options.tls = lines;
	tls_make_side(row, row->is_13, &side);
	tls_make_side(row, row->is_13, &plan.tls);
	hop = case_start(&plan, &options);
	body_make(&body, 5000);
	client_open_secured(&first, &side);
	case_check(client_send(&first, &mail) == 250, "the message got \"%s\"", first.last);
	case_check((first.wire.session != NULL) == (row->tickets > 0 || !row->is_13),
		"%u tickets with session-tickets = %d", first.wire.tickets, row->tickets);
	client_open(&second);
	client_ask(&second, "EHLO client.treyresearch.test", "250 HELP");
	case_check(client_start_tls(&second, &side, first.wire.session), "the handshake fails");
	client_ask(&second, "EHLO client.treyresearch.test", "250 HELP");
	is_resumed = SSL_session_reused(second.wire.ssl) == 1;
	case_check(is_resumed == (row->tickets > 0), "resumed: %s", is_resumed ? "yes" : "no");
	case_check(client_send(&second, &mail) == 250, "the message got \"%s\"", second.last);
	hop_check_body(hop, 1, &body, false);
	case_check_record(relay_await_log(2, "event=tls"));
	(void)relay_await_log(1, is_resumed ? "event=tls resumed=yes" : "event=tls resumed=no");
	client_quit(&first);
	client_quit(&second);
	relay_stop();
}

/* Early records. */

enum early_split {
	EARLY_WHOLE,    /* one segment: Finished and the record */
	EARLY_THREE,    /* Finished and three records */
	EARLY_HEADER,   /* Finished and three bytes of the record's header */
	EARLY_HALF,     /* Finished and half the record */
	EARLY_AND_HALF, /* Finished, a record, half of the next */
	EARLY_TORN,     /* the Finished itself is torn */
};

struct early_row {
	bool is_13;
	int tickets;
	enum early_split split;
};

/* How much of the held bytes goes first; finished, one, two: ends of flight and records. */
static size_t early_first(enum early_split split, size_t finished, size_t one, size_t two)
{
	switch (split) {
	case EARLY_WHOLE:
	case EARLY_THREE:
		break;
	case EARLY_HEADER:
		return finished + 3;
	case EARLY_HALF:
		return finished + (one - finished) / 2;
	case EARLY_AND_HALF:
		return one + (two - one) / 2;
	case EARLY_TORN:
		return finished - 10;
	}
	return SIZE_MAX;
}

/* A handshake whose last flight is kept back, with the first commands behind it. */
static void early_speak(struct client *client, const struct early_row *row)
{
	static const char noop[] = "NOOP one\r\n";
	static const char ehlo[] = "EHLO client.treyresearch.test\r\n";
	size_t finished = client->wire.out.len;
	size_t one;
	size_t first;

	case_check(finished > 0, "the client's last flight left early");
	(void)wire_write(&client->wire, ehlo, strlen(ehlo));
	one = client->wire.out.len;
	if (row->split == EARLY_AND_HALF || row->split == EARLY_THREE)
		(void)wire_write(&client->wire, noop, strlen(noop));
	first = early_first(row->split, finished, one, client->wire.out.len);
	if (row->split == EARLY_THREE)
		(void)wire_write(&client->wire, noop, strlen(noop));
	case_check(wire_release(&client->wire, first), "the relay does not read");
	if (first != SIZE_MAX) {
		pause_ms(100);
		case_check(wire_release(&client->wire, SIZE_MAX), "the relay does not read");
	}
	client_expect(client, "250 HELP");
	if (row->split == EARLY_AND_HALF || row->split == EARLY_THREE)
		client_expect(client, "250 2.0.0");
	if (row->split == EARLY_THREE)
		client_expect(client, "250 2.0.0");
}

static void run_early(const struct test_case *test)
{
	const struct early_row *row = test->data;
	const int version = row->is_13 ? TLS1_3_VERSION : TLS1_2_VERSION;
	const struct tls_side side = {.version_min = version, .version_max = version};
	struct relay_options options = {0};
	struct text body = {0};
	struct mail mail = {.body = &body};
	struct client before = {0};
	struct client client;
	struct tls_stat stat;
	char lines[64];
	struct hop *hop;

	(void)snprintf(lines, sizeof(lines), "\tsession-tickets = %d\n", row->tickets);
	options.tls = lines;
	hop = case_start(NULL, &options);
	/* In TLS 1.2 the client's Finished is the last flight only when a session is resumed. */
	client_open_secured(&before, &side);
	stat = tls_stat_read();
	client_open(&client);
	client_ask(&client, "EHLO client.treyresearch.test", "250 HELP");
	client.holds_finished = true;
	case_check(client_start_tls(&client, &side, row->is_13 ? NULL : before.wire.session),
		"the handshake fails");
	case_check(row->is_13 || SSL_session_reused(client.wire.ssl), "TLS 1.2 was not resumed");
	early_speak(&client, row);
	case_check_record(relay_await_log(2, "event=tls"));
	if (suite.is_kernel)
		tls_check_stat(&stat, 1, 1);
	body_make(&body, 40000);
	case_check(client_send(&client, &mail) == 250, "the message got \"%s\"", client.last);
	hop_check_body(hop, 0, &body, false);
	client_quit(&before);
	client_quit(&client);
	relay_stop();
}

#define ROW(label, ...)                                                          \
	{                                                                        \
		label, run_tls, &(const struct tls_row){.is_13 = __VA_ARGS__}, 0 \
	}
#define MODE(label, ...)                                                                     \
	{                                                                                    \
		label, run_tls_kernel_only, &(const struct tls_row){.is_13 = __VA_ARGS__}, 0 \
	}
#define RESUME(label, ...)                                                          \
	{                                                                           \
		label, run_resume, &(const struct tls_row){.is_13 = __VA_ARGS__}, 0 \
	}
#define EARLY(label, ...)                                                            \
	{                                                                            \
		label, run_early, &(const struct early_row){.is_13 = __VA_ARGS__}, 0 \
	}

static const struct test_case rows[] = {
	ROW("tls/1.2-aes128-tickets0", false, AES128, 0),
	ROW("tls/1.2-aes128-tickets1", false, AES128, 1),
	ROW("tls/1.2-aes256-tickets0", false, AES256, 0),
	ROW("tls/1.2-aes256-tickets1", false, AES256, 1),
	ROW("tls/1.3-aes128-tickets0", true, AES128, 0),
	ROW("tls/1.3-aes128-tickets1", true, AES128, 1),
	ROW("tls/1.3-aes128-tickets2", true, AES128, 2),
	ROW("tls/1.3-aes256-tickets0", true, AES256, 0),
	ROW("tls/1.3-aes256-tickets1", true, AES256, 1),
	ROW("tls/1.3-aes256-tickets2", true, AES256, 2),
	ROW("tls/1.2-chacha", false, CHACHA, 1),
	ROW("tls/1.3-chacha", true, CHACHA, 1),
	ROW("tls/1.3-in-1.2-out", true, AES128, 1, .is_other_13 = true),
	ROW("tls/1.2-in-1.3-out", false, AES256, 1, .is_other_13 = true),
	MODE("tls/1.3-kernel-sends", true, AES128, 1, "tx", "kernel-tx,user-rx(configured)"),
	MODE("tls/1.3-kernel-receives", true, AES128, 1, "rx", "kernel-rx,user-tx(configured)"),
	MODE("tls/1.2-kernel-sends", false, AES256, 1, "tx", "kernel-tx,user-rx(configured)"),
	MODE("tls/1.2-kernel-receives", false, AES256, 1, "rx", "kernel-rx,user-tx(configured)"),
	MODE("tls/off", true, AES128, 1, "off", "user(configured)"),
	{"tls/auto-without-kernel", run_fallback, NULL, 0},
	RESUME("tls/resume-1.2", false, AES128, 1),
	RESUME("tls/resume-1.3", true, AES256, 1),
	RESUME("tls/resume-none", true, AES128, 0),
	EARLY("early/1.3-whole-tickets0", true, 0, EARLY_WHOLE),
	EARLY("early/1.3-whole-tickets1", true, 1, EARLY_WHOLE),
	EARLY("early/1.3-whole-tickets2", true, 2, EARLY_WHOLE),
	EARLY("early/1.3-three-records", true, 1, EARLY_THREE),
	EARLY("early/1.3-part-of-header", true, 1, EARLY_HEADER),
	EARLY("early/1.3-half", true, 1, EARLY_HALF),
	EARLY("early/1.3-half-tickets0", true, 0, EARLY_HALF),
	EARLY("early/1.3-and-half", true, 1, EARLY_AND_HALF),
	EARLY("early/1.3-torn-finished", true, 2, EARLY_TORN),
	EARLY("early/1.2-whole", false, 1, EARLY_WHOLE),
	EARLY("early/1.2-three-records", false, 1, EARLY_THREE),
	EARLY("early/1.2-part-of-header", false, 1, EARLY_HEADER),
	EARLY("early/1.2-half", false, 1, EARLY_HALF),
	EARLY("early/1.2-and-half", false, 1, EARLY_AND_HALF),
	EARLY("early/1.2-torn-finished", false, 1, EARLY_TORN),
};
const struct case_table case_tls = {rows, COUNT_OF(rows)};
