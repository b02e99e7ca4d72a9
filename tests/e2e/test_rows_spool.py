# SPDX-License-Identifier: Apache-2.0
"""Rows 43 to 45 of the capability table, through the queue: back pressure, what 250 promises, and
bodies of every kind."""

import json
import re

import pytest

from conftest import free_port, wait_for
from lab import lab, opened  # noqa: F401
from queue_desk import (SLOW, admin, arrive, entry, hand_in, keeper, kill, listed, message,
                        open_hop, post, queue, restart, text, told, wait_message, way)

FULL = "452 4.3.1 Insufficient system resources"

# ---- row 43 ----------------------------------------------------------------------------------

# Eight files: four of them are medium, six are high.
SMALL = {"spool_max_size": "32MB", "back_pressure_medium": 45, "back_pressure_high": 70,
         "back_pressure_high_end": 60, "back_pressure_medium_end": 30}
OURS = {"external_authoritative": True, "permission_groups": ["internal"]}
MEGABYTE = ("x" * 62 + "\r\n") * 16384


def level(relay):
    return json.loads(admin(relay, "--json", "pressure", "show"))["level"]


def fill(relay, client, until):
    """Mail from one of ours, which is not held up, until the spool is that full: how many."""
    for number in range(32):
        if level(relay) == until:
            return number
        answer = client.send("a@adatum.test", body=text("fill", MEGABYTE))
        if not answer.startswith("250 "):  # it has become full since that look
            assert answer == FULL and until == level(relay) == "high"
            return number
    raise AssertionError(f"the spool was never {until}")


def pressed(lab):
    """A small spool, with a door for strangers and one for our own: relay, hop's port, client."""
    hop_port, inner = free_port(), free_port()
    relay = keeper(lab, entry(inner, "ours", **OURS), way("out", hop_port), **SMALL, **SLOW)
    return relay, hop_port, lab.opened(inner, tls=False)


def test_row_43_tarpit_refusal_and_recovery(lab):
    relay, hop_port, ours = pressed(lab)
    assert level(relay) == "normal"
    count = fill(relay, ours, "medium")
    # Strangers wait for the answer to MAIL, and are served then; ours are not held up.
    stranger = lab.opened(relay.port, tls=False)
    stranger.write("MAIL FROM:<x@unlisted.test>\r\n")
    wait_for(lambda: relay.counter("queue_tarpitted") == 1, "MAIL that is held back")
    assert not stranger.has_answer(2)
    post(ours, "urgent", sender="a@adatum.test")
    assert not stranger.has_answer()
    assert stranger.reply() == "250 2.1.0 Sender OK", "it was put off, not refused"
    stranger.say("RCPT TO:<b@adatum.test>", 250)
    stranger.say("DATA", 354)
    stranger.say(text("patient") + ".", 250)
    # When it is full, MAIL of everybody is refused, and the session goes on.
    count += fill(relay, ours, "high")
    late = lab.opened(relay.port, tls=False)
    for client in (late, ours):
        assert client.mail("a@adatum.test") == FULL
        assert client.mail("a@adatum.test") == FULL
        client.say("NOOP", 250)
    assert len(relay.refusals(why="spool-full")) == 4 and relay.counter("queue_refused") == 4
    shown = admin(relay, "pressure", "show")
    assert re.search(r"^Level +: high$", shown, re.MULTILINE), shown
    # It drains: what was taken is delivered, and mail is taken again, at once.
    hop = open_hop(lab, hop_port)
    admin(relay, "queue", "retry", "out")
    wait_for(lambda: level(relay) == "normal", "normal spool")
    tarpitted = relay.counter("queue_tarpitted")
    assert late.mail("x@unlisted.test") == "250 2.1.0 Sender OK"
    late.say("RSET", 250)
    post(late, "after", sender="x@unlisted.test")
    arrive(hop, *["fill"] * count, "urgent", "patient", "after")
    assert relay.counter("queue_tarpitted") == tarpitted
    assert all(one.body.endswith(MEGABYTE.encode()) for one in hop.messages
               if b"\r\nSubject: fill\r\n" in one.body)


def test_row_43_a_full_spool_is_full_behind_a_restart(lab):
    relay, hop_port, ours = pressed(lab)
    count = fill(relay, ours, "high")
    restart(relay, by_kill=True)
    assert level(relay) == "high"
    assert lab.opened(relay.port, tls=False).mail("x@unlisted.test") == FULL
    hop = open_hop(lab, hop_port)
    admin(relay, "queue", "retry", "out")
    arrive(hop, *["fill"] * count)
    wait_for(lambda: level(relay) == "normal", "normal spool")
    post(lab.opened(relay.port, tls=False), "after")
    arrive(hop, *["fill"] * count, "after")


