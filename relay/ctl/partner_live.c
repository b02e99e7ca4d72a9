/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ask.h"

#include "policy/names.h"
#include "policy/partner.h"
#include <inttypes.h>
#include <string.h>

#define LIVE_TIMEOUT_MS_MAX 30000

static const char firewall_remedy[] =
	"a firewall on the way alters SMTP (\"XXXA\", stars in the banner): switch its SMTP "
	"inspection off, on our side or the partner's";

/* "HOST", "HOST:PORT", "[v6]:PORT". */
static void host_split(
	const char *text, uint64_t port, char out[static NAME_BYTES_MAX], uint64_t *out_port)
{
	const char *colon = strrchr(text, ':');
	size_t len = strlen(text);

	*out_port = port;
	if (colon != NULL && (strchr(text, ':') == colon || colon[-1] == ']')) {
		*out_port = strtoul(colon + 1, NULL, 10);
		len = (size_t)(colon - text);
	}
	if (text[0] == '[' && len > 2) {
		text++;
		len -= 2;
	}
	(void)snprintf(out, NAME_BYTES_MAX, "%.*s", (int)len, text);
}

static void live_connection(const struct partner_live *live, const struct probe *probe)
{
	struct check *check = live->check;

	if (probe->failed == PROBE_CONNECT) {
		check_row(check, CHECK_FAIL, "  a connection", "%s%s%s", probe->address,
			*probe->address != '\0' ? ": " : "", probe->why);
		check_remedy(
			"open the way to it in the firewalls; ask the partner whether it listens");
		return;
	}
	check_row(check, CHECK_PASS, "  a connection", "%s", probe->address);
	if (probe->failed == PROBE_BANNER || probe->failed == PROBE_EHLO) {
		check_row(check, CHECK_FAIL, "  banner and EHLO", "%s", probe->why);
		check_remedy(probe->is_altered ? firewall_remedy
					       : "ask the partner; its log says why it "
						 "refuses us");
		return;
	}
	if (probe->is_altered && probe->failed != PROBE_STARTTLS) {
		check_row(check, CHECK_FAIL, "  banner and EHLO", "\"%s\"", probe->banner);
		check_remedy(firewall_remedy);
		return;
	}
	check_row(check, CHECK_PASS, "  banner and EHLO", "\"%s\"", probe->banner);
}

static void live_tls(const struct partner_live *live, const struct probe *probe)
{
	struct check *check = live->check;

	if (probe->failed < PROBE_STARTTLS) {
		check_row(check, CHECK_SKIP, "  STARTTLS", "there is no session");
		return;
	}
	if (probe->failed == PROBE_STARTTLS) {
		check_row(check, CHECK_FAIL, "  STARTTLS", "%s", probe->why);
		check_remedy(probe->is_altered
				     ? firewall_remedy
				     : "the partner must offer STARTTLS there; if it says that it "
				       "does, a firewall on the way takes it out");
		return;
	}
	check_row(check, CHECK_PASS, "  STARTTLS", NULL);
	if (probe->failed == PROBE_HANDSHAKE) {
		check_row(check, CHECK_FAIL, "  the handshake", "%s", probe->why);
		check_remedy("compare TLS versions and ciphers with the partner's; a refused "
			     "certificate of ours ends it, too");
		return;
	}
	check_row(check, CHECK_PASS, "  the handshake", "%s, %s", probe->version, probe->cipher);
}

