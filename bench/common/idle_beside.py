# SPDX-License-Identifier: Apache-2.0
"""Idle sessions beside load: what they weigh, and whether the others feel them.

Load alone, then the sessions are opened, then the same load beside them, then they are asked
whether they live, and load alone again: so a machine that drifts meets both sides.
"""

import json
import statistics
import subprocess
import time

from measure import Broken, measure

OPENING_SECONDS = 90


def established(port):
    """Connections of this machine that are open at a local port."""
    here, count = f":{port:04X} ", 0
    with open("/proc/net/tcp", encoding="ascii") as file:
        for line in file:
            local, _, state = line.split(None, 4)[1:4]
            count += state == "01" and (local + " ").endswith(here)
    return count


class Idle:
    """bench/idle: so many sessions, open and silent until they are asked."""

    def __init__(self, station, sessions, hold_seconds):
        command = [station.tools.idle, *station.tools.to(station.subject),
                   "--sessions", sessions, "--hold", hold_seconds, "--seconds", OPENING_SECONDS,
                   "--json"]
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.limit = OPENING_SECONDS + hold_seconds + 60
        self.port, self.sessions = station.subject.port, sessions

    def wait_open(self):
        """Until all are; the last ones may still be at their handshakes."""
        end = time.monotonic() + OPENING_SECONDS
        while established(self.port) < self.sessions:
            if self.process.poll() is not None:
                raise Broken(f"idle ended: {self.process.stderr.read().strip()}")
            if time.monotonic() > end:
                raise Broken("idle: the sessions did not open in time")
            time.sleep(0.3)
        time.sleep(1)

    def finish(self):
        """What it says in the end."""
        said, errors = self.process.communicate(timeout=self.limit)
        if not said.strip():
            raise Broken(f"idle ended without figures: {errors.strip()}")
        return json.loads(said)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def measure_idle(station, sessions, connections, seconds, drain_seconds):
    """A row of the results; "idle" has the figures."""
    options = ["--connections", connections, "--messages-per-connection", 100, "--size", "4k",
               "--messages", 100000000]

    def rates(count):
        rows = [measure(station, options, seconds, drain_seconds) for _ in range(count)]
        bad = [row["void"] for row in rows if row["void"]]
        return [row.get("end_to_end_per_second") for row in rows], bad, rows[-1]

    without, void, _ = rates(2)
    before = station.subject.counters()
    idle = Idle(station, sessions, round(2 * (seconds + 1) + 3))
    try:
        idle.wait_open()
        held = station.subject.counters()
        beside, bad, row = rates(2)
        void += bad
        lived = idle.finish()
    finally:
        idle.stop()
    more, bad, _ = rates(1)
    void += bad
    if lived["alive"] != sessions:
        void.append(f"{lived['alive']} of {sessions} sessions lived to the end")
    row["void"] = "; ".join(void) or None
    if not row["void"]:
        row["idle"] = figures(before, held, lived, without + more, beside)
    return row


def figures(before, held, lived, without, beside):
    sessions = max(lived["sessions"], 1)

    def each(name):
        return round((held[name] - before[name]) * 1024 / sessions)

    return {"sessions": lived["sessions"], "alive": lived["alive"], "open_ms": lived["open_ms"],
            "tls": lived["tls"], "pss_bytes_per_session": each("pss_kb"),
            "rss_bytes_per_session": each("rss_kb"),
            "pss_kb_before": before["pss_kb"], "pss_kb_held": held["pss_kb"],
            "kernel_bytes_per_session": lived.get("socket_bytes_per_session", 0) +
            lived.get("slab_bytes_per_session", 0),
            "rate_without": statistics.median(without), "rate_beside": statistics.median(beside),
            "rates_without": without, "rates_beside": beside}
