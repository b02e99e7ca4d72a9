/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/ip_list.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

/*
 * gate_stub.c: what policy/gate.c needs of ip_list.c until that is there; goes with it.
 */

#define WEAK __attribute__((weak))

WEAK bool ip_list_name_is_valid(const char *partner)
{
	return partner[0] != '.' && strchr(partner, '/') == NULL && strlen(partner) < 128;
}

WEAK bool ip_list_path(const char *folder, const char *partner, char *out, size_t out_bytes)
{
	return snprintf(out, out_bytes, "%s/%s.list", folder, partner) < (int)out_bytes;
}

WEAK int ip_list_read(const char *path, FILE *errors, struct ip_list *out)
{
	(void)errors;
	out->generation = 0;
	return access(path, F_OK) == 0 ? -ENOSYS : cidr_create(&out->set);
}

WEAK void ip_list_compare(const struct cidr *from, const struct cidr *to, struct ip_list_diff *out,
	void (*on_line)(
		void *owner, char sign, const struct prefix *prefix, struct door_value value),
	void *owner)
{
	struct door_value value;
	struct cidr_walk walk;
	struct prefix prefix;

	*out = (struct ip_list_diff){0};
	cidr_walk_start(&walk, from);
	while (cidr_walk_next(&walk, &prefix, &value)) {
		const struct door_value *other = cidr_get(to, &prefix);

		if (other == NULL || other->flags != value.flags)
			on_line(owner, '-', &prefix, value);
	}
	cidr_walk_start(&walk, to);
	while (cidr_walk_next(&walk, &prefix, &value)) {
		const struct door_value *other = cidr_get(from, &prefix);

		if (other == NULL || other->flags != value.flags)
			on_line(owner, '+', &prefix, value);
	}
}
