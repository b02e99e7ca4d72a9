/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * queue_ask.h: what an administrator asks of one worker's queues, and the answer, in values that
 * may cross threads (EXCHANGE 9.2, 13.1). The control thread fills in struct queue_ask, hands it to
 * each worker (worker_ask()), and adds the answers up.
 *
 * queue_ask_run() looks at some thousand messages at most in a turn of the loop; it is called again
 * until is_done. Nothing else of the worker waits for it.
 */

#include "policy/policy.h"
#include "relay/mail/queues.h"

enum queue_verb {
	QUEUE_ASK_LIST,     /* queues -> queue_rows */
	QUEUE_ASK_RETRY,    /* of queues in Retry: now */
	QUEUE_ASK_RESUBMIT, /* messages of queues: routed anew */
	QUEUE_ASK_SUSPEND,
	QUEUE_ASK_RESUME,
	QUEUE_ASK_REDIRECT, /* messages of queues: by send connector target */
	QUEUE_ASK_MESSAGES, /* messages -> message_rows */
	QUEUE_ASK_MESSAGE_SUSPEND,
	QUEUE_ASK_MESSAGE_RESUME,
	QUEUE_ASK_MESSAGE_REMOVE,     /* without a notice */
	QUEUE_ASK_MESSAGE_REMOVE_NDR, /* with one */
	QUEUE_ASK_FACTS,              /* -> facts, spool */
};

#define QUEUE_NAME_BYTES 320
#define QUEUE_ERROR_BYTES 512

/* All that are set must fit. */
struct queue_filter {
	char queue[QUEUE_NAME_BYTES]; /* identity: "adatum.com", "Submission", "Unreachable"...; "":
					 all */
	bool has_status;
	unsigned status;        /* enum queue_status or enum message_status, as the verb is */
	uint64_t id;            /* of a message; 0: all */
	uint64_t older_than_ms; /* it came so long ago at least; 0: any */
	uint64_t larger_than;   /* bytes; 0: any */
	char sender[ADDRESS_BYTES_MAX + 3]; /* "<a@b>", without regard to case; messages only; "" */
	char recipient[ADDRESS_BYTES_MAX + 3];
};

struct queue_row {
	char identity[QUEUE_NAME_BYTES];   /* NextHopDomain, with " (secured)" where it is */
	char connector[NAME_BYTES_MAX];    /* send connector, or "" */
	char tls_domain[DOMAIN_BYTES_MAX]; /* of a secured one, else "" */
	enum queue_kind kind;
	enum queue_status status;
	uint64_t messages;
	uint64_t bytes;
	uint64_t active;       /* messages being transferred */
	uint64_t retry_count;  /* attempts that failed in a row */
	int64_t last_retry_ms; /* wall clock; 0: never */
	int64_t next_retry_ms; /* 0: none */
	int64_t oldest_ms;     /* arrival of the message that came first, of those still there */
	uint64_t in_minute, out_minute;     /* messages of the last full minute */
	char last_error[QUEUE_ERROR_BYTES]; /* EXCHANGE 9.3: "[{LRT=...};{LED=...};...]" */
};

struct message_row {
	uint64_t id;
	char queue[QUEUE_NAME_BYTES];
	enum message_status status;
	uint64_t bytes;
	int64_t arrived_ms, expires_ms, next_ms;
	uint32_t rcpt_count, rcpt_open;
	unsigned attempts;
	unsigned worker;
	unsigned log; /* which of the worker's spools has it: its index */
	uint64_t segment;
	uint32_t offset, record_bytes;
	char last_error[QUEUE_ERROR_BYTES];
};

struct queue_ask {
	struct link link; /* of whoever holds it */

	/* The question. */
	enum queue_verb verb;
	struct queue_filter filter;
	char target[NAME_BYTES_MAX]; /* of REDIRECT */
	uint64_t rows_max;           /* room in the arrays below */
	uint64_t skip;               /* rows that fit to be passed over first */

	/* The answer; arrays are the asker's, with room for rows_max. */
	struct queue_row *queue_rows;
	struct message_row *message_rows;
	uint64_t rows;             /* filled in */
	uint64_t matched;          /* that fit, or that something was done to */
	struct queues_facts facts; /* of FACTS, as is what follows */
	struct spool_facts spool;  /* of the spools of that worker */
	bool is_done;

	/* private: where the look goes on */
	uint64_t cursor;
};

/* On the worker's thread: goes on with it, for a bounded time. */
void queue_ask_run(struct queues *queues, struct queue_ask *ask);
