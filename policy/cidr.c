/* SPDX-License-Identifier: Apache-2.0 */

/*
 * cidr.c: a binary trie with compressed paths, one for each family. What has children is a branch,
 * what has a value an entry; most entries are leaves and need no branch:
 *
 *         branch, 8 bits -------- entry 10.0.0.0/8
 *          /          \
 *   entry 10.1.0.0/16  branch, 15 bits
 *                       /           \
 *           entry 10.64.0.0/16  entry 10.65.0.0/16
 *
 * A branch does not know its key: those below it do. Looking up follows the bits of the
 * address, and compares only where there is an entry. So a step takes 16 bytes of memory, and a
 * million prefixes lie in 32 MB (IPv4) or 44 MB (IPv6).
 *
 * A branch without an entry has two children, one with an entry at least one.
 */

#include "policy/cidr.h"
#include "policy/cidr_key.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What a place in the trie leads to: nothing, a branch, or (with this bit) an entry as a leaf. */
#define REF_NONE 0u
#define REF_LEAF 0x80000000u

/* Items of one size, by numbers from 1, which stay when the block moves. */
struct item_pool {
	char *items;
	size_t item_bytes;
	uint32_t used; /* numbers that were ever given */
	uint32_t capacity;
	uint32_t live;
	uint32_t free_head; /* a free item has the next in its first bytes */
};

struct branch {
	uint32_t children[2]; /* by the bit behind those of the branch */
	uint32_t entry;       /* 0: none */
	uint8_t bits;
};

struct entry {
	struct door_value value;
	uint8_t bits;
	uint8_t key[]; /* 4 or 16 bytes */
};

struct trie {
	unsigned key_bytes;
	uint32_t root;
	struct item_pool branches;
	struct item_pool entries;
};

struct cidr {
	struct trie families[2]; /* IPv4, IPv6 */
};

/* ---- items */

static void *pool_item(const struct item_pool *pool, uint32_t number)
{
	return pool->items + (number - 1) * pool->item_bytes;
}

/* Makes sure that the next pool_take() has one. */
static bool pool_reserve(struct item_pool *pool)
{
	const uint32_t capacity = pool->capacity + pool->capacity / 4 + 16;
	char *items = NULL;

	if (pool->free_head != 0 || pool->used < pool->capacity)
		return true;
	if (capacity >= REF_LEAF)
		return false;
	items = realloc(pool->items, capacity * pool->item_bytes);
	if (items == NULL)
		return false;
	pool->items = items;
	pool->capacity = capacity;
	return true;
}

static uint32_t pool_take(struct item_pool *pool)
{
	uint32_t number = pool->free_head;

	if (number != 0) {
		memcpy(&pool->free_head, pool_item(pool, number), sizeof(pool->free_head));
	} else {
		ASSERT(pool->used < pool->capacity);
		number = ++pool->used;
	}
	pool->live++;
	return number;
}

static void pool_clear(struct item_pool *pool)
{
	free(pool->items);
	*pool = (struct item_pool){.item_bytes = pool->item_bytes};
}

static void pool_put(struct item_pool *pool, uint32_t number)
{
	memcpy(pool_item(pool, number), &pool->free_head, sizeof(pool->free_head));
	pool->free_head = number;
	if (--pool->live == 0)
		pool_clear(pool);
}

static bool pool_copy(const struct item_pool *from, struct item_pool *out)
{
	*out = *from;
	out->capacity = from->used;
	out->items = NULL;
	if (from->used == 0)
		return true;
	out->items = malloc(from->used * from->item_bytes);
	if (out->items == NULL) {
		*out = (struct item_pool){.item_bytes = from->item_bytes};
		return false;
	}
	memcpy(out->items, from->items, from->used * from->item_bytes);
	return true;
}

/* ---- the trie of one family */

static struct branch *trie_branch(const struct trie *trie, uint32_t ref)
{
	return pool_item(&trie->branches, ref);
}

static struct entry *trie_entry(const struct trie *trie, uint32_t number)
{
	return pool_item(&trie->entries, number);
}

static bool ref_is_leaf(uint32_t ref)
{
	return (ref & REF_LEAF) != 0;
}

static bool ref_is_branch(uint32_t ref)
{
	return ref != REF_NONE && !ref_is_leaf(ref);
}

static struct entry *trie_leaf(const struct trie *trie, uint32_t ref)
{
	return trie_entry(trie, ref & ~REF_LEAF);
}

