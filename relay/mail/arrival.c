/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/arrival.h"

#include "relay/base/format.h"
#include "relay/base/limits.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/base/track.h"
#include <errno.h>
#include <stdlib.h>

/* What the strings of an envelope take at the most, and what MAIL can have said of it. */
#define FRONT_BYTES_MAX (LONG_COMMAND_LINE_BYTES_MAX + 4096)
#define RCPTS_BYTES_MAX (ENVELOPE_BYTES_MAX - FRONT_BYTES_MAX)

/* A row of the tracking log has so much of the recipients. */
#define NAMES_BYTES_MAX 32768

/* Arrivals whose clients have gone, and blocks for messages to many, beside one for each session.
 */
#define SPARE 1024

/* A longer one is not repeated in the reply: RFC 5321 4.5.3.1.5 allows lines of 512 bytes. */
#define REPLY_MESSAGE_ID_BYTES_MAX 200

int intake_create(const struct intake_options *options, struct intake **out)
{
	struct intake *intake = calloc(1, sizeof(*intake));
	int rc = 0;

	if (intake == NULL)
		return -ENOMEM;
	intake->options = *options;
	intake->envelope = malloc(ENVELOPE_BYTES_MAX);
	intake->names = malloc(NAMES_BYTES_MAX);
	if (intake->envelope == NULL || intake->names == NULL)
		rc = -ENOMEM;
	if (rc == 0)
		rc = pool_create(&intake->arrivals, options->sessions_max + SPARE,
			sizeof(struct arrival), 64);
	if (rc == 0)
		rc = pool_create(&intake->blocks, options->sessions_max + SPARE,
			sizeof(struct arrival_block), 64);
	if (rc < 0)
		intake_destroy(&intake);
	else
		*out = intake;
	return rc;
}

void intake_destroy(struct intake **out)
{
	struct intake *intake = *out;

	*out = NULL;
	if (intake == NULL)
		return;
	pool_destroy(&intake->arrivals);
	pool_destroy(&intake->blocks);
	free(intake->envelope);
	free(intake->names);
	free(intake);
}

bool intake_is_idle(const struct intake *intake)
{
	return intake->arrivals.used == 0;
}

/* The chain. */

/* Where byte number at lies, and how many follow it there. */
static uint8_t *chain_at(struct arrival *arrival, uint32_t at, size_t *out_room)
{
	struct arrival_block *block = arrival->first;

	if (at < ARRIVAL_HEAD_BYTES) {
		*out_room = ARRIVAL_HEAD_BYTES - at;
		return arrival->head + at;
	}
	for (at -= ARRIVAL_HEAD_BYTES; at >= ARRIVAL_BLOCK_BYTES; at -= ARRIVAL_BLOCK_BYTES)
		block = block->next;
	*out_room = ARRIVAL_BLOCK_BYTES - at;
	return block->bytes + at;
}

static uint32_t chain_blocks(uint32_t len)
{
	return len <= ARRIVAL_HEAD_BYTES
		       ? 0
		       : (len - ARRIVAL_HEAD_BYTES + ARRIVAL_BLOCK_BYTES - 1) / ARRIVAL_BLOCK_BYTES;
}

static bool chain_grow(struct arrival *arrival, uint32_t len)
{
	struct pool *pool = &arrival->intake->blocks;
	uint32_t wanted = chain_blocks(len) - chain_blocks(arrival->len);

	if (wanted > pool->count - pool->used)
		return false;
	for (; wanted > 0; wanted--) {
		struct arrival_block *block = pool_take(pool);

		block->next = NULL;
		if (arrival->last == NULL)
			arrival->first = block;
		else
			arrival->last->next = block;
		arrival->last = block;
	}
	return true;
}

/* All of it, or, without room, nothing. */
static bool chain_add(struct arrival *arrival, struct span bytes)
{
	if (!chain_grow(arrival, arrival->len + (uint32_t)bytes.len))
		return false;
	while (bytes.len > 0) {
		size_t room;
		uint8_t *to = chain_at(arrival, arrival->len, &room);
		struct span piece = span_head(bytes, room);

		memcpy(to, piece.data, piece.len);
		arrival->len += (uint32_t)piece.len;
		bytes = span_skip(bytes, piece.len);
	}
	return true;
}

