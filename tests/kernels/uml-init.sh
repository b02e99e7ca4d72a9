#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# First process of the guest that uml.sh starts; never run by hand. $UML_RUN/guest, written by
# uml.sh, sets project, cwd, modules, and the arrays command and environment. The output goes to the
# first serial line and the exit status, when all output is through, to the second.
set -u
never=/run/never # a pipe that nobody writes to
declare project cwd modules command environment

# A pipe lies between the command and the line, so that it does not see a terminal.
run_command() {
    local out status left
    mkfifo "$never"
    exec {out}> >(exec cat >/dev/ttyS0)
    left=$!
    (
        ulimit -c 0
        exec env -i HOME=/tmp TMPDIR=/tmp USER=root LANG=C.UTF-8 TERM=dumb \
            ${GLIBC_TUNABLES+"GLIBC_TUNABLES=$GLIBC_TUNABLES"} "${environment[@]}" "${command[@]}"
    ) </dev/null >&"$out" 2>&1 {out}>&-
    status=$?
    exec {out}>&-
    kill_all_but "$left"
    echo "$status" >/dev/ttyS1
}

# Kills all but this process and $1, which ends when the others are gone and its input is read.
kill_all_but() {
    local dir pid
    while kill -0 "$1" 2>/dev/null; do
        for dir in /proc/[0-9]*; do
            pid=${dir#/proc/}
            if [ "$pid" != $$ ] && [ "$pid" != "$1" ]; then
                kill -KILL "$pid" 2>/dev/null
            fi
        done
        read -rt 0.05 <>"$never"
    done
}

# Mounts the host's folder $1 at its own path, writable.
mount_writable() {
    case $1 in
    / | /tmp | /var/tmp | /run | /dev | /dev/* | /proc | /proc/* | /sys | /sys/*) return ;;
    esac
    mkdir -p "$1" && mount -t hostfs -o "$1" none "$1"
}

mount_all() {
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mount -t devtmpfs dev /dev
    mkdir -p /dev/pts /dev/shm
    mount -t devpts -o mode=0620,ptmxmode=0666 devpts /dev/pts
    ln -sfn /proc/self/fd /dev/fd
    ln -sfn /proc/self/fd/0 /dev/stdin
    ln -sfn /proc/self/fd/1 /dev/stdout
    ln -sfn /proc/self/fd/2 /dev/stderr
    local dir
    for dir in /dev/shm /tmp /var/tmp; do
        mount -t tmpfs -o mode=1777 tmpfs $dir
    done
    mount -t tmpfs -o mode=0755 tmpfs /run
    mkdir -p /run/lock
    mount -t bpf bpf /sys/fs/bpf
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    case $cwd/ in
    "$project"/*) mount_writable "$project" ;;
    *)
        mount_writable "$cwd"
        case $project/ in
        "$cwd"/*) ;;
        *) mount_writable "$project" ;;
        esac
        ;;
    esac
}

# One process for all, since each costs some 15 ms here. finit_module() is 313; a module that is
# there already, or that this kernel does not take, is no failure.
load_modules() {
    perl -e 'my $none = ""; for (@ARGV) { open(F, "<", $_) && syscall(313, fileno(F), $none, 0) }' \
        "${modules[@]}"
}

main() {
    local PATH=/usr/sbin:/usr/bin:/sbin:/bin
    # shellcheck source=/dev/null
    . "$UML_RUN/guest"
    mount_all
    stty -F /dev/ttyS0 raw -echo
    stty -F /dev/ttyS1 raw -echo
    echo localhost >/proc/sys/kernel/hostname
    load_modules
    ip link set lo up
    ulimit -n 1048576
    ulimit -Sn 65536
    cd "$cwd" || cd /
    run_command
    # reboot(LINUX_REBOOT_CMD_POWER_OFF)
    perl -e 'syscall(169, 0xfee1dead, 672274793, 0x4321fedc, 0)'
    echo o >/proc/sysrq-trigger
}

main
