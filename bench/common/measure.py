# SPDX-License-Identifier: Apache-2.0
"""One run of bench/run.py: load, a subject, a sink of its own; and whether the run is void.

A run is void when a message failed, when the sink counted other than load, when it saw a message
that was spoiled, twice, or that nobody sent, or when a subject that stores mail did not hand all of
it over in time.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CURVE = (0, 10, 25, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 96, 97, 98, 99, 99.5, 99.8, 99.9, 99.95,
         99.99, 100)
KEPT_OF_LOAD = (
    "messages", "message_bytes", "seconds", "failed", "lost", "failed_by_code", "rcpt_refused",
    "connections", "resumed", "connect_failed", "behind", "rate_wanted", "rate_offered", "sizes",
    "tls", "cipher", "group", "record", "tls_code", "run", "started_us", "ended_us")


# Messages that a percentile needs.
ENOUGH = {"p99": 200, "p99_9": 2000}


class Broken(Exception):
    """A part of the benchmark itself does not work; its text says which."""


class Tools:
    """The programs of one build, the certificates, and what these programs can do."""

    def __init__(self, build, folder):
        self.build, self.folder = Path(build), Path(folder)
        self.postern = self.build / "postern"
        bench = self.build / "bench"
        self.load = bench / "postern-load"
        self.sink = bench / "postern-sink"
        self.idle = bench / "idle"
        self.pki = self.folder / "pki"
        self.load_help, self.sink_help = self.said(self.load), self.said(self.sink)
        for program in (self.postern, self.load, self.sink, self.idle):
            if not os.access(program, os.X_OK):
                raise Broken(f"{program} is missing: make all bench-bins")

    @staticmethod
    def said(program):
        try:
            done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
        except OSError as error:
            raise Broken(f"{program}: {error.strerror}: make all bench-bins") from None
        return done.stdout + done.stderr

    def make_certificates(self):
        subprocess.run([ROOT / "tests/pki.sh", self.pki], check=True, stdout=subprocess.DEVNULL)
        both = "".join((self.pki / name).read_text(encoding="ascii")
                       for name in ("adatum-ca.pem", "treyresearch-ca.pem"))
        (self.pki / "both-ca.pem").write_text(both, encoding="ascii")

    def to(self, subject):
        """How load and idle speak with a subject: mutual TLS, each side checked by name."""
        return ["--connect", f"127.0.0.1:{subject.port}", "--starttls",
                "--cert", self.pki / "treyresearch.pem", "--key", self.pki / "treyresearch.key",
                "--ca", self.pki / subject.server_ca, "--name", subject.server_name]


class Sink:
    """The next hop of one subject, and its counters."""

    def __init__(self, tools, folder, stage, faults=()):
        self.ledgers = Path(folder) / "ledgers"
        self.ledgers.mkdir(parents=True, exist_ok=True)
        self.has_ledger = "--ledger" in tools.load_help and "--ledger" in tools.sink_help
        command = [tools.sink, "--listen", "127.0.0.1:0", "--threads", "1",
                   "--tickets", str(stage["tickets"]), "--delay-ms", str(stage["delay_ms"]),
                   "--tls-cert", tools.pki / "treyresearch.pem",
                   "--tls-key", tools.pki / "treyresearch.key",
                   "--client-ca", tools.pki / "both-ca.pem", *faults]
        if "--no-verify" not in tools.sink_help:
            command.append("--verify")
        if self.has_ledger:
            command += ["--ledger", self.ledgers]
        self.errors = open(Path(folder) / "sink.log", "wb")  # pylint: disable=consider-using-with
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.errors, bufsize=0)
        self.rest = b""
        first = self.line(10)
        if not first.startswith("listening "):
            raise Broken(f"the sink does not listen: {first}")
        self.port = int(first.rsplit(":", 1)[1])

    def line(self, seconds):
        end = time.monotonic() + seconds
        while b"\n" not in self.rest:
            ready = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]
            got = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            if not got:
                raise Broken("the sink does not answer")
            self.rest += got
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode()

    def counters(self):
        self.process.send_signal(signal.SIGUSR1)
        return json.loads(self.line(10))

    def reset(self):
        """Forgets what was, so that the next run stands by itself; today's counters at least."""
        if self.has_ledger:
            self.process.send_signal(signal.SIGUSR2)
            answer = self.line(10)
            if answer != "reset":
                raise Broken(f"the sink does not reset: {answer}")
            for path in self.ledgers.iterdir():
                path.unlink()
        return self.counters()

    def stop(self):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


