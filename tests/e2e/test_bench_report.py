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
import curves
import floor
import summary
import words

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


def floor_of(**steps):
    """The part of bench/floor for 4 KiB, with these microseconds."""
    return {"library": "a <library>", "cipher": "AES-256-GCM", "rows": [
        {"name": step, "step": step, "size": 4096, "unit": "us", "value": value, "min": value - 1,
         "max": value + 1, "values": [value], "batch": 7} for step, value in steps.items()]}


@pytest.fixture(name="results")
def results_fixture():
    return results_made_up()


def results_made_up():
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


@pytest.fixture(name="pages", scope="module")
def pages_fixture(tmp_path_factory):
    """The page and the table of the same, drawn once; with a floor, which the results may lack."""
    results = results_made_up()
    results["curves"]["floor"] = floor_of(receive=5, open=6, seal=7, send=8, proxy=26, checksum=9,
                                          store=15, queue=50, chain=24)
    return report(tmp_path_factory.mktemp("page"), results)


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
    assert met(durable + "least of Postfix, Exim and OpenSMTPD, 4 KiB") is False  # 0.075 > 1/15
    assert met("proxy over nginx mail") is None
    for run in results["runs"]:
        if run["subject"] == "postern-proxy":
            run["end_to_end_per_second"] *= 0.7  # 0.49, 0.315, 0.56
    assert met("Postern proxy over the direct path, 4 KiB") is False


def test_a_peer_that_does_not_flush_is_no_measure_of_flushing(results):
    # 300 / 100 and 320 / 100; of those that flush, 300 / 20 and 320 / 10 as before.
    results["runs"] += [run_of("4k-100", "opensmtpd", repetition, 100, 0.1)
                        for repetition in (1, 2)]
    found = summary.summarise(results)["ratios"]
    assert found["queue/best 4k-100"]["median"] == pytest.approx(3.1)
    assert found["queue/flushing 4k-100"]["median"] == pytest.approx(23.5)
    assert found["queue/best cpu 4k-100"]["median"] == pytest.approx(1)
    assert found["queue/flushing cpu 4k-100"]["median"] == pytest.approx(0.075)
    durable = "Postern queue, durable, over the best of Postfix"
    assert target_of(results, f"{durable}, Exim and OpenSMTPD, 4 KiB")["met"] is False
    assert target_of(results, f"{durable} and Exim, which flush too, 4 KiB")["met"] is True


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
    # What a process kept from sessions that it held before is theirs, too.
    rows(10000, 20 * 1024, 1000)
    results["runs"].append({**results["runs"][0], "repetition": 2, "idle": {
        **results["runs"][0]["idle"], "pss_bytes_per_session": 1024}})
    row = target_of(results, "userspace records")
    assert row["shown"].startswith("20.0 KiB each") and row["met"] is True
    results["curves"]["idle_kernel"] = {"tls": {"sessions": 10000,
                                                "rss_total_bytes_per_session": 16 * 1024}}
    assert rows(10000, 1, 1000)[2] is True
    results["curves"]["idle_kernel"]["tls"]["rss_total_bytes_per_session"] += 1
    assert rows(10000, 1, 1000)[2] is False


def target_of(results, text):
    rows = [row for row in summary.summarise(results)["targets"] if text in row["what"]]
    assert rows, text
    return rows[0]


def test_a_rate_has_its_limit_where_all_cores_are_used(results):
    what = "Postern proxy over the direct path, 4 KiB"
    assert target_of(results, what)["limit"] is None  # without the part
    results["curves"]["floor"] = floor_of(proxy=30, queue=90)
    # 2 cores / (10 us of load + 20 of sink + 30) = 33,333 a second, over 1,500 of the direct path.
    assert target_of(results, what)["limit"] == "22.2 at the most"
    # Over the best of those that store, 20 a second: 2 / (10 + 20 + 90) us.
    found = summary.summarise(results)["limits"]
    assert found["queue/best 4k-100"]["median"] == pytest.approx(2 / 120e-6 / 20)
    assert found["queue/best 4k-100"]["farthest"] == pytest.approx(2 / 119e-6 / 20)
    # The sink has less to do beside the proxy; load has not, and counts as on the direct path.
    for run in results["runs"]:
        if run["subject"] == "postern-proxy":
            run["cpu"].update(sink_per_1000=0.005, load_per_1000=0.5)
    assert summary.summarise(results)["limits"]["proxy/direct 4k-100"]["median"] == \
        pytest.approx(2 / 45e-6 / 1500)
    assert "proxy/direct 64k-100" not in summary.summarise(results)["limits"]
    del results["environment"]["cores"]
    assert target_of(results, what)["limit"] is None


