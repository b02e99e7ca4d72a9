/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * session.h: one inbound SMTP conversation, from banner to close.
 *
 *   TLS (implicit) --> GREETING --> HELLO --EHLO--> READY --MAIL--> MAIL --DATA--> BODY
 *                                     ^             |  ^             |    BDAT     |  ^
 *                                     |    STARTTLS |  +-- RSET -----+--> CHUNK <--+  |
 *                                     +--- TLS <----+  |                    |         |
 *                                                      +---- the sink's answer <-- FINISH
 *
 *   (ANNOUNCE, where a balancer must say first for whom it connects, stands in front of it all;
 *   XCLIENT leads from HELLO and READY back to GREETING)
 *
 *   EHLO and RSET lead back to READY. Any state goes to CLOSE: QUIT, deadline,
 *   I/O error, too many errors. After TLS nothing from before is remembered
 *   (RFC 3207 4.2).
 *
 * Owns: its conn, and the transaction between MAIL and the sink's answer.
 * Borrows: the connector, until on_closed of its owner. Who may send is asked of the snapshot
 * in force at MAIL, through *world, which its owner changes with a reload.
 * Fails: never upward. A peer's mistakes are replies; ours are assertions.
 *
 * While a verb waits (TLS, sink) nothing is read from the peer, so the receive
 * buffer is the only queue. MAIL and RCPT go on to the sink without waiting for
 * each other's answers (RFC 2920); answers come back in order, and every other
 * verb waits until all are there.
 */

#include "policy/admit.h"
#include "policy/policy.h"
#include "relay/base/protolog.h"
#include "relay/net/conn.h"
#include "relay/pki/trust.h"
#include "relay/smtp/dot.h"
#include "relay/smtp/firewall.h"
#include "relay/smtp/header.h"
#include "relay/smtp/sink.h"
#include "relay/smtp/trace.h"
#include "relay/smtp/xclient.h"

enum session_state {
	SESSION_ANNOUNCE, /* the balancer's PROXY header is awaited; nothing is said */
	SESSION_GREETING, /* nothing was said yet */
	SESSION_HELLO,    /* banner sent, or TLS just begun: nothing is known of the peer */
	SESSION_READY,    /* greeted; no transaction */
	SESSION_TLS,      /* handshake running; the peer is not read as SMTP */
	SESSION_MAIL,     /* MAIL was given to the sink, RCPT may follow */
	SESSION_BODY,     /* DATA: text until CR LF . CR LF */
	SESSION_CHUNK,    /* BDAT: so many octets */
	SESSION_FINISH,   /* the message is complete, its answer is awaited */
	SESSION_CLOSE,    /* the connection is ending */
	SESSION_STATE_COUNT,
};

/* What the session waits for before it reads or parses on; a set of bits. */
enum session_wait {
	SESSION_WAIT_DRAIN = 1,   /* replies must leave first */
	SESSION_WAIT_SINK = 2,    /* the sink has to answer or make room */
	SESSION_WAIT_REPLIES = 4, /* answers to MAIL and RCPT, before the next verb */
	SESSION_WAIT_PROOF = 8,   /* a revocation list that tells whether the peer may send */
	SESSION_WAIT_TARPIT = 16, /* a reply to a mistake is held back for a while */
};

/* The snapshot in force, and what it believes. */
struct session_world {
	const struct policy *policy;
	const struct trust_set *trusts;
};

#define SESSION_ID_BYTES 24
#define SESSION_HELO_BYTES 256
#define SESSION_SENDER_BYTES 320
#define SESSION_REPLY_BYTES 1024

/* What MAIL began. */
struct transaction {
	unsigned pending;     /* answers to MAIL and RCPT that have not come */
	bool is_mail_pending; /* the first of them is MAIL's */
	bool is_refused;      /* MAIL was answered 4xx or 5xx */
	bool has_bdat;        /* a chunk came: DATA is out of order now (RFC 3030 2) */
	bool is_utf8;
	bool is_binary;
	bool is_data_pending; /* the sink's answer to DATA has not come */
	bool has_begun;       /* the first chunk came: counters run */
	bool is_discarding;   /* refusal is set: the body is read and thrown away */
	uint64_t rcpt_count;
	uint64_t rcpt_accepted;
	uint64_t announced_bytes; /* MAIL's SIZE=; 0: not said */
	uint64_t body_bytes;
	uint64_t chunk_left;
	bool chunk_is_last;
	struct grant grant;
	struct header_scan header;
	struct firewall firewall;
	struct dot_reader dot;
	char sender[SESSION_SENDER_BYTES];    /* "<a@b>", for the log */
	char recipient[SESSION_SENDER_BYTES]; /* the only one, or "" */
	char refusal[SESSION_REPLY_BYTES];    /* reply with CR LF; "" while all is well */
};