static void remedy_of_verdict(enum verdict verdict, const struct partner *partner)
{
	switch (verdict) {
	case VERDICT_UNTRUSTED_ROOT:
		check_remedy("get the partner's root CA certificate over another way, compare its "
			     "digest, and add it to trust-anchors of partner \"%s\"; or the "
			     "partner must send its intermediates",
			partner->name);
		return;
	case VERDICT_EXPIRED:
	case VERDICT_NOT_YET_VALID:
		check_remedy("the partner must renew its certificate; is our clock right?");
		return;
	case VERDICT_REVOKED:
		check_remedy("the partner must use another certificate: its CA has withdrawn this "
			     "one");
		return;
	case VERDICT_REVOCATION_UNKNOWN:
		check_remedy("let this machine fetch the list that the certificate names, or put "
			     "it into crl-files of partner \"%s\"",
			partner->name);
		return;
	case VERDICT_BAD_USAGE:
		check_remedy("the partner's certificate must be for servers (extended key usage "
			     "serverAuth)");
		return;
	case VERDICT_WEAK_KEY:
		check_remedy("the partner needs a stronger key: RSA 2048 or EC P-256 at the least");
		return;
	case VERDICT_PIN_MISMATCH:
		check_remedy("ask the partner over another way whether it changed its key, and add "
			     "the new one to spki-pins of partner \"%s\"",
			partner->name);
		return;
	case VERDICT_NOT_ASKED:
	case VERDICT_EMPTY:
	case VERDICT_VALID:
	case VERDICT_SIGNATURE_FAILURE:
	case VERDICT_SUBJECT_MISMATCH:
	case VERDICT_INVALID:
	case VERDICT_COUNT:
		check_remedy("show this to the partner: its certificate is broken");
		return;
	}
	UNREACHABLE();
}

/* Is it valid by the partner's trust? */
static bool live_chain(const struct partner_live *live, const struct probe *probe)
{
	const struct partner *partner = live->partner;
	enum verdict verdict = judge_chain(live->judge,
		live->judge->trusts->partners[partner->index], probe->peer, PEER_IS_SERVER);

	if (verdict == VERDICT_VALID) {
		check_row(live->check, CHECK_PASS, "  its certificate is trusted", "Valid, %s",
			probe->peer->subject);
		return true;
	}
	check_row(live->check, CHECK_FAIL, "  its certificate is trusted", "%s%s%s",
		verdict_word(verdict), probe->peer == NULL ? "" : ", ",
		probe->peer == NULL ? "" : probe->peer->subject);
	if (probe->peer != NULL)
		(void)printf("         issuer: %s\n         key sha256: %s\n", probe->peer->issuer,
			probe->peer->spki_sha256);
	remedy_of_verdict(verdict, partner);
	return false;
}

static void live_name(const struct partner_live *live, const struct probe *probe, bool is_trusted)
{
	const struct name_rules rules = partner_rules(live->partner);
	const char *what = "  its certificate proves the domain";
	enum name_match match;
	struct span name = {0};

	if (partner_is_direct(live->partner)) {
		check_row(live->check, CHECK_SKIP, what, "direct trust: the key alone decides");
		return;
	}
	if (probe->peer == NULL) {
		check_row(live->check, CHECK_SKIP, what, "there is none");
		return;
	}
	match = names_match(&probe->peer->names, live->domain, &rules, &name);
	if (match != NAME_MATCH_NONE) {
		check_row(live->check, CHECK_PASS, what, "%.*s (%s)", (int)name.len,
			(const char *)name.data, name_match_word(match));
		return;
	}
	check_row(live->check, CHECK_FAIL, what, "SubjectMismatch, %s is none of %s", live->domain,
		*probe->peer->names_text != '\0' ? probe->peer->names_text : "no dNSName at all");
	if (!is_trusted) {
		check_remedy("these names prove nothing: the certificate itself is not valid");
		return;
	}
	check_remedy(
		"the partner needs a certificate with the dNSName %s; if one of these names is "
		"surely the partner's, add it to certificate-names of partner \"%s\"",
		live->domain, live->partner->name);
}

