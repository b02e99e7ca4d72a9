#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# setup.sh: makes build/peers/root, the folder that holds Postfix and Exim for run-in.sh.
#
# The packages and those of their libraries that the machine lacks are downloaded with apt and
# unpacked; nothing is installed, no maintainer script runs, and a mail system that the machine
# already has is not touched. Documentation is left out. The package lists are refreshed (as root)
# only if a package cannot be had without.
#
# Idempotent, and immediate when done: a stamp names this script's content and the system's
# version. Two runs at once wait for each other; an interrupted run is done again. Exit: 0 ready,
# 1 failed (reason on stderr).

set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=${here%/tests/peers}
peers=$top/build/peers
stamp=$peers/.stamp
PACKAGES=(postfix exim4-daemon-light exim4-base exim4-config)

die() { echo "peers/setup.sh: $*" >&2; exit 1; }

identity=$(cat "${BASH_SOURCE[0]}" /etc/os-release | sha256sum)
ready() { [ "$(cat "$stamp" 2>/dev/null)" = "$identity" ]; }
ready && exit 0
mkdir -p "$peers"
exec 9>"$peers/.lock"
flock 9
ready && exit 0

tmp=$peers/.new
rm -rf "$tmp"
mkdir -p "$tmp/debs" "$tmp/root/usr"
trap 'rm -rf "$tmp"' EXIT

# Names of the libraries (and netbase) that apt would install together with PACKAGE. The packages
# are asked for one by one, since two mail servers exclude each other.
needs() {
	apt-get --print-uris --no-install-recommends -qq -y install "$1" |
		sed -n "s/^'[^']*' \\([^_ ]*\\)_.*/\\1/p" | grep -E '^(lib|netbase)' || true
}

fetch() {
	local p extra=()
	for p in postfix exim4-daemon-light; do
		apt-cache show "$p" >/dev/null 2>&1 || return 1
		mapfile -t -O "${#extra[@]}" extra < <(needs "$p")
	done
	(cd "$tmp/debs" && apt-get -q -o APT::Sandbox::User=root download "${PACKAGES[@]}" \
		"${extra[@]}" >"$tmp/log" 2>&1)
}

if ! fetch; then
	[ "$(id -u)" = 0 ] || die "package lists are missing or stale: run apt-get update"
	apt-get -q update >&2 || true # a broken third-party source need not matter
	fetch || { cat "$tmp/log" >&2; die "cannot download ${PACKAGES[*]}"; }
fi

# Packages may still name /lib or /sbin, which are symlinks on a system with merged /usr. A
# real folder of that name would hide the system's, so all are moved under usr.
for deb in "$tmp"/debs/[!p]*.deb "$tmp"/debs/p*.deb; do # both bring sendmail: Postfix's stays
	dpkg -x "$deb" "$tmp/root"
done
for d in bin sbin lib lib64; do
	[ -d "$tmp/root/$d" ] || continue
	[ -L "/$d" ] || continue
	mkdir -p "$tmp/root/usr/$d"
	cp -a "$tmp/root/$d/." "$tmp/root/usr/$d/"
	rm -rf "${tmp:?}/root/$d"
done
(cd "$tmp/root" && rm -rf usr/share/{doc,man,locale,lintian,bug,doc-base} usr/lib/systemd lib/systemd \
	etc/{init.d,cron.d,cron.daily,network,ppp,resolvconf,rsyslog.d,ufw,logrotate.d,insserv.conf.d})
chmod -R u-s,g-s "$tmp/root" # run-in.sh sets what is needed, where nobody else can reach it

libs=$(find "$tmp/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
for exe in usr/sbin/exim4 usr/sbin/postconf usr/lib/postfix/sbin/smtpd; do
	missing=$(LD_LIBRARY_PATH=$libs ldd "$tmp/root/$exe" | grep 'not found' || true)
	[ -z "$missing" ] || die "$exe lacks libraries: $missing"
done

rm -rf "$peers/root" "$stamp"
mv "$tmp/root" "$peers/root"
echo "$identity" >"$stamp"
