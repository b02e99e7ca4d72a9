# SPDX-License-Identifier: Apache-2.0
"""commit_report.py ENVIRONMENT RAW OUT DISK: the tables of bench/commit.sh."""

import json
import statistics
import sys


def by_case(raw):
    """(how, sessions): the runs, in the order of their repetitions."""
    cases = {}
    for run in raw:
        cases.setdefault((run["how"], run["sessions"]), []).append(run)
    return cases


def rate(run):
    return run["load"]["messages_per_second"] if "load" in run else run["per_second"]


def messages(run):
    return (run.get("load") or run)["messages"]


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def figures(runs):
    rates = [rate(run) for run in runs]
    return {"per_second": median(rates), "spread": (max(rates) - min(rates)) / median(rates),
            "flushes_per_message": median(
                run["flushes"] / messages(run) if run["flushes"] is not None else None
                for run in runs),
            "latency_p50_us": median((run.get("load") or run)["latency_p50_us"] for run in runs)}


def ratio(cases, sessions, one, other):
    """Of the repetitions' own ratios: each pair met the same machine."""
    pairs = zip(cases.get((one, sessions), []), cases.get((other, sessions), []))
    return median(rate(a) / rate(b) for a, b in pairs)


def number(value, form):
    return "-" if value is None else format(value, form)


def table(title, cases, first, others):
    sessions = sorted({count for how, count in cases if how == first})
    if not sessions:
        return {}
    summary = {}
    print(f"\n{title}\n")
    print(f"{'sessions':>8} {'way':>9} {'250s/s':>9} {'spread':>7} {'flushes/msg':>11} "
          f"{'p50 ms':>8} {'ratio':>7}")
    for count in sessions:
        for how in [first, *others]:
            if (how, count) not in cases:
                continue
            row = figures(cases[how, count])
            row["ratio"] = 1.0 if how == first else ratio(cases, count, first, how)
            summary[f"{how}/{count}"] = row
            print(f"{count:>8} {how:>9} {row['per_second']:>9.0f} {row['spread']:>6.0%} "
                  f"{number(row['flushes_per_message'], '.4f'):>11} "
                  f"{row['latency_p50_us'] / 1000:>8.2f} {row['ratio']:>6.2f}x")
    return summary


def main():
    environment_path, raw_path, out_path, disk = sys.argv[1:]
    with open(environment_path, encoding="utf-8") as file:
        environment = json.load(file)
    with open(raw_path, encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    cases = by_case(raw)
    print(f"4 KiB messages; {disk}; {environment['cpu']}, {environment['cores']} cores, Linux "
          f"{environment['kernel']}")
    print("ratio: the first way of its group over this one, median of the repetitions' own")
    summary = {
        "engine": table("The spool alone (relaxed: no flush, not safe from a power cut)", cases,
                        "durable", ["append", "files", "relaxed"]),
        "end": table("From end to end: deliver = queue, durability = durable, against Postfix",
                     cases, "queue", ["postfix"])}
    with open(out_path, "w", encoding="utf-8") as file:
        json.dump({"environment": environment, "disk": disk, "summary": summary, "raw": raw}, file)
    print(f"\n{out_path}")


if __name__ == "__main__":
    main()
