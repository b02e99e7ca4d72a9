# SPDX-License-Identifier: Apache-2.0
"""test_tls_server.py: the TLS engine against stock peers (Python's ssl, curl, openssl s_client) and
against what is no TLS at all, through tests/tools/tls_server.

Run with pytest; POSTERN_BUILD (build/release) says where tools/tls_server lies, POSTERN_KTLS (off,
tx, rx, on) which records the kernel is given. With the kernel's, in User-Mode Linux:

    POSTERN_KTLS=on tests/kernels/uml.sh -- /usr/bin/python3 -m pytest -q -p no:cacheprovider \
        tests/e2e/test_tls_server.py
"""

import os
import selectors
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest

from tls_peer import KTLS, PATIENCE_S, PROGRAM, VERSIONS, Peer, Ragged, Server
from tls_peer import client, make_pki, pki, read_to_end

BOTH = sorted(VERSIONS)
ALERT = 21
RECORD = {"off": "user(", "tx": "kernel-tx,user-rx(", "rx": "kernel-rx,user-tx(", "on": "kernel"}


@pytest.fixture(scope="session", autouse=True)
def certificates():
    make_pki()


@pytest.fixture
def start(tmp_path):
    """Starts servers, which end with the test."""
    servers = []

    def begin(**options):
        servers.append(Server(tmp_path / ("server%d.log" % len(servers)), **options))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


# One server of each mode for the tests that need nothing special of it.
@pytest.fixture(scope="module")
def http(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("http") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("echo") / "log", mode="echo") as server:
        yield server


