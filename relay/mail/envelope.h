/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * envelope.h: what the spool keeps of a message beside its body, and what became of its recipients.
 * Pure. The form on disk is the payload of MESSAGE (its envelope) and of RECIPIENTS, see record.h.
 *
 *   envelope   = version:1 body-type:1 flags:2 rcpt-count:4 arrived-ms:8 expires-ms:8
 *                body-bytes:8 header-bytes:8 attempts:2 strings recipients
 *   strings    = 14 x (length:2 bytes)             in the order of the spans of struct envelope
 *   recipient  = state:1 path notify orcpt         each (length:2 bytes)
 *   recipients = rcpt-count x recipient
 *
 * What became of them, the payload of RECIPIENTS, stands at struct envelope_change.
 *
 * All text is what the peer said, checked by command.h; CR, LF and NUL are in none of it, and every
 * path is in brackets. Writers write nothing that their reader would refuse: a message that was
 * accepted must come back.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"
#include "relay/smtp/command.h"

/* With recipients; more of them are answered 452 4.5.3. */
#define ENVELOPE_BYTES_MAX 262144

enum envelope_flag {
	ENVELOPE_SMTPUTF8 = 1,    /* MAIL had the parameter */
	ENVELOPE_EIGHT_BIT = 2,   /* the body has bytes over 127 */
	ENVELOPE_UTF8_HEADER = 4, /* and its header too */
	ENVELOPE_SECURED = 8,     /* from a partner that proved domain */
	ENVELOPE_NOTICE = 16,     /* we made it (a DSN) */
	ENVELOPE_SUSPENDED = 32,  /* by an administrator */
	ENVELOPE_DELAY_TOLD = 64, /* its sender was told that it is late */
	ENVELOPE_INTERNAL = 128,  /* from one of our own servers */
	ENVELOPE_RELAXED = 256,   /* durability = relaxed */
};

/* What became of a recipient. */
enum rcpt_state {
	RCPT_OPEN,      /* still to be delivered */
	RCPT_DELIVERED, /* the next hop took it, and reports success itself if it was asked to */
	RCPT_RELAYED,   /* the next hop took it, and does not know DSN */
	RCPT_FAILED,    /* for good; the notice was made, or none was wanted */
	RCPT_EXPIRED,   /* it was tried for long enough; likewise */
	RCPT_REMOVED,   /* by an administrator, without notice */
	RCPT_STATE_COUNT,
};

struct envelope_rcpt {
	enum rcpt_state state;
	struct span path;          /* "<a@b>" */
	struct span notify, orcpt; /* values as in command.h, "" if not said */
};

struct envelope {
	enum body_type body;
	unsigned flags; /* bits of enum envelope_flag */
	uint32_t rcpt_count;
	int64_t arrived_ms; /* wall clock */
	int64_t expires_ms;
	uint64_t body_bytes;
	uint64_t header_bytes; /* of these, with the empty line */
	unsigned attempts;     /* at delivering, so far */
	struct span sender;    /* "<a@b>" or "<>" */
	struct span ret, envid;
	struct span connector;      /* the receive connector, by name; "": made here */
	struct span send_connector; /* that it was to go by, by name; "": by address space */
	struct span session;        /* the id of the session that brought it */
	struct span client;         /* its address */
	struct span helo;
	struct span domain;     /* proved by it, or "" */
	struct span message_id; /* "<...>" of the header; or "" */
	struct span subject;    /* of the header, cut; or "" */
	struct span server;     /* the local address that it came in by */
	struct span tls;        /* "TLSv1.3 TLS_AES_256_GCM_SHA384", or "" */
	struct span origin;     /* of a notice: the id of the message that it is about, in hex */

	/* private to the readers: the recipients' bytes */
	struct span recipients;
};

/*
 * Writes all but the recipients; rcpt_count, and those fields that are known only at the end of the
 * message, are in it too. 0: it does not fit, or its text is not as said above; but message_id and
 * subject, which a header brought, get blanks for CR, LF and NUL. envelope_write_rcpt() output is
 * put behind it.
 */
NODISCARD size_t envelope_write(const struct envelope *envelope, uint8_t *out, size_t out_bytes);
NODISCARD size_t envelope_write_rcpt(
	const struct envelope_rcpt *rcpt, uint8_t *out, size_t out_bytes);

/* Reads one; the spans point into in. False: it is not well-formed, in any part. */
NODISCARD bool envelope_read(struct span in, struct envelope *out);

/* One recipient after the other: *at is 0 at first. False: there are no more. */
NODISCARD bool envelope_next(
	const struct envelope *envelope, size_t *at, struct envelope_rcpt *out);

/*
 * For moving it: sets the state of recipient number index, and flags and attempts, in place. bytes
 * is what envelope_read() has accepted.
 */
void envelope_patch_rcpt(uint8_t *bytes, size_t len, uint32_t index, enum rcpt_state state);
void envelope_patch(uint8_t *bytes, size_t len, unsigned flags, unsigned attempts);

/*
 * RECIPIENTS: flags and attempts of the message from now on, and recipients whose state has
 * changed, each with why, for people. Text that is too long is cut, and CR, LF and NUL become
 * blanks.
 *
 *   change = version:1 zero:1 flags:2 attempts:2 zero:2 count:4 next-ms:8 where text count x rcpt
 *   rcpt   = index:4 state:1 zero:1 code:2 text
 *   where, text = (length:2 bytes)
 */
struct envelope_change {
	unsigned flags;
	unsigned attempts;
	int64_t next_ms;   /* when the message itself is tried again; 0: with its queue */
	struct span where; /* the next hop: "mx.adatum.com[192.0.2.1]:25", or "" */
	struct span text;  /* why nothing was settled; or "" */
	uint32_t count;
	struct span rcpts; /* for envelope_change_next() */
};
struct envelope_change_rcpt {
	uint32_t index;
	enum rcpt_state state;
	unsigned code; /* of the reply; 0: none */
	struct span text;
};
#define ENVELOPE_CHANGE_TEXT_BYTES_MAX 500
/* 0: it does not fit. */
NODISCARD size_t envelope_write_change(
	const struct envelope_change *change, uint8_t *out, size_t out_bytes);
NODISCARD size_t envelope_write_change_rcpt(
	const struct envelope_change_rcpt *rcpt, uint8_t *out, size_t out_bytes);
NODISCARD bool envelope_read_change(struct span in, struct envelope_change *out);
NODISCARD bool envelope_change_next(
	const struct envelope_change *change, size_t *at, struct envelope_change_rcpt *out);

/* "delivered", "failed"... */
const char *rcpt_state_word(enum rcpt_state state);

/* A message's id as people see it: 16 hex digits. */
#define MESSAGE_ID_TEXT_BYTES 17
void message_id_print(uint64_t id, char out[MESSAGE_ID_TEXT_BYTES]);
/* False: it is none. */
NODISCARD bool message_id_parse(struct span text, uint64_t *out);
