/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#include "bpf/loader_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Folders are opened anew when they were removed meanwhile: so often. */
#define LOCK_TRIES 5

bool pins_path(const struct kernel_door *door, const char *name, char *out, size_t out_bytes)
{
	return (size_t)snprintf(out, out_bytes, "%s/%s", door->folder, name) < out_bytes;
}

int pins_each(int folder, int (*on_name)(void *owner, int folder, const char *name), void *owner)
{
	int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	int error = 0;

	if (dir == NULL) {
		error = -errno;
		if (copy >= 0)
			(void)close(copy);
		return error;
	}
	for (const struct dirent *entry; error == 0 && (entry = readdir(dir)) != NULL;) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			error = on_name(owner, folder, entry->d_name);
	}
	(void)closedir(dir);
	return error;
}

/* ---- names of shields */

void pins_shield_name(const char *interface, char *out, size_t out_bytes)
{
	size_t len = (size_t)snprintf(out, out_bytes, "%s", DOOR_SHIELD_PREFIX);

	for (; *interface != '\0' && len + 4 <= out_bytes; interface++) {
		if (*interface == '.' || *interface == '%')
			len += (size_t)snprintf(out + len, out_bytes - len, "%%%02x",
				(unsigned)(unsigned char)*interface);
		else
			out[len++] = *interface;
	}
	out[len] = '\0';
}

bool pins_shield_interface(const char *name, char out[static IF_NAMESIZE])
{
	size_t len = 0;

	if (strncmp(name, DOOR_SHIELD_PREFIX, strlen(DOOR_SHIELD_PREFIX)) != 0)
		return false;
	name += strlen(DOOR_SHIELD_PREFIX);
	while (*name != '\0' && len + 1 < IF_NAMESIZE) {
		if (strncmp(name, "%2e", 3) == 0 || strncmp(name, "%25", 3) == 0) {
			out[len++] = name[2] == 'e' ? '.' : '%';
			name += 3;
		} else {
			out[len++] = *name++;
		}
	}
	out[len] = '\0';
	return len > 0 && *name == '\0';
}

/* ---- the folder */

static bool path_is_bpffs(const char *path)
{
	struct statfs about;

	return statfs(path, &about) == 0 && (unsigned long)about.f_type == BPF_FS_MAGIC;
}

/* The pin folder itself, in a bpf file system. Others may see that there are pins, not which. */
static int pins_make_root(const struct kernel_door *door, char *why)
{
	char parent[sizeof(door->root)];
	char *slash;
	int error;

	(void)snprintf(parent, sizeof(parent), "%s", door->root);
	slash = strrchr(parent, '/');
	if (slash == NULL || slash == parent)
		return door_explain(why, -ENOENT,
			"%s: not the path of a folder in a bpf file system", door->root);
	*slash = '\0';
	if (!path_is_bpffs(parent))
		return door_explain(why, -ENOENT,
			"%s: not a bpf file system; mount -t bpf bpf /sys/fs/bpf", parent);
	error = door_fail(door, "mkdir");
	if (error == 0 && mkdir(door->root, 0755) < 0 && errno != EEXIST)
		error = -errno;
	if (error < 0)
		return door_explain(
			why, error, "%s: cannot be made: %s", door->root, strerror(-error));
	return 0;
}

