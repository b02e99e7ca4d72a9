/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/version.h"

#include "relay/net/ktls.h"
#include "relay/net/loop.h"
#include "relay/net/tls.h"
#include <stdio.h>
#include <sys/utsname.h>

static void print_ktls(const struct ktls_support *support)
{
	static const char *const versions[] = {"TLSv1.2", "TLSv1.3"};
	static const char *const ciphers[] = {
		NULL, "AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305"};

	if (support->why_not != NULL) {
		(void)printf("ktls: none (%s); records stay in userspace\n", support->why_not);
		return;
	}
	for (unsigned version = 0; version < 2; version++) {
		for (unsigned cipher = 1; cipher < KTLS_CIPHER_COUNT; cipher++) {
			const bool *works = support->works[version][cipher];

			(void)printf("ktls %s %s: rx=%s tx=%s\n", versions[version],
				ciphers[cipher], works[KTLS_DIRECTION_RX] ? "yes" : "no",
				works[KTLS_DIRECTION_TX] ? "yes" : "no");
		}
	}
	(void)printf("ktls rekey: %s\n", support->rekeys ? "yes" : "no");
}

void version_print(void)
{
	struct utsname kernel;
	struct loop_caps caps;
	struct ktls_support support;
	int rc = loop_probe(&caps);

	(void)uname(&kernel);
	(void)printf("postern %s\ntls: %s\nkernel: %s %s\n", POSTERN_VERSION, tls_library(),
		kernel.sysname, kernel.release);
	if (rc < 0)
		(void)printf("io_uring: none (%s)\n", loop_why_not(-rc));
	for (unsigned i = 0; rc == 0 && i < loop_cap_count; i++)
		(void)printf("io_uring %s: %s\n", loop_cap_names[i].name,
			*(const bool *)((const char *)&caps + loop_cap_names[i].offset) ? "yes"
											: "no");
	ktls_probe(&support);
	print_ktls(&support);
}
