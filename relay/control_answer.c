/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/clock.h"
#include "relay/control_private.h"
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * control_answer.c: what is told of the door, as JSON (relay/control.h has its form). Without
 * memory a part may be missing; the whole is then NULL.
 */

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)(value & INT64_MAX));
}

static void add_counts(json_t *row, const struct door_counts *counts)
{
	(void)json_object_set_new(row, "passed", number(counts->passed));
	for (unsigned i = 0; i < DOOR_REASON_COUNT; i++)
		(void)json_object_set_new(
			row, refusal_word((enum door_reason)i), number(counts->refused[i]));
}

/* ---- door-status */

struct status {
	json_t *object;
	json_t *tables[3]; /* by enum doorman_table */
};

static json_t *shields_create(const struct kernel_door_info *info)
{
	json_t *shields = json_array();

	for (unsigned i = 0; i < info->shield_count; i++)
		(void)json_array_append_new(
			shields, json_pack("{s:s, s:I}", "interface", info->shield_names[i],
					 "program_id", (json_int_t)info->shield_ids[i]));
	return shields;
}

static void status_add_kernel(json_t *object, const struct doorman_facts *facts)
{
	const struct kernel_door_info *info = facts->info;
	json_t *foreign = json_array();

	for (unsigned i = 0; i < info->foreign_count; i++)
		(void)json_array_append_new(foreign, number(info->foreign[i]));
	(void)json_object_set_new(object, "program_id", number(info->program_id));
	(void)json_object_set_new(object, "link_id", number(info->link_id));
	(void)json_object_set_new(object, "folder", json_string(info->folder));
	(void)json_object_set_new(object, "taken_up", json_boolean(info->was_taken_up));
	(void)json_object_set_new(object, "netns", number(info->netns_inode));
	(void)json_object_set_new(object, "own_netns", number(facts->own_netns));
	(void)json_object_set_new(object, "foreign", foreign);
	(void)json_object_set_new(object, "foreign_known", json_boolean(info->foreign_is_known));
	(void)json_object_set_new(object, "shields", shields_create(info));
}

static json_t *totals_create(const struct door_totals *totals)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "lookups", (json_int_t)totals->lookups,
		"others", (json_int_t)totals->others, "events_held",
		(json_int_t)totals->events_held, "events_lost", (json_int_t)totals->events_lost,
		"shield_drops", (json_int_t)totals->shield_drops);
}

static json_t *lag_create(const struct stats *stats)
{
	const struct {
		unsigned below_us;
		const _Atomic uint64_t *turns;
	} rows[] = {
		{100, &stats->loop_under_100us},
		{1000, &stats->loop_under_1ms},
		{5000, &stats->loop_under_5ms},
		{20000, &stats->loop_under_20ms},
		{0, &stats->loop_over_20ms},
	};
	json_t *counts = json_array();

	for (unsigned i = 0; i < COUNT_OF(rows); i++)
		(void)json_array_append_new(
			counts, json_pack("{s:I, s:I}", "below_us", (json_int_t)rows[i].below_us,
					"turns", (json_int_t)atomic_load(rows[i].turns)));
	return json_pack("{s:I, s:o}", "max_us", (json_int_t)atomic_load(&stats->loop_max_us),
		"counts", counts);
}

static const char *bpf_word(enum bpf_mode mode)
{
	return mode == BPF_OFF ? "off" : mode == BPF_REQUIRED ? "required" : "auto";
}

static void status_on_facts(void *owner, const struct doorman_facts *facts)
{
	json_t *object = ((struct status *)owner)->object;

	(void)json_object_set_new(object, "version", json_string(POSTERN_VERSION));
	(void)json_object_set_new(object, "pid", number((uint64_t)getpid()));
	(void)json_object_set_new(object, "uptime_ms", number(facts->uptime_ms));
	(void)json_object_set_new(object, "bpf", json_string(bpf_word(facts->bpf)));
	(void)json_object_set_new(
		object, "mode", json_string(facts->is_kernel ? "kernel" : "userspace"));
	(void)json_object_set_new(object, "why", json_string(facts->why));
	if (facts->info != NULL)
		status_add_kernel(object, facts);
	(void)json_object_set_new(object, "gate_bytes", number(facts->gate_bytes));
	(void)json_object_set_new(object, "totals", totals_create(&facts->totals));
	(void)json_object_set_new(object, "loop_lag", lag_create(&facts->stats));
}

