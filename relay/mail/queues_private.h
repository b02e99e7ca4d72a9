/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * queues_private.h: what the files of the queues share: queues*.c, message*.c, queue_ask*.c.
 *
 *   message.c        memory: messages, their entries, which recipients are open
 *   message_due.c    moments of a message: expiry, delay, its own retries
 *   queues.c         start, end, the turns of the worker, a configuration that replaces another
 *   queues_route.c   the way of each recipient, submission
 *   queue.c          one queue: its key, its state, its ladder
 *   queue_note.c     what of it outlives a restart
 *   queue_slot.c     deliveries: who gets one, sessions
 *   queue_result.c   what they came to
 *   queue_job.c      whatever needs the envelope of a message beside a delivery: routing, notices
 *   queue_tell.c     which recipients a notice is about, and what is recorded when it is made
 *   queue_replay.c   what the spool finds
 *   queue_ask*.c     administration
 *
 * A message is in one of these places, and never in two:
 *
 *   - a slot or a job holds it (holds > 0); nothing else begins with it then, but other entries of
 *     it may be delivered
 *   - it wants something of a job (wants, link in queues->work)
 *   - it waits in its queues, by its entries
 *   - it waits for a moment by itself, with neither entry nor want (not_before_ms)
 *
 * An entry is in its queue's list ready or parked, or held by a slot or a job. message_release() is
 * where a message that nobody holds any more finds its next place, or its end.
 */

#include "relay/base/track.h"
#include "relay/mail/delivery.h"
#include "relay/mail/due.h"
#include "relay/mail/notice.h"
#include "relay/mail/queue_ask.h"
#include "relay/mail/queues.h"

/* Deliveries of one worker at a time. */
#define SLOTS 256

/* Queues of one worker; mail for more destinations waits in Submission. */
#define QUEUES_MAX 16384
#define QUEUE_BUCKETS 4096 /* a power of two */

/* Envelopes that are read beside deliveries; of these, those for notices. */
#define JOBS 16
#define JOBS_TELLING_MAX 12

/* Places for messages beyond queue-max-messages: a full worker must still be able to make the
 * notices that empty it. */
#define MESSAGES_SPARE 64

/* So many logs may be full of messages, if a start with fewer workers takes over others'. */
#define LOGS_FULL_MAX 8

/* Notes of the spool that queues may have: those in Retry, and beyond these those that an
 * administrator has changed. The ladder of others begins anew after a restart. */
#define NOTES_RETRY_MAX 3500
#define NOTES_ALL_MAX 4000

/* The shortest recipient of an envelope is "<a@b>" with 7 bytes beside it. */
#define RCPTS_MAX (ENVELOPE_BYTES_MAX / 12)
#define RCPTS_INLINE 64

/* Deliveries to a destination of which nothing is known yet. */
#define WINDOW_FIRST 4

/* After something of our own failed (no memory, no room for a notice). */
#define TROUBLE_RETRY_MS 60000

/* What a turn does at most of what may be much. */
#define SLICE_MOMENTS 1024
#define SLICE_CHORES 256
#define SLICE_MESSAGES 512
#define SLICE_QUEUES 512

#define ERROR_TEXT_BYTES QUEUE_ERROR_BYTES

/* RECIPIENTS of one attempt. */
#define CHANGE_BYTES_MAX (4096 + DELIVERY_RCPTS_MAX * (ENVELOPE_CHANGE_TEXT_BYTES_MAX + 16))

/* What a message wants of a job; the first is done first. */
enum want {
	WANT_REMOVE = 1, /* an administrator takes it away, and its sender is told */
	WANT_EXPIRE = 2,
	WANT_REFUSE = 4, /* recipients that the policy refuses for good */
	WANT_DELAY = 8,
	WANT_ROUTE = 16,
};

enum entry_place {
	ENTRY_READY,
	ENTRY_PARKED,
	ENTRY_HELD,
};

/* One message in one queue. */
struct entry {
	struct link link; /* of the queue's ready or parked */
	struct message *message;
	struct queue *queue;
	struct entry *next; /* of the message */
	int64_t due_ms;     /* parked until then; 0: until somebody says so */
	uint32_t from;   /* the next attempt begins with that recipient: those before had theirs */
	uint8_t place;   /* enum entry_place */
	bool is_put_off; /* and some of these wait for another */
};

