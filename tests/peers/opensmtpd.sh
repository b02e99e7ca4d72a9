#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# opensmtpd.sh start DIR --listen HOST:PORT --relayhost HOST:PORT
#                        [--tls-cert F --tls-key F [--require-client-cert CAFILE]]
#                        [--client-cert F --client-key F] [--tls-cafile F --verify-name NAME]
#                        [--hostname NAME] [--set LINE]...
# opensmtpd.sh stop DIR
#
# An OpenSMTPD of its own in DIR (configuration, queue, log), run by run-in.sh as root. Any number
# may run at once, each in its own DIR.
#
# start returns when the port greets, or with status 1 and the reason. DIR/pid holds the process id.
# All mail goes to the relayhost. With --tls-cert STARTTLS is offered; with --require-client-cert it
# is demanded, and a certificate from CAFILE with it. With --tls-cafile the relayhost must do
# STARTTLS with a certificate from it for NAME, and sees the client certificate. --set puts a line
# into smtpd.conf, before all others. DIR/mail.log says what happened.
#
# stop ends all its processes; well if none runs.
#
# Exit: 0 done, 1 failed, 2 wrong usage, 77 peers cannot be run here (run-in.sh).

# shellcheck source=tests/peers/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PACKAGES=(--packages bench)
OPTIONS=(listen tls-cert tls-key require-client-cert relayhost client-cert client-key tls-cafile
	verify-name hostname set)

write_conf() {
	local tls='' relay
	printf '%s\n' ${sets[@]+"${sets[@]}"}
	if [ -n "$tls_cert" ]; then
		echo 'pki server cert "/peer/tls/server-cert.pem"'
		echo 'pki server key "/peer/tls/server-key.pem"'
		tls=' tls pki server'
	fi
	if [ -n "$require_client_cert" ]; then
		echo 'ca client cert "/peer/tls/client-ca.pem"'
		tls=' tls-require verify pki server ca client'
	fi
	relay="host \"smtp://$relayhost\""
	if [ -n "$tls_cafile" ]; then
		echo 'ca relayhost cert "/peer/tls/relayhost-ca.pem"'
		relay="host \"smtp+tls://$verify_name:$(port_of "$relayhost")\" tls ca relayhost"
	fi
	if [ -n "$client_cert" ]; then
		echo 'pki client cert "/peer/tls/client-cert.pem"'
		echo 'pki client key "/peer/tls/client-key.pem"'
		relay="$relay pki client"
	fi
	cat <<-CF
		listen on $(host_of "$listen") port $(port_of "$listen")$tls hostname $hostname
		action out relay $relay helo $hostname
		match from any for any action out
	CF
}

# pem DIR NAME FROM: its key may be read by its owner only, or OpenSMTPD refuses it
pem() { install -D -m "${4:-644}" "$3" "$1/tls/$2.pem"; }

start() {
	local dir listen='' tls_cert='' tls_key='' require_client_cert='' relayhost='' client_cert=''
	local client_key='' tls_cafile='' verify_name='' hostname=mx.peer.test sets=() rest
	[ $# -gt 0 ] || usage
	dir=$(peer_dir "$1")
	shift
	read_options "$@"
	if [ ${#rest[@]} -gt 0 ] || [ -z "$listen" ] || [ -z "$relayhost" ]; then usage; fi
	[ -z "$tls_cafile" ] || [ -n "$verify_name" ] || die "--tls-cafile needs --verify-name"
	may_start "$dir"

	mkdir -p "$dir/queue"
	[ -z "$tls_cert" ] || pem "$dir" server-cert "$tls_cert"
	[ -z "$tls_cert" ] || pem "$dir" server-key "$tls_key" 600
	[ -z "$client_cert" ] || pem "$dir" client-cert "$client_cert"
	[ -z "$client_cert" ] || pem "$dir" client-key "$client_key" 600
	[ -z "$require_client_cert" ] || pem "$dir" client-ca "$require_client_cert"
	[ -z "$tls_cafile" ] || pem "$dir" relayhost-ca "$tls_cafile"
	[ -z "$tls_cafile" ] || hosts_line "$dir" "$(host_of "$relayhost")" "$verify_name"
	write_conf >"$dir/smtpd.conf"
	peer_start "$dir" "answers $listen" "$PEERS/opensmtpd.sh" --inside
}

# The place of its queue is compiled in.
inside() {
	use_hosts
	echo 'lookup file' >/etc/resolv.conf # its own resolver asks a name server first otherwise
	rm -rf /var/spool/smtpd
	mkdir -p /var/spool/smtpd /var/lib/opensmtpd/empty
	mount --bind /peer/queue /var/spool/smtpd
	chmod 711 /var/spool/smtpd
	chown root:root /peer/tls/* # what is not root's own is refused
	exec smtpd -d -f /peer/smtpd.conf >>/peer/mail.log 2>&1
}

command=${1:-}
shift || usage
case $command in
--inside) inside ;;
start) start "$@" ;;
stop) [ $# -eq 1 ] || usage && peer_stop "$1" ;;
*) usage ;;
esac
