#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# qemu.sh [--kernel debian12|debian13|newest] [--icount] [--insns] [--smp N] [--mem SIZE]
#         [--timeout SECONDS] [--file PATH]... [--append ARGS] [--log FILE] -- COMMAND ARGS...
#
# Runs COMMAND as root under QEMU, with the processor emulated and a Debian cloud kernel, and exits
# with its status. No privileges are needed, nor anything special of the machine's own kernel.
#
#   --kernel   debian12 (6.1, the default), debian13 (6.12) or newest (7.2 or later): see fetch.sh
#   --icount   one processor, and a clock that advances by 1 ns per instruction executed
#   --insns    the same, and print on standard error how many instructions COMMAND took
#   --smp      processors, default 2
#   --mem      memory of the guest, default 1G; all files of the guest are in it
#   --timeout  wall-clock limit for everything after the fetch, default 300
#   --file     also give the guest this file or folder, at its own absolute path; may be repeated
#   --append   further arguments for the kernel
#   --log      keep the kernel's messages in this file
#
# Inside there is only COMMAND, what --file names, the libraries and interpreters of both, a few
# files of /etc, and busybox's commands; all else must be named. It can be written, and is gone at the
# end. /proc, /sys, /dev, bpf and cgroup2 file systems are mounted, and lo is up. The working
# directory is the current one, empty but for what was named. The environment is PATH, the variables
# POSTERN_*, the sanitizers' *SAN_OPTIONS, TMPDIR=/tmp and HOME=/tmp. Standard input is empty.
#
# Standard output carries COMMAND's standard output and error together, nothing else. When COMMAND
# ends, the machine is switched off.
#
# Exit status: COMMAND's own (127 if there is no such command); 77 with a reason on standard error
# if QEMU or the kernel cannot be had; 124 on timeout; 125 on wrong usage, or if the machine failed
# before COMMAND ended, with the end of its messages on standard error.
set -eu

here=$(cd "$(dirname "$0")" && pwd)

usage() {
    echo "qemu.sh: $1" >&2
    echo "usage: qemu.sh [--kernel debian12|debian13|newest] [--icount] [--insns] [--smp N]" \
        "[--mem SIZE] [--timeout SECONDS] [--file PATH]... [--append ARGS] [--log FILE]" \
        "-- COMMAND ARGS..." >&2
    exit 125
}

skip() {
    echo "qemu.sh: $*" >&2
    exit 77
}

kernel=debian12
icount=
insns=
smp=2
mem=1G
limit=300
named=()
append=
keep=
while [ $# -gt 0 ]; do
    case $1 in
    --)
        shift
        break
        ;;
    --icount)
        icount=1
        shift
        ;;
    --insns)
        icount=1
        insns=1
        shift
        ;;
    --kernel | --smp | --mem | --timeout | --file | --append | --log)
        [ $# -ge 2 ] || usage "$1 needs a value"
        case $1 in
        --kernel) kernel=$2 ;;
        --smp) smp=$2 ;;
        --mem) mem=$2 ;;
        --timeout) limit=$2 ;;
        --file)
            [ -e "$2" ] || usage "no such file: $2"
            named+=("$(realpath -s "$2")")
            ;;
        --append) append=$2 ;;
        --log) keep=$2 ;;
        esac
        shift 2
        ;;
    *) usage "unknown option $1" ;;
    esac
