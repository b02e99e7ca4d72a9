# SPDX-License-Identifier: Apache-2.0
"""The rows of the capability table about receiving: 1 to 7 and 10 to 22."""

import re
import socket
import subprocess

import pytest

from conftest import PKI, PATIENCE, free_port
from lab import (BODY, Client, certificate, check, ctl, inside, lab, partner, receive,  # noqa: F401
                 secure, section, transport)

CHAIN = "454 4.7.5 Certificate validation failure: "
LISTED = "treyresearch.test"


def simple(lab, *sections, port=None, hop=None, **keywords):
    """A relay with one connector and a next hop in clear text: relay, port, hop."""
    port, hop = port or free_port(), hop or lab.server(how="clear")
    relay = lab.relay(transport(), *sections, receive("in", port, **keywords), inside(hop.port))
    return relay, port, hop


def secured(lab, *sections, trey=None, extra=None, **keywords):
    """A relay with one domain-secure connector for the partner treyresearch.test."""
    port, hop = free_port(), lab.server(how="clear")
    trey = {"crl_files": [PKI / "treyresearch-ca.crl"], **(trey or {})}
    relay = lab.relay(transport(**(extra or {})), certificate(), partner(**trey), *sections,
                      secure("partners", port, **keywords), inside(hop.port))
    return relay, port, hop


# ---- rows 1 to 7: connectors -----------------------------------------------------------------

MATCHES = [  # who is served by which of the connectors below
    ("127.8.1.75", "one"), ("127.8.1.100", "net"), ("127.8.1.0", "net"), ("127.8.1.255", "net"),
    ("127.8.2.75", "wide"), ("127.7.255.255", "wide"), ("127.8.0.255", "wide"),
    ("127.0.0.1", "wide"),
]


def named(name, port, **keywords):
    return receive(name, port, fqdn=f"{name}.adatum.test", **keywords)


def test_row_01_the_most_specific_range_wins(lab):
    port, hop = free_port(), lab.server(how="clear")
    lab.relay(transport(), inside(hop.port),
              named("wide", port, remote_ip_ranges=["0.0.0.0-255.255.255.255"]),
              named("net", port, remote_ip_ranges=["127.8.1.0-127.8.1.255"]),
              named("one", port, remote_ip_ranges=["127.8.1.75"]))
    for source, name in MATCHES:
        with Client(port, source=source) as client:
            assert f"220 {name}.adatum.test" in client.greeting, source


def test_row_01_an_exact_binding_beats_the_wildcard_and_nobody_is_not_served(lab):
    port, hop = free_port(), lab.server(how="clear")
    lab.relay(transport(), inside(hop.port),
              named("any", port, bindings=[f"0.0.0.0:{port}"], remote_ip_ranges=["127.8.0.0/16"]),
              named("exact", port, remote_ip_ranges=["127.8.1.1/24"]))
    for host, name in [("127.0.0.1", "exact"), ("127.0.0.2", "any")]:
        with Client(port, host=host, source="127.8.1.9") as client:
            assert name in client.greeting
    with Client(port, source="127.9.9.9", greeted=False) as client:
        assert client.reply() == "", "no range of the binding holds this peer"


def test_row_01_ipv6(lab):
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"no IPv6 on loopback: {error}")
    port, hop = free_port(), lab.server(how="clear")
    lab.relay(transport(), inside(hop.port),
              named("wide6", port, bindings=[f"[::1]:{port}"], remote_ip_ranges=["::/0"]),
              named("one6", port, bindings=[f"[::1]:{port}"], remote_ip_ranges=["::1"]))
    with Client(port, host="::1") as client:
        assert "one6" in client.greeting


