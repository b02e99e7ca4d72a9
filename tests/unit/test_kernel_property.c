/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_kernel_property.c: random sets of prefixes and random addresses, asked of all who may
 * decide: the program in the kernel (BPF_PROG_TEST_RUN), the map that is pinned, the loader, and
 * the trie in userspace. All give the same answer to each of a million questions.
 *
 * Sets are of many shapes and of up to 100 000 prefixes; a binding's set is made of the one before
 * it by filling, and by single changes. Addresses are mostly those at the ends of a prefix, or one
 * beside.
 *
 * POSTERN_PROPERTY_SEED and POSTERN_PROPERTY_QUERIES change what is printed first.
 */

#include "tests/unit/kernel_door_fixture.h"

#include <inttypes.h>

#define QUERIES 1000000
#define ROUNDS 50
#define PREFIXES_MAX 100000
#define CONNECTORS 16
#define PARTNERS 64

/* ---- numbers */

static uint64_t random_state;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 0x2545f4914f6cdd1dull;
}

static unsigned random_below(unsigned below)
{
	return (unsigned)((random_next() >> 32) % below);
}

static uint64_t environment_number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text == NULL ? otherwise : strtoull(text, NULL, 0);
}

/* ---- addresses */

static struct ip random_ip(bool is_v6)
{
	struct ip ip = {.is_v6 = is_v6};
	uint64_t words[2] = {random_next(), random_next()};

	memcpy(ip.bytes, words, is_v6 ? 16 : 4);
	return ip;
}

/* The part of the address space that a set lies in. */
static struct ip random_ip_within(const struct ip *base, unsigned bits)
{
	struct ip ip = random_ip(base->is_v6);

	for (unsigned i = 0; i < bits; i++) {
		const uint8_t mask = (uint8_t)(0x80 >> i % 8);

		ip.bytes[i / 8] =
			(uint8_t)((ip.bytes[i / 8] & ~mask) | (base->bytes[i / 8] & mask));
	}
	return ip;
}

static struct prefix prefix_cut(const struct ip *ip, unsigned bits)
{
	struct prefix prefix = prefix_of_ip(ip);

	prefix.bits = (uint8_t)bits;
	prefix.ip = prefix_range(&prefix).first;
	for (unsigned i = bits; i < (ip->is_v6 ? 128u : 32u); i++)
		prefix.ip.bytes[i / 8] &= (uint8_t) ~(0x80 >> i % 8);
	return prefix;
}

/* The next address, or the one before; beyond the last comes the first. */
static void ip_step(struct ip *ip, bool up)
{
	for (unsigned i = ip->is_v6 ? 16 : 4; i-- > 0;) {
		ip->bytes[i] = (uint8_t)(ip->bytes[i] + (up ? 1 : -1));
		if (ip->bytes[i] != (up ? 0 : 0xff))
			return;
	}
}

static bool ip_is_mapped(const struct ip *ip)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	return ip->is_v6 && memcmp(ip->bytes, mapped, sizeof(mapped)) == 0;
}

/* ---- bindings */

/* A binding, what is in its set, and the map that is pinned for it. */
struct binding {
	const char *text;
	struct ip ip;
	bool is_bound;
	unsigned slot;
	struct cidr *set;
	struct prefix *prefixes; /* that were put, some of them twice or removed */
	unsigned prefix_count;
	int pinned; /* the trie, by way of the pinned map; -1 */
};

enum { EXACT_V4, ANY_V4, EXACT_V6, ANY_V6, BINDINGS };

static struct binding bindings[BINDINGS] = {
	{.text = "192.0.2.1"}, {.text = "0.0.0.0"}, {.text = "2001:db8::1"}, {.text = "::"}};
static struct kernel_door *door;

static struct door_value random_value(void)
{
	return (struct door_value){.connector = (uint16_t)(1 + random_below(CONNECTORS)),
		.partner = random_below(PARTNERS),
		.flags = random_below(3) == 0 ? DOOR_EXCLUDED : 0};
}

static void binding_add(struct binding *binding, const struct prefix *prefix)
{
	assert_int_equal(cidr_put(binding->set, prefix, random_value()), 0);
	binding->prefixes[binding->prefix_count++] = *prefix;
}

enum shape {
	SHAPE_ANY_LENGTH,
	SHAPE_HOSTS,
	SHAPE_REAL,  /* lengths as lists have them */
	SHAPE_NEST,  /* one within another */
	SHAPE_ROW,   /* neighbours */
	SHAPE_DENSE, /* all in a small part of the space */
	SHAPE_COUNT,
};

