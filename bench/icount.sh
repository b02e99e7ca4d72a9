#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# icount.sh [debian12|debian13|newest]: kernel against userspace records, in instructions.
#
# QEMU counts: with -icount one nanosecond of the guest's time is one instruction, kernel included,
# so the figures do not depend on this machine or on what else it does. They say nothing of caches
# or of how many instructions a cycle does. Handshakes are taken out by comparing a short run with a
# longer one. Prints instructions of the relay for each message and as a ratio to userspace records;
# writes build/bench/icount-KERNEL.txt. Exit: 0, 1 failed, 77 QEMU or the kernel cannot be had.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
kernel=${1:-debian13}
build=$PWD/build/${VARIANT:-release}
pki=$PWD/build/pki
out=build/bench/icount-$kernel.txt

tests/pki.sh "$pki"
mkdir -p build/bench
tests/kernels/qemu.sh --kernel "$kernel" --icount --timeout 3000 --file "$build/postern" \
	--file "$build/bench/load" --file "$build/bench/sink" --file "$pki" \
	--file "$PWD/bench/icount-guest.sh" \
	-- busybox sh "$PWD/bench/icount-guest.sh" "$build" "$pki" >"$out.raw" || {
	status=$?
	cat "$out.raw" >&2
	exit $status
}
awk -v kernel="$kernel" '
	BEGIN {
		print "instructions of the relay for a message, TLS 1.3 AES-256-GCM, both legs, BDAT, " kernel
		printf "%-6s %12s %8s %14s %8s\n", "ktls", "4 KiB", "ratio", "1 MiB", "ratio"
	}
	{
		key = $1 " " $2
		if (key in count) each[key] = ($4 - sum[key]) / ($3 - count[key])
		count[key] = $3
		sum[key] = $4
		if (!($1 in seen)) order[++n] = $1
		seen[$1] = 1
		record[$1] = $5
	}
	END {
		for (i = 1; i <= n; i++) {
			k = order[i]
			small = each[k " 4096"]
			large = each[k " 1048576"]
			printf "%-6s %12d %8.3f %14d %8.3f  record=%s\n", k, small,
				small / each["off 4096"], large, large / each["off 1048576"], record[k]
		}
	}' "$out.raw" | tee "$out"
