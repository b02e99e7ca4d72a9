/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_cert.c: clients that do not prove themselves, and what is no handshake.
 */

#include "tests/e2e/case.h"
#include <stdio.h>
#include <string.h>

struct cert_row {
	const char *name; /* in the PKI; "": none */
	const char *word; /* what the relay calls it */
	bool is_permanent;
};

static void cert_try(const struct cert_row *row, int version, unsigned sessions)
{
	const struct tls_side side = {.certificate = row->name,
		.version_max = version,
		.is_weak = strcmp(row->name, "adatum-weak") == 0};
	struct client client;
	char want[128];
	const char *line;

	(void)snprintf(want, sizeof(want), "%s Certificate validation failure: %s",
		row->is_permanent ? "550 5.7.5" : "454 4.7.5", row->word);
	client_open_secured(&client, &side);
	client_ask(&client, "MAIL FROM:<ann@treyresearch.test>", want);
	client_ask(&client, "RCPT TO:<bob@adatum.test>", "503 ");
	client_ask(&client, "DATA", "503 ");
	client_ask(&client, "NOOP", "250 ");
	client_quit(&client);
	(void)snprintf(want, sizeof(want), "event=tls client-cert=%s", row->word);
	line = relay_await_log(sessions, want);
	case_check(strstr(line, " record=user(") != NULL,
		"the kernel does the records of a client that did not prove itself");
	(void)snprintf(
		want, sizeof(want), "event=refused why=client-certificate status=%s", row->word);
	(void)relay_await_log(sessions, want);
}

static void run_cert(const struct test_case *test)
{
	const struct cert_row *row = test->data;
	const struct relay_options options = {
		.receive = row->is_permanent ? "\tpermanent-tls-refusals = yes\n" : NULL};
	struct hop *hop = case_start(NULL, &options);

	cert_try(row, TLS1_3_VERSION, 1);
	cert_try(row, TLS1_2_VERSION, 2);
	case_check(hop_count(hop, &hop->sessions) == 0, "the next hop was asked");
	case_check(relay_counter("client_cert_refused") == 2, "client_cert_refused=%lu",
		relay_counter("client_cert_refused"));
	case_finish(hop);
}

/* Certificates that are good, and not the usual ones. */
static void run_good_cert(const struct test_case *test)
{
	const struct tls_side side = {.certificate = test->data};
	struct text body = {0};
	struct mail mail = {.body = &body};
	struct client client;
	struct hop *hop = case_start(NULL, NULL);

	body_make(&body, 100);
	client_open_secured(&client, &side);
	case_check(client_send(&client, &mail) == 250, "the message got \"%s\"", client.last);
	(void)relay_await_log(1, "event=tls client-cert=Valid");
	client_quit(&client);
	case_finish(hop);
}

/* In clear nothing is accepted, whoever it is. */
static void run_no_tls(const struct test_case *test)
{
	struct client client;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	client_open(&client);
	client_ask(&client, "MAIL FROM:<ann@treyresearch.test>", "503 5.5.2");
	client_ask(&client, "EHLO client.treyresearch.test", "250 HELP");
	case_check(strstr(client.reply.data, "STARTTLS") != NULL, "STARTTLS is not offered");
	client_ask(&client, "MAIL FROM:<ann@treyresearch.test>", "451 5.7.3");
	client_ask(&client, "RCPT TO:<bob@adatum.test>", "503 ");
	client_ask(&client, "QUIT", "221 ");
	client_close(&client);
	case_check(hop_count(hop, &hop->sessions) == 0, "the next hop was asked");
	case_finish(hop);
}

/* After TLS nothing from before is remembered, and TLS is not offered again. */
static void run_forgets(const struct test_case *test)
{
	static const struct tls_side side;
	struct client client;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	client_open(&client);
	client_ask(&client, "EHLO liar.example", "250 HELP");
	case_check(client_start_tls(&client, &side, NULL), "the handshake fails");
	client_ask(&client, "MAIL FROM:<ann@treyresearch.test>", "503 5.5.2");
	client_ask(&client, "EHLO client.treyresearch.test", "250 HELP");
	case_check(strstr(client.reply.data, "STARTTLS") == NULL, "STARTTLS is offered under TLS");
	client_ask(&client, "STARTTLS", "503 ");
	client_quit(&client);
	case_finish(hop);
}

/* What is no ClientHello. */
static void run_no_hello(const struct test_case *test)
{
	static const struct {
		const char *bytes;
		size_t len;
	} garbage[] = {
		{"GET / HTTP/1.0\r\n\r\n", 18},
		{"NOOP\r\nMAIL FROM:<evil@treyresearch.test>\r\n", 42},
		{"\x16\x03\x01\x00\x20"
		 "0123456789abcdef0123456789abcdef",
			37},
		{"\x16\x03\x01\xff\xff"
		 "0123456789abcdef",
			21},
		{"\x17\x03\x03\x00\x10"
		 "0123456789abcdef",
			21},
		{"\x15\x03\x01\x00\x02\x02\x28", 7},
		{"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", 11},
		{"\x16\x03\x01\x00\x04\x01\x00\x00\x00", 9},
		{"\0\0\0\0\0\0\0\0\0\0", 10},
		{"\x16\x03\x01\x02", 4}, /* and a FIN */
		{"\x16\x03\x01\x00\x00", 5},
		{"\x16\x03\x01\x02\x00\x01\x00\x01", 8},
		{"", 0},
	};
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	for (unsigned i = 0; i < COUNT_OF(garbage); i++) {
		struct client client;
		enum wire_end end;

		client_open(&client);
		client_ask(&client, "EHLO client.treyresearch.test", "250 HELP");
		client_ask(&client, "STARTTLS", "220 ");
		(void)wire_write_raw(&client.wire, garbage[i].bytes, garbage[i].len);
		if (i >= COUNT_OF(garbage) - 4)
			wire_finish(&client.wire);
		/* An alert in clear is all that may come back. */
		end = wire_drain(&client.wire, wire_patience_ms()) ? client.wire.end : WIRE_OPEN;
		case_check(end != WIRE_OPEN, "garbage %u does not end the session", i);
		client_close(&client);
		(void)relay_await_log(i + 1, "event=tls-failed");
		(void)relay_await_log(i + 1, "event=session-end");
	}
	case_check(relay_counter("tls_failed") == COUNT_OF(garbage), "tls_failed=%lu of %zu",
		relay_counter("tls_failed"), COUNT_OF(garbage));
	case_check(hop_count(hop, &hop->sessions) == 0, "the next hop was asked");
	case_finish(hop);
}

