# SPDX-License-Identifier: Apache-2.0
"""postern-sink finds what was done to mail on the way, and goes wrong where it is told to."""

import json
import os
import signal
import socket
import ssl
import subprocess

import pytest

from conftest import BINARY, PATIENCE, wait_for
from fault_relay import FAULTS, FaultRelay

LOAD = BINARY.parent / "bench/postern-load"
SINK = BINARY.parent / "bench/postern-sink"
RELAY_NUMBER = 17

pytestmark = pytest.mark.skipif(not LOAD.exists() or not SINK.exists(),
                                reason="postern-load and postern-sink are not built")


class Sink:
    """A sink with these options, and what it says."""

    def __init__(self, folder, *options, ports=1):
        self.error_path = folder / "sink.err"
        listen = [word for _ in range(ports) for word in ("--listen", "127.0.0.1:0")]
        with open(self.error_path, "ab") as errors:
            self.process = subprocess.Popen([SINK, *listen, *options], stdout=subprocess.PIPE,
                                            stderr=errors, text=True)
        self.ports = []
        for _ in range(ports):
            line = self.process.stdout.readline()
            assert line.startswith("listening "), self.error_path.read_text()
            self.ports.append(int(line.rsplit(":", 1)[1]))
        self.port = self.ports[0]

    def counters(self):
        self.process.send_signal(signal.SIGUSR1)
        return json.loads(self.process.stdout.readline())

    def reset(self):
        self.process.send_signal(signal.SIGUSR2)
        assert self.process.stdout.readline() == "reset\n"

    def end(self):
        """Ends it: its exit status, and the counters that it printed last."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, json.loads(out.splitlines()[-1])


@pytest.fixture
def sink(tmp_path):
    sinks = []

    def start(*options, **more):
        sinks.append(Sink(tmp_path, *options, **more))
        return sinks[-1]

    yield start
    for one in sinks:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        one.process.stdout.close()


def load(port, *options, tls=("--plain",), status=0):
    result = subprocess.run(
        [LOAD, "--connect", f"127.0.0.1:{port}", *tls, "--json", "--seconds", "60", *options],
        capture_output=True, text=True, check=False, timeout=PATIENCE * 2)
    assert result.returncode == status, result.stdout + result.stderr
    return json.loads(result.stdout)


def server_tls(pki, *more):
    return ["--tls-cert", pki / "treyresearch.pem", "--tls-key", pki / "treyresearch.key",
            "--client-ca", pki / "adatum-ca.pem", *more]


def client_tls(pki, kind="--starttls", *more):
    return [kind, "--cert", pki / "adatum.pem", "--key", pki / "adatum.key",
            "--ca", pki / "treyresearch-ca.pem", "--name", "treyresearch.test", *more]


class Talk:
    """A scripted client."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.lines = self.socket.makefile("rb")

    def reply(self):
        """The code of the next reply; None at the end."""
        while line := self.lines.readline():
            if line[3:4] != b"-":
                return int(line[:3])
        return None

    def say(self, text):
        self.socket.sendall(text.encode() + b"\r\n")
        return self.reply()

    def close(self):
        self.lines.close()
        self.socket.close()


# ---- what was done to mail on the way -------------------------------------------------------

@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_fault_of_a_relay_is_found(sink, tmp_path, fault):
    """Each in the field that is its own, and nothing else is."""
    ledger = tmp_path / "ledger"
    hop = sink("--ledger", ledger)
    relay = FaultRelay(hop.port, fault, RELAY_NUMBER)
    report = load(relay.port, "--messages", "40", "--connections", "2", "--size", "2000",
                  "--ledger", ledger)
    relay.close()
    assert relay.failures == [] and report["messages"] == 40
    status, counted = hop.end()
    want = {"corrupt": 0, "duplicates": 0, "lost": 0, "unacknowledged": 0, "foreign": 0,
            "incomplete": 0, "unwatched": 0, "verified": 40}
    want.update({
        None: {},
        "lose": {"lost": 1, "verified": 39},
        "duplicate": {"duplicates": 1, "verified": 41},
        "alter": {"corrupt": 1, "lost": 1, "verified": 39},
        "truncate": {"corrupt": 1, "lost": 1, "verified": 39},
        "swap": {"corrupt": 2, "lost": 2, "verified": 38},
        "renumber": {"lost": 1, "unacknowledged": 1},
    }[fault])
    assert {name: counted[name] for name in want} == want
    assert status == (0 if fault is None else 1)