def test_what_is_wanted_may_lie_beyond_the_limit(results):
    proxy = "Postern proxy over the direct path, 4 KiB"
    queue = "Postern queue, durable, over the least of Postfix, Exim and OpenSMTPD, 4 KiB"
    results["curves"]["floor"] = floor_of(proxy=4000, queue=50)
    row = target_of(results, proxy)
    assert row["limit"].startswith("0.331 ") and row["met"] is True and not row["beyond"]
    for run in results["runs"]:
        if run["subject"] == "postern-proxy":
            run["end_to_end_per_second"] *= 0.7
    row = target_of(results, proxy)
    assert row["met"] is False and row["beyond"]
    assert words.reached(row) == "beyond this machine's limit"
    # 50 us of 1 ms, the median of what the peer spent: below 1/15, so it is our own shortfall.
    row = target_of(results, queue)
    assert row["limit"] == "0.05 at the least" and row["met"] is False and not row["beyond"]
    assert words.reached(row) == "no"
    results["curves"]["floor"] = floor_of(proxy=4000, queue=70)
    assert target_of(results, queue)["beyond"]  # with 69, the lowest repetition, too
    results["curves"]["floor"] = floor_of(proxy=4000, queue=67)
    row = target_of(results, queue)
    assert row["limit"].startswith("0.067 ") and not row["beyond"]


def test_batches_are_those_of_the_runs(results):
    assert floor.batches(results["runs"]) == [(4096, 8), (65536, 8), (1048576, 8)]
    for run in results["runs"]:
        if run["subject"] == "postern-queue":  # the third is void
            run["stats_per_message"] = {"spool_flushes": (0.2, 0.1, 9)[run["repetition"] - 1]}
    assert floor.batches(results["runs"])[0] == (4096, 7)
    results["runs"].append(run_of("1m-100", "postern-queue", 1, 1, 1,
                                  stats_per_message={"spool_flushes": 1.2}))
    assert floor.batches(results["runs"])[2] == (1048576, 1)


def test_the_floor_goes_on_after_each_repetition():
    def part(**steps):
        return floor_of(**steps) | {"repetitions": 1}

    missing = {"missing": "it failed"}
    both = floor.joined(floor.joined(floor.joined(None, part(proxy=30)), part(proxy=40)),
                        part(proxy=10))
    row = both["rows"][0]
    assert (row["values"], row["value"], row["min"], row["max"]) == ([30, 40, 10], 30, 10, 40)
    assert both["repetitions"] == 3 and row["batch"] == 7
    assert floor.joined(both, missing) == both and floor.joined(missing, both) == both
    assert floor.joined(None, missing) == missing


def test_ratios_by_scenario(results):
    results["runs"].append(run_of("open-50", "postern-proxy", 1, 5, 1))
    found = summary.over(results["runs"], "postfix")
    assert found["4k-100"]["direct"]["median"] == 50  # of 50, 200 and 50
    assert found["serial"]["postern-proxy"]["median"] == 10
    assert "postfix" not in found["4k-100"] and "open-50" not in found
    assert summary.over(results["runs"], "direct")["4k-100"]["postern-queue"]["n"] == 2


