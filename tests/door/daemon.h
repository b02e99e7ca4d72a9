/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * daemon.h: a relay under test: its configuration, its process, its log, its control socket.
 * Whatever does not go as expected ends the case. One thread.
 */

#include "tests/door/place.h"
#include <sys/types.h>

#define DAEMON_PORT 2525
#define DAEMON_ANSWER_BYTES 4096

struct daemon {
	const char *name;    /* of its files in the place */
	const char *program; /* NULL: suite.postern */
	pid_t pid;           /* 0: not running */
	struct text config;
	struct text log; /* of all its runs */
	size_t mark;     /* only what was logged since is looked at */
	bool is_nobody;  /* started without privileges */
};

/* What the transport section says. */
struct daemon_options {
	const char *name;  /* NULL: "relay"; its pins lie in bpf/NAME */
	const char *bpf;   /* "required", "off", "auto" */
	const char *level; /* log-level; NULL: "info" */
	const char *more;  /* lines; NULL: none */
	bool is_root;      /* it stays root; else it becomes "nobody" */
	bool is_nobody;    /* it is started by "nobody" */
	unsigned workers;  /* 0: one */
};

/* Forgets everything from before, and begins a configuration. */
void daemon_begin(struct daemon *daemon, const struct daemon_options *options);

/* Begins the configuration anew; the process and its log stay. */
void daemon_begin_again(struct daemon *daemon, const struct daemon_options *options);

/* A receive connector whose banner is "220 NAME"; lines may be NULL. */
void daemon_connector(
	struct daemon *daemon, const char *name, const char *bindings, const char *lines);

/* A partner, with a list of addresses; none: the list is left as it is. */
void daemon_partner(struct daemon *daemon, const char *name, const char *list);

/* Writes the configuration and starts the relay; 0 when it is ready, else its exit status. */
int daemon_try(struct daemon *daemon);
void daemon_start(struct daemon *daemon); /* it must be ready */

/* SIGTERM, and it ends with 0; SIGKILL. */
void daemon_stop(struct daemon *daemon);
void daemon_kill(struct daemon *daemon);

/* Writes the configuration, sends SIGHUP, and waits. Was it taken? */
bool daemon_reload(struct daemon *daemon);

/*
 * Lines since the mark with all these words ("event=door why=stranger"; each may be the beginning
 * of a longer one). await: until there are so many; returns the last.
 */
unsigned daemon_count(struct daemon *daemon, const char *words);
const char *daemon_await(struct daemon *daemon, unsigned count, const char *words);
void daemon_mark(struct daemon *daemon);

/* "value" of " key=value" in a line; quotes are taken off. "" if there is none. */
const char *daemon_value(const char *line, const char *key, char *out, size_t out_bytes);

/* Counters of the "stats" event, of which it is asked for a new one (SIGUSR1). */
const char *daemon_stats(struct daemon *daemon);
unsigned long daemon_stat(const char *stats, const char *name);

/* The number of kibibytes behind "VmRSS:" and the like, and the process's CPU time so far. */
unsigned long daemon_memory_kb(const struct daemon *daemon, const char *key);
uint64_t daemon_cpu_us(const struct daemon *daemon);

/* "bpf/NAME", where its pins are. */
const char *daemon_pins(const struct daemon *daemon, char out[static PLACE_PATH_BYTES]);

/* ---- the control socket (relay/control.h) */

struct daemon_answer {
	bool ok;
	char error[64];
	char message[1024];
	unsigned long generation, added, removed, kept, sessions_ended, effect_us, count;
	char raw[DAEMON_ANSWER_BYTES]; /* the whole line */
};

/* Connects to it; -1: nobody is there. */
int daemon_control_open(const struct daemon *daemon);

/*
 * One request: its line, and the bytes behind it (NULL: none), whose number the line must not say.
 * What comes behind the answer goes to body, which may be NULL. False: no answer came.
 */
bool daemon_ask(const struct daemon *daemon, const char *request, const struct text *bytes,
	struct daemon_answer *out, struct text *body);

/* What "door-status" says; sums over all bindings. */
struct daemon_door {
	bool is_kernel;
	char why[512];
	unsigned long program_id, link_id, prefixes;
	bool was_taken_up;
	unsigned foreign_count;
	unsigned long foreign[8];
	unsigned long lookups, others, events_held, events_lost;
	unsigned long passed, stranger, excluded, rate, mapped;
	unsigned long lag_max_us;
	char lag[1024]; /* "<100us 41234, <200us 12, ..." */
};

void daemon_door(const struct daemon *daemon, struct daemon_door *out);

/* "partner-ip-add" and so on of partner "friends", which must succeed or, with error, fail so. */
void daemon_change(const struct daemon *daemon, const char *verb, const char *lines,
	const char *error, struct daemon_answer *out);