static unsigned real_length(bool is_v6)
{
	static const uint8_t v4[] = {32, 32, 32, 32, 32, 32, 24, 24, 24, 22, 20, 16};
	static const uint8_t v6[] = {48, 48, 48, 48, 64, 64, 64, 32, 56, 128, 127, 44};

	return is_v6 ? v6[random_below(COUNT_OF(v6))] : v4[random_below(COUNT_OF(v4))];
}

/* A set of about so many prefixes, in place of the one before. */
static void binding_make(struct binding *binding, enum shape shape, unsigned count)
{
	const unsigned width = binding->ip.is_v6 ? 128 : 32;
	const unsigned base_bits = random_below(width - 10);
	const unsigned row_bits = width - random_below(width / 2);
	const struct ip base = random_ip(binding->ip.is_v6);
	struct ip row = random_ip(binding->ip.is_v6);

	cidr_destroy(&binding->set);
	assert_int_equal(cidr_create(&binding->set), 0);
	binding->prefix_count = 0;
	while (binding->prefix_count < count) {
		struct ip ip = random_ip(binding->ip.is_v6);
		unsigned bits = random_below(width + 1);
		struct prefix prefix;

		switch (shape) {
		case SHAPE_HOSTS:
			bits = width;
			break;
		case SHAPE_REAL:
			bits = real_length(binding->ip.is_v6);
			break;
		case SHAPE_NEST:
			ip = base;
			if (random_below(4) == 0)
				ip_step(&ip, random_below(2) == 0);
			break;
		case SHAPE_ROW:
			bits = row_bits;
			ip = row;
			prefix = prefix_cut(&ip, bits);
			row = prefix_range(&prefix).last;
			ip_step(&row, true);
			break;
		case SHAPE_DENSE:
			ip = random_ip_within(&base, base_bits);
			bits = base_bits + random_below(width - base_bits + 1);
			break;
		case SHAPE_ANY_LENGTH:
		case SHAPE_COUNT:
			break;
		}
		prefix = prefix_cut(&ip, bits);
		binding_add(binding, &prefix);
	}
}

/* The trie that the pinned map leads to now. */
static int pinned_trie(unsigned slot)
{
	const uint32_t index = slot % DOOR_SLOTS;
	char path[128];
	uint32_t id = 0;
	int outer;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/v%d/%s", lab_pins, DOOR_VERSION,
		slot_is_v6(slot) ? "tries_v6" : "tries_v4");
	outer = bpf_obj_get(path);
	assert_true(outer >= 0);
	assert_int_equal(bpf_map_lookup_elem(outer, &index, &id), 0);
	(void)close(outer);
	fd = bpf_map_get_fd_by_id(id);
	if (fd < 0)
		fail_msg("the pinned trie: %s", strerror(errno));
	return fd;
}

/* A few single changes of what is in force. */
static void binding_change(struct binding *binding, unsigned changes)
{
	while (changes-- > 0 && binding->prefix_count > 0) {
		const struct prefix *prefix =
			&binding->prefixes[random_below(binding->prefix_count)];
		struct door_value value = random_value();

		if (random_below(2) == 0) {
			assert_int_equal(cidr_put(binding->set, prefix, value), 0);
			assert_int_equal(kernel_door_put(door, binding->slot, prefix, value), 0);
		} else {
			bool was_there = cidr_remove(binding->set, prefix);

			assert_int_equal(kernel_door_drop(door, binding->slot, prefix),
				was_there ? 0 : -ENOENT);
		}
	}
}

static void binding_load(struct binding *binding)
{
	struct address address = address_from(binding->text, PORT);

	assert_int_equal(kernel_door_take_slot(door, &address, &binding->slot), 0);
	assert_int_equal(kernel_door_fill(door, binding->slot, binding->set), 0);
	assert_int_equal(kernel_door_swap(door, binding->slot), 0);
	assert_int_equal(kernel_door_bind(door, binding->slot), 0);
	binding_change(binding, 50);
	assert_int_equal(kernel_door_prefixes(door, binding->slot), cidr_count(binding->set));
	binding->pinned = pinned_trie(binding->slot);
	binding->is_bound = true;
}

/* Sizes from none to many; few of the largest, which take time. */
static unsigned random_size(unsigned round)
{
	static const unsigned sizes[] = {0, 1, 2, 3, 10, 100, 1000, 1000, 10000};

	if (round % 10 == 5)
		return PREFIXES_MAX;
	return random_below(sizes[random_below(COUNT_OF(sizes))] + 1);
}

