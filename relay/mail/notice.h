/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * notice.h: delivery status notifications (RFC 3461, RFC 3464, RFC 6522; EXCHANGE 9.4): their
 * text, pure, and the job that puts one into the spool.
 *
 *   multipart/report; report-type=delivery-status
 *     text/plain               in plain words, then "Diagnostic information for administrators:"
 *     message/delivery-status  per message and per recipient; the next hop's reply verbatim
 *     message/rfc822           the original of a failure, up to max-notice-original-size, or
 *     text/rfc822-headers      its header only: else, and with RET=HDRS (RFC 3461 4.3)
 *
 * Exchange's organization fields and our own stamps are taken out of both (EXCHANGE 10).
 *
 * UTF-8 addresses and headers of an SMTPUTF8 original make it the message/global kinds (RFC 6533).
 * It goes from <> to the sender; a message from <> has no notice at all (RFC 5321 6.1).
 */

#include "relay/mail/envelope.h"
#include "relay/mail/queues.h"
#include "relay/smtp/firewall.h"

/* Also the Action field (RFC 3464 2.3.3). */
enum notice_action {
	NOTICE_FAILED,
	NOTICE_DELAYED,
	NOTICE_DELIVERED,
	NOTICE_RELAYED,
	NOTICE_ACTION_COUNT,
};

/* What is told about one recipient. Spans may lie in one buffer of the asker. */
struct notice_rcpt {
	enum notice_action action;
	struct span path, orcpt; /* as in the envelope */
	char status[12];         /* "5.1.1"; "" : taken from text, else from the action */
	unsigned code;           /* of the reply; 0: none, text is ours */
	struct span text;        /* the reply, or our words ("QUEUE.Expired; message expired") */
	struct span remote;      /* "mx.adatum.com[192.0.2.1]:25", or "": we say it ourselves */
	int64_t last_attempt_ms; /* 0: none */
	int64_t retry_until_ms;  /* of delayed */
};

/*
 * Was a notice asked for? By NOTIFY; without it failures and delays are told, and success is not
 * (RFC 3461 5.2).
 */
bool notice_is_wanted(const struct envelope_rcpt *rcpt, enum notice_action action);

/* The enhanced status code of a reply ("5.1.1"), or one that fits its code or the action. */
void notice_status(const struct notice_rcpt *rcpt, char out[static 12]);

struct notice_text {
	const struct policy *policy;
	const struct envelope *original;
	uint64_t original_id;
	uint64_t id;     /* of the notice: in Message-ID and the boundary */
	uint64_t random; /* there too: no original can have the boundary in it */
	int64_t now_ms;
	const struct notice_rcpt *rcpts;
	uint32_t rcpt_count; /* may be more than are in rcpts: NOTICE_RCPTS_MAX at the most */
	bool is_whole;       /* the original follows, else its header only */
};

/* Recipients that one notice tells of; more are counted in words. */
#define NOTICE_RCPTS_MAX 100

/* What stands in front of the original, at most, for that many recipients. */
#define NOTICE_HEAD_BYTES_MAX (8192 + NOTICE_RCPTS_MAX * 4736)

/*
 * Writes it; returns its length, or 0: it does not fit. Lines end in CR LF and have 998 bytes at
 * the most, whatever the peers have said. The text of the original follows, then the tail.
 */
NODISCARD size_t notice_write_head(const struct notice_text *text, uint8_t *out, size_t out_bytes);

/* What stands behind the original. */
#define NOTICE_TAIL_BYTES_MAX 128
NODISCARD size_t notice_write_tail(const struct notice_text *text, uint8_t *out, size_t out_bytes);

/* Its Message-ID, with its brackets. */
#define NOTICE_MESSAGE_ID_BYTES 320
void notice_message_id(const struct notice_text *text, char out[static NOTICE_MESSAGE_ID_BYTES]);

/* "Undeliverable: SUBJECT", cleaned; returns its length. */
#define NOTICE_SUBJECT_BYTES 448
NODISCARD size_t notice_subject(
	const struct notice_text *text, uint8_t out[static NOTICE_SUBJECT_BYTES]);

/* What the Subject and the tracking log say of all recipients: the worst that came of one. */
enum notice_action notice_action(const struct notice_rcpt *rcpts, uint32_t count);
const char *notice_action_word(enum notice_action action); /* "failed" */

/* Has the notice bytes over 127, and has its header any: does it need 8BITMIME, SMTPUTF8? */
bool notice_is_eight_bit(const struct notice_text *text);
bool notice_is_utf8(const struct notice_text *text);

/* The job. */

struct notice;

struct notice_maker;

/* Notices that are made at a time by one worker; more wait. */
#define NOTICES_AT_ONCE 8

NODISCARD int notice_maker_create(
	struct conn_net *net, struct queues *queues, struct notice_maker **out);

/* Nothing waits, and nothing is under way. */
bool notice_maker_is_idle(const struct notice_maker *maker);

/*
 * Ends what can be ended: on_done(-ECANCELED) comes before this returns. What is being committed
 * already goes on to its end, and only then the maker is idle.
 */
void notice_maker_abort(struct notice_maker *maker);

/* It must be idle. */
void notice_maker_destroy(struct notice_maker **maker);

/* Embedded in who asks. */
struct notice {
	struct link link; /* private */
	/*
	 * result 0: it is in the spool and submitted. Else it could not be made now (-errno): the
	 * asker keeps the recipients open and tries again. -EINVAL: the original came from <>, so
	 * there is no notice of it, ever; who asks should have known.
	 */
	void (*on_done)(struct notice *notice, int result);
	struct spool *spool;            /* that has the original, and takes the notice */
	struct spool_message *original; /* stays attached until on_done */
	const struct policy *policy;    /* stays as well */
	int64_t now_ms;                 /* wall clock; 0: of when it is begun */
	struct notice_rcpt rcpts[NOTICE_RCPTS_MAX];
	uint32_t rcpt_count; /* may be more than are in rcpts */
	uint8_t *words;      /* memory for the spans of rcpts, the asker's until on_done */
};

/* on_done comes from the loop, never from within this call. */
void notice_make(struct notice_maker *maker, struct notice *notice);
