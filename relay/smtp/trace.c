/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/trace.h"

#include "relay/base/limits.h"
#include "relay/smtp/chars.h"

/* Longest pieces; what is longer is cut. A domain is no longer than 255 bytes (RFC 5321 4.5.3.1.2).
 */
#define TRACE_NAME_BYTES_MAX 255
#define TRACE_WORD_BYTES_MAX 64
#define TRACE_SUBJECT_BYTES_MAX 256
#define TRACE_RCPT_BYTES_MAX (ADDRESS_BYTES_MAX + 2)

/* All that is not a value: the words below, brackets, folds and the date. */
#define TRACE_FIXED_BYTES_MAX 256

_Static_assert(3 * TRACE_NAME_BYTES_MAX + 5 * TRACE_WORD_BYTES_MAX + TRACE_SUBJECT_BYTES_MAX +
			       TRACE_RCPT_BYTES_MAX + TRACE_FIXED_BYTES_MAX <=
		       TRACE_BYTES_MAX,
	"the longest Received field must fit");

struct trace_text {
	uint8_t *out;
	size_t len;
};

static void trace_put_byte(struct trace_text *text, uint8_t byte)
{
	ASSERT(text->len < TRACE_BYTES_MAX);
	text->out[text->len++] = byte;
}

/* Words of our own. */
static void trace_put(struct trace_text *text, const char *words)
{
	const size_t len = strlen(words);

	ASSERT(len <= TRACE_BYTES_MAX - text->len);
	memcpy(text->out + text->len, words, len);
	text->len += len;
}

static bool trace_is_word(uint8_t byte)
{
	switch (byte) {
	case '-':
	case '.':
	case '_':
	case ':':
	case '[':
	case ']':
	case '/':
	case '+':
	case '=':
		return true;
	default:
		return char_is_let_dig(byte);
	}
}

/*
 * A value that stands as a word. Bytes that no host name, address or identifier
 * has become "?", so that nobody can write a clause, a comment or a line of
 * their own into our field.
 */
static void trace_put_word(struct trace_text *text, struct span word, size_t bytes_max)
{
	word = span_head(word, bytes_max);
	for (size_t i = 0; i < word.len; i++) {
		trace_put_byte(text, trace_is_word(word.data[i]) ? word.data[i] : '?');
	}
}

/* A certificate's subject, inside quotes inside a comment. */
static void trace_put_subject(struct trace_text *text, struct span subject)
{
	struct span kept = span_head(subject, TRACE_SUBJECT_BYTES_MAX);

	for (size_t i = 0; i < kept.len; i++) {
		uint8_t byte = kept.data[i];
		bool is_kept =
			(byte == ' ' || char_is_graphic(byte)) && strchr("()\\\"", byte) == NULL;

		trace_put_byte(text, is_kept ? byte : '?');
	}
	if (kept.len < subject.len)
		trace_put(text, "...");
}

static void trace_put_number(struct trace_text *text, unsigned number, unsigned digits_min)
{
	char digits[16];
	unsigned count = 0;

	for (; number > 0 || count < digits_min; number /= 10)
		digits[count++] = (char)('0' + number % 10);
	while (count > 0)
		trace_put_byte(text, (uint8_t)digits[--count]);
}

