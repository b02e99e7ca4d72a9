/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/letter.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LETTER_FIELD "X-Crash: "
#define LETTER_LINE_BYTES 76
#define LETTER_HASH_TEXT_BYTES 65
#define LETTER_HEADER_BYTES_MAX 256

/* splitmix64 */
uint64_t letter_lot(uint64_t a, uint64_t b)
{
	uint64_t mixed = a * 0x9e3779b97f4a7c15U + b + 0x9e3779b97f4a7c15U;

	mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9U;
	mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebU;
	return mixed ^ (mixed >> 31);
}

/* Most are small, as mail is; some fill more than one buffer of the relay, a few many segments. */
size_t letter_body_bytes(uint64_t id)
{
	uint64_t lot = letter_lot(id, 1);
	uint64_t kind = lot % 256;

	lot >>= 8;
	if (kind == 0)
		return LETTER_BYTES_MAX - lot % 5000;
	if (kind < 24)
		return 20000 + lot % 184800;
	if (kind < 96)
		return 2000 + lot % 18000;
	return 200 + lot % 1800;
}

unsigned letter_rcpts(uint64_t id)
{
	uint64_t lot = letter_lot(id, 2) % 8;

	return lot < 6 ? 1 : lot == 6 ? 2 : LETTER_RCPTS_MAX;
}

static void letter_hash(
	uint64_t id, const char *body, size_t bytes, char out[static LETTER_HASH_TEXT_BYTES])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	char number[17];
	EVP_MD_CTX *hash = EVP_MD_CTX_new();

	(void)snprintf(number, sizeof(number), "%016" PRIx64, id);
	if (hash == NULL || EVP_DigestInit_ex(hash, EVP_sha256(), NULL) != 1 ||
		EVP_DigestUpdate(hash, number, 16) != 1 ||
		EVP_DigestUpdate(hash, body, bytes) != 1 ||
		EVP_DigestFinal_ex(hash, digest, &len) != 1)
		abort();
	EVP_MD_CTX_free(hash);
	for (unsigned i = 0; i < 32; i++)
		(void)snprintf(out + 2 * (size_t)i, 3, "%02x", digest[i]);
}

/* Lines of text; one in eight begins with a dot, and some are nothing but one. */
static size_t letter_fill(uint64_t id, char *out, size_t bytes)
{
	static const char alphabet[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,";
	uint64_t lot = letter_lot(id, 3);
	size_t at = 0;

	while (at + LETTER_LINE_BYTES + 2 < bytes || at == 0) {
		size_t length = LETTER_LINE_BYTES;
		size_t line = at;

		lot = letter_lot(lot, at);
		if (lot % 32 == 0)
			length = 1;
		else if (lot % 32 == 1)
			length = 0;
		for (uint64_t word = lot; at - line < length; word = letter_lot(word, at)) {
			for (unsigned i = 0; i < 10 && at - line < length; i++)
				out[at++] = alphabet[(word >> (6 * i)) & 63];
		}
		if (length > 0 && (lot >> 60) % 8 == 0)
			out[line] = '.';
		out[at++] = '\r';
		out[at++] = '\n';
	}
	return at;
}

void letter_make(uint64_t id, struct letter *out)
{
	size_t room = letter_body_bytes(id) + (size_t)2 * LETTER_LINE_BYTES;
	char *body = malloc(room);
	char hash[LETTER_HASH_TEXT_BYTES];
	size_t body_bytes;
	int header_bytes;

	*out = (struct letter){.id = id, .rcpts = letter_rcpts(id)};
	out->text = malloc(room + LETTER_HEADER_BYTES_MAX);
	if (body == NULL || out->text == NULL)
		abort();
	body_bytes = letter_fill(id, body, letter_body_bytes(id));
	letter_hash(id, body, body_bytes, hash);
	header_bytes = snprintf(out->text, LETTER_HEADER_BYTES_MAX,
		LETTER_FIELD "%016" PRIx64 " %s\r\nSubject: crash %" PRIu64 "\r\n\r\n", id, hash,
		id);
	memcpy(out->text + header_bytes, body, body_bytes);
	out->bytes = (size_t)header_bytes + body_bytes;
	free(body);
}

void letter_free(struct letter *letter)
{
	free(letter->text);
	letter->text = NULL;
}

/* The line that begins like this, of a header that ends before end; NULL: there is none. */
static const char *letter_find_field(const char *text, const char *end)
{
	const size_t length = sizeof(LETTER_FIELD) - 1;

	while (text < end) {
		const char *next = memchr(text, '\n', (size_t)(end - text));

		if ((size_t)(end - text) >= length && memcmp(text, LETTER_FIELD, length) == 0)
			return text + length;
		text = next == NULL ? end : next + 1;
	}
	return NULL;
}

bool letter_is_good(const char *text, size_t bytes, uint64_t *id)
{
	const char *body = memmem(text, bytes, "\r\n\r\n", 4);
	const char *field;
	char hash[LETTER_HASH_TEXT_BYTES];
	char *rest;

	*id = UINT64_MAX;
	if (body == NULL)
		return false;
	field = letter_find_field(text, body);
	if (field == NULL || body - field < 17 + LETTER_HASH_TEXT_BYTES - 1)
		return false;
	*id = strtoull(field, &rest, 16);
	if (rest != field + 16)
		return false;
	body += 4;
	letter_hash(*id, body, bytes - (size_t)(body - text), hash);
	return memcmp(field + 17, hash, sizeof(hash) - 1) == 0;
}
