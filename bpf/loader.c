/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#include "bpf/loader_private.h"

#include "door.skel.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * The order of creation is one that may end anywhere: maps are pinned one by one while no
 * program uses them, so the next start takes up those that there are and makes the others; the
 * link is pinned last, when all maps are (loader_attach.c).
 */

const char *const door_map_names[DOOR_MAP_COUNT] = {
	[DOOR_MAP_BINDINGS] = "bindings",
	[DOOR_MAP_TRIES_V4] = "tries_v4",
	[DOOR_MAP_TRIES_V6] = "tries_v6",
	[DOOR_MAP_LIMITS] = "limits",
	[DOOR_MAP_SOURCES] = "sources",
	[DOOR_MAP_SLOTS] = "slots",
	[DOOR_MAP_CONNECTORS] = "connectors",
	[DOOR_MAP_PARTNERS] = "partners",
	[DOOR_MAP_TOTALS] = "totals",
	[DOOR_MAP_NAMES] = "names",
	[DOOR_MAP_EVENTS] = "events",
	[DOOR_MAP_TOKENS] = "tokens",
	[DOOR_MAP_SHIELDS] = "shields",
};

/* The first thing that libbpf complains of while this thread is in one of its calls. */
static _Thread_local char complaint[200];

PRINTF_LIKE(2, 0)
static int libbpf_says(enum libbpf_print_level level, const char *format, va_list arguments)
{
	char *newline;

	if (level != LIBBPF_WARN || complaint[0] != '\0')
		return 0;
	(void)vsnprintf(complaint, sizeof(complaint), format, arguments);
	newline = strchr(complaint, '\n');
	if (newline != NULL)
		*newline = '\0';
	return 0;
}

int door_explain(char *why, int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(why, KERNEL_DOOR_WHY_BYTES, format, arguments);
	va_end(arguments);
	return error;
}

int door_fail(const struct kernel_door *door, const char *call)
{
	return door->fail == NULL ? 0 : -door->fail(call);
}

/* ---- loading */

/* Maps that are pinned are taken up, if they fit. Returns how many, or -errno. */
static int door_take_up_maps(struct kernel_door *door, char *why)
{
	int found = 0;

	for (unsigned i = 0; i < DOOR_MAP_COUNT; i++) {
		const char *name = door_map_names[i];
		struct bpf_map *map = bpf_object__find_map_by_name(door->object, name);
		int fd = pins_get(door, name, PIN_MAP, why);
		int error;

		ASSERT(map != NULL);
		if (fd == -ENOENT)
			continue;
		if (fd < 0)
			return fd;
		error = pins_check_map(name, map, fd, why);
		if (error == 0 && bpf_map__reuse_fd(map, fd) < 0)
			error = door_explain(why, -errno, "%s/%s: cannot be taken up: %s; %s",
				door->folder, name, strerror(errno), complaint);
		(void)close(fd);
		if (error < 0)
			return error;
		found++;
	}
	return found;
}

/* A program that is attached uses all maps; with another one in place of any it would not do. */
static int door_missing_map(const struct kernel_door *door, char *why)
{
	char path[192];

	for (unsigned i = 0; i < DOOR_MAP_COUNT; i++) {
		if (!pins_path(door, door_map_names[i], path, sizeof(path)) ||
			access(path, F_OK) < 0)
			return door_explain(why, -ESTALE,
				"%s/%s: missing, while a program is attached that uses it; "
				"\"posternctl door remove\" removes what is left",
				door->folder, door_map_names[i]);
	}
	return 0;
}

static int door_load(struct kernel_door *door, char *why)
{
	int error = door_fail(door, "bpf_object_load");

	complaint[0] = '\0';
	if (error == 0)
		error = bpf_object__load(door->object);
	/* All that libbpf has to say then is that a limit of memory, which no longer matters,
	 * stays. */
	if (error == -EPERM)
		return door_explain(why, error,
			"programs cannot be loaded: %s; CAP_BPF and CAP_NET_ADMIN are needed",
			strerror(-error));
	if (error == -EACCES)
		return door_explain(why, error,
			"programs cannot be loaded: %s; CAP_BPF and CAP_NET_ADMIN are needed (%s)",
			strerror(-error), complaint);
	if (error < 0)
		return door_explain(why, error, "programs cannot be loaded: %s (%s)",
			strerror(-error), complaint);
	for (unsigned i = 0; i < DOOR_MAP_COUNT; i++)
		door->maps[i] = bpf_object__find_map_fd_by_name(door->object, door_map_names[i]);
	return 0;
}

