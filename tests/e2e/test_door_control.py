# SPDX-License-Identifier: Apache-2.0
"""The door of a running relay: its control socket, lists that change live, what the log says of it,
and what is left of privileges. Each with the relay deciding (bpf = off) and, in a network namespace
and a bpf file system of the tests' own, with the kernel (bpf = required): root only.
"""

import ctypes
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from conftest import BINARY, PATIENCE, wait_for
from lab import Client, LabRelay, Server, inside, receive, section, transport

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PIN = "1" * 64

# Not those that the kernel takes for clients, which would meet themselves where nobody listens.
PORTS = itertools.count(20000 + os.getpid() % 10000)


def free_port():
    while True:
        port = next(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """Where the kernel's door may be made: a bpf file system, or why there is none.

    The process moves into namespaces of its own; this file's tests are the only ones in it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        yield None, "no privileges to make namespaces"
        return
    libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folder = tmp_path_factory.mktemp("bpf")
    if libc.mount(b"none", str(folder).encode(), b"bpf", 0, b"mode=0777") != 0:
        yield None, "the kernel has no bpf file system"
        return
    folder.chmod(0o777)
    yield folder, None
    libc.umount2(str(folder).encode(), 2)


class Door:
    """A relay with a control socket and two partners, both of one connector."""

    def __init__(self, folder, mode, pins, **keywords):
        self.folder, self.mode = folder, mode
        self.lists = folder / "lists"
        self.lists.mkdir()
        self.path = folder / "control"
        self.port = free_port()
        self.hop = Server(how="clear")
        self.pins = pins
        self.keywords = keywords
        self.ranges = {"remote_ip_ranges": ["127.0.1.0/24"]}
        self.more = []
        self.relay = LabRelay(folder, self.config())

    def config(self, **extra):
        partners = [section("partner", name, {"domains": [f"{name}.test"], "spki-pins": [PIN]})
                    for name in ("friends", "others")]
        return "\n".join([
            transport(**{"bpf": self.mode, "bpf_pin_folder": self.pins, "workers": 2,
                         "partner_lists": self.lists, "control_socket": self.path,
                         "drain_timeout": "5s", **self.keywords}),
            *partners, inside(self.hop.port),
            receive("in", self.port, tls="none", remote_ip_partners=["friends", "others"],
                    **self.ranges, **extra), *self.more])

    def ask(self, command, lines=None, **fields):
        """The answer's object, and what came behind it."""
        request = {"command": command, **fields}
        body = b"" if lines is None else lines.encode()
        if lines is not None:
            request["bytes"] = len(body)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(self.path))
            client.sendall(json.dumps(request).encode() + b"\n" + body)
            said = b""
            while b"\n" not in said or len(said) < len(said.partition(b"\n")[0]) + 1 + \
                    json.loads(said.partition(b"\n")[0]).get("bytes", 0):
                data = client.recv(65536)
                assert data, said
                said += data
        line, _, rest = said.partition(b"\n")
        return json.loads(line), rest.decode()

    def change(self, verb, lines, partner="friends", error=None, **fields):
        answer, _ = self.ask(f"partner-ip-{verb}", lines, partner=partner, **fields)
        assert answer["ok"] == (error is None) and answer.get("error") == error, answer
        return answer

    def status(self):
        return json.loads(self.ask("door-status")[1])

    def list(self, partner="friends"):
        answer, text = self.ask("partner-ip-list", partner=partner)
        assert answer["ok"] and answer["count"] == len(text.split())
        return answer["generation"], text.split()

    def knock(self, source, port=None):
        """Is it let in? A stranger is refused by the kernel, or closed by the relay."""
        try:
            with Client(port or self.port, source=source) as client:
                return client.greeting
        except ConnectionRefusedError:
            assert self.mode != "off"
            return ""

    def serves(self, source, port=None):
        return self.knock(source, port).startswith("220")


@pytest.fixture(params=["off", "required"])
def mode(request, place):  # pylint: disable=redefined-outer-name
    if request.param == "required" and place[0] is None:
        pytest.skip(place[1])
    return request.param


