/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * compose.h: MAIL and RCPT lines for a next hop, from the client's.
 *
 * Pure. Only what was parsed goes out again, in one form: a parameter that we
 * did not understand, or that means nothing to the next hop, is not passed on.
 */

#include "relay/base/assert.h"
#include "relay/smtp/command.h"

/*
 * Writes the MAIL line with its CR LF. size_extra is added to a SIZE that was announced; offer are
 * the next hop's keywords (enum ehlo_keyword bits). Returns the length, 0 if it does not fit.
 */
NODISCARD size_t compose_mail(const struct command *command, uint64_t size_extra, unsigned offer,
	uint8_t *out, size_t out_bytes);

/* Writes the RCPT line with its CR LF. Returns the length, 0 if it does not fit. */
NODISCARD size_t compose_rcpt(const struct command *command, uint8_t *out, size_t out_bytes);

/* What the next hop must offer for this MAIL or RCPT to mean the same there; EHLO keyword bits. */
unsigned compose_needs(const struct command *command);
