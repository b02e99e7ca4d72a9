#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# exim.sh send DIR --to HOST:PORT [--client-cert F --client-key F] [--tls-cafile F] [--verify-name NAME]
#                  [--no-tls] [--no-chunking] [--hostname NAME] [--set OPTION=VALUE]...
#                  [--set-smtp OPTION=VALUE]... FROM TO... <MESSAGE
# exim.sh start DIR --listen HOST:PORT [--tls-cert F --tls-key F] [--require-client-cert CAFILE]
#                   [--hostname NAME] [--set OPTION=VALUE]...
#                   [--to HOST:PORT, and all that send knows of it] [--queue-runs qqTIME]
# exim.sh stop DIR
#
# An Exim of its own in DIR (configuration, spool, mail, log), run by run-in.sh as root. Any number
# may run at once, each in its own DIR; sends may also share one.
#
# send delivers MESSAGE (lines end in LF) to HOST:PORT in one attempt, with BDAT where CHUNKING is
# offered, and over TLS or not at all; FROM may be ''. It returns when that is over, and prints
# Exim's log lines of it, in which "K" means that BDAT was used, and X, CV and DN tell of TLS. Status
# 0: every recipient was accepted; 1: not. Nothing is kept for another attempt, and no bounce is
# sent. With --tls-cafile the server's certificate must come from it and, with --verify-name, carry
# NAME. --set writes to the main section, --set-smtp to the transport.
#
# start returns when the port greets, or with status 1 and the reason. DIR/pid holds the process
# id. Mail is delivered to maildirs, DIR/maildir/USER@DOMAIN/new/*, names in lower case; CHUNKING is
# offered. With --require-client-cert STARTTLS is demanded, and a certificate from CAFILE with it;
# with --tls-cert alone STARTTLS is only offered. With --to all mail goes there instead, as it does
# with send, and what fails is tried again in a minute; --queue-runs is Exim's -q without the "-".
# DIR/log/mainlog says what happened.
#
# stop ends all its processes; well if none runs.
#
# Exit: 0 done, 1 failed, 2 wrong usage, 77 peers cannot be run here (run-in.sh).

# Exim trusts no configuration from a command line as much as the one compiled in, so inside
# run-in.sh, whose /etc is private, the file is put there.

# shellcheck source=tests/peers/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
OPTIONS=(to listen client-cert client-key tls-cafile verify-name tls-cert tls-key
	require-client-cert hostname queue-runs set set-smtp)
FLAGS=(no-tls no-chunking)

# main_options: the last line about an option stands alone; Exim refuses a second one.
main_options() {
	cat <<-CF
		primary_hostname = $hostname
		spool_directory = /peer/spool
		log_file_path = /peer/log/%slog
		log_selector = +all_parents +received_recipients +smtp_confirmation +tls_certificate_verified +tls_peerdn
		message_size_limit = 200M
		keep_environment =
		rfc1413_hosts =
		smtp_accept_max = 200
		smtp_accept_max_per_connection = 0
		recipients_max = 0
		never_users =
		acl_smtp_mail = mail
		acl_smtp_rcpt = accept
		acl_smtp_data = accept
	CF
	printf '%s\n' ${sets[@]+"${sets[@]}"}
}

write_main() {
	main_options | awk -F '[ =]' '!($1 in line) { name[++n] = $1 } { line[$1] = $0 }
		END { for (i = 1; i <= n; i++) print line[name[i]] }'
}

write_client() {
	write_main
	cat <<-'CF'
		begin routers
		bounces_to_nowhere:
		  driver = redirect
		  condition = ${if !eq{$received_protocol}{peer}}
		  data = :blackhole:
		out:
		  driver = accept
		  transport = out
		begin transports
	CF
	write_out
}

# The transport to the next hop.
write_out() {
	cat <<-CF
		out:
		  driver = smtp
		  hosts = <; ${verify_name:-$(host_of "$to")}
		  port = $(port_of "$to")
		  gethostbyname
		  allow_localhost
		  connect_timeout = 10s
		  hosts_try_fastopen =
	CF
	if [ -n "$no_tls" ]; then
		echo '  hosts_avoid_tls = *'
	else
		echo '  hosts_require_tls = *'
	fi
	[ -z "$no_chunking" ] || echo '  hosts_try_chunking ='
	[ -z "$client_cert" ] || echo '  tls_certificate = /peer/tls/client.pem'
	if [ -n "$tls_cafile" ]; then
		echo '  tls_verify_certificates = /peer/tls/server-ca.pem'
		echo '  tls_verify_hosts = *'
		[ -n "$verify_name" ] || echo '  tls_verify_cert_hostnames ='
	fi
	printf '  %s\n' ${smtp_sets[@]+"${smtp_sets[@]}"}
}

