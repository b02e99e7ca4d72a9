/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * crc32c.h: the checksum of the spool (Castagnoli, RFC 3720 12.1). The only user of ISA-L.
 */

#include "relay/base/span.h"

/* Of crc's bytes (0: none so far) and then these. */
uint32_t crc32c(uint32_t crc, struct span bytes);
