/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/session.h"

#include "relay/base/format.h"
#include "relay/base/limits.h"
#include "relay/base/log.h"
#include "relay/base/stats.h"
#include "relay/smtp/reply.h"
#include <stdarg.h>

/*
 * verbs.c: what each command does. Each first checks (order, policy, limits)
 * and then proceeds. False means: not now, give me this line again.
 */

/* Past this a refused chunk is not worth reading to its end: the session is closed instead. */
#define CHUNK_DROP_BYTES_MAX 4294967296

/* What this connector announces at the most; the path takes away what it cannot carry. */
static unsigned connector_keywords(const struct receive_connector *connector)
{
	unsigned keywords = 0;

	keywords |= connector->size != SIZE_DISABLED ? EHLO_SIZE : 0;
	keywords |= connector->pipelining ? EHLO_PIPELINING : 0;
	keywords |= connector->eight_bit_mime ? EHLO_8BITMIME : 0;
	keywords |= connector->smtputf8 ? EHLO_SMTPUTF8 : 0;
	keywords |= connector->chunking ? EHLO_CHUNKING : 0;
	keywords |= connector->chunking && connector->binary_mime ? EHLO_BINARYMIME : 0;
	keywords |= connector->dsn ? EHLO_DSN : 0;
	keywords |= connector->enhanced_status_codes ? EHLO_ENHANCEDSTATUSCODES : 0;
	return keywords;
}

static bool session_is_secured(const struct session *session)
{
	return session->conn.facts.version != NULL;
}

/* Without a certificate of ours there is no TLS (EXCHANGE 5.1). */
static bool session_may_start_tls(const struct session *session)
{
	return session->connector->tls == TLS_MODE_STARTTLS && session->tls_context != NULL &&
	       !session_is_secured(session);
}

static void session_announce_size(struct session *session)
{
	uint64_t size = session->connector->max_message_bytes;
	uint64_t path = session->sink->offer & EHLO_SIZE ? session->sink->offer_size : 0;

	if (path > 0 && path < size)
		size = path;
	session->announced_size = size;
}

/* The lines of an EHLO reply, which leave, and are logged, as the one reply that they are. */
struct ehlo_text {
	char text[1024];
	size_t len;
};

PRINTF_LIKE(2, 3)
static void ehlo_add(struct ehlo_text *out, const char *format, ...)
{
	const size_t room = sizeof(out->text) - out->len;
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(out->text + out->len, room, format, args);
	va_end(args);
	/* A fqdn of 255 bytes, an address and the keywords above: it fits. */
	ASSERT(len > 0 && (size_t)len < room);
	out->len += (size_t)len;
}

void session_answer_ehlo(struct session *session)
{
	static const struct {
		unsigned keyword;
		const char *text;
	} plain[] = {
		{EHLO_PIPELINING, "PIPELINING"},
		{EHLO_DSN, "DSN"},
		{EHLO_ENHANCEDSTATUSCODES, "ENHANCEDSTATUSCODES"},
		{EHLO_8BITMIME, "8BITMIME"},
		{EHLO_SMTPUTF8, "SMTPUTF8"},
		{EHLO_CHUNKING, "CHUNKING"},
		{EHLO_BINARYMIME, "BINARYMIME"},
	};
	const struct receive_connector *connector = session->connector;
	/* What ends at us does not depend on the path; whose codes the replies carry does (RFC
	 * 2034). */
	const unsigned ours = EHLO_SIZE | EHLO_PIPELINING | EHLO_CHUNKING;
	struct ehlo_text reply = {.len = 0};

	session->is_ehlo_waiting = false;
	session->announced = connector_keywords(connector) & (ours | session->sink->offer);
	session_announce_size(session);
	session_enter(session, SESSION_READY);
	ehlo_add(&reply, "250-%s Hello [%s]\r\n", connector->fqdn, session->peer);
	if (session->announced & EHLO_SIZE && connector->size == SIZE_WITHOUT_VALUE)
		ehlo_add(&reply, "250-SIZE\r\n");
	else if (session->announced & EHLO_SIZE)
		ehlo_add(&reply, "250-SIZE %lu\r\n", (unsigned long)session->announced_size);
	for (unsigned i = 0; i < COUNT_OF(plain); i++) {
		if (session->announced & plain[i].keyword)
			ehlo_add(&reply, "250-%s\r\n", plain[i].text);
	}
	if (session_may_start_tls(session))
		ehlo_add(&reply, "250-STARTTLS\r\n");
	if (session->is_front_end)
		ehlo_add(&reply, "250-%s\r\n", XCLIENT_KEYWORD);
	ehlo_add(&reply, "250 HELP\r\n");
	session_write(session, span_make(reply.text, reply.len));
}

