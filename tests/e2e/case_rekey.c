/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_rekey.c: TLS 1.3 KeyUpdate from either peer. In userspace, and on kernels that
 * can take new keys (6.14), all goes on; on older ones the connection ends, nothing
 * is half delivered, and the log says why.
 */

#include "tests/e2e/case.h"
#include <string.h>

#define ASKED SSL_KEY_UPDATE_REQUESTED
#define UNASKED SSL_KEY_UPDATE_NOT_REQUESTED

struct rekey_row {
	int type; /* of the client's KeyUpdate */
	bool by_bdat;
	unsigned times;        /* in a row, with traffic between them */
	enum hop_step step;    /* the next hop's KeyUpdate comes here */
	bool is_last_hop_data; /* the next hop gets DATA */
};

static bool rekey_goes_on(void)
{
	return !suite.is_kernel || suite.can_rekey;
}

static void rekey_check_end(struct hop *hop, struct client *client)
{
	(void)client_expect_end(client);
	case_check(client->wire.end == WIRE_BROKEN && client->wire.alert != 0,
		"the end was %s, expected an alert", wire_end_word(client->wire.end));
	(void)relay_await_log(1, "event=lost why=key-update");
	case_check(relay_counter("tls_key_update_closed") == 1, "tls_key_update_closed=%lu",
		relay_counter("tls_key_update_closed"));
	case_check(hop_count(hop, &hop->message_count) == 0, "the next hop got a whole message");
}

static void rekey_check_stat(const struct tls_stat *before, unsigned rx, unsigned tx)
{
	struct tls_stat after = tls_stat_read();

	case_check(after.decrypt_errors == before->decrypt_errors, "TlsDecryptError grew");
	if (!suite.can_rekey)
		return;
	case_check(after.rekey_rx - before->rekey_rx == rx, "TlsRxRekeyOk grew by %lu, expected %u",
		after.rekey_rx - before->rekey_rx, rx);
	case_check(after.rekey_tx - before->rekey_tx == tx, "TlsTxRekeyOk grew by %lu, expected %u",
		after.rekey_tx - before->rekey_tx, tx);
}

/* Between commands. */
static void run_between(const struct test_case *test)
{
	const struct rekey_row *row = test->data;
	struct text body = {0};
	struct mail mail = {.body = &body};
	struct client client;
	struct hop *hop = case_start(NULL, NULL);
	struct tls_stat before = tls_stat_read();

	body_make(&body, 30000);
	client_open_secured(&client, NULL);
	for (unsigned i = 0; i < row->times; i++) {
		case_check(wire_update_keys(&client.wire, row->type), "no KeyUpdate");
		client_say(&client, "NOOP");
		if (!rekey_goes_on())
			break;
		client_expect(&client, "250 2.0.0");
	}
	if (rekey_goes_on()) {
		case_check(
			client_send(&client, &mail) == 250, "the message got \"%s\"", client.last);
		hop_check_body(hop, 0, &body, false);
		rekey_check_stat(&before, row->times, row->type == ASKED ? row->times : 0);
		client_quit(&client);
	} else {
		rekey_check_end(hop, &client);
		client_close(&client);
	}
	case_finish(hop);
}

/* In the middle of a body, which is large enough for bulk receives. */
static void run_in_body(const struct test_case *test)
{
	const struct rekey_row *row = test->data;
	struct text body = {0};
	struct text stuffed = {0};
	const struct mail mail = {0};
	struct client client;
	size_t piece;
	struct hop *hop = case_start(NULL, NULL);
	const struct text *sent = row->by_bdat ? &body : &stuffed;

	body_make(&body, 400000);
	body_stuff(&body, &stuffed);
	client_open_secured(&client, NULL);
	client_begin(&client, &mail);
	if (row->by_bdat)
		client_say(&client, "BDAT %zu LAST", body.len);
	else
		client_ask(&client, "DATA", "354 ");
	piece = sent->len / (row->times + 1);
	for (unsigned i = 0; i < row->times; i++) {
		(void)wire_write(&client.wire, sent->data + i * piece, piece);
		(void)wire_update_keys(&client.wire, row->type);
	}
	(void)wire_write(
		&client.wire, sent->data + row->times * piece, sent->len - row->times * piece);
	if (rekey_goes_on()) {
		client_expect(&client, "250 2.0.0 <queued>");
		hop_check_body(hop, 0, &body, false);
		client_quit(&client);
	} else {
		rekey_check_end(hop, &client);
		client_close(&client);
		hop_await(hop, &hop->cut_off, 1, "bodies cut off");
	}
	case_finish(hop);
}

