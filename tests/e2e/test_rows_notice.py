# SPDX-License-Identifier: Apache-2.0
"""Rows 37 and 40 of the capability table: what senders are told, and a message's story in the
tracking log. Notices are read by Python's email package, and taken by a Postfix."""

import email
import email.policy
import email.utils
import os
import re
import subprocess

import pytest

from conftest import PATIENCE, ROOT, free_port, wait_for
from lab import lab, opened, until  # noqa: F401
from queue_desk import (SLOW, admin, arrive, hand_in, keeper, listed, message, open_hop, post,
                        restart, text, told, wait_message, way)

STAMPS = ("X-MS-Exchange-Organization-Lab: secret\r\nX-MS-Exchange-Forest-Lab: secret\r\n"
          "X-MS-Exchange-Organization-Folded: one\r\n\tsecret\r\n")
FAILED = "Undeliverable: "
DELAYED = "Delayed: "


def office(lab, **words):
    """A relay, the next hop of adatum.test, and the one of everything else: where notices go."""
    hop, back = open_hop(lab), open_hop(lab)
    relay = keeper(lab, way("out", hop.port, "adatum.test"), way("back", back.port),
                   **{**SLOW, **words})
    return relay, hop, back


def away(lab, **words):
    """The same, with a next hop that is not there: relay, its port, the other."""
    port, back = free_port(), open_hop(lab)
    relay = keeper(lab, way("out", port, "adatum.test"), way("back", back.port), **words)
    return relay, port, back


def notice(back, count=1):
    """The last of so many notices: the whole as email reads it, and fields by recipient."""
    wait_for(lambda: len(back.messages) >= count, "notice")
    assert len(back.messages) == count
    came = back.messages[-1]
    assert came.sender.startswith("MAIL FROM:<>"), came.sender
    whole = email.message_from_bytes(came.body, policy=email.policy.default)
    for part in whole.walk():
        assert not part.defects, (part.get_content_type(), part.defects)
    assert whole.get_content_type() == "multipart/report"
    assert whole.get_param("report-type") == "delivery-status"
    plain, status, _original = whole.get_payload()
    assert plain.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    about, *recipients = status.get_payload()
    assert about["Reporting-MTA"] == "dns; mx.adatum.test"
    return whole, {block["Final-Recipient"].split("; ")[1]: block for block in recipients}


def original(whole):
    part = whole.get_payload()[2]
    return part.get_content_type(), part.get_payload()[0] if part.is_multipart() else \
        email.message_from_string(part.get_content(), policy=email.policy.default)


# ---- row 37 ----------------------------------------------------------------------------------

def test_row_37_remote_reply_verbatim(lab):
    """Of two recipients one is refused: the notice is of that one, in the next hop's words."""
    relay, hop, back = office(lab, accepted_domains=["adatum.test"])
    hop.refuses["<no@"] = ("550-5.1.1 <no@adatum.test>: (user \"unknown\")\r\n"
                           "550 5.1.1 see https://hop.test/help?id=77&x=%41")
    name = hand_in(relay, "one", to=["no@adatum.test", "yes@adatum.test"])
    arrive(hop, "one")
    whole, told_of = notice(back)
    assert whole["From"] == "Postmaster <postmaster@adatum.test>"
    assert whole["To"] == "a@treyresearch.test"
    assert back.messages[0].recipients[0].startswith("RCPT TO:<a@treyresearch.test>")
    assert whole["Subject"] == FAILED + "one"
    assert whole["Auto-Submitted"] == "auto-replied" and "X-MS-Exchange-Message-Is-Ndr" in whole
    assert whole["In-Reply-To"] == "<one@treyresearch.test>"
    (block,) = told_of.values()
    assert list(told_of) == ["no@adatum.test"]
    assert (block["Action"], block["Status"]) == ("failed", "5.1.1")
    said = re.sub(r"\s+", " ", block["Diagnostic-Code"])
    assert said == ("smtp; 550 5.1.1 <no@adatum.test>: (user \"unknown\") "
                    "5.1.1 see https://hop.test/help?id=77&x=%41"), said
    assert block["Remote-MTA"] == f"dns; [127.0.0.1]:{hop.port}"
    plain = whole.get_payload()[0].get_content()
    people, _, admins = plain.partition("Diagnostic information for administrators:")
    assert "no@adatum.test" in people and "yes@adatum.test" not in plain
    assert "Generating server: mx.adatum.test" in admins and "Remote server returned '550" in admins
    kind, copy = original(whole)
    assert kind == "message/rfc822" and copy["Subject"] == "one"
    assert copy.get_payload().rstrip() == "one"
    wait_message(relay, name, "none")