/* RFC 5322 3.3, in UTC; not by strftime, which speaks the language of the locale. */
static void trace_put_date(struct trace_text *text, time_t now)
{
	static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[][4] = {
		"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	struct tm tm;

	ASSERT(gmtime_r(&now, &tm) != NULL);
	trace_put(text, days[tm.tm_wday]);
	trace_put(text, ", ");
	trace_put_number(text, (unsigned)tm.tm_mday, 1);
	trace_put(text, " ");
	trace_put(text, months[tm.tm_mon]);
	trace_put(text, " ");
	trace_put_number(text, (unsigned)tm.tm_year + 1900, 4);
	trace_put(text, " ");
	trace_put_number(text, (unsigned)tm.tm_hour, 2);
	trace_put(text, ":");
	trace_put_number(text, (unsigned)tm.tm_min, 2);
	trace_put(text, ":");
	trace_put_number(text, (unsigned)tm.tm_sec, 2);
	trace_put(text, " +0000\r\n");
}

static void trace_put_from(struct trace_text *text, const struct trace *trace)
{
	struct span address = span_of(trace->peer_address);

	trace_put(text, "Received: from ");
	if (trace->helo.len == 0)
		trace_put(text, "unknown");
	trace_put_word(text, trace->helo, TRACE_NAME_BYTES_MAX);
	trace_put(text, span_find(address, ':') < address.len ? " ([IPv6:" : " ([");
	trace_put_word(text, address, TRACE_WORD_BYTES_MAX);
	trace_put(text, "])\r\n");
}

static void trace_put_tls(struct trace_text *text, const struct trace *trace)
{
	trace_put(text, "\t(using ");
	trace_put_word(text, span_of(trace->tls_version), TRACE_WORD_BYTES_MAX);
	trace_put(text, " with cipher ");
	if (trace->tls_cipher == NULL)
		trace_put(text, "unknown");
	else
		trace_put_word(text, span_of(trace->tls_cipher), TRACE_WORD_BYTES_MAX);
	trace_put(text, " (");
	trace_put_number(text, trace->tls_bits, 1);
	if (trace->client_subject == NULL) {
		trace_put(text, " bits)\r\n\t no client certificate)\r\n");
		return;
	}
	trace_put(text, " bits)\r\n\t client certificate \"");
	trace_put_subject(text, span_of(trace->client_subject));
	trace_put(text, trace->client_is_verified ? "\" verified" : "\" not verified");
	if (trace->client_is_verified && trace->client_domain != NULL) {
		trace_put(text, " for ");
		trace_put_word(text, span_of(trace->client_domain), TRACE_NAME_BYTES_MAX);
	}
	trace_put(text, ")\r\n");
}

/* The keyword behind "with" (RFC 3848, RFC 6531 4.3). HELO has none for TLS: the comment says it.
 */
static const char *trace_protocol(const struct trace *trace)
{
	bool is_tls = trace->tls_version != NULL;

	if (trace->is_utf8)
		return is_tls ? "UTF8SMTPS" : "UTF8SMTP";
	if (!trace->is_extended)
		return "SMTP";
	return is_tls ? "ESMTPS" : "ESMTP";
}

/*
 * The path was parsed by command.c, so its quotes are balanced. One that is too
 * long, or that does not fit an ASCII header, is left out: half an address would be
 * another one.
 */
static bool trace_has_rcpt(const struct trace *trace)
{
	if (trace->recipient.len == 0 || trace->recipient.len > TRACE_RCPT_BYTES_MAX)
		return false;
	for (size_t i = 0; i < trace->recipient.len; i++) {
		uint8_t byte = trace->recipient.data[i];

		if (byte < ' ' || byte == 127 || (byte > 127 && !trace->is_utf8))
			return false;
	}
	return true;
}

size_t trace_received(const struct trace *trace, uint8_t out[TRACE_BYTES_MAX])
{
	struct trace_text text = {.out = out};

	trace_put_from(&text, trace);
	if (trace->tls_version != NULL)
		trace_put_tls(&text, trace);
	trace_put(&text, "\tby ");
	trace_put_word(&text, span_of(trace->fqdn), TRACE_NAME_BYTES_MAX);
	trace_put(&text, " (Postern, connector ");
	trace_put_word(&text, span_of(trace->connector), TRACE_WORD_BYTES_MAX);
	trace_put(&text, ") with ");
	trace_put(&text, trace_protocol(trace));
	trace_put(&text, " id ");
	trace_put_word(&text, span_of(trace->session_id), TRACE_WORD_BYTES_MAX);
	if (trace_has_rcpt(trace)) {
		trace_put(&text, "\r\n\tfor ");
		for (size_t i = 0; i < trace->recipient.len; i++)
			trace_put_byte(&text, trace->recipient.data[i]);
		trace_put(&text, "; ");
	} else {
		trace_put(&text, ";\r\n\t");
	}
	trace_put_date(&text, trace->now);
	return text.len;
}