def test_row_01_the_documented_example(lab):
    folder = lab.place("match")
    config = folder / "postern.conf"
    config.write_text(transport() + inside(2526) + "".join(
        receive(name, 2525, bindings=["0.0.0.0:2525"], remote_ip_ranges=[text]) for name, text in [
            ("default", "0.0.0.0-255.255.255.255"), ("hosts", "192.168.1.0-192.168.1.255"),
            ("printer", "192.168.1.75")]))
    for source, name in [("192.168.1.75", "printer"), ("192.168.1.100", "hosts"),
                         ("192.0.2.1", "default")]:
        said = ctl("--config", config, "connector", "match", "--from", source, "--to",
                   "192.0.2.25:2525", status=0).stdout
        assert name in said and not [other for other in ("default", "hosts", "printer")
                                     if other != name and re.search(rf"^{other}\b", said)], said


@pytest.mark.parametrize("first,second", [
    ("10.0.0.0-10.0.0.9", "10.0.0.5-10.0.0.15"), ("10.0.0.0/24", "10.0.0.1/24"),
    ("10.0.0.1", "10.0.0.1"), ("2001:db8::1-2001:db8::9", "2001:db8::5-2001:db8::f"), (None, None)])
def test_row_02_overlaps_are_refused(lab, first, second):
    words = [{"remote_ip_ranges": [text]} if text else {} for text in (first, second)]
    status, said = check(transport() + inside(2526) + receive("alpha", 2525, **words[0]) +
                         receive("beta", 2525, **words[1]), lab.place("overlap"))
    assert status == 2, said
    assert any("alpha" in line and "beta" in line for line in said.splitlines()), said


def test_row_02_nested_ranges_are_allowed(lab):
    status, said = check(transport() + inside(2526) +
                         receive("alpha", 2525, remote_ip_ranges=["10.0.0.0/8"]) +
                         receive("beta", 2525, remote_ip_ranges=["10.1.0.0/16"]),
                         lab.place("nested"))
    assert status == 0, said


def test_row_03_an_absent_address_does_not_stop_the_others(lab):
    port, hop = free_port(), lab.server(how="clear")
    relay = lab.relay(transport(), inside(hop.port), receive("good", port),
                      receive("absent", port, bindings=[f"203.0.113.1:{port}"]))
    assert re.search(r"203\.0\.113\.1", relay.log())
    assert lab.opened(port, tls=False).send().startswith("250")


def test_row_04_the_partner_template(lab):
    relay, port, hop = secured(lab, permission_groups=None)
    client = lab.opened(port, tls=False)
    assert "STARTTLS" in client.keywords
    assert client.mail("a@unlisted.test").startswith("530 5.7.1 Client was not authenticated")
    client = lab.opened(port, "treyresearch")
    assert client.send("a@treyresearch.test").startswith("250")
    assert b"x-domain-secure=pass" in hop.messages[-1].body
    assert relay.refusals(why="not-authenticated"), relay.log()


def plain(lab, **keywords):
    """A connector that has nothing but its defaults."""
    return simple(lab, **{**dict.fromkeys(
        ["tarpit_interval", "message_rate_limit", "max_inbound_connection_per_source",
         "max_inbound_connection_percentage_per_source"]), **keywords})


def test_row_05_default_sizes_and_recipients(lab):
    _, port, _ = plain(lab, tarpit_interval="0s")
    client = lab.client(port)
    assert "SIZE 37748736" in client.say("EHLO probe.test", 250)
    client.say("MAIL FROM:<a@unlisted.test>", 250)
    for number in range(200):
        client.say(f"RCPT TO:<b{number}@adatum.test>", 250)
    assert re.match(r"45[0-9] 4\.5\.3", client.say("RCPT TO:<late@adatum.test>"))


def test_row_05_default_protocol_errors(lab):
    _, port, _ = plain(lab, tarpit_interval="0s")
    client = lab.opened(port, tls=False)
    replies = []
    while (reply := client.say("NONSENSE")) and len(replies) < 20:
        replies.append(reply)
        if reply.startswith("421"):
            break
    assert replies[-1].startswith("421") and len(replies) in (5, 6), replies
    assert client.reply() == ""


def test_row_05_default_connections_of_a_source(lab):
    _, port, _ = plain(lab)
    held = [lab.client(port, source="127.8.1.1") for _ in range(20)]
    assert all(client.greeting.startswith("220") for client in held)
    assert lab.client(port, source="127.8.1.1").greeting.startswith("421 4.3.2 ")
    assert lab.client(port, source="127.8.1.2").greeting.startswith("220 "), "another source"


