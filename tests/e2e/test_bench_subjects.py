# SPDX-License-Identifier: Apache-2.0
"""The subjects of the benchmark do what they say; bench/common/subjects_test.py has the checks.

OpenSMTPD and nginx are only looked at where the benchmark has already downloaded them."""

import os
import subprocess

import pytest

from conftest import ROOT

DOWNLOADED = os.path.exists(os.path.join(ROOT, "build", "peers", ".stamp-bench"))


@pytest.mark.parametrize("name", ["direct", "postern-proxy", "postern-queue",
                                  "postern-queue-relaxed", "postfix", "exim", "opensmtpd",
                                  "nginx"])
def test_subject(name):
    if name in ("opensmtpd", "nginx") and not DOWNLOADED:
        pytest.skip("not downloaded: tests/peers/setup.sh bench")
    done = subprocess.run(["/usr/bin/python3", "bench/common/subjects.py", "--self-test", name],
                          cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
