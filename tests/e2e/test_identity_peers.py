# SPDX-License-Identifier: Apache-2.0
"""Balancers and mail servers that others wrote: HAProxy in front and behind, Postfix behind.

The client is 127.0.0.5, HAProxy speaks from 127.0.0.9. Postfix says in its own log whom it took
the client for.
"""

import os
import shutil
import subprocess

import pytest

from conftest import PATIENCE, ROOT, free_port, wait_for
from lab import (Client, certificate, client_context, inside, lab, opened, receive,
                 transport)  # noqa: F401 (lab is a fixture)
from test_identity_out import Hop

CLIENT, BALANCER = "127.0.0.5", "127.0.0.9"

needs_haproxy = pytest.mark.skipif(shutil.which("haproxy", path="/usr/sbin:/usr/bin") is None,
                                   reason="HAProxy is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="Postfix as a peer needs root")


class HAProxy:
    """One process with what its frontends and servers are told, until close()."""

    def __init__(self, folder, *listens, accepts=""):
        config = folder / "haproxy.cfg"
        lines = ["global", "  log stderr local0", "defaults", "  mode tcp",
                 "  timeout connect 10s", "  timeout client 60s", "  timeout server 60s"]
        for number, (bind, server) in enumerate(listens):
            lines += [f"listen l{number}", f"  bind 127.0.0.1:{bind} {accepts}",
                      f"  server s {server}"]
        config.write_text("\n".join(lines) + "\n")
        with open(folder / "haproxy.log", "wb") as log:
            self.process = subprocess.Popen(
                [shutil.which("haproxy", path="/usr/sbin:/usr/bin"), "-db", "-f", config],
                stdout=log, stderr=log)
        for bind, _ in listens:
            def listens_now(port=bind):
                assert self.process.poll() is None, (folder / "haproxy.log").read_text()
                with open("/proc/net/tcp", encoding="ascii") as table:
                    rows = [line.split() for line in table]
                return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)
            wait_for(listens_now, "HAProxy's port")

    def close(self):
        self.process.terminate()
        self.process.wait(PATIENCE)


def haproxy(lab, *listens, **options):
    return lab.keep(HAProxy(lab.place("haproxy"), *listens, **options))


@needs_haproxy
@pytest.mark.parametrize("words", [
    "send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id",
    "send-proxy-v2-ssl-cn"])
def test_haproxy_as_balancer(lab, words):
    hop, port, front = lab.server(how="clear"), free_port(), free_port()
    relay = lab.relay(transport(), receive("edge", port, **{
        "proxy-balancers": [BALANCER], "remote-ip-ranges": [CLIENT]}), inside(hop.port))
    haproxy(lab, (front, f"127.0.0.1:{port} source {BALANCER} {words}"))
    with Client(front, source=CLIENT) as client:
        sport = client.socket.getsockname()[1]
        client.ehlo()
        assert client.send().startswith("250")
        client.quit()
    accept = relay.events("accept")[0]
    assert (accept["peer"], accept["port"]) == (CLIENT, str(sport))
    assert accept["balancer"] == BALANCER
    assert f"([{CLIENT}])".encode() in hop.messages[0].body
    with Client(front, source="127.0.0.6", greeted=False) as stranger:
        assert stranger.reply() == ""
    assert relay.refusals(why="no-connector", peer="127.0.0.6")


@needs_haproxy
@pytest.mark.parametrize("words", ["send-proxy", "send-proxy-v2 proxy-v2-options crc32c"])
@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_tls_passes_through_haproxy(lab, words, tls):
    hop, port, front = lab.server(how="clear"), free_port(), free_port()
    relay = lab.relay(transport(), certificate(), receive("edge", port, **{
        "proxy-balancers": [BALANCER], "remote-ip-ranges": [CLIENT], "tls": tls,
        "certificate": "edge"}), inside(hop.port))
    haproxy(lab, (front, f"127.0.0.1:{port} source {BALANCER} {words}"))
    if tls == "starttls":
        client = lab.opened(front, source=CLIENT)
    else:
        client = lab.client(front, source=CLIENT, greeted=False)
        client.socket = client_context().wrap_socket(client.socket,
                                                     server_hostname="mx.adatum.test")
        assert client.reply().startswith("220")
        client.ehlo()
    assert client.send(body="Subject: large\r\n\r\n" + "x" * 70 + "\r\n" + ("y" * 70 + "\r\n") *
                       20000).startswith("250")
    assert relay.counter("tls_handshakes") == 1
    assert relay.events("tls")[0]["peer"] == CLIENT


@needs_haproxy
@pytest.mark.parametrize("words", ["send-proxy check-send-proxy", "send-proxy-v2 check-send-proxy"])
def test_health_checks_of_haproxy(lab, words):
    """The balancer speaks for itself: served if its address is, else refused, but no mistake."""
    port, front = free_port(), free_port()
    relay = lab.relay(transport(), receive("edge", port, **{
        "proxy-balancers": [BALANCER], "remote-ip-ranges": [CLIENT, BALANCER]}), inside(1))
    haproxy(lab, (front, f"127.0.0.1:{port} source {BALANCER} {words} check inter 200ms"))
    wait_for(lambda: len(relay.events("accept", peer=BALANCER)) >= 2, "health checks")
    assert relay.counter("proxy_headers_bad") == 0


