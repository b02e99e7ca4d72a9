/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * daemon.h: the relay under test: its configuration, its process, its log; or a model in its place.
 */

#include <stdbool.h>
#include <stdint.h>

struct daemon_options {
	const char *postern;    /* its program */
	const char *dir;        /* of its own, for everything but the spool */
	const char *spool;      /* folder of the spool */
	const char *deliver;    /* "queue"; or "proxy", to try the tools */
	const char *durability; /* "durable", "relaxed"; NULL: none is said */
	const char *transport;  /* further lines of that section, or NULL */
	const char *model;      /* NULL, or what model.h knows: instead of the relay */
	unsigned workers;
	uint16_t port, sink_port;
};

/* A port that is free now. */
uint16_t daemon_free_port(void);

/* Starts it, and waits until it is ready. False: it is not; a line on stderr says why. */
bool daemon_start(const struct daemon_options *options);

/* SIGKILL, and it is gone. */
void daemon_kill(void);

/* SIGTERM. False: it did not end, or not with 0. */
bool daemon_stop(void);

/* Has it ended by itself? */
bool daemon_has_ended(void);
