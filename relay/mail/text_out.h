/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * text_out.h: the text of a message on its way to a next hop, as BDAT chunks (RFC 3030) or as
 * dot-stuffed DATA (RFC 5321 4.5.2).
 *
 * Text gathers in the connection's buffer, or is sealed into it at once if there is much of it
 * (conn_frame_begin()). A chunk is as long as what was gathered when the wire became free; its
 * header is put in front of it then, so text is copied once at the most.
 *
 * Whoever writes asks for room first, and calls text_out_push() when the client says that all has
 * left (on_drained): that is when there may be room again. The client must be usable and is
 * borrowed for the time of a call. Nothing fails here: a connection that breaks tells its owner.
 */

#include "relay/smtp/client.h"
#include "relay/smtp/dot.h"

/* Less room than this is none: a session's least, and what a header firewall in between holds. */
#define TEXT_OUT_ROOM_MIN 2560

struct text_out {
	bool uses_bdat;       /* else DATA */
	bool has_begun;       /* a chunk was sent, or waits for the wire */
	unsigned chunks_owed; /* answers to chunks that are not the message's answer */
	uint32_t in_front;    /* bytes of commands that leave with the first chunk */
	bool is_bulk;         /* there is much to come */
	size_t chunk_bytes;   /* of text in the chunk that is being made */
	uint64_t bytes;       /* of text so far */
	struct dot_writer dot;
};

/* Begins a message's text. With DATA, the next hop must have said 354 before any is written. */
void text_out_init(struct text_out *out, bool uses_bdat);

/* About so many bytes of text will come. Where that is not known, it shows. */
void text_out_expect(struct text_out *out, uint64_t bytes);

/*
 * The text shall leave together with the commands before it, in one send: called before they are
 * written, this keeps room for the header of a chunk.
 */
void text_out_reserve(struct text_out *out, struct client *client);

/*
 * The commands were written, and not flushed: from now on what is written is text behind them.
 * False: they cannot be held for it, and are to be flushed.
 */
NODISCARD bool text_out_join(struct text_out *out, struct client *client);

/* How much may be written now, TEXT_OUT_ROOM_MIN at least. 0: none before on_drained. */
size_t text_out_room(struct text_out *out, struct client *client);

/* Takes text, no more than there is room for. */
void text_out_write(struct text_out *out, struct client *client, struct span text);

/* Sends what is gathered, unless something is still on its way: then more may join it. */
void text_out_push(struct text_out *out, struct client *client);

/* The text is complete: the end goes out behind it, and the message's answer is owed. */
void text_out_finish(struct text_out *out, struct client *client);

/*
 * With BDAT, where a chunk was refused: nothing more may be sent of the message (RFC 3030 2), so
 * what is gathered is dropped. Chunks that were sealed before go out, and are answered.
 */
void text_out_stop(struct text_out *out, struct client *client);

/* A reply came. True: it is the answer to a chunk that is not the last. */
bool text_out_take_reply(struct text_out *out);
