# SPDX-License-Identifier: Apache-2.0
"""The rows of the capability table about sending: 23 to 29, 31 and 33."""

import re
import ssl

import pytest

from conftest import PATIENCE, PKI, free_port, wait_for
from lab import (BODY, Server, certificate, check, lab, partner, receive, section,  # noqa: F401
                 send, transport)
from lab_pki import spki

CHAIN = "454 4.7.5 Certificate validation failure: "
STAMP = "X-MS-Exchange-Organization-Lab: kept?\r\nX-MS-Exchange-Forest-Lab: kept?\r\n"


def der(leaf):
    """The first certificate of a chain file."""
    end = "-----END CERTIFICATE-----\n"
    return ssl.PEM_cert_to_DER_cert((PKI / f"{leaf}.pem").read_text().split(end)[0] + end)


# A session of one of our own servers, which may send anything anywhere.
OURS = {"external_authoritative": True, "permission_groups": ["internal"]}


def routed(lab, *sections, door=None, **keywords):
    """A relay whose receive connector names no send connector: relay, port."""
    port = free_port()
    relay = lab.relay(transport(**keywords), certificate(),
                      receive("in", port, send_connector=None, **(door or {})), *sections)
    return relay, port


def direct(lab, hop_port, *sections, extra=None, **keywords):
    """A relay with one send connector to that port: relay, port."""
    port = free_port()
    keywords = {"certificate": "edge", **keywords}
    relay = lab.relay(transport(**(extra or {})), certificate(), *sections,
                      receive("in", port, send_connector="out"), send("out", hop_port, **keywords))
    return relay, port


# ---- rows 23 and 24 --------------------------------------------------------------------------

def test_row_23_organization_headers_go_to_a_trusted_next_hop_only(lab):
    near, far = lab.server(how="clear"), lab.server(how="clear")
    out = [send("near", near.port, address_spaces=["near.test"], trusted_next_hop=True,
                tls_auth_level="none"),
           send("far", far.port, address_spaces=["*"], tls_auth_level="none")]
    relay, internal = routed(lab, *out, door=OURS)
    _, anonymous = routed(lab, *out)
    fields = STAMP + "Received: from a by b; now\r\nX-Other: stays\r\n" + BODY
    for entry in (internal, anonymous):
        for to in ("b@near.test", "b@far.test"):
            client = lab.opened(entry, tls=False)
            assert client.send("a@adatum.test", to, fields).startswith("250"), relay.log()
    kept, near_removed = (message.body.decode() for message in near.messages)
    assert STAMP.rstrip() in kept, "from one of ours, to one of ours"
    for body in [near_removed] + [message.body.decode() for message in far.messages]:
        assert "Organization-Lab" not in body and "Forest-Lab" not in body
    for message in near.messages + far.messages:
        header, _, text = message.body.decode().partition("\r\n\r\n")
        assert "\r\nReceived: from a by b; now\r\nX-Other: stays\r\nSubject: lab" in header
        assert text == "text\r\n"


# Connector: its address spaces. They are written in an order that helps nobody.
SPACES = {
    "z-any": ["*"], "sub": ["*.contoso.test;5"], "exact": ["SMTP:contoso.test;50"],
    "deep": ["*.mail.contoso.test;100"], "cheap": ["fabrikam.test;1"],
    "dear": ["fabrikam.test;2"], "tie-b": ["litware.test;3"], "tie-a": ["litware.test;3"],
    "ours": ["--"], "off": ["disabled.test"],
}
ROUTES = [
    ("contoso.test", "exact"), ("CONTOSO.test", "exact"), ("a.contoso.test", "sub"),
    ("b.a.contoso.test", "sub"), ("x.mail.contoso.test", "deep"), ("mail.contoso.test", "deep"),
    ("xcontoso.test", "z-any"), ("fabrikam.test", "cheap"), ("litware.test", "tie-a"),
    ("a.litware.test", "z-any"), ("adatum.test", "ours"), ("disabled.test", "z-any"),
]


