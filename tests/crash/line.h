/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * line.h: a socket that is read by lines and by bytes, blocking, with a limit on every wait.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINE_BYTES_MAX 4096
#define LINE_WAIT_S 60

struct line {
	int fd;
	size_t at, end;
	char bytes[65536];
};

/* To 127.0.0.1; false: nobody is there. */
bool line_connect(struct line *line, uint16_t port);
void line_init(struct line *line, int fd);
void line_close(struct line *line);

/* The next line without its CR LF, with a NUL. False: the connection ended, or broke. */
bool line_read(struct line *line, char out[LINE_BYTES_MAX]);
/* Exactly so many bytes. */
bool line_read_bytes(struct line *line, char *out, size_t bytes);
/* Is something there already? */
bool line_has_more(const struct line *line);

bool line_write(const struct line *line, const char *bytes, size_t count);
bool line_say(const struct line *line, const char *text);

/* A reply of any number of lines: its code; -1: the connection ended. */
int line_reply(struct line *line);
