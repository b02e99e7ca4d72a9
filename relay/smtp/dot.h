/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * dot.h: message bodies. Reading: finds the end of DATA, takes the stuffed dots
 * out (RFC 5321 4.5.2) and notices what may not be in a body. Writing: puts the
 * dots in.
 *
 * Pure and incremental: any split of the input gives the same result. CR LF "."
 * CR LF is the only end of data; nothing else ever ends a message, so that no
 * second message can be smuggled in one body.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"

/* What a body held that RFC 5321 2.3.8 and RFC 5322 2.3 do not allow; a set of bits. */
enum body_flaw {
	BODY_BARE_CR = 1,
	BODY_BARE_LF = 2,
	BODY_NUL = 4,
	BODY_LONG_LINE = 8,  /* over 998 bytes before the CR LF: counted, the caller decides */
	BODY_EIGHT_BIT = 16, /* a byte over 127 */
};

struct dot_reader {
	uint8_t state;   /* private */
	uint32_t column; /* private: bytes since the last CR LF */
	unsigned flaws;  /* enum body_flaw bits seen so far */
};

enum dot_status {
	DOT_TEXT, /* *text is the next piece of the body */
	DOT_MORE, /* all input is consumed; the body goes on */
	DOT_END,  /* end of data was found; what lies behind it is the next command */
};

/* Begins a body: the next byte is the first of a line. */
void dot_reader_init(struct dot_reader *reader);

/*
 * Takes the next piece. *consumed says how many bytes of in are done with
 * (always set); on DOT_TEXT, *text is the body text, unstuffed; it points into
 * in, or to a constant of ours where a held-back byte has to be given first.
 * With DOT_MORE, consumed is in.len. Call again with the rest until DOT_MORE or
 * DOT_END. The CR LF in front of the final dot belongs to the body.
 */
NODISCARD enum dot_status dot_read(
	struct dot_reader *reader, struct span in, size_t *consumed, struct span *text);

/*
 * The same in memory that may be altered: goes on over stuffed dots, and moves the text behind one
 * up to the text in front of it, so that *text is one long piece though dots were taken out of it.
 * On DOT_END, *text is the last of the body, maybe empty. Of what was consumed nothing but *text is
 * worth anything afterwards.
 */
NODISCARD enum dot_status dot_take(
	struct dot_reader *reader, uint8_t *in, size_t len, size_t *consumed, struct span *text);

/*
 * For bodies whose length is known (BDAT, RFC 3030): only looks for flaws.
 * Split anywhere. A body that ends in CR has a bare CR: body_check_end() says so.
 */
void body_check(struct dot_reader *reader, struct span in);
void body_check_end(struct dot_reader *reader);

struct dot_writer {
	uint8_t state; /* private: what the last bytes were */
};

/* Begins a body for DATA. */
void dot_writer_init(struct dot_writer *writer);

/*
 * Copies in to out with a dot added before each dot that begins a line. Stops
 * when out is full. Returns how many bytes of in were used; *out_len is how
 * many bytes were written to out.
 */
NODISCARD size_t dot_write(struct dot_writer *writer, struct span in, uint8_t *out,
	size_t out_bytes_max, size_t *out_len);

/* Longest output of dot_write_end(). */
#define DOT_END_BYTES_MAX 5

/* Writes the end of data, with a CR LF in front if the body did not end in one; returns its length.
 */
NODISCARD size_t dot_write_end(struct dot_writer *writer, uint8_t out[DOT_END_BYTES_MAX]);
