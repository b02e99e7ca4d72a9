/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/stream_private.h"
#include "relay/pki/provider.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Certificates that no stream uses are kept, up to so many. */
#define STREAM_PEERS_KEPT 256

static struct loop_caps stream_caps;
static struct ktls_support stream_ktls;

int stream_init(enum stream_code code)
{
	int rc;

	if (code == STREAM_POSTERN)
		provider_init();
	rc = loop_probe(&stream_caps);

	if (rc < 0) {
		(void)fprintf(stderr, "io_uring: %s\n", loop_why_not(-rc));
		return rc;
	}
	rc = tls_init();
	if (rc == 0)
		rc = peer_cache_create(STREAM_PEERS_KEPT);
	if (rc == 0)
		rc = stock_tls_init();
	if (rc < 0)
		(void)fprintf(stderr, "TLS: %s\n", strerror(-rc));
	ktls_probe(&stream_ktls);
	return rc;
}

const struct ktls_support *stream_ktls_support(void)
{
	return &stream_ktls;
}

bool stream_ciphers_split(const char *ciphers, char tls12[static STREAM_CIPHERS_BYTES],
	char tls13[static STREAM_CIPHERS_BYTES])
{
	tls12[0] = tls13[0] = '\0';
	while (*ciphers != '\0') {
		size_t bytes = strcspn(ciphers, ":");
		char *out = strncmp(ciphers, "TLS_", 4) == 0 ? tls13 : tls12;
		size_t have = strlen(out);
		int len = snprintf(out + have, STREAM_CIPHERS_BYTES - have, "%s%.*s",
			have > 0 ? ":" : "", (int)bytes, ciphers);

		if (bytes == 0 || len < 0 || (size_t)len >= STREAM_CIPHERS_BYTES - have)
			return false;
		ciphers += bytes + (ciphers[bytes] == ':');
	}
	return true;
}

int stream_net_create(struct stream_net **out, const struct stream_net_options *options)
{
	struct stream_net *net = calloc(1, sizeof(*net));
	int rc;

	if (net == NULL)
		return -ENOMEM;
	net->options = *options;
	net->ops = options->code == STREAM_STOCK ? &stream_stock : &stream_postern;
	rc = loop_create(&stream_caps, STREAM_RING_ENTRIES, &net->loop);
	if (rc < 0)
		(void)fprintf(stderr, "io_uring: %s\n", strerror(-rc));
	else
		rc = net->ops->net_create(net);
	if (rc < 0)
		stream_net_destroy(&net);
	*out = net;
	return rc;
}

void stream_net_destroy(struct stream_net **net)
{
	if (*net == NULL)
		return;
	(*net)->ops->net_destroy(*net);
	loop_destroy(&(*net)->loop);
	free(*net);
	*net = NULL;
}

struct loop *stream_net_loop(struct stream_net *net)
{
	return net->loop;
}

static void stream_begin(
	struct stream *stream, struct stream_net *net, const struct stream_events *events)
{
	stream->net = net;
	stream->events = events;
	stream->ops = net->ops;
}

void stream_open(
	struct stream *stream, struct stream_net *net, const struct stream_events *events, int fd)
{
	stream_begin(stream, net, events);
	stream->ops->open(stream, fd);
}

int stream_connect(struct stream *stream, struct stream_net *net,
	const struct stream_events *events, const struct sockaddr_in *to,
	const struct sockaddr_in *source)
{
	stream_begin(stream, net, events);
	return stream->ops->connect(stream, to, source);
}

struct span stream_input(const struct stream *stream)
{
	return stream->ops->input(stream);
}

void stream_consume(struct stream *stream, size_t bytes)
{
	stream->ops->consume(stream, bytes);
}

void stream_read(struct stream *stream)
{
	stream->ops->read(stream);
}

size_t stream_room(const struct stream *stream)
{
	return stream->ops->room(stream);
}

size_t stream_write(struct stream *stream, struct span bytes)
{
	size_t take;
	uint8_t *to;

	if (bytes.len == 0)
		return 0;
	to = stream->ops->out_space(stream, &take);
	take = take < bytes.len ? take : bytes.len;
	if (take > 0)
		memcpy(to, bytes.data, take);
	stream->ops->out_commit(stream, take);
	return take;
}

uint8_t *stream_out_space(struct stream *stream, size_t *room)
{
	return stream->ops->out_space(stream, room);
}

void stream_out_commit(struct stream *stream, size_t bytes)
{
	stream->ops->out_commit(stream, bytes);
}

void stream_flush(struct stream *stream)
{
	stream->ops->flush(stream);
}

void stream_flush_now(struct stream *stream)
{
	stream->ops->flush_now(stream);
}

bool stream_is_drained(const struct stream *stream)
{
	return stream->ops->is_drained(stream);
}

int stream_start_tls(struct stream *stream, struct ssl_session_st **slot)
{
	return stream->ops->start_tls(stream, slot);
}

void stream_session_drop(struct ssl_session_st **slot)
{
	SSL_SESSION_free(*slot);
	*slot = NULL;
}

void stream_facts(const struct stream *stream, struct stream_facts *out)
{
	*out = (struct stream_facts){
		.version = "none", .cipher = "none", .group = "none", .record = "none"};
	stream->ops->facts(stream, out);
}

void stream_close(struct stream *stream)
{
	stream->ops->close(stream);
}

void stream_abort(struct stream *stream)
{
	stream->ops->abort(stream);
}

int stream_listen(struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*address);
	int on = 1;
	int rc;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)address, len) < 0 || listen(fd, 4096) < 0 ||
		getsockname(fd, (struct sockaddr *)address, &len) < 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}
