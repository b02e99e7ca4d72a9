# SPDX-License-Identifier: Apache-2.0
"""Notices, read by a parser that others wrote: headers, parts, and what is said of each recipient.

Run with pytest; POSTERN_BUILD (build/release) says where tools/notice_sample lies.
"""

import email
import email.policy
import email.utils
import os
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("POSTERN_BUILD", ROOT / "build/release")) / "tools/notice_sample"
NOW = datetime(2026, 11, 29, 16, 0, tzinfo=timezone.utc)
NAMES = ["whole", "headers", "eight-bit", "delayed", "relayed", "mixed", "utf8", "hostile"]


@pytest.fixture(scope="module", autouse=True)
def program():
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built: make tools")


def sample(name):
    return subprocess.run([PROGRAM, name], check=True, timeout=60, stdout=subprocess.PIPE).stdout


def parse(name):
    raw = sample(name)
    policy = email.policy.SMTPUTF8 if name == "utf8" else email.policy.default
    message = email.message_from_bytes(raw, policy=policy)
    for part in message.walk():
        assert not part.defects, (part.get_content_type(), part.defects)
    return message, raw


def fields(block):
    """A block of the second part: names and values, in order."""
    return [(name, str(value)) for name, value in block.items()]


def blocks(message):
    """The block of the message and those of the recipients, as email has parsed them."""
    part = message.get_payload()[1]
    if part.get_content_type() == "message/delivery-status":
        return part.get_payload()
    # To email the blocks of this kind are one message, the first is its header.
    text = part.get_payload()[0].as_bytes(policy=email.policy.SMTPUTF8)
    return [email.message_from_bytes(block.strip() + b"\r\n\r\n", policy=email.policy.SMTPUTF8)
            for block in text.split(b"\r\n\r\n") if block.strip()]


def words(message):
    """What the first part says, to people and to administrators."""
    text = message.get_payload()[0].get_content().replace("\r\n", "\n")
    people, _, experts = text.partition("Diagnostic information for administrators:\n")
    return people, experts


def test_samples_are_known():
    listed = subprocess.run([PROGRAM], check=True, timeout=60, stdout=subprocess.PIPE, text=True)
    assert listed.stdout.split() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_lines(name):
    raw = sample(name)
    assert raw.endswith(b"--\r\n")
    lines = raw.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    if name not in ("eight-bit", "utf8"):
        assert max(raw) < 128
    for line in lines:
        assert not set(line) & (set(range(32)) - {9} | {127}), line


@pytest.mark.parametrize("name", NAMES)
def test_header(name):
    message, _ = parse(name)
    once = ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Auto-Submitted",
            "Content-Type", "Content-Transfer-Encoding"]
    for field in once:
        assert len(message.get_all(field)) == 1, field
    allowed = set(once) | {"In-Reply-To", "References", "X-MS-Exchange-Message-Is-Ndr"}
    assert set(message.keys()) <= allowed
    assert message["From"].addresses[0].addr_spec == "postmaster@a.example"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Date"].datetime == NOW
    assert message["Message-ID"].startswith("<0000000000000010.")
    assert message["Message-ID"].endswith("@edge.a.example>")
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    is_failure = name not in ("delayed", "relayed")
    assert ("X-MS-Exchange-Message-Is-Ndr" in message) == is_failure
    assert message["Content-Transfer-Encoding"] == (
        "8bit" if name in ("eight-bit", "utf8") else "7bit")
    if name in ("delayed", "hostile"):
        assert "In-Reply-To" not in message and "References" not in message
    else:
        assert message["In-Reply-To"] == message["References"] == "<one@b.example>"
    if name != "utf8":
        assert message["To"].addresses[0].addr_spec == "sender@b.example"


@pytest.mark.parametrize("name, subject", [
    ("whole", "Undeliverable: Hello"), ("delayed", "Delayed: Hello"),
    ("relayed", "Relayed: Hello"), ("mixed", "Undeliverable: Hello"),
    ("utf8", "Undeliverable: gr\u00fc\u00df")])
def test_subject(name, subject):
    assert parse(name)[0]["Subject"] == subject


@pytest.mark.parametrize("name, kinds", [
    ("whole", ["text/plain", "message/delivery-status", "message/rfc822"]),
    ("eight-bit", ["text/plain", "message/delivery-status", "message/rfc822"]),
    ("headers", ["text/plain", "message/delivery-status", "text/rfc822-headers"]),
    ("delayed", ["text/plain", "message/delivery-status", "text/rfc822-headers"]),
    ("relayed", ["text/plain", "message/delivery-status", "text/rfc822-headers"]),
    ("mixed", ["text/plain", "message/delivery-status", "text/rfc822-headers"]),
    ("hostile", ["text/plain", "message/delivery-status", "text/rfc822-headers"]),
    ("utf8", ["text/plain", "message/global-delivery-status", "message/global"])])
