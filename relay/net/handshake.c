/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/limits.h"
#include "relay/base/stats.h"
#include "relay/net/record.h"
#include <errno.h>

/*
 * handshake.c: from clear text to TLS, and from OpenSSL to the kernel.
 *
 * A full mutual handshake costs about a millisecond of a core, so only so many
 * steps are made in one turn of the loop; the other connections go on in the
 * next, and established sessions are served in between.
 */
#define HANDSHAKE_STEPS_PER_TURN 8

void conn_sink_open(struct conn *conn)
{
	if (conn->wire == NULL) {
		bool bulk = conn->out != NULL && conn->out->is_bulk;

		conn->wire = iobuf_take(&conn->net->bufs, bulk);
		conn->wire_start = 0;
		conn->wire_end = 0;
	}
	tls_sink(conn->tls, conn->wire->data + conn->wire_end, conn->wire->cap - conn->wire_end);
}

void conn_sink_close(struct conn *conn)
{
	/* Where the kernel sends, a byte of OpenSSL's would be noise, but what it had to say
	 * matters. */
	if (conn->tx != &record_kernel)
		conn->wire_end += (uint32_t)conn->tls->sink_len;
	else if (conn->tls->has_alert)
		record_send_alert(conn, conn->tls->alert);
	conn->tls->has_alert = false;
	tls_sink(conn->tls, NULL, 0);
	if (!conn->send_op.in_flight && conn->wire_start == conn->wire_end)
		iobuf_put(&conn->net->bufs, &conn->wire);
}

/* The TLS object is not needed any more. */
static void handshake_free_tls(struct conn *conn)
{
	if (conn->tls == NULL)
		return;
	tls_close(conn->tls);
	pool_put(&conn->net->tls_pool, conn->tls);
	conn->tls = NULL;
}

void handshake_forget(struct conn *conn)
{
	handshake_free_tls(conn);
	ktls_close(&conn->ktls);
	seal_close(&conn->seal[KTLS_DIRECTION_RX]);
	seal_close(&conn->seal[KTLS_DIRECTION_TX]);
}

void conn_keep_for_tls(struct conn *conn)
{
	ASSERT(conn->state == CONN_OPEN && conn->tls == NULL && conn->rx == &record_plain);
	ASSERT(conn->raw_start == conn->raw_end && !conn->recv_op.in_flight);
	conn->raw_start = conn->in_start;
	conn->raw_end = conn->in_end;
	conn->in_end = conn->in_start;
}

int conn_start_tls(struct conn *conn, const struct tls_context *context, const char *host,
	struct ssl_session_st **slot)
{
	int rc;

	/* RFC 3207 4.2: nothing that came in clear may count under TLS. */
	ASSERT(conn->state == CONN_OPEN && conn->tls == NULL && conn_is_drained(conn));
	ASSERT(conn_input(conn).len == 0 && !conn->recv_op.in_flight);
	conn->tls = pool_take(&conn->net->tls_pool);
	if (conn->tls == NULL)
		return -ENOBUFS;
	rc = tls_open(conn->tls, context, host, slot);
	if (rc < 0) {
		pool_put(&conn->net->tls_pool, conn->tls);
		conn->tls = NULL;
		return rc;
	}
	conn_enter(conn, CONN_HANDSHAKE);
	conn->rx = &record_user;
	conn->tx = &record_user;
	conn->wants_input = true;
	conn->is_hello_due = !context->is_server;
	conn->is_bulk_in = false;
	conn->is_bulk_out = false;
	if (!context->is_server) {
		handshake_run(conn);
	} else if (conn->raw_start < conn->raw_end) {
		conn->pending |= CONN_PENDING_HANDSHAKE;
		loop_task_add(conn->net->loop, &conn->task);
	} else {
		conn->rx->recv(conn);
	}
	return 0;
}

/* May this connection make a step in this turn? If not, it is called again in the next. */
static bool handshake_has_turn(struct conn *conn)
{
	struct conn_net *net = conn->net;

	if (net->handshake_turn != loop_turns(net->loop)) {
		net->handshake_turn = loop_turns(net->loop);
		net->handshakes_left = HANDSHAKE_STEPS_PER_TURN;
	}
	if (net->handshakes_left == 0) {
		conn->pending |= CONN_PENDING_HANDSHAKE;
		loop_task_add(net->loop, &conn->task);
		return false;
	}
	net->handshakes_left--;
	return true;
}

/*
 * Feeds the next whole record, if there is one and OpenSSL waits for it. What is
 * no record is fed as it came: OpenSSL says what is wrong, to us and in an alert.
 */
static bool handshake_feed(struct conn *conn, bool *broken)
{
	uint32_t have = conn->raw_end - conn->raw_start;
	int length = 0;

	if (conn->in != NULL)
		length = tls_record_length(span_make(conn->in->data + conn->raw_start, have));
	*broken = length < 0;
	if (*broken)
		length = (int)have;
	if (length == 0 || (uint32_t)length > have)
		return false;
	tls_feed(conn->tls, span_make(conn->in->data + conn->raw_start, (size_t)length));
	conn->raw_start += (uint32_t)length;
	return true;
}

