/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * chars.h: the character classes of SMTP's grammar, and decimal numbers.
 *
 * ASCII only and without the locale: what <ctype.h> answers depends on the
 * environment, what a peer may send does not.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"

static inline bool char_is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

static inline bool char_is_let_dig(uint8_t c)
{
	return char_is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

/* An upper-case hexadecimal digit, the only kind that xtext knows (RFC 3461 4). */
static inline bool char_is_hex(uint8_t c)
{
	return char_is_digit(c) || (c >= 'A' && c <= 'F');
}

/* Printable ASCII without the space. */
static inline bool char_is_graphic(uint8_t c)
{
	return c > 32 && c < 127;
}

/* What an atom is made of (RFC 5322 3.2.3). */
static inline bool char_is_atext(uint8_t c)
{
	return char_is_let_dig(c) || (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

/* Is there at least one digit and nothing else? Then *out is the number, UINT64_MAX at most. */
NODISCARD static inline bool chars_to_number(struct span digits, uint64_t *out)
{
	uint64_t number = 0;

	for (size_t i = 0; i < digits.len; i++) {
		uint64_t digit = (uint64_t)digits.data[i] - '0';

		if (!char_is_digit(digits.data[i]))
			return false;
		if (number > (UINT64_MAX - digit) / 10)
			number = UINT64_MAX;
		else
			number = number * 10 + digit;
	}
	*out = number;
	return digits.len > 0;
}
