/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/cert.h"

#include "policy/config.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <pwd.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * An entry is made as a folder ".new" and renamed, so that the relay never sees half of one; an
 * entry that goes is renamed to ".old" first. The lock on the store is held meanwhile, so what
 * is found there by the next writer is left from a crash.
 */
#define NEW_FOLDER ".new"
#define OLD_FOLDER ".old"

/* Beside a file that is replaced. */
#define NEW_SUFFIX ".new"

/*
 * The folder that the configuration names; NULL after a message. Whoever only reads gets "" where
 * it is not set, since there may be certificate sections.
 */
static const char *store_of_config(
	struct ctl *ctl, enum cert_store_use use, struct config *config, int rc)
{
	static char folder[PATH_MAX];
	const char *slash = strrchr(ctl->config, '/');
	const char *value = rc < 0 ? NULL : ctl_config_word(config, "certificate-store");

	if (rc < 0 && (rc != -ENOENT || ctl->config_is_given)) {
		ctl_error("%s: %s", ctl->config,
			rc == -EINVAL
				? "cannot be parsed; posternctl --config FILE, or --store FOLDER"
				: strerror(-rc));
		return NULL;
	}
	if (value == NULL && rc == 0 && use == CERT_STORE_READ)
		return "";
	if (value == NULL) {
		ctl_error("there is no certificate store: set certificate-store in the transport "
			  "section of %s, or use --store FOLDER",
			ctl->config);
		return NULL;
	}
	/* As the relay does: relative to the configuration. */
	(void)snprintf(folder, sizeof(folder), "%.*s%s",
		value[0] == '/' || slash == NULL ? 0 : (int)(slash - ctl->config + 1), ctl->config,
		value);
	return folder;
}

/*
 * What root writes must be readable for the user that the relay becomes: a reload reads keys as
 * that user. Nobody else can give files away, and nobody else has to.
 */
static int store_find_owner(struct cert_store *store, struct config *config)
{
	const char *user = geteuid() == 0 ? ctl_config_word(config, "user") : NULL;
	const struct passwd *entry;

	if (user == NULL)
		return 0;
	errno = 0;
	entry = getpwnam(user);
	if (entry == NULL) {
		int rc = errno != 0 ? -errno : -ENOENT;

		ctl_error("user \"%s\" of the configuration: %s", user,
			rc == -ENOENT ? "there is no such user" : strerror(-rc));
		return rc;
	}
	store->has_owner = true;
	store->uid = entry->pw_uid;
	store->gid = entry->pw_gid;
	return 0;
}

/* A folder that nobody but root can enter is given away; how others are set up is not ours. */
static int store_give_folder(const struct cert_store *store, int fd)
{
	struct stat status;

	if (!store->has_owner)
		return 0;
	if (fstat(fd, &status) < 0)
		return -errno;
	if (status.st_uid != 0 || (status.st_mode & 077) != 0)
		return 0;
	return fchown(fd, store->uid, store->gid) < 0 ? -errno : 0;
}

