# SPDX-License-Identifier: Apache-2.0
"""The rows of the capability table about certificates: 8, 9, 30, 32, and 47 and 48."""

import base64
import re
import ssl
import time

import pytest

from conftest import PKI, free_port, wait_for
from lab import (certificate, ctl, inside, lab, partner, receive, secure,  # noqa: F401
                 section, send, transport)
from lab_pki import now, spki

CHAIN = "454 4.7.5 Certificate validation failure: "
UNKNOWN = CHAIN + "RevocationUnknown"


def shown(lab, port):
    """The certificate that the relay shows, as DER."""
    client = lab.opened(port)
    der = client.socket.getpeercert(binary_form=True)
    client.quit()
    return der


def der(path):
    end = "-----END CERTIFICATE-----\n"
    return ssl.PEM_cert_to_DER_cert(path.read_text().split(end)[0] + end)


# ---- row 8: which certificate ----------------------------------------------------------------

def six(lab):
    """Six certificates for mx.adatum.test, the best first; the last has another name."""
    ours = lab.authority()
    name = ["adatum.test", "mx.adatum.test"]
    return {
        "newest": ours.leaf("newest", names=name, begin=now(days=-2)),
        "older": ours.leaf("older", names=["*.adatum.test"], begin=now(days=-3)),
        "common": ours.leaf("common", names=None, cn="mx.adatum.test", begin=now(days=-9)),
        "self": ours.self_signed("self", name, begin=now(hours=-1)),
        "ended": ours.leaf("ended", names=name, begin=now(minutes=-30), end=now(minutes=-1)),
        "other": ours.leaf("other", names=["adatum.test", "mx.fabrikam.test"], begin=now(hours=-2)),
    }


def sections(pairs):
    return [section("certificate", name, chain=chain, key=key)
            for name, (chain, key) in pairs.items()]


def test_row_08_choice_by_fqdn(lab):
    """Without the best, the next: issued before self-signed, newest first, ended last."""
    pairs, hop = six(lab), lab.server(how="clear")
    best_first = list(pairs)[:-1]
    while best_first:
        left = {name: pairs[name] for name in reversed([*best_first, "other"])}
        port = free_port()
        relay = lab.relay(transport(), *sections(left), inside(hop.port),
                          receive("in", port, tls="starttls", fqdn="mx.adatum.test"))
        assert shown(lab, port) == der(pairs[best_first[0]][0]), best_first[0]
        said = ctl("--config", relay.config, "cert", "which", "mx.adatum.test", status=0).stdout
        assert re.search(rf"(?m)^shown +{best_first[0]} ", said), said
        best_first = best_first[1:]


def test_row_08_a_name_in_the_connector_wins(lab):
    pairs, hop, port = six(lab), lab.server(how="clear"), free_port()
    lab.relay(transport(), *sections(pairs), inside(hop.port),
              receive("in", port, tls="starttls", fqdn="mx.adatum.test", certificate="other"))
    assert shown(lab, port) == der(pairs["other"][0])


def test_row_08_the_store(lab):
    """What posternctl cert makes and imports is chosen when it is enabled."""
    pairs, hop, port = six(lab), lab.server(how="clear"), free_port()
    store = lab.place("store")
    assert ctl("--store", store, "cert", "import", pairs["older"][0], "--key", pairs["older"][1],
               status=0).stdout
    self_signed = ctl("--store", store, "cert", "self-signed", "--name", "mx.adatum.test",
                      "--services", "smtp", status=0).stdout
    config = [transport(certificate_store=store), inside(hop.port),
              receive("in", port, tls="starttls", fqdn="mx.adatum.test")]
    relay = lab.relay(*config)
    first = shown(lab, port)
    assert first != der(pairs["older"][0]), f"it is not enabled yet\n{self_signed}"
    listed = ctl("--store", store, "cert", "list", status=0).stdout
    (thumbprint,) = [word for word in re.findall(r"\b[0-9A-Fa-f]{40}\b", listed)
                     if word.lower() not in self_signed.lower()]
    ctl("--store", store, "cert", "enable", thumbprint, "--services", "smtp", status=0)
    assert relay.reload()["result"] == "ok"
    assert shown(lab, port) == der(pairs["older"][0]), "issued comes before self-signed"


# ---- row 9: their end ------------------------------------------------------------------------

def test_row_09_one_event_not_one_for_each_session(lab):
    hop, port = lab.server(how="clear"), free_port()
    relay = lab.relay(transport(), certificate("edge", "adatum-expired"), inside(hop.port),
                      receive("in", port, tls="starttls", fqdn="mx.adatum.test"))
    for _ in range(4):
        assert lab.opened(port).send("a@unlisted.test").startswith("250")
    assert len(relay.has_event_id(12016)) == 1, relay.log()


