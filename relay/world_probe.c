/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/log.h"
#include "relay/net/listener.h"
#include "relay/world.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/*
 * world_probe.c: which addresses can be listened on.
 */

/* How often, and how long apart, an address that is in use is asked for. */
#define PROBE_TURNS 100
#define PROBE_PAUSE_MS 20

/*
 * An address that the reload before gave up may still be held by a worker that has not come to
 * close it; and one of a relay that was killed a moment ago by its ring, which the kernel takes
 * apart when the process has long ended. Then it is tried again, until no turn is left. Not on a
 * worker.
 */
static int world_probe_address(const struct address *address, unsigned *turns)
{
	const struct timespec pause = {.tv_nsec = PROBE_PAUSE_MS * 1000000L};
	int rc = listener_probe(address);

	while (rc == -EADDRINUSE && *turns > 0) {
		--*turns;
		(void)nanosleep(&pause, NULL);
		rc = listener_probe(address);
	}
	return rc;
}

int world_probe_bindings(const struct world *old, struct world *world, FILE *errors)
{
	unsigned turns = PROBE_TURNS;
	unsigned open = 0;

	for (unsigned i = 0; i < world->binding_count; i++) {
		struct world_binding *binding = &world->bindings[i];
		char text[64];
		int rc = 0;

		for (unsigned j = 0; old != NULL && j < old->binding_count; j++)
			binding->is_open |=
				old->bindings[j].is_open &&
				address_is_equal(old->bindings[j].address, binding->address);
		binding->is_new = !binding->is_open;
		rc = binding->is_open ? 0 : world_probe_address(binding->address, &turns);
		binding->is_open = rc == 0;
		open += rc == 0;
		if (rc == 0)
			continue;
		world_complain_binding(binding, rc, errors);
		if (rc != -EADDRNOTAVAIL)
			return rc;
		address_print(binding->address, text, sizeof(text));
		log_event(LOG_LEVEL_ERROR, NULL, "listen-failed",
			"connector=%s address=%s why=\"%s\"", binding->connector, text,
			strerror(-rc));
	}
	return open > 0 ? 0 : -EADDRNOTAVAIL;
}
