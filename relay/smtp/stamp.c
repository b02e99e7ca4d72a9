/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/stamp.h"

#include "relay/base/format.h"

/* All values are ours, or were checked: names of hosts and domains, OpenSSL's words. */

size_t stamp_results(const struct stamp *stamp, char out[static STAMP_BYTES_MAX])
{
	const bool is_tls = stamp->tls_version != NULL;
	const bool is_partner = stamp->role == ROLE_PARTNER;
	size_t len = format_print(out, STAMP_BYTES_MAX,
		"Authentication-Results: "
		"%.255s;\r\n\tx-domain-secure=%s%s%.64s%s%.64s%s%s%.255s\r\n",
		stamp->fqdn, is_partner ? "pass" : "none", is_tls ? " (" : "",
		is_tls ? stamp->tls_version : "", is_tls ? ", " : "",
		!is_tls                     ? ""
		: stamp->tls_cipher == NULL ? "unknown"
					    : stamp->tls_cipher,
		is_tls ? ")" : "", is_partner ? "\r\n\tpolicy.domain=" : "",
		is_partner ? stamp->domain : "");

	ASSERT(len > 0 && len < STAMP_BYTES_MAX - 1);
	return len;
}

size_t stamp_exchange(const struct stamp *stamp, char out[static STAMP_BYTES_MAX])
{
	static const char *const words[ROLE_COUNT] = {
		[ROLE_ANONYMOUS] = "Anonymous",
		[ROLE_PARTNER] = "Partner",
		[ROLE_INTERNAL] = "Internal",
	};
	const bool is_partner = stamp->role == ROLE_PARTNER;
	size_t len;

	ASSERT(stamp->role < ROLE_COUNT);
	len = format_print(out, STAMP_BYTES_MAX,
		"X-MS-Exchange-Organization-AuthSource: %.255s\r\n"
		"X-MS-Exchange-Organization-AuthAs: %s\r\n%s%.255s%s",
		stamp->fqdn, words[stamp->role],
		is_partner ? "X-MS-Exchange-Organization-AuthDomain: " : "",
		is_partner ? stamp->domain : "", is_partner ? "\r\n" : "");
	ASSERT(len > 0 && len < STAMP_BYTES_MAX - 1);
	return len;
}
