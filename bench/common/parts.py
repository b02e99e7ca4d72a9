# SPDX-License-Identifier: Apache-2.0
"""What bench/run.py measures beside its runs: single parts of the relay, each by its own program.

Each part is one or more entries of "curves" in the results: {"rows": [...]}, or {"missing": why}
where it cannot run here. A part that fails is missing, too, with what it said.
"""

import json
import statistics
import subprocess
import tempfile
from pathlib import Path

from floor import batches

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = 77


class Missing(Exception):
    """This part cannot run here; its text says why."""


def say(command, seconds):
    """The standard output of a command; Missing with its own reason where it ends otherwise."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              check=False, timeout=seconds, cwd=ROOT, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise Missing(f"{Path(command[0]).name}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Missing(f"{Path(command[0]).name}: no end within {seconds} seconds") from None
    said = (done.stderr or done.stdout).strip().splitlines()
    last = said[-1] if said else "without a word"
    if done.returncode == SKIPPED:
        raise Missing(last)
    if done.returncode != 0:
        raise Missing(f"{Path(command[0]).name} failed with {done.returncode}: {last}")
    return done.stdout


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def commit(tools, folder, full, _):
    """The spool alone against what is usual: all ways take turns within each repetition."""
    program = tools.build / "bench/commit"
    rows = []
    sessions = (1, 8, 32, 128, 512) if full else (1, 8, 32, 128)
    for repetition in range(1, (5 if full else 1) + 1):
        for count in sessions:
            for how in ("durable", "append", "files", "relaxed"):
                with tempfile.TemporaryDirectory(prefix="commit.", dir=folder) as place:
                    line = say([program, "--folder", place + "/spool", "--how", how, "--sessions",
                                count, "--messages", 10000000, "--seconds", 3 if full else 1], 60)
                got = json_lines(line)[-1]
                rows.append({"repetition": repetition, **{
                    name: got.get(name) for name in
                    ("how", "sessions", "size", "messages", "per_second", "flushes",
                     "latency_p50_us", "latency_p99_us")}})
    return {"commit": {"rows": rows}}


def door(tools, _folder, full, _):
    """Tries, refusals and changes at the door: as root, in namespaces of their own."""
    text = say([tools.build / "bench/door", "--postern", tools.postern.resolve(), "--sizes",
                "1000,10000,100000,1000000" if full else "1000,10000,100000", "--repetitions",
                5 if full else 1, "--seconds", 3 if full else 1, "--list",
                100000 if full else 10000], 900)
    rows = json_lines(text)
    for row in rows:
        for name in ("effect_us", "answer_us"):
            if isinstance(row.get(name), list):
                values = sorted(row[name])
                row[name] = {"p50": statistics.median(values), "n": len(values),
                             "p99": values[len(values) * 99 // 100]}
    return {"door": {"rows": rows}}


def own_part(name, command, seconds):
    """A program that prints {"part": name, "rows": [...]} as its last line."""
    found = [row for row in json_lines(say(command, seconds)) if "rows" in row]
    if not found:
        raise Missing(f"{name}: no rows")
    return {name: {key: value for key, value in found[-1].items() if key != "part"}}


def parser(tools, _folder, full, _):
    return own_part("parser", [tools.build / "bench/parser", "--json"] +
                    ([] if full else ["--ms", 10, "--repetitions", 3]), 300)


def handshake(tools, folder, full, _):
    """With the profile by instructions where there is valgrind for it, and time."""
    if not full:
        sides = [own_part("handshake", [tools.build / "bench/handshake", "--side", side, "--pki",
                                        tools.pki, "--json", "--count", 40, "--repetitions", 3],
                          120)["handshake"] for side in ("stock", "relay-server", "relay-client")]
        return {"handshake": {**sides[0], "rows": [row for side in sides for row in side["rows"]]}}
    with tempfile.TemporaryDirectory(prefix="handshake.", dir=folder) as place:
        out = Path(place) / "out.json"
        say([ROOT / "bench/handshake.sh", "--profile", "--json", out], 900)
        got = json_lines(out.read_text(encoding="utf-8"))[-1]
    return {"handshake": {key: value for key, value in got.items() if key != "part"}}


def floor(tools, folder, full, runs):
    """The least that a message costs any relay here; batches are those of the runs before."""
    sizes = batches(runs)
    return own_part("floor", [
        tools.build / "bench/floor", "--json", "--folder", folder,
        "--sizes", ",".join(str(size) for size, _ in sizes),
        "--batch", ",".join(str(batch) for _, batch in sizes),
        "--repetitions", 3, "--ms", 40 if full else 15], 60)


def icount(_tools, folder, _full, _):
    """Kernel against userspace records, in instructions: QEMU counts."""
    with tempfile.TemporaryDirectory(prefix="icount.", dir=folder) as place:
        out = Path(place) / "out.json"
        say([ROOT / "bench/icount.sh", "--json", out], 3600)
        got = json_lines(out.read_text(encoding="utf-8"))[-1]
    return {"icount": {key: value for key, value in got.items() if key != "part"}}


def idle_kernel(_tools, folder, _full, _):
    """Memory of idle sessions whose records the kernel does, in a kernel that can."""
    with tempfile.TemporaryDirectory(prefix="idle.", dir=folder) as place:
        out = Path(place) / "out.json"
        say([ROOT / "bench/idle.sh", "--guest", "--json", out], 900)
        try:
            got = json_lines(out.read_text(encoding="utf-8"))[-1]
        except (OSError, IndexError):
            raise Missing("idle.sh wrote no figures") from None
    return {"idle_kernel": {key: value for key, value in got.items() if key != "part"}}


PARTS = {"commit": (commit,), "door": (door,), "micro": (parser, handshake), "icount": (icount,),
         "idle-kernel": (idle_kernel,), "floor": (floor,)}


def measure(name, tools, folder, full, runs=()):
    """{entry: {"rows": ...} or {"missing": why}} of one part, beside these runs."""
    result = {}
    for part in PARTS[name]:
        try:
            result.update(part(tools, folder, full, runs))
        except (Missing, json.JSONDecodeError) as why:
            result[part.__name__] = {"missing": str(why)}
    return result
