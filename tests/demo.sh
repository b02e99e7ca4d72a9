#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh: two organisations, adatum.test and treyresearch.test, write to each other.
#
# Each has a certificate authority, a relay that lists the other as a partner (Domain Security), and
# a mail server behind it (Postfix, from tests/peers). A message goes each way; the demo shows who
# proved what, from the logs, the mailboxes, the protocol log and a capture of the wire. Then it
# breaks things: strangers, a partner that lies, a partner without TLS, a certificate that is
# revoked while a session is open, a mail server that is away while the relay is killed, addresses
# that may not even connect. Where the machine's kernel
# has no TLS, the exchange is done once more in User-Mode Linux, which has it. A line that begins
# with "ok" was checked; "FALSE" ends the demo with status 1.
#
# Needs build/release/postern and posternctl (make). Root is needed for Postfix and for the capture;
# without it a small mail server of the demo's own stands in, and there is no capture. Only loopback
# is used (127.0.0.1, 127.40.0.1 to .3), on ports that are free. Nothing is left running or mounted;
# logs, configurations, mailboxes and captures stay in build/demo until the next run.
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
posternctl=build/release/posternctl
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

# shellcheck source=tests/demo/print.sh
. "$here/demo/print.sh"
# shellcheck source=tests/demo/servers.sh
. "$here/demo/servers.sh"
# shellcheck source=tests/demo/queue.sh
. "$here/demo/queue.sh"

# ---- the end, whenever it comes

captures=() guest_pid='' dns_pid='' talk_pid=''

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
	for pid in $talk_pid ${relay_pid[@]+"${relay_pid[@]}"} $guest_pid; do
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

# swaks_to ADDRESS PORT TRANSCRIPT ARGUMENT...
swaks_to() {
	timeout 60 swaks --server "$1" --port "$2" --timeout 20 "${@:4}" >"$dir/$3" 2>&1
}

# send ORG FROM TO: swaks stands for the mail server, and shows its certificate to the relay
send() {
	local org=$1 name=${2%@*}
	write_message "$2" "$3" "$dir/$name.eml"
	swaks_to 127.0.0.1 "${port[$org-inside]}" "$name.swaks" --helo "mail.$org.test" --from "$2" \
		--to "$3" --data "@$dir/$name.eml" --tls --tls-verify --tls-ca-path "$pki/$org-ca.pem" \
		--tls-cert "$pki/mail.$org.pem" --tls-key "$pki/mail.$org.key"
}

# send_inside ORG FROM TO: the sender is a user of the mail server
send_inside() {
	local log=$dir/$1-hop/mail.log
	write_message "$2" "$3" "$dir/${2%@*}.eml"
	(cat "$dir/${2%@*}.eml" && echo) |
		timeout 60 tests/peers/postfix.sh send "$dir/$1-hop" "$2" "$3" &&
		until_true 20 grep -q "to=<$3>.*status=" "$log" && grep -q "to=<$3>.*status=sent" "$log"
}

# mails ORG TO: the messages in a mailbox
mails() { find "$dir/$1-hop/maildir/$2/new" -type f 2>/dev/null | sort; }
has_mails() { [ "$(mails "$1" "$2" | wc -l)" = "$3" ]; }
body_of() { sed '1,/^$/d' "$1"; }
header_of() { sed '/^$/q' "$1"; }
# same_body DELIVERED SENT: what was sent lacks its last line end, which swaks adds
same_body() { cmp -s <(body_of "$1") <(body_of "$2" && echo); }

# refusal TRANSCRIPT: the first reply of 4xx or 5xx, or else the last reply to a command
refusal() {
	local replies
	replies=$(sed -n 's/^<[~-]*\** *\([2-5][0-9][0-9] .*\)/\1/p' "$dir/$1" | grep -v '^221')
	grep -m1 '^[45]' <<<"$replies" || tail -n 1 <<<"$replies"
}

# ---- who proved what

