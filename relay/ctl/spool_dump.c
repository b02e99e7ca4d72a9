/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/spool.h"

#include "relay/mail/envelope.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *body_word(enum body_type body)
{
	switch (body) {
	case BODY_UNSAID:
		return "";
	case BODY_7BIT:
		return "7BIT";
	case BODY_8BITMIME:
		return "8BITMIME";
	case BODY_BINARYMIME:
		return "BINARYMIME";
	}
	return "?";
}

static void dump_flags(struct spool_line *line, unsigned flags)
{
	static const struct {
		unsigned flag;
		const char *word;
	} words[] = {
		{ENVELOPE_SMTPUTF8, "smtputf8"},
		{ENVELOPE_EIGHT_BIT, "eight-bit"},
		{ENVELOPE_UTF8_HEADER, "utf8-header"},
		{ENVELOPE_SECURED, "secured"},
		{ENVELOPE_NOTICE, "notice"},
		{ENVELOPE_SUSPENDED, "suspended"},
		{ENVELOPE_DELAY_TOLD, "delay-told"},
		{ENVELOPE_INTERNAL, "internal"},
		{ENVELOPE_RELAXED, "relaxed"},
	};
	char text[160] = "";

	for (size_t i = 0; i < COUNT_OF(words); i++) {
		const size_t len = strlen(text);

		if ((flags & words[i].flag) != 0)
			(void)snprintf(text + len, sizeof(text) - len, "%s%s", len > 0 ? "," : "",
				words[i].word);
	}
	spool_line_word(line, "flags", text);
}

static void dump_rcpts(struct spool_line *line, const struct envelope *envelope)
{
	struct envelope_rcpt rcpt;
	size_t at = 0;

	spool_line_list(line, "recipients");
	for (uint32_t i = 0; envelope_next(envelope, &at, &rcpt); i++) {
		spool_line_item(line, i == 0);
		spool_line_text(line, "rcpt", rcpt.path);
		spool_line_word(line, "state", rcpt_state_word(rcpt.state));
		if (rcpt.notify.len > 0)
			spool_line_text(line, "notify", rcpt.notify);
		if (rcpt.orcpt.len > 0)
			spool_line_text(line, "orcpt", rcpt.orcpt);
	}
	spool_line_list_end(line, envelope->rcpt_count == 0);
}

static void dump_envelope(struct spool_line *line, const struct envelope *envelope)
{
	const struct {
		const char *key;
		struct span text;
	} texts[] = {
		{"ret", envelope->ret},
		{"envid", envelope->envid},
		{"connector", envelope->connector},
		{"send_connector", envelope->send_connector},
		{"session", envelope->session},
		{"client", envelope->client},
		{"helo", envelope->helo},
		{"domain", envelope->domain},
		{"message_id", envelope->message_id},
		{"subject", envelope->subject},
		{"server", envelope->server},
		{"tls", envelope->tls},
		{"origin", envelope->origin},
	};

	spool_line_text(line, "sender", envelope->sender);
	spool_line_time(line, "arrived", envelope->arrived_ms);
	spool_line_time(line, "expires", envelope->expires_ms);
	spool_line_number(line, "body_bytes", envelope->body_bytes);
	spool_line_number(line, "header_bytes", envelope->header_bytes);
	spool_line_word(line, "body", body_word(envelope->body));
	spool_line_number(line, "attempts", envelope->attempts);
	dump_flags(line, envelope->flags);
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		if (texts[i].text.len > 0)
			spool_line_text(line, texts[i].key, texts[i].text);
	}
	dump_rcpts(line, envelope);
}

static bool dump_message(struct spool_line *line, struct span payload)
{
	struct record_message message;
	struct record_extent extent;
	struct envelope envelope;

	if (!record_read_message(payload, &message) || !envelope_read(message.envelope, &envelope))
		return false;
	dump_envelope(line, &envelope);
	spool_line_list(line, "extents");
	for (uint32_t i = 0; record_read_extent(&message, i, &extent); i++) {
		char text[64];

		(void)snprintf(text, sizeof(text), "%" PRIu64 ":%u+%u", extent.segment,
			extent.offset, extent.bytes);
		spool_line_item(line, i == 0);
		spool_line_word(line, "extent", text);
	}
	spool_line_list_end(line, message.extent_count == 0);
	spool_line_number(line, "text_bytes", message.text.len);
	return true;
}

static bool dump_change(struct spool_line *line, struct span payload)
{
	struct envelope_change change;
	struct envelope_change_rcpt rcpt;
	size_t at = 0;

	if (!envelope_read_change(payload, &change))
		return false;
	spool_line_number(line, "attempts", change.attempts);
	dump_flags(line, change.flags);
	spool_line_time(line, "next", change.next_ms);
	if (change.where.len > 0)
		spool_line_text(line, "where", change.where);
	if (change.text.len > 0)
		spool_line_text(line, "why", change.text);
	spool_line_list(line, "changes");
	for (uint32_t i = 0; envelope_change_next(&change, &at, &rcpt); i++) {
		spool_line_item(line, i == 0);
		spool_line_number(line, "index", rcpt.index);
		spool_line_word(line, "state", rcpt_state_word(rcpt.state));
		spool_line_number(line, "code", rcpt.code);
		spool_line_text(line, "text", rcpt.text);
	}
	spool_line_list_end(line, change.count == 0);
	return true;
}

