/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_gate_change.c: lists that change while others ask, one prefix or all of them; and the
 * numbers of names.
 */

#include "tests/unit/gate_fixture.h"
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#define TEXT                                                                                     \
	LISTS OUT PARTNER("p") PARTNER("q") PARTNER(                                             \
		"unnamed") "receive-connector a { bindings = {\"0.0.0.0:25\", \"[::]:25\"}\n"    \
			   " send-connector = out remote-ip-partners = p\n"                      \
			   " remote-ip-ranges = \"10.0.0.0/8\" }\n"                              \
			   "receive-connector b { bindings = {\"0.0.0.0:25\", \"0.0.0.0:26\"}\n" \
			   " send-connector = out remote-ip-partners = q\n"                      \
			   " proxy-balancers = 10.0.0.9 }\n"                                     \
			   "receive-connector c { bindings = \"0.0.0.0:26\" send-connector = "   \
			   "out\n"                                                               \
			   " remote-ip-partners = p remote-ip-ranges = \"172.16.0.0/12\" }\n"

static struct policy *policy;
static struct gate *gate;

static void begin(void)
{
	put_list("p", "192.0.2.0/24\n!192.0.2.7\n2001:db8::/32\n");
	put_list("q", "198.51.100.0/24\n");
	gate_text(TEXT, &policy, &gate);
}

static void end(void)
{
	gate_destroy(&gate);
	policy_destroy(&policy);
}

static void expect(const char *peer, uint16_t port, const char *want)
{
	const char *local = strchr(peer, ':') == NULL ? "203.0.113.1" : "2001:db8::25";
	const char *got = ask_text(gate, peer, local, port, 0, false);

	if (strcmp(got, want) != 0)
		fail_msg("%s to port %u: expected %s, got %s", peer, port, want, got);
}

/* A set of entries as on the lines of a list, or NULL for none. */
static struct cidr *set_of(const char *const *entries)
{
	struct cidr *set = NULL;

	assert_int_equal(cidr_create(&set), 0);
	for (; *entries != NULL; entries++)
		assert_int_equal(ip_list_put_text(set, *entries), 0);
	return set;
}

static int stage(const char *partner, const char *const *entries, struct gate_stage **out)
{
	struct cidr *set = set_of(entries);
	size_t bytes = 0;
	FILE *errors = NULL;
	int rc = 0;

	free(said);
	said = NULL;
	errors = open_memstream(&said, &bytes);
	assert_non_null(errors);
	rc = gate_stage_create(gate, partner_named(policy, partner), set, errors, out);
	assert_int_equal(fclose(errors), 0);
	cidr_destroy(&set);
	return rc;
}

static int change(const char *partner, const char *prefix, int flags, uint64_t generation)
{
	const struct prefix at = prefix_of(prefix);
	const struct door_value value = {.flags = (uint16_t)flags};
	size_t bytes = 0;
	FILE *errors = NULL;
	int rc = 0;

	free(said);
	said = NULL;
	errors = open_memstream(&said, &bytes);
	assert_non_null(errors);
	rc = gate_change_one(gate, partner_named(policy, partner), &at, flags < 0 ? NULL : &value,
		generation, errors);
	assert_int_equal(fclose(errors), 0);
	return rc;
}

static uint64_t generation_of(const char *partner)
{
	uint64_t generation = 0;

	assert_non_null(gate_partner_set(gate, partner_named(policy, partner), &generation));
	return generation;
}

static unsigned binding_at(const char *text)
{
	char own[64];

	for (unsigned b = 0; b < gate_binding_count(gate); b++) {
		address_print(gate_binding_address(gate, b), own, sizeof(own));
		if (strcmp(own, text) == 0)
			return b;
	}
	fail_msg("no binding %s", text);
	return 0;
}

/* ---- all at once */

