# SPDX-License-Identifier: Apache-2.0
"""Rows 25 to 27 of the capability table through the queue: mail to a listed domain waits for a peer
that proves itself, and is never sent otherwise, whatever an administrator or a restart does."""

import re
import ssl

import pytest

from conftest import PKI, free_port, wait_for
from lab import certificate, ctl, lab, opened, partner, section  # noqa: F401
from queue_desk import (SLOW, Hop, admin, anew, arrive, hand_in, keeper, listed, message, open_hop,
                        post, queue, queues, restart, wait_message, wait_queue, way)

SECURED = "treyresearch.test (secured)"
CHAIN = "454 4.7.5 Certificate validation failure: "


def der(leaf):
    end = "-----END CERTIFICATE-----\n"
    return ssl.PEM_cert_to_DER_cert((PKI / f"{leaf}.pem").read_text().split(end)[0] + end)


def trey():
    return partner(crl_files=[PKI / "treyresearch-ca.crl"])


def out(port, name="out", **words):
    return way(name, port, **{"certificate": "edge", "tls_auth_level": None, "domain_secure": True,
                              **words})


def secure_keeper(lab, port, *more, connector=None, **words):
    return keeper(lab, certificate(), trey(), out(port, **(connector or {})), *more, **words)


def to_trey(relay, *words, **options):
    return hand_in(relay, *words, to=["b@treyresearch.test"], sender="a@adatum.test", **options)


def held_back(relay, name, error, attempts=2):
    """It is in Retry for that reason, and was tried so often without a word in clear."""
    def tried():
        row = queue(relay, SECURED)
        return row.get("retry_count", 0) >= attempts and row
    wait_for(tried, f"{attempts} attempts")
    row = wait_queue(relay, "Retry", SECURED)
    assert row["message_count"] == 1
    assert row["tls_domain"] == "treyresearch.test"
    assert error in row["last_error"], row["last_error"]
    assert re.match(r"\[\{LRT=.*\};\{LED=451 4\.4\.0 Primary target IP address responded with: "
                    r"\".*\"\};\{FQDN=[^}]+\};\{IP=[^}]+\}\]$", row["last_error"])
    shown = wait_message(relay, name, "Retry")
    assert shown["queue"] == SECURED and error in shown["last_error"]
    assert relay.counter("tls_downgraded") == 0 and relay.counter("queue_sent") == 0


def proved(hop, *words):
    """The mail came, and each of it to who has seen our certificate."""
    arrive(hop, *words)
    assert hop.in_clear == 0
    assert hop.client_certificates and set(hop.client_certificates) == {der("adatum")}


def test_row_25_secured_mail_from_the_queue(lab):
    hop = open_hop(lab, how="tls", client="require")
    relay = secure_keeper(lab, hop.port)
    to_trey(relay, "one")
    proved(hop, "one")
    (event,) = relay.events("nexthop-tls")
    assert event["server-cert"] == "Valid" and "mx.treyresearch.test" in event["subject"]
    assert queue(relay, SECURED)["status"] == "Ready"


# ---- row 26: no downgrade --------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["no-starttls", "stripped", "broken"])
def test_row_26_no_mail_until_the_peer_is_mended(lab, kind):
    hop = open_hop(lab, how={"no-starttls": "clear", "broken": "broken"}.get(kind, "tls"),
                   client="require")
    road = lab.path(hop.port, strip=kind == "stripped")
    relay = secure_keeper(lab, road.port)
    name = to_trey(relay, "one")
    held_back(relay, name, "451 4.7.3 ")
    restart(relay, by_kill=True)
    held_back(relay, name, "451 4.7.3 ", attempts=4)
    assert hop.mails == 0
    hop.mend(lab.pki)
    road.strip = False
    proved(hop, "one")
    wait_message(relay, name, "none")
    row = wait_queue(relay, "Ready", SECURED)
    assert row["last_error"] == "" and row["retry_count"] == 0


def test_row_26_starttls_that_is_lost_between_two_messages(lab):
    """What was proved for one session is not for the next."""
    hop = open_hop(lab, how="tls", client="require")
    relay = secure_keeper(lab, hop.port, connector={"max_messages_per_connection": 1})
    to_trey(relay, "one")
    proved(hop, "one")
    hop.how = "clear"
    name = to_trey(relay, "two")
    def tried():
        return "451 4.7.3 " in queue(relay, SECURED).get("last_error", "")
    wait_for(tried, "attempt that failed")
    assert message(relay, name)["status"] != "none" and hop.in_clear == 0
    hop.how = "tls"
    proved(hop, "one", "two")


