/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#pragma once

/*
 * loader_private.h: what the loader*.c files share, and tests look into.
 *
 *   loader.c         a door: made, opened for looking, destroyed
 *   loader_pins.c    the folder of pins: its lock, what lies there and whether it fits, removal
 *   loader_attach.c  links: sk_lookup in the network namespace, XDP on interfaces
 *   loader_tries.c   slots, exchanging their tries, asking
 *   loader_fill.c    bringing one trie from what it has to what is wanted
 *   loader_look.c    counts, names, events, information
 */

#include "bpf/loader.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>
#include <stdatomic.h>

/* All are pinned; their names are in door_map_names. */
enum door_map {
	DOOR_MAP_BINDINGS,
	DOOR_MAP_TRIES_V4,
	DOOR_MAP_TRIES_V6,
	DOOR_MAP_LIMITS,
	DOOR_MAP_SOURCES,
	DOOR_MAP_SLOTS,
	DOOR_MAP_CONNECTORS,
	DOOR_MAP_PARTNERS,
	DOOR_MAP_TOTALS,
	DOOR_MAP_NAMES,
	DOOR_MAP_EVENTS,
	DOOR_MAP_TOKENS,
	DOOR_MAP_SHIELDS,
	DOOR_MAP_COUNT,
};

extern const char *const door_map_names[DOOR_MAP_COUNT];

#define DOOR_LINK_PIN "door"
#define DOOR_SHIELD_PREFIX "shield-"
#define DOOR_SHIELDS_MAX 8
/* Each byte of a name may take three. */
#define DOOR_SHIELD_PIN_BYTES (sizeof(DOOR_SHIELD_PREFIX) + (size_t)3 * IF_NAMESIZE)

/* Prefixes in one call. */
#define DOOR_BATCH 4096

#define DOOR_SLOTS_ALL (2 * DOOR_SLOTS)

/* A trie of the kernel, and what is known to be in it. */
struct trie {
	int fd;             /* -1: none */
	struct cidr *known; /* owned; exactly what is in it */
	bool is_lost;       /* unless memory ran out while that was noted */
};

/*
 * The tries of a binding. in_force is the one of tries that the kernel decides by, -1 while that
 * is none of ours; the other one may be filled. While they are exchanged, in_force is the old one.
 */
struct slot {
	_Atomic uint64_t key[3]; /* struct door_binding; changes only while not bound */
	atomic_bool is_bound;
	atomic_bool is_exchanging;
	atomic_int in_force;
	bool is_taken;    /* bound, or about to be */
	bool has_foreign; /* a trie of an earlier process is in the outer map */
	struct trie tries[2];
};

struct door_shield {
	char interface[IF_NAMESIZE];
	int link; /* -1: not attached */
};

struct kernel_door {
	int (*fail)(const char *call);
	char root[96];    /* the pin folder */
	char folder[128]; /* root/vN */
	bool is_looking;  /* kernel_door_open_pinned() */
	int lock;         /* the folder, locked */
	int netns;
	struct bpf_object *object; /* NULL when looking */
	struct door_bpf *skeleton;
	int maps[DOOR_MAP_COUNT];
	int link;          /* of sk_lookup; -1 */
	bool is_link_dead; /* its network namespace is gone */
	bool was_taken_up;
	struct door_shield wanted[DOOR_SHIELDS_MAX];
	unsigned wanted_count;
	struct door_shield shields[DOOR_SHIELDS_MAX]; /* attached */
	unsigned shield_count;
	struct ring_buffer *ring;
	void (*on_event)(void *owner, const struct door_event *event);
	void *on_event_owner;
	/* Goes up before and after each change of what kernel_door_ask() looks at. */
	atomic_uint version;
	struct slot slots[DOOR_SLOTS_ALL];
	bool has_no_batch; /* the kernel refuses them for tries */
	unsigned cpus;
	void *per_cpu; /* values of all processors, for counting */
	uint8_t keys[DOOR_BATCH * sizeof(struct door_key_v6)];
	struct door_value values[DOOR_BATCH];
};

/* "what: why; remedy" into why. Returns error, which is -errno. */
PRINTF_LIKE(3, 4) int door_explain(char *why, int error, const char *format, ...);

/* -errno of a call of that name that tests want to fail, or 0. */
int door_fail(const struct kernel_door *door, const char *call);

static inline bool slot_is_v6(unsigned slot)
{
	return slot >= DOOR_SLOTS;
}

/* ---- loader_pins.c */

/* Checks the bpf file system, makes the folder, takes the lock. */
NODISCARD int pins_open(struct kernel_door *door, char *why);
/* Removes the folder if it is empty; nothing came of it. */
void pins_abandon(struct kernel_door *door);

/* A pin of the folder; false: too long. */
bool pins_path(const struct kernel_door *door, const char *name, char *out, size_t out_bytes);

enum pin_kind { PIN_MAP, PIN_LINK };

/*
 * Opens a pin: its descriptor, -ENOENT if there is none, -ESTALE if it is something else.
 * is_looking: for reading (maps only).
 */
NODISCARD int pins_get(
	const struct kernel_door *door, const char *name, enum pin_kind kind, char *why);
/* Does a pinned map fit the one that the object wants? 0, -ESTALE. */
NODISCARD int pins_check_map(const char *name, const struct bpf_map *want, int fd, char *why);
/* Does the link fit? 0, -ESTALE. Sets is_link_dead. */
NODISCARD int pins_check_link(struct kernel_door *door, char *why);
/* Detaches and unpins what other versions left, if no process has it. */
void pins_remove_others(const struct kernel_door *door, char *why);

/* "eth0.100" <-> "shield-eth0%2e100": a bpf file system has no dots. */
void pins_shield_name(const char *interface, char *out, size_t out_bytes);
bool pins_shield_interface(const char *name, char out[static IF_NAMESIZE]);

/* Calls on_name for each name in a folder but "." and ".."; -errno. */
int pins_each(int folder, int (*on_name)(void *owner, int folder, const char *name), void *owner);

/* ---- loader_tries.c */

NODISCARD int tries_create(struct kernel_door *door, unsigned prefixes_max, char *why);
void tries_destroy(struct kernel_door *door);
/* The bindings that are pinned. -ESTALE: they contradict each other. */
NODISCARD int tries_take_up(struct kernel_door *door, char *why);

void binding_of_address(const struct ip *ip, uint16_t port, struct door_binding *out);

/* ---- loader_fill.c */

/* Brings the trie to what is wanted; on failure trie->known is what is in it nevertheless. */
NODISCARD int trie_fill(
	struct kernel_door *door, struct trie *trie, bool is_v6, const struct cidr *want);
/* One prefix into the kernel's trie alone: 0 or -errno. */
NODISCARD int trie_put(const struct trie *trie, const void *key, const struct door_value *value);
void trie_key(const struct prefix *prefix, bool is_v6, struct door_key_v6 *out);

/* ---- loader_look.c */

NODISCARD int look_create(struct kernel_door *door, char *why);
void look_destroy(struct kernel_door *door);