static void verb_helo(struct session *session, const struct command *command)
{
	if (session->connector->require_ehlo_domain && command->domain.len == 0) {
		session_error(session, "501 5.5.4 Invalid domain name");
		return;
	}
	if (session->state > SESSION_READY)
		session_reset(session);
	(void)format_print(session->helo, sizeof(session->helo), "%.*s", (int)command->domain.len,
		(const char *)command->domain.data);
	session->is_extended = command->verb == VERB_EHLO;
	session->announced = 0;
	if (!session->is_extended) {
		session_enter(session, SESSION_READY);
		session_reply(
			session, "250 %s Hello [%s]", session->connector->fqdn, session->peer);
		return;
	}
	session->sink->offer = 0;
	session->sink->offer_size = 0;
	session->is_ehlo_waiting = true;
	if (admission_is_possible(session) &&
		session->sink->ops->hello(session->sink) == SINK_WAIT) {
		session->waits |= SESSION_WAIT_SINK;
		return;
	}
	session_answer_ehlo(session);
}

/* Which keywords this command's parameters need. */
static unsigned command_needs(const struct command *command)
{
	unsigned needs = 0;

	needs |= command->params & PARAM_SIZE ? EHLO_SIZE : 0;
	needs |= command->params & PARAM_SMTPUTF8 ? EHLO_SMTPUTF8 : 0;
	needs |= command->params & (PARAM_RET | PARAM_ENVID | PARAM_NOTIFY | PARAM_ORCPT) ? EHLO_DSN
											  : 0;
	if (command->params & PARAM_BODY)
		needs |= command->body == BODY_BINARYMIME ? EHLO_BINARYMIME : EHLO_8BITMIME;
	return needs;
}

/* Parameters that were not announced are not understood (RFC 5321 4.1.1.11). */
static bool session_refuses_params(struct session *session, const struct command *command)
{
	unsigned lacks = command_needs(command) & ~session->announced;
	bool is_utf8 = session->transaction.is_utf8 || command->params & PARAM_SMTPUTF8;

	if (lacks != 0) {
		session_error(session, "555 5.5.4 Unsupported option");
		return true;
	}
	if (command_is_utf8(command) && !is_utf8) {
		session_error(session, "553 5.6.7 Address needs SMTPUTF8");
		return true;
	}
	return false;
}

static void verb_log_mail(const struct session *session, const struct command *command)
{
	char sender[SESSION_SENDER_BYTES];

	if (log_level_max < LOG_LEVEL_DEBUG)
		return;
	log_event(LOG_LEVEL_DEBUG, session->id, "mail", "from=%s size=%lu",
		log_quote(command->path, sender, sizeof(sender)), (unsigned long)command->size);
}

/* What is wrong with this MAIL, apart from who says it. True: it was answered. */
static bool session_refuses_mail(struct session *session, const struct command *command)
{
	if (session_refuses_params(session, command))
		return true;
	if (command->params & PARAM_SIZE && command->size > session->announced_size) {
		session_reply(session, "552 5.3.4 Message size exceeds fixed maximum message size");
		return true;
	}
	if (!session->owner->on_message(session)) {
		STAT(message_rate_refused);
		log_event(LOG_LEVEL_INFO, session->id, "refused", "peer=%s why=message-rate",
			session->peer);
		session_kick(session, "421 4.4.2 Message submission rate for this client has "
				      "exceeded the configured limit");
		return true;
	}
	/* Asked last: there may be no way any more for messages of this session. */
	if (session->is_draining) {
		session_kick(
			session, "421 4.3.2 Service not available, closing transmission channel");
		return true;
	}
	return false;
}

