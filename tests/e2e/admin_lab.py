# SPDX-License-Identifier: Apache-2.0
"""What the tests of posternctl share: a lab of two organisations, one of them a script.

We are adatum.test (or another organisation of tests/pki.sh), with a configuration and no relay:
posternctl needs none. The partner is a server that speaks as much SMTP as a test wants broken.
"""

import os
import re
import socket
import ssl
import struct
import subprocess
import threading
from pathlib import Path

from conftest import BINARY, PATIENCE

TOOL = BINARY.with_name("posternctl")
GOLDEN = Path(__file__).resolve().parent / "golden"


def posternctl(*arguments, config=None, check=None):
    """Runs it; returns its status and what it said, with standard error behind."""
    command = [TOOL] + (["--config", config] if config else []) + [str(a) for a in arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    text = done.stdout + done.stderr
    assert done.returncode in (0, 1, 2), f"{command}: status {done.returncode}\n{text}"
    if check is not None:
        assert done.returncode == check, f"status {done.returncode}\n{text}"
    return done.returncode, text


class ScriptedHost:
    """An SMTP server on a port of its own, from a certificate or without STARTTLS."""

    def __init__(self, certificate=None, key=None, clients=None, banner="220 mx.partner ESMTP",
                 keywords=("PIPELINING", "STARTTLS", "8BITMIME")):
        self.banner = banner
        self.keywords = keywords
        self.commands = []
        self.context = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate, key)
            if clients:
                self.context.verify_mode = ssl.CERT_OPTIONAL
                self.context.load_verify_locations(clients)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        for _ in range(100):
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            try:
                peer.settimeout(PATIENCE)
                self.session(peer)
            except OSError:
                pass  # the other side has gone, or its handshake failed
            finally:
                peer.close()

    def session(self, peer):
        peer.sendall(self.banner.encode() + b"\r\n")
        stream = peer.makefile("rb")
        while line := stream.readline():
            verb = line.split()[0].upper().decode() if line.split() else ""
            self.commands.append(verb)
            if verb == "EHLO":
                lines = ["mx.partner", *self.keywords]
                peer.sendall("".join(
                    f"250{' ' if i == len(lines) - 1 else '-'}{text}\r\n"
                    for i, text in enumerate(lines)).encode())
            elif verb == "STARTTLS" and self.context:
                peer.sendall(b"220 2.0.0 go on\r\n")
                peer = self.handshake(peer)
                stream = peer.makefile("rb")
            elif verb == "QUIT":
                peer.sendall(b"221 2.0.0 bye\r\n")
                peer.close()
                return
            else:
                peer.sendall(b"502 5.5.1 not here\r\n")

    def handshake(self, peer):
        """Stays until the other side closes when it fails, so that the alert is not lost."""
        keep = peer.dup()
        try:
            return self.context.wrap_socket(peer, server_side=True)
        except OSError:
            keep.shutdown(socket.SHUT_WR)
            while keep.recv(4096):
                pass
            raise
        finally:
            keep.close()

    def close(self):
        self.listener.close()


class NameServer:
    """Answers MX questions for the domains given: {domain: [(preference, host)]}."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    @staticmethod
    def encode(name):
        return b"".join(bytes([len(p)]) + p.encode() for p in name.split(".") if p) + b"\0"

    def serve(self):
        while True:
            try:
                query, peer = self.socket.recvfrom(4096)
            except OSError:
                return
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
                at += 1 + query[at]
            question = query[12:at + 5]
            kind, = struct.unpack("!H", query[at + 1:at + 3])
            known = self.hosts.get(".".join(labels))
            answers = known if known and kind == 15 else []
            head = query[:2] + struct.pack("!HHHHH", 0x8180 | (0 if known is not None else 3),
                                           1, len(answers), 0, 0)
            body = b"".join(
                b"\xc0\x0c" + struct.pack("!HHIH", 15, 1, 60, 2 + len(self.encode(host))) +
                struct.pack("!H", preference) + self.encode(host)
                for preference, host in answers)
            self.socket.sendto(head + question + body, peer)

    def close(self):
        self.socket.close()


def stable(text, folder, pki, *ports):
    """What differs from run to run is replaced by words."""
    text = text.replace(str(folder), "LAB").replace(str(pki), "PKI")
    for port in ports:
        text = re.sub(rf"\b{port}\b", "PORT", text)
    text = re.sub(r"\b\d+ days?\b", "N days", text)
    text = re.sub(r"\b[0-9a-f]{64}\b", "HEX", text)
    text = re.sub(r"TLS_[A-Z0-9_]+|ECDHE-[A-Z0-9-]+", "CIPHER", text)
    # OpenSSL 3.0 calls an alert "sslv3 alert", 3.2 "ssl/tls alert".
    return re.sub(r"\b(sslv3|ssl/tls|tlsv1|tlsv13) alert", "TLS alert", text)


def golden(name, text):
    """Compares with the file of that name; GOLDEN=write writes it instead."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert path.read_text() == text


def make_crl(pki, folder, issuer, certificate=None):
    """A list of that CA, with the certificate revoked where one is given."""
    (folder / "index").write_text("")
    (folder / "crlnumber").write_text("01\n")
    (folder / "ca.conf").write_text(
        "[ca]\ndefault_ca = signer\n[signer]\n"
        f"database = {folder}/index\ncrlnumber = {folder}/crlnumber\n"
        "default_md = sha256\ndefault_crl_days = 30\n")
    base = ["openssl", "ca", "-config", folder / "ca.conf", "-cert", pki / f"{issuer}.pem",
            "-keyfile", pki / f"{issuer}.key"]
    if certificate:
        subprocess.run(base + ["-revoke", pki / f"{certificate}.pem"], check=True,
                       capture_output=True)
    out = folder / f"{issuer}.crl"
    subprocess.run(base + ["-gencrl", "-out", out], check=True, capture_output=True)
    return out