@pytest.fixture
def door(tmp_path, mode, place):  # pylint: disable=redefined-outer-name
    """door(keywords of transport): a relay that runs; it is stopped at the end."""
    doors = []

    def make(start=True, **keywords):
        folder = tmp_path / f"door{len(doors)}"
        folder.mkdir()
        pins = f"{place[0]}/{folder.parent.name.replace('_', '-')[:40]}" if place[0] else \
            "/nonexistent/postern"
        made = Door(folder, mode, re.sub(r"[^A-Za-z0-9/-]", "-", pins), **keywords)
        doors.append(made)
        if start:
            made.relay.start()
        return made

    tmp_path.chmod(0o755)
    yield make
    for made in doors:
        print(made.relay.log() if made.relay.log_path.exists() else "")
        made.relay.stop()


def test_live(door, mode):
    house = door()
    assert house.relay.events("door", mode="userspace" if mode == "off" else "kernel")
    assert not house.serves("127.0.0.1") and house.serves("127.0.1.1")
    assert house.change("add", "127.0.0.1")["generation"] == 1
    assert house.serves("127.0.0.1") and not house.serves("127.0.0.2")
    answer = house.change("replace", "127.0.0.0/29\n!127.0.0.5\n# and so on\n127.0.2.0-127.0.2.9")
    assert (answer["generation"], answer["added"], answer["removed"]) == (2, 4, 1)
    assert [source for source in range(1, 10) if house.serves(f"127.0.0.{source}")] == \
        [1, 2, 3, 4, 6, 7]
    assert house.serves("127.0.2.9") and not house.serves("127.0.2.10")
    house.change("remove", "127.0.0.0/29\n!127.0.0.5")
    assert not house.serves("127.0.0.1")
    assert house.list() == (3, ["127.0.2.0/29", "127.0.2.8/31"])
    # Nothing to do is done, and is no change.
    assert house.change("replace", "127.0.2.0-127.0.2.9")["generation"] == 3
    audit = house.relay.events("partner-ip")
    assert [(event["verb"], event["before"], event["generation"]) for event in audit] == \
        [("add", "0", "1"), ("replace", "1", "2"), ("remove", "2", "3"), ("replace", "3", "3")]
    assert [event["entries"] for event in audit] == \
        ["127.0.0.1", "-", "127.0.0.0/29,!127.0.0.5", "-"]
    assert all(event["uid"] == str(os.getuid()) and event["pid"] == str(os.getpid()) and
               event["result"] == "ok" for event in audit)
    # What is in force is what is on disk.
    house.relay.stop()
    house.relay.start()
    assert house.list() == (3, ["127.0.2.0/29", "127.0.2.8/31"])
    assert house.serves("127.0.2.9") and not house.serves("127.0.0.1")
    status = house.status()
    assert status["mode"] == ("userspace" if mode == "off" else "kernel")
    assert status.get("taken_up", True) and status["loop_lag"]["max_us"] > 0


def test_refused_requests(door):
    house = door()
    house.change("add", "127.0.0.0/24")
    house.change("add", "127.0.0.0/24", error="exists")
    house.change("remove", "127.0.0.1", error="absent")
    house.change("add", "127.0.0.0/24", partner="others", error="conflict")
    house.change("replace", "127.0.3.1\n127.0.0.0/24", partner="others", error="conflict")
    house.change("add", "127.0.3.1", partner="nobody", error="unknown-partner")
    house.change("add", "127.0.0.0/33", error="bad-request")
    house.change("replace", "", expect_generation=3, error="expected-generation")
    house.change("replace", "", dry_run=True, expect_generation=1)
    house.change("replace", "127.0.0.0/24", partner="others", dry_run=True, error="conflict")
    assert house.serves("127.0.0.1") and not house.serves("127.0.3.1")
    assert house.list() == (1, ["127.0.0.0/24"]) and house.list("others") == (0, [])
    failed = house.relay.events("partner-ip", result="failed")
    assert len(failed) == 8 and all(event["why"] for event in failed)
    assert "dry-run" in house.relay.events("partner-ip", result="ok")[-1]


