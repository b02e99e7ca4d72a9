# SPDX-License-Identifier: Apache-2.0
"""The benchmark's runner and report: figures that were computed by hand, and runs that are void.

The runner is run for real, with few messages; a subject that loses some must not go unnoticed.
"""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("POSTERN", ROOT / "build/release/postern")).parent
sys.path.insert(0, str(ROOT / "bench/common"))

pytest.importorskip("matplotlib", reason="no python3-matplotlib: make deps-test")

# pylint: disable=wrong-import-position
import summary

RATES = {"direct": (1000, 2000, 1500), "postern-proxy": (700, 900, 1200),
         "postern-queue": (300, 320, 9999), "postfix": (20, 10, 30)}
CPU = {"direct": (0, 0, 0), "postern-proxy": (0.2, 0.2, 0.2), "postern-queue": (0.1, 0.1, 0.001),
       "postfix": (1.0, 2.0, 1.0)}


def run_of(scenario, subject, repetition, rate, cpu, **more):
    return {"scenario": scenario, "subject": subject, "repetition": repetition, "connections": 8,
            "messages": 100, "seconds": 1.0, "end_to_end_per_second": rate,
            "accepted_per_second": rate, "mb_per_second": rate * 0.004096,
            "latency_us": {"p50": 1000, "p90": 2000, "p99": 9000}, "void": None,
            "cpu": {"subject_per_1000": cpu, "load_per_1000": 0.01, "sink_per_1000": 0.02},
            "rss_kb": 4096, "pss_kb": 2048, "durability": "none: <x>", "record": "user", **more}


@pytest.fixture(name="results")
def results_fixture():
    """Three repetitions of one scenario; the queue's third is void, nginx could not run."""
    runs = [run_of("4k-100", subject, repetition + 1, rates[repetition], CPU[subject][repetition])
            for repetition in range(3) for subject, rates in RATES.items()]
    for run in runs:
        if (run["subject"], run["repetition"]) == ("postern-queue", 3):
            run["void"] = "3 lost & <gone>"
    runs.append(run_of("4k-100", "postern-proxy", 0, 1, 9.9, counting=True,
                       syscalls_per_message=2.5, pss_kb=1024))
    runs += [run_of("serial", "postern-proxy", 1, 500, 0.2,
                    latency_curve=[[0, 100], [50, 200], [90, 300], [99, 400], [100, 900]]),
             run_of("serial", "postfix", 1, 50, 0.2)]
    subjects = {name: {"title": name.title(), "durability": "durable: flushed before the 250",
                       "inbound": "TLS 1.3", "outbound": "TLS 1.3", "record": "user",
                       "version": "1", "notes": "An expert's <choice>.",
                       "settings": {"main.cf": "a = b & c <d>"}} for name in RATES}
    subjects["nginx"] = {"title": "nginx mail", "missing": "there is no package <here>"}
    return {"schema": 1, "environment": {"time": "2026-01-02T03:04:05Z", "cpu": "a processor",
                                         "cores": 2, "kernel": "6.1"},
            "settings": {"repetitions": 3}, "subjects": subjects, "scenarios": [],
            "noise": [{"cpu_loop_ms": [10, 11, 12], "flush_us": {"p50": 100, "max": 300}}],
            "not_run": [{"scenario": "open-50", "subject": "exim", "repetition": 1,
                         "why": "the time was spent"}],
            "runs": runs,
            "curves": {"door": {"missing": "it needs root"}, "commit": {"rows": [
                {"how": how, "sessions": sessions, "repetition": 1, "per_second": 100 * sessions,
                 "latency_p50_us": 900} for how in ("durable", "files") for sessions in (1, 8)]}}}


