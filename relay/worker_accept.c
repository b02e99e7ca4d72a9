/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/gate.h"
#include "relay/base/limits.h"
#include "relay/worker_private.h"
#include <netinet/in.h>
#include <unistd.h>

/*
 * worker_accept.c: who comes in, and under which connector (EXCHANGE 2.1).
 */

static void worker_on_session_closed(struct session *session)
{
	struct worker_session *own = OWNER_OF(session, struct worker_session, session);
	struct worker *worker = own->worker;

	worker_sink_close(own);
	quota_leave(&own->place);
	own->view->sessions--;
	link_remove(&own->link);
	pool_put(&worker->sessions, own);
}

/*
 * Where mail of a session goes under another policy: by what its connector says there, or by the
 * send connector of the same name if that is gone. False: there is nothing like it.
 */
static bool worker_find_way(
	struct view *view, const struct session *session, struct worker_way *out)
{
	const struct policy *policy = view->world->policy;
	const struct send_connector *old = session->connector->send_connector;
	const struct receive_connector *connector =
		policy_receive_connector(policy, session->connector->name);

	out->view = view;
	out->receive = connector == NULL ? session->connector : connector;
	if (connector != NULL)
		out->send = connector->send_connector;
	else
		out->send = old == NULL ? NULL : policy_send_connector(policy, old->name);
	return connector != NULL || old == NULL || out->send != NULL;
}

/*
 * The world has changed since its last message: the next goes as the new one says. If that knows no
 * way for it, there is none: the old one was allowed by rules that are not in force any more.
 */
static void worker_follow_world(struct worker_session *own)
{
	struct view *view = own->worker->view;
	struct worker_way way;

	if (own->out_view == view)
		return;
	if (!worker_find_way(view, &own->session, &way)) {
		own->session.is_draining = true;
		return;
	}
	worker_sink_move(own, &way);
	/* It stands in the view that is held now, until the next move. */
	own->session.authserv_id = view->world->policy->fqdn;
}

static bool worker_on_message(struct session *session)
{
	struct worker_session *own = OWNER_OF(session, struct worker_session, session);

	worker_follow_world(own);
	return quota_message(&own->place, session->connector, loop_now_ms(own->worker->loop)) ==
	       QUOTA_OPEN;
}

static enum session_welcome worker_on_announced(
	struct session *session, const struct session_client *client);

static const struct session_owner worker_session_owner = {
	.on_closed = worker_on_session_closed,
	.on_announced = worker_on_announced,
	.on_message = worker_on_message,
};

/* Why there is no place for a client. */
struct worker_crowd {
	const char *why; /* NULL: there is one */
	const char *reply;
	const char *event_id;
};

static const struct worker_crowd crowd_none = {0};
#define CROWD_REPLY                                                                             \
	"421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing " \
	"transmission channel\r\n"
static const struct worker_crowd crowd_sessions = {
	"too-many-sessions", CROWD_REPLY, " event-id=1021"};
static const struct worker_crowd crowd_connector = {
	"too-many-connections", CROWD_REPLY, " event-id=1021"};
static const struct worker_crowd crowd_source = {
	"too-many-connections-per-source", CROWD_REPLY, " event-id=1021"};
static const struct worker_crowd crowd_rate = {"rate",
	"421 4.7.0 Connections from this source come too fast, closing transmission channel\r\n",
	""};

static void worker_log_crowd(const char *session, const struct receive_connector *connector,
	const char *peer, const struct worker_crowd *crowd)
{
	STAT(sessions_refused);
	log_event(LOG_LEVEL_WARNING, session, "refused", "connector=%s peer=%s why=%s%s",
		connector->name, peer, crowd->why, crowd->event_id);
}

/* The peer is told once, without waiting. */
static void worker_refuse(const struct receive_connector *connector, const char *peer,
	const struct worker_crowd *crowd, int fd)
{
	worker_log_crowd(NULL, connector, peer, crowd);
	if (connector->tls != TLS_MODE_IMPLICIT) {
		ssize_t sent =
			send(fd, crowd->reply, strlen(crowd->reply), MSG_DONTWAIT | MSG_NOSIGNAL);

		(void)sent;
	}
	(void)close(fd);
}

/* Only behind a wildcard binding the kernel has to be asked which address it was. */
static void worker_read_local(int fd, struct address *local)
{
	struct address asked = {.len = sizeof(asked.sockaddr)};
	struct ip ip;

	if (!ip_of_sockaddr((const struct sockaddr *)&local->sockaddr, &ip) || !ip_is_any(&ip))
		return;
	STAT(other_syscalls);
	if (getsockname(fd, (struct sockaddr *)&asked.sockaddr, &asked.len) == 0)
		*local = asked;
}

