/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * version.h: what "postern --version" says of us, of our libraries, and of this kernel.
 */

/* Tries what the kernel can do; on standard output. */
void version_print(void);
