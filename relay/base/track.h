/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * track.h: the message tracking log in Exchange's form (EXCHANGE 12.2): MSGTRKyyyymmddhh-n.LOG,
 * UTC, CSV as in RFC 4180, 30 columns:
 *
 *   date-time,client-ip,client-hostname,server-ip,server-hostname,source-context,connector-id,
 *   source,event-id,internal-message-id,message-id,network-message-id,recipient-address,
 *   recipient-status,total-bytes,recipient-count,related-recipient-address,reference,
 *   message-subject,sender-address,return-path,message-info,directionality,tenant-id,
 *   original-client-ip,original-server-ip,custom-data,transport-traffic-type,log-id,schema-version
 *
 * Several recipients stand in one column, with ";" between them. Rows are written like those of
 * protolog.h: a buffer for each worker, a thread that writes, files that turn over and are removed;
 * a full buffer drops rows and counts them (track_dropped).
 */

#include "relay/base/protolog.h"

enum track_event {
	TRACK_RECEIVE,  /* accepted from a client; source SMTP */
	TRACK_SEND,     /* a next hop took it for these recipients; SMTP */
	TRACK_DEFER,    /* put off; SMTP, DNS, ROUTING */
	TRACK_FAIL,     /* given up, for these recipients; SMTP, DNS, ROUTING, QUEUE, ADMIN */
	TRACK_DSN,      /* a notice was made; DSN. reference: the message that it is about */
	TRACK_RESUBMIT, /* back to Submission; ADMIN, QUEUE */
	TRACK_SUSPEND,  /* ADMIN */
	TRACK_RESUME,   /* ADMIN */
	TRACK_REDIRECT, /* ADMIN */
	TRACK_EVENT_COUNT,
};

/* NULL and empty: an empty column. */
struct track_row {
	enum track_event event;
	const char *source;    /* "SMTP" */
	const char *connector; /* receive or send connector's name */
	const char *context;   /* session id, or what happened */
	struct span client_ip, client_host, server_ip, server_host;
	uint64_t id;            /* ours: internal-message-id, in hex */
	struct span message_id; /* of the header */
	struct span recipients; /* addresses without brackets, ";" between them */
	struct span statuses;   /* "250 2.1.5 OK", likewise */
	uint64_t bytes;
	uint32_t recipient_count;
	struct span reference;
	struct span subject;
	struct span sender; /* without brackets */
	struct span custom; /* "S:Key=value;..." */
};

/* As in protolog.h. Rows of a folder that is NULL are nothing. */
NODISCARD int track_start(const struct logset_options *options, unsigned workers);
void track_stop(void);
void track_configure(const struct logset_options *options);
void track_attach(unsigned worker);
bool track_is_on(void);
void track_write(const struct track_row *row);

const char *track_event_word(enum track_event event); /* "RECEIVE" */
