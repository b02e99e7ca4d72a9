# SPDX-License-Identifier: Apache-2.0
"""Where mail of the queue goes: recipients of several destinations, what DNS says, a configuration
that sends a domain elsewhere, and other workers than those that took it."""

import pytest

from admin_lab import NameServer
from conftest import free_port, wait_for
from lab import ctl, lab, opened, section  # noqa: F401
from queue_desk import (SLOW, Hop, admin, anew, arrive, entry, hand_in, keeper, kept, kill, listed,
                        message, open_hop, post, queue, queues, restart, told, wait_message,
                        wait_queue, way)


def recipients(one):
    return sorted(line[len("RCPT TO:<"):].split(">")[0] for line in one.recipients)


# ---- one message, several destinations -------------------------------------------------------

def test_a_message_is_split_by_destination(lab):
    """Each next hop gets its own recipients, once; one that is away holds up its own only."""
    a, b, port = open_hop(lab), open_hop(lab), free_port()
    relay = keeper(lab, way("a", a.port, "a.test"), way("b", b.port, "b.test"),
                   way("c", port, "c.test"), **SLOW)
    name = hand_in(relay, "one", to=["1@a.test", "2@b.test", "3@a.test", "4@c.test", "5@b.test"])
    arrive(a, "one")
    arrive(b, "one")
    assert recipients(a.messages[0]) == ["1@a.test", "3@a.test"]
    assert recipients(b.messages[0]) == ["2@b.test", "5@b.test"]
    row = wait_message(relay, name, "Retry")
    assert (row["queue"], row["recipient_count"], row["recipients_open"]) == ("c", 5, 1)
    restart(relay, by_kill=True)
    c = open_hop(lab, port)
    admin(relay, "queue", "retry", "c")
    arrive(c, "one")
    assert recipients(c.messages[0]) == ["4@c.test"]
    wait_message(relay, name, "none")
    arrive(a, "one")
    arrive(b, "one")


def test_more_recipients_than_one_transaction_takes(lab):
    hop = open_hop(lab)
    relay = keeper(lab, way("out", hop.port))
    to = [f"r{number:03d}@adatum.test" for number in range(190)]
    name = hand_in(relay, "one", to=to)
    wait_message(relay, name, "none")
    assert all(len(one.recipients) <= 100 for one in hop.messages)
    assert sorted(rcpt for one in hop.messages for rcpt in recipients(one)) == to


# ---- DNS -------------------------------------------------------------------------------------

def by_mx(lab, hosts, mx, names=None, dns=None, **words):
    """A relay that sends by MX to servers at 127.20.4.N: relay, its servers by N."""
    smtp, back = free_port(), open_hop(lab)
    hops = {number: lab.keep(Hop(lab.pki, address=f"127.20.4.{number}", port=smtp))
            for number in hosts}
    dns = dns or lab.dns(mx=mx, hosts=names or {f"mx{number}.test": f"127.20.4.{number}"
                                                for number in range(1, 9)}).address
    relay = keeper(lab, section("send-connector", "internet", address_spaces=["*"], port=smtp,
                                tls_auth_level="none", max_connections=40),
                   way("back", back.port, "treyresearch.test"), dns_servers=[dns], **words)
    relay.smtp, relay.back = smtp, back
    return relay, hops


def test_dns_a_queue_for_each_domain(lab):
    relay, hops = by_mx(lab, [1, 2], {"a.test": [(10, "mx1.test")], "b.test": [(10, "mx2.test")]})
    hand_in(relay, "one", to=["1@a.test", "2@b.test", "3@A.Test"])
    for number, mine in ((1, ["1@a.test", "3@A.Test"]), (2, ["2@b.test"])):
        arrive(hops[number], "one")
        assert recipients(hops[number].messages[0]) == mine
    rows = queues(relay)
    for domain in ("a.test", "b.test"):
        assert rows[domain]["delivery_type"] == "DnsConnectorDelivery"
        assert rows[domain]["next_hop_domain"] == domain


def test_dns_hosts_of_equal_preference_share(lab):
    """Which is first is drawn for each domain; of thirty, both get some."""
    domains = [f"d{number:02d}.test" for number in range(30)]
    relay, hops = by_mx(lab, [1, 2], {domain: [(10, "mx1.test"), (10, "mx2.test")]
                                      for domain in domains})
    client = opened(relay.port, tls=False)
    for domain in domains:
        post(client, domain, to=[f"b@{domain}"])
    wait_for(lambda: len(hops[1].messages) + len(hops[2].messages) >= 30, "messages")
    assert sorted(hops[1].words + hops[2].words) == domains
    assert hops[1].messages and hops[2].messages


