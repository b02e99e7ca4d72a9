# SPDX-License-Identifier: Apache-2.0
"""Of each subject: does it do what it says?

It starts, takes 20 messages over mutual TLS, and within a limit the sink has all of them, whole,
over TLS with a client certificate if the subject says so, and in clear text if it says that. A
client without a certificate gets nothing through. What is counted of it is there. It ends, and
leaves no process."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time

from subject import ROOT, Cannot, wait_until

MESSAGES = 20
ARRIVE_SECONDS = 30
VARIANT = os.environ.get("VARIANT", "release")
BENCH = os.environ.get("BENCH") or os.path.join(ROOT, "build", VARIANT, "bench")


def program(name):
    path = os.path.join(BENCH, name)
    if not os.access(path, os.X_OK):
        raise Cannot(f"{path} is missing: make bench-bins")
    return path


class Sink:
    """postern-sink, which demands a certificate of those that start TLS."""

    def __init__(self, folder, pki):
        both = os.path.join(folder, "both-ca.pem")
        with open(both, "w", encoding="ascii") as file:
            for name in ("adatum-ca.pem", "treyresearch-ca.pem"):
                with open(os.path.join(pki, name), encoding="ascii") as one:
                    file.write(one.read())
        self.path = os.path.join(folder, "sink.out")
        with open(self.path, "w", encoding="ascii") as out:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(
                [program("postern-sink"), "--listen", "127.0.0.1:0", "--verify", "--client-ca",
                 both, "--tls-cert", f"{pki}/treyresearch.pem", "--tls-key",
                 f"{pki}/treyresearch.key"],
                stdout=out, stdin=subprocess.DEVNULL)
        wait_until(self.lines, 10, "no sink")
        self.port = int(self.lines()[0].rsplit(":", 1)[1])

    def lines(self):
        with open(self.path, encoding="ascii") as file:
            return [line for line in file if line.endswith("\n")]

    def counters(self):
        before = len(self.lines())
        self.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: len(self.lines()) > before, 10, "the sink does not answer")
        return json.loads(self.lines()[-1])

    def stop(self):
        self.process.terminate()
        self.process.wait()


def load(subject, pki, *words, certificate=True):
    """What load says of MESSAGES messages."""
    shown = ["--cert", f"{pki}/treyresearch.pem", "--key", f"{pki}/treyresearch.key"]
    done = subprocess.run(
        [program("postern-load"), "--connect", f"127.0.0.1:{subject.port}", "--starttls",
         *(shown if certificate else []), "--ca", os.path.join(pki, subject.server_ca), "--name",
         subject.server_name, "--connections", "2", "--seconds", "20", "--messages", str(MESSAGES),
         "--json", *subject.load_options, *words],
        capture_output=True, text=True, check=False, timeout=120)
    if not done.stdout:
        raise AssertionError(f"load said nothing but {done.stderr}")
    return json.loads(done.stdout)


def check_delivery(subject, sink, sent):
    assert sent["messages"] == MESSAGES and sent["failed"] == 0, sent
    deadline = time.monotonic() + (ARRIVE_SECONDS if subject.stores else 0)
    seen = sink.counters()
    while seen["messages"] < MESSAGES and time.monotonic() < deadline:
        time.sleep(0.1)
        seen = sink.counters()
    assert seen["messages"] == seen["verified"] == MESSAGES, seen
    assert seen["corrupt"] == seen["duplicates"] == seen["incomplete"] == 0, seen
    assert seen["sessions"] > 0, seen
    # With --client-ca a session without a certificate of the client does not come to be.
    secure = subject.outbound.startswith("TLS")
    assert seen["tls_sessions"] == (seen["sessions"] if secure else 0), (subject.outbound, seen)
    return seen


def check_counters(subject, before, after, count):
    for name in ("cpu_user_seconds", "cpu_system_seconds"):
        assert after[name] >= before[name], (name, before, after)
    spent = sum(after[name] - before[name] for name in ("cpu_user_seconds", "cpu_system_seconds"))
    assert spent > 0 and after["pss_kb"] > 0 and after["rss_kb"] >= after["pss_kb"], after
    assert after["processes"] > 0, after
    assert (count.calls or 0) > MESSAGES or count.reason, "neither system calls nor a reason"
    assert subject.version and subject.settings and subject.notes, "nothing to show a reader"


def check_no_certificate(subject, sink, pki):
    assert BOTH_CHECKED in subject.inbound, subject.inbound
    seen = sink.counters()["messages"]
    sent = load(subject, pki, "--messages-per-connection", "1", certificate=False)
    assert sent["messages"] == 0, f"mail was taken from a client without a certificate: {sent}"
    assert sink.counters()["messages"] == seen, "and the sink has it"


BOTH_CHECKED = "both certificates checked"


def check(subject_class, folder, pki):
    """Raises AssertionError, or Cannot where this subject does not run."""
    sink = Sink(folder, pki)
    try:
        subject = subject_class(os.path.join(folder, "subject"), sink.port, pki)
        subject.start()
        try:
            pids = subject.account.group.pids() if subject.account else []
            before = subject.counters()
            with subject.count_syscalls(60) as count:
                sent = load(subject, pki)
                seen = check_delivery(subject, sink, sent)
            if subject.account:
                check_counters(subject, before, subject.counters(), count)
            wait_until(subject.empty, 20, "the queue is not empty")
            check_no_certificate(subject, sink, pki)
        finally:
            subject.stop()
        for pid in pids:
            with contextlib.suppress(FileNotFoundError), \
                    open(f"/proc/{pid}/stat", encoding="ascii") as file:
                assert file.read().rsplit(")", 1)[1].split()[0] in "ZX", f"{pid} still runs"
        return (f"{subject.version}; {seen['sessions']} sessions to the sink, "
                f"{seen['tls_sessions']} of them TLS; {count.calls or count.reason} system calls")
    finally:
        sink.stop()


def main(subjects, names):
    """Status 0 all well, 1 one is not as it says, 77 none could run."""
    pki = os.path.join(ROOT, "build", "pki")
    subprocess.run([os.path.join(ROOT, "tests", "pki.sh"), pki], check=True)
    where = os.path.join(ROOT, "build", "bench")  # on a disk, as a queue must be
    os.makedirs(where, exist_ok=True)
    wrong = ran = 0
    for name in names or subjects:
        with tempfile.TemporaryDirectory(prefix="self-test.", dir=where) as folder:
            os.chmod(folder, 0o755)
            try:
                print(f"{name}: ok, {check(subjects[name], folder, pki)}", flush=True)
                ran += 1
            except Cannot as reason:
                print(f"{name}: cannot run here: {reason}", flush=True)
            except AssertionError as error:
                wrong += 1
                print(f"{name}: FAILED: {error}", flush=True)
    return 1 if wrong else 0 if ran else 77