static bool worker_read_ends(const struct listener *listener, int fd, struct worker_peer *out)
{
	struct address remote = {.len = sizeof(remote.sockaddr)};
	struct sockaddr_in6 v6;

	*out = (struct worker_peer){.local = listener->address};
	STAT(other_syscalls);
	if (getpeername(fd, (struct sockaddr *)&remote.sockaddr, &remote.len) < 0 ||
		!ip_of_sockaddr((const struct sockaddr *)&remote.sockaddr, &out->ip))
		return false;
	worker_read_local(fd, &out->local);
	/* The port stands at the same place in both families. */
	memcpy(&v6, &remote.sockaddr, sizeof(v6));
	out->port = ntohs(v6.sin6_port);
	if (remote.sockaddr.ss_family == AF_INET6)
		out->zone = v6.sin6_scope_id;
	(void)ip_print(&out->ip, out->address, sizeof(out->address));
	address_print(&out->local, out->local_text, sizeof(out->local_text));
	return true;
}

/*
 * A place for the client, if the connector's limits allow one; else why not. The kernel keeps to
 * connection-rate-limit, if it decides, for peers that were not announced and have no zone.
 */
static const struct worker_crowd *worker_enter(struct worker *worker, const struct gate_answer *who,
	const struct address *local, const struct ip *client, bool is_announced,
	struct quota_place *out)
{
	struct doorman *doorman = worker->shared->doorman;
	const struct world *world = worker->view->world;
	const struct doorman_knock knock = {.local = local, .peer = client, .answer = who};

	switch (quota_enter(worker->shared->quota, who->connector, client,
		is_announced || who->is_zoned || !doorman_is_kernel(doorman), out)) {
	case QUOTA_OPEN:
		doorman_passed(doorman, world, &knock);
		return &crowd_none;
	case QUOTA_SOURCE:
		STAT(sessions_refused_source);
		return &crowd_source;
	case QUOTA_SPEED:
		STAT(sessions_refused_rate);
		doorman_refused(doorman, world, &knock, DOOR_REASON_RATE);
		return &crowd_rate;
	case QUOTA_FULL:
	case QUOTA_RATE:
		break;
	}
	return &crowd_connector;
}

/* A session for the peer, if there is room. A balancer's client is counted, when it is known. */
static struct worker_session *worker_admit(struct worker *worker, const struct gate_answer *who,
	const struct worker_peer *peer, int fd)
{
	struct quota_place place = {0};
	struct worker_session *own = NULL;
	const struct worker_crowd *crowd = &crowd_none;

	if (!who->is_balancer)
		crowd = worker_enter(worker, who, &peer->local, &peer->ip, false, &place);
	if (crowd->why == NULL) {
		own = pool_take(&worker->sessions);
		crowd = &crowd_sessions;
	}
	if (own == NULL) {
		quota_leave(&place);
		worker_refuse(who->connector, peer->address, crowd, fd);
		return NULL;
	}
	own->place = place;
	own->ends = *peer;
	return own;
}

/* Whether the peer may speak for others. A zone is that of the link that it is on. */
static bool worker_is_front_end(
	const struct receive_connector *connector, const struct ip *ip, uint32_t zone)
{
	for (unsigned i = 0; i < connector->xclient_host_count; i++) {
		const struct ip_range *range = &connector->xclient_hosts[i];

		if (ip_range_has(range, ip) && (range->zone == 0 || range->zone == zone))
			return true;
	}
	return false;
}

static void worker_log_accept(const struct worker_session *own, const struct gate_answer *who)
{
	const struct session *session = &own->session;
	const bool is_announced = session->awaits_header;

	log_event(LOG_LEVEL_INFO, session->id, "accept",
		"connector=%s peer=%s port=%u local=%s%s%s%s%s", session->connector->name,
		session->peer, session->client.port, own->ends.local_text,
		is_announced ? " balancer=" : "", is_announced ? own->ends.address : "",
		who->partner == NULL ? "" : " partner=",
		who->partner == NULL ? "" : who->partner->name);
}

/* The client, as the socket has it. */
static struct session_client worker_client(const struct worker_peer *peer)
{
	struct session_client client = {.origin = CLIENT_SEEN, .ip = peer->ip, .port = peer->port};
	struct sockaddr_in6 v6;

	(void)ip_of_sockaddr((const struct sockaddr *)&peer->local.sockaddr, &client.destination);
	memcpy(&v6, &peer->local.sockaddr, sizeof(v6));
	client.destination_port = ntohs(v6.sin6_port);
	return client;
}

static void worker_open_session(
	struct worker *worker, struct worker_session *own, const struct gate_answer *who, int fd)
{
	const struct receive_connector *connector = who->connector;
	struct session *session = &own->session;

