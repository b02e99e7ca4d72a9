/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/loadconfig.h"

#include "bench/common/message.h"
#include "bench/common/options.h"

#include <string.h>
#include <sys/random.h>

#define LOAD_TLS_UNSET 99
#define LOAD_SIZE_MAX (1ULL << 31)

static const char load_usage[] =
	"usage: postern-load --connect ADDRESS:PORT --plain|--starttls|--implicit-tls [OPTION]...\n"
	"TLS\n"
	"  --cert FILE --key FILE        certificate to show, and its key\n"
	"  --ca FILE                     check the server's certificate against these\n"
	"  --name HOST                   and that it has this name\n"
	"  --tls-version 1.2|1.3         this version only\n"
	"  --ciphers LIST                these only, by OpenSSL's names\n"
	"  --groups LIST                 key exchange by these only\n"
	"  --resume [PERCENT]            so many connections offer the last session (0; alone "
	"100)\n"
	"  --tls-code stock|postern      OpenSSL as it comes (default), or the relay's own TLS\n"
	"  --ktls off|tx|rx|on           records by the kernel, with --tls-code postern (off)\n"
	"What is sent\n"
	"  --size BYTES                  of a message, unstuffed; 4k, 1m (4096)\n"
	"  --sizes SIZE:SHARE,...        a mix: 4k:70,64k:25,1m:5\n"
	"  --seed N                      of what is by chance: order of sizes, --poisson (1)\n"
	"  --recipients N                of each message (1)\n"
	"  --bodies N                    so many different bodies in turn (1)\n"
	"  --data | --bdat               DATA (default), or BDAT\n"
	"  --chunk BYTES                 of one BDAT (the whole message)\n"
	"  --no-pipelining               wait for each reply\n"
	"  --run N                       X-Load-Run of all messages (by chance)\n"
	"  --first-id N                  X-Load-Id of the first message (0)\n"
	"How much of it\n"
	"  --connections N               at a time (8)\n"
	"  --threads N                   that share the connections (1)\n"
	"  --messages N                  in all (1000; with --rate, no limit)\n"
	"  --messages-per-connection N   then QUIT and connect anew (100)\n"
	"  --seconds N                   take no new message after these (60)\n"
	"  --rate N                      messages a second, whatever the server does: an open "
	"loop\n"
	"  --poisson                     with --rate: at times by chance\n"
	"  --idle N                      sessions beside these that stay silent (0)\n"
	"What is said about it\n"
	"  --ledger FILE                 append run and id of each message that was accepted\n"
	"  --progress                    a line a second on standard error\n"
	"  --json                        print one line of JSON\n"
	"Exit status: 0 all accepted, 1 some failed or none was sent, 2 wrong options.\n";

/* The rows of TLS; they are the larger half. */
#define LOAD_TLS_ROWS(config)                                                                    \
	{"plain", OPTIONS_CHOICE, {.choice = &(config)->tls_choice}, CLIENT_PLAIN, 0},           \
		{"starttls", OPTIONS_CHOICE, {.choice = &(config)->tls_choice}, CLIENT_STARTTLS, \
			0},                                                                      \
		{"implicit-tls", OPTIONS_CHOICE, {.choice = &(config)->tls_choice},              \
			CLIENT_IMPLICIT, 0},                                                     \
		{"cert", OPTIONS_TEXT, {.text = &(config)->tls.cert}, 0, 0},                     \
		{"key", OPTIONS_TEXT, {.text = &(config)->tls.key}, 0, 0},                       \
		{"ca", OPTIONS_TEXT, {.text = &(config)->tls.ca}, 0, 0},                         \
		{"name", OPTIONS_TEXT, {.text = &(config)->tls.name}, 0, 0},                     \
		{"tls-version", OPTIONS_TEXT, {.text = &(config)->tls.versions}, 0, 0},          \
		{"ciphers", OPTIONS_TEXT, {.text = &(config)->tls.ciphers}, 0, 0},               \
		{"groups", OPTIONS_TEXT, {.text = &(config)->tls.groups}, 0, 0},                 \
		{"ktls", OPTIONS_TEXT, {.text = &(config)->tls.ktls}, 0, 0},                     \
	{                                                                                        \
		"resume", OPTIONS_SHARE, {.number = &(config)->resume_percent}, 0, 100           \
	}

const char *load_config_code(const struct load_config *config)
{
	return config->code == STREAM_POSTERN ? "postern" : "stock";
}

