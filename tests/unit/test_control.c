/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_control.c: relay/control*.c: what is answered, to whom, and what the socket takes from
 * clients that send garbage, too much, too little, too slowly, or all at once.
 */

#include "relay/control_private.h"
#include "tests/unit/doorman_fixture.h"

#include <jansson.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CLIENTS 12
#define CHANGES 20

static struct control *control;
static char socket_path[80];

static int control_up(void)
{
	struct policy *policy = doorman_world->policy;
	FILE *errors;
	int rc;

	memset(complaint, 0, sizeof(complaint));
	errors = fmemopen(complaint, sizeof(complaint), "w");
	(void)snprintf(socket_path, sizeof(socket_path), "%s/control", doorman_folder);
	policy->control_socket = socket_path;
	rc = control_create(policy, doorman, errors, &control);
	assert_int_equal(fclose(errors), 0);
	if (rc == 0)
		assert_int_equal(control_start(control), 0);
	return rc;
}

static int up(void **state)
{
	lab_folder_make(state);
	lab_configure("off", "/nonexistent/postern", LAB_DOORS);
	assert_int_equal(lab_start(), 0);
	assert_int_equal(control_up(), 0);
	return 0;
}

static int down(void **state)
{
	control_destroy(&control);
	assert_int_equal(access(socket_path, F_OK), -1);
	control_patience_ms = 10000;
	return lab_folder_remove(state);
}

static int dial(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = 60};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* As much as it takes: it may answer before all has come. */
static void say(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t sent = send(fd, text, len, MSG_NOSIGNAL);

		if (sent <= 0)
			return;
		text += sent;
		len -= (size_t)sent;
	}
}

/* The answer up to its end; NULL: there was none. In memory of the caller's. */
static json_t *hear(int fd, char *body, size_t body_bytes)
{
	static _Thread_local char text[262144];
	size_t len = 0;
	ssize_t got;
	char *end;
	json_t *answer;

	while (len < sizeof(text) - 1 &&
		(got = recv(fd, text + len, sizeof(text) - 1 - len, 0)) > 0)
		len += (size_t)got;
	(void)close(fd);
	text[len] = '\0';
	end = memchr(text, '\n', len);
	if (end == NULL)
		return NULL;
	answer = json_loadb(text, (size_t)(end - text), 0, NULL);
	assert_non_null(answer);
	if (body != NULL)
		(void)snprintf(body, body_bytes, "%s", end + 1);
	return answer;
}

static json_t *ask(const char *request, char *body, size_t body_bytes)
{
	int fd = dial();

	say(fd, request, strlen(request));
	return hear(fd, body, body_bytes);
}

/* "ok", or the error. */
static const char *outcome(json_t *answer, char out[static 64])
{
	(void)snprintf(out, 64, "no answer");
	if (answer != NULL)
		(void)snprintf(out, 64, "%s",
			json_is_true(json_object_get(answer, "ok"))
				? "ok"
				: json_string_value(json_object_get(answer, "error")));
	json_decref(answer);
	return out;
}

static void expect(const char *request, const char *wanted)
{
	char word[64];

	if (strcmp(outcome(ask(request, NULL, 0), word), wanted) != 0)
		fail_msg("%s: expected %s, got %s", request, wanted, word);
}

static uint64_t number_of(json_t *answer, const char *key)
{
	const json_t *value = json_object_get(answer, key);

	assert_true(json_is_integer(value));
	return (uint64_t)json_integer_value(value);
}

#define ADD "{\"command\": \"partner-ip-add\", \"partner\": \"fabrikam\", "