/* Takes the end away. */
static void chain_cut(struct arrival *arrival, uint32_t len)
{
	struct arrival_block **at = &arrival->first;

	arrival->last = NULL;
	for (uint32_t left = chain_blocks(len); left > 0; left--) {
		arrival->last = *at;
		at = &arrival->last->next;
	}
	while (*at != NULL) {
		struct arrival_block *block = *at;

		*at = block->next;
		pool_put(&arrival->intake->blocks, block);
	}
	arrival->len = len;
}

static void chain_copy(struct arrival *arrival, uint32_t at, uint32_t len, uint8_t *out)
{
	while (len > 0) {
		size_t room;
		const uint8_t *from = chain_at(arrival, at, &room);
		uint32_t piece = len < room ? len : (uint32_t)room;

		memcpy(out, from, piece);
		out += piece;
		at += piece;
		len -= piece;
	}
}

/* Begin and end. */

static const struct spool_writer_events arrival_writer_events;

struct arrival *arrival_take(
	struct intake *intake, const struct policy *policy, const struct command *command)
{
	struct arrival *arrival = pool_take(&intake->arrivals);

	if (arrival == NULL)
		return NULL;
	memset(arrival, 0, offsetof(struct arrival, head));
	arrival->intake = intake;
	arrival->body = command->body;
	arrival->params = command->params;
	arrival->has_subject = policy->queue.tracking_log_subject;
	(void)format_print(arrival->fqdn, sizeof(arrival->fqdn), "%s", policy->fqdn);
	fields_init(&arrival->fields);
	spool_writer_init(&arrival->writer, intake->options.spool, &arrival_writer_events);
	arrival->sender_len = (uint32_t)command->path.len;
	arrival->ret_len = command->params & PARAM_RET ? (uint32_t)command->ret.len : 0;
	arrival->envid_len = command->params & PARAM_ENVID ? (uint32_t)command->envid.len : 0;
	if (chain_add(arrival, command->path) &&
		chain_add(arrival, span_head(command->ret, arrival->ret_len)) &&
		chain_add(arrival, span_head(command->envid, arrival->envid_len)))
		return arrival;
	arrival_drop(&arrival);
	return NULL;
}

int arrival_begin(struct arrival *arrival)
{
	struct queues *queues = arrival->intake->options.queues;
	int rc;

	arrival->message = message_take(queues, arrival->intake->options.spool);
	if (arrival->message == NULL)
		return -ENOBUFS;
	rc = spool_begin(&arrival->writer, message_spool(arrival->message)->id);
	if (rc < 0)
		message_put(queues, &arrival->message);
	return rc;
}

uint64_t arrival_id(const struct arrival *arrival)
{
	return message_spool(arrival->message)->id;
}

static void arrival_put(struct arrival *arrival)
{
	struct intake *intake = arrival->intake;

	while (arrival->first != NULL) {
		struct arrival_block *block = arrival->first;

		arrival->first = block->next;
		pool_put(&intake->blocks, block);
	}
	if (arrival->message != NULL)
		message_put(intake->options.queues, &arrival->message);
	pool_put(&intake->arrivals, arrival);
}

void arrival_drop(struct arrival **out)
{
	struct arrival *arrival = *out;

	*out = NULL;
	if (arrival == NULL)
		return;
	arrival->owner = NULL;
	if (arrival->is_committing)
		return;
	spool_abandon(&arrival->writer);
	arrival_put(arrival);
}

/* Recipients, and the body. */

static uint32_t arrival_rcpts_at(const struct arrival *arrival)
{
	return arrival->sender_len + arrival->ret_len + arrival->envid_len;
}

int arrival_add_rcpt(struct arrival *arrival, const struct command *command)
{
	const struct envelope_rcpt rcpt = {.state = RCPT_OPEN,
		.path = command->path,
		.notify = command->params & PARAM_NOTIFY ? command->notify : (struct span){0},
		.orcpt = command->params & PARAM_ORCPT ? command->orcpt : (struct span){0}};
	uint8_t bytes[LONG_COMMAND_LINE_BYTES_MAX + 64];
	size_t len = envelope_write_rcpt(&rcpt, bytes, sizeof(bytes));

	if (len == 0 || arrival->rcpts_len + len > RCPTS_BYTES_MAX)
		return -E2BIG;
	if (!chain_add(arrival, span_make(bytes, len)))
		return -ENOBUFS;
	arrival->rcpts_len += (uint32_t)len;
	arrival->rcpt_len = (uint32_t)len;
	arrival->rcpt_count++;
	return 0;
}

