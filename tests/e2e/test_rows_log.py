# SPDX-License-Identifier: Apache-2.0
"""Rows 38 and 39: the protocol log of deliveries from the queue, its rotation, and TLS in it.

Row 38 of a proxy is in test_protolog.py, whose parser reads all of it.
"""

import os
import re
import subprocess

import pytest

from conftest import PKI, free_port, wait_for
from lab import client_context, lab, partner  # noqa: F401  pylint: disable=unused-import
from queue_lab import Case, ScriptedHop, queueing, spooled, way_out
from test_protolog import events, notes, read_set
from test_rows_receive import secured
from test_rows_send import direct

CHAIN = "454 4.7.5 Certificate validation failure: "
BODY = "a line that only the body has"
VERBOSE = {"protocol_logging": "verbose"}


def one(sessions):
    assert len(sessions) == 1, list(sessions)
    return next(iter(sessions.values()))


# ---- row 38: deliveries from the queue, rotation ---------------------------------------------

@pytest.fixture
def queue(lab):
    """A relay that keeps mail, with a protocol log of both sides, and its scripted next hop."""
    hop, port, logs = lab.keep(ScriptedHop(chunking=True)), free_port(), lab.place("logs")
    relay = lab.relay(spooled(lab.place("spool") / "spool", protocol_log_folder=logs),
                      queueing("in", port, **VERBOSE), way_out("inside", hop.port, **VERBOSE))
    relay.logs, relay.port, relay.hop = logs, port, hop
    return relay


def send_one(lab, relay, name, to):
    client = lab.opened(relay.port, tls=False)
    reply = client.send(f"{name}@woodgrove.test", to,
                        body=f"Subject: not for the log\r\n\r\n{BODY}\r\n")
    assert reply.startswith("250 2.6.0 "), reply
    client.quit()


def test_row_38_delivery_from_the_queue(lab, queue):
    case = queue.hop.add(Case("busy", "RCPT", "450 4.2.1 mailbox, \"busy\""))
    send_one(lab, queue, "busy", ["b@adatum.test"])
    wait_for(lambda: case.bodies, "the second attempt", 20)
    queue.stop()
    received = one(read_set(queue.logs, "RECV", "Receive"))
    assert any("Queued mail for delivery" in reply for reply in events(received, ">"))
    sessions = read_set(queue.logs, "SEND", "Send")  # nine columns, CSV, the order of each
    said = [line for rows in sessions.values() for line in events(rows, ">")]
    heard = [line for rows in sessions.values() for line in events(rows, "<")]
    assert said.count("QUIT") == len(sessions)
    assert [line.split()[0] for line in said].count("MAIL") == 2
    assert sum(line.startswith("RCPT TO:<b@adatum.test>") for line in said) == 2
    assert '450 4.2.1 mailbox, "busy"' in heard, "the reply as it was, through the quotes of CSV"
    assert "250 2.6.0 taken" in heard
    for rows in sessions.values():
        assert rows[0]["connector-id"] == "mx.adatum.test\\inside"
        assert {row["remote-endpoint"] for row in rows} <= {"", f"127.0.0.1:{queue.hop.port}"}
    assert not set(sessions) & {received[0]["session-id"]}, "sessions of their own"


def test_row_38_a_notice_is_in_the_log_and_no_body_is(lab, queue):
    queue.hop.add(Case("gone", "RCPT", "550 5.1.1 no such mailbox"))
    send_one(lab, queue, "gone", ["b@adatum.test"])
    wait_for(lambda: queue.hop.notices.get("gone"), "the notice", 20)
    queue.stop()
    rows = [row for rows in read_set(queue.logs, "SEND", "Send").values() for row in rows]
    said = events(rows, ">")
    assert any(line.startswith("MAIL FROM:<>") for line in said), said
    assert any(line.startswith("RCPT TO:<gone@woodgrove.test>") for line in said), said
    assert "550 5.1.1 no such mailbox" in events(rows, "<")
    for path in queue.logs.iterdir():
        text = path.read_text()
        assert BODY not in text and "not for the log" not in text, path.name
        assert "Diagnostic-Code" not in text, "nor the body of the notice"
        assert path.stat().st_mode & 0o007 == 0