@pytest.mark.parametrize("why", ["refused", "EHLO", "MAIL", "DATA", "cut"])
def test_dns_the_second_host_when_the_first_is_down(lab, why):
    """Whether it is away, says 421 at some step, or breaks the session in the middle of a message:
    the second is tried at once, without a word of failure."""
    relay, hops = by_mx(lab, [2] if why == "refused" else [1, 2],
                        {"a.test": [(10, "mx1.test"), (20, "mx2.test")]}, **SLOW)
    if why == "cut":
        hops[1].hold()
    elif why != "refused":
        hops[1].answers.update({why: "421 4.3.2 not now", "BDAT": "421 4.3.2 not now"}
                               if why == "DATA" else {why: "421 4.3.2 not now"})
    hand_in(relay, "one", "two", to=["b@a.test"])
    if why == "cut":
        hops[1].holds()
        hops[1].cut()
    arrive(hops[2], "one", "two")
    assert why == "refused" or hops[1].connections >= 1
    assert relay.counter("queue_retries") == 0
    wait_for(lambda: listed(relay, "msg", "list") == [], "end of the message")


def test_dns_all_hosts_are_down(lab):
    relay, _ = by_mx(lab, [], {"a.test": [(10, "mx1.test"), (20, "mx2.test")]})
    name = hand_in(relay, "one", to=["b@a.test"])
    row = wait_queue(relay, "Retry", "a.test")
    assert row["next_hop_domain"] == "a.test" and "{FQDN=mx" in row["last_error"]
    assert message(relay, name)["status"] != "none"
    arrive(lab.keep(Hop(lab.pki, address="127.20.4.2", port=relay.smtp)), "one")


def test_dns_all_hosts_break_off(lab):
    """Each is tried once, and then the queue waits; the next time it is the same."""
    relay, hops = by_mx(lab, [1, 2, 3], {"a.test": [(10 * number, f"mx{number}.test")
                                                    for number in (1, 2, 3)]},
                        queue_glitch_retry_interval="11s")
    for hop in hops.values():
        hop.answers["MAIL"] = "421 4.3.2 not now"
    hand_in(relay, "one", to=["b@a.test"])
    row = wait_queue(relay, "Retry", "a.test")
    assert row["retry_count"] == 1 and "421 4.3.2 not now" in row["last_error"]
    assert [hop.mails for hop in hops.values()] == [1, 1, 1]
    del hops[3].answers["MAIL"]
    arrive(hops[3], "one")
    assert [hop.mails for hop in hops.values()] == [2, 2, 2]


def returned(relay, word, status, words):
    arrive(relay.back, f"Undeliverable: {word}")
    body = relay.back.messages[0].body.decode()
    assert f"\r\nStatus: {status}\r\n" in body and words in body, body
    wait_for(lambda: listed(relay, "msg", "list") == [], "end of the message")


def test_dns_null_mx(lab):
    """RFC 7505: a domain that takes no mail; the sender hears of it at once."""
    names = lab.keep(NameServer({"null.test": [(0, ".")]}))
    relay, _ = by_mx(lab, [], {}, dns=f"127.0.0.1:{names.port}")
    name = hand_in(relay, "one", to=["b@null.test"])
    returned(relay, "one", "5.1.10", "556 5.1.10 Domain null.test takes no mail")
    (row,) = wait_for(lambda: told(relay, id=name, event="FAIL"), "FAIL")
    assert row["Source"] == "DNS" and row["RecipientStatus"].startswith("556 5.1.10 ")


def test_dns_no_such_domain(lab):
    relay, _ = by_mx(lab, [], {})
    hand_in(relay, "one", to=["b@nowhere.test"])
    returned(relay, "one", "5.1.2", "550 5.1.2 Domain nowhere.test has no mail server")


def test_dns_hosts_without_an_address(lab):
    relay, _ = by_mx(lab, [], {"hollow.test": [(5, "x.test")]})
    hand_in(relay, "one", to=["b@hollow.test"])
    returned(relay, "one", "5.4.4", "550 5.4.4 The mail servers of hollow.test have no address")