def test_row_24_selection_order(lab):
    servers = {name: lab.server(how="clear") for name in SPACES}
    _, port = routed(lab, *[send(name, servers[name].port, address_spaces=spaces,
                                 tls_auth_level="none", enabled=name != "off")
                            for name, spaces in SPACES.items()], door=OURS,
                     accepted_domains=["adatum.test"])
    client = lab.opened(port, tls=False)
    for domain, name in ROUTES:
        before = {other: len(server.messages) for other, server in servers.items()}
        reply = client.send("a@adatum.test", f"b@{domain}")
        assert reply.startswith("250"), (domain, reply)
        changed = [other for other, server in servers.items()
                   if len(server.messages) != before[other]]
        assert changed == [name], domain


def test_row_24_size_and_unreachable(lab):
    small, large = lab.server(how="clear"), lab.server(how="clear")
    _, port = routed(
        lab, send("small", small.port, address_spaces=["contoso.test"], max_message_size="64KB",
                  tls_auth_level="none"),
        send("large", large.port, address_spaces=["*.test"], tls_auth_level="none"))
    client = lab.opened(port, tls=False)
    assert client.send("a@unlisted.test", "b@contoso.test").startswith("250")
    assert (len(small.messages), len(large.messages)) == (1, 0)
    client.say("MAIL FROM:<a@unlisted.test> SIZE=100000", 250)
    client.say("RCPT TO:<b@contoso.test>", 250)
    client.say("DATA", 354)
    client.say(BODY + ".", 250)
    assert (len(small.messages), len(large.messages)) == (1, 1), "too large for the first"
    reply = client.send("a@unlisted.test", "b@nowhere.invalid")
    assert re.match(r"4[0-9][0-9] 4\.4\.4 ", reply), reply


def test_row_24_another_destination_needs_a_transaction_of_its_own(lab):
    one, two = lab.server(how="clear"), lab.server(how="clear")
    _, port = routed(lab, *[send(name, server.port, address_spaces=[f"{name}.test"],
                                 tls_auth_level="none")
                            for name, server in (("one", one), ("two", two))])
    client = lab.opened(port, tls=False)
    client.say("MAIL FROM:<a@unlisted.test>", 250)
    client.say("RCPT TO:<b@one.test>", 250)
    assert client.say("RCPT TO:<b@two.test>").startswith("452 4.5.3 ")
    client.say("RCPT TO:<c@one.test>", 250)
    client.say("DATA", 354)
    client.say(BODY + ".", 250)
    assert len(one.messages[0].recipients) == 2 and two.mails == 0


@pytest.mark.parametrize("space", ["*contoso.test", "con*.test", "contoso.test;0",
                                   "contoso.test;101", "X400:contoso.test;1"])
def test_row_24_bad_address_spaces_are_refused(lab, space):
    status, said = check(transport() + receive("in", 2525, send_connector=None) +
                         send("out", 2526, address_spaces=[space]), lab.place("space"))
    assert status == 2 and space.split(";", maxsplit=1)[0] in said, said


# ---- rows 25 to 27: s1 to s8 -----------------------------------------------------------------

def through_dns(lab, leafs, trey=None, how=None, client="require"):
    """A domain-secure connector by MX, one host for each leaf, best first: relay, port, servers."""
    smtp, servers = free_port(), []
    for number, leaf in enumerate(leafs):
        servers.append(lab.keep(Server(
            lab.pki, cert=leaf, client=client, how=(how or {}).get(number, "tls"),
            address=f"127.20.0.{number + 1}", port=smtp)))
    names = [f"mx{number}.treyresearch.test" for number in range(len(leafs))]
    dns = lab.dns(mx={"treyresearch.test": [(10 * number, name)
                                            for number, name in enumerate(names, 1)],
                      "unlisted.test": [(10, names[0])]},
                  hosts={name: server.address for name, server in zip(names, servers)})
    trey = {"crl_files": [PKI / "treyresearch-ca.crl"], **(trey or {})}
    relay, port = routed(
        lab, partner(**trey),
        section("send-connector", "internet", address_spaces=["*"], port=smtp, domain_secure=True,
                certificate="edge"), dns_servers=[dns.address])
    return relay, port, servers


