/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * http.h: the requests that tls_server understands: GET, line by line, without a body (RFC 9112).
 */

#include "relay/base/span.h"
#include <errno.h>
#include <stdlib.h>

/* One HTTP request while its lines come in. */
struct request {
	bool has_line; /* the request line was seen */
	bool is_bad;
	bool is_get;
	bool stays_open;
	char target[256];
};

/* GET /target HTTP/1.1 */
static inline void request_take_line(struct request *request, struct span line)
{
	const struct span method = span_head(line, span_find(line, ' '));
	const struct span rest = span_skip(line, method.len + 1);
	const struct span target = span_head(rest, span_find(rest, ' '));
	const struct span version = span_skip(rest, target.len + 1);

	request->has_line = true;
	request->is_get = span_equal(method, span_of("GET"));
	request->stays_open = span_equal(version, span_of("HTTP/1.1"));
	request->is_bad = target.len == 0 || target.len >= sizeof(request->target) ||
			  !(request->stays_open || span_equal(version, span_of("HTTP/1.0")));
	if (!request->is_bad)
		memcpy(request->target, target.data, target.len);
}

static inline void request_take_field(struct request *request, struct span line)
{
	const struct span name = span_head(line, span_find(line, ':'));
	const struct span value = span_trim(span_skip(line, name.len + 1));

	if (name.len == line.len)
		request->is_bad = true;
	else if (span_equal_nocase(name, span_of("Connection")))
		request->stays_open =
			span_equal_nocase(value, span_of("keep-alive")) ||
			(request->stays_open && !span_equal_nocase(value, span_of("close")));
	else if (span_equal_nocase(name, span_of("Transfer-Encoding")) ||
		 (span_equal_nocase(name, span_of("Content-Length")) &&
			 !span_equal(value, span_of("0"))))
		request->is_bad = true; /* no request of ours has a body */
}

/* The N of /bytes/N. */
static inline bool request_wants_bytes(const char *target, uint64_t *out)
{
	static const char prefix[] = "/bytes/";
	const char *digits = target + sizeof(prefix) - 1;
	char *end = NULL;

	if (strncmp(target, prefix, sizeof(prefix) - 1) != 0 || *digits < '0' || *digits > '9')
		return false;
	errno = 0;
	*out = strtoull(digits, &end, 10);
	return errno == 0 && *end == '\0';
}
