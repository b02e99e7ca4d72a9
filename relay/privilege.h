/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * privilege.h: from who started us to who runs. Only privilege.c includes libcap-ng.
 */

#include "relay/base/assert.h"

/*
 * For good: no new privileges by programs that are executed, user's identity and group (if it is
 * named and we are root), and no capabilities: not effective, permitted, inheritable or
 * ambient, nor, where that may be changed, in the bounding set. So a start as another user with
 * ambient CAP_BPF, CAP_NET_ADMIN and CAP_NET_BIND_SERVICE ends without them, too.
 *
 * Before there are other threads, as capabilities are each thread's own. -errno.
 */
NODISCARD int drop_privileges(const char *user);
