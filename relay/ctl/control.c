/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/control.h"

#include "policy/ip_list.h"
#include "relay/base/clock.h"
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The line of an answer, and what may be behind it (relay/control.h). */
#define LINE_BYTES_MAX 65536
#define BYTES_MAX IP_LIST_FILE_BYTES_MAX

/* A relay with too many that ask at once is tried again so often. */
#define BUSY_WAIT_MS 10

int control_place_read(const struct ctl *ctl, int64_t timeout_s, struct control_place *out)
{
	int rc;

	*out = (struct control_place){.config.file = ctl->config, .timeout_s = timeout_s};
	rc = config_read(&out->config);
	if (rc == 0) {
		out->socket = ctl_config_word(&out->config, "control-socket");
		return 0;
	}
	ctl_error("%s: %s", ctl->config,
		rc == -EINVAL ? "cannot be parsed; posternctl config check says where"
			      : strerror(-rc));
	return rc;
}

/* ---- a connection that has to be done with in time */

struct channel {
	int fd;
	uint64_t end_ms;
	uint64_t patience_s; /* for messages */
	char *data;          /* what was received */
	size_t len, size;
};

/* Waits for one of the events. False: the time is over. */
static bool channel_wait(const struct channel *channel, short events, short *out)
{
	struct pollfd poll_fd = {.fd = channel->fd, .events = events};

	for (;;) {
		uint64_t now = clock_now_ms();
		int count;

		if (now >= channel->end_ms)
			return false;
		count = poll(&poll_fd, 1, (int)(channel->end_ms - now));
		*out = poll_fd.revents;
		if (count > 0)
			return true;
	}
}

/* 0, or -errno. */
static int channel_open(struct channel *channel, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const struct timespec wait = {.tv_nsec = BUSY_WAIT_MS * 1000000L};

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	channel->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (channel->fd < 0)
		return -errno;
	while (connect(channel->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (clock_now_ms() >= channel->end_ms)
			return -ETIMEDOUT;
		(void)nanosleep(&wait, NULL);
	}
	return 0;
}

/*
 * Sends all, or as much as the relay takes before it answers: it may refuse what it has not read
 * to its end. 0, or -errno.
 */
static int channel_send(const struct channel *channel, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t sent = send(channel->fd, data, len, MSG_NOSIGNAL);
		short events;

		if (sent >= 0) {
			data += sent;
			len -= (size_t)sent;
			continue;
		}
		if (errno == EPIPE || errno == ECONNRESET)
			return 0; /* there may be an answer that says why */
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (!channel_wait(channel, POLLIN | POLLOUT, &events))
			return -ETIMEDOUT;
		if ((events & POLLIN) != 0)
			return 0;
	}
	return 0;
}

static int channel_create_room(struct channel *channel, size_t size)
{
	char *data = size <= channel->size ? channel->data : realloc(channel->data, size);

	if (data == NULL)
		return -ENOMEM;
	channel->data = data;
	channel->size = size <= channel->size ? channel->size : size;
	return 0;
}

/* Receives more, into the room that there is. Returns how much, 0 at the end, or -errno. */
static ssize_t channel_receive(struct channel *channel)
{
	for (;;) {
		ssize_t len = recv(
			channel->fd, channel->data + channel->len, channel->size - channel->len, 0);
		short events;

		if (len >= 0) {
			channel->len += (size_t)len;
			return len;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (!channel_wait(channel, POLLIN, &events))
			return -ETIMEDOUT;
	}
}

/* ---- requests */

/* One of several members; what is NULL or 0 is left out. */
static bool object_add(json_t *object, const char *key, json_t *value)
{
	return value != NULL && json_object_set_new(object, key, value) == 0;
}

static json_t *member_create(const struct control_member *member)
{
	json_t *texts;

	switch (member->kind) {
	case CONTROL_TEXT:
		return json_string(member->text);
	case CONTROL_NUMBER:
		return json_integer((json_int_t)member->number);
	case CONTROL_FLAG:
		return json_true();
	case CONTROL_TEXTS:
		break;
	}
	texts = json_array();
	for (unsigned i = 0; i < member->text_count; i++)
		(void)json_array_append_new(texts, json_string(member->texts[i]));
	return texts;
}

/* The line as text to be freed; NULL after a message. */
static char *request_create_line(const struct control_request *request)
{
	json_t *object = json_object();
	char *line = NULL;
	bool is_whole =
		object != NULL && object_add(object, "command", json_string(request->command)) &&
		(request->partner == NULL ||
			object_add(object, "partner", json_string(request->partner))) &&
		(request->ip == NULL || object_add(object, "ip", json_string(request->ip))) &&
		(request->bytes == NULL ||
			object_add(
				object, "bytes", json_integer((json_int_t)request->byte_count))) &&
		(!request->has_expected || object_add(object, "expect_generation",
						   json_integer((json_int_t)request->expected))) &&
		(!request->dry_run || object_add(object, "dry_run", json_true())) &&
		(!request->end_sessions || object_add(object, "end_sessions", json_true())) &&
		(request->limit == 0 || object_add(object, "limit", json_integer(request->limit)));

	for (unsigned i = 0; is_whole && i < request->member_count; i++)
		is_whole = object_add(
			object, request->members[i].key, member_create(&request->members[i]));
	if (is_whole)
		line = json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER);
	json_decref(object);
	if (line == NULL)
		ctl_error("a name that is not UTF-8 cannot be asked for");
	return line;
}

