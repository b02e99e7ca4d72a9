# SPDX-License-Identifier: Apache-2.0
"""The queue as a whole: what is accepted is delivered, whatever happens to the relay in between."""

import re
import signal

from conftest import free_port, wait_for
from lab import BODY, Server, inside, lab, partner, receive, send, transport  # noqa: F401

QUICK = {"queue_glitch_retry_interval": "1s", "transient_failure_retry_interval": "1s",
         "outbound_connection_failure_retry_interval": "1s", "message_retry_interval": "1s",
         "spool_segment_size": "4MB", "spool_max_size": "64MB"}


def config(port, hop_port, receive_words=None, send_words=None, **words):
    words = {"spool_folder": "spool", "tracking_log_folder": "track", **QUICK, **words}
    return "\n".join([
        transport(**words),
        receive("in", port, **{"deliver": "queue", **(receive_words or {})}),
        inside(hop_port, **(send_words or {}))])


def queue_relay(lab, hop_port, **words):
    port = free_port()
    return lab.relay(config(port, hop_port, **words)), port


def accepted(client, **words):
    """Sends a message; the id by which the relay knows it."""
    answer = client.send(**words)
    found = re.match(r"250 2\.6\.0 <\S+> Queued mail for delivery \[InternalId=([0-9a-f]{16}), "
                     r"Hostname=mx\.adatum\.test\]$", answer)
    assert found, answer
    return found[1]


def subjects(hop):
    return sorted(re.search(rb"^Subject: (.*?)\r$", message.body, re.MULTILINE)[1].decode()
                  for message in hop.messages)


def body(word):
    return f"Subject: {word}\r\nMessage-ID: <{word}@treyresearch.test>\r\n\r\ntext\r\n"


def restart(relay, kill=False):
    if kill:
        relay.process.send_signal(signal.SIGKILL)
        relay.process.wait()
        relay.process = None
    else:
        relay.stop()
    relay.start()


def track_rows(relay):
    """Rows of the tracking log without its head, as lists of columns that have no quotes."""
    rows = []
    for path in sorted((relay.folder / "track").glob("MSGTRK*.LOG")):
        rows += [line.split(",") for line in path.read_text().splitlines()
                 if line and not line.startswith("#") and not line.startswith("date-time")]
    return rows


def test_accepted_and_delivered(lab):
    hop = lab.server(how="clear")
    relay, port = queue_relay(lab, hop.port)
    client = lab.opened(port, tls=False)
    name = accepted(client, to=("b@adatum.test", "c@adatum.test"), body=body("one"))
    wait_for(lambda: hop.messages, "message")
    message = hop.messages[0]
    assert message.sender.startswith("MAIL FROM:<a@treyresearch.test>")
    assert [line.split(">")[0] for line in message.recipients] == \
        ["RCPT TO:<b@adatum.test", "RCPT TO:<c@adatum.test"]
    assert message.body.decode().endswith(body("one").partition("\r\n")[2])
    assert b"Received: from probe.test" in message.body
    assert relay.events("message", result="accepted", nexthop=f"queue:{name}")
    wait_for(lambda: relay.counter("queue_sent") == 2, "sent recipients")
    stats = relay.stats()
    assert (stats["queue_accepted"], stats["messages"]) == (1, 1)
    assert stats["spool_writes"] >= 1 and stats["spool_flushes"] >= 1
    # Nothing is left that a restart would send again.
    restart(relay)
    client = lab.opened(port, tls=False)
    accepted(client, body=body("two"))
    wait_for(lambda: len(hop.messages) >= 2, "second message")
    relay.stop()
    assert subjects(hop) == ["one", "two"]
    events = [row[8] for row in track_rows(relay)]
    assert events.count("RECEIVE") == 2 and events.count("SEND") >= 2, events


