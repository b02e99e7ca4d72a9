/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/crc32c.h"

#include <isa-l/crc.h>

/* What ISA-L takes at a time: its length is an int. */
#define PIECE_BYTES ((size_t)1 << 30)

uint32_t crc32c(uint32_t crc, struct span bytes)
{
	uint32_t state = ~crc;

	while (bytes.len > 0) {
		const struct span piece = span_head(bytes, PIECE_BYTES);

		/* It only reads, but says so nowhere. */
		state = crc32_iscsi((unsigned char *)(uintptr_t)piece.data, (int)piece.len, state);
		bytes = span_skip(bytes, piece.len);
	}
	return ~state;
}
