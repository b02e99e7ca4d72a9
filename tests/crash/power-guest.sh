#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# power-guest.sh [--brittle SEED] CRASH ARGS...: what power.sh has its guest do: mounts the disk,
# runs crash on it. With --brittle the disk has a cache that loses what was not flushed (brittle.c).
#
# The journal's line is raw, so that every line goes out as it is written.
set -eu
folder=/tmp/disk
device=/dev/ubda
if [ "$1" = --brittle ]; then
	device=/dev/nbd0
	: >/tmp/brittle
	"${3%/*}/brittle" /dev/ubda $device "$2" >/tmp/brittle &
	export BRITTLE=$!
	until grep -q ready /tmp/brittle && [ "$(cat /sys/block/nbd0/size)" -gt 0 ]; do
		kill -0 "$BRITTLE"
		sleep 0.02
	done
	shift 2
fi
mkdir -p $folder
mount -t ext4 -o noatime $device $folder
stty -F /dev/ttyS2 raw -echo
status=0
"$@" --dir /tmp/crash --spool $folder/spool || status=$?
[ $status -lt 4 ] || tail -n 20 /tmp/crash/postern.log
umount $folder || true
exit $status
