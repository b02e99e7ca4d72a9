#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# commit.sh [--quick]: what a durable 250 costs: the spool's group commit against one fdatasync for
# each message, and the relay with deliver = queue against Postfix.
#
# First the spool alone, in one program with what is usual (bench/commit.c). Then from end to end,
# without TLS: load -> relay or Postfix, each of which delivers to a sink of its own meanwhile. All
# are on the same file system, the ways take turns, and each figure is the median over the
# repetitions. Prints tables and writes build/bench/commit-TIME.json; see bench/README.md.
#
# --quick: 3 repetitions of 2 seconds instead of 5 of 5.
#
# Environment: as in bench/common/setup.sh, and REPETITIONS, SECONDS_EACH, SESSIONS
# (1 8 32 128 512), FOLDER where all is stored (build/bench), PARTS (engine end). Postfix needs root.
# Exit: 0, or 1 when any message failed.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

case ${1:-} in
'') defaults=(5 5) ;;
--quick) defaults=(3 2) ;;
*)
	sed -n '4,17s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
REPETITIONS=${REPETITIONS:-${defaults[0]}}
SECONDS_EACH=${SECONDS_EACH:-${defaults[1]}}
SESSIONS=${SESSIONS:-1 8 32 128 512}
FOLDER=${FOLDER:-build/bench}
PARTS=${PARTS:-engine end}

# shellcheck source=bench/common/setup.sh
. bench/common/setup.sh

