#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# valgrind.sh [SESSIONS]: the relay under valgrind serves so many sessions (10000), each with
# STARTTLS, a client certificate and a message, and must end with no error and nothing leaked.
#
# A mutual handshake takes valgrind some 60 ms, so 10 000 sessions take about a quarter of an hour.
# Environment: VARIANT (valgrind): which build. Exit: 0 clean, 1 not, 77 valgrind is missing.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
sessions=${1:-10000}
build=build/${VARIANT:-valgrind}
pki=$PWD/build/pki
command -v valgrind >/dev/null || { echo "valgrind is not installed" >&2; exit 77; }
tests/pki.sh "$pki"
dir=$(mktemp -d)
sink_pid=
relay_pid=
trap '[ -z "$relay_pid" ] || kill -9 "$relay_pid" 2>/dev/null; [ -z "$sink_pid" ] || kill "$sink_pid" 2>/dev/null; rm -rf "$dir"' EXIT

port=$((20000 + $$ % 10000))
"$build/bench/postern-sink" --listen 127.0.0.1:0 --tls-cert "$pki/treyresearch.pem" \
	--tls-key "$pki/treyresearch.key" --client-ca "$pki/adatum-ca.pem" >"$dir/sink" 2>&1 &
sink_pid=$!
until grep -q '^listening' "$dir/sink"; do sleep 0.1; done
cat >"$dir/postern.conf" <<CF
transport { fqdn = "mx.adatum.test" workers = 1 max-sessions = 100 bpf = off }
certificate "edge" { chain = "$pki/adatum.pem" key = "$pki/adatum.key" }
receive-connector "partner" {
  bindings = {"127.0.0.1:$port"}
  certificate = "edge"
  tls = starttls
  require-tls = yes
  client-certificate = require
  trust-anchors = "$pki/treyresearch-ca.pem"
  tarpit-interval = "0s"
  message-rate-limit = unlimited
  max-inbound-connection-per-source = unlimited
  max-inbound-connection-percentage-per-source = 100
  deliver = proxy
  send-connector = "inside"
}
send-connector "inside" {
  smart-hosts = {"$(sed -n 's/^listening //p' "$dir/sink")"}
  certificate = "edge"
  trust-anchors = "$pki/treyresearch-ca.pem"
  tls-auth-level = domain-validation
  tls-domain = "treyresearch.test"
}
CF
valgrind --leak-check=full --show-leak-kinds=definite,indirect,possible \
	--errors-for-leak-kinds=definite,indirect,possible --error-exitcode=9 \
	--log-file="$dir/valgrind" "$build/postern" --config "$dir/postern.conf" 2>"$dir/log" &
relay_pid=$!
tries=0
until grep -q event=ready "$dir/log"; do
	sleep 0.2
	tries=$((tries + 1))
	[ $tries -lt 300 ] || { cat "$dir/log" "$dir/valgrind"; exit 1; }
done
"$build/bench/postern-load" --connect "127.0.0.1:$port" --starttls --cert "$pki/treyresearch.pem" \
	--key "$pki/treyresearch.key" --connections 4 --messages-per-connection 1 \
	--messages "$sessions" --seconds 7200 --size 4096 || exit 1
kill -TERM "$relay_pid"
status=0
wait "$relay_pid" || status=$?
relay_pid=
grep event=stats "$dir/log" | tail -n 1
grep -E 'definitely|indirectly|possibly|ERROR SUMMARY' "$dir/valgrind" || true
[ "$status" = 0 ] || cat "$dir/valgrind"
exit "$status"
