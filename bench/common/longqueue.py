#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""longqueue.py: what bench/queue.sh measures, and its table.

A relay with two ways, each from a receive connector of its own: "dead" leads to a port where nobody
listens, "living" to a next hop that is a part of this program. A trip is one message from here
through the relay, and its spool, back to here, one after the other, so that nothing but the relay
makes it wait.
"""

import argparse
import collections
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from subject import free_ports  # below those of clients, so that the dead one stays so

PATIENCE = 900
CONFIG = """
transport {{
	fqdn = "mx.adatum.test"
	workers = 1
	bpf = off
	drain-timeout = "5s"
	max-sessions = 1000
	control-socket = "{folder}/control"
	spool-folder = "{spool}"
	spool-max-size = "{spool_gb}GB"
	queue-max-messages = {queue_max}
	queue-glitch-retry-interval = "5s"
	queue-glitch-retry-count = 15
	delay-notification-timeout = "{delay}"
}}
receive-connector "to-dead" {{
	bindings = {{"127.0.0.1:{ports[0]}"}} {receive} send-connector = "dead"
}}
receive-connector "to-living" {{
	bindings = {{"127.0.0.1:{ports[1]}"}} {receive} send-connector = "living"
}}
send-connector "dead" {{ smart-hosts = {{"127.0.0.1:{ports[2]}"}} tls-auth-level = none }}
send-connector "living" {{ smart-hosts = {{"127.0.0.1:{ports[3]}"}} tls-auth-level = none }}
send-connector "more" {{ address-spaces = {{"{space}"}} }}
"""
RECEIVE = """deliver = queue message-rate-limit = unlimited max-inbound-connection = unlimited
  max-inbound-connection-per-source = unlimited max-inbound-connection-percentage-per-source = 100
  connection-timeout = "1h" tarpit-interval = "0s" """


def await_until(condition, what):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.01)
    sys.exit(f"longqueue.py: no {what} within {PATIENCE} seconds")


class NextHop(threading.Thread):
    """Takes all mail, and says when each has come, by its subject."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self.arrived = {}
        self.news = threading.Condition()
        self.start()

    def run(self):
        while True:
            peer, _ = self.listener.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        with peer, peer.makefile("rb") as lines:
            try:
                self.talk(peer, lines)
            except OSError:
                pass

    def talk(self, peer, lines):
        peer.sendall(b"220 living.test ESMTP\r\n")
        for line in lines:
            verb = line[:4].upper()
            if verb == b"EHLO":
                peer.sendall(b"250-living.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
            elif verb == b"DATA":
                peer.sendall(b"354 go\r\n")
                self.take(lines)
                peer.sendall(b"250 2.0.0 taken\r\n")
            elif verb == b"QUIT":
                peer.sendall(b"221 2.0.0 bye\r\n")
                return
            else:
                peer.sendall(b"250 2.0.0 ok\r\n")

    def take(self, lines):
        name = None
        for line in lines:
            if line.startswith(b"Subject: trip ") and name is None:
                name = int(line[14:])
            if line == b".\r\n":
                break
        with self.news:
            self.arrived.setdefault(name, []).append(time.monotonic())
            self.news.notify_all()

    def await_trip(self, name):
        with self.news:
            if not self.news.wait_for(lambda: name in self.arrived, PATIENCE):
                sys.exit("longqueue.py: mail to the living next hop does not arrive")
            return self.arrived[name][0]


def disk_ms(folder, count=50):
    """Median and highest of what a write of 4 KiB takes until it is safe: the least of a trip."""
    path, times = Path(folder) / "probe", []
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DSYNC, 0o600)
    for number in range(count):
        begun = time.monotonic()
        os.pwrite(file, b"x" * 4096, number % 4 * 4096)
        times.append((time.monotonic() - begun) * 1e3)
    os.close(file)
    path.unlink()
    return statistics.median(times), max(times)


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.socket.makefile("rb")
        self.reply(b"220")
        self.say(b"EHLO bench.test\r\n", b"250")

    def reply(self, code):
        line = b"   -"
        while line[3:4] == b"-":
            line = self.lines.readline()
        if not line.startswith(code):
            sys.exit(f"longqueue.py: the relay says {line!r}")

    def say(self, text, *codes):
        self.socket.sendall(text)
        for code in codes:
            self.reply(code)

    def send(self, name):
        self.say(b"MAIL FROM:<trip@bench.test>\r\nRCPT TO:<trip@living.test>\r\nDATA\r\n",
                 b"250", b"250", b"354")
        self.say(b"Subject: trip %d\r\n\r\n%s.\r\n" % (name, b"x" * 62 + b"\r\n"), b"250")

    def close(self):
        self.say(b"QUIT\r\n", b"221")
        self.socket.close()


