/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtp/proxy_header.h"

#include "relay/smtp/chars.h"
#include <stdio.h>

/* "PROXY UNKNOWN" with two of the longest addresses and ports (proxy-protocol.txt 2.1). */
#define V1_BYTES_MAX 107

/* The addresses of version 2, and the ends of its fixed part. */
#define V2_FIXED_BYTES 16
#define V2_IPV4_BYTES 12
#define V2_IPV6_BYTES 36
#define V2_UNIX_BYTES 216
#define IPV4_BYTES 4
#define IPV6_BYTES 16

#define V2_VERSION 0x20
#define V2_LOCAL 0
#define V2_PROXY 1
#define V2_STREAM 1
#define V2_SOCKETS 3 /* so many kinds, the unknown one among them */

#define TLV_HEAD_BYTES 3
#define CRC_BYTES 4
#define CRC32C_POLYNOMIAL 0x82f63b78U /* Castagnoli's, reflected (RFC 4960 B) */

enum tlv_type {
	TLV_ALPN = 0x01,
	TLV_AUTHORITY = 0x02,
	TLV_CRC32C = 0x03,
	TLV_UNIQUE_ID = 0x05,
	TLV_SSL = 0x20,
	TLV_SSL_VERSION = 0x21,
	TLV_SSL_CN = 0x22,
	TLV_SSL_CIPHER = 0x23,
	TLV_SSL_SIG_ALG = 0x24,
	TLV_SSL_KEY_ALG = 0x25,
	TLV_NETNS = 0x30,
};

/* In the first byte of TLV_SSL; behind it stand four bytes, zero when the certificate is good. */
enum tlv_ssl_client {
	SSL_CLIENT_TLS = 1,
	SSL_CLIENT_CERT_CONN = 2,
	SSL_CLIENT_CERT_SESS = 4,
};
#define SSL_HEAD_BYTES 5

static const uint8_t v1_start[] = {'P', 'R', 'O', 'X', 'Y', ' '};
static const uint8_t v2_start[] = {
	0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

static uint32_t crc32c(uint32_t crc, struct span bytes)
{
	for (size_t i = 0; i < bytes.len; i++) {
		crc ^= bytes.data[i];
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? CRC32C_POLYNOMIAL : 0);
	}
	return crc;
}

/* Of a header whose checksum stands at that offset, and counts as zeros. */
static uint32_t header_checksum(struct span header, size_t at)
{
	static const uint8_t zeros[CRC_BYTES];
	uint32_t crc = crc32c(UINT32_MAX, span_head(header, at));

	crc = crc32c(crc, span_make(zeros, sizeof(zeros)));
	return ~crc32c(crc, span_skip(header, at + CRC_BYTES));
}

