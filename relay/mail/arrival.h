/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * arrival.h: a message on its way into the spool, from MAIL until it is safe, and the memory that a
 * worker has for such messages (struct intake).
 *
 *   arrival_take() --> arrival_begin() --> arrival_add_rcpt()... --> arrival_write()...
 *   --> arrival_commit() --> on_stored, and the arrival is gone
 *
 * It is no part of the session that brings it: when the client goes while the message is being
 * committed, the message is ours all the same (RFC 5321 6.1), and arrives without an owner.
 *
 * Owns: its writer, and its struct message until that is submitted. What is kept until the end is
 * gathered in encoded form, in a chain of blocks; ENVELOPE_BYTES_MAX in all.
 * Fails: -ENOBUFS and so on at the beginning, or by on_broken and on_stored.
 */

#include "relay/base/pool.h"
#include "relay/mail/queues.h"
#include "relay/smtp/fields.h"
#include "relay/smtp/sink.h"

struct intake_options {
	struct loop *loop;
	struct spool *spool;
	struct queues *queues;
	uint32_t sessions_max;   /* that may bring messages at a time */
	int64_t (*now_ms)(void); /* wall clock */
};

/* The blocks of a chain; most messages need none. */
#define ARRIVAL_HEAD_BYTES 384
#define ARRIVAL_BLOCK_BYTES 4080

struct arrival_block {
	struct arrival_block *next;
	uint8_t bytes[ARRIVAL_BLOCK_BYTES];
};

/* Shared by the sinks of one worker. */
struct intake {
	struct intake_options options;
	struct pool arrivals;
	struct pool blocks;
	uint8_t *envelope;         /* ENVELOPE_BYTES_MAX, while one is put together */
	uint8_t *names;            /* recipients, while a row of the tracking log is */
	uint64_t pressed_since_ms; /* since when the spool is too full; 0: it is not */
};

/* -ENOMEM. */
NODISCARD int intake_create(const struct intake_options *options, struct intake **out);
void intake_destroy(struct intake **intake);

/* Has all that was begun come to its end? */
bool intake_is_idle(const struct intake *intake);

struct arrival;

struct arrival_events {
	/* arrival_room() said 0, and that has changed. */
	void (*on_room)(void *owner);
	/* The body cannot be stored: only arrival_drop() is left. */
	void (*on_broken)(void *owner, int error);
	/* Of arrival_commit(): 0, or -errno: nothing of it is kept. reply is the whole answer; the
	 * arrival is gone. */
	void (*on_stored)(void *owner, int result, struct span reply);
};

/* Of the session, when the message is complete. */
struct arrival_facts {
	const struct sink_sender *sender;
	const struct identity *client;
	const char *connector;      /* receive connector, by name */
	const char *send_connector; /* NULL: by address space */
	enum durability durability;
	uint64_t expiration_ms;
};

struct arrival {
	const struct arrival_events *events; /* set by the owner, as is the next */
	void *owner;                         /* NULL: it has gone */

	/* private */
	struct intake *intake;
	struct message *message; /* NULL: not begun */
	struct spool_writer writer;
	struct fields fields;
	bool is_committing;
	bool is_broken;
	bool is_eight_bit;
	bool has_subject; /* the tracking log may have it */
	enum body_type body;
	unsigned params;
	uint64_t body_bytes;
	uint32_t rcpt_count;
	char fqdn[NAME_BYTES_MAX];
	char session[IDENTITY_WORD_BYTES];

	/* The chain: what MAIL said, the recipients, and, once known, the rest of the envelope. */
	uint32_t sender_len, ret_len, envid_len;
	uint32_t rcpts_len;
	uint32_t rcpt_len; /* of the last of them */
	uint32_t front_len;
	uint32_t len;
	struct arrival_block *first, *last;
	uint8_t head[ARRIVAL_HEAD_BYTES];
};

/* MAIL. policy: names, and what may be logged; it is not kept. NULL: no room. */
NODISCARD struct arrival *arrival_take(
	struct intake *intake, const struct policy *policy, const struct command *command);

/* Has the spool begin it, under an id. -ENOBUFS: queue-max-messages; else as spool_begin(). */
NODISCARD int arrival_begin(struct arrival *arrival);

/* -E2BIG: no more recipients fit into one message; -ENOBUFS: no room now. */
NODISCARD int arrival_add_rcpt(struct arrival *arrival, const struct command *command);

/* The one that was added last is not to be kept after all. Once for each. */
void arrival_forget_rcpt(struct arrival *arrival);

/* As those of the spool. */
size_t arrival_room(struct arrival *arrival);
void arrival_write(struct arrival *arrival, struct span text);

/* Somebody else has taken it, and it is not kept: what the tracking log has of that. */
struct arrival_passed {
	const char *connector;              /* send connector, by name */
	const char *context;                /* the session that it went by */
	struct span server_ip, server_host; /* of the next hop */
	struct span reply;                  /* without CR LF */
};

/* Writes the rows RECEIVE and SEND; only arrival_drop() is left then. */
void arrival_track_passed(struct arrival *arrival, const struct arrival_facts *facts,
	const struct arrival_passed *passed);

/* It is complete. -errno: it cannot be kept; only arrival_drop() is left. */
NODISCARD int arrival_commit(struct arrival *arrival, const struct arrival_facts *facts);

/* Its id; once begun. */
uint64_t arrival_id(const struct arrival *arrival);

/* Forgets it; one that is being committed goes on without its owner. Clears the pointer. */
void arrival_drop(struct arrival **arrival);