def test_several_runs_and_ledgers_at_once(sink, tmp_path):
    """Equal numbers of different runs are different messages; a folder has all ledgers."""
    folder = tmp_path / "ledgers"
    folder.mkdir()
    hop = sink("--ledger", folder, "--threads", "2", ports=2)
    for run, port in enumerate(hop.ports):
        load(port, "--messages", "300", "--connections", "3", "--run", str(run + 1),
             "--ledger", folder / str(run), *(["--bdat"] if run else []))
    counted = hop.counters()
    assert counted["verified"] == 600 and counted["data"] == counted["bdat"] == 300
    assert counted["lost"] == counted["unacknowledged"] == counted["duplicates"] == 0
    assert 0 < counted["first_us"] <= counted["last_us"]
    # What nobody has sent is lost, and the same numbers again are duplicates.
    with open(folder / "2", "wb") as more:
        more.write((7).to_bytes(8, "little") + (1).to_bytes(8, "little") + b"not whole")
    load(hop.port, "--messages", "10", "--run", "1", "--first-id", "295")
    counted = hop.counters()
    assert counted["lost"] == 1 and counted["duplicates"] == 5
    assert counted["unacknowledged"] == 5
    hop.reset()
    counted = hop.counters()
    assert counted["messages"] == counted["lost"] == counted["duplicates"] == 0
    assert counted["first_us"] == 0
    # The ledgers are at their old end, and one that is made anew counts from its start.
    (folder / "0").unlink()
    load(hop.port, "--messages", "10", "--run", "1", "--ledger", folder / "0")
    status, counted = hop.end()
    assert counted["messages"] == 10 and counted["lost"] == counted["unacknowledged"] == 0
    assert status == 0


def test_without_a_ledger_nobody_says_that_nothing_was_lost(sink):
    hop = sink()
    load(hop.port, "--messages", "5")
    status, counted = hop.end()
    assert counted["lost"] is None and counted["unacknowledged"] is None and status == 0


def test_a_ledger_that_cannot_be_read_is_no_clean_verdict(sink, tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    hop = sink("--ledger", loop)
    load(hop.port, "--messages", "5")
    status, counted = hop.end()
    assert counted["lost"] is None and status == 1


def test_mail_of_others_is_foreign_and_a_cut_body_incomplete(sink, tmp_path):
    hop = sink("--ledger", tmp_path / "ledger")
    talk = Talk(hop.port)
    assert talk.reply() == 220
    for line, code in (("EHLO a.test", 250), ("MAIL FROM:<>", 250), ("RCPT TO:<a@b.test>", 250),
                       ("DATA", 354), ("Subject: x\r\n\r\n..\r\ntext\r\n.", 250),
                       ("MAIL FROM:<>", 250), ("RCPT TO:<a@b.test>", 250), ("DATA", 354)):
        assert talk.say(line) == code
    talk.socket.sendall(b"Subject: never ends\r\n")
    talk.close()
    wait_for(lambda: hop.counters()["open"] == 0, "end of the session")
    status, counted = hop.end()
    assert counted["foreign"] == 1 and counted["incomplete"] == 1 and counted["messages"] == 1
    assert status == 1


def test_what_is_not_verified_is_not_judged(sink):
    hop = sink("--no-verify")
    load(hop.port, "--messages", "5", "--run", "1")
    load(hop.port, "--messages", "5", "--run", "1")
    status, counted = hop.end()
    assert counted["messages"] == 10 and counted["verified"] == counted["duplicates"] == 0
    assert status == 0


# ---- what it does wrong itself ---------------------------------------------------------------

@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "body"])
@pytest.mark.parametrize("word,code", [("4xx", 451), ("5xx", 554), ("452", 452)])
def test_injected_codes(sink, step, word, code):
    hop = sink("--fault", f"{step}={word}")
    talk = Talk(hop.port)
    assert talk.reply() == 220 and talk.say("EHLO a.test") == 250
    steps = [("mail", "MAIL FROM:<>", 250), ("rcpt", "RCPT TO:<a@b.test>", 250),
             ("data", "DATA", 354), ("body", "X: y\r\n\r\n.", 250)]
    for name, line, good in steps:
        if name == step:
            assert talk.say(line) == code
            break
        assert talk.say(line) == good
    assert talk.say("RSET") == 250 and talk.say("QUIT") == 221
    talk.close()
    status, counted = hop.end()
    assert counted["faults"] == {"accept": 0, "mail": 0, "rcpt": 0, "data": 0, "body": 0, step: 1}
    assert counted["messages"] == 0 and status == 0


