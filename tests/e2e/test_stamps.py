# SPDX-License-Identifier: Apache-2.0
"""What the relay says of senders in the header, and whose fields it lets pass."""

import pytest

from conftest import free_port
from lab import certificate, inside, lab, receive, section, transport  # noqa: F401
from lab_pki import spki

ORG = "X-MS-Exchange-Organization-"
FIELDS = f"Subject: a\r\n{ORG}SCL: -1\r\nX-MS-Exchange-Forest-A: b\r\n folded\r\n"


def hubs(lab, trusted=True, **keywords):
    """One of our own servers writes to another."""
    port, hop = free_port(), lab.server(how="clear")
    relay = lab.relay(transport(), certificate(), inside(hop.port, trusted_next_hop=trusted),
                      section("internal-server", "hub", spki_pins=[spki("hub")]),
                      receive("hubs", port, type="internal", certificate="edge", **keywords))
    return relay, port, hop


def header(hop):
    """The fields behind our own."""
    text, end, _ = hop.messages[-1].body.decode().partition("\r\n\r\n")
    text += end[:2]
    stamp = "\tx-domain-secure=none (TLSv1.3, TLS_AES_256_GCM_SHA384)\r\n"
    assert stamp in text
    return text[text.index(stamp) + len(stamp):]


def test_an_internal_sender_is_stamped_and_its_fields_stay(lab):
    relay, port, hop = hubs(lab)
    assert lab.opened(port, "hub").send(body=FIELDS + "\r\ntext\r\n").startswith("250")
    assert header(hop) == (FIELDS + f"{ORG}AuthSource: mx.adatum.test\r\n"
                           f"{ORG}AuthAs: Internal\r\n")
    relay.stats()  # its event is behind that in the log
    assert relay.events("message")[-1]["role"] == "internal"


def test_what_an_internal_sender_has_found_out_stands(lab):
    _, port, hop = hubs(lab)
    fields = FIELDS + f"{ORG}authas : Anonymous\r\n"
    assert lab.opened(port, "hub").send(body=fields + "\r\ntext\r\n").startswith("250")
    assert header(hop) == fields, "what came in as anonymous does not become internal"


def test_fields_of_exchange_are_for_a_trusted_next_hop(lab):
    relay, port, hop = hubs(lab, trusted=False)
    assert lab.opened(port, "hub").send(body=FIELDS + "\r\ntext\r\n").startswith("250")
    assert header(hop) == "Subject: a\r\n"
    assert relay.counter("headers_removed") == 2


@pytest.mark.parametrize("body", [FIELDS, ""])
def test_a_message_that_is_all_header(lab, body):
    _, port, hop = hubs(lab)
    assert lab.opened(port, "hub").send(body=body).startswith("250")
    assert header(hop) == body + f"{ORG}AuthSource: mx.adatum.test\r\n{ORG}AuthAs: Internal\r\n"


def test_a_field_is_not_hidden_behind_a_bare_newline(lab):
    port, hop = free_port(), lab.server(how="clear")
    lab.relay(transport(), certificate(), inside(hop.port, trusted_next_hop=True),
              receive("in", port, type="internet", certificate="edge"))
    client = lab.opened(port)
    for line in ("MAIL FROM:<a@b.test> BODY=BINARYMIME", "RCPT TO:<b@adatum.test>"):
        client.say(line, 250)
    message = f"A: b\n{ORG}AuthAs: Internal\r\n\r\ntext\r\n"
    client.write(f"BDAT {len(message)} LAST\r\n" + message)
    assert client.reply().startswith("250")
    assert "Internal" not in hop.messages[0].body.decode()
    assert f"{ORG}AuthAs: Anonymous\r\n" in hop.messages[0].body.decode()
