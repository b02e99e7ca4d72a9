/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/dot.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

/* RFC 5322 2.1.1: bytes of a line before its CR LF; a stuffed dot does not count. */
#define BODY_LINE_BYTES_MAX 998

/* Bytes that are looked at together: a bit of a mask for each. */
#define DOT_BLOCK_BYTES 64

/* Blocks of plain text that are walked together. */
#define DOT_GROUP 4

/* Text is moved for the dot in front of it in pieces of so much: it ends with the first whole one.
 */
#define DOT_MOVE_BYTES_MAX 2048

/* A CR that was held back. */
static const uint8_t dot_held_cr = '\r';

/* Stands behind what is too short for a block: text that is looked for by nobody. */
#define DOT_PADDING 'x'

/*
 * What came last. The first three are all that a body without dots at line
 * starts ever sees, and the only ones in which dot_scan() may be called.
 */
enum dot_state {
	AT_LINE_START, /* the body began or a CR LF ended: a dot here is stuffing or the end */
	AT_TEXT,       /* inside a line */
	AT_CR,         /* inside a line, behind a CR which was given as text already */
	AT_DOT,        /* behind the dot that began a line; that one is never given */
	AT_DOT_CR,     /* behind that dot and a CR: held back, for it may belong to the end */
	AT_END,        /* end of data was found; only dot_reader_init() leads on */
};

static void dot_enter(struct dot_reader *reader, enum dot_state state)
{
	reader->state = (uint8_t)state;
}

/* A bit for each byte of a block, the first in the lowest place. */
struct dot_block {
	uint64_t cr;
	uint64_t lf;
	uint64_t dot;
	uint64_t nul;  /* no places: 0 if there is none */
	uint64_t high; /* the same of bytes over 127 */
};

#ifdef __x86_64__

static inline uint64_t dot_block_match(const __m128i quarters[4], char byte)
{
	const __m128i want = _mm_set1_epi8(byte);
	uint64_t a = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(quarters[0], want));
	uint64_t b = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(quarters[1], want));
	uint64_t c = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(quarters[2], want));
	uint64_t d = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(quarters[3], want));

	return a | b << 16 | c << 32 | d << 48;
}

static inline struct dot_block dot_block_look_whole(const uint8_t *at)
{
	const __m128i quarters[4] = {
		_mm_loadu_si128((const __m128i *)(const void *)at),
		_mm_loadu_si128((const __m128i *)(const void *)(at + 16)),
		_mm_loadu_si128((const __m128i *)(const void *)(at + 32)),
		_mm_loadu_si128((const __m128i *)(const void *)(at + 48)),
	};
	__m128i any = _mm_or_si128(
		_mm_or_si128(quarters[0], quarters[1]), _mm_or_si128(quarters[2], quarters[3]));
	__m128i least = _mm_min_epu8(
		_mm_min_epu8(quarters[0], quarters[1]), _mm_min_epu8(quarters[2], quarters[3]));

	return (struct dot_block){
		.cr = dot_block_match(quarters, '\r'),
		.lf = dot_block_match(quarters, '\n'),
		.dot = dot_block_match(quarters, '.'),
		.nul = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(least, _mm_setzero_si128())),
		.high = (unsigned)_mm_movemask_epi8(any),
	};
}

/* The same where vectors are as long as a block, with a sixth of the instructions. */
__attribute__((target("avx512bw"))) static inline struct dot_block dot_block_look_512(
	const uint8_t *at, unsigned bytes)
{
	const __m512i all = _mm512_mask_loadu_epi8(
		_mm512_set1_epi8(DOT_PADDING), ~UINT64_C(0) >> (DOT_BLOCK_BYTES - bytes), at);

	return (struct dot_block){
		.cr = _mm512_cmpeq_epi8_mask(all, _mm512_set1_epi8('\r')),
		.lf = _mm512_cmpeq_epi8_mask(all, _mm512_set1_epi8('\n')),
		.dot = _mm512_cmpeq_epi8_mask(all, _mm512_set1_epi8('.')),
		.nul = _mm512_testn_epi8_mask(all, all),
		.high = _mm512_movepi8_mask(all),
	};
}

#else

static inline struct dot_block dot_block_look_whole(const uint8_t *at)
{
	struct dot_block block = {0};

	for (unsigned i = 0; i < DOT_BLOCK_BYTES; i++) {
		block.cr |= (uint64_t)(at[i] == '\r') << i;
		block.lf |= (uint64_t)(at[i] == '\n') << i;
		block.dot |= (uint64_t)(at[i] == '.') << i;
		block.nul |= at[i] == '\0';
		block.high |= at[i] > 127;
	}
	return block;
}

