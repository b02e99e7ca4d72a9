/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_config_mistakes.c: one row for each mistake, with the line and the words that it must be
 * reported with, and nothing besides; and that comments leave the lines right.
 */

#include "tests/unit/config_fixture.h"

#define PIN_REST "f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea"
#define PIN_A "3" PIN_REST

static const struct mistake receive_rows[] = {
	{"unknown keyword", "colour = red", "unknown keyword \"colour\" in receive-", 0},
	{"unknown list", "colours = {red, blue}", "unknown keyword \"colours\"", 0},
	{"keyword of elsewhere", "smart-hosts = x", "expected it in send-connector only", 0},
	{"set twice", "nul = reject\nnul = reject", "nul is set again", 6},
	{"two values", "nul = {reject, reject}", "nul has a second value", 0},
	{"unknown word", "tls = always", "expected none, starttls or implicit", 0},
	{"unknown version", "tls-min = TLSv1", "expected TLSv1.2 or TLSv1.3", 0},
	{"not a boolean", "chunking = 1", "chunking is \"1\", expected yes or no", 0},
	{"not a number", "max-hop-count = many", "a whole number from 1 to 500", 0},
	{"a number with a tail", "max-hop-count = 3x", "max-hop-count is \"3x\"", 0},
	{"negative", "max-hop-count = -1", "max-hop-count is \"-1\"", 0},
	{"hops below", "max-hop-count = 0", "from 1 to 500", 0},
	{"hops above", "max-hop-count = 501", "from 1 to 500", 0},
	{"over 64 bits", "max-protocol-errors = 18446744073709551616", "or unlimited", 0},
	{"hops unlimited", "max-hop-count = unlimited", "from 1 to 500", 0},
	{"message too small", "max-message-size = 65535", "from 64KB to 2GB", 0},
	{"message too large", "max-message-size = 3GB", "from 64KB to 2GB", 0},
	{"message unlimited", "max-message-size = unlimited", "from 64KB to 2GB", 0},
	{"a size beyond all", "max-header-size = 99999999999999GB", "from 1KB to 2GB", 0},
	{"not a size", "max-message-size = 36MiB", "a size such as 36MB", 0},
	{"time without unit", "connection-timeout = 300", "a time such as", 0},
	{"not a clock", "connection-timeout = \"00:60:00\"", "from 1s to 1d", 0},
	{"time above", "connection-timeout = \"1.00:00:01\"", "from 1s to 1d", 0},
	{"time below", "connection-inactivity-timeout = 999ms", "from 1s to 1d", 0},
	{"inactivity as long as all", "connection-inactivity-timeout = 5m", "is not below", 0},
	{"all as short as inactivity", "connection-timeout = 60s", "is not below", 0},
	{"tickets", "session-tickets = 5", "from 0 to 4", 0},
	{"versions crossed", "tls-min = TLSv1.3 tls-max = TLSv1.2", "at least tls-min", 0},
	{"bad name", "fqdn = \"not a name\"", "expected a host name", 0},
	{"banner", "banner = \"554 no\"", "starts with \"220 \"", 0},
	{"banner continued", "banner = \"220-no\"", "starts with \"220 \"", 0},
	{"banner of two lines", "banner = \"220 a\\r\\n220 b\"", "control character", 0},
	{"no such certificate", "certificate = x", "the name of a certificate", 0},
	{"file missing", "trust-anchors = x.pem", "x.pem\", which cannot be read", 0},
	{"a folder", "trust-anchors = \".\"", "which is not a file", 0},
	{"TLS required, none", "require-tls = yes", "require-tls with tls = none", 0},
	{"proof without TLS", "client-certificate = ask trust-anchors = good.pem",
		"client-certificate with tls = none", 0},
	{"proof without anchors", "tls = implicit certificate = c\nclient-certificate = require",
		"client-certificate without trust-anchors", 6},
	{"binary without chunks", "chunking = no\nbinary-mime = yes",
		"binary-mime without chunking", 6},
	{"not an address", "bindings += \"localhost:25\"", "an address and a port", 0},
	{"no port", "bindings += \"127.0.0.1\"", "an address and a port", 0},
	{"port 0", "bindings += \"127.0.0.1:0\"", "an address and a port", 0},
	{"port 65536", "bindings += \"127.0.0.1:65536\"", "an address and a port", 0},
	{"no brackets", "bindings += \"::1:25\"", "an address and a port", 0},
	{"bracket open", "bindings += \"[::1:25\"", "an address and a port", 0},
	{"bound twice by itself", "bindings += \"127.0.0.1:2525\"", "(line 4)", 0},
	{"bound twice",
		"}\nreceive-connector other {\nbindings = \"127.0.0.1:2525\"\n"
		"send-connector = out",
		"of receive-connector \"other\" belongs to receive-connector \"in\" "
		"already (line 4)",
		7},
	{"same ranges",
		"remote-ip-ranges = \"10.0.0.0/24\" }\nreceive-connector other {\n"
		"bindings = \"127.0.0.1:2525\" send-connector = out\n"
		"remote-ip-ranges = {10.0.1.0,\n\"10.0.0.0-10.0.0.255\"}",
		"remote range 10.0.0.0/24 of receive-connector \"other\" belongs to "
		"receive-connector \"in\" already (line 5)",
		9},
	{"ranges in part",
		"remote-ip-ranges = \"10.0.0.10-10.0.0.20\" }\nreceive-connector other {\n"
		"bindings = \"127.0.0.1:2525\" send-connector = out\n"
		"remote-ip-ranges = \"10.0.0.20-10.0.0.21\"",
		"10.0.0.20/31 of receive-connector \"other\" overlaps 10.0.0.10-10.0.0.20 of "
		"receive-connector \"in\" (line 5) in part",
		8},
	{"ranges in part by zone",
		"remote-ip-ranges = \"fe80::1\" }\nreceive-connector other {\n"
		"bindings = \"127.0.0.1:2525\" send-connector = out\n"
		"remote-ip-ranges = \"fe80::%2/64\"",
		"(line 5) in part", 8},
	{"not a range", "remote-ip-ranges = {10.0.0.1, \"10.0.0.9-10.0.0.1\"}",
		"remote-ip-ranges is \"10.0.0.9-10.0.0.1\", expected an address, a range", 0},
	{"list is empty", "remote-ip-ranges = { /* none */\n}", "the list is empty", 6},
	{"set is empty", "permission-groups = {}", "the list is empty", 0},
	{"list is emptied", "remote-ip-ranges += {\t}", "the list is empty", 0},
	{"not a group", "permission-groups = {anonymous, users}",
		"\"users\", expected some of anonymous, partners and internal", 0},
	{"not a type", "type = client", "expected custom, internet, internal or partner", 0},
	{"secure, no TLS", "domain-secure = yes", "domain-secure with tls = none", 0},
	{"partner, no TLS", "type = partner\ntls = none", "domain-secure with tls = none", 6},
	{"secure, nothing asked", "type = partner\nclient-certificate = none",
		"client-certificate = none with domain-secure proves no domain", 6},
	{"secured twice",
		"type = partner permission-groups = {partners, internal}\n"
		"external-authoritative = yes",
		"external-authoritative with domain-secure", 6},
	{"secured elsewhere for nobody", "external-authoritative = yes",
		"expected internal among permission-groups", 0},
	{"no internal servers", "type = internal", "for internal servers only", 0},
	{"no internal servers", "permission-groups = internal", "for internal servers only", 0},
	{"a name of nobody", "type = internet tls-domain = a.example",
		"tls-domain with a certificate that is not required", 0},
	{"lists without anchors", "crl-files = good.pem", "crl-files without trust-anchors", 0},
	{"list missing", "trust-anchors = good.pem crl-files = {good.pem,\nx.crl}",
		"x.crl\", which cannot be read", 6},
	{"log to nowhere", "protocol-logging = verbose", "has nowhere to write to", 0},
	{"local hops", "max-local-hop-count = 51", "from 0 to 50", 0},
	{"percentage", "max-inbound-connection-percentage-per-source = 101", "from 1 to 100", 0},
	{"percentage", "max-inbound-connection-percentage-per-source = unlimited", "1 to 100", 0},
	{"per source", "max-inbound-connection-per-source = 0", "or unlimited", 0},
	{"rate", "message-rate-limit = 0", "or unlimited", 0},
	{"rate source", "message-rate-source = user", "expected none or ip-address", 0},
	{"tarpit", "tarpit-interval = 11m", "from 0 to 10m", 0},
	{"size word", "size = maybe", "expected no, yes or without-value", 0},
	{"revocation", "revocation = never", "expected off, soft, hard or strict", 0},
	{"pin too short", "spki-pins = abcd", "64 hex digits, or sha256//", 0},
	{"pin too long", "spki-pins = " PIN_A "0", "64 hex digits, or sha256//", 0},
	{"pin not hex", "spki-pins = \"g" PIN_REST "\"", "64 hex digits, or sha256//", 0},
	{"pin of MD5", "spki-pins = \"md5//LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=\"",
		"64 hex digits, or sha256//", 0},
	{"pin padded wrongly",
		"spki-pins = \"sha256//LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCR=\"",
		"64 hex digits, or sha256//", 0},
	{"pin without padding",
		"spki-pins = \"sha256//LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ\"",
		"64 hex digits, or sha256//", 0},
	{"none is enabled", "enabled = no", "no receive-connector is enabled", 4},
	{"without bindings", "}\nreceive-connector other { send-connector = out",
		"\"other\" has no bindings", 6},
	{"to nobody", "}\nreceive-connector other { bindings = \"127.0.0.1:26\"",
		"delivers by proxy to nobody", 6},
	{"to one not enabled",
		"}\nsend-connector off { smart-hosts = \"127.0.0.1:9\" enabled = no }\n"
		"receive-connector other { bindings = \"127.0.0.1:26\"\nsend-connector = off",
		"send-connector \"off\" is not enabled (line 6)", 8},
	{"by the spaces of one not enabled",
		"}\nsend-connector off { address-spaces = \"*\" enabled = no }\n"
		"receive-connector other { bindings = \"127.0.0.1:26\"",
		"delivers by proxy to nobody", 7},
	{"to no one known",
		"}\nreceive-connector other { bindings = \"127.0.0.1:26\"\n"
		"send-connector = nobody",
		"expected the name of a send-connector", 7},
	{"same name",
		"}\nreceive-connector in { bindings = \"127.0.0.1:26\" send-connector = "
		"out",
		"a second receive-connector \"in\"", 6},
	{"odd name",
		"}\nreceive-connector \"a b\" { bindings = \"127.0.0.1:26\" "
		"send-connector = out",
		"without blanks", 6},
};

