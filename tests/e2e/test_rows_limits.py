# SPDX-License-Identifier: Apache-2.0
"""Rows 41 and 42: the replies of EXCHANGE 4.7 and the tarpit."""

import selectors
import socket

import pytest

from conftest import free_port, wait_for
from lab import (certificate, inside, lab, partner, receive, secure,  # noqa: F401
                 transport)

SESSIONS = 1000


def door(lab, hop=None, extra=None, **keywords):
    port, hop = free_port(), hop or lab.server(how="clear")
    keywords = {"type": "internet", "certificate": "edge", **keywords}
    relay = lab.relay(transport(**(extra or {})), certificate(), receive("in", port, **keywords),
                      inside(hop.port))
    return relay, port, hop


# ---- row 41: one test for each reply ---------------------------------------------------------

def test_row_41_too_many_connections(lab):
    _, port, _ = door(lab, max_inbound_connection=2)
    held = [lab.client(port) for _ in range(2)]
    assert lab.client(port).greeting == (
        "421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing "
        "transmission channel")
    assert held[0].quit().startswith("221")


def test_row_41_too_many_connections_of_a_source(lab):
    relay, port, _ = door(lab, max_inbound_connection_per_source=2)
    held = [lab.client(port, source="127.8.1.1") for _ in range(2)]
    refused = lab.client(port, source="127.8.1.1")
    assert refused.greeting.startswith("421 4.3.2 The maximum number of concurrent connections")
    assert refused.reply() == "", "and it is closed"
    assert lab.client(port, source="127.8.1.2").greeting.startswith("220")
    wait_for(lambda: relay.has_event_id(1021), "event 1021")
    held[0].quit()
    held[1].quit()


def test_row_41_percentage_of_what_is_free(lab):
    """Of 10 connections half of the free ones: 5, then of what is left."""
    _, port, _ = door(lab, max_inbound_connection=10,
                      max_inbound_connection_percentage_per_source=50)
    clients = [lab.client(port, source="127.8.1.1") for _ in range(10)]
    served = sum(client.greeting.startswith("220") for client in clients)
    assert 3 <= served <= 5, served
    assert lab.client(port, source="127.8.1.2").greeting.startswith("220")


def test_row_41_message_rate(lab):
    _, port, hop = door(lab, message_rate_limit=3)
    client = lab.opened(port, tls=False, source="127.8.1.1")
    replies = [client.send("a@unlisted.test") for _ in range(4)]
    assert [reply[:3] for reply in replies] == ["250"] * 3 + ["421"], replies
    assert replies[3] == ("421 4.4.2 Message submission rate for this client has exceeded the "
                          "configured limit")
    assert len(hop.messages) == 3


def test_row_41_message_rate_of_no_source(lab):
    _, port, _ = door(lab, message_rate_limit=1, message_rate_source="none")
    client = lab.opened(port, tls=False)
    assert all(client.send("a@unlisted.test").startswith("250") for _ in range(3))


def test_row_41_silence(lab):
    _, port, _ = door(lab, connection_inactivity_timeout="1s")
    assert lab.client(port).reply() == "451 4.7.0 Timeout waiting for client input"


def test_row_41_require_tls_for_good(lab):
    _, port, _ = door(lab, require_tls=True, permanent_tls_refusals=True)
    client = lab.opened(port, tls=False)
    assert client.mail("a@unlisted.test") == "530 5.7.0 Must issue a STARTTLS command first"


def test_row_41_success(lab):
    _, port, _ = door(lab)
    client = lab.opened(port, tls=False)
    assert client.say("STARTTLS") == "220 2.0.0 SMTP server ready"
    client = lab.opened(port, tls=False)
    assert client.mail("a@unlisted.test").startswith("250 2.1.0 ")
    assert client.say("RCPT TO:<b@adatum.test>").startswith("250 2.1.5 ")
    assert client.say("DATA").startswith("354 ")
    assert client.say("x: y\r\n\r\n.").startswith("250 2.6.0 ")
    assert client.quit() == "221 2.0.0 Service closing transmission channel"


SYNTAX = [
    (["NONSENSE"], "500 5.3.3 Unrecognized command"),
    (["MAIL FROM:<a@b.test>"], "503 5.5.2 Send hello first"),
    (["EHLO probe.test", "MAIL FROM:<a b@c.test>"], "5"),
    (["EHLO probe.test", "RCPT TO:<b@adatum.test>"], "503 5.5."),
]


