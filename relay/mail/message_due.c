/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queues_private.h"

/*
 * message_due.c: what happens to a message because of the time: it is late, it is too old, or what
 * a next hop put off is tried again. One heap has the next moment of each, so nothing is looked at
 * that is not due.
 */

static int64_t message_delay_at(const struct queues *queues, const struct message *message)
{
	const uint64_t delay_ms = queues->policy->queue.delay_notification_ms;

	if (delay_ms == 0 || message->flags & ENVELOPE_DELAY_TOLD)
		return INT64_MAX;
	return message->arrived_ms + (int64_t)delay_ms;
}

static int64_t sooner(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

void message_plan(struct queues *queues, struct message *message)
{
	int64_t at = INT64_MAX;

	if (queues->policy == NULL)
		return;
	/*
	 * Whoever holds it, or works for it, plans it anew. What an administrator has suspended
	 * is kept for as long as that, and its age counts when it is resumed.
	 */
	if (message->holds == 0 && message->wants == 0 && !(message->flags & ENVELOPE_SUSPENDED)) {
		at = sooner(message->expires_ms, message_delay_at(queues, message));
		if (message->late_wants != 0 || at < message->not_before_ms)
			at = message->not_before_ms;
	}
	for (const struct entry *entry = message->entries; entry != NULL; entry = entry->next) {
		if (entry->place == ENTRY_PARKED && entry->due_ms > 0 &&
			!(message->flags & ENVELOPE_SUSPENDED))
			at = sooner(at, entry->due_ms);
	}
	if (at == INT64_MAX) {
		due_clear(&queues->moments, &message->due_place);
		return;
	}
	due_set(&queues->moments, &message->due_place, at);
	queues_expect(queues, at);
}

static void message_look(struct queues *queues, struct message *message, int64_t now_ms)
{
	due_clear(&queues->moments, &message->due_place);
	for (struct entry *entry = message->entries; entry != NULL; entry = entry->next) {
		if (entry->place == ENTRY_PARKED && entry->due_ms > 0 && entry->due_ms <= now_ms)
			entry_line_up(queues, entry, 0, false);
	}
	if (message->holds == 0 && message->wants == 0 && now_ms >= message->not_before_ms &&
		!(message->flags & ENVELOPE_SUSPENDED)) {
		unsigned want = message->late_wants;

		message->late_wants = 0;
		if (now_ms >= message->expires_ms)
			want |= WANT_EXPIRE;
		else if (now_ms >= message_delay_at(queues, message))
			want |= WANT_DELAY;
		if (want != 0)
			message_want(queues, message, want);
	}
	message_plan(queues, message);
}

bool messages_look(struct queues *queues, int64_t now_ms)
{
	int64_t at = 0;

	for (unsigned done = 0; done < SLICE_MOMENTS; done++) {
		uint32_t *place = due_first(&queues->moments, &at);

		if (place == NULL || at > now_ms)
			return false;
		message_look(queues, OWNER_OF(place, struct message, due_place), now_ms);
	}
	return true;
}

void messages_plan_again(struct queues *queues)
{
	queues->is_planning = true;
	queues->plan_at = 0;
	queues_kick(queues);
}

bool messages_go_on_planning(struct queues *queues)
{
	const uint32_t fresh = queues->messages.fresh;
	const uint32_t end =
		queues->plan_at + SLICE_MESSAGES < fresh ? queues->plan_at + SLICE_MESSAGES : fresh;

	if (!queues->is_planning)
		return false;
	for (; queues->plan_at < end; queues->plan_at++) {
		struct message *message = message_at(queues, queues->plan_at);

		if (message != NULL && message->is_ours)
			message_plan(queues, message);
	}
	queues->is_planning = end < fresh;
	return queues->is_planning;
}