/* From the next hop: its session may end, and the client hears 4xx, or 250 for a whole message. */
static void run_from_hop(const struct test_case *test)
{
	const struct rekey_row *row = test->data;
	const struct hop_plan plan = {.tls.tickets = 1,
		.lacks = row->is_last_hop_data ? HOP_NO_CHUNKING : 0,
		.step = row->step,
		.act = row->type == ASKED ? HOP_UPDATE_ASKED : HOP_UPDATE,
		.body_bytes = 100000};
	static const char *const envelope[] = {
		"MAIL FROM:<ann@treyresearch.test>", "RCPT TO:<bob@adatum.test>", "DATA"};
	struct text body = {0};
	struct text stuffed = {0};
	struct client client;
	bool goes_on = true;
	struct hop *hop = case_start(&plan, NULL);

	body_make(&body, 400000);
	body_stuff(&body, &stuffed);
	client_open_secured(&client, NULL);
	for (unsigned i = 0; goes_on && i < COUNT_OF(envelope); i++) {
		client_say(&client, "%s", envelope[i]);
		case_check(client_hear(&client), "no reply to %s", envelope[i]);
		goes_on = client.code < 400;
	}
	if (goes_on) {
		(void)wire_write(&client.wire, stuffed.data, stuffed.len);
		case_check(client_hear(&client), "no reply to the message (%s)",
			wire_end_word(client.wire.end));
	}
	hop_await(hop, &hop->acted, 1, "KeyUpdates");
	if (rekey_goes_on() || row->step == HOP_IDLE)
		case_check(client.code == 250, "the message got \"%s\"", client.last);
	else
		case_check(client.code / 100 == 4, "got \"%s\", expected 4xx", client.last);
	/*
	 * Its 250 may have been lost under the new key, which is 451 for the client; a 250
	 * that was not said, or half a message, may not be.
	 */
	case_check(client.code != 250 || hop_count(hop, &hop->accepted) == 1,
		"the client got 250 and the next hop accepted %u", hop_count(hop, &hop->accepted));
	if (hop_count(hop, &hop->message_count) > 0)
		hop_check_body(hop, 0, &body, false);
	client_ask(&client, "RSET", "250 ");
	hop_heal(hop);
	client_quit(&client);
	case_finish(hop);
}

#define BETWEEN(label, ...)                                                           \
	{                                                                             \
		label, run_between, &(const struct rekey_row){.type = __VA_ARGS__}, 0 \
	}
#define IN_BODY(label, ...)                                                           \
	{                                                                             \
		label, run_in_body, &(const struct rekey_row){.type = __VA_ARGS__}, 0 \
	}
#define FROM_HOP(label, ...)                                                           \
	{                                                                              \
		label, run_from_hop, &(const struct rekey_row){.type = __VA_ARGS__}, 0 \
	}

static const struct test_case rows[] = {
	BETWEEN("rekey/between-unasked", UNASKED, .times = 1),
	BETWEEN("rekey/between-asked", ASKED, .times = 1),
	BETWEEN("rekey/between-unasked-thrice", UNASKED, .times = 3),
	BETWEEN("rekey/between-asked-thrice", ASKED, .times = 3),
	IN_BODY("rekey/data-unasked", UNASKED, false, 1),
	IN_BODY("rekey/data-asked", ASKED, false, 1),
	IN_BODY("rekey/data-asked-thrice", ASKED, false, 3),
	IN_BODY("rekey/bdat-unasked", UNASKED, true, 1),
	IN_BODY("rekey/bdat-asked", ASKED, true, 1),
	IN_BODY("rekey/bdat-asked-thrice", ASKED, true, 3),
	FROM_HOP("rekey/hop-at-mail-unasked", UNASKED, .step = HOP_MAIL),
	FROM_HOP("rekey/hop-at-mail-asked", ASKED, .step = HOP_MAIL),
	FROM_HOP("rekey/hop-at-data-asked", ASKED, .step = HOP_DATA, .is_last_hop_data = true),
	FROM_HOP("rekey/hop-in-body-unasked", UNASKED, .step = HOP_BODY),
	FROM_HOP("rekey/hop-in-body-asked", ASKED, .step = HOP_BODY),
	FROM_HOP("rekey/hop-in-data-asked", ASKED, .step = HOP_BODY, .is_last_hop_data = true),
	FROM_HOP("rekey/hop-at-end-asked", ASKED, .step = HOP_END),
	FROM_HOP("rekey/hop-idle-unasked", UNASKED, .step = HOP_IDLE),
	FROM_HOP("rekey/hop-idle-asked", ASKED, .step = HOP_IDLE),
};
const struct case_table case_rekey = {rows, COUNT_OF(rows)};
