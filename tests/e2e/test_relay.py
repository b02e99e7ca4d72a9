# SPDX-License-Identifier: Apache-2.0
"""The relay as a process: its rings, its limits, its end, and what it holds over time."""

import os
import signal
import socket
import ssl
import subprocess
import time

import pytest

from conftest import BINARY, PATIENCE, ROOT, free_port, proxy_config, wait_for

CAPABILITIES = ["single-issuer", "defer-taskrun", "coop-taskrun", "registered-ring",
                "multishot-accept", "buffer-ring"]
SESSIONS = int(os.environ.get("POSTERN_TEST_SESSIONS", "10000"))


class Client:
    """One SMTP conversation by hand."""

    def __init__(self, port, pki=None, cert="treyresearch"):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.reader = self.socket.makefile("rb")
        self.greeting = self.reply()
        if pki is not None:
            self.say("EHLO probe.test", 250)
            self.say("STARTTLS", 220)
            context = ssl.create_default_context(cafile=pki / "adatum-ca.pem")
            context.check_hostname = False
            context.load_cert_chain(pki / f"{cert}.pem", pki / f"{cert}.key")
            self.socket = context.wrap_socket(self.socket)
            self.reader = self.socket.makefile("rb")
            self.say("EHLO probe.test", 250)

    def reply(self):
        text = b""
        while True:
            line = self.reader.readline()
            text += line
            if line[3:4] != b"-":
                return text.decode()

    def say(self, line, code):
        self.socket.sendall(line.encode() + b"\r\n")
        reply = self.reply()
        assert reply.startswith(str(code)), f"{line}: {reply}"
        return reply

    def envelope(self):
        self.say("MAIL FROM:<a@treyresearch.test>", 250)
        self.say("RCPT TO:<b@adatum.test>", 250)

    def message(self, body="Subject: one\r\n\r\ntext\r\n"):
        self.envelope()
        self.say("DATA", 354)
        return self.say(body + ".", 250)

    def close(self):
        self.reader.close()
        self.socket.close()


@pytest.mark.parametrize("off", [[name] for name in CAPABILITIES] + [CAPABILITIES])
def test_each_ring_capability_can_be_off(start, next_hop, pki, off):
    words = ", ".join(f'"{name}"' for name in off)
    relay = start(transport=f"io-uring-disable = {{{words}}}")
    clients = [Client(relay.port, pki) for _ in range(3)]
    for client in clients:
        client.message("Subject: ring\r\n\r\n" + "x" * 70 + "\r\n" * 3000)
        client.say("QUIT", 221)
    assert len(next_hop.messages) == 3


def test_version_lists_what_the_kernel_can_do():
    text = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True).stdout
    for name in CAPABILITIES:
        assert f"io_uring {name}: yes" in text or f"io_uring {name}: no" in text
    assert "\nktls" in text and "OpenSSL" in text


def test_check_names_file_line_and_remedy(tmp_path, pki):
    config = tmp_path / "bad.conf"
    config.write_text(proxy_config(2525, 2526, pki).replace("tls = starttls", "tls = sometimes"))
    result = subprocess.run([BINARY, "--check", config], capture_output=True, text=True,
                            check=False)
    assert result.returncode == 2
    assert f"{config}:7: " in result.stderr and "expected" in result.stderr


def test_check_finds_a_key_that_does_not_fit(tmp_path, pki):
    config = tmp_path / "bad.conf"
    config.write_text(proxy_config(2525, 2526, pki).replace("adatum.key", "other.key"))
    result = subprocess.run([BINARY, "--check", config], capture_output=True, text=True,
                            check=False)
    assert result.returncode == 2 and "other.key" in result.stderr


def test_drain_lets_a_message_finish(start, next_hop, pki):
    relay = start(transport="")
    busy, idle = Client(relay.port, pki), Client(relay.port, pki)
    busy.envelope()
    busy.say("DATA", 354)
    relay.process.terminate()
    assert idle.reply().startswith("421 4.3.2")
    wait_for(lambda: relay.events("drain"), "drain event")
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", relay.port), 5).recv(1)
    busy.say("Subject: late\r\n\r\ntext\r\n.", 250)
    assert busy.reply().startswith("421")
    assert relay.process.wait(PATIENCE) == 0
    assert len(next_hop.messages) == 1


def test_drain_ends_after_its_timeout(start, pki, next_hop):
    relay = start(drain="2s")
    stuck = Client(relay.port, pki)
    stuck.envelope()
    stuck.say("DATA", 354)
    relay.process.terminate()
    assert relay.process.wait(PATIENCE) == 0
    assert next_hop.messages == []


def test_too_many_connections_are_told_so(start, pki):
    relay = start(receive="max-inbound-connection = 2")
    first, second = Client(relay.port), Client(relay.port)
    assert Client(relay.port).greeting.startswith("421 4.3.2 The maximum number of concurrent")
    first.close()
    wait_for(lambda: relay.events("session-end"), "end of the first")
    assert Client(relay.port).greeting.startswith("220")
    second.close()


def test_an_empty_session_pool_is_a_421(start):
    relay = start(transport="max-sessions = 1")
    held = Client(relay.port)
    assert Client(relay.port).greeting.startswith("421 4.3.2")
    assert relay.stats()["sessions_refused"] == 1
    held.close()


def test_silence_and_age_end_a_session(start):
    relay = start(receive='connection-inactivity-timeout = "1s" connection-timeout = "3s"')
    assert Client(relay.port).reply().startswith("451 4.7.0 Timeout waiting for client input")
    busy = Client(relay.port)
    replies = []
    while not replies or not replies[-1].startswith("421"):
        busy.socket.sendall(b"NOOP\r\n")
        replies.append(busy.reply())
        time.sleep(0.1)
        assert len(replies) < 600
    assert replies[-1].startswith("421 4.4.2")


