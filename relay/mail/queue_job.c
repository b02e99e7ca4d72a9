/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queues_private.h"

#include "relay/base/log.h"

/*
 * queue_job.c: what needs the envelope of a message, and is no delivery: to route it anew, or to
 * tell its sender. There are few, and who wants one waits in order; some are for routing only, so
 * that mail goes on when the spool has no room for notices.
 */

static const struct spool_reader_events job_reader_events;

static bool job_tells(enum job_kind kind)
{
	return kind != JOB_ROUTE;
}

int jobs_create(struct queues *queues)
{
	int rc = pool_create(&queues->job_pool, JOBS, sizeof(struct job), 64);

	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < JOBS; i++) {
		struct job *job = pool_take(&queues->job_pool);

		link_init(&job->link);
		list_append(&queues->jobs_free, &job->link);
	}
	return 0;
}

void jobs_destroy(struct queues *queues)
{
	struct link *link;

	if (queues->job_pool.memory == NULL)
		return;
	while ((link = list_take(&queues->jobs_free)) != NULL)
		pool_put(&queues->job_pool, OWNER_OF(link, struct job, link));
	pool_destroy(&queues->job_pool);
}

bool jobs_have(const struct queues *queues, enum job_kind kind)
{
	/* What deliveries came to is told to the end. */
	if (queues->is_draining && kind != JOB_RESULTS)
		return false;
	return !list_is_empty(&queues->jobs_free) &&
	       (!job_tells(kind) || queues->jobs_telling < JOBS_TELLING_MAX);
}

void job_read(struct job *job)
{
	spool_reader_init(&job->reader, message_log(job->queues, job->message), &job_reader_events);
	spool_read(&job->reader, &job->message->spool);
}

struct job *job_start(struct queues *queues, enum job_kind kind, struct message *message)
{
	struct link *link = list_take(&queues->jobs_free);
	struct job *job;

	ASSERT(link != NULL);
	job = OWNER_OF(link, struct job, link);
	list_append(&queues->jobs, &job->link);
	job->queues = queues;
	job->router = queues->router;
	job->kind = kind;
	job->message = message;
	job->entry = NULL;
	job->is_noticing = false;
	job->from = 0;
	job->has_more = false;
	job->closing_count = 0;
	job->result_count = 0;
	job->remote[0] = '\0';
	if (job_tells(kind))
		queues->jobs_telling++;
	message_hold(message);
	/* Nothing is called from within: whoever starts it may still fill it in. */
	job_read(job);
	return job;
}

void job_end(struct job *job)
{
	struct queues *queues = job->queues;
	struct message *message = job->message;

	if (job_tells(job->kind))
		queues->jobs_telling--;
	job->message = NULL;
	link_remove(&job->link);
	list_append(&queues->jobs_free, &job->link);
	message_release(queues, message);
	queues_kick(queues);
}

/* Did the recipient fail, and its turn among the notices has not come yet? */
static bool job_owes(const struct job *job, const struct job_result *result)
{
	return result->outcome == RCPT_FAILED && result->index >= job->from;
}

/* What it had settled in memory only is open again. */
static void job_reopen(struct job *job)
{
	for (uint32_t i = 0; i < job->closing_count; i++) {
		if (job->closing[i].outcome != RCPT_RELAYED)
			message_set_open(job->message, job->closing[i].index, true);
	}
	for (uint32_t i = 0; i < job->result_count; i++) {
		if (job_owes(job, &job->results[i]))
			message_set_open(job->message, job->results[i].index, true);
	}
	if (job->entry != NULL)
		entry_line_up(job->queues, job->entry, job->message->not_before_ms, false);
	job->entry = NULL;
}

void job_fail(struct job *job, int error)
{
	struct message *message = job->message;
	struct queues *queues = job->queues;
	char id[MESSAGE_ID_TEXT_BYTES];

	message_id_print(message->spool.id, id);
	log_event(LOG_LEVEL_WARNING, NULL, "notice-failed", "id=%s why=%s next-s=%u", id,
		log_quote_text(strerror(-error), (char[80]){0}, 80), TROUBLE_RETRY_MS / 1000);
	message->not_before_ms = queues_now(queues) + TROUBLE_RETRY_MS;
	/* What is too old, or late, is found again by its time; what failed, by its way. */
	if (job->kind == JOB_REMOVE)
		message->late_wants |= WANT_REMOVE;
	else if (job->kind == JOB_REFUSE || job->kind == JOB_RESULTS)
		message->late_wants |= WANT_ROUTE;
	if (job->kind != JOB_DELAY)
		job_reopen(job);
	job_end(job);
}

