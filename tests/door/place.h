/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * place.h: where a case happens: namespaces of its own, so that whatever is attached, mounted or
 * left running goes with it.
 *
 *   network   every address of both families is local, so a client may come from any of them
 *   mounts    a bpf file system at PLACE/bpf, another /proc
 *   pids      the case is number 1: with it all that it started ends
 */

#include "tests/e2e/suite.h"
#include <stdio.h>

#define PLACE_PATH_BYTES 200

/* Can this be done here? False: why says what is missing. */
bool place_is_possible(char *why, size_t why_bytes);

/*
 * Runs the function in new namespaces, in a process of its own, and returns how that ended, as
 * waitpid() says. After so many seconds it is killed.
 */
int place_run(void (*run)(const void *data), const void *data, unsigned seconds_max);

/* In the namespaces: lo with all addresses, the folder suite.dir/place with its bpf file system. */
void place_make(void);

/* suite.dir/place/NAME. Returns out. */
const char *place_path(const char *name, char out[static PLACE_PATH_BYTES]);

/*
 * Where a case may make a control group, on a file system that it mounts at "cgroup"; it is removed
 * when the case has ended. Returns out.
 */
const char *place_group(char out[static PLACE_PATH_BYTES]);

/* The number behind key in the line of that name of /proc/net/snmp or netstat: "Tcp:",
 * "PassiveOpens". The case ends if there is none. */
unsigned long place_counter(const char *file, const char *line, const char *key);
