# SPDX-License-Identifier: Apache-2.0
"""Peers that others wrote, each in a test: openssl, swaks, smtplib, curl, Exim, Postfix."""

import os
import re
import smtplib
import ssl
import subprocess

import pytest

from conftest import PATIENCE, ROOT, free_port, proxy_config, wait_for
from lab import certificate, inside, lab, partner, receive, secure, send, transport  # noqa: F401

BODY = "Subject: independent\r\n\r\nfirst\r\n.dot\r\n..dots\r\n.\r\nlast\r\n"


@pytest.fixture
def relay(make_relay, next_hop, pki):
    port = free_port()
    relay = make_relay(proxy_config(port, next_hop.port, pki))
    relay.port = port
    return relay


def run(command, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=PATIENCE, check=False, **options)


def delivered(hop, relay, result=""):
    """The one message of the next hop, without the fields that the relay put in front."""
    assert len(hop.messages) == 1, f"{result}\n{relay.log()}"
    body = hop.messages[0].body.decode()
    field = re.match(r"Received: from [^\n]*\n(?:[ \t][^\n]*\n)*"
                     r"Authentication-Results: mx\.adatum\.test;\r\n(?:[ \t][^\n]*\n)*", body)
    assert field and "by mx.adatum.test (Postern" in field[0], body
    return body[field.end():]


def assert_proved(relay):
    """Both legs say who proved what."""
    inbound = wait_for(lambda: relay.events("tls"), "tls event")[-1]
    outbound = relay.events("nexthop-tls")[-1]
    assert inbound["client-cert"] == "Valid" and "mx.treyresearch.test" in inbound["subject"]
    assert outbound["server-cert"] == "Valid" and "mx.treyresearch.test" in outbound["subject"]
    assert len(inbound["spki"]) == 64
    assert inbound["record"].startswith(("kernel", "user("))
    return inbound


def test_openssl_s_client(relay, next_hop, pki):
    script = ("EHLO probe.test\r\nMAIL FROM:<a@treyresearch.test>\r\nRCPT TO:<b@adatum.test>\r\n"
              "DATA\r\n" + BODY.replace("\r\n.", "\r\n..") + ".\r\nQUIT\r\n")
    result = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{relay.port}", "-starttls", "smtp",
         "-crlf", "-quiet", "-ign_eof", "-cert", pki / "treyresearch.pem", "-key",
         pki / "treyresearch.key", "-CAfile", pki / "adatum-ca.pem", "-verify_return_error"],
        input=script.replace("\r\n", "\n").encode(), capture_output=True, timeout=PATIENCE,
        check=False)
    assert b"250 2.6.0 <1@hop.test> Queued mail" in result.stdout, result
    assert delivered(next_hop, relay) == BODY
    assert_proved(relay)


@pytest.mark.parametrize("version,word", [("tlsv1_2", "TLSv1.2"), ("tlsv1_3", "TLSv1.3")])
def test_swaks(relay, next_hop, pki, version, word):
    result = run(["swaks", "--server", "127.0.0.1", "--port", relay.port, "--tls",
                  "--tls-protocol", version, "--tls-cert", pki / "treyresearch.pem", "--tls-key",
                  pki / "treyresearch.key", "--tls-verify", "--tls-ca-path",
                  pki / "adatum-ca.pem", "--from", "a@treyresearch.test",
                  "--to", "b@adatum.test,c@adatum.test", "--data", "@-"], input=BODY)
    assert result.returncode == 0, result.stdout + result.stderr
    assert delivered(next_hop, relay).startswith("Subject: independent\r\n\r\nfirst\r\n.dot\r\n")
    assert len(next_hop.messages[0].recipients) == 2
    assert assert_proved(relay)["version"] == word


def smtplib_client(relay, pki, cert="treyresearch"):
    context = ssl.create_default_context(cafile=pki / "adatum-ca.pem")
    context.check_hostname = False
    if cert is not None:
        context.load_cert_chain(pki / f"{cert}.pem", pki / f"{cert}.key")
    client = smtplib.SMTP("127.0.0.1", relay.port, "probe.test", timeout=PATIENCE)
    client.starttls(context=context)
    return client


