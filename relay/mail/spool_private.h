/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spool_private.h: the parts of a spool.
 *
 *   spool.c          life, levels, facts
 *   spool_write.c    batches: filled, written one after the other, and what follows
 *   spool_fault.c    what follows when one could not be written
 *   spool_segment.c  which segments are in use, and what holds them
 *   spool_writer.c   a message comes in
 *   spool_change.c   what becomes of messages, and notes
 *   spool_read.c     a message goes out
 *   spool_move.c     what stays for long is moved out of the way
 *   spool_replay.c   the start
 *
 * A batch: unused --> filling --> queued --> written, that is unused again. Its place in the log is
 * known as soon as it is filled, since those before it have their length then. One batch is written
 * at a time, so a crash tears one at the most.
 */

#include "relay/base/pool.h"
#include "relay/mail/spool.h"
#include "relay/mail/spool_folder_private.h"

/*
 * While one is written another fills; what is gathered meanwhile goes out in one write, however
 * much it is. The others of SPOOL_BURST are for bursts. The rest is to read from: it keeps what was
 * written last for as long as a delivery at once takes, and is not touched where mail is small.
 */
#define SPOOL_BURST 6
#define SPOOL_WARM 8
#define SPOOL_BATCHES 16
#define BATCH_BYTES 4194304

/*
 * But a write for so many clients is not to be longer than this: they would all wait for one flush,
 * and nothing would come in meanwhile.
 */
#define BATCH_COMMITS 8
#define BATCH_COMMITS_BYTES 1048576

/* Below this the rest of a segment is not worth a write. */
#define SEGMENT_REST_BYTES_MIN 65536

/* Text that is gathered before it goes out as a BODY. */
#define CHUNK_BYTES 196608
#define CHUNK_TEXT_BYTES (CHUNK_BYTES - RECORD_ALIGN)
#define CHUNKS_MAX 1024

/* Pieces of one body: 2.2 GB of it, more than max-message-size can be. */
#define EXTENTS_MAX 12288

/* With the longest list of extents, the longest envelope, and no text a MESSAGE is a record. */
_Static_assert(RECORD_HEADER_BYTES + RECORD_MESSAGE_HEAD_BYTES + EXTENTS_MAX * RECORD_EXTENT_BYTES +
			       ENVELOPE_BYTES_MAX <=
		       RECORD_BYTES_MAX,
	"a message without text is a record");
_Static_assert(BATCH_BYTES >= RECORD_BYTES_MAX + 3 * RECORD_BLOCK, "a batch has room for each");
_Static_assert(SPOOL_WARM > SPOOL_BURST && SPOOL_WARM <= SPOOL_BATCHES, "one can always be taken");
_Static_assert(BATCH_COMMITS_BYTES > RECORD_BYTES_MAX, "a message finds room in a batch");
_Static_assert(SEGMENT_BYTES_MIN >= RECORD_BYTES_MAX + 3 * RECORD_BLOCK, "and so has a segment");

/* Messages that are read at a time; others wait. */
#define READS_MAX 256
/* A record does not begin at a block, nor end at one. */
#define READ_BYTES ((size_t)RECORD_BYTES_MAX + 2 * (size_t)RECORD_BLOCK)
#define SPOOL_READ_BYTES ((size_t)RECORD_BLOCK + 2 * READ_BYTES)

/* Messages that are moved at a time. */
#define MOVERS_MAX 8

#define NOTES_MAX 4096
#define NOTE_BUCKETS 1024

#define SEGMENT_BUCKETS 1024

/* The kernel pins, and the processor finds, a large page as fast as a small one. */
#define SPOOL_PAGE_BYTES 2097152

#define SPOOL_LOOK_MS 2000 /* at what other logs use (EXCHANGE 11.2) */
#define SPOOL_DRAIN_LOOK_MS 64
#define SPOOL_RETRY_MS 10000 /* of one that failed */
#define SPOOL_FAULTS_MAX 3   /* in a row: then it has failed */
#define SPOOL_AGAIN_MAX 16   /* results of a write that mean "again" */

#define HOLDS_NOTHING UINT64_MAX

