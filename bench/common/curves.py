# SPDX-License-Identifier: Apache-2.0
"""The parts of bench/report's page that are no runs: floor, commit, door, records, handshake."""

import floor as least
import plots
from page import absent, figure, h, table, who
from summary import SIZES, spread_of
from words import figure_text, name_of, ordered, ranged

# Not subjects, so colours of those whom they resemble least misleadingly.
WAYS = {
    "durable": ("postern-queue", "spool, durable"),
    "relaxed": ("postern-queue-relaxed", "spool, relaxed (no flush)"),
    "append": ("exim", "append, a flush each"),
    "files": ("postfix", "a file and a flush each"),
}


def rows_of(results, name, out, title):
    """The rows of a part; where it is missing the page says so and why."""
    part = results.get("curves", {}).get(name) or {"missing": "This benchmark did not ask for it."}
    if part.get("rows"):
        return part["rows"]
    out.append(absent(title, part.get("missing", "it had no rows")))
    return []


def floor(results, medians, out):
    """What no relay here can go below, step by step, and what each spent beside it."""
    out.append("<h2>The least that a relay here must spend on a message</h2>")
    rows_of(results, "floor", out, "The least of a relay")
    found = least.figures(results.get("curves", {}))
    if not found:
        return
    sizes = sorted(found)
    heads = [("microseconds of the relay’s thread", False),
             *((size_text(size), True) for size in sizes)]
    rows = []
    for names, form in ((least.STEPS, "<b>{}</b>"), (least.BESIDE, "<i>{}</i>")):
        for step, what in names.items():
            label = form.format(h(what)) if names is least.BESIDE or step in least.SUMS else h(what)
            rows.append([label, *(ranged(found[size][step]) if step in found[size] else "-"
                                  for size in sizes)])
    part = results["curves"]["floor"]
    shared = ", ".join(f"{found[size]['store']['batch']} of {size_text(size)}" for size in sizes
                       if "store" in found[size])
    out.append(
        "<p>Measured beside the runs by a program that only moves bytes: no SMTP, no look at the "
        "text, no copy but the kernel’s, and nothing that waits or wakes anybody. Records are in "
        f"userspace, {h(str(part.get('cipher')))}, {h(str(part.get('library')))}. So no relay with "
        "these libraries and this kernel can spend less, and a real one spends more: it has a "
        "protocol to speak.</p>" + table(heads, rows) +
        '<p class="note">Median, lowest and highest of the repetitions; sums are taken within '
        "each. "
        f"A write of the spool is shared as in this run: {h(shared)}. What stands in italics is in "
        "no sum.</p>")
    spent(results, medians, found, out)


def size_text(size):
    return f"{size // 1048576} MiB" if size % 1048576 == 0 else f"{size / 1024:g} KiB"


def spent(results, medians, found, out):
    """What each subject spent, as a multiple of that least."""
    subjects, rows = results.get("subjects", {}), []
    for scenario, size in SIZES:
        there = medians.get(scenario, {})
        for name in ordered(subjects, there):
            floor_us = least.least_us(found, scenario, name)
            cpu = there[name].get("cpu_per_1000")
            if name != "direct" and floor_us and cpu:
                rows.append([size, who(name, name_of(subjects, name)),
                             "proxy" if name in least.PROXIES else "queue",
                             figure_text(floor_us["median"]),
                             figure_text(cpu, 1000),
                             figure_text(cpu["median"] * 1000 / floor_us["median"])])
    if rows:
        out.append("<h3>What each spent on a message, as a multiple of the least</h3>" + table(
            [("size", False), ("subject", False), ("kind", False), ("the least, µs", True),
             ("spent, µs", True), ("times", True)], rows) +
            '<p class="note">100 messages a connection, all processes of the subject. nginx '
            "encrypts one leg only, so it could go below. OpenSMTPD does not flush.</p>")


