#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh: two organisations, adatum.test and treyresearch.test, write to each other.
#
# Each has a certificate authority, a relay that takes mail from the other one only under mutual
# TLS, and a mail server behind it (Postfix, from tests/peers). swaks sends a message each way. Then
# the demo tells what happened, from the logs, the mailboxes and a capture of the wire beside that of
# a session without TLS. Where the machine's kernel has no TLS, the exchange is done once more in
# User-Mode Linux, which has it. A line that begins with "ok" was checked; "FALSE" ends the demo with
# status 1.
#
# Needs build/release/postern (make). Root is needed for Postfix and for the capture; without it a
# small mail server of the demo's own stands in, and there is no capture. Only loopback is
# used, on ports that are free. Nothing is left running or mounted; logs, configurations, mailboxes
# and captures stay in build/demo until the next run.
#
# demo.sh --guest DIR: the part that runs in User-Mode Linux, with the certificates of DIR/pki.
#
# Exit: 0 all is true, 1 something is not or failed, 2 wrong usage.

set -uo pipefail
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
unset SSL_CERT_FILE SSL_CERT_DIR OPENSSL_CONF
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=${here%/tests}
cd "$top" || exit 1
postern=build/release/postern
subject='Offer 4711, for your eyes only'
secret='1,250,000 and not a cent more'
SECONDS=0

guest=
case $#:${1:-} in
0:) dir=build/demo pki=build/demo/pki ;;
2:--guest) guest=1 dir=$2/guest pki=$2/pki ;;
*)
	sed -n '4,/^#$/s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac

# ---- what is printed

bold='' plain=''
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then
	bold=$'\e[1m' plain=$'\e[0m'
fi
step=0 true_count=0 false_count=0

heading() {
	[ -z "$guest" ] || return 0
	step=$((step + 1))
	printf '\n%s%d. %s%s\n\n' "$bold" "$step" "$*" "$plain"
}
say() { printf '   %s\n' "$*"; }
show() { sed 's/^/   | /'; } # text that is not the demo's own
die() {
	printf 'demo.sh: %s\n' "$*" >&2
	exit 1
}

# claim TEXT COMMAND...: it is true if the command says so.
claim() {
	local text=$1
	shift
	if "$@"; then
		true_count=$((true_count + 1))
		printf '   ok     %s\n' "$text"
	else
		false_count=$((false_count + 1))
		printf '   FALSE  %s\n' "$text"
	fi
}

# ---- the end, whenever it comes

declare -A relay_pid=() hop_pid=()
captures=() guest_pid=''

# ended PID SECONDS: waits for a child of ours that was told to end.
ended() {
	local tries
	for ((tries = $2 * 20; tries > 0; tries--)); do
		kill -0 "$1" 2>/dev/null || return 0
		sleep 0.05
	done
	kill -KILL "$1" 2>/dev/null
	return 1
}

stop_hops() {
	local org
	for org in adatum treyresearch; do
		[ ! -e "$dir/$org-hop/pid" ] || timeout 30 tests/peers/postfix.sh stop "$dir/$org-hop"
		[ -z "${hop_pid[$org]:-}" ] || kill "${hop_pid[$org]}" 2>/dev/null
		unset "hop_pid[$org]"
	done
}

stop_captures() {
	local pid
	for pid in ${captures[@]+"${captures[@]}"}; do
		kill -INT "$pid" 2>/dev/null
		ended "$pid" 5
	done
	captures=()
}

