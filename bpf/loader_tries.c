/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#include "bpf/loader_private.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

/*
 * kernel_door_ask() reads without a lock. The writer raises door->version before and after each
 * change; who read while it was raised reads again. A change takes the kernel milliseconds, so a
 * few times are enough.
 */
#define ASK_TRIES 16

#define KEY_WORDS 3

_Static_assert(sizeof(struct door_binding) <= KEY_WORDS * sizeof(uint64_t), "a binding's key");
_Static_assert(DOOR_AF_INET == AF_INET && DOOR_AF_INET6 == AF_INET6, "the kernel's families");

/* ---- bindings */

void binding_of_address(const struct ip *ip, uint16_t port, struct door_binding *out)
{
	memset(out, 0, sizeof(*out));
	memcpy(out->address, ip->bytes, ip->is_v6 ? 16 : 4);
	out->port = port;
	out->family = ip->is_v6 ? DOOR_AF_INET6 : DOOR_AF_INET;
}

static bool binding_of_sockaddr(const struct address *address, struct door_binding *out)
{
	const struct sockaddr *sockaddr = (const struct sockaddr *)&address->sockaddr;
	struct ip ip;

	if (!ip_of_sockaddr(sockaddr, &ip))
		return false;
	binding_of_address(&ip, address_port(address), out);
	return true;
}

static void slot_set_key(struct slot *slot, const struct door_binding *binding)
{
	uint64_t words[KEY_WORDS] = {0};

	memcpy(words, binding, sizeof(*binding));
	for (unsigned i = 0; i < KEY_WORDS; i++)
		atomic_store(&slot->key[i], words[i]);
}

static void slot_key(const struct slot *slot, struct door_binding *out)
{
	uint64_t words[KEY_WORDS];

	for (unsigned i = 0; i < KEY_WORDS; i++)
		words[i] = atomic_load(&slot->key[i]);
	memcpy(out, words, sizeof(*out));
}

static bool slot_has_key(const struct slot *slot, const struct door_binding *binding)
{
	struct door_binding own;

	slot_key(slot, &own);
	return memcmp(&own, binding, sizeof(own)) == 0;
}

/* ---- making */

static int trie_create(struct trie *trie, bool is_v6, unsigned prefixes_max)
{
	const struct bpf_map_create_opts options = {
		.sz = sizeof(options), .map_flags = BPF_F_NO_PREALLOC};
	int error = cidr_create(&trie->known);

	if (error < 0)
		return error;
	trie->fd = bpf_map_create(BPF_MAP_TYPE_LPM_TRIE, is_v6 ? "postern_v6" : "postern_v4",
		is_v6 ? sizeof(struct door_key_v6) : sizeof(struct door_key_v4),
		sizeof(struct door_value), prefixes_max, &options);
	return trie->fd < 0 ? -errno : 0;
}

int tries_create(struct kernel_door *door, unsigned prefixes_max, char *why)
{
	int error = 0;

	for (unsigned i = 0; error == 0 && i < 2 * DOOR_SLOTS_ALL; i++) {
		error = door_fail(door, "bpf_map_create");
		if (error == 0)
			error = trie_create(
				&door->slots[i / 2].tries[i % 2], slot_is_v6(i / 2), prefixes_max);
	}
	if (error == -EMFILE)
		return door_explain(why, error,
			"tries cannot be made: too many open files; they need %d (ulimit -n)",
			2 * DOOR_SLOTS_ALL);
	if (error < 0)
		return door_explain(why, error, "tries cannot be made: %s", strerror(-error));
	return 0;
}

void tries_destroy(struct kernel_door *door)
{
	for (unsigned i = 0; i < 2 * DOOR_SLOTS_ALL; i++) {
		struct trie *trie = &door->slots[i / 2].tries[i % 2];

		cidr_destroy(&trie->known);
		if (trie->fd >= 0)
			(void)close(trie->fd);
	}
}

static int outer_fd(const struct kernel_door *door, unsigned slot)
{
	return door->maps[slot_is_v6(slot) ? DOOR_MAP_TRIES_V6 : DOOR_MAP_TRIES_V4];
}

static uint32_t outer_index(unsigned slot)
{
	return slot % DOOR_SLOTS;
}

static int tries_take_up_binding(
	struct kernel_door *door, const struct door_binding *binding, uint32_t at, char *why)
{
	const bool is_v6 = binding->family == DOOR_AF_INET6;