static void test_receive_mistakes(void **state)
{
	(void)state;
	check_mistakes(
		"# 1\nsend-connector out { smart-hosts = \"127.0.0.1:9\" }\n"
		"certificate c { chain = good.pem key = good.key }\n"
		"receive-connector in { bindings = \"127.0.0.1:2525\" send-connector = out\n",
		"}\n", 5, receive_rows, COUNT_OF(receive_rows));
}

static const struct mistake send_rows[] = {
	{"keyword of elsewhere", "bindings = \"127.0.0.1:1\"", "receive-connector only", 0},
	{"unresolved", "smart-hosts += nowhere.invalid", "which does not resolve", 0},
	{"unresolved in a list", "smart-hosts += {\"127.0.0.1:8\",\n\"nowhere.invalid\"}",
		"which does not resolve", 4},
	{"name in brackets", "smart-hosts += \"[localhost]\"", "which does not resolve", 0},
	{"bad host", "smart-hosts += \"a b\"", "expected HOST, HOST:PORT", 0},
	{"bad port", "smart-hosts += \"127.0.0.1:0\"", "expected HOST, HOST:PORT", 0},
	{"no brackets", "smart-hosts += \"2001:db8::1\"", "expected HOST, HOST:PORT", 0},
	{"loop", "smart-hosts += \"127.0.0.1:2525\"",
		"is our own receive-connector \"in\" (line 1)", 0},
	{"loop by wildcard", "smart-hosts += \"127.0.0.9:2526\"", "a loop, expected", 0},
	{"loop by IPv6", "smart-hosts += \"[::1]:2527\"", "a loop, expected", 0},
	{"source", "source-address = \"127.0.0.1:25\"", "without a port", 0},
	{"source", "source-address = \"[::1]:25\"", "without a port", 0},
	{"port twice", "port = 2525", "port with smart-hosts", 0},
	{"port", "}\nsend-connector other { port = 65536", "port is \"65536\"", 4},
	{"space without a dot", "address-spaces = \"*contoso.com\"",
		"address-spaces is \"*contoso.com\", expected \"*.contoso.com\"", 0},
	{"space with a star inside", "address-spaces = \"a.*.com\"", "\"*\" or \"--\"", 0},
	{"space of another type", "address-spaces = \"X400:c=us\"", "of the type SMTP", 0},
	{"space without a domain", "address-spaces = \"SMTP:\"", "\"*\" or \"--\"", 0},
	{"cost 0", "address-spaces = \"contoso.com;0\"", "a cost from 1 to 100", 0},
	{"cost 101", "address-spaces = \"contoso.com;101\"", "a cost from 1 to 100", 0},
	{"no cost", "address-spaces = \"contoso.com;\"", "a cost from 1 to 100", 0},
	{"cost and more", "address-spaces = \"contoso.com;1;2\"", "a cost from 1 to 100", 0},
	{"log to nowhere", "protocol-logging = verbose", "has nowhere to write to", 0},
	{"certificate", "certificate = x", "expected the name of a certificate", 0},
	{"no connections", "max-connections = 0", "from 1 to 65535", 0},
	{"impatience", "connect-timeout = 99ms", "from 100ms to 1h", 0},
	{"same name", "}\nsend-connector out { smart-hosts = \"127.0.0.1:9\"",
		"a second send-connector \"out\"", 4},
};

