# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# setup.sh: what the scripts in bench/ share; sourced by them from the project's root.
#
# Makes a temporary folder with certificates, starts sink and Postern on loopback, and ends both
# with the script, however that ends. Sets dir, sink_pid, sink_port, relay_pid, relay_port and
# plain_port.
#
# Environment: VARIANT=release, POSTERN and BENCH: other binaries; WORKERS of the relay (1),
# SINK_THREADS (1), KTLS=off|tx|rx|on|auto of both legs (off).

VARIANT=${VARIANT:-release}
POSTERN=${POSTERN:-build/$VARIANT/postern}
BENCH=${BENCH:-build/$VARIANT/bench}
WORKERS=${WORKERS:-1}
SINK_THREADS=${SINK_THREADS:-1}
KTLS=${KTLS:-off}

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

for binary in "$POSTERN" "$BENCH/postern-load" "$BENCH/postern-sink" "$BENCH/idle"; do
	[ -x "$binary" ] || die "$binary is missing: make all bench-bins"
done

dir=$(mktemp -d "${TMPDIR:-/tmp}/postern-bench.XXXXXX")
sink_pid='' relay_pid=''

cleanup() {
	local pid
	for pid in $relay_pid $sink_pid; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# await SECONDS FILE PATTERN [COUNT]: until so many lines of FILE match; it may not be there yet
await() {
	local tries=$(($1 * 50)) count
	while count=$(grep -cE -- "$3" "$2" 2>/dev/null || true) && [ "${count:-0}" -lt "${4:-1}" ]; do
		[ $((tries--)) -gt 0 ] || return 1
		sleep 0.02
	done
}

# The client and the next hop are treyresearch.test, the relay is adatum.test. The sink knows
# both organisations, as it meets the client directly and the relay in between.
make_certificates() {
	tests/pki.sh "$dir/pki" || die "no certificates"
	cat "$dir/pki/adatum-ca.pem" "$dir/pki/treyresearch-ca.pem" >"$dir/pki/both-ca.pem"
}

# What load and idle show, and demand of the relay and of the sink.
client_tls=(--starttls --cert "$dir/pki/treyresearch.pem" --key "$dir/pki/treyresearch.key")
# shellcheck disable=SC2034
to_relay=("${client_tls[@]}" --ca "$dir/pki/adatum-ca.pem" --name mx.adatum.test)
# shellcheck disable=SC2034
to_sink=("${client_tls[@]}" --ca "$dir/pki/treyresearch-ca.pem" --name mx.treyresearch.test)

# No tickets, so that on both legs every handshake is a full one.
start_sink() {
	"$BENCH/postern-sink" --listen 127.0.0.1:0 --threads "$SINK_THREADS" --tickets 0 \
		--tls-cert "$dir/pki/treyresearch.pem" --tls-key "$dir/pki/treyresearch.key" \
		--client-ca "$dir/pki/both-ca.pem" >"$dir/sink.out" 2>"$dir/sink.err" &
	sink_pid=$!
	await 5 "$dir/sink.out" '^listening ' || die "sink: $(cat "$dir/sink.err")"
	sink_port=$(sed -n '1s/.*://p' "$dir/sink.out")
}

# subject EXPRESSION WORD...: what Python prints of it, with subject.py at hand
subject() {
	PYTHONPATH=bench/common /usr/bin/python3 -B -c "import sys; from subject import *; print($1)" \
		"${@:2}"
}

# Two free ports; the relay cannot choose its own.
free_ports() { subject '*free_ports(2)'; }

# start_relay SESSIONS: mutual TLS on both legs, no limit that a benchmark could meet
start_relay() {
	read -r relay_port plain_port <<<"$(free_ports)"
	subject 'relay_configuration(sys.argv[1:4], "pki", dict(zip(
		("sessions", "workers", "ktls", "per_connection"), sys.argv[4:])))' \
		"$relay_port" "$plain_port" "$sink_port" "$1" "$WORKERS" "$KTLS" 100 >"$dir/relay.conf"
	"$POSTERN" --check "$dir/relay.conf" || die "the relay refuses its configuration"
	"$POSTERN" --config "$dir/relay.conf" 2>"$dir/relay.log" &
	relay_pid=$!
	await 30 "$dir/relay.log" ' event=ready' || die "relay: $(tail -3 "$dir/relay.log")"
}

# The machine and the versions, as JSON.
environment() {
	/usr/bin/python3 - "$POSTERN" "$WORKERS" "$SINK_THREADS" "$KTLS" <<'PYTHON'
import json, os, platform, subprocess, sys, time

def output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""

model = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="ascii")
         if line.startswith("model name")]
print(json.dumps({
    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    "kernel": platform.release(), "cpu": model[0] if model else "", "cores": os.cpu_count(),
    "revision": output("git", "describe", "--always", "--dirty"),
    "postern": output(sys.argv[1], "--version").splitlines(),
    "workers": int(sys.argv[2]), "sink_threads": int(sys.argv[3]), "ktls": sys.argv[4]}))
PYTHON
}
