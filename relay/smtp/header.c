/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/header.h"

#include "relay/base/assert.h"

/* What came last. */
enum header_state {
	HEADER_LINE_START, /* the message began or a CR LF ended */
	HEADER_EMPTY_CR,   /* a CR at the start of a line: the empty line, if a LF comes next */
	HEADER_NAME,       /* inside a field name that is "Received" so far */
	HEADER_NAME_GAP,   /* blanks behind "Received" (RFC 5322 4.5.8 allows them) */
	HEADER_LINE,       /* nothing before the next CR LF matters */
	HEADER_LINE_CR,    /* the same, and the last byte was a CR */
};

static const char header_received[] = "received";

static void header_enter(struct header_scan *scan, enum header_state state)
{
	scan->state = (uint8_t)state;
}

void header_scan_init(struct header_scan *scan)
{
	*scan = (struct header_scan){.state = HEADER_LINE_START};
}

/* One byte of a field name, or of the blanks behind it. */
static enum header_state header_scan_name(struct header_scan *scan, uint8_t byte)
{
	bool is_whole = scan->matched == sizeof(header_received) - 1;

	if (byte == '\r')
		return HEADER_LINE_CR;
	if (is_whole && byte == ':') {
		scan->received_count++;
		return HEADER_LINE;
	}
	if (is_whole && (byte == ' ' || byte == '\t'))
		return HEADER_NAME_GAP;
	if (scan->state == HEADER_NAME && !is_whole &&
		(byte | 0x20) == header_received[scan->matched]) {
		scan->matched++;
		return HEADER_NAME;
	}
	return HEADER_LINE;
}

static enum header_state header_scan_byte(struct header_scan *scan, uint8_t byte)
{
	switch ((enum header_state)scan->state) {
	case HEADER_LINE_START:
		/* A blank here makes a continuation line, which matches no name either. */
		if (byte == '\r')
			return HEADER_EMPTY_CR;
		scan->matched = 0;
		header_enter(scan, HEADER_NAME);
		return header_scan_name(scan, byte);
	case HEADER_NAME:
	case HEADER_NAME_GAP:
		return header_scan_name(scan, byte);
	case HEADER_EMPTY_CR:
		if (byte == '\n')
			scan->is_done = true;
		return byte == '\r' ? HEADER_LINE_CR : HEADER_LINE;
	case HEADER_LINE_CR:
		if (byte == '\n')
			return HEADER_LINE_START;
		return byte == '\r' ? HEADER_LINE_CR : HEADER_LINE;
	case HEADER_LINE:
		return byte == '\r' ? HEADER_LINE_CR : HEADER_LINE;
	}
	UNREACHABLE();
}

void header_scan(struct header_scan *scan, struct span text)
{
	size_t at = 0;

	while (at < text.len && !scan->is_done) {
		/* Field bodies are most of a header section, so they are walked by memchr. */
		if (scan->state == HEADER_LINE)
			at += span_find(span_skip(text, at), '\r');
		if (at < text.len)
			header_enter(scan, header_scan_byte(scan, text.data[at++]));
	}
	scan->bytes += at;
}