static const struct mistake level_rows[] = {
	{"both ways", "ignore-starttls = yes implicit-tls = yes", "expected one of them", 0},
	{"level, no TLS", "ignore-starttls = yes\ntls-auth-level = encryption-only",
		"tls-auth-level with ignore-starttls", 4},
	{"level unknown", "tls-auth-level = full", "domain-validation or fingerprint", 0},
	{"no anchors", "tls-auth-level = certificate-validation", "validates without trust-anchors",
		0},
	{"domain, no anchors", "tls-auth-level = domain-validation tls-domain = a.example",
		"validates without trust-anchors", 0},
	{"domain missing", "tls-auth-level = domain-validation trust-anchors = good.pem",
		"domain-validation of smart hosts without a name to find", 0},
	{"domain at no level", "tls-domain = a.example", "tls-domain at another level", 0},
	{"domain at another level",
		"tls-auth-level = certificate-validation trust-anchors = good.pem\n"
		"tls-domain = a.example",
		"tls-domain at another level", 4},
	{"domain with a star inside",
		"tls-auth-level = domain-validation trust-anchors = good.pem\n"
		"tls-domain = \"a.*.example\"",
		"expected a domain such as contoso.com or *.contoso.com", 4},
	{"level, no EHLO", "force-helo = yes\ntls-auth-level = encryption-only",
		"tls-auth-level with force-helo", 4},
	{"level, TLS at once", "tls-auth-level = none implicit-tls = yes",
		"tls-auth-level = none with implicit-tls", 0},
	{"fingerprint of nobody", "tls-auth-level = fingerprint", "without a key to know", 0},
};