static int door_pin_maps(struct kernel_door *door, char *why)
{
	char path[192];

	for (unsigned i = 0; i < DOOR_MAP_COUNT; i++) {
		int error;

		if (!pins_path(door, door_map_names[i], path, sizeof(path)))
			return door_explain(why, -ENAMETOOLONG, "%s: too long", door->folder);
		if (access(path, F_OK) == 0)
			continue;
		error = door_fail(door, "bpf_obj_pin");
		if (error == 0 && bpf_obj_pin(door->maps[i], path) < 0)
			error = -errno;
		if (error < 0)
			return door_explain(
				why, error, "%s: cannot be pinned: %s", path, strerror(-error));
	}
	return 0;
}

/* On a thread of its own, whose capabilities are all that it gives up: a map is written to. */
static void *rights_try(void *map)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
	const uint32_t key = 0; /* the number of no connector */
	struct door_limit limit;

	if (syscall(SYS_capset, &header, none) < 0)
		return (void *)(intptr_t)-errno;
	if (bpf_map_lookup_elem(*(const int *)map, &key, &limit) < 0 ||
		bpf_map_update_elem(*(const int *)map, &key, &limit, BPF_ANY) < 0)
		return (void *)(intptr_t)-errno;
	return NULL;
}

/* The maps will be changed by who has no privileges any more. Does this kernel let them? */
static int door_check_rights(struct kernel_door *door, char *why)
{
	void *result = NULL;
	pthread_t thread;
	int error = door_fail(door, "capset");

	if (error == 0)
		error = -pthread_create(&thread, NULL, rights_try, &door->maps[DOOR_MAP_LIMITS]);
	if (error < 0 && error != -EPERM)
		return door_explain(why, error, "a thread cannot be made: %s", strerror(-error));
	if (error == 0) {
		(void)pthread_join(thread, &result);
		error = (int)(intptr_t)result;
	}
	if (error < 0)
		return door_explain(why, error,
			"maps cannot be changed without CAP_BPF, which the relay gives up: %s; "
			"kernels before 5.19 do not allow it with kernel.unprivileged_bpf_disabled "
			"set: take a newer one, or bpf = off",
			strerror(-error));
	return 0;
}

/* Everything from the lock to the last map, but nothing that the kernel would decide by. */
static int door_open_create(struct kernel_door *door, unsigned prefixes_max, char *why)
{
	int found;
	int error = pins_open(door, why);

	if (error < 0)
		return error;
	door->skeleton = door_bpf__open();
	if (door->skeleton == NULL)
		return door_explain(
			why, errno > 0 ? -errno : -ENOMEM, "the programs: %s", complaint);
	door->object = door->skeleton->obj;
	if (door->wanted_count == 0)
		(void)bpf_program__set_autoload(door->skeleton->progs.postern_shield, false);
	found = door_take_up_maps(door, why);
	if (found < 0)
		return found;
	error = pins_check_link(door, why);
	if (error == 0 && door->was_taken_up && found < DOOR_MAP_COUNT)
		error = door_missing_map(door, why);
	if (error == 0)
		error = door_load(door, why);
	if (error == 0)
		error = door_check_rights(door, why);
	if (error == 0)
		error = tries_create(door, prefixes_max, why);
	if (error == 0)
		error = tries_take_up(door, why);
	if (error == 0)
		error = look_create(door, why);
	if (error == 0)
		error = door_pin_maps(door, why);
	return error;
}

/* ---- making and unmaking */

static int door_blank_create(const char *pin_folder, char *why, struct kernel_door **out)
{
	struct kernel_door *door = calloc(1, sizeof(*door));

	if (door == NULL)
		return door_explain(why, -ENOMEM, "no memory");
	door->lock = -1;
	door->netns = -1;
	door->link = -1;
	for (unsigned i = 0; i < DOOR_MAP_COUNT; i++)
		door->maps[i] = -1;
	for (unsigned i = 0; i < DOOR_SLOTS_ALL; i++) {
		door->slots[i].tries[0].fd = door->slots[i].tries[1].fd = -1;
		atomic_init(&door->slots[i].in_force, -1);
	}
	*out = door;
	(void)libbpf_set_print(libbpf_says);
	complaint[0] = '\0';
	if ((size_t)snprintf(door->root, sizeof(door->root), "%s", pin_folder) >=
		sizeof(door->root))
		return door_explain(why, -ENAMETOOLONG, "%s: too long", pin_folder);
	(void)snprintf(door->folder, sizeof(door->folder), "%s/v%d", door->root, DOOR_VERSION);
	door->netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (door->netns < 0)
		return door_explain(
			why, -errno, "/proc/self/ns/net: %s; is /proc mounted?", strerror(errno));
	return 0;
}