struct message {
	struct spool_message spool;
	struct link link; /* of queues->work */
	struct entry *entries;
	int64_t arrived_ms, expires_ms;
	int64_t not_before_ms; /* nothing is begun with it before, but deliveries that are due */
	uint64_t bytes;
	union {
		uint64_t bits;   /* open recipients, if there are 64 at most */
		uint64_t *block; /* else the same in a block of queues->blocks */
	} open;
	char *error; /* of queues->errors: why it waits by itself, or NULL */
	uint32_t rcpt_count, open_count;
	uint32_t due_place;
	uint16_t attempts;
	uint16_t flags;     /* enum envelope_flag bits */
	uint16_t holds;     /* slots and jobs that have it */
	uint8_t log;        /* of queues->options.spools */
	uint8_t wants;      /* bits of enum want */
	uint8_t late_wants; /* what it wants from not_before_ms on */
	bool is_ours;       /* it was committed, or replayed */
	bool is_removed;    /* an administrator waits for its transfers to end */
};

struct queue {
	struct link in_bucket;
	struct link in_turns;  /* of queues->turns: wants a slot */
	struct link in_chores; /* of queues->chores */
	uint64_t key;          /* hash, and of its note */
	char connector[NAME_BYTES_MAX];
	char domain[DOMAIN_BYTES_MAX]; /* "": the same destination for all */
	bool is_secured;
	enum queue_kind kind;

	struct link ready, parked;
	uint64_t ready_count, parked_count;
	uint64_t messages; /* entries, held ones too */
	uint64_t bytes;
	unsigned active, leasing; /* slots */
	unsigned window;          /* slots that it may have */
	uint32_t due_place;
	int64_t empty_ms; /* since when it has no message */

	uint64_t failures;  /* in a row */
	int64_t failing_ms; /* since when, or since its messages were routed anew */
	int64_t last_ms;    /* of the last attempt that failed */
	int64_t next_ms;
	int64_t passing_ms; /* since when hosts are passed over without a failure; 0: none was */
	bool is_suspended;
	char error[ERROR_TEXT_BYTES];

	uint64_t chores;           /* entries that are still to be routed anew, or to be failed */
	enum track_event chore_as; /* what the tracking log hears of the former, and from whom; */
	const char *chore_source;  /* NULL: nothing */
	bool is_doomed;            /* to be failed, with doom */
	char doom[DELIVERY_TEXT_BYTES];

	char redirect[NAME_BYTES_MAX]; /* what came up to a moment goes by that connector */
	int64_t redirect_before_ms, redirect_until_ms; /* the rule ends when none can be left */

	bool has_note;
	uint8_t note_log; /* the log that it was found in */
	int64_t minute;   /* of in_now and out_now */
	uint64_t in_now, out_now, in_minute, out_minute;
};

/* One recipient's way and queue. */
struct queue_way {
	struct router_way way;
	const char *connector; /* name, "": it is Unreachable */
	const char *domain;
	bool is_secured;
	bool is_refused; /* for good; reply says why */
	char reply[ROUTER_REPLY_BYTES];
};

enum slot_state {
	SLOT_FREE,
	SLOT_LEASING,    /* waits for a session */
	SLOT_DELIVERING, /* a message goes out */
	SLOT_SETTLING,   /* waits for a job that tells the sender */
	SLOT_STATE_COUNT,
};

struct slot_result {
	uint32_t index;
	enum delivery_verdict verdict;
	unsigned code;
	bool is_local;
	bool tells; /* the sender hears of it */
	char text[DELIVERY_TEXT_BYTES];
};

#define SLOT_WORDS_BYTES 32768

struct slot {
	struct link link; /* of queues->slots_free, slots_refused, slots_waiting */
	struct queues *queues;
	enum slot_state state;
	struct queue *queue;
	struct entry *entry;     /* NULL: none is under way */
	struct message *message; /* held; NULL likewise, but for SETTLING */
	struct router *router;
	struct nexthop *nexthop; /* held */
	struct client *client;
	struct delivery delivery;
	struct lease lease;
	struct principal principal;

	bool is_refused; /* there is no session, for that reason */
	char refusal[CLIENT_REFUSAL_BYTES];
	bool was_used;       /* the session had carried a message before */
	bool has_more;       /* recipients were left for the next attempt */
	bool goes_elsewhere; /* and others are in none of the message's queues */
	bool is_broken;      /* the session ended with recipients that wait on */
	char remote[NAME_BYTES_MAX + 64];
	char remote_ip[ADDRESS_TEXT_BYTES];
	uint32_t picked_count, result_count;
	uint32_t picked[DELIVERY_RCPTS_MAX];
	bool wants_failed[DELIVERY_RCPTS_MAX], wants_relayed[DELIVERY_RCPTS_MAX];
	struct span paths[DELIVERY_RCPTS_MAX]; /* in words */
	struct span sender, message_id, subject;
	struct slot_result results[DELIVERY_RCPTS_MAX];
	size_t words_len;
	struct queue_way way; /* of the recipient that is looked at */
	uint8_t words[SLOT_WORDS_BYTES];
};

