# SPDX-License-Identifier: Apache-2.0
"""posternctl door: what it shows of a scripted relay, on a terminal and not, and of a real one."""

import copy
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from fcntl import ioctl

import pytest

from admin_lab import TOOL, golden
from conftest import BINARY, PATIENCE, wait_for
from control_lab import Desk


def counts(passed=0, stranger=0, excluded=0, rate=0, mapped=0):
    return {"passed": passed, "stranger": stranger, "excluded": excluded, "rate": rate,
            "mapped": mapped}


STATUS = {
    "version": "0.1.0", "pid": 4711, "uptime_ms": 93784000, "bpf": "auto", "mode": "kernel",
    "why": "", "program_id": 71, "link_id": 12, "folder": "/sys/fs/bpf/postern/v1",
    "taken_up": True, "netns": 4026531840, "own_netns": 4026531840, "foreign": [33, 34],
    "foreign_known": True, "shields": [{"interface": "eth0", "program_id": 72},
                                       {"interface": "eth1", "program_id": 0}],
    "bindings": [{"binding": "192.0.2.1:25", "slot": 0, "prefixes": 100024,
                  **counts(812345, 12030123, 101, 30)},
                 {"binding": "[2001:db8::1]:25", "slot": 64, "prefixes": 3,
                  **counts(9, 1, 0, 0, 7)}],
    "connectors": [{"name": "internet", **counts(12, 0, 0, 30)},
                   {"name": "from-partners", **counts(812342, 0, 101)}],
    "partners": [{"name": "fabrikam", "generation": 18, "prefixes": 100000,
                  **counts(812000, 0, 101)},
                 {"name": "contoso", "generation": 3, "prefixes": 24, **counts(342)}],
    "totals": {"lookups": 12842700, "others": 54, "events_held": 12000000, "events_lost": 3,
               "shield_drops": 17},
    "loop_lag": {"max_us": 1900, "counts": [{"below_us": 100, "turns": 999000},
                                            {"below_us": 1000, "turns": 990},
                                            {"below_us": 5000, "turns": 10},
                                            {"below_us": 0, "turns": 0}]}}

REFUSALS = {"refusals": [
    {"peer": "203.0.113.9", "binding": "192.0.2.1:25", "reason": "stranger", "connector": "",
     "partner": "", "count": 7, "last_ms": 125000},
    {"peer": "198.51.100.77", "binding": "192.0.2.1:25", "reason": "excluded",
     "connector": "from-partners", "partner": "fabrikam", "count": 101, "last_ms": 250}]}


@pytest.fixture
def desk(tmp_path, pki):
    made = Desk(tmp_path, pki)
    yield made
    made.close()


def door(*states):
    """Answers with one state of the door after another, and then with the last."""
    states = list(states)

    def answer(request, _):
        if request["command"] == "door-status":
            state = states.pop(0) if len(states) > 1 else states[0]
            return {"ok": True, "behind": copy.deepcopy(state)}
        assert request["command"] == "door-refusals"
        return {"ok": True, "behind": REFUSALS}

    return answer


def later(seconds=1):
    """STATUS after some more were let in and refused."""
    state = copy.deepcopy(STATUS)
    state["uptime_ms"] += 1000 * seconds
    state["bindings"][0]["passed"] += 20
    state["bindings"][0]["stranger"] += 4000
    state["bindings"][0]["excluded"] += 10
    state["connectors"][1]["passed"] += 20
    state["connectors"][1]["excluded"] += 10
    state["partners"][1]["passed"] += 20
    state["partners"][0]["excluded"] += 10
    return state


def without_here(text):
    return re.sub(r"another than this one \(\d+\)|the relay's; this one is \d+|this one$", "HERE",
                  text, flags=re.M)


# ---- door status


def test_status_tables(desk):
    desk.answer(door(STATUS))
    _, text = desk.run("door", "status", check=0)
    golden("door-status", without_here(text))


def test_status_of_userspace(desk):
    state = copy.deepcopy(STATUS)
    for key in "program_id", "link_id", "folder", "taken_up", "netns", "foreign", "shields":
        del state[key]
    state.update(mode="userspace", why="bpf_prog_load: Operation not permitted", partners=[])
    state["bindings"] = state["bindings"][:1]
    desk.answer(door(state))
    _, text = desk.run("door", "status", check=0)
    golden("door-status-userspace", text)


def test_status_json(desk):
    desk.answer(door(STATUS))
    _, text = desk.run("--json", "door", "status", check=0)
    assert json.loads(text) == STATUS


