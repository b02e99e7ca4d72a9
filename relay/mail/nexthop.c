/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/nexthop_client.h"

#include "relay/base/limits.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include <errno.h>

static const char reply_unreached[] =
	"451 4.4.1 The next hop could not be reached, try again later\r\n";

static const struct client_events nexthop_events;
static void nexthop_serve(struct task *task);

/* The destination. */

void nexthop_init(struct nexthop *nexthop)
{
	link_init(&nexthop->idle);
	link_init(&nexthop->waiting);
	link_init(&nexthop->in_starved);
	task_init(&nexthop->task, nexthop_serve);
}

void nexthop_fini(struct nexthop *nexthop)
{
	ASSERT(nexthop->client_count == 0 && nexthop->waiting_count == 0);
	link_remove(&nexthop->in_starved);
	loop_task_cancel(&nexthop->task);
	hosts_forget(&nexthop->hosts);
}

void nexthop_hold(struct nexthop *nexthop)
{
	nexthop->users++;
}

static void nexthop_check_unused(struct nexthop *nexthop)
{
	if (nexthop->users == 0 && nexthop->client_count == 0 && nexthop->on_unused != NULL)
		nexthop->on_unused(nexthop);
}

void nexthop_release(struct nexthop *nexthop)
{
	ASSERT(nexthop->users > 0);
	nexthop->users--;
	if (nexthop->users == 0) {
		/* Nobody is left to hear the answer. */
		if (nexthop->hosts.resolve != NULL)
			resolve_cancel(nexthop->hosts.resolve);
		link_remove(&nexthop->in_starved);
	}
	nexthop_check_unused(nexthop);
}

void lease_init(struct lease *lease, const struct lease_events *events, struct principal *principal)
{
	link_init(&lease->link);
	lease->events = events;
	lease->principal = principal;
}

/* It does not wait any more. */
static void nexthop_unwait(struct nexthop *nexthop, struct lease *lease)
{
	link_remove(&lease->link);
	nexthop->waiting_count--;
	lease->principal->waiting = NULL;
	lease->principal->lease = NULL;
}

/* Hosts. */

static uint64_t nexthop_now(const struct nexthop *nexthop)
{
	return loop_now_ms(nexthop->outlet->net->loop);
}

void nexthop_resolved(struct nexthop *nexthop, enum resolve_status status)
{
	const struct resolve *resolve = nexthop->hosts.resolve;

	log_event(status == RESOLVE_OK ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING, NULL, "nexthop-dns",
		"connector=%s domain=%s status=%s addresses=%u", nexthop->hosts.connector->name,
		nexthop->domain, resolve_word(status), resolve->list.count);
	hosts_resolved(&nexthop->hosts, status, nexthop_now(nexthop));
	if (status == RESOLVE_OK) {
		loop_task_add(nexthop->outlet->net->loop, &nexthop->task);
		return;
	}
	resolve_reply(status, nexthop->domain, nexthop->refusal, sizeof(nexthop->refusal));
	nexthop->failed_name[0] = '\0';
	nexthop_hold(nexthop);
	while (!list_is_empty(&nexthop->waiting)) {
		struct lease *lease = OWNER_OF(nexthop->waiting.next, struct lease, link);

		nexthop_unwait(nexthop, lease);
		lease->events->on_refused(lease, span_of(nexthop->refusal));
	}
	nexthop_release(nexthop);
}

/* Opening. */