static unsigned read_u16(const uint8_t *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

static uint32_t read_u32(const uint8_t *at)
{
	return (uint32_t)read_u16(at) << 16 | read_u16(at + 2);
}

/* ---- version 1: one line of text */

/* Cuts the next word off *rest, up to one space. False: there is no space behind it. */
static bool v1_take(struct span *rest, struct span *word)
{
	size_t len = span_find(*rest, ' ');

	*word = span_head(*rest, len);
	if (len == rest->len)
		return false;
	*rest = span_skip(*rest, len + 1);
	return true;
}

static bool v1_address(struct span word, bool is_v6, struct ip *out)
{
	char text[ADDRESS_TEXT_BYTES];

	/* ip_parse() says what an address is; which kind, the colon. */
	if (word.len == 0 || word.len >= sizeof(text) ||
		(span_find(word, ':') < word.len) != is_v6 || span_find(word, '\0') < word.len)
		return false;
	memcpy(text, word.data, word.len);
	text[word.len] = '\0';
	return ip_parse(text, out) == 0;
}

/* 0 to 65535, without a zero in front. */
static bool v1_port(struct span word, uint16_t *out)
{
	uint64_t number;

	if (word.len == 0 || word.len > 5 || (word.len > 1 && word.data[0] == '0') ||
		!chars_to_number(word, &number) || number > UINT16_MAX)
		return false;
	*out = (uint16_t)number;
	return true;
}

/* What stands behind "TCP4 " or "TCP6 ". */
static bool v1_addresses(struct span rest, bool is_v6, struct proxy_header *out)
{
	struct span source;
	struct span destination;
	struct span port;

	return v1_take(&rest, &source) && v1_take(&rest, &destination) && v1_take(&rest, &port) &&
	       v1_address(source, is_v6, &out->source) &&
	       v1_address(destination, is_v6, &out->destination) &&
	       v1_port(port, &out->source_port) && v1_port(rest, &out->destination_port);
}

static bool v1_line(struct span line, struct proxy_header *out)
{
	struct span rest = span_skip(line, sizeof(v1_start));
	struct span kind;
	bool has_more = v1_take(&rest, &kind);

	/* Whatever follows is to be ignored, as far as it is one line. */
	if (span_equal(kind, span_of("UNKNOWN")))
		return true;
	out->has_client = true;
	if (span_equal(kind, span_of("TCP4")))
		return has_more && v1_addresses(rest, false, out);
	return span_equal(kind, span_of("TCP6")) && has_more && v1_addresses(rest, true, out);
}

static enum proxy_header_status v1_parse(struct span in, struct proxy_header *out)
{
	struct span head = span_head(in, V1_BYTES_MAX);
	size_t cr = span_find(head, '\r');
	size_t lf = span_find(head, '\n');

	if (lf < cr || span_find(head, '\0') < cr)
		return PROXY_HEADER_BAD;
	if (cr + 1 >= head.len)
		return head.len == V1_BYTES_MAX ? PROXY_HEADER_LONG : PROXY_HEADER_MORE;
	if (lf != cr + 1)
		return PROXY_HEADER_BAD;
	*out = (struct proxy_header){.version = 1, .bytes = lf + 1};
	return v1_line(span_head(in, cr), out) ? PROXY_HEADER_OK : PROXY_HEADER_BAD;
}

/* ---- version 2: binary */

struct tlv {
	unsigned type;
	struct span value;
};

/* Cuts the next off *rest. False: it is longer than what is there. */
static bool tlv_take(struct span *rest, struct tlv *out)
{
	size_t len;

	if (rest->len < TLV_HEAD_BYTES)
		return false;
	len = read_u16(rest->data + 1);
	if (rest->len - TLV_HEAD_BYTES < len)
		return false;
	out->type = rest->data[0];
	out->value = span_head(span_skip(*rest, TLV_HEAD_BYTES), len);
	*rest = span_skip(*rest, TLV_HEAD_BYTES + len);
	return true;
}

static bool v2_tls(struct span value, struct proxy_header_tls *out)
{
	struct span rest = span_skip(value, SSL_HEAD_BYTES);
	struct tlv tlv;

	if (value.len < SSL_HEAD_BYTES)
		return false;
	*out = (struct proxy_header_tls){.is_tls = (value.data[0] & SSL_CLIENT_TLS) != 0,
		.has_certificate =
			(value.data[0] & (SSL_CLIENT_CERT_CONN | SSL_CLIENT_CERT_SESS)) != 0};
	out->is_verified = out->has_certificate && read_u32(value.data + 1) == 0;
	while (rest.len > 0) {
		if (!tlv_take(&rest, &tlv))
			return false;
		if (tlv.type == TLV_SSL_VERSION)
			out->version = tlv.value;
		else if (tlv.type == TLV_SSL_CN)
			out->cn = tlv.value;
		else if (tlv.type == TLV_SSL_CIPHER)
			out->cipher = tlv.value;
		else if (tlv.type == TLV_SSL_SIG_ALG)
			out->signature = tlv.value;
		else if (tlv.type == TLV_SSL_KEY_ALG)
			out->key = tlv.value;
	}
	return true;
}

static bool v2_tlv(const struct tlv *tlv, struct proxy_header *out)
{
	switch (tlv->type) {
	case TLV_ALPN:
		out->alpn = tlv->value;
		break;
	case TLV_AUTHORITY:
		out->authority = tlv->value;
		break;
	case TLV_UNIQUE_ID:
		out->unique_id = tlv->value;
		return tlv->value.len <= PROXY_HEADER_UNIQUE_ID_BYTES_MAX;
	case TLV_SSL:
		return v2_tls(tlv->value, &out->tls);
	case TLV_NETNS:
		out->netns = tlv->value;
		break;
	default: /* NOOP, others' own, and what is yet to be invented */
		break;
	}
	return true;
}

/* What stands behind the addresses of a whole header. */
static enum proxy_header_status v2_tlvs(struct span header, size_t at, struct proxy_header *out)
{
	struct span rest = span_skip(header, at);
	bool has_checksum = false;
	struct tlv tlv;

	while (rest.len > 0) {
		if (!tlv_take(&rest, &tlv))
			return PROXY_HEADER_BAD;
		if (tlv.type != TLV_CRC32C) {
			if (!v2_tlv(&tlv, out))
				return PROXY_HEADER_BAD;
			continue;
		}
		if (has_checksum || tlv.value.len != CRC_BYTES)
			return PROXY_HEADER_BAD;
		has_checksum = true;
		if (header_checksum(header, (size_t)(tlv.value.data - header.data)) !=
			read_u32(tlv.value.data))
			return PROXY_HEADER_CHECKSUM;
	}
	return PROXY_HEADER_OK;
}

static struct ip v2_ip(const uint8_t *at, bool is_v6)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	struct ip ip = {.is_v6 = is_v6};

	if (is_v6 && memcmp(at, mapped, sizeof(mapped)) == 0) {
		at += sizeof(mapped);
		ip.is_v6 = false;
	}
	memcpy(ip.bytes, at, ip.is_v6 ? IPV6_BYTES : IPV4_BYTES);
	return ip;
}