/* Empties and removes a folder of ours, which has no folders in it. */
static int folder_remove(int store, const char *name)
{
	int fd = openat(store, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	const struct dirent *found;
	DIR *dir;
	int rc = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	dir = fdopendir(fd);
	if (dir == NULL) {
		(void)close(fd);
		return -ENOMEM;
	}
	while (rc == 0 && (found = readdir(dir)) != NULL)
		if (strcmp(found->d_name, ".") != 0 && strcmp(found->d_name, "..") != 0 &&
			unlinkat(fd, found->d_name, 0) < 0)
			rc = -errno;
	(void)closedir(dir);
	if (rc == 0 && unlinkat(store, name, AT_REMOVEDIR) < 0)
		rc = -errno;
	return rc;
}

static int store_lock(struct cert_store *store, enum cert_store_use use)
{
	int rc;

	do
		rc = flock(store->fd, use == CERT_STORE_WRITE ? LOCK_EX : LOCK_SH);
	while (rc < 0 && errno == EINTR);
	if (rc < 0)
		return -errno;
	if (use == CERT_STORE_READ)
		return 0;
	rc = folder_remove(store->fd, NEW_FOLDER);
	return rc < 0 ? rc : folder_remove(store->fd, OLD_FOLDER);
}

int cert_store_open(struct ctl *ctl, enum cert_store_use use, struct cert_store *store)
{
	static struct config config; /* never freed: it lives as long as we do */
	const char *folder = ctl->store;
	int rc = -ENOENT;

	*store = (struct cert_store){.fd = -1};
	/* The configuration that is there by default says nothing about another store. */
	config.file = ctl->config;
	if (folder == NULL || (use == CERT_STORE_WRITE && ctl->config_is_given))
		rc = config_read(&config);
	if (folder == NULL)
		folder = store_of_config(ctl, use, &config, rc);
	if (folder == NULL)
		return CTL_FAILED;
	if (rc == 0 && use == CERT_STORE_WRITE && store_find_owner(store, &config) < 0)
		return CTL_FAILED;
	rc = 0;
	if (snprintf(store->folder, sizeof(store->folder), "%s", folder) >=
		(int)sizeof(store->folder) - 100) {
		ctl_error("%s: the name of the store is too long", folder);
		return CTL_USAGE;
	}
	if (use == CERT_STORE_WRITE && mkdir(folder, 0700) < 0 && errno != EEXIST)
		rc = -errno;
	if (rc == 0)
		store->fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (rc == 0 && store->fd < 0)
		rc = -errno;
	/* One of the configuration that is not there yet is empty. */
	if (rc == -ENOENT && use == CERT_STORE_READ && ctl->store == NULL)
		return CTL_OK;
	if (rc == 0)
		rc = store_lock(store, use);
	if (rc == 0)
		rc = store_give_folder(store, store->fd);
	if (rc == 0)
		return CTL_OK;
	ctl_error("%s: %s, expected the folder of the certificate store", folder, strerror(-rc));
	cert_store_close(store);
	return CTL_FAILED;
}

void cert_store_close(struct cert_store *store)
{
	if (store->fd >= 0)
		(void)close(store->fd);
	store->fd = -1;
}

/*
 * Writes a new file in a folder, to the disk; one that is left there is written over. It is given
 * to the owner of the store, if there are both.
 */
static int file_write(
	const struct cert_store *store, int folder, const char *name, BIO *content, unsigned mode)
{
	char *data = NULL;
	long left = BIO_get_mem_data(content, &data);
	int rc = 0;
	int fd;

	(void)unlinkat(folder, name, 0);
	fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	while (rc == 0 && left > 0) {
		ssize_t len = write(fd, data, (size_t)left);

		if (len < 0 && errno != EINTR)
			rc = -errno;
		data += len > 0 ? len : 0;
		left -= len > 0 ? len : 0;
	}
	if (rc == 0 && store != NULL && store->has_owner && fchown(fd, store->uid, store->gid) < 0)
		rc = -errno;
	if (rc == 0 && fchmod(fd, mode) < 0)
		rc = -errno;
	if (rc == 0 && fsync(fd) < 0)
		rc = -errno;
	if (close(fd) < 0 && rc == 0)
		rc = -errno;
	if (rc < 0)
		(void)unlinkat(folder, name, 0);
	return rc;
}

static unsigned file_mode(const char *name)
{
	return strcmp(name, "key.pem") == 0 ? 0600 : 0644;
}

static int entry_write(const struct cert_store *store, const struct cert_file *files)
{
	int rc = mkdirat(store->fd, NEW_FOLDER, 0700) < 0 ? -errno : 0;
	int fd = rc < 0 ? -1
			: openat(store->fd, NEW_FOLDER,
				  O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (rc == 0 && fd < 0)
		rc = -errno;
	for (; rc == 0 && files->content != NULL; files++)
		rc = file_write(store, fd, files->name, files->content, file_mode(files->name));
	if (rc == 0)
		rc = store_give_folder(store, fd);
	if (rc == 0 && fsync(fd) < 0)
		rc = -errno;
	if (fd >= 0)
		(void)close(fd);
	return rc;
}

static int entry_replace(const struct cert_store *store, int folder, const struct cert_file *files)
{
	char beside[64];
	int rc = 0;

	for (; rc == 0 && files->content != NULL; files++) {
		(void)snprintf(beside, sizeof(beside), "%s" NEW_SUFFIX, files->name);
		rc = file_write(store, folder, beside, files->content, file_mode(files->name));
		if (rc == 0 && renameat(folder, beside, folder, files->name) < 0)
			rc = -errno;
	}
	if (rc == 0)
		rc = store_give_folder(store, folder);
	if (rc == 0 && fsync(folder) < 0)
		rc = -errno;
	return rc;
}

int cert_store_put(const struct cert_store *store, const char *id, const struct cert_file *files)
{
	int folder = openat(store->fd, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int rc;

	if (folder >= 0) {
		rc = entry_replace(store, folder, files);
		(void)close(folder);
	} else if (errno != ENOENT) {
		rc = -errno;
	} else {
		rc = entry_write(store, files);
		if (rc == 0 && renameat(store->fd, NEW_FOLDER, store->fd, id) < 0)
			rc = -errno;
		if (rc < 0)
			(void)folder_remove(store->fd, NEW_FOLDER);
	}
	if (rc == 0 && fsync(store->fd) < 0)
		rc = -errno;
	if (rc < 0)
		ctl_error("%s/%s: %s", store->folder, id, strerror(-rc));
	return rc;
}

int cert_store_remove(const struct cert_store *store, const char *id)
{
	int rc = renameat(store->fd, id, store->fd, OLD_FOLDER) < 0 ? -errno : 0;

	if (rc == 0)
		rc = folder_remove(store->fd, OLD_FOLDER);
	if (rc == 0 && fsync(store->fd) < 0)
		rc = -errno;
	if (rc < 0)
		ctl_error("%s/%s: %s", store->folder, id, strerror(-rc));
	return rc;
}

int cert_store_enable(const struct cert_store *store, const char *id, bool is_enabled)
{
	char path[CERT_THUMBPRINT_BYTES + 16];
	int rc = 0;

	(void)snprintf(path, sizeof(path), "%s/enabled", id);
	if (is_enabled) {
		int fd = openat(store->fd, path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);

		if (fd < 0 || close(fd) < 0)
			rc = -errno;
	} else if (unlinkat(store->fd, path, 0) < 0 && errno != ENOENT) {
		rc = -errno;
	}
	if (rc < 0)
		ctl_error("%s/%s: %s", store->folder, path, strerror(-rc));
	return rc;
}

/* Devices and pipes are written to; only a file is replaced. */
static FILE *file_open_special(const char *file)
{
	struct stat status;

	if (file == NULL || strcmp(file, "-") == 0)
		return stdout;
	return stat(file, &status) == 0 && !S_ISREG(status.st_mode) ? fopen(file, "we") : NULL;
}

int cert_file_write(const char *file, BIO *content, unsigned mode)
{
	char beside[PATH_MAX];
	char *data = NULL;
	long len = BIO_get_mem_data(content, &data);
	FILE *special = file_open_special(file);
	int rc = 0;

	if (special != NULL) {
		if (fwrite(data, 1, (size_t)len, special) != (size_t)len || fflush(special) == EOF)
			rc = errno != 0 ? -errno : -EIO;
		if (special != stdout && fclose(special) == EOF && rc == 0)
			rc = -errno;
	} else if (snprintf(beside, sizeof(beside), "%s.%ld" NEW_SUFFIX, file, (long)getpid()) >=
		   (int)sizeof(beside)) {
		rc = -ENAMETOOLONG;
	} else {
		rc = file_write(NULL, AT_FDCWD, beside, content, mode);
		if (rc == 0 && rename(beside, file) < 0) {
			rc = -errno;
			(void)unlink(beside);
		}
	}
	if (rc < 0)
		ctl_error("%s: %s", special == stdout ? "standard output" : file, strerror(-rc));
	return rc;
}
