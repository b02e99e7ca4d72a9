/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/notice_private.h"

/*
 * notice_text.c: the three parts of a notice. No I/O, no clock.
 */

/* Thrice the path and the remote, twice the reply, and the words around them. */
_Static_assert(8192 + NOTICE_RCPTS_MAX * (3 * NOTICE_PATH_BYTES_MAX + NOTICE_ORCPT_BYTES_MAX +
						 2 * NOTICE_REPLY_BYTES_MAX +
						 3 * NOTICE_REMOTE_BYTES_MAX + 700) <=
		       NOTICE_HEAD_BYTES_MAX,
	"all recipients fit a notice");

#define BOUNDARY_BYTES 40

static void notice_boundary(const struct notice_text *text, char out[static BOUNDARY_BYTES])
{
	(void)snprintf(out, BOUNDARY_BYTES, "=_%016llx.%016llx", (unsigned long long)text->id,
		(unsigned long long)text->random);
}

/*
 * A client may announce SMTPUTF8 and have no use for it; then a notice of the older kind reaches
 * senders whose server does not know the extension.
 */
bool notice_is_utf8(const struct notice_text *text)
{
	const struct envelope *original = text->original;

	if ((original->flags & ENVELOPE_SMTPUTF8) == 0)
		return false;
	if ((original->flags & ENVELOPE_UTF8_HEADER) != 0 || span_has_high(original->sender))
		return true;
	for (uint32_t i = 0; i < text->rcpt_count && i < NOTICE_RCPTS_MAX; i++)
		if (span_has_high(text->rcpts[i].path) || span_has_high(text->rcpts[i].orcpt))
			return true;
	return false;
}

/* Are there bytes over 127 in what is copied of the original? */
static bool notice_copy_is_eight_bit(const struct notice_text *text)
{
	const unsigned bits =
		ENVELOPE_UTF8_HEADER | (text->is_whole ? (unsigned)ENVELOPE_EIGHT_BIT : 0);

	return (text->original->flags & bits) != 0;
}

bool notice_is_eight_bit(const struct notice_text *text)
{
	return notice_is_utf8(text) || notice_copy_is_eight_bit(text);
}

static uint32_t notice_shown(const struct notice_text *text)
{
	return text->rcpt_count < NOTICE_RCPTS_MAX ? text->rcpt_count : NOTICE_RCPTS_MAX;
}

enum notice_action notice_action(const struct notice_rcpt *rcpts, uint32_t count)
{
	static const enum notice_action order[] = {
		NOTICE_FAILED, NOTICE_DELAYED, NOTICE_RELAYED, NOTICE_DELIVERED};

	for (size_t i = 0; i < COUNT_OF(order); i++)
		for (uint32_t j = 0; j < count && j < NOTICE_RCPTS_MAX; j++)
			if (rcpts[j].action == order[i])
				return order[i];
	return NOTICE_FAILED;
}

const char *notice_action_word(enum notice_action action)
{
	static const char *const words[NOTICE_ACTION_COUNT] = {[NOTICE_FAILED] = "failed",
		[NOTICE_DELAYED] = "delayed",
		[NOTICE_DELIVERED] = "delivered",
		[NOTICE_RELAYED] = "relayed"};

	ASSERT(action < NOTICE_ACTION_COUNT);
	return words[action];
}

/* ---- header */

void notice_message_id(const struct notice_text *text, char out[static NOTICE_MESSAGE_ID_BYTES])
{
	(void)snprintf(out, NOTICE_MESSAGE_ID_BYTES, "<%016llx.%016llx@%s>",
		(unsigned long long)text->id, (unsigned long long)text->random, text->policy->fqdn);
}

size_t notice_subject(const struct notice_text *text, uint8_t out[static NOTICE_SUBJECT_BYTES])
{
	static const char *const words[NOTICE_ACTION_COUNT] = {[NOTICE_FAILED] = "Undeliverable: ",
		[NOTICE_DELAYED] = "Delayed: ",
		[NOTICE_DELIVERED] = "Delivered: ",
		[NOTICE_RELAYED] = "Relayed: "};
	struct notice_page page = {
		.out = out, .max = NOTICE_SUBJECT_BYTES, .is_utf8 = notice_is_utf8(text)};

	notice_printf(&page, "%s", words[notice_action(text->rcpts, text->rcpt_count)]);
	notice_put_clean(&page, span_trim(text->original->subject), NOTICE_SUBJECT_BYTES_MAX);
	while (page.len > 0 && out[page.len - 1] == ' ')
		page.len--;
	return page.len;
}

