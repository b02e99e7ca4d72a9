/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/envelope.h"

#include "relay/mail/record_private.h"

#define VERSION 1

/* Where the fixed fields of an envelope are, and how long they are together. */
#define AT_FLAGS 2
#define AT_ATTEMPTS 40
#define HEAD_BYTES 42

#define LENGTH_BYTES 2
#define TEXT_BYTES_MAX UINT16_MAX
#define CODE_MAX 999

#define FLAGS_MAX (ENVELOPE_RELAXED * 2 - 1)

/* The texts of an envelope in the order on disk. */
static const size_t envelope_texts[] = {
	offsetof(struct envelope, sender),
	offsetof(struct envelope, ret),
	offsetof(struct envelope, envid),
	offsetof(struct envelope, connector),
	offsetof(struct envelope, send_connector),
	offsetof(struct envelope, session),
	offsetof(struct envelope, client),
	offsetof(struct envelope, helo),
	offsetof(struct envelope, domain),
	offsetof(struct envelope, message_id),
	offsetof(struct envelope, subject),
	offsetof(struct envelope, server),
	offsetof(struct envelope, tls),
	offsetof(struct envelope, origin),
};

static struct span *envelope_text(struct envelope *envelope, size_t index)
{
	return (struct span *)(void *)((char *)envelope + envelope_texts[index]);
}

static bool text_is_clean(struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] == '\r' || text.data[i] == '\n' || text.data[i] == '\0')
			return false;
	}
	return true;
}

static bool text_is_path(struct span text)
{
	return text.len >= 2 && text.data[0] == '<' && text.data[text.len - 1] == '>';
}

/* Where a writer is. Once something does not fit it is over, and len is 0 at the end. */
struct writer {
	uint8_t *out;
	size_t bytes_max;
	size_t len;
	bool is_bad;
};

static uint8_t *writer_room(struct writer *writer, size_t bytes)
{
	uint8_t *at = writer->out + writer->len;

	if (writer->is_bad || bytes > writer->bytes_max - writer->len) {
		writer->is_bad = true;
		return NULL;
	}
	writer->len += bytes;
	return at;
}

static void writer_number(struct writer *writer, uint64_t value, size_t bytes)
{
	uint8_t *at = writer_room(writer, bytes);

	if (at != NULL)
		put_le(at, value, bytes);
}

static uint8_t *writer_bytes(struct writer *writer, struct span text)
{
	uint8_t *at = NULL;

	if (text.len > TEXT_BYTES_MAX)
		writer->is_bad = true;
	writer_number(writer, text.len, LENGTH_BYTES);
	at = writer_room(writer, text.len);
	if (at != NULL && text.len > 0)
		memcpy(at, text.data, text.len);
	return at;
}

/* Text that has to be as it is. */
static void writer_exact(struct writer *writer, struct span text)
{
	if (!text_is_clean(text))
		writer->is_bad = true;
	(void)writer_bytes(writer, text);
}

/* Text for people: what it may not contain becomes blank. */
static void writer_clean(struct writer *writer, struct span text)
{
	uint8_t *at = writer_bytes(writer, text);

	for (size_t i = 0; at != NULL && i < text.len; i++) {
		if (at[i] == '\r' || at[i] == '\n' || at[i] == '\0')
			at[i] = ' ';
	}
}

static size_t writer_end(const struct writer *writer)
{
	return writer->is_bad ? 0 : writer->len;
}

size_t envelope_write(const struct envelope *envelope, uint8_t *out, size_t out_bytes)
{
	struct writer writer = {.out = out, .bytes_max = out_bytes};
	struct envelope copy = *envelope;

	ASSERT(envelope->body <= BODY_BINARYMIME);
	ASSERT(envelope->flags <= FLAGS_MAX);
	writer.is_bad = !text_is_path(envelope->sender);
	writer_number(&writer, VERSION, 1);
	writer_number(&writer, envelope->body, 1);
	writer_number(&writer, envelope->flags, 2);
	writer_number(&writer, envelope->rcpt_count, 4);
	writer_number(&writer, (uint64_t)envelope->arrived_ms, 8);
	writer_number(&writer, (uint64_t)envelope->expires_ms, 8);
	writer_number(&writer, envelope->body_bytes, 8);
	writer_number(&writer, envelope->header_bytes, 8);
	writer_number(
		&writer, envelope->attempts < UINT16_MAX ? envelope->attempts : UINT16_MAX, 2);
	for (size_t i = 0; i < COUNT_OF(envelope_texts); i++) {
		struct span *text = envelope_text(&copy, i);

		if (text == &copy.message_id || text == &copy.subject)
			writer_clean(&writer, *text);
		else
			writer_exact(&writer, *text);
	}
	return writer_end(&writer);
}

