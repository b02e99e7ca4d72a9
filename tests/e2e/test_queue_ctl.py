# SPDX-License-Identifier: Apache-2.0
"""posternctl queue, msg, pressure: what they ask of a relay, and what they show of its answers.

The relay is a script on the control socket, so that every answer can be had at once.
"""

import json
import os
import stat

import pytest

from admin_lab import golden
from control_lab import Desk

# 2026-11-21T22:46:05Z
NOON = 1795301165000


def queue(identity, status="Ready", count=0, **more):
    row = {"identity": identity, "delivery_type": "DnsConnectorDelivery", "status": status,
           "message_count": count, "bytes": 4096 * count, "active": 0, "retry_count": 0,
           "last_retry_ms": 0, "next_retry_ms": 0, "oldest_ms": 0, "in_minute": 0,
           "out_minute": 0, "next_hop_domain": identity.removesuffix(" (secured)"),
           "connector": "Internet", "tls_domain": "", "last_error": ""}
    row.update(more)
    return row


LAST_ERROR = ('[{LRT=2026-11-21T22:45:05Z};{LED=451 4.4.0 Primary target IP address responded '
              'with: "421 4.2.1 Unable to connect"};{FQDN=mx.adatum.com};{IP=192.0.2.25}]')

QUEUES = [
    queue("adatum.com", "Retry", 42, retry_count=7, last_retry_ms=NOON - 60000,
          next_retry_ms=NOON, oldest_ms=NOON - 3600000, in_minute=3, last_error=LAST_ERROR),
    queue("adatum.com (secured)", "Active", 12, active=2, in_minute=60, out_minute=90,
          tls_domain="adatum.com"),
    queue("contoso.com", "Ready", 3),
    queue("Smart host", "Suspended", 10, delivery_type="SmartHostConnectorDelivery",
          connector="Smart host"),
    queue("Submission", delivery_type="Submission", connector=""),
]


def message(number, where="adatum.com", status="Ready", **more):
    row = {"id": f"{number:016x}", "queue": where, "status": status, "bytes": 1000 * number,
           "arrived_ms": NOON + number * 1000, "expires_ms": NOON + 172800000, "next_ms": 0,
           "recipient_count": 1, "recipients_open": 1, "retry_count": number % 5, "worker": 0,
           "last_error": "", "gone": False, "from_address": f"u{number}@fabrikam.com",
           "subject": f"Invoice {number}", "message_id": f"<{number}@fabrikam.com>"}
    row.update(more)
    return row


