# SPDX-License-Identifier: Apache-2.0
"""posternctl spool, on logs that this file writes by itself: the form on disk, told once more."""

import fcntl
import json
import os
import stat
import struct
import subprocess

import pytest

from conftest import BINARY, PATIENCE

POSTERNCTL = BINARY.with_name("posternctl")
BLOCK, ALIGN, HEADER = 4096, 64, 56
SEGMENT_BYTES = 1 << 20
NOW = 1795967999123  # 2026-11-29T15:59:59.123Z
SEGMENT, BODY, MESSAGE, RECIPIENTS, DONE, NOTE, SEAL = range(1, 8)
OPEN, DELIVERED, RELAYED, FAILED, EXPIRED, REMOVED = range(6)


def crc32c(data):
    state = 0xFFFFFFFF
    for byte in data:
        state = (state >> 8) ^ CRC_TABLE[(state ^ byte) & 0xFF]
    return state ^ 0xFFFFFFFF


def crc_entry(value):
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


CRC_TABLE = [crc_entry(value) for value in range(256)]


def text(value):
    return struct.pack("<H", len(value)) + value


class Log:
    """Segments of one log; each flush() ends a write."""

    def __init__(self, folder, log=0):
        self.folder = folder / f"{log:02}"
        self.folder.mkdir(parents=True)
        self.log, self.number, self.sequence = log, 0, 40
        self.data = None

    def begin(self):
        self.number += 1
        self.data, self.at, self.write = bytearray(SEGMENT_BYTES), 0, 0
        self.add(SEGMENT, 0, struct.pack("<IIQQq", 1, self.log, self.number, SEGMENT_BYTES, NOW))

    def add(self, kind, ident, payload=b""):
        self.sequence += 1
        at = self.at

        def header(checksum):
            return struct.pack("<4sIIIQQQqII", b"PSR1", checksum, kind, len(payload), self.number,
                               self.sequence, ident, NOW, self.write // BLOCK + 1, 0)

        assert len(header(0)) == HEADER
        record = header(crc32c(header(0) + payload)) + payload
        self.data[at:at + len(record)] = record
        self.at += -(-len(record) // ALIGN) * ALIGN
        return at

    def flush(self):
        self.at = self.write = -(-self.at // BLOCK) * BLOCK

    def save(self, name=None):
        (self.folder / (name or f"{self.number:06}.seg")).write_bytes(self.data)

    def body(self, ident, at, piece):
        offset = self.add(BODY, ident, struct.pack("<Q", at) + piece)
        return struct.pack("<QII", self.number, offset, len(piece)), len(piece)

    def message(self, ident, rest, extents=(), rcpts=((OPEN, b"<b@adatum.example>", b"", b""),),
                body=0, flags=0, attempts=0, **texts):
        body_bytes = len(rest) + sum(length for _, length in extents)
        names = ("sender", "ret", "envid", "connector", "send_connector", "session", "client",
                 "helo", "domain", "message_id", "subject", "server", "tls", "origin")
        texts.setdefault("sender", b"<a@woodgrove.example>")
        envelope = struct.pack("<BBHIqqQQH", 1, body, flags, len(rcpts), NOW, NOW + 172800000,
                               body_bytes, 20, attempts)
        envelope += b"".join(text(texts.get(name, b"")) for name in names)
        for state, path, notify, orcpt in rcpts:
            envelope += bytes([state]) + text(path) + text(notify) + text(orcpt)
        head = struct.pack("<QIIII", body_bytes, len(extents), len(envelope), len(rest), 0)
        return self.add(MESSAGE, ident,
                        head + b"".join(extent for extent, _ in extents) + envelope + rest)

    def change(self, ident, *rcpts, where=b"mx.adatum.example[192.0.2.9]:25", why=b""):
        payload = struct.pack("<BBHHHIq", 1, 0, 0, 3, 0, len(rcpts), 0) + text(where) + text(why)
        for index, state, code, words in rcpts:
            payload += struct.pack("<IBBH", index, state, 0, code) + text(words)
        return self.add(RECIPIENTS, ident, payload)

    def done(self, ident, why=1):
        return self.add(DONE, ident, bytes([why]))


class Spool:
    """Log 00 with three messages, of which two are live; log 03 with one."""

    PIECES = (b"Subject: one\r\n\r\n", bytes(range(256)) * 200, b"\0.\r\n..end\r\n")

    def __init__(self, folder):
        self.folder = folder
        first = self.first = Log(folder)
        first.begin()
        extents = [first.body(0xA1, 0, self.PIECES[0])]
        first.flush()
        self.body_at = first.at
        extents.append(first.body(0xA1, len(self.PIECES[0]), self.PIECES[1]))
        first.flush()
        self.message_at = first.message(
            0xA1, self.PIECES[2], extents, body=2, ret=b"HDRS", envid=b"QQ1",
            subject=b"h\xe4 \"x\"",
            rcpts=((OPEN, b"<b@adatum.example>", b"NEVER", b"rfc822;b@adatum.example"),
                   (OPEN, b"<c@adatum.example>", b"", b""),
                   (OPEN, b"<d@adatum.example>", b"", b"")))
        first.flush()
        first.add(SEAL, 0)
        first.save("000002.seg")
        first.begin()
        self.change_at = first.change(0xA1, (1, DELIVERED, 250, b"2.0.0 OK"),
                                      (2, FAILED, 550, b"5.1.1 no"))
        first.message(0xA2, b"x\r\n")
        first.flush()
        self.done_at = first.done(0xA2)
        first.message(0xA3, b"old\r\n")
        self.note_at = first.add(NOTE, 9, b"remember")
        first.flush()
        self.moved_at = first.message(0xA3, b"Subject: moved\r\n\r\nnew\r\n", sender=b"<>")
        first.flush()
        first.save("000001.seg")
        (first.folder / "000003.seg").write_bytes(bytes(SEGMENT_BYTES))
        other = Log(folder, 3)
        other.begin()
        other.message(0xB1, b"y\r\n")
        other.save()
        (folder / "lock").touch()

    def run(self, *arguments, status=0, says="", json_too=False):
        done = subprocess.run([POSTERNCTL, "spool", *arguments, "--spool", self.folder]
                              + (["--json"] if json_too else []),
                              capture_output=True, timeout=PATIENCE, check=False)
        assert done.returncode == status, (done.stdout[-2000:], done.stderr)
        assert says in done.stderr.decode()
        return json.loads(done.stdout) if json_too else done.stdout

    def flip(self, name, offset, bit=1):
        path = self.folder / "00" / name
        data = bytearray(path.read_bytes())
        data[offset] ^= bit
        path.write_bytes(data)


@pytest.fixture(name="spool")
def fixture_spool(tmp_path):
    return Spool(tmp_path / "spool")


def test_vector():
    assert crc32c(b"123456789") == 0xE3069283


def test_check(spool):
    out = spool.run("check").decode()
    assert out.splitlines()[-1] == "good"
    assert "log 00: 2 segments, 1 blank, 3145728 bytes" in out
    assert "SEGMENT 2, BODY 2, MESSAGE 4, RECIPIENTS 1, DONE 1, NOTE 1, SEAL 1" in out
    assert "2 to be delivered (2 recipients open," in out and "1 done" in out
    logs = spool.run("check", json_too=True)
    assert [log["log"] for log in logs] == [0, 3]
    assert logs[0]["messages"] == 2 and logs[0]["done"] == 1 and logs[0]["findings"] == []
    assert logs[0]["message_bytes"] == sum(map(len, spool.PIECES)) + len(
        b"Subject: moved\r\n\r\nnew\r\n")
    assert logs[1]["messages"] == 1


def test_check_changes_nothing(spool):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns)
              for path in spool.folder.rglob("*") if path.is_file()}
    spool.run("check")
    spool.run("dump")
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns)
                      for path in spool.folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name,where,kind", [
    ("000002.seg", "body_at", "damaged"),
    ("000002.seg", "message_at", "damaged"),
    ("000001.seg", "change_at", "damaged"),
    ("000001.seg", "done_at", "damaged"),
    ("000001.seg", "note_at", "damaged"),
    ("000001.seg", "moved_at", "torn"),
])
@pytest.mark.parametrize("byte", [0, 5, 9, 14, 20, 27, 35, 44, 50, 56])
def test_flipped_bit(spool, name, where, kind, byte):
    offset = getattr(spool, where)
    spool.flip(name, offset + byte, 4)
    log = spool.run("check", json_too=True, status=0 if kind == "torn" else 1)[0]
    found = [(finding["kind"], finding["offset"]) for finding in log["findings"]]
    assert (kind, offset) in found
    assert os.path.basename(log["findings"][0]["file"]) == name
    # What cannot be delivered without its body is told, too.
    assert len(found) == (2 if where == "body_at" else 1)
    out = spool.run("check", status=0 if kind == "torn" else 1).decode()
    assert f"/00/{name}:{offset}: {kind}: " in out


