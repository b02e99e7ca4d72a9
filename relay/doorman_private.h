/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * doorman_private.h: what the files of the doorman share.
 *
 *   doorman.c         who decides, and why; asking; beginning and end
 *   doorman_kernel.c  the kernel's copy of a gate: slots and tries; reloads
 *   doorman_change.c  changes of a list
 *   doorman_file.c    list files, as they are known; the audit line
 *   doorman_count.c   what is counted here, events of the kernel, questions of the operator
 *
 * "locked" in a name: the caller has doorman->lock.
 */

#include "relay/doorman.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define DOORMAN_BINDINGS_MAX (2 * DOOR_SLOTS)

/* A binding that the kernel guards. */
struct doorman_guard {
	struct address address;
	unsigned slot;
	bool is_new; /* while a reload is under way: not in force before */
};

/* By binding of the gate. */
struct doorman_guards {
	struct doorman_guard *rows;
	unsigned count;
};

struct doorman_counts {
	_Atomic uint64_t passed;
	_Atomic uint64_t refused[DOOR_REASON_COUNT];
};

struct doorman {
	pthread_mutex_t
		lock; /* a reload, a change, and all calls of the kernel's door but asking */
	struct gate_ids *ids; /* of the thread that makes gates */
	pthread_mutex_t names_lock;
	struct gate_ids *names;     /* in force, for showing; under names_lock */
	struct kernel_door *kernel; /* NULL: userspace decides */
	char why[KERNEL_DOOR_WHY_BYTES];
	enum bpf_mode bpf;
	bool has_made_pins; /* this start; before it there were none */
	uint64_t started_ms;
	struct world *world; /* in force; held */
	/* Whose gate the kernel's tries have; NULL while it is neither one nor the other. */
	_Atomic(const struct world *) kernel_world;
	struct doorman_guards guards;
	struct ip_list_file *files; /* as read or written here; by index of the partner */
	struct doorman_hooks hooks;

	/* A reload that was prepared. */
	const struct world *paused_world; /* what kernel_world was before it */
	struct doorman_guards next_guards;
	struct ip_list_file *next_files;
	_Atomic uint64_t changes; /* of lists */
	uint64_t changes_seen;    /* when the gate of the next world was begun */

	/* What the kernel has not counted. Slots are bindings in the order that they first came. */
	struct address slots[DOORMAN_BINDINGS_MAX];
	_Atomic unsigned slot_count;
	struct doorman_counts by_slot[DOORMAN_BINDINGS_MAX];
	struct doorman_counts by_connector[DOOR_CONNECTORS_MAX];
	struct doorman_counts by_partner[DOOR_PARTNERS_MAX];
	struct refusals *refusals;
	struct door_event *events; /* read, not yet logged */
	unsigned event_count;
};

/* For tests: as in struct kernel_door_options. */
struct doorman_seam {
	int (*fail)(const char *call);
	unsigned prefixes_max;
};
extern struct doorman_seam doorman_seam;

/* Refusals of one reading that are logged; all are counted. */
#define DOORMAN_EVENTS_MAX 512

/* Fills the tries for the gate and guards bindings that are new; is_start: nobody listens yet, and
 * whatever fails, nothing is undone. Else doorman_reload_abandon() undoes it. */
NODISCARD int doorman_create_guards(
	struct doorman *doorman, struct world *world, bool is_start, FILE *errors);

/* Puts doorman->next_guards in force. -errno: at least one trie is still the old one. */
int doorman_guard_locked(struct doorman *doorman, struct world *world);

/* What a binding's trie has for a prefix. */
struct piece {
	bool exists;
	struct door_value value;
};

struct piece piece_of(const struct cidr *trie, const struct prefix *prefix);
bool piece_is_same(const struct piece *a, const struct piece *b);
/* The same in the kernel's trie that is in force. */
NODISCARD int piece_apply(struct kernel_door *kernel, unsigned slot, const struct prefix *prefix,
	const struct piece *piece);

/* Names to the kernel, if it decides. */
NODISCARD int doorman_write_names(struct doorman *doorman, FILE *errors);
/* The names that a gate was just made with are those in force. */
void doorman_keep_names(struct doorman *doorman);

/* Takes notice of the world's bindings, for counting. */
void doorman_note_slots(struct doorman *doorman, const struct world *world);

/* The list files of the world's partners as they were when its gate read them. */
NODISCARD int doorman_create_files(const struct world *world, struct ip_list_file **out);
