# SPDX-License-Identifier: Apache-2.0
"""Row 38: the protocol log, read as a parser of Exchange's logs reads it."""

import base64
import re
from collections import defaultdict

import pytest

from conftest import free_port, proxy_config
from test_relay import Client

FIELDS = ["date-time", "connector-id", "session-id", "sequence-number", "local-endpoint",
          "remote-endpoint", "event", "data", "context"]
FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)')
ENDPOINT = re.compile(r"127\.0\.0\.1:\d+|")
SECRET = base64.b64encode(b"\0user\0correct horse").decode()
BODY = "a line that only the body has"


def parse_line(text, at):
    """The fields of one row and where the next begins."""
    fields = []
    while True:
        match = FIELD.match(text, at)
        assert match, f"no field at {text[at:at + 80]!r}"
        quoted, plain, end = match.groups()
        fields.append(plain if quoted is None else quoted.replace('""', '"'))
        at = match.end()
        if end == "\r\n":
            return fields, at


def parse(path, kind):
    """The rows of a file as dictionaries; its header must be Exchange's."""
    text = path.read_bytes().decode("utf-8")
    head = text.split("\r\n")[:5]
    assert [line.split(":")[0] for line in head] == [
        "#Software", "#Version", "#Log-Type", "#Date", "#Fields"]
    assert head[2] == f"#Log-Type: SMTP {kind} Protocol Log"
    assert head[4] == "#Fields: " + ",".join(FIELDS)
    at, rows = sum(len(line) + 2 for line in head), []
    while at < len(text):
        fields, at = parse_line(text, at)
        assert len(fields) == len(FIELDS), fields
        rows.append(dict(zip(FIELDS, fields)))
    return rows


def read_set(folder, prefix, kind):
    """All rows of a set by session, with what holds for every row checked."""
    sessions = defaultdict(list)
    files = sorted(folder.glob(f"{prefix}*"))
    for path in files:
        assert re.fullmatch(rf"{prefix}20\d{{8}}-\d+\.LOG", path.name), path.name
        for row in parse(path, kind):
            sessions[row["session-id"]].append(row)
    for identity, rows in sessions.items():
        assert identity
        assert [int(row["sequence-number"]) for row in rows] == list(range(len(rows)))
        assert rows[0]["event"] == "+" and rows[-1]["event"] == "-"
        assert all(row["event"] in "<>*" and row["event"] for row in rows[1:-1])
        stamps = [row["date-time"] for row in rows]
        assert stamps == sorted(stamps)
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", s) for s in stamps)
        assert len({row["connector-id"] for row in rows}) == 1
        assert all(ENDPOINT.fullmatch(row["remote-endpoint"]) for row in rows)
    return sessions


def events(rows, event):
    return [row["data"] for row in rows if row["event"] == event]


def notes(rows):
    return [row["context"] + " " + row["data"] for row in rows if row["event"] == "*"]


@pytest.fixture
def logged(make_relay, next_hop, pki, tmp_path):
    """logged(receive="verbose", send="verbose"): a relay with a protocol log in relay.logs."""

    def make(receive="verbose", send="verbose"):
        port, folder = free_port(), tmp_path / "protocol-log"
        relay = make_relay(proxy_config(
            port, next_hop.port, pki, transport=f'protocol-log-folder = "{folder}"',
            receive=f"protocol-logging = {receive}", send=f"protocol-logging = {send}"))
        relay.port, relay.logs = port, folder
        return relay

    return make


def converse(relay, pki):
    client = Client(relay.port, pki)
    client.socket.sendall(f"AUTH PLAIN {SECRET}\r\n".encode())
    assert client.reply().startswith("5")
    client.socket.sendall(f"{SECRET}\r\n".encode())
    assert client.reply().startswith("5")
    client.message(f"Subject: one\r\n\r\n{BODY}\r\n")
    client.say("QUIT", 221)
    client.close()