def test_row_26_others_go_on_in_the_clear(lab):
    """The same connector, the same host: a domain that is not listed does not wait (4.8)."""
    hop = open_hop(lab)
    relay = secure_keeper(lab, hop.port, **SLOW)
    client = opened(relay.port, tls=False)
    name = post(client, "both", to=["b@treyresearch.test", "b@unlisted.test"],
                sender="a@adatum.test")
    arrive(hop, "both")
    assert hop.messages[0].recipients[0].startswith("RCPT TO:<b@unlisted.test>")
    assert len(hop.messages[0].recipients) == 1
    row = wait_queue(relay, "Retry", SECURED)
    assert "451 4.7.3 " in row["last_error"]
    shown = message(relay, name)
    assert (shown["queue"], shown["status"], shown["recipients_open"]) == (SECURED, "Retry", 1)
    assert not [line for line in hop.commands if "treyresearch.test" in line]
    hop.mend(lab.pki)
    admin(relay, "queue", "retry", SECURED)
    arrive(hop, "both", "both")
    assert hop.in_clear == 1 and hop.messages[1].recipients[0].startswith(
        "RCPT TO:<b@treyresearch.test>")


def test_row_26_no_administrator_sends_it_in_clear(lab):
    """Redirected to a connector that proves nothing it waits there as well; so resubmitted."""
    hop, plain = open_hop(lab), open_hop(lab)
    relay = secure_keeper(lab, hop.port, way("plain", plain.port, "plain.test"), **SLOW)
    name = to_trey(relay, "one")
    wait_queue(relay, "Retry", SECURED)
    admin(relay, "queue", "retry", SECURED, "--resubmit")
    wait_for(lambda: message(relay, name).get("queue") == SECURED, "its queue")
    admin(relay, "queue", "redirect", SECURED, "--to", "plain")
    wait_for(lambda: message(relay, name).get("queue") == "Unreachable", "Unreachable")
    assert message(relay, name)["last_error"] == \
        "451 4.7.3 Mail to treyresearch.test needs a domain-secured connector"
    restart(relay)
    admin(relay, "queue", "retry", "Unreachable", "--resubmit")
    wait_for(lambda: message(relay, name).get("queue") in ("Unreachable", SECURED), "its place")
    assert hop.mails == plain.mails == 0 and plain.connections == 0


def test_row_26_an_unsecured_connector_does_not_carry_it(lab):
    """Such mail is not taken; what was taken before waits until there is a way that is secured."""
    hop = open_hop(lab, how="tls", client="require")
    road = lab.path(hop.port)
    relay = secure_keeper(lab, road.port, **SLOW)
    name = to_trey(relay, "one")
    wait_queue(relay, "Retry", SECURED)
    road.strip = False
    unsecured = anew(relay, certificate(), trey(), out(road.port, domain_secure=False))
    assert relay.reload(unsecured)["result"] == "ok"
    wait_for(lambda: message(relay, name).get("queue") == "Unreachable", "Unreachable")
    refusal = "451 4.7.3 Mail to treyresearch.test needs a domain-secured connector"
    assert message(relay, name)["last_error"] == refusal
    client = lab.opened(relay.port, tls=False)
    assert client.send("a@adatum.test", "b@treyresearch.test") == refusal
    hand_in(relay, "two", to=["b@unlisted.test"], sender="a@adatum.test")
    arrive(hop, "two")
    assert relay.reload(anew(relay, certificate(), trey(), out(road.port)))["result"] == "ok"
    wait_for(lambda: message(relay, name).get("queue") != "Unreachable", "its queue")
    if queue(relay, SECURED)["status"] == "Retry":
        ctl("--config", relay.config, "queue", "retry", SECURED)
    proved(hop, "one", "two")


