/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_kernel_door_pins.c: what stays when a process ends, and what the next one makes of it: taken
 * up without a moment in which a stranger gets in, or left alone with a clear message.
 */

#include "tests/unit/kernel_door_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/prctl.h>

static const char *pin_path(const char *name)
{
	static char path[128];

	(void)snprintf(path, sizeof(path), "%s/v%d/%s", lab_pins, DOOR_VERSION, name);
	return path;
}

static struct kernel_door_info info_of(struct kernel_door *door)
{
	struct kernel_door_info info;

	kernel_door_info(door, &info);
	return info;
}

/* ---- restarts */

/* Knocks as a stranger until it is told to end. */
struct knocker {
	atomic_bool is_over;
	unsigned long knocked, let_in;
};

static void *knocker_run(void *arg)
{
	struct knocker *knocker = arg;

	while (!atomic_load(&knocker->is_over)) {
		knocker->knocked++;
		if (knock(-1, STRANGER, SERVED, PORT) != -ECONNREFUSED)
			knocker->let_in++;
	}
	return NULL;
}

/* The rules of the process before go on until those of the next are in force. */
static void test_restart(void **state)
{
	struct kernel_door *door = door_up_attached();
	int listener = listener_open(SERVED, PORT);
	struct kernel_door_info before = info_of(door);
	struct kernel_door_info after;
	struct knocker knocker = {0};
	struct address address;
	struct door_counts counts;
	pthread_t thread;
	unsigned slot = 0;
	unsigned taken;

	(void)state;
	assert_open(listener);
	slot = door_serve(door, SERVED, PORT, "127.0.0.2/32=1");
	assert_guarded(listener);
	assert_int_equal(pthread_create(&thread, NULL, knocker_run, &knocker), 0);
	for (unsigned i = 0; i < 5; i++) {
		kernel_door_destroy(&door);
		assert_true(kernel_door_is_pinned(lab_pins));
		assert_guarded(listener);
		door = door_up();
		assert_guarded(listener);
		assert_true(info_of(door).was_taken_up);
		assert_true(kernel_door_binding(door, 0, &address, &taken));
		assert_int_equal(taken, slot);
		/* It cannot see into the tries of another, so it does not say anything. */
		assert_int_equal(connector_of(door, SERVED, PORT, FRIEND), -EAGAIN);
		assert_int_equal(door_serve(door, SERVED, PORT, "127.0.0.2/32=1"), slot);
		assert_guarded(listener);
		assert_int_equal(kernel_door_attach(door, why), 0);
		assert_string_equal(why, "");
		assert_guarded(listener);
		assert_int_equal(connector_of(door, SERVED, PORT, FRIEND), 1);
	}
	atomic_store(&knocker.is_over, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(knocker.knocked > 10);
	assert_int_equal(knocker.let_in, 0);
	after = info_of(door);
	assert_int_equal(after.link_id, before.link_id);
	assert_int_not_equal(after.program_id, before.program_id);
	assert_int_equal(after.netns_inode, before.netns_inode);
	assert_int_equal(kernel_door_counts(door, KERNEL_DOOR_SLOTS_V4, slot, &counts), 0);
	/* Four times in each round, and once before. */
	/* At least: a SYN that is sent again is looked up again. */
	assert_true(counts.refused[DOOR_REASON_STRANGER] >= knocker.knocked + 21);
	door_down(&door);
	assert_open(listener);
	(void)close(listener);
}

/* With nobody listening everybody is refused, and with nobody running the rules are the same. */
static void test_daemon_down(void **state)
{
	struct kernel_door *door = door_up_attached();
	int listener = listener_open(SERVED, PORT);

	(void)state;
	door_serve(door, SERVED, PORT, "127.0.0.2/32=1");
	(void)close(listener);
	kernel_door_destroy(&door);
	assert_int_equal(knock(-1, FRIEND, SERVED, PORT), -ECONNREFUSED);
	assert_int_equal(knock(-1, STRANGER, SERVED, PORT), -ECONNREFUSED);
	listener = listener_open(SERVED, PORT);
	assert_guarded(listener);
	assert_int_equal(kernel_door_remove(lab_pins, why), 0);
	assert_open(listener);
	(void)close(listener);
}

static void test_names(void **state)
{
	struct kernel_door *door = door_up();
	struct gate_ids *ids = calloc(1, sizeof(*ids));
	struct gate_ids *read = calloc(1, sizeof(*read));

	(void)state;
	assert_non_null(ids);
	assert_non_null(read);
	(void)snprintf(ids->connectors[1], DOOR_NAME_BYTES, "internet");
	(void)snprintf(ids->connectors[DOOR_CONNECTORS_MAX - 1], DOOR_NAME_BYTES, "last");
	memset(ids->partners[1], 'x', DOOR_NAME_BYTES - 1);
	(void)snprintf(ids->partners[DOOR_PARTNERS_MAX - 1], DOOR_NAME_BYTES, "fabrikam");
	assert_int_equal(kernel_door_write_names(door, ids), 0);
	kernel_door_destroy(&door);
	door = door_up();
	assert_int_equal(kernel_door_read_names(door, read), 0);
	assert_memory_equal(read, ids, sizeof(*ids));
	/* A shorter name leaves nothing of a longer one behind. */
	memset(ids->partners[1], 0, DOOR_NAME_BYTES);
	ids->partners[1][0] = 'y';
	assert_int_equal(kernel_door_write_names(door, ids), 0);
	assert_int_equal(kernel_door_read_names(door, read), 0);
	assert_memory_equal(read, ids, sizeof(*ids));
	free(ids);
	free(read);
	door_down(&door);
}

/* ---- who has it */

static void test_lock(void **state)
{
	struct kernel_door_options options = {.pin_folder = lab_pins};
	struct kernel_door *door = door_up_attached();
	struct kernel_door *other = NULL;
	struct kernel_door *looker = NULL;
	struct door_totals totals;
	struct address address;
	struct stat about;
	unsigned slot;

	(void)state;
	door_serve(door, SERVED, PORT, "127.0.0.2/32=1");
	assert_int_equal(stat(pin_path(""), &about), 0);
	assert_int_equal(about.st_mode & 0777, 0700);
	assert_int_equal(kernel_door_create(&options, why, &other), -EBUSY);
	assert_non_null(strstr(why, "another process has it"));
	assert_null(other);
	assert_int_equal(kernel_door_remove(lab_pins, why), -EBUSY);
	assert_non_null(strstr(why, "stop the relay"));
	/* Looking is always possible. */
	assert_int_equal(kernel_door_open_pinned(lab_pins, why, &looker), 0);
	assert_int_equal(info_of(looker).program_id, info_of(door).program_id);
	assert_true(kernel_door_binding(looker, 0, &address, &slot));
	assert_int_equal(kernel_door_totals(looker, &totals), 0);
	assert_int_equal(connector_of(looker, SERVED, PORT, FRIEND), -EOPNOTSUPP);
	assert_int_equal(kernel_door_event_fd(looker), -1);
	kernel_door_destroy(&looker);
	door_down(&door);
	assert_int_equal(kernel_door_remove(lab_pins, why), -ENOENT);
	assert_int_equal(kernel_door_open_pinned(lab_pins, why, &looker), -ENOENT);
}

static void test_no_bpffs(void **state)
{
	struct kernel_door_options options = {.pin_folder = "/proc/postern"};
	struct kernel_door *door = NULL;

	(void)state;
	assert_int_equal(kernel_door_create(&options, why, &door), -ENOENT);
	assert_non_null(strstr(why, "mount -t bpf"));
	options.pin_folder = "postern";
	assert_int_equal(kernel_door_create(&options, why, &door), -ENOENT);
	assert_false(kernel_door_is_pinned("/proc/postern"));
	assert_null(door);
}

/* ---- pins that do not fit */

/* Creating fails, says which pin, and leaves everything as it was; removing cleans up. */
static void assert_stale(const char *name, int listener)
{
	struct kernel_door_options options = {.pin_folder = lab_pins};
	struct kernel_door *door = NULL;
	struct stat about;
	bool was_there = lstat(pin_path(name), &about) == 0;

	assert_int_equal(kernel_door_create(&options, why, &door), -ESTALE);
	assert_null(door);
	if (strstr(why, name) == NULL || strlen(why) < 40)
		fail_msg("%s: %s", name, why);
	assert_int_equal(lstat(pin_path(name), &about) == 0, was_there);
	if (listener >= 0)
		assert_guarded(listener);
	if (kernel_door_remove(lab_pins, why) < 0)
		fail_msg("%s", why);
	assert_false(kernel_door_is_pinned(lab_pins));
	if (listener >= 0)
		assert_open(listener);
}

static void pin_instead(const char *name, int fd)
{
	(void)unlink(pin_path(name));
	assert_int_equal(bpf_obj_pin(fd, pin_path(name)), 0);
}

/* Every map: missing, another one, a program, a folder. */
static void test_stale_maps(void **state)
{
	int listener = listener_open(SERVED, PORT);
	int other = bpf_map_create(BPF_MAP_TYPE_ARRAY, "other", 4, 12, 3, NULL);
	int program = program_load(BPF_PROG_TYPE_SOCKET_FILTER, 0, 1);

	(void)state;
	assert_true(other >= 0);
	for (unsigned i = 0; i < 4 * DOOR_MAP_COUNT; i++) {
		const char *name = door_map_names[i / 4];
		struct kernel_door *door = door_up_attached();

		door_serve(door, SERVED, PORT, "127.0.0.2/32=1");
		kernel_door_destroy(&door);
		switch (i % 4) {
		case 0:
			assert_int_equal(unlink(pin_path(name)), 0);
			break;
		case 1:
			pin_instead(name, other);
			break;
		case 2:
			pin_instead(name, program);
			break;
		default:
			assert_int_equal(unlink(pin_path(name)), 0);
			assert_int_equal(mkdir(pin_path(name), 0700), 0);
		}
		assert_stale(name, listener);
	}
	(void)close(other);
	(void)close(program);
	(void)close(listener);
}

/* A map of the right kind that is too small. */
static void test_stale_size(void **state)
{
	struct kernel_door *door = door_up();
	int small = bpf_map_create(
		BPF_MAP_TYPE_ARRAY, "limits", 4, sizeof(struct door_limit), 10, NULL);

	(void)state;
	kernel_door_destroy(&door);
	assert_true(small >= 0);
	pin_instead("limits", small);
	assert_stale("limits", -1);
	(void)close(small);
}

/* A binding that points nowhere. */
static void test_stale_binding(void **state)
{
	const uint32_t slots[] = {DOOR_SLOTS_ALL, DOOR_SLOTS, UINT32_MAX};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(slots); i++) {
		struct kernel_door *door = door_up();
		struct ip ip = ip_from(SERVED);
		struct door_binding binding;

		binding_of_address(&ip, PORT, &binding);
		assert_int_equal(bpf_map_update_elem(door->maps[DOOR_MAP_BINDINGS], &binding,
					 &slots[i], BPF_ANY),
			0);
		kernel_door_destroy(&door);
		assert_stale("bindings", -1);
	}
}

