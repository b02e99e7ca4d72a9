/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * tls_server_options.h: the command line of tls_server, as the engine's own settings.
 */

#include "policy/policy.h"
#include "relay/base/stats.h"
#include "relay/net/loop.h"
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <string.h>

enum mode {
	MODE_HTTP,
	MODE_ECHO,
};

struct options {
	struct address listen;
	struct certificate certificate;
	struct tls_settings tls;
	enum client_certificate client_certificate;
	enum mode mode;
	uint64_t max_connections; /* accept so many, then end; 0: no limit */
	struct loop_caps caps;
};

#define OPTIONS_USAGE                                                                       \
	"usage: tls_server --listen ADDR:PORT --cert CHAIN.pem --key KEY.pem\n"             \
	"  [--client-ca CA.pem] [--client-cert none|ask|require]\n"                         \
	"  [--ktls off|tx|rx|on] [--tls-min TLSv1.2|TLSv1.3] [--tls-max TLSv1.2|TLSv1.3]\n" \
	"  [--ciphers LIST] [--ciphersuites LIST] [--tickets N] [--mode http|echo]\n"       \
	"  [--max-connections N] [--io-uring-disable CAPABILITY]...\n"

/* ADDR:PORT or [ADDR]:PORT. */
static inline bool parse_address(const char *text, struct address *out)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
	const char *colon = strrchr(text, ':');
	struct addrinfo *found = NULL;
	char host[64];
	size_t len;

	if (colon == NULL)
		return false;
	len = (size_t)(colon - text);
	if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	if (len >= sizeof(host))
		return false;
	memcpy(host, text, len);
	host[len] = '\0';
	if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
		return false;
	memcpy(&out->sockaddr, found->ai_addr, found->ai_addrlen);
	out->len = found->ai_addrlen;
	freeaddrinfo(found);
	return true;
}

/* The index of word in a list that NULL ends; -1 if it is not there. */
static inline int parse_word(const char *const *words, const char *word)
{
	for (int i = 0; words[i] != NULL; i++) {
		if (strcmp(words[i], word) == 0)
			return i;
	}
	return -1;
}

static inline bool parse_number(const char *text, uint64_t max, uint64_t *out)
{
	char *end = NULL;
	uint64_t number;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || number > max)
		return false;
	*out = number;
	return true;
}

/* Puts the index of value into *out, which is an enum's; the words stand in its order. */
#define PARSE_ENUM(out, words, value)                  \
	do {                                           \
		int index_ = parse_word(words, value); \
                                                       \
		if (index_ < 0)                        \
			return false;                  \
		(out) = (unsigned)index_;              \
	} while (0)

static inline bool options_take_tls(struct options *options, int option, const char *value)
{
	static const char *const ktls_words[] = {"off", "tx", "rx", "on", NULL};
	uint64_t number = 0;

	switch (option) {
	case 'c':
		options->certificate.chain = value;
		return true;
	case 'k':
		options->certificate.key = value;
		return true;
	case 'a':
		options->tls.trust_anchors = value;
		return true;
	case 'x':
		PARSE_ENUM(options->tls.ktls, ktls_words, value);
		return true;
	case 'n':
		options->tls.tls_min = value;
		return true;
	case 'N':
		options->tls.tls_max = value;
		return true;
	case 's':
		options->tls.ciphers = value;
		return true;
	case 'S':
		options->tls.ciphersuites = value;
		return true;
	case 't':
		if (!parse_number(value, 16, &number))
			return false;
		options->tls.session_tickets = (unsigned)number;
		return true;
	default:
		return false;
	}
}

static inline bool options_take(struct options *options, int option, const char *value)
{
	static const char *const certificate_words[] = {"none", "ask", "require", NULL};
	static const char *const mode_words[] = {"http", "echo", NULL};

	switch (option) {
	case 'l':
		return parse_address(value, &options->listen);
	case 'q':
		PARSE_ENUM(options->client_certificate, certificate_words, value);
		return true;
	case 'm':
		PARSE_ENUM(options->mode, mode_words, value);
		return true;
	case 'M':
		return parse_number(value, UINT64_MAX, &options->max_connections);
	case 'u':
		return loop_caps_disable(&options->caps, value);
	default:
		return options_take_tls(options, option, value);
	}
}

/* Reads the command line over what out has; out->caps says what this kernel can do. */
NODISCARD static inline bool options_parse(int argc, char **argv, struct options *out)
{
	static const struct option words[] = {
		{"listen", required_argument, NULL, 'l'},
		{"cert", required_argument, NULL, 'c'},
		{"key", required_argument, NULL, 'k'},
		{"client-ca", required_argument, NULL, 'a'},
		{"client-cert", required_argument, NULL, 'q'},
		{"ktls", required_argument, NULL, 'x'},
		{"tls-min", required_argument, NULL, 'n'},
		{"tls-max", required_argument, NULL, 'N'},
		{"ciphers", required_argument, NULL, 's'},
		{"ciphersuites", required_argument, NULL, 'S'},
		{"tickets", required_argument, NULL, 't'},
		{"mode", required_argument, NULL, 'm'},
		{"max-connections", required_argument, NULL, 'M'},
		{"io-uring-disable", required_argument, NULL, 'u'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int index = 0;
	int option;

	while ((option = getopt_long(argc, argv, "", words, &index)) != -1) {
		if (option == 'h') {
			(void)fputs(OPTIONS_USAGE, stdout);
			exit(EXIT_SUCCESS);
		}
		if (option == '?')
			return false;
		if (!options_take(out, option, optarg)) {
			(void)fprintf(stderr, "tls_server: --%s %s: not understood\n",
				words[index].name, optarg);
			return false;
		}
	}
	out->tls.certificate = &out->certificate;
	return optind == argc && out->listen.len > 0 && out->certificate.chain != NULL &&
	       out->certificate.key != NULL;
}