def pattern(count):
    return (bytes(range(251)) * (count // 251 + 1))[:count]


# HTTP, and what it says of the connection.


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("cert", ["adatum", "adatum-rsa"])
def test_facts(start, version, cert):
    with Peer(start(cert=cert), client(version)) as peer:
        facts = peer.facts()
        assert facts["version"] == version == peer.tls.version()
        assert facts["resumed"] == "no"
        assert facts["client-cert"] == "NotAsked"
        assert facts["subject"] == "-"
        assert KTLS != "off" or facts["record"] == "user(configured)"
        again = peer.facts()
        assert again["record"].startswith(RECORD[KTLS])
        assert {**facts, "record": ""} == {**again, "record": ""}


@pytest.mark.parametrize(
    "version,option,name",
    [
        ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", None),
        ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", None),
        ("TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305", None),
        ("TLSv1.3", "TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
        ("TLSv1.3", "TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
        ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
    ],
)
def test_ciphers(start, version, option, name):
    word = "ciphersuites" if version == "TLSv1.3" else "ciphers"
    with Peer(start(mode="echo", **{word: option}), client(version)) as peer:
        assert peer.tls.cipher()[0] == (name or option)
        data = os.urandom(100000)
        assert peer.echo(data) == data


def test_http(http):
    with Peer(http, client()) as peer:
        assert peer.get("/nothing")[0] == 404
        assert peer.get("/bytes/x")[0] == 404
        # Pipelined, with bare LF, empty lines before, and a field that is far too long.
        peer.write(b"\r\n\r\nGET /bytes/3 HTTP/1.1\n\nGET /bytes/2 HTTP/1.1\r\n")
        peer.write(b"X: " + b"a" * 40000 + b"\r\nConnection: keep-alive\r\n\r\n")
        assert peer.response()[2] == pattern(3)
        assert peer.response()[2] == pattern(2)
        peer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        status, fields, _ = peer.response()
        assert status == 200 and fields["Connection"] == "close"
        assert peer.read() == b""


@pytest.mark.parametrize(
    "request_text",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 30000 + b" HTTP/1.1\r\n\r\n",
        b"no field\r\nat all\r\n\r\n",
        b"\0\xff\r\n\r\n",
    ],
)
def test_http_bad(http, request_text):
    with Peer(http, client()) as peer:
        peer.write(request_text)
        assert peer.response()[0] == 400
        assert peer.read() == b""


def test_http_1_0(http):
    with Peer(http, client()) as peer:
        peer.write(b"GET /bytes/9 HTTP/1.0\n\n")
        assert peer.response()[2] == pattern(9)
        assert peer.read() == b""


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("count", [0, 1, 16383, 16384, 16385, 65536, 65537, 5000000])
def test_bytes(http, version, count):
    with Peer(http, client(version)) as peer:
        assert peer.get("/bytes/%d" % count)[2] == pattern(count)
        assert peer.get("/")[0] == 200


# Client certificates.

LEAVES = [
    (None, "EmptyCertificate"),
    ("adatum", "Valid"),
    ("adatum-rsa", "Valid"),
    ("adatum-expired", "Expired"),
    ("adatum-future", "NotYetValid"),
    ("adatum-eku", "BadUsage"),
    ("adatum-server", "BadUsage"),
    ("self", "UntrustedRoot"),
    ("other", "UntrustedRoot"),
]


@pytest.mark.parametrize("version", BOTH)
def test_client_certificates(start, version):
    asks = start(client_cert="ask", client_ca=pki("adatum-ca.pem"))
    requires = start(client_cert="require", client_ca=pki("adatum-ca.pem"))
    for leaf, word in LEAVES:
        with Peer(asks, client(version, leaf)) as peer:
            facts = peer.facts()
            assert facts["client-cert"] == word, leaf
            assert (facts["subject"] == "-") == (leaf is None)
        with Peer(requires, client(version, leaf)) as peer:
            facts = peer.facts(200 if word == "Valid" else 403)
            assert facts["client-cert"] == word, leaf


@pytest.mark.parametrize("version", BOTH)
def test_client_certificate_required_echo(start, version):
    server = start(mode="echo", client_cert="require", client_ca=pki("adatum-ca.pem"))
    with Peer(server, client(version, "other")) as peer:
        assert peer.read() == b""
    with Peer(server, client(version, "adatum")) as peer:
        assert peer.echo(b"hello") == b"hello"


# Resumption.


def sessions(server, context, first=None):
    """A connection that ends well, and the session that it leaves."""
    with Peer(server, context, first) as peer:
        facts = peer.facts()
        assert (facts["resumed"] == "yes") == peer.tls.session_reused
        return facts, peer.tls.session


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("tickets", [0, 1, 2])
def test_resumption(start, version, tickets):
    server = start(tickets=tickets, client_cert="require", client_ca=pki("adatum-ca.pem"))
    context = client(version, "adatum")
    facts, session = sessions(server, context)
    assert facts["resumed"] == "no"
    assert session is not None and session.has_ticket == (tickets > 0)
    for _ in range(3):
        facts, session = sessions(server, context, session)
        assert facts["resumed"] == ("yes" if tickets else "no")
        assert facts["client-cert"] == "Valid"
        assert facts["subject"] == "CN=mx.adatum.test,O=adatum"


@pytest.mark.parametrize("version", BOTH)
def test_ticket_is_bound_to_its_server(start, version):
    one = start(client_cert="require", client_ca=pki("adatum-ca.pem"))
    other_ca = start(client_cert="require", client_ca=pki("treyresearch-ca.pem"))
    other_name = start(cert="localhost", client_cert="ask", client_ca=pki("adatum-ca.pem"))
    context = client(version, "adatum")
    _, session = sessions(one, context)
    with Peer(other_ca, context, session) as peer:
        facts = peer.facts(403)
        assert facts["resumed"] == "no" and facts["client-cert"] == "UntrustedRoot"
    context.check_hostname = False
    with Peer(other_name, context, session) as peer:
        facts = peer.facts()
        assert facts["resumed"] == "no" and facts["client-cert"] == "Valid"
    with Peer(one, context, session) as peer:
        assert peer.facts()["resumed"] == "yes"


# Other clients.


def curl(server, *options, path="/"):
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", str(PATIENCE_S)]
    command += ["--cacert", pki("adatum-ca.pem"), "-w", "\n%{http_code} %{num_connects}"]
    command += ["--resolve", "adatum.test:%d:127.0.0.1" % server.port, *options]
    url = "https://adatum.test:%d%s" % (server.port, path)
    return subprocess.run([*command, url], capture_output=True, text=True, check=False)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_curl(start):
    server = start(client_cert="require", client_ca=pki("adatum-ca.pem"))
    cert = ["--cert", pki("adatum.pem"), "--key", pki("adatum.key")]
    for options, version in [
        (["--tls-max", "1.2"], "TLSv1.2"),
        (["--tlsv1.3"], "TLSv1.3"),
        (["-0"], "TLSv1.3"),
        (["--tls13-ciphers", "TLS_CHACHA20_POLY1305_SHA256"], "TLSv1.3"),
        (["--curves", "P-521:P-384"], "TLSv1.3"),
    ]:
        done = curl(server, *cert, *options)
        assert done.returncode == 0, done.stderr
        assert "version: %s\n" % version in done.stdout
        assert "client-cert: Valid\n" in done.stdout
        assert done.stdout.endswith("\n200 1")
    done = curl(server)
    assert done.stdout.endswith("\n403 1") and "client-cert: EmptyCertificate\n" in done.stdout
    done = curl(server, "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0")
    assert done.returncode == 35
    again = "https://adatum.test:%d/bytes/100000" % server.port
    done = curl(server, *cert, "-o", "/dev/null", again, "-o", "/dev/null", path="/bytes/50000")
    assert done.stdout.split() == ["200", "1", "200", "0"]


def s_client(server, *options, lines=(), pause_s=0.3):
    """openssl s_client; lines go to it one by one, since it takes commands only at their start."""
    command = ["openssl", "s_client", "-connect", "127.0.0.1:%d" % server.port]
    command += ["-CAfile", pki("adatum-ca.pem"), "-verify_return_error", *options]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    timer = threading.Timer(PATIENCE_S, process.kill)
    timer.start()
    try:
        for line in lines:
            time.sleep(pause_s)
            process.stdin.write(line)
            process.stdin.flush()
    except BrokenPipeError:
        pass
    time.sleep(pause_s if lines else 0)
    out = process.communicate()[0].decode("utf-8", "replace")
    timer.cancel()
    return out


@pytest.mark.parametrize("tickets", [0, 1, 2])
def test_s_client_tickets(start, tickets):
    out = s_client(start(tickets=tickets), "-msg", lines=[b"GET / HTTP/1.0\n", b"\n"])
    assert out.count(", NewSessionTicket") == tickets
    assert "version: TLSv1.3" in out
    assert "Verify return code: 0 (ok)" in out


def test_s_client_reconnect(start):
    out = s_client(start(tickets=1), "-tls1_2", "-reconnect", lines=[b"GET / HTTP/1.0\n", b"\n"])
    assert out.count("Reused, TLSv1.2") == 5
    assert "resumed: yes" in out


def test_s_client_session_file(start, tmp_path):
    server = start(tickets=2)
    saved = str(tmp_path / "session")
    ask = [b"GET / HTTP/1.0\n", b"\n"]
    assert "resumed: no" in s_client(server, "-sess_out", saved, lines=ask)
    assert "resumed: yes" in s_client(server, "-sess_in", saved, lines=ask)


def test_s_client_key_update(start):
    """K asks for the server's new key too, k does not. Older kernels cannot follow, and say so."""
    ask = [b"GET / HTTP/1.1\n", b"\n"]
    server = start()
    out = s_client(server, "-msg", lines=[*ask, b"K\n", *ask, b"k\n", *ask, b"K\n", *ask])
    if KTLS != "off" and "why=key-update" in server.log():
        return
    assert out.count("version: TLSv1.3") == 4
    assert out.count("<<< TLS 1.3, Handshake [length 0005], KeyUpdate") == 2


def test_s_client_renegotiation(start):
    server = start()
    out = s_client(server, "-tls1_2", "-msg", lines=[b"R\n"])
    assert KTLS != "off" or "no_renegotiation" in out or "no renegotiation" in out
    assert out.count("ServerHello\n") == 1
    assert server.is_well()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_max_fragment_length(start, version):
    """A client that takes small records only gets small ones (RFC 6066 4)."""
    out = s_client(
        start(), version, "-maxfraglen", "512", lines=[b"GET /bytes/30000 HTTP/1.0\n", b"\n"]
    )
    assert out.count(pattern(251).decode("utf-8", "replace")) == 30000 // 251
    assert "record overflow" not in out and "data length too long" not in out


# Bytes.


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("chunk", [1000, 16384, 1 << 20])
def test_echo_mebibyte(echo, version, chunk):
    data = os.urandom(1 << 20)
    with Peer(echo, client(version)) as peer:
        assert peer.echo(data, chunk) == data


@pytest.mark.parametrize("version", BOTH)
def test_echo_16_mebibyte(echo, version):
    data = os.urandom(1 << 24)
    with Peer(echo, client(version)) as peer:
        assert peer.echo(data) == data


def test_echo_back_pressure(echo):
    """Who does not read is not read either, and loses nothing by it."""
    data = os.urandom(1 << 16)
    with Peer(echo, client()) as peer:
        peer.socket.settimeout(1)
        sent = 0
        rest = b""
        try:
            while sent < 1 << 30:
                peer.tls.write(data)
                sent += len(data)
                rest = peer.outgoing.read()
                while rest:
                    rest = rest[peer.socket.send(rest) :]
        except TimeoutError:
            pass
        assert sent < 1 << 28
        peer.socket.settimeout(PATIENCE_S)
        finish = threading.Thread(target=peer.socket.sendall, args=(rest,))
        finish.start()
        got = 0
        while got < sent:
            part = peer.read()
            assert part == (data + data + data + data + data)[got % 65536 :][: len(part)]
            got += len(part)
        finish.join()


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("count", [0, 1, 10, 300000])
def test_half_closed(echo, version, count):
    """After our close_notify the server still sends what it owes, then its own close_notify."""
    data = os.urandom(count)
    with Peer(echo, client(version)) as peer:
        if count:
            peer.write(data)
        peer.send_close()
        assert peer.read_all() == data


def test_half_closed_socket(echo):
    """A FIN without close_notify: what was sent before it is still answered."""
    data = os.urandom(100000)
    with Peer(echo, client()) as peer:
        peer.write(data)
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.read_all() == data


def test_response_survives_close_notify(http):
    with Peer(http, client()) as peer:
        peer.write(b"GET /bytes/3000000 HTTP/1.1\r\n\r\n")
        peer.send_close()
        assert peer.response()[2] == pattern(3000000)
        assert peer.read() == b""


@pytest.mark.parametrize("version", BOTH)
def test_byte_by_byte(echo, version):
    """ClientHello, Finished and records, each byte a segment of its own."""
    data = os.urandom(3000)
    with Peer(echo, client(version), pieces=1) as peer:
        peer.write(data[:2000])
        peer.write(data[2000:])
        peer.send_close()
        assert peer.read_all() == data


@pytest.mark.parametrize("version", BOTH)
def test_data_behind_finished(echo, version):
    """Text in the same segment as Finished, as a client that waits for no tickets sends it."""
    with Peer(echo, client(version), begin=False) as peer:
        while True:
            try:
                peer.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                peer.flush()
                peer.receive()
        peer.tls.write(b"early bird")
        peer.flush()
        assert peer.read() == b"early bird"


# What is no TLS, or no good one.


def hello():
    """A ClientHello record of Python's own."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client().wrap_bio(incoming, outgoing, server_hostname="adatum.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


HOSTILE = {
    "garbage": b"\xa5\x5a" * 500,
    "zeros": bytes(2000),
    "http in clear": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "smtp in clear": b"EHLO x\r\n",
    "sslv2 hello": bytes.fromhex("802e0103010015000000100700c00300800600400200800400800100800000")
    + bytes(19),
    "too long": bytes.fromhex("1603014101") + bytes(0x4101),
    "longest and no handshake": bytes.fromhex("1603014100") + b"\x63" * 0x4100,
    "far too long": bytes.fromhex("160301ffff") + bytes(0xFFFF),
    "application data": bytes.fromhex("1703030005") + b"hello",
    "alert": bytes.fromhex("15030100020228"),
    "only change cipher spec": bytes.fromhex("140303000101") * 100,
    "empty handshake records": bytes.fromhex("1603010000") * 100,
    "empty application records": bytes.fromhex("1703030000"),
    "hello cut by length": bytes.fromhex("16030100050100000100"),
    "hello of 16 MiB": bytes.fromhex("160301400001ffffff") + bytes(0x3FFC),
    "heartbeat": bytes.fromhex("180301000301ffff"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_first_bytes(http, name):
    """The server closes; at the most an alert comes before."""
    with http.connect() as sock:
        try:
            sock.sendall(HOSTILE[name])
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = read_to_end(sock, 5)
        assert answer == b"" or answer[0] == ALERT, answer
    assert http.is_well()


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 100, -1])
def test_hello_in_part(http, cut):
    """A handshake that stops and closes; and one that is reset."""
    data = hello()[:cut]
    with http.connect() as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock, 5) == b""
    with http.connect() as sock:
        sock.sendall(data)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert http.is_well()


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("tail", [1, 30])
def test_close_in_handshake(http, version, tail):
    """The client's last flight comes in part, then the end."""
    with Peer(http, client(version), begin=False) as peer:
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        peer.flush()
        while True:
            peer.receive()
            try:
                peer.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                if version == "TLSv1.2" and peer.outgoing.pending:
                    break
        peer.send_raw(peer.outgoing.read()[:-tail])
        peer.socket.shutdown(socket.SHUT_WR)
        read_to_end(peer.socket, 5)
    assert http.is_well()


def test_hello_in_records_of_one_byte(http):
    """Legal fragmentation: each byte of the ClientHello is a record."""
    with Peer(http, client(), begin=False) as peer:
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        body = peer.outgoing.read()[5:]
        peer.send_raw(b"".join(b"\x16\x03\x01\x00\x01" + bytes([byte]) for byte in body))
        peer.handshake()
        assert peer.get("/")[0] == 200


# The alert that TLS 1.3 asks for; None: a header that is none, which conn.c does not answer.
INJECTED = {
    "wrong key": (bytes.fromhex("1703030040") + bytes(64), "SSLV3_ALERT_BAD_RECORD_MAC"),
    "too short": (bytes.fromhex("1703030003") + bytes(3), "SSLV3_ALERT_BAD_RECORD_MAC"),
    "empty": (bytes.fromhex("1703030000"), "SSLV3_ALERT_BAD_RECORD_MAC"),
    "too long": (bytes.fromhex("170303ffff") + bytes(1000), None),
    "no type": (bytes.fromhex("6303030001") + bytes(1), None),
    "plaintext alert": (bytes.fromhex("15030300020100"), "SSLV3_ALERT_UNEXPECTED_MESSAGE"),
    "plaintext handshake": (bytes.fromhex("1603030004") + bytes(4),
                            "SSLV3_ALERT_UNEXPECTED_MESSAGE"),
    "change cipher spec": (bytes.fromhex("140303000101"), "SSLV3_ALERT_UNEXPECTED_MESSAGE"),
    "http in clear": (b"GET / HTTP/1.1\r\n\r\n", None),
}


def alert_of(peer):
    """The alert that ends the connection; None if there is none. No text may come before."""
    try:
        assert peer.read() == b""
        return None
    except (Ragged, ConnectionResetError):
        return None
    except ssl.SSLError as error:
        return error.reason


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("name", INJECTED)
def test_injected_record(echo, version, name):
    """A record of somebody else's ends the connection, and none of it is taken for text."""
    data, alert = INJECTED[name]
    with Peer(echo, client(version)) as peer:
        peer.write(b"mine")
        assert peer.read() == b"mine"
        # The kernel waits for a whole nonce before it looks at a header.
        peer.send_raw(data + bytes(32))
        reason = alert_of(peer)
        if alert and version == "TLSv1.3" and KTLS == "off":
            assert reason == alert


def test_versions(start):
    server = start(tls_min="TLSv1.3")
    with pytest.raises(ssl.SSLError, match="(?i)alert protocol version"):
        Peer(server, client("TLSv1.2"))
    with Peer(server, client("TLSv1.3")) as peer:
        assert peer.facts()["version"] == "TLSv1.3"
    server = start(tls_max="TLSv1.2")
    with Peer(server, client()) as peer:
        assert peer.facts()["version"] == "TLSv1.2"
    with pytest.raises(ssl.SSLError, match="(?i)alert protocol version"):
        Peer(server, client("TLSv1.3"))


# Many.


def test_200_at_once(echo):
    """All handshakes run side by side, then all echoes, then all goodbyes."""
    selector = selectors.DefaultSelector()
    context = client()
    peers = [Peer(echo, context, begin=False) for _ in range(200)]
    waiting = set(peers)
    for peer in peers:
        peer.socket.setblocking(False)
        selector.register(peer.socket, selectors.EVENT_READ, peer)
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        peer.flush()
    deadline = time.monotonic() + PATIENCE_S
    while waiting and time.monotonic() < deadline:
        for key, _ in selector.select(1):
            peer = key.data
            assert peer.receive()
            try:
                if peer in waiting:
                    peer.tls.do_handshake()
                    waiting.discard(peer)
            except ssl.SSLWantReadError:
                pass
            peer.flush()
    assert not waiting
    for index, peer in enumerate(peers):
        peer.socket.settimeout(PATIENCE_S)
        peer.write(b"%d" % index * 5000)
    for index, peer in enumerate(peers):
        want = b"%d" % index * 5000
        got = b""
        while len(got) < len(want):
            got += peer.read()
        assert got == want
        peer.send_close()
    for peer in peers:
        assert peer.read() == b""
        peer.socket.close()


def settled(server, at_most):
    """Waits until the server holds no more descriptors than that."""
    deadline = time.monotonic() + PATIENCE_S
    while server.descriptors() > at_most and time.monotonic() < deadline:
        time.sleep(0.05)
    return server.descriptors()


def test_descriptors_are_flat(start):
    server = start()
    context = client()
    assert server.is_well()
    time.sleep(0.2)
    before = server.descriptors()
    data = hello()
    for index in range(500):
        kind = index % 5
        if kind < 2:
            with Peer(server, context) as peer:
                assert peer.get("/bytes/100")[0] == 200
                if kind == 0:
                    peer.send_close()
                    assert peer.read() == b""
            continue
        with server.connect() as sock:
            if kind == 2:
                sock.sendall(b"EHLO there\r\n")
            elif kind == 3:
                sock.sendall(data)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                sock.sendall(data[:50])
    assert settled(server, before) <= before


# The program itself.


def test_sigterm_says_goodbye(start):
    server = start()
    with Peer(server, client()) as idle, Peer(server, client()) as busy, server.connect():
        assert idle.get("/")[0] == 200
        busy.write(b"GET /bytes/100000000 HTTP/1.1\r\n\r\n")
        server.process.send_signal(signal.SIGTERM)
        assert idle.read() == b""
        server.wait()  # which is bounded, though one peer never reads what it asked for


def test_max_connections(start):
    server = start(max_connections=2)
    assert server.is_well()
    assert server.process.poll() is None
    assert server.is_well()
    server.wait()


@pytest.mark.parametrize(
    "capability", ["defer-taskrun", "single-issuer", "multishot-accept", "buffer-ring"]
)
def test_without_capability(start, capability):
    """The ways round what an older kernel lacks."""
    data = os.urandom(500000)
    server = start(mode="echo", io_uring_disable=capability)
    for _ in range(3):
        with Peer(server, client()) as peer:
            assert peer.echo(data) == data


@pytest.mark.parametrize(
    "options,status",
    [
        ([], 2),
        (["--listen", "127.0.0.1:0", "--cert", "x"], 2),
        (["--listen", "nowhere", "--cert", "x", "--key", "x"], 2),
        (["--listen", "127.0.0.1:0", "--cert", "x", "--key", "x", "--mode", "smtp"], 2),
        (["--listen", "127.0.0.1:0", "--cert", "/x", "--key", "/x"], 1),
    ],
)
def test_usage(options, status):
    done = subprocess.run(
        [PROGRAM, *options], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr
