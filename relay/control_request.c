/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/log.h"
#include "relay/control_private.h"
#include <errno.h>
#include <jansson.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

/*
 * control_request.c: what is asked for, and its answer. A request with a key that nobody knows is
 * refused: it may have meant something that would not be done.
 */

#define REFUSALS_ASKED_DEFAULT 20

#define MESSAGE_BYTES CONTROL_MESSAGE_BYTES
#define WHO_BYTES CONTROL_WHO_BYTES

/* ---- answers */

void control_answer_create(struct asker *client, struct json_t *line, const char *bytes, size_t len)
{
	char *text = line == NULL ? NULL : json_dumps(line, JSON_COMPACT | JSON_ENSURE_ASCII);
	const size_t line_len = text == NULL ? 0 : strlen(text);
	char *out = text == NULL ? NULL : malloc(line_len + 1 + len);

	if (out != NULL) {
		memcpy(out, text, line_len);
		out[line_len] = '\n';
		if (len > 0)
			memcpy(out + line_len + 1, bytes, len);
		free(client->out);
		client->out = out;
		client->out_len = line_len + 1 + len;
	}
	free(text);
	json_decref(line);
}

/* JSON takes UTF-8 only; what a request or a file had may be anything. */
static json_t *text_create(const char *text)
{
	char plain[MESSAGE_BYTES];
	size_t len = strnlen(text, sizeof(plain) - 1);

	while (len > 0 && text[len - 1] == '\n')
		len--;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] < 0x80)
			plain[i] = text[i];
		else
			plain[i] = '?';
	plain[len] = '\0';
	return json_string(plain);
}

static json_t *refusal_create(const char *error, const char *message)
{
	return json_pack(
		"{s:b, s:s, s:o*}", "ok", 0, "error", error, "message", text_create(message));
}

void control_refuse(struct asker *client, const char *error, const char *message)
{
	control_answer_create(client, refusal_create(error, message), NULL, 0);
}

void control_answer_create_object(struct asker *client, struct json_t *object)
{
	char *text = object == NULL ? NULL : json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII);
	const size_t len = text == NULL ? 0 : strlen(text);

	if (text != NULL)
		control_answer_create(client,
			json_pack("{s:b, s:I}", "ok", 1, "bytes", (json_int_t)len), text, len);
	free(text);
	json_decref(object);
}

/* ---- the line */

static bool parse_bytes(struct asker *client)
{
	const json_t *bytes = json_object_get(client->request, "bytes");

	client->bytes = 0;
	if (bytes == NULL)
		return true;
	if (!json_is_integer(bytes) || json_integer_value(bytes) < 0 ||
		(uint64_t)json_integer_value(bytes) > IP_LIST_FILE_BYTES_MAX) {
		control_refuse(client, "bad-request",
			"\"bytes\" must be how many bytes follow the line, at most 268435456");
		return false;
	}
	client->bytes = (size_t)json_integer_value(bytes);
	return true;
}

bool control_parse(struct asker *client, size_t line_len)
{
	json_error_t error;
	char message[JSON_ERROR_TEXT_LENGTH + 64];

	client->request = json_loadb(client->in, line_len, JSON_REJECT_DUPLICATES, &error);
	if (client->request == NULL) {
		(void)snprintf(message, sizeof(message), "the line is no JSON: %s", error.text);
		control_refuse(client, "bad-request", message);
		return false;
	}
	if (!json_is_object(client->request)) {
		control_refuse(client, "bad-request", "the line must be a JSON object");
		return false;
	}
	return parse_bytes(client);
}

/* ---- what the keys say */

enum key_form {
	KEY_TEXT,
	KEY_NUMBER,
	KEY_FLAG,
	KEY_TEXTS,
};

/* Those of all commands. */
static const struct {
	const char *key;
	enum key_form form;
} key_forms[] = {
	{"command", KEY_TEXT},
	{"bytes", KEY_NUMBER},
	{"partner", KEY_TEXT},
	{"ip", KEY_TEXT},
	{"limit", KEY_NUMBER},
	{"skip", KEY_NUMBER},
	{"expect_generation", KEY_NUMBER},
	{"dry_run", KEY_FLAG},
	{"end_sessions", KEY_FLAG},
	{"queue", KEY_TEXT},
	{"status", KEY_TEXT},
	{"to", KEY_TEXT},
	{"id", KEY_TEXT},
	{"ids", KEY_TEXTS},
	{"sender", KEY_TEXT},
	{"recipient", KEY_TEXT},
	{"older_than_ms", KEY_NUMBER},
	{"larger_than", KEY_NUMBER},
	{"envelopes", KEY_FLAG},
	{"ndr", KEY_FLAG},
};