static void v2_addresses(const uint8_t *at, bool is_v6, struct proxy_header *out)
{
	const size_t bytes = is_v6 ? IPV6_BYTES : IPV4_BYTES;

	out->has_client = true;
	out->source = v2_ip(at, is_v6);
	out->destination = v2_ip(at + bytes, is_v6);
	out->source_port = (uint16_t)read_u16(at + 2 * bytes);
	out->destination_port = (uint16_t)read_u16(at + 2 * bytes + 2);
}

/* The block behind the fixed part, all of which has come. */
static enum proxy_header_status v2_block(struct span header, struct proxy_header *out)
{
	static const size_t sizes[] = {0, V2_IPV4_BYTES, V2_IPV6_BYTES, V2_UNIX_BYTES};
	const unsigned command = header.data[12] & 15U;
	const unsigned family = header.data[13] >> 4;
	const unsigned socket = header.data[13] & 15U;
	const size_t size = sizes[family];

	/* The balancer's own, or nobody knows whose: the block is skipped, whatever it has. */
	if (command == V2_LOCAL || family == 0 || socket == 0)
		return PROXY_HEADER_OK;
	if (header.len - V2_FIXED_BYTES < size)
		return PROXY_HEADER_BAD;
	if (size != V2_UNIX_BYTES && socket == V2_STREAM)
		v2_addresses(header.data + V2_FIXED_BYTES, size == V2_IPV6_BYTES, out);
	return v2_tlvs(header, V2_FIXED_BYTES + size, out);
}

static enum proxy_header_status v2_parse(struct span in, struct proxy_header *out)
{
	enum proxy_header_status status;
	struct proxy_header header = {.version = 2};

	if (in.len > 12 && (in.data[12] & 0xf0) != V2_VERSION)
		return PROXY_HEADER_BAD;
	if (in.len > 12 && (in.data[12] & 15U) > V2_PROXY)
		return PROXY_HEADER_BAD;
	if (in.len > 13 && (in.data[13] >> 4 > 3 || (in.data[13] & 15U) >= V2_SOCKETS))
		return PROXY_HEADER_BAD;
	if (in.len < V2_FIXED_BYTES)
		return PROXY_HEADER_MORE;
	header.bytes = V2_FIXED_BYTES + read_u16(in.data + 14);
	if (header.bytes > PROXY_HEADER_BYTES_MAX)
		return PROXY_HEADER_LONG;
	if (in.len < header.bytes)
		return PROXY_HEADER_MORE;
	status = v2_block(span_head(in, header.bytes), &header);
	if (status == PROXY_HEADER_OK)
		*out = header;
	return status;
}

