#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""mailbox.py ADDRESS:PORT CERT KEY CLIENT-CA MAILDIR: a next hop that keeps mail in maildirs.

Stands in for Postfix where the demo cannot run one: without root, and in User-Mode Linux. STARTTLS
is demanded, and a certificate from CLIENT-CA with it; whatever is sent then goes to
MAILDIR/USER@DOMAIN/new, but for nobody@DOMAIN, who is refused. With "-" for the three files there
is no STARTTLS. One line on standard output for each command, handshake and message. Ends with
SIGTERM.
"""

import os
import socketserver
import ssl
import sys
import time


class Session(socketserver.StreamRequestHandler):
    def reply(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def start_tls(self):
        self.reply("220 2.0.0 Ready")
        self.connection = self.server.tls.wrap_socket(self.request, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)
        self.is_free = True
        subject = ",".join("=".join(rdn[0]) for rdn in self.connection.getpeercert()["subject"])
        print("tls", self.connection.version(), "client", subject, flush=True)

    def take_message(self):
        self.reply("354 Go ahead")
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line:
                return
            lines.append(line[1:] if line.startswith(b".") else line)
        for rcpt in self.rcpts:
            box = os.path.join(self.server.maildir, rcpt.lower().replace("/", "_"))
            for folder in ("tmp", "new", "cur"):
                os.makedirs(os.path.join(box, folder), exist_ok=True)
            name = "%.6f.%d" % (time.time(), id(self))
            with open(os.path.join(box, "tmp", name), "wb") as file:
                file.write(b"".join(lines).replace(b"\r\n", b"\n"))
            os.rename(os.path.join(box, "tmp", name), os.path.join(box, "new", name))
            print("message", rcpt, flush=True)
        self.rcpts = []
        self.reply("250 2.0.0 Delivered")

    def handle(self):
        self.is_free = self.server.tls is None  # to send, and not to start TLS
        self.rcpts = []
        self.reply("220 mailbox ESMTP")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            print("command", repr(line.strip())[2:-1], flush=True)
            if verb == b"EHLO":
                self.reply("250-mailbox\r\n250-PIPELINING\r\n250 8BITMIME" if self.is_free else
                           "250-mailbox\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 STARTTLS")
            elif verb == b"QUIT":
                self.reply("221 2.0.0 Bye")
                return
            elif verb == b"STAR":
                if self.is_free:
                    self.reply("502 5.5.1 No TLS here")
                else:
                    self.start_tls()
            elif not self.is_free:
                self.reply("530 5.7.0 Must issue a STARTTLS command first")
            elif verb == b"RCPT" and b"<nobody@" in line:
                self.reply("550 5.1.1 No mailbox of that name")
            elif verb == b"RCPT":
                self.rcpts.append(line.split(b"<", 1)[1].split(b">", 1)[0].decode())
                self.reply("250 2.1.5 OK")
            elif verb == b"DATA":
                self.take_message()
            else:
                self.reply("250 2.0.0 OK")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request, client_address):
        print("lost", repr(sys.exc_info()[1]), flush=True)


def main():
    listen, cert, key, client_ca, maildir = sys.argv[1:]
    host, port = listen.rsplit(":", 1)
    with Server((host, int(port)), Session) as server:
        server.maildir = maildir
        server.tls = None
        if cert != "-":
            server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.tls.load_cert_chain(cert, key)
            server.tls.load_verify_locations(client_ca)
            server.tls.verify_mode = ssl.CERT_REQUIRED
        server.serve_forever()


main()
