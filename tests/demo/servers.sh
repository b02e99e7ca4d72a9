# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# servers.sh: the certificates, configurations and servers of the demo. Read by demo.sh, which sets
# $top, $dir, $pki, $postern and $guest and reads print.sh first; never run.
# shellcheck disable=SC2154,SC2034

# ---- certificates: tests/pki.sh makes the authorities and the relays' own; here are the others

# issue NAME ORG: NAME.ORG.pem and .key, for client and server, from the organisation's authority
issue() {
	local issuer=$pki/$2-ca name=$1.$2 # not adatum's intermediate: swaks shows no chain
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$pki/$name.key" \
		-subj "/O=$2/CN=$name.test" -out "$pki/$name.csr" &&
		openssl x509 -req -in "$pki/$name.csr" -CA "$issuer.pem" -CAkey "$issuer.key" -days 30 \
			-extfile <(printf '%s\n' basicConstraints=critical,CA:FALSE \
				extendedKeyUsage=serverAuth,clientAuth "subjectAltName=DNS:$name.test") \
			-out "$pki/$name.pem"
}

make_certificates() {
	timeout 60 tests/pki.sh "$pki" || die "no certificates"
	{ issue mail adatum && issue mail treyresearch; } >"$dir/issue.log" 2>&1 ||
		die "no certificates: $dir/issue.log"
}

# revoke ORG: puts the certificate of its relay on the list of its authority, which is $dir/ORG.crl
revoke() {
	local signed_by=(-cert "$pki/$1-ca.pem" -keyfile "$pki/$1-ca.key")
	: >"$dir/revoked"
	printf '%s\n' '[ca]' 'default_ca = it' '[it]' "database = $dir/revoked" 'default_md = sha256' \
		'default_crl_days = 30' >"$dir/revoke.conf"
	{
		openssl ca -config "$dir/revoke.conf" "${signed_by[@]}" -revoke "$pki/$1.pem" &&
			openssl ca -config "$dir/revoke.conf" "${signed_by[@]}" -gencrl -out "$dir/new.crl" &&
			mv "$dir/new.crl" "$dir/$1.crl"
	} >"$dir/revoke.log" 2>&1
}

name_of() { openssl x509 -in "$pki/$1.pem" -noout -nameopt RFC2253 "-$2" | sed "s/^$2=//"; }

# SHA-256 of a certificate's public key, by another program than the relay.
spki_of() {
	openssl x509 -in "$1" -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum |
		cut -d' ' -f1
}

# ---- ports. Each organisation has an address of its own, and all have one SMTP port.

taken=' '
declare -A port=() hop_pid=() relay_pid=()
declare -A address=([adatum]=127.40.0.1 [treyresearch]=127.40.0.2 [northwind]=127.40.0.3)

# free_port NAME: a port that nobody has, in port[NAME]
free_port() {
	local number
	while :; do
		number=$((20000 + RANDOM % 10000))
		[[ $taken != *" $number "* ]] || continue
		(exec 3<>"/dev/tcp/127.0.0.1/$number") 2>/dev/null ||
			(exec 3<>"/dev/tcp/127.40.0.1/$number") 2>/dev/null || break
	done
	taken+="$number "
	port[$1]=$number
}

greets() { # ADDRESS PORT
	local line
	(
		exec 3<>"/dev/tcp/$1/$2" || exit 1
		read -r -t 5 line <&3 && [[ $line == 220* ]]
	) 2>/dev/null
}

# ---- the name server: who takes mail for which domain

start_dns() {
	local org records=()
	for org in "${!address[@]}"; do
		records+=("--mx-host=$org.test,mx.$org.test,10" "--host-record=mx.$org.test,${address[$org]}")
	done
	dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces \
		--listen-address=127.0.0.1 --port="${port[dns]}" --user="$(id -un)" --pid-file= --local=/test/ \
		--cache-size=0 "${records[@]}" >"$dir/dns.log" 2>&1 9>&- &
	dns_pid=$!
	until_true 10 eval "(exec 3<>/dev/tcp/127.0.0.1/${port[dns]}) 2>/dev/null" ||
		die "no name server: $dir/dns.log"
}

# ---- mail servers

