# SPDX-License-Identifier: Apache-2.0
"""The page of bench/report: one HTML file, complete in itself, from one results file."""

import html
import json

import plots
from scenarios import STAGES
from summary import SIZES, not_run, summarise
from words import (durability_class, figure_text, missing_of, name_of, ordered, percent, ranged,
                   reached)

CSS = """
:root { color-scheme: light dark; --font: "DejaVu Sans", "Segoe UI", Roboto, Helvetica, sans-serif;
 --paper: #fff; --ink: #1c1c1c; --faint: #666; --lines: #ddd; --soft: #f5f5f2; --link: #0067a5;
 --yes: #00704f; --no: #a83200;
 --c-direct: #6b6b6b; --c-postern-proxy: #0072b2; --c-postern-queue: #c44e00;
 --c-postern-queue-relaxed: #b07d00; --c-postfix: #00805e; --c-exim: #b0508a;
 --c-opensmtpd: #6b4fa0; --c-nginx: #7a5c2e; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181a; --ink: #e6e6e3; --faint: #a0a0a0;
 --lines: #3a3d40; --soft: #212427; --link: #6bb8f0; --yes: #4fd1a5; --no: #ff9166;
 --c-direct: #a8a8a8; --c-postern-proxy: #5bb3f0; --c-postern-queue: #ff8a4c;
 --c-postern-queue-relaxed: #e8b84a; --c-postfix: #3fcf9f; --c-exim: #f09ac8;
 --c-opensmtpd: #b39ae8; --c-nginx: #cfa874; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 74rem; font: 16px/1.5 var(--font);
 color: var(--ink); background: var(--paper); }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem;
 border-bottom: 1px solid var(--lines); } h3 { font-size: 1rem; margin: .8rem 0 .2rem; }
p, ul { max-width: 46rem; }
.note { color: var(--faint); font-size: .875rem; margin: .2rem 0 .6rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr));
 gap: .5rem 2rem; align-items: start; }
figure { margin: 0; min-width: 0; } figure svg { width: 100%; height: auto;
 display: block; } figcaption { font-weight: 600; font-size: .95rem; margin: .8rem 0 .2rem; }
.wide { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .875rem; } th, td { text-align: left;
 padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--lines); vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tr.group th { padding-top: 1rem; color: var(--faint); font-weight: 400; font-style: italic; }
.facts td { overflow-wrap: anywhere; } .facts td:first-child { min-width: 9rem; }
.yes { color: var(--yes); font-weight: 700; } .no { color: var(--no); font-weight: 700; }
.void { color: var(--no); } .missing { color: var(--faint); }
.alarm { border-left: .3rem solid var(--no); padding: .3rem .8rem; background: var(--soft); }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--link); }
pre { overflow-x: auto; background: var(--soft); padding: .7rem; font-size: .8rem;
 line-height: 1.4; }
.who { white-space: nowrap; } .swatch { display: inline-block; width: .8em; height: .8em;
 border-radius: .15em; margin-right: .45em; }
"""

h = html.escape


def cell(text, is_number=False):
    return f'<td{" class=" + chr(34) + "n" + chr(34) if is_number else ""}>{text}</td>'