enum job_kind {
	JOB_ROUTE,
	JOB_RESULTS, /* of a delivery: those that failed, or were relayed */
	JOB_DOOM,    /* of a queue's next hop that takes none */
	JOB_EXPIRE,
	JOB_REMOVE,
	JOB_REFUSE,
	JOB_DELAY,
};

struct job_result {
	uint32_t index;
	enum rcpt_state outcome; /* RCPT_FAILED, or RCPT_RELAYED */
	unsigned code;
	bool is_local;
	char text[DELIVERY_TEXT_BYTES];
};

struct job_closing {
	uint32_t index;
	enum rcpt_state outcome;
	unsigned code;
	struct span text, path;
};

#define JOB_WORDS_BYTES 131072

struct job {
	struct link link; /* of queues->jobs_free, jobs */
	struct queues *queues;
	struct router *router; /* whose policy the notice is made by */
	enum job_kind kind;
	bool is_noticing; /* with the notice maker: it comes back by itself */
	struct message *message;
	struct entry *entry; /* of JOB_DOOM */
	struct spool_reader reader;
	struct notice notice;

	uint32_t from; /* the first recipient that was not looked at yet */
	bool has_more;
	uint32_t closing_count;
	struct job_closing closing[NOTICE_RCPTS_MAX];
	struct span sender, message_id, subject;
	uint32_t result_count;
	struct job_result results[DELIVERY_RCPTS_MAX];
	char remote[NAME_BYTES_MAX + 64];
	struct queue_way way; /* of the recipient that is looked at */
	size_t words_len;
	uint8_t words[JOB_WORDS_BYTES];
};

/* The envelope that an administrator's question waits for. */
struct queue_look {
	struct spool_reader reader;
	struct message *message;     /* held while it is read */
	const struct queue_ask *ask; /* whose; NULL: nobody's */
	uint64_t id;
	uint64_t done_ms; /* loop's clock */
	bool is_done, fits;
	char sender[ADDRESS_BYTES_MAX + 3], recipient[ADDRESS_BYTES_MAX + 3];
};

struct queues {
	struct queues_options options;
	struct router *router;
	const struct policy *policy;
	uint64_t routing; /* hash of all that routing depends on */
	unsigned replayed_log;
	uint64_t messages_max; /* at a time, but for notices and what a replay has found */
	unsigned note_count;
	bool has_started, is_draining, is_aborted;

	struct pool messages, entries, blocks, errors, queue_pool;
	uint64_t *messages_used, *queues_used; /* bitmaps, by number in the pool */
	struct due moments;                    /* of messages */
	struct due queue_moments;
	bool is_planning; /* messages anew, from plan_at on, by their number in the pool */
	uint32_t plan_at;
	struct link buckets[QUEUE_BUCKETS];
	struct queue *unreachable;
	uint64_t queued_count, queued_bytes; /* messages that have an entry */
	uint64_t arriving;                   /* that are not accepted yet */
	uint64_t bytes;                      /* of all messages */

	struct link work;   /* of struct message */
	struct link turns;  /* of struct queue */
	struct link chores; /* of struct queue */
	struct link slots_free, slots_refused, slots_waiting;
	struct slot *slots;
	struct pool slot_pool, job_pool;
	struct link jobs_free, jobs;
	unsigned jobs_telling;
	struct notice_maker *notices;
	struct queue_look look;

	struct task task;
	struct timer timer;
	int64_t wake_ms;                  /* what the timer is set for */
	uint8_t change[CHANGE_BYTES_MAX]; /* a record that is being written */
};

/* Bitmaps. */

static inline bool bits_get(const uint64_t *bits, uint32_t index)
{
	return bits[index / 64] >> (index % 64) & 1;
}

static inline void bits_put(uint64_t *bits, uint32_t index, bool value)
{
	const uint64_t bit = UINT64_C(1) << (index % 64);

	bits[index / 64] = value ? bits[index / 64] | bit : bits[index / 64] & ~bit;
}

static inline int64_t queues_now(const struct queues *queues)
{
	return queues->options.now_ms();
}

