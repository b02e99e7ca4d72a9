/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/gate_private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * gate_ids.c: numbers of names. A name that has one keeps it; a new one gets a number that no name
 * has, or, when there is none left, one of a name that is not in use.
 */

int gate_ids_create(struct gate_ids **out)
{
	struct gate_ids *ids = calloc(1, sizeof(*ids));

	if (ids == NULL)
		return -ENOMEM;
	*out = ids;
	return 0;
}

void gate_ids_destroy(struct gate_ids **ids)
{
	free(*ids);
	*ids = NULL;
}

/* One of the two tables, while names are given numbers. */
struct numbering {
	char (*names)[DOOR_NAME_BYTES];
	unsigned max; /* numbers are below it */
	bool *is_used;
	const char *what; /* for messages */
	const char *file;
	FILE *errors;
};

/* Its number, which from now on is in use; 0: it has none. */
static unsigned number_find(struct numbering *numbering, const char *name)
{
	for (unsigned i = 1; i < numbering->max; i++) {
		if (numbering->names[i][0] != name[0] || strcmp(numbering->names[i], name) != 0)
			continue;
		numbering->is_used[i] = true;
		return i;
	}
	return 0;
}

static unsigned number_take(struct numbering *numbering, const char *name)
{
	unsigned found = 0;

	for (unsigned i = 1; i < numbering->max; i++) {
		if (numbering->is_used[i])
			continue;
		if (numbering->names[i][0] == '\0') {
			found = i;
			break;
		}
		if (found == 0)
			found = i;
	}
	if (found == 0)
		return 0;
	memset(numbering->names[found], 0, DOOR_NAME_BYTES);
	memcpy(numbering->names[found], name, strlen(name));
	numbering->is_used[found] = true;
	return found;
}

static bool number_fits(const struct numbering *numbering, const char *name, unsigned line)
{
	if (strlen(name) < DOOR_NAME_BYTES)
		return true;
	(void)fprintf(numbering->errors,
		"%s:%u: the name of %s \"%s\" is too long, expected at "
		"most %u bytes\n",
		numbering->file, line, numbering->what, name, DOOR_NAME_BYTES - 1);
	return false;
}

static int number_complain(const struct numbering *numbering, unsigned line)
{
	(void)fprintf(numbering->errors, "%s:%u: more than %u %ss, expected fewer\n",
		numbering->file, line, numbering->max - 1, numbering->what);
	return -EINVAL;
}

static int assign_connectors(struct gate *gate, struct numbering *numbering)
{
	const struct policy *policy = gate->policy;

	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		if (!connector->enabled)
			continue;
		if (!number_fits(numbering, connector->name, connector->line))
			return -EINVAL;
		gate->connector_ids[i] = number_find(numbering, connector->name);
	}
	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];
		unsigned *id = &gate->connector_ids[i];

		if (!connector->enabled)
			continue;
		if (*id == 0)
			*id = number_take(numbering, connector->name);
		if (*id == 0)
			return number_complain(numbering, connector->line);
		gate->connectors[*id] = connector;
	}
	return 0;
}

static int assign_partners(struct gate *gate, struct numbering *numbering)
{
	const struct policy *policy = gate->policy;

	for (unsigned i = 0; i < policy->partner_count; i++) {
		const struct partner *partner = &policy->partners[i];

		if (gate->partners[i].set == NULL)
			continue;
		if (!number_fits(numbering, partner->name, partner->line))
			return -EINVAL;
		gate->partners[i].id = number_find(numbering, partner->name);
	}
	for (unsigned i = 0; i < policy->partner_count; i++) {
		struct gate_partner *own = &gate->partners[i];

		if (own->set == NULL)
			continue;
		if (own->id == 0)
			own->id = number_take(numbering, policy->partners[i].name);
		if (own->id == 0)
			return number_complain(numbering, policy->partners[i].line);
		gate->named[own->id] = &policy->partners[i];
	}
	return 0;
}

int gate_assign_ids(struct gate *gate, struct gate_ids *ids, FILE *errors)
{
	bool is_connector[DOOR_CONNECTORS_MAX] = {false}, is_partner[DOOR_PARTNERS_MAX] = {false};
	int rc = assign_connectors(
		gate, &(struct numbering){ids->connectors, DOOR_CONNECTORS_MAX, is_connector,
			      "receive-connector", gate->policy->file, errors});

	if (rc == 0)
		rc = assign_partners(
			gate, &(struct numbering){ids->partners, DOOR_PARTNERS_MAX, is_partner,
				      "partner", gate->policy->file, errors});
	return rc;
}

bool gate_ids_are_blank(const struct gate_ids *ids)
{
	for (unsigned i = 1; i < DOOR_CONNECTORS_MAX; i++)
		if (ids->connectors[i][0] != '\0')
			return false;
	for (unsigned i = 1; i < DOOR_PARTNERS_MAX; i++)
		if (ids->partners[i][0] != '\0')
			return false;
	return true;
}

void gate_read_ids(const struct gate *gate, struct gate_ids *out)
{
	*out = (struct gate_ids){0};
	for (unsigned i = 1; i < DOOR_CONNECTORS_MAX; i++)
		if (gate->connectors[i] != NULL)
			(void)snprintf(out->connectors[i], sizeof(out->connectors[i]), "%s",
				gate->connectors[i]->name);
	for (unsigned i = 1; i < DOOR_PARTNERS_MAX; i++)
		if (gate->named[i] != NULL)
			(void)snprintf(out->partners[i], sizeof(out->partners[i]), "%s",
				gate->named[i]->name);
}

bool gate_has_ids(const struct gate *gate, const struct gate_ids *ids)
{
	for (unsigned i = 1; i < DOOR_CONNECTORS_MAX; i++)
		if (gate->connectors[i] != NULL &&
			strcmp(gate->connectors[i]->name, ids->connectors[i]) != 0)
			return false;
	for (unsigned i = 1; i < DOOR_PARTNERS_MAX; i++)
		if (gate->named[i] != NULL && strcmp(gate->named[i]->name, ids->partners[i]) != 0)
			return false;
	return true;
}