/* The link: a map, a program, a folder, a link of another kind. */
static void test_stale_link(void **state)
{
	int map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "other", 4, 4, 1, NULL);
	int program = program_load(BPF_PROG_TYPE_XDP, 0, XDP_PASS);
	int xdp = bpf_link_create(program, (int)if_nametoindex("lo"), BPF_XDP, NULL);
	int dissector = program_load(BPF_PROG_TYPE_FLOW_DISSECTOR, BPF_FLOW_DISSECTOR, 1);
	int netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int flow = bpf_link_create(dissector, netns, BPF_FLOW_DISSECTOR, NULL);
	const int fds[] = {map, program, xdp, flow, -1};

	(void)state;
	assert_true(map >= 0 && xdp >= 0 && netns >= 0 && flow >= 0);
	for (unsigned i = 0; i < COUNT_OF(fds); i++) {
		struct kernel_door *door = door_up();

		kernel_door_destroy(&door);
		if (fds[i] >= 0)
			pin_instead(DOOR_LINK_PIN, fds[i]);
		else
			assert_int_equal(mkdir(pin_path(DOOR_LINK_PIN), 0700), 0);
		assert_stale(DOOR_LINK_PIN, -1);
	}
	(void)close(flow);
	(void)close(netns);
	(void)close(dissector);
	(void)close(xdp);
	(void)close(program);
	(void)close(map);
}

