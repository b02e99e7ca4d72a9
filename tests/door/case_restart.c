/* SPDX-License-Identifier: Apache-2.0 */

/*
 * case_restart.c: while the relay is down, starts again, is replaced by a newer one, or reads its
 * configuration anew, strangers stay out. Each knocks all the time, and may not get in once.
 */

#include "tests/door/case.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RESTARTS 6

/* ---- down */

/* A ring, and the listeners that it holds, may outlive its process by a moment. */
static void restart_await_silence(void)
{
	uint64_t until = now_ms() + (uint64_t)10000 * suite.slow;

	while (knock("10.1.0.1", CASE_V4, DAEMON_PORT, false).end != KNOCK_REFUSED ||
		knock("2001:db8:1::1", CASE_V6, DAEMON_PORT, false).end != KNOCK_REFUSED) {
		case_check(now_ms() < until, "somebody goes on listening");
		pause_ms(2);
	}
}

static void restart_down(bool by_kernel)
{
	static const struct visit up[] = {
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
		{.from = "10.2.0.1", .to = CASE_V4},
		{.from = "2001:db8:1::1", .to = CASE_V6, .greeting = "friends"},
		{.from = "2001:db8:2::1", .to = CASE_V6},
	};
	static const struct visit down[] = {
		{.from = "10.1.0.1", .to = CASE_V4},
		{.from = "10.2.0.1", .to = CASE_V4},
		{.from = "2001:db8:1::1", .to = CASE_V6},
		{.from = "2001:db8:2::1", .to = CASE_V6},
	};
	struct daemon daemon;

	case_begin(&daemon, by_kernel, NULL);
	daemon_start(&daemon);
	VISIT_ALL(up, by_kernel);
	daemon_stop(&daemon);
	restart_await_silence();
	VISIT_ALL(down, true);
	daemon_start(&daemon);
	VISIT_ALL(up, by_kernel);
	daemon_kill(&daemon);
	restart_await_silence();
	VISIT_ALL(down, true);
	daemon_start(&daemon);
	VISIT_ALL(up, by_kernel);
	daemon_stop(&daemon);
}

/* What is pinned decides, whoever listens: here that is the case itself. */
static void restart_pins_decide(bool by_kernel)
{
	struct daemon daemon;
	int fd;

	case_begin(&daemon, by_kernel, NULL);
	daemon_start(&daemon);
	daemon_kill(&daemon);
	fd = case_listen();
	case_check(case_passes("10.1.0.1"), "a friend does not get through to another listener");
	case_check(!case_passes("10.2.0.1"), "a stranger gets through to another listener");
	(void)close(fd);
	daemon_start(&daemon);
	daemon_stop(&daemon);
}

/* A first start that fails filters nobody: whoever has the port goes on as before. */
static void restart_port_taken(bool by_kernel)
{
	struct daemon daemon;
	int fd;

	case_begin(&daemon, by_kernel, NULL);
	fd = case_listen();
	case_check(daemon_try(&daemon) != 0, "it starts where another has the port");
	case_check(case_passes("10.2.0.1"), "a start that failed filters another's listener");
	(void)close(fd);
	daemon_start(&daemon);
	daemon_stop(&daemon);
}

/* ---- again and again */

/* Strangers and friends of both families; the strangers' way may be that of either down or up. */
static void restart_crowds(struct crowd *out[static 4], bool by_kernel)
{
	unsigned strangers = STRANGER(by_kernel) | 1U << KNOCK_REFUSED;
	/* Who is accepted as the relay ends is cut off. */
	unsigned friends = SERVED | 1U << KNOCK_REFUSED | 1U << KNOCK_CLOSED | 1U << KNOCK_BUSY;

	out[0] = crowd_start(&(struct crowd_plan){
		.pattern = "10.2.%u.%u", .count = 10000, .to = CASE_V4, .allowed = strangers});
	out[1] = crowd_start(&(struct crowd_plan){.pattern = "2001:db8:2:%u::%u",
		.count = 10000,
		.to = CASE_V6,
		.allowed = strangers});
	out[2] = crowd_start(&(struct crowd_plan){.pattern = "10.1.%u.%u",
		.count = 10000,
		.to = CASE_V4,
		.per_second = 300,
		.allowed = friends,
		.greeting = "friends"});
	out[3] = crowd_start(&(struct crowd_plan){.pattern = "2001:db8:1:%u::%u",
		.count = 10000,
		.to = CASE_V6,
		.per_second = 300,
		.allowed = friends,
		.greeting = "friends"});
}

