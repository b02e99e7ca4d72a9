/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * command.h: one command line to verb, path and parameters (RFC 5321 4.1).
 *
 * Pure: spans point into the line. The path alone may point into the command
 * itself: with a source route taken out it is nowhere in one piece. So a command
 * is used where it was parsed, and never copied.
 *
 * Parsing is strict where being lax would let two servers read one line
 * differently, and lax where clients of good will differ: spaces after "FROM:"
 * are accepted, and trailing blanks are ignored.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"

enum verb {
	VERB_UNKNOWN,
	VERB_EHLO,
	VERB_HELO,
	VERB_MAIL,
	VERB_RCPT,
	VERB_DATA,
	VERB_BDAT,
	VERB_RSET,
	VERB_NOOP,
	VERB_VRFY,
	VERB_EXPN,
	VERB_HELP,
	VERB_QUIT,
	VERB_STARTTLS,
	VERB_AUTH,
	VERB_XCLIENT, /* Postfix's; see xclient.h */
	VERB_COUNT,
};

enum body_type {
	BODY_UNSAID, /* no BODY parameter: 7BIT (RFC 6152 3) */
	BODY_7BIT,
	BODY_8BITMIME,
	BODY_BINARYMIME, /* RFC 3030 3 */
};

/* Which parameters a MAIL or RCPT line carried; a set of bits. */
enum command_param {
	PARAM_SIZE = 1,     /* RFC 1870 */
	PARAM_BODY = 2,     /* RFC 6152, RFC 3030 */
	PARAM_SMTPUTF8 = 4, /* RFC 6531 */
	PARAM_RET = 8,      /* RFC 3461 4.3 */
	PARAM_ENVID = 16,   /* RFC 3461 4.4 */
	PARAM_NOTIFY = 32,  /* RFC 3461 4.1 */
	PARAM_ORCPT = 64,   /* RFC 3461 4.2 */
};

/* RFC 5321 4.5.3.1.3: the longest path, with its brackets, that may carry a source route. */
#define COMMAND_ROUTED_BYTES_MAX 256

struct command {
	enum verb verb;
	struct span verb_text; /* the first word as the peer wrote it */
	struct span argument;  /* everything behind the verb, trimmed */

	/* EHLO, HELO */
	struct span domain; /* a domain or address literal; empty if none was given */

	/* MAIL, RCPT */
	struct span path;    /* with its angle brackets and without a source route: "<a@b>", "<>" */
	struct span mailbox; /* inside the brackets: "a@b"; empty for the null path */
	struct span mail_domain; /* behind the last "@"; empty if there is none ("postmaster") */
	unsigned params;         /* enum command_param bits */
	uint64_t size;           /* PARAM_SIZE: octets announced; saturates at UINT64_MAX */
	enum body_type body;
	struct span param_text; /* all ESMTP parameters as the peer wrote them, trimmed */
	struct span ret, envid, notify, orcpt; /* values, xtext not decoded, syntax checked */

	/* BDAT */
	uint64_t chunk_bytes;
	bool chunk_is_last;

	const char *error; /* when not COMMAND_OK: a whole reply, "501 5.5.4 ..." without CR LF */

	/* Private: what path points to when a source route was cut out of it. */
	uint8_t unrouted[COMMAND_ROUTED_BYTES_MAX];
};

enum command_status {
	COMMAND_OK,
	COMMAND_BAD, /* out->error is the reply; out->verb is still set when it was known */
};

/*
 * Parses one line without its CR LF. address_bytes_max bounds the mailbox
 * (Exchange: 571). Errors and their replies (EXCHANGE 4.7):
 *   500 5.3.3 Unrecognized command        unknown verb
 *   501 5.5.4 Invalid domain name         EHLO, HELO with bad argument
 *   501 5.1.7 Invalid address             MAIL with a bad path (RCPT: 501 5.1.3)
 *   501 5.5.4 Invalid arguments           wrong form of anything else
 *   555 5.5.4 Unsupported option          an ESMTP parameter that this verb does not have
 * BDAT: size is digits only; no sign, no overflow past 2^63-1 (else COMMAND_BAD).
 * UTF-8 in a path is let through here (well-formed UTF-8 only); whether SMTPUTF8 was
 * announced is for the caller.
 */
NODISCARD enum command_status command_parse(
	struct span line, size_t address_bytes_max, struct command *out);

/* Does the path or a parameter hold a byte over 127? Then SMTPUTF8 is needed (RFC 6531 3.4). */
bool command_is_utf8(const struct command *command);

/* The verb as the RFC spells it, "?" for VERB_UNKNOWN; for logs. */
const char *verb_name(enum verb verb);