/* How we know who the client is. */
enum client_origin {
	CLIENT_SEEN,       /* it is the peer of the connection */
	CLIENT_BY_PROXY,   /* a balancer has announced it; what follows comes from it alone */
	CLIENT_BY_XCLIENT, /* a front end has, and speaks for it */
};

struct session_client {
	enum client_origin origin;
	struct ip ip;
	uint16_t port;         /* 0: not known */
	struct ip destination; /* that it connected to */
	uint16_t destination_port;
	/* By XCLIENT: what it said to the front end; the front end's own EHLO is another's. */
	bool has_proto;
	bool is_extended;
	char helo[SESSION_HELO_BYTES]; /* "": not said */
};

/* What is kept of a front end while it speaks for others. */
struct session_front_end {
	enum client_origin origin;
	struct ip ip;
	struct ip destination;
	uint16_t destination_port;
};

enum session_welcome {
	SESSION_WELCOME,  /* connector, tls_context, client and peer are set */
	SESSION_STRANGER, /* nobody serves that client here */
	SESSION_CROWDED,  /* there are too many of it; connector is set */
	SESSION_OUTDATED, /* the rules that the session began under are not in force any more */
};

struct session;

struct session_owner {
	/* The conversation is over; the session may be freed. */
	void (*on_closed)(struct session *session);
	/* The client is really that one; between transactions. A refusal is logged by the owner. */
	enum session_welcome (*on_announced)(
		struct session *session, const struct session_client *client);
	/* One message more is begun. False: its source sends too many. */
	bool (*on_message)(struct session *session);
};

struct session {
	struct conn conn;
	const struct session_owner *owner;
	const struct session_world *world;
	const struct receive_connector *connector;
	const struct tls_context *tls_context; /* NULL: no TLS here */
	const char *authserv_id;               /* transport fqdn; its owner changes it at MAIL */
	struct sink *sink;
	struct session_client client;
	struct session_front_end front_end; /* with CLIENT_BY_XCLIENT: who has announced it */
	bool awaits_header; /* the peer is a balancer: it is to announce its client */
	bool is_front_end;  /* the peer may use XCLIENT; it does not depend on whom it announces */

	enum session_state state;
	unsigned waits;
	unsigned announced;      /* enum ehlo_keyword bits of our last EHLO reply */
	uint64_t announced_size; /* its SIZE */
	bool is_extended;        /* EHLO, not HELO */
	bool is_ehlo_waiting;    /* EHLO was parsed; the sink says what to announce */
	bool is_skipping;        /* the rest of an over-long line is dropped */
	bool is_running;         /* session_run() is on the stack */
	bool is_ending;     /* the peer has said all that it has to say: answers are still due */
	bool is_draining;   /* no further message is begun */
	uint64_t drop_left; /* of a refused chunk: octets still to be read and thrown away */
	const char *drop_reply; /* what answers it then */
	bool is_proved;         /* replies to its mistakes need not wait */
	bool is_line_logged;    /* the line at hand is in the protocol log already */
	enum role logged_role;  /* what the protocol log was told */
	bool has_begun;         /* the client is known, and was greeted or TLS began */
	bool starts_tls;        /* STARTTLS was answered 220: TLS begins when that has left */
	uint64_t errors;        /* protocol errors so far */
	uint64_t opened_ms;
	uint64_t proof_due_ms; /* how long a revocation list is waited for; 0: it is not */
	uint64_t message_count;
	struct timer tarpit;
	struct protolog protolog;
	const char *end_word; /* why it ended, for the protocol log */

	struct transaction transaction;
	char id[SESSION_ID_BYTES];
	char peer[ADDRESS_TEXT_BYTES];      /* the client, without the port */
	char announcer[ADDRESS_TEXT_BYTES]; /* the balancer or front end, as announce.c begins */
	char helo[SESSION_HELO_BYTES];
	char server_name[NAME_BYTES_MAX]; /* that it asked for in TLS; "": none */
};

/*
 * Begins a conversation on an accepted socket. The caller has taken the session
 * from its pool and set owner, world, connector, tls_context, sink, id, peer, client, is_front_end
 * and awaits_header; with the last, connector is only what bounds the wait.
 */
void session_open(struct session *session, struct conn_net *net, int fd);

/* Ends it: at once between messages, after the running message otherwise. */
void session_drain(struct session *session);

/* Ends it now with a 421. */
void session_kick(struct session *session, const char *reply);

/* A revocation list has come, or cannot be had: a MAIL that waits is looked at again. */
void session_proof_changed(struct session *session);

/* For verbs.c and the others of this folder. */

/* Goes as far as input, output and sink allow. Every event ends here. */
void session_run(struct session *session);

/* Assigns the state; asserts that the edge is legal. */
void session_enter(struct session *session, enum session_state state);