	own->worker = worker;
	own->partner = who->is_balancer ? NULL : who->partner;
	own->view = worker->view;
	own->view->sessions++;
	worker_sink_open(own, &(const struct worker_way){.view = worker->view,
				      .receive = connector,
				      .send = connector->send_connector});
	session->owner = &worker_session_owner;
	session->connector = connector;
	session->world = &worker->world;
	session->tls_context = view_tls(worker->view, connector);
	session->client = worker_client(&own->ends);
	session->awaits_header = who->is_balancer;
	session->is_front_end = worker_is_front_end(connector, &own->ends.ip, own->ends.zone);
	(void)snprintf(session->id, sizeof(session->id), "%08x%04x%02x%06x",
		(unsigned)worker->shared->started_s, worker->shared->random_id, worker->index,
		(unsigned)(worker->next_session++ & 0xffffff));
	(void)snprintf(session->peer, sizeof(session->peer), "%s", own->ends.address);
	if (!who->is_balancer)
		worker_log_accept(own, who);
	link_init(&own->link);
	list_append(&worker->open_sessions, &own->link);
	session_open(session, &worker->net, fd);
}

/* EXCHANGE 2.1: who matches no connector is not served, and not spoken to. */
static void worker_log_stranger(struct worker *worker, const struct gate_answer *who,
	const char *session, const struct address *local_address, const struct ip *ip,
	const char *balancer)
{
	const struct doorman_knock knock = {.local = local_address, .peer = ip, .answer = who};
	const bool is_announced = balancer != NULL;
	char peer[ADDRESS_TEXT_BYTES];
	char local[ADDRESS_TEXT_BYTES + 10];

	(void)ip_print(ip, peer, sizeof(peer));
	address_print(local_address, local, sizeof(local));
	STAT(sessions_unmatched);
	doorman_refused(worker->shared->doorman, worker->view->world, &knock, doorman_reason(who));
	log_event(LOG_LEVEL_INFO, session, "refused", "peer=%s local=%s%s%s why=%s%s%s", peer,
		local, is_announced ? " announced-by=" : "", is_announced ? balancer : "",
		who->is_excluded ? "excluded" : "no-connector", who->is_excluded ? " partner=" : "",
		who->is_excluded ? who->partner->name : "");
}

/*
 * A session keeps the view that it began under. While nothing was said yet there is no reason to:
 * the rules of now decide.
 */
static void worker_move_view(struct worker_session *own, struct view *view)
{
	own->view->sessions--;
	own->view = view;
	own->view->sessions++;
}

/* From here on the session is that client's, under that connector. */
static void worker_become(struct worker_session *own, const struct gate_answer *who,
	const struct session_client *client, const char *peer)
{
	const struct receive_connector *connector = who->connector;
	struct session *session = &own->session;

	own->partner = who->partner;
	session->client = *client;
	(void)snprintf(session->peer, sizeof(session->peer), "%s", peer);
	session->tls_context = view_tls(own->view, connector);
	session->authserv_id = own->view->world->policy->fqdn;
	if (!session->has_begun)
		session->is_front_end = worker_is_front_end(
			connector, &client->ip, client->origin == CLIENT_SEEN ? own->ends.zone : 0);
	worker_sink_move(own, &(const struct worker_way){.view = own->view,
				      .receive = connector,
				      .send = connector->send_connector});
}

/* Is the peer one that is to announce its clients, by the rules of now? */
static bool worker_is_balancer(const struct worker_session *own)
{
	const struct worker *worker = own->worker;
	struct gate_answer who;

	return own->view == worker->view ||
	       (doorman_ask(worker->shared->doorman, worker->view->world, &own->ends.local,
			&own->ends.ip, own->ends.zone, &who) &&
		       who.is_balancer);
}

static enum session_welcome worker_on_announced(
	struct session *session, const struct session_client *client)
{
	struct worker_session *own = OWNER_OF(session, struct worker_session, session);
	struct view *view = own->worker->view;
	struct gate_answer who = {0};
	char peer[ADDRESS_TEXT_BYTES];
	const struct worker_crowd *crowd;

