#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# handshake.sh [--profile] [--top N] [--json FILE] [--quick]: what a mutual handshake costs each side.
#
# Processor time of the relay's client, the relay's server and stock OpenSSL's, full and resumed, TLS
# 1.2 and 1.3, by bench/handshake. With --profile also, by valgrind's callgrind, how many
# instructions each takes and what they are spent on; --top adds the N dearest functions. Instructions
# are the same on every machine with this OpenSSL and this kind of processor; valgrind's own has no
# SHA extensions and no ADX, so hashing and big numbers take more of them there than elsewhere.
# --json writes {"part":"handshake","rows":[...]}, --quick takes fewer of all.
#
# Environment: VARIANT. Exit: 0, 1 failed, 2 wrong usage, 77 there is no valgrind for --profile.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
program=build/${VARIANT:-release}/bench/handshake
profile='' top=0 json='' count=100 repetitions=7 rounds=40
usage() {
	echo "usage: handshake.sh [--profile] [--top N] [--json FILE] [--quick]" >&2
	exit 2
}
while [ $# -gt 0 ]; do
	case $1 in
	--profile) profile=1 ;;
	--quick) count=40 repetitions=3 rounds=10 ;;
	--top | --json)
		[ $# -ge 2 ] || usage
		if [ "$1" = --top ]; then top=$2; else json=$2; fi
		shift
		;;
	*) usage ;;
	esac
	shift
done
[[ $top =~ ^[0-9]+$ ]] || usage
[ -z "$profile" ] || command -v valgrind >/dev/null || {
	echo "handshake.sh: valgrind is not installed" >&2
	exit 77
}

dir=$(mktemp -d "${TMPDIR:-/tmp}/postern-handshake.XXXXXX")
trap 'rm -rf "$dir"' EXIT
tests/pki.sh build/pki

for side in stock relay-server relay-client; do
	"$program" --side $side --count $count --repetitions $repetitions --json
done >"$dir/times"
/usr/bin/python3 - "$dir/times" <<-'PY'
	import json, sys
	sides = [json.loads(line) for line in open(sys.argv[1])]
	result = {**sides[0], "rows": [row for side in sides for row in side["rows"]]}
	json.dump(result, open(sys.argv[1], "w"))
	print(f"processor time of one side, {result['library']}, us: median, spread")
	for row in result["rows"]:
	    print(f"  {row['name']:32} {row['value']:8.1f} {100 * row['spread']:5.0f} %")
PY

# profiled SIDE WAY VERSION KIND
profiled() {
	local name="${2/relay-$1/relay} $1, TLS $3 $4"
	valgrind --tool=callgrind -q --collect-atstart=no --toggle-collect="$1_measured" \
		--compress-pos=no --callgrind-out-file="$dir/callgrind" \
		"$program" --side "$2" --version "$3" --kind "$4" --count $rounds --repetitions 1 \
		>/dev/null 2>"$dir/valgrind" || {
		cat "$dir/valgrind" >&2
		exit 1
	}
	echo "$name"
	/usr/bin/python3 bench/common/profile.py --top "$top" $rounds "$dir/callgrind"
	/usr/bin/python3 bench/common/profile.py --json "$name" $rounds "$dir/callgrind" \
		>>"$dir/profiles"
}

: >"$dir/profiles"
if [ -n "$profile" ]; then
	for version in 1.3 1.2; do
		for kind in full resumed; do
			for side in server client; do
				profiled $side stock $version $kind
				profiled $side "relay-$side" $version $kind
			done
		done
	done
fi

[ -z "$json" ] || /usr/bin/python3 - "$dir/times" "$dir/profiles" >"$json" <<-'PY'
	import json, sys
	result = json.load(open(sys.argv[1]))
	result["rows"] += [json.loads(line) for line in open(sys.argv[2])]
	print(json.dumps(result, separators=(",", ":")))
PY
