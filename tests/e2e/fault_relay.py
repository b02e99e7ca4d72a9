# SPDX-License-Identifier: Apache-2.0
"""A relay that spoils one message on purpose, for the tests of what is to find it.

    relay = FaultRelay(next_hop_port, "lose", 17); relay.port; relay.close()

Takes mail in clear text with DATA, and passes each message on by a session of its own to the next
hop. With the message of that number (from 1 on, in the order in which they come):

    lose        it is answered 250 and dropped
    duplicate   it is passed on twice
    alter       one byte of its body is another
    truncate    the end of its body is missing
    swap        it and the next one have each other's body
    renumber    its X-Load-Id is another
    None        nothing
"""

import re
import smtplib
import socket
import threading

FAULTS = ("lose", "duplicate", "alter", "truncate", "swap", "renumber")
REPLIES = {"EHLO": "250-fault.test\r\n250 PIPELINING", "HELO": "250 fault.test",
           "MAIL": "250 ok", "RCPT": "250 ok", "RSET": "250 ok", "QUIT": "221 bye"}


def split(message):
    header, body = message.split(b"\r\n\r\n", 1)
    return header + b"\r\n\r\n", body


class FaultRelay:
    def __init__(self, next_hop_port, fault, number):
        assert fault is None or fault in FAULTS
        self.next_hop_port, self.fault, self.number = next_hop_port, fault, number
        self.count = 0
        self.held = None
        self.failures = []
        self.lock = threading.Lock()
        self.threads = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.accepting = threading.Thread(target=self.accept, daemon=True)
        self.accepting.start()

    def accept(self):
        while True:
            try:
                peer = self.listener.accept()[0]
            except OSError:
                return
            thread = threading.Thread(target=self.serve, args=(peer,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def serve(self, peer):
        try:
            with peer, smtplib.SMTP("127.0.0.1", self.next_hop_port, timeout=30) as out:
                peer.settimeout(30)
                out.ehlo()
                self.talk(peer, out)
        except (OSError, smtplib.SMTPException) as error:
            self.failures.append(repr(error))

    def talk(self, peer, out):
        lines = peer.makefile("rb")
        peer.sendall(b"220 fault.test\r\n")
        while line := lines.readline():
            verb = line[:4].decode("ascii", "replace").upper()
            if verb == "DATA":
                peer.sendall(b"354 go on\r\n")
                peer.sendall(b"250 ok\r\n" if self.take(self.read_body(lines), out)
                             else b"451 next hop\r\n")
                continue
            peer.sendall(REPLIES.get(verb, "500 what?").encode() + b"\r\n")
            if verb == "QUIT":
                return

    @staticmethod
    def read_body(lines):
        body = []
        while (line := lines.readline()) != b".\r\n":
            if not line:
                raise OSError("the body is cut off")
            body.append(line[1:] if line.startswith(b".") else line)
        return b"".join(body)

    @staticmethod
    def send(message, out):
        """Not smtplib's data(), which would mend line ends."""
        for command in ("MAIL FROM:<relay@fault.test>", "RCPT TO:<sink@fault.test>"):
            code, text = out.docmd(command)
            if code != 250:
                raise smtplib.SMTPResponseException(code, text)
        code, text = out.docmd("DATA")
        if code != 354:
            raise smtplib.SMTPResponseException(code, text)
        out.send(re.sub(rb"(?m)^\.", b"..", message) + b".\r\n")
        return out.getreply()[0] == 250

    def take(self, message, out):
        with self.lock:
            self.count += 1
            hit = self.count == self.number and self.fault is not None
            if self.held is not None:
                (header, body), self.held = split(self.held), None
                own_header, own_body = split(message)
                return self.send(header + own_body, out) and self.send(own_header + body, out)
            if hit and self.fault == "swap":
                self.held = message
                return True
        if not hit:
            return self.send(message, out)
        if self.fault == "lose":
            return True
        if self.fault == "duplicate":
            return self.send(message, out) and self.send(message, out)
        header, body = split(message)
        if self.fault == "alter":
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1:]
        elif self.fault == "truncate":
            body = body[:-42] + b"\r\n"
        else:
            header = re.sub(rb"(?m)^(X-Load-Id: )\d", rb"\g<1>7", header)
        return self.send(header + body, out)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.accepting.join(10)
        for thread in self.threads:
            thread.join(10)
