# SPDX-License-Identifier: Apache-2.0
"""Sending, where it is hard: what a pooled session was judged by is over, the next hop misbehaves,
a reload goes half wrong, who waited has gone."""

import os
import resource
import signal
import time

import pytest

from conftest import free_port, wait_for
from lab import (BODY, PKI, Server, inside, lab, partner, section, send,  # noqa: F401
                 transport, until)
from lab import receive as door
from lab_pki import now
from test_outbound import Near, events, routed, talk, two

CHAIN = "454 4.7.5 Certificate validation failure: "


# ---- pooled sessions are as good as what they were judged by ---------------------------------

def secured(lab, server, *more, **keywords):
    port = free_port()
    relay = lab.relay(transport(), partner(**keywords), door("in", port, send_connector="out"),
                      send("out", server.port, domain_secure=True,
                           max_messages_per_connection="unlimited"), *more)
    return relay, lab.opened(port, tls=False)


def test_a_pooled_session_ends_with_the_certificate(lab):
    end = now(seconds=6)
    server = lab.server(cert=lab.authority("treyresearch-ca").leaf("hop", end=end))
    relay, client = secured(lab, server)
    for _ in range(2):
        assert client.send("x@y.test", "1@treyresearch.test").startswith("250 ")
    assert server.connections == 1
    until(end.timestamp() + 1)
    assert client.send("x@y.test", "1@treyresearch.test") == CHAIN + "Expired"
    assert server.mails == len(server.messages) == 2
    assert len(events(relay, "nexthop-end", why="certificate-Expired")) == 1


def test_a_pooled_session_ends_with_its_revocation(lab):
    authority = lab.authority("treyresearch-ca")
    server = lab.server(cert=authority.leaf("hop"))
    lists = lab.place("lists") / "list.crl"
    lists.write_bytes(authority.crl())
    relay, client = secured(lab, server, crl_files=[lists], revocation="hard")
    for _ in range(2):
        assert client.send("x@y.test", "1@treyresearch.test").startswith("250 ")
    assert server.connections == 1
    authority.revoke("hop")
    (lists.parent / "fresh").write_bytes(authority.crl())
    os.replace(lists.parent / "fresh", lists)
    def refused():
        count = server.mails
        reply = client.send("x@y.test", "1@treyresearch.test")
        assert reply.startswith("250 ") or (reply == CHAIN + "Revoked" and server.mails == count)
        return not reply.startswith("250 ")
    wait_for(refused, "refusal of a revoked certificate")
    assert len(events(relay, "nexthop-end", why="certificate-Revoked")) == 1


# ---- answers ---------------------------------------------------------------------------------

@pytest.mark.parametrize("where", ["<bad@", "<1@"])
def test_a_destination_that_says_421_does_not_end_the_clients_session(lab, where):
    _, port, a, b = two(lab)
    a.refuses[where] = "421 4.3.2 hop goes"
    client = lab.opened(port, tls=False)
    replies = talk(client, "MAIL FROM:<bad@y.test>", "RCPT TO:<1@a.test>", "RCPT TO:<2@b.test>",
                   "DATA")
    assert [reply[:3] for reply in replies] == ["250", "451", "250", "354"]
    assert client.say(BODY + ".").startswith("250 ")
    assert len(b.messages) == 1 and a.messages == []


def test_an_answer_to_data_that_is_neither_go_on_nor_a_refusal(lab):
    """A client that takes every good code for "go on" would have its text read as commands."""
    near, port = lab.keep(Near(lab.pki, keywords=["PIPELINING"])), free_port()
    near.refuses["DATA"] = "250 2.0.0 fine"
    lab.relay(transport(), door("in", port), inside(near.port))
    client = lab.opened(port, tls=False)
    assert client.send("x@y.test", "1@a.test").startswith("451 ")
    assert near.messages == []
    near.refuses.clear()
    assert client.send("x@y.test", "1@a.test").startswith("250 ")


