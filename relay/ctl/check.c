/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ask.h"

#include <inttypes.h>
#include <stdarg.h>

void check_row(
	struct check *check, enum check_outcome outcome, const char *what, const char *format, ...)
{
	static const char *const words[] = {
		[CHECK_PASS] = "pass", [CHECK_FAIL] = "FAIL", [CHECK_SKIP] = "skip"};
	char why[2048];
	va_list args;

	(void)printf("%2u %s  %s", ++check->number, words[outcome], what);
	check->counts[outcome]++;
	if (format != NULL) {
		va_start(args, format);
		(void)vsnprintf(why, sizeof(why), format, args);
		va_end(args);
		(void)fputs(": ", stdout);
		ctl_print_safe(why);
	}
	(void)putchar('\n');
}

void check_remedy(const char *format, ...)
{
	char text[2048];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void)fputs("         remedy: ", stdout);
	ctl_print_safe(text);
	(void)putchar('\n');
}

const char *check_days(int64_t seconds, char *out, size_t out_bytes)
{
	int64_t days = seconds / 86400;

	(void)snprintf(out, out_bytes, "%" PRId64 " day%s", days, days == 1 ? "" : "s");
	return out;
}
