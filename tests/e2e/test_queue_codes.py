# SPDX-License-Identifier: Apache-2.0
"""Every reply of RFC 5321 at every step, and a lost connection there: what becomes of the message.

    delivered   at the first attempt, once, and nobody hears of it
    retried     the first attempt fails, the next one delivers, once, and nobody hears of it
    notice      it is not delivered, and its sender gets one notice with the next hop's own words

All messages of a table go at once, through one relay.
"""

import re

import pytest

from conftest import free_port, wait_for
from lab import lab, module_lab, opened  # noqa: F401
from queue_lab import CUT, Case, ScriptedHop, queueing, spooled, way_out

# RFC 5321 4.2.3, and what its sections name besides (4.2.4.2: 521, 556 of RFC 7504).
LATER = {"450 4.2.0 mailbox busy", "451 4.3.0 local error", "452 4.3.1 no room",
         "455 5.5.4 parameters not now"}
NEVER = {"500 5.5.1 what", "501 5.5.4 parameter", "502 5.5.1 not here", "503 5.5.1 sequence",
         "504 5.5.4 not this parameter", "521 5.3.2 no mail here", "530 5.7.0 authenticate first",
         "535 5.7.8 credentials", "550 5.1.1 nobody", "551 5.1.6 elsewhere",
         "552 5.2.2 mailbox full", "553 5.1.3 name not allowed", "554 5.6.0 failed",
         "555 5.5.4 parameters not known", "556 5.1.10 domain takes no mail"}
# Of a class that a step does not have: RFC 5321 4.3.2 lets only the first digit count.
ODD_LATER = {"499 4.9.9 unheard of"}
ODD_NEVER = {"599 5.9.9 unheard of"}
GOOD = {"MAIL": {"250 2.1.0 yes", "299 2.9.9 unheard of"},
        "RCPT": {"250 2.1.5 yes", "251 2.1.5 will forward", "252 2.0.0 cannot say"},
        "END": {"250 2.0.0 yes", "250-2.0.0 first line\n250 2.0.0 second"},
        "BDAT": {"250 2.0.0 yes"}}


def rows(steps):
    table = []
    for step in steps:
        table += [(step, reply, "delivered") for reply in sorted(GOOD.get(step, ()))]
        table += [(step, reply, "retried") for reply in sorted(LATER | ODD_LATER)]
        table += [(step, reply, "notice") for reply in sorted(NEVER | ODD_NEVER)]
        table += [(step, "421 4.3.2 closing", "retried"), (step, CUT, "retried")]
    table += [("after", CUT, "delivered"), ("QUIT", CUT, "delivered"),
              ("QUIT", "500 5.5.1 what", "delivered"), ("QUIT", "421 4.3.2 closing", "delivered"),
              ("none", "", "delivered")]
    return table


TABLES = {"data": rows(["MAIL", "RCPT", "DATA", "END"]), "bdat": rows(["MAIL", "RCPT", "BDAT"])}
ALL = [(kind, *row) for kind, table in TABLES.items() for row in table]


def name_of(kind, step, reply):
    """A local part that says the case."""
    return re.sub(r"[^a-z0-9]+", "-", f"{kind} {step} {reply}".lower()).strip("-")[:60]


def body_of(name):
    return f"Subject: {name}\r\nMessage-ID: <{name}@adatum.test>\r\n\r\n.dot\r\n{name}\r\n"


class Site:
    def __init__(self, lab, chunking):
        self.hop = lab.keep(ScriptedHop(chunking))
        self.port = free_port()
        self.relay = lab.relay(spooled(lab.place("spool")), queueing("in", self.port,
                                                                     send_connector="out"),
                               way_out("out", self.hop.port))

    def post(self, name, to=None):
        """A message from NAME to NAME: it must be taken, whatever the next hop will say."""
        client = opened(self.port, tls=False)
        reply = client.send(f"{name}@adatum.test", to or f"{name}@treyresearch.test",
                            body_of(name).replace("\r\n.", "\r\n.."))
        client.quit()
        assert reply.startswith("250 "), reply


@pytest.fixture(scope="module")
def sites(module_lab):
    """Both tables, all messages of each on their way."""
    made = {kind: Site(module_lab, kind == "bdat") for kind in TABLES}
    for kind, table in TABLES.items():
        for step, reply, _ in table:
            name = name_of(kind, step, reply)
            made[kind].hop.add(Case(name, step, reply))
            made[kind].post(name)
    return made