def test_status_and_refusals(door, mode):
    house = door()
    house.change("replace", "127.0.0.0/24\n!127.0.0.9")
    for source in ("127.0.0.1", "127.0.0.9", "127.0.0.9", "127.0.4.1", "127.0.1.1"):
        house.knock(source)
    def refusals():
        rows = json.loads(house.ask("door-refusals", limit=5)[1])["refusals"]
        return [(row["peer"], row["reason"], row["count"], row["partner"]) for row in rows]
    wanted = [("127.0.0.9", "excluded", 2, "friends"), ("127.0.4.1", "stranger", 1, "")]
    wait_for(lambda: refusals() == wanted, "refusals")
    status = house.status()
    rows = {row.get("name", row.get("binding")): row
            for kind in ("bindings", "connectors", "partners") for row in status[kind]}
    binding = rows[f"127.0.0.1:{house.port}"]
    assert (binding["passed"], binding["stranger"], binding["excluded"]) == (2, 1, 2)
    assert (rows["in"]["passed"], rows["friends"]["passed"], rows["friends"]["excluded"],
            rows["friends"]["prefixes"], rows["friends"]["generation"]) == (2, 1, 2, 2, 1)
    if mode == "required":
        assert status["program_id"] > 0 and status["netns"] == status["own_netns"]
        assert house.relay.events("refused", by="kernel", why="stranger", peer="127.0.4.1")
    test = json.loads(house.ask("partner-ip-test", partner="friends", ip="127.0.0.9")[1])
    assert test["bindings"][0]["excluded"] and not test["bindings"][0]["served"]


def test_disk_full(door):
    """A small file system for the lists, which is full: the old set stays, in force and there."""
    house = door(start=False)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", house.lists],
                      check=False, capture_output=True).returncode != 0:
        pytest.skip("no privileges to mount")
    house.relay.start()
    house.change("add", "127.0.0.1")
    with pytest.raises(OSError):
        (house.lists / "fill").write_bytes(b"x" * 1000000)
    (house.lists / "more").write_bytes(b"")
    for verb, lines in (("add", "127.0.0.2"), ("remove", "127.0.0.1"),
                        ("replace", "127.0.0.2\n127.0.0.3")):
        answer = house.change(verb, lines, error="disk")
        assert "No space left" in answer["message"] and answer["generation"] == 1
        assert house.serves("127.0.0.1") and not house.serves("127.0.0.2")
    (house.lists / "fill").unlink()
    assert house.change("replace", "127.0.0.2")["generation"] == 2
    assert house.serves("127.0.0.2") and not house.serves("127.0.0.1")
    house.relay.stop()
    subprocess.run(["umount", house.lists], check=True)


def test_changed_by_hand(door):
    house = door()
    house.change("add", "127.0.0.1")
    (house.lists / "friends.list").write_text("# generation 41\n127.0.0.2\n")
    assert "SIGHUP" in house.change("add", "127.0.0.3", error="disk")["message"]
    assert house.serves("127.0.0.1") and not house.serves("127.0.0.2")
    assert house.relay.reload()["result"] == "ok"
    assert house.serves("127.0.0.2") and not house.serves("127.0.0.1")
    assert house.change("add", "127.0.0.3")["generation"] == 42
    # A mistake in it: the old one stays.
    (house.lists / "friends.list").write_text("# generation 43\n127.0.0.300\n")
    assert house.relay.reload()["result"] == "failed"
    assert house.serves("127.0.0.2")


def test_reloads_and_changes(door):
    """Reloads with changes under way: none is lost, and a kept peer is let in throughout."""
    house = door()
    house.change("add", "127.0.0.1")
    failures, ending = [], threading.Event()

    def stay():
        while not ending.is_set():
            if not house.serves("127.0.0.1"):
                failures.append("refused")
    def add(partner, first):
        for number in range(60):
            house.change("add", f"127.{first}.0.{number}", partner=partner)

    threads = [threading.Thread(target=add, args=("friends", 10)),
               threading.Thread(target=add, args=("others", 11))]
    watcher = threading.Thread(target=stay)
    for thread in [*threads, watcher]:
        thread.start()
    try:
        for turn in range(10):
            # Another binding comes and goes with each.
            house.more = [] if turn % 2 else \
                [receive("more", free_port(), tls="none", remote_ip_ranges=["127.0.0.0/8"])]
            assert house.relay.reload(house.config())["result"] == "ok"
    finally:
        for thread in threads:
            thread.join()
        ending.set()
        watcher.join()
    assert not failures
    assert house.list() == (61, ["127.0.0.1"] + [f"127.10.0.{number}" for number in range(60)])
    assert len(house.list("others")[1]) == 60
    assert house.serves("127.10.0.59") and house.serves("127.11.0.0")
    house.relay.stop()
    house.relay.start()
    assert house.list()[0] == 61 and house.serves("127.10.0.59")