def test_a_large_body_comes_out_as_it_came_in(lab):
    hop = lab.server(how="clear")
    relay, port = queue_relay(lab, hop.port)
    text = "".join(f"{line:078d}\r\n" for line in range(40000))
    accepted(lab.opened(port, tls=False), body=body("large") + text)
    wait_for(lambda: hop.messages, "message")
    assert hop.messages[0].body.decode().endswith(text)
    assert relay.counter("spool_corrupt") == 0


def waits_over_restart(lab, kill):
    hop_port = free_port()
    relay, port = queue_relay(lab, hop_port)
    client = lab.opened(port, tls=False)
    for word in ("one", "two", "three"):
        accepted(client, body=body(word))
    wait_for(lambda: relay.counter("queue_retries") > 0, "a queue in Retry")
    restart(relay, kill)
    hop = lab.keep(Server(lab.pki, how="clear", port=hop_port))
    wait_for(lambda: len(hop.messages) >= 3, "messages")
    restart(relay)
    accepted(lab.opened(port, tls=False), body=body("two-more"))
    wait_for(lambda: len(hop.messages) >= 4, "the last message")
    assert subjects(hop) == ["one", "three", "two", "two-more"]


def test_row_44_waits_over_a_restart(lab):
    waits_over_restart(lab, kill=False)


def test_row_44_waits_over_a_kill(lab):
    waits_over_restart(lab, kill=True)


def test_fewer_workers_empty_the_logs_of_more(lab):
    hop_port = free_port()
    relay, port = queue_relay(lab, hop_port, workers=3, spool_max_size="128MB")
    words = [f"w{number:02d}" for number in range(12)]
    for word in words:  # the kernel gives each connection to some worker
        accepted(lab.opened(port, tls=False), body=body(word))
    relay.stop()
    relay.config.write_text(config(port, hop_port, workers=1, spool_max_size="128MB"))
    relay.start()
    hop = lab.keep(Server(lab.pki, how="clear", port=hop_port))
    wait_for(lambda: len(hop.messages) >= len(words), "messages")
    assert subjects(hop) == words


def test_a_reload_changes_where_mail_of_a_session_goes(lab):
    hop = lab.server(how="clear")
    relay, port = queue_relay(lab, hop.port, receive_words={"deliver": "proxy"})
    client = lab.opened(port, tls=False)
    assert "hop.test" in client.send(body=body("straight"))
    assert relay.reload(config(port, hop.port))["result"] == "ok"
    accepted(client, body=body("kept"))
    wait_for(lambda: len(hop.messages) == 2, "queued message")
    assert relay.reload(config(port, hop.port,
                               receive_words={"deliver": "proxy"}))["result"] == "ok"
    assert "hop.test" in client.send(body=body("straight again"))
    assert subjects(hop) == ["kept", "straight", "straight again"]


def test_unreachable_mail_waits_for_a_send_connector(lab):
    hop = lab.server(how="clear")
    port = free_port()
    def text(space):
        return "\n".join([transport(spool_folder="spool", **QUICK),
                          receive("in", port, deliver="queue", send_connector=None),
                          send("out", hop.port, address_spaces=[space], tls_auth_level="none")])
    relay = lab.relay(text("elsewhere.test"))
    accepted(lab.opened(port, tls=False), body=body("waits"))
    assert relay.reload(text("*"))["result"] == "ok"
    wait_for(lambda: hop.messages, "message")
    assert subjects(hop) == ["waits"]


def test_what_the_spool_is_laid_out_by_needs_a_restart(lab):
    hop = lab.server(how="clear")
    relay, port = queue_relay(lab, hop.port)
    for words in ({"spool_max_size": "128MB"}, {"spool_segment_size": "8MB"},
                  {"queue_max_messages": 7}, {"spool_folder": "other"},
                  {"back_pressure_medium": 88}):
        event = relay.reload(config(port, hop.port, **words))
        assert event["result"] != "ok", words
    accepted(lab.opened(port, tls=False), body=BODY)


