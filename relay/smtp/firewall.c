/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/firewall.h"

#include <limits.h>

enum firewall_state {
	FIREWALL_START_PASS, /* a line begins; what stood before it has passed */
	FIREWALL_START_DROP, /* a line begins; the field before it was taken out */
	FIREWALL_PASS,
	FIREWALL_DROP,
	/* The candidate: bytes since the start of the line, held until it is judged. */
	FIREWALL_NAME,        /* the name may still become one of ours */
	FIREWALL_PREFIX,      /* it begins with one of the prefixes: is there a colon? */
	FIREWALL_NAME_GAP,    /* it is one of the whole names: blanks, then a colon */
	FIREWALL_GAP,         /* before the authserv-id: blanks, folds, comments */
	FIREWALL_GAP_END,     /* the same, a line has ended: folded? */
	FIREWALL_COMMENT,     /* inside a comment */
	FIREWALL_COMMENT_END, /* the same, a line has ended */
	FIREWALL_TOKEN,       /* the authserv-id, equal to ours so far */
	FIREWALL_QUOTED,      /* the same in quotes */
	FIREWALL_OTHER,       /* it is not ours by its letters: has it a U-label? */
	FIREWALL_EMPTY,       /* a CR behind CR LF: the end of the header, if a LF comes next */
	FIREWALL_BODY,
};

/* What becomes of a byte. */
enum firewall_act {
	ACT_KEEP,
	ACT_SKIP,
	ACT_HOLD,           /* it joins the candidate */
	ACT_RELEASE,        /* the candidate passes, this byte with it */
	ACT_RELEASE_BEFORE, /* the candidate passes, and this byte is looked at again */
	ACT_DISCARD,        /* the candidate is taken out, this byte with it */
	ACT_END,            /* this byte ends the header */
};

/* How much of a line that passes is passed at a time: most lines are no longer (RFC 5322 2.1.1). */
#define PASS_BYTES 80

/* Whose presence is noted, where they are not taken out. */
#define FIREWALL_NOTED 4

static const struct {
	unsigned class;
	bool is_prefix;
	const char *name; /* in lower case */
} firewall_names[] = {
	{FIREWALL_ORGANIZATION, true, "x-ms-exchange-organization-"},
	{FIREWALL_ORGANIZATION, true, "x-ms-exchange-forest-"},
	{FIREWALL_STAMP, true, "x-postern-"},
	{FIREWALL_STAMP, false, "authentication-results"},
	{FIREWALL_NOTED, false, "x-ms-exchange-organization-authas"},
};

_Static_assert(COUNT_OF(firewall_names) <= CHAR_BIT, "names must fit the set of bits");

static void firewall_enter(struct firewall *firewall, enum firewall_state state)
{
	firewall->state = (uint8_t)state;
}

void firewall_init(struct firewall *firewall, unsigned classes, const char *authserv_id)
{
	/* What is held need not be cleared: its length says what is there. */
	memset(firewall, 0, offsetof(struct firewall, held));
	firewall->authserv_id = authserv_id;
	firewall->is_idn = strcasestr(authserv_id, "xn--") != NULL;
	for (unsigned i = 0; i < COUNT_OF(firewall_names); i++) {
		if ((classes | FIREWALL_NOTED) & firewall_names[i].class)
			firewall->wanted |= (uint8_t)(1u << i);
	}
	/* What stands before the message ends in CR LF, or there is nothing. */
	firewall->tail = firewall->tail_saved = 2;
	/* A folded line at the very start would go on with the field that we put before it. */
	firewall_enter(firewall, FIREWALL_START_DROP);
}

static bool is_blank(uint8_t byte)
{
	return byte == ' ' || byte == '\t';
}

static bool is_line_end(uint8_t byte)
{
	return byte == '\r' || byte == '\n';
}

static uint8_t to_lower(uint8_t byte)
{
	return byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte;
}

/* Counts one byte more of CR LF CR LF, or begins anew. */
static void firewall_count_tail(struct firewall *firewall, uint8_t byte)
{
	if (byte == '\r')
		firewall->tail = firewall->tail == 2 ? 3 : 1;
	else if (byte == '\n' && (firewall->tail & 1))
		firewall->tail++;
	else
		firewall->tail = 0;
}

static enum firewall_act firewall_release(struct firewall *firewall, enum firewall_act act)
{
	firewall_enter(firewall, FIREWALL_PASS);
	return act;
}

static enum firewall_act firewall_discard(struct firewall *firewall)
{
	firewall_enter(firewall, FIREWALL_DROP);
	firewall->tail = firewall->tail_saved;
	firewall->removed++;
	return ACT_DISCARD;
}

/*
 * The authserv-id differs from ours in this byte. A U-label may be the same as our A-label; it is
 * not worth finding out which, for hardly anybody writes one there.
 */
