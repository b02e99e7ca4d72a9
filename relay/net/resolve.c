/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/net/resolve.h"

#include "relay/base/stats.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include <unbound.h>

/* Record types and class, RFC 1035 3.2.2, RFC 3596 2.1. */
#define TYPE_A 1
#define TYPE_MX 15
#define TYPE_AAAA 28
#define CLASS_IN 1

struct resolver {
	struct loop *loop;
	struct ub_ctx *ctx;
	struct op poll_op;
	unsigned open; /* questions that libunbound has not answered */
	uint64_t random;
	struct own_addresses own;
};

static const char *const resolve_words[RESOLVE_STATUS_COUNT] = {
	[RESOLVE_OK] = "ok",
	[RESOLVE_FAILED] = "failed",
	[RESOLVE_NO_DOMAIN] = "no-domain",
	[RESOLVE_NO_ADDRESS] = "no-address",
	[RESOLVE_NULL_MX] = "null-mx",
	[RESOLVE_LOOP] = "loop",
};

const char *resolve_word(enum resolve_status status)
{
	return resolve_words[status];
}

void resolve_reply(enum resolve_status status, const char *domain, char *out, size_t out_bytes)
{
	static const struct {
		const char *front, *back;
	} words[RESOLVE_STATUS_COUNT] = {
		[RESOLVE_FAILED] = {"451 4.4.3 The mail servers of", "could not be looked up"},
		[RESOLVE_NO_DOMAIN] = {"550 5.1.2 Domain", "has no mail server"},
		[RESOLVE_NO_ADDRESS] = {"550 5.4.4 The mail servers of", "have no address"},
		[RESOLVE_NULL_MX] = {"556 5.1.10 Domain", "takes no mail"},
		[RESOLVE_LOOP] = {"554 5.4.6 Mail for", "would come back to this server"},
	};

	ASSERT(words[status].front != NULL);
	(void)snprintf(out, out_bytes, "%s %.255s %s\r\n", words[status].front, domain,
		words[status].back);
}

/* The resolver. */

static void resolver_watch(struct resolver *resolver)
{
	if (!resolver->poll_op.in_flight && resolver->open > 0)
		loop_poll(resolver->loop, &resolver->poll_op, ub_fd(resolver->ctx), POLLIN);
}

static void resolver_polled(struct op *op, int32_t result, uint32_t flags)
{
	struct resolver *resolver = OWNER_OF(op, struct resolver, poll_op);

	(void)flags;
	if (result != -ECANCELED)
		(void)ub_process(resolver->ctx);
	resolver_watch(resolver);
}

/* "ADDR" or "ADDR:PORT", in brackets if it is IPv6, as libunbound wants it: "ADDR@PORT". */
static int resolver_forward_to(struct ub_ctx *ctx, const char *server)
{
	const bool is_bracketed = server[0] == '[';
	const char *from = server + is_bracketed;
	size_t len = is_bracketed ? strcspn(from, "]") : strlen(from);
	const char *port = "";
	char text[128];

	if (is_bracketed && from[len] == ']' && from[len + 1] == ':')
		port = from + len + 2;
	/* Two colons and no brackets: an IPv6 address without a port. */
	if (!is_bracketed && strchr(from, ':') != NULL && strchr(from, ':') == strrchr(from, ':')) {
		len = strcspn(from, ":");
		port = from + len + 1;
	}
	(void)snprintf(
		text, sizeof(text), "%.*s%s%s", (int)len, from, port[0] != '\0' ? "@" : "", port);
	return ub_ctx_set_fwd(ctx, text);
}