@pytest.mark.parametrize("lines,reply", SYNTAX)
def test_row_41_syntax_and_order(lab, lines, reply):
    _, port, _ = door(lab)
    client = lab.client(port)
    for line in lines[:-1]:
        client.say(line, 250)
    assert client.say(lines[-1]).startswith(reply)


def test_row_41_require_ehlo_domain(lab):
    _, port, _ = door(lab, require_ehlo_domain=True)
    client = lab.client(port)
    for verb in ("HELO", "EHLO"):
        assert client.say(verb).startswith("501 5.5.4 Invalid domain name")
    client.say("EHLO [127.0.0.1]", 250)
    _, port, _ = door(lab)
    lab.client(port).say("HELO", 250)


def test_row_41_message_size(lab):
    _, port, hop = door(lab, max_message_size="64KB")
    client = lab.opened(port, tls=False)
    assert "5.3.4" in client.say("MAIL FROM:<a@unlisted.test> SIZE=70000", 552)
    body = "x: y\r\n\r\n" + ("x" * 70 + "\r\n") * 1000
    assert "5.3.4" in client.send("a@unlisted.test", body=body)
    assert hop.messages == []


def test_row_41_header_size(lab):
    _, port, hop = door(lab, max_header_size="8KB")
    client = lab.opened(port, tls=False)
    reply = client.send("a@unlisted.test", body=("x: " + "y" * 70 + "\r\n") * 200 + "\r\ntext\r\n")
    assert reply[0] in "45" and hop.messages == []


def test_row_41_recipients(lab):
    _, port, _ = door(lab, max_recipients_per_message=2)
    client = lab.opened(port, tls=False)
    client.say("MAIL FROM:<a@unlisted.test>", 250)
    for number in range(2):
        client.say(f"RCPT TO:<b{number}@adatum.test>", 250)
    assert client.say("RCPT TO:<c@adatum.test>").startswith("452 4.5.3 ")


def test_row_41_hops(lab):
    _, port, hop = door(lab, max_hop_count=5)
    client = lab.opened(port, tls=False)
    field = "Received: from a.test by b.test; Sat, 21 Nov 2026 00:00:00 +0000\r\n"
    assert "5.4.6" in client.send("a@unlisted.test", body=field * 6 + "\r\ntext\r\n")
    assert client.send("a@unlisted.test", body=field * 4 + "\r\ntext\r\n").startswith("250")
    assert len(hop.messages) == 1


def test_row_41_local_hops(lab):
    """Fields that we wrote ourselves: the same message in a circle."""
    _, port, hop = door(lab, max_local_hop_count=2)
    client = lab.opened(port, tls=False)
    body = "Subject: circle\r\n\r\ntext\r\n"
    replies = []
    for _ in range(4):
        replies.append(client.send("a@unlisted.test", body=body))
        if not replies[-1].startswith("250"):
            break
        body = hop.messages[-1].body.decode()
    assert "5.4.6" in replies[-1] and 2 <= len(hop.messages) <= 3, replies


def test_row_41_relaying(lab):
    relay, port, hop = door(lab, extra={"accepted_domains": ["adatum.test", "*.fabrikam.test"]})
    client = lab.opened(port, tls=False)
    client.say("MAIL FROM:<a@unlisted.test>", 250)
    for domain in ("adatum.test", "ADATUM.test", "fabrikam.test", "a.fabrikam.test"):
        client.say(f"RCPT TO:<b@{domain}>", 250)
    for domain in ("elsewhere.test", "sub.adatum.test", "xfabrikam.test"):
        assert client.say(f"RCPT TO:<b@{domain}>") == "550 5.7.1 Unable to relay"
    assert not [command for command in hop.commands if "elsewhere" in command]


RESERVED = [("reject_reserved_top_level_recipient_domains", "b@x.example", "550 5.1.4 "),
            ("reject_reserved_second_level_recipient_domains", "b@example.com", "550 5.1.5 "),
            ("reject_reserved_second_level_recipient_domains", "b@x.example.org", "550 5.1.5 "),
            ("reject_single_label_recipient_domains", "b@host", "550 5.1.6 ")]


