/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * queue.h: "posternctl queue ...", "msg ..." and "pressure show": what waits in the relay, as
 * Exchange's Get-Queue and Get-Message show it (relay/control.h).
 *
 *   queue.c          queues, and how full the spool is
 *   msg.c            messages: list, show, export
 *   msg_change.c     messages: suspend, resume, remove
 *   queue_ask.c      what these share: asking, words for numbers and times
 *   control_queue.c  what the relay says of them, out of JSON
 *   filter.c         --filter
 */

#include "relay/ctl/control.h"
#include "relay/ctl/filter.h"

extern const struct ctl_command ctl_queue_commands[];
extern const struct ctl_command ctl_msg_commands[];
extern const struct ctl_command ctl_pressure_commands[];

struct json_t;

#define QUEUE_TEXT_BYTES 384
#define QUEUE_LONG_BYTES 1100
#define QUEUE_ID_BYTES 24

/* A queue. Times are ms since 1970, 0: none. */
struct queue_line {
	struct json_t *json; /* as the relay has it; of the lines */
	char identity[QUEUE_TEXT_BYTES];
	char delivery_type[40];
	char status[24];
	char next_hop_domain[QUEUE_TEXT_BYTES];
	char connector[QUEUE_TEXT_BYTES];
	char tls_domain[QUEUE_TEXT_BYTES];
	char last_error[QUEUE_LONG_BYTES];
	uint64_t message_count, bytes, active, retry_count, in_minute, out_minute;
	int64_t last_retry_ms, next_retry_ms, oldest_ms;
};

struct queue_lines {
	struct queue_line *rows;
	unsigned count;
	struct json_t *json;
};

/* A message in a queue. */
struct msg_line {
	struct json_t *json;
	char id[QUEUE_ID_BYTES];
	char queue[QUEUE_TEXT_BYTES];
	char status[24];
	char from_address[QUEUE_LONG_BYTES];
	char subject[QUEUE_LONG_BYTES];
	char last_error[QUEUE_LONG_BYTES];
	bool gone;
	uint64_t bytes, retry_count;
	int64_t arrived_ms, expires_ms;
};

/* The answers to several questions may be in one. */
struct msg_lines {
	struct msg_line *rows;
	unsigned count;
	struct json_t *json; /* an array of what rows point into */
	bool has_more;       /* as the last answer says */
};

struct msg_rcpt {
	char address[QUEUE_LONG_BYTES];
	char state[24];
};

/* One message, wherever it is. */
struct msg_whole {
	struct msg_line line; /* without queue, status, last_error */
	struct msg_line *entries;
	unsigned entry_count;
	struct msg_rcpt *rcpts; /* none if it is gone, as is what follows */
	unsigned rcpt_count;
	uint64_t recipient_count, recipients_open;
	char message_id[QUEUE_LONG_BYTES];
	char connector[QUEUE_TEXT_BYTES];
	char client[QUEUE_TEXT_BYTES];
	char helo[QUEUE_TEXT_BYTES];
	char domain[QUEUE_TEXT_BYTES];
	char tls[QUEUE_TEXT_BYTES];
	char session[QUEUE_TEXT_BYTES];
	char origin[QUEUE_ID_BYTES];
};

struct spool_status {
	char folder[QUEUE_TEXT_BYTES];
	char level[24];
	uint64_t bytes_used, bytes_max, segments_used, segments_free, segments_failed;
	uint64_t messages, messages_max, queues, active, workers;
	uint64_t medium, high, high_end, medium_end; /* percent */
};

/* ---- control_queue.c: out of what the relay has answered. -EINVAL: it is not that; -ENOMEM */

NODISCARD int queue_lines_create(const char *text, size_t len, struct queue_lines *out);
/* The one of queue-show. */
NODISCARD int queue_lines_create_one(const char *text, size_t len, struct queue_lines *out);
void queue_lines_destroy(struct queue_lines *lines);
/* Puts what an answer has behind what is there; lines are zero at first. */
NODISCARD int msg_lines_create(const char *text, size_t len, struct msg_lines *lines);
void msg_lines_destroy(struct msg_lines *lines);
NODISCARD int msg_whole_create(const char *text, size_t len, struct msg_whole *out);
void msg_whole_destroy(struct msg_whole *whole);
NODISCARD int spool_status_read(const char *text, size_t len, struct spool_status *out);

/* All of the rows that are still there, as an array. */
void queue_lines_print_json(const struct queue_lines *lines);
void msg_lines_print_json(const struct msg_lines *lines);

/* ---- queue_ask.c */

struct queue_ask_place {
	struct control_place place;
	struct control_reply reply; /* of the last question that was answered */
};

/* True: it is done, and the reply is there until the next question. False after a message. */
bool queue_ask_relay(struct queue_ask_place *ask, const struct control_request *request);
/* The place was read; timeout_s as in control_place_read(). -errno after a message. */
NODISCARD int queue_ask_open(const struct ctl *ctl, int64_t timeout_s, struct queue_ask_place *out);
void queue_ask_close(struct queue_ask_place *ask);

/* How long an answer may take: a page of envelopes from a cold disk takes a while. */
#define LIST_PATIENCE_S 60

/* A question about one thing: what is shown, or exported. */
struct queue_question {
	const char *command; /* of relay/control.h */
	const char *key;  /* that names the thing in it; the operand is its value; NULL: neither */
	const char **out; /* where --out goes; NULL: there is no such option */
	/* Shows the answer; a status. */
	int (*print)(const struct ctl *ctl, const struct queue_question *question,
		const struct control_reply *reply);
};

/* Reads --timeout and what the question has, and asks it. A status. */
int queue_ask_question(struct ctl *ctl, const struct ctl_command *command, char **argv,
	const struct queue_question *question);

/* The object of an answer as JSON, indented. A status. */
int queue_print_json(const struct control_reply *reply);

/* The answer is not what it should be: rc is -EINVAL or -ENOMEM. CTL_FAILED. */
int queue_ask_complain(int rc);

/* A filter of the option --filter. -EINVAL after a message. */
NODISCARD int queue_filter_read(
	const char *text, const struct filter_property *properties, struct filter *out);

#define QUEUE_CELL_BYTES 40
/* "2026-11-21T22:46:05Z"; "" for 0. Return out. */
const char *queue_print_time(int64_t ms, char out[static QUEUE_CELL_BYTES]);
const char *queue_print_size(uint64_t bytes, char out[static QUEUE_CELL_BYTES]);
const char *queue_print_number(uint64_t number, char out[static QUEUE_CELL_BYTES]);
/* Messages a second, of those of a minute; may be negative. */
const char *queue_print_rate(int64_t of_minute, char out[static QUEUE_CELL_BYTES]);

/* A line of ctl_table_finish_list(). */
void queue_put(struct ctl_table *table, const char *name, const char *value);

/* ---- msg.c, for msg_change.c */

/* Which messages. */
struct msg_query {
	const char *queue, *sender, *recipient; /* NULL: any */
	const struct filter *filter;            /* NULL: any */
	uint64_t skip, limit;
	bool has_envelopes; /* FromAddress and Subject are wanted */
};

extern const struct filter_property msg_properties[];

/* Asks, page by page. False after a message. */
bool msg_query_create_lines(
	struct queue_ask_place *ask, const struct msg_query *query, struct msg_lines *out);

/* Do the words of a filter need what only the spool has? */
bool msg_filter_needs_envelopes(const struct filter *filter);

int msg_lines_print(const struct ctl *ctl, const struct msg_lines *lines);

/* msg_change.c */
int msg_suspend_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int msg_resume_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int msg_remove_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