def test_segment_damaged(spool):
    spool.flip("000001.seg", 60)
    finding, = spool.run("check", json_too=True, status=1)[0]["findings"]
    assert finding["kind"] == "damaged" and finding["offset"] == 0 and finding["segment"] == 2


def test_segment_missing(spool):
    (spool.folder / "00/000002.seg").unlink()
    log = spool.run("check", json_too=True)[0]
    # Nobody can know of the oldest; what is left refers to nothing that is owed.
    assert log["messages"] == 1 and log["findings"] == []
    spool.first.begin()
    spool.first.message(0xA9, b"z\r\n")
    spool.first.save("000003.seg")
    (spool.folder / "00/000001.seg").rename(spool.folder / "00/000001.old")
    spool.first.sequence += 5
    spool.first.begin()
    spool.first.save("000007.seg")
    finding, = spool.run("check", json_too=True, status=1)[0]["findings"]
    assert finding["kind"] == "missing" and "are not here" in finding["words"]


def test_not_well_formed(spool):
    spool.first.begin()
    offset = spool.first.add(DONE, 0xA1, b"\x09")
    spool.first.save("000003.seg")
    log = spool.run("check", json_too=True, status=1)[0]
    finding, = log["findings"]
    assert (finding["kind"], finding["offset"]) == ("damaged", offset)
    assert log["messages"] == 2
    assert b"payload=\"not well-formed\"" in spool.run("dump")


