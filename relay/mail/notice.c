/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/notice.h"

#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/base/track.h"
#include <errno.h>
#include <sys/random.h>
#include <time.h>

/*
 * notice.c: the job.
 *
 *   IDLE --> OPEN --envelope--> HEAD --written--> COPY --the original ends--> END --> TAIL -->
 * COMMIT ^         |                  |                 |                          |       | |
 *    +---------+------------------+-----------------+--------------------------+-------+---------+
 *
 * What is written goes through one span, out: what stands in front of the original, pieces of the
 * original as the header firewall lets them through, what stands behind it. The original is never
 * in memory but for the piece that the reader has.
 */

enum job_state {
	JOB_IDLE,
	JOB_OPEN,   /* the envelope of the original is being read */
	JOB_HEAD,   /* out: what stands in front of the original */
	JOB_COPY,   /* out: of the original; or the next piece of it is being read */
	JOB_END,    /* out: what the firewall still had */
	JOB_TAIL,   /* out: what stands behind the original */
	JOB_COMMIT, /* the spool has it all */
	JOB_STATE_COUNT,
};

/* One envelope with one recipient, whose texts notice_text.c has bounded. */
#define JOB_ENVELOPE_BYTES 4096

struct job {
	struct notice_maker *maker;
	struct notice *notice;
	enum job_state state;
	struct link link; /* of the maker's free ones, or of those under way */

	struct spool_reader reader;
	struct spool_writer writer;
	struct message *message; /* NULL: none was taken yet */
	struct firewall firewall;

	struct notice_text text;
	const struct envelope *original; /* the reader's, until it ends */
	int64_t now_ms;
	struct span out;   /* still to be written */
	struct span piece; /* of the original, that the firewall has not seen */
	uint64_t copy_left;
	bool is_reading; /* a piece was asked for */
	bool is_last;    /* there is none behind this one */
	uint64_t written;
	uint64_t header_bytes;
	unsigned flags;

	char id[NOTICE_MESSAGE_ID_BYTES];
	char origin[MESSAGE_ID_TEXT_BYTES];
	uint8_t subject[NOTICE_SUBJECT_BYTES];
	size_t subject_len;
	uint8_t tail[NOTICE_TAIL_BYTES_MAX];
	uint8_t envelope[JOB_ENVELOPE_BYTES];
	uint8_t head[NOTICE_HEAD_BYTES_MAX];
};

struct notice_maker {
	struct queues *queues;
	struct link waiting; /* notices */
	struct link idle;    /* jobs */
	struct link busy;
	struct job jobs[NOTICES_AT_ONCE];
};

static const uint8_t job_next[JOB_STATE_COUNT] = {
	[JOB_IDLE] = BIT(JOB_OPEN),
	[JOB_OPEN] = BIT(JOB_HEAD) | BIT(JOB_IDLE),
	[JOB_HEAD] = BIT(JOB_COPY) | BIT(JOB_IDLE),
	[JOB_COPY] = BIT(JOB_END) | BIT(JOB_IDLE),
	[JOB_END] = BIT(JOB_TAIL) | BIT(JOB_IDLE),
	[JOB_TAIL] = BIT(JOB_COMMIT) | BIT(JOB_IDLE),
	[JOB_COMMIT] = BIT(JOB_IDLE),
};

static void job_enter(struct job *job, enum job_state state)
{
	ASSERT((job_next[job->state] & BIT(state)) != 0);
	job->state = state;
}

/* ---- the end of a job */

static void maker_begin_next(struct notice_maker *maker);

static void job_finish(struct job *job, int result)
{
	struct notice *notice = job->notice;
	struct notice_maker *maker = job->maker;

	spool_read_end(&job->reader);
	if (job->message != NULL) {
		if (job->state != JOB_COMMIT)
			spool_abandon(&job->writer);
		message_put(maker->queues, &job->message);
	}
	job->notice = NULL;
	job_enter(job, JOB_IDLE);
	link_remove(&job->link);
	list_append(&maker->idle, &job->link);
	notice->on_done(notice, result);
	maker_begin_next(maker);
}

static void job_fail(struct job *job, int error)
{
	char about[MESSAGE_ID_TEXT_BYTES];

	message_id_print(job->notice->original->id, about);
	STAT(notices_unmade);
	log_event(LOG_LEVEL_WARNING, NULL, "notice-unmade", "about=%s why=\"%s\"", about,
		strerror(-error));
	job_finish(job, error);
}

