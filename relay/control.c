/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/control.h"

#include "relay/base/clock.h"
#include "relay/base/log.h"
#include "relay/control_private.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Who asks more than so many at a time waits in the kernel's queue. */
#define CONTROL_CLIENTS_MAX 16
#define CONTROL_BACKLOG 64

#define CONTROL_READ_BYTES 65536

_Atomic unsigned control_patience_ms = 10000;

struct control {
	struct control_desk desk;
	char *path; /* NULL: there is no socket */
	int listener;
	int wake;
	_Atomic bool is_ending;
	bool is_started;
	pthread_t thread;
	struct asker clients[CONTROL_CLIENTS_MAX];
	size_t bytes_promised; /* of all requests under way */
	uint64_t accept_ms;    /* not before; 0: at once */
};

/* After running out of descriptors or memory, accept is tried again so much later. */
#define CONTROL_RETRY_MS 200

/* ---- the socket */

static int control_complain(const char *path, const char *what, int rc, FILE *errors)
{
	(void)fprintf(errors, "control-socket %s: %s: %s\n", path, what, strerror(-rc));
	return rc;
}

/* Does a relay listen there? If not, what it left goes. */
static int control_clear_path(const struct sockaddr_un *address, FILE *errors)
{
	struct stat there;
	int fd;
	int rc;

	if (lstat(address->sun_path, &there) < 0)
		return errno == ENOENT ? 0
				       : control_complain(address->sun_path, "cannot be looked at",
						 -errno, errors);
	if (!S_ISSOCK(there.st_mode))
		return control_complain(
			address->sun_path, "is something else, and is left alone", -EEXIST, errors);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	rc = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
	(void)close(fd);
	if (rc == 0 || rc == -EAGAIN)
		return control_complain(
			address->sun_path, "another relay listens there", -EADDRINUSE, errors);
	if (unlink(address->sun_path) < 0)
		return control_complain(address->sun_path,
			"what an earlier relay left cannot be removed", -errno, errors);
	return 0;
}

/*
 * The socket that was just made, and nothing else: its folder may be one in which another user puts
 * a link in its place.
 */
static int control_give_to(const char *path, mode_t mode, uid_t uid, gid_t gid, FILE *errors)
{
	int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	char name[32];
	struct stat there;
	int rc = 0;

	if (fd < 0 || fstat(fd, &there) < 0)
		rc = control_complain(path, "cannot be looked at", -errno, errors);
	else if (!S_ISSOCK(there.st_mode) || there.st_uid != geteuid() || there.st_nlink != 1)
		rc = control_complain(
			path, "somebody has put another in its place", -EEXIST, errors);
	(void)snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	/* The mode while it is still ours: a service that may change owners may do no more. */
	if (rc == 0 && chmod(name, mode) < 0)
		rc = control_complain(path, "its mode cannot be set", -errno, errors);
	if (rc == 0 && fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0)
		rc = control_complain(path,
			"its owner or group cannot be set; start the relay as root, or as a "
			"member of control-group",
			-errno, errors);
	if (fd >= 0)
		(void)close(fd);
	return rc;
}

/* Its owner and group, before anybody can connect. */
static int control_give(const char *path, const struct policy *policy, FILE *errors)
{
	const struct passwd *user = NULL;
	const struct group *group = NULL;
	uid_t uid = (uid_t)-1;
	gid_t gid = (gid_t)-1;

	if (policy->user != NULL && geteuid() == 0) {
		user = getpwnam(policy->user);
		if (user == NULL)
			return control_complain(path, policy->user, -ENOENT, errors);
		uid = user->pw_uid;
	}
	if (policy->control_group != NULL) {
		group = getgrnam(policy->control_group);
		if (group == NULL) {
			(void)fprintf(errors,
				"%s: control-group: there is no group \"%s\" here, expected one of "
				"/etc/group\n",
				policy->file, policy->control_group);
			return -EINVAL;
		}
		gid = group->gr_gid;
	}
	return control_give_to(path, policy->control_group == NULL ? 0600 : 0660, uid, gid, errors);
}

static int control_open(struct control *control, const struct policy *policy, FILE *errors)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	mode_t mask;
	int rc;

	if (strlen(control->path) >= sizeof(address.sun_path))
		return control_complain(control->path, "too long", -ENAMETOOLONG, errors);
	memcpy(address.sun_path, control->path, strlen(control->path) + 1);
	rc = control_clear_path(&address, errors);
	if (rc < 0)
		return rc;
	control->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (control->listener < 0)
		return -errno;
	mask = umask(0177);
	rc = bind(control->listener, (const struct sockaddr *)&address, sizeof(address)) < 0
		     ? -errno
		     : 0;
	(void)umask(mask);
	if (rc < 0) {
		(void)close(control->listener);
		control->listener = -1;
		return control_complain(control->path, "cannot be made", rc, errors);
	}
	rc = control_give(control->path, policy, errors);
	if (rc == 0 && listen(control->listener, CONTROL_BACKLOG) < 0)
		rc = control_complain(control->path, "cannot listen", -errno, errors);
	return rc;
}

