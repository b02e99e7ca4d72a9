/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * privilege.h: from who started us to who runs. Only privilege.c includes libcap-ng.
 */

#include "relay/base/assert.h"
#include <stdio.h>
#include <sys/resource.h>

/*
 * For good: no new privileges by programs that are executed, user's identity and group (if it is
 * named and we are root), and no capabilities: not effective, permitted, inheritable or
 * ambient, nor, where that may be changed, in the bounding set. So a start as another user with
 * ambient CAP_BPF, CAP_NET_ADMIN and CAP_NET_BIND_SERVICE ends without them, too.
 *
 * Before there are other threads, as capabilities are each thread's own. -errno.
 */
NODISCARD int drop_privileges(const char *user);

/*
 * Before that: makes a folder that is missing, where the user could not, and gives it to the user.
 * Nothing without path or user, or if we are not root. -errno, with a line on errors.
 */
NODISCARD int privilege_make_folder(const char *path, const char *user, FILE *errors);

/* Also before: that many files may be open at a time, if we may allow it. How many may be. */
rlim_t privilege_allow_files(rlim_t need);
