/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/track.h"

#include "policy/policy.h"
#include "relay/base/csv.h"
#include "relay/base/track.h"
#include "relay/mail/envelope.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT_DEFAULT 1000
#define LIMIT_MAX 100000

/* "2026-11-21T22:46:05.123" */
#define TIME_BYTES 24

/* Columns of the file, from 0, that are asked about or shown. */
enum track_column {
	COLUMN_TIME = 0,
	COLUMN_SOURCE = 7,
	COLUMN_EVENT = 8,
	COLUMN_ID = 9,
	COLUMN_MESSAGE_ID = 10,
	COLUMN_RECIPIENTS = 12,
	COLUMN_SUBJECT = 18,
	COLUMN_SENDER = 19,
	COLUMN_COUNT = 30,
};

/* In JSON they are called as Get-MessageTrackingLog calls them. */
static const char *const json_names[COLUMN_COUNT] = {"Timestamp", "ClientIp", "ClientHostname",
	"ServerIp", "ServerHostname", "SourceContext", "ConnectorId", "Source", "EventId",
	"InternalMessageId", "MessageId", "NetworkMessageId", "Recipients", "RecipientStatus",
	"TotalBytes", "RecipientCount", "RelatedRecipientAddress", "Reference", "MessageSubject",
	"Sender", "ReturnPath", "MessageInfo", "Directionality", "TenantId", "OriginalClientIp",
	"OriginalServerIp", "EventData", "TransportTrafficType", "LogId", "SchemaVersion"};

static const char *const track_columns[] = {
	"Timestamp", "EventId", "Source", "Sender", "Recipients", "MessageSubject"};
static const enum track_column track_shown[COUNT_OF(track_columns)] = {
	COLUMN_TIME, COLUMN_EVENT, COLUMN_SOURCE, COLUMN_SENDER, COLUMN_RECIPIENTS, COLUMN_SUBJECT};

/* A row that was asked for: its fields, each with its NUL, behind one another. */
struct track_found {
	char *bytes;
	uint64_t number; /* in the order of the files: rows of one moment stay in it */
};

struct track {
	const char *sender, *recipient, *message_id, *id, *event, *start, *end, *folder;
	int64_t limit;
	uint64_t id_number;
	char start_text[TIME_BYTES], end_text[TIME_BYTES];
	struct track_found *found; /* the last limit ones: number modulo limit */
	uint64_t found_count;
	uint64_t bad_count;
	bool out_of_memory;
	struct csv csv;
};

/* ---- what is asked for */

/*
 * A time, or the beginning of one: "2026-11-21", "2026-11-21T22:46"; a blank may stand for the T,
 * and a Z at the end. So written, times compare as texts.
 */
static int track_time_read(const char *option, const char *text, char out[static TIME_BYTES])
{
	static const char form[] = "0000-00-00T00:00:00.000";
	size_t len = strlen(text);

	if (len > 10 && (text[len - 1] == 'Z' || text[len - 1] == 'z'))
		len--;
	/* It ends with a whole number: day, minute, second or milliseconds. */
	if (len != 10 && len != 16 && len != 19 && len != 23)
		goto bad;
	for (size_t i = 0; i < len; i++) {
		const bool is_blank = text[i] == ' ' || text[i] == 't';
		char byte = text[i];

		if (form[i] == 'T' && is_blank)
			byte = 'T';
		if (form[i] == '0' ? byte < '0' || byte > '9' : byte != form[i])
			goto bad;
		out[i] = byte;
	}
	out[len] = '\0';
	return 0;
bad:
	ctl_error("--%s: \"%s\" is no time, as 2026-11-21 or 2026-11-21T22:46:05 (UTC)", option,
		text);
	return -EINVAL;
}

static bool track_event_is_known(const char *word)
{
	for (unsigned i = 0; i < TRACK_EVENT_COUNT; i++)
		if (strcasecmp(word, track_event_word((enum track_event)i)) == 0)
			return true;
	ctl_error("--event: there is no event \"%s\"", word);
	return false;
}