static void test_commit(void **state)
{
	static const char *const next[] = {"192.0.2.0/24", "203.0.113.0/24", "!10.1.0.0/16", NULL};
	struct gate_stage *made = NULL;

	(void)state;
	begin();
	assert_int_equal(stage("p", next, &made), 0);
	assert_string_equal(said, "");
	/* Not yet. */
	expect("203.0.113.9", 25, "nobody");
	expect("192.0.2.7", 25, "!p");
	expect("10.1.0.1", 25, "a");
	assert_int_equal(generation_of("p"), 7);
	for (unsigned b = 0; b < gate_binding_count(gate); b++)
		assert_non_null(gate_stage_trie(made, b));
	gate_stage_commit(&made, 8);
	assert_null(made);
	assert_int_equal(generation_of("p"), 8);
	assert_int_equal(generation_of("q"), 7);
	expect("203.0.113.9", 25, "a/p");
	expect("203.0.113.9", 26, "c/p");
	expect("192.0.2.7", 25, "a/p");
	expect("10.1.0.1", 25, "!p");
	expect("10.2.0.1", 25, "a");
	expect("2001:db8::1", 25, "nobody");
	expect("198.51.100.1", 25, "b/q");
	end();
}

static void test_abandon(void **state)
{
	static const char *const next[] = {"203.0.113.0/24", NULL};
	struct gate_stage *made = NULL;

	(void)state;
	begin();
	assert_int_equal(stage("p", next, &made), 0);
	gate_stage_destroy(&made);
	assert_null(made);
	gate_stage_destroy(&made);
	assert_int_equal(generation_of("p"), 7);
	expect("203.0.113.9", 25, "nobody");
	expect("192.0.2.1", 25, "a/p");
	expect("2001:db8::1", 25, "a/p");
	end();
}

/* Only bindings that change have another trie, and it is what will be in force. */
static void test_stage_tries(void **state)
{
	static const char *const next[] = {"192.0.2.0/24", "!192.0.2.7", "2001:db8::/33", NULL};
	static const char *const same[] = {"192.0.2.0/24", "!192.0.2.7", "2001:db8::/32", NULL};
	const struct prefix half = prefix_of("2001:db8::/33"), whole = prefix_of("2001:db8::/32");
	struct gate_stage *made = NULL;
	unsigned v6 = 0;

	(void)state;
	begin();
	v6 = binding_at("[::]:25");
	assert_int_equal(stage("p", next, &made), 0);
	for (unsigned b = 0; b < gate_binding_count(gate); b++)
		assert_int_equal(gate_stage_trie(made, b) != NULL, b == v6);
	assert_non_null(cidr_get(gate_stage_trie(made, v6), &half));
	assert_null(cidr_get(gate_stage_trie(made, v6), &whole));
	assert_non_null(cidr_get(gate_binding_trie(gate, v6), &whole));
	gate_stage_commit(&made, 9);
	assert_non_null(cidr_get(gate_binding_trie(gate, v6), &half));
	assert_null(cidr_get(gate_binding_trie(gate, v6), &whole));
	end();
	begin();
	assert_int_equal(stage("p", same, &made), 0);
	for (unsigned b = 0; b < gate_binding_count(gate); b++)
		assert_null(gate_stage_trie(made, b));
	gate_stage_commit(&made, 8);
	assert_int_equal(generation_of("p"), 8);
	end();
}

static void test_stage_conflicts(void **state)
{
	static const char *const twice[] = {"198.51.100.0/24", NULL};
	static const char *const range[] = {"10.0.0.0/8", NULL};
	static const char *const part[] = {"192.0.2.0/25", "172.16.0.0/11", "0.0.0.0/0", NULL};
	static const char *const around[] = {"172.0.0.0/8", "10.0.0.9", NULL};
	struct gate_stage *made = NULL;

	(void)state;
	begin();
	assert_int_equal(stage("p", twice, &made), -EINVAL);
	assert_null(made);
	assert_string_equal(said,
		"198.51.100.0/24 of partner \"p\" is in the list of partner \"q\" too, which is "
		"asked on the same binding 0.0.0.0:25, expected each address in one list\n"
		"198.51.100.0/24 of partner \"p\" is in the list of partner \"q\" too, which is "
		"asked on the same binding 0.0.0.0:26, expected each address in one list\n");
	/* A range of a's own is no contradiction, and b's is. */
	assert_int_equal(stage("p", range, &made), 0);
	gate_stage_destroy(&made);
	assert_int_equal(stage("q", range, &made), -EINVAL);
	assert_non_null(strstr(said, "is one of remote-ip-ranges of receive-connector \"a\""));
	assert_int_equal(stage("q", part, &made), 0);
	gate_stage_destroy(&made);
	/* A balancer's address in a list of its connector: the balancer goes first. */
	assert_int_equal(stage("q", around, &made), 0);
	gate_stage_commit(&made, 8);
	expect("10.0.0.9", 25, "balancer b");
	assert_int_equal(change("p", "10.0.0.9", 0, 9), -EINVAL);
	assert_non_null(strstr(said, "is in the list of partner \"q\" too"));
	end();
}

