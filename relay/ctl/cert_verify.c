/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/cert.h"

#include "relay/pki/crl.h"
#include "relay/pki/peer.h"
#include "relay/pki/trust.h"
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

/*
 * cert_verify.c: the judgement of the relay itself (trust_judge(), names_have()) on files. The
 * files may hold anything, as published suites of broken certificates do.
 */

#define PINS_MAX CTL_LIST_MAX
#define FETCH_TIMEOUT_MS 10000
#define PENDING_MAX_S 60

struct verify {
	const char *chain;
	const char *anchors;
	const char *purpose;
	const char *name;
	const char *time;
	const char *revocation;
	struct ctl_list crls;
	struct ctl_list pins;
	int64_t depth;
	/* What they mean. */
	time_t now;
	enum peer_purpose role;
	struct pin pin_bytes[PINS_MAX];
	struct trust_options trust_options;
	struct trust *trust;
	STACK_OF(X509) * certificates;
	bool is_undecodable;
};

/* Lists are fetched by another thread, which calls back. */
static struct verify_wait {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	unsigned changes;
} fetched = {.mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static void verify_on_change(void *owner)
{
	struct verify_wait *wait = owner;

	(void)pthread_mutex_lock(&wait->mutex);
	wait->changes++;
	(void)pthread_cond_signal(&wait->cond);
	(void)pthread_mutex_unlock(&wait->mutex);
}

/* ---- arguments */

/* "+02:00" or "Z"; *out: seconds east of UTC. */
static bool zone_parse(const char *text, int64_t *out)
{
	int hours;
	int minutes;
	int used = 0;

	*out = 0;
	if (strcasecmp(text, "Z") == 0)
		return true;
	if ((*text != '+' && *text != '-') ||
		sscanf(text + 1, "%2d:%2d%n", &hours, &minutes, &used) != 2 || used != 5 ||
		text[6] != '\0' || hours > 23 || minutes > 59 || hours < 0 || minutes < 0)
		return false;
	*out = (*text == '-' ? -1 : 1) * (hours * 3600LL + minutes * 60LL);
	return true;
}

static bool calendar_parse(const char *text, time_t *out)
{
	struct tm tm = {0};
	struct tm back;
	int64_t zone = 0;
	const char *rest = strptime(text, "%Y-%m-%d", &tm);

	if (rest == NULL)
		return false;
	if (*rest != '\0') {
		if (strchr("Tt ", *rest) == NULL)
			return false;
		rest = strptime(rest + 1, "%H:%M:%S", &tm);
		if (rest == NULL)
			return false;
		if (*rest == '.')
			rest += 1 + strspn(rest + 1, "0123456789");
		if (!zone_parse(rest, &zone))
			return false;
	}
	back = tm;
	*out = timegm(&back);
	/* The 30th of February would become a day in March. */
	if (back.tm_mday != tm.tm_mday || back.tm_mon != tm.tm_mon)
		return false;
	*out -= zone;
	return true;
}

static int time_parse(const char *text, time_t *out)
{
	char *end;
	long long seconds;

	if (calendar_parse(text, out))
		return 0;
	errno = 0;
	seconds = strtoll(text, &end, 10);
	if (errno == 0 && end != text && *end == '\0') {
		*out = (time_t)seconds;
		return 0;
	}
	ctl_error("--time %s: expected 2026-11-21T10:00:00Z, 2026-11-21, or seconds since 1970",
		text);
	return -EINVAL;
}

static int pin_parse(const char *text, struct pin *out)
{
	static const char prefix[] = "sha256//";
	unsigned char bytes[48];
	size_t len = strlen(text);

	if (len == (size_t)2 * PIN_BYTES && strspn(text, "0123456789abcdefABCDEF") == len) {
		for (size_t i = 0; i < PIN_BYTES; i++) {
			const char digits[] = {text[2 * i], text[2 * i + 1], '\0'};

			out->bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
		}
		return 0;
	}
	if (len == strlen(prefix) + 44 && strncmp(text, prefix, strlen(prefix)) == 0 &&
		text[len - 1] == '=' && text[len - 2] != '=' &&
		EVP_DecodeBlock(bytes, (const unsigned char *)text + strlen(prefix), 44) == 33) {
		memcpy(out->bytes, bytes, PIN_BYTES);
		return 0;
	}
	ERR_clear_error();
	ctl_error("--pin %s: expected 64 hex digits, or sha256// and 44 characters", text);
	return -EINVAL;
}

static int revocation_parse(const struct verify *verify, enum revocation *out)
{
	static const char *const words[] = {[REVOCATION_OFF] = "off",
		[REVOCATION_SOFT] = "soft",
		[REVOCATION_HARD] = "hard",
		[REVOCATION_STRICT] = "strict"};

	*out = verify->crls.count > 0 ? REVOCATION_HARD : REVOCATION_OFF;
	if (verify->revocation == NULL)
		return 0;
	for (unsigned i = 0; i < COUNT_OF(words); i++) {
		if (strcmp(words[i], verify->revocation) == 0) {
			*out = (enum revocation)i;
			return 0;
		}
	}
	ctl_error("--revocation %s: expected off, soft, hard or strict", verify->revocation);
	return -EINVAL;
}

static int verify_parse(struct verify *verify)
{
	enum revocation revocation;

	verify->now = time(NULL);
	if (verify->time != NULL && time_parse(verify->time, &verify->now) < 0)
		return -EINVAL;
	if (strcmp(verify->purpose, "client") != 0 && strcmp(verify->purpose, "server") != 0) {
		ctl_error("--purpose %s: expected client or server", verify->purpose);
		return -EINVAL;
	}
	verify->role = strcmp(verify->purpose, "client") == 0 ? PEER_IS_CLIENT : PEER_IS_SERVER;
	for (unsigned i = 0; i < verify->pins.count; i++)
		if (pin_parse(verify->pins.texts[i], &verify->pin_bytes[i]) < 0)
			return -EINVAL;
	if (revocation_parse(verify, &revocation) < 0)
		return -EINVAL;
	if (verify->anchors == NULL && verify->pins.count == 0) {
		ctl_error("cert verify: --anchors is missing (--pin alone is direct trust)");
		return -EINVAL;
	}
	verify->trust_options = (struct trust_options){.anchors = verify->anchors,
		.crl_files = verify->crls.texts,
		.crl_file_count = verify->crls.count,
		.revocation = revocation,
		.pins = verify->pin_bytes,
		.pin_count = verify->pins.count,
		.depth = (int)verify->depth};
	return 0;
}

/* ---- the judgement */

/* While a list is fetched the verdict is not final; each fetch is bounded, and so are all. */
static enum verdict verify_judge(const struct verify *verify, struct peer *peer)
{
	struct timespec end;
	enum verdict verdict;
	bool is_pending = false;
	unsigned seen;
	int rc = 0;

	(void)clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += PENDING_MAX_S;
	do {
		(void)pthread_mutex_lock(&fetched.mutex);
		seen = fetched.changes;
		(void)pthread_mutex_unlock(&fetched.mutex);
		verdict = trust_judge(verify->trust, peer, verify->role, verify->now, &is_pending);
		(void)pthread_mutex_lock(&fetched.mutex);
		while (is_pending && rc == 0 && fetched.changes == seen)
			rc = pthread_cond_timedwait(&fetched.cond, &fetched.mutex, &end);
		(void)pthread_mutex_unlock(&fetched.mutex);
	} while (is_pending && rc == 0);
	return verdict;
}

static const char *verdict_reason(enum verdict verdict)
{
	switch (verdict) {
	case VERDICT_UNTRUSTED_ROOT:
		return "the chain ends in none of the anchors, or an intermediate is missing";
	case VERDICT_EXPIRED:
		return "a certificate of the chain has expired";
	case VERDICT_NOT_YET_VALID:
		return "a certificate of the chain is not valid yet";
	case VERDICT_REVOKED:
		return "a certificate of the chain is revoked";
	case VERDICT_REVOCATION_UNKNOWN:
		return "a revocation list is wanted and cannot be had, or is stale";
	case VERDICT_BAD_USAGE:
		return "key usage, extended key usage or CA flags of the chain do not fit";
	case VERDICT_WEAK_KEY:
		return "a key or signature of the chain is below OpenSSL's security level 2";
	case VERDICT_SIGNATURE_FAILURE:
		return "a signature of the chain is wrong";
	case VERDICT_PIN_MISMATCH:
		return "the key of the certificate is none of the pins";
	case VERDICT_SUBJECT_MISMATCH:
		return "the name is not among the dNSNames of the certificate";
	case VERDICT_EMPTY:
	case VERDICT_INVALID:
	case VERDICT_NOT_ASKED:
	case VERDICT_VALID:
	case VERDICT_COUNT:
		break;
	}
	return "the chain breaks a rule of X.509 (RFC 5280), as OpenSSL reads it";
}

/* Which rule of partners would let it speak for the name as a mail domain. */
static void print_mail_rule(const struct peer *peer, const char *domain)
{
	static const struct {
		struct name_rules rules;
		const char *switches;
	} tries[] = {{{0}, ""}, {{.host_names = true}, ", with host-names only"},
		{{.common_name = true}, ", with common-name only"},
		{{.host_names = true, .common_name = true},
			", with host-names and common-name only"}};
	enum name_match match = NAME_MATCH_NONE;
	struct span name = {0};
	unsigned i = 0;

	for (; i < COUNT_OF(tries); i++) {
		match = names_match(&peer->names, domain, &tries[i].rules, &name);
		if (match != NAME_MATCH_NONE)
			break;
	}
	(void)printf("; for the mail domain %s: %s", domain, name_match_word(match));
	if (match != NAME_MATCH_NONE)
		(void)printf(
			" (%.*s%s)", (int)name.len, (const char *)name.data, tries[i].switches);
}

static void print_facts(const struct verify *verify, const struct peer *peer)
{
	char from[CERT_TIME_BYTES];
	char to[CERT_TIME_BYTES];
	char at[CERT_TIME_BYTES];

	(void)fputs("; subject \"", stdout);
	ctl_print_safe(peer->subject);
	(void)printf("\", valid from %s to %s, judged for %s",
		cert_time_print(peer->not_before, from), cert_time_print(peer->not_after, to),
		cert_time_print(verify->now, at));
}

static int verify_print(const struct verify *verify, const struct peer *peer, enum verdict verdict,
	const char *name)
{
	bool is_direct = verify->anchors == NULL;

	(void)printf(
		"%s %s\n", verdict == VERDICT_VALID ? "accept" : "reject", verdict_word(verdict));
	if (peer == NULL)
		(void)fputs("a certificate of the chain cannot be decoded", stdout);
	else if (verdict != VERDICT_VALID)
		(void)fputs(verdict_reason(verdict), stdout);
	else if (is_direct)
		(void)fputs(
			"the key is pinned; with direct trust nothing else is looked at", stdout);
	else
		(void)printf("chain, dates, usage and strength hold for a %s%s", verify->purpose,
			verify->pins.count > 0 ? ", and the key is pinned" : "");
	if (name != NULL && *name != '\0')
		print_mail_rule(peer, strncmp(name, "*.", 2) == 0 ? name + 2 : name);
	if (peer != NULL)
		print_facts(verify, peer);
	(void)putchar('\n');
	return verdict == VERDICT_VALID ? CTL_OK : CTL_FAILED;
}

/* "" for what is no domain name, and so in no certificate. */
static const char *verify_normalize(const char *name, char out[static DOMAIN_BYTES_MAX + 2])
{
	size_t skipped = strncmp(name, "*.", 2) == 0 ? 2 : 0;
	char domain[DOMAIN_BYTES_MAX];

	out[0] = '\0';
	if (domain_normalize(span_of(name + skipped), domain) == 0)
		(void)snprintf(out, DOMAIN_BYTES_MAX + 2, "%s%s", skipped > 0 ? "*." : "", domain);
	return out;
}

static int verify_run(struct verify *verify)
{
	X509 *leaf = sk_X509_shift(verify->certificates);
	struct peer *peer = verify->is_undecodable || leaf == NULL
				    ? NULL
				    : peer_of_chain(leaf, verify->certificates);
	char text[DOMAIN_BYTES_MAX + 2];
	const char *name = verify->name != NULL ? verify_normalize(verify->name, text) : NULL;
	enum verdict verdict = peer == NULL ? VERDICT_INVALID : verify_judge(verify, peer);
	int status;

	if (verdict == VERDICT_VALID && name != NULL && verify->anchors != NULL &&
		(*name == '\0' || !names_have(&peer->names, name)))
		verdict = VERDICT_SUBJECT_MISMATCH;
	status = verify_print(verify, peer, verdict, peer == NULL ? NULL : name);
	peer_release(&peer);
	X509_free(leaf);
	return status;
}

/* Everything that a judgement needs; the files first, since they may be unreadable. */
static int verify_with_trust(struct verify *verify)
{
	char error[512] = "no memory";
	const struct crl_options crl_options = {.fetch_timeout_ms = FETCH_TIMEOUT_MS,
		.refresh_interval_ms = 3600000,
		.on_change = verify_on_change,
		.owner = &fetched};
	int status = CTL_USAGE;
	int rc = crl_start(&crl_options);

	if (rc == 0) {
		rc = trust_create(&verify->trust_options, &verify->trust, error, sizeof(error));
		if (rc == 0)
			rc = peer_cache_create(0);
		if (rc < 0)
			ctl_error("%s", error);
		else
			status = verify_run(verify);
		peer_cache_destroy();
		trust_destroy(&verify->trust);
		crl_stop();
	} else {
		ctl_error("revocation lists: %s", strerror(-rc));
	}
	return status;
}

int cert_verify_run(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
	struct verify verify = {.depth = -1, .certificates = sk_X509_new_null()};
	struct ctl_list operands = {.count = 0};
	const struct ctl_option options[] = {{"chain", CTL_OPTION_TEXT, &verify.chain, 0, 0, true},
		{"anchors", CTL_OPTION_TEXT, &verify.anchors, 0, 0, false},
		{"purpose", CTL_OPTION_TEXT, &verify.purpose, 0, 0, true},
		{"name", CTL_OPTION_TEXT, &verify.name, 0, 0, false},
		{"time", CTL_OPTION_TEXT, &verify.time, 0, 0, false},
		{"crl", CTL_OPTION_LIST, &verify.crls, 0, 0, false},
		{"depth", CTL_OPTION_NUMBER, &verify.depth, 0, 1000, false},
		{"revocation", CTL_OPTION_TEXT, &verify.revocation, 0, 0, false},
		{"pin", CTL_OPTION_LIST, &verify.pins, 0, 0, false}, {.name = NULL}};
	enum cert_chain_state state;
	int status = CTL_USAGE;

	(void)argc;
	if (verify.certificates != NULL &&
		ctl_options_read(ctl, command, argv, options, &operands, 0, 0) == 0 &&
		verify_parse(&verify) == 0) {
		state = cert_chain_read(verify.chain, verify.certificates);
		verify.is_undecodable = state == CERT_CHAIN_UNDECODABLE;
		if (state != CERT_CHAIN_DAMAGED)
			status = verify_with_trust(&verify);
	}
	sk_X509_pop_free(verify.certificates, X509_free);
	return status;
}
