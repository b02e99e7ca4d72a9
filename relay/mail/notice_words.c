/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/notice_private.h"

#include "relay/base/utf8.h"
#include <stdarg.h>
#include <time.h>

/*
 * notice_words.c: who wants a notice, status codes, and putting text on a page.
 */

/* ---- the page */

void notice_put(struct notice_page *page, struct span text)
{
	if (page->is_full || text.len > page->max - page->len) {
		page->is_full = true;
		return;
	}
	if (text.len > 0)
		memcpy(page->out + page->len, text.data, text.len);
	page->len += text.len;
}

void notice_printf(struct notice_page *page, const char *format, ...)
{
	char text[512];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (len < 0 || (size_t)len >= sizeof(text))
		page->is_full = true;
	else
		notice_put(page, span_make(text, (size_t)len));
}

void notice_put_clean(struct notice_page *page, struct span text, size_t max)
{
	size_t used = 0;

	while (text.len > 0) {
		size_t len = utf8_character(text);
		struct span part = span_head(text, len);

		if (len == 0) {
			const uint8_t byte = text.data[0];

			part = span_of(byte == '\r' || byte == '\n' || byte == '\t' ? " " : "?");
			len = 1;
		} else if (len > 1 && !page->is_utf8) {
			part = span_of("?");
		}
		if (used + part.len > max)
			return;
		notice_put(page, part);
		used += part.len;
		text = span_skip(text, len);
	}
}

static int hex_value(uint8_t byte)
{
	if (byte >= '0' && byte <= '9')
		return byte - '0';
	return byte >= 'A' && byte <= 'F' ? byte - 'A' + 10 : -1;
}

void notice_put_xtext(struct notice_page *page, struct span text, size_t max)
{
	uint8_t plain[NOTICE_ORCPT_BYTES_MAX];
	size_t len = 0;

	while (text.len > 0 && len < sizeof(plain)) {
		int high = text.len >= 3 ? hex_value(text.data[1]) : -1;
		int low = text.len >= 3 ? hex_value(text.data[2]) : -1;

		if (text.data[0] == '+' && high >= 0 && low >= 0) {
			plain[len++] = (uint8_t)(high << 4 | low);
			text = span_skip(text, 3);
		} else {
			plain[len++] = text.data[0];
			text = span_skip(text, 1);
		}
	}
	notice_put_clean(page, span_make(plain, len), max);
}

void notice_put_date(struct notice_page *page, int64_t time_ms)
{
	const time_t seconds = (time_t)(time_ms / 1000);
	struct tm utc = {0};
	char text[64];

	(void)gmtime_r(&seconds, &utc);
	(void)strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S +0000", &utc);
	notice_printf(page, "%s", text);
}

struct span notice_bare(struct span path)
{
	if (path.len >= 2 && path.data[0] == '<' && path.data[path.len - 1] == '>')
		return span_make(path.data + 1, path.len - 2);
	return path;
}

/* ---- NOTIFY */

static bool notify_has(struct span list, const char *word)
{
	while (list.len > 0) {
		size_t end = span_find(list, ',');

		if (span_equal_nocase(span_trim(span_head(list, end)), span_of(word)))
			return true;
		list = span_skip(list, end + 1);
	}
	return false;
}

bool notice_is_wanted(const struct envelope_rcpt *rcpt, enum notice_action action)
{
	static const char *const words[NOTICE_ACTION_COUNT] = {[NOTICE_FAILED] = "FAILURE",
		[NOTICE_DELAYED] = "DELAY",
		[NOTICE_DELIVERED] = "SUCCESS",
		[NOTICE_RELAYED] = "SUCCESS"};

	ASSERT(action < NOTICE_ACTION_COUNT);
	if (rcpt->notify.len == 0)
		return action == NOTICE_FAILED || action == NOTICE_DELAYED;
	return notify_has(rcpt->notify, words[action]);
}

/* ---- status codes (RFC 3463) */

static bool is_digit(uint8_t byte)
{
	return byte >= '0' && byte <= '9';
}

/* "550 5.1.1 text", "550-text", "550": what is behind the code, or all of it. */
static struct span reply_behind_code(struct span text)
{
	if (text.len < 3 || !is_digit(text.data[0]) || !is_digit(text.data[1]) ||
		!is_digit(text.data[2]))
		return text;
	if (text.len == 3)
		return span_skip(text, 3);
	return text.data[3] == ' ' || text.data[3] == '-' ? span_skip(text, 4) : text;
}

/* The length of "5.1.1" in front, which a blank or the end follows; 0: there is none. */
static size_t status_length(struct span text)
{
	size_t at = 2;

	if (text.len < 5 || (text.data[0] != '2' && text.data[0] != '4' && text.data[0] != '5') ||
		text.data[1] != '.')
		return 0;
	for (unsigned part = 0; part < 2; part++) {
		size_t digits = 0;

		while (at + digits < text.len && is_digit(text.data[at + digits]))
			digits++;
		if (digits < 1 || digits > 3)
			return 0;
		at += digits;
		if (part == 0 && (at == text.len || text.data[at++] != '.'))
			return 0;
	}
	return at == text.len || text.data[at] == ' ' ? at : 0;
}

/* A message that was given up for its age failed with 4.4.7 (EXCHANGE 9.4). */
static bool status_fits(char class, enum notice_action action)
{
	if (action == NOTICE_FAILED)
		return class == '4' || class == '5';
	return class == (action == NOTICE_DELAYED ? '4' : '2');
}