static void test_answers(void **state)
{
	char body[8192];
	json_t *answer;
	json_t *object;

	(void)state;
	answer = ask(ADD "\"bytes\": 25}\n192.0.2.0/24\n!192.0.2.7\n\n", body, sizeof(body));
	assert_int_equal(number_of(answer, "generation"), 1);
	assert_int_equal(number_of(answer, "added"), 2);
	json_decref(answer);
	answer = ask("{\"command\": \"partner-ip-list\", \"partner\": \"fabrikam\"}\n", body,
		sizeof(body));
	assert_int_equal(number_of(answer, "count"), 2);
	assert_int_equal(number_of(answer, "bytes"), strlen(body));
	assert_string_equal(body, "192.0.2.0/24\n!192.0.2.7\n");
	json_decref(answer);
	answer = ask("{\"command\": \"partner-ip-test\", \"partner\": \"fabrikam\","
		     " \"ip\": \"192.0.2.7\"}\n",
		body, sizeof(body));
	json_decref(answer);
	object = json_loads(body, 0, NULL);
	answer = json_array_get(json_object_get(object, "bindings"), 0);
	assert_string_equal(json_string_value(json_object_get(answer, "prefix")), "192.0.2.7");
	assert_true(json_is_true(json_object_get(answer, "excluded")));
	assert_true(json_is_false(json_object_get(answer, "served")));
	json_decref(object);
	answer = ask("{\"command\": \"door-status\"}\n", body, sizeof(body));
	assert_int_equal(number_of(answer, "bytes"), strlen(body));
	json_decref(answer);
	object = json_loads(body, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(object, "mode")), "userspace");
	assert_int_equal(json_array_size(json_object_get(object, "bindings")), 2);
	json_decref(object);
	answer = ask("{\"command\": \"door-refusals\", \"limit\": 5}\n", body, sizeof(body));
	assert_string_equal(body, "{\"refusals\":[]}");
	json_decref(answer);
}

static int on_ask(void *owner, unsigned worker, struct queue_ask *question)
{
	unsigned *asked = owner;

	assert_true(worker < 3);
	(*asked)++;
	question->is_done = true;
	return 0;
}

/* Workers are asked by the hooks, if there is a spool. */
static void test_hooks(void **state)
{
	unsigned asked = 0;
	const struct control_hooks hooks = {.ask = on_ask, .workers = 3, .owner = &asked};
	struct policy *policy = doorman_world->policy;

	(void)state;
	expect("{\"command\": \"queue-list\"}\n", "no-queue");
	control_destroy(&control);
	policy->queue.spool_folder = "/nonexistent/spool";
	assert_int_equal(control_create(policy, doorman, stderr, &control), 0);
	policy->queue.spool_folder = NULL;
	control_set_hooks(control, &hooks);
	assert_int_equal(control_start(control), 0);
	expect("{\"command\": \"queue-list\"}\n", "ok");
	assert_int_equal(asked, 3);
}

static void test_bad_requests(void **state)
{
	static const char *const bad[] = {
		"\n",
		"nonsense\n",
		"{\n",
		"[]\n",
		"{}\n",
		"\"door-status\"\n",
		"{\"command\": 5}\n",
		"{\"command\": \"door-\"}\n",
		"{\"command\": \"door-status\", \"command\": \"door-status\"}\n",
		"{\"command\": \"door-status\", \"more\": 1}\n",
		"{\"command\": \"door-status\", \"bytes\": 1}\nx",
		"{\"command\": \"door-refusals\", \"limit\": -1}\n",
		"{\"command\": \"door-refusals\", \"limit\": \"5\"}\n",
		"{\"command\": \"partner-ip-list\"}\n",
		"{\"command\": \"partner-ip-test\", \"ip\": \"192.0.2\"}\n",
		"{\"command\": \"partner-ip-test\"}\n",
		"{\"command\": \"partner-ip-add\", \"bytes\": 9}\n192.0.2.1",
		ADD "\"bytes\": -1}\n",
		ADD "\"bytes\": 1.5}\n1",
		ADD "\"bytes\": 268435457}\n1",
		ADD "\"bytes\": 99999999999999999999}\n1",
		ADD "\"bytes\": 0}\n",
		ADD "\"bytes\": 10}\n192.0.2.x/",
		ADD "\"bytes\": 9, \"dry_run\": 1}\n192.0.2.1",
		ADD "\"bytes\": 9, \"expect_generation\": true}\n192.0.2.1",
		ADD "\"bytes\": 9, \"dryrun\": true}\n192.0.2.1",
		"\xff\xfe\n",
		"{\"command\": \"\xff\"}\n",
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(bad); i++)
		expect(bad[i], "bad-request");
	expect("{\"command\": \"partner-ip-list\", \"partner\": \"nobody\"}\n", "unknown-partner");
	expect("{\"command\": \"partner-ip-remove\", \"partner\": \"fabrikam\", \"bytes\": 9}\n"
	       "192.0.2.1",
		"absent");
	expect(ADD "\"bytes\": 9, \"expect_generation\": 4}\n192.0.2.1", "expected-generation");
	expect(ADD "\"bytes\": 9}\n192.0.2.1", "ok");
	expect(ADD "\"bytes\": 9}\n192.0.2.1", "exists");
	expect("{\"command\": \"partner-ip-add\", \"partner\": \"contoso\", \"bytes\": 9}\n"
	       "192.0.2.1",
		"conflict");
	assert_string_equal(asked("192.0.2.1"), "near/fabrikam");
}