def test_row_37_status_passes_through(lab):
    relay, hop, back = office(lab)
    for number, (reply, status) in enumerate([
            ("552 5.2.2 mailbox full", "5.2.2"), ("550 5.7.1 no", "5.7.1"),
            ("554 no code at all", "5."), ("550 5.999.999 odd", "5.999.999")], 1):
        hop.refuses = {"<b@": reply}
        hand_in(relay, f"n{number}")
        _, told_of = notice(back, number)
        block = told_of["b@adatum.test"]
        assert block["Status"].startswith(status) and reply in block["Diagnostic-Code"]


def test_row_37_organization_headers_are_stripped(lab):
    """Both of what was accepted from one of ours, and of what came from outside."""
    hop, back = open_hop(lab), open_hop(lab)
    hop.verdict = "554 5.6.0 refused at the end"
    relay = keeper(lab, way("out", hop.port, "adatum.test"), way("back", back.port),
                   door={"external_authoritative": True, "permission_groups": ["internal"]})
    hand_in(relay, "one", body=STAMPS + "X-Other: stays\r\n" + text("one"))
    whole, told_of = notice(back)
    assert told_of["b@adatum.test"]["Status"] == "5.6.0"
    _, copy = original(whole)
    assert copy["X-Other"] == "stays" and copy["Received"]
    assert not [field for field in copy.keys()
                if field.lower().startswith(("x-ms-exchange-organization", "x-ms-exchange-forest"))]
    assert b"secret" not in back.messages[0].body


@pytest.mark.parametrize("size,kind", [(60, "message/rfc822"), (70, "text/rfc822-headers")])
def test_row_37_the_body_up_to_the_limit(lab, size, kind):
    relay, hop, back = office(lab, max_notice_original_size="64KB")
    hop.verdict = "554 5.6.0 no"
    line = "x" * 62 + "\r\n"
    hand_in(relay, "one", body=STAMPS + text("one", line * (size * 16)))
    whole, _ = notice(back)
    part_kind, copy = original(whole)
    assert part_kind == kind and copy["Subject"] == "one"
    assert (b"x" * 62 in back.messages[0].body) == (kind == "message/rfc822")
    if kind == "message/rfc822":
        assert copy.get_payload().count("x" * 62) == size * 16
    assert b"secret" not in back.messages[0].body


def test_row_37_a_whole_original_of_several_megabytes(lab):
    relay, hop, back = office(lab)
    hop.verdict = "554 5.6.0 no"
    body = text("one", "".join(f"{number:076d}\r\n" for number in range(80000)))
    hand_in(relay, "one", body=body)
    whole, _ = notice(back)
    kind, copy = original(whole)
    assert kind == "message/rfc822"
    assert copy.get_payload().split() == body.partition("\r\n\r\n")[2].split()


def test_row_37_ret_and_notify(lab):
    """RFC 3461: RET=HDRS, NOTIFY=NEVER, ORCPT and ENVID."""
    relay, hop, back = office(lab)
    hop.refuses["<b@"] = hop.refuses["<never@"] = "550 5.1.1 nobody"
    client = opened(relay.port, tls=False)
    client.say("MAIL FROM:<a@treyresearch.test> RET=HDRS ENVID=QQ+2B77", 250)
    client.say("RCPT TO:<never@adatum.test> NOTIFY=NEVER", 250)
    client.say("RCPT TO:<b@adatum.test> NOTIFY=FAILURE ORCPT=rfc822;first+40other.test", 250)
    client.say("DATA", 354)
    client.say(text("one") + ".", 250)
    whole, told_of = notice(back)
    assert list(told_of) == ["b@adatum.test"]
    assert told_of["b@adatum.test"]["Original-Recipient"] == "rfc822; first@other.test"
    assert whole.get_payload()[1].get_payload()[0]["Original-Envelope-Id"] == "QQ+77"
    kind, copy = original(whole)
    assert kind == "text/rfc822-headers" and copy["Subject"] == "one"


