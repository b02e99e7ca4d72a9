# SPDX-License-Identifier: Apache-2.0
"""Who the client is when somebody stands in front of us: PROXY headers and XCLIENT, inbound.

The scripted balancer and front end are 127.0.0.9; what they announce are documentation addresses.
"""

import socket
import ssl
import struct
import subprocess
import time

import pytest

from conftest import PATIENCE, PKI, free_port, wait_for
from lab import (Client, certificate, client_context, inside, lab, partner, receive, secure,
                 transport)  # noqa: F401 (lab is a fixture)

BALANCER = "127.0.0.9"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
SERVED = ["192.0.2.0/24", "2001:db8::/32"]


def v1(source="192.0.2.7", destination="198.51.100.1", sport=40007, dport=25):
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {destination} {sport} {dport}\r\n".encode()


def v2(source="192.0.2.7", destination="198.51.100.1", sport=40007, dport=25, more=b"",
       command=0x21):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    block = (socket.inet_pton(family, source) + socket.inet_pton(family, destination) +
             struct.pack(">HH", sport, dport) + more)
    kind = 0x21 if family == socket.AF_INET6 else 0x11
    return SIGNATURE + bytes([command, kind]) + struct.pack(">H", len(block)) + block


LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


class Announced(Client):
    """A client behind a balancer: header, and then as always."""

    def __init__(self, port, header=None, greeted=True, source=BALANCER):
        super().__init__(port, source=source, greeted=False)
        if header is not None:
            self.write(header)
        self.greeting = self.reply() if greeted else None


def balanced(lab, hop=None, **keywords):
    """A relay behind a balancer; its next hop is relay.hop."""
    hop = hop or lab.server(how="clear")
    port = free_port()
    relay = lab.relay(transport(), receive("edge", port, **{
        "proxy-balancers": [BALANCER], "remote-ip-ranges": SERVED, **keywords}),
        inside(hop.port))
    relay.port, relay.hop = port, hop
    return relay


def closed_silently(client):
    """Nothing was said; the connection has ended."""
    return client.reply() == "" and client.buffer == b""


# ---- PROXY ------------------------------------------------------------------------------------

@pytest.mark.parametrize("header, peer", [
    (v1(), "192.0.2.7"), (v2(), "192.0.2.7"),
    (v1("2001:db8::7", "2001:db8::1"), "2001:db8::7"),
    (v2("2001:db8::7", "2001:db8::1"), "2001:db8::7"),
    (v2("::ffff:192.0.2.8", "::ffff:198.51.100.1"), "192.0.2.8"),
    (v1("::ffff:192.0.2.8", "2001:db8::1"), "192.0.2.8"),
])
def test_everything_is_about_the_announced_client(lab, header, peer):
    relay = balanced(lab)
    with Announced(relay.port, header) as client:
        client.ehlo()
        assert client.send().startswith("250")
        client.quit()
    accept = relay.events("accept")[0]
    assert accept["peer"] == peer and accept["balancer"] == BALANCER
    assert accept["port"] == "40007" and accept["connector"] == "edge"
    literal = f"[IPv6:{peer}]" if ":" in peer else f"[{peer}]"
    assert f"Received: from probe.test ({literal})".encode() in relay.hop.messages[0].body
    wait_for(lambda: relay.events("session-end", peer=peer), "end of the session")
    assert relay.counter("proxy_headers") == 1 and relay.counter("sessions") == 1


def test_the_header_may_come_in_any_pieces(lab):
    relay = balanced(lab)
    whole = v2() + b"EHLO behind.test\r\n"
    for at in (1, 5, 12, 13, 15, 16, 20, 27, 28, 29, 35):
        with Announced(relay.port, greeted=False) as client:
            client.write(whole[:at])
            time.sleep(0.02)  # not for its length: so that the pieces are not one segment
            client.write(whole[at:])
            assert client.reply().startswith("220")
            assert "192.0.2.7" in client.reply()
    assert relay.counter("proxy_headers") == 11