# shellcheck disable=SC2317 # called by the trap
cleanup() {
	local pid
	for pid in ${relay_pid[@]+"${relay_pid[@]}"} ${guest_pid:+"$guest_pid"}; do
		kill -TERM "$pid" 2>/dev/null
		ended "$pid" 10
	done
	stop_captures
	stop_hops
	wait
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- certificates: tests/pki.sh makes the authorities and the relays' own; here are the others

# issue NAME ORG EKU SAN: NAME.pem and NAME.key, from the organisation's authority
issue() {
	local issuer=$pki/$2-ca # not adatum's intermediate: swaks shows no chain
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$pki/$1.key" \
		-subj "/O=$2/CN=${4#*:}" -out "$pki/$1.csr" &&
		openssl x509 -req -in "$pki/$1.csr" -CA "$issuer.pem" -CAkey "$issuer.key" -days 30 \
			-extfile <(printf '%s\n' basicConstraints=critical,CA:FALSE "extendedKeyUsage=$3" \
				"subjectAltName=$4") -out "$pki/$1.pem"
}

make_certificates() {
	timeout 60 tests/pki.sh "$pki" || die "no certificates"
	{
		issue alice adatum clientAuth email:alice@adatum.test &&
			issue bob treyresearch clientAuth email:bob@treyresearch.test &&
			issue mail.adatum adatum serverAuth DNS:mail.adatum.test &&
			issue mail.treyresearch treyresearch serverAuth DNS:mail.treyresearch.test
	} >"$dir/issue.log" 2>&1 || die "no certificates: $dir/issue.log"
}

name_of() { openssl x509 -in "$pki/$1.pem" -noout -nameopt RFC2253 "-$2" | sed "s/^$2=//"; }

# SHA-256 of a certificate's public key, by another program than the relay.
spki_of() {
	openssl x509 -in "$1" -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum |
		cut -d' ' -f1
}

# ---- servers

taken=' '
declare -A port=()

# free_port NAME: a port that nobody has, in port[NAME]
free_port() {
	local number
	while :; do
		number=$((20000 + RANDOM % 10000))
		[[ $taken != *" $number "* ]] || continue
		(exec 3<>"/dev/tcp/127.0.0.1/$number") 2>/dev/null || break
	done
	taken+="$number "
	port[$1]=$number
}

greets() { # PORT
	local line
	(
		exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
		read -r -t 5 line <&3 && [[ $line == 220* ]]
	) 2>/dev/null
}

# until_true SECONDS COMMAND...: tries it until it is true
until_true() {
	local tries
	for ((tries = $1 * 10; tries > 0; tries--)); do
		! "${@:2}" || return 0
		sleep 0.1
	done
	return 1
}

hop_name=
start_hop() { # ORG
	local org=$1 partner status=77
	local at=127.0.0.1:${port[$org-hop]} cert=$pki/mail.$org.pem key=$pki/mail.$org.key
	if [ -z "$guest" ]; then
		status=0
		timeout 240 tests/peers/postfix.sh start "$dir/$org-hop" --listen "$at" --tls-cert "$cert" \
			--tls-key "$key" --require-client-cert "$pki/$org-ca.pem" --domains "$org.test" \
			--hostname "mail.$org.test" >"$dir/$org-hop.log" 2>&1 || status=$?
	fi
	case $status in
	0) hop_name="Postfix $(sed -n 's/.*daemon started -- version \([^,]*\).*/\1/p' \
		"$dir/$org-hop/mail.log")" ;;
	77)
		hop_name="tests/demo/mailbox.py (no Postfix: $(tail -n 1 "$dir/$org-hop.log" 2>/dev/null))"
		python3 tests/demo/mailbox.py "$at" "$cert" "$key" "$pki/$org-ca.pem" \
			"$dir/$org-hop/maildir" >"$dir/$org-hop.log" 2>&1 9>&- &
		hop_pid[$org]=$!
		until_true 20 greets "${port[$org-hop]}" || die "no mail server: $dir/$org-hop.log"
		;;
	*) die "Postfix does not start: $dir/$org-hop.log" ;;
	esac
}

