/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * dot_look.h: ways to look at body text, many bytes at a time: with the vectors that each processor
 * has, and with longer ones. Each is inlined into a walk of its own.
 *
 * For dot_walk.c alone.
 */

#include "relay/base/assert.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

/* Bytes that are looked at together: a bit of a mask for each. */
#define DOT_BLOCK_BYTES 64

/* Blocks of plain text that are walked together, and their bytes. */
#define DOT_GROUP 4
#define DOT_GROUP_BYTES ((size_t)DOT_GROUP * DOT_BLOCK_BYTES)

/* Stands behind what is too short for a block: text that is looked for by nobody. */
#define DOT_PADDING 'x'

/* A bit for each byte of a block, the first in the lowest place. */
struct dot_block {
	uint64_t cr;
	uint64_t lf;
	uint64_t dot;
	uint64_t nul;  /* no places: 0 if there is none */
	uint64_t high; /* the same of bytes over 127 */
};

/* The same of each block of a group. */
struct dot_group {
	uint64_t cr[DOT_GROUP];
	uint64_t lf[DOT_GROUP];
	uint64_t dot[DOT_GROUP];
	uint64_t nul;
	uint64_t high;
};

/* What a glance at a group says, and at the byte in front of it. */
struct dot_glance {
	bool is_plain; /* CR and LF in pairs only, and no dot behind a LF */
	bool has_dot;  /* there is one behind a LF */
	bool has_lf;
	bool has_nul;
	bool has_high;
};

/* A way to look: at a block at the most, at a group, and at a group to see if it is worth more. */
struct dot_eyes {
	struct dot_block (*look)(const uint8_t *at, unsigned bytes);
	struct dot_group (*look_group)(const uint8_t *at);
	struct dot_glance (*glance)(const uint8_t *at);
};

#define DOT_INLINE static inline __attribute__((always_inline))

#ifdef __x86_64__

DOT_INLINE uint64_t dot_match(const __m128i quarters[4], char byte)
{
	const __m128i want = _mm_set1_epi8(byte);
	uint64_t a = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(quarters[0], want));
	uint64_t b = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(quarters[1], want));
	uint64_t c = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(quarters[2], want));
	uint64_t d = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(quarters[3], want));

	return a | b << 16 | c << 32 | d << 48;
}

DOT_INLINE struct dot_block dot_look_whole(const uint8_t *at)
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
		.cr = dot_match(quarters, '\r'),
		.lf = dot_match(quarters, '\n'),
		.dot = dot_match(quarters, '.'),
		.nul = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(least, _mm_setzero_si128())),
		.high = (unsigned)_mm_movemask_epi8(any),
	};
}

#else

DOT_INLINE struct dot_block dot_look_whole(const uint8_t *at)
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

DOT_INLINE struct dot_block dot_look_any(const uint8_t *at, unsigned bytes)
{
	uint8_t part[DOT_BLOCK_BYTES];

	if (bytes == DOT_BLOCK_BYTES)
		return dot_look_whole(at);
	memset(part, DOT_PADDING, sizeof(part));
	memcpy(part, at, bytes);
	return dot_look_whole(part);
}

DOT_INLINE struct dot_group dot_look_group_any(const uint8_t *at)
{
	struct dot_group group = {0};

#pragma GCC unroll 4
	for (unsigned i = 0; i < DOT_GROUP; i++) {
		const struct dot_block block = dot_look_whole(at + (size_t)i * DOT_BLOCK_BYTES);

		group.cr[i] = block.cr;
		group.lf[i] = block.lf;
		group.dot[i] = block.dot;
		group.nul |= block.nul;
		group.high |= block.high;
	}
	return group;
}

DOT_INLINE struct dot_glance dot_glance_any(const uint8_t *at)
{
	const struct dot_group group = dot_look_group_any(at);
	uint64_t after_cr = at[-1] == '\r';
	uint64_t at_start = at[-1] == '\n';
	uint64_t dots = 0;
	uint64_t ends = 0;
	uint64_t odd = 0;

#pragma GCC unroll 4
	for (unsigned i = 0; i < DOT_GROUP; i++) {
		odd |= (group.cr[i] << 1 | after_cr) ^ group.lf[i];
		dots |= group.dot[i] & (group.lf[i] << 1 | at_start);
		ends |= group.lf[i];
		after_cr = group.cr[i] >> 63;
		at_start = group.lf[i] >> 63;
	}
	return (struct dot_glance){.is_plain = odd == 0,
		.has_dot = dots != 0,
		.has_lf = ends != 0,
		.has_nul = group.nul != 0,
		.has_high = group.high != 0};
}

#ifdef __x86_64__

/* The same with vectors of half a block, for the glance. */
#define DOT_256 __attribute__((target("avx2,bmi")))