static enum firewall_act firewall_differ(struct firewall *firewall, uint8_t byte)
{
	if (!firewall->is_idn)
		return firewall_release(firewall, ACT_RELEASE);
	if (byte >= 0x80)
		return firewall_discard(firewall);
	if (is_line_end(byte) || is_blank(byte) || byte == ';' || byte == '(' || byte == '"')
		return firewall_release(firewall, ACT_RELEASE_BEFORE);
	firewall_enter(firewall, FIREWALL_OTHER);
	return ACT_HOLD;
}

/* One byte more of the name. */
static enum firewall_act firewall_match_name(struct firewall *firewall, uint8_t byte)
{
	const uint8_t lower = to_lower(byte);
	const unsigned at = firewall->matched++;

	for (unsigned i = 0; i < COUNT_OF(firewall_names); i++) {
		const char *name = firewall_names[i].name;

		if (!(firewall->alive & 1u << i))
			continue;
		/* A prefix ends before the longer names that it begins, and decides for them. */
		if (lower != (uint8_t)name[at]) {
			firewall->alive &= (uint8_t) ~(1u << i);
		} else if (name[at + 1] == '\0') {
			firewall->name = (uint8_t)i;
			firewall_enter(firewall,
				firewall_names[i].is_prefix ? FIREWALL_PREFIX : FIREWALL_NAME_GAP);
			return ACT_HOLD;
		}
	}
	return firewall->alive != 0 ? ACT_HOLD : firewall_release(firewall, ACT_RELEASE_BEFORE);
}

static enum firewall_act firewall_start(struct firewall *firewall, uint8_t byte)
{
	bool was_dropped = firewall->state == FIREWALL_START_DROP;
	bool ends_pair = byte == '\n' && firewall->after_cr;

	firewall->after_cr = byte == '\r';
	if (ends_pair)
		return was_dropped ? ACT_SKIP : ACT_KEEP;
	firewall->tail_saved = firewall->tail;
	if (byte == '\r' && firewall->tail == 2) {
		firewall_enter(firewall, FIREWALL_EMPTY);
		return ACT_HOLD;
	}
	if (is_line_end(byte)) {
		firewall_enter(firewall, FIREWALL_START_PASS);
		return ACT_KEEP;
	}
	if (is_blank(byte)) {
		firewall_enter(firewall, was_dropped ? FIREWALL_DROP : FIREWALL_PASS);
		return was_dropped ? ACT_SKIP : ACT_KEEP;
	}
	firewall->alive = firewall->wanted;
	firewall->matched = 0;
	firewall->depth = 0;
	firewall->is_escaped = false;
	firewall_enter(firewall, FIREWALL_NAME);
	return firewall_match_name(firewall, byte);
}

/* A line ended before the authserv-id: this byte tells whether the field goes on. */
static enum firewall_act firewall_fold(
	struct firewall *firewall, uint8_t byte, enum firewall_state inside)
{
	bool ends_pair = byte == '\n' && firewall->after_cr;

	if (ends_pair) {
		firewall->after_cr = false;
		return ACT_HOLD;
	}
	if (is_blank(byte)) {
		firewall_enter(firewall, inside);
		return ACT_HOLD;
	}
	/* A field without an authserv-id claims nothing in anybody's name. */
	firewall_enter(firewall, FIREWALL_START_PASS);
	return ACT_RELEASE_BEFORE;
}

static enum firewall_act firewall_token(struct firewall *firewall, uint8_t byte)
{
	uint8_t want = (uint8_t)firewall->authserv_id[firewall->matched];

	if (is_line_end(byte) || is_blank(byte) || byte == ';' || byte == '(') {
		if (want != '\0')
			return firewall_release(firewall, ACT_RELEASE_BEFORE);
		(void)firewall_discard(firewall);
		/* The byte may end the line, and the dropped field with it. */
		if (is_line_end(byte)) {
			firewall_enter(firewall, FIREWALL_START_DROP);
			firewall->after_cr = byte == '\r';
		}
		return ACT_DISCARD;
	}
	if (want == '\0' || to_lower(byte) != to_lower(want))
		return firewall_differ(firewall, byte);
	firewall->matched++;
	return ACT_HOLD;
}

static enum firewall_act firewall_quoted(struct firewall *firewall, uint8_t byte)
{
	uint8_t want = (uint8_t)firewall->authserv_id[firewall->matched];

	if (is_line_end(byte))
		return firewall_release(firewall, ACT_RELEASE_BEFORE);
	if (!firewall->is_escaped && byte == '\\') {
		firewall->is_escaped = true;
		return ACT_HOLD;
	}
	if (!firewall->is_escaped && byte == '"' && want == '\0')
		return firewall_discard(firewall);
	firewall->is_escaped = false;
	if (want == '\0' || to_lower(byte) != to_lower(want))
		return firewall_differ(firewall, byte);
	firewall->matched++;
	return ACT_HOLD;
}