def test_new_and_old_bindings(door):
    house = door()
    port = free_port()
    house.more = [receive("more", port, tls="none", remote_ip_ranges=["127.0.5.0/24"])]
    assert house.relay.reload(house.config())["result"] == "ok"
    assert house.serves("127.0.5.1", port) and not house.serves("127.0.1.1", port)
    assert house.serves("127.0.1.1") and not house.serves("127.0.5.1")
    house.more = []
    house.ranges = {"remote_ip_ranges": ["127.0.6.0/24"]}
    assert house.relay.reload(house.config())["result"] == "ok"
    assert house.serves("127.0.6.1") and not house.serves("127.0.1.1")
    with pytest.raises(ConnectionRefusedError):
        Client(port, source="127.0.5.1")
    assert [row["binding"] for row in house.status()["bindings"]] == [f"127.0.0.1:{house.port}"]
    # What would need privileges that are gone.
    house.mode, mode = "auto", house.mode
    assert house.relay.reload(house.config())["why"].startswith("bpf needs")
    house.mode = mode


def test_end_sessions(door):
    house = door()
    house.change("add", "127.0.0.1\n127.0.0.2")
    idle, busy, kept = (Client(house.port, source=source)
                        for source in ("127.0.0.1", "127.0.0.1", "127.0.0.2"))
    for client in (idle, busy, kept):
        client.ehlo()
    busy.say("MAIL FROM:<a@trey.test>", 250)
    busy.say("RCPT TO:<b@adatum.test>", 250)
    busy.say("DATA", 354)
    # Without it sessions stay.
    house.change("remove", "127.0.0.1")
    idle.say("NOOP", 250)
    house.change("add", "127.0.0.1")
    answer = house.change("remove", "127.0.0.1", end_sessions=True)
    assert answer["sessions_ended"] == 2
    assert idle.reply().startswith("421") and idle.reply() == ""
    # The message that had begun is taken, and then it ends.
    assert busy.say("Subject: x\r\n\r\ntext\r\n.").startswith("250")
    assert busy.reply().startswith("421") and busy.reply() == ""
    kept.say("NOOP", 250)
    assert house.relay.counter("sessions_unserved") == 2
    assert house.relay.events("partner-ip", sessions_ended="2")
    for client in (idle, busy, kept):
        client.close()


def test_end_many_sessions(door):
    """More than are looked at in one turn of the loop, those that stay between those that go."""
    house = door()
    house.change("replace", "127.0.2.0/24\n127.0.3.0/24")
    clients = [(number % 3 == 0, Client(house.port, source=f"127.0.{2 + (number % 3 == 0)}."
                                                          f"{1 + number // 30}"))
               for number in range(300)]
    answer = house.change("remove", "127.0.2.0/24", end_sessions=True)
    assert answer["sessions_ended"] == 200
    for stays, client in clients:
        if stays:
            client.say("NOOP", 250)
    assert house.change("remove", "127.0.3.0/24", end_sessions=True)["sessions_ended"] == 100
    for _, client in clients:
        assert client.reply().startswith("421") and client.reply() == ""
        client.close()


def test_end_sessions_served_otherwise(door):
    """Whoever was let in as a partner does not go on as one because a range has it, too."""
    house = door()
    house.change("add", "127.0.1.8\n127.0.1.9")
    listed, other, ranged = (Client(house.port, source=f"127.0.1.{last}") for last in (8, 9, 1))
    assert house.change("remove", "127.0.1.8", end_sessions=True)["sessions_ended"] == 1
    assert listed.reply().startswith("421") and listed.reply() == ""
    assert house.serves("127.0.1.8")
    for client in (other, ranged):
        client.ehlo()
    # Whom a list takes up was not taken off one, and stays.
    assert house.change("add", "127.0.1.1", end_sessions=True)["sessions_ended"] == 0
    ranged.say("NOOP", 250)
    # Excluded: neither a list nor a range serves it.
    assert house.change("add", "!127.0.1.2\n127.0.1.3", end_sessions=True)["sessions_ended"] == 0
    assert house.change("replace", "!127.0.1.0/24", end_sessions=True,
                        partner="friends")["sessions_ended"] == 2
    for client in (other, ranged):
        assert client.reply().startswith("421") and client.reply() == ""
    for client in (listed, other, ranged):
        client.close()