def test_row_43_a_full_spool_empties_itself_by_notices(lab):
    """All that is in it is refused: each notice needs room, with the whole original in it. Those
    that find none are made later; a restart, or a minute, is late enough."""
    relay, hop_port, ours = pressed(lab)
    count = fill(relay, ours, "high")
    hop = open_hop(lab, hop_port)
    hop.refuses["<b@adatum.test>"] = "550 5.1.1 nobody"
    admin(relay, "queue", "retry", "out")
    def left():
        rows = listed(relay, "msg", "list")
        return [row for row in rows if row.get("from_address") == "a@adatum.test"], len(rows)
    def is_still():
        ours_left, all_left = left()
        return len(ours_left) == all_left and len(hop.messages) + all_left == count
    for _ in range(count):
        wait_for(is_still, "end of what has room")
        if left()[1] == 0:
            break
        restart(relay)
    arrive(hop, *["Undeliverable: fill"] * count)
    wait_for(lambda: listed(relay, "msg", "list") == [], "end of all")
    wait_for(lambda: level(relay) == "normal", "normal spool")
    assert all(b"To: <a@adatum.test>" in one.body for one in hop.messages)


def test_row_43_a_sender_that_goes_while_it_is_held(lab):
    relay, _, ours = pressed(lab)
    fill(relay, ours, "medium")
    waiting = [lab.opened(relay.port, tls=False) for _ in range(3)]
    for client in waiting:
        client.write("MAIL FROM:<x@unlisted.test>\r\n")
    wait_for(lambda: relay.counter("queue_tarpitted") == 3, "MAIL that is held back")
    waiting[0].close()
    waiting[1].write("QUIT\r\n")
    waiting[1].close()
    wait_for(lambda: len(relay.events("session-end")) >= 1, "end of a session")
    relay.stop()  # and a relay that ends does not wait for the third


# ---- row 44 ----------------------------------------------------------------------------------

@pytest.mark.parametrize("durability", ["durable", "relaxed"])
def test_row_44_killed_right_after_250(lab, durability):
    """Each message that was answered with 250 is delivered, once."""
    port = free_port()
    relay = keeper(lab, way("out", port), door={"durability": durability}, **SLOW)
    words = []
    for word in ("one", "two", "three"):
        client = opened(relay.port, tls=False)
        post(client, word, to=["b@adatum.test", "c@adatum.test"])
        kill(relay)  # nothing lies between the answer and this
        client.close()
        words.append(word)
        relay.start()
    assert sorted(row["subject"] for row in listed(relay, "msg", "list")) == sorted(words)
    hop = open_hop(lab, port)
    admin(relay, "queue", "retry", "out")
    arrive(hop, *words)
    assert all(len(one.recipients) == 2 for one in hop.messages)
    wait_for(lambda: listed(relay, "msg", "list") == [], "end of all")
    restart(relay)
    hand_in(relay, "four")
    arrive(hop, *words, "four")


def test_row_44_a_large_message_killed_right_after_250(lab):
    port = free_port()
    relay = keeper(lab, way("out", port), **SLOW)
    body = text("large", "".join(f"{number:078d}\r\n" for number in range(100000)))
    post(opened(relay.port, tls=False), body=body)
    kill(relay)
    relay.start()
    hop = open_hop(lab, port)
    admin(relay, "queue", "retry", "out")
    arrive(hop, "large")
    assert hop.messages[0].body.decode().endswith(body.partition("\r\n\r\n")[2])


def test_row_44_without_250_nothing_is_kept(lab):
    hop = open_hop(lab)
    relay = keeper(lab, way("out", hop.port))
    for lines in ("MAIL FROM:<x@y.test>\r\nRCPT TO:<b@adatum.test>\r\n",
                  "MAIL FROM:<x@y.test>\r\nRCPT TO:<b@adatum.test>\r\nDATA\r\n"
                  + text("half", MEGABYTE)):
        client = opened(relay.port, tls=False)
        client.write(lines)
        wait_for(client.has_answer, "answer")
        kill(relay)
        client.close()
        relay.start()
    # One goes in the middle of its text, and the relay stays.
    client = opened(relay.port, tls=False)
    client.write("MAIL FROM:<x@y.test>\r\nRCPT TO:<b@adatum.test>\r\nDATA\r\nSubject: half\r\n\r\n")
    client.close()
    wait_for(lambda: relay.events("session-end"), "its end")
    assert listed(relay, "msg", "list") == []
    hand_in(relay, "whole")
    arrive(hop, "whole")