@pytest.mark.parametrize("cut", range(0, 4096, 512))
def test_torn(spool, cut):
    path = spool.folder / "00/000001.seg"
    data = bytearray(path.read_bytes())
    data[spool.moved_at + cut:] = bytes(len(data) - spool.moved_at - cut)
    path.write_bytes(data)
    log = spool.run("check", json_too=True)[0]
    # The message is shorter than a sector.
    assert log["findings"] == []
    assert log["MESSAGE"] == (3 if cut == 0 else 4)


def test_lock(spool):
    with open(spool.folder / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (("check",), ("dump",), ("export", "--all", "--out", "/")):
            assert spool.run(*command, status=2, says="a relay is using") == b""
        assert b"good" in spool.run("check", "--live", says="a relay is using")
    with open(spool.folder / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        spool.run("check")
    (spool.folder / "lock").unlink()
    spool.run("check")


def test_dump(spool):
    lines = spool.run("dump").decode().splitlines()
    assert len(lines) == 14
    assert lines[0].startswith("log=0 segment=1 offset=0 sequence=41 type=SEGMENT "
                               "id=0000000000000000 time=2026-11-29T15:59:59.123Z ")
    assert r'subject="h\xe4 \x22x\x22"' in lines[3]
    assert "rcpt=<b@adatum.example> state=open notify=NEVER" in lines[3]
    assert "extent=1:128+16" in lines[3]
    assert len(spool.run("dump", "--log", "3").splitlines()) == 2
    spool.run("dump", "--log", "4", status=2, says="has no log 04")
    spool.run("dump", "--id", "a1", status=2, says="16 hex digits")


def test_dump_json(spool):
    records = spool.run("dump", "--id", "00000000000000a1", json_too=True)
    assert [record["type"] for record in records] == ["BODY", "BODY", "MESSAGE", "RECIPIENTS"]
    message, change = records[2:]
    assert message["subject"] == 'h\xe4 "x"'
    assert message["recipients"][0] == {
        "rcpt": "<b@adatum.example>", "state": "open", "notify": "NEVER",
        "orcpt": "rfc822;b@adatum.example"}
    assert message["extents"][0] == {"extent": "1:128+16"}
    assert message["body"] == "8BITMIME" and message["offset"] == spool.message_at
    assert change["where"] == "mx.adatum.example[192.0.2.9]:25"
    assert change["changes"] == [
        {"index": 1, "state": "delivered", "code": 250, "text": "2.0.0 OK"},
        {"index": 2, "state": "failed", "code": 550, "text": "5.1.1 no"}]
    assert spool.run("dump", "--id", "f" * 16, json_too=True) == []


def test_export(spool, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    spool.run("export", "00000000000000a1", "--out", out)
    path = out / "00000000000000a1.eml"
    envelope = (b"X-Sender: <a@woodgrove.example> BODY=8BITMIME RET=HDRS ENVID=QQ1\r\n"
                b"X-Receiver: <b@adatum.example> NOTIFY=NEVER ORcpt=rfc822;b@adatum.example\r\n")
    assert path.read_bytes() == envelope + b"".join(spool.PIECES)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # It is not replaced.
    spool.run("export", "00000000000000A1", "--out", out, status=1, says="File exists")
    assert spool.run("export", "00000000000000a1", "--out", "-", "--no-envelope") == b"".join(
        spool.PIECES)
    assert spool.run("export", "00000000000000a3", "--out", "-") == (
        b"X-Sender: <>\r\nX-Receiver: <b@adatum.example>\r\nSubject: moved\r\n\r\nnew\r\n")


def test_export_all(spool, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    spool.run("export", "--all", "--out", out, says="3 messages")
    assert sorted(path.name for path in out.iterdir()) == [
        "00000000000000a1.eml", "00000000000000a3.eml", "00000000000000b1.eml"]


def test_export_damaged(spool, tmp_path):
    spool.flip("000002.seg", spool.body_at + HEADER + 100)
    out = tmp_path / "out"
    out.mkdir()
    spool.run("export", "--all", "--out", out, status=1, says="is not what was written")
    assert sorted(path.name for path in out.iterdir()) == [
        "00000000000000a3.eml", "00000000000000b1.eml"]
    spool.run("export", "00000000000000a1", "--out", out, status=1)


@pytest.mark.parametrize("arguments,status,says", [
    (("00000000000000a2", "--out", "-"), 1, "no message of this id"),
    (("00000000000000a9", "--out", "-"), 1, "no message of this id"),
    (("a1", "--out", "-"), 2, "16 hex digits"),
    (("--out", "-"), 2, "expected an ID"),
    (("--all", "--out", "-"), 2, "--all and a folder"),
    (("00000000000000a1",), 2, "--out is missing"),
    (("00000000000000a1", "--out", "/nowhere/at/all"), 2, "No such file"),
])
def test_export_mistakes(spool, arguments, status, says):
    spool.run("export", *arguments, status=status, says=says)


def test_no_spool(spool, tmp_path):
    spool.folder = tmp_path / "none"
    spool.run("check", status=2, says="No such file")
    (tmp_path / "none").mkdir()
    assert spool.run("check") == b"good\n"
    assert spool.run("check", json_too=True) == []