/* ---- writing */

static bool job_is_whole(const struct notice *notice, const struct envelope *original)
{
	/* RET is about failures only (RFC 3461 4.3); BINARYMIME would need a next hop with it. */
	return notice_action(notice->rcpts, notice->rcpt_count) == NOTICE_FAILED &&
	       original->body != BODY_BINARYMIME &&
	       !span_equal_nocase(original->ret, span_of("HDRS")) &&
	       original->body_bytes <= notice->policy->queue.notice_original_bytes;
}

/* Where the header of the notice itself ends, with its empty line; and has it bytes over 127? */
static void job_measure_header(struct job *job)
{
	const struct span head = job->out;
	const uint8_t *end = memmem(head.data, head.len, "\r\n\r\n", 4);

	ASSERT(end != NULL);
	job->header_bytes = (uint64_t)(end - head.data) + 4;
	if (span_has_high(span_head(head, job->header_bytes)))
		job->flags |= ENVELOPE_UTF8_HEADER | ENVELOPE_EIGHT_BIT;
}

static void job_write_head(struct job *job)
{
	const struct notice *notice = job->notice;
	size_t len;

	if (getrandom(&job->text.random, sizeof(job->text.random), 0) !=
		(ssize_t)sizeof(job->text.random))
		job->text.random ^= (uint64_t)job->now_ms * 0x9e3779b97f4a7c15;
	job->text.policy = notice->policy;
	job->text.original = job->original;
	job->text.original_id = notice->original->id;
	job->text.id = message_spool(job->message)->id;
	job->text.now_ms = job->now_ms;
	job->text.rcpts = notice->rcpts;
	job->text.rcpt_count = notice->rcpt_count;
	job->text.is_whole = job_is_whole(notice, job->original);
	len = notice_write_head(&job->text, job->head, sizeof(job->head));
	ASSERT(len > 0);
	job->out = span_make(job->head, len);
	job->flags = ENVELOPE_NOTICE | (notice_is_utf8(&job->text) ? ENVELOPE_SMTPUTF8 : 0u) |
		     (notice_is_eight_bit(&job->text) ? ENVELOPE_EIGHT_BIT : 0u);
	job_measure_header(job);
	job->copy_left = job->text.is_whole ? UINT64_MAX : job->original->header_bytes;
	firewall_init(&job->firewall, FIREWALL_ORGANIZATION | FIREWALL_STAMP, notice->policy->fqdn);
}

/* Takes the next of what is to be written into out. False: it has to wait for it. */
static bool job_copy_next(struct job *job)
{
	if (job->piece.len > 0) {
		job->out = firewall_next(&job->firewall, &job->piece);
		return true;
	}
	if (job->is_last || job->copy_left == 0) {
		job->out = firewall_end(&job->firewall);
		job_enter(job, JOB_END);
		return true;
	}
	if (!job->is_reading) {
		job->is_reading = true;
		spool_read_more(&job->reader);
	}
	return false;
}

/* Encodes the envelope; what is made of it again is what the queues read. */
static bool job_encode(struct job *job, struct envelope *out, size_t *out_len)
{
	const struct envelope_rcpt rcpt = {
		.state = RCPT_OPEN, .path = job->original->sender, .notify = span_of("NEVER")};
	const uint64_t expiration_ms = job->notice->policy->queue.expiration_ms;
	struct envelope envelope = {
		.body = (job->flags & ENVELOPE_EIGHT_BIT) != 0 ? BODY_8BITMIME : BODY_7BIT,
		.flags = job->flags,
		.rcpt_count = 1,
		.arrived_ms = job->now_ms,
		.expires_ms = job->now_ms + (int64_t)expiration_ms,
		.body_bytes = job->written,
		.header_bytes = job->header_bytes,
		.sender = span_of("<>")};
	size_t len, more;

	notice_message_id(&job->text, job->id);
	message_id_print(job->text.original_id, job->origin);
	envelope.message_id = span_of(job->id);
	job->subject_len = notice_subject(&job->text, job->subject);
	envelope.subject = span_make(job->subject, job->subject_len);
	envelope.origin = span_of(job->origin);
	len = envelope_write(&envelope, job->envelope, sizeof(job->envelope));
	if (len == 0)
		return false;
	more = envelope_write_rcpt(&rcpt, job->envelope + len, sizeof(job->envelope) - len);
	*out_len = len + more;
	return more > 0 && envelope_read(span_make(job->envelope, *out_len), out);
}

