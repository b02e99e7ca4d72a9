/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/crl_fetch.h"

#include "relay/base/log.h"
#include "relay/pki/chain.h"
#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/http.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* The largest list that is taken, fetched or from a file. */
#define LIST_BYTES_MAX (16u << 20)

/* Connections of one URL: it, and so many places that it redirects to. */
#define CONNECTS_MAX 5

/* How long it is found out whether somebody listens there at all. */
#define REFUSAL_MS 500

#define PATH_BYTES 4096

/* Distribution points. */

/* What is fetched is written to the log and to requests: plain visible ASCII only. */
static bool url_is_good(const ASN1_IA5STRING *text, size_t room)
{
	const unsigned char *data = ASN1_STRING_get0_data(text);
	int len = ASN1_STRING_length(text);

	if (len <= 7 || (size_t)len + 2 > room ||
		strncasecmp((const char *)data, "http://", 7) != 0)
		return false;
	for (int i = 0; i < len; i++) {
		if (data[i] <= ' ' || data[i] >= 127)
			return false;
	}
	return true;
}

static size_t urls_add(const GENERAL_NAMES *names, char *out, size_t used)
{
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const ASN1_IA5STRING *text = name->d.uniformResourceIdentifier;

		if (name->type != GEN_URI || !url_is_good(text, CRL_URLS_BYTES - used))
			continue;
		if (used > 0)
			out[used++] = '\n';
		memcpy(out + used, ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text));
		used += (size_t)ASN1_STRING_length(text);
		out[used] = '\0';
	}
	return used;
}

bool crl_urls(struct x509_st *certificate, char out[static CRL_URLS_BYTES])
{
	CRL_DIST_POINTS *points =
		X509_get_ext_d2i(certificate, NID_crl_distribution_points, NULL, NULL);
	size_t used = 0;

	for (int i = 0; i < sk_DIST_POINT_num(points); i++) {
		const DIST_POINT *point = sk_DIST_POINT_value(points, i);

		if (point->distpoint != NULL && point->distpoint->type == 0)
			used = urls_add(point->distpoint->name.fullname, out, used);
	}
	CRL_DIST_POINTS_free(points);
	return used > 0;
}

bool crl_key(const char *urls, char out[static CRL_KEY_BYTES])
{
	static const char hex[] = "0123456789abcdef";
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	if (EVP_Digest(urls, strlen(urls), digest, &len, EVP_sha256(), NULL) != 1)
		return false;
	for (size_t i = 0; i < len && 2 * i + 2 < CRL_KEY_BYTES; i++) {
		out[2 * i] = hex[digest[i] >> 4];
		out[2 * i + 1] = hex[digest[i] & 15];
	}
	out[CRL_KEY_BYTES - 1] = '\0';
	return true;
}

/* HTTP. */

void crl_fetch_open(struct crl_fetch *fetch)
{
	*fetch = (struct crl_fetch){.fd = -1};
	(void)pthread_mutex_init(&fetch->mutex, NULL);
}

void crl_fetch_close(struct crl_fetch *fetch)
{
	(void)pthread_mutex_destroy(&fetch->mutex);
}

/* Notes the socket, -1 for none. False: the fetch is cancelled. */
static bool fetch_note(struct crl_fetch *fetch, int fd)
{
	bool goes_on;

	(void)pthread_mutex_lock(&fetch->mutex);
	goes_on = !fetch->is_over;
	fetch->fd = goes_on ? fd : -1;
	(void)pthread_mutex_unlock(&fetch->mutex);
	return goes_on;
}

/*
 * Called with each new connection, and before it is closed. Redirections are
 * connections too: their number and the whole time are bounded here.
 */
static BIO *fetch_on_bio(BIO *bio, void *arg, int is_connect, int detail)
{
	struct crl_fetch *fetch = arg;

	if (is_connect == 0) {
		(void)fetch_note(fetch, -1);
		return bio;
	}
	/* detail: TLS is wanted. A list is signed, and https would need a list to be trusted. */
	if (detail != 0 || ++fetch->connects > CONNECTS_MAX || clock_now_ms() >= fetch->due_ms)
		return NULL;
	return fetch_note(fetch, (int)BIO_get_fd(bio, NULL)) ? bio : NULL;
}

void crl_fetch_cancel(struct crl_fetch *fetch)
{
	(void)pthread_mutex_lock(&fetch->mutex);
	fetch->is_over = true;
	if (fetch->fd >= 0)
		(void)shutdown(fetch->fd, SHUT_RDWR);
	(void)pthread_mutex_unlock(&fetch->mutex);
}

