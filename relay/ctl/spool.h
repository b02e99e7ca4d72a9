/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * spool.h: what the commands about the spool share. They read its files, and ask no relay.
 *
 *   spool.c         the folder and its lock; spool check
 *   spool_dump.c    spool dump
 *   spool_export.c  spool export
 *   spool_print.c   "key=value" lines, or JSON
 */

#include "relay/ctl/ctl.h"
#include "relay/mail/spool_state.h"

/* spool check, dump, export. */
extern const struct ctl_command ctl_spool_commands[];

int spool_dump_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int spool_export_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);

/* A spool that is open for reading. */
struct spool_job {
	const struct ctl *ctl;
	const char *folder;
	bool is_live;          /* --live: a relay may have it */
	struct policy *policy; /* that named it, or NULL */
	int lock_fd;
	unsigned logs[SPOOL_LOGS_MAX];
	unsigned log_count;
};

/* folder: --spool, NULL: as the configuration says. A CTL_ status; not CTL_OK: told, and closed. */
int spool_job_open(const struct ctl *ctl, const char *folder, bool is_live, struct spool_job *out);
void spool_job_close(struct spool_job *job);

/* Opens a log of it. NULL: it was told why not. */
struct spool_scan *spool_job_create_scan(const struct spool_job *job, unsigned log,
	const struct spool_scan_events *events, void *owner);

/* "2026-11-29T16:00:00.123Z"; 0: "-". */
#define SPOOL_TIME_BYTES 40
const char *spool_time_print(int64_t time_ms, char out[SPOOL_TIME_BYTES]);

/* ---- a line of "key=value" pairs, or a JSON object */

struct spool_line {
	bool is_json;
	bool is_inner; /* something stands in front of the next one */
};

/* Objects are members of an array, begun and ended by the caller. */
void spool_line_begin(struct spool_line *line, bool is_json);
void spool_line_end(struct spool_line *line);
void spool_line_text(struct spool_line *line, const char *key, struct span text);
void spool_line_word(struct spool_line *line, const char *key, const char *word);
void spool_line_number(struct spool_line *line, const char *key, uint64_t number);
void spool_line_id(struct spool_line *line, const char *key, uint64_t id);
void spool_line_time(struct spool_line *line, const char *key, int64_t time_ms);

/* In JSON an array of objects under that key; else the same keys again and again. */
void spool_line_list(struct spool_line *line, const char *key);
void spool_line_item(struct spool_line *line, bool is_first);
void spool_line_list_end(struct spool_line *line, bool is_empty);
