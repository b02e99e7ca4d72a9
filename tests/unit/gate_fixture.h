/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * gate_fixture.h: a gate made of the text of a configuration and of lists in its folder, and
 * short words for asking it.
 */

#include "policy/gate.h"
#include "tests/unit/config_fixture.h"
#include <arpa/inet.h>

#define OUT "send-connector out { smart-hosts = \"203.0.113.9:2599\" }\n"
#define LISTS "transport { partner-lists = \"certs\" }\n"
#define PARTNER(name) "partner " name " { domains = " name ".example trust-anchors = good.pem }\n"

static inline struct address address_of(const char *text, uint16_t port)
{
	struct address address = {0};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};

	if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
		memcpy(&address.sockaddr, &in, sizeof(in));
		address.len = sizeof(in);
	} else {
		assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
		memcpy(&address.sockaddr, &in6, sizeof(in6));
		address.len = sizeof(in6);
	}
	return address;
}

static inline struct ip ip_of(const char *text)
{
	struct ip ip;

	assert_int_equal(ip_parse(text, &ip), 0);
	return ip;
}

/* "192.0.2.0/24", "192.0.2.1". */
static inline struct prefix prefix_of(const char *text)
{
	struct prefix prefixes[PREFIXES_OF_RANGE_MAX];
	struct ip_range range;

	assert_int_equal(ip_range_parse(text, &range), 0);
	assert_int_equal(prefix_of_range(&range, prefixes), 1);
	return prefixes[0];
}

/* The list of a partner, as it lies on disk. */
static inline void put_list(const char *partner, const char *lines)
{
	char name[128], text[4096];

	(void)snprintf(name, sizeof(name), "certs/%s.list", partner);
	(void)snprintf(text, sizeof(text), "# generation 7\n%s", lines);
	put_file(name, text, 0644);
}

/* What gate_create() says is in said, as what policy_load() says. */
static inline int make_gate(const struct policy *policy, struct gate_ids *ids, struct gate **out)
{
	size_t bytes = 0;
	FILE *errors = NULL;
	int rc = 0;

	free(said);
	said = NULL;
	errors = open_memstream(&said, &bytes);
	assert_non_null(errors);
	rc = gate_create(policy, ids, errors, out);
	assert_int_equal(fclose(errors), 0);
	return rc;
}

static inline void gate_text(const char *text, struct policy **policy, struct gate **gate)
{
	if (load_text(text, policy) != 0 || make_gate(*policy, NULL, gate) != 0)
		fail_msg("%s", said);
}

static inline const struct partner *partner_named(const struct policy *policy, const char *name)
{
	for (unsigned p = 0; p < policy->partner_count; p++)
		if (strcmp(policy->partners[p].name, name) == 0)
			return &policy->partners[p];
	fail_msg("no partner %s", name);
	return NULL;
}

/* "connector", "connector/partner", "!partner", "balancer connector", or "nobody". */
static inline const char *ask_text(struct gate *gate, const char *peer, const char *local,
	uint16_t port, uint32_t zone, bool is_announced)
{
	static char text[300];
	const struct address at = address_of(local, port);
	const struct ip ip = ip_of(peer);
	struct gate_answer answer;
	bool may_enter = is_announced ? gate_ask_announced(gate, &at, &ip, &answer)
				      : gate_ask(gate, &at, &ip, zone, &answer);

	assert_int_equal(may_enter, answer.connector != NULL);
	assert_false(may_enter && answer.is_excluded);
	if (may_enter || answer.is_excluded)
		assert_true(prefix_has(&answer.prefix, &ip));
	if (answer.is_excluded)
		(void)snprintf(text, sizeof(text), "!%s", answer.partner->name);
	else if (!may_enter)
		(void)snprintf(text, sizeof(text), "nobody");
	else
		(void)snprintf(text, sizeof(text), "%s%s%s%s",
			answer.is_balancer ? "balancer " : "", answer.connector->name,
			answer.partner == NULL ? "" : "/",
			answer.partner == NULL ? "" : answer.partner->name);
	return text;
}

/* Who comes from where to which address, and what the answer is. */
struct arrival {
	const char *peer, *local;
	uint16_t port;
	uint32_t zone;
	const char *answer;
	bool is_announced;
};

static inline void check_arrivals(struct gate *gate, const struct arrival *rows, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const char *got = ask_text(gate, rows[i].peer, rows[i].local, rows[i].port,
			rows[i].zone, rows[i].is_announced);

		if (strcmp(got, rows[i].answer) != 0)
			fail_msg("row %zu: %s to %s:%u: expected %s, got %s", i, rows[i].peer,
				rows[i].local, rows[i].port, rows[i].answer, got);
	}
}