/* The queue's settings, for as long as the relay runs: a reload may change the policy. */
static int control_create_desk(struct control *control, const struct policy *policy)
{
	control->desk.queue = policy->queue;
	control->desk.queue.spool_folder = NULL;
	control->desk.queue.postmaster = NULL;
	control->desk.queue.tracking_log_folder = NULL;
	if (policy->queue.spool_folder == NULL)
		return 0;
	control->desk.spool_folder = strdup(policy->queue.spool_folder);
	return control->desk.spool_folder == NULL ? -ENOMEM : 0;
}

int control_create(
	const struct policy *policy, struct doorman *doorman, FILE *errors, struct control **out)
{
	struct control *control = calloc(1, sizeof(*control));
	int rc;

	if (control == NULL)
		return -ENOMEM;
	control->desk.doorman = doorman;
	control->listener = -1;
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		control->clients[i].fd = -1;
	control->wake = eventfd(0, EFD_CLOEXEC);
	rc = control->wake < 0 ? -errno : control_create_desk(control, policy);
	if (rc == 0 && policy->control_socket != NULL) {
		control->path = strdup(policy->control_socket);
		rc = control->path == NULL ? -ENOMEM : control_open(control, policy, errors);
	}
	if (rc < 0)
		control_destroy(&control);
	else
		*out = control;
	return rc;
}

void control_set_hooks(struct control *control, const struct control_hooks *hooks)
{
	control->desk.hooks = *hooks;
}

/* ---- one connection */

static void asker_enter(struct asker *client, enum asker_state state)
{
	static const unsigned edges[] = {
		[ASKER_LINE] = 1U << ASKER_BYTES | 1U << ASKER_ANSWER,
		[ASKER_BYTES] = 1U << ASKER_ANSWER,
		[ASKER_ANSWER] = 0,
	};

	ASSERT(edges[client->state] & 1U << state);
	client->state = state;
	client->deadline_ms = clock_now_ms() + control_patience_ms;
}

static void asker_close(struct control *control, struct asker *client)
{
	(void)close(client->fd);
	control->bytes_promised -= client->bytes;
	json_decref(client->request);
	free(client->in);
	free(client->out);
	*client = (struct asker){.fd = -1};
}

/* Room for the line, or for the bytes as they come: who promises much gets it by and by. */
static bool asker_create_room(struct asker *client, size_t most)
{
	size_t size =
		client->in_size < CONTROL_READ_BYTES ? CONTROL_READ_BYTES : 2 * client->in_size;
	char *in;

	if (client->in_len < client->in_size)
		return true;
	size = size < most ? size : most;
	in = realloc(client->in, size);
	if (in == NULL)
		return false;
	client->in = in;
	client->in_size = size;
	return true;
}

static void asker_answer(struct asker *client, const char *error, const char *message)
{
	if (client->out == NULL)
		control_refuse(client, error, message);
	asker_enter(client, ASKER_ANSWER);
}

static void asker_got_bytes(struct control *control, struct asker *client)
{
	uint64_t started_ms = clock_now_ms();
	uint64_t took_ms;

	if (client->in_len < client->bytes)
		return;
	control_run(&control->desk, client);
	asker_answer(client, "no-memory", "there is no memory for an answer");
	/* The others were not looked at meanwhile. */
	took_ms = clock_now_ms() - started_ms;
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (&control->clients[i] != client)
			control->clients[i].deadline_ms += took_ms;
}

static void asker_got_line(struct control *control, struct asker *client, size_t line_len)
{
	if (!control_parse(client, line_len)) {
		asker_answer(client, "bad-request", "the request cannot be read");
		return;
	}
	if (client->bytes > IP_LIST_FILE_BYTES_MAX - control->bytes_promised) {
		client->bytes = 0;
		asker_answer(client, "no-memory",
			"other requests with long lists are under way: try again later");
		return;
	}
	control->bytes_promised += client->bytes;
	client->in_len -= line_len + 1;
	memmove(client->in, client->in + line_len + 1, client->in_len);
	asker_enter(client, ASKER_BYTES);
	asker_got_bytes(control, client);
}

/* Some more has been read. */
static void asker_look(struct control *control, struct asker *client)
{
	const char *end;

	if (client->state == ASKER_BYTES) {
		asker_got_bytes(control, client);
		return;
	}
	end = memchr(client->in, '\n', client->in_len);
	if (end != NULL)
		asker_got_line(control, client, (size_t)(end - client->in));
	else if (client->in_len >= CONTROL_LINE_BYTES_MAX)
		asker_answer(client, "bad-request", "the line is too long, at most 65536 bytes");
}

static void asker_read(struct control *control, struct asker *client)
{
	const size_t most = client->state == ASKER_LINE ? CONTROL_LINE_BYTES_MAX : client->bytes;
	ssize_t len;

	if (!asker_create_room(client, most)) {
		asker_answer(client, "no-memory", "there is no memory for the request");
		return;
	}
	len = recv(client->fd, client->in + client->in_len, client->in_size - client->in_len, 0);
	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (len <= 0) {
		asker_close(control, client);
		return;
	}
	client->in_len += (size_t)len;
	asker_look(control, client);
}

