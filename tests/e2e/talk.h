/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * talk.h: the client of a case, in the words of SMTP. Whatever does not go as
 * expected ends the case.
 */

#include "tests/e2e/hop.h"
#include "tests/e2e/relay.h"

/* The relay's client: a wire and the last reply. */
struct client {
	struct wire wire;
	struct text line;
	struct text reply; /* all lines of the last reply with CR LF */
	char last[1024];   /* its last line without CR LF */
	int code;          /* of the last reply; 0: none came */
	SSL_CTX *ctx;
	bool holds_finished; /* the last flight of a handshake stays in wire.out */
};

/* How a message is given, and what its envelope says. */
struct mail {
	const char *sender;    /* NULL: <ann@treyresearch.test> */
	const char *params;    /* of MAIL, with a blank in front; NULL: none */
	const char *recipient; /* NULL: <bob@adatum.test> */
	const struct text *body;
	bool by_bdat;
	bool ends_with_empty_chunk; /* BDAT 0 LAST */
	size_t chunk_bytes;         /* 0: one chunk */
	size_t record_bytes;        /* 0: full records */
};

/* Connects and reads the banner. */
void client_open(struct client *client);

/* A client that has said EHLO, started TLS with its certificate and said EHLO again. */
void client_open_secured(struct client *client, const struct tls_side *side);

/* STARTTLS and the handshake, in a session that has said EHLO; false if the handshake fails. */
bool client_start_tls(struct client *client, const struct tls_side *side, SSL_SESSION *session);

/* Sends a line; CR LF is added. */
void client_say(struct client *client, const char *format, ...) PRINTF_LIKE(2, 3);

/* The next reply. False if the session ended or was silent. */
bool client_hear(struct client *client);

/* The next reply's last line must begin like this. */
void client_expect(struct client *client, const char *beginning);

/* Says the line, and the reply's last line must begin like this. */
void client_ask(struct client *client, const char *line, const char *beginning);

/* Nothing more may come but the end, which is returned. */
enum wire_end client_expect_end(struct client *client);

/* Nothing may come for a moment. */
void client_expect_silence(struct client *client);

/* MAIL and RCPT, both accepted. */
void client_begin(struct client *client, const struct mail *mail);

/* Sends the body and its end; no reply but 354 and those to chunks is read. */
void client_give_body(struct client *client, const struct mail *mail);

/* A whole message; the last reply is the one to it. Returns its code. */
int client_send(struct client *client, const struct mail *mail);

/* QUIT, 221, the end. */
void client_quit(struct client *client);
void client_close(struct client *client);

/* Stuffs dots and adds the end of data. */
void body_stuff(const struct text *body, struct text *out);

/* A body: a header, then lines with dots in front, and 8-bit bytes; it ends in CR LF if it can. */
void body_make(struct text *out, size_t bytes);

/* Any bytes: NUL, bare CR and LF among them. */
void body_make_binary(struct text *out, size_t bytes);

/*
 * The message at the next hop must be this body behind the fields of the relay, one Received
 * and one Authentication-Results. is_line_ended: a CR LF was added, since DATA cannot do without.
 */
void hop_check_body(struct hop *hop, unsigned index, const struct text *body, bool is_line_ended);

/* A new client's message passes through, with dot-stuffing and all: the relay goes on serving. */
void check_serves(struct hop *hop);
