/* SPDX-License-Identifier: Apache-2.0 */

/*
 * policy.c: the snapshot's birth and death. policy_load() runs the four steps of
 * config.h in order and prints what they found, sorted by line.
 */

#include "policy/config.h"
#include "policy/partner.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *config_alloc(struct config *config, size_t count, size_t bytes)
{
	struct policy_block *block = NULL;
	size_t total = 0;

	ASSERT(!__builtin_mul_overflow(count, bytes, &total));
	block = calloc(1, sizeof(*block) + total);
	if (block == NULL) {
		config->out_of_memory = true;
		return NULL;
	}
	block->next = config->owner->blocks;
	config->owner->blocks = block;
	return block->bytes;
}

char *config_strdup(struct config *config, const char *text)
{
	const size_t bytes = strlen(text) + 1;
	char *copy = config_alloc(config, bytes, 1);

	if (copy != NULL)
		memcpy(copy, text, bytes);
	return copy;
}

int config_grow(struct config *config, void **array, unsigned count, size_t bytes)
{
	void *grown = reallocarray(*array, (size_t)count + 1, bytes);

	if (grown == NULL) {
		config->out_of_memory = true;
		return -ENOMEM;
	}
	*array = grown;
	return 0;
}

/* Takes text, which was allocated; NULL is the lack of memory for it. */
static bool config_add_message(struct config *config, unsigned line, char *text)
{
	if (text == NULL)
		config->out_of_memory = true;
	for (unsigned i = 0; text != NULL && i < config->message_count; i++) {
		if (config->messages[i].line == line &&
			strcmp(config->messages[i].text, text) == 0) {
			free(text);
			return false;
		}
	}
	if (text == NULL || config_grow(config, (void **)&config->messages, config->message_count,
				    sizeof(*config->messages)) < 0) {
		free(text);
		return false;
	}
	config->messages[config->message_count] =
		(struct config_message){text, line, config->message_count};
	config->message_count++;
	return true;
}

void config_mistake(struct config *config, unsigned line, const char *format, ...)
{
	char *text = NULL;
	va_list args;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	config->mistake_count += config_add_message(config, line, text);
}

void config_warn(struct config *config, unsigned line, const char *format, ...)
{
	char *text = NULL, *warning = NULL;
	va_list args;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	if (text == NULL || asprintf(&warning, "warning: %s", text) < 0)
		warning = NULL;
	free(text);
	(void)config_add_message(config, line, warning);
}

const struct config_value *config_next(const struct config *config, unsigned section,
	const char *keyword, const struct config_value *after)
{
	unsigned i = after == NULL ? 0 : (unsigned)(after - config->values) + 1;

	for (; i < config->value_count; i++)
		if (config->values[i].section == section &&
			strcmp(config->values[i].keyword->name, keyword) == 0)
			return &config->values[i];
	return NULL;
}

unsigned config_line(const struct config *config, unsigned section, const char *keyword)
{
	const struct config_value *value = config_next(config, section, keyword, NULL);

	return value == NULL ? config->sections[section].line : value->line;
}

/* This machine's name, with its domain if somebody knows it. */
static const char *policy_machine_name(struct config *config)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_flags = AI_CANONNAME};
	struct addrinfo *list = NULL;
	char name[NAME_BYTES_MAX] = "";
	const char *found = name;
	char *copy = NULL;

	if (gethostname(name, sizeof(name) - 1) < 0 || name[0] == '\0')
		(void)snprintf(name, sizeof(name), "localhost");
	if (strchr(name, '.') == NULL && getaddrinfo(name, NULL, &hints, &list) == 0 &&
		list->ai_canonname != NULL)
		found = list->ai_canonname;
	copy = config_strdup(config, found);
	if (list != NULL)
		freeaddrinfo(list);
	return copy;
}

/* The struct that a section fills. */
static void *policy_object(struct policy *policy, const struct config_section *section)
{
	switch (section->kind) {
	case SECTION_TRANSPORT:
		return policy;
	case SECTION_CERTIFICATE:
		return &policy->certificates[section->index];
	case SECTION_RECEIVE:
		return &policy->receive_connectors[section->index];
	case SECTION_SEND:
		return &policy->send_connectors[section->index];
	case SECTION_PARTNER:
		return &policy->partners[section->index];
	case SECTION_INTERNAL:
		return &policy->internal_servers[section->index];
	case SECTION_NONE:
		break;
	}
	UNREACHABLE();
}

