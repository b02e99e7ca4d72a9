/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/keeper.h"

#include "relay/base/log.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How often the ends of certificates are looked at, at the least: the clock may have been set. */
#define WATCH_SECONDS 60

/* Certificates that were told of, so that each is told of once. */
#define TOLD_MAX 256

struct told {
	char thumbprint[PEER_DIGEST_HEX_BYTES];
	bool is_end; /* its end was told, not only that it is near */
};

struct keeper {
	const char *file;
	struct world *world;
	const struct keeper_events *events;
	void *owner;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool wants_reload; /* under lock */
	bool wants_end;    /* under lock */
	struct told told[TOLD_MAX];
	unsigned told_count;
};

/* Certificates. */

/* Was it told already? If not, it is now. The oldest is forgotten when there are too many. */
static bool keeper_has_told(struct keeper *keeper, const struct peer *facts, bool is_end)
{
	for (unsigned i = 0; i < keeper->told_count; i++) {
		struct told *told = &keeper->told[i];

		if (strcmp(told->thumbprint, facts->thumbprint) == 0 && told->is_end == is_end)
			return true;
	}
	if (keeper->told_count == TOLD_MAX) {
		memmove(keeper->told, keeper->told + 1, (TOLD_MAX - 1) * sizeof(*keeper->told));
		keeper->told_count--;
	}
	keeper->told[keeper->told_count].is_end = is_end;
	(void)snprintf(keeper->told[keeper->told_count].thumbprint,
		sizeof(keeper->told[0].thumbprint), "%s", facts->thumbprint);
	keeper->told_count++;
	return false;
}

static void keeper_watch_one(struct keeper *keeper, const struct own_certificate *own, int64_t now)
{
	const struct peer *facts = own->facts;
	const int64_t warning = (int64_t)keeper->world->policy->certificate_expiry_warning_s;
	const bool is_end = facts->not_after <= now;
	char subject[PEER_SUBJECT_BYTES];
	char date[32] = "";
	time_t end = (time_t)facts->not_after;
	struct tm utc;

	if (!own->certificate->is_enabled || facts->not_after - warning > now ||
		keeper_has_told(keeper, facts, is_end))
		return;
	if (gmtime_r(&end, &utc) != NULL)
		(void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &utc);
	if (is_end)
		log_event(LOG_LEVEL_ERROR, NULL, "certificate-expired",
			"certificate=%s subject=%s thumbprint=%s end=%s event-id=12016",
			own->certificate->name,
			log_quote_text(facts->subject, subject, sizeof(subject)), facts->thumbprint,
			date);
	else
		log_event(LOG_LEVEL_WARNING, NULL, "certificate-expires",
			"certificate=%s subject=%s thumbprint=%s end=%s days=%ld",
			own->certificate->name,
			log_quote_text(facts->subject, subject, sizeof(subject)), facts->thumbprint,
			date, (long)((facts->not_after - now) / 86400));
}

static void keeper_watch(struct keeper *keeper)
{
	const struct world *world = keeper->world;
	int64_t now = (int64_t)time(NULL);

	for (unsigned i = 0; i < world->certificate_count; i++)
		keeper_watch_one(keeper, &world->certificates[i], now);
}

static int64_t keeper_sooner(int64_t wait, int64_t then, int64_t now)
{
	return then > now && then - now < wait ? then - now : wait;
}

/* Seconds until there is something to tell, or until it is time to look again anyway. */
static int64_t keeper_watch_wait(const struct keeper *keeper)
{
	const struct world *world = keeper->world;
	const int64_t warning = (int64_t)world->policy->certificate_expiry_warning_s;
	const int64_t now = (int64_t)time(NULL);
	int64_t wait = WATCH_SECONDS;

	for (unsigned i = 0; i < world->certificate_count; i++) {
		const int64_t end = world->certificates[i].facts->not_after;

		wait = keeper_sooner(wait, end, now);
		wait = keeper_sooner(wait, end - warning, now);
	}
	return wait;
}

/* EXCHANGE 4.9: 12014, for each connector that wants TLS and has nothing to show. */
static void keeper_tell_missing(const struct world *world)
{
	for (unsigned i = 0; i < world->policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &world->policy->receive_connectors[i];

		if (connector->enabled && connector->tls != TLS_MODE_NONE &&
			connector->tls_settings.certificate == NULL)
			log_event(LOG_LEVEL_ERROR, NULL, "certificate-missing",
				"connector=%s fqdn=%s event-id=12014", connector->name,
				connector->fqdn);
	}
}

/* Reloads. */

