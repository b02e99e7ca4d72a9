/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * doorman_fixture.h: a doorman with the world of a configuration in a folder of its own, and short
 * words for changing lists and asking.
 */

#include "relay/doorman_private.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#define LAB_PIN "1111111111111111111111111111111111111111111111111111111111111111"

/* Three partners; the list of the last is named by no connector. */
#define LAB_PARTNERS                                                                \
	"partner fabrikam { domains = fabrikam.example spki-pins = " LAB_PIN " }\n" \
	"partner contoso { domains = contoso.example spki-pins = " LAB_PIN " }\n"   \
	"partner wingtip { domains = wingtip.example spki-pins = " LAB_PIN " }\n"   \
	"send-connector out { smart-hosts = \"127.0.0.1:9\" }\n"
#define LAB_DOORS                                                                                  \
	"receive-connector near { bindings = \"127.0.0.1:2525\" tls = none send-connector = out\n" \
	" remote-ip-ranges = \"10.1.0.0/16\"\n"                                                    \
	" remote-ip-partners = { fabrikam, contoso } }\n"                                          \
	"receive-connector six { bindings = \"[::1]:2525\" tls = none send-connector = out\n"      \
	" remote-ip-partners = fabrikam }\n"

static char doorman_folder[40];
static struct world *doorman_world;
static struct doorman *doorman;
static struct doorman_result changed; /* by the last change() */
static char complaint[4096];          /* of the last start or reload */

static inline const char *lab_path(const char *name)
{
	static char path[2][PATH_MAX];
	static unsigned turn;

	turn ^= 1;
	(void)snprintf(path[turn], sizeof(path[turn]), "%s/%s", doorman_folder, name);
	return path[turn];
}

static inline void lab_write(const char *name, const char *text)
{
	FILE *file = fopen(lab_path(name), "we");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static inline const char *lab_read(const char *name)
{
	static char text[8192];
	FILE *file = fopen(lab_path(name), "re");

	text[0] = '\0';
	if (file == NULL)
		return text;
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	assert_int_equal(fclose(file), 0);
	return text;
}

static inline void lab_configure(const char *bpf, const char *pins, const char *rest)
{
	char text[8192];

	(void)snprintf(text, sizeof(text),
		"transport { fqdn = mx.adatum.example bpf = %s bpf-pin-folder = \"%s\"\n"
		" partner-lists = \"%s/lists\" }\n" LAB_PARTNERS "%s",
		bpf, pins, doorman_folder, rest);
	lab_write("postern.conf", text);
}

static inline int lab_load(struct gate_ids *ids, struct world **out)
{
	FILE *errors = fmemopen(complaint, sizeof(complaint), "w");
	int rc = world_create(lab_path("postern.conf"), ids, errors, out);

	assert_int_equal(fclose(errors), 0);
	return rc;
}

/* What doorman_create() says. */
static inline int lab_start(void)
{
	FILE *errors;
	int rc;

	if (lab_load(NULL, &doorman_world) < 0)
		fail_msg("%s", complaint);
	memset(complaint, 0, sizeof(complaint));
	errors = fmemopen(complaint, sizeof(complaint), "w");
	assert_non_null(errors);
	rc = doorman_create(doorman_world, errors, &doorman);
	assert_int_equal(fclose(errors), 0);
	if (rc < 0)
		world_release(&doorman_world);
	return rc;
}

static inline void lab_stop(void)
{
	doorman_destroy(&doorman);
	world_release(&doorman_world);
}

static inline int lab_reload(bool is_finished)
{
	struct world *world = NULL;
	FILE *errors;
	int rc = lab_load(doorman_ids(doorman), &world);

	if (rc < 0)
		fail_msg("%s", complaint);
	memset(complaint, 0, sizeof(complaint));
	errors = fmemopen(complaint, sizeof(complaint), "w");
	doorman_reload_begin(doorman);
	rc = doorman_reload_prepare(doorman, world, errors);
	assert_int_equal(fclose(errors), 0);
	if (rc == 0 && is_finished) {
		doorman_reload_finish(doorman, world);
		world_release(&doorman_world);
		doorman_world = world;
		return 0;
	}
	doorman_reload_abandon(doorman);
	world_release(&world);
	return rc;
}

static inline int lab_folder_make(void **state)
{
	(void)state;
	(void)snprintf(doorman_folder, sizeof(doorman_folder), "/tmp/postern-doorman.XXXXXX");
	assert_non_null(mkdtemp(doorman_folder));
	assert_int_equal(mkdir(lab_path("lists"), 0700), 0);
	return 0;
}

static inline int lab_folder_remove(void **state)
{
	static const char *const names[] = {
		"lists/fabrikam.list", "lists/contoso.list", "lists/wingtip.list", "postern.conf"};

	(void)state;
	lab_stop();
	doorman_seam = (struct doorman_seam){0};
	for (unsigned i = 0; i < COUNT_OF(names); i++)
		(void)unlink(lab_path(names[i]));
	assert_int_equal(rmdir(lab_path("lists")), 0);
	assert_int_equal(rmdir(doorman_folder), 0);
	return 0;
}

/* No file may have a byte, as if there was no room on the disk. */
static inline void disk_fill(void)
{
	const struct rlimit none = {.rlim_cur = 0, .rlim_max = RLIM_INFINITY};

	(void)fflush(NULL);
	assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
}

static inline void disk_empty(void)
{
	const struct rlimit all = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};

	assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
}

