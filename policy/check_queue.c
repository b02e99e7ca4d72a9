/* SPDX-License-Identifier: Apache-2.0 */

/*
 * check_queue.c: where messages wait, and what is written of them.
 */

#include "policy/check.h"
#include "policy/names.h"
#include <string.h>

/* As many segments as a log cannot do without: one that is written, one ahead, some to be kept. */
#define SEGMENTS_MIN 4

/* The kernel lets a process have a million files at the most, if nobody has changed that. */
#define SEGMENTS_MAX 65536

static unsigned check_transport_section(const struct config *config)
{
	unsigned s = 0;

	while (s + 1 < config->section_count && config->sections[s].kind != SECTION_TRANSPORT)
		s++;
	return s;
}

bool check_is_queue_possible(const struct config *config)
{
	return config->owner->policy.queue.spool_folder != NULL ||
	       check_is_set(config, check_transport_section(config), "spool-folder");
}

static bool check_are_sound(
	const struct config *config, unsigned s, const char *one, const char *other)
{
	return check_is_sound(config, s, one) && check_is_sound(config, s, other);
}

static unsigned check_line_of_set(
	const struct config *config, unsigned s, const char *keyword, const char *other)
{
	return config_line(config, s, check_is_set(config, s, keyword) ? keyword : other);
}

static void check_spool_size(struct config *config, unsigned s, const struct policy *policy)
{
	const struct queue_policy *queue = &policy->queue;
	const uint64_t workers = policy->workers == 0 ? 1 : policy->workers;
	const uint64_t segments = queue->spool_max_bytes / queue->spool_segment_bytes;
	const unsigned line = check_line_of_set(config, s, "spool-max-size", "spool-segment-size");

	if (!check_are_sound(config, s, "spool-segment-size", "spool-max-size"))
		return;
	if (segments < SEGMENTS_MIN * workers)
		config_mistake(config, line,
			"spool-max-size (default 16GB) is below %u times spool-segment-size "
			"(default 64MB) for each worker, expected at least that",
			SEGMENTS_MIN);
	if (segments > SEGMENTS_MAX)
		config_mistake(config, line,
			"spool-max-size (default 16GB) is more than %u times spool-segment-size "
			"(default 64MB), and each segment needs a descriptor, expected larger "
			"segments",
			SEGMENTS_MAX);
}

/* Each threshold by name, and the one that it has to be below. */
static void check_pressure(struct config *config, unsigned s, const struct queue_policy *queue)
{
	const struct {
		const char *low;
		const char *high;
		uint64_t low_value;
		uint64_t high_value;
	} pairs[] = {
		{"back-pressure-medium", "back-pressure-high", queue->pressure_medium,
			queue->pressure_high},
		{"back-pressure-high-end", "back-pressure-high", queue->pressure_high_end,
			queue->pressure_high},
		{"back-pressure-medium-end", "back-pressure-medium", queue->pressure_medium_end,
			queue->pressure_medium},
		{"back-pressure-medium-end", "back-pressure-high-end", queue->pressure_medium_end,
			queue->pressure_high_end},
	};

	for (unsigned i = 0; i < COUNT_OF(pairs); i++) {
		if (pairs[i].low_value < pairs[i].high_value ||
			!check_are_sound(config, s, pairs[i].low, pairs[i].high))
			continue;
		config_mistake(config, check_line_of_set(config, s, pairs[i].low, pairs[i].high),
			"%s is %lu, expected less than %s, which is %lu", pairs[i].low,
			(unsigned long)pairs[i].low_value, pairs[i].high,
			(unsigned long)pairs[i].high_value);
		return;
	}
}

/* "postmaster@contoso.com", without brackets, and fit for a header field as it is. */
static bool check_is_address(const char *text)
{
	const char *at = strrchr(text, '@');
	char domain[DOMAIN_BYTES_MAX];

	for (const char *byte = text; *byte != '\0'; byte++)
		if (*byte <= ' ' || *byte >= 0x7f || strchr("<>()[]\\,;:\"", *byte) != NULL)
			return false;
	return at != NULL && at != text && strchr(text, '@') == at &&
	       domain_normalize(span_of(at + 1), domain) == 0;
}

void check_queue(struct config *config, unsigned s)
{
	struct policy *policy = &config->owner->policy;
	const struct queue_policy *queue = &policy->queue;

	if (check_is_set(config, s, "spool-folder"))
		policy->queue.spool_line = config_line(config, s, "spool-folder");
	check_spool_size(config, s, policy);
	check_pressure(config, s, queue);
	if (queue->delay_notification_ms >= queue->expiration_ms &&
		check_is_set(config, s, "delay-notification-timeout") &&
		check_are_sound(
			config, s, "delay-notification-timeout", "message-expiration-timeout"))
		config_mistake(config, config_line(config, s, "delay-notification-timeout"),
			"delay-notification-timeout is not below message-expiration-timeout "
			"(default 2d), expected less, or 0s for none");
	/* The default is what it is. */
	if (check_is_set(config, s, "postmaster-address") && queue->postmaster != NULL &&
		check_is_sound(config, s, "postmaster-address") &&
		!check_is_address(queue->postmaster))
		config_mistake(config, config_line(config, s, "postmaster-address"),
			"postmaster-address is \"%s\", expected an address like "
			"postmaster@contoso.com",
			queue->postmaster);
	if (queue->tracking_log_max_file_bytes > queue->tracking_log_max_directory_bytes &&
		check_are_sound(
			config, s, "tracking-log-max-file-size", "tracking-log-max-directory-size"))
		config_mistake(config,
			check_line_of_set(config, s, "tracking-log-max-file-size",
				"tracking-log-max-directory-size"),
			"tracking-log-max-file-size (default 10MB) is above "
			"tracking-log-max-directory-size (default 1000MB), expected at most that");
}
