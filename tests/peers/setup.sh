#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# setup.sh [bench]: makes build/peers/root, the folder that holds Postfix and Exim for run-in.sh; or,
# with "bench", build/peers/bench, which holds OpenSMTPD and nginx for the benchmark.
#
# The packages and those of their libraries that the machine lacks are downloaded with apt and
# unpacked; nothing is installed, no maintainer script runs, and a mail system that the machine
# already has is not touched. Documentation is left out. The package lists are refreshed (as root)
# only if a package cannot be had without.
#
# Debian 12's own OpenSMTPD 6.8 fails every handshake with Debian 12's OpenSSL. Where the machine's
# sources have nothing from 7 on, it is taken from the backports of the same release and mirror, with
# sources and lists of its own in build/peers/apt: those of the machine stay as they are.
#
# Idempotent, and immediate when done: a stamp names this script's content and the system's
# version. Two runs at once wait for each other; an interrupted run is done again. Exit: 0 ready,
# 1 failed (reason on stderr).

set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=${here%/tests/peers}
peers=$top/build/peers
case ${1:-} in
'') what=root stamp=$peers/.stamp packages=(postfix exim4-daemon-light) ;;
bench) what=bench stamp=$peers/.stamp-bench packages=(opensmtpd nginx libnginx-mod-mail) ;;
*) echo "usage: setup.sh [bench]" >&2 && exit 2 ;;
esac

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

# Where OpenSMTPD comes from: options of apt.
apt=()

# Sources of its own, on the mirror that the machine takes its release from.
use_backports() {
	local VERSION_CODENAME uri by='' key=/usr/share/keyrings/debian-archive-keyring.gpg etc=$peers/apt
	# shellcheck source=/dev/null
	. /etc/os-release
	# shellcheck disable=SC2016 # apt's own variables
	uri=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(RELEASE)' 'Created-By: Packages' |
		awk -v release="$VERSION_CODENAME" '$2 == "main" && $3 == release { print $1; exit }')
	[ -n "$uri" ] || return 1
	[ ! -e $key ] || by="[signed-by=$key] "
	mkdir -p "$etc/lists/partial" "$etc/cache/archives/partial"
	printf '%s\n' "deb $by$uri $VERSION_CODENAME main" \
		"deb $by$uri $VERSION_CODENAME-backports main" >"$etc/sources.list"
	apt=(-o "Dir::Etc::SourceList=$etc/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o "Dir::State::Lists=$etc/lists" -o "Dir::Cache=$etc/cache" -o APT::Sandbox::User=root
		-o "APT::Default-Release=$VERSION_CODENAME-backports")
	apt-get -q "${apt[@]}" update >"$tmp/log" 2>&1
}

# candidate PACKAGE: the version that apt would install
candidate() { apt-cache "${apt[@]}" policy "$1" | awk '$1 == "Candidate:" { print $2 }'; }

# Names of what apt would install together with PACKAGE and is needed here: libraries, netbase and
# nginx's own parts. The packages are asked for one by one, since two mail servers exclude each other.
needs() {
	apt-get "${apt[@]}" --print-uris --no-install-recommends -qq -y install "$1" |
		sed -n "s/^'[^']*' \\([^_ ]*\\)_.*/\\1/p" |
		grep -E "^($1|lib.*|netbase|exim4-.*|nginx-.*)\$" || true
}

fetch() {
	local p names
	for p in "${packages[@]}"; do
		apt=()
		apt-cache show "$p" >/dev/null 2>&1 || return 1
		if [ "$p" = opensmtpd ] && dpkg --compare-versions "$(candidate "$p")" lt 7; then
			use_backports || return 1
			dpkg --compare-versions "$(candidate "$p")" ge 7 || die "no OpenSMTPD from 7 on"
		fi
		mapfile -t names < <(needs "$p")
		(cd "$tmp/debs" && apt-get -q "${apt[@]}" -o APT::Sandbox::User=root \
			download "$p" "${names[@]}" >"$tmp/log" 2>&1) || return 1
	done
}

if ! fetch; then
	[ "$(id -u)" = 0 ] || die "package lists are missing or stale: run apt-get update"
	apt-get -q update >&2 || true # a broken third-party source need not matter
	fetch || { cat "$tmp/log" >&2; die "cannot download ${packages[*]}"; }
fi

# Packages may still name /lib or /sbin, which are symlinks on a system with merged /usr. A
# real folder of that name would hide the system's, so all are moved under usr.
for deb in "$tmp"/debs/[!p]*.deb "$tmp"/debs/p*.deb; do # both bring sendmail: Postfix's stays
	[ -e "$deb" ] || continue
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
for exe in usr/sbin/{exim4,postconf,smtpd,nginx} usr/lib/postfix/sbin/smtpd; do
	[ -e "$tmp/root/$exe" ] || continue
	missing=$(LD_LIBRARY_PATH=$libs ldd "$tmp/root/$exe" | grep 'not found' || true)
	[ -z "$missing" ] || die "$exe lacks libraries: $missing"
done

rm -rf "${peers:?}/$what" "$stamp"
mv "$tmp/root" "$peers/$what"
echo "$identity" >"$stamp"