class Relay:
    """Queues and messages, and what is done to them."""

    def __init__(self, messages=()):
        self.messages = list(messages)
        self.done = []
        self.count = 1  # of what a queue command does

    def __call__(self, request, _):
        return getattr(self, request["command"].replace("-", "_"))(request)

    @staticmethod
    def queue_list(request):
        rows = [row for row in QUEUES
                if request.get("queue", row["identity"]).lower() == row["identity"].lower()
                and request.get("status", row["status"]).lower() == row["status"].lower()]
        return {"ok": True, "behind": {"queues": rows, "matched": len(rows)}}

    @staticmethod
    def queue_show(request):
        for row in QUEUES:
            if row["identity"] == request["queue"]:
                return {"ok": True, "behind": {"queue": row}}
        return {"ok": False, "error": "unknown-queue",
                "message": f'there is no queue "{request["queue"]}"; queue list names them'}

    def change(self, request):
        self.done.append(request)
        answer = {"ok": True, "count": self.count}
        if not self.count:
            answer["status"] = "Ready"
        return answer

    queue_retry = queue_resubmit = queue_suspend = queue_resume = queue_redirect = change

    def msg_list(self, request):
        rows = [row for row in self.messages
                if request.get("queue", row["queue"]).lower() == row["queue"].lower()
                and request.get("sender", row["from_address"]) == row["from_address"]
                and request.get("status", row["status"]).lower() == row["status"].lower()
                and row["bytes"] > request.get("larger_than", 0)]
        page = rows[request["skip"]:][:min(request["limit"], 1000)]
        if not request.get("envelopes"):
            hidden = "from_address", "subject", "message_id", "gone"
            page = [{key: row[key] for key in row if key not in hidden} for row in page]
        return {"ok": True, "behind": {"messages": page, "matched": len(rows),
                                       "more": len(rows) > request["skip"] + len(page)}}

    @staticmethod
    def msg_show(request):
        shown = {"id": request["id"], "bytes": 4096, "arrived_ms": NOON,
                 "expires_ms": NOON + 172800000, "recipient_count": 3, "recipients_open": 1,
                 "worker": 1, "gone": False,
                 "entries": [{"queue": "adatum.com", "status": "Retry", "next_ms": NOON,
                              "retry_count": 7, "last_error": LAST_ERROR}],
                 "envelope": {"from_address": "ann@fabrikam.com", "subject": "Café\nbar",
                              "message_id": "<1@fabrikam.com>", "connector": "From partners",
                              "client": "192.0.2.7", "helo": "mail.fabrikam.com",
                              "domain": "fabrikam.com", "session": "08DE2",
                              "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384", "origin": ""},
                 "recipients": [{"address": "a@adatum.com", "state": "open"},
                                {"address": "b@adatum.com", "state": "delivered"},
                                {"address": "c@contoso.com", "state": "failed"}]}
        if request["id"].endswith("9"):
            shown["gone"] = True
            del shown["envelope"], shown["recipients"]
        return {"ok": True, "behind": {"message": shown}}

    def msg_change(self, request):
        self.done.append(request)
        there = {row["id"] for row in self.messages
                 if request.get("queue", row["queue"]) == row["queue"]}
        return {"ok": True, "count": len(there & set(request["ids"]))}

    msg_suspend = msg_resume = msg_remove = msg_change

    @staticmethod
    def msg_export(request):
        if request["id"].endswith("9"):
            return {"ok": False, "error": "gone", "message": "it was delivered meanwhile"}
        return {"ok": True, "behind": b"Subject: x\r\n\r\n\x00\xff\r\n"}

    @staticmethod
    def spool_status(_):
        return {"ok": True, "behind": {
            "folder": "/var/spool/postern", "level": "medium", "bytes_used": 15569256448,
            "bytes_max": 17179869184, "segments_used": 232, "segments_free": 24,
            "segments_failed": 0, "messages": 8123, "messages_max": 100000, "queues": 17,
            "active": 9, "writes": 1, "flushes": 1, "records": 1, "bytes_each": 700,
            "pressure": {"medium": 90, "high": 98, "high_end": 97, "medium_end": 85},
            "workers": [{"worker": 0}, {"worker": 1}]}}


@pytest.fixture
def desk(tmp_path, pki):
    made = Desk(tmp_path, pki)
    yield made
    made.close()


@pytest.fixture
def relay(desk):
    made = Relay(message(number, "adatum.com" if number % 2 else "contoso.com",
                         "Retry" if number % 3 == 0 else "Ready")
                 for number in range(1, 13))
    desk.answer(made)
    return made


def asked(desk):
    return [request for request, _ in desk.relay.requests]


# ---- queues


def test_queue_list(desk, relay):
    _, text = desk.run("queue", "list", check=0)
    golden("queue-list", text)


def test_queue_list_json_is_complete(desk, relay):
    _, text = desk.run("--json", "queue", "list", check=0)
    assert json.loads(text) == QUEUES
    _, text = desk.run("--json", "queue", "list", "--filter", "MessageCount -gt 11", check=0)
    assert json.loads(text) == QUEUES[:2]


@pytest.mark.parametrize("text, rows, pushed", [
    ("Status -eq 'Retry' -and MessageCount -gt 10", [0], {"status": "Retry"}),
    ("Identity -eq 'contoso.com'", [2], {"queue": "contoso.com"}),
    ("Identity -like 'adatum*'", [0, 1], {}),
    ("NextHopDomain -eq 'adatum.com'", [0, 1], {}),
    ("TlsDomain -ne $null", [1], {}),
    ("LastError -like '*unable to connect*'", [0], {}),
    ("DeliveryType -eq 'SmartHostConnectorDelivery'", [3], {}),
    ("NextHopConnector -eq 'Smart host' -or RetryCount -ge 7", [0, 3], {}),
    ("NextRetryTime -ge 2026-11-21T22:46:05Z", [0], {}),
    ("LastRetryTime -lt 2026-11-21T22:46:05Z", [0], {}),
    ("LastRetryTime -eq $null -and (MessageCount -eq 0 -or Status -eq 'Suspended')", [3, 4], {}),
    ("MessageCount -lt 0", [], {}),
])
def test_queue_filter(desk, relay, text, rows, pushed):
    _, out = desk.run("--json", "queue", "list", "--filter", text, check=0)
    assert json.loads(out) == [QUEUES[row] for row in rows]
    assert asked(desk) == [{"command": "queue-list", **pushed}]


