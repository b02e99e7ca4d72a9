/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * stock.h: what the two halves of STREAM_STOCK share: stream_stock.c moves bytes between the
 * socket and the buffers, stock_tls.c between these and OpenSSL.
 */

#include "bench/common/stream_private.h"

enum stock_state {
	STOCK_CONNECTING,
	STOCK_OPEN,
	STOCK_HANDSHAKE,
	STOCK_CLOSING, /* what was written is sent, then goodbye, then the peer's FIN */
	STOCK_DEAD,    /* waits for its operations to come back */
	STOCK_CLOSED,
};

/* What waits for the next turn. */
enum stock_pending {
	STOCK_PENDING_CLOSED = 1,
	STOCK_PENDING_INPUT = 2, /* a handshake begins, or what came behind it is asked for */
	STOCK_PENDING_END = 4,
};

static inline struct stream *stock_owner(struct stock *stock)
{
	return OWNER_OF(stock, struct stream, as.stock);
}

/* Takes a buffer; ends the program when there is no memory. */
struct stock_buffer *stock_buffer_create(struct stream_net *net);
void stock_buffer_put(struct stream_net *net, struct stock_buffer **buffer);

void stock_task_add(struct stock *stock, enum stock_pending what);
void stock_recv(struct stock *stock, bool is_ready);
void stock_send_wire(struct stock *stock);

/* Nothing more comes. why NULL: an orderly end. */
void stock_ended(struct stock *stock, const char *why);

int stock_tls_net_create(struct stream_net *net);
void stock_tls_net_destroy(struct stream_net *net);
int stock_tls_start(struct stream *stream, struct ssl_session_st **slot);
void stock_tls_facts(const struct stream *stream, struct stream_facts *out);
void stock_tls_free(struct stock *stock);

/* A step of the handshake; on_tls when it was the last. */
void stock_tls_handshake(struct stock *stock);

/* All whole records that were received become text. */
void stock_tls_decrypt(struct stock *stock);

/* All that was gathered becomes records on the wire, which is empty. */
void stock_tls_encrypt(struct stock *stock);

/* Our close_notify, on the wire. */
void stock_tls_goodbye(struct stock *stock);