# start_mailbox NAME ADDRESS PORT CERT KEY CA: our own stand-in for a mail server; "-" is no TLS
start_mailbox() {
	/usr/bin/python3 tests/demo/mailbox.py "$2:$3" "${@:4:3}" "$dir/$1-hop/maildir" \
		>"$dir/$1-hop.log" 2>&1 9>&- &
	hop_pid[$1]=$!
	until_true 20 greets "$2" "$3" || die "no mail server: $dir/$1-hop.log"
}

# refused_by ORG: the one recipient whom its mail server does not have, as Postfix is told
refused_by() {
	echo "check_recipient_access inline:{ { nobody@$1.test = 550 5.1.1 No mailbox of that name } }"
}

hop_name=
start_hop() { # ORG
	local org=$1 status=77
	local cert=$pki/mail.$org.pem key=$pki/mail.$org.key ca=$pki/$org-ca.pem
	if [ -z "$guest" ]; then
		status=0
		timeout 240 tests/peers/postfix.sh start "$dir/$org-hop" \
			--listen "127.0.0.1:${port[$org-hop]}" --tls-cert "$cert" --tls-key "$key" \
			--require-client-cert "$ca" --domains "$org.test" --hostname "mail.$org.test" \
			--relayhost "[127.0.0.1]:${port[$org-inside]}" --client-cert "$cert" \
			--client-key "$key" --tls-cafile "$ca" --tls-level verify \
			--verify-name "mx.$org.test" --set "smtpd_recipient_restrictions=$(refused_by "$org")" \
			>"$dir/$org-hop.log" 2>&1 || status=$?
	fi
	case $status in
	0) hop_name="Postfix $(sed -n 's/.*daemon started -- version \([^,]*\).*/\1/p' \
		"$dir/$org-hop/mail.log")" ;;
	77)
		hop_name="tests/demo/mailbox.py (no Postfix: $(tail -n 1 "$dir/$org-hop.log" 2>/dev/null))"
		start_mailbox "$org" 127.0.0.1 "${port[$org-hop]}" "$cert" "$key" "$ca"
		;;
	*) die "Postfix does not start: $dir/$org-hop.log" ;;
	esac
}

# ---- relays

# lists ORG: the revocation lists of its authorities, as a value of the configuration
lists() {
	case $1 in
	adatum) echo "\"$top/$pki/adatum-ca.crl\", \"$top/$pki/adatum-int.crl\"" ;;
	*) echo "\"$top/$dir/$1.crl\"" ;;
	esac
}

# Not in User-Mode Linux, whose files are those of the machine.
queue_settings() { # ORG
	[ -z "$guest" ] || return 0
	cat <<-CONF
		    control-socket = "$top/$dir/$1-control"
		    spool-folder = "$top/$dir/$1-spool"
		    spool-segment-size = "4MB"
		    tracking-log-folder = "$top/$dir/$1-tracking"
		    tracking-log-subject = no
	CONF
}

queue_connector() { # ORG
	[ -z "$guest" ] || return 0
	cat <<-CONF
		receive-connector "northwind" {
		    ktls = on
		    type = partner
		    bindings = {"${address[$1]}:${port[smtp]}"}
		    remote-ip-ranges = {"${address[northwind]}"}
		    certificate = "mx"
		    deliver = queue
		    send-connector = "mailboxes"
		}
	CONF
}

