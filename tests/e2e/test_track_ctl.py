# SPDX-License-Identifier: Apache-2.0
"""posternctl track: what it finds in files of the message tracking log."""

import json
import subprocess
from pathlib import Path

import pytest

from conftest import BINARY

CTL = BINARY.parent / "posternctl"
FIELDS = ("date-time,client-ip,client-hostname,server-ip,server-hostname,source-context,"
          "connector-id,source,event-id,internal-message-id,message-id,network-message-id,"
          "recipient-address,recipient-status,total-bytes,recipient-count,"
          "related-recipient-address,reference,message-subject,sender-address,return-path,"
          "message-info,directionality,tenant-id,original-client-ip,original-server-ip,"
          "custom-data,transport-traffic-type,log-id,schema-version")
NAMES = FIELDS.split(",")
HEAD = ("#Software: Postern\r\n#Version: 1\r\n#Log-type: Message Tracking Log\r\n"
        f"#Date: 2026-11-21T22:00:00.000Z\r\n#Fields: {FIELDS}\r\n")


def quote(text):
    return '"' + text.replace('"', '""') + '"' if "," in text or '"' in text else text


def row(time, event, **values):
    values = {"date-time": time, "event-id": event, "source": "SMTP"} | {
        name.replace("_", "-"): value for name, value in values.items()}
    assert set(values) <= set(NAMES)
    return ",".join(quote(values.get(name, "")) for name in NAMES) + "\r\n"


ONE = {"internal_message_id": "00000000000000ab", "message_id": "<one@b.example>",
       "sender_address": "s@b.example", "message_subject": 'Hello, "you"'}
TWO = {"internal_message_id": "00000000000000cd", "message_id": "<two@b.example>",
       "sender_address": "T@b.example", "message_subject": "Zw\u00f6lf"}


@pytest.fixture
def folder(tmp_path):
    """Two hours; the tenth file of one of them; and what is no file of the log."""
    (tmp_path / "MSGTRK2026112122-1.LOG").write_text(
        HEAD + row("2026-11-21T22:46:05.100Z", "RECEIVE", total_bytes="1234", recipient_count="2",
                   recipient_address="a@a.example;B@a.example", **ONE)
        + row("2026-11-21T22:46:05.090Z", "RECEIVE", recipient_address="c@a.example", **TWO),
        newline="")
    (tmp_path / "MSGTRK2026112122-2.LOG").write_text(
        HEAD + row("2026-11-21T22:50:00.000Z", "SEND", recipient_address="a@a.example",
                   recipient_status="250 2.1.5 ok, really", **ONE), newline="")
    (tmp_path / "MSGTRK2026112122-10.LOG").write_text(
        HEAD + row("2026-11-21T22:59:00.000Z", "DEFER", recipient_address="b@a.example", **ONE),
        newline="")
    (tmp_path / "MSGTRK2026112123-1.LOG").write_text(
        HEAD + row("2026-11-21T22:59:59.999Z", "FAIL", recipient_address="b@a.example", **ONE)
        + row("2026-11-21T23:00:00.000Z", "SEND", recipient_address="c@a.example", **TWO),
        newline="")
    (tmp_path / "MSGTRK2026112123-1.LOG.old").write_text(
        HEAD + row("2026-11-21T23:00:00.000Z", "DSN"))
    (tmp_path / "RECV2026112123-1.LOG").write_text("#Software: Postern\r\na,b\r\n")
    return tmp_path