/* ---- answers */

uint64_t control_json_number(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	json_int_t number = json_is_integer(value) ? json_integer_value(value) : 0;

	return number < 0 ? 0 : (uint64_t)number;
}

void control_json_text(const json_t *object, const char *key, char *out, size_t out_bytes)
{
	const char *text = json_string_value(json_object_get(object, key));

	(void)snprintf(out, out_bytes, "%s", text != NULL ? text : "");
}

/* How many bytes are behind the line; false: the line is no answer, after a message. */
static bool reply_parse(struct control_reply *reply, bool *out_is_done)
{
	json_error_t error;
	json_t *object = json_loads(reply->line, JSON_REJECT_DUPLICATES, &error);
	const json_t *ok = json_object_get(object, "ok");

	if (!json_is_boolean(ok)) {
		ctl_error("the relay's answer is not what posternctl %s understands (%s); is the "
			  "relay of another version?",
			POSTERN_VERSION, object == NULL ? error.text : "\"ok\" is missing");
		json_decref(object);
		return false;
	}
	*out_is_done = json_is_true(ok);
	control_json_text(object, "error", reply->error, sizeof(reply->error));
	control_json_text(object, "message", reply->message, sizeof(reply->message));
	control_json_text(object, "status", reply->status, sizeof(reply->status));
	reply->has_generation = json_is_integer(json_object_get(object, "generation"));
	reply->generation = control_json_number(object, "generation");
	reply->added = control_json_number(object, "added");
	reply->removed = control_json_number(object, "removed");
	reply->kept = control_json_number(object, "kept");
	reply->sessions_ended = control_json_number(object, "sessions_ended");
	reply->effect_us = control_json_number(object, "effect_us");
	reply->count = control_json_number(object, "count");
	reply->byte_count = control_json_number(object, "bytes");
	json_decref(object);
	if (reply->byte_count <= BYTES_MAX)
		return true;
	ctl_error("the relay's answer announces %zu bytes, more than there may be",
		reply->byte_count);
	return false;
}

/* What came before the answer was whole. */
static void complain(const struct channel *channel, ssize_t rc, const char *what)
{
	if (rc == -ETIMEDOUT)
		ctl_error(
			"no answer from the relay within %" PRIu64 " seconds", channel->patience_s);
	else if (rc == 0 || rc == -ECONNRESET)
		ctl_error("the relay closed the connection %s", what);
	else
		ctl_error("the relay's answer cannot be read: %s", strerror((int)-rc));
}

/* Receives the line; what has come behind it stays in the channel. */
static int reply_create_line(struct channel *channel, struct control_reply *reply)
{
	const char *end = NULL;
	size_t seen = 0;
	size_t len;

	while (end == NULL) {
		ssize_t rc = -ENOMEM;

		if (channel->len > LINE_BYTES_MAX) {
			ctl_error("the first line of the relay's answer is longer than %d bytes",
				LINE_BYTES_MAX);
			return -EINVAL;
		}
		if (channel_create_room(channel, channel->len + 16384) == 0)
			rc = channel_receive(channel);
		if (rc <= 0) {
			complain(channel, rc, "without an answer");
			return -EINVAL;
		}
		end = memchr(channel->data + seen, '\n', channel->len - seen);
		seen = channel->len;
	}
	len = (size_t)(end - channel->data);
	/* What has come is no string, so that strndup() is not for it. */
	channel->data[len] = '\0';
	reply->line = strdup(channel->data);
	if (reply->line == NULL) {
		ctl_error("out of memory");
		return -ENOMEM;
	}
	channel->len -= len + 1;
	memmove(channel->data, end + 1, channel->len);
	return 0;
}

