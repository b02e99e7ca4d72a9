#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# postfix.sh start DIR [--listen HOST:PORT] [--tls-cert F --tls-key F] [--require-client-cert CAFILE]
#                      [--relayhost [HOST]:PORT [--client-cert F --client-key F] [--tls-cafile F]
#                       [--tls-level none|may|encrypt|verify|secure] [--verify-name NAME]]
#                      [--domains D,D...] [--hostname NAME] [--set PARAMETER=VALUE]...
# postfix.sh send DIR FROM TO... <MESSAGE
# postfix.sh wait DIR [SECONDS]
# postfix.sh stop DIR
#
# A Postfix of its own in DIR (configuration, queue, mail, log), run by run-in.sh as root. Any
# number may run at once, each in its own DIR.
#
# start returns when the port greets, or with status 1 and the reason. DIR/pid holds the process
# id. Queue and mail of an earlier run in DIR are kept. Mail for D,D... (without --relayhost: for
# every domain) is delivered to maildirs, DIR/maildir/USER@DOMAIN/new/*, names in lower case; all
# other mail goes to the relayhost. A client certificate that is required must come from CAFILE,
# and mail without TLS is then refused; with --tls-cert alone STARTTLS is only offered. F are
# copied. The level is encrypt unless said; NAME is the name that verify and secure look for in the
# relayhost's certificate. A bounce goes to DIR/maildir/SENDER, never to the relayhost. A
# delivery that was put off is tried again every 5 seconds. --set writes to main.cf, last.
#
# send gives MESSAGE (lines end in LF) to Postfix's sendmail; FROM may be ''. It returns when the
# message is queued; wait returns when the queue is empty, status 1 if it is not so within
# SECONDS (30). DIR/mail.log says what happened: "status=sent", "Trusted TLS connection ...".
#
# stop ends all its processes; well if none runs.
#
# Exit: 0 done, 1 failed, 2 wrong usage, 77 peers cannot be run here (run-in.sh).

# shellcheck source=tests/peers/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
OPTIONS=(listen tls-cert tls-key require-client-cert relayhost client-cert client-key tls-level
	tls-cafile verify-name domains hostname set)

write_master() { # LISTEN
	[ -z "$1" ] || echo "$1 inet n - n - - smtpd"
	cat <<-CF
		pickup unix n - n 60 1 pickup
		cleanup unix n - n - 0 cleanup
		qmgr unix n - n 300 1 qmgr
		tlsmgr unix - - n 1000? 1 tlsmgr
		tlsproxy unix - - n - 0 tlsproxy
		rewrite unix - - n - - trivial-rewrite
		bounce unix - - n - 0 bounce
		defer unix - - n - 0 bounce
		trace unix - - n - 0 bounce
		verify unix - - n - 1 verify
		flush unix n - n 1000? 0 flush
		proxymap unix - - n - - proxymap
		proxywrite unix - - n - 1 proxymap
		smtp unix - - n - - smtp
		showq unix n - n - - showq
		error unix - - n - - error
		retry unix - - n - - error
		discard unix - - n - - discard
		peer unix - n n - - pipe flags=DRhu user=peer null_sender= argv=/usr/lib/peers/deliver.sh \${recipient}
		anvil unix - - n - 1 anvil
		scache unix - - n - 1 scache
		postlog unix-dgram n - n - 1 postlogd
	CF
}

write_main() {
	cat <<-CF
		compatibility_level = 3.6
		myhostname = $hostname
		queue_directory = /peer/queue
		data_directory = /peer/data
		maillog_file = /peer/mail.log
		maillog_file_prefixes = /peer
		daemon_directory = /usr/lib/postfix/sbin
		inet_interfaces = all
		inet_protocols = all
		mynetworks = 127.0.0.0/8 [::1]/128
		mydestination =
		alias_maps =
		alias_database =
		biff = no
		append_dot_mydomain = no
		local_header_rewrite_clients =
		message_size_limit = 209715200
		mailbox_size_limit = 0
		queue_run_delay = 5s
		minimal_backoff_time = 5s
		maximal_backoff_time = 5s
		in_flow_delay = 0
		smtp_dns_support_level = disabled
		smtpd_peername_lookup = no
		smtpd_error_sleep_time = 0
		smtpd_relay_restrictions = permit_mynetworks, reject
		header_checks = regexp:/peer/etc/header_checks
		nested_header_checks =
		internal_mail_filter_classes = bounce
		virtual_mailbox_domains = ${domains:-static:all}
		virtual_transport = peer
		peer_destination_recipient_limit = 1
	CF
	if [ -n "$tls_cert" ]; then
		cat <<-CF
			smtpd_tls_chain_files = /peer/tls/server.pem
			smtpd_tls_loglevel = 1
			smtpd_tls_received_header = yes
		CF
	fi
	if [ -n "$tls_cert" ] && [ -z "$require_client_cert" ]; then
		echo "smtpd_tls_security_level = may"
	elif [ -n "$require_client_cert" ]; then
		cat <<-CF
			smtpd_tls_security_level = encrypt
			smtpd_tls_req_ccert = yes
			smtpd_tls_CAfile = /peer/tls/client-ca.pem
		CF
	fi
	if [ -n "$relayhost" ]; then
		cat <<-CF
			relayhost = $relayhost
			smtp_tls_security_level = $tls_level
			smtp_tls_loglevel = 1
			smtp_tls_verify_cert_match = $verify_name
			smtp_tls_secure_cert_match = $verify_name
		CF
		[ -z "$tls_cafile" ] || echo "smtp_tls_CAfile = /peer/tls/relayhost-ca.pem"
		[ -z "$client_cert" ] || echo "smtp_tls_chain_files = /peer/tls/client.pem"
	fi
	printf '%s\n' ${sets[@]+"${sets[@]}"}
}

