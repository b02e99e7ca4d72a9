/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * door_screen.h: a terminal that is drawn on again and again, or, where standard output is none,
 * blocks of text one after another.
 *
 * On a terminal a frame is drawn over the one before without clearing in between, on the alternate
 * screen, which leaves what was there before as it was. However it ends (a key, a signal), the
 * cursor and the terminal's modes are restored; ^Z too works as elsewhere.
 */

#include "relay/base/assert.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCREEN_LINES_MAX 200
#define SCREEN_LINE_BYTES 512

enum screen_style {
	SCREEN_PLAIN,
	SCREEN_TITLE, /* reversed */
	SCREEN_HEAD,  /* bold: over a table */
	SCREEN_ALERT, /* red and bold */
	SCREEN_WARM,  /* yellow: it is being refused */
	SCREEN_FAINT,
};

struct screen_line {
	char text[SCREEN_LINE_BYTES];
	enum screen_style style;
};

/* What is to be seen: lines from the top. More than there is room for are cut. */
struct screen_frame {
	struct screen_line lines[SCREEN_LINES_MAX];
	unsigned count;
};

/* Adds a line; control characters in it become "?". */
void screen_add(struct screen_frame *frame, enum screen_style style, const char *format, ...)
	PRINTF_LIKE(3, 4);

struct screen_size {
	unsigned rows, columns;
};

enum screen_wish {
	SCREEN_NEXT,   /* the time is over */
	SCREEN_AGAIN,  /* draw it anew: the size has changed, or a key asked for it */
	SCREEN_FINISH, /* q, ^C, a signal, or nobody reads us any more */
};

/* Takes the terminal. False: standard output is none. */
bool screen_open(void);
void screen_close(void);

/* Of the terminal; without one, 80 columns and as many rows as a frame can have. */
struct screen_size screen_size(void);

/* Shows the frame. False: nobody reads it any more. */
bool screen_draw(const struct screen_frame *frame);

/* Waits until then (clock_now_ms()). */
enum screen_wish screen_wait(uint64_t due_ms);
