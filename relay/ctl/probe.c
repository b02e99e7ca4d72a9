/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ask.h"

#include "relay/pki/words.h"
#include <errno.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Lines of one reply, at the most. */
#define REPLY_LINES_MAX 100

/* One session: a blocking socket with time limits, and TLS on top once it is there. */
struct link {
	const struct probe_options *options;
	struct probe *out;
	int fd;
	SSL_CTX *context;
	SSL *ssl; /* NULL: clear text */
	size_t len;
	char bytes[4096]; /* received and not read yet */
};

PRINTF_LIKE(3, 4)
static bool link_fail(struct link *link, enum probe_step step, const char *format, ...)
{
	va_list args;

	link->out->failed = step;
	va_start(args, format);
	(void)vsnprintf(link->out->why, sizeof(link->out->why), format, args);
	va_end(args);
	return false;
}

/* Why TLS or the socket failed, in words. */
static const char *link_error(char *out, size_t out_bytes)
{
	const char *reason = openssl_why(NULL);

	if (reason != NULL)
		(void)snprintf(out, out_bytes, "%s", reason);
	else if (errno == EAGAIN)
		(void)snprintf(out, out_bytes, "no answer in time");
	else if (errno != 0)
		(void)snprintf(out, out_bytes, "%s", strerror(errno));
	else
		(void)snprintf(out, out_bytes, "the connection was closed");
	ERR_clear_error();
	return out;
}

static bool link_connect_one(struct link *link, const struct addrinfo *at)
{
	struct timeval limit = {.tv_sec = (time_t)(link->options->timeout_ms / 1000),
		.tv_usec = (suseconds_t)(link->options->timeout_ms % 1000 * 1000)};
	struct address address = {.len = at->ai_addrlen};

	memcpy(&address.sockaddr, at->ai_addr, at->ai_addrlen);
	address_print(&address, link->out->address, sizeof(link->out->address));
	link->fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (link->fd < 0)
		return link_fail(link, PROBE_CONNECT, "%s", strerror(errno));
	/* The time to send limits connect(), too (socket(7)). */
	(void)setsockopt(link->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	(void)setsockopt(link->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	/* A partner may serve us for the address that we come from. */
	if (link->options->source->len > 0 &&
		link->options->source->sockaddr.ss_family == at->ai_family &&
		bind(link->fd, (const struct sockaddr *)&link->options->source->sockaddr,
			link->options->source->len) < 0)
		return link_fail(link, PROBE_CONNECT, "source-address: %s", strerror(errno));
	if (connect(link->fd, at->ai_addr, at->ai_addrlen) == 0)
		return true;
	(void)link_fail(link, PROBE_CONNECT, "%s",
		errno == EINPROGRESS ? "no answer in time" : strerror(errno));
	(void)close(link->fd);
	link->fd = -1;
	return false;
}

static bool link_connect(struct link *link)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *list = NULL;
	bool is_there = false;
	char port[8];
	int rc;

	(void)snprintf(port, sizeof(port), "%u", (unsigned)link->options->port);
	rc = getaddrinfo(
		link->options->address != NULL ? link->options->address : link->options->host, port,
		&hints, &list);
	if (rc != 0)
		return link_fail(link, PROBE_CONNECT, "%s", gai_strerror(rc));
	for (const struct addrinfo *at = list; at != NULL && !is_there; at = at->ai_next)
		is_there = link_connect_one(link, at);
	freeaddrinfo(list);
	return is_there;
}

static bool link_send(struct link *link, const char *text)
{
	size_t len = strlen(text);

	errno = 0;
	if (link->ssl != NULL)
		return SSL_write(link->ssl, text, (int)len) == (int)len;
	return send(link->fd, text, len, MSG_NOSIGNAL) == (ssize_t)len;
}

/* More bytes behind those that are there; false: the end, an error, or a line without end. */
static bool link_receive(struct link *link)
{
	size_t room = sizeof(link->bytes) - link->len;
	ssize_t got;

	errno = 0;
	if (room == 0)
		return false;
	got = link->ssl != NULL ? SSL_read(link->ssl, link->bytes + link->len, (int)room)
				: recv(link->fd, link->bytes + link->len, room, 0);
	if (got <= 0)
		return false;
	link->len += (size_t)got;
	return true;
}

/* One line, without CR LF. */
static bool link_line(struct link *link, char *out, size_t out_bytes)
{
	struct span line;
	size_t end;

	while ((end = span_find(span_make(link->bytes, link->len), '\n')) == link->len)
		if (!link_receive(link))
			return false;
	line = span_make(link->bytes, end > 0 && link->bytes[end - 1] == '\r' ? end - 1 : end);
	(void)snprintf(out, out_bytes, "%.*s", (int)line.len, link->bytes);
	link->len -= end + 1;
	memmove(link->bytes, link->bytes + end + 1, link->len);
	return true;
}

/* A whole reply: its code, 0 if there is none; text: its lines, with "\n" between them. */
static unsigned link_reply(struct link *link, char *text, size_t text_bytes)
{
	char line[PROBE_TEXT_BYTES];
	size_t len = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < REPLY_LINES_MAX; i++) {
		int more;

		if (!link_line(link, line, sizeof(line)))
			return 0;
		more = snprintf(text + len, text_bytes - len, "%s%s", i == 0 ? "" : "\n", line);
		len += more > 0 && (size_t)more < text_bytes - len ? (size_t)more : 0;
		if (strspn(line, "0123456789") != 3)
			return 0;
		if (line[3] != '-')
			return (unsigned)strtoul(line, NULL, 10);
	}
	return 0;
}

