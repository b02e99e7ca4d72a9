/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * control.h: asks the running relay over its control socket; relay/control.h says what can be
 * asked, and is the form of requests and answers.
 *
 * What comes back is not trusted: an answer that is garbled, cut off, too long or late is a
 * message, and CONTROL_BROKEN. Only control*.c includes jansson.
 */

#include "policy/config.h"
#include "relay/ctl/ctl.h"

/* The configuration as far as these commands need it, which may be invalid otherwise. */
struct control_place {
	struct config config;
	const char *socket; /* control-socket; NULL: it names none */
	int64_t timeout_s;  /* --timeout; 0: as long as the kind of request should take */
};

/* Reads the configuration. -errno after a message. */
NODISCARD int control_place_read(
	const struct ctl *ctl, int64_t timeout_s, struct control_place *out);

/* A member of a request that only one family of commands has. */
enum control_member_kind {
	CONTROL_TEXT,
	CONTROL_TEXTS,
	CONTROL_NUMBER,
	CONTROL_FLAG, /* true */
};

struct control_member {
	const char *key;
	enum control_member_kind kind;
	const char *text;
	const char *const *texts;
	unsigned text_count;
	uint64_t number;
};

struct control_request {
	const char *command; /* "partner-ip-add" */
	const struct control_member *members;
	unsigned member_count;
	const char *partner; /* NULL: not said, as everything below that is 0 */
	const char *ip;
	const char *bytes; /* what follows the line */
	size_t byte_count;
	bool has_expected;
	uint64_t expected;
	bool dry_run;
	bool end_sessions;
	unsigned limit;
	unsigned patience_s; /* how long it should take at the most */
};

enum control_outcome {
	CONTROL_DONE,     /* "ok": true */
	CONTROL_REFUSED,  /* "ok": false; error and message say why */
	CONTROL_NO_RELAY, /* nobody listens there */
	CONTROL_BROKEN,   /* there is no right to ask, or no sound answer; it was told */
};

#define CONTROL_MESSAGE_BYTES 2048

/* Numbers that the answer does not have are 0. */
struct control_reply {
	bool was_asked; /* a relay was there, and may have got the request */
	char error[32];
	char status[32];                     /* of a queue that nothing could be done to */
	char message[CONTROL_MESSAGE_BYTES]; /* may have several lines */
	bool has_generation;
	uint64_t generation, added, removed, kept, sessions_ended, effect_us, count;
	char *line;  /* the answer's line without its end; NULL: there was none */
	char *bytes; /* what came behind it, with a NUL behind; NULL: nothing */
	size_t byte_count;
};

/* Does somebody listen there? */
bool control_is_there(const struct control_place *place);

enum control_outcome control_ask(const struct control_place *place,
	const struct control_request *request, struct control_reply *out);

/*
 * The line of an answer that no relay has given, of what else the reply has. The outcome, or
 * CONTROL_BROKEN after a message. has_relay: one runs, and did not need to be asked.
 */
enum control_outcome control_reply_create_line(
	struct control_reply *reply, enum control_outcome outcome, bool has_relay);

void control_reply_clear(struct control_reply *reply);

/* Prints a JSON text again, indented. -EINVAL: it is none. */
NODISCARD int control_print_json(const char *text, size_t len, FILE *file);

/* The object behind the line, or that of the line itself. */
const char *control_reply_object(const struct control_reply *reply, size_t *out_len);

/* For the files control*.c: what a key of an object has. */
struct json_t;

/* 0 for what is no number, or below. */
uint64_t control_json_number(const struct json_t *object, const char *key);

/* "" for what is no text; what is too long is cut. */
void control_json_text(const struct json_t *object, const char *key, char *out, size_t out_bytes);

#define CONTROL_JSON_TEXT(object, key, field) \
	control_json_text((object), (key), (field), sizeof(field))
