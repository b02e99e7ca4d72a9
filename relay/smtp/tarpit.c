/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/limits.h"
#include "relay/base/stats.h"
#include "relay/smtp/session.h"

/*
 * tarpit.c: replies to mistakes wait for tarpit-interval, unless the peer has proved who it is.
 * Meanwhile nothing leaves and nothing more is parsed, of this session: a timer ends it, and
 * nobody else waits.
 */

/* With less room than this for replies, what is held back leaves early. */
#define TARPIT_ROOM_MIN 8192

_Static_assert(TARPIT_ROOM_MIN < IOBUF_SMALL_BYTES, "some replies can be held back");

static void tarpit_fire(struct timer *timer)
{
	struct session *session = OWNER_OF(timer, struct session, tarpit);

	STAT(tarpitted);
	tarpit_stop(session);
	session_run(session);
}

void tarpit_open(struct session *session)
{
	timer_init(&session->tarpit, tarpit_fire);
}

/* A 421 is the last word anyway. */
static bool tarpit_is_mistake(struct span wire)
{
	return wire.len >= 3 && (wire.data[0] == '4' || wire.data[0] == '5') &&
	       memcmp(wire.data, "421", 3) != 0;
}

void tarpit_consider(struct session *session, struct span reply)
{
	struct loop *loop = session->conn.net->loop;
	uint64_t interval = session->connector->tarpit_interval_ms;

	if (interval == 0 || session->is_proved || session->waits & SESSION_WAIT_TARPIT ||
		!tarpit_is_mistake(reply))
		return;
	session->waits |= SESSION_WAIT_TARPIT;
	conn_hold(&session->conn);
	timer_set(loop_timers(loop), &session->tarpit, loop_now_ms(loop) + interval);
}

bool tarpit_holds(struct session *session)
{
	if (!(session->waits & SESSION_WAIT_TARPIT))
		return false;
	if (conn_room(&session->conn) >= TARPIT_ROOM_MIN)
		return true;
	/* The next hop's answers were many: the peer goes on waiting, they need not. */
	conn_release(&session->conn);
	return false;
}

void tarpit_stop(struct session *session)
{
	if (!(session->waits & SESSION_WAIT_TARPIT))
		return;
	session->waits &= ~(unsigned)SESSION_WAIT_TARPIT;
	timer_stop(loop_timers(session->conn.net->loop), &session->tarpit);
	conn_release(&session->conn);
}
