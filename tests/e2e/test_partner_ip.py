# SPDX-License-Identifier: Apache-2.0
"""posternctl partner NAME ip: on the files of lists, with a scripted relay, and with a real one."""

import fcntl
import json
import os
import pwd
import socket
import subprocess

import pytest

from admin_lab import TOOL
from conftest import PATIENCE, wait_for
from control_lab import Desk

HEAD = ('# Postern: addresses of partner "fabrikam"; change them with '
        '"posternctl partner fabrikam ip".\n')


@pytest.fixture
def desk(tmp_path, pki):
    made = Desk(tmp_path, pki)
    yield made
    made.close()


# ---- without a relay: the file


NOT_RUNNING = "the relay is not running: in force when it starts"


def test_file_add_list_remove(desk):
    assert desk.ip("list", check=0)[1] == "fabrikam: 0 entries, generation 0; " \
        "the relay is not running\n"
    _, text = desk.ip("add", "192.0.2.0/24", "!192.0.2.7", "2001:db8::/32", check=0)
    assert text == f"fabrikam: 3 added, 0 removed, 0 kept; generation 0 -> 1; {NOT_RUNNING}\n"
    assert (desk.lists / "fabrikam.list").read_text() == \
        HEAD + "# generation 1\n192.0.2.0/24\n!192.0.2.7\n2001:db8::/32\n"
    assert (desk.lists / "fabrikam.list").stat().st_mode & 0o777 == 0o640
    _, text = desk.ip("remove", "!192.0.2.7", check=0)
    assert f"0 added, 1 removed, 2 kept; generation 1 -> 2; {NOT_RUNNING}\n" in text
    _, text = desk.ip("list", check=0)
    assert text == "fabrikam: 2 entries, generation 2; the relay is not running\n" \
        "192.0.2.0/24\n2001:db8::/32\n"
    assert not [p for p in desk.lists.iterdir() if p.name != "fabrikam.list"]


def test_file_without_control_socket(desk):
    desk.transport = ""
    _, text = desk.ip("add", "192.0.2.1", check=0)
    assert "there is no control-socket: a relay that runs reads it when it is reloaded (SIGHUP)" \
        in text


def test_file_notes_on_what_covers(desk):
    desk.ip("add", "192.0.2.0/24", check=0)
    _, text = desk.ip("add", "192.0.2.9", check=0)
    assert "note: 192.0.2.9 was let in already by 192.0.2.0/24\n" in text
    _, text = desk.ip("remove", "192.0.2.9", check=0)
    assert "note: 192.0.2.9 is still let in by 192.0.2.0/24; to keep it out: " \
        "posternctl partner fabrikam ip add '!192.0.2.9'\n" in text
    _, text = desk.ip("add", "!192.0.2.9", check=0)
    assert "note" not in text
    _, text = desk.ip("add", "!192.0.2.128/25", "!192.0.2.129", check=0)
    assert "note: 192.0.2.129 was excluded already by !192.0.2.128/25\n" in text
    _, text = desk.ip("remove", "!192.0.2.129", check=0)
    assert "note: 192.0.2.129 is still excluded by !192.0.2.128/25\n" in text
    # It was never there by itself, and to take it off is not what keeps it out.
    _, text = desk.ip("remove", "192.0.2.1", check=1)
    assert "192.0.2.1 is not on the list\n" in text
    assert "note: 192.0.2.1 is still let in by 192.0.2.0/24; to keep it out: " in text
    # Only of those that are absent is anything said.
    desk.ip("add", "192.0.2.64/26", check=0)
    _, text = desk.ip("remove", "192.0.2.64/26", "203.0.113.1", check=1)
    assert "203.0.113.1 is not on the list\n" in text and "note" not in text