start() {
	local listen='' tls_cert='' tls_key='' require_client_cert='' relayhost='' client_cert=''
	local client_key='' tls_level=encrypt tls_cafile='' verify_name=nexthop domains=''
	local hostname=mx.peer.test sets=() rest dir ready
	[ $# -gt 0 ] || usage
	dir=$(peer_dir "$1")
	shift
	read_options "$@"
	if [ ${#rest[@]} -gt 0 ] || [ -z "$listen$relayhost" ]; then usage; fi
	[[ " ${sets[*]} " != *" smtpd_upstream_proxy_protocol=haproxy "* ]] ||
		ANSWERS_AFTER='PROXY TCP4 127.0.0.1 127.0.0.1 1 25\r\n'
	# With a relayhost a domain is at home only if it was named.
	[ -z "$relayhost" ] || domains=${domains:-peer.invalid}
	may_start "$dir"

	mkdir -p "$dir/etc" "$dir/tls" "$dir/queue" "$dir/data" "$dir/maildir"
	[ -z "$tls_cert" ] || tls_files "$dir" server "$tls_cert" "$tls_key"
	[ -z "$client_cert" ] || tls_files "$dir" client "$client_cert" "$client_key"
	[ -z "$require_client_cert" ] || cp "$require_client_cert" "$dir/tls/client-ca.pem"
	[ -z "$tls_cafile" ] || cp "$tls_cafile" "$dir/tls/relayhost-ca.pem"
	write_master "$listen" >"$dir/etc/master.cf"
	# The last line about a parameter stands alone; Postfix would warn about the others.
	write_main | awk -F '[ =]' '!($1 in line) { name[++n] = $1 } { line[$1] = $0 }
		END { for (i = 1; i <= n; i++) print line[name[i]] }' >"$dir/etc/main.cf"
	# Its own bounces only: those of other systems name a host.
	echo '/^From: Mail Delivery System <MAILER-DAEMON>$/ FILTER peer:' >"$dir/etc/header_checks"
	touch -d '1 minute ago' "$dir/etc/"* # Postfix waits until a configuration file is a second old

	ready="test -S $dir/queue/public/pickup"
	[ -z "$listen" ] || ready="answers $listen"
	rm -f "$dir/queue/public/pickup"
	peer_start "$dir" "$ready" "$PEERS/postfix.sh" --inside
}

# What "postfix start" does, without its many checks, which take a second.
inside() {
	cd /peer/queue
	mkdir -p pid public maildrop active bounce corrupt defer deferred flush hold incoming private saved trace
	chown postfix:postdrop public maildrop
	chmod 730 maildrop
	chmod 710 public
	chown postfix active bounce corrupt defer deferred flush hold incoming private saved trace /peer/data
	chmod 700 active bounce corrupt defer deferred flush hold incoming private saved trace /peer/data
	chown peer /peer/maildir
	exec /usr/lib/postfix/sbin/master -c /peer/etc
}

send() {
	local dir=$1 from=$2
	shift 2
	dir=$(cd "$dir" && pwd)
	"$PEERS/run-in.sh" --bind "$dir:/peer" sendmail -C /peer/etc -i -f "${from:-<>}" -- "$@"
}

wait_empty() {
	local dir=$1 tries empty=0
	for ((tries = ${2:-30} * 10; tries > 0; tries--)); do
		if (cd "$dir/queue" && find maildrop incoming active deferred -type f) 2>/dev/null | grep -q .; then
			empty=0
		else
			empty=$((empty + 1)) # one look may miss a message on its way from folder to folder
		fi
		[ "$empty" -lt 2 ] || return 0
		sleep 0.1
	done
	tail -n 5 "$dir/mail.log" >&2
	die "the queue is not empty after ${2:-30} seconds"
}

command=${1:-}
shift || usage
case $command in
--inside) inside ;;
start) start "$@" ;;
send) [ $# -ge 3 ] || usage && send "$@" ;;
wait) [ $# -ge 1 ] || usage && wait_empty "$@" ;;
stop) [ $# -eq 1 ] || usage && peer_stop "$1" ;;
*) usage ;;
esac
