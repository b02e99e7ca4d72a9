#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tidy.sh: the rules of this project that no compiler knows. In C files:
#
#   - includes are written from the root, and go only to the left along
#       relay/base <- policy <- relay/pki <- relay/net <- relay/smtp <- relay/mail <- relay/*.c
#     tests/ and bench/ may include anything, and nothing includes them
#   - liburing, OpenSSL, libconfuse, libbpf, ISA-L are each included by the files that wrap them only
#   - no strcpy strcat sprintf vsprintf strtok atoi atol gets alloca; memory is allocated while
#     starting, that is in policy/ and in functions named _create (foo_create, foo_create_bars)
#   - no // comment, and no bare TODO or FIXME: TODO(#12) names an issue
#   - functions of 70 lines, .c files of 600, lines of 100 columns at the most
#   - a header opens with a comment that says what the module is
#   - a ->state is assigned in the function of its module that is named _enter, _open or _init only
#
# And: lines of Python of 100 columns at the most; no bare TODO or FIXME in scripts; each of
# policy/examples/ is loaded by a test.
#
# Each finding is a line "file:line: what". Exit: 0 none, 1 some.
#
# Exceptions, with their reasons, are the lists right below.

set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."

# Who may allocate, beside policy/ and _create: FILE:FUNCTION.
allocate='
relay/worker.c:worker_allocate
relay/net/loop.c:loop_try_buffers
'
# Who may assign a state, beside *_enter(), *_open() and *_init(): FILE:FUNCTION.
assign='
'

# shellcheck disable=SC2016 # for awk to expand
columns='
	function bad(what) {
		printf "%s:%d: %s\n", FILENAME, FNR, what
	}
	function width(line,   i, columns) {
		if (length(line) <= 12)
			return 0
		for (i = 1; i <= length(line); i++)
			columns += substr(line, i, 1) == "\t" ? 8 - columns % 8 : \
				substr(line, i, 1) ~ /[\200-\277]/ ? 0 : 1
		return columns
	}
	width($0) > 100 { bad("a line of " width($0) " columns, at most 100") }