def test_injected_ends(sink):
    """close: no reply at all. 421: a reply, and then the end."""
    for option, first, then in (("accept=close", None, None), ("accept=421", 421, None),
                                ("mail=421", 220, 421), ("mail=close", 220, None)):
        hop = sink("--fault", option)
        talk = Talk(hop.port)
        assert talk.reply() == first
        if first == 220:
            assert talk.say("EHLO a.test") == 250
            assert talk.say("MAIL FROM:<>") == then
        assert talk.reply() is None
        talk.close()
        assert sum(hop.end()[1]["faults"].values()) == 1


def test_faults_hit_as_often_each_time(sink):
    """A share of the messages, the same with the same seed, and no more than --fault-max."""
    shares = []
    for options in ((), (), ("--seed", "2"), ("--fault-max", "20")):
        hop = sink("--fault", "body=4xx:0.1", *options)
        report = load(hop.port, "--messages", "1000", "--connections", "4", status=1)
        counted = hop.end()[1]
        assert report["failed_by_code"] == {"451": counted["faults"]["body"]}
        assert report["messages"] == counted["messages"] == 1000 - counted["faults"]["body"]
        shares.append(counted["faults"]["body"])
    assert shares[0] == shares[1] and 50 < shares[0] < 150 and 50 < shares[2] < 150
    assert shares[3] == 20


def test_a_close_before_the_reply_is_no_loss(sink, tmp_path):
    """Nobody was promised anything."""
    ledger = tmp_path / "ledger"
    hop = sink("--fault", "body=close:0.05", "--ledger", ledger)
    report = load(hop.port, "--messages", "400", "--connections", "4", "--ledger", ledger,
                  status=1)
    status, counted = hop.end()
    assert report["lost"] == counted["faults"]["body"] > 0
    assert report["messages"] == counted["messages"]
    assert counted["lost"] == counted["unacknowledged"] == counted["incomplete"] == 0
    assert status == 0


def test_a_refused_recipient_under_bdat(sink):
    """The chunk that was sent ahead is read, and the session goes on."""
    hop = sink("--fault", "rcpt=4xx:0.2")
    report = load(hop.port, "--messages", "200", "--connections", "2", "--bdat", status=1)
    counted = hop.end()[1]
    assert report["rcpt_refused"] == counted["faults"]["rcpt"] > 0 == report["lost"]
    assert report["messages"] + report["failed"] == 200
    assert report["messages"] == counted["verified"]


def test_delays(sink):
    """No reply comes before its time."""
    hop = sink("--delay", "rcpt=30", "--delay-ms", "50", "--delay", "accept=20:0.5")
    report = load(hop.port, "--messages", "8", "--connections", "4")
    counted = hop.end()[1]
    assert report["latency_us"]["p50"] >= 80000 * 63 // 64, "a bucket is so wide"
    assert counted["messages"] == counted["verified"] == 8 and counted["delays"] >= 16


def test_a_slow_next_hop(sink):
    """256 KiB at 1 MiB a second take a quarter of one, whatever the buffers between hold."""
    hop = sink("--slow", "1m")
    report = load(hop.port, "--messages", "2", "--connections", "2", "--size", "256k")
    assert hop.end()[1]["verified"] == 2
    assert report["latency_us"]["max"] >= 150000


# ---- TLS ------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("at_sink", ["stock", "postern"])
@pytest.mark.parametrize("at_load", ["stock", "postern"])
def test_both_codes_in_both_roles(sink, pki, tmp_path, at_sink, at_load, version):
    ledger = tmp_path / "ledger"
    hop = sink(*server_tls(pki, "--tls-code", at_sink, "--tls-version", version, "--require-tls",
                           "--ledger", ledger))
    for size, form in (("4k", "--data"), ("300k", "--bdat")):
        report = load(hop.port, "--messages", "60", "--connections", "3", "--size", size, form,
                      "--messages-per-connection", "10", "--tls-code", at_load, "--ledger", ledger,
                      tls=client_tls(pki))
        assert report["messages"] == 60 and report["tls_code"] == at_load
    status, counted = hop.end()
    assert counted["tls_code"] == at_sink and counted["tls_failed"] == 0
    assert counted["tls_sessions"] == counted["sessions"] >= 12
    assert counted["verified"] == 120 and counted["lost"] == 0 == status


