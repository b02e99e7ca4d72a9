#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""report.py: from the raw figures of bench/run.sh, bench/idle.sh and bench/door.sh to tables.

report.py counters PID LOG             counters of a running relay, as one line of JSON
report.py run ENVIRONMENT RAW OUT      the table of bench/run.sh; writes all of it to OUT
report.py idle NAME FILE               the lines of bench/idle.sh
report.py door ENVIRONMENT RAW OUT     the tables of bench/door.sh; writes all of it to OUT
"""

import glob
import json
import os
import statistics
import sys

TICKS = os.sysconf("SC_CLK_TCK")


def counters(pid, log):
    """/proc of the process, summed over its threads, and its newest "stats" event."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    result = {"user_seconds": int(fields[11]) / TICKS, "system_seconds": int(fields[12]) / TICKS,
              "voluntary_switches": 0, "involuntary_switches": 0}
    for path in glob.glob(f"/proc/{pid}/task/*/status"):
        with open(path, encoding="ascii") as file:
            for line in file:
                if line.startswith("voluntary_ctxt_switches"):
                    result["voluntary_switches"] += int(line.split()[1])
                elif line.startswith("nonvoluntary_ctxt_switches"):
                    result["involuntary_switches"] += int(line.split()[1])
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(("VmRSS:", "VmHWM:")):
                result[line[2:5].lower() + "_kb"] = int(line.split()[1])
    with open(log, encoding="ascii", errors="replace") as file:
        newest = [line for line in file if " event=stats" in line][-1]
    pairs = (word.split("=", 1) for word in newest.split()[2:] if "=" in word)
    result["stats"] = {name: int(value) for name, value in pairs if value.isdigit()}
    return result


def rise(pair, *path):
    """How much a counter grew between two snapshots; one that is missing is 0."""
    before, after = pair
    for name in path[:-1]:
        before, after = before.get(name, {}), after.get(name, {})
    return after.get(path[-1], 0) - before.get(path[-1], 0)


def relay_costs(record):
    """What the relay spent in one run, for each message."""
    pair, messages = record["relay"], max(record["load"]["messages"], 1)
    size = record["load"]["size"]
    costs = {
        "user_cpu_us": rise(pair, "user_seconds") * 1e6 / messages,
        "system_cpu_us": rise(pair, "system_seconds") * 1e6 / messages,
        "switches": (rise(pair, "voluntary_switches") +
                     rise(pair, "involuntary_switches")) / messages,
        "copied_per_byte": rise(pair, "stats", "copied_bytes") / messages / size,
        "rss_kb": pair[1].get("rss_kb", 0),
    }
    for name in ("ring_enters", "other_syscalls", "recv_calls", "send_calls", "buffers_starved"):
        costs[name] = rise(pair, "stats", name) / messages
    costs["syscalls"] = costs["ring_enters"] + costs["other_syscalls"]
    return costs


def record_cpu(record):
    """CPU time of load and sink for each message, in microseconds."""
    load = record["load"]["cpu_user_seconds"] + record["load"]["cpu_system_seconds"]
    sink = rise(record["sink"], "cpu_user_seconds") + rise(record["sink"], "cpu_system_seconds")
    return (load + sink) * 1e6 / max(record["load"]["messages"], 1)


def way_summary(records):
    """Medians over the repetitions of one case and way."""
    rates = [record["load"]["messages_per_second"] for record in records]
    median = statistics.median(rates)
    result = {
        "messages_per_second": median,
        "mb_per_second": statistics.median(r["load"]["mb_per_second"] for r in records),
        "spread": (max(rates) - min(rates)) / median if median else 0,
        "failed": sum(r["load"]["failed"] + r["load"]["connect_failed"] for r in records),
        "connections": records[0]["load"]["connections"],
        "tls": records[0]["load"]["tls"], "cipher": records[0]["load"]["cipher"],
    }
    for name in ("latency_p50_us", "latency_p90_us", "latency_p99_us"):
        result[name] = statistics.median(r["load"][name] for r in records)
    result["cpu_us"] = statistics.median(record_cpu(r) for r in records)
    # What the load generator thinks was accepted must be what arrived.
    result["miscounted"] = sum(
        abs(rise(r["sink"], "messages") - r["load"]["messages"]) for r in records)
    return result