class Relay:
    def __init__(self, options):
        self.options = options
        self.folder = Path(options.folder)
        self.config = self.folder / "queue.conf"
        self.log_path = self.folder / "queue.log"
        self.tool = str(Path(options.postern).with_name("posternctl"))
        self.ports = free_ports(4)
        self.process = None
        self.events, self.log_at, self.log_rest = collections.defaultdict(list), 0, b""
        self.write()

    def write(self, delay="4h", space="more.test"):
        options = self.options
        spool_gb = max(1, options.messages * (options.size + 5120) * 2 >> 30)
        self.config.write_text(CONFIG.format(
            folder=self.folder, spool=options.spool, ports=self.ports, receive=RECEIVE,
            space=space, delay=delay, spool_gb=spool_gb,
            queue_max=options.messages + options.trips * 20 + 1000))

    def log_count(self, name):
        """Events of that name so far. What was read once is not read again: it may be much."""
        with open(self.log_path, "ab+") as log:
            log.seek(self.log_at)
            text = self.log_rest + log.read()
            self.log_at = log.tell()
        lines = text.split(b"\n")
        self.log_rest = lines.pop()
        for line in lines:
            for word in (b"ready", b"reload", b"stats"):
                if b" event=" + word + b" " in line:
                    self.events[word.decode()].append(line.decode(errors="replace"))
        return len(self.events[name])

    def start(self):
        """Seconds until it is ready."""
        before, begun = self.log_count("ready"), time.monotonic()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([self.options.postern, "--config", self.config],
                                            stderr=log)
        await_until(lambda: self.log_count("ready") > before or
                    self.process.poll() is not None, "ready relay")
        if self.process.poll() is not None:
            sys.exit(self.log_path.read_text()[-2000:])
        return time.monotonic() - begun

    def stop(self, how=signal.SIGTERM):
        begun = time.monotonic()
        self.process.send_signal(how)
        self.process.wait(PATIENCE)
        return time.monotonic() - begun

    def reload(self):
        before = self.log_count("reload")
        self.process.send_signal(signal.SIGHUP)
        await_until(lambda: self.log_count("reload") > before, "reload")
        if " result=ok" not in self.events["reload"][-1]:
            sys.exit(self.events["reload"][-1])

    def stats(self):
        before = self.log_count("stats")
        self.process.send_signal(signal.SIGUSR1)
        await_until(lambda: self.log_count("stats") > before, "stats")
        pairs = (word.split("=", 1) for word in self.events["stats"][-1].split() if "=" in word)
        # What is 0 is not told.
        return collections.Counter(
            {name: int(value) for name, value in pairs if value.isdigit()})

    def rss(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def ctl(self, *words, as_json=False):
        """Seconds that a command took, and what it printed."""
        command = [self.tool, "--config", self.config] + (["--json"] if as_json else [])
        begun = time.monotonic()
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=False,
                              timeout=PATIENCE)
        if done.returncode != 0:
            sys.exit(f"longqueue.py: {words}: {done.stdout}{done.stderr}")
        return time.monotonic() - begun, done.stdout

    def waiting(self):
        """Messages in each queue."""
        rows = json.loads(self.ctl("queue", "list", as_json=True)[1])
        return {row["identity"]: row["message_count"] for row in rows}