void job_abort(struct job *job)
{
	if (job->is_noticing)
		return; /* the notice maker ends it */
	spool_read_end(&job->reader);
	if (job->kind != JOB_DELAY)
		job_reopen(job);
	job_end(job);
}

static bool job_has_recipient(const struct job *job, uint32_t index)
{
	for (uint32_t i = 0; i < job->closing_count; i++) {
		if (job->closing[i].index == index && job->closing[i].outcome != RCPT_RELAYED)
			return true;
	}
	for (uint32_t i = 0; i < job->result_count; i++) {
		if (job->results[i].index == index && job_owes(job, &job->results[i]))
			return true;
	}
	return false;
}

static bool slot_has_recipient(const struct slot *slot, uint32_t index)
{
	for (uint32_t i = 0; i < slot->result_count; i++) {
		const struct slot_result *result = &slot->results[i];

		if (result->index == index && result->tells && result->verdict == DELIVERY_FAILED)
			return true;
	}
	return false;
}

bool jobs_have_recipient(const struct queues *queues, const struct message *message, uint32_t index)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &queues->jobs) {
		const struct job *job = OWNER_OF(link, const struct job, link);

		if (job->message == message && job->kind != JOB_DELAY &&
			job_has_recipient(job, index))
			return true;
	}
	LIST_FOR_EACH (link, after, &queues->slots_waiting) {
		const struct slot *slot = OWNER_OF(link, const struct slot, link);

		if (slot->message == message && slot_has_recipient(slot, index))
			return true;
	}
	return false;
}

/* The reader's events. */

static void job_on_envelope(struct spool_reader *reader, const struct envelope *envelope)
{
	struct job *job = OWNER_OF(reader, struct job, reader);

	if (job->kind != JOB_ROUTE) {
		job_tell(job, envelope);
		return;
	}
	queues_route(job->queues, job->message, envelope);
	spool_read_end(reader);
	job_end(job);
}

static void job_on_text(struct spool_reader *reader, struct span text, bool is_last)
{
	(void)reader;
	(void)text;
	(void)is_last;
	UNREACHABLE(); /* no job asks for more than the envelope */
}

static void job_on_failed(struct spool_reader *reader, int error)
{
	struct job *job = OWNER_OF(reader, struct job, reader);

	spool_read_end(reader);
	if (job->kind != JOB_DELAY)
		job_reopen(job);
	message_poisoned(job->queues, job->message, error);
	job_end(job);
}

static const struct spool_reader_events job_reader_events = {
	.on_envelope = job_on_envelope,
	.on_text = job_on_text,
	.on_failed = job_on_failed,
};

/* Who is next. */

static enum job_kind want_job(unsigned wants, unsigned *out_want)
{
	static const struct {
		enum want want;
		enum job_kind kind;
	} order[] = {
		{WANT_REMOVE, JOB_REMOVE},
		{WANT_EXPIRE, JOB_EXPIRE},
		{WANT_REFUSE, JOB_REFUSE},
		{WANT_DELAY, JOB_DELAY},
		{WANT_ROUTE, JOB_ROUTE},
	};

	for (unsigned i = 0; i < COUNT_OF(order); i++) {
		if (wants & order[i].want) {
			*out_want = order[i].want;
			return order[i].kind;
		}
	}
	UNREACHABLE();
}

/* False: there is no job for it now. */
static bool work_start(struct queues *queues, struct message *message)
{
	unsigned want = 0;
	enum job_kind kind;

	/* Whoever holds it, or made it want nothing, finds its place. */
	if (message->holds > 0 || message->wants == 0) {
		link_remove(&message->link);
		return true;
	}
	kind = want_job(message->wants, &want);
	if (!jobs_have(queues, kind))
		return false;
	link_remove(&message->link);
	message->wants &= (uint8_t)~want;
	(void)job_start(queues, kind, message);
	return true;
}

void queues_do_work(struct queues *queues)
{
	struct link *link;
	struct link *after;
	unsigned passed = 0;

	while (!list_is_empty(&queues->slots_waiting) && jobs_have(queues, JOB_RESULTS))
		slot_settle(OWNER_OF(list_take(&queues->slots_waiting), struct slot, link));
	/* Where one waits for a notice, others may be routed meanwhile. */
	LIST_FOR_EACH (link, after, &queues->work) {
		if (!jobs_have(queues, JOB_ROUTE) || passed == SLICE_CHORES)
			break;
		if (!work_start(queues, OWNER_OF(link, struct message, link)))
			passed++;
	}
}