static void live_own(const struct partner_live *live, const struct probe *probe, bool has_own)
{
	if (!probe->wants_certificate) {
		check_row(live->check, CHECK_FAIL, "  it asks for our certificate", NULL);
		check_remedy(
			"the partner must ask for client certificates on that connector, or it "
			"cannot prove us");
		return;
	}
	check_row(live->check, CHECK_PASS, "  it asks for our certificate", NULL);
	if (probe->failed == PROBE_AFTER_TLS) {
		check_row(live->check, CHECK_FAIL, "  it goes on with our certificate", "%s",
			probe->why);
		check_remedy("the partner refuses our certificate: does it have our root CA, and "
			     "our mail domain in it?");
	} else {
		check_row(live->check, has_own ? CHECK_PASS : CHECK_FAIL,
			"  it goes on with our certificate", "%s",
			has_own ? "whether it is enough is known at MAIL only" : "we have none");
		if (!has_own)
			check_remedy("name a certificate in send-connector \"%s\"",
				live->connector->name);
	}
}

static void live_host(
	const struct partner_live *live, const char *name, const char *address, uint64_t port)
{
	const struct send_connector *connector = live->connector;
	const struct own_certificate *own =
		judge_own(live->judge, &connector->tls_settings, connector->fqdn);
	const struct probe_options options = {
		.host = name,
		.address = address,
		.port = port,
		.fqdn = connector->fqdn,
		.settings = &connector->tls_settings,
		.own = own == NULL ? NULL : own->certificate,
		.source = &connector->source_address,
		.is_implicit = connector->implicit_tls,
		.timeout_ms = connector->connect_timeout_ms < LIVE_TIMEOUT_MS_MAX
				      ? connector->connect_timeout_ms
				      : LIVE_TIMEOUT_MS_MAX,
	};
	struct probe probe;

	(void)printf("host %s port %" PRIu64 "\n", name, port);
	probe_run(&options, &probe);
	live_connection(live, &probe);
	live_tls(live, &probe);
	if (probe.failed > PROBE_HANDSHAKE && live->partner != NULL) {
		live_name(live, &probe, live_chain(live, &probe));
		live_own(live, &probe, own != NULL);
	}
	peer_release(&probe.peer);
}

static void live_by_mx(const struct partner_live *live)
{
	static struct mx_host hosts[MX_HOSTS_MAX];
	char why[256];
	unsigned count;

	if (mx_find(live->judge->policy, live->domain, hosts, &count, why, sizeof(why)) != MX_OK) {
		check_row(live->check, CHECK_FAIL, "the domain has mail hosts", "%s", why);
		check_remedy("is the domain spelled right? Do this machine's name servers "
			     "(dns-servers) know it?");
		return;
	}
	check_row(live->check, CHECK_PASS, "the domain has mail hosts", "%u, first %s", count,
		hosts[0].name);
	for (unsigned i = 0; i < count; i++)
		live_host(live, hosts[i].name,
			hosts[i].address[0] == '\0' ? NULL : hosts[i].address,
			live->connector->port);
}

void partner_live_run(const struct partner_live *live)
{
	const struct send_connector *connector = live->connector;
	const char *what = "the domain has mail hosts";
	char name[NAME_BYTES_MAX];
	uint64_t port;

	if (live->host != NULL) {
		host_split(live->host, connector->port, name, &port);
		check_row(live->check, CHECK_SKIP, what, "--host %s", live->host);
		live_host(live, name, NULL, port);
		return;
	}
	if (connector->smart_host_count == 0) {
		live_by_mx(live);
		return;
	}
	check_row(live->check, CHECK_SKIP, what, "send-connector \"%s\" has smart hosts",
		connector->name);
	for (unsigned i = 0; i < connector->smart_host_count; i++) {
		char last[NAME_BYTES_MAX] = "";

		if (i > 0)
			(void)snprintf(
				last, sizeof(last), "%s", connector->smart_host_names[i - 1]);
		/* A name of several addresses is there once for each; it is one host here. */
		if (strcmp(last, connector->smart_host_names[i]) == 0)
			continue;
		host_split(connector->smart_host_names[i], 25, name, &port);
		live_host(live, name, NULL, port);
	}
}