write_server() {
	local demand=''
	write_main
	cat <<-CF
		local_interfaces = <; [$(host_of "$listen")]:$(port_of "$listen")
		tls_advertise_hosts = ${tls_cert:+*}
	CF
	[ -z "$tls_cert" ] || echo 'tls_certificate = /peer/tls/server.pem'
	if [ -n "$require_client_cert" ]; then
		demand='deny message = 5.7.0 Must issue a STARTTLS command first
		  !encrypted = *'
		cat <<-CF
			tls_verify_certificates = /peer/tls/client-ca.pem
			tls_verify_hosts = *
		CF
	fi
	cat <<-CF
		begin acl
		mail:
		$demand
		accept
		begin routers
		all:
		  driver = accept
		  transport = $([ -n "$to" ] && echo out || echo mailbox)
		begin transports
	CF
	if [ -n "$to" ]; then
		write_out
		printf '%s\n' 'begin retry' '* * F,1h,1m'
		return
	fi
	cat <<-CF
		mailbox:
		  driver = pipe
		  command = "/usr/lib/peers/deliver.sh"
		  user = peer
		  return_path_add
		  delivery_date_add = false
		  message_prefix =
		  message_suffix =
	CF
}

send() {
	local dir=$1 work log to='' no_tls='' no_chunking='' client_cert='' client_key='' tls_cafile=''
	local verify_name='' hostname=mx.peer.test sets=() smtp_sets=() rest status=0
	dir=$(peer_dir "$1")
	shift
	read_options "$@"
	if [ -z "$to" ] || [ ${#rest[@]} -lt 2 ]; then usage; fi

	work=$(mktemp -d "$dir/send.XXXXXX")
	# shellcheck disable=SC2064
	trap "rm -rf '$work'" EXIT
	chmod 755 "$work"
	log=$work/log/mainlog
	[ -z "$client_cert" ] || tls_files "$work" client "$client_cert" "$client_key"
	mkdir -p "$work/tls"
	[ -z "$tls_cafile" ] || cp "$tls_cafile" "$work/tls/server-ca.pem"
	write_client >"$work/exim.conf"
	[ -z "$verify_name" ] || hosts_line "$work" "$(host_of "$to")" "$verify_name"
	"$PEERS/run-in.sh" --bind "$work:/peer" "$PEERS/exim.sh" --inside \
		-odf -oi -oMr peer -f "${rest[0]:-<>}" -- "${rest[@]:1}" || status=$?
	[ -e "$log" ] || exit $((status ? status : 1))
	mkdir -p "$dir/log"
	cat "$log" >>"$dir/log/mainlog"
	cat "$log"
	# Every recipient has its line; "**" is refused, "==" put off.
	grep -q ' Completed$' "$log" && ! grep -Eq ' (\*\*|==) ' "$log"
}

start() {
	local dir listen='' tls_cert='' tls_key='' require_client_cert=''
	local hostname=mx.peer.test sets=() rest to='' no_tls='' no_chunking='' client_cert=''
	local client_key='' tls_cafile='' verify_name='' smtp_sets=() queue_runs=''
	dir=$(peer_dir "$1")
	shift
	read_options "$@"
	if [ -z "$listen" ] || [ ${#rest[@]} -gt 0 ]; then usage; fi
	may_start "$dir"

	mkdir -p "$dir/maildir" "$dir/log" "$dir/tls"
	[ -z "$tls_cert" ] || tls_files "$dir" server "$tls_cert" "$tls_key"
	[ -z "$require_client_cert" ] || cp "$require_client_cert" "$dir/tls/client-ca.pem"
	[ -z "$client_cert" ] || tls_files "$dir" client "$client_cert" "$client_key"
	[ -z "$tls_cafile" ] || cp "$tls_cafile" "$dir/tls/server-ca.pem"
	[ -z "$verify_name" ] || hosts_line "$dir" "$(host_of "$to")" "$verify_name"
	write_server >"$dir/exim.conf"
	peer_start "$dir" "answers $listen" "$PEERS/exim.sh" --inside -bdf ${queue_runs:+"-$queue_runs"}
}

inside() { # EXIM-ARGUMENT...
	mkdir -p /peer/spool /peer/log
	chown Debian-exim:Debian-exim /peer/spool /peer/log
	[ ! -d /peer/tls ] || chown -R Debian-exim /peer/tls # read after root is dropped
	[ ! -d /peer/maildir ] || chown peer /peer/maildir
	install -m 644 /peer/exim.conf /etc/exim4/exim4.conf
	use_hosts
	exec exim4 "$@"
}

command=${1:-}
shift || usage
case $command in
--inside) inside "$@" ;;
send) [ $# -ge 1 ] || usage && send "$@" ;;
start) [ $# -ge 1 ] || usage && start "$@" ;;
stop) [ $# -eq 1 ] || usage && peer_stop "$1" ;;
*) usage ;;
esac
