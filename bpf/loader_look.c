/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#include "bpf/loader_private.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* sk_lookup programs that a network namespace can have. */
#define PROGRAMS_MAX 64

/* ---- events */

static int event_is_there(void *owner, void *data, size_t bytes)
{
	struct kernel_door *door = owner;
	struct door_event event;

	if (bytes < sizeof(event) || door->on_event == NULL)
		return 0;
	memcpy(&event, data, sizeof(event));
	door->on_event(door->on_event_owner, &event);
	return 0;
}

int look_create(struct kernel_door *door, char *why)
{
	const int cpus = libbpf_num_possible_cpus();
	const size_t widest = sizeof(struct door_counts) > sizeof(struct door_totals)
				      ? sizeof(struct door_counts)
				      : sizeof(struct door_totals);
	int error = door_fail(door, "ring_buffer__new");

	if (cpus < 1)
		return door_explain(why, cpus, "processors cannot be counted: %s", strerror(-cpus));
	door->cpus = (unsigned)cpus;
	door->per_cpu = calloc(door->cpus, widest);
	if (door->per_cpu == NULL)
		return door_explain(why, -ENOMEM, "no memory");
	if (door->is_looking)
		return 0;
	if (error == 0) {
		door->ring =
			ring_buffer__new(door->maps[DOOR_MAP_EVENTS], event_is_there, door, NULL);
		if (door->ring == NULL)
			error = -errno;
	}
	if (error < 0)
		return door_explain(
			why, error, "the ring of events cannot be opened: %s", strerror(-error));
	return 0;
}

void look_destroy(struct kernel_door *door)
{
	ring_buffer__free(door->ring);
	free(door->per_cpu);
}

int kernel_door_event_fd(const struct kernel_door *door)
{
	return door->ring == NULL ? -1 : ring_buffer__epoll_fd(door->ring);
}

int kernel_door_read_events(struct kernel_door *door,
	void (*on_event)(void *owner, const struct door_event *event), void *owner)
{
	if (door->ring == NULL)
		return -EOPNOTSUPP;
	door->on_event = on_event;
	door->on_event_owner = owner;
	return ring_buffer__consume(door->ring);
}

/* ---- names */

static char *ids_name(struct gate_ids *ids, unsigned at)
{
	return at < DOOR_CONNECTORS_MAX ? ids->connectors[at]
					: ids->partners[at - DOOR_CONNECTORS_MAX];
}

#define NAMES (DOOR_CONNECTORS_MAX + DOOR_PARTNERS_MAX)

int kernel_door_read_names(struct kernel_door *door, struct gate_ids *ids)
{
	for (uint32_t i = 0; i < NAMES; i++) {
		char *name = ids_name(ids, i);

		if (bpf_map_lookup_elem(door->maps[DOOR_MAP_NAMES], &i, name) < 0)
			return -errno;
		name[DOOR_NAME_BYTES - 1] = '\0';
	}
	return 0;
}

int kernel_door_write_names(struct kernel_door *door, const struct gate_ids *ids)
{
	char there[DOOR_NAME_BYTES];
	char wanted[DOOR_NAME_BYTES];

	for (uint32_t i = 0; i < NAMES; i++) {
		int error = door_fail(door, "bpf_map_update_elem");

		/* Of strings that once were longer no end stays behind. */
		(void)snprintf(wanted, sizeof(wanted), "%s",
			i < DOOR_CONNECTORS_MAX ? ids->connectors[i]
						: ids->partners[i - DOOR_CONNECTORS_MAX]);
		memset(wanted + strlen(wanted), 0, sizeof(wanted) - strlen(wanted));
		if (error == 0 && bpf_map_lookup_elem(door->maps[DOOR_MAP_NAMES], &i, there) == 0 &&
			memcmp(there, wanted, sizeof(there)) == 0)
			continue;
		if (error == 0 &&
			bpf_map_update_elem(door->maps[DOOR_MAP_NAMES], &i, wanted, BPF_ANY) < 0)
			error = -errno;
		if (error < 0)
			return error;
	}
	return 0;
}