def test_the_connector_is_chosen_by_the_announced_address(lab):
    port, hop = free_port(), lab.server(how="clear")
    relay = lab.relay(transport(),
        receive("near", port, **{"proxy-balancers": [BALANCER], "fqdn": "near.test",
                                 "remote-ip-ranges": ["192.0.2.0/24"]}),
        receive("far", port, **{"fqdn": "far.test", "remote-ip-ranges": ["203.0.113.0/24"]}),
        inside(hop.port))
    for source, name in (("192.0.2.7", "near"), ("203.0.113.7", "far")):
        with Announced(port, v1(source)) as client:
            assert client.greeting.startswith(f"220 {name}.test")
    assert [event["connector"] for event in relay.events("accept")] == ["near", "far"]


def test_whom_nobody_serves_is_closed_without_a_word(lab):
    relay = balanced(lab)
    for header in (v1("203.0.113.7"), v2("203.0.113.7"), v1("2001:db9::1", "::1")):
        with Announced(relay.port, header, greeted=False) as client:
            assert closed_silently(client)
    refused = relay.refusals(why="no-connector")
    assert [event["peer"] for event in refused] == ["203.0.113.7", "203.0.113.7", "2001:db9::1"]
    assert {event["announced-by"] for event in refused} == {BALANCER}
    assert relay.counter("sessions_unmatched") == 3 and relay.counter("sessions") == 0


def test_a_balancer_that_speaks_for_itself_is_looked_up_itself(lab):
    relay = balanced(lab)
    for header in (LOCAL, b"PROXY UNKNOWN\r\n"):
        with Announced(relay.port, header, greeted=False) as client:
            assert closed_silently(client)
    assert {event["peer"] for event in relay.refusals(why="no-connector")} == {BALANCER}
    served = balanced(lab, **{"remote-ip-ranges": SERVED + [BALANCER]})
    for header in (LOCAL, b"PROXY UNKNOWN\r\n"):
        with Announced(served.port, header) as client:
            assert client.greeting.startswith("220")
    assert {event["peer"] for event in served.events("accept")} == {BALANCER}


@pytest.mark.parametrize("header, reason", [
    (b"EHLO there\r\n", "no-header"),
    (b"\x16\x03\x01\x00\x05hello", "no-header"),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n", "malformed"),
    (b"PROXY TCP9 192.0.2.7 198.51.100.1 1 2\r\n", "malformed"),
    (b"PROXY UNKNOWN " + b"x" * 200, "too-long"),
    (v2(more=b"\x03\x00\x04\0\0\0\0"), "bad-checksum"),
    (v2(more=b"\x04\x00\x09x"), "malformed"),
    (SIGNATURE + b"\x21\x11\xff\xff", "too-long"),
    (SIGNATURE + b"\x31\x11\x00\x0c", "malformed"),
])
def test_a_garbled_header_is_refused_at_once(lab, header, reason):
    relay = balanced(lab)
    with Announced(relay.port, header, greeted=False) as client:
        assert closed_silently(client)
    refused = relay.refusals(why="proxy-header")
    assert [(event["reason"], event["peer"]) for event in refused] == [(reason, BALANCER)]
    assert relay.counter("proxy_headers_bad") == 1 and relay.counter("protocol_errors") == 0


def test_a_header_that_is_cut_short(lab):
    relay = balanced(lab)
    for part in (b"P", v1()[:-1], v2()[:20]):
        with Announced(relay.port, part, greeted=False) as client:
            client.socket.shutdown(socket.SHUT_WR)
            assert closed_silently(client)
    with Announced(relay.port, b"", greeted=False) as client:  # a look whether anybody listens
        client.socket.shutdown(socket.SHUT_WR)
        assert closed_silently(client)
    assert [event["reason"] for event in relay.refusals(why="proxy-header")] == ["cut-short"] * 3
    assert relay.counter("proxy_headers_bad") == 3