write_config() { # ORG PARTNER
	local org=$1 partner=$2 tls
	tls=$(printf '\t%s\n' 'certificate = "mx"' 'tls = starttls' 'require-tls = yes' \
		'client-certificate = require')
	cat <<-CONF
		transport {
		    fqdn = "mx.$org.test"
		    workers = 1
		}
		certificate "mx" {
		    chain = "$top/$pki/$org.pem"
		    key = "$top/$pki/$org.key"
		}
		receive-connector "inside" {
		    bindings = {"127.0.0.1:${port[$org-inside]}"}
		$tls
		    trust-anchors = "$top/$pki/$org-ca.pem"
		    send-connector = "to-partner"
		}
		receive-connector "partner" {
		    bindings = {"127.0.0.1:${port[$org-partner]}"}
		$tls
		    trust-anchors = "$top/$pki/$partner-ca.pem"
		    send-connector = "to-mailboxes"
		}
		receive-connector "plain" { # for comparison only
		    bindings = {"127.0.0.1:${port[$org-plain]}"}
		    send-connector = "to-mailboxes"
		}
		send-connector "to-partner" {
		    smart-hosts = {"127.0.0.1:${port[$partner-partner]}"}
		    certificate = "mx"
		    tls-auth-level = domain-validation
		    tls-domain = "mx.$partner.test"
		    trust-anchors = "$top/$pki/$partner-ca.pem"
		}
		send-connector "to-mailboxes" {
		    smart-hosts = {"127.0.0.1:${port[$org-hop]}"}
		    certificate = "mx"
		    tls-auth-level = domain-validation
		    tls-domain = "mail.$org.test"
		    trust-anchors = "$top/$pki/$org-ca.pem"
		}
	CONF
}

start_relay() { # ORG PARTNER
	write_config "$1" "$2" >"$dir/$1.conf"
	timeout 10 "$postern" --check "$dir/$1.conf" || die "the configuration $dir/$1.conf is wrong"
	"$postern" --config "$dir/$1.conf" 2>"$dir/$1.log" 9>&- &
	relay_pid[$1]=$!
}

start_servers() {
	local org
	for org in adatum treyresearch; do
		for name in inside partner plain hop; do
			free_port "$org-$name"
		done
		mkdir -p "$dir/$org-hop"
	done
	start_hop adatum
	start_hop treyresearch
	start_relay adatum treyresearch
	start_relay treyresearch adatum
	for org in adatum treyresearch; do
		until_true 20 greets "${port[$org-plain]}" || die "the relay does not run: $dir/$org.log"
	done
}

# stop_relay ORG: as an administrator would, with SIGTERM
stop_relay() {
	local pid=${relay_pid[$1]}
	unset "relay_pid[$1]"
	kill -TERM "$pid" && ended "$pid" 10 && wait "$pid"
}

# ---- mail

write_message() { # FROM TO FILE
	printf %s "$(cat <<-MESSAGE
		From: <$1>
		To: <$2>
		Subject: $subject
		Date: $(date -R)
		Message-ID: <demo.$$.${1%@*}@${1#*@}>

		Dear partner,

		the price is $secret.
		...but that is between us.

		${1%@*}
	MESSAGE
	)" >"$3"
}

# swaks_to PORT TRANSCRIPT ARGUMENT...
swaks_to() {
	timeout 60 swaks --server 127.0.0.1 --port "$1" --timeout 20 "${@:3}" >"$dir/$2" 2>&1
}

# send ORG PARTNER FROM TO: through the sender's own relay, with a certificate
send() {
	local name=${3%@*}
	write_message "$3" "$4" "$dir/$name.eml"
	swaks_to "${port[$1-inside]}" "$name.swaks" --helo "$name.$1.test" --from "$3" --to "$4" \
		--data "@$dir/$name.eml" --tls --tls-verify --tls-ca-path "$pki/$1-ca.pem" \
		--tls-cert "$pki/$name.pem" --tls-key "$pki/$name.key"
}

# mails ORG TO: the messages in a mailbox
mails() { find "$dir/$1-hop/maildir/$2/new" -type f 2>/dev/null | sort; }
has_mails() { [ "$(mails "$1" "$2" | wc -l)" = "$3" ]; }
body_of() { sed '1,/^$/d' "$1"; }
# same_body DELIVERED SENT: what was sent lacks its last line end, which swaks adds
same_body() { cmp -s <(body_of "$1") <(body_of "$2" && echo); }

# ---- what the relays logged

# log_line ORG PATTERN: the first line that matches, once it is there
log_line() {
	until_true 5 grep -Eqs -- "$2" "$dir/$1.log"
	grep -Em1 -- "$2" "$dir/$1.log"
}