DOT_256 DOT_INLINE struct dot_glance dot_glance_256(const uint8_t *at)
{
	const __m256i cr = _mm256_set1_epi8('\r');
	const __m256i lf = _mm256_set1_epi8('\n');
	__m256i odd = _mm256_setzero_si256();
	__m256i dots = odd;
	__m256i ends = odd;
	__m256i any = odd;
	__m256i least = _mm256_set1_epi8(-1);

#pragma GCC unroll 8
	for (size_t i = 0; i < DOT_GROUP_BYTES; i += 32) {
		const __m256i all = _mm256_loadu_si256((const void *)(at + i));
		const __m256i before = _mm256_loadu_si256((const void *)(at + i - 1));
		const __m256i is_lf = _mm256_cmpeq_epi8(all, lf);
		const __m256i is_dot = _mm256_cmpeq_epi8(all, _mm256_set1_epi8('.'));

		odd = _mm256_or_si256(odd, _mm256_xor_si256(is_lf, _mm256_cmpeq_epi8(before, cr)));
		dots = _mm256_or_si256(
			dots, _mm256_and_si256(is_dot, _mm256_cmpeq_epi8(before, lf)));
		ends = _mm256_or_si256(ends, is_lf);
		any = _mm256_or_si256(any, all);
		least = _mm256_min_epu8(least, all);
	}
	return (struct dot_glance){
		.is_plain = _mm256_testz_si256(odd, odd) != 0,
		.has_dot = _mm256_testz_si256(dots, dots) == 0,
		.has_lf = _mm256_testz_si256(ends, ends) == 0,
		.has_nul =
			_mm256_movemask_epi8(_mm256_cmpeq_epi8(least, _mm256_setzero_si256())) != 0,
		.has_high = _mm256_movemask_epi8(any) != 0,
	};
}

/* And where vectors are as long as a block, with a sixth of the instructions. */
#define DOT_512 __attribute__((target("avx512bw,bmi")))

DOT_512 DOT_INLINE struct dot_block dot_look_512(const uint8_t *at, unsigned bytes)
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

DOT_512 DOT_INLINE struct dot_group dot_look_group_512(const uint8_t *at)
{
	struct dot_group group = {0};

#pragma GCC unroll 4
	for (unsigned i = 0; i < DOT_GROUP; i++) {
		const struct dot_block block =
			dot_look_512(at + (size_t)i * DOT_BLOCK_BYTES, DOT_BLOCK_BYTES);

		group.cr[i] = block.cr;
		group.lf[i] = block.lf;
		group.dot[i] = block.dot;
		group.nul |= block.nul;
		group.high |= block.high;
	}
	return group;
}

/*
 * Compares go through one unit, masks through another, and all else through both: so the dots are
 * found by arithmetic, as the places where what differs is nothing.
 */
DOT_512 DOT_INLINE struct dot_glance dot_glance_512(const uint8_t *at)
{
	const __m512i cr = _mm512_set1_epi8('\r');
	const __m512i lf = _mm512_set1_epi8('\n');
	const __m512i dot = _mm512_set1_epi8('.');
	__m512i undotted = _mm512_set1_epi8(-1);
	__m512i least = _mm512_set1_epi8(1);
	struct dot_glance glance = {0};
	__mmask64 odd = 0;
	__mmask64 ends = 0;

#pragma GCC unroll 4
	for (size_t i = 0; i < DOT_GROUP_BYTES; i += DOT_BLOCK_BYTES) {
		const __m512i all = _mm512_loadu_si512(at + i);
		const __m512i before = _mm512_loadu_si512(at + i - 1);
		const __mmask64 is_lf = _mm512_cmpeq_epi8_mask(all, lf);
		const __mmask64 is_behind = _mm512_cmpeq_epi8_mask(before, cr);

		odd = _kor_mask64(odd, _kxor_mask64(is_lf, is_behind));
		ends = _kor_mask64(ends, is_lf);
		undotted = _mm512_min_epu8(undotted,
			_mm512_or_si512(_mm512_xor_si512(all, dot), _mm512_xor_si512(before, lf)));
		least = _mm512_min_epi8(least, all);
	}
	glance.is_plain = _kortestz_mask64_u8(odd, odd) != 0;
	glance.has_dot = _mm512_testn_epi8_mask(undotted, undotted) != 0;
	glance.has_lf = _kortestz_mask64_u8(ends, ends) == 0;
	/* Signed, NUL and eight-bit bytes are less than all others. */
	if (_mm512_cmplt_epi8_mask(least, _mm512_set1_epi8(1)) != 0) {
#pragma GCC unroll 4
		for (size_t i = 0; i < DOT_GROUP_BYTES; i += DOT_BLOCK_BYTES) {
			const __m512i all = _mm512_loadu_si512(at + i);

			glance.has_nul |= _mm512_testn_epi8_mask(all, all) != 0;
			glance.has_high |= _mm512_movepi8_mask(all) != 0;
		}
	}
	return glance;
}

#endif
