#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# icount-guest.sh BUILD PKI: the part of icount.sh that runs inside QEMU, by busybox.
#
# For each way to protect records, and each size of message: the instructions that the relay's
# threads ran, which is their run time, since one nanosecond is one instruction there. Prints
#   KTLS SIZE MESSAGES INSTRUCTIONS RECORD-LAYER

set -eu
build=$1
pki=$2
cd /tmp

config() { # KTLS
	cat <<-CF
		transport { fqdn = "mx.adatum.test" workers = 1 max-sessions = 64 bpf = off }
		certificate "edge" { chain = "$pki/adatum.pem" key = "$pki/adatum.key" }
		receive-connector "partner" {
		  bindings = {"127.0.0.1:2525"}
		  certificate = "edge"
		  tls = starttls
		  require-tls = yes
		  client-certificate = require
		  trust-anchors = "$pki/treyresearch-ca.pem"
		  ktls = $1
		  message-rate-limit = unlimited
		  max-inbound-connection-per-source = unlimited
		  max-inbound-connection-percentage-per-source = 100
		  deliver = proxy
		  send-connector = "inside"
		}
		send-connector "inside" {
		  smart-hosts = {"127.0.0.1:2600"}
		  certificate = "edge"
		  trust-anchors = "$pki/treyresearch-ca.pem"
		  tls-auth-level = domain-validation
		  tls-domain = "treyresearch.test"
		  ktls = $1
		  max-messages-per-connection = unlimited
		}
	CF
}

# Nanoseconds on a CPU of all threads of a process.
ran() { cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { print sum }'; }

send() { # MESSAGES SIZE
	"$build/bench/load" --connect 127.0.0.1:2525 --starttls --cert "$pki/treyresearch.pem" \
		--key "$pki/treyresearch.key" --connections 1 --messages-per-connection 100000 \
		--messages "$1" --size "$2" --bdat --seconds 3600 >load.log || {
		cat load.log
		exit 1
	}
}

"$build/bench/sink" --listen 127.0.0.1:2600 --tls-cert "$pki/treyresearch.pem" \
	--tls-key "$pki/treyresearch.key" --client-ca "$pki/adatum-ca.pem" >sink.log 2>&1 &
sink=$!
for ktls in off tx rx on; do
	config $ktls >postern.conf
	rm -f relay.log
	"$build/postern" --config postern.conf 2>relay.log &
	relay=$!
	tries=0
	until grep -qs event=ready relay.log; do
		sleep 1
		tries=$((tries + 1))
		[ $tries -lt 30 ] || { cat relay.log; exit 1; }
	done
	# The first message pays for the handshakes; two counts of messages tell them apart from the rest.
	for shape in "50 4096" "250 4096" "4 1048576" "12 1048576"; do
		# shellcheck disable=SC2086 # two words
		set -- $shape
		before=$(ran $relay)
		send "$1" "$2"
		after=$(ran $relay)
		record=$(sed -n 's/.* event=tls .*record=//p' relay.log | tail -n 1)
		echo "$ktls $2 $1 $((after - before)) $record"
	done
	kill $relay
	wait $relay || exit 1
done
kill $sink