def test_smtplib(relay, next_hop, pki):
    with smtplib_client(relay, pki) as client:
        client.sendmail("a@treyresearch.test", ["b@adatum.test"], BODY)
        client.sendmail("ä@treyresearch.test", ["b@adatum.test"], BODY.encode(),
                        mail_options=["SMTPUTF8", "BODY=8BITMIME"])
    assert [message.how for message in next_hop.messages] == ["BDAT", "BDAT"]
    assert next_hop.messages[1].sender.endswith(" BODY=8BITMIME SMTPUTF8")
    assert "UTF8SMTPS" in next_hop.messages[1].body.decode()
    assert len(relay.events("nexthop-tls")) == 1, "the second message reuses the session"


def test_smtplib_refused_without_certificate(relay, next_hop, pki):
    with smtplib_client(relay, pki, cert=None) as client:
        assert client.ehlo()[0] == 250
        code, text = client.mail("a@treyresearch.test")
    assert (code, text) == (454, b"4.7.5 Certificate validation failure: EmptyCertificate")
    assert next_hop.commands == [], "a peer that proved nothing does not reach the next hop"
    assert relay.stats()["client_cert_refused"] == 1


def test_curl(relay, next_hop, pki, tmp_path):
    message = tmp_path / "message"
    message.write_text(BODY, newline="")
    result = run(["curl", "--silent", "--show-error", "--ssl-reqd", "--url",
                  f"smtp://mx.adatum.test:{relay.port}/probe.test", "--connect-to",
                  f"::127.0.0.1:{relay.port}", "--cacert", pki / "adatum-ca.pem", "--cert",
                  pki / "treyresearch.pem", "--key", pki / "treyresearch.key", "--mail-from",
                  "a@treyresearch.test", "--mail-rcpt", "b@adatum.test", "--upload-file", message])
    assert result.returncode == 0, result.stderr
    assert delivered(next_hop, relay) == BODY
    assert_proved(relay)


def peer(*command, text=None):
    """A script of tests/peers; a machine that cannot run them skips the test."""
    result = run([ROOT / "tests/peers" / command[0], *command[1:]], input=text)
    if result.returncode == 77:
        pytest.skip(result.stderr.strip().splitlines()[-1])
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


MESSAGE = BODY.replace("\r\n", "\n")


def test_exim_as_bdat_client(relay, next_hop, pki, tmp_path):
    log = peer("exim.sh", "send", tmp_path / "exim", "--to", f"127.0.0.1:{relay.port}",
               "--tls-cafile", pki / "adatum-ca.pem", "--verify-name", "mx.adatum.test",
               "--client-cert", pki / "treyresearch.pem", "--client-key",
               pki / "treyresearch.key", "a@treyresearch.test", "b@adatum.test", text=MESSAGE)
    assert " K " in log, f"Exim used no BDAT: {log}"
    assert delivered(next_hop, relay, log).endswith("first\r\n.dot\r\n..dots\r\n.\r\nlast\r\n")
    assert_proved(relay)


def test_postfix_as_client(relay, next_hop, pki, tmp_path):
    folder = tmp_path / "postfix"
    peer("postfix.sh", "start", folder, "--relayhost", f"[127.0.0.1]:{relay.port}",
         "--client-cert", pki / "treyresearch.pem", "--client-key", pki / "treyresearch.key",
         "--tls-cafile", pki / "adatum-ca.pem", "--tls-level", "secure", "--verify-name",
         "mx.adatum.test")
    try:
        peer("postfix.sh", "send", folder, "a@treyresearch.test", "b@adatum.test", text=MESSAGE)
        peer("postfix.sh", "wait", folder)
    finally:
        peer("postfix.sh", "stop", folder)
    log = (folder / "mail.log").read_text()
    assert "status=sent" in log and "Verified TLS connection established" in log, log
    assert delivered(next_hop, relay).endswith("first\r\n.dot\r\n..dots\r\n.\r\nlast\r\n")
    assert_proved(relay)


