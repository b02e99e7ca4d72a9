/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * config.h: private to policy/. How a file becomes a snapshot, in four steps.
 *
 *   config.c    the file, through libconfuse, as sections of (keyword, text, line)
 *   keywords.c  the table of all keywords: type, default, limits, field of policy.h
 *   value*.c    one text into one field, as its keyword's type says
 *   check*.c    what only shows when the whole is known: references, contradictions
 *
 * Everything here runs at start-up or for --check, never on a worker: it
 * allocates, resolves names and reads files. No step stops at the first
 * mistake; each adds a line to config.messages.
 */

#include "policy/policy.h"
#include <stddef.h>

struct keyword;

enum section_kind {
	SECTION_TRANSPORT,
	SECTION_CERTIFICATE,
	SECTION_RECEIVE,
	SECTION_SEND,
	SECTION_PARTNER,
	SECTION_INTERNAL,
	SECTION_KIND_COUNT,
	SECTION_NONE = SECTION_KIND_COUNT, /* outside of all sections */
};

/* The file may have a mebibyte; a connector, so many bindings or addresses of smart hosts. */
#define CONFIG_BYTES_MAX ((size_t)1024 * 1024)
#define CONFIG_ADDRESSES_MAX 64

/* One text that a keyword was given; a list gives several. */
struct config_value {
	const struct keyword *keyword;
	char *text;
	unsigned section; /* index into config.sections */
	unsigned line;
	bool is_wrong; /* it has its message; its field still has the default */
};

struct config_section {
	enum section_kind kind;
	char *name;     /* the title; NULL for transport */
	unsigned line;  /* of its opening brace */
	unsigned index; /* among those of its kind; the index in struct policy's array */
};

struct config_message {
	char *text;
	unsigned line;
	unsigned order; /* as it was found; keeps the sort stable */
};

/* A binding and who holds it, to find the one that takes it again. */
struct config_binding {
	struct address address;
	const struct receive_connector *connector;
	unsigned line;
};

/* A field of heap memory that belongs to a snapshot; freed with it. */
struct policy_block {
	struct policy_block *next;
	max_align_t bytes[];
};

/* What policy_load() really allocates. */
struct policy_owner {
	struct policy policy;
	struct policy_block *blocks;
};

/* A load under way. */
struct config {
	const char *file;
	char *folder; /* of file, with its last slash; relative names start there */
	struct policy_owner *owner;

	struct config_section *sections;
	unsigned section_count;
	struct config_value *values;
	unsigned value_count;
	struct config_binding *bindings;
	unsigned binding_count;
	struct config_message *messages;
	unsigned message_count;

	unsigned mistake_count; /* messages that are not warnings */
	bool out_of_memory;
};

enum keyword_type {
	TYPE_BOOLEAN,
	TYPE_WORD,    /* one of keyword.words; the field takes its index */
	TYPE_VERSION, /* one of keyword.words; the field takes the word itself */
	TYPE_COUNT,   /* a whole number */
	TYPE_SIZE,    /* "36MB", "256KB", bytes */
	TYPE_TIME,    /* "30s", "500ms", "00:05:00" */
	TYPE_TEXT,
	TYPE_NAME,   /* a host name */
	TYPE_DOMAIN, /* a mail domain or host name, normalized */
	TYPE_FILE,   /* must be there and readable */
	TYPE_FOLDER, /* must be there */
	TYPE_CERTIFICATE,
	TYPE_CONNECTOR, /* a send connector */
	TYPE_ADDRESS,   /* without a port */
	/* Lists: */
	TYPE_BINDINGS, /* address and port */
	TYPE_HOSTS,    /* host names and addresses, port 25 if none is given */
	TYPE_WORDS,    /* texts */
	TYPE_SET,      /* some of keyword.words; the field takes bit 0 for the first, and so on */
	TYPE_RANGES,   /* of IP addresses */
	TYPE_DOMAINS,
	TYPE_FILES,
	TYPE_PINS,    /* SHA-256 of a public key */
	TYPE_SPACES,  /* address spaces with their costs */
	TYPE_SERVERS, /* addresses of DNS servers, with a port or not */
};

/* One keyword; see keywords.c. */
struct keyword {
	const char *name;
	enum keyword_type type;
	const char *preset; /* the default, as it would be written; NULL: none */
	/* The defaults by enum connector_type, in place of preset; "type" must be loaded before. */
	const char *const *templates;
	size_t offset;       /* of the field, from the start of the section's struct */
	size_t bytes;        /* of the field */
	size_t count_offset; /* lists: of the number of elements */
	const char *const *words;
	uint64_t min, max; /* of COUNT, SIZE and TIME, both allowed; max also of TEXT, in bytes */
	uint64_t unit;     /* TIME: what the field counts, in ms; 0: ms */
	bool unlimited;    /* the word "unlimited" is allowed */
	bool wildcard;     /* DOMAIN, DOMAINS: "*." is allowed in front */
	bool may_be_made;  /* FOLDER: the relay makes it when it is missing */
	bool required;
};

struct keyword_set {
	const struct keyword *rows;
	unsigned count;
};

/* The file's word for a kind of section: "receive-connector". */
const char *section_kind_name(enum section_kind kind);

/* All keywords of a kind of section. The sets of connectors exclude those of TLS. */
struct keyword_set keywords_of(enum section_kind kind);

/* Those of struct tls_settings, which both kinds of connector have. */
struct keyword_set keywords_of_tls(void);

/* Where struct tls_settings lies in the struct of such a section; 0: it has none. */
size_t keywords_tls_offset(enum section_kind kind);

/* The keyword of that name in such a section, or NULL. */
const struct keyword *keyword_find(enum section_kind kind, const char *name);

/*
 * Reads config->file into sections and values. Unknown and repeated keywords are messages
 * and passed over. Returns 0; -EINVAL if the syntax is too wrong to go on, with messages; or
 * another -errno if the file cannot be read.
 */
NODISCARD int config_read(struct config *config);

/* Adds a message at that line; the same text at the same line is said once. */
void config_mistake(struct config *config, unsigned line, const char *format, ...)
	PRINTF_LIKE(3, 4);
void config_warn(struct config *config, unsigned line, const char *format, ...) PRINTF_LIKE(3, 4);

/* The next value of keyword in the section, behind after (NULL: the first), or NULL. */
const struct config_value *config_next(const struct config *config, unsigned section,
	const char *keyword, const struct config_value *after);

/* The line of keyword in the section, or the section's own where it is not set. */
unsigned config_line(const struct config *config, unsigned section, const char *keyword);

/* Memory of the snapshot, zeroed; NULL sets config->out_of_memory. */
void *config_alloc(struct config *config, size_t count, size_t bytes);
char *config_strdup(struct config *config, const char *text);

/* Room for one element more in an array of the load; 0, or -ENOMEM and config->out_of_memory. */
NODISCARD int config_grow(struct config *config, void **array, unsigned count, size_t bytes);

/*
 * Sets the field of keyword in object from the section's values, or from its default.
 * Texts that do not fit become mistakes and leave the default.
 */
void value_load(
	struct config *config, unsigned section, const struct keyword *keyword, void *object);

/*
 * Makes the array of certificates, with room for those of the sections (certificate_count),
 * and puts those of the folder certificate-store behind them. line: of that keyword.
 */
void store_load(struct config *config, unsigned line);

/* Everything that takes more than one keyword to see; adds its messages. */
void check_policy(struct config *config);
