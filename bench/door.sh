#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# door.sh [--quick]: what the door costs: a trie of the kernel against the relay's own, a refusal by
# the kernel against accepting and closing in the relay, and the time until a change is in force.
#
# Needs root: it works in network and mount namespaces of its own. Prints tables and writes
# build/bench/door-TIME.json; see bench/README.md for how to read them.
#
# --quick: up to 100 000 prefixes and one repetition of a second, instead of 1 000 000 and five of
# three seconds.
#
# Environment: VARIANT=release, POSTERN and BENCH: other binaries; SIZES, prefixes of tries
# (1000,10000,100000,1000000); REPETITIONS (5) and SECONDS_EACH (3) of refusals; LIST, prefixes of
# the list in force while connections are refused and prefixes changed (100000).
# Exit: 0; 1 when something failed; 77 with the reason where this cannot be done.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

case ${1:-} in
'') defaults=("1000,10000,100000,1000000" 5 3) ;;
--quick) defaults=("1000,10000,100000" 1 1) ;;
*)
	sed -n '4,18s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
SIZES=${SIZES:-${defaults[0]}}
REPETITIONS=${REPETITIONS:-${defaults[1]}}
SECONDS_EACH=${SECONDS_EACH:-${defaults[2]}}
LIST=${LIST:-100000}

# shellcheck source=bench/common/setup.sh
. bench/common/setup.sh

[ -x "$BENCH/door" ] || die "$BENCH/door is missing: make all bench-bins"
status=0
"$BENCH/door" --postern "$(realpath "$POSTERN")" --sizes "$SIZES" --repetitions "$REPETITIONS" \
	--seconds "$SECONDS_EACH" --list "$LIST" >"$dir/raw.jsonl" || status=$?
[ "$status" != 77 ] || exit 77
[ "$status" = 0 ] || die "a measurement failed"

mkdir -p build/bench
out=build/bench/door-$(date -u +%Y%m%d-%H%M%S).json
environment >"$dir/environment.json"
/usr/bin/python3 bench/common/report.py door "$dir/environment.json" "$dir/raw.jsonl" "$out"
