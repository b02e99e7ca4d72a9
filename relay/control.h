/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * control.h: the socket control-socket, by which posternctl changes lists and looks at the door.
 *
 * A connection carries one request and one answer, each a JSON object on a line of at most 64 KiB,
 * followed by as many bytes as its "bytes" says (absent: none). Who asks is known by the
 * kernel (SO_PEERCRED), and stands in the log. Root, the relay's own user and members of
 * control-group may connect; what they may do then is the same.
 *
 *   {"command": "partner-ip-list", "partner": "fabrikam"}
 *   {"command": "partner-ip-add", "partner": "fabrikam", "bytes": 13,
 *    "expect_generation": 17, "dry_run": true, "end_sessions": true}     the last three optional
 *   "192.0.2.0/24\n"
 *        also "partner-ip-remove", "partner-ip-replace"; the bytes are lines as in ip_list.h
 *   {"command": "partner-ip-test", "partner": "fabrikam", "ip": "192.0.2.7"}
 *        partner may be absent: then what every binding says to that address
 *   {"command": "door-status"}, {"command": "door-refusals", "limit": 20}
 *
 *   {"ok": true, "generation": 18, "added": 1, "removed": 0, "kept": 3, "sessions_ended": 0,
 *    "effect_us": 310}
 *   {"ok": true, "generation": 18, "count": 4, "bytes": 50}, and the list
 *   {"ok": true, "bytes": 900}, and an object: what was asked for, as below
 *   {"ok": false, "error": "expected-generation", "message": "...", "generation": 19}
 *
 * error is one of: bad-request, unknown-partner, exists, absent, expected-generation, conflict,
 * no-memory, disk, kernel. message is for people: what is wrong and what can be done.
 *
 * What partner-ip-test, door-refusals and door-status tell may be long, so it is behind the line:
 *
 *   {"bindings": [{"binding": "192.0.2.1:25", "served": true, "connector": "From partners",
 *      "partner": "fabrikam", "prefix": "192.0.2.0/24", "excluded": false, "balancer": false}]}
 *        not served: neither connector nor partner, or excluded and whose list says so
 *   {"refusals": [{"peer": "203.0.113.9", "binding": "192.0.2.1:25", "reason": "stranger",
 *      "connector": "", "partner": "", "count": 17, "last_ms": 250}]}
 *        sources that were refused lately, the most often refused first; last_ms: ago
 *   {"version": "0.1.0", "pid": 4711, "uptime_ms": 86400000,
 *    "bpf": "auto", "mode": "kernel", "why": "",              mode: or "userspace", and why
 *    "program_id": 71, "link_id": 12, "folder": "/sys/fs/bpf/postern/v1", "taken_up": false,
 *    "netns": 4026531840, "own_netns": 4026531840,            attached to; the relay's own
 *    "foreign": [33], "foreign_known": true,                  other sk_lookup programs
 *    "shields": [{"interface": "eth0", "program_id": 72}],
 *    "bindings": [{"binding": "192.0.2.1:25", "slot": 0, "prefixes": 24, COUNTS}],
 *    "connectors": [{"name": "From partners", COUNTS}],
 *    "partners": [{"name": "fabrikam", "generation": 18, "prefixes": 21, COUNTS}],
 *    "totals": {"lookups": 9, "others": 1, "events_held": 0, "events_lost": 0,
 *      "shield_drops": 0},
 *    "gate_bytes": 1312,                                      tries and lists in the relay
 *    "loop_lag": {"max_us": 900, "counts": [{"below_us": 100, "turns": 41234}, ...]}}
 *        below_us 0: those that took longer than all before
 *        COUNTS: "passed": 9, "stranger": 1, "excluded": 0, "rate": 0, "mapped": 0
 *        In mode userspace program_id to shields are absent, and totals are 0.
 *
 * An unknown key is a bad request: it may have meant something that would not be done. conflict is
 * also what the configuration does not allow, disk a list that was changed by hand and not read
 * again.
 *
 * Requests are carried out one after another on the control thread; one that is not there within
 * ten seconds, or is too long, is refused and closed. Others may be slow meanwhile. The thread
 * also reads refusals from the kernel's ring and logs them ("refused",
 * why=stranger|excluded|rate).
 */

#include "relay/doorman.h"

struct control;

/*
 * While privileges are there: makes the socket, replacing one that nobody listens on; its owner is
 * policy->user, its group control-group, its mode 0660 (without one 0600). -EADDRINUSE: a relay
 * listens there. With a NULL control-socket there is none, but the thread reads refusals all the
 * same.
 */
NODISCARD int control_create(
	const struct policy *policy, struct doorman *doorman, FILE *errors, struct control **out);

/* Begins; after privileges were dropped. -errno. */
NODISCARD int control_start(struct control *control);

/* Ends the thread, removes the socket. NULL is harmless. */
void control_destroy(struct control **control);