def assert_notice(notice, name, reply):
    assert "multipart/report" in notice and "report-type=delivery-status" in notice, notice
    flat = re.sub(r"\r\n[ \t]+", " ", notice)
    assert re.search(r"(?mi)^Action: failed\r$", flat), notice
    assert re.search(rf"(?mi)^Final-Recipient: rfc822; ?{name}@treyresearch\.test\r$", flat), notice
    code, enhanced, words = reply.split(" ", 2)
    # RFC 3463 2: of an enhanced code whose class is not the reply's only the reply is believed.
    if enhanced[0] == code[0]:
        assert re.search(rf"(?mi)^Status: {re.escape(enhanced)}\b", flat), notice
    assert re.search(rf"(?mi)^Diagnostic-Code: smtp; ?{code}[ -].*{re.escape(words)}", flat), notice
    assert f"Message-ID: <{name}@adatum.test>" in notice, "the original, or its header"


@pytest.mark.parametrize("kind,step,reply,fate", ALL, ids=[
    f"{name_of(*row[:3])}={row[3]}" for row in ALL])
def test_fate(sites, kind, step, reply, fate):
    hop, name = sites[kind].hop, name_of(kind, step, reply)
    case = hop.cases[name]
    if fate == "notice":
        notices = wait_for(lambda: hop.notices.get(name), "notice")
        assert not case.bodies and case.attempts == 1
        assert_notice(notices[0], name, reply)
        return
    wait_for(lambda: case.bodies, "delivery")
    assert case.bodies[0].endswith(body_of(name).split("\r\n\r\n")[1])
    if reply == CUT or reply.startswith("421"):
        # The session is gone: the relay may try another at once, and then later.
        assert case.attempts >= (2 if fate == "retried" else 1)
    else:
        assert case.attempts == (2 if fate == "retried" else 1)
    # QUIT comes behind the last message of a session, which may be another's.
    assert case.cuts <= (reply == CUT) if step == "QUIT" else case.cuts == (reply == CUT)


def test_nothing_comes_twice(sites):
    """Behind all of them: each message once, each notice once, and the queue is empty."""
    for kind, table in TABLES.items():
        site = sites[kind]
        counts = {"delivered": 0, "retried": 0, "notice": 0}
        for step, reply, fate in table:
            case = site.hop.cases[name_of(kind, step, reply)]
            notices = site.hop.notices.get(case.name, [])
            counts[fate] += 1
            assert len(case.bodies) == (fate != "notice"), (kind, case.name, fate)
            assert len(notices) == (fate == "notice"), (kind, case.name, fate)
        relay = site.relay
        assert relay.counter("queue_accepted") == len(table)
        assert relay.counter("queue_failed") == counts["notice"]
        assert relay.counter("notices_failed") == counts["notice"]
        assert relay.counter("queue_sent") == len(table)  # each, or the notice of it


@pytest.mark.parametrize("step", ["banner", "EHLO"])
@pytest.mark.parametrize("reply", ["421 4.3.2 closing", "450 4.2.0 busy", "521 5.3.2 no mail here",
                                   "554 5.3.2 no service", CUT])
def test_session_that_does_not_begin(lab, step, reply):
    """Nothing is known of the message then: it waits, whatever was said, and is delivered."""
    site = Site(lab, True)
    session = site.hop.session = Case("session", step, reply)
    case = site.hop.add(Case("mail", "none", ""))
    site.post("mail")
    wait_for(lambda: case.bodies, "delivery")
    assert session.left == 0 and len(case.bodies) == 1 and not site.hop.notices


def test_one_recipient_of_many(lab):
    """Each recipient has a fate of its own: one is delivered, one later, one never."""
    site = Site(lab, True)
    replies = {"later": "450 4.2.0 busy", "never": "550 5.1.1 nobody"}
    asked = []

    class ByRecipient(Case):
        """The reply depends on the recipient, which verb_rcpt() does not tell; it is counted."""

        def take(self, step):
            if step != "RCPT":
                return None
            asked.append(step)
            name = ["well", "later", "never"][len(asked) - 1] if len(asked) <= 3 else "well"
            self.action = replies.get(name, "250 2.1.5 yes")
            return self.action

    case = site.hop.add(ByRecipient("mail", "RCPT", ""))
    site.post("mail", [f"{name}@treyresearch.test" for name in ("well", "later", "never")])
    wait_for(lambda: len(case.bodies) == 2 and site.hop.notices, "both deliveries and the notice")
    assert len(asked) == 4, "the one that was put off is asked for again, and it alone"
    (notice,) = site.hop.notices["mail"]
    assert "never@treyresearch.test" in notice and "550 5.1.1 nobody" in notice
    report = notice.split("message/delivery-status")[1].split("\r\n--")[0]
    assert "later@" not in report and "well@" not in report