/* Before the authserv-id (RFC 8601 2.2: blanks, folds and comments may stand there). */
static enum firewall_act firewall_gap(struct firewall *firewall, uint8_t byte)
{
	if (is_blank(byte))
		return ACT_HOLD;
	if (is_line_end(byte)) {
		firewall->after_cr = byte == '\r';
		firewall_enter(firewall, FIREWALL_GAP_END);
		return ACT_HOLD;
	}
	if (byte == '(') {
		firewall->depth = 1;
		firewall_enter(firewall, FIREWALL_COMMENT);
		return ACT_HOLD;
	}
	firewall->matched = 0;
	firewall_enter(firewall, byte == '"' ? FIREWALL_QUOTED : FIREWALL_TOKEN);
	return byte == '"' ? ACT_HOLD : firewall_token(firewall, byte);
}

static enum firewall_act firewall_comment(struct firewall *firewall, uint8_t byte)
{
	bool is_escaped = firewall->is_escaped;

	firewall->is_escaped = false;
	if (is_line_end(byte)) {
		firewall->after_cr = byte == '\r';
		firewall_enter(firewall, FIREWALL_COMMENT_END);
	} else if (is_escaped) {
		return ACT_HOLD;
	} else if (byte == '\\') {
		firewall->is_escaped = true;
	} else if (byte == '(') {
		firewall->depth++;
	} else if (byte == ')' && --firewall->depth == 0) {
		firewall_enter(firewall, FIREWALL_GAP);
	}
	return ACT_HOLD;
}

/* Behind the whole of a name. */
static enum firewall_act firewall_name_gap(struct firewall *firewall, uint8_t byte)
{
	bool is_noted = firewall_names[firewall->name].class == FIREWALL_NOTED;

	if (is_blank(byte))
		return ACT_HOLD;
	if (byte == ':' && !is_noted) {
		firewall_enter(firewall, FIREWALL_GAP);
		return ACT_HOLD;
	}
	firewall->has_auth_as |= byte == ':';
	return firewall_release(firewall, ACT_RELEASE_BEFORE);
}

/* Behind a CR at the start of a line. */
static enum firewall_act firewall_empty(struct firewall *firewall, uint8_t byte)
{
	if (byte == '\n')
		return ACT_END;
	firewall_enter(firewall, FIREWALL_START_PASS);
	return ACT_RELEASE_BEFORE;
}

/* In a line that is judged. */
static enum firewall_act firewall_line(struct firewall *firewall, uint8_t byte)
{
	bool is_dropped = firewall->state == FIREWALL_DROP;

	if (is_line_end(byte)) {
		firewall->after_cr = byte == '\r';
		firewall_enter(firewall, is_dropped ? FIREWALL_START_DROP : FIREWALL_START_PASS);
	}
	return is_dropped ? ACT_SKIP : ACT_KEEP;
}

static enum firewall_act firewall_byte(struct firewall *firewall, uint8_t byte)
{
	switch ((enum firewall_state)firewall->state) {
	case FIREWALL_START_PASS:
	case FIREWALL_START_DROP:
		return firewall_start(firewall, byte);
	case FIREWALL_PASS:
	case FIREWALL_DROP:
		return firewall_line(firewall, byte);
	case FIREWALL_NAME:
		return firewall_match_name(firewall, byte);
	case FIREWALL_PREFIX:
		if (byte == ':')
			return firewall_discard(firewall);
		return is_line_end(byte) ? firewall_release(firewall, ACT_RELEASE_BEFORE)
					 : ACT_HOLD;
	case FIREWALL_NAME_GAP:
		return firewall_name_gap(firewall, byte);
	case FIREWALL_GAP:
		return firewall_gap(firewall, byte);
	case FIREWALL_GAP_END:
		return firewall_fold(firewall, byte, FIREWALL_GAP);
	case FIREWALL_COMMENT:
		return firewall_comment(firewall, byte);
	case FIREWALL_COMMENT_END:
		return firewall_fold(firewall, byte, FIREWALL_COMMENT);
	case FIREWALL_TOKEN:
		return firewall_token(firewall, byte);
	case FIREWALL_QUOTED:
		return firewall_quoted(firewall, byte);
	case FIREWALL_OTHER:
		return firewall_differ(firewall, byte);
	case FIREWALL_EMPTY:
		return firewall_empty(firewall, byte);
	case FIREWALL_BODY:
		break;
	}
	UNREACHABLE();
}

/* What has become of a byte, with the marks that depend on it. */
static enum firewall_act firewall_judge(struct firewall *firewall, uint8_t byte, size_t held)
{
	enum firewall_act act = firewall_byte(firewall, byte);