static enum tls_status handshake_step(struct conn *conn)
{
	enum tls_status status;

	conn_sink_open(conn);
	status = tls_handshake(conn->tls);
	conn_sink_close(conn);
	conn_send_wire(conn);
	return status;
}

static void handshake_done(struct conn *conn)
{
	conn_enter(conn, CONN_OPEN);
	conn->wants_input = false;
	conn->ktls_rx_ready = conn->tls->context->is_server;
	conn->peer = tls_facts_read(conn->tls, NULL, time(NULL), &conn->facts);
	/*
	 * A client may speak right behind its Finished, in the same segment: what came
	 * is read before anything else is asked for.
	 */
	if (conn->in != NULL)
		record_read_user(conn);
	conn->is_fresh = conn->in_start < conn->in_end;
	conn_in_tidy(conn);
	conn_send_wire(conn);
	conn->events->on_tls(conn);
}

void handshake_run(struct conn *conn)
{
	enum tls_status status = TLS_MORE;
	bool broken = false;
	bool go;

	if (conn->recv_op.in_flight || conn->has_ended)
		return;
	while (status == TLS_MORE) {
		/* A client speaks first; after that a step needs a record, or room that was
		 * lacking. */
		go = conn->is_hello_due || handshake_feed(conn, &broken);
		if (!go)
			break;
		status = handshake_step(conn);
		if (broken)
			status = TLS_FAILED;
		conn->is_hello_due = status == TLS_FULL;
		if (status == TLS_MORE && !handshake_has_turn(conn))
			return;
	}
	if (status == TLS_DONE) {
		handshake_done(conn);
	} else if (status == TLS_FAILED || status == TLS_CLOSED) {
		if (broken && conn->tls->error[0] == '\0')
			(void)snprintf(conn->tls->error, sizeof(conn->tls->error), "no TLS record");
		conn_ended(conn, CONN_END_TLS);
	} else if (status == TLS_MORE) {
		conn->rx->recv(conn);
	}
	/* TLS_FULL: the send that is under way calls again. */
}

/* The owner is told once, when nothing is wanted any more. */
static void handshake_settle(struct conn *conn)
{
	if (conn->is_settled || conn->ktls_want != 0)
		return;
	conn->is_settled = true;
	conn->events->on_record(conn);
}

void handshake_count(struct conn *conn, uint32_t bytes)
{
	if (conn->ktls_later == 0 || bytes < KTLS_FULL_RECORD_BYTES)
		return;
	conn->ktls_saved += KTLS_SAVED_BY_FULL_RECORD;
	if (conn->ktls_saved < KTLS_HAND_OVER_COST)
		return;
	conn->ktls_want |= conn->ktls_later;
	conn->ktls_later = 0;
}

static void handshake_install(struct conn *conn, enum ktls_direction direction)
{
	int rc = -EKEYREJECTED;

	conn->ktls_want &= ~BIT(direction);
	conn->has_moved = conn->is_settled;
	if (conn->tls == NULL)
		rc = ktls_install(&conn->ktls, direction, conn->seal[direction].sequence);
	else if (conn->tls->keys_changed)
		conn->ktls_why_not[direction] = "key-update";
	else
		rc = ktls_install(&conn->ktls, direction, ktls_records(conn->tls, direction));
	STAT_ADD(other_syscalls, 2);
	if (rc == 0 && conn->has_moved)
		STAT(ktls_auto);
	if (rc < 0) {
		if (conn->ktls_why_not[direction] == NULL)
			conn->ktls_why_not[direction] =
				rc == -EOPNOTSUPP ? "kernel-lacks-cipher" : "kernel-refused";
		STAT(ktls_failed);
		return;
	}
	seal_close(&conn->seal[direction]);
	if (direction == KTLS_DIRECTION_RX) {
		conn->rx = &record_kernel;
		STAT(ktls_rx);
		if (conn->facts.verdict == VERDICT_VALID)
			ktls_expect_no_pad(&conn->ktls);
	} else {
		conn->tx = &record_kernel;
		STAT(ktls_tx);
	}
}

static bool handshake_seal(struct conn *conn, enum ktls_direction direction)
{
	struct record_keys keys;
	bool done = ktls_keys(&conn->ktls, direction, ktls_records(conn->tls, direction), &keys) &&
		    seal_open(&conn->seal[direction], &conn->ktls, direction == KTLS_DIRECTION_TX,
			    &keys) == 0;

	explicit_bzero(&keys, sizeof(keys));
	return done;
}

/* OpenSSL keeps what it has, and so nothing goes to the kernel later. */
static void handshake_stays(struct conn *conn, const char *why)
{
	conn->may_seal = false;
	if (conn->ktls_later == 0)
		return;
	conn->ktls_later = 0;
	conn->ktls_why_not[KTLS_DIRECTION_RX] = why;
	conn->has_moved = conn->is_settled;
}