field() { # LINE KEY
	sed -nE "s/.* $2=(\"([^\"]*)\"|([^ ]*)).*/\2\3/p" <<<"$1"
}

# inbound ORG FROM: the handshake of the session that brought the message
inbound() {
	local session
	session=$(field "$(log_line "$1" "event=message .*result=accepted .*from=<$2>")" session)
	log_line "$1" "session=$session event=tls "
}
outbound() { log_line "$1" "event=nexthop-tls .*connector=$2 "; } # ORG CONNECTOR

# proof LINE CERTIFICATE VERDICT-KEY NAME TO: the owner of the certificate proved itself to a relay
proof() {
	local key
	key=$(spki_of "$2")
	claim "to $5: $4 is $(field "$1" subject), $(field "$1" "$3")" \
		test "$(field "$1" "$3") $(field "$1" spki)" = "Valid $key"
	say "         key SHA-256 $key"
}

protocol() { echo "$(field "$1" version), $(field "$1" cipher)"; }

# legs FROM ORG PARTNER USER: who proved what to whom, on the way of one message
legs() {
	local org=$2 partner=$3 name=${1%@*} a b line
	a=$(inbound "$org" "$1")
	say "$name's client -> $org's relay: $(protocol "$a")"
	proof "$a" "$pki/$name.pem" client-cert "the client" "$org's relay"
	claim "to $name's client: $org's relay, says swaks" \
		grep -qx "=== TLS peer DN=\"/O=$org/CN=mx.$org.test\"" "$dir/$name.swaks"

	a=$(outbound "$org" to-partner) b=$(inbound "$partner" "$1")
	say "$org's relay -> $partner's relay: $(protocol "$a")"
	proof "$a" "$pki/$partner.pem" server-cert "$partner's relay" "$org's relay"
	proof "$b" "$pki/$org.pem" client-cert "$org's relay" "$partner's relay"
	claim "both relays logged the same version and cipher" test "$(protocol "$a")" = "$(protocol "$b")"

	a=$(outbound "$partner" to-mailboxes)
	say "$partner's relay -> $partner's mail server: $(protocol "$a")"
	proof "$a" "$pki/mail.$partner.pem" server-cert "the mail server" "$partner's relay"
	if [ -n "${hop_pid[$partner]:-}" ]; then
		line=$(grep -m1 "client .*commonName=mx.$partner.test" "$dir/$partner-hop.log")
	else
		line=$(grep -om1 'Trusted TLS connection established from.*' "$dir/$partner-hop/mail.log")
	fi
	claim "to the mail server: $partner's relay, says its log" test -n "$line"
	say "         $line"
}