/* Begins a session with own->host; -errno if there is no socket. */
static int nexthop_open_at(struct nexthop_client *own, bool skips_starttls)
{
	struct nexthop *nexthop = own->nexthop;
	struct outlet *outlet = nexthop->outlet;
	struct client *client = &own->client;
	char address[NAME_BYTES_MAX];
	int rc;

	if (!skips_starttls) {
		own->address = *hosts_address(&nexthop->hosts, own->host);
		(void)snprintf(
			own->name, sizeof(own->name), "%s", hosts_name(&nexthop->hosts, own->host));
	}
	host_session_leave(&own->session);
	own->session = hosts_session(&nexthop->hosts, &own->address, own->name);
	client->events = &nexthop_events;
	client->owner = own;
	client->connector = outlet->connector;
	client->tls_context = &outlet->tls_context;
	client->requirement = &nexthop->requirement;
	client->trust = nexthop->trust;
	client->host = own->name;
	client->skips_starttls = skips_starttls;
	client->keeps_protolog = outlet->keeps_protolog;
	client->session_slot = own->session != NULL ? &own->session->session : NULL;
	/* Unlike any other of this machine, over restarts and reloads: logs are kept for long. */
	(void)snprintf(client->id, sizeof(client->id), "n%08x%02x%02x%05x", outlet->made_s,
		outlet->worker_id & 0xff, outlet->generation & 0xff,
		(*outlet->next_id)++ & 0xfffff);
	rc = client_open(client, outlet->net, &own->address);
	address_print(&own->address, address, sizeof(address));
	log_event(rc < 0 ? LOG_LEVEL_ERROR : LOG_LEVEL_DEBUG, client->id, "nexthop-open",
		"connector=%s address=%s%s%s", outlet->connector->name, address,
		rc < 0 ? " why=" : "", rc < 0 ? strerror(-rc) : "");
	return rc;
}

static void nexthop_free(struct nexthop_client *own)
{
	struct nexthop *nexthop = own->nexthop;
	struct outlet *outlet = nexthop->outlet;

	link_remove(&own->in_all);
	link_remove(&own->in_principal);
	nexthop_unidle(own);
	host_session_leave(&own->session);
	pool_put(&outlet->clients, own);
	nexthop->client_count--;
	outlet_wake(outlet);
	if (nexthop->waiting_count > 0)
		loop_task_add(outlet->net->loop, &nexthop->task);
	nexthop_check_unused(nexthop);
}

/* A session that is on its way; -EAGAIN: the connector has as many as it may have. */
static int nexthop_open_one(struct nexthop *nexthop, struct principal *principal)
{
	struct outlet *outlet = nexthop->outlet;
	struct nexthop_client *own = pool_take(&outlet->clients);
	int rc;

	if (own == NULL)
		return -EAGAIN;
	own->nexthop = nexthop;
	own->hosts_tried = 0;
	own->host = hosts_pick(&nexthop->hosts, nexthop_now(nexthop));
	own->hosts_version = nexthop->hosts.version;
	own->session = NULL;
	link_init(&own->in_idle);
	link_init(&own->in_waiting);
	link_init(&own->in_all);
	link_init(&own->in_principal);
	own->principal = NULL;
	if (principal != NULL)
		principal_adopt(principal, own);
	rc = nexthop_open_at(own, false);
	if (rc < 0) {
		link_remove(&own->in_principal);
		host_session_leave(&own->session);
		pool_put(&outlet->clients, own);
		return rc;
	}
	list_append(&outlet->all, &own->in_all);
	nexthop->client_count++;
	own->is_opening = true;
	nexthop->opening_count++;
	return 0;
}

static void nexthop_refuse(struct nexthop *nexthop, struct lease *lease, const char *refusal)
{
	nexthop_unwait(nexthop, lease);
	lease->events->on_refused(lease, span_of(refusal[0] != '\0' ? refusal : reply_unreached));
}

static void nexthop_refuse_first(struct nexthop *nexthop)
{
	if (!list_is_empty(&nexthop->waiting))
		nexthop_refuse(nexthop, OWNER_OF(nexthop->waiting.next, struct lease, link),
			nexthop->refusal);
}

/* Whoever this client was opened for hears that it came to nothing, and why; not why another did.
 */
static void nexthop_refuse_for(const struct nexthop_client *own)
{
	if (!nexthop_is_personal(own->nexthop))
		nexthop_refuse_first(own->nexthop);
	else if (nexthop_is_wanted(own))
		nexthop_refuse(own->nexthop, own->principal->lease, own->client.refusal);
}

/* The limit is reached: an idle session of another destination makes room. */
static void nexthop_starve(struct nexthop *nexthop)
{
	struct outlet *outlet = nexthop->outlet;

	if (!link_is_queued(&nexthop->in_starved))
		list_append(&outlet->starved, &nexthop->in_starved);
	(void)outlet_end_idle(outlet, "needed-elsewhere");
}

