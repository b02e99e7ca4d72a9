# SPDX-License-Identifier: Apache-2.0
"""What the tests of deliver = queue share: its configuration, and a next hop with a script."""

import re
import threading
import time

from conftest import PATIENCE, Listening
from lab import receive, section, transport

# Retries come quickly, so that a test sees them.
QUICK = {"spool-segment-size": "4MB", "queue-glitch-retry-interval": "1s",
         "transient-failure-retry-interval": "1s",
         "outbound-connection-failure-retry-interval": "1s", "message-retry-interval": "1s"}


def spooled(folder, **keywords):
    """The transport section of a relay with a queue in that folder."""
    return transport(**{"spool_folder": folder, **QUICK, **keywords})


def queueing(name, port, **keywords):
    """A receive connector that says 250 when the message is in the spool."""
    return receive(name, port, **{"deliver": "queue", "durability": "durable", **keywords})


def way_out(name, port, **keywords):
    return section("send-connector", name, {"smart-hosts": [f"127.0.0.1:{port}"],
                                            "address-spaces": ["*"], # notices go by them
                                            "tls-auth-level": "none", "max-connections": 4},
                   **keywords)


CUT = "cut"  # instead of a reply: the connection ends


class Case:
    """One message, or one session: what goes wrong at which step, and how often."""

    def __init__(self, name, step, action, times=1):
        self.name, self.step, self.action, self.left = name, step, action, times
        self.attempts = self.cuts = 0
        self.bodies = []

    def take(self, step):
        """The action at this step now, or None."""
        if step != self.step or self.left == 0:
            return None
        self.left -= 1
        return self.action


class ScriptedHop(Listening):
    """An SMTP server whose replies to a message depend on its envelope's first word.

    Senders are NAME@..., recipients NAME@...: the case of that name says what is answered. Cases of
    whole sessions (banner, EHLO) are in .session, one for the next connection. What comes from <>
    is kept in .notices by the local part of its recipient.
    """

    def __init__(self, chunking):
        self.cases, self.notices, self.session = {}, {}, None
        self.lock = threading.Lock()
        self.words = ["hop.test", "PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"]
        self.words += ["CHUNKING"] if chunking else []
        self.listen()

    def add(self, case):
        self.cases[case.name] = case
        return case

    def _serve(self, connection):
        connection.settimeout(PATIENCE)
        with connection:
            ScriptedTalk(self, connection).run()


class ScriptedTalk:
    def __init__(self, hop, connection):
        self.hop, self.connection = hop, connection
        self.file = connection.makefile("rb")
        self.forget()
        self.last = None  # the case of the message before, for QUIT and RSET

    def forget(self):
        self.case, self.sender, self.recipients, self.body = None, None, [], b""

    def say(self, text):
        self.connection.sendall("".join(line + "\r\n" for line in text.split("\n")).encode())

    def answer(self, step, text, case=None):
        """The reply of the script, or text. True: it says yes."""
        case = case or self.case
        with self.hop.lock:
            action = case.take(step) if case else None
        if action == CUT:
            case.cuts += 1
            raise EOFError
        self.say(action or text)
        if action and action.startswith("421"):
            raise EOFError
        return (action or text)[0] in "23"

    def run(self):
        session, self.hop.session = self.hop.session, None
        if session:
            session.attempts += 1
        if not self.answer("banner", "220 hop.test ESMTP", session):
            return
        while line := self.file.readline():
            words = line.decode(errors="replace").strip().split(" ")
            verb = words[0].upper()
            if verb in ("EHLO", "HELO"):
                self.answer(verb, "\n".join(
                    ["250-" + word for word in self.hop.words[:-1]] +
                    ["250 " + self.hop.words[-1]]) if verb == "EHLO" else "250 hop.test", session)
            elif verb == "QUIT":
                self.answer("QUIT", "221 2.0.0 bye", self.last)
                return
            else:
                getattr(self, "verb_" + verb.lower(), self.verb_other)(words)

    @staticmethod
    def name_of(word):
        match = re.search(r"<([^@>]*)", word)
        return match[1] if match else ""

    def verb_mail(self, words):
        self.forget()
        name = self.name_of(words[1])
        self.case = self.hop.cases.get(name)
        if self.case:
            self.case.attempts += 1
        if self.answer("MAIL", "250 2.1.0 sender"):
            self.sender = name

    def verb_rcpt(self, words):
        if self.sender is None:
            self.say("503 5.5.1 MAIL first")
        elif self.answer("RCPT", "250 2.1.5 recipient"):
            self.recipients.append(self.name_of(words[1]))

    def verb_data(self, _words):
        if not self.recipients:
            self.say("554 5.5.1 no valid recipients")
        elif self.answer("DATA", "354 go on"):
            while (line := self.file.readline()) != b".\r\n":
                if not line.endswith(b"\n"):
                    raise EOFError
                self.body += line[1:] if line.startswith(b".") else line
            self.end("END")
        else:
            self.forget()

    def verb_bdat(self, words):
        count = int(words[1])
        data = self.file.read(count)
        if len(data) < count:
            raise EOFError
        if not self.recipients:
            self.say("554 5.5.1 no valid recipients")
            return
        self.body += data
        if len(words) > 2:
            self.end("BDAT")
        elif not self.answer("chunk", "250 2.0.0 chunk"):
            self.forget()

    def end(self, step):
        case, action = self.case, None
        with self.hop.lock:
            action = case.take(step) if case else None
        if action == CUT:
            case.cuts += 1
            raise EOFError
        if action is None or action.startswith("2"):
            if case:
                case.bodies.append(self.body.decode())
            for name in self.recipients if self.sender == "" else []:
                self.hop.notices.setdefault(name, []).append(self.body.decode())
        self.last = case
        self.forget()
        self.say(action or "250 2.6.0 taken")
        if action and action.startswith("421"):
            raise EOFError
        # The client's next step finds nobody; it was told, and must not come again.
        if case and case.step == "after" and case.take("after"):
            case.cuts += 1
            time.sleep(0.05)
            raise EOFError

    def verb_rset(self, _words):
        self.answer("RSET", "250 2.0.0 reset")
        self.forget()

    def verb_other(self, _words):
        self.say("500 5.5.1 what?")
