# SPDX-License-Identifier: Apache-2.0
"""Sending: where a transaction goes, what its answers are, and what DNS says. The levels of TLS and
the partners are in test_rows_send.py."""

import socket
import threading
import time

import pytest

from conftest import free_port, wait_for
from lab import BODY, Server, inside, lab, partner, section, send, transport  # noqa: F401
from lab import receive as door

LOST = "451 4.4.1 The next hop could not be reached, try again later"
OWN = "452 4.5.3 This recipient needs a transaction of its own"


class Near(Server):
    """In clear text; refuses MAIL or RCPT of an address that names a reply: <550@a.test>."""

    def __init__(self, pki, **options):
        self.refuses = {}  # a text in a command: the reply to give
        super().__init__(pki, how="clear", **options)

    def _serve(self, connection):
        hop = self

        class Sink:  # the answers dictionary is asked for each verb, after the command was kept
            def __contains__(self, verb):
                return self[verb] is not None

            def __getitem__(self, verb):
                if verb == "RCPT" and not hop.mail_is_open:
                    return "503 5.5.2 Need mail command"
                for text, reply in hop.refuses.items():
                    if text in hop.commands[-1]:
                        return reply
                hop.mail_is_open = verb != "RSET"
                return None

        self.mail_is_open = True
        self.answers = Sink()
        super()._serve(connection)


def routed(lab, *sections, receive=None, **keywords):
    port = free_port()
    relay = lab.relay(transport(**keywords),
                      door("in", port, send_connector=None, **(receive or {})), *sections)
    return relay, port


def two(lab, **options):
    """A relay with a next hop for a.test and one for b.test: relay, port, the two."""
    hops = [lab.keep(Near(lab.pki, **options)) for _ in range(2)]
    relay, port = routed(lab, *[send(name, hop.port, tls_auth_level="none",
                                     address_spaces=[f"*.{name}.test"])
                                for name, hop in zip("ab", hops)])
    return relay, port, *hops


def events(relay, name, **fields):
    """What the log has of it, once all lines so far are written."""
    relay.stats()
    return relay.events(name, **fields)


def talk(client, *lines):
    """Everything in one piece, then all replies."""
    client.write("".join(line + "\r\n" for line in lines))
    return [client.reply() for _ in lines]


# ---- the first recipient says where it goes --------------------------------------------------

def test_all_in_one_piece(lab):
    _, port, a, b = two(lab)
    client = lab.opened(port, tls=False)
    for round_ in range(3):
        replies = talk(client, "MAIL FROM:<x@y.test>", "RCPT TO:<1@a.test>", "RCPT TO:<2@a.test>",
                       "RCPT TO:<3@b.test>", "RCPT TO:<4@s.a.test>", "DATA")
        assert [reply[:3] for reply in replies] == ["250", "250", "250", "452", "250", "354"]
        assert replies[3] == OWN
        assert client.say(BODY + ".").startswith("250 2.6.0 ")
        assert len(a.messages) == round_ + 1 and len(a.messages[-1].recipients) == 3
    assert client.send("x@y.test", "5@b.test").startswith("250")
    assert len(b.messages) == 1 and a.connections == b.connections == 1


def test_a_refused_mail_is_the_answer_to_the_recipients_and_the_next_tries_anew(lab):
    _, port, a, b = two(lab)
    a.refuses["<bad@"] = "550-5.7.1 not you\r\n550 5.7.1 never"
    client = lab.opened(port, tls=False)
    replies = talk(client, "MAIL FROM:<bad@y.test>", "RCPT TO:<1@a.test>", "RCPT TO:<2@a.test>")
    assert replies[0].startswith("250 ")
    assert replies[1] == replies[2] == "550-5.7.1 not you\n550 5.7.1 never"
    assert client.say("RCPT TO:<3@a.test>") == replies[1]
    assert client.say("RCPT TO:<4@b.test>").startswith("250 ")
    assert client.say("RCPT TO:<5@a.test>") == OWN
    client.say("DATA", 354)
    assert client.say(BODY + ".").startswith("250 ")
    assert a.messages == [] and len(b.messages) == 1
    # The next hop that has refused is of use again, in the same session.
    assert client.send("good@y.test", "6@a.test").startswith("250 ")
    assert a.connections <= 2