static void restart_again(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
		{.from = "2001:db8:1::1", .to = CASE_V6, .greeting = "friends"},
	};
	struct crowd *crowds[4];
	struct daemon_door door;
	struct daemon daemon;
	unsigned long link = 0;
	unsigned long sum = 0;

	case_begin(&daemon, by_kernel, "203.0.113.0/24\n");
	daemon_start(&daemon);
	restart_crowds(crowds, by_kernel);
	for (unsigned i = 0; i < RESTARTS; i++) {
		crowd_await(crowds[0], 100);
		crowd_await(crowds[3], 10);
		if (i % 2 == 0)
			daemon_stop(&daemon);
		else
			daemon_kill(&daemon);
		crowd_await(crowds[0], 20);
		daemon_start(&daemon);
		VISIT_ALL(visits, by_kernel);
		if (!by_kernel)
			continue;
		daemon_door(&daemon, &door);
		case_check(door.is_kernel && door.was_taken_up, "the pins were not taken up");
		case_check(link == 0 || door.link_id == link, "another link: %lu, was %lu",
			door.link_id, link);
		link = door.link_id;
	}
	for (unsigned i = 0; i < COUNT_OF(crowds); i++) {
		sum += crowd_knocks(crowds[i]);
		crowd_stop(crowds[i]);
	}
	case_check(crowd_ends(crowds[2], KNOCK_SERVED) > 0, "no friend came in");
	daemon_stop(&daemon);
	case_note("%u restarts, %lu knocks", RESTARTS, sum);
}

/* ---- a newer program */

static void restart_copy(const char *from, const char *to)
{
	char piece[65536];
	ssize_t len;
	int in = open(from, O_RDONLY | O_CLOEXEC);
	int out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);

	while ((len = read(in, piece, sizeof(piece))) > 0)
		case_check(write(out, piece, (size_t)len) == len, "%s: %s", to, strerror(errno));
	case_check(in >= 0 && out >= 0 && len == 0, "%s: %s", to, strerror(errno));
	(void)close(in);
	(void)close(out);
}

static void restart_upgrade(bool by_kernel)
{
	char path[PLACE_PATH_BYTES];
	struct crowd *crowds[4];
	struct daemon_door before;
	struct daemon_door after;
	struct daemon daemon;
	struct daemon twin;

	restart_copy(suite.postern, place_path("postern-new", path));
	case_begin(&daemon, by_kernel, NULL);
	daemon_start(&daemon);
	if (by_kernel)
		daemon_door(&daemon, &before);
	restart_crowds(crowds, by_kernel);
	/* While the old one is there, a new one with the same pins is told so, and changes nothing.
	 */
	twin = daemon;
	twin.program = path;
	twin.log = (struct text){0};
	if (by_kernel)
		case_check(daemon_try(&twin) != 0, "two relays have the same pins");
	crowd_await(crowds[0], 100);
	daemon_stop(&daemon);
	daemon.program = path;
	daemon_start(&daemon);
	crowd_await(crowds[0], 100);
	for (unsigned i = 0; i < COUNT_OF(crowds); i++)
		crowd_stop(crowds[i]);
	if (by_kernel) {
		daemon_door(&daemon, &after);
		case_check(after.link_id == before.link_id, "another link: %lu, was %lu",
			after.link_id, before.link_id);
		case_check(after.program_id != before.program_id, "it is the old program yet");
		case_check(after.passed >= before.passed && after.stranger > before.stranger,
			"the counts are not kept");
	}
	daemon_stop(&daemon);
}

/* ---- another configuration */

/* Bindings and ranges of one round: what is there in all rounds, and what comes and goes. */
static void restart_configure(struct daemon *daemon, bool by_kernel, unsigned round)
{
	bool is_odd = round % 2 == 1;

	daemon_begin_again(daemon, &(struct daemon_options){.bpf = case_bpf(by_kernel)});
	daemon_connector(daemon, "friends", CASE_BINDINGS, CASE_RANGES);
	if (is_odd) {
		daemon_connector(daemon, "sometimes", CASE_BINDINGS,
			"\tremote-ip-ranges = {\"10.4.0.0/16\"}\n");
		daemon_connector(daemon, "other", "\"192.0.2.26:2525\", \"[2001:db8::26]:2525\"",
			"\tremote-ip-ranges = {\"10.4.0.0/16\", \"2001:db8:4::/48\"}\n");
	} else {
		daemon_connector(daemon, "other", "\"192.0.2.27:2525\"",
			"\tremote-ip-ranges = {\"10.5.0.0/16\"}\n");
	}
}