def test_status_missing_members_are_no_harm(desk):
    desk.answer(door({"mode": "kernel", "bindings": [{}, 3, None], "partners": "many",
                      "shields": 7, "foreign": {"a": 1}, "loop_lag": {"counts": [1]}}))
    _, text = desk.run("door", "status", check=0)
    assert "none is attached" in text


@pytest.mark.parametrize("answer, why", [
    (b"rubbish\n", "not what posternctl"),
    (b"", "closed the connection without an answer"),
    (b'{"ok": true}\n', "no status of a door"),
    (b'{"ok": true, "bytes": 4}\nnull', "no status of a door"),
    (b'{"ok": true, "bytes": 9}\n{"mode": ', "no status of a door"),
    (b'{"ok": true, "bytes": 99}\n{}', "after 2 of 99 bytes"),
    (b'{"ok": false, "error": "no-memory", "message": "out of memory"}\n', "out of memory"),
])
def test_odd_answers(desk, answer, why):
    desk.answer(lambda *_: answer)
    for command in ["status"], ["top", "--count", "1"]:
        status, text = desk.run("door", *command)
        assert status == 1 and why in text, text


def test_others_from_elsewhere(desk):
    """Rights do not help in another network namespace than the door's."""
    here = os.stat("/proc/self/ns/net").st_ino
    relay = desk.answer(door({**STATUS, "foreign": [], "foreign_known": False,
                              "netns": here + 1}))
    _, text = desk.run("door", "status", check=0)
    assert "seen from the namespace of the door only" in text and "CAP_NET_ADMIN" not in text
    relay.close()
    desk.socket.unlink()
    desk.answer(door({**STATUS, "foreign": [], "foreign_known": False, "netns": here}))
    _, text = desk.run("door", "status", check=0)
    assert "asking for other sk_lookup programs needs CAP_NET_ADMIN" in text


def test_help_of_a_group(desk):
    """As newcomers ask."""
    for words, check in (("door", "--help"), 0), (("door",), 2):
        _, text = desk.run(*words, check=check)
        assert "door status" in text and "door top" in text and "partner" not in text, text
    assert "unknown command" in desk.run("dor", "--help", check=2)[1]
    assert "unknown command" in desk.run("door", "stat", check=2)[1]


def test_slow_relay(desk):
    desk.answer(lambda *_: None)
    _, text = desk.run("door", "status", "--timeout", "1", check=1)
    assert "no answer from the relay within 1 seconds" in text


def test_no_relay_and_no_pins(desk):
    status, text = desk.run("door", "status")
    assert status == 1 and "the relay is not running: everybody is refused" in text
    assert "nothing is pinned in DESK/pins" in text
    assert "not running" in desk.run("door", "top", check=1)[1]
    assert "nothing is pinned in DESK/pins" in desk.run("door", "remove", check=0)[1]
    desk.transport = "bpf = off"
    assert "there is no control-socket" in desk.run("door", "status", check=1)[1]
    assert "there is no control-socket" in desk.run("door", "top", check=1)[1]


def test_remove_is_refused_while_a_relay_runs(desk):
    desk.answer(door(STATUS))
    assert "a relay runs (it listens on DESK/control)" in desk.run("door", "remove", check=1)[1]


# ---- door top


def test_top_prints_blocks(desk):
    desk.answer(door(STATUS, later()))
    _, text = desk.run("door", "top", "--interval", "1", "--count", "2", check=0)
    assert "\033" not in text
    first, second = text.strip().split("\n\n postern door")
    assert "passed           -/s" in first
    # The interval is a second or more, so the rates are those or less.
    passed, = re.search(r"^passed +([\d.]+)/s$", second, re.M).groups()
    assert 0 < float(passed) <= 20
    refused, = re.search(r"^refused +([\d.]+)/s   stranger [\d.]+   excluded [\d.]+$", second,
                         re.M).groups()
    assert 0 < float(refused) <= 4010
    lines = second.splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    # Who is refused most stands first in each table.
    assert names.index("from-partners") < names.index("internet")
    assert names.index("fabrikam") < names.index("contoso")
    assert names.index("198.51.100.77") < names.index("203.0.113.9")
    source = next(line.split() for line in lines if line.startswith("198.51.100.77"))
    assert source[2:] == ["101", "excluded", "192.0.2.1:25", "now", "from-partners,", "fabrikam"]
    source = next(line for line in lines if line.startswith("203.0.113.9"))
    assert "stranger" in source and "2 min 5 s" in source
    assert "2 other sk_lookup programs are attached" in second


