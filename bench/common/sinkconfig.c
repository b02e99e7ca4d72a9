/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/sink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char sink_usage[] =
	"usage: postern-sink --listen ADDRESS:PORT [OPTION]...\n"
	"  --listen ADDRESS:PORT            more than once: at all of these; port 0: any free one\n"
	"  --threads N                      that share the connections (1)\n"
	"TLS\n"
	"  --tls-cert FILE --tls-key FILE   offer STARTTLS with this certificate\n"
	"  --client-ca FILE                 demand a client certificate from these\n"
	"  --implicit-tls                   TLS from the first byte\n"
	"  --plain-too | --require-tls      take mail in clear text (default), or refuse it\n"
	"  --tls-version 1.2|1.3            this version only\n"
	"  --ciphers LIST --groups LIST     these only, by OpenSSL's names\n"
	"  --tickets N                      of a TLS 1.3 handshake (2); 0 ends resumption\n"
	"  --tls-code stock|postern         OpenSSL as it comes (default), or the relay's own TLS\n"
	"  --ktls off|tx|rx|on              records by the kernel, with --tls-code postern (off)\n"
	"SMTP\n"
	"  --no-starttls --no-chunking      do not offer it\n"
	"  --delay-ms N                     before the reply to each message; --delay body=N\n"
	"  --delay STEP=MS[:RATE]           wait before a reply; STEP: accept mail rcpt data body\n"
	"  --slow BYTES                     read no more of a body in a second, of each session\n"
	"  --fault STEP=4xx|5xx|CODE|close[:RATE]\n"
	"                                   refuse, or close without a reply; RATE from 0 to 1 "
	"(1)\n"
	"  --fault-max N                    at most so many faults\n"
	"  --seed N                         of the faults and delays (1)\n"
	"What is said about it\n"
	"  --no-verify                      do not check sums, numbers and ledgers\n"
	"  --ledger FILE|FOLDER             what postern-load was promised; more than once\n"
	"  --seconds N --messages N         end by itself then\n"
	"  --progress                       a line a second on standard error\n"
	"  --json | --text                  form of the counters (JSON)\n"
	"The first lines printed are \"listening ADDRESS:PORT\".\n"
	"SIGUSR1 prints the counters, SIGUSR2 sets them to 0, SIGTERM and SIGINT print and end.\n"
	"Exit status: 0 all is right, 1 mail was lost, doubled or altered, 2 wrong options.\n";

#define SINK_TLS_ROWS(config)                                                           \
	{"tls-cert", OPTIONS_TEXT, {.text = &(config)->tls.cert}, 0, 0},                \
		{"tls-key", OPTIONS_TEXT, {.text = &(config)->tls.key}, 0, 0},          \
		{"client-ca", OPTIONS_TEXT, {.text = &(config)->tls.ca}, 0, 0},         \
		{"tls-version", OPTIONS_TEXT, {.text = &(config)->tls.versions}, 0, 0}, \
		{"ciphers", OPTIONS_TEXT, {.text = &(config)->tls.ciphers}, 0, 0},      \
		{"groups", OPTIONS_TEXT, {.text = &(config)->tls.groups}, 0, 0},        \
		{"ktls", OPTIONS_TEXT, {.text = &(config)->tls.ktls}, 0, 0},            \
	{                                                                               \
		"implicit-tls", OPTIONS_FLAG, {.flag = &(config)->is_implicit}, 0, 0    \
	}

/* What is not in the configuration as it was said. */
struct sink_words {
	const char *code;
	struct options_list listen;
	struct options_list faults;
	struct options_list delays;
	uint64_t delay_ms;
	uint64_t tickets;
	uint64_t seed;
	unsigned form;
	unsigned needs_tls;
	bool is_verifying; /* today's default; accepted for those who ask for it */
	bool has_no_verify;
	bool has_no_chunking;
	bool has_no_starttls;
};

static void sink_config_faults(struct sink_config *config, const struct sink_words *words)
{
	char body[40];

	for (size_t i = 0; i < words->faults.count; i++)
		if (!faults_read(&config->faults, words->faults.texts[i], words->seed))
			options_wrong(sink_usage, words->faults.texts[i]);
	for (size_t i = 0; i < words->delays.count; i++)
		if (!faults_read_delay(&config->faults, words->delays.texts[i], words->seed))
			options_wrong(sink_usage, words->delays.texts[i]);
	(void)snprintf(body, sizeof(body), "body=%u", (unsigned)words->delay_ms);
	if (words->delay_ms > 0 && !faults_read_delay(&config->faults, body, words->seed))
		options_wrong(sink_usage, "--delay: too many");
	if (config->faults.fault_count + config->faults.delay_count > 0)
		config->policy.faults = &config->faults;
}