def test_row_09_a_warning_before(lab):
    ours, hop, port = lab.authority(), lab.server(how="clear"), free_port()
    names = ["mx.adatum.test"]
    soon = section("certificate", "soon", dict(zip(("chain", "key"), ours.leaf(
        "soon", names=names, end=now(days=10)))))
    late = section("certificate", "late", dict(zip(("chain", "key"), ours.leaf(
        "late", names=names, end=now(days=29)))))
    door = receive("in", port, tls="starttls", fqdn="mx.adatum.test")
    relay = lab.relay(transport(certificate_expiry_warning="20d"), soon, late, door,
                      inside(hop.port))
    for _ in range(3):
        lab.opened(port).quit()
    warned = [line for line in relay.log().splitlines() if re.search(r"\bevent=certificate", line)]
    assert len([line for line in warned if "soon" in line]) == 1, relay.log()
    assert not [line for line in warned if "late" in line]
    assert relay.has_event_id(12016) == []


def test_row_09_it_ends_while_we_run(lab):
    ours, hop, port = lab.authority(), lab.server(how="clear"), free_port()
    end = now(seconds=4)
    chain, key = ours.leaf("short", names=["mx.adatum.test"], end=end)
    relay = lab.relay(transport(), section("certificate", "short", chain=chain, key=key),
                      inside(hop.port), receive("in", port, tls="starttls", fqdn="mx.adatum.test"))
    if not relay.has_event_id(12016):  # the machine may be slow
        lab.opened(port).quit()
    wait_for(lambda: time.time() > end.timestamp() + 1, "the end")
    for _ in range(3):
        lab.opened(port).quit()
    wait_for(lambda: relay.has_event_id(12016), "event 12016")
    lab.opened(port).quit()
    assert len(relay.has_event_id(12016)) == 1


# ---- row 30: revocation ----------------------------------------------------------------------

class Revocation:
    """A partner whose certificates name a list on our web server, and a relay for it."""

    def __init__(self, lab, extra=None, cdp=True, **trust):
        self.lab, self.web, self.port = lab, lab.lists(), free_port()
        self.hop = lab.server(how="clear")
        self.ca = lab.authority()
        url = self.web.url("/trey.crl") if cdp else None
        self.leaf, self.bad = self.ca.leaf("leaf", cdp=url), self.ca.leaf("bad", cdp=url)
        self.ca.revoke("bad")
        self.web.put("/trey.crl", self.ca.crl())
        self.config = [
            transport(**(extra or {})), certificate(),
            partner(**{"trust_anchors": self.ca.pem, **trust}),
            partner("northwind", ["northwind.test"], trust_anchors=PKI / "northwind-ca.pem"),
            inside(self.hop.port), secure("partners", self.port)]

    def start(self):
        self.relay = self.lab.relay(*self.config)
        return self

    def mail(self, leaf=None):
        client = self.lab.opened(self.port, leaf or self.leaf)
        reply = client.mail("a@treyresearch.test")
        client.quit()
        return reply


def test_row_30_fetched_once_and_obeyed(lab):
    site = Revocation(lab).start()
    assert site.mail().startswith("250")
    assert site.mail(site.bad) == CHAIN + "Revoked"
    assert [site.mail()[:3] for _ in range(3)] == ["250"] * 3
    assert site.web.hits == ["/trey.crl"], "cached"


@pytest.mark.parametrize("mode,code", [("hard", "454"), ("soft", "250"), ("strict", "454"),
                                       ("off", "250")])
def test_row_30_a_dead_server(lab, mode, code):
    site = Revocation(lab, revocation=mode).start()
    site.web.mode = "dead"
    reply = site.mail()
    assert reply.startswith(code) and (code == "250" or reply == UNKNOWN), reply
    assert bool(site.web.hits) == (mode != "off")


def test_row_30_strict_needs_a_list_and_hard_does_not(lab):
    assert Revocation(lab, cdp=False, revocation="hard").start().mail().startswith("250")
    assert Revocation(lab, cdp=False, revocation="strict").start().mail() == UNKNOWN


def test_row_30_others_go_on_while_one_waits(lab):
    site = Revocation(lab).start()
    site.web.mode = "slow"
    waiting = lab.opened(site.port, site.leaf)
    waiting.write("MAIL FROM:<a@treyresearch.test>\r\n")
    wait_for(lambda: site.web.hits, "fetch")
    assert lab.opened(site.port, "northwind").send("a@northwind.test").startswith("250")
    assert lab.opened(site.port, tls=False).send("a@unlisted.test").startswith("250")
    assert not waiting.has_answer(), "the list has not come"
    site.web.release()
    assert waiting.reply().startswith("250")
    assert len(site.web.hits) == 1


