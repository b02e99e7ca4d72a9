/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/clock.h"
#include "relay/base/log.h"
#include "relay/doorman_private.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/*
 * doorman_count.c: what is counted here because the kernel does not, what the kernel tells, and
 * the answers to the operator's questions.
 */

/* ---- counting */

void doorman_note_slots(struct doorman *doorman, const struct world *world)
{
	for (unsigned i = 0; i < gate_binding_count(world->gate); i++) {
		const struct address *address = gate_binding_address(world->gate, i);
		const unsigned count = atomic_load(&doorman->slot_count);
		unsigned slot = 0;

		while (slot < count && !address_is_equal(&doorman->slots[slot], address))
			slot++;
		/* More bindings than that, over all reloads, are not counted one by one. */
		if (slot < count || count == DOORMAN_BINDINGS_MAX)
			continue;
		doorman->slots[count] = *address;
		atomic_store(&doorman->slot_count, count + 1);
	}
}

/* UINT_MAX: none. */
static unsigned count_find_exact(const struct doorman *doorman, const struct address *address)
{
	const unsigned count = atomic_load(&doorman->slot_count);

	for (unsigned i = 0; i < count; i++)
		if (address_is_equal(&doorman->slots[i], address))
			return i;
	return UINT32_MAX;
}

/* The binding of a local address: its own, or the wildcard's of its port. */
static unsigned count_find(const struct doorman *doorman, const struct address *local)
{
	unsigned slot = count_find_exact(doorman, local);
	static const uint8_t any[16];
	const struct address wildcard =
		address_make(local->sockaddr.ss_family, any, address_port(local));

	return slot != UINT32_MAX ? slot : count_find_exact(doorman, &wildcard);
}

static struct door_value count_value(const struct world *world, const struct gate_answer *answer)
{
	return (struct door_value){
		.connector = (uint16_t)(answer->connector == NULL ? 0
								  : gate_connector_id(world->gate,
									    answer->connector)),
		.partner = answer->partner == NULL ? 0
						   : gate_partner_id(world->gate, answer->partner)};
}

static void count_add(struct doorman_counts *counts, enum door_reason reason)
{
	_Atomic uint64_t *at =
		reason == DOOR_REASON_COUNT ? &counts->passed : &counts->refused[reason];

	(void)atomic_fetch_add_explicit(at, 1, memory_order_relaxed);
}

/* DOOR_REASON_COUNT: let in. */
static void count_all(struct doorman *doorman, const struct address *local, struct door_value value,
	enum door_reason reason)
{
	const unsigned slot = count_find(doorman, local);

	if (slot != UINT32_MAX)
		count_add(&doorman->by_slot[slot], reason);
	if (value.connector > 0 && value.connector < DOOR_CONNECTORS_MAX)
		count_add(&doorman->by_connector[value.connector], reason);
	if (value.partner > 0 && value.partner < DOOR_PARTNERS_MAX)
		count_add(&doorman->by_partner[value.partner], reason);
}

void doorman_passed(
	struct doorman *doorman, const struct world *world, const struct doorman_knock *knock)
{
	if (doorman->kernel == NULL)
		count_all(doorman, knock->local, count_value(world, knock->answer),
			DOOR_REASON_COUNT);
}

void doorman_refused(struct doorman *doorman, const struct world *world,
	const struct doorman_knock *knock, enum door_reason reason)
{
	struct refusal refusal = {.peer = *knock->peer,
		.local = *knock->local,
		.reason = reason,
		.value = count_value(world, knock->answer),
		.last_ms = clock_now_ms()};

	count_all(doorman, knock->local, refusal.value, reason);
	refusals_note(doorman->refusals, &refusal);
}

/* ---- what the kernel tells */

int doorman_event_fd(const struct doorman *doorman)
{
	return doorman->kernel == NULL ? -1 : kernel_door_event_fd(doorman->kernel);
}

void doorman_read_names(struct doorman *doorman, struct door_value value, struct doorman_names *out)
{
	*out = (struct doorman_names){0};
	(void)pthread_mutex_lock(&doorman->names_lock);
	if (value.connector > 0 && value.connector < DOOR_CONNECTORS_MAX)
		memcpy(out->connector, doorman->names->connectors[value.connector],
			sizeof(out->connector));
	if (value.partner > 0 && value.partner < DOOR_PARTNERS_MAX)
		memcpy(out->partner, doorman->names->partners[value.partner], sizeof(out->partner));
	(void)pthread_mutex_unlock(&doorman->names_lock);
}

