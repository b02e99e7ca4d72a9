/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/faults.h"

#include "bench/common/random.h"

#include <stdlib.h>
#include <string.h>

#define FAULTS_DELAY_MS_MAX 600000

const char *const faults_step_names[FAULTS_STEP_COUNT] = {
	[FAULTS_ACCEPT] = "accept",
	[FAULTS_MAIL] = "mail",
	[FAULTS_RCPT] = "rcpt",
	[FAULTS_DATA] = "data",
	[FAULTS_BODY] = "body",
};

/* "STEP=": where what is behind it begins, or NULL. */
static const char *faults_read_step(const char *text, enum faults_step *out)
{
	for (unsigned i = 0; i < FAULTS_STEP_COUNT; i++) {
		size_t bytes = strlen(faults_step_names[i]);

		if (strncmp(text, faults_step_names[i], bytes) != 0 || text[bytes] != '=')
			continue;
		*out = (enum faults_step)i;
		return text + bytes + 1;
	}
	return NULL;
}

/* "" or ":0.01" */
static bool faults_read_rate(const char *text, uint64_t *out_share)
{
	char *end = NULL;
	double rate = 1.0;

	if (*text == ':' && text[1] >= '0' && text[1] <= '9') {
		rate = strtod(text + 1, &end);
		text = end;
	}
	*out_share = (uint64_t)(rate * 0x1p32);
	return *text == '\0' && rate >= 0.0 && rate <= 1.0;
}

static const char *faults_read_number(const char *text, unsigned max, unsigned *out)
{
	char *end = NULL;
	unsigned long value = strtoul(text, &end, 10);

	*out = (unsigned)value;
	return *text >= '0' && *text <= '9' && value <= max ? end : NULL;
}

static const char *faults_read_what(const char *text, enum faults_step step, unsigned *out)
{
	if (strncmp(text, "close", 5) == 0) {
		*out = FAULTS_CLOSE;
		text += 5;
	} else if (strncmp(text, "4xx", 3) == 0) {
		*out = step == FAULTS_ACCEPT ? 421 : 451;
		text += 3;
	} else if (strncmp(text, "5xx", 3) == 0) {
		*out = 554;
		text += 3;
	} else {
		text = faults_read_number(text, 599, out);
		if (*out < 400)
			return NULL;
	}
	return text;
}

static uint64_t faults_salt(uint64_t seed, size_t index, bool is_delay)
{
	struct random random = {.state = seed * 4096 + index * 2 + is_delay};

	return random_next(&random);
}

bool faults_read(struct faults *faults, const char *text, uint64_t seed)
{
	struct fault *fault = &faults->faults[faults->fault_count];

	if (faults->fault_count == FAULTS_MAX)
		return false;
	text = faults_read_step(text, &fault->step);
	if (text != NULL)
		text = faults_read_what(text, fault->step, &fault->what);
	if (text == NULL || !faults_read_rate(text, &fault->share))
		return false;
	fault->salt = faults_salt(seed, faults->fault_count++, false);
	return true;
}

bool faults_read_delay(struct faults *faults, const char *text, uint64_t seed)
{
	struct fault *delay = &faults->delays[faults->delay_count];

	if (faults->delay_count == FAULTS_MAX)
		return false;
	text = faults_read_step(text, &delay->step);
	if (text != NULL)
		text = faults_read_number(text, FAULTS_DELAY_MS_MAX, &delay->what);
	if (text == NULL || !faults_read_rate(text, &delay->share))
		return false;
	delay->salt = faults_salt(seed, faults->delay_count++, true);
	return true;
}

static bool fault_hits(struct fault *fault)
{
	struct random random = {.state = fault->salt};

	random.state += atomic_fetch_add_explicit(&fault->events, 1, memory_order_relaxed) << 20;
	return random_next(&random) >> 32 < fault->share;
}

unsigned faults_draw(struct faults *faults, enum faults_step step)
{
	unsigned what = FAULTS_NONE;

	for (size_t i = 0; i < faults->fault_count && what == FAULTS_NONE; i++)
		if (faults->faults[i].step == step && fault_hits(&faults->faults[i]))
			what = faults->faults[i].what;
	if (what != FAULTS_NONE &&
		atomic_fetch_add_explicit(&faults->given, 1, memory_order_relaxed) >= faults->max)
		what = FAULTS_NONE;
	return what;
}

unsigned faults_draw_delay(struct faults *faults, enum faults_step step)
{
	unsigned ms = 0;

	for (size_t i = 0; i < faults->delay_count; i++)
		if (faults->delays[i].step == step && fault_hits(&faults->delays[i]))
			ms += faults->delays[i].what;
	return ms;
}