#endif

static inline struct dot_block dot_block_look(const uint8_t *at, unsigned bytes)
{
	uint8_t part[DOT_BLOCK_BYTES];

	if (bytes == DOT_BLOCK_BYTES)
		return dot_block_look_whole(at);
	memset(part, DOT_PADDING, sizeof(part));
	memcpy(part, at, bytes);
	return dot_block_look_whole(part);
}

/* A walk over one piece of input. */
struct dot_walk {
	struct span in;
	size_t at;
	ptrdiff_t line_at; /* where the line began; negative: in an earlier piece */
	unsigned flaws;
	bool stops_at_dot; /* at a dot that begins a line */
};

/* A CR LF ended the line whose LF is at lf_at. */
static inline void dot_walk_end_line(struct dot_walk *walk, size_t lf_at)
{
	if ((ptrdiff_t)lf_at - 1 - walk->line_at > BODY_LINE_BYTES_MAX)
		walk->flaws |= BODY_LONG_LINE;
}

/* What the block before has left. */
struct dot_carry {
	uint64_t after_cr;
	uint64_t at_start;
};

/*
 * Walks the first bytes of a block. All is done on masks, without a branch that depends on where
 * the lines end: text costs the same whatever the length of its lines.
 */
static inline __attribute__((always_inline)) void dot_walk_block(struct dot_walk *walk,
	struct dot_carry *carry, const struct dot_block *block, unsigned bytes)
{
	const uint64_t here = ~UINT64_C(0) >> (DOT_BLOCK_BYTES - bytes);
	const uint64_t behind_cr = block->cr << 1 | carry->after_cr;
	const uint64_t ends = block->lf & behind_cr;

	walk->flaws |= (behind_cr & ~block->lf & here) != 0 ? BODY_BARE_CR : 0u;
	walk->flaws |= (block->lf & ~behind_cr) != 0 ? BODY_BARE_LF : 0u;
	walk->flaws |= block->nul != 0 ? BODY_NUL : 0u;
	walk->flaws |= block->high != 0 ? BODY_EIGHT_BIT : 0u;
	if (ends != 0) {
		/* Only the first end can be far from the one before it. */
		dot_walk_end_line(walk, walk->at + (size_t)__builtin_ctzll(ends));
		walk->line_at = (ptrdiff_t)walk->at + 64 - __builtin_clzll(ends);
	}
	carry->after_cr = block->cr >> (bytes - 1) & 1;
	carry->at_start = ends >> (bytes - 1) & 1;
	walk->at += bytes;
}

/* How many of these bytes are in front of the dot that stops the walk, or all. */
static inline unsigned dot_walk_until(const struct dot_walk *walk, const struct dot_carry *carry,
	const struct dot_block *block, unsigned bytes)
{
	const uint64_t ends = block->lf & (block->cr << 1 | carry->after_cr);
	const uint64_t stops = block->dot & (ends << 1 | carry->at_start);

	return walk->stops_at_dot && stops != 0 ? (unsigned)__builtin_ctzll(stops) : bytes;
}

/* A way to look at the bytes, a block at the most. */
typedef struct dot_block dot_look(const uint8_t *at, unsigned bytes);

/*
 * Walks some blocks at once, if there is nothing in them but what most text has: CR and LF in pairs
 * only, and no dot that stops the walk. False: nothing was done.
 */
static inline __attribute__((always_inline)) bool dot_walk_group(
	struct dot_walk *walk, struct dot_carry *carry, dot_look *look)
{
	const uint64_t stops = walk->stops_at_dot ? ~UINT64_C(0) : 0;
	const uint8_t *at = walk->in.data + walk->at;
	struct dot_carry next = *carry;
	struct dot_block all = {0};
	uint64_t lf[DOT_GROUP];
	unsigned with_end = 0;

#pragma GCC unroll 4
	for (unsigned i = 0; i < DOT_GROUP; i++) {
		const struct dot_block block =
			look(at + (size_t)i * DOT_BLOCK_BYTES, DOT_BLOCK_BYTES);

		all.cr |= (block.cr << 1 | next.after_cr) ^ block.lf;
		all.dot |= block.dot & (block.lf << 1 | next.at_start);
		all.nul |= block.nul;
		all.high |= block.high;
		with_end |= (block.lf != 0 ? 1u : 0u) << i;
		next.after_cr = block.cr >> 63;
		next.at_start = block.lf >> 63;
		lf[i] = block.lf;
	}
	if ((all.cr | (all.dot & stops)) != 0)
		return false;
	walk->flaws |= all.nul != 0 ? BODY_NUL : 0u;
	walk->flaws |= all.high != 0 ? BODY_EIGHT_BIT : 0u;
	if (with_end != 0) {
		const unsigned first = (unsigned)__builtin_ctz(with_end);
		const unsigned last = 31 - (unsigned)__builtin_clz(with_end);

		dot_walk_end_line(walk, walk->at + (size_t)first * DOT_BLOCK_BYTES +
						(size_t)__builtin_ctzll(lf[first]));
		walk->line_at = (ptrdiff_t)walk->at + (ptrdiff_t)(last + 1) * DOT_BLOCK_BYTES -
				__builtin_clzll(lf[last]);
	}
	*carry = next;
	walk->at += DOT_GROUP * DOT_BLOCK_BYTES;
	return true;
}