def test_dns_that_leads_back_to_us(lab):
    dns, back, port = lab.dns(mx={"loop.test": [(10, "mx.loop.test")]},
                              hosts={"mx.loop.test": "127.0.0.1"}), open_hop(lab), free_port()
    relay = lab.relay(kept(dns_servers=[dns.address], control_socket=lab.folder / "control"),
                      entry(port),
                      section("send-connector", "internet", address_spaces=["*"], port=port),
                      way("back", back.port, "treyresearch.test"))
    relay.port, relay.back = port, back
    hand_in(relay, "one", to=["b@loop.test"])
    returned(relay, "one", "5.4.6", "554 5.4.6 Mail for loop.test would come back to this server")


def test_dns_one_of_several_recipients_has_no_domain(lab):
    relay, hops = by_mx(lab, [1], {"a.test": [(10, "mx1.test")]})
    hand_in(relay, "one", to=["b@a.test", "c@nowhere.test"])
    arrive(hops[1], "one")
    returned(relay, "one", "5.1.2", "nowhere.test")
    assert recipients(hops[1].messages[0]) == ["b@a.test"]
    assert b"b@a.test" not in relay.back.messages[0].body.partition(b"message/rfc822")[0]


def test_dns_servers_that_are_away_are_no_answer(lab):
    """Nobody is told anything: the mail waits until somebody knows."""
    port = free_port()
    relay, hops = by_mx(lab, [1], {}, dns=f"127.0.0.1:{port}")
    name = hand_in(relay, "one", to=["b@a.test"])
    row = wait_queue(relay, "Retry", "a.test")
    assert "451 4.4.3 The mail servers of a.test could not be looked up" in row["last_error"]
    assert message(relay, name)["queue"] == "a.test" and relay.back.connections == 0
    dns = lab.dns(mx={"a.test": [(10, "mx1.test")]}, hosts={"mx1.test": "127.20.4.1"})
    text_now = relay.config.read_text().replace(f"127.0.0.1:{port}", dns.address)
    assert relay.reload(text_now)["result"] == "ok"
    arrive(hops[1], "one")


def test_smart_hosts_and_many_messages_at_once(lab):
    """Several sessions with the first host break at a time: all that they had goes to the second,
    and what was delivered by the first before that is not sent again."""
    first, second = open_hop(lab), open_hop(lab)
    relay = keeper(lab, way("out", first.port, smart_hosts=[f"127.0.0.1:{first.port}",
                                                            f"127.0.0.1:{second.port}"]), **SLOW)
    hand_in(relay, "one", "two")
    arrive(first, "one", "two")
    admin(relay, "queue", "suspend", "out")
    client = opened(relay.port, tls=False)
    words = [f"n{number:02d}" for number in range(40)]
    for word in words:
        post(client, word)
    first.answers["MAIL"] = "421 4.3.2 not now"
    admin(relay, "queue", "resume", "out")
    arrive(second, *words)
    arrive(first, "one", "two")
    assert relay.counter("queue_retries") == 0 and first.mails > 2


# ---- another configuration -------------------------------------------------------------------

def test_a_reload_that_moves_a_domain_moves_its_mail(lab):
    old, new = free_port(), open_hop(lab)
    def out(spaces):
        return [way("old", old, *spaces[0]), way("new", new.port, *spaces[1])]
    relay = keeper(lab, *out((["a.test", "b.test"], ["c.test"])), **SLOW)
    client = opened(relay.port, tls=False)
    names = [post(client, word, to=[f"1@{word}.test"]) for word in ("a", "b")]
    both = post(client, "both", to=["1@a.test", "1@b.test"])
    wait_queue(relay, "Retry", "old")
    assert relay.reload(anew(relay, *out((["b.test"], ["a.test", "c.test"]))))["result"] == "ok"
    arrive(new, "a", "both")
    assert sorted(rcpt for one in new.messages for rcpt in recipients(one)) == \
        ["1@a.test", "1@a.test"]
    left = {row["id"]: row for row in listed(relay, "msg", "list")}
    assert set(left) == {names[1], both}
    assert {row["queue"] for row in left.values()} == {"old"}
    hop = open_hop(lab, old)
    ctl("--config", relay.config, "queue", "retry", "old")
    arrive(hop, "b", "both")
    assert all(recipients(one) == ["1@b.test"] for one in hop.messages)


def test_a_reload_while_a_transfer_is_under_way(lab):
    """It ends where it began; what waited behind it goes the new way. Nobody gets it twice."""
    old, new = open_hop(lab), open_hop(lab)
    old.hold()
    relay = keeper(lab, way("old", old.port, "a.test", max_deliveries=1),
                   way("new", new.port, "c.test"))
    client = opened(relay.port, tls=False)
    for word in ("one", "two"):
        post(client, word, to=["1@a.test"])
    old.holds()
    event = relay.reload(anew(relay, way("old", old.port, "c.test", max_deliveries=1),
                              way("new", new.port, "a.test")))
    assert event["result"] == "ok"
    arrive(new, "two")
    old.release()
    arrive(old, "one")
    wait_for(lambda: listed(relay, "msg", "list") == [], "end of both")
    arrive(new, "two")