def test_file_refuses_and_leaves_the_list(desk):
    desk.ip("add", "192.0.2.0/24", "!192.0.2.7", check=0)
    before = (desk.lists / "fabrikam.list").read_text()
    for arguments, status, why in [
            (["add", "198.51.100.1", "192.0.2.0/24"], 1, "192.0.2.0/24 is on the list already"),
            (["remove", "192.0.2.0/24", "198.51.100.1"], 1, "198.51.100.1 is not on the list"),
            (["remove", "192.0.2.7"], 1, "192.0.2.7 is not on the list, but !192.0.2.7 is"),
            (["add", "192.0.2"], 2, '"192.0.2" is no entry of a list, expected an address'),
            (["add", "--expect-generation", "7", "198.51.100.1"], 1,
             "the list is of generation 1, and 7 was expected"),
            (["add"], 2, "an argument is missing"),
            (["add", "1.2.3.4", "--format", "plain"], 2, "unknown option --format"),
            (["replace", "nowhere"], 2, "nowhere: No such file or directory"),
            (["export", "--format", "xml"], 2, "--format xml: expected plain, postfix-cidr"),
            (["test", "192.0.2.0/24"], 2, '"192.0.2.0/24" is no IP address'),
    ]:
        _, text = desk.ip(*arguments, check=status)
        assert why in text, arguments
        assert (desk.lists / "fabrikam.list").read_text() == before, arguments
    assert 'there is no partner "nobody"' in desk.ip("list", partner="nobody", check=1)[1]


def test_file_errors_have_lines_and_nothing_is_applied(desk):
    desk.ip("add", "192.0.2.0/24", check=0)
    before = (desk.lists / "fabrikam.list").read_text()
    wrong = desk.write("wrong", "198.51.100.0/24\n\n# a comment\nfoo.example\n"
                       "203.0.113.9-203.0.113.1\n")
    for verb in "import", "replace", "diff":
        _, text = desk.ip(verb, wrong, check=2)
        assert 'DESK/wrong:4: "foo.example" is no ' in text, verb
        assert 'DESK/wrong:5: "203.0.113.9-203.0.113.1" is no ' in text, verb
        assert (desk.lists / "fabrikam.list").read_text() == before, verb
    (desk.lists / "fabrikam.list").write_text(before + "rubbish\n")
    _, text = desk.ip("add", "1.2.3.4", check=1)
    assert 'DESK/lists/fabrikam.list:4: "rubbish" is no ' in text


def test_file_another_partner_has_it(desk):
    desk.partners = 'remote-ip-partners = {"fabrikam", "list"}'
    desk.ip("add", "192.0.2.0/24", check=0)
    _, text = desk.ip("add", "192.0.2.0/24", partner="list", check=1)
    assert "192.0.2.0/24" in text and "fabrikam" in text
    assert not (desk.lists / "list.list").exists()


def test_a_partner_called_list(desk):
    """A NAME may be a word of another command; "partner list" goes on as it was."""
    desk.ip("add", "192.0.2.1", partner="list", check=0)
    assert desk.ip("export", partner="list", check=0)[1] == "192.0.2.1\n"
    assert desk.run("partner", "list", check=0)[1].splitlines()[2].startswith("list ")
    assert "unexpected argument" in desk.run("partner", "list", "ip", check=2)[1]
    assert "unknown command" in desk.run("partner", "fabrikam", "ip", "lsit", check=2)[1]
    for words, check in (("ip",), 2), (("ip", "--help"), 0):
        _, text = desk.run("partner", "fabrikam", *words, check=check)
        assert "partner NAME ip replace FILE" in text and "partner show" not in text, text


def test_file_note_when_no_connector_names_it(desk):
    _, text = desk.ip("add", "192.0.2.1", partner="list", check=0)
    assert 'note: no receive-connector has "list" in remote-ip-partners, so its list lets ' \
        "nobody in\n" in text


