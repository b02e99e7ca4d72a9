# SPDX-License-Identifier: Apache-2.0
"""client-identity: what the next hop is told of the client, and that no session is ever another's.

The scripted next hop reads PROXY headers, or takes XCLIENT, and keeps which message came how.
"""

import socket
import ssl
import struct
import threading

import pytest

from conftest import free_port, wait_for
from lab import (Client, Server, ServerConversation, certificate, check, client_context, inside,
                 lab, partner, receive, secure, transport)  # noqa: F401 (lab is a fixture)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TLV = {1: "alpn", 2: "authority", 3: "crc", 5: "unique-id", 0x20: "ssl", 0x21: "version",
       0x22: "cn", 0x23: "cipher"}


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def tlvs(data):
    found = {}
    while data:
        kind, size = struct.unpack(">BH", data[:3])
        found[TLV.get(kind, kind)] = data[3:3 + size]
        data = data[3 + size:]
    return found


def exactly(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_header(connection):
    """One PROXY header and no byte more, as a dictionary."""
    start = exactly(connection, 12)
    if start != SIGNATURE:
        while not start.endswith(b"\r\n"):
            start += exactly(connection, 1)
        words = start.decode().split()
        assert words[0] == "PROXY" and len(words) == 6, start
        return {"version": 1, "source": words[2], "destination": words[3],
                "sport": int(words[4]), "dport": int(words[5])}
    fixed = exactly(connection, 4)
    block = exactly(connection, struct.unpack(">H", fixed[2:])[0])
    assert fixed[0] == 0x21 and fixed[1] in (0x11, 0x21)
    size = 4 if fixed[1] == 0x11 else 16
    family = socket.AF_INET if size == 4 else socket.AF_INET6
    ports = struct.unpack(">HH", block[2 * size:2 * size + 4])
    header = {"version": 2, "source": socket.inet_ntop(family, block[:size]),
              "destination": socket.inet_ntop(family, block[size:2 * size]),
              "sport": ports[0], "dport": ports[1], **tlvs(block[2 * size + 4:])}
    whole = start + fixed + block
    at = whole.rindex(header["crc"])
    assert crc32c(whole[:at] + b"\0\0\0\0" + whole[at + 4:]) == struct.unpack(">I",
                                                                             header["crc"])[0]
    if "ssl" in header:
        header["verify"] = struct.unpack(">I", header["ssl"][1:5])[0]
        header["flags"] = header["ssl"][0]
        header["tls"] = tlvs(header["ssl"][5:])
    return header


class Talk(ServerConversation):
    """told: what this connection said of the client, at the time of a message."""

    def __init__(self, hop, connection, header):
        super().__init__(hop, connection)
        self.told = header

    def accept(self, how):
        self.hop.told.append((self.told, self.sender))
        super().accept(how)

    def verb_xclient(self, line):
        self.hop.xclients.append((line.decode(), self.is_tls))
        self.told = dict(word.split("=", 1) for word in line.decode().split()[1:])
        self.forget()
        self.say("220 hop.test ESMTP again")


class Hop(Server):
    """Takes PROXY headers (proxy) or XCLIENT, if it is among its keywords."""

    def __init__(self, proxy=False, implicit=False, **options):
        self.proxy, self.implicit = proxy, implicit
        self.headers, self.told, self.xclients = [], [], []
        self.failures = []
        self.lock = threading.Lock()
        super().__init__(**options)

    def _serve(self, connection):
        self.connections += 1
        self.sockets.append(connection)
        header = None
        try:
            if self.proxy:
                header = read_header(connection)
                self.headers.append(header)
            if self.implicit:
                connection = self.context.wrap_socket(connection, server_side=True)
            talk = Talk(self, connection, header)
            talk.is_tls = self.implicit
            talk.run()
        except (OSError, EOFError, ValueError):
            pass
        except AssertionError as failure:
            self.failures.append(failure)
        finally:
            connection.close()


BASE = ["PIPELINING", "SIZE 104857600", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES",
        "CHUNKING", "BINARYMIME"]
XCLIENT = ["XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"]


def through(lab, how, hop, receiver=None, extra=(), **keywords):
    port = free_port()
    relay = lab.relay(transport(), *extra,
        (receiver or receive)("edge", port, **{"bindings": [f"127.0.0.1:{port}"]}),
        inside(hop.port, **{"trusted_next_hop": True, "client_identity": how, **keywords}))
    relay.port = port
    lab.keep(hop)
    return relay


def end_of(hop):
    assert hop.failures == [] and hop.mistakes == []


@pytest.mark.parametrize("how, version", [("proxy-v1", 1), ("proxy-v2", 2)])
def test_the_header_names_the_client(lab, how, version):
    hop = Hop(proxy=True, how="clear")
    relay = through(lab, how, hop)
    with Client(relay.port, source="127.0.0.5") as client:
        sport = client.socket.getsockname()[1]
        client.ehlo()
        assert client.send().startswith("250")
        client.quit()
    header = hop.told[0][0]
    assert (header["version"], header["source"], header["sport"]) == (version, "127.0.0.5", sport)
    assert (header["destination"], header["dport"]) == ("127.0.0.1", relay.port)
    if version == 2:
        assert header["unique-id"].decode() == relay.events("accept")[0]["session"]
        assert "ssl" not in header and "authority" not in header
    end_of(hop)


@pytest.mark.parametrize("how", ["proxy-v1", "proxy-v2", "xclient"])
def test_no_session_is_ever_anothers(lab, how):
    """Interleaved clients, several messages each: each came by its own client's session."""
    hop = Hop(proxy=how != "xclient", how="clear", keywords=BASE + XCLIENT)
    relay = through(lab, how, hop)
    clients = [Client(relay.port, source=f"127.0.0.{10 + i}") for i in range(6)]
    for client in clients:
        client.ehlo(f"h{client.socket.getsockname()[0].split('.')[-1]}.test")
    for turn in range(4):
        for client in clients[turn % 2:] + clients[:turn % 2]:
            sender = client.socket.getsockname()[0].replace(".", "-") + "@trey.test"
            assert client.send(sender).startswith("250")
    for client in clients:
        client.quit()
    assert len(hop.told) == 24
    for told, sender in hop.told:
        source = told["source"] if how != "xclient" else told["ADDR"]
        assert sender == f"MAIL FROM:<{source.replace('.', '-')}@trey.test>" or \
            sender.startswith(f"MAIL FROM:<{source.replace('.', '-')}@trey.test>")
    # Pooled while the client is there, and ended with it.
    assert hop.connections <= 7
    wait_for(lambda: len(relay.events("nexthop-end")) == hop.connections, "end of the sessions")
    assert relay.counter("nexthop_reused") >= 18
    end_of(hop)


@pytest.mark.parametrize("how", ["proxy-v2", "xclient"])
def test_the_session_ends_with_its_client(lab, how):
    hop = Hop(proxy=how != "xclient", how="clear", keywords=BASE + XCLIENT)
    relay = through(lab, how, hop)
    with Client(relay.port) as client:
        client.ehlo()
        assert client.send().startswith("250")
        assert relay.events("nexthop-end") == []
    wait_for(lambda: relay.events("nexthop-end"), "end of the session")
    assert relay.events("nexthop-end")[0]["why"] == "client-gone"
    wait_for(lambda: "QUIT" in hop.commands, "QUIT")


def test_a_client_that_goes_while_its_session_is_opened(lab):
    """Its time is over while the next hop is silent; what was on its way is given up."""
    silent, port = socket.create_server(("127.0.0.1", 0)), free_port()
    relay = lab.relay(transport(), receive("edge", port, **{
        "connection-timeout": "2s", "connection-inactivity-timeout": "1s"}),
        inside(silent.getsockname()[1], **{"trusted_next_hop": True,
                                           "client_identity": "proxy-v1"}))
    with Client(port) as client:
        client.write("EHLO gone.test\r\n")
        connection, _ = silent.accept()
        assert connection.recv(100).startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
        assert client.reply().startswith("421")
        wait_for(lambda: connection.recv(100) == b"", "end of what was on its way")
    wait_for(lambda: relay.events("session-end"), "end of the session")
    assert relay.events("nexthop-end")[0]["why"] == "client-gone"
    silent.close()


@pytest.mark.parametrize("how", ["proxy-v1", "proxy-v2", "xclient"])
def test_with_tls_to_the_next_hop(lab, how):
    """The header stands in front of everything; XCLIENT comes under TLS, and EHLO again."""
    hop = Hop(proxy=how != "xclient", how="tls", keywords=BASE + XCLIENT)
    relay = through(lab, how, hop, tls_auth_level="encryption-only")
    with Client(relay.port) as client:
        client.ehlo()
        assert "CHUNKING" in client.keywords
        for _ in range(2):
            assert client.send().startswith("250")
    assert hop.handshakes == 1 and len(hop.told) == 2
    if how == "xclient":
        assert [is_tls for _, is_tls in hop.xclients] == [True]
        words = [command.split()[0] for command in hop.commands[:5]]
        assert words == ["EHLO", "STARTTLS", "EHLO", "XCLIENT", "EHLO"]
        assert hop.commands[2] == "EHLO mx.adatum.test"
        assert hop.commands[4] == "EHLO probe.test"
    end_of(hop)


@pytest.mark.parametrize("how", ["proxy-v1", "proxy-v2"])
def test_with_implicit_tls_to_the_next_hop(lab, how):
    hop = Hop(proxy=True, implicit=True, how="tls")
    relay = through(lab, how, hop, tls_auth_level="encryption-only", implicit_tls=True)
    with Client(relay.port, source="127.0.0.5") as client:
        client.ehlo()
        assert client.send().startswith("250")
    assert hop.told[0][0]["source"] == "127.0.0.5"
    end_of(hop)


def test_tls_facts_of_the_client(lab):
    """What is known when the connection is opened; a certificate's name only if it is good."""
    hop = Hop(proxy=True, how="clear")
    relay = through(lab, "proxy-v2", hop, receiver=secure, extra=[certificate(), partner()])
    for cert in ("treyresearch", None):
        with Client(relay.port) as client:
            client.ehlo()
            client.starttls(cert)
            assert client.send("a@other.test").startswith("250")
    known, unknown = (told for told, _ in hop.told)
    for header in (known, unknown):
        assert header["authority"] == b"mx.adatum.test"
        assert header["tls"]["version"] == b"TLSv1.3"
        assert header["tls"]["cipher"].startswith(b"TLS_")
    assert known["verify"] == 0 and known["flags"] & 1 and known["flags"] & 2
    assert unknown["verify"] != 0 and unknown["flags"] == 1
    assert "cn" not in unknown["tls"]
    assert known["tls"]["cn"]
    end_of(hop)


def test_a_session_opened_before_starttls_is_not_used_after_it(lab):
    hop = Hop(proxy=True, how="clear")
    relay = through(lab, "proxy-v2", hop, receiver=secure, extra=[certificate(), partner()])
    with Client(relay.port) as client:
        client.ehlo()
        assert client.send("a@other.test").startswith("250")
        client.starttls()
        assert client.send("a@other.test").startswith("250")
    assert "ssl" not in hop.told[0][0] and "ssl" in hop.told[1][0]
    assert hop.connections == 2
    assert "client-changed" in {event["why"] for event in relay.events("nexthop-end")}


@pytest.mark.parametrize("keywords, words", [
    (XCLIENT, ["NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT"]),
    (["XCLIENT ADDR HELO SOMETHING"], ["ADDR", "HELO"]),
    (["xclient addr"], ["ADDR"]),
])
def test_only_what_is_announced_is_said(lab, keywords, words):
    hop = Hop(how="clear", keywords=BASE + keywords)
    relay = through(lab, "xclient", hop)
    with Client(relay.port, source="127.0.0.5") as client:
        client.ehlo("h.test")
        sport = client.socket.getsockname()[1]
        assert client.send().startswith("250")
    told = hop.told[0][0]
    assert list(told) == words
    want = {"NAME": "[UNAVAILABLE]", "ADDR": "127.0.0.5", "PORT": str(sport), "PROTO": "ESMTP",
            "HELO": "h.test", "LOGIN": "[UNAVAILABLE]", "DESTADDR": "127.0.0.1",
            "DESTPORT": str(relay.port)}
    assert told == {word: want[word] for word in words}


def test_a_long_name_does_not_make_a_long_line(lab):
    hop = Hop(how="clear", keywords=BASE + XCLIENT)
    relay = through(lab, "xclient", hop)
    with Client(relay.port) as client:
        name = ".".join(["x" * 60] * 4)
        client.ehlo(name)
        assert client.send().startswith("250")
    line = hop.xclients[0][0]
    assert len(line) + 2 <= 512 and f"HELO={name} " in line


@pytest.mark.parametrize("keywords, answer, why", [
    ([], None, "xclient-not-offered"),
    (["XCLIENT NAME HELO"], None, "xclient-not-offered"),
    (XCLIENT, "550 5.7.0 not you", "xclient-refused"),
    (XCLIENT, "250 2.0.0 as you like", "xclient-refused"),
    (XCLIENT, "421 4.3.2 later", "xclient-refused"),
])
def test_no_mail_as_if_it_were_ours(lab, keywords, answer, why):
    hop = Hop(how="clear", keywords=BASE + keywords)
    if answer:
        hop.answers["XCLIENT"] = answer
    relay = through(lab, "xclient", hop)
    with Client(relay.port) as client:
        client.ehlo()
        reply = client.send()
        assert reply.startswith("451 4.3.5 ") and "XCLIENT" in reply
    assert hop.messages == [] and hop.mails == 0
    assert relay.events("nexthop-failed")[0]["why"] == why
    assert relay.counter("nexthop_identity_refused") >= 1


class Choosy(Hop):
    """Turns some clients away, as soon as it knows who it is."""

    unwanted = ()

    def _serve(self, connection):
        if self.proxy and self.unwanted:
            header = read_header(connection)
            if header["source"] in self.unwanted:
                self.headers.append(header)
                self.sockets.append(connection)
                connection.sendall(b"554 5.7.1 not you\r\n")
                connection.close()
                return
            self.headers.append(header)
            talk = Talk(self, connection, header)
            try:
                talk.run()
            except (OSError, EOFError):
                pass
            return
        super()._serve(connection)


@pytest.mark.parametrize("how", ["proxy-v1", "xclient"])
def test_who_is_turned_away_takes_no_host_from_others(lab, how):
    """What the next hop thinks of one client says nothing of the host."""
    first, second = (lab.keep(Choosy(proxy=how != "xclient", how="clear",
                                     keywords=BASE + XCLIENT)) for _ in range(2))
    first.unwanted = ("127.0.0.5",)
    port = free_port()
    relay = lab.relay(transport(), receive("edge", port),
        inside(first.port, **{"trusted_next_hop": True, "client_identity": how, "smart_hosts": [
            f"127.0.0.1:{hop.port}" for hop in (first, second)]}))
    if how == "xclient":
        first.answers["XCLIENT"] = "550 5.7.1 not you"
    with Client(port, source="127.0.0.5") as client:
        client.ehlo()
        client.send()
    first.answers.clear()
    with Client(port, source="127.0.0.6") as client:
        client.ehlo()
        assert client.send().startswith("250")
    assert len(first.messages) == 1
    assert relay.events("nexthop-failed")[0]["why"] == \
        ("xclient-refused" if how == "xclient" else "greeting-refused")


def test_xclient_in_clear_is_said_again_under_tls(lab):
    """Who hid STARTTLS until then could have changed it on the way (RFC 3207 4.2)."""
    class Late(Talk):
        def verb_ehlo(self, line):
            self.hop.how = "tls" if self.hop.xclients else "clear"
            super().verb_ehlo(line)

    class LateHop(Hop):
        def _serve(self, connection):
            self.sockets.append(connection)
            try:
                Late(self, connection, None).run()
            except (OSError, EOFError, ValueError):
                pass

    hop = LateHop(how="clear", keywords=BASE + XCLIENT)
    relay = through(lab, "xclient", hop, tls_auth_level="opportunistic")
    with Client(relay.port) as client:
        client.ehlo()
        assert client.send().startswith("250")
    assert [is_tls for _, is_tls in hop.xclients] == [False, True]
    words = [command.split()[0] for command in hop.commands[:8]]
    assert words == ["EHLO", "XCLIENT", "EHLO", "STARTTLS", "EHLO", "XCLIENT", "EHLO", "MAIL"]
    assert hop.commands[4] == "EHLO mx.adatum.test"


def test_no_helo_instead_of_ehlo(lab):
    hop = Hop(how="clear", keywords=BASE)
    hop.answers["EHLO"] = "500 5.5.1 what?"
    relay = through(lab, "xclient", hop)
    with Client(relay.port) as client:
        client.ehlo()
        assert client.send().startswith("451 4.3.5")
    assert "HELO" not in [command.split()[0] for command in hop.commands]


def test_what_balancers_and_front_ends_say_is_passed_on(lab):
    """In by PROXY or XCLIENT, out by PROXY: the address is the client's all the way."""
    hop, port = lab.keep(Hop(proxy=True, how="clear")), free_port()
    lab.relay(transport(), receive("edge", port, **{
        "proxy-balancers": ["127.0.0.9"], "xclient-hosts": ["127.0.0.8"],
        "remote-ip-ranges": ["192.0.2.0/24", "2001:db8::/32", "127.0.0.8"]}),
        inside(hop.port, **{"trusted_next_hop": True, "client_identity": "proxy-v2"}))
    client = Client(port, source="127.0.0.9", greeted=False)
    client.write("PROXY TCP6 2001:db8::7 2001:db8::1 4711 2525\r\n")
    assert client.reply().startswith("220")
    client.ehlo()
    assert client.send().startswith("250")
    with Client(port, source="127.0.0.8") as front:
        for address in ("192.0.2.7", "192.0.2.8"):
            front.say(f"XCLIENT ADDR={address} PORT=99 DESTADDR=198.51.100.1 DESTPORT=26", 220)
            front.ehlo()
            assert front.send().startswith("250")
        front.say("XCLIENT ADDR=IPV6:2001:db8::9", 220)
        front.ehlo()
        assert front.send().startswith("250")
    told = [header for header, _ in hop.told]
    assert [(h["source"], h["sport"], h["destination"], h["dport"]) for h in told] == [
        ("2001:db8::7", 4711, "2001:db8::1", 2525), ("192.0.2.7", 99, "198.51.100.1", 26),
        ("192.0.2.8", 99, "198.51.100.1", 26),
        ("2001:db8::9", 0, "::ffff:127.0.0.1", port)]  # nothing is left of the one before
    assert hop.connections == 4
    client.close()


def test_more_clients_than_connections(lab):
    """An idle session that is somebody else's makes room; nobody waits for ever."""
    hop = Hop(proxy=True, how="clear")
    relay = through(lab, "proxy-v1", hop, max_connections=2)
    clients = [Client(relay.port, source=f"127.0.0.{10 + i}") for i in range(7)]
    for client in clients:
        client.ehlo()
    for _ in range(3):
        for client in clients:
            assert client.send(client.socket.getsockname()[0].replace(".", "-") +
                               "@trey.test").startswith("250")
    for told, sender in hop.told:
        assert told["source"].replace(".", "-") in sender
    assert len(hop.told) == 21
    for client in clients:
        client.close()


def test_many_at_once(lab):
    """All their commands in one piece, all at a time: answers and sessions stay apart."""
    hop = Hop(proxy=True, how="clear")
    relay = through(lab, "proxy-v2", hop, max_connections=4)
    clients = [Client(relay.port, source=f"127.0.0.{10 + i}") for i in range(12)]
    for client in clients:
        name = client.socket.getsockname()[0].replace(".", "-")
        client.ehlo()
        client.write("".join(
            f"MAIL FROM:<{name}@trey.test>\r\nRCPT TO:<b@adatum.test>\r\nBDAT 4 LAST\r\nab\r\n"
            for _ in range(5)))
    for client in clients:
        for _ in range(15):
            assert client.reply().startswith("250")
        client.close()
    assert len(hop.told) == 60
    for told, sender in hop.told:
        assert told["source"].replace(".", "-") in sender
    end_of(hop)


def test_a_next_hop_that_breaks(lab):
    """The transaction is begun anew on another session of the same client."""
    hop = Hop(proxy=True, how="clear")
    relay = through(lab, "proxy-v2", hop)
    with Client(relay.port, source="127.0.0.5") as client:
        client.ehlo()
        assert client.send().startswith("250")
        hop.cut()
        assert client.send().startswith("250")
    assert [told["source"] for told, _ in hop.told] == ["127.0.0.5"] * 2


def test_a_refused_port_is_an_answer(lab):
    hop = Hop(proxy=True, how="clear")
    hop.port = free_port()
    relay = through(lab, "proxy-v1", hop)
    with Client(relay.port) as client:
        client.ehlo()
        assert client.send().startswith("451 4.4.1")
    assert relay.counter("nexthop_connect_failed") >= 1


def test_a_reload_while_a_client_is_there(lab):
    hop = Hop(proxy=True, how="clear")
    relay = through(lab, "proxy-v1", hop)
    with Client(relay.port) as client:
        client.ehlo()
        assert client.send().startswith("250")
        assert relay.reload(relay.config.read_text().replace("proxy-v1", "proxy-v2"))["result"] \
            == "ok"
        assert client.send().startswith("250")
    assert [told["version"] for told, _ in hop.told] == [1, 2]


def test_it_needs_a_trusted_next_hop(tmp_path):
    for how in ("proxy-v1", "proxy-v2", "xclient"):
        status, words = check(transport() + receive("edge", 2500) +
                              inside(2501, client_identity=how), tmp_path)
        assert status != 0 and "trusted-next-hop" in words
