/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/doorman.h"

#include "relay/base/clock.h"
#include "relay/base/log.h"
#include "relay/doorman_private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What to do about pins that are in the way. */
#define REMEDY_REMOVE "\"posternctl door remove\" as root takes it away"

struct doorman_seam doorman_seam;

/* ---- who decides */

static void doorman_tell(const struct doorman *doorman)
{
	char quoted[KERNEL_DOOR_WHY_BYTES];
	struct kernel_door_info info;

	if (doorman->kernel == NULL) {
		log_event(doorman->bpf == BPF_OFF ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, NULL,
			"door", "mode=userspace why=%s",
			log_quote_text(doorman->why, quoted, sizeof(quoted)));
		return;
	}
	kernel_door_info(doorman->kernel, &info);
	log_event(LOG_LEVEL_INFO, NULL, "door",
		"mode=kernel program=%u link=%u netns=%lu folder=%s taken-up=%s foreign=%u",
		info.program_id, info.link_id, (unsigned long)info.netns_inode,
		log_quote_text(info.folder, quoted, sizeof(quoted)),
		info.was_taken_up ? "yes" : "no", info.foreign_count);
}

/* Userspace decides, so no program of ours may filter any more. */
static int doorman_remove_pins(const struct policy *policy, const char *because, FILE *errors)
{
	char why[KERNEL_DOOR_WHY_BYTES] = "";
	int rc;

	if (!kernel_door_is_pinned(policy->bpf_pin_folder))
		return 0;
	rc = kernel_door_remove(policy->bpf_pin_folder, why);
	if (rc == 0 || rc == -ENOENT)
		return 0;
	(void)fprintf(errors,
		"%s: %s, but a door of an earlier start is in %s and would go on filtering: "
		"%s; " REMEDY_REMOVE "\n",
		policy->file, because, policy->bpf_pin_folder, why);
	return rc;
}

/*
 * The numbers that the pinned maps have are kept. The world's gate was made without knowing them,
 * and is made again if it has others, which takes as long as the lists are.
 */
static int doorman_name(struct doorman *doorman, struct world *world, FILE *errors)
{
	int rc;

	gate_read_ids(world->gate, doorman->ids);
	if (doorman->kernel == NULL)
		return 0;
	rc = kernel_door_read_names(doorman->kernel, doorman->names);
	if (rc < 0 || gate_ids_are_blank(doorman->names))
		return rc;
	*doorman->ids = *doorman->names;
	return gate_has_ids(world->gate, doorman->ids)
		       ? 0
		       : world_renew_gate(world, doorman->ids, errors);
}

/* -errno with the reason in doorman->why, or on errors if it is a mistake of the configuration. */
static int doorman_open_kernel(struct doorman *doorman, struct world *world, FILE *errors)
{
	const struct policy *policy = world->policy;
	const struct kernel_door_options options = {.pin_folder = policy->bpf_pin_folder,
		.interfaces = policy->shield_interfaces,
		.interface_count = policy->shield_interface_count,
		.fail = doorman_seam.fail,
		.prefixes_max = doorman_seam.prefixes_max};
	char *text = NULL;
	size_t len = 0;
	FILE *mistakes;
	int rc = kernel_door_create(&options, doorman->why, &doorman->kernel);

	if (rc < 0)
		return rc;
	mistakes = open_memstream(&text, &len);
	if (mistakes == NULL)
		return -ENOMEM;
	rc = doorman_name(doorman, world, errors);
	if (rc == 0)
		rc = doorman_write_names(doorman, mistakes);
	if (rc == 0)
		rc = doorman_create_guards(doorman, world, true, mistakes);
	if (rc == 0)
		rc = doorman_guard_locked(doorman, world);
	(void)fclose(mistakes);
	if (rc < 0) {
		if (len > 0)
			text[strcspn(text, "\n")] = '\0';
		(void)snprintf(
			doorman->why, sizeof(doorman->why), "%s", len > 0 ? text : strerror(-rc));
	} else {
		rc = kernel_door_attach(doorman->kernel, doorman->why);
	}
	free(text);
	return rc;
}

/* The kernel's door cannot be had. */
static int doorman_do_without(
	struct doorman *doorman, struct world *world, bool was_pinned, int failed, FILE *errors)
{
	const struct policy *policy = world->policy;
	char because[KERNEL_DOOR_WHY_BYTES + 64];
	bool had_it = doorman->kernel != NULL;

	kernel_door_destroy(&doorman->kernel);
	if (policy->bpf == BPF_REQUIRED) {
		(void)fprintf(errors, "%s: bpf = required, and the kernel cannot decide: %s\n",
			policy->file, doorman->why);
		/* What was made by this start goes; what was there before stays. */
		if (had_it && !was_pinned)
			(void)doorman_remove_pins(policy, "the start failed", errors);
		return failed;
	}
	/* What does not fit is for the operator to judge, and another relay's is not ours. */
	if (!had_it && kernel_door_is_pinned(policy->bpf_pin_folder)) {
		(void)fprintf(errors,
			"%s: the door that an earlier start has left in %s cannot be used, and "
			"would go on filtering: %s; " REMEDY_REMOVE "\n",
			policy->file, policy->bpf_pin_folder, doorman->why);
		return failed;
	}
	(void)snprintf(because, sizeof(because), "the kernel cannot decide (%s)", doorman->why);
	return doorman_remove_pins(policy, because, errors);
}

