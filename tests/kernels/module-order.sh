#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# module-order.sh FOLDER NAME...
#
# Prints the files of the named modules and of all they need, each after those it needs, as paths in
# FOLDER, which holds a kernel's modules and their modules.dep. Names that it lacks are left out;
# "-" and "_" are the same.
set -eu

[ $# -ge 2 ] || {
    echo "usage: module-order.sh FOLDER NAME..." >&2
    exit 125
}
folder=$1
shift
awk -v wanted="$*" -v folder="$folder" '
    function key(s) { gsub(/-/, "_", s); return s }
    {
        sub(/:/, "")
        name = $1
        sub(/.*\//, "", name)
        sub(/\.ko.*/, "", name)
        line[key(name)] = $0
    }
    END {
        n = split(wanted, names, " ")
        for (i = 1; i <= n; i++) {
            # A line of modules.dep is the module, then what it needs with the deepest last.
            for (j = split(line[key(names[i])], file, " "); j > 0; j--)
                if (!seen[file[j]]++)
                    print folder "/" file[j]
        }
    }' "$folder/modules.dep"