static inline struct spool *message_log(const struct queues *queues, const struct message *message)
{
	return queues->options.spools[message->log];
}

/* message.c */

/* The message with that number in the pool, or NULL. */
struct message *message_at(const struct queues *queues, uint32_t number);

bool message_is_open(const struct message *message, uint32_t index);
void message_set_open(struct message *message, uint32_t index, bool is_open);

/* All of it is new: so many recipients, all open. */
void message_fill(struct queues *queues, struct message *message, const struct envelope *envelope);

/* Why it waits; "": nothing. Without memory for that it waits without a word. */
void message_set_error(struct queues *queues, struct message *message, const char *text);

/* An entry in that queue, ready or parked as it ought to be. False: no memory for it. */
NODISCARD bool message_add_entry(
	struct queues *queues, struct message *message, struct queue *queue);
struct entry *message_entry_of(const struct message *message, const struct queue *queue);

/* It leaves the queue; whoever held it holds it no more. */
void entry_drop(struct queues *queues, struct entry *entry);
void entry_hold(struct entry *entry);
/* Back to the line, at its front or end; parked, if the message is, or due_ms lies ahead. */
void entry_line_up(struct queues *queues, struct entry *entry, int64_t due_ms, bool is_first);

/* It is wanted, as soon as nobody holds the message. */
void message_want(struct queues *queues, struct message *message, unsigned want);
void message_hold(struct message *message);
/* One less holds it: what next? The message may be gone afterwards. */
void message_release(struct queues *queues, struct message *message);
/* Nobody holds it: its place, or its end, as in message_release(). */
void message_settle(struct queues *queues, struct message *message);
/* It ends: nothing is owed for it any more. */
void message_end(struct queues *queues, struct message *message, enum record_done why);
/* Its memory, at the very end. */
void message_free(struct queues *queues, struct message *message);

void message_suspend(struct queues *queues, struct message *message);
void message_resume(struct queues *queues, struct message *message);

/* It cannot be read: it is suspended, with the reason. */
void message_poisoned(struct queues *queues, struct message *message, int error);

/* Records flags, attempts and so on of now, with no recipient. */
void message_record(struct queues *queues, struct message *message, int64_t next_ms);

/* message_due.c */

void message_plan(struct queues *queues, struct message *message);
/* The delay of the policy is another: all are planned anew, some in each turn. */
void messages_plan_again(struct queues *queues);
/* The next of these; true: there are more. */
bool messages_go_on_planning(struct queues *queues);
/* Does what is due; true: there may be more. */
bool messages_look(struct queues *queues, int64_t now_ms);

/* queues_route.c */

/* What routing depends on, in one number. */
uint64_t queues_routing_of(const struct policy *policy);

void queues_find_way(struct queues *queues, const struct message *message,
	const struct envelope *envelope, struct span path, struct queue_way *out);
bool queue_is_on_way(const struct queue *queue, const struct queue_way *way);
void queues_route(struct queues *queues, struct message *message, const struct envelope *envelope);

/* queue.c */

/* The queue, or NULL. */
struct queue *queue_find(
	struct queues *queues, const char *connector, const char *domain, bool is_secured);
/* It is made if need be; NULL: there are too many. */
struct queue *queue_take(
	struct queues *queues, const char *connector, const char *domain, bool is_secured);
/* From the policy in force. */
void queue_set_kind(const struct queues *queues, struct queue *queue);
struct queue *queue_at(const struct queues *queues, uint32_t number);
void queue_drop(struct queues *queues, struct queue *queue);
void queue_identity(const struct queue *queue, char out[static QUEUE_NAME_BYTES]);
enum queue_status queue_status_of(const struct queues *queues, const struct queue *queue);
/* May a delivery begin now, as far as its state goes? */
bool queue_may_go(const struct queues *queues, const struct queue *queue);
/* It may have work: it takes its turn. */
void queue_wish(struct queues *queues, struct queue *queue);
/* When it must be looked at again. */
void queue_plan(struct queues *queues, struct queue *queue);
bool queues_look_at_queues(struct queues *queues, int64_t now_ms);
/* Its next hop failed, with that reply; host may be NULL. */
struct queue_failure {
	struct span reply;
	const char *host;
	const char *ip;
};
void queue_failed(struct queues *queues, struct queue *queue, const struct queue_failure *failure);
/* Its next hop has answered. */
void queue_works(struct queues *queues, struct queue *queue);
/* Its messages are routed anew; source and event for the tracking log, NULL: not a word. */
void queue_resubmit(
	struct queues *queues, struct queue *queue, enum track_event event, const char *source);