def commit(results, out):
    out.append("<h2>Group commit: what a durable answer costs</h2>")
    title = "The spool against one flush for each message"
    rows = rows_of(results, "commit", out, title)
    if not rows:
        return
    series, table_rows = [], []
    for how, (hue, label) in WAYS.items():
        points = []
        for count in sorted({row["sessions"] for row in rows}):
            spread = spread_of(row["per_second"] for row in rows
                               if (row["how"], row["sessions"]) == (how, count))
            p50 = spread_of(row.get("latency_p50_us") for row in rows
                            if (row["how"], row["sessions"]) == (how, count))
            if spread:
                points.append((count, spread["median"], spread["min"], spread["max"]))
                table_rows.append([h(label), count, figure_text(spread),
                                   figure_text(p50, 1e-3, False)])
        if points:
            series.append((hue, label, points))
    counts = sorted({row["sessions"] for row in rows})
    out.append("<p>4 KiB messages on stable storage, without any SMTP: Postern’s spool, in which "
               "one write and one flush cover whatever has come meanwhile, against what is "
               "usual.</p>")
    out.append('<div class="plots">' + figure(title, plots.lines(
        series, "sessions, each with one message under way", "messages a second on the disk",
        "messages on stable storage by sessions", log_x=True,
        x_ticks=[(count, str(count)) for count in counts])) + table(
            [("way", False), ("sessions", True), ("messages/s", True), ("p50 ms", True)],
            table_rows) + "</div>")


def door(results, out):
    out.append("<h2>The door: who may connect</h2>")
    rows = rows_of(results, "door", out, "Looking up an address, and refusing it")
    tries = [row for row in rows if row.get("part") == "trie"]
    series = []
    for family in ("IPv4", "IPv6"):
        for key, who, hue in (("kernel_lookup_ns", "kernel", "postern-proxy" if family == "IPv4"
                               else "nginx"),
                              ("user_lookup_ns", "relay", "postern-queue" if family == "IPv4"
                               else "exim")):
            points = sorted((row["prefixes"], row[key], row[key], row[key]) for row in tries
                            if row["family"] == family)
            if points:
                series.append((hue, f"{who}, {family}", points))
    parts = []
    if series:
        counts = sorted({row["prefixes"] for row in tries})
        parts.append(figure("Looking one address up", plots.lines(
            series, "prefixes in the list", "nanoseconds", "nanoseconds of a look-up by prefixes",
            log_x=True, x_ticks=[(count, f"{count:,}") for count in counts]),
            "A random address each time, so mostly cache misses in long lists."))
    refused = [row for row in rows if row.get("part") == "refuse"]
    refusals = []
    for by, label, hue in (("kernel", "by the kernel’s program", "postern-proxy"),
                           ("relay", "accepted and closed", "postern-queue")):
        spread = spread_of(row["per_second"] for row in refused if row["by"] == by)
        if spread:
            refusals.append(("", hue, label, spread))
    if refusals:
        parts.append(figure("Refusing one client that knocks as fast as it can", plots.bars(
            refusals, "connections refused a second", "connections refused a second")))
    if parts:
        out.append('<div class="plots">' + "".join(parts) + "</div>")
    changes = [[h(row["by"]), f"{row['prefixes']:,}", figure_text(row["effect_us"]["p50"]),
                figure_text(row["effect_us"]["p99"]), figure_text(row["answer_us"]["p50"])]
               for row in rows if row.get("part") == "change"]
    if changes:
        out.append("<h3>Changing one prefix, microseconds</h3>" + table(
            [("by", False), ("list", True), ("in force, p50", True), ("p99", True),
             ("answer, p50", True)], changes))


LEGS = (("Receiving leg", "receive", "send"), ("Sending leg", "send", "receive"))
KTLS = {"tx": "sending by the kernel", "rx": "receiving by the kernel",
        "on": "both by the kernel", "auto": "auto: what Postern chooses"}


def records(results, out):
    out.append("<h2>Records by the kernel or in userspace</h2>")
    rows = [row for row in rows_of(results, "icount", out, "Kernel TLS against userspace records")
            if row.get("kind") == "bulk" and row.get("ratio")]
    if not rows:
        return
    part = results["curves"]["icount"]
    out.append("<p>Instructions of the relay for a message, counted by QEMU on "
               f"{h(str(part.get('kernel')))}, {h(str(part.get('suite')))}, without the handshake, "
               "over those with records in userspace on both legs. Below 1 the kernel’s way takes "
               "fewer. Counts know nothing of caches.</p>")
    drawn = []
    for title, leg, other in LEGS:
        picked = []
        for size in sorted({row["size"] for row in rows}):
            for word, label in KTLS.items():
                found = [row for row in rows if row[leg] == word and row[other] == "off" and
                         row["size"] == size]
                if found:
                    value = found[0]["ratio"]
                    picked.append((f"messages of {size // 1024} KiB",
                                   "postern-proxy" if size < 65536 else "postern-queue", label,
                                   {"median": value, "min": value, "max": value}))
        if picked:
            drawn.append(figure(title, plots.bars(
                picked, "instructions, userspace records = 1", h(title), lambda v: f"{v:.3f}")))
    out.append('<div class="plots">' + "".join(drawn) + "</div>")
    cells = [[h(f"{row['receive']} : {row['send']}"), f"{row['size'] // 1024} KiB",
              figure_text(row["value"]), figure_text(row.get("per_mib")), f"{row['ratio']:.3f}",
              h(f"{row.get('record_in')} / {row.get('record_out')}")] for row in rows]
    out.append("<details><summary>All counts</summary>" + table(
        [("ktls in : out", False), ("size", True), ("instructions a message", True),
         ("for each MiB", True), ("ratio", True), ("records in / out", False)],
        cells) + "</details>")