def test_bytes_that_trickle_do_not_lengthen_the_wait_nor_turn_the_loop(lab):
    """One is silent, one sends a byte now and then: both end by the deadline of the first byte."""
    relay = balanced(lab)
    before = relay.counter("ring_enters")
    silent = Announced(relay.port, b"", greeted=False)
    slow = Announced(relay.port, b"PROXY UNKNOWN ", greeted=False)
    sent = 0
    begin = time.monotonic()
    try:
        while time.monotonic() - begin < PATIENCE and not slow.has_answer(0.25):
            slow.write(b"x")
            sent += 1
    except OSError:
        pass
    assert closed_silently(slow) and closed_silently(silent)
    assert sent < 90  # it ended while there was still room for more
    assert [event["reason"] for event in relay.refusals(why="proxy-header")] == ["timeout"] * 2
    # A turn or two for each byte and end; a loop that spins makes thousands in a second.
    assert relay.counter("ring_enters") - before < 200 + 4 * sent
    silent.close()
    slow.close()


def test_an_endless_stream_costs_no_more_than_a_header(lab):
    relay = balanced(lab)
    before = relay.counter("recv_calls")
    with Announced(relay.port, greeted=False) as client:
        try:
            for _ in range(1000):
                client.write(b"PROXY UNKNOWN " + b"y" * 10000)
        except OSError:
            pass
    wait_for(lambda: relay.refusals(why="proxy-header"), "refusal")
    assert relay.counter("recv_calls") - before < 10


def test_two_headers_the_second_is_a_syntax_error(lab):
    relay = balanced(lab)
    with Announced(relay.port, v1() + v1("192.0.2.99"), greeted=True) as client:
        assert client.reply().startswith("500")
        client.ehlo()
        assert client.send().startswith("250")
    assert b"([192.0.2.7])" in relay.hop.messages[0].body


def test_from_others_a_header_is_a_syntax_error(lab):
    relay = balanced(lab, **{"remote-ip-ranges": SERVED + ["127.0.0.1"]})
    with Client(relay.port) as client:
        assert client.say(v1().decode().strip()).startswith("500")
        client.write(v2())
        for _ in range(3):
            assert client.reply().startswith("500")
    accept = relay.events("accept")
    assert len(accept) == 1 and accept[0]["peer"] == "127.0.0.1" and "balancer" not in accept[0]


def test_limits_count_the_announced_client(lab):
    relay = balanced(lab, **{"max-inbound-connection-per-source": 2})
    first = [Announced(relay.port, v1()) for _ in range(2)]
    with Announced(relay.port, v1()) as third:
        assert third.greeting.startswith("421 4.3.2")
    with Announced(relay.port, v1("192.0.2.8")) as other:
        assert other.greeting.startswith("220")
    first.pop().quit()
    wait_for(lambda: relay.events("session-end", peer="192.0.2.7"), "end of the session")
    with Announced(relay.port, v1()) as third:
        assert third.greeting.startswith("220")
    refused = relay.refusals(why="too-many-connections-per-source")
    assert [event["peer"] for event in refused] == ["192.0.2.7"]
    assert relay.counter("sessions_refused_source") == 1


def test_message_rate_counts_the_announced_client(lab):
    relay = balanced(lab, **{"message-rate-limit": 1})
    with Announced(relay.port, v1()) as client:
        client.ehlo()
        assert client.send().startswith("250")
        assert client.mail("a@treyresearch.test").startswith("421 4.4.2")
    with Announced(relay.port, v2("192.0.2.8")) as client:
        client.ehlo()
        assert client.send().startswith("250")
    assert [event["peer"] for event in relay.refusals(why="message-rate")] == ["192.0.2.7"]