/* They are failed, with that reply. */
void queue_doom(struct queues *queues, struct queue *queue, struct span reply);
/* A slice of both, for all queues; true: there is more that can be done now. */
bool queues_do_chores(struct queues *queues);
/* One message more, or less; by the minute. */
void queue_count(struct queues *queues, struct queue *queue, bool is_in);
void queue_roll(const struct queues *queues, struct queue *queue);

/* queue_note.c */

void queue_note(struct queues *queues, struct queue *queue);
void queue_unnote(struct queues *queues, struct queue *queue);
/* What a note says. */
struct queue_note_text {
	bool is_secured, is_suspended;
	uint64_t failures;
	int64_t failing_ms, last_ms, next_ms, redirect_before_ms, redirect_until_ms;
	char connector[NAME_BYTES_MAX], domain[DOMAIN_BYTES_MAX], redirect[NAME_BYTES_MAX];
	char error[ERROR_TEXT_BYTES];
};
/* Pure. False: it is none. */
NODISCARD bool queue_note_read(struct span payload, struct queue_note_text *out);
/* One that a replay has found: its queue is there, and as it was. False: it is none. */
NODISCARD bool queue_take_note(struct queues *queues, struct span payload);
/* Notes of other logs are taken over. */
void queues_move_notes(struct queues *queues);
uint64_t queue_key(const char *connector, const char *domain, bool is_secured);

/* queue_slot.c */

extern const struct lease_events slot_lease_events;
NODISCARD int slots_create(struct queues *queues);
void slots_destroy(struct queues *queues);
/* One more slot for that queue. There must be one. */
void slot_start(struct queues *queues, struct queue *queue);
/* The session takes the queue's next message, or is put back. */
void slot_go_on(struct slot *slot, bool is_usable);
void slot_let_go(struct slot *slot, enum nexthop_put how);
/* Those of the queue that wait for a session do not any more; queue NULL: of all. */
void slots_cancel(struct queues *queues, const struct queue *queue);
/* What became of wishes for sessions that were refused. */
void slots_take_refusals(struct queues *queues);
void slots_abort(struct queues *queues);
bool slots_are_free(const struct queues *queues);
void slot_enter(struct slot *slot, enum slot_state state);

/* queue_result.c */

extern const struct delivery_events slot_delivery_events;
/* A delivery may have waited for a job: to tell the sender. */
void slot_settle(struct slot *slot);

/* queue_job.c */

NODISCARD int jobs_create(struct queues *queues);
void jobs_destroy(struct queues *queues);
/* Is there one for that kind? */
bool jobs_have(const struct queues *queues, enum job_kind kind);
/* There must be one. The message is held until it ends. */
struct job *job_start(struct queues *queues, enum job_kind kind, struct message *message);
void job_read(struct job *job);
void job_end(struct job *job);
/* There can be no notice now: later. */
void job_fail(struct job *job, int error);
void job_abort(struct job *job);
/* Begins what messages and slots want, as far as there are jobs. */
void queues_do_work(struct queues *queues);
/* Is this recipient being told of, and not recorded yet? */
bool jobs_have_recipient(
	const struct queues *queues, const struct message *message, uint32_t index);

/* queue_tell.c */

void job_tell(struct job *job, const struct envelope *envelope);
void job_on_notice(struct notice *notice, int result);

/* queue_ask.c */

/* Nobody waits for an envelope any more. */
void queue_look_end(struct queues *queues);

/* queue_track.c: rows of the message tracking log. */

struct queue_tracked {
	enum track_event event;
	const char *source;
	const char *connector;
	const char *context;
	struct span sender, message_id, subject, recipients, statuses;
	struct span server_ip, server_host;
	uint32_t recipient_count;
};
void queue_track(const struct message *message, const struct queue_tracked *row);
/* Nothing if tracking-log-subject is off. */
struct span queues_tracked_subject(const struct queues *queues, struct span subject);
/* Path without its brackets. */
struct span path_bare(struct span path);

/* queues.c */

/* There may be something to do: in the next turn. */
void queues_kick(struct queues *queues);

/* Something is due at that moment: the timer knows, or is set anew. */
static inline void queues_expect(struct queues *queues, int64_t at_ms)
{
	if (at_ms < queues->wake_ms)
		queues_kick(queues);
}

/* Text copied behind other words of a buffer; what does not fit is cut. */
struct span words_add(uint8_t *words, size_t words_bytes, size_t *len, struct span text);
