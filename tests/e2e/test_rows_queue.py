# SPDX-License-Identifier: Apache-2.0
"""Rows 34 to 36 of the capability table: states of queues and messages, the retry ladder, and what
an administrator does to both. Everything is looked at, and done, with posternctl."""

import re
import socket

import pytest

from conftest import free_port, wait_for
from lab import ctl, lab, opened  # noqa: F401
from queue_desk import (SLOW, admin, anew, arrive, hand_in, keeper, listed, message, open_hop,
                        post, queue, queues, restart, text, told, wait_message, wait_queue, way)


# ---- row 34: states --------------------------------------------------------------------------

def test_row_34_ready_active_and_ready_again(lab):
    hop = open_hop(lab)
    hop.hold()
    relay = keeper(lab, way("out", hop.port, max_deliveries=1))
    one, two = hand_in(relay, "one", "two")
    hop.holds()
    row = wait_queue(relay, "Active")
    assert row["delivery_type"] == "SmartHostConnectorDelivery" and row["connector"] == "out"
    assert (row["message_count"], row["active"], row["retry_count"]) == (2, 1, 0)
    assert (message(relay, one)["status"], message(relay, two)["status"]) == ("Active", "Ready")
    hop.release()
    arrive(hop, "one", "two")
    row = wait_queue(relay, "Ready")
    assert row["message_count"] == 0 and listed(relay, "msg", "list") == []


def test_row_34_connecting(lab):
    """The next hop accepts connections, and says nothing yet."""
    mute = socket.create_server(("127.0.0.1", 0), backlog=8)
    relay = keeper(lab, way("out", mute.getsockname()[1]))
    name = hand_in(relay, "one")
    row = wait_queue(relay, "Connecting")
    assert (row["message_count"], row["active"]) == (1, 0)
    assert message(relay, name)["status"] == "Ready"
    mute.close()


def test_row_34_retry(lab):
    port = free_port()
    relay = keeper(lab, way("out", port), **SLOW)
    name = hand_in(relay, "one")
    row = wait_queue(relay, "Retry")
    assert row["retry_count"] == 1 and row["message_count"] == 1
    assert row["last_retry_ms"] > 0 and \
        3500000 < row["next_retry_ms"] - row["last_retry_ms"] <= 3600000
    assert re.fullmatch(r"\[\{LRT=[-0-9T:.]+Z\};\{LED=451 4\.4\.0 .*\};\{FQDN=.*\};\{IP=.*\}\]",
                        row["last_error"]), row
    shown = message(relay, name)
    assert shown["status"] == "Retry" and shown["last_error"] == row["last_error"]
    assert shown["next_ms"] == row["next_retry_ms"]
    # The table that a person sees says so, too, and a filter finds it.
    table = admin(relay, "queue", "list", "--filter", "Status -eq 'Retry'")
    assert re.search(r"^out +SmartHostConnectorDelivery +Retry +1 ", table, re.MULTILINE), table
    assert "Retry" in admin(relay, "msg", "list", "--filter", "Status -eq 'Retry'")


def test_row_34_a_message_waits_by_itself(lab):
    """4xx to a recipient is that message's affair: the queue goes on, others are delivered."""
    hop = open_hop(lab)
    hop.refuses["<later@"] = "450 4.2.1 mailbox busy"
    relay = keeper(lab, way("out", hop.port), **SLOW)
    client = opened(relay.port, tls=False)
    late = post(client, "late", to=["later@adatum.test"])
    shown = wait_message(relay, late, "Retry")
    assert shown["last_error"] == "450 4.2.1 mailbox busy" and shown["retry_count"] == 1
    assert shown["next_ms"] - shown["arrived_ms"] > 3500000
    post(client, "good")
    arrive(hop, "good")
    row = wait_queue(relay, "Ready")
    assert row["message_count"] == 1 and row["retry_count"] == 0 and row["last_error"] == ""


def test_row_34_suspended_queue_leaves_messages_alone(lab):
    hop = open_hop(lab)
    relay = keeper(lab, way("out", hop.port))
    hand_in(relay, "first")
    arrive(hop, "first")
    admin(relay, "queue", "suspend", "out")
    assert queue(relay)["status"] == "Suspended"
    name = hand_in(relay, "kept")  # arrivals go on
    row = wait_for(lambda: queue(relay)["message_count"] == 1 and queue(relay), "arrival")
    assert row["status"] == "Suspended" and message(relay, name)["status"] == "Ready"
    assert hop.words == ["first"]
    # It outlives a restart.
    restart(relay)
    assert queue(relay)["status"] == "Suspended" and message(relay, name)["status"] == "Ready"
    admin(relay, "queue", "resume", "out")
    arrive(hop, "first", "kept")