static void policy_load_set(
	struct config *config, unsigned section, struct keyword_set set, void *object)
{
	for (unsigned i = 0; i < set.count; i++)
		value_load(config, section, &set.rows[i], object);
}

static void policy_load_section(struct config *config, unsigned section)
{
	const enum section_kind kind = config->sections[section].kind;
	const size_t tls_offset = keywords_tls_offset(kind);
	void *object = policy_object(&config->owner->policy, &config->sections[section]);

	policy_load_set(config, section, keywords_of(kind), object);
	if (tls_offset != 0)
		policy_load_set(config, section, keywords_of_tls(), (char *)object + tls_offset);
}

/* The name, the line and the place of a section in its object. */
static void policy_name_object(
	struct policy *policy, const struct config_section *section, const char *name)
{
	const unsigned index = section->index, line = section->line;

	switch (section->kind) {
	case SECTION_TRANSPORT:
		break;
	case SECTION_CERTIFICATE:
		policy->certificates[index] =
			(struct certificate){.name = name, .line = line, .is_enabled = true};
		break;
	case SECTION_RECEIVE:
		policy->receive_connectors[index] =
			(struct receive_connector){.name = name, .line = line, .index = index};
		break;
	case SECTION_SEND:
		policy->send_connectors[index] =
			(struct send_connector){.name = name, .line = line, .index = index};
		break;
	case SECTION_PARTNER:
		policy->partners[index] =
			(struct partner){.name = name, .line = line, .index = index};
		break;
	case SECTION_INTERNAL:
		policy->internal_servers[index] =
			(struct internal_server){.name = name, .line = line};
		break;
	case SECTION_NONE:
		UNREACHABLE();
	}
}

/* Every object with its name and line, so that references may point forward. */
static int policy_create_objects(struct config *config, unsigned transport)
{
	struct policy *policy = &config->owner->policy;
	unsigned counts[SECTION_KIND_COUNT] = {0};

	for (unsigned s = 0; s < config->section_count; s++)
		counts[config->sections[s].kind]++;
	policy->certificate_count = counts[SECTION_CERTIFICATE];
	store_load(config, config_line(config, transport, "certificate-store"));
	policy->receive_connector_count = counts[SECTION_RECEIVE];
	policy->receive_connectors = config_alloc(
		config, policy->receive_connector_count, sizeof(*policy->receive_connectors));
	policy->send_connector_count = counts[SECTION_SEND];
	policy->send_connectors = config_alloc(
		config, policy->send_connector_count, sizeof(*policy->send_connectors));
	policy->partner_count = counts[SECTION_PARTNER];
	policy->partners = config_alloc(config, policy->partner_count, sizeof(*policy->partners));
	policy->internal_server_count = counts[SECTION_INTERNAL];
	policy->internal_servers = config_alloc(
		config, policy->internal_server_count, sizeof(*policy->internal_servers));
	for (unsigned s = 0; s < config->section_count && !config->out_of_memory; s++) {
		const char *name = config->sections[s].name;

		policy_name_object(policy, &config->sections[s],
			name == NULL ? NULL : config_strdup(config, name));
	}
	return config->out_of_memory ? -ENOMEM : 0;
}

/* The section transport; a file without it has one that sets nothing. */
static int policy_find_transport(struct config *config, unsigned *out_section)
{
	for (unsigned s = 0; s < config->section_count; s++) {
		if (config->sections[s].kind == SECTION_TRANSPORT) {
			*out_section = s;
			return 0;
		}
	}
	if (config_grow(config, (void **)&config->sections, config->section_count,
		    sizeof(*config->sections)) < 0)
		return -ENOMEM;
	*out_section = config->section_count;
	config->sections[config->section_count++] =
		(struct config_section){.kind = SECTION_TRANSPORT, .line = 1};
	return 0;
}

