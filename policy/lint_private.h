/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * lint_private.h: private to policy/. What lint.c, lint_door.c and lint_queue.c share.
 */

#include "policy/lint.h"

struct finding {
	char *text;
	unsigned line;
	unsigned order; /* as it was found; keeps the sort stable */
};

struct lint {
	const struct policy *policy;
	FILE *out;
	struct finding *findings;
	unsigned count;   /* of findings that wait for their turn */
	unsigned printed; /* without waiting, for want of memory */
};

/* "what; remedy" at that line. */
void lint_find(struct lint *lint, unsigned line, const char *format, ...) PRINTF_LIKE(3, 4);

/* Who may connect; lint_door.c. */
void lint_receive_door(struct lint *lint, const struct receive_connector *connector);
void lint_partner_list(struct lint *lint, const struct partner *partner);
void lint_list_folder(struct lint *lint);

/* What is kept, and what comes of it; lint_queue.c. */
void lint_queue(struct lint *lint);