/* NULL: the value has it. */
static const char *key_misses(enum key_form form, const json_t *value)
{
	const json_t *element;
	size_t i;

	switch (form) {
	case KEY_TEXT:
		return json_is_string(value) ? NULL : "a text";
	case KEY_NUMBER:
		return json_is_integer(value) && json_integer_value(value) >= 0
			       ? NULL
			       : "a whole number, not negative";
	case KEY_FLAG:
		return json_is_boolean(value) ? NULL : "true or false";
	case KEY_TEXTS:
		json_array_foreach((json_t *)(uintptr_t)value, i,
			element) if (!json_is_string(element)) return "an array of texts";
		return json_is_array(value) ? NULL : "an array of texts";
	}
	UNREACHABLE();
}

/* NULL: nothing is wrong with it. */
static const char *key_check(const char *key, const json_t *value, const char *const *keys)
{
	bool is_known = strcmp(key, "command") == 0 || strcmp(key, "bytes") == 0;

	for (unsigned i = 0; keys[i] != NULL; i++)
		is_known |= strcmp(keys[i], key) == 0;
	for (unsigned i = 0; is_known && i < COUNT_OF(key_forms); i++)
		if (strcmp(key_forms[i].key, key) == 0)
			return key_misses(key_forms[i].form, value);
	return "";
}

bool order_check(const struct order *order, const char *const *keys)
{
	char message[MESSAGE_BYTES];
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)order->request, key, value)
	{
		const char *form = key_check(key, value, keys);

		if (form == NULL)
			continue;
		if (*form == '\0')
			(void)snprintf(message, sizeof(message),
				"\"%s\" is nothing that this command knows", key);
		else
			(void)snprintf(message, sizeof(message), "\"%s\" must be %s", key, form);
		control_refuse(order->client, "bad-request", message);
		return false;
	}
	return true;
}

const char *order_word(const struct order *order, const char *key)
{
	return json_string_value(json_object_get(order->request, key));
}

uint64_t order_number(const struct order *order, const char *key, uint64_t fallback)
{
	const json_t *value = json_object_get(order->request, key);

	return value == NULL ? fallback : (uint64_t)json_integer_value(value);
}

bool order_flag(const struct order *order, const char *key)
{
	return json_is_true(json_object_get(order->request, key));
}

void order_who(const struct asker *client, char out[static WHO_BYTES])
{
	char room[4096];
	char quoted[80];
	struct passwd entry;
	struct passwd *found = NULL;

	if (getpwuid_r(client->peer.uid, &entry, room, sizeof(room), &found) != 0)
		found = NULL;
	(void)snprintf(out, WHO_BYTES, "uid=%u pid=%d user=%s", (unsigned)client->peer.uid,
		(int)client->peer.pid,
		log_quote_text(found == NULL ? NULL : found->pw_name, quoted, sizeof(quoted)));
}

/* ---- changes */

static const char *change_word(int rc, enum doorman_fault fault)
{
	switch (fault) {
	case DOORMAN_FAULT_MEMORY:
		return "no-memory";
	case DOORMAN_FAULT_DISK:
		return "disk";
	case DOORMAN_FAULT_KERNEL:
		return "kernel";
	case DOORMAN_FAULT_REQUEST:
		break;
	}
	return rc == -ESRCH    ? "unknown-partner"
	       : rc == -EEXIST ? "exists"
	       : rc == -ENOENT ? "absent"
	       : rc == -EBUSY  ? "expected-generation"
			       : "conflict";
}

static void change_refuse(const struct order *order, const struct doorman_result *result, int rc)
{
	json_t *answer = refusal_create(change_word(rc, result->fault), result->why);

	if (answer != NULL && rc != -ESRCH)
		(void)json_object_set_new(
			answer, "generation", json_integer((json_int_t)result->generation_before));
	control_answer_create(order->client, answer, NULL, 0);
}

