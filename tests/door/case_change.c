/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_change.c: lists of partners that change while the relay runs, by its control socket. What an
 * answer says is so from then on.
 */

#include "tests/door/case.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- one prefix */

static void change_one(bool by_kernel)
{
	static const struct visit before[] = {
		{.from = "203.0.113.7", .to = CASE_V4, .greeting = "friends"},
		{.from = "198.51.100.7", .to = CASE_V4},
		{.from = "2001:db8:7::7", .to = CASE_V6},
	};
	static const struct visit added[] = {
		{.from = "198.51.100.7", .to = CASE_V4, .greeting = "friends"},
		{.from = "2001:db8:7::7", .to = CASE_V6, .greeting = "friends"},
		{.from = "198.51.101.7", .to = CASE_V4},
	};
	static const struct visit excluded[] = {
		{.from = "198.51.100.7", .to = CASE_V4},
		{.from = "198.51.100.8", .to = CASE_V4, .greeting = "friends"},
	};
	struct daemon_answer answer;
	struct daemon daemon;

	case_begin(&daemon, by_kernel, "203.0.113.0/24\n");
	daemon_start(&daemon);
	VISIT_ALL(before, by_kernel);
	daemon_change(&daemon, "partner-ip-add", "198.51.100.0/24\n", NULL, &answer);
	case_check(answer.generation == 2 && answer.added == 1 && answer.removed == 0,
		"the answer to add: %s", answer.raw);
	daemon_change(&daemon, "partner-ip-add", "2001:db8:7::/48\n", NULL, &answer);
	VISIT_ALL(added, by_kernel);
	daemon_change(&daemon, "partner-ip-add", "!198.51.100.7\n", NULL, NULL);
	VISIT_ALL(excluded, by_kernel);
	daemon_change(&daemon, "partner-ip-remove", "!198.51.100.7\n", NULL, NULL);
	VISIT_ALL(added, by_kernel);
	daemon_change(&daemon, "partner-ip-remove", "198.51.100.0/24\n", NULL, NULL);
	daemon_change(&daemon, "partner-ip-remove", "2001:db8:7::/48\n", NULL, &answer);
	case_check(answer.generation == 7 && answer.removed == 1, "the answer to remove: %s",
		answer.raw);
	VISIT_ALL(before, by_kernel);
	/* A restart keeps it. */
	daemon_change(&daemon, "partner-ip-add", "198.51.100.0/24\n2001:db8:7::/48\n", NULL, NULL);
	VISIT_ALL(added, by_kernel);
	daemon_kill(&daemon);
	daemon_start(&daemon);
	VISIT_ALL(added, by_kernel);
	daemon_stop(&daemon);
}

/* ---- mistakes, which change nothing */

static void change_ask(const struct daemon *daemon, const char *request, const char *lines,
	const char *error, unsigned long generation)
{
	struct daemon_answer answer;
	struct text bytes = {0};

	text_add(&bytes, lines, strlen(lines));
	case_check(daemon_ask(daemon, request, &bytes, &answer, NULL), "%s: no answer", request);
	case_check(answer.ok == (error == NULL) &&
			   (error == NULL || strcmp(answer.error, error) == 0) &&
			   (error == NULL || answer.message[0] != '\0') &&
			   (generation == 0 || answer.generation == generation),
		"%s: expected %s, generation %lu, got: %s", request, error == NULL ? "ok" : error,
		generation, answer.raw);
	text_free(&bytes);
}

static void change_mistakes(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "203.0.113.7", .to = CASE_V4, .greeting = "friends"},
		{.from = "198.51.100.7", .to = CASE_V4},
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
	};
	struct daemon daemon;

	case_begin(&daemon, by_kernel, "203.0.113.0/24\n");
	daemon_start(&daemon);
	daemon_change(&daemon, "partner-ip-add", "203.0.113.0/24\n", "exists", NULL);
	daemon_change(&daemon, "partner-ip-remove", "203.0.113.0/25\n", "absent", NULL);
	daemon_change(&daemon, "partner-ip-add", "no address\n", "bad-request", NULL);
	change_ask(&daemon, "{\"command\": \"partner-ip-add\", \"partner\": \"strangers\"}",
		"198.51.100.0/24\n", "unknown-partner", 0);
	change_ask(&daemon, "{\"command\": \"partner-ip-dance\", \"partner\": \"friends\"}", "",
		"bad-request", 0);
	/* Two operators: the second has not seen what the first has done. */
	change_ask(&daemon,
		"{\"command\": \"partner-ip-add\", \"partner\": \"friends\", "
		"\"expect_generation\": 7}",
		"198.51.100.0/24\n", "expected-generation", 1);
	change_ask(&daemon,
		"{\"command\": \"partner-ip-add\", \"partner\": \"friends\", \"dry_run\": true}",
		"198.51.100.0/24\n", NULL, 0);
	VISIT_ALL(visits, by_kernel);
	change_ask(&daemon,
		"{\"command\": \"partner-ip-add\", \"partner\": \"friends\", "
		"\"expect_generation\": 1}",
		"198.51.100.0/24\n", NULL, 2);
	VISIT_ALL(((const struct visit[]){
			  {.from = "198.51.100.7", .to = CASE_V4, .greeting = "friends"}}),
		by_kernel);
	daemon_stop(&daemon);
}

/* ---- sessions of who is removed */

static int change_session(const char *from)
{
	struct knock session = knock(from, CASE_V4, DAEMON_PORT, true);

	case_check(session.fd >= 0, "%s: no session", from);
	return session.fd;
}

