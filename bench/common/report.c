/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/report.h"

#include "bench/common/clock.h"

#include <inttypes.h>
#include <sys/resource.h>

static const struct {
	const char *json;
	const char *text;
	uint64_t permille;
} report_shares[] = {
	{"p50", "p50", 500},
	{"p75", "p75", 750},
	{"p90", "p90", 900},
	{"p95", "p95", 950},
	{"p99", "p99", 990},
	{"p99_9", "p99.9", 999},
};

#define REPORT_SHARES (sizeof(report_shares) / sizeof(report_shares[0]))

static double report_seconds(const struct timeval *time)
{
	return (double)time->tv_sec + (double)time->tv_usec / 1e6;
}

void report_facts(struct report *report, const struct stream_facts *facts)
{
	struct report_tls *tls = &report->tls;

	tls->is_known = true;
	(void)snprintf(tls->version, sizeof(tls->version), "%s", facts->version);
	(void)snprintf(tls->cipher, sizeof(tls->cipher), "%s", facts->cipher);
	(void)snprintf(tls->group, sizeof(tls->group), "%s", facts->group);
	(void)snprintf(tls->record, sizeof(tls->record), "%s", facts->record);
}

void report_merge(struct report *sum, const struct report *from)
{
	sum->messages += from->messages;
	sum->message_bytes += from->message_bytes;
	sum->failed += from->failed;
	sum->lost += from->lost;
	sum->rcpt_refused += from->rcpt_refused;
	sum->connections += from->connections;
	sum->resumed += from->resumed;
	sum->connect_failed += from->connect_failed;
	sum->behind += from->behind;
	sum->idle_open += from->idle_open;
	sum->idle_alive += from->idle_alive;
	sum->idle_failed += from->idle_failed;
	sum->ledger_failed |= from->ledger_failed;
	if (from->last_us > sum->last_us)
		sum->last_us = from->last_us;
	for (unsigned int i = 0; i < REPORT_CODES; i++)
		sum->codes[i] += from->codes[i];
	if (from->tls.is_known)
		sum->tls = from->tls;
	histogram_merge(&sum->latency, &from->latency);
	histogram_merge(&sum->handshake, &from->handshake);
}

bool report_is_good(const struct report *report)
{
	return report->failed == 0 && report->messages > 0 && report->idle_failed == 0 &&
	       report->idle_alive == report->idle_open && !report->ledger_failed;
}

static void report_print_codes(FILE *file, const struct report *report, bool json)
{
	const char *comma = "";

	for (unsigned int i = 0; i < REPORT_CODES; i++) {
		if (report->codes[i] == 0)
			continue;
		if (json)
			(void)fprintf(file, "%s\"%u\":%" PRIu64, comma, i, report->codes[i]);
		else
			(void)fprintf(file, "%" PRIu64 " with %u, ", report->codes[i], i);
		comma = ",";
	}
}

/* "name":{"p50":...} */
static void report_json_times(FILE *file, const char *name, const struct histogram *times)
{
	(void)fprintf(file, ",\"%s\":{", name);
	for (size_t i = 0; i < REPORT_SHARES; i++)
		(void)fprintf(file, "\"%s\":%" PRIu64 ",", report_shares[i].json,
			histogram_value(times, report_shares[i].permille));
	(void)fprintf(
		file, "\"max\":%" PRIu64 ",\"mean\":%.1f}", times->max_us, histogram_mean(times));
}

static void report_json_buckets(FILE *file, const struct histogram *times)
{
	const char *comma = "";

	(void)fprintf(file, ",\"latency_histogram\":[");
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (times->buckets[i] == 0)
			continue;
		(void)fprintf(file, "%s[%" PRIu64 ",%" PRIu64 "]", comma, histogram_floor(i),
			times->buckets[i]);
		comma = ",";
	}
	(void)fputc(']', file);
}

static void report_json_sizes(FILE *file, const struct sizes *sizes)
{
	(void)fprintf(file, ",\"sizes\":[");
	for (unsigned i = 0; i < sizes->count; i++)
		(void)fprintf(file, "%s[%" PRIu64 ",%u]", i > 0 ? "," : "", sizes->bytes[i],
			sizes->shares[i]);
	(void)fputc(']', file);
}

static void report_json_counts(FILE *file, const struct report *r)
{
	(void)fprintf(file, ",\"failed\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"failed_by_code\":{",
		r->failed, r->lost);
	report_print_codes(file, r, true);
	(void)fprintf(file,
		"},\"rcpt_refused\":%" PRIu64 ",\"connections\":%" PRIu64 ",\"resumed\":%" PRIu64
		",\"connect_failed\":%" PRIu64 ",\"behind\":%" PRIu64,
		r->rcpt_refused, r->connections, r->resumed, r->connect_failed, r->behind);
	(void)fprintf(file,
		",\"idle_open\":%" PRIu64 ",\"idle_alive\":%" PRIu64 ",\"idle_failed\":%" PRIu64
		",\"ledger_failed\":%s",
		r->idle_open, r->idle_alive, r->idle_failed, r->ledger_failed ? "true" : "false");
}

static void report_json_tls(FILE *file, const struct report *r, const struct load_config *config)
{
	(void)fprintf(file,
		",\"tls\":\"%s\",\"cipher\":\"%s\",\"group\":\"%s\",\"record\":\"%s\""
		",\"tls_code\":\"%s\"",
		r->tls.version, r->tls.cipher, r->tls.group, r->tls.record,
		load_config_code(config));
}