static const struct mistake secure_rows[] = {
	{"secure, no TLS", "domain-secure = yes ignore-starttls = yes",
		"domain-secure with ignore-starttls", 0},
	{"secure, no EHLO", "domain-secure = yes force-helo = yes", "domain-secure with force-helo",
		0},
	{"secure, never TLS", "domain-secure = yes tls-auth-level = none",
		"domain-secure with tls-auth-level = none", 0},
	{"secure behind a front end", "frontend-proxy = yes\ndomain-secure = yes",
		"domain-secure with frontend-proxy", 4},
	{"no front end", "}\nsend-connector other { frontend-proxy = yes",
		"frontend-proxy without a front end", 4},
};

static void check_send_mistakes(const struct mistake *rows, size_t count)
{
	check_mistakes("receive-connector in { bindings = {\"127.0.0.1:2525\", \"0.0.0.0:2526\", "
		       "\"[::]:2527\"} send-connector = out }\n"
		       "send-connector out { smart-hosts = \"127.0.0.1:9\"\n",
		"}\n", 3, rows, count);
}

static void test_send_mistakes(void **state)
{
	(void)state;
	check_send_mistakes(send_rows, COUNT_OF(send_rows));
}

static void test_row_28_invalid_levels(void **state)
{
	(void)state;
	check_send_mistakes(level_rows, COUNT_OF(level_rows));
}

