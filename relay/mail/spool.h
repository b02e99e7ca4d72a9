/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spool.h: messages on stable storage: one log of one worker, written by its ring.
 *
 * What several messages have ready goes out in one write with one flush (group commit): at once
 * when no write is under way, else right behind it. Nothing waits for company. While a write is
 * under way the next one fills; when all buffers are full, spool_room() says 0 and the peers are
 * not read. relay/mail/README.md has the form on disk and the argument why a crash loses nothing.
 *
 * The oldest segment is used again when no message needs it any more; a message that stays for long
 * is moved to the end of the log, so that it holds up nobody. Segments are made, filled with
 * zeros and flushed by a thread of spool_folder.h, never here.
 *
 * Owns: its segments' descriptors, its buffers. Borrows: struct spool_message, from spool_commit()
 * or replay to spool_detach(). Fails: a write or flush that fails is final for its segment (never
 * tried again there); who waits for it is told, and the log goes on in another segment. No call
 * comes back from within another.
 */

#include "policy/policy.h"
#include "relay/mail/envelope.h"
#include "relay/mail/record.h"
#include "relay/net/loop.h"

struct spool;
struct spool_folder;

/* A message in the log; embedded in whoever keeps it. */
struct spool_message {
	uint64_t id;
	uint64_t segment;       /* of its MESSAGE record */
	uint32_t offset;        /* of that, in it */
	uint32_t bytes;         /* of that, header and all */
	uint64_t first_segment; /* the oldest that it needs */

	/* private */
	uint64_t live_bytes; /* with its body */
	struct link in_segment;
};

/* What a replay finds, in the order of the log. Spans are valid during the call only. */
struct spool_replay {
	/*
	 * A message. known is what was returned for that id before, or NULL: it is new. Returns
	 * whoever keeps it, NULL without room: the replay ends with -ENOBUFS. Everything that was
	 * known of it is in the envelope.
	 */
	struct spool_message *(*on_message)(void *owner, uint64_t id,
		const struct envelope *envelope, struct spool_message *known);
	void (*on_change)(void *owner, struct spool_message *message, int64_t time_ms,
		const struct envelope_change *change);
	/* It is done; detached already. */
	void (*on_done)(void *owner, struct spool_message *message);
	void (*on_note)(void *owner, uint64_t key, struct span payload);
};

/* What the owner of a spool is told later. */
struct spool_events {
	/*
	 * The message is being moved: bytes is its envelope as it stands on disk; patch it to what
	 * is in force now (envelope_patch()).
	 */
	void (*on_move)(void *owner, struct spool_message *message, uint8_t *bytes, size_t len);
	/* spool_level() has changed. */
	void (*on_level)(void *owner);
};

struct spool_options {
	struct loop *loop;
	struct spool_folder *folder; /* opened, see spool_folder.h */
	unsigned log;                /* which of the folder's logs */
	const struct spool_events *events;
	void *owner;
};

/*
 * Opens a log on the worker's thread, and replays it. It waits for the disk: before anything is
 * served. What cannot be read is told as log events, each with file, place and what it means, and
 * counted; everything else is replayed. -errno: the folder cannot be used at all.
 */
NODISCARD int spool_create(const struct spool_options *options, const struct spool_replay *replay,
	void *replay_owner, struct spool **out);

/* No more messages: what was committed goes out; then spool_is_closed() turns true. */
void spool_drain(struct spool *spool);
bool spool_is_closed(const struct spool *spool);

/* Writers and readers must be gone. */
void spool_destroy(struct spool **spool);

/* How full it is; what is done about it is for its owner. */
enum spool_level {
	SPOOL_NORMAL,
	SPOOL_MEDIUM, /* EXCHANGE 11.2: the outside is slowed, then refused */
	SPOOL_HIGH,   /* all are refused */
	SPOOL_FAILED, /* no segment can be written: all are refused; tried again every 10 s */
};
enum spool_level spool_level(const struct spool *spool);

/* For status: sums of now. */
struct spool_facts {
	enum spool_level level;
	uint64_t messages;
	uint64_t segments_used, segments_free, segments_failed;
	uint64_t bytes_used, bytes_max;    /* bytes_used: of segments in use */
	uint64_t writes, flushes, records; /* since the start */
};
void spool_facts(const struct spool *spool, struct spool_facts *out);

/* A fresh id, that no message of this log, past or present, has. */
uint64_t spool_next_id(struct spool *spool);

/* Writing a message. */

struct spool_writer;

struct spool_writer_events {
	/* spool_room() said 0, and that has changed. */
	void (*on_room)(struct spool_writer *writer);
	/*
	 * 0: the message is as safe as its durability says; it is attached, and stays until
	 * spool_detach(). -errno: it is not, and the next segment will say so. The writer is
	 * idle again.
	 */
	void (*on_committed)(struct spool_writer *writer, int result);
	/* A piece of the body could not be written: -errno. spool_write() is harmless from now on,
	 * spool_commit() must not be called. */
	void (*on_broken)(struct spool_writer *writer, int error);
};