# proof LINE CERTIFICATE VERDICT-KEY TO: the owner of the certificate proved itself to a relay
proof() {
	local key
	key=$(spki_of "$2")
	claim "to $4: $(field "$1" subject), $(field "$1" "$3"), key ${key:0:8}..." \
		test "$(field "$1" "$3") $(field "$1" spki)" = "Valid $key"
}

protocol() { echo "$(field "$1" version), $(field "$1" cipher)"; }

# legs FROM ORG PARTNER SHOW: who proved what to whom, on the way of one message; with SHOW, the log
legs() {
	local org=$2 partner=$3 in out took sent
	in=$(inbound "$org" "$1")
	say "$org's mail server -> $org's relay: $(protocol "$in")"
	proof "$in" "$pki/mail.$org.pem" client-cert "$org's relay"
	claim "as its key is pinned there, it may send as anybody: role=internal" \
		test "$(field "$(message_of "$org" "$1")" role)" = internal

	out=$(outbound "$org" partners)
	sent=$(log_line "$org" 'event=nexthop-ready connector=partners .*secured=')
	say "$org's relay -> $partner's relay: $(protocol "$out")${4:+. In the log of $org:}"
	[ -z "$4" ] || show_log "$out" "$sent"
	proof "$out" "$pki/$partner.pem" server-cert "$org's relay"
	claim "by the authority of that partner, for the domain secured=$(field "$sent" secured)" \
		test "$(field "$sent" secured)" = "$partner.test"

	in=$(inbound "$partner" "$1")
	took=$(message_of "$partner" "$1")
	[ -z "$4" ] || say "The same session in the log of $partner:"
	[ -z "$4" ] || show_log "$in" "$took"
	proof "$in" "$pki/$org.pem" client-cert "$partner's relay"
	claim "so it may send as $1: role=$(field "$took" role) domain=$(field "$took" domain)" \
		test "$(field "$took" role) $(field "$took" domain)" = "partner $org.test"
	claim "both relays logged the same version and cipher" \
		test "$(protocol "$in")" = "$(protocol "$out")"

	out=$(outbound "$partner" mailboxes)
	say "$partner's relay -> $partner's mail server: $(protocol "$out")"
	proof "$out" "$pki/mail.$partner.pem" server-cert "$partner's relay"
	if [ -n "${hop_pid[$partner]:-}" ]; then
		claim "to the mail server: $partner's relay, says its log" \
			grep -q "client .*commonName=mx.$partner.test" "$dir/$partner-hop.log"
	else
		claim "to the mail server: the relay has a certificate of $partner's, says Postfix (Trusted)" \
			grep -q 'Trusted TLS connection established from' "$dir/$partner-hop/mail.log"
	fi
}

# ---- who encrypts

