# SPDX-License-Identifier: Apache-2.0
"""What the row tests of the queue share: a relay that keeps mail, posternctl at its side, and next
hops that hold a message back or refuse it.
"""

import json
import re
import signal
import socket

from conftest import PATIENCE, free_port, wait_for
from lab import Server, ServerConversation, ctl, opened, receive, send, transport

# Retries come quickly, so that a test sees them.
QUICK = {"queue_glitch_retry_interval": "1s", "transient_failure_retry_interval": "1s",
         "outbound_connection_failure_retry_interval": "1s", "message_retry_interval": "1s",
         "spool_segment_size": "4MB", "spool_max_size": "64MB"}
# They do not come at all while a test looks.
SLOW = {"queue_glitch_retry_interval": "1h", "message_retry_interval": "1h"}


def kept(**words):
    """The transport section of a relay with a queue and the tracking log."""
    return transport(**{"spool_folder": "spool", "tracking_log_folder": "track", **QUICK, **words})


def entry(port, name="in", **words):
    """A receive connector of the queue; by default address spaces say where its mail goes."""
    return receive(name, port, **{"deliver": "queue", "send_connector": None, **words})


def way(name, port, *spaces, **words):
    """A send connector to that port, in clear text."""
    return send(name, port, **{"tls_auth_level": "none", "address_spaces": list(spaces or "*"),
                               "max_connections": 20, **words})


def keeper(lab, *sections, door=None, **words):
    """A relay that keeps mail, with a control socket; it knows its .port."""
    port, words = free_port(), {"control_socket": lab.folder / f"control{lab.count}", **words}
    relay = lab.relay(kept(**words), entry(port, **(door or {})), *sections)
    relay.port, relay.words, relay.door = port, words, door or {}
    return relay


def anew(relay, *sections, **words):
    """The configuration of that relay with other sections behind, and some words changed."""
    return "\n".join([kept(**{**relay.words, **words}), entry(relay.port, **relay.door), *sections])


# ---- what goes in ----------------------------------------------------------------------------

def text(word, more=""):
    return f"Subject: {word}\r\nMessage-ID: <{word}@treyresearch.test>\r\n\r\n{word}\r\n{more}"


def post(client, word="one", to=("b@adatum.test",), sender="a@treyresearch.test", body=None):
    """Sends a message that must be taken: the id that the relay knows it by."""
    answer = client.send(sender, to, text(word) if body is None else body)
    found = re.match(r"250 2\.6\.0 <\S+> Queued mail for delivery \[InternalId=([0-9a-f]{16}), ",
                     answer)
    assert found, answer
    return found[1]


def hand_in(relay, *words, **options):
    """Messages by a session of their own: their ids, or the only one."""
    client = opened(relay.port, tls=False)
    ids = [post(client, word, **options) for word in words]
    client.quit()
    return ids[0] if len(ids) == 1 else ids


# ---- what an administrator sees and does -----------------------------------------------------

def admin(relay, *words, status=0):
    return ctl("--config", relay.config, *words, status=status).stdout


def listed(relay, *words):
    return json.loads(admin(relay, "--json", *words))


def queues(relay):
    """Identity: row, of all queues."""
    return {row["identity"]: row for row in listed(relay, "queue", "list")}


def queue(relay, identity="out"):
    return queues(relay).get(identity, {"status": "none", "message_count": 0})


def message(relay, name):
    """The row of a message in its queue; it must wait in one only."""
    rows = [row for row in listed(relay, "msg", "list") if row["id"] == name]
    assert len(rows) <= 1, rows
    return rows[0] if rows else {"status": "none"}


def wait_queue(relay, status, identity="out"):
    return wait_for(lambda: queue(relay, identity)["status"] == status and queue(relay, identity),
                    f"{identity} in {status}")


def wait_message(relay, name, status):
    def now():
        row = message(relay, name)
        return row["status"] == status and row
    return wait_for(now, f"{name} in {status}")


def told(relay, **words):
    """Rows of the tracking log that fit these options of "posternctl track", oldest first. They
    are written when there is a moment, so who looks for one waits for it.
    """
    options = [part for key, value in words.items() for part in (f"--{key}", value)]
    return listed(relay, "track", *options)


# ---- what goes out ---------------------------------------------------------------------------

class Hop(Server):
    """A next hop, in clear text unless how says otherwise, that refuses what its script says.

    refuses: a text in a MAIL or RCPT command, and the reply to it. verdict: the reply to each
    message, instead of taking it. While held is cleared the end of a message is not answered.
    in_clear: how many MAIL commands came without TLS.
    """

    def __init__(self, pki, **options):
        self.refuses, self.verdict, self.waiting, self.in_clear = {}, None, 0, 0
        super().__init__(pki, **{"how": "clear", **options})

    def _talk(self, connection):
        return HopConversation(self, connection)

    @property
    def words(self):
        """The subjects of what has come, sorted."""
        return sorted(subject(one.body) for one in self.messages)

    def hold(self):
        self.verdict = None
        self.held.clear()

    def holds(self, count=1):
        wait_for(lambda: self.waiting >= count, "message that is held")

    def release(self, verdict=None):
        self.verdict = verdict
        self.held.set()

    def mend(self, pki):
        """From now on it is what its partner wants."""
        self.how = "tls"
        self.context = self._context(pki, "treyresearch", "require", "adatum-ca")


class HopConversation(ServerConversation):
    def refused(self, line):
        for part, reply in self.hop.refuses.items():
            if part in line.decode(errors="replace"):
                self.say(reply)
                return True
        return False

    def verb_mail(self, line):
        self.hop.in_clear += not self.is_tls
        if not self.refused(line):
            super().verb_mail(line)

    def verb_rcpt(self, line):
        if not self.refused(line):
            super().verb_rcpt(line)

    def verb_data(self, line):
        if self.recipients:
            super().verb_data(line)
        else:
            self.say("554 5.5.1 No valid recipients")

    def verb_bdat(self, line):
        if self.recipients:
            super().verb_bdat(line)
        else:
            self.take(int(line.split()[1]))
            self.say("554 5.5.1 No valid recipients")

    def accept(self, how):
        self.hop.waiting += 1
        self.hop.held.wait(PATIENCE)
        self.hop.waiting -= 1
        if self.hop.verdict is None:
            super().accept(how)
        else:
            self.say(self.hop.verdict)
            self.forget()


def subject(body):
    return re.search(rb"^Subject: (.*?)\r$", body, re.MULTILINE)[1].decode()


def arrive(hop, *words):
    """Waits for these messages, and no others came: each once."""
    wait_for(lambda: len(hop.messages) >= len(words), f"messages {words}")
    assert hop.words == sorted(words)


def open_hop(lab, port=0, **options):
    return lab.keep(Hop(lab.pki, port=port, **options))


# ---- the end of a process --------------------------------------------------------------------

def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
        return True


def kill(relay):
    """The kernel closes what a ring holds a moment after the process has gone."""
    relay.process.send_signal(signal.SIGKILL)
    relay.process.wait()
    relay.process = None
    wait_for(lambda: is_free(relay.port), "free port")


def restart(relay, by_kill=False):
    if by_kill:
        kill(relay)
    else:
        relay.stop()
    relay.start()