def test_postfix_as_next_hop(make_relay, pki, tmp_path):
    """A next hop that demands our certificate; the message is in its maildir, byte for byte."""
    port, hop_port = free_port(), free_port()
    folder = tmp_path / "postfix"
    peer("postfix.sh", "start", folder, "--listen", f"127.0.0.1:{hop_port}", "--tls-cert",
         pki / "treyresearch.pem", "--tls-key", pki / "treyresearch.key",
         "--require-client-cert", pki / "adatum-ca.pem")
    try:
        relay = make_relay(proxy_config(port, hop_port, pki))
        relay.port = port
        with smtplib_client(relay, pki) as client:
            client.sendmail("a@treyresearch.test", ["b@adatum.test"], BODY)
            assert client.rcpt("c@adatum.test")[0] == 503
        peer("postfix.sh", "wait", folder)
        mails = list((folder / "maildir/b@adatum.test/new").iterdir())
        assert len(mails) == 1
        assert mails[0].read_text().endswith("\nfirst\n.dot\n..dots\n.\nlast\n")
        assert "Trusted TLS connection established from" in (folder / "mail.log").read_text()
        assert relay.events("nexthop-tls")[-1]["server-cert"] == "Valid"
    finally:
        peer("postfix.sh", "stop", folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="Postfix and Exim as peers need root")
def test_exim_as_next_hop(make_relay, pki, tmp_path):
    port, hop_port = free_port(), free_port()
    folder = tmp_path / "exim"
    peer("exim.sh", "start", folder, "--listen", f"127.0.0.1:{hop_port}", "--tls-cert",
         pki / "treyresearch.pem", "--tls-key", pki / "treyresearch.key",
         "--require-client-cert", pki / "adatum-ca.pem")
    try:
        relay = make_relay(proxy_config(port, hop_port, pki))
        relay.port = port
        with smtplib_client(relay, pki) as client:
            client.sendmail("a@treyresearch.test", ["b@adatum.test"], BODY)
        new = folder / "maildir/b@adatum.test/new"
        wait_for(lambda: new.exists() and list(new.iterdir()), "delivered message")
        assert list(new.iterdir())[0].read_text().endswith("\nfirst\n.dot\n..dots\n.\nlast\n")
    finally:
        peer("exim.sh", "stop", folder)


# ---- row 51: Postfix as a partner, configured the same way ------------------------------------

def postfix_partner(pki, tmp_path, port, *words):
    """treyresearch.test on Postfix: level secure, and its own certificate unless words say so."""
    folder = tmp_path / "postfix"
    peer("postfix.sh", "start", folder, "--relayhost", f"[127.0.0.1]:{port}", "--tls-cafile",
         pki / "adatum-ca.pem", "--tls-level", "secure", "--verify-name", "adatum.test",
         "--hostname", "mx.treyresearch.test", *words)
    return folder


def secured_door(lab):
    port, hop = free_port(), lab.server(how="clear")
    relay = lab.relay(transport(), certificate(), partner(), secure("partners", port),
                      inside(hop.port))
    return relay, port, hop


def test_row_51_postfix_sends_secured_mail(lab, pki, tmp_path):
    relay, port, hop = secured_door(lab)
    folder = postfix_partner(pki, tmp_path, port, "--client-cert", pki / "treyresearch.pem",
                             "--client-key", pki / "treyresearch.key")
    try:
        peer("postfix.sh", "send", folder, "a@treyresearch.test", "b@adatum.test", text=MESSAGE)
        peer("postfix.sh", "wait", folder)
    finally:
        peer("postfix.sh", "stop", folder)
    log = (folder / "mail.log").read_text()
    assert "status=sent" in log and "Verified TLS connection established to" in log, log
    body = hop.messages[0].body.decode()
    assert "x-domain-secure=pass" in body and body.endswith("..dots\r\n.\r\nlast\r\n")
    assert relay.counter("messages_secured") == 1


@pytest.mark.parametrize("leaf,word", [(None, "EmptyCertificate"),
                                       ("treyresearch-expired", "Expired"),
                                       ("treyresearch-host", "SubjectMismatch")])