def summarise(raw):
    cases = {}
    for name in dict.fromkeys(record["case"] for record in raw):
        direct = [r for r in raw if r["case"] == name and r["way"] == "direct"]
        relay = [r for r in raw if r["case"] == name and r["way"] == "relay"]
        ratios = [b["load"]["messages_per_second"] / max(a["load"]["messages_per_second"], 1e-9)
                  for a, b in zip(direct, relay)]
        costs = [relay_costs(record) for record in relay]
        # All CPU time of the way with Postern over that of the way without. Where the cores
        # are the limit this is what throughput pays, and other guests disturb it little.
        cpu = [(record_cpu(b) + c["user_cpu_us"] + c["system_cpu_us"]) / max(record_cpu(a), 1e-9)
               for a, b, c in zip(direct, relay, costs)]
        cases[name] = {
            "direct": way_summary(direct), "relay": way_summary(relay),
            "cpu_ratio": statistics.median(cpu),
            "ratio": statistics.median(ratios), "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "costs": {key: statistics.median(c[key] for c in costs) for key in costs[0]},
        }
    return cases


def print_rates(cases):
    print(f"{'':10} {'client -> sink':>31}   {'client -> Postern -> sink':>31}   ratio (range)     CPU")
    print(f"{'':10} {'msg/s':>8} {'spread':>6} {'MB/s':>7} {'p99 ms':>7} "
          f"  {'msg/s':>8} {'spread':>6} {'MB/s':>7} {'p99 ms':>7}")
    for name, case in cases.items():
        line = f"{name:10}"
        for way in (case["direct"], case["relay"]):
            line += (f" {way['messages_per_second']:8.0f} {way['spread'] * 100:5.0f}%"
                     f" {way['mb_per_second']:7.1f} {way['latency_p99_us'] / 1000:7.2f}  ")
        print(line + f" {case['ratio']:.2f} ({case['ratio_min']:.2f}-{case['ratio_max']:.2f})"
              f"  x{case['cpu_ratio']:.1f}")


def print_costs(cases):
    print("\nPostern, for each message:")
    print(f"{'':10} {'CPU us':>7} {'user':>7} {'system':>7} {'switches':>8} {'syscalls':>8} "
          f"{'enters':>7} {'recv':>7} {'send':>7} {'copies':>6} {'RSS MiB':>7}  client+sink alone")
    for name, case in cases.items():
        cost, direct = case["costs"], case["direct"]
        print(f"{name:10} {cost['user_cpu_us'] + cost['system_cpu_us']:7.0f} "
              f"{cost['user_cpu_us']:7.0f} {cost['system_cpu_us']:7.0f} "
              f"{cost['switches']:8.2f} {cost['syscalls']:8.2f} {cost['ring_enters']:7.2f} "
              f"{cost['recv_calls']:7.2f} {cost['send_calls']:7.2f} "
              f"{cost['copied_per_byte']:6.2f} {cost['rss_kb'] / 1024:7.1f}  "
              f"{direct['cpu_us']:.0f}")


