# SPDX-License-Identifier: Apache-2.0
"""What the black-box tests share: a relay, a next hop, ports, certificates.

Everything runs on loopback and ends with its test. The relay's log is kept and
shown when a test fails.
"""

import os
import random
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("POSTERN", ROOT / "build/release/postern"))
PKI = Path(os.environ.get("PKI", ROOT / "build/pki"))
PATIENCE = 60 if os.environ.get("VARIANT", "release") == "release" else 180


_GIVEN = set()


def free_port():
    """Below those that the kernel gives by itself, to clients and for port 0; none twice."""
    while True:
        port = random.randrange(10000, 32000)
        if port in _GIVEN:
            continue
        _GIVEN.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def wait_for(condition, what, seconds=PATIENCE):
    """Polls until condition() is true; the bound only ends a test that hangs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"no {what} within {seconds} seconds")


@pytest.fixture(scope="session")
def pki():
    subprocess.run([ROOT / "tests/pki.sh", PKI], check=True)
    return PKI


class Relay:
    """One postern process with the configuration text given."""

    def __init__(self, folder, config):
        self.folder = folder
        self.config = folder / "postern.conf"
        self.config.write_text(config)
        self.log_path = folder / "postern.log"
        self.process = None

    def start(self):
        with open(self.log_path, "ab") as log:
            before = len(self.events("ready"))
            self.process = subprocess.Popen([BINARY, "--config", self.config], stderr=log)
        wait_for(lambda: len(self.events("ready")) > before or self.process.poll() is not None,
                 "ready relay")
        assert self.process.poll() is None, self.log()
        return self

    def log(self):
        return self.log_path.read_text(errors="replace")

    def events(self, name, **fields):
        """The log's events of that name, as dictionaries, that have these fields.

        Lines are written when the relay has a moment: its counters are behind all others.
        """
        asks = name not in ("stats", "ready") and self.process and self.process.poll() is None
        # While it drains nobody may be left to read the signal.
        if asks and "event=drain" not in self.log():
            self.stats()
        found = []
        for line in self.log().splitlines():
            pairs = dict(re.findall(r'([a-z_-]+)=("[^"]*"|\S*)', line))
            if pairs.get("event") != name:
                continue
            pairs = {key: value.strip('"') for key, value in pairs.items()}
            if all(pairs.get(key.replace("_", "-")) == value for key, value in fields.items()):
                found.append(pairs)
        return found

    def stats(self):
        before = len(self.events("stats"))
        self.process.send_signal(signal.SIGUSR1)
        # A relay that ends says them once more, whether it has read the signal or not.
        wait_for(lambda: len(self.events("stats")) > before or self.process.poll() is not None,
                 "stats event")
        return {k: int(v) for k, v in self.events("stats")[-1].items() if v.isdigit()}

    def stop(self):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the relay did not end after SIGTERM\n" + self.log()) from None
        self.process = None
        assert status == 0, f"exit status {status}\n" + self.log()


@pytest.fixture
def make_relay(tmp_path):
    """relay = make_relay(config text): started, and stopped with exit status 0 at the end."""
    relays = []

    def make(config):
        folder = tmp_path / f"relay{len(relays)}"
        folder.mkdir()
        relay = Relay(folder, config)
        relays.append(relay)
        return relay.start()

    yield make
    failures = []
    for relay in relays:  # all of them, whatever became of the first
        print(relay.log())
        try:
            relay.stop()
        except AssertionError as failure:
            failures.append(failure)
    if failures:
        raise failures[0]


def proxy_config(port, hop_port, pki, receive="", send="", transport="", drain="60s"):
    """A partner connector that demands a certificate, and a next hop that is judged by name."""
    return f"""
transport {{ fqdn = "mx.adatum.test" workers = 1 bpf = off drain-timeout = "{drain}" {transport} }}
certificate "edge" {{ chain = "{pki}/adatum.pem" key = "{pki}/adatum.key" }}
receive-connector "partner" {{
  bindings = {{"127.0.0.1:{port}"}}
  certificate = "edge"
  tls = starttls
  require-tls = yes
  client-certificate = require
  trust-anchors = "{pki}/treyresearch-ca.pem"
  deliver = proxy
  send-connector = "inside"
  tarpit-interval = "0s"
  message-rate-limit = unlimited
  max-inbound-connection-per-source = unlimited
  max-inbound-connection-percentage-per-source = 100
  {receive}
}}
send-connector "inside" {{
  smart-hosts = {{"127.0.0.1:{hop_port}"}}
  certificate = "edge"
  trust-anchors = "{pki}/treyresearch-ca.pem"
  tls-auth-level = domain-validation
  tls-domain = "treyresearch.test"
  {send}
}}
"""


class Message:
    def __init__(self, sender, recipients, body, how):
        self.sender, self.recipients, self.body, self.how = sender, recipients, body, how


class Listening:
    """Listens on loopback; each connection is _serve()'s, on a thread of its own, to the end."""

    def listen(self, address="127.0.0.1", port=0):
        self.listener = socket.create_server((address, port), backlog=256)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # which ends accept(), too
        except OSError:
            pass
        self.listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def _serve_one(self, connection):
        try:
            self._serve(connection)
        except (OSError, EOFError, ValueError):
            pass

    def _serve(self, connection):
        raise NotImplementedError