static void bindings_make(unsigned round)
{
	for (unsigned i = 0; i < BINDINGS; i++) {
		struct binding *binding = &bindings[i];
		/* One of the two of a family is left out at times. */
		bool is_wanted = random_below(6) != 0;

		if (binding->pinned >= 0)
			(void)close(binding->pinned);
		binding->pinned = -1;
		if (!is_wanted && binding->is_bound)
			assert_int_equal(kernel_door_unbind(door, binding->slot), 0);
		binding->is_bound = false;
		binding_make(binding, random_below(SHAPE_COUNT),
			round % 40 / 10 == i ? random_size(round) : random_size(round + 1));
		if (is_wanted)
			binding_load(binding);
	}
}

/* ---- questions */

static struct ip random_peer(bool is_v6)
{
	const struct binding *binding = &bindings[(is_v6 ? EXACT_V6 : EXACT_V4) + random_below(2)];
	const unsigned kind = random_below(8);
	struct ip_range range;
	struct ip ip = random_ip(is_v6);

	if (binding->prefix_count > 0 && kind < 7) {
		const struct prefix *prefix =
			&binding->prefixes[random_below(binding->prefix_count)];

		range = prefix_range(prefix);
		ip = kind < 2   ? range.first
		     : kind < 4 ? range.last
		     : kind < 5 ? random_ip_within(&range.first, prefix->bits)
		     : kind < 6 ? range.first
				: range.last;
		if (kind == 5 || kind == 6)
			ip_step(&ip, kind == 6);
	}
	/* Of these the program thinks nothing, and userspace takes them for IPv4. */
	if (ip_is_mapped(&ip))
		ip.bytes[0] = 1;
	return ip;
}

/* An answer: found, and what. */
struct verdict {
	bool is_ours, is_found;
	struct door_value value;
};

static bool verdict_is_equal(const struct verdict *a, const struct verdict *b)
{
	return a->is_ours == b->is_ours && a->is_found == b->is_found &&
	       a->value.connector == b->value.connector && a->value.partner == b->value.partner &&
	       a->value.flags == b->value.flags;
}

static bool look_in_trie(
	const struct binding *binding, const struct ip *peer, struct door_value *out)
{
	const struct door_value *value = cidr_lookup(binding->set, peer, NULL);

	if (value != NULL)
		*out = *value;
	return value != NULL;
}

static bool look_in_map(
	const struct binding *binding, const struct ip *peer, struct door_value *out)
{
	struct door_key_v6 key = {.bits = peer->is_v6 ? 128 : 32};

	memcpy(key.address, peer->bytes, peer->is_v6 ? 16 : 4);
	return bpf_map_lookup_elem(binding->pinned, &key, out) == 0;
}

/* The exact binding, then the wildcard, each by that look-up. */
static struct verdict ask_both(bool is_exact, const struct ip *peer,
	bool (*look)(const struct binding *binding, const struct ip *peer, struct door_value *out))
{
	const struct binding *exact = &bindings[peer->is_v6 ? EXACT_V6 : EXACT_V4];
	const struct binding *any = &bindings[peer->is_v6 ? ANY_V6 : ANY_V4];
	struct verdict verdict = {.is_ours = (is_exact && exact->is_bound) || any->is_bound};

	if (is_exact && exact->is_bound)
		verdict.is_found = look(exact, peer, &verdict.value);
	if (!verdict.is_found && any->is_bound)
		verdict.is_found = look(any, peer, &verdict.value);
	return verdict;
}

static struct verdict ask_loader(const struct address *local, const struct ip *peer)
{
	struct verdict verdict = {.is_ours = true};
	int error = kernel_door_ask(door, local, peer, &verdict.value);

	verdict.is_ours = error != -EADDRNOTAVAIL;
	verdict.is_found = error == 0;
	return verdict;
}

/* What the program must have counted, by connector and partner. */
static struct {
	uint64_t passed[CONNECTORS + 1], refused[CONNECTORS + 1];
	uint64_t partner_passed[PARTNERS], partner_refused[PARTNERS];
	uint64_t found, others;
} tally;

static void tally_add(const struct verdict *verdict)
{
	tally.found += verdict->is_found;
	tally.others += !verdict->is_ours;
	if (!verdict->is_found)
		return;
	if (verdict->value.flags & DOOR_EXCLUDED) {
		tally.refused[verdict->value.connector]++;
		tally.partner_refused[verdict->value.partner]++;
	} else {
		tally.passed[verdict->value.connector]++;
		tally.partner_passed[verdict->value.partner]++;
	}
}

