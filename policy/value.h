/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * value.h: private to policy/. What value.c (one text, one field) and value_list.c (each
 * text one more element) share.
 */

#include "policy/config.h"
#include <netdb.h>

/* A value on its way into its field. */
struct value {
	struct config *config;
	const struct keyword *keyword;
	void *object;
	const char *text;
	unsigned line;
	unsigned count; /* of the texts that the keyword was given */
};

/* KEYWORD is "TEXT", expected what would have been right. */
void value_mistake(const struct value *value, const char *expected);

void *value_field(const struct value *value);

/* The path in memory of the snapshot, relative to the configuration's folder; NULL: no memory. */
const char *value_path(const struct value *value);

/* A readable file, or it is a mistake; what: "PEM file". */
bool value_check_file(const struct value *value, const char *path, const char *what);

/* A mail domain in normal form, in memory of the snapshot; NULL: it has its message. */
const char *value_domain(const struct value *value);

/* Digits and nothing else in front; *out_end is what follows them. */
bool value_parse_digits(const char *text, uint64_t *out, const char **out_end);

/* Letters, digits, "-" and "_" in labels of 1 to 63 (RFC 1035 2.3.4). */
bool value_is_host(const char *name);

/* "host:port", "[v6]:port", "host" into host and port (0: none given); false: no such form. */
bool value_split_host(const char *text, char host[static NAME_BYTES_MAX], unsigned *out_port);

/* Resolves; the list is for freeaddrinfo(). Returns 0 or an EAI code. */
int value_resolve(const char *host, unsigned port, int flags, struct addrinfo **out);

struct address value_address_from(const struct addrinfo *info);

/* An address in figures, without asking anybody. */
bool value_parse_address(const char *host, unsigned port, struct address *out);

/* Setters of lists: each adds one element. */
void value_add_binding(const struct value *value);
void value_add_host(const struct value *value);
void value_add_word(const struct value *value);
void value_add_to_set(const struct value *value);
void value_add_range(const struct value *value);
void value_add_domain(const struct value *value);
void value_add_file(const struct value *value);
void value_add_pin(const struct value *value);
void value_add_space(const struct value *value);
void value_add_server(const struct value *value);
