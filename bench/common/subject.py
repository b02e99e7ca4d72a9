# SPDX-License-Identifier: Apache-2.0
"""What all subjects of the benchmark have in common, and the two that are no peer: nothing in
between, and Postern. The list of all is in subjects.py, which says how they are used."""

import os
import random
import re
import signal
import socket
import subprocess
import time

from accounting import Account, SyscallCount, read

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
START_SECONDS = 30
NONE = "none: answers with the next hop's word"
DURABLE = "durable: flushed before the 250"
RELAXED = "relaxed: page cache"
BOTH = "both certificates checked"


class Cannot(Exception):
    """This subject cannot run here; its text says why."""


def free_ports(count):
    """Below those that the kernel gives to clients."""
    held = []
    for port in random.sample(range(20000, 32000), 400):
        try:
            held.append(socket.create_server(("127.0.0.1", port), reuse_port=False))
        except OSError:
            continue
        if len(held) == count:
            break
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    if len(ports) < count:
        raise Cannot("no free ports")
    return ports


def wait_until(true, seconds, what):
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise Cannot(f"{what} within {seconds} seconds")
        time.sleep(0.02)


def relay_configuration(ports, pki, options, transport="", receive=""):
    """Postern's: mutual TLS on both legs, a second door in clear, no limit that a benchmark could
    meet. ports: of both doors and of the next hop; the last two are lines for their sections."""
    doors = f"""	max-inbound-connection = unlimited
	max-inbound-connection-per-source = unlimited
	max-inbound-connection-percentage-per-source = 100
	message-rate-limit = unlimited
	max-message-size = "1GB"
	max-recipients-per-message = 100000
	connection-inactivity-timeout = "30m"
	connection-timeout = "1h"
	send-connector = "inside"
{receive}"""
    return f"""transport {{
	fqdn = "mx.adatum.test"
	workers = {options["workers"]}
	max-sessions = {options["sessions"]}
	drain-timeout = "2s"
	bpf = off
{transport}}}

certificate "edge" {{
	chain = "{pki}/adatum.pem"
	key = "{pki}/adatum.key"
}}

receive-connector "partner" {{
	bindings = {{"127.0.0.1:{ports[0]}"}}
	tls = starttls
	require-tls = yes
	certificate = "edge"
	client-certificate = require
	trust-anchors = "{pki}/treyresearch-ca.pem"
	ktls = {options["ktls"]}
{doors}}}

receive-connector "plain" {{
	bindings = {{"127.0.0.1:{ports[1]}"}}
{doors}}}

send-connector "inside" {{
	smart-hosts = {{"127.0.0.1:{ports[2]}"}}
	certificate = "edge"
	tls-auth-level = domain-validation
	tls-domain = "mx.treyresearch.test"
	trust-anchors = "{pki}/treyresearch-ca.pem"
	ktls = {options["ktls"]}
	max-messages-per-connection = {options["per_connection"]}
}}
"""


class Subject:
    """One subject that runs, or will. Options are words for all: workers (1), ktls ("off"), variant
    ("release"), sessions (5000: so many may be open at a time), per_connection (unlimited:
    messages of one connection to the next hop), processes (of a server that has one for each
    session: 130)."""

    title = version = durability = inbound = outbound = record = notes = ""
    stores = False
    best_connections = 8  # where its rate is the highest, at 4 KiB with two cores for all
    load_options = ()     # of postern-load, without which it cannot be spoken to
    server_name, server_ca = "mx.adatum.test", "adatum-ca.pem"  # of its certificate
    DEFAULTS = {"workers": 1, "ktls": "off", "variant": "release", "sessions": 5000,
                "per_connection": "unlimited", "processes": 130}

    def __init__(self, work_dir, sink_port, pki_dir, options=None):
        self.work, self.pki = os.path.abspath(work_dir), os.path.abspath(pki_dir)
        self.sink_port, self.options = sink_port, {**self.DEFAULTS, **(options or {})}
        self.port = self.plain_port = self.account = None
        self.settings = {}
        os.makedirs(self.work, exist_ok=True)

    def start(self):
        raise NotImplementedError

    def stop(self):
        if self.account:
            self.account.close()
            self.account = None

    def counters(self):
        return self.account.counters()

    def count_syscalls(self, seconds):
        return self.account.count_syscalls(seconds)

    def empty(self):
        return True

    # For those that come after: the folder, where a file of settings is kept and shown.

    def path(self, *names):
        return os.path.join(self.work, *names)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        self.settings[name] = text
        return self.path(name)

    def on_disk(self):
        """A flush must cost what it costs."""
        kind = subprocess.run(["findmnt", "-no", "FSTYPE", "--target", self.work],
                              capture_output=True, text=True, check=False).stdout.strip()
        if self.stores and kind in ("tmpfs", "ramfs"):
            raise Cannot(f"{self.work} is a {kind}: mail must be on a disk")