static unsigned trie_bits(const struct trie *trie, uint32_t ref)
{
	return ref_is_leaf(ref) ? trie_leaf(trie, ref)->bits : trie_branch(trie, ref)->bits;
}

static bool entry_has(const struct entry *entry, const uint8_t *key)
{
	return key_common(entry->key, key, entry->bits) == entry->bits;
}

/*
 * An entry that has as many bits in common with the prefix as any, and is the prefix if that is
 * there; NULL: there is none at all.
 */
static struct entry *trie_nearest(const struct trie *trie, const struct prefix *prefix)
{
	uint32_t ref = trie->root;

	while (ref_is_branch(ref)) {
		const struct branch *branch = trie_branch(trie, ref);
		unsigned side = 0;

		if (branch->bits < prefix->bits)
			side = key_bit(prefix->ip.bytes, branch->bits);
		else if (branch->entry != 0)
			return trie_entry(trie, branch->entry);
		if (branch->children[side] == REF_NONE)
			return trie_entry(trie, branch->entry);
		ref = branch->children[side];
	}
	return ref == REF_NONE ? NULL : trie_leaf(trie, ref);
}

/* The place on the way to the key of what has so many bits or more. */
static uint32_t *trie_place(struct trie *trie, const uint8_t *key, unsigned bits)
{
	uint32_t *place = &trie->root;

	while (ref_is_branch(*place)) {
		struct branch *branch = trie_branch(trie, *place);

		if (branch->bits >= bits)
			break;
		place = &branch->children[key_bit(key, branch->bits)];
	}
	return place;
}

static uint32_t trie_entry_take(
	struct trie *trie, const struct prefix *prefix, struct door_value value)
{
	const uint32_t number = pool_take(&trie->entries);
	struct entry *entry = trie_entry(trie, number);

	entry->value = value;
	entry->bits = prefix->bits;
	memcpy(entry->key, prefix->ip.bytes, trie->key_bytes);
	return number;
}

/* A branch where the key and what is at the place (near among it) part, or one of them ends. */
static void trie_split(struct trie *trie, uint32_t *place, const struct prefix *prefix,
	uint32_t number, const struct entry *near, unsigned bits)
{
	const uint32_t old = *place, ref = pool_take(&trie->branches);
	struct branch *branch = trie_branch(trie, ref);

	*branch = (struct branch){.bits = (uint8_t)bits};
	if (prefix->bits == bits)
		branch->entry = number;
	else
		branch->children[key_bit(prefix->ip.bytes, bits)] = number | REF_LEAF;
	if (trie_bits(trie, old) == bits)
		branch->entry = old & ~REF_LEAF;
	else
		branch->children[key_bit(near->key, bits)] = old;
	*place = ref;
}

static struct entry *trie_get(const struct trie *trie, const struct prefix *prefix)
{
	struct entry *entry = NULL;
	uint32_t ref = trie->root;

	while (ref_is_branch(ref)) {
		const struct branch *branch = trie_branch(trie, ref);

		if (branch->bits >= prefix->bits) {
			if (branch->bits == prefix->bits && branch->entry != 0)
				entry = trie_entry(trie, branch->entry);
			break;
		}
		ref = branch->children[key_bit(prefix->ip.bytes, branch->bits)];
	}
	if (ref_is_leaf(ref))
		entry = trie_leaf(trie, ref);
	if (entry == NULL || entry->bits != prefix->bits || !entry_has(entry, prefix->ip.bytes))
		return NULL;
	return entry;
}

static int trie_put(struct trie *trie, const struct prefix *prefix, struct door_value value)
{
	const uint8_t *key = prefix->ip.bytes;
	struct entry *near = trie_nearest(trie, prefix);
	unsigned common = 0;
	uint32_t *place = NULL;
	uint32_t number = 0;

	if (near != NULL && near->bits == prefix->bits && entry_has(near, key)) {
		near->value = value;
		return 0;
	}
	if (!pool_reserve(&trie->entries) || !pool_reserve(&trie->branches))
		return -ENOMEM;
	/* What was found may have moved. */
	near = trie_nearest(trie, prefix);
	number = trie_entry_take(trie, prefix, value);
	if (near == NULL) {
		trie->root = number | REF_LEAF;
		return 0;
	}
	common = key_common(near->key, key, near->bits < prefix->bits ? near->bits : prefix->bits);
	place = trie_place(trie, key, common);
	if (trie_bits(trie, *place) > common || ref_is_leaf(*place))
		trie_split(trie, place, prefix, number, near, common);
	else if (prefix->bits == common)
		trie_branch(trie, *place)->entry = number;
	else
		trie_branch(trie, *place)->children[key_bit(key, common)] = number | REF_LEAF;
	return 0;
}