static int track_read_options(
	struct track *track, struct ctl *ctl, const struct ctl_command *command, char **argv)
{
	const struct ctl_option options[] = {
		{"sender", CTL_OPTION_TEXT, &track->sender, 0, 0, false},
		{"recipient", CTL_OPTION_TEXT, &track->recipient, 0, 0, false},
		{"message-id", CTL_OPTION_TEXT, &track->message_id, 0, 0, false},
		{"id", CTL_OPTION_TEXT, &track->id, 0, 0, false},
		{"event", CTL_OPTION_TEXT, &track->event, 0, 0, false},
		{"start", CTL_OPTION_TEXT, &track->start, 0, 0, false},
		{"end", CTL_OPTION_TEXT, &track->end, 0, 0, false},
		{"limit", CTL_OPTION_NUMBER, &track->limit, 1, LIMIT_MAX, false},
		{"folder", CTL_OPTION_TEXT, &track->folder, 0, 0, false}, {.name = NULL}};
	struct ctl_list operands;

	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0)
		return -EINVAL;
	if (track->start != NULL && track_time_read("start", track->start, track->start_text) < 0)
		return -EINVAL;
	if (track->end != NULL && track_time_read("end", track->end, track->end_text) < 0)
		return -EINVAL;
	if (track->event != NULL && !track_event_is_known(track->event))
		return -EINVAL;
	if (track->id != NULL && !message_id_parse(span_of(track->id), &track->id_number)) {
		ctl_error("--id: \"%s\" is no id of a message", track->id);
		return -EINVAL;
	}
	return 0;
}

/* Without their angle brackets, if they have any. */
static struct span track_bare(const char *text)
{
	struct span span = span_of(text);

	if (span.len >= 2 && span.data[0] == '<' && span.data[span.len - 1] == '>')
		return span_make(span.data + 1, span.len - 2);
	return span;
}

static bool track_list_has(const char *list, const char *address)
{
	struct span rest = span_of(list);

	while (rest.len > 0) {
		const size_t end = span_find(rest, ';');

		if (span_equal_nocase(span_trim(span_head(rest, end)), track_bare(address)))
			return true;
		rest = span_skip(rest, end + 1);
	}
	return false;
}

/* Is it one of the rows that were asked for? */
static bool track_wants(const struct track *track, const struct csv *csv)
{
	const char *time = csv_field(csv, COLUMN_TIME);
	uint64_t id;

	if (track->start != NULL && strcmp(time, track->start_text) < 0)
		return false;
	if (track->end != NULL && strcmp(time, track->end_text) >= 0)
		return false;
	if (track->event != NULL && strcasecmp(csv_field(csv, COLUMN_EVENT), track->event) != 0)
		return false;
	if (track->id != NULL && (!message_id_parse(span_of(csv_field(csv, COLUMN_ID)), &id) ||
					 id != track->id_number))
		return false;
	if (track->sender != NULL && !span_equal_nocase(track_bare(csv_field(csv, COLUMN_SENDER)),
					     track_bare(track->sender)))
		return false;
	if (track->message_id != NULL && !span_equal(track_bare(csv_field(csv, COLUMN_MESSAGE_ID)),
						 track_bare(track->message_id)))
		return false;
	return track->recipient == NULL ||
	       track_list_has(csv_field(csv, COLUMN_RECIPIENTS), track->recipient);
}

/* ---- the files */

static void track_create_found(struct track *track)
{
	struct track_found *found = &track->found[track->found_count % (uint64_t)track->limit];
	const char *start = csv_field(&track->csv, 0);
	const char *last = csv_field(&track->csv, COLUMN_COUNT - 1);
	const size_t bytes = (size_t)(last - start) + strlen(last) + 1;
	char *copy = malloc(bytes);

	if (copy == NULL) {
		track->out_of_memory = true;
		return;
	}
	memcpy(copy, start, bytes);
	free(found->bytes);
	found->bytes = copy;
	found->number = track->found_count++;
}

static void track_take(struct track *track, enum csv_status status)
{
	if (status == CSV_ROW && csv_field(&track->csv, 0)[0] == '#')
		return;
	/* The last row of a file that is being written may not be whole. */
	if (status == CSV_BAD || (status == CSV_ROW && track->csv.field_count != COLUMN_COUNT))
		track->bad_count++;
	else if (status == CSV_ROW && track_wants(track, &track->csv))
		track_create_found(track);
}

