/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ask.h"

#include "policy/names.h"
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

static int ask_zone_read(const char *text, uint32_t *out)
{
	unsigned index = if_nametoindex(text);
	char *end;

	if (index == 0) {
		unsigned long number = strtoul(text, &end, 10);

		if (*text < '0' || *text > '9' || *end != '\0' || number > UINT32_MAX)
			return -EINVAL;
		index = (unsigned)number;
	}
	*out = index;
	return 0;
}

int ask_peer_read(const char *text, struct ip *out, uint32_t *out_zone)
{
	char address[ADDRESS_TEXT_BYTES];
	size_t len = strcspn(text, "%");

	*out_zone = 0;
	if (len < sizeof(address)) {
		memcpy(address, text, len);
		address[len] = '\0';
		if (ip_parse(address, out) == 0 &&
			(text[len] == '\0' || ask_zone_read(text + len + 1, out_zone) == 0))
			return 0;
	}
	ctl_error("\"%s\" is no IP address", text);
	return -EINVAL;
}

static int ask_port_read(const char *text, in_port_t *out)
{
	char *end;
	unsigned long port = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end != '\0' || port == 0 || port > 65535)
		return -EINVAL;
	*out = htons((uint16_t)port);
	return 0;
}

int ask_address_read(const char *text, struct address *out)
{
	const char *colon = strrchr(text, ':');
	bool is_v6 = text[0] == '[';
	char host[ADDRESS_TEXT_BYTES];
	size_t len = colon == NULL ? 0 : (size_t)(colon - text);
	struct sockaddr_in *v4 = (void *)&out->sockaddr;
	struct sockaddr_in6 *v6 = (void *)&out->sockaddr;

	*out = (struct address){0};
	if (is_v6 && len > 2 && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	if (len == 0 || len >= sizeof(host))
		goto fail;
	memcpy(host, text, len);
	host[len] = '\0';
	if (is_v6) {
		v6->sin6_family = AF_INET6;
		out->len = sizeof(*v6);
		if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1 &&
			ask_port_read(colon + 1, &v6->sin6_port) == 0)
			return 0;
	} else {
		v4->sin_family = AF_INET;
		out->len = sizeof(*v4);
		if (inet_pton(AF_INET, host, &v4->sin_addr) == 1 &&
			ask_port_read(colon + 1, &v4->sin_port) == 0)
			return 0;
	}
fail:
	ctl_error(
		"\"%s\" is no address with a port, such as 192.0.2.1:25 or [2001:db8::1]:25", text);
	return -EINVAL;
}

int ask_path_read(const char *text, bool null_too, char out[static ASK_PATH_BYTES])
{
	bool is_bare = text[0] != '<';
	size_t len = strlen(text);
	struct span path;

	if (len + 3 > ASK_PATH_BYTES) {
		ctl_error("\"%.20s...\" is too long for an address", text);
		return -EINVAL;
	}
	(void)snprintf(out, ASK_PATH_BYTES, is_bare ? "<%s>" : "%s", text);
	path = span_of(out);
	if (path.len == 2 && null_too)
		return 0;
	if (path.len > 2 && path.data[path.len - 1] == '>' && path_domain(path).len > 0)
		return 0;
	ctl_error("\"%s\" is no mail address", text);
	return -EINVAL;
}

int ask_domain_read(const char *text, char *out)
{
	struct span domain = strchr(text, '@') == NULL ? span_of(text) : path_domain(span_of(text));

	if (domain_normalize(domain, out) == 0)
		return 0;
	ctl_error("\"%s\" is no mail domain", text);
	return -EINVAL;
}

int ask_time_read(const char *text, time_t *out)
{
	struct tm utc = {0};
	char *end;

	if (text == NULL) {
		*out = time(NULL);
		return 0;
	}
	end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &utc);
	if (end != NULL && *end == '\0') {
		*out = timegm(&utc);
		return 0;
	}
	errno = 0;
	*out = (time_t)strtoll(text, &end, 10);
	if (errno == 0 && end != text && *end == '\0')
		return 0;
	ctl_error("\"%s\" is no time, expected 2026-11-21T22:46:05Z or seconds since 1970", text);
	return -EINVAL;
}