/* A branch that has lost something makes way if it is no longer needed. */
static void trie_join(struct trie *trie, uint32_t *place)
{
	const uint32_t ref = *place;
	const struct branch *branch = trie_branch(trie, ref);
	const uint32_t *children = branch->children;
	const uint32_t child = children[children[0] == REF_NONE];

	if (branch->entry != 0 && child != REF_NONE)
		return;
	if (branch->entry == 0 && children[0] != REF_NONE && children[1] != REF_NONE)
		return;
	*place = branch->entry != 0 ? branch->entry | REF_LEAF : child;
	pool_put(&trie->branches, ref);
}

static bool trie_remove(struct trie *trie, const struct prefix *prefix)
{
	const struct entry *entry = trie_get(trie, prefix);
	uint32_t *place = &trie->root, *above = NULL;
	uint32_t number = 0;

	if (entry == NULL)
		return false;
	while (ref_is_branch(*place)) {
		struct branch *branch = trie_branch(trie, *place);

		above = place;
		if (branch->bits == prefix->bits) {
			number = branch->entry;
			branch->entry = 0;
			break;
		}
		place = &branch->children[key_bit(prefix->ip.bytes, branch->bits)];
	}
	if (number == 0) {
		number = *place & ~REF_LEAF;
		*place = REF_NONE;
	}
	pool_put(&trie->entries, number);
	if (above != NULL)
		trie_join(trie, above);
	return true;
}

/* The longest entry of at most so many bits that has the key; NULL: none. */
static const struct entry *trie_lookup(const struct trie *trie, const uint8_t *key, unsigned bits)
{
	const struct entry *best = NULL;
	uint32_t ref = trie->root;

	while (ref_is_branch(ref)) {
		const struct branch *branch = trie_branch(trie, ref);

		if (branch->bits > bits)
			return best;
		if (branch->entry != 0) {
			const struct entry *entry = trie_entry(trie, branch->entry);

			/* All that is below begins with the same bits. */
			if (!entry_has(entry, key))
				return best;
			best = entry;
		}
		ref = branch->children[key_bit(key, branch->bits)];
	}
	if (ref != REF_NONE) {
		const struct entry *entry = trie_leaf(trie, ref);

		if (entry->bits <= bits && entry_has(entry, key))
			best = entry;
	}
	return best;
}

static void trie_clear(struct trie *trie)
{
	pool_clear(&trie->branches);
	pool_clear(&trie->entries);
	trie->root = REF_NONE;
}

/* ---- both families */

static size_t entry_bytes(unsigned key_bytes)
{
	const size_t align = _Alignof(struct entry);

	return (offsetof(struct entry, key) + key_bytes + align - 1) / align * align;
}

int cidr_create(struct cidr **out)
{
	static const unsigned key_bytes[2] = {KEY_BYTES_V4, KEY_BYTES_V6};
	struct cidr *cidr = calloc(1, sizeof(*cidr));

	if (cidr == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < 2; i++) {
		struct trie *trie = &cidr->families[i];

		trie->key_bytes = key_bytes[i];
		trie->branches.item_bytes = sizeof(struct branch);
		trie->entries.item_bytes = entry_bytes(key_bytes[i]);
	}
	*out = cidr;
	return 0;
}

int cidr_copy_create(const struct cidr *from, struct cidr **out)
{
	struct cidr *cidr = NULL;
	int rc = cidr_create(&cidr);

	for (unsigned i = 0; rc == 0 && i < 2; i++) {
		const struct trie *old = &from->families[i];
		struct trie *trie = &cidr->families[i];

		trie->root = old->root;
		if (!pool_copy(&old->branches, &trie->branches) ||
			!pool_copy(&old->entries, &trie->entries))
			rc = -ENOMEM;
	}
	if (rc < 0)
		cidr_destroy(&cidr);
	else
		*out = cidr;
	return rc;
}

void cidr_destroy(struct cidr **cidr)
{
	if (*cidr == NULL)
		return;
	trie_clear(&(*cidr)->families[0]);
	trie_clear(&(*cidr)->families[1]);
	free(*cidr);
	*cidr = NULL;
}

