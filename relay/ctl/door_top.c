/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/door.h"
#include "relay/ctl/door_screen.h"

#include "relay/base/clock.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

/*
 * door_top.c: "door top". Each interval the relay is asked what it has counted, and the difference
 * to the time before is the rate. Who is refused most stands first.
 */

#define TOP_PATIENCE_S 10
#define TOP_REFUSALS 100

/* Who looks at a terminal need not wait long for the first rates. */
#define FIRST_MS 500

/* A name is cut in the middle of a table when it is longer. */
#define NAME_COLUMNS 32

/* One look at the door. */
struct look {
	bool is_there;
	uint64_t time_ms;
	struct door_status status;
	struct door_refusals refusals;
};

struct top {
	const struct control_place *place;
	const char *folder;
	int64_t interval_ms;
	struct look now, before;
	double seconds; /* between the two; 0: there was none before */
	char error[CONTROL_MESSAGE_BYTES];
	struct screen_frame frame;
};

static void look_clear(struct look *look)
{
	door_status_destroy(&look->status);
	door_refusals_destroy(&look->refusals);
	*look = (struct look){0};
}

/* Asks one of the two questions. */
static enum control_outcome look_ask(
	struct top *top, const char *command, struct control_reply *reply)
{
	const struct control_request request = {.command = command,
		.limit = strcmp(command, "door-refusals") == 0 ? TOP_REFUSALS : 0,
		.patience_s = TOP_PATIENCE_S};
	enum control_outcome outcome = control_ask(top->place, &request, reply);

	if (outcome == CONTROL_REFUSED)
		(void)snprintf(top->error, sizeof(top->error), "%s", reply->message);
	return outcome;
}

/* What is there now. Without a relay it is what the pins have. */
static void look_create(struct top *top)
{
	struct look *look = &top->now;
	struct control_reply reply;
	const char *object;
	size_t len;
	enum control_outcome outcome;

	top->error[0] = '\0';
	ctl_error_divert(top->error, sizeof(top->error));
	outcome = look_ask(top, "door-status", &reply);
	look->time_ms = clock_now_ms();
	object = control_reply_object(&reply, &len);
	if (outcome == CONTROL_DONE)
		look->is_there = door_status_create(object, len, &look->status) == 0;
	if (look->is_there)
		door_pins_find_foreign(top->folder, &look->status);
	if (outcome == CONTROL_DONE && !look->is_there)
		(void)snprintf(top->error, sizeof(top->error),
			"the relay's answer is no status of a door");
	if (outcome == CONTROL_NO_RELAY) {
		look->is_there = door_pins_create(top->folder, &look->status) == 0;
		if (top->error[0] == '\0')
			(void)snprintf(top->error, sizeof(top->error),
				"the relay is not running: everybody is refused");
	}
	control_reply_clear(&reply);
	if (outcome == CONTROL_DONE && look->is_there) {
		outcome = look_ask(top, "door-refusals", &reply);
		object = control_reply_object(&reply, &len);
		if (outcome == CONTROL_DONE &&
			door_refusals_create(object, len, &look->refusals) < 0)
			(void)snprintf(top->error, sizeof(top->error),
				"the relay's answer is no list of refusals");
		control_reply_clear(&reply);
	}
	ctl_error_divert(NULL, 0);
}

/* ---- rates */

static double rate(const struct top *top, uint64_t now, uint64_t before)
{
	return top->seconds <= 0 || now < before ? 0 : (double)(now - before) / top->seconds;
}

/* What was counted under that name before; zeros if it is new. */
static const struct door_counts *counts_before(const struct door_rows *rows, const char *name)
{
	static const struct door_counts none;

	for (unsigned i = 0; i < rows->count; i++)
		if (strcmp(rows->rows[i].name, name) == 0)
			return &rows->rows[i].counts;
	return &none;
}

struct rated {
	const struct door_row *row;
	double passed, refused; /* a second */
};

/* Who is refused most, now or else at all, is first; then who passes most. */
static int rated_compare(const void *left, const void *right)
{
	const struct rated *a = left, *b = right;
	const uint64_t a_all = door_refused(&a->row->counts), b_all = door_refused(&b->row->counts);

	if (a->refused < b->refused || a->refused > b->refused)
		return a->refused < b->refused ? 1 : -1;
	if (a_all != b_all)
		return a_all < b_all ? 1 : -1;
	if (a->passed < b->passed || a->passed > b->passed)
		return a->passed < b->passed ? 1 : -1;
	return strcmp(a->row->name, b->row->name);
}

