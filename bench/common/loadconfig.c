/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/loadconfig.h"

#include "bench/common/message.h"
#include "bench/common/options.h"

#define LOAD_TLS_UNSET 99

static const char load_usage[] =
	"usage: load --connect ADDRESS:PORT --plain|--starttls|--implicit-tls [OPTION]...\n"
	"  --cert FILE --key FILE        certificate to show, and its key\n"
	"  --ca FILE                     check the server's certificate against these\n"
	"  --name HOST                   and that it has this name\n"
	"  --tls-version 1.2|1.3         this version only\n"
	"  --resume                      resume TLS sessions\n"
	"  --connections N               at a time (8)\n"
	"  --threads N                   that share the connections (1)\n"
	"  --messages N                  in all (1000)\n"
	"  --messages-per-connection N   then QUIT and connect anew (100)\n"
	"  --seconds N                   take no new message after these (60)\n"
	"  --size BYTES                  of a message, unstuffed; 4k, 1m (4096)\n"
	"  --recipients N                of each message (1)\n"
	"  --data | --bdat               DATA (default), or BDAT\n"
	"  --chunk BYTES                 of one BDAT (the whole message)\n"
	"  --no-pipelining               wait for each reply\n"
	"  --bodies N                    so many different bodies in turn (1)\n"
	"  --first-id N                  X-Load-Id of the first message (0)\n"
	"  --json                        print one line of JSON\n"
	"Exit status: 0 all accepted, 1 some failed or none was sent, 2 wrong options.\n";

void load_config_parse(struct load_config *config, int argc, char **argv)
{
	const struct options_entry entries[] = {
		{"connect", OPTIONS_ADDRESS, {.address = &config->plan.to}, 0, 0},
		{"plain", OPTIONS_CHOICE, {.choice = &config->tls_choice}, CLIENT_PLAIN, 0},
		{"starttls", OPTIONS_CHOICE, {.choice = &config->tls_choice}, CLIENT_STARTTLS, 0},
		{"implicit-tls", OPTIONS_CHOICE, {.choice = &config->tls_choice}, CLIENT_IMPLICIT,
			0},
		{"cert", OPTIONS_TEXT, {.text = &config->tls.cert}, 0, 0},
		{"key", OPTIONS_TEXT, {.text = &config->tls.key}, 0, 0},
		{"ca", OPTIONS_TEXT, {.text = &config->tls.ca}, 0, 0},
		{"name", OPTIONS_TEXT, {.text = &config->plan.name}, 0, 0},
		{"tls-version", OPTIONS_TEXT, {.text = &config->tls.versions}, 0, 0},
		{"resume", OPTIONS_FLAG, {.flag = &config->is_resuming}, 0, 0},
		{"connections", OPTIONS_NUMBER, {.number = &config->connections}, 1, 60000},
		{"threads", OPTIONS_NUMBER, {.number = &config->threads}, 1, 64},
		{"messages", OPTIONS_NUMBER, {.number = &config->messages}, 1, 1ULL << 40},
		{"messages-per-connection", OPTIONS_NUMBER,
			{.number = &config->messages_per_connection}, 1, 1ULL << 40},
		{"seconds", OPTIONS_NUMBER, {.number = &config->seconds}, 1, 1000000},
		{"size", OPTIONS_NUMBER, {.number = &config->size}, MESSAGE_BYTES_MIN, 1ULL << 31},
		{"recipients", OPTIONS_NUMBER, {.number = &config->recipients}, 1, 1000000},
		{"data", OPTIONS_CHOICE, {.choice = &config->is_bdat}, 0, 0},
		{"bdat", OPTIONS_CHOICE, {.choice = &config->is_bdat}, 1, 0},
		{"chunk", OPTIONS_NUMBER, {.number = &config->chunk_bytes}, 1, 1ULL << 31},
		{"no-pipelining", OPTIONS_FLAG, {.flag = &config->is_stepwise}, 0, 0},
		{"bodies", OPTIONS_NUMBER, {.number = &config->bodies}, 1, LOAD_BODIES_MAX},
		{"first-id", OPTIONS_NUMBER, {.number = &config->first_id}, 0, 1ULL << 39},
		{"json", OPTIONS_FLAG, {.flag = &config->is_json}, 0, 0},
	};

	*config = (struct load_config){
		.tls_choice = LOAD_TLS_UNSET,
		.messages = 1000,
		.messages_per_connection = 100,
		.size = 4096,
		.chunk_bytes = 1ULL << 31,
		.connections = 8,
		.threads = 1,
		.recipients = 1,
		.bodies = 1,
		.seconds = 60,
	};
	options_parse(argc, argv, entries, sizeof(entries) / sizeof(entries[0]), load_usage);
	if (config->plan.to.sin_port == 0)
		options_wrong(load_usage, "--connect is missing");
	if (config->tls_choice == LOAD_TLS_UNSET)
		options_wrong(load_usage, "one of --plain, --starttls, --implicit-tls is missing");
	config->plan.tls = (enum client_tls)config->tls_choice;
}
