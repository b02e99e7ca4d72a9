/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/privilege.h"

#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <unistd.h>

/* A container may have taken the right to change the bounding set; then what it left stays. */
static int drop_bounds(void)
{
	if (capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP) != 1)
		return 0;
	capng_clear(CAPNG_SELECT_BOUNDS);
	return capng_apply(CAPNG_SELECT_BOUNDS) == 0 ? 0 : -EPERM;
}

static int become(const char *user)
{
	const struct passwd *entry;

	errno = 0;
	entry = getpwnam(user);
	if (entry == NULL)
		return errno != 0 ? -errno : -ENOENT;
	if (setgroups(0, NULL) < 0 || setgid(entry->pw_gid) < 0 || setuid(entry->pw_uid) < 0)
		return -errno;
	return 0;
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