static void keeper_log_mistakes(char *text)
{
	char *rest = text;
	char *line;

	while ((line = strsep(&rest, "\n")) != NULL) {
		char quoted[512];

		if (line[0] != '\0')
			log_event(strstr(line, ": warning: ") != NULL ? LOG_LEVEL_WARNING
								      : LOG_LEVEL_ERROR,
				NULL, "config", "text=%s",
				log_quote_text(line, quoted, sizeof(quoted)));
	}
}

static const char *keeper_load(struct keeper *keeper, struct world **out)
{
	char *text = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&text, &len);
	const char *why;
	int rc;

	if (errors == NULL)
		return "no memory";
	rc = world_create(keeper->file, keeper->events->ids(keeper->owner), errors, out);
	(void)fclose(errors);
	if (text != NULL)
		keeper_log_mistakes(text);
	free(text);
	if (rc < 0)
		return rc == -EINVAL ? "mistakes in the configuration" : strerror(-rc);
	why = world_needs_restart(keeper->world, *out);
	if (why == NULL)
		(*out)->connections_max = keeper->world->connections_max;
	return why;
}

static void keeper_do_reload(struct keeper *keeper)
{
	struct world *world = NULL;
	const char *why = keeper_load(keeper, &world);
	char quoted[256];

	if (why != NULL && world != NULL) {
		log_event(LOG_LEVEL_ERROR, NULL, "reload",
			"result=failed why=\"%s needs a restart\"", why);
		world_release(&world);
		return;
	}
	if (why == NULL)
		why = keeper->events->on_world(keeper->owner, world);
	if (why != NULL) {
		log_event(LOG_LEVEL_ERROR, NULL, "reload", "result=failed why=%s",
			log_quote_text(why, quoted, sizeof(quoted)));
		world_release(&world);
		return;
	}
	world_release(&keeper->world);
	keeper->world = world;
	keeper_tell_missing(world);
	log_event(LOG_LEVEL_INFO, NULL, "reload", "result=ok generation=%lu",
		(unsigned long)world->trusts->generation);
}

/* Waits for something to do. False: the end. */
static bool keeper_wait(struct keeper *keeper, bool *out_reload)
{
	struct timespec until;
	bool goes_on;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += keeper_watch_wait(keeper);
	(void)pthread_mutex_lock(&keeper->lock);
	if (!keeper->wants_reload && !keeper->wants_end)
		(void)pthread_cond_timedwait(&keeper->wake, &keeper->lock, &until);
	*out_reload = keeper->wants_reload;
	keeper->wants_reload = false;
	goes_on = !keeper->wants_end;
	(void)pthread_mutex_unlock(&keeper->lock);
	return goes_on;
}

static void *keeper_main(void *arg)
{
	struct keeper *keeper = arg;
	bool wants_reload = false;

	keeper_tell_missing(keeper->world);
	keeper_watch(keeper);
	while (keeper_wait(keeper, &wants_reload)) {
		if (wants_reload)
			keeper_do_reload(keeper);
		keeper_watch(keeper);
	}
	return NULL;
}

int keeper_create(const char *file, struct world *world, const struct keeper_events *events,
	void *owner, struct keeper **out)
{
	struct keeper *keeper = calloc(1, sizeof(*keeper));
	int rc;

	if (keeper == NULL)
		return -ENOMEM;
	keeper->file = file;
	keeper->world = world_hold(world);
	keeper->events = events;
	keeper->owner = owner;
	(void)pthread_mutex_init(&keeper->lock, NULL);
	(void)pthread_cond_init(&keeper->wake, NULL);
	rc = -pthread_create(&keeper->thread, NULL, keeper_main, keeper);
	if (rc < 0) {
		world_release(&keeper->world);
		free(keeper);
		return rc;
	}
	*out = keeper;
	return 0;
}

void keeper_reload(struct keeper *keeper)
{
	(void)pthread_mutex_lock(&keeper->lock);
	keeper->wants_reload = true;
	(void)pthread_cond_signal(&keeper->wake);
	(void)pthread_mutex_unlock(&keeper->lock);
}

void keeper_destroy(struct keeper **out)
{
	struct keeper *keeper = *out;

	*out = NULL;
	if (keeper == NULL)
		return;
	(void)pthread_mutex_lock(&keeper->lock);
	keeper->wants_end = true;
	(void)pthread_cond_signal(&keeper->wake);
	(void)pthread_mutex_unlock(&keeper->lock);
	(void)pthread_join(keeper->thread, NULL);
	world_release(&keeper->world);
	(void)pthread_mutex_destroy(&keeper->lock);
	(void)pthread_cond_destroy(&keeper->wake);
	free(keeper);
}
