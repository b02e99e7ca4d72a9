/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

static enum client_state client_fail(struct client *client, const char *why, int code)
{
	client->why = why;
	client->code = code;
	client->state = CLIENT_FAILED;
	return client->state;
}

int client_begin(struct client *client, const struct client_plan *plan,
	const struct sockaddr_in *source, int epoll, void *owner)
{
	struct epoll_event event = {.events = EPOLLOUT, .data.ptr = owner};
	int rc;

	/* Not the buffers: clearing them would touch pages that may never be used. */
	client->plan = plan;
	client->resume = NULL;
	client->state = CLIENT_CONNECT;
	client->why = NULL;
	client->code = 0;
	client->may_read = true;
	client->has_chunking = false;
	client->has_starttls = false;
	client->polled = event.events;
	client->in_at = client->in_bytes = 0;
	client->out_at = client->out_bytes = 0;
	rc = wire_connect(&client->wire, &plan->to, source);
	if (rc < 0)
		return rc;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, client->wire.fd, &event) == 0)
		return 0;
	rc = -errno;
	wire_close(&client->wire);
	return rc;
}

bool client_say(struct client *client, const char *format, ...)
{
	size_t room = sizeof(client->out) - client->out_bytes;
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(client->out + client->out_bytes, room, format, args);
	va_end(args);
	if (len < 0 || (size_t)len >= room)
		return false;
	client->out_bytes += (size_t)len;
	return true;
}

int client_flush(struct client *client)
{
	while (client->out_at < client->out_bytes) {
		ssize_t sent = wire_send(&client->wire, client->out + client->out_at,
			client->out_bytes - client->out_at);

		if (sent < 0)
			return (int)sent;
		client->out_at += (size_t)sent;
	}
	client->out_at = client->out_bytes = 0;
	return 0;
}

static void client_keyword(struct client *client, const char *line, size_t bytes)
{
	static const char chunking[] = "CHUNKING";
	static const char starttls[] = "STARTTLS";

	if (bytes == sizeof(chunking) - 1 && strncasecmp(line, chunking, bytes) == 0)
		client->has_chunking = true;
	if (bytes == sizeof(starttls) - 1 && strncasecmp(line, starttls, bytes) == 0)
		client->has_starttls = true;
}

