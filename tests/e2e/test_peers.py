# SPDX-License-Identifier: Apache-2.0
"""Peers that others wrote, each in a test: openssl, swaks, smtplib, curl, Exim, Postfix."""

import os
import re
import smtplib
import ssl
import subprocess

import pytest

from conftest import PATIENCE, ROOT, free_port, proxy_config, wait_for

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
    """The one message of the next hop, without the field that the relay put in front."""
    assert len(hop.messages) == 1, f"{result}\n{relay.log()}"
    body = hop.messages[0].body.decode()
    field = re.match(r"Received: from [^\n]*\n(?:[ \t][^\n]*\n)*", body)
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
