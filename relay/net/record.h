/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * record.h: who protects the bytes of a connection, a table for each kind.
 *
 * conn.c calls through these; each direction has its own, so that a
 * connection may receive through the kernel and send through OpenSSL.
 * What is private to conn.c, record.c and handshake.c is declared here too.
 */

#include "relay/net/conn.h"

struct record_layer {
	const char *name;
	/* Asks the kernel for input. */
	void (*recv)(struct conn *conn);
	/* bytes of input came, behind what the buffer held. */
	void (*received)(struct conn *conn, uint32_t bytes);
	/* Puts gathered text on the wire, if nothing is under way. */
	void (*send)(struct conn *conn);
	/* Says goodbye: close_notify. May put bytes on the wire. */
	void (*shutdown)(struct conn *conn);
};

extern const struct record_layer record_plain;
extern const struct record_layer record_user;   /* OpenSSL */
extern const struct record_layer record_own;    /* seal.h */
extern const struct record_layer record_kernel; /* kernel TLS */

/* Assigns the state; asserts that the edge is legal. */
void conn_enter(struct conn *conn, enum conn_state state);

/* Receives up to bytes_max more at the end of the buffer, or wherever the kernel picks. */
void conn_recv_bytes(struct conn *conn, uint32_t bytes_max);

/* Room behind what the buffer holds, made by moving it to the front. */
uint32_t conn_in_room(struct conn *conn);

/* Gives an empty receive buffer back. */
void conn_in_tidy(struct conn *conn);

/* Hands new text to the owner, or asks on. */
void conn_input_ready(struct conn *conn);

/* Nothing more will be received: on_end is called in the next turn. */
void conn_ended(struct conn *conn, enum conn_end why);

/* Sends what lies on the wire. */
void conn_send_wire(struct conn *conn);

/* Lets OpenSSL write behind what lies on the wire; returns what a call in between has added. */
void conn_sink_open(struct conn *conn);
void conn_sink_close(struct conn *conn);

/*
 * How many bytes may be received. While the receive side shall go to the kernel, a record that came
 * in part is completed with exactly the bytes that it lacks: what is behind it must stay in the
 * socket, since the kernel takes nothing back.
 */
uint32_t record_recv_limit(const struct conn *conn);

/* Decrypts all whole records that have come, by OpenSSL. */
void record_read_user(struct conn *conn);

/* Content types (RFC 8446 5.1) and what is met in them. */
#define RECORD_ALERT 21
#define RECORD_HANDSHAKE 22
#define RECORD_APPLICATION_DATA 23
#define ALERT_CLOSE_NOTIFY 0
#define ALERT_UNEXPECTED_MESSAGE 10
#define ALERT_BAD_RECORD_MAC 20
#define ALERT_RECORD_OVERFLOW 22
#define ALERT_INTERNAL_ERROR 80
#define ALERT_NO_RENEGOTIATION 100

/* A record came that is not text, where OpenSSL does not look: alert, ticket, KeyUpdate. */
void record_control(struct conn *conn, uint8_t record_type, struct span content);

/* Answers a KeyUpdate that asked for ours, if the send side is idle. False: it failed. */
NODISCARD bool record_answer_key_update(struct conn *conn);

/* Sends an alert (level, description) by a send side that OpenSSL does not protect. */
void record_send_alert(struct conn *conn, const uint8_t alert[2]);

/* The peer broke a rule: it is told by a fatal alert, and the connection ends. */
void record_refuse(struct conn *conn, uint8_t description);

/* Kept free on the wire for an alert or a KeyUpdate behind text. */
#define CONTROL_ROOM_BYTES 64

/* One record of our own behind what lies on the wire. False: no room, or the cipher failed. */
NODISCARD bool record_put_own(struct conn *conn, uint8_t record_type, struct span content);

/*
 * Opens records of ours that have come whole; those that are long only as far as the text before
 * them was consumed, so that theirs stays where it is. is_more_wanted: one in any case, behind
 * the text that there is. Is there more text now?
 */
bool record_open_own(struct conn *conn, bool is_more_wanted);

/*
 * Seals what text is left behind the records of a frame, so that they can be sent. False: the
 * cipher failed.
 */
NODISCARD bool record_complete_frame(struct conn *conn);

/* What was framed is not sent at all: its numbers are free again. */
void record_unframe(struct conn *conn);

/* A receive under kernel TLS failed: the peer is told why in an alert, if it was a bad record. */
void record_tell_bad(struct conn *conn, int32_t result);

/* Runs the handshake as far as it goes. */
void handshake_run(struct conn *conn);

/* A record of so many bytes was read by our own hand: under auto it may be time. */
void handshake_count(struct conn *conn, uint32_t bytes);

/* Hands over to the kernel what is wanted and can go now. */
void handshake_offer_kernel(struct conn *conn);

/* It is over: tells the owner, who may free conn or open it again, and lets go of the peer. */
void conn_tell_closed(struct conn *conn);

/* Everything of TLS goes, keys and secrets wiped. */
void handshake_forget(struct conn *conn);
