/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/queues.h"

/*
 * queue_word.c: Exchange's words for states and kinds (EXCHANGE 9.1, 9.2).
 */

const char *queue_status_word(enum queue_status status)
{
	static const char *const words[] = {
		[QUEUE_ACTIVE] = "Active",
		[QUEUE_CONNECTING] = "Connecting",
		[QUEUE_READY] = "Ready",
		[QUEUE_RETRY] = "Retry",
		[QUEUE_SUSPENDED] = "Suspended",
	};

	_Static_assert(COUNT_OF(words) == QUEUE_STATUS_COUNT, "a word for each");
	return words[status];
}

const char *queue_kind_word(enum queue_kind kind)
{
	static const char *const words[] = {
		[QUEUE_SUBMISSION] = "Submission",
		[QUEUE_UNREACHABLE] = "Unreachable",
		[QUEUE_DNS] = "DnsConnectorDelivery",
		[QUEUE_SMART_HOST] = "SmartHostConnectorDelivery",
	};

	_Static_assert(COUNT_OF(words) == QUEUE_KIND_COUNT, "a word for each");
	return words[kind];
}

const char *message_status_word(enum message_status status)
{
	static const char *const words[] = {
		[MESSAGE_READY] = "Ready",
		[MESSAGE_ACTIVE] = "Active",
		[MESSAGE_RETRY] = "Retry",
		[MESSAGE_SUSPENDED] = "Suspended",
		[MESSAGE_PENDING_SUSPEND] = "PendingSuspend",
		[MESSAGE_PENDING_REMOVE] = "PendingRemove",
	};

	_Static_assert(COUNT_OF(words) == MESSAGE_STATUS_COUNT, "a word for each");
	return words[status];
}