/* Is there room for a message, or for what becomes of one? The latter has some of its own. */
enum spool_need {
	NEED_MESSAGE,
	NEED_MOVE, /* it makes more room than it takes */
	NEED_CHANGE,
};

struct spool_batch {
	struct link link; /* of unused (the one written first is first), or of queued */
	struct link lent; /* struct spool_lent: what readers have of it */
	uint8_t *bytes;
	struct spool_segment *segment;
	uint64_t number; /* of the segment; 0: nothing is in it */
	uint32_t offset; /* in the segment */
	uint32_t used;
	uint32_t limit;
	uint32_t commit_count; /* of commits */
	uint64_t sequence;     /* of its first record */
	bool is_durable;       /* the write ends with a flush */
	uint64_t hold;         /* no segment from here on is free before it is written */
	struct link commits;   /* struct spool_writer */
	struct link tickets;
	struct link moves;
};

/* A record that found no room, or is to be written again. */
struct spool_late {
	struct link link;
	struct link tickets;
	uint64_t hold;
	enum record_type type;
	uint64_t id;
	uint32_t bytes;
	uint8_t payload[];
};

/* A MESSAGE that found no room. */
struct spool_late_commit {
	struct link link;
	struct spool_writer *writer;
	uint32_t bytes;
	uint8_t envelope[];
};

struct spool_note {
	struct spool_note *next;
	uint64_t key;
	uint64_t segment; /* of its last record; 0: it is late */
	uint32_t bytes;
	uint8_t payload[SPOOL_NOTE_BYTES_MAX];
};

struct spool_move; /* spool_move.c */

struct spool {
	struct loop *loop;
	struct spool_folder *folder;
	const struct spool_disk *disk;
	unsigned log;
	const struct spool_events *events;
	void *owner;

	/* Segments. */
	struct link segments; /* in use, oldest first */
	struct spool_segment *by_number[SEGMENT_BUCKETS];
	unsigned segment_count, failed_count;
	struct spool_segment *current; /* is written to; NULL: the next batch begins one */
	uint32_t at;                   /* where its next batch goes */
	uint64_t next_number;
	uint64_t live_bytes;
	uint64_t message_count;

	/* Writing. */
	struct spool_batch batches[SPOOL_BATCHES];
	uint8_t *memory;
	struct spool_batch *filling;
	struct link unused;
	unsigned fresh;        /* the first of batches that was never used, nor those behind it */
	unsigned unused_count; /* how many more may be filled: SPOOL_BURST when all is written */
	struct link queued;    /* the first one is being written if is_writing */
	struct op write_op;
	uint32_t written; /* of it */
	unsigned again;
	bool is_writing, is_syncing;
	bool has_no_dsync; /* the file system does not know RWF_DSYNC */
	struct task write_task;
	uint64_t next_sequence;
	uint64_t next_id;
	struct link late;         /* struct spool_late, in order */
	struct link late_commits; /* struct spool_late_commit */
	struct link open;         /* writers with a message, by their link open */
	struct link waiting;      /* writers that wait for room */

	/* Faults. */
	unsigned faults; /* in a row */
	bool has_failed;
	bool is_on_trial; /* it had failed, and one segment is tried */
	int short_error;  /* why messages found no segment, the last time; 0 */
	uint64_t retry_ms;
	struct link lost_tickets; /* of what could not be kept: to be told */
	struct task look_task;

	/* The folder's thread tells by an eventfd. */
	struct op event_op;
	uint64_t event_count;
	struct timer look_timer;
	enum spool_level level;
	bool is_draining;

	/* Pools. */
	struct pool chunks;
	struct pool extents;
	struct pool reads;
	struct pool notes;
	struct spool_note *note_buckets[NOTE_BUCKETS];
	struct link readers_waiting;

	struct spool_move *move;

	uint64_t writes, flushes, records;
};