static bool verb_mail(struct session *session, const struct command *command)
{
	struct transaction *transaction = &session->transaction;
	enum admission_step step;
	enum sink_status status;
	struct grant grant;

	if (session->state == SESSION_MAIL) {
		session_error(session, "503 5.5.2 Sender already specified");
		return true;
	}
	step = admission_sender(session, command->path, &grant);
	if (step != ADMISSION_PASSED)
		return step == ADMISSION_REFUSED;
	if (session_refuses_mail(session, command))
		return true;
	*transaction = (struct transaction){.is_mail_pending = true,
		.pending = 1,
		.is_utf8 = (command->params & PARAM_SMTPUTF8) != 0,
		.is_binary = command->body == BODY_BINARYMIME,
		.announced_bytes = command->params & PARAM_SIZE ? command->size : 0,
		.grant = grant};
	(void)format_print(transaction->sender, sizeof(transaction->sender), "%.*s",
		(int)command->path.len, (const char *)command->path.data);
	verb_log_mail(session, command);
	status = session->sink->ops->mail(session->sink, command, OWN_FIELDS_BYTES_MAX);
	if (status == SINK_FAIL) {
		*transaction = (struct transaction){0};
		session_reply(session, "%s", session->sink->refusal);
		return true;
	}
	session_enter(session, SESSION_MAIL);
	if (status == SINK_DONE) {
		transaction->pending = 0;
		transaction->is_mail_pending = false;
		session_reply(session, "250 2.1.0 Sender OK");
	}
	return true;
}

/* One recipient more. Of one that is too long to keep, nothing is: half of it would be another. */
static void verb_count_rcpt(struct transaction *transaction, struct span path)
{
	transaction->rcpt_count++;
	transaction->recipient[0] = '\0';
	if (transaction->rcpt_count == 1 && path.len < sizeof(transaction->recipient))
		(void)format_print(transaction->recipient, sizeof(transaction->recipient), "%.*s",
			(int)path.len, (const char *)path.data);
}

/* The sink is asked to take one. False: it is given again. */
static bool verb_give_rcpt(struct session *session, const struct command *command)
{
	struct transaction *transaction = &session->transaction;
	enum sink_status status = session->sink->ops->rcpt(session->sink, command);

	/* A refusal of ours may not overtake the answers that are under way. */
	if (status == SINK_FULL || (status == SINK_FAIL && transaction->pending > 0)) {
		session->waits |= SESSION_WAIT_REPLIES;
		return false;
	}
	verb_count_rcpt(transaction, command->path);
	if (status == SINK_WAIT) {
		transaction->pending++;
	} else if (status == SINK_DONE) {
		transaction->rcpt_accepted++;
		session_reply(session, "250 2.1.5 Recipient OK");
	} else {
		session_reply(session, "%s", session->sink->refusal);
	}
	return true;
}

static bool verb_rcpt(struct session *session, const struct command *command)
{
	struct transaction *transaction = &session->transaction;
	enum admission_step step;

	if (session->state != SESSION_MAIL || transaction->has_bdat) {
		if (!session_may_reply(session))
			return false;
		session_error(session, "503 5.5.2 Need mail command");
		return true;
	}
	if (transaction->rcpt_count >= session->connector->max_recipients_per_message) {
		if (!session_may_reply(session))
			return false;
		session_reply(session, "452 4.5.3 Too many recipients");
		return true;
	}
	if (transaction->pending >= PIPELINE_DEPTH_MAX) {
		session->waits |= SESSION_WAIT_REPLIES;
		return false;
	}
	if ((command_needs(command) & ~session->announced) != 0 ||
		(command_is_utf8(command) && !transaction->is_utf8)) {
		if (!session_may_reply(session))
			return false;
		(void)session_refuses_params(session, command);
		return true;
	}
	step = admission_recipient(session, command->path);
	if (step == ADMISSION_REFUSED)
		verb_count_rcpt(transaction, command->path);
	if (step != ADMISSION_PASSED)
		return step == ADMISSION_REFUSED;
	return verb_give_rcpt(session, command);
}