def test_top_cuts_what_is_too_long(desk):
    state = copy.deepcopy(STATUS)
    state["connectors"][0]["name"] = "ü" * 33
    state["connectors"][1]["name"] = "é" * 32
    state["partners"][0]["name"] = "p" * 127
    desk.answer(door(state))
    _, text = desk.run("door", "top", "--count", "1", check=0)
    assert f"\n{'ü' * 31}~ " in text and f"\n{'é' * 32} " in text and f"\n{'p' * 31}~ " in text
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("connector "))
    assert lines[at].index("refused/s") + len("refused/s") == lines[at + 1].rindex("- ") + 1


def test_top_counts_that_begin_anew_are_no_rate(desk):
    fresh = copy.deepcopy(STATUS)
    for table in "bindings", "connectors", "partners":
        for row in fresh[table]:
            row.update(counts())
    desk.answer(door(STATUS, fresh))
    _, text = desk.run("door", "top", "--interval", "1", "--count", "2", check=0)
    assert re.search(r"^refused +-/s", text.split("\n\n postern door")[1], re.M)


class Terminal:
    """posternctl on a terminal of its own."""

    def __init__(self, desk, *arguments, rows=24, columns=80):
        desk.file.write_text(desk.text())
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.modes = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [TOOL, "--config", desk.file, *arguments], stdin=slave, stdout=slave, stderr=slave,
            env={**os.environ, "TERM": "xterm"}, start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0))
        self.slave = slave
        self.seen = b""

    def read_until(self, what):
        end = time.monotonic() + PATIENCE
        while not re.search(what, self.seen) and time.monotonic() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536)
        assert re.search(what, self.seen), self.seen
        return self.seen

    def forget(self):
        self.seen = b""

    def end(self):
        """It has been told to end: its status."""
        self.read_until(rb"\033\[\?25h\033\[\?1049l")
        status = self.process.wait(PATIENCE)
        modes = termios.tcgetattr(self.slave)
        os.close(self.slave)
        os.close(self.master)
        assert modes == self.modes  # as it was
        return status