@needs_haproxy
@pytest.mark.parametrize("how", ["proxy-v1", "proxy-v2"])
@pytest.mark.parametrize("tls", [False, True])
def test_haproxy_understands_our_headers(lab, how, tls):
    """It takes ours (accept-proxy), and says onward in its own words what it has read."""
    hop = lab.keep(Hop(proxy=True, how="tls" if tls else "clear"))
    port, front = free_port(), free_port()
    relay = lab.relay(transport(), certificate(),
        receive("edge", port, **{"tls": "starttls", "certificate": "edge"}),
        inside(front, **{"trusted_next_hop": True, "client_identity": how,
                         "tls_auth_level": "encryption-only" if tls else "none"}))
    haproxy(lab, (front, f"127.0.0.1:{hop.port} send-proxy"), accepts="accept-proxy")
    with Client(port, source=CLIENT) as client:
        sport = client.socket.getsockname()[1]
        client.ehlo()
        client.starttls()
        assert client.send().startswith("250")
    header = hop.told[0][0]
    assert (header["source"], header["sport"]) == (CLIENT, sport)
    assert (header["destination"], header["dport"]) == ("127.0.0.1", port)
    assert relay.counter("nexthop_tls") >= (1 if tls else 0)
    assert hop.failures == []


# ---- Postfix ----------------------------------------------------------------------------------

def peer(script, *words):
    result = subprocess.run([str(word) for word in (ROOT / "tests/peers" / script, *words)],
                            capture_output=True, text=True, timeout=PATIENCE, check=False)
    if result.returncode == 77:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stdout + result.stderr


class Postfix:
    def __init__(self, folder, port, pki, *settings):
        self.folder = folder
        words = [word for setting in settings for word in ("--set", setting)]
        peer("postfix.sh", "start", folder, "--listen", f"127.0.0.1:{port}", "--tls-cert",
             pki / "treyresearch.pem", "--tls-key", pki / "treyresearch.key", *words)

    def log(self):
        return (self.folder / "mail.log").read_text()

    def wait(self):
        peer("postfix.sh", "wait", self.folder)

    def mails(self, user="b@adatum.test"):
        return [path.read_text() for path in (self.folder / "maildir" / user / "new").iterdir()]

    def close(self):
        peer("postfix.sh", "stop", self.folder)


def behind(lab, pki, how, *settings, tls="encryption-only"):
    port, hop_port = free_port(), free_port()
    postfix = lab.keep(Postfix(lab.place("postfix"), hop_port, pki, *settings))
    relay = lab.relay(transport(), receive("edge", port), inside(hop_port, **{
        "trusted_next_hop": True, "client_identity": how, "tls_auth_level": tls}))
    relay.port = port
    return relay, postfix


@needs_root
@pytest.mark.parametrize("how", ["proxy-v1", "proxy-v2"])
@pytest.mark.parametrize("tls", ["none", "encryption-only"])
def test_postfix_reads_our_headers(lab, pki, how, tls):
    relay, postfix = behind(lab, pki, how, "smtpd_upstream_proxy_protocol=haproxy", tls=tls)
    for last in (5, 6):
        with Client(relay.port, source=f"127.0.0.{last}") as client:
            client.ehlo()
            for _ in range(2):
                assert client.send().startswith("250"), postfix.log()
            client.quit()
    postfix.wait()
    assert postfix.log().count("client=unknown[127.0.0.5]") == 2
    assert postfix.log().count("client=unknown[127.0.0.6]") == 2
    assert len(postfix.mails()) == 4
    assert all("[127.0.0.5]" in mail or "[127.0.0.6]" in mail for mail in postfix.mails())


@needs_root
@pytest.mark.parametrize("tls", ["none", "encryption-only"])
def test_postfix_takes_xclient(lab, pki, tls):
    relay, postfix = behind(lab, pki, "xclient", "smtpd_authorized_xclient_hosts=127.0.0.1",
                            "smtpd_discard_ehlo_keywords=", tls=tls)
    for last in (5, 6):
        with Client(relay.port, source=f"127.0.0.{last}") as client:
            client.ehlo(f"h{last}.test")
            assert client.send().startswith("250"), postfix.log()
            client.quit()
    postfix.wait()
    for last in (5, 6):
        assert f"client=unknown[127.0.0.{last}]" in postfix.log()
        mail = [mail for mail in postfix.mails() if f"[127.0.0.{last}])" in mail][0]
        assert f"Received: from h{last}.test (unknown [127.0.0.{last}])" in mail
    assert relay.counter("nexthop_identity_refused") == 0


@needs_root
def test_postfix_that_offers_no_xclient_gets_no_mail(lab, pki):
    relay, postfix = behind(lab, pki, "xclient", tls="none")
    with Client(relay.port, source=CLIENT) as client:
        client.ehlo()
        assert client.send().startswith("451 4.3.5")
    assert "client=" not in postfix.log()
    assert relay.events("nexthop-failed")[0]["why"] == "xclient-not-offered"


@needs_root
@needs_haproxy
def test_all_the_way(lab, pki):
    """Client, HAProxy, Postern, Postfix: the client's address arrives."""
    hop_port, port, front = free_port(), free_port(), free_port()
    postfix = lab.keep(Postfix(lab.place("postfix"), hop_port, pki,
                               "smtpd_upstream_proxy_protocol=haproxy"))
    lab.relay(transport(), certificate(), receive("edge", port, **{
        "proxy-balancers": [BALANCER], "remote-ip-ranges": [CLIENT], "tls": "starttls",
        "certificate": "edge"}), inside(hop_port, **{
            "trusted_next_hop": True, "client_identity": "proxy-v2",
            "tls_auth_level": "encryption-only"}))
    haproxy(lab, (front, f"127.0.0.1:{port} source {BALANCER} send-proxy-v2"))
    client = lab.keep(opened(front, source=CLIENT))
    assert client.send().startswith("250"), postfix.log()
    postfix.wait()
    assert f"client=unknown[{CLIENT}]" in postfix.log()
