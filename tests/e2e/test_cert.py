# SPDX-License-Identifier: Apache-2.0
"""posternctl cert, with the openssl command as the independent judge."""

import base64
import datetime
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import stat
import subprocess
import threading

import pytest

from conftest import BINARY, PATIENCE, proxy_config

POSTERNCTL = BINARY.with_name("posternctl")
DAY = datetime.timedelta(days=1)
ADATUM = "adatum.test"


def openssl(*arguments, text=None, check=True, stderr=subprocess.PIPE):
    return subprocess.run(["openssl", *map(str, arguments)], input=text, stdout=subprocess.PIPE,
                          stderr=stderr, text=True, timeout=PATIENCE, check=check).stdout


class Store:
    """A store folder, and posternctl on it."""

    def __init__(self, tmp_path):
        self.tmp = tmp_path
        self.folder = tmp_path / "store"

    def run(self, *arguments, status=0, says=""):
        done = subprocess.run([POSTERNCTL, "--store", self.folder, *map(str, arguments)],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == status, done.stderr + done.stdout
        assert says in done.stderr, done.stderr
        return done.stdout

    def list(self):
        return json.loads(self.run("cert", "list", "--json"))

    def show(self, name):
        return json.loads(self.run("cert", "show", name, "--json"))

    def names(self):
        """What lies in the store, as (entry, file) pairs: the proof that nothing was written."""
        return sorted((entry.name, file.name) for entry in self.folder.glob("*")
                      for file in entry.iterdir()) if self.folder.exists() else []

    def file(self, name, content=""):
        path = self.tmp / name
        path.write_text(content)
        return path


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


class Authority:
    """A root and an intermediate, made by openssl for one test."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.serial = 100
        self.config = folder / "conf"
        self.issue("root", "/O=Lab/CN=Lab Root", "CA:TRUE", "keyCertSign,cRLSign")
        self.issue("int", "/O=Lab/CN=Lab Intermediate", "CA:TRUE,pathlen:0",
                   "keyCertSign,cRLSign", signer="root")

    def key(self, name, kind="ec"):
        how = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else \
            ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:" + kind]
        openssl("genpkey", *how, "-out", self.folder / f"{name}.key")

    def issue(self, name, subject, basic, usage, signer=None):
        self.key(name)
        openssl("req", "-new", "-key", self.folder / f"{name}.key", "-subj", subject, "-out",
                self.folder / f"{name}.csr")
        self.sign(name, signer or name, f"basicConstraints=critical,{basic}\n"
                  f"keyUsage=critical,{usage}\nsubjectKeyIdentifier=hash\n")

    def sign(self, name, signer, extensions, begin=-DAY, end=400 * DAY, digest="sha256"):
        """NAME.csr into NAME.crt; openssl ca, since x509 has no dates of its own."""
        f = self.folder
        self.serial += 1
        (f / "ext").write_text("[x]\n" + extensions)
        (f / "serial").write_text(f"{self.serial:04d}")
        (f / "index").write_text("")
        self.config.write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={f}/index\nserial={f}/serial\n"
                               f"new_certs_dir={f}\nunique_subject=no\npolicy=p\n"
                               "[p]\ncommonName=optional\norganizationName=optional\n"
                               "countryName=optional\n")
        how = ["-selfsign", "-keyfile", f / f"{name}.key"] if signer == name else \
            ["-cert", f / f"{signer}.crt", "-keyfile", f / f"{signer}.key"]
        now = datetime.datetime.now(datetime.timezone.utc)
        openssl("ca", "-config", self.config, "-batch", "-notext", "-preserveDN", *how, "-md",
                digest, "-extfile", f / "ext", "-extensions", "x",
                "-startdate", f"{now + begin:%Y%m%d%H%M%SZ}",
                "-enddate", f"{now + end:%Y%m%d%H%M%SZ}",
                "-in", f / f"{name}.csr", "-out", f / f"{name}.crt")
        return f / f"{name}.crt"

    def leaf(self, name, dns, kind="ec", signer="int", extra="", **dates):
        """A leaf with a key of its own: its certificate and key files."""
        self.key(name, kind)
        openssl("req", "-new", "-key", self.folder / f"{name}.key", "-subj", f"/O=Lab/CN={dns}",
                "-out", self.folder / f"{name}.csr")
        return (self.answer(name, dns, signer, extra, **dates), self.folder / f"{name}.key")

    def answer(self, name, dns, signer="int", extra="", **dates):
        return self.sign(name, signer, "basicConstraints=critical,CA:FALSE\n"
                         "keyUsage=critical,digitalSignature\n"
                         "extendedKeyUsage=serverAuth,clientAuth\n"
                         f"subjectAltName=DNS:{dns}\n{extra}", **dates)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


def thumbprint(certificate):
    line = openssl("x509", "-in", certificate, "-noout", "-fingerprint", "-sha1")
    return line.split("=")[1].strip().replace(":", "").lower()


def public_key(*arguments):
    return openssl(*arguments, "-noout", "-pubkey")


# ---- request and self-signed


@pytest.mark.parametrize("kind, wanted", [("ec", "prime256v1"), ("rsa", "(2048 bit)")])
def test_a_request_is_what_openssl_reads(store, kind, wanted):
    out = store.tmp / "request.csr"
    store.run("cert", "request", "--name", "mx.a.test,*.b.test", "--name", "BÜCHER.test.",
              "--subject", r"CN=mx.a.test, OU=one, O=Contoso\, Ltd, C=DE, OU=two",
              "--key-type", kind, "--out", out)
    # OpenSSL 3.0 says it on standard error, and exits with 0 even if the signature is bad.
    said = openssl("req", "-in", out, "-noout", "-verify", stderr=subprocess.STDOUT)
    assert "verify OK\n" in said
    text = openssl("req", "-in", out, "-noout", "-text", "-nameopt", "RFC2253")
    assert "DNS:mx.a.test, DNS:*.b.test, DNS:xn--bcher-kva.test\n" in text
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in text
    assert wanted in text
    assert "Subject: CN=mx.a.test,OU=two,OU=one,O=Contoso\\, Ltd,C=DE\n" in text
    (entry,) = store.folder.iterdir()
    assert {file.name for file in entry.iterdir()} == {"key.pem", "request.pem"}
    assert stat.S_IMODE((entry / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    key = openssl("pkey", "-in", entry / "key.pem", "-pubout")
    assert key == public_key("req", "-in", out)
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=key.encode(),
                         capture_output=True, check=True).stdout
    assert entry.name == hashlib.sha1(der).hexdigest()
    shown = store.show(entry.name)
    assert shown["Status"].startswith("PendingRequest")
    assert shown["PublicKeySHA256"] == hashlib.sha256(der).hexdigest()
    assert store.run("cert", "export", entry.name) == out.read_text()


@pytest.mark.parametrize("subject, says", [
    ("C=DEU", "C=DEU has 3"),
    ("C=D", "C=D has 1"),
    ("O=" + "o" * 65, "1 to 64"),
    ("OU=" + "o" * 65, "1 to 64"),
    ("CN=" + "n" * 65, "1 to 64"),
    ("S=" + "s" * 129, "1 to 128"),
    ("L=" + "l" * 129, "1 to 128"),
    ("DC=" + "d" * 256, "1 to 255"),
    ("DC=bücher", "ASCII"),
    ("O=one,O=two", "O stands twice"),
    ("X=what", "cannot read"),
    ("no part", "cannot read"),
    ("O=", "0"),
])
def test_subjects_beyond_the_limits_are_refused(store, subject, says):
    store.run("cert", "request", "--name", "a.test", "--subject", subject, status=2, says=says)
    assert store.names() == []


def test_subjects_at_the_limits_are_taken(store):
    subject = ",".join(["C=DE", "DC=" + "d" * 255, "DC=two", "S=" + "ü" * 128, "L=" + "l" * 128,
                        "O=" + "o" * 64, "OU=" + "u" * 64, "OU=u", "CN=" + "n" * 64])
    request = store.file("r.csr", store.run("cert", "request", "--name", "a.test", "--subject",
                                            subject))
    text = openssl("req", "-in", request, "-noout", "-subject", "-nameopt", "RFC2253,-esc_msb")
    assert "ü" * 128 in text and "n" * 64 in text


@pytest.mark.parametrize("name", ["a..test", "a b.test", "", "a.test,", "*.*.test", "[1.2.3.4]"])
def test_names_that_are_none_are_refused(store, name):
    store.run("cert", "request", "--name", name, status=2, says="--name")
    assert store.names() == []


def test_self_signed_is_what_openssl_reads(store):
    (row,) = json.loads(store.run("cert", "self-signed", "--name", "mx.a.test,a.test", "--days",
                                  "30", "--services", "smtp", "--json"))
    entry = store.folder / row["Thumbprint"]
    assert row["Services"] == "....S" and (entry / "enabled").exists()
    assert thumbprint(entry / "chain.pem") == row["Thumbprint"]
    assert openssl("verify", "-CAfile", entry / "chain.pem", entry / "chain.pem").endswith("OK\n")
    text = openssl("x509", "-in", entry / "chain.pem", "-noout", "-text")
    assert "DNS:mx.a.test, DNS:a.test" in text and "CA:FALSE" in text
    assert subprocess.run(["openssl", "x509", "-in", entry / "chain.pem", "-noout", "-checkend",
                           str(29 * 86400)], capture_output=True, check=False).returncode == 0
    assert subprocess.run(["openssl", "x509", "-in", entry / "chain.pem", "-noout", "-checkend",
                           str(31 * 86400)], capture_output=True, check=False).returncode == 1
    shown = store.show("mx.a.test")
    serial = openssl("x509", "-in", entry / "chain.pem", "-noout", "-serial")
    assert serial.strip() == "serial=" + shown["SerialNumber"]
    key = subprocess.run(["openssl", "pkey", "-in", entry / "key.pem", "-pubout", "-outform",
                          "DER"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(key).digest()
    assert shown["Pin"] == "sha256//" + base64.b64encode(digest).decode()
    assert (shown["Status"], shown["Services"], shown["IsSelfSigned"], shown["HasPrivateKey"],
            shown["CertificateDomains"]) == ("Valid", "SMTP", "True", "True",
                                             "{mx.a.test, a.test}")


# ---- import


def check_imported(store, certificate, key, chain=1):
    entry = store.folder / thumbprint(certificate)
    assert public_key("x509", "-in", entry / "chain.pem") == openssl("pkey", "-in", key, "-pubout")
    assert openssl("pkey", "-in", entry / "key.pem", "-pubout") == \
        openssl("pkey", "-in", key, "-pubout")
    assert (entry / "chain.pem").read_text().count("BEGIN CERTIFICATE") == chain
    assert stat.S_IMODE((entry / "key.pem").stat().st_mode) == 0o600
    return entry


def test_answers_to_a_request_find_their_key(store, authority):
    csr = authority.folder / "mine.csr"
    store.run("cert", "request", "--name", "mx.lab.test", "--out", csr)
    certificate = authority.answer("mine", "mx.lab.test")
    pkcs7 = store.tmp / "answer.p7b"
    openssl("crl2pkcs7", "-nocrl", "-certfile", authority.folder / "root.crt", "-certfile",
            certificate, "-certfile", authority.folder / "int.crt", "-outform", "DER", "-out",
            pkcs7)
    store.run("cert", "import", pkcs7, says="cert enable")
    (row,) = store.list()  # the request is gone
    assert row["Thumbprint"] == thumbprint(certificate) and row["Services"] == "....."
    chain = (store.folder / row["Thumbprint"] / "chain.pem").read_text()
    # Leaf, intermediate, no root.
    parts = [part + "-----END CERTIFICATE-----\n" for part in
             chain.split("-----END CERTIFICATE-----\n")[:-1]]
    assert [openssl("x509", "-noout", "-subject", "-nameopt", "RFC2253", text=part).strip()
            for part in parts] == ["subject=CN=mx.lab.test", "subject=CN=Lab Intermediate,O=Lab"]
    assert store.show("mx.lab.test")["Status"] == "Valid"


@pytest.mark.parametrize("form", ["pem", "pem-one-file", "pem-shuffled", "der", "p12", "p12-legacy",
                                  "p12-empty", "p7-pem", "encrypted-key", "traditional-key"])
def test_import_reads_every_form(store, authority, form):
    certificate, key = authority.leaf("leaf", "mx.lab.test")
    middle = authority.folder / "int.crt"
    file = store.tmp / "in"
    password = store.file("password", "geheim\nsecond line\n")
    arguments, chain = [file], 2
    both = certificate.read_text() + middle.read_text()
    if form == "pem":
        file.write_text(both)
        arguments += ["--key", key]
    elif form == "pem-one-file":
        file.write_text("some text\n" + key.read_text() + both)
    elif form == "pem-shuffled":
        file.write_text((authority.folder / "root.crt").read_text() + middle.read_text() +
                        certificate.read_text() + middle.read_text())
        arguments += ["--key", key]
    elif form == "der":
        openssl("x509", "-in", certificate, "-outform", "DER", "-out", file)
        openssl("pkey", "-in", key, "-outform", "DER", "-out", store.tmp / "key.der")
        arguments += ["--key", store.tmp / "key.der"]
        chain = 1
    elif form.startswith("p12"):
        legacy = ["-legacy"] if form == "p12-legacy" else []
        word = "" if form == "p12-empty" else "geheim"
        openssl("pkcs12", "-export", *legacy, "-in", certificate, "-inkey", key, "-certfile",
                middle, "-passout", "pass:" + word, "-out", file)
        arguments += [] if form == "p12-empty" else ["--password-file", password]
    elif form == "p7-pem":
        openssl("crl2pkcs7", "-nocrl", "-certfile", certificate, "-certfile", middle, "-out", file)
        arguments += ["--key", key]
    elif form == "encrypted-key":
        file.write_text(both)
        openssl("pkey", "-in", key, "-aes256", "-passout", "pass:geheim", "-out", store.tmp / "e")
        store.run("cert", "import", file, "--key", store.tmp / "e", status=2, says="password")
        arguments += ["--key", store.tmp / "e", "--password-file", password]
    else:
        file.write_text(both)
        openssl("ec", "-in", key, "-out", store.tmp / "ec.key")
        arguments += ["--key", store.tmp / "ec.key"]
    store.run("cert", "import", *arguments)
    check_imported(store, certificate, key, chain)


def refusal(authority, store, case):
    """The arguments of a bad import, and what is said about it."""
    certificate, key = authority.leaf("leaf", "mx.lab.test",
                                      kind="1024" if case == "weak" else "ec",
                                      **({"begin": -9 * DAY, "end": -DAY} if case == "expired"
                                         else {"digest": "sha1"} if case == "sha1" else {}))
    other = authority.leaf("other", "mx.lab.test")[1]
    p12 = store.tmp / "p12"
    openssl("pkcs12", "-export", "-in", certificate, "-inkey", key, "-passout", "pass:x", "-out",
            p12)
    return {
        "expired": ([certificate, "--key", key], 1, "has expired at"),
        "weak": ([certificate, "--key", key], 1, "too weak"),
        "sha1": ([certificate, "--key", key], 1, "too weak a digest"),
        "no key": ([certificate], 1, "no private key for it"),
        "other key": ([certificate, "--key", other], 1, "does not fit"),
        "no certificate": ([key], 1, "no certificate in it"),
        "no password": ([p12], 2, "--password-file"),
        "wrong password": ([p12, "--password-file", store.file("w", "y\n")], 2, "does not fit"),
        "empty": ([store.file("empty")], 2, "empty"),
        "not there": ([store.tmp / "nothing"], 2, "nothing"),
        "folder": ([store.tmp], 2, str(store.tmp)),
        "garbage": ([store.file("garbage", "x" * 100)], 2, "neither PEM nor DER"),
        "damaged": ([store.file("damaged", certificate.read_text().replace("M", "!", 3))], 2,
                    "damaged"),
        "cut": ([store.file("cut", certificate.read_text()[:300])], 2, "damaged"),
        "two keys": ([certificate, "--key", store.file("two", key.read_text() +
                                                      other.read_text())], 2, "second"),
    }[case]


@pytest.mark.parametrize("case", ["expired", "weak", "sha1", "no key", "other key",
                                  "no certificate", "no password", "wrong password", "empty",
                                  "not there", "folder", "garbage", "damaged", "cut", "two keys"])
def test_bad_imports_say_why_and_write_nothing(store, authority, case):
    arguments, status, says = refusal(authority, store, case)
    store.run("cert", "import", *arguments, status=status, says=says)
    assert store.names() == []


def test_replace_is_asked_for_and_keeps_the_service(store, authority):
    certificate, key = authority.leaf("leaf", "mx.lab.test")
    store.run("cert", "import", certificate, "--key", key)
    store.run("cert", "enable", "mx.lab.test", "--services", "smtp")
    before = store.names()
    store.run("cert", "import", certificate, "--key", key, status=1, says="--replace")
    both = store.file("both", certificate.read_text() + (authority.folder / "int.crt").read_text())
    store.run("cert", "import", both, "--replace")  # the key is that of the store
    check_imported(store, certificate, key, chain=2)
    assert store.names() == before and store.list()[0]["Services"] == "....S"


def test_concurrent_imports_leave_a_whole_store(store, authority):
    made = [authority.leaf(f"leaf{i}", f"mx{i}.lab.test") for i in range(4)]
    jobs = [subprocess.Popen([POSTERNCTL, "--store", store.folder, "cert", "import", certificate,
                              "--key", key, "--replace"], stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
            for _ in range(4) for certificate, key in made]
    for job in jobs:
        _, error = job.communicate(timeout=PATIENCE)
        assert job.returncode == 0, error
    assert store.names() == sorted((thumbprint(certificate), file) for certificate, _ in made
                                   for file in ("chain.pem", "key.pem"))
    for certificate, key in made:
        check_imported(store, certificate, key)


def test_what_a_crash_left_is_cleared_and_not_listed(store):
    store.run("cert", "self-signed", "--name", "a.test")
    for name in (".new", ".old"):
        (store.folder / name).mkdir()
        (store.folder / name / "key.pem").write_text("half")
    assert len(store.list()) == 1
    store.run("cert", "self-signed", "--name", "b.test")
    assert len(store.list()) == 2
    assert not any(name.startswith(".") for name in os.listdir(store.folder))


# ---- enable, disable, remove, export


def test_enable_disable_remove(store, authority):
    certificate, key = authority.leaf("leaf", "mx.lab.test")
    store.run("cert", "import", certificate, "--key", key)
    mark = store.folder / thumbprint(certificate) / "enabled"
    store.run("cert", "enable", "mx.lab.test", status=2, says="--services is missing")
    store.run("cert", "enable", "mx.lab.test", "--services", "imap", status=2, says="expected smtp")
    assert not mark.exists()
    for _ in range(2):
        store.run("cert", "enable", thumbprint(certificate).upper(), "--services", "SMTP")
        assert mark.exists()
    for _ in range(2):
        store.run("cert", "disable", thumbprint(certificate)[:8])
        assert not mark.exists()
    store.run("cert", "remove", "nobody.test", status=1, says='no certificate "nobody.test"')
    store.run("cert", "remove", "mx.lab.test")
    assert store.names() == []


def test_what_is_not_usable_is_not_enabled(store, authority):
    store.run("cert", "request", "--name", "r.test", "--out", store.tmp / "r")
    store.run("cert", "enable", "r.test", "--services", "smtp", status=1, says="not answered")
    certificate, key = authority.leaf("leaf", "mx.lab.test")
    store.run("cert", "import", certificate, "--key", key)
    shutil.copy(authority.leaf("other", "x.test")[1],
                store.folder / thumbprint(certificate) / "key.pem")
    store.run("cert", "enable", "mx.lab.test", "--services", "smtp", status=1,
              says="of another certificate")
    assert store.show("mx.lab.test")["Status"].startswith("Invalid")
    assert store.show("mx.lab.test")["HasPrivateKey"] == "False"


def test_a_name_of_two_certificates_is_not_enough(store):
    store.run("cert", "self-signed", "--name", "a.test")
    store.run("cert", "self-signed", "--name", "a.test")
    store.run("cert", "remove", "a.test", status=1, says="fits 2 certificates")
    assert len(store.list()) == 2


def test_export_is_what_openssl_reads(store, authority):
    certificate, key = authority.leaf("leaf", "mx.lab.test")
    both = store.file("both", certificate.read_text() + (authority.folder / "int.crt").read_text())
    store.run("cert", "import", both, "--key", key)
    assert store.run("cert", "export", "mx.lab.test").count("BEGIN CERTIFICATE") == 2
    out, password = store.tmp / "out.p12", store.file("password", "geheim")
    store.run("cert", "export", "mx.lab.test", "--with-key", "--out", out, status=2,
              says="--password-file")
    store.run("cert", "export", "mx.lab.test", "--with-key", "--password-file", password, "--out",
              out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    text = openssl("pkcs12", "-in", out, "-passin", "pass:geheim", "-nodes")
    assert text.count("BEGIN CERTIFICATE") == 2
    assert openssl("pkey", "-pubout", text=text) == openssl("pkey", "-in", key, "-pubout")
    again = Store(store.tmp / "again")
    again.tmp.mkdir()
    again.run("cert", "import", out, "--password-file", password)
    check_imported(again, certificate, key, chain=2)


# ---- which


def test_row_8_which_certificate_a_connector_shows(store, authority):
    """EXCHANGE 14 row 8: six certificates, and each loses for its own reason."""
    fqdn = "mx.lab.test"
    made = {"best": authority.leaf("best", fqdn, begin=-2 * DAY),
            "older": authority.leaf("older", fqdn, begin=-5 * DAY),
            "wildcard-older": authority.leaf("wild", "*.lab.test", begin=-9 * DAY),
            "other": authority.leaf("other", "other.test"),
            "disabled": authority.leaf("disabled", fqdn, begin=-DAY)}
    ids = {}
    for name, (certificate, key) in made.items():
        store.run("cert", "import", certificate, "--key", key)
        ids[thumbprint(certificate)] = name
        if name != "disabled":
            store.run("cert", "enable", thumbprint(certificate), "--services", "smtp")
    (row,) = json.loads(store.run("cert", "self-signed", "--name", fqdn, "--services", "smtp",
                                  "--json"))
    ids[row["Thumbprint"]] = "self-signed"
    rows = json.loads(store.run("cert", "which", "MX.lab.test.", "--json"))
    assert [(ids[row["Thumbprint"]], row["Choice"]) for row in rows[:4]] == [
        ("best", "shown"), ("older", "-"), ("wildcard-older", "-"), ("self-signed", "-")]
    reasons = {ids[row["Thumbprint"]]: row["Reason"] for row in rows}
    assert reasons == {"best": "the best", "older": "older than the choice",
                       "wildcard-older": "older than the choice",
                       "self-signed": "self-signed, and the choice is of an authority",
                       "other": "the name is not in it", "disabled": "not enabled for smtp"}
    best = thumbprint(made["best"][0])
    shutil.copy(made["other"][1], store.folder / best / "key.pem")
    rows = json.loads(store.run("cert", "which", fqdn, "--json"))
    assert ids[rows[0]["Thumbprint"]] == "older"
    assert [row["Reason"] for row in rows if row["Thumbprint"] == best] == [
        "its private key is missing, or of another certificate"]
    store.run("cert", "which", "nobody.test", status=1, says="offers no TLS")
    store.run("cert", "which", "not a name", status=2, says="expected a host name")


def test_which_prefers_what_is_valid_now(store, authority):
    fqdn = "mx.lab.test"
    expired, key = authority.leaf("expired", fqdn, begin=-DAY, end=60 * DAY)
    store.run("cert", "import", expired, "--key", key)
    entry = store.folder / thumbprint(expired)
    store.run("cert", "enable", fqdn, "--services", "smtp")
    # It ran out while it lay there: the same key, other dates, the folder's name is only a name.
    old = authority.sign("expired", "int", f"subjectAltName=DNS:{fqdn}\n", begin=-9 * DAY, end=-DAY)
    shutil.copy(old, entry / "chain.pem")
    assert store.show(entry.name)["Status"] == "DateInvalid (it has expired)"
    rows = json.loads(store.run("cert", "which", fqdn, "--json"))
    assert rows[0]["Choice"] == "shown"
    store.run("cert", "which", fqdn, says="not valid now: expired")
    store.run("cert", "self-signed", "--name", fqdn, "--services", "smtp")
    rows = json.loads(store.run("cert", "which", fqdn, "--json"))
    assert [row["Reason"] for row in rows] == ["the best", "expired"]


# ---- verify


def verify(store, *arguments, status=0, says=""):
    """The status word, and the line with the reason."""
    out = store.run("cert", "verify", *arguments, status=status, says=says)
    if status == 2:
        assert out == ""
        return None
    lines = out.splitlines()
    assert len(lines) == 2, out
    answer, word = lines[0].split()
    assert answer == ("accept" if status == 0 else "reject")
    assert (word == "Valid") == (status == 0)
    return word, lines[1]


@pytest.mark.parametrize("leaf, purpose, word", [
    ("adatum", "client", "Valid"),
    ("adatum", "server", "Valid"),
    ("adatum-rsa", "client", "Valid"),
    ("adatum-expired", "client", "Expired"),
    ("adatum-future", "server", "NotYetValid"),
    ("adatum-weak", "client", "WeakKey"),
    ("adatum-eku", "client", "BadUsage"),
    ("adatum-server", "client", "BadUsage"),
    ("adatum-server", "server", "Valid"),
    ("self", "client", "UntrustedRoot"),
    ("other", "client", "UntrustedRoot"),
])
def test_verify_says_the_word(store, pki, leaf, purpose, word):
    said, _ = verify(store, "--chain", pki / f"{leaf}.pem", "--anchors", pki / "adatum-ca.pem",
                     "--purpose", purpose, status=0 if word == "Valid" else 1)
    assert said == word


@pytest.mark.parametrize("leaf, name, word, rule", [
    ("adatum", "mx.adatum.test", "Valid", "exact (mx.adatum.test)"),
    ("adatum", "MX.Adatum.Test.", "Valid", "exact (mx.adatum.test)"),
    ("adatum", "adatum.test", "Valid", "exact (adatum.test)"),
    ("adatum", "*.adatum.test", "Valid", "exact (adatum.test)"),
    ("adatum", "a.adatum.test", "SubjectMismatch", "none"),
    ("adatum-name", "northwind.test", "SubjectMismatch",
     "host (mx.northwind.test, with host-names only)"),
    ("adatum", "192.0.2.1", "SubjectMismatch", None),
    ("adatum", "not a name", "SubjectMismatch", None),
])
def test_verify_names(store, pki, leaf, name, word, rule):
    said, reason = verify(store, "--chain", pki / f"{leaf}.pem", "--anchors", pki / "adatum-ca.pem",
                          "--purpose", "server", "--name", name, status=0 if word == "Valid" else 1)
    assert said == word
    if rule is None:
        assert "mail domain" not in reason
    else:
        assert re.search(rf"for the mail domain \S+: {re.escape(rule)}", reason), reason


def test_verify_at_other_times(store, pki):
    def at(time, **how):
        return verify(store, "--chain", pki / "adatum.pem", "--anchors", pki / "adatum-ca.pem",
                      "--purpose", "client", "--time", time, **how)

    now = datetime.datetime.now(datetime.timezone.utc)
    for form in (f"{now:%Y-%m-%dT%H:%M:%SZ}", f"{now:%Y-%m-%dt%H:%M:%S.123+00:00}",
                 f"{now:%Y-%m-%d}", str(int(now.timestamp()))):
        assert at(form)[0] == "Valid"
    assert at("2000-01-01", status=1)[0] == "NotYetValid"
    assert at("0", status=1)[0] == "NotYetValid"
    assert at("-1", status=1)[0] == "NotYetValid"
    assert at("2999-12-31T23:59:59-12:00", status=1)[0] == "Expired"
    for form in ("2026-02-30", "2026-13-01", "yesterday", "", "2026-11-21T10:00:00",
                 "2026-11-21T10:00:00+25:00", "12x"):
        at(form, status=2, says="--time")


def test_verify_time_zone(store, authority):
    """An hour of validity tells a zone that is added from one that is taken away."""
    certificate, _ = authority.leaf("leaf", "mx.lab.test", signer="root", begin=-30 * DAY / 1440,
                                    end=30 * DAY / 1440)
    there = datetime.datetime.now(datetime.timezone(datetime.timedelta(hours=5, minutes=30)))
    text = f"{there:%Y-%m-%dT%H:%M:%S}"
    arguments = ["--chain", certificate, "--anchors", authority.folder / "root.crt", "--purpose",
                 "client", "--time"]
    assert verify(store, *arguments, text + "+05:30")[0] == "Valid"
    assert verify(store, *arguments, text + "Z", status=1)[0] == "Expired"
    assert verify(store, *arguments, text + "+10:00", status=1)[0] == "NotYetValid"


def test_verify_depth_counts_intermediates(store, authority):
    leaf, _ = authority.leaf("leaf", "mx.lab.test")
    # Any order behind the leaf, and certificates that have nothing to do with it.
    strangers = "".join(authority.leaf(f"s{i}", f"s{i}.test")[0].read_text() for i in range(3))
    chain = store.file("chain", leaf.read_text() + strangers +
                       (authority.folder / "int.crt").read_text())
    arguments = ["--chain", chain, "--anchors", authority.folder / "root.crt", "--purpose",
                 "client"]
    assert verify(store, *arguments)[0] == "Valid"
    assert verify(store, *arguments, "--depth", "1")[0] == "Valid"
    assert verify(store, *arguments, "--depth", "0", status=1)[0] != "Valid"
    alone = ["--chain", leaf, *arguments[2:]]
    assert verify(store, *alone, status=1)[0] == "UntrustedRoot"


def test_verify_signature(store, authority):
    leaf, _ = authority.leaf("leaf", "mx.lab.test", signer="root")
    der = bytearray(base64.b64decode("".join(leaf.read_text().splitlines()[1:-1])))
    der[-1] ^= 1
    broken = store.file("broken", "-----BEGIN CERTIFICATE-----\n" +
                        base64.encodebytes(der).decode() + "-----END CERTIFICATE-----\n")
    assert verify(store, "--chain", broken, "--anchors", authority.folder / "root.crt",
                  "--purpose", "client", status=1)[0] == "SignatureFailure"


def make_list(authority, name, begin, end, revoked):
    """A list of the root that revokes these certificates."""
    folder = authority.folder
    now = datetime.datetime.now(datetime.timezone.utc)
    serials = [openssl("x509", "-in", one, "-noout", "-serial").strip().split("=")[1]
               for one in revoked]
    (folder / "index").write_text("".join(
        f"R\t301231235959Z\t200101000000Z\t{serial}\tunknown\t/CN=bad\n" for serial in serials))
    (folder / "crlnumber").write_text("01")
    config = folder / "crlconf"
    config.write_text(authority.config.read_text().replace(
        "[p]", f"crlnumber={folder}/crlnumber\n[p]"))
    openssl("ca", "-config", config, "-gencrl", "-md", "sha256", "-cert", folder / "root.crt",
            "-keyfile", folder / "root.key", "-crl_lastupdate", f"{now + begin:%Y%m%d%H%M%SZ}",
            "-crl_nextupdate", f"{now + end:%Y%m%d%H%M%SZ}", "-out", folder / name)
    return folder / name


def test_verify_revocation(store, authority):
    good, _ = authority.leaf("good", "good.test", signer="root")
    bad, _ = authority.leaf("bad", "bad.test", signer="root")
    folder = authority.folder

    fresh = make_list(authority, "fresh.crl", -DAY, 9 * DAY, [bad])
    stale = make_list(authority, "stale.crl", -9 * DAY, -DAY, [bad])

    def judge(leaf, *arguments, status=0):
        return verify(store, "--chain", leaf, "--anchors", folder / "root.crt", "--purpose",
                      "client", *arguments, status=status)[0]

    assert judge(bad) == "Valid"
    assert judge(good, "--crl", fresh) == "Valid"
    assert judge(bad, "--crl", fresh, status=1) == "Revoked"
    assert judge(bad, "--crl", fresh, "--revocation", "off") == "Valid"
    assert judge(good, "--crl", stale, status=1) == "RevocationUnknown"
    assert judge(good, "--crl", stale, "--revocation", "soft") == "Valid"
    assert judge(good, "--revocation", "strict", status=1) == "RevocationUnknown"
    assert judge(good, "--revocation", "hard") == "Valid"
    verify(store, "--chain", good, "--anchors", folder / "root.crt", "--purpose", "client", "--crl",
           good, status=2, says=str(good))


@pytest.mark.parametrize("served, word", [("fresh", "Valid"), ("revoked", "Revoked"),
                                          ("nothing", "RevocationUnknown")])
def test_verify_waits_for_a_list_that_it_fetches(store, authority, served, word):
    folder = authority.folder
    web = folder / "web"
    web.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=web)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/root.crl"
    leaf, _ = authority.leaf("leaf", "mx.lab.test", signer="root",
                             extra=f"crlDistributionPoints=URI:{url}\n")
    if served != "nothing":
        make_list(authority, "root.pem", -DAY, 9 * DAY, [leaf] if served == "revoked" else [])
        openssl("crl", "-in", folder / "root.pem", "-outform", "DER", "-out", web / "root.crl")
    try:
        said, _ = verify(store, "--chain", leaf, "--anchors", folder / "root.crt", "--purpose",
                         "client", "--revocation", "hard", status=0 if word == "Valid" else 1)
    finally:
        server.shutdown()
        server.server_close()
    assert said == word


def test_verify_pins(store, pki, authority):
    expired, key = authority.leaf("leaf", "mx.lab.test", begin=-9 * DAY, end=-DAY)
    der = subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"],
                         capture_output=True, check=True).stdout
    digest = hashlib.sha256(der)
    base = "sha256//" + base64.b64encode(digest.digest()).decode()
    for pin in (digest.hexdigest(), digest.hexdigest().upper(), base):
        assert verify(store, "--chain", expired, "--purpose", "client", "--pin", "0" * 64,
                      "--pin", pin)[0] == "Valid"
        assert verify(store, "--chain", pki / "adatum.pem", "--purpose", "client", "--pin", pin,
                      "--anchors", pki / "adatum-ca.pem", status=1)[0] == "PinMismatch"
    for pin in (digest.hexdigest()[:-1], base[:-1], base[8:], "z" * 64, "sha256//" + "=" * 44):
        verify(store, "--chain", expired, "--purpose", "client", "--pin", pin, status=2,
               says="--pin")


@pytest.mark.parametrize("bad", ["chain", "anchors", "crl"])
@pytest.mark.parametrize("content", [
    None, "", "no PEM at all\n", "-----BEGIN CERTIFICATE-----\n",
    "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
    "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
    "-----BEGIN PUBLIC KEY-----\naGVsbG8=\n-----END PUBLIC KEY-----\n"])
def test_verify_names_the_bad_file(store, pki, bad, content):
    file = store.tmp / "the-bad-file"
    if content is not None:
        file.write_text(content)
    files = {"chain": pki / "adatum.pem", "anchors": pki / "adatum-ca.pem", bad: file}
    arguments = [word for option, path in files.items() for word in ("--" + option, path)]
    verify(store, *arguments, "--purpose", "client", status=2, says="the-bad-file")


def test_verify_rejects_what_no_library_decodes(store, pki):
    """DER, but no certificate: a peer may send it, so that is a verdict and no usage error."""
    block = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n"
    whole = (pki / "adatum.pem").read_text()
    der = base64.b64decode(whole.split("-----")[2])
    longer = ("-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der + b"x").decode() +
              "-----END CERTIFICATE-----\n")
    for text in (block, longer, whole + block):
        assert verify(store, "--chain", store.file("odd", text), "--anchors",
                      pki / "adatum-ca.pem", "--purpose", "client", status=1)[0] == "Invalid"


def test_verify_survives_damaged_certificates(store, pki):
    """One byte at a time: never a crash, and never an acceptance."""
    der = base64.b64decode("".join((pki / "treyresearch.crt").read_text().splitlines()[1:-1])
                           if (pki / "treyresearch.crt").exists() else
                           (pki / "treyresearch.pem").read_text().split("-----")[2])
    odd = store.tmp / "odd.der"
    for at in range(0, len(der), max(1, len(der) // 60)):
        changed = bytearray(der)
        changed[at] ^= 0x41
        odd.write_bytes(changed)
        done = subprocess.run([POSTERNCTL, "cert", "verify", "--chain", odd, "--anchors",
                               pki / "treyresearch-ca.pem", "--purpose", "client"],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode in (1, 2), f"byte {at}: {done.returncode} {done.stderr}"


# ---- the configuration, and usage


def test_the_store_of_the_configuration(store, tmp_path):
    config = store.file("postern.conf", 'transport { certificate-store = "certs" }\n'
                        'receive-connector "a" { certificate = "not made yet" }\n')
    # A configuration that is not valid yet must not keep anybody from making its certificate.
    done = subprocess.run([POSTERNCTL, "--config", config, "cert", "self-signed", "--name",
                           "a.test"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "certs").iterdir())) == 1
    store.folder = tmp_path / "certs"
    assert store.list()[0]["Subject"] == "CN=a.test"


def test_sections_are_listed_but_not_changed(store, pki):
    store.run("cert", "self-signed", "--name", "mx.adatum.test", "--services", "smtp")
    mine = store.list()[0]["Thumbprint"]
    config = store.file("postern.conf", proxy_config(
        2525, 2526, pki, transport=f'certificate-store = "{store.folder}"').replace(
            'certificate = "edge"', f'certificate = "{mine}"', 1))

    def run(*arguments, status=0):
        done = subprocess.run([POSTERNCTL, "--config", config, "cert", *arguments],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    edge = thumbprint(pki / "adatum.pem")
    assert {row["Thumbprint"] for row in json.loads(run("list", "--json"))} == {mine, edge}
    rows = json.loads(run("which", "mx.adatum.test", "--json"))
    assert [row["Thumbprint"] for row in rows] == ["edge", mine]
    assert json.loads(run("show", "edge", "--json"))["Thumbprint"] == edge
    assert "section" in run("disable", "edge", status=1)
    assert 'connector "partner"' in run("remove", mine, status=1)
    assert (store.folder / mine / "key.pem").exists()


def test_out_may_be_a_device(store):
    store.run("cert", "request", "--name", "a.test", "--out", "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    text = store.run("cert", "export", "a.test", "--out", "/dev/stdout")
    assert text.startswith("-----BEGIN CERTIFICATE REQUEST-----")
    store.run("cert", "request", "--name", "b.test", "--out", store.tmp / "no" / "folder", status=1,
              says="cert export")


@pytest.mark.parametrize("arguments", [
    [], ["what"], ["cert"], ["cert", "what"], ["--what", "cert", "list"], ["cert", "list", "x"],
    ["cert", "list", "--what"], ["cert", "show"], ["cert", "request"], ["--config"],
    ["cert", "list", "--store"], ["cert", "list", "--json=yes"],
    ["cert", "self-signed", "--name", "a.test", "--days", "0"],
    ["cert", "self-signed", "--name", "a.test", "--days", "9x"],
    ["cert", "request", "--name", "a.test", "--key-type", "dsa"],
    ["cert", "verify", "--chain", "x", "--anchors", "y"],
    ["cert", "verify", "--chain", "x", "--purpose", "client"],
    ["cert", "verify", "--chain", "x", "--anchors", "y", "--purpose", "both"],
    ["cert", "verify", "--chain", "x", "--anchors", "y", "--purpose", "client", "--revocation",
     "x"],
    ["cert", "verify", "--chain", "x", "--anchors", "y", "--purpose", "client", "--depth", "-1"],
])
def test_wrong_usage_is_2_and_says_so(store, arguments):
    done = subprocess.run([POSTERNCTL, *arguments], capture_output=True, text=True,
                          timeout=PATIENCE, check=False, cwd=store.tmp)
    assert done.returncode == 2 and done.stdout == "" and done.stderr != ""
    assert store.names() == []


def test_help_of_all_and_of_one():
    for arguments in (["--help"], ["cert", "verify", "--help"]):
        done = subprocess.run([POSTERNCTL, *arguments], capture_output=True, text=True,
                              timeout=PATIENCE, check=False)
        assert done.returncode == 0 and "--purpose" in done.stdout and done.stderr == ""
