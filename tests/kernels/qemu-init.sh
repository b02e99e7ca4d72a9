#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
#
# shellcheck shell=dash disable=SC3045
#
# First process of the guest that qemu.sh starts; never run by hand. /postern/modules lists the
# modules to load, in order, and /postern/command is a script that runs the command. The output goes
# to the first virtio port, and the exit status, when all output is through, to the second, with the
# instructions taken if the kernel's command line says postern.insns.

PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /usr/bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts -o mode=0620,ptmxmode=0666 devpts /dev/pts
ln -sfn /proc/self/fd /dev/fd
ln -sfn /proc/self/fd/0 /dev/stdin
ln -sfn /proc/self/fd/1 /dev/stdout
ln -sfn /proc/self/fd/2 /dev/stderr
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
chmod 1777 /tmp /var/tmp
while read -r module; do
    insmod "$module"
done </postern/modules
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo localhost >/proc/sys/kernel/hostname
ip link set lo up
ulimit -c 0
ulimit -Hn 1048576
ulimit -Sn 65536

# The clock in ns, left in $now, read without another process.
read_clock() {
    while read -r word at now unit; do
        [ "$word $at $unit" = "now at nsecs" ] && break
    done </proc/timer_list
}

# run SCRIPT: runs it and leaves its status in $status and the time it took in $took.
run() {
    local start
    read_clock
    start=$now
    # In a subshell, so that what this shell has to say about it goes to the console.
    (exec sh "$1" </dev/null >/run/out 2>&1 3>&-)
    status=$?
    read_clock
    took=$((now - start))
}

# With counted instructions a sleep costs next to nothing, and the kernel's work after boot would
# disturb the count.
case " $(cat /proc/cmdline) " in
*" postern.settle "*) sleep 5 ;;
esac

out=/dev/vport0p1
mkfifo /run/out
cat /run/out >$out &
cat=$!
exec 3>/run/out
case " $(cat /proc/cmdline) " in
*" postern.insns "*)
    # What an empty command takes, the second time, is not the command's.
    echo 'exec env -i /bin/busybox true' >/postern/nothing
    run /postern/nothing
    run /postern/nothing
    empty=$took
    run /postern/command
    count=$((took - empty))
    ;;
*)
    run /postern/command
    count=
    ;;
esac
exec 3>&-

# Whatever the command left running still holds the pipe.
while kill -0 $cat 2>/dev/null; do
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        if [ "$pid" != $$ ] && [ "$pid" != $cat ]; then
            kill -9 "$pid" 2>/dev/null
        fi
    done
    usleep 20000
done
echo "$status $count" >/dev/vport0p2
reboot -f
