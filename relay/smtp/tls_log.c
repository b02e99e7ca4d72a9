/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/tls_log.h"

#include "policy/policy.h"
#include <stdarg.h>
#include <time.h>

static void log_print_end(const struct sockaddr_storage *storage, char *out, size_t out_bytes)
{
	const struct address address = {.sockaddr = *storage, .len = sizeof(*storage)};

	if (storage->ss_family == AF_INET || storage->ss_family == AF_INET6)
		address_print(&address, out, out_bytes);
}

void tls_log_ends(struct protolog *log, int fd)
{
	struct sockaddr_storage near = {0};
	struct sockaddr_storage far = {0};
	socklen_t near_len = sizeof(near);
	socklen_t far_len = sizeof(far);

	if (getsockname(fd, (struct sockaddr *)&near, &near_len) == 0)
		log_print_end(&near, log->local, sizeof(log->local));
	if (getpeername(fd, (struct sockaddr *)&far, &far_len) == 0)
		log_print_end(&far, log->remote, sizeof(log->remote));
}

void tls_log_note(struct protolog *log, const char *format, ...)
{
	char context[NAME_BYTES_MAX + 256];
	va_list args;

	if (!log->is_on)
		return;
	va_start(args, format);
	(void)vsnprintf(context, sizeof(context), format, args);
	va_end(args);
	protolog_note(log, context, "%s", "");
}

static void log_print_date(int64_t date, char *out, size_t out_bytes)
{
	time_t seconds = (time_t)date;
	struct tm utc;

	out[0] = '\0';
	if (gmtime_r(&seconds, &utc) != NULL)
		(void)strftime(out, out_bytes, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static void log_certificate(struct protolog *log, const char *what, const struct peer *peer)
{
	char from[32];
	char to[32];

	log_print_date(peer->not_before, from, sizeof(from));
	log_print_date(peer->not_after, to, sizeof(to));
	protolog_note(log, what,
		"subject=%s issuer=%s serial=%s not-before=%s not-after=%s names=%s", peer->subject,
		peer->issuer, peer->serial, from, to, peer->names_text);
	protolog_note(log, "Certificate thumbprint", "%s", peer->thumbprint);
}

void tls_log_handshake(struct protolog *log, const struct tls_facts *facts, const struct peer *peer)
{
	if (!log->is_on)
		return;
	if (facts->shown != NULL)
		log_certificate(log, "Sending certificate", facts->shown);
	tls_log_note(log, "TLS protocol %s negotiation succeeded using %s with strength %u bits",
		facts->version, facts->cipher, facts->cipher_bits);
	if (peer != NULL)
		log_certificate(log, "Received certificate", peer);
}
