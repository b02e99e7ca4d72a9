#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# nginx.sh start DIR --listen HOST:PORT --relayhost HOST:PORT [--workers N] [--hostname NAME]
#                    [--tls-cert F --tls-key F [--require-client-cert CAFILE]] [--set LINE]...
# nginx.sh stop DIR
#
# An nginx of its own in DIR (configuration, log) as an SMTP proxy, run by run-in.sh as root. Any
# number may run at once, each in its own DIR.
#
# start returns when the port greets, or with status 1 and the reason. DIR/pid holds the process id.
# Each session goes on to the relayhost, in clear text: nginx's mail proxy knows no TLS to a server.
# Where it goes the same nginx says on a Unix socket, as nginx asks over HTTP for each session. With
# --tls-cert STARTTLS is offered; with --require-client-cert it is demanded, and a certificate from
# CAFILE with it. --set puts a line into the mail section. DIR/mail.log says what went wrong.
#
# stop ends all its processes; well if none runs.
#
# Exit: 0 done, 1 failed, 2 wrong usage, 77 peers cannot be run here (run-in.sh).

# shellcheck source=tests/peers/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PACKAGES=(--packages bench)
OPTIONS=(listen tls-cert tls-key require-client-cert relayhost workers hostname set)

write_conf() {
	cat <<-CF
		load_module /usr/lib/nginx/modules/ngx_mail_module.so;
		daemon off;
		user peer;
		worker_processes $workers;
		pid /peer/nginx.pid;
		error_log /peer/mail.log;
		events {
			worker_connections $(ulimit -Hn);
		}
		http {
			access_log off;
			server {
				listen unix:/peer/auth.sock;
				location = /auth {
					add_header Auth-Status OK;
					add_header Auth-Server $(host_of "$relayhost");
					add_header Auth-Port $(port_of "$relayhost");
					return 204;
				}
			}
		}
		mail {
			server_name $hostname;
			auth_http unix:/peer/auth.sock:/auth;
			proxy_pass_error_message on;
			proxy_timeout 30m;
			timeout 30m;
			smtp_auth none;
			smtp_capabilities PIPELINING 8BITMIME "SIZE 209715200" ENHANCEDSTATUSCODES;
			xclient off;
			proxy_smtp_auth off;
	CF
	if [ -n "$tls_cert" ]; then
		cat <<-CF
			ssl_certificate /peer/tls/server-cert.pem;
			ssl_certificate_key /peer/tls/server-key.pem;
			ssl_protocols TLSv1.2 TLSv1.3;
			ssl_session_cache shared:mail:10m;
			starttls $([ -n "$require_client_cert" ] && echo only || echo on);
		CF
	fi
	if [ -n "$require_client_cert" ]; then
		cat <<-CF
			ssl_verify_client on;
			ssl_verify_depth 3;
			ssl_client_certificate /peer/tls/client-ca.pem;
		CF
	fi
	printf '%s\n' ${sets[@]+"${sets[@]}"}
	cat <<-CF
			server {
				listen $listen backlog=4096;
				protocol smtp;
			}
		}
	CF
}

start() {
	local dir listen='' tls_cert='' tls_key='' require_client_cert='' relayhost='' workers=1
	local hostname=mx.peer.test sets=() rest
	[ $# -gt 0 ] || usage
	dir=$(peer_dir "$1")
	shift
	read_options "$@"
	if [ ${#rest[@]} -gt 0 ] || [ -z "$listen" ] || [ -z "$relayhost" ]; then usage; fi
	may_start "$dir"

	mkdir -p "$dir/tls"
	rm -f "$dir/auth.sock"
	[ -z "$tls_cert" ] || install -m 644 "$tls_cert" "$dir/tls/server-cert.pem"
	[ -z "$tls_cert" ] || install -m 600 "$tls_key" "$dir/tls/server-key.pem"
	[ -z "$require_client_cert" ] ||
		install -m 644 "$require_client_cert" "$dir/tls/client-ca.pem"
	write_conf >"$dir/nginx.conf"
	peer_start "$dir" "answers $listen" "$PEERS/nginx.sh" --inside
}

inside() {
	mkdir -p /var/lib/nginx /var/log/nginx
	ulimit -n "$(ulimit -Hn)"
	exec nginx -c /peer/nginx.conf -e /peer/mail.log
}

command=${1:-}
shift || usage
case $command in
--inside) inside ;;
start) start "$@" ;;
stop) [ $# -eq 1 ] || usage && peer_stop "$1" ;;
*) usage ;;
esac
