/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/door.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

/*
 * control_door.c: what the relay says of the door, as structs. A member that is missing or is of
 * another kind counts as 0 or "", so that a relay of a near version can be asked.
 */

static bool is_true(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

/* The array of that name, as the rows of a table, zeroed; *out_count of them. NULL: no memory. */
static void *array_create(const json_t *array, size_t bytes, unsigned *out_count)
{
	*out_count = (unsigned)json_array_size(array);
	return calloc(*out_count > 0 ? *out_count : 1, bytes);
}

static int rows_create(
	const json_t *object, const char *key, const char *name, struct door_rows *out)
{
	const json_t *array = json_object_get(object, key);

	out->rows = array_create(array, sizeof(*out->rows), &out->count);
	if (out->rows == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < out->count; i++) {
		const json_t *element = json_array_get(array, i);
		struct door_row *row = &out->rows[i];

		CONTROL_JSON_TEXT(element, name, row->name);
		row->slot = (unsigned)control_json_number(element, "slot");
		row->generation = control_json_number(element, "generation");
		row->prefixes = control_json_number(element, "prefixes");
		row->counts.passed = control_json_number(element, "passed");
		row->counts.refused[DOOR_REASON_STRANGER] =
			control_json_number(element, "stranger");
		row->counts.refused[DOOR_REASON_EXCLUDED] =
			control_json_number(element, "excluded");
		row->counts.refused[DOOR_REASON_RATE] = control_json_number(element, "rate");
		row->counts.refused[DOOR_REASON_MAPPED] = control_json_number(element, "mapped");
	}
	return 0;
}

static void status_read_kernel(const json_t *object, struct door_status *out)
{
	const json_t *foreign = json_object_get(object, "foreign");
	const json_t *shields = json_object_get(object, "shields");

	out->program_id = control_json_number(object, "program_id");
	out->link_id = control_json_number(object, "link_id");
	out->netns = control_json_number(object, "netns");
	out->own_netns = control_json_number(object, "own_netns");
	out->taken_up = is_true(object, "taken_up");
	out->foreign_known = is_true(object, "foreign_known");
	for (size_t i = 0; i < json_array_size(foreign) && i < DOOR_FOREIGN_MAX; i++)
		out->foreign[out->foreign_count++] =
			(uint64_t)json_integer_value(json_array_get(foreign, i));
	for (size_t i = 0; i < json_array_size(shields) && i < DOOR_SHIELDS_MAX; i++) {
		const json_t *shield = json_array_get(shields, i);

		CONTROL_JSON_TEXT(shield, "interface", out->shields[i].interface);
		out->shields[i].program_id = control_json_number(shield, "program_id");
		out->shield_count++;
	}
}

static void status_read_totals(const json_t *object, struct door_status *out)
{
	const json_t *totals = json_object_get(object, "totals");
	const json_t *lag = json_object_get(object, "loop_lag");
	const json_t *counts = json_object_get(lag, "counts");

	out->totals = (struct door_totals){
		.lookups = control_json_number(totals, "lookups"),
		.others = control_json_number(totals, "others"),
		.events_held = control_json_number(totals, "events_held"),
		.events_lost = control_json_number(totals, "events_lost"),
		.shield_drops = control_json_number(totals, "shield_drops"),
	};
	out->has_lag = json_is_object(lag);
	out->lag_max_us = control_json_number(lag, "max_us");
	for (size_t i = 0; i < json_array_size(counts) && i < DOOR_LAGS_MAX; i++) {
		const json_t *element = json_array_get(counts, i);

		out->lags[i].below_us = control_json_number(element, "below_us");
		out->lags[i].turns = control_json_number(element, "turns");
		out->lag_count++;
	}
}

int door_status_create(const char *line, size_t len, struct door_status *out)
{
	json_t *object = line == NULL ? NULL : json_loadb(line, len, 0, NULL);
	int rc = -EINVAL;

	*out = (struct door_status){0};
	if (json_is_object(object) && json_is_string(json_object_get(object, "mode")) &&
		json_is_array(json_object_get(object, "bindings"))) {
		CONTROL_JSON_TEXT(object, "version", out->version);
		CONTROL_JSON_TEXT(object, "bpf", out->bpf);
		CONTROL_JSON_TEXT(object, "mode", out->mode);
		CONTROL_JSON_TEXT(object, "why", out->why);
		CONTROL_JSON_TEXT(object, "folder", out->folder);
		out->pid = control_json_number(object, "pid");
		out->uptime_ms = control_json_number(object, "uptime_ms");
		status_read_kernel(object, out);
		status_read_totals(object, out);
		rc = rows_create(object, "bindings", "binding", &out->bindings);
		if (rc == 0)
			rc = rows_create(object, "connectors", "name", &out->connectors);
		if (rc == 0)
			rc = rows_create(object, "partners", "name", &out->partners);
	}
	json_decref(object);
	if (rc < 0)
		door_status_destroy(out);
	return rc;
}

/* ---- the other way, for what the pins tell */

static json_t *integer(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static json_t *rows_to_json(const struct door_rows *rows, const char *name)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < rows->count; i++) {
		const struct door_counts *counts = &rows->rows[i].counts;
		json_t *row = json_object();

		(void)json_object_set_new(row, name, json_string(rows->rows[i].name));
		(void)json_object_set_new(row, "passed", integer(counts->passed));
		(void)json_object_set_new(
			row, "stranger", integer(counts->refused[DOOR_REASON_STRANGER]));
		(void)json_object_set_new(
			row, "excluded", integer(counts->refused[DOOR_REASON_EXCLUDED]));
		(void)json_object_set_new(row, "rate", integer(counts->refused[DOOR_REASON_RATE]));
		(void)json_object_set_new(
			row, "mapped", integer(counts->refused[DOOR_REASON_MAPPED]));
		(void)json_array_append_new(array, row);
	}
	return array;
}

