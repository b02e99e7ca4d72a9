/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * message.h: the messages that load sends and sink can check.
 *
 *   header:  Date From To Message-ID Subject MIME-Version Content-Type (RFC 5322, RFC 2045),
 *            X-Load-Run: HEX16  X-Load-Id: NUMBER  X-Load-Sum: HEX16
 *   filler:  lines of 76 characters, some of which start with a dot; the same in every message
 *   tail:    one line with the number again, so that no two bodies are the same
 *
 * The run is a number of one run of load, by which several at once are told apart. The sum is
 * CRC-64 (crc64.h) over what follows the header's empty line, dots unstuffed. It goes through the
 * filler once, when the filler is made; a message only adds its tail.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MESSAGE_HEADER_BYTES_MAX 512
#define MESSAGE_TAIL_BYTES_MAX 64
#define MESSAGE_BYTES_MIN 512
#define MESSAGE_DATE_BYTES 31
#define MESSAGE_ID_MAX 999999999999ULL

/* What is the same in all messages of a size. */
struct filler {
	char *plain;  /* for BDAT */
	char *dotted; /* for DATA: dots at line starts doubled */
	size_t plain_bytes;
	size_t dotted_bytes;
	uint64_t sum;
	char date[MESSAGE_DATE_BYTES + 1]; /* of all its messages (RFC 5322 3.3) */
};

/* One message: three pieces in a row. */
struct message {
	const struct filler *filler;
	bool is_dotted;
	size_t header_bytes;
	size_t tail_bytes;
	size_t bytes; /* all pieces, in the form that is sent */
	char header[MESSAGE_HEADER_BYTES_MAX];
	char tail[MESSAGE_TAIL_BYTES_MAX];
};

/* Makes the filler of messages that have message_bytes, unstuffed; the seed picks its letters. */
int filler_create(struct filler *filler, size_t message_bytes, uint64_t seed);
void filler_destroy(struct filler *filler);

/* Begins message number id, at most MESSAGE_ID_MAX, of a run. Costs as little as it can. */
void message_init(struct message *message, const struct filler *filler, uint64_t run, uint64_t id,
	bool is_dotted);

/* Copies up to bytes of the message from offset on; returns how many, 0 at its end. */
size_t message_copy(const struct message *message, size_t offset, char *out, size_t bytes);

enum check_result {
	CHECK_GOOD,    /* the sum is right */
	CHECK_CORRUPT, /* it is not */
	CHECK_FOREIGN, /* run, number and sum are not all in the header: not one of ours */
};

/* Reads a message as it comes in, unstuffed, in any pieces. */
struct check {
	uint64_t run;
	uint64_t id;
	uint64_t sum;
	uint64_t wanted;
	size_t line_bytes;
	bool in_body;
	bool has_run;
	bool has_id;
	bool has_sum;
	char line[80]; /* the start of the current header line */
};

void check_init(struct check *check);
void check_feed(struct check *check, const char *data, size_t bytes);
enum check_result check_finish(const struct check *check);
