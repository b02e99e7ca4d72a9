/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * listener.h: one binding of one worker: a listening socket in the
 * SO_REUSEPORT group of its address, and an accept that stays armed.
 */

#include "policy/policy.h"
#include "relay/net/loop.h"

struct listener {
	void (*on_accept)(struct listener *listener, int fd);
	void *owner;
	struct address address;
	struct loop *loop; /* NULL: not started */
	int fd;            /* -1: not open */
	bool is_closing;
	struct op accept_op;
	struct timer retry; /* after an error that time may heal (no descriptors) */
};

/* Binds and listens; owner and on_accept are set by the caller. -errno. */
NODISCARD int listener_create(struct listener *listener, const struct address *address);

/*
 * Fails if the address is not ours (-EADDRNOTAVAIL), or somebody listens on it already. Sockets of
 * one group may share it, so without this a second relay of the same user would take half of the
 * connections.
 */
NODISCARD int listener_probe(const struct address *address);

/* Begins to accept on the thread of loop. */
void listener_start(struct listener *listener, struct loop *loop);

/* Stops; listener_is_closed() tells when that is done. */
void listener_close(struct listener *listener);
bool listener_is_closed(const struct listener *listener);

/* Closes the socket, if it is open. */
void listener_destroy(struct listener *listener);
