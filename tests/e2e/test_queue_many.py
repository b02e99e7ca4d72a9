# SPDX-License-Identifier: Apache-2.0
"""Very many messages for a next hop that is away: none is lost, and other mail goes on meanwhile.

Counts only. bench/queue.sh is the same with times, and twenty times as many.
"""

import json
import os
import re
import signal
import subprocess
import threading

import pytest

from conftest import BINARY, PATIENCE, free_port, wait_for
from lab import ctl, inside, lab, receive, section, send, transport  # noqa: F401

VARIANT = os.environ.get("VARIANT", "release")
COUNT = 50000 if VARIANT == "release" else 3000
TRIPS = 300 if VARIANT == "release" else 60
BENCH = BINARY.parent / "bench"


def config(folder, ports, space="more.test"):
    words = {"spool_folder": "spool", "control_socket": folder / "control",
             "queue_max_messages": 2 * COUNT,
             "spool_max_size": "1GB", "queue_glitch_retry_interval": "1s",
             "transient_failure_retry_interval": "1s",
             "outbound_connection_failure_retry_interval": "1s"}
    return "\n".join([
        transport(**words),
        receive("to-dead", ports["in-dead"], deliver="queue", send_connector="dead"),
        receive("to-living", ports["in-living"], deliver="queue"),
        send("dead", ports["dead"], tls_auth_level="none"),
        inside(ports["living"]), section("send-connector", "more", address_spaces=[space])])


class Queues:
    """A relay with a way to a next hop that is not there yet, and one to a next hop that is."""

    def __init__(self, lab):
        self.hop = lab.server(how="clear")
        self.lab = lab
        self.ports = {name: free_port() for name in ("in-dead", "in-living", "dead")}
        self.ports["living"] = self.hop.port
        self.relay = lab.relay(config(lab.folder, self.ports))
        self.sent = 0

    def ctl(self, *words):
        return ctl("--config", self.relay.config, "--json", *words, status=0,
                   cwd=self.relay.folder).stdout

    def waiting(self, name="dead"):
        return {row["identity"]: row["message_count"]
                for row in json.loads(self.ctl("queue", "list"))}.get(name, 0)

    def load(self):
        done = subprocess.run(
            [BENCH / "postern-load", "--connect", f"127.0.0.1:{self.ports['in-dead']}", "--plain",
             "--size", "512", "--messages", str(COUNT), "--connections", "32",
             "--messages-per-connection", "1000", "--seconds", str(PATIENCE * 3), "--json"],
            capture_output=True, text=True, timeout=PATIENCE * 4, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["messages"] == COUNT

    def trips(self, count):
        """Mail to the next hop that is there: all of it arrives."""
        with self.lab.opened(self.ports["in-living"], tls=False) as client:
            for _ in range(count):
                answer = client.send(body=f"Subject: trip {self.sent}\r\n\r\ntext\r\n")
                assert answer.startswith("250 2.6.0"), answer
                self.sent += 1
        wait_for(lambda: len(self.hop.messages) >= self.sent, "mail for the living next hop")

    def restart(self, how):
        self.relay.process.send_signal(how)
        status = self.relay.process.wait(PATIENCE)
        assert status == (0 if how == signal.SIGTERM else -how), self.relay.log()[-2000:]
        self.relay.process = None
        self.relay.start()


@pytest.fixture
def queues(lab):
    for name in ("postern-load", "postern-sink"):
        if not (BENCH / name).exists():
            pytest.skip(f"{BENCH / name} is missing: make bench-bins")
    return Queues(lab)


def give_commands(queues, end):
    """An administrator who never rests; what went wrong."""
    failures = []
    def give():
        while not end.is_set():
            try:
                assert queues.waiting() == COUNT
                rows = json.loads(queues.ctl("msg", "list", "--limit", "50"))
                assert len(rows) == 50
                queues.ctl("queue", "suspend", "dead")
                queues.ctl("queue", "resume", "dead")
            except (AssertionError, subprocess.TimeoutExpired, ValueError) as failure:
                failures.append(failure)
                return
    thread = threading.Thread(target=give)
    thread.start()
    return thread, failures


def take_all(queues):
    """The dead next hop comes to life; what it counts when all is there."""
    sink = subprocess.Popen(
        [BENCH / "postern-sink", "--listen", f"127.0.0.1:{queues.ports['dead']}", "--verify"],
        stdout=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: queues.waiting() == 0, "empty queue", PATIENCE * 3)
    finally:
        sink.terminate()
        text = sink.communicate(timeout=PATIENCE)[0]
    return json.loads(text.strip().splitlines()[-1])


def test_many_messages_wait_and_nobody_else_does(queues):
    relay = queues.relay
    queues.trips(20)
    queues.load()
    assert queues.waiting() == COUNT

    end = threading.Event()
    thread, failures = give_commands(queues, end)
    try:
        queues.trips(TRIPS)
    finally:
        end.set()
        thread.join()
    assert not failures, failures[0]
    stats = relay.stats()

    # All of it is routed anew, and comes to where it was.
    assert relay.reload(config(queues.lab.folder, queues.ports, "others.test"))["result"] == "ok"
    queues.trips(TRIPS // 3)
    wait_for(lambda: queues.waiting() == COUNT, "all messages in their queue", PATIENCE * 2)

    for how in (signal.SIGTERM, signal.SIGKILL):
        queues.restart(how)
        queues.trips(20)
        wait_for(lambda: queues.waiting() == COUNT, f"all messages after {how.name}", PATIENCE * 2)

    counts = take_all(queues)
    print({name: stats.get(name, 0) for name in ("loop_over_20ms", "loop_max_us")}, counts)
    assert counts["messages"] == COUNT
    for wrong in ("corrupt", "duplicates", "incomplete", "foreign"):
        assert counts[wrong] == 0, counts
    names = [re.search(rb"^Subject: trip (\d+)\r$", message.body, re.MULTILINE)[1]
             for message in queues.hop.messages]
    assert sorted(map(int, names)) == list(range(queues.sent))
    assert relay.counter("spool_corrupt") == 0