def test_row_25_secured_outbound(lab):
    relay, port, (server,) = through_dns(lab, ["treyresearch"])
    reply = lab.opened(port, tls=False).send("a@adatum.test", "b@treyresearch.test")
    assert reply.startswith("250 2.6.0 "), reply
    assert server.client_certificates == [der("adatum")], "our certificate was presented"
    (event,) = relay.events("nexthop-tls")
    assert event["server-cert"] == "Valid" and "mx.treyresearch.test" in event["subject"]


def test_row_25_an_unsecured_connector_does_not_carry_listed_mail(lab):
    server = lab.server()
    relay, port = direct(lab, server.port, partner())
    client = lab.opened(port, tls=False)
    reply = client.send("a@adatum.test", "b@treyresearch.test")
    assert reply == "451 4.7.3 Mail to treyresearch.test needs a domain-secured connector"
    client.say("RSET", 250)
    assert client.send("a@adatum.test", "b@unlisted.test").startswith("250")
    assert len(server.messages) == 1 and relay.counter("messages") == 1
    assert not [command for command in server.commands if "treyresearch.test" in command]


def test_row_25_unless_it_may(lab):
    server = lab.server(how="clear")
    _, port = direct(lab, server.port, partner(), allow_unsecured_partners=True)
    assert lab.opened(port, tls=False).send("a@adatum.test", "b@treyresearch.test")[0] == "2"


@pytest.mark.parametrize("kind", ["no-starttls", "stripped", "broken"])
def test_row_26_never_downgraded(lab, kind):
    server = lab.server(how={"no-starttls": "clear", "broken": "broken"}.get(kind, "tls"))
    port = lab.path(server.port).port if kind == "stripped" else server.port
    relay, door = direct(lab, port, partner(), domain_secure=True)
    client = lab.opened(door, tls=False)
    for _ in range(2):
        reply = client.send("a@adatum.test", "b@treyresearch.test")
        assert reply.startswith("451 4.7.3 "), reply
        client.say("RSET", 250)
    assert server.mails == 0 and relay.counter("tls_downgraded") == 0
    assert relay.events("nexthop-failed")


BAD = {"treyresearch-other": "UntrustedRoot", "treyresearch-expired": "Expired",
       "treyresearch-future": "NotYetValid", "treyresearch-revoked": "Revoked",
       "treyresearch-eku": "BadUsage", "treyresearch-weak": "WeakKey",
       "treyresearch-name": "SubjectMismatch", "treyresearch-host": "SubjectMismatch",
       "treyresearch-cn": "SubjectMismatch"}


@pytest.mark.parametrize("leaf", BAD)
def test_row_27_quit_before_mail_and_the_next_host(lab, leaf):
    relay, port, (bad, good) = through_dns(lab, [leaf, "treyresearch"])
    reply = lab.opened(port, tls=False).send("a@adatum.test", "b@treyresearch.test")
    assert reply.startswith("250 2.6.0 "), reply
    assert bad.connections == 1 and bad.mails == 0 and len(good.messages) == 1
    wait_for(lambda: [line for line in bad.commands if line.upper() == "QUIT"], "QUIT")
    assert BAD[leaf] in relay.events("nexthop-failed")[0]["why"]


def test_row_27_no_host_is_good(lab):
    relay, port, servers = through_dns(lab, ["treyresearch-expired", "treyresearch-name"])
    reply = lab.opened(port, tls=False).send("a@adatum.test", "b@treyresearch.test")
    assert reply.startswith("454 4.7.5 Certificate validation failure: "), reply
    assert reply.split(": ")[1] in ("Expired", "SubjectMismatch")
    assert [server.mails for server in servers] == [0, 0]
    assert len(relay.events("nexthop-failed")) == 2


def test_row_27_no_fallback_to_a_host_in_clear(lab):
    relay, port, servers = through_dns(lab, ["treyresearch-expired", "treyresearch"],
                                       how={1: "clear"})
    reply = lab.opened(port, tls=False).send("a@adatum.test", "b@treyresearch.test")
    assert re.match(r"45[14] 4\.7\.[35] ", reply), reply
    assert [server.mails for server in servers] == [0, 0] and relay.counter("messages") == 0