def test_implicit_tls_and_resumption(sink, pki):
    for code in ("stock", "postern"):
        hop = sink(*server_tls(pki, "--implicit-tls", "--tls-code", code))
        report = load(hop.port, "--messages", "20", "--connections", "1", "--resume",
                      "--messages-per-connection", "2", tls=client_tls(pki, "--implicit-tls"))
        counted = hop.end()[1]
        assert report["resumed"] == counted["tls_resumed"] == counted["sessions"] - 1 >= 9


def test_groups_and_ciphers(sink, pki):
    hop = sink(*server_tls(pki, "--groups", "P-384", "--ciphers",
                           "TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256"))
    report = load(hop.port, "--messages", "2", tls=client_tls(pki))
    assert report["group"] == "secp384r1" and hop.end()[1]["verified"] == 2


def test_tls_may_be_required_or_not(sink, pki):
    for option, code in (("--require-tls", 530), ("--plain-too", 250)):
        hop = sink(*server_tls(pki, option))
        talk = Talk(hop.port)
        assert talk.reply() == 220 and talk.say("EHLO a.test") == 250
        assert talk.say("MAIL FROM:<>") == code
        talk.close()


@pytest.mark.parametrize("code", ["stock", "postern"])
def test_a_client_without_certificate_is_turned_away(sink, pki, code):
    hop = sink(*server_tls(pki, "--tls-code", code))
    report = load(hop.port, "--messages", "5", "--connections", "1", status=1,
                  tls=("--starttls",))
    counted = hop.end()[1]
    assert report["messages"] == counted["messages"] == 0 < counted["tls_failed"]


@pytest.mark.parametrize("code", ["stock", "postern"])
def test_clear_text_behind_starttls_is_no_command(sink, pki, code):
    """What an attacker puts in front of the handshake must not be taken for the client's."""
    hop = sink(*server_tls(pki, "--tls-code", code))
    talk = Talk(hop.port)
    assert talk.reply() == 220 and talk.say("EHLO a.test") == 250
    talk.socket.sendall(b"STARTTLS\r\nMAIL FROM:<>\r\n")
    assert talk.reply() in (220, None)
    with pytest.raises((OSError, ssl.SSLError)):
        context = ssl.create_default_context(cafile=pki / "treyresearch-ca.pem")
        context.load_cert_chain(pki / "adatum.pem", pki / "adatum.key")
        context.wrap_socket(talk.socket, server_hostname="treyresearch.test")
    talk.close()
    assert hop.end()[1]["tls_sessions"] == 0


# ---- its bounds -----------------------------------------------------------------------------

def test_it_ends_by_itself(sink):
    hop = sink("--messages", "30", "--threads", "2")
    load(hop.port, "--messages", "30", "--connections", "4", "--messages-per-connection", "5")
    out, _ = hop.process.communicate(timeout=PATIENCE)
    assert hop.process.returncode == 0 and json.loads(out.splitlines()[-1])["messages"] == 30
    # Messages that were here before the answer to what they stand behind count as well.
    hop = sink("--messages", "6", "--delay", "rcpt=20")
    load(hop.port, "--messages", "6", "--connections", "2", "--bdat")
    out, _ = hop.process.communicate(timeout=PATIENCE)
    assert json.loads(out.splitlines()[-1])["messages"] == 6
    hop = sink("--seconds", "1", "--progress", "--text")
    out, _ = hop.process.communicate(timeout=PATIENCE)
    assert hop.process.returncode == 0 and out.startswith("0 messages")
    assert " messages/s" in hop.error_path.read_text()


@pytest.mark.parametrize("options", [
    (), ("--listen", "127.0.0.1:0", "--fault", "body=200"),
    ("--listen", "127.0.0.1:0", "--fault", "body=451:1.5"),
    ("--listen", "127.0.0.1:0", "--fault", "nowhere=451"),
    ("--listen", "127.0.0.1:0", "--delay", "body=x"),
    ("--listen", "127.0.0.1:0", "--require-tls"),
    ("--listen", "127.0.0.1:0", "--tls-code", "own"),
    ("--listen", "127.0.0.1:0", "--ktls", "on"),
    ("--listen", "127.0.0.1:0", "--no-verify", "--ledger", os.devnull)])
def test_wrong_options(options):
    result = subprocess.run([SINK, *options], capture_output=True, text=True, check=False,
                            timeout=PATIENCE)
    assert result.returncode == 2 and "usage:" in result.stderr