/* A line that never ends is cut off; one that goes away is forgotten. */
static void test_too_long_and_gone(void **state)
{
	static char line[100000];
	char word[64];
	int fd;

	(void)state;
	memset(line, ' ', sizeof(line));
	fd = dial();
	say(fd, line, sizeof(line));
	assert_string_equal(outcome(hear(fd, NULL, 0), word), "bad-request");
	for (unsigned i = 0; i < 100; i++) {
		fd = dial();
		say(fd, ADD "\"bytes\": 1000}\n192.0.2.1", i % 60);
		(void)close(fd);
	}
	expect("{\"command\": \"door-status\"}\n", "ok");
	assert_string_equal(asked("192.0.2.1"), "nobody");
}

/* Promises of long lists are bounded together, and kept only as bytes come. */
static void test_promises(void **state)
{
	static const char request[] = ADD "\"bytes\": 268435456}\n";
	char word[64];
	int first = dial();
	char byte = '#';
	unsigned tries = 0;

	(void)state;
	say(first, request, sizeof(request) - 1);
	/* Until the first was read, the second would be let in. */
	do
		(void)outcome(ask("{\"command\": \"door-status\"}\n", NULL, 0), word);
	while (++tries < 10);
	assert_string_equal(outcome(ask(request, NULL, 0), word), "no-memory");
	say(first, &byte, 1);
	(void)close(first);
	for (tries = 0; tries < 1000; tries++)
		if (strcmp(outcome(ask(ADD "\"bytes\": 9}\n192.0.2.1", NULL, 0), word), "ok") == 0)
			break;
	assert_string_equal(word, "ok");
}

/* Who is slow is waited for, and keeps nobody up; who is too slow is told so. */
static void test_slow(void **state)
{
	static const char request[] = ADD "\"bytes\": 9}\n192.0.2.1";
	char word[64];
	int slow = dial();
	int fd;

	(void)state;
	for (unsigned i = 0; i + 1 < sizeof(request); i++) {
		say(slow, request + i, 1);
		if (i % 16 == 0)
			expect("{\"command\": \"door-refusals\"}\n", "ok");
	}
	assert_string_equal(outcome(hear(slow, NULL, 0), word), "ok");
	control_patience_ms = 50;
	fd = dial();
	say(fd, request, 20);
	assert_string_equal(outcome(hear(fd, NULL, 0), word), "bad-request");
	fd = dial();
	say(fd, request, sizeof(request) - 3);
	assert_string_equal(outcome(hear(fd, NULL, 0), word), "bad-request");
}

struct changer {
	pthread_t thread;
	unsigned index;
	unsigned done;
	unsigned refused;
};

/* Reads the generation, changes by it, and begins again when somebody was quicker. */
static void *changer_main(void *arg)
{
	struct changer *changer = arg;

	for (unsigned tries = 0; tries < 100000 && changer->done < CHANGES; tries++) {
		char request[256];
		char lines[64];
		char word[64];
		json_t *answer = ask(
			"{\"command\": \"partner-ip-list\", \"partner\": \"fabrikam\"}\n", NULL, 0);
		uint64_t generation = number_of(answer, "generation");

		json_decref(answer);
		(void)snprintf(lines, sizeof(lines), "192.0.%u.%u", changer->index, changer->done);
		(void)snprintf(request, sizeof(request),
			ADD "\"bytes\": %zu, \"expect_generation\": %lu}\n%s", strlen(lines),
			(unsigned long)generation, lines);
		(void)outcome(ask(request, NULL, 0), word);
		if (strcmp(word, "ok") == 0)
			changer->done++;
		else if (strcmp(word, "expected-generation") == 0)
			changer->refused++;
		else
			break;
	}
	return NULL;
}

