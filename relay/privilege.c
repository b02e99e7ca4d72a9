/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/privilege.h"

#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* A container may have taken the right to change the bounding set; then what it left stays. */
static int drop_bounds(void)
{
	if (capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP) != 1)
		return 0;
	capng_clear(CAPNG_SELECT_BOUNDS);
	return capng_apply(CAPNG_SELECT_BOUNDS) == 0 ? 0 : -EPERM;
}

static int find_user(const char *user, uid_t *out_uid, gid_t *out_gid)
{
	const struct passwd *entry;

	errno = 0;
	entry = getpwnam(user);
	if (entry == NULL)
		return errno != 0 ? -errno : -ENOENT;
	*out_uid = entry->pw_uid;
	*out_gid = entry->pw_gid;
	return 0;
}

static int become(const char *user)
{
	uid_t uid = 0;
	gid_t gid = 0;
	int rc = find_user(user, &uid, &gid);

	if (rc == 0 && (setgroups(0, NULL) < 0 || setgid(gid) < 0 || setuid(uid) < 0))
		rc = -errno;
	return rc;
}

int privilege_make_folder(const char *path, const char *user, FILE *errors)
{
	uid_t uid = 0;
	gid_t gid = 0;
	int rc = 0;

	if (path == NULL || user == NULL || geteuid() != 0)
		return 0;
	if (mkdir(path, 0700) < 0) {
		/* What is there is its owner's business, and whatever is wrong shows when it is
		 * used.
		 */
		if (errno == EEXIST)
			return 0;
		rc = -errno;
	}
	if (rc == 0)
		rc = find_user(user, &uid, &gid);
	if (rc == 0 && chown(path, uid, gid) < 0)
		rc = -errno;
	if (rc < 0)
		(void)fprintf(errors, "%s: the folder cannot be made for user \"%s\": %s\n", path,
			user, strerror(-rc));
	return rc;
}

rlim_t privilege_allow_files(rlim_t need)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= need)
		return need;
	if (limit.rlim_max < need) {
		struct rlimit raised = {.rlim_cur = need, .rlim_max = need};

		if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
			return need;
	}
	limit.rlim_cur = limit.rlim_max < need ? limit.rlim_max : need;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur;
}

int drop_privileges(const char *user)
{
	int rc;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	if (capng_get_caps_process() != 0)
		return -EPERM;
	rc = drop_bounds();
	if (rc == 0 && user != NULL && geteuid() == 0)
		rc = become(user);
	if (rc < 0)
		return rc;
	capng_clear(CAPNG_SELECT_CAPS | CAPNG_SELECT_AMBIENT);
	if (capng_apply(CAPNG_SELECT_CAPS | CAPNG_SELECT_AMBIENT) != 0)
		return -EPERM;
	return 0;
}
