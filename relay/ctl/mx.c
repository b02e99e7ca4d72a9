/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ask.h"

#include "relay/net/resolve.h"
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unbound.h>

#define TYPE_A 1
#define TYPE_MX 15
#define TYPE_AAAA 28
#define CLASS_IN 1

/* A context that asks whom the relay asks; NULL after why. */
static struct ub_ctx *mx_context_create(const struct policy *policy, char *why, size_t why_bytes)
{
	struct ub_ctx *context = ub_ctx_create();
	int rc = context == NULL ? UB_NOMEM : resolver_configure(context, policy);

	if (rc == UB_NOERROR)
		return context;
	(void)snprintf(why, why_bytes, "%s", ub_strerror(rc));
	ub_ctx_delete(context);
	return NULL;
}

/* A name as it stands in a record, without compression, into text; false: it is none. */
static bool mx_name_read(struct span wire, char out[static NAME_BYTES_MAX])
{
	size_t at = 0;

	while (wire.len > 0 && wire.data[0] != 0) {
		size_t len = wire.data[0];

		if (len > 63 || wire.len < len + 1 || at + len + 2 > NAME_BYTES_MAX)
			return false;
		if (at > 0)
			out[at++] = '.';
		for (size_t i = 1; i <= len; i++) {
			uint8_t byte = wire.data[i];

			if (byte <= ' ' || byte >= 0x7f || byte == '.')
				return false;
			out[at++] = (char)byte;
		}
		wire = span_skip(wire, len + 1);
	}
	out[at] = '\0';
	return wire.len > 0;
}

static int mx_compare(const void *a, const void *b)
{
	const struct mx_host *left = a, *right = b;

	if (left->preference != right->preference)
		return left->preference < right->preference ? -1 : 1;
	return strcmp(left->name, right->name);
}

static enum mx_status mx_take(const struct ub_result *result, struct mx_host *out,
	unsigned *out_count, char *why, size_t why_bytes)
{
	unsigned count = 0;

	for (int i = 0; result->data[i] != NULL && count < MX_HOSTS_MAX; i++) {
		struct span record = span_make(result->data[i], (size_t)result->len[i]);

		if (record.len < 3 || !mx_name_read(span_skip(record, 2), out[count].name))
			continue;
		out[count].preference = (unsigned)(record.data[0] << 8 | record.data[1]);
		if (out[count].name[0] != '\0')
			count++;
	}
	if (count == 0) {
		(void)snprintf(why, why_bytes, "its MX says that it takes no mail (RFC 7505)");
		return MX_NONE;
	}
	qsort(out, count, sizeof(*out), mx_compare);
	*out_count = count;
	return MX_OK;
}

/* Does the domain itself have an address? Then it is its own mail host (RFC 5321 5.1). */
static enum mx_status mx_implicit(struct ub_ctx *context, const char *domain, struct mx_host *out,
	unsigned *out_count, char *why, size_t why_bytes)
{
	static const int types[] = {TYPE_A, TYPE_AAAA};

	for (size_t i = 0; i < COUNT_OF(types); i++) {
		struct ub_result *result = NULL;
		int rc = ub_resolve(context, domain, types[i], CLASS_IN, &result);
		bool is_there = rc == UB_NOERROR && result->havedata;

		if (rc == UB_NOERROR)
			ub_resolve_free(result);
		if (!is_there)
			continue;
		(void)snprintf(out->name, sizeof(out->name), "%s", domain);
		out->preference = 0;
		*out_count = 1;
		return MX_OK;
	}
	(void)snprintf(why, why_bytes, "it has neither MX nor address");
	return MX_NONE;
}

/* By the same servers as the MX: the machine's own may not know the name, or another address. */
static void mx_find_address(struct ub_ctx *context, struct mx_host *host)
{
	static const int types[] = {TYPE_A, TYPE_AAAA};

	host->address[0] = '\0';
	for (size_t i = 0; i < COUNT_OF(types) && host->address[0] == '\0'; i++) {
		const int family = types[i] == TYPE_A ? AF_INET : AF_INET6;
		const int bytes = types[i] == TYPE_A ? 4 : 16;
		struct ub_result *result = NULL;

		if (ub_resolve(context, host->name, types[i], CLASS_IN, &result) != UB_NOERROR)
			continue;
		if (result->havedata && result->len[0] == bytes)
			(void)inet_ntop(
				family, result->data[0], host->address, sizeof(host->address));
		ub_resolve_free(result);
	}
}

enum mx_status mx_find(const struct policy *policy, const char *domain,
	struct mx_host out[static MX_HOSTS_MAX], unsigned *out_count, char *why, size_t why_bytes)
{
	struct ub_ctx *context = mx_context_create(policy, why, why_bytes);
	struct ub_result *result = NULL;
	enum mx_status status;
	int rc;

	*out_count = 0;
	if (context == NULL)
		return MX_FAILED;
	rc = ub_resolve(context, domain, TYPE_MX, CLASS_IN, &result);
	if (rc != UB_NOERROR || (result->rcode != 0 && result->rcode != 3)) {
		(void)snprintf(why, why_bytes, "the name servers gave no answer (%s)",
			rc != UB_NOERROR ? ub_strerror(rc) : "server failure");
		status = MX_FAILED;
	} else if (result->nxdomain) {
		(void)snprintf(why, why_bytes, "no such domain");
		status = MX_NONE;
	} else if (result->havedata) {
		status = mx_take(result, out, out_count, why, why_bytes);
	} else {
		status = mx_implicit(context, domain, out, out_count, why, why_bytes);
	}
	for (unsigned i = 0; i < *out_count; i++)
		mx_find_address(context, &out[i]);
	if (rc == UB_NOERROR)
		ub_resolve_free(result);
	ub_ctx_delete(context);
	return status;
}