def test_row_30_a_slow_server_is_given_up(lab):
    site = Revocation(lab, extra={"crl_fetch_timeout": "1s"}).start()
    site.web.mode = "slow"
    assert site.mail() == UNKNOWN
    assert lab.opened(site.port, "northwind").send("a@northwind.test").startswith("250")


@pytest.mark.parametrize("kind", ["ended", "foreign", "nonsense", "missing"])
def test_row_30_a_list_that_is_none(lab, kind):
    site = Revocation(lab).start()
    site.web.lists["/trey.crl"] = {
        "ended": lambda: site.ca.crl(begin=now(days=-9), end=now(days=-1)),
        "foreign": lambda: lab.authority().crl(), "nonsense": lambda: b"<html>", "missing": bytes,
    }[kind]()
    assert site.mail() == UNKNOWN


def test_row_30_a_file_changes(lab):
    folder = lab.place("file")
    crl = folder / "trey.crl"
    site = Revocation(lab, cdp=False, revocation="strict", crl_files=[crl])
    crl.write_bytes(site.ca.crl(der=False))
    site.start()
    assert site.mail().startswith("250") and site.mail(site.bad) == CHAIN + "Revoked"
    site.ca.revoke("leaf")
    fresh = folder / "new"
    fresh.write_bytes(site.ca.crl())
    fresh.rename(crl)
    site.relay.reload()
    wait_for(lambda: site.mail() == CHAIN + "Revoked", "the new list in force")
    crl.unlink()


def test_row_30_the_cache_survives_a_restart(lab):
    site = Revocation(lab, extra={"crl_cache": lab.place("cache")}).start()
    assert site.mail().startswith("250")
    site.relay.stop()
    site.web.mode = "dead"
    site.relay.start()
    assert site.mail().startswith("250") and site.mail(site.bad) == CHAIN + "Revoked"


def test_row_30_outbound(lab):
    """The list of a next hop's certificate: revoked, then a server that is away."""
    ca, web = lab.authority(), lab.lists()
    leaf = ca.leaf("leaf", cdp=web.url("/x.crl"))
    ca.revoke("leaf")
    server = lab.server(cert=leaf)
    for mode, word in (("good", "Revoked"), ("dead", "RevocationUnknown")):
        web.put("/x.crl", ca.crl())
        web.mode, port = mode, free_port()
        lab.relay(transport(), certificate(), partner(trust_anchors=ca.pem),
                  receive("in", port, send_connector="out"),
                  send("out", server.port, certificate="edge", domain_secure=True))
        reply = lab.opened(port, tls=False).send("a@adatum.test", "b@treyresearch.test")
        assert reply == CHAIN + word
    assert server.mails == 0


# ---- row 32: direct trust --------------------------------------------------------------------

def direct_trust(lab, pins):
    port, hop = free_port(), lab.server(how="clear")
    relay = lab.relay(transport(accepted_domains=["adatum.test"]), certificate(), inside(hop.port),
                      section("internal-server", "hub", spki_pins=pins),
                      receive("hubs", port, type="internal", certificate="edge"))
    return relay, port, hop


def test_row_32_a_pinned_key_and_no_other(lab):
    """Two pins, as during a rollover: one of a self-signed certificate, one of an ended one."""
    relay, port, hop = direct_trust(lab, [spki("hub"), spki("hub-expired")])
    for leaf in ("hub", "hub-expired"):
        client = lab.opened(port, leaf)
        assert client.send("a@anything.test", "b@elsewhere.test").startswith("250"), relay.log()
    reply = lab.opened(port, "adatum").mail("a@adatum.test")
    assert reply.startswith("454 4.7.0 Temporary authentication failure")
    reply = lab.opened(port).mail("a@adatum.test")
    assert reply == "530 5.7.1 Client was not authenticated"
    assert len(hop.messages) == 2 and relay.counter("direct_trust_refused") == 1
    assert len(relay.has_event_id(1036)) == 1


def test_row_32_a_pin_goes_and_comes(lab):
    relay, port, _ = direct_trust(lab, [spki("hub")])
    text = relay.config.read_text()
    assert lab.opened(port, "hub-expired").mail("a@adatum.test").startswith("454 4.7.0 ")
    assert relay.reload(text.replace(spki("hub"), spki("hub-expired")))["result"] == "ok"
    assert lab.opened(port, "hub-expired").mail("a@adatum.test").startswith("250")
    assert lab.opened(port, "hub").mail("a@adatum.test").startswith("454 4.7.0 ")


