/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_proxy_header.c: proxy_header_parse() on any bytes. What was decided on the first bytes
 * stays so with more; every part lies inside; and what was understood, written again, is
 * understood as the same.
 */

#include "relay/smtp/proxy_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX 2200

static void fuzz_check_inside(struct span part, struct span whole)
{
	ASSERT(part.len == 0 ||
		(part.data >= whole.data && part.data + part.len <= whole.data + whole.len));
}

/* More input never changes an answer, and none comes later than it must. */
static void fuzz_check_shorter(struct span in, enum proxy_header_status status)
{
	enum proxy_header_status before = PROXY_HEADER_MORE;
	size_t step = in.len / 128 + 1;

	for (size_t len = 0; len < in.len; len += step) {
		struct proxy_header header;
		enum proxy_header_status now = proxy_header_parse(span_head(in, len), &header);

		ASSERT(before == PROXY_HEADER_MORE || now == before);
		ASSERT(now == PROXY_HEADER_MORE || now == status);
		before = now;
	}
}

static void fuzz_check_again(const struct proxy_header *header)
{
	uint8_t wire[PROXY_HEADER_BYTES_MAX];
	size_t len = proxy_header_write(header, wire);
	struct proxy_header again;

	ASSERT(proxy_header_parse(span_make(wire, len), &again) == PROXY_HEADER_OK);
	ASSERT(again.bytes == len && again.version == header->version);
	ASSERT(again.has_client == header->has_client);
	if (!header->has_client)
		return;
	ASSERT(ip_compare(&again.source, &header->source) == 0);
	ASSERT(ip_compare(&again.destination, &header->destination) == 0);
	ASSERT(again.source_port == header->source_port);
	ASSERT(again.destination_port == header->destination_port);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span in = span_make(data, size);
	struct proxy_header header = {0};
	struct span whole;
	enum proxy_header_status status;

	if (size > FUZZ_BYTES_MAX)
		return 0;
	status = proxy_header_parse(in, &header);
	fuzz_check_shorter(in, status);
	ASSERT(status != PROXY_HEADER_MORE || size < PROXY_HEADER_BYTES_MAX);
	if (status != PROXY_HEADER_OK)
		return 0;
	ASSERT(header.bytes <= size && header.bytes <= PROXY_HEADER_BYTES_MAX);
	ASSERT(header.version == 2 || header.bytes <= 107);
	whole = span_head(in, header.bytes);
	fuzz_check_inside(header.alpn, whole);
	fuzz_check_inside(header.authority, whole);
	fuzz_check_inside(header.unique_id, whole);
	fuzz_check_inside(header.netns, whole);
	fuzz_check_inside(header.tls.cn, whole);
	fuzz_check_again(&header);
	return 0;
}
