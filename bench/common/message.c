/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/message.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FNV_START 0xcbf29ce484222325ULL
#define FNV_PRIME 0x100000001b3ULL

/* A full line: 76 characters (RFC 2045 6.8) and its end. */
#define LINE_BYTES 78

static uint64_t fnv_add(uint64_t sum, const char *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		sum = (sum ^ (unsigned char)data[i]) * FNV_PRIME;
	return sum;
}

static size_t message_print_header(char *out, uint64_t id, uint64_t sum)
{
	/* All numbers have a fixed width, so that all headers have one length. */
	int len = snprintf(out, MESSAGE_HEADER_BYTES_MAX,
		"From: <load@client.test>\r\n"
		"To: <sink@nexthop.test>\r\n"
		"Date: Sat, 21 Nov 2026 12:00:00 +0000\r\n"
		"Message-ID: <%012" PRIu64 ".load@client.test>\r\n"
		"Subject: load %012" PRIu64 "\r\n"
		"MIME-Version: 1.0\r\n"
		"Content-Type: text/plain; charset=us-ascii\r\n"
		"X-Load-Id: %012" PRIu64 "\r\n"
		"X-Load-Sum: %016" PRIx64 "\r\n"
		"\r\n",
		id, id, id, sum);

	return (size_t)len;
}

static size_t message_print_tail(char *out, uint64_t id)
{
	return (size_t)snprintf(out, MESSAGE_TAIL_BYTES_MAX, "end of %012" PRIu64 "\r\n", id);
}

/* Writes line number index of at most left bytes; never leaves a single byte over. */
static size_t filler_line(char *out, size_t left, size_t index, uint64_t *random)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t bytes = left < LINE_BYTES ? left : LINE_BYTES;

	/* Lone dots are what a sloppy reader takes for the end, so have them too. */
	if (index % 64 == 63 && left >= 5)
		bytes = 3;
	if (left - bytes == 1)
		bytes -= 1;
	for (size_t i = 0; i + 2 < bytes; i++) {
		*random = *random * 6364136223846793005ULL + 1442695040888963407ULL;
		out[i] = letters[*random >> 58];
	}
	if (index % 16 == 15 && bytes > 2)
		out[0] = '.';
	out[bytes - 2] = '\r';
	out[bytes - 1] = '\n';
	return bytes;
}

int filler_create(struct filler *filler, size_t message_bytes, uint64_t seed)
{
	char scratch[MESSAGE_HEADER_BYTES_MAX];
	size_t around = message_print_header(scratch, 0, 0) + message_print_tail(scratch, 0);
	size_t bytes = message_bytes - around;
	size_t dotted = 0;
	size_t line;

	if (message_bytes < MESSAGE_BYTES_MIN)
		return -EINVAL;
	*filler = (struct filler){.plain = malloc(bytes), .dotted = malloc(2 * bytes)};
	if (filler->plain == NULL || filler->dotted == NULL) {
		filler_destroy(filler);
		return -ENOMEM;
	}
	for (size_t at = 0, index = 0; at < bytes; at += line, index++) {
		line = filler_line(filler->plain + at, bytes - at, index, &seed);
		if (filler->plain[at] == '.')
			filler->dotted[dotted++] = '.';
		memcpy(filler->dotted + dotted, filler->plain + at, line);
		dotted += line;
	}
	filler->plain_bytes = bytes;
	filler->dotted_bytes = dotted;
	filler->sum = fnv_add(FNV_START, filler->plain, bytes);
	return 0;
}

void filler_destroy(struct filler *filler)
{
	free(filler->plain);
	free(filler->dotted);
	*filler = (struct filler){0};
}

void message_init(struct message *message, const struct filler *filler, uint64_t id, bool is_dotted)
{
	message->filler = filler;
	message->is_dotted = is_dotted;
	message->tail_bytes = message_print_tail(message->tail, id);
	message->header_bytes = message_print_header(
		message->header, id, fnv_add(filler->sum, message->tail, message->tail_bytes));
	message->bytes = message->header_bytes + message->tail_bytes +
			 (is_dotted ? filler->dotted_bytes : filler->plain_bytes);
}

size_t message_copy(const struct message *message, size_t offset, char *out, size_t bytes)
{
	const struct filler *filler = message->filler;
	const struct {
		const char *data;
		size_t bytes;
	} pieces[] = {
		{message->header, message->header_bytes},
		{message->is_dotted ? filler->dotted : filler->plain,
			message->is_dotted ? filler->dotted_bytes : filler->plain_bytes},
		{message->tail, message->tail_bytes},
	};
	size_t done = 0;

	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		size_t part;

		if (offset >= pieces[i].bytes) {
			offset -= pieces[i].bytes;
			continue;
		}
		part = pieces[i].bytes - offset;
		part = part < bytes - done ? part : bytes - done;
		memcpy(out + done, pieces[i].data + offset, part);
		done += part;
		offset = 0;
	}
	return done;
}

void check_init(struct check *check)
{
	*check = (struct check){.sum = FNV_START};
}

/* Takes a header line in check->line, without its end. */
static void check_line(struct check *check)
{
	check->line[check->line_bytes] = '\0';
	if (check->line_bytes == 0) {
		check->in_body = true;
	} else if (strncasecmp(check->line, "X-Load-Id:", 10) == 0) {
		check->has_id = true;
		check->id = strtoull(check->line + 10, NULL, 10);
	} else if (strncasecmp(check->line, "X-Load-Sum:", 11) == 0) {
		check->has_sum = true;
		check->wanted = strtoull(check->line + 11, NULL, 16);
	}
	check->line_bytes = 0;
}

void check_feed(struct check *check, const char *data, size_t bytes)
{
	size_t at = 0;

	for (; at < bytes && !check->in_body; at++) {
		if (data[at] == '\n')
			check_line(check);
		else if (data[at] != '\r' && check->line_bytes < sizeof(check->line) - 1)
			check->line[check->line_bytes++] = data[at];
	}
	check->sum = fnv_add(check->sum, data + at, bytes - at);
}

enum check_result check_finish(const struct check *check)
{
	if (!check->has_id || !check->has_sum)
		return CHECK_FOREIGN;
	return check->sum == check->wanted ? CHECK_GOOD : CHECK_CORRUPT;
}
