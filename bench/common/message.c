/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/message.h"

#include "bench/common/crc64.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A full line: 76 characters (RFC 2045 6.8) and its end. */
#define LINE_BYTES 78

/* All numbers have a fixed width, so that all headers have one length. */
#define ID_BYTES 12
#define HEX_BYTES 16

/* What is being written; printf would cost more than all the rest of a small message. */
struct pen {
	char *at;
};

static void pen_bytes(struct pen *pen, const char *text, size_t bytes)
{
	memcpy(pen->at, text, bytes);
	pen->at += bytes;
}

#define PEN_WORD(pen, literal) pen_bytes(pen, literal, sizeof(literal) - 1)

static void pen_id(struct pen *pen, uint64_t id)
{
	for (unsigned int i = ID_BYTES; i-- > 0; id /= 10)
		pen->at[i] = (char)('0' + id % 10);
	pen->at += ID_BYTES;
}

static void pen_hex(struct pen *pen, uint64_t value)
{
	for (unsigned int i = HEX_BYTES; i-- > 0; value >>= 4)
		pen->at[i] = "0123456789abcdef"[value & 15];
	pen->at += HEX_BYTES;
}

static size_t message_write_header(
	char *out, const struct filler *filler, uint64_t run, uint64_t id, uint64_t sum)
{
	struct pen pen = {.at = out};

	PEN_WORD(&pen, "Date: ");
	pen_bytes(&pen, filler->date, MESSAGE_DATE_BYTES);
	PEN_WORD(&pen, "\r\nFrom: <load@client.test>\r\n"
		       "To: <sink@nexthop.test>\r\n"
		       "Message-ID: <");
	pen_hex(&pen, run);
	PEN_WORD(&pen, ".");
	pen_id(&pen, id);
	PEN_WORD(&pen, "@client.test>\r\nSubject: load ");
	pen_id(&pen, id);
	PEN_WORD(&pen, "\r\nMIME-Version: 1.0\r\n"
		       "Content-Type: text/plain; charset=us-ascii\r\n"
		       "X-Load-Run: ");
	pen_hex(&pen, run);
	PEN_WORD(&pen, "\r\nX-Load-Id: ");
	pen_id(&pen, id);
	PEN_WORD(&pen, "\r\nX-Load-Sum: ");
	pen_hex(&pen, sum);
	PEN_WORD(&pen, "\r\n\r\n");
	return (size_t)(pen.at - out);
}

static size_t message_write_tail(char *out, uint64_t id)
{
	struct pen pen = {.at = out};

	PEN_WORD(&pen, "end of ");
	pen_id(&pen, id);
	PEN_WORD(&pen, "\r\n");
	return (size_t)(pen.at - out);
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
	time_t now = time(NULL);
	size_t bytes = message_bytes;
	size_t dotted = 0;
	struct tm utc;
	size_t line;

	if (message_bytes < MESSAGE_BYTES_MIN)
		return -EINVAL;
	*filler = (struct filler){0};
	gmtime_r(&now, &utc);
	(void)strftime(filler->date, sizeof(filler->date), "%a, %d %b %Y %H:%M:%S +0000", &utc);
	bytes -= message_write_header(scratch, filler, 0, 0, 0) + message_write_tail(scratch, 0);
	filler->plain = malloc(bytes);
	filler->dotted = malloc(2 * bytes);
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
	filler->sum = crc64(0, filler->plain, bytes);
	return 0;
}

void filler_destroy(struct filler *filler)
{
	free(filler->plain);
	free(filler->dotted);
	*filler = (struct filler){0};
}

void message_init(struct message *message, const struct filler *filler, uint64_t run, uint64_t id,
	bool is_dotted)
{
	message->filler = filler;
	message->is_dotted = is_dotted;
	message->tail_bytes = message_write_tail(message->tail, id);
	message->header_bytes = message_write_header(message->header, filler, run, id,
		crc64(filler->sum, message->tail, message->tail_bytes));
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
	/* Not the line, which is written before it is read. */
	check->run = check->id = check->sum = check->wanted = 0;
	check->line_bytes = 0;
	check->in_body = check->has_run = check->has_id = check->has_sum = false;
}

/* Takes a header line in check->line, without its end. */
static void check_line(struct check *check)
{
	char *line = check->line;

	if (check->line_bytes > 0 && line[check->line_bytes - 1] == '\r')
		check->line_bytes--;
	line[check->line_bytes] = '\0';
	if (check->line_bytes == 0) {
		check->in_body = true;
	} else if (strncasecmp(line, "X-Load-", 7) != 0) {
		/* Another's. */
	} else if (strncasecmp(line + 7, "Run:", 4) == 0) {
		check->has_run = true;
		check->run = strtoull(line + 11, NULL, 16);
	} else if (strncasecmp(line + 7, "Id:", 3) == 0) {
		check->has_id = true;
		check->id = strtoull(line + 10, NULL, 10);
	} else if (strncasecmp(line + 7, "Sum:", 4) == 0) {
		check->has_sum = true;
		check->wanted = strtoull(line + 11, NULL, 16);
	}
	check->line_bytes = 0;
}

void check_feed(struct check *check, const char *data, size_t bytes)
{
	while (bytes > 0 && !check->in_body) {
		const char *end = memchr(data, '\n', bytes);
		size_t part = end != NULL ? (size_t)(end - data) : bytes;
		size_t room = sizeof(check->line) - 1 - check->line_bytes;
		size_t kept = part < room ? part : room;

		memcpy(check->line + check->line_bytes, data, kept);
		check->line_bytes += kept;
		if (end != NULL) {
			check_line(check);
			part++;
		}
		data += part;
		bytes -= part;
	}
	if (bytes > 0)
		check->sum = crc64(check->sum, data, bytes);
}

enum check_result check_finish(const struct check *check)
{
	if (!check->has_run || !check->has_id || !check->has_sum)
		return CHECK_FOREIGN;
	return check->sum == check->wanted ? CHECK_GOOD : CHECK_CORRUPT;
}
