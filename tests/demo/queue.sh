# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# queue.sh: the part of the demo about the queue: what was accepted outlives a mail server that is
# away and a relay that is killed, and what cannot be delivered comes back. Read by demo.sh, whose
# functions it uses; never run.
# shellcheck disable=SC2154,SC2034

# northwind_writes USER TO: its server, with its certificate and from its address
northwind_writes() {
	write_message "$1@northwind.test" "$2" "$dir/$1.eml"
	# shellcheck disable=SC2046 # words
	swaks_to "${address[adatum]}" "${port[smtp]}" "$1.swaks" --helo mx.northwind.test \
		--local-interface "${address[northwind]}" --from "$1@northwind.test" --to "$2" \
		--data "@$dir/$1.eml" $(certificate northwind)
	answers "To northwind's server, by adatum's relay" 250 "Queued mail for delivery*" \
		"$(sed -n 's/^<[~-]*\** *\(250 2.6.0 .*\)/\1/p' "$dir/$1.swaks")"
}

ctl() { "$posternctl" --config "$dir/$1.conf" "${@:2}"; } # ORG COMMAND...
in_retry() { ctl "$1" --json queue list | grep -q '"status": *"Retry"'; }
ids_of() { ctl "$1" --json msg list | grep -o '"id": *"[^"]*"'; } # of all messages in queues
is_empty() { [ -z "$(ids_of "$1")" ]; }

queue_outage() {
	heading "adatum keeps what northwind.test writes to it, and its mail server is away"
	sed -n '/^receive-connector "northwind"/,/^}/p' "$dir/adatum.conf" | show
	claim "adatum's mail server is stopped" stop_hop adatum
	northwind_writes nora carol@adatum.test
	until_true 10 in_retry adatum
	ask adatum queue list --filter "Status -eq 'Retry'"
	show <<<"$answer"
	claim "the message waits, to be tried again" grep -q '^mailboxes .* Retry  *1 ' <<<"$answer"
	ask adatum queue show mailboxes
	show_lines <<<"$answer"
	claim "LastError says why" grep -q '^LastError .*4\.4\.1 ' <<<"$answer"
}

queue_kill() {
	local before
	before=$(ids_of adatum)
	claim "adatum's relay is killed (SIGKILL)" kill_relay adatum
	launch_relay adatum
	claim "and started again" until_true 20 is_ready adatum
	ask adatum msg list
	show <<<"$answer"
	claim "the message is still there, under the same id" \
		eval "[ -n \"\$before\" ] && [ \"\$before\" = \"\$(ids_of adatum)\" ]"
}

queue_delivery() {
	local mail
	claim "adatum's mail server is started" start_hop adatum
	ask adatum queue retry mailboxes
	show_lines <<<"$answer"
	claim "it need not wait for its time" test "$status" = 0
	until_true 15 has_mails adatum carol@adatum.test 1
	mail=$(mails adatum carol@adatum.test)
	claim "carol has it, to the byte" same_body "${mail:-/dev/null}" "$dir/nora.eml"
	claim "the queue is empty" until_true 10 is_empty adatum
	claim "it was delivered once" has_mails adatum carol@adatum.test 1
}

queue_notice() {
	local mail text
	heading "nils@northwind.test writes to somebody whom adatum's mail server does not have"
	stop_hop northwind # the one without TLS
	start_mailbox northwind "${address[northwind]}" "${port[smtp]}" "$pki/northwind.pem" \
		"$pki/northwind.key" "$pki/adatum-ca.pem"
	northwind_writes nils nobody@adatum.test
	until_true 15 has_mails northwind nils@northwind.test 1
	mail=$(mails northwind nils@northwind.test)
	text=$(cat "${mail:-/dev/null}")
	say "In nils' mailbox ($mail):"
	show_lines <<<"$text"
	claim_has "it is a report (RFC 3464)" "multipart/report" "$text"
	claim_has "for programs: what became of it" "Action: failed" "$text"
	claim_has "in the words of adatum's mail server" "Diagnostic-Code: smtp; 550 5.1.1" "$text"
	claim_has "behind it what nils had written" "$secret" "$text"
	claim_has "it came by mutual TLS, as all that goes to a partner" "tls TLSv1.3 client" \
		"$(cat "$dir/northwind-hop.log")"
}

queue_story() {
	heading "The story of both, in the message tracking log"
	ask adatum track
	show <<<"$answer"
	claim "nora's was accepted, put off, delivered" eval \
		"grep -q 'RECEIVE.*carol' <<<\"\$answer\" && grep -q DEFER <<<\"\$answer\" &&
		grep -q 'SEND.*carol' <<<\"\$answer\""
	claim "nils' was accepted, refused by the mail server, and returned" eval \
		"grep -q 'RECEIVE.*nobody' <<<\"\$answer\" && grep -q 'FAIL.*nobody' <<<\"\$answer\" &&
		grep -q 'DSN.*nils' <<<\"\$answer\" && grep -q 'SEND.*nils' <<<\"\$answer\""
}

run_queue() {
	queue_outage
	queue_kill
	queue_delivery
	queue_notice
	queue_story
}