def test_queue_filter_mistakes(desk, relay):
    for text, words in (("Status -eq 'Lost'", 'at 12: "Lost", expected one of Active, Connecting'),
                        ("Subject -eq 'x'", 'at 1: "Subject", expected "(" or one of Identity'),
                        ("", "at 1: the filter ends, expected")):
        _, out = desk.run("queue", "list", "--filter", text, check=2)
        assert f"posternctl: --filter: {words}" in out
    assert not desk.relay.requests


def test_queue_show(desk, relay):
    _, text = desk.run("queue", "show", "adatum.com", check=0)
    golden("queue-show", text)
    _, text = desk.run("--json", "queue", "show", "contoso.com", check=0)
    assert json.loads(text) == {"queue": QUEUES[2]}
    _, text = desk.run("queue", "show", "nowhere.com", check=1)
    assert text == 'posternctl: there is no queue "nowhere.com"; queue list names them\n'


def test_queue_digest(desk, relay):
    _, text = desk.run("queue", "digest", check=0)
    golden("queue-digest", text)
    _, text = desk.run("--json", "queue", "digest", "--min", "3", check=0)
    assert [row["NextHopDomain"] for row in json.loads(text)] == \
        ["adatum.com", "contoso.com", "Smart host"]


@pytest.mark.parametrize("arguments, request_, words", [
    (("retry", "adatum.com"), {"command": "queue-retry"}, "adatum.com: tried again now\n"),
    (("retry", "adatum.com", "--resubmit"), {"command": "queue-resubmit"},
     "adatum.com: its messages are routed anew\n"),
    (("suspend", "adatum.com"), {"command": "queue-suspend"},
     "adatum.com: suspended: nothing departs until queue resume\n"),
    (("resume", "adatum.com"), {"command": "queue-resume"}, "adatum.com: resumed\n"),
    (("redirect", "adatum.com", "--to", "Smart host"),
     {"command": "queue-redirect", "to": "Smart host"},
     "adatum.com: its messages are redirected\n"),
])
def test_queue_changes(desk, relay, arguments, request_, words):
    _, text = desk.run("queue", *arguments, check=0)
    assert text == words
    assert relay.done == [{"queue": "adatum.com", **request_}]
    _, text = desk.run("--json", "queue", *arguments, check=0)
    assert json.loads(text)["count"] == 1
    relay.count = 0
    _, text = desk.run("queue", *arguments, check=1)
    assert "adatum.com: nothing was done: " in text and "its status is Ready" in text


def test_queue_usage(desk, relay):
    desk.run("queue", "show", check=2)
    desk.run("queue", "redirect", "adatum.com", check=2)
    desk.run("queue", "list", "adatum.com", check=2)
    desk.run("queue", "digest", "--min", "many", check=2)
    assert not desk.relay.requests


# ---- messages


def test_msg_list(desk, relay):
    relay.messages += [
        message(13, from_address="", subject="Undeliverable: \x1b[2J", status="Suspended"),
        message(14, gone=True, from_address=None, subject=None)]
    _, text = desk.run("msg", "list", check=0)
    golden("msg-list", text)
    assert asked(desk) == [
        {"command": "msg-list", "limit": 1000, "skip": 0, "envelopes": True}]


def test_msg_list_pages(desk, relay):
    _, text = desk.run("msg", "list", "--limit", "3", "--skip", "4", check=0)
    assert [line.split()[1] for line in text.splitlines()[1:4]] == \
        ["u5@fabrikam.com", "u6@fabrikam.com", "u7@fabrikam.com"]
    assert "posternctl: note: there may be more: --skip 7 goes on behind these" in text
    assert asked(desk)[0]["skip"] == 4
    # A filter is looked at here, so what it passes over is, too.
    _, text = desk.run("--json", "msg", "list", "--filter", "RetryCount -ge 1", "--limit", "3",
                       "--skip", "4", check=0)
    assert [row["retry_count"] for row in json.loads(text.split("posternctl")[0])] == [1, 2, 3]
    assert asked(desk)[1]["skip"] == 0


def test_msg_list_many_pages(desk, relay):
    relay.messages = [message(number) for number in range(1, 2501)]
    _, text = desk.run("--json", "msg", "list", "--limit", "2400", check=0)
    rows = json.loads(text.split("posternctl")[0])
    assert [row["bytes"] for row in rows] == [1000 * number for number in range(1, 2401)]
    assert [(request["skip"], request["limit"]) for request in asked(desk)] == \
        [(0, 1000), (1000, 1000), (2000, 400)]
    _, text = desk.run("--json", "msg", "list", "--filter", "Size -ge 2499000", check=0)
    assert [row["bytes"] for row in json.loads(text)] == [2499000, 2500000]


