/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/client.h"

#include <errno.h>
#include <string.h>

/* A reply line longer than this is none (RFC 5321 4.5.3.1.5 has 512). */
#define CLIENT_LINE_BYTES_MAX 4096

#define CLIENT_COMMAND_BYTES_MAX 512

static void client_fail(struct client *client, const char *why, int code)
{
	client->state = CLIENT_LOST;
	client->events->on_lost(client, why, code);
	stream_abort(&client->stream);
}

bool client_say(struct client *client, const char *line)
{
	struct span bytes = span_of(line);

	return bytes.len <= stream_room(&client->stream) &&
	       stream_write(&client->stream, bytes) == bytes.len;
}

bool client_say_number(
	struct client *client, const char *before, uint64_t number, const char *after)
{
	char line[CLIENT_COMMAND_BYTES_MAX];
	size_t before_bytes = strlen(before);
	size_t after_bytes = strlen(after);
	char digits[20];
	size_t at = sizeof(digits);
	size_t bytes;

	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	bytes = before_bytes + sizeof(digits) - at + after_bytes;
	if (bytes > sizeof(line) || bytes > stream_room(&client->stream))
		return false;
	memcpy(line, before, before_bytes);
	memcpy(line + before_bytes, digits + at, sizeof(digits) - at);
	memcpy(line + bytes - after_bytes, after, after_bytes);
	return stream_write(&client->stream, span_make(line, bytes)) == bytes;
}

static void client_keyword(struct client *client, struct span word)
{
	if (span_equal_nocase(word, span_of("CHUNKING")))
		client->has_chunking = true;
	else if (span_equal_nocase(word, span_of("PIPELINING")))
		client->has_pipelining = true;
	else if (span_equal_nocase(word, span_of("STARTTLS")))
		client->has_starttls = true;
}

/* Is it "250", or does it begin with "250-" or "250 "? */
static bool client_is_reply(struct span line)
{
	const uint8_t *text = line.data;

	return line.len >= 3 && text[0] >= '2' && text[0] <= '5' && text[1] >= '0' &&
	       text[1] <= '9' && text[2] >= '0' && text[2] <= '9' &&
	       (line.len == 3 || text[3] == ' ' || text[3] == '-');
}

int client_next_reply(struct client *client)
{
	for (;;) {
		struct span input = stream_input(&client->stream);
		const uint8_t *end = input.len > 0 ? memchr(input.data, '\n', input.len) : NULL;
		struct span line = input;
		int code;

		if (end == NULL) {
			if (input.len > CLIENT_LINE_BYTES_MAX)
				return -EPROTO;
			stream_read(&client->stream);
			return -EAGAIN;
		}
		line.len = (size_t)(end - input.data);
		if (line.len > 0 && line.data[line.len - 1] == '\r')
			line.len--;
		if (!client_is_reply(line))
			return -EPROTO;
		if (client->state != CLIENT_READY)
			client_keyword(client, span_skip(line, 4));
		code = (line.data[0] - '0') * 100 + (line.data[1] - '0') * 10 +
		       (line.data[2] - '0');
		if (line.len > 3 && line.data[3] == '-')
			code = 0;
		stream_consume(&client->stream, (size_t)(end - input.data) + 1);
		if (code != 0)
			return code;
	}
}

static void client_start_tls(struct client *client, enum client_state state)
{
	int rc = stream_start_tls(&client->stream, client->slot);

	client->state = state;
	if (rc < 0)
		client_fail(client, "tls", rc);
}

static void client_send(struct client *client, const char *line, enum client_state state)
{
	client->has_chunking = client->has_pipelining = false;
	client->state = state;
	client_say(client, line);
	stream_flush(&client->stream);
}

static void client_greeted(struct client *client, int code)
{
	if (code != 250) {
		client_fail(client, "EHLO", code);
	} else if (client->state == CLIENT_EHLO_AGAIN || client->plan->tls != CLIENT_STARTTLS) {
		client->state = CLIENT_READY;
		client->events->on_ready(client);
	} else if (!client->has_starttls) {
		client_fail(client, "no STARTTLS offered", 0);
	} else {
		client_send(client, "STARTTLS\r\n", CLIENT_STARTTLS_GO);
	}
}

