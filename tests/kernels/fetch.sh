#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# fetch.sh [--refresh] KIND TARGET
#
# Makes a Debian kernel available under build/kernels/KIND-TARGET and prints that folder's path.
# Nothing is installed on the machine: packages are downloaded with apt under a private
# configuration and only unpacked. The mirror is the one the machine's own apt uses.
#
#   KIND    linux  the cloud kernel for qemu-system-x86_64: FOLDER/vmlinuz, FOLDER/lib/modules/VERSION
#           uml    User-Mode Linux: FOLDER/linux.uml, FOLDER/lib/modules/VERSION, and the libc it needs
#   TARGET  debian12, debian13, or newest (the highest version of Debian 13's backports and of sid)
#
# A folder made before is reused without any network; --refresh makes it anew. Runs may overlap:
# one waits for the other. Exit status: 0; 77 with a reason on standard error if the kernel cannot
# be had; 125 on wrong usage.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
store=${here%/*/*}/build/kernels

skip() {
    echo "fetch.sh: $*" >&2
    exit 77
}

refresh=
if [ "${1-}" = --refresh ]; then
    refresh=1
    shift
fi
kind=${1-}
target=${2-}
case $#:$kind:$target in
2:linux:debian12 | 2:linux:debian13 | 2:linux:newest) ;;
2:uml:debian12 | 2:uml:debian13 | 2:uml:newest) ;;
*)
    echo "usage: fetch.sh [--refresh] linux|uml debian12|debian13|newest" >&2
    exit 125
    ;;
esac

case $target in
debian12) suites="bookworm bookworm-security" ;;
debian13) suites="trixie trixie-security" ;;
newest) suites="trixie-backports sid" ;;
esac

folder=$store/$kind-$target
if [ -z "$refresh" ] && [ -e "$folder/ready" ]; then
    echo "$folder"
    exit 0
fi

for tool in apt-get apt-cache dpkg-deb depmod flock; do
    PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null || skip "$tool is not installed"
done
PATH=$PATH:/usr/sbin:/sbin

mkdir -p "$store"
exec 9>"$store/.lock"
flock 9
if [ -z "$refresh" ] && [ -e "$folder/ready" ]; then
    echo "$folder"
    exit 0
fi

work=$store/.work-$kind-$target
rm -rf "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP
mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/debs" "$work/root"

# The machine's own sources, whatever their format, one "URI RELEASE" a line.
own=$(apt-get indextargets --no-release-info \
    --format "\$(REPO_URI) \$(RELEASE)" "Created-By: Packages" 2>/dev/null | sort -u) || own=
release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
uri_of() { # uri_of RELEASE: the first URI that serves it
    awk -v r="$1" '$2 == r && $1 !~ /^cdrom:/ { print $1; exit }' <<<"$own"
}
main=$(uri_of "$release")
[ -n "$main" ] || main=$(uri_of stable)
[ -n "$main" ] || skip "apt has no source for ${release:-this release}"
security=$(uri_of "$release-security")
[ -n "$security" ] || security=$(uri_of stable-security)

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
options=
[ ! -e $keyring ] || options="[signed-by=$keyring] "
for suite in $suites; do
    case $suite in
    *-security) [ -z "$security" ] || echo "deb $options$security $suite main" ;;
    *) echo "deb $options$main $suite main" ;;
    esac
done >"$work/apt/sources.list"

run_apt() { # run_apt apt-get|apt-cache ARGS...
    local tool=$1
    shift
    "$tool" -q \
        -o Dir::Etc::SourceList="$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State="$work/apt" -o Dir::State::Lists="$work/apt/lists" \
        -o Dir::State::Status=/dev/null -o Dir::Cache="$work/apt/cache" \
        -o APT::Architecture=amd64 -o APT::Architectures=amd64 \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none "$@"
}

log=$work/log
said() { # apt's first error or warning, else its last line
    grep -m1 '^[EW]:' "$log" || tail -n 1 "$log"
}
if ! run_apt apt-get update >"$log" 2>&1; then
    # One suite may be missing or retired; the packages decide.
    [ -n "$(run_apt apt-cache pkgnames linux-image-cloud-amd64 2>/dev/null)" ] ||
        skip "the package lists of $suites cannot be read: $(said)"
fi

highest() { # highest PACKAGE: its highest version in these suites
    local best='' version
    while read -r version; do
        if [ -z "$best" ] || dpkg --compare-versions "$version" gt "$best"; then
            best=$version
        fi
    done < <(run_apt apt-cache madison "$1" 2>/dev/null | awk -F' *[|] *' '{ print $2 }')
    echo "$best"
}

depends_of() { # depends_of PACKAGE VERSION: its dependencies, one "NAME VERSION" a line
    run_apt apt-cache show --no-all-versions "$1=$2" 2>/dev/null |
        sed -n 's/^Depends: //p' | tr ',' '\n' | sed -n 's/^ *\([^ ]*\) (= \([^)]*\)).*/\1 \2/p'
}

