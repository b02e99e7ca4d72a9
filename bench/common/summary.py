# SPDX-License-Identifier: Apache-2.0
"""From the runs of a results file to medians, spreads, ratios and targets; measures nothing.

A void run counts for nothing but for being void. Ratios are taken within each repetition and only
then summed up, since whatever else the machine did met both sides of it.
"""

import statistics

import floor
from scenarios import FLUSHING_PEERS, PEERS, STORING_PEERS

# What is summed up of each run: name in the summary, and where it stands in the run.
FIGURES = {
    "end_to_end_per_second": ("end_to_end_per_second",),
    "accepted_per_second": ("accepted_per_second",),
    "mb_per_second": ("mb_per_second",),
    "cpu_per_1000": ("cpu", "subject_per_1000"),
    "cpu_load_per_1000": ("cpu", "load_per_1000"),
    "cpu_sink_per_1000": ("cpu", "sink_per_1000"),
    "rss_kb": ("rss_kb",),
    "pss_kb": ("pss_kb",),
    "syscalls_per_message": ("syscalls_per_message",),
    "p50_us": ("latency_us", "p50"),
    "p90_us": ("latency_us", "p90"),
    "p99_us": ("latency_us", "p99"),
    "p99_9_us": ("latency_us", "p99_9"),
    "handshake_p50_us": ("handshake_us", "p50"),
    "idle_pss_per_session": ("idle", "pss_bytes_per_session"),
    "idle_rss_per_session": ("idle", "rss_bytes_per_session"),
    "idle_sessions": ("idle", "sessions"),
    "rate_without": ("idle", "rate_without"),
    "rate_beside": ("idle", "rate_beside"),
}


def pick(run, path):
    """The figure at this path of a run, or None."""
    for name in path:
        run = run.get(name) if isinstance(run, dict) else None
    return run if isinstance(run, (int, float)) and not isinstance(run, bool) else None