def test_row_34_suspended_message(lab):
    port = free_port()
    relay = keeper(lab, way("out", port))
    one, two = hand_in(relay, "one", "two")
    wait_message(relay, one, "Retry")
    admin(relay, "msg", "suspend", one)
    assert message(relay, one)["status"] == "Suspended"
    restart(relay)
    wait_message(relay, one, "Suspended")
    hop = open_hop(lab, port)
    arrive(hop, "two")
    assert message(relay, two)["status"] == "none"
    assert queue(relay)["message_count"] == 1
    admin(relay, "msg", "resume", one)
    arrive(hop, "one", "two")


def test_row_34_pending_suspend(lab):
    """What is being transferred is suspended when that fails, and has gone when it does not."""
    hop = open_hop(lab)
    hop.hold()
    relay = keeper(lab, way("out", hop.port), **SLOW)
    name = hand_in(relay, "one")
    hop.holds()
    admin(relay, "msg", "suspend", name)
    assert message(relay, name)["status"] == "PendingSuspend"
    hop.release("451 4.3.0 not now")
    wait_message(relay, name, "Suspended")
    hop.hold()
    admin(relay, "msg", "resume", name)
    hop.holds()
    admin(relay, "msg", "suspend", name)
    assert message(relay, name)["status"] == "PendingSuspend"
    hop.release()
    arrive(hop, "one")
    wait_message(relay, name, "none")


def test_row_34_submission_and_unreachable(lab):
    hop = open_hop(lab)
    relay = keeper(lab, way("out", hop.port, "elsewhere.test"))
    name = hand_in(relay, "one")
    row = wait_for(lambda: queues(relay).get("Unreachable"), "Unreachable")
    assert row["delivery_type"] == "Unreachable" and row["message_count"] == 1
    shown = message(relay, name)
    assert shown["queue"] == "Unreachable" and "no send connector for adatum.test" in \
        shown["last_error"]
    row = queues(relay)["Submission"]
    assert row["delivery_type"] == "Submission" and row["message_count"] == 0
    assert hop.connections == 0


def test_row_34_an_empty_queue_is_forgotten(lab):
    hop = open_hop(lab)
    relay = keeper(lab, way("out", hop.port), queue_max_idle_time="1s")
    hand_in(relay, "one")
    arrive(hop, "one")
    wait_for(lambda: "out" not in queues(relay), "end of the empty queue")


# ---- row 35: the ladder ----------------------------------------------------------------------

def attempts(relay):
    """When the queue failed, by how it says itself: (stage, seconds until the next)."""
    relay.stats()
    return [(event["stage"], int(event["next-s"])) for event in relay.events("queue-retry")]


LADDER = {"queue_glitch_retry_count": 2, "queue_glitch_retry_interval": "1s",
          "transient_failure_retry_count": 2, "transient_failure_retry_interval": "2s",
          "outbound_connection_failure_retry_interval": "3s"}
STEPS = [("glitch", 1), ("glitch", 1), ("transient", 2), ("transient", 2), ("steady", 3)]


@pytest.mark.parametrize("by_kill", [False, True], ids=["stop", "kill"])
def test_row_35_the_ladder_goes_on_behind_a_restart(lab, by_kill):
    port = free_port()
    relay = keeper(lab, way("out", port), **LADDER)
    hand_in(relay, "one")
    wait_for(lambda: len(attempts(relay)) == 3, "three attempts")
    before = queue(relay)
    restart(relay, by_kill)
    wait_for(lambda: len(attempts(relay)) >= 5, "two more")
    assert attempts(relay)[:5] == STEPS
    failures = [int(event["failures"]) for event in relay.events("queue-retry")]
    assert failures[:5] == [1, 2, 3, 4, 5], "it counts on"
    assert queue(relay)["retry_count"] >= 5
    assert before["retry_count"] == 3
    hop = open_hop(lab, port)
    arrive(hop, "one")
    wait_queue(relay, "Ready")
    row = queue(relay)
    assert row["retry_count"] == 0 and row["last_error"] == "" and row["next_retry_ms"] == 0


def test_row_35_the_moment_of_the_next_attempt_outlives_a_restart(lab):
    """A restart is no reason to try early: an hour is an hour."""
    port = free_port()
    relay = keeper(lab, way("out", port), **SLOW)
    name = hand_in(relay, "one")
    before = wait_queue(relay, "Retry")
    hop = open_hop(lab, port)
    for by_kill in (False, True):
        restart(relay, by_kill)
        row = queue(relay)
        assert row["status"] == "Retry" and message(relay, name)["status"] == "Retry"
        assert row["next_retry_ms"] == before["next_retry_ms"]
        assert row["last_error"] == before["last_error"] and row["retry_count"] == 1
    assert hop.connections == 0
    admin(relay, "queue", "retry", "out")
    arrive(hop, "one")


