/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * stream_private.h: what stream.c and the two codes behind it share.
 */

#include "bench/common/stream.h"
#include "relay/pki/trust.h"

struct ssl_ctx_st;

/* Submissions of one turn; a longer queue only costs memory. */
#define STREAM_RING_ENTRIES 1024

/* A buffer of STREAM_STOCK: four whole records, and room for what OpenSSL says of itself. */
#define STOCK_BUFFER_BYTES 69632

/* Text that one send takes: four full records. */
#define STOCK_TEXT_BYTES 65536

struct stock_buffer {
	union {
		struct stock_buffer *next; /* in the list of free ones */
		uint8_t data[STOCK_BUFFER_BYTES];
	};
};

struct stream_net {
	struct stream_net_options options;
	struct loop *loop;
	const struct stream_ops *ops;

	/* STREAM_STOCK */
	struct ssl_ctx_st *ctx;
	uint64_t handshake_turn; /* of the loop, in which one has made its step */
	struct stock_buffer
		*free; /* the last one given back is the first to be taken: it is warm */

	/* STREAM_POSTERN */
	struct conn_net conn_net;
	bool has_conn_net;
	struct certificate certificate;
	struct tls_settings settings;
	struct tls_context context;
	struct trust *trust;
	char tls12_ciphers[512];
	char tls13_ciphers[512];
};

/* The two lists of stream_tls.ciphers: what begins with "TLS_" is of TLS 1.3. */
#define STREAM_CIPHERS_BYTES 512
bool stream_ciphers_split(const char *ciphers, char tls12[static STREAM_CIPHERS_BYTES],
	char tls13[static STREAM_CIPHERS_BYTES]);

/* What this kernel takes of kernel TLS; tried by stream_init(). */
const struct ktls_support *stream_ktls_support(void);

struct stream_ops {
	int (*net_create)(struct stream_net *net);
	void (*net_destroy)(struct stream_net *net);
	void (*open)(struct stream *stream, int fd);
	int (*connect)(struct stream *stream, const struct sockaddr_in *to,
		const struct sockaddr_in *source);
	struct span (*input)(const struct stream *stream);
	void (*consume)(struct stream *stream, size_t bytes);
	void (*read)(struct stream *stream);
	size_t (*room)(const struct stream *stream);
	uint8_t *(*out_space)(struct stream *stream, size_t *room);
	void (*out_commit)(struct stream *stream, size_t bytes);
	void (*flush)(struct stream *stream);
	void (*flush_now)(struct stream *stream);
	bool (*is_drained)(const struct stream *stream);
	int (*start_tls)(struct stream *stream, struct ssl_session_st **slot);
	void (*facts)(const struct stream *stream, struct stream_facts *out);
	void (*close)(struct stream *stream);
	void (*abort)(struct stream *stream);
};

/* Once, before any thread. */
int stock_tls_init(void);

extern const struct stream_ops stream_stock;
extern const struct stream_ops stream_postern;
