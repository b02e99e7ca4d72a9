/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * protolog.h: the protocol log in Exchange's form (EXCHANGE 12.1): one file set for all receive
 * connectors (RECVyyyymmddhh-n.LOG) and one for all send connectors (SENDyyyymmddhh-n.LOG); UTC.
 * Nine columns, CSV as in RFC 4180:
 *
 *   date-time,connector-id,session-id,sequence-number,local-endpoint,remote-endpoint,event,data,
 *   context
 *
 * event is + connect, - disconnect, > sent, < received, * information. Never a body, a
 * chunk, or what AUTH carries.
 *
 * Workers append rows to a buffer of their own and never wait; a thread writes the
 * buffers out, in the order of each session, turns files over (each hour, and at the size limit,
 * n counts from 1), and deletes the oldest beyond the directory's size and age. Rows that find
 * the buffer full are dropped and counted (protolog_dropped).
 */

#include "relay/base/logset.h"

enum protolog_set { PROTOLOG_RECEIVE, PROTOLOG_SEND };

/*
 * Starts the thread; makes the folder. workers: how many buffers. -errno if there is no memory or
 * no thread. A folder that cannot be written is an error event, is tried again each minute,
 * and keeps no mail from passing: buffers fill, and then rows are dropped.
 */
NODISCARD int protolog_start(const struct logset_options *options, unsigned workers);
/* Writes out what is there and ends the thread. */
void protolog_stop(void);
/* After a reload: other folder or limits. */
void protolog_configure(const struct logset_options *options);

/* This thread appends to that worker's buffer from now on. */
void protolog_attach(unsigned worker);

/* One session's place in the log; is_on false: every call is nothing. */
struct protolog {
	bool is_on;
	enum protolog_set set;
	const char *connector; /* connector-id is "FQDN\NAME" */
	const char *fqdn;
	const char *session;
	unsigned sequence;
	char local[64]; /* "192.0.2.1:25" */
	char remote[64];
	bool hides_lines; /* protolog.c's own: AUTH was seen, what follows may be a secret */
};

void protolog_open(struct protolog *log);                   /* "+"; the fields above are set */
void protolog_close(struct protolog *log, const char *why); /* "-"; why: "Local", "Remote"... */
/* A line without CR LF, cut at 4 KiB; AUTH's arguments become "*". */
void protolog_received(struct protolog *log, struct span line);
/* A reply or commands with CR LFs: lines of one reply are joined by "; " in one row. */
void protolog_sent(struct protolog *log, struct span wire);
/* "*". context may be NULL. */
void protolog_note(struct protolog *log, const char *context, const char *format, ...)
	PRINTF_LIKE(3, 4);
