#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# uml.sh [--kernel debian12|debian13|newest] [--mem SIZE] [--timeout SECONDS] [--log FILE]
#        [--disk FILE] [--channel FILE] -- COMMAND ARGS...
#
# Runs COMMAND as root in User-Mode Linux, from the current directory, and exits with its status.
# No privileges are needed, and the machine's own kernel needs nothing special.
#
#   --kernel   debian12 (6.1, the default: the installed package user-mode-linux if it is a 6.1, else
#              fetched), debian13 (6.12) or newest (sid's, 7.2 or later): see fetch.sh
#   --mem      memory of the guest, default 1G; the host gives only what is touched
#   --timeout  wall-clock limit for everything after the fetch, default 300
#   --log      keep the kernel's messages in this file
#   --disk     this file is /dev/ubda; it has no cache of its own: what the guest's kernel wrote to
#              it stays if the guest is killed, and what that still had in memory does not
#   --channel  what is written to /dev/ttyS2 is appended to this file at once
#
# SIGTERM kills the guest in the middle of whatever it does, as if its power were cut.
#
# Inside, the machine's files are visible at the same paths but read-only, except the project's
# folder and the current directory, which may be written. /tmp, /var/tmp, /run and /dev/shm are
# empty and in memory, /dev, /proc, /sys and the bpf and cgroup2 file systems are the guest's own,
# and lo is up. The environment is PATH, the variables POSTERN_*, the sanitizers' *SAN_OPTIONS,
# TMPDIR=/tmp and HOME=/tmp, and GLIBC_TUNABLES where the processor needs it. Standard input is
# empty.
#
# Standard output carries COMMAND's standard output and error together, nothing else. When COMMAND
# ends, whatever it left running is killed.
#
# On a processor with AMX the first two kernels need a C compiler, for xstate.c.
#
# Exit status: COMMAND's own (127 if there is no such command); 77 with a reason on standard error
# if the kernel cannot be had; 124 on timeout; 125 on wrong usage, or if the kernel failed before
# COMMAND ended, with the end of its messages on standard error.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
project=${here%/*/*}

usage() {
    echo "uml.sh: $1" >&2
    echo "usage: uml.sh [--kernel debian12|debian13|newest] [--mem SIZE] [--timeout SECONDS]" \
        "[--log FILE] [--disk FILE] [--channel FILE] -- COMMAND ARGS..." >&2
    exit 125
}

kernel=debian12
mem=1G
limit=300
keep=
disk=
channel=/dev/null
while [ $# -gt 0 ]; do
    case $1 in
    --)
        shift
        break
        ;;
    --kernel | --mem | --timeout | --log | --disk | --channel)
        [ $# -ge 2 ] || usage "$1 needs a value"
        case $1 in
        --disk) disk="ubd0=$(realpath "$2")" ;;
        --channel) channel=$2 ;;
        --kernel) kernel=$2 ;;
        --mem) mem=$2 ;;
        --timeout) limit=$2 ;;
        --log) keep=$2 ;;
        esac
        shift 2
        ;;
    *) usage "unknown option $1" ;;
    esac
done
[ $# -gt 0 ] || usage "no command"
[[ $kernel =~ ^(debian12|debian13|newest)$ ]] || usage "no such kernel: $kernel"
[[ $mem =~ ^[1-9][0-9]*[MG]$ ]] || usage "not a size in M or G: $mem"
[[ $limit =~ ^[1-9][0-9]*$ ]] || usage "not a number of seconds: $limit"
[ -z "$keep" ] || : >"$keep"

# The program, its working directory, its modules.
[ "$(uname -m)" = x86_64 ] || {
    echo "uml.sh: needs an x86-64 machine" >&2
    exit 77
}
program=$(command -v linux.uml || true)
folder=/
modules=/usr/lib/uml/modules
libs=
installed=$(echo $modules/6.1.*/modules.dep)
if [ "$kernel" != debian12 ] || [ -z "$program" ] || [ ! -e "$installed" ]; then
    folder=$("$here/fetch.sh" uml "$kernel") || exit
    program=./linux.uml
    modules=$folder/lib/modules
    libs=LD_LIBRARY_PATH=$folder/lib64
fi