/* What no table can check. */
static void sink_config_check(struct sink_config *config, const struct sink_words *words)
{
	if (words->listen.count == 0)
		options_wrong(sink_usage, "--listen is missing");
	if ((config->tls.cert == NULL) != (config->tls.key == NULL))
		options_wrong(sink_usage, "--tls-cert and --tls-key belong together");
	if ((config->is_implicit || words->needs_tls) && !config->has_tls)
		options_wrong(sink_usage, "--implicit-tls and --require-tls need --tls-cert");
	if (words->needs_tls && words->has_no_starttls)
		options_wrong(sink_usage, "--require-tls without STARTTLS: nobody could send");
	if (strcmp(words->code, "postern") == 0)
		config->code = STREAM_POSTERN;
	else if (strcmp(words->code, "stock") != 0)
		options_wrong(sink_usage, "--tls-code is stock or postern");
	if (config->tls.ktls != NULL && strcmp(config->tls.ktls, "off") != 0 &&
		config->code != STREAM_POSTERN)
		options_wrong(sink_usage, "--ktls needs --tls-code postern");
	if (config->ledgers.count > 0 && words->has_no_verify)
		options_wrong(sink_usage, "--ledger needs what --no-verify takes away");
}

void sink_config_parse(struct sink_config *config, int argc, char **argv)
{
	struct sink_words words = {.code = "stock", .tickets = 2, .seed = 1};
	const struct options_entry entries[] = {
		SINK_TLS_ROWS(config),
		{"listen", OPTIONS_LIST, {.list = &words.listen}, 0, 0},
		{"threads", OPTIONS_NUMBER, {.number = &config->threads}, 1, SINK_THREADS_MAX},
		{"tickets", OPTIONS_NUMBER, {.number = &words.tickets}, 0, 4},
		{"tls-code", OPTIONS_TEXT, {.text = &words.code}, 0, 0},
		{"plain-too", OPTIONS_CHOICE, {.choice = &words.needs_tls}, 0, 0},
		{"require-tls", OPTIONS_CHOICE, {.choice = &words.needs_tls}, 1, 0},
		{"no-starttls", OPTIONS_FLAG, {.flag = &words.has_no_starttls}, 0, 0},
		{"no-chunking", OPTIONS_FLAG, {.flag = &words.has_no_chunking}, 0, 0},
		{"delay-ms", OPTIONS_NUMBER, {.number = &words.delay_ms}, 0, 600000},
		{"delay", OPTIONS_LIST, {.list = &words.delays}, 0, 0},
		{"slow", OPTIONS_NUMBER, {.number = &config->slow_bytes}, 1, 1ULL << 40},
		{"fault", OPTIONS_LIST, {.list = &words.faults}, 0, 0},
		{"fault-max", OPTIONS_NUMBER, {.number = &config->faults.max}, 0, UINT64_MAX},
		{"seed", OPTIONS_NUMBER, {.number = &words.seed}, 0, UINT64_MAX},
		{"verify", OPTIONS_FLAG, {.flag = &words.is_verifying}, 0, 0},
		{"no-verify", OPTIONS_FLAG, {.flag = &words.has_no_verify}, 0, 0},
		{"ledger", OPTIONS_LIST, {.list = &config->ledgers}, 0, 0},
		{"seconds", OPTIONS_NUMBER, {.number = &config->seconds}, 1, 1000000},
		{"messages", OPTIONS_NUMBER, {.number = &config->messages}, 1, 1ULL << 40},
		{"progress", OPTIONS_FLAG, {.flag = &config->has_progress}, 0, 0},
		{"json", OPTIONS_CHOICE, {.choice = &words.form}, 0, 0},
		{"text", OPTIONS_CHOICE, {.choice = &words.form}, 1, 0},
	};

	*config = (struct sink_config){.threads = 1, .faults.max = UINT64_MAX};
	options_parse(argc, argv, entries, sizeof(entries) / sizeof(entries[0]), sink_usage);
	config->has_tls = config->tls.cert != NULL;
	sink_config_check(config, &words);
	sink_config_faults(config, &words);
	for (size_t i = 0; i < words.listen.count; i++)
		options_read_address("listen", words.listen.texts[i], &config->listen[i]);
	config->listen_count = words.listen.count;
	config->tls.is_server = true;
	config->tls.ticket_count = (unsigned)words.tickets;
	config->is_text = words.form == 1;
	config->policy.is_verifying = !words.has_no_verify;
	config->policy.has_chunking = !words.has_no_chunking;
	config->policy.has_starttls = config->has_tls && !words.has_no_starttls;
	config->policy.needs_tls = words.needs_tls == 1;
}