@pytest.mark.parametrize("how", ["DATA", "BDAT"])
@pytest.mark.parametrize("fixed", [True, False])
def test_the_limit_of_a_send_connector_holds_for_a_size_that_nobody_announced(lab, how, fixed):
    near, port = lab.keep(Near(lab.pki)), free_port()
    lab.relay(transport(), door("in", port, send_connector="out" if fixed else None),
              send("out", near.port, tls_auth_level="none", max_message_size="64KB",
                   address_spaces=["*"]))
    client = lab.opened(port, tls=False)
    for size, want in ((100000, "552 5.3.4 "), (50000, "250 ")):
        body = "Subject: big\r\n\r\n" + "x" * 70 + "\r\n"
        body += ("y" * 70 + "\r\n") * (size // 72)
        client.say("MAIL FROM:<x@y.test>", 250)
        client.say("RCPT TO:<1@a.test>", 250)
        if how == "DATA":
            client.say("DATA", 354)
            reply = client.say(body + ".")
        else:
            client.write(f"BDAT {len(body)} LAST\r\n{body}")
            reply = client.reply()
        assert reply.startswith(want)
    assert len(near.messages) == 1


def test_an_address_literal_on_a_fixed_path_is_nobodys_listed_domain(lab):
    near, port = lab.keep(Near(lab.pki)), free_port()
    lab.relay(transport(), door("in", port), inside(near.port), partner())
    client = lab.opened(port, tls=False)
    assert client.send("x@y.test", "1@[127.0.0.1]").startswith("250 ")
    assert client.send("x@y.test", "1@treyresearch.test").startswith("451 4.7.3 ")


# ---- reload ----------------------------------------------------------------------------------

def test_a_way_that_is_gone_is_not_used_under_old_rules(lab):
    """Neither connector is there any more: what they allowed is not allowed now."""
    server, near = lab.server(how="clear"), lab.keep(Near(lab.pki))
    port, other = free_port(), free_port()
    stays = [transport(), door("other", other), inside(near.port)]
    relay = lab.relay(*stays, door("in", port, send_connector="out"),
                      send("out", server.port, tls_auth_level="none"))
    client = lab.opened(port, tls=False)
    assert client.send("x@y.test", "1@treyresearch.test").startswith("250 ")
    assert relay.reload("\n".join([*stays, partner()]))["result"] == "ok"
    assert client.send("x@y.test", "1@treyresearch.test").startswith("421 4.3.2 ")
    assert client.reply() == "" and server.mails == 1


def test_a_reload_that_gets_no_resolver_does_not_end_the_relay(lab):
    near, port = lab.keep(Near(lab.pki)), free_port()
    dns = lab.dns(mx={"a.test": [(10, "mx.a.test")]}, hosts={"mx.a.test": "127.0.0.1"})
    before = [transport(dns_servers=[dns.address]), door("in", port, send_connector=None),
              send("near", near.port, tls_auth_level="none", address_spaces=["b.test"],
                   max_connections=2)]
    relay = lab.relay(before[0], *before[1:],
                      send("spare", near.port, max_connections=20, address_spaces=["c.test"]))
    client = lab.opened(port, tls=False)
    pid = relay.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 4, limits[1]))
    relay.reload("\n".join([*before, section("send-connector", "internet", address_spaces=["*"],
                                             port=near.port, tls_auth_level="none",
                                             max_connections=10)]))
    assert events(relay, "reload", why="resolver")
    reply = client.send("x@y.test", "1@a.test")
    assert reply == "451 4.4.3 The mail servers of a.test could not be looked up"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    client.say("RSET", 250)
    assert client.send("x@y.test", "1@a.test").startswith("250 ")


# ---- who waited has gone ---------------------------------------------------------------------