def test_row_37_nothing_is_told_to_nobody(lab):
    """A message from <> is given up without a word: when refused, when too old, when removed."""
    relay, port, back = away(lab, message_expiration_timeout="5s", delay_notification_timeout="1s")
    name = hand_in(relay, "one", sender="")
    wait_message(relay, name, "Retry")
    wait_message(relay, name, "none")
    (row,) = wait_for(lambda: told(relay, id=name, event="FAIL"), "FAIL")
    assert "4.4.7" in row["RecipientStatus"]
    hop = open_hop(lab, port)
    hop.refuses["<b@"] = "550 5.1.1 nobody"
    name = hand_in(relay, "two", sender="")
    wait_message(relay, name, "none")
    hop.refuses["<b@"] = "451 4.1.1 nobody yet"
    name = hand_in(relay, "three", sender="")
    wait_message(relay, name, "Retry")
    admin(relay, "msg", "remove", name, "--ndr")
    wait_message(relay, name, "none")
    relay.stop()
    assert back.messages == [] and hop.messages == []
    assert told(relay, event="DSN") == []


def test_row_37_delay_notice_and_ndr_at_their_times(lab):
    relay, port, back = away(lab, delay_notification_timeout="2s",
                             message_expiration_timeout="7s")
    name = hand_in(relay, "one")
    arrived = message(relay, name)
    whole, told_of = notice(back)
    assert whole["Subject"] == DELAYED + "one" and "X-MS-Exchange-Message-Is-Ndr" not in whole
    block = told_of["b@adatum.test"]
    assert (block["Action"], block["Status"]) == ("delayed", "4.4.7")
    until = email.utils.parsedate_to_datetime(block["Will-Retry-Until"]).timestamp()
    assert abs(until - arrived["expires_ms"] / 1000) <= 1
    assert original(whole)[0] == "text/rfc822-headers"
    assert message(relay, name)["status"] in ("Retry", "Ready"), "it is tried on"
    whole, told_of = notice(back, 2)
    assert whole["Subject"] == FAILED + "one"
    block = told_of["b@adatum.test"]
    assert (block["Action"], block["Status"]) == ("failed", "4.4.7")
    assert "QUEUE.Expired" in block["Diagnostic-Code"]
    wait_message(relay, name, "none")
    first, second = [row["Timestamp"] for row in
                     wait_for(lambda: len(told(relay, event="DSN")) == 2 and
                              told(relay, event="DSN"), "rows of both notices")]
    assert first < second
    (row,) = told(relay, id=name, event="FAIL")
    assert row["RecipientStatus"] == "550 4.4.7 QUEUE.Expired; message expired"
    assert arrived["expires_ms"] - arrived["arrived_ms"] == 7000
    arrive(open_hop(lab, port))
    assert relay.counter("queue_expired") == 1


def test_row_37_the_delay_is_told_once_whatever_restarts(lab):
    relay, port, back = away(lab, delay_notification_timeout="1s")
    name = hand_in(relay, "one")
    notice(back)
    restart(relay)
    hand_in(relay, "two")
    notice(back, 2)
    assert back.words == [DELAYED + "one", DELAYED + "two"]
    assert message(relay, name)["status"] != "none"
    arrive(open_hop(lab, port), "one", "two")


@pytest.mark.parametrize("verdict", [None, "451 4.3.0 not now"], ids=["taken", "put-off"])
def test_row_37_a_transfer_that_outlasts_the_expiry(lab, verdict):
    """What a slow peer has may still come to a good end; only if it does not it is too old."""
    relay, hop, back = office(lab, message_expiration_timeout="5s")
    hop.hold()
    name = hand_in(relay, "one")
    hop.holds()
    until(message(relay, name)["expires_ms"] / 1000 + 0.5)
    assert message(relay, name)["status"] == "Active" and back.messages == []
    hop.release(verdict)
    wait_message(relay, name, "none")
    arrive(hop, *([] if verdict else ["one"]))
    arrive(back, *([FAILED + "one"] if verdict else []))
    relay.stop()
    assert [row["EventId"] for row in told(relay, id=name)] == \
        ["RECEIVE"] + (["DEFER", "FAIL"] if verdict else ["SEND"])


