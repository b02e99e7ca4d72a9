# SPDX-License-Identifier: Apache-2.0
"""Seven levels of TLS, sixteen kinds of peer, two directions: what comes of each.

The two tables are the expectations. A word in a cell:

    clear       the message passes in clear text
    tls         it passes under TLS
    retried     a handshake fails, then it passes in clear text on a second connection
    starttls    refused, there is no TLS
    handshake   refused, the handshake fails
    others      refused, the certificate's verdict

A relay stands on each side, with a connector for each level (and, outbound, each peer), all on one
port: the loopback address tells them apart. Whatever is refused outbound has seen no MAIL.
"""

import socket
import ssl

import pytest

from conftest import PKI, free_port
from lab import (Client, certificate, inside, module_lab, partner, receive, send,  # noqa: F401
                 transport)
from lab_pki import spki

LEVELS = ["none", "opportunistic", "encryption-only", "certificate-validation",
          "domain-validation", "fingerprint", "domain-secure"]

# Pinned are the keys of good, expired and self-signed: a fingerprint looks at nothing else.
INBOUND = """
                none  opport encrypt  certificate   domain          fingerprint secure
good            clear tls    tls      tls           tls             tls         tls
expired         clear tls    tls      Expired       Expired         tls         Expired
not-yet-valid   clear tls    tls      NotYetValid   NotYetValid     PinMismatch NotYetValid
self-signed     clear tls    tls      UntrustedRoot UntrustedRoot   tls         UntrustedRoot
other-ca        clear tls    tls      UntrustedRoot UntrustedRoot   PinMismatch UntrustedRoot
wrong-name      clear tls    tls      tls           SubjectMismatch PinMismatch SubjectMismatch
wildcard        clear tls    tls      tls           SubjectMismatch PinMismatch tls
cn-only         clear tls    tls      tls           SubjectMismatch PinMismatch SubjectMismatch
revoked         clear tls    tls      Revoked       Revoked         PinMismatch Revoked
crl-unreachable clear tls    tls      Unknown       Unknown         PinMismatch Unknown
wrong-eku       clear tls    tls      BadUsage      BadUsage        PinMismatch BadUsage
weak-key        clear tls    tls      WeakKey       WeakKey         PinMismatch WeakKey
no-certificate  clear tls    tls      Empty         Empty           Empty       Empty
no-starttls     clear clear  starttls starttls      starttls        starttls    starttls
stripped        clear clear  starttls starttls      starttls        starttls    starttls
broken          clear clear  starttls starttls      starttls        starttls    starttls
"""

# A server without a certificate can offer anonymous ciphers only, which we never do.
OUTBOUND = """
                none  opport  encrypt   certificate   domain          fingerprint secure
good            clear tls     tls       tls           tls             tls         tls
expired         clear tls     tls       Expired       Expired         tls         Expired
not-yet-valid   clear tls     tls       NotYetValid   NotYetValid     PinMismatch NotYetValid
self-signed     clear tls     tls       UntrustedRoot UntrustedRoot   tls         UntrustedRoot
other-ca        clear tls     tls       UntrustedRoot UntrustedRoot   PinMismatch UntrustedRoot
wrong-name      clear tls     tls       tls           SubjectMismatch PinMismatch SubjectMismatch
wildcard        clear tls     tls       tls           SubjectMismatch PinMismatch tls
cn-only         clear tls     tls       tls           SubjectMismatch PinMismatch SubjectMismatch
revoked         clear tls     tls       Revoked       Revoked         PinMismatch Revoked
crl-unreachable clear tls     tls       Unknown       Unknown         PinMismatch Unknown
wrong-eku       clear tls     tls       BadUsage      BadUsage        PinMismatch BadUsage
weak-key        clear tls     tls       WeakKey       WeakKey         PinMismatch WeakKey
no-certificate  clear retried handshake handshake     handshake       handshake   handshake
no-starttls     clear clear   starttls  starttls      starttls        starttls    starttls
stripped        clear clear   starttls  starttls      starttls        starttls    starttls
broken          clear retried handshake handshake     handshake       handshake   handshake
"""

SHORT = {"Empty": "EmptyCertificate", "Unknown": "RevocationUnknown"}

LEAFS = {"good": "treyresearch", "expired": "treyresearch-expired",
         "not-yet-valid": "treyresearch-future", "self-signed": "treyresearch-self",
         "other-ca": "treyresearch-other", "wrong-name": "treyresearch-name",
         "wildcard": "treyresearch-wildcard", "cn-only": "treyresearch-cn",
         "revoked": "treyresearch-revoked", "wrong-eku": "treyresearch-eku",
         "weak-key": "treyresearch-weak"}

PINS = [LEAFS[kind] for kind in ("good", "expired", "self-signed")]


def cells(table):
    """(peer, level, word) of each cell."""
    for line in table.strip().splitlines()[1:]:
        peer, *words = line.split()
        assert len(words) == len(LEVELS), line
        yield from ((peer, level, SHORT.get(word, word)) for level, word in zip(LEVELS, words))