def test_row_05_default_message_rate(lab):
    _, port, hop = plain(lab, connection_timeout="4m", max_protocol_errors="unlimited")
    client = lab.opened(port, tls=False, source="127.8.1.1")
    for number in range(600):
        reply = client.mail("a@unlisted.test")
        assert reply.startswith("250"), (number, reply)
        client.say("RSET", 250)
    reply = client.send("a@unlisted.test")
    assert reply.startswith("421 4.4.2 Message submission rate for this client has exceeded")
    assert lab.opened(port, tls=False, source="127.8.1.2").send("a@unlisted.test").startswith("250")
    assert len(hop.messages) == 1


def test_row_05_default_tarpit(lab):
    _, port, _ = plain(lab)
    client = lab.opened(port, tls=False)
    client.write("RCPT TO:<b@adatum.test>\r\n")
    assert not client.has_answer(3), "an error reply waits 5 seconds"
    assert client.reply().startswith("503")


SWITCHES = {"PIPELINING": "pipelining", "8BITMIME": "eight_bit_mime", "SMTPUTF8": "smtputf8",
            "CHUNKING": "chunking", "BINARYMIME": "binary_mime", "DSN": "dsn",
            "ENHANCEDSTATUSCODES": "enhanced_status_codes", "SIZE": "size"}
OFFERED = set(SWITCHES) | {"HELP"}


def test_row_06_ehlo_before_and_after_tls(lab):
    _, port, _ = simple(lab, certificate(), type="internet", certificate="edge")
    client = lab.opened(port, tls=False)
    before = client.keywords
    assert before == OFFERED | {"STARTTLS"}, "and no X- verb"
    client.starttls()
    assert client.keywords == before - {"STARTTLS"}


@pytest.mark.parametrize("keyword", SWITCHES)
def test_row_06_each_switch_takes_its_keyword_away(lab, keyword):
    words = {SWITCHES[keyword]: False}
    if keyword == "CHUNKING":
        words["binary_mime"] = False
    _, port, _ = simple(lab, **words)
    gone = {keyword} | ({"BINARYMIME"} if keyword == "CHUNKING" else set())
    assert lab.opened(port, tls=False).keywords == OFFERED - gone


def test_row_06_size_without_a_value(lab):
    _, port, _ = simple(lab, size="without-value")
    said = lab.client(port).say("EHLO probe.test", 250)
    assert re.search(r"(?m)^250[ -]SIZE$", said), said


@pytest.mark.parametrize("words,sections,offered,event", [
    ({"tls": "none"}, (certificate(),), False, False),
    ({"tls": "starttls", "fqdn": "mx.adatum.test"}, (certificate(),), True, False),
    ({"tls": "starttls", "fqdn": "mx.elsewhere.test"}, (certificate(),), False, True),
    ({"tls": "starttls"}, (), False, True)])
def test_row_07_starttls_needs_a_matching_certificate(lab, words, sections, offered, event):
    relay, port, hop = simple(lab, *sections, **words)
    client = lab.opened(port, tls=False)
    assert ("STARTTLS" in client.keywords) == offered
    assert bool(relay.has_event_id(12014)) == event, relay.log()
    if not offered:
        assert client.say("STARTTLS")[0] == "5"
        assert client.send("a@unlisted.test").startswith("250"), "it works in clear text"
        assert len(hop.messages) == 1


# ---- rows 10 to 12: STARTTLS -----------------------------------------------------------------

def test_row_10_require_tls(lab):
    relay, port, hop = simple(lab, certificate(), tls="starttls", certificate="edge",
                              require_tls=True)
    client = lab.opened(port, tls=False)
    client.say("NOOP", 250)
    assert client.mail("a@unlisted.test") == "451 5.7.3 STARTTLS is required to send mail"
    assert hop.mails == 0 and relay.counter("tls_required_refused") == 1
    client.starttls()
    assert client.send("a@unlisted.test").startswith("250")
    assert lab.opened(port, tls=False).quit().startswith("221")