def test_file_replace_diff_export(desk):
    desk.ip("add", "192.0.2.0/24", "!192.0.2.7", "2001:db8::/32", check=0)
    new = desk.write("new", "192.0.2.0/24\n198.51.100.1-198.51.100.2\n")
    status, text = desk.ip("diff", new)
    assert (status, text) == (1, "-!192.0.2.7\n+198.51.100.1\n+198.51.100.2\n-2001:db8::/32\n"
                                 "fabrikam: 2 to add, 2 to remove, 1 kept; generation 1\n")
    _, text = desk.run("--json", "partner", "fabrikam", "ip", "diff", new, check=1)
    assert json.loads(text) == {"generation": 1, "kept": 1,
                                "added": ["198.51.100.1", "198.51.100.2"],
                                "removed": ["!192.0.2.7", "2001:db8::/32"]}
    _, text = desk.ip("replace", new, "--dry-run", check=0)
    assert text == "fabrikam: 2 to add, 2 to remove, 1 kept; generation 1; " \
        "dry run: nothing is changed\n"
    assert "# generation 1\n" in (desk.lists / "fabrikam.list").read_text()
    _, text = desk.ip("replace", new, "--expect-generation", "1", check=0)
    assert f"2 added, 2 removed, 1 kept; generation 1 -> 2; {NOT_RUNNING}" in text
    assert desk.ip("diff", new, check=0)[1] == "fabrikam: the same, 3 kept; generation 2\n"
    _, text = desk.ip("replace", new, check=0)
    assert text == "fabrikam: nothing to change, 3 kept; generation 2\n"


def test_file_export_formats_come_back(desk):
    desk.ip("add", "192.0.2.0/24", "!192.0.2.7", "!192.0.2.128/25", "192.0.2.200", "2001:db8::/32",
            check=0)
    for form in "plain", "postfix-cidr", "json":
        _, text = desk.ip("export", "--format", form, check=0)
        back = desk.write(f"back.{form}", text)
        assert desk.ip("diff", back, "--format", form)[0] == 0, text
        assert desk.ip("diff", back)[0] == 0, text


def test_file_empty_list_must_be_meant(desk):
    desk.ip("add", "192.0.2.0/24", check=0)
    empty = desk.write("empty", "# the download failed\n")
    assert "an empty list lets nobody in" in desk.ip("replace", empty, check=1)[1]
    assert "0 added, 1 removed" in desk.ip("replace", empty, "--allow-empty", check=0)[1]


def test_file_import_adds_what_is_new(desk):
    desk.ip("add", "192.0.2.0/24", "!198.51.100.7", check=0)
    more = desk.write("more", "192.0.2.0/24\n198.51.100.7\n203.0.113.0/24\n")
    _, text = desk.ip("import", more, check=0)
    assert "2 added, 1 removed, 1 kept; generation 1 -> 2" in text
    assert "note: 198.51.100.7 was excluded until now\n" in text
    assert "note: 1 entry was there already\n" in text
    assert "nothing to change, 3 kept; generation 2" in desk.ip("import", more, check=0)[1]
    _, text = desk.run("--json", "partner", "fabrikam", "ip", "import", more, check=0)
    assert json.loads(text) == {"ok": True, "relay": False, "generation": 2, "added": 0,
                                "removed": 0, "kept": 3}


