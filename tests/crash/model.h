/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * model.h: a relay in a page, in the place of the real one, to show that the driver finds what it
 * looks for, and nothing else. One file for each message.
 *
 *   store      writes, flushes, says 250, delivers, removes the file: right
 *   unflushed  the same without a flush: right for a killed process, wrong for a power cut
 *   ack        says 250, delivers from memory: loses what it has at a kill
 *   forgetful  never removes the file: delivers again after each start
 */

#include <stdbool.h>
#include <stddef.h>

#define MODEL_WORD "--be-the-model"

/* A message: the commands of its envelope, NUL, and its text. */
struct model_mail {
	struct model_mail *next;
	unsigned long number;
	void *own; /* the keeper's */
	char *bytes;
	size_t len, cap;
};

/* Where messages are kept; called by many threads. */
struct model_keeper {
	bool (*store)(struct model_mail *mail); /* true: it is safe, 250 is said */
	void (*done)(struct model_mail *mail);  /* it is delivered, and will be freed */
};

struct model_mail *model_mail_create(void);
void model_mail_add(struct model_mail *mail, const char *bytes, size_t len);

/* It is kept, and to be delivered. */
void model_queue(struct model_mail *mail);

/* Serves the ports of the relay's configuration. Does not return, but with 2 if there are none. */
int model_serve(const char *config, const struct model_keeper *keeper);

/* Does not return unless the words make no sense: 2. */
int model_run(const char *kind, const char *config, const char *spool);
