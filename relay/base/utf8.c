/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/utf8.h"

size_t utf8_character(struct span text)
{
	uint8_t first = text.data[0];
	size_t len = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

	if (first < ' ' || first == 0x7f || (first >= 0x80 && first < 0xc2) || first > 0xf4 ||
		text.len < len)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((text.data[i] & 0xc0) != 0x80)
			return 0;
	if (len == 1)
		return 1;
	/* Longer than needed, a surrogate, beyond U+10FFFF, or a C1 control. */
	if ((first == 0xe0 && text.data[1] < 0xa0) || (first == 0xed && text.data[1] > 0x9f) ||
		(first == 0xf0 && text.data[1] < 0x90) || (first == 0xf4 && text.data[1] > 0x8f) ||
		(first == 0xc2 && text.data[1] < 0xa0))
		return 0;
	return len;
}
