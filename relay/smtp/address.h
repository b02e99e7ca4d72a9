/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * address.h: the paths, mailboxes and domains of commands (RFC 5321 4.1.2), with
 * the UTF-8 that RFC 6531 3.3 adds to them.
 *
 * Pure. The "take" functions read from the start of *rest and move it behind
 * what they read; when they return false, *rest stands somewhere in the middle.
 * Blanks and comments are not SMTP: there are none inside a path.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"

struct address_path {
	struct span mailbox; /* "a@b"; empty for the null path */
	struct span domain;  /* behind the "@"; empty for the null path and for "postmaster" */
	struct span whole;   /* with its brackets and with a source route, if there is one */
	bool has_route;
};

/*
 * Takes "<...>": a mailbox, a mailbox behind a source route (RFC 5321 appendix C),
 * nothing, or "postmaster" without a domain. Which of these the command allows
 * is for the caller to say.
 */
NODISCARD bool address_take_path(struct span *rest, struct address_path *out);

/* Takes a domain name, or an address literal: [192.0.2.1] or [IPv6:2001:db8::1]. */
NODISCARD bool address_take_domain(struct span *rest);

/* Is all of text well-formed UTF-8 (RFC 3629 4)? ASCII is. */
NODISCARD bool address_is_utf8(struct span text);