static void change_sessions(bool by_kernel)
{
	struct daemon daemon;
	char text[256];
	int kept;
	int ended;
	int other;

	case_begin(&daemon, by_kernel, "203.0.113.0/24\n198.51.100.0/24\n");
	daemon_start(&daemon);
	kept = change_session("203.0.113.7");
	ended = change_session("198.51.100.7");
	other = change_session("10.1.0.1");
	/* Who is removed goes on; nothing that is established is looked at again. */
	daemon_change(&daemon, "partner-ip-remove", "203.0.113.0/24\n", NULL, NULL);
	case_check(knock_lives(kept), "a session was dropped with its prefix");
	/* Unless that is asked for. */
	change_ask(&daemon,
		"{\"command\": \"partner-ip-remove\", \"partner\": \"friends\", "
		"\"end_sessions\": true}",
		"198.51.100.0/24\n", NULL, 0);
	case_check(recv(ended, text, sizeof(text), 0) >= 0 || !knock_lives(ended),
		"a session was not ended");
	while (recv(ended, text, sizeof(text), 0) > 0)
		;
	case_check(!knock_lives(ended), "a session that was ended lives");
	case_check(knock_lives(other), "a session of others was ended");
	daemon_stop(&daemon);
}

/* ---- the whole set */

static void change_replace(bool by_kernel)
{
	static const struct visit before[] = {
		{.from = "203.0.113.7", .to = CASE_V4, .greeting = "friends"},
		{.from = "192.0.2.7", .to = CASE_V4, .greeting = "friends"},
		{.from = "198.51.100.7", .to = CASE_V4},
		{.from = "2001:db8:7::7", .to = CASE_V6},
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
	};
	static const struct visit after[] = {
		{.from = "203.0.113.7", .to = CASE_V4},
		{.from = "192.0.2.7", .to = CASE_V4, .greeting = "friends"},
		{.from = "198.51.100.7", .to = CASE_V4, .greeting = "friends"},
		{.from = "2001:db8:7::7", .to = CASE_V6, .greeting = "friends"},
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
	};
	struct daemon_answer answer;
	struct text list = {0};
	struct daemon daemon;
	int session;

	case_begin(&daemon, by_kernel, "203.0.113.0/24\n192.0.2.0/28\n");
	daemon_start(&daemon);
	session = change_session("203.0.113.7");
	for (unsigned i = 0; i < 5; i++) {
		VISIT_ALL(before, by_kernel);
		daemon_change(&daemon, "partner-ip-replace",
			"198.51.100.0/24\n192.0.2.0/28\n2001:db8:7::/48\n", NULL, &answer);
		case_check(answer.added == 2 && answer.removed == 1 && answer.kept == 1,
			"the answer to replace: %s", answer.raw);
		VISIT_ALL(after, by_kernel);
		daemon_change(&daemon, "partner-ip-replace", "203.0.113.0/24\n192.0.2.0/28\n", NULL,
			NULL);
	}
	/* A line that is wrong, and nothing of it is done. */
	daemon_change(
		&daemon, "partner-ip-replace", "198.51.100.0/24\nwrong\n", "bad-request", &answer);
	VISIT_ALL(before, by_kernel);
	case_check(
		daemon_ask(&daemon, "{\"command\": \"partner-ip-list\", \"partner\": \"friends\"}",
			NULL, &answer, &list) &&
			answer.ok && answer.count == 2 &&
			strstr(list.data, "203.0.113.0/24\n") != NULL &&
			strstr(list.data, "192.0.2.0/28\n") != NULL,
		"the list: %s", answer.raw);
	/* Nobody is left. */
	daemon_change(&daemon, "partner-ip-replace", "", NULL, NULL);
	VISIT_ALL(((const struct visit[]){{.from = "203.0.113.7", .to = CASE_V4},
			  {.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"}}),
		by_kernel);
	case_check(knock_lives(session), "a session was dropped");
	daemon_stop(&daemon);
}

/* ---- connection-rate-limit */

static void change_rate(bool by_kernel)
{
	struct daemon_door door;
	struct daemon daemon;
	unsigned served = 0;
	unsigned refused = 0;

	daemon_begin(&daemon, &(struct daemon_options){.bpf = case_bpf(by_kernel)});
	daemon_connector(
		&daemon, "friends", CASE_BINDINGS, CASE_RANGES "\tconnection-rate-limit = 10\n");
	daemon_start(&daemon);
	for (unsigned i = 0; i < 60; i++) {
		enum knock_end end = knock("10.1.0.1", CASE_V4, DAEMON_PORT, false).end;

		served += end == KNOCK_SERVED;
		refused +=
			by_kernel ? end == KNOCK_REFUSED : end == KNOCK_CLOSED || end == KNOCK_BUSY;
	}
	case_check(served + refused == 60 && served >= 1 && refused >= 1,
		"of 60 connections %u were served and %u refused, at 10 a minute", served, refused);
	/* Others have not come so often; a whole /64 is one source. */
	VISIT_ALL(
		((const struct visit[]){{.from = "10.1.0.2", .to = CASE_V4, .greeting = "friends"},
			{.from = "2001:db8:1::1", .to = CASE_V6, .greeting = "friends"}}),
		by_kernel);
	if (by_kernel) {
		daemon_door(&daemon, &door);
		case_check(door.rate == refused, "%lu refusals for the rate, not %u", door.rate,
			refused);
	}
	daemon_stop(&daemon);
	case_note("%u of 60 served", served);
}

static const struct door_case rows[] = {
	{"change/one", change_one, BY_KERNEL | BY_USER, 0},
	{"change/mistakes", change_mistakes, BY_KERNEL | BY_USER, 0},
	{"change/sessions", change_sessions, BY_KERNEL | BY_USER, 0},
	{"change/replace", change_replace, BY_KERNEL | BY_USER, 0},
	{"change/rate", change_rate, BY_KERNEL | BY_USER, 0},
};

const struct door_table case_change = {rows, COUNT_OF(rows)};