def spread_of(values):
    """Median, lowest, highest and (highest - lowest) / median of what is there; or None."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    median = statistics.median(values)
    return {"median": median, "min": min(values), "max": max(values), "n": len(values),
            "spread": (max(values) - min(values)) / median if median else 0.0}


def good_runs(runs, scenario, subject):
    return [run for run in runs if run["scenario"] == scenario and run["subject"] == subject and
            not run.get("void")]


def medians(runs):
    """{scenario: {subject: {figure: spread}}}; a counting run gives counts and memory alone."""
    result = {}
    pairs = dict.fromkeys((run["scenario"], run["subject"]) for run in runs)
    for scenario, subject in pairs:
        good = good_runs(runs, scenario, subject)
        timed = [run for run in good if not run.get("counting")]
        counting = [run for run in good if run.get("counting")]
        row = {"runs": len(timed), "void": sum(
            1 for run in runs if (run["scenario"], run["subject"]) == (scenario, subject) and
            run.get("void"))}
        for name, path in FIGURES.items():
            chosen = timed
            if name in ("syscalls_per_message", "rss_kb", "pss_kb") and counting:
                chosen = counting
            values = [pick(run, path) for run in chosen]
            if name in ("idle_pss_per_session", "idle_rss_per_session"):
                # A process that has held them once keeps memory, and grows less the next time.
                values = sorted(value for value in values if value is not None)[-1:]
            found = spread_of(values)
            if found is not None:
                row[name] = found
        curve = latency_curve(timed)
        if curve:
            row["latency_curve"] = curve
        result.setdefault(scenario, {})[subject] = row
    return result


def latency_curve(runs):
    """[[percentile, median over the runs in us]...] of those that have one."""
    points = {}
    for run in runs:
        for percentile, value in run.get("latency_curve") or []:
            points.setdefault(percentile, []).append(value)
    return [[percentile, statistics.median(points[percentile])] for percentile in sorted(points)]


def by_repetition(runs, scenario, subject, path):
    """{repetition: figure} of one subject."""
    result = {}
    for run in good_runs(runs, scenario, subject):
        value = pick(run, path)
        if value is not None and not run.get("counting"):
            result[run["repetition"]] = value
    return result


def ratio(runs, scenario, subject, bases, path=("end_to_end_per_second",), best=max):
    """Subject over the best of the bases, within each repetition; None without a common one."""
    mine = by_repetition(runs, scenario, subject, path)
    theirs = best_of(runs, scenario, bases, path, best)
    return spread_of(value / theirs[repetition] for repetition, value in mine.items()
                     if repetition in theirs)


def best_of(runs, scenario, bases, path, best):
    """{repetition: figure} of the best of the bases."""
    result = {}
    for base in bases:
        for repetition, value in by_repetition(runs, scenario, base, path).items():
            if value:
                result[repetition] = best(result.get(repetition, value), value)
    return result


RATIOS = [
    # name, scenario, subject, bases, figure, which of several bases
    *((f"proxy/direct {name}", name, "postern-proxy", ("direct",), "rate", max)
      for name in ("4k-100", "64k-100", "1m-100", "4k-1-full", "4k-1-resumed", "mixed")),
    *((f"proxy/postfix {name}", name, "postern-proxy", ("postfix",), "rate", max)
      for name in ("4k-100", "64k-100", "1m-100")),
    *((f"proxy/nginx {name}", name, "postern-proxy", ("nginx",), "rate", max)
      for name in ("4k-100", "64k-100", "1m-100", "4k-1-full", "4k-1-resumed")),
    # With the same number of connections: what nginx does at a time depends on it.
    ("proxy/nginx cpu sessions-64", "sessions-64", "postern-proxy", ("nginx",), "cpu", max),
    *((f"queue/best {name}", name, "postern-queue", STORING_PEERS, "rate", max)
      for name in ("4k-100", "64k-100", "1m-100")),
    *((f"queue/best cpu {name}", name, "postern-queue", STORING_PEERS, "cpu", min)
      for name in ("4k-100", "64k-100", "1m-100")),
    # At the same durability.
    *((f"queue/flushing {name}", name, "postern-queue", FLUSHING_PEERS, "rate", max)
      for name in ("4k-100", "64k-100", "1m-100")),
    *((f"queue/flushing cpu {name}", name, "postern-queue", FLUSHING_PEERS, "cpu", min)
      for name in ("4k-100", "64k-100", "1m-100")),
]

PATHS = {"rate": ("end_to_end_per_second",), "cpu": ("cpu", "subject_per_1000")}


def ratios(runs):
    result = {}
    for name, scenario, subject, bases, figure, best in RATIOS:
        found = ratio(runs, scenario, subject, bases, PATHS[figure], best)
        if found is not None:
            result[name] = found
    return result


def limits(results, table):
    """{ratio: how far it could be here}: see floor.py."""
    runs, result = results.get("runs", []), {}
    for row in RATIOS:
        name, scenario, _, bases, figure, best = row
        found = floor.limit(results, table, row, list(
            best_of(runs, scenario, bases, PATHS[figure], best).values()))
        if found is not None:
            result[name] = found
    return result


def over(runs, base):
    """{scenario: {subject: its rate over that of the base}}, where a rate is what was asked for."""
    result = {}
    for scenario, subject in dict.fromkeys((run["scenario"], run["subject"]) for run in runs):
        if scenario in ("open-50", "idle") or subject == base:
            continue
        found = ratio(runs, scenario, subject, (base,))
        if found is not None:
            result.setdefault(scenario, {})[subject] = found
    return result


def target(what, wanted, shown, met):
    return {"what": what, "wanted": wanted, "shown": shown,
            "met": None if met is None else bool(met), "limit": None, "beyond": False}


def ratio_target(measured, name, what, bound, at_least=True):
    """One of the ratios; measured are all of them, and how far they could be here."""
    found, most = measured
    row = target(what, f"at least {bound:g}" if at_least else f"at most {bound:.3g}",
                 "not measured in this run", None)
    if name in found:
        got = found[name]
        row["shown"] = f"{got['median']:.3g} ({got['min']:.3g} to {got['max']:.3g}, n = {got['n']})"
        row["met"] = got["median"] >= bound if at_least else got["median"] <= bound
    if name in most:
        row["limit"] = f"{most[name]['median']:.3g} at the {'most' if at_least else 'least'}"
        farthest = most[name]["farthest"]
        row["beyond"] = row["met"] is False and \
            (farthest < bound if at_least else farthest > bound)
    return row


def middle(table, scenario, subject, figure):
    return table.get(scenario, {}).get(subject, {}).get(figure, {}).get("median")


def serial_target(table, subject, peers, title):
    """Below every peer's: of those that were measured, and that is said."""
    mine = middle(table, "serial", subject, "p99_us")
    # One that sent too few messages for a p99 has a p90, which is not above it.
    few = [peer for peer in peers if middle(table, "serial", peer, "p99_us") is None and
           middle(table, "serial", peer, "p90_us") is not None]
    theirs = {peer: middle(table, "serial", peer, "p90_us" if peer in few else "p99_us")
              for peer in peers}
    theirs = {peer: value for peer, value in theirs.items() if value is not None}
    what = f"p99 latency of a serial session, {title}"
    if mine is None or not theirs:
        return target(what, "below every peer's", "not measured in this run", None)
    best = min(theirs, key=theirs.get)
    missing = [peer for peer in peers if peer not in theirs]
    shown = f"{mine / 1000:.2f} ms; the lowest of {len(theirs)} peers: " \
            f"{theirs[best] / 1000:.2f} ms ({best}" + (
                ", p90: fewer than 200 messages" if best in few else "") + ")" + (
                f"; not measured: {', '.join(missing)}" if missing else "")
    return target(what, "below every peer's", shown, mine < theirs[best])


