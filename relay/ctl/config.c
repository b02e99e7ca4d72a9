/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ask.h"

#include "policy/lint.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- config check, config lint */

/*
 * Reads the configuration as the relay does; its mistakes and warnings go to standard output,
 * as they are the answer here. Returns CTL_OK, CTL_FAILED for mistakes, CTL_USAGE.
 */
static int config_load(struct ctl *ctl, struct policy **out, unsigned *out_lines)
{
	char *text = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&text, &len);
	int rc;

	*out_lines = 0;
	if (errors == NULL) {
		ctl_error("%s", strerror(errno));
		return CTL_USAGE;
	}
	rc = policy_load(ctl->config, errors, out);
	(void)fclose(errors);
	(void)fputs(text, stdout);
	for (const char *at = strchr(text, '\n'); at != NULL; at = strchr(at + 1, '\n'))
		(*out_lines)++;
	free(text);
	if (rc < 0 && rc != -EINVAL)
		ctl_error("%s: %s", ctl->config, strerror(-rc));
	return rc == 0 ? CTL_OK : rc == -EINVAL ? CTL_FAILED : CTL_USAGE;
}

static int config_check_run(
	struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const struct ctl_option options[] = {{.name = NULL}};
	struct policy *policy = NULL;
	struct ctl_list operands;
	unsigned lines;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0)
		return CTL_USAGE;
	status = config_load(ctl, &policy, &lines);
	if (status == CTL_OK)
		policy_destroy(&policy);
	return status;
}

static int config_lint_run(
	struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const struct ctl_option options[] = {{.name = NULL}};
	struct policy *policy = NULL;
	struct ctl_list operands;
	unsigned lines, findings = 0;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0)
		return CTL_USAGE;
	status = config_load(ctl, &policy, &lines);
	if (status != CTL_OK)
		return status;
	lint_policy(policy, stdout, &findings);
	policy_destroy(&policy);
	return lines + findings == 0 ? CTL_OK : CTL_FAILED;
}

/* ---- config show, partner list, partner show */

/* policy_show() prints the transport first; objects are blocks with a blank line between them. */
static void show_block(const struct policy *policy, bool is_first)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	char *start, *end;

	if (out == NULL) {
		ctl_error("%s", strerror(errno));
		return;
	}
	policy_show(policy, out);
	(void)fclose(out);
	while (len > 0 && text[len - 1] == '\n')
		text[--len] = '\0';
	start = text;
	if (is_first) {
		end = strstr(text, "\n\n");
		if (end != NULL)
			*end = '\0';
	} else {
		while ((end = strstr(start, "\n\n")) != NULL)
			start = end + 2;
	}
	(void)puts(start);
	free(text);
}

/* Prints the object of that kind and name; false: there is none. */
static bool show_object(const struct policy *policy, const char *kind, const char *name)
{
	struct policy only = *policy;

	only.receive_connector_count = only.send_connector_count = only.partner_count = 0;
	only.internal_server_count = only.certificate_count = 0;
	if (strcmp(kind, "receive-connector") == 0) {
		const struct receive_connector *found = policy_receive_connector(policy, name);

		only.receive_connectors += found == NULL ? 0 : found->index;
		only.receive_connector_count = found != NULL;
	}
	if (strcmp(kind, "send-connector") == 0) {
		const struct send_connector *found = policy_send_connector(policy, name);

		only.send_connectors += found == NULL ? 0 : found->index;
		only.send_connector_count = found != NULL;
	}
	if (strcmp(kind, "partner") == 0) {
		const struct partner *found = policy_partner(policy, name);

		only.partners += found == NULL ? 0 : found->index;
		only.partner_count = found != NULL;
	}
	if (only.receive_connector_count + only.send_connector_count + only.partner_count == 0)
		return false;
	show_block(&only, false);
	return true;
}