static void report_print_json(FILE *file, const struct report *r, const struct load_config *config,
	uint64_t started_us, uint64_t ended_us)
{
	double seconds = (double)(ended_us - started_us) / 1e6;
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	(void)fprintf(file,
		"{\"run\":\"%016" PRIx64 "\",\"started_us\":%" PRIu64 ",\"ended_us\":%" PRIu64
		",\"messages\":%" PRIu64 ",\"message_bytes\":%" PRIu64 ",\"size\":%" PRIu64,
		config->run, started_us, ended_us, r->messages, r->message_bytes,
		config->sizes.bytes[0]);
	report_json_sizes(file, &config->sizes);
	(void)fprintf(file,
		",\"seconds\":%.6f,\"messages_per_second\":%.1f,\"mb_per_second\":%.2f"
		",\"rate_wanted\":%" PRIu64,
		seconds, (double)r->messages / seconds, (double)r->message_bytes / seconds / 1e6,
		config->rate);
	report_json_counts(file, r);
	(void)fprintf(file,
		",\"latency_p50_us\":%" PRIu64 ",\"latency_p90_us\":%" PRIu64
		",\"latency_p99_us\":%" PRIu64,
		histogram_value(&r->latency, 500), histogram_value(&r->latency, 900),
		histogram_value(&r->latency, 990));
	report_json_times(file, "latency_us", &r->latency);
	report_json_times(file, "handshake_us", &r->handshake);
	report_json_buckets(file, &r->latency);
	(void)fprintf(file, ",\"cpu_user_seconds\":%.3f,\"cpu_system_seconds\":%.3f",
		report_seconds(&usage.ru_utime), report_seconds(&usage.ru_stime));
	report_json_tls(file, r, config);
	(void)fprintf(file, "}\n");
}

static void report_text_times(FILE *file, const char *name, const struct histogram *times)
{
	(void)fprintf(file, "%-15s", name);
	if (times->count == 0) {
		(void)fprintf(file, " none\n");
		return;
	}
	for (size_t i = 0; i < REPORT_SHARES; i++)
		(void)fprintf(file, " %s %.3f,", report_shares[i].text,
			(double)histogram_value(times, report_shares[i].permille) / 1e3);
	(void)fprintf(file, " max %.3f, mean %.3f ms\n", (double)times->max_us / 1e3,
		histogram_mean(times) / 1e3);
}

static void report_text_sizes(FILE *file, const struct sizes *sizes)
{
	(void)fprintf(file, "of ");
	for (unsigned i = 0; i < sizes->count; i++) {
		(void)fprintf(file, "%s%" PRIu64, i > 0 ? ", " : "", sizes->bytes[i]);
		if (sizes->count > 1)
			(void)fprintf(
				file, " (%.1f %%)", 100.0 * sizes->shares[i] / sizes->share_sum);
	}
	(void)fprintf(file, " bytes");
}

static void report_text_odd(FILE *file, const struct report *r)
{
	(void)fprintf(file, "failed          %" PRIu64 " messages (", r->failed);
	report_print_codes(file, r, false);
	(void)fprintf(file, "%" PRIu64 " lost with the connection), %" PRIu64 " recipients\n",
		r->lost, r->rcpt_refused);
	if (r->behind > 0)
		(void)fprintf(file,
			"behind          %" PRIu64
			" messages were due and could not be begun: too few connections, or too "
			"slow a server; their latency is in no figure above\n",
			r->behind);
	if (r->idle_open + r->idle_failed > 0)
		(void)fprintf(file,
			"silent sessions %" PRIu64 " open, %" PRIu64 " alive at the end, %" PRIu64
			" failed\n",
			r->idle_open, r->idle_alive, r->idle_failed);
	if (r->ledger_failed)
		(void)fprintf(file, "ledger          could not be written whole\n");
}

static void report_print_text(FILE *file, const struct report *r, const struct load_config *config,
	uint64_t started_us, uint64_t ended_us)
{
	double seconds = (double)(ended_us - started_us) / 1e6;
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	(void)fprintf(file, "messages        %" PRIu64 " ", r->messages);
	report_text_sizes(file, &config->sizes);
	(void)fprintf(file, " in %.3f s\n", seconds);
	(void)fprintf(file, "rate            %.1f messages/s, %.2f MB/s",
		(double)r->messages / seconds, (double)r->message_bytes / seconds / 1e6);
	if (config->rate > 0)
		(void)fprintf(file, "; %" PRIu64 " messages/s wanted", config->rate);
	(void)fputc('\n', file);
	report_text_times(file, "latency", &r->latency);
	report_text_times(file, "handshake", &r->handshake);
	(void)fprintf(file,
		"connections     %" PRIu64 ", resumed %" PRIu64 ", failed %" PRIu64 "\n",
		r->connections, r->resumed, r->connect_failed);
	if (r->tls.is_known)
		(void)fprintf(file, "TLS             %s %s %s, records by %s; code: %s\n",
			r->tls.version, r->tls.cipher, r->tls.group, r->tls.record,
			load_config_code(config));
	report_text_odd(file, r);
	(void)fprintf(file, "own CPU         %.3f s user, %.3f s system\n",
		report_seconds(&usage.ru_utime), report_seconds(&usage.ru_stime));
}

void report_print(FILE *file, const struct report *report, const struct load_config *config,
	uint64_t started_us)
{
	uint64_t ended_us = report->last_us > started_us ? report->last_us : clock_us();

	if (ended_us == started_us)
		ended_us++;
	if (config->is_json)
		report_print_json(file, report, config, started_us, ended_us);
	else
		report_print_text(file, report, config, started_us, ended_us);
}
