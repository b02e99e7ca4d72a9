/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * gate_private.h: private to gate*.c. What a binding is made of, and what its tries hold.
 *
 *   gate.c           made and freed; what is in it
 *   gate_ids.c       numbers of names
 *   gate_compile.c   the configuration's part of a binding, and its tries
 *   gate_conflict.c  what a list may not have
 *   gate_ask.c       questions
 *   gate_change.c    other lists
 *
 * A prefix has at most one value of each kind, and the first of them counts:
 *
 *   door    mark of a zone; balancer; partner's list; base    (family of the binding)
 *   rules                             partner's list; base    (both families)
 *
 * So what a prefix is after a change follows from the other kinds, which are all at hand, and never
 * from what was in the trie before.
 */

#include "policy/gate.h"
#include <pthread.h>

/* A rule for peers of one IPv6 zone. No two have the same prefix and zone. */
struct gate_zoned {
	struct prefix prefix;
	uint32_t zone;
	struct door_value value;
};

/* Read-only but for the tries, which are under gate.lock. */
struct gate_binding {
	const struct address *address;
	struct ip ip;
	uint16_t port;                               /* host order */
	const struct receive_connector **connectors; /* enabled, with this binding */
	unsigned connector_count;
	const struct receive_connector **lists; /* by partner: who names it here, or NULL */
	unsigned list_count;
	struct cidr *base; /* of ranges, and of who serves everybody */
	struct cidr *balancers;
	struct cidr *marks; /* prefixes of zoned, with DOOR_ZONED */
	struct gate_zoned *zoned;
	unsigned zoned_count;
	bool has_rules; /* somebody may announce peers here, or where this is asked second */

	struct cidr *door;
	struct cidr *rules; /* NULL: has_rules is false */
};

/* By index of the partner. */
struct gate_partner {
	struct cidr *set; /* under gate.lock; NULL: no connector names it */
	uint64_t generation;
	struct ip_list_file file; /* that the set was read from */
	unsigned id;
};

struct gate {
	const struct policy *policy;
	pthread_rwlock_t lock;
	struct gate_binding *bindings;
	unsigned binding_count;
	struct gate_partner *partners;
	unsigned *connector_ids; /* by index of the connector; 0: not enabled */
	const struct receive_connector *connectors[DOOR_CONNECTORS_MAX]; /* by number */
	const struct partner *named[DOOR_PARTNERS_MAX];                  /* by number */
};

/* Lines on errors, of which the first are printed. */
struct gate_mistakes {
	FILE *errors;
	const char *where; /* in front of each line: "FILE: ", or "" */
	unsigned count;
};

#define GATE_MISTAKES_MAX 20

/* gate_ids.c: numbers into gate->connector_ids and gate->partners, those of ids as far as it has
 * them; new ones into ids. -EINVAL with lines on errors. */
NODISCARD int gate_assign_ids(struct gate *gate, struct gate_ids *ids, FILE *errors);

/* gate_compile.c: the bindings, with the connectors that have them, but without tries. */
NODISCARD int gate_create_bindings(struct gate *gate);
/* base, balancers and zones; door and rules as they are without lists. -ENOMEM. */
NODISCARD int binding_create_tries(const struct gate *gate, struct gate_binding *binding);
void binding_destroy(struct gate_binding *binding);

/*
 * What the prefix is in these tries (NULL: not asked for) when the partners' lists say list (NULL:
 * nothing). -ENOMEM: maybe in one of two; without a list it does not happen.
 */
NODISCARD int binding_apply(const struct gate_binding *binding, struct cidr *door,
	struct cidr *rules, const struct prefix *prefix, const struct door_value *list);

/* Is the prefix of the binding's family? */
bool binding_has_family(const struct gate_binding *binding, const struct prefix *prefix);

/* What the entry of a partner's list is in the tries of a binding. */
struct door_value gate_list_value(const struct gate *gate, const struct gate_binding *binding,
	const struct partner *partner, struct door_value entry);

/* gate_conflict.c. Is the prefix in the list of another partner of the binding? */
void gate_check_partners(const struct gate *gate, const struct gate_binding *binding,
	const struct partner *partner, const struct prefix *prefix, struct gate_mistakes *mistakes);
/* Is it equal to another connector's range, or does it overlap one in part? */
void gate_check_ranges(const struct gate *gate, const struct gate_binding *binding,
	const struct partner *partner, const struct prefix *prefix, struct gate_mistakes *mistakes);
/* The same for all prefixes of a set. */
void gate_check_set_ranges(const struct gate *gate, const struct gate_binding *binding,
	const struct partner *partner, const struct cidr *set, struct gate_mistakes *mistakes);
