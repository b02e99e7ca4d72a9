/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/e2e/kernel.h"

#include <arpa/inet.h>
#include <linux/tls.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef TCP_ULP
#define TCP_ULP 31
#endif
#ifndef SOL_TLS
#define SOL_TLS 282
#endif

struct tls_stat tls_stat_read(void)
{
	struct tls_stat stat = {0};
	const struct {
		const char *name;
		unsigned long *value;
	} wanted[] = {
		{"TlsTxSw", &stat.tx},
		{"TlsRxSw", &stat.rx},
		{"TlsDecryptError", &stat.decrypt_errors},
		{"TlsRxRekeyOk", &stat.rekey_rx},
		{"TlsTxRekeyOk", &stat.rekey_tx},
	};
	FILE *file = fopen("/proc/net/tls_stat", "re");
	char name[64];
	unsigned long value;

	while (file != NULL && fscanf(file, "%63s %lu", name, &value) == 2) {
		for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
			if (strcmp(name, wanted[i].name) == 0)
				*wanted[i].value = value;
		}
	}
	if (file != NULL)
		(void)fclose(file);
	return stat;
}

/* A connection with itself; both ends, or false. */
static bool kernel_pair(int ends[2])
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t len = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool done;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ends[1] = -1;
	ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	done = bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	       listen(listener, 1) == 0 &&
	       getsockname(listener, (struct sockaddr *)&address, &len) == 0 &&
	       connect(ends[0], (struct sockaddr *)&address, sizeof(address)) == 0;
	if (done)
		ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	(void)close(listener);
	return ends[1] >= 0;
}

/* Sets TLS_TX so many times, each with another key. */
static bool kernel_try(unsigned keys)
{
	struct tls12_crypto_info_aes_gcm_128 info = {
		.info = {.version = TLS_1_3_VERSION, .cipher_type = TLS_CIPHER_AES_GCM_128}};
	int ends[2];
	bool done = kernel_pair(ends) &&
		    setsockopt(ends[0], IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == 0;

	for (unsigned i = 0; done && i < keys; i++) {
		info.key[0] = (unsigned char)i;
		done = setsockopt(ends[0], SOL_TLS, TLS_TX, &info, sizeof(info)) == 0;
	}
	(void)close(ends[0]);
	(void)close(ends[1]);
	return done;
}

bool kernel_has_tls(void)
{
	return kernel_try(1) && access("/proc/net/tls_stat", R_OK) == 0;
}

bool kernel_can_rekey(void)
{
	return kernel_try(2);
}
