# SPDX-License-Identifier: Apache-2.0
"""Row 49, reload; and that no ticket outlives what it was given for."""

import shutil
import socket
import ssl

import pytest

from conftest import PKI, free_port, wait_for
from lab import (BODY, certificate, client_context, inside, lab, partner, receive,  # noqa: F401
                 secure, section, transport)
from lab_pki import now, spki

CHAIN = "454 4.7.5 Certificate validation failure: "


class Site:
    """A relay with a domain-secure connector, whose configuration is made anew for a reload."""

    def __init__(self, lab):
        self.lab, self.hop, self.port = lab, lab.server(how="clear"), free_port()
        self.folder = lab.place("files")
        for name in ("adatum.pem", "adatum.key", "treyresearch-ca.pem", "treyresearch-ca.crl"):
            shutil.copy(PKI / name, self.folder / name)
        self.relay = lab.relay(self.config())

    def config(self, *more, partners=None, door=None):
        if partners is None:
            partners = [self.trey()]
        return "\n".join([transport(), certificate(folder=self.folder), *partners,
                          inside(self.hop.port), secure("partners", self.port, **(door or {})),
                          *more])

    def trey(self, **keywords):
        return partner(**{"trust_anchors": self.folder / "treyresearch-ca.pem", **keywords})

    def reload(self, *args, **keywords):
        event = self.relay.reload(self.config(*args, **keywords))
        assert event["result"] == "ok", self.relay.log()


@pytest.fixture
def site(lab):
    return Site(lab)


# ---- row 49 ----------------------------------------------------------------------------------

def test_row_49_the_next_mail_uses_the_new_lists(site):
    client = site.lab.opened(site.port)
    assert client.send("a@fabrikam.test").startswith("250")
    assert client.mail("a@treyresearch.test") == CHAIN + "EmptyCertificate"
    fabrikam = partner("fabrikam", ["fabrikam.test"], trust_anchors=PKI / "northwind-ca.pem")
    site.reload(partners=[fabrikam])
    assert client.mail("a@fabrikam.test") == CHAIN + "EmptyCertificate"
    assert client.send("a@treyresearch.test").startswith("250"), "it is listed no more"
    site.reload()
    assert client.mail("a@treyresearch.test") == CHAIN + "EmptyCertificate"
    assert client.quit().startswith("221"), "the session has lived through it"


def test_row_49_a_proved_session_is_judged_again(site):
    client = site.lab.opened(site.port, "treyresearch")
    assert client.send("a@treyresearch.test").startswith("250")
    site.reload(partners=[site.trey(trust_anchors=PKI / "northwind-ca.pem")])
    assert client.mail("a@treyresearch.test") == CHAIN + "UntrustedRoot"
    site.reload()
    assert client.send("a@treyresearch.test").startswith("250")


def test_row_49_a_message_on_its_way_arrives(site):
    client = site.lab.opened(site.port, "treyresearch")
    client.say("MAIL FROM:<a@treyresearch.test>", 250)
    client.say("RCPT TO:<b@adatum.test>", 250)
    client.say("DATA", 354)
    site.reload(partners=[])
    client.write(BODY + ".\r\n")
    assert client.reply().startswith("250")
    assert b"x-domain-secure=pass" in site.hop.messages[0].body


def test_row_49_connectors_come_change_and_go(site):
    old = site.lab.opened(site.port, tls=False)
    port = free_port()
    site.reload(receive("second", port, fqdn="second.adatum.test"))
    assert "second.adatum.test" in site.lab.client(port).greeting
    held = site.lab.opened(port, tls=False)
    site.reload(receive("second", port, fqdn="other.adatum.test"))
    assert "other.adatum.test" in site.lab.client(port).greeting
    site.reload()
    def is_closed():
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except ConnectionRefusedError:
            return True
        return False
    wait_for(is_closed, "closed port")
    for client in (old, held):
        assert client.send("a@unlisted.test").startswith("250"), "open sessions go on"


def test_row_49_a_certificate_is_replaced(site):
    old = site.lab.opened(site.port)
    before = old.socket.getpeercert(binary_form=True)
    chain, key = site.lab.authority().leaf("fresh", names=["mx.adatum.test", "adatum.test"])
    shutil.copy(key, site.folder / "adatum.key")
    shutil.copy(chain, site.folder / "adatum.pem")
    site.reload()
    after = site.lab.opened(site.port).socket.getpeercert(binary_form=True)
    assert after == ssl.PEM_cert_to_DER_cert(chain.read_text()) != before
    assert old.send("a@unlisted.test").startswith("250")


@pytest.mark.parametrize("kind", ["syntax", "reference", "wrong key", "no file", "anchors"])
def test_row_49_a_bad_configuration_changes_nothing(site, kind):
    config = site.config()
    if kind == "syntax":
        config = config.replace("tarpit-interval", "tarpit-intervall")
    elif kind == "reference":
        config = config.replace('send-connector = "inside"', 'send-connector = "outside"')
    elif kind == "wrong key":
        shutil.copy(PKI / "other.key", site.folder / "adatum.key")
    elif kind == "no file":
        (site.folder / "adatum.pem").unlink()
    else:
        (site.folder / "treyresearch-ca.pem").write_text("no certificate")
    event = site.relay.reload(config)
    assert event["result"] == "failed", site.relay.log()
    assert "postern.conf:" in site.relay.log() or str(site.folder) in site.relay.log()
    client = site.lab.opened(site.port, "treyresearch")
    assert client.send("a@treyresearch.test").startswith("250")
    assert b"x-domain-secure=pass" in site.hop.messages[-1].body
    shutil.copy(PKI / "adatum.key", site.folder / "adatum.key")
    shutil.copy(PKI / "adatum.pem", site.folder / "adatum.pem")
    shutil.copy(PKI / "treyresearch-ca.pem", site.folder / "treyresearch-ca.pem")
    site.reload()


