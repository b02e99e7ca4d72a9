# SPDX-License-Identifier: Apache-2.0
"""The subjects that others wrote, run by tests/peers. Each is set up as one who knows it would for
a relay between two partners on two cores; what differs from its defaults is in its notes."""

import glob
import os
import subprocess

from accounting import Account
from subject import BOTH, DURABLE, NONE, RELAXED, ROOT, Cannot, Subject, free_ports

PEERS = os.path.join(ROOT, "tests", "peers")
NEXT_HOP = "mx.treyresearch.test"


class Peer(Subject):
    script = ""   # in tests/peers
    shown = ()    # the files of its folder that a reader should see
    durability = DURABLE
    inbound = outbound = f"TLS 1.3, {BOTH}"
    record = "user"
    stores = True
    queue = ""    # folder of the files that wait

    def __init__(self, work_dir, sink_port, pki_dir, options=None):
        super().__init__(work_dir, sink_port, pki_dir, options)
        self.version = self.ask_version()

    def run(self, *words, environment=None):
        return subprocess.run([os.path.join(PEERS, self.script), *words], capture_output=True,
                              text=True, check=False, stdin=subprocess.DEVNULL,
                              env={**os.environ, **(environment or {})})

    @staticmethod
    def ask(*words):
        """What a program of the peers says, within run-in.sh."""
        said = subprocess.run([os.path.join(PEERS, "run-in.sh"), *words], capture_output=True,
                              text=True, check=False, stdin=subprocess.DEVNULL)
        if said.returncode == 77:
            raise Cannot(said.stderr.strip())
        return (said.stdout + said.stderr).strip()

    def ask_version(self):
        raise NotImplementedError

    def arguments(self):
        """The words after "start DIR --listen HOST:PORT --tls-cert .. --require-client-cert"."""
        raise NotImplementedError

    def start(self):
        self.on_disk()
        self.port, = free_ports(1)
        self.account = Account(type(self).__name__.lower())
        pki = self.pki
        environment = {"PEER_CGROUP": self.account.folder} if self.account.folder else {}
        said = self.run("start", self.work, "--listen", f"127.0.0.1:{self.port}",
                        "--tls-cert", f"{pki}/adatum.pem", "--tls-key", f"{pki}/adatum.key",
                        "--require-client-cert", f"{pki}/treyresearch-ca.pem",
                        "--hostname", "mx.adatum.test", *self.arguments(), environment=environment)
        if said.returncode:
            self.account.close()
            self.account = None
            raise Cannot(said.stderr.strip() or said.stdout.strip())
        with open(self.path("pid"), encoding="ascii") as file:
            self.account.started(int(file.read()))
        for name in self.shown:
            with open(self.path(name), encoding="utf-8") as file:
                self.settings[os.path.basename(name)] = file.read()

    def secure_next_hop(self):
        pki = self.pki
        return ["--client-cert", f"{pki}/adatum.pem", "--client-key", f"{pki}/adatum.key",
                "--tls-cafile", f"{pki}/treyresearch-ca.pem", "--verify-name", NEXT_HOP]

    def stop(self):
        said = self.run("stop", self.work)
        super().stop()
        if said.returncode:
            raise Cannot(said.stderr.strip())

    def empty(self):
        return not any(os.path.isfile(path) for path in
                       glob.glob(self.path(self.queue), recursive=True))


def settings(**values):
    words = []
    for name, value in values.items():
        words += ["--set", f"{name} = {value}"]
    return words


class Postfix(Peer):
    title = "Postfix"
    script = "postfix.sh"
    shown = ("etc/main.cf", "etc/master.cf")
    notes = ("As many processes as there are sessions, each used without end. Nothing is held "
             "back: no in_flow_delay, no limits of clients (so that anvil is never asked), 100 "
             "000 messages in the active queue. No checks of content, no address mappings, no "
             "DNS. Up to 100 deliveries at a time to the one destination, from the start: a third "
             "more than with 20, its default. TLS connections to the next hop are kept open and "
             "shared by tlsproxy (smtp_tls_connection_reuse); "
             "sessions are cached both ways. Tried once without, "
             "handshakes cost more than all else. "
             "Accepting takes the processors from delivery, so few sessions do best: it is "
             "fastest with 8.")

    def ask_version(self):
        return "Postfix " + self.ask("postconf", "-hd", "mail_version").split()[0]

    def arguments(self):
        many = self.options["processes"]
        return ["--relayhost", f"[127.0.0.1]:{self.sink_port}", "--tls-level", "secure",
                *self.secure_next_hop(), *settings(
                    default_process_limit=many, max_use=1000000, max_idle="600s",
                    smtpd_client_connection_count_limit=0, smtpd_client_connection_rate_limit=0,
                    smtpd_client_message_rate_limit=0, smtpd_client_recipient_rate_limit=0,
                    smtpd_client_new_tls_session_rate_limit=0, smtpd_client_auth_rate_limit=0,
                    smtpd_timeout="1800s", qmgr_message_active_limit=100000,
                    initial_destination_concurrency=100, default_destination_concurrency_limit=100,
                    header_checks="", receive_override_options=
                    "no_address_mappings, no_header_body_checks, no_unknown_recipient_checks",
                    smtpd_tls_loglevel=0, smtp_tls_loglevel=0, smtpd_tls_received_header="no",
                    smtpd_tls_session_cache_database="btree:/peer/data/smtpd_scache",
                    smtp_tls_session_cache_database="btree:/peer/data/smtp_scache",
                    smtp_tls_connection_reuse=self.options.get("postfix_reuse", "yes"),
                    smtp_connection_cache_destinations=f"[127.0.0.1]:{self.sink_port}")]

    def empty(self):
        folders = ("maildrop", "incoming", "active", "deferred")
        return not any(os.path.isfile(path) for name in folders for path in
                       glob.glob(self.path("queue", name, "**"), recursive=True))