static inline struct cidr *entries_of(const char *lines)
{
	FILE *in = lines[0] == '\0' ? fopen("/dev/null", "re")
				    : fmemopen((char *)(uintptr_t)lines, strlen(lines), "r");
	struct cidr *set = NULL;

	assert_non_null(in);
	assert_int_equal(ip_list_import(in, "test", IP_LIST_PLAIN, stderr, NULL, &set), 0);
	assert_int_equal(fclose(in), 0);
	return set;
}

static inline int change_with(const struct doorman_request *given, const char *lines)
{
	struct cidr *entries = entries_of(lines);
	struct doorman_request request = *given;
	int rc;

	request.entries = entries;
	request.who = "uid=0 pid=1 user=root";
	rc = doorman_change(doorman, &request, &changed);
	cidr_destroy(&entries);
	return rc;
}

static inline int change(enum doorman_verb verb, const char *partner, const char *lines)
{
	return change_with(
		&(const struct doorman_request){.verb = verb, .partner = partner}, lines);
}

static inline void lab_address(const char *text, uint16_t port, struct address *out)
{
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct ip ip;

	assert_int_equal(ip_parse(text, &ip), 0);
	*out = (struct address){0};
	if (ip.is_v6) {
		memcpy(&v6.sin6_addr, ip.bytes, 16);
		memcpy(&out->sockaddr, &v6, sizeof(v6));
		out->len = sizeof(v6);
	} else {
		memcpy(&v4.sin_addr, ip.bytes, 4);
		memcpy(&out->sockaddr, &v4, sizeof(v4));
		out->len = sizeof(v4);
	}
}

/* "near/fabrikam", "near", "!fabrikam", "nobody" */
static inline const char *asked_at(const char *peer, const char *local, uint16_t port)
{
	static char text[300];
	struct gate_answer answer = {0};
	struct address at;
	struct ip ip;
	bool may_enter;

	lab_address(local, port, &at);
	assert_int_equal(ip_parse(peer, &ip), 0);
	may_enter = doorman_ask(doorman, doorman_world, &at, &ip, 0, &answer);
	if (answer.is_excluded)
		(void)snprintf(text, sizeof(text), "!%s", answer.partner->name);
	else if (!may_enter)
		(void)snprintf(text, sizeof(text), "nobody");
	else
		(void)snprintf(text, sizeof(text), "%s%s%s", answer.connector->name,
			answer.partner == NULL ? "" : "/",
			answer.partner == NULL ? "" : answer.partner->name);
	return text;
}

static inline const char *asked(const char *peer)
{
	return asked_at(peer, strchr(peer, ':') == NULL ? "127.0.0.1" : "::1", 2525);
}