static void status_on_row(void *owner, enum doorman_table table, const struct doorman_row *row)
{
	const struct status *status = owner;
	json_t *out = json_object();

	(void)json_object_set_new(
		out, table == DOORMAN_BINDINGS ? "binding" : "name", json_string(row->name));
	if (table == DOORMAN_BINDINGS)
		(void)json_object_set_new(out, "slot", number(row->slot));
	if (table == DOORMAN_PARTNERS)
		(void)json_object_set_new(out, "generation", number(row->generation));
	if (table != DOORMAN_CONNECTORS)
		(void)json_object_set_new(out, "prefixes", number(row->prefixes));
	add_counts(out, &row->counts);
	(void)json_array_append_new(status->tables[table], out);
}

json_t *control_status_create(struct doorman *doorman)
{
	struct status status = {.object = json_object(),
		.tables = {
			[DOORMAN_BINDINGS] = json_array(),
			[DOORMAN_CONNECTORS] = json_array(),
			[DOORMAN_PARTNERS] = json_array(),
		}};

	doorman_look(doorman,
		&(const struct doorman_viewer){
			.on_facts = status_on_facts, .on_row = status_on_row, .owner = &status});
	(void)json_object_set_new(status.object, "bindings", status.tables[DOORMAN_BINDINGS]);
	(void)json_object_set_new(status.object, "connectors", status.tables[DOORMAN_CONNECTORS]);
	(void)json_object_set_new(status.object, "partners", status.tables[DOORMAN_PARTNERS]);
	return status.object;
}

/* ---- door-refusals */

static json_t *refusal_row_create(struct doorman *doorman, const struct refusal *refusal)
{
	const uint64_t now_ms = clock_now_ms();
	const uint64_t ago_ms = now_ms > refusal->last_ms ? now_ms - refusal->last_ms : 0;
	struct doorman_names names;
	char peer[64];
	char local[64];

	doorman_read_names(doorman, refusal->value, &names);
	(void)ip_print(&refusal->peer, peer, sizeof(peer));
	address_print(&refusal->local, local, sizeof(local));
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "peer", peer, "binding", local,
		"reason", refusal_word(refusal->reason), "connector", names.connector, "partner",
		names.partner, "count", (json_int_t)refusal->count, "last_ms", (json_int_t)ago_ms);
}

json_t *control_refusals_create(struct doorman *doorman, unsigned limit)
{
	struct refusal *rows = calloc((size_t)limit + 1, sizeof(*rows));
	json_t *refusals = json_array();
	unsigned count = rows == NULL ? 0 : doorman_refusals(doorman, rows, limit);

	for (unsigned i = 0; i < count; i++)
		(void)json_array_append_new(refusals, refusal_row_create(doorman, &rows[i]));
	free(rows);
	return json_pack("{s:o}", "refusals", refusals);
}

/* ---- partner-ip-test */

static void test_on_binding(void *owner, const struct doorman_verdict *verdict)
{
	json_t *bindings = owner;
	const struct gate_answer *answer = verdict->answer;
	json_t *row = json_object();
	char text[PREFIX_TEXT_BYTES];
	char binding[64];

	address_print(verdict->binding, binding, sizeof(binding));
	(void)json_object_set_new(row, "binding", json_string(binding));
	(void)json_object_set_new(row, "served", json_boolean(verdict->is_served));
	(void)json_object_set_new(row, "connector",
		json_string(answer->connector == NULL ? "" : answer->connector->name));
	(void)json_object_set_new(
		row, "partner", json_string(answer->partner == NULL ? "" : answer->partner->name));
	(void)json_object_set_new(row, "prefix",
		json_string(verdict->is_served || answer->is_excluded
				    ? prefix_print(&answer->prefix, text)
				    : ""));
	(void)json_object_set_new(row, "excluded", json_boolean(answer->is_excluded));
	(void)json_object_set_new(row, "balancer", json_boolean(answer->is_balancer));
	(void)json_array_append_new(bindings, row);
}

int control_test_create(
	struct doorman *doorman, const char *partner, const struct ip *ip, json_t **out)
{
	json_t *bindings = json_array();
	int rc = bindings == NULL ? -ENOMEM
				  : doorman_test(doorman, partner, ip, test_on_binding, bindings);

	if (rc == 0)
		*out = json_pack("{s:O}", "bindings", bindings);
	json_decref(bindings);
	return rc;
}
