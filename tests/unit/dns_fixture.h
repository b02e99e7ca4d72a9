/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * dns_fixture.h: a name server on loopback, on a thread, with a few records. Names that
 * it does not know do not exist; "fail.*" is SERVFAIL, "mute.*" gets no answer.
 */

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define DNS_A 1
#define DNS_CNAME 5
#define DNS_MX 15
#define DNS_AAAA 28

struct dns_record {
	const char *name;
	int type;
	const char *text; /* an address; for MX "10 name", "." being the root; for CNAME a name */
	unsigned ttl;
};

struct dns_server {
	const struct dns_record *records; /* ends with a NULL name */
	int fd;
	unsigned port;
	pthread_t thread;
	atomic_uint questions;
};

static inline size_t dns_put_name(uint8_t *out, const char *name)
{
	size_t at = 0;

	while (*name != '\0' && strcmp(name, ".") != 0) {
		size_t len = strcspn(name, ".");

		out[at++] = (uint8_t)len;
		memcpy(out + at, name, len);
		at += len;
		name += len + (name[len] == '.');
	}
	out[at++] = 0;
	return at;
}

static inline size_t dns_put16(uint8_t *out, unsigned value)
{
	out[0] = (uint8_t)(value >> 8);
	out[1] = (uint8_t)value;
	return 2;
}

/* One answer; names are not compressed. */
static inline size_t dns_put_record(uint8_t *out, const struct dns_record *record)
{
	size_t at = dns_put_name(out, record->name);
	uint8_t data[300];
	size_t len = 0;
	char *rest = NULL;

	if (record->type == DNS_A) {
		(void)inet_pton(AF_INET, record->text, data);
		len = 4;
	} else if (record->type == DNS_AAAA) {
		(void)inet_pton(AF_INET6, record->text, data);
		len = 16;
	} else if (record->type == DNS_CNAME) {
		len = dns_put_name(data, record->text);
	} else {
		len = dns_put16(data, (unsigned)strtoul(record->text, &rest, 10));
		len += dns_put_name(data + len, rest + 1);
	}
	at += dns_put16(out + at, (unsigned)record->type);
	at += dns_put16(out + at, 1);
	at += dns_put16(out + at, record->ttl >> 16);
	at += dns_put16(out + at, record->ttl & 0xffff);
	at += dns_put16(out + at, (unsigned)len);
	memcpy(out + at, data, len);
	return at + len;
}

/* The answer to the question in packet, in its place. 0: none. */
static inline size_t dns_answer(const struct dns_server *server, uint8_t *packet, size_t len)
{
	char name[256] = "";
	const char *wanted = name;
	size_t at = 12;
	int type;
	unsigned count = 0;
	bool is_known = false;

	while (at < len && packet[at] != 0) {
		(void)snprintf(name + strlen(name), sizeof(name) - strlen(name), "%s%.*s",
			name[0] == '\0' ? "" : ".", packet[at], (const char *)packet + at + 1);
		at += packet[at] + 1U;
	}
	type = packet[at + 1] << 8 | packet[at + 2];
	at += 5;
	for (const struct dns_record *r = server->records; r->name != NULL; r++) {
		if (strcasecmp(r->name, wanted) != 0)
			continue;
		is_known = true;
		if (r->type != type && r->type != DNS_CNAME)
			continue;
		at += dns_put_record(packet + at, r);
		count++;
		if (r->type == DNS_CNAME)
			wanted = r->text;
	}
	(void)dns_put16(packet + 2, 0x8580U | (is_known ? 0 : 3));
	if (strncmp(name, "fail.", 5) == 0)
		(void)dns_put16(packet + 2, 0x8182);
	(void)dns_put16(packet + 6, count);
	(void)dns_put16(packet + 8, 0);
	(void)dns_put16(packet + 10, 0);
	return strncmp(name, "mute.", 5) == 0 ? 0 : at;
}

static inline void *dns_main(void *arg)
{
	struct dns_server *server = arg;

	for (;;) {
		uint8_t packet[4096];
		struct sockaddr_in from;
		socklen_t from_len = sizeof(from);
		ssize_t got =
			recvfrom(server->fd, packet, 512, 0, (struct sockaddr *)&from, &from_len);

		if (got < 17)
			return NULL;
		server->questions++;
		got = (ssize_t)dns_answer(server, packet, (size_t)got);
		if (got > 0)
			(void)sendto(server->fd, packet, (size_t)got, 0, (struct sockaddr *)&from,
				from_len);
	}
}

/* False when there is no socket. */
static inline bool dns_start(struct dns_server *server, const struct dns_record *records)
{
	struct sockaddr_in at = {.sin_family = AF_INET};
	socklen_t len = sizeof(at);

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	server->records = records;
	server->questions = 0;
	server->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (server->fd < 0 || bind(server->fd, (struct sockaddr *)&at, len) < 0 ||
		getsockname(server->fd, (struct sockaddr *)&at, &len) < 0)
		return false;
	server->port = ntohs(at.sin_port);
	return pthread_create(&server->thread, NULL, dns_main, server) == 0;
}

static inline void dns_stop(struct dns_server *server)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)server->port)};

	/* Less than a question ends the thread. */
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	(void)sendto(server->fd, "", 1, 0, (struct sockaddr *)&at, sizeof(at));
	(void)pthread_join(server->thread, NULL);
	(void)close(server->fd);
}