def test_row_49_again_and_again(site):
    """Sessions of many generations side by side; none is dropped, none uses the wrong rules."""
    clients = []
    for turn in range(30):
        clients.append(site.lab.opened(site.port, "treyresearch"))
        site.reload(partners=[site.trey()] if turn % 2 else [])
    for client in clients:
        assert client.send("a@treyresearch.test").startswith("250")
    assert all(b"x-domain-secure=pass" in message.body for message in site.hop.messages)
    assert len(site.hop.messages) == 30


# ---- tickets ---------------------------------------------------------------------------------

def context_of(leaf, version):
    context = client_context(leaf)
    context.minimum_version = context.maximum_version = version
    return context


def resumed(lab, port, context, session=None):
    """Was the session taken up again? And the session that came of it."""
    client = lab.client(port)
    client.ehlo()
    client.starttls(context=context, session=session)
    client.say("NOOP", 250)
    fresh, again = client.socket.session, client.socket.session_reused
    client.quit()
    return again, fresh


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
def test_row_49_a_ticket_is_good_on_its_own_connector_only(site, version):
    other = free_port()
    site.reload(receive("second", other, tls="starttls", certificate="edge",
                        client_certificate="ask", trust_anchors=PKI / "treyresearch-ca.pem"))
    context = context_of("treyresearch", version)
    _, session = resumed(site.lab, site.port, context)
    assert resumed(site.lab, other, context, session)[0] is False
    again, _ = resumed(site.lab, site.port, context, session)
    assert again, "where it came from it is good"
    _, elsewhere = resumed(site.lab, other, context)
    assert resumed(site.lab, site.port, context, elsewhere)[0] is False


def change_pin(site):
    site.reload(partners=[site.trey(spki_pins=[spki("treyresearch"), spki("hub")])])


def change_list(site):
    site.reload(partners=[site.trey(domains=["treyresearch.test", "fabrikam.test"])])


def change_anchors(site):
    site.reload(partners=[site.trey(trust_anchors=PKI / "northwind-ca.pem")])


def change_crl(site):
    """The list's file has a new content; the configuration is the same."""
    ca = site.lab.authority("treyresearch-ca")
    (site.folder / "treyresearch-ca.crl").write_bytes(ca.crl(begin=now(minutes=-1)))
    site.reload(partners=[site.trey(crl_files=[site.folder / "treyresearch-ca.crl"])])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("change", [change_pin, change_list, change_anchors, change_crl])
def test_row_49_a_ticket_from_before_a_change_is_worth_nothing(site, version, change):
    site.reload(partners=[site.trey(crl_files=[site.folder / "treyresearch-ca.crl"])])
    context = context_of("treyresearch", version)
    _, session = resumed(site.lab, site.port, context)
    again, session = resumed(site.lab, site.port, context, session)
    assert again
    change(site)
    assert resumed(site.lab, site.port, context, session)[0] is False


def test_row_49_a_revoked_certificate_does_not_come_back_by_its_ticket(site):
    ca = site.lab.authority("treyresearch-ca")
    leaf = ca.leaf("leaf")
    crl = site.folder / "live.crl"
    crl.write_bytes(ca.crl())
    site.reload(partners=[site.trey(crl_files=[crl])])
    context = context_of(leaf, ssl.TLSVersion.TLSv1_3)
    _, session = resumed(site.lab, site.port, context)
    ca.revoke("leaf")
    crl.write_bytes(ca.crl(begin=now(minutes=-1)))
    site.reload(partners=[site.trey(crl_files=[crl])])
    client = site.lab.client(site.port)
    client.ehlo()
    client.starttls(context=context, session=session)
    assert client.mail("a@treyresearch.test") == CHAIN + "Revoked"


def test_row_49_a_client_session_of_ours_is_not_taken_up_after_a_change(lab):
    """The other direction: what we resume towards a next hop."""
    server, port = lab.server(), free_port()
    def config(anchors):
        return "\n".join([
            transport(), certificate(), receive("in", port, send_connector="out"),
            partner(trust_anchors=PKI / f"{anchors}.pem"),
            section("send-connector", "out", smart_hosts=[f"127.0.0.1:{server.port}"],
                    domain_secure=True, certificate="edge", max_messages_per_connection=1)])
    relay = lab.relay(config("treyresearch-ca"))
    client = lab.opened(port, tls=False)
    for _ in range(3):
        assert client.send("a@adatum.test", "b@treyresearch.test").startswith("250")
    before = relay.counter("nexthop_tls_resumed")
    assert before > 0, "it resumes while nothing changes"
    assert relay.reload(config("northwind-ca"))["result"] == "ok"
    reply = client.send("a@adatum.test", "b@treyresearch.test")
    assert reply == CHAIN + "UntrustedRoot"
    assert relay.counter("nexthop_tls_resumed") == before
    assert len(server.messages) == 3