#define SPOOL_EXTENTS_INLINE 4

struct spool_writer {
	const struct spool_writer_events *events; /* set by the owner, as is what follows */
	struct spool *spool;

	/* private */
	uint64_t id;
	struct spool_message *message;
	uint8_t *chunk; /* gathered text, NULL: none */
	uint32_t chunk_bytes;
	uint64_t body_bytes;
	uint64_t first_segment; /* pinned; 0: none */
	uint32_t extent_count;
	struct record_extent *extents; /* extents_inline, or a block of the spool's pool */
	struct record_extent extents_inline[SPOOL_EXTENTS_INLINE];
	struct link link; /* of those that wait for room, or for their write */
	struct link open; /* of those that have begun a message */
	struct task task;
	unsigned state;
	int error;
	bool is_relaxed;
	bool wants_room;
};

void spool_writer_init(
	struct spool_writer *writer, struct spool *spool, const struct spool_writer_events *events);

/* Begins a message. -ENOBUFS, -ENOSPC, -EIO: not now (the spool is too full, or failed). */
NODISCARD int spool_begin(struct spool_writer *writer, uint64_t id);

/* How much spool_write() takes now, SINK_ROOM_MIN at least; 0: none, and on_room will come. */
size_t spool_room(struct spool_writer *writer);
void spool_write(struct spool_writer *writer, struct span text);

/*
 * The message is complete. envelope is in encoded form (ENVELOPE_BYTES_MAX at most), with its
 * body_bytes; it is copied. message becomes attached when on_committed says 0.
 */
void spool_commit(struct spool_writer *writer, struct span envelope, enum durability durability,
	struct spool_message *message);

/* Forgets what was begun; harmless without. Not between spool_commit() and on_committed. */
void spool_abandon(struct spool_writer *writer);

/* What becomes of a message. */

/* Embedded in who wants to know when a record is on stable storage; may be NULL below. */
struct spool_ticket {
	void (*on_done)(struct spool_ticket *ticket, int result); /* 0, -errno: it may not be */
	struct link link;                                         /* private */
};

/*
 * Appends RECIPIENTS; payload is an encoded envelope_change. It never waits, and never fails in
 * front of a crash: a write that fails is made again in another segment. Durable. From this call
 * on on_move must know of it: the copy of the message stands behind it in the log.
 */
void spool_change(struct spool *spool, struct spool_message *message, struct span payload,
	struct spool_ticket *ticket);

/*
 * Appends DONE. The message is detached at once, and forgotten by a replay after the ticket.
 * Readers of it must have ended.
 */
void spool_done(struct spool *spool, struct spool_message *message, enum record_done why,
	struct spool_ticket *ticket);

/* Remembers payload (NOTE_BYTES_MAX at most) under a key over restarts; an empty one forgets it. */
#define SPOOL_NOTE_BYTES_MAX 2048
void spool_note(
	struct spool *spool, uint64_t key, struct span payload, struct spool_ticket *ticket);

/* Reading a message: its envelope, then its body from the beginning. */

struct spool_reader;
struct spool_read;

struct spool_reader_events {
	/* After spool_read(): the envelope, as it stands on disk; what changed since is the
	 * owner's. Valid until spool_read_end(). */
	void (*on_envelope)(struct spool_reader *reader, const struct envelope *envelope);
	/*
	 * After spool_read_more(): the next piece, that reader->text has, too. The last one, maybe
	 * empty, says so.
	 */
	void (*on_text)(struct spool_reader *reader, struct span text, bool is_last);
	/* It cannot be read: -EIO and so on, or -EBADMSG: it is not what was written. */
	void (*on_failed)(struct spool_reader *reader, int error);
};

struct spool_reader {
	const struct spool_reader_events *events; /* set by the owner, as is the spool */
	struct spool *spool;
	/*
	 * The piece, until the next call. The owner takes from its front what it has used. What is
	 * kept beyond on_text is to be found here: it may lie elsewhere each time.
	 */
	struct span text;
	bool is_fixed; /* set by an owner that wants all of a piece to stay where it is */

	/* private */
	struct spool_message *message;
	struct spool_read *read; /* memory of the spool, while it has some */
	struct task task;
	uint32_t extent; /* the next one */
	uint64_t at;     /* in the body: where that begins */
	unsigned state;
	struct link link; /* of those that wait for memory */
	struct envelope envelope;
	struct record_message record;
};

void spool_reader_init(
	struct spool_reader *reader, struct spool *spool, const struct spool_reader_events *events);

/*
 * Begins: on_envelope or on_failed will come, maybe not before a buffer is free. The message may be
 * moved meanwhile, but must stay attached.
 */
void spool_read(struct spool_reader *reader, struct spool_message *message);
void spool_read_more(struct spool_reader *reader);

/* Ends it at any point; no call follows. Harmless when idle. */
void spool_read_end(struct spool_reader *reader);