class Bench:
    def __init__(self, options):
        self.options = options
        self.relay = Relay(options)
        self.hop = NextHop(self.relay.ports[3])
        self.names = 0
        self.table = {}

    def tell(self, name, value, text):
        self.table[name] = value
        print(f"{name:<44} {text}", flush=True)

    def trips(self, name, until=None):
        """Trips, as many as asked for, or until something is over."""
        client, times, disk = Client(self.relay.ports[1]), [], disk_ms(self.options.folder)
        before = self.relay.stats()["loop_over_20ms"]
        while len(times) < (100 if until else self.options.trips) or (
                until and (len(times) % 25 or not until())):
            begun = time.monotonic()
            client.send(self.names)
            times.append((self.hop.await_trip(self.names) - begun) * 1e3)
            self.names += 1
        client.close()
        stats = self.relay.stats()
        over = stats["loop_over_20ms"] - before
        quantiles = statistics.quantiles(times, n=100)
        figures = {"trips": len(times), "p50_ms": quantiles[49], "p99_ms": quantiles[98],
                   "max_ms": max(times), "turns_over_20ms": over, "disk_p50_ms": disk[0],
                   "disk_max_ms": disk[1]}
        self.tell(f"trip {name}", figures,
                  f"p50 {quantiles[49]:.2f} ms  p99 {quantiles[98]:.2f} ms  max {max(times):.1f} ms"
                  f"  (disk {disk[0]:.2f}, {disk[1]:.1f}; {len(times)} trips, "
                  f"{over} turns over 20 ms)")

    def time_of(self, *commands):
        """Five times one after the other, as what some of them do is undone by the next."""
        times = [[self.relay.ctl(*words)[0] * 1e3 for words in commands] for _ in range(5)]
        for words, column in zip(commands, zip(*times)):
            self.tell("posternctl " + " ".join(words), statistics.median(column),
                      f"{statistics.median(column):.1f} ms (median of 5)")

    def fill(self):
        options, relay = self.options, self.relay
        before = relay.rss()
        done = subprocess.run(
            [options.load, "--connect", f"127.0.0.1:{relay.ports[0]}", "--plain", "--size",
             str(options.size), "--messages", str(options.messages), "--connections",
             str(options.connections), "--messages-per-connection", "1000", "--seconds",
             str(PATIENCE * 4), "--json"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"longqueue.py: load: {done.stdout}{done.stderr}")
        load = json.loads(done.stdout)
        stats, after = relay.stats(), relay.rss()
        self.tell("queued", load["messages"],
                  f"{load['messages']} messages, {load['messages_per_second']:.0f} a second")
        self.table["queued_per_second"] = load["messages_per_second"]
        self.tell("memory before, after", [before, after],
                  f"{before / 1e6:.1f} MB, {after / 1e6:.1f} MB: "
                  f"{(after - before) / options.messages:.0f} bytes a message")
        spool = json.loads(relay.ctl("pressure", "show", as_json=True)[1])
        disk = sum(path.stat().st_blocks * 512 for path in Path(options.spool).rglob("*")
                   if path.is_file())
        self.tell("spool", {"used": spool["bytes_used"], "disk": disk, "stats": stats},
                  f"{spool['bytes_used'] / options.messages:.0f} bytes a message, "
                  f"{stats['spool_writes'] / options.messages:.3f} writes; "
                  f"{disk / 1e6:.0f} MB on disk")
        self.count("after the load")

    def count(self, when):
        """All of the dead queue is there, whatever else was done."""
        found = self.relay.waiting().get("dead", 0)
        if found != self.options.messages:
            sys.exit(f"longqueue.py: {when} {found} messages wait, not {self.options.messages}")

    def is_routed(self):
        return self.relay.waiting().get("dead", 0) == self.options.messages

    def with_commands(self, *commands):
        """Trips while the commands are given, one behind the other, without a pause."""
        done = threading.Event()
        counts = [0]

        def give():
            while not done.is_set():
                for words in commands:
                    self.relay.ctl(*words)
                    counts[0] += 1
        thread = threading.Thread(target=give)
        thread.start()
        self.trips("while commands are given")
        done.set()
        thread.join()
        self.tell("commands given meanwhile", counts[0], str(counts[0]))

    def changed(self, name, **words):
        self.relay.write(**words)
        begun = time.monotonic()
        self.relay.reload()
        self.tell(f"reload, {name}", time.monotonic() - begun, f"{time.monotonic() - begun:.2f} s")
        self.trips(f"during: {name}", until=self.is_routed)
        self.tell(f"until all is in its queue again, {name}", time.monotonic() - begun,
                  f"{time.monotonic() - begun:.1f} s")
        self.count(name)

    def restart(self, how):
        seconds = self.relay.stop(how)
        self.tell(f"{how.name}: until it has ended", seconds, f"{seconds:.2f} s")
        ready = self.relay.start()
        self.tell(f"{how.name}: start until ready", ready, f"{ready:.2f} s")
        begun = time.monotonic()
        self.trips(f"right after the start ({how.name})", until=self.is_routed)
        self.tell(f"{how.name}: until all is in its queue", time.monotonic() - begun,
                  f"{time.monotonic() - begun:.1f} s after ready")
        self.tell(f"{how.name}: memory", self.relay.rss(), f"{self.relay.rss() / 1e6:.1f} MB")
        self.count(f"after {how.name}")

    def run(self):
        relay = self.relay
        ready = relay.start()
        self.tell("start with an empty spool", ready, f"{ready:.2f} s")
        self.trips("with empty queues")
        self.fill()
        self.trips("with the full queue")
        self.time_of(("queue", "list"), ("queue", "show", "dead"), ("pressure", "show"),
                     ("msg", "list", "--limit", "50"),
                     ("msg", "list", "--limit", "50", "--queue", "living"),
                     ("queue", "suspend", "dead"), ("queue", "resume", "dead"))
        self.with_commands(("queue", "list"), ("msg", "list", "--limit", "50"),
                           ("queue", "suspend", "dead"), ("queue", "resume", "dead"))
        self.count("after all commands")
        self.changed("nothing of it matters")
        self.changed("another delay", delay="5h")
        self.changed("routes all anew", delay="5h", space="others.test")
        self.restart(signal.SIGTERM)
        self.restart(signal.SIGKILL)
        stats = relay.stats()
        self.tell("loop of the last relay", {key: stats[key] for key in
                                             ("loop_max_us", "loop_over_20ms")},
                  f"longest turn {stats['loop_max_us'] / 1e3:.1f} ms")
        relay.stop()
        if any(len(times) > 1 for times in self.hop.arrived.values()):
            print("note: some trips arrived twice (a restart cut their delivery off)")
        if len(self.hop.arrived) != self.names:
            sys.exit(f"longqueue.py: {self.names} trips, {len(self.hop.arrived)} arrived")


def main():
    parser = argparse.ArgumentParser()
    for name in ("postern", "load", "folder", "spool", "out"):
        parser.add_argument("--" + name, required=True)
    for name in ("messages", "size", "connections", "trips"):
        parser.add_argument("--" + name, type=int, required=True)
    options = parser.parse_args()
    bench = Bench(options)
    try:
        bench.run()
    finally:
        if bench.relay.process and bench.relay.process.poll() is None:
            bench.relay.process.kill()
            bench.relay.process.wait()
    environment = json.loads((Path(options.folder) / "environment.json").read_text())
    Path(options.out).write_text(json.dumps({"environment": environment, "figures": bench.table}))
    print(f"written: {options.out}")


if __name__ == "__main__":
    os.environ["LC_ALL"] = "C"
    main()
