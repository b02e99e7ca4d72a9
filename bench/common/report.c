/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/report.h"

#include <inttypes.h>
#include <sys/resource.h>

static double report_seconds(const struct timeval *time)
{
	return (double)time->tv_sec + (double)time->tv_usec / 1e6;
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
	for (unsigned int i = 0; i < REPORT_CODES; i++)
		sum->codes[i] += from->codes[i];
	if (from->tls.version != NULL)
		sum->tls = from->tls;
	histogram_merge(&sum->latency, &from->latency);
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

static void report_print_json(
	FILE *file, const struct report *r, double seconds, size_t size, const struct rusage *usage)
{
	(void)fprintf(file,
		"{\"messages\":%" PRIu64 ",\"message_bytes\":%" PRIu64 ",\"size\":%zu"
		",\"seconds\":%.6f,\"messages_per_second\":%.1f,\"mb_per_second\":%.2f",
		r->messages, r->message_bytes, size, seconds, (double)r->messages / seconds,
		(double)r->message_bytes / seconds / 1e6);
	(void)fprintf(file, ",\"failed\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"failed_by_code\":{",
		r->failed, r->lost);
	report_print_codes(file, r, true);
	(void)fprintf(file,
		"},\"rcpt_refused\":%" PRIu64 ",\"connections\":%" PRIu64 ",\"resumed\":%" PRIu64
		",\"connect_failed\":%" PRIu64,
		r->rcpt_refused, r->connections, r->resumed, r->connect_failed);
	(void)fprintf(file,
		",\"latency_p50_us\":%" PRIu64 ",\"latency_p90_us\":%" PRIu64
		",\"latency_p99_us\":%" PRIu64,
		histogram_value(&r->latency, 500), histogram_value(&r->latency, 900),
		histogram_value(&r->latency, 990));
	(void)fprintf(file,
		",\"cpu_user_seconds\":%.3f,\"cpu_system_seconds\":%.3f,\"tls\":\"%s\""
		",\"cipher\":\"%s\"}\n",
		report_seconds(&usage->ru_utime), report_seconds(&usage->ru_stime),
		r->tls.version != NULL ? r->tls.version : "",
		r->tls.version != NULL ? r->tls.cipher : "");
}

static void report_print_text(
	FILE *file, const struct report *r, double seconds, size_t size, const struct rusage *usage)
{
	(void)fprintf(file, "messages        %" PRIu64 " of %zu bytes in %.3f s\n", r->messages,
		size, seconds);
	(void)fprintf(file, "rate            %.1f messages/s, %.2f MB/s\n",
		(double)r->messages / seconds, (double)r->message_bytes / seconds / 1e6);
	(void)fprintf(file,
		"latency         p50 %" PRIu64 " us, p90 %" PRIu64 " us, p99 %" PRIu64 " us\n",
		histogram_value(&r->latency, 500), histogram_value(&r->latency, 900),
		histogram_value(&r->latency, 990));
	(void)fprintf(file,
		"connections     %" PRIu64 ", resumed %" PRIu64 ", failed %" PRIu64 "; %s %s\n",
		r->connections, r->resumed, r->connect_failed,
		r->tls.version != NULL ? r->tls.version : "",
		r->tls.version != NULL ? r->tls.cipher : "");
	(void)fprintf(file, "failed          %" PRIu64 " messages (", r->failed);
	report_print_codes(file, r, false);
	(void)fprintf(file, "%" PRIu64 " lost with the connection), %" PRIu64 " recipients\n",
		r->lost, r->rcpt_refused);
	(void)fprintf(file, "own CPU         %.3f s user, %.3f s system\n",
		report_seconds(&usage->ru_utime), report_seconds(&usage->ru_stime));
}

void report_print(FILE *file, const struct report *report, double seconds, size_t size, bool json)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	if (seconds <= 0)
		seconds = 1e-6;
	if (json)
		report_print_json(file, report, seconds, size, &usage);
	else
		report_print_text(file, report, seconds, size, &usage);
}
