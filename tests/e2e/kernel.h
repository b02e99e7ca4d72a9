/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * kernel.h: what this kernel does with TLS records, asked without the relay.
 */

#include <stdbool.h>

/* /proc/net/tls_stat, as far as cases look at it. */
struct tls_stat {
	unsigned long tx, rx, decrypt_errors, rekey_rx, rekey_tx;
};

/* Zeros if there is no such file. */
struct tls_stat tls_stat_read(void);

/* Can this kernel do records, and replace keys? Tries it on a connection with itself. */
bool kernel_has_tls(void);
bool kernel_can_rekey(void);
