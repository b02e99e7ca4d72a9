/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/partner_ip.h"

#include "policy/gate.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * No relay runs. A list is checked as a relay would when it starts: the configuration must be
 * valid, and the gate of it, with the list as it is to be, must come about.
 */
struct partner_file {
	struct policy *policy;
	const struct partner *partner;
	char path[PATH_MAX];
	int lock; /* the folder */
	struct ip_list list;
};

static void partner_file_close(struct partner_file *file)
{
	ip_list_clear(&file->list);
	if (file->policy != NULL)
		policy_destroy(&file->policy);
	if (file->lock >= 0)
		(void)close(file->lock);
}

/* The folder is locked by who changes a list in it. */
static int folder_lock(const char *folder)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return -errno;
	do
		rc = flock(fd, LOCK_EX);
	while (rc < 0 && errno == EINTR);
	if (rc == 0)
		return fd;
	rc = -errno;
	(void)close(fd);
	return rc;
}

/* CTL_OK, or another status after a message, and all is closed. */
static int partner_file_open(const struct partner_ip *ask, bool to_change, struct partner_file *out)
{
	int rc = 0;

	*out = (struct partner_file){.policy = ctl_policy_create(ask->ctl), .lock = -1};
	if (out->policy == NULL)
		return CTL_USAGE;
	out->partner = policy_partner(out->policy, ask->partner);
	if (out->partner == NULL) {
		ctl_error("there is no partner \"%s\"; posternctl partner list", ask->partner);
	} else if (out->policy->partner_lists == NULL) {
		ctl_error("there is no place for lists: set partner-lists in the transport section "
			  "of %s",
			ask->ctl->config);
	} else if (!ip_list_name_is_valid(ask->partner) ||
		   !ip_list_path(out->policy->partner_lists, ask->partner, out->path,
			   sizeof(out->path))) {
		ctl_error("\"%s\" cannot be the name of a file", ask->partner);
	} else {
		if (to_change)
			rc = out->lock = folder_lock(out->policy->partner_lists);
		if (rc < 0)
			ctl_error("%s: %s", out->policy->partner_lists, strerror(-rc));
		else
			rc = ip_list_read(out->path, stderr, &out->list);
		if (rc < 0 && rc != -EINVAL)
			ctl_error("%s: %s", out->path, strerror(-rc));
		if (rc == 0)
			return CTL_OK;
	}
	partner_file_close(out);
	return CTL_FAILED;
}

int partner_file_list(const struct partner_ip *ask, struct ip_list *out)
{
	struct partner_file file;
	int status = partner_file_open(ask, false, &file);

	if (status != CTL_OK)
		return status;
	*out = file.list;
	file.list = (struct ip_list){0};
	partner_file_close(&file);
	return CTL_OK;
}

/* ---- the answer, as a relay would give it */

static enum control_outcome refuse(
	struct control_reply *reply, const char *error, const char *format, ...) PRINTF_LIKE(3, 4);

static enum control_outcome refuse(
	struct control_reply *reply, const char *error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)snprintf(reply->error, sizeof(reply->error), "%s", error);
	(void)vsnprintf(reply->message, sizeof(reply->message), format, args);
	va_end(args);
	return CONTROL_REFUSED;
}

/* ---- what the list is to be */

static enum control_outcome entries_add(
	struct cidr *set, const struct cidr *entries, struct control_reply *reply)
{
	char text[PREFIX_TEXT_BYTES + 1];
	struct cidr_walk walk;
	struct prefix prefix;
	struct door_value value;

	cidr_walk_start(&walk, entries);
	while (cidr_walk_next(&walk, &prefix, &value)) {
		const struct door_value *old = cidr_get(set, &prefix);

		if (old != NULL && old->flags == value.flags)
			return refuse(reply, "exists", "%s is on the list already",
				ip_list_print(&prefix, value, text));
		if (cidr_put(set, &prefix, value) < 0)
			return refuse(reply, "no-memory", "out of memory");
	}
	return CONTROL_DONE;
}

static enum control_outcome entries_remove(
	struct cidr *set, const struct cidr *entries, struct control_reply *reply)
{
	char text[PREFIX_TEXT_BYTES + 1], old_text[PREFIX_TEXT_BYTES + 1];
	struct cidr_walk walk;
	struct prefix prefix;
	struct door_value value;

