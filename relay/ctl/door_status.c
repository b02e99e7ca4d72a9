/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/door.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

/*
 * door_status.c: "door status" as an operator reads it.
 */

uint64_t door_refused(const struct door_counts *counts)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < DOOR_REASON_COUNT; i++)
		sum += counts->refused[i];
	return sum;
}

const char *door_print_age(uint64_t ms, char out[static DOOR_AGE_BYTES])
{
	const uint64_t seconds = ms / 1000;

	if (seconds >= 86400)
		(void)snprintf(out, DOOR_AGE_BYTES, "%" PRIu64 " d %" PRIu64 " h", seconds / 86400,
			seconds / 3600 % 24);
	else if (seconds >= 3600)
		(void)snprintf(out, DOOR_AGE_BYTES, "%" PRIu64 " h %" PRIu64 " min", seconds / 3600,
			seconds / 60 % 60);
	else if (seconds >= 60)
		(void)snprintf(out, DOOR_AGE_BYTES, "%" PRIu64 " min %" PRIu64 " s", seconds / 60,
			seconds % 60);
	else
		(void)snprintf(out, DOOR_AGE_BYTES, "%" PRIu64 " s", seconds);
	return out;
}

/* ---- facts, a line each */

#define FACT_BYTES 1024

static const char *const fact_columns[] = {"Name", "Value"};

static void fact(struct ctl_table *table, const char *name, const char *format, ...)
	PRINTF_LIKE(3, 4);

static void fact(struct ctl_table *table, const char *name, const char *format, ...)
{
	char text[FACT_BYTES];
	const char *cells[COUNT_OF(fact_columns)] = {name, text};
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	ctl_table_create_row(table, cells);
}

static void fact_door(struct ctl_table *table, const struct door_status *status)
{
	const bool is_kernel = strcmp(status->mode, "kernel") == 0;
	char age[DOOR_AGE_BYTES];

	if (status->mode[0] == '\0') {
		fact(table, "Relay", "not running: everybody is refused");
		return;
	}
	fact(table, "Relay", "postern %s, process %" PRIu64 ", up %s", status->version, status->pid,
		door_print_age(status->uptime_ms, age));
	fact(table, "Door", "%s (bpf = %s)%s%s",
		is_kernel ? "the kernel refuses strangers before there is a connection"
			  : "the relay refuses strangers after it has accepted",
		status->bpf, status->why[0] != '\0' ? ": " : "", status->why);
}

/* Our network namespace; 0: nobody says. */
static uint64_t netns_here(void)
{
	struct stat here;

	return stat("/proc/self/ns/net", &here) < 0 ? 0 : (uint64_t)here.st_ino;
}

/* Where it is attached, seen from here. */
static void fact_netns(struct ctl_table *table, const struct door_status *status)
{
	const uint64_t here = netns_here();

	if (status->netns == 0) {
		fact(table, "Namespace", "none: the one that it was attached to is gone");
		return;
	}
	if (here == status->netns)
		fact(table, "Namespace", "%" PRIu64 ", this one", status->netns);
	else if (status->own_netns == status->netns)
		fact(table, "Namespace", "%" PRIu64 ", the relay's; this one is %" PRIu64,
			status->netns, here);
	else
		fact(table, "Namespace", "%" PRIu64 ", another than this one (%" PRIu64 ")",
			status->netns, here);
}

static void fact_foreign(struct ctl_table *table, const struct door_status *status)
{
	char list[FACT_BYTES / 2] = "";
	size_t len = 0;

	for (unsigned i = 0; i < status->foreign_count && len + 24 < sizeof(list); i++)
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%" PRIu64,
			i == 0 ? "" : ", ", status->foreign[i]);
	if (!status->foreign_known && status->netns != 0 && status->netns != netns_here())
		fact(table, "Others",
			"unknown: other sk_lookup programs are seen from the namespace of the door "
			"only, by root");
	else if (!status->foreign_known)
		fact(table, "Others",
			"unknown: asking for other sk_lookup programs needs "
			"CAP_NET_ADMIN");
	else if (status->foreign_count == 0)
		fact(table, "Others", "no other sk_lookup program is attached");
	else
		fact(table, "Others",
			"%u other sk_lookup program%s (%s): whom one of them gives a socket comes "
			"in, whatever the door says; bpftool prog show id N",
			status->foreign_count, status->foreign_count == 1 ? "" : "s", list);
}

static void fact_kernel(struct ctl_table *table, const struct door_status *status)
{
	if (status->program_id == 0)
		fact(table, "Program", "none is attached");
	else
		fact(table, "Program", "%" PRIu64 ", by link %" PRIu64 "%s%s%s", status->program_id,
			status->link_id, status->folder[0] != '\0' ? ", pinned in " : "",
			status->folder, status->taken_up ? ", taken up from an earlier relay" : "");
	fact_netns(table, status);
	fact_foreign(table, status);
	for (unsigned i = 0; i < status->shield_count; i++) {
		if (status->shields[i].program_id == 0)
			fact(table, "Shield", "%s: not attached", status->shields[i].interface);
		else
			fact(table, "Shield", "%s: program %" PRIu64, status->shields[i].interface,
				status->shields[i].program_id);
	}
	fact(table, "Lookups", "%" PRIu64 ", of these %" PRIu64 " for ports of others",
		(uint64_t)status->totals.lookups, (uint64_t)status->totals.others);
	if (status->shield_count > 0)
		fact(table, "ShieldDrops", "%" PRIu64 " packets",
			(uint64_t)status->totals.shield_drops);
	if (status->totals.events_held + status->totals.events_lost > 0)
		fact(table, "NotTold",
			"%" PRIu64 " refusals were too many to be logged one by one, %" PRIu64
			" found no room",
			(uint64_t)status->totals.events_held, (uint64_t)status->totals.events_lost);
}