int resolver_configure(struct ub_ctx *ctx, const struct policy *policy)
{
	static const char *const options[][2] = {
		{"module-config:", "iterator"},
		/* A server on this machine, and names of this network, are the admin's choice. */
		{"do-not-query-localhost:", "no"},
		{"unblock-lan-zones:", "yes"},
		{"cache-max-ttl:", "3600"},
		{"num-queries-per-thread:", "512"},
		{"outgoing-range:", "128"},
	};
	/* Zones that libunbound would answer for by itself: laboratories, home networks (RFC 8375).
	 */
	static const char *const zones[] = {"test.", "home.arpa."};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < COUNT_OF(options); i++)
		rc = ub_ctx_set_option(ctx, options[i][0], options[i][1]);
	for (unsigned i = 0; rc == 0 && i < policy->dns_server_count; i++)
		rc = resolver_forward_to(ctx, policy->dns_servers[i]);
	/* As the C library has it: without the file, the server on this machine. */
	if (rc == 0 && policy->dns_server_count == 0 &&
		ub_ctx_resolvconf(ctx, "/etc/resolv.conf") != 0)
		rc = ub_ctx_set_fwd(ctx, "127.0.0.1");
	if (rc == 0)
		(void)ub_ctx_hosts(ctx, "/etc/hosts");
	/* A thread: a forked process would keep our sockets and keys. */
	if (rc == 0)
		rc = ub_ctx_async(ctx, 1);
	/* The server decides about these, as about every other name. Ends the configuration. */
	for (size_t i = 0; rc == 0 && i < COUNT_OF(zones); i++)
		(void)ub_ctx_zone_remove(ctx, zones[i]);
	return rc;
}

/* The first context of the process sets up what all share, without a lock of its own. */
static struct ub_ctx *resolver_create_context(void)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	struct ub_ctx *ctx;

	(void)pthread_mutex_lock(&mutex);
	ctx = ub_ctx_create();
	(void)pthread_mutex_unlock(&mutex);
	return ctx;
}

int resolver_create(struct loop *loop, const struct policy *policy, struct resolver **out,
	char *error, size_t error_bytes)
{
	struct resolver *resolver = calloc(1, sizeof(*resolver));
	int rc;

	if (resolver == NULL)
		return -ENOMEM;
	resolver->loop = loop;
	resolver->poll_op.done = resolver_polled;
	if (getrandom(&resolver->random, sizeof(resolver->random), 0) < 0)
		resolver->random = loop_now_ms(loop);
	resolver->random |= 1;
	resolver->ctx = resolver_create_context();
	if (resolver->ctx == NULL) {
		free(resolver);
		return -ENOMEM;
	}
	rc = resolver_configure(resolver->ctx, policy);
	if (rc != 0) {
		(void)snprintf(error, error_bytes, "libunbound: %s", ub_strerror(rc));
		rc = -EINVAL;
	} else {
		rc = own_learn(&resolver->own, policy);
	}
	if (rc < 0) {
		resolver_destroy(&resolver);
		return rc;
	}
	*out = resolver;
	return 0;
}

void resolver_destroy(struct resolver **resolver)
{
	if (*resolver == NULL)
		return;
	ub_ctx_delete((*resolver)->ctx);
	free(*resolver);
	*resolver = NULL;
}

bool resolver_is_idle(const struct resolver *resolver)
{
	return resolver->open == 0;
}

void resolver_close(struct resolver *resolver)
{
	ASSERT(resolver->open == 0);
	loop_cancel(resolver->loop, &resolver->poll_op);
}

bool resolver_is_closed(const struct resolver *resolver)
{
	return resolver->open == 0 && !resolver->poll_op.in_flight;
}

/* xorshift64: which of equals comes first needs no secrets. */
static unsigned resolver_random(struct resolver *resolver)
{
	uint64_t x = resolver->random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	resolver->random = x;
	return (unsigned)(x >> 32);
}

/* One question. */

static void resolve_finish(struct resolve *resolve, enum resolve_status status)
{
	resolve->status = status;
	loop_task_add(resolve->resolver->loop, &resolve->task);
}

static void resolve_answered(void *arg, int error, struct ub_result *result);

