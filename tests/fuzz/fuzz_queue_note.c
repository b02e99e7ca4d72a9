/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_queue_note.c: notes of queues, of any bytes. What was understood has ends where its fields
 * have, and no line in a line.
 */

#include "relay/mail/queues_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_check_line(const char *text, size_t bytes)
{
	ASSERT(memchr(text, '\0', bytes) != NULL);
	ASSERT(strchr(text, '\n') == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct queue_note_text note;

	if (!queue_note_read(span_make(data, size), &note))
		return 0;
	fuzz_check_line(note.connector, sizeof(note.connector));
	fuzz_check_line(note.domain, sizeof(note.domain));
	fuzz_check_line(note.redirect, sizeof(note.redirect));
	ASSERT(memchr(note.error, '\0', sizeof(note.error)) != NULL);
	return 0;
}
