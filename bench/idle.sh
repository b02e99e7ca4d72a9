#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# idle.sh [--guest] [--json FILE] [SESSIONS [SECONDS]]: what a silent session costs Postern in memory.
#
# Holds 10 000 sessions, first in clear text, then under mutual TLS, each through a fresh relay,
# for 5 seconds; all must answer NOOP afterwards. Prints the figures and writes
# build/bench/idle-TIME.json and FILE; see bench/README.md for how to read them.
#
# With --guest that is in User-Mode Linux, with records by its kernel (KTLS=on), where this machine's
# has no kernel TLS, and with 7 500 sessions: a process there has no more than some 65 000 pages (the
# machine's vm.max_map_count), which the client, in userspace, needs for 7 900. Two minutes or so.
#
# What a session may take under TLS, all of the process divided: LIMIT_KERNEL and LIMIT_USER bytes.
#
# Environment: as in bench/common/setup.sh. Exit: 0, or 1 when a session was lost, took more than that,
# or had not the record layer that KTLS says; 77 there is no User-Mode Linux.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

LIMIT_KERNEL=16384 LIMIT_USER=30720
guest='' json=''
usage() {
	echo "usage: idle.sh [--guest] [--json FILE] [SESSIONS [SECONDS]]" >&2
	exit 2
}
while [[ ${1:-} = --* ]]; do
	case $1 in
	--guest) guest=1 ;;
	--json)
		[ $# -ge 2 ] || usage
		json=$(realpath -s "$2")
		shift
		;;
	*) usage ;;
	esac
	shift
done
SESSIONS=${1:-${guest:+7500}}
SESSIONS=${SESSIONS:-10000}
HOLD=${2:-5}
[[ $# -le 2 && $SESSIONS =~ ^[1-9][0-9]*$ && $HOLD =~ ^[0-9]+$ ]] || usage

if [ -n "$guest" ]; then
	# Its memory is gone with it, so results go through the project's folder.
	mkdir -p build/bench
	tests/kernels/uml.sh --mem 4G --timeout 560 -- env KTLS="${KTLS:-on}" \
		VARIANT="${VARIANT:-release}" bench/idle.sh --json "$PWD/build/bench/idle-guest.json" \
		"$SESSIONS" "$HOLD" || exit
	[ -z "$json" ] || cp build/bench/idle-guest.json "$json"
	exit 0
fi

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

# each_of FILE: bytes of the process for each session
each_of() { sed -n 's/.*"rss_total_bytes_per_session": *\([0-9]*\).*/\1/p' "$1"; }

# judge FILE: has every session the record layer that it should, and is it small enough?
judge() {
	local layer=kernel limit=$LIMIT_KERNEL count each
	[ "$KTLS" = on ] || layer=user limit=$LIMIT_USER
	count=$(grep -c " event=tls .* record=$layer" "$dir/relay.log" || true)
	each=$(each_of "$1")
	echo "  records by $layer in $count sessions; $each bytes of the process for each, $limit allowed"
	[ "$count" -ge "$SESSIONS" ] && [ -n "$each" ] && [ "$each" -le "$limit" ]
}

make_certificates
start_sink
status=0
start_relay $((SESSIONS + 100))
hold plain "$plain_port" --plain || status=1
stop_relay
start_relay $((SESSIONS + 100))
hold tls "$relay_port" "${to_relay[@]}" || status=1
[ "$KTLS" != on ] && [ "$KTLS" != off ] || judge "$dir/tls.json" || status=1
stop_relay

mkdir -p build/bench
out=build/bench/idle-$(date -u +%Y%m%d-%H%M%S).json
row() { printf '{"name":"idle session, %s","unit":"bytes","value":%s}' "$1" "$(each_of "$2")"; }
printf '{"part":"idle","rows":[%s,%s],"ktls":"%s","environment":%s,"plain":%s,"tls":%s}\n' \
	"$(row plain "$dir/plain.json")" "$(row "TLS, ktls $KTLS" "$dir/tls.json")" "$KTLS" \
	"$(environment)" "$(cat "$dir/plain.json")" "$(cat "$dir/tls.json")" >"$out"
[ -z "$json" ] || cp "$out" "$json"
echo "written: $out"
exit $status
