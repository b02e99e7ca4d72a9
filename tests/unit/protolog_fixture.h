/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * protolog_fixture.h: a protocol log in a folder of its own, at a time of the test's choice, and a
 * strict parser of what it writes.
 */

#include "relay/base/log.h"
#include "relay/base/protolog.h"
#include "relay/base/stats.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* 2026-11-21T22:46:05Z */
#define NOW 1795301165
#ifndef COLUMNS /* the tracking log has more */
#define COLUMNS 9
#endif
#define TEXT_BYTES 4194304

static struct stats counters;
static char folder[] = "/tmp/postern-test-protolog-XXXXXX";
static char place[sizeof(folder) + 16];
static _Atomic int64_t clock_ms;
static char text[TEXT_BYTES];

static inline void clock_fake(struct timespec *now)
{
	int64_t ms = atomic_load(&clock_ms);

	now->tv_sec = ms / 1000;
	now->tv_nsec = ms % 1000 * 1000000;
}

static inline void clock_set(int64_t seconds)
{
	atomic_store(&clock_ms, seconds * 1000);
}

static inline void folder_clear(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	if (dir == NULL) {
		(void)unlink(path);
		return;
	}
	while ((entry = readdir(dir)) != NULL)
		(void)unlinkat(dirfd(dir), entry->d_name, 0);
	(void)closedir(dir);
	(void)rmdir(path);
}

static inline int protolog_setup(void **state)
{
	(void)state;
	counters = (struct stats){0};
	stats_mine = &counters;
	logset_clock = clock_fake;
	clock_set(NOW);
	if (mkdtemp(folder) == NULL)
		return -1;
	(void)snprintf(place, sizeof(place), "%s/log", folder);
	return 0;
}

static inline int protolog_teardown(void **state)
{
	(void)state;
	protolog_stop();
	folder_clear(place);
	(void)rmdir(folder);
	memcpy(folder + sizeof(folder) - 7, "XXXXXX", 6);
	return 0;
}

static inline void start(
	uint64_t max_file, uint64_t max_directory, uint64_t max_age_ms, unsigned workers)
{
	struct logset_options options = {place, max_file, max_directory, max_age_ms};

	assert_int_equal(protolog_start(&options, workers), 0);
	protolog_attach(0);
}

static inline void start_usual(void)
{
	start(10485760, 262144000, 2592000000, 1);
}

static inline struct protolog session_log(enum protolog_set set)
{
	struct protolog log = {.is_on = true,
		.set = set,
		.connector = "partners",
		.fqdn = "mail.a.example",
		.session = "0a1b2c",
		.local = "192.0.2.1:25",
		.remote = "[2001:db8::1]:40000"};

	return log;
}

static inline bool exists(const char *name)
{
	char path[200];

	(void)snprintf(path, sizeof(path), "%s/%s", place, name);
	return access(path, F_OK) == 0;
}

/* The whole file, terminated. */
static inline char *slurp(const char *name)
{
	char path[200];
	ssize_t len;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", place, name);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	len = read(fd, text, sizeof(text) - 1);
	assert_true(len >= 0);
	text[len] = '\0';
	(void)close(fd);
	return text;
}

static inline void put(const char *name, size_t bytes)
{
	char path[200];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", place, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	(void)close(fd);
}

/*
 * A strict parser of RFC 4180, of our own: cuts the next row of *at into its fields (in place),
 * and moves *at behind it. The end of the text is false.
 */
static inline bool csv_next(char **at, char *fields[COLUMNS])
{
	char *in = *at, *out;
	unsigned count = 0;

	if (*in == '\0')
		return false;
	for (;;) {
		bool is_quoted = *in == '"';

		assert_true(count < COLUMNS);
		if (is_quoted)
			in++;
		fields[count++] = out = in;
		while (is_quoted ? *in != '"' || in[1] == '"' : *in != ',' && *in != '\r') {
			assert_true(*in != '\0' && (uint8_t)*in >= ' ' && *in != 0x7f);
			assert_true(is_quoted || *in != '"');
			if (*in == '"')
				in++;
			*out++ = *in++;
		}
		if (is_quoted)
			in++;
		assert_true(*in == ',' || *in == '\r');
		if (*in == '\r')
			break;
		in++;
		*out = '\0';
	}
	assert_int_equal(in[1], '\n');
	*out = '\0';
	*at = in + 2;
	assert_int_equal(count, COLUMNS);
	return true;
}

/* Skips the five lines of the header, which must be there. */
static inline char *csv_rows(const char *name, const char *type)
{
	static const char fields[] = "#Fields: date-time,connector-id,session-id,sequence-number,"
				     "local-endpoint,remote-endpoint,event,data,context\r\n";
	static const char *const heads[] = {
		"#Software: Postern\r\n", "#Version: ", "#Log-Type: ", "#Date: ", fields};
	char *at = slurp(name);

	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(strncmp(at, heads[i], strlen(heads[i])), 0);
		if (i == 2)
			assert_int_equal(strncmp(at + 11, type, strlen(type)), 0);
		at = strstr(at, "\r\n");
		assert_non_null(at);
		at += 2;
	}
	return at;
}

static inline char *receive_rows(void)
{
	return csv_rows("RECV2026112122-1.LOG", "SMTP Receive Protocol Log\r\n");
}

/* The next row has this sequence number, event, data and context. */
static inline void expect(
	char **at, const char *sequence, const char *event, const char *data, const char *context)
{
	char *fields[COLUMNS] = {NULL};

	assert_true(csv_next(at, fields));
	assert_string_equal(fields[3], sequence);
	assert_string_equal(fields[6], event);
	assert_string_equal(fields[7], data);
	assert_string_equal(fields[8], context);
}

#define ROW_TEST(name) cmocka_unit_test_setup_teardown(name, protolog_setup, protolog_teardown)