# ---- rows 28, 29, 31 -------------------------------------------------------------------------

LADDER = [  # level, leaf of the server, the word that refuses it
    ("encryption-only", "treyresearch-self", None),
    ("encryption-only", "treyresearch-name", None),
    ("certificate-validation", "treyresearch-self", "UntrustedRoot"),
    ("certificate-validation", "treyresearch-name", None),
    ("domain-validation", "treyresearch-self", "UntrustedRoot"),
    ("domain-validation", "treyresearch-name", "SubjectMismatch"),
    ("domain-validation", "treyresearch", None),
    ("fingerprint", "treyresearch-self", None),
    ("fingerprint", "treyresearch", "PinMismatch"),
]


@pytest.mark.parametrize("level,leaf,word", LADDER)
def test_row_28_levels(lab, level, leaf, word):
    server = lab.server(cert=leaf)
    words = {"certificate-validation": {"trust_anchors": PKI / "treyresearch-ca.pem"},
             "domain-validation": {"trust_anchors": PKI / "treyresearch-ca.pem",
                                   "tls_domain": "treyresearch.test"},
             "fingerprint": {"spki_pins": [spki("treyresearch-self")]}}.get(level, {})
    _, port = direct(lab, server.port, tls_auth_level=level, **words)
    reply = lab.opened(port, tls=False).send("a@adatum.test", "b@unlisted.test")
    assert reply.startswith("250 2.6.0 " if word is None else CHAIN + word), reply
    assert server.mails == (word is None)


INVALID = {
    "tls-domain elsewhere": {"tls_auth_level": "encryption-only", "tls_domain": "a.test"},
    "domain-validation without a name": {"tls_auth_level": "domain-validation",
                                         "trust_anchors": PKI / "treyresearch-ca.pem"},
    "level and ignore-starttls": {"tls_auth_level": "encryption-only", "ignore_starttls": True},
    "level and force-helo": {"tls_auth_level": "encryption-only", "force_helo": True},
    "fingerprint without pins": {"tls_auth_level": "fingerprint"},
    "secure and ignore-starttls": {"domain_secure": True, "ignore_starttls": True},
    "secure and force-helo": {"domain_secure": True, "force_helo": True},
    "secure and never TLS": {"domain_secure": True, "tls_auth_level": "none"},
    "secure and a front end": {"domain_secure": True, "frontend_proxy": True},
}


@pytest.mark.parametrize("name", INVALID)
def test_row_28_invalid_combinations_are_refused_at_load(lab, name):
    status, said = check(transport() + certificate() + receive("in", 2525, send_connector="out") +
                         send("out", 2526, **INVALID[name]), lab.place("invalid"))
    assert status == 2 and re.search(r"check\.conf:[0-9]+: ", said), said


def test_row_29_tls_domain_is_compared_instead_of_the_recipient(lab):
    server = lab.server()
    words = {"tls_auth_level": "domain-validation", "trust_anchors": PKI / "treyresearch-ca.pem"}
    _, port = direct(lab, server.port, **words, tls_domain="mx.treyresearch.test")
    assert lab.opened(port, tls=False).send("a@adatum.test", "b@unlisted.test").startswith("250")
    _, port = direct(lab, server.port, **words, tls_domain="*.treyresearch.test")
    assert lab.opened(port, tls=False).send("a@adatum.test", "b@unlisted.test").startswith("250")
    _, port = direct(lab, server.port, **words, tls_domain="mx.unlisted.test")
    reply = lab.opened(port, tls=False).send("a@adatum.test", "b@treyresearch.test")
    assert reply == CHAIN + "SubjectMismatch" and server.mails == 2