# record ORG WHERE LINE: who encrypts, as that relay logged it
record() { claim "$(printf '%-22s %-36s %s' "$1's relay" "$2" "$(field "$3" record)")" \
	test "$(field "$3" record)" = "$expected_record"; }

# all_records FROM ORG PARTNER
all_records() {
	record "$2" "from its mail server" "$(inbound "$2" "$1")"
	record "$2" "to $3's relay" "$(outbound "$2" partners)"
	record "$3" "from $2's relay" "$(inbound "$3" "$1")"
	record "$3" "to its mail server" "$(outbound "$3" mailboxes)"
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

start_capture() { # NAME FILTER
	tcpdump -i lo -U --immediate-mode -Z root -w "$dir/$1.pcap" "$2" 2>"$dir/$1.tcpdump" 9>&- &
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
	say "Between the relays ($dir/partner.pcap, from byte ${at:-?}, a TLS record of ${record:-?}):"
	dump partner "${at:-0}"
	claim "that record is longer than the message, $size bytes" test "${record:-0}" -gt "$size"
	say "$(printf '       %-42s %5s %13s' 'how often is it readable' 'plain' 'mutual TLS')"
	compare "Subject: $subject" 1 0
	compare "$secret" 1 0
	compare "alice@adatum.test" 3 0
	compare "250-STARTTLS" 0 1
}

# ---- strangers

# knock ORG FROM TO ARGUMENT...: a message from outside; prints the reply
knock() {
	swaks_to "${address[$1]}" "${port[smtp]}" stranger.swaks --helo mx.elsewhere.test --from "$2" \
		--to "$3" --header "Subject: stranger" "${@:4}"
	refusal stranger.swaks
}

# answers WHAT CODE WORDS REPLY: the reply has that code, and ends in these words
answers() {
	say "$1:"
	claim "$4" matches "$2 *$3" "$4"
}

certificate() { printf -- '--tls --tls-cert %s.pem --tls-key %s.key' "$pki/$1" "$pki/$1"; } # NAME

# ---- an open session, by hand

# open_session ORG CERTIFICATE: greeted and under TLS, as the owner of the certificate
open_session() {
	coproc TALK { exec openssl s_client -quiet -crlf -starttls smtp -connect \
		"${address[$1]}:${port[smtp]}" -cert "$pki/$2.pem" -key "$pki/$2.key" 2>"$dir/talk.log" 9>&-; }
	# shellcheck disable=SC2153 # coproc sets it
	talk_pid=$TALK_PID
}

# speak LINE...: sends the lines; the last line of the one reply is in reply, and shown
reply=
speak() {
	printf '%s\n' "$@" >&"${TALK[1]}"
	while IFS= read -r -t 20 reply <&"${TALK[0]}"; do
		reply=${reply%$'\r'}
		[[ $reply != [2-5][0-9][0-9]-* ]] || continue
		[[ $reply != [2-5][0-9][0-9]\ * ]] || break
	done
	printf ' -> %s\n<-  %s\n' "$1" "$reply" | show
}

# ---- the demo in User-Mode Linux: the same exchange, told shorter

run_guest() {
	expected_record=kernel
	rm -rf "$dir"
	mkdir -p "$dir"
	start_servers
	say "$(uname -sr); $("$postern" --version | grep 'ktls TLSv1.3 AES-256-GCM')"
	cat /proc/net/tls_stat >"$dir/stat-before"
	claim "alice's message was accepted" send adatum alice@adatum.test bob@treyresearch.test
	claim "bob's message was accepted" send treyresearch bob@treyresearch.test alice@adatum.test
	claim "bob has alice's message, to the byte" \
		same_body "$(mails treyresearch bob@treyresearch.test)" "$dir/alice.eml"
	claim "alice has bob's message, to the byte" \
		same_body "$(mails adatum alice@adatum.test)" "$dir/bob.eml"
	claim_has "alice's came from a partner that had proved domain=adatum.test" \
		"role=partner domain=adatum.test" "$(message_of treyresearch alice@adatum.test)"
	claim_has "bob's came from a partner that had proved domain=treyresearch.test" \
		"role=partner domain=treyresearch.test" "$(message_of adatum bob@treyresearch.test)"
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
	[ -x "$posternctl" ] || die "$posternctl is not built: make"
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
		say "    for everybody       ${address[$org]}:${port[smtp]}, mx.$org.test in the DNS"
		say "    for its mail server 127.0.0.1:${port[$org-inside]}, by the key of its certificate"
		say "    the mail server     127.0.0.1:${port[$org-hop]}, $hop_name"
	done
	say "What makes partners of them, from $dir/adatum.conf:"
	sed -n '/^partner "treyresearch"/,/^}/p; /^receive-connector "partners"/,/^}/p
		/^send-connector "partners"/,/^}/p' "$dir/adatum.conf" | sed "s|$top/||" | show
}

# ask CONFIG COMMAND...: an answer of posternctl, in answer; its status in status
answer='' status=0
ask() {
	local word words=
	for word in "${@:2}"; do
		[[ $word != *" "* ]] || word="\"$word\""
		words+=" $word"
	done
	echo "\$ posternctl$words" | sed "s|$pki/||" | fold -sw 96 | sed 's/^/   /; 2,$s/^/    /'
	status=0
	answer=$("$posternctl" --config "$dir/$1.conf" "${@:2}" 2>&1) || status=$?
}

run_tools() {
	local here=${address[adatum]}:${port[smtp]}
	heading "Before the first message: is all as it should be? (posternctl, at adatum)"
	ask adatum config lint
	show_lines <<<"$answer"
	claim "one finding, the connector that is there for comparison" \
		test "$status $(grep -c . <<<"$answer") $(grep -c 'connector "plain"' <<<"$answer")" = "1 1 1"
	ask adatum partner check treyresearch.test --host "${address[treyresearch]}:${port[smtp]}"
	show_lines <<<"$answer"
	claim "nothing stands between us and secured mail" test $status = 0
	ask adatum connector match --from "${address[treyresearch]}" --to "$here"
	show <<<"$answer"
	claim "the partner's relay is served by its own connector" grep -q '^partners *serves' <<<"$answer"
	ask adatum connector match --from 127.0.0.1 --to "$here"
	claim "others, at the same address and port, by \"internet\"" \
		grep -q '^internet *serves' <<<"$answer"
}

run_mail() {
	heading "alice@adatum.test writes to bob@treyresearch.test (swaks plays adatum's mail server)"
	claim "the message was accepted" send adatum alice@adatum.test bob@treyresearch.test
	sed '1,/^ -> STARTTLS/{/^=== \(Tr\|C\)/d}' "$dir/alice.swaks" |
		sed '/^ -> EHLO/,/^<-  250 /{/STARTTLS/!{/EHLO/!d}}; /^<~  250-/d' | show
	if [ -z "${hop_pid[treyresearch]:-}" ]; then
		claim "nothing was stored on the way: the last reply is that of treyresearch's Postfix" \
			grep -q "$(sed -n 's/.*250 2.0.0 Ok: .* queued as //p' "$dir/alice.swaks"): client=" \
			"$dir/treyresearch-hop/mail.log"
	fi

	if [ -n "${hop_pid[treyresearch]:-}" ]; then
		heading "bob writes to alice (swaks plays treyresearch's mail server)"
		claim "the message was accepted" send treyresearch bob@treyresearch.test alice@adatum.test
		sed -n '/^ ~> MAIL/,/^<~  354/p; /^ ~> \.$/,$p' "$dir/bob.swaks" | show
	else
		heading "bob writes to alice (at treyresearch's Postfix, whose way out is its relay; its log)"
		claim "the message was sent" send_inside treyresearch bob@treyresearch.test alice@adatum.test
		grep -E 'TLS connection established to|to=<alice@' "$dir/treyresearch-hop/mail.log" |
			sed 's/^.*\]: //' | show_lines
	fi

	heading "Who proved what to whom, on the way of alice's message (from the logs)"
	legs alice@adatum.test adatum treyresearch show
	heading "And on the way of bob's"
	legs bob@treyresearch.test treyresearch adatum ''

	heading "Who encrypts the records, the kernel or the relay itself"
	all_records alice@adatum.test adatum treyresearch
	all_records bob@treyresearch.test treyresearch adatum
}

run_mailbox() {
	local mail header mx=mx.treyresearch.test
	heading "The message in bob's mailbox"
	until_true 15 has_mails treyresearch bob@treyresearch.test 1
	until_true 15 has_mails adatum alice@adatum.test 1
	mail=$(mails treyresearch bob@treyresearch.test)
	say "$mail"
	show <"$mail"
	header=$(header_of "$mail" | sed -z 's/\n[ \t]\+/ /g')
	claim "its text is alice's, to the byte" same_body "$mail" "$dir/alice.eml"
	claim_has "Received says whose certificate it was and which domain that proves" \
		'client certificate "CN=mx.adatum.test,O=adatum" verified for adatum.test' "$header"
	claim "Authentication-Results says so to programs: x-domain-secure=pass, policy.domain" grep -q \
		"^Authentication-Results: $mx; x-domain-secure=pass (.*) policy.domain=adatum.test\$" \
		<<<"$header"
	claim_has "and in Exchange's words, AuthAs: Partner" \
		"X-MS-Exchange-Organization-AuthAs: Partner" "$header"
	claim "alice's mailbox has one message, whose text is bob's to the byte" \
		same_body "$(mails adatum alice@adatum.test)" "$dir/bob.eml"
}

run_protocol() {
	local rows session=''
	heading "The session between the relays in treyresearch's protocol log"
	session=$(field "$(message_of treyresearch alice@adatum.test)" session)
	rows_of_session() { rows=$(cat "$dir"/treyresearch-protocol/*.LOG | grep -F ",$session,"); }
	until_true 10 eval "rows_of_session && grep -q 'BDAT\|DATA' <<<\"\$rows\" &&
		grep -q '>,250 2.0.0' <<<\"\$rows\""
	printf '%s\n' "$dir"/treyresearch-protocol/*.LOG | show
	say "sequence-number, event, data, context (left out: time, connector, session, endpoints)"
	cut -d, -f4,7- <<<"$rows" | show_lines
	claim_has "with the certificate, as it was judged for the domain" \
		"TlsDomain='adatum.test'; Status='Valid'" "$rows"
	claim "the rows are numbered without a gap" \
		eval "diff <(cut -d, -f4 <<<\"\$rows\") <(seq 0 \$((\$(wc -l <<<\"\$rows\") - 1))) >/dev/null"
}

run_wire() {
	heading "What somebody on the wire sees"
	if [ ${#captures[@]} = 0 ]; then
		say "skipped: to capture packets takes root and tcpdump"
		return
	fi
	swaks_to 127.0.0.1 "${port[treyresearch-plain]}" plain.swaks --helo mx.adatum.test \
		--from alice@adatum.test --to bob@treyresearch.test --data "@$dir/alice.eml" ||
		die "no session without TLS"
	sleep 0.3 # the last packets
	stop_captures
	show_wire
}

run_strangers() {
	local from=alice@adatum.test bob=bob@treyresearch.test before words
	heading "Strangers who write as alice@adatum.test, from elsewhere"
	before=$(mails treyresearch $bob | wc -l)
	answers "In clear text" "451 4.7.3" "needs mutual TLS: STARTTLS was not used" \
		"$(knock treyresearch $from $bob)"
	answers "With TLS, without a certificate" 454 EmptyCertificate \
		"$(knock treyresearch $from $bob --tls)"
	# shellcheck disable=SC2046 # words
	answers "With adatum's name, in a certificate of another authority" 454 UntrustedRoot \
		"$(knock treyresearch $from $bob $(certificate other))"
	# shellcheck disable=SC2046 # words
	answers "With the certificate of northwind.test, who is a partner, too" 454 SubjectMismatch \
		"$(knock treyresearch $from $bob $(certificate northwind))"
	tell_log treyresearch 'event=refused .*why=subject-mismatch'
	claim "nothing of that reached bob" test "$(mails treyresearch $bob | wc -l)" = "$before"
	# shellcheck disable=SC2046 # words
	answers "The same certificate, for mail of its own domain" 250 "" \
		"$(knock treyresearch eve@northwind.test carol@treyresearch.test $(certificate northwind))"
	answers "And a domain that nobody lists, in clear text" 250 "" \
		"$(knock treyresearch dave@woodgrove.test carol@treyresearch.test)"

	heading "The same asked of posternctl, before anybody tries"
	words=(--from 127.0.0.1 --to "${address[treyresearch]}:${port[smtp]}" --tls yes --cert
		"$pki/northwind.pem" --ehlo mx.elsewhere.test --mail-from "$from" --rcpt "$bob")
	ask treyresearch explain "${words[@]}"
	grep -v ' key sha256 ' <<<"$answer" | show_lines
	claim "its reply is the one that the relay gave" \
		grep -q 'reply  *454 4.7.5 Certificate validation failure: SubjectMismatch$' <<<"$answer"
}

run_forger() {
	local mail header
	heading "A partner that lies: northwind.test forges the fields that a relay writes"
	write_message eve@northwind.test bob@treyresearch.test "$dir/eve.plain"
	printf '%s\n' 'X-MS-Exchange-Organization-AuthAs: Internal' \
		'X-MS-Exchange-Organization-AuthDomain: adatum.test' \
		'Authentication-Results: mx.treyresearch.test; x-domain-secure=pass policy.domain=adatum.test' \
		'Authentication-Results: mx.elsewhere.test; dkim=pass' |
		cat - "$dir/eve.plain" >"$dir/eve.eml"
	say "Sent:"
	head -n 4 "$dir/eve.eml" | show
	# shellcheck disable=SC2046 # words
	swaks_to "${address[treyresearch]}" "${port[smtp]}" eve.swaks --helo mx.northwind.test \
		--from eve@northwind.test --to erin@treyresearch.test --data "@$dir/eve.eml" \
		$(certificate northwind)
	claim "accepted: $(refusal eve.swaks)" matches '250 *' "$(refusal eve.swaks)"
	until_true 15 has_mails treyresearch erin@treyresearch.test 1
	mail=$(mails treyresearch erin@treyresearch.test)
	header=$(header_of "${mail:-/dev/null}" | sed -z 's/\n[ \t]\+/ /g')
	say "In the mailbox:"
	grep -E '^(X-MS-Exchange|Authentication-Results)' <<<"$header" | show_lines
	claim "nothing there says adatum.test or Internal" \
		eval "[ -n \"\$mail\" ] && ! grep -qE 'adatum\.test|Internal' <<<\"\$header\""
	claim "what our relay proved is there: Partner, northwind.test" eval "
		grep -q 'AuthAs: Partner' <<<\"\$header\" &&
		grep -q 'mx.treyresearch.test; .*policy.domain=northwind.test' <<<\"\$header\""
	claim "results of others are left alone" \
		grep -q '^Authentication-Results: mx.elsewhere.test; dkim=pass' <<<"$header"
}

run_downgrade() {
	local log=$dir/northwind-hop.log
	heading "alice writes to northwind.test, whose STARTTLS somebody has taken away"
	start_mailbox northwind "${address[northwind]}" "${port[smtp]}" - - -
	: >"$log"
	send adatum alice@adatum.test nora@northwind.test
	answers "To adatum's mail server" "451 4.7.3" "" "$(refusal alice.swaks)"
	tell_log adatum 'event=nexthop-failed .*status=TlsNotStarted'
	say "All that northwind's server was told:"
	sed -n 's/^command //p' "$log" | show
	claim "no MAIL, no address, no message" \
		eval "grep -q '^command EHLO' '$log' && ! grep -qiE 'MAIL|RCPT|@|$subject' '$log'"
	ask adatum partner check northwind.test --host "${address[northwind]}:${port[smtp]}"
	sed -n '/^host/,$p' <<<"$answer" | show_lines
	claim "one thing fails, and it is on the partner's side" \
		grep -q 'FAIL *STARTTLS' <<<"$(grep -w FAIL <<<"$answer" | head -n -1)"
}

run_revocation() {
	local serial
	heading "treyresearch's certificate is revoked while a session is open (adatum's relay, by hand)"
	open_session adatum treyresearch
	speak 'EHLO mx.treyresearch.test'
	speak 'MAIL FROM:<bob@treyresearch.test>'
	claim "the certificate still holds" test "${reply%% *}" = 250
	speak RSET
	say "Now it goes on the authority's list ($dir/treyresearch.crl), and adatum's relay gets SIGHUP."
	revoke treyresearch || die "no list: $dir/revoke.log"
	serial=$(openssl x509 -in "$pki/treyresearch.pem" -noout -serial)
	claim_has "the list names it: $serial" "Serial Number: ${serial#*=}" \
		"$(openssl crl -in "$dir/treyresearch.crl" -noout -text)"
	kill -HUP "${relay_pid[adatum]}"
	tell_log adatum 'event=reload result=ok'
	speak 'MAIL FROM:<bob@treyresearch.test>'
	claim "the same session, the same certificate: refused" \
		test "$reply" = "454 4.7.5 Certificate validation failure: Revoked"
	tell_log adatum 'event=refused .*status=Revoked'
	speak QUIT
	ended "$talk_pid" 5
	talk_pid=
	send adatum alice@adatum.test bob@treyresearch.test
	answers "And alice, who writes to bob once more" 454 Revoked "$(refusal alice.swaks)"
}

# counted NAME COUNT: what treyresearch's relay said at its end
counted() {
	claim "$(printf '%-30s %s' "$1" "$(field "$stats" "$1")")" test "$(field "$stats" "$1")" = "$2"
}

run_door() {
	local status=0
	heading "The door: partners' addresses in the kernel"
	if [ "$(id -u)" != 0 ] || ! unshare --net --mount --pid --fork true 2>/dev/null; then
		say "not shown: it needs root, and namespaces of its own"
		return
	fi
	mkdir -p "$dir/door"
	unshare --net --mount --pid --fork --mount-proc --kill-child \
		tests/demo/door.sh "$dir/door" >"$dir/door.out" 2>&1 || status=$?
	cat "$dir/door.out"
	[ "$status" != 77 ] || return 0
	true_count=$((true_count + $(grep -c '^   ok ' "$dir/door.out")))
	false_count=$((false_count + $(grep -c '^   FALSE ' "$dir/door.out")))
	claim "the door was shown to its end" test "$status" = 0
}

run_end() {
	local stats
	heading "The end"
	claim "adatum's relay took SIGTERM, let its sessions end, and ended" stop_relay adatum
	claim "treyresearch's relay too" stop_relay treyresearch
	stats="$(grep 'event=stats' "$dir/treyresearch.log" | tail -n 1)"
	say "It has counted:"
	counted messages_secured 3 # alice's, and two of northwind's: as itself, and the forger's
	counted messages_sent_secured 1
	counted secure_refused_no_tls 1
	counted secure_refused_no_certificate 1
	counted secure_refused_chain 1
	counted secure_refused_name 1
	counted headers_removed 3
	stop_hops
	claim "nothing is left running, nothing mounted" until_true 5 nothing_is_left
	leftovers | show
	say "Logs, configurations, mailboxes and captures: $dir"
}

run_demo() {
	local at
	prepare
	echo "${bold}Postern: two organisations, Domain Security, real mail both ways$plain"
	heading "Two organisations, each with an authority of its own"
	make_certificates
	tell_certificates
	start_guest
	heading "Two relays, a mail server behind each"
	start_servers
	tell_servers
	[ "$expected_record" != kernel ] || cat /proc/net/tls_stat >"$dir/stat-before"
	run_tools
	if [ "$(id -u)" = 0 ] && command -v tcpdump >/dev/null; then
		at="host ${address[treyresearch]} and" # as the server: its relay is a client, too
		start_capture partner "tcp and (dst $at dst port ${port[smtp]} or src $at src port ${port[smtp]})"
		start_capture plain "tcp port ${port[treyresearch-plain]}"
	fi
	run_mail
	if [ "$expected_record" = kernel ]; then
		cat /proc/net/tls_stat >"$dir/stat-after"
		kernel_counts
	fi
	run_mailbox
	run_protocol
	run_wire
	run_strangers
	run_forger
	run_downgrade
	run_revocation
	run_queue
	run_door
	if [ -n "$guest_pid" ]; then
		heading "Mail both ways once more, on a kernel that has TLS (User-Mode Linux)"
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
