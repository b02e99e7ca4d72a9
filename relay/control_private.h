/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * control_private.h: what the files of the control socket share.
 *
 *   control.c          the socket, the thread, bytes in and out
 *   control_request.c  what is asked for; the door
 *   control_answer.c   what is told of the door
 *   control_queue.c    queues: asked of each worker, and added up
 *   control_message.c  messages in them; control_message_change.c: what is done to them
 *   control_letter.c   a message, as the spool has it
 */

#include "relay/control.h"
#include "relay/mail/envelope.h"
#include "relay/mail/record.h"
#include <sys/socket.h>

/* A request's line. */
#define CONTROL_LINE_BYTES_MAX 65536

/* A request must be there, and an answer be taken on, within this; tests may have less. */
extern _Atomic unsigned control_patience_ms;

struct json_t;

/* A connection: one request, one answer.
 *
 *   LINE --line is there--> BYTES --all are there--> ANSWER --sent--> closed
 */
enum asker_state {
	ASKER_LINE,
	ASKER_BYTES,
	ASKER_ANSWER,
};

struct asker {
	int fd; /* -1: free */
	enum asker_state state;
	uint64_t deadline_ms;
	struct ucred peer;
	char *in; /* the line, later the bytes behind it */
	size_t in_len, in_size;
	struct json_t *request; /* the line */
	size_t bytes;           /* that are to follow it */
	char *out;
	size_t out_len, out_at;
};

/*
 * Reads a line (without its end) into client->request and client->bytes. False: there is an
 * answer, which says what is wrong.
 */
bool control_parse(struct asker *client, size_t line_len);

/* What requests are about. */
struct control_desk {
	struct doorman *doorman;
	struct control_hooks hooks;
	/* As of the start, as the spool itself; only numbers and spool_folder, which is ours (NULL:
	 * there is no queue). */
	struct queue_policy queue;
	char *spool_folder;
};

/* Carries the request out; the answer is there after it. */
void control_run(const struct control_desk *desk, struct asker *client);

/* The answer "ok": false. Of several lines in message the first are kept. */
void control_refuse(struct asker *client, const char *error, const char *message);

/* The answer's line, and what comes behind it (NULL: nothing); takes the object. */
void control_answer_create(
	struct asker *client, struct json_t *line, const char *bytes, size_t len);

/* The same, where what is told may be long: behind the line; takes the object. */
void control_answer_create_object(struct asker *client, struct json_t *object);

/* ---- a request that is carried out */

struct order {
	const struct control_desk *desk;
	struct asker *client;
	const struct json_t *request;
};

struct control_order {
	const char *command; /* NULL ends a table of them */
	bool has_bytes;
	void (*run)(const struct order *order);
};

extern const struct control_order control_door_orders[];
extern const struct control_order control_queue_orders[];
extern const struct control_order control_message_orders[];

/* Of an answer that says no. */
#define CONTROL_MESSAGE_BYTES 2000
#define CONTROL_WHO_BYTES 128

/* Are the keys, beside "command", of these, and of their form? False: there is an answer. */
bool order_check(const struct order *order, const char *const *keys);
/* After order_check(). NULL: it was not said. */
const char *order_word(const struct order *order, const char *key);
uint64_t order_number(const struct order *order, const char *key, uint64_t fallback);
bool order_flag(const struct order *order, const char *key);
/* "uid=0 pid=4711 user=root" */
void order_who(const struct asker *client, char out[static CONTROL_WHO_BYTES]);

/* ---- control_queue.c */

/* Is there a queue to ask? False: there is an answer. */
bool order_has_queue(const struct order *order);

/* Runs it on a worker. False: there is an answer. */
bool order_ask(const struct order *order, struct queue_ask *ask, unsigned worker);

/* The filter that the keys make; status is for the verb's caller. False: there is an answer. */
bool order_read_filter(const struct order *order, struct queue_filter *out);

/* Who has changed what, in the log; target may be NULL. */
void order_audit(const struct order *order, const char *object, const char *target, uint64_t count);

/* A text for JSON, whatever its bytes are. */
struct json_t *control_text_create(const void *text, size_t len);

/* ---- control_letter.c: messages as the spool has them, read beside the worker that owns them */

struct control_segment; /* a file */

/* For one request: what is where is found once. */
struct control_reader {
	const char *folder;
	unsigned workers;
	bool has_log;
	unsigned log;
	struct control_segment *segments;
	size_t segment_count;
	int fd; /* of the segment that was read last; -1 */
	uint64_t fd_segment;
};

void control_reader_init(struct control_reader *reader, const struct control_desk *desk);
void control_reader_fini(struct control_reader *reader);

struct control_letter {
	uint8_t *record;          /* MESSAGE; NULL: none */
	struct envelope envelope; /* points into it */
	struct record_message message;
};

/* 0; -ESTALE: it is gone, what is there is no such message; -errno. */
NODISCARD int control_letter_create(
	struct control_reader *reader, const struct message_row *row, struct control_letter *out);

/*
 * The state of each of its recipients (enum rcpt_state), from what was written to the log since, a
 * gigabyte at the most. As above.
 */
NODISCARD int control_letter_create_states(struct control_reader *reader,
	const struct message_row *row, const struct control_letter *letter, uint8_t **out);

/* The whole message. As above. */
NODISCARD int control_letter_create_text(struct control_reader *reader,
	const struct message_row *row, const struct control_letter *letter, char **out,
	size_t *out_len);

void control_letter_destroy(struct control_letter *letter);

/* ---- control_message.c, for control_message_change.c */

/* False: there is an answer. */
bool order_read_message_status(const struct order *order, struct queue_filter *out);
void order_refuse_message(const struct order *order);
extern const struct control_order control_message_change_orders[];

/* control_answer.c: objects, or NULL without memory. */
struct json_t *control_status_create(struct doorman *doorman);
struct json_t *control_refusals_create(struct doorman *doorman, unsigned limit);
/* -ESRCH: no such partner. */
NODISCARD int control_test_create(
	struct doorman *doorman, const char *partner, const struct ip *ip, struct json_t **out);