def test_row_29_without_it_the_recipient_decides(lab):
    """By DNS, where no name has to be configured."""
    smtp = free_port()
    server = lab.keep(Server(lab.pki, address="127.20.0.1", port=smtp))
    dns = lab.dns(mx={domain: [(10, "mx.treyresearch.test")]
                      for domain in ("treyresearch.test", "unlisted.test")},
                  hosts={"mx.treyresearch.test": "127.20.0.1"})
    _, port = routed(lab, section("send-connector", "out", address_spaces=["*"], port=smtp,
                                  tls_auth_level="domain-validation",
                                  trust_anchors=PKI / "treyresearch-ca.pem"),
                     dns_servers=[dns.address])
    client = lab.opened(port, tls=False)
    assert client.send("a@adatum.test", "b@treyresearch.test").startswith("250")
    assert client.send("a@adatum.test", "b@unlisted.test") == CHAIN + "SubjectMismatch"
    assert server.mails == 1


def test_row_31_opportunistic_takes_any_certificate(lab):
    server = lab.server(cert="treyresearch-self")
    _, port = direct(lab, server.port)
    assert lab.opened(port, tls=False).send("a@adatum.test", "b@unlisted.test").startswith("250")
    assert server.handshakes == 1


def test_row_31_a_failed_handshake_is_retried_in_clear_once(lab):
    server = lab.server(how="broken")
    relay, port = direct(lab, server.port)
    assert lab.opened(port, tls=False).send("a@adatum.test", "b@unlisted.test").startswith("250")
    assert server.connections == 2 and server.mails == 1
    assert relay.counter("tls_downgraded") == 1 and len(relay.events("tls-downgraded")) == 1


# ---- row 33: the front end that speaks for us ------------------------------------------------

def front_and_back(lab, leaf="treyresearch", pinned="hub", shown="hub"):
    """Back end -> front end -> partner: both relays, the back end's port, the partner."""
    server = lab.server(cert=leaf, client="require")
    front_port, port = free_port(), free_port()
    front = lab.relay(
        transport(), certificate(), partner(), send("out", server.port, certificate="edge",
                                                    domain_secure=True),
        section("internal-server", "back", spki_pins=[spki(pinned)]),
        receive("backends", front_port, type="internal", certificate="edge", send_connector="out"))
    back = lab.relay(
        transport(), certificate("hub", shown), receive("in", port, send_connector="front"),
        send("front", front_port, frontend_proxy=True, certificate="hub",
             tls_auth_level="fingerprint", spki_pins=[spki("adatum")]))
    return front, back, port, server


def test_row_33_the_partner_is_checked_at_the_front_end(lab):
    _, _, port, server = front_and_back(lab)
    reply = lab.opened(port, tls=False).send("a@adatum.test", "b@treyresearch.test")
    assert reply.startswith("250 2.6.0 <1@hop.test> Queued"), "the partner's own answer"
    assert server.client_certificates == [der("adatum")]


def test_row_33_its_refusal_is_passed_through(lab):
    front, _, port, server = front_and_back(lab, leaf="treyresearch-expired")
    reply = lab.opened(port, tls=False).send("a@adatum.test", "b@treyresearch.test")
    assert reply == CHAIN + "Expired" and server.mails == 0, front.log()


def test_row_33_another_back_end_is_not_served(lab):
    front, _, port, server = front_and_back(lab, shown="adatum-host")
    reply = lab.opened(port, tls=False).send("a@adatum.test", "b@treyresearch.test")
    assert reply.startswith("454 4.7.0 Temporary authentication failure"), reply
    front.stats()  # its log line is behind the event
    assert front.has_event_id(1036) and server.mails == 0


def test_row_33_a_front_end_that_dies_leaves_the_message_with_the_back_end(lab):
    front, _, port, server = front_and_back(lab)
    client = lab.opened(port, tls=False)
    client.say("MAIL FROM:<a@adatum.test>", 250)
    client.say("RCPT TO:<b@treyresearch.test>", 250)
    client.say("DATA", 354)
    client.write("Subject: half\r\n\r\n" + "x" * 70 + "\r\n")
    front.process.kill()
    front.process.wait(PATIENCE)
    front.process = None
    client.write("rest\r\n.\r\n")
    assert client.reply().startswith("4"), "whoever has the message still has it"
    assert server.messages == []
