# SPDX-License-Identifier: Apache-2.0
"""The laboratory of the row and matrix tests: scripted peers and the things around them.

A client and a server that are told what to do wrong, and a proxy on the path that takes STARTTLS
away; lab_pki.py has the rest. All on loopback; all ended by Lab.close().
"""

import os
import re
import select
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

from conftest import BINARY, PATIENCE, PKI, Conversation, NextHop, Relay, wait_for
from lab_pki import Authority, CrlServer, Dns

CTL = BINARY.parent / "posternctl"
BODY = "Subject: lab\r\n\r\ntext\r\n"

# What a test does not look at shall not slow it down or refuse it.
OPEN = {"tarpit-interval": "0s", "message-rate-limit": "unlimited",
        "max-inbound-connection-per-source": "unlimited",
        "max-inbound-connection-percentage-per-source": 100}


# ---- configuration ---------------------------------------------------------------------------

def value(given):
    if isinstance(given, bool):
        return "yes" if given else "no"
    if isinstance(given, (list, tuple)):
        return "{" + ", ".join(f'"{item}"' for item in given) + "}"
    return str(given) if isinstance(given, int) else f'"{given}"'


def section(kind, name, *defaults, **keywords):
    """kind "name" { keyword = value ... }; "_" is "-", None takes a default away."""
    fields = {}
    for more in [*defaults, {key.replace("_", "-"): given for key, given in keywords.items()}]:
        fields.update(more)
    lines = [f"  {key} = {value(given)}" for key, given in fields.items() if given is not None]
    title = f'{kind} "{name}"' if name else kind
    return "\n".join([title + " {", *lines, "}", ""])


def transport(**keywords):
    return section("transport", None, {"fqdn": "mx.adatum.test", "workers": 1,
                                       "drain-timeout": "2s", "bpf": "off"}, **keywords)


def certificate(name="edge", leaf="adatum", folder=PKI):
    return section("certificate", name, chain=folder / f"{leaf}.pem", key=folder / f"{leaf}.key")


def receive(name, port, **keywords):
    """A connector that takes mail for the send connector "inside"."""
    return section("receive-connector", name, OPEN,
                   {"bindings": [f"127.0.0.1:{port}"], "send-connector": "inside"}, **keywords)


def secure(name, port, **keywords):
    """A domain-secure connector that also serves strangers."""
    return receive(name, port, **{"type": "partner", "certificate": "edge", "permission_groups":
                                  ["anonymous", "partners"], **keywords})


def send(name, port, **keywords):
    return section("send-connector", name, {"smart-hosts": [f"127.0.0.1:{port}"]}, **keywords)


def inside(port, **keywords):
    """The next hop that everything goes to, in clear text."""
    return send("inside", port, **{"tls_auth_level": "none", "max_connections": 100, **keywords})


def partner(name="trey", domains=("treyresearch.test",), **keywords):
    return section("partner", name, {"domains": list(domains),
                                     "trust-anchors": PKI / "treyresearch-ca.pem"}, **keywords)


# ---- the relay -------------------------------------------------------------------------------

class LabRelay(Relay):
    """A relay that can be asked for what the rows ask."""

    def counter(self, name):
        return self.stats().get(name, 0)

    def has_event_id(self, number):
        self.stats()
        return re.findall(rf"^.*\bevent-id={number}\b.*$", self.log(), re.MULTILINE)

    def refusals(self, **fields):
        return self.events("refused", **fields)

    def reload(self, config=None):
        """SIGHUP, with another configuration if one is given; the event of it."""
        if config is not None:
            fresh = self.config.with_suffix(".new")
            fresh.write_text(config)
            os.replace(fresh, self.config)
        def results():
            return [event for event in self.events("reload") if "result" in event]
        before = len(results())
        self.process.send_signal(signal.SIGHUP)
        return wait_for(lambda: results()[before:], "reload event")[0]


def check(config, folder):
    """postern --check: status and what it said."""
    path = folder / "check.conf"
    path.write_text(config)
    result = subprocess.run([BINARY, "--check", path], capture_output=True, text=True,
                            timeout=PATIENCE, check=False)
    return result.returncode, result.stdout + result.stderr


def ctl(*words, status=None, **options):
    """posternctl WORDS: its result; a status that is not expected fails the test."""
    result = subprocess.run([CTL, *[str(word) for word in words]], capture_output=True,
                            text=True, timeout=PATIENCE, check=False, **options)
    if status is not None:
        assert result.returncode == status, f"{words}\n{result.stdout}{result.stderr}"
    return result


