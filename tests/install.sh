#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# install.sh: "make install" puts the right files in the right places under a DESTDIR, they work
# there, and "make uninstall" takes exactly these away. Exit: 0 so it is, 1 not (reason on stderr).

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

dest=$(mktemp -d)
trap 'rm -rf "$dest"' EXIT
die() {
	echo "install.sh: $*" >&2
	exit 1
}
files() { (cd "$dest" && find . -type f | sort); }

# What is not ours must stay.
mkdir -p "$dest/etc/postern" "$dest/opt/x/sbin" "$dest/opt/x/share/doc/postern"
touch "$dest/etc/postern/postern.conf" "$dest/opt/x/sbin/other" "$dest/opt/x/share/doc/postern/note"
before=$(files)

make=(make --no-print-directory DESTDIR="$dest" PREFIX=/opt/x SYSCONFDIR=/etc)
"${make[@]}" install
want=$(
	echo "$before"
	printf './opt/x/%s\n' sbin/postern sbin/posternctl share/man/man8/postern.8 \
		share/man/man8/posternctl.8 share/man/man5/postern.conf.5 \
		bin/postern-load bin/postern-sink \
		lib/modules-load.d/postern.conf lib/systemd/system/postern.service
	for page in bench/*.1; do
		echo "./opt/x/share/man/man1/${page##*/}"
	done
	for example in policy/examples/*.conf; do
		echo "./opt/x/share/doc/postern/examples/${example##*/}"
	done
)
diff <(sort <<<"$want") <(files) || die "other files than expected (>)"

"$dest/opt/x/sbin/postern" --version >/dev/null || die "the installed relay does not run"
"$dest/opt/x/sbin/posternctl" --version >/dev/null || die "the installed posternctl does not run"
for tool in postern-load postern-sink; do
	"$dest/opt/x/bin/$tool" --help >/dev/null || die "the installed $tool does not run"
done
[ "$(cat "$dest/opt/x/lib/modules-load.d/postern.conf")" = tls ] || die "modules-load.d"
unit=$dest/opt/x/lib/systemd/system/postern.service
grep -qx 'ExecStart=/opt/x/sbin/postern --config /etc/postern/postern.conf' "$unit" ||
	die "the unit names other paths"
! grep -v '^#' "$unit" | grep -Eq '@[A-Z]+@' || die "the unit has a placeholder left"
# With a program that is there, and no manual, so that only the unit itself is judged.
if command -v systemd-analyze >/dev/null; then
	sed -e "s|^ExecStart=.*|ExecStart=$dest/opt/x/sbin/postern --version|" \
		-e '/^Documentation=/d' "$unit" >"$dest/postern.service"
	said=$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify "$dest/postern.service" 2>&1) ||
		die "systemd-analyze: $said"
	! grep -F postern.service <<<"$said" || die "systemd-analyze has something to say"
	rm "$dest/postern.service"
fi

"${make[@]}" install >/dev/null || die "a second install fails"
"${make[@]}" uninstall
diff <(echo "$before") <(files) || die "uninstall left (>) or took too much (<)"
[ ! -e "$dest/opt/x/share/doc/postern/examples" ] || die "uninstall left a folder"
"${make[@]}" uninstall >/dev/null || die "a second uninstall fails"