/* Attaches a door in another namespace, pins it here, and goes on until *out_stop is closed. */
static pid_t attach_elsewhere(int *out_stop)
{
	int ready[2];
	int stop[2];
	char byte = 0;
	pid_t child;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(stop), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct kernel_door_options options = {.pin_folder = lab_pins};
		struct kernel_door *door = NULL;

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)close(stop[1]);
		if (unshare(CLONE_NEWNET) < 0 || kernel_door_create(&options, why, &door) < 0 ||
			kernel_door_attach(door, why) < 0)
			_exit(1);
		kernel_door_destroy(&door);
		(void)!write(ready[1], &byte, 1);
		(void)!read(stop[0], &byte, 1);
		_exit(0);
	}
	(void)close(ready[1]);
	(void)close(stop[0]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	(void)close(ready[0]);
	*out_stop = stop[1];
	return child;
}

static void test_other_namespace(void **state)
{
	struct kernel_door_options options = {.pin_folder = lab_pins};
	struct kernel_door *door = NULL;
	struct kernel_door_info info;
	int status = 0;
	int stop;
	pid_t child = attach_elsewhere(&stop);

	(void)state;
	assert_int_equal(kernel_door_create(&options, why, &door), -ESTALE);
	assert_non_null(strstr(why, "another network namespace"));
	/* Its foreign programs cannot be seen from here. */
	assert_int_equal(kernel_door_open_pinned(lab_pins, why, &door), 0);
	info = info_of(door);
	assert_int_not_equal(info.program_id, 0);
	assert_false(info.foreign_is_known);
	kernel_door_destroy(&door);
	(void)close(stop);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	/* The namespace goes a moment after its last process; then its link is nothing but a name.
	 */
	for (unsigned i = 0; i < 1000 && kernel_door_create(&options, why, &door) < 0; i++)
		(void)usleep(10000);
	assert_non_null(door);
	assert_false(info_of(door).was_taken_up);
	assert_int_equal(info_of(door).program_id, 0);
	assert_int_equal(kernel_door_attach(door, why), 0);
	info = info_of(door);
	assert_int_not_equal(info.program_id, 0);
	door_serve(door, SERVED, PORT, "127.0.0.2/32=1");
	{
		int listener = listener_open(SERVED, PORT);

		assert_guarded(listener);
		(void)close(listener);
	}
	door_down(&door);
}

