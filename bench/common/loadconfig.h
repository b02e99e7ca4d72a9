/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * loadconfig.h: what the command line of load says.
 */

#include "bench/common/client.h"

#define LOAD_BODIES_MAX 64

struct load_config {
	struct client_plan plan;
	struct wire_tls tls;
	unsigned int tls_choice; /* enum client_tls */
	uint64_t messages;
	uint64_t messages_per_connection;
	uint64_t first_id;
	uint64_t size;
	uint64_t chunk_bytes;
	uint64_t connections;
	uint64_t threads;
	uint64_t recipients;
	uint64_t bodies;
	uint64_t seconds;
	unsigned int is_bdat; /* 0: DATA */
	bool is_stepwise;     /* without pipelining */
	bool is_resuming;
	bool is_json;
};

/* Fills config from the command line and with defaults; ends the program if that is wrong. */
void load_config_parse(struct load_config *config, int argc, char **argv);
