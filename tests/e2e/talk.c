/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/e2e/talk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Talking. */

void client_say(struct client *client, const char *format, ...)
{
	char line[2048];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line) - 2, format, args);
	va_end(args);
	case_check(len >= 0 && (size_t)len < sizeof(line) - 2, "line too long for the driver");
	memcpy(line + len, "\r\n", 3);
	/* If the relay has closed, the reply that is missing will tell. */
	(void)wire_write(&client->wire, line, (size_t)len + 2);
}

bool client_hear(struct client *client)
{
	const char *line;

	text_clear(&client->reply);
	client->code = 0;
	client->last[0] = '\0';
	do {
		line = wire_line(&client->wire, &client->line, wire_patience_ms());
		if (line == NULL)
			return false;
		text_print(&client->reply, "%.1000s\r\n", line);
		case_check(strlen(line) >= 4 && strspn(line, "0123456789") == 3 &&
				   (line[3] == ' ' || line[3] == '-'),
			"\"%s\" is no reply", line);
	} while (line[3] == '-');
	(void)snprintf(client->last, sizeof(client->last), "%s", line);
	client->code = (int)strtoul(line, NULL, 10);
	return true;
}

void client_expect(struct client *client, const char *beginning)
{
	if (!client_hear(client))
		case_fail("no reply (%s), expected \"%s\"", wire_end_word(client->wire.end),
			beginning);
	case_check(strncmp(client->last, beginning, strlen(beginning)) == 0,
		"reply \"%s\", expected \"%s\"", client->last, beginning);
}

void client_ask(struct client *client, const char *line, const char *beginning)
{
	client_say(client, "%s", line);
	if (!client_hear(client))
		case_fail("%.60s: no reply (%s), expected \"%s\"", line,
			wire_end_word(client->wire.end), beginning);
	case_check(strncmp(client->last, beginning, strlen(beginning)) == 0,
		"%.60s: reply \"%s\", expected \"%s\"", line, client->last, beginning);
}

enum wire_end client_expect_end(struct client *client)
{
	uint64_t until = now_ms() + wire_patience_ms();

	while (client->wire.end == WIRE_OPEN && client->wire.in.len == 0 && now_ms() < until)
		(void)wire_wait(&client->wire, wire_patience_ms());
	case_check(client->wire.in.len == 0, "got \"%.200s\", expected the end of the session",
		client->wire.in.len > 0 ? client->wire.in.data : "");
	case_check(client->wire.end != WIRE_OPEN, "the session does not end");
	return client->wire.end;
}

void client_expect_silence(struct client *client)
{
	(void)wire_wait(&client->wire, 150 * suite.slow);
	case_check(client->wire.in.len == 0, "got \"%.200s\", expected nothing",
		client->wire.in.len > 0 ? client->wire.in.data : "");
}

/* Sessions. */

void client_open(struct client *client)
{
	*client = (struct client){0};
	wire_connect(&client->wire, suite.address, RELAY_PORT);
	case_check(client->wire.fd >= 0, "the relay takes no connection");
	client_expect(client, "220 mx.adatum.test ");
}

bool client_start_tls(struct client *client, const struct tls_side *side, SSL_SESSION *session)
{
	client_ask(client, "STARTTLS", "220 2.0.0");
	if (client->ctx == NULL)
		client->ctx = tls_side_make(side, false);
	case_check(client->ctx != NULL, "the client's TLS context cannot be made");
	client->wire.is_held = client->holds_finished;
	return wire_handshake(&client->wire, client->ctx, false, session);
}

void client_open_secured(struct client *client, const struct tls_side *side)
{
	static const struct tls_side usual;

	client_open(client);
	client_ask(client, "EHLO client.treyresearch.test", "250 HELP");
	case_check(client_start_tls(client, side == NULL ? &usual : side, NULL),
		"the handshake fails (%s, alert %d)", wire_end_word(client->wire.end),
		client->wire.alert & 255);
	client_ask(client, "EHLO client.treyresearch.test", "250 HELP");
}

void client_close(struct client *client)
{
	wire_close(&client->wire);
	text_free(&client->line);
	text_free(&client->reply);
	SSL_CTX_free(client->ctx);
	client->ctx = NULL;
}

void client_quit(struct client *client)
{
	client_ask(client, "QUIT", "221 2.0.0");
	(void)client_expect_end(client);
	case_check(client->wire.ssl == NULL || client->wire.end == WIRE_GOODBYE,
		"QUIT under TLS ended with %s, expected close_notify",
		wire_end_word(client->wire.end));
	client_close(client);
}

/* Mail. */

void client_begin(struct client *client, const struct mail *mail)
{
	char line[1024];

	(void)snprintf(line, sizeof(line), "MAIL FROM:%s%s",
		mail->sender == NULL ? "<ann@treyresearch.test>" : mail->sender,
		mail->params == NULL ? "" : mail->params);
	client_ask(client, line, "250 2.1.0 hop likes the sender");
	(void)snprintf(line, sizeof(line), "RCPT TO:%s",
		mail->recipient == NULL ? "<bob@adatum.test>" : mail->recipient);
	client_ask(client, line, "250 2.1.5 hop likes the recipient");
}

static void client_give_chunks(struct client *client, const struct mail *mail)
{
	size_t record_bytes = mail->record_bytes == 0 ? 16384 : mail->record_bytes;
	size_t left = mail->body->len;
	const char *at = mail->body->data;
	bool is_last = false;

	while (!is_last) {
		size_t piece = mail->chunk_bytes > 0 && mail->chunk_bytes < left ? mail->chunk_bytes
										 : left;

		is_last = piece == left && !(mail->ends_with_empty_chunk && left > 0);
		client_say(client, "BDAT %zu%s", piece, is_last ? " LAST" : "");
		if (piece > 0)
			case_check(wire_write_records(&client->wire, at, piece, record_bytes),
				"the relay does not take the body (%s)",
				wire_end_word(client->wire.end));
		at += piece;
		left -= piece;
		if (!is_last)
			client_expect(client, "250 2.6.0");
	}
}