base=${TMPDIR:-/tmp}
[[ $base = /* && -d $base && -w $base && ! $base =~ [[:space:],] ]] || base=/tmp
run=$(mktemp -d "$base/uml.XXXXXX")
uml=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    if [ -n "$uml" ]; then
        kill -TERM "$uml" 2>/dev/null || true
        wait "$uml" || true
    fi
    rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The older kernels have no room for AMX registers: see xstate.c. And the frame of a signal there
# holds AVX registers but nothing of AVX-512, so that a handler spoils what it interrupts if libc
# uses that in both, as for strlen(): in this guest libc does not.
tunables=
if [ "$kernel" != newest ]; then
    if grep -qw amx_tile /proc/cpuinfo; then
        cc -std=gnu17 -D_GNU_SOURCE -O2 -fPIC -shared -o "$run/xstate.so" \
            "$here/xstate.c" >&2 || {
            echo "uml.sh: on a processor with AMX, $kernel needs a C compiler" >&2
            exit 77
        }
        libs+=" LD_PRELOAD=$run/xstate.so"
    fi
    if grep -qw avx512f /proc/cpuinfo; then
        tunables=GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW
    fi
fi

# Guest memory is a file, unlinked at once, on a file system with room that lets code run.
memory=$run
need=${mem%?}
[ "${mem: -1}" = M ] || need=$((need * 1024))
room=$(df -Pm /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
if [ -w /dev/shm ] && [ "${room:-0}" -gt "$need" ] &&
    ! grep -q '^[^ ]* /dev/shm [^ ]* [^ ]*noexec' /proc/mounts; then
    memory=/dev/shm
fi

# What the relay and its tests use, as far as this kernel has it.
mapfile -t files < <("$here/module-order.sh" "$(echo "$modules"/*)" ipv6 tls gcm ccm cmac ctr \
    ghash-generic chacha chacha20poly1305 chacha_generic poly1305_generic inet_diag tcp_diag \
    unix_diag veth dummy loop nbd)

# What the guest's first process is to do, as bash variables.
names=$(compgen -e | grep -E '^(PATH|POSTERN_.*|[A-Z]+SAN_OPTIONS)$' || true)
{
    printf 'project=%q\ncwd=%q\nmodules=(' "$project" "$PWD"
    printf '%q ' "${files[@]}"
    printf ')\ncommand=('
    printf '%q ' "$@"
    printf ')\nenvironment=('
    for name in $names; do
        printf '%q ' "$name=${!name}"
    done
    printf ')\n'
} >"$run/guest"
cp "$here/uml-init.sh" "$run/init"
chmod 755 "$run/init"

# It has one CPU, and its kernel and its processes take turns, so keeping all on one of the host's
# makes it two to three times faster.
pin=
if command -v taskset >/dev/null; then
    mapfile -t cpus < <(taskset -cp $$ | sed 's/.*: //' | tr ',' '\n' |
        awk -F- '{ for (i = $1; i <= $NF; i++) print i }')
    pin="taskset -c ${cpus[$(($$ % ${#cpus[@]}))]}"
fi

# First serial line: the output. Second: the status. Console: the kernel's messages. The program
# makes a session of its own with several helpers, which outlive it if it is killed, and may even if
# it is not. So a keeper kills that session in the end, or when it is told to: by timeout, by this
# script, or by the death of this script.
# shellcheck disable=SC2016 # for the keeper to expand
keeper='
    trap "exit 143" TERM
    "$@" &
    uml=$!
    trap "{ kill -KILL $uml; kill -KILL -- -$uml; } 2>/dev/null; wait" EXIT
    wait $uml'
deathsig=
if command -v setpriv >/dev/null; then
    deathsig="setpriv --pdeathsig TERM"
fi
mkfifo "$run/out"
cat "$run/out" &
cat=$!
exec 4>"$run/out" 6>>"$channel"
SECONDS=0
(
    cd "$folder"
    export TMPDIR=$memory
    # shellcheck disable=SC2086 # words
    exec $deathsig $pin timeout "$limit" bash -c "$keeper" keeper env $libs \
        "$program" "mem=$mem" root=/dev/root rootfstype=hostfs rootflags=/ ro \
        "init=$run/init" "UML_RUN=$run" $tunables \
        "uml_dir=$run" umid=uml devtmpfs.mount=0 seccomp=auto \
        con=null con0=null,fd:3 ssl=null ssl0=null,fd:4 ssl1=null,fd:5 ssl2=null,fd:6 $disk \
        </dev/null 3>"$run/console" 5>"$run/status" >"$run/own" 2>&1
) &
uml=$!
exec 4>&- 6>&-
wait $uml || true
took=$SECONDS
uml=
wait $cat || true

[ -z "$keep" ] || cat "$run/console" >"$keep"
status=$(tr -cd '0-9' <"$run/status")
if [ -n "$status" ]; then
    exit "$status"
fi
if [ "$took" -ge "$limit" ]; then
    echo "uml.sh: killed after $limit s" >&2
    exit 124
fi
{
    echo "uml.sh: the kernel ended without a status; its last messages:"
    tail -n 20 "$run/own"
    tail -n 60 "$run/console"
} >&2
exit 125