/* Is the folder that was opened still the one of that name? */
static bool folder_is_there(int folder, const char *path)
{
	struct stat opened;
	struct stat named;

	return fstat(folder, &opened) == 0 && stat(path, &named) == 0 &&
	       opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

/* A descriptor with the lock; -EBUSY: another process has it; -EAGAIN: it was removed meanwhile. */
static int folder_lock(const char *path)
{
	int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = 0;

	if (folder < 0)
		return -errno;
	if (flock(folder, LOCK_EX | LOCK_NB) < 0)
		error = errno == EWOULDBLOCK ? -EBUSY : -errno;
	else if (!folder_is_there(folder, path))
		error = -EAGAIN;
	if (error < 0) {
		(void)close(folder);
		return error;
	}
	return folder;
}

int pins_open(struct kernel_door *door, char *why)
{
	int error = pins_make_root(door, why);
	int folder = -EAGAIN;

	if (error < 0)
		return error;
	for (unsigned i = 0; i < LOCK_TRIES && (folder == -EAGAIN || folder == -ENOENT); i++) {
		error = door_fail(door, "mkdir");
		if (error == 0 && mkdir(door->folder, 0700) < 0 && errno != EEXIST)
			error = -errno;
		if (error < 0)
			return door_explain(why, error, "%s: cannot be made: %s", door->folder,
				strerror(-error));
		folder = door_fail(door, "flock");
		if (folder == 0)
			folder = folder_lock(door->folder);
	}
	if (folder == -EBUSY || folder == -EAGAIN)
		return door_explain(why, -EBUSY,
			"%s: another process has it; is a relay running? Each needs its own "
			"bpf-pin-folder",
			door->folder);
	if (folder < 0)
		return door_explain(why, folder, "%s: %s", door->folder, strerror(-folder));
	door->lock = folder;
	return 0;
}

void pins_abandon(struct kernel_door *door)
{
	if (door->lock < 0)
		return;
	/* Neither goes while anything lies in it. */
	(void)rmdir(door->folder);
	(void)rmdir(door->root);
}

/* ---- pins */

/* What bpf() has given a descriptor of. */
static bool fd_is_kind(int fd, enum pin_kind kind)
{
	char path[64];
	char target[64];
	ssize_t len;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	len = readlink(path, target, sizeof(target) - 1);
	if (len < 0)
		return false;
	target[len] = '\0';
	if (kind == PIN_MAP)
		return strstr(target, "bpf-map") != NULL;
	/* Which of the two depends on the call that made the descriptor. */
	return strstr(target, "bpf-link") != NULL || strstr(target, "bpf_link") != NULL;
}

int pins_get(const struct kernel_door *door, const char *name, enum pin_kind kind, char *why)
{
	const char *what = kind == PIN_MAP ? "map" : "link";
	const struct bpf_obj_get_opts options = {.sz = sizeof(options),
		.file_flags = door->is_looking && kind == PIN_MAP ? BPF_F_RDONLY : 0};
	struct stat about;
	char path[192];
	int error;
	int fd;

	if (!pins_path(door, name, path, sizeof(path)))
		return door_explain(why, -ENAMETOOLONG, "%s: too long", door->folder);
	if (lstat(path, &about) < 0)
		return door_explain(why, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(about.st_mode))
		return door_explain(why, -ESTALE,
			"%s: a folder or link, not a BPF %s; \"posternctl door remove\" removes it",
			path, what);
	error = door_fail(door, "bpf_obj_get");
	fd = error < 0 ? error : bpf_obj_get_opts(path, &options);
	if (fd < 0) {
		error = error < 0 ? error : -errno;
		return door_explain(why, error, "%s: cannot be opened: %s", path, strerror(-error));
	}
	if (!fd_is_kind(fd, kind)) {
		(void)close(fd);
		return door_explain(why, -ESTALE,
			"%s: not a BPF %s; \"posternctl door remove\" removes it", path, what);
	}
	return fd;
}

int pins_check_map(const char *name, const struct bpf_map *want, int fd, char *why)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	bool is_nested = bpf_map__type(want) == BPF_MAP_TYPE_ARRAY_OF_MAPS;
	uint32_t value_bytes = is_nested ? sizeof(uint32_t) : bpf_map__value_size(want);

	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return door_explain(why, -errno, "%s: %s", name, strerror(errno));
	if (info.type == bpf_map__type(want) && info.key_size == bpf_map__key_size(want) &&
		info.value_size == value_bytes && info.map_flags == bpf_map__map_flags(want) &&
		info.max_entries == bpf_map__max_entries(want))
		return 0;
	return door_explain(why, -ESTALE,
		"pin %s: another map (type %u, key %u, value %u, entries %u, flags %#x; ours: %u, "
		"%u, %u, %u, %#x); \"posternctl door remove\" removes it",
		name, info.type, info.key_size, info.value_size, info.max_entries, info.map_flags,
		bpf_map__type(want), bpf_map__key_size(want), value_bytes,
		bpf_map__max_entries(want), bpf_map__map_flags(want));
}

