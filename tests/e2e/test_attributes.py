# SPDX-License-Identifier: Apache-2.0
"""Attributes of connectors (EXCHANGE 2.5 and 3.2) that no row of the table asks for."""

from conftest import free_port, wait_for
from lab import (certificate, inside, lab, receive, send,  # noqa: F401
                 transport)


def door(lab, hop, **keywords):
    port = free_port()
    relay = lab.relay(transport(), certificate(), receive("in", port, **keywords),
                      inside(hop.port))
    return relay, port


def way_out(lab, hop_port, **keywords):
    """A relay with one send connector: relay, port."""
    port = free_port()
    relay = lab.relay(transport(), certificate(), receive("in", port, send_connector="out"),
                      send("out", hop_port, **keywords))
    return relay, port


# ---- receive connectors ----------------------------------------------------------------------

def test_banner_and_fqdn(lab):
    hop = lab.server(how="clear")
    _, port = door(lab, hop, fqdn="gate.adatum.test")
    client = lab.client(port)
    assert client.greeting.startswith("220 gate.adatum.test ")
    assert client.say("EHLO probe.test", 250).startswith("250-gate.adatum.test ")
    _, port = door(lab, hop, banner="220 nothing to see here")
    assert lab.client(port).greeting == "220 nothing to see here"


def test_enabled(lab):
    """A connector that is not enabled is as if it were not there."""
    hop, port, other = lab.server(how="clear"), free_port(), free_port()
    relay = lab.relay(transport(), receive("off", port, enabled=False), receive("on", other),
                      inside(hop.port))
    assert relay.events("listen", connector="off") == []
    assert lab.opened(other, tls=False).send("a@unlisted.test").startswith("250")
    try:
        lab.client(port)
    except ConnectionRefusedError:
        return
    raise AssertionError("somebody answers for a connector that is not enabled")


def test_enabled_shares_a_binding(lab):
    """Of two on one address the one that is enabled serves."""
    hop, port = lab.server(how="clear"), free_port()
    lab.relay(transport(),
              receive("off", port, enabled=False, remote_ip_ranges=["127.0.0.1"],
                      banner="220 off"),
              receive("on", port, banner="220 on"), inside(hop.port))
    assert lab.client(port).greeting == "220 on"


# ---- send connectors -------------------------------------------------------------------------

def test_fqdn_of_a_send_connector(lab):
    hop = lab.server(how="clear")
    _, port = way_out(lab, hop.port, fqdn="out.adatum.test", tls_auth_level="none")
    assert lab.opened(port, tls=False).send("a@unlisted.test").startswith("250")
    assert "EHLO out.adatum.test" in hop.commands


def test_source_address(lab):
    hop, peers = lab.server(how="clear"), []
    serve = hop._serve  # pylint: disable=protected-access

    def watch(connection):
        peers.append(connection.getpeername()[0])
        serve(connection)

    hop._serve = watch  # pylint: disable=protected-access
    _, port = way_out(lab, hop.port, source_address="127.7.7.7", tls_auth_level="none")
    assert lab.opened(port, tls=False).send("a@unlisted.test").startswith("250")
    assert set(peers) == {"127.7.7.7"}


def test_connection_idle_timeout(lab):
    """A session without work ends by itself, and says QUIT."""
    hop = lab.server(how="clear")
    relay, port = way_out(lab, hop.port, connection_idle_timeout="1s", tls_auth_level="none")
    assert lab.opened(port, tls=False).send("a@unlisted.test").startswith("250")
    wait_for(lambda: relay.events("nexthop-end"), "end of the idle session")


def test_max_messages_per_connection(lab):
    hop = lab.server(how="clear")
    relay, port = way_out(lab, hop.port, max_messages_per_connection=1, tls_auth_level="none")
    client = lab.opened(port, tls=False)
    for _ in range(3):
        assert client.send("a@unlisted.test").startswith("250")
    assert relay.counter("nexthop_connects") >= 3