/* A session for each who waits: another's is of no use. */
static void nexthop_open_personal(struct nexthop *nexthop)
{
	struct link *link;
	struct link *after;

	LIST_FOR_EACH (link, after, &nexthop->waiting) {
		struct lease *lease = OWNER_OF(link, struct lease, link);
		int rc;

		if (principal_is_opening(lease->principal, nexthop))
			continue;
		rc = nexthop_open_one(nexthop, lease->principal);
		if (rc == -EAGAIN) {
			nexthop_starve(nexthop);
			return;
		}
		if (rc < 0)
			nexthop_refuse(nexthop, lease, reply_unreached);
	}
}

static void nexthop_open_wanted(struct nexthop *nexthop)
{
	const bool is_personal = nexthop_is_personal(nexthop);
	int rc = 0;

	if (nexthop->waiting_count == 0 ||
		(!is_personal && nexthop->opening_count >= nexthop->waiting_count))
		return;
	if (!hosts_are_known(&nexthop->hosts, nexthop_now(nexthop))) {
		hosts_ask(&nexthop->hosts, nexthop->domain);
		return;
	}
	if (is_personal) {
		nexthop_open_personal(nexthop);
		return;
	}
	while (rc == 0 && nexthop->opening_count < nexthop->waiting_count)
		rc = nexthop_open_one(nexthop, NULL);
	if (rc == -EAGAIN) {
		nexthop_starve(nexthop);
		return;
	}
	/* Nothing is open, nothing can be opened: waiting would be for ever. */
	if (rc < 0)
		(void)snprintf(nexthop->refusal, sizeof(nexthop->refusal), "%s", reply_unreached);
	while (rc < 0 && nexthop->client_count == 0 && nexthop->waiting_count > 0)
		nexthop_refuse_first(nexthop);
}

/* Gives idle clients to those who wait, and opens as many as are still wanted. */
static void nexthop_serve(struct task *task)
{
	struct nexthop *nexthop = OWNER_OF(task, struct nexthop, task);
	struct outlet *outlet = nexthop->outlet;
	struct link *link;
	struct link *after;

	/* What is called may let go of the destination. */
	nexthop_hold(nexthop);
	LIST_FOR_EACH (link, after, &nexthop->waiting) {
		struct lease *lease = OWNER_OF(link, struct lease, link);
		struct client *client = nexthop_take(nexthop, lease->principal);

		if (client == NULL && !nexthop_is_personal(nexthop))
			break;
		if (client == NULL)
			continue;
		nexthop_unwait(nexthop, lease);
		lease->events->on_leased(lease, client);
	}
	nexthop_open_wanted(nexthop);
	/* Whoever a session was opened for may have gone, and others wait for its place. */
	if (nexthop->waiting_count == 0 && !list_is_empty(&nexthop->idle) &&
		!list_is_empty(&outlet->starved))
		(void)outlet_end_idle(outlet, "needed-elsewhere");
	/* Whoever waited may have gone. */
	if (outlet->is_draining)
		outlet_drain(outlet);
	outlet_wake(outlet);
	nexthop_release(nexthop);
}

void nexthop_ask(struct nexthop *nexthop, struct lease *lease)
{
	ASSERT(!link_is_queued(&lease->link) && nexthop->users > 0);
	ASSERT(lease->principal->waiting == NULL);
	lease->principal->waiting = nexthop;
	lease->principal->lease = lease;
	list_append(&nexthop->waiting, &lease->link);
	nexthop->waiting_count++;
	loop_task_add(nexthop->outlet->net->loop, &nexthop->task);
}

void nexthop_cancel(struct nexthop *nexthop, struct lease *lease)
{
	if (link_is_queued(&lease->link))
		nexthop_unwait(nexthop, lease);
}

/* The certificate has expired or was revoked while the session was idle. */
static void nexthop_end_disproved(struct nexthop_client *own)
{
	char why[64];

	(void)snprintf(why, sizeof(why), "certificate-%s", own->client.status);
	nexthop_log_end(own, why);
	client_quit(&own->client);
}

/* The idle client that would be used next. */
static struct nexthop_client *nexthop_find_idle(
	const struct nexthop *nexthop, struct principal *principal)
{
	if (nexthop_is_personal(nexthop))
		return principal_find_idle(principal, nexthop);
	if (list_is_empty(&nexthop->idle))
		return NULL;
	return OWNER_OF(nexthop->idle.next, struct nexthop_client, in_idle);
}

struct client *nexthop_take(struct nexthop *nexthop, struct principal *principal)
{
	struct nexthop_client *own;