int pins_check_link(struct kernel_door *door, char *why)
{
	struct bpf_link_info info = {0};
	uint32_t len = sizeof(info);
	struct stat own;
	int fd = pins_get(door, DOOR_LINK_PIN, PIN_LINK, why);

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fd;
	door->link = fd;
	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0 || fstat(door->netns, &own) < 0)
		return door_explain(
			why, -errno, "%s/%s: %s", door->folder, DOOR_LINK_PIN, strerror(errno));
	if (info.type != BPF_LINK_TYPE_NETNS || info.netns.attach_type != BPF_SK_LOOKUP)
		return door_explain(why, -ESTALE,
			"%s/%s: a link of another kind of program; \"posternctl door remove\" "
			"removes it",
			door->folder, DOOR_LINK_PIN);
	door->is_link_dead = info.netns.netns_ino == 0;
	if (!door->is_link_dead && info.netns.netns_ino != own.st_ino)
		return door_explain(why, -ESTALE,
			"%s/%s: attached to another network namespace (inode %u, this one is "
			"%llu); give each its own folder",
			door->folder, DOOR_LINK_PIN, info.netns.netns_ino,
			(unsigned long long)own.st_ino);
	door->was_taken_up = !door->is_link_dead;
	return 0;
}

/* ---- removal */

struct removal {
	char failed[64]; /* the first name that could not be removed */
	int error;
};

/* A link is detached first: another process may have it open. */
static void detach(int folder, const char *name)
{
	char path[64 + NAME_MAX];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", folder, name);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return;
	if (fd_is_kind(fd, PIN_LINK))
		(void)bpf_link_detach(fd);
	(void)close(fd);
}

static int remove_name(void *owner, int folder, const char *name)
{
	struct removal *removal = owner;

	detach(folder, name);
	if (unlinkat(folder, name, 0) == 0 || unlinkat(folder, name, AT_REMOVEDIR) == 0 ||
		removal->error != 0)
		return 0;
	removal->error = -errno;
	(void)snprintf(removal->failed, sizeof(removal->failed), "%s", name);
	return 0;
}

/* Links before maps, so that what is cut short leaves nothing that decides by half its maps. */
static int remove_link(void *owner, int folder, const char *name)
{
	if (strcmp(name, DOOR_LINK_PIN) == 0 ||
		strncmp(name, DOOR_SHIELD_PREFIX, strlen(DOOR_SHIELD_PREFIX)) == 0)
		return remove_name(owner, folder, name);
	return 0;
}

/* FOLDER/vN whole: -EBUSY if a process has it. */
static int version_remove(const char *path, char *why)
{
	struct removal removal = {.error = 0};
	int folder = folder_lock(path);

	if (folder == -EBUSY)
		return door_explain(
			why, -EBUSY, "%s: a process has it; stop the relay first", path);
	if (folder == -EAGAIN || folder == -ENOENT)
		return 0;
	if (folder < 0)
		return door_explain(why, folder, "%s: %s", path, strerror(-folder));
	removal.error = pins_each(folder, remove_link, &removal);
	/* A folder may be changed while it is read: once more is enough for any order. */
	for (unsigned i = 0; i < 2 && removal.error == 0; i++)
		removal.error = pins_each(folder, remove_name, &removal);
	if (removal.error == 0 && rmdir(path) < 0)
		removal.error = -errno;
	(void)close(folder);
	if (removal.error < 0)
		return door_explain(why, removal.error, "%s/%s: cannot be removed: %s", path,
			removal.failed, strerror(-removal.error));
	return 0;
}