def handshake(results, out):
    out.append("<h2>The handshake</h2>")
    rows = rows_of(results, "handshake", out, "Handshake profile")
    timed = [row for row in rows if row.get("unit") == "us"]
    drawn = []
    for version in dict.fromkeys(row.get("version") for row in timed):
        bars = []
        for row in timed:
            if row.get("version") == version:
                half = row["value"] * row.get("spread", 0) / 2
                bars.append((f"{row.get('kind')} handshake", "postern-proxy"
                             if row.get("code") == "relay" else "direct",
                             f"{row.get('side')}, " + (
                                 "Postern" if row.get("code") == "relay" else "stock OpenSSL"),
                             {"median": row["value"], "min": row["value"] - half,
                              "max": row["value"] + half}))
        title = f"TLS {version}: processor time of one side"
        bars.sort(key=lambda bar: (bar[0], bar[2]))
        drawn.append(figure(title, plots.bars(bars, "microseconds a handshake", h(title))))
    if drawn:
        out.append("<p>Mutual, ECDSA P-256 certificates, in memory without a network.</p>"
                   '<div class="plots">' + "".join(drawn) + "</div>")
    shares = [row for row in rows if row.get("shares")]
    if shares:
        names = sorted({name for row in shares for name in row["shares"]},
                       key=lambda name: -sum(row["shares"].get(name, 0) for row in shares))
        out.append("<h3>What its instructions are spent on, percent</h3>" + table(
            [("", False), ("instructions", True), *((name, True) for name in names)],
            [[h(row["name"]), figure_text(row["value"]),
              *(f"{100 * row['shares'].get(name, 0):.1f}" for name in names)] for row in shares]))


def parser(results, out):
    out.append("<h2>Parsers</h2>")
    rows = rows_of(results, "parser", out, "Parsers")
    if rows:
        out.append("<details><summary>What reading costs</summary>" + table(
            [("", False), ("", True), ("unit", False), ("spread", True)],
            [[h(row["name"]), figure_text(row["value"]), h(row["unit"]),
              f"{100 * row.get('spread', 0):.0f} %"] for row in rows]) + "</details>")


READING = """
<h2>How to read it, and what not to conclude</h2>
<ul>
<li><strong>Compare what promises the same.</strong> A proxy’s 250 is the next hop’s own; a queue’s
is its own promise. That a proxy is faster than a durable queue says nothing about either.</li>
<li><strong>Ratios travel better than rates.</strong> Client, subject and next hop share the cores
of one machine here, and the network is loopback. On a machine of its own each subject is faster;
processor time for 1000 messages says more about what it takes there than messages a second do.</li>
<li><strong>End to end</strong> is from the first message’s intended start to the newest one’s
arrival at the next hop. A queue whose mail had not all arrived, or arrived twice or spoiled, makes
a run void.</li>
<li><strong>Whiskers and ± are the whole range</strong> of the repetitions, not an error of the
mean. Where two ranges overlap, call it a draw.</li>
<li><strong>Latency of a queue is that of the disk’s flush.</strong> On a disk with a write cache
that survives a power cut it is many times shorter, for all of those that flush.</li>
<li><strong>nginx’s mail proxy</strong> cannot encrypt towards the next hop, so it does half of the
cipher’s work; Postfix, Exim and OpenSMTPD do much more than relay, and are asked here for relaying
only.</li>
<li><strong>The direct path</strong> is no relay at all: it is the most that this client, this next
hop and this machine can do.</li>
<li><strong>Do not conclude</strong> how any of these does with content filters, local delivery,
many domains, slow clients across the world, or a queue of a million messages; none of that is
measured here.</li>
</ul>
"""
