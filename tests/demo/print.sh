# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# print.sh: what the demo prints and checks. Read by demo.sh, which sets $dir and $guest; never run.
# shellcheck disable=SC2154

bold='' plain=''
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then
	bold=$'\e[1m' plain=$'\e[0m'
fi
step=0 true_count=0 false_count=0

heading() {
	[ -z "${guest:-}" ] || return 0
	step=$((step + 1))
	printf '\n%s%d. %s%s\n\n' "$bold" "$step" "$*" "$plain"
}
say() { printf '   %s\n' "$*"; }
show() { sed 's/^/   | /; s/ *$//'; } # text that is not the demo's own
die() {
	printf 'demo.sh: %s\n' "$*" >&2
	exit 1
}

# show_lines: lines that are longer than the screen, each folded and then indented
show_lines() {
	local line
	while IFS= read -r line; do
		fold -sw 100 <<<"$line" | sed 's/ *$//; 2,$s/^/    /' | show
	done
}

# show_log LINE...: lines of a log, without the time
show_log() { printf '%s\n' "$@" | sed 's/^[^ ]* //' | show_lines; }

# claim TEXT COMMAND...: it is true if the command says so.
claim() {
	local text=$1
	shift
	if "$@"; then
		true_count=$((true_count + 1))
		printf '   ok     %s\n' "$text"
	else
		false_count=$((false_count + 1))
		printf '   FALSE  %s\n' "$text"
	fi
}

# matches PATTERN TEXT
# shellcheck disable=SC2053 # it is a pattern
matches() { [[ $2 == $1 ]]; }

# claim_has TEXT WORDS WHERE: the words stand in it
claim_has() { claim "$1" grep -qF -- "$2" <<<"$3"; }

# until_true SECONDS COMMAND...: tries it until it is true
until_true() {
	local tries
	for ((tries = $1 * 10; tries > 0; tries--)); do
		! "${@:2}" || return 0
		sleep 0.1
	done
	return 1
}

# ---- what the relays logged

# log_line ORG PATTERN: the first line that matches, once it is there
log_line() {
	until_true 5 grep -Eqs -- "$2" "$dir/$1.log"
	grep -Em1 -- "$2" "$dir/$1.log"
}

field() { # LINE KEY
	sed -nE "s/.* $2=(\"([^\"]*)\"|([^ ]*)).*/\2\3/p" <<<"$1"
}

# tell_log ORG PATTERN: claims that there is such a line, and shows it
tell_log() {
	local line
	line=$(log_line "$1" "$2")
	claim "the log of $1's relay says so" test -n "$line"
	show_log "$line"
}

# message_of ORG FROM: the event of the first message that the relay accepted from there
message_of() { log_line "$1" "event=message .*result=accepted .*from=<$2>"; }
# inbound ORG FROM: the handshake of the session that brought it
inbound() { log_line "$1" "session=$(field "$(message_of "$1" "$2")" session) event=tls "; }
outbound() { log_line "$1" "event=nexthop-tls .*connector=$2 "; } # ORG CONNECTOR
