#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh [SUITE...]: runs the tests of what "make test-bins" has built; all suites but qemu, or
# those named.
#
#   lint     the project's own rules, man pages, scripts, format       seconds
#   unit     build/VARIANT/unit/test_*, and the fuzz targets over      seconds
#            their committed corpus
#   install  install and uninstall under a DESTDIR                     seconds
#   matrix   build/release/e2e/matrix on this machine's kernel         a minute
#   python   tests/e2e/test_*.py, each a file                          minutes
#   door     build/release/door/door: who is let in; needs root        minutes
#   crash    build/release/crash/crash: is acknowledged mail there       a minute
#            after a kill? First whether it finds what it must
#   power    crash/power.sh: and after a power cut, in User-Mode Linux   minutes
#   kernel   the matrix in User-Mode Linux, records in the kernel,     minutes, beside the others
#            and the door there
#   qemu     both on Debian 13's kernel                                many minutes
#
# A line for each test: "ok", "FAILED" with the end of its log, or "skipped: reason". The logs stay
# in build/test-logs/VARIANT. A test that exits 77 is skipped, and the last line that it wrote is
# the reason. A program that counts its own tests (a last line "N passed, N failed, N skipped",
# cmocka, pytest) counts for as many. The very last line is the sum; right above it all that failed
# stands once more by name, in at most 40 lines.
#
# Environment: VARIANT=release|asan|tsan|valgrind; WRAP: a command to run unit tests under; SECONDS_FACTOR
# stretches all limits. Exit: 0 none failed, 1 some did, 2 wrong usage.

set -uo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.." || exit 2

variant=${VARIANT:-release}
all="lint unit install matrix python door crash power kernel"
for suite; do
	[[ " $all qemu " == *" $suite "* ]] || {
		echo "usage: run.sh [lint|unit|install|matrix|python|door|crash|power|kernel|qemu]..." >&2
		exit 2
	}
done

# The sanitizers' fixed addresses collide with how far newer kernels scatter theirs.
if [ "$variant" != release ] && [ -z "${RUN_SH_FIXED:-}" ]; then
	if setarch "$(uname -m)" -R true 2>/dev/null; then
		RUN_SH_FIXED=1 exec setarch "$(uname -m)" -R "$0" "$@"
	fi
fi

build=build/$variant
driver=build/release/e2e/matrix # it only drives: the relay is what is sanitized
door=build/release/door/door
crash=build/release/crash/crash
logs=build/test-logs/$variant
factor=${SECONDS_FACTOR:-1}
case $variant in
release) ;;
*)
	factor=$((factor * 4))
	export POSTERN_TEST_BIG_BYTES=${POSTERN_TEST_BIG_BYTES:-4194304}
	;;
esac
[ -z "${WRAP:-}" ] || factor=$((factor * 10))
[ ! -e tests/lsan.supp ] || export LSAN_OPTIONS=suppressions=$PWD/tests/lsan.supp
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
[ ! -e tests/tsan.supp ] || TSAN_OPTIONS+=:suppressions=$PWD/tests/tsan.supp
export POSTERN=$PWD/$build/postern PKI=$PWD/build/pki VARIANT=$variant
export PYTHONDONTWRITEBYTECODE=1 POSTERN_TEST_SLOW=$factor

passed=0 failed=0 skipped=0
failures=() # a line each
declare -A job limit
rm -rf "$logs" build/test-logs/summary
mkdir -p "$logs"
trap '[ -z "${job[*]}" ] || kill "${job[@]}" 2>/dev/null' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

