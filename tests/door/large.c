/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/door/large.h"

#include <stdlib.h>

static unsigned large_number(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);
	unsigned long number = text == NULL ? 0 : strtoul(text, NULL, 10);

	return number == 0 ? otherwise : (unsigned)number;
}

unsigned large_count(void)
{
	return large_number("POSTERN_DOOR_PREFIXES", 100000);
}

unsigned large_replaces(void)
{
	return large_number("POSTERN_DOOR_REPLACES", 100);
}

/* Of the prefixes of a part so many are of IPv6. */
static unsigned large_v6(unsigned count)
{
	return count / 2 / 5;
}

static void large_add(unsigned part, unsigned count, struct text *out)
{
	for (unsigned i = 0; i < count / 2 - large_v6(count); i++)
		text_print(out, "%u.%u.%u.%u/28\n", part, i / 2048, i / 8 % 256, i % 8 * 32);
	/* The digits are decimal, which the pattern of a crowd writes, too. */
	for (unsigned i = 0; i < large_v6(count); i++)
		text_print(out, "2001:db8:%u:%u::/64\n", part, i);
}

void large_list(unsigned part, unsigned count, struct text *out)
{
	text_clear(out);
	large_add(LARGE_KEPT, count, out);
	large_add(part, count, out);
}

struct crowd_plan large_crowd(unsigned part, unsigned count, bool is_v6)
{
	static const char *const v4[] = {"20.%u.%u.3", "21.%u.%u.3", "22.%u.%u.3"};
	static const char *const v6[] = {
		"2001:db8:20:%u::%u", "2001:db8:21:%u::%u", "2001:db8:22:%u::%u"};
	struct crowd_plan plan = {.greeting = "friends"};
	/* Eight prefixes a /24, of which the crowd knocks from the first. */
	unsigned nets = (count / 2 - large_v6(count)) / 8;

	plan.pattern = is_v6 ? v6[part - LARGE_KEPT] : v4[part - LARGE_KEPT];
	plan.to = is_v6 ? CASE_V6 : CASE_V4;
	if (is_v6)
		plan.count = 250 * large_v6(count);
	else
		plan.count = nets >= 256 ? nets / 256 * 250 : nets - 1;
	return plan;
}
