/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * gate.h: who may connect to which binding, and which receive connector serves them (EXCHANGE
 * 2.1): the rules of one policy, and the partners' lists of addresses, as one trie for each
 * binding.
 *
 *   remote-ip-ranges ----\
 *   no ranges: everybody -+--> base trie --\
 *   proxy-balancers -----/                  +--> door trie --> the kernel's maps (bpf/loader.h)
 *   remote-ip-partners --> partners' lists --/        \-------> gate_ask(), where it has none
 *
 * The narrowest range wins, which after cutting ranges into prefixes is the longest prefix. Where
 * pieces of two ranges are the same prefix, the narrower range has it; a partner's list has it
 * before its own connector's ranges, a balancer before both. Anything else that is equal is a
 * mistake of the configuration, as is a prefix of two partners on one binding, and a prefix of a
 * list that overlaps a range of another connector in part.
 *
 * An exact local address is asked before the wildcard address of its port: who is in no prefix of
 * the first is looked up in the second. An exclusion is an answer, and ends it.
 *
 * Lists change while workers ask: asking takes a lock for reading, a change prepares everything
 * beside it and takes the lock for exchanging pointers, or for one prefix.
 * Changes come from one thread at a time (relay/doorman.h sees to it).
 */

#include "policy/cidr.h"
#include "policy/ip_list.h"
#include "policy/policy.h"

/*
 * Names of connectors and partners as the small numbers of struct door_value. A name keeps its
 * number over reloads, and with the kernel's maps over restarts. connectors[n] has the number n; 1
 * is the first, and [0] is empty. Used by the one thread that makes gates.
 */
struct gate_ids {
	char connectors[DOOR_CONNECTORS_MAX][DOOR_NAME_BYTES];
	char partners[DOOR_PARTNERS_MAX][DOOR_NAME_BYTES];
};

NODISCARD int gate_ids_create(struct gate_ids **out);
void gate_ids_destroy(struct gate_ids **ids);

/* Has no name a number? */
bool gate_ids_are_blank(const struct gate_ids *ids);

struct gate;

/*
 * The gate of a policy: reads the lists of all partners that a connector names. Mistakes (in lists;
 * contradictions; too many or too long names) are lines on errors, -EINVAL; or -errno. Numbers
 * of names that the policy does not have are given to new names when there are no others left.
 * ids may be NULL: then the gate has numbers of its own. The policy is borrowed.
 */
NODISCARD int gate_create(
	const struct policy *policy, struct gate_ids *ids, FILE *errors, struct gate **out);
void gate_destroy(struct gate **gate); /* NULL is harmless */

/* The numbers that it gives, and no others. */
void gate_read_ids(const struct gate *gate, struct gate_ids *out);

/* Has each of its names that number in ids? Then another gate made with them would be the same. */
bool gate_has_ids(const struct gate *gate, const struct gate_ids *ids);

/* ---- asking; any thread */

struct gate_answer {
	const struct receive_connector *connector; /* NULL: nobody serves this peer here */
	const struct partner *partner;             /* whose list has the peer; NULL: none */
	struct prefix prefix;                      /* that matched; with connector or is_excluded */
	bool is_excluded;                          /* by the partner's list */
	bool is_balancer; /* the peer has to announce who it speaks for (PROXY protocol) */
	bool is_zoned;    /* the kernel has left it to us, and knows no connector to count it for */
};

/*
 * A peer at a local address. zone: its IPv6 scope, 0: none. True if it may come in: a connector, or
 * a balancer with the connector that trusts it.
 */
bool gate_ask(struct gate *gate, const struct address *local, const struct ip *peer, uint32_t zone,
	struct gate_answer *out);

/*
 * The same for a peer that a balancer or front end has announced: nobody is a balancer then.
 * It may be of another family than the binding.
 */
bool gate_ask_announced(struct gate *gate, const struct address *local, const struct ip *peer,
	struct gate_answer *out);

/*
 * What a value of the kernel's maps means here. False: it has a number that this gate does
 * not know, or DOOR_ZONED: ask gate_ask().
 */
bool gate_resolve(const struct gate *gate, struct door_value value, struct gate_answer *out);

/* ---- what is in it */

unsigned gate_binding_count(const struct gate *gate);
const struct address *gate_binding_address(const struct gate *gate, unsigned binding);

/* Does a connector of the binding name the partner in remote-ip-partners? */
bool gate_binding_asks(const struct gate *gate, unsigned binding, const struct partner *partner);

/*
 * What the kernel is to know of the binding: prefixes of its own family only. Borrowed; it changes
 * with the lists, so only the thread that changes them may use it.
 */
const struct cidr *gate_binding_trie(const struct gate *gate, unsigned binding);

/* The numbers of connectors and partners; 0: not in this gate. */
unsigned gate_connector_id(const struct gate *gate, const struct receive_connector *connector);
unsigned gate_partner_id(const struct gate *gate, const struct partner *partner);

/* The list of a partner: its set (borrowed, as above) and generation; NULL if no connector names
 * it. */
const struct cidr *gate_partner_set(
	const struct gate *gate, const struct partner *partner, uint64_t *out_generation);

/* The file that the gate was made with; of a partner that no connector names: none. */
const struct ip_list_file *gate_partner_file(
	const struct gate *gate, const struct partner *partner);

/* ---- changing a partner's list; one thread at a time */

/* A list that is prepared, and what each binding will be with it. */
struct gate_stage;

/*
 * Prepares another set for the partner (copied). Contradictions with other connectors and partners
 * are lines on errors (-EINVAL); -ENOMEM. Nothing is in force yet.
 */
NODISCARD int gate_stage_create(struct gate *gate, const struct partner *partner,
	const struct cidr *set, FILE *errors, struct gate_stage **out);

/* The trie of the binding as it will be; NULL: it does not change. */
const struct cidr *gate_stage_trie(const struct gate_stage *stage, unsigned binding);

/* Puts it in force, with that generation, and frees the stage. */
void gate_stage_commit(struct gate_stage **stage, uint64_t generation);
void gate_stage_destroy(struct gate_stage **stage); /* it comes to nothing */

/*
 * One prefix, at once: value is NULL to remove it, else flags 0 or DOOR_EXCLUDED. The generation is
 * set. -EEXIST, -ENOENT: it is so already; -EINVAL with lines on errors; -ENOMEM: nothing changed.
 */
NODISCARD int gate_change_one(struct gate *gate, const struct partner *partner,
	const struct prefix *prefix, const struct door_value *value, uint64_t generation,
	FILE *errors);