static void policy_index_partners(struct config *config)
{
	struct policy *policy = &config->owner->policy;
	struct partner_domain *room =
		config_alloc(config, partner_domain_total(policy), sizeof(*room));

	if (room != NULL)
		partner_index(policy, room);
}

/* EXCHANGE 9.4: of the first domain that is ours, or of this host. */
static const char *policy_postmaster(struct config *config)
{
	const struct policy *policy = &config->owner->policy;
	const char *domain = policy->fqdn == NULL ? "localhost" : policy->fqdn;
	char text[sizeof("postmaster@") + NAME_BYTES_MAX];

	for (unsigned i = policy->accepted_domain_count; i-- > 0;)
		if (policy->accepted_domains[i][0] != '*')
			domain = policy->accepted_domains[i];
	(void)snprintf(text, sizeof(text), "postmaster@%s", domain);
	return config_strdup(config, text);
}

static int policy_build(struct config *config)
{
	struct policy *policy = &config->owner->policy;
	unsigned transport = 0;

	if (policy_find_transport(config, &transport) < 0)
		return -ENOMEM;
	policy->file = config_strdup(config, config->file);
	/* The first, since it says where further certificates lie. */
	policy_load_section(config, transport);
	if (policy_create_objects(config, transport) < 0)
		return -ENOMEM;
	for (unsigned s = 0; s < config->section_count && !config->out_of_memory; s++)
		if (config->sections[s].kind != SECTION_TRANSPORT)
			policy_load_section(config, s);
	policy_index_partners(config);
	if (policy->fqdn == NULL)
		policy->fqdn = policy_machine_name(config);
	if (policy->queue.postmaster == NULL)
		policy->queue.postmaster = policy_postmaster(config);
	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		if (policy->receive_connectors[i].fqdn == NULL)
			policy->receive_connectors[i].fqdn = policy->fqdn;
	for (unsigned i = 0; i < policy->send_connector_count; i++)
		if (policy->send_connectors[i].fqdn == NULL)
			policy->send_connectors[i].fqdn = policy->fqdn;
	if (!config->out_of_memory)
		check_policy(config);
	return config->out_of_memory ? -ENOMEM : 0;
}

static int message_compare(const void *a, const void *b)
{
	const struct config_message *left = a, *right = b;

	if (left->line != right->line)
		return left->line < right->line ? -1 : 1;
	return (left->order > right->order) - (left->order < right->order);
}

/* Prints the messages and frees what only the load needed. */
static void config_finish(struct config *config, FILE *errors)
{
	if (config->message_count > 1)
		qsort(config->messages, config->message_count, sizeof(*config->messages),
			message_compare);
	for (unsigned i = 0; i < config->message_count; i++) {
		(void)fprintf(errors, "%s:%u: %s\n", config->file, config->messages[i].line,
			config->messages[i].text);
		free(config->messages[i].text);
	}
	for (unsigned i = 0; i < config->value_count; i++)
		free(config->values[i].text);
	for (unsigned i = 0; i < config->section_count; i++)
		free(config->sections[i].name);
	free(config->messages);
	free(config->values);
	free(config->sections);
	free(config->bindings);
	free(config->folder);
}

int policy_load(const char *file, FILE *errors, struct policy **out)
{
	const char *slash = strrchr(file, '/');
	struct config config = {.file = file};
	struct policy *policy = NULL;
	int rc = -ENOMEM;

	config.folder = slash == NULL ? strdup("") : strndup(file, (size_t)(slash - file) + 1);
	config.owner = calloc(1, sizeof(*config.owner));
	if (config.folder != NULL && config.owner != NULL)
		rc = config_read(&config);
	if (rc < 0 && config.message_count == 0)
		(void)fprintf(errors, "%s: cannot be read (%s), expected a configuration file\n",
			file, strerror(-rc));
	if (rc == 0)
		rc = policy_build(&config);
	if (rc == 0 && config.mistake_count > 0)
		rc = -EINVAL;
	config_finish(&config, errors);
	if (config.owner != NULL)
		policy = &config.owner->policy;
	if (rc < 0)
		policy_destroy(&policy);
	else
		*out = policy;
	return rc;
}

