/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/door/knock.h"

#include "tests/door/daemon.h"
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

const char *knock_word(enum knock_end end)
{
	switch (end) {
	case KNOCK_SERVED:
		return "served";
	case KNOCK_REFUSED:
		return "refused";
	case KNOCK_CLOSED:
		return "accepted and closed";
	case KNOCK_BUSY:
		return "told 421";
	case KNOCK_SILENT:
		return "left waiting";
	case KNOCK_FAILED:
	case KNOCK_END_COUNT:
		break;
	}
	return "failed";
}

/* One. */

static socklen_t knock_address(const char *text, unsigned port, struct sockaddr_storage *out)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};

	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
		memcpy(out, &v4, sizeof(v4));
		return sizeof(v4);
	}
	if (inet_pton(AF_INET6, text, &v6.sin6_addr) != 1)
		abort();
	memcpy(out, &v6, sizeof(v6));
	return sizeof(v6);
}

static int knock_socket(int family)
{
	struct timeval patience = {.tv_sec = 10L * suite.slow};
	struct linger reset = {.l_onoff = 1};
	int yes = 1;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	/* No port waits for a minute to be used again. */
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	(void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof(yes));
	if (family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &yes, sizeof(yes));
	return fd;
}

static enum knock_end knock_listen(struct knock *knock)
{
	ssize_t len = recv(knock->fd, knock->greeting, sizeof(knock->greeting) - 1, 0);

	knock->error = len < 0 ? errno : 0;
	if (len < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return KNOCK_SILENT;
	if (len <= 4)
		return KNOCK_CLOSED;
	knock->greeting[len] = '\0';
	knock->greeting[strcspn(knock->greeting, "\r\n")] = '\0';
	if (strncmp(knock->greeting, "421", 3) == 0)
		return KNOCK_BUSY;
	memmove(knock->greeting, knock->greeting + 4, strlen(knock->greeting + 4) + 1);
	return KNOCK_SERVED;
}

static struct knock knock_do(
	const char *from, const char *to, unsigned port, bool keep, const struct timeval *patience)
{
	struct sockaddr_storage address;
	struct knock result = {.end = KNOCK_FAILED};
	socklen_t len = knock_address(from, 0, &address);

	result.fd = knock_socket(address.ss_family);
	if (result.fd < 0 || bind(result.fd, (struct sockaddr *)&address, len) < 0) {
		result.error = errno;
	} else {
		len = knock_address(to, port, &address);
		if (connect(result.fd, (struct sockaddr *)&address, len) == 0) {
			if (patience != NULL)
				(void)setsockopt(result.fd, SOL_SOCKET, SO_RCVTIMEO, patience,
					sizeof(*patience));
			result.end = knock_listen(&result);
		} else {
			result.error = errno;
			if (errno == ECONNREFUSED)
				result.end = KNOCK_REFUSED;
			else if (errno == ECONNRESET)
				result.end = KNOCK_CLOSED;
			else if (errno == EINPROGRESS || errno == ETIMEDOUT)
				result.end = KNOCK_SILENT;
		}
	}
	if (result.fd >= 0 && (!keep || result.end != KNOCK_SERVED)) {
		(void)close(result.fd);
		result.fd = -1;
	}
	return result;
}

struct knock knock(const char *from, const char *to, unsigned port, bool keep)
{
	return knock_do(from, to, port, keep, NULL);
}

struct knock knock_within(
	const char *from, const char *to, unsigned port, const struct timeval *patience)
{
	return knock_do(from, to, port, false, patience);
}

bool knock_lives(int fd)
{
	char reply[128];

	return send(fd, "NOOP\r\n", 6, MSG_NOSIGNAL) == 6 &&
	       recv(fd, reply, sizeof(reply), 0) > 3 && strncmp(reply, "250", 3) == 0;
}

void visit_all(const struct visit *visits, unsigned count, bool by_kernel)
{
	for (unsigned i = 0; i < count; i++) {
		const struct visit *visit = &visits[i];
		struct knock got = knock(visit->from, visit->to,
			visit->port == 0 ? DAEMON_PORT : visit->port, false);
		enum knock_end want = visit->greeting != NULL ? KNOCK_SERVED
				      : by_kernel             ? KNOCK_REFUSED
							      : KNOCK_CLOSED;

		case_check(got.end == want && (visit->greeting == NULL ||
						      strcmp(visit->greeting, got.greeting) == 0),
			"%s to %s: expected %s %s, was %s %s (%s)", visit->from, visit->to,
			knock_word(want), visit->greeting == NULL ? "" : visit->greeting,
			knock_word(got.end), got.end == KNOCK_SERVED ? got.greeting : "",
			strerror(got.error));
	}
}

/* Many. */

struct crowd {
	struct crowd_plan plan;
	pthread_t thread;
	_Atomic unsigned allowed;
	_Atomic bool is_over;
	_Atomic unsigned long ends[KNOCK_END_COUNT];
	_Atomic unsigned long begun;
	_Atomic unsigned long wrong;
	char example[160]; /* of what was wrong first; read when the thread has ended */
};

static struct crowd crowds[CROWD_THREADS_MAX];
static unsigned crowd_count;

static void crowd_judge(
	struct crowd *crowd, const char *from, const struct knock *knock, unsigned allowed_before)
{
	unsigned allowed = allowed_before | atomic_load(&crowd->allowed);
	bool is_right = (allowed & (1U << knock->end)) != 0;

