/* SPDX-License-Identifier: Apache-2.0 */

/*
 * ip_list.c: the file of a partner's addresses, and comparing two sets.
 */

#include "policy/ip_list.h"
#include "policy/ip_list_private.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIST_SUFFIX ".list"
#define NEW_SUFFIX ".new"
#define LIST_MODE 0640

void ip_list_clear(struct ip_list *list)
{
	cidr_destroy(&list->set);
	list->generation = 0;
}

bool ip_list_name_is_valid(const char *partner)
{
	const size_t len = strlen(partner);

	if (len == 0 || len >= DOOR_NAME_BYTES || partner[0] == '.')
		return false;
	for (size_t i = 0; i < len; i++)
		if (partner[i] == '/' || (unsigned char)partner[i] < ' ' || partner[i] == 0x7f)
			return false;
	return true;
}

bool ip_list_path(const char *folder, const char *partner, char *out, size_t out_bytes)
{
	const int len = snprintf(out, out_bytes, "%s/%s" LIST_SUFFIX, folder, partner);

	return len >= 0 && (size_t)len < out_bytes;
}

/* ---- reading */

static struct ip_list_file file_of(const struct stat *status)
{
	return (struct ip_list_file){.exists = true,
		.device = status->st_dev,
		.inode = status->st_ino,
		.size = status->st_size,
		.modified = status->st_mtim};
}

void ip_list_look(const char *path, struct ip_list_file *out)
{
	struct stat status;

	*out = stat(path, &status) < 0 ? (struct ip_list_file){0} : file_of(&status);
}

bool ip_list_file_is_same(const struct ip_list_file *a, const struct ip_list_file *b)
{
	return a->exists == b->exists && a->device == b->device && a->inode == b->inode &&
	       a->size == b->size && a->modified.tv_sec == b->modified.tv_sec &&
	       a->modified.tv_nsec == b->modified.tv_nsec;
}

static FILE *list_open(const char *path, struct ip_list_file *out_file, int *out_rc)
{
	/* Something that is no file must not hold us up. */
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status = {0};
	FILE *file = NULL;
	int rc = 0;

	if (fd < 0 || fstat(fd, &status) < 0)
		rc = -errno;
	else if (!S_ISREG(status.st_mode))
		rc = S_ISDIR(status.st_mode) ? -EISDIR : -ENOTSUP;
	if (rc == 0) {
		/* Before the first byte is read: what comes to it later makes it another. */
		*out_file = file_of(&status);
		file = fdopen(fd, "r");
		rc = file == NULL ? -errno : 0;
	}
	if (rc < 0 && fd >= 0)
		(void)close(fd);
	*out_rc = rc;
	return file;
}

int ip_list_read(const char *path, FILE *errors, struct ip_list *out)
{
	struct ip_list list = {0};
	struct ip_import import = {.name = path, .errors = errors, .generation = &list.generation};
	int rc = 0;
	FILE *file = list_open(path, &list.file, &rc);

	if (rc == -ENOENT) {
		rc = cidr_create(&list.set);
	} else if (rc == 0) {
		rc = ip_import_run(&import, file, IP_LIST_PLAIN, true, &list.set);
		/* Made by hand. */
		if (list.generation == 0)
			list.generation = 1;
	}
	if (file != NULL)
		(void)fclose(file);
	if (rc == 0)
		*out = list;
	return rc;
}

/* ---- writing */

/* A file that is to be replaced: the folder, its name and that of the new one in it. */
struct list_place {
	int folder;
	char name[NAME_MAX + 1];
	char new_name[NAME_MAX + 1];
};

static int place_open(const char *path, struct list_place *out)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash == NULL ? path : slash + 1;
	const size_t len = strlen(name);
	char folder[PATH_MAX] = ".";

	if (len == 0 || (slash != NULL && (size_t)(slash - path) >= sizeof(folder) - 1))
		return len == 0 ? -EISDIR : -ENAMETOOLONG;
	if (len + sizeof(NEW_SUFFIX) > sizeof(out->new_name))
		return -ENAMETOOLONG;
	/* With the slash, as it may be the one of the root. */
	if (slash != NULL)
		(void)snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path) + 1, path);
	memcpy(out->name, name, len + 1);
	memcpy(out->new_name, name, len);
	memcpy(out->new_name + len, NEW_SUFFIX, sizeof(NEW_SUFFIX));
	out->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return out->folder < 0 ? -errno : 0;
}

/*
 * The new file is to be as the old one, which a process that is not root may be unable to do. Then
 * it keeps at least the group; and if it cannot, those of another group get no rights.
 */
static int file_take_after(int fd, const struct stat *old)
{
	mode_t mode = old->st_mode & 0777;
	struct stat now = {0};

	if (fstat(fd, &now) < 0)
		return -errno;
	if ((now.st_uid != old->st_uid || now.st_gid != old->st_gid) &&
		fchown(fd, old->st_uid, old->st_gid) < 0) {
		if (errno != EPERM)
			return -errno;
		if (now.st_gid != old->st_gid && fchown(fd, (uid_t)-1, old->st_gid) < 0)
			mode &= ~(mode_t)S_IRWXG;
		/* Who writes it now has to be able to read it again. */
		mode |= S_IRUSR | S_IWUSR;
	}
	return fchmod(fd, mode) < 0 ? -errno : 0;
}

