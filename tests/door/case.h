/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * case.h: the cases of the door.
 */

#include "tests/door/daemon.h"
#include "tests/door/knock.h"

/* Who decides: a case runs once for each of these that it names. */
#define BY_KERNEL 1U /* bpf = required */
#define BY_USER 2U   /* bpf = off: strangers are accepted and closed, all else is the same */

struct door_case {
	const char *name;
	void (*run)(bool by_kernel);
	unsigned by;
	unsigned minutes_max; /* 0: one */
};

struct door_table {
	const struct door_case *rows;
	unsigned count;
};

extern const struct door_table case_rules;   /* who comes in, and to which connector */
extern const struct door_table case_quiet;   /* refusals wake nobody; others are untouched */
extern const struct door_table case_restart; /* down, restarted, upgraded, reloaded */
extern const struct door_table case_change;  /* lists that change by the control socket */
extern const struct door_table case_fault;   /* corrupt pins, full maps, no memory, killed */
extern const struct door_table case_live;    /* whole sets replaced under load */

/* "required" or "off". */
const char *case_bpf(bool by_kernel);

/* How a stranger's knock ends. */
#define STRANGER(by_kernel) ((by_kernel) ? 1U << KNOCK_REFUSED : 1U << KNOCK_CLOSED)
#define SERVED (1U << KNOCK_SERVED)

/* What is said of a case that went well, behind its "ok". */
void case_note(const char *format, ...) PRINTF_LIKE(1, 2);

/* Does a connection from there to CASE_V4 come through to whoever listens? No relay does. */
bool case_passes(const char *from);
/* Listens there in a relay's place. */
int case_listen(void);

/*
 * The usual relay: "friends" is the connector at 192.0.2.25 and 2001:db8::25, for 10.1.0.0/16,
 * 2001:db8:1::/48 and the list of partner "friends" (NULL: there is neither partner nor list).
 */
void case_begin(struct daemon *daemon, bool by_kernel, const char *list);
#define CASE_V4 "192.0.2.25"
#define CASE_V6 "2001:db8::25"
#define CASE_BINDINGS "\"192.0.2.25:2525\", \"[2001:db8::25]:2525\""
#define CASE_RANGES "\tremote-ip-ranges = {\"10.1.0.0/16\", \"2001:db8:1::/48\"}\n"