packages=
case $kind in
linux)
    todo=linux-image-cloud-amd64=$(highest linux-image-cloud-amd64)
    [ "$todo" != linux-image-cloud-amd64= ] || skip "no linux-image-cloud-amd64 in $suites: $(said)"
    while [ -n "$todo" ]; do
        next=
        for package in $todo; do
            case " $packages " in
            *" $package "*) continue ;;
            esac
            packages="$packages $package"
            while read -r name version; do
                case $name in
                linux-image-* | linux-binary-* | linux-modules-*) next="$next $name=$version" ;;
                esac
            done < <(depends_of "${package%%=*}" "${package#*=}")
        done
        todo=$next
    done
    ;;
uml)
    for name in user-mode-linux libc6; do
        version=$(highest $name)
        [ -n "$version" ] || skip "no $name in $suites: $(said)"
        packages="$packages $name=$version"
    done
    ;;
esac

# shellcheck disable=SC2086 # a list of words
(cd "$work/debs" && run_apt apt-get download $packages) >"$log" 2>&1 ||
    skip "cannot download$packages: $(said)"
for deb in "$work"/debs/*.deb; do
    dpkg-deb -x "$deb" "$work/root"
done

# Only what is used goes into the folder: kernel, modules, libc.
new=$work/new
mkdir -p "$new/lib/modules"
case $kind in
linux)
    for kernel in "$work"/root/boot/vmlinuz-* "$work"/root/usr/lib/modules/*/vmlinuz; do
        [ ! -e "$kernel" ] || mv "$kernel" "$new/vmlinuz"
    done
    [ -e "$new/vmlinuz" ] || skip "no kernel image in$packages"
    for modules in "$work"/root/lib/modules/* "$work"/root/usr/lib/modules/*; do
        [ ! -d "$modules/kernel" ] || mv "$modules" "$new/lib/modules/"
    done
    ;;
uml)
    # The interpreter's path is made relative, of the same length, so that the program runs with
    # the libc beside it: its working directory must then be this folder.
    LC_ALL=C sed 's#/lib64/ld-linux-x86-64\.so\.2#lib64//ld-linux-x86-64.so.2#' \
        "$work/root/usr/bin/linux.uml" >"$new/linux.uml"
    chmod 755 "$new/linux.uml"
    mv "$work"/root/usr/lib/uml/modules/* "$new/lib/modules/"
    mkdir "$new/lib64"
    for file in "$work"/root/lib/x86_64-linux-gnu/* "$work"/root/usr/lib/x86_64-linux-gnu/*; do
        case ${file##*/} in
        libc.so.6 | ld-linux-x86-64.so.2) cp -L "$file" "$new/lib64/" ;;
        esac
    done
    if [ ! -e "$new/lib64/libc.so.6" ] || [ ! -e "$new/lib64/ld-linux-x86-64.so.2" ]; then
        skip "no libc in$packages"
    fi
    ;;
esac
version=$(cd "$new/lib/modules" && echo *)
[ -d "$new/lib/modules/$version/kernel" ] || skip "no modules in$packages"
depmod -b "$new" "$version" 2>/dev/null || skip "depmod failed for $version"
echo "$version" >"$new/ready"

rm -rf "$folder"
mv "$new" "$folder"
echo "$folder"
