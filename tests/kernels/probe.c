/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints what the running kernel offers to the relay, one "name: value" a line.
 *
 *   probe            kernel, clock, io_uring setup, kTLS per version, cipher and direction,
 *   tls_stat;
 *                    exit status 0 if io_uring with DEFER_TASKRUN and kTLS AES-GCM both work, else
 *                    1
 *   probe load MIB   the same, then MIB of data over a loopback pair, plain and with kTLS
 *   probe insns      a loop of 3 million instructions, timed with CLOCK_MONOTONIC and with the TSC:
 *                    with "qemu.sh --icount" both must say about 3 million
 */

#include <errno.h>
#include <linux/io_uring.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#ifndef TCP_ULP
#define TCP_ULP 31
#endif
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif
#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif

union keys {
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 gcm128;
	struct tls12_crypto_info_aes_gcm_256 gcm256;
	struct tls12_crypto_info_aes_ccm_128 ccm128;
	struct tls12_crypto_info_chacha20_poly1305 chacha;
};

struct cipher {
	const char *name;
	uint16_t type;
	socklen_t size;
};

static const struct cipher ciphers[] = {
	{"AES-128-GCM", TLS_CIPHER_AES_GCM_128, sizeof(struct tls12_crypto_info_aes_gcm_128)},
	{"AES-256-GCM", TLS_CIPHER_AES_GCM_256, sizeof(struct tls12_crypto_info_aes_gcm_256)},
	{"AES-128-CCM", TLS_CIPHER_AES_CCM_128, sizeof(struct tls12_crypto_info_aes_ccm_128)},
	{"ChaCha20-Poly1305", TLS_CIPHER_CHACHA20_POLY1305,
		sizeof(struct tls12_crypto_info_chacha20_poly1305)},
};

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* The name of an error, or "yes" for 0. */
static const char *verdict(int error)
{
	return error == 0 ? "yes" : strerrorname_np(error);
}

static int connected_pair(int fds[2])
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t len = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (listener < 0 || fds[0] < 0 ||
		bind(listener, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
		listen(listener, 1) != 0 ||
		getsockname(listener, (struct sockaddr *)&addr, &len) != 0 ||
		connect(fds[0], (struct sockaddr *)&addr, sizeof(addr)) != 0)
		return errno;
	fds[1] = accept(listener, NULL, NULL);
	close(listener);
	return fds[1] < 0 ? errno : 0;
}

static int set_keys(int fd, int direction, const struct cipher *c, uint16_t version, uint8_t fill)
{
	union keys keys;

	memset(&keys, 0, sizeof(keys));
	/*
	 * Everything behind the header is key material; the sequence number must start at zero,
	 * and it is the last member of each struct.
	 */
	memset((uint8_t *)&keys + sizeof(keys.info), fill, c->size - sizeof(keys.info) - 8);
	keys.info.version = version;
	keys.info.cipher_type = c->type;
	return setsockopt(fd, SOL_TLS, direction, &keys, c->size) == 0 ? 0 : errno;
}

static int set_ulp(int fd)
{
	return setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == 0 ? 0 : errno;
}

static int say_hello(const int fds[2])
{
	char buf[8] = "";

	if (send(fds[0], "hello", 5, 0) != 5)
		return errno;
	if (recv(fds[1], buf, sizeof(buf), 0) != 5)
		return errno != 0 ? errno : EIO;
	return memcmp(buf, "hello", 5) == 0 ? 0 : EBADMSG;
}

/*
 * Tries one version and cipher: keys in both directions, a record through them, a second key.
 * Returns 0 if the record came through.
 */
static int try_ktls(const struct cipher *c, uint16_t version)
{
	int fds[2] = {-1, -1};
	int tx, rx, data = ENODATA, rekey = ENODATA;
	int err = connected_pair(fds);

	if (err == 0)
		err = set_ulp(fds[0]);
	if (err == 0)
		err = set_ulp(fds[1]);
	if (err != 0) {
		printf("ktls %s %s: ulp %s\n", version == TLS_1_3_VERSION ? "1.3" : "1.2", c->name,
			verdict(err));
		return err;
	}
	tx = set_keys(fds[0], TLS_TX, c, version, 1);
	rx = set_keys(fds[1], TLS_RX, c, version, 1);
	if (tx == 0 && rx == 0) {
		errno = 0;
		data = say_hello(fds);
		rekey = set_keys(fds[0], TLS_TX, c, version, 2);
	}
	printf("ktls %s %s: tx %s, rx %s, data %s, rekey %s\n",
		version == TLS_1_3_VERSION ? "1.3" : "1.2", c->name, verdict(tx), verdict(rx),
		verdict(data), verdict(rekey));
	close(fds[0]);
	close(fds[1]);
	return data;
}