def tls_in_memory(client, cert=None):
    """The first flight of a client's handshake, and what is needed to go on."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(cert).wrap_bio(into, out, server_hostname="mx.adatum.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return tls, into, out


def finish_in_memory(client, tls, into, out):
    def move():
        client.write(out.read()) if out.pending else None
        into.write(client.socket.recv(65536))
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            move()
    client.write(out.read())
    text = b""
    while b"\r\n" not in text:
        try:
            text += tls.read(4096)
        except ssl.SSLWantReadError:
            move()
    return text


@pytest.mark.parametrize("cut", [None, 0, 1, 5, 6, 100])
def test_a_client_hello_right_behind_the_header(lab, cut):
    """In one segment, and cut somewhere in the ClientHello; nothing is lost."""
    hop, port = lab.server(how="clear"), free_port()
    relay = lab.relay(transport(), certificate(), receive("edge", port, **{
        "proxy-balancers": [BALANCER], "remote-ip-ranges": SERVED, "tls": "implicit",
        "certificate": "edge"}), inside(hop.port))
    with Announced(port, greeted=False) as client:
        tls, into, out = tls_in_memory(client)
        first = v2() + out.read()
        at = len(first) if cut is None else len(v2()) + cut
        client.write(first[:at])
        if first[at:]:
            time.sleep(0.02)
            client.write(first[at:])
        assert finish_in_memory(client, tls, into, out).startswith(b"220")
    assert relay.counter("tls_handshakes") == 1
    assert relay.events("accept")[0]["peer"] == "192.0.2.7"


def test_garbage_behind_the_header_where_tls_is_implicit(lab):
    hop, port = lab.server(how="clear"), free_port()
    relay = lab.relay(transport(), certificate(), receive("edge", port, **{
        "proxy-balancers": [BALANCER], "remote-ip-ranges": SERVED, "tls": "implicit",
        "certificate": "edge"}), inside(hop.port))
    with Announced(port, v1() + b"EHLO nobody\r\n", greeted=False) as client:
        assert b"250" not in client.reply().encode()
    wait_for(lambda: relay.events("tls-failed"), "failed handshake")
    assert relay.counter("tls_failed") == 1


def test_behind_a_balancer_the_clients_certificate_counts(lab):
    """TLS is end to end: domain security is as if nobody stood between."""
    hop, port = lab.server(how="clear"), free_port()
    relay = lab.relay(transport(), certificate(), partner(), secure("edge", port, **{
        "proxy-balancers": [BALANCER], "remote-ip-ranges": SERVED}), inside(hop.port))
    with Announced(port, v2()) as client:
        client.ehlo()
        client.starttls("treyresearch")
        assert client.send().startswith("250")
    with Announced(port, v2()) as client:
        client.ehlo()
        client.starttls()
        assert client.mail("a@treyresearch.test").startswith("4")
    assert b"x-domain-secure=pass" in hop.messages[0].body
    assert relay.counter("messages_secured") == 1


def test_a_reload_while_the_header_is_awaited(lab):
    """Who is served is asked when the client is known, of the rules of then."""
    relay = balanced(lab)
    with Announced(relay.port, v1()[:10], greeted=False) as client:
        config = relay.config.read_text().replace("192.0.2.0/24", "203.0.113.0/24")
        assert relay.reload(config)["result"] == "ok"
        client.write(v1()[10:])
        assert closed_silently(client)
    with Announced(relay.port, v1("203.0.113.9")) as client:
        assert client.greeting.startswith("220")


def test_a_balancer_that_is_none_any_more_is_not_believed(lab):
    """Nor where it is served as a client: by the rules of now it may not speak for others."""
    relay = balanced(lab, **{"remote-ip-ranges": SERVED + ["127.0.0.0/8"]})
    with Announced(relay.port, v1()[:10], greeted=False) as client:
        config = relay.config.read_text().replace(f'{{"{BALANCER}"}}', '{"127.0.0.10"}')
        assert relay.reload(config)["result"] == "ok"
        client.write(v1()[10:])
        assert closed_silently(client)
    assert relay.refusals(why="no-balancer-now")[0]["peer"] == BALANCER
    assert relay.counter("sessions") == 0


# ---- XCLIENT ----------------------------------------------------------------------------------

def fronted(lab, hop=None, **keywords):
    hop = hop or lab.server(how="clear")
    port = free_port()
    relay = lab.relay(transport(), receive("edge", port, **{
        "xclient-hosts": ["127.0.0.1"], "remote-ip-ranges": SERVED + ["127.0.0.0/8"],
        **keywords}), inside(hop.port))
    relay.port, relay.hop = port, hop
    return relay


def test_xclient_makes_it_another(lab):
    relay = fronted(lab)
    with Client(relay.port) as client:
        client.ehlo()
        assert "XCLIENT" in client.keywords
        client.say("XCLIENT NAME=c.test ADDR=192.0.2.7 PORT=4711 PROTO=SMTP HELO=h.test", 220)
        assert client.mail("a@treyresearch.test").startswith("503")  # EHLO comes first again
        client.ehlo()
        assert client.send().startswith("250")
        client.quit()
    assert b"Received: from h.test ([192.0.2.7])" in relay.hop.messages[0].body
    assert b"with SMTP id" in relay.hop.messages[0].body
    event = relay.events("xclient")[0]
    assert event["peer"] == "192.0.2.7" and event["front-end"] == "127.0.0.1"
    assert event["name"] == "c.test" and event["port"] == "4711"
    wait_for(lambda: relay.events("session-end", peer="192.0.2.7"), "end of the session")
    assert relay.counter("xclients") == 1


def test_xclient_again_and_again(lab):
    relay = fronted(lab)
    with Client(relay.port) as client:
        client.ehlo()
        for address, helo in (("192.0.2.7", "one.test"), ("IPV6:2001:db8::8", "two.test")):
            client.say(f"xclient addr={address} helo={helo}", 220)
            client.ehlo()
            assert client.send().startswith("250")
        client.say("XCLIENT ADDR=192.0.2.9", 220)
        client.ehlo()
        assert client.send().startswith("250")
    bodies = [message.body for message in relay.hop.messages]
    assert b"from one.test ([192.0.2.7])" in bodies[0]
    assert b"from two.test ([IPv6:2001:db8::8])" in bodies[1]
    assert b"from probe.test ([192.0.2.9])" in bodies[2]  # nothing is left of the one before


def test_others_may_not_use_it(lab):
    relay = fronted(lab)
    with Client(relay.port, source="127.0.0.2") as client:
        client.ehlo()
        assert "XCLIENT" not in client.keywords
        client.say("XCLIENT ADDR=192.0.2.7", 550)
        client.say("XCLIENT", 550)
        assert client.send().startswith("250")
    assert b"([127.0.0.2])" in relay.hop.messages[0].body
    assert relay.counter("xclient_refused") == 2
    assert {event["peer"] for event in relay.refusals(why="xclient")} == {"127.0.0.2"}


def test_an_announced_client_may_not_use_it(lab):
    """Behind a balancer the address that counts is the one in the header."""
    relay = balanced(lab, **{"xclient-hosts": [BALANCER]})
    with Announced(relay.port, v1()) as client:
        client.ehlo()
        assert "XCLIENT" not in client.keywords
        client.say("XCLIENT ADDR=192.0.2.9", 550)


@pytest.mark.parametrize("line", [
    "XCLIENT", "XCLIENT ADDR", "XCLIENT ADDR=", "XCLIENT ADDR=1.2.3", "XCLIENT ADDR=2001:db8::1",
    "XCLIENT ADDR=IPV6:1.2.3.4", "XCLIENT ADDR=192.0.2.7 ADDR=192.0.2.8", "XCLIENT NONSENSE=1",
    "XCLIENT PORT=65536", "XCLIENT PORT=x", "XCLIENT PROTO=LMTP", "XCLIENT PROTO=[UNAVAILABLE]",
    "XCLIENT HELO=a+2", "XCLIENT HELO=a+0Ab", "XCLIENT NAME=" + "x" * 256,
])
def test_bad_syntax_changes_nothing(lab, line):
    relay = fronted(lab)
    with Client(relay.port) as client:
        client.ehlo()
        assert client.say(line).startswith("501 5.5.4")
        assert client.send().startswith("250")
    assert b"([127.0.0.1])" in relay.hop.messages[0].body


def test_not_in_a_transaction(lab):
    relay = fronted(lab)
    with Client(relay.port) as client:
        client.ehlo()
        client.mail("a@treyresearch.test")
        assert client.say("XCLIENT ADDR=192.0.2.7").startswith("503 5.5.1")
        client.say("RCPT TO:<b@adatum.test>", 250)
        assert client.say("XCLIENT ADDR=192.0.2.7").startswith("503 5.5.1")
        client.say("RSET", 250)
        client.say("XCLIENT ADDR=192.0.2.7", 220)
    assert relay.counter("xclients") == 1


@pytest.mark.parametrize("words, code", [
    ("ADDR=203.0.113.7", "550 5.7.1"), ("ADDR=[UNAVAILABLE]", "550 5.7.1"),
    ("NAME=[TEMPUNAVAIL] ADDR=[tempunavail]", "550 5.7.1"),
])
def test_whom_nobody_serves_ends_the_session(lab, words, code):
    """What came next would pass for the front end's own mail."""
    relay = fronted(lab)
    with Client(relay.port) as client:
        client.ehlo()
        client.write(f"XCLIENT {words}\r\nEHLO x\r\nMAIL FROM:<a@treyresearch.test>\r\n")
        assert client.reply().startswith(code)
        assert client.reply() == ""
    assert relay.refusals() and relay.hop.messages == []