# ---- a client --------------------------------------------------------------------------------

def client_context(cert=None, pki=PKI, tls13=True):
    """Believes every server, so that only what the server thinks of us counts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if not tls13:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        chain, key = cert if isinstance(cert, tuple) else (pki / f"{cert}.pem", pki / f"{cert}.key")
        context.load_cert_chain(chain, key)
    return context


class Client:
    """An SMTP client by hand: every command and byte is the test's own."""

    def __init__(self, port, host="127.0.0.1", source=None, greeted=True):
        address = (source, 0) if source else None
        self.socket = socket.create_connection((host, port), PATIENCE, address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.keywords = set()
        self.greeting = self.reply() if greeted else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reply(self):
        """A whole reply, lines joined by LF; "" when the peer has closed."""
        lines = []
        while True:
            while b"\r\n" not in self.buffer:
                try:
                    data = self.socket.recv(65536)
                except (ConnectionResetError, ssl.SSLError):
                    data = b""
                if not data:
                    return "\n".join(lines)
                self.buffer += data
            line, _, self.buffer = self.buffer.partition(b"\r\n")
            lines.append(line.decode(errors="replace"))
            if line[3:4] != b"-":
                return "\n".join(lines)

    def has_answer(self, seconds=0.0):
        """Is there something to read? For a peer that should still be waiting."""
        if self.buffer:
            return True
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        return bool(select.select([self.socket], [], [], seconds)[0])

    def write(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def say(self, line, code=None):
        self.write(line + "\r\n")
        reply = self.reply()
        assert code is None or reply.startswith(str(code)), f"{line}: {reply}"
        return reply

    def ehlo(self, name="probe.test"):
        lines = self.say(f"EHLO {name}", 250).split("\n")
        self.keywords = {line[4:].split(" ")[0] for line in lines[1:]}
        return self.keywords

    def starttls(self, cert=None, pki=PKI, context=None, session=None, name="mx.adatum.test",
                 again=True):
        self.say("STARTTLS", 220)
        assert self.buffer == b""
        context = context or client_context(cert, pki)
        self.socket = context.wrap_socket(self.socket, server_hostname=name, session=session)
        if again:
            self.ehlo()
        return self

    def mail(self, sender):
        return self.say(f"MAIL FROM:<{sender}>")

    def send(self, sender="a@treyresearch.test", to=("b@adatum.test",), body=BODY):
        """A whole transaction: the reply that ended it."""
        reply = self.mail(sender)
        if not reply.startswith("250"):
            return reply
        for recipient in [to] if isinstance(to, str) else to:
            reply = self.say(f"RCPT TO:<{recipient}>")
            if not reply.startswith("250"):
                return reply
        reply = self.say("DATA")
        return self.say(body + ".") if reply.startswith("354") else reply

    def quit(self):
        reply = self.say("QUIT")
        self.close()
        return reply


def opened(port, cert=None, tls=True, **options):
    """A client behind EHLO, with TLS and that certificate unless tls is false."""
    client = Client(port, **options)
    client.ehlo()
    return client.starttls(cert) if tls else client


# ---- a server --------------------------------------------------------------------------------

HANDSHAKE_FAILURE = bytes.fromhex("15030300020228")


class Server(NextHop):
    """An SMTP server that does what it is told.

    how: "tls"; "clear" offers no STARTTLS; "broken" answers the first handshake byte with an
    alert; "anonymous" has no certificate. client: None, "ask" or "require" a certificate.
    """

    # pylint: disable=super-init-not-called,too-many-arguments
    def __init__(self, pki=PKI, cert="treyresearch", how="tls", client=None,
                 client_ca="adatum-ca", address="127.0.0.1", port=0, keywords=None):
        self.messages, self.commands, self.mistakes, self.answers = [], [], [], {}
        self.client_certificates = []  # DER or None, for each handshake
        self.handshakes = 0
        self.connections = 0
        self.sockets = []
        self.held = threading.Event()
        self.held.set()
        self.keywords = keywords or ["PIPELINING", "SIZE 104857600", "8BITMIME", "SMTPUTF8", "DSN",
                                     "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME"]
        self.how = how
        self.context = self._context(pki, cert, client, client_ca)
        self.address = address
        self.listen(address, port)

    def _context(self, pki, cert, client, client_ca):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.how == "anonymous":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("aNULL:@SECLEVEL=0")
            return context
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        chain, key = cert if isinstance(cert, tuple) else (pki / f"{cert}.pem", pki / f"{cert}.key")
        context.load_cert_chain(chain, key)
        if client is not None:
            context.load_verify_locations(pki / f"{client_ca}.pem")
            context.verify_mode = ssl.CERT_REQUIRED if client == "require" else ssl.CERT_OPTIONAL
        return context

    @property
    def mails(self):
        """How many MAIL commands came."""
        return sum(command.upper().startswith("MAIL") for command in self.commands)

    def _talk(self, connection):
        return ServerConversation(self, connection)

    def _serve(self, connection):
        self.connections += 1
        self.sockets.append(connection)
        talk = self._talk(connection)
        try:
            talk.run()
        finally:
            talk.connection.close()

    def cut(self):
        """Breaks every connection in the middle of whatever it does."""
        for connection in self.sockets:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class ServerConversation(Conversation):
    def verb_ehlo(self, _line):
        offers = not self.is_tls and self.hop.how != "clear"
        words = ["hop.test"] + self.hop.keywords + (["STARTTLS"] if offers else [])
        self.say("\r\n".join(["250-" + word for word in words[:-1]] + ["250 " + words[-1]]))

    def verb_helo(self, _line):
        self.say("250 hop.test")

    def verb_starttls(self, line):
        if self.hop.how == "clear":
            return self.verb_other(line)
        self.say("220 2.0.0 go ahead")
        if self.hop.how == "broken":
            self.connection.recv(65536)
            self.connection.sendall(HANDSHAKE_FAILURE)
            raise EOFError
        self.connection = self.hop.context.wrap_socket(self.connection, server_side=True)
        self.hop.sockets.append(self.connection)
        self.is_tls = True
        self.hop.handshakes += 1
        self.hop.client_certificates.append(self.connection.getpeercert(binary_form=True))
        return None


class Path:
    """A proxy on the path to a port. strip: it hides STARTTLS in the server's EHLO reply."""

    def __init__(self, port, strip=True):
        self.target = port if isinstance(port, tuple) else ("127.0.0.1", port)
        self.strip = strip
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.target, PATIENCE)
            except OSError:
                return
            for source, sink, strip in ((near, far, False), (far, near, self.strip)):
                threading.Thread(target=self._move, args=(source, sink, strip),
                                 daemon=True).start()

    @staticmethod
    def _move(source, sink, strip):
        try:
            while data := source.recv(65536):
                sink.sendall(re.sub(rb"(?m)^(250[ -])STARTTLS", rb"\1XXXXXXXA", data)
                             if strip else data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


# ---- all of it -------------------------------------------------------------------------------

class Lab:
    def __init__(self, folder, pki):
        self.folder, self.pki, self.count, self.ends, self.relays = folder, pki, 0, [], []

    def place(self, word):
        self.count += 1
        folder = self.folder / f"{word}{self.count}"
        folder.mkdir()
        return folder

    def keep(self, thing):
        self.ends.append(thing.close)
        return thing

    def relay(self, *sections):
        relay = LabRelay(self.place("relay"), "\n".join(sections))
        self.relays.append(relay)
        return relay.start()

    def server(self, **options):
        return self.keep(Server(self.pki, **options))

    def path(self, port, **options):
        return self.keep(Path(port, **options))

    def lists(self):
        return self.keep(CrlServer())

    def dns(self, **records):
        return self.keep(Dns(**records))

    def authority(self, name=None, **options):
        return Authority(self.place("ca"), name, self.pki, **options)

    def client(self, port, **options):
        return self.keep(Client(port, **options))

    def opened(self, port, cert=None, tls=True, **options):
        return self.keep(opened(port, cert, tls, **options))

    def close(self):
        for end in reversed(self.ends):
            end()
        for relay in self.relays:
            print(relay.log())
        failures = []
        for relay in self.relays:  # all of them, whatever became of the first
            try:
                relay.stop()
            except AssertionError as failure:
                failures.append(failure)
        if failures:
            raise failures[0]


@pytest.fixture
def lab(tmp_path, pki):
    """One laboratory for each test."""
    made = Lab(tmp_path, pki)
    yield made
    made.close()


@pytest.fixture(scope="module")
def module_lab(tmp_path_factory, pki):
    """One laboratory for all tests of a file."""
    made = Lab(tmp_path_factory.mktemp("lab"), pki)
    yield made
    made.close()


def refuse_with(*words):
    """A pattern: a reply that begins with one of these."""
    return re.compile("^(" + "|".join(re.escape(word) for word in words) + ")")


def until(moment):
    """Waits for a wall clock moment (an expiry); bounded by PATIENCE."""
    wait_for(lambda: time.time() > moment, "that moment")
