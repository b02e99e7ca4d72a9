/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * notice_fixture.h: a message, its recipients, and a configuration, to make notices of.
 */

#include "relay/mail/notice.h"

/* 2026-11-29T16:00:00Z */
#define NOTICE_NOW 1795968000000

static const char *notice_domains[] = {"*.a.example", "a.example"};

static inline struct policy notice_policy(void)
{
	struct policy policy = {.fqdn = "edge.a.example",
		.accepted_domains = notice_domains,
		.accepted_domain_count = 2};

	policy.queue.notice_original_bytes = 10485760;
	policy.queue.expiration_ms = 172800000;
	return policy;
}

static inline struct envelope notice_original(void)
{
	return (struct envelope){.arrived_ms = NOTICE_NOW - 60000,
		.rcpt_count = 1,
		.sender = span_of("<sender@b.example>"),
		.envid = span_of("QQ+2B1"),
		.client = span_of("192.0.2.9"),
		.helo = span_of("mail.b.example"),
		.message_id = span_of("<one@b.example>"),
		.subject = span_of("Hello"),
		.header_bytes = 40,
		.body_bytes = 60};
}

static inline struct notice_rcpt notice_refused(void)
{
	return (struct notice_rcpt){.action = NOTICE_FAILED,
		.path = span_of("<b@adatum.example>"),
		.orcpt = span_of("rfc822;b+2Bx@adatum.example"),
		.code = 550,
		.text = span_of("550 5.1.1 no such user"),
		.remote = span_of("mx.adatum.example[192.0.2.1]:25"),
		.last_attempt_ms = NOTICE_NOW - 1000};
}
