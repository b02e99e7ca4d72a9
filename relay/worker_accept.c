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

	proxy_fini(&own->proxy);
	quota_leave(&own->place);
	own->view->sessions--;
	own->out_view->sessions--;
	link_remove(&own->link);
	pool_put(&worker->sessions, own);
}

/*
 * Where mail of a session goes under another policy: by what its connector says there, or by the
 * send connector of the same name if that is gone. False: there is nothing like it.
 */
static bool worker_find_way(const struct policy *policy, const struct session *session,
	const struct send_connector **out)
{
	const struct send_connector *old = session->connector->send_connector;
	const struct receive_connector *connector =
		policy_receive_connector(policy, session->connector->name);

	if (connector != NULL)
		*out = connector->send_connector;
	else
		*out = old == NULL ? NULL : policy_send_connector(policy, old->name);
	return connector != NULL || old == NULL || *out != NULL;
}

/*
 * The world has changed since its last message: the next goes as the new one says. If that knows no
 * way for it, there is none: the old one was allowed by rules that are not in force any more.
 */
static void worker_follow_world(struct worker_session *own)
{
	struct view *view = own->worker->view;
	const struct send_connector *connector = NULL;

	if (own->out_view == view)
		return;
	if (!worker_find_way(view->world->policy, &own->session, &connector)) {
		own->session.is_draining = true;
		return;
	}
	proxy_move(&own->proxy, &(const struct proxy_options){.router = view->router,
					.connector = connector,
					.session = own->session.id});
	own->out_view->sessions--;
	own->out_view = view;
	own->out_view->sessions++;
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

static const struct session_owner worker_session_owner = {
	.on_closed = worker_on_session_closed,
	.on_message = worker_on_message,
};

/* No room: the peer is told once, without waiting. */
static void worker_refuse(
	const struct receive_connector *connector, const char *peer, const char *why, int fd)
{
	static const char busy[] = "421 4.3.2 The maximum number of concurrent connections has "
				   "exceeded a limit, closing transmission channel\r\n";

	STAT(sessions_refused);
	log_event(LOG_LEVEL_WARNING, NULL, "refused", "connector=%s peer=%s why=%s event-id=1021",
		connector->name, peer, why);
	if (connector->tls != TLS_MODE_IMPLICIT) {
		ssize_t sent = send(fd, busy, sizeof(busy) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);

		(void)sent;
	}
	(void)close(fd);
}

/* Both ends of an accepted connection. */
struct worker_peer {
	struct ip ip;
	uint32_t zone;
	uint16_t port;
	char address[ADDRESS_TEXT_BYTES];
	char local_text[ADDRESS_TEXT_BYTES + 10];
	struct address local;
};

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

/* A session for the peer, if the connector's limits and our pool allow one. */
static struct worker_session *worker_admit(struct worker *worker,
	const struct receive_connector *connector, const struct worker_peer *peer, int fd)
{
	struct quota_place place;
	struct worker_session *own = NULL;

	switch (quota_enter(worker->shared->quota, connector, &peer->ip, &place)) {
	case QUOTA_OPEN:
		own = pool_take(&worker->sessions);
		if (own != NULL) {
			own->place = place;
			return own;
		}
		quota_leave(&place);
		worker_refuse(connector, peer->address, "too-many-sessions", fd);
		break;
	case QUOTA_SOURCE:
		STAT(sessions_refused_source);
		worker_refuse(connector, peer->address, "too-many-connections-per-source", fd);
		break;
	case QUOTA_FULL:
	case QUOTA_RATE:
		worker_refuse(connector, peer->address, "too-many-connections", fd);
		break;
	}
	return NULL;
}

static void worker_open_session(struct worker *worker, struct worker_session *own,
	const struct gate_answer *who, const struct worker_peer *peer, int fd)
{
	const struct receive_connector *connector = who->connector;
	struct session *session = &own->session;

	own->worker = worker;
	own->view = worker->view;
	own->view->sessions++;
	own->out_view = worker->view;
	own->out_view->sessions++;
	proxy_init(&own->proxy, &(const struct proxy_options){.router = worker->view->router,
					.connector = connector->send_connector,
					.session = session->id});
	session->owner = &worker_session_owner;
	session->connector = connector;
	session->authserv_id = worker->view->world->policy->fqdn;
	session->world = &worker->world;
	session->tls_context = view_tls(worker->view, connector);
	session->sink = &own->proxy.sink;
	(void)snprintf(session->id, sizeof(session->id), "%08x%04x%02x%06x",
		(unsigned)worker->shared->started_s, worker->shared->random_id, worker->index,
		(unsigned)(worker->next_session++ & 0xffffff));
	(void)snprintf(session->peer, sizeof(session->peer), "%s", peer->address);
	log_event(LOG_LEVEL_INFO, session->id, "accept",
		"connector=%s peer=%s port=%u local=%s%s%s", connector->name, session->peer,
		peer->port, peer->local_text, who->partner == NULL ? "" : " partner=",
		who->partner == NULL ? "" : who->partner->name);
	link_init(&own->link);
	list_append(&worker->open_sessions, &own->link);
	session_open(session, &worker->net, fd);
}

/* EXCHANGE 2.1: who matches no connector is not served, and not spoken to. */
static void worker_turn_away(const struct gate_answer *who, const struct worker_peer *peer, int fd)
{
	STAT(sessions_unmatched);
	if (who->is_excluded)
		log_event(LOG_LEVEL_INFO, NULL, "refused",
			"peer=%s local=%s why=excluded partner=%s", peer->address, peer->local_text,
			who->partner->name);
	else if (who->is_balancer)
		log_event(LOG_LEVEL_INFO, NULL, "refused",
			"connector=%s peer=%s local=%s why=no-proxy-header", who->connector->name,
			peer->address, peer->local_text);
	else
		log_event(LOG_LEVEL_INFO, NULL, "refused", "peer=%s local=%s why=no-connector",
			peer->address, peer->local_text);
	(void)close(fd);
}

void worker_on_accept(struct listener *listener, int fd)
{
	struct worker *worker = listener->owner;
	struct gate *gate = worker->view->world->gate;
	struct gate_answer who = {0};
	struct worker_session *own = NULL;
	struct worker_peer peer;

	if (!worker_read_ends(listener, fd, &peer) ||
		!gate_ask(gate, &peer.local, &peer.ip, peer.zone, &who) || who.is_balancer) {
		worker_turn_away(&who, &peer, fd);
		return;
	}
	own = worker_admit(worker, who.connector, &peer, fd);
	if (own != NULL)
		worker_open_session(worker, own, &who, &peer, fd);
}