static void notice_put_postmaster(const struct notice_text *text, struct notice_page *page)
{
	const struct policy *policy = text->policy;

	if (policy->queue.postmaster != NULL && policy->queue.postmaster[0] != '\0') {
		notice_put_clean(page, notice_bare(span_of(policy->queue.postmaster)),
			NOTICE_PATH_BYTES_MAX);
		return;
	}
	for (unsigned i = 0; i < policy->accepted_domain_count; i++) {
		if (policy->accepted_domains[i][0] == '*')
			continue;
		notice_printf(page, "postmaster@%s", policy->accepted_domains[i]);
		return;
	}
	notice_printf(page, "postmaster@%s", policy->fqdn);
}

/* Only what looks like one is put where mail programs look for one. */
static bool notice_is_message_id(struct span id, bool is_utf8)
{
	if (id.len < 5 || id.len > NOTICE_ID_BYTES_MAX || id.data[0] != '<' ||
		id.data[id.len - 1] != '>')
		return false;
	for (size_t i = 1; i + 1 < id.len; i++)
		if (id.data[i] <= ' ' || id.data[i] == '<' || id.data[i] == '>' ||
			id.data[i] == 0x7f || (id.data[i] > 0x7f && !is_utf8))
			return false;
	return true;
}

static void notice_put_header(const struct notice_text *text, struct notice_page *page)
{
	char id[NOTICE_MESSAGE_ID_BYTES], boundary[BOUNDARY_BYTES];
	const struct span about = text->original->message_id;
	uint8_t subject[NOTICE_SUBJECT_BYTES];

	notice_boundary(text, boundary);
	notice_message_id(text, id);
	notice_printf(page, "From: Postmaster <");
	notice_put_postmaster(text, page);
	notice_printf(page, ">\r\nTo: <");
	notice_put_clean(page, notice_bare(text->original->sender), NOTICE_PATH_BYTES_MAX);
	notice_printf(page, ">\r\nSubject: ");
	notice_put(page, span_make(subject, notice_subject(text, subject)));
	notice_printf(page, "\r\nDate: ");
	notice_put_date(page, text->now_ms);
	notice_printf(page, "\r\nMessage-ID: %s\r\n", id);
	if (notice_is_message_id(about, page->is_utf8)) {
		notice_printf(page, "In-Reply-To: ");
		notice_put_clean(page, about, NOTICE_ID_BYTES_MAX);
		notice_printf(page, "\r\nReferences: ");
		notice_put_clean(page, about, NOTICE_ID_BYTES_MAX);
		notice_printf(page, "\r\n");
	}
	notice_printf(page, "Auto-Submitted: auto-replied\r\n");
	if (notice_action(text->rcpts, text->rcpt_count) == NOTICE_FAILED)
		notice_printf(page, "X-MS-Exchange-Message-Is-Ndr:\r\n");
	notice_printf(page,
		"MIME-Version: 1.0\r\n"
		"Content-Type: multipart/report; report-type=delivery-status;\r\n"
		"\tboundary=\"%s\"\r\n"
		"Content-Transfer-Encoding: %s\r\n\r\n",
		boundary, notice_is_eight_bit(text) ? "8bit" : "7bit");
}

static void notice_put_part(const struct notice_text *text, struct notice_page *page,
	const char *type, const char *encoding)
{
	char boundary[BOUNDARY_BYTES];

	notice_boundary(text, boundary);
	notice_printf(page, "\r\n--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n",
		boundary, type, encoding);
}

/* ---- for people */

static const char *const notice_titles[NOTICE_ACTION_COUNT] = {
	[NOTICE_FAILED] = "Your message could not be delivered to these recipients:\r\n\r\n",
	[NOTICE_DELAYED] =
		"Your message has not been delivered yet to these recipients. You need not send\r\n"
		"it again: the mail system goes on trying.\r\n\r\n",
	[NOTICE_DELIVERED] = "Your message was delivered to these recipients:\r\n\r\n",
	[NOTICE_RELAYED] =
		"Your message was handed over to the mail servers of these recipients, which do\r\n"
		"not report when it is delivered:\r\n\r\n",
};

/* "mx.adatum.com" of "mx.adatum.com[192.0.2.1]:25", which is our own form. */
static void notice_put_server(struct notice_page *page, struct span remote)
{
	const size_t name = span_find(remote, '[');

	notice_put_clean(
		page, name > 0 ? span_head(remote, name) : remote, NOTICE_REMOTE_BYTES_MAX);
}

