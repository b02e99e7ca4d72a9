#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# power.sh [--rounds N] [--jobs N] [--seed N] [--postern PATH | --model WORD] [--durability WORD]
#          [--deliver WORD] [--up MS] [--kernel WORD] [--plain-disk] [--hold] [--expect-loss]
#
# Cuts the power of a machine N times (50) while its relay takes mail at full speed, and counts in
# the end: whatever was acknowledged must have come, once and unspoiled (see crash.c, ledger.h).
#
# The machine is User-Mode Linux with an ext4 file system on a disk of its own; relay, sender and
# next hop run in it. A cut is SIGKILL for the machine: what its kernel had in memory is gone, and
# of what the disk had in its cache since the last flush a part by lot is there, in any order and
# torn between sectors (brittle.c). What was acknowledged and what was taken goes to a file of the
# host before anybody acts on it, line by line.
#
#   --plain-disk   a disk without a cache: whatever reached it stays
#   --hold         no cut: the disk holds flushes for a while, in which nothing may be acknowledged
#   --jobs         machines beside one another (2), each with its part of the rounds
#   --up           a machine runs so many ms under load at the most (1500)
#   --kernel       as of uml.sh (newest, which is quicker than 6.1)
#   --expect-loss  well is only what loses something: to show that a cut is one (--model unflushed,
#                  --durability relaxed). What was delivered before a cut is not lost by it, and a disk
#                  may keep all, so a machine that lost nothing is followed by another, by five at the
#                  most.
# --model, --durability and --deliver are for crash, which says what they are.
#
# Last line: "N passed, N failed, N skipped", a machine each. Exit: 0 none failed, 1 some did, 77 it
# cannot be run here.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."

given=("$@") more=${POWER_MORE:-5}
kernel=newest rounds=50 jobs=2 up=1500 seed=$((RANDOM * 32768 + RANDOM)) expect=0 disk=brittle hold=
crash=$PWD/build/release/crash/crash
program=(--postern "$PWD/build/release/postern")
words=()
while [ $# -gt 0 ]; do
	case $1 in
	--plain-disk | --hold)
		[ "$1" = --hold ] && hold=1 || disk=plain
		shift
		continue
		;;
	--expect-loss)
		expect=1
		words+=(--patience 10)
		shift
		continue
		;;
	--kernel) kernel=$2 ;;
	--rounds) rounds=$2 ;;
	--jobs) jobs=$2 ;;
	--up) up=$2 ;;
	--seed) seed=$2 ;;
	--postern | --model) program=("$1" "$2") ;;
	--durability | --deliver) words+=("$1" "$2") ;;
	*)
		sed -n '4,5s/^# \{0,1\}//p' "$0" >&2
		exit 2
		;;
	esac
	shift 2
done

[ $((rounds / jobs)) -lt 1600 ] || {
	echo "too many rounds for one machine: the ledger has no numbers for them" >&2
	exit 2
}
[ -x "$crash" ] || {
	echo "$crash is missing: make crash-bins"
	exit 77
}
mkfs=$(PATH=$PATH:/usr/sbin:/sbin command -v mkfs.ext4) || {
	echo "there is no mkfs.ext4 here"
	exit 77
}

# Disks where a flush is quick; what the last life reads where it can see it.
base=${TMPDIR:-/tmp}
[ ! -w /dev/shm ] || base=/dev/shm
disks=$(mktemp -d "$base/postern-power.XXXXXX")
mkdir -p build/crash
dir=$(mktemp -d "$PWD/build/crash/power.XXXXXX")
machine=''
cleanup() {
	# shellcheck disable=SC2086 # words
	[ -z "$machine" ] || kill -TERM $machine 2>/dev/null || true
	wait || true
	rm -rf "$disks"
	[ -n "${keep:-}" ] || rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# guest JOB LIMIT JOURNAL WORD...: a boot of that machine
guest() {
	local job=$1 limit=$2 journal=$3
	shift 3
	local guest=(tests/crash/power-guest.sh)
	[ $disk = plain ] || guest+=(--brittle $((seed + RANDOM)))
	exec tests/kernels/uml.sh --kernel "$kernel" --mem 512M --timeout "$limit" --disk "$disks/$job.img" \
		--channel "$journal" --log "$dir/$job.console" -- \
		"${guest[@]}" "$crash" "${program[@]}" ${words[@]+"${words[@]}"} "$@"
}

# cut JOB ROUND: boots, waits until mail flows and a while longer, cuts. Each life has numbers of
# its own.
cut() {
	local job=$1 round=$2 out=$dir/$1.out tries
	RANDOM=$(((seed + job * 7919 + round * 104729) % 32768))
	: >"$out"
	guest "$job" 120 "$dir/$job.journal.$(printf %05d "$round")" --journal /dev/ttyS2 \
		--seed $((seed + round)) --connections 16 --first-id $((round * 20000)) \
		--cut 100 >"$out" 2>&1 &
	machine=$!
	for ((tries = 2000; tries > 0; tries--)); do
		! grep -q '^running' "$out" || break
		kill -0 "$machine" 2>/dev/null || break
		sleep 0.05
	done
	sleep "$(awk -v ms=$((RANDOM % up + 20)) 'BEGIN { print ms / 1000 }')"
	kill -TERM "$machine" 2>/dev/null || true
	wait "$machine" || true
	machine=''
	grep -q '^running' "$out"
}

# one JOB ROUNDS: all of a machine; its last word is how it went, in the bits of run.h.
one() {
	local job=$1 count=$2 round status=0
	trap '[ -z "$machine" ] || kill -TERM "$machine"; exit 1' TERM
	truncate -s 384M "$disks/$job.img"
	"$mkfs" -q -F -E lazy_itable_init=0 "$disks/$job.img"
	if [ -n "$hold" ]; then
		(guest "$job" 120 /dev/null --seed "$seed" --connections 16 --hold) || status=$?
		echo "$status" >"$dir/$job.status"
		return
	fi
	for ((round = 0; round < count; round++)); do
		cut "$job" "$round" || {
			echo "machine $job, round $round:"
			tail -n 30 "$dir/$job.out"
			echo 4 >"$dir/$job.status"
			return
		}
	done
	(guest "$job" 300 /dev/null --rounds "$count" --seed "$seed" \
		--first-id $((count * 20000)) --last "$dir/$job".journal.*) || status=$?
	echo "$status" >"$dir/$job.status"
}

for ((job = 0; job < jobs; job++)); do
	one "$job" $((rounds / jobs + (job < rounds % jobs))) &
	machine+=" $!"
done
wait

passed=0 failed=0 skipped=0 lossless=''
for ((job = 0; job < jobs; job++)); do
	status=$(cat "$dir/$job.status")
	if [ "$status" = 77 ]; then
		skipped=$((skipped + 1))
	elif [ $((status & ~1)) = 0 ] && [ "$status" = "$expect" ]; then
		passed=$((passed + 1))
	else
		[ "$expect$status" != 10 ] || lossless=1
		failed=$((failed + 1))
		keep=1
		echo "FAILED machine $job (status $status, seed $seed): see $dir"
	fi
done
if [ -n "$lossless" ] && [ "$more" -gt 0 ]; then
	keep=''
	machine=''
	cleanup
	echo "nothing lost: once more"
	POWER_MORE=$((more - 1)) exec tests/crash/power.sh "${given[@]}" --seed $((seed + 1000003))
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
