#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""report.py: from the raw figures of bench/idle.sh and bench/door.sh to tables.

report.py idle NAME FILE               the lines of bench/idle.sh
report.py door ENVIRONMENT RAW OUT     the tables of bench/door.sh; writes all of it to OUT
"""

import json
import statistics
import sys


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
    print(f"{'':28} {'refused/s':>9} {'spread':>6} {'CPU us':>7} {'relay':>7} "
          f"{'client, kernel':>14}")
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
    if command == "idle" and len(arguments) == 2:
        return idle(*arguments)
    if command == "door" and len(arguments) == 3:
        return door(*arguments)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