/* Sets up a ring with the flags and takes one NOP through it. */
static int try_ring(unsigned flags, unsigned *features)
{
	struct io_uring_params p;
	struct io_uring_sqe *sqes;
	uint8_t *sq;
	size_t size;
	int err = 0;
	int fd;

	memset(&p, 0, sizeof(p));
	p.flags = flags;
	fd = (int)syscall(SYS_io_uring_setup, 4, &p);
	if (fd < 0)
		return errno;
	*features = p.features;
	if ((flags & IORING_SETUP_NO_SQARRAY) != 0) {
		close(fd);
		return 0;
	}
	size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	if (size < p.sq_off.array + p.sq_entries * sizeof(uint32_t))
		size = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
	sq = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	sqes = mmap(NULL, p.sq_entries * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		IORING_OFF_SQES);
	if (sq == MAP_FAILED || sqes == MAP_FAILED) {
		err = errno;
	} else {
		memset(sqes, 0, sizeof(*sqes));
		sqes[0].opcode = IORING_OP_NOP;
		sqes[0].user_data = 42;
		*(uint32_t *)(void *)(sq + p.sq_off.array) = 0;
		__atomic_store_n((uint32_t *)(void *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
		if (syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
			err = errno;
		else if (((struct io_uring_cqe *)(void *)(sq + p.cq_off.cqes))->user_data != 42)
			err = EIO;
	}
	close(fd);
	return err;
}

static void print_file(const char *path)
{
	char line[256];
	FILE *f = fopen(path, "re");

	if (f == NULL) {
		printf("%s: %s\n", path, verdict(errno));
		return;
	}
	printf("%s:\n", path);
	while (fgets(line, sizeof(line), f) != NULL)
		(void)fputs(line, stdout);
	(void)fclose(f);
}

static int load(const char *name, const struct cipher *c, long mib)
{
	static char buf[1 << 16];
	int64_t start = now_ns();
	int64_t left = (int64_t)mib << 20;
	int fds[2] = {-1, -1};
	int status;
	pid_t child;
	int err = connected_pair(fds);

	if (err == 0 && c != NULL) {
		if ((err = set_ulp(fds[0])) == 0 && (err = set_ulp(fds[1])) == 0 &&
			(err = set_keys(fds[0], TLS_TX, c, TLS_1_3_VERSION, 1)) == 0)
			err = set_keys(fds[1], TLS_RX, c, TLS_1_3_VERSION, 1);
	}
	if (err != 0) {
		printf("load %s: %s\n", name, verdict(err));
		return err;
	}
	(void)fflush(stdout);
	child = fork();
	if (child < 0)
		return errno;
	if (child == 0) {
		close(fds[1]);
		while (left > 0) {
			ssize_t n = send(fds[0], buf, sizeof(buf), MSG_NOSIGNAL);

			if (n < 0)
				_exit(1);
			left -= n;
		}
		_exit(0);
	}
	close(fds[0]);
	while (left > 0) {
		ssize_t n = recv(fds[1], buf, sizeof(buf), 0);

		if (n <= 0) {
			err = n < 0 ? errno : EPIPE;
			break;
		}
		left -= n;
	}
	close(fds[1]);
	if (waitpid(child, &status, 0) != child || status != 0)
		err = err != 0 ? err : ECHILD;
	printf("load %s: %ld MiB %s, %lld ms\n", name, mib, verdict(err),
		(long long)(now_ns() - start) / 1000000);
	return err;
}

#ifdef __x86_64__
static uint64_t tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("lfence\n\trdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

static void three_million(void)
{
	uint64_t n = 1000000;

	__asm__ volatile("1:\n\tnop\n\tdec %0\n\tjnz 1b" : "+r"(n) : : "cc");
}

static int insns(void)
{
	int i;

	for (i = 0; i < 3; i++) {
		int64_t start = now_ns();
		uint64_t start_tsc = tsc();
		uint64_t end_tsc;

		three_million();
		end_tsc = tsc();
		printf("insns: 3000000 executed, clock %lld ns, tsc %llu\n",
			(long long)(now_ns() - start), (unsigned long long)(end_tsc - start_tsc));
	}
	print_file("/sys/devices/system/clocksource/clocksource0/current_clocksource");
	return 0;
}
#else
static int insns(void)
{
	puts("insns: only on x86-64");
	return 1;
}
#endif

int main(int argc, char **argv)
{
	static const struct timespec tenth = {.tv_nsec = 100000000};
	const unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
	struct utsname name;
	unsigned features = 0;
	unsigned ignored;
	int64_t start;
	int ring;
	int bad = 0;
	size_t i;
	long mib = 0;

	if (argc == 2 && strcmp(argv[1], "insns") == 0)
		return insns();
	if (argc == 3 && strcmp(argv[1], "load") == 0)
		mib = strtol(argv[2], NULL, 10);
	if (argc != 1 && mib <= 0) {
		(void)fputs("usage: probe [load MIB | insns]\n", stderr);
		return 2;
	}
	uname(&name);
	printf("kernel: %s\ncpus: %ld\n", name.release, sysconf(_SC_NPROCESSORS_ONLN));
	start = now_ns();
	nanosleep(&tenth, NULL);
	printf("clock: 100 ms sleep took %lld us\n", (long long)(now_ns() - start) / 1000);
	ring = try_ring(flags, &features);
	bad |= ring;
	printf("io_uring single_issuer|defer_taskrun: %s, features 0x%x\n", verdict(ring),
		features);
	printf("io_uring no_sqarray: %s\n",
		verdict(try_ring(flags | IORING_SETUP_NO_SQARRAY, &ignored)));
	for (i = 0; i < sizeof(ciphers) / sizeof(ciphers[0]); i++) {
		int old = try_ktls(&ciphers[i], TLS_1_2_VERSION);
		int new = try_ktls(&ciphers[i], TLS_1_3_VERSION);

		if (i < 2)
			bad |= old | new;
	}
	if (mib > 0) {
		bad |= load("plain", NULL, mib);
		bad |= load("ktls", &ciphers[0], mib);
	}
	print_file("/proc/net/tls_stat");
	return bad != 0;
}
