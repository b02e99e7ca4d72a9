# SPDX-License-Identifier: Apache-2.0
"""What posternctl says without a relay: lint, connectors, partners, explanations.

Golden files (tests/e2e/golden/) hold the whole text for eight broken labs and more, as an
administrator would read it; "GOLDEN=write" in the environment writes them anew.
"""

import pytest

from admin_lab import NameServer, ScriptedHost, golden, make_crl, posternctl, stable
from conftest import free_port


def settings(**pairs):
    """A section's lines: a list is one, text and numbers are themselves, None is left out."""
    lines = []
    for key, value in pairs.items():
        key = key.replace("_", "-")
        if isinstance(value, (list, tuple)):
            lines.append(f"\t{key} = {{{', '.join(f'{chr(34)}{v}{chr(34)}' for v in value)}}}")
        elif isinstance(value, bool):
            lines.append(f"\t{key} = {'yes' if value else 'no'}")
        elif value is not None:
            lines.append(f"\t{key} = \"{value}\"")
    return "\n".join(lines)


class Lab:
    """Our configuration, section by section; a test spoils one of them."""

    def __init__(self, folder, pki):
        self.folder = folder
        self.pki = pki
        self.file = folder / "postern.conf"
        self.domain = "treyresearch.test"
        self.host = None
        self.transport = {"fqdn": "mx.adatum.test", "accepted_domains": ["adatum.test"]}
        self.certificate = "adatum"
        self.partner = {"domains": ["treyresearch.test"],
                        "trust_anchors": pki / "treyresearch-ca.pem"}
        self.receive = {"type": "partner", "bindings": ["127.0.0.1:2525"],
                        "remote_ip_ranges": ["127.0.0.0/8"], "send_connector": "inside",
                        "certificate": "ours"}
        self.send = {"address_spaces": ["treyresearch.test"], "domain_secure": True,
                     "certificate": "ours", "tls_auth_level": None}
        self.inside = {"smart_hosts": ["127.0.0.1:2526"]}

    def serve(self, certificate="treyresearch", clients="adatum-ca", **options):
        if certificate:
            options.update(certificate=self.pki / f"{certificate}.pem",
                           key=self.pki / f"{certificate}.key",
                           clients=clients and self.pki / f"{clients}.pem")
        self.host = ScriptedHost(**options)
        return self.host

    def write(self):
        sections = [("transport", self.transport),
                    ("certificate \"ours\"", {"chain": self.pki / f"{self.certificate}.pem",
                                              "key": self.pki / f"{self.certificate}.key"}),
                    ("receive-connector \"from-partners\"", self.receive),
                    ("send-connector \"to-partners\"", self.send),
                    ("send-connector \"inside\"", self.inside)]
        if self.partner:
            sections.insert(2, ("partner \"trey\"", self.partner))
        self.file.write_text("".join(f"{head} {{\n{settings(**pairs)}\n}}\n"
                                     for head, pairs in sections))
        return self.file

    def run(self, *arguments):
        status, text = posternctl(*arguments, config=self.write())
        ports = [self.host.port] if self.host else []
        words = [stable(str(a), self.folder, self.pki, *ports) for a in arguments]
        return status, (f"$ posternctl {' '.join(words)}\n" +
                        stable(text, self.folder, self.pki, *ports) + f"[exit {status}]\n")

    def compare(self, name, *more):
        """config lint and partner check, as the golden file of that name has them."""
        lint_status, lint = self.run("config", "lint")
        where = ["--host", f"127.0.0.1:{self.host.port}"] if self.host else ["--offline"]
        check_status, check = self.run("partner", "check", self.domain, *where, *more)
        golden(name, lint + "\n" + check)
        return lint_status, check_status


@pytest.fixture
def lab(tmp_path, pki):
    made = Lab(tmp_path, pki)
    yield made
    if made.host:
        made.host.close()


def test_row_48_healthy(lab):
    host = lab.serve()
    assert lab.compare("healthy") == (0, 0)
    assert host.commands == ["EHLO", "STARTTLS", "EHLO", "QUIT"]  # and no MAIL


def test_row_47_row_48_own_domain_listed(lab):
    lab.partner["domains"] = ["adatum.test"]
    lab.domain = "adatum.test"
    assert lab.compare("1-own-domain-listed") == (1, 1)


def test_row_47_row_48_misspelt_domain(lab):
    lab.partner["domains"] = ["treyresereach.test"]
    assert lab.compare("2-misspelt-domain") == (1, 1)


