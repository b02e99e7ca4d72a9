# SPDX-License-Identifier: Apache-2.0
"""What a laboratory has around its peers: an authority, lists over HTTP, a name server."""

import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import threading
from datetime import datetime, timedelta, timezone

from conftest import PATIENCE, PKI, free_port, wait_for


CONF = """
[req]
distinguished_name = dn
prompt = no
[dn]
[ca]
default_ca = signer
[signer]
database = index
new_certs_dir = .
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
organizationName = optional
commonName = supplied
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def when(moment):
    return moment.strftime("%Y%m%d%H%M%SZ")


def now(**delta):
    return datetime.now(timezone.utc) + timedelta(**delta)


class Authority:
    """Signs on demand. name: a CA of the test's PKI ("treyresearch-ca"), or None for a new one."""

    def __init__(self, folder, name=None, pki=PKI, subject="/O=lab/CN=Lab Root"):
        self.folder, self.revoked = folder, []
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "conf").write_text(CONF)
        (folder / "index").write_text("")
        if name is not None:
            shutil.copy(pki / f"{name}.pem", folder / "ca.pem")
            shutil.copy(pki / f"{name}.key", folder / "ca.key")
        else:
            self._request("ca", subject)
            self._sign("ca", "root", now(days=-1), now(days=30),
                       ["-selfsign", "-keyfile", "ca.key"])
        self.pem = folder / "ca.pem"

    def _openssl(self, *words):
        subprocess.run(["openssl", *[str(word) for word in words]], cwd=self.folder, check=True,
                       capture_output=True, timeout=PATIENCE)

    def _request(self, name, subject, key=None):
        how = ["-key", key] if key else ["-newkey", "ec", "-pkeyopt",
                                         "ec_paramgen_curve:P-256", "-keyout", f"{name}.key"]
        self._openssl("req", "-new", "-config", "conf", "-batch", "-nodes", *how, "-subj", subject,
                      "-out", f"{name}.csr")
        if key:
            shutil.copy(key, self.folder / f"{name}.key")

    # pylint: disable-next=too-many-arguments
    def _sign(self, name, extensions, begin, end, how=None):
        how = how or ["-cert", "ca.pem", "-keyfile", "ca.key"]
        self._openssl("ca", "-config", "conf", "-batch", "-notext", "-preserveDN", *how,
                      "-extensions", extensions, "-startdate", when(begin), "-enddate", when(end),
                      "-in", f"{name}.csr", "-out", f"{name}.pem")

    # pylint: disable-next=too-many-arguments
    def leaf(self, name, names=("treyresearch.test", "mx.treyresearch.test"), cdp=None,
             begin=None, end=None, cn=None, key=None):
        """(chain, key) of a new leaf; cdp: the URL of its revocation list."""
        text = CONF
        if names:
            text += "subjectAltName = " + ",".join(f"DNS:{dns}" for dns in names) + "\n"
        if cdp:
            text += f"crlDistributionPoints = URI:{cdp}\n"
        return self.leaf_as(name, text, f"/O=lab/CN={cn or names[0]}", begin, end, key)

    # pylint: disable-next=too-many-arguments
    def leaf_as(self, name, conf, subject, begin=None, end=None, key=None):
        """(chain, key) of a new leaf with the extensions at the end of conf."""
        (self.folder / "conf").write_text(conf)
        self._request(name, subject, key)
        self._sign(name, "leaf", begin or now(days=-1), end or now(days=30))
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def self_signed(self, name, names, begin=None, end=None):
        """(chain, key) of a certificate that is signed by itself, not by this authority."""
        text = "subjectAltName = " + ",".join(f"DNS:{dns}" for dns in names) + "\n"
        (self.folder / "conf").write_text(CONF + text)
        self._request(name, f"/O=lab/CN={names[0]}")
        self._sign(name, "leaf", begin or now(days=-1), end or now(days=30),
                   ["-selfsign", "-keyfile", f"{name}.key"])
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def revoke(self, name):
        self._openssl("ca", "-config", "conf", "-batch", "-cert", "ca.pem", "-keyfile", "ca.key",
                      "-revoke", f"{name}.pem")

    def crl(self, begin=None, end=None, der=True):
        """A list of what was revoked, as bytes."""
        self._openssl("ca", "-config", "conf", "-batch", "-cert", "ca.pem", "-keyfile", "ca.key",
                      "-gencrl", "-crl_lastupdate", when(begin or now(hours=-1)),
                      "-crl_nextupdate", when(end or now(days=7)), "-out", "list.crl")
        if der:
            self._openssl("crl", "-in", "list.crl", "-outform", "DER", "-out", "list.crl")
        return (self.folder / "list.crl").read_bytes()


def spki(name, pki=PKI):
    """The pin of a certificate, 64 hexadecimal digits."""
    path = name if os.path.isabs(name) else pki / f"{name}.pem"
    pem = subprocess.run(["openssl", "x509", "-in", path, "-noout", "-pubkey"], check=True,
                         capture_output=True).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=pem, check=True,
                         capture_output=True).stdout
    return hashlib.sha256(der).hexdigest()


def serial(name, pki=PKI):
    path = name if os.path.isabs(name) else pki / f"{name}.pem"
    text = subprocess.run(["openssl", "x509", "-in", path, "-noout", "-serial"], check=True,
                          capture_output=True, text=True).stdout
    return text.strip().partition("=")[2].lower().lstrip("0")


class CrlServer:
    """Lists over HTTP. mode: "good"; "slow" waits for release(); "dead" closes."""

    def __init__(self):
        self.lists, self.mode, self.hits = {}, "good", []
        self.released = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # pylint: disable=invalid-name
                outer.hits.append(self.path)
                if outer.mode == "slow":
                    outer.released.wait(PATIENCE)
                body = outer.lists.get(self.path)
                if outer.mode == "dead":
                    self.close_connection = True
                    return
                self.send_response(200 if body else 404)
                self.send_header("Content-Type", "application/pkix-crl")
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_):  # pylint: disable=arguments-differ
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def put(self, path, body):
        self.lists[path] = body
        return self.url(path)

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def release(self, mode="good"):
        self.mode = mode
        self.released.set()

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


class Dns:
    """dnsmasq on a port of its own. mx: {domain: [(preference, host)]}; hosts: {name: address}."""

    def __init__(self, mx=None, hosts=None):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
                   "--no-hosts", "--bind-interfaces", "--listen-address=127.0.0.1",
                   "--user=root" if os.geteuid() == 0 else "--user=",
                   f"--port={self.port}", "--pid-file=", "--local=/test/", "--cache-size=0"]
        for domain, exchangers in (mx or {}).items():
            command += [f"--mx-host={domain},{host},{level}" for level, host in exchangers]
        command += [f"--host-record={name},{address}" for name, address in (hosts or {}).items()]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
        wait_for(self._answers, "name server")

    def _answers(self):
        assert self.process.poll() is None, self.process.stderr.read()
        query = bytes.fromhex("1234010000010000000000000470696e6704746573740000010001")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.2)
            try:
                probe.sendto(query, ("127.0.0.1", self.port))
                return bool(probe.recv(512))
            except OSError:
                return False

    def close(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.process.stderr.close()
