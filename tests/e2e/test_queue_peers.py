# SPDX-License-Identifier: Apache-2.0
"""deliver = queue with next hops that others wrote, and with another Postern behind it.

Each message is taken while the next hop is not there, or before it answers: it is the queue that
delivers it, after a retry.
"""

import re

import pytest

from conftest import PKI, free_port, wait_for
from lab import (certificate, inside, lab, opened, partner, section, secure)  # noqa: F401
from queue_lab import queueing, spooled, way_out
from test_peers import peer

BODY = "Subject: independent\r\n\r\nfirst\r\n.dot\r\n..dots\r\n.\r\nlast\r\n"
STUFFED = BODY.replace("\r\n.", "\r\n..")
TAIL = "\nfirst\n.dot\n..dots\n.\nlast\n"


def post(port, sender="a@adatum.test", to="b@treyresearch.test", body=STUFFED):
    client = opened(port, tls=False)
    reply = client.send(sender, to, body)
    client.quit()
    return reply


def relay_to(lab, hop_port, **keywords):
    port = free_port()
    relay = lab.relay(spooled(lab.place("spool")),
                      certificate(), queueing("in", port, send_connector="out"),
                      way_out("out", hop_port, certificate="edge", **keywords))
    return relay, port


SECURED = {"tls_auth_level": "domain-validation", "tls_domain": "treyresearch.test",
           "trust_anchors": PKI / "treyresearch-ca.pem"}
SERVER = ["--tls-cert", PKI / "treyresearch.pem", "--tls-key", PKI / "treyresearch.key",
          "--require-client-cert", PKI / "adatum-ca.pem"]


@pytest.mark.parametrize("script", ["postfix.sh", "exim.sh"])
@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
def test_next_hop_that_comes_up_later(lab, pki, tmp_path, script, tls):
    """Taken while nobody listens there; delivered once it is there, byte for byte, once."""
    hop_port, folder = free_port(), tmp_path / "peer"
    relay, port = relay_to(lab, hop_port, **(SECURED if tls else {}))
    for number in range(3):
        assert post(port, to=f"b{number}@treyresearch.test").startswith("250 ")
    wait_for(lambda: relay.counter("queue_retries") >= 1, "first retry")
    assert relay.counter("queue_sent") == 0
    words = [word for word in SERVER] if tls else []
    peer(script, "start", folder, "--listen", f"127.0.0.1:{hop_port}", *words)
    try:
        for number in range(3):
            new = folder / f"maildir/b{number}@treyresearch.test/new"
            wait_for(lambda box=new: box.exists() and list(box.iterdir()), "delivered message")
        wait_for(lambda: relay.counter("queue_sent") == 3, "all of them sent")
        for number in range(3):
            (mail,) = (folder / f"maildir/b{number}@treyresearch.test/new").iterdir()
            assert mail.read_text().endswith(TAIL)
        if tls:
            assert relay.events("nexthop-tls")[-1]["server-cert"] == "Valid"
    finally:
        peer(script, "stop", folder)


def test_postfix_that_refuses_a_recipient(lab, pki, tmp_path):
    """One whose domain is not its own: a notice goes to the sender, by the same way."""
    hop_port, folder = free_port(), tmp_path / "peer"
    peer("postfix.sh", "start", folder, "--listen", f"127.0.0.1:{hop_port}", "--domains",
         "treyresearch.test,adatum.test", "--set", "mynetworks=192.0.2.1", "--set",
         "smtpd_relay_restrictions=reject_unauth_destination")
    try:
        relay, port = relay_to(lab, hop_port)
        assert post(port, to="b@elsewhere.test").startswith("250 ")
        new = folder / "maildir/a@adatum.test/new"
        wait_for(lambda: new.exists() and list(new.iterdir()), "notice")
        (notice,) = new.iterdir()
        text = notice.read_text()
        assert "report-type=delivery-status" in text and "Action: failed" in text
        assert re.search(r"(?m)^Final-Recipient: rfc822; ?b@elsewhere\.test$", text), text
        assert re.search(r"(?m)^Diagnostic-Code: smtp; ?554 5\.7\.1 ", text), text
        assert relay.counter("queue_failed") == 1 and relay.counter("notices_failed") == 1
    finally:
        peer("postfix.sh", "stop", folder)


class Mailbox:
    """An aiosmtpd handler: puts off the first of each recipient, keeps the others."""

    def __init__(self):
        self.envelopes, self.seen = [], set()

    async def handle_DATA(self, _server, _session, envelope):  # pylint: disable=invalid-name
        first = tuple(envelope.rcpt_tos)
        if first not in self.seen:
            self.seen.add(first)
            return "451 4.3.0 come again"
        self.envelopes.append(envelope)
        return "250 2.0.0 kept"