/* Receives what is behind the line, and takes it from the channel. */
static int reply_create_bytes(struct channel *channel, struct control_reply *reply)
{
	const size_t want = reply->byte_count;
	char what[80];

	if (want == 0)
		return 0;
	if (channel_create_room(channel, want + 1) < 0) {
		ctl_error("out of memory");
		return -ENOMEM;
	}
	while (channel->len < want) {
		ssize_t rc = channel_receive(channel);

		if (rc <= 0) {
			(void)snprintf(what, sizeof(what), "after %zu of %zu bytes of its answer",
				channel->len, want);
			complain(channel, rc, what);
			reply->byte_count = 0;
			return -EINVAL;
		}
	}
	reply->bytes = channel->data;
	reply->bytes[want] = '\0';
	channel->data = NULL;
	return 0;
}

static enum control_outcome channel_ask(struct channel *channel,
	const struct control_request *request, const char *line, struct control_reply *out)
{
	bool is_done = false;
	int rc = channel_send(channel, line, strlen(line));

	if (rc == 0)
		rc = channel_send(channel, "\n", 1);
	if (rc == 0 && request->bytes != NULL)
		rc = channel_send(channel, request->bytes, request->byte_count);
	if (rc < 0) {
		complain(channel, rc, "");
		return CONTROL_BROKEN;
	}
	if (reply_create_line(channel, out) < 0 || !reply_parse(out, &is_done) ||
		reply_create_bytes(channel, out) < 0)
		return CONTROL_BROKEN;
	return is_done ? CONTROL_DONE : CONTROL_REFUSED;
}

bool control_is_there(const struct control_place *place)
{
	struct channel channel = {.fd = -1, .end_ms = clock_now_ms() + 1000};
	bool is_there = place->socket != NULL && channel_open(&channel, place->socket) == 0;

	if (channel.fd >= 0)
		(void)close(channel.fd);
	return is_there;
}

enum control_outcome control_ask(const struct control_place *place,
	const struct control_request *request, struct control_reply *out)
{
	struct channel channel = {.fd = -1};
	enum control_outcome outcome = CONTROL_BROKEN;
	char *line;
	int rc;

	*out = (struct control_reply){0};
	if (place->socket == NULL)
		return CONTROL_NO_RELAY;
	line = request_create_line(request);
	if (line == NULL)
		return CONTROL_BROKEN;
	channel.patience_s =
		place->timeout_s > 0 ? (uint64_t)place->timeout_s : request->patience_s;
	channel.end_ms = clock_now_ms() + channel.patience_s * 1000;
	rc = channel_open(&channel, place->socket);
	if (rc == 0) {
		out->was_asked = true;
		outcome = channel_ask(&channel, request, line, out);
	} else if (rc == -ENOENT || rc == -ECONNREFUSED) {
		outcome = CONTROL_NO_RELAY;
	} else {
		ctl_error("%s: %s%s", place->socket, strerror(-rc),
			rc == -EACCES || rc == -EPERM ? "; root, the relay's user and members of "
							"control-group may ask the relay"
						      : "");
	}
	if (channel.fd >= 0)
		(void)close(channel.fd);
	free(channel.data);
	free(line);
	return outcome;
}

enum control_outcome control_reply_create_line(
	struct control_reply *reply, enum control_outcome outcome, bool has_relay)
{
	bool is_done = outcome == CONTROL_DONE;
	json_t *object = json_object();

	if (outcome == CONTROL_BROKEN)
		return outcome;
	if (object != NULL && object_add(object, "ok", json_boolean(is_done)) &&
		object_add(object, "relay", json_boolean(has_relay)) &&
		object_add(object, "generation", json_integer((json_int_t)reply->generation)) &&
		(!is_done || (object_add(object, "added", json_integer((json_int_t)reply->added)) &&
				     object_add(object, "removed",
					     json_integer((json_int_t)reply->removed)) &&
				     object_add(object, "kept",
					     json_integer((json_int_t)reply->kept)))) &&
		(is_done || (object_add(object, "error", json_string(reply->error)) &&
				    object_add(object, "message", json_string(reply->message)))))
		reply->line = json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER);
	json_decref(object);
	if (reply->line != NULL)
		return outcome;
	ctl_error("the answer cannot be told as JSON");
	return CONTROL_BROKEN;
}

void control_reply_clear(struct control_reply *reply)
{
	free(reply->line);
	free(reply->bytes);
	*reply = (struct control_reply){0};
}

const char *control_reply_object(const struct control_reply *reply, size_t *out_len)
{
	*out_len = reply->bytes != NULL  ? reply->byte_count
		   : reply->line != NULL ? strlen(reply->line)
					 : 0;
	return reply->bytes != NULL ? reply->bytes : reply->line;
}

int control_print_json(const char *text, size_t len, FILE *file)
{
	json_t *value = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);

	if (value == NULL)
		return -EINVAL;
	(void)json_dumpf(value, file, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	(void)fputc('\n', file);
	json_decref(value);
	return 0;
}