/* Sorted; count of them, for free(). NULL: none, or no memory. */
static struct rated *rated_create(
	const struct top *top, const struct door_rows *now, const struct door_rows *before)
{
	struct rated *rated = now->count == 0 ? NULL : calloc(now->count, sizeof(*rated));

	for (unsigned i = 0; rated != NULL && i < now->count; i++) {
		const struct door_row *row = &now->rows[i];
		const struct door_counts *old = counts_before(before, row->name);

		rated[i] = (struct rated){
			.row = row,
			.passed = rate(top, row->counts.passed, old->passed),
			.refused = rate(top, door_refused(&row->counts), door_refused(old)),
		};
	}
	if (rated != NULL)
		qsort(rated, now->count, sizeof(*rated), rated_compare);
	return rated;
}

/* ---- texts */

#define RATE_BYTES 16

/* Small rates with a digit behind the point, none for large ones. */
static const char *rate_print(double value, char out[static RATE_BYTES])
{
	if (value <= 0)
		(void)snprintf(out, RATE_BYTES, "-");
	else
		(void)snprintf(out, RATE_BYTES, value < 1000 ? "%.1f" : "%.0f", value);
	return out;
}

#define NAME_BYTES (4 * NAME_COLUMNS + 8)

static unsigned columns_of(const char *text)
{
	unsigned columns = 0;

	for (; *text != '\0'; text++)
		columns += (*text & 0xc0) != 0x80;
	return columns;
}

/* Padded to so many columns; what is longer ends in "~". */
static const char *name_print(const char *name, unsigned columns, char out[static NAME_BYTES])
{
	size_t len = 0;
	unsigned used = 0;

	for (const char *at = name; *at != '\0' && len + 5 < NAME_BYTES; at++) {
		if ((*at & 0xc0) != 0x80 && used++ == columns)
			break;
		out[len++] = *at;
	}
	out[len] = '\0';
	if (columns_of(name) > columns) {
		while (len > 0 && (out[len - 1] & 0xc0) == 0x80)
			len--;
		if (len > 0)
			out[len - 1] = '~';
		out[len] = '\0';
	}
	for (used = columns_of(out); used < columns && len + 1 < NAME_BYTES; used++)
		out[len++] = ' ';
	out[len] = '\0';
	return out;
}

static unsigned names_columns(const struct door_rows *rows, unsigned columns)
{
	for (unsigned i = 0; i < rows->count; i++)
		if (columns_of(rows->rows[i].name) > columns)
			columns = columns_of(rows->rows[i].name);
	return columns < NAME_COLUMNS ? columns : NAME_COLUMNS;
}

/* ---- the head */

static void add_title(struct top *top)
{
	const struct door_status *status = &top->now.status;
	const time_t now = time(NULL);
	char age[DOOR_AGE_BYTES], clock[16], who[64] = "";
	struct tm local;

	(void)strftime(clock, sizeof(clock), "%H:%M:%S", localtime_r(&now, &local));
	if (status->program_id != 0)
		(void)snprintf(
			who, sizeof(who), "the kernel, program %" PRIu64, status->program_id);
	else if (status->mode[0] != '\0')
		(void)snprintf(who, sizeof(who), "the relay, after accepting");
	screen_add(&top->frame, SCREEN_TITLE, " postern door  %s%s%s  every %" PRId64 " s  %s ",
		who, status->mode[0] != '\0' ? "  up " : "",
		status->mode[0] != '\0' ? door_print_age(status->uptime_ms, age) : "",
		top->interval_ms / 1000, clock);
	if (top->error[0] != '\0')
		screen_add(&top->frame, SCREEN_ALERT, "%s", top->error);
	if (status->foreign_count > 0)
		screen_add(&top->frame, SCREEN_ALERT,
			"%u other sk_lookup program%s attached: whom it gives a socket comes in",
			status->foreign_count, status->foreign_count == 1 ? " is" : "s are");
}

/* Sums over the bindings: each look-up is one binding's. */
static void add_sums(struct top *top)
{
	static const char *const words[DOOR_REASON_COUNT] = {[DOOR_REASON_STRANGER] = "stranger",
		[DOOR_REASON_EXCLUDED] = "excluded",
		[DOOR_REASON_RATE] = "rate",
		[DOOR_REASON_MAPPED] = "mapped"};
	const struct door_rows *rows = &top->now.status.bindings;
	char text[RATE_BYTES], reasons[SCREEN_LINE_BYTES / 2] = "";
	double passed = 0, refused = 0, by_reason[DOOR_REASON_COUNT] = {0};
	size_t len = 0;

	for (unsigned i = 0; i < rows->count; i++) {
		const struct door_counts *now = &rows->rows[i].counts;
		const struct door_counts *old =
			counts_before(&top->before.status.bindings, rows->rows[i].name);

		passed += rate(top, now->passed, old->passed);
		for (unsigned k = 0; k < DOOR_REASON_COUNT; k++)
			by_reason[k] += rate(top, now->refused[k], old->refused[k]);
	}
	for (unsigned k = 0; k < DOOR_REASON_COUNT; k++) {
		refused += by_reason[k];
		if (by_reason[k] > 0)
			len += (size_t)snprintf(reasons + len, sizeof(reasons) - len, "   %s %s",
				words[k], rate_print(by_reason[k], text));
	}
	screen_add(&top->frame, SCREEN_HEAD, "passed  %10s/s", rate_print(passed, text));
	screen_add(&top->frame, refused > 0 ? SCREEN_WARM : SCREEN_HEAD, "refused %10s/s%s",
		rate_print(refused, text), reasons);
	if (top->now.status.has_lag)
		screen_add(&top->frame, SCREEN_PLAIN, "longest turn of a worker %.1f ms",
			(double)top->now.status.lag_max_us / 1000);
}