/* What no table can check. */
static void load_config_check(struct load_config *config, const char *code)
{
	if (config->plan.to.sin_port == 0)
		options_wrong(load_usage, "--connect is missing");
	if (config->tls_choice == LOAD_TLS_UNSET)
		options_wrong(load_usage, "one of --plain, --starttls, --implicit-tls is missing");
	if (strcmp(code, "postern") == 0)
		config->code = STREAM_POSTERN;
	else if (strcmp(code, "stock") != 0)
		options_wrong(load_usage, "--tls-code is stock or postern");
	if (config->tls.ktls != NULL && strcmp(config->tls.ktls, "off") != 0 &&
		config->code != STREAM_POSTERN)
		options_wrong(load_usage, "--ktls needs --tls-code postern");
	if (config->is_poisson && config->rate == 0)
		options_wrong(load_usage, "--poisson needs --rate");
	if (config->sizes_text == NULL)
		sizes_init(&config->sizes, config->size);
	else if (!sizes_parse(&config->sizes, config->sizes_text, MESSAGE_BYTES_MIN, LOAD_SIZE_MAX))
		options_wrong(load_usage, "--sizes is a list of SIZE:SHARE, as in 4k:70,1m:30");
	sizes_shuffle(&config->sizes, config->seed);
	config->plan.tls = (enum client_tls)config->tls_choice;
	/* One without a connection could not send its share. */
	if (config->threads > config->connections)
		config->threads = config->connections;
	if (config->messages == 0)
		config->messages = config->rate > 0 ? UINT64_MAX : 1000;
}

void load_config_parse(struct load_config *config, int argc, char **argv)
{
	const char *code = "stock";
	const struct options_entry entries[] = {
		LOAD_TLS_ROWS(config),
		{"connect", OPTIONS_ADDRESS, {.address = &config->plan.to}, 0, 0},
		{"tls-code", OPTIONS_TEXT, {.text = &code}, 0, 0},
		{"connections", OPTIONS_NUMBER, {.number = &config->connections}, 1, 60000},
		{"idle", OPTIONS_NUMBER, {.number = &config->idle}, 0, 1000000},
		{"threads", OPTIONS_NUMBER, {.number = &config->threads}, 1, 64},
		{"messages", OPTIONS_NUMBER, {.number = &config->messages}, 1, 1ULL << 39},
		{"messages-per-connection", OPTIONS_NUMBER,
			{.number = &config->messages_per_connection}, 1, 1ULL << 40},
		{"seconds", OPTIONS_NUMBER, {.number = &config->seconds}, 1, 1000000},
		{"rate", OPTIONS_NUMBER, {.number = &config->rate}, 1, 100000000},
		{"poisson", OPTIONS_FLAG, {.flag = &config->is_poisson}, 0, 0},
		{"size", OPTIONS_NUMBER, {.number = &config->size}, MESSAGE_BYTES_MIN,
			LOAD_SIZE_MAX},
		{"sizes", OPTIONS_TEXT, {.text = &config->sizes_text}, 0, 0},
		{"seed", OPTIONS_NUMBER, {.number = &config->seed}, 0, UINT64_MAX},
		{"recipients", OPTIONS_NUMBER, {.number = &config->recipients}, 1, 1000000},
		{"data", OPTIONS_CHOICE, {.choice = &config->is_bdat}, 0, 0},
		{"bdat", OPTIONS_CHOICE, {.choice = &config->is_bdat}, 1, 0},
		{"chunk", OPTIONS_NUMBER, {.number = &config->chunk_bytes}, 1, LOAD_SIZE_MAX},
		{"no-pipelining", OPTIONS_FLAG, {.flag = &config->is_stepwise}, 0, 0},
		{"bodies", OPTIONS_NUMBER, {.number = &config->bodies}, 1, LOAD_BODIES_MAX},
		{"run", OPTIONS_NUMBER, {.number = &config->run}, 0, UINT64_MAX},
		{"first-id", OPTIONS_NUMBER, {.number = &config->first_id}, 0, 1ULL << 38},
		{"ledger", OPTIONS_TEXT, {.text = &config->ledger}, 0, 0},
		{"progress", OPTIONS_FLAG, {.flag = &config->has_progress}, 0, 0},
		{"json", OPTIONS_FLAG, {.flag = &config->is_json}, 0, 0},
	};

	*config = (struct load_config){
		.tls_choice = LOAD_TLS_UNSET,
		.messages_per_connection = 100,
		.size = 4096,
		.chunk_bytes = LOAD_SIZE_MAX,
		.connections = 8,
		.threads = 1,
		.recipients = 1,
		.bodies = 1,
		.seconds = 60,
		.seed = 1,
	};
	if (getrandom(&config->run, sizeof(config->run), 0) != sizeof(config->run))
		options_wrong(load_usage, "no random number for --run");
	options_parse(argc, argv, entries, sizeof(entries) / sizeof(entries[0]), load_usage);
	load_config_check(config, code);
}