[ -x "$BENCH/commit" ] || die "$BENCH/commit is missing: make all bench-bins"
mkdir -p "$FOLDER"
place=$(mktemp -d "$(realpath "$FOLDER")/commit.XXXXXX")
postfix='' sinks=()
end_all() {
	[ -z "$postfix" ] || tests/peers/postfix.sh stop "$place/postfix" || true
	[ ${#sinks[@]} = 0 ] || kill "${sinks[@]}" 2>/dev/null || true
	cleanup
	rm -rf "$place"
}
trap end_all EXIT

# The spool, and what is usual: a fresh folder each time.
measure_engine() {
	local repetition=$1 sessions how
	for sessions in $SESSIONS; do
		for how in durable append files relaxed; do
			rm -rf "$place/engine"
			"$BENCH/commit" --folder "$place/engine" --how $how --sessions "$sessions" \
				--messages 10000000 --seconds "$SECONDS_EACH" >"$dir/line" ||
				die "$how failed with $sessions sessions"
			sed "s/^{/{\"repetition\":$repetition,/" "$dir/line" >>"$dir/raw.jsonl"
		done
	done
	rm -rf "$place/engine"
}

# start_plain_sink NAME: sets sink_port
start_plain_sink() {
	"$BENCH/postern-sink" --listen 127.0.0.1:0 --threads 1 >"$dir/$1.out" 2>"$dir/$1.err" &
	sinks+=($!)
	await 5 "$dir/$1.out" '^listening ' || die "sink: $(cat "$dir/$1.err")"
	sink_port=$(sed -n '1s/.*://p' "$dir/$1.out")
}

# start_queue DURABILITY: sets relay_pid and relay_port
start_queue() {
	read -r relay_port plain_port <<<"$(free_ports)"
	mkdir -p "$place/spool"
	cat >"$dir/relay.conf" <<CONF
transport {
	fqdn = "mx.adatum.test"
	workers = $WORKERS
	max-sessions = 5000
	drain-timeout = "2s"
	bpf = off
	spool-folder = "$place/spool"
	spool-max-size = "16GB"
}

receive-connector "in" {
	bindings = {"127.0.0.1:$relay_port"}
	deliver = queue
	durability = $1
	max-inbound-connection = unlimited
	max-inbound-connection-per-source = unlimited
	max-inbound-connection-percentage-per-source = 100
	message-rate-limit = unlimited
	connection-inactivity-timeout = "30m"
	connection-timeout = "1h"
	send-connector = "inside"
}

send-connector "inside" {
	smart-hosts = {"127.0.0.1:$sink_port"}
	tls-auth-level = none
	max-connections = 20
}
CONF
	: >"$dir/relay.log"
	"$POSTERN" --check "$dir/relay.conf" || die "the relay refuses its configuration"
	"$POSTERN" --config "$dir/relay.conf" 2>"$dir/relay.log" &
	relay_pid=$!
	await 60 "$dir/relay.log" ' event=ready' || die "relay: $(tail -3 "$dir/relay.log")"
}

# Nothing is refused for how many come, and as many processes as there are sessions.
start_postfix() {
	read -r postfix_port plain_port <<<"$(free_ports)"
	tests/peers/postfix.sh start "$place/postfix" --listen "127.0.0.1:$postfix_port" \
		--relayhost "[127.0.0.1]:$sink_port" --tls-level none \
		--set default_process_limit=600 --set smtpd_client_connection_count_limit=0 \
		--set smtpd_client_connection_rate_limit=0 --set smtpd_client_message_rate_limit=0 \
		--set qmgr_message_active_limit=100000 --set smtpd_timeout=300s &&
		postfix=1 || echo "commit.sh: no Postfix here; its column stays empty" >&2
}

# counter NAME: of the relay, now
counter() {
	local lines
	lines=$(grep -c ' event=stats' "$dir/relay.log" || true)
	kill -USR1 "$relay_pid" || die "the relay is gone: $(tail -3 "$dir/relay.log")"
	await 10 "$dir/relay.log" ' event=stats' $((lines + 1)) || die "no counters of the relay"
	grep ' event=stats' "$dir/relay.log" | tail -1 | sed -n "s/.* $1=\([0-9]*\).*/\1/p" | grep . ||
		echo 0
}

# measure_load WHO PORT REPETITION SESSIONS
measure_load() {
	local flushes=null before=0 line
	[ "$1" = postfix ] || before=$(counter spool_flushes)
	line=$("$BENCH/postern-load" --plain --connect "127.0.0.1:$2" --connections "$4" --size 4k \
		--messages 100000000 --messages-per-connection 1000000 --seconds "$SECONDS_EACH" \
		--json) || echo "commit.sh: $1 with $4 sessions: some messages failed" >&2
	[ -n "$line" ] || die "$1: load ended without a word"
	[ "$1" = postfix ] || flushes=$(($(counter spool_flushes) - before))
	printf '{"how":"%s","repetition":%d,"sessions":%d,"flushes":%s,"load":%s}\n' \
		"$1" "$3" "$4" "$flushes" "$line" >>"$dir/raw.jsonl"
	[ "$1" != postfix ] || tests/peers/postfix.sh wait "$place/postfix" 120 >/dev/null || true
}

measure_end() {
	local repetition=$1 sessions
	for sessions in $SESSIONS; do
		measure_load queue "$relay_port" "$repetition" "$sessions"
		[ -z "$postfix" ] || measure_load postfix "$postfix_port" "$repetition" "$sessions"
	done
}

: >"$dir/raw.jsonl"
for part in $PARTS; do
	if [ "$part" = end ]; then
		start_plain_sink sink-postfix
		start_postfix
		start_plain_sink sink-queue
		start_queue durable
	fi
	for repetition in $(seq "$REPETITIONS"); do
		echo "$part: repetition $repetition of $REPETITIONS" >&2
		measure_"$part" "$repetition"
	done
done

mkdir -p build/bench
out=build/bench/commit-$(date -u +%Y%m%d-%H%M%S).json
environment >"$dir/environment.json"
disk=$(findmnt -no SOURCE,FSTYPE,OPTIONS --target "$place" | tr -s ' ')
/usr/bin/python3 bench/common/commit_report.py "$dir/environment.json" "$dir/raw.jsonl" "$out" "$disk"
