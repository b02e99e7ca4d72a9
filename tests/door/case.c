/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/door/case.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

const char *case_bpf(bool by_kernel)
{
	return by_kernel ? "required" : "off";
}

void case_begin(struct daemon *daemon, bool by_kernel, const char *list)
{
	daemon_begin(daemon, &(struct daemon_options){.bpf = case_bpf(by_kernel)});
	if (list != NULL)
		daemon_partner(daemon, "friends", list);
	daemon_connector(daemon, "friends", CASE_BINDINGS,
		list == NULL ? CASE_RANGES : CASE_RANGES "\tremote-ip-partners = {\"friends\"}\n");
}

void case_note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vdprintf(suite.report_fd, format, args);
	va_end(args);
}

bool case_passes(const char *from)
{
	struct timeval moment = {.tv_usec = 1};
	enum knock_end end = knock_within(from, CASE_V4, DAEMON_PORT, &moment).end;

	case_check(end == KNOCK_SILENT || end == KNOCK_REFUSED, "%s: neither in nor out", from);
	return end == KNOCK_SILENT;
}

int case_listen(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(DAEMON_PORT)};
	uint64_t until = now_ms() + (uint64_t)10000 * suite.slow;
	int yes = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)inet_pton(AF_INET, CASE_V4, &at.sin_addr);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	/* The listeners of a relay that was killed may be there for a moment. */
	while (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 64) < 0) {
		case_check(
			errno == EADDRINUSE && now_ms() < until, CASE_V4 ": %s", strerror(errno));
		pause_ms(2);
	}
	return fd;
}