	if (act == ACT_HOLD && held + 1 >= FIREWALL_HELD_MAX) {
		bool at_line_start = firewall->state == FIREWALL_GAP_END ||
				     firewall->state == FIREWALL_COMMENT_END;

		act = firewall_discard(firewall);
		if (at_line_start)
			firewall_enter(firewall, FIREWALL_START_DROP);
	}
	if (act == ACT_KEEP || act == ACT_HOLD || act == ACT_RELEASE)
		firewall_count_tail(firewall, byte);
	return act;
}

/* How much of text, in a line that passes, stands before the line's end: nothing of it is judged.
 */
static size_t firewall_pass(struct firewall *firewall, struct span text)
{
	struct span line;
	size_t count;

	if (firewall->state != FIREWALL_PASS)
		return 0;
	/* Not looked for farther than a line is long, or text without one of the two would be
	 * walked once for each of the other. */
	line = span_head(text, PASS_BYTES);
	line = span_head(line, span_find(line, '\n'));
	count = span_find(line, '\r');
	if (count > 0)
		firewall->tail = 0;
	return count;
}

/* Keeps a piece of the candidate for later. */
static void firewall_hold(struct firewall *firewall, const uint8_t *from, size_t bytes)
{
	ASSERT(firewall->held_len + bytes <= FIREWALL_HELD_MAX);
	if (bytes > 0)
		memcpy(firewall->held + firewall->held_len, from, bytes);
	firewall->held_len += (uint16_t)bytes;
}

/* The candidate, of which bytes lie at from, passes: all that was held. */
static struct span firewall_give_held(struct firewall *firewall, const uint8_t *from, size_t bytes)
{
	struct span held;

	firewall_hold(firewall, from, bytes);
	held = span_make(firewall->held, firewall->held_len);
	firewall->held_len = 0;
	return held;
}

/* The empty line is whole: it and all behind it, if nothing stands before it. */
static struct span firewall_finish(
	struct firewall *firewall, struct span all, size_t kept, size_t at, struct span *in)
{
	if (kept > 0) {
		/* First what does; then the line is looked at again. */
		*in = span_skip(all, kept);
		firewall->tail = firewall->tail_saved;
		firewall->after_cr = false;
		firewall_enter(firewall, FIREWALL_START_PASS);
		return span_head(all, kept);
	}
	firewall->is_done = true;
	firewall_enter(firewall, FIREWALL_BODY);
	if (firewall->held_len > 0) {
		*in = span_skip(all, at);
		return firewall_give_held(firewall, all.data, at);
	}
	*in = span_skip(all, all.len);
	return all;
}

/*
 * What passes is given out as one piece for as long as nothing is taken out of it. Of the
 * input, bytes before kept pass, and those from kept to at are the candidate's.
 */
struct span firewall_next(struct firewall *firewall, struct span *in)
{
	struct span all = *in;
	size_t kept = 0;
	size_t at = 0;

	if (firewall->is_done) {
		*in = span_skip(all, all.len);
		return all;
	}
	while (at < all.len) {
		size_t passed = firewall_pass(firewall, span_skip(all, at));
		enum firewall_act act;

		if (passed > 0) {
			at += passed;
			kept = at;
			continue;
		}
		act = firewall_judge(firewall, all.data[at], firewall->held_len + (at - kept));
		if (act != ACT_RELEASE_BEFORE)
			at++;
		switch (act) {
		case ACT_KEEP:
			kept = at;
			break;
		case ACT_HOLD:
			break;
		case ACT_END:
			return firewall_finish(firewall, all, kept, at, in);
		case ACT_RELEASE:
		case ACT_RELEASE_BEFORE:
			if (firewall->held_len > 0) {
				*in = span_skip(all, at);
				return firewall_give_held(firewall, all.data, at);
			}
			kept = at;
			break;
		case ACT_SKIP:
		case ACT_DISCARD:
			firewall->held_len = 0;
			*in = span_skip(all, at);
			if (kept > 0)
				return span_head(all, kept);
			all = *in;
			at = 0;
			break;
		}
	}
	firewall_hold(firewall, all.data + kept, all.len - kept);
	*in = span_skip(all, all.len);
	return span_head(all, kept);
}

struct span firewall_end(struct firewall *firewall)
{
	/* Our own authserv-id at the very end: no byte came behind it that would have told. */
	bool is_ours = firewall->state == FIREWALL_TOKEN &&
		       firewall->authserv_id[firewall->matched] == '\0';

	if (firewall->held_len > 0 && is_ours) {
		(void)firewall_discard(firewall);
		firewall->held_len = 0;
	}
	return firewall_give_held(firewall, NULL, 0);
}
