# SPDX-License-Identifier: Apache-2.0
"""Reloads while mail flows, that fail, and that meet the end; and keys that the relay can read."""

import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from conftest import PATIENCE, free_port, wait_for
from lab import (BODY, CTL, LabRelay, certificate, inside, lab, partner, receive,  # noqa: F401
                 secure, section, send, transport)

CLIENTS = 8
RELOADS = 50


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def descriptors(relay):
    return len(os.listdir(f"/proc/{relay.process.pid}/fd"))


def resident_kb(relay):
    status = Path(f"/proc/{relay.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


# ---- load ------------------------------------------------------------------------------------

class Sender(threading.Thread):
    """A client that sends until it is told to stop; what went wrong is in wrong."""

    def __init__(self, lab, port, number):
        super().__init__(daemon=True)
        self.lab, self.port, self.number = lab, port, number
        self.ends, self.sent, self.wrong = threading.Event(), 0, []

    def run(self):
        try:
            while not self.ends.is_set() and not self.wrong:
                self.session()
        except (OSError, AssertionError) as error:
            self.wrong.append(repr(error))

    def session(self):
        """One of many messages, or many of one; proved, or a stranger's."""
        client = self.lab.opened(self.port, "treyresearch" if self.number % 2 else None,
                                 self.number % 4 != 2)
        sender = "a@treyresearch.test" if self.number % 2 else "a@unlisted.test"
        for _ in range(1 if self.number < CLIENTS // 2 else 1000000):
            reply = client.send(sender, body=f"Subject: {self.number}.{self.sent}\r\n\r\nx\r\n")
            if not reply.startswith("250"):
                self.wrong.append(reply or "dropped")
                return
            self.sent += 1
            if self.ends.is_set():
                break
        assert client.quit().startswith("221")


def test_reloads_under_load(lab):
    """Nothing is lost, nobody is dropped, and nothing stays behind."""
    hop, port, other = lab.server(how="clear"), free_port(), free_port()

    def config(turn):
        return "\n".join([transport(workers=2), certificate(), partner(), inside(hop.port),
                          secure("partners", port, fqdn=f"mx{turn % 3}.adatum.test",
                                 connection_timeout="1h"),  # however slow all this is
                          *([receive("other", other)] if turn % 2 else [])])

    relay = lab.relay(config(0))
    senders = [Sender(lab, port, number) for number in range(CLIENTS)]
    for sender in senders:
        sender.start()
    wait_for(lambda: all(sender.sent > 3 or sender.wrong for sender in senders), "mail")
    for turn in range(RELOADS):
        before = [sender.sent for sender in senders]
        event = relay.reload(config(turn))
        assert event["result"] == "ok", relay.log()
        wait_for(lambda: any(sender.wrong for sender in senders) or all(  # pylint: disable=W0640
            sender.sent > count for sender, count in zip(senders, before)), "mail of everybody")
        if turn == 9:
            first = resident_kb(relay)
    last = resident_kb(relay)
    for sender in senders:
        sender.ends.set()
    for sender in senders:
        sender.join(PATIENCE)
    assert [sender.wrong for sender in senders] == [[]] * CLIENTS
    bodies = [message.body.split(b"Subject: ")[1].split(b"\r\n")[0] for message in hop.messages]
    assert sorted(bodies) == sorted(f"{sender.number}.{count}".encode() for sender in senders
                                    for count in range(sender.sent))
    if os.environ.get("VARIANT", "release") == "release":
        assert last < first + 8192, f"{first} kB became {last} kB"


@pytest.fixture
def starve():
    """starve(relay): its last worker gets next to no time, since another process wants its core."""
    hogs = []

    def make(relay):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            pytest.skip("one core cannot be busy and free")
        hogs.append(subprocess.Popen(["taskset", "-c", str(cores[0]), "sh", "-c",
                                      "while :; do :; done"]))
        worker = max(int(name) for name in os.listdir(f"/proc/{relay.process.pid}/task"))
        os.sched_setaffinity(worker, cores[:1])
        os.sched_setscheduler(worker, os.SCHED_IDLE, os.sched_param(0))

    def end():
        while hogs:
            hog = hogs.pop()
            hog.kill()
            hog.wait()

    make.end = end
    yield make
    end()


def test_bindings_come_and_go_quickly(lab, starve):
    """An address that goes and comes back at once is there, though a worker is slow to let go."""
    hop, port, other = lab.server(how="clear"), free_port(), free_port()

    def config(turn):
        return "\n".join([transport(workers=2), certificate(), inside(hop.port),
                          receive("door", port), *([receive("other", other)] if turn % 2 else [])])

    relay = lab.relay(config(0))
    before = descriptors(relay)
    starve(relay)
    for turn in range(12):
        assert relay.reload(config(turn))["result"] == "ok", relay.log()
    starve.end()
    assert lab.opened(other, tls=False).send("a@unlisted.test").startswith("250")
    assert relay.reload(config(0))["result"] == "ok"
    wait_for(lambda: not is_open(other), "closed port")
    wait_for(lambda: descriptors(relay) <= before + 4, "closed descriptors")


# ---- half-way --------------------------------------------------------------------------------

def test_one_worker_cannot_listen(lab):
    """The first worker has its sockets when the second finds none left: nobody changes."""
    hop, port = lab.server(how="clear"), free_port()
    fresh = [free_port() for _ in range(8)]

    def config(*ports):
        return "\n".join([transport(workers=2), certificate(), partner(), inside(hop.port),
                          secure("partners", port),
                          *[receive(f"more{each}", each) for each in ports]])

    relay = lab.relay(config())
    client = lab.opened(port, "treyresearch")
    pid = relay.process.pid
    before = descriptors(relay)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (before + 13, limits[1]))
    assert relay.reload(config(*fresh))["result"] == "failed"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert "Too many open files" in relay.log()
    assert descriptors(relay) == before
    assert not any(is_open(each) for each in fresh)
    assert client.send("a@treyresearch.test").startswith("250")
    assert relay.reload(config(*fresh))["result"] == "ok"
    assert all(is_open(each) for each in fresh)
    assert client.send("a@treyresearch.test").startswith("250")


def test_address_of_somebody_else(lab):
    hop, port = lab.server(how="clear"), free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = [transport(workers=2), inside(hop.port), receive("door", port)]
        relay = lab.relay(*config)
        config.append(receive("taken", taken.getsockname()[1]))
        assert relay.reload("\n".join(config))["result"] == "failed"
    assert lab.opened(port, tls=False).send("a@unlisted.test").startswith("250")
    assert relay.reload("\n".join(config))["result"] == "ok", "it is free now"


def test_connectors_go_while_they_carry_mail(lab):
    """In DATA, waiting for the next hop's answer, and between two messages."""
    hop, gone = lab.server(how="clear"), lab.server(how="clear")
    port, old = free_port(), free_port()
    base = [transport(workers=2, drain_timeout="60s"), certificate(), partner(),
            inside(hop.port), secure("partners", port)]
    aside = send("aside", gone.port, tls_auth_level="none")
    relay = lab.relay(*base, secure("old", old, send_connector="aside"), aside)
    writing, waiting, idle = [lab.opened(old, "treyresearch") for _ in range(3)]
    assert idle.send("a@treyresearch.test").startswith("250")
    for client in (writing, waiting):
        client.say("MAIL FROM:<a@treyresearch.test>", 250)
        client.say("RCPT TO:<b@adatum.test>", 250)
        client.say("DATA", 354)
    gone.held.clear()
    waiting.write(BODY + ".\r\n")
    for _ in range(3):
        assert relay.reload("\n".join(base))["result"] == "ok"
    gone.held.set()
    assert waiting.reply().startswith("250")
    writing.write(BODY + ".\r\n")
    assert writing.reply().startswith("250")
    # What was under way has ended well; there is no way any more for another message.
    for client in (writing, waiting, idle):
        assert client.mail("a@treyresearch.test").startswith("421 4.3.2")
        assert client.reply() == ""
    assert len(gone.messages) == 3 and not hop.messages
    assert all(b"x-domain-secure=pass" in message.body for message in gone.messages)


# ---- the end ---------------------------------------------------------------------------------

def test_end_during_a_reload(lab):
    """A worker that is draining and is handed a new configuration ends all the same."""
    hop, name_server = lab.server(how="clear"), lab.dns()
    port = free_port()
    # Contexts take time, which leaves a gap between the reload's beginning and its end.
    many = [receive(f"c{i}", port, certificate="edge", tls="starttls",
                    remote_ip_ranges=[f"10.0.{i}.0/24"]) for i in range(100)]
    config = [transport(workers=2, drain_timeout="10m", dns_servers=[name_server.address]),
              certificate(), inside(hop.port), receive("door", port), *many,
              section("send-connector", "internet", tls_auth_level="opportunistic")]
    is_met = False
    for part in (0.6, 0.75, 0.65, 0.8, 0.7):
        relay = lab.relay(*config)
        begin = time.monotonic()
        assert relay.reload()["result"] == "ok", relay.log()
        took = time.monotonic() - begin
        client = lab.opened(port, tls=False)
        client.say("MAIL FROM:<a@unlisted.test>", 250)
        client.say("RCPT TO:<b@adatum.test>", 250)
        client.say("DATA", 354)
        relay.process.send_signal(signal.SIGHUP)
        time.sleep(took * part)
        relay.process.send_signal(signal.SIGTERM)
        wait_for(lambda: len(relay.events("reload")) == 2,  # pylint: disable=cell-var-from-loop
                 "end of the reload")
        client.write(BODY + ".\r\n")
        assert client.reply().startswith("250")
        relay.stop()
        log = relay.log()
        # What is listened on is said once the workers have been handed it.
        if log.rfind("event=drain") < log.rfind("event=listen connector=door"):
            is_met = True
            break
    if not is_met:
        pytest.skip("the end never came in the middle of a reload")


# ---- keys ------------------------------------------------------------------------------------

@pytest.fixture
def public():
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_the_relay_reads_what_root_makes(public, lab):
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    hop, port = lab.server(how="clear"), free_port()
    place = public / "relay"
    place.mkdir()
    (public / "store").mkdir(mode=0o700)
    config = "\n".join([transport(user="nobody", certificate_store=public / "store"),
                        inside(hop.port), receive("door", port, tls="starttls")])
    relay = LabRelay(place, config)

    lab.relays.append(relay)
    relay.start()
    assert "STARTTLS" not in lab.opened(port, tls=False).keywords
    subprocess.run([CTL, "--config", relay.config, "cert", "self-signed", "--name",
                    "mx.adatum.test", "--services", "smtp"], check=True, timeout=PATIENCE)
    found = [public / "store", *(public / "store").rglob("*")]
    assert {path.name for path in found} >= {"key.pem", "chain.pem"}
    for path in found:
        status = path.stat()
        if path.name != "enabled":
            assert (status.st_uid, status.st_gid) == (65534, 65534), path
        if path.name == "key.pem":
            assert stat.S_IMODE(status.st_mode) == 0o600
    assert relay.reload()["result"] == "ok"
    assert "STARTTLS" in lab.opened(port, tls=False).keywords, relay.log()


def test_nothing_else_is_given_away(public):
    """A store that was set up by hand stays as it is."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    config = public / "postern.conf"
    store = public / "store"
    store.mkdir(mode=0o750)
    config.write_text(transport(user="nobody", certificate_store=store))

    def cert(*words, status=0):
        done = subprocess.run([CTL, "--config", config, "cert", *words], check=False,
                              capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == status, done.stderr
        return done.stderr

    cert("self-signed", "--name", "mx.adatum.test")
    assert store.stat().st_uid == 0 and stat.S_IMODE(store.stat().st_mode) == 0o750
    key = next(store.rglob("key.pem"))
    assert key.stat().st_uid == 65534
    config.write_text(transport(user="nobody-at-all", certificate_store=store))
    assert "nobody-at-all" in cert("self-signed", "--name", "mx2.adatum.test", status=1)
    assert len(list(store.rglob("key.pem"))) == 1
    config.write_text(transport(certificate_store=store))
    cert("self-signed", "--name", "mx3.adatum.test")
    owners = sorted(path.stat().st_uid for path in store.rglob("key.pem"))
    assert owners == [0, 65534], "without a user it is root's"