class Direct(Subject):
    title = "direct"
    version = "-"
    durability = NONE
    inbound = outbound = f"TLS 1.3, {BOTH}"
    record = "user"
    notes = "No relay at all: load speaks with the sink itself, as far as this machine can go."
    server_name, server_ca = "mx.treyresearch.test", "treyresearch-ca.pem"

    def start(self):
        self.port = self.sink_port
        self.settings = {"none": "There is no relay.\n"}

    def counters(self):
        return {"cpu_user_seconds": 0.0, "cpu_system_seconds": 0.0, "rss_kb": 0, "pss_kb": 0,
                "processes": 0, "syscalls": None}

    def count_syscalls(self, seconds):
        return SyscallCount(None, 0)


class Postern(Subject):
    """Postern, by default as a proxy."""

    title = "Postern, proxy"
    durability = NONE
    inbound = outbound = f"TLS 1.3, {BOTH}"
    notes = ("One worker for each processor, as by default. The next hop's sessions are pooled "
             "and kept, as the peers' are: max-messages-per-connection is unlimited "
             "(default: 20). No limit of sessions or rates; all else as by default, the log with "
             "one line for each message too.")
    transport = receive = ""  # what a queue adds to these sections
    best_connections = 64

    def __init__(self, work_dir, sink_port, pki_dir, options=None):
        super().__init__(work_dir, sink_port, pki_dir, options)
        self.binary = self.options.get("postern") or os.path.join(
            ROOT, "build", self.options["variant"], "postern")
        self.log, self.process = self.path("relay.log"), None
        self.record = {"off": "user", "on": "kernel"}.get(
            self.options["ktls"], f"kernel, {self.options['ktls']}")
        said = subprocess.run([self.binary, "--version"], capture_output=True, text=True,
                              check=False)
        self.version = said.stdout.splitlines()[0] if said.stdout else "?"

    def configuration(self):
        return relay_configuration(
            (self.port, self.plain_port, self.sink_port), self.pki, self.options,
            self.transport.format(work=self.work), self.receive)

    def start(self):
        self.on_disk()
        if not os.access(self.binary, os.X_OK):
            raise Cannot(f"{self.binary} is missing: make all bench-bins")
        self.port, self.plain_port = free_ports(2)
        if self.stores:
            os.makedirs(self.path("spool"), exist_ok=True)
        config = self.write("relay.conf", self.configuration())
        self.account = Account(self.title.split()[-1])
        with open(self.log, "w", encoding="ascii") as log:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(self.account.command([self.binary, "--config", config]),
                                            stdin=subprocess.DEVNULL, stderr=log)
        self.account.started(self.process.pid)
        wait_until(lambda: " event=ready" in read(self.log) or self.process.poll() is not None,
                   START_SECONDS, "Postern is not ready")
        if self.process.poll() is not None:
            raise Cannot(f"Postern ended: {read(self.log)[-300:]}")

    def stop(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        super().stop()

    def empty(self):
        if not self.stores:
            return True
        stats = self.stats()
        return stats.get("queue_accepted", 0) == stats.get("queue_sent", 0)

    def stats(self):
        """Its newest event of that name, fresh."""
        before = read(self.log).count(" event=stats")
        self.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: read(self.log).count(" event=stats") > before, 10, "no counters")
        line = [line for line in read(self.log).splitlines() if " event=stats" in line][-1]
        return {name: int(value) for name, value in re.findall(r" ([a-z0-9_]+)=(\d+)(?= |$)", line)}

    def counters(self):
        stats = self.stats()
        return {**super().counters(), "stats": stats}


class PosternQueue(Postern):
    title = "Postern, queue durable"
    durability = DURABLE
    stores = True
    notes = ("One worker for each processor, as by default, and each has a log of its own in the "
             "spool, which lies on the same disk as the others' queues; one flush covers all "
             "that arrived meanwhile. Up to 100 connections of a worker to the next hop, as by "
             "default, which are kept (max-messages-per-connection = unlimited); with 20, fewer "
             "than its clients, mail came in faster than it went, and much of it was read back "
             "from the disk. No limit of sessions or rates; all else as by default.")
    transport = '\tspool-folder = "{work}/spool"\n\tspool-max-size = "16GB"\n'
    receive = "\tdeliver = queue\n\tdurability = durable\n"


class PosternRelaxed(PosternQueue):
    title = "Postern, queue relaxed"
    durability = RELAXED
    receive = "\tdeliver = queue\n\tdurability = relaxed\n"