def test_end_sessions_that_others_announced(door):
    """They end when the balancer or front end may not speak for others any more, served or not."""
    house = door()
    house.ranges = {"remote_ip_ranges": ["127.0.7.0/24", "192.0.2.0/24"]}
    speakers = {"proxy_balancers": ["127.0.7.1"], "xclient_hosts": ["127.0.7.2", "192.0.2.2"]}
    assert house.relay.reload(house.config(**speakers))["result"] == "ok"

    def balanced(source):
        client = Client(house.port, source="127.0.7.1", greeted=False)
        client.write(f"PROXY TCP4 {source} 127.0.0.1 4711 25\r\n")
        assert client.reply().startswith("220")
        return client

    behind, front, both = balanced("192.0.2.7"), Client(house.port, source="127.0.7.2"), \
        balanced("192.0.2.2")
    for client in (front, both):
        client.say("XCLIENT ADDR=192.0.2.8", 220)
    assert house.change("add", "127.0.8.1", end_sessions=True)["sessions_ended"] == 0
    for client in (behind, front, both):
        client.say("NOOP", 250)
    # One that is a front end no more; the balancer goes on.
    assert house.relay.reload(house.config(proxy_balancers=["127.0.7.1"]))["result"] == "ok"
    assert house.change("add", "127.0.8.2", end_sessions=True)["sessions_ended"] == 2
    behind.say("NOOP", 250)
    assert house.relay.reload(house.config())["result"] == "ok"
    assert house.change("add", "127.0.8.3", end_sessions=True)["sessions_ended"] == 1
    for client in (behind, front, both):
        assert client.reply().startswith("421") and client.reply() == ""
        client.close()


def test_rate(door, mode):
    house = door()
    house.relay.stop()
    house.relay.config.write_text(house.config(connection_rate_limit=3))
    house.relay.start()
    said = [house.knock("127.0.1.1") for _ in range(5)]
    assert [word[:3] for word in said[:3]] == ["220"] * 3
    assert [word[:9] for word in said[3:]] == [("421 4.7.0" if mode == "off" else "")] * 2
    assert house.serves("127.0.1.2")
    assert house.status()["connectors"][0]["rate"] == 2
    assert house.relay.counter("sessions_refused_rate") == (2 if mode == "off" else 0)


# ---- privileges ------------------------------------------------------------------------------

def capabilities(relay):
    text = Path(f"/proc/{relay.process.pid}/status").read_text()
    uid = re.search(r"^Uid:\t(\d+)", text, re.MULTILINE).group(1)
    return int(uid), {name: int(value, 16) for name, value in
                      re.findall(r"^(Cap\w+):\t([0-9a-f]+)$", text, re.MULTILINE)}


def threads_capabilities(relay):
    return {re.search(r"^CapPrm:\t(\S+)", (task / "status").read_text(), re.MULTILINE).group(1)
            for task in Path(f"/proc/{relay.process.pid}/task").iterdir()}


def run_as_nobody(house, *words):
    """Starts it as somebody with no privileges but those that setpriv is told to give."""
    def prepared():
        house.folder.chmod(0o777)
        house.lists.chmod(0o777)
        binary = house.folder / "postern"
        binary.write_bytes(BINARY.read_bytes())
        binary.chmod(0o755)
        return binary

    with open(house.relay.log_path, "ab") as log:
        house.relay.process = subprocess.Popen(
            ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *words,
             prepared(), "--config", house.relay.config], stderr=log)
    wait_for(lambda: house.relay.events("ready") or house.relay.process.poll() is not None,
             "relay")
    return house.relay.process.poll()


@pytest.fixture
def public(tmp_path_factory):
    """A folder that everybody may pass through."""
    if os.getuid() != 0:
        pytest.skip("not root")
    folder = tmp_path_factory.mktemp("public")
    for parent in [folder, *folder.parents]:
        if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    return folder