static void asker_write(struct control *control, struct asker *client)
{
	ssize_t len = send(client->fd, client->out + client->out_at,
		client->out_len - client->out_at, MSG_NOSIGNAL);

	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (len > 0) {
		client->out_at += (size_t)len;
		client->deadline_ms = clock_now_ms() + control_patience_ms;
	}
	if (len <= 0 || client->out_at == client->out_len)
		asker_close(control, client);
}

static void asker_look_at_clock(struct control *control, struct asker *client, uint64_t now_ms)
{
	if (client->fd < 0 || now_ms < client->deadline_ms)
		return;
	if (client->state == ASKER_ANSWER)
		asker_close(control, client);
	else
		asker_answer(client, "bad-request",
			"the request was not there within ten seconds: its line, and as many bytes "
			"as that says");
}

/* ---- the thread */

static void control_accept(struct control *control)
{
	struct asker *client = NULL;
	socklen_t len = sizeof(client->peer);
	int fd = accept4(control->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX && client == NULL; i++)
		if (control->clients[i].fd < 0)
			client = &control->clients[i];
	/* Who waits makes the socket readable all the while. */
	if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
		control->accept_ms = clock_now_ms() + CONTROL_RETRY_MS;
	if (fd < 0 || client == NULL) {
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	*client = (struct asker){.fd = fd, .deadline_ms = clock_now_ms() + control_patience_ms};
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &client->peer, &len) < 0)
		asker_close(control, client);
}

/* What is waited for: first our own descriptors, then the clients in their order. */
struct watch {
	struct pollfd fds[3 + CONTROL_CLIENTS_MAX];
	int timeout_ms;
};

static void control_watch(const struct control *control, struct watch *watch)
{
	const uint64_t now_ms = clock_now_ms();
	bool has_room = false;

	watch->timeout_ms = control->accept_ms > now_ms ? (int)(control->accept_ms - now_ms) : -1;
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		const struct asker *client = &control->clients[i];
		uint64_t left_ms = client->deadline_ms > now_ms ? client->deadline_ms - now_ms : 0;

		has_room |= client->fd < 0;
		watch->fds[3 + i] = (struct pollfd){.fd = client->fd,
			.events = client->state == ASKER_ANSWER ? POLLOUT : POLLIN};
		if (client->fd >= 0 &&
			(watch->timeout_ms < 0 || left_ms < (uint64_t)watch->timeout_ms))
			watch->timeout_ms = (int)left_ms;
	}
	watch->fds[0] = (struct pollfd){.fd = control->wake, .events = POLLIN};
	watch->fds[1] =
		(struct pollfd){.fd = doorman_event_fd(control->desk.doorman), .events = POLLIN};
	has_room &= control->accept_ms <= now_ms;
	watch->fds[2] = (struct pollfd){.fd = has_room ? control->listener : -1, .events = POLLIN};
}

static void control_serve(struct control *control, const struct watch *watch)
{
	const uint64_t now_ms = clock_now_ms();

	if (watch->fds[1].revents != 0)
		doorman_read_events(control->desk.doorman);
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		struct asker *client = &control->clients[i];

		if (watch->fds[3 + i].revents == 0)
			asker_look_at_clock(control, client, now_ms);
		else if (client->state == ASKER_ANSWER)
			asker_write(control, client);
		else
			asker_read(control, client);
	}
	if (watch->fds[2].revents != 0)
		control_accept(control);
}

static void *control_main(void *arg)
{
	struct control *control = arg;
	struct watch watch;

	while (!atomic_load(&control->is_ending)) {
		control_watch(control, &watch);
		if (poll(watch.fds, COUNT_OF(watch.fds), watch.timeout_ms) < 0 && errno != EINTR)
			break;
		control_serve(control, &watch);
	}
	return NULL;
}

int control_start(struct control *control)
{
	int rc = -pthread_create(&control->thread, NULL, control_main, control);

	control->is_started = rc == 0;
	return rc;
}

void control_destroy(struct control **out)
{
	struct control *control = *out;
	uint64_t one = 1;

	*out = NULL;
	if (control == NULL)
		return;
	atomic_store(&control->is_ending, true);
	if (control->is_started) {
		ssize_t written = write(control->wake, &one, sizeof(one));

		(void)written; /* it cannot fail: the counter never comes near its end */
		(void)pthread_join(control->thread, NULL);
	}
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (control->clients[i].fd >= 0)
			asker_close(control, &control->clients[i]);
	if (control->listener >= 0) {
		(void)close(control->listener);
		/* Without the right to, it stays, and the next relay replaces it. */
		(void)unlink(control->path);
	}
	if (control->wake >= 0)
		(void)close(control->wake);
	free(control->desk.spool_folder);
	free(control->path);
	free(control);
}
