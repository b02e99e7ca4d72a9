/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/fields.h"

#include "relay/base/assert.h"

/* What came last. */
enum fields_state {
	FIELDS_LINE_START, /* the message began, or a CR LF ended */
	FIELDS_EMPTY_CR,   /* a CR at the start of a line: the empty line, if a LF comes next */
	FIELDS_NAME,       /* inside a name that may be one of ours */
	FIELDS_NAME_GAP,   /* blanks behind it (RFC 5322 4.5.4 allows them) */
	FIELDS_LINE,       /* nothing before the next CR LF matters */
	FIELDS_LINE_CR,    /* the same, and the last byte was a CR */
	FIELDS_VALUE,      /* of one of ours */
	FIELDS_VALUE_CR,   /* the same, and the last byte was a CR */
	FIELDS_VALUE_END,  /* a line of it has ended: does the next one continue it? */
};

enum fields_name { FIELDS_MESSAGE_ID, FIELDS_SUBJECT, FIELDS_NAME_COUNT };

static const char *const fields_names[FIELDS_NAME_COUNT] = {
	[FIELDS_MESSAGE_ID] = "message-id",
	[FIELDS_SUBJECT] = "subject",
};

static void fields_enter(struct fields *fields, enum fields_state state)
{
	fields->state = (uint8_t)state;
}

void fields_init(struct fields *fields)
{
	/* The values need not be cleared: their lengths say what is there. */
	memset(fields, 0, offsetof(struct fields, message_id));
}

static enum fields_state fields_match(struct fields *fields, uint8_t byte)
{
	const uint8_t lower = byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte;

	for (unsigned i = 0; i < FIELDS_NAME_COUNT; i++) {
		const char *name = fields_names[i];

		/* Bytes behind the end of a name are never looked at: it is out by then. */
		if (fields->matching & BIT(i) &&
			(name[fields->matched] == '\0' || lower != (uint8_t)name[fields->matched]))
			fields->matching &= (uint8_t)~BIT(i);
	}
	fields->matched++;
	return fields->matching != 0 ? FIELDS_NAME : FIELDS_LINE;
}

/* The name that is complete now, or none. */
static unsigned fields_whole_name(const struct fields *fields)
{
	unsigned name = 0;

	while (name < FIELDS_NAME_COUNT &&
		(!(fields->matching & BIT(name)) || fields_names[name][fields->matched] != '\0'))
		name++;
	return name;
}

static enum fields_state fields_scan_name(struct fields *fields, uint8_t byte)
{
	const unsigned name = fields_whole_name(fields);

	if (byte == '\r')
		return FIELDS_LINE_CR;
	if (name < FIELDS_NAME_COUNT && byte == ':') {
		fields->field = (uint8_t)name;
		return fields->has & BIT(name) ? FIELDS_LINE : FIELDS_VALUE;
	}
	if (name < FIELDS_NAME_COUNT && (byte == ' ' || byte == '\t'))
		return FIELDS_NAME_GAP;
	if (fields->state == FIELDS_NAME_GAP)
		return FIELDS_LINE;
	return fields_match(fields, byte);
}

static void fields_add(struct fields *fields, uint8_t byte)
{
	const bool is_id = fields->field == FIELDS_MESSAGE_ID;
	char *value = is_id ? fields->message_id : fields->subject;
	uint16_t *len = is_id ? &fields->message_id_len : &fields->subject_len;
	const uint16_t room = is_id ? FIELDS_MESSAGE_ID_BYTES : FIELDS_SUBJECT_BYTES;

	if (byte == '\t')
		byte = ' ';
	if (byte < ' ' || byte == 0x7f || (*len == 0 && byte == ' '))
		return;
	if (*len == room) {
		fields->is_long |= is_id && byte != ' ';
		fields->is_cut |= !is_id;
		return;
	}
	value[(*len)++] = (char)byte;
}

static enum fields_state fields_scan_value(struct fields *fields, uint8_t byte)
{
	if (byte == '\r')
		return FIELDS_VALUE_CR;
	fields_add(fields, byte);
	return FIELDS_VALUE;
}

static enum fields_state fields_scan_start(struct fields *fields, uint8_t byte)
{
	if (byte == '\r')
		return FIELDS_EMPTY_CR;
	fields->matching = BIT(FIELDS_MESSAGE_ID) | BIT(FIELDS_SUBJECT);
	fields->matched = 0;
	fields_enter(fields, FIELDS_NAME);
	return fields_scan_name(fields, byte);
}

static enum fields_state fields_scan_byte(struct fields *fields, uint8_t byte)
{
	switch ((enum fields_state)fields->state) {
	case FIELDS_LINE_START:
		return fields_scan_start(fields, byte);
	case FIELDS_EMPTY_CR:
		fields->is_done = byte == '\n';
		return byte == '\r' ? FIELDS_LINE_CR : FIELDS_LINE;
	case FIELDS_NAME:
	case FIELDS_NAME_GAP:
		return fields_scan_name(fields, byte);
	case FIELDS_LINE:
		return byte == '\r' ? FIELDS_LINE_CR : FIELDS_LINE;
	case FIELDS_LINE_CR:
		if (byte == '\n')
			return FIELDS_LINE_START;
		return byte == '\r' ? FIELDS_LINE_CR : FIELDS_LINE;
	case FIELDS_VALUE:
		return fields_scan_value(fields, byte);
	case FIELDS_VALUE_CR:
		return byte == '\n' ? FIELDS_VALUE_END : fields_scan_value(fields, byte);
	case FIELDS_VALUE_END:
		if (byte == ' ' || byte == '\t')
			return fields_scan_value(fields, byte);
		fields->has |= (uint8_t)BIT(fields->field);
		return fields_scan_start(fields, byte);
	}
	UNREACHABLE();
}

void fields_scan(struct fields *fields, struct span text)
{
	size_t at = 0;

	while (at < text.len && !fields->is_done) {
		/* Other fields are most of a header, so they are walked by memchr. */
		if (fields->state == FIELDS_LINE)
			at += span_find(span_skip(text, at), '\r');
		if (at < text.len)
			fields_enter(fields, fields_scan_byte(fields, text.data[at++]));
	}
	fields->is_utf8 |= span_has_high(span_head(text, at));
	fields->bytes += at;
}

struct span fields_message_id(const struct fields *fields)
{
	return fields->is_long ? span_make(NULL, 0)
			       : span_trim(span_make(fields->message_id, fields->message_id_len));
}

struct span fields_subject(const struct fields *fields)
{
	struct span subject = span_make(fields->subject, fields->subject_len);

	/* Half a character at the end is none: 10xxxxxx go on what 11xxxxxx has begun. */
	if (fields->is_cut) {
		while (subject.len > 0 && (subject.data[subject.len - 1] & 0xc0) == 0x80)
			subject.len--;
		if (subject.len > 0 && subject.data[subject.len - 1] >= 0xc0)
			subject.len--;
	}
	return span_trim(subject);
}
