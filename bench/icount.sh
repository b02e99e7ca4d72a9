#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# icount.sh [--quick] [--cipher aes256|aes128|chacha20] [--json FILE] [debian12|debian13|newest]
#
# Kernel against userspace records, in instructions, by leg and direction; see bench/README.md.
#
# QEMU counts: with -icount one nanosecond of the guest's time is one instruction, kernel included,
# so the figures do not depend on this machine or on what else it does. They say nothing of caches
# or of how many instructions a cycle does. --quick leaves out the single directions. Writes
# build/bench/icount-KERNEL-CIPHER.{raw,json}; --json also FILE. Exit: 0, 1 failed, 2 wrong usage, 77
# QEMU or the kernel cannot be had.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
kernel=debian13 cipher=aes256 json=''
rows=(off:off tx:off rx:off on:off auto:off off:tx off:rx off:on off:auto on:on auto:auto)
usage() {
	echo "usage: icount.sh [--quick] [--cipher aes256|aes128|chacha20] [--json FILE]" \
		"[debian12|debian13|newest]" >&2
	exit 2
}
while [ $# -gt 0 ]; do
	case $1 in
	--quick) rows=(off:off on:off off:on on:on auto:auto) ;;
	--cipher | --json)
		[ $# -ge 2 ] || usage
		if [ "$1" = --cipher ]; then cipher=$2; else json=$2; fi
		shift
		;;
	debian12 | debian13 | newest) kernel=$1 ;;
	*) usage ;;
	esac
	shift
done
case $cipher in
aes256) suite=TLS_AES_256_GCM_SHA384 ;;
aes128) suite=TLS_AES_128_GCM_SHA256 ;;
chacha20) suite=TLS_CHACHA20_POLY1305_SHA256 ;;
*) usage ;;
esac
build=$PWD/build/${VARIANT:-release}
pki=$PWD/build/pki
out=build/bench/icount-$kernel-$cipher

tests/pki.sh "$pki"
mkdir -p build/bench
raw=$(mktemp "$out.XXXXXX")
trap 'rm -f "$raw"' EXIT
files=()
for name in postern bench/postern-load bench/postern-sink; do
	files+=(--file "$build/$name")
done
tests/kernels/qemu.sh --kernel "$kernel" --icount --timeout 3000 "${files[@]}" --file "$pki" \
	--file "$PWD/bench/icount-guest.sh" \
	-- busybox sh "$PWD/bench/icount-guest.sh" "$build" "$pki" "$suite" "${rows[@]}" \
	>"$raw" || {
	status=$?
	cat "$raw" >&2
	exit $status
}
cp "$raw" "$out.raw"
/usr/bin/python3 bench/common/icount_report.py --kernel "$kernel" --suite "$suite" \
	--out "$out.json" ${json:+--out "$json"} "$raw"
