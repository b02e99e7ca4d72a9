/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * control.h: the socket control-socket, by which posternctl changes lists, looks at the door, and
 * administers queues and messages.
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
 *   {"command": "queue-list", "queue": "adatum.com", "status": "Retry", "limit": 10, "skip": 0}
 *        all of it optional; queues of several workers with one identity are one row
 *   {"command": "queue-show", "queue": "adatum.com"}
 *        also "queue-retry", "queue-resubmit", "queue-suspend", "queue-resume"
 *   {"command": "queue-redirect", "queue": "adatum.com", "to": "Smart host"}
 *   {"command": "msg-list", "limit": 1000, "skip": 0, "envelopes": true, SOME}
 *        SOME, of which all that are said must fit: "queue", "status", "id", "older_than_ms",
 *        "larger_than", "sender": "a@b", "recipient": "c@d"; limit is 1000 at most; envelopes: with
 *        what must be read from the spool, as the filters sender and recipient must
 *   {"command": "msg-show", "id": "01a3..."}, {"command": "msg-export", "id": "01a3..."}
 *   {"command": "msg-remove", "ndr": true, "ids": ["01a3..."]}, also "msg-suspend", "msg-resume"
 *        ids, of which there may be 1000, or SOME, but sender and recipient, or both
 *   {"command": "spool-status"}
 *
 *   {"ok": true, "generation": 18, "added": 1, "removed": 0, "kept": 3, "sessions_ended": 0,
 *    "effect_us": 310}
 *   {"ok": true, "generation": 18, "count": 4, "bytes": 50}, and the list
 *   {"ok": true, "bytes": 900}, and an object: what was asked for, as below
 *   {"ok": true, "count": 4}                    queues of workers, or messages: done to so many
 *   {"ok": true, "count": 0, "status": "Ready"}        that queue is in no state for it
 *   {"ok": false, "error": "expected-generation", "message": "...", "generation": 19}
 *
 * error is one of: bad-request, unknown-partner, exists, absent, expected-generation, conflict,
 * no-memory, disk, kernel; no-queue (there is no spool), unknown-queue, unknown-message,
 * unknown-connector, gone (delivered, or moved, since it was looked up), no-answer (of a worker).
 * message is for people: what is wrong and what can be done.
 *
 * What these tell may be long, so it is behind the line; msg-export has the message itself there:
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
 *   {"queues": [{"identity": "adatum.com (secured)", "delivery_type": "DnsConnectorDelivery",
 *      "status": "Retry", "message_count": 12, "bytes": 48000, "active": 0, "retry_count": 4,
 *      "last_retry_ms": 1795301165000, "next_retry_ms": 1795301225000, "oldest_ms": 1795300000000,
 *      "in_minute": 3, "out_minute": 0, "next_hop_domain": "adatum.com",
 *      "connector": "Internet", "tls_domain": "adatum.com", "last_error": "[{LRT=...};...]"}],
 *    "matched": 1}                                            times: ms since 1970, 0 for none
 *   {"queue": {as above}}
 *   {"messages": [{"id": "01a3...", "queue": "adatum.com", "status": "Ready", "bytes": 4000,
 *      "arrived_ms": 1795301165000, "expires_ms": 1795473965000, "next_ms": 0,
 *      "recipient_count": 2, "recipients_open": 1, "retry_count": 0, "worker": 0,
 *      "last_error": "",
 *      "from_address": "a@b", "subject": "Hello", "message_id": "<1@b>",     with envelopes
 *      "gone": false}],                                                      or true, without these
 *    "more": false, "matched": 1}            more: behind them; matched: not with sender, recipient
 *        A message to several queues is a row of each.
 *   {"message": {"id": "01a3...", "bytes": 4000, ..., "gone": false, "entries": [{"queue": "...",
 *      "status": "Ready", "next_ms": 0, "retry_count": 0, "last_error": ""}],
 *      "envelope": {"from_address": "a@b", "connector": "...", "client": "192.0.2.1", ...},
 *      "recipients": [{"address": "c@d", "state": "open", "notify": "", "orcpt": ""}]}}
 *   {"folder": "/var/spool/postern", "level": "normal", "bytes_used": 1, "bytes_max": 2,
 *    "segments_used": 1, "segments_free": 2, "segments_failed": 0, "messages": 12, "queues": 2,
 *    "active": 1, "writes": 3, "flushes": 3, "records": 9, "bytes_each": 700,
 *    "messages_max": 100000,                                  of one worker
 *    "pressure": {"medium": 90, "high": 98, "high_end": 97, "medium_end": 85},         percent
 *    "workers": [{"worker": 0, "level": "normal", ...}]}
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
#include "relay/mail/queue_ask.h"

struct control;

/*
 * While privileges are there: makes the socket, replacing one that nobody listens on; its owner is
 * policy->user, its group control-group, its mode 0660 (without one 0600). -EADDRINUSE: a relay
 * listens there. With a NULL control-socket there is none, but the thread reads refusals all the
 * same.
 */
NODISCARD int control_create(
	const struct policy *policy, struct doorman *doorman, FILE *errors, struct control **out);

/* What the control thread asks of workers, which it does not know. */
struct control_hooks {
	/*
	 * Runs the question on that worker, 0 to workers - 1, until is_done, and returns then: 0,
	 * or -errno if the worker does not answer any more; nothing may touch ask after it. The
	 * control thread is the only caller, one question at a time.
	 */
	int (*ask)(void *owner, unsigned worker, struct queue_ask *ask);
	/* Is there a send connector of that name in the configuration in force? NULL: never asked.
	 */
	bool (*has_connector)(void *owner, const char *name);
	unsigned workers;
	void *owner;
};

/* Before control_start(); without, and without a spool-folder, questions about queues are answered
 * "no-queue". */
void control_set_hooks(struct control *control, const struct control_hooks *hooks);

/* Begins; after privileges were dropped. -errno. */
NODISCARD int control_start(struct control *control);

/* Ends the thread, removes the socket. NULL is harmless. */
void control_destroy(struct control **control);