void arrival_forget_rcpt(struct arrival *arrival)
{
	ASSERT(arrival->rcpt_count > 0 && arrival->rcpt_len > 0);
	chain_cut(arrival, arrival->len - arrival->rcpt_len);
	arrival->rcpts_len -= arrival->rcpt_len;
	arrival->rcpt_len = 0;
	arrival->rcpt_count--;
}

size_t arrival_room(struct arrival *arrival)
{
	return arrival->is_broken ? SIZE_MAX : spool_room(&arrival->writer);
}

void arrival_write(struct arrival *arrival, struct span text)
{
	if (arrival->is_broken)
		return;
	arrival->body_bytes += text.len;
	if (!arrival->fields.is_done)
		fields_scan(&arrival->fields, text);
	if (!arrival->is_eight_bit)
		arrival->is_eight_bit = span_has_high(text);
	spool_write(&arrival->writer, text);
}

/* The envelope. */

static unsigned arrival_flags(const struct arrival *arrival, const struct arrival_facts *facts)
{
	unsigned flags = 0;

	flags |= arrival->params & PARAM_SMTPUTF8 ? ENVELOPE_SMTPUTF8 : 0;
	flags |= arrival->is_eight_bit ? ENVELOPE_EIGHT_BIT : 0;
	flags |= arrival->fields.is_utf8 ? ENVELOPE_UTF8_HEADER : 0;
	flags |= facts->sender->grant.role == ROLE_PARTNER ? ENVELOPE_SECURED : 0;
	flags |= facts->sender->grant.role == ROLE_INTERNAL ? ENVELOPE_INTERNAL : 0;
	flags |= facts->durability == DURABILITY_RELAXED ? ENVELOPE_RELAXED : 0;
	return flags;
}

/* All but the recipients; 0: it does not fit. */
static size_t arrival_write_front(
	struct arrival *arrival, const struct arrival_facts *facts, uint8_t *out)
{
	const struct identity *client = facts->client;
	const int64_t now_ms = arrival->intake->options.now_ms();
	uint8_t mail[LONG_COMMAND_LINE_BYTES_MAX];
	char address[ADDRESS_TEXT_BYTES] = "";
	char server[ADDRESS_TEXT_BYTES] = "";
	char tls[2 * IDENTITY_WORD_BYTES + 2] = "";
	struct span rest = span_make(mail, arrival_rcpts_at(arrival));
	struct envelope envelope = {.body = arrival->body,
		.flags = arrival_flags(arrival, facts),
		.rcpt_count = arrival->rcpt_count,
		.arrived_ms = now_ms,
		.expires_ms = now_ms + (int64_t)facts->expiration_ms,
		.body_bytes = arrival->body_bytes,
		.header_bytes = arrival->fields.bytes};

	ASSERT(rest.len <= sizeof(mail));
	chain_copy(arrival, 0, (uint32_t)rest.len, mail);
	envelope.sender = span_head(rest, arrival->sender_len);
	envelope.ret = span_head(span_skip(rest, arrival->sender_len), arrival->ret_len);
	envelope.envid = span_skip(rest, (size_t)arrival->sender_len + arrival->ret_len);
	(void)ip_print(&client->source, address, sizeof(address));
	(void)ip_print(&client->destination, server, sizeof(server));
	if (client->tls_version[0] != '\0')
		(void)format_print(
			tls, sizeof(tls), "%s %s", client->tls_version, client->tls_cipher);
	envelope.connector = span_of(facts->connector);
	envelope.send_connector =
		span_of(facts->send_connector == NULL ? "" : facts->send_connector);
	envelope.session = span_of(client->session);
	envelope.client = span_of(address);
	envelope.helo = span_of(client->helo);
	envelope.domain = span_of(
		facts->sender->grant.role == ROLE_PARTNER ? facts->sender->grant.domain : "");
	envelope.message_id = fields_message_id(&arrival->fields);
	envelope.subject = fields_subject(&arrival->fields);
	envelope.server = span_of(server);
	envelope.tls = span_of(tls);
	return envelope_write(&envelope, out, FRONT_BYTES_MAX);
}