/* ---- counts */

int kernel_door_counts(struct kernel_door *door, enum kernel_door_table table, unsigned index,
	struct door_counts *out)
{
	const struct door_counts *values = door->per_cpu;
	struct door_counts sum = {0};
	uint32_t key = index;
	int fd = -1;

	switch (table) {
	case KERNEL_DOOR_SLOTS_V4:
		fd = door->maps[DOOR_MAP_SLOTS];
		break;
	case KERNEL_DOOR_SLOTS_V6:
		fd = door->maps[DOOR_MAP_SLOTS];
		key = DOOR_SLOTS + index % DOOR_SLOTS;
		break;
	case KERNEL_DOOR_CONNECTORS:
		fd = door->maps[DOOR_MAP_CONNECTORS];
		break;
	case KERNEL_DOOR_PARTNERS:
		fd = door->maps[DOOR_MAP_PARTNERS];
		break;
	}
	if (bpf_map_lookup_elem(fd, &key, door->per_cpu) < 0)
		return -errno;
	for (unsigned i = 0; i < door->cpus; i++) {
		sum.passed += values[i].passed;
		for (unsigned reason = 0; reason < DOOR_REASON_COUNT; reason++)
			sum.refused[reason] += values[i].refused[reason];
	}
	*out = sum;
	return 0;
}

int kernel_door_totals(struct kernel_door *door, struct door_totals *out)
{
	const struct door_totals *values = door->per_cpu;
	struct door_totals sum = {0};
	const uint32_t key = 0;

	if (bpf_map_lookup_elem(door->maps[DOOR_MAP_TOTALS], &key, door->per_cpu) < 0)
		return -errno;
	for (unsigned i = 0; i < door->cpus; i++) {
		sum.lookups += values[i].lookups;
		sum.others += values[i].others;
		sum.events_held += values[i].events_held;
		sum.events_lost += values[i].events_lost;
		sum.shield_drops += values[i].shield_drops;
	}
	*out = sum;
	return 0;
}

/* ---- information */

static bool link_info(int link, struct bpf_link_info *out)
{
	uint32_t len = sizeof(*out);

	memset(out, 0, sizeof(*out));
	return link >= 0 && bpf_obj_get_info_by_fd(link, out, &len) == 0;
}

/* The programs beside ours in the namespace that ours is attached to. */
static void info_foreign(const struct kernel_door *door, struct kernel_door_info *out)
{
	uint32_t ids[PROGRAMS_MAX];
	uint32_t count = PROGRAMS_MAX;
	uint32_t flags = 0;
	struct stat own;

	if (fstat(door->netns, &own) < 0 ||
		(out->netns_inode != 0 && out->netns_inode != own.st_ino) ||
		bpf_prog_query(door->netns, BPF_SK_LOOKUP, 0, &flags, ids, &count) < 0)
		return;
	out->foreign_is_known = true;
	for (uint32_t i = 0; i < count && i < PROGRAMS_MAX; i++) {
		if (ids[i] != out->program_id && out->foreign_count < KERNEL_DOOR_FOREIGN_MAX)
			out->foreign[out->foreign_count++] = ids[i];
	}
}

void kernel_door_info(struct kernel_door *door, struct kernel_door_info *out)
{
	struct bpf_link_info info;

	memset(out, 0, sizeof(*out));
	if (link_info(door->link, &info) && info.netns.netns_ino != 0) {
		out->program_id = info.prog_id;
		out->link_id = info.id;
		out->netns_inode = info.netns.netns_ino;
	}
	for (unsigned i = 0; i < door->shield_count; i++) {
		if (link_info(door->shields[i].link, &info) && info.xdp.ifindex != 0)
			out->shield_ids[i] = info.prog_id;
		out->shield_names[i] = door->shields[i].interface;
	}
	out->shield_count = door->shield_count;
	info_foreign(door, out);
	out->was_taken_up = door->was_taken_up;
	(void)snprintf(out->folder, sizeof(out->folder), "%s", door->folder);
}