def test_a_refused_recipient_does_not_bind_the_transaction(lab):
    _, port, a, b = two(lab)
    a.refuses["<no@"] = "550 5.1.1 no such"
    client = lab.opened(port, tls=False)
    client.say("MAIL FROM:<x@y.test>", 250)
    assert client.say("RCPT TO:<no@a.test>") == "550 5.1.1 no such"
    assert client.say("DATA").startswith("554 5.5.1 ")
    assert client.say("RCPT TO:<1@b.test>").startswith("250 ")
    client.say("DATA", 354)
    assert client.say(BODY + ".").startswith("250 ")
    assert len(b.messages) == 1 and a.messages == []
    # Before the answer is there nobody knows: the second waits for the first.
    replies = talk(client, "MAIL FROM:<x@y.test>", "RCPT TO:<no@a.test>", "RCPT TO:<2@b.test>",
                   "RCPT TO:<3@b.test>", "RSET", "NOOP")
    assert [reply[:3] for reply in replies] == ["250", "550", "250", "250", "250", "250"]
    replies = talk(client, "MAIL FROM:<x@y.test>", "RCPT TO:<1@a.test>", "RCPT TO:<2@b.test>",
                   "RSET")
    assert [reply[:3] for reply in replies] == ["250", "250", "452", "250"]


def test_a_next_hop_that_is_away_does_not_bind_the_transaction(lab):
    away = free_port()
    near = lab.keep(Near(lab.pki))
    _, port = routed(lab, send("away", away, address_spaces=["a.test"]),
                     send("near", near.port, tls_auth_level="none", address_spaces=["b.test"]))
    client = lab.opened(port, tls=False)
    replies = talk(client, "MAIL FROM:<x@y.test>", "RCPT TO:<1@a.test>", "RCPT TO:<2@a.test>",
                   "RCPT TO:<3@nowhere.test>", "RCPT TO:<4@b.test>", "DATA")
    assert replies[1] == replies[2] == LOST
    assert replies[3] == "451 4.4.4 Unable to route: no send connector for nowhere.test"
    assert [reply[:3] for reply in replies[4:]] == ["250", "354"]
    assert client.say(BODY + ".").startswith("250 ")
    assert len(near.messages) == 1


def test_size_is_passed_on_where_it_is_known(lab):
    a = lab.keep(Near(lab.pki))
    b = lab.keep(Near(lab.pki, keywords=["PIPELINING"]))
    _, port = routed(lab, *[send(name, hop.port, tls_auth_level="none", address_spaces=[name])
                            for name, hop in (("a.test", a), ("b.test", b))])
    client = lab.opened(port, tls=False)
    assert {"SIZE", "PIPELINING", "8BITMIME", "CHUNKING"} <= client.keywords
    assert not {"DSN", "BINARYMIME"} & client.keywords
    for to in ("1@a.test", "2@b.test"):
        replies = talk(client, "MAIL FROM:<x@y.test> SIZE=1000 BODY=7BIT", f"RCPT TO:<{to}>",
                       "DATA")
        assert [reply[:3] for reply in replies] == ["250", "250", "354"]
        assert client.say(BODY + ".").startswith("250 ")
    sizes = [command.split("SIZE=")[1] for command in a.commands if "SIZE=" in command]
    assert len(sizes) == 1 and 1000 <= int(sizes[0]) < 10000
    assert b.messages[0].sender == "MAIL FROM:<x@y.test>"


def test_what_the_next_hop_lacks_is_refused_for_good(lab):
    _, port, a, _ = two(lab, keywords=["PIPELINING", "SIZE 1000000"])
    client = lab.opened(port, tls=False)
    client.say("MAIL FROM:<x@y.test> BODY=8BITMIME", 250)
    assert client.say("RCPT TO:<1@a.test>").startswith("554 5.6.3 ")
    client.say("RSET", 250)
    client.say("MAIL FROM:<x@y.test> SMTPUTF8", 250)
    assert client.say("RCPT TO:<1@a.test>").startswith("550 5.6.7 ")
    client.say("RSET", 250)
    assert client.send("x@y.test", "1@a.test").startswith("250 ")
    assert a.mails == 1


def test_more_recipients_than_any_buffer_holds(lab):
    _, port, a, _ = two(lab)
    client = lab.opened(port, tls=False)
    name = "x" * 60
    rows = [f"RCPT TO:<{number}.{name}@{'s' * 60}.{'t' * 60}.a.test>" for number in range(190)]
    writer = threading.Thread(target=client.write, args=(
        "MAIL FROM:<x@y.test>\r\n" + "".join(row + "\r\n" for row in rows) + "DATA\r\n",))
    writer.start()
    assert [client.reply()[:3] for _ in range(192)] == ["250"] * 191 + ["354"]
    writer.join()
    assert client.say(BODY + ".").startswith("250 ")
    assert a.messages[0].recipients == rows