class Slow(Server):
    """Answers EHLO when it is told to, to all at once."""

    def __init__(self, pki, **options):
        self.waiting = []
        super().__init__(pki, how="clear", **options)

    def _serve(self, connection):
        self.connections += 1
        connection.sendall(b"220 hop.test\r\n")
        connection.recv(1000)
        self.waiting.append(connection)

    def go_on(self):
        for connection in self.waiting:
            connection.sendall(b"250-hop.test\r\n250 PIPELINING\r\n")


def test_a_session_that_nobody_needs_any_more_makes_room(lab):
    """Two are opened and ready in one turn, and one who waited has gone: others get the place."""
    smtp = free_port()
    slow = lab.keep(Slow(lab.pki, address="127.20.4.1", port=smtp))
    near = lab.keep(Near(lab.pki, address="127.20.4.2", port=smtp))
    dns = lab.dns(mx={"a.test": [(10, "mx.a.test")], "b.test": [(10, "mx.b.test")]},
                  hosts={"mx.a.test": "127.20.4.1", "mx.b.test": "127.20.4.2"})
    relay, port = routed(lab, section("send-connector", "internet", address_spaces=["*"],
                                      port=smtp, max_connections=2), dns_servers=[dns.address])
    clients = [lab.opened(port, tls=False) for _ in range(3)]
    for client, domain in zip(clients, ("a.test", "a.test", "b.test")):
        client.say("MAIL FROM:<x@y.test>", 250)
        client.write(f"RCPT TO:<1@{domain}>\r\n")
    wait_for(lambda: len(slow.waiting) == 2, "two sessions")
    assert not clients[2].has_answer(0.3) and near.connections == 0
    clients[1].close()
    wait_for(lambda: relay.events("session-end"), "end of the session")
    relay.process.send_signal(signal.SIGSTOP)
    slow.go_on()
    time.sleep(0.1)
    relay.process.send_signal(signal.SIGCONT)
    assert clients[2].reply().startswith("250 ")


def test_sessions_that_are_never_kept_carry_mail(lab):
    near, port = lab.keep(Near(lab.pki)), free_port()
    lab.relay(transport(), door("in", port),
              inside(near.port, connection_idle_timeout="0s", max_connections=1))
    clients = [lab.opened(port, tls=False) for _ in range(3)]
    for client in clients * 2:
        client.write("MAIL FROM:<x@y.test>\r\nRCPT TO:<1@a.test>\r\nRSET\r\n")
    for client in clients * 2:
        assert [client.reply()[:3] for _ in range(3)] == ["250"] * 3
    assert clients[0].send("x@y.test", "1@a.test").startswith("250 ")


def test_a_session_is_not_taken_from_who_it_was_opened_for(lab):
    """It is ready in the very turn in which another destination wants its place."""
    smtp = free_port()
    slow = lab.keep(Slow(lab.pki, address="127.20.4.3", port=smtp))
    lab.keep(Near(lab.pki, address="127.20.4.4", port=smtp))
    dns = lab.dns(mx={"a.test": [(10, "mx.a.test")], "b.test": [(10, "mx.b.test")]},
                  hosts={"mx.a.test": "127.20.4.3", "mx.b.test": "127.20.4.4"})
    relay, port = routed(lab, section("send-connector", "internet", address_spaces=["*"],
                                      port=smtp, max_connections=1), dns_servers=[dns.address])
    clients = [lab.opened(port, tls=False) for _ in range(2)]
    assert clients[1].send("x@y.test", "1@b.test").startswith("250 ")
    for client in clients:
        client.say("MAIL FROM:<x@y.test>", 250)
    clients[0].write("RCPT TO:<1@a.test>\r\n")
    wait_for(lambda: slow.waiting, "a session")
    relay.process.send_signal(signal.SIGSTOP)
    clients[1].write("RCPT TO:<1@b.test>\r\n")
    time.sleep(0.1)
    slow.go_on()
    time.sleep(0.1)
    relay.process.send_signal(signal.SIGCONT)
    assert slow.waiting[0].recv(1000).startswith(b"MAIL ")