enum proxy_header_status proxy_header_parse(struct span in, struct proxy_header *out)
{
	struct span v1 = span_make(v1_start, sizeof(v1_start));
	struct span v2 = span_make(v2_start, sizeof(v2_start));
	struct proxy_header header;
	enum proxy_header_status status;

	if (in.len >= v2.len && span_equal(span_head(in, v2.len), v2))
		return v2_parse(in, out);
	if (in.len >= v1.len && span_equal(span_head(in, v1.len), v1)) {
		status = v1_parse(in, &header);
		if (status == PROXY_HEADER_OK)
			*out = header;
		return status;
	}
	if ((in.len < v1.len && span_equal(in, span_head(v1, in.len))) ||
		(in.len < v2.len && span_equal(in, span_head(v2, in.len))))
		return PROXY_HEADER_MORE;
	return PROXY_HEADER_NONE;
}

const char *proxy_header_word(enum proxy_header_status status)
{
	switch (status) {
	case PROXY_HEADER_OK:
		return "ok";
	case PROXY_HEADER_MORE:
		return "cut-short";
	case PROXY_HEADER_NONE:
		return "no-header";
	case PROXY_HEADER_BAD:
		return "malformed";
	case PROXY_HEADER_LONG:
		return "too-long";
	case PROXY_HEADER_CHECKSUM:
		return "bad-checksum";
	}
	UNREACHABLE();
}

/* ---- writing */

struct header_text {
	uint8_t *out;
	size_t len;
};

static void put(struct header_text *text, struct span bytes)
{
	ASSERT(bytes.len <= PROXY_HEADER_BYTES_MAX - text->len);
	if (bytes.len > 0)
		memcpy(text->out + text->len, bytes.data, bytes.len);
	text->len += bytes.len;
}

static void put_u16(struct header_text *text, size_t number)
{
	const uint8_t bytes[2] = {(uint8_t)(number >> 8), (uint8_t)number};

	ASSERT(number <= UINT16_MAX);
	put(text, span_make(bytes, sizeof(bytes)));
}

static void put_u32(struct header_text *text, uint32_t number)
{
	put_u16(text, number >> 16);
	put_u16(text, number & 0xffff);
}

static void put_ip(struct header_text *text, const struct ip *ip, bool as_v6)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	if (as_v6 && !ip->is_v6)
		put(text, span_make(mapped, sizeof(mapped)));
	put(text, span_make(ip->bytes, ip->is_v6 ? IPV6_BYTES : IPV4_BYTES));
}

/* What is empty is not said, nor what leaves no room for the checksum. */
static void put_tlv(struct header_text *text, enum tlv_type type, struct span value)
{
	const uint8_t byte = (uint8_t)type;
	const size_t needed = 2 * TLV_HEAD_BYTES + CRC_BYTES;

	if (value.len == 0 || value.len + needed > PROXY_HEADER_BYTES_MAX - text->len)
		return;
	put(text, span_make(&byte, 1));
	put_u16(text, value.len);
	put(text, value);
}

