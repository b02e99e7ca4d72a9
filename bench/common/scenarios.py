# SPDX-License-Identifier: Apache-2.0
"""The scenarios of bench/run.py: what each asks, and which subjects take part in it.

This table is the only place that says so. A stage is a set of scenarios that share one set-up of
the next hop; all subjects of a stage are there together, and take turns within a repetition.
"""

KIB = 1024
MIB = 1024 * KIB

ALL = ("direct", "postern-proxy", "postern-queue", "postern-queue-relaxed", "postfix", "exim",
       "opensmtpd", "nginx")
STORING_PEERS = ("postfix", "exim", "opensmtpd")
FLUSHING_PEERS = ("postfix", "exim")  # before their 250; OpenSMTPD does not
PEERS = STORING_PEERS + ("nginx",)
FEW = ("direct", "postern-proxy", "postern-queue", "nginx", "postfix")
PROXIES = ("direct", "postern-proxy", "postern-queue", "nginx")

# Of a set-up: milliseconds before the sink's reply, and tickets of each of its TLS handshakes.
STAGES = {
    "main": {"delay_ms": 0, "tickets": 0},
    "resumed": {"delay_ms": 0, "tickets": 2},
    "slow": {"delay_ms": 200, "tickets": 0},
}

MIX = "1k:40,4k:30,16k:20,64k:8,512k:2"


class Scenario:
    """One question: the options of load, who is asked, and how long."""

    def __init__(self, name, title, what, subjects, **options):
        self.name, self.title, self.what, self.subjects = name, title, what, subjects
        self.stage = options.pop("stage", "main")
        self.kind = options.pop("kind", "load")
        # Relative to the seconds of a run of this benchmark.
        self.weight = options.pop("weight", 1.0)
        # Fewer repetitions than the rest, where one answer is dear or steady; 0: all.
        self.repetitions = options.pop("repetitions", 0)
        self.full_only = options.pop("full_only", False)
        self.connections = options.pop("connections", 0)
        # At the most, for each second of a run, so that a short one is not mostly handshakes.
        self.sessions_a_second = options.pop("sessions_a_second", 64)
        self.messages = options.pop("messages", 0)
        self.size = options.pop("size", "4k")
        self.per_connection = options.pop("per_connection", 100)
        self.resume = options.pop("resume", False)
        # Of the subject's own closed-loop rate at 4k-100; 0 is a closed loop.
        self.open_fraction = options.pop("open_fraction", 0.0)
        self.counting = options.pop("counting", False)
        assert not options, options

    def as_row(self, connections):
        """What a reader of the results needs to know of it."""
        return {"name": self.name, "title": self.title, "what": self.what,
                "subjects": list(self.subjects), "stage": self.stage,
                "options": {"size": self.size, "messages_per_connection": self.per_connection,
                            "connections": self.connections or connections,
                            "resume": self.resume, "messages": self.messages or None,
                            "open_fraction": self.open_fraction or None,
                            "next_hop_delay_ms": STAGES[self.stage]["delay_ms"]}}


def sessions(count, full_only=False, repetitions=1):
    return Scenario(f"sessions-{count}", f"4 KiB, {count} sessions at a time",
                    "How the rate grows with the number of clients that send at once.",
                    FEW, connections=count, weight=0.7, repetitions=repetitions,
                    full_only=full_only)


SCENARIOS = [
    Scenario("4k-100", "4 KiB, 100 messages a connection",
             "Closed loop: each connection sends its next message when the last one is answered.",
             ALL, size="4k", counting=True),
    Scenario("64k-100", "64 KiB, 100 messages a connection", "The same with larger messages.",
             ALL, size="64k", counting=True),
    Scenario("1m-100", "1 MiB, 100 messages a connection",
             "The same; the cipher and the copies are nearly everything.", ALL, size="1m",
             sessions_a_second=8, counting=True),
    Scenario("4k-1-full", "4 KiB, one message a connection, full handshakes",
             "Each message pays for a TCP connection and a full mutual TLS handshake.", FEW,
             per_connection=1),
    Scenario("mixed", "Mixed sizes", f"Sizes and weights: {MIX}.", PROXIES, size=MIX, weight=0.8,
             repetitions=1),
    Scenario("serial", "One session, one message at a time",
             "Latency of a message, from MAIL to the answer that takes it over; nobody else is "
             "there.", ALL, connections=1),
    Scenario("open-50", "Open loop at half of the subject's own rate",
             "Messages come at fixed times, whether or not the last one is answered; latency "
             "counts from the time that a message was meant to be sent.", ALL, weight=0.8,
             repetitions=1, open_fraction=0.5),
    sessions(32, True), sessions(64, repetitions=2), sessions(128, True), sessions(256),
    Scenario("4k-1-resumed", "4 KiB, one message a connection, resumed sessions",
             "As with full handshakes, but the client resumes its TLS session where it may.",
             ("direct", "postern-proxy", "postern-queue", "nginx"), stage="resumed",
             per_connection=1, resume=True, repetitions=2),
    Scenario("slow-next-hop", "A next hop that answers after 200 ms",
             "64 connections. A proxy passes the delay on to its clients; a queue takes the mail "
             "over at once and delivers it meanwhile.", FEW, stage="slow", connections=64,
             messages=384, repetitions=1),
    Scenario("idle", "Idle sessions beside load of 4 KiB",
             "Sessions that went through TLS and EHLO and then say nothing: their memory, and "
             "the rate beside them against the rate without them.",
             ("postern-proxy", "nginx", "postfix"), stage="main", kind="idle"),
]

# How many idle sessions each can be asked for: Postfix keeps a process for each.
IDLE_SESSIONS = {"postern-proxy": 10000, "nginx": 10000, "postfix": 100}


def by_name():
    return {scenario.name: scenario for scenario in SCENARIOS}