	(void)ip_print(&client->ip, peer, sizeof(peer));
	if (!session->has_begun && !worker_is_balancer(own)) {
		log_event(LOG_LEVEL_INFO, session->id, "refused", "peer=%s why=no-balancer-now",
			session->announcer);
		return SESSION_OUTDATED;
	}
	/* Its TLS belongs to the view that it began under: it has to come again. */
	if (session->has_begun && own->view != view) {
		log_event(LOG_LEVEL_INFO, session->id, "refused", "peer=%s why=reloaded", peer);
		return SESSION_OUTDATED;
	}
	if (!gate_ask_announced(view->world->gate, &own->ends.local, &client->ip, &who)) {
		worker_log_stranger(own->worker, &who, session->id, &own->ends.local, &client->ip,
			session->announcer);
		return SESSION_STRANGER;
	}
	if (session->has_begun && who.connector->tls == TLS_MODE_IMPLICIT &&
		session->conn.facts.version == NULL) {
		log_event(LOG_LEVEL_INFO, session->id, "refused", "connector=%s peer=%s why=no-tls",
			who.connector->name, peer);
		return SESSION_STRANGER;
	}
	quota_leave(&own->place);
	worker_move_view(own, view);
	session->connector = who.connector;
	crowd = worker_enter(own->worker, &who, &own->ends.local, &client->ip, true, &own->place);
	if (crowd->why != NULL) {
		own->place = (struct quota_place){0};
		worker_log_crowd(session->id, who.connector, peer, crowd);
		return SESSION_CROWDED;
	}
	worker_become(own, &who, client, peer);
	if (!session->has_begun)
		worker_log_accept(own, &who);
	return SESSION_WELCOME;
}

void worker_on_accept(struct listener *listener, int fd)
{
	struct worker *worker = listener->owner;
	struct gate_answer who = {0};
	struct worker_session *own = NULL;
	struct worker_peer peer;

	if (!worker_read_ends(listener, fd, &peer) ||
		!doorman_ask(worker->shared->doorman, worker->view->world, &peer.local, &peer.ip,
			peer.zone, &who)) {
		worker_log_stranger(worker, &who, NULL, &peer.local, &peer.ip, NULL);
		(void)close(fd);
		return;
	}
	own = worker_admit(worker, &who, &peer, fd);
	if (own != NULL)
		worker_open_session(worker, own, &who, fd);
}

/* Sessions of one turn of the loop: two calls of the kernel each, and a line of the log. */
#define UNSERVED_AT_ONCE 128

/* Whom a list has let in, that list has to let in still, even if somebody else would serve it now.
 */
static bool worker_is_listed(const struct worker_session *own, const struct gate_answer *now)
{
	return own->partner == NULL ||
	       (now->partner != NULL && strcmp(now->partner->name, own->partner->name) == 0);
}

/* Might who speaks for the client do so now? */
static bool worker_may_announce(struct worker *worker, const struct worker_session *own)
{
	const struct session *session = &own->session;
	const struct session_front_end *front_end = &session->front_end;
	const uint32_t zone = front_end->origin == CLIENT_SEEN ? own->ends.zone : 0;
	struct world *world = worker->view->world;
	struct gate_answer who;
	bool is_served;

	if (session->client.origin != CLIENT_BY_XCLIENT)
		return true;
	if (session->awaits_header)
		is_served = gate_ask_announced(world->gate, &own->ends.local, &front_end->ip, &who);
	else
		is_served = doorman_ask(worker->shared->doorman, world, &own->ends.local,
			&own->ends.ip, zone, &who);
	return is_served && worker_is_front_end(who.connector, &front_end->ip, zone);
}

/* Whom the door would let in now, by the way that it came. */
static bool worker_is_served(struct worker *worker, const struct worker_session *own)
{
	struct world *world = worker->view->world;
	const struct session *session = &own->session;
	const bool is_announced = session->client.origin != CLIENT_SEEN ||
				  (session->awaits_header && session->has_begun);
	struct gate_answer who;

	if (is_announced &&
		(!gate_ask_announced(world->gate, &own->ends.local, &session->client.ip, &who) ||
			!worker_is_listed(own, &who)))
		return false;
	return doorman_ask(worker->shared->doorman, world, &own->ends.local, &own->ends.ip,
		       own->ends.zone, &who) &&
	       who.is_balancer == session->awaits_header &&
	       (is_announced || worker_is_listed(own, &who)) && worker_may_announce(worker, own);
}

uint64_t worker_drain_unserved(struct worker *worker)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < UNSERVED_AT_ONCE && worker->unserved_left > 0; i++) {
		/* To the end of the list: in front stand those that were not looked at. */
		struct link *link = list_take(&worker->open_sessions);
		struct worker_session *own;

		worker->unserved_left = link == NULL ? 0 : worker->unserved_left - 1;
		if (link == NULL)
			break;
		list_append(&worker->open_sessions, link);
		own = OWNER_OF(link, struct worker_session, link);
		if (own->session.is_draining || worker_is_served(worker, own))
			continue;
		log_event(LOG_LEVEL_INFO, own->session.id, "refused", "peer=%s why=not-served-now",
			own->session.peer);
		STAT(sessions_unserved);
		count++;
		session_drain(&own->session);
	}
	return count;
}
