/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/spool.h"

#include "policy/policy.h"
#include "relay/mail/envelope.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* A relay holds the lock of its spool; nobody has made one where no relay ever was. */
static int job_lock(struct spool_job *job)
{
	char path[PATH_MAX];
	const int len = snprintf(path, sizeof(path), "%s/lock", job->folder);

	if (len < 0 || (size_t)len >= sizeof(path)) {
		ctl_error("%s: %s", job->folder, strerror(ENAMETOOLONG));
		return CTL_USAGE;
	}
	job->lock_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (job->lock_fd < 0 && errno == ENOENT)
		return CTL_OK;
	if (job->lock_fd < 0) {
		ctl_error("%s: %s", path, strerror(errno));
		return CTL_USAGE;
	}
	if (flock(job->lock_fd, LOCK_SH | LOCK_NB) == 0)
		return CTL_OK;
	if (errno == EWOULDBLOCK && job->is_live) {
		ctl_note("a relay is using %s: what is found at the end of a log may be its own "
			 "writing",
			job->folder);
		return CTL_OK;
	}
	if (errno == EWOULDBLOCK)
		ctl_error("a relay is using %s: stop it, or read all the same with --live",
			job->folder);
	else
		ctl_error("%s: %s", path, strerror(errno));
	return CTL_USAGE;
}

/* The folder that the configuration names. */
static int job_find_folder(struct spool_job *job)
{
	job->policy = ctl_policy_create(job->ctl);
	if (job->policy == NULL)
		return CTL_USAGE;
	job->folder = job->policy->queue.spool_folder;
	if (job->folder != NULL)
		return CTL_OK;
	ctl_error("%s has no spool-folder; name one with --spool", job->ctl->config);
	return CTL_USAGE;
}

int spool_job_open(const struct ctl *ctl, const char *folder, bool is_live, struct spool_job *out)
{
	struct spool_job job = {.ctl = ctl, .folder = folder, .is_live = is_live, .lock_fd = -1};
	int status = folder == NULL ? job_find_folder(&job) : CTL_OK;
	int count = 0;

	if (status == CTL_OK)
		count = spool_scan_logs(job.folder, job.logs);
	if (count < 0) {
		ctl_error("%s: %s", job.folder, strerror(-count));
		status = CTL_USAGE;
	}
	if (status == CTL_OK)
		status = job_lock(&job);
	if (status != CTL_OK) {
		spool_job_close(&job);
		return status;
	}
	job.log_count = (unsigned)count;
	*out = job;
	return CTL_OK;
}

void spool_job_close(struct spool_job *job)
{
	if (job->lock_fd >= 0)
		(void)close(job->lock_fd);
	job->lock_fd = -1;
	policy_destroy(&job->policy);
}

struct spool_scan *spool_job_create_scan(const struct spool_job *job, unsigned log,
	const struct spool_scan_events *events, void *owner)
{
	struct spool_scan *scan = NULL;
	const int rc = spool_scan_create(job->folder, log, events, owner, &scan);

	if (rc < 0)
		ctl_error("%s/%02u: %s", job->folder, log, strerror(-rc));
	return scan;
}

/* ---- spool check */

struct check_finding {
	enum spool_scan_kind kind;
	char *file;
	char *words;
	uint64_t segment, offset;
};

/* What is known of one log. */
struct check {
	struct check_finding *findings;
	unsigned finding_count;
	bool is_out_of_memory;
	uint8_t *record; /* a MESSAGE, while its body is read */
	uint64_t records[RECORD_SEAL + 1];
	struct spool_scan_facts files;
	struct spool_state_facts messages;
};

static void check_create_finding(void *owner, const struct spool_scan_finding *finding)
{
	struct check *check = owner;
	struct check_finding *more =
		reallocarray(check->findings, check->finding_count + 1, sizeof(*check->findings));
	struct check_finding copy = {finding->kind, strdup(finding->file), strdup(finding->words),
		finding->segment, finding->offset};

	if (more != NULL)
		check->findings = more;
	if (more == NULL || copy.file == NULL || copy.words == NULL) {
		free(copy.file);
		free(copy.words);
		check->is_out_of_memory = true;
		return;
	}
	check->findings[check->finding_count++] = copy;
}