'
# shellcheck disable=SC2016 # for awk to expand
rules='
	# How far to the right a folder stands; 9: it may include all, and nothing includes it.
	function rank(path) {
		if (path ~ /^(tests|bench)\//) return 9
		if (path ~ /^relay\/base\//) return 0
		if (path ~ /^policy\//) return 1
		if (path ~ /^relay\/pki\//) return 1.5
		if (path ~ /^relay\/net\//) return 2
		if (path ~ /^relay\/smtp\//) return 3
		if (path ~ /^relay\/mail\//) return 4
		if (path ~ /^bpf\/shared\.h$/) return 0
		if (path ~ /^bpf\//) return 5
		if (path ~ /^relay\/ctl\//) return 7
		if (path ~ /^relay\/[^\/]+$/) return 6
		return -1
	}
	function listed(list) {
		return index(list, "\n" FILENAME ":" name "\n") > 0
	}
	# A library and the files that may include it.
	function library(what, header, files) {
		if ($0 ~ "^#[ \t]*include <" header && FILENAME !~ files && rank(FILENAME) != 9)
			bad(what " is included by its own files only: " files)
	}
	# The code of a line: comments are gone and strings are empty. Sets in_comment, slashes.
	function code_of(line,   out, two, one, i, n, quote) {
		slashes = 0
		if (!in_comment && line !~ /["\47\/]/)
			return line
		n = length(line)
		for (i = 1; i <= n; i++) {
			one = substr(line, i, 1)
			two = substr(line, i, 2)
			if (in_comment) {
				if (two == "*/") { in_comment = 0; i++ }
			} else if (quote != "") {
				if (one == "\\") i++
				else if (one == quote) { out = out one; quote = "" }
			} else if (two == "/*") {
				in_comment = 1; i++
			} else if (two == "//") {
				slashes = 1
				return out
			} else {
				if (one == "\"" || one == "\47") quote = one
				out = out one
			}
		}
		return out
	}
	FNR == 1 {
		in_comment = 0; function_line = 0; name = ""; opened = 0
		is_header = FILENAME ~ /\.h$/
		code_started = 0
	}
	{ before = in_comment; code = code_of($0) }

	slashes { bad("a // comment: use /* */, // is for what must not be committed") }
	/(TODO|FIXME)/ && !/(TODO|FIXME)\(#[0-9]+\)/ { bad("a TODO or FIXME without its issue: TODO(#N)") }
	FNR == 601 && !is_header { bad("a file of more than 600 lines") }

	# Only the licence, #pragma once and blank lines may stand before the opening comment.
	is_header && !code_started && !opened {
		if ((before || in_comment) && !/SPDX/) opened = 1
		else if (code != "" && code !~ /^#pragma once/) {
			code_started = 1
			bad("the header does not open with a comment that says what it is")
		}
	}

	/^#[ \t]*include "/ {
		split($0, part, "\"")
		mine = rank(FILENAME); theirs = rank(part[2])
		if (theirs < 0 && part[2] !~ /\.skel\.h$/)
			bad("an include that is not written from the root: " part[2])
		else if (theirs > mine || (theirs == 9 && mine != 9))
			bad("an include to the right of the line relay/base, policy, relay/pki, " \
				"relay/net, relay/smtp, relay/mail, relay: " part[2])
	}
	/^#[ \t]*include </ {
		library("liburing", "(liburing|linux\/io_uring)", "^relay/net/loop\\.c$")
		library("OpenSSL", "openssl\/", "^relay/(net/(tls|ktls|seal|verify)|pki/[a-z_]+|ctl/(cert[a-z_]*|chain|probe))\\.c$")
		library("libidn2", "idn2", "^policy/names\\.c$")
		library("libunbound", "unbound", "^relay/(net/resolve|ctl/mx)\\.c$")
		library("libconfuse", "confuse", "^policy/config\\.c$")
		library("libbpf", "bpf\/", "^bpf/(loader[a-z_]*\\.[ch]|.*\\.bpf\\.c|parse\\.h|maps\\.h)$")
		library("jansson", "jansson", "^(policy/ip_list_json|relay/control[a-z_]*|relay/ctl/control[a-z_]*)\\.c$")
		library("libcap-ng", "cap-ng", "^relay/privilege\\.c$")
		library("ISA-L", "isa-l", "^relay/base/crc32c\\.c$")
		library("cmocka", "cmocka", "^tests/")
	}

	# Where a function begins and ends: Linux braces, both in the first column.
	/^[A-Za-z_]/ && index(code, "(") {
		head = code
		sub(/__attribute__ *\(\(.*\)\) */, "", head)
		sub(/ *\(.*/, "", head)
		sub(/.*[^A-Za-z0-9_]/, "", head)
		if (head != "") name = head
	}
	/^{/ { function_line = FNR }
	/^}/ && function_line {
		if (FNR - function_line + 1 > 70)
			printf "%s:%d: %s() has %d lines, at most 70\n", FILENAME, function_line, name, \
				FNR - function_line + 1
		function_line = 0
	}

	code ~ /(^|[^A-Za-z0-9_])(strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|gets|alloca) *\(/ {
		bad("a banned function: " $0)
	}
	code ~ /(^|[^A-Za-z0-9_])(malloc|calloc|realloc|reallocarray|strdup|strndup|posix_memalign|aligned_alloc) *\(/ &&
		rank(FILENAME) != 9 && FILENAME !~ /^policy\// && name !~ /_create/ && !listed(allocate) {
		bad("memory is allocated in " name "(): only while starting, in policy/ or in _create")
	}
	code ~ /->state *=[^=]/ && rank(FILENAME) != 9 && name !~ /_(enter|open|init)$/ && !listed(assign) {
		bad("a state is assigned in " name "(): only in *_enter(), *_open(), *_init()")
	}
'

findings=$(
	find relay policy bpf bench tests -name '*.[ch]' -print0 | sort -z |
		xargs -0 awk -v allocate="$allocate" -v assign="$assign" "$columns$rules"
	find bench tests \( -name '*.py' -o -path bench/report \) -print0 | sort -z |
		xargs -0 awk "$columns"

	# Written so that it does not find itself.
	find Makefile .ci/run tests bench \( -name '*.sh' -o -name '*.py' -o -name '*.talk' -o \
		-name Makefile -o -path .ci/run \) -print0 |
		xargs -0 grep -nHE 'TO[D]O|FIX[M]E' |
		grep -vE '(TO[D]O|FIX[M]E)\(#[0-9]+\)|^tests/lint/tidy\.sh:' |
		sed 's/\(:[0-9]*:\).*/\1 a TO''DO without its issue/' || true

	loads_all=$(grep -rlF '"policy/examples"' tests/unit || true)
	for example in policy/examples/*.conf; do
		[ -n "$loads_all" ] || grep -rqF "${example##*/}" tests/unit tests/e2e ||
			echo "$example:1: no test loads this example"
	done
)
[ -n "$findings" ] || exit 0
echo "$findings"
exit 1