/* -errno, or 0; a file that is gone by now is none. */
static int track_read_file(struct track *track, int folder, const char *name)
{
	char buffer[65536];
	ssize_t len;
	int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	csv_init(&track->csv);
	while ((len = read(fd, buffer, sizeof(buffer))) > 0 && !track->out_of_memory) {
		struct span in = span_make(buffer, (size_t)len);

		while (in.len > 0)
			track_take(track, csv_next(&track->csv, &in));
	}
	if (len < 0)
		len = -errno;
	else
		track_take(track, csv_end(&track->csv));
	(void)close(fd);
	return len < 0 ? (int)len : 0;
}

/* MSGTRKyyyymmddhh-n.LOG: its hour as text, and n. */
static bool track_name_parse(const char *name, char hour[static 11], unsigned *out_number)
{
	int end = 0;

	if (sscanf(name, "MSGTRK%10[0-9]-%9u.LOG%n", hour, out_number, &end) != 2)
		return false;
	return end > 0 && name[end] == '\0' && strlen(hour) == 10;
}

static int track_select(const struct dirent *entry)
{
	char hour[11];
	unsigned number;

	return track_name_parse(entry->d_name, hour, &number);
}

static int track_compare_names(const struct dirent **a, const struct dirent **b)
{
	char hours[2][11] = {"", ""};
	unsigned numbers[2] = {0, 0};
	int order;

	(void)track_name_parse((*a)->d_name, hours[0], &numbers[0]);
	(void)track_name_parse((*b)->d_name, hours[1], &numbers[1]);
	order = strcmp(hours[0], hours[1]);
	if (order == 0)
		order = (numbers[0] > numbers[1]) - (numbers[0] < numbers[1]);
	return order;
}

/*
 * May rows that were asked for be in it? It has rows of its hour, and a few from right before,
 * which workers wrote late; none is later.
 */
static bool track_file_may_have(const struct track *track, const char *name)
{
	char hour[11], text[TIME_BYTES];
	unsigned number;

	if (!track_name_parse(name, hour, &number))
		return false;
	(void)snprintf(text, sizeof(text), "%.4s-%.2s-%.2sT%.2s:59:59.999", hour, hour + 4,
		hour + 6, hour + 8);
	return track->start == NULL || strcmp(text, track->start_text) >= 0;
}

