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
	HEADER_TRACE,      /* inside a Received field */
	HEADER_TRACE_CR,   /* the same, and the last byte was a CR */
	HEADER_TRACE_END,  /* a line of it has ended: does the next one continue it? */
};

static const char header_received[] = "received";

static void header_enter(struct header_scan *scan, enum header_state state)
{
	scan->state = (uint8_t)state;
}

void header_scan_init(struct header_scan *scan, const char *fqdn)
{
	*scan = (struct header_scan){.state = HEADER_LINE_START, .fqdn = fqdn};
}

/* A word of a Received field is complete, or there was none. */
static void header_end_word(struct header_scan *scan)
{
	if (scan->word_len == 0)
		return;
	if (scan->is_fqdn && scan->fqdn[scan->word_len] == '\0' && scan->follows_by &&
		!scan->is_counted) {
		scan->local_count++;
		scan->is_counted = true;
	}
	scan->follows_by = scan->is_by && scan->word_len == 2;
	scan->word_len = 0;
}

static void header_add_to_word(struct header_scan *scan, uint8_t byte)
{
	const struct span one = span_make(&byte, 1);
	const char *by = "by";

	if (scan->word_len == 0)
		scan->is_by = scan->is_fqdn = true;
	scan->is_by = scan->is_by && scan->word_len < 2 &&
		      span_equal_nocase(one, span_make(by + scan->word_len, 1));
	scan->is_fqdn = scan->is_fqdn && scan->fqdn != NULL && scan->fqdn[scan->word_len] != '\0' &&
			span_equal_nocase(one, span_make(scan->fqdn + scan->word_len, 1));
	if (scan->word_len < UINT16_MAX)
		scan->word_len++;
}

static enum header_state header_begin_trace(struct header_scan *scan)
{
	scan->received_count++;
	scan->is_quoted = scan->is_escaped = scan->is_counted = scan->follows_by = false;
	scan->depth = 0;
	scan->word_len = 0;
	return HEADER_TRACE;
}

/* One byte of a Received field: words are what stands outside of comments and quotes. */
static enum header_state header_scan_trace(struct header_scan *scan, uint8_t byte)
{
	bool is_escaped = scan->is_escaped;

	scan->is_escaped = false;
	if (byte == '\r') {
		header_end_word(scan);
		return HEADER_TRACE_CR;
	}
	if (is_escaped)
		return HEADER_TRACE;
	if (byte == '\\' && (scan->is_quoted || scan->depth > 0)) {
		scan->is_escaped = true;
	} else if (scan->is_quoted) {
		scan->is_quoted = byte != '"';
	} else if (byte == '(') {
		header_end_word(scan);
		scan->depth++;
	} else if (scan->depth > 0) {
		scan->depth -= byte == ')' ? 1 : 0;
	} else if (byte == '"') {
		header_end_word(scan);
		scan->follows_by = false;
		scan->is_quoted = true;
	} else if (byte == ' ' || byte == '\t' || byte == ';') {
		header_end_word(scan);
	} else {
		header_add_to_word(scan, byte);
	}
	return HEADER_TRACE;
}

/* One byte of a field name, or of the blanks behind it. */
static enum header_state header_scan_name(struct header_scan *scan, uint8_t byte)
{
	bool is_whole = scan->matched == sizeof(header_received) - 1;

	if (byte == '\r')
		return HEADER_LINE_CR;
	if (is_whole && byte == ':')
		return header_begin_trace(scan);
	if (is_whole && (byte == ' ' || byte == '\t'))
		return HEADER_NAME_GAP;
	if (scan->state == HEADER_NAME && !is_whole &&
		(byte | 0x20) == header_received[scan->matched]) {
		scan->matched++;
		return HEADER_NAME;
	}
	return HEADER_LINE;
}

/* A blank here makes a continuation line, which matches no name either. */
static enum header_state header_scan_start(struct header_scan *scan, uint8_t byte)
{
	if (byte == '\r')
		return HEADER_EMPTY_CR;
	scan->matched = 0;
	header_enter(scan, HEADER_NAME);
	return header_scan_name(scan, byte);
}

static enum header_state header_scan_byte(struct header_scan *scan, uint8_t byte)
{
	switch ((enum header_state)scan->state) {
	case HEADER_LINE_START:
		return header_scan_start(scan, byte);
	case HEADER_TRACE:
		return header_scan_trace(scan, byte);
	case HEADER_TRACE_CR:
		return byte == '\n' ? HEADER_TRACE_END : header_scan_trace(scan, byte);
	case HEADER_TRACE_END:
		if (byte == ' ' || byte == '\t')
			return header_scan_trace(scan, byte);
		return header_scan_start(scan, byte);
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
	scan->has_nul |= span_find(span_head(text, at), '\0') < at;
	scan->bytes += at;
}