def run(*words, status=0):
    done = subprocess.run([CTL, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60, text=True, encoding="utf-8")
    assert done.returncode == status, done
    return done


def track(folder, *words):
    done = run("track", "--folder", str(folder), "--json", *words)
    return json.loads(done.stdout), done.stderr


def events(folder, *words):
    rows, errors = track(folder, *words)
    assert errors == ""
    return [(found["InternalMessageId"][-2:], found["EventId"]) for found in rows]


def test_all(folder):
    """In the order of time, whatever file and line they stand in."""
    assert events(folder) == [("cd", "RECEIVE"), ("ab", "RECEIVE"), ("ab", "SEND"), ("ab", "DEFER"),
                              ("ab", "FAIL"), ("cd", "SEND")]


@pytest.mark.parametrize("words, want", [
    (["--sender", "S@B.example"], ["RECEIVE", "SEND", "DEFER", "FAIL"]),
    (["--sender", "<t@b.example>"], ["RECEIVE", "SEND"]),
    (["--sender", "b.example"], []),
    (["--recipient", "b@a.example"], ["RECEIVE", "DEFER", "FAIL"]),
    (["--recipient", "<A@A.EXAMPLE>"], ["RECEIVE", "SEND"]),
    (["--message-id", "two@b.example"], ["RECEIVE", "SEND"]),
    (["--message-id", "<TWO@b.example>"], []),
    (["--id", "00000000000000AB", "--event", "send"], ["SEND"]),
    (["--event", "DSN"], []),
    (["--start", "2026-11-21T22:59"], ["DEFER", "FAIL", "SEND"]),
    (["--start", "2026-11-21 23:00:00Z"], ["SEND"]),
    (["--start", "2026-11-22"], []),
    (["--end", "2026-11-21"], []),
    (["--end", "2026-11-22", "--event", "FAIL"], ["FAIL"]),
    (["--end", "2026-11-21T22:46:05.100"], ["RECEIVE"]),
    (["--start", "2026-11-21T22:46:05.100", "--end", "2026-11-21T22:59:59.999"],
     ["RECEIVE", "SEND", "DEFER"])])
def test_filters(folder, words, want):
    assert [event for _, event in events(folder, *words)] == want


def test_json_has_all_columns(folder):
    rows, _ = track(folder, "--event", "RECEIVE", "--sender", "s@b.example")
    assert len(rows) == 1 and len(rows[0]) == 30
    assert rows[0]["Timestamp"] == "2026-11-21T22:46:05.100Z"
    assert rows[0]["Recipients"] == "a@a.example;B@a.example"
    assert rows[0]["MessageSubject"] == 'Hello, "you"'
    assert rows[0]["TotalBytes"] == "1234" and rows[0]["RecipientCount"] == "2"
    assert rows[0]["MessageId"] == "<one@b.example>" and rows[0]["ClientIp"] == ""
    rows, _ = track(folder, "--event", "SEND", "--sender", "s@b.example")
    assert rows[0]["RecipientStatus"] == "250 2.1.5 ok, really"
    assert track(folder, "--event", "DSN") == ([], "")


def test_table(folder):
    done = run("track", "--folder", str(folder), "--sender", "t@b.example")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["Timestamp", "EventId", "Source", "Sender", "Recipients",
                                "MessageSubject"]
    assert lines[1].split() == ["2026-11-21T22:46:05.090Z", "RECEIVE", "SMTP", "T@b.example",
                                "c@a.example", "Zw\u00f6lf"]
    assert len(lines) == 3


def test_limit(folder):
    """The newest of the files are kept, and the rest is counted."""
    rows, errors = track(folder, "--limit", "2")
    assert [found["EventId"] for found in rows] == ["FAIL", "SEND"]
    assert errors == "posternctl: note: 4 earlier rows are not shown; see --limit\n"
    assert events(folder, "--limit", "6") == events(folder)


def test_bad_rows(folder):
    """What is no row is counted, and hides nothing behind it."""
    with open(folder / "MSGTRK2026112123-1.LOG", "a", newline="") as log:
        log.write('2026-11-21T23:01:00.000Z,"cut off\r\nonly,three,columns\r\n')
        log.write(row("2026-11-21T23:02:00.000Z", "RESUME", **ONE))
        log.write("2026-11-21T23:03:00.000Z,being")
    rows, errors = track(folder)
    assert rows[-1]["EventId"] == "RESUME" and len(rows) == 7
    assert errors == "posternctl: note: 3 lines are no rows of a tracking log\n"


def test_many_rows(folder):
    """Rows go over the pieces that the files are read in."""
    with open(folder / "MSGTRK2026112200-1.LOG", "w", newline="") as log:
        log.write(HEAD)
        for i in range(5000):
            log.write(row(f"2026-11-22T00:{i // 60 % 60:02}:{i % 60:02}.{i // 3600:03}Z", "SEND",
                          internal_message_id=f"{i + 1:016x}", message_subject="x" * (i % 300)))
    rows, errors = track(folder, "--start", "2026-11-22", "--limit", "100000")
    assert errors == "" and len(rows) == 5000
    assert [found["Timestamp"] for found in rows] == sorted(found["Timestamp"] for found in rows)
    assert {found["InternalMessageId"] for found in rows} == {f"{i + 1:016x}" for i in range(5000)}
    rows, errors = track(folder)
    assert len(rows) == 1000 and "4006 earlier rows" in errors


def test_hostile_row(folder):
    with open(folder / "MSGTRK2026112200-1.LOG", "wb") as log:
        log.write(HEAD.encode() + row("2026-11-22T00:00:00.000Z", "SEND",
                                      message_subject="a\x1b[2Jb").encode())
    done = run("track", "--folder", str(folder), "--start", "2026-11-22")
    assert "\x1b" not in done.stdout and "a?[2Jb" in done.stdout


def test_no_file(tmp_path):
    assert track(tmp_path) == ([], "")


def test_links_are_not_followed(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "secret"
    other.write_text(HEAD + row("2026-11-22T00:00:00.000Z", "DSN"))
    (folder / "MSGTRK2026112200-1.LOG").symlink_to(other)
    done = run("track", "--folder", str(folder), status=2)
    assert "MSGTRK2026112200-1.LOG" in done.stderr


@pytest.mark.parametrize("words, message", [
    (["--start", "yesterday"], '--start: "yesterday" is no time'),
    (["--end", "2026-11-21T22"], '--end: "2026-11-21T22" is no time'),
    (["--start", "2026-11-21x22:46"], "is no time"),
    (["--id", "xyz"], '--id: "xyz" is no id of a message'),
    (["--event", "LOST"], '--event: there is no event "LOST"'),
    (["--limit", "0"], "--limit"),
    (["--folder", "/nonexistent/folder"], "/nonexistent/folder: No such file or directory"),
    (["what"], 'unexpected argument "what"')])
def test_mistakes(tmp_path, words, message):
    done = run("track", "--folder", str(tmp_path), *words, status=2)
    assert message in done.stderr and done.stdout == ""


def test_no_folder():
    minimal = Path(__file__).resolve().parents[2] / "policy/examples/minimal.conf"
    done = run("--config", str(minimal), "track", status=2)
    assert done.stdout == ""
    assert done.stderr == "posternctl: tracking-log-folder is not set; see --folder\n"
