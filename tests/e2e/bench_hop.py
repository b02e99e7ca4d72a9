# SPDX-License-Identifier: Apache-2.0
"""A next hop in clear text for the tests of the load generator: slow, exact, and it keeps all."""

import re
import threading
import time

from conftest import Lines, Listening


class Mail:
    """A message as it came."""

    def __init__(self, session, text, recipients, chunks):
        self.session = session
        self.text = text
        self.recipients = recipients
        self.chunks = chunks  # sizes of BDAT, or None for DATA
        self.id = int(re.search(rb"^X-Load-Id: (\d+)\r$", text, re.M).group(1))
        self.run = re.search(rb"^X-Load-Run: ([0-9a-f]{16})\r$", text, re.M).group(1).decode()


class BenchHop(Listening):
    """answer(mail) gives the reply to a message, or None to break the connection without one.

    offers: words of EHLO. hold: no reply leaves before the whole message is here (with BDAT).
    on_noop: the reply to NOOP; empty: closes.
    """

    def __init__(self, answer=None, offers=("PIPELINING", "CHUNKING"), delay=0, hold=False,
                 on_rcpt=None, on_noop=b"250 ok\r\n"):
        self.answer = answer or (lambda mail: "250 ok")
        self.offers, self.delay, self.hold = offers, delay, hold
        self.on_rcpt = on_rcpt or (lambda word: b"250 ok\r\n")
        self.on_noop = on_noop
        self.lock = threading.Lock()
        self.mails, self.accepted, self.commands = [], [], []
        self.sessions = 0
        self.ahead = 0  # commands that were here before the reply to the one in front had left
        self.listen()

    def _serve(self, connection):
        with self.lock:
            self.sessions += 1
            number = self.sessions
        with connection:
            Session(self, connection, number).run()


class Session(Lines):
    def __init__(self, hop, connection, number):
        super().__init__(connection)
        self.hop, self.number = hop, number
        self.out = b""
        self.reset()

    def reset(self):
        self.recipients, self.chunks, self.text = [], [], b""

    def say(self, reply, is_held=False):
        self.out += reply
        if not is_held:
            if self.buffer:
                self.hop.ahead += 1
            self.connection.sendall(self.out)
            self.out = b""

    def run(self):
        self.say(b"220 hop\r\n")
        while True:
            line = self.line()
            verb = line.split(b" ")[0].split(b":")[0].upper().decode()
            with self.hop.lock:
                self.hop.commands.append((self.number, line))
            if verb == "QUIT":
                self.say(b"221 bye\r\n")
                return
            if getattr(self, "verb_" + verb.lower())(line) == "close":
                return

    def verb_ehlo(self, _line):
        words = ["hop", *self.hop.offers]
        self.say("".join(f"250{'-' if i + 1 < len(words) else ' '}{word}\r\n"
                         for i, word in enumerate(words)).encode())

    def verb_mail(self, _line):
        self.reset()
        self.say(b"250 ok\r\n", self.hop.hold)

    def verb_rcpt(self, line):
        reply = self.hop.on_rcpt(line)
        if reply.startswith(b"250"):
            self.recipients.append(line)
        self.say(reply, self.hop.hold)

    def verb_data(self, _line):
        self.say(b"354 go on\r\n")
        while not self.buffer.endswith(b"\r\n.\r\n"):
            self.more()
        text, self.buffer = self.buffer[:-3], b""
        self.chunks = None
        return self.finish(re.sub(rb"^\.", b"", text, flags=re.M))

    def verb_bdat(self, line):
        words = line.split()
        self.chunks.append(int(words[1]))
        self.text += self.take(int(words[1]))
        if words[2:] == [b"LAST"]:
            return self.finish(self.text)
        return self.say(b"250 ok\r\n", self.hop.hold)

    def finish(self, text):
        mail = Mail(self.number, text, self.recipients, self.chunks)
        time.sleep(self.hop.delay)
        reply = self.hop.answer(mail)
        with self.hop.lock:
            self.hop.mails.append(mail)
            if reply is not None and reply.startswith("2"):
                self.hop.accepted.append((mail.run, mail.id))
        if reply is None:
            return "close"
        return self.say(reply.encode() + b"\r\n")

    def verb_rset(self, _line):
        self.reset()
        self.say(b"250 ok\r\n")

    def verb_noop(self, _line):
        if not self.hop.on_noop:
            return "close"
        return self.say(self.hop.on_noop)