/* Does the address say no at once? Undecided after a moment is no. */
static bool address_refuses(const struct addrinfo *at)
{
	int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct pollfd ready = {.fd = fd, .events = POLLOUT};
	socklen_t len = sizeof(int);
	int error = 0;

	if (fd < 0)
		return false;
	if (connect(fd, at->ai_addr, at->ai_addrlen) < 0)
		error = errno;
	if (error == EINPROGRESS && poll(&ready, 1, REFUSAL_MS) == 1 &&
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	(void)close(fd);
	return error == ECONNREFUSED;
}

/*
 * Nobody listens there. OpenSSL would try again until the time is up (BIO_do_connect_retry()),
 * and somebody may be waiting to send mail. A proxy is asked for it anyway.
 */
static bool fetch_is_refused(const char *url)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *list = NULL;
	char *host = NULL;
	char *port = NULL;
	bool refused = false;

	if (getenv("http_proxy") != NULL || getenv("HTTP_PROXY") != NULL ||
		OSSL_HTTP_parse_url(url, NULL, NULL, &host, &port, NULL, NULL, NULL, NULL) != 1)
		return false;
	if (getaddrinfo(host, port, &hints, &list) == 0) {
		refused = list != NULL;
		for (const struct addrinfo *at = list; at != NULL && refused; at = at->ai_next)
			refused = address_refuses(at);
		freeaddrinfo(list);
	}
	OPENSSL_free(host);
	OPENSSL_free(port);
	return refused;
}

static X509_CRL *fetch_one(struct crl_fetch *fetch, const char *url)
{
	int timeout_s = (int)((fetch->timeout_ms + 999) / 1000);
	X509_CRL *list = NULL;
	BIO *body;

	fetch->connects = 0;
	fetch->due_ms = clock_now_ms() + fetch->timeout_ms;
	if (fetch_is_refused(url)) {
		ERR_raise(ERR_LIB_BIO, BIO_R_CONNECT_ERROR);
		return NULL;
	}
	body = OSSL_HTTP_get(url, NULL, NULL, NULL, NULL, fetch_on_bio, fetch, 0, NULL, NULL, 1,
		LIST_BYTES_MAX, timeout_s > 0 ? timeout_s : 1);
	(void)fetch_note(fetch, -1);
	if (body != NULL)
		list = d2i_X509_CRL_bio(body, NULL);
	BIO_free_all(body);
	return list;
}

static void fetch_log(const char *url, const X509_CRL *list)
{
	unsigned long error = ERR_peek_error();
	const char *why = error == 0 ? NULL : ERR_reason_error_string(error);
	char quoted[CRL_URLS_BYTES];
	char reason[256];

	(void)log_quote_text(url, quoted, sizeof(quoted) / 2);
	if (list != NULL)
		log_event(LOG_LEVEL_INFO, NULL, "crl", "url=%s result=fetched", quoted);
	else
		log_event(LOG_LEVEL_WARNING, NULL, "crl", "url=%s result=failed why=%s", quoted,
			log_quote_text(why == NULL ? "no answer" : why, reason, sizeof(reason)));
}

struct stack_st_X509_CRL *crl_fetch_run(struct crl_fetch *fetch, const char *urls)
{
	STACK_OF(X509_CRL) *lists = NULL;
	X509_CRL *list = NULL;
	char url[CRL_URLS_BYTES];

	while (list == NULL && *urls != '\0' && fetch_note(fetch, -1)) {
		size_t len = strcspn(urls, "\n");

		(void)snprintf(url, sizeof(url), "%.*s", (int)len, urls);
		urls += len + (urls[len] == '\n');
		ERR_clear_error();
		list = fetch_one(fetch, url);
		fetch_log(url, list);
	}
	if (list != NULL) {
		lists = sk_X509_CRL_new_null();
		if (lists == NULL || sk_X509_CRL_push(lists, list) <= 0) {
			X509_CRL_free(list);
			sk_X509_CRL_free(lists);
			lists = NULL;
		}
	}
	ERR_clear_error();
	return lists;
}

/* Files. */

static bool read_pem(BIO *in, STACK_OF(X509_CRL) * lists)
{
	X509_CRL *list;

	while ((list = PEM_read_bio_X509_CRL(in, NULL, NULL, NULL)) != NULL) {
		if (sk_X509_CRL_push(lists, list) <= 0) {
			X509_CRL_free(list);
			return false;
		}
	}
	return sk_X509_CRL_num(lists) > 0 &&
	       ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
}