class Station:
    """One subject with its sink, started; takes one run after the other."""

    def __init__(self, tools, name, subject_class, stage, options, folder):
        self.tools, self.name = tools, name
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.subject, self.sink = None, Sink(tools, folder, stage, options.get("faults", ()))
        self.number = 0
        try:
            self.subject = subject_class(str(self.folder / "subject"), self.sink.port,
                                         str(tools.pki), options)
            self.subject.start()
        except BaseException:
            self.stop()
            raise

    def stop(self):
        try:
            if self.subject is not None:
                self.subject.stop()
        finally:
            self.sink.stop()

    def about(self):
        """What a reader should know of the subject."""
        about = {name: getattr(self.subject, name, None) for name in
                 ("title", "version", "durability", "inbound", "outbound", "record", "notes",
                  "stores", "best_connections")}
        about["settings"] = {
            name: text.replace(str(self.folder / "subject"), "SUBJECT")
            .replace(str(self.tools.folder), "FOLDER").replace(str(ROOT), "POSTERN")
            for name, text in (self.subject.settings or {}).items()}
        return about

    def load_command(self, options):
        self.number += 1
        command = [self.tools.load, *self.tools.to(self.subject), *self.subject.load_options,
                   "--json", "--first-id", self.number * 100000000, *options]
        if self.sink.has_ledger:
            command += ["--ledger", self.sink.ledgers / f"{self.number}"]
        return [str(word) for word in command]


def spread_curve(histogram):
    """[[percentile, us]...]: the histogram, small enough to be kept."""
    total = sum(count for _, count in histogram)
    result, seen, at = [], 0, 0
    if total == 0:
        return []
    for percentile in CURVE:
        if percentile < 100 and total * (100 - percentile) < 100:
            continue  # fewer than one message would be beyond it
        wanted = max(1, total * percentile / 100)
        while at < len(histogram) - 1 and seen + histogram[at][1] < wanted:
            seen += histogram[at][1]
            at += 1
        result.append([percentile, histogram[at][0]])
    return result


def run_load(command, limit):
    """(what load says, what is wrong with it or None); bounded in time."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return None, f"load did not end within {limit:.0f} s"
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    said = " ".join(done.stderr.split())[-300:]
    if not lines:
        return None, f"load ended with {done.returncode} and without figures: {said}"
    load = json.loads(lines[-1])
    if done.returncode != 0:
        bad = load.get("failed", 0) + load.get("connect_failed", 0)
        return load, f"{bad} messages or connections failed: {load.get('failed_by_code')} {said}"
    return load, None


def wait_for_all(station, count, seconds):
    """Until the sink has as many messages and the subject is empty: (sink, when, is all there)."""
    end = time.monotonic() + seconds
    pause = 0.01
    while True:
        sink = station.sink.counters()
        now = time.monotonic()
        if sink["messages"] >= count and station.subject.empty():
            return station.sink.counters(), now, True
        if now > end:
            return sink, now, False
        time.sleep(pause)
        pause = min(pause * 1.3, 0.1)


def judge(load, sink, before, everything_there, stores):
    """What makes a run void, in words; or None."""
    wrong = []
    for name in ("corrupt", "duplicates", "foreign", "incomplete"):
        risen = sink.get(name, 0) - before.get(name, 0)
        if risen:
            wrong.append(f"{risen} {name}")
    if sink.get("unacknowledged", 0) > load.get("lost", 0):
        wrong.append(f"{sink['unacknowledged']} came that load was not told of")
    if load.get("connect_failed"):
        wrong.append(f"{load['connect_failed']} connections failed")
    if load.get("behind") and not load.get("rate_wanted"):
        wrong.append(f"{load['behind']} messages were not sent in a closed loop")
    if sink.get("lost"):
        wrong.append(f"{sink['lost']} lost")
    arrived = sink["messages"] - before.get("messages", 0)
    if arrived != load["messages"]:
        wrong.append(f"load counted {load['messages']} messages, the sink {arrived}")
    if stores and not everything_there:
        wrong.append("not all had come to the sink in time, or the subject was not empty")
    if load["messages"] == 0:
        wrong.append("no message went through")
    return "; ".join(wrong) or None


def cpu_of(counters):
    return counters["cpu_user_seconds"] + counters["cpu_system_seconds"]


class Sampler(threading.Thread):
    """Memory of the subject in the middle of a run, when its processes are there."""

    def __init__(self, subject, seconds):
        super().__init__(daemon=True)
        self.subject, self.seconds, self.got = subject, seconds, {}
        self.is_over = threading.Event()
        self.start()

    def run(self):
        if self.is_over.wait(self.seconds):
            return
        with contextlib.suppress(OSError):
            self.got = self.subject.counters()

    def end(self):
        """The run is over, maybe before its middle was due: what there is."""
        self.is_over.set()
        self.join(5)
        return self.got


def stats_each(before, after, messages):
    """What Postern counted itself, for each message."""
    if "stats" not in before or "stats" not in after:
        return None
    names = ("ring_enters", "other_syscalls", "recv_calls", "send_calls", "copied_bytes",
             "buffers_starved", "spool_flushes")
    return {name: round((after["stats"].get(name, 0) - before["stats"].get(name, 0)) / messages, 4)
            for name in names if name in after["stats"]}


def measure(station, options, seconds, drain_seconds, counting=False):
    """One run: a row of the results, without the scenario's own words."""
    subject, stores = station.subject, station.subject.stores
    before_sink = station.sink.reset()
    before = subject.counters()
    command = station.load_command([*options, "--seconds", max(1, round(seconds))])
    sampler = Sampler(subject, seconds * 0.6) if counting else None
    begun = time.monotonic()
    with subject.count_syscalls(seconds + drain_seconds) if counting else \
            contextlib.nullcontext() as count:
        load, wrong = run_load(command, seconds + drain_seconds + 30)
        after_load = time.monotonic()
        if load is None:
            return {"void": wrong, "messages": 0}
        sink, now, is_all = wait_for_all(station, before_sink.get("messages", 0) + load["messages"],
                                         drain_seconds if stores else 2.0)
    after = subject.counters()
    row = figures(load, sink, before_sink, (begun, after_load, now), stores)
    row["void"] = "; ".join(filter(None, [wrong, judge(load, sink, before_sink, is_all, stores)])) \
        or None
    messages = max(load["messages"], 1)
    own = cpu_of(after) - cpu_of(before)
    row["cpu"] = cpu_row(own, load, cpu_of(sink) - cpu_of(before_sink), messages)
    memory = after
    if sampler is not None:
        memory = sampler.end() or after
        row["counting"] = True
        calls = count.calls
        row["syscalls_per_message"] = None if calls is None else round(calls / messages, 3)
        if calls is None:
            row["no_syscalls_because"] = count.reason
    row.update({name: memory.get(name) for name in ("rss_kb", "pss_kb", "processes")})
    row["stats_per_message"] = stats_each(before, after, messages)
    return row


