# SPDX-License-Identifier: Apache-2.0
"""The subjects of the benchmark: SUBJECTS, by name, each a class of subject.py's kind.

    subject = SUBJECTS["postfix"](folder, sink_port, pki_folder, {"sessions": 64})
    subject.start()     # listens on .port with STARTTLS and .plain_port (or None)
    subject.counters()  # twice: what lies between is the cost of what was done
    with subject.count_syscalls(30) as count:
        ...             # count.calls, or None and count.reason
    subject.stop()

Certificates are those of tests/pki.sh: the client and the next hop are treyresearch.test, the relay
is adatum.test. What is as a reader should know it: .title, .version, .durability, .inbound,
.outbound, .record, .settings (by file name, after start), .notes; .stores says that it answers
before the next hop has the mail; .best_connections, .load_options and the certificate's
.server_name and .server_ca are for the client. Cannot is raised, with the reason, where a subject
cannot run.

subjects.py --self-test [NAME]...: does each do what it says? Exit: 0, 1, 77 if none could run here.
"""

import sys

from peers import Exim, Nginx, OpenSmtpd, Postfix
from subject import Cannot, Direct, Postern, PosternQueue, PosternRelaxed

SUBJECTS = {
    "direct": Direct,
    "postern-proxy": Postern,
    "postern-queue": PosternQueue,
    "postern-queue-relaxed": PosternRelaxed,
    "postfix": Postfix,
    "exim": Exim,
    "opensmtpd": OpenSmtpd,
    "nginx": Nginx,
}

__all__ = ["SUBJECTS", "Cannot"]

if __name__ == "__main__":
    import subjects_test
    if sys.argv[1:2] != ["--self-test"] or not SUBJECTS.keys() >= set(sys.argv[2:]):
        sys.exit(__doc__)
    sys.exit(subjects_test.main(SUBJECTS, sys.argv[2:]))
