/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/dot_walk.h"

#include "relay/smtp/dot.h"
#include "relay/smtp/dot_look.h"

/* Each group in vain doubles how many bytes are walked before the next is tried, so often. */
#define DOT_FAILS_MAX 5

/* A CR LF ended the line whose LF is at lf_at. */
DOT_INLINE void dot_walk_end_line(struct dot_walk *walk, size_t lf_at)
{
	if ((ptrdiff_t)lf_at - 1 - walk->line_at > BODY_LINE_BYTES_MAX)
		walk->flaws |= BODY_LONG_LINE;
}

/*
 * Where exactly the line began. The LF before it and the dot behind that, if one was taken out, are
 * where they were: what moves up to now lies in front of them.
 */
static __attribute__((noinline)) ptrdiff_t dot_walk_line_at(const struct dot_walk walk)
{
	const uint8_t *group;
	const uint8_t *lf;
	size_t at;

	if (!walk.is_rough)
		return walk.line_at;
	group = walk.in.data + walk.line_at;
	lf = memrchr(group, '\n', DOT_GROUP_BYTES);
	ASSERT(lf != NULL);
	at = (size_t)(lf + 1 - walk.in.data);
	if (walk.how == DOT_WALK_TAKE && at < walk.at && walk.in.data[at] == '.')
		at++;
	return (ptrdiff_t)at;
}

/* A line that began in an earlier group ends in the one that is walked, and not much moved yet. */
static __attribute__((noinline)) unsigned dot_walk_far_line(struct dot_walk walk)
{
	const uint8_t *lf = memchr(walk.in.data + walk.at, '\n', walk.in.len - walk.at);

	ASSERT(lf != NULL);
	walk.line_at = dot_walk_line_at(walk);
	dot_walk_end_line(&walk, (size_t)(lf - walk.in.data));
	return walk.flaws;
}

/*
 * Walks the first bytes of a block. All is done on masks, without a branch that depends on where
 * the lines end: text costs the same whatever the length of its lines.
 */
DOT_INLINE void dot_walk_block(struct dot_walk *walk, const struct dot_block *block, unsigned bytes)
{
	const uint64_t here = ~UINT64_C(0) >> (DOT_BLOCK_BYTES - bytes);
	const uint64_t behind_cr = block->cr << 1 | walk->is_after_cr;
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
	walk->is_after_cr = (block->cr >> (bytes - 1) & 1) != 0;
	walk->is_at_start = (ends >> (bytes - 1) & 1) != 0;
	walk->at += bytes;
}

/* How many of these bytes are in front of the dot that stops the walk, or all. */
DOT_INLINE unsigned dot_walk_until(
	const struct dot_walk *walk, const struct dot_block *block, unsigned bytes)
{
	const uint64_t ends = block->lf & (block->cr << 1 | walk->is_after_cr);
	const uint64_t stops = block->dot & (ends << 1 | walk->is_at_start);

	return walk->how != DOT_WALK_PASS && stops != 0 ? (unsigned)__builtin_ctzll(stops) : bytes;
}

/* A few bytes, one block at a time, up to the dot that stops the walk. False: there is one. */
DOT_INLINE bool dot_walk_singly(struct dot_walk *walk, const struct dot_eyes *eyes)
{
	const size_t left = walk->in.len - walk->at;
	const uint8_t *at = walk->in.data + walk->at;
	const unsigned bytes = left < DOT_BLOCK_BYTES ? (unsigned)left : DOT_BLOCK_BYTES;
	struct dot_block block = eyes->look(at, bytes);
	const unsigned until = dot_walk_until(walk, &block, bytes);

	if (walk->is_rough) {
		walk->line_at = dot_walk_line_at(*walk);
		walk->is_rough = false;
	}
	if (until > 0 && until < bytes)
		block = eyes->look(at, until);
	if (until > 0)
		dot_walk_block(walk, &block, until);
	return until == bytes;
}

/* The text up to here, which is not yet where it shall be, goes there. */
DOT_INLINE void dot_walk_move(struct dot_walk *walk, size_t until)
{
	const uint8_t *from = walk->in.data + walk->moved;
	const size_t bytes = until - walk->moved;

	if (walk->out != from)
		memmove(walk->out, from, bytes);
	walk->out += bytes;
}

