# SPDX-License-Identifier: Apache-2.0
"""cut-through: a message goes straight to its next hop, and is kept only if that fails."""

import socket

import pytest

from conftest import free_port, wait_for
from lab import Server, lab, partner, receive, send, transport  # noqa: F401
from test_queue_smoke import (QUICK, accepted, body, config, queue_relay, restart, subjects,
                              track_rows)

THROUGH = {"deliver": "queue", "cut_through": True}
LINES = "".join(f"{line:078d}\r\n" for line in range(20000))


def through_relay(lab, hop_port, **words):
    return queue_relay(lab, hop_port, receive_words=THROUGH, **words)


def counts(relay):
    stats = relay.stats()
    return [stats.get(name, 0) for name in
            ("queue_through", "queue_through_kept", "queue_through_doubtful", "queue_accepted")]


def kept_words(relay):
    return [event["why"] for event in relay.events("kept")]


@pytest.mark.parametrize("chunking", [True, False])
@pytest.mark.parametrize("trusted", [True, False])
def test_straight_through(lab, chunking, trusted):
    hop = lab.server(how="clear")
    relay, port = through_relay(lab, hop.port, send_words={
        "chunking": chunking, "trusted_next_hop": trusted})
    client = lab.opened(port, tls=False)
    answer = client.send(to=("b@adatum.test", "c@adatum.test"), body=body("one") + LINES)
    assert answer == "250 2.6.0 <1@hop.test> Queued mail for delivery"
    message = hop.messages[0]
    assert (message.how == "BDAT") == chunking
    assert len(message.recipients) == 2
    assert message.body.decode().endswith(LINES)
    assert (b"X-MS-Exchange-Organization-AuthAs" in message.body) == trusted
    assert counts(relay) == [1, 0, 0, 0]
    event = relay.events("message", result="accepted")[0]
    assert not event["nexthop"].startswith("queue:") and event["nexthop"] != "-"
    # The session is used again, and nothing is left that a restart would send.
    assert "hop.test" in client.send(body=body("two"))
    assert hop.connections == 1
    restart(relay)
    assert "hop.test" in lab.opened(port, tls=False).send(body=body("three"))
    assert subjects(hop) == ["one", "three", "two"]


@pytest.mark.parametrize("refused", [False, True])
def test_a_client_that_does_not_wait(lab, refused):
    hop = lab.server(how="clear")
    relay, port = through_relay(lab, hop.port)
    client = lab.opened(port, tls=False)
    if refused:
        hop.answers["RCPT"] = "550 5.1.1 nobody"
    text = body("fast").encode()
    for _ in range(2):
        client.write(b"MAIL FROM:<a@y.test>\r\n"
                     b"RCPT TO:<b@adatum.test>\r\nRCPT TO:<c@adatum.test>\r\n"
                     + f"BDAT {len(text)}\r\n".encode() + text + b"BDAT 0 LAST\r\nRSET\r\n")
    for _ in range(2):
        want = ["250", "550", "550", "554", "554"] if refused else ["250"] * 5
        answers = [client.reply() for _ in range(6)]
        assert [answer[:3] for answer in answers] == want + ["250"], answers
    assert counts(relay) == ([0, 0, 0, 0] if refused else [2, 0, 0, 0])
    assert len(hop.messages) == (0 if refused else 2)


def test_what_goes_straight_through_is_tracked_and_costs_no_flush(lab):
    hop = lab.server(how="clear")
    relay, port = through_relay(lab, hop.port)
    before = relay.counter("spool_flushes")
    lab.opened(port, tls=False).send(body=body("one"))
    assert (relay.counter("queue_through"), relay.counter("spool_flushes")) == (1, before)
    relay.stop()
    rows = track_rows(relay)
    assert [(row[7], row[8]) for row in rows] == [("SMTP", "RECEIVE"), ("SMTP", "SEND")]
    received, sent = rows
    assert received[6] == "in" and sent[6] == "inside"
    assert received[9] == sent[9] and received[10] == sent[10] == "<one@treyresearch.test>"
    assert sent[12] == "b@adatum.test" and sent[13].startswith("250 2.6.0 <1@hop.test>")
    assert sent[3] == "127.0.0.1"