static void change_answer(const struct order *order, const struct doorman_result *result)
{
	control_answer_create(order->client,
		json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "ok", 1, "generation",
			(json_int_t)result->generation, "added", (json_int_t)result->diff.added,
			"removed", (json_int_t)result->diff.removed, "kept",
			(json_int_t)result->diff.kept, "sessions_ended",
			(json_int_t)result->sessions_ended, "effect_us",
			(json_int_t)result->effect_us),
		NULL, 0);
}

/* The bytes behind the line; NULL: why says what is wrong. */
static struct cidr *entries_create(const struct asker *client, char why[static MESSAGE_BYTES])
{
	struct cidr *entries = NULL;
	char *text = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&text, &len);
	/* A stream of no bytes at all is an error in some libraries. */
	FILE *in = client->bytes == 0 ? fopen("/dev/null", "re")
				      : fmemopen(client->in, client->bytes, "r");
	int rc = errors == NULL || in == NULL ? -ENOMEM
					      : ip_list_take(in, "request", errors, &entries);

	if (in != NULL)
		(void)fclose(in);
	if (errors != NULL)
		(void)fclose(errors);
	if (rc < 0)
		(void)snprintf(
			why, MESSAGE_BYTES, "%s", text != NULL && len > 0 ? text : strerror(-rc));
	free(text);
	return rc < 0 ? NULL : entries;
}

static void order_change(const struct order *order, enum doorman_verb verb)
{
	static const char *const keys[] = {
		"partner", "expect_generation", "dry_run", "end_sessions", NULL};
	const json_t *expected = json_object_get(order->request, "expect_generation");
	char who[WHO_BYTES];
	char why[MESSAGE_BYTES];
	struct doorman_result result = {0};
	struct doorman_request request = {.verb = verb,
		.partner = order_word(order, "partner"),
		.has_expected = expected != NULL,
		.expected = (uint64_t)json_integer_value(expected),
		.dry_run = json_is_true(json_object_get(order->request, "dry_run")),
		.end_sessions = json_is_true(json_object_get(order->request, "end_sessions")),
		.who = who};
	struct cidr *entries;
	int rc;

	if (!order_check(order, keys))
		return;
	if (request.partner == NULL) {
		control_refuse(order->client, "bad-request", "\"partner\" is missing");
		return;
	}
	order_who(order->client, who);
	entries = entries_create(order->client, why);
	if (entries != NULL && verb != DOORMAN_REPLACE && cidr_count(entries) == 0) {
		cidr_destroy(&entries);
		(void)snprintf(why, sizeof(why), "there is no entry behind the line");
	}
	if (entries == NULL) {
		(void)snprintf(
			result.why, sizeof(result.why), "%.*s", (int)sizeof(result.why) - 1, why);
		doorman_audit(&request, &result, -EINVAL);
		control_refuse(order->client, "bad-request", why);
		return;
	}
	request.entries = entries;
	rc = doorman_change(order->desk->doorman, &request, &result);
	cidr_destroy(&entries);
	if (rc < 0)
		change_refuse(order, &result, rc);
	else
		change_answer(order, &result);
}

static void order_add(const struct order *order)
{
	order_change(order, DOORMAN_ADD);
}

static void order_remove(const struct order *order)
{
	order_change(order, DOORMAN_REMOVE);
}

static void order_replace(const struct order *order)
{
	order_change(order, DOORMAN_REPLACE);
}

/* ---- questions */

static void refuse_partner(const struct order *order, int rc)
{
	char message[MESSAGE_BYTES];

	if (rc == -ESRCH)
		(void)snprintf(message, sizeof(message),
			"the configuration in force has no partner \"%.500s\"",
			order_word(order, "partner"));
	else
		(void)snprintf(
			message, sizeof(message), "the list cannot be read: %s", strerror(-rc));
	control_refuse(order->client,
		rc == -ESRCH    ? "unknown-partner"
		: rc == -ENOMEM ? "no-memory"
				: "disk",
		message);
}

static void print_list(FILE *out, const struct cidr *set)
{
	char text[PREFIX_TEXT_BYTES + 1];
	struct door_value value;
	struct cidr_walk walk;
	struct prefix prefix;

	cidr_walk_start(&walk, set);
	while (cidr_walk_next(&walk, &prefix, &value))
		(void)fprintf(out, "%s\n", ip_list_print(&prefix, value, text));
}

