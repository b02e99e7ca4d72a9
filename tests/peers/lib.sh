# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# lib.sh: what postfix.sh, exim.sh, opensmtpd.sh and nginx.sh share. Sourced, never run.
#
# PEER_CGROUP in the environment names the folder of a control group, in which a peer that is
# started and all its children are then counted. PACKAGES is what run-in.sh takes.
#
# A running peer owns a folder DIR, which is /peer inside run-in.sh, and DIR/pid, which holds the
# process id of its server. A pid file counts only if that process sees DIR as its /peer, so a stale
# file never ends a stranger. Its parent is process 1 of the peer's namespace: once that is gone, so
# are all the others and all mounts (run-in.sh).

set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
PEERS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PACKAGES=()
OPTIONS=() FLAGS=() # what read_options takes
START_SECONDS=20 # limit until the port answers
STOP_TENTHS=50   # limit for an orderly end, in tenths of a second; then it is killed

die() { echo "peers/${0##*/}: $*" >&2; exit 1; }

# The comment at the top of the script is its manual; its first lines are the usage.
usage() {
	sed -n '4,/^#$/s/^# \{0,1\}//p' "$0" >&2
	exit 2
}

# read_options WORD...: --tls-cert F sets tls_cert, --set adds to sets, --set-smtp to smtp_sets, and
# other words are left in rest; all of them the caller's. OPTIONS names those that this script takes,
# FLAGS those without a value, which are set to 1.
read_options() {
	local name
	rest=()
	while [ $# -gt 0 ]; do
		name=${1#--}
		if [[ $1 != --* ]]; then
			rest+=("$1")
		elif [[ " ${FLAGS[*]} " == *" $name "* ]]; then
			printf -v "${name//-/_}" 1
		else
			[[ $# -gt 1 && " ${OPTIONS[*]} " == *" $name "* ]] || usage
			case $name in
			set) sets+=("$2") ;;
			set-smtp) smtp_sets+=("$2") ;;
			*) printf -v "${name//-/_}" %s "$2" ;;
			esac
			shift
		fi
		shift
	done
}

# may_start DIR: whether options of the caller's fit, and nobody is there.
may_start() {
	[ -z "$require_client_cert" ] || [ -n "$tls_cert" ] ||
		die "--require-client-cert needs --tls-cert"
	! peer_pid "$1" >/dev/null || die "already running in $1"
	[ -z "$listen" ] || ! answers "$listen" || die "$listen is taken"
}

# peer_dir DIR: makes DIR, and prints its absolute path. The mail system's own users must be able to enter it.
peer_dir() {
	mkdir -p "$1"
	chmod a+rx "$1"
	(cd "$1" && pwd)
}

# peer_pid DIR: prints the process id, or fails if the peer does not run.
peer_pid() {
	local pid
	pid=$(cat "$1/pid" 2>/dev/null) && [ -n "$pid" ] || return 1
	[ "$(stat -Lc %d:%i "/proc/$pid/root/peer" 2>/dev/null)" = "$(stat -c %d:%i "$1")" ] || return 1
	echo "$pid"
}

host_of() {
	local host=${1%:*}
	host=${host#[}
	echo "${host%]}"
}
port_of() { echo "${1##*:}"; }

# answers HOST:PORT: an SMTP server greets there.
# ANSWERS_AFTER: what has to be said first.
answers() {
	local line
	(
		exec 3<>"/dev/tcp/$(host_of "$1")/$(port_of "$1")" || exit 1
		printf '%b' "${ANSWERS_AFTER:-}" >&3
		read -r -t 2 line <&3 && [[ $line == 220* ]]
	) 2>/dev/null
}

# peer_start DIR READY COMMAND...: detached, with its output in DIR/start.log; returns when the
# command READY (words, not quoted) is true. A failure is final: nothing is left running.
peer_start() {
	local dir=$1 ready=$2 job fd status=0 deadline=$((SECONDS + START_SECONDS))
	shift 2
	rm -f "$dir/pid"
	(
		for fd in /proc/self/fd/*; do # else a caller that reads a pipe to its end waits for the peer
			[ "${fd##*/}" -le 2 ] || eval "exec ${fd##*/}>&-"
		done
		exec setsid "$PEERS/run-in.sh" ${PACKAGES[@]+"${PACKAGES[@]}"} --bind "$dir:/peer" \
			--pidfile "$dir/pid" ${PEER_CGROUP:+--cgroup "$PEER_CGROUP"} "$@"
	) </dev/null >"$dir/start.log" 2>&1 &
	job=$!
	while [ $SECONDS -lt $deadline ]; do
		if ! kill -0 "$job" 2>/dev/null; then
			wait "$job" || status=$?
			cat "$dir/start.log" >&2
			rm -f "$dir/pid"
			[ "$status" -ne 77 ] || exit 77
			die "ended at once, status $status"
		fi
		# shellcheck disable=SC2086
		if peer_pid "$dir" >/dev/null && $ready; then return 0; fi
		sleep 0.05
	done
	tail -n 5 "$dir/start.log" "$dir/mail.log" "$dir/log/mainlog" >&2 2>/dev/null || true
	peer_stop "$dir"
	die "not ready after $START_SECONDS seconds"
}

# alive PID: it runs; a dead process that its parent has not yet asked about does not.
alive() {
	local stat
	read -r stat <"/proc/$1/stat" || return 1
	[[ ${stat##*) } != [ZX]* ]]
} 2>/dev/null

# gone PID TENTHS: waits until it is not alive, that many tenths of a second at most.
gone() {
	local tries
	for ((tries = $2 * 5; tries > 0; tries--)); do
		alive "$1" || return 0
		sleep 0.02
	done
	return 1
}

parent_of() { awk '$1 == "PPid:" { print $2 }' "/proc/$1/status"; }

# peer_stop DIR: ends the peer and everything that it started; well if it does not run.
peer_stop() {
	local pid first outer
	if pid=$(peer_pid "$1") && first=$(parent_of "$pid") && outer=$(parent_of "$first"); then
		kill -TERM "$pid" 2>/dev/null || true
		if ! gone "$first" "$STOP_TENTHS"; then
			kill -KILL "$first" 2>/dev/null || true
			gone "$first" "$STOP_TENTHS" || die "process $first does not end"
		fi
		gone "$outer" "$STOP_TENTHS" || true # which only waited for it
	fi
	rm -f "$1/pid"
}

# hosts_line DIR HOST NAME: NAME is that address inside run-in.sh, once use_hosts was called there.
hosts_line() { echo "$2 $3" >"$1/hosts"; }
use_hosts() { [ ! -e /peer/hosts ] || cat /peer/hosts >>/etc/hosts; }

# tls_files DIR NAME CERT KEY: DIR/tls/NAME.pem, key and chain in one file.
tls_files() {
	mkdir -p "$1/tls"
	(umask 077 && cat "$4" "$3" >"$1/tls/$2.pem")
}
