#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# deliver.sh [USER@DOMAIN] <MESSAGE: puts MESSAGE into the maildir /peer/maildir/USER@DOMAIN.
#
# The delivery agent of both peers, run by them inside run-in.sh. Exim gives the recipient as
# LOCAL_PART and DOMAIN in the environment, since it lets no address from outside onto a command
# line. The name is in lower case, "/" becomes "_". The message appears in new/ whole or not at
# all; file names sort by time of arrival. Exit: 0 delivered, 75 (try again) anything else.

umask 022
to=$(printf %s "${1:-$LOCAL_PART@$DOMAIN}" | tr 'A-Z/' 'a-z_')
box=/peer/maildir/$to
mkdir -p "$box/tmp" "$box/new" "$box/cur" || exit 75
file=$(mktemp "$box/tmp/$(date +%s.%N).XXXXXX") || exit 75
{ cat >"$file" && chmod 644 "$file" && mv "$file" "$box/new/"; } || exit 75