/* The whole walk, up to the dot that stops it, by one way to look at a block. */
static inline __attribute__((always_inline)) void dot_walk_by(
	struct dot_walk *out, struct dot_carry *carry, dot_look *look)
{
	struct dot_walk walk = *out;
	struct dot_block block;
	unsigned singly = 0; /* blocks that are not worth another try together */
	unsigned bytes = 1;
	unsigned until = 1;

	while (until == bytes && walk.at < walk.in.len) {
		const uint8_t *at = walk.in.data + walk.at;
		const size_t left = walk.in.len - walk.at;

		if (singly == 0 && left >= (size_t)DOT_GROUP * DOT_BLOCK_BYTES) {
			if (dot_walk_group(&walk, carry, look))
				continue;
			singly = DOT_GROUP;
		}
		singly -= singly > 0 ? 1 : 0;
		bytes = left < DOT_BLOCK_BYTES ? (unsigned)left : DOT_BLOCK_BYTES;
		block = look(at, bytes);
		until = dot_walk_until(&walk, carry, &block, bytes);
		if (until > 0 && until < bytes)
			block = look(at, until);
		if (until > 0)
			dot_walk_block(&walk, carry, &block, until);
	}
	*out = walk;
}

static void dot_walk_any(struct dot_walk *walk, struct dot_carry *carry)
{
	dot_walk_by(walk, carry, dot_block_look);
}

#ifdef __x86_64__

__attribute__((target("avx512bw"))) static void dot_walk_512(
	struct dot_walk *walk, struct dot_carry *carry)
{
	dot_walk_by(walk, carry, dot_block_look_512);
}

static void (*dot_walk_chosen)(struct dot_walk *walk, struct dot_carry *carry) = dot_walk_any;

/* Before main(): which of the two does this processor have? */
__attribute__((constructor)) static void dot_choose(void)
{
	if (__builtin_cpu_supports("avx512bw"))
		dot_walk_chosen = dot_walk_512;
}

#else

static void (*const dot_walk_chosen)(struct dot_walk *walk, struct dot_carry *carry) = dot_walk_any;

#endif

/*
 * Looks at body text, up to a dot that begins a line or, if stops_at_dot is
 * false, to the end of in. Returns how many bytes these are.
 */
static size_t dot_scan(struct dot_reader *reader, struct span in, bool stops_at_dot)
{
	struct dot_walk walk = {
		.in = in,
		.line_at = -(ptrdiff_t)reader->column,
		.flaws = reader->flaws,
		.stops_at_dot = stops_at_dot,
	};
	const enum dot_state last = (enum dot_state)reader->state;
	struct dot_carry carry = {.after_cr = last == AT_CR, .at_start = last == AT_LINE_START};
	ptrdiff_t column;

	ASSERT(last == AT_LINE_START || last == AT_TEXT || last == AT_CR);
	dot_walk_chosen(&walk, &carry);

	/*
	 * One byte more than the limit may be the CR of the line's end. With two
	 * more the line is too long for sure, and counting on would only wrap.
	 */
	column = (ptrdiff_t)walk.at - walk.line_at;
	if (column > BODY_LINE_BYTES_MAX + 1) {
		walk.flaws |= BODY_LONG_LINE;
		column = BODY_LINE_BYTES_MAX + 2;
	}
	reader->column = (uint32_t)column;
	reader->flaws = walk.flaws;
	dot_enter(reader, carry.after_cr != 0   ? AT_CR
			  : carry.at_start != 0 ? AT_LINE_START
						: AT_TEXT);
	return walk.at;
}

void dot_reader_init(struct dot_reader *reader)
{
	*reader = (struct dot_reader){.state = AT_LINE_START};
}