	if (at >= DOOR_SLOTS_ALL || slot_is_v6(at) != is_v6 || door->slots[at].is_taken ||
		(!is_v6 && binding->family != DOOR_AF_INET))
		return door_explain(why, -ESTALE,
			"%s/%s: port %u has slot %u, which cannot be; \"posternctl door remove\" "
			"removes it",
			door->folder, door_map_names[DOOR_MAP_BINDINGS], binding->port, at);
	slot_set_key(&door->slots[at], binding);
	door->slots[at].is_taken = true;
	atomic_store(&door->slots[at].is_bound, true);
	return 0;
}

int tries_take_up(struct kernel_door *door, char *why)
{
	const int fd = door->maps[DOOR_MAP_BINDINGS];
	struct door_binding key;
	struct door_binding *last = NULL;
	uint32_t at = 0;
	int error = 0;

	for (unsigned i = 0; error == 0 && i < DOOR_SLOTS_ALL; i++) {
		struct door_binding next;

		if (bpf_map_get_next_key(fd, last, &next) < 0)
			break;
		if (bpf_map_lookup_elem(fd, &next, &at) == 0)
			error = tries_take_up_binding(door, &next, at, why);
		key = next;
		last = &key;
	}
	for (unsigned i = 0; error == 0 && i < DOOR_SLOTS_ALL; i++) {
		const uint32_t index = outer_index(i);
		uint32_t id;

		door->slots[i].has_foreign =
			bpf_map_lookup_elem(outer_fd(door, i), &index, &id) == 0;
	}
	return error;
}

/* ---- slots */

static void door_changes(struct kernel_door *door)
{
	atomic_fetch_add(&door->version, 1);
}

/* Takes the trie of a slot away; whoever is bound to it lets nobody in. */
static int slot_clear_outer(struct kernel_door *door, unsigned at)
{
	const uint32_t index = outer_index(at);
	int error = door_fail(door, "bpf_map_delete_elem");

	if (error == 0 && bpf_map_delete_elem(outer_fd(door, at), &index) < 0 && errno != ENOENT)
		error = -errno;
	if (error == 0)
		door->slots[at].has_foreign = false;
	return error;
}

int kernel_door_take_slot(
	struct kernel_door *door, const struct address *binding, unsigned *out_slot)
{
	struct door_binding key;
	unsigned at;
	unsigned first;
	int error = 0;

	if (!binding_of_sockaddr(binding, &key))
		return -EAFNOSUPPORT;
	first = key.family == DOOR_AF_INET6 ? DOOR_SLOTS : 0;
	for (at = first; at < first + DOOR_SLOTS; at++) {
		if (door->slots[at].is_taken && slot_has_key(&door->slots[at], &key)) {
			*out_slot = at;
			return 0;
		}
	}
	for (at = first; at < first + DOOR_SLOTS && door->slots[at].is_taken; at++)
		;
	if (at == first + DOOR_SLOTS)
		return -ENOSPC;
	if (door->slots[at].has_foreign)
		error = slot_clear_outer(door, at);
	if (error < 0)
		return error;
	slot_set_key(&door->slots[at], &key);
	door->slots[at].is_taken = true;
	*out_slot = at;
	return 0;
}

static struct trie *slot_idle(struct slot *slot)
{
	return &slot->tries[atomic_load(&slot->in_force) == 0 ? 1 : 0];
}

/* The one in force, or NULL: none of ours. */
static struct trie *slot_trie(struct slot *slot)
{
	int in_force = atomic_load(&slot->in_force);

	return in_force < 0 ? NULL : &slot->tries[in_force];
}

int kernel_door_fill(struct kernel_door *door, unsigned slot, const struct cidr *want)
{
	ASSERT(slot < DOOR_SLOTS_ALL && door->slots[slot].is_taken && !door->is_looking);
	return trie_fill(door, slot_idle(&door->slots[slot]), slot_is_v6(slot), want);
}

int kernel_door_swap(struct kernel_door *door, unsigned slot)
{
	struct slot *it = &door->slots[slot];
	struct trie *idle = slot_idle(it);
	const uint32_t index = outer_index(slot);
	int error = door_fail(door, "bpf_map_update_elem");

	ASSERT(slot < DOOR_SLOTS_ALL && it->is_taken && !door->is_looking);
	if (error < 0)
		return error;
	door_changes(door);
	atomic_store(&it->is_exchanging, true);
	if (bpf_map_update_elem(outer_fd(door, slot), &index, &idle->fd, BPF_ANY) < 0)
		error = -errno;
	if (error == 0) {
		atomic_store(&it->in_force, idle == &it->tries[0] ? 0 : 1);
		it->has_foreign = false;
	}
	atomic_store(&it->is_exchanging, false);
	door_changes(door);
	return error;
}