	cidr_walk_start(&walk, entries);
	while (cidr_walk_next(&walk, &prefix, &value)) {
		const struct door_value *old = cidr_get(set, &prefix);

		(void)ip_list_print(&prefix, value, text);
		if (old != NULL && old->flags != value.flags)
			return refuse(reply, "absent", "%s is not on the list, but %s is", text,
				ip_list_print(&prefix, *old, old_text));
		if (!cidr_remove(set, &prefix))
			return refuse(reply, "absent", "%s is not on the list", text);
	}
	return CONTROL_DONE;
}

/* The set as it is to be; to be destroyed. */
static enum control_outcome set_create(const struct partner_file *file,
	const struct partner_ip_change *change, struct cidr **out, struct control_reply *reply)
{
	bool is_whole = strcmp(change->verb, "replace") == 0;

	if (cidr_copy_create(is_whole ? change->set : file->list.set, out) < 0)
		return refuse(reply, "no-memory", "out of memory");
	if (is_whole)
		return CONTROL_DONE;
	return strcmp(change->verb, "add") == 0 ? entries_add(*out, change->set, reply)
						: entries_remove(*out, change->set, reply);
}

/* Would a relay take it? Mistakes are its own lines. */
static enum control_outcome set_check(
	const struct partner_file *file, const struct cidr *set, struct control_reply *reply)
{
	struct gate *gate = NULL;
	struct gate_stage *stage = NULL;
	char *lines = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&lines, &len);
	int rc = errors == NULL ? -errno : gate_create(file->policy, NULL, errors, &gate);
	uint64_t generation;

	if (rc == 0 && gate_partner_set(gate, file->partner, &generation) == NULL)
		ctl_note("no receive-connector has \"%s\" in remote-ip-partners, so its list lets "
			 "nobody in",
			file->partner->name);
	else if (rc == 0)
		rc = gate_stage_create(gate, file->partner, set, errors, &stage);
	if (errors != NULL && fclose(errors) != 0 && rc == 0)
		rc = -errno;
	if (rc < 0)
		(void)refuse(reply, rc == -EINVAL ? "conflict" : "no-memory", "%s",
			len > 0 ? lines : strerror(-rc));
	gate_stage_destroy(&stage);
	gate_destroy(&gate);
	free(lines);
	return rc < 0 ? CONTROL_REFUSED : CONTROL_DONE;
}

/*
 * What root makes must be readable for the user that the relay becomes. Only a file that is ours,
 * and has no other name, is given away, and of one in a folder that is root's its group only: it is
 * not for the relay to change, and the folder may not be the one that was meant.
 */
