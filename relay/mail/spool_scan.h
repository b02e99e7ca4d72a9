/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spool_scan.h: reads a log of a spool from its segment files, in the order of the log, without
 * changing anything. It waits for the disk: for the start of a spool, and for posternctl.
 *
 * A segment whose first record is zero is blank: whatever stands behind it is of an earlier use.
 * Each other one begins with its SEGMENT record, and their numbers give the order. All records of
 * the log have a sequence number, one more each, so what is missing shows as a gap:
 *
 *   what is found                                         what is said    the scan goes on with
 *   zeros, or an earlier use, up to the end               nothing         the next segment
 *   a bad place, no gap to what the next segment begins   TORN            the next segment
 *   a bad place in the last segment, and no record        TORN            nothing: what is good
 *     of a later write behind it                                          in that write is dropped
 *   a bad place, otherwise                                DAMAGED         the next good record
 *   a gap without a bad place                             MISSING         the next good record
 *   the next segment begins with a sequence that was      DAMAGED         the next segment
 *     read already: the SEGMENT between is damaged, too
 *
 * TORN is what a crash leaves of its last write, of which nobody was told that it was done. So a
 * spool goes on behind the scan with the sequence spool_scan_sequence() + 1, in a new segment. Its
 * number is two more than the last: the one between may have been torn in its first write, and what
 * is left of that must not be taken for the new one's. Only sequences tell whether something is
 * missing; numbers need not be in a row.
 *
 * The next good record is the one right behind the bad one, if its length leads there, or else the
 * first at a RECORD_ALIGN. It must be in order: a sequence beyond all before it, before the next
 * segment's, and no further than the room in between allows. So sequences rise, but for the last
 * row of the table.
 *
 * Owns: its buffers and descriptors. Fails: what cannot be read is a finding, not the end.
 */

#include "relay/mail/record.h"

#define SPOOL_LOGS_MAX 100

struct spool_scan;

enum spool_scan_kind {
	SPOOL_SCAN_TORN,    /* harmless */
	SPOOL_SCAN_DAMAGED, /* something that was safe is not what was written, or cannot be read */
	SPOOL_SCAN_MISSING, /* something that was safe is not there */
};

/* One finding; all of it is valid during the call only. */
struct spool_scan_finding {
	enum spool_scan_kind kind;
	const char *file;
	uint64_t segment; /* its number; 0: not known */
	uint64_t offset;
	const char *words; /* what it is and what it means, for people */
};

struct spool_scan_events {
	/* May be NULL. Never from within spool_scan_create(). */
	void (*on_finding)(void *owner, const struct spool_scan_finding *finding);
};

struct spool_scan_record {
	struct record_head head;
	struct span payload; /* of the right checksum; valid until the next call */
	const char *file;    /* likewise; the segment is head.segment */
	uint32_t offset;     /* of the record in it */
};

/* Which logs a spool has: their numbers, ascending. How many; -errno. */
NODISCARD int spool_scan_logs(const char *folder, unsigned logs[SPOOL_LOGS_MAX]);

/* Opens a log and finds its segments. -ENOENT: there is no such log. -errno. */
NODISCARD int spool_scan_create(const char *folder, unsigned log,
	const struct spool_scan_events *events, void *owner, struct spool_scan **out);
void spool_scan_destroy(struct spool_scan **scan);

/* The next record of the log, SEGMENT and SEAL too. False: there are no more. */
NODISCARD bool spool_scan_next(struct spool_scan *scan, struct spool_scan_record *out);

/* From the beginning again; findings are told again. */
void spool_scan_rewind(struct spool_scan *scan);

/*
 * The record at a place; *out is valid until the next call of this function or the next one. May be
 * called between two of spool_scan_next(). -ENOENT: there is no such segment. -EBADMSG: there is no
 * good record. -errno.
 */
NODISCARD int spool_scan_at(
	struct spool_scan *scan, uint64_t segment, uint32_t offset, struct spool_scan_record *out);

/*
 * The text of a BODY record of message id, that is at that place of its body. As spool_scan_at();
 * -EBADMSG also if it is another one.
 */
NODISCARD int spool_scan_body(struct spool_scan *scan, uint64_t id, uint64_t at,
	const struct record_extent *extent, struct span *text);

/* Of the last record that was read; 0: none. */
uint64_t spool_scan_sequence(const struct spool_scan *scan);

struct spool_scan_facts {
	unsigned segments;     /* in use */
	unsigned blank;        /* files that are not */
	uint64_t last_segment; /* the highest number; 0: none */
	uint64_t bytes;        /* of segments in use, files whole */
	uint64_t blank_bytes;
};
void spool_scan_facts(const struct spool_scan *scan, struct spool_scan_facts *out);

/* For people: "torn". */
const char *spool_scan_word(enum spool_scan_kind kind);