def test_row_51_postfix_that_proves_nothing_keeps_its_mail(lab, pki, tmp_path, leaf, word):
    relay, port, hop = secured_door(lab)
    words = [] if leaf is None else ["--client-cert", pki / f"{leaf}.pem", "--client-key",
                                     pki / f"{leaf}.key"]
    folder = postfix_partner(pki, tmp_path, port, *words)
    try:
        peer("postfix.sh", "send", folder, "a@treyresearch.test", "b@adatum.test", text=MESSAGE)
        wait_for(lambda: "status=deferred" in (folder / "mail.log").read_text(), "deferral")
    finally:
        peer("postfix.sh", "stop", folder)
    log = (folder / "mail.log").read_text()
    assert f"454 4.7.5 Certificate validation failure: {word}" in log and "status=sent" not in log
    assert hop.mails == 0 and relay.refusals(status=word, partner="trey")


def postfix_door(lab, pki, tmp_path, leaf, client_ca="adatum-ca"):
    """Postfix that demands a certificate of ours; a relay that sends there, secured."""
    port, hop_port = free_port(), free_port()
    folder = tmp_path / "postfix"
    peer("postfix.sh", "start", folder, "--listen", f"127.0.0.1:{hop_port}", "--tls-cert",
         pki / f"{leaf}.pem", "--tls-key", pki / f"{leaf}.key", "--require-client-cert",
         pki / f"{client_ca}.pem", "--hostname", "mx.treyresearch.test")
    relay = lab.relay(transport(), certificate(), partner(),
                      receive("in", port, send_connector="out"),
                      send("out", hop_port, certificate="edge", domain_secure=True))
    return folder, relay, port


def test_row_51_postfix_takes_secured_mail(lab, pki, tmp_path):
    folder, relay, port = postfix_door(lab, pki, tmp_path, "treyresearch")
    try:
        client = lab.opened(port, tls=False)
        assert client.send("a@adatum.test", "b@treyresearch.test").startswith("250")
        peer("postfix.sh", "wait", folder)
        mails = list((folder / "maildir/b@treyresearch.test/new").iterdir())
        assert len(mails) == 1 and mails[0].read_text().endswith("\ntext\n")
        log = (folder / "mail.log").read_text()
        assert "Trusted TLS connection established from" in log, log
        assert relay.events("nexthop-tls")[-1]["server-cert"] == "Valid"
        assert relay.counter("messages_sent_secured") == 1
    finally:
        peer("postfix.sh", "stop", folder)


@pytest.mark.parametrize("leaf,word", [("treyresearch-self", "UntrustedRoot"),
                                       ("treyresearch-name", "SubjectMismatch"),
                                       ("treyresearch-expired", "Expired")])
def test_row_51_postfix_that_is_not_the_partner_gets_nothing(lab, pki, tmp_path, leaf, word):
    folder, _, port = postfix_door(lab, pki, tmp_path, leaf)
    try:
        reply = lab.opened(port, tls=False).send("a@adatum.test", "b@treyresearch.test")
        assert reply == f"454 4.7.5 Certificate validation failure: {word}"
        log = (folder / "mail.log").read_text()
        assert "client=" not in log and " mail=" not in log, log
    finally:
        peer("postfix.sh", "stop", folder)


def test_row_51_swaks_and_a_listed_domain(lab, pki):
    """A client that others wrote, on all three of r2, r3 and r6."""
    relay, port, hop = secured_door(lab)
    base = ["swaks", "--server", "127.0.0.1", "--port", port, "--from", "a@treyresearch.test",
            "--to", "b@adatum.test"]
    cert = ["--tls-cert", pki / "treyresearch.pem", "--tls-key", pki / "treyresearch.key"]
    for words, code, reply in (([], 23, "451 4.7.3 Mail from treyresearch.test"),
                               (["--tls"], 23, "454 4.7.5 Certificate validation failure: Empty"),
                               (["--tls", *cert], 0, "250 2.6.0 ")):
        result = run(base + words)
        assert result.returncode == code and reply in result.stdout, result.stdout
    assert len(hop.messages) == 1 and len(relay.refusals()) == 2