static void order_list(const struct order *order)
{
	static const char *const keys[] = {"partner", NULL};
	const char *partner = order_word(order, "partner");
	struct ip_list list = {0};
	char *text = NULL;
	size_t len = 0;
	FILE *out;
	int rc;

	if (!order_check(order, keys))
		return;
	if (partner == NULL) {
		control_refuse(order->client, "bad-request", "\"partner\" is missing");
		return;
	}
	rc = doorman_list(order->desk->doorman, partner, &list);
	out = rc < 0 ? NULL : open_memstream(&text, &len);
	if (rc < 0) {
		refuse_partner(order, rc);
	} else if (out != NULL) {
		print_list(out, list.set);
		if (fclose(out) == 0)
			control_answer_create(order->client,
				json_pack("{s:b, s:I, s:I, s:I}", "ok", 1, "generation",
					(json_int_t)list.generation, "count",
					(json_int_t)cidr_count(list.set), "bytes", (json_int_t)len),
				text, len);
	}
	free(text);
	ip_list_clear(&list);
}

static void order_test(const struct order *order)
{
	static const char *const keys[] = {"partner", "ip", NULL};
	const char *text = order_word(order, "ip");
	json_t *object = NULL;
	struct ip ip;
	int rc;

	if (!order_check(order, keys))
		return;
	if (text == NULL || ip_parse(text, &ip) < 0) {
		control_refuse(order->client, "bad-request",
			"\"ip\" must be an address, as \"192.0.2.7\" or \"2001:db8::7\"");
		return;
	}
	rc = control_test_create(order->desk->doorman, order_word(order, "partner"), &ip, &object);
	if (rc < 0)
		refuse_partner(order, rc);
	else
		control_answer_create_object(order->client, object);
}

static void order_status(const struct order *order)
{
	static const char *const keys[] = {NULL};

	if (order_check(order, keys))
		control_answer_create_object(
			order->client, control_status_create(order->desk->doorman));
}

static void order_refusals(const struct order *order)
{
	static const char *const keys[] = {"limit", NULL};
	const json_t *limit = json_object_get(order->request, "limit");
	json_int_t asked = limit == NULL ? REFUSALS_ASKED_DEFAULT : json_integer_value(limit);

	if (!order_check(order, keys))
		return;
	asked = asked < REFUSALS_MAX ? asked : REFUSALS_MAX;
	control_answer_create_object(
		order->client, control_refusals_create(order->desk->doorman, (unsigned)asked));
}

const struct control_order control_door_orders[] = {
	{"partner-ip-list", false, order_list},
	{"partner-ip-add", true, order_add},
	{"partner-ip-remove", true, order_remove},
	{"partner-ip-replace", true, order_replace},
	{"partner-ip-test", false, order_test},
	{"door-status", false, order_status},
	{"door-refusals", false, order_refusals},
	{NULL, false, NULL},
};

static const struct control_order *const all_orders[] = {
	control_door_orders,
	control_queue_orders,
	control_message_orders,
	control_message_change_orders,
};

static void refuse_command(struct asker *client)
{
	char message[MESSAGE_BYTES] = "\"command\" must be one of";
	size_t len = strlen(message);

	for (unsigned i = 0; i < COUNT_OF(all_orders); i++)
		for (const struct control_order *at = all_orders[i]; at->command != NULL; at++)
			if (len < sizeof(message))
				len += (size_t)snprintf(message + len, sizeof(message) - len,
					"%s %s", at == control_door_orders ? "" : ",", at->command);
	control_refuse(client, "bad-request", message);
}

void control_run(const struct control_desk *desk, struct asker *client)
{
	const struct order order = {desk, client, client->request};
	const char *command = order_word(&order, "command");

	for (unsigned i = 0; command != NULL && i < COUNT_OF(all_orders); i++) {
		for (const struct control_order *at = all_orders[i]; at->command != NULL; at++) {
			if (strcmp(at->command, command) != 0)
				continue;
			if (client->bytes > 0 && !at->has_bytes)
				control_refuse(
					client, "bad-request", "nothing may follow this command");
			else
				at->run(&order);
			return;
		}
	}
	refuse_command(client);
}