static const struct trie *cidr_family(const struct cidr *cidr, const struct ip *ip)
{
	return &cidr->families[ip->is_v6];
}

int cidr_put(struct cidr *cidr, const struct prefix *prefix, struct door_value value)
{
	ASSERT(prefix->bits <= ip_bits(&prefix->ip));
	return trie_put(&cidr->families[prefix->ip.is_v6], prefix, value);
}

bool cidr_remove(struct cidr *cidr, const struct prefix *prefix)
{
	return trie_remove(&cidr->families[prefix->ip.is_v6], prefix);
}

const struct door_value *cidr_get(const struct cidr *cidr, const struct prefix *prefix)
{
	const struct entry *entry = trie_get(cidr_family(cidr, &prefix->ip), prefix);

	return entry != NULL ? &entry->value : NULL;
}

/* An entry's prefix, in the family of the trie. */
static struct prefix trie_prefix(const struct trie *trie, const struct entry *entry)
{
	struct prefix prefix = {.ip.is_v6 = trie->key_bytes == KEY_BYTES_V6, .bits = entry->bits};

	memcpy(prefix.ip.bytes, entry->key, trie->key_bytes);
	return prefix;
}

const struct door_value *cidr_lookup(
	const struct cidr *cidr, const struct ip *ip, struct prefix *out)
{
	const struct trie *trie = cidr_family(cidr, ip);
	const struct entry *entry = trie_lookup(trie, ip->bytes, trie->key_bytes * 8);

	if (entry != NULL && out != NULL)
		*out = trie_prefix(trie, entry);
	return entry != NULL ? &entry->value : NULL;
}

const struct door_value *cidr_above(
	const struct cidr *cidr, const struct prefix *prefix, struct prefix *out)
{
	const struct trie *trie = cidr_family(cidr, &prefix->ip);
	const struct entry *entry = NULL;

	if (prefix->bits > 0)
		entry = trie_lookup(trie, prefix->ip.bytes, prefix->bits - 1u);
	if (entry != NULL && out != NULL)
		*out = trie_prefix(trie, entry);
	return entry != NULL ? &entry->value : NULL;
}

size_t cidr_count(const struct cidr *cidr)
{
	return (size_t)cidr->families[0].entries.live + cidr->families[1].entries.live;
}

static size_t pool_bytes(const struct item_pool *pool)
{
	return pool->capacity * pool->item_bytes;
}

size_t cidr_bytes(const struct cidr *cidr)
{
	size_t bytes = sizeof(*cidr);

	for (unsigned i = 0; i < 2; i++)
		bytes += pool_bytes(&cidr->families[i].branches) +
			 pool_bytes(&cidr->families[i].entries);
	return bytes;
}

/* ---- all of them in order: a branch's entry, then the children */

static void walk_push(struct cidr_walk *walk, uint32_t ref)
{
	if (ref == REF_NONE)
		return;
	ASSERT(walk->depth < COUNT_OF(walk->stack));
	walk->stack[walk->depth++] = ref;
}

void cidr_walk_start(struct cidr_walk *walk, const struct cidr *cidr)
{
	walk->trie = cidr;
	walk->is_v6 = false;
	walk->depth = 0;
	walk_push(walk, cidr->families[0].root);
}

/* The next entry of the family that the walk is in; NULL: that was the last. */
static const struct entry *walk_entry(struct cidr_walk *walk, const struct trie *trie)
{
	while (walk->depth > 0) {
		const uint32_t ref = walk->stack[--walk->depth];
		const struct branch *branch = NULL;

		if (ref_is_leaf(ref))
			return trie_leaf(trie, ref);
		branch = trie_branch(trie, ref);
		walk_push(walk, branch->children[1]);
		walk_push(walk, branch->children[0]);
		if (branch->entry != 0)
			return trie_entry(trie, branch->entry);
	}
	return NULL;
}

bool cidr_walk_next(struct cidr_walk *walk, struct prefix *prefix, struct door_value *value)
{
	const struct trie *trie = &walk->trie->families[walk->is_v6];
	const struct entry *entry = walk_entry(walk, trie);

	if (entry == NULL && !walk->is_v6) {
		trie = &walk->trie->families[1];
		walk->is_v6 = true;
		walk_push(walk, trie->root);
		entry = walk_entry(walk, trie);
	}
	if (entry == NULL)
		return false;
	*prefix = trie_prefix(trie, entry);
	*value = entry->value;
	return true;
}