def test_row_38_receive(logged, pki):
    relay = logged()
    converse(relay, pki)
    relay.stop()
    sessions = read_set(relay.logs, "RECV", "Receive")
    assert len(sessions) == 1
    rows = next(iter(sessions.values()))
    assert rows[0]["connector-id"] == "mx.adatum.test\\partner"
    assert rows[0]["local-endpoint"] == f"127.0.0.1:{relay.port}"
    assert set(sessions) <= {event["session"] for event in relay.events("session-end")}
    said = events(rows, "<")
    assert said == ["EHLO probe.test", "STARTTLS", "EHLO probe.test", "AUTH *", "*",
                    "MAIL FROM:<a@treyresearch.test>", "RCPT TO:<b@adatum.test>", "DATA", "QUIT"]
    replies = events(rows, ">")
    assert replies[0].startswith("220 ") and replies[-1].startswith("221 ")
    assert len(replies) == 1 + len(said) + 1  # the greeting, and the end of DATA
    assert any(reply.startswith("250-") and "; 250-STARTTLS" in reply for reply in replies)
    assert any("negotiation succeeded" in note for note in notes(rows)), notes(rows)
    assert [row["context"] for row in rows if "certificate" in row["context"].lower()][:4] == [
        "Sending certificate", "Certificate thumbprint",
        "Received certificate", "Certificate thumbprint"]
    assert any("mx.treyresearch.test" in note for note in notes(rows)), notes(rows)


def test_row_38_send(logged, next_hop, pki):
    relay = logged()
    converse(relay, pki)
    relay.stop()
    sessions = read_set(relay.logs, "SEND", "Send")
    assert len(sessions) == 1
    rows = next(iter(sessions.values()))
    assert rows[0]["connector-id"] == "mx.adatum.test\\inside"
    assert all(row["remote-endpoint"] in ("", f"127.0.0.1:{next_hop.port}") for row in rows)
    said = events(rows, ">")
    assert said[0].startswith("EHLO ") and "STARTTLS" in said and said[-1] == "QUIT"
    assert any(line.startswith("MAIL FROM:<a@treyresearch.test>") for line in said)
    assert any(line.startswith("RCPT TO:<b@adatum.test>") for line in said)
    assert all(len(line) < 200 for line in said)
    assert any("negotiation succeeded" in note for note in notes(rows)), notes(rows)
    assert [row["context"] for row in rows if "certificate" in row["context"].lower()][:4] == [
        "Sending certificate", "Certificate thumbprint",
        "Received certificate", "Certificate thumbprint"]


def test_row_38_no_body_and_no_secret(logged, pki):
    relay = logged()
    converse(relay, pki)
    client = Client(relay.port, pki)
    client.envelope()
    chunk = f"Subject: two\r\n\r\n{BODY}\r\n".encode()
    client.socket.sendall(f"BDAT {len(chunk)} LAST\r\n".encode() + chunk)
    assert client.reply().startswith("250")
    client.say("QUIT", 221)
    relay.stop()
    files = list(relay.logs.iterdir())
    assert len({path.name[:4] for path in files}) == 2
    for path in files:
        text = path.read_bytes()
        assert BODY.encode() not in text and b"Subject" not in text
        assert SECRET.encode() not in text and b"correct horse" not in text
        assert path.stat().st_mode & 0o007 == 0


def test_row_38_sessions_side_by_side(logged, pki):
    relay = logged()
    clients = [Client(relay.port, pki) for _ in range(5)]
    for _ in range(3):
        for client in clients:
            client.say("NOOP", 250)
    for client in clients[:-1]:
        client.say("QUIT", 221)
    clients[-1].close()  # without a word
    relay.stop()
    sessions = read_set(relay.logs, "RECV", "Receive")  # checks the order of each
    assert len(sessions) == 5
    assert sorted(events(rows, "<").count("NOOP") for rows in sessions.values()) == [3] * 5


def test_row_38_off_by_default(logged, pki):
    relay = logged(receive="none", send="none")
    converse(relay, pki)
    relay.stop()
    assert not list(relay.logs.glob("*.LOG"))


def test_row_38_one_side_only(logged, pki):
    relay = logged(send="none")
    converse(relay, pki)
    relay.stop()
    assert {path.name[:4] for path in relay.logs.iterdir()} == {"RECV"}


def test_row_38_injection(logged, pki):
    relay = logged()
    client = Client(relay.port, pki)
    client.socket.sendall(b'NOOP "a,b"\x00\x1b[2J,2026\r\n')
    client.reply()
    client.say("QUIT", 221)
    relay.stop()
    rows = next(iter(read_set(relay.logs, "RECV", "Receive").values()))
    assert 'NOOP "a,b"\\x00\\x1b[2J,2026' in events(rows, "<")


def test_row_38_restart_continues(logged, pki):
    relay = logged()
    converse(relay, pki)
    relay.stop()
    relay.start()
    converse(relay, pki)
    relay.stop()
    assert len(read_set(relay.logs, "RECV", "Receive")) == 2
    # One file, or two where the hour changed in between.
    assert all(path.name.endswith("-1.LOG") for path in relay.logs.glob("RECV*"))