size_t envelope_write_rcpt(const struct envelope_rcpt *rcpt, uint8_t *out, size_t out_bytes)
{
	struct writer writer = {.out = out, .bytes_max = out_bytes};

	ASSERT(rcpt->state < RCPT_STATE_COUNT);
	writer.is_bad = !text_is_path(rcpt->path);
	writer_number(&writer, rcpt->state, 1);
	writer_exact(&writer, rcpt->path);
	writer_exact(&writer, rcpt->notify);
	writer_exact(&writer, rcpt->orcpt);
	return writer_end(&writer);
}

static struct span cursor_text(struct record_cursor *cursor)
{
	const size_t len = cursor_number(cursor, LENGTH_BYTES);
	const struct span text = cursor_span(cursor, len);

	if (!text_is_clean(text))
		cursor->is_bad = true;
	return text;
}

static enum rcpt_state cursor_state(struct record_cursor *cursor)
{
	const uint64_t state = cursor_number(cursor, 1);

	if (state < RCPT_STATE_COUNT)
		return (enum rcpt_state)state;
	cursor->is_bad = true;
	return RCPT_OPEN;
}

static struct envelope_rcpt cursor_rcpt(struct record_cursor *cursor)
{
	struct envelope_rcpt rcpt;

	rcpt.state = cursor_state(cursor);
	rcpt.path = cursor_text(cursor);
	rcpt.notify = cursor_text(cursor);
	rcpt.orcpt = cursor_text(cursor);
	if (!text_is_path(rcpt.path))
		cursor->is_bad = true;
	return rcpt;
}

/* The next of a row of recipients, which ends with its bytes. */
bool envelope_next(const struct envelope *envelope, size_t *at, struct envelope_rcpt *out)
{
	struct record_cursor cursor = {.rest = span_skip(envelope->recipients, *at)};
	const struct envelope_rcpt rcpt = cursor_rcpt(&cursor);

	if (cursor.is_bad)
		return false;
	*at = envelope->recipients.len - cursor.rest.len;
	*out = rcpt;
	return true;
}

/* Are there as many as the envelope says, and nothing else? */
static bool envelope_check_rcpts(const struct envelope *envelope)
{
	struct envelope_rcpt rcpt;
	size_t at = 0;

	for (uint32_t i = 0; i < envelope->rcpt_count; i++) {
		if (!envelope_next(envelope, &at, &rcpt))
			return false;
	}
	return at == envelope->recipients.len;
}

bool envelope_read(struct span in, struct envelope *out)
{
	struct record_cursor cursor = {.rest = in};
	struct envelope envelope = {0};
	const uint64_t version = cursor_number(&cursor, 1);
	const uint64_t body = cursor_number(&cursor, 1);

	envelope.flags = (unsigned)cursor_number(&cursor, 2);
	envelope.rcpt_count = (uint32_t)cursor_number(&cursor, 4);
	envelope.arrived_ms = (int64_t)cursor_number(&cursor, 8);
	envelope.expires_ms = (int64_t)cursor_number(&cursor, 8);
	envelope.body_bytes = cursor_number(&cursor, 8);
	envelope.header_bytes = cursor_number(&cursor, 8);
	envelope.attempts = (unsigned)cursor_number(&cursor, 2);
	if (version != VERSION || body > BODY_BINARYMIME || envelope.flags > FLAGS_MAX)
		return false;
	envelope.body = (enum body_type)body;
	for (size_t i = 0; i < COUNT_OF(envelope_texts); i++)
		*envelope_text(&envelope, i) = cursor_text(&cursor);
	envelope.recipients = cursor.rest;
	if (cursor.is_bad || in.len > ENVELOPE_BYTES_MAX || !text_is_path(envelope.sender) ||
		!envelope_check_rcpts(&envelope))
		return false;
	*out = envelope;
	return true;
}

void envelope_patch_rcpt(uint8_t *bytes, size_t len, uint32_t index, enum rcpt_state state)
{
	struct record_cursor cursor = {.rest = span_make(bytes, len)};

	ASSERT(state < RCPT_STATE_COUNT);
	(void)cursor_span(&cursor, HEAD_BYTES);
	for (size_t i = 0; i < COUNT_OF(envelope_texts); i++)
		(void)cursor_span(&cursor, cursor_number(&cursor, LENGTH_BYTES));
	for (uint32_t i = 0; i < index; i++)
		(void)cursor_rcpt(&cursor);
	ASSERT(!cursor.is_bad && cursor.rest.len > 0);
	bytes[len - cursor.rest.len] = (uint8_t)state;
}

void envelope_patch(uint8_t *bytes, size_t len, unsigned flags, unsigned attempts)
{
	ASSERT(len >= HEAD_BYTES && flags <= FLAGS_MAX);
	put_le(bytes + AT_FLAGS, flags, 2);
	put_le(bytes + AT_ATTEMPTS, attempts < UINT16_MAX ? attempts : UINT16_MAX, 2);
}

/* At most ENVELOPE_CHANGE_TEXT_BYTES_MAX of it, and no half of a UTF-8 character at the end. */
static struct span change_cut(struct span text)
{
	size_t len = ENVELOPE_CHANGE_TEXT_BYTES_MAX;