/* False: libunbound does not take it. */
static bool resolve_ask(struct resolve *resolve, struct resolve_lookup *lookup, const char *name)
{
	int type = lookup->is_mx ? TYPE_MX : lookup->family == AF_INET ? TYPE_A : TYPE_AAAA;

	STAT(dns_queries);
	if (ub_resolve_async(resolve->resolver->ctx, name, type, CLASS_IN, lookup, resolve_answered,
		    &lookup->id) != 0)
		return false;
	lookup->is_busy = true;
	resolve->busy++;
	resolve->resolver->open++;
	resolver_watch(resolve->resolver);
	return true;
}

static void resolve_bound_ttl(struct resolve *resolve, int ttl)
{
	if (ttl >= 0 && (unsigned)ttl < resolve->list.ttl_s)
		resolve->list.ttl_s = (unsigned)ttl;
}

/* The end. */

static void resolve_conclude(struct resolve *resolve)
{
	struct resolve_list *list = &resolve->list;
	unsigned dropped;

	resolve_list_sort(list);
	dropped = resolve_list_drop_own(list, &resolve->resolver->own);
	if (list->ttl_s < RESOLVE_TTL_MIN_S)
		list->ttl_s = RESOLVE_TTL_MIN_S;
	if (list->count > 0)
		resolve_finish(resolve, RESOLVE_OK);
	else if (resolve->has_failed)
		resolve_finish(resolve, RESOLVE_FAILED);
	else if (dropped > 0)
		resolve_finish(resolve, RESOLVE_LOOP);
	else
		resolve_finish(
			resolve, resolve->is_implicit ? RESOLVE_NO_DOMAIN : RESOLVE_NO_ADDRESS);
}

/* Asks for the next addresses while there is a free place. */
static void resolve_go_on(struct resolve *resolve)
{
	struct resolve_list *list = &resolve->list;

	for (unsigned i = 0; i < RESOLVE_LOOKUPS; i++) {
		struct resolve_lookup *lookup = &resolve->lookups[i];

		if (lookup->is_busy || resolve->next >= 2 * list->host_count)
			continue;
		lookup->is_mx = false;
		lookup->host = (uint8_t)(resolve->next / 2);
		lookup->family = resolve->next % 2 == 0 ? AF_INET : AF_INET6;
		resolve->next++;
		if (!resolve_ask(resolve, lookup, list->hosts[lookup->host]))
			resolve->has_failed = true;
	}
	if (resolve->busy == 0)
		resolve_conclude(resolve);
}

/* MX. */

/* True: there is nothing more to ask, resolve_finish() was called. */
static bool resolve_take_mx(struct resolve *resolve, const struct ub_result *result)
{
	bool is_null = false;

	if (result->nxdomain) {
		resolve_finish(resolve, RESOLVE_NO_DOMAIN);
		return true;
	}
	if (!result->havedata)
		return false; /* the domain itself, which stands in hosts[0] (RFC 5321 5.1) */
	resolve->list.host_count = 0;
	resolve->is_implicit = false;
	for (unsigned i = 0; i < RESOLVE_RECORDS_MAX && result->data[i] != NULL; i++) {
		const uint8_t *data = (const uint8_t *)result->data[i];
		size_t len = (size_t)result->len[i];
		char name[NAME_BYTES_MAX];

		if (len < 3 || !resolve_name(span_make(data + 2, len - 2), name))
			continue;
		is_null = is_null || name[0] == '\0';
		if (name[0] != '\0')
			resolve_list_add(&resolve->list, (unsigned)data[0] << 8 | data[1], name,
				resolver_random(resolve->resolver));
	}
	if (resolve->list.host_count > 0)
		return false;
	resolve_finish(resolve, is_null ? RESOLVE_NULL_MX : RESOLVE_NO_ADDRESS);
	return true;
}

/* A, AAAA. */

static void resolve_take_addresses(struct resolve *resolve, const struct resolve_lookup *lookup,
	const struct ub_result *result)
{
	struct resolve_list *list = &resolve->list;
	int bytes = lookup->family == AF_INET ? 4 : 16;

	for (unsigned i = 0; i < RESOLVE_FAMILY_MAX && result->data[i] != NULL &&
			     list->count < RESOLVE_ADDRESSES_MAX;
		i++) {
		if (result->len[i] != bytes)
			continue;
		list->addresses[list->count] =
			address_make(lookup->family, result->data[i], resolve->port);
		list->host_of[list->count++] = lookup->host;
	}
}

