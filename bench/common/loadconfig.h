/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * loadconfig.h: what the command line of postern-load says.
 */

#include "bench/common/client.h"
#include "bench/common/sizes.h"

#define LOAD_BODIES_MAX 64

struct load_config {
	struct client_plan plan;
	struct stream_tls tls;
	struct sizes sizes;
	const char *sizes_text; /* NULL: of one size */
	const char *ledger;     /* path, or NULL */
	unsigned tls_choice;    /* enum client_tls */
	unsigned code;          /* enum stream_code */
	uint64_t messages;
	uint64_t messages_per_connection;
	uint64_t run;
	uint64_t first_id;
	uint64_t size;
	uint64_t chunk_bytes;
	uint64_t connections;
	uint64_t idle;
	uint64_t threads;
	uint64_t recipients;
	uint64_t bodies;
	uint64_t seconds;
	uint64_t rate; /* messages a second in all; 0: a closed loop */
	uint64_t seed;
	uint64_t resume_percent;
	unsigned is_bdat; /* 0: DATA */
	bool is_stepwise; /* without pipelining */
	bool is_poisson;
	bool has_progress;
	bool is_json;
};

/* Fills config from the command line and with defaults; ends the program if that is wrong. */
void load_config_parse(struct load_config *config, int argc, char **argv);

/* "stock" or "postern". */
const char *load_config_code(const struct load_config *config);