def test_the_floor_adds_up(tmp_path):
    done = subprocess.run([BUILD / "bench/floor", "--sizes", "1k,20000,128k,2m", "--batch", "3,200",
                           "--ms", "1", "--repetitions", "3", "--folder", tmp_path, "--json"],
                          capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
    got = json.loads(done.stdout)
    values = {(row["size"], row["step"]): row["values"] for row in got["rows"]}
    assert {size for size, _ in values} == {1024, 20000, 131072, 2 << 20}
    for row in got["rows"]:
        assert len(row["values"]) == 3 and all(value > 0 for value in row["values"]), row
        assert (row["min"], row["value"], row["max"]) == tuple(sorted(row["values"]))
        # As many as are asked for, but no more than 1 MiB.
        assert (row["batch"], row["write_bytes"]) == {
            1024: (3, 4096), 20000: (52, 1040384), 131072: (8, 1 << 20),
            2 << 20: (1, 1 << 20)}[row["size"]]
    proxy = ("receive", "open", "seal", "send")
    for size in {size for size, _ in values}:
        for i in range(3):
            assert values[size, "proxy"][i] == pytest.approx(
                sum(values[size, step][i] for step in proxy), abs=0.001)
            assert values[size, "queue"][i] == pytest.approx(
                sum(values[size, step][i] for step in (*proxy, "checksum", "store")), abs=0.001)


@pytest.mark.parametrize("options", [("--sizes", "100k"), ("--sizes", "1023"), ("--sizes", "4k,x"),
                                     ("--batch", "0"), ("--folder", "/nowhere/at/all")])
def test_the_floor_refuses_what_it_cannot_do(options):
    done = subprocess.run([BUILD / "bench/floor", "--ms", "1", *options], capture_output=True,
                          text=True, check=False, timeout=60)
    assert done.returncode == (1 if options[0] == "--folder" else 2) and done.stderr


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


def test_the_page_stands_by_itself(pages):
    page, _ = pages
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


def test_the_page_shows_void_missing_and_reached(pages):
    page, table = pages
    assert "1 of 15 runs are void" in page
    assert page.count("VOID: 3 lost &amp; &lt;gone&gt;") == 1
    assert "there is no package &lt;here&gt;" in page
    assert "open-50: exim (repetition 1): the time was spent" in page
    assert "it needs root" in page
    assert "0.7 (0.45 to 0.8, n = 3)" in page
    assert '<span class="no">no</span>' in page and '<span class="yes">yes</span>' in page
    assert "a = b &amp; c &lt;d&gt;" in page
    assert "<here>" not in page and "<gone>" not in page and "<library>" not in page
    queue = next(line for line in table.splitlines() if line.startswith("| Postern-Queue |"))
    assert "310 ±6 %" in queue and "| 0.100 |" in queue
    assert "nginx mail | not measured: there is no package" in table
    assert "1 runs were void" in table


def test_results_without_a_floor_have_their_page(results):
    out = []
    curves.floor(results, {}, out)
    assert "The least of a relay: not shown. This benchmark did not ask for it." in "".join(out)
    results["curves"]["floor"] = {"missing": "no <disk>"}
    curves.floor(results, {}, out)
    assert "no &lt;disk&gt;" in "".join(out)


def test_the_page_shows_the_floor_and_the_ratios(pages):
    page, table = pages
    assert "<td class=\"n\">26.0 (25.0 to 27.0)</td>" in page
    # 200 us of the proxy over 26, 100 of the queue over 50.
    assert '<td class="n">7.69</td>' in page and '<td class="n">2.00</td>' in page
    assert "23.8 at the most" in page and "| 23.8 at the most | yes |" in table
    assert "| 4k-100 | 0.700 | 0.230 | 0.0200 |" in table  # over direct
    assert "| 4k-100 | 50.0 | 40.0 | 23.5 |" in table  # over Postfix


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
    done, results = run_bench(tmp_path, "--subjects", "direct,postern-proxy", "--connections", "2",
                              "--parts", "floor")
    assert done.returncode == 0
    timed = [run for run in results["runs"] if not run.get("counting")]
    assert [run["subject"] for run in timed] == ["direct", "postern-proxy"]
    assert all(run["void"] is None and run["messages"] == 200 and run["sink"]["messages"] == 200
               for run in results["runs"])
    assert timed[1]["cpu"]["subject"] > 0
    assert results["subjects"]["postern-proxy"]["settings"]
    assert results["noise"] and results["environment"]["cores"]
    assert results["summary"]["ratios"]["proxy/direct 4k-100"]["n"] == 1
    assert {row["size"] for row in results["curves"]["floor"]["rows"]} == {4096, 65536, 1 << 20}
    assert results["summary"]["limits"]["proxy/direct 4k-100"]["median"] > 0
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
