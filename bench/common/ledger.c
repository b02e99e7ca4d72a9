/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/ledger.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

int ledger_open(struct ledger *ledger, const char *path)
{
	ledger->fd = -1;
	ledger->count = 0;
	if (path == NULL)
		return 0;
	ledger->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	return ledger->fd < 0 ? -errno : 0;
}

int ledger_flush(struct ledger *ledger)
{
	size_t bytes = ledger->count * (size_t)LEDGER_ENTRY_BYTES;
	ssize_t written;

	if (bytes == 0)
		return 0;
	ledger->count = 0;
	written = write(ledger->fd, ledger->held, bytes);
	if (written < 0)
		return -errno;
	/* An entry that is cut off would spoil all that come behind it. */
	return (size_t)written == bytes ? 0 : -ENOSPC;
}

int ledger_add(struct ledger *ledger, uint64_t run, uint64_t id)
{
	uint8_t *entry = ledger->held + ledger->count * (size_t)LEDGER_ENTRY_BYTES;

	if (ledger->fd < 0)
		return 0;
	run = htole64(run);
	id = htole64(id);
	memcpy(entry, &run, sizeof(run));
	memcpy(entry + sizeof(run), &id, sizeof(id));
	return ++ledger->count == LEDGER_ENTRIES_HELD ? ledger_flush(ledger) : 0;
}

int ledger_close(struct ledger *ledger)
{
	int rc;

	if (ledger->fd < 0)
		return 0;
	rc = ledger_flush(ledger);
	if (close(ledger->fd) < 0 && rc == 0)
		rc = -errno;
	ledger->fd = -1;
	return rc;
}
