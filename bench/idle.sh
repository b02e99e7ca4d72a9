#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# idle.sh [SESSIONS [SECONDS]]: what a silent session costs Postern in memory.
#
# Holds 10 000 sessions, first in clear text, then under mutual TLS, each through a fresh relay,
# for 5 seconds; all must answer NOOP afterwards. Prints the figures and writes
# build/bench/idle-TIME.json; see bench/README.md for how to read them.
#
# Environment: as in bench/common/setup.sh. Exit: 0, or 1 when a session was lost.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

SESSIONS=${1:-10000}
HOLD=${2:-5}
case $SESSIONS$HOLD in
'' | *[!0-9]*)
	echo "usage: idle.sh [SESSIONS [SECONDS]]" >&2
	exit 2
	;;
esac

# shellcheck source=bench/common/setup.sh
. bench/common/setup.sh

# One descriptor a session, and some; the hard limit must do where it cannot be raised.
ulimit -n $((SESSIONS + 1000)) 2>/dev/null || ulimit -n "$(ulimit -Hn)"

stop_relay() {
	kill "$relay_pid"
	wait "$relay_pid" || die "the relay ended badly: $(tail -3 "$dir/relay.log")"
	relay_pid=
}

# hold NAME PORT OPTION...
hold() {
	local name=$1 port=$2 status=0
	shift 2
	"$BENCH/idle" --connect "127.0.0.1:$port" --pid "$relay_pid" --sessions "$SESSIONS" \
		--hold "$HOLD" --json "$@" >"$dir/$name.json" || status=1
	/usr/bin/python3 bench/common/report.py idle "$name" "$dir/$name.json"
	return $status
}

make_certificates
start_sink
status=0
start_relay $((SESSIONS + 100))
hold plain "$plain_port" --plain || status=1
stop_relay
start_relay $((SESSIONS + 100))
hold tls "$relay_port" "${to_relay[@]}" || status=1
stop_relay

mkdir -p build/bench
out=build/bench/idle-$(date -u +%Y%m%d-%H%M%S).json
printf '{"environment":%s,"plain":%s,"tls":%s}\n' "$(environment)" "$(cat "$dir/plain.json")" \
	"$(cat "$dir/tls.json")" >"$out"
echo "written: $out"
exit $status