done
[ $# -gt 0 ] || usage "no command"
[[ $kernel =~ ^(debian12|debian13|newest)$ ]] || usage "no such kernel: $kernel"
[[ $smp =~ ^[1-9][0-9]*$ ]] || usage "not a number of processors: $smp"
[[ $mem =~ ^[1-9][0-9]*[MG]$ ]] || usage "not a size in M or G: $mem"
[[ $limit =~ ^[1-9][0-9]*$ ]] || usage "not a number of seconds: $limit"
[ -z "$keep" ] || : >"$keep"
[ -z "$icount" ] || smp=1

for tool in qemu-system-x86_64 busybox cpio xz ldd; do
    command -v $tool >/dev/null || skip "$tool is not installed"
done
folder=$("$here/fetch.sh" linux "$kernel") || exit

base=${TMPDIR:-/tmp}
[[ $base = /* && -d $base && -w $base && ! $base =~ [[:space:],] ]] || base=/tmp
run=$(mktemp -d "$base/qemu.XXXXXX")
qemu=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    if [ -n "$qemu" ]; then
        kill -TERM "$qemu" 2>/dev/null || true
        wait "$qemu" || true
    fi
    rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The guest's files are gathered in $tree.
tree=$run/tree
mkdir -p "$tree"/{dev,proc,sys,run,tmp,var/tmp,etc,usr/bin,usr/sbin,usr/lib,usr/lib64,postern}
ln -s /run "$tree/var/run"
for dir in bin sbin lib lib64; do
    if [ -L /$dir ]; then
        ln -s usr/$dir "$tree/$dir"
    else
        mkdir "$tree/$dir"
    fi
done

# add PATH: the file or folder, all it links to, and the libraries and interpreter that it needs.
add() {
    local path=$1 target
    if [ -e "$tree$path" ] || [ -L "$tree$path" ]; then
        return
    fi
    mkdir -p "$tree${path%/*}"
    if [ -L "$path" ]; then
        target=$(readlink "$path")
        cp -P "$path" "$tree$path"
        [[ $target = /* ]] || target=$(realpath -sm "${path%/*}/$target")
        add "$target"
    elif [ -d "$path" ]; then
        cp -a "$path" "$tree$path"
        while read -r target; do
            add_needs "$target"
        done < <(find "$path" -type f \( -perm /111 -o -name '*.so*' \))
    elif [ -e "$path" ]; then
        cp -p "$path" "$tree$path"
        add_needs "$path"
    fi
}

add_needs() {
    local magic words lib
    magic=$(head -c 4 "$1" | tr -d '\0')
    case $magic in
    $'\177ELF')
        while read -r lib; do
            add "$lib"
        done < <(ldd "$1" 2>/dev/null | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p')
        ;;
    '#!'*)
        read -ra words < <(head -n 1 "$1" | sed 's/^#! *//')
        add "${words[0]}"
        if [ "${words[0]##*/}" = env ] && [ -n "${words[1]-}" ]; then
            add "$(command -v "${words[1]}" || echo /none)"
        fi
        ;;
    esac
}

# The command by its absolute path, if there is one; its name in the guest otherwise.
program=$(type -P -- "$1" || echo "$1")
[[ $program != */* ]] || program=$(realpath -s "$program")
shift
for path in "$program" ${named[@]+"${named[@]}"} "$(type -P busybox)" /etc/passwd /etc/group \
    /etc/hosts /etc/nsswitch.conf /etc/protocols /etc/services /etc/ssl/openssl.cnf \
    /usr/lib/ssl/openssl.cnf /usr/lib/x86_64-linux-gnu/libgcc_s.so.1; do
    [ ! -e "$path" ] || add "$path"
done
mkdir -p "$tree$PWD"

# Drivers first, then what the relay and its tests use, as far as this kernel has it.
: >"$tree/postern/modules"
while read -r file; do
    name=${file##*/}
    name=${name%.xz}
    case $file in
    *.xz) xz -dc "$file" >"$tree/postern/$name" ;;
    *) cp "$file" "$tree/postern/$name" ;;
    esac
    echo "/postern/$name" >>"$tree/postern/modules"
done < <("$here/module-order.sh" "$(echo "$folder"/lib/modules/*)" virtio_pci virtio_console ipv6 \
    aesni-intel ghash-clmulni-intel tls gcm ccm cmac ctr ghash-generic chacha chacha20poly1305 \
    chacha-x86_64 poly1305-x86_64 chacha_generic poly1305_generic inet_diag tcp_diag unix_diag \
    veth dummy loop)

# One word a line for the guest's shell, quoted for it.
quote() {
    local word
    for word in "$@"; do
        printf "'%s' " "${word//\'/\'\\\'\'}"
    done
}
names=$(compgen -e | grep -E '^(PATH|POSTERN_.*|[A-Z]+SAN_OPTIONS)$' || true)
{
    printf 'cd %s\n' "$(quote "$PWD")"
    printf 'exec env -i HOME=/tmp TMPDIR=/tmp USER=root LANG=C.UTF-8 TERM=dumb '
    for name in $names; do
        quote "$name=${!name}"
    done
    quote "$program" "$@"
    printf '\n'
} >"$tree/postern/command"
cp "$here/qemu-init.sh" "$tree/init"
chmod 755 "$tree/init"
(cd "$tree" && find . | cpio --quiet -o -H newc -R 0:0) >"$run/initrd"
rm -rf "$tree"

# First port: the output. Second: the status. Serial line: the kernel's messages. A reboot by triple
# fault is how the guest ends.
# shellcheck disable=SC2054 # the commas are QEMU's
options=(-M q35,vmport=off,smbus=off,sata=off,usb=off -accel tcg -cpu max -smp "$smp" -m "$mem"
    -nodefaults -no-user-config -no-reboot -display none
    -kernel "$folder/vmlinuz" -initrd "$run/initrd"
    -chardev "file,id=console,path=$run/console" -serial chardev:console -device virtio-serial-pci
    -chardev "file,id=out,path=$run/out" -device virtserialport,chardev=out,nr=1
    -chardev "file,id=status,path=$run/status" -device virtserialport,chardev=status,nr=2)
args="console=ttyS0 quiet reboot=t panic=-1 tsc=reliable random.trust_cpu=on"
if [ -n "$icount" ]; then
    options+=(-icount "shift=0,sleep=off" -seed 1)
    args="$args nokaslr norandmaps postern.settle"
fi
[ -z "$insns" ] || args="$args postern.insns"

deathsig=
if command -v setpriv >/dev/null; then
    deathsig="setpriv --pdeathsig TERM"
fi
mkfifo "$run/out"
cat "$run/out" &
cat=$!
exec 4>"$run/out"
SECONDS=0
# shellcheck disable=SC2086 # words
$deathsig timeout -k 5 "$limit" qemu-system-x86_64 "${options[@]}" -append "$args $append" \
    </dev/null >"$run/own" 2>&1 4>&- &
qemu=$!
status=0
wait $qemu || status=$?
took=$SECONDS
qemu=
exec 4>&-
wait $cat || true

[ -z "$keep" ] || cat "$run/console" >"$keep"
read -r result count <"$run/status" || true
if [ -n "${result-}" ]; then
    [ -z "$insns" ] || echo "qemu.sh: $count instructions" >&2
    exit "$result"
fi
if [ "$status" = 124 ] || [ "$took" -ge "$limit" ]; then
    echo "qemu.sh: killed after $limit s" >&2
    exit 124
fi
{
    echo "qemu.sh: the machine ended without a status; its last messages:"
    tail -n 20 "$run/own"
    tail -n 60 "$run/console"
} >&2
exit 125