def test_unknown_values_are_fine_elsewhere(lab):
    relay = fronted(lab)
    with Client(relay.port) as client:
        client.ehlo()
        client.say("XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=[UNAVAILABLE] "
                   "HELO=[TEMPUNAVAIL] LOGIN=[UNAVAILABLE] DESTADDR=[UNAVAILABLE] "
                   "DESTPORT=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE]", 220)
        client.ehlo()
        assert client.send().startswith("250")
    assert b"from probe.test ([192.0.2.7])" in relay.hop.messages[0].body


def test_the_connector_and_limits_are_the_announced_clients(lab):
    port, hop = free_port(), lab.server(how="clear")
    relay = lab.relay(transport(),
        receive("front", port, **{"xclient-hosts": ["127.0.0.1"], "fqdn": "front.test",
                                  "remote-ip-ranges": ["127.0.0.0/8"]}),
        receive("world", port, **{"fqdn": "world.test", "remote-ip-ranges": SERVED,
                                  "max-inbound-connection-per-source": 1}),
        inside(hop.port))
    with Client(port) as one, Client(port) as two, Client(port) as three:
        assert one.greeting.startswith("220 front.test")
        assert one.say("XCLIENT ADDR=192.0.2.7", 220).startswith("220 world.test")
        assert two.say("XCLIENT ADDR=192.0.2.7").startswith("421 4.3.2")
        assert two.reply() == ""
        three.say("XCLIENT ADDR=192.0.2.8", 220)
        three.say("XCLIENT ADDR=192.0.2.8", 220)  # its own place does not stand in its way
        one.say("XCLIENT ADDR=192.0.2.9", 220)
    assert [event["connector"] for event in relay.events("xclient")] == ["world"] * 4