/* Is a body in order? Else says why not. */
static const char *session_body_refusal(const struct session *session)
{
	if (session->state != SESSION_MAIL)
		return "503 5.5.2 Need mail command";
	if (session->transaction.rcpt_accepted == 0 && !session->transaction.is_discarding)
		return session->transaction.rcpt_count == 0 ? "503 5.5.2 Need rcpt command"
							    : "554 5.5.1 No valid recipients";
	return NULL;
}

/*
 * DATA, or the first chunk, which stands for it: the sink has to be ready before
 * a body is read. A refused chunk is read all the same, and thrown away.
 */
static void session_open_body(struct session *session)
{
	const bool is_chunk = session->transaction.has_bdat;
	char refusal[SESSION_REPLY_BYTES];

	switch (session->sink->ops->data(session->sink)) {
	case SINK_DONE:
		if (is_chunk)
			body_start_chunk(session);
		else
			body_start_data(session);
		break;
	case SINK_WAIT:
		session->transaction.is_data_pending = true;
		session->waits |= SESSION_WAIT_SINK;
		break;
	case SINK_FULL:
	case SINK_FAIL:
		(void)snprintf(refusal, sizeof(refusal), "%s\r\n", session->sink->refusal);
		body_refuse(session, 451, span_of(refusal));
		break;
	}
}

static void verb_data(struct session *session)
{
	const char *refusal = session_body_refusal(session);

	if (refusal == NULL && session->transaction.has_bdat)
		refusal = "503 5.5.1 DATA may not follow BDAT";
	if (refusal == NULL && session->transaction.is_binary)
		refusal = "503 5.5.1 BODY=BINARYMIME needs BDAT";
	if (refusal != NULL)
		session_error(session, "%s", refusal);
	else
		session_open_body(session);
}

static void verb_bdat(struct session *session, const struct command *command)
{
	struct transaction *transaction = &session->transaction;
	const char *refusal = session_body_refusal(session);
	bool is_first = !transaction->has_bdat;

	if (!(session->announced & EHLO_CHUNKING))
		refusal = "503 5.5.1 CHUNKING was not offered";
	if (command->chunk_bytes > CHUNK_DROP_BYTES_MAX) {
		/* Nobody would wait for its end, and behind it nothing could be told apart. */
		session_kick(session, "552 5.3.4 Message size exceeds fixed maximum message size");
		return;
	}
	if (refusal != NULL) {
		session->drop_left = command->chunk_bytes;
		session->drop_reply = refusal;
		if (command->chunk_bytes == 0)
			session_error(session, "%s", refusal);
		return;
	}
	transaction->has_bdat = true;
	transaction->chunk_left = command->chunk_bytes;
	transaction->chunk_is_last = command->chunk_is_last;
	if (command->chunk_bytes > session->connector->max_message_bytes)
		session_discard(session,
			span_of("552 5.3.4 Message size exceeds fixed maximum message size\r\n"));
	if (transaction->is_discarding)
		session_enter(session, SESSION_CHUNK);
	else if (is_first)
		session_open_body(session);
	else
		body_start_chunk(session);
}