static bool read_der(BIO *in, STACK_OF(X509_CRL) * lists)
{
	X509_CRL *list = d2i_X509_CRL_bio(in, NULL);

	if (list == NULL)
		return false;
	if (sk_X509_CRL_push(lists, list) <= 0) {
		X509_CRL_free(list);
		return false;
	}
	return true;
}

struct stack_st_X509_CRL *crl_read_file(const char *file)
{
	STACK_OF(X509_CRL) *lists = sk_X509_CRL_new_null();
	BIO *in = BIO_new_file(file, "r");
	bool is_good = false;

	if (in != NULL && lists != NULL) {
		ERR_clear_error();
		is_good = read_pem(in, lists);
		if (!is_good && sk_X509_CRL_num(lists) == 0 && BIO_seek(in, 0) == 0)
			is_good = read_der(in, lists);
	}
	BIO_free(in);
	ERR_clear_error();
	if (is_good)
		return lists;
	sk_X509_CRL_pop_free(lists, X509_CRL_free);
	return NULL;
}

void crl_cache_write(const char *folder, const char *key, struct stack_st_X509_CRL *lists)
{
	char path[PATH_BYTES];
	char beside[PATH_BYTES + 8];
	char quoted[PATH_BYTES + 16];
	FILE *out;
	bool ok;

	(void)snprintf(path, sizeof(path), "%s/%s.crl", folder, key);
	(void)snprintf(beside, sizeof(beside), "%s.new", path);
	out = fopen(beside, "we");
	ok = out != NULL;
	for (int i = 0; ok && i < sk_X509_CRL_num(lists); i++)
		ok = i2d_X509_CRL_fp(out, sk_X509_CRL_value(lists, i)) == 1;
	if (out != NULL && fclose(out) != 0)
		ok = false;
	if (ok && rename(beside, path) == 0)
		return;
	log_event(LOG_LEVEL_WARNING, NULL, "crl", "file=%s result=not-kept why=\"%s\"",
		log_quote_text(path, quoted, sizeof(quoted)), strerror(errno));
	(void)unlink(beside);
	ERR_clear_error();
}

static void cache_read_one(const char *folder, const char *name,
	void (*keep)(const char *key, struct stack_st_X509_CRL *lists))
{
	STACK_OF(X509_CRL) * lists;
	char path[PATH_BYTES];
	char key[CRL_KEY_BYTES];

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	(void)snprintf(key, sizeof(key), "%s", name);
	lists = crl_read_file(path);
	if (lists == NULL || crl_lists_end(lists) <= time(NULL)) {
		(void)unlink(path);
		sk_X509_CRL_pop_free(lists, X509_CRL_free);
		return;
	}
	keep(key, lists);
}

void crl_cache_read(
	const char *folder, void (*keep)(const char *key, struct stack_st_X509_CRL *lists))
{
	DIR *files = opendir(folder);
	const struct dirent *entry;

	if (files == NULL)
		return;
	while ((entry = readdir(files)) != NULL) {
		const char *name = entry->d_name;

		if (strspn(name, "0123456789abcdef") == CRL_KEY_BYTES - 1 &&
			strcmp(name + CRL_KEY_BYTES - 1, ".crl") == 0)
			cache_read_one(folder, name, keep);
	}
	(void)closedir(files);
}

/* Lists. */

int64_t crl_lists_end(struct stack_st_X509_CRL *lists)
{
	int64_t end = INT64_MAX;

	for (int i = 0; i < sk_X509_CRL_num(lists); i++) {
		const ASN1_TIME *next = X509_CRL_get0_nextUpdate(sk_X509_CRL_value(lists, i));
		int64_t each = next == NULL ? INT64_MAX : chain_date(next);

		end = each < end ? each : end;
	}
	return end;
}

bool crl_lists_equal(struct stack_st_X509_CRL *a, struct stack_st_X509_CRL *b)
{
	unsigned char of_a[EVP_MAX_MD_SIZE] = {0};
	unsigned char of_b[EVP_MAX_MD_SIZE] = {0};

	if (a == NULL || b == NULL || sk_X509_CRL_num(a) != sk_X509_CRL_num(b))
		return a == b;
	for (int i = 0; i < sk_X509_CRL_num(a); i++) {
		if (X509_CRL_digest(sk_X509_CRL_value(a, i), EVP_sha256(), of_a, NULL) != 1 ||
			X509_CRL_digest(sk_X509_CRL_value(b, i), EVP_sha256(), of_b, NULL) != 1 ||
			memcmp(of_a, of_b, sizeof(of_a)) != 0)
			return false;
	}
	return true;
}