def test_without_pipelining_at_the_next_hop(lab):
    _, port, a, _ = two(lab, keywords=["SIZE 1000000", "8BITMIME"])
    client = lab.opened(port, tls=False)
    a.refuses["<no@"] = "550 5.1.1 no such"
    replies = talk(client, "MAIL FROM:<x@y.test>", "RCPT TO:<no@a.test>", "RCPT TO:<1@a.test>",
                   "RCPT TO:<2@a.test>", "DATA")
    assert [reply[:3] for reply in replies] == ["250", "550", "250", "250", "354"]
    assert client.say(BODY + ".").startswith("250 ")
    assert a.mistakes == []


def test_a_client_that_goes_leaves_nothing_behind(lab):
    relay, port, a, _ = two(lab)
    for lines in (["MAIL FROM:<x@y.test>"], ["MAIL FROM:<x@y.test>", "RCPT TO:<1@a.test>"],
                  ["MAIL FROM:<x@y.test>", "RCPT TO:<1@a.test>", "DATA", "Subject: cut"]):
        client = lab.opened(port, tls=False)
        client.write("".join(line + "\r\n" for line in lines))
        client.close()
    wait_for(lambda: len(events(relay, "session-end")) == 3, "end of the sessions")
    client = lab.opened(port, tls=False)
    assert client.send("x@y.test", "1@a.test").startswith("250 ")
    assert len(a.messages) == 1


def test_one_connection_serves_two_destinations(lab):
    """A limit of one: the idle session of a destination ends when another needs it."""
    smtp = free_port()
    hops = [lab.keep(Near(lab.pki, address=f"127.20.1.{n}", port=smtp)) for n in (1, 2)]
    dns = lab.dns(mx={"a.test": [(10, "mx.a.test")], "b.test": [(10, "mx.b.test")]},
                  hosts={"mx.a.test": "127.20.1.1", "mx.b.test": "127.20.1.2"})
    relay, port = routed(lab, section("send-connector", "internet", address_spaces=["*"],
                                      port=smtp, max_connections=1), dns_servers=[dns.address])
    client = lab.opened(port, tls=False)
    for _ in range(3):
        assert client.send("x@y.test", "1@a.test").startswith("250 ")
        assert client.send("x@y.test", "1@b.test").startswith("250 ")
    assert [len(hop.messages) for hop in hops] == [3, 3]
    assert len(events(relay, "nexthop-end", why="needed-elsewhere")) == 5
    # While it is in use others wait, and are served when it is free.
    client.say("MAIL FROM:<x@y.test>", 250)
    client.say("RCPT TO:<1@b.test>", 250)
    other = lab.opened(port, tls=False)
    other.say("MAIL FROM:<x@y.test>", 250)
    other.write("RCPT TO:<1@a.test>\r\n")
    assert not other.has_answer(0.3)
    client.say("RSET", 250)
    assert other.reply().startswith("250 ")


# ---- DNS -------------------------------------------------------------------------------------

def internet(lab, hosts=(), mx=None, names=None, how="clear", leaf="treyresearch", **keywords):
    """A relay that sends by MX to servers at 127.20.2.N: relay, port, servers."""
    smtp = free_port()
    servers = {number: lab.keep(Server(lab.pki, cert=leaf, how=how,
                                       address=f"127.20.2.{number}", port=smtp))
               for number in hosts}
    dns = lab.dns(mx=mx or {}, hosts=names or {})
    relay, port = routed(lab, section("send-connector", "internet", address_spaces=["*"],
                                      port=smtp, **keywords), dns_servers=[dns.address])
    return relay, port, servers


def test_dns_best_first_and_the_next_when_it_is_away(lab):
    relay, port, servers = internet(
        lab, hosts=[2, 3], mx={"a.test": [(10, "mx1.a.test"), (20, "mx2.a.test"),
                                          (30, "mx3.a.test")]},
        names={"mx1.a.test": "127.20.2.1", "mx2.a.test": "127.20.2.2", "mx3.a.test": "127.20.2.3"})
    client = lab.opened(port, tls=False)
    for _ in range(2):
        assert client.send("x@y.test", "1@a.test").startswith("250 ")
    assert len(servers[2].messages) == 2 and servers[3].connections == 0
    assert [event["host"] for event in events(relay, "nexthop-failed")] == ["mx1.a.test"]
    assert events(relay, "nexthop-ready")[0]["host"] == "mx2.a.test"