/* Gathers a reply line; text without CR LF. */
void session_reply(struct session *session, const char *format, ...) PRINTF_LIKE(2, 3);

/* A reply to a mistake: counted, and after too many the session ends. */
void session_error(struct session *session, const char *format, ...) PRINTF_LIKE(2, 3);

/* Forgets the transaction, here and in the sink. */
void session_reset(struct session *session);

/* Says goodbye with what has been replied. */
void session_close(struct session *session);

/* Writes a reply that has its CR LF. */
void session_write(struct session *session, struct span wire);

/* May a reply of our own be given now? If not, it must wait for the sink's answers. */
bool session_may_reply(struct session *session);

/* A 421 that was passed on closes the channel, as it says (RFC 5321 3.8). */
void session_heed_code(struct session *session, unsigned code);

/* From here on the body is thrown away, and reply (with CR LF) answers it. */
void session_discard(struct session *session, struct span reply);

/* The client is known: TLS, or the greeting. */
void session_begin(struct session *session);

/* 220: the state is GREETING. */
void session_greet(struct session *session);

/* Answers EHLO once it is known what the path can carry. */
void session_answer_ehlo(struct session *session);

/*
 * Carries out one command line. False: it has to wait for earlier answers, and
 * is given again when they have come.
 */
NODISCARD bool verb_run(struct session *session, struct span line);

/* 354 and the body; the sink is ready for it. */
void body_start_data(struct session *session);

/* The next chunk, or the first. */
void body_start_chunk(struct session *session);

/* The sink refused the body before it began: DATA gets wire, a chunk is read and gets it then. */
void body_refuse(struct session *session, unsigned code, struct span wire);

/* The sink answered DATA or the message. */
void body_answered(struct session *session, unsigned code, struct span wire);

/* For the log: the session ends while the answer to a message is awaited. */
void body_log_unanswered(const struct session *session);

/* Take what they can of the input. False: there is none, or it has to wait. */
NODISCARD bool body_run_data(struct session *session);
NODISCARD bool body_run_chunk(struct session *session);

/* admission.c: may it send? Policy's answers, and what follows from them. */

enum admission_step {
	ADMISSION_PASSED,
	ADMISSION_REFUSED, /* it was answered */
	ADMISSION_AWAITED, /* not now: the command is given again */
};

/* MAIL FROM:sender. Passed: *out says as what. */
NODISCARD enum admission_step admission_sender(
	struct session *session, struct span sender, struct grant *out);

/* RCPT TO:recipient. */
NODISCARD enum admission_step admission_recipient(struct session *session, struct span recipient);

/*
 * After the handshake: settles what is said of the certificate in the log (facts.verdict), and
 * is_proved. May the records go to the kernel? Only for a peer that was not asked for proof, or
 * that proved to be somebody: by the connector's own rules, as a partner, or as one of our servers.
 */
bool admission_prove(struct session *session, struct grant *out);

/* Would anything be accepted from this peer? Then it is worth asking the path what it carries. */
bool admission_is_possible(const struct session *session);

/* For struct sink_events: as what the sender was admitted. */
void admission_tell(struct sink *sink, struct sink_sender *out);

/* tarpit.c: replies to mistakes wait, unless the peer is proved. */

void tarpit_open(struct session *session);

/* Before a reply is gathered: begins the wait if it is one to a mistake. */
void tarpit_consider(struct session *session, struct span reply);

/* Must what is gathered stay here? */
bool tarpit_holds(struct session *session);

/* The end of it, by the timer or early; harmless otherwise. What is gathered may leave. */
void tarpit_stop(struct session *session);

/* announce.c: who the client is, when somebody stands in front of us. */

/* After session_open(): waits for the header. */
void announce_await(struct session *session);

/* More of it has come. */
void announce_take_header(struct session *session);

/* It will not come; why is a word for the log. */
void announce_refuse_header(struct session *session, const char *why);

/* The command XCLIENT, when no answer is owed. */
void announce_xclient(struct session *session, const struct command *command);

/*
 * The certificate that the client itself has shown, or NULL: one that a front end has shown proves
 * nothing for those that it announces.
 */
struct peer *session_certificate(const struct session *session);

/* For struct sink_events. */
void announce_identify(struct sink *sink, struct identity *out);

/* What it called itself. */
const char *session_helo(const struct session *session);

/* session_log.c: events, and rows of the protocol log. */

void session_log_open(struct session *session);
/* The client is another from here on, and perhaps its connector. */
void session_log_reopen(struct session *session);
void session_log_role(struct session *session, enum role role);
void session_log_line(struct session *session, struct span line);
void session_log_tls(struct session *session, const struct grant *grant);
void session_log_record(const struct session *session);

/* The peer, or the network, has ended it. */
void session_log_end(struct session *session, enum conn_end why);
void session_log_closed(struct session *session);
