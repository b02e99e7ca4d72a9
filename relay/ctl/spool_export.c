/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/spool.h"

#include "relay/mail/envelope.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is to be written, and where to. */
struct export
{
	const struct spool_job *job;
	const char *out; /* "-": standard output */
	int out_fd;      /* the folder; -1 */
	bool is_all;
	uint64_t id;
	bool has_no_envelope;
	uint8_t *record; /* the MESSAGE, while its body is read */
	unsigned count;
	bool has_failed;
};

static void export_span(FILE *file, struct span text)
{
	(void)fwrite(text.data, 1, text.len, file);
}

static void export_param(FILE *file, const char *name, struct span value)
{
	if (value.len == 0)
		return;
	(void)fprintf(file, " %s=", name);
	export_span(file, value);
}

/* As Exchange's Replay directory has it: what MAIL and RCPT said, for those who have not got it. */
static void export_envelope(
	FILE *file, const struct envelope *envelope, const struct spool_state_message *message)
{
	static const char *const bodies[] = {
		[BODY_UNSAID] = "",
		[BODY_7BIT] = "7BIT",
		[BODY_8BITMIME] = "8BITMIME",
		[BODY_BINARYMIME] = "BINARYMIME",
	};
	struct envelope_rcpt rcpt;
	size_t at = 0;

	(void)fputs("X-Sender: ", file);
	export_span(file, envelope->sender);
	export_param(file, "BODY", span_of(bodies[envelope->body]));
	export_param(file, "RET", envelope->ret);
	export_param(file, "ENVID", envelope->envid);
	(void)fputs("\r\n", file);
	for (uint32_t i = 0; envelope_next(envelope, &at, &rcpt); i++) {
		if (message->rcpt_states[i] != RCPT_OPEN)
			continue;
		(void)fputs("X-Receiver: ", file);
		export_span(file, rcpt.path);
		export_param(file, "NOTIFY", rcpt.notify);
		export_param(file, "ORcpt", rcpt.orcpt);
		(void)fputs("\r\n", file);
	}
}

/* 0, or -errno. */
static int export_body(
	FILE *file, struct spool_scan *scan, uint64_t id, const struct record_message *parts)
{
	struct record_extent extent;
	struct span text;
	uint64_t at = 0;
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && record_read_extent(parts, i, &extent); i++) {
		rc = spool_scan_body(scan, id, at, &extent, &text);
		if (rc == 0)
			export_span(file, text);
		at += extent.bytes;
	}
	if (rc == 0)
		export_span(file, parts->text);
	return rc;
}

/* 0, or -errno: nothing good was written. */
static int export_write(struct export *export, struct spool_scan *scan,
	const struct spool_state_message *message, FILE *file)
{
	struct spool_scan_record record;
	struct record_message parts;
	struct envelope envelope;
	int rc = spool_scan_at(scan, message->segment, message->offset, &record);

	if (rc < 0)
		return rc;
	memcpy(export->record, record.payload.data, record.payload.len);
	if (!record_read_message(span_make(export->record, record.payload.len), &parts) ||
		!envelope_read(parts.envelope, &envelope) ||
		envelope.rcpt_count != message->rcpt_count)
		return -EBADMSG;
	if (!export->has_no_envelope)
		export_envelope(file, &envelope, message);
	rc = export_body(file, scan, message->id, &parts);
	if (rc == 0 && (fflush(file) == EOF || ferror(file)))
		rc = errno != 0 ? -errno : -EIO;
	return rc;
}