def test_row_11_starttls_forgets_what_came_before(lab):
    relay, port, hop = secured(lab)
    client = lab.opened(port, tls=False)
    client.write("STARTTLS\r\nMAIL FROM:<a@unlisted.test>\r\nRCPT TO:<b@adatum.test>\r\n")
    while reply := client.reply():
        assert not reply.startswith("250"), reply
    assert hop.mails == 0 and relay.counter("tls_plaintext_injected") == 1
    client = lab.opened(port, tls=False)
    client.starttls("treyresearch", again=False)
    assert client.mail("a@treyresearch.test").startswith("503"), "EHLO is forgotten"


def test_row_12_the_certificate_is_asked_for_and_may_be_missing(lab):
    _, port, hop = secured(lab)
    script = ("EHLO probe.test\nMAIL FROM:<a@unlisted.test>\nRCPT TO:<b@adatum.test>\nDATA\n"
              "Subject: no certificate\n\ntext\n.\nQUIT\n")
    result = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-starttls", "smtp", "-crlf",
         "-quiet", "-ign_eof", "-msg", "-CAfile", PKI / "adatum-ca.pem", "-verify_return_error"],
        input=script.encode(), capture_output=True, timeout=PATIENCE, check=False)
    said = result.stdout.decode(errors="replace")
    assert "CertificateRequest" in said, "the server asked"
    assert re.search(r"(?m)^250 2\.6\.0 ", said), said
    assert b"x-domain-secure=pass" not in hop.messages[0].body


# ---- rows 13 to 17: r2 to r6 -----------------------------------------------------------------

def test_row_13_a_listed_sender_in_clear(lab):
    relay, port, hop = secured(lab)
    client = lab.opened(port, tls=False)
    for sender in ("a@treyresearch.test", "a@TreyResearch.TEST", "a@treyresearch.test."):
        reply = client.mail(sender)
        if sender.endswith(".") and reply.startswith("5"):
            continue  # no address by RFC 5321; what matters is that it does not pass
        assert reply == ("451 4.7.3 Mail from treyresearch.test needs mutual TLS: "
                         "STARTTLS was not used")
    assert hop.mails == 0 and relay.counter("secure_refused_no_tls") >= 2
    refused = relay.refusals(event_id="11012")
    assert refused[0]["domain"] == LISTED and refused[0]["partner"] == "trey"


def test_row_14_a_listed_sender_without_a_certificate(lab):
    relay, port, hop = secured(lab)
    client = lab.opened(port)
    assert client.mail("a@treyresearch.test") == CHAIN + "EmptyCertificate"
    assert hop.mails == 0 and relay.counter("secure_refused_no_certificate") == 1
    assert relay.refusals(status="EmptyCertificate", partner="trey")


BAD_CHAINS = {"treyresearch-other": "UntrustedRoot", "treyresearch-self": "UntrustedRoot",
              "adatum": "UntrustedRoot", "treyresearch-expired": "Expired",
              "treyresearch-future": "NotYetValid", "treyresearch-revoked": "Revoked",
              "treyresearch-eku": "BadUsage", "treyresearch-server": "BadUsage",
              "treyresearch-weak": "WeakKey", "treyresearch-sha1": "WeakKey"}


def test_row_15_each_bad_chain_has_its_own_word(lab):
    relay, port, hop = secured(lab)
    for count, (leaf, word) in enumerate(BAD_CHAINS.items(), 1):
        client = lab.opened(port, leaf)
        assert client.mail("a@treyresearch.test") == CHAIN + word, leaf
        assert relay.refusals()[-1]["status"] == word
        assert relay.counter("secure_refused_chain") == count
        assert client.send("a@unlisted.test").startswith("250"), "others are not its business"
    assert all(b"@treyresearch" not in message.body for message in hop.messages)
    assert hop.mails == len(BAD_CHAINS)


