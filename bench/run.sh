#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh [--quick]: what Postern costs: load -> sink against load -> Postern -> sink.
#
# Messages of 4 KiB and 1 MiB, with DATA and with BDAT, 100 to a connection, mutual TLS on each
# leg. The two ways take turns, so that whatever else the machine does meets both. Prints a table
# and writes build/bench/run-TIME.json; see bench/README.md for how to read it.
#
# --quick: 3 short repetitions (under a minute) instead of 5 longer ones.
#
# Environment: as in bench/common/setup.sh, and REPETITIONS, CONNECTIONS (8), LOAD_THREADS (1),
# MESSAGES_4K, MESSAGES_1M, TLS_VERSION=1.2|1.3. Exit: 0, or 1 when any message failed.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

case ${1:-} in
'') defaults=(5 20000 500) ;;
--quick) defaults=(3 4000 120) ;;
*)
	sed -n '4,15s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
REPETITIONS=${REPETITIONS:-${defaults[0]}}
MESSAGES_4K=${MESSAGES_4K:-${defaults[1]}}
MESSAGES_1M=${MESSAGES_1M:-${defaults[2]}}
CONNECTIONS=${CONNECTIONS:-8}
LOAD_THREADS=${LOAD_THREADS:-1}

# shellcheck source=bench/common/setup.sh
. bench/common/setup.sh

# The counters of the sink, as JSON.
sink_counters() {
	local lines
	lines=$(wc -l <"$dir/sink.out")
	kill -USR1 "$sink_pid"
	await 5 "$dir/sink.out" '' $((lines + 1)) || die "the sink does not answer"
	tail -1 "$dir/sink.out"
}

# What the kernel and Postern itself have counted of the relay so far, as JSON.
relay_counters() {
	local lines
	lines=$(grep -c ' event=stats' "$dir/relay.log" || true)
	kill -USR1 "$relay_pid" || die "the relay is gone: $(tail -3 "$dir/relay.log")"
	await 5 "$dir/relay.log" ' event=stats' $((lines + 1)) || die "no counters of the relay"
	/usr/bin/python3 bench/common/report.py counters "$relay_pid" "$dir/relay.log"
}

# measure WAY REPETITION NAME OPTION...: one run of load; appends a line to raw.jsonl
measure() {
	local way=$1 repetition=$2 name=$3 load sink_before sink_after relay_before=null relay_after=null
	local target=("${to_sink[@]}" --connect "127.0.0.1:$sink_port")
	shift 3
	[ "$way" = direct ] || target=("${to_relay[@]}" --connect "127.0.0.1:$relay_port")
	sink_before=$(sink_counters)
	[ "$way" = direct ] || relay_before=$(relay_counters)
	load=$("$BENCH/load" "${target[@]}" ${TLS_VERSION:+--tls-version "$TLS_VERSION"} \
		--connections "$CONNECTIONS" --threads "$LOAD_THREADS" --messages-per-connection 100 \
		--seconds 120 --json "$@") || echo "run.sh: $way $name: some messages failed" >&2
	[ -n "$load" ] || die "$way $name: load ended without a word"
	[ "$way" = direct ] || relay_after=$(relay_counters)
	sink_after=$(sink_counters)
	printf '{"case":"%s","way":"%s","repetition":%d,"load":%s,"sink":[%s,%s],"relay":[%s,%s]}\n' \
		"$name" "$way" "$repetition" "$load" "$sink_before" "$sink_after" \
		"$relay_before" "$relay_after" >>"$dir/raw.jsonl"
}

case_options() {
	case $1 in
	*4KiB) echo "--size 4k --messages $MESSAGES_4K" ;;
	*1MiB) echo "--size 1m --messages $MESSAGES_1M" ;;
	esac
	case $1 in
	DATA*) echo --data ;;
	BDAT*) echo --bdat ;;
	esac
}

make_certificates
start_sink
start_relay 1000
# The first run pays for pages, caches and next-hop sessions; it does not count.
"$BENCH/load" "${to_relay[@]}" --connect "127.0.0.1:$relay_port" --messages 500 --seconds 20 \
	>/dev/null || die "the relay does not carry mail: $(tail -3 "$dir/relay.log")"
for repetition in $(seq "$REPETITIONS"); do
	for name in DATA-4KiB BDAT-4KiB DATA-1MiB BDAT-1MiB; do
		read -ra options <<<"$(case_options $name | tr '\n' ' ')"
		echo "repetition $repetition of $REPETITIONS: $name" >&2
		measure direct "$repetition" $name "${options[@]}"
		measure relay "$repetition" $name "${options[@]}"
	done
done

mkdir -p build/bench
out=build/bench/run-$(date -u +%Y%m%d-%H%M%S).json
environment >"$dir/environment.json"
/usr/bin/python3 bench/common/report.py run "$dir/environment.json" "$dir/raw.jsonl" "$out"
