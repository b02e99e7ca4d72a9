#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# rows.sh [LOG...]: the rows of the capability table that have a test, and how each went.
#
# Reads what "pytest -v" or "pytest -rA" wrote, build/test-logs/$VARIANT/e2e-*.log unless files are
# named, and prints a line for each test that is named after a row (test_row_NN_...):
#
#   row 13  passed  test_row_13_listed_sender_in_clear
#
# A parametrized test is one line, with the number of its cases. Exit: 0 each row that must have a
# test has one, 1 some have none (they are named last) or one failed.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
must=$({ seq 1 45; seq 47 51; } | tr '\n' ' ')
[ $# -gt 0 ] || set -- build/test-logs/"${VARIANT:-release}"/e2e-*.log

awk -v must="$must" '
	function note(test, word,   row, name) {
		name = test
		sub(/\[.*$/, "", name)
		sub(/^.*::/, "", name)
		if (name !~ /^test_row_[0-9]+/) return
		if ((test, word) in seen) return
		seen[test, word] = 1
		row = name
		sub(/^test_row_/, "", row)
		row += 0
		rows[row] = 1
		key = sprintf("%02d %s", row, name)
		names[key] = 1
		if (word == "PASSED" || word == "XPASS") good[key]++
		else if (word == "SKIPPED" || word == "XFAIL") skip[key]++
		else bad[key]++
	}
	# "-v": FILE::TEST WORD [ 12%]
	/^[^ ]*::test_.* (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)( .*)?$/ {
		match($0, / (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)( |$)/)
		test = substr($0, 1, RSTART - 1)
		word = substr($0, RSTART + 1)
		sub(/ .*/, "", word)
		note(test, word)
	}
	# "-rA": WORD FILE::TEST - REASON
	/^(PASSED|FAILED|ERROR|XFAIL|XPASS) [^ ]*::test_/ {
		test = $0
		sub(/^[A-Z]+ /, "", test)
		sub(/ - .*$/, "", test)
		note(test, $1)
	}
	END {
		for (key in names) {
			word = bad[key] ? "FAILED " : good[key] ? "passed " : "skipped"
			cases = good[key] + bad[key] + skip[key]
			count = ""
			if (cases > 1) count = " (" cases " cases)"
			printf "row %s  %s  %s%s\n", substr(key, 1, 2), word, substr(key, 4), count | "sort"
			if (bad[key]) status = 1
		}
		close("sort")
		n = split(must, wanted, " ")
		for (i = 1; i <= n; i++)
			if (!(wanted[i] in rows)) { print "row " wanted[i] "  has no test"; status = 1 }
		exit status
	}' "$@"