def test_row_35_the_retry_of_a_message_outlives_a_restart(lab):
    hop = open_hop(lab)
    hop.refuses["<b@"] = "450 4.2.1 mailbox busy"
    relay = keeper(lab, way("out", hop.port), **SLOW)
    name = hand_in(relay, "one")
    before = wait_message(relay, name, "Retry")
    restart(relay)
    after = wait_message(relay, name, "Retry")
    assert (after["next_ms"], after["retry_count"], after["last_error"]) == \
        (before["next_ms"], 1, "450 4.2.1 mailbox busy")
    assert hop.mails == 1


def test_row_35_what_waits_too_long_is_routed_anew(lab):
    port = free_port()
    relay = keeper(lab, way("out", port), max_idle_time_before_resubmit="2s")
    name = hand_in(relay, "one")
    rows = wait_for(lambda: told(relay, id=name, event="RESUBMIT"), "RESUBMIT")
    assert rows[0]["Source"] == "QUEUE"
    arrive(open_hop(lab, port), "one")


# ---- row 36: what is done to queues ----------------------------------------------------------

def test_row_36_retry(lab):
    port = free_port()
    relay = keeper(lab, way("out", port), **SLOW)
    hand_in(relay, "one")
    wait_queue(relay, "Retry")
    admin(relay, "queue", "retry", "OUT")  # case does not count
    row = wait_for(lambda: queue(relay)["retry_count"] == 2 and queue(relay), "second attempt")
    assert row["status"] == "Retry", "it counts on"
    hop = open_hop(lab, port)
    admin(relay, "queue", "retry", "out")
    arrive(hop, "one")
    wait_queue(relay, "Ready")
    failed = ctl("--config", relay.config, "queue", "retry", "out", status=1)
    assert "only a queue in Retry is tried again; its status is Ready" in failed.stderr
    failed = ctl("--config", relay.config, "queue", "retry", "nothing", status=1)
    assert "nothing" in failed.stderr


def test_row_36_suspend_lets_transfers_end(lab):
    hop = open_hop(lab)
    hop.hold()
    relay = keeper(lab, way("out", hop.port, max_deliveries=1))
    hand_in(relay, "one", "two")
    hop.holds()
    admin(relay, "queue", "suspend", "out")
    hop.release()
    arrive(hop, "one")
    row = wait_for(lambda: queue(relay)["active"] == 0 and queue(relay), "end of the transfer")
    assert row["status"] == "Suspended" and row["message_count"] == 1
    ctl("--config", relay.config, "queue", "suspend", "out", status=1)
    admin(relay, "queue", "resume", "out")
    arrive(hop, "one", "two")
    ctl("--config", relay.config, "queue", "resume", "out", status=1)


def test_row_36_resubmit(lab):
    """Out of Unreachable after the configuration was changed, and of Retry into another queue."""
    hop, other = open_hop(lab), open_hop(lab)
    relay = keeper(lab, way("out", free_port(), "adatum.test", max_connections=40), **SLOW)
    one, two = hand_in(relay, "one"), hand_in(relay, "two", to=["b@other.test"])
    wait_message(relay, one, "Retry")
    wait_for(lambda: message(relay, two).get("queue") == "Unreachable", "Unreachable")
    admin(relay, "queue", "retry", "Unreachable", "--resubmit")
    rows = wait_for(lambda: told(relay, id=two, event="RESUBMIT"), "RESUBMIT")
    assert rows[0]["Source"] == "ADMIN"
    wait_for(lambda: message(relay, two).get("queue") == "Unreachable", "Unreachable again")
    event = relay.reload(anew(relay, way("out", hop.port, "adatum.test"),
                              way("other", other.port, "other.test")))
    assert event["result"] == "ok"
    arrive(other, "two")
    admin(relay, "queue", "retry", "out", "--resubmit")
    wait_for(lambda: told(relay, id=one, event="RESUBMIT"), "RESUBMIT")
    if hop.messages == []:  # the reload may have tried it already; else it is still in Retry
        ctl("--config", relay.config, "queue", "retry", "out")
    arrive(hop, "one")