int kernel_door_bind(struct kernel_door *door, unsigned slot)
{
	struct slot *it = &door->slots[slot];
	struct door_binding key;
	const uint32_t value = slot;
	int error = door_fail(door, "bpf_map_update_elem");

	ASSERT(slot < DOOR_SLOTS_ALL && it->is_taken && !door->is_looking);
	slot_key(it, &key);
	if (error == 0 &&
		bpf_map_update_elem(door->maps[DOOR_MAP_BINDINGS], &key, &value, BPF_ANY) < 0)
		error = -errno;
	if (error < 0)
		return error;
	atomic_store(&it->is_bound, true);
	door_changes(door);
	return 0;
}

int kernel_door_unbind(struct kernel_door *door, unsigned slot)
{
	struct slot *it = &door->slots[slot];
	struct door_binding key;
	struct cidr *empty = NULL;
	int error = door_fail(door, "bpf_map_delete_elem");

	ASSERT(slot < DOOR_SLOTS_ALL && it->is_taken && !door->is_looking);
	slot_key(it, &key);
	if (error == 0 && bpf_map_delete_elem(door->maps[DOOR_MAP_BINDINGS], &key) < 0 &&
		errno != ENOENT)
		error = -errno;
	if (error < 0)
		return error;
	door_changes(door);
	atomic_store(&it->is_bound, false);
	door_changes(door);
	/* Nobody is decided by it from here on. What cannot be emptied now is at the next filling.
	 */
	error = slot_clear_outer(door, slot);
	if (error < 0)
		return error;
	atomic_store(&it->in_force, -1);
	door_changes(door);
	it->is_taken = false;
	error = cidr_create(&empty);
	for (unsigned i = 0; error == 0 && i < 2; i++)
		error = trie_fill(door, &it->tries[i], slot_is_v6(slot), empty);
	cidr_destroy(&empty);
	return error;
}

bool kernel_door_binding(const struct kernel_door *door, unsigned at, struct address *out_address,
	unsigned *out_slot)
{
	struct door_binding key;

	for (unsigned slot = 0; slot < DOOR_SLOTS_ALL; slot++) {
		if (!atomic_load(&door->slots[slot].is_bound) || at-- > 0)
			continue;
		slot_key(&door->slots[slot], &key);
		*out_address = address_make(key.family, key.address, key.port);
		*out_slot = slot;
		return true;
	}
	return false;
}

/* ---- one prefix */

/* What was known before, again: needs no memory, since it was there. */
static void trie_restore(
	struct trie *trie, const struct prefix *prefix, const struct door_value *before)
{
	if (before == NULL)
		(void)cidr_remove(trie->known, prefix);
	else if (cidr_put(trie->known, prefix, *before) < 0)
		trie->is_lost = true;
}

int kernel_door_put(struct kernel_door *door, unsigned slot, const struct prefix *prefix,
	struct door_value value)
{
	const struct door_value *known;
	struct door_value before = {0};
	struct door_key_v6 key;
	struct trie *trie;
	int error;

	ASSERT(slot < DOOR_SLOTS_ALL && prefix->ip.is_v6 == slot_is_v6(slot));
	trie = slot_trie(&door->slots[slot]);
	if (trie == NULL)
		return -EAGAIN;
	known = cidr_get(trie->known, prefix);
	if (known != NULL)
		before = *known;
	error = cidr_put(trie->known, prefix, value);
	if (error < 0)
		return error;
	trie_key(prefix, slot_is_v6(slot), &key);
	error = door_fail(door, "bpf_map_update_elem");
	if (error == 0)
		error = trie_put(trie, &key, &value);
	if (error < 0)
		trie_restore(trie, prefix, known == NULL ? NULL : &before);
	return error;
}

