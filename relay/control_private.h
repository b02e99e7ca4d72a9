/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * control_private.h: what the files of the control socket share.
 *
 *   control.c          the socket, the thread, bytes in and out
 *   control_request.c  what is asked for
 *   control_answer.c   what is told of the door
 */

#include "relay/control.h"
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
enum client_state {
	CLIENT_LINE,
	CLIENT_BYTES,
	CLIENT_ANSWER,
};

struct client {
	int fd; /* -1: free */
	enum client_state state;
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
bool control_parse(struct client *client, size_t line_len);

/* Carries the request out; the answer is there after it. */
void control_run(struct doorman *doorman, struct client *client);

/* The answer "ok": false. Of several lines in message the first are kept. */
void control_refuse(struct client *client, const char *error, const char *message);

/* The answer's line, and what comes behind it (NULL: nothing); takes the object. */
void control_answer_create(
	struct client *client, struct json_t *line, const char *bytes, size_t len);

/* control_answer.c: objects, or NULL without memory. */
struct json_t *control_status_create(struct doorman *doorman);
struct json_t *control_refusals_create(struct doorman *doorman, unsigned limit);
/* -ESRCH: no such partner. */
NODISCARD int control_test_create(
	struct doorman *doorman, const char *partner, const struct ip *ip, struct json_t **out);
