# SPDX-License-Identifier: Apache-2.0
"""What the tests of "posternctl partner NAME ip" and "door" share: a configuration, and a relay
that is only a script on the control socket."""

import json
import re
import socket
import threading

from admin_lab import posternctl
from conftest import PATIENCE, free_port


class ScriptedRelay:
    """Listens on a control socket and answers by a function of (request, bytes behind it).

    The function returns bytes to be sent as they are, or an object to be sent as a line; an object
    with a "behind" is a line and what its "bytes" announces.
    """

    def __init__(self, path, answer):
        self.answer = answer
        self.requests = []
        self.released = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        for _ in range(1000):
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(PATIENCE)
                try:
                    self.session(peer)
                except OSError:
                    pass  # the other side does not wait for more

    def session(self, peer):
        stream = peer.makefile("rb")
        line = stream.readline()
        if not line:
            return
        request = json.loads(line)
        behind = stream.read(request.get("bytes", 0))
        self.requests.append((request, behind))
        answer = self.answer(request, behind)
        if isinstance(answer, dict):
            text = answer.pop("behind", b"")
            if isinstance(text, dict):
                text = json.dumps(text).encode()
            if text:
                answer["bytes"] = len(text)
            answer = json.dumps(answer).encode() + b"\n" + text
        if answer is None:  # no answer, and no end either
            self.released.wait(PATIENCE)
            return
        peer.sendall(answer)

    def close(self):
        if self.released.is_set():
            return
        self.released.set()
        self.listener.shutdown(socket.SHUT_RDWR)  # accept() returns
        self.listener.close()
        self.thread.join(PATIENCE)


class Desk:
    """A configuration with a partner "fabrikam", a folder for lists, and posternctl."""

    def __init__(self, folder, pki):
        self.folder = folder
        self.socket = folder / "control"
        self.lists = folder / "lists"
        self.lists.mkdir()
        self.file = folder / "postern.conf"
        self.port = free_port()
        self.hop_port = free_port()
        self.pki = pki
        self.relay = None
        self.transport = f'control-socket = "{self.socket}" bpf = off'
        self.partners = 'remote-ip-partners = {"fabrikam"}'
        self.more = ""

    def text(self):
        anchors = f'trust-anchors = "{self.pki}/treyresearch-ca.pem"'
        return f"""
transport {{ fqdn = "mx.adatum.test" workers = 1 partner-lists = "{self.lists}"
  bpf-pin-folder = "{self.folder}/pins" {self.transport} }}
partner "fabrikam" {{ domains = {{"fabrikam.test"}} {anchors} }}
partner "list" {{ domains = {{"list.test"}} {anchors} }}
receive-connector "from-partners" {{
  bindings = {{"127.0.0.1:{self.port}", "[::1]:{self.port}"}}
  {self.partners}
  send-connector = "inside"
}}
send-connector "inside" {{ smart-hosts = {{"127.0.0.1:{self.hop_port}"}} }}
{self.more}
"""

    def run(self, *arguments, check=None):
        self.file.write_text(self.text())
        status, text = posternctl(*arguments, config=self.file, check=check)
        return status, self.stable(text)

    def stable(self, text):
        text = text.replace(str(self.folder), "DESK")
        # Of an address only: any number may have these digits.
        text = re.sub(rf":{self.port}\b", ":PORT", text)
        return re.sub(r"after \d+\.\d+ ms", "after T ms", text)

    def ip(self, *arguments, partner="fabrikam", check=None):
        return self.run("partner", partner, "ip", *arguments, check=check)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def answer(self, answer):
        """From here on a script is the relay."""
        self.relay = ScriptedRelay(self.socket, answer)
        return self.relay

    def close(self):
        if self.relay:
            self.relay.close()
