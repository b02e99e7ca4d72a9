/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * sink.h: where a session hands its mail. The one interface in the middle: a
 * session does not know whether a next hop or a disk is behind it.
 *
 * One transaction: mail, rcpt..., data, body..., finish; abandon ends it at any
 * point. A session owns its sink's memory; the sink's maker (worker.c) embeds it.
 */

#include "policy/admit.h"
#include "relay/base/assert.h"
#include "relay/base/span.h"
#include "relay/smtp/command.h"
#include "relay/smtp/identity.h"

enum sink_status {
	SINK_DONE, /* done; the session goes on, and gives its own reply where one is due */
	SINK_WAIT, /* an answer will come: on_reply for mail, rcpt, data, finish; on_ready for hello
		    */
	SINK_FULL, /* rcpt only: ask again after the next on_reply */
	SINK_FAIL, /* refused: sink->refusal is the reply; the transaction (rcpt: the recipient) is
		      over */
};

/* Less room than this is none: so much may be held back by whoever writes. */
#define SINK_ROOM_MIN 2048

/* What a session adds to a message: Received, Authentication-Results, Exchange's stamps. */
#define OWN_FIELDS_BYTES_MAX 4352

/* What MAIL was admitted as. */
struct grant {
	enum role role;
	char partner[64];              /* ROLE_PARTNER: its name, for the log */
	char domain[DOMAIN_BYTES_MAX]; /* and the domain that it has proved */
};

/* For sinks that decide by who sends. */
struct sink_sender {
	struct grant grant;
	bool is_proved; /* somebody that we know; see session.h */
};

struct sink;

struct sink_ops {
	/* May the path be asked what it can carry? Sets offer; SINK_WAIT if that takes time. */
	enum sink_status (*hello)(struct sink *sink);
	/* size_extra: what we shall add to the message ourselves. */
	enum sink_status (*mail)(
		struct sink *sink, const struct command *command, uint64_t size_extra);
	enum sink_status (*rcpt)(struct sink *sink, const struct command *command);
	/* The body begins. All earlier replies have come, and one recipient is accepted at least.
	 */
	enum sink_status (*data)(struct sink *sink);
	/*
	 * How much text body() takes now, SINK_ROOM_MIN at least. 0: none; then on_ready comes
	 * when that changes.
	 */
	size_t (*room)(struct sink *sink);
	/* Body text, unstuffed, no more than room() said. */
	void (*body)(struct sink *sink, struct span text);
	/* No more text will come for a while: what is gathered should go now. */
	void (*push)(struct sink *sink);
	/* The body is complete. The answer to the message comes with on_reply; SINK_FAIL: with
	 * refusal. */
	enum sink_status (*finish)(struct sink *sink);
	/* Forget the transaction; nothing of it may be delivered. Harmless without one. No call
	 * follows. */
	void (*abandon)(struct sink *sink);
};

/* What the session is told; never from within one of the calls above. */
struct sink_events {
	/* The next answer, in the order of the calls: all its lines with CR LF. */
	void (*on_reply)(struct sink *sink, unsigned code, struct span wire);
	/* The wait of hello is over, or there is room again. */
	void (*on_ready)(struct sink *sink);
	/* The body cannot be delivered any more; wire is the reply to give when it has ended. */
	void (*on_broken)(struct sink *sink, unsigned code, struct span wire);
	/* No event: whom the sink serves, for a next hop that is to know. Any time. */
	void (*identify)(struct sink *sink, struct identity *out);
	/* No event either: as what the sender was admitted. From mail() on. */
	void (*admitted)(struct sink *sink, struct sink_sender *out);
};

struct sink {
	const struct sink_ops *ops;
	const struct sink_events *events;
	void *owner;     /* the session, for its events */
	const char *via; /* whose answers these are, for the log: the next hop's session; NULL: none
			    yet */
	const char *refusal; /* SINK_FAIL: a whole reply line without CR LF */
	unsigned offer;      /* enum ehlo_keyword bits that the path can carry */
	uint64_t offer_size; /* how many octets a client's message may have; 0: not known */
	uint64_t bytes_max;  /* what the destination takes, known as is_trusted is; 0: all */
	bool is_trusted;     /* the destination is trusted with Exchange's header fields; known when
				data() has returned SINK_DONE or its answer has come */
};