def test_top_on_a_terminal(desk):
    desk.answer(door(STATUS, later()))
    terminal = Terminal(desk, "door", "top", "--interval", "1")
    text = terminal.read_until(rb"203.0.113.9")
    assert text.startswith(b"\033[?1049h\033[?25l")
    text = terminal.read_until(rb"refused +[\d.]+/s   stranger")
    assert text.count(b"\033[H") >= 2 and b"\033[2J" not in text  # drawn over, not cleared
    frame = text[text.rindex(b"\033[H"):]
    for line in frame.split(b"\n"):
        assert len(re.sub(rb"\033\[[0-9;?]*[A-Za-z]|\r", b"", line)) <= 80
    assert frame.count(b"\n") <= 23
    terminal.forget()
    ioctl(terminal.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    terminal.read_until(rb"101 excluded  192.0.2.1:25 +now  from-partners, fabrikam")
    os.write(terminal.master, b"q")
    assert terminal.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_top_restores_the_terminal(desk, number):
    desk.answer(door(STATUS))
    terminal = Terminal(desk, "door", "top")
    terminal.read_until(rb"postern door")
    if number == signal.SIGINT:
        os.write(terminal.master, b"\x03")  # as a person does
    else:
        terminal.process.send_signal(number)
    assert terminal.end() == 0


def test_top_lets_itself_be_stopped(desk):
    """^Z gives the terminal back, and fg takes it again."""
    desk.answer(door(STATUS))
    terminal = Terminal(desk, "door", "top")
    terminal.read_until(rb"postern door")
    os.write(terminal.master, b"\x1a")
    terminal.read_until(rb"\033\[\?25h\033\[\?1049l")
    assert os.WIFSTOPPED(os.waitpid(terminal.process.pid, os.WUNTRACED)[1])
    assert termios.tcgetattr(terminal.slave) == terminal.modes
    terminal.forget()
    terminal.process.send_signal(signal.SIGCONT)
    terminal.read_until(rb"(?s)\033\[\?1049h.*postern door")
    os.write(terminal.master, b"q")
    assert terminal.end() == 0


def test_top_ends_by_count_and_goes_on_without_a_relay(desk):
    relay = desk.answer(door(STATUS))
    terminal = Terminal(desk, "door", "top", "--interval", "1", "--count", "3")
    terminal.read_until(rb"postern door")
    relay.close()
    terminal.read_until(rb"the relay is not running: everybody is refused")
    assert terminal.end() == 1


# ---- the real thing


class Namespace:
    """A network namespace and a bpf file system of our own."""

    def __init__(self):
        self.process = subprocess.Popen(
            ["unshare", "-n", "-m", "sh", "-c",
             "mount -t bpf none /sys/fs/bpf && ip link set lo up && echo ready && exec sleep 600"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if self.process.stdout.readline() != b"ready\n":
            why = self.process.stderr.read().decode().strip().splitlines()
            self.process.wait()
            pytest.skip(f"no namespace of our own: {why[-1] if why else '?'}")
        self.enter = ["nsenter", "-t", str(self.process.pid), "-n", "-m", "-r", "-w"]

    def close(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def namespace():
    if os.geteuid() != 0 or not shutil.which("nsenter"):
        pytest.skip("not root, or no nsenter")
    made = Namespace()
    yield made
    made.close()


KNOCK = """
import socket, sys
for source in sys.argv[2:]:
    with socket.socket() as client:
        client.bind((source, 0))
        client.settimeout(20)
        try:
            client.connect(("127.0.0.1", int(sys.argv[1])))
            print(source, client.recv(3).decode())
        except ConnectionRefusedError:
            print(source, "refused")
        except ConnectionResetError:
            print(source, "reset")
"""


def test_kernel_door(desk, namespace):
    desk.transport = f'control-socket = "{desk.socket}" bpf = auto'
    text = desk.text().replace(f"{desk.folder}/pins", "/sys/fs/bpf/postern")
    desk.file.write_text(text)
    log = desk.folder / "log"

    def run(*arguments):
        done = subprocess.run([*namespace.enter, *arguments], capture_output=True, text=True,
                              timeout=PATIENCE, check=False)
        return done.returncode, done.stdout + done.stderr

    def ctl(*arguments):
        status, said = run(TOOL, "--config", desk.file, *arguments)
        return status, desk.stable(said)

    def knock(*sources):
        return run("/usr/bin/python3", "-c", KNOCK, str(desk.port), *sources)[1].splitlines()

    with open(log, "wb") as out:
        relay = subprocess.Popen([*namespace.enter, BINARY, "--config", desk.file], stderr=out)
    try:
        wait_for(lambda: "event=ready" in log.read_text() or relay.poll() is not None, "relay")
        assert relay.poll() is None, log.read_text()
        status, said = ctl("--json", "door", "status")
        assert status == 0, said
        if json.loads(said)["mode"] != "kernel":
            pytest.skip(f"no door in this kernel: {json.loads(said)['why']}")
        ctl("partner", "fabrikam", "ip", "add", "127.0.0.0/24", "!127.0.0.7")
        assert knock("127.0.0.2", "127.0.0.7", "127.0.9.1", "127.0.9.1") == [
            "127.0.0.2 220", "127.0.0.7 refused", "127.0.9.1 refused", "127.0.9.1 refused"]
        status, said = ctl("door", "status")
        assert status == 0 and "the kernel refuses strangers" in said
        assert re.search(r"^Namespace : \d+, this one$", said, re.M), said
        assert "no other sk_lookup program is attached" in said
        rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line}
        assert rows["127.0.0.1:PORT"][1:5] == ["2", "1", "2", "1"]
        assert rows["fabrikam"] == ["1", "2", "1", "1", "0"]
        wait_for(lambda: re.search(r"127.0.9.1 .* 2 stranger ",
                                   ctl("door", "top", "--count", "1")[1]), "refusals in top")
        assert "a relay runs" in ctl("door", "remove")[1]
        _, said = ctl("partner", "fabrikam", "ip", "remove", "127.0.0.0/24")
        assert "in force after T ms" in said
        assert knock("127.0.0.2") == ["127.0.0.2 refused"]
        relay.terminate()
        assert relay.wait(PATIENCE) == 0, log.read_text()
        status, said = ctl("door", "status")
        assert status == 1 and "not running: everybody is refused" in said
        rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line}
        assert rows["127.0.0.1:PORT"][2:5] == ["1", "3", "1"], said
        # The pins know nothing of lists.
        _, said = ctl("door", "top", "--count", "1")
        assert re.search(r"^fabrikam +- +- +\d+ +\d+ +- +-$", said, re.M), said
        _, said = run("sh", "-c", f"{TOOL} --config {desk.file} --json door status 2>/dev/null")
        assert json.loads(said)["mode"] == ""
        assert ctl("door", "remove") == (
            0, "the door in /sys/fs/bpf/postern is removed: the kernel refuses nobody any more\n")
        assert "v1" not in run("ls", "-R", "/sys/fs/bpf")[1]
    finally:
        if relay.poll() is None:
            relay.kill()
            relay.wait()