def test_row_38_rotation(lab):
    """Files end at their size, the oldest go, and each begins with the five lines of its head."""
    hop, port, logs = lab.keep(ScriptedHop(chunking=True)), free_port(), lab.place("logs")
    relay = lab.relay(
        spooled(lab.place("spool") / "spool", protocol_log_folder=logs,
                protocol_log_max_file_size="4KB", protocol_log_max_directory_size="16KB"),
        queueing("in", port, **VERBOSE), way_out("inside", hop.port, **VERBOSE))
    relay.port = port
    hop.add(Case("last", "never", None))
    for _ in range(30):
        send_one(lab, relay, "many", ["b@adatum.test"])
    send_one(lab, relay, "last", ["b@adatum.test"])
    wait_for(lambda: hop.cases["last"].bodies, "the last delivery", 20)
    relay.stop()
    for prefix, kind in (("RECV", "Receive"), ("SEND", "Send")):
        files = sorted(logs.glob(f"{prefix}*"), key=lambda path: path.stat().st_mtime_ns)
        sizes = [path.stat().st_size for path in files]
        assert len(files) > 1 and max(sizes) <= 4096 + 1024 and sum(sizes) <= 16384 + 4096, sizes
        assert not [path for path in files if path.name.endswith("-1.LOG")], "the first are gone"
        for path in files:
            head = path.read_bytes().split(b"\r\n")
            assert head[2] == f"#Log-Type: SMTP {kind} Protocol Log".encode()
            assert all(line.count(b",") >= 8 for line in head[5:-1]), "no row is cut"
    assert "last@woodgrove.test" in "".join(path.read_text() for path in logs.glob("RECV*"))


# ---- row 39: certificates, protocol, cipher, status ------------------------------------------

def facts(leaf):
    """What openssl says of a certificate, in the words of the log; its thumbprint."""
    path = leaf if os.path.isabs(leaf) else PKI / f"{leaf}.pem"
    text = subprocess.run(
        ["openssl", "x509", "-in", path, "-noout", "-nameopt", "RFC2253", "-subject", "-issuer",
         "-serial", "-fingerprint", "-sha1", "-ext", "subjectAltName"],
        check=True, capture_output=True, text=True).stdout
    fields = dict(re.findall(r"(?m)^(subject|issuer|serial|sha1 Fingerprint)=(.*)$", text))
    names = re.findall(r"DNS:([^,\s]+)", text)
    return fields, names, fields["sha1 Fingerprint"].replace(":", "")


def shown(rows, what):
    """The rows of one certificate: its data and its thumbprint, one behind the other; or None."""
    for number, row in enumerate(rows):
        if row["context"] == what:
            assert rows[number + 1]["context"] == "Certificate thumbprint"
            return row["data"], rows[number + 1]["data"]
    return None


def assert_shown(rows, what, leaf):
    fields, names, thumbprint = facts(leaf)
    data, said = shown(rows, what)
    assert said == thumbprint
    for key in ("subject", "issuer", "serial"):
        assert f"{key}={fields[key]} " in data, (key, data)
    assert re.search(r" not-before=20\S+Z not-after=20\S+Z names=", data), data
    assert data.partition(" names=")[2].split(";") == names or not names, data


def assert_protocol(rows, version=r"TLSv1\.3", cipher=r"TLS_\w+"):
    assert [note for note in notes(rows) if re.search(
        rf"TLS protocol {version} negotiation succeeded using {cipher} with strength \d+ bits",
        note)], notes(rows)


@pytest.fixture
def door(lab):
    """door(...): a domain-secure receive connector with a log; its rows of one session, later."""
    logs = lab.place("logs")

    def make(*sections):
        relay, port, _ = secured(lab, *sections, extra={"protocol_log_folder": logs}, **VERBOSE)

        def rows():
            relay.stop()
            return one(read_set(logs, "RECV", "Receive"))
        return port, rows

    return make


def test_row_39_in_clear(lab, door):
    port, rows = door()
    client = lab.opened(port, tls=False)
    assert client.mail("a@treyresearch.test").startswith("451 4.7.3 ")
    client.quit()
    log = rows()
    assert not [note for note in notes(log) if "ertificate" in note or "TLS" in note], notes(log)
    assert any("needs mutual TLS: STARTTLS was not used" in line for line in events(log, ">"))