void policy_destroy(struct policy **policy)
{
	struct policy_owner *owner = NULL;

	if (*policy == NULL)
		return;
	owner = OWNER_OF(*policy, struct policy_owner, policy);
	for (struct policy_block *block = owner->blocks, *next = NULL; block != NULL;
		block = next) {
		next = block->next;
		free(block);
	}
	free(owner);
	*policy = NULL;
}

const struct receive_connector *policy_receive_connector(
	const struct policy *policy, const char *name)
{
	for (unsigned i = 0; i < policy->receive_connector_count; i++)
		if (strcmp(policy->receive_connectors[i].name, name) == 0)
			return &policy->receive_connectors[i];
	return NULL;
}

const struct send_connector *policy_send_connector(const struct policy *policy, const char *name)
{
	for (unsigned i = 0; i < policy->send_connector_count; i++)
		if (strcmp(policy->send_connectors[i].name, name) == 0)
			return &policy->send_connectors[i];
	return NULL;
}

const struct partner *policy_partner(const struct policy *policy, const char *name)
{
	for (unsigned i = 0; i < policy->partner_count; i++)
		if (strcmp(policy->partners[i].name, name) == 0)
			return &policy->partners[i];
	return NULL;
}

struct address address_make(int family, const void *bytes, unsigned port)
{
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct address out = {.len = family == AF_INET6 ? sizeof(v6) : sizeof(v4)};

	if (family == AF_INET6) {
		memcpy(&v6.sin6_addr, bytes, sizeof(v6.sin6_addr));
		memcpy(&out.sockaddr, &v6, sizeof(v6));
	} else {
		memcpy(&v4.sin_addr, bytes, sizeof(v4.sin_addr));
		memcpy(&out.sockaddr, &v4, sizeof(v4));
	}
	return out;
}

void address_print(const struct address *address, char *out, size_t out_bytes)
{
	char text[INET6_ADDRSTRLEN] = "";
	struct sockaddr_in6 in6 = {0};
	struct sockaddr_in in = {0};

	if (address->sockaddr.ss_family == AF_INET6) {
		memcpy(&in6, &address->sockaddr, sizeof(in6));
		(void)inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof(text));
		(void)snprintf(out, out_bytes, "[%s]:%u", text, ntohs(in6.sin6_port));
	} else if (address->sockaddr.ss_family == AF_INET) {
		memcpy(&in, &address->sockaddr, sizeof(in));
		(void)inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
		(void)snprintf(out, out_bytes, "%s:%u", text, ntohs(in.sin_port));
	} else {
		(void)snprintf(out, out_bytes, "none");
	}
}

uint16_t address_port(const struct address *address)
{
	struct sockaddr_in6 in6 = {0};
	struct sockaddr_in in = {0};

	if (address->sockaddr.ss_family == AF_INET6) {
		memcpy(&in6, &address->sockaddr, sizeof(in6));
		return ntohs(in6.sin6_port);
	}
	memcpy(&in, &address->sockaddr, sizeof(in));
	return ntohs(in.sin_port);
}

bool address_is_equal(const struct address *a, const struct address *b)
{
	struct sockaddr_in6 left6, right6;
	struct sockaddr_in left, right;

	if (a->sockaddr.ss_family != b->sockaddr.ss_family)
		return false;
	/* Field by field: what the kernel fills in besides differs from what a parser does. */
	if (a->sockaddr.ss_family == AF_INET) {
		memcpy(&left, &a->sockaddr, sizeof(left));
		memcpy(&right, &b->sockaddr, sizeof(right));
		return left.sin_port == right.sin_port &&
		       left.sin_addr.s_addr == right.sin_addr.s_addr;
	}
	memcpy(&left6, &a->sockaddr, sizeof(left6));
	memcpy(&right6, &b->sockaddr, sizeof(right6));
	return left6.sin6_port == right6.sin6_port && left6.sin6_scope_id == right6.sin6_scope_id &&
	       memcmp(&left6.sin6_addr, &right6.sin6_addr, sizeof(left6.sin6_addr)) == 0;
}
