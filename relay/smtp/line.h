/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * line.h: command and reply lines, ended by CR LF and by nothing else.
 *
 * Pure: cuts spans out of the caller's buffer, owns nothing, keeps no state.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"

enum line_status {
	LINE_OK,   /* a whole line */
	LINE_MORE, /* no CR LF yet, and still room for one */
	LINE_BARE, /* a whole line that holds a CR or LF which is no line ending */
	LINE_NUL,  /* a whole line that holds a NUL */
	LINE_LONG, /* no CR LF within the limit: skip with line_skip() */
};

/*
 * Cuts the next line off in. Unless LINE_MORE or LINE_LONG is returned, *out is
 * the line without its CR LF and points into in; the caller consumes
 * out->len + 2 bytes. line_bytes_max counts the CR LF (RFC 5321 4.5.3.1.4).
 *
 * CR LF is the only line ending (RFC 5321 2.3.8). A bare CR or LF is LINE_BARE,
 * not an ending: a second server might read it as one, and then the two
 * disagree on where a command ends.
 */
NODISCARD enum line_status line_next(struct span in, size_t line_bytes_max, struct span *out);

/*
 * Skips the rest of a line that was too long. Returns true when its CR LF was
 * found; *consumed is what to drop either way (a final CR stays, since its LF
 * may come next).
 */
NODISCARD bool line_skip(struct span in, size_t *consumed);