/*
 * What the kernel does not take is ours from now on (seal.h), both directions at once, so that
 * OpenSSL can go. A client waits for the first text, since tickets may come before it.
 */
static void handshake_leave_openssl(struct conn *conn)
{
	const bool rx = conn->rx == &record_user;
	const bool tx = conn->tx == &record_user;

	if (!conn->may_seal || conn->ktls_want != 0 || !conn->ktls_rx_ready || conn->has_ended)
		return;
	if (conn->tls->keys_changed) {
		handshake_stays(conn, "key-update");
		return;
	}
	conn->may_seal = false;
	if ((rx && !handshake_seal(conn, KTLS_DIRECTION_RX)) ||
		(tx && !handshake_seal(conn, KTLS_DIRECTION_TX))) {
		seal_close(&conn->seal[KTLS_DIRECTION_RX]);
		handshake_stays(conn, "no-memory");
		return;
	}
	if (rx)
		conn->rx = &record_own;
	if (tx)
		conn->tx = &record_own;
	handshake_free_tls(conn);
}

void handshake_offer_kernel(struct conn *conn)
{
	const unsigned wanted = conn->ktls_want | conn->ktls_later;

	if (conn->state != CONN_OPEN || (conn->tls == NULL && conn->ktls_want == 0))
		return;
	if (conn->ktls_want & BIT(KTLS_DIRECTION_RX) && conn->ktls_rx_ready && !conn->has_ended &&
		!conn->recv_op.in_flight && conn->raw_start == conn->raw_end)
		handshake_install(conn, KTLS_DIRECTION_RX);
	if (conn->ktls_want & BIT(KTLS_DIRECTION_TX) && conn->wire == NULL)
		handshake_install(conn, KTLS_DIRECTION_TX);
	if (conn->rx == &record_kernel && conn->tx == &record_kernel) {
		handshake_free_tls(conn);
		if (!conn->net->ktls_support->rekeys || !conn->ktls.is_tls13)
			explicit_bzero(conn->ktls.secret, sizeof(conn->ktls.secret));
	} else if (conn->tls != NULL) {
		handshake_leave_openssl(conn);
	}
	if (conn->is_settled && (conn->ktls_want | conn->ktls_later) != wanted)
		conn->events->on_record(conn);
	handshake_settle(conn);
}

void conn_allow_ktls(struct conn *conn, enum ktls_mode mode, const char *why_not)
{
	static const unsigned wants[] = {
		[KTLS_OFF] = 0,
		[KTLS_TX] = BIT(KTLS_DIRECTION_TX),
		[KTLS_RX] = BIT(KTLS_DIRECTION_RX),
		[KTLS_ON] = BIT(KTLS_DIRECTION_RX) | BIT(KTLS_DIRECTION_TX),
		[KTLS_AUTO] = 0,
	};

	const char *why = why_not;
	bool helps;

	ASSERT(conn->tls != NULL && conn->ktls_want == 0);
	helps = ktls_init(&conn->ktls, conn->net->ktls_support, conn->fd, conn->tls, &why);
	conn->ktls_want = helps ? wants[mode] : 0;
	conn->ktls_later = helps && mode == KTLS_AUTO ? BIT(KTLS_DIRECTION_RX) : 0;
	conn->may_seal = conn->ktls.has_keys;
	if (mode != KTLS_OFF)
		why_not = conn->ktls_later != 0 ? "auto:no-gain" : why;
	for (unsigned way = 0; way < KTLS_DIRECTION_COUNT; way++) {
		if (!((conn->ktls_want | conn->ktls_later) & BIT(way)))
			conn->ktls_why_not[way] = why_not;
	}
	handshake_offer_kernel(conn);
}

void conn_tell_closed(struct conn *conn)
{
	struct peer *peer = conn->peer;

	conn_enter(conn, CONN_CLOSED);
	conn->events->on_closed(conn);
	peer_release(&peer);
}

enum verdict conn_judge(struct conn *conn, time_t now, bool *pending)
{
	enum verdict verdict = tls_facts_judge(&conn->facts, conn->peer, NULL, now);

	if (pending != NULL)
		*pending = conn->facts.is_pending;
	return verdict;
}

const char *conn_record_print(const struct conn *conn, char *out, size_t out_bytes)
{
	const bool rx = conn->rx == &record_kernel;
	const bool tx = conn->tx == &record_kernel;
	const char *why = conn->ktls_why_not[rx ? KTLS_DIRECTION_TX : KTLS_DIRECTION_RX];

	if (why == NULL)
		why = conn->ktls_later != 0 ? "auto:waits-for-more" : "not-yet";
	if (rx && tx)
		(void)snprintf(out, out_bytes, "kernel");
	else if (!rx && !tx)
		(void)snprintf(out, out_bytes, "user(%s)", why);
	else
		(void)snprintf(out, out_bytes, "kernel-%s,user-%s(%s)", rx ? "rx" : "tx",
			rx ? "tx" : "rx", why);
	return out;
}