def test_row_36_redirect(lab):
    """What waits goes by another connector; what comes later goes its own way."""
    away, port = open_hop(lab), free_port()
    relay = keeper(lab, way("out", port), way("spare", away.port, "spare.test"), **SLOW)
    one, _two = hand_in(relay, "one", "two")
    wait_queue(relay, "Retry")
    failed = ctl("--config", relay.config, "queue", "redirect", "out", "--to", "nowhere",
                 status=1)
    assert "there is no send connector of that name" in failed.stderr
    admin(relay, "queue", "redirect", "out", "--to", "spare")
    arrive(away, "one", "two")
    (row,) = wait_for(lambda: told(relay, id=one, event="REDIRECT"), "REDIRECT")
    assert row["Source"] == "ADMIN"
    hop = open_hop(lab, port)
    hand_in(relay, "three")
    wait_for(lambda: queue(relay)["message_count"] == 1, "a message of its own way")
    if queue(relay)["status"] == "Retry":
        admin(relay, "queue", "retry", "out")
    arrive(hop, "three")
    arrive(away, "one", "two")


def test_row_36_redirect_outlives_a_restart(lab):
    """The target is away, too: the redirection is not forgotten with the process."""
    spare, port = free_port(), free_port()
    relay = keeper(lab, way("out", port), way("spare", spare, "spare.test"))
    name = hand_in(relay, "one")
    wait_queue(relay, "Retry")
    admin(relay, "queue", "redirect", "out", "--to", "spare")
    wait_for(lambda: message(relay, name).get("queue") == "spare", "message in the other queue")
    restart(relay, by_kill=True)
    assert message(relay, name)["queue"] == "spare"
    arrive(open_hop(lab, spare), "one")


# ---- row 36: what is done to messages --------------------------------------------------------

def test_row_36_remove(lab):
    hop, port = open_hop(lab), free_port()
    relay = keeper(lab, way("out", port, "adatum.test"), way("back", hop.port), **SLOW)
    one, two, three = hand_in(relay, "one", "two", "three")
    wait_queue(relay, "Retry")
    admin(relay, "msg", "remove", one)
    assert message(relay, one)["status"] == "none"
    admin(relay, "msg", "remove", two, "--ndr")
    arrive(hop, "Undeliverable: two")
    wait_message(relay, two, "none")
    assert hop.messages[0].recipients[0].startswith("RCPT TO:<a@treyresearch.test>")
    (row,) = wait_for(lambda: told(relay, id=one, event="FAIL"), "FAIL")
    assert row["Source"] == "ADMIN"
    ctl("--config", relay.config, "msg", "remove", one, status=1)
    restart(relay)
    assert [row["id"] for row in listed(relay, "msg", "list")] == [three]


@pytest.mark.parametrize("ndr", [False, True], ids=["quiet", "ndr"])
@pytest.mark.parametrize("verdict", [None, "451 4.3.0 not now"], ids=["taken", "put-off"])
def test_row_36_pending_remove(lab, verdict, ndr):
    """Removed while a slow peer has it: that counts only if the peer does not take it."""
    hop, back = open_hop(lab), open_hop(lab)
    hop.hold()
    relay = keeper(lab, way("out", hop.port, "adatum.test"), way("back", back.port), **SLOW)
    name = hand_in(relay, "one")
    hop.holds()
    admin(relay, "msg", "remove", name, *(["--ndr"] if ndr else []))
    assert message(relay, name)["status"] == "PendingRemove"
    assert queue(relay)["message_count"] == 1
    hop.release(verdict)
    wait_message(relay, name, "none")
    arrive(hop, *(["one"] if verdict is None else []))
    arrive(back, *(["Undeliverable: one"] if ndr and verdict else []))
    restart(relay)
    assert listed(relay, "msg", "list") == []
    events = [row["EventId"] for row in told(relay, id=name)]
    assert events == ["RECEIVE", "SEND" if verdict is None else "DEFER"] + \
        (["FAIL"] if verdict else []), events


def test_row_36_pending_remove_when_the_session_breaks(lab):
    hop = open_hop(lab)
    hop.hold()
    relay = keeper(lab, way("out", hop.port), **SLOW)
    name = hand_in(relay, "one")
    hop.holds()
    admin(relay, "msg", "remove", name)
    assert message(relay, name)["status"] == "PendingRemove"
    hop.cut()
    wait_message(relay, name, "none")
    hop.release()
    restart(relay)
    assert listed(relay, "msg", "list") == []