/* The front joins the chain: it is wanted again later, when nobody else has it. False: no room. */
static bool arrival_gather(struct arrival *arrival, const struct arrival_facts *facts)
{
	uint8_t *bytes = arrival->intake->envelope;
	size_t len = arrival_write_front(arrival, facts, bytes);

	if (len == 0 || !chain_add(arrival, span_make(bytes, len)))
		return false;
	arrival->front_len = (uint32_t)len;
	(void)format_print(
		arrival->session, sizeof(arrival->session), "%s", facts->client->session);
	return true;
}

int arrival_commit(struct arrival *arrival, const struct arrival_facts *facts)
{
	uint8_t *bytes = arrival->intake->envelope;
	size_t len;

	if (arrival->is_broken)
		return -EIO;
	if (!arrival_gather(arrival, facts))
		return -ENOBUFS;
	len = arrival->front_len;
	chain_copy(arrival, arrival_rcpts_at(arrival), arrival->rcpts_len, bytes + len);
	arrival->is_committing = true;
	spool_commit(&arrival->writer, span_make(bytes, len + arrival->rcpts_len),
		facts->durability, message_spool(arrival->message));
	return 0;
}

/* It is safe. */

static void arrival_read(struct arrival *arrival, struct envelope *out)
{
	uint8_t *bytes = arrival->intake->envelope;
	bool is_good;

	chain_copy(
		arrival, arrival_rcpts_at(arrival) + arrival->rcpts_len, arrival->front_len, bytes);
	chain_copy(
		arrival, arrival_rcpts_at(arrival), arrival->rcpts_len, bytes + arrival->front_len);
	is_good = envelope_read(
		span_make(bytes, (size_t)arrival->front_len + arrival->rcpts_len), out);
	ASSERT(is_good);
}

static struct span arrival_unbracket(struct span path)
{
	return path.len < 2 ? path : span_head(span_skip(path, 1), path.len - 2);
}

/* "a@b;c@d"; those that do not fit are counted only. */
static struct span arrival_names(struct arrival *arrival, const struct envelope *envelope)
{
	uint8_t *out = arrival->intake->names;
	struct envelope_rcpt rcpt;
	size_t len = 0;
	size_t at = 0;

	while (envelope_next(envelope, &at, &rcpt)) {
		struct span name = arrival_unbracket(rcpt.path);

		if (len + 1 + name.len > NAMES_BYTES_MAX)
			break;
		if (len > 0)
			out[len++] = ';';
		if (name.len > 0)
			memcpy(out + len, name.data, name.len);
		len += name.len;
	}
	return span_make(out, len);
}

static void arrival_track(struct arrival *arrival, const struct envelope *envelope)
{
	char connector[NAME_BYTES_MAX];
	struct track_row row = {.event = TRACK_RECEIVE,
		.source = "SMTP",
		.connector = connector,
		.context = arrival->session,
		.client_ip = envelope->client,
		.client_host = envelope->helo,
		.server_ip = envelope->server,
		.server_host = span_of(arrival->fqdn),
		.id = arrival_id(arrival),
		.message_id = envelope->message_id,
		.bytes = envelope->body_bytes,
		.recipient_count = envelope->rcpt_count,
		.sender = arrival_unbracket(envelope->sender)};

	if (!track_is_on())
		return;
	(void)format_print(connector, sizeof(connector), "%.*s", (int)envelope->connector.len,
		(const char *)envelope->connector.data);
	row.recipients = arrival_names(arrival, envelope);
	if (arrival->has_subject)
		row.subject = envelope->subject;
	track_write(&row);
}