int kernel_door_drop(struct kernel_door *door, unsigned slot, const struct prefix *prefix)
{
	struct door_key_v6 key;
	struct trie *trie;
	int error;

	ASSERT(slot < DOOR_SLOTS_ALL && prefix->ip.is_v6 == slot_is_v6(slot));
	trie = slot_trie(&door->slots[slot]);
	if (trie == NULL)
		return -EAGAIN;
	trie_key(prefix, slot_is_v6(slot), &key);
	error = door_fail(door, "bpf_map_delete_elem");
	if (error == 0 && bpf_map_delete_elem(trie->fd, &key) < 0)
		error = -errno;
	if (error == 0 || error == -ENOENT)
		(void)cidr_remove(trie->known, prefix);
	return error;
}

size_t kernel_door_prefixes(const struct kernel_door *door, unsigned slot)
{
	const struct slot *it = &door->slots[slot];
	int in_force = atomic_load(&it->in_force);

	return in_force < 0 ? 0 : cidr_count(it->tries[in_force].known);
}

/* ---- asking */

/* The slot that a binding has; DOOR_SLOTS_ALL: none. */
static unsigned ask_slot(const struct kernel_door *door, const struct door_binding *binding)
{
	const unsigned first = binding->family == DOOR_AF_INET6 ? DOOR_SLOTS : 0;

	for (unsigned at = first; at < first + DOOR_SLOTS; at++) {
		if (atomic_load(&door->slots[at].is_bound) &&
			slot_has_key(&door->slots[at], binding))
			return at;
	}
	return DOOR_SLOTS_ALL;
}

/* Looks in one slot; old: in the trie that is being exchanged for another, if one is. */
static int ask_trie(struct kernel_door *door, unsigned at, const struct door_key_v6 *key, bool old,
	struct door_value *out)
{
	struct slot *slot = &door->slots[at];
	const struct trie *trie = slot_trie(slot);

	if (!old && atomic_load(&slot->is_exchanging))
		trie = slot_idle(slot);
	if (trie == NULL)
		return -EAGAIN;
	return bpf_map_lookup_elem(trie->fd, key, out) < 0 ? -errno : 0;
}

/* As the program does: the exact binding, then the wildcard. */
static int ask_once(struct kernel_door *door, const struct door_binding *local,
	const struct door_key_v6 *key, bool old, struct door_value *out)
{
	const struct door_binding any = {.port = local->port, .family = local->family};
	unsigned exact = ask_slot(door, local);
	unsigned wildcard = ask_slot(door, &any);
	int error = -EADDRNOTAVAIL;

	if (exact < DOOR_SLOTS_ALL)
		error = ask_trie(door, exact, key, old, out);
	if (wildcard < DOOR_SLOTS_ALL && wildcard != exact &&
		(error == -EADDRNOTAVAIL || error == -ENOENT))
		error = ask_trie(door, wildcard, key, old, out);
	return error;
}

int kernel_door_ask(struct kernel_door *door, const struct address *local, const struct ip *peer,
	struct door_value *out)
{
	struct door_value value = {0};
	struct door_binding binding;
	struct door_key_v6 key = {.bits = peer->is_v6 ? 128 : 32};
	unsigned version;
	int error = -EAGAIN;

	if (door->is_looking)
		return -EOPNOTSUPP;
	if (!binding_of_sockaddr(local, &binding))
		return -EAFNOSUPPORT;
	if ((binding.family == DOOR_AF_INET6) != peer->is_v6)
		return -ENOENT;
	memcpy(key.address, peer->bytes, peer->is_v6 ? 16 : 4);
	for (unsigned i = 0; i < ASK_TRIES; i++) {
		version = atomic_load(&door->version);
		error = ask_once(door, &binding, &key, false, &value);
		if (error == -ENOENT || (error == 0 && (value.flags & DOOR_EXCLUDED) != 0)) {
			/* Of old and new, who lets the peer in is right while they are exchanged.
			 */
			struct door_value other = {0};
			int again = ask_once(door, &binding, &key, true, &other);

			if (again == 0 && (error < 0 || (other.flags & DOOR_EXCLUDED) == 0)) {
				error = 0;
				value = other;
			}
		}
		if (version == atomic_load(&door->version))
			break;
	}
	if (error == 0)
		*out = value;
	return error;
}

int kernel_door_set_limit(
	struct kernel_door *door, unsigned connector, const struct door_limit *limit)
{
	const uint32_t key = connector;
	int error = door_fail(door, "bpf_map_update_elem");

	if (connector > DOOR_CONNECTORS_MAX)
		return -EINVAL;
	if (error == 0 &&
		bpf_map_update_elem(door->maps[DOOR_MAP_LIMITS], &key, limit, BPF_ANY) < 0)
		error = -errno;
	return error;
}