def idle_targets(table):
    row = table.get("idle", {}).get("postern-proxy", {})
    sessions = row.get("idle_sessions", {}).get("median")
    memory = row.get("idle_pss_per_session", {}).get("median")
    beside, without = (row.get(name, {}).get("median") for name in ("rate_beside", "rate_without"))
    count = f"{sessions:.0f}" if sessions else "10000"
    first = target(f"memory of {count} idle sessions, userspace records", "at most 30 KiB each",
                   "not measured in this run", None)
    second = target(f"4 KiB throughput beside {count} idle sessions, over that without",
                    "at least 0.9", "not measured in this run", None)
    if memory is not None:
        first.update(shown=f"{memory / 1024:.1f} KiB each (proportional set size)",
                     met=memory <= 30 * 1024 if sessions >= IDLE_TARGET else None)
    if beside and without:
        second.update(shown=f"{beside / without:.2f} ({beside:.0f} and {without:.0f} messages/s)",
                      met=beside / without >= 0.9 if sessions >= IDLE_TARGET else None)
    return [first, second]


IDLE_TARGET = 10000  # sessions; fewer prove nothing
SIZES = (("4k-100", "4 KiB"), ("64k-100", "64 KiB"), ("1m-100", "1 MiB"))


def kernel_idle_target(curves):
    part = curves.get("idle_kernel") or {}
    sessions, memory = (pick(part, ("tls", name)) for name in
                        ("sessions", "rss_total_bytes_per_session"))
    what = "memory of 10000 idle sessions, kernel records (in the test kernel, resident)"
    if memory is None:
        why = part.get("missing")
        return target(what, "at most 16 KiB each",
                      "not measured in this run" + (f": {why}" if why else ""), None)
    of_all = "" if sessions and sessions >= IDLE_TARGET else f", with {sessions or 0:.0f} sessions"
    return target(what, "at most 16 KiB each", f"{memory / 1024:.1f} KiB each{of_all}",
                  memory <= 16 * 1024 if sessions and sessions >= IDLE_TARGET else None)