static bool name_is_version(const char *name)
{
	return name[0] == 'v' && name[1] != '\0' &&
	       name[1 + strspn(name + 1, "0123456789")] == '\0';
}

struct versions {
	const char *root;
	int netns;       /* what is attached to another one is left alone; -1: nothing is */
	const char *but; /* its path; NULL */
	char *why;
	unsigned found;
	int error;
};

/* Namespaces may share a bpf file system, with relays of several versions. */
static bool version_is_elsewhere(const char *path, int netns)
{
	struct bpf_link_info info = {0};
	uint32_t len = sizeof(info);
	char link[128 + NAME_MAX + sizeof(DOOR_LINK_PIN)];
	struct stat own;
	bool is_elsewhere;
	int fd;

	(void)snprintf(link, sizeof(link), "%s/%s", path, DOOR_LINK_PIN);
	fd = netns < 0 || fstat(netns, &own) < 0 ? -1 : bpf_obj_get(link);
	if (fd < 0)
		return false;
	is_elsewhere = fd_is_kind(fd, PIN_LINK) && bpf_obj_get_info_by_fd(fd, &info, &len) == 0 &&
		       info.type == BPF_LINK_TYPE_NETNS && info.netns.netns_ino != 0 &&
		       info.netns.netns_ino != own.st_ino;
	(void)close(fd);
	return is_elsewhere;
}

static int version_found(void *owner, int folder, const char *name)
{
	struct versions *versions = owner;
	char path[128 + NAME_MAX];
	int error;

	(void)folder;
	if (!name_is_version(name))
		return 0;
	(void)snprintf(path, sizeof(path), "%s/%s", versions->root, name);
	if (versions->but != NULL && strcmp(path, versions->but) == 0)
		return 0;
	versions->found++;
	if (version_is_elsewhere(path, versions->netns)) {
		(void)door_explain(
			versions->why, 0, "%s: of another network namespace, left alone", path);
		return 0;
	}
	error = version_remove(path, versions->why);
	if (versions->error == 0)
		versions->error = error;
	return 0;
}

static int versions_remove(struct versions *versions)
{
	int root = open(versions->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error;

	if (root < 0)
		return -errno;
	error = pins_each(root, version_found, versions);
	(void)close(root);
	return error < 0 ? error : versions->error;
}

void pins_remove_others(const struct kernel_door *door, char *why)
{
	struct versions versions = {
		.root = door->root, .netns = door->netns, .but = door->folder, .why = why};

	/* What stays filters beside ours: it can only refuse more. why says so. */
	(void)versions_remove(&versions);
}

int kernel_door_remove(const char *pin_folder, char why[static KERNEL_DOOR_WHY_BYTES])
{
	struct versions versions = {.root = pin_folder, .netns = -1, .why = why};
	int error = versions_remove(&versions);

	if (error == -ENOENT || (error == 0 && versions.found == 0))
		return door_explain(why, -ENOENT, "%s: nothing is pinned there", pin_folder);
	if (error < 0 && versions.error == 0)
		return door_explain(why, error, "%s: %s", pin_folder, strerror(-error));
	if (error == 0)
		(void)rmdir(pin_folder);
	return error;
}

static int anything_found(void *owner, int folder, const char *name)
{
	bool *found = owner;

	(void)folder;
	(void)name;
	*found = true;
	return 0;
}

/* What lies in a version's folder may be hidden from us; that it is there is not. */
static int version_seen(void *owner, int folder, const char *name)
{
	bool *found = owner;
	int version;

	if (!name_is_version(name))
		return 0;
	version = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (version < 0) {
		*found = *found || errno == EACCES;
		return 0;
	}
	(void)pins_each(version, anything_found, found);
	(void)close(version);
	return 0;
}

bool kernel_door_is_pinned(const char *pin_folder)
{
	int root = open(pin_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool found = false;

	if (root < 0)
		return false;
	(void)pins_each(root, version_seen, &found);
	(void)close(root);
	return found;
}
