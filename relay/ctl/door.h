/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * door.h: "posternctl door ...": what the door does (relay/doorman.h, bpf/loader.h).
 *
 *   door.c          the commands
 *   door_status.c   "door status" as tables
 *   door_top.c      "door top": what one screen says; door_screen.c: the terminal
 *   door_pins.c     the same from the pins, when no relay runs
 *   control_door.c  what the relay says of it, out of JSON (relay/control.h)
 */

#include "bpf/shared.h"
#include "relay/ctl/control.h"

extern const struct ctl_command ctl_door_commands[];

#define DOOR_TEXT_BYTES 128

/* A binding, a connector or a partner. */
struct door_row {
	char name[DOOR_TEXT_BYTES];
	unsigned slot;       /* of a binding */
	uint64_t generation; /* of a partner's list */
	uint64_t prefixes;   /* of a binding, of a partner */
	struct door_counts counts;
};

struct door_rows {
	struct door_row *rows;
	unsigned count;
};

struct door_lag {
	uint64_t below_us; /* 0: all that are slower */
	uint64_t turns;
};

#define DOOR_LAGS_MAX 32
#define DOOR_SHIELDS_MAX 8
#define DOOR_FOREIGN_MAX 16

struct door_status {
	char version[32];
	uint64_t pid, uptime_ms;
	char bpf[16];  /* as configured */
	char mode[16]; /* who decides: "kernel", "userspace"; "": no relay runs */
	char why[512];
	char folder[DOOR_TEXT_BYTES];
	bool taken_up; /* the pins of an earlier relay */
	uint64_t program_id, link_id, netns, own_netns;
	uint64_t foreign[DOOR_FOREIGN_MAX];
	unsigned foreign_count;
	bool foreign_known;
	struct {
		char interface[DOOR_TEXT_BYTES];
		uint64_t program_id;
	} shields[DOOR_SHIELDS_MAX];
	unsigned shield_count;
	struct door_rows bindings, connectors, partners;
	struct door_totals totals;
	bool has_lag;
	uint64_t lag_max_us;
	struct door_lag lags[DOOR_LAGS_MAX];
	unsigned lag_count;
};

/* A source that was refused lately. */
struct door_refusal {
	char peer[DOOR_TEXT_BYTES];
	char binding[DOOR_TEXT_BYTES];
	char reason[16];
	char connector[DOOR_TEXT_BYTES];
	char partner[DOOR_TEXT_BYTES];
	uint64_t count;
	uint64_t last_ms; /* ago */
};

struct door_refusals {
	struct door_refusal *rows;
	unsigned count;
};

/* What a binding says to an address. */
struct door_answer {
	char binding[DOOR_TEXT_BYTES];
	char connector[DOOR_TEXT_BYTES];
	char partner[DOOR_TEXT_BYTES];
	char prefix[DOOR_TEXT_BYTES];
	bool is_served, is_excluded, is_balancer;
};

struct door_answers {
	struct door_answer *rows;
	unsigned count;
};

/* ---- control_door.c: out of what the relay has answered. -EINVAL: it is not that; -ENOMEM */

NODISCARD int door_status_create(const char *text, size_t len, struct door_status *out);
void door_status_destroy(struct door_status *status);
NODISCARD int door_refusals_create(const char *text, size_t len, struct door_refusals *out);
void door_refusals_destroy(struct door_refusals *refusals);
NODISCARD int door_answers_create(const char *text, size_t len, struct door_answers *out);
void door_answers_destroy(struct door_answers *answers);

/* ---- */

/* For all reasons. */
uint64_t door_refused(const struct door_counts *counts);

#define DOOR_AGE_BYTES 48
/* "1 d 2 h", "3 min 4 s". Returns out. */
const char *door_print_age(uint64_t ms, char out[static DOOR_AGE_BYTES]);

void door_status_print(const struct ctl *ctl, const struct door_status *status);
void door_status_print_json(const struct door_status *status); /* as a relay has it */
/* What the relay has said, with the other programs of status. -EINVAL: it is no object. */
NODISCARD int door_status_print_text(
	const char *text, size_t len, const struct door_status *status);

/* From the pins; 0, -ENOENT if there are none, or -errno after a message. */
NODISCARD int door_pins_create(const char *folder, struct door_status *out);

/*
 * The relay has given up the privileges that asking for other programs needs; we may have them.
 * What cannot be found out stays unknown.
 */
void door_pins_find_foreign(const char *folder, struct door_status *status);

/* Until it is ended. A CTL status. */
int door_top(
	const struct control_place *place, const char *folder, int64_t interval_ms, int64_t count);