void doorman_keep_names(struct doorman *doorman)
{
	(void)pthread_mutex_lock(&doorman->names_lock);
	*doorman->names = *doorman->ids;
	(void)pthread_mutex_unlock(&doorman->names_lock);
}

static struct refusal event_refusal(const struct door_event *event)
{
	struct refusal refusal = {.reason = event->reason,
		.value = event->value,
		.peer.is_v6 = event->local.family == DOOR_AF_INET6,
		.local = address_make(event->local.family, event->local.address, event->local.port),
		.last_ms = event->time_ns / 1000000};

	memcpy(refusal.peer.bytes, event->peer, refusal.peer.is_v6 ? 16 : 4);
	return refusal;
}

static void events_on_event(void *owner, const struct door_event *event)
{
	struct doorman *doorman = owner;
	const struct refusal refusal = event_refusal(event);

	refusals_note(doorman->refusals, &refusal);
	if (doorman->event_count < DOORMAN_EVENTS_MAX)
		doorman->events[doorman->event_count++] = *event;
}

static void events_log(struct doorman *doorman, const struct door_event *event)
{
	const struct refusal refusal = event_refusal(event);
	struct doorman_names names;
	char connector[DOOR_NAME_BYTES + 16];
	char partner[DOOR_NAME_BYTES + 16];
	char peer[64];
	char local[64];

	doorman_read_names(doorman, event->value, &names);
	(void)ip_print(&refusal.peer, peer, sizeof(peer));
	address_print(&refusal.local, local, sizeof(local));
	log_event(LOG_LEVEL_INFO, NULL, "refused",
		"why=%s by=kernel peer=%s port=%u local=%s connector=%s partner=%s",
		refusal_word(refusal.reason), peer, event->peer_port, local,
		log_quote_text(names.connector[0] == '\0' ? NULL : names.connector, connector,
			sizeof(connector)),
		log_quote_text(
			names.partner[0] == '\0' ? NULL : names.partner, partner, sizeof(partner)));
}

void doorman_read_events(struct doorman *doorman)
{
	int rc;

	(void)pthread_mutex_lock(&doorman->lock);
	doorman->event_count = 0;
	rc = kernel_door_read_events(doorman->kernel, events_on_event, doorman);
	(void)pthread_mutex_unlock(&doorman->lock);
	if (rc < 0)
		log_event(LOG_LEVEL_WARNING, NULL, "door",
			"result=failed why=\"refusals cannot be read: %s\"", strerror(-rc));
	/* Not under the lock: the reader of the log may be slow. */
	for (unsigned i = 0; i < doorman->event_count; i++)
		events_log(doorman, &doorman->events[i]);
}

unsigned doorman_refusals(struct doorman *doorman, struct refusal *out, unsigned max)
{
	return refusals_read(doorman->refusals, out, max);
}

/* ---- questions */

int doorman_test(struct doorman *doorman, const char *partner, const struct ip *ip,
	void (*on_binding)(void *owner, const struct doorman_verdict *verdict), void *owner)
{
	const struct partner *named;
	struct gate *gate;
	int rc = 0;

	(void)pthread_mutex_lock(&doorman->lock);
	gate = doorman->world->gate;
	named = partner == NULL ? NULL : policy_partner(doorman->world->policy, partner);
	if (partner != NULL && named == NULL)
		rc = -ESRCH;
	for (unsigned i = 0; rc == 0 && i < gate_binding_count(gate); i++) {
		struct doorman_verdict verdict = {.binding = gate_binding_address(gate, i)};
		struct gate_answer answer;

		if (named != NULL && !gate_binding_asks(gate, i, named))
			continue;
		verdict.is_served = gate_ask(gate, verdict.binding, ip, 0, &answer);
		verdict.answer = &answer;
		on_binding(owner, &verdict);
	}
	(void)pthread_mutex_unlock(&doorman->lock);
	return rc;
}

static void look_add(const struct doorman_counts *counts, struct door_counts *out)
{
	out->passed += atomic_load_explicit(&counts->passed, memory_order_relaxed);
	for (unsigned i = 0; i < DOOR_REASON_COUNT; i++)
		out->refused[i] += atomic_load_explicit(&counts->refused[i], memory_order_relaxed);
}

/* What the kernel and we have counted. */
static void look_counts(struct doorman *doorman, enum kernel_door_table table, unsigned index,
	const struct doorman_counts *own, struct door_counts *out)
{
	*out = (struct door_counts){0};
	if (doorman->kernel != NULL && kernel_door_counts(doorman->kernel, table, index, out) < 0)
		*out = (struct door_counts){0};
	if (own != NULL)
		look_add(own, out);
}