static void job_commit(struct job *job)
{
	struct envelope envelope;
	size_t len;

	if (!job_encode(job, &envelope, &len)) {
		job_fail(job, -EMSGSIZE);
		return;
	}
	job_enter(job, JOB_COMMIT);
	spool_commit(&job->writer, span_make(job->envelope, len), DURABILITY_DURABLE,
		message_spool(job->message));
}

/* Writes as much as there is and as there is room for; what is awaited calls again. */
static void job_run(struct job *job)
{
	for (;;) {
		while (job->out.len > 0) {
			const size_t room = spool_room(&job->writer);
			const struct span now = span_head(job->out, room);

			if (room == 0)
				return;
			spool_write(&job->writer, now);
			job->written += now.len;
			job->out = span_skip(job->out, now.len);
		}
		if (job->state == JOB_HEAD)
			job_enter(job, JOB_COPY);
		if (job->state == JOB_COPY) {
			if (!job_copy_next(job))
				return;
		} else if (job->state == JOB_END) {
			job->out = span_make(job->tail,
				notice_write_tail(&job->text, job->tail, sizeof(job->tail)));
			job_enter(job, JOB_TAIL);
		} else {
			job_commit(job);
			return;
		}
	}
}

/* ---- what the spool says */

static void job_on_room(struct spool_writer *writer)
{
	job_run(OWNER_OF(writer, struct job, writer));
}

static void job_on_broken(struct spool_writer *writer, int error)
{
	job_fail(OWNER_OF(writer, struct job, writer), error);
}

static void job_count(enum notice_action action)
{
	switch (action) {
	case NOTICE_FAILED:
		STAT(notices_failed);
		break;
	case NOTICE_DELAYED:
		STAT(notices_delayed);
		break;
	case NOTICE_DELIVERED:
	case NOTICE_RELAYED:
		STAT(notices_success);
		break;
	case NOTICE_ACTION_COUNT:
		UNREACHABLE();
	}
}

static struct span job_bare(struct span path)
{
	return path.len >= 2 ? span_make(path.data + 1, path.len - 2) : path;
}

static void job_track(const struct job *job, const char *action)
{
	const struct envelope *original = job->original;
	const struct track_row row = {.event = TRACK_DSN,
		.source = "DSN",
		.context = action,
		.server_host = span_of(job->notice->policy->fqdn),
		.id = job->text.id,
		.message_id = span_of(job->id),
		.recipients = job_bare(original->sender),
		.bytes = job->written,
		.recipient_count = 1,
		.reference =
			original->message_id.len > 0 ? original->message_id : span_of(job->origin),
		.subject = span_make(job->subject,
			job->notice->policy->queue.tracking_log_subject ? job->subject_len : 0)};

	track_write(&row);
}

static void job_on_committed(struct spool_writer *writer, int result)
{
	struct job *job = OWNER_OF(writer, struct job, writer);
	const enum notice_action action =
		notice_action(job->notice->rcpts, job->notice->rcpt_count);
	char to[600], id[MESSAGE_ID_TEXT_BYTES];
	struct envelope envelope;
	size_t len;

	/* It was encoded from the same facts before. */
	if (result == 0 && !job_encode(job, &envelope, &len))
		UNREACHABLE();
	if (result < 0) {
		job_fail(job, result);
		return;
	}
	message_id_print(job->text.id, id);
	queues_submit(job->maker->queues, &job->message, &envelope);
	job->message = NULL;
	job_count(action);
	log_event(LOG_LEVEL_INFO, NULL, "notice", "id=%s action=%s to=%s about=%s", id,
		notice_action_word(action),
		log_quote(job_bare(job->original->sender), to, sizeof(to)), job->origin);
	job_track(job, notice_action_word(action));
	job_finish(job, 0);
}

static const struct spool_writer_events job_writer_events = {
	.on_room = job_on_room, .on_committed = job_on_committed, .on_broken = job_on_broken};

/* The memory and the place in the spool. -errno: not now. */
static int job_begin_message(struct job *job)
{
	struct notice *notice = job->notice;

	job->message = message_take(job->maker->queues, notice->spool);
	if (job->message == NULL)
		return -ENOBUFS;
	spool_writer_init(&job->writer, notice->spool, &job_writer_events);
	return spool_begin(&job->writer, message_spool(job->message)->id);
}