/* Owner and mode of the old file; of a new one, the folder's owner when root makes it. */
static int file_own(const struct list_place *place, int fd)
{
	struct stat old = {0};

	if (fstatat(place->folder, place->name, &old, AT_SYMLINK_NOFOLLOW) == 0) {
		if (S_ISREG(old.st_mode))
			return file_take_after(fd, &old);
		return S_ISDIR(old.st_mode) ? -EISDIR : S_ISLNK(old.st_mode) ? -ELOOP : -ENOTSUP;
	}
	if (errno != ENOENT)
		return -errno;
	if (fchmod(fd, LIST_MODE) < 0)
		return -errno;
	if (geteuid() != 0)
		return 0;
	if (fstat(place->folder, &old) < 0 || fchown(fd, old.st_uid, old.st_gid) < 0)
		return -errno;
	return 0;
}

static int file_print(FILE *file, const char *partner, const struct ip_list *list)
{
	struct prefix prefix = {0};
	struct door_value value = {0};
	struct cidr_walk walk;

	(void)fprintf(file,
		"# Postern: addresses of partner \"%s\"; "
		"change them with \"posternctl partner %s ip\".\n# generation %" PRIu64 "\n",
		partner, partner, list->generation);
	cidr_walk_start(&walk, list->set);
	while (cidr_walk_next(&walk, &prefix, &value)) {
		char text[PREFIX_TEXT_BYTES + 1];

		(void)fputs_unlocked(ip_list_print(&prefix, value, text), file);
		(void)putc_unlocked('\n', file);
	}
	errno = 0;
	if (fflush(file) != 0 || ferror(file))
		return errno != 0 ? -errno : -EIO;
	return fsync(fileno(file)) < 0 ? -errno : 0;
}

/* The new file, whole and on the disk. */
static int place_fill(
	const struct list_place *place, const char *partner, const struct ip_list *list)
{
	FILE *file = NULL;
	int rc = 0;
	int fd = -1;

	/* Left by somebody who was ended in the middle. */
	(void)unlinkat(place->folder, place->new_name, 0);
	fd = openat(place->folder, place->new_name,
		O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	rc = file_own(place, fd);
	if (rc == 0) {
		file = fdopen(fd, "w");
		rc = file == NULL ? -errno : file_print(file, partner, list);
	}
	if ((file != NULL ? fclose(file) : close(fd)) != 0 && rc == 0)
		rc = -errno;
	if (rc < 0)
		(void)unlinkat(place->folder, place->new_name, 0);
	return rc;
}

int ip_list_write(const char *path, const char *partner, const struct ip_list *list)
{
	struct list_place place = {.folder = -1};
	int rc = place_open(path, &place);

	if (rc < 0)
		return rc;
	rc = place_fill(&place, partner, list);
	if (rc == 0 && renameat(place.folder, place.new_name, place.folder, place.name) < 0) {
		rc = -errno;
		(void)unlinkat(place.folder, place.new_name, 0);
	}
	/* Some file systems know no flushing of folders. */
	if (rc == 0 && fsync(place.folder) < 0 && errno != EINVAL)
		rc = -errno;
	(void)close(place.folder);
	return rc;
}

/* ---- texts */

const char *ip_list_print(const struct prefix *prefix, struct door_value value,
	char out[static PREFIX_TEXT_BYTES + 1])
{
	const unsigned sign = (value.flags & DOOR_EXCLUDED) != 0;

	out[0] = '!';
	(void)prefix_print(prefix, out + sign);
	return out;
}

static const char *const format_words[] = {
	[IP_LIST_AUTO] = "auto",
	[IP_LIST_PLAIN] = "plain",
	[IP_LIST_POSTFIX_CIDR] = "postfix-cidr",
	[IP_LIST_JSON] = "json",
};

bool ip_list_format_parse(const char *word, enum ip_list_format *out)
{
	for (unsigned i = 0; i < COUNT_OF(format_words); i++)
		if (strcmp(word, format_words[i]) == 0) {
			*out = (enum ip_list_format)i;
			return true;
		}
	return false;
}

/* ---- comparing */

/* One side of a comparison: where its walk is. */
struct side {
	struct cidr_walk walk;
	struct prefix prefix;
	struct door_value value;
	bool is_over;
};

static void side_next(struct side *side)
{
	side->is_over = !cidr_walk_next(&side->walk, &side->prefix, &side->value);
}

static void side_start(struct side *side, const struct cidr *set)
{
	cidr_walk_start(&side->walk, set);
	side_next(side);
}

void ip_list_compare(const struct cidr *from, const struct cidr *to, struct ip_list_diff *out,
	void (*on_line)(
		void *owner, char sign, const struct prefix *prefix, struct door_value value),
	void *owner)
{
	struct side old, new;

	*out = (struct ip_list_diff){0};
	side_start(&old, from);
	side_start(&new, to);
	while (!old.is_over || !new.is_over) {
		const int order = old.is_over   ? 1
				  : new.is_over ? -1
						: prefix_compare(&old.prefix, &new.prefix);
		const bool is_same = order == 0 && old.value.flags == new.value.flags;

		out->kept += is_same;
		out->removed += order <= 0 && !is_same;
		out->added += order >= 0 && !is_same;
		if (on_line != NULL && order <= 0 && !is_same)
			on_line(owner, '-', &old.prefix, old.value);
		if (on_line != NULL && order >= 0 && !is_same)
			on_line(owner, '+', &new.prefix, new.value);
		if (order <= 0)
			side_next(&old);
		if (order >= 0)
			side_next(&new);
	}
}
