/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/spool_state.h"

#include "relay/mail/envelope.h"

#include <errno.h>

/* Of a table that is never more than half full. */
#define SLOTS_MIN 1024

struct spool_state {
	struct spool_state_message **messages;
	unsigned count;
	unsigned *slots; /* index of a message, plus 1; 0: free */
	unsigned slot_count;
};

int spool_state_create(struct spool_state **out)
{
	struct spool_state *state = calloc(1, sizeof(*state));

	if (state == NULL)
		return -ENOMEM;
	*out = state;
	return 0;
}

void spool_state_destroy(struct spool_state **state)
{
	struct spool_state *gone = *state;

	*state = NULL;
	if (gone == NULL)
		return;
	for (unsigned i = 0; i < gone->count; i++) {
		free(gone->messages[i]->rcpt_states);
		free(gone->messages[i]);
	}
	free(gone->messages);
	free(gone->slots);
	free(gone);
}

/* The slot of an id, or the free one where it would be. */
static unsigned *state_slot(const struct spool_state *state, uint64_t id)
{
	const unsigned mask = state->slot_count - 1;
	unsigned at = (unsigned)((id * 0x9e3779b97f4a7c15U) >> 32) & mask;

	while (state->slots[at] != 0 && state->messages[state->slots[at] - 1]->id != id)
		at = (at + 1) & mask;
	return &state->slots[at];
}

static struct spool_state_message *state_find(const struct spool_state *state, uint64_t id)
{
	const unsigned slot = state->slot_count == 0 ? 0 : *state_slot(state, id);

	return slot == 0 ? NULL : state->messages[slot - 1];
}

static int state_create_slots(struct spool_state *state)
{
	const unsigned count = state->slot_count == 0 ? SLOTS_MIN : state->slot_count * 2;
	unsigned *slots;

	if (state->slot_count / 2 > state->count)
		return 0;
	slots = calloc(count, sizeof(*slots));
	if (slots == NULL)
		return -ENOMEM;
	free(state->slots);
	state->slots = slots;
	state->slot_count = count;
	for (unsigned i = 0; i < state->count; i++)
		*state_slot(state, state->messages[i]->id) = i + 1;
	return 0;
}

/* That id, without anything known of it. NULL: no memory. */
static struct spool_state_message *state_create_message(struct spool_state *state, uint64_t id)
{
	struct spool_state_message **more;
	struct spool_state_message *message = state_find(state, id);

	if (message != NULL)
		return message;
	if (state_create_slots(state) < 0)
		return NULL;
	more = reallocarray(
		state->messages, state->count + 1, sizeof(struct spool_state_message *));
	if (more == NULL)
		return NULL;
	state->messages = more;
	message = calloc(1, sizeof(*message));
	if (message == NULL)
		return NULL;
	message->id = id;
	message->is_done = true;
	*state_slot(state, id) = state->count + 1;
	state->messages[state->count++] = message;
	return message;
}

static int state_create_from(struct spool_state *state, const struct spool_scan_record *record)
{
	struct record_message parts;
	struct envelope envelope;
	struct envelope_rcpt rcpt;
	struct spool_state_message *message;
	uint8_t *states;
	size_t at = 0;

	if (!record_read_message(record->payload, &parts) ||
		!envelope_read(parts.envelope, &envelope) ||
		envelope.body_bytes != parts.body_bytes)
		return -EBADMSG;
	states = malloc(envelope.rcpt_count > 0 ? envelope.rcpt_count : 1);
	message = states == NULL ? NULL : state_create_message(state, record->head.id);
	if (message == NULL) {
		free(states);
		return -ENOMEM;
	}
	free(message->rcpt_states);
	*message = (struct spool_state_message){
		.id = record->head.id,
		.segment = record->head.segment,
		.offset = record->offset,
		.flags = envelope.flags,
		.attempts = envelope.attempts,
		.arrived_ms = envelope.arrived_ms,
		.body_bytes = envelope.body_bytes,
		.rcpt_count = envelope.rcpt_count,
		.rcpt_states = states,
	};
	for (uint32_t i = 0; envelope_next(&envelope, &at, &rcpt); i++) {
		states[i] = (uint8_t)rcpt.state;
		message->open_count += rcpt.state == RCPT_OPEN ? 1 : 0;
	}
	return 0;
}

static int state_change(struct spool_state *state, const struct spool_scan_record *record)
{
	struct spool_state_message *message = state_find(state, record->head.id);
	struct envelope_change change;
	struct envelope_change_rcpt rcpt;
	size_t at = 0;

	if (!envelope_read_change(record->payload, &change))
		return -EBADMSG;
	if (message == NULL || message->is_done)
		return 0;
	while (envelope_change_next(&change, &at, &rcpt)) {
		if (rcpt.index >= message->rcpt_count)
			return -EBADMSG;
	}
	for (at = 0; envelope_change_next(&change, &at, &rcpt);) {
		uint8_t *now = &message->rcpt_states[rcpt.index];

		message->open_count -= *now == RCPT_OPEN ? 1 : 0;
		*now = (uint8_t)rcpt.state;
		message->open_count += *now == RCPT_OPEN ? 1 : 0;
	}
	message->flags = change.flags;
	message->attempts = change.attempts;
	message->next_ms = change.next_ms;
	return 0;
}

static int state_done(struct spool_state *state, const struct spool_scan_record *record)
{
	struct spool_state_message *message = state_find(state, record->head.id);
	enum record_done why;

	if (!record_read_done(record->payload, &why))
		return -EBADMSG;
	if (message == NULL)
		return 0;
	free(message->rcpt_states);
	message->rcpt_states = NULL;
	message->is_done = true;
	message->open_count = 0;
	return 0;
}

int spool_state_apply(struct spool_state *state, const struct spool_scan_record *record)
{
	struct span text;
	uint64_t at;

	switch (record->head.type) {
	case RECORD_BODY:
		return record_read_body(record->payload, &at, &text) ? 0 : -EBADMSG;
	case RECORD_MESSAGE:
		return state_create_from(state, record);
	case RECORD_RECIPIENTS:
		return state_change(state, record);
	case RECORD_DONE:
		return state_done(state, record);
	case RECORD_SEAL:
		return record->payload.len == 0 ? 0 : -EBADMSG;
	case RECORD_SEGMENT:
	case RECORD_NOTE:
		break;
	}
	return 0;
}

const struct spool_state_message *spool_state_at(const struct spool_state *state, unsigned index)
{
	return index < state->count ? state->messages[index] : NULL;
}

const struct spool_state_message *spool_state_find(const struct spool_state *state, uint64_t id)
{
	return state_find(state, id);
}

void spool_state_facts(const struct spool_state *state, struct spool_state_facts *out)
{
	*out = (struct spool_state_facts){0};
	for (unsigned i = 0; i < state->count; i++) {
		const struct spool_state_message *message = state->messages[i];

		out->done += message->is_done ? 1 : 0;
		out->messages += message->is_done ? 0 : 1;
		out->open_rcpts += message->open_count;
		out->body_bytes += message->is_done ? 0 : message->body_bytes;
	}
}
