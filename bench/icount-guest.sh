#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# icount-guest.sh BUILD PKI CIPHERSUITE ROW...: the part of icount.sh that runs inside QEMU, by busybox.
#
# A ROW is RECEIVE:SEND, the ktls of the receive connector (mail is read and replies are sent) and of
# the send connector (mail is sent and replies are read). For each and each size of message: the
# instructions that the relay's threads ran, and those of the whole machine, which are their run times,
# since one nanosecond is one instruction there. Prints
#   RECEIVE:SEND KIND SIZE MESSAGES RELAY MACHINE RECORD-IN RECORD-OUT
# KIND is "bulk" (one session each way), "in" (a session for each message), "ten" (for ten) or "out"
# (a session with the next hop for each message). RECORD-IN and RECORD-OUT are how the newest session of each way
# protects its records at the end.

set -eu
build=$1
pki=$2
suite=$3
shift 3
cd /tmp
load=$build/bench/postern-load
sink=$build/bench/postern-sink

connector() { # NAME PORT RECEIVE SEND MESSAGES
	cat <<-CF
		receive-connector "in-$1" {
		  bindings = {"127.0.0.1:$2"}
		  certificate = "edge"
		  tls = starttls
		  require-tls = yes
		  client-certificate = require
		  trust-anchors = "$pki/treyresearch-ca.pem"
		  ktls = $3
		  ciphersuites = "$suite"
		  session-tickets = 0
		  message-rate-limit = unlimited
		  max-inbound-connection-per-source = unlimited
		  max-inbound-connection-percentage-per-source = 100
		  deliver = proxy
		  send-connector = "out-$1"
		}
		send-connector "out-$1" {
		  smart-hosts = {"127.0.0.1:2600"}
		  certificate = "edge"
		  trust-anchors = "$pki/treyresearch-ca.pem"
		  tls-auth-level = domain-validation
		  tls-domain = "treyresearch.test"
		  ktls = $4
		  ciphersuites = "$suite"
		  max-messages-per-connection = $5
		}
	CF
}

config() { # RECEIVE SEND
	echo 'transport { fqdn = "mx.adatum.test" workers = 1 max-sessions = 64 bpf = off }'
	echo "certificate \"edge\" { chain = \"$pki/adatum.pem\" key = \"$pki/adatum.key\" }"
	connector bulk 2525 "$1" "$2" unlimited
	connector once 2526 "$1" "$2" 1
}

# Nanoseconds on a CPU of all threads of a process, and of all that ran on this machine's only one.
relay_ran() { cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { print sum }'; }
machine_ran() { awk '$1 == "cpu0" { print $8 }' /proc/schedstat; }

send() { # PORT MESSAGES SIZE MESSAGES-PER-CONNECTION
	"$load" --connect "127.0.0.1:$1" --starttls --cert "$pki/treyresearch.pem" \
		--key "$pki/treyresearch.key" --connections 1 --messages-per-connection "$4" \
		--messages "$2" --size "$3" --bdat --seconds 3600 >load.log 2>&1 || {
		cat load.log
		exit 1
	}
}

# How the newest session says that it protects its records.
record() { sed -n "s/.* event=$1\(tls\|record\) .*record=//p" relay.log | tail -n 1; }

measure() { # ROW KIND SIZE MESSAGES PORT PER-CONNECTION
	machine=$(machine_ran)
	before=$(relay_ran "$relay")
	send "$5" "$4" "$3" "$6"
	after=$(relay_ran "$relay")
	machine=$(($(machine_ran) - machine))
	echo "$1 $2 $3 $4 $((after - before)) $machine $(record "") $(record nexthop-)"
}

"$sink" --listen 127.0.0.1:2600 --tls-cert "$pki/treyresearch.pem" \
	--tls-key "$pki/treyresearch.key" --client-ca "$pki/adatum-ca.pem" >sink.log 2>&1 &
sink_pid=$!
for row; do
	config "${row%:*}" "${row#*:}" >postern.conf
	rm -f relay.log
	"$build/postern" --config postern.conf 2>relay.log &
	relay=$!
	tries=0
	until grep -qs event=ready relay.log; do
		sleep 1
		tries=$((tries + 1))
		[ $tries -lt 30 ] || { cat relay.log; exit 1; }
	done
	# What is done once is not to count: each buffer that the kernel picks from its ring is new memory
	# the first time; and the session with the next hop that is used again has its handshake now.
	send 2526 2 4096 1
	send 2525 400 4096 100000
	send 2525 2 1048576 100000
	# Handshakes, hand-overs and the beginning go out by taking the smaller run from the larger.
	for shape in "20 4096" "120 4096" "10 65536" "40 65536" "4 1048576" "10 1048576"; do
		# shellcheck disable=SC2086 # two words
		set -- $shape
		measure "$row" bulk "$2" "$1" 2525 100000
	done
	for messages in 4 16; do
		measure "$row" in 4096 $messages 2525 1
		measure "$row" out 4096 $messages 2526 100000
	done
	for messages in 20 60; do
		measure "$row" ten 4096 $messages 2525 10
	done
	kill $relay
	wait $relay || exit 1
done
kill $sink_pid
