/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * crl_fixture.h: a CA, its intermediate, a stranger, and lists of every kind, for the tests of
 * revocation.
 */

#include "relay/net/verify.h"
#include "relay/pki/crl.h"
#include "relay/pki/trust.h"
#include "tests/unit/pki_fixture.h"

#define HOUR INT64_C(3600)

/* The verdicts of which the tables are made. */
#define V VERDICT_VALID
#define U VERDICT_REVOCATION_UNKNOWN
#define R VERDICT_REVOKED

static struct pki root;
static struct pki middle;
static struct pki other;

static inline int setup(void **state)
{
	const struct pki_options ca = {.cn = "root", .is_ca = true};
	const struct pki_options sub = {
		.cn = "middle", .is_ca = true, .path_length = 1, .issuer = &root};
	const struct pki_options stranger = {.cn = "other", .is_ca = true};

	(void)state;
	pki_begin();
	assert_int_equal(peer_cache_create(8), 0);
	root = pki_make(&ca);
	middle = pki_make(&sub);
	other = pki_make(&stranger);
	(void)pki_write_one("root.pem", &root);
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	pki_drop(&root);
	pki_drop(&middle);
	pki_drop(&other);
	peer_cache_destroy();
	crl_stop();
	pki_end();
	return 0;
}

static inline struct trust *trust_of(
	enum revocation revocation, const char *const *crl_files, unsigned crl_file_count)
{
	const struct trust_options options = {.anchors = pki_path("root.pem"),
		.crl_files = crl_files,
		.crl_file_count = crl_file_count,
		.revocation = revocation,
		.depth = -1};
	struct trust *trust;
	char error[256];

	if (trust_create(&options, &trust, error, sizeof(error)) < 0)
		fail_msg("%s", error);
	return trust;
}

/* What is done to the two lists, of root (covers middle) and of middle (covers the leaf). */
enum list_kind {
	LIST_ABSENT,
	LIST_GOOD,
	LIST_REVOKES,
	LIST_REVOKES_EXPIRED,
	LIST_EXPIRED,
	LIST_FUTURE,
	LIST_FORGED, /* signed by another key under the right name */
	LIST_DELTA,
	LIST_INDIRECT,
};

static inline const char *write_list(
	const char *name, enum list_kind kind, const struct pki *issuer, const struct pki *subject)
{
	bool is_expired = kind == LIST_EXPIRED || kind == LIST_REVOKES_EXPIRED;
	bool is_future = kind == LIST_FUTURE;
	bool revokes = kind == LIST_REVOKES || kind == LIST_REVOKES_EXPIRED;
	const struct pki_list_options options = {.issuer = issuer,
		.signer = kind == LIST_FORGED ? &other : NULL,
		.revoked = revokes ? subject : NULL,
		.this_update = is_expired  ? -9 * HOUR
			       : is_future ? HOUR
					   : -HOUR,
		.next_update = is_expired ? -HOUR : 9 * HOUR,
		.is_delta = kind == LIST_DELTA,
		.is_indirect = kind == LIST_INDIRECT};

	return pki_write_list(name, pki_list(&options));
}
