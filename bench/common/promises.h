/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * promises.h: reads the ledgers of load (ledger.h) into seen.h, as far as they have grown.
 */

#include "bench/common/seen.h"

/* Files and folders that may be named, and files of all of them together that are followed. */
#define PROMISES_FILES_MAX 256

struct promises;

/* paths: files, which need not be there yet, and folders, whose files all count. NULL: no memory.
 */
struct promises *promises_create(const char *const *paths, size_t count);
void promises_destroy(struct promises **promises);

/* Reads what is new. 0, or -errno: then something that was promised is not known. */
int promises_read(struct promises *promises, struct seen *seen);

/* What is in the files now counts no more; of a file that is made anew all does. */
int promises_skip(struct promises *promises);