def test_row_37_suspended_mail_does_not_expire(lab):
    """An administrator keeps it for as long as he wants; its age counts when it is resumed."""
    relay, _, back = away(lab, message_expiration_timeout="5s")
    name = hand_in(relay, "one")
    admin(relay, "msg", "suspend", name)
    until(message(relay, name)["expires_ms"] / 1000 + 0.5)
    restart(relay)
    assert message(relay, name)["status"] == "Suspended" and back.messages == []
    admin(relay, "msg", "resume", name)
    _, told_of = notice(back)
    assert told_of["b@adatum.test"]["Status"] == "4.4.7"
    wait_message(relay, name, "none")


def test_row_37_each_recipient_is_told_of_once(lab):
    """One has failed at once, one is too old later, one was delivered: two notices."""
    relay, hop, back = office(lab, message_retry_interval="1s", message_expiration_timeout="6s")
    hop.refuses = {"<no@": "550 5.1.1 nobody", "<later@": "450 4.2.1 mailbox busy"}
    name = hand_in(relay, "one", to=[f"{word}@adatum.test" for word in ("no", "later", "yes")])
    _, told_of = notice(back)
    assert list(told_of) == ["no@adatum.test"]
    _, told_of = notice(back, 2)
    assert list(told_of) == ["later@adatum.test"]
    assert told_of["later@adatum.test"]["Status"] == "4.4.7"
    wait_message(relay, name, "none")
    arrive(hop, "one")
    arrive(back, FAILED + "one", FAILED + "one")


def test_row_37_a_notice_waits_as_other_mail_does(lab):
    """The sender's server is away: the notice is in the queue, and outlives a kill."""
    hop, back = open_hop(lab), free_port()
    hop.refuses["<b@"] = "550 5.1.1 nobody"
    relay = keeper(lab, way("out", hop.port, "adatum.test"), way("back", back))
    hand_in(relay, "one")
    def waiting():
        return [row for row in listed(relay, "msg", "list") if row["from_address"] in ("", "<>")]
    (row,) = wait_for(waiting, "notice in the queue")
    assert row["subject"] == FAILED + "one" and row["queue"] == "back"
    restart(relay, by_kill=True)
    assert [again["id"] for again in waiting()] == [row["id"]]
    notice(open_hop(lab, back))


def test_row_37_a_notice_that_is_refused_is_the_end(lab):
    """RFC 5321 6.1: no notice about a notice."""
    relay, hop, back = office(lab)
    hop.refuses["<b@"] = "550 5.1.1 nobody"
    back.refuses["<a@"] = "550 5.1.1 nobody either"
    hand_in(relay, "one")
    wait_for(lambda: back.mails == 1, "attempt")
    wait_for(lambda: listed(relay, "msg", "list") == [], "end of both")
    restart(relay)
    assert listed(relay, "msg", "list") == [] and back.mails == 1 and back.messages == []
    assert len(told(relay, event="FAIL")) == 2 and len(told(relay, event="DSN")) == 1


def peer(*words):
    result = subprocess.run([ROOT / "tests/peers/postfix.sh", *[str(word) for word in words]],
                            stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=PATIENCE, check=False)
    if result.returncode == 77:
        pytest.skip(result.stderr.strip().split("\n")[-1])
    assert result.returncode == 0, f"{words}\n{result.stdout}{result.stderr}"
    return result


@pytest.mark.skipif(os.geteuid() != 0, reason="Postfix as a peer needs root")
def test_row_37_postfix_takes_a_notice(lab, tmp_path):
    port, hop = free_port(), open_hop(lab)
    hop.refuses["<b@"] = "550 5.1.1 nobody"
    folder = tmp_path / "postfix"
    peer("start", folder, "--listen", f"127.0.0.1:{port}")
    try:
        relay = keeper(lab, way("out", hop.port, "adatum.test"), way("back", port))
        name = hand_in(relay, "one", body="From: <a@treyresearch.test>\r\n" + text("one"))
        wait_message(relay, name, "none")
        new = folder / "maildir/a@treyresearch.test/new"
        wait_for(lambda: new.exists() and list(new.iterdir()), "notice in the maildir")
        peer("wait", folder)
        (path,) = new.iterdir()
        whole = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        assert whole["Return-Path"] == "<>"
        assert whole["Subject"] == FAILED + "one" and not whole.defects
        block = whole.get_payload()[1].get_payload()[1]
        assert (block["Action"], block["Status"]) == ("failed", "5.1.1")
        assert original(whole)[1]["From"] == "a@treyresearch.test"
        assert "warning" not in (folder / "mail.log").read_text()
    finally:
        peer("stop", folder)