static void look_at_bindings(struct doorman *doorman, const struct doorman_viewer *viewer)
{
	const struct gate *gate = doorman->world->gate;

	for (unsigned i = 0; i < gate_binding_count(gate); i++) {
		const struct address *address = gate_binding_address(gate, i);
		const bool is_v6 = address->sockaddr.ss_family == AF_INET6;
		const unsigned own = count_find_exact(doorman, address);
		char text[64];
		struct doorman_row row = {.name = text,
			.slot = own,
			.prefixes = cidr_count(gate_binding_trie(gate, i))};

		address_print(address, text, sizeof(text));
		if (doorman->kernel != NULL && i < doorman->guards.count) {
			row.slot = doorman->guards.rows[i].slot;
			row.prefixes = kernel_door_prefixes(doorman->kernel, row.slot);
		}
		look_counts(doorman, is_v6 ? KERNEL_DOOR_SLOTS_V6 : KERNEL_DOOR_SLOTS_V4,
			row.slot % DOOR_SLOTS, own == UINT32_MAX ? NULL : &doorman->by_slot[own],
			&row.counts);
		viewer->on_row(viewer->owner, DOORMAN_BINDINGS, &row);
	}
}

static void look_at_names(struct doorman *doorman, const struct doorman_viewer *viewer)
{
	const struct policy *policy = doorman->world->policy;
	const struct gate *gate = doorman->world->gate;

	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];
		const unsigned id = gate_connector_id(gate, connector);
		struct doorman_row row = {.name = connector->name};

		if (id == 0)
			continue;
		look_counts(doorman, KERNEL_DOOR_CONNECTORS, id, &doorman->by_connector[id],
			&row.counts);
		viewer->on_row(viewer->owner, DOORMAN_CONNECTORS, &row);
	}
	for (unsigned i = 0; i < policy->partner_count; i++) {
		const struct partner *partner = &policy->partners[i];
		const unsigned id = gate_partner_id(gate, partner);
		struct doorman_row row = {.name = partner->name};
		const struct cidr *set = gate_partner_set(gate, partner, &row.generation);

		if (set == NULL)
			continue;
		row.prefixes = cidr_count(set);
		if (id != 0)
			look_counts(doorman, KERNEL_DOOR_PARTNERS, id, &doorman->by_partner[id],
				&row.counts);
		viewer->on_row(viewer->owner, DOORMAN_PARTNERS, &row);
	}
}

static uint64_t look_bytes(const struct doorman *doorman)
{
	const struct policy *policy = doorman->world->policy;
	const struct gate *gate = doorman->world->gate;
	uint64_t bytes = 0;
	uint64_t generation;

	for (unsigned i = 0; i < gate_binding_count(gate); i++)
		bytes += cidr_bytes(gate_binding_trie(gate, i));
	for (unsigned i = 0; i < policy->partner_count; i++) {
		const struct cidr *set = gate_partner_set(gate, &policy->partners[i], &generation);

		bytes += set == NULL ? 0 : cidr_bytes(set);
	}
	return bytes;
}

void doorman_look(struct doorman *doorman, const struct doorman_viewer *viewer)
{
	struct doorman_facts facts = {0};
	struct kernel_door_info info;
	struct stat namespace;

	if (doorman->hooks.sum_stats != NULL)
		doorman->hooks.sum_stats(doorman->hooks.owner, &facts.stats);
	facts.uptime_ms = clock_now_ms() - doorman->started_ms;
	facts.own_netns =
		stat("/proc/self/ns/net", &namespace) == 0 ? (uint64_t) namespace.st_ino : 0;
	(void)pthread_mutex_lock(&doorman->lock);
	facts.bpf = doorman->bpf;
	facts.is_kernel = doorman->kernel != NULL;
	facts.why = facts.is_kernel ? "" : doorman->why;
	facts.gate_bytes = look_bytes(doorman);
	if (facts.is_kernel) {
		kernel_door_info(doorman->kernel, &info);
		facts.info = &info;
		if (kernel_door_totals(doorman->kernel, &facts.totals) < 0)
			facts.totals = (struct door_totals){0};
	}
	viewer->on_facts(viewer->owner, &facts);
	look_at_bindings(doorman, viewer);
	look_at_names(doorman, viewer);
	(void)pthread_mutex_unlock(&doorman->lock);
}