def test_row_47_row_48_connector_without_list(lab):
    lab.partner = None
    assert lab.compare("3-connector-without-list") == (1, 1)


def test_row_47_row_48_proxy_and_secure(lab):
    lab.send["frontend_proxy"] = True
    lab.send["smart_hosts"] = ["127.0.0.1:2527"]
    assert lab.compare("4-proxy-and-secure") == (1, 1)


def test_row_48_own_certificate_expired(lab):
    lab.certificate = "adatum-expired"
    lab.serve()
    assert lab.compare("5-own-certificate-expired")[1] == 1


def test_row_48_peer_without_starttls(lab):
    host = lab.serve(certificate=None, keywords=("PIPELINING", "8BITMIME"))
    assert lab.compare("6-peer-without-starttls") == (0, 1)
    assert host.commands == ["EHLO"]


def test_row_48_peer_of_another_name(lab):
    lab.partner["trust_anchors"] = lab.pki / "adatum-ca.pem"
    lab.serve(certificate="adatum-name")
    assert lab.compare("7-peer-of-another-name") == (0, 1)


def test_row_48_peer_from_untrusted_root(lab):
    lab.serve(certificate="other")
    assert lab.compare("8-peer-from-untrusted-root") == (0, 1)


def test_row_48_peer_revoked(lab):
    lab.partner["crl_files"] = [make_crl(lab.pki, lab.folder, "treyresearch-ca", "treyresearch")]
    lab.serve()
    assert lab.compare("9-peer-revoked") == (0, 1)


def test_row_48_peer_not_revoked(lab):
    lab.partner["crl_files"] = [make_crl(lab.pki, lab.folder, "treyresearch-ca")]
    host = lab.serve()
    status, text = lab.run("partner", "check", lab.domain, "--host", f"127.0.0.1:{host.port}")
    assert status == 0, text


def test_row_48_peer_with_wrong_usage(lab):
    lab.transport = {"fqdn": "mx.treyresearch.test", "accepted_domains": ["treyresearch.test"]}
    lab.certificate = "treyresearch"
    lab.partner = {"domains": ["adatum.test"], "trust_anchors": lab.pki / "adatum-ca.pem"}
    lab.send["address_spaces"] = ["adatum.test"]
    lab.domain = "adatum.test"
    lab.serve(certificate="adatum-eku", clients="treyresearch-ca")
    assert lab.compare("10-peer-with-wrong-usage") == (0, 1)


def test_row_48_firewall_alters_smtp(lab):
    lab.serve(certificate=None, banner="220 ****************************",
              keywords=("PIPELINING", "XXXXXXXA", "8BITMIME"))
    assert lab.compare("11-firewall-alters-smtp") == (0, 1)


def test_row_48_peer_does_not_ask_for_certificate(lab):
    lab.serve(clients=None)
    assert lab.compare("12-peer-does-not-ask") == (0, 1)


def test_row_48_nothing_listens(lab):
    status, text = lab.run("partner", "check", lab.domain, "--host", f"127.0.0.1:{free_port()}")
    assert status == 1
    assert "FAIL    a connection: " in text and "Connection refused" in text
    assert "skip    STARTTLS: there is no session" in text


def test_row_48_hosts_by_mx(lab):
    host = lab.serve()
    server = NameServer({"treyresearch.test": [(20, "second.invalid"), (10, "localhost")]})
    try:
        lab.transport["dns_servers"] = [f"127.0.0.1:{server.port}"]
        lab.send["port"] = host.port
        status, text = lab.run("partner", "check", lab.domain)
        assert "pass  the domain has mail hosts: 2, first localhost\n" in text, text
        assert text.index("host localhost port PORT") < text.index("host second.invalid"), text
        assert "its certificate is trusted: Valid" in text
        assert status == 1  # the second host has no address
        lab.domain = lab.partner["domains"][0] = lab.send["address_spaces"][0] = "gone.test"
        status, text = lab.run("partner", "check", lab.domain)
        assert status == 1
        assert "FAIL  the domain has mail hosts: no such domain" in text, text
    finally:
        server.close()


def test_row_48_lists_and_subdomains(lab):
    lab.partner["send_secure"] = False
    status, text = lab.run("partner", "check", lab.domain, "--offline")
    assert status == 1
    assert "FAIL  the domain is listed for sending: send-secure = no in partner" in text
    assert "pass  the domain is listed for receiving" in text
    status, text = lab.run("partner", "check", "sub.treyresearch.test", "--offline")
    assert status == 1 and "a subdomain is an entry of its own" in text