def test_a_full_queue_refuses_mail(lab):
    relay, port = queue_relay(lab, free_port(), queue_max_messages=2)
    client = lab.opened(port, tls=False)
    for word in ("one", "two"):
        accepted(client, body=body(word))
    assert client.mail("a@treyresearch.test").startswith("452 4.3.1")
    assert relay.refusals(why="queue-full")
    assert relay.counter("queue_refused") == 1


# A session of one of our own servers, which no tarpit holds back.
OURS = {"external_authoritative": True, "permission_groups": ["internal"]}


def test_row_43_a_full_spool_refuses_and_recovers(lab):
    hop_port = free_port()
    relay, port = queue_relay(lab, hop_port, receive_words=OURS, spool_max_size="24MB",
                              back_pressure_medium=30, back_pressure_high=60,
                              back_pressure_high_end=50, back_pressure_medium_end=20)
    text = "".join(f"{line:078d}\r\n" for line in range(13000))
    client = lab.opened(port, tls=False)
    words, answer = [], ""
    for number in range(60):
        answer = client.send(body=body(f"w{number:02d}") + text)
        if not answer.startswith("250"):
            break
        words.append(f"w{number:02d}")
    assert answer.startswith("452 4.3.1"), answer
    assert relay.counter("queue_refused") >= 1
    hop = lab.keep(Server(lab.pki, how="clear", port=hop_port))
    wait_for(lambda: len(hop.messages) >= len(words), "messages")
    def is_taken():
        answer = client.mail("a@treyresearch.test")
        client.say("RSET")
        return answer.startswith("250")
    wait_for(is_taken, "room in the spool")
    accepted(client, body=body("x"))
    wait_for(lambda: len(hop.messages) > len(words), "the last message")
    assert subjects(hop) == [*words, "x"]


def test_row_43_senders_that_are_not_known_wait(lab):
    relay, port = queue_relay(lab, free_port(), spool_max_size="24MB", back_pressure_medium=1,
                              back_pressure_medium_end=0)
    client = lab.opened(port, tls=False)
    # The first finds an empty spool, and fills more than a hundredth of it.
    accepted(client, body=body("first") + "x" * 70 + "\r\n" + f"{0:078d}\r\n" * 13000)
    wait_for(lambda: client.mail("a@treyresearch.test") and client.say("RSET") and
             relay.counter("queue_tarpitted") > 0, "an answer that was held back")
    assert relay.counter("queue_refused") == 0


def test_a_delivery_that_a_stop_cuts_off_is_made_again(lab):
    hop = lab.server(how="clear")
    relay, port = queue_relay(lab, hop.port, drain_timeout="1s")
    hop.held.clear()
    accepted(lab.opened(port, tls=False), body=body("cut"))
    wait_for(lambda: any(line.startswith(("BDAT", "DATA")) for line in hop.commands), "a body")
    relay.stop()
    hop.held.set()
    wait_for(lambda: len(hop.messages) == 1, "the first copy")
    relay.start()
    wait_for(lambda: len(hop.messages) == 2, "the second copy")
    assert set(subjects(hop)) == {"cut"}


def test_a_session_may_end_its_message_while_the_relay_drains(lab):
    hop = lab.server(how="clear")
    relay, port = queue_relay(lab, hop.port, drain_timeout="60s")
    client = lab.opened(port, tls=False)
    client.mail("a@treyresearch.test")
    client.say("RCPT TO:<b@adatum.test>")
    assert client.say("DATA").startswith("354")
    relay.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "event=drain" in relay.log(), "drain")
    assert client.say(body("late") + ".").startswith("250 2.6.0")
    assert relay.process.wait(60) == 0
    relay.process = None
    assert not hop.messages
    relay.start()
    wait_for(lambda: hop.messages, "message")
    assert subjects(hop) == ["late"]