def test_row_39_no_client_certificate(lab, door):
    port, rows = door()
    client = lab.opened(port)
    assert client.mail("a@treyresearch.test") == CHAIN + "EmptyCertificate"
    client.quit()
    log = rows()
    assert_shown(log, "Sending certificate", "adatum")
    assert_protocol(log)
    assert shown(log, "Received certificate") is None
    assert "Client certificate chain validation status: 'EmptyCertificate' " in notes(log)
    assert "TlsDomainCapabilities='None'; Status='NoRemoteCertificate' " in notes(log)
    assert "TlsDomain='treyresearch.test'; Status='EmptyCertificate' " in notes(log)
    assert CHAIN + "EmptyCertificate" in events(log, ">")


RECEIVED = {"treyresearch-other": "UntrustedRoot", "treyresearch-expired": "Expired",
            "treyresearch-future": "NotYetValid", "treyresearch-revoked": "Revoked",
            "treyresearch-server": "BadUsage", "treyresearch-weak": "WeakKey",
            "treyresearch-name": "SubjectMismatch", "treyresearch": "Valid"}


@pytest.mark.parametrize("leaf", RECEIVED)
def test_row_39_each_client_certificate(lab, door, leaf):
    word = RECEIVED[leaf]
    port, rows = door()
    client = lab.opened(port, leaf)
    reply = client.mail("a@treyresearch.test")
    assert reply.startswith("250 ") if word == "Valid" else reply == CHAIN + word
    client.quit()
    log = rows()
    assert_shown(log, "Sending certificate", "adatum")
    assert_shown(log, "Received certificate", leaf)
    assert_protocol(log)
    # At the handshake it is judged by the connector's own anchors, and for the partner at MAIL.
    assert [note for note in notes(log) if "chain validation status: '" in note]
    said = [note for note in notes(log) if "TlsDomain='treyresearch.test'" in note]
    assert said == [f"TlsDomain='treyresearch.test'; Status='{word}' "]
    assert word == "Valid" or CHAIN + word in events(log, ">")


def test_row_39_protocol_and_cipher_of_tls_1_2(lab, door):
    port, rows = door()
    client = lab.client(port)
    client.ehlo()
    client.starttls(context=client_context("treyresearch", tls13=False))
    client.quit()
    assert_protocol(rows(), r"TLSv1\.2", r"TLS_ECDHE_\w+")


SENT = {"treyresearch-other": "UntrustedRoot", "treyresearch-expired": "Expired",
        "treyresearch-revoked": "Revoked", "treyresearch-eku": "BadUsage",
        "treyresearch-weak": "WeakKey", "treyresearch-name": "SubjectMismatch",
        "treyresearch": "Valid"}


def send_to(lab, port):
    """A message to the partner by a domain-secure connector to that port: the reply, the log."""
    logs = lab.place("logs")
    relay, door_port = direct(lab, port, partner(crl_files=[PKI / "treyresearch-ca.crl"]),
                              extra={"protocol_log_folder": logs}, domain_secure=True, **VERBOSE)
    client = lab.opened(door_port, tls=False)
    reply = client.send("a@adatum.test", "b@treyresearch.test")
    client.quit()
    relay.stop()
    return reply, one(read_set(logs, "SEND", "Send"))


@pytest.mark.parametrize("leaf", SENT)
def test_row_39_each_server_certificate(lab, leaf):
    word = SENT[leaf]
    server = lab.server(cert=leaf, client="require")
    reply, log = send_to(lab, server.port)
    assert reply.startswith("250 ") if word == "Valid" else reply.endswith(word), reply
    assert_shown(log, "Sending certificate", "adatum")
    assert_shown(log, "Received certificate", leaf)
    assert_protocol(log)
    assert f"Server certificate validation status: '{word}' " in notes(log)
    assert f"TlsDomain='treyresearch.test'; Status='{word}' " in notes(log)
    mails = [line for line in events(log, ">") if line.startswith("MAIL")]
    assert len(mails) == (1 if word == "Valid" else 0)


def test_row_39_a_server_without_starttls(lab):
    reply, log = send_to(lab, lab.server(how="clear").port)
    assert reply.startswith("451 4.7.3 ")
    assert not [note for note in notes(log) if "ertificate" in note], notes(log)
    assert [line.split()[0] for line in events(log, ">")] == ["EHLO", "QUIT"]


def test_row_39_a_handshake_that_fails(lab):
    reply, log = send_to(lab, lab.server(how="broken").port)
    assert reply.startswith("451 4.7.3 ")
    assert [note for note in notes(log) if "TLS negotiation failed with error " in note], notes(log)
    assert not [line for line in events(log, ">") if line.startswith("MAIL")]