static void notice_put_person(
	const struct notice_text *text, struct notice_page *page, const struct notice_rcpt *rcpt)
{
	notice_printf(page, "  ");
	notice_put_clean(page, notice_bare(rcpt->path), NOTICE_PATH_BYTES_MAX);
	notice_printf(page, "\r\n");
	if (rcpt->action == NOTICE_FAILED) {
		if (rcpt->remote.len > 0 && rcpt->code != 0) {
			notice_printf(page, "  The server ");
			notice_put_server(page, rcpt->remote);
			notice_printf(page, " rejected it.\r\n  ");
		} else {
			notice_printf(page, "  It was given up by %s.\r\n  ", text->policy->fqdn);
		}
		notice_printf(page, "%s\r\n", notice_advice(rcpt));
	}
	if (rcpt->action == NOTICE_DELAYED && rcpt->retry_until_ms > 0) {
		notice_printf(page, "  It is tried until ");
		notice_put_date(page, rcpt->retry_until_ms);
		notice_printf(page, ".\r\n");
	}
	notice_printf(page, "\r\n");
}

static void notice_put_people(const struct notice_text *text, struct notice_page *page)
{
	const uint32_t shown = notice_shown(text);

	for (unsigned action = 0; action < NOTICE_ACTION_COUNT; action++) {
		bool any = false;

		for (uint32_t i = 0; i < shown; i++) {
			if (text->rcpts[i].action != (enum notice_action)action)
				continue;
			if (!any)
				notice_printf(page, "%s", notice_titles[action]);
			any = true;
			notice_put_person(text, page, &text->rcpts[i]);
		}
	}
	if (text->rcpt_count > shown)
		notice_printf(page, "The same is true of %u more recipients.\r\n\r\n",
			text->rcpt_count - shown);
}

static void notice_put_diagnostic(struct notice_page *page, const struct notice_rcpt *rcpt)
{
	notice_put_clean(page, notice_bare(rcpt->path), NOTICE_PATH_BYTES_MAX);
	notice_printf(page, "\r\n");
	if (rcpt->remote.len > 0) {
		notice_printf(page, "Remote server: ");
		notice_put_clean(page, rcpt->remote, NOTICE_REMOTE_BYTES_MAX);
		notice_printf(page, "\r\n");
	}
	if (notice_has_reply(rcpt)) {
		notice_printf(page, rcpt->remote.len > 0 && rcpt->code != 0
					    ? "Remote server returned '"
					    : "Server returned '");
		notice_put_reply(page, rcpt);
		notice_printf(page, "'\r\n");
	}
	notice_printf(page, "\r\n");
}

static void notice_put_plain(const struct notice_text *text, struct notice_page *page)
{
	const struct envelope *original = text->original;
	char id[MESSAGE_ID_TEXT_BYTES];

	notice_put_part(text, page,
		page->is_utf8 ? "text/plain; charset=utf-8" : "text/plain; charset=us-ascii",
		page->is_utf8 ? "8bit" : "7bit");
	notice_put_people(text, page);
	notice_printf(page,
		"Diagnostic information for administrators:\r\n\r\n"
		"Generating server: %s\r\n",
		text->policy->fqdn);
	(void)snprintf(id, sizeof(id), "%016llx", (unsigned long long)text->original_id);
	notice_printf(page, "Message in the queue: %s, arrived ", id);
	notice_put_date(page, original->arrived_ms);
	notice_printf(page, "\r\n");
	if (original->message_id.len > 0) {
		notice_printf(page, "Message ID: ");
		notice_put_clean(page, original->message_id, NOTICE_ID_BYTES_MAX);
		notice_printf(page, "\r\n");
	}
	notice_printf(page, "\r\n");
	for (uint32_t i = 0; i < notice_shown(text); i++)
		notice_put_diagnostic(page, &text->rcpts[i]);
}

/* ---- for programs (RFC 3464) */

static void notice_put_message_fields(const struct notice_text *text, struct notice_page *page)
{
	const struct envelope *original = text->original;

	notice_printf(page, "Reporting-MTA: dns; %s\r\n", text->policy->fqdn);
	if (original->envid.len > 0) {
		notice_printf(page, "Original-Envelope-Id: ");
		notice_put_xtext(page, original->envid, NOTICE_ORCPT_BYTES_MAX);
		notice_printf(page, "\r\n");
	}
	if (original->client.len > 0) {
		notice_printf(page, "Received-From-MTA: dns; ");
		notice_put_clean(page, original->helo.len > 0 ? original->helo : original->client,
			NOTICE_ID_BYTES_MAX);
		notice_printf(page, "\r\n");
	}
	notice_printf(page, "Arrival-Date: ");
	notice_put_date(page, original->arrived_ms);
	notice_printf(page, "\r\n");
}