/* A file of its own, that was not there before; none at all if it cannot be whole. */
static int export_to_file(struct export *export, struct spool_scan *scan,
	const struct spool_state_message *message, const char *name)
{
	const int fd = openat(export->out_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
	int rc = file == NULL ? -errno : 0;

	if (fd < 0)
		return rc;
	if (file == NULL)
		(void)close(fd);
	if (rc == 0) {
		rc = export_write(export, scan, message, file);
		if (rc == 0 && fsync(fd) < 0)
			rc = -errno;
		if (fclose(file) == EOF && rc == 0)
			rc = -errno;
	}
	if (rc < 0)
		(void)unlinkat(export->out_fd, name, 0);
	return rc;
}

static void export_message(
	struct export *export, struct spool_scan *scan, const struct spool_state_message *message)
{
	char id[MESSAGE_ID_TEXT_BYTES], name[MESSAGE_ID_TEXT_BYTES + 4];
	int rc;

	message_id_print(message->id, id);
	(void)snprintf(name, sizeof(name), "%s.eml", id);
	if (message->open_count == 0)
		ctl_note("%s: no recipient is open", id);
	if (export->out_fd < 0)
		rc = export_write(export, scan, message, stdout);
	else
		rc = export_to_file(export, scan, message, name);
	if (rc == 0) {
		export->count++;
		return;
	}
	export->has_failed = true;
	ctl_error("%s: %s", id,
		rc == -EBADMSG  ? "a part of it is not what was written"
		: rc == -ENOENT ? "a part of it is not there"
				: strerror(-rc));
}

/* Those of one log. A CTL_ status. */
static int export_log_create(struct export *export, unsigned log)
{
	struct spool_scan *scan = spool_job_create_scan(export->job, log, NULL, NULL);
	struct spool_state *state = NULL;
	struct spool_scan_record record;
	const struct spool_state_message *message;
	int rc;

	if (scan == NULL)
		return CTL_USAGE;
	rc = spool_state_create(&state);
	while (rc != -ENOMEM && spool_scan_next(scan, &record))
		rc = spool_state_apply(state, &record);
	for (unsigned i = 0; rc != -ENOMEM && (message = spool_state_at(state, i)) != NULL; i++) {
		if (!message->is_done && (export->is_all || message->id == export->id))
			export_message(export, scan, message);
	}
	spool_state_destroy(&state);
	spool_scan_destroy(&scan);
	if (rc != -ENOMEM)
		return CTL_OK;
	ctl_error("%s", strerror(ENOMEM));
	return CTL_USAGE;
}

static int export_job_create(struct export *export)
{
	int status = CTL_OK;

	if (strcmp(export->out, "-") != 0) {
		export->out_fd = open(export->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (export->out_fd < 0) {
			ctl_error("%s: %s", export->out, strerror(errno));
			return CTL_USAGE;
		}
	}
	export->record = malloc(RECORD_BYTES_MAX);
	if (export->record == NULL) {
		ctl_error("%s", strerror(ENOMEM));
		status = CTL_USAGE;
	}
	for (unsigned i = 0; status == CTL_OK && i < export->job->log_count; i++)
		status = export_log_create(export, export->job->logs[i]);
	free(export->record);
	if (export->out_fd >= 0)
		(void)close(export->out_fd);
	if (status != CTL_OK)
		return status;
	if (!export->is_all && export->count == 0 && !export->has_failed) {
		ctl_error("no message of this id is to be delivered");
		return CTL_FAILED;
	}
	if (export->is_all)
		ctl_note("%u messages were written to %s", export->count, export->out);
	return export->has_failed ? CTL_FAILED : CTL_OK;
}

int spool_export_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const char *folder = NULL;
	bool is_live = false;
	struct export export = {.out_fd = -1};
	const struct ctl_option options[] = {{"spool", CTL_OPTION_TEXT, &folder, 0, 0, false},
		{"live", CTL_OPTION_FLAG, &is_live, 0, 0, false},
		{"all", CTL_OPTION_FLAG, &export.is_all, 0, 0, false},
		{"no-envelope", CTL_OPTION_FLAG, &export.has_no_envelope, 0, 0, false},
		{"out", CTL_OPTION_TEXT, &export.out, 0, 0, true}, {.name = NULL}};
	struct ctl_list operands = {.count = 0};
	struct spool_job job;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 1) < 0)
		return CTL_USAGE;
	if (export.is_all ? operands.count > 0 || strcmp(export.out, "-") == 0
			  : operands.count == 0) {
		ctl_error("%s: expected an ID, or --all and a folder", command->words);
		return CTL_USAGE;
	}
	if (!export.is_all && !message_id_parse(span_of(operands.texts[0]), &export.id)) {
		ctl_error("%s: expected 16 hex digits", operands.texts[0]);
		return CTL_USAGE;
	}
	status = spool_job_open(ctl, folder, is_live, &job);
	if (status != CTL_OK)
		return status;
	export.job = &job;
	status = export_job_create(&export);
	spool_job_close(&job);
	return status;
}
