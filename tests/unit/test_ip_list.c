/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_ip_list.c: the files of partners' lists: what is read and written, what is refused, and
 * that a file which cannot be written stays as it was.
 */

#include "tests/unit/ip_list_fixture.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

static char folder[64];
static char path[128];

static int group_setup(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "/tmp/postern-test-ip-list-XXXXXX");
	if (mkdtemp(folder) == NULL || chmod(folder, 0755) < 0)
		return -1;
	return ip_list_path(folder, "fabrikam", path, sizeof(path)) ? 0 : -1;
}

static int group_teardown(void **state)
{
	(void)state;
	(void)unlink(path);
	return rmdir(folder);
}

static void file_put(const char *text, size_t len)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
}

static void file_get(char *out, size_t out_bytes)
{
	FILE *file = fopen(path, "r");
	size_t len = 0;

	assert_non_null(file);
	len = fread(out, 1, out_bytes - 1, file);
	out[len] = '\0';
	(void)fclose(file);
}

static char said[4096];

static int read_list(struct ip_list *out)
{
	FILE *errors = fmemopen(said, sizeof(said), "w");
	int rc = 0;

	assert_non_null(errors);
	memset(said, 0, sizeof(said));
	rc = ip_list_read(path, errors, out);
	(void)fclose(errors);
	return rc;
}

static const char *const some[] = {
	"2001:db8::/32", "10.0.0.0/8", "!10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16", NULL};
static const char some_text[] =
	"# Postern: addresses of partner \"fabrikam\"; "
	"change them with \"posternctl partner fabrikam ip\".\n"
	"# generation 17\n10.0.0.0/8\n!10.1.0.0/16\n10.1.2.0/24\n10.2.0.0/16\n2001:db8::/32\n";

static void check_is_some(uint64_t generation)
{
	struct ip_list list = {0}, expected = list_of(1, some);
	struct ip_list_diff diff = {0};

	assert_int_equal(read_list(&list), 0);
	assert_string_equal(said, "");
	assert_int_equal(list.generation, generation);
	ip_list_compare(list.set, expected.set, &diff, NULL, NULL);
	assert_true(diff.added == 0 && diff.removed == 0 && diff.kept == 5);
	ip_list_clear(&list);
	ip_list_clear(&expected);
	ip_list_clear(&expected);
	assert_null(list.set);
}

/* ---- names */

static void test_names(void **state)
{
	char name[DOOR_NAME_BYTES + 1], out[32];

	(void)state;
	assert_true(ip_list_name_is_valid("fabrikam"));
	assert_true(ip_list_name_is_valid("Fabrikam GmbH & Co. (EU)"));
	assert_false(ip_list_name_is_valid(""));
	assert_false(ip_list_name_is_valid("."));
	assert_false(ip_list_name_is_valid(".."));
	assert_false(ip_list_name_is_valid(".hidden"));
	assert_false(ip_list_name_is_valid("a/b"));
	assert_false(ip_list_name_is_valid("a\nb"));
	assert_false(ip_list_name_is_valid("a\x7f"));
	memset(name, 'a', sizeof(name));
	name[DOOR_NAME_BYTES] = '\0';
	assert_false(ip_list_name_is_valid(name));
	name[DOOR_NAME_BYTES - 1] = '\0';
	assert_true(ip_list_name_is_valid(name));
	assert_true(ip_list_path("/etc/lists", "a", out, sizeof(out)));
	assert_string_equal(out, "/etc/lists/a.list");
	assert_true(ip_list_path("/etc/lists", "a", out, sizeof("/etc/lists/a.list")));
	assert_false(ip_list_path("/etc/lists", "a", out, sizeof("/etc/lists/a.list") - 1));
}

/* ---- reading */

static void test_absent(void **state)
{
	struct ip_list list = {.generation = 9};

	(void)state;
	assert_int_equal(read_list(&list), 0);
	assert_int_equal(list.generation, 0);
	assert_int_equal(cidr_count(list.set), 0);
	ip_list_clear(&list);
	/* Nor is there a folder. */
	assert_int_equal(ip_list_read("/nonexistent/folder/a.list", NULL, &list), 0);
	assert_int_equal(list.generation, 0);
	ip_list_clear(&list);
}