static json_t *foreign_to_json(const struct door_status *status)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < status->foreign_count; i++)
		(void)json_array_append_new(array, integer(status->foreign[i]));
	return array;
}

int door_status_print_text(const char *line, size_t len, const struct door_status *status)
{
	json_t *object = json_loadb(line, len, 0, NULL);

	if (object == NULL)
		return -EINVAL;
	if (status->program_id != 0) {
		(void)json_object_set_new(object, "foreign", foreign_to_json(status));
		(void)json_object_set_new(
			object, "foreign_known", json_boolean(status->foreign_known));
	}
	(void)json_dumpf(object, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	(void)putchar('\n');
	json_decref(object);
	return 0;
}

void door_status_print_json(const struct door_status *status)
{
	json_t *object = json_object(), *totals = json_object();

	(void)json_object_set_new(totals, "lookups", integer(status->totals.lookups));
	(void)json_object_set_new(totals, "others", integer(status->totals.others));
	(void)json_object_set_new(totals, "events_held", integer(status->totals.events_held));
	(void)json_object_set_new(totals, "events_lost", integer(status->totals.events_lost));
	(void)json_object_set_new(totals, "shield_drops", integer(status->totals.shield_drops));
	(void)json_object_set_new(object, "mode", json_string(""));
	(void)json_object_set_new(object, "program_id", integer(status->program_id));
	(void)json_object_set_new(object, "link_id", integer(status->link_id));
	(void)json_object_set_new(object, "folder", json_string(status->folder));
	(void)json_object_set_new(object, "netns", integer(status->netns));
	(void)json_object_set_new(object, "foreign", foreign_to_json(status));
	(void)json_object_set_new(object, "foreign_known", json_boolean(status->foreign_known));
	(void)json_object_set_new(object, "bindings", rows_to_json(&status->bindings, "binding"));
	(void)json_object_set_new(object, "connectors", rows_to_json(&status->connectors, "name"));
	(void)json_object_set_new(object, "partners", rows_to_json(&status->partners, "name"));
	(void)json_object_set_new(object, "totals", totals);
	(void)json_dumpf(object, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	(void)putchar('\n');
	json_decref(object);
}

void door_status_destroy(struct door_status *status)
{
	free(status->bindings.rows);
	free(status->connectors.rows);
	free(status->partners.rows);
	*status = (struct door_status){0};
}

/* The array of that name in an answer, as rows that read has filled; -errno in *out_rc, or 0. */
static void *answer_create_rows(const char *line, size_t len, const char *key, size_t row_bytes,
	void (*read)(const json_t *element, void *row), unsigned *out_count, int *out_rc)
{
	json_t *object = line == NULL ? NULL : json_loadb(line, len, 0, NULL);
	const json_t *array = json_object_get(object, key);
	char *rows = json_is_array(array) ? array_create(array, row_bytes, out_count) : NULL;

	*out_rc = rows != NULL ? 0 : json_is_array(array) ? -ENOMEM : -EINVAL;
	for (unsigned i = 0; rows != NULL && i < *out_count; i++)
		read(json_array_get(array, i), rows + i * row_bytes);
	json_decref(object);
	return rows;
}

static void refusal_read(const json_t *element, void *out)
{
	struct door_refusal *row = out;

	CONTROL_JSON_TEXT(element, "peer", row->peer);
	CONTROL_JSON_TEXT(element, "binding", row->binding);
	CONTROL_JSON_TEXT(element, "reason", row->reason);
	CONTROL_JSON_TEXT(element, "connector", row->connector);
	CONTROL_JSON_TEXT(element, "partner", row->partner);
	row->count = control_json_number(element, "count");
	row->last_ms = control_json_number(element, "last_ms");
}

int door_refusals_create(const char *line, size_t len, struct door_refusals *out)
{
	int rc;

	*out = (struct door_refusals){0};
	out->rows = answer_create_rows(
		line, len, "refusals", sizeof(*out->rows), refusal_read, &out->count, &rc);
	return rc;
}

void door_refusals_destroy(struct door_refusals *refusals)
{
	free(refusals->rows);
	*refusals = (struct door_refusals){0};
}

static void answer_read(const json_t *element, void *out)
{
	struct door_answer *row = out;

	CONTROL_JSON_TEXT(element, "binding", row->binding);
	CONTROL_JSON_TEXT(element, "connector", row->connector);
	CONTROL_JSON_TEXT(element, "partner", row->partner);
	CONTROL_JSON_TEXT(element, "prefix", row->prefix);
	row->is_served = is_true(element, "served");
	row->is_excluded = is_true(element, "excluded");
	row->is_balancer = is_true(element, "balancer");
}

int door_answers_create(const char *line, size_t len, struct door_answers *out)
{
	int rc;

	*out = (struct door_answers){0};
	out->rows = answer_create_rows(
		line, len, "bindings", sizeof(*out->rows), answer_read, &out->count, &rc);
	return rc;
}

void door_answers_destroy(struct door_answers *answers)
{
	free(answers->rows);
	*answers = (struct door_answers){0};
}
