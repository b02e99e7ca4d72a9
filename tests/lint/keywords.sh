#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# keywords.sh: the manual pages say what the code does, and nothing else.
#
#   keywords   name, kind and default of policy/keywords.c   =  items of postern.conf.5
#   words      of policy/keywords.c, of loop_cap_names       in postern.conf.5
#   counters   of relay/base/stats.h                         =  items of postern.8
#   events     of log_event() in relay/                      in postern.8
#   options    of "postern --help"                           =  items of postern.8
#   commands   of "posternctl --help", with their options    =  items of posternctl.8
#
# The last two need the binaries: $POSTERN, or build/release/postern, and posternctl beside it.
# Exit: 0 all agree, 1 something does not (each line says what), 77 all agree but there is no
# binary to ask.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."

conf=policy/postern.conf.5
page=relay/postern.8
ctl_page=relay/ctl/posternctl.8
failed=0

# same WHAT CODE PAGE: two sorted lists; says what one has and the other lacks.
same() {
	local line
	while IFS= read -r line; do
		echo "$1: in the code, not in the page: $line"
		failed=1
	done < <(comm -23 <(printf '%s\n' "$2") <(printf '%s\n' "$3"))
	while IFS= read -r line; do
		echo "$1: in the page, not in the code: $line"
		failed=1
	done < <(comm -13 <(printf '%s\n' "$2") <(printf '%s\n' "$3"))
}

# known WHAT CODE FILE: each word of the list stands behind a macro for literal words.
known() {
	local word
	for word in $2; do
		grep -Eq "^\.(It )?(Cm|Va|Ic) (.* )?$word( |$)" "$3" || {
			echo "$1: in the code, not in the page: $word"
			failed=1
		}
	done
}

# "set name kind default" of each row. Rows may be broken anywhere, so lines are joined first.
keywords_code() {
	tr -s ' \t\n' ' ' <policy/keywords.c |
		grep -oE 'struct keyword [a-z]+_rows\[\]|KEY\("[^"]+", TYPE_[A-Z]+, (NULL|"[^"]*")\)' |
		sed -E 's/^struct keyword ([a-z]+)_rows.*/set \1/
			s/^KEY\("([^"]+)", TYPE_([A-Z]+), (.*)\)$/\1 \2 \3/' |
		awk '$1 == "set" { set = $2; next }
			{ gsub(/"/, "", $3); print set, $1, tolower($2), $3 == "NULL" ? "-" : $3 }' |
		sort
}

keywords_page() {
	awk '/^\.Sh/ { in_sections = $2 == "SECTIONS" }
		!in_sections { next }
		/^\.Ss/ { set = tolower($2); sub(/-(connector|server)$/, "", set) }
		/^\.It Ic/ { print set, $3, $5, $6 == "Pq" ? $8 : "-" }' "$conf" |
		sort
}

code=$(keywords_code)
[ "$(wc -l <<<"$code")" -ge 40 ] || {
	echo "keywords: policy/keywords.c cannot be read any more; mend this script"
	exit 1
}
same keyword "$code" "$(keywords_page)"

known word "$(awk '/_words\[\] = / { on = 1 } on { print } /};/ { on = 0 }' policy/keywords.c |
	grep -oE '"[^"]+"' | tr -d '"' | sort -u)" "$conf"
known word "$(awk '/loop_cap_names\[\] = / { on = 1 } on { print } /};/ { on = 0 }' relay/net/loop.c |
	grep -oE '"[^"]+"' | tr -d '"')" "$conf"

same counter "$(sed -nE 's/^[ \t]*X\(([a-z0-9_]+)\).*/\1/p' relay/base/stats.h | sort)" \
	"$(sed -nE 's/^\.It Va ([a-z0-9_]+)$/\1/p' "$page" | sort)"

known event "$(find relay -name '*.c' -exec cat {} + | tr -s ' \t\n' ' ' |
	grep -oE 'log_event\( ?LOG_LEVEL_[A-Z]+, [^,]+, "[^"]+"' |
	sed -E 's/.*"([^"]+)"$/\1/' | sort -u)" "$page"

postern=${POSTERN:-build/release/postern}
posternctl=${postern%/*}/posternctl
if [ ! -x "$postern" ] || [ ! -x "$posternctl" ]; then
	[ "$failed" = 0 ] || exit 1
	echo "options: no $postern or no posternctl beside it to ask; the rest agrees"
	exit 77
fi
# Words that begin with a dash, in the help's list and in the page's items; of "-c", too.
same option \
	"$("$postern" --help | grep -E '^ *-' | grep -oE '(^|[ ,])--?[a-z][a-z-]*' | tr -d ' ,' | sort -u)" \
	"$(sed -nE '/^\.It Fl/p' "$page" | grep -oE 'Fl [-a-z]+' | sed 's/Fl /-/' | sort -u)"

# "cert list" for each command, "cert list --all" for each of its options, "--config" for an option
# of all commands. In the help a command begins with two blanks, goes on with eight, and a tab
# begins what it does. A NAME belongs to the command when another word of it follows.
commands_help() {
	"$posternctl" --help | awk '
		/^  -/ { print $1 }
		/^  [a-z]/ {
			command = $1
			for (i = 2; i <= NF; i++) {
				if ($i !~ /^[a-z][a-z-]*$/ && !($i == "NAME" && $(i + 1) ~ /^[a-z]/)) break
				command = command " " $i
			}
			print command
		}
		/^  [a-z]|^        / {
			line = $0
			while (match(line, /--[a-z][a-z-]*/)) {
				print command " " substr(line, RSTART, RLENGTH)
				line = substr(line, RSTART + RLENGTH)
			}
		}' | sort -u
}

# The same of the items of the page, which may go over lines between .Xo and .Xc.
commands_page() {
	awk '
		function item(text,   words, n, i, command) {
			n = split(text, words, " ")
			for (i = 1; i <= n; i++) {
				if (words[i] ~ /^\.?Ic$/) {
					while (i < n && words[i + 1] ~ /^[a-z][a-z-]*$/)
						command = command (command == "" ? "" : " ") words[++i]
					if (words[i + 1] words[i + 2] words[i + 3] ~ /^\.?ArNAME\.?Ic$/) {
						command = command " NAME"
						i += 2
						continue
					}
					print command
				} else if (words[i] ~ /^\.?Fl$/)
					print command (command == "" ? "" : " ") "-" words[++i]
			}
		}
		/^\.It .*(Ic|Fl|Xo)/ { text = $0; open = /Xo/; if (!open) item(text); next }
		/^\.Xc/ && open { open = 0; item(text) }
		open { text = text " " $0 }' "$ctl_page" | sort -u
}
same command "$(commands_help)" "$(commands_page)"
exit "$failed"