static void check_fini(struct check *check)
{
	for (unsigned i = 0; i < check->finding_count; i++) {
		free(check->findings[i].file);
		free(check->findings[i].words);
	}
	free(check->findings);
	free(check->record);
}

static bool check_is_good(const struct check *check)
{
	for (unsigned i = 0; i < check->finding_count; i++) {
		if (check->findings[i].kind != SPOOL_SCAN_TORN)
			return false;
	}
	return true;
}

/* Can all of a message be read? */
static void check_message(
	struct check *check, struct spool_scan *scan, const struct spool_state_message *message)
{
	struct spool_scan_record record;
	struct record_message parts;
	struct record_extent extent = {0};
	struct span text;
	char id[MESSAGE_ID_TEXT_BYTES], words[160];
	uint64_t at = 0;
	int rc = spool_scan_at(scan, message->segment, message->offset, &record);

	if (rc == 0)
		memcpy(check->record, record.payload.data, record.payload.len);
	if (rc < 0 || !record_read_message(span_make(check->record, record.payload.len), &parts))
		return; /* It was read a moment ago: a relay is at work. */
	for (uint32_t i = 0; rc == 0 && record_read_extent(&parts, i, &extent); i++) {
		rc = spool_scan_body(scan, message->id, at, &extent, &text);
		at += extent.bytes;
	}
	if (rc == 0)
		return;
	message_id_print(message->id, id);
	(void)snprintf(words, sizeof(words),
		"message %s cannot be delivered: its body at segment %" PRIu64 ", %u: %s", id,
		extent.segment, extent.offset,
		rc == -EBADMSG  ? "is not what was written"
		: rc == -ENOENT ? "is not there"
				: strerror(-rc));
	check_create_finding(check, &(struct spool_scan_finding){SPOOL_SCAN_DAMAGED, record.file,
					    message->segment, message->offset, words});
}

static void check_create_records(
	struct check *check, struct spool_scan *scan, struct spool_state *state)
{
	struct spool_scan_record record;
	const struct spool_state_message *message;

	while (spool_scan_next(scan, &record)) {
		const int rc = spool_state_apply(state, &record);

		check->records[record.head.type]++;
		check->is_out_of_memory |= rc == -ENOMEM;
		if (rc == -EBADMSG)
			check_create_finding(check,
				&(struct spool_scan_finding){SPOOL_SCAN_DAMAGED, record.file,
					record.head.segment, record.offset,
					"what this record says is not well-formed, and counts for "
					"nothing"});
	}
	for (unsigned i = 0; (message = spool_state_at(state, i)) != NULL; i++) {
		if (!message->is_done)
			check_message(check, scan, message);
	}
	spool_state_facts(state, &check->messages);
	spool_scan_facts(scan, &check->files);
}

static int check_create(const struct spool_job *job, unsigned log, struct check *check)
{
	static const struct spool_scan_events events = {.on_finding = check_create_finding};
	struct spool_scan *scan = spool_job_create_scan(job, log, &events, check);
	struct spool_state *state = NULL;

	if (scan == NULL)
		return CTL_USAGE;
	check->record = malloc(RECORD_BYTES_MAX);
	if (check->record == NULL || spool_state_create(&state) < 0)
		check->is_out_of_memory = true;
	else
		check_create_records(check, scan, state);
	spool_state_destroy(&state);
	spool_scan_destroy(&scan);
	if (!check->is_out_of_memory)
		return CTL_OK;
	ctl_error("%s/%02u: %s", job->folder, log, strerror(ENOMEM));
	return CTL_USAGE;
}