# record ORG WHERE LINE: who encrypts, as that relay logged it
record() { claim "$(printf '%-22s %-36s %s' "$1's relay" "$2" "$(field "$3" record)")" \
	test "$(field "$3" record)" = "$expected_record"; }

# all_records FROM ORG PARTNER
all_records() {
	record "$2" "from ${1%@*}'s client" "$(inbound "$2" "$1")"
	record "$2" "to $3's relay" "$(outbound "$2" to-partner)"
	record "$3" "from $2's relay" "$(inbound "$3" "$1")"
	record "$3" "to its mail server" "$(outbound "$3" to-mailboxes)"
}

tls_stat() { awk -v name="$1" '$1 == name { print $2 }' "$2"; }

# kernel_counts: that the kernel did what the relays say, from its own counters before and after
kernel_counts() {
	local name sides
	sides=$(cat "$dir"/*.log | grep -c 'event=\(nexthop-\)\?tls .* record=kernel$')
	say "/proc/net/tls_stat     before  after"
	for name in TlsTxSw TlsRxSw TlsDecryptError; do
		say "$(printf '%-20s %8s %6s' "$name" "$(tls_stat $name "$dir/stat-before")" \
			"$(tls_stat $name "$dir/stat-after")")"
	done
	for name in TlsTxSw TlsRxSw; do
		claim "$name rose by no less than $sides, the sessions logged as record=kernel" test $(($(
			tls_stat $name "$dir/stat-after") - $(tls_stat $name "$dir/stat-before"))) -ge "$sides"
	done
	claim "the kernel met no record that it could not decrypt" \
		test "$(tls_stat TlsDecryptError "$dir/stat-after")" = 0
}

# ---- the wire

start_capture() { # NAME PORT
	tcpdump -i lo -U --immediate-mode -Z root -w "$dir/$1.pcap" "tcp port $2" 2>"$dir/$1.tcpdump" 9>&- &
	captures+=($!)
	until_true 10 grep -q 'listening on' "$dir/$1.tcpdump" ||
		die "no capture: $(tail -n 1 "$dir/$1.tcpdump")"
}

occurs() { grep -aoF -- "$2" "$dir/$1.pcap" | wc -l; } # NAME TEXT
dump() { od -A d -t x1z -j "$2" -N 80 "$dir/$1.pcap" | head -n -1 | show; } # NAME OFFSET

compare() { # TEXT PLAIN-COUNT PARTNER-COUNT
	local clear tls
	clear=$(occurs plain "$1") tls=$(occurs partner "$1")
	claim "$(printf '%-42s %5s %13s' "\"$1\"" "$clear" "$tls")" test "$clear $tls" = "$2 $3"
}

show_wire() {
	local at='' record='' size
	size=$(stat -c %s "$dir/alice.eml")
	at=$(grep -abom1 "Subject: ${subject%% *}" "$dir/plain.pcap" | head -n 1 | cut -d: -f1)
	say "The same message to a connector without TLS ($dir/plain.pcap, from byte ${at:-?}):"
	dump plain "${at:-0}"
	# The last record that is long enough to hold the message; those before are certificates.
	read -r at record < <(perl -0777 -ne 'while (/\x17\x03\x03(..)/gs) { my $n = unpack "n", $1;
		$found = "$-[0] $n\n" if $n > '"$size"'; } print $found' "$dir/partner.pcap")
	say "Between the relays ($dir/partner.pcap, from byte ${at:-?}: a TLS record of ${record:-?} bytes):"
	dump partner "${at:-0}"
	claim "that record is longer than the message, $size bytes" test "${record:-0}" -gt "$size"
	say "$(printf '       %-42s %5s %13s' 'how often is it readable' 'plain' 'mutual TLS')"
	compare "Subject: $subject" 1 0
	compare "$secret" 1 0
	compare "alice@adatum.test" 3 0
	compare "250-STARTTLS" 0 1
}

# ---- a stranger

# refused WHAT CODE ARGUMENT...: swaks gets this reply from treyresearch's partner connector
refused() {
	local what=$1 want=$2 reply
	swaks_to "${port[treyresearch-partner]}" stranger.swaks --helo mx.adatum.test \
		--from alice@adatum.test --to bob@treyresearch.test --header "Subject: stranger" "${@:3}"
	reply=$(sed -n 's/^<[~-]*\** *\([45][0-9][0-9] .*\)/\1/p' "$dir/stranger.swaks" | head -n 1)
	claim "$what: $reply" test "${reply#"$want"}" != "$reply"
}

# ---- nothing is left

leftovers() {
	local pid
	for pid in /proc/[0-9]*; do
		[ "${pid#/proc/}" != $$ ] || continue
		if tr '\0' ' ' <"$pid/cmdline" | grep -qF -- "$dir/" ||
			[ "$(stat -Lc %d:%i "$pid/root/peer")" = "$(stat -c %d:%i "$dir/adatum-hop")" ] ||
			[ "$(stat -Lc %d:%i "$pid/root/peer")" = "$(stat -c %d:%i "$dir/treyresearch-hop")" ]; then
			echo "process ${pid#/proc/}"
		fi
	done 2>/dev/null
	grep -F "$top/build/" /proc/self/mountinfo
}
nothing_is_left() { [ -z "$(leftovers)" ]; }

# ---- the demo in User-Mode Linux: the same exchange, told shorter

run_guest() {
	expected_record=kernel
	rm -rf "$dir"
	mkdir -p "$dir"
	start_servers
	say "$(uname -sr); $("$postern" --version | grep 'ktls TLSv1.3 AES-256-GCM')"
	cat /proc/net/tls_stat >"$dir/stat-before"
	claim "alice's message was accepted" send adatum treyresearch alice@adatum.test bob@treyresearch.test
	claim "bob's message was accepted" send treyresearch adatum bob@treyresearch.test alice@adatum.test
	claim "bob has alice's message, to the byte" \
		same_body "$(mails treyresearch bob@treyresearch.test)" "$dir/alice.eml"
	claim "alice has bob's message, to the byte" \
		same_body "$(mails adatum alice@adatum.test)" "$dir/bob.eml"
	all_records alice@adatum.test adatum treyresearch
	all_records bob@treyresearch.test treyresearch adatum
	cat /proc/net/tls_stat >"$dir/stat-after"
	kernel_counts
	claim "adatum's relay ended well" stop_relay adatum
	claim "treyresearch's relay ended well" stop_relay treyresearch
}

finish_guest() {
	local status=0
	wait "$guest_pid" || status=$?
	guest_pid=
	if [ "$status" = 77 ]; then
		say "skipped: $(tail -n 1 "$dir/guest.log")"
		return
	fi
	cat "$dir/guest.log"
	true_count=$((true_count + $(grep -c '^   ok ' "$dir/guest.log")))
	false_count=$((false_count + $(grep -c '^   FALSE ' "$dir/guest.log")))
	claim "the guest reached its end" test "$status" = 0
}

# ---- the demo

prepare() {
	[ -x "$postern" ] || die "$postern is not built: make"
	[ ! -L build/demo ] || die "build/demo is a symbolic link"
	mkdir -p build
	exec 9>build/.demo.lock
	flock -n 9 || die "another demo is running"
	rm -rf "$dir"
	mkdir -p "$dir"
	version=$("$postern" --version)
	expected_record=kernel
	if [[ $version == *"ktls: none"* ]]; then
		expected_record="user($(sed -n 's/^ktls: none (\([^)]*\)).*/\1/p' <<<"$version"))"
	fi
}

start_guest() {
	[ "$expected_record" != kernel ] || return 0
	timeout 150 tests/kernels/uml.sh --timeout 120 -- "$top/tests/demo.sh" --guest "$dir" \
		</dev/null >"$dir/guest.log" 2>&1 9>&- &
	guest_pid=$!
}

tell_certificates() {
	local org
	for org in adatum treyresearch; do
		say "$org.test"
		say "    authority    $(name_of "$org-ca" subject)"
		say "    relay        $(name_of "$org" subject), from $(name_of "$org" issuer)"
		say "    mail server  $(name_of "mail.$org" subject), from $(name_of "mail.$org" issuer)"
	done
	claim "neither authority vouches for the other's relay" \
		eval "! openssl verify -CAfile $pki/adatum-ca.pem $pki/treyresearch.pem >/dev/null 2>&1 &&
		! openssl verify -CAfile $pki/treyresearch-ca.pem -untrusted $pki/adatum-int.pem \
			$pki/adatum.pem >/dev/null 2>&1"
}

tell_servers() {
	local org
	say "$(head -n 1 <<<"$version"); $(sed -n 's/^tls: //p' <<<"$version"); $(uname -sr)"
	for org in adatum treyresearch; do
		say "$org.test: relay $dir/$org.conf"
		say "    from its own users  127.0.0.1:${port[$org-inside]}, with a certificate of $org's"
		say "    from the partner    127.0.0.1:${port[$org-partner]}, with a certificate of the partner's"
		say "    its mail server     127.0.0.1:${port[$org-hop]}, $hop_name"
	done
}

run_mail() {
	heading "alice@adatum.test writes to bob@treyresearch.test (transcript of swaks)"
	claim "the message was accepted" send adatum treyresearch alice@adatum.test bob@treyresearch.test
	show <"$dir/alice.swaks"

	heading "bob writes to alice (the end of the transcript)"
	claim "the message was accepted" send treyresearch adatum bob@treyresearch.test alice@adatum.test
	sed -n '/^ ~> MAIL/,$p' "$dir/bob.swaks" | sed '/^<~  354/,/^ ~> \.$/{ /354/!{ /\.$/!d } }' | show

	heading "Who proved what to whom, on the way of alice's message (from the logs)"
	legs alice@adatum.test adatum treyresearch
	heading "And on the way of bob's"
	legs bob@treyresearch.test treyresearch adatum

	heading "Who encrypts the records, the kernel or the relay itself"
	all_records alice@adatum.test adatum treyresearch
	all_records bob@treyresearch.test treyresearch adatum
}

run_mailbox() {
	local mail
	heading "The message in bob's mailbox"
	until_true 15 has_mails treyresearch bob@treyresearch.test 1
	until_true 15 has_mails adatum alice@adatum.test 1
	mail=$(mails treyresearch bob@treyresearch.test)
	say "$mail"
	show <"$mail"
	claim "its text is alice's, to the byte" same_body "$mail" "$dir/alice.eml"
	claim "treyresearch's relay wrote down that adatum's proved itself" eval "sed '/^\$/q' '$mail' |
		grep -A2 'using TLSv1.3' | grep -q 'CN=mx.adatum.test,O=adatum\" verified'"
	claim "alice's mailbox has one message, whose text is bob's to the byte" \
		same_body "$(mails adatum alice@adatum.test)" "$dir/bob.eml"
}

run_wire() {
	heading "What somebody on the wire sees"
	if [ ${#captures[@]} = 0 ]; then
		say "skipped: to capture packets takes root and tcpdump"
		return
	fi
	swaks_to "${port[treyresearch-plain]}" plain.swaks --helo mx.adatum.test --from alice@adatum.test \
		--to bob@treyresearch.test --data "@$dir/alice.eml" || die "no session without TLS"
	sleep 0.3 # the last packets
	stop_captures
	show_wire
}

run_stranger() {
	local mail before
	heading "A stranger who says to be adatum's relay"
	before=$(mails treyresearch bob@treyresearch.test | wc -l)
	refused "in clear text" 451
	refused "TLS without a certificate" 454 --tls
	refused "TLS with a certificate of an authority that nobody trusts" 454 --tls \
		--tls-cert "$pki/other.pem" --tls-key "$pki/other.key"
	mail=$(mails treyresearch bob@treyresearch.test | wc -l)
	claim "nothing of that reached bob" test "$mail" = "$before"
}

run_end() {
	heading "The end"
	claim "adatum's relay took SIGTERM, let its sessions end, and ended" stop_relay adatum
	claim "treyresearch's relay too" stop_relay treyresearch
	stop_hops
	claim "nothing is left running, nothing mounted" until_true 5 nothing_is_left
	leftovers | show
	say "Logs, configurations, mailboxes and captures: $dir"
}

run_demo() {
	prepare
	echo "${bold}Postern: two organisations, mutual TLS, real mail both ways$plain"
	heading "Two organisations, each with an authority of its own"
	make_certificates
	tell_certificates
	start_guest
	heading "Two relays, a mail server behind each"
	start_servers
	tell_servers
	if [ "$(id -u)" = 0 ] && command -v tcpdump >/dev/null; then
		start_capture partner "${port[treyresearch-partner]}"
		start_capture plain "${port[treyresearch-plain]}"
	fi
	[ "$expected_record" != kernel ] || cat /proc/net/tls_stat >"$dir/stat-before"
	run_mail
	if [ "$expected_record" = kernel ]; then
		cat /proc/net/tls_stat >"$dir/stat-after"
		kernel_counts
	fi
	run_mailbox
	run_wire
	run_stranger
	if [ -n "$guest_pid" ]; then
		heading "The same on a kernel that has TLS (User-Mode Linux)"
		finish_guest
	fi
	run_end
}

if [ -n "$guest" ]; then
	run_guest
else
	run_demo
	printf '\n%s%d claims checked, %d false, %d seconds%s\n' "$bold" $((true_count + false_count)) \
		$false_count $SECONDS "$plain"
fi
[ $false_count = 0 ]