def address(level, peer=None):
    return f"127.9.{LEVELS.index(level) + 1}.{list(PEERS).index(peer) + 1 if peer else 1}"


PEERS = dict.fromkeys(peer for peer, _, _ in cells(INBOUND))
assert len(list(cells(INBOUND))) + len(list(cells(OUTBOUND))) == 224


@pytest.fixture(scope="module")
def leafs(module_lab):
    """What each peer shows, and whom we believe: the partner's root, and one whose list is away."""
    absent = module_lab.authority()
    anchors = absent.folder / "anchors.pem"
    anchors.write_text((PKI / "treyresearch-ca.pem").read_text() + absent.pem.read_text())
    nobody = module_lab.keep(socket.socket())  # a port that is taken, and that nobody listens to
    nobody.bind(("127.0.0.1", 0))
    unreachable = absent.leaf(
        "unreachable", cdp=f"http://127.0.0.1:{nobody.getsockname()[1]}/away.crl")
    trust = {"trust_anchors": anchors, "crl_files": [PKI / "treyresearch-ca.crl"]}
    return {**LEAFS, "crl-unreachable": unreachable}, trust


def trusted(trust):
    return partner(**{"trust_anchors": trust["trust_anchors"], "crl_files": trust["crl_files"]})


# ---- inbound ---------------------------------------------------------------------------------

class Inbound:
    def __init__(self, lab, leafs):
        self.leafs, trust = leafs
        self.lab, self.port = lab, free_port()
        self.hop = lab.server(how="clear")
        pins = [spki(leaf) for leaf in PINS]
        need = {"tls": "starttls", "certificate": "edge", "require_tls": True}
        asks = {**need, "client_certificate": "require"}
        levels = {
            "none": {"tls": "none"},
            "opportunistic": {"tls": "starttls", "certificate": "edge"},
            "encryption-only": need,
            "certificate-validation": {**asks, **trust},
            "domain-validation": {**asks, **trust, "tls_domain": "treyresearch.test"},
            "fingerprint": {**asks, "spki_pins": pins},
            "domain-secure": {"type": "partner", "certificate": "edge"},
        }
        self.relay = lab.relay(
            transport(crl_fetch_timeout="1s"), certificate(), trusted(trust), inside(self.hop.port),
            *[receive(level, 0, bindings=[f"{address(level)}:{self.port}"], **words)
              for level, words in levels.items()])

    def connect(self, level, peer):
        """A client as that peer is: with TLS if it can, in clear text if it cannot."""
        if peer == "stripped":
            path = self.lab.path((address(level), self.port))
            client = self.lab.client(path.port)
            client.ehlo()
            assert "STARTTLS" not in client.keywords
            return client
        client = self.lab.client(self.port, host=address(level))
        client.ehlo()
        assert ("STARTTLS" in client.keywords) == (level != "none")
        if level == "none" or peer == "no-starttls":
            return client
        if peer == "broken":
            client.say("STARTTLS", 220)
            client.write(b"this is no handshake\r\n")
            assert not client.reply().startswith("2")
            client = self.lab.client(self.port, host=address(level))
            client.ehlo()
            return client
        return client.starttls(None if peer == "no-certificate" else self.leafs[peer])


@pytest.fixture(scope="module")
def inbound(module_lab, leafs):
    return Inbound(module_lab, leafs)


SECURE_COUNTERS = {"starttls": "secure_refused_no_tls",
                   "EmptyCertificate": "secure_refused_no_certificate",
                   "SubjectMismatch": "secure_refused_name"}


def inbound_counter(level, word):
    if word in ("clear", "tls"):
        return "messages"
    if level == "domain-secure":
        return SECURE_COUNTERS.get(word, "secure_refused_chain")
    return "tls_required_refused" if word == "starttls" else "client_cert_refused"


def inbound_reply(level, word):
    if word in ("clear", "tls"):
        return "250 2.6.0 "
    if word == "starttls":
        return ("451 4.7.3 Mail from treyresearch.test needs mutual TLS: STARTTLS was not used"
                if level == "domain-secure" else "451 5.7.3 STARTTLS is required to send mail")
    return f"454 4.7.5 Certificate validation failure: {word}"


