/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * sink.h: the parts of postern-sink: what its command line says, and the threads that serve.
 *
 * The first worker accepts and deals the connections out in turn, so that each worker has as many
 * as the next; a connection stays with its worker. The main thread prints and waits for signals.
 */

#include "bench/common/alarms.h"
#include "bench/common/promises.h"
#include "bench/common/server.h"
#include "bench/common/stream.h"

#include <pthread.h>

#define SINK_THREADS_MAX 64

/* Of one worker; more are turned away and counted. The relay's own pools end here, too. */
#define SINK_SESSIONS_MAX 15000

struct sink_config {
	struct sockaddr_in listen[OPTIONS_LIST_MAX];
	size_t listen_count;
	enum stream_code code;
	struct stream_tls tls;
	struct server_policy policy;
	struct faults faults;
	struct options_list ledgers;
	uint64_t threads;
	uint64_t slow_bytes; /* of a body in a second; 0: as fast as it comes */
	uint64_t seconds;    /* then it ends; 0: never */
	uint64_t messages;   /* when so many were accepted it ends; 0: never */
	bool has_tls;
	bool is_implicit;
	bool is_text;
	bool has_progress;
};

/* Fills config from the command line and with defaults; ends the program if that is wrong. */
void sink_config_parse(struct sink_config *config, int argc, char **argv);

struct sink_worker;

struct sink_acceptor {
	struct op op;
	struct sink_worker *worker;
	int fd;
};

struct sink_worker {
	pthread_t thread;
	struct sink *sink;
	struct stream_net *net;
	struct loop *loop;
	struct alarms alarms;
	struct link idle; /* sessions to use again */
	uint64_t session_count;
	struct op deal_op;
	int deal[2];   /* a pipe: descriptors of accepted connections */
	int dealt[64]; /* what is read from it */
	struct server_counters counters;
	_Atomic uint64_t open;
	_Atomic uint64_t refused; /* sessions for which there was no room */
};

struct sink {
	struct sink_config config;
	struct sink_worker *workers;
	struct sink_acceptor acceptors[OPTIONS_LIST_MAX]; /* the first worker's */
	uint64_t next;                                    /* to be dealt a connection */
	int stop_fd;            /* an eventfd: what was to end has ended, or a worker has failed */
	_Atomic bool is_broken; /* a worker has failed */
	_Atomic uint64_t accepted; /* messages; counted where --messages bounds them */
	pthread_barrier_t start;
};

/* The thread of a worker, whose argument is its struct sink_worker. */
void *sink_worker_run(void *worker);
