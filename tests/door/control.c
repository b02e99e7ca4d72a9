/* SPDX-License-Identifier: Apache-2.0 */

/*
 * control.c: the client of the control socket, for daemon.h.
 */

#include "tests/door/daemon.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int daemon_control_open(const struct daemon *daemon)
{
	struct timeval patience = {.tv_sec = 60L * suite.slow};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char name[64];
	char path[PLACE_PATH_BYTES];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(name, sizeof(name), "%s.control", daemon->name);
	(void)snprintf(
		address.sun_path, sizeof(address.sun_path), "%.100s", place_path(name, path));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	(void)close(fd);
	return -1;
}

/* May stop in the middle: a relay that refuses a request need not read it to its end. */
static void control_write(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len > 0) {
		ssize_t done = send(fd, at, len, MSG_NOSIGNAL);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return;
		at += done;
		len -= (size_t)done;
	}
}

static unsigned long control_number(const json_t *answer, const char *key)
{
	return (unsigned long)json_integer_value(json_object_get(answer, key));
}

static const char *control_word(const json_t *answer, const char *key)
{
	const char *word = json_string_value(json_object_get(answer, key));

	return word == NULL ? "" : word;
}

static bool control_parse(const char *line, struct daemon_answer *out)
{
	json_t *answer = json_loads(line, 0, NULL);

	*out = (struct daemon_answer){0};
	(void)snprintf(out->raw, sizeof(out->raw), "%s", line);
	if (answer == NULL)
		return false;
	out->ok = json_is_true(json_object_get(answer, "ok"));
	(void)snprintf(out->error, sizeof(out->error), "%s", control_word(answer, "error"));
	(void)snprintf(out->message, sizeof(out->message), "%s", control_word(answer, "message"));
	out->generation = control_number(answer, "generation");
	out->added = control_number(answer, "added");
	out->removed = control_number(answer, "removed");
	out->kept = control_number(answer, "kept");
	out->sessions_ended = control_number(answer, "sessions_ended");
	out->effect_us = control_number(answer, "effect_us");
	out->count = control_number(answer, "count");
	json_decref(answer);
	return true;
}

bool daemon_ask(const struct daemon *daemon, const char *request, const struct text *bytes,
	struct daemon_answer *out, struct text *body)
{
	int fd = daemon_control_open(daemon);
	struct text all = {0};
	char piece[65536];
	ssize_t len;
	char *end;
	bool done;

	*out = (struct daemon_answer){0};
	if (fd < 0)
		return false;
	/* "{...}" becomes "{..., "bytes": N}". */
	text_print(&all, "%.*s%s", (int)strlen(request) - (bytes == NULL ? 0 : 1), request,
		bytes == NULL ? "\n" : "");
	if (bytes != NULL) {
		text_print(&all, ", \"bytes\": %zu}\n", bytes->len);
		text_add(&all, bytes->data, bytes->len);
	}
	control_write(fd, all.data, all.len);
	text_clear(&all);
	while ((len = recv(fd, piece, sizeof(piece), 0)) > 0)
		text_add(&all, piece, (size_t)len);
	(void)close(fd);
	end = all.len == 0 ? NULL : memchr(all.data, '\n', all.len);
	done = end != NULL;
	if (done) {
		*end = '\0';
		done = control_parse(all.data, out);
	}
	if (done && body != NULL) {
		text_clear(body);
		text_add(body, end + 1, all.len - (size_t)(end + 1 - all.data));
	}
	text_free(&all);
	return done;
}

void daemon_change(const struct daemon *daemon, const char *verb, const char *lines,
	const char *error, struct daemon_answer *out)
{
	struct daemon_answer own;
	struct text bytes = {0};
	char request[256];

	if (out == NULL)
		out = &own;
	text_add(&bytes, lines, strlen(lines));
	(void)snprintf(
		request, sizeof(request), "{\"command\": \"%s\", \"partner\": \"friends\"}", verb);
	case_check(daemon_ask(daemon, request, &bytes, out, NULL), "%s: no answer", verb);
	case_check(out->ok == (error == NULL) && (error == NULL || strcmp(out->error, error) == 0),
		"%s: expected %s, got: %s", verb, error == NULL ? "ok" : error, out->raw);
	text_free(&bytes);
}

/* What door-status says. */

static unsigned long control_sum(const json_t *list, const char *key)
{
	unsigned long sum = 0;
	size_t i;
	json_t *one;

	json_array_foreach(list, i, one) sum += control_number(one, key);
	return sum;
}

static void control_read_lag(const json_t *lag, struct daemon_door *out)
{
	const json_t *counts = json_object_get(lag, "counts");
	size_t len = 0;
	size_t i;
	json_t *one;

	out->lag_max_us = control_number(lag, "max_us");
	json_array_foreach(counts, i, one)
	{
		unsigned long below = control_number(one, "below_us");
		char limit[32];
		int more;

		(void)snprintf(limit, sizeof(limit), "<%lu us", below);
		more = snprintf(out->lag + len, sizeof(out->lag) - len, "%s%s: %lu",
			len == 0 ? "" : ", ", below == 0 ? "more" : limit,
			control_number(one, "turns"));
		if (more < 0 || len + (size_t)more >= sizeof(out->lag))
			return;
		len += (size_t)more;
	}
}

static void control_read_door(const json_t *status, struct daemon_door *out)
{
	const json_t *foreign = json_object_get(status, "foreign");
	const json_t *bindings = json_object_get(status, "bindings");
	const json_t *totals = json_object_get(status, "totals");

	out->is_kernel = strcmp(control_word(status, "mode"), "kernel") == 0;
	(void)snprintf(out->why, sizeof(out->why), "%s", control_word(status, "why"));
	out->program_id = control_number(status, "program_id");
	out->link_id = control_number(status, "link_id");
	out->was_taken_up = json_is_true(json_object_get(status, "taken_up"));
	out->foreign_count = (unsigned)json_array_size(foreign);
	for (unsigned i = 0; i < out->foreign_count && i < COUNT_OF(out->foreign); i++)
		out->foreign[i] = (unsigned long)json_integer_value(json_array_get(foreign, i));
	out->prefixes = control_sum(bindings, "prefixes");
	out->passed = control_sum(bindings, "passed");
	out->stranger = control_sum(bindings, "stranger");
	out->excluded = control_sum(bindings, "excluded");
	out->rate = control_sum(bindings, "rate");
	out->mapped = control_sum(bindings, "mapped");
	out->lookups = control_number(totals, "lookups");
	out->others = control_number(totals, "others");
	out->events_held = control_number(totals, "events_held");
	out->events_lost = control_number(totals, "events_lost");
	control_read_lag(json_object_get(status, "loop_lag"), out);
}

void daemon_door(const struct daemon *daemon, struct daemon_door *out)
{
	struct daemon_answer answer;
	struct text body = {0};
	json_t *status;

	*out = (struct daemon_door){0};
	case_check(daemon_ask(daemon, "{\"command\": \"door-status\"}", NULL, &answer, &body),
		"door-status: no answer");
	case_check(answer.ok, "door-status: %s", answer.raw);
	status = json_loadb(body.data, body.len, 0, NULL);
	case_check(status != NULL, "door-status is not JSON: %.500s", body.data);
	control_read_door(status, out);
	json_decref(status);
	text_free(&body);
}