def test_a_reload_without_any_way(lab):
    port = free_port()
    relay = keeper(lab, way("out", port, "a.test"), **SLOW)
    name = hand_in(relay, "one", to=["1@a.test"])
    wait_message(relay, name, "Retry")
    assert relay.reload(anew(relay, way("out", port, "b.test")))["result"] == "ok"
    wait_for(lambda: message(relay, name).get("queue") == "Unreachable", "Unreachable")
    restart(relay)
    assert message(relay, name)["queue"] == "Unreachable"
    hop = open_hop(lab, port)
    assert relay.reload(anew(relay, way("out", port)))["result"] == "ok"
    # It is back in its queue, which was in Retry, and is still.
    wait_for(lambda: message(relay, name).get("queue") == "out", "its queue")
    admin(relay, "queue", "retry", "out")
    arrive(hop, "one")


def test_a_smart_host_that_is_replaced(lab):
    """The same connector, another machine: the queue keeps its name, and is tried there."""
    port, hop = free_port(), open_hop(lab)
    relay = keeper(lab, way("out", port))
    hand_in(relay, "one")
    wait_queue(relay, "Retry")
    assert relay.reload(anew(relay, way("out", hop.port)))["result"] == "ok"
    arrive(hop, "one")


# ---- other workers ---------------------------------------------------------------------------

def spread(relay, count):
    """Messages by as many sessions, which the kernel gives to some worker each: by subject."""
    return {f"w{number:02d}": hand_in(relay, f"w{number:02d}") for number in range(count)}


def test_fewer_workers_deliver_what_the_others_had(lab):
    """Messages that are suspended or put off, and a queue that is suspended, come along."""
    port = free_port()
    wide = {"spool_max_size": "128MB"}
    relay = keeper(lab, way("out", port), way("other", port, "other.test"), workers=3, **wide,
                   **SLOW)
    names = spread(relay, 24)
    assert len({row["worker"] for row in listed(relay, "msg", "list")}) > 1
    kept_back = [names["w03"], names["w17"]]
    admin(relay, "msg", "suspend", *kept_back)
    relay.stop()
    for workers in (1, 2):
        relay.config.write_text(anew(relay, way("out", port), way("other", port, "other.test"),
                                     workers=workers))
        relay.start()
        rows = {row["id"]: row for row in listed(relay, "msg", "list")}
        assert set(rows) == set(names.values())
        assert all((row["status"] == "Suspended") == (name in kept_back)
                   for name, row in rows.items())
        if workers == 1:
            relay.stop()
    hop = open_hop(lab, port)
    ctl("--config", relay.config, "queue", "retry", "out")
    arrive(hop, *[word for word in names if names[word] not in kept_back])
    admin(relay, "msg", "resume", *kept_back)
    arrive(hop, *names)
    restart(relay)
    assert listed(relay, "msg", "list") == []


def test_fewer_workers_after_a_kill(lab):
    port = free_port()
    relay = keeper(lab, way("out", port), workers=3, spool_max_size="128MB")
    names = spread(relay, 12)
    kill(relay)
    relay.config.write_text(anew(relay, way("out", port), workers=1))
    relay.start()
    hop = open_hop(lab, port)
    arrive(hop, *names)
    hand_in(relay, "last")
    arrive(hop, *names, "last")


def test_a_suspended_queue_stays_so_for_all_workers(lab):
    """The queue of an identity is one to an administrator, however many workers there are."""
    hop = open_hop(lab)
    relay = keeper(lab, way("out", hop.port), workers=3, spool_max_size="128MB")
    spread(relay, 8)
    wait_for(lambda: len(hop.messages) == 8, "messages")
    admin(relay, "queue", "suspend", "out")
    names = spread(relay, 12)
    relay.stop()
    before = len(hop.messages)
    relay.config.write_text(anew(relay, way("out", hop.port), workers=1))
    relay.start()
    row = queue(relay)
    assert row["status"] == "Suspended"
    assert row["message_count"] == len(names) and before == 8, (row, before)
    admin(relay, "queue", "resume", "out")
    wait_for(lambda: len(hop.messages) >= 20, "the others")
    assert sorted(set(hop.words)) == sorted(names) and len(hop.messages) == 20
