/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * notice_private.h: what the parts of notice.h share: a page that is written on, and words.
 *
 * Nothing that a peer has said gets onto the page but through notice_put_clean() and
 * notice_put_xtext(): no control, no line end, and bytes over 127 only where the kind of notice
 * has them, as whole characters. So what is put in one line stays in one line.
 */

#include "relay/mail/notice.h"

/* What is cut off when it is longer; the sum fits NOTICE_HEAD_BYTES_MAX (notice_text.c). */
#define NOTICE_PATH_BYTES_MAX 576
#define NOTICE_ORCPT_BYTES_MAX 512
#define NOTICE_REPLY_BYTES_MAX 700
#define NOTICE_REMOTE_BYTES_MAX 128
#define NOTICE_SUBJECT_BYTES_MAX 400
#define NOTICE_ID_BYTES_MAX 512

struct notice_page {
	uint8_t *out;
	size_t len, max;
	bool is_utf8; /* the notice may have bytes over 127 of ours (RFC 6533) */
	bool is_full; /* something did not fit; what follows is nothing */
};

void notice_put(struct notice_page *page, struct span text);
void notice_printf(struct notice_page *page, const char *format, ...) PRINTF_LIKE(2, 3);

/* Line ends and tabs become blanks, other controls and what is no character "?"; cut at max. */
void notice_put_clean(struct notice_page *page, struct span text, size_t max);

/* The same for xtext, decoded (RFC 3461 4). */
void notice_put_xtext(struct notice_page *page, struct span text, size_t max);

/* "Sun, 29 Nov 2026 16:00:00 +0000". */
void notice_put_date(struct notice_page *page, int64_t time_ms);

/* "a@b" of "<a@b>". */
struct span notice_bare(struct span path);

/* The reply as it stands in an SMTP session: "550 5.1.1 no such user". */
void notice_put_reply(struct notice_page *page, const struct notice_rcpt *rcpt);
bool notice_has_reply(const struct notice_rcpt *rcpt);

/* For the sender: what that status means, and what to do about it; one or two sentences. */
const char *notice_advice(const struct notice_rcpt *rcpt);