def test_dns_without_mx_is_the_domain_itself(lab):
    _, port, servers = internet(lab, hosts=[1], names={"a.test": "127.20.2.1"})
    assert lab.opened(port, tls=False).send("x@y.test", "1@A.Test").startswith("250 ")
    assert len(servers[1].messages) == 1


def test_dns_says_no(lab):
    relay, port, _ = internet(lab, mx={"hollow.test": [(5, "x.test")]})
    client = lab.opened(port, tls=False)
    replies = talk(client, "MAIL FROM:<x@y.test>", "RCPT TO:<1@nowhere.test>",
                   "RCPT TO:<1@hollow.test>", "RCPT TO:<1@[127.0.0.1]>")
    assert replies[1] == "550 5.1.2 Domain nowhere.test has no mail server"
    assert replies[2] == "550 5.4.4 The mail servers of hollow.test have no address"
    assert replies[3].startswith("550 5.1.2 ")
    assert {event["status"] for event in events(relay, "nexthop-dns")} == {"no-domain",
                                                                        "no-address"}
    assert relay.counter("dns_failed") == 0 and relay.counter("dns_queries") > 0


def test_dns_that_leads_back_to_us(lab):
    dns = lab.dns(mx={"a.test": [(10, "mx.a.test"), (20, "mx2.a.test")]},
                  hosts={"mx.a.test": "127.0.0.1", "mx2.a.test": "127.20.2.9"})
    port = free_port()
    lab.relay(transport(dns_servers=[dns.address]), door("in", port, send_connector=None),
              section("send-connector", "internet", address_spaces=["*"], port=port))
    client = lab.opened(port, tls=False)
    client.say("MAIL FROM:<x@y.test>", 250)
    assert client.say("RCPT TO:<1@a.test>") == \
        "554 5.4.6 Mail for a.test would come back to this server"


def test_dns_that_does_not_answer(lab):
    """Others are served meanwhile; who goes, and a relay that ends, do not wait for it."""
    mute = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    mute.bind(("127.0.0.1", 0))
    near = lab.keep(Near(lab.pki))
    relay, port = routed(
        lab, section("send-connector", "internet", address_spaces=["*"]),
        send("near", near.port, tls_auth_level="none", address_spaces=["b.test"]),
        dns_servers=[f"127.0.0.1:{mute.getsockname()[1]}"])
    waiting = [lab.opened(port, tls=False) for _ in range(3)]
    for client in waiting:
        client.say("MAIL FROM:<x@y.test>", 250)
        client.write("RCPT TO:<1@a.test>\r\n")
    wait_for(lambda: relay.counter("dns_queries") > 0, "question")
    assert lab.opened(port, tls=False).send("x@y.test", "1@b.test").startswith("250 ")
    waiting[0].close()
    wait_for(lambda: relay.events("session-end"), "end of the session")
    assert not waiting[1].has_answer()
    before = time.monotonic()
    relay.stop()
    assert time.monotonic() - before < 15, "less than a lookup may take"
    mute.close()


# ---- destinations and their sessions ---------------------------------------------------------

def test_a_session_is_not_shared_by_domains(lab):
    """Of two domains with one server, each has sessions of its own: one is proved, one is not."""
    relay, port, servers = internet(
        lab, hosts=[1], how="tls", domain_secure=True,
        mx={name: [(10, "mx.treyresearch.test")] for name in ("treyresearch.test", "other.test")},
        names={"mx.treyresearch.test": "127.20.2.1"})
    relay.stop()
    text = relay.config.read_text() + partner()
    relay = lab.relay(text)
    client = lab.opened(port, tls=False)
    for to in ("1@other.test", "1@treyresearch.test") * 2:
        assert client.send("x@y.test", to).startswith("250 ")
    ready = events(relay, "nexthop-ready")
    assert [event.get("secured") for event in ready] == [None, "treyresearch.test"]
    assert servers[1].connections == 2
    assert relay.counter("nexthop_secured") == 1
    assert relay.counter("messages_sent_secured") == 2


