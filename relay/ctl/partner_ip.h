/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * partner_ip.h: "posternctl partner NAME ip ...": the addresses that a partner connects from
 * (policy/ip_list.h).
 *
 *   partner_ip.c         the commands that look: list, export, diff, test
 *   partner_ip_change.c  the commands that change: add, remove, import, replace
 *   partner_ip_file.c    the same without a relay: on the list's file
 *   control.c            with one: by its control socket
 *
 * Who decides is the relay, if one listens on control-socket. Else the file is changed, under a
 * lock on its folder, after the checks that the relay would make when it starts.
 */

#include "policy/ip_list.h"
#include "relay/ctl/control.h"
#include "relay/ctl/door.h"

extern const struct ctl_command ctl_partner_ip_commands[];

/* One run of a command. */
struct partner_ip {
	struct ctl *ctl;
	const struct ctl_command *command;
	struct control_place place;
	const char *partner;
	struct ctl_list operands; /* the first is the partner */
	const char *format;       /* --format; NULL: not given */
	int64_t timeout_s;
	bool has_relay; /* a relay has answered */
};

/* What is to be done with a list. */
struct partner_ip_change {
	const char *verb;       /* "add", "remove", "replace" */
	const struct cidr *set; /* these entries */
	bool dry_run, end_sessions;
	int64_t expected; /* generation; -1: any */
};

/*
 * Reads the options of a command, --timeout among them, up to the table's end; then the
 * configuration. There must be between min and max operands. CTL_OK, or CTL_USAGE after a message.
 */
int partner_ip_open(struct partner_ip *ask, char **argv, const struct ctl_option *options,
	unsigned min, unsigned max);

/* The list as it is, from the relay or the file. CTL_OK, or another status after a message. */
int partner_ip_list(struct partner_ip *ask, struct ip_list *out);

/* Reads the entries of a file ("-": standard input) in the format of --format. As above; mistakes
 * are CTL_USAGE. */
int partner_ip_import(const struct partner_ip *ask, const char *file, struct cidr **out);

/* Says why the relay refused; CTL_FAILED. */
int partner_ip_refused(const struct partner_ip *ask, const struct control_reply *reply);

int partner_ip_add_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int partner_ip_remove_run(
	struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int partner_ip_import_run(
	struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);
int partner_ip_replace_run(
	struct ctl *ctl, const struct ctl_command *command, int argc, char **argv);

/* ---- without a relay: as the relay would answer, with a status as partner_ip_list() */

/* The error of a change that a relay is to make, as one has started meanwhile. */
#define PARTNER_FILE_TAKEN "relay-started"

int partner_file_list(const struct partner_ip *ask, struct ip_list *out);
enum control_outcome partner_file_change(const struct partner_ip *ask,
	const struct partner_ip_change *change, struct control_reply *out);
int partner_file_test(
	const struct partner_ip *ask, const struct ip *peer, struct door_answers *out);
