# SPDX-License-Identifier: Apache-2.0
"""Is a 250 said only behind the write that it promises?

System calls say nothing here: writes and replies go through io_uring, which strace does not see.
So the disk is made to wait, and the relay watched from outside. A file system that is frozen lets
no write complete: as long as it is, no message may be answered, and all must be when it thaws. That
the write is also flushed is what tests/crash/power.sh holds and cuts (a disk with a cache of its
own); here the relay's counters must agree: a flush for each message that came alone, and fewer
than messages when many come at once.
"""

import os
import shutil
import socket
import subprocess

import pytest

from conftest import BINARY, PATIENCE, free_port, wait_for
from lab import lab, opened  # noqa: F401
from queue_lab import ScriptedHop, queueing, spooled, way_out

BENCH = BINARY.parent / "bench"
BODY = "Subject: flush\r\n\r\ntext\r\n"


def relay_of(lab, spool, durability="durable"):
    port, hop = free_port(), lab.keep(ScriptedHop(True))
    relay = lab.relay(spooled(spool), queueing("in", port, send_connector="out",
                                               durability=durability), way_out("out", hop.port))
    return relay, port


def test_a_flush_for_each_message_alone(lab):
    """One after the other, each has a flush of its own, however quick the client is."""
    relay, port = relay_of(lab, lab.place("spool"))
    before = relay.counter("spool_flushes")
    client = opened(port, tls=False)
    for _ in range(20):
        assert client.send(body=BODY).startswith("250 ")
    assert relay.counter("queue_accepted") == 20
    assert relay.counter("spool_flushes") - before >= 20


def test_many_share_a_flush(lab):
    """64 clients that never rest: with what became of their messages, these share the flushes."""
    relay, port = relay_of(lab, lab.place("spool"))
    before = relay.counter("spool_flushes")
    done = subprocess.run(
        [BENCH / "postern-load", "--connect", f"127.0.0.1:{port}", "--plain", "--size", "512",
         "--connections", "64", "--messages", "4000", "--recipients", "1"],
        stdout=subprocess.PIPE, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout
    assert relay.counter("queue_accepted") == 4000
    assert 1 <= relay.counter("spool_flushes") - before < 4000


def test_relaxed_has_no_flush(lab):
    """The next hop does not even greet, so that nothing but messages is written."""
    port, silent = free_port(), lab.keep(socket.create_server(("127.0.0.1", 0)))
    relay = lab.relay(spooled(lab.place("spool")),
                      queueing("in", port, send_connector="out", durability="relaxed"),
                      way_out("out", silent.getsockname()[1]))
    before = relay.stats()
    client = opened(port, tls=False)
    for _ in range(20):
        assert client.send(body=BODY).startswith("250 ")
    after = relay.stats()
    assert after["queue_accepted"] == 20
    assert after["spool_writes"] - before.get("spool_writes", 0) >= 20
    assert after.get("spool_flushes", 0) - before.get("spool_flushes", 0) <= 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, which may be frozen."""
    if os.geteuid() != 0 or not shutil.which("fsfreeze") or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root, mkfs.ext4 and fsfreeze")
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    folder.mkdir()
    with open(image, "wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, folder], check=False).returncode != 0:
        pytest.skip("no loop device can be mounted here")
    yield folder
    subprocess.run(["fsfreeze", "-u", folder], check=False, stderr=subprocess.DEVNULL)
    wait_for(lambda: subprocess.run(["umount", folder], check=False).returncode == 0, "unmount")


@pytest.fixture
def frozen_lab(small_disk, lab):  # noqa: F811
    """The laboratory ends before the disk does."""
    yield lab, small_disk
    subprocess.run(["fsfreeze", "-u", small_disk], check=False, stderr=subprocess.DEVNULL)
    for relay in lab.relays:
        relay.stop()


def test_no_answer_while_no_write_completes(frozen_lab):
    lab, disk = frozen_lab  # pylint: disable=redefined-outer-name
    relay, port = relay_of(lab, disk / "spool")
    assert opened(port, tls=False).send(body=BODY).startswith("250 ")
    wait_for(lambda: relay.counter("queue_sent") == 1, "the first of them sent")
    clients = [opened(port, tls=False) for _ in range(8)]
    subprocess.run(["fsfreeze", "-f", disk], check=True)
    for client in clients:
        client.mail("a@treyresearch.test")
        client.say("RCPT TO:<b@adatum.test>", 250)
        client.say("DATA", 354)
        client.write(BODY + ".\r\n")
    assert not any(client.has_answer(1.0) for client in clients)
    subprocess.run(["fsfreeze", "-u", disk], check=True)
    for client in clients:
        assert client.reply().startswith("250 ")
    wait_for(lambda: relay.counter("queue_sent") == 9, "all of them sent")