static int config_show_run(
	struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const struct ctl_option options[] = {{.name = NULL}};
	struct ctl_list operands;
	struct policy *policy;
	int status = CTL_OK;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 2) < 0)
		return CTL_USAGE;
	policy = ctl_policy_create(ctl);
	if (policy == NULL)
		return CTL_USAGE;
	if (operands.count == 0) {
		policy_show(policy, stdout);
	} else if (operands.count == 1 && strcmp(operands.texts[0], "transport") == 0) {
		show_block(policy, true);
	} else if (operands.count != 2 ||
		   !show_object(policy, operands.texts[0], operands.texts[1])) {
		ctl_error("there is no %s %s", operands.texts[0],
			operands.count == 2 ? operands.texts[1] : "without a name");
		status = CTL_FAILED;
	}
	policy_destroy(&policy);
	return status;
}

static const char *const partner_columns[] = {
	"Partner", "Domains", "SendSecure", "ReceiveSecure", "TrustAnchors", "Pins"};

static void partner_create_row(struct ctl_table *table, const struct partner *partner)
{
	char domains[1024] = "", pins[16];
	size_t len = 0;
	const char *cells[COUNT_OF(partner_columns)] = {partner->name, domains,
		partner->send_secure ? "True" : "False", partner->receive_secure ? "True" : "False",
		partner->trust_anchors == NULL ? "-" : partner->trust_anchors, pins};

	for (unsigned i = 0; i < partner->domain_count && len + NAME_BYTES_MAX < sizeof(domains);
		i++) {
		int more = snprintf(domains + len, sizeof(domains) - len, "%s%s",
			i == 0 ? "" : ", ", partner->domains[i]);

		len += more > 0 ? (size_t)more : 0;
	}
	(void)snprintf(pins, sizeof(pins), "%u", partner->spki_pin_count);
	ctl_table_create_row(table, cells);
}

static int partner_list_run(
	struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const struct ctl_option options[] = {{.name = NULL}};
	struct ctl_list operands;
	struct ctl_table table;
	struct policy *policy;
	int status;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 0, 0) < 0)
		return CTL_USAGE;
	policy = ctl_policy_create(ctl);
	if (policy == NULL)
		return CTL_USAGE;
	ctl_table_init(&table, partner_columns, COUNT_OF(partner_columns));
	for (unsigned i = 0; i < policy->partner_count; i++)
		partner_create_row(&table, &policy->partners[i]);
	status = ctl_table_finish(ctl, &table);
	policy_destroy(&policy);
	return status;
}

static int partner_show_run(
	struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	const struct ctl_option options[] = {{.name = NULL}};
	struct ctl_list operands;
	struct policy *policy;
	int status = CTL_OK;

	(void)argc;
	if (ctl_options_read(ctl, command, argv, options, &operands, 1, 1) < 0)
		return CTL_USAGE;
	policy = ctl_policy_create(ctl);
	if (policy == NULL)
		return CTL_USAGE;
	if (!show_object(policy, "partner", operands.texts[0])) {
		ctl_error("there is no partner \"%s\"", operands.texts[0]);
		status = CTL_FAILED;
	}
	policy_destroy(&policy);
	return status;
}

const struct ctl_command ctl_config_commands[] = {
	{"config check", "", "mistakes of the configuration", config_check_run},
	{"config lint", "", "mistakes, and what is allowed but likely to be wrong",
		config_lint_run},
	{"config show", "[transport | receive-connector NAME | send-connector NAME | partner NAME]",
		"the settings in force", config_show_run},
	{NULL, NULL, NULL, NULL},
};

const struct ctl_command ctl_partner_commands[] = {
	{"partner list", "", "the partners and their domains", partner_list_run},
	{"partner show", "NAME", "one partner's settings", partner_show_run},
	{"partner check", "DOMAIN [--host HOST[:PORT]] [--offline]",
		"what stands between us and secured mail with a domain", partner_check_run},
	{NULL, NULL, NULL, NULL},
};