def test_parts(name, kinds):
    message, _ = parse(name)
    parts = message.get_payload()
    assert [part.get_content_type() for part in parts] == kinds
    for part in parts[:2]:
        assert part["Content-Transfer-Encoding"] == ("8bit" if name == "utf8" else "7bit")
    people, experts = words(message)
    assert people and experts
    assert "Generating server: edge.a.example\n" in experts


def test_refusal():
    message, raw = parse("whole")
    people, experts = words(message)
    assert "b@adatum.example" in people and "mx.adatum.example" in people
    assert "550" not in people
    assert "Remote server: mx.adatum.example[192.0.2.1]:25\n" in experts
    assert "Remote server returned '550 5.1.1 no such user'\n" in experts
    assert fields(blocks(message)[0]) == [
        ("Reporting-MTA", "dns; edge.a.example"), ("Original-Envelope-Id", "QQ+1"),
        ("Received-From-MTA", "dns; mail.b.example"),
        ("Arrival-Date", "Sun, 29 Nov 2026 15:59:00 +0000")]
    assert fields(blocks(message)[1]) == [
        ("Original-Recipient", "rfc822; b+x@adatum.example"),
        ("Final-Recipient", "rfc822; b@adatum.example"), ("Action", "failed"),
        ("Status", "5.1.1"), ("Remote-MTA", "dns; mx.adatum.example"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 no such user"),
        ("Last-Attempt-Date", "Sun, 29 Nov 2026 15:59:59 +0000")]
    assert len(blocks(message)) == 2
    original = message.get_payload()[2].get_payload()[0]
    assert original["Subject"] == "Hello" and original["Message-ID"] == "<one@b.example>"
    # The original has no line end at its end, and gets none.
    assert b"\r\n\r\nbody without an end\r\n--=_" in raw


def test_headers_only():
    message, _ = parse("headers")
    part = message.get_payload()[2]
    copied = email.message_from_string(part.get_content(), policy=email.policy.default)
    assert copied["Subject"] == "Hello" and copied["Received"] == "from x"
    assert not copied.get_content().strip()


def test_delay():
    message, _ = parse("delayed")
    about, recipient = blocks(message)
    assert about.keys() == ["Reporting-MTA", "Arrival-Date"]
    assert fields(recipient) == [
        ("Final-Recipient", "rfc822; b@adatum.example"), ("Action", "delayed"),
        ("Status", "4.4.7"), ("Diagnostic-Code", "smtp; 400 4.4.7 Message delayed"),
        ("Will-Retry-Until", "Mon, 30 Nov 2026 16:00:00 +0000")]
    assert email.utils.parsedate_to_datetime(recipient["Will-Retry-Until"]) > NOW


def test_mixed():
    message, _ = parse("mixed")
    recipients = blocks(message)[1:]
    assert [block["Action"] for block in recipients[:5]] == [
        "failed", "delayed", "delivered", "relayed", "failed"]
    assert len(recipients) == 100
    statuses = {block["Action"]: block["Status"] for block in recipients[1:]}
    assert statuses == {"failed": "5.0.0", "delayed": "4.4.7", "delivered": "2.0.0",
                        "relayed": "2.0.0"}
    assert "20 more recipients" in words(message)[0]


def test_utf8():
    message, raw = parse("utf8")
    assert "To: <s\u00e9nder@b.example>\r\n".encode() in raw
    recipient = blocks(message)[1]
    assert recipient["Original-Recipient"] == "utf-8; \\x{E9}@adatum.example"
    assert recipient["Final-Recipient"] == "utf-8; \u00e9@adatum.example"
    assert "gr\u00fc\u00df\r\n\r\n\u00e9\r\n\r\n--".encode() in raw


def test_hostile():
    message, _ = parse("hostile")
    assert "Bcc" not in message
    about, recipient = blocks(message)
    assert about.keys() == ["Reporting-MTA", "Original-Envelope-Id", "Received-From-MTA",
                            "Arrival-Date"]
    assert recipient.keys() == ["Original-Recipient", "Final-Recipient", "Action", "Status",
                                "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date"]
    assert recipient["Original-Recipient"] == "rfc822; a    X-Evil: b@c.example"
