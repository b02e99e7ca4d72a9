# SPDX-License-Identifier: Apache-2.0
"""How bench/report writes things: numbers, names, orders, and why something is not there."""

from plots import short
from scenarios import ALL

DURABILITIES = {"none": "answers with the next hop’s word",
                "durable": "durable: flushed before the 250", "relaxed": "relaxed: page cache"}


def name_of(subjects, name):
    return subjects.get(name, {}).get("title") or name


def ordered(subjects, there):
    """The names that are there: as in the list of all, then any others."""
    known = [name for name in ALL if name in there]
    return known + [name for name in there if name not in known]


def durability_class(about):
    words = (about.get("durability") or "none").split(":")
    return DURABILITIES.get(words[0], about.get("durability") or "")


def percent(value):
    return f"{100 * value:.0f} %"


def ranged(spread):
    return f"{short(spread['median'])} ({short(spread['min'])} to {short(spread['max'])})"


def figure_text(spread, scale=1, with_spread=True):
    """A median, with its spread where asked; a plain number is written as one; "-" is none."""
    if spread is None:
        return "-"
    if not isinstance(spread, dict):
        return short(spread * scale)
    text = short(spread["median"] * scale)
    return text + (f" ±{percent(spread['spread'])}" if with_spread and spread["n"] > 1 else "")


def reached(row):
    """The last word on a target."""
    if row["beyond"]:
        return "beyond this machine's limit"
    return {True: "yes", False: "no", None: "not measured"}[row["met"]]


def missing_of(results, scenario):
    """Why there is nothing of a scenario."""
    why = list(dict.fromkeys(row["why"] for row in results.get("not_run", [])
                             if row["scenario"] == scenario))
    runs = [run for run in results.get("runs", []) if run["scenario"] == scenario]
    if why:
        return "It was not run: " + "; ".join(why) + "."
    if runs and all(run.get("void") for run in runs):
        return "All of its runs were void."
    return "This benchmark did not ask for it."
