#!/bin/bash
# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# door.sh DIR: the part of the demo at the door in the kernel; run by demo.sh in network, mount and
# process namespaces of its own, in which everything ends with it. Prints claims as print.sh does.
#
# Exit: 0 all is true, 1 something is not.
# shellcheck disable=SC2154

set -uo pipefail
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=${here%/tests/demo}
cd "$top" || exit 1
dir=$1
postern=build/release/postern
posternctl=build/release/posternctl
at=192.0.2.25 port=2525
friend=198.51.100.7 stranger=203.0.113.9
relay_pid=

# shellcheck source=tests/demo/print.sh
. "$here/print.sh"

make_place() {
	mkdir -p "$dir/bpf" "$dir/lists" &&
		mount -t bpf none "$dir/bpf" &&
		ip link set lo up &&
		ip route add local default dev lo
}

write_config() {
	cat <<-CONF
		transport {
		    fqdn = "mx.adatum.test"
		    workers = 1
		    bpf = required
		    bpf-pin-folder = "$top/$dir/bpf/postern"
		    partner-lists = "$top/$dir/lists"
		    control-socket = "$top/$dir/control"
		}
		partner "treyresearch" {
		    domains = {"treyresearch.test"}
		    spki-pins = {"$(printf '%064d' 7)"}
		}
		receive-connector "partners" {
		    bindings = {"$at:$port"}
		    remote-ip-partners = {"*"}
		    banner = "220 partners only"
		    send-connector = "inside"
		}
		send-connector "inside" {
		    smart-hosts = {"127.0.0.9:9"}
		}
	CONF
}

start() {
	: >"$dir/door.log"
	"$postern" --config "$dir/door.conf" 2>"$dir/door.log" 9>&- &
	relay_pid=$!
	until_true 10 grep -q event=ready "$dir/door.log" || die "the relay does not run: $dir/door.log"
}

stop() {
	kill "$1" "$relay_pid"
	wait "$relay_pid" 2>/dev/null
	relay_pid=
}

# knock ADDRESS: connects from there; prints the greeting, or why there is none
knock() {
	/usr/bin/python3 - "$1" "$at" "$port" <<-'PYTHON'
		import socket, sys
		try:
		    with socket.create_connection((sys.argv[2], int(sys.argv[3])), 10, (sys.argv[1], 0)) as s:
		        print(s.recv(200).decode("ascii", "replace").strip() or "closed")
		except OSError as error:
		    print(error.strerror)
	PYTHON
}

# answers WHO TEXT ADDRESS: the knock ends so
answers() {
	local got
	got=$(knock "$3")
	claim "$1 ($3): $got" test "$got" = "$2"
}

accepted() { awk '/^Tcp:/ { line = $0 } END { split(line, n); print n[7] }' /proc/net/snmp; }

ctl() {
	local status=0
	printf '$ posternctl %s\n' "$*" | show
	"$posternctl" --config "$dir/door.conf" "$@" >"$dir/ctl.out" 2>&1 || status=$?
	show_lines <"$dir/ctl.out"
	claim "it is done" test "$status" = 0
}

scene() {
	local before
	write_config >"$dir/door.conf"
	start
	say "The relay has a connector for partners at $at:$port, and the list of partner treyresearch is empty."
	before=$(accepted)
	answers "a stranger" "Connection refused" "$stranger"
	answers "treyresearch's server, too" "Connection refused" "$friend"
	claim "the kernel has made no connection of these" test "$(accepted)" = "$before"
	ctl partner treyresearch ip add 198.51.100.0/24
	answers "treyresearch's server, at once" "220 partners only" "$friend"
	answers "the stranger" "Connection refused" "$stranger"
	ctl door status
	say "The relay is killed; the door stays, and is taken up by the next."
	stop -KILL
	answers "nobody listens" "Connection refused" "$friend"
	start
	answers "treyresearch's server" "220 partners only" "$friend"
	answers "the stranger" "Connection refused" "$stranger"
	ctl partner treyresearch ip remove 198.51.100.0/24
	answers "treyresearch's server, removed" "Connection refused" "$friend"
	stop -TERM
}

if ! make_place 2>"$dir/place.log"; then
	say "not shown: $(tail -n 1 "$dir/place.log")"
	exit 77
fi
scene
[ "$false_count" = 0 ]