/* ---- one prefix */

static void test_change_one(void **state)
{
	(void)state;
	begin();
	assert_int_equal(change("p", "203.0.113.0/24", 0, 8), 0);
	assert_int_equal(generation_of("p"), 8);
	expect("203.0.113.9", 25, "a/p");
	expect("203.0.113.9", 26, "c/p");
	assert_int_equal(change("p", "203.0.113.0/24", 0, 9), -EEXIST);
	assert_int_equal(change("p", "203.0.113.0/24", DOOR_EXCLUDED, 9), 0);
	expect("203.0.113.9", 25, "!p");
	assert_int_equal(change("p", "203.0.113.0/24", DOOR_EXCLUDED, 10), -EEXIST);
	assert_int_equal(change("p", "203.0.113.0/24", -1, 10), 0);
	expect("203.0.113.9", 25, "nobody");
	assert_int_equal(change("p", "203.0.113.0/24", -1, 11), -ENOENT);
	assert_int_equal(generation_of("p"), 10);
	/* What was below comes back. */
	assert_int_equal(change("p", "10.0.0.0/8", DOOR_EXCLUDED, 11), 0);
	expect("10.0.0.1", 25, "!p");
	assert_int_equal(change("p", "10.0.0.0/8", -1, 12), 0);
	expect("10.0.0.1", 25, "a");
	expect("10.0.0.9", 25, "balancer b");
	/* The other family. */
	assert_int_equal(change("p", "2001:db8::/32", -1, 13), 0);
	expect("2001:db8::1", 25, "nobody");
	assert_string_equal(said, "");
	/* Contradictions. */
	assert_int_equal(change("p", "198.51.100.0/24", 0, 14), -EINVAL);
	assert_non_null(strstr(said, "is in the list of partner \"q\" too"));
	assert_int_equal(change("q", "10.0.0.0/8", 0, 14), -EINVAL);
	assert_non_null(strstr(said, "on the same binding 0.0.0.0:25, expected each address in"));
	assert_int_equal(change("q", "172.16.0.0/12", 0, 14), -EINVAL);
	assert_non_null(strstr(said, "receive-connector \"c\""));
	assert_int_equal(generation_of("p"), 13);
	assert_int_equal(generation_of("q"), 7);
	expect("198.51.100.1", 25, "b/q");
	end();
}

static void test_what_is_in_it(void **state)
{
	uint64_t generation = 0;
	const struct partner *unnamed = NULL;

	(void)state;
	begin();
	unnamed = partner_named(policy, "unnamed");
	assert_null(gate_partner_set(gate, unnamed, &generation));
	assert_int_equal(gate_partner_id(gate, unnamed), 0);
	assert_int_equal(
		cidr_count(gate_partner_set(gate, partner_named(policy, "p"), &generation)), 3);
	assert_int_equal(gate_binding_count(gate), 3);
	end();
}

/* ---- while others ask */

#define ASKERS 3
#define CHANGES 2000

static atomic_bool is_over;
static atomic_uint wrong;
static atomic_ulong asked;

/* p always has one of two halves, whole sets and single prefixes alike; q never changes. */
static void *ask_again(void *arg)
{
	const struct address local = address_of("203.0.113.1", 25);
	const struct ip kept = ip_of("192.0.2.1"), other = ip_of("198.51.100.1");
	const struct ip stranger = ip_of("203.0.113.99"), coming = ip_of("203.0.113.9");
	struct gate_answer answer;

	(void)arg;
	while (!atomic_load(&is_over)) {
		unsigned bad = 0;

		bad += !gate_ask(gate, &local, &kept, 0, &answer) ||
		       strcmp(answer.partner->name, "p") != 0;
		bad += !gate_ask(gate, &local, &other, 0, &answer) ||
		       strcmp(answer.connector->name, "b") != 0;
		bad += gate_ask(gate, &local, &stranger, 0, &answer);
		if (gate_ask(gate, &local, &coming, 0, &answer))
			bad += strcmp(answer.partner->name, "p") != 0;
		(void)gate_ask_announced(gate, &local, &coming, &answer);
		atomic_fetch_add(&wrong, bad);
		atomic_fetch_add(&asked, 1);
	}
	return NULL;
}