static bool dump_segment(struct spool_line *line, struct span payload)
{
	struct record_segment segment;

	if (!record_read_segment(payload, &segment))
		return false;
	spool_line_number(line, "format", segment.format);
	spool_line_number(line, "segment_bytes", segment.segment_bytes);
	spool_line_time(line, "created", segment.created_ms);
	return true;
}

/* False: it is not well-formed. */
static bool dump_payload(struct spool_line *line, const struct spool_scan_record *record)
{
	enum record_done why;
	struct span text;
	uint64_t at;

	switch (record->head.type) {
	case RECORD_SEGMENT:
		return dump_segment(line, record->payload);
	case RECORD_BODY:
		if (!record_read_body(record->payload, &at, &text))
			return false;
		spool_line_number(line, "at", at);
		spool_line_number(line, "text_bytes", text.len);
		return true;
	case RECORD_MESSAGE:
		return dump_message(line, record->payload);
	case RECORD_RECIPIENTS:
		return dump_change(line, record->payload);
	case RECORD_DONE:
		if (!record_read_done(record->payload, &why))
			return false;
		spool_line_word(line, "why", record_done_word(why));
		return true;
	case RECORD_NOTE:
		spool_line_text(line, "note", span_head(record->payload, UINT16_MAX));
		return true;
	case RECORD_SEAL:
		return record->payload.len == 0;
	}
	return false;
}

static void dump_record(const struct spool_job *job, unsigned log,
	const struct spool_scan_record *record, bool is_first)
{
	struct spool_line line;

	if (job->ctl->json && !is_first)
		(void)puts(",");
	spool_line_begin(&line, job->ctl->json);
	spool_line_number(&line, "log", log);
	spool_line_number(&line, "segment", record->head.segment);
	spool_line_number(&line, "offset", record->offset);
	spool_line_number(&line, "sequence", record->head.sequence);
	spool_line_word(&line, "type", record_type_name(record->head.type));
	spool_line_id(&line, "id", record->head.id);
	spool_line_time(&line, "time", record->head.time_ms);
	if (!dump_payload(&line, record))
		spool_line_word(&line, "payload", "not well-formed");
	spool_line_end(&line);
}

static void dump_finding(void *owner, const struct spool_scan_finding *finding)
{
	(void)owner;
	ctl_note("%s:%" PRIu64 ": %s: %s", finding->file, finding->offset,
		spool_scan_word(finding->kind), finding->words);
}

/* What to print; -1, NULL: all. */
struct dump_choice {
	int64_t log;
	const uint64_t *id;
};

static int dump_job(const struct spool_job *job, const struct dump_choice *choice)
{
	static const struct spool_scan_events events = {.on_finding = dump_finding};
	bool is_first = true;
	bool is_there = false;

	if (job->ctl->json)
		(void)puts("[");
	for (unsigned i = 0; i < job->log_count; i++) {
		struct spool_scan *scan;
		struct spool_scan_record record;

		if (choice->log >= 0 && job->logs[i] != (uint64_t)choice->log)
			continue;
		is_there = true;
		scan = spool_job_create_scan(job, job->logs[i], &events, NULL);
		if (scan == NULL)
			return CTL_USAGE;
		while (spool_scan_next(scan, &record)) {
			if (choice->id != NULL && record.head.id != *choice->id)
				continue;
			dump_record(job, job->logs[i], &record, is_first);
			is_first = false;
		}
		spool_scan_destroy(&scan);
	}
	if (job->ctl->json)
		(void)puts(is_first ? "]" : "\n]");
	if (is_there || choice->log < 0)
		return CTL_OK;
	ctl_error("%s has no log %02u", job->folder, (unsigned)choice->log);
	return CTL_USAGE;
}

int spool_dump_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const char *folder = NULL, *id_text = NULL;
	bool is_live = false;
	struct dump_choice choice = {.log = -1};
	const struct ctl_option options[] = {{"spool", CTL_OPTION_TEXT, &folder, 0, 0, false},
		{"live", CTL_OPTION_FLAG, &is_live, 0, 0, false},
		{"log", CTL_OPTION_NUMBER, &choice.log, 0, SPOOL_LOGS_MAX - 1, false},
		{"id", CTL_OPTION_TEXT, &id_text, 0, 0, false}, {.name = NULL}};
	struct ctl_list operands = {.count = 0};
	struct spool_job job;
	uint64_t id = 0;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0)
		return CTL_USAGE;
	if (id_text != NULL && !message_id_parse(span_of(id_text), &id)) {
		ctl_error("--id %s: expected 16 hex digits", id_text);
		return CTL_USAGE;
	}
	choice.id = id_text != NULL ? &id : NULL;
	status = spool_job_open(ctl, folder, is_live, &job);
	if (status != CTL_OK)
		return status;
	status = dump_job(&job, &choice);
	spool_job_close(&job);
	return status;
}
