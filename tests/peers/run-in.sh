#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# run-in.sh [--packages bench] [--bind DIR:AT]... [--pidfile FILE] [--cgroup DIR] COMMAND [ARG...]
#
# Runs COMMAND on a root file system that is this machine's plus the packages of build/peers/root,
# or with --packages bench those of build/peers/bench (setup.sh), as root, in the caller's network
# namespace.
#
# The root is an overlay in a private mount namespace: below it the machine's root, above it a
# tmpfs with the packages and with the accounts of the mail systems and peer. What
# COMMAND writes there is gone with it. Shared with the machine, at the same paths: the project
# tree, /dev and /sys; and each DIR of --bind at AT. The working directory is kept where it exists.
#
# COMMAND lives in a process namespace of its own, whose process 1 is this script: when COMMAND
# ends, or when run-in.sh is killed, whatever the signal, the kernel ends all that COMMAND
# started, and the mounts go with the last process. Nothing is left behind but the empty folder
# build/peers/mnt. FILE receives COMMAND's process id as the caller sees it. COMMAND and its
# children are in the control group whose folder is --cgroup.
#
# Exit: COMMAND's status; 77 with the reason on stderr where this cannot be done (not root, no
# namespaces, no overlay file system); 1 if setup.sh fails; 2 wrong usage.

set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
case ${1:-} in
--keep | --inside) here=${BASH_SOURCE[0]%/*} ;; # called from here, by absolute path
*) here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) ;;
esac
top=${here%/tests/peers}
peers=$top/build/peers
mnt=$peers/mnt

cannot() { echo "peers/run-in.sh: cannot run peers here: $*" >&2; exit 77; }
usage() { echo "usage: run-in.sh [--bind DIR:AT]... [--pidfile FILE] COMMAND [ARG...]" >&2; exit 2; }

outside() {
	[ $# -gt 0 ] || usage
	[ "$(id -u)" = 0 ] || cannot "not root"
	if [ "$1" = --packages ]; then "$here/setup.sh" "$2"; else "$here/setup.sh"; fi
	mkdir -p "$mnt"

	# In a plain chroot "/" is no mount point and its propagation cannot be set; inside() then
	# makes sure that nothing can propagate.
	local space=(-m) why
	if ! unshare -m true 2>/dev/null; then
		space=(-m --propagation unchanged)
		why=$(unshare "${space[@]}" true 2>&1) || cannot "$why"
	fi
	why=$(unshare "${space[@]}" -p -f true 2>&1) || cannot "$why"
	exec unshare "${space[@]}" -p bash "$here/run-in.sh" --keep "$@"
}

# attend COMMAND...: runs it as a child, hands SIGTERM on to it, ends with its status.
attend() {
	local child status=0
	"$@" <&0 &
	child=$!
	trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
	while :; do
		status=0
		{ wait "$child" || status=$?; } 2>/dev/null
		kill -0 "$child" 2>/dev/null || break # else the wait was only interrupted
	done
	exit "$status"
}

# keep: the first process that it forks is process 1 of the new namespace, so it must fork no
# other; that one dies with it.
keep() {
	attend setpriv --pdeathsig KILL bash "$here/run-in.sh" --inside "$@"
}

# account NAME ID [GROUP-ONLY]: unless the machine has it already
account() {
	grep -q "^$1:" "$root/etc/group" || echo "$1:x:$2:" >>"$root/etc/group"
	[ $# -eq 2 ] || return 0
	grep -q "^$1:" "$root/etc/passwd" ||
		echo "$1:x:$2:$2::/nonexistent:/usr/sbin/nologin" >>"$root/etc/passwd"
}

bind() { # DIR AT
	mkdir -p "$root$2"
	mount --rbind "$1" "$root$2" || cannot "cannot bind $1"
}

inside() {
	local binds=() pidfile='' cgroup='' packages=root b why cwd=$PWD
	while [ $# -gt 0 ]; do
		case $1 in
		--packages) packages=$2 && shift 2 ;;
		--cgroup) cgroup=$2 && shift 2 ;;
		--bind) binds+=("$2") && shift 2 ;;
		--pidfile) pidfile=$2 && shift 2 ;;
		--*) usage ;;
		*) break ;;
		esac
	done
	[ $# -gt 0 ] || usage

	why=$(mount -t tmpfs -o mode=755 peers "$mnt" 2>&1) || cannot "$why"
	if awk -v at="$mnt" '$5 == at && / shared:/ { found = 1 } END { exit !found }' /proc/self/mountinfo; then
		umount "$mnt"
		cannot "mounts would be seen outside"
	fi
	root=$mnt/root
	mkdir "$mnt/upper" "$mnt/work" "$root"
	cp -a "$peers/$packages/." "$mnt/upper/"
	# The mail systems' own users may not be able to enter the folder that this project lies in.
	install -D -m 755 "$here/deliver.sh" "$mnt/upper/usr/lib/peers/deliver.sh"
	why=$(mount -t overlay -o "lowerdir=/,upperdir=$mnt/upper,workdir=$mnt/work" peers "$root" 2>&1) ||
		cannot "no overlay file system: $why"

	# Ids that Debian assigns to nobody (Policy 9.2: 60000-64999 are handed out one by one).
	account postfix 61001
	account postdrop 61002 group-only
	account Debian-exim 61003
	account peer 61004
	account opensmtpd 61005
	account opensmtpq 61006
	if [ "$packages" = root ]; then
		chroot "$root" chgrp postdrop /usr/sbin/post{drop,queue}
		chmod g+s "$root/usr/sbin/"post{drop,queue}
		chmod u+s "$root/usr/sbin/exim4" # it drops root to receive, and needs it again to deliver
	fi

	bind "$top" "$top"
	bind /dev /dev
	bind /sys /sys
	mount -t proc proc "$root/proc" || cannot "cannot mount /proc"
	for b in "${binds[@]}"; do
		bind "${b%:*}" "${b##*:}"
	done
	[ -d "$root$cwd" ] || cwd=/
	# Not by exec: mail servers change their user, and the kernel then forgets the death signal.
	attend enter "$@"
}

enter() {
	local pid
	if [ -n "$pidfile" ]; then
		read -r pid _ </proc/self/stat # the caller's /proc, so the caller's number
		echo "$pid" >"$pidfile"
	fi
	[ -z "$cgroup" ] || echo 0 >"$cgroup/cgroup.procs"
	exec chroot "$root" env -C "$cwd" "$@"
}

case ${1:-} in
--keep) keep "${@:2}" ;;
--inside) inside "${@:2}" ;;
*) outside "$@" ;;
esac
