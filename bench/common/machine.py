# SPDX-License-Identifier: Apache-2.0
"""What the runs of bench/run.py happen on: the machine, its versions, and how noisy it is."""

import glob
import hashlib
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

LOOP_BYTES = bytes(1 << 20)
LOOP_ROUNDS = 24
FLUSHES = 30


def output(*command):
    """What a command says, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def first_of(path, key):
    """What stands behind the colon of the first line that begins with key."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(key):
                    return line.split(":", 1)[-1].split("=", 1)[-1].strip().strip('"')
    except OSError:
        pass
    return ""


def packages(*names):
    """{package: version} of those that Debian's dpkg has here."""
    lines = output("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n", *names)
    words = (line.split() for line in lines.splitlines())
    return {word[0]: word[1] for word in words if len(word) == 3 and word[2] == "installed"}


def environment(postern, folder):
    """The machine and the versions: a dictionary that says all in words and numbers."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": platform.release(), "machine": platform.machine(),
        "cpu": first_of("/proc/cpuinfo", "model name"), "cores": os.cpu_count(),
        "memory_kb": int((first_of("/proc/meminfo", "MemTotal") or "0").split()[0]),
        "virtual": output("systemd-detect-virt") or
                   ("hypervisor" in first_of("/proc/cpuinfo", "flags").split() and "yes" or "no"),
        "system": first_of("/etc/os-release", "PRETTY_NAME"),
        "disk": " ".join(output("findmnt", "-no", "SOURCE,FSTYPE,OPTIONS", "--target",
                                str(folder)).split()),
        "revision": output("git", "describe", "--always", "--dirty"),
        "postern": output(str(postern), "--version").splitlines(),
        "packages": packages("libssl3", "liburing2", "libisal2", "postfix", "exim4-daemon-light",
                             "exim4-daemon-heavy", "opensmtpd", "nginx", "nginx-core",
                             "libnginx-mod-mail"),
        "congestion_control": first_line("/proc/sys/net/ipv4/tcp_congestion_control"),
        "governor": first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "mitigations": {Path(path).name: first_line(path) for path in
                        sorted(glob.glob("/sys/devices/system/cpu/vulnerabilities/*"))
                        if not first_line(path).startswith("Not affected")},
    }


def first_line(path):
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").splitlines()[0].strip()
    except (OSError, IndexError):
        return ""


def cpu_times():
    """(all, stolen) ticks of the machine so far."""
    numbers = [int(word) for word in first_line("/proc/stat").split()[1:9]]
    return sum(numbers), numbers[7] if len(numbers) > 7 else 0


def cpu_loop_ms():
    """A fixed amount of work that touches neither memory nor the kernel much, timed."""
    begun = time.perf_counter()
    digest = hashlib.sha256()
    for _ in range(LOOP_ROUNDS):
        digest.update(LOOP_BYTES)
    digest.digest()
    return (time.perf_counter() - begun) * 1000


def flush_probe(folder):
    """Microseconds of one write of 4 KiB with its flush: median and longest of some."""
    path = Path(folder) / "flush-probe"
    times = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.pwrite(descriptor, bytes(4096 * FLUSHES), 0)
        os.fsync(descriptor)
        for turn in range(FLUSHES):
            begun = time.perf_counter()
            os.pwrite(descriptor, os.urandom(4096), 4096 * turn)
            os.fdatasync(descriptor)
            times.append((time.perf_counter() - begun) * 1e6)
    finally:
        os.close(descriptor)
        path.unlink()
    return {"p50": round(statistics.median(times), 1), "max": round(max(times), 1)}


class Noise:
    """Samples of how much the machine is its own master, and what came between two of them."""

    def __init__(self, folder):
        self.folder = folder
        self.begun = time.monotonic()
        self.ticks = cpu_times()

    def sample(self, where):
        ticks = cpu_times()
        everything = ticks[0] - self.ticks[0]
        stolen = 100 * (ticks[1] - self.ticks[1]) / everything if everything > 0 else 0.0
        self.ticks = ticks
        return {"at_seconds": round(time.monotonic() - self.begun, 1), "where": where,
                "cpu_loop_ms": [round(cpu_loop_ms(), 2) for _ in range(5)],
                "flush_us": flush_probe(self.folder), "steal_percent": round(stolen, 2),
                "load_average": os.getloadavg()[0]}