	while ((own = nexthop_find_idle(nexthop, principal)) != NULL) {
		nexthop_unidle(own);
		if (!client_is_still_proved(&own->client)) {
			nexthop_end_disproved(own);
			continue;
		}
		client_idle_until(&own->client, 0);
		if (own->client.message_count > 0)
			STAT(nexthop_reused);
		return &own->client;
	}
	return NULL;
}

/* Keeping. */

static void nexthop_idle(struct nexthop_client *own)
{
	/* The one last used is used next, so that those not needed grow old and go. */
	list_append(own->nexthop->idle.next, &own->in_idle);
	list_append(&own->nexthop->outlet->idle, &own->in_waiting);
}

static void nexthop_keep(struct nexthop_client *own)
{
	struct nexthop *nexthop = own->nexthop;
	struct outlet *outlet = nexthop->outlet;

	own->client.events = &nexthop_events;
	own->client.owner = own;
	if (!nexthop_is_reusable(own)) {
		nexthop_log_end(own, "done");
		client_quit(&own->client);
		return;
	}
	client_idle_until(&own->client,
		loop_now_ms(outlet->net->loop) + outlet->connector->connection_idle_ms);
	nexthop_idle(own);
	if (nexthop_is_wanted(own))
		loop_task_add(outlet->net->loop, &nexthop->task);
	else if (!list_is_empty(&outlet->starved))
		(void)outlet_end_idle(outlet, "needed-elsewhere");
}

void nexthop_put(struct client *client, enum nexthop_put how)
{
	struct nexthop_client *own = nexthop_client_of(client);

	client->events = &nexthop_events;
	client->owner = own;
	client->conn.is_bulk_out = false;
	client->conn.is_corked = false;
	if (client->state != CLIENT_READY)
		return; /* it ends by itself */
	switch (how) {
	case NEXTHOP_PUT_ABORT:
		nexthop_log_end(own, "aborted");
		client_abort(client);
		return;
	case NEXTHOP_PUT_RESET:
		client_command(client, span_of("RSET\r\n"));
		client_flush(client);
		break;
	case NEXTHOP_PUT_FINISH:
	case NEXTHOP_PUT_CLEAN:
		break;
	}
	if (client->owed == 0 && client->state == CLIENT_READY)
		nexthop_keep(own);
}

/* The host that own tried, if the list is still the one that it was taken from. */
static void nexthop_mark(struct nexthop_client *own, uint64_t down_until_ms)
{
	struct nexthop *nexthop = own->nexthop;

	if (own->hosts_version == nexthop->hosts.version)
		nexthop->hosts.down_until_ms[own->host] = down_until_ms;
}

static void nexthop_on_ready(struct client *client)
{
	struct nexthop_client *own = nexthop_client_of(client);
	struct nexthop *nexthop = own->nexthop;

	own->is_opening = false;
	nexthop->opening_count--;
	nexthop_mark(own, 0);
	nexthop->offer = client->offer;
	nexthop->has_offer = true;
	log_event(LOG_LEVEL_INFO, client->id, "nexthop-ready", "connector=%s host=%s tls=%s%s%s",
		client->connector->name, client->host, client->is_secured ? "yes" : "no",
		client->requirement->partner != NULL ? " secured=" : "",
		client->requirement->partner != NULL ? client->requirement->domain : "");
	if (!nexthop_is_wanted(own)) {
		nexthop_keep(own);
		return;
	}
	/* Opened for somebody who waits: reuse is judged when it comes back. */
	nexthop_idle(own);
	loop_task_add(nexthop->outlet->net->loop, &nexthop->task);
}

