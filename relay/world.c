/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/world.h"

#include "relay/base/log.h"
#include "relay/net/tls.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Buffers have numbers of 16 bits; a connection may hold four, and 4,096 are the kernel's. */
#define WORKER_CONNECTIONS_MAX 15000

static uint64_t world_connections(const struct policy *policy)
{
	uint64_t connections = policy->max_sessions;

	for (unsigned i = 0; i < policy->send_connector_count; i++)
		connections += policy->send_connectors[i].max_connections;
	return connections;
}

static int world_check_size(const struct policy *policy, FILE *errors)
{
	uint64_t connections = world_connections(policy);

	if (connections <= WORKER_CONNECTIONS_MAX)
		return 0;
	(void)fprintf(errors,
		"%s: max-sessions and the max-connections of all send-connectors are %lu together, "
		"expected at most %u for a worker\n",
		policy->file, (unsigned long)connections, WORKER_CONNECTIONS_MAX);
	return -EINVAL;
}

/* Certificates. */

/* One of the store that cannot be read is passed over; a section's is a mistake. */
static int world_create_certificates(struct world *world, FILE *errors)
{
	const struct policy *policy = world->policy;
	int rc = 0;

	world->certificates = calloc(policy->certificate_count + 1, sizeof(*world->certificates));
	if (world->certificates == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < policy->certificate_count; i++) {
		const struct certificate *certificate = &policy->certificates[i];
		char error[512];

		if (own_certificate_load(certificate,
			    &world->certificates[world->certificate_count], error,
			    sizeof(error)) == 0) {
			world->certificate_count++;
			continue;
		}
		(void)fprintf(errors, "%s:%u: %scertificate \"%s\": %s, expected PEM\n",
			policy->file, certificate->line, certificate->line == 0 ? "warning: " : "",
			certificate->name, error);
		if (certificate->line != 0)
			rc = -EINVAL;
	}
	return rc;
}

static const struct certificate *world_choose(const struct world *world, const char *fqdn)
{
	const struct own_certificate *chosen = own_certificate_select(
		world->certificates, world->certificate_count, fqdn, time(NULL));

	return chosen == NULL ? NULL : chosen->certificate;
}

/* EXCHANGE 5.1: who names none shows the one that speaks for its fqdn, or does without TLS. */
static int world_choose_certificates(struct world *world, FILE *errors)
{
	struct policy *policy = world->policy;
	int rc = 0;

	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		struct receive_connector *connector = &policy->receive_connectors[i];
		const struct certificate **shown = &connector->tls_settings.certificate;

		if (!connector->enabled || connector->tls == TLS_MODE_NONE || *shown != NULL)
			continue;
		*shown = world_choose(world, connector->fqdn);
		if (*shown != NULL)
			continue;
		if (connector->tls == TLS_MODE_IMPLICIT) {
			rc = -EINVAL;
			(void)fprintf(errors,
				"%s:%u: receive-connector \"%s\" has tls = implicit and no "
				"certificate for \"%s\", expected certificate = NAME\n",
				policy->file, connector->line, connector->name, connector->fqdn);
			continue;
		}
		(void)fprintf(errors,
			"%s:%u: warning: no certificate has the name \"%s\" of receive-connector "
			"\"%s\": STARTTLS is not offered there (event 12014)\n",
			policy->file, connector->line, connector->fqdn, connector->name);
	}
	for (unsigned i = 0; i < policy->send_connector_count; i++) {
		struct send_connector *connector = &policy->send_connectors[i];

		if (connector->tls_settings.certificate == NULL && connector->enabled)
			connector->tls_settings.certificate = world_choose(world, connector->fqdn);
	}
	return rc;
}

static int world_complain_tls(
	const struct world *world, unsigned line, const char *name, const char *error, FILE *errors)
{
	(void)fprintf(errors, "%s:%u: connector \"%s\": %s, expected PEM that OpenSSL accepts\n",
		world->policy->file, line, name, error);
	return -EINVAL;
}

/* Only OpenSSL can tell whether a certificate file and a cipher list are any good. */
static int world_check_tls(const struct world *world, FILE *errors)
{
	const struct policy *policy = world->policy;
	struct tls_context context;
	char error[512];
	int rc = 0;

	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		if (connector->tls == TLS_MODE_NONE || connector->tls_settings.certificate == NULL)
			continue;
		if (tls_context_create_receive(connector, world->trusts->receive[i], &context,
			    error, sizeof(error)) == 0)
			tls_context_destroy(&context);
		else
			rc = world_complain_tls(
				world, connector->line, connector->name, error, errors);
	}
	for (unsigned i = 0; i < policy->send_connector_count; i++) {
		const struct send_connector *connector = &policy->send_connectors[i];

		if (tls_context_create_send(
			    connector, world->trusts->send[i], &context, error, sizeof(error)) == 0)
			tls_context_destroy(&context);
		else
			rc = world_complain_tls(
				world, connector->line, connector->name, error, errors);
	}
	return rc;
}

/* Bindings. */

static void world_add_binding(
	struct world *world, const struct receive_connector *connector, unsigned i)
{
	const struct address *address = &connector->bindings[i];

