/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * queues.h: the messages that wait on one worker, and the queues that they wait in (EXCHANGE 9).
 *
 *   sink_queue --committed--> submission: where does each recipient go? --> an entry in each queue
 *                                  ^                                          |
 *                                  +---- reload, resubmit, redirect ----------+--> delivery -->
 * SENT |        |
 *                                                                             +--retry-+--> notice
 *
 * A queue is a send connector and a domain, or a send connector alone where its smart hosts are the
 * same for every domain; mail to a listed domain that is secured has a queue of its own. A message
 * to recipients of several queues has an entry in each. Which recipients belong to an entry is not
 * kept: they are those that are still open, and that the policy sends there.
 *
 * States of a queue and of a message are Exchange's (9.2). A queue whose next hop cannot be
 * reached, or does not prove who it is, is in Retry: its messages wait with it, by ladder.h. A
 * message that the next hop puts off by itself (4xx) waits alone, message-retry-interval at a time.
 * The state of queues outlives a restart (notes of the spool).
 *
 * Owns: the messages, from message_take() on. Borrows: the spools, and the router in force.
 * Everything is of the worker's thread. What disk or next hops answer comes from the loop.
 */

#include "relay/mail/router.h"
#include "relay/mail/spool.h"

enum queue_status {
	QUEUE_ACTIVE,     /* messages are being transferred */
	QUEUE_CONNECTING, /* a session is being opened for it */
	QUEUE_READY,      /* neither; messages may wait for a place among the deliveries */
	QUEUE_RETRY,      /* its next hop failed; it is tried again at a time */
	QUEUE_SUSPENDED,  /* by an administrator: nothing departs */
	QUEUE_STATUS_COUNT,
};

/* EXCHANGE 9.1. */
enum queue_kind {
	QUEUE_SUBMISSION,  /* not routed yet */
	QUEUE_UNREACHABLE, /* no send connector is for it, or the policy lets it go by none */
	QUEUE_DNS,         /* DnsConnectorDelivery */
	QUEUE_SMART_HOST,  /* SmartHostConnectorDelivery */
	QUEUE_KIND_COUNT,
};

enum message_status {
	MESSAGE_READY,
	MESSAGE_ACTIVE, /* being transferred */
	MESSAGE_RETRY,  /* it, or its queue, waits */
	MESSAGE_SUSPENDED,
	MESSAGE_PENDING_SUSPEND, /* when the transfer that is under way has failed */
	MESSAGE_PENDING_REMOVE,
	MESSAGE_STATUS_COUNT,
};

const char *queue_status_word(enum queue_status status);     /* "Active" */
const char *queue_kind_word(enum queue_kind kind);           /* "DnsConnectorDelivery" */
const char *message_status_word(enum message_status status); /* "PendingRemove" */

struct message;
struct queues;

struct queues_options {
	struct conn_net *net;
	struct spool **spools; /* its own first; they are set before queues_start() */
	unsigned spool_count;
	unsigned worker_id;
	const struct policy *policy; /* of the start: the sizes of pools */
	int64_t (*now_ms)(void);     /* wall clock; a test has its own */
};

/* Lays the pools out. -ENOMEM. */
NODISCARD int queues_create(const struct queues_options *options, struct queues **out);

/*
 * For spool_create(): what is found becomes messages; queues is replay_owner. Before each replay is
 * said which of the spools it is of (its index; 0 at first).
 */
extern const struct spool_replay queues_replay;
void queues_replay_log(struct queues *queues, unsigned index);
/* For spool_create(): moving; queues is owner. */
extern const struct spool_events queues_spool_events;

/*
 * That configuration and router are in force from now on: everything that waits is routed anew if
 * its way has changed. The router before is used until its deliveries under way have ended.
 */
void queues_use(struct queues *queues, struct router *router, const struct policy *policy);
bool queues_need_router(const struct queues *queues, const struct router *router);

/* After replay and queues_use(): begins to deliver. */
void queues_start(struct queues *queues);

/* Begins nothing new; deliveries under way end, or are cut after queues_abort(). */
void queues_drain(struct queues *queues);
void queues_abort(struct queues *queues);
bool queues_are_closed(const struct queues *queues);
/* They are closed, or never were started. The spools must be destroyed before: they name messages.
 */
void queues_destroy(struct queues **queues);

/* For a new message: memory, and an id in its spool_message. NULL: queue-max-messages are there. */
NODISCARD struct message *message_take(struct queues *queues, struct spool *spool);
struct spool_message *message_spool(struct message *message);
/* It came to nothing: it was not committed. */
void message_put(struct queues *queues, struct message **message);
/* It was committed, and belongs to the queues from here on. envelope is read before this returns.
 */
void queues_submit(
	struct queues *queues, struct message **message, const struct envelope *envelope);

/* A revocation list has come, or name servers are asked anew: queues that wait for it try again. */
void queues_proof_changed(struct queues *queues);

/* The clock of a test was moved: looks at everything that is due. */
void queues_look(struct queues *queues);

/* Sums of now. */
struct queues_facts {
	uint64_t messages; /* that wait, Submission included */
	uint64_t queues;
	uint64_t active;     /* deliveries under way */
	uint64_t bytes_each; /* memory of one message with one entry */
};
void queues_facts(const struct queues *queues, struct queues_facts *out);