void client_give_body(struct client *client, const struct mail *mail)
{
	struct text stuffed = {0};

	if (mail->by_bdat) {
		client_give_chunks(client, mail);
		return;
	}
	client_ask(client, "DATA", "354 ");
	body_stuff(mail->body, &stuffed);
	case_check(wire_write_records(&client->wire, stuffed.data, stuffed.len,
			   mail->record_bytes == 0 ? 16384 : mail->record_bytes),
		"the relay does not take the body (%s)", wire_end_word(client->wire.end));
	text_free(&stuffed);
}

int client_send(struct client *client, const struct mail *mail)
{
	client_begin(client, mail);
	client_give_body(client, mail);
	case_check(client_hear(client), "no reply to the message (%s)",
		wire_end_word(client->wire.end));
	return client->code;
}

/* Bodies. */

void body_stuff(const struct text *body, struct text *out)
{
	size_t from = 0;

	while (from < body->len) {
		size_t end = text_line_end(body, from);
		size_t to = end < body->len ? end + 2 : end;

		if (body->data[from] == '.')
			text_add(out, ".", 1);
		text_add(out, body->data + from, to - from);
		from = to;
	}
	text_add(out, ".\r\n", 3);
}

void body_make(struct text *out, size_t bytes)
{
	static const char *const lines[] = {"The quick brown fox jumps over the lazy dog.\r\n",
		".\r\n", "..\r\n", ". one dot\r\n", ".. two\r\n", "\r\n",
		"gr\xc3\xbc\xc3\x9f\x65 \xe9\xff\x80\xfe 8-bit\r\n", ".from\r\n",
		"line %u of a body that is compared byte for byte at the other end\r\n"};
	char line[128];
	unsigned index = 0;

	text_clear(out);
	text_add(out, "", 0);
	if (bytes >= 64)
		text_print(
			out, "Subject: %zu bytes\r\nFrom: <ann@treyresearch.test>\r\n\r\n", bytes);
	while (out->len + 100 < bytes) {
		const char *text = lines[index % COUNT_OF(lines)];

		if (index % COUNT_OF(lines) == COUNT_OF(lines) - 1) {
			(void)snprintf(line, sizeof(line),
				"line %u of a body that is compared byte for byte\r\n", index);
			text = line;
		}
		text_add(out, text, strlen(text));
		index++;
	}
	while (out->len + 2 < bytes)
		text_add(out, "x", 1);
	if (out->len + 2 == bytes)
		text_add(out, "\r\n", 2);
	else if (out->len < bytes)
		text_add(out, "y", 1);
}

void body_make_binary(struct text *out, size_t bytes)
{
	static const char awkward[] = "\r\n.\r\n\n.\n\r.\r\n\0QUIT\r\n";
	uint32_t random = 12345;

	text_clear(out);
	text_print(out, "Subject: binary\r\n\r\n");
	while (out->len < bytes) {
		char byte;

		random = random * 1103515245 + 12345;
		byte = (char)(random >> 16);
		text_add(out, &byte, 1);
		if (random % 97 == 0)
			text_add(out, awkward, sizeof(awkward) - 1);
	}
}

/* Behind the field of that name, which must be the first; NULL if it is not there. */
static char *hop_behind_field(char *at, const char *start)
{
	if (at == NULL || strncmp(at, start, strlen(start)) != 0)
		return NULL;
	do {
		at = strstr(at, "\r\n");
		if (at == NULL)
			return NULL;
		at += 2;
	} while (*at == ' ' || *at == '\t');
	return at;
}

/* Behind the relay's two fields; NULL if they are not there. */
static char *hop_behind_stamps(const struct text *message)
{
	return hop_behind_field(hop_behind_field(message->data, "Received: from "),
		"Authentication-Results: mx.adatum.test;\r\n\tx-domain-secure=");
}

void hop_check_body(struct hop *hop, unsigned index, const struct text *body, bool is_line_ended)
{
	const struct text *message = &hop->messages[index].body;
	struct text got = {0};
	size_t same;

	case_check(hop_count(hop, &hop->message_count) > index, "the next hop has no message %u",
		index + 1);
	got.data = message->len == 0 ? NULL : hop_behind_stamps(message);
	case_check(got.data != NULL, "the message does not begin with our own fields: \"%.80s\"",
		message->len == 0 ? "" : message->data);
	got.len = message->len - (size_t)(got.data - message->data);
	if (is_line_ended && got.len >= 2 && memcmp(got.data + got.len - 2, "\r\n", 2) == 0)
		got.len -= 2;
	else
		case_check(!is_line_ended, "the message does not end in CR LF");
	same = text_difference(body, &got);
	case_check(same == body->len && same == got.len,
		"the body differs at byte %zu: %zu bytes were sent, %zu came out", same, body->len,
		got.len);
}

void check_serves(struct hop *hop)
{
	unsigned had = hop_count(hop, &hop->message_count);
	struct text body = {0};
	struct mail mail = {.body = &body, .sender = "<carol@treyresearch.test>"};
	struct client client;

	case_check(relay_is_alive(), "the relay is dead");
	body_make(&body, 3000);
	client_open_secured(&client, NULL);
	case_check(
		client_send(&client, &mail) == 250, "afterwards a message got \"%s\"", client.last);
	hop_check_body(hop, had, &body, false);
	client_quit(&client);
	text_free(&body);
}