/* Why there was no reply, or a wrong one. */
static bool link_bad_reply(struct link *link, enum probe_step step, unsigned code, const char *text)
{
	char error[PROBE_TEXT_BYTES / 2];

	if (code == 0 && text[0] == '\0')
		return link_fail(link, step, "%s", link_error(error, sizeof(error)));
	return link_fail(link, step, "it answered \"%.*s\"", (int)strcspn(text, "\n"), text);
}

static bool link_banner(struct link *link)
{
	struct probe *out = link->out;
	unsigned code = link_reply(link, out->banner, sizeof(out->banner));

	if (strstr(out->banner, "***") != NULL)
		out->is_altered = true;
	return code == 220 || link_bad_reply(link, PROBE_BANNER, code, out->banner);
}

/* Does the EHLO reply have a keyword that begins so? */
static bool ehlo_has(const char *reply, const char *keyword)
{
	for (const char *line = strchr(reply, '\n'); line != NULL; line = strchr(line + 1, '\n'))
		if (strlen(line) > 5 && strncasecmp(line + 5, keyword, strlen(keyword)) == 0)
			return true;
	return false;
}

static bool link_ehlo(struct link *link, enum probe_step step)
{
	struct probe *out = link->out;
	char command[NAME_BYTES_MAX + 16];
	unsigned code;

	out->ehlo[0] = '\0';
	(void)snprintf(command, sizeof(command), "EHLO %s\r\n", link->options->fqdn);
	/* Read it whether or not that could be sent: the server's alert may have come before. */
	(void)link_send(link, command);
	code = link_reply(link, out->ehlo, sizeof(out->ehlo));
	/* Keywords that a firewall wrote X over, as in "XXXXXXXA" for STARTTLS. */
	if (ehlo_has(out->ehlo, "XXX") || strstr(out->ehlo, "***") != NULL)
		out->is_altered = true;
	return code == 250 || link_bad_reply(link, step, code, out->ehlo);
}

static bool link_starttls(struct link *link)
{
	char text[PROBE_TEXT_BYTES] = "";
	unsigned code = 0;

	if (!ehlo_has(link->out->ehlo, "STARTTLS"))
		return link_fail(link, PROBE_STARTTLS, "STARTTLS is not offered");
	if (link_send(link, "STARTTLS\r\n"))
		code = link_reply(link, text, sizeof(text));
	if (code != 220)
		return link_bad_reply(link, PROBE_STARTTLS, code, text);
	/* RFC 3207 4.2: what came in clear text behind the answer is not from the server. */
	if (link->len > 0)
		return link_fail(link, PROBE_STARTTLS, "text was injected behind the answer");
	return true;
}

/* The server asks for a certificate: noted, and what is loaded is shown. */
static int link_on_request(SSL *ssl, void *arg)
{
	struct link *link = arg;

	(void)ssl;
	link->out->wants_certificate = true;
	return 1;
}

