# SPDX-License-Identifier: Apache-2.0
"""Row 50: two relays with separate roots as partners, both ways; then each side broken once."""

import re

import pytest

from conftest import PKI, free_port, wait_for
from lab import (certificate, inside, lab, partner, receive, secure, section,  # noqa: F401
                 transport)

CHAIN = "454 4.7.5 Certificate validation failure: "
SITES = {"adatum": "127.40.0.1", "treyresearch": "127.40.0.2"}


class Organisation:
    """A relay at the edge, what is behind it, and the door through which its own mail leaves."""

    def __init__(self, lab, name, peer, smtp, dns, broken):
        self.name, self.domain, self.peer = name, f"{name}.test", f"{peer}.test"
        self.lab, self.out, self.mailbox = lab, free_port(), lab.server(how="clear")
        words = {"leaf": name, "partner": {}, "door": {}, "send": {}, **broken}
        partners = [] if words["partner"] is None else [partner(
            peer, [self.peer], **{"trust_anchors": PKI / f"{peer}-ca.pem", **words["partner"]})]
        self.relay = lab.relay(
            transport(fqdn=f"mx.{name}.test", dns_servers=[dns.address],
                      accepted_domains=[self.domain]),
            certificate("edge", words["leaf"]), *partners,
            section("send-connector", "internet", {
                "address-spaces": ["*"], "port": smtp, "domain-secure": True,
                "certificate": "edge"}, **words["send"]),
            inside(self.mailbox.port, address_spaces=["--"]),
            secure("internet-in", smtp, bindings=[f"{SITES[name]}:{smtp}"], send_connector=None,
                   **words["door"]),
            receive("own", self.out, send_connector=None, external_authoritative=True,
                    permission_groups=["internal"]))

    def send(self):
        """A message of ours to the partner: the reply that our own server gets."""
        client = self.lab.opened(self.out, tls=False)
        reply = client.send(f"a@{self.domain}", f"b@{self.peer}")
        client.quit()
        return reply


def two(lab, adatum=None, treyresearch=None):
    smtp = free_port()
    dns = lab.dns(mx={f"{name}.test": [(10, f"mx.{name}.test")] for name in SITES},
                  hosts={f"mx.{name}.test": address for name, address in SITES.items()})
    return (Organisation(lab, "adatum", "treyresearch", smtp, dns, adatum or {}),
            Organisation(lab, "treyresearch", "adatum", smtp, dns, treyresearch or {}))


def test_row_50_mail_both_ways(lab):
    sites = two(lab)
    for sender, taker in (sites, reversed(sites)):
        reply = sender.send()
        assert reply.startswith("250 2.6.0 <1@hop.test> Queued"), sender.relay.log()
        (message,) = taker.mailbox.messages
        header = re.sub(r"\r\n[ \t]+", " ", message.body.decode().split("\r\n\r\n")[0])
        assert re.search(rf"(?m)^Authentication-Results: mx\.{taker.name}\.test; .*"
                         rf"x-domain-secure=pass.*{sender.domain}", header), header
        assert sender.relay.events("nexthop-tls")[-1]["server-cert"] == "Valid"
        assert taker.relay.counter("messages_secured") == 1
        assert sender.relay.counter("messages_sent_secured") == 1
    assert all(len(site.relay.events("tls")) == 1 for site in sites)


# What is broken on adatum's side: the answer to adatum's mail, the answer to treyresearch's.
BROKEN = {
    "our certificate has ended": (
        {"leaf": "adatum-expired"}, CHAIN + "Expired", CHAIN + "Expired"),
    "it has another name": (
        {"leaf": "adatum-name"}, CHAIN + "SubjectMismatch", CHAIN + "SubjectMismatch"),
    "it is of an unknown root": (
        {"leaf": "other"}, CHAIN + "UntrustedRoot", CHAIN + "UntrustedRoot"),
    "we believe the wrong root": (
        {"partner": {"trust_anchors": PKI / "northwind-ca.pem"}}, CHAIN + "UntrustedRoot",
        CHAIN + "UntrustedRoot"),
    "we present nothing": (
        {"send": {"certificate": None, "fqdn": "mx.elsewhere.test"}}, CHAIN + "EmptyCertificate",
        "250"),
    "our door does not ask": (
        {"door": {"domain_secure": False, "client_certificate": "none"}}, "250",
        "451 4.7.3 Mail from treyresearch.test is taken over a domain-secured connector only"),
    "our door has no TLS": (
        {"door": {"domain_secure": False, "tls": "none", "client_certificate": "none",
                  "certificate": None}}, "250", "451 4.7.3 "),
    "we do not list them": ({"partner": None}, "250|454 4.7.5", "250"),
    "our way out is not secured": (
        {"send": {"domain_secure": False}},
        "451 4.7.3 Mail to treyresearch.test needs a domain-secured connector", "250"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_row_50_one_side_broken(lab, what):
    broken, ours, theirs = BROKEN[what]
    adatum, trey = two(lab, adatum=broken)
    for sender, taker, wanted in ((adatum, trey, ours), (trey, adatum, theirs)):
        reply = sender.send()
        assert reply.startswith(tuple(wanted.split("|"))), (sender.name, reply)
        refused = not reply.startswith("250")
        assert len(taker.mailbox.messages) == (not refused)
        if refused:
            wait_for(lambda site=sender, other=taker: any(
                site.relay.events(name) for name in ("nexthop-failed", "refused", "rcpt-refused"))
                or other.relay.events("refused"), "event of it")


def test_row_50_the_other_side_broken(lab):
    """The same from the partner's side: who is broken makes no difference."""
    adatum, trey = two(lab, treyresearch={"leaf": "treyresearch-revoked"},
                       adatum={"partner": {"crl_files": [PKI / "treyresearch-ca.crl"]}})
    assert adatum.send() == CHAIN + "Revoked"
    assert trey.send() == CHAIN + "Revoked"
    assert adatum.relay.refusals(status="Revoked")
    assert not adatum.mailbox.messages and not trey.mailbox.messages


def test_row_50_repaired_by_a_reload(lab):
    adatum, trey = two(lab, adatum={"partner": {"trust_anchors": PKI / "northwind-ca.pem"}})
    assert adatum.send() == trey.send() == CHAIN + "UntrustedRoot"
    config = adatum.relay.config.read_text()
    event = adatum.relay.reload(config.replace("northwind-ca.pem", "treyresearch-ca.pem"))
    assert event["result"] == "ok"
    assert adatum.send().startswith("250") and trey.send().startswith("250")