static void test_change_while_others_ask(void **state)
{
	static const char *const with[] = {"192.0.2.0/24", "203.0.113.0/28", NULL};
	static const char *const without[] = {"192.0.2.0/25", "!203.0.113.64/26", NULL};
	pthread_t askers[ASKERS];
	uint64_t generation = 7;

	(void)state;
	begin();
	atomic_store(&is_over, false);
	for (unsigned i = 0; i < ASKERS; i++)
		assert_int_equal(pthread_create(&askers[i], NULL, ask_again, NULL), 0);
	for (unsigned i = 0; i < CHANGES || (atomic_load(&asked) < 1000 && i < 100 * CHANGES);
		i++) {
		struct gate_stage *made = NULL;

		assert_int_equal(stage("p", i % 2 == 0 ? with : without, &made), 0);
		gate_stage_commit(&made, ++generation);
		assert_int_equal(change("p", "203.0.113.8/29", 0, ++generation), 0);
		assert_int_equal(change("p", "203.0.113.8/29", DOOR_EXCLUDED, ++generation), 0);
		assert_int_equal(change("p", "203.0.113.8/29", -1, ++generation), 0);
	}
	atomic_store(&is_over, true);
	for (unsigned i = 0; i < ASKERS; i++)
		assert_int_equal(pthread_join(askers[i], NULL), 0);
	assert_int_equal(wrong, 0);
	assert_in_range(asked, 1000, ULONG_MAX);
	assert_int_equal(generation_of("p"), generation);
	end();
}

/* ---- numbers of names */

#define NUMBERS_TEXT(order) LISTS OUT order

#define NUMBERED(name, port, partner)                                    \
	"receive-connector " name " { bindings = \"0.0.0.0:" port "\"\n" \
	" send-connector = out remote-ip-partners = " partner " }\n"

static void test_numbers_stay(void **state)
{
	struct gate_ids *ids = NULL;
	unsigned a = 0, p = 0, q = 0;
	struct gate_answer answer;

	(void)state;
	put_list("p", "");
	put_list("q", "");
	put_list("r", "");
	assert_int_equal(gate_ids_create(&ids), 0);
	assert_int_equal(load_text(NUMBERS_TEXT(PARTNER("p") PARTNER("q") NUMBERED("a", "25", "p")
						   NUMBERED("b", "26", "q")),
				 &policy),
		0);
	assert_int_equal(make_gate(policy, ids, &gate), 0);
	a = gate_connector_id(gate, &policy->receive_connectors[0]);
	p = gate_partner_id(gate, partner_named(policy, "p"));
	q = gate_partner_id(gate, partner_named(policy, "q"));
	assert_true(a != 0 && p != 0 && q != 0 && p != q);
	assert_string_equal(ids->connectors[a], "a");
	assert_string_equal(ids->partners[q], "q");
	assert_string_equal(ids->connectors[0], "");
	end();
	/* Others in front, some gone: the same numbers. */
	assert_int_equal(load_text(NUMBERS_TEXT(PARTNER("r") PARTNER("q") NUMBERED("x", "27", "r")
						   NUMBERED("a", "25", "q")),
				 &policy),
		0);
	assert_int_equal(make_gate(policy, ids, &gate), 0);
	assert_int_equal(gate_connector_id(gate, &policy->receive_connectors[1]), a);
	assert_int_equal(gate_partner_id(gate, partner_named(policy, "q")), q);
	assert_int_not_equal(gate_partner_id(gate, partner_named(policy, "r")), p);
	/* A number of before is not one of this gate. */
	assert_true(gate_resolve(gate, (struct door_value){.connector = (uint16_t)a}, &answer));
	assert_string_equal(answer.connector->name, "a");
	assert_false(gate_resolve(
		gate, (struct door_value){.connector = (uint16_t)a, .partner = p}, &answer));
	assert_false(gate_resolve(gate, (struct door_value){.connector = 2}, &answer));
	assert_false(gate_resolve(gate, (struct door_value){.connector = 9999}, &answer));
	assert_false(gate_resolve(gate,
		(struct door_value){.connector = (uint16_t)a, .partner = UINT32_MAX}, &answer));
	assert_false(gate_resolve(
		gate, (struct door_value){.connector = (uint16_t)a, .flags = DOOR_ZONED}, &answer));
	assert_false(gate_resolve(gate, (struct door_value){0}, &answer));
	end();
	gate_ids_destroy(&ids);
	assert_null(ids);
}