def nobodys(public, mode, place, name):  # pylint: disable=redefined-outer-name
    if place[0] is None:
        pytest.skip(place[1])
    folder = public / name
    folder.mkdir()
    return Door(folder, mode, f"{place[0]}/{name}")


def test_no_capabilities_left(public, mode, place):  # pylint: disable=redefined-outer-name
    """Started as root: with a user to become, and without one."""
    for number, user in enumerate(("nobody", None)):
        house = nobodys(public, mode, place, f"dropped-{mode}-{user}")
        house.keywords["user"] = user
        house.relay.config.write_text(house.config())
        house.folder.chmod(0o777)
        house.lists.chmod(0o777)
        house.relay.start()
        uid, sets = capabilities(house.relay)
        assert (uid == 0) == (user is None)
        assert set(sets.values()) == {0}, sets
        assert threads_capabilities(house.relay) == {"0" * 16}
        assert house.path.stat().st_mode & 0o777 == 0o600
        assert house.path.stat().st_uid == uid
        # All that is changed later needs none: one prefix, a set, a binding more.
        house.change("add", "127.0.0.1")
        house.change("replace", "127.0.0.1\n127.0.0.2\n")
        house.more = [receive("more", free_port(), tls="none",
                              remote_ip_ranges=[f"127.0.{number}.0/24"])]
        assert house.relay.reload(house.config())["result"] == "ok"
        assert house.serves("127.0.0.2") and not house.serves("127.0.0.3")
        house.relay.stop()


def test_ambient_capabilities(public, place):  # pylint: disable=redefined-outer-name
    """Not root, but with what the door needs: it has the kernel, and nothing else is left."""
    house = nobodys(public, "required", place, "ambient")
    caps = "+bpf,+net_admin,+net_bind_service"
    assert run_as_nobody(house, f"--inh-caps={caps}", f"--ambient-caps={caps}") is None, \
        house.relay.log()
    uid, sets = capabilities(house.relay)
    assert uid != 0 and sets["CapPrm"] == sets["CapEff"] == sets["CapAmb"] == sets["CapInh"] == 0
    house.change("replace", "127.0.0.1\n127.0.0.2")
    assert house.serves("127.0.0.2") and not house.serves("127.0.0.3")
    house.relay.stop()


def test_without_privileges(public, place):  # pylint: disable=redefined-outer-name
    house = nobodys(public, "auto", place, "without")
    assert run_as_nobody(house) is None, house.relay.log()
    said = house.relay.events("door")
    assert len(said) == 1 and said[0]["mode"] == "userspace" and said[0]["why"]
    assert house.status()["why"]
    house.change("add", "127.0.0.1")
    house.mode = "off"  # for knock(): a stranger is closed after accepting
    assert house.serves("127.0.0.1") and not house.serves("127.0.0.2")
    house.relay.stop()
    house.mode = "required"
    house.relay.config.write_text(house.config())
    house.relay.log_path.unlink()
    assert run_as_nobody(house) == 1
    assert re.search(r"bpf = required, and the kernel cannot decide: .*(CAP_BPF|Permission)",
                     house.relay.log()), house.relay.log()
    house.relay.process = None


def test_killed_and_in_the_way(public, place):  # pylint: disable=redefined-outer-name
    """Killed: nobody is let in. Who cannot take up the pins does not start beside them."""
    house = nobodys(public, "required", place, "killed")
    house.relay.start()
    house.change("add", "127.0.0.1")
    house.relay.process.send_signal(signal.SIGKILL)
    house.relay.process.wait()
    (house.lists / "friends.list").chmod(0o644)
    assert not house.serves("127.0.0.1")
    for mode in ("auto", "off"):
        house.mode = mode
        house.relay.config.write_text(house.config())
        house.relay.log_path.unlink()
        assert run_as_nobody(house) == 1
        assert "posternctl door remove" in house.relay.log()
    house.mode = "required"
    house.relay.config.write_text(house.config())
    house.relay.log_path.unlink()
    house.relay.start()
    assert house.relay.events("door", mode="kernel", taken_up="yes")
    assert house.serves("127.0.0.1") and not house.serves("127.0.0.2")
    house.relay.stop()
