/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/door.h"

#include "bpf/loader.h"
#include <errno.h>
#include <string.h>

#define STATUS_PATIENCE_S 10

#define DEFAULT_FOLDER "/sys/fs/bpf/postern" /* as bpf-pin-folder in policy/keywords.c */

static const char *pin_folder(const struct control_place *place)
{
	const char *folder = ctl_config_word(&place->config, "bpf-pin-folder");

	return folder != NULL ? folder : DEFAULT_FOLDER;
}

/* ---- door status */

/* What the pins say when no relay runs; CTL_FAILED in any case. */
static int status_of_pins(const struct ctl *ctl, const struct control_place *place)
{
	struct door_status status;
	int rc = door_pins_create(pin_folder(place), &status);

	if (place->socket == NULL)
		ctl_error("there is no control-socket to ask a relay; set one in the transport "
			  "section of %s",
			ctl->config);
	else
		ctl_error("the relay is not running: everybody is refused");
	if (rc == -ENOENT)
		ctl_error("and nothing is pinned in %s: there is no door in the kernel",
			pin_folder(place));
	if (rc == 0) {
		if (ctl->json)
			door_status_print_json(&status);
		else
			door_status_print(ctl, &status);
		door_status_destroy(&status);
	}
	return CTL_FAILED;
}

static int status_of_relay(
	const struct ctl *ctl, const struct control_place *place, const struct control_reply *reply)
{
	struct door_status status;
	size_t len;
	const char *object = control_reply_object(reply, &len);
	int rc = door_status_create(object, len, &status);

	if (rc < 0) {
		ctl_error("the relay's answer is no status of a door; is the relay of another "
			  "version than posternctl %s?",
			POSTERN_VERSION);
		return CTL_FAILED;
	}
	door_pins_find_foreign(pin_folder(place), &status);
	if (ctl->json)
		rc = door_status_print_text(object, len, &status);
	else
		door_status_print(ctl, &status);
	door_status_destroy(&status);
	return rc < 0 ? CTL_FAILED : CTL_OK;
}

static int status_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static struct control_place place;
	const struct control_request request = {
		.command = "door-status", .patience_s = STATUS_PATIENCE_S};
	int64_t timeout_s = 0;
	const struct ctl_option options[] = {
		{"timeout", CTL_OPTION_NUMBER, &timeout_s, 1, 3600, false}, {.name = NULL}};
	struct ctl_list operands;
	struct control_reply reply;
	int status = CTL_FAILED;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0 ||
		control_place_read(ctl, timeout_s, &place) < 0)
		return CTL_USAGE;
	switch (control_ask(&place, &request, &reply)) {
	case CONTROL_DONE:
		status = status_of_relay(ctl, &place, &reply);
		break;
	case CONTROL_REFUSED:
		ctl_error("%s", reply.message);
		break;
	case CONTROL_NO_RELAY:
		status = status_of_pins(ctl, &place);
		break;
	case CONTROL_BROKEN:
		break;
	}
	control_reply_clear(&reply);
	return status;
}

/* ---- door top */

static int top_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static struct control_place place;
	int64_t interval_s = 2, count = 0;
	const struct ctl_option options[] = {
		{"interval", CTL_OPTION_NUMBER, &interval_s, 1, 3600, false},
		{"count", CTL_OPTION_NUMBER, &count, 1, INT32_MAX, false}, {.name = NULL}};
	struct ctl_list operands;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0 ||
		control_place_read(ctl, STATUS_PATIENCE_S, &place) < 0)
		return CTL_USAGE;
	if (place.socket == NULL) {
		ctl_error("there is no control-socket to ask a relay; set one in the transport "
			  "section of %s",
			ctl->config);
		return CTL_FAILED;
	}
	return door_top(&place, pin_folder(&place), interval_s * 1000, count);
}

/* ---- door remove */

static int remove_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	static struct control_place place;
	const struct ctl_option options[] = {{.name = NULL}};
	struct ctl_list operands;
	char why[KERNEL_DOOR_WHY_BYTES] = "";
	int rc;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0 ||
		control_place_read(ctl, 0, &place) < 0)
		return CTL_USAGE;
	if (control_is_there(&place)) {
		ctl_error("a relay runs (it listens on %s); stop it first, or set bpf = off and "
			  "start it again",
			place.socket);
		return CTL_FAILED;
	}
	rc = kernel_door_remove(pin_folder(&place), why);
	if (rc == 0) {
		(void)printf("the door in %s is removed: the kernel refuses nobody any more\n",
			pin_folder(&place));
		return CTL_OK;
	}
	if (rc == -ENOENT) {
		(void)printf("nothing is pinned in %s: there is no door in the kernel\n",
			pin_folder(&place));
		return CTL_OK;
	}
	ctl_error("%s", *why != '\0' ? why : strerror(-rc));
	return CTL_FAILED;
}

const struct ctl_command ctl_door_commands[] = {
	{"door status", "[--timeout S]", "who decides who may connect, and whom it refused",
		status_run},
	{"door top", "[--interval S] [--count N]", "the same, live: rates, and who is refused",
		top_run},
	{"door remove", "", "take the door of a relay that does not run out of the kernel",
		remove_run},
	{NULL, NULL, NULL, NULL},
};
