/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#pragma once

/*
 * loader.h: the door in the kernel. Loads the programs of bpf/, pins them and their maps, and keeps
 * the maps as the gate (policy/gate.h) wants them. Only loader*.c includes libbpf.
 *
 * Everything lies pinned in FOLDER/vN (N: DOOR_VERSION) of a bpf file system, so a restart finds
 * it: until a new relay has loaded its tries and exchanged them, the old ones go on deciding.
 *
 *   links     door (sk_lookup in this network namespace), shield-IFACE (XDP)
 *   maps      bindings      hash: struct door_binding --> slot
 *             tries_v4/_v6  array of tries by slot; struct door_key_v4/_v6 --> struct door_value
 *             limits, sources, counts by slot, connector and partner, totals, names, events
 *
 * Each slot has two tries that were made while there were privileges. One is in force; the other is
 * brought to what is wanted, one exchange puts it in force, and the first waits for the next time.
 *
 * A process that has the door holds a lock on FOLDER/vN until it ends. After creation no privileges
 * are needed, on kernels from 5.19; creation needs CAP_BPF and CAP_NET_ADMIN.
 *
 * Threads: kernel_door_ask() from any; everything else from one at a time.
 */

#include "bpf/shared.h"
#include "policy/cidr.h"
#include "policy/gate.h"

/* Room for an explanation, which names the pin or the call, and what can be done about it. */
#define KERNEL_DOOR_WHY_BYTES 512

struct kernel_door_options {
	const char *pin_folder;        /* "/sys/fs/bpf/postern" */
	const char *const *interfaces; /* for the XDP program; none: it is not loaded */
	unsigned interface_count;
	unsigned prefixes_max; /* for tests: of a trie; 0: DOOR_PREFIXES_MAX */
	/* For tests: makes the call of that name fail with the errno; NULL. */
	int (*fail)(const char *call);
};

struct kernel_door;

/*
 * Loads programs and maps, taking up what is pinned, and takes the lock. Nothing new is in force
 * yet. What is pinned and does not fit is a reason to fail, and is left as it is. -EPERM,
 * -EACCES: privileges; -ENOENT: there is no bpf file system; -EBUSY: another process has it;
 * -ESTALE: pins that do not fit; or another -errno. why says it in words.
 */
NODISCARD int kernel_door_create(const struct kernel_door_options *options,
	char why[static KERNEL_DOOR_WHY_BYTES], struct kernel_door **out);

/* Closes what this process has of it. The pins, and what is in force, stay. */
void kernel_door_destroy(struct kernel_door **door);

/*
 * Attaches the programs, or replaces those of the pinned links in place. On failure what was
 * attached before still is. Afterwards detaches what other versions have left; after a success why
 * says what could not be removed, or is empty.
 */
NODISCARD int kernel_door_attach(struct kernel_door *door, char why[static KERNEL_DOOR_WHY_BYTES]);

/* Is anything pinned there that this user can see? */
bool kernel_door_is_pinned(const char *pin_folder);

/* Detaches and unpins all. -EBUSY: a process has it; -ENOENT: there is none. */
NODISCARD int kernel_door_remove(const char *pin_folder, char why[static KERNEL_DOOR_WHY_BYTES]);

/*
 * For looking only, without the lock, while a relay runs or not: counts, names, bindings and
 * information, but no tries.
 */
NODISCARD int kernel_door_open_pinned(
	const char *pin_folder, char why[static KERNEL_DOOR_WHY_BYTES], struct kernel_door **out);

/* ---- names */

/* From the pinned maps, or to them. -errno. */
NODISCARD int kernel_door_read_names(struct kernel_door *door, struct gate_ids *ids);
NODISCARD int kernel_door_write_names(struct kernel_door *door, const struct gate_ids *ids);

/* ---- bindings and tries; 0 or -errno */

/*
 * The slot of a binding: the one that it has, or a free one, which is empty and not in force yet.
 * -ENOSPC: all DOOR_SLOTS are taken.
 */
