/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * queue_ask_private.h: what the files of questions share: queue_ask.c about queues,
 * queue_ask_message.c about messages.
 */

#include "relay/mail/queues_private.h"

/* Is that the queue that is meant? */
bool ask_is_named(const char *filter, const char *identity);

/* One more that fits: its row, or NULL if it is only counted. */
void *ask_take_row(struct queue_ask *ask, void *rows, size_t row_bytes);

/* A slice. */
void ask_messages(struct queues *queues, struct queue_ask *ask);