def test_row_44_killed_while_it_is_delivered(lab):
    """The next hop has not said 250: it comes again, and is taken once."""
    hop = open_hop(lab)
    hop.hold()
    relay = keeper(lab, way("out", hop.port))
    hand_in(relay, "one", "two")
    hop.holds(2)
    kill(relay)
    hop.cut()
    hop.release("451 4.4.2 gone")  # to those that nobody listens to any more
    wait_for(lambda: hop.waiting == 0, "end of the old sessions")
    hop.release()
    relay.start()
    arrive(hop, "one", "two")
    wait_for(lambda: listed(relay, "msg", "list") == [], "end of both")


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "cut"])
def test_row_44_stopped_while_it_is_delivered(lab, taken):
    """A transfer under way may end; where it does not in time, it is cut, and comes again."""
    hop = open_hop(lab)
    hop.hold()
    relay = keeper(lab, way("out", hop.port), drain_timeout="60s" if taken else "1s")
    name = hand_in(relay, "one")
    hop.holds()
    relay.process.terminate()
    wait_for(lambda: relay.events("drain"), "drain")
    if taken:
        hop.release()
        arrive(hop, "one")
    relay.stop()
    hop.release("451 4.4.2 gone" if not taken else None)
    wait_for(lambda: hop.waiting == 0, "end of the old session")
    hop.release()
    relay.start()
    arrive(hop, "one")
    wait_message(relay, name, "none")
    restart(relay)
    assert listed(relay, "msg", "list") == [] and hop.words == ["one"]


def test_row_44_what_was_settled_stays_settled(lab):
    """Of three recipients one is delivered and one has failed, and only the third comes again."""
    hop, back = open_hop(lab), open_hop(lab)
    hop.refuses = {"<no@": "550 5.1.1 nobody", "<later@": "450 4.2.1 mailbox busy"}
    relay = keeper(lab, way("out", hop.port, "adatum.test"), way("back", back.port), **SLOW)
    name = hand_in(relay, "one", to=[f"{word}@adatum.test" for word in ("yes", "no", "later")])
    arrive(back, "Undeliverable: one")
    wait_message(relay, name, "Retry")
    hop.refuses = {}
    restart(relay, by_kill=True)
    row = message(relay, name)
    assert (row["recipient_count"], row["recipients_open"]) == (3, 1)
    admin(relay, "msg", "suspend", name)
    admin(relay, "msg", "resume", name)
    arrive(hop, "one", "one")
    assert hop.messages[1].recipients[0].startswith("RCPT TO:<later@adatum.test>")
    assert len(hop.messages[1].recipients) == 1 and len(back.messages) == 1


# ---- row 45 ----------------------------------------------------------------------------------

BINARY = b"\x00\r\n.\r\n\n.\r\n\r\r\n..\r\n" + bytes(range(256)) * 300 + b"\n.\n"
HEADER = b"Subject: binary\r\nContent-Type: application/octet-stream\r\n\r\n"
PLAIN = ["PIPELINING", "SIZE 104857600", "ENHANCEDSTATUSCODES"]


def site(lab, keywords=None, **words):
    """A relay, a next hop with these keywords only, and where notices go."""
    hop, back = open_hop(lab, keywords=keywords), open_hop(lab)
    relay = keeper(lab, way("out", hop.port, "adatum.test", **words), way("back", back.port))
    return relay, hop, back


def chunks(client, parameters, *pieces, to="b@adatum.test", sender="a@treyresearch.test"):
    """A message in these chunks: the last reply."""
    client.say(f"MAIL FROM:<{sender}>{parameters}", 250)
    client.say(f"RCPT TO:<{to}>", 250)
    for number, piece in enumerate(pieces, 1):
        last = " LAST" if number == len(pieces) else ""
        client.write(f"BDAT {len(piece)}{last}\r\n".encode() + piece)
        reply = client.reply()
    return reply


def behind_header(body):
    return body.partition(b"\r\n\r\n")[2]