def test_row_36_suspend_and_resume_by_filter(lab):
    port = free_port()
    relay = keeper(lab, way("out", port))
    client = opened(relay.port, tls=False)
    ids = [post(client, word, sender=f"{word}@treyresearch.test") for word in ("one", "two")]
    wait_message(relay, ids[1], "Retry")
    said = admin(relay, "msg", "suspend", "--filter", "FromAddress -eq 'two@treyresearch.test'")
    assert said == "1 message suspended\n"
    assert [message(relay, name)["status"] for name in ids] == ["Retry", "Suspended"]
    (row,) = listed(relay, "msg", "list", "--sender", "two@treyresearch.test")
    assert (row["subject"], row["message_id"]) == ("two", "<two@treyresearch.test>")
    hop = open_hop(lab, port)
    arrive(hop, "one")
    admin(relay, "msg", "resume", "--filter", "Subject -like 't*'")
    arrive(hop, "one", "two")
    relay.stop()
    events = [row["EventId"] for row in told(relay, id=ids[1])]
    assert [word for word in events if word != "DEFER"] == ["RECEIVE", "SUSPEND", "RESUME", "SEND"]


def test_row_36_remove_by_filter(lab):
    """Wherever they wait: in Retry, suspended, Unreachable; several only with a word more."""
    relay = keeper(lab, way("out", free_port(), "adatum.test"), **SLOW)
    client = opened(relay.port, tls=False)
    flood = [post(client, f"n{number}", sender="cron@treyresearch.test",
                  to=[f"b@{'adatum' if number % 2 else 'elsewhere'}.test"])
             for number in range(6)]
    good = post(client, "good")
    admin(relay, "msg", "suspend", flood[1])
    wait_message(relay, good, "Retry")
    wait_for(lambda: queue(relay, "Unreachable")["message_count"] == 3, "Unreachable")
    words = ["--filter", "FromAddress -eq 'cron@treyresearch.test'"]
    assert admin(relay, "msg", "remove", *words, "--dry-run").endswith(
        "6 messages would be removed\n")
    ctl("--config", relay.config, "msg", "remove", *words, status=1)
    assert len(listed(relay, "msg", "list")) == 7
    assert admin(relay, "msg", "remove", *words, "--yes") == "6 messages removed\n"
    assert [row["id"] for row in listed(relay, "msg", "list")] == [good]
    restart(relay, by_kill=True)
    assert [row["id"] for row in listed(relay, "msg", "list")] == [good]
    digest = admin(relay, "queue", "digest", "--min", "1")
    assert re.search(r"^out +1 +1 +1 +out \(Retry\)$", digest, re.MULTILINE), digest


def test_row_36_export(lab):
    """Byte by byte what was received, beside the fields of our own; and nothing changes."""
    relay = keeper(lab, way("out", free_port()), **SLOW)
    body = text("one", "".join(f"line {number} \xfc\r\n" for number in range(5000)))
    client = opened(relay.port, tls=False)
    client.say("MAIL FROM:<a@treyresearch.test> BODY=8BITMIME", 250)
    client.say("RCPT TO:<b@adatum.test>", 250)
    client.write(f"BDAT {len(body.encode())} LAST\r\n".encode() + body.encode())
    name = re.search(r"InternalId=([0-9a-f]{16})", client.reply())[1]
    wait_message(relay, name, "Retry")
    path = relay.folder / "out.eml"
    admin(relay, "msg", "export", name, "--out", path)
    exported = path.read_bytes()
    assert exported.startswith(b"Received: from probe.test")
    assert re.sub(rb"X-MS-Exchange-Organization-[^\n]*\n", b"", exported).endswith(body.encode())
    assert path.stat().st_mode & 0o777 == 0o600
    assert message(relay, name)["status"] == "Retry"
    shown = admin(relay, "msg", "show", name)
    assert re.search(r"^FromAddress +: a@treyresearch\.test$", shown, re.MULTILINE)
    assert re.search(r"^b@adatum\.test +open$", shown, re.MULTILINE)
    relay.stats()
    assert "export" in relay.log()
    ctl("--config", relay.config, "msg", "export", "0" * 15 + "1", status=1)


def test_row_36_one_message_in_two_queues_is_a_row_of_each(lab):
    one, two = free_port(), open_hop(lab)
    two.hold()
    relay = keeper(lab, way("one", one, "one.test"), way("two", two.port, "two.test"), **SLOW)
    name = hand_in(relay, "both", to=["b@one.test", "c@two.test"])
    two.holds()
    def states():
        return {row["queue"]: row["status"] for row in listed(relay, "msg", "list")
                if row["id"] == name}
    wait_for(lambda: states() == {"one": "Retry", "two": "Active"}, "both states")
    admin(relay, "msg", "remove", name)
    assert states() == {"one": "Retry", "two": "PendingRemove"} or \
        states() == {"two": "PendingRemove"}
    two.release()
    wait_for(lambda: states() == {}, "end of the message")
    arrive(two, "both")