/* The chain is judged afterwards, by the partner's rules. */
static int link_on_verify(int ok, X509_STORE_CTX *store)
{
	(void)ok;
	(void)store;
	return 1;
}

static bool context_configure(SSL_CTX *context, const struct probe_options *options)
{
	const struct tls_settings *settings = options->settings;
	int min = strcmp(settings->tls_min, "TLSv1.3") == 0 ? TLS1_3_VERSION : TLS1_2_VERSION;
	int max = strcmp(settings->tls_max, "TLSv1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;

	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, link_on_verify);
	if (SSL_CTX_set_min_proto_version(context, min) != 1 ||
		SSL_CTX_set_max_proto_version(context, max) != 1)
		return false;
	if (settings->ciphers != NULL && SSL_CTX_set_cipher_list(context, settings->ciphers) != 1)
		return false;
	if (settings->ciphersuites != NULL &&
		SSL_CTX_set_ciphersuites(context, settings->ciphersuites) != 1)
		return false;
	return options->own == NULL ||
	       (SSL_CTX_use_certificate_chain_file(context, options->own->chain) == 1 &&
		       SSL_CTX_use_PrivateKey_file(context, options->own->key, SSL_FILETYPE_PEM) ==
			       1);
}

static void link_read_peer(struct link *link)
{
	X509 *leaf = SSL_get0_peer_certificate(link->ssl);
	STACK_OF(X509) *chain = SSL_get_peer_cert_chain(link->ssl);

	if (leaf == NULL)
		return;
	/* A copy without the leaf, which is the first of a server's chain. */
	chain = chain == NULL ? NULL : sk_X509_dup(chain);
	if (chain != NULL)
		(void)sk_X509_shift(chain);
	link->out->peer = peer_of_chain(leaf, chain);
	sk_X509_free(chain);
}

static bool link_handshake(struct link *link)
{
	struct probe *out = link->out;
	char error[PROBE_TEXT_BYTES / 2];
	struct ip literal;

	link->context = SSL_CTX_new(TLS_client_method());
	if (link->context == NULL || !context_configure(link->context, link->options))
		return link_fail(link, PROBE_HANDSHAKE, "our own settings: %s",
			link_error(error, sizeof(error)));
	SSL_CTX_set_cert_cb(link->context, link_on_request, link);
	link->ssl = SSL_new(link->context);
	if (link->ssl == NULL || SSL_set_fd(link->ssl, link->fd) != 1)
		return link_fail(link, PROBE_HANDSHAKE, "%s", link_error(error, sizeof(error)));
	if (ip_parse(link->options->host, &literal) < 0)
		(void)SSL_set_tlsext_host_name(link->ssl, link->options->host);
	errno = 0;
	if (SSL_connect(link->ssl) != 1)
		return link_fail(link, PROBE_HANDSHAKE, "%s", link_error(error, sizeof(error)));
	out->version = SSL_get_version(link->ssl);
	out->cipher = SSL_CIPHER_standard_name(SSL_get_current_cipher(link->ssl));
	link_read_peer(link);
	return true;
}

static void link_run(struct link *link)
{
	char text[PROBE_TEXT_BYTES];

	if (!link_connect(link))
		return;
	if (link->options->is_implicit && !link_handshake(link))
		return;
	if (!link_banner(link) || !link_ehlo(link, PROBE_EHLO))
		return;
	if (!link->options->is_implicit && (!link_starttls(link) || !link_handshake(link)))
		return;
	/* Under TLS 1.3 a refusal of our certificate comes only now. */
	if (!link_ehlo(link, PROBE_AFTER_TLS))
		return;
	if (link_send(link, "QUIT\r\n"))
		(void)link_reply(link, text, sizeof(text));
	link->out->failed = PROBE_DONE;
}

void probe_run(const struct probe_options *options, struct probe *out)
{
	struct link link = {.options = options, .out = out, .fd = -1};

	*out = (struct probe){.failed = PROBE_CONNECT};
	(void)signal(SIGPIPE, SIG_IGN);
	link_run(&link);
	SSL_free(link.ssl);
	SSL_CTX_free(link.context);
	if (link.fd >= 0)
		(void)close(link.fd);
}