def test_row_45_what_is_offered(lab):
    relay, _, _ = site(lab)
    assert {"CHUNKING", "BINARYMIME", "8BITMIME", "SMTPUTF8", "SIZE", "DSN", "PIPELINING"} <= \
        lab.opened(relay.port, tls=False).keywords


def test_row_45_binary_comes_out_as_it_came_in(lab):
    relay, hop, _ = site(lab)
    client = lab.opened(relay.port, tls=False)
    whole = HEADER + BINARY
    cuts = [whole[:1], whole[1:70000], whole[70000:], b""]
    assert chunks(client, " BODY=BINARYMIME", *cuts).startswith("250 2.6.0 ")
    arrive(hop, "binary")
    assert behind_header(hop.messages[0].body) == BINARY and hop.messages[0].how == "BDAT"
    assert " BODY=BINARYMIME" in hop.messages[0].sender
    # It survives a stay in the queue and a kill as well.
    admin(relay, "queue", "suspend", "out")
    chunks(client, " BODY=BINARYMIME", whole)
    restart(relay, by_kill=True)
    admin(relay, "queue", "resume", "out")
    arrive(hop, "binary", "binary")
    assert behind_header(hop.messages[1].body) == BINARY


@pytest.mark.parametrize("lacks", ["BINARYMIME", "CHUNKING", "ours"])
def test_row_45_binary_is_never_sent_to_who_does_not_take_it(lab, lacks):
    keywords = [word for word in PLAIN + ["8BITMIME", "CHUNKING", "BINARYMIME"] if word != lacks]
    relay, hop, back = site(lab, keywords, chunking=lacks != "ours")
    client = lab.opened(relay.port, tls=False)
    assert chunks(client, " BODY=BINARYMIME", HEADER + BINARY).startswith("250 2.6.0 ")
    arrive(back, "Undeliverable: binary")
    assert b"\r\nStatus: 5.6.3\r\n" in back.messages[0].body
    assert hop.mails == 0
    post(client, "plain")
    arrive(hop, "plain")


def test_row_45_eight_bit_text(lab):
    """8BITMIME is used where it is offered; else only what needs it is returned."""
    modern, old = site(lab, PLAIN + ["8BITMIME"]), site(lab, PLAIN)
    umlauts = text("eight").encode() + b"\xfc\xdf\r\n.\r\n..dots\r\n"
    for relay, hop, back in (modern, old):
        client = lab.opened(relay.port, tls=False)
        assert chunks(client, " BODY=8BITMIME", umlauts).startswith("250 ")
        assert chunks(client, " BODY=8BITMIME", text("seven").encode()).startswith("250 ")
        if hop is modern[1]:
            arrive(hop, "eight", "seven")
            (eight,) = [one for one in hop.messages if b"\xfc\xdf" in one.body]
            assert eight.body.endswith(behind_header(umlauts)) and eight.how == "DATA"
            assert " BODY=8BITMIME" in eight.sender
        else:
            arrive(hop, "seven")
            arrive(back, "Undeliverable: eight")
            assert b"\r\nStatus: 5.6.3\r\n" in back.messages[0].body
            assert "BODY=" not in hop.messages[0].sender


def test_row_45_smtputf8(lab):
    """An address that is not ASCII goes only to who knows it; what does not need it, anywhere."""
    modern, old = site(lab, PLAIN + ["8BITMIME", "SMTPUTF8"]), site(lab, PLAIN + ["8BITMIME"])
    for relay, hop, back in (modern, old):
        client = lab.opened(relay.port, tls=False)
        assert chunks(client, " BODY=8BITMIME SMTPUTF8", text("local").encode(),
                      to="b\u00fc@adatum.test").startswith("250 ")
        assert chunks(client, " SMTPUTF8", text("ascii").encode()).startswith("250 ")
        assert chunks(client, " BODY=8BITMIME SMTPUTF8",
                      text("header").replace("Subject: header", "Subject: header \u00fc").encode()
                      ).startswith("250 ")
        if hop is modern[1]:
            arrive(hop, "local", "ascii", "header \u00fc")
            (local,) = [one for one in hop.messages if one.body.endswith(b"local\r\n")]
            assert " SMTPUTF8" in local.sender
            assert local.recipients == ["RCPT TO:<b\u00fc@adatum.test>"]
        else:
            arrive(hop, "ascii")
            assert "SMTPUTF8" not in hop.messages[0].sender
            wait_for(lambda back=back: len(back.messages) == 2, "two notices")
            assert all(b"\r\nStatus: 5.6.7\r\n" in one.body for one in back.messages)