def test_partner_list_and_show(lab):
    status, text = lab.run("partner", "list")
    assert status == 0 and "treyresearch.test" in text
    status, text = lab.run("partner", "show", "trey")
    assert status == 0 and "treyresearch.test" in text
    assert lab.run("partner", "show", "nobody")[0] == 1
    assert lab.run("config", "show")[0] == 0
    status, text = lab.run("config", "show", "send-connector", "to-partners")
    assert status == 0 and "treyresearch.test" in text and "2526" not in text
    status, text = lab.run("config", "show", "transport")
    assert status == 0 and "adatum.test" in text and "2526" not in text
    assert lab.run("config", "show", "send-connector", "nobody")[0] == 1


def test_config_check(lab):
    assert lab.run("config", "check") == (0, "$ posternctl config check\n[exit 0]\n")
    lab.receive["bindings"] = ["nonsense"]
    status, text = lab.run("config", "check")
    assert status == 1 and "LAB/postern.conf:" in text and "nonsense" in text
    # What is only doubtful is no mistake.
    lab.receive["bindings"] = ["127.0.0.1:2525"]
    lab.partner = None
    assert lab.run("config", "check")[0] == 0
    assert lab.run("config", "lint")[0] == 1


WORKED_EXAMPLE = """
transport {
	fqdn = "mx.adatum.test"
}
receive-connector "everybody" {
	bindings = {"0.0.0.0:2525", "[::]:2525"}
	remote-ip-ranges = {"0.0.0.0-255.255.255.255", "::/0"}
	send-connector = "inside"
}
receive-connector "network" {
	bindings = {"0.0.0.0:2525"}
	remote-ip-ranges = {"192.168.1.0-192.168.1.255"}
	send-connector = "inside"
}
receive-connector "one-host" {
	bindings = {"0.0.0.0:2525"}
	remote-ip-ranges = {"192.168.1.75"}
	send-connector = "inside"
}
receive-connector "disabled" {
	enabled = no
	bindings = {"0.0.0.0:2525"}
	remote-ip-ranges = {"192.168.1.75"}
	send-connector = "inside"
}
receive-connector "exact" {
	bindings = {"127.0.0.2:2525"}
	remote-ip-ranges = {"192.168.0.0/16"}
	send-connector = "inside"
}
send-connector "inside" {
	smart-hosts = {"127.0.0.1:2526"}
}
"""


@pytest.mark.parametrize("peer, local, winner", [
    ("192.168.1.75", "127.0.0.1:2525", "one-host"),
    ("192.168.1.100", "127.0.0.1:2525", "network"),
    ("192.168.2.1", "127.0.0.1:2525", "everybody"),
    ("2001:db8::1", "[::1]:2525", "everybody"),
    ("192.168.1.75", "127.0.0.2:2525", "exact"),
    ("198.51.100.1", "127.0.0.2:2525", "everybody"),
    ("192.168.1.75", "127.0.0.1:25", None),
])
def test_row_01_connector_match_cli(tmp_path, peer, local, winner):
    config = tmp_path / "postern.conf"
    config.write_text(WORKED_EXAMPLE)
    status, text = posternctl("connector", "match", "--from", peer, "--to", local, config=config)
    assert status == (0 if winner else 1), text
    serving = [line for line in text.splitlines() if "  serves  " in line]
    assert [line.split("  ")[0] for line in serving] == ([winner] if winner else [])
    if not winner:
        assert "no receive connector serves" in text


def test_row_01_connector_match_reasons(tmp_path):
    config = tmp_path / "postern.conf"
    config.write_text(WORKED_EXAMPLE)
    _, text = posternctl("connector", "match", "--from", "192.168.1.75", "--to", "127.0.0.1:2525",
                         config=config, check=0)
    golden("connector-match", text)
    _, text = posternctl("--json", "connector", "match", "--from", "192.168.1.75", "--to",
                         "127.0.0.2:2525", config=config, check=0)
    assert '"Connector": "one-host", "Result": "lost"' in text
    assert "its binding is not the address itself" in text