static void check_print(const struct check *check, unsigned log)
{
	(void)printf("log %02u: %u segments, %u blank, %" PRIu64 " bytes\n", log,
		check->files.segments, check->files.blank,
		check->files.bytes + check->files.blank_bytes);
	(void)printf("  records:");
	for (enum record_type type = RECORD_SEGMENT; type <= RECORD_SEAL; type++)
		(void)printf(" %s %" PRIu64 "%s", record_type_name(type), check->records[type],
			type < RECORD_SEAL ? "," : "\n");
	(void)printf("  messages: %u to be delivered (%" PRIu64 " recipients open, %" PRIu64
		     " bytes), %u done\n",
		check->messages.messages, check->messages.open_rcpts, check->messages.body_bytes,
		check->messages.done);
	for (unsigned i = 0; i < check->finding_count; i++) {
		const struct check_finding *finding = &check->findings[i];

		(void)printf("  %s:%" PRIu64 ": %s: %s\n", finding->file, finding->offset,
			spool_scan_word(finding->kind), finding->words);
	}
}

static void check_print_json(const struct check *check, unsigned log)
{
	struct spool_line line;

	spool_line_begin(&line, true);
	spool_line_number(&line, "log", log);
	spool_line_number(&line, "segments", check->files.segments);
	spool_line_number(&line, "blank", check->files.blank);
	spool_line_number(&line, "bytes", check->files.bytes + check->files.blank_bytes);
	for (enum record_type type = RECORD_SEGMENT; type <= RECORD_SEAL; type++)
		spool_line_number(&line, record_type_name(type), check->records[type]);
	spool_line_number(&line, "messages", check->messages.messages);
	spool_line_number(&line, "recipients_open", check->messages.open_rcpts);
	spool_line_number(&line, "message_bytes", check->messages.body_bytes);
	spool_line_number(&line, "done", check->messages.done);
	spool_line_list(&line, "findings");
	for (unsigned i = 0; i < check->finding_count; i++) {
		const struct check_finding *finding = &check->findings[i];

		spool_line_item(&line, i == 0);
		spool_line_word(&line, "kind", spool_scan_word(finding->kind));
		spool_line_word(&line, "file", finding->file);
		spool_line_number(&line, "segment", finding->segment);
		spool_line_number(&line, "offset", finding->offset);
		spool_line_word(&line, "words", finding->words);
	}
	spool_line_list_end(&line, check->finding_count == 0);
	spool_line_end(&line);
}

static int check_job(const struct spool_job *job)
{
	int status = CTL_OK;

	if (job->ctl->json)
		(void)puts("[");
	for (unsigned i = 0; i < job->log_count && status != CTL_USAGE; i++) {
		struct check check = {0};
		const int rc = check_create(job, job->logs[i], &check);

		if (rc == CTL_OK && job->ctl->json)
			check_print_json(&check, job->logs[i]);
		else if (rc == CTL_OK)
			check_print(&check, job->logs[i]);
		if (job->ctl->json)
			(void)puts(i + 1 < job->log_count ? "," : "");
		if (rc != CTL_OK)
			status = rc;
		else if (!check_is_good(&check))
			status = CTL_FAILED;
		check_fini(&check);
	}
	if (job->ctl->json)
		(void)puts("]");
	else if (status != CTL_USAGE)
		(void)puts(status == CTL_OK ? "good" : "damage was found");
	return status;
}

static int spool_check_run(
	struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const char *folder = NULL;
	bool is_live = false;
	const struct ctl_option options[] = {{"spool", CTL_OPTION_TEXT, &folder, 0, 0, false},
		{"live", CTL_OPTION_FLAG, &is_live, 0, 0, false}, {.name = NULL}};
	struct ctl_list operands = {.count = 0};
	struct spool_job job;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0)
		return CTL_USAGE;
	status = spool_job_open(ctl, folder, is_live, &job);
	if (status != CTL_OK)
		return status;
	status = check_job(&job);
	spool_job_close(&job);
	return status;
}

const struct ctl_command ctl_spool_commands[] = {
	{"spool check", "[--spool FOLDER] [--live]",
		"read all of the spool, count what is in it, and say what is damaged",
		spool_check_run},
	{"spool dump", "[--spool FOLDER] [--live] [--log N] [--id ID]",
		"print the records of the spool, a line each", spool_dump_run},
	{"spool export", "[ID] [--all] --out FOLDER\n[--no-envelope] [--spool FOLDER] [--live]",
		"write messages that are to be delivered as files; --out -: to standard output",
		spool_export_run},
	{.words = NULL},
};