def table(heads, rows):
    """Heads are (text, is a number); rows of cells that are HTML already."""
    head = "".join(f'<th{" class=" + chr(34) + "n" + chr(34) if n else ""}>{h(text)}</th>'
                   for text, n in heads)
    body = "\n".join("<tr>" + "".join(cell(text, n) for text, (_, n) in zip(row, heads)) + "</tr>"
                     for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>' \
           "</table></div>"


def figure(title, drawn, note=""):
    under = f'<p class="note">{h(note)}</p>' if note else ""
    return f"<figure><figcaption>{h(title)}</figcaption>{drawn}{under}</figure>"


def absent(what, why):
    return f'<p class="missing">{h(what)}: not shown. {h(why)}</p>'


def who(name, label):
    """A subject with its colour, on one line."""
    return f'<span class="who"><span class="swatch" style="background:var(--c-{h(name)})"></span>' \
        f"{h(label)}</span>"


class Page:
    """Collects the parts of one page."""

    def __init__(self, results):
        self.results = results
        self.summary = summarise(results)
        self.subjects = results.get("subjects", {})
        self.medians = self.summary["medians"]
        self.out = []

    def add(self, *texts):
        self.out += texts

    def names(self, scenario, figure_name):
        """Subjects that have this figure there, in their order."""
        there = self.medians.get(scenario, {})
        return [name for name in ordered(self.subjects, there) if figure_name in there[name]]

    def label(self, name):
        return name_of(self.subjects, name)

    def bars(self, scenario, figure_name, axis, title, scale=1.0, skip=()):
        rows = []
        for name in self.names(scenario, figure_name):
            spread = self.medians[scenario][name][figure_name]
            if name not in skip and spread["max"] > 0:
                rows.append((durability_class(self.subjects.get(name, {})), name, self.label(name),
                             {key: spread[key] * scale for key in ("median", "min", "max")}))
        if not rows:
            return absent(title, missing_of(self.results, scenario))
        rows.sort(key=lambda row: ("answers", "durable", "relaxed").index(row[0].split()[0])
                  if row[0].split()[0] in ("answers", "durable", "relaxed") else 3)
        return figure(title, plots.bars(rows, axis, h(title)))

    def compared(self):
        rows = []
        for name in ordered(self.subjects, self.subjects):
            about = self.subjects[name]
            if about.get("missing"):
                rows.append([who(name, self.label(name)),
                             f'<span class="missing">not measured: {h(about["missing"])}</span>',
                             "", "", "", ""])
            else:
                rows.append([who(name, self.label(name)), h(about.get("durability", "")),
                             *(h(str(about.get(key) or "-")) for key in
                               ("inbound", "outbound", "record", "version"))])
        self.add("<h2>What was compared, and at what durability</h2>",
                 "<p>Each subject takes mail from the same client and hands it to the same next "
                 "hop. They differ in what their “250” promises, so compare first those of one "
                 "kind: a relay that answers with the next hop’s word keeps nothing itself; a "
                 "durable one has flushed the message to the disk before it answers, as RFC 5321 "
                 "asks of one that takes mail over; a relaxed one has it in memory that a power "
                 "cut empties.</p>",
                 table([("subject", False), ("what its 250 means", False),
                        ("from the client", False), ("to the next hop", False),
                        ("TLS records", False), ("version", False)], rows))

    def machine(self):
        there, settings = self.results.get("environment", {}), self.results.get("settings", {})
        noise = self.summary["noise"]
        rows = [["time", h(there.get("time", "?"))],
                ["processor", h(f"{there.get('cpu', '?')}, {there.get('cores', '?')} cores, "
                                f"{there.get('memory_kb', 0) / 2**20:.1f} GiB; virtual: "
                                f"{there.get('virtual', '?')}")],
                ["kernel, system", h(f"{there.get('kernel', '?')}, {there.get('system', '?')}")],
                ["disk of the queues", h(there.get("disk", "?"))],
                ["Postern", h("; ".join(there.get("postern", [])[:2]) +
                              f"; revision {there.get('revision', '?')}")],
                ["packages", h(", ".join(f"{name} {version}" for name, version in
                                         there.get("packages", {}).items()))],
                ["settings", h(f"{settings.get('repetitions')} repetitions, runs of "
                               f"{settings.get('seconds_of_a_run')} s, {settings.get('workers')} "
                               f"workers of Postern, ktls={settings.get('ktls')}; connections: "
                               f"{settings.get('connections')}; "
                               f"{settings.get('measured_seconds', 0) / 60:.1f} minutes in all")]]
        for key, title, unit in (("cpu_loop_ms", "noise: a fixed loop", "ms"),
                                 ("flush_us", "noise: write and flush of 4 KiB, median", "us"),
                                 ("flush_max_us", "noise: the longest such flush", "us"),
                                 ("steal_percent", "noise: time stolen by other guests", "%")):
            if noise.get(key):
                rows.append([title, h(f"{ranged(noise[key])} {unit}" + (
                    f", spread {percent(noise[key]['spread'])}" if key == "cpu_loop_ms" else ""))])
        self.add("<h2>The machine, and how noisy it was</h2>",
                 table([("", False), ("", False)], rows).replace("wide", "facts", 1),
                 '<p class="note">Client, subject and next hop share the cores. The loop and the '
                 "flush are measured before, between and after the repetitions by a program that "
                 "does nothing else then; their spread is that of the machine, and no difference "
                 "between subjects that is smaller means anything.</p>")

    def throughput(self):
        self.add("<h2>Throughput and processor time, by size of message</h2>",
                 "<p>100 messages a connection, mutual TLS on both legs where the subject can. "
                 "Messages count when the next hop has them: from the first one’s intended start "
                 "to the newest one’s arrival, so a queue that accepts faster than it delivers "
                 "gains nothing here. Bars are medians, whiskers the lowest and highest "
                 "repetition.</p>", '<div class="plots">')
        for scenario, size in SIZES:
            self.add(self.bars(scenario, "end_to_end_per_second", "messages a second, end to end",
                               f"{size}: throughput"),
                     self.bars(scenario, "cpu_per_1000",
                               "CPU seconds of the subject for 1000 messages",
                               f"{size}: processor time", skip=("direct",)))
        self.add("</div>", self.size_table())
        self.add('<h3>One message a connection, and mixed sizes</h3><div class="plots">')
        for scenario, title in (("4k-1-full", "4 KiB, one message a connection, full handshakes"),
                                ("4k-1-resumed", "4 KiB, one message a connection, resumed"),
                                ("mixed", "Mixed sizes")):
            self.add(self.bars(scenario, "end_to_end_per_second", "messages a second, end to end",
                               title))
        self.add("</div>")

    def size_table(self):
        heads = [("size", False), ("subject", False), ("connections", True), ("messages/s", True),
                 ("MB/s", True), ("p50 ms", True), ("p99 ms", True), ("CPU s/1000", True),
                 ("load, sink", True), ("PSS MiB", True),
                 ("calls/message", True)]
        rows = []
        for scenario, size in SIZES:
            for name in self.names(scenario, "end_to_end_per_second"):
                row = dict(self.medians[scenario][name])
                if name == "direct":  # nothing is there that could cost
                    row.pop("cpu_per_1000", None)
                    row.pop("pss_kb", None)
                used = next((run.get("connections") for run in self.results["runs"]
                             if (run["scenario"], run["subject"]) == (scenario, name)), "")
                rows.append([size, who(name, self.label(name)), used or "", *(
                    figure_text(row.get(key), scale, spread) for key, scale, spread in (
                        ("end_to_end_per_second", 1, True), ("mb_per_second", 1, False),
                        ("p50_us", 1e-3, False), ("p99_us", 1e-3, False),
                        ("cpu_per_1000", 1, True))),
                    figure_text(row.get("cpu_load_per_1000"), 1, False) + ", " +
                    figure_text(row.get("cpu_sink_per_1000"), 1, False),
                    figure_text(row.get("pss_kb"), 1 / 1024, False),
                    figure_text(row.get("syscalls_per_message"), 1, False)])
        return table(heads, rows) + '<p class="note">± is (highest − lowest) / median of ' \
            "the repetitions. CPU s/1000 are seconds for 1000 messages of the subject, then of " \
            "load and sink. System calls and memory are from a short run of their own, since " \
            "counting slows.</p>" if rows else ""

    def latency(self):
        self.add("<h2>Latency</h2>",
                 "<p>From the moment that a message was meant to be sent to the answer that takes "
                 "it over. What an answer promises differs: see the first table.</p>",
                 '<div class="plots">')
        for scenario, title, note in (
                ("serial", "One session, one message at a time", "Nobody else is there: what one "
                 "message waits for, the flush of the disk included where there is one."),
                ("open-50", "Open loop at half of each subject’s own rate", "Each is asked for "
                 "half of what it can do, so the rates differ; see the table of all runs.")):
            series = [(name, self.label(name), self.medians[scenario][name]["latency_curve"])
                      for name in self.names(scenario, "latency_curve")] or self.rough(scenario)
            self.add(figure(title, plots.percentiles(series, h(title)), note) if series else
                     absent(title, missing_of(self.results, scenario)))
        self.add("</div>")
        rows = [[who(name, self.label(name)), *(
            figure_text(self.medians["serial"][name].get(key), 1e-3, key == "p99_us")
            for key in ("p50_us", "p90_us", "p99_us", "p99_9_us"))]
            for name in self.names("serial", "p99_us")]
        if rows:
            self.add("<h3>One session, one message at a time, ms</h3>",
                     table([("subject", False), ("p50", True), ("p90", True), ("p99", True),
                            ("p99.9", True)], rows))

    def rough(self, scenario):
        """A curve of the few percentiles that there are, where no histogram was kept."""
        series = []
        for name in self.names(scenario, "p50_us"):
            row = self.medians[scenario][name]
            series.append((name, self.label(name), [
                [value, row[key]["median"]] for value, key in
                ((50, "p50_us"), (90, "p90_us"), (99, "p99_us"), (99.9, "p99_9_us"))
                if key in row]))
        return series

    def sessions(self):
        self.add("<h2>Sessions: many, slow and silent ones</h2>", '<div class="plots">')
        curve = self.summary["sessions"]
        series = [(name, self.label(name), [
            (count, spread["median"], spread["min"], spread["max"])
            for count, spread in curve[name]])
            for name in ordered(self.subjects, curve) if len(curve[name]) > 1]
        if series:
            counts = sorted({point[0] for _, _, points in series for point in points})
            ticks = [(c, str(c)) for i, c in enumerate(counts)
                     if i == 0 or c / counts[i - 1] > 1.4]
            self.add(figure("4 KiB, by the number of sessions at a time", plots.lines(
                series, "sessions that send at the same time", "messages a second, end to end",
                "throughput by sessions", log_x=True, x_ticks=ticks)))
        else:
            self.add(absent("Scaling with sessions", missing_of(self.results, "sessions-64")))
        delay = STAGES["slow"]["delay_ms"]
        title = f"A next hop that answers after {delay} ms, 64 sessions: "
        self.add(self.bars("slow-next-hop", "accepted_per_second", "messages a second, taken over",
                           title + "taken over from the client"),
                 self.bars("slow-next-hop", "p50_us", "ms that a client waits, median",
                           title + "what the client waits", scale=1e-3),
                 self.bars("idle", "idle_pss_per_session", "KiB a session, proportional set size",
                           "Memory of an idle session after TLS and EHLO", scale=1 / 1024),
                 "</div>")
        rows = []
        for name in self.names("idle", "idle_pss_per_session"):
            row = self.medians["idle"][name]
            rows.append([who(name, self.label(name)), *(
                figure_text(row.get(key), scale, False) for key, scale in (
                    ("idle_sessions", 1), ("idle_pss_per_session", 1 / 1024),
                    ("idle_rss_per_session", 1 / 1024), ("rate_without", 1), ("rate_beside", 1))),
                f"{row['rate_beside']['median'] / row['rate_without']['median']:.2f}"])
        if rows:
            self.add("<h3>Idle sessions beside load of 4 KiB</h3>",
                     table([("subject", False), ("idle sessions", True), ("PSS KiB each", True),
                            ("RSS KiB each", True), ("messages/s without", True),
                            ("beside them", True), ("ratio", True)], rows))

    def targets(self):
        rows = []
        for row in self.summary["targets"]:
            answer = reached(row)
            kind = {True: "yes", False: "no", None: "missing"}[row["met"]]
            rows.append([h(row["what"]), h(row["wanted"]), h(row["shown"]), h(row["limit"] or "-"),
                         f'<span class="{kind}">{h(answer)}</span>'])
        self.add("<h2>What we set out to reach, and what this run shows</h2>",
                 "<p>What is wanted was set before. Ratios are taken within each repetition; the "
                 "median counts, its range stands beside it.</p>",
                 table([("", False), ("wanted", False), ("this run", False),
                        ("no relay here could pass", False), ("reached", False)], rows))
        if self.summary["limits"]:
            self.add('<p class="note">What no relay here could pass: a rate is at the most '
                     "<i>cores / (processor time that load and sink spend on a message + the least "
                     "of a relay)</i>, over the same rate as this run’s ratio, where load and sink "
                     "each count as on the direct path or beside the subject, whichever is less; "
                     "processor time is at the least <i>the least of a relay / processor time of "
                     "the same peer</i>. Shown is that of the median; beyond the limit is what "
                     "would be so with the lowest repetition, too. A row that is not reached, "
                     "though no limit is in the way, is our own shortfall.</p>")

    def rows(self):
        heads = [("scenario", False), ("subject", False), ("rep.", True), ("durability", False),
                 ("records", False), ("TLS", False), ("connections", True), ("messages", True),
                 ("seconds", True), ("end to end/s", True), ("accepted/s", True), ("p50 ms", True),
                 ("p99 ms", True), ("CPU s/1000", True), ("load", True), ("sink", True),
                 ("RSS MiB", True), ("PSS MiB", True), ("calls/msg", True), ("void", False)]
        rows = []
        for run in self.results.get("runs", []):
            latency, cpu, load = (run.get(name) or {} for name in ("latency_us", "cpu", "load"))
            what = "counting" if run.get("counting") else run["repetition"]
            rows.append([h(run["scenario"]), h(run["subject"]), what,
                         h(run.get("durability") or ""), h(run.get("record") or ""),
                         h(f"{load.get('tls', '')} {load.get('cipher', '')} "
                           f"{load.get('group', '')}"),
                         run.get("connections", ""), run.get("messages", ""),
                         *(figure_text(value, scale, False) for value, scale in (
                             (run.get("seconds"), 1), (run.get("end_to_end_per_second"), 1),
                             (run.get("accepted_per_second"), 1), (latency.get("p50"), 1e-3),
                             (latency.get("p99"), 1e-3), (cpu.get("subject_per_1000"), 1),
                             (cpu.get("load_per_1000"), 1), (cpu.get("sink_per_1000"), 1),
                             (run.get("rss_kb"), 1 / 1024), (run.get("pss_kb"), 1 / 1024),
                             (run.get("syscalls_per_message"), 1))),
                         f'<span class="void">VOID: {h(run["void"])}</span>'
                         if run.get("void") else ""])
        self.add("<h2>Every run</h2>",
                 f"<details><summary>{len(rows)} runs, one line each</summary>",
                 table(heads, rows), "</details>")
        missing = not_run(self.results)
        if missing:
            self.add("<p>Not run:</p><ul>", *(f"<li>{h(line)}</li>" for line in missing), "</ul>")

    def settings(self):
        self.add("<h2>How each was set up</h2>")
        for name in ordered(self.subjects, self.subjects):
            about = self.subjects[name]
            if about.get("missing"):
                continue
            files = "".join(f"<h3>{h(file)}</h3><pre>{h(text)}</pre>"
                            for file, text in (about.get("settings") or {}).items())
            self.add(f"<details><summary>{h(self.label(name))}</summary>"
                     f"<p>{h(about.get('notes') or '')}</p>{files}</details>")
        scenarios = [[h(row["name"]), h(row["title"]), h(row["what"]), h(json.dumps(
            {key: value for key, value in row.get("options", {}).items() if value}))]
            for row in self.results.get("scenarios", [])]
        self.add("<details><summary>The scenarios</summary>",
                 table([("name", False), ("title", False), ("what it asks", False),
                        ("options", False)], scenarios), "</details>")

    def alarm(self):
        void = self.summary["void"]
        if void:
            self.add('<div class="alarm"><p><strong class="void">'
                     f"{len(void)} of {len(self.results['runs'])} runs are void.</strong> They "
                     "count for nothing below.</p><ul>", *(
                         f"<li>{h(row['scenario'])}, {h(row['subject'])}, repetition "
                         f"{row['repetition']}: {h(row['why'])}</li>" for row in void),
                     "</ul></div>")

    def text(self):
        title = "Postern: what a relay costs, measured"
        return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
                '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
                f"<title>{title}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
                + "\n".join(self.out) + "\n</body>\n</html>\n")