/* Does this byte, which follows the dot that began a line, belong to the end of data so far? */
static bool dot_read_may_end(struct dot_reader *reader, uint8_t byte)
{
	if (reader->state == AT_DOT && byte == '\r') {
		dot_enter(reader, AT_DOT_CR);
		return true;
	}
	if (reader->state == AT_DOT_CR && byte == '\n') {
		dot_enter(reader, AT_END);
		return true;
	}
	return false;
}

/* The byte behind CR LF "." CR is no LF: the CR was text after all, and a bare one. */
static struct span dot_read_held_cr(struct dot_reader *reader)
{
	reader->flaws |= BODY_BARE_CR;
	reader->column = 1;
	dot_enter(reader, AT_TEXT);
	return span_make(&dot_held_cr, 1);
}

enum dot_status dot_read(
	struct dot_reader *reader, struct span in, size_t *consumed, struct span *text)
{
	size_t at = 0;

	ASSERT(reader->state != AT_END);
	while (at < in.len) {
		if (reader->state == AT_DOT || reader->state == AT_DOT_CR) {
			if (dot_read_may_end(reader, in.data[at])) {
				at++;
			} else if (reader->state == AT_DOT) {
				dot_enter(reader, AT_TEXT);
			} else {
				*consumed = at;
				*text = dot_read_held_cr(reader);
				return DOT_TEXT;
			}
		} else {
			struct span rest = span_skip(in, at);
			size_t count = dot_scan(reader, rest, true);

			if (count > 0) {
				*consumed = at + count;
				*text = span_head(rest, count);
				return DOT_TEXT;
			}
			dot_enter(reader, AT_DOT);
			at++;
		}
		if (reader->state == AT_END) {
			*consumed = at;
			return DOT_END;
		}
	}
	*consumed = in.len;
	return DOT_MORE;
}

enum dot_status dot_take(
	struct dot_reader *reader, uint8_t *in, size_t len, size_t *consumed, struct span *text)
{
	enum dot_status status = dot_read(reader, span_make(in, len), consumed, text);
	struct span piece;
	uint8_t *end;
	size_t used;

	if (status != DOT_TEXT) {
		*text = (struct span){0};
		return status;
	}
	/* There may be no room for it in front of what is at hand. */
	if (text->data == &dot_held_cr)
		return status;
	end = in + (text->data - in) + text->len;
	while (*consumed < len) {
		status = dot_read(reader,
			span_head(span_make(in + *consumed, len - *consumed), DOT_MOVE_BYTES_MAX),
			&used, &piece);
		*consumed += used;
		if (status == DOT_END)
			return status;
		if (status == DOT_MORE)
			continue;
		memmove(end, piece.data, piece.len);
		end += piece.len;
		text->len += piece.len;
		if (piece.len == DOT_MOVE_BYTES_MAX)
			break;
	}
	return DOT_TEXT;
}

void body_check(struct dot_reader *reader, struct span in)
{
	(void)dot_scan(reader, in, false);
}

void body_check_end(struct dot_reader *reader)
{
	if (reader->state == AT_CR)
		reader->flaws |= BODY_BARE_CR;
	if (reader->column > BODY_LINE_BYTES_MAX)
		reader->flaws |= BODY_LONG_LINE;
}

void dot_writer_init(struct dot_writer *writer)
{
	*writer = (struct dot_writer){.state = AT_LINE_START};
}

size_t dot_write(struct dot_writer *writer, struct span in, uint8_t *out, size_t out_bytes_max,
	size_t *out_len)
{
	/* The reader's scan finds the places; what else it notes is dropped. */
	struct dot_reader scan = {.state = writer->state};
	size_t used = 0;
	size_t len = 0;

	while (used < in.len && len < out_bytes_max) {
		struct span rest = span_head(span_skip(in, used), out_bytes_max - len);
		size_t count = dot_scan(&scan, rest, true);

		if (count > 0) {
			memcpy(out + len, rest.data, count);
			used += count;
			len += count;
		} else {
			/* The body's own dot comes next, as text: there may be no room for it now.
			 */
			out[len++] = '.';
			dot_enter(&scan, AT_TEXT);
		}
	}
	*writer = (struct dot_writer){.state = scan.state};
	*out_len = len;
	return used;
}

size_t dot_write_end(struct dot_writer *writer, uint8_t out[DOT_END_BYTES_MAX])
{
	static const char end[] = "\r\n.\r\n";
	size_t skip = writer->state == AT_LINE_START ? 2 : 0;

	memcpy(out, end + skip, DOT_END_BYTES_MAX - skip);
	*writer = (struct dot_writer){.state = AT_END};
	return DOT_END_BYTES_MAX - skip;
}