static void restart_reload(bool by_kernel)
{
	static const struct visit odd[] = {
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
		{.from = "10.4.0.1", .to = CASE_V4, .greeting = "sometimes"},
		{.from = "10.4.0.1", .to = "192.0.2.26", .greeting = "other"},
		{.from = "2001:db8:4::1", .to = "2001:db8::26", .greeting = "other"},
		{.from = "10.5.0.1", .to = "192.0.2.26"},
	};
	static const struct visit even[] = {
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
		{.from = "10.4.0.1", .to = CASE_V4},
		{.from = "10.5.0.1", .to = "192.0.2.27", .greeting = "other"},
		{.from = "10.4.0.1", .to = "192.0.2.27"},
	};
	/* Nobody listens there any more. */
	static const struct visit odd_gone[] = {{.from = "10.5.0.1", .to = "192.0.2.27"}};
	static const struct visit even_gone[] = {{.from = "10.4.0.1", .to = "192.0.2.26"},
		{.from = "2001:db8:4::1", .to = "2001:db8::26"}};
	unsigned strangers = STRANGER(by_kernel) | 1U << KNOCK_REFUSED;
	struct crowd *crowds[5];
	struct daemon daemon;
	int session;

	case_begin(&daemon, by_kernel, NULL);
	restart_configure(&daemon, by_kernel, 0);
	daemon_start(&daemon);
	session = knock("10.1.0.1", CASE_V4, DAEMON_PORT, true).fd;
	crowds[0] = crowd_start(&(struct crowd_plan){.pattern = "10.2.%u.%u",
		.count = 10000,
		.to = CASE_V4,
		.allowed = STRANGER(by_kernel)});
	crowds[1] = crowd_start(&(struct crowd_plan){
		.pattern = "10.2.%u.%u", .count = 10000, .to = "192.0.2.26", .allowed = strangers});
	crowds[2] = crowd_start(&(struct crowd_plan){
		.pattern = "10.2.%u.%u", .count = 10000, .to = "192.0.2.27", .allowed = strangers});
	/* A binding that stays serves its friends all the time. */
	crowds[3] = crowd_start(&(struct crowd_plan){.pattern = "10.1.%u.%u",
		.count = 10000,
		.to = CASE_V4,
		.per_second = 200,
		.allowed = SERVED,
		.greeting = "friends"});
	crowds[4] = crowd_start(&(struct crowd_plan){.pattern = "2001:db8:1:%u::%u",
		.count = 10000,
		.to = CASE_V6,
		.per_second = 200,
		.allowed = SERVED,
		.greeting = "friends"});
	for (unsigned round = 1; round <= 6; round++) {
		crowd_await(crowds[3], 10);
		restart_configure(&daemon, by_kernel, round);
		case_check(daemon_reload(&daemon), "round %u: the reload failed", round);
		if (round % 2 == 1) {
			VISIT_ALL(odd, by_kernel);
			VISIT_ALL(odd_gone, true);
		} else {
			VISIT_ALL(even, by_kernel);
			VISIT_ALL(even_gone, true);
		}
		case_check(knock_lives(session), "round %u: a session was dropped", round);
	}
	for (unsigned i = 0; i < COUNT_OF(crowds); i++)
		crowd_stop(crowds[i]);
	daemon_stop(&daemon);
}

/* A configuration that is wrong leaves everything as it is. */
static void restart_bad_reload(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
		{.from = "10.2.0.1", .to = CASE_V4},
		{.from = "10.4.0.1", .to = CASE_V4},
	};
	struct daemon daemon;

	case_begin(&daemon, by_kernel, NULL);
	daemon_start(&daemon);
	daemon_begin_again(&daemon, &(struct daemon_options){.bpf = case_bpf(by_kernel)});
	daemon_connector(&daemon, "friends", CASE_BINDINGS, CASE_RANGES);
	daemon_connector(&daemon, "same", CASE_BINDINGS,
		"\tremote-ip-ranges = {\"10.1.0.0/16\", \"10.4.0.0/16\"}\n");
	case_check(!daemon_reload(&daemon), "equal ranges of two connectors were taken");
	VISIT_ALL(visits, by_kernel);
	/* More bindings of one family than there are slots. */
	if (by_kernel) {
		daemon_begin_again(&daemon, &(struct daemon_options){.bpf = case_bpf(by_kernel)});
		for (unsigned i = 0; i < 70; i++) {
			char name[32];
			char binding[32];

			(void)snprintf(name, sizeof(name), "c%u", i);
			(void)snprintf(binding, sizeof(binding), "\"192.0.2.25:%u\"", 2525 + i);
			daemon_connector(
				&daemon, name, binding, "\tremote-ip-ranges = {\"10.4.0.0/16\"}\n");
		}
		case_check(!daemon_reload(&daemon), "70 bindings were taken");
		VISIT_ALL(visits, by_kernel);
	}
	daemon_stop(&daemon);
}