/* Handshakes that find no common ground. */
static void run_no_ground(const struct test_case *test)
{
	static const struct tls_side sides[] = {
		{.version_min = TLS1_1_VERSION,
			.version_max = TLS1_1_VERSION,
			.is_weak = true,
			.ciphers = "ALL:@SECLEVEL=0"},
		{.version_max = TLS1_2_VERSION, .ciphers = "AES128-SHA", .is_weak = true},
	};
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	for (unsigned i = 0; i < COUNT_OF(sides); i++) {
		struct client client;

		client_open(&client);
		client_ask(&client, "EHLO client.treyresearch.test", "250 HELP");
		case_check(!client_start_tls(&client, &sides[i], NULL), "a handshake was made");
		case_check(client.wire.alert != 0, "no alert: %s", wire_end_word(client.wire.end));
		client_close(&client);
		(void)relay_await_log(i + 1, "event=tls-failed");
	}
	case_finish(hop);
}

/* Commands in the segment of STARTTLS are never carried out, in clear or under TLS. */
static void run_injection(const struct test_case *test)
{
	static const char *const behind[] = {"NOOP\r\n", "MAIL FROM:<evil@treyresearch.test>\r\n",
		"EHLO evil.example\r\nMAIL FROM:<evil@treyresearch.test>\r\n", "x", "\x16\x03\x01"};
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	for (unsigned i = 0; i < COUNT_OF(behind); i++) {
		struct client client;
		struct text both = {0};

		client_open(&client);
		client_ask(&client, "EHLO client.treyresearch.test", "250 HELP");
		text_print(&both, "STARTTLS\r\n%s", behind[i]);
		(void)wire_write(&client.wire, both.data, both.len);
		client_expect(&client, "554 ");
		(void)client_expect_end(&client);
		client_close(&client);
		text_free(&both);
	}
	case_check(relay_counter("tls_plaintext_injected") == COUNT_OF(behind),
		"tls_plaintext_injected=%lu", relay_counter("tls_plaintext_injected"));
	case_check(hop_count(hop, &hop->sessions) == 0, "the next hop was asked");
	case_finish(hop);
}

/* A whole session, handshake and all, in segments of one byte. */
static void run_dripping(const struct test_case *test)
{
	static const struct tls_side side;
	struct text body = {0};
	struct mail mail = {.body = &body};
	struct client client;
	struct hop *hop = case_start(NULL, NULL);

	(void)test;
	body_make(&body, 2000);
	client_open(&client);
	client.wire.is_dripping = true;
	client_ask(&client, "EHLO client.treyresearch.test", "250 HELP");
	case_check(client_start_tls(&client, &side, NULL), "the handshake fails");
	client_ask(&client, "EHLO client.treyresearch.test", "250 HELP");
	case_check_record(relay_await_log(1, "event=tls"));
	case_check(client_send(&client, &mail) == 250, "the message got \"%s\"", client.last);
	hop_check_body(hop, 0, &body, false);
	mail.by_bdat = true;
	case_check(client_send(&client, &mail) == 250, "the message got \"%s\"", client.last);
	hop_check_body(hop, 1, &body, false);
	client_quit(&client);
	case_finish(hop);
}

#define CERT(label, ...)                                                          \
	{                                                                         \
		label, run_cert, &(const struct cert_row){.name = __VA_ARGS__}, 0 \
	}

static const struct test_case rows[] = {
	CERT("cert/none", "", "EmptyCertificate"),
	CERT("cert/expired", "adatum-expired", "Expired"),
	CERT("cert/not-yet-valid", "adatum-future", "NotYetValid"),
	CERT("cert/untrusted", "other", "UntrustedRoot"),
	CERT("cert/self-signed", "self", "UntrustedRoot"),
	CERT("cert/code-signing", "adatum-eku", "BadUsage"),
	CERT("cert/server-only", "adatum-server", "BadUsage"),
	CERT("cert/weak-key", "adatum-weak", "WeakKey"),
	CERT("cert/permanent-none", "", "EmptyCertificate", true),
	CERT("cert/permanent-expired", "adatum-expired", "Expired", true),
	{"cert/good-rsa", run_good_cert, "adatum-rsa", 0},
	{"cert/good-intermediate", run_good_cert, "adatum", 0},
	{"cert/no-tls", run_no_tls, NULL, 0},
	{"cert/forgets", run_forgets, NULL, 0},
	{"cert/no-client-hello", run_no_hello, NULL, 0},
	{"cert/no-common-ground", run_no_ground, NULL, 0},
	{"cert/behind-starttls", run_injection, NULL, 0},
	{"cert/byte-by-byte", run_dripping, NULL, 0},
};
const struct case_table case_cert = {rows, COUNT_OF(rows)};