def test_connector_match_refuses_nonsense(tmp_path):
    config = tmp_path / "postern.conf"
    config.write_text(WORKED_EXAMPLE)
    for peer, local in [("x", "127.0.0.1:25"), ("192.0.2.1", "127.0.0.1"), ("192.0.2.1", "[::1:25"),
                        ("192.0.2.1", "127.0.0.1:0"), ("192.0.2.1", "127.0.0.1:99999")]:
        posternctl("connector", "match", "--from", peer, "--to", local, config=config, check=2)
    posternctl("connector", "match", "--from", "192.0.2.1", config=config, check=2)


ROUTES = """
transport {
	fqdn = "mx.adatum.test"
	accepted-domains = {"adatum.test"}
}
receive-connector "in" {
	bindings = {"127.0.0.1:2525"}
}
send-connector "anywhere" {
	address-spaces = {"*"}
}
send-connector "costly" {
	address-spaces = {"SMTP:contoso.test;10"}
}
send-connector "contoso-b" {
	address-spaces = {"contoso.test"}
}
send-connector "contoso-a" {
	address-spaces = {"contoso.test"}
	max-message-size = 1MB
}
send-connector "below" {
	address-spaces = {"*.contoso.test"}
}
send-connector "off" {
	enabled = no
	address-spaces = {"contoso.test"}
}
send-connector "ours" {
	address-spaces = {"--"}
	smart-hosts = {"127.0.0.1:2526"}
}
"""


@pytest.mark.parametrize("arguments, winner", [
    (["a@contoso.test"], "contoso-a"),
    (["a@contoso.test", "--size", "2000000"], "contoso-b"),
    (["a@sub.contoso.test"], "below"),
    (["a@adatum.test"], "ours"),
    (["fabrikam.test"], "anywhere"),
    (["a@contoso.test", "--size", "99999999"], None),
])
def test_row_28_connector_route_cli(tmp_path, arguments, winner):
    config = tmp_path / "postern.conf"
    config.write_text(ROUTES)
    status, text = posternctl("connector", "route", "--rcpt", *arguments, config=config)
    assert status == (0 if winner else 1), text
    carrying = [line for line in text.splitlines() if "  carries  " in line]
    assert [line.split("  ")[0] for line in carrying] == ([winner] if winner else [])


def test_row_28_connector_route_reasons(tmp_path):
    config = tmp_path / "postern.conf"
    config.write_text(ROUTES)
    golden("connector-route", posternctl("connector", "route", "--rcpt", "a@contoso.test",
                                         config=config, check=0)[1])


def explain(lab, *more, certificate="treyresearch", sender="a@treyresearch.test",
            rcpt="b@adatum.test"):
    arguments = ["explain", "--from", "127.0.0.9", "--ehlo", "mx.treyresearch.test",
                 "--mail-from", sender, "--rcpt", rcpt, *more]
    if certificate:
        arguments += ["--cert", lab.pki / f"{certificate}.pem"]
    return lab.run(*arguments)


def test_explain_accepted(lab):
    status, text = explain(lab)
    golden("explain-accepted", text)
    assert status == 0


def test_explain_another_partners_certificate(lab):
    status, text = explain(lab, certificate="other")
    golden("explain-refused", text)
    assert status == 1


@pytest.mark.parametrize("words, reply", [
    ({"certificate": None}, "454 4.7.5 Certificate validation failure: EmptyCertificate"),
    ({"more": ["--tls", "no"]}, "451 4.7.3 Mail from treyresearch.test needs mutual TLS"),
    ({"more": ["--time", "2001-01-01T00:00:00Z"]},
     "454 4.7.5 Certificate validation failure: NotYetValid"),
    ({"sender": "a@elsewhere.test"}, "530 5.7.1 Client was not authenticated"),
    ({"sender": "a@adatum.test"}, "550 5.7.1 Sender domain is ours"),
    ({"rcpt": "b@elsewhere.test"}, "550 5.7.1 Unable to relay"),
])
def test_explain_refusals(lab, words, reply):
    status, text = explain(lab, *words.pop("more", []), **words)
    assert status == 1, text
    assert f"  reply     {reply}" in text
    assert text.endswith("verdict     refused\n[exit 1]\n")


def test_explain_null_sender(lab):
    status, text = explain(lab, sender="<>")
    assert status == 0 and 'role      partner "trey"' in text, text


def test_explain_unserved(lab):
    lab.receive["remote_ip_ranges"] = ["192.0.2.1"]
    status, text = explain(lab)
    assert status == 1 and "closed unserved" in text