def test_a_recipient_of_a_partner_is_refused_in_its_turn(lab):
    """On a fixed path that is not domain-secure: in order, logged and counted once."""
    near = lab.keep(Near(lab.pki))
    port = free_port()
    relay = lab.relay(transport(), door("in", port), inside(near.port), partner())
    client = lab.opened(port, tls=False)
    replies = talk(client, "MAIL FROM:<x@y.test>", "RCPT TO:<1@a.test>",
                   "RCPT TO:<2@treyresearch.test>", "RCPT TO:<3@a.test>", "DATA")
    assert [reply[:3] for reply in replies] == ["250", "250", "451", "250", "354"]
    assert client.say(BODY + ".").startswith("250 ")
    assert len(near.messages[0].recipients) == 2
    assert len(events(relay, "refused", why="send-connector-not-domain-secure")) == 1
    assert relay.counter("secure_send_refused") == 1


@pytest.mark.parametrize("answer", ["454 4.7.0 not now", "554 5.7.0 never"])
def test_a_refused_starttls_is_left_out_once_or_is_the_end(lab, answer):
    server = lab.server()
    server.answers["STARTTLS"] = answer
    port, other = free_port(), free_port()
    relay = lab.relay(
        transport(), door("in", port, send_connector="soft"),
        door("hard", other, send_connector="hard"), send("soft", server.port),
        send("hard", server.port, tls_auth_level="encryption-only"))
    assert lab.opened(port, tls=False).send("x@y.test", "1@a.test").startswith("250 ")
    assert server.connections == 2 and relay.counter("tls_downgraded") == 1
    reply = lab.opened(other, tls=False).send("x@y.test", "1@a.test")
    assert reply == ("451 4.7.3 STARTTLS is required by policy for hard and "
                     f"127.0.0.1:{server.port} refused it")
    assert server.mails == 1
    assert events(relay, "nexthop-failed")[-1]["event-id"] == "2015"


def test_the_protocol_log_of_a_send_connector(lab):
    server = lab.server()
    folder = lab.place("logs")
    port = free_port()
    relay = lab.relay(transport(protocol_log_folder=folder), door("in", port, send_connector="out"),
                      send("out", server.port, protocol_logging="verbose"))
    assert lab.opened(port, tls=False).send("x@y.test", "1@a.test").startswith("250 ")
    relay.stop()
    (path,) = folder.glob("SEND*.LOG")
    rows = [line.split(",") for line in path.read_text().splitlines() if line[0] != "#"]
    assert rows[0][6] == "+" and rows[-1][6] == "-"
    said = [row[7] for row in rows if row[6] == ">"]
    assert said[0].startswith("EHLO ") and said[1] == "STARTTLS" and said[2] == said[0]
    assert [word.split(" ")[0] for word in said[3:]] == ["MAIL", "RCPT", "BDAT", "QUIT"]
    text = path.read_text()
    assert "TLS protocol TLSv1.3 negotiation succeeded" in text
    assert "Certificate thumbprint" in text and "250 2.6.0" in text and "text" not in said


@pytest.mark.parametrize("outcome", ["good", "revoked", "dead", "late"])
def test_nothing_is_said_while_a_revocation_list_is_on_its_way(lab, outcome):
    lists, authority = lab.lists(), lab.authority("treyresearch-ca")
    leaf = authority.leaf("hop", cdp=lists.url("/list.crl"))
    if outcome == "revoked":
        authority.revoke("hop")
    lists.put("/list.crl", authority.crl())
    lists.mode = "slow"
    server, port = lab.server(cert=leaf), free_port()
    lab.relay(transport(), partner(), door("in", port, send_connector="out"),
              send("out", server.port, domain_secure=True,
                   connect_timeout="1s" if outcome == "late" else "30s"))
    client = lab.opened(port, tls=False)
    client.say("MAIL FROM:<x@y.test>", 250)
    client.write("RCPT TO:<1@treyresearch.test>\r\n")
    wait_for(lambda: lists.hits, "question for the list")
    if outcome != "late":
        assert not client.has_answer(0.3) and len(server.commands) == 2
        lists.release(outcome)
    failure = "454 4.7.5 Certificate validation failure: "
    want = {"good": "250 ", "revoked": failure + "Revoked"}.get(outcome, failure)
    assert client.reply().startswith(want)
    assert server.mails == (outcome == "good")
    wait_for(lambda: outcome == "good" or server.commands[-1] == "QUIT", "QUIT")