def test_refusals_for_good_are_passed_on(lab):
    hop = lab.server(how="clear", keywords=["PIPELINING", "8BITMIME"])
    relay, port = through_relay(lab, hop.port)
    client = lab.opened(port, tls=False)
    for verb, reply in (("MAIL", "550 5.7.1 not you"), ("RCPT", "550 5.1.1 nobody"),
                        ("DATA", "554 5.5.1 no text"),
                        (".", "554 5.6.0 not this")):
        hop.answers = {verb: reply}
        assert client.send(body=body("never")) == reply
        client.say("RSET", 250)
    assert counts(relay) == [0, 0, 0, 0]
    assert not hop.messages


def test_a_recipient_that_is_refused_is_not_kept(lab):
    hop = lab.server(how="clear")
    relay, port = through_relay(lab, hop.port)
    client = lab.opened(port, tls=False)
    client.mail("a@treyresearch.test")
    client.say("RCPT TO:<b@adatum.test>", 250)
    hop.answers["RCPT"] = "550 5.1.1 nobody"
    client.say("RCPT TO:<c@adatum.test>", 550)
    hop.answers["RCPT"] = "451 4.2.1 busy"
    client.say("RCPT TO:<d@adatum.test>", 250)
    del hop.answers["RCPT"]
    client.say("RCPT TO:<e@adatum.test>", 250)
    client.say("DATA", 354)
    client.say(body("split") + ".", 250)
    assert counts(relay) == [0, 1, 0, 1] and kept_words(relay) == ["split"]
    wait_for(lambda: relay.counter("queue_sent") == 3, "sent recipients")
    assert len(hop.messages) == 1
    assert sorted(line.split("@")[0][-1] for line in hop.messages[0].recipients) == ["b", "d", "e"]


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "."])
def test_what_is_put_off_is_kept_and_delivered_later(lab, verb):
    hop = lab.server(how="clear", keywords=["PIPELINING", "8BITMIME"])
    relay, port = through_relay(lab, hop.port)
    client = lab.opened(port, tls=False)
    client.ehlo()
    hop.answers[verb] = "451 4.3.0 not now"
    name = accepted(client, body=body("later"))
    hop.answers.clear()
    assert relay.events("message", result="accepted", nexthop=f"queue:{name}")
    wait_for(lambda: hop.messages, "message")
    wait_for(lambda: relay.counter("queue_sent") == 1, "sent recipient")
    assert subjects(hop) == ["later"]
    assert counts(relay)[:2] == [0, 1]


def test_a_next_hop_that_is_away(lab):
    hop_port = free_port()
    relay, port = through_relay(lab, hop_port)
    accepted(lab.opened(port, tls=False), body=body("waits"))
    assert counts(relay) == [0, 1, 0, 1] and kept_words(relay) == ["unreachable"]
    restart(relay)
    hop = lab.keep(Server(lab.pki, how="clear", port=hop_port))
    wait_for(lambda: hop.messages, "message")
    assert subjects(hop) == ["waits"]
    wait_for(lambda: "hop.test" in lab.opened(port, tls=False).send(body=body("goes")),
             "straight through")


def test_a_next_hop_that_is_lost_in_the_body(lab):
    hop = lab.server(how="clear")
    relay, port = through_relay(lab, hop.port)
    client = lab.opened(port, tls=False)
    client.mail("a@treyresearch.test")
    client.say("RCPT TO:<b@adatum.test>", 250)
    client.say("DATA", 354)
    client.write(body("cut") + LINES[:200000])
    hop.cut()
    wait_for(lambda: relay.events("kept", why="lost"), "the loss")
    client.say(LINES[200000:] + ".", 250)
    wait_for(lambda: hop.messages, "message")
    assert hop.messages[0].body.decode().endswith(LINES)
    assert counts(relay) == [0, 1, 0, 1] and len(hop.messages) == 1


def test_a_next_hop_that_is_lost_before_it_answers(lab):
    hop = lab.server(how="clear")
    relay, port = through_relay(lab, hop.port)
    client = lab.opened(port, tls=False)
    client.mail("a@treyresearch.test")
    client.say("RCPT TO:<b@adatum.test>", 250)
    client.say("DATA", 354)
    hop.held.clear()
    client.write(body("twice") + ".\r\n")
    wait_for(lambda: any(line.startswith("BDAT") for line in hop.commands), "the text")
    hop.cut()
    assert client.reply().startswith("250 2.6.0")
    hop.held.set()
    # It had been taken, in this case.
    wait_for(lambda: len(hop.messages) == 2, "both")
    assert counts(relay) == [0, 1, 1, 1] and kept_words(relay) == ["unanswered"]