static void test_at_once(void **state)
{
	struct changer changers[CLIENTS] = {0};
	json_t *answer;

	(void)state;
	for (unsigned i = 0; i < CLIENTS; i++) {
		changers[i].index = i;
		assert_int_equal(
			pthread_create(&changers[i].thread, NULL, changer_main, &changers[i]), 0);
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		assert_int_equal(pthread_join(changers[i].thread, NULL), 0);
		assert_int_equal(changers[i].done, CHANGES);
	}
	answer = ask("{\"command\": \"partner-ip-list\", \"partner\": \"fabrikam\"}\n", NULL, 0);
	assert_int_equal(number_of(answer, "count"), CLIENTS * CHANGES);
	assert_int_equal(number_of(answer, "generation"), CLIENTS * CHANGES);
	json_decref(answer);
}

/* More than have a place: they wait, and are answered. */
static void test_more_than_places(void **state)
{
	int fds[40];
	char word[64];

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(fds); i++) {
		fds[i] = dial();
		say(fds[i], "{\"command\": \"door-refusals\"}", 28);
	}
	for (unsigned i = 0; i < COUNT_OF(fds); i++) {
		say(fds[i], "\n", 1);
		assert_string_equal(outcome(hear(fds[i], NULL, 0), word), "ok");
	}
}

/* Without a descriptor for it a client waits, the thread rests, and then it is answered. */
static void test_no_descriptors(void **state)
{
	static const char request[] = "{\"command\": \"door-refusals\"}\n";
	const struct timespec pause = {.tv_nsec = 500000000};
	struct rlimit limit, tight;
	struct timespec before, after;
	int held[64];
	char word[64];
	int fd = dial();

	(void)state;
	/* The first is taken before the limit falls. */
	say(fd, request, sizeof(request) - 1);
	assert_string_equal(outcome(hear(fd, NULL, 0), word), "ok");
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	/* poll() takes no more than the limit, so that may not be too low. */
	for (unsigned i = 0; i < COUNT_OF(held); i++) {
		held[i] = dup(STDERR_FILENO);
		assert_true(held[i] >= 0);
	}
	tight = (struct rlimit){
		.rlim_cur = (rlim_t)held[COUNT_OF(held) - 1] + 1, .rlim_max = limit.rlim_max};
	(void)close(held[COUNT_OF(held) - 1]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	fd = dial();
	say(fd, request, sizeof(request) - 1);
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	(void)nanosleep(&pause, NULL);
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (unsigned i = 0; i + 1 < COUNT_OF(held); i++)
		(void)close(held[i]);
	assert_string_equal(outcome(hear(fd, NULL, 0), word), "ok");
	/* Of processor time, however slow the machine: a thread that spins takes all of the pause.
	 */
	assert_true(
		(after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000 <
		250);
}

static void test_socket(void **state)
{
	struct control *first = control;
	struct stat there;
	FILE *file;

	(void)state;
	assert_int_equal(stat(socket_path, &there), 0);
	assert_int_equal(there.st_mode & 0777, 0600);
	/* A relay is there. */
	assert_int_equal(control_up(), -EADDRINUSE);
	assert_non_null(strstr(complaint, "another relay listens there"));
	expect("{\"command\": \"door-refusals\"}\n", "ok");
	control = first;
	/* What a relay left that was killed. */
	assert_int_equal(rename(socket_path, lab_path("kept")), 0);
	control_destroy(&control);
	assert_int_equal(rename(lab_path("kept"), socket_path), 0);
	assert_int_equal(control_up(), 0);
	expect("{\"command\": \"door-refusals\"}\n", "ok");
	control_destroy(&control);
	/* Something else is left alone. */
	file = fopen(socket_path, "we");
	assert_non_null(file);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(control_up(), -EEXIST);
	assert_int_equal(unlink(socket_path), 0);
	doorman_world->policy->control_group = "no-such-group-here";
	assert_int_equal(control_up(), -EINVAL);
	assert_non_null(strstr(complaint, "no-such-group-here"));
	assert_int_equal(access(socket_path, F_OK), -1);
}

#define CONTROL_TEST(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONTROL_TEST(test_answers),
		CONTROL_TEST(test_hooks),
		CONTROL_TEST(test_bad_requests),
		CONTROL_TEST(test_too_long_and_gone),
		CONTROL_TEST(test_promises),
		CONTROL_TEST(test_slow),
		CONTROL_TEST(test_at_once),
		CONTROL_TEST(test_more_than_places),
		CONTROL_TEST(test_no_descriptors),
		CONTROL_TEST(test_socket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
