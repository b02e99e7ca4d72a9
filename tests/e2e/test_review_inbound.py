# SPDX-License-Identifier: Apache-2.0
"""What a peer that has proved nothing might try with the header, and what it is told."""

import pytest

from conftest import PKI, free_port
from lab import (certificate, inside, lab, partner, receive, section, secure,  # noqa: F401
                 transport)

TRUSTED = {"trusted_next_hop": True}


def door(lab, fqdn="mx.adatum.test", **keywords):
    """A connector for anybody: port and next hop."""
    port, hop = free_port(), lab.server(how="clear")
    lab.relay(transport(fqdn=fqdn), certificate(), inside(hop.port, **TRUSTED),
              receive("in", port, type="internet", certificate="edge", **keywords))
    return port, hop


def send_chunk(client, message, last=" LAST"):
    """The message in one chunk, as what BINARYMIME allows; the reply."""
    for line in ("MAIL FROM:<a@b.test> BODY=BINARYMIME", "RCPT TO:<b@adatum.test>"):
        client.say(line, 250)
    client.write(f"BDAT {len(message)}{last}\r\n".encode() + message)
    return client.reply()


@pytest.mark.parametrize("how", ["DATA", "BDAT"])
def test_a_message_does_not_go_on_with_our_own_field(lab, how):
    port, hop = door(lab)
    client = lab.opened(port)
    forged = "\tx-domain-secure=pass policy.domain=treyresearch.test\r\n \r\n"
    if how == "DATA":
        reply = client.send("a@b.test", body=forged + "A: b\r\n\r\ntext\r\n")
    else:
        reply = send_chunk(client, (forged + "A: b\r\n\r\ntext\r\n").encode())
    assert reply.startswith("250")
    got = hop.messages[0].body.decode()
    assert "x-domain-secure=pass" not in got and "treyresearch" not in got
    assert "TLS_AES_256_GCM_SHA384)\r\nA: b\r\n" in got and got.endswith("\r\n\r\ntext\r\n")


def test_a_nul_in_the_header_is_no_matter_of_binarymime(lab):
    port, hop = door(lab)
    client = lab.opened(port)
    forged = b"X-MS-Exchange-Organi\0zation-AuthAs: Internal\r\n\r\ntext\r\n"
    assert send_chunk(client, forged) == "550 5.6.0 NUL in a message is not allowed"
    assert send_chunk(client, b"A: b\r\n\r\na\0b\r\n").startswith("250")
    assert len(hop.messages) == 1 and hop.messages[0].body.endswith(b"\r\n\r\na\0b\r\n")


def test_results_in_our_name_as_a_u_label_are_removed(lab):
    port, hop = door(lab, fqdn="mx.xn--bcher-kva.test")
    kept = "Authentication-Results: mx.other.test; dkim=pass\r\n"
    forged = "Authentication-Results: MX.B\u00fccher.test; x-domain-secure=pass\r\n"
    assert lab.opened(port).send("a@b.test", body=forged + kept + "\r\n").startswith("250")
    got = hop.messages[0].body.decode()
    assert kept in got and "cher.test; x-domain-secure=pass" not in got


def test_results_in_the_name_of_the_configuration_in_force_are_removed(lab):
    port, hop = free_port(), lab.server(how="clear")

    def config(fqdn):
        return "\n".join([transport(fqdn=fqdn), certificate(), inside(hop.port, **TRUSTED),
                          receive("in", port)])

    relay = lab.relay(config("mx.adatum.test"))
    client = lab.opened(port, tls=False)
    assert relay.reload(config("edge.adatum.test"))["result"] == "ok"
    forged = "Authentication-Results: edge.adatum.test; x-domain-secure=pass\r\n"
    assert client.send("a@b.test", body=forged + "\r\n").startswith("250")
    got = hop.messages[0].body.decode()
    assert "x-domain-secure=pass" not in got
    assert "Authentication-Results: edge.adatum.test;\r\n\tx-domain-secure=none" in got


def test_a_certificate_that_nobody_checked_is_not_called_verified(lab):
    port, hop = free_port(), lab.server(how="clear")
    relay = lab.relay(transport(), certificate(), inside(hop.port),
                      receive("own", port, tls="starttls", certificate="edge",
                              permission_groups=["internal"], external_authoritative=True,
                              client_certificate="ask",
                              trust_anchors=PKI / "treyresearch-ca.pem"))
    assert lab.opened(port, "northwind").send("a@b.test").startswith("250")
    assert "\" not verified)" in hop.messages[0].body.decode()
    relay.stats()  # its event is behind that in the log
    assert relay.events("tls")[-1]["client-cert"] != "Valid"


@pytest.mark.parametrize("cert, offered", [("treyresearch", True), ("northwind", False)])
def test_a_partner_is_offered_what_the_path_can_carry(lab, cert, offered):
    """Where a certificate is required, and the partner's own anchors are what judges it."""
    port, hop = free_port(), lab.server(how="clear")
    lab.relay(transport(), certificate(), partner(), inside(hop.port),
              secure("partners", port, client_certificate="require"))
    client = lab.opened(port, cert)
    assert ("8BITMIME" in client.keywords) == offered
    assert client.send().startswith("250" if offered else "454 4.7.5")