def test_recipients_of_two_next_hops(lab):
    first, second = lab.server(how="clear"), lab.server(how="clear")
    port = free_port()
    relay = lab.relay(transport(spool_folder="spool", **QUICK),
                      receive("in", port, **THROUGH, send_connector=None),
                      send("one", first.port, address_spaces=["one.test"], tls_auth_level="none"),
                      send("two", second.port, address_spaces=["two.test"],
                           tls_auth_level="none"))
    client = lab.opened(port, tls=False)
    accepted(client, to=("b@one.test", "c@two.test"), body=body("both"))
    wait_for(lambda: first.messages and second.messages, "messages")
    wait_for(lambda: relay.counter("queue_sent") == 2, "sent recipients")
    assert subjects(first) == subjects(second) == ["both"]
    assert counts(relay) == [0, 1, 0, 1] and kept_words(relay) == ["split"]
    # Each by itself goes straight through.
    for to in ("b@one.test", "c@two.test"):
        assert "hop.test" in client.send(to=to, body=body("alone"))
    assert counts(relay)[0] == 2
    # For a domain that no send connector is for yet, the queue waits.
    accepted(client, to="d@three.test", body=body("waits"))


def test_a_secured_domain_goes_by_a_proved_session_only(lab):
    hop, port = lab.server(how="clear"), free_port()
    relay = lab.relay(transport(spool_folder="spool", **QUICK), partner(),
                      receive("in", port, **THROUGH, send_connector="out"),
                      send("out", hop.port, domain_secure=True))
    client = lab.opened(port, tls=False)
    accepted(client, sender="x@y.test", to="b@treyresearch.test", body=body("waits"))
    assert counts(relay) == [0, 1, 0, 1] and kept_words(relay) == ["unreachable"]
    assert hop.mails == 0
    hop.how = "tls"
    wait_for(lambda: hop.messages, "message")
    assert hop.mails == 1 and hop.handshakes >= 1
    wait_for(lambda: "hop.test" in client.send(sender="x@y.test", to="b@treyresearch.test",
                                               body=body("goes")), "straight through")
    assert counts(relay)[0] == 1 and relay.counter("messages_sent_secured") >= 1


def test_what_a_next_hop_lacks_is_for_the_queue(lab):
    hop = lab.server(how="clear", keywords=["PIPELINING"])
    relay, port = through_relay(lab, hop.port)
    client = lab.opened(port, tls=False)
    assert {"8BITMIME", "DSN", "SMTPUTF8", "CHUNKING"} <= client.ehlo()
    client.say("MAIL FROM:<a@treyresearch.test> BODY=8BITMIME RET=HDRS", 250)
    client.say("RCPT TO:<b@adatum.test> NOTIFY=NEVER", 250)
    client.say("DATA", 354)
    client.say(body("plain") + ".", 250)
    wait_for(lambda: hop.messages, "message")
    assert "BODY" not in hop.messages[0].sender and "NOTIFY" not in hop.messages[0].recipients[0]
    assert counts(relay) == [0, 1, 0, 1]


def test_a_slow_next_hop_gets_five_seconds_for_a_session(lab):
    mute = lab.keep(socket.create_server(("127.0.0.1", 0)))
    relay, port = through_relay(lab, mute.getsockname()[1])
    accepted(lab.opened(port, tls=False), body=body("waits"))
    assert kept_words(relay) == ["no-session"]


def test_a_reload_begins_and_ends_it(lab):
    hop = lab.server(how="clear")
    relay, port = queue_relay(lab, hop.port)
    client = lab.opened(port, tls=False)
    accepted(client, body=body("kept"))
    assert relay.reload(config(port, hop.port, receive_words=THROUGH))["result"] == "ok"
    assert "hop.test" in client.send(body=body("straight"))
    assert relay.reload(config(port, hop.port))["result"] == "ok"
    accepted(client, body=body("again"))
    wait_for(lambda: len(hop.messages) == 3, "messages")
    assert subjects(hop) == ["again", "kept", "straight"]