NODISCARD int kernel_door_take_slot(
	struct kernel_door *door, const struct address *binding, unsigned *out_slot);

/*
 * Brings the trie of the slot that is not in force to what is wanted (prefixes of the binding's
 * family). If it fails, what is in force is untouched, and filling again begins where it was.
 */
NODISCARD int kernel_door_fill(struct kernel_door *door, unsigned slot, const struct cidr *want);

/* Puts that trie in force. It waits for the kernel's RCU, tens of milliseconds. */
NODISCARD int kernel_door_swap(struct kernel_door *door, unsigned slot);

/* From here on connections to the binding are decided by its slot; before, all pass. */
NODISCARD int kernel_door_bind(struct kernel_door *door, unsigned slot);
/* All pass again, and the slot is free; its tries are emptied. */
NODISCARD int kernel_door_unbind(struct kernel_door *door, unsigned slot);

/* The bindings that are in force: their address and slot; false: no more. For at = 0, 1, ... */
bool kernel_door_binding(const struct kernel_door *door, unsigned at, struct address *out_address,
	unsigned *out_slot);

/* One prefix of the trie in force. -EAGAIN: that is not ours yet, exchange it first. */
NODISCARD int kernel_door_put(struct kernel_door *door, unsigned slot, const struct prefix *prefix,
	struct door_value value);
NODISCARD int kernel_door_drop(
	struct kernel_door *door, unsigned slot, const struct prefix *prefix);

/* Prefixes of the trie in force. */
size_t kernel_door_prefixes(const struct kernel_door *door, unsigned slot);

/*
 * What the program would find for a peer at a local address: 0 (of an exclusion, too), -ENOENT for
 * a stranger, -EADDRNOTAVAIL where nothing is bound, -EAGAIN if the trie in force is still that of
 * an earlier process, or another -errno. While a slot is exchanged the new trie is asked, then the
 * old one, so nobody who passed the program is turned away. Does not count. Any thread; it never
 * waits.
 */
NODISCARD int kernel_door_ask(struct kernel_door *door, const struct address *local,
	const struct ip *peer, struct door_value *out);

/* connection-rate-limit of a connector; interval_ns 0: none. */
NODISCARD int kernel_door_set_limit(
	struct kernel_door *door, unsigned connector, const struct door_limit *limit);

/* ---- looking */

enum kernel_door_table {
	KERNEL_DOOR_SLOTS_V4,
	KERNEL_DOOR_SLOTS_V6,
	KERNEL_DOOR_CONNECTORS,
	KERNEL_DOOR_PARTNERS,
};

/* Sums over all processors. Slots have the numbers that kernel_door_take_slot() gives. */
NODISCARD int kernel_door_counts(struct kernel_door *door, enum kernel_door_table table,
	unsigned index, struct door_counts *out);
NODISCARD int kernel_door_totals(struct kernel_door *door, struct door_totals *out);

#define KERNEL_DOOR_FOREIGN_MAX 16

struct kernel_door_info {
	uint32_t program_id; /* of sk_lookup; 0: not attached */
	uint32_t link_id;
	uint64_t netns_inode;   /* that it is attached to; 0: none any more */
	uint32_t shield_ids[8]; /* of XDP, by interface; 0: not attached */
	const char *shield_names[8];
	unsigned shield_count;
	/* Other sk_lookup programs of the namespace: one that selects a socket overrules ours. */
	uint32_t foreign[KERNEL_DOOR_FOREIGN_MAX];
	unsigned foreign_count;
	bool foreign_is_known; /* asking needs CAP_NET_ADMIN */
	bool was_taken_up;     /* pins of an earlier process */
	char folder[128];      /* of the pins */
};

void kernel_door_info(struct kernel_door *door, struct kernel_door_info *out);

/* Readable when refusals wait to be read. */
int kernel_door_event_fd(const struct kernel_door *door);

/* Hands over all that wait, and returns how many; -errno. */
int kernel_door_read_events(struct kernel_door *door,
	void (*on_event)(void *owner, const struct door_event *event), void *owner);
