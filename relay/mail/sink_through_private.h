/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * sink_through_private.h: what the files of sink_through.h share.
 *
 *   sink_through.c       the states, the envelope, events, time
 *   sink_through_body.c  the text, and the answers to it
 */

#include "relay/mail/sink_through.h"

static inline struct sink_through *through_of(struct sink *sink)
{
	return OWNER_OF(sink, struct sink_through, sink);
}

/* Assigns the state; asserts that the edge is legal. */
void sink_through_enter(struct sink_through *through, enum through_state state);

/* From now on the next hop is awaited, and no more. */
void through_await(struct sink_through *through);
void through_stop(struct sink_through *through);

/* The queue has the message alone from now on. reply: the next hop's, or empty. */
void through_give_up(struct sink_through *through, const char *why, struct span reply);

/* What the next hop's silence, loss or answer is called in the log. */
const char *through_why(const struct sink_through *through);

/* The queue's refusal is ours. */
enum sink_status through_fail(struct sink_through *through);

/* The client hears that. */
void through_reply(struct sink_through *through, struct span wire);

/* Of struct sink_ops. */
enum sink_status through_data(struct sink *sink);
size_t through_room(struct sink *sink);
void through_body(struct sink *sink, struct span text);
enum sink_status through_finish(struct sink *sink);

/* One of the two, or both, are ready for text. */
void through_is_ready(struct sink_through *through);
/* The next hop was given up while it was to be ready for text: is the queue? */
void through_spare_is_ready(struct sink_through *through);

/* The next hop's answers. */
void through_data_answered(struct sink_through *through, unsigned code, struct span wire);
void through_message_answered(struct sink_through *through, unsigned code, struct span wire);