static void client_reply(struct client *client, int code)
{
	switch (client->state) {
	case CLIENT_BANNER:
		if (code == 220)
			client_send(client, "EHLO load.client.test\r\n", CLIENT_EHLO);
		else
			client_fail(client, "banner", code);
		return;
	case CLIENT_EHLO:
	case CLIENT_EHLO_AGAIN:
		client_greeted(client, code);
		return;
	case CLIENT_STARTTLS_GO:
		if (code != 220)
			client_fail(client, "STARTTLS", code);
		else if (stream_input(&client->stream).len > 0)
			client_fail(client, "clear text behind STARTTLS", 0);
		else
			client_start_tls(client, CLIENT_TLS_LATER);
		return;
	case CLIENT_CONNECT:
	case CLIENT_TLS_FIRST:
	case CLIENT_TLS_LATER:
	case CLIENT_READY:
	case CLIENT_LOST:
		break;
	}
	client_fail(client, "reply out of turn", code);
}

/* Does this state wait for a reply? */
static bool client_is_greeting(const struct client *client)
{
	return client->state == CLIENT_BANNER || client->state == CLIENT_EHLO ||
	       client->state == CLIENT_STARTTLS_GO || client->state == CLIENT_EHLO_AGAIN;
}

static void client_drive(struct client *client)
{
	while (client_is_greeting(client)) {
		int rc = client_next_reply(client);

		if (rc == -EAGAIN)
			return;
		if (rc < 0)
			client_fail(client, "not SMTP", rc);
		else
			client_reply(client, rc);
	}
}

static void client_connected(struct stream *stream, int result)
{
	struct client *client = OWNER_OF(stream, struct client, stream);

	if (result < 0) {
		client_fail(client, "connect", result);
	} else if (client->plan->tls == CLIENT_IMPLICIT) {
		client_start_tls(client, CLIENT_TLS_FIRST);
	} else {
		client->state = CLIENT_BANNER;
		client_drive(client);
	}
}

static void client_secured(struct stream *stream)
{
	struct client *client = OWNER_OF(stream, struct client, stream);

	if (client->state == CLIENT_TLS_FIRST)
		client->state = CLIENT_BANNER;
	else
		client_send(client, "EHLO load.client.test\r\n", CLIENT_EHLO_AGAIN);
	client_drive(client);
}

static void client_input(struct stream *stream)
{
	struct client *client = OWNER_OF(stream, struct client, stream);

	if (client->state == CLIENT_READY)
		client->events->on_input(client);
	else
		client_drive(client);
}

static void client_drained(struct stream *stream)
{
	struct client *client = OWNER_OF(stream, struct client, stream);

	if (client->state == CLIENT_READY)
		client->events->on_drained(client);
}

static void client_ended(struct stream *stream, const char *why)
{
	struct client *client = OWNER_OF(stream, struct client, stream);

	if (client->state != CLIENT_LOST)
		client_fail(client, why != NULL ? why : "closed by the server", 0);
}

static void client_closed(struct stream *stream)
{
	struct client *client = OWNER_OF(stream, struct client, stream);

	client->events->on_closed(client);
}

static const struct stream_events client_stream_events = {
	.on_connected = client_connected,
	.on_input = client_input,
	.on_drained = client_drained,
	.on_tls = client_secured,
	.on_end = client_ended,
	.on_closed = client_closed,
};

int client_open(struct client *client, struct stream_net *net, const struct client_plan *plan,
	const struct client_events *events, const struct sockaddr_in *source,
	struct ssl_session_st **slot)
{
	client->plan = plan;
	client->events = events;
	client->slot = slot;
	client->state = CLIENT_CONNECT;
	client->has_chunking = client->has_pipelining = client->has_starttls = false;
	return stream_connect(&client->stream, net, &client_stream_events, &plan->to, source);
}

void client_close(struct client *client)
{
	client->state = CLIENT_LOST;
	stream_close(&client->stream);
}

void client_abort(struct client *client)
{
	client->state = CLIENT_LOST;
	stream_abort(&client->stream);
}