wanted() { [[ " ${suites[*]} " == *" $1 "* ]]; }
suites=("$@")
# shellcheck disable=SC2206 # words
[ $# -gt 0 ] || suites=($all)

log_of() { echo "$logs/${1//\//-}.log"; }

# start NAME SECONDS COMMAND...: in the background, for finish NAME to wait for.
start() {
	local name=$1
	limit[$name]=$(($2 * factor))
	shift 2
	timeout --kill-after=10 "${limit[$name]}" "$@" </dev/null >"$(log_of "$name")" 2>&1 &
	job[$name]=$!
}

# What a log counts, as "PASSED FAILED SKIPPED", or nothing.
count() {
	awk '
		/^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { own = $1 " " $3 " " $5; at = NR }
		/^\[  PASSED  \] [0-9]+ test/ { cmocka = 1; p += $4 }
		/^\[  FAILED  \] ([a-z_]+: )?[0-9]+ test.*listed below/ { cmocka = 1; f += number($0) }
		/^\[  SKIPPED \] ([a-z_]+: )?[0-9]+ test.*listed below/ { cmocka = 1; s += number($0) }
		/^=* ?[0-9]+ (passed|failed|skipped|error|deselected|x).* in [0-9.]+s/ {
			pytest = 1
			for (i = 1; i < NF; i++) {
				if ($(i + 1) ~ /^(passed|xpassed)/) pp += $i
				if ($(i + 1) ~ /^(failed|error)/) pf += $i
				if ($(i + 1) ~ /^(skipped|xfailed)/) ps += $i
			}
		}
		function number(line) { return match(line, /[0-9]+ test/) ? substr(line, RSTART) + 0 : 0 }
		END {
			if (own != "" && at == NR) print own
			else if (cmocka) print p + 0, f + 0, s + 0
			else if (pytest) print pp + 0, pf + 0, ps + 0
		}' "$1"
}

# names LOG NAME: what failed, by name, with the reason where it is one line; nothing if no line
# says it.
names() {
	awk -v suite="$2" '
		{ sub(/\r$/, "") }
		/^\[   LINE   \] --- / { where = ": " substr($0, 18) }
		/^\[  FAILED  \] [^ :]+$/ && !seen[$4]++ { say($4 where); where = "" } # it says each twice
		/^(FAILED|ERROR) [^ ]/ { say(substr($0, index($0, " ") + 1)) } # our own, and pytest
		/^row [0-9]+  (FAILED|has no test)/ { say($0) }
		/^SUMMARY: [A-Za-z]+Sanitizer/ { say($0) }
		suite ~ /^lint/ && /^([^ :]+:[0-9]+:.* |In [^ ]+ line [0-9]+:)/ { say($0) }
		function say(what) {
			sub(/^tests\/e2e\//, "", what)
			print substr(suite ": " what, 1, 200)
		}' "$1"
}

# note_failure NAME LOG WHY: for the list at the end, at most 12 lines.
note_failure() {
	local lines
	mapfile -t lines < <(names "$2" "$1")
	if [ ${#lines[@]} = 0 ] || [[ $3 == "no end"* ]]; then
		failures+=("$1: $3: $(grep -v '^[[:space:]]*$' "$2" | tail -n 1 | cut -c 1-160)")
	fi
	failures+=(${lines[@]+"${lines[@]:0:12}"})
	[ ${#lines[@]} -le 12 ] || failures+=("$1: and $((${#lines[@]} - 12)) more")
}

# reasons LOG: its end, and what else of it says why: tracebacks of pytest, without what the test
# printed.
reasons() {
	head -n -40 "$1" | awk '
		/^=+ (FAILURES|ERRORS) =+$/ { is_on = 1 }
		/^=+ (short test|warnings) summary/ { is_on = 0 }
		/^(_+ .* _+|=+ .* =+)$/ { is_printed = 0 }
		/^-+ Captured / { is_printed = 1 }
		is_on && !is_printed && count++ < 40'
	tail -n 40 "$1"
}

# finish NAME: waits, counts, says how it went.
finish() {
	local name=$1 log status=0 counts p f s why
	log=$(log_of "$name")
	wait "${job[$name]}" || status=$?
	unset "job[$name]"
	counts=$(count "$log")
	read -r p f s <<<"${counts:-0 0 0}"
	if [ "$status" = 77 ] && [ $((p + f)) = 0 ]; then
		skipped=$((skipped + (s > 0 ? s : 1)))
		echo "skipped  $name: $(tail -n 1 "$log")"
		return
	fi
	if [ "$status" != 0 ] && [ "$status" != 77 ] && [ "$f" = 0 ]; then
		f=1
	elif [ -z "$counts" ]; then
		p=1
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	if [ "$f" = 0 ]; then
		echo "ok       $name${counts:+ ($p passed$([ "$s" = 0 ] || echo ", $s skipped"))}"
		[ "$s" = 0 ] || grep -iE '^(skipped|\[  SKIPPED \] [a-z])' "$log" | head -n 20 |
			sed 's/^/         /'
		return
	fi
	case $status in
	124 | 137) why="no end within ${limit[$name]} seconds" ;;
	*) why="$p passed, $f failed; status $status" ;;
	esac
	echo "FAILED   $name ($why)"
	reasons "$log" | sed 's/^/         | /'
	echo "         the whole log: $log"
	note_failure "$name" "$log" "$why"
}

run() {
	start "$@"
	finish "$1"
}

lint_format() {
	local tool
	tool=$(command -v clang-format-14) || {
		echo "no clang-format 14 (make deps-lint)"
		return 77
	}
	make --no-print-directory format-check CLANG_FORMAT="$tool"
}
export -f lint_format

suite_lint() {
	run lint/tidy 60 tests/lint/tidy.sh
	run lint/keywords 60 tests/lint/keywords.sh
	run lint/man 60 mandoc -T lint -W warning relay/*.8 relay/ctl/*.8 policy/*.5 bench/*.1
	run lint/scripts 120 shellcheck -x .ci/run tests/*.sh tests/*/*.sh bench/*.sh
	run lint/format 60 bash -c lint_format
}

suite_unit() {
	local program name
	for program in "$build"/unit/test_*; do
		[ -x "$program" ] || continue
		# shellcheck disable=SC2086 # words
		run "unit/${program##*/test_}" 300 ${WRAP:-} "$program"
	done
	for program in "$build"/fuzz/fuzz_*; do
		name=${program##*/fuzz_}
		[ -x "$program" ] || continue
		# shellcheck disable=SC2086 # words
		run "fuzz/$name" 60 ${WRAP:-} "$program" tests/fuzz/corpus/"$name"/*
	done
}

suite_install() {
	[ "$variant" = release ] || return 0
	run install 60 tests/install.sh
}

# matrix EXPECT: its command line.
matrix() {
	echo "$driver --postern $POSTERN --pki $PKI --expect $1"
}

suite_matrix() {
	[ -x "$driver" ] || return 0
	# shellcheck disable=SC2046 # words
	run e2e/matrix 300 $(matrix auto)
}

# Its last lines name what failed, each with its reason, which needs columns.
pytest=(env COLUMNS=180 /usr/bin/python3 -m pytest -rfEs --tb=short -p no:cacheprovider)

suite_python() {
	local file
	for file in tests/e2e/test_*.py; do
		[ -e "$file" ] || continue
		run "e2e/$(basename "$file" .py)" 600 "${pytest[@]}" -v "$file"
	done
	# The rows of the capability table that have a test, each with its result.
	run e2e/rows 60 tests/rows.sh
	cat "$(log_of e2e/rows)"
}

# Fewer and smaller changes where the relay is slower.
suite_door() {
	[ -x "$door" ] || return 0
	case $variant in
	release) run door/native 1200 "$door" --postern "$POSTERN" ;;
	*) run door/native 1200 env POSTERN_DOOR_PREFIXES=10000 POSTERN_DOOR_REPLACES=5 \
		"$door" --postern "$POSTERN" ;;
	esac
}

suite_crash() {
	[ -x "$crash" ] || return 0
	run crash/self-test 120 "$crash" --self-test
	run crash/kill 900 "$crash" --postern "$POSTERN" --rounds 1000
	[ "$variant" != release ] ||
		run crash/spool 300 "$crash" --postern "$PWD/build/release/crash/spooler" --rounds 100
}

# The last two show that a cut is one, and that a flush is held: without one something must be lost.
suite_power() {
	[ "$variant" = release ] && [ -x "$crash" ] || return 0
	run power/hold 300 tests/crash/power.sh --postern "$POSTERN" --jobs 1 --hold
	run power/cut 600 tests/crash/power.sh --postern "$POSTERN" --rounds 50
	run power/relaxed 600 tests/crash/power.sh --postern "$POSTERN" --durability relaxed \
		--rounds 12 --jobs 1 --expect-loss
	run power/unflushed 300 tests/crash/power.sh --model unflushed --jobs 1 --hold --expect-loss
}

# Sanitized programs do not run in User-Mode Linux: its address space is too small.
begin_kernel() {
	[ "$variant" = release ] && [ -x "$driver" ] || return 0
	# shellcheck disable=SC2046 # words
	start kernel/uml-6.1 1200 tests/kernels/uml.sh --timeout 1140 -- $(matrix kernel)
}

# Then what that kernel cannot show: new keys in the middle (6.14), and the TLS engine by itself.
suite_kernel() {
	[ -n "${job[kernel/uml-6.1]:-}" ] || return 0
	finish kernel/uml-6.1
	# shellcheck disable=SC2046 # words
	run kernel/rekey 120 tests/kernels/uml.sh --kernel newest --timeout 100 -- \
		$(matrix kernel) --filter rekey/
	run kernel/door-uml-6.1 900 env POSTERN_DOOR_PREFIXES=10000 POSTERN_DOOR_REPLACES=10 \
		POSTERN_TEST_SLOW=$((2 * factor)) \
		tests/kernels/uml.sh --timeout 880 -- "$door" --postern "$POSTERN"
	# One program for a million questions to the kernel and to the relay's own trie.
	[ ! -x "$build/unit/test_kernel_property" ] ||
		run kernel/property-uml-6.1 400 tests/kernels/uml.sh --timeout 380 -- \
			"$build/unit/test_kernel_property"
	# shellcheck disable=SC2016 # for the guest's shell
	[ ! -x "$build/unit/test_kernel_door" ] ||
		run kernel/loader-uml-6.1 400 tests/kernels/uml.sh --timeout 380 -- sh -c '
			status=0
			for program; do "$program" || status=1; done
			exit "$status"' sh "$build"/unit/test_kernel_door* "$build"/unit/test_doorman_kernel
	run kernel/door-ctl-uml-6.1 400 env POSTERN_TEST_SLOW=$((2 * factor)) \
		tests/kernels/uml.sh --timeout 380 -- "${pytest[@]}" -q \
		tests/e2e/test_door_control.py tests/e2e/test_door_ctl.py
	[ ! -x "$build/tools/tls_server" ] ||
		run kernel/tls-server 600 env POSTERN_KTLS=on POSTERN_BUILD="$PWD/$build" \
			tests/kernels/uml.sh --timeout 580 -- "${pytest[@]}" -q \
			tests/e2e/test_tls_server.py
}

suite_qemu() {
	[ "$variant" = release ] && [ -x "$driver" ] || return 0
	# shellcheck disable=SC2046 # words
	run kernel/qemu-debian13 1500 tests/kernels/qemu.sh --kernel debian13 --timeout 1440 \
		--file "$POSTERN" --file "$PKI" -- $(matrix kernel)
	run kernel/door-debian13 1500 env POSTERN_DOOR_PREFIXES=10000 POSTERN_DOOR_REPLACES=5 \
		POSTERN_TEST_SLOW=$((5 * factor)) tests/kernels/qemu.sh --kernel debian13 \
		--timeout 1440 --file "$POSTERN" -- "$PWD/$door" --postern "$POSTERN"
}

if wanted matrix || wanted python || wanted kernel || wanted qemu; then
	run pki 60 tests/pki.sh build/pki
fi
! wanted kernel || begin_kernel
for suite in "${suites[@]}"; do
	"suite_$suite"
done

if [ $((passed + failed + skipped)) = 0 ]; then
	echo "FAILED   there is nothing to run: make test-bins"
	failed=1
fi
if [ ${#failures[@]} != 0 ]; then
	echo "failed:"
	printf '  %s\n' "${failures[@]:0:38}"
	[ ${#failures[@]} -le 38 ] || echo "  and $((${#failures[@]} - 38)) lines more"
fi
echo "$passed passed, $failed failed, $skipped skipped" | tee build/test-logs/summary
[ "$failed" = 0 ]