	if (knock->end == KNOCK_SERVED && crowd->plan.greeting != NULL &&
		strcmp(crowd->plan.greeting, knock->greeting) != 0)
		is_right = false;
	atomic_fetch_add(&crowd->ends[knock->end], 1);
	if (is_right || atomic_fetch_add(&crowd->wrong, 1) > 0)
		return;
	(void)snprintf(crowd->example, sizeof(crowd->example), "%s was %s %s (%s)", from,
		knock_word(knock->end), knock->end == KNOCK_SERVED ? knock->greeting : "",
		strerror(knock->error));
}

static void *crowd_run(void *arg)
{
	struct crowd *crowd = arg;
	const struct crowd_plan *plan = &crowd->plan;
	uint64_t begun = now_ms();

	for (unsigned long turn = 0; !atomic_load(&crowd->is_over); turn++) {
		unsigned number = plan->first + (unsigned)(turn % plan->count);
		unsigned allowed = atomic_load(&crowd->allowed);
		struct knock result;
		char from[64];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		(void)snprintf(from, sizeof(from), plan->pattern, number / 250, number % 250 + 1);
#pragma GCC diagnostic pop
		atomic_fetch_add(&crowd->begun, 1);
		result = knock(from, plan->to, plan->port == 0 ? DAEMON_PORT : plan->port, false);
		crowd_judge(crowd, from, &result, allowed);
		while (plan->per_second != 0 && !atomic_load(&crowd->is_over) &&
			(turn + 1) * 1000 / plan->per_second > now_ms() - begun)
			pause_ms(1);
	}
	return NULL;
}

struct crowd *crowd_start(const struct crowd_plan *plan)
{
	struct crowd *crowd = &crowds[crowd_count];

	case_check(crowd_count < CROWD_THREADS_MAX, "too many crowds");
	crowd_count++;
	crowd->plan = *plan;
	atomic_store(&crowd->allowed, plan->allowed);
	case_check(pthread_create(&crowd->thread, NULL, crowd_run, crowd) == 0, "no thread");
	return crowd;
}

unsigned long crowd_ends(const struct crowd *crowd, enum knock_end end)
{
	return atomic_load(&crowd->ends[end]);
}

unsigned long crowd_knocks(const struct crowd *crowd)
{
	unsigned long sum = 0;

	for (unsigned i = 0; i < KNOCK_END_COUNT; i++)
		sum += atomic_load(&crowd->ends[i]);
	return sum;
}

void crowd_allow(struct crowd *crowd, unsigned allowed)
{
	atomic_store(&crowd->allowed, allowed);
}

/* One more, since the one that is under way began before. */
void crowd_await(const struct crowd *crowd, unsigned long more)
{
	uint64_t until = now_ms() + (uint64_t)60000 * suite.slow;
	unsigned long want = crowd_knocks(crowd) + more + 1;

	while (crowd_knocks(crowd) < want) {
		case_check(now_ms() < until, "the clients do not get on");
		pause_ms(1);
	}
}

void crowd_stop(struct crowd *crowd)
{
	atomic_store(&crowd->is_over, true);
	(void)pthread_join(crowd->thread, NULL);
	case_check(atomic_load(&crowd->wrong) == 0, "%lu of %lu clients: the first, %s",
		atomic_load(&crowd->wrong), crowd_knocks(crowd), crowd->example);
}
