# SPDX-License-Identifier: Apache-2.0
"""What the processes of one subject cost: processor time, memory, system calls.

The processes are those of a control group, which a first one enters before it executes the
subject and its children inherit, so that children which have ended count as well. Version 2 is
asked for its cpu.stat, which needs no controller, or version 1 for its cpuacct. Where neither
can be written the processes are found by their parents, and those that ended count as soon as
their parents have waited for them.
"""

import contextlib
import errno
import glob
import os
import re
import signal
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def mounts():
    """(where, type, options) of each mounted file system."""
    for line in read("/proc/self/mounts").splitlines():
        _, where, kind, options = line.split()[:4]
        yield where, kind, options.split(",")


class NoGroup(Exception):
    """No control group can be made here; its text says why."""


class Group:
    """One control group. Version 2 anywhere, or cpuacct of version 1."""

    def __init__(self, name):
        self.folder, self.version, self.name = None, 0, name
        reasons = []
        for where, kind, options in sorted(mounts(), key=lambda mount: mount[1] != "cgroup2"):
            if kind != "cgroup2" and (kind != "cgroup" or "cpuacct" not in options):
                continue
            folder = os.path.join(where, name)
            try:
                os.makedirs(folder, exist_ok=True)
                with open(folder + "/cgroup.procs", "a", encoding="ascii"):
                    pass
                self.folder, self.version = folder, 2 if kind == "cgroup2" else 1
                self._times()
                return
            except OSError as error:
                reasons.append(f"{folder}: {error.strerror}")
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        raise NoGroup("; ".join(reasons) or "no control groups are mounted")

    def _times(self):
        """Seconds of (user, system) since the group was made."""
        if self.version == 2:
            pairs = dict(line.split() for line in read(self.folder + "/cpu.stat").splitlines())
            return int(pairs["user_usec"]) / 1e6, int(pairs["system_usec"]) / 1e6
        user, system = (int(line.split()[1])
                        for line in read(self.folder + "/cpuacct.stat").splitlines()[:2])
        total = int(read(self.folder + "/cpuacct.usage")) / 1e9  # exact; the other counts ticks
        share = user / (user + system) if user + system else 0.5
        return total * share, total * (1 - share)

    times = _times

    def pids(self):
        return [int(pid) for pid in read(self.folder + "/cgroup.procs").split()]

    def remove(self):
        """Ended processes may stay in it for a moment."""
        for _ in range(100):
            try:
                os.rmdir(self.folder)
                return
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            time.sleep(0.02)


class Tree:
    """The processes below one, where there are no groups."""

    def __init__(self):
        self.root = None

    @staticmethod
    def _stat(pid):
        return read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()

    def pids(self):
        parents = {}
        for path in glob.glob("/proc/[0-9]*"):
            with contextlib.suppress(OSError):
                parents[int(path[6:])] = int(self._stat(path[6:])[1])
        found, new = [], [self.root] if self.root in parents else []
        while new:
            found += new
            new = [pid for pid, parent in parents.items() if parent in new]
        return found

    def times(self):
        user = system = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = [int(field) for field in self._stat(pid)[11:15]]
                user, system = user + fields[0] + fields[2], system + fields[1] + fields[3]
        return user / TICKS, system / TICKS

    def remove(self):
        self.root = None


class SyscallCount:
    """The system calls within a "with"; afterwards .calls, or None and .reason."""

    def __init__(self, group, seconds):
        self.group, self.seconds = group, seconds
        self.calls, self.reason, self.perf = None, "", None

    def __enter__(self):
        if not isinstance(self.group, Group) or self.group.version != 2:
            self.reason = ("no processes" if self.group is None else
                           "no control group of version 2, by which they are counted")
            return self
        try:
            self.perf = subprocess.Popen(
                ["perf", "stat", "-a", "-x,", "-e", "raw_syscalls:sys_enter", "-G", self.group.name,
                 "--timeout", str(int(self.seconds * 1000))],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                env={**os.environ, "LC_ALL": "C"})
        except OSError as error:
            self.reason = f"perf: {error.strerror}"
            return self
        time.sleep(0.3)  # it tells nobody when it begins
        return self

    def __exit__(self, *_):
        if not self.perf:
            return
        self.perf.send_signal(signal.SIGINT)
        said = self.perf.communicate(timeout=10)[1]
        found = re.search(r"^(\d+),[^,]*,raw_syscalls:sys_enter,", said, re.MULTILINE)
        if found:
            self.calls = int(found[1])
        else:
            self.reason = "perf stat: " + said.strip()[:200]


class Account:
    """All that is counted of one subject."""

    def __init__(self, name):
        try:
            self.group, self.no_group = Group(f"postern-bench-{os.getpid()}-{name}"), ""
        except NoGroup as reason:
            self.group, self.no_group = Tree(), str(reason)
        self.count = None

    @property
    def folder(self):
        """Of the control group, into whose cgroup.procs a process writes 0; or None."""
        return getattr(self.group, "folder", None)

    def started(self, pid):
        """The subject's first process, for where there is no group."""
        if isinstance(self.group, Tree):
            self.group.root = pid

    def command(self, words):
        """The same, but within the group."""
        if not self.folder:
            return list(words)
        return ["/bin/sh", "-c", 'echo 0 >"$0/cgroup.procs" && exec "$@"', self.folder, *words]

    def counters(self):
        user, system = self.group.times()
        memory = {"rss_kb": 0, "pss_kb": 0, "processes": 0}
        for pid in self.group.pids():
            with contextlib.suppress(OSError):  # it may end meanwhile
                found = dict(re.findall(r"^(Rss|Pss): +(\d+)", read(f"/proc/{pid}/smaps_rollup"),
                                        re.MULTILINE))
                memory["rss_kb"] += int(found.get("Rss", 0))
                memory["pss_kb"] += int(found.get("Pss", 0))
                memory["processes"] += 1
        return {"cpu_user_seconds": user, "cpu_system_seconds": system, **memory,
                "syscalls": self.count.calls if self.count else None}

    def count_syscalls(self, seconds):
        self.count = SyscallCount(self.group, seconds)
        return self.count

    def close(self):
        self.group.remove()