static void put_tls(struct header_text *text, const struct proxy_header_tls *tls)
{
	const uint8_t client[2] = {TLV_SSL,
		(uint8_t)(SSL_CLIENT_TLS |
			  (tls->has_certificate ? SSL_CLIENT_CERT_CONN | SSL_CLIENT_CERT_SESS
						: 0))};
	uint8_t inner[PROXY_HEADER_BYTES_MAX];
	const size_t start = text->len + TLV_HEAD_BYTES + SSL_HEAD_BYTES;
	struct header_text parts = {.out = inner, .len = start};

	if (start + TLV_HEAD_BYTES + CRC_BYTES > PROXY_HEADER_BYTES_MAX)
		return;
	/* Gathered at the place that they will have, so that what is too long is left out. */
	put_tlv(&parts, TLV_SSL_VERSION, tls->version);
	if (tls->is_verified)
		put_tlv(&parts, TLV_SSL_CN, tls->cn);
	put_tlv(&parts, TLV_SSL_CIPHER, tls->cipher);
	put_tlv(&parts, TLV_SSL_SIG_ALG, tls->signature);
	put_tlv(&parts, TLV_SSL_KEY_ALG, tls->key);
	put(text, span_make(client, 1));
	put_u16(text, parts.len - start + SSL_HEAD_BYTES);
	put(text, span_make(client + 1, 1));
	put_u32(text, tls->is_verified ? 0 : 1);
	put(text, span_make(inner + start, parts.len - start));
}

static size_t write_v1(const struct proxy_header *header, uint8_t *out)
{
	const bool is_v6 = header->source.is_v6 || header->destination.is_v6;
	const struct ip *ends[] = {&header->source, &header->destination};
	char texts[2][ADDRESS_TEXT_BYTES + 8];
	char line[V1_BYTES_MAX + 1];
	int len;

	if (!header->has_client) {
		struct span unknown = span_of("PROXY UNKNOWN\r\n");

		memcpy(out, unknown.data, unknown.len);
		return unknown.len;
	}
	for (unsigned i = 0; i < 2; i++) {
		const char *prefix = is_v6 && !ends[i]->is_v6 ? "::ffff:" : "";
		char text[ADDRESS_TEXT_BYTES];

		(void)snprintf(texts[i], sizeof(texts[i]), "%s%s", prefix,
			ip_print(ends[i], text, sizeof(text)));
	}
	len = snprintf(line, sizeof(line), "PROXY TCP%c %s %s %u %u\r\n", is_v6 ? '6' : '4',
		texts[0], texts[1], header->source_port, header->destination_port);
	ASSERT(len > 0 && (size_t)len < sizeof(line));
	memcpy(out, line, (size_t)len);
	return (size_t)len;
}

static size_t write_v2(const struct proxy_header *header, uint8_t *out)
{
	const bool is_v6 = header->source.is_v6 || header->destination.is_v6;
	const uint8_t kind[2] = {
		V2_VERSION | (header->has_client ? V2_PROXY : V2_LOCAL), !header->has_client ? 0
									 : is_v6             ? 0x21
										 : 0x11};
	const uint8_t crc = TLV_CRC32C;
	struct header_text text = {.out = out};
	uint32_t checksum;

	put(&text, span_make(v2_start, sizeof(v2_start)));
	put(&text, span_make(kind, sizeof(kind)));
	put_u16(&text, 0);
	if (header->has_client) {
		put_ip(&text, &header->source, is_v6);
		put_ip(&text, &header->destination, is_v6);
		put_u16(&text, header->source_port);
		put_u16(&text, header->destination_port);
		put_tlv(&text, TLV_ALPN, header->alpn);
		put_tlv(&text, TLV_AUTHORITY, header->authority);
		if (header->unique_id.len <= PROXY_HEADER_UNIQUE_ID_BYTES_MAX)
			put_tlv(&text, TLV_UNIQUE_ID, header->unique_id);
		if (header->tls.is_tls)
			put_tls(&text, &header->tls);
		put_tlv(&text, TLV_NETNS, header->netns);
		put(&text, span_make(&crc, 1));
		put_u16(&text, CRC_BYTES);
		put_u32(&text, 0);
	}
	out[14] = (uint8_t)((text.len - V2_FIXED_BYTES) >> 8);
	out[15] = (uint8_t)(text.len - V2_FIXED_BYTES);
	if (header->has_client) {
		checksum = header_checksum(span_make(out, text.len), text.len - CRC_BYTES);
		text.len -= CRC_BYTES;
		put_u32(&text, checksum);
	}
	return text.len;
}

size_t proxy_header_write(
	const struct proxy_header *header, uint8_t out[static PROXY_HEADER_BYTES_MAX])
{
	return header->version == 1 ? write_v1(header, out) : write_v2(header, out);
}