static const char *status_of_code(unsigned code)
{
	static const struct {
		unsigned code;
		const char *status;
	} known[] = {{421, "4.3.2"}, {450, "4.2.0"}, {451, "4.3.0"}, {452, "4.3.1"}, {500, "5.5.2"},
		{501, "5.5.4"}, {502, "5.5.1"}, {503, "5.5.1"}, {504, "5.5.4"}, {530, "5.7.0"},
		{535, "5.7.8"}, {551, "5.1.6"}, {552, "5.2.2"}, {553, "5.1.3"}, {555, "5.5.4"}};

	for (size_t i = 0; i < COUNT_OF(known); i++)
		if (known[i].code == code)
			return known[i].status;
	return code >= 500 ? "5.0.0" : code >= 400 ? "4.0.0" : "2.0.0";
}

static const char *status_of_action(enum notice_action action)
{
	static const char *const statuses[NOTICE_ACTION_COUNT] = {[NOTICE_FAILED] = "5.0.0",
		[NOTICE_DELAYED] = "4.4.7",
		[NOTICE_DELIVERED] = "2.0.0",
		[NOTICE_RELAYED] = "2.0.0"};

	return statuses[action];
}

void notice_status(const struct notice_rcpt *rcpt, char out[static 12])
{
	struct span status = span_make(rcpt->status, strnlen(rcpt->status, sizeof(rcpt->status)));
	struct span text = reply_behind_code(rcpt->text);

	ASSERT(rcpt->action < NOTICE_ACTION_COUNT);
	if (status.len == 0 || status_length(status) != status.len)
		status = span_head(text, status_length(text));
	if (status.len == 0 && rcpt->code != 0)
		status = span_of(status_of_code(rcpt->code));
	if (status.len == 0 || !status_fits((char)status.data[0], rcpt->action))
		status = span_of(status_of_action(rcpt->action));
	(void)snprintf(out, 12, "%.*s", (int)status.len, (const char *)status.data);
}

/* ---- the reply */

bool notice_has_reply(const struct notice_rcpt *rcpt)
{
	return rcpt->code != 0 || rcpt->text.len > 0 || rcpt->action == NOTICE_FAILED ||
	       rcpt->action == NOTICE_DELAYED;
}

void notice_put_reply(struct notice_page *page, const struct notice_rcpt *rcpt)
{
	struct span behind = reply_behind_code(rcpt->text);
	char status[12];

	if (rcpt->code != 0) {
		/* A reply that has its code in front already is put as it came. */
		if (behind.len == rcpt->text.len)
			notice_printf(page, rcpt->text.len == 0 ? "%u" : "%u ", rcpt->code % 1000);
		notice_put_clean(page, rcpt->text, NOTICE_REPLY_BYTES_MAX);
		return;
	}
	if (behind.len != rcpt->text.len) {
		notice_put_clean(page, rcpt->text, NOTICE_REPLY_BYTES_MAX);
		return;
	}
	/* Our own words, in the form of a reply (EXCHANGE 9.4). */
	notice_printf(page, "%s ",
		rcpt->action == NOTICE_FAILED ? "550"
					      : (rcpt->action == NOTICE_DELAYED ? "400" : "250"));
	if (status_length(rcpt->text) == 0) {
		notice_status(rcpt, status);
		notice_printf(page, "%s ", status);
	}
	if (rcpt->text.len > 0)
		notice_put_clean(page, rcpt->text, NOTICE_REPLY_BYTES_MAX);
	else
		notice_printf(page, "%s",
			rcpt->action == NOTICE_DELAYED ? "Message delayed"
						       : "Message not delivered");
}

/* ---- advice */

struct advice {
	const char *status; /* without its class */
	const char *words;
};

static const struct advice advices[] = {
	{"1.1", "There is no mailbox with that address. Check the spelling, and send the message "
		"again."},
	{"1.2", "The domain of the address cannot be found. Check the part behind the @ sign, and "
		"send the message again."},
	{"1.3", "The address is not written in a form that the server understands. Check it, and "
		"send the message again."},
	{"1.6", "The recipient has moved, and has left no new address."},
	{"1.8", "The server does not accept your own address as a sender."},
	{"1.10", "The domain of the address accepts no mail."},
	{"2.1", "The mailbox is disabled, and accepts no mail."},
	{"2.2", "The mailbox is full. Try again later, or reach the recipient in another way."},
	{"2.3", "The message is larger than the recipient accepts. Make it smaller, and send it "
		"again."},
	{"3.4", "The message is larger than the server accepts. Make it smaller, and send it "
		"again."},
	{"4.4", "No mail server is known for the domain. Check the part behind the @ sign, and "
		"send the message again."},
	{"4.6", "The message went round in a circle between mail servers. Your administrator can "
		"help."},
	{"4.7", "It was tried for as long as is allowed, without success. Send the message again "
		"later, or reach the recipient in another way."},
	{"5.3", "The message has more recipients than the server accepts at a time."},
	{"6.7", "The address has characters that the mail server of the recipient does not "
		"accept."},
	{"7.1", "The recipient or the server does not accept messages from you."},
	{"7.27", "The server does not accept your own address as a sender."},
};

const char *notice_advice(const struct notice_rcpt *rcpt)
{
	char status[12];

	notice_status(rcpt, status);
	if (rcpt->action != NOTICE_FAILED)
		return "";
	for (size_t i = 0; i < COUNT_OF(advices); i++)
		if (strcmp(advices[i].status, status + 2) == 0)
			return advices[i].words;
	if (status[2] == '7')
		return "The message was refused by a rule of the server. Your administrator can "
		       "help.";
	return "The message was not accepted. What is said below may help your administrator.";
}