def report(tmp_path, results):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results), encoding="utf-8")
    done = subprocess.run([ROOT / "bench/report", path, "--html", tmp_path / "page.html",
                           "--markdown", tmp_path / "table.md"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    return (tmp_path / "page.html").read_text("utf-8"), (tmp_path / "table.md").read_text("utf-8")


def test_ratios_are_of_each_repetition(results):
    found = summary.summarise(results)
    # 0.7, 0.45 and 0.8; the ratio of the medians would be 0.6.
    ratio = found["ratios"]["proxy/direct 4k-100"]
    assert (ratio["median"], ratio["min"], ratio["max"], ratio["n"]) == (0.7, 0.45, 0.8, 3)
    # The void repetition is not one: 300 / 20 and 320 / 10.
    assert found["ratios"]["queue/best 4k-100"]["median"] == pytest.approx(23.5)
    assert found["ratios"]["queue/best 4k-100"]["n"] == 2
    assert found["ratios"]["queue/best cpu 4k-100"]["median"] == pytest.approx(0.075)
    queue = found["medians"]["4k-100"]["postern-queue"]
    assert queue["end_to_end_per_second"]["median"] == 310
    assert queue["end_to_end_per_second"]["spread"] == pytest.approx(20 / 310)
    assert (queue["runs"], queue["void"]) == (2, 1)


def test_a_counting_run_gives_counts_alone(results):
    proxy = summary.summarise(results)["medians"]["4k-100"]["postern-proxy"]
    assert proxy["end_to_end_per_second"]["n"] == 3
    assert proxy["cpu_per_1000"]["max"] == 0.2
    assert proxy["syscalls_per_message"]["median"] == 2.5
    assert proxy["pss_kb"]["median"] == 1024


def test_targets_say_what_the_runs_show(results):
    def met(text):
        rows = [row["met"] for row in summary.summarise(results)["targets"] if text in row["what"]]
        assert rows, text
        return rows[0]

    assert met("Postern proxy over the direct path, 4 KiB") is True
    assert met("Postern proxy over the direct path, 64 KiB") is None
    durable = "Postern queue, durable, over the "
    assert met(durable + "best of Postfix, Exim and OpenSMTPD, 4 KiB") is True
    assert met(durable + "least of theirs, 4 KiB") is False  # 0.075 > 1/15
    assert met("proxy over nginx mail") is None
    for run in results["runs"]:
        if run["subject"] == "postern-proxy":
            run["end_to_end_per_second"] *= 0.7  # 0.49, 0.315, 0.56
    assert met("Postern proxy over the direct path, 4 KiB") is False


def test_idle_targets_need_all_sessions(results):
    def rows(sessions, memory, beside):
        results["runs"] = [run_of("idle", "postern-proxy", 1, 1, 1, idle={
            "sessions": sessions, "pss_bytes_per_session": memory, "rss_bytes_per_session": memory,
            "rate_without": 1000, "rate_beside": beside})]
        return [row["met"] for row in summary.summarise(results)["targets"]
                if "idle" in row["what"]]

    assert rows(10000, 30 * 1024, 900) == [True, True, None]
    assert rows(10000, 30 * 1024 + 1, 899) == [False, False, None]
    assert rows(500, 1024, 1000) == [None, None, None]
    results["curves"]["idle_kernel"] = {"tls": {"sessions": 10000,
                                                "rss_total_bytes_per_session": 16 * 1024}}
    assert rows(10000, 1, 1000)[2] is True
    results["curves"]["idle_kernel"]["tls"]["rss_total_bytes_per_session"] += 1
    assert rows(10000, 1, 1000)[2] is False


class Checker(HTMLParser):
    """Each element is closed where it must be; what it refers to is collected."""

    VOID = ("meta", "br", "hr", "img", "input", "link")

    def __init__(self):
        super().__init__()
        self.open, self.references, self.seen = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.references += [value for name, value in attrs
                            if name in ("src", "href", "xlink:href", "srcset", "action", "data")]
        self.references += [found for _, value in attrs
                            for found in re.findall(r"url\(([^)]*)\)", value or "")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-5:], self.getpos())
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            assert "@import" not in data
            self.references += re.findall(r"url\(([^)]*)\)", data)


def test_the_page_stands_by_itself(tmp_path, results):
    page, _ = report(tmp_path, results)
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert not checker.open
    assert not {"script", "link", "iframe", "img", "object"} & checker.seen
    assert checker.references and all(value.startswith("#") for value in checker.references)
    assert page.count("<svg") >= 4
    identities = re.findall(r'\bid="([^"]*)"', page)
    assert len(identities) == len(set(identities))
    for value in checker.references:
        assert value[1:] in identities


def test_the_page_shows_void_missing_and_reached(tmp_path, results):
    page, table = report(tmp_path, results)
    assert "1 of 15 runs are void" in page
    assert page.count("VOID: 3 lost &amp; &lt;gone&gt;") == 1
    assert "there is no package &lt;here&gt;" in page
    assert "open-50: exim (repetition 1): the time was spent" in page
    assert "it needs root" in page
    assert "0.7 (0.45 to 0.8, n = 3)" in page
    assert '<span class="no">no</span>' in page and '<span class="yes">yes</span>' in page
    assert "a = b &amp; c &lt;d&gt;" in page
    assert "<here>" not in page and "<gone>" not in page
    queue = next(line for line in table.splitlines() if line.startswith("| Postern-Queue |"))
    assert "310 ±6 %" in queue and "| 0.100 |" in queue
    assert "nginx mail | not measured: there is no package" in table
    assert "1 runs were void" in table


def test_an_unknown_schema_is_refused(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"schema": 2}', encoding="utf-8")
    done = subprocess.run([ROOT / "bench/report", path], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1
    assert "schema 2" in done.stderr


DRIVER = """
import socket, sys, threading
from pathlib import Path
sys.path[:0] = [ROOT + "/bench", ROOT + "/bench/common"]
import measure, run
from scenarios import STAGES
from subject import Direct

class Lossy(Direct):
    '''Direct, but connections 5 and 6 of all go to a sink that nobody asks: the first two behind
    the four that warm it up. One of them has a hundred messages, however they share them.'''

    taken = 0

    def start(self):
        tools = measure.Tools(BUILD, Path(self.pki).parent)
        self.thief = measure.Sink(tools, self.work, STAGES["main"])
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            Lossy.taken += 1
            port = self.thief.port if Lossy.taken in (5, 6) else self.sink_port
            far = socket.create_connection(("127.0.0.1", port))
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self.copy, args=ends, daemon=True).start()

    @staticmethod
    def copy(source, to):
        try:
            while got := source.recv(65536):
                to.sendall(got)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def stop(self):
        self.listener.close()
        self.thief.stop()

sys.exit(run.main(sys.argv[1:], {"direct": Lossy}))
"""


def run_bench(tmp_path, *options, driver=None):
    words = [ROOT / "bench/run.py"]
    if driver:
        words = [sys.executable, "-c", f"ROOT={str(ROOT)!r}\nBUILD={str(BUILD)!r}\n{driver}"]
    done = subprocess.run([*words, "--quick", "--messages", "200", "--build", BUILD, "--folder",
                           tmp_path, "--drain-seconds", "2", "--seconds", "30", *options],
                          capture_output=True, text=True, check=False, timeout=240)
    print(done.stdout, done.stderr)
    with open(tmp_path / "results.json", encoding="utf-8") as file:
        return done, json.load(file)


def test_the_runner_runs(tmp_path):
    done, results = run_bench(tmp_path, "--subjects", "direct,postern-proxy", "--connections", "2")
    assert done.returncode == 0
    timed = [run for run in results["runs"] if not run.get("counting")]
    assert [run["subject"] for run in timed] == ["direct", "postern-proxy"]
    assert all(run["void"] is None and run["messages"] == 200 and run["sink"]["messages"] == 200
               for run in results["runs"])
    assert timed[1]["cpu"]["subject"] > 0
    assert results["subjects"]["postern-proxy"]["settings"]
    assert results["noise"] and results["environment"]["cores"]
    assert results["summary"]["ratios"]["proxy/direct 4k-100"]["n"] == 1
    page, _ = report(tmp_path, results)
    assert "runs are void" not in page
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]  # nothing is left behind


def test_a_lost_message_makes_a_run_void(tmp_path):
    done, results = run_bench(tmp_path, "--connections", "2", driver=DRIVER)
    assert done.returncode == 1
    void = [run for run in results["runs"] if run["void"]]
    assert len(void) == 1 and len(results["runs"]) == 2  # the next one starts anew, and is right
    came = re.search(r"load counted 200 messages, the sink (\d+)", void[0]["void"])
    assert int(came[1]) <= 100
    assert results["summary"]["void"][0]["subject"] == "direct"
    assert "VOID: 4k-100, direct" in done.stdout