@pytest.mark.parametrize("switch,recipient,reply", RESERVED)
def test_row_41_reserved_domains(lab, switch, recipient, reply):
    for is_on in (True, False):
        _, port, _ = door(lab, **{switch: is_on})
        client = lab.opened(port, tls=False)
        client.say("MAIL FROM:<a@unlisted.test>", 250)
        assert client.say(f"RCPT TO:<{recipient}>").startswith(reply if is_on else "250")
        client.say("RCPT TO:<b@contoso.com>", 250)


def test_row_41_long_addresses(lab):
    address = "b" * 60 + "@" + ".".join(["d" * 60] * 4)  # of Internet size
    long = "x" * 700 + "@adatum.test"
    for is_on in (True, False):
        _, port, _ = door(lab, long_addresses=is_on)
        client = lab.opened(port, tls=False)
        client.say("MAIL FROM:<a@unlisted.test>", 250)
        client.say(f"RCPT TO:<{address[:250]}>", 250)
        assert client.say(f"RCPT TO:<{long}>")[0] == ("2" if is_on else "5")


def test_row_41_no_right_to_submit(lab):
    _, port, _ = door(lab, permission_groups=["partners"])
    reply = lab.opened(port, tls=False).mail("a@unlisted.test")
    assert reply == "530 5.7.1 Client was not authenticated"


def test_row_41_too_many_errors(lab):
    _, port, _ = door(lab, max_protocol_errors=2)
    client = lab.opened(port, tls=False)
    replies = []
    while reply := client.say("NONSENSE"):
        replies.append(reply)
        if reply.startswith("421") or len(replies) > 5:
            break
    assert replies[-1].startswith("421") and client.reply() == ""


# ---- row 42: the tarpit ----------------------------------------------------------------------

def test_row_42_a_thousand_wait_and_one_does_not(lab):
    """The good session comes and goes while all of the others still wait for their error reply."""
    hop, port = lab.server(how="clear"), free_port()
    lab.relay(transport(max_sessions=SESSIONS + 100), certificate(),
              partner(), inside(hop.port),
              secure("partners", port, tarpit_interval="60s", connection_timeout="5m",
                     connection_inactivity_timeout="4m"))
    waiting = [lab.client(port, source=f"127.30.{number % 100}.1") for number in range(SESSIONS)]
    for client in waiting:
        client.write("RCPT TO:<nobody@adatum.test>\r\n")
    good = lab.opened(port, "treyresearch")
    assert good.send("a@treyresearch.test").startswith("250 2.6.0 ")
    assert good.say("NONSENSE").startswith("500"), "a verified partner is not delayed"
    good.quit()
    with selectors.DefaultSelector() as selector:
        for client in waiting:
            selector.register(client.socket, selectors.EVENT_READ)
        assert selector.select(0) == [], "none of the others has its answer yet"


def test_row_42_the_delay_is_per_reply_and_good_replies_have_none(lab):
    _, port, _ = door(lab, tarpit_interval="3s")
    client = lab.opened(port, tls=False)
    client.write("NONSENSE\r\nNOOP\r\n")
    assert not client.has_answer(1.5), "neither the error nor what is behind it"
    assert client.reply().startswith("500")
    assert client.reply().startswith("250")


@pytest.mark.parametrize("cert,sender", [(None, "a@treyresearch.test"),
                                         ("treyresearch-expired", "a@treyresearch.test"),
                                         ("other", "a@treyresearch.test")])
def test_row_42_who_proved_nothing_waits(lab, cert, sender):
    hop, port = lab.server(how="clear"), free_port()
    lab.relay(transport(), certificate(), partner(), inside(hop.port),
              secure("partners", port, tarpit_interval="3s"))
    client = lab.opened(port, cert)
    client.write(f"MAIL FROM:<{sender}>\r\n")
    assert not client.has_answer(1.5)
    assert client.reply().startswith("454 4.7.5 ")


def test_row_42_a_tarpitted_client_may_leave(lab):
    relay, port, _ = door(lab, tarpit_interval="10m")
    clients = [lab.opened(port, tls=False) for _ in range(20)]
    for client in clients:
        client.write("NONSENSE\r\n")
    for client in clients:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    assert lab.opened(port, tls=False).send("a@unlisted.test").startswith("250")
    assert relay.process.poll() is None