def test_row_26_a_domain_that_is_listed_while_its_mail_waits(lab):
    """The rule is the one of the moment of delivery; and the way back is the list (4.8)."""
    port = free_port()
    relay = keeper(lab, certificate(), trey().replace("treyresearch.test", "other.test"),
                   out(port), **SLOW)
    name = to_trey(relay, "one")
    wait_message(relay, name, "Retry")
    assert message(relay, name)["queue"] == "out"
    hop = open_hop(lab, port)
    assert relay.reload(anew(relay, certificate(), trey(), out(port)))["result"] == "ok"
    wait_for(lambda: message(relay, name).get("queue") == SECURED, "its new queue")
    wait_for(lambda: "451 4.7.3 " in queue(relay, SECURED).get("last_error", ""), "failure")
    assert hop.mails == 0
    assert relay.reload(anew(relay, certificate(), out(port)))["result"] == "ok"
    def moved():
        return message(relay, name).get("queue") != SECURED
    wait_for(moved, "a queue that is not secured")
    for identity, row in queues(relay).items():
        if row["status"] == "Retry" and row["message_count"] > 0:
            ctl("--config", relay.config, "queue", "retry", identity)
    arrive(hop, "one")


# ---- row 27: certificates --------------------------------------------------------------------

BAD = {"treyresearch-other": "UntrustedRoot", "treyresearch-expired": "Expired",
       "treyresearch-revoked": "Revoked", "treyresearch-eku": "BadUsage",
       "treyresearch-name": "SubjectMismatch", "treyresearch-host": "SubjectMismatch"}


@pytest.mark.parametrize("leaf", BAD)
def test_row_27_no_mail_until_the_certificate_is_mended(lab, leaf):
    hop = open_hop(lab, how="tls", client="require", cert=leaf)
    relay = secure_keeper(lab, hop.port)
    name = to_trey(relay, "one")
    held_back(relay, name, CHAIN + BAD[leaf])
    assert hop.mails == 0 and "QUIT" in hop.commands
    table = admin(relay, "queue", "show", SECURED)
    assert re.search(r"^TlsDomain +: treyresearch\.test$", table, re.MULTILINE), table
    hop.mend(lab.pki)
    proved(hop, "one")
    wait_message(relay, name, "none")


def by_mx(lab, leafs, **words):
    """treyresearch.test by MX, one host for each leaf, best first: relay, its hosts."""
    smtp = free_port()
    hops = [lab.keep(Hop(lab.pki, how="tls", client="require", cert=leaf,
                         address=f"127.20.3.{number}", port=smtp))
            for number, leaf in enumerate(leafs, 1)]
    names = [f"mx{number}.treyresearch.test" for number in range(len(leafs))]
    dns = lab.dns(mx={"treyresearch.test": [(10 * number, name)
                                            for number, name in enumerate(names, 1)]},
                  hosts={name: hop.address for name, hop in zip(names, hops)})
    relay = keeper(lab, certificate(), trey(),
                   section("send-connector", "internet", address_spaces=["*"], port=smtp,
                           domain_secure=True, certificate="edge"),
                   dns_servers=[dns.address], **words)
    return relay, hops


def test_row_27_the_next_host_is_tried(lab):
    relay, (bad, good) = by_mx(lab, ["treyresearch-name", "treyresearch"])
    to_trey(relay, "one")
    proved(good, "one")
    assert bad.connections >= 1 and bad.mails == 0
    row = queues(relay)[SECURED]
    assert row["delivery_type"] == "DnsConnectorDelivery"
    assert row["next_hop_domain"] == "treyresearch.test"


def test_row_27_no_host_is_good(lab):
    relay, hops = by_mx(lab, ["treyresearch-expired", "treyresearch-name"])
    name = to_trey(relay, "one")
    held_back(relay, name, CHAIN)
    assert re.search(r"\{FQDN=mx[01]\.treyresearch\.test\};\{IP=127\.20\.3\.[12]",
                     queue(relay, SECURED)["last_error"])
    assert [hop.mails for hop in hops] == [0, 0] and all(hop.connections for hop in hops)
    hops[1].mend(lab.pki)
    proved(hops[1], "one")
    assert hops[0].mails == 0


def test_row_27_the_sender_hears_of_it_when_it_is_too_old(lab):
    """The NDR says why, and goes the ordinary way."""
    hop, back = open_hop(lab, how="tls", client="require", cert="treyresearch-name"), open_hop(lab)
    relay = secure_keeper(lab, hop.port, way("back", back.port, "adatum.test"),
                          message_expiration_timeout="5s")
    name = to_trey(relay, "one")
    arrive(back, "Undeliverable: one")
    assert b"\r\nStatus: 4.4.7\r\n" in back.messages[0].body
    wait_message(relay, name, "none")
    assert hop.mails == 0 and listed(relay, "msg", "list") == []