/* Takes out the dots of a block that begins at this place. */
DOT_INLINE void dot_walk_take(struct dot_walk *walk, size_t at, uint64_t dots)
{
	for (; dots != 0; dots &= dots - 1) {
		const size_t dot_at = at + (size_t)__builtin_ctzll(dots);

		dot_walk_move(walk, dot_at);
		walk->moved = dot_at + 1;
	}
}

/* May one of these dots belong to the end of data? A CR is behind it, or what is not looked at. */
DOT_INLINE bool dot_walk_may_end(const struct dot_group *group, const uint64_t dots[DOT_GROUP])
{
	uint64_t cr_behind = UINT64_C(1) << 63;
	uint64_t ends = 0;

#pragma GCC unroll 4
	for (unsigned i = DOT_GROUP; i-- > 0;) {
		ends |= dots[i] & (group->cr[i] >> 1 | cr_behind);
		cr_behind = group->cr[i] << 63;
	}
	return ends != 0;
}

/*
 * Walks some blocks at once, if there is nothing in them but what most text has: CR and LF in pairs
 * only, and no dot that stops the walk. Says whether dots were taken out. False: nothing was done.
 */
DOT_INLINE bool dot_walk_group(struct dot_walk *walk, const struct dot_eyes *eyes, bool *is_dotted)
{
	const struct dot_group group = eyes->look_group(walk->in.data + walk->at);
	uint64_t after_cr = walk->is_after_cr;
	uint64_t at_start = walk->is_at_start;
	const uint64_t heeded = walk->how == DOT_WALK_PASS ? 0 : ~UINT64_C(0);
	uint64_t dots[DOT_GROUP];
	uint64_t any_dot = 0;
	uint64_t any_lf = 0;
	uint64_t odd = 0;

#pragma GCC unroll 4
	for (unsigned i = 0; i < DOT_GROUP; i++) {
		odd |= (group.cr[i] << 1 | after_cr) ^ group.lf[i];
		dots[i] = group.dot[i] & (group.lf[i] << 1 | at_start);
		any_dot |= dots[i] & heeded;
		any_lf |= group.lf[i];
		after_cr = group.cr[i] >> 63;
		at_start = group.lf[i] >> 63;
	}
	if (odd != 0)
		return false;
	if (any_dot != 0 && (walk->how == DOT_WALK_STOP || dot_walk_may_end(&group, dots)))
		return false;
	walk->flaws |= group.nul != 0 ? BODY_NUL : 0u;
	walk->flaws |= group.high != 0 ? BODY_EIGHT_BIT : 0u;
	if (any_lf != 0) {
		/* Only the first line that ends here can be so long, and it hardly ever is. */
		if ((ptrdiff_t)(walk->at + DOT_GROUP_BYTES) - walk->line_at > BODY_LINE_BYTES_MAX)
			walk->flaws = dot_walk_far_line(*walk);
		walk->line_at = (ptrdiff_t)walk->at;
		walk->is_rough = true;
	}
	*is_dotted = any_dot != 0;
	if (any_dot != 0) {
#pragma GCC unroll 4
		for (unsigned i = 0; i < DOT_GROUP; i++)
			dot_walk_take(walk, walk->at + (size_t)i * DOT_BLOCK_BYTES, dots[i]);
	}
	walk->is_after_cr = after_cr != 0;
	walk->is_at_start = at_start != 0;
	walk->at += DOT_GROUP_BYTES;
	return true;
}

/* Where enough is moved, so that the rest can stay where it is. */
DOT_INLINE size_t dot_walk_enough_at(const struct dot_walk *walk)
{
	return walk->how == DOT_WALK_TAKE && walk->out != walk->in.data + walk->moved
		       ? walk->moved + DOT_MOVE_BYTES_MAX
		       : SIZE_MAX;
}

/*
 * Walks groups for as long as there is nothing at all to do about them. What is true of nearly all
 * text is all that is asked here: each instruction counts.
 */