/* ---- tables */

static void add_rows(struct top *top, const char *title, const struct door_rows *now,
	const struct door_rows *before, unsigned max)
{
	const bool is_partners = now == &top->now.status.partners;
	const bool has_relay = top->now.status.mode[0] != '\0';
	struct rated *rated = rated_create(top, now, before);
	const unsigned shown = now->count < max ? now->count : max;
	const unsigned columns = names_columns(now, (unsigned)strlen(title));
	char name[NAME_BYTES], passed[RATE_BYTES], refused[RATE_BYTES], more[48] = "";

	if (rated == NULL || shown == 0) {
		free(rated);
		return;
	}
	if (shown < now->count)
		(void)snprintf(more, sizeof(more), "   (%u of %u)", shown, now->count);
	screen_add(&top->frame, SCREEN_PLAIN, "%s", "");
	screen_add(&top->frame, SCREEN_HEAD, "%s %10s %10s %12s %12s%s%s",
		name_print(title, columns, name), "passed/s", "refused/s", "passed", "refused",
		is_partners ? "   prefixes  generation" : "", more);
	for (unsigned i = 0; i < shown; i++) {
		const struct door_row *row = rated[i].row;
		char last[48] = "";

		if (is_partners && has_relay)
			(void)snprintf(last, sizeof(last), " %10" PRIu64 "  %10" PRIu64,
				row->prefixes, row->generation);
		else if (is_partners)
			(void)snprintf(last, sizeof(last), " %10s  %10s", "-", "-");
		screen_add(&top->frame, rated[i].refused > 0 ? SCREEN_WARM : SCREEN_PLAIN,
			"%s %10s %10s %12" PRIu64 " %12" PRIu64 "%s",
			name_print(row->name, columns, name), rate_print(rated[i].passed, passed),
			rate_print(rated[i].refused, refused), (uint64_t)row->counts.passed,
			door_refused(&row->counts), last);
	}
	free(rated);
}

static int refusal_compare(const void *left, const void *right)
{
	const struct door_refusal *a = left, *b = right;

	if (a->count != b->count)
		return a->count < b->count ? 1 : -1;
	return a->last_ms < b->last_ms ? -1 : a->last_ms > b->last_ms;
}

/* How often it was refused before; 0: it is new. */
static uint64_t refusal_before(const struct top *top, const struct door_refusal *refusal)
{
	const struct door_refusals *before = &top->before.refusals;

	for (unsigned i = 0; i < before->count; i++)
		if (strcmp(before->rows[i].peer, refusal->peer) == 0 &&
			strcmp(before->rows[i].binding, refusal->binding) == 0 &&
			strcmp(before->rows[i].reason, refusal->reason) == 0)
			return before->rows[i].count;
	return 0;
}

static void add_refusal(struct top *top, const struct door_refusal *refusal, unsigned peer_columns,
	unsigned binding_columns)
{
	char peer[NAME_BYTES], binding[NAME_BYTES], text[RATE_BYTES], age[DOOR_AGE_BYTES];
	const double now = rate(top, refusal->count, refusal_before(top, refusal));

	screen_add(&top->frame, now > 0 ? SCREEN_WARM : SCREEN_FAINT,
		"%s %8s %10" PRIu64 " %-9s %s %10s  %s%s%s",
		name_print(refusal->peer, peer_columns, peer), rate_print(now, text),
		refusal->count, refusal->reason,
		name_print(refusal->binding, binding_columns, binding),
		refusal->last_ms < 1000 ? "now" : door_print_age(refusal->last_ms, age),
		refusal->connector, refusal->partner[0] != '\0' ? ", " : "", refusal->partner);
}