def test_chunks_and_binary_text_come_out_as_they_went_in(lab):
    hop = lab.server(how="clear")
    relay, port = queue_relay(lab, hop.port)
    client = lab.opened(port, tls=False)
    text = (b"Subject: binary\r\n\r\n" + bytes(range(256)) * 40 +
            b"\n.\n\r\n.\r\nend without a line end")
    assert client.say("MAIL FROM:<a@treyresearch.test> BODY=BINARYMIME").startswith("250")
    assert client.say("RCPT TO:<b@adatum.test>").startswith("250")
    for start in range(0, len(text), 3000):
        chunk = text[start:start + 3000]
        last = " LAST" if start + 3000 >= len(text) else ""
        client.write(f"BDAT {len(chunk)}{last}\r\n".encode() + chunk)
        assert client.reply().startswith("250"), relay.log()
    wait_for(lambda: hop.messages, "message")
    assert hop.messages[0].body.endswith(text) and hop.messages[0].how == "BDAT"
    assert "BODY=BINARYMIME" in hop.messages[0].sender


def test_what_is_not_accepted_is_not_delivered(lab):
    hop = lab.server(how="clear")
    relay, port = queue_relay(lab, hop.port, receive_words={"max_message_size": "64KB"})
    client = lab.opened(port, tls=False)
    assert client.send(body=body("large") + f"{0:078d}\r\n" * 2000).startswith("552 5.3.4")
    broken = lab.opened(port, tls=False)
    broken.mail("a@treyresearch.test")
    broken.say("RCPT TO:<b@adatum.test>")
    broken.say("DATA")
    broken.write(body("broken").encode() + b"x" * 20000)
    broken.close()
    forgotten = lab.opened(port, tls=False)
    forgotten.mail("a@treyresearch.test")
    forgotten.say("RCPT TO:<b@adatum.test>")
    assert forgotten.say("RSET").startswith("250")
    accepted(client, body=body("good"))
    wait_for(lambda: hop.messages, "message")
    restart(relay)
    accepted(lab.opened(port, tls=False), body=body("last"))
    wait_for(lambda: len(hop.messages) >= 2, "the last message")
    assert subjects(hop) == ["good", "last"]


def test_recipients_that_the_policy_refuses(lab):
    hop = lab.server(how="clear")
    port = free_port()
    lab.relay(transport(spool_folder="spool", **QUICK), partner(),
              receive("in", port, deliver="queue", send_connector=None),
              send("out", hop.port, address_spaces=["*"], tls_auth_level="none"))
    client = lab.opened(port, tls=False)
    assert client.mail("a@adatum.test").startswith("250")
    assert client.say("RCPT TO:<b@treyresearch.test>").startswith("451 4.7.3")
    assert client.say("RCPT TO:<b@a..test>").startswith(("501", "550"))
    assert client.say("RCPT TO:<b@elsewhere.test>").startswith("250")


def test_another_client_may_have_another_way(lab):
    """XCLIENT: the connector of whom it announces says whether mail is kept."""
    hop = lab.server(how="clear")
    port = free_port()
    front = {"xclient_hosts": ["127.0.0.1"], "remote_ip_ranges": ["127.0.0.1"]}
    relay = lab.relay(transport(spool_folder="spool", **QUICK),
                      receive("front", port, **front),
                      receive("kept", port, remote_ip_ranges=["192.0.2.0/24"], deliver="queue"),
                      receive("passed", port, remote_ip_ranges=["198.51.100.0/24"]),
                      inside(hop.port))
    client = lab.opened(port, tls=False)
    assert "hop.test" in client.send(body=body("front"))
    for address, word in (("192.0.2.7", "a"), ("198.51.100.7", "b"), ("192.0.2.8", "c")):
        assert client.say(f"XCLIENT ADDR={address} HELO=h.test").startswith("220")
        client.ehlo()
        answer = client.send(body=body(word))
        assert ("InternalId" in answer) == address.startswith("192.0.2"), (answer, relay.log())
    wait_for(lambda: len(hop.messages) == 4, "messages")
    assert subjects(hop) == ["a", "b", "c", "front"]