/* ---- versions */

static void test_other_version(void **state)
{
	struct kernel_door *door = door_up_attached();
	int listener = listener_open(SERVED, PORT);
	char old[128];
	char new[128];
	int lock;

	(void)state;
	(void)snprintf(old, sizeof(old), "%s/v0", lab_pins);
	(void)snprintf(new, sizeof(new), "%s/v%d", lab_pins, DOOR_VERSION);
	door_serve(door, SERVED, PORT, "127.0.0.2/32=1");
	kernel_door_destroy(&door);
	assert_int_equal(rename(new, old), 0);
	assert_true(kernel_door_is_pinned(lab_pins));
	assert_guarded(listener);
	door = door_up();
	assert_false(info_of(door).was_taken_up);
	assert_guarded(listener);
	door_serve(door, SERVED, PORT, "127.0.0.2/32=1");
	/* A process that has it keeps it. Both filter then. */
	lock = open(old, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(flock(lock, LOCK_EX), 0);
	assert_int_equal(kernel_door_attach(door, why), 0);
	assert_non_null(strstr(why, "v0"));
	assert_int_equal(info_of(door).foreign_count, 1);
	assert_guarded(listener);
	(void)close(lock);
	assert_int_equal(kernel_door_attach(door, why), 0);
	assert_string_equal(why, "");
	assert_int_equal(access(old, F_OK), -1);
	assert_int_equal(info_of(door).foreign_count, 0);
	assert_guarded(listener);
	door_down(&door);
	(void)close(listener);
}

/* Another version that works in another namespace is none of our business. */
static void test_other_version_elsewhere(void **state)
{
	struct kernel_door *door;
	char old[128];
	char new[128];
	int status = 0;
	int stop;
	pid_t child = attach_elsewhere(&stop);

	(void)state;
	(void)snprintf(old, sizeof(old), "%s/v0", lab_pins);
	(void)snprintf(new, sizeof(new), "%s/v%d", lab_pins, DOOR_VERSION);
	assert_int_equal(rename(new, old), 0);
	door = door_up_attached();
	assert_non_null(strstr(why, "another network namespace"));
	assert_int_equal(access(old, F_OK), 0);
	(void)close(stop);
	assert_int_equal(waitpid(child, &status, 0), child);
	door_down(&door);
}

static void test_foreign(void **state)
{
	struct kernel_door *door = door_up_attached();
	int program = program_load(BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP, 1);
	struct bpf_prog_info about = {0};
	uint32_t len = sizeof(about);
	struct kernel_door_info info = info_of(door);
	int link;

	(void)state;
	assert_true(info.foreign_is_known);
	assert_int_equal(info.foreign_count, 0);
	link = bpf_link_create(program, door->netns, BPF_SK_LOOKUP, NULL);
	assert_true(link >= 0);
	assert_int_equal(bpf_obj_get_info_by_fd(program, &about, &len), 0);
	info = info_of(door);
	assert_int_equal(info.foreign_count, 1);
	assert_int_equal(info.foreign[0], about.id);
	(void)close(link);
	(void)close(program);
	door_down(&door);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_daemon_down),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_lock),
		cmocka_unit_test(test_no_bpffs),
		cmocka_unit_test(test_stale_maps),
		cmocka_unit_test(test_stale_size),
		cmocka_unit_test(test_stale_binding),
		cmocka_unit_test(test_stale_link),
		cmocka_unit_test(test_other_namespace),
		cmocka_unit_test(test_other_version),
		cmocka_unit_test(test_other_version_elsewhere),
		cmocka_unit_test(test_foreign),
	};

	LAB_MAIN(tests);
}
