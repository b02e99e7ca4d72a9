/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * hop.h: the next hop: an SMTP server of stock OpenSSL that keeps what it gets,
 * counts, and misbehaves at one step of a session when told to.
 *
 *   GREETING, EHLO, STARTTLS, HANDSHAKE, EHLO_TLS, MAIL, RCPT, DATA, BODY, END
 *
 * A recipient whose address begins with "refused" or "later" is refused with 550 or
 * 450. A thread for each session; all of them end with the case.
 */

#include "tests/e2e/wire.h"
#include <pthread.h>

enum hop_step {
	HOP_NEVER,
	HOP_GREETING,
	HOP_EHLO, /* the one in clear */
	HOP_STARTTLS,
	HOP_HANDSHAKE,
	HOP_EHLO_TLS,
	HOP_MAIL,
	HOP_RCPT,
	HOP_DATA, /* DATA, or the first BDAT when its chunk has come */
	HOP_BODY, /* after so many bytes of it */
	HOP_END,  /* the message is complete, the answer is due */
	HOP_IDLE, /* the message was answered */
};

enum hop_act {
	HOP_ANSWER,       /* plan.answer instead of the usual reply */
	HOP_STALL,        /* says nothing more, and waits for the relay to go */
	HOP_DEAF,         /* and reads nothing either */
	HOP_CLOSE,        /* close_notify under TLS, then FIN */
	HOP_FIN,          /* FIN without close_notify */
	HOP_RESET,        /* RST */
	HOP_UPDATE,       /* KeyUpdate, then the usual reply */
	HOP_UPDATE_ASKED, /* KeyUpdate that asks for one, then the usual reply */
	HOP_INJECT,       /* the usual reply with plan.answer behind it, in one segment */
	HOP_SLEEP,        /* reads nothing for a second, then goes on */
};

/* What its reply to EHLO lacks. */
enum hop_lack {
	HOP_NO_CHUNKING = 1,
	HOP_NO_BINARYMIME = 2,
	HOP_NO_STARTTLS = 4,
	HOP_NO_8BITMIME = 8,
};

struct hop_plan {
	struct tls_side tls;
	unsigned lacks; /* enum hop_lack bits */
	enum hop_step step;
	enum hop_act act;
	const char *answer; /* a whole line without CR LF */
	unsigned after;     /* messages that a session has to have carried before it acts */
	size_t body_bytes;  /* HOP_BODY: when so many bytes have come */
};

#define HOP_MESSAGES_MAX 64

struct hop_message {
	char sender[128];
	struct text recipients; /* a line each */
	unsigned recipient_count;
	struct text body;
	bool by_bdat;
	bool is_answered; /* 250 was sent */
};

struct hop {
	struct hop_plan plan; /* under the lock, once sessions run */
	int fd;
	uint16_t port;
	SSL_CTX *ctx;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct hop_message
		messages[HOP_MESSAGES_MAX]; /* complete ones; filled before count grows */
	unsigned message_count;
	unsigned accepted;   /* answered 250 */
	unsigned sessions;   /* connections */
	unsigned ended;      /* of these */
	unsigned handshakes; /* completed, with a certificate of the relay */
	unsigned mails;      /* MAIL commands */
	unsigned cut_off;    /* bodies that ended before their end */
	unsigned acted;      /* times that the plan was carried out */
	unsigned quits;
	unsigned body_seen; /* bytes of the body that is being received */
};

/* Listens and serves. The case ends if it cannot. */
void hop_start(struct hop *hop, const struct hop_plan *plan);

/* From now on it behaves. */
void hop_heal(struct hop *hop);

/* Waits until a counter is at least count; the case fails if that does not happen. */
void hop_await(struct hop *hop, const unsigned *counter, unsigned count, const char *what);

/* The counter now. */
unsigned hop_count(struct hop *hop, const unsigned *counter);

/* A port of the case's address that refuses connections. */
uint16_t hop_dead_port(void);

/* A port that takes no connection and refuses none: its queue is full. */
uint16_t hop_mute_port(void);