/* All numbers are taken: those of names that are gone go to new ones; what fails takes none. */
static void test_numbers_run_out(void **state)
{
	struct gate_ids *ids = NULL, *before = NULL;
	const char *name = NULL;

	(void)state;
	put_list("p", "");
	assert_int_equal(gate_ids_create(&ids), 0);
	assert_int_equal(gate_ids_create(&before), 0);
	for (unsigned i = 1; i < DOOR_CONNECTORS_MAX; i++)
		(void)snprintf(ids->connectors[i], DOOR_NAME_BYTES, i == 3 ? "b" : "old-%u", i);
	for (unsigned i = 1; i < DOOR_PARTNERS_MAX; i++)
		(void)snprintf(ids->partners[i], DOOR_NAME_BYTES, "old-%u", i);
	*before = *ids;
	put_list("p", "not an address\n");
	assert_int_equal(load_text(NUMBERS_TEXT(PARTNER("p") NUMBERED("a", "25", "p")
						   NUMBERED("b", "26", "p")),
				 &policy),
		0);
	assert_int_equal(make_gate(policy, ids, &gate), -EINVAL);
	assert_memory_equal(ids, before, sizeof(*ids));
	put_list("p", "192.0.2.1\n");
	assert_int_equal(make_gate(policy, ids, &gate), 0);
	assert_int_equal(gate_connector_id(gate, &policy->receive_connectors[1]), 3);
	name = ids->connectors[gate_connector_id(gate, &policy->receive_connectors[0])];
	assert_string_equal(name, "a");
	name = ids->partners[gate_partner_id(gate, partner_named(policy, "p"))];
	assert_string_equal(name, "p");
	expect("192.0.2.1", 26, "b/p");
	end();
	gate_ids_destroy(&before);
	gate_ids_destroy(&ids);
}

static void test_too_many_names(void **state)
{
	char text[65536];
	char name[DOOR_NAME_BYTES + 8];
	size_t len = 0;

	(void)state;
	len = (size_t)snprintf(text, sizeof(text), "transport { bpf = off }\n" OUT);
	for (unsigned i = 0; i < DOOR_CONNECTORS_MAX; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len,
			"receive-connector c%u { send-connector = out bindings = "
			"\"127.0.%u.%u:25\" }\n",
			i, i / 200, i % 200);
	assert_in_range(len, 1, sizeof(text) - 1);
	assert_int_equal(load_text(text, &policy), 0);
	assert_int_equal(make_gate(policy, NULL, &gate), -EINVAL);
	assert_true(said_at(
		2 + DOOR_CONNECTORS_MAX, "more than 255 receive-connectors, expected fewer"));
	policy_destroy(&policy);
	memset(name, 'n', DOOR_NAME_BYTES);
	name[DOOR_NAME_BYTES] = '\0';
	(void)snprintf(text, sizeof(text),
		OUT "receive-connector %s { send-connector = out bindings = \"127.0.0.1:25\" }\n",
		name);
	assert_int_equal(load_text(text, &policy), 0);
	assert_int_equal(make_gate(policy, NULL, &gate), -EINVAL);
	assert_true(said_at(2, "is too long, expected at most 127 bytes"));
	policy_destroy(&policy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commit),
		cmocka_unit_test(test_abandon),
		cmocka_unit_test(test_stage_tries),
		cmocka_unit_test(test_stage_conflicts),
		cmocka_unit_test(test_change_one),
		cmocka_unit_test(test_what_is_in_it),
		cmocka_unit_test(test_change_while_others_ask),
		cmocka_unit_test(test_numbers_stay),
		cmocka_unit_test(test_numbers_run_out),
		cmocka_unit_test(test_too_many_names),
	};

	return cmocka_run_group_tests_name("gate-change", tests, fixture_setup, fixture_teardown);
}
