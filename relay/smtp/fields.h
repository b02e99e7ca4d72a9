/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * fields.h: reads what people know a message by out of its header as it passes: Message-ID and
 * Subject; and how long the header is, and whether it has bytes over 127.
 *
 * Pure and incremental: any split of the input gives the same result. Of a field that is there
 * twice the first counts. Values are unfolded (RFC 5322 2.2.3) and trimmed; CR, LF, NUL and other
 * controls are in none of them.
 */

#include "relay/base/span.h"

/* A longer Message-ID is none; RFC 5322 2.1.1 lets a line have 998 bytes. */
#define FIELDS_MESSAGE_ID_BYTES 500

/* A longer Subject is cut, between characters. */
#define FIELDS_SUBJECT_BYTES 250

struct fields {
	bool is_done;   /* the empty line was seen: the rest is body */
	bool is_utf8;   /* the header has bytes over 127 */
	uint64_t bytes; /* of the header so far, with the empty line */
	/* private; fields_message_id() and fields_subject() give them out */
	uint8_t state;
	uint8_t matching; /* names that the line may begin with, as bits */
	uint8_t matched;  /* bytes of them */
	uint8_t field;    /* whose value is read */
	uint8_t has;      /* fields that are complete, as bits */
	bool is_long;     /* the Message-ID does not fit */
	bool is_cut;      /* the Subject did not fit */
	uint16_t message_id_len;
	uint16_t subject_len;
	char message_id[FIELDS_MESSAGE_ID_BYTES];
	char subject[FIELDS_SUBJECT_BYTES];
};

void fields_init(struct fields *fields);

/* Looks at the next piece of the unstuffed message. Returns at once when is_done. */
void fields_scan(struct fields *fields, struct span text);

/* Valid while fields is; empty if there is none. */
struct span fields_message_id(const struct fields *fields);
struct span fields_subject(const struct fields *fields);