write_config() { # ORG PARTNER
	local org=$1 partner=$2
	cat <<-CONF
		transport {
		    fqdn = "mx.$org.test"
		    workers = 1
		    bpf = off
		    accepted-domains = {"$org.test"}
		    dns-servers = {"127.0.0.1:${port[dns]}"}
		    protocol-log-folder = "$top/$dir/$org-protocol"
		$(queue_settings "$org")
		}
		certificate "mx" {
		    chain = "$top/$pki/$org.pem"
		    key = "$top/$pki/$org.key"
		}

		# Who must prove its domain, and by which authority.
		partner "$partner" {
		    domains = {"$partner.test"}
		    trust-anchors = "$top/$pki/$partner-ca.pem"
		    crl-files = {$(lists "$partner")}
		}
		partner "northwind" {
		    domains = {"northwind.test"}
		    trust-anchors = "$top/$pki/northwind-ca.pem"
		}
		# Our own mail server, known by its key.
		internal-server "mail" {
		    spki-pins = {"$(spki_of "$pki/mail.$org.pem")"}
		}

		receive-connector "partners" {
		    ktls = on
		    type = partner
		    bindings = {"${address[$org]}:${port[smtp]}"}
		    remote-ip-ranges = {"${address[$partner]}"}
		    certificate = "mx"
		    protocol-logging = verbose
		    send-connector = "mailboxes"
		}
		$(queue_connector "$org")
		receive-connector "internet" {
		    ktls = on
		    type = internet
		    bindings = {"${address[$org]}:${port[smtp]}"}
		    certificate = "mx"
		    permission-groups = {anonymous, partners}
		    domain-secure = yes
		    tarpit-interval = "200ms"
		    send-connector = "mailboxes"
		}
		receive-connector "inside" {
		    ktls = on
		    type = internal
		    bindings = {"127.0.0.1:${port[$org-inside]}"}
		    require-tls = yes
		    certificate = "mx"
		}
		receive-connector "plain" { # for comparison only
		    bindings = {"127.0.0.1:${port[$org-plain]}"}
		    allow-unsecured-partners = yes
		    send-connector = "mailboxes"
		}

		send-connector "partners" {
		    ktls = on
		    address-spaces = {"$partner.test", "northwind.test"}
		    domain-secure = yes
		    certificate = "mx"
		    port = ${port[smtp]}
		    source-address = "${address[$org]}"
		}
		send-connector "mailboxes" {
		    ktls = on
		    address-spaces = {"--"}
		    smart-hosts = {"127.0.0.1:${port[$org-hop]}"}
		    trusted-next-hop = yes
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
	launch_relay "$1"
}

launch_relay() { # ORG
	"$postern" --config "$dir/$1.conf" 2>>"$dir/$1.log" 9>&- &
	relay_pid[$1]=$!
}

is_ready() { greets 127.0.0.1 "${port[$1-plain]}"; } # ORG

start_servers() {
	local org name
	free_port smtp
	free_port dns
	for org in adatum treyresearch; do
		for name in inside plain hop; do
			free_port "$org-$name"
		done
		mkdir -p "$dir/$org-hop"
	done
	cp "$pki/treyresearch-ca.crl" "$dir/treyresearch.crl"
	start_dns
	start_hop adatum
	start_hop treyresearch
	start_relay adatum treyresearch
	start_relay treyresearch adatum
	for org in adatum treyresearch; do
		until_true 20 is_ready "$org" || die "the relay does not run: $dir/$org.log"
	done
}

# ---- the end of each

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

# stop_relay ORG: as an administrator would, with SIGTERM
stop_relay() {
	local pid=${relay_pid[$1]}
	unset "relay_pid[$1]"
	kill -TERM "$pid" && ended "$pid" 10 && wait "$pid"
}

# kill_relay ORG: as no administrator should
kill_relay() {
	local pid=${relay_pid[$1]}
	unset "relay_pid[$1]"
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null
	[ ! -e "/proc/$pid" ]
}

stop_hop() { # ORG
	[ ! -e "$dir/$1-hop/pid" ] || timeout 30 tests/peers/postfix.sh stop "$dir/$1-hop" || return 1
	[ -z "${hop_pid[$1]:-}" ] || kill "${hop_pid[$1]}" 2>/dev/null
	unset "hop_pid[$1]"
}

stop_hops() {
	local org
	for org in "${!address[@]}"; do
		stop_hop "$org"
	done
	[ -z "${dns_pid:-}" ] || kill "$dns_pid" 2>/dev/null
	dns_pid=
}

leftovers() {
	local pid
	for pid in /proc/[0-9]*; do
		[ "${pid#/proc/}" != $$ ] || continue
		if tr '\0' ' ' <"$pid/cmdline" | grep -qF -e "$dir/" -e "--port=${port[dns]} " ||
			[ "$(stat -Lc %d:%i "$pid/root/peer")" = "$(stat -c %d:%i "$dir/adatum-hop")" ] ||
			[ "$(stat -Lc %d:%i "$pid/root/peer")" = "$(stat -c %d:%i "$dir/treyresearch-hop")" ]; then
			echo "process ${pid#/proc/}"
		fi
	done 2>/dev/null
	grep -F "$top/build/" /proc/self/mountinfo
}
nothing_is_left() { [ -z "$(leftovers)" ]; }
