/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/net/listener.h"

#include "relay/base/log.h"
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

/* Connections that wait for accept; the kernel cuts it to net.core.somaxconn. */
#define LISTEN_BACKLOG 4096

/* After running out of descriptors or memory, accept is tried again so much later. */
#define ACCEPT_RETRY_MS 200

static int listener_set_options(int fd, int family)
{
	int on = 1;

	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0 ||
		/* Inherited by what is accepted: replies never wait for an acknowledgement. */
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
		return -errno;
	/* [::] is IPv6 only: the v4 side has a binding, and a door, of its own. */
	if (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)
		return -errno;
	return 0;
}

static void listener_done(struct op *op, int32_t result, uint32_t flags)
{
	struct listener *listener = OWNER_OF(op, struct listener, accept_op);

	if (result >= 0 && listener->is_closing)
		(void)close(result);
	else if (result >= 0)
		listener->on_accept(listener, result);
	if (loop_flags_more(flags) || listener->is_closing)
		return;
	if (result == -EMFILE || result == -ENFILE || result == -ENOMEM || result == -ENOBUFS) {
		char address[64];

		address_print(&listener->address, address, sizeof(address));
		log_event(LOG_LEVEL_ERROR, NULL, "refused", "address=%s why=\"%s\"", address,
			strerror(-result));
		timer_set(loop_timers(listener->loop), &listener->retry,
			loop_now_ms(listener->loop) + ACCEPT_RETRY_MS);
		return;
	}
	loop_accept(listener->loop, &listener->accept_op, listener->fd);
}

static void listener_retry(struct timer *timer)
{
	struct listener *listener = OWNER_OF(timer, struct listener, retry);

	if (!listener->is_closing)
		loop_accept(listener->loop, &listener->accept_op, listener->fd);
}

int listener_probe(const struct address *address)
{
	int on = 1;
	int fd = socket(address->sockaddr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int rc = 0;

	/* Without SO_REUSEPORT; SO_REUSEADDR passes over old connections only. */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
		(address->sockaddr.ss_family == AF_INET6 &&
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
		bind(fd, (const struct sockaddr *)&address->sockaddr, address->len) < 0)
		rc = -errno;
	if (fd >= 0)
		(void)close(fd);
	return rc;
}

int listener_create(struct listener *listener, const struct address *address)
{
	int rc;

	listener->address = *address;
	listener->loop = NULL;
	listener->is_closing = false;
	listener->accept_op = (struct op){.done = listener_done};
	timer_init(&listener->retry, listener_retry);
	listener->fd = socket(address->sockaddr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	rc = listener->fd < 0 ? -errno
			      : listener_set_options(listener->fd, address->sockaddr.ss_family);
	if (rc == 0 &&
		bind(listener->fd, (const struct sockaddr *)&address->sockaddr, address->len) < 0)
		rc = -errno;
	if (rc == 0 && listen(listener->fd, LISTEN_BACKLOG) < 0)
		rc = -errno;
	if (rc < 0)
		listener_destroy(listener);
	return rc;
}

void listener_start(struct listener *listener, struct loop *loop)
{
	listener->loop = loop;
	loop_accept(loop, &listener->accept_op, listener->fd);
}

void listener_close(struct listener *listener)
{
	listener->is_closing = true;
	/* At once: the descriptor is closed when the operation is back, and by then the door has
	 * perhaps given the binding up. */
	(void)shutdown(listener->fd, SHUT_RD);
	if (listener->loop == NULL)
		return;
	timer_stop(loop_timers(listener->loop), &listener->retry);
	loop_cancel(listener->loop, &listener->accept_op);
}

bool listener_is_closed(const struct listener *listener)
{
	return listener->is_closing && !listener->accept_op.in_flight;
}

void listener_destroy(struct listener *listener)
{
	if (listener->fd >= 0)
		(void)close(listener->fd);
	listener->fd = -1;
}