def queue_targets(measured):
    """Over all peers that store, as is wanted; and over those alone that flush as it does."""
    rows = []
    for ratio_name, of_whom in (("best", "Postfix, Exim and OpenSMTPD"),
                                ("flushing", "Postfix and Exim, which flush too")):
        rows += [ratio_target(measured, f"queue/{ratio_name} {name}", "Postern queue, durable, "
                              f"over the best of {of_whom}, {size}",
                              5 if name == "1m-100" else 15) for name, size in SIZES]
        rows += [ratio_target(measured, f"queue/{ratio_name} cpu {name}", "CPU time a message, "
                              f"Postern queue, durable, over the least of {of_whom}, {size}",
                              1 / 15, False) for name, size in SIZES]
    return rows


def targets(table, found, curves, most):
    """What was set out to be reached, each with what the runs show; met is None if they do not.

    Where most has what the machine allows, "limit" says it, and "beyond" whether what is wanted,
    and was not reached, lies on its other side.
    """
    measured = found, most
    rows = [ratio_target(measured, f"proxy/direct {name}",
                         f"Postern proxy over the direct path, {size}", 0.5)
            for name, size in SIZES]
    rows.append(ratio_target(measured, "proxy/direct 4k-1-full",
                             "Postern proxy over the direct path, one message a connection, "
                             "full handshakes", 0.9))
    rows.append(ratio_target(measured, "proxy/postfix 4k-100", "Postern proxy over Postfix, 4 KiB",
                             20))
    rows.append(ratio_target(measured, "proxy/nginx cpu sessions-64", "CPU time a message, Postern "
                             "proxy over nginx mail, 4 KiB, 64 connections each", 0.7, False))
    rows += queue_targets(measured)
    rows += idle_targets(table)
    rows.append(kernel_idle_target(curves))
    rows.append(serial_target(table, "postern-proxy", PEERS, "Postern proxy"))
    rows.append(serial_target(table, "postern-queue", STORING_PEERS,
                              "Postern queue, durable, against those that store"))
    return rows


def sessions_curve(runs, table):
    """{subject: [[sessions, spread]...]}, of the runs whose number of sessions differs only."""
    result = {}
    swept = {subject for scenario in table if scenario.startswith("sessions-")
             for subject in table[scenario]}
    for scenario, row in table.items():
        if not scenario.startswith("sessions-") and scenario not in ("4k-100", "serial"):
            continue
        for subject in row:
            timed = [run for run in good_runs(runs, scenario, subject) if not run.get("counting")]
            if timed and subject in swept and "end_to_end_per_second" in row[subject]:
                result.setdefault(subject, {})[timed[0]["connections"]] = \
                    row[subject]["end_to_end_per_second"]
    return {subject: [[count, curve[count]] for count in sorted(curve)]
            for subject, curve in result.items()}


def noise(samples):
    """The calibration loop and the flush probe over the whole run."""
    return {"cpu_loop_ms": spread_of(value for s in samples for value in s.get("cpu_loop_ms", [])),
            "flush_us": spread_of(s.get("flush_us", {}).get("p50") for s in samples),
            "flush_max_us": spread_of(s.get("flush_us", {}).get("max") for s in samples),
            "steal_percent": spread_of(s.get("steal_percent") for s in samples)}


def not_run(results):
    """What was left out, a line for each scenario and reason."""
    groups = {}
    for row in results.get("not_run", []):
        subjects = groups.setdefault((row["scenario"], row["why"]), {})
        subjects.setdefault(row["subject"], []).append(row["repetition"])
    lines = []
    for (scenario, why), subjects in groups.items():
        texts = [name + (f" (repetition {', '.join(map(str, repetitions))})"
                         if any(repetitions) else "") for name, repetitions in subjects.items()]
        lines.append(f"{scenario}: {', '.join(texts)}: {why}")
    return lines


def summarise(results):
    runs = results.get("runs", [])
    table = medians(runs)
    found, most = ratios(runs), limits(results, table)
    return {"medians": table, "ratios": found, "limits": most,
            "targets": targets(table, found, results.get("curves", {}), most),
            "sessions": sessions_curve(runs, table),
            "noise": noise(results.get("noise", [])),
            "void": [{"scenario": run["scenario"], "subject": run["subject"],
                      "repetition": run["repetition"], "why": run["void"]}
                     for run in runs if run.get("void")]}