	for (unsigned b = 0; b < world->binding_count; b++)
		if (address_is_equal(world->bindings[b].address, address))
			return;
	world->bindings[world->binding_count++] =
		(struct world_binding){.address = address, .connector = connector->name};
}

static int world_create_bindings(struct world *world)
{
	const struct policy *policy = world->policy;
	unsigned count = 0;

	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		count += policy->receive_connectors[i].binding_count;
	world->bindings = calloc(count + 1, sizeof(*world->bindings));
	if (world->bindings == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];

		for (unsigned j = 0; connector->enabled && j < connector->binding_count; j++)
			world_add_binding(world, connector, j);
	}
	return 0;
}

void world_complain_binding(const struct world_binding *binding, int rc, FILE *errors)
{
	char text[64];

	address_print(binding->address, text, sizeof(text));
	(void)fprintf(errors, "receive-connector \"%s\": cannot listen on %s: %s\n",
		binding->connector, text, strerror(-rc));
}

int world_create(const char *file, struct gate_ids *ids, FILE *errors, struct world **out)
{
	struct world *world = calloc(1, sizeof(*world));
	int rc;

	if (world == NULL)
		return -ENOMEM;
	atomic_init(&world->holders, 1);
	rc = policy_load(file, errors, &world->policy);
	if (rc == 0)
		rc = world_check_size(world->policy, errors);
	if (rc == 0)
		world->connections_max = world_connections(world->policy);
	if (rc == 0)
		rc = world_create_certificates(world, errors);
	if (rc == 0)
		rc = world_choose_certificates(world, errors);
	if (rc == 0)
		rc = trust_set_create(world->policy, errors, &world->trusts);
	if (rc == 0)
		rc = world_check_tls(world, errors);
	if (rc == 0)
		rc = world_create_bindings(world);
	/* The last, so that a world that comes to nothing changes no number of a name. */
	if (rc == 0)
		rc = gate_create(world->policy, ids, errors, &world->gate);
	if (rc < 0)
		world_release(&world);
	else
		*out = world;
	return rc;
}

int world_renew_gate(struct world *world, struct gate_ids *ids, FILE *errors)
{
	struct gate *gate = NULL;
	int rc = gate_create(world->policy, ids, errors, &gate);

	if (rc < 0)
		return rc;
	gate_destroy(&world->gate);
	world->gate = gate;
	return 0;
}

struct world *world_hold(struct world *world)
{
	(void)atomic_fetch_add_explicit(&world->holders, 1, memory_order_relaxed);
	return world;
}

void world_release(struct world **out)
{
	struct world *world = *out;

	*out = NULL;
	if (world == NULL ||
		atomic_fetch_sub_explicit(&world->holders, 1, memory_order_acq_rel) > 1)
		return;
	for (unsigned i = 0; i < world->certificate_count; i++)
		own_certificate_drop(&world->certificates[i]);
	free(world->certificates);
	free(world->bindings);
	trust_set_destroy(&world->trusts);
	gate_destroy(&world->gate);
	policy_destroy(&world->policy);
	free(world);
}

static bool world_is_same(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* What the spool and the queues were laid out by; NULL: nothing of it has changed. */
static const char *world_changed_queue(
	const struct queue_policy *was, const struct queue_policy *is)
{
	if (!world_is_same(was->spool_folder, is->spool_folder))
		return "spool-folder";
	/* Without a spool nothing was laid out. */
	if (is->spool_folder == NULL)
		return NULL;
	if (was->spool_segment_bytes != is->spool_segment_bytes)
		return "spool-segment-size";
	if (was->spool_max_bytes != is->spool_max_bytes)
		return "spool-max-size";
	if (was->max_messages != is->max_messages)
		return "queue-max-messages";
	if (was->pressure_medium != is->pressure_medium ||
		was->pressure_high != is->pressure_high ||
		was->pressure_high_end != is->pressure_high_end ||
		was->pressure_medium_end != is->pressure_medium_end)
		return "back-pressure";
	return NULL;
}

const char *world_needs_restart(const struct world *old, const struct world *world)
{
	const struct policy *was = old->policy;
	const struct policy *is = world->policy;

	if (was->workers != is->workers)
		return "workers";
	if (was->max_sessions != is->max_sessions)
		return "max-sessions";
	if (!world_is_same(was->user, is->user))
		return "user";
	if (was->io_uring_disable_count != is->io_uring_disable_count)
		return "io-uring-disable";
	for (unsigned i = 0; i < was->io_uring_disable_count; i++)
		if (!world_is_same(was->io_uring_disable[i], is->io_uring_disable[i]))
			return "io-uring-disable";
	if (was->bpf != is->bpf)
		return "bpf";
	if (!world_is_same(was->bpf_pin_folder, is->bpf_pin_folder))
		return "bpf-pin-folder";
	if (!world_is_same(was->door, is->door))
		return "door";
	if (!world_is_same(was->control_socket, is->control_socket))
		return "control-socket";
	if (!world_is_same(was->control_group, is->control_group))
		return "control-group";
	if (world->connections_max > old->connections_max)
		return "more max-connections";
	return world_changed_queue(&was->queue, &is->queue);
}
