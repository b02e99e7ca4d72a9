/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * names.h: does a certificate speak for a mail domain? Pure: it is given the names
 * that were read from the certificate, and compares A-labels without regard to case.
 *
 * The rules (DESIGN 5, EXCHANGE 4.4 and 15.1), any of which is enough:
 *   - a dNSName equal to the domain
 *   - a dNSName "*.domain", which stands for the domain itself and for one label below it
 *   - a dNSName that is in the partner's own list (certificate-names; an entry may be "*.name",
 *     which stands for one label below name)
 *   - with the switch host-names: a dNSName of one label directly under the domain
 *   - with the switch common-name, and only if there is no dNSName at all: the CNs, by the
 *     same rules
 * A name with a NUL in it, or one that is no host name, proves nothing. An IP address in the
 * certificate proves nothing. A trailing dot counts as none. "*" stands for a whole label and in
 * front only; "*.com", over a top-level domain, proves nothing. Longer public suffixes
 * are not known here: that nobody has "*.co.uk" is for the anchors to see to.
 */

#include "relay/base/assert.h"
#include "relay/base/span.h"

/* CNs that are looked at; to read one that is a U-label is too slow to do for any number. */
#define NAMES_COMMON_MAX 8

/* The names in one certificate; the spans point into whoever owns it. */
struct certificate_names {
	const struct span *dns; /* dNSNames of the subjectAltName, as they stand there */
	unsigned dns_count;
	const struct span *common; /* CNs of the subject, in UTF-8 */
	unsigned common_count;
};

struct name_rules {
	const char *const *names; /* the partner's own list, A-labels in lower case */
	unsigned name_count;
	bool host_names;  /* a host directly under the domain is enough */
	bool common_name; /* CN is looked at where there is no dNSName */
};

enum name_match {
	NAME_MATCH_NONE,
	NAME_MATCH_EXACT,
	NAME_MATCH_WILDCARD,
	NAME_MATCH_LISTED,
	NAME_MATCH_HOST,
	NAME_MATCH_COUNT,
};

/*
 * Which rule lets the certificate speak for domain (A-labels, lower case, no trailing dot);
 * *out_name is the name that did (may be NULL). domain may be NULL: only the list counts.
 */
enum name_match names_match(const struct certificate_names *names, const char *domain,
	const struct name_rules *rules, struct span *out_name);

/*
 * RFC 9525 as for TlsDomain: does the certificate have the reference name, which may be
 * "*.name" (Exchange's leading wildcard: then any one label below it)? dNSNames only; a "*."
 * in the certificate stands for exactly one label.
 */
bool names_have(const struct certificate_names *names, const char *reference);

/* "exact", "wildcard", "listed", "host", "none". */
const char *name_match_word(enum name_match match);

#define DOMAIN_BYTES_MAX 256

/*
 * A mail domain as it came (U-labels or A-labels, any case, trailing dot) in the form that
 * is compared: A-labels, lower case, no trailing dot (UTS 46 non-transitional, through
 * libidn2). -EINVAL if it is no domain name: empty label, over 253 bytes, an address
 * literal, forbidden characters.
 */
NODISCARD int domain_normalize(struct span domain, char out[static DOMAIN_BYTES_MAX]);

/* The part behind the last @ of "<local@domain>" or "local@domain"; empty for "<>". */
struct span path_domain(struct span path);