static int door_want_shields(
	struct kernel_door *door, const struct kernel_door_options *options, char *why)
{
	if (options->interface_count > DOOR_SHIELDS_MAX)
		return door_explain(why, -E2BIG, "xdp on %u interfaces; at most %d",
			options->interface_count, DOOR_SHIELDS_MAX);
	for (unsigned i = 0; i < options->interface_count; i++) {
		struct door_shield *shield = &door->wanted[door->wanted_count++];

		shield->link = -1;
		if ((size_t)snprintf(shield->interface, sizeof(shield->interface), "%s",
			    options->interfaces[i]) >= sizeof(shield->interface))
			return door_explain(
				why, -EINVAL, "%s: no interface", options->interfaces[i]);
	}
	return 0;
}

int kernel_door_create(const struct kernel_door_options *options,
	char why[static KERNEL_DOOR_WHY_BYTES], struct kernel_door **out)
{
	struct kernel_door *door = NULL;
	int error = door_blank_create(options->pin_folder, why, &door);

	if (error == 0) {
		ASSERT(door != NULL);
		door->fail = options->fail;
		error = door_want_shields(door, options, why);
	}
	if (error == 0) {
		error = door_open_create(door,
			options->prefixes_max != 0 ? options->prefixes_max : DOOR_PREFIXES_MAX,
			why);
		if (error < 0)
			pins_abandon(door);
	}
	if (error < 0) {
		kernel_door_destroy(&door);
		return error;
	}
	*out = door;
	return 0;
}

static int remember_shield(void *owner, int folder, const char *name)
{
	struct kernel_door *door = owner;
	struct door_shield *shield = &door->shields[door->shield_count];
	char why[KERNEL_DOOR_WHY_BYTES];

	(void)folder;
	if (door->shield_count == DOOR_SHIELDS_MAX ||
		!pins_shield_interface(name, shield->interface))
		return 0;
	shield->link = pins_get(door, name, PIN_LINK, why);
	if (shield->link >= 0)
		door->shield_count++;
	return 0;
}

static int door_look_create(struct kernel_door *door, char *why)
{
	int error;

	door->is_looking = true;
	door->lock = open(door->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (door->lock < 0)
		return door_explain(why, -errno, "%s: %s", door->folder, strerror(errno));
	for (unsigned i = 0; i < DOOR_MAP_COUNT; i++) {
		if (i == DOOR_MAP_EVENTS)
			continue;
		door->maps[i] = pins_get(door, door_map_names[i], PIN_MAP, why);
		if (door->maps[i] < 0)
			return door->maps[i];
	}
	door->link = pins_get(door, DOOR_LINK_PIN, PIN_LINK, why);
	if (door->link < 0 && door->link != -ENOENT)
		return door->link;
	door->was_taken_up = door->link >= 0;
	error = pins_each(door->lock, remember_shield, door);
	if (error < 0)
		return door_explain(why, error, "%s: %s", door->folder, strerror(-error));
	error = tries_take_up(door, why);
	return error < 0 ? error : look_create(door, why);
}

int kernel_door_open_pinned(
	const char *pin_folder, char why[static KERNEL_DOOR_WHY_BYTES], struct kernel_door **out)
{
	struct kernel_door *door = NULL;
	int error = door_blank_create(pin_folder, why, &door);

	if (error == 0) {
		ASSERT(door != NULL);
		error = door_look_create(door, why);
	}
	if (error < 0) {
		kernel_door_destroy(&door);
		return error;
	}
	*out = door;
	return 0;
}

static void close_if_open(int fd)
{
	if (fd >= 0)
		(void)close(fd);
}

void kernel_door_destroy(struct kernel_door **door)
{
	struct kernel_door *it = *door;

	if (it == NULL)
		return;
	*door = NULL;
	look_destroy(it);
	tries_destroy(it);
	for (unsigned i = 0; i < it->shield_count; i++)
		close_if_open(it->shields[i].link);
	close_if_open(it->link);
	if (it->skeleton != NULL) {
		door_bpf__destroy(it->skeleton); /* closes the maps */
	} else {
		for (unsigned i = 0; i < DOOR_MAP_COUNT; i++)
			close_if_open(it->maps[i]);
	}
	close_if_open(it->netns);
	close_if_open(it->lock);
	free(it);
}
