/* SPDX-License-Identifier: Apache-2.0 */

/*
 * xstate.c: ptrace() for a User-Mode Linux whose buffer for a process's vector registers is too
 * small for this processor; a library that uml.sh preloads.
 *
 * Linux 6.1 and 6.12 keep these registers in 2696 bytes, which is what they take with AVX-512. With
 * AMX they take more. The host reads as much of them as fits, but writes them only whole, so that
 * such a kernel dies at its first process ("ptrace set fp regs failed"). Here what is to be written
 * is extended to the host's size, with all that lies beyond in its initial state. That is exact as
 * long as nothing in the guest uses AMX, and nothing can: a process has to ask the kernel for it,
 * and these kernels do not know of it. AVX and AVX-512 stay whole.
 *
 * All else is passed on as it is. One thread only, as in these kernels.
 */

#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Far more than any processor has. The kernels' stacks are too small for it. */
#define XSTATE_MAX (64U << 10)

/* Intel's manual, volume 1, 13.4: after the legacy region the header, which begins with a bit for
 * each component that is not in its initial state. Components 0 and 1 are the legacy region. */
#define XSTATE_HEADER 512
#define XSTATE_FIRST 2
#define XSTATE_COMPONENTS 63
#define XSTATE_LEAF 0xd

static alignas(64) uint8_t xstate[XSTATE_MAX];

/* How much the host writes: as much as it reads. 0 if that cannot be told. */
static size_t xstate_ask(pid_t pid)
{
	static size_t known;
	struct iovec all = {xstate, sizeof xstate};

	if (known == 0 &&
		syscall(SYS_ptrace, PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &all) == 0 &&
		all.iov_len < sizeof xstate)
		known = all.iov_len;
	return known;
}

/* The components that lie within so many bytes. */
static uint64_t xstate_within(size_t bytes)
{
	static size_t known_bytes;
	static uint64_t known;

	if (bytes == known_bytes)
		return known;
	known = (1U << XSTATE_FIRST) - 1;
	for (unsigned int i = XSTATE_FIRST; i < XSTATE_COMPONENTS; i++) {
		unsigned int size = 0;
		unsigned int at = 0;
		unsigned int c = 0;
		unsigned int d = 0;

		if (__get_cpuid_count(XSTATE_LEAF, i, &size, &at, &c, &d) != 0 && size > 0 &&
			(uint64_t)at + size <= bytes)
			known |= UINT64_C(1) << i;
	}
	known_bytes = bytes;
	return known;
}

/* What to write instead of registers: they, if they are long enough. */
static struct iovec xstate_extend(pid_t pid, const struct iovec *registers)
{
	size_t all = xstate_ask(pid);
	size_t bytes = registers->iov_len;
	uint64_t components = 0;

	if (bytes >= all || bytes < XSTATE_HEADER + sizeof components)
		return *registers;
	memcpy(xstate, registers->iov_base, bytes);
	memset(xstate + bytes, 0, all - bytes);
	memcpy(&components, xstate + XSTATE_HEADER, sizeof components);
	components &= xstate_within(bytes);
	memcpy(xstate + XSTATE_HEADER, &components, sizeof components);
	return (struct iovec){xstate, all};
}

/* In place of libc's, whose results it has: a word that is read is the result, not stored. */
long ptrace(enum __ptrace_request request, ...)
{
	va_list rest;
	long word = 0;

	va_start(rest, request);
	pid_t pid = va_arg(rest, pid_t);
	void *address = va_arg(rest, void *);
	void *data = va_arg(rest, void *);
	va_end(rest);

	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA ||
		request == PTRACE_PEEKUSER) {
		if (syscall(SYS_ptrace, request, pid, address, &word) < 0)
			return -1;
		errno = 0; /* so that a word of all ones is told from a failure */
		return word;
	}
	if (request == PTRACE_SETREGSET && (uintptr_t)address == NT_X86_XSTATE) {
		struct iovec whole = xstate_extend(pid, data);

		return syscall(SYS_ptrace, request, pid, address, &whole);
	}
	return syscall(SYS_ptrace, request, pid, address, data);
}