def test_the_front_ends_certificate_proves_nothing_for_others(lab):
    """Domain security: whoever is announced in a partner's TLS session is not that partner."""
    hop, port = lab.server(how="clear"), free_port()
    relay = lab.relay(transport(), certificate(), partner(), secure("edge", port, **{
        "xclient-hosts": ["127.0.0.1"], "remote-ip-ranges": SERVED + ["127.0.0.0/8"]}),
        inside(hop.port))
    with Client(port) as client:
        client.ehlo()
        client.starttls("treyresearch")
        assert client.send().startswith("250")  # for itself it is proved
        for words in ("ADDR=192.0.2.7", "HELO=trey.test"):
            client.say("XCLIENT " + words, 220)
            client.ehlo()
            assert client.mail("a@treyresearch.test").startswith("454 4.7.5")
            assert client.send("a@other.test").startswith("250")
    assert b"x-domain-secure=pass" in hop.messages[0].body
    for message in hop.messages[1:]:
        assert b"x-domain-secure=none\r\n" in message.body
        assert b"treyresearch" not in message.body.split(b"Subject:")[0].lower()
        assert b"using TLS" not in message.body
    assert relay.counter("messages_secured") == 1


def test_tls_comes_before_xclient_or_not_at_all(lab):
    """What was said in clear must not be in force under TLS (RFC 3207 4.2)."""
    hop, port = lab.server(how="clear"), free_port()
    lab.relay(transport(), certificate(), receive("edge", port, **{
        "xclient-hosts": ["127.0.0.1"], "certificate": "edge", "tls": "starttls",
        "remote-ip-ranges": SERVED + ["127.0.0.0/8"]}), inside(hop.port))
    with Client(port) as client:
        client.ehlo()
        assert "STARTTLS" in client.keywords
        client.say("XCLIENT ADDR=192.0.2.7", 220)
        client.ehlo()
        assert "STARTTLS" not in client.keywords
        client.say("STARTTLS", 503)
    with Client(port) as client:
        client.ehlo()
        client.starttls()
        assert "XCLIENT" in client.keywords
        client.say("XCLIENT ADDR=192.0.2.7", 220)
        client.ehlo()
        assert client.send().startswith("250")