/* What Exchange shows as LastError is in the event, and goes to who waits. */
static void nexthop_mark_down(struct nexthop_client *own, const char *why)
{
	struct nexthop *nexthop = own->nexthop;
	const struct client *client = &own->client;
	bool is_plain = client->status != NULL && strcmp(client->status, "TlsNotStarted") == 0;
	char text[224];

	STAT(nexthop_connect_failed);
	if (!client->is_turned_away)
		nexthop_mark(own, nexthop_now(nexthop) + NEXTHOP_HOST_DOWN_MS);
	(void)snprintf(nexthop->refusal, sizeof(nexthop->refusal), "%s",
		client->refusal[0] != '\0' ? client->refusal : reply_unreached);
	(void)snprintf(nexthop->failed_name, sizeof(nexthop->failed_name), "%s", own->name);
	nexthop->failed_address = own->address;
	log_event(LOG_LEVEL_WARNING, client->id, "nexthop-failed",
		"connector=%s host=%s why=%s%s%s%s%s%s", nexthop->outlet->connector->name,
		client->host, log_quote_text(why, text, sizeof(text)),
		nexthop->domain[0] != '\0' ? " domain=" : "", nexthop->domain,
		client->status != NULL ? " status=" : "",
		client->status != NULL ? client->status : "", is_plain ? " event-id=2015" : "");
}

static void nexthop_on_failed(struct client *client, const char *why)
{
	struct nexthop_client *own = nexthop_client_of(client);
	char text[224];

	if (!client_may_downgrade(client)) {
		nexthop_mark_down(own, why);
		return;
	}
	STAT(tls_downgraded);
	log_event(LOG_LEVEL_WARNING, client->id, "tls-downgraded", "connector=%s host=%s why=%s",
		client->connector->name, client->host, log_quote_text(why, text, sizeof(text)));
}

/* Replies that are owed to a transaction nobody waits for any more. */
static void nexthop_on_reply(struct client *client, const struct reply *reply)
{
	(void)reply;
	if (client->owed == 0)
		nexthop_keep(nexthop_client_of(client));
}

static void nexthop_on_drained(struct client *client)
{
	(void)client;
}

bool nexthop_pass_over(struct client *client)
{
	struct nexthop_client *own = nexthop_client_of(client);
	struct nexthop *nexthop = own->nexthop;
	const uint64_t now_ms = nexthop_now(nexthop);

	/* A lookup that comes next, or is under way, knows nothing of who failed. */
	if (own->hosts_version != nexthop->hosts.version ||
		!hosts_are_known(&nexthop->hosts, now_ms))
		return false;
	nexthop_mark(own, now_ms + NEXTHOP_HOST_DOWN_MS);
	return hosts_have_one_up(&nexthop->hosts, now_ms);
}

void nexthop_lost(struct client *client, const char *why)
{
	struct nexthop_client *own = nexthop_client_of(client);

	client->events = &nexthop_events;
	client->owner = own;
	nexthop_log_end(own, why);
}

static void nexthop_on_lost(struct client *client, const char *why)
{
	struct nexthop_client *own = nexthop_client_of(client);

	nexthop_unidle(own);
	nexthop_log_end(own, why);
}

/*
 * After a failure the same client tries again: in clear text at the same address, if a handshake
 * failed and nothing forbids it; else at the next address.
 */
static bool nexthop_try_again(struct nexthop_client *own)
{
	struct nexthop *nexthop = own->nexthop;
	unsigned count = hosts_count(&nexthop->hosts);

	if (!own->is_opening || nexthop->outlet->is_draining)
		return false;
	if (nexthop_is_personal(nexthop) && own->principal == NULL)
		return false;
	if (client_may_downgrade(&own->client)) {
		if (nexthop_open_at(own, true) == 0)
			return true;
		nexthop_mark_down(own, "no-socket");
	}
	while (own->hosts_version == nexthop->hosts.version && ++own->hosts_tried < count) {
		own->host = (own->host + 1) % count;
		if (nexthop_open_at(own, false) == 0)
			return true;
		nexthop_mark_down(own, "no-socket");
	}
	return false;
}

/* When all hosts have failed, one waiter hears of it. */
static void nexthop_on_closed(struct client *client)
{
	struct nexthop_client *own = nexthop_client_of(client);
	struct nexthop *nexthop = own->nexthop;

	if (nexthop_try_again(own))
		return;
	nexthop_hold(nexthop);
	if (own->is_opening) {
		nexthop->opening_count--;
		nexthop_refuse_for(own);
	}
	nexthop_free(own);
	nexthop_release(nexthop);
}

static const struct client_events nexthop_events = {
	.on_ready = nexthop_on_ready,
	.on_failed = nexthop_on_failed,
	.on_reply = nexthop_on_reply,
	.on_drained = nexthop_on_drained,
	.on_lost = nexthop_on_lost,
	.on_closed = nexthop_on_closed,
};
