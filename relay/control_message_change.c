/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/control_private.h"
#include <jansson.h>

/*
 * control_message_change.c: what is done to messages: to those that are named, or to all that fit.
 */

/* Of one request. */
#define IDS_MAX 1000

/* To those that fit, on every worker. False: there is an answer. */
static bool message_do(const struct order *order, enum queue_verb verb,
	const struct queue_filter *filter, uint64_t *count)
{
	for (unsigned worker = 0; worker < order->desk->hooks.workers; worker++) {
		struct queue_ask ask = {.verb = verb, .filter = *filter};

		if (!order_ask(order, &ask, worker))
			return false;
		*count += ask.matched;
	}
	return true;
}

/* To each of "ids", as far as where has it. False: there is an answer. */
static bool message_do_ids(const struct order *order, enum queue_verb verb,
	const struct queue_filter *where, uint64_t *count)
{
	const json_t *ids = json_object_get(order->request, "ids");

	if (json_array_size(ids) > IDS_MAX) {
		control_refuse(order->client, "bad-request", "\"ids\" must be 1000 at the most");
		return false;
	}
	/* Those that cannot be read must not leave the work half done. */
	for (size_t i = 0; i < json_array_size(ids); i++) {
		const char *id = json_string_value(json_array_get(ids, i));
		uint64_t number = 0;

		if (!message_id_parse(span_of(id), &number) || number == 0) {
			control_refuse(order->client, "bad-request",
				"\"ids\" must be of 16 hexadecimal digits each, as msg-list has "
				"them");
			return false;
		}
	}
	for (size_t i = 0; i < json_array_size(ids); i++) {
		const char *id = json_string_value(json_array_get(ids, i));
		struct queue_filter filter = *where;
		uint64_t done = 0;

		if (!message_id_parse(span_of(id), &filter.id) ||
			!message_do(order, verb, &filter, &done))
			return false;
		order_audit(order, "message", id, done);
		*count += done;
	}
	return true;
}

/* Is anything said of which messages are meant? False: there is an answer. */
static bool order_selects(const struct order *order, const struct queue_filter *filter)
{
	if (*filter->queue != '\0' || filter->has_status || filter->id != 0 ||
		filter->older_than_ms > 0 || filter->larger_than > 0)
		return true;
	control_refuse(order->client, "bad-request",
		"which messages? one of \"ids\", \"id\", \"queue\", \"status\", "
		"\"older_than_ms\", \"larger_than\" is missing");
	return false;
}

static bool message_do_all(const struct order *order, enum queue_verb verb,
	const struct queue_filter *where, uint64_t *count)
{
	if (!order_selects(order, where) || !message_do(order, verb, where, count))
		return false;
	order_audit(order, where->id != 0 ? "message" : "queue",
		where->id != 0          ? order_word(order, "id")
		: *where->queue != '\0' ? where->queue
					: NULL,
		*count);
	if (*count > 0 || where->id == 0)
		return true;
	order_refuse_message(order);
	return false;
}

static void order_change(const struct order *order, enum queue_verb verb, const char *const *keys)
{
	const bool has_ids = json_object_get(order->request, "ids") != NULL;
	struct queue_filter where;
	uint64_t count = 0;

	if (!order_check(order, keys) || !order_has_queue(order) ||
		!order_read_filter(order, &where) || !order_read_message_status(order, &where))
		return;
	if (has_ids ? message_do_ids(order, verb, &where, &count)
		    : message_do_all(order, verb, &where, &count))
		control_answer_create(order->client,
			json_pack("{s:b, s:I}", "ok", 1, "count", (json_int_t)count), NULL, 0);
}

static const char *const change_keys[] = {
	"ids", "id", "queue", "status", "older_than_ms", "larger_than", NULL};

static void order_suspend(const struct order *order)
{
	order_change(order, QUEUE_ASK_MESSAGE_SUSPEND, change_keys);
}

static void order_resume(const struct order *order)
{
	order_change(order, QUEUE_ASK_MESSAGE_RESUME, change_keys);
}

static void order_remove(const struct order *order)
{
	static const char *const keys[] = {
		"ids", "id", "queue", "status", "older_than_ms", "larger_than", "ndr", NULL};

	order_change(order,
		order_flag(order, "ndr") ? QUEUE_ASK_MESSAGE_REMOVE_NDR : QUEUE_ASK_MESSAGE_REMOVE,
		keys);
}

const struct control_order control_message_change_orders[] = {
	{"msg-suspend", false, order_suspend},
	{"msg-resume", false, order_resume},
	{"msg-remove", false, order_remove},
	{NULL, false, NULL},
};