# ---- row 40 ----------------------------------------------------------------------------------

def test_row_40_the_story_of_a_message(lab):
    """Put off, then taken for one recipient and refused for the other, whose sender is told."""
    relay, hop, back = office(lab, message_retry_interval="1s")
    hop.refuses = {"<later@": "450 4.2.1 mailbox busy", "<no@": "550 5.1.1 nobody, here"}
    client = opened(relay.port, tls=False)
    name = post(client, "one", to=["later@adatum.test", "no@adatum.test"])
    notice(back)
    wait_for(lambda: told(relay, id=name, event="DEFER"), "DEFER")
    del hop.refuses["<later@"]
    arrive(hop, "one")
    wait_message(relay, name, "none")
    dsn = wait_for(lambda: told(relay, event="DSN"), "DSN")
    relay.stop()
    rows = told(relay, id=name)
    events = [row["EventId"] for row in rows]
    assert events[0] == "RECEIVE" and events[-1] == "SEND" and events.count("SEND") == 1
    assert events.count("FAIL") == 1 and events.count("DEFER") >= 1
    by_event = {row["EventId"]: row for row in rows}
    for row in rows:
        assert row["InternalMessageId"] == name and row["Source"] == "SMTP"
        assert row["MessageId"] == "<one@treyresearch.test>" and row["MessageSubject"] == "one"
        assert row["Sender"] == "a@treyresearch.test"
    assert by_event["RECEIVE"]["Recipients"] == "later@adatum.test;no@adatum.test"
    assert by_event["RECEIVE"]["ConnectorId"] == "in"
    assert by_event["RECEIVE"]["ClientIp"] == "127.0.0.1"
    assert by_event["DEFER"]["Recipients"] == "later@adatum.test"
    assert by_event["DEFER"]["RecipientStatus"] == "450 4.2.1 mailbox busy"
    assert by_event["FAIL"]["Recipients"] == "no@adatum.test"
    assert by_event["FAIL"]["RecipientStatus"] == "550 5.1.1 nobody, here"
    sent = by_event["SEND"]
    assert sent["Recipients"] == "later@adatum.test" and sent["ConnectorId"] == "out"
    assert sent["ServerIp"] == "127.0.0.1" and sent["RecipientStatus"].startswith("250 2.6.0 ")
    assert [row["Timestamp"] for row in rows] == sorted(row["Timestamp"] for row in rows)
    # The notice is a message of its own, and names the one that it is about.
    assert len(dsn) == 1 and dsn[0]["Recipients"] == "a@treyresearch.test"
    assert dsn[0]["Reference"] == "<one@treyresearch.test>"
    story = [row["EventId"] for row in told(relay, id=dsn[0]["InternalMessageId"])]
    assert story == ["DSN", "SEND"]
    # By the Message-ID the same is found as by the id.
    assert [row["EventId"] for row in told(relay, **{"message-id": "one@treyresearch.test"})
            if row["InternalMessageId"] == name] == events


def test_row_40_a_queue_in_retry(lab):
    relay, port, _ = away(lab)
    name = hand_in(relay, "one")
    wait_for(lambda: len(told(relay, id=name, event="DEFER")) >= 2, "two attempts")
    arrive(open_hop(lab, port), "one")
    wait_message(relay, name, "none")
    relay.stop()
    rows = told(relay, id=name)
    events = [row["EventId"] for row in rows]
    assert events == ["RECEIVE"] + ["DEFER"] * (len(events) - 2) + ["SEND"]
    assert "{LED=451 4.4.0 " in rows[1]["RecipientStatus"]
    table = admin(relay, "track", "--id", name)
    assert len(table.splitlines()) == len(rows) + 1