/* The histogram, without what never was. */
static void fact_lag(struct ctl_table *table, const struct door_status *status)
{
	char text[FACT_BYTES / 2] = "";
	size_t len = 0;

	for (unsigned i = 0; i < status->lag_count && len + 64 < sizeof(text); i++) {
		const struct door_lag *lag = &status->lags[i];

		if (lag->turns == 0)
			continue;
		if (lag->below_us > 0)
			len += (size_t)snprintf(text + len, sizeof(text) - len,
				"%" PRIu64 " turns below %g ms, ", lag->turns,
				(double)lag->below_us / 1000);
		else
			len += (size_t)snprintf(
				text + len, sizeof(text) - len, "%" PRIu64 " slower, ", lag->turns);
	}
	fact(table, "LoopLag", "%sthe longest %.1f ms", text, (double)status->lag_max_us / 1000);
}

/* ---- tables */

static const char *const binding_columns[] = {
	"Binding", "Slot", "Prefixes", "Passed", "Stranger", "Excluded", "Rate", "Mapped"};
static const char *const connector_columns[] = {"Connector", "Passed", "Excluded", "Rate"};
static const char *const partner_columns[] = {
	"Partner", "Generation", "Prefixes", "Passed", "Excluded", "Rate"};

#define NUMBER_BYTES 24

static const char *number_print(uint64_t number, char out[static NUMBER_BYTES])
{
	(void)snprintf(out, NUMBER_BYTES, "%" PRIu64, number);
	return out;
}

/* The name, then numbers. */
static void row_create(struct ctl_table *table, const char *name, bool is_running,
	const uint64_t *numbers, unsigned count)
{
	char texts[CTL_COLUMNS_MAX][NUMBER_BYTES];
	const char *cells[CTL_COLUMNS_MAX] = {name};

	ASSERT(count + 1 == table->column_count && count < CTL_COLUMNS_MAX);
	for (unsigned i = 1; i <= count; i++) {
		/* What only the relay knows is not 0 when there is none. */
		bool is_unknown =
			!is_running && (strcmp(table->columns[i], "Prefixes") == 0 ||
					       strcmp(table->columns[i], "Generation") == 0);

		cells[i] = is_unknown ? "-" : number_print(numbers[i - 1], texts[i]);
	}
	ctl_table_create_row(table, cells);
}

static void print_bindings(const struct ctl *ctl, const struct door_status *status)
{
	const bool is_running = status->mode[0] != '\0';
	struct ctl_table table;

	ctl_table_init(&table, binding_columns, COUNT_OF(binding_columns));
	table.right = ~1u;
	for (unsigned i = 0; i < status->bindings.count; i++) {
		const struct door_row *row = &status->bindings.rows[i];
		const __u64 *refused = row->counts.refused;
		const uint64_t numbers[] = {row->slot, row->prefixes, row->counts.passed,
			refused[DOOR_REASON_STRANGER], refused[DOOR_REASON_EXCLUDED],
			refused[DOOR_REASON_RATE], refused[DOOR_REASON_MAPPED]};

		row_create(&table, row->name, is_running, numbers, COUNT_OF(numbers));
	}
	(void)putchar('\n');
	(void)ctl_table_finish(ctl, &table);
}

static void print_connectors(const struct ctl *ctl, const struct door_status *status)
{
	struct ctl_table table;

	ctl_table_init(&table, connector_columns, COUNT_OF(connector_columns));
	table.right = ~1u;
	for (unsigned i = 0; i < status->connectors.count; i++) {
		const struct door_row *row = &status->connectors.rows[i];
		const uint64_t numbers[] = {row->counts.passed,
			row->counts.refused[DOOR_REASON_EXCLUDED],
			row->counts.refused[DOOR_REASON_RATE]};

		row_create(&table, row->name, true, numbers, COUNT_OF(numbers));
	}
	(void)putchar('\n');
	(void)ctl_table_finish(ctl, &table);
}

static void print_partners(const struct ctl *ctl, const struct door_status *status)
{
	const bool is_running = status->mode[0] != '\0';
	struct ctl_table table;

	if (status->partners.count == 0)
		return;
	ctl_table_init(&table, partner_columns, COUNT_OF(partner_columns));
	table.right = ~1u;
	for (unsigned i = 0; i < status->partners.count; i++) {
		const struct door_row *row = &status->partners.rows[i];
		const uint64_t numbers[] = {row->generation, row->prefixes, row->counts.passed,
			row->counts.refused[DOOR_REASON_EXCLUDED],
			row->counts.refused[DOOR_REASON_RATE]};

		row_create(&table, row->name, is_running, numbers, COUNT_OF(numbers));
	}
	(void)putchar('\n');
	(void)ctl_table_finish(ctl, &table);
}

void door_status_print(const struct ctl *ctl, const struct door_status *status)
{
	const struct ctl plain = {.config = ctl->config};
	struct ctl_table table;

	ctl_table_init(&table, fact_columns, COUNT_OF(fact_columns));
	fact_door(&table, status);
	if (status->program_id != 0 || status->mode[0] == '\0' ||
		strcmp(status->mode, "kernel") == 0)
		fact_kernel(&table, status);
	if (status->has_lag)
		fact_lag(&table, status);
	(void)ctl_table_finish_list(&plain, &table);
	print_bindings(&plain, status);
	print_connectors(&plain, status);
	print_partners(&plain, status);
}