/* A flood is not told refusal by refusal, so the counts of sources are not all. */
static void add_not_told(struct top *top)
{
	const struct door_totals *now = &top->now.status.totals;
	const struct door_totals *before = &top->before.status.totals;
	const double held = rate(top, now->events_held + now->events_lost,
		before->events_held + before->events_lost);
	char text[RATE_BYTES];

	if (held > 0)
		screen_add(&top->frame, SCREEN_FAINT,
			"(and %s/s that were too many to be told one by one)",
			rate_print(held, text));
}

static void add_refusals(struct top *top, unsigned max)
{
	struct door_refusals *refusals = &top->now.refusals;
	const unsigned shown = refusals->count < max ? refusals->count : max;
	unsigned peer_columns = 15, binding_columns = 12;
	char peer[NAME_BYTES], binding[NAME_BYTES];

	screen_add(&top->frame, SCREEN_PLAIN, "%s", "");
	if (refusals->count == 0) {
		screen_add(&top->frame, SCREEN_FAINT, "nobody was refused lately");
		return;
	}
	if (shown == 0)
		return;
	qsort(refusals->rows, refusals->count, sizeof(*refusals->rows), refusal_compare);
	for (unsigned i = 0; i < shown; i++) {
		unsigned columns = columns_of(refusals->rows[i].peer);

		peer_columns = columns > peer_columns ? columns : peer_columns;
		columns = columns_of(refusals->rows[i].binding);
		binding_columns = columns > binding_columns ? columns : binding_columns;
	}
	peer_columns = peer_columns < NAME_COLUMNS ? peer_columns : NAME_COLUMNS;
	binding_columns = binding_columns < NAME_COLUMNS ? binding_columns : NAME_COLUMNS;
	screen_add(&top->frame, SCREEN_HEAD, "%s %8s %10s %-9s %s %10s  %s",
		name_print("refused lately", peer_columns, peer), "/s", "count", "why",
		name_print("binding", binding_columns, binding), "last", "connector, partner");
	add_not_told(top);
	for (unsigned i = 0; i < shown; i++)
		add_refusal(top, &refusals->rows[i], peer_columns, binding_columns);
}

/* A table may have this many lines; refusals get what is left, which is a third at the least. */
static void top_compose(struct top *top)
{
	const struct door_status *now = &top->now.status, *before = &top->before.status;
	const unsigned rows = screen_size().rows;
	unsigned each = 1, max;

	top->frame.count = 0;
	add_title(top);
	if (!top->now.is_there)
		return;
	add_sums(top);
	/* Three tables have a blank line and a heading each, and so have refusals. */
	max = rows * 2 / 3;
	if (max > top->frame.count + 6)
		each = (max - top->frame.count - 6) / 3;
	each = each > 0 ? each : 1;
	add_rows(top, "binding", &now->bindings, &before->bindings, each);
	add_rows(top, "connector", &now->connectors, &before->connectors, each);
	add_rows(top, "partner", &now->partners, &before->partners, each);
	if (now->mode[0] != '\0')
		add_refusals(top, rows > top->frame.count + 3 ? rows - top->frame.count - 3 : 0);
}

/* Counts that began anew are those of another relay: there is no rate between the two. */
static void top_turn(struct top *top)
{
	look_clear(&top->before);
	top->before = top->now;
	top->now = (struct look){0};
	look_create(top);
	top->seconds = 0;
	if (top->now.is_there && top->before.is_there)
		top->seconds = (double)(top->now.time_ms - top->before.time_ms) / 1000;
}

int door_top(
	const struct control_place *place, const char *folder, int64_t interval_ms, int64_t count)
{
	static struct top top;
	enum screen_wish wish = SCREEN_NEXT;
	uint64_t due_ms = clock_now_ms();
	bool is_terminal, is_read = true, was_there;

	top.place = place;
	top.folder = folder;
	top.interval_ms = interval_ms;
	top_turn(&top);
	if (!top.now.is_there) {
		ctl_error("%s", top.error);
		return CTL_FAILED;
	}
	is_terminal = screen_open();
	for (int64_t drawn = 0; is_read && wish != SCREEN_FINISH;) {
		top_compose(&top);
		is_read = screen_draw(&top.frame);
		if (wish == SCREEN_NEXT && ++drawn == count)
			break;
		if (wish == SCREEN_NEXT)
			due_ms = clock_now_ms() +
				 (uint64_t)(is_terminal && drawn == 1 && interval_ms > FIRST_MS
						    ? FIRST_MS
						    : interval_ms);
		wish = screen_wait(due_ms);
		if (wish == SCREEN_NEXT)
			top_turn(&top);
	}
	screen_close();
	was_there = top.now.is_there;
	look_clear(&top.now);
	look_clear(&top.before);
	return was_there ? CTL_OK : CTL_FAILED;
}
