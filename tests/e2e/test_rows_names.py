# SPDX-License-Identifier: Apache-2.0
"""Row 18: twenty sets of names in a certificate, six sets of rules, and how domains are written."""

import pytest

from conftest import free_port
from lab import certificate, inside, module_lab, partner, secure, transport  # noqa: F401
from lab_pki import CONF, Authority

MISMATCH = "454 4.7.5 Certificate validation failure: SubjectMismatch"

RULES = {
    "default": {},
    "listed": {"certificate_names": ["relay.hosted.test"]},
    "wildcard": {"certificate_names": ["*.hosted.test"]},
    "hosts": {"host_names": True},
    "common": {"common_name": True},
    "both": {"host_names": True, "common_name": True},
}

# What the subjectAltName holds ("-": none), the CNs (";" between), and the rules that accept it.
ALL = "default listed wildcard hosts common both"
NAMES = [
    ("DNS:treyresearch.test", "x", ALL),
    ("DNS:TreyResearch.TEST", "x", ALL),
    ("DNS:*.treyresearch.test", "x", ALL),
    ("DNS:unrelated.test,DNS:treyresearch.test", "x", ALL),
    ("DNS:mx.treyresearch.test", "x", "hosts both"),
    ("DNS:a.mx.treyresearch.test", "x", ""),
    ("DNS:nottreyresearch.test", "x", ""),
    ("DNS:treyresearch.test.evil.test", "x", ""),
    ("DNS:*.test", "x", ""),
    ("DNS:trey*.test", "x", ""),
    ("DNS:*.*.treyresearch.test", "x", ""),
    ("DNS:relay.hosted.test", "x", "listed wildcard"),
    ("DNS:other.hosted.test", "x", "wildcard"),
    ("DNS:a.relay.hosted.test", "x", ""),
    ("DNS:unrelated.test", "treyresearch.test", ""),
    ("-", "treyresearch.test", "common both"),
    ("-", "mx.treyresearch.test", "both"),
    ("-", "unrelated.test;treyresearch.test", "common both"),
    ("IP:127.0.0.1", "treyresearch.test", "common both"),
    ("IP:127.0.0.1", "127.0.0.1", ""),
]


@pytest.fixture(scope="module")
def relays(module_lab):
    """A relay for each set of rules: a domain belongs to one partner only."""
    hop = module_lab.server(how="clear")
    ports = {}
    for rule, words in RULES.items():
        ports[rule] = free_port()
        module_lab.relay(transport(), certificate(), partner(**words),
                         secure("partners", ports[rule]), inside(hop.port))
    return ports


def named_leaf(authority, name, alternatives, commons):
    """Signed by the partner's root, with exactly these names."""
    text = CONF if alternatives == "-" else f"{CONF}subjectAltName = {alternatives}\n"
    return authority.leaf_as(name, text, "/O=lab/CN=" + commons.replace(";", "/CN="))


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_row_18_names_and_rules(module_lab, relays, number):
    alternatives, commons, accepting = NAMES[number]
    authority = Authority(module_lab.place("names"), "treyresearch-ca")
    leaf = named_leaf(authority, "named", alternatives, commons)
    for rule, port in relays.items():
        client = module_lab.opened(port, leaf)
        reply = client.mail("a@treyresearch.test")
        if rule in accepting.split():
            assert reply.startswith("250"), (rule, reply)
        else:
            assert reply == MISMATCH, rule
        client.quit()


def test_row_18_there_are_twenty_sets_and_six_rules():
    assert (len(NAMES), len(RULES)) == (20, 6)


@pytest.mark.parametrize("domain", ["bücher.test", "xn--bcher-kva.test", "XN--Bcher-KVA.test"])
def test_row_18_a_domain_in_either_form(module_lab, domain):
    """Listed as U-label or A-label, sent as either, proved by the A-label."""
    hop, port = module_lab.server(how="clear"), free_port()
    module_lab.relay(transport(), certificate(), partner(domains=[domain]),
                     secure("partners", port), inside(hop.port))
    authority = Authority(module_lab.place("idn"), "treyresearch-ca")
    leaf = authority.leaf("idn", names=["xn--bcher-kva.test"])
    client = module_lab.opened(port, leaf)
    assert client.send("a@xn--bcher-kva.test").startswith("250")
    client.say("MAIL FROM:<a@bücher.test> SMTPUTF8", 250)
    client.say("RSET", 250)
    wrong = module_lab.opened(port, "treyresearch")
    assert wrong.mail("a@xn--bcher-kva.test") == MISMATCH
    wrong.write("MAIL FROM:<a@BÜCHER.test> SMTPUTF8\r\n")
    assert wrong.reply() == MISMATCH
    assert b"x-domain-secure=pass" in hop.messages[0].body