static void file_give(const struct partner_file *file)
{
	const char *name = geteuid() == 0 ? file->policy->user : NULL;
	const struct passwd *user = name == NULL ? NULL : getpwnam(name);
	int fd = user == NULL ? -1 : open(file->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat status, folder;

	if (fd < 0)
		return;
	if (fstat(fd, &status) == 0 && fstat(file->lock, &folder) == 0 && S_ISREG(status.st_mode) &&
		status.st_nlink == 1 && status.st_uid == 0 &&
		(fchown(fd, folder.st_uid == 0 ? 0 : user->pw_uid, user->pw_gid) < 0 ||
			fchmod(fd, (status.st_mode & 0777) | S_IRGRP) < 0))
		ctl_note("%s: %s; the relay's user \"%s\" must be able to read it", file->path,
			strerror(errno), name);
	(void)close(fd);
}

/*
 * Reading and checking a long list takes seconds. A relay that has come meanwhile is its writer,
 * and does not take our lock.
 */
static enum control_outcome file_check(
	const struct partner_ip *ask, const struct partner_file *file, struct control_reply *reply)
{
	struct ip_list_file now;

	if (control_is_there(&ask->place))
		return refuse(reply, PARTNER_FILE_TAKEN,
			"a relay has started meanwhile; nothing was applied: ask again");
	ip_list_look(file->path, &now);
	if (!ip_list_file_is_same(&now, &file->list.file))
		return refuse(reply, "disk",
			"%s was changed by somebody else meanwhile; nothing was applied: ask again",
			file->path);
	return CONTROL_DONE;
}

static enum control_outcome file_write(const struct partner_ip *ask,
	const struct partner_file *file, struct cidr *set, struct control_reply *reply)
{
	const struct ip_list list = {.set = set, .generation = file->list.generation + 1};
	enum control_outcome outcome = file_check(ask, file, reply);
	int rc;

	if (outcome != CONTROL_DONE)
		return outcome;
	rc = ip_list_write(file->path, ask->partner, &list);
	if (rc < 0)
		return refuse(
			reply, "disk", "%s: %s; the list is as it was", file->path, strerror(-rc));
	reply->generation = list.generation;
	file_give(file);
	if (control_is_there(&ask->place))
		ctl_note("a relay has started meanwhile; to be sure that it has this list, reload "
			 "it (SIGHUP)");
	return CONTROL_DONE;
}

static enum control_outcome file_change(const struct partner_ip *ask,
	const struct partner_file *file, const struct partner_ip_change *change,
	struct control_reply *reply)
{
	struct ip_list_diff diff = {0};
	struct cidr *set = NULL;
	enum control_outcome outcome;

	reply->has_generation = true;
	reply->generation = file->list.generation;
	if (change->expected >= 0 && (uint64_t)change->expected != file->list.generation)
		return refuse(reply, "expected-generation",
			"the list is of generation %" PRIu64 ", not %" PRId64,
			file->list.generation, change->expected);
	outcome = set_create(file, change, &set, reply);
	if (outcome == CONTROL_DONE)
		outcome = set_check(file, set, reply);
	if (outcome == CONTROL_DONE) {
		ip_list_compare(file->list.set, set, &diff, NULL, NULL);
		reply->added = diff.added;
		reply->removed = diff.removed;
		reply->kept = diff.kept;
	}
	if (outcome == CONTROL_DONE && !change->dry_run && diff.added + diff.removed > 0)
		outcome = file_write(ask, file, set, reply);
	cidr_destroy(&set);
	return outcome;
}

enum control_outcome partner_file_change(const struct partner_ip *ask,
	const struct partner_ip_change *change, struct control_reply *out)
{
	struct partner_file file;
	enum control_outcome outcome;

	*out = (struct control_reply){0};
	if (partner_file_open(ask, true, &file) != CTL_OK)
		return CONTROL_BROKEN;
	outcome = file_change(ask, &file, change, out);
	partner_file_close(&file);
	return control_reply_create_line(out, outcome, false);
}

/* ---- test */

static void answer_fill(
	struct gate *gate, unsigned binding, const struct ip *peer, struct door_answer *out)
{
	const struct address *address = gate_binding_address(gate, binding);
	char prefix[PREFIX_TEXT_BYTES];
	struct gate_answer answer = {0};

	address_print(address, out->binding, sizeof(out->binding));
	out->is_served = gate_ask(gate, address, peer, 0, &answer);
	out->is_excluded = answer.is_excluded;
	out->is_balancer = answer.is_balancer;
	if (answer.connector != NULL)
		(void)snprintf(
			out->connector, sizeof(out->connector), "%s", answer.connector->name);
	if (answer.partner != NULL)
		(void)snprintf(out->partner, sizeof(out->partner), "%s", answer.partner->name);
	if (answer.connector != NULL || answer.is_excluded)
		(void)snprintf(out->prefix, sizeof(out->prefix), "%s",
			prefix_print(&answer.prefix, prefix));
}

static int answers_create(struct gate *gate, const struct ip *peer, struct door_answers *out)
{
	unsigned count = gate_binding_count(gate);

	out->rows = calloc(count > 0 ? count : 1, sizeof(*out->rows));
	if (out->rows == NULL) {
		ctl_error("out of memory");
		return CTL_FAILED;
	}
	for (; out->count < count; out->count++)
		answer_fill(gate, out->count, peer, &out->rows[out->count]);
	return CTL_OK;
}

int partner_file_test(const struct partner_ip *ask, const struct ip *peer, struct door_answers *out)
{
	struct partner_file file;
	struct gate *gate = NULL;
	int status = partner_file_open(ask, false, &file);
	int rc;

	if (status != CTL_OK)
		return status;
	rc = gate_create(file.policy, NULL, stderr, &gate);
	if (rc < 0 && rc != -EINVAL)
		ctl_error("%s", strerror(-rc));
	status = rc < 0 ? CTL_FAILED : answers_create(gate, peer, out);
	gate_destroy(&gate);
	partner_file_close(&file);
	return status;
}
