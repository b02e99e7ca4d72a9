/* SPDX-License-Identifier: Apache-2.0 */

/*
 * ip_list_settle.c: the entries of a list, collected from any form, as a set: sorted, so that each
 * stands behind those that hold it, and gone through once.
 */

#include "policy/ip_list_private.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

void ip_import_add(
	struct ip_import *import, unsigned line, const struct prefix *prefix, uint16_t flags)
{
	const struct ip_import_item item = {.prefix = *prefix, .flags = flags, .line = line};

	if (import->is_out_of_memory || import->is_full)
		return;
	if (import->count == DOOR_PREFIXES_MAX) {
		ip_import_mistake(
			import, line, "more than %d prefixes, expected fewer", DOOR_PREFIXES_MAX);
		import->is_full = true;
		return;
	}
	if (import->count == import->room) {
		const size_t room = import->room * 2 + 64;
		struct ip_import_item *items = realloc(import->items, room * sizeof(*items));

		import->is_out_of_memory = items == NULL;
		if (items == NULL)
			return;
		import->items = items;
		import->room = room;
	}
	import->items[import->count++] = item;
}

/* By prefix; of the same one, by line. */
static int item_compare(const void *a, const void *b)
{
	const struct ip_import_item *x = a, *y = b;
	const int order = prefix_compare(&x->prefix, &y->prefix);

	return order != 0 ? order : (x->line > y->line) - (x->line < y->line);
}

/* Files of ours are sorted, and many others. */
static void import_sort(struct ip_import *import)
{
	for (size_t i = 1; i < import->count; i++)
		if (item_compare(&import->items[i - 1], &import->items[i]) > 0) {
			qsort(import->items, import->count, sizeof(*import->items), item_compare);
			return;
		}
}

/* What holds the entry that it is about: each within the one before. */
struct cover {
	const struct ip_import_item *items[129];
	bool is_covered[129];
	unsigned depth;
};

static const char *flags_word(unsigned flags)
{
	return (flags & DOOR_EXCLUDED) != 0 ? "excluded" : "let in";
}

/* The same prefix once more. */
static void settle_twin(struct ip_import *import, const struct ip_import_item *first,
	const struct ip_import_item *item)
{
	char text[PREFIX_TEXT_BYTES];

	(void)prefix_print(&item->prefix, text);
	if (first->flags == item->flags)
		ip_import_note(import, item->line,
			"%s stands in line %" PRIu32 " already, left out", text, first->line);
	else
		ip_import_mistake(import, item->line,
			"%s is %s here and %s by line %" PRIu32 ", expected one of them", text,
			flags_word(item->flags), flags_word(first->flags), first->line);
}

/* Is there an earlier entry around it that says something else? Then it never came to matter. */
static void settle_hidden(
	struct ip_import *import, const struct cover *cover, const struct ip_import_item *item)
{
	char text[PREFIX_TEXT_BYTES], outer_text[PREFIX_TEXT_BYTES];
	const struct ip_import_item *outer = NULL;

	for (unsigned i = cover->depth; i > 0; i--) {
		outer = cover->items[i - 1];
		if (outer->line < item->line)
			break;
		outer = NULL;
	}
	if (outer == NULL || outer->flags == item->flags)
		return;
	ip_import_mistake(import, item->line,
		"%s is %s here, but hidden by line %" PRIu32
		" (%s, %s): Postfix takes the first match, here the narrowest counts; "
		"expected only the one that is meant, or the narrower one first",
		prefix_print(&item->prefix, text), flags_word(item->flags), outer->line,
		prefix_print(&outer->prefix, outer_text), flags_word(outer->flags));
}

/* Is what is right around it of the same outcome? */
static bool settle_is_covered(
	struct ip_import *import, const struct cover *cover, const struct ip_import_item *item)
{
	char text[PREFIX_TEXT_BYTES], outer_text[PREFIX_TEXT_BYTES];
	unsigned at = cover->depth;

	if (at == 0 || cover->items[at - 1]->flags != item->flags)
		return false;
	/* Told is the one that stays. */
	while (cover->is_covered[at - 1])
		at--;
	ip_import_note(import, item->line, "%s is covered by %s of line %" PRIu32 ", left out",
		prefix_print(&item->prefix, text),
		prefix_print(&cover->items[at - 1]->prefix, outer_text),
		cover->items[at - 1]->line);
	return true;
}

static int settle_all(struct ip_import *import, bool keeps_covered, struct cidr *set)
{
	struct cover cover = {.depth = 0};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < import->count; i++) {
		const struct ip_import_item *item = &import->items[i];
		const struct ip_import_item *top = NULL;
		bool is_covered = false;

		while (cover.depth > 0 &&
			!prefix_holds(&cover.items[cover.depth - 1]->prefix, &item->prefix))
			cover.depth--;
		top = cover.depth > 0 ? cover.items[cover.depth - 1] : NULL;
		if (top != NULL && top->prefix.bits == item->prefix.bits) {
			settle_twin(import, top, item);
			continue;
		}
		if (import->is_first_match)
			settle_hidden(import, &cover, item);
		is_covered = !keeps_covered && settle_is_covered(import, &cover, item);
		cover.items[cover.depth] = item;
		cover.is_covered[cover.depth++] = is_covered;
		/* After a mistake it is only looked for others. */
		if (!is_covered && import->mistakes == 0)
			rc = cidr_put(
				set, &item->prefix, (struct door_value){.flags = item->flags});
	}
	return rc;
}

int ip_import_settle(struct ip_import *import, bool keeps_covered, struct cidr **out)
{
	struct cidr *set = NULL;
	int rc = import->is_out_of_memory ? -ENOMEM : cidr_create(&set);

	if (rc == 0) {
		import_sort(import);
		rc = settle_all(import, keeps_covered, set);
	}
	if (rc == 0 && import->mistakes > 0)
		rc = -EINVAL;
	if (rc < 0)
		cidr_destroy(&set);
	else
		*out = set;
	return rc;
}