static void test_read(void **state)
{
	static const struct {
		const char *text;
		uint64_t generation;
	} rows[] = {
		{some_text, 17},
		{"10.0.0.0/8\n10.2.0.0/16\n!10.1.0.0/16\n10.1.2.0/24\n2001:db8::/32", 1},
		{"# generation 5\r\n2001:db8::/32\r\n!10.1.0.0/16\r\n10.1.2.0-10.1.2.255\r\n"
		 "10.0.0.0/8\r\n10.2.0.0/16",
			5},
		{"# generation 18446744073709551615\n10.0.0.0/8\n10.0.0.0/8\n10.2.0.0/16\n"
		 "!10.1.0.0/16\n10.1.2.7/24\n2001:db8::/32",
			UINT64_MAX},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		file_put(rows[i].text, strlen(rows[i].text));
		check_is_some(rows[i].generation);
	}
	(void)unlink(path);
}

static void test_read_mistakes(void **state)
{
	static const struct {
		const char *text, *words;
	} rows[] = {
		{"10.0.0.1\nfabrikam.example\n", ":2: \"fabrikam.example\" is no address"},
		{"10.0.0.0/8 OK\n", ":1: \"10.0.0.0/8 OK\" is more than one word"},
		{"[\"10.0.0.1\"]", ":1: \"[?10.0.0.1?]\" is no address"},
		{"10.0.0.1\n!10.0.0.1", ":2: 10.0.0.1 is excluded here and let in by line 1"},
		{"# generation x\n10.0.0.1\n", ":1: a generation that is no number, expected"},
		{"# generation 0\n", ":1: a generation that is no number"},
		{"# generation 99999999999999999999\n", "no number"},
		{"# generation -1\n", "no number"},
		{"# generation 1 2\n", "no number"},
		{"# generation 1\n# generation 2\n", ":2: a second generation, expected one"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		struct ip_list list = {.generation = 7};

		file_put(rows[i].text, strlen(rows[i].text));
		assert_int_equal(read_list(&list), -EINVAL);
		assert_int_equal(strncmp(said, path, strlen(path)), 0);
		if (strstr(said, rows[i].words) == NULL)
			fail_msg("row %zu says %s", i, said);
		assert_true(list.set == NULL && list.generation == 7);
	}
	file_put("10.0.0.1\n10.0\0.1\n", 17);
	assert_int_equal(read_list(&(struct ip_list){0}), -EINVAL);
	assert_non_null(strstr(said, ":2: a NUL byte"));
	(void)unlink(path);
}

/* What is no file, and what may not be read. */
static void test_read_odd(void **state)
{
	struct ip_list list = {0};

	(void)state;
	assert_int_equal(mkdir(path, 0755), 0);
	assert_int_equal(read_list(&list), -EISDIR);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(read_list(&list), -ENOTSUP);
	assert_int_equal(unlink(path), 0);
	assert_null(list.set);
}

/* In a child of no rights; 0: what was expected. */
static int as_nobody(bool (*is_right)(void))
{
	const pid_t child = fork();
	int status = 0;

	assert_true(child >= 0);
	if (child == 0) {
		if (setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
			_exit(2);
		_exit(is_right() ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool reading_is_refused(void)
{
	struct ip_list list = {0};

	return ip_list_read(path, NULL, &list) == -EACCES && list.set == NULL;
}

static void test_read_no_permission(void **state)
{
	(void)state;
	file_put(some_text, strlen(some_text));
	assert_int_equal(chmod(path, 0000), 0);
	if (geteuid() == 0)
		assert_int_equal(as_nobody(reading_is_refused), 0);
	else
		assert_true(reading_is_refused());
	(void)unlink(path);
}

/* ---- writing */

static unsigned file_mode(void)
{
	struct stat status = {0};

	assert_int_equal(stat(path, &status), 0);
	return status.st_mode & 0777;
}

static void check_no_rest(void)
{
	char rest[160];

	(void)snprintf(rest, sizeof(rest), "%s.new", path);
	assert_int_equal(access(rest, F_OK), -1);
	assert_int_equal(errno, ENOENT);
}

static void test_write(void **state)
{
	struct ip_list list = list_of(17, some);
	char text[1024], rest[160];

	(void)state;
	assert_int_equal(ip_list_write(path, "fabrikam", &list), 0);
	file_get(text, sizeof(text));
	assert_string_equal(text, some_text);
	assert_int_equal(file_mode(), 0640);
	check_no_rest();
	check_is_some(17);
	/* The mode stays, whatever the umask; and a rest of an earlier attempt is no hindrance. */
	assert_int_equal(chmod(path, 0664), 0);
	(void)snprintf(rest, sizeof(rest), "%s.new", path);
	assert_int_equal(close(open(rest, O_WRONLY | O_CREAT, 0444)), 0);
	list.generation = 18;
	assert_int_equal(ip_list_write(path, "fabrikam", &list), 0);
	assert_int_equal(file_mode(), 0664);
	check_no_rest();
	check_is_some(18);
	ip_list_clear(&list);
	(void)unlink(path);
}

/* A path without a folder, and one of the root. */
static void test_write_places(void **state)
{
	struct ip_list list = list_of(1, (const char *const[]){"10.0.0.1", NULL});
	char here[PATH_MAX], name[NAME_MAX + 1];

	(void)state;
	assert_non_null(getcwd(here, sizeof(here)));
	assert_int_equal(chdir(folder), 0);
	assert_int_equal(ip_list_write("fabrikam.list", "fabrikam", &list), 0);
	assert_int_equal(chdir(here), 0);
	assert_int_equal(access(path, F_OK), 0);
	(void)unlink(path);
	assert_int_equal(ip_list_write("/", "x", &list), -EISDIR);
	assert_int_equal(ip_list_write("/nonexistent/a.list", "a", &list), -ENOENT);
	memset(name, 'a', sizeof(name));
	name[NAME_MAX] = '\0';
	assert_int_equal(ip_list_write(name, "a", &list), -ENAMETOOLONG);
	ip_list_clear(&list);
}

/* What is in the way stays. */
static void test_write_odd(void **state)
{
	struct ip_list list = list_of(1, (const char *const[]){"10.0.0.1", NULL});
	struct stat status = {0};

	(void)state;
	assert_int_equal(mkdir(path, 0755), 0);
	assert_int_equal(ip_list_write(path, "fabrikam", &list), -EISDIR);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(symlink("elsewhere", path), 0);
	assert_int_equal(ip_list_write(path, "fabrikam", &list), -ELOOP);
	assert_int_equal(lstat(path, &status), 0);
	assert_true(S_ISLNK(status.st_mode));
	assert_int_equal(unlink(path), 0);
	check_no_rest();
	ip_list_clear(&list);
}

/* As root: the owner stays, too; a first file belongs to the folder's. */
static void test_write_owner(void **state)
{
	struct ip_list list = list_of(1, (const char *const[]){"10.0.0.1", NULL});
	struct stat status = {0};

	(void)state;
	if (geteuid() != 0) {
		ip_list_clear(&list);
		print_message("only root can give files away\n");
		skip();
	}
	assert_int_equal(chown(folder, 4711, 4712), 0);
	assert_int_equal(ip_list_write(path, "fabrikam", &list), 0);
	assert_int_equal(stat(path, &status), 0);
	assert_true(status.st_uid == 4711 && status.st_gid == 4712);
	assert_int_equal(chown(path, 4713, 4714), 0);
	assert_int_equal(ip_list_write(path, "fabrikam", &list), 0);
	assert_int_equal(stat(path, &status), 0);
	assert_true(status.st_uid == 4713 && status.st_gid == 4714);
	assert_int_equal(chown(folder, 0, 0), 0);
	ip_list_clear(&list);
	(void)unlink(path);
}

/* What writing says, in a child. */
static int write_empty(void)
{
	struct ip_list list = {.generation = 2};
	int rc = cidr_create(&list.set);

	if (rc == 0)
		rc = ip_list_write(path, "fabrikam", &list);
	ip_list_clear(&list);
	return rc;
}

static bool writing_is_refused(void)
{
	return write_empty() == -EACCES;
}

/* Nobody's folder, root's file: it cannot be given back, so nobody's group gets nothing. */
static bool writing_takes_over(void)
{
	struct stat status = {0};

	return write_empty() == 0 && stat(path, &status) == 0 && status.st_uid == NOBODY &&
	       status.st_gid == NOBODY && (status.st_mode & 0777) == 0604;
}

static void test_write_no_permission(void **state)
{
	(void)state;
	if (geteuid() != 0) {
		print_message("only root can become nobody\n");
		skip();
	}
	file_put(some_text, strlen(some_text));
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(as_nobody(writing_is_refused), 0);
	check_is_some(17);
	check_no_rest();
	assert_int_equal(chmod(path, 0464), 0);
	assert_int_equal(chown(folder, NOBODY, NOBODY), 0);
	assert_int_equal(as_nobody(writing_takes_over), 0);
	assert_int_equal(chown(folder, 0, 0), 0);
	(void)unlink(path);
}

/* A file system of its own, in a child with its own mounts. */
static bool tmpfs_mount(const char *options)
{
	return unshare(CLONE_NEWNS) == 0 &&
	       mount("none", "/", "none", MS_REC | MS_PRIVATE, "") == 0 &&
	       mount("tmpfs", folder, "tmpfs", 0, options) == 0;
}

/* 0, or what went wrong. A first list is written, then no other can be. */
static int tmpfs_write(unsigned long remount, struct ip_list *list, struct ip_list *again)
{
	struct ip_list_diff diff = {0};
	char rest[160];

	if (cidr_create(&list->set) < 0 || ip_list_put_text(list->set, "10.0.0.0/8") < 0 ||
		ip_list_write(path, "fabrikam", list) < 0)
		return 1;
	if (remount != 0 && mount("none", folder, "none", MS_REMOUNT | remount, "") < 0)
		return 2;
	list->generation = 2;
	for (uint32_t i = 0; i < 65536; i++) {
		struct prefix prefix = {
			.ip.bytes = {11, (uint8_t)(i >> 8), (uint8_t)i, 1}, .bits = 32};

		if (cidr_put(list->set, &prefix, (struct door_value){0}) < 0)
			return 3;
	}
	if (ip_list_write(path, "fabrikam", list) != (remount != 0 ? -EROFS : -ENOSPC))
		return 4;
	if (ip_list_read(path, NULL, again) < 0 || again->generation != 1)
		return 5;
	ip_list_compare(again->set, list->set, &diff, NULL, NULL);
	if (diff.kept != 1 || diff.removed != 0 || diff.added != 65536)
		return 6;
	(void)snprintf(rest, sizeof(rest), "%s.new", path);
	return access(rest, F_OK) < 0 && errno == ENOENT ? 0 : 7;
}

static void check_tmpfs(const char *options, unsigned long remount)
{
	const pid_t child = fork();
	int status = 0;

	assert_true(child >= 0);
	if (child == 0) {
		struct ip_list list = {.generation = 1}, again = {0};

		if (!tmpfs_mount(options))
			_exit(77);
		status = tmpfs_write(remount, &list, &again);
		ip_list_clear(&list);
		ip_list_clear(&again);
		_exit(status);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("no file system of our own can be mounted here\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_write_full(void **state)
{
	(void)state;
	check_tmpfs("size=64k", 0);
}

static void test_write_read_only(void **state)
{
	(void)state;
	check_tmpfs("size=8m", MS_RDONLY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_read_mistakes),
		cmocka_unit_test(test_read_odd),
		cmocka_unit_test(test_read_no_permission),
		cmocka_unit_test(test_write),
		cmocka_unit_test(test_write_places),
		cmocka_unit_test(test_write_odd),
		cmocka_unit_test(test_write_owner),
		cmocka_unit_test(test_write_no_permission),
		cmocka_unit_test(test_write_full),
		cmocka_unit_test(test_write_read_only),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
