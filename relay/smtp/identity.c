/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/identity.h"

#include "relay/smtp/proxy_header.h"

bool identity_is_equal(const struct identity *a, const struct identity *b)
{
	return ip_compare(&a->source, &b->source) == 0 &&
	       ip_compare(&a->destination, &b->destination) == 0 &&
	       a->source_port == b->source_port && a->destination_port == b->destination_port &&
	       a->is_extended == b->is_extended && a->has_certificate == b->has_certificate &&
	       a->is_verified == b->is_verified && strcmp(a->helo, b->helo) == 0 &&
	       strcmp(a->session, b->session) == 0 && strcmp(a->server_name, b->server_name) == 0 &&
	       strcmp(a->tls_version, b->tls_version) == 0 &&
	       strcmp(a->tls_cipher, b->tls_cipher) == 0 &&
	       strcmp(a->common_name, b->common_name) == 0;
}

void identity_common_name(const char *subject, char out[static XCLIENT_TEXT_BYTES])
{
	size_t len;

	out[0] = '\0';
	/* Attributes stand between commas; a comma inside of a value has a backslash before it. */
	while (strncasecmp(subject, "CN=", 3) != 0) {
		while (*subject != ',' && *subject != '\0')
			subject += *subject == '\\' && subject[1] != '\0' ? 2 : 1;
		if (*subject == '\0')
			return;
		subject++;
	}
	subject += 3;
	len = strcspn(subject, ",+\\\"#");
	if (len == 0 || len >= XCLIENT_TEXT_BYTES || (subject[len] != '\0' && subject[len] != ','))
		return;
	memcpy(out, subject, len);
	out[len] = '\0';
}

size_t identity_write_proxy(const struct identity *identity, unsigned version,
	uint8_t out[static PROXY_HEADER_BYTES_MAX])
{
	const struct proxy_header header = {.version = version,
		.has_client = true,
		.source = identity->source,
		.destination = identity->destination,
		.source_port = identity->source_port,
		.destination_port = identity->destination_port,
		.authority = span_of(identity->server_name),
		.unique_id = span_of(identity->session),
		.tls = {.is_tls = identity->tls_version[0] != '\0',
			.has_certificate = identity->has_certificate,
			.is_verified = identity->is_verified,
			.version = span_of(identity->tls_version),
			.cipher = span_of(identity->tls_cipher),
			.cn = span_of(identity->common_name)}};

	return proxy_header_write(&header, out);
}

size_t identity_write_xclient(const struct identity *identity, unsigned announced,
	char out[static XCLIENT_COMMAND_BYTES_MAX + 1])
{
	struct xclient xclient = {
		.given = XCLIENT_NAME | XCLIENT_ADDR | XCLIENT_PORT | XCLIENT_PROTO | XCLIENT_HELO |
			 XCLIENT_LOGIN | XCLIENT_DESTADDR | XCLIENT_DESTPORT | XCLIENT_REVERSE_NAME,
		.known = XCLIENT_ADDR | XCLIENT_PROTO | XCLIENT_DESTADDR | XCLIENT_DESTPORT,
		.address = identity->source,
		.destination = identity->destination,
		.port = identity->source_port,
		.destination_port = identity->destination_port,
		.is_extended = identity->is_extended};

	if (identity->source_port != 0)
		xclient.known |= XCLIENT_PORT;
	if (identity->helo[0] != '\0')
		xclient.known |= XCLIENT_HELO;
	memcpy(xclient.helo, identity->helo, sizeof(xclient.helo));
	return xclient_write(&xclient, announced, out);
}
