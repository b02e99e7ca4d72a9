# SPDX-License-Identifier: Apache-2.0
"""Rules that were once broken: each test is named after what went wrong."""

import os
import shutil
import socket
import ssl
import subprocess
import time

import pytest

from conftest import BINARY, PATIENCE, NextHop, free_port, proxy_config, wait_for
from test_relay import Client


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_keys_are_read_before_the_user_changes(make_relay, next_hop, pki, tmp_path):
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("adatum.pem", "adatum.key", "treyresearch-ca.pem"):
        shutil.copy(pki / name, keys / name)
        (keys / name).chmod(0o600)
    port = free_port()
    relay = make_relay(proxy_config(port, next_hop.port, keys, transport='user = "nobody"'))
    with open(f"/proc/{relay.process.pid}/status", encoding="ascii") as status:
        assert "\nUid:\t65534\t65534\t65534" in status.read()
    Client(port, pki).message()
    assert len(next_hop.messages) == 1


def test_a_second_relay_on_the_same_port_does_not_start(start):
    relay = start()
    second = subprocess.run([BINARY, "--config", relay.config], capture_output=True, text=True,
                            timeout=PATIENCE, check=False)
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{relay.port}" in second.stderr


def test_no_pipelining_to_a_next_hop_without_it(make_relay, pki):
    hop = NextHop(pki, keywords=["SIZE 1000000", "8BITMIME", "CHUNKING"])
    port = free_port()
    make_relay(proxy_config(port, hop.port, pki))
    client = Client(port, pki)
    for _ in range(3):
        client.socket.sendall(b"MAIL FROM:<a@treyresearch.test>\r\n" +
                              b"RCPT TO:<b@adatum.test>\r\n" * 5 + b"DATA\r\n")
        assert [client.reply()[:3] for _ in range(7)] == ["250"] * 6 + ["354"]
        client.say("Subject: step by step\r\n\r\ntext\r\n.", 250)
    assert hop.mistakes == []
    assert [len(message.recipients) for message in hop.messages] == [5, 5, 5]
    hop.close()


def test_close_notify_behind_the_end_of_data_loses_no_answer(start, next_hop, pki):
    """A client may say its last word and its goodbye in one segment, and still wait."""
    relay = start()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=pki / "adatum-ca.pem")
    context.check_hostname = False
    context.load_cert_chain(pki / "treyresearch.pem", pki / "treyresearch.key")
    client = Client(relay.port)
    client.say("EHLO probe.test", 250)
    client.say("STARTTLS", 220)
    tls = context.wrap_bio(incoming, outgoing)

    def pump(call, *arguments):
        while True:
            try:
                return call(*arguments)
            except ssl.SSLWantReadError:
                client.socket.sendall(outgoing.read())
                incoming.write(client.socket.recv(65536))

    def reply(code):
        text = b""
        while not text.endswith(b"\n") or text.splitlines()[-1][3:4] == b"-":
            text += pump(tls.read, 4096)
        assert text.startswith(str(code).encode()), text

    pump(tls.do_handshake)
    for line, code in (("EHLO probe.test", 250), ("MAIL FROM:<a@treyresearch.test>", 250),
                       ("RCPT TO:<b@adatum.test>", 250), ("DATA", 354)):
        tls.write(line.encode() + b"\r\n")
        reply(code)
    tls.write(b"Subject: last words\r\n\r\ntext\r\n.\r\n")
    with pytest.raises(ssl.SSLWantReadError):
        tls.unwrap()  # puts close_notify behind the message
    client.socket.sendall(outgoing.read())
    wait_for(lambda: relay.events("session-end"), "session end")
    assert relay.events("message")[0]["result"] == "accepted"
    assert len(next_hop.messages) == 1
    # The answer, and then the relay's own goodbye, are in the socket.
    received = b""
    while data := client.socket.recv(65536):
        received += data
    assert len(received) > 60, "250 and close_notify"


def test_a_refused_chunk_is_a_refused_message(make_relay, pki):
    hop = NextHop(pki)
    hop.answers["BDAT"] = "552 5.2.2 mailbox full"
    port = free_port()
    relay = make_relay(proxy_config(port, hop.port, pki,
                                    transport='io-uring-disable = {"buffer-ring"}'))
    client = Client(port, pki)
    client.envelope()
    client.say("DATA", 354)
    client.socket.sendall(b"Subject: long\r\n\r\n" + b"x" * 70 + b"\r\n")
    wait_for(lambda: [c for c in hop.commands if c.startswith("BDAT")], "chunk at the next hop")
    time.sleep(0.1)
    client.socket.sendall((b"y" * 70 + b"\r\n") * 100 + b".\r\n")
    assert client.reply() == "552 5.2.2 mailbox full\r\n"
    assert "messages" not in relay.stats()
    assert relay.events("message")[-1]["result"] == "refused"
    hop.close()


def test_a_long_refusal_keeps_its_line_end(make_relay, pki):
    hop = NextHop(pki, keywords=["PIPELINING", "SIZE 1000000"])
    lines = [f"552-5.2.2 line {n} " + "z" * 400 for n in range(6)] + ["552 5.2.2 the end"]
    hop.answers["MAIL"] = "\r\n".join(lines)
    port = free_port()
    make_relay(proxy_config(port, hop.port, pki))
    client = Client(port, pki)
    client.socket.sendall(b"MAIL FROM:<a@treyresearch.test>\r\n")
    assert client.reply().endswith("552 5.2.2 the end\r\n")
    client.say("NOOP", 250)
    hop.close()


def test_a_421_of_the_next_hop_closes_the_channel(make_relay, pki):
    hop = NextHop(pki)
    hop.answers["MAIL"] = "421 4.3.2 going down"
    port = free_port()
    make_relay(proxy_config(port, hop.port, pki))
    client = Client(port, pki)
    client.say("MAIL FROM:<a@treyresearch.test>", 421)
    assert client.reply() == ""
    hop.close()


def test_draining_serves_who_waits_for_a_next_hop(start, next_hop, pki):
    relay = start(send="max-connections = 1")
    first, second = Client(relay.port, pki), Client(relay.port, pki)
    next_hop.held.clear()
    first.envelope()
    first.say("DATA", 354)
    first.socket.sendall(b"Subject: one\r\n\r\ntext\r\n.\r\n")
    second.socket.sendall(b"MAIL FROM:<c@treyresearch.test>\r\n")
    wait_for(lambda: len(relay.events("accept")) == 2, "both sessions")
    relay.stats()  # by then it has read what was sent before
    relay.process.terminate()
    wait_for(lambda: relay.events("drain"), "drain event")
    next_hop.held.set()
    assert first.reply().startswith("250")
    assert second.reply().startswith("250")
    second.say("RCPT TO:<b@adatum.test>", 250)
    second.say("DATA", 354)
    second.say("Subject: two\r\n\r\ntext\r\n.", 250)
    assert relay.process.wait(PATIENCE) == 0
    assert len(relay.events("nexthop-ready")) <= 3, "no reconnecting in a loop"
    assert len(next_hop.messages) == 2


def test_half_closed_clients_get_their_answers(start, next_hop, pki):
    """FIN behind QUIT, in clear: every reply still comes."""
    relay = start()
    with socket.create_connection(("127.0.0.1", relay.port), PATIENCE) as client:
        client.sendall(b"EHLO probe.test\r\nNOOP\r\nVRFY x\r\nQUIT\r\n")
        client.shutdown(socket.SHUT_WR)
        text = b""
        while data := client.recv(65536):
            text += data
    assert b"\r\n252 2.1.5" in text and text.endswith(
        b"221 2.0.0 Service closing transmission channel\r\n")
