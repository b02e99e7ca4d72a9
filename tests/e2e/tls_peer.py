# SPDX-License-Identifier: Apache-2.0
"""tls_peer.py: runs tests/tools/tls_server, and speaks TLS to it with Python's ssl.

Server starts one on a free loopback port and, when stopped, insists on exit status 0 and on a log
without a failed assertion or a sanitizer's word. Peer is a client whose records go through memory,
so that a test can hold them, cut them and add to them.
"""

import os
import re
import signal
import socket
import ssl
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(
    ROOT, os.environ.get("POSTERN_BUILD", "build/" + os.environ.get("VARIANT", "release"))
)
PROGRAM = os.path.join(BUILD, "tools", "tls_server")
PKI = os.environ.get("PKI", os.path.join(ROOT, "build", "pki"))
KTLS = os.environ.get("POSTERN_KTLS", "off")
PATIENCE_S = 20
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
TROUBLE = re.compile(r"assertion failed|Sanitizer|runtime error:|WARNING: ThreadSanitizer")


def pki(name):
    return os.path.join(PKI, name)


def make_pki():
    subprocess.run([os.path.join(ROOT, "tests", "pki.sh"), PKI], check=True)


class Server:
    """One tls_server; options are its own, with _ for -, and cert names a leaf of pki.sh."""

    def __init__(self, log_path, cert="adatum", **options):
        self.log_path = str(log_path)
        command = [PROGRAM, "--listen", "127.0.0.1:0"]
        command += ["--ktls", KTLS, "--cert", pki(cert + ".pem"), "--key", pki(cert + ".key")]
        for word, value in options.items():
            for one in value if isinstance(value, list) else [value]:
                command += ["--" + word.replace("_", "-"), str(one)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("ready 127.0.0.1:"), line + self.log()
        self.port = int(line.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.stop()

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.wait()

    def wait(self):
        try:
            status = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()
        log = self.log()
        assert status == 0 and not TROUBLE.search(log), "status %d\n%s" % (status, log[-4000:])

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def is_well(self):
        """A fresh connection is served: what came before has done no harm."""
        with Peer(self, client()) as peer:
            return peer.get("/")[0] == 200


def client(version=None, leaf=None, ca="adatum-ca", ciphers=None):
    """A client's context: one version or both, with the leaf's certificate or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki(ca + ".pem"))
    if version:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    if ciphers:
        context.set_ciphers(ciphers)
    if leaf:
        context.load_cert_chain(pki(leaf + ".pem"), pki(leaf + ".key"))
    return context


class Ragged(Exception):
    """The stream ended without close_notify."""


class Peer:
    """A TLS client over memory. pieces: send ciphertext in pieces of so many bytes."""

    def __init__(self, server, context, session=None, pieces=0, name="adatum.test", begin=True):
        self.socket = server.connect()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pieces = pieces
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_hostname=name, session=session
        )
        self.text = b""
        if begin:
            self.handshake()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send_raw(self, data):
        step = self.pieces or len(data)
        for at in range(0, len(data), max(step, 1)):
            self.socket.sendall(data[at : at + step])

    def flush(self):
        self.send_raw(self.outgoing.read())

    def receive(self):
        data = self.socket.recv(262144)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        return data

    def run(self, call, *args):
        """Carries out a call of ssl, moving bytes as it wants."""
        while True:
            try:
                result = call(*args)
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                self.receive()
            except ssl.SSLError:
                self.flush()  # the alert
                raise

    def handshake(self):
        self.run(self.tls.do_handshake)

    def write(self, data):
        self.tls.write(data)
        self.flush()

    def read(self):
        """Some text; b"" after close_notify; Ragged if the stream ended without."""
        try:
            return self.run(self.tls.read, 262144)
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLEOFError as error:
            raise Ragged from error

    def read_all(self):
        parts = []
        while part := self.read():
            parts.append(part)
        return b"".join(parts)

    def echo(self, data, chunk=65536):
        """Sends data and collects as much, without ever waiting to send while it could read."""
        self.socket.setblocking(False)
        got = bytearray()
        queue = memoryview(b"")
        sent = 0
        deadline = time.monotonic() + 4 * PATIENCE_S
        while len(got) < len(data):
            assert time.monotonic() < deadline, "echo: %d of %d" % (len(got), len(data))
            moved = 0
            if not queue and sent < len(data):
                self.tls.write(data[sent : sent + chunk])
                sent += chunk
            if not queue:
                queue = memoryview(self.outgoing.read())
            try:
                if queue:
                    moved = self.socket.send(queue)
                    queue = queue[moved:]
            except BlockingIOError:
                pass
            try:
                moved += len(self.receive())
                assert moved or queue or sent < len(data), "echo: the stream ended"
            except BlockingIOError:
                pass
            try:
                while len(got) < len(data):
                    got += self.tls.read(262144)
                    moved = 1
            except ssl.SSLWantReadError:
                pass
            if not moved:
                time.sleep(0.001)
        self.socket.settimeout(PATIENCE_S)
        return bytes(got)

    def send_close(self):
        """Our close_notify; the server's is left to read()."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.flush()

    def response(self):
        """The next response: status, fields, body."""
        while b"\r\n\r\n" not in self.text:
            part = self.read()
            assert part, "no response, but %r" % self.text
            self.text += part
        head, self.text = self.text.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:])
        length = int(fields["Content-Length"])
        while len(self.text) < length:
            part = self.read()
            assert part, "%d bytes are missing" % (length - len(self.text))
            self.text += part
        body, self.text = self.text[:length], self.text[length:]
        return int(lines[0].split()[1]), fields, body

    def get(self, target, version="HTTP/1.1"):
        self.write(("GET %s %s\r\nHost: x\r\n\r\n" % (target, version)).encode())
        return self.response()

    def facts(self, status=200):
        """What the server says of this connection."""
        got, _, body = self.get("/")
        assert got == status
        return dict(line.split(": ", 1) for line in body.decode().splitlines())


def read_to_end(sock, seconds=PATIENCE_S):
    """All bytes until the server closes; a reset is an end too."""
    sock.settimeout(seconds)
    data = b""
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data