def run(environment_path, raw_path, out_path):
    with open(environment_path, encoding="utf-8") as file:
        environment = json.load(file)
    with open(raw_path, encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    cases = summarise(raw)
    with open(out_path, "w", encoding="utf-8") as file:
        json.dump({"environment": environment, "cases": cases, "raw": raw}, file, indent=1)
        file.write("\n")
    first = next(iter(cases.values()))["relay"]
    print(f"{environment['cpu']}, {environment['cores']} cores, Linux {environment['kernel']}; "
          f"{first['tls']} {first['cipher']}, ktls={environment['ktls']}, "
          f"{environment['workers']} worker(s), "
          f"{len([r for r in raw if r['way'] == 'relay']) // len(cases)} repetitions\n")
    print_rates(cases)
    print_costs(cases)
    print(f"\nwritten: {out_path}")
    ways = [case[way] for case in cases.values() for way in ("direct", "relay")]
    bad = sum(way["failed"] + way["miscounted"] for way in ways)
    if bad:
        print(f"FAILED or miscounted: {bad} messages")
    return 1 if bad else 0


def idle(name, path):
    with open(path, encoding="utf-8") as file:
        got = json.load(file)
    print(f"{name}: {got['sessions']} sessions open in {got['open_ms'] / 1000:.1f} s "
          f"({got['tls']}), {got['alive']} alive after the silence")
    print(f"  relay RSS {got['rss_before_kb'] / 1024:.1f} MiB before, "
          f"{got['rss_open_kb'] / 1024:.1f} open, {got['rss_held_kb'] / 1024:.1f} held")
    print(f"  per session: {got['rss_bytes_per_session'] / 1024:.2f} KiB grown, "
          f"{got['rss_total_bytes_per_session'] / 1024:.2f} KiB with all that was there, "
          f"{got['socket_bytes_per_session'] / 1024:.2f} KiB TCP buffers and "
          f"{got['slab_bytes_per_session'] / 1024:.2f} KiB kernel objects (both ends)")
    return 0


def print_tries(tries):
    print(f"{'':15} {'load ms':>17} {'exchange':>9} {'memory MiB':>18} {'look-up ns':>15} "
          f"{'program':>8}")
    print(f"{'prefixes':>15} {'relay':>8} {'kernel':>8} {'ms':>9} {'relay':>8} {'kernel':>9} "
          f"{'relay':>7} {'kernel':>7} {'ns':>8}")
    for trie in tries:
        # The kernel's own figure counts nodes, its slabs what they take; the larger is the truth.
        kernel = max(trie["kernel_bytes"] / 2**20, trie["slab_kb"] / 2**10)
        print(f"{trie['family']} {trie['prefixes']:10d} {trie['user_build_ms']:8.1f} "
              f"{trie['kernel_load_ms']:8.1f} {trie['swap_ms']:9.1f} "
              f"{trie['user_bytes'] / 2**20:8.2f} {kernel:9.2f} {trie['user_lookup_ns']:7.0f} "
              f"{trie['kernel_lookup_ns']:7.0f} {trie['program_ns']:8.0f}")


def summarise_refusals(refusals):
    result = {}
    for way in ("kernel", "relay"):
        runs = [r for r in refusals if r["by"] == way]
        rates = [r["per_second"] for r in runs]
        result[way] = {
            "per_second": statistics.median(rates),
            "spread": (max(rates) - min(rates)) / statistics.median(rates),
            "relay_cpu_us": statistics.median(r["relay_cpu_us"] for r in runs),
            "client_cpu_us": statistics.median(r["client_cpu_us"] for r in runs)}
        result[way]["cpu_us"] = result[way]["relay_cpu_us"] + result[way]["client_cpu_us"]
    pairs = list(zip((r for r in refusals if r["by"] == "kernel"),
                     (r for r in refusals if r["by"] == "relay")))
    result["rate_ratio"] = statistics.median(
        a["per_second"] / b["per_second"] for a, b in pairs)
    result["cpu_ratio"] = statistics.median(
        (b["relay_cpu_us"] + b["client_cpu_us"]) / (a["relay_cpu_us"] + a["client_cpu_us"])
        for a, b in pairs)
    return result


def print_refusals(summary, prefixes):
    print(f"\nRefusals, one client, a list of {prefixes} prefixes:")
    print(f"{'':28} {'refused/s':>9} {'spread':>6} {'CPU us':>7} {'relay':>7} {'client, kernel':>14}")
    for way, label in (("kernel", "at the door"), ("relay", "accepted and closed")):
        line = summary[way]
        print(f"{label:28} {line['per_second']:9.0f} {line['spread'] * 100:5.0f}% "
              f"{line['cpu_us']:7.1f} {line['relay_cpu_us']:7.1f} {line['client_cpu_us']:14.1f}")
    print(f"{'ratio':28} {summary['rate_ratio']:9.2f} {'':6} {1 / summary['cpu_ratio']:7.2f}")


def print_changes(changes):
    print("\nOne prefix by the control socket, microseconds:")
    print(f"{'':28} {'in force: median':>16} {'p99':>7} {'answer: median':>15} {'p99':>7}")
    for change in changes:
        label = f"{change['by']}, {change['prefixes']} prefixes"
        effect, answer = sorted(change["effect_us"]), sorted(change["answer_us"])
        print(f"{label:28} {statistics.median(effect):16.0f} "
              f"{effect[len(effect) * 99 // 100]:7.0f} {statistics.median(answer):15.0f} "
              f"{answer[len(answer) * 99 // 100]:7.0f}")


def door(environment_path, raw_path, out_path):
    with open(environment_path, encoding="utf-8") as file:
        environment = json.load(file)
    with open(raw_path, encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    parts = {name: [r for r in raw if r["part"] == name] for name in ("trie", "refuse", "change")}
    refusals = summarise_refusals(parts["refuse"])
    with open(out_path, "w", encoding="utf-8") as file:
        json.dump({"environment": environment, "refusals": refusals, "raw": raw}, file, indent=1)
        file.write("\n")
    print(f"{environment['cpu']}, {environment['cores']} cores, Linux {environment['kernel']}; "
          f"{len(parts['refuse']) // 2} repetitions\n")
    print_tries(parts["trie"])
    print_refusals(refusals, parts["refuse"][0]["prefixes"])
    print_changes(parts["change"])
    print(f"\nwritten: {out_path}")
    return 0


def main():
    command, arguments = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if command == "counters" and len(arguments) == 2:
        print(json.dumps(counters(*arguments)))
        return 0
    if command == "run" and len(arguments) == 3:
        return run(*arguments)
    if command == "idle" and len(arguments) == 2:
        return idle(*arguments)
    if command == "door" and len(arguments) == 3:
        return door(*arguments)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
