/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * tls_log.h: rows of the protocol log that sessions in both directions have (EXCHANGE 12.1): ends
 * of the connection, certificates both ways, what TLS came to. Nothing where the log is off.
 */

#include "relay/base/protolog.h"
#include "relay/net/verify.h"

/* Fills in both ends of a connected socket. */
void tls_log_ends(struct protolog *log, int fd);

/* A row that has only a context, as Exchange has it for what was found out. */
void tls_log_note(struct protolog *log, const char *format, ...) PRINTF_LIKE(2, 3);

/* After a handshake: our certificate if it was sent, protocol and cipher, the peer's certificate.
 */
void tls_log_handshake(
	struct protolog *log, const struct tls_facts *facts, const struct peer *peer);
