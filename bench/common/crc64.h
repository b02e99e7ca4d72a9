/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * crc64.h: the checksum of the messages of load (ECMA-182, reflected): ISA-L's, which takes a few
 * gigabytes a second, so that whoever gets the messages can always check them.
 */

#include <stddef.h>
#include <stdint.h>

/* Of crc's bytes (0: none so far) and then these. */
uint64_t crc64(uint64_t crc, const void *data, size_t bytes);
