/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * config_fixture.h: a folder of its own for the tests of the configuration, with the
 * files that they name, and what policy_load() said.
 */

#include "policy/policy.h"
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* cmocka needs those above it. */
#include <cmocka.h>

static char folder[] = "/tmp/postern-test-config-XXXXXX";
static char file[sizeof(folder) + 16];

/* The errors of the last load. */
static char *said;

static inline void put_file(const char *name, const char *text, mode_t mode)
{
	char path[512];
	FILE *out = NULL;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	out = fopen(path, "w");
	assert_non_null(out);
	assert_true(fputs(text, out) >= 0);
	assert_int_equal(fclose(out), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static inline int load_file(const char *path, struct policy **out)
{
	size_t bytes = 0;
	FILE *errors = NULL;
	int rc = 0;

	free(said);
	said = NULL;
	errors = open_memstream(&said, &bytes);
	assert_non_null(errors);
	rc = policy_load(path, errors, out);
	assert_int_equal(fclose(errors), 0);
	return rc;
}

static inline int load_text(const char *text, struct policy **out)
{
	put_file("postern.conf", text, 0644);
	return load_file(file, out);
}

static inline unsigned said_lines(void)
{
	unsigned count = 0;

	for (const char *at = said; *at != '\0'; at++)
		count += *at == '\n';
	return count;
}

/* Whether one message is at that line and has the fragment. */
static inline bool said_at(unsigned line, const char *fragment)
{
	char prefix[sizeof(file) + 16];
	const char *at = said;

	(void)snprintf(prefix, sizeof(prefix), "%s:%u: ", file, line);
	while (*at != '\0') {
		const size_t len = strcspn(at, "\n");
		const char *found = strstr(at, fragment);

		if (strncmp(at, prefix, strlen(prefix)) == 0 && found != NULL && found < at + len)
			return true;
		at += len + (at[len] == '\n');
	}
	return false;
}

/* One mistake in a file that is right otherwise; the lines are those of the frame below. */
struct mistake {
	const char *name;
	const char *text;
	const char *fragment;
	unsigned line; /* 0: the line of the text */
};

static inline void check_mistakes(const char *before, const char *after, unsigned line,
	const struct mistake *rows, size_t count)
{
	char text[2048];

	for (size_t i = 0; i < count; i++) {
		struct policy *policy = NULL;
		const unsigned want = rows[i].line != 0 ? rows[i].line : line;
		int rc = 0;

		(void)snprintf(text, sizeof(text), "%s%s\n%s", before, rows[i].text, after);
		rc = load_text(text, &policy);
		if (rc != -EINVAL || policy != NULL || said_lines() != 1 ||
			!said_at(want, rows[i].fragment))
			fail_msg("%s: rc %d, expected line %u and \"%s\" alone, got:\n%s",
				rows[i].name, rc, want, rows[i].fragment, said);
	}
}

#define SMALLEST                                                                            \
	"receive-connector \"in\" { bindings = \"127.0.0.1:2525\" send-connector = out }\n" \
	"send-connector \"out\" { smart-hosts = \"127.0.0.1\" }\n"

static inline int fixture_setup(void **state)
{
	char path[64];

	(void)state;
	/* A name that does not resolve may not take the time of a silent name server. */
	if (mkdtemp(folder) == NULL || setenv("RES_OPTIONS", "timeout:1 attempts:1", 1) < 0)
		return -1;
	(void)snprintf(file, sizeof(file), "%s/postern.conf", folder);
	(void)snprintf(path, sizeof(path), "%s/certs", folder);
	if (mkdir(path, 0700) < 0)
		return -1;
	put_file("good.pem", "", 0644);
	put_file("good.key", "", 0600);
	put_file("open.key", "", 0644);
	return 0;
}

static inline void empty_folder(const char *path)
{
	DIR *dir = opendir(path);
	char name[1024];

	for (struct dirent *entry = dir == NULL ? NULL : readdir(dir); entry != NULL;
		entry = readdir(dir)) {
		(void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		(void)unlink(name);
	}
	if (dir != NULL)
		(void)closedir(dir);
	(void)rmdir(path);
}

static inline int fixture_teardown(void **state)
{
	char path[64];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/certs", folder);
	empty_folder(path);
	empty_folder(folder);
	free(said);
	return 0;
}