def test_implicit_tls(make_relay, next_hop, pki):
    port = free_port()
    config = proxy_config(port, next_hop.port, pki).replace("tls = starttls", "tls = implicit")
    relay = make_relay(config)
    context = ssl.create_default_context(cafile=pki / "adatum-ca.pem")
    context.load_cert_chain(pki / "treyresearch.pem", pki / "treyresearch.key")
    raw = socket.create_connection(("127.0.0.1", port), PATIENCE)
    with context.wrap_socket(raw, server_hostname="mx.adatum.test") as tls:
        reader = tls.makefile("rb")
        assert reader.readline().startswith(b"220 mx.adatum.test")
        tls.sendall(b"EHLO probe.test\r\nMAIL FROM:<a@treyresearch.test>\r\n"
                    b"RCPT TO:<b@adatum.test>\r\nDATA\r\n")
        lines = []
        while not lines or not lines[-1].startswith(b"354"):
            lines.append(reader.readline())
        assert b"250-STARTTLS\r\n" not in lines
        tls.sendall(b"Subject: implicit\r\n\r\n.\r\nQUIT\r\n")
        assert reader.readline().startswith(b"250 2.6.0")
    wait_for(lambda: relay.events("session-end"), "session end")
    assert next_hop.messages[0].body.endswith(b"Subject: implicit\r\n\r\n")


def test_two_workers_share_the_port(start, next_hop, pki):
    relay = start(transport="")
    relay.stop()
    relay.config.write_text(relay.config.read_text().replace("workers = 1", "workers = 2"))
    relay.start()
    for _ in range(24):
        client = Client(relay.port, pki)
        client.message()
        client.close()
    wait_for(lambda: len(relay.events("session-end")) >= 24, "all session ends")
    workers = {event["session"][12:14] for event in relay.events("accept")}
    assert workers == {"00", "01"}, "the kernel spreads connections over the workers"
    assert len(next_hop.messages) == 24


def test_a_slow_reader_of_the_log_delays_no_mail(next_hop, pki, tmp_path):
    port = free_port()
    config = tmp_path / "postern.conf"
    config.write_text(proxy_config(port, next_hop.port, pki, transport="log-level = debug"))
    read_end, write_end = os.pipe()
    relay = subprocess.Popen([BINARY, "--config", config], stderr=write_end)
    os.close(write_end)
    try:
        assert b"event=start" in os.read(read_end, 100)
        wait_for(lambda: can_connect(port), "listener")
        # The pipe holds 64 KiB and the worker's two buffers 256 KiB: far more is logged.
        client = Client(port, pki)
        for _ in range(1500):
            client.message()
        client.say("QUIT", 221)
        assert len(next_hop.messages) == 1500
        relay.send_signal(signal.SIGTERM)
        drained = b""
        while chunk := os.read(read_end, 1 << 20):
            drained += chunk
        assert b"log_dropped=" in drained and relay.wait(PATIENCE) == 0
    finally:
        relay.kill()
        relay.wait()
        os.close(read_end)


def can_connect(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1])


def test_descriptors_and_memory_stay_flat(start, pki):
    """10 000 sessions with mutual TLS and a message each."""
    load = BINARY.parent / "bench/postern-load"
    sink = BINARY.parent / "bench/postern-sink"
    if not load.exists() or not sink.exists():
        pytest.skip("the load generator is not built")
    hop_port = free_port()
    hop = subprocess.Popen(
        [sink, "--listen", f"127.0.0.1:{hop_port}", "--tls-cert", pki / "treyresearch.pem",
         "--tls-key", pki / "treyresearch.key", "--client-ca", pki / "adatum-ca.pem"],
        stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: can_connect(hop_port), "sink")
        relay = start()
        relay.stop()
        text = relay.config.read_text().replace(
            '  smart-hosts = {"', f'  smart-hosts = {{"127.0.0.1:{hop_port}", "')
        relay.config.write_text(text)
        relay.start()
        pid = relay.process.pid

        def send(count):
            result = subprocess.run(
                [load, "--connect", f"127.0.0.1:{relay.port}", "--starttls", "--cert",
                 pki / "treyresearch.pem", "--key", pki / "treyresearch.key", "--connections",
                 "16", "--messages-per-connection", "1", "--messages", str(count), "--seconds",
                 "600", "--size", "4096"], capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stdout + result.stderr
            return len(os.listdir(f"/proc/{pid}/fd")), resident_kib(pid)

        send(SESSIONS // 10)
        descriptors, memory = send(SESSIONS // 10)
        descriptors_end, memory_end = send(SESSIONS - 2 * (SESSIONS // 10))
        stats = relay.stats()
        assert stats["messages"] == SESSIONS <= stats["sessions"], stats
        # 16 clients and 16 sessions with the next hop come and go.
        assert descriptors_end <= descriptors + 20
        print(f"resident {memory} KiB after {SESSIONS // 5} sessions, {memory_end} KiB after all")
        # A byte lost in each session would be a tenth of this.
        sanitized = os.environ.get("VARIANT", "release") != "release"
        assert sanitized or memory_end - memory < 1024 + SESSIONS // 100
    finally:
        hop.kill()
        hop.wait()


def test_the_readme_commands_exist():
    text = (ROOT / "Makefile").read_text()
    assert "\ndemo:" in text and "\ntest:" in text