/* spool_segment.c */
struct spool_segment *spool_segment_find(const struct spool *spool, uint64_t number);
void spool_segment_use(struct spool *spool, struct spool_segment *segment, uint64_t number);
void spool_segment_forget(struct spool *spool, struct spool_segment *segment);
void spool_pin(struct spool *spool, uint64_t number);
void spool_unpin(struct spool *spool, uint64_t number);
/* Gives back what nothing needs any more, oldest first. */
void spool_segment_free(struct spool *spool);
void spool_attach(struct spool *spool, struct spool_message *message);
void spool_detach_message(struct spool *spool, struct spool_message *message);

/* spool_write.c */
int64_t spool_wall_ms(void);
void spool_batch_init(struct spool_batch *batch, uint8_t *bytes);
/* Room for a record in the batch that fills; NULL: none now. Its place is spool->filling's. */
NODISCARD uint8_t *spool_place(struct spool *spool, size_t bytes, enum spool_need need);
/* Could spool_place() succeed? */
bool spool_has_room(struct spool *spool, size_t bytes, enum spool_need need);
/*
 * The record whose payload stands at out + RECORD_HEADER_BYTES is complete. Returns its offset in
 * the segment.
 */
uint32_t spool_append(struct spool *spool, uint8_t *out, enum record_type type, uint64_t id,
	size_t payload_bytes);
/* Writes what waits, when nothing is under way. */
void spool_write_next(struct spool *spool);
/* A struct op's call: of spool->write_op. */
void spool_write_done(struct op *op, int32_t result, uint32_t flags);
/* Is there nothing that is not written? */
bool spool_is_idle(const struct spool *spool);
/* There may be room: goes on with all who wait for it. */
void spool_go_on(struct spool *spool);

/* spool_fault.c: no batch that is not written will be; what must not be lost is late then. */
void spool_fail_batches(struct spool *spool, int error);
void spool_enter_short(struct spool *spool, int error);
void spool_enter_failed(struct spool *spool, int error);
void spool_retry(struct spool *spool);
/* No segment can be had for messages: those that wait are told. */
void spool_fail_writers(struct spool *spool, int error);

/* spool_change.c */
/* Appends, or keeps it as late; ticket may be NULL. */
void spool_record(struct spool *spool, enum record_type type, uint64_t id, struct span payload,
	uint64_t hold, struct spool_ticket *ticket);
NODISCARD struct spool_late *spool_create_late(
	enum record_type type, uint64_t id, struct span payload, uint64_t hold);
void spool_write_late(struct spool *spool);
void spool_fail_late(struct spool *spool, int error);
/* Tells those whose record could not be kept. */
void spool_fail_lost(struct spool *spool);
struct spool_note *spool_note_find(struct spool *spool, uint64_t key);
/* As spool_note() for what a replay found. -ENOBUFS. */
NODISCARD int spool_note_keep(
	struct spool *spool, uint64_t key, struct span payload, uint64_t segment);
void spool_note_move(struct spool *spool, uint64_t key, uint64_t segment);
/* Writes those again whose last record is in that segment. */
void spool_notes_rewrite(struct spool *spool, const struct spool_segment *segment);

/* spool_writer.c */
void spool_writers_go_on(struct spool *spool);
void spool_writer_committed(struct spool_writer *writer, int result);
/* The batches from this place on are not written: whoever has text in them is told. */
void spool_writers_break(struct spool *spool, uint64_t number, uint32_t offset, int error);

/* spool_read.c */
void spool_readers_go_on(struct spool *spool);
/* The batch is to be filled anew: what readers have of it goes to memory of their own. */
void spool_take_back(struct spool_batch *batch);

/* spool_move.c */
NODISCARD int spool_move_create(struct spool *spool);
void spool_move_destroy(struct spool *spool);
void spool_move_look(struct spool *spool);
void spool_move_forget(struct spool *spool, const struct spool_message *message);
void spool_moved(struct spool *spool, struct link *moves, int result);
/* The batches from this place on are not written. */
void spool_move_break(struct spool *spool, uint64_t number, uint32_t offset);
void spool_move_stop(struct spool *spool);
bool spool_move_is_idle(const struct spool *spool);

/* spool_replay.c */
NODISCARD int spool_create_replay(
	struct spool *spool, const struct spool_replay *replay, void *replay_owner);

/* spool.c */
void spool_look(struct spool *spool);
