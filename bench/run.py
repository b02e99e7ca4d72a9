#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""run.py: the benchmark: scenarios x subjects x repetitions, and what they cost.

All subjects of a stage are there together and take turns within each repetition, in an order that
rotates, so that whatever else the machine does meets all of them. Each run is bounded in time, all
of it by --minutes. The results are written after each run, so a benchmark that is killed leaves
what it has; a void run is marked, said aloud, and makes exit status 1. See bench/README.md.

Exit: 0; 1 when a run was void or nothing ran; 2 wrong options.
"""

import argparse
import json
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench/common"))

# pylint: disable=wrong-import-position
import machine
import parts
import results
import summary
from floor import joined
from idle_beside import measure_idle
from measure import Broken, Station, Tools, measure, run_load, wait_for_all
from scenarios import IDLE_SESSIONS, SCENARIOS, STAGES, by_name

# Repetitions, minutes, most seconds of a run, and the parts beside the runs.
KINDS = {
    "quick": (1, 5, 1, ()),
    "short": (3, 8.5, 3, ("floor", "commit", "door", "micro")),
    "full": (5, 75, 6, ("floor", "commit", "door", "micro", "icount", "idle-kernel")),
}
# What a plan counts with, in seconds; wrong guesses shorten runs, or leave the last of them out.
OVERHEAD_SECONDS = 0.3
START_SECONDS = {"slow": 15, "resumed": 10, "main": 25}
DRAIN_GUESS = {"postfix": 1.5, "exim": 4.0, "opensmtpd": 3.0, "postern-queue": 0.5}
PART_SECONDS = {"commit": (20, 320), "door": (10, 120), "micro": (12, 300), "icount": (400, 400),
                "idle-kernel": (150, 150), "floor": (6, 20)}


def words(text):
    return [word for word in text.split(",") if word]


def parse(arguments, catalogue):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_const", const="quick", dest="kind",
                      help="one short repetition of 4k-100, and no other part")
    kind.add_argument("--full", action="store_const", const="full", dest="kind",
                      help="five longer repetitions, and all parts")
    parser.add_argument("--only", type=words, metavar="SCENARIO,...",
                        help="these scenarios; " + ", ".join(by_name()))
    parser.add_argument("--subjects", type=words, metavar="SUBJECT,...",
                        help="these subjects; " + ", ".join(catalogue))
    parser.add_argument("--parts", type=words, metavar="PART,...",
                        help="these parts beside the runs; " + ", ".join(PART_SECONDS) +
                        "; '' for none")
    parser.add_argument("--minutes", type=float, help="all of it at the most (8.5, full: 75)")
    parser.add_argument("--repetitions", type=int, help="of each run (3, full: 5)")
    parser.add_argument("--seconds", type=int, help="of one run (as the minutes allow)")
    parser.add_argument("--messages", type=int, default=0, help="of one run, at the most")
    parser.add_argument("--connections", type=int, default=0,
                        help="at a time (where each subject is best)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)),
                        help="of Postern (one for each processor, as by its default)")
    parser.add_argument("--ktls", default="off", help="of both legs of Postern (off)")
    parser.add_argument("--idle-sessions", type=int, default=0, help="instead of 10000")
    parser.add_argument("--drain-seconds", type=float, default=20,
                        help="for a queue to hand over its mail after a run (20)")
    parser.add_argument("--build", default=str(ROOT / "build/release"), help="folder of binaries")
    parser.add_argument("--folder", default=str(ROOT / "build/bench"),
                        help="where all that is stored lies: it should be a disk")
    parser.add_argument("--out", help="the results (FOLDER/results.json)")
    args = parser.parse_args(arguments)
    args.kind = args.kind or "short"
    for name in args.only or ():
        if name not in by_name():
            parser.error(f"no scenario {name}")
    for name in args.subjects or ():
        if name not in catalogue:
            parser.error(f"no subject {name}")
    for name in args.parts or ():
        if name not in PART_SECONDS:
            parser.error(f"no part {name}")
    repetitions, minutes, _, default_parts = KINDS[args.kind]
    args.repetitions = args.repetitions or repetitions
    args.minutes = args.minutes or minutes
    if args.parts is None:
        args.parts = [] if args.only else list(default_parts)
    if args.only is None and args.kind == "quick":
        args.only = ["4k-100"]
    args.out = args.out or str(Path(args.folder) / "results.json")
    return args


class Bench:
    """The plan, the clock and the results of one benchmark."""

    def __init__(self, args, catalogue, folder):
        self.args, self.catalogue, self.folder = args, catalogue, folder
        self.begun = time.monotonic()
        self.end = self.begun + 60 * args.minutes
        self.tools = Tools(args.build, folder)
        self.tools.make_certificates()
        self.noise = machine.Noise(folder)
        self.scenarios = [scenario for scenario in SCENARIOS if self.is_wanted(scenario)]
        self.results = results.Results(args.out, {
            "schema": 1, "environment": machine.environment(self.tools.postern, folder),
            "settings": {"kind": args.kind, "repetitions": args.repetitions,
                         "minutes": args.minutes, "connections": args.connections or
                         "where each subject is best", "workers": args.workers, "ktls": args.ktls,
                         "load": self.tools.load.name, "sink": self.tools.sink.name},
            "subjects": {}, "scenarios": [s.as_row(args.connections) for s in self.scenarios],
            "noise": [], "not_run": [], "runs": [], "curves": {}})
        self.seconds = args.seconds or self.seconds_that_fit()
        self.results.data["settings"]["seconds_of_a_run"] = self.seconds
        self.stations = {}

    def is_wanted(self, scenario):
        if self.args.only is not None:
            return scenario.name in self.args.only
        return self.args.kind == "full" or not scenario.full_only

    def subjects_of(self, scenario):
        wanted = self.args.subjects or list(self.catalogue)
        return [name for name in self.catalogue if name in wanted and
                (name in scenario.subjects or self.args.subjects and scenario.kind == "load")]

    def is_counting(self, scenario):
        return scenario.counting and (self.args.kind == "full" or scenario.name != "64k-100")

    def repetitions_of(self, scenario):
        if scenario.kind == "idle":
            return 1 if self.args.kind != "full" else 3
        if self.args.kind == "full":
            return self.args.repetitions
        return min(scenario.repetitions or self.args.repetitions, self.args.repetitions)

    def cost(self, scenario, seconds):
        """Seconds that all runs of a scenario will take, roughly."""
        total = 0.0
        for name in self.subjects_of(scenario):
            each = seconds * scenario.weight + OVERHEAD_SECONDS + DRAIN_GUESS.get(name, 0.2)
            if scenario.kind == "idle":
                each = 9 * seconds + 15 * (IDLE_SESSIONS.get(name, 0) + 1000) / 11000
            total += each * self.repetitions_of(scenario)
            if self.is_counting(scenario):
                total += each - (seconds * scenario.weight - 1)
        return total

    def reserve(self, stages):
        """Seconds to keep for these stages and for the parts beside the runs."""
        total = sum(PART_SECONDS[name][self.args.kind == "full"] for name in self.args.parts)
        for stage in stages:
            costs = [self.cost(s, self.seconds) for s in self.scenarios if s.stage == stage]
            total += sum(costs) + (START_SECONDS[stage] if costs else 0)
        return total

    def seconds_that_fit(self):
        """The most seconds of a run with which all of it ends in time; at least one."""
        stages = {scenario.stage for scenario in self.scenarios}
        for seconds in range(KINDS[self.args.kind][2], 1, -1):
            self.seconds = seconds
            if self.reserve(stages) < 60 * self.args.minutes:
                return seconds
        return 1

    def elapsed(self):
        seconds = int(time.monotonic() - self.begun)
        return f"{seconds // 60:2d}:{seconds % 60:02d}"

    def say(self, text):
        print(f"{self.elapsed()}  {text}", file=sys.stderr, flush=True)

    def sample(self, where):
        self.results.data["noise"].append(self.noise.sample(where))
        self.results.save()

    def options_of(self):
        return {"workers": self.args.workers, "ktls": self.args.ktls,
                "postern": str(self.tools.postern), "processes": 300,
                # Of each worker: all of them and, as the kernel deals them out unevenly, some more.
                "sessions": 1500 + (self.args.idle_sessions or 10000) // self.args.workers}

    def open_station(self, stage, name):
        """A subject that carries mail, or None; why not is kept."""
        folder = Path(self.folder) / f"{stage}-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        station = None
        try:
            station = Station(self.tools, name, self.catalogue[name], STAGES[stage],
                              self.options_of(), folder)
            # The first run pays for pages and caches; it does not count.
            load, wrong = run_load(station.load_command(
                ["--messages", 100 if stage == "main" else 20, "--seconds", "5", "--connections",
                 "4"]), 30)
            if wrong:
                raise Broken(f"it carries no mail: {wrong}")
            if not wait_for_all(station, load["messages"], 30 if station.subject.stores else 2)[2]:
                raise Broken("what it takes does not come to the next hop")
        except Exception as error:  # pylint: disable=broad-exception-caught
            if station is not None:
                station.stop()
            self.missing(stage, name, str(error) if isinstance(error, Broken) or
                         type(error).__name__ == "Cannot" else f"{type(error).__name__}: {error}")
            return None
        except BaseException:
            if station is not None:
                station.stop()
            raise
        self.results.data["subjects"][name] = station.about()
        self.stations[name] = station
        return station

    def missing(self, stage, name, why):
        """A subject that never ran is missing; one that did has runs that it lacks."""
        self.say(f"{name} cannot run here: {why}")
        subjects = self.results.data["subjects"]
        if "durability" not in subjects.get(name, {}):
            subjects[name] = {"title": getattr(self.catalogue[name], "title", name), "missing": why}
        for scenario in self.scenarios:
            if scenario.stage == stage and name in self.subjects_of(scenario):
                self.skip(scenario, name, 0, why)

    def close_stations(self):
        for name, station in list(self.stations.items()):
            del self.stations[name]
            try:
                station.stop()
            except Exception as error:  # pylint: disable=broad-exception-caught
                self.say(f"{name} did not end well: {error}")

    def own_rate(self, name):
        """What the subject does in a closed loop, from end to end."""
        row = self.results.data["runs"]
        found = summary.spread_of(summary.by_repetition(row, "4k-100", name, (
            "end_to_end_per_second",)).values())
        return found["median"] if found else None

    def connections_of(self, scenario, station):
        """Without a relay as many as through Postern's proxy, whose measure it is."""
        like = self.stations.get("postern-proxy", station) if station.name == "direct" else station
        return scenario.connections or self.args.connections or \
            min(like.subject.best_connections, scenario.sessions_a_second * round(self.seconds))

    def load_options(self, scenario, station):
        """Options of load for one run, and its number of connections; raises Broken."""
        connections = self.connections_of(scenario, station)
        options = ["--connections", connections, "--messages-per-connection",
                   scenario.per_connection]
        if ":" in scenario.size:
            if "--sizes" not in self.tools.load_help:
                raise Broken("this load cannot mix sizes")
            options += ["--sizes", scenario.size]
        else:
            options += ["--size", scenario.size]
        if scenario.resume:
            options.append("--resume")
        if scenario.open_fraction:
            rate = self.own_rate(station.name)
            if "--rate" not in self.tools.load_help:
                raise Broken("this load has no open loop")
            if rate is None:
                raise Broken("no rate of its own at 4k-100 was measured")
            options += ["--rate", max(1, round(rate * scenario.open_fraction))]
        most = scenario.messages or 100000000
        options += ["--messages", min(most, self.args.messages or most)]
        return options, connections

    def one(self, stage, scenario, name, repetition, counting=False):
        """One run; its row is kept whatever became of it."""
        station = self.stations.get(name)
        if station is None:
            return
        row = {"scenario": scenario.name, "subject": name, "repetition": repetition}
        seconds = max(1, self.seconds * scenario.weight)
        try:
            if scenario.kind == "idle":
                sessions = min(self.args.idle_sessions or 10000, IDLE_SESSIONS.get(name, 200))
                row["connections"] = self.connections_of(scenario, station)
                row.update(measure_idle(station, sessions, row["connections"], seconds,
                                        self.args.drain_seconds))
            else:
                options, row["connections"] = self.load_options(scenario, station)
                row.update(measure(station, options,
                                   1 if counting and not self.args.seconds else seconds,
                                   self.args.drain_seconds, counting))
        except Broken as why:
            self.skip(scenario, name, repetition, str(why))
            if station.sink.process.poll() is None:
                return
            row["void"] = str(why)
        except Exception as error:  # pylint: disable=broad-exception-caught
            row["void"] = f"{type(error).__name__}: {error}"
        about = self.results.data["subjects"][name]
        row["durability"], row["record"] = about["durability"], about["record"]
        self.results.data["runs"].append(row)
        self.results.save()
        self.say(self.told(row))
        if row.get("void"):  # what it has left must not meet the next run
            self.stations.pop(name)
            station.stop()
            self.open_station(stage, name)

    @staticmethod
    def told(row):
        name = f"{row['repetition']}  {row['scenario']:13} {row['subject']:22}"
        if row.get("void"):
            return f"{name} VOID: {row['void']}"
        if "idle" in row:
            idle = row["idle"]
            return f"{name} {idle['pss_bytes_per_session'] / 1024:8.1f} KiB a session, " \
                   f"{idle['rate_beside']:.0f}/s beside {idle['rate_without']:.0f}/s"
        return f"{name} {row['end_to_end_per_second']:9.0f}/s  CPU " \
               f"{row['cpu']['subject_per_1000']:7.3f} s/1000  p99 " \
               f"{row['latency_us'].get('p99', math.nan) / 1000:8.2f} ms" + (
                   f"  {row.get('syscalls_per_message')} system calls"
                   if row.get("counting") else "")

    def skip(self, scenario, name, repetition, why):
        skipped = self.results.data["not_run"]
        row = {"scenario": scenario.name, "subject": name, "repetition": repetition, "why": why}
        if row not in skipped:
            skipped.append(row)
            self.say(f"{scenario.name} {name}: not run: {why}")

    def stage(self, stage, later):
        scenarios = [scenario for scenario in self.scenarios if scenario.stage == stage]
        names = [name for name in self.catalogue
                 if any(name in self.subjects_of(scenario) for scenario in scenarios)]
        if not names:
            return
        end = self.end - self.reserve(later)
        for name in names:
            self.open_station(stage, name)
        most = max(self.repetitions_of(scenario) for scenario in scenarios)
        for repetition in range(1, most + 1):
            self.sample(f"{stage}, before repetition {repetition}")
            turn = names[(repetition - 1) % len(names):] + names[:(repetition - 1) % len(names)]
            for scenario in scenarios:
                if repetition > self.repetitions_of(scenario):
                    continue
                mine = [name for name in turn if name in self.subjects_of(scenario)]
                for name in mine:
                    if time.monotonic() > end:
                        self.skip(scenario, name, repetition, "the time was spent")
                        continue
                    if repetition == 1 and self.is_counting(scenario):
                        self.one(stage, scenario, name, 0, counting=True)
                    self.one(stage, scenario, name, repetition)
            if stage == "main":
                self.floor()
        self.close_stations()

    def part(self, name, runs):
        return parts.measure(name, self.tools, Path(self.folder), self.args.kind == "full", runs)

    def floor(self):
        """The least of a relay, after each repetition: a machine is not always equally quick."""
        curves = self.results.data["curves"]
        if "floor" in self.args.parts:
            first = [run for run in self.results.data["runs"] if run["repetition"] <= 1]
            curves["floor"] = joined(curves.get("floor"), self.part("floor", first)["floor"])

    def run(self):
        stages = [stage for stage in STAGES if any(s.stage == stage for s in self.scenarios)]
        for place, stage in enumerate(stages):
            self.stage(stage, stages[place + 1:])
        self.sample("after the runs")
        for name in self.args.parts:
            if name in self.results.data["curves"]:
                continue
            self.say(f"part {name}")
            self.results.data["curves"].update(self.part(name, self.results.data["runs"]))
            self.results.save()
        for name in PART_SECONDS:
            for part in parts.PARTS[name]:
                self.results.data["curves"].setdefault(part.__name__, {
                    "missing": "Not asked for: make bench-full measures it."})
        self.sample("at the end")

    def finish(self):
        """Sums up, writes, says; returns the exit status."""
        self.close_stations()
        data = self.results.data
        data["settings"]["measured_seconds"] = round(time.monotonic() - self.begun, 1)
        data["summary"] = summary.summarise(data)
        self.results.save()
        void = data["summary"]["void"]
        for row in void:
            print(f"VOID: {row['scenario']}, {row['subject']}, repetition {row['repetition']}: "
                  f"{row['why']}")
        for line in summary.not_run(data):
            print(f"not run: {line}")
        print(f"{len(data['runs'])} runs, {len(void)} void: {self.args.out}")
        return 1 if void or not data["runs"] else 0


def main(arguments=None, catalogue=None):
    """The whole; a test brings a catalogue of subjects of its own."""
    if catalogue is None:
        from subjects import SUBJECTS as catalogue  # pylint: disable=import-outside-toplevel
    args = parse(arguments, catalogue)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    Path(args.folder).mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    folder = tempfile.mkdtemp(prefix="run.", dir=args.folder)
    os.chmod(folder, 0o755)  # peers have users of their own
    bench = None
    try:
        bench = Bench(args, catalogue, folder)
        bench.run()
        return bench.finish()
    except Broken as why:
        print(f"run.py: {why}", file=sys.stderr)
        return 1
    except json.JSONDecodeError as why:
        print(f"run.py: a program did not speak JSON: {why}", file=sys.stderr)
        return 1
    finally:
        if bench is not None:
            bench.close_stations()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