def test_aiosmtpd_that_puts_off(lab):
    """A server that knows neither PIPELINING nor CHUNKING, and wants each message twice."""
    controller = pytest.importorskip("aiosmtpd.controller", reason="make deps-test")
    mailbox = Mailbox()
    server = controller.Controller(mailbox, hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        relay, port = relay_to(lab, server.port)
        for number in range(5):
            assert post(port, to=f"b{number}@treyresearch.test").startswith("250 ")
        wait_for(lambda: relay.counter("queue_sent") == 5, "all of them sent")
        assert sorted(envelope.rcpt_tos[0] for envelope in mailbox.envelopes) == [
            f"b{number}@treyresearch.test" for number in range(5)]
        for envelope in mailbox.envelopes:
            assert envelope.mail_from == "a@adatum.test"
            assert envelope.content.decode().endswith(BODY.split("\r\n\r\n")[1])
        assert relay.counter("queue_deferred") == 5
    finally:
        server.stop()


# ---- two Posterns in a row --------------------------------------------------------------------

SITES = {"adatum": "127.41.0.1", "treyresearch": "127.41.0.2"}


class Site:
    """A relay at the edge that queues what comes from either side, and what is behind it."""

    def __init__(self, lab, name, smtp, dns, leaf=None):
        other = next(site for site in SITES if site != name)
        self.lab, self.name, self.other = lab, name, other
        self.own, self.mailbox = free_port(), lab.server(how="clear")
        self.relay = lab.relay(
            spooled(lab.place("spool"), fqdn=f"mx.{name}.test", dns_servers=[dns.address],
                    accepted_domains=[f"{name}.test"]),
            certificate("edge", leaf or name),
            partner(other, [f"{other}.test"], trust_anchors=PKI / f"{other}-ca.pem"),
            section("send-connector", "internet", {
                "address-spaces": ["*"], "port": smtp, "domain-secure": True,
                "certificate": "edge"}),
            inside(self.mailbox.port, address_spaces=["--"]),
            secure("internet-in", smtp, bindings=[f"{SITES[name]}:{smtp}"], send_connector=None,
                   deliver="queue"),
            queueing("own", self.own, send_connector=None, external_authoritative=True,
                     permission_groups=["internal"]))

    def send(self, number=0):
        return post(self.own, f"a@{self.name}.test", f"b{number}@{self.other}.test")


def two_sites(lab, **leaves):
    smtp = free_port()
    dns = lab.dns(mx={f"{name}.test": [(10, f"mx.{name}.test")] for name in SITES},
                  hosts={f"mx.{name}.test": address for name, address in SITES.items()})
    return [Site(lab, name, smtp, dns, leaves.get(name)) for name in SITES]


def test_two_posterns_both_ways(lab):
    """Through two queues, secured by both domains' certificates, once each."""
    sites = two_sites(lab)
    for sender, taker in (sites, reversed(sites)):
        for number in range(5):
            assert sender.send(number).startswith("250 "), sender.relay.log()
        wait_for(lambda site=taker: len(site.mailbox.messages) == 5, "messages")
        for message in taker.mailbox.messages:
            header, text = re.sub(r"\r\n[ \t]+", " ", message.body.decode()).split("\r\n\r\n", 1)
            assert text == BODY.split("\r\n\r\n")[1]
            assert re.search(rf"(?m)^Authentication-Results: mx\.{taker.name}\.test; .*"
                             rf"x-domain-secure=pass.*{sender.name}\.test", header), header
        assert taker.relay.counter("messages_secured") == 5
        assert sender.relay.counter("messages_sent_secured") == 5
        wait_for(lambda site=taker: site.relay.counter("queue_sent") >= 5, "last answer")


def test_two_posterns_of_which_one_proves_nothing(lab):
    """The partner's certificate has ended: the mail waits, and goes when it is mended."""
    adatum, trey = two_sites(lab, treyresearch="treyresearch-expired")
    assert adatum.send().startswith("250 ")
    wait_for(lambda: adatum.relay.counter("queue_retries") >= 2, "retries")
    assert not trey.mailbox.messages and adatum.relay.counter("queue_sent") == 0
    config = trey.relay.config.read_text().replace("treyresearch-expired", "treyresearch")
    assert trey.relay.reload(config)["result"] == "ok"
    wait_for(lambda: trey.mailbox.messages, "message")
    wait_for(lambda: adatum.relay.counter("queue_sent") == 1, "answer")
    assert len(trey.mailbox.messages) == 1 and trey.relay.counter("messages_secured") == 1


def test_queue_over_a_restart(lab):
    """A clean end and a new start: what waits is delivered, with who it was from as it came in."""
    adatum, trey = two_sites(lab)
    trey.relay.stop()
    for number in range(3):
        assert adatum.send(number).startswith("250 ")
    wait_for(lambda: adatum.relay.counter("queue_retries") >= 1, "retry")
    adatum.relay.stop()
    adatum.relay.start()
    trey.relay.start()
    wait_for(lambda: len(trey.mailbox.messages) == 3, "messages")
    wait_for(lambda: adatum.relay.counter("queue_sent") == 3, "answers")
    assert len(trey.mailbox.messages) == 3
