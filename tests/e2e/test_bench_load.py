# SPDX-License-Identifier: Apache-2.0
"""postern-load sends what it says, counts what it gets, and does not forget who had to wait."""

import email
import email.policy
import json
import signal
import socket
import struct
import subprocess
import time

import pytest

from bench_hop import BenchHop
from conftest import BINARY, PKI, wait_for

BENCH = BINARY.parent / "bench"
LOAD = BENCH / "postern-load"
SINK = BENCH / "postern-sink" if (BENCH / "postern-sink").exists() else None

pytestmark = pytest.mark.skipif(not LOAD.exists() or SINK is None,
                                reason="the load generator is not built")

CLIENT = ("--cert", PKI / "treyresearch.pem", "--key", PKI / "treyresearch.key",
          "--ca", PKI / "treyresearch-ca.pem", "--name", "mx.treyresearch.test")


def run(port, *options, status=0):
    """Runs it to its end; what it printed as JSON."""
    done = subprocess.run([LOAD, "--connect", f"127.0.0.1:{port}", "--json", *options],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


@pytest.fixture
def make_hop():
    hops = []

    def make(**how):
        hops.append(BenchHop(**how))
        return hops[-1]
    yield make
    for hop in hops:
        hop.close()


class Sink:
    def __init__(self, *options):
        self.process = subprocess.Popen(
            [SINK, "--listen", "127.0.0.1:0", "--tls-cert", PKI / "treyresearch.pem", "--tls-key",
             PKI / "treyresearch.key", "--client-ca", PKI / "treyresearch-ca.pem", *options],
            stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        return json.loads(self.process.communicate(timeout=30)[0].splitlines()[-1])


@pytest.fixture
def make_sink(pki):  # pylint: disable=unused-argument
    sinks = []

    def make(*options):
        sinks.append(Sink(*options))
        return sinks[-1]
    yield make
    for sink in sinks:
        sink.process.kill()
        sink.process.wait()


@pytest.mark.parametrize("verb", ["--data", "--bdat"])
def test_counts_and_messages(make_hop, verb):
    hop = make_hop()
    got = run(hop.port, "--plain", "--messages", "40", "--connections", "3", "--recipients", "3",
              "--messages-per-connection", "7", "--size", "3000", "--first-id", "1000",
              "--run", "255", "--bodies", "2", verb)
    assert got["messages"] == 40 and got["failed"] == 0 and got["message_bytes"] == 120000
    assert got["run"] == "00000000000000ff" and got["connect_failed"] == 0
    assert got["connections"] == hop.sessions and hop.sessions >= 40 / 7
    assert sorted(mail.id for mail in hop.mails) == list(range(1000, 1040))
    assert {mail.run for mail in hop.mails} == {"00000000000000ff"}
    assert all(len(mail.recipients) == 3 and len(mail.text) == 3000 for mail in hop.mails)
    assert all((mail.chunks == [3000]) if verb == "--bdat" else mail.chunks is None
               for mail in hop.mails)
    assert all(count <= 7 for count in
               (sum(mail.session == i for mail in hop.mails) for i in range(hop.sessions + 1)))
    parsed = email.message_from_bytes(hop.mails[0].text, policy=email.policy.default)
    assert not parsed.defects and parsed["Message-ID"] and parsed["From"] and parsed["To"]
    assert parsed["Date"].datetime is not None and parsed.get_content_type() == "text/plain"
    assert len({mail.text.split(b"\r\n\r\n", 1)[1] for mail in hop.mails}) == 40


def test_json_has_all_fields(make_hop):
    hop = make_hop()
    got = run(hop.port, "--plain", "--messages", "20")
    for name in ("latency_us", "handshake_us"):
        times = got[name]
        assert set(times) == {"p50", "p75", "p90", "p95", "p99", "p99_9", "max", "mean"}
        order = [times[key] for key in ("p50", "p75", "p90", "p95", "p99", "p99_9", "max")]
        assert order == sorted(order) and times["max"] > 0
    assert sum(count for _, count in got["latency_histogram"]) == 20
    assert [us for us, _ in got["latency_histogram"]] == sorted(
        us for us, _ in got["latency_histogram"])
    assert got["latency_p50_us"] == got["latency_us"]["p50"]
    assert 0 < got["started_us"] < got["ended_us"] <= time.monotonic_ns() // 1000
    assert got["rate_wanted"] == 0 and got["sizes"] == [[4096, 1]] and got["size"] == 4096
    assert got["tls"] == "none" and got["tls_code"] == "stock" and got["record"] == "none"
    assert {"group", "resumed", "cpu_user_seconds", "cpu_system_seconds", "seconds",
            "messages_per_second", "mb_per_second", "lost", "rcpt_refused", "cipher",
            "behind", "idle_alive"} <= set(got)


def test_refusals_are_counted_by_code_and_end_nothing(make_hop):
    hop = make_hop(answer=lambda mail: "451 later" if mail.id % 3 == 0 else
                   "550 never" if mail.id % 5 == 0 else "250 ok")
    got = run(hop.port, "--plain", "--messages", "60", "--connections", "2", status=1)
    assert got["failed_by_code"] == {"451": 20, "550": 8}
    assert got["failed"] == 28 and got["messages"] == 32 and got["lost"] == 0
    assert len(hop.mails) == 60 and len(hop.accepted) == 32


def test_refused_recipients(make_hop):
    hop = make_hop(on_rcpt=lambda line: b"550 no\r\n" if b"<r2@" in line else b"250 ok\r\n")
    got = run(hop.port, "--plain", "--messages", "10", "--recipients", "3")
    assert got["messages"] == 10 and got["rcpt_refused"] == 10


def test_broken_connections_are_lost_messages(make_hop):
    hop = make_hop(answer=lambda mail: None if mail.id % 4 == 1 else "250 ok")
    got = run(hop.port, "--plain", "--messages", "40", "--connections", "2", status=1)
    assert got["lost"] == got["failed"] == 10 and got["messages"] == 30
    assert got["failed_by_code"] == {}


def test_421_ends_the_connection_only(make_hop):
    hop = make_hop(answer=lambda mail: "421 bye" if mail.id == 5 else "250 ok")
    got = run(hop.port, "--plain", "--messages", "20", "--connections", "1", status=1)
    assert got["failed_by_code"] == {"421": 1} and got["messages"] == 19
    assert hop.sessions == 2


def test_nobody_listens():
    with socket.socket() as silent:  # bound, so that nobody else listens there
        silent.bind(("127.0.0.1", 0))
        got = run(silent.getsockname()[1], "--plain", "--messages", "20", "--connections", "2",
                  status=1)
    assert got["messages"] == 0 and got["connect_failed"] == 20 and got["failed"] == 0


def test_a_pipelined_bdat_message_waits_for_nothing(make_hop):
    """The server says nothing until the whole message is there."""
    hop = make_hop(hold=True)
    got = run(hop.port, "--plain", "--bdat", "--messages", "12", "--recipients", "5")
    assert got["messages"] == 12
    got = run(hop.port, "--plain", "--bdat", "--messages", "6", "--size", "200k", "--chunk", "9999")
    assert got["messages"] == 6
    assert hop.mails[-1].chunks == [9999] * 20 + [204800 - 20 * 9999]


@pytest.mark.parametrize("offers,options", [(("CHUNKING",), ()),
                                            (("CHUNKING", "PIPELINING"), ("--no-pipelining",))])
def test_without_pipelining_each_reply_is_awaited(make_hop, offers, options):
    hop = make_hop(offers=offers)
    for verb in ("--data", "--bdat"):
        got = run(hop.port, "--plain", "--messages", "10", "--recipients", "2", verb, *options)
        assert got["messages"] == 10
    assert hop.ahead == 0
    hop = make_hop()
    run(hop.port, "--plain", "--messages", "10", "--recipients", "20", "--data")
    assert hop.ahead > 0, "the hop would see it"


def test_no_chunking_no_bdat(make_hop):
    hop = make_hop(offers=("PIPELINING",))
    got = run(hop.port, "--plain", "--bdat", "--messages", "5", "--connections", "1", status=1)
    assert got["messages"] == 0 and not hop.mails


def test_a_mix_has_its_shares(make_hop):
    hop = make_hop()
    got = run(hop.port, "--plain", "--messages", "100", "--sizes", "1k:7,3k:2,20k:1", "--bdat")
    sizes = [len(mail.text) for mail in sorted(hop.mails, key=lambda mail: mail.id)]
    for begin in range(0, 100, 10):
        assert sorted(sizes[begin:begin + 10]) == [1024] * 7 + [3072] * 2 + [20480]
    assert got["message_bytes"] == sum(sizes) and got["sizes"] == [[1024, 7], [3072, 2], [20480, 1]]
    again = make_hop()
    run(again.port, "--plain", "--messages", "100", "--sizes", "1k:7,3k:2,20k:1", "--bdat")
    assert sizes == [len(mail.text) for mail in sorted(again.mails, key=lambda mail: mail.id)]
    other = make_hop()
    run(other.port, "--plain", "--messages", "100", "--sizes", "1k:7,3k:2,20k:1", "--bdat",
        "--seed", "2")
    assert sizes != [len(mail.text) for mail in sorted(other.mails, key=lambda mail: mail.id)]


def test_ledger_is_what_was_accepted(make_hop, tmp_path):
    ledger = tmp_path / "ledger"
    hop = make_hop(answer=lambda mail: "452 full" if mail.id % 7 == 3 else
                   None if mail.id == 30 else "250 ok")
    run(hop.port, "--plain", "--messages", "600", "--ledger", ledger, status=1)
    one = list(struct.iter_unpack("<QQ", ledger.read_bytes()))
    assert len(one) == 600 - 86 - 1
    run(hop.port, "--plain", "--messages", "50", "--threads", "2", "--ledger", ledger, status=1)
    entries = [(f"{run_number:016x}", number)
               for run_number, number in struct.iter_unpack("<QQ", ledger.read_bytes())]
    assert sorted(entries) == sorted(hop.accepted)
    assert len({run_number for run_number, _ in entries}) == 2


def test_ledger_that_cannot_be_written(make_hop, tmp_path):
    hop = make_hop()
    done = subprocess.run([LOAD, "--connect", f"127.0.0.1:{hop.port}", "--plain", "--ledger",
                           tmp_path / "no" / "ledger"], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 1 and "No such file" in done.stderr and not hop.mails
    got = run(hop.port, "--plain", "--messages", "300", "--ledger", "/dev/full", status=1)
    assert got["messages"] == 300 and got["ledger_failed"] is True


@pytest.mark.skipif(SINK is None or SINK.name != "postern-sink", reason="this sink reads no ledger")
@pytest.mark.parametrize("forgotten", [0, 3])
def test_ledger_at_the_sink(make_sink, tmp_path, forgotten):
    """Two runs at once, and promises that nobody kept."""
    ledger = tmp_path / "ledger"
    sink = make_sink("--ledger", ledger)
    loads = [subprocess.Popen([LOAD, "--connect", f"127.0.0.1:{sink.port}", "--plain", "--messages",
                               "500", "--ledger", ledger], stdout=subprocess.DEVNULL)
             for _ in range(2)]
    assert [load.wait(timeout=60) for load in loads] == [0, 0]
    with open(ledger, "ab") as more:
        for number in range(forgotten):
            more.write(struct.pack("<QQ", 77, number))
    seen = sink.stop()
    assert seen["messages"] == 1000 and seen["lost"] == forgotten and seen["unacknowledged"] == 0
    assert seen["duplicates"] == seen["corrupt"] == seen["foreign"] == 0, seen


DELAY = 0.2


@pytest.mark.parametrize("options", [(), ("--poisson",), ("--threads", "2")])
def test_who_had_to_wait_is_not_forgotten(make_hop, options):
    """Two connections carry ten messages a second; a hundred a second are due."""
    hop = make_hop(delay=DELAY)
    closed = run(hop.port, "--plain", "--connections", "2", "--messages", "20")
    assert closed["latency_us"]["p50"] >= DELAY * 1e6 * 63 / 64  # percentiles are true to 1/64
    hop = make_hop(delay=DELAY)
    got = run(hop.port, "--plain", "--connections", "2", "--rate", "100", "--seconds", "3",
              *options)
    sent = got["messages"]
    assert got["failed"] == 0 and got["rate_wanted"] == 100 and sent >= 4
    # Message k of those that were taken began when the two connections had carried those before
    # it, which took half the delay each at least, and was due before that but for ten milliseconds
    # each: it waited 0.9 k DELAY / 2. By chance the times may lie some closer or wider. A machine
    # that is late makes fewer of them, and each of them wait longer.
    assert got["latency_us"]["max"] >= sent / 2 * DELAY * 0.7e6
    assert got["latency_us"]["p50"] >= sent / 4 * DELAY * 0.7e6
    assert got["behind"] > sent
    assert sorted(mail.id for mail in hop.mails) == list(range(sent)) or options


def test_an_open_loop_keeps_its_times(make_hop):
    hop = make_hop()
    got = run(hop.port, "--plain", "--connections", "4", "--rate", "200", "--messages", "61",
              "--messages-per-connection", "5")
    assert got["messages"] == 61 and got["behind"] == 0, "all were begun, however late"
    assert sorted(mail.id for mail in hop.mails) == list(range(61))
    # Number 60 is due 300 ms after number 0, and never leaves earlier.
    assert got["ended_us"] - got["started_us"] >= 300000


def test_threads_without_a_connection_have_no_share(make_hop):
    hop = make_hop()
    got = run(hop.port, "--plain", "--connections", "1", "--threads", "4", "--rate", "200",
              "--messages", "20")
    assert got["messages"] == 20 and hop.sessions == 1
    assert sorted(mail.id for mail in hop.mails) == list(range(20))


def test_an_open_loop_ends_with_the_time(make_hop):
    hop = make_hop()
    got = run(hop.port, "--plain", "--connections", "3", "--rate", "50", "--seconds", "1",
              "--threads", "3")
    assert 0 < got["messages"] <= 50 and got["failed"] == 0
    assert len(hop.mails) == got["messages"] == len({mail.id for mail in hop.mails})
    assert all(mail.id < 50 for mail in hop.mails)


def test_idle_sessions_beside_the_load(make_hop):
    hop = make_hop()
    got = run(hop.port, "--plain", "--messages", "30", "--connections", "2", "--threads", "2",
              "--idle", "75", "--messages-per-connection", "1000")
    assert got["idle_open"] == got["idle_alive"] == 75 and got["idle_failed"] == 0
    assert got["messages"] == 30 and hop.sessions == 77
    # A silent session does not wait for the answer to its QUIT, so that may still be on its way.
    wait_for(lambda: sum(line == b"QUIT" for _, line in hop.commands) == 77, "last words")
    silent = [[line for number, line in hop.commands if number == session]
              for session in range(1, 78)]
    assert sum(lines[1:] == [b"NOOP", b"QUIT"] for lines in silent) == 75


def test_an_idle_session_that_dies_is_told(make_hop):
    hop = make_hop(on_noop=b"")
    got = run(hop.port, "--plain", "--messages", "5", "--idle", "3", status=1)
    assert got["messages"] == 5 and got["failed"] == 0
    assert got["idle_alive"] == 0 and got["idle_failed"] == 3


@pytest.mark.parametrize("percent,want", [(None, 0), ("0", 0), ("50", 10), ("100", 19), ("", 19)])
def test_resumption_as_the_server_sees_it(make_sink, percent, want):
    sink = make_sink()
    options = [] if percent is None else ["--resume", percent] if percent else ["--resume"]
    got = run(sink.port, "--starttls", *CLIENT, "--messages", "20", "--connections", "1",
              "--messages-per-connection", "1", *options)
    assert got["connections"] == 20 and got["resumed"] == want
    assert sink.stop()["tls_resumed"] == want


@pytest.mark.parametrize("code", ["stock", "postern"])
@pytest.mark.parametrize("verb", ["--data", "--bdat"])
def test_both_codes_send_what_the_sink_verifies(make_sink, code, verb):
    sink = make_sink("--verify")
    got = run(sink.port, "--starttls", *CLIENT, "--messages", "300", "--sizes",
              "1k:5,70k:4,1m:1", "--tls-code", code, "--threads", "2", "--bodies", "3",
              "--resume", "50", "--messages-per-connection", "20", verb)
    assert got["messages"] == 300 and got["tls_code"] == code and got["tls"] == "TLSv1.3"
    assert got["record"].startswith("user") and got["cipher"].startswith("TLS_")
    seen = sink.stop()
    assert seen["messages"] == seen["verified"] == 300, seen
    assert seen["corrupt"] == seen["foreign"] == seen["duplicates"] == seen["incomplete"] == 0
    assert seen["bad_commands"] == 0
    if verb == "--bdat":
        assert seen["message_bytes"] == got["message_bytes"]


@pytest.mark.parametrize("code", ["stock", "postern"])
def test_tls_as_it_was_asked_for(make_sink, code):
    sink = make_sink("--implicit-tls")
    got = run(sink.port, "--implicit-tls", *CLIENT, "--messages", "5", "--tls-version", "1.2",
              "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256", "--groups", "P-256", "--tls-code", code)
    assert got["tls"] == "TLSv1.2" and got["cipher"] == "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert got["group"] == "secp256r1"
    got = run(sink.port, "--implicit-tls", *CLIENT, "--messages", "5", "--groups", "P-384",
              "--ciphers", "TLS_CHACHA20_POLY1305_SHA256", "--tls-code", code)
    assert got["cipher"] == "TLS_CHACHA20_POLY1305_SHA256" and got["group"] == "secp384r1"
    wrong = [*CLIENT[:-1], "other.test"]
    got = run(sink.port, "--implicit-tls", *wrong, "--messages", "5", "--connections", "1",
              "--tls-code", code, status=1)
    assert got["messages"] == 0 and got["connect_failed"] == 10


def test_progress_and_text(make_hop):
    hop = make_hop()
    done = subprocess.run(
        [LOAD, "--connect", f"127.0.0.1:{hop.port}", "--plain", "--rate", "50", "--seconds", "3",
         "--progress"], capture_output=True, text=True, timeout=60, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) >= 2, done.stderr
    assert all("messages/s" in line and "p99" in line and "behind" in line for line in lines)
    for word in ("rate", "latency", "handshake", "p99.9", "50 messages/s wanted", "own CPU"):
        assert word in done.stdout, done.stdout


def test_a_signal_ends_it_with_a_report(make_hop):
    hop = make_hop(delay=0.01)
    load = subprocess.Popen([LOAD, "--connect", f"127.0.0.1:{hop.port}", "--plain", "--messages",
                             "1000000", "--seconds", "600", "--json"], stdout=subprocess.PIPE,
                            text=True)
    wait_for(lambda: len(hop.mails) > 20, "messages")
    load.send_signal(signal.SIGINT)
    out, _ = load.communicate(timeout=60)
    got = json.loads(out)
    assert load.returncode == 0 and got["failed"] == 0 and got["messages"] == len(hop.mails)


@pytest.mark.parametrize("options", [
    [], ["--plain"], ["--connect", "127.0.0.1:25"],
    ["--plain", "--connect", "127.0.0.1:25", "--sizes", "4k"],
    ["--plain", "--connect", "127.0.0.1:25", "--size", "100"],
    ["--plain", "--connect", "127.0.0.1:25", "--tls-code", "other"],
    ["--plain", "--connect", "127.0.0.1:25", "--ktls", "on"],
    ["--plain", "--connect", "127.0.0.1:25", "--poisson"],
    ["--plain", "--connect", "127.0.0.1:25", "--resume", "101"],
    ["--plain", "--connect", "127.0.0.1:25", "more"],
])
def test_wrong_options(options):
    done = subprocess.run([LOAD, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and done.stderr and not done.stdout