/* ---- to and from bpf = off */

static void restart_off(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
		{.from = "10.2.0.1", .to = CASE_V4},
	};
	struct daemon daemon;

	case_begin(&daemon, by_kernel, NULL);
	daemon_start(&daemon);
	VISIT_ALL(visits, true);
	daemon_stop(&daemon);
	/* Without rights the old program cannot be taken away, and would go on filtering. */
	daemon.is_nobody = true;
	daemon_begin_again(&daemon, &(struct daemon_options){.bpf = "off", .is_nobody = true});
	daemon_connector(&daemon, "friends", CASE_BINDINGS, CASE_RANGES);
	case_check(daemon_try(&daemon) != 0, "it started beside pins that it cannot remove");
	case_check(strstr(daemon.log.data + daemon.mark, "door remove") != NULL,
		"no remedy is named: %.500s", daemon.log.data + daemon.mark);
	visit_all(&visits[1], 1, true);
	/* With them it goes away. */
	daemon.is_nobody = false;
	daemon_begin_again(&daemon, &(struct daemon_options){.bpf = "off"});
	daemon_connector(&daemon, "friends", CASE_BINDINGS, CASE_RANGES);
	daemon_start(&daemon);
	VISIT_ALL(visits, false);
	daemon_stop(&daemon);
	case_begin(&daemon, true, NULL);
	daemon_start(&daemon);
	VISIT_ALL(visits, true);
	daemon_stop(&daemon);
}

/* Without privileges: the relay decides, and says so; "required" is not possible. */
static void restart_unprivileged(bool by_kernel)
{
	static const struct visit visits[] = {
		{.from = "10.1.0.1", .to = CASE_V4, .greeting = "friends"},
		{.from = "10.2.0.1", .to = CASE_V4},
		{.from = "2001:db8:1::1", .to = CASE_V6, .greeting = "friends"},
		{.from = "2001:db8:2::1", .to = CASE_V6},
	};
	struct daemon_door door;
	struct daemon daemon;

	daemon_begin(&daemon, &(struct daemon_options){.bpf = "auto", .is_nobody = true});
	daemon_connector(&daemon, "friends", CASE_BINDINGS, CASE_RANGES);
	daemon_start(&daemon);
	(void)daemon_await(&daemon, 1, "event=door");
	daemon_door(&daemon, &door);
	case_check(!door.is_kernel && door.why[0] != '\0', "mode is kernel, or why is empty");
	VISIT_ALL(visits, by_kernel);
	daemon_stop(&daemon);
	daemon_begin(&daemon, &(struct daemon_options){.bpf = "required", .is_nobody = true});
	daemon_connector(&daemon, "friends", CASE_BINDINGS, CASE_RANGES);
	case_check(daemon_try(&daemon) != 0, "bpf = required without privileges");
	case_note("%.200s", door.why);
}

static const struct door_case rows[] = {
	{"restart/down", restart_down, BY_KERNEL | BY_USER, 0},
	{"restart/pins-decide", restart_pins_decide, BY_KERNEL, 0},
	{"restart/port-taken", restart_port_taken, BY_KERNEL, 0},
	{"restart/again", restart_again, BY_KERNEL | BY_USER, 3},
	{"restart/upgrade", restart_upgrade, BY_KERNEL | BY_USER, 2},
	{"restart/reload", restart_reload, BY_KERNEL | BY_USER, 2},
	{"restart/bad-reload", restart_bad_reload, BY_KERNEL | BY_USER, 0},
	{"restart/off", restart_off, BY_KERNEL, 0},
	{"restart/unprivileged", restart_unprivileged, BY_USER, 0},
};

const struct door_table case_restart = {rows, COUNT_OF(rows)};