int client_next_reply(struct client *client)
{
	for (;;) {
		const char *line = client->in + client->in_at;
		size_t left = client->in_bytes - client->in_at;
		const char *end = memchr(line, '\n', left);
		size_t bytes;

		if (end == NULL)
			return left == sizeof(client->in) ? -EPROTO : -EAGAIN;
		bytes = (size_t)(end - line);
		client->in_at += bytes + 1;
		if (bytes > 0 && line[bytes - 1] == '\r')
			bytes--;
		if (bytes < 3 || line[0] < '2' || line[0] > '5' || line[1] < '0' || line[1] > '9' ||
			line[2] < '0' || line[2] > '9')
			return -EPROTO;
		if (client->state != CLIENT_READY && bytes > 4)
			client_keyword(client, line + 4, bytes - 4);
		if (bytes == 3 || line[3] != '-')
			return (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
	}
}

int client_receive(struct client *client)
{
	ssize_t got;

	if (!client->may_read)
		return -EAGAIN;
	memmove(client->in, client->in + client->in_at, client->in_bytes - client->in_at);
	client->in_bytes -= client->in_at;
	client->in_at = 0;
	got = wire_recv(&client->wire, client->in + client->in_bytes,
		sizeof(client->in) - client->in_bytes);
	/* epoll says when there is more, but it does not see what OpenSSL has read ahead. */
	client->may_read = got > 0 && wire_has_pending(&client->wire);
	if (got <= 0)
		return got == 0 ? -ECONNRESET : (int)got;
	client->in_bytes += (size_t)got;
	return (int)got;
}

static enum client_state client_tls(struct client *client)
{
	int rc;

	rc = wire_tls_begin(
		&client->wire, client->plan->ctx, false, client->plan->name, client->resume);
	client->may_read = true;
	return rc < 0 ? client_fail(client, "tls", rc) : client->state;
}

static void client_greet(struct client *client, enum client_state next)
{
	client->has_chunking = false;
	client_say(client, "EHLO load.client.test\r\n");
	client->state = next;
}

static enum client_state client_reply(struct client *client, int code)
{
	switch (client->state) {
	case CLIENT_BANNER:
		if (code != 220)
			return client_fail(client, "banner", code);
		client_greet(client, CLIENT_EHLO);
		return client->state;
	case CLIENT_EHLO:
	case CLIENT_EHLO_AGAIN:
		if (code != 250)
			return client_fail(client, "EHLO", code);
		if (client->state == CLIENT_EHLO_AGAIN || client->plan->tls != CLIENT_STARTTLS)
			return client->state = CLIENT_READY;
		if (!client->has_starttls)
			return client_fail(client, "no STARTTLS offered", 0);
		client_say(client, "STARTTLS\r\n");
		return client->state = CLIENT_STARTTLS_GO;
	case CLIENT_STARTTLS_GO:
		if (code != 220)
			return client_fail(client, "STARTTLS", code);
		if (client->in_at != client->in_bytes)
			return client_fail(client, "clear text behind STARTTLS", 0);
		client->state = CLIENT_TLS_LATER;
		return client_tls(client);
	case CLIENT_CONNECT:
	case CLIENT_TLS_FIRST:
	case CLIENT_TLS_LATER:
	case CLIENT_READY:
	case CLIENT_FAILED:
		break;
	}
	return client_fail(client, "reply out of turn", code);
}

/* Sends, reads and handles one reply; 0 to go on, -EAGAIN to wait. */
static int client_talk(struct client *client)
{
	int rc = client_flush(client);

	if (rc == 0) {
		rc = client_next_reply(client);
		if (rc > 0)
			return client_reply(client, rc) == CLIENT_FAILED ? -EPROTO : 0;
	}
	if (rc == -EAGAIN && client->out_at == client->out_bytes)
		rc = client_receive(client);
	if (rc < 0 && rc != -EAGAIN)
		client_fail(client, "lost", rc);
	return rc < 0 ? rc : 0;
}

static int client_connected(struct client *client)
{
	int rc = wire_connected(&client->wire);

	if (rc < 0) {
		client_fail(client, "connect", rc);
		return rc;
	}
	if (client->plan->tls == CLIENT_IMPLICIT) {
		client->state = CLIENT_TLS_FIRST;
		client_tls(client);
	} else {
		client->state = CLIENT_BANNER;
	}
	return 0;
}

static int client_handshake(struct client *client)
{
	int rc = wire_handshake(&client->wire);

	if (rc < 0) {
		if (rc != -EAGAIN)
			client_fail(client, "tls", rc);
		return rc;
	}
	client->may_read = true;
	if (client->state == CLIENT_TLS_FIRST)
		client->state = CLIENT_BANNER;
	else
		client_greet(client, CLIENT_EHLO_AGAIN);
	return 0;
}

enum client_state client_drive(struct client *client)
{
	int rc = 0;

	while (rc == 0 && client->state != CLIENT_READY && client->state != CLIENT_FAILED) {
		switch (client->state) {
		case CLIENT_CONNECT:
			rc = client_connected(client);
			break;
		case CLIENT_TLS_FIRST:
		case CLIENT_TLS_LATER:
			rc = client_handshake(client);
			break;
		case CLIENT_BANNER:
		case CLIENT_EHLO:
		case CLIENT_STARTTLS_GO:
		case CLIENT_EHLO_AGAIN:
			rc = client_talk(client);
			break;
		case CLIENT_READY:
		case CLIENT_FAILED:
			break;
		}
	}
	return client->state;
}

void client_poll(struct client *client, int epoll, void *owner)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = owner};

	if (client->wire.fd < 0)
		return;
	switch (client->state) {
	case CLIENT_CONNECT:
	case CLIENT_TLS_FIRST:
	case CLIENT_TLS_LATER:
		event.events = wire_interest(&client->wire);
		break;
	case CLIENT_BANNER:
	case CLIENT_EHLO:
	case CLIENT_STARTTLS_GO:
	case CLIENT_EHLO_AGAIN:
	case CLIENT_READY:
	case CLIENT_FAILED:
		if (client->out_at < client->out_bytes)
			event.events |= EPOLLOUT;
		break;
	}
	if (event.events == client->polled)
		return;
	client->polled = event.events;
	epoll_ctl(epoll, EPOLL_CTL_MOD, client->wire.fd, &event);
}

void client_close(struct client *client)
{
	wire_close(&client->wire);
}