def test_row_32_pins_are_written_in_two_ways(lab):
    pin = "sha256//" + base64.b64encode(bytes.fromhex(spki("hub"))).decode()
    _, port, _ = direct_trust(lab, [pin])
    assert lab.opened(port, "hub").mail("a@adatum.test").startswith("250")


def test_row_32_a_partner_by_its_key_alone(lab):
    port, hop = free_port(), lab.server(how="clear")
    lab.relay(transport(), certificate(), inside(hop.port), secure("partners", port),
              partner(trust_anchors=None, spki_pins=[spki("hub-expired")]))
    assert lab.opened(port, "hub-expired").send("a@treyresearch.test").startswith("250")
    assert lab.opened(port, "treyresearch").mail("a@treyresearch.test") == CHAIN + "PinMismatch"
    assert b"x-domain-secure=pass" in hop.messages[0].body


def test_row_32_key_and_chain_and_name_must_hold_where_both_are_given(lab):
    port, hop = free_port(), lab.server(how="clear")
    lab.relay(transport(), certificate(), inside(hop.port), secure("partners", port), partner(
        spki_pins=[spki(leaf) for leaf in ("treyresearch", "treyresearch-expired",
                                           "treyresearch-name")]))
    for leaf, reply in (("treyresearch", "250"), ("treyresearch-wildcard", CHAIN + "PinMismatch"),
                        ("treyresearch-expired", CHAIN + "Expired"),
                        ("treyresearch-name", CHAIN + "SubjectMismatch")):
        assert lab.opened(port, leaf).mail("a@treyresearch.test").startswith(reply), leaf


# ---- rows 47 and 48: what an administrator asks ----------------------------------------------

def lint(lab, *sections):
    config = lab.place("lint") / "postern.conf"
    config.write_text(transport(accepted_domains=["adatum.test"]) + certificate() +
                      "".join(sections))
    result = ctl("--config", config, "config", "lint")
    return result.returncode, result.stdout + result.stderr


DOOR = secure("partners", 2525, remote_ip_ranges=["192.0.2.0/24"])
OUT = section("send-connector", "inside", address_spaces=["*"], domain_secure=True,
              certificate="edge")
MISTAKES = {
    "own domain": ([partner(domains=["adatum.test"]), DOOR, OUT], "adatum.test"),
    "no secure door": ([partner(), receive("in", 2525), OUT], '"trey"'),
    "no secure way out": ([partner(), DOOR, inside(2526)], "treyresearch.test"),
    "connector without partner": ([DOOR, OUT], "partners"),
    "near miss": ([partner(), DOOR, OUT, send("typo", 2527, address_spaces=["treyresereach.test"])],
                  "treyresereach.test"),
    "proxy and secure": ([partner(), DOOR, send("inside", 2526, domain_secure=True,
                                                frontend_proxy=True)], "frontend-proxy"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_row_47_the_articles_own_mistakes(lab, name):
    sections_, word = MISTAKES[name]
    status, said = lint(lab, *sections_)
    assert status != 0, said
    assert any(word in line and re.search(r"postern\.conf:[0-9]+", line)
               for line in said.splitlines()), said


def test_row_47_nothing_to_find(lab):
    status, said = lint(lab, partner(), DOOR, OUT)
    assert status == 0, said


def test_row_48_partner_check(lab):
    """A live handshake with its exchanger; each precondition with its outcome."""
    for leaf, status in (("treyresearch", 0), ("treyresearch-expired", 1)):
        smtp = free_port()
        lab.server(cert=leaf, port=smtp, address="127.20.0.1", client="require")
        dns = lab.dns(mx={"treyresearch.test": [(10, "mx.treyresearch.test")]},
                      hosts={"mx.treyresearch.test": "127.20.0.1"})
        config = lab.place("check") / "postern.conf"
        config.write_text(
            transport(dns_servers=[dns.address], accepted_domains=["adatum.test"]) +
            certificate() + partner() + secure("partners", free_port()) +
            section("send-connector", "inside", address_spaces=["*"], port=smtp,
                    domain_secure=True, certificate="edge"))
        result = ctl("--config", config, "partner", "check", "treyresearch.test")
        said = result.stdout + result.stderr
        assert result.returncode == status, said
        assert len([line for line in said.splitlines() if re.search(r"\bpass\b", line)]) >= 4, said
        assert bool(re.search(r"(?m)^ *\d+ FAIL\b", said)) == bool(status), said
        assert ("Expired" in said) == bool(status), said


def test_row_48_an_unknown_partner(lab):
    config = lab.place("check") / "postern.conf"
    config.write_text(transport() + certificate() + partner() + DOOR + OUT)
    result = ctl("--config", config, "partner", "check", "unlisted.test")
    assert result.returncode == 1 and "unlisted.test" in result.stdout + result.stderr
