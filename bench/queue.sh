#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# queue.sh: a very long queue: what a message that waits costs, and who else feels it.
#
# Fills the queue of a next hop that is not there, with 1 000 000 messages of 512 bytes, and measures:
# memory and spool of each, the commands of an administrator, the time from a client to another next
# hop before and with the full queue, a configuration that routes all of it anew, and a restart, by
# SIGTERM and by SIGKILL. Prints the figures and writes build/bench/queue-TIME.json; see
# bench/README.md for how to read them.
#
# Environment: MESSAGES=1000000, SIZE=512, CONNECTIONS=64, TRIPS=1000 messages to the other next hop
# each time, SPOOL=the folder to make the spool in (TMPDIR; 5 KB a message), and VARIANT, POSTERN,
# BENCH as in bench/common/setup.sh. Exit: 0, or 1 when a message was lost.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

[ $# -eq 0 ] || {
	sed -n '4,14s/^# \{0,1\}//p' "$0" >&2
	exit 2
}

# shellcheck source=bench/common/setup.sh
. bench/common/setup.sh

spool=$(mktemp -d "${SPOOL:-$dir}/spool.XXXXXX")
trap 'rm -rf "$spool"; cleanup' EXIT
WORKERS=1 environment >"$dir/environment.json"
mkdir -p build/bench
out=build/bench/queue-$(date -u +%Y%m%d-%H%M%S).json
/usr/bin/python3 bench/common/longqueue.py --postern "$POSTERN" --load "$BENCH/postern-load" --folder "$dir" \
	--spool "$spool" --messages "${MESSAGES:-1000000}" --size "${SIZE:-512}" \
	--connections "${CONNECTIONS:-64}" --trips "${TRIPS:-1000}" --out "$out"