class Lines:
    """What comes on a connection, by lines and by counts; EOFError at its end."""

    def __init__(self, connection):
        self.connection, self.buffer = connection, b""

    def more(self):
        data = self.connection.recv(1 << 16)
        if not data:
            raise EOFError
        self.buffer += data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data


class NextHop(Listening):
    """An SMTP server on Python's ssl: demands a certificate, keeps what it is given."""

    def __init__(self, pki, keywords=None, client_ca="adatum-ca"):
        self.messages = []
        self.commands = []
        self.mistakes = []
        self.answers = {}  # verb: the reply to give instead
        self.held = threading.Event()  # cleared: the answer to a message waits
        self.held.set()
        self.keywords = keywords or ["PIPELINING", "SIZE 104857600", "8BITMIME", "SMTPUTF8", "DSN",
                                     "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME"]
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pki / "treyresearch.pem", pki / "treyresearch.key")
        self.context.load_verify_locations(pki / f"{client_ca}.pem")
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.listen()

    def _serve(self, connection):
        with connection:
            Conversation(self, connection).run()


class Conversation(Lines):
    """One session with a NextHop."""

    def __init__(self, hop, connection):
        super().__init__(connection)
        self.hop, self.is_tls = hop, False
        self.forget()

    def forget(self):
        self.sender, self.recipients, self.body = "", [], b""

    def line(self):
        # Without PIPELINING (RFC 2920) nothing may come before the last answer was read.
        if self.buffer and "PIPELINING" not in self.hop.keywords:
            self.hop.mistakes.append(f"{self.buffer!r} came before an answer")
        return super().line()

    def say(self, text):
        self.connection.sendall(text.encode() + b"\r\n")

    def accept(self, how):
        self.hop.held.wait(PATIENCE)
        if "." in self.hop.answers:
            self.say(self.hop.answers["."])
            self.forget()
            return
        self.hop.messages.append(Message(self.sender, self.recipients, self.body, how))
        self.say(f"250 2.6.0 <{len(self.hop.messages)}@hop.test> Queued mail for delivery")
        self.forget()

    def run(self):
        self.say("220 hop.test ESMTP")
        while True:
            line = self.line()
            verb = line.split(b" ")[0].upper().decode()
            self.hop.commands.append(line.decode(errors="replace"))
            if verb in self.hop.answers:
                self.note(verb, line.decode(errors="replace"), self.hop.answers[verb])
                self.say(self.hop.answers[verb])
                continue
            getattr(self, "verb_" + verb.lower(), self.verb_other)(line)
            if verb == "QUIT":
                return

    def verb_ehlo(self, _line):
        words = ["hop.test"] + self.hop.keywords + ([] if self.is_tls else ["STARTTLS"])
        for word in words[:-1]:
            self.say("250-" + word)
        self.say("250 " + words[-1])

    def verb_starttls(self, _line):
        self.say("220 2.0.0 go ahead")
        self.connection = self.hop.context.wrap_socket(self.connection, server_side=True)
        self.is_tls = True

    def note(self, verb, line, answer):
        """An envelope is open after a 2xx, whoever says it."""
        if verb == "MAIL":
            self.forget()
            self.sender = line if answer.startswith("2") else ""
        elif verb == "RCPT" and answer.startswith("2"):
            self.recipients.append(line)

    def verb_mail(self, line):
        self.forget()
        self.sender = line.decode()
        self.say("250 2.1.0 Sender OK")

    def verb_rcpt(self, line):
        if not self.sender:
            self.say("503 5.5.1 MAIL first")
            return
        self.recipients.append(line.decode())
        self.say("250 2.1.5 Recipient OK")

    def verb_data(self, _line):
        if not self.recipients:
            self.say("503 5.5.1 RCPT first")
            return
        self.say("354 go ahead")
        self.buffer = b"\r\n" + self.buffer
        while b"\r\n.\r\n" not in self.buffer:
            self.more()
        raw, _, self.buffer = self.buffer.partition(b"\r\n.\r\n")
        self.body = (raw + b"\r\n").replace(b"\r\n..", b"\r\n.")[2:]
        self.accept("DATA")

    def verb_bdat(self, line):
        words = line.split()
        self.body += self.take(int(words[1]))
        if not self.recipients: # thrown away (RFC 3030 2)
            self.say("503 5.5.1 RCPT first")
        elif len(words) > 2:
            self.accept("BDAT")
        else:
            self.say("250 2.0.0 chunk")

    def verb_rset(self, _line):
        self.forget()
        self.say("250 2.0.0 reset")

    def verb_quit(self, _line):
        self.say("221 2.0.0 bye")

    def verb_other(self, _line):
        self.say("500 5.5.1 what?")


@pytest.fixture
def next_hop(pki):
    hop = NextHop(pki)
    yield hop
    hop.close()


@pytest.fixture
def start(make_relay, next_hop, pki):
    """relay = start(receive=..., send=..., transport=...): keywords added to proxy_config()."""

    def make(**sections):
        port = free_port()
        relay = make_relay(proxy_config(port, next_hop.port, pki, **sections))
        relay.port = port
        return relay

    return make
