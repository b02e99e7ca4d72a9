#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh [TARGET...]: libFuzzer on each target of build/fuzz/fuzz, or on those named (line, dot,
# ...), for FUZZ_SECONDS (30) each.
#
# Begins with the committed corpus and what earlier runs have found, which is kept in
# build/fuzz/corpus/TARGET. An input that fails is left in build/fuzz/ and named; put it into
# tests/fuzz/corpus/TARGET with the fix. Exit: 0 nothing found, 1 something was.

set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${FUZZ_SECONDS:-30}
failed=0
if [ $# -eq 0 ]; then
	for target in build/fuzz/fuzz/fuzz_*; do
		set -- "$@" "${target##*/fuzz_}"
	done
fi
for name; do
	found=build/fuzz/corpus/$name
	committed=tests/fuzz/corpus/$name
	options=(-max_total_time="$seconds" -timeout=10 -artifact_prefix="build/fuzz/$name-")
	[ ! -e "tests/fuzz/$name.dict" ] || options+=(-dict="tests/fuzz/$name.dict")
	mkdir -p "$found"
	if "build/fuzz/fuzz/fuzz_$name" "${options[@]}" "$found" "$committed" \
		>"build/fuzz/$name.log" 2>&1; then
		echo "ok      $name: $(tail -n 1 "build/fuzz/$name.log")"
	else
		tail -n 40 "build/fuzz/$name.log"
		echo "FAILED  $name"
		failed=1
	fi
done
exit "$failed"