static void test_row_33_secure_behind_a_front_end(void **state)
{
	(void)state;
	check_send_mistakes(secure_rows, COUNT_OF(secure_rows));
}

static const struct mistake other_rows[] = {
	{"unknown at the top", "colour = red", "outside of a section", 0},
	{"keyword at the top", "tls = none", "outside of a section", 0},
	{"workers", "transport { workers = 1025 }", "from 0 to 1024", 0},
	{"sessions", "transport { max-sessions = unlimited }", "from 1 to 15000", 0},
	{"user", "transport { user = \"no-such-user\" }", "does not know", 0},
	{"log level", "transport { log-level = loud }", "expected info or debug", 0},
	{"drain", "transport { drain-timeout = 2h }", "from 0 to 1h", 0},
	{"fqdn", "transport { fqdn = \"a..b\" }", "expected a host name", 0},
	{"two transports", "transport { }\ntransport { }", "a second transport section", 4},
	{"domain", "transport { accepted-domains = {a.example, \"b..example\"} }",
		"accepted-domains is \"b..example\", expected a domain", 0},
	{"domain with a star", "transport { accepted-domains = \"*example.com\" }",
		"expected a domain such as contoso.com or *.contoso.com", 0},
	{"store", "transport { certificate-store = nowhere }", "nowhere\", which cannot be read",
		0},
	{"store", "transport { certificate-store = good.pem }", "which is not a folder", 0},
	{"log folder", "transport { protocol-log-folder = good.pem }", "not a folder", 0},
	{"log files", "transport { protocol-log-max-file-size = 251MB }", "is above", 0},
	{"name server", "transport { dns-servers = {\"192.0.2.1\", ns.example} }",
		"dns-servers is \"ns.example\", expected the address", 0},
	{"no key of a server", "internal-server s { }", "\"s\" has no spki-pins", 0},
	{"same server",
		"internal-server s { spki-pins = " PIN_A " }\n"
		"internal-server s { spki-pins = " PIN_A " }",
		"a second internal-server \"s\"", 4},
	{"keyword of a partner", "transport { domains = a.example }", "in partner only", 0},
	{"key missing", "certificate c { chain = good.pem }", "\"c\" has no key", 0},
	{"chain unreadable", "certificate c { chain = x.pem\nkey = good.key }",
		"which cannot be read (No such file", 0},
	{"no name", "certificate { chain = good.pem }", "missing title", 0},
	{"empty name", "certificate \"\" { chain = good.pem key = good.key }", "without blanks", 0},
	{"brace missing", "transport {\nfqdn = a.example", "the section is never closed", 0},
	{"brace too many", "transport { } }", "closes nothing", 0},
	{"string open", "transport { fqdn = \"a.example }", "the string is not closed", 0},
	{"string open", "transport { fqdn = 'a.example\n}", "string is not closed", 0},
	{"comment open", "/* a\nb", "the comment is never closed", 0},
	{"octal", "transport { fqdn = \"\\101\" }", "the character itself", 0},
	{"environment", "transport { fqdn = \"${HOME}\" }", "the environment is not", 0},
	{"environment", "transport { fqdn = ${HOME} }", "the environment is not", 0},
	{"equal sign missing", "/* a\n */ transport { // b\nfqdn a.example }",
		"missing equal sign after option 'fqdn'", 5},
	{"no value", "transport { fqdn = }", "unexpected token '}'", 0},
	{"path as a keyword", "transport { \"a|b\" = 1 }", "expected KEYWORD = VALUE", 0},
};

/* A subdomain is its own entry, so a wildcard is none. */
static const struct mistake partner_rows[] = {
	{"partner without domains", "partner p { trust-anchors = good.pem }", "no domains", 0},
	{"partner without proof", "partner p { domains = p.example }", "cannot prove itself", 0},
	{"partner with a wildcard",
		"partner p { domains = {a.example,\n\"*.p.example\"} trust-anchors = good.pem }",
		"list each subdomain", 4},
	{"partner with a star", "partner p { domains = \"*\" trust-anchors = good.pem }",
		"list each subdomain", 0},
	{"our own domain",
		"transport { accepted-domains = \"*.contoso.com\" }\n"
		"partner p { trust-anchors = good.pem domains = {p.example,\nHR.Contoso.com.} }",
		"domain \"hr.contoso.com\" of partner \"p\" is one of accepted-domains", 5},
	{"domain twice", "partner p { trust-anchors = good.pem domains = {a.example, A.example} }",
		"belongs to partner \"p\" already (line 3)", 0},
	{"domain of another",
		"partner p { trust-anchors = good.pem domains = a.example }\n"
		"partner q { trust-anchors = good.pem domains = {b.example,\na.example} }",
		"domain \"a.example\" of partner \"q\" belongs to partner \"p\" already (line 3)",
		5},
	{"lists without anchors",
		"partner p { domains = p.example spki-pins = " PIN_A "\ncrl-files = good.pem }",
		"crl-files without trust-anchors", 4},
};