static void job_on_envelope(struct spool_reader *reader, const struct envelope *envelope)
{
	struct job *job = OWNER_OF(reader, struct job, reader);
	int rc;

	if (envelope->sender.len <= 2) {
		job_fail(job, -EINVAL);
		return;
	}
	rc = job_begin_message(job);
	if (rc < 0) {
		job_fail(job, rc);
		return;
	}
	job->original = envelope;
	job_write_head(job);
	job_enter(job, JOB_HEAD);
	job_run(job);
}

static void job_on_text(struct spool_reader *reader, struct span text, bool is_last)
{
	struct job *job = OWNER_OF(reader, struct job, reader);

	job->is_reading = false;
	job->is_last = is_last;
	job->piece = text.len > job->copy_left ? span_head(text, (size_t)job->copy_left) : text;
	job->copy_left -= job->piece.len;
	job_run(job);
}

static void job_on_failed(struct spool_reader *reader, int error)
{
	job_fail(OWNER_OF(reader, struct job, reader), error);
}

static const struct spool_reader_events job_reader_events = {
	.on_envelope = job_on_envelope, .on_text = job_on_text, .on_failed = job_on_failed};

/* ---- the line */

static int64_t wall_now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void job_open(struct job *job, struct notice *notice)
{
	job->notice = notice;
	job->now_ms = notice->now_ms != 0 ? notice->now_ms : wall_now_ms();
	job->out = job->piece = span_of("");
	job->is_reading = job->is_last = false;
	job->written = 0;
	job_enter(job, JOB_OPEN);
	spool_reader_init(&job->reader, notice->spool, &job_reader_events);
	job->reader.is_fixed = true; /* out points into the piece */
	spool_read(&job->reader, notice->original);
}

static void maker_begin_next(struct notice_maker *maker)
{
	while (!list_is_empty(&maker->waiting) && !list_is_empty(&maker->idle)) {
		struct link *next = maker->waiting.next;
		struct job *job = OWNER_OF(maker->idle.next, struct job, link);

		link_remove(next);
		link_remove(&job->link);
		list_append(&maker->busy, &job->link);
		job_open(job, OWNER_OF(next, struct notice, link));
	}
}

void notice_make(struct notice_maker *maker, struct notice *notice)
{
	ASSERT(notice->rcpt_count > 0);
	link_init(&notice->link);
	list_append(&maker->waiting, &notice->link);
	maker_begin_next(maker);
}

int notice_maker_create(struct conn_net *net, struct queues *queues, struct notice_maker **out)
{
	struct notice_maker *maker = calloc(1, sizeof(*maker));

	(void)net; /* everything comes from the spool, which has the loop */
	if (maker == NULL)
		return -ENOMEM;
	maker->queues = queues;
	link_init(&maker->waiting);
	link_init(&maker->idle);
	link_init(&maker->busy);
	for (unsigned i = 0; i < NOTICES_AT_ONCE; i++) {
		struct job *job = &maker->jobs[i];

		job->maker = maker;
		link_init(&job->link);
		list_append(&maker->idle, &job->link);
	}
	*out = maker;
	return 0;
}

bool notice_maker_is_idle(const struct notice_maker *maker)
{
	return list_is_empty(&maker->waiting) && list_is_empty(&maker->busy);
}

void notice_maker_abort(struct notice_maker *maker)
{
	struct link *cursor, *after, *next;
	struct link waiting;

	/* Apart first: what ends must not begin the next. */
	link_init(&waiting);
	while ((next = list_take(&maker->waiting)) != NULL)
		list_append(&waiting, next);
	LIST_FOR_EACH (cursor, after, &maker->busy) {
		struct job *job = OWNER_OF(cursor, struct job, link);

		if (job->state != JOB_COMMIT)
			job_finish(job, -ECANCELED);
	}
	while ((next = list_take(&waiting)) != NULL) {
		struct notice *notice = OWNER_OF(next, struct notice, link);

		notice->on_done(notice, -ECANCELED);
	}
}

void notice_maker_destroy(struct notice_maker **maker)
{
	if (*maker == NULL)
		return;
	ASSERT(notice_maker_is_idle(*maker));
	free(*maker);
	*maker = NULL;
}