static void resolve_answered(void *arg, int error, struct ub_result *result)
{
	struct resolve_lookup *lookup = arg;
	struct resolve *resolve = lookup->resolve;
	bool is_answer = error == 0 && result != NULL &&
			 (result->rcode == 0 || (result->rcode == 3 && result->nxdomain));
	bool is_over = false;

	ASSERT(lookup->is_busy);
	lookup->is_busy = false;
	resolve->busy--;
	resolve->resolver->open--;
	if (is_answer && result->havedata)
		resolve_bound_ttl(resolve, result->ttl);
	if (!is_answer) {
		resolve->has_failed = true;
		is_over = lookup->is_mx;
		if (is_over)
			resolve_finish(resolve, RESOLVE_FAILED);
	} else if (lookup->is_mx) {
		is_over = resolve_take_mx(resolve, result);
	} else if (result->havedata) {
		resolve_take_addresses(resolve, lookup, result);
	}
	ub_resolve_free(result);
	if (!is_over)
		resolve_go_on(resolve);
}

/* For the asker. */

static void resolve_run(struct task *task)
{
	struct resolve *resolve = OWNER_OF(task, struct resolve, task);
	enum resolve_status status = resolve->status;

	resolve_cancel(resolve);
	if (status == RESOLVE_FAILED)
		STAT(dns_failed);
	resolve->on_done(resolve, status);
}

static void resolve_expired(struct timer *timer)
{
	struct resolve *resolve = OWNER_OF(timer, struct resolve, timer);

	resolve_finish(resolve, RESOLVE_FAILED);
}

void resolve_init(struct resolve *resolve, struct resolver *resolver,
	void (*on_done)(struct resolve *resolve, enum resolve_status status))
{
	resolve->resolver = resolver;
	resolve->on_done = on_done;
	resolve->is_running = false;
	resolve->busy = 0;
	resolve->list.count = 0;
	resolve->list.host_count = 0;
	for (unsigned i = 0; i < RESOLVE_LOOKUPS; i++)
		resolve->lookups[i] = (struct resolve_lookup){.resolve = resolve};
	task_init(&resolve->task, resolve_run);
	timer_init(&resolve->timer, resolve_expired);
}

void resolve_mx(struct resolve *resolve, const char *domain, unsigned port)
{
	struct loop *loop = resolve->resolver->loop;

	ASSERT(!resolve->is_running && strlen(domain) < NAME_BYTES_MAX);
	resolve->is_running = true;
	resolve->has_failed = false;
	resolve->is_implicit = true;
	resolve->port = port;
	resolve->next = 0;
	resolve->list.count = 0;
	resolve->list.ttl_s = RESOLVE_TTL_MAX_S;
	resolve->list.host_count = 1;
	resolve->list.preferences[0] = 0;
	(void)snprintf(resolve->list.hosts[0], NAME_BYTES_MAX, "%s", domain);
	timer_set(loop_timers(loop), &resolve->timer, loop_now_ms(loop) + RESOLVE_TIMEOUT_MS);
	resolve->lookups[0].is_mx = true;
	if (!resolve_ask(resolve, &resolve->lookups[0], domain))
		resolve_finish(resolve, RESOLVE_FAILED);
}

void resolve_cancel(struct resolve *resolve)
{
	struct resolver *resolver = resolve->resolver;

	if (!resolve->is_running)
		return;
	resolve->is_running = false;
	loop_task_cancel(&resolve->task);
	timer_stop(loop_timers(resolver->loop), &resolve->timer);
	for (unsigned i = 0; i < RESOLVE_LOOKUPS; i++) {
		if (!resolve->lookups[i].is_busy)
			continue;
		(void)ub_cancel(resolver->ctx, resolve->lookups[i].id);
		resolve->lookups[i].is_busy = false;
		resolver->open--;
	}
	resolve->busy = 0;
}