@pytest.mark.parametrize("arguments, numbers, pushed", [
    (("--queue", "contoso.com"), [2, 4, 6, 8, 10, 12], {"queue": "contoso.com"}),
    (("--sender", "u3@fabrikam.com"), [3], {"sender": "u3@fabrikam.com"}),
    (("--filter", "Queue -eq 'contoso.com' -and Status -eq 'Retry'"), [6, 12],
     {"queue": "contoso.com", "status": "Retry"}),
    (("--filter", "FromAddress -eq 'u3@fabrikam.com'"), [3], {"sender": "u3@fabrikam.com"}),
    (("--filter", "FromAddress -like 'u1?@*' -or Subject -eq 'invoice 2'"), [2, 10, 11, 12], {}),
    (("--filter", "Size -gt 11000"), [12], {"larger_than": 11000}),
    (("--filter", "Size -le 2KB"), [1, 2], {}),
    (("--filter", "DateReceived -ge 2026-11-21T22:46:16Z"), [11, 12], {}),
    (("--filter", "ExpirationTime -lt 2026-11-22"), [], {}),
    (("--filter", "Identity -eq 0000000000000005 -and LastError -eq $null"), [5], {}),
    (("--queue", "contoso.com", "--filter", "Queue -eq 'adatum.com'"), [],
     {"queue": "contoso.com"}),
])
def test_msg_filter(desk, relay, arguments, numbers, pushed):
    _, text = desk.run("--json", "msg", "list", *arguments, check=0)
    assert [row["bytes"] // 1000 for row in json.loads(text)] == numbers
    assert asked(desk) == [
        {"command": "msg-list", "limit": 1000, "skip": 0, "envelopes": True, **pushed}]


def test_msg_show(desk, relay):
    _, text = desk.run("msg", "show", "0000000000000001", check=0)
    golden("msg-show", text)
    _, text = desk.run("--json", "msg", "show", "0000000000000001", check=0)
    assert json.loads(text)["message"]["recipients"][1]["state"] == "delivered"
    _, text = desk.run("msg", "show", "0000000000000009", check=0)
    assert "Recipients     : 3, of these 1 still open" in text
    assert "posternctl: note: it was delivered, or moved in the spool, meanwhile" in text


def test_msg_export(desk, relay):
    file = desk.folder / "mail.eml"
    _, text = desk.run("msg", "export", "0000000000000001", "--out", str(file), check=0)
    assert text == "" and file.read_bytes() == b"Subject: x\r\n\r\n\x00\xff\r\n"
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    _, text = desk.run("msg", "export", "0000000000000009", check=1)
    assert text == "posternctl: it was delivered meanwhile\n"
    desk.run("msg", "export", "0000000000000001", "--out", str(desk.folder / "no" / "x"), check=2)


def test_msg_change_by_id(desk, relay):
    _, text = desk.run("msg", "suspend", "0000000000000001", "0000000000000002", check=0)
    assert text == "2 messages suspended\n"
    _, text = desk.run("msg", "resume", "0000000000000001", check=0)
    assert text == "1 message resumed\n"
    _, text = desk.run("msg", "remove", "0000000000000001", "--ndr", check=0)
    assert text == "1 message removed\n"
    assert relay.done == [
        {"command": "msg-suspend", "ids": ["0000000000000001", "0000000000000002"]},
        {"command": "msg-resume", "ids": ["0000000000000001"]},
        {"command": "msg-remove", "ids": ["0000000000000001"], "ndr": True}]
    _, text = desk.run("msg", "remove", "00000000000000ff", check=1)
    assert "1 of 1 were not there any more" in text


def test_msg_change_by_filter(desk, relay):
    text = "Status -eq 'Retry' -and FromAddress -like '*@fabrikam.com'"
    _, out = desk.run("msg", "suspend", "--filter", text, "--dry-run", check=0)
    golden("msg-dry-run", out)
    assert not relay.done
    _, out = desk.run("msg", "suspend", "--filter", text, check=0)
    assert out == "4 messages suspended\n"
    assert relay.done == [
        {"command": "msg-suspend", "ids": ["0000000000000003", "0000000000000006",
                                           "0000000000000009", "000000000000000c"]}]


def test_msg_remove_many_needs_yes(desk, relay):
    for arguments in ("0000000000000001", "0000000000000002"), ("--filter", "Size -ge 11000"):
        _, out = desk.run("msg", "remove", *arguments, check=1)
        assert out == ("posternctl: 2 messages would be removed: --yes does that, --dry-run "
                       "shows them\n")
        assert not relay.done
    _, out = desk.run("msg", "remove", "--filter", "Size -eq 11000", check=0)
    assert out == "1 message removed\n"
    # Who sent them is not asked for unless it matters.
    assert "envelopes" not in asked(desk)[-2]
    _, out = desk.run("msg", "remove", "--filter", "Size -ge 11000", "--yes", "--ndr", check=0)
    assert out == "2 messages removed\n"
    assert relay.done[-1] == {"command": "msg-remove", "ndr": True,
                              "ids": ["000000000000000b", "000000000000000c"]}
    _, out = desk.run("--json", "msg", "remove", "--filter", "Size -gt 99MB", check=0)
    assert json.loads(out) == {"count": 0}


def test_msg_in_several_queues_is_one(desk, relay):
    relay.messages += [message(5, "contoso.com"), message(5, "Submission")]
    _, out = desk.run("msg", "remove", "--filter", "Size -eq 5000", "--dry-run", check=0)
    assert out.count("0000000000000005") == 3 and out.endswith("1 message would be removed\n")
    _, out = desk.run("msg", "remove", "--filter", "Size -eq 5000", check=0)
    assert out == "1 message removed\n"
    assert relay.done == [{"command": "msg-remove", "ids": ["0000000000000005"]}]


def test_msg_change_many(desk, relay):
    relay.messages = [message(number) for number in range(1, 2501)]
    _, out = desk.run("msg", "suspend", "--filter", "Size -gt 0", check=0)
    assert out == "2500 messages suspended\n"
    assert [len(request["ids"]) for request in relay.done] == [1000, 1000, 500]


def test_msg_usage(desk, relay):
    for verb in "suspend", "resume", "remove":
        _, out = desk.run("msg", verb, check=2)
        assert "expected the IDs of messages, or --filter" in out
        desk.run("msg", verb, "0000000000000001", "--filter", "Size -gt 1", check=2)
        desk.run("msg", verb, "--filter", "Size -gt", check=2)
    desk.run("msg", "suspend", "0000000000000001", "--yes", check=2)
    assert not desk.relay.requests


# ---- the spool, and relays that are not there


def test_pressure(desk, relay):
    _, text = desk.run("pressure", "show", check=0)
    golden("pressure-show", text)
    _, text = desk.run("--json", "pressure", "show", check=0)
    assert json.loads(text)["pressure"]["high"] == 98


COMMANDS = [
    ("queue", "list"), ("queue", "show", "a"), ("queue", "digest"), ("queue", "retry", "a"),
    ("msg", "list"), ("msg", "show", "a"), ("msg", "export", "a"), ("msg", "remove", "a"),
    ("msg", "suspend", "--filter", "Size -gt 1"), ("pressure", "show")]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_relay(desk, arguments):
    _, text = desk.run(*arguments, check=1)
    assert text == "posternctl: the relay is not running: nobody listens on DESK/control\n"
    desk.transport = "bpf = off"
    _, text = desk.run(*arguments, check=1)
    assert "there is no control-socket to ask a relay" in text


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_odd_answers(desk, arguments):
    answers = [
        {"ok": False, "error": "no-queue", "message": "there is no queue here"},
        {"ok": True, "behind": {"queues": 7, "queue": [], "messages": {}, "message": 1,
                                "level": 3}},
        {"ok": True, "behind": b"{"},
        b"nonsense\n"]
    desk.answer(lambda request, _: answers[0].copy() if isinstance(answers[0], dict)
                else answers[0])
    _, text = desk.run(*arguments, check=1)
    assert text == "posternctl: there is no queue here\n"
    for _ in range(3):
        answers.pop(0)
        if arguments[1] not in ("export", "retry", "remove") or answers[0] == b"nonsense\n":
            _, text = desk.run(*arguments, check=1)
            assert "posternctl: the relay's answer is not what" in text


def test_missing_members_are_no_harm(desk):
    desk.answer(lambda request, _: {"ok": True, "behind": {
        "queues": [{}, 3, None], "queue": {}, "messages": [{}, 3], "message": {}, "level": ""}})
    for arguments in COMMANDS[:3] + COMMANDS[4:6] + COMMANDS[-1:]:
        desk.run(*arguments, check=0)


def test_more_that_never_comes(desk):
    desk.answer(lambda request, _: {"ok": True, "behind": {"messages": [], "more": True}})
    desk.run("msg", "list", check=0)
    assert len(desk.relay.requests) == 1