def test_after_a_reload_the_front_end_comes_again(lab):
    relay = fronted(lab)
    with Client(relay.port) as client:
        client.ehlo()
        assert relay.reload()["result"] == "ok"
        assert client.say("XCLIENT ADDR=192.0.2.7").startswith("421 4.3.2")
    with Client(relay.port) as client:
        client.say("XCLIENT ADDR=192.0.2.7", 220)


def test_commands_behind_xclient_in_one_segment(lab):
    relay = fronted(lab)
    with Client(relay.port) as client:
        client.write("XCLIENT ADDR=192.0.2.7\r\nEHLO x.test\r\nMAIL FROM:<a@treyresearch.test>\r\n"
                     "RCPT TO:<b@adatum.test>\r\n")
        assert [client.reply()[:3] for _ in range(4)] == ["220", "250", "250", "250"]


def test_a_balancer_in_front_of_a_front_end(lab):
    relay = balanced(lab, **{"xclient-hosts": ["192.0.2.7"]})
    with Announced(relay.port, v1()) as client:
        client.ehlo()
        assert "XCLIENT" in client.keywords
        client.say("XCLIENT ADDR=192.0.2.99", 220)
        client.ehlo()
        assert client.send().startswith("250")
    assert b"([192.0.2.99])" in relay.hop.messages[0].body
    assert relay.events("xclient")[0]["front-end"] == "192.0.2.7"


# ---- swaks ------------------------------------------------------------------------------------

def swaks(port, *words):
    return subprocess.run(["swaks", "--server", f"127.0.0.1:{port}", "--from", "a@trey.test",
                           "--to", "b@adatum.test", "--helo", "swaks.test", *words],
                          capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_swaks_as_balancer(lab):
    relay = balanced(lab, **{"proxy-balancers": ["127.0.0.1"]})
    for version in ("1", "2"):
        result = swaks(relay.port, "--proxy-version", version, "--proxy-family",
                       "TCP4" if version == "1" else "AF_INET", "--proxy-protocol", "STREAM",
                       "--proxy-source", "192.0.2.7", "--proxy-source-port", "4711",
                       "--proxy-dest", "198.51.100.1", "--proxy-dest-port", "25")
        assert result.returncode == 0, result.stdout + result.stderr
    assert [event["peer"] for event in relay.events("accept")] == ["192.0.2.7"] * 2
    assert all(b"([192.0.2.7])" in message.body for message in relay.hop.messages)


def test_swaks_as_front_end(lab):
    relay = fronted(lab)
    result = swaks(relay.port, "--xclient-addr", "192.0.2.7", "--xclient-name", "c.test",
                   "--xclient-helo", "h.test", "--xclient-port", "4711")
    assert result.returncode == 0, result.stdout + result.stderr
    assert b"from h.test ([192.0.2.7])" in relay.hop.messages[0].body