static int track_read_folder(struct track *track)
{
	struct dirent **names = NULL;
	int count, folder, status = CTL_OK;

	folder = open(track->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	count = folder < 0 ? -1 : scandirat(folder, ".", &names, track_select, track_compare_names);
	if (count < 0) {
		ctl_error("%s: %s", track->folder, strerror(errno));
		status = CTL_USAGE;
	}
	for (int i = 0; i < count; i++) {
		int rc = 0;

		if (track_file_may_have(track, names[i]->d_name))
			rc = track_read_file(track, folder, names[i]->d_name);
		if (rc < 0) {
			ctl_error("%s/%s: %s", track->folder, names[i]->d_name, strerror(-rc));
			status = CTL_USAGE;
		}
		free(names[i]);
	}
	free(names);
	if (folder >= 0)
		(void)close(folder);
	return status;
}

/* ---- the answer */

/* Nearly in order already: workers write out one behind the other. */
static int track_compare_found(const void *a, const void *b)
{
	const struct track_found *one = a, *other = b;
	const int order = strcmp(one->bytes, other->bytes);

	if (order != 0)
		return order;
	return (one->number > other->number) - (one->number < other->number);
}

static void track_fields(const struct track_found *found, const char *fields[static COLUMN_COUNT])
{
	const char *at = found->bytes;

	for (unsigned i = 0; i < COLUMN_COUNT; i++) {
		fields[i] = at;
		at += strlen(at) + 1;
	}
}

static void track_print_json(const struct track *track, uint64_t count)
{
	const char *fields[COLUMN_COUNT];

	(void)putchar('[');
	for (uint64_t i = 0; i < count; i++) {
		track_fields(&track->found[i], fields);
		(void)fputs(i == 0 ? "\n  {" : ",\n  {", stdout);
		for (unsigned j = 0; j < COLUMN_COUNT; j++) {
			(void)printf("%s\"%s\": ", j == 0 ? "" : ", ", json_names[j]);
			ctl_print_json(fields[j]);
		}
		(void)putchar('}');
	}
	(void)fputs(count == 0 ? "]\n" : "\n]\n", stdout);
}

static int track_print(const struct ctl *ctl, const struct track *track, uint64_t count)
{
	const char *fields[COLUMN_COUNT], *cells[COUNT_OF(track_columns)];
	struct ctl_table table;

	if (ctl->json) {
		track_print_json(track, count);
		return CTL_OK;
	}
	ctl_table_init(&table, track_columns, COUNT_OF(track_columns));
	for (uint64_t i = 0; i < count; i++) {
		track_fields(&track->found[i], fields);
		for (unsigned j = 0; j < COUNT_OF(track_columns); j++)
			cells[j] = fields[track_shown[j]];
		ctl_table_create_row(&table, cells);
	}
	return ctl_table_finish(ctl, &table);
}

static int track_answer(const struct ctl *ctl, struct track *track)
{
	const uint64_t limit = (uint64_t)track->limit;
	const uint64_t count = track->found_count < limit ? track->found_count : limit;
	int status;

	if (track->out_of_memory) {
		ctl_error("out of memory");
		return CTL_FAILED;
	}
	qsort(track->found, (size_t)count, sizeof(*track->found), track_compare_found);
	status = track_print(ctl, track, count);
	if (track->found_count > limit)
		ctl_note("%llu earlier rows are not shown; see --limit",
			(unsigned long long)(track->found_count - limit));
	if (track->bad_count > 0)
		ctl_note("%llu lines are no rows of a tracking log",
			(unsigned long long)track->bad_count);
	return status;
}

/* Where the files are: --folder, or the configuration's. NULL after a message. */
static const char *track_folder(const struct track *track, const struct policy *policy)
{
	const char *folder = track->folder;

	if (folder == NULL && policy != NULL)
		folder = policy->queue.tracking_log_folder;
	if (folder == NULL && policy != NULL)
		ctl_error("tracking-log-folder is not set; see --folder");
	return folder;
}

static struct track *track_create(void)
{
	struct track *track = calloc(1, sizeof(*track));

	if (track != NULL)
		track->limit = LIMIT_DEFAULT;
	return track;
}

static bool track_create_room(struct track *track)
{
	track->found = calloc((size_t)track->limit, sizeof(*track->found));
	return track->found != NULL;
}

static int track_look(struct ctl *ctl, struct track *track)
{
	int status;

	if (!track_create_room(track)) {
		ctl_error("out of memory");
		return CTL_FAILED;
	}
	status = track_read_folder(track);
	if (status == CTL_OK)
		status = track_answer(ctl, track);
	for (int64_t i = 0; i < track->limit; i++)
		free(track->found[i].bytes);
	free(track->found);
	return status;
}

static int track_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct track *track = track_create();
	struct policy *policy = NULL;
	int status = CTL_USAGE;

	(void)argc;
	if (track == NULL) {
		ctl_error("out of memory");
		return CTL_FAILED;
	}
	if (track_read_options(track, ctl, command, argv) == 0) {
		if (track->folder == NULL)
			policy = ctl_policy_create(ctl);
		track->folder = track_folder(track, policy);
		if (track->folder != NULL)
			status = track_look(ctl, track);
		policy_destroy(&policy);
	}
	free(track);
	return status;
}

const struct ctl_command ctl_track_commands[] = {
	{"track",
		"[--sender ADDRESS] [--recipient ADDRESS] [--message-id ID] [--id HEX]\n"
		"[--event EVENT] [--start TIME] [--end TIME] [--limit N] [--folder FOLDER]",
		"what became of messages, by the message tracking log", track_run},
	{NULL, NULL, NULL, NULL},
};