	if (text.len <= len)
		return text;
	for (unsigned i = 0; i < 3 && (text.data[len] & 0xc0) == 0x80; i++)
		len--;
	return span_head(text, len);
}

size_t envelope_write_change(const struct envelope_change *change, uint8_t *out, size_t out_bytes)
{
	struct writer writer = {.out = out, .bytes_max = out_bytes};

	ASSERT(change->flags <= FLAGS_MAX);
	writer_number(&writer, VERSION, 1);
	writer_number(&writer, 0, 1);
	writer_number(&writer, change->flags, 2);
	writer_number(&writer, change->attempts < UINT16_MAX ? change->attempts : UINT16_MAX, 2);
	writer_number(&writer, 0, 2);
	writer_number(&writer, change->count, 4);
	writer_number(&writer, (uint64_t)change->next_ms, 8);
	writer_clean(&writer, change_cut(change->where));
	writer_clean(&writer, change_cut(change->text));
	return writer_end(&writer);
}

size_t envelope_write_change_rcpt(
	const struct envelope_change_rcpt *rcpt, uint8_t *out, size_t out_bytes)
{
	struct writer writer = {.out = out, .bytes_max = out_bytes};

	ASSERT(rcpt->state < RCPT_STATE_COUNT && rcpt->code <= CODE_MAX);
	writer_number(&writer, rcpt->index, 4);
	writer_number(&writer, rcpt->state, 1);
	writer_number(&writer, 0, 1);
	writer_number(&writer, rcpt->code, 2);
	writer_clean(&writer, change_cut(rcpt->text));
	return writer_end(&writer);
}

bool envelope_change_next(
	const struct envelope_change *change, size_t *at, struct envelope_change_rcpt *out)
{
	struct record_cursor cursor = {.rest = span_skip(change->rcpts, *at)};
	struct envelope_change_rcpt rcpt = {.index = (uint32_t)cursor_number(&cursor, 4)};
	bool is_zero;

	rcpt.state = cursor_state(&cursor);
	is_zero = cursor_number(&cursor, 1) == 0;
	rcpt.code = (unsigned)cursor_number(&cursor, 2);
	rcpt.text = cursor_text(&cursor);
	if (cursor.is_bad || !is_zero || rcpt.code > CODE_MAX)
		return false;
	*at = change->rcpts.len - cursor.rest.len;
	*out = rcpt;
	return true;
}

static bool change_check_rcpts(const struct envelope_change *change)
{
	struct envelope_change_rcpt rcpt;
	size_t at = 0;

	for (uint32_t i = 0; i < change->count; i++) {
		if (!envelope_change_next(change, &at, &rcpt))
			return false;
	}
	return at == change->rcpts.len;
}

bool envelope_read_change(struct span in, struct envelope_change *out)
{
	struct record_cursor cursor = {.rest = in};
	struct envelope_change change = {0};
	const uint64_t version = cursor_number(&cursor, 1);
	bool is_zero = cursor_number(&cursor, 1) == 0;

	change.flags = (unsigned)cursor_number(&cursor, 2);
	change.attempts = (unsigned)cursor_number(&cursor, 2);
	is_zero = cursor_number(&cursor, 2) == 0 && is_zero;
	change.count = (uint32_t)cursor_number(&cursor, 4);
	change.next_ms = (int64_t)cursor_number(&cursor, 8);
	change.where = cursor_text(&cursor);
	change.text = cursor_text(&cursor);
	change.rcpts = cursor.rest;
	if (cursor.is_bad || version != VERSION || !is_zero || change.flags > FLAGS_MAX ||
		!change_check_rcpts(&change))
		return false;
	*out = change;
	return true;
}

const char *rcpt_state_word(enum rcpt_state state)
{
	static const char *const words[RCPT_STATE_COUNT] = {
		[RCPT_OPEN] = "open",
		[RCPT_DELIVERED] = "delivered",
		[RCPT_RELAYED] = "relayed",
		[RCPT_FAILED] = "failed",
		[RCPT_EXPIRED] = "expired",
		[RCPT_REMOVED] = "removed",
	};

	return state < RCPT_STATE_COUNT ? words[state] : "?";
}

void message_id_print(uint64_t id, char out[MESSAGE_ID_TEXT_BYTES])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < MESSAGE_ID_TEXT_BYTES - 1; i++)
		out[i] = digits[id >> (60 - 4 * i) & 15];
	out[MESSAGE_ID_TEXT_BYTES - 1] = '\0';
}

bool message_id_parse(struct span text, uint64_t *out)
{
	uint64_t id = 0;

	if (text.len != MESSAGE_ID_TEXT_BYTES - 1)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		const uint8_t c = text.data[i];
		const uint8_t letter = c | 0x20;

		if (c >= '0' && c <= '9')
			id = id << 4 | (uint64_t)(c - '0');
		else if (letter >= 'a' && letter <= 'f')
			id = id << 4 | (uint64_t)(letter - 'a' + 10);
		else
			return false;
	}
	*out = id;
	return true;
}