DOT_INLINE void dot_walk_plain(struct dot_walk *out, const struct dot_eyes *eyes)
{
	const struct dot_walk walk = *out;
	const size_t until = dot_walk_enough_at(&walk);
	ptrdiff_t line_at = walk.line_at;
	size_t at = walk.at;
	bool has_lf = false;
	bool has_nul = false;
	bool has_high = false;

	while (at < until && walk.in.len - at >= DOT_GROUP_BYTES) {
		const struct dot_glance glance = eyes->glance(walk.in.data + at);

		if (!glance.is_plain || (glance.has_dot && walk.how != DOT_WALK_PASS))
			break;
		if (glance.has_lf) {
			if ((ptrdiff_t)(at + DOT_GROUP_BYTES) - line_at > BODY_LINE_BYTES_MAX)
				break;
			line_at = (ptrdiff_t)at;
			has_lf = true;
		}
		has_nul |= glance.has_nul;
		has_high |= glance.has_high;
		at += DOT_GROUP_BYTES;
	}
	if (at == walk.at)
		return;
	out->flaws |= has_nul ? BODY_NUL : 0u;
	out->flaws |= has_high ? BODY_EIGHT_BIT : 0u;
	out->is_after_cr = walk.in.data[at - 1] == '\r';
	out->is_at_start = walk.in.data[at - 1] == '\n';
	out->line_at = line_at;
	out->is_rough |= has_lf;
	out->at = at;
}

DOT_INLINE bool dot_walk_is_over(const struct dot_walk *walk)
{
	return walk->at >= walk->in.len || walk->at >= dot_walk_enough_at(walk);
}

/* The whole walk, by one way to look. */
DOT_INLINE void dot_walk_by(struct dot_walk *walk, const struct dot_eyes *eyes)
{
	bool is_dotted = true; /* a glance would be in vain; at the first byte there is none */
	unsigned singly = 0;   /* blocks that are not worth another try together */
	unsigned fails = 0;    /* tries in vain, one after the other */

	while (!dot_walk_is_over(walk)) {
		const size_t at = walk->at;

		if (singly == 0 && !is_dotted) {
			dot_walk_plain(walk, eyes);
			if (dot_walk_is_over(walk))
				break;
		}
		if (singly == 0 && walk->in.len - walk->at >= DOT_GROUP_BYTES) {
			const bool is_plain = walk->at > at;

			if (dot_walk_group(walk, eyes, &is_dotted)) {
				is_dotted = is_dotted && !is_plain;
				fails = 0;
				continue;
			}
			fails += fails < DOT_FAILS_MAX ? 1 : 0;
			singly = (unsigned)DOT_GROUP << (fails - 1);
		}
		singly -= singly > 0 ? 1 : 0;
		if (!dot_walk_singly(walk, eyes))
			break;
	}
	walk->line_at = dot_walk_line_at(*walk);
	walk->is_rough = false;
	if (walk->how == DOT_WALK_TAKE)
		dot_walk_move(walk, walk->at);
}

static void dot_walk_any(struct dot_walk *walk)
{
	static const struct dot_eyes eyes = {dot_look_any, dot_look_group_any, dot_glance_any};

	dot_walk_by(walk, &eyes);
}

#ifdef __x86_64__

DOT_256 static void dot_walk_256(struct dot_walk *walk)
{
	static const struct dot_eyes eyes = {dot_look_any, dot_look_group_any, dot_glance_256};

	dot_walk_by(walk, &eyes);
}

DOT_512 static void dot_walk_512(struct dot_walk *walk)
{
	static const struct dot_eyes eyes = {dot_look_512, dot_look_group_512, dot_glance_512};

	dot_walk_by(walk, &eyes);
}

#endif

/* The slowest first. */
static void (*const dot_walk_ways[])(struct dot_walk *walk) = {
	dot_walk_any,
#ifdef __x86_64__
	dot_walk_256,
	dot_walk_512,
#endif
};

static unsigned dot_walk_chosen;

static bool dot_walk_is_possible(unsigned way)
{
#ifdef __x86_64__
	if (way > 0 && !__builtin_cpu_supports("bmi"))
		return false;
	if (way == 1)
		return __builtin_cpu_supports("avx2") != 0;
	if (way == 2)
		return __builtin_cpu_supports("avx512bw") != 0;
#endif
	return way == 0;
}

bool dot_walk_choose(unsigned way)
{
	if (!dot_walk_is_possible(way))
		return false;
	dot_walk_chosen = way;
	return true;
}

/* Before main(): which of them does this processor have? */
__attribute__((constructor)) static void dot_walk_choose_best(void)
{
	for (unsigned way = COUNT_OF(dot_walk_ways); way-- > 0;) {
		if (dot_walk_choose(way))
			break;
	}
}

void dot_walk(struct dot_walk *walk)
{
	dot_walk_ways[dot_walk_chosen](walk);
}