static void ask_all(unsigned round)
{
	const bool is_v6 = random_below(2) == 0;
	const bool is_exact = random_below(3) != 0;
	/* An address that has a binding, or one that only the wildcard is for. */
	struct ip local = ip_from(is_v6      ? is_exact ? "2001:db8::1" : "2001:db8::2"
				  : is_exact ? "192.0.2.1"
					     : "192.0.2.2");
	struct ip peer = random_peer(is_v6);
	char local_text[INET6_ADDRSTRLEN];
	char peer_text[INET6_ADDRSTRLEN];
	struct address address;
	struct verdict trie = ask_both(is_exact, &peer, look_in_trie);
	struct verdict map = ask_both(is_exact, &peer, look_in_map);
	struct verdict loader;
	bool is_in = !trie.is_ours || (trie.is_found && !(trie.value.flags & DOOR_EXCLUDED));
	bool program;

	(void)ip_print(&local, local_text, sizeof(local_text));
	address = address_from(local_text, PORT);
	loader = ask_loader(&address, &peer);
	program = verdict_of_ips(door, &local, PORT, &peer, IPPROTO_TCP);
	tally_add(&trie);
	if (verdict_is_equal(&trie, &map) && verdict_is_equal(&trie, &loader) && program == is_in)
		return;
	fail_msg("round %u, %s at %s: trie %d %u.%u flags %u, map %d %u.%u flags %u, loader %d "
		 "%u.%u flags %u, program %s",
		round, ip_print(&peer, peer_text, sizeof(peer_text)), local_text, trie.is_found,
		trie.value.connector, trie.value.partner, trie.value.flags, map.is_found,
		map.value.connector, map.value.partner, map.value.flags, loader.is_found,
		loader.value.connector, loader.value.partner, loader.value.flags,
		program ? "lets in" : "refuses");
}

/* The program found the same values as the others, not only the same verdicts. */
static void assert_tally(uint64_t queries)
{
	struct door_counts counts;
	struct door_totals totals;

	assert_int_equal(kernel_door_totals(door, &totals), 0);
	assert_int_equal(totals.lookups, queries);
	assert_int_equal(totals.others, tally.others);
	for (unsigned i = 1; i <= CONNECTORS; i++) {
		assert_int_equal(kernel_door_counts(door, KERNEL_DOOR_CONNECTORS, i, &counts), 0);
		assert_int_equal(counts.passed, tally.passed[i]);
		assert_int_equal(counts.refused[DOOR_REASON_EXCLUDED], tally.refused[i]);
	}
	for (unsigned i = 1; i < PARTNERS; i++) {
		assert_int_equal(kernel_door_counts(door, KERNEL_DOOR_PARTNERS, i, &counts), 0);
		assert_int_equal(counts.passed, tally.partner_passed[i]);
		assert_int_equal(counts.refused[DOOR_REASON_EXCLUDED], tally.partner_refused[i]);
	}
}

static void test_same_answers(void **state)
{
	const uint64_t queries = environment_number("POSTERN_PROPERTY_QUERIES", QUERIES);
	uint64_t asked = 0;
	size_t largest = 0;

	(void)state;
	random_state = environment_number("POSTERN_PROPERTY_SEED", 0x9e3779b97f4a7c15ull);
	if (random_state == 0)
		random_state = 1; /* it would stay 0 */
	printf("seed %#" PRIx64 ", %" PRIu64 " queries\n", random_state, queries);
	door = door_up_attached();
	for (unsigned i = 0; i < BINDINGS; i++) {
		bindings[i].ip.is_v6 = i >= EXACT_V6;
		bindings[i].pinned = -1;
		bindings[i].prefixes = calloc(PREFIXES_MAX, sizeof(*bindings[i].prefixes));
		assert_non_null(bindings[i].prefixes);
	}
	for (unsigned round = 0; round < ROUNDS; round++) {
		const uint64_t until = queries * (round + 1) / ROUNDS;

		bindings_make(round);
		for (unsigned i = 0; i < BINDINGS; i++)
			largest = cidr_count(bindings[i].set) > largest
					  ? cidr_count(bindings[i].set)
					  : largest;
		for (; asked < until; asked++)
			ask_all(round);
	}
	assert_tally(queries);
	/* It was worth asking. */
	assert_true(tally.found > queries / 4 && tally.found < queries);
	printf("%" PRIu64 " queries in %d rounds, up to %zu prefixes: %" PRIu64 " found, %" PRIu64
	       " not ours, all answers the same\n",
		asked, ROUNDS, largest, tally.found, tally.others);
	for (unsigned i = 0; i < BINDINGS; i++) {
		if (bindings[i].pinned >= 0)
			(void)close(bindings[i].pinned);
		cidr_destroy(&bindings[i].set);
		free(bindings[i].prefixes);
	}
	door_down(&door);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_answers),
	};

	LAB_MAIN(tests);
}
