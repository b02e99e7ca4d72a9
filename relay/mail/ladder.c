/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/mail/ladder.h"

uint64_t ladder_wait_ms(const struct queue_policy *policy, uint64_t failures)
{
	if (failures <= policy->glitch_retry_count)
		return policy->glitch_retry_ms;
	if (failures - policy->glitch_retry_count <= policy->transient_retry_count)
		return policy->transient_retry_ms;
	return policy->steady_retry_ms;
}

const char *ladder_word(const struct queue_policy *policy, uint64_t failures)
{
	if (failures <= policy->glitch_retry_count)
		return "glitch";
	if (failures - policy->glitch_retry_count <= policy->transient_retry_count)
		return "transient";
	return "steady";
}
