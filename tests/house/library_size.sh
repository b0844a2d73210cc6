#!/bin/bash
# The stripped library stays under 5 MB: library_size.sh LIBRARY (static or shared)
set -euo pipefail
limit=5000000
copy=$(mktemp)
trap 'rm -f "$copy"' EXIT
strip --strip-unneeded -o "$copy" "$1"
bytes=$(stat --format=%s "$copy")
echo "$(basename "$1"), stripped: $bytes bytes, at most $limit"
[ "$bytes" -lt "$limit" ]
