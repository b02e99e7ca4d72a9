#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""icount_report.py: what icount-guest.sh counted, as tables and as JSON.

    icount_report.py --kernel NAME --suite NAME [--out FILE]... RAW
"""

import argparse
import json
import sys

MIB = 1048576
LEGS = (("receiving leg: mail read, replies sent", ("off:off", "tx:off", "rx:off", "on:off",
                                                    "auto:off")),
        ("sending leg: mail sent, replies read", ("off:off", "off:tx", "off:rx", "off:on",
                                                  "off:auto")),
        ("both legs", ("off:off", "on:on", "auto:auto")))


def load(path):
    """{(row, kind, size): [(messages, relay, machine, in, out), ...]}"""
    runs = {}
    with open(path, encoding="ascii") as lines:
        for line in lines:
            row, kind, size, messages, relay, machine, record_in, record_out = line.split()
            runs.setdefault((row, kind, int(size)), []).append(
                (int(messages), int(relay), int(machine), record_in, record_out))
    return runs


def slopes(runs):
    """{(row, kind, size): (relay, machine, in, out)}, instructions for each message more."""
    each = {}
    for key, points in runs.items():
        if len(points) != 2 or points[0][0] >= points[1][0]:
            sys.exit(f"icount_report.py: two counts were to be had of {key}: {points}")
        (few, relay_few, machine_few, *_), (many, relay, machine, *records) = points
        each[key] = ((relay - relay_few) / (many - few), (machine - machine_few) / (many - few),
                     *records)
    return each


def row_of(key, values, base):
    """A row of JSON."""
    name, kind, size = key
    relay, machine, record_in, record_out = values
    what = {"bulk": "message", "in": "message with a session of its own",
            "ten": "message, ten to a session",
            "out": "message with a next-hop session of its own"}[kind]
    receive, send = name.split(":")
    row = {"name": f"ktls in {receive}, out {send}: {what}, {size} bytes", "unit": "instructions",
           "value": round(relay), "machine": round(machine), "receive": receive, "send": send,
           "kind": kind, "size": size, "record_in": record_in, "record_out": record_out}
    if kind == "bulk":
        row["per_mib"] = round(relay * MIB / size)
    if base is not None:
        row["ratio"] = round(relay / base[0], 4)
        row["saved"] = round(base[0] - relay)
        row["machine_saved"] = round(base[1] - machine)
    return row


def hand_over(each, row, kind):
    """What a hand-over costs: a session's own instructions more, and what its message saved."""
    once, bulk = each.get((row, kind, 4096)), each.get((row, "bulk", 4096))
    if once is None or bulk is None:
        return None
    base_once, base = each[("off:off", kind, 4096)], each[("off:off", "bulk", 4096)]
    saved = base[0] - bulk[0]
    return once[0] - base_once[0] + saved, saved


def print_leg(each, title, names):
    """One table."""
    sizes = sorted({size for _, kind, size in each if kind == "bulk"})
    print(f"\n{title}")
    print(f"{'ktls':>10}" + "".join(f"{size // 1024:>9} KiB  ratio      per MiB" for size in sizes)
          + "   hand-over  pays after 4 KiB messages   records in / out at the end")
    for name in names:
        if (name, "bulk", sizes[0]) not in each:
            continue
        cells = ""
        for size in sizes:
            relay, base = each[(name, "bulk", size)][0], each[("off:off", "bulk", size)][0]
            cells += f"{relay:13.0f} {relay / base:6.3f} {relay * MIB / size:12.0f}"
        cost = hand_over(each, name, "in" if name.endswith(":off") else "out")
        text = ""
        if cost is not None and name not in ("off:off", "on:on", "auto:auto", "auto:off",
                                             "off:auto"):
            pays = f"{cost[0] / cost[1]:.1f}" if cost[1] > 0 else "never"
            text = f"{cost[0]:11.0f}  {pays:>26}"
        records = each[(name, "bulk", sizes[-1])][2:]
        print(f"{name:>10}{cells}{text:>40}   {records[0]} / {records[1]}")


def main():
    """Prints the tables and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--suite", required=True)
    parser.add_argument("--out", action="append", default=[])
    parser.add_argument("raw")
    args = parser.parse_args()
    each = slopes(load(args.raw))
    rows = [row_of(key, values, each.get(("off:off", key[1], key[2])))
            for key, values in each.items()]
    print(f"instructions of the relay for a message, {args.kernel}, TLS 1.3 {args.suite}, BDAT; "
          "without the handshake")
    for title, names in LEGS:
        print_leg(each, title, names)
    print("\na message of 4 KiB in short sessions, with its part of the handshake: instructions, "
          "ratio\n"
          "in: a client's session each; ten: ten to one; out: a session with the next hop each")
    for (name, kind, size), values in each.items():
        if kind != "bulk":
            base = each[("off:off", kind, size)][0]
            print(f"{name:>10} {kind:>4} {values[0]:13.0f} {values[0] / base:6.3f}")
        cost = hand_over(each, name, kind) if kind in ("in", "out") else None
        if cost is not None and "auto" not in name:
            rows.append({"name": f"hand-over, ktls {name}, {kind}", "unit": "instructions",
                         "value": round(cost[0]), "saved_per_message": round(cost[1])})
    for path in args.out:
        with open(path, "w", encoding="ascii") as out:
            json.dump({"part": "icount", "kernel": args.kernel, "suite": args.suite, "rows": rows},
                      out, separators=(",", ":"))
            out.write("\n")


main()