def test_file_standard_input(desk):
    desk.file.write_text(desk.text())
    command = [TOOL, "--config", desk.file, "partner", "fabrikam", "ip", "replace", "-"]
    done = subprocess.run(command, input="192.0.2.1\nx\n", capture_output=True, text=True,
                          check=False)
    assert done.returncode == 2 and 'standard input:2: "x" is no ' in done.stderr
    entries = '["192.0.2.1", {"cidr": "198.51.100.0/24", "exclude": true}]'
    done = subprocess.run(command, input=entries, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "2 added" in done.stdout, done.stderr
    assert desk.ip("export", check=0)[1] == "192.0.2.1\n!198.51.100.0/24\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_file_is_given_to_the_relays_user(desk):
    """Who is root writes what the relay, as its user, must read and replace."""
    desk.transport += ' user = "nobody"'
    nobody = pwd.getpwnam("nobody")
    path = desk.lists / "fabrikam.list"
    for folder_is_theirs in (False, True):
        if folder_is_theirs:
            os.chown(desk.lists, nobody.pw_uid, nobody.pw_gid)
            path.unlink()
        for number in range(2):
            desk.ip("add", f"192.0.2.{number}", check=0)
            status = path.stat()
            # In a folder of root it is for them to read, and never theirs.
            assert status.st_uid == (nobody.pw_uid if folder_is_theirs else 0)
            assert status.st_gid == nobody.pw_gid and status.st_mode & 0o040


def test_file_test(desk):
    desk.ip("add", "192.0.2.0/24", "!192.0.2.7", "2001:db8::/32", check=0)
    status, text = desk.ip("test", "192.0.2.8")
    assert status == 0 and text.splitlines()[1].split() == \
        ["127.0.0.1:PORT", "served", "from-partners", "fabrikam", "192.0.2.0/24"]
    status, text = desk.ip("test", "192.0.2.7")
    assert status == 1 and "127.0.0.1:PORT  refused, excluded" in text and "::1" not in text
    status, text = desk.ip("test", "2001:db8::9")
    assert status == 0 and "[::1]:PORT" in text and "127.0.0.1" not in text
    status, text = desk.ip("test", "203.0.113.1")
    assert status == 1 and "refused, a stranger" in text
    status, text = desk.ip("test", "192.0.2.8", partner="list")
    assert status == 0 and "note: it is not the list of list that decides" in text


def test_file_changes_wait_for_each_other(desk):
    """Nothing is lost when many change a list at once."""
    desk.file.write_text(desk.text())
    running = [subprocess.Popen([TOOL, "--config", desk.file, "partner", "fabrikam", "ip", "add",
                                 f"192.0.2.{i}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
               for i in range(8)]
    for process in running:
        text = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0, text
    assert desk.ip("list", check=0)[1].startswith("fabrikam: 8 entries, generation 8;")


# ---- with a scripted relay: what is asked, and odd answers


def change(added=1, removed=0, kept=0, generation=18, **more):
    return {"ok": True, "generation": generation, "added": added, "removed": removed, "kept": kept,
            "sessions_ended": 0, "effect_us": 310, **more}


def listed(text, generation=17):
    return {"ok": True, "generation": generation, "count": text.count("\n"),
            "behind": text.encode()}


def test_relay_add_asks_for_what_was_said(desk):
    relay = desk.answer(lambda request, _: listed("192.0.2.0/24\n")
                        if request["command"] == "partner-ip-list" else
                        change(3, 0, 18, sessions_ended=2))
    _, text = desk.ip("add", "192.0.2.0/24", "!198.51.100.7", "203.0.113.0-203.0.113.255",
                      "--end-sessions", "--expect-generation", "17", check=0)
    assert text == "fabrikam: 3 added, 0 removed, 18 kept; generation 17 -> 18; " \
        "in force after T ms; 2 sessions ended\n"
    assert relay.requests[0] == (
        {"command": "partner-ip-add", "partner": "fabrikam", "bytes": 42, "expect_generation": 17,
         "end_sessions": True}, b"192.0.2.0/24\n!198.51.100.7\n203.0.113.0/24\n")
    assert not (desk.lists / "fabrikam.list").exists()  # the relay has it


def waits_for_lock(process):
    """Does it wait for the lock of a file?"""
    with open("/proc/locks", encoding="ascii") as locks:
        return any(line.split()[1] == "->" and f" {process.pid} " in line for line in locks)


def test_relay_that_starts_meanwhile_does_it(desk):
    """Who found no relay, and one is there when the file could be changed, asks again."""
    desk.file.write_text(desk.text())
    desk.ip("add", "198.51.100.0/24", check=0)
    before = (desk.lists / "fabrikam.list").read_text()
    folder = os.open(desk.lists, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with subprocess.Popen([TOOL, "--config", desk.file, "partner", "fabrikam", "ip", "add",
                           "192.0.2.0/24"], stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: waits_for_lock(process), "the lock is waited for")
        relay = desk.answer(lambda request, _: change(1, 0, 1, generation=18))
        os.close(folder)
        text, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "in force after" in text, text
    assert relay.requests[0] == ({"command": "partner-ip-add", "partner": "fabrikam",
                                  "bytes": 13}, b"192.0.2.0/24\n")
    assert (desk.lists / "fabrikam.list").read_text() == before


def test_relay_dry_run_and_json(desk):
    relay = desk.answer(lambda request, _: change(0, 4, 2, generation=17))
    _, text = desk.run("--json", "partner", "fabrikam", "ip", "replace", desk.write("f", "1.2.3.4"),
                       "--dry-run", check=0)
    assert json.loads(text)["removed"] == 4 and json.loads(text)["ok"] is True
    assert relay.requests[0][0]["dry_run"] is True
    _, text = desk.ip("remove", "1.2.3.4", "--dry-run", check=0)
    assert "fabrikam: 0 to add, 4 to remove, 2 kept; generation 17; dry run: nothing is changed\n" \
        in text


def test_relay_refuses(desk):
    answers = iter([
        {"ok": False, "error": "expected-generation", "message": "other", "generation": 19},
        {"ok": False, "error": "conflict", "message": "192.0.2.0/24 is contoso's\nand so is this"},
        {"ok": False, "error": "kernel", "message": "bad \x1b[31m news"},
        {"ok": False, "error": "unknown-partner"}])
    desk.answer(lambda request, _: next(answers))
    _, text = desk.ip("add", "1.2.3.4", "--expect-generation", "17", check=1)
    assert "the list is of generation 19, and 17 was expected" in text
    assert "--expect-generation 19" in text
    _, text = desk.ip("add", "192.0.2.0/24", check=1)
    assert text == "posternctl: fabrikam: 192.0.2.0/24 is contoso's\n" \
        "posternctl: fabrikam: and so is this\n"
    assert desk.ip("add", "1.2.3.4", check=1)[1] == "posternctl: fabrikam: bad ?[31m news\n"
    assert desk.ip("list", check=1)[1] == "posternctl: fabrikam: unknown-partner\n"


def test_relay_import_is_repeated_when_overtaken(desk):
    """Who imports does not name a generation, and loses nothing that another has added."""
    lists = [listed("192.0.2.1\n", 17), listed("192.0.2.1\n192.0.2.2\n", 18)]

    def answer(request, _):
        if request["command"] == "partner-ip-list":
            return lists.pop(0)
        if request["expect_generation"] == 17:
            return {"ok": False, "error": "expected-generation", "message": "", "generation": 18}
        return change(1, 0, 2, generation=19)

    relay = desk.answer(answer)
    _, text = desk.ip("import", desk.write("f", "192.0.2.2\n192.0.2.3\n"), check=0)
    assert "1 added, 0 removed, 2 kept; generation 18 -> 19" in text
    assert [r[1] for r in relay.requests if r[1]] == [b"192.0.2.2\n192.0.2.3\n", b"192.0.2.3\n"]


def test_relay_import_gives_up(desk):
    desk.answer(lambda request, _: listed("", 1) if request["command"] == "partner-ip-list" else
                {"ok": False, "error": "expected-generation", "generation": 2})
    _, text = desk.ip("import", desk.write("f", "192.0.2.2\n"), check=1)
    assert "changed by somebody else all the time" in text


def test_relay_test(desk):
    desk.answer(lambda request, _: {"ok": True, "behind": {"bindings": [
        {"binding": "192.0.2.1:25", "served": True, "connector": "internet", "partner": "",
         "prefix": "0.0.0.0/0", "excluded": False, "balancer": False},
        {"binding": "192.0.2.2:25", "served": False, "connector": "", "partner": "fabrikam",
         "prefix": "10.1.2.3", "excluded": True, "balancer": False},
        {"binding": "[::]:25", "served": False, "connector": "", "partner": "", "prefix": "",
         "excluded": False, "balancer": False}]}})
    _, text = desk.ip("test", "10.1.2.3", check=0)
    assert text == (
        "Binding       Result             Connector  Partner   Prefix\n"
        "192.0.2.1:25  served             internet   -         0.0.0.0/0\n"
        "192.0.2.2:25  refused, excluded  -          fabrikam  10.1.2.3\n")


ODD = [
    (b"", "closed the connection without an answer"),
    (b'{"ok": tr', "closed the connection without an answer"),
    (b"\n", "not what posternctl"),
    (b"220 mx.example ESMTP\r\n", "not what posternctl"),
    (b"\x80\xff\x00garbage\n", "not what posternctl"),
    (b"[1, 2]\n", '"ok" is missing'),
    (b'{"ok": 1}\n', '"ok" is missing'),
    (b'{"ok": true, "ok": false}\n', "not what posternctl"),
    (b"{" * 65000 + b"\n", "not what posternctl"),
    (b"x" * 200000, "is longer than 65536 bytes"),
    (b'{"ok": true, "generation": 1, "bytes": 100}\n192.0.2.1\n', "after 10 of 100 bytes"),
    (b'{"ok": true, "bytes": 99999999999999}\n', "more than there may be"),
    (b'{"ok": true, "generation": 3, "bytes": 8}\nrubbish\n', "answer of the relay:1:"),
]


@pytest.mark.parametrize("answer, why", ODD, ids=range(len(ODD)))
def test_relay_odd_answers(desk, answer, why):
    desk.answer(lambda *_: answer)
    status, text = desk.ip("list")
    assert status == 1 and why in text, text
    if b"rubbish" not in answer:  # that is a list; a change has none
        status, text = desk.ip("add", "1.2.3.4")
        assert status == 1 and why in text, text
        assert "what became of it shows: posternctl partner fabrikam ip list" in text
    assert desk.ip("diff", desk.write("f", "1.2.3.4"))[0] == 2
    assert desk.ip("test", "1.2.3.4")[0] == 1
    assert not list(desk.lists.iterdir())  # it is the relay's now, whatever it says


def test_relay_that_may_not_be_asked(desk):
    desk.answer(lambda *_: b'{"ok": true}\n')
    desk.ip("list", check=0)
    os.chmod(desk.socket, 0)
    # Root, but with no right to open what it may not open.
    rightless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    made = subprocess.run(
        [*rightless, TOOL, "--config", desk.file, "partner", "fabrikam", "ip", "add", "1.2.3.4"],
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert made.returncode == 1, made.stdout
    assert "members of control-group may ask the relay" in made.stdout
    assert "what became of it" not in made.stdout  # it was not asked


def test_relay_numbers_that_are_none(desk):
    desk.answer(lambda *_: b'{"ok": true, "generation": -4, "added": "many", "kept": 1e300}\n')
    assert "nothing to change, 0 kept; generation 0" in desk.ip("remove", "1.2.3.4", check=0)[1]


def test_relay_is_slow(desk):
    desk.answer(lambda *_: None)
    _, text = desk.ip("list", "--timeout", "1", check=1)
    assert "no answer from the relay within 1 seconds" in text
    assert "--timeout 0: expected a number from 1 to 3600" in desk.ip(
        "list", "--timeout", "0", check=2)[1]


def test_relay_answers_before_it_has_read_all(desk):
    """A request that is too long is refused before it is read; the reason must not be lost."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(desk.socket))
    listener.listen()
    entries = desk.write("f", "".join(f"10.{i >> 8}.{i & 255}.0/24\n" for i in range(65536)))
    desk.file.write_text(desk.text())
    with subprocess.Popen([TOOL, "--config", desk.file, "partner", "fabrikam", "ip", "replace",
                           entries], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(10)
            peer.sendall(b'{"ok": false, "error": "bad-request", "message": "too long"}\n')
        text = process.communicate(timeout=PATIENCE)[0].decode()
        assert process.returncode == 1 and text == "posternctl: fabrikam: too long\n"
    listener.close()


def test_socket_that_may_not_be_used(desk):
    desk.socket.mkdir()
    status, text = desk.ip("list")
    assert status in (0, 1), text  # ECONNREFUSED by newer kernels: nobody listens
    desk.transport = f'control-socket = "/{"x" * 99}" bpf = off'
    status, text = desk.ip("list")
    assert status == 0 and "the relay is not running" in text


def test_a_socket_left_behind(desk):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(desk.socket))
    assert NOT_RUNNING in desk.ip("add", "192.0.2.1", check=0)[1]


# ---- with a relay


def connects(port, source):
    """Is a connection greeted?"""
    with socket.socket() as client:
        client.settimeout(PATIENCE)
        client.bind((source, 0))
        try:
            client.connect(("127.0.0.1", port))
            return client.recv(4) == b"220 "
        except (ConnectionResetError, ConnectionRefusedError):
            return False


@pytest.fixture
def served(desk, make_relay):
    desk.served = make_relay(desk.text())
    wait_for(desk.socket.exists, "control socket")
    return desk


def test_real_add_and_remove(served):
    assert not connects(served.port, "127.0.0.9")
    _, text = served.ip("add", "127.0.0.0/24", "!127.0.0.7", check=0)
    assert text == "fabrikam: 2 added, 0 removed, 0 kept; generation 0 -> 1; in force after T ms\n"
    assert connects(served.port, "127.0.0.9")
    assert not connects(served.port, "127.0.0.7")
    assert not connects(served.port, "127.0.1.1")
    assert served.ip("list", check=0)[1] == "fabrikam: 2 entries, generation 1\n" \
        "127.0.0.0/24\n!127.0.0.7\n"
    assert (served.lists / "fabrikam.list").read_text() == \
        HEAD + "# generation 1\n127.0.0.0/24\n!127.0.0.7\n"
    status, text = served.ip("test", "127.0.0.9")
    assert status == 0 and text.splitlines()[1].split() == \
        ["127.0.0.1:PORT", "served", "from-partners", "fabrikam", "127.0.0.0/24"]
    status, text = served.ip("test", "127.0.0.7")
    assert status == 1 and "refused, excluded" in text
    _, text = served.ip("add", "127.0.0.0/24", check=1)
    assert "127.0.0.0/24" in text
    _, text = served.ip("remove", "127.0.9.9", check=1)
    assert "127.0.9.9" in text
    _, text = served.ip("remove", "127.0.0.0/24", "--expect-generation", "1", check=0)
    assert "0 added, 1 removed, 1 kept; generation 1 -> 2; in force after T ms" in text
    assert not connects(served.port, "127.0.0.9")


def test_real_generation_and_dry_run(served):
    served.ip("add", "127.0.0.0/24", check=0)
    _, text = served.ip("add", "127.0.1.0/24", "--expect-generation", "7", check=1)
    assert "the list is of generation 1, and 7 was expected" in text
    _, text = served.ip("add", "127.0.1.0/24", "--dry-run", check=0)
    assert text == "fabrikam: 1 to add, 0 to remove, 1 kept; generation 1; " \
        "dry run: nothing is changed\n"
    assert not connects(served.port, "127.0.1.1")
    assert served.ip("list", check=0)[1].startswith("fabrikam: 1 entry, generation 1\n")


def test_real_replace_import_diff(served):
    whole = served.write("whole", "127.0.0.0/24\n127.0.2.0/24\n")
    assert "2 added, 0 removed, 0 kept" in served.ip("replace", whole, check=0)[1]
    assert connects(served.port, "127.0.2.1")
    assert served.ip("diff", whole, check=0)[1] == "fabrikam: the same, 2 kept; generation 1\n"
    more = served.write("more", "127.0.2.0/24\n127.0.3.0/24\n")
    assert served.ip("diff", more, check=1)[1].splitlines()[:2] == [
        "-127.0.0.0/24", "+127.0.3.0/24"]
    assert "1 added, 0 removed, 2 kept; generation 1 -> 2" in served.ip(
        "import", more, check=0)[1]
    assert connects(served.port, "127.0.3.1")
    assert served.ip("export", check=0)[1] == "127.0.0.0/24\n127.0.2.0/24\n127.0.3.0/24\n"
    wrong = served.write("wrong", "127.0.4.0/24\n127.0.5.0/33\n")
    assert "DESK/wrong:2:" in served.ip("replace", wrong, check=2)[1]
    assert served.ip("export", check=0)[1] == "127.0.0.0/24\n127.0.2.0/24\n127.0.3.0/24\n"


def test_real_restart_keeps_it(served):
    served.ip("add", "127.0.0.0/24", check=0)
    served.served.stop()
    assert NOT_RUNNING in served.ip("add", "127.0.1.0/24", check=0)[1]
    served.served.start()
    assert served.ip("list", check=0)[1] == "fabrikam: 2 entries, generation 2\n" \
        "127.0.0.0/24\n127.0.1.0/24\n"
    assert connects(served.port, "127.0.1.1")


def test_real_covered_entries_are_seen(served):
    """What lets somebody in is told, also where another entry does, too."""
    served.ip("add", "127.0.0.0/24", check=0)
    served.ip("add", "127.0.0.128/25", check=0)
    assert served.ip("list", check=0)[1] == \
        "fabrikam: 2 entries, generation 2\n127.0.0.0/24\n127.0.0.128/25\n"
    assert served.ip("export", check=0)[1] == "127.0.0.0/24\n127.0.0.128/25\n"
    narrow = served.write("narrow", "127.0.0.128/25\n")
    _, text = served.ip("import", narrow, check=0)
    assert "fabrikam: nothing to change, 2 kept; generation 2\n" in text
    # What diff says is what replace does.
    wide = served.write("wide", "127.0.0.0/24\n")
    assert "-127.0.0.128/25\n" in served.ip("diff", wide, check=1)[1]
    assert "0 added, 1 removed, 1 kept" in served.ip("replace", wide, check=0)[1]


def test_real_removes_what_another_entry_covers(served):
    """All that was named goes and comes: nobody is let in by what was thought to be removed."""
    _, text = served.ip("add", "127.0.0.0/24", "127.0.0.128/25", check=0)
    assert "2 added, 0 removed" in text
    _, text = served.ip("remove", "127.0.0.0/24", "127.0.0.128/25", check=0)
    assert "0 added, 2 removed, 0 kept" in text
    assert not connects(served.port, "127.0.0.129")


def test_real_end_sessions(served):
    served.ip("add", "127.0.0.0/24", check=0)
    with socket.socket() as client:
        client.settimeout(PATIENCE)
        client.bind(("127.0.0.9", 0))
        client.connect(("127.0.0.1", served.port))
        assert client.recv(4) == b"220 "
        _, text = served.ip("remove", "127.0.0.0/24", "--end-sessions", check=0)
        assert "1 session ended" in text
        rest = b""
        while more := client.recv(4096):
            rest += more
        assert b"421" in rest


def test_real_says_who_did_it(served):
    served.ip("add", "127.0.0.0/24", check=0)
    event = served.served.events("partner-ip")[-1]
    assert event["partner"] == "fabrikam" and event["generation"] == "1", event
    assert event["uid"] == str(os.getuid()) and int(event["pid"]) > 1, event