def cpu_row(own, load, sink_cpu, messages):
    load_cpu = load["cpu_user_seconds"] + load["cpu_system_seconds"]
    row = {"subject": own, "load": load_cpu, "sink": sink_cpu}
    row.update({f"{name}_per_1000": value * 1000 / messages for name, value in list(row.items())})
    return {name: round(value, 5) for name, value in row.items()}


def figures(load, sink, before_sink, clock, stores):
    """Rates and latencies. End to end: from the first intended send to the newest accepted one."""
    begun, after_load, now = clock
    messages = load["messages"]
    if load.get("started_us") and sink.get("last_us"):
        whole = (sink["last_us"] - load["started_us"]) / 1e6
    else:  # these programs do not say when: by the clock here
        whole = now - begun if stores else load["seconds"]
    whole = max(whole, 1e-6)
    latency = load.get("latency_us") or {
        "p50": load["latency_p50_us"], "p90": load["latency_p90_us"], "p99": load["latency_p99_us"]}
    # Of fewer messages a percentile is hardly more than the longest of them.
    latency = {name: value for name, value in latency.items() if messages >= ENOUGH.get(name, 1)}
    row = {"messages": messages, "seconds": round(load["seconds"], 4),
           "end_to_end_seconds": round(whole, 4),
           "drain_seconds": round(max(0.0, now - after_load), 3) if stores else 0,
           "accepted_per_second": load["messages_per_second"],
           "end_to_end_per_second": round(messages / whole, 1),
           "mb_per_second": round(load["message_bytes"] / whole / 1e6, 3),
           "latency_us": latency, "handshake_us": load.get("handshake_us"),
           "load": {name: load[name] for name in KEPT_OF_LOAD if name in load},
           "sink": {name: sink[name] - before_sink.get(name, 0)
                    for name in sink if isinstance(sink[name], (int, float)) and
                    not name.startswith(("cpu_", "first_", "last_"))}}
    if load.get("latency_histogram"):
        row["latency_curve"] = spread_curve(load["latency_histogram"])
    return row