static void verb_starttls(struct session *session, const struct command *command, size_t line_len)
{
	if (!session_may_start_tls(session)) {
		session_error(session, "503 5.5.1 STARTTLS is not available");
		return;
	}
	if (command->argument.len > 0) {
		session_error(session, "501 5.5.4 STARTTLS takes no argument");
		return;
	}
	if (session->state == SESSION_MAIL) {
		session_error(session, "503 5.5.1 STARTTLS may not follow MAIL");
		return;
	}
	if (conn_input(&session->conn).len > line_len + 2) {
		/* Commands that somebody slipped in before TLS would count as the partner's own. */
		STAT(tls_plaintext_injected);
		log_event(LOG_LEVEL_WARNING, session->id, "refused",
			"peer=%s why=plaintext-behind-starttls", session->peer);
		session_kick(session,
			"554 5.5.0 Plaintext behind STARTTLS, closing transmission channel");
		return;
	}
	session_reply(session, "220 2.0.0 SMTP server ready");
	session->starts_tls = true;
}

/* The verbs that need nobody. */
static void verb_simple(struct session *session, const struct command *command)
{
	switch (command->verb) {
	case VERB_RSET:
		session_reset(session);
		if (session->state == SESSION_MAIL)
			session_enter(session, SESSION_READY);
		session_reply(session, "250 2.0.0 Resetting");
		break;
	case VERB_NOOP:
		session_reply(session, "250 2.0.0 OK");
		break;
	case VERB_VRFY:
		session_reply(session, "252 2.1.5 Cannot VRFY user, but will take a message");
		break;
	case VERB_HELP:
		session_reply(session, "214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY "
				       "HELP QUIT STARTTLS");
		break;
	case VERB_QUIT:
		session_reply(session, "221 2.0.0 Service closing transmission channel");
		session_close(session);
		break;
	case VERB_EXPN:
	case VERB_AUTH:
		session_error(session, "502 5.5.1 %s is not implemented", verb_name(command->verb));
		break;
	case VERB_UNKNOWN:
	case VERB_EHLO:
	case VERB_HELO:
	case VERB_MAIL:
	case VERB_RCPT:
	case VERB_DATA:
	case VERB_BDAT:
	case VERB_STARTTLS:
	case VERB_XCLIENT:
	case VERB_COUNT:
		UNREACHABLE();
	}
}

/* A command that cannot be read. After a bad BDAT nobody knows where the next command begins. */
static void verb_bad(struct session *session, const struct command *command)
{
	if (command->verb == VERB_BDAT) {
		STAT(protocol_errors);
		session_kick(session, command->error);
		return;
	}
	session_error(session, "%s", command->error);
}

bool verb_run(struct session *session, struct span line)
{
	struct command command;
	enum command_status status = command_parse(line,
		session->connector->long_addresses ? LONG_ADDRESS_BYTES_MAX : ADDRESS_BYTES_MAX,
		&command);

	if (status == COMMAND_OK && command.verb == VERB_RCPT) {
		if (session->state >= SESSION_READY)
			return verb_rcpt(session, &command);
	}
	if (!session_may_reply(session))
		return false;
	if (status != COMMAND_OK) {
		verb_bad(session, &command);
		return true;
	}
	if (session->state == SESSION_HELLO &&
		(command.verb == VERB_MAIL || command.verb == VERB_RCPT)) {
		session_error(session, "503 5.5.2 Send hello first");
		return true;
	}
	switch (command.verb) {
	case VERB_EHLO:
	case VERB_HELO:
		verb_helo(session, &command);
		break;
	case VERB_MAIL:
		return verb_mail(session, &command);
	case VERB_DATA:
		verb_data(session);
		break;
	case VERB_BDAT:
		verb_bdat(session, &command);
		break;
	case VERB_STARTTLS:
		verb_starttls(session, &command, line.len);
		break;
	case VERB_XCLIENT:
		announce_xclient(session, &command);
		break;
	case VERB_RSET:
	case VERB_NOOP:
	case VERB_VRFY:
	case VERB_HELP:
	case VERB_QUIT:
	case VERB_EXPN:
	case VERB_AUTH:
	case VERB_UNKNOWN:
	case VERB_RCPT:
	case VERB_COUNT:
		verb_simple(session, &command);
		break;
	}
	return true;
}
