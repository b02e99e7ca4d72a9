# SPDX-License-Identifier: Apache-2.0
"""Who may connect, decided by the relay itself: partners' lists, exclusions, reloads; and what
posternctl says about it."""

import pytest

from conftest import free_port
from lab import Client, check, ctl, inside, lab, partner, receive, transport  # noqa: F401


def put(folder, name, *entries):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.list").write_text("# generation 1\n" + "".join(f"{e}\n" for e in entries))


def configuration(folder, port, hop_port):
    """Everybody but two partners comes to "any"; "trey" has a list, that of "other" is empty."""
    return [transport(bpf="off", partner_lists=folder / "lists"), inside(hop_port),
            receive("any", port, fqdn="any.adatum.test", remote_ip_ranges=["127.0.0.0/16"]),
            receive("partners", port, fqdn="partners.adatum.test", remote_ip_partners=["*"]),
            partner(), partner("other", ["other.test"])]


def served(port, source):
    """Whose greeting the peer gets; nobody: None."""
    with Client(port, source=source, greeted=False) as client:
        line = client.reply()
        return line.split()[1].split(".")[0] if line else None


def test_lists_decide_who_comes_in(lab):
    folder, port, hop = lab.place("lists"), free_port(), lab.server(how="clear")
    put(folder / "lists", "trey", "127.8.1.0/24", "!127.8.1.7", "127.0.0.9")
    relay = lab.relay(*configuration(folder, port, hop.port))
    assert served(port, "127.8.1.1") == "partners"
    assert served(port, "127.0.0.1") == "any"
    assert served(port, "127.0.0.9") == "partners"
    assert served(port, "127.8.1.7") is None
    assert served(port, "127.9.0.1") is None
    assert relay.events("accept", peer="127.8.1.1", connector="partners", partner="trey")
    assert not [event for event in relay.events("accept", peer="127.0.0.1") if "partner" in event]
    assert relay.refusals(why="excluded", peer="127.8.1.7", partner="trey"), relay.log()
    assert relay.refusals(why="no-connector", peer="127.9.0.1"), relay.log()


def test_a_balancer_has_to_announce_somebody(lab):
    port, hop = free_port(), lab.server(how="clear")
    lab.relay(transport(bpf="off"), inside(hop.port),
              receive("in", port, proxy_balancers=["127.8.0.0/16"],
                      remote_ip_ranges=["127.0.0.0/16"]))
    assert served(port, "127.0.0.1")
    with Client(port, source="127.8.0.1", greeted=False) as client:
        client.socket.sendall(b"EHLO balancer.test\r\n")
        assert client.reply() == ""


def test_a_wrong_list_stops_the_start(lab):
    folder = lab.place("wrong")
    put(folder / "lists", "trey", "127.8.1.0/24")
    put(folder / "lists", "other", "127.8.1.0/24")
    status, said = check("".join(configuration(folder, 2525, 2526)), folder)
    assert status == 2
    assert "other.list: 127.8.1.0/24 of partner \"other\" is in the list of partner \"trey\" too" \
        in said, said
    put(folder / "lists", "other", "127.8.1.0/33")
    status, said = check("".join(configuration(folder, 2525, 2526)), folder)
    assert status == 2 and "other.list:2: " in said, said


@pytest.fixture(name="asked")
def fixture_asked(lab):
    folder = lab.place("asked")
    put(folder / "lists", "trey", "198.51.100.0/24", "!198.51.100.7", "127.0.0.0/16")
    config = folder / "postern.conf"
    config.write_text("".join([
        transport(bpf="off", partner_lists=folder / "lists"), inside(2526),
        receive("any", 2525),
        receive("partners", 2525, remote_ip_partners=["trey"], proxy_balancers=["192.0.2.1"]),
        receive("wide", 2525, remote_ip_ranges=["127.0.0.0/8"]), partner()]))

    def ask(source, status):
        result = ctl("--config", config, "connector", "match", "--from", source, "--to",
                     "127.0.0.1:2525", status=status)
        return result.stdout + result.stderr
    ask.config = config
    return ask


def row(text, name):
    return next(line for line in text.splitlines() if line.startswith(f"{name} "))


def test_match_tells_of_lists(asked):
    text = asked("198.51.100.1", 0)
    assert "serves  198.51.100.0/24 (partner trey)" in row(text, "partners")
    assert "it serves everybody, and 198.51.100.0/24 (partner trey) is narrower" in row(text, "any")
    assert "none of its remote-ip-ranges holds 198.51.100.1" in row(text, "wide")
    text = asked("127.0.0.1", 0)
    assert "its range 127.0.0.0/8 is wider than 127.0.0.0/16 (partner trey)" in row(text, "wide")
    text = asked("127.9.0.1", 0)
    assert "serves  127.0.0.0/8" in row(text, "wide")
    assert "none of its lists of remote-ip-partners holds 127.9.0.1" in row(text, "partners")


def test_match_tells_of_exclusions_and_balancers(asked):
    text = asked("198.51.100.7", 1)
    assert "refuses  !198.51.100.7 (partner trey)" in row(text, "partners")
    assert 'the list of partner "trey" excludes it' in row(text, "partners")
    assert 'the list of partner "trey" excludes 198.51.100.7: it is refused' in text
    text = asked("192.0.2.1", 0)
    assert "192.0.2.1 (balancer)" in row(text, "partners")
    assert "has to announce who connects" in row(text, "partners")


@pytest.mark.parametrize("source, said", [
    ("198.51.100.1", '198.51.100.0/24 is in the list of partner "trey"'),
    ("198.51.100.7", 'the list of partner "trey" excludes 198.51.100.7: refused'),
    ("192.0.2.1", "192.0.2.1 is a balancer, which has to announce who connects"),
])
def test_explain_tells_of_the_door(asked, source, said):
    status = 0 if source == "198.51.100.1" else 1
    text = ctl("--config", asked.config, "explain", "--from", source, "--to", "127.0.0.1:2525",
               "--ehlo", "a.test", "--mail-from", "a@a.test", "--rcpt", "b@adatum.test",
               status=status).stdout
    assert said in text, text
