# SPDX-License-Identifier: Apache-2.0
"""What no relay on this machine can go below, and so how far each wanted figure could be reached.

bench/floor.c measures the least that a message costs a relay's thread; the runs say what load and
sink cost beside it. A rate can be no higher than that at which the three use all cores; processor
time can be no less than the floor itself.
"""

from statistics import median

# Steps of bench/floor.c, in the page's order, and what each is.
STEPS = {
    "receive": "receive: recv(2) of the records, a bulk buffer at a time",
    "open": "open: AES-256-GCM of records of 16 KiB",
    "seal": "seal: the same towards the next hop",
    "send": "send: send(2) of the records",
    "proxy": "the least of a proxy: the four together",
    "checksum": "checksum: CRC-32C of the text, once",
    "store": "store: its share of a write past the page cache, with its flush",
    "queue": "the least of a queue: all of these",
}
BESIDE = {
    "chain": "the four of a proxy in a row, on the same bytes",
    "open-evp": "open by bare EVP",
    "seal-evp": "seal by bare EVP",
    "read": "its share of reading the batch back, which a message still in memory does not need",
    "store-wait": "what a message waits for its share of the write, by the clock",
}
SUMS = ("proxy", "queue")

# The size of the messages of a scenario that the floor is set against.
BYTES = {"4k-100": 4096, "64k-100": 65536, "1m-100": 1048576, "sessions-64": 4096}
PROXIES = ("postern-proxy", "nginx")  # all others keep the mail


def figures(curves):
    """{bytes: {step: {"median", "min", "max"} in microseconds}}; empty without the part."""
    found = {}
    for row in (curves.get("floor") or {}).get("rows") or []:
        found.setdefault(row["size"], {})[row["step"]] = {
            "median": row["value"], "min": row["min"], "max": row["max"],
            "batch": row.get("batch")}
    return found


def joined(before, after):
    """The part measured once more: its repetitions go on; what is missing takes nothing away."""
    if not (before or {}).get("rows") or not after.get("rows"):
        return before if (before or {}).get("rows") else after
    more = {(row["size"], row["step"]): row["values"] for row in after["rows"]}
    rows = []
    for row in before["rows"]:
        values = row["values"] + more.get((row["size"], row["step"]), [])
        rows.append({**row, "values": values, "value": round(median(values), 4),
                     "min": min(values), "max": max(values)})
    return {**before, "repetitions": len(rows[0]["values"]), "rows": rows}


def least_us(found, scenario, subject):
    """Microseconds that a message of this scenario costs such a subject at the least, or None."""
    return found.get(BYTES.get(scenario), {}).get("proxy" if subject in PROXIES else "queue")


def others_seconds(table, scenario, subject):
    """What load and sink spend on a message, each where that is least: without a relay, or with."""
    total = 0.0
    for name in ("cpu_load_per_1000", "cpu_sink_per_1000"):
        there = [table.get(scenario, {}).get(who, {}).get(name) for who in ("direct", subject)]
        there = [spread["median"] / 1000 for spread in there if spread]
        if not there:
            return None
        total += min(there)
    return total


def rate_limit(cores, others, least):
    """Messages a second at which load, sink and such a relay use all cores; times in seconds."""
    return cores / (others + least)


def limit(results, table, ratio, base):
    """How far a ratio could be here, or None: {"median", "farthest"}.

    That is the most that a rate could be, or the least that processor time could be; by the median
    of the floor, and by its lowest repetition, which is what a claim may rest on. ratio is (name,
    scenario, subject, bases, "rate" or "cpu", which of several), and base are the figures that it
    divides by, one for each repetition.
    """
    _, scenario, subject, _, figure, _ = ratio
    least = least_us(figures(results.get("curves", {})), scenario, subject)
    cores = results.get("environment", {}).get("cores")
    others = others_seconds(table, scenario, subject)
    if least is None or not base:
        return None
    found = {}
    for name, key in (("median", "median"), ("farthest", "min")):
        seconds = least[key] / 1e6
        if figure == "cpu":
            found[name] = seconds * 1000 / median(base)
        elif cores and others is not None:
            found[name] = rate_limit(cores, others, seconds) / median(base)
    return found or None


def batches(runs):
    """[(bytes, messages to a write)...]: as the durable queue's writes had in these; else 8."""
    result = []
    for scenario in ("4k-100", "64k-100", "1m-100"):
        flushes = [(run.get("stats_per_message") or {}).get("spool_flushes") for run in runs
                   if (run["scenario"], run["subject"]) == (scenario, "postern-queue") and
                   not run.get("void")]
        flushes = [value for value in flushes if value]
        result.append((BYTES[scenario],
                       max(1, min(1024, round(1 / median(flushes)))) if flushes else 8))
    return result
