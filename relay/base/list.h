/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * list.h: a doubly linked list whose links lie in its members.
 *
 * A link that is in no list points to itself, so that removing twice is harmless
 * and "is it queued?" has an answer.
 */

#include <stdbool.h>
#include <stddef.h>

struct link {
	struct link *next;
	struct link *prev;
};

static inline void link_init(struct link *link)
{
	link->next = link;
	link->prev = link;
}

static inline bool link_is_queued(const struct link *link)
{
	return link->next != link;
}

static inline bool list_is_empty(const struct link *head)
{
	return head->next == head;
}

static inline void list_append(struct link *head, struct link *link)
{
	link->prev = head->prev;
	link->next = head;
	head->prev->next = link;
	head->prev = link;
}

static inline void list_prepend(struct link *head, struct link *link)
{
	list_append(head->next, link);
}

static inline void link_remove(struct link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	link_init(link);
}

/* Takes the first member off, or returns NULL. */
static inline struct link *list_take(struct link *head)
{
	struct link *first = head->next;

	if (first == head)
		return NULL;
	/* The analyser does not see that what was taken off is in no list any more. */
	link_remove(first); /* NOLINT(clang-analyzer-unix.Malloc) */
	return first;
}

/* Appends all members of from, which is empty then. */
static inline void list_move(struct link *head, struct link *from)
{
	if (list_is_empty(from))
		return;
	from->next->prev = head->prev;
	from->prev->next = head;
	head->prev->next = from->next;
	head->prev = from->prev;
	link_init(from);
}

/* Visits each link; the visited one may be removed meanwhile. */
#define LIST_FOR_EACH(cursor, after, head)                                          \
	for ((cursor) = (head)->next, (after) = (cursor)->next; (cursor) != (head); \
		(cursor) = (after), (after) = (cursor)->next)