void arrival_track_passed(struct arrival *arrival, const struct arrival_facts *facts,
	const struct arrival_passed *passed)
{
	struct envelope envelope;
	struct track_row row = {.event = TRACK_SEND,
		.source = "SMTP",
		.connector = passed->connector,
		.context = passed->context,
		.server_ip = passed->server_ip,
		.server_host = passed->server_host,
		.id = arrival_id(arrival),
		.statuses = passed->reply};

	if (!track_is_on() || !arrival_gather(arrival, facts))
		return;
	arrival_read(arrival, &envelope);
	arrival_track(arrival, &envelope);
	row.message_id = envelope.message_id;
	row.recipients = arrival_names(arrival, &envelope);
	row.recipient_count = envelope.rcpt_count;
	row.bytes = envelope.body_bytes;
	row.sender = arrival_unbracket(envelope.sender);
	if (arrival->has_subject)
		row.subject = envelope.subject;
	track_write(&row);
}

static bool arrival_is_printable(struct span text)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.data[i] < ' ' || text.data[i] > '~')
			return false;
	return text.len > 0 && text.len <= REPLY_MESSAGE_ID_BYTES_MAX;
}

/* EXCHANGE 4.7: the message's own id, or, if it has none that a reply can have, ours. */
static size_t arrival_reply(const struct arrival *arrival, int result, char *out, size_t out_bytes)
{
	const struct span own = fields_message_id(&arrival->fields);
	char id[MESSAGE_ID_TEXT_BYTES];
	char name[NAME_BYTES_MAX + sizeof(id) + 4];

	if (result == -ENOSPC || result == -ENOBUFS)
		return format_print(out, out_bytes, "452 4.3.1 Insufficient system resources\r\n");
	if (result < 0)
		return format_print(
			out, out_bytes, "451 4.3.0 The message could not be stored\r\n");
	message_id_print(arrival_id(arrival), id);
	(void)format_print(name, sizeof(name), "<%s@%s>", id, arrival->fqdn);
	if (arrival_is_printable(own))
		(void)format_print(
			name, sizeof(name), "%.*s", (int)own.len, (const char *)own.data);
	return format_print(out, out_bytes,
		"250 2.6.0 %s Queued mail for delivery [InternalId=%s, Hostname=%s]\r\n", name, id,
		arrival->fqdn);
}

/* From here on nobody but the queues has it. */
static void arrival_submit(struct arrival *arrival)
{
	struct envelope envelope;

	arrival_read(arrival, &envelope);
	STAT(queue_accepted);
	STAT_ADD(queue_bytes, envelope.body_bytes);
	arrival_track(arrival, &envelope);
	if (arrival->owner == NULL) {
		char id[MESSAGE_ID_TEXT_BYTES];

		/* The session has said "unanswered", and could not say more. */
		message_id_print(arrival_id(arrival), id);
		log_event(LOG_LEVEL_INFO, arrival->session, "message",
			"result=kept nexthop=queue:%s why=\"the client left before the answer\"",
			id);
	}
	queues_submit(arrival->intake->options.queues, &arrival->message, &envelope);
}

static void arrival_on_committed(struct spool_writer *writer, int result)
{
	struct arrival *arrival = OWNER_OF(writer, struct arrival, writer);
	const struct arrival_events *events = arrival->events;
	void *owner = arrival->owner;
	char reply[NAME_BYTES_MAX + 768];
	size_t len = arrival_reply(arrival, result, reply, sizeof(reply));

	if (result == 0)
		arrival_submit(arrival);
	else
		STAT(queue_refused);
	arrival_put(arrival);
	if (owner != NULL)
		events->on_stored(owner, result, span_make(reply, len));
}

static void arrival_on_room(struct spool_writer *writer)
{
	struct arrival *arrival = OWNER_OF(writer, struct arrival, writer);

	if (arrival->owner != NULL)
		arrival->events->on_room(arrival->owner);
}

static void arrival_on_broken(struct spool_writer *writer, int error)
{
	struct arrival *arrival = OWNER_OF(writer, struct arrival, writer);

	arrival->is_broken = true;
	STAT(queue_refused);
	if (arrival->owner != NULL)
		arrival->events->on_broken(arrival->owner, error);
}

static const struct spool_writer_events arrival_writer_events = {
	.on_room = arrival_on_room,
	.on_committed = arrival_on_committed,
	.on_broken = arrival_on_broken,
};