def test_row_15_refusals_can_be_permanent(lab):
    _, port, _ = secured(lab, permanent_tls_refusals=True)
    assert lab.opened(port, tls=False).mail("a@treyresearch.test").startswith("550 5.7.3 ")
    reply = lab.opened(port, "treyresearch-expired").mail("a@treyresearch.test")
    assert reply == "550 5.7.5 Certificate validation failure: Expired"


def northwind(**keywords):
    return partner("northwind", ["northwind.test"],
                   **{"trust_anchors": PKI / "northwind-ca.pem", **keywords})


def test_row_16_the_certificate_of_another_partner(lab):
    relay, port, hop = secured(lab, northwind())
    for leaf in ("northwind", "treyresearch-name"):
        client = lab.opened(port, leaf)
        assert client.mail("a@treyresearch.test") == CHAIN + "SubjectMismatch", leaf
    assert len(relay.refusals(event_id="11015")) == 2
    assert relay.counter("secure_refused_name") == 2 and hop.mails == 0
    assert lab.opened(port, "northwind").send("a@northwind.test").startswith("250")


def test_row_16_an_anchor_is_useless_for_another_partner(lab):
    forged = lab.authority("northwind-ca").leaf("forged", names=["treyresearch.test"])
    both = lab.authority("northwind-ca").leaf("both", names=["treyresearch.test", "northwind.test"])
    _, port, hop = secured(lab, northwind())
    assert lab.opened(port, forged).mail("a@treyresearch.test") == CHAIN + "UntrustedRoot"
    assert lab.opened(port, both).mail("a@treyresearch.test").startswith("454 4.7.5 ")
    assert hop.mails == 0
    assert lab.opened(port, both).send("a@northwind.test").startswith("250")


def test_row_17_success_is_stamped(lab):
    relay, port, hop = secured(lab)
    client = lab.opened(port, "treyresearch")
    assert client.send("a@treyresearch.test").startswith("250 2.6.0 ")
    body = hop.messages[0].body.decode()
    header = re.sub(r"\r\n[ \t]+", " ", body.split("\r\n\r\n")[0])
    stamp = re.search(r"(?m)^Authentication-Results: mx\.adatum\.test; (.*)", header)[1]
    assert "x-domain-secure=pass" in stamp and LISTED in stamp
    received = re.search(r"(?m)^Received: (.*)", header)[1]
    assert "TLS" in received and LISTED in received, received
    assert "X-MS-Exchange-Organization" not in body, "this next hop is not trusted"
    assert len(relay.events("message")) == 1


def test_row_17_exchange_stamps_for_a_trusted_next_hop(lab):
    port, hop = free_port(), lab.server(how="clear")
    lab.relay(transport(), certificate(), partner(), secure("partners", port),
              inside(hop.port, trusted_next_hop=True))
    assert lab.opened(port, "treyresearch").send("a@treyresearch.test").startswith("250")
    assert lab.opened(port).send("a@unlisted.test").startswith("250")
    proved, stranger = (message.body.decode() for message in hop.messages)
    assert "\r\nX-MS-Exchange-Organization-AuthDomain: treyresearch.test\r\n" in proved
    assert "\r\nX-MS-Exchange-Organization-AuthAs: Partner\r\n" in proved
    assert "\r\nX-MS-Exchange-Organization-AuthSource: mx.adatum.test\r\n" in proved
    assert "\r\nX-MS-Exchange-Organization-AuthAs: Anonymous\r\n" in stranger
    assert "AuthDomain" not in stranger


# ---- rows 19 to 22 ---------------------------------------------------------------------------

def test_row_19_lists_are_exact(lab):
    _, port, hop = secured(lab)
    client = lab.opened(port, tls=False)
    for sender in ("a@sub.treyresearch.test", "a@xtreyresearch.test", "a@test"):
        assert client.send(sender).startswith("250"), sender
    assert all(b"x-domain-secure=pass" not in message.body for message in hop.messages)


@pytest.mark.parametrize("domain", ["*.treyresearch.test", "*", "treyresearch.*", "[192.0.2.1]"])
def test_row_19_a_wildcard_is_refused_at_load(lab, domain):
    status, said = check(transport() + certificate() + inside(2526) + partner(domains=[domain]) +
                         secure("partners", 2525), lab.place("wildcard"))
    assert status == 2 and domain in said, said