static void test_other_mistakes(void **state)
{
	(void)state;
	/* An open string or section takes what follows with it, so nothing follows. */
	check_mistakes(SMALLEST, "", 3, other_rows, COUNT_OF(other_rows));
}

static void test_row_19_lists_are_exact(void **state)
{
	(void)state;
	check_mistakes(SMALLEST, "", 3, partner_rows, COUNT_OF(partner_rows));
}

static void test_no_receive_connector(void **state)
{
	static const char *const texts[] = {
		"", "\n", "# nothing\n", "send-connector out { smart-hosts = \"127.0.0.1\" }\n"};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		struct policy *policy = NULL;

		assert_int_equal(load_text(texts[i], &policy), -EINVAL);
		assert_true(said_at(1, "no receive-connector"));
		assert_int_equal(said_lines(), 1);
	}
}

/* Every mistake of a file in one go, by line; unknown keywords do not end it. */
static void test_all_at_once(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(load_text("receive-connector in {\n"
				   " colour = red\n"
				   " bindings = {\"127.0.0.1:2525\",\n"
				   "  \"nowhere:25\"}\n"
				   " tls = always\n"
				   " shape = {round,\n"
				   "  square}\n"
				   " colour = blue\n"
				   " send-connector = nobody\n"
				   "}\n"
				   "send-connector out { smart-hosts = \"127.0.0.1:2525\"\n"
				   " taste = sweet tls-domain = x.example\n"
				   "}\n"
				   "certificate c { }\n",
				 &policy),
		-EINVAL);
	assert_true(said_at(2, "colour"));
	assert_true(said_at(4, "nowhere:25"));
	assert_true(said_at(5, "tls is \"always\""));
	assert_true(said_at(6, "shape"));
	assert_true(said_at(8, "colour"));
	assert_true(said_at(9, "send-connector is \"nobody\""));
	assert_true(said_at(11, "a loop"));
	assert_true(said_at(12, "taste"));
	assert_true(said_at(12, "tls-domain"));
	assert_true(said_at(14, "no chain"));
	assert_true(said_at(14, "no key"));
	assert_non_null(strstr(strstr(said, ":2: "), ":14: "));
	/* shape and its second value, at another line, are two messages. */
	assert_int_equal(said_lines(), 12);
}

/* Comments of every kind leave the lines as they are. */
static void test_comments(void **state)
{
	struct policy *policy = NULL;

	(void)state;
	assert_int_equal(load_text("# one \" { /*\n"
				   "/* two }\n"
				   " * three */ // four {\n"
				   "//five\n" SMALLEST "#last",
				 &policy),
		0);
	assert_int_equal(policy->receive_connectors[0].line, 5);
	policy_destroy(&policy);
	assert_int_equal(load_text("\r\n" SMALLEST "certificate a//b { chain = good.pem\r\n"
				   "key = \"good.key\" } # \"\r\n",
				 &policy),
		0);
	assert_string_equal(policy->certificates[0].name, "a//b");
	policy_destroy(&policy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_receive_mistakes),
		cmocka_unit_test(test_send_mistakes),
		cmocka_unit_test(test_row_28_invalid_levels),
		cmocka_unit_test(test_row_33_secure_behind_a_front_end),
		cmocka_unit_test(test_other_mistakes),
		cmocka_unit_test(test_row_19_lists_are_exact),
		cmocka_unit_test(test_no_receive_connector),
		cmocka_unit_test(test_all_at_once),
		cmocka_unit_test(test_comments),
	};

	return cmocka_run_group_tests_name(
		"config mistakes", tests, fixture_setup, fixture_teardown);
}