class Exim(Peer):
    title = "Exim"
    script = "exim.sh"
    shown = ("exim.conf",)
    queue = "spool/input/**"
    notes = ("Each message is delivered at once by a process of its own, however many come in "
             "one connection. No limit of connections; split spool directories, no log of its "
             "own for each message, the spool kept as on the wire; no DNS, no ident, no look-"
             "ups. More sessions only make more processes that wait. Queue runs (option exim_runs) "
             "are not used: tried once, they left a queue that did not drain sooner.")

    def ask_version(self):
        return " ".join(self.ask("exim4", "--version").split("\n", 1)[0].split()[:3])

    def arguments(self):
        runs = self.options.get("exim_runs", "")
        return ["--to", f"127.0.0.1:{self.sink_port}", *self.secure_next_hop(),
                *(["--queue-runs", runs] if runs else []), *settings(
            **({"queue_only": "true"} if runs else {}),
            smtp_accept_max=0, smtp_accept_queue_per_connection=0, smtp_accept_max_per_connection=0,
            smtp_connect_backlog=4096, split_spool_directory="true", message_logs="false",
            spool_wireformat="true", check_spool_space=0, check_spool_inodes=0,
            log_selector="", host_lookup="", smtp_receive_timeout="30m",
            queue_run_max=self.options.get("exim_run_max", 20),
            smtp_enforce_sync="false")]


class OpenSmtpd(Peer):
    title = "OpenSMTPD"
    script = "opensmtpd.sh"
    shown = ("smtpd.conf",)
    durability = RELAXED  # a message is not flushed at all: only an envelope that is tried again is
    queue = "queue/queue/**"
    load_options = ("--no-pipelining",)
    best_connections = 4
    notes = ("20 connections to the next hop at a time, without a delay between them (defaults: "
             "5, with seconds in between), kept open, 1 000 messages each; with 100, tried once, "
             "it delivered no faster. The scheduler hands out all it has. Names come from the "
             "hosts file, not from DNS. It takes no pipelined commands, and its backlog of 5 "
             "connections is compiled in: more clients that connect at once wait a second or more "
             "for their second attempt. It never flushes a message before its 250: what it "
             "promises is the page cache's.")

    def ask_version(self):
        return self.ask("--packages", "bench", "smtpd", "-h").splitlines()[0].split(": ")[-1]

    def arguments(self):
        return ["--relayhost", f"127.0.0.1:{self.sink_port}", *self.secure_next_hop(),
                *[word for line in (
                    *(f"mta limit max-conn-per-{what} {self.options.get('opensmtpd_out', 20)}"
                      for what in ("host", "route", "source", "connector", "relay", "domain")),
                    "smtp limit max-mails 1000000",
                    "smtp max-message-size 200M",
                    "mta limit conn-delay-route 0 conn-delay-relay 0 reconn-delay-route 0",
                    "mta limit session-mail-max 1000 task-hiwat 100000 task-lowat 50000",
                    "mta limit task-release 1000",
                    "scheduler limit max-inflight 100000 max-schedule 1000",
                ) for word in ("--set", line)]]


class Nginx(Peer):
    title = "nginx mail"
    script = "nginx.sh"
    shown = ("nginx.conf",)
    durability = NONE
    outbound = "clear text: it cannot do TLS to a server"
    stores = False
    best_connections = 512
    notes = ("A proxy that opens a connection to the next hop for each session. Where to go it "
             "asks itself over a Unix socket. Client certificates are checked; towards the next "
             "hop it speaks in clear text, so it encrypts one leg only. It leaves Nagle's "
             "algorithm on, so that a message waits about 40 ms for an acknowledgement: its rate"
             " is that of its sessions, and it needs hundreds to be busy. One worker: on two "
             "cores that load and sink share, a second, tried once, made it slower. It logs "
             "errors only, as by default.")

    def ask_version(self):
        return self.ask("--packages", "bench", "nginx", "-v").splitlines()[-1].split(": ")[-1]

    def arguments(self):
        return ["--relayhost", f"127.0.0.1:{self.sink_port}", "--workers",
                str(self.options.get("nginx_workers", 1))]