def test_row_20_an_unlisted_sender(lab):
    relay, port, hop = secured(lab)
    for client in (lab.opened(port, tls=False), lab.opened(port), lab.opened(port, "other")):
        assert client.send("a@unlisted.test").startswith("250")
    assert all(b"x-domain-secure=pass" not in message.body for message in hop.messages)
    assert len(hop.messages) == 3 and not relay.refusals()


@pytest.mark.parametrize("how", [{"tls": False}, {}, {"cert": "other"}])
def test_row_20_an_unlisted_sender_where_only_partners_may(lab, how):
    _, port, hop = secured(lab, permission_groups=["partners"])
    client = lab.opened(port, **how)
    assert client.mail("a@unlisted.test") == "530 5.7.1 Client was not authenticated"
    assert hop.mails == 0


def test_row_20_a_partner_may_not_be_us_nor_relay(lab):
    relay, port, hop = secured(lab, extra={"accepted_domains": ["adatum.test"]})
    client = lab.opened(port, "treyresearch")
    assert client.mail("a@adatum.test") == "550 5.7.1 Sender domain is ours"
    assert client.send("a@treyresearch.test", "b@elsewhere.test") == "550 5.7.1 Unable to relay"
    client.say("RSET", 250)
    assert client.send("a@treyresearch.test").startswith("250")
    assert len(hop.messages) == 1 and relay.refusals()


def test_row_21_the_null_sender(lab):
    _, port, hop = secured(lab)
    assert lab.opened(port, "treyresearch").send("").startswith("250")
    assert lab.opened(port, "treyresearch-expired").send("").startswith("250")
    assert lab.opened(port, tls=False).send("").startswith("250")
    proved, expired, clear = (message.body for message in hop.messages)
    assert b"x-domain-secure=pass" in proved and b"treyresearch.test" in proved
    assert b"x-domain-secure=pass" not in expired + clear


def test_row_21_the_null_sender_where_only_partners_may(lab):
    _, port, hop = secured(lab, permission_groups=["partners"])
    assert lab.opened(port, "treyresearch").send("").startswith("250")
    for client in (lab.opened(port, "treyresearch-expired"), lab.opened(port, tls=False)):
        assert client.mail("") == "530 5.7.1 Client was not authenticated"
    assert b"x-domain-secure=pass" in hop.messages[0].body and hop.mails == 1


FORGED = ("X-MS-Exchange-Organization-AuthAs: Internal\r\n"
          "x-ms-exchange-organization-authdomain : treyresearch.test\r\n"
          "X-MS-Exchange-Forest-Language:\r\n en\r\n\tde\r\n"
          "X-Postern-Stamp: yes\r\n"
          "Authentication-Results: MX.adatum.test; x-domain-secure=pass\r\n"
          "Authentication-Results: (a comment) mx.adatum.test 1;\r\n dkim=pass\r\n")
KEPT = ("Received: from a.test by b.test; Sat, 21 Nov 2026 00:00:00 +0000\r\n"
        "X-MS-Exchange-Other: stays\r\nAuthentication-Results: mx.elsewhere.test; dkim=pass\r\n"
        "X-MS-Exchange-Organizations: another name\r\nSubject: odd\r\n\tfolded\r\nx:y\r\n")


def test_row_22_forged_stamps_are_removed_and_all_else_is_kept(lab):
    _, port, hop = secured(lab)
    first = "Received: from first.test by second.test; now\r\n"
    text = "\r\nX-MS-Exchange-Organization-AuthAs: in the body\r\n.dot\r\n"
    client = lab.opened(port, "treyresearch")
    body = (first + FORGED + KEPT + text).replace("\r\n.", "\r\n..")
    assert client.send("a@treyresearch.test", body=body).startswith("250")
    got = hop.messages[0].body.decode()
    at = got.index("Received: from first.test")
    assert got[at:] == first + KEPT + text
    assert "Internal" not in got[:at] and "X-Postern-Stamp" not in got[:at]