@pytest.mark.parametrize("peer,level,word", cells(INBOUND))
def test_inbound(inbound, peer, level, word):
    relay, hop = inbound.relay, inbound.hop
    sender = "a@treyresearch.test" if level == "domain-secure" else "a@unlisted.test"
    counter = inbound_counter(level, word)
    before = {"refused": len(relay.refusals()), "tls": len(relay.events("tls")),
              "count": relay.counter(counter), "failed": relay.counter("tls_failed"),
              "messages": len(hop.messages)}
    client = inbound.connect(level, peer)
    reply = client.send(sender)
    assert reply.startswith(inbound_reply(level, word)), reply
    assert client.quit().startswith("221")

    is_taken = word in ("clear", "tls")
    assert len(hop.messages) - before["messages"] == is_taken
    assert relay.counter(counter) == before["count"] + 1, counter
    assert relay.counter("tls_failed") == before["failed"] + (peer == "broken" and level != "none")
    refused = relay.refusals()[before["refused"]:]
    assert len(refused) == (not is_taken), refused
    handshakes = relay.events("tls")[before["tls"]:]
    used_tls = level != "none" and peer not in ("no-starttls", "stripped", "broken")
    assert len(handshakes) == used_tls, handshakes
    if word == "starttls":
        assert "tls" in refused[0]["why"]
    elif not is_taken:
        assert refused[0]["status"] == word
        assert relay.has_event_id(11015) if (level, word) == ("domain-secure", "SubjectMismatch") \
            else True
    elif level == "domain-secure":
        assert b"x-domain-secure=pass" in hop.messages[-1].body
    elif word == "tls":
        asked = level not in ("opportunistic", "encryption-only")
        assert handshakes[0]["client-cert"] == ("Valid" if asked else "NotAsked")


# ---- outbound --------------------------------------------------------------------------------

class Outbound:
    def __init__(self, lab, leafs):
        names, trust = leafs
        self.port = free_port()
        self.servers = {peer: lab.server(cert=names[peer], client="ask")
                        for peer in PEERS if peer in names}
        self.servers["no-certificate"] = lab.server(how="anonymous")
        self.servers["no-starttls"] = lab.server(how="clear")
        self.servers["stripped"] = lab.server()
        self.servers["broken"] = lab.server(how="broken")
        ports = {peer: server.port for peer, server in self.servers.items()}
        ports["stripped"] = lab.path(self.servers["stripped"].port).port
        pins = [spki(leaf) for leaf in PINS]
        levels = {level: {"tls_auth_level": level, "certificate": "edge"} for level in LEVELS}
        levels["certificate-validation"].update(trust)
        levels["domain-validation"].update(trust, tls_domain="treyresearch.test")
        levels["fingerprint"].update(spki_pins=pins)
        levels["domain-secure"].update(tls_auth_level="opportunistic", domain_secure=True)
        sections = []
        for peer, level, _ in cells(OUTBOUND):
            name = f"{level}-{peer}"
            sections.append(send(name, ports[peer], max_connections=2, **levels[level]))
            sections.append(receive(name, 0, send_connector=name,
                                    bindings=[f"{address(level, peer)}:{self.port}"]))
        self.relay = lab.relay(transport(crl_fetch_timeout="1s"), certificate(), trusted(trust),
                               *sections)


@pytest.fixture(scope="module")
def outbound(module_lab, leafs):
    return Outbound(module_lab, leafs)


def outbound_reply(word):
    if word in ("clear", "tls", "retried"):
        return ("250 2.6.0 ",)
    if word in ("starttls", "handshake"):
        return ("451 4.7.3 ",)
    return (f"454 4.7.5 Certificate validation failure: {word}",)


def outbound_counter(word):
    if word == "retried":
        return "tls_downgraded"
    if word in ("clear", "tls"):
        return "messages"
    return "nexthop_connect_failed"


@pytest.mark.parametrize("peer,level,word", cells(OUTBOUND))
def test_outbound(outbound, peer, level, word):
    relay, server = outbound.relay, outbound.servers[peer]
    counter = outbound_counter(word)
    failures = len(relay.events("nexthop-failed"))
    downgrades = len(relay.events("tls-downgraded"))
    before = (server.mails, len(server.messages), server.handshakes, relay.counter(counter))
    with Client(outbound.port, host=address(level, peer)) as client:
        client.ehlo()
        to = "b@treyresearch.test" if level == "domain-secure" else "b@unlisted.test"
        reply = client.send("a@adatum.test", to)
        client.quit()
    assert reply.startswith(outbound_reply(word)), reply

    is_sent = word in ("clear", "tls", "retried")
    assert server.mails - before[0] == is_sent, "a refused message says no MAIL, ever"
    assert len(server.messages) - before[1] == is_sent
    if is_sent:
        assert relay.counter(counter) == before[3] + 1, counter
        assert server.handshakes - before[2] == (word == "tls")
        last = [event for event in relay.events("nexthop-ready")
                if event["connector"] == f"{level}-{peer}"][-1]
        assert last["tls"] == ("yes" if word == "tls" else "no")
    else:
        tries = relay.counter(counter) - before[3]
        failed = relay.events("nexthop-failed")[failures:]
        # One try to learn at EHLO what the path carries, one for the mail.
        assert tries in (1, 2) and len(failed) >= tries
        assert all(event["connector"] == f"{level}-{peer}" for event in failed)
        if word not in ("starttls", "handshake"):
            assert word in failed[0]["why"], failed
    assert len(relay.events("tls-downgraded")) - downgrades == (word == "retried")
    if (peer, level) == ("good", "domain-secure"):
        assert server.client_certificates[-1] == ssl.PEM_cert_to_DER_cert(
            (PKI / "adatum.pem").read_text().split("-----END")[0] + "-----END CERTIFICATE-----\n")
