/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * pki_server.h: a distribution point for tests: a thread that answers HTTP with one list, or
 * 404, and can be made to hold its answers back.
 *
 *   /missing  404                    /moved  sends on to /list.crl
 *   /loop     sends on to itself     /tls    sends on to https:
 *   /huge     claims to be 20 MiB    /drip   a byte now and then, for a minute
 */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
/* cmocka needs those above it. */
#include <cmocka.h>

struct pki_server {
	int fd;
	unsigned port;
	pthread_t thread;
	pthread_mutex_t mutex;
	unsigned char *body; /* DER; NULL: 404 */
	int body_len;
	_Atomic bool is_held;
	_Atomic bool is_over;
	_Atomic unsigned requests;
};

/* Gives this list from now on, from a PEM file; NULL: none. */
static inline void pki_server_give(struct pki_server *server, const char *file)
{
	X509_CRL *list = NULL;

	if (file != NULL) {
		FILE *in = fopen(file, "r");

		assert_non_null(in);
		list = PEM_read_X509_CRL(in, NULL, NULL, NULL);
		assert_non_null(list);
		(void)fclose(in);
	}
	(void)pthread_mutex_lock(&server->mutex);
	OPENSSL_free(server->body);
	server->body = NULL;
	server->body_len = list == NULL ? 0 : i2d_X509_CRL(list, &server->body);
	(void)pthread_mutex_unlock(&server->mutex);
	X509_CRL_free(list);
}

/* While it is held, requests are read and not answered. */
static inline void pki_server_hold(struct pki_server *server, bool is_held)
{
	server->is_held = is_held;
}

static inline void pki_server_send(int fd, const char *text)
{
	(void)send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* The paths that answer with something else than a list. False: none of them. */
static inline bool pki_server_tease(struct pki_server *server, int fd, const char *request)
{
	char text[256];

	if (strncmp(request, "GET /moved", 10) == 0) {
		(void)snprintf(text, sizeof(text),
			"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:%u/list.crl\r\n\r\n",
			server->port);
		pki_server_send(fd, text);
	} else if (strncmp(request, "GET /loop", 9) == 0) {
		(void)snprintf(text, sizeof(text),
			"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:%u/loop\r\n\r\n",
			server->port);
		pki_server_send(fd, text);
	} else if (strncmp(request, "GET /tls", 8) == 0) {
		(void)snprintf(text, sizeof(text),
			"HTTP/1.0 302 Found\r\nLocation: https://127.0.0.1:%u/list.crl\r\n\r\n",
			server->port);
		pki_server_send(fd, text);
	} else if (strncmp(request, "GET /huge", 9) == 0) {
		pki_server_send(fd, "HTTP/1.0 200 OK\r\n\r\n");
		(void)send(fd, "\x30\x84\x01\x40\x00\x00\x30\x03", 8, MSG_NOSIGNAL);
	} else if (strncmp(request, "GET /drip", 9) == 0) {
		pki_server_send(fd, "HTTP/1.0 200 OK\r\n\r\n");
		(void)send(fd, "\x30\x84\x00\x40\x00\x00", 6, MSG_NOSIGNAL);
		for (unsigned i = 0; i < 1200 && !server->is_over; i++) {
			if (send(fd, "\x30", 1, MSG_NOSIGNAL) < 0)
				break;
			(void)usleep(50000);
		}
	} else {
		return false;
	}
	return true;
}

/* One connection; each ends on its own thread only in that the next one waits. */
static inline void pki_server_answer(struct pki_server *server, int fd)
{
	char request[2048];
	char head[160];
	ssize_t got = recv(fd, request, sizeof(request) - 1, 0);
	bool is_missing;

	if (got <= 0)
		return;
	request[got] = '\0';
	server->requests++;
	while (server->is_held && !server->is_over)
		(void)usleep(1000);
	if (pki_server_tease(server, fd, request))
		return;
	(void)pthread_mutex_lock(&server->mutex);
	is_missing = server->body == NULL || strstr(request, "/missing") != NULL;
	(void)snprintf(head, sizeof(head),
		"HTTP/1.0 %s\r\nContent-Type: application/pkix-crl\r\nContent-Length: %d\r\n\r\n",
		is_missing ? "404 Not Found" : "200 OK", is_missing ? 0 : server->body_len);
	(void)send(fd, head, strlen(head), MSG_NOSIGNAL);
	if (!is_missing)
		(void)send(fd, server->body, (size_t)server->body_len, MSG_NOSIGNAL);
	(void)pthread_mutex_unlock(&server->mutex);
}

static inline void *pki_server_main(void *arg)
{
	struct pki_server *server = arg;

	while (!server->is_over) {
		struct pollfd wait = {.fd = server->fd, .events = POLLIN};
		int fd;

		if (poll(&wait, 1, 20) <= 0)
			continue;
		fd = accept(server->fd, NULL, NULL);
		if (fd < 0)
			continue;
		pki_server_answer(server, fd);
		(void)close(fd);
	}
	return NULL;
}

static inline void pki_server_start(struct pki_server *server)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);

	memset(server, 0, sizeof(*server));
	server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(server->fd >= 0);
	assert_int_equal(bind(server->fd, (struct sockaddr *)&address, len), 0);
	assert_int_equal(listen(server->fd, 16), 0);
	assert_int_equal(getsockname(server->fd, (struct sockaddr *)&address, &len), 0);
	server->port = ntohs(address.sin_port);
	(void)pthread_mutex_init(&server->mutex, NULL);
	assert_int_equal(pthread_create(&server->thread, NULL, pki_server_main, server), 0);
}

static inline void pki_server_stop(struct pki_server *server)
{
	server->is_over = true;
	(void)pthread_join(server->thread, NULL);
	(void)close(server->fd);
	(void)pthread_mutex_destroy(&server->mutex);
	OPENSSL_free(server->body);
	server->body = NULL;
}
