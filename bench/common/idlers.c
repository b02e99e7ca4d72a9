/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/idlers.h"

#include "bench/common/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sessions from one source address, well below the ephemeral ports of one (28,232). */
#define IDLERS_PER_ADDRESS 8000

/* Handshakes at a time, so that no listen queue overflows; and NOOPs. */
#define IDLERS_AT_A_TIME 64

#define IDLERS_TICK_MS 100
#define IDLERS_CLOSE_MS 3000

static void idlers_tick(struct timer *timer)
{
	struct idlers *idlers = OWNER_OF(timer, struct idlers, tick);

	/* Only so that a turn ends. */
	timer_set(loop_timers(stream_net_loop(idlers->net)), timer,
		clock_us() / 1000 + IDLERS_TICK_MS);
}

static void idler_failed(struct idler *idler, const char *why, int code)
{
	struct idlers *idlers = idler->all;

	if (idlers->failed++ == 0) {
		(void)fprintf(stderr, "idle: %s", why);
		if (code > 0)
			(void)fprintf(stderr, ": %d", code);
		else if (code < 0)
			(void)fprintf(stderr, ": %s", strerror(-code));
		(void)fputc('\n', stderr);
	}
	if (idler->state == IDLER_OPENING)
		idlers->opening--;
	if (idler->state == IDLER_ASKED)
		idlers->asked--;
	idler->state = IDLER_FAILED;
}

static void idler_lost(struct client *client, const char *why, int code)
{
	struct idler *idler = OWNER_OF(client, struct idler, client);

	if (idler->state != IDLER_ALIVE)
		idler_failed(idler, why, code);
}

/* The reply to NOOP, or the server's goodbye. Asks for more if there is none. */
static void idler_read(struct client *client)
{
	struct idler *idler = OWNER_OF(client, struct idler, client);
	int rc = client_next_reply(client);

	if (rc == -EAGAIN)
		return;
	if (rc == 250 && idler->state == IDLER_ASKED) {
		idler->state = IDLER_ALIVE;
		idler->all->asked--;
		idler->all->alive++;
		client_say(client, "QUIT\r\n");
		client_close(client);
		return;
	}
	idler_failed(idler, "reply", rc);
	client_abort(client);
}

static void idler_ready(struct client *client)
{
	struct idler *idler = OWNER_OF(client, struct idler, client);
	struct idlers *idlers = idler->all;

	if (idlers->open++ == 0)
		stream_facts(&client->stream, &idlers->tls);
	idlers->opening--;
	idler->state = IDLER_OPEN;
	idler_read(client);
}

static void idler_drained(struct client *client)
{
	(void)client;
}

static void idler_closed(struct client *client)
{
	struct idler *idler = OWNER_OF(client, struct idler, client);

	idler->is_closed = true;
	idler->all->held--;
}

static const struct client_events idler_events = {
	.on_ready = idler_ready,
	.on_input = idler_read,
	.on_drained = idler_drained,
	.on_lost = idler_lost,
	.on_closed = idler_closed,
};

int idlers_create(struct idlers *idlers, struct stream_net *net, const struct client_plan *plan,
	uint64_t count, uint64_t first)
{
	*idlers = (struct idlers){.net = net,
		.plan = plan,
		.count = count,
		.first = first,
		.tls = {.version = "none", .cipher = "none", .group = "none", .record = "none"}};
	idlers->idlers = calloc(count, sizeof(*idlers->idlers));
	if (idlers->idlers == NULL && count > 0)
		return -ENOMEM;
	timer_init(&idlers->tick, idlers_tick);
	idlers_tick(&idlers->tick);
	return 0;
}

static void idlers_begin(struct idlers *idlers)
{
	struct idler *idler = &idlers->idlers[idlers->begun];
	uint64_t number = idlers->first + idlers->begun++;
	struct sockaddr_in source = {.sin_family = AF_INET};
	bool is_local = ntohl(idlers->plan->to.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	int rc;

	source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(number / IDLERS_PER_ADDRESS));
	idler->all = idlers;
	idler->state = IDLER_OPENING;
	idlers->opening++;
	rc = client_open(&idler->client, idlers->net, idlers->plan, &idler_events,
		is_local ? &source : NULL, NULL);
	if (rc == 0) {
		idlers->held++;
		return;
	}
	idler->is_closed = true;
	idler_failed(idler, "connect", rc);
}

/* One turn of the loop; false when it is broken or the time is over. */
static bool idlers_turn(struct idlers *idlers, uint64_t end_ms)
{
	return loop_turn(stream_net_loop(idlers->net)) >= 0 && clock_us() / 1000 < end_ms;
}

void idlers_open_all(struct idlers *idlers, uint64_t end_ms)
{
	do {
		while (idlers->begun < idlers->count && idlers->opening < IDLERS_AT_A_TIME)
			idlers_begin(idlers);
	} while ((idlers->opening > 0 || idlers->begun < idlers->count) &&
		 idlers_turn(idlers, end_ms));
}

static void idler_ask(struct idler *idler)
{
	if (idler->state != IDLER_OPEN)
		return;
	idler->state = IDLER_ASKED;
	idler->all->asked++;
	client_say(&idler->client, "NOOP\r\n");
	stream_flush(&idler->client.stream);
}

void idlers_ask_all(struct idlers *idlers, uint64_t end_ms)
{
	uint64_t next = 0;

	do {
		while (next < idlers->begun && idlers->asked < IDLERS_AT_A_TIME)
			idler_ask(&idlers->idlers[next++]);
	} while ((idlers->asked > 0 || next < idlers->begun) && idlers_turn(idlers, end_ms));
	for (uint64_t i = 0; i < idlers->begun; i++) {
		struct idler *idler = &idlers->idlers[i];

		if (idler->state == IDLER_OPENING || idler->state == IDLER_OPEN ||
			idler->state == IDLER_ASKED)
			idler_failed(idler, "not in time", 0);
		if (!idler->is_closed && idler->state != IDLER_ALIVE)
			client_abort(&idler->client);
	}
	idlers->failed += idlers->count - idlers->begun;
	end_ms = clock_us() / 1000 + IDLERS_CLOSE_MS;
	while (idlers->held > 0 && idlers_turn(idlers, end_ms))
		;
}

void idlers_destroy(struct idlers *idlers)
{
	if (idlers->net != NULL)
		timer_stop(loop_timers(stream_net_loop(idlers->net)), &idlers->tick);
	free(idlers->idlers);
	*idlers = (struct idlers){0};
}
