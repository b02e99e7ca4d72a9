/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/delivery_private.h"

#include <stdarg.h>

/*
 * delivery_result.c: what recipients are told, and that each is told once.
 */

/* "250-" or "250 ". */
#define REPLY_PREFIX_BYTES 4

/* Adds words to text behind a space; what is too long is cut, but not within a character. */
static size_t delivery_add_words(char text[DELIVERY_TEXT_BYTES], size_t len, struct span words)
{
	size_t room = DELIVERY_TEXT_BYTES - 1 - len;
	size_t take = words.len;

	if (words.len == 0 || room < 2)
		return len;
	if (len > 0) {
		text[len++] = ' ';
		room--;
	}
	if (take > room) {
		take = room;
		while (take > 0 && (words.data[take] & 0xc0) == 0x80)
			take--;
	}
	memcpy(text + len, words.data, take);
	return len + take;
}

/* The lines of a reply, joined; the code stands in front, once. */
static void delivery_join(struct span wire, char text[DELIVERY_TEXT_BYTES])
{
	size_t len = delivery_add_words(text, 0, span_head(wire, REPLY_PREFIX_BYTES - 1));

	while (wire.len > 0) {
		size_t line = span_find(wire, '\r');

		len = delivery_add_words(
			text, len, span_trim(span_skip(span_head(wire, line), REPLY_PREFIX_BYTES)));
		wire = span_skip(wire, line + 2);
	}
	text[len] = '\0';
}

struct delivery_result delivery_result_of(const struct reply *reply)
{
	struct delivery_result result = {.code = reply->code,
		.verdict = reply->code < 300   ? DELIVERY_SENT
			   : reply->code < 500 ? DELIVERY_LATER
					       : DELIVERY_FAILED};

	delivery_join(reply->wire, result.text);
	return result;
}

struct delivery_result delivery_result_local(enum delivery_verdict verdict, const char *format, ...)
{
	struct delivery_result result = {.verdict = verdict, .is_local = true};
	va_list args;

	va_start(args, format);
	(void)vsnprintf(result.text, sizeof(result.text), format, args);
	va_end(args);
	result.code = (unsigned)strtoul(result.text, NULL, 10);
	return result;
}

void delivery_settle(struct delivery *delivery, uint32_t at, struct delivery_result *result)
{
	ASSERT(at < DELIVERY_RCPTS_MAX && !delivery->is_settled[at]);
	delivery->is_settled[at] = true;
	delivery->verdicts[result->verdict]++;
	result->index = delivery->indexes[at];
	delivery->events->on_result(delivery, result);
}

void delivery_settle_rest(struct delivery *delivery, struct delivery_result result)
{
	for (uint32_t at = 0; at < delivery->count; at++) {
		if (!delivery->is_settled[at])
			delivery_settle(delivery, at, &result);
	}
}
