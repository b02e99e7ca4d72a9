/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/door.h"

#include "bpf/loader.h"
#include <errno.h>
#include <string.h>

/*
 * door_pins.c: what the pins tell, when no relay runs. The program and its counts are still there.
 */

static void info_read_foreign(const struct kernel_door_info *info, struct door_status *out)
{
	out->foreign_known = info->foreign_is_known;
	for (unsigned i = 0; i < info->foreign_count && i < DOOR_FOREIGN_MAX; i++)
		out->foreign[out->foreign_count++] = info->foreign[i];
}

static void info_read(struct kernel_door *door, struct door_status *out)
{
	struct kernel_door_info info = {0};

	kernel_door_info(door, &info);
	info_read_foreign(&info, out);
	(void)snprintf(out->folder, sizeof(out->folder), "%s", info.folder);
	out->program_id = info.program_id;
	out->link_id = info.link_id;
	out->netns = info.netns_inode;
	for (unsigned i = 0; i < info.shield_count && i < DOOR_SHIELDS_MAX; i++) {
		(void)snprintf(out->shields[i].interface, sizeof(out->shields[i].interface), "%s",
			info.shield_names[i]);
		out->shields[i].program_id = info.shield_ids[i];
		out->shield_count++;
	}
}

static int bindings_create(struct kernel_door *door, struct door_rows *out)
{
	struct address address;
	unsigned slot;

	out->rows = calloc((size_t)2 * DOOR_SLOTS, sizeof(*out->rows));
	if (out->rows == NULL)
		return -ENOMEM;
	while (out->count < 2 * DOOR_SLOTS &&
		kernel_door_binding(door, out->count, &address, &slot)) {
		struct door_row *row = &out->rows[out->count++];
		bool is_v6 = address.sockaddr.ss_family == AF_INET6;

		address_print(&address, row->name, sizeof(row->name));
		row->slot = slot;
		if (kernel_door_counts(door, is_v6 ? KERNEL_DOOR_SLOTS_V6 : KERNEL_DOOR_SLOTS_V4,
			    slot, &row->counts) < 0)
			row->counts = (struct door_counts){0};
	}
	return 0;
}

/* All that have a name. */
static int names_create(struct kernel_door *door, enum kernel_door_table table,
	char (*names)[DOOR_NAME_BYTES], unsigned max, struct door_rows *out)
{
	out->rows = calloc(max, sizeof(*out->rows));
	if (out->rows == NULL)
		return -ENOMEM;
	for (unsigned i = 1; i < max; i++) {
		struct door_row *row = &out->rows[out->count];

		if (names[i][0] == '\0')
			continue;
		(void)snprintf(row->name, sizeof(row->name), "%.*s", DOOR_NAME_BYTES - 1, names[i]);
		if (kernel_door_counts(door, table, i, &row->counts) == 0)
			out->count++;
	}
	return 0;
}

static int pins_create(struct kernel_door *door, struct door_status *out)
{
	struct gate_ids *ids = NULL;
	int rc = gate_ids_create(&ids);

	if (rc == 0)
		rc = kernel_door_read_names(door, ids);
	if (rc == 0)
		rc = kernel_door_totals(door, &out->totals);
	if (rc == 0)
		rc = bindings_create(door, &out->bindings);
	if (rc == 0)
		rc = names_create(door, KERNEL_DOOR_CONNECTORS, ids->connectors,
			DOOR_CONNECTORS_MAX, &out->connectors);
	if (rc == 0)
		rc = names_create(door, KERNEL_DOOR_PARTNERS, ids->partners, DOOR_PARTNERS_MAX,
			&out->partners);
	gate_ids_destroy(&ids);
	return rc;
}

int door_pins_create(const char *folder, struct door_status *out)
{
	char why[KERNEL_DOOR_WHY_BYTES] = "";
	struct kernel_door *door = NULL;
	int rc;

	*out = (struct door_status){0};
	rc = kernel_door_open_pinned(folder, why, &door);
	if (rc == -ENOENT)
		return rc;
	if (rc < 0) {
		ctl_error("%s: %s", folder, *why != '\0' ? why : strerror(-rc));
		return rc;
	}
	info_read(door, out);
	rc = pins_create(door, out);
	kernel_door_destroy(&door);
	if (rc == 0)
		return 0;
	ctl_error("%s: the maps that are pinned there cannot be read: %s", folder, strerror(-rc));
	door_status_destroy(out);
	return rc == -ENOENT ? -EIO : rc;
}

void door_pins_find_foreign(const char *folder, struct door_status *status)
{
	char why[KERNEL_DOOR_WHY_BYTES];
	struct kernel_door *door = NULL;
	struct kernel_door_info info = {0};

	if (status->program_id == 0 || status->foreign_known ||
		kernel_door_open_pinned(folder, why, &door) < 0)
		return;
	kernel_door_info(door, &info);
	if (info.program_id == status->program_id)
		info_read_foreign(&info, status);
	kernel_door_destroy(&door);
}