/*
 * "rfc822;a+2Bb@c", as the sender has named the recipient, out of xtext. What is of type utf-8 has
 * another encoding (RFC 6533 3), and stays as it is.
 */
static void notice_put_orcpt(struct notice_page *page, struct span orcpt)
{
	const size_t type = span_find(orcpt, ';');

	if (type == 0 || type >= orcpt.len)
		return;
	notice_printf(page, "Original-Recipient: ");
	notice_put_clean(page, span_head(orcpt, type), 64);
	notice_printf(page, "; ");
	if (span_equal_nocase(span_head(orcpt, type), span_of("utf-8")))
		notice_put_clean(page, span_skip(orcpt, type + 1), NOTICE_ORCPT_BYTES_MAX);
	else
		notice_put_xtext(page, span_skip(orcpt, type + 1), NOTICE_ORCPT_BYTES_MAX);
	notice_printf(page, "\r\n");
}

static void notice_put_rcpt_fields(struct notice_page *page, const struct notice_rcpt *rcpt)
{
	const struct span address = notice_bare(rcpt->path);
	char status[12];

	notice_status(rcpt, status);
	notice_printf(page, "\r\n");
	notice_put_orcpt(page, rcpt->orcpt);
	notice_printf(page, "Final-Recipient: %s; ",
		page->is_utf8 && span_has_high(address) ? "utf-8" : "rfc822");
	notice_put_clean(page, address, NOTICE_PATH_BYTES_MAX);
	notice_printf(
		page, "\r\nAction: %s\r\nStatus: %s\r\n", notice_action_word(rcpt->action), status);
	if (rcpt->remote.len > 0) {
		notice_printf(page, "Remote-MTA: dns; ");
		notice_put_server(page, rcpt->remote);
		notice_printf(page, "\r\n");
	}
	if (notice_has_reply(rcpt)) {
		notice_printf(page, "Diagnostic-Code: smtp; ");
		notice_put_reply(page, rcpt);
		notice_printf(page, "\r\n");
	}
	if (rcpt->last_attempt_ms > 0) {
		notice_printf(page, "Last-Attempt-Date: ");
		notice_put_date(page, rcpt->last_attempt_ms);
		notice_printf(page, "\r\n");
	}
	if (rcpt->action == NOTICE_DELAYED && rcpt->retry_until_ms > 0) {
		notice_printf(page, "Will-Retry-Until: ");
		notice_put_date(page, rcpt->retry_until_ms);
		notice_printf(page, "\r\n");
	}
}

static void notice_put_status(const struct notice_text *text, struct notice_page *page)
{
	notice_put_part(text, page,
		page->is_utf8 ? "message/global-delivery-status" : "message/delivery-status",
		page->is_utf8 ? "8bit" : "7bit");
	notice_put_message_fields(text, page);
	for (uint32_t i = 0; i < notice_shown(text); i++)
		notice_put_rcpt_fields(page, &text->rcpts[i]);
}

/* ---- all of it */

size_t notice_write_head(const struct notice_text *text, uint8_t *out, size_t out_bytes)
{
	struct notice_page page = {.out = out, .max = out_bytes, .is_utf8 = notice_is_utf8(text)};
	static const char *const kinds[2][2] = {{"text/rfc822-headers", "message/rfc822"},
		{"message/global-headers", "message/global"}};

	notice_put_header(text, &page);
	notice_printf(&page, "This is a report in MIME format (RFC 3464).\r\n");
	notice_put_plain(text, &page);
	notice_put_status(text, &page);
	notice_put_part(text, &page, kinds[page.is_utf8][text->is_whole],
		page.is_utf8 || notice_copy_is_eight_bit(text) ? "8bit" : "7bit");
	return page.is_full ? 0 : page.len;
}

size_t notice_write_tail(const struct notice_text *text, uint8_t *out, size_t out_bytes)
{
	struct notice_page page = {.out = out, .max = out_bytes};
	char boundary[BOUNDARY_BYTES];

	/* This line end is the boundary's (RFC 2046 5.1.1): the original ends where it did. */
	notice_boundary(text, boundary);
	notice_printf(&page, "\r\n--%s--\r\n", boundary);
	return page.is_full ? 0 : page.len;
}