def test_row_45_a_message_without_chunking_at_the_next_hop(lab):
    """Dots at the begin of lines, and lines cut anywhere by chunks."""
    relay, hop, _ = site(lab, PLAIN)
    whole = text("dots", ".\r\n..\r\n.x\r\n\r\n." + "y" * 900 + "\r\n.").encode() + b"\r\n"
    client = lab.opened(relay.port, tls=False)
    assert chunks(client, "", *[whole[at:at + 1] for at in range(len(whole))]).startswith("250 ")
    arrive(hop, "dots")
    assert hop.messages[0].body.endswith(whole.partition(b"\r\n\r\n")[2])
    assert hop.messages[0].how == "DATA" and hop.mistakes == []


# What somewhere ends a message, and here may not.
FLAWS = [b"\n.\r\n", b"\r.\r\n", b"\n.\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r", b"\n\n.\r\n",
         b"\r\r\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\n", b"\r", b"\0", b"\r\n.\r\r\n",
         b"\n\r.\n\r"]
EVIL = b"MAIL FROM:<evil@treyresearch.test>\r\nRCPT TO:<evil@adatum.test>\r\nDATA\r\nsmuggled\r\n"
CHUNKED = PLAIN + ["8BITMIME", "CHUNKING"]


def flawed(number, flaw):
    return f"Subject: flaw{number}\r\n\r\nfirst".encode() + flaw + EVIL


def undotted(raw):
    """What a server that knows CR LF only makes of the text behind DATA (RFC 5321 4.5.2)."""
    return b"\r\n".join(line[1:] if line.startswith(b".") else line
                        for line in raw.split(b"\r\n"))


def give(client, raw, way_in):
    """The text by DATA, as it is, or in two chunks that are cut within the flaw."""
    if way_in == "BDAT":
        return chunks(client, "", raw[:raw.index(b"first") + 6], raw[raw.index(b"first") + 6:])
    client.say("MAIL FROM:<a@treyresearch.test>", 250)
    client.say("RCPT TO:<b@adatum.test>", 250)
    client.say("DATA", 354)
    client.write(raw + b".\r\n")
    return client.reply()


@pytest.mark.parametrize("way_in", ["DATA", "BDAT"])
def test_row_45_smuggling_is_refused(lab, way_in):
    relay, hop, _ = site(lab, CHUNKED)
    client = lab.opened(relay.port, tls=False)
    for number, flaw in enumerate(FLAWS):
        reply = give(client, flawed(number, flaw), way_in)
        assert reply.startswith("550 5.6.0 " if b"\0" in flaw else "550 5.6.11 "), (flaw, reply)
        assert client.say("VRFY root").startswith("252 "), "nothing of it was a command"
    assert listed(relay, "msg", "list") == [] and hop.connections == 0
    post(client, "good")
    arrive(hop, "good")
    assert relay.counter("queue_accepted") == 1
    assert [row["MessageSubject"] for row in
            wait_for(lambda: told(relay, event="SEND"), "SEND")] == ["good"]


@pytest.mark.parametrize("way_in", ["DATA", "BDAT"])
@pytest.mark.parametrize("way_out", ["DATA", "BDAT"])
def test_row_45_what_is_let_through_is_one_message_all_the_same(lab, way_in, way_out):
    """Allowed by name, it is kept and sent byte by byte, and a next hop that knows only CR LF sees
    one message of each."""
    hop = open_hop(lab, keywords=CHUNKED if way_out == "BDAT" else PLAIN + ["8BITMIME"])
    relay = keeper(lab, way("out", hop.port), door={"bare_newline": "allow", "nul": "allow"})
    client = lab.opened(relay.port, tls=False)
    for number, flaw in enumerate(FLAWS):
        raw = flawed(number, flaw)
        assert give(client, raw, way_in).startswith("250 2.6.0 "), flaw
        assert client.say("VRFY root").startswith("252 ")
        want = raw if way_in == "BDAT" else undotted(raw)
        wait_for(lambda number=number: len(hop.messages) == number + 1, f"flaw {number}")
        assert behind_header(hop.messages[-1].body) == behind_header(want), flaw
        assert hop.messages[-1].how == way_out
    assert not [one for one in hop.messages if "evil" in one.sender]
    assert hop.mails == len(FLAWS) and queue(relay)["message_count"] == 0