static int doorman_decide(struct doorman *doorman, struct world *world, FILE *errors)
{
	const struct policy *policy = world->policy;
	const bool was_pinned = kernel_door_is_pinned(policy->bpf_pin_folder);
	int rc;

	doorman->bpf = policy->bpf;
	if (policy->bpf == BPF_OFF) {
		(void)snprintf(doorman->why, sizeof(doorman->why), "bpf = off");
		rc = doorman_remove_pins(policy, "bpf = off", errors);
	} else {
		rc = doorman_open_kernel(doorman, world, errors);
		doorman->has_made_pins = rc == 0 && !was_pinned;
		if (rc == 0)
			return 0;
		rc = doorman_do_without(doorman, world, was_pinned, rc, errors);
	}
	return rc < 0 ? rc : doorman_name(doorman, world, errors);
}

int doorman_create(struct world *world, FILE *errors, struct doorman **out)
{
	struct doorman *doorman = calloc(1, sizeof(*doorman));
	int rc;

	if (doorman == NULL)
		return -ENOMEM;
	doorman->started_ms = clock_now_ms();
	(void)pthread_mutex_init(&doorman->lock, NULL);
	(void)pthread_mutex_init(&doorman->names_lock, NULL);
	doorman->events = calloc(DOORMAN_EVENTS_MAX, sizeof(*doorman->events));
	rc = doorman->events == NULL ? -ENOMEM : refusals_create(&doorman->refusals);
	if (rc == 0)
		rc = gate_ids_create(&doorman->ids);
	if (rc == 0)
		rc = gate_ids_create(&doorman->names);
	if (rc == 0)
		rc = doorman_decide(doorman, world, errors);
	if (rc == 0)
		rc = doorman_create_files(world, &doorman->files);
	if (rc < 0) {
		doorman_destroy(&doorman);
		return rc;
	}
	doorman->world = world_hold(world);
	doorman_keep_names(doorman);
	doorman_note_slots(doorman, world);
	doorman_tell(doorman);
	*out = doorman;
	return 0;
}

void doorman_destroy(struct doorman **out)
{
	struct doorman *doorman = *out;

	*out = NULL;
	if (doorman == NULL)
		return;
	kernel_door_destroy(&doorman->kernel);
	world_release(&doorman->world);
	gate_ids_destroy(&doorman->ids);
	gate_ids_destroy(&doorman->names);
	refusals_destroy(&doorman->refusals);
	free(doorman->guards.rows);
	free(doorman->files);
	free(doorman->events);
	(void)pthread_mutex_destroy(&doorman->lock);
	(void)pthread_mutex_destroy(&doorman->names_lock);
	free(doorman);
}

void doorman_abandon(struct doorman **out)
{
	struct doorman *doorman = *out;

	if (doorman != NULL && doorman->has_made_pins) {
		kernel_door_destroy(&doorman->kernel);
		(void)doorman_remove_pins(doorman->world->policy, "the start failed", stderr);
	}
	doorman_destroy(out);
}

void doorman_set_hooks(struct doorman *doorman, const struct doorman_hooks *hooks)
{
	doorman->hooks = *hooks;
}

struct gate_ids *doorman_ids(struct doorman *doorman)
{
	doorman->changes_seen = atomic_load(&doorman->changes);
	/* The world before may have come to nothing without a word to us. */
	*doorman->ids = *doorman->names;
	return doorman->ids;
}

bool doorman_is_kernel(const struct doorman *doorman)
{
	return doorman->kernel != NULL;
}

/* ---- asking */

bool doorman_ask(struct doorman *doorman, struct world *world, const struct address *local,
	const struct ip *peer, uint32_t zone, struct gate_answer *out)
{
	struct door_value value;
	int rc;

	/* Numbers mean the same here and there only if both are of one world. */
	if (doorman->kernel == NULL || atomic_load(&doorman->kernel_world) != world)
		return gate_ask(world->gate, local, peer, zone, out);
	rc = kernel_door_ask(doorman->kernel, local, peer, &value);
	if (rc == -ENOENT) {
		*out = (struct gate_answer){0};
		return false;
	}
	if (rc < 0 || !gate_resolve(world->gate, value, out)) {
		bool may_enter = gate_ask(world->gate, local, peer, zone, out);

		out->is_zoned = rc == 0 && (value.flags & DOOR_ZONED) != 0;
		return may_enter;
	}
	return out->connector != NULL && !out->is_excluded;
}

enum door_reason doorman_reason(const struct gate_answer *answer)
{
	return answer->is_excluded ? DOOR_REASON_EXCLUDED : DOOR_REASON_STRANGER;
}
