#!/bin/bash
# Builds and tests presets one after the other: test.sh PRESET... Goes on after a failure, ends with the sum.
set -uo pipefail
cd "$(dirname "$0")/.."

passed=0 failed=0 skipped=0
for preset in "$@"; do
  started=$SECONDS
  echo "==== $preset: build"
  if ! scripts/build.sh "$preset"; then
    failed=$((failed + 1))
    echo "==== $preset: the build failed"
    continue
  fi
  built=$SECONDS
  echo "==== $preset: test"
  log=build/$preset/test.log
  ctest --preset "$preset" --parallel "$(nproc)" 2>&1 | tee "$log" | grep -vE ' Passed  |^ +Start |Skipped'
  # "98% tests passed, 2 tests failed out of 100"
  summary=$(grep -E '^[0-9]+% tests passed' "$log" | tail -1)
  if [[ $summary =~ ,\ ([0-9]+)\ tests?\ failed\ out\ of\ ([0-9]+) ]]; then
    failed=$((failed + BASH_REMATCH[1]))
    left_out=$(grep -c '\*\*\*Skipped' "$log")
    skipped=$((skipped + left_out))
    passed=$((passed + BASH_REMATCH[2] - BASH_REMATCH[1] - left_out))
    if [[ $left_out -gt 0 ]]; then echo "==== $preset: $left_out tests skipped, what they need (a GPU) is not here"; fi
  else
    failed=$((failed + 1))
    echo "==== $preset: the tests did not run"
  fi
  echo "==== $preset: built in $((built - started)) s, tested in $((SECONDS - built)) s; all lines in $log"
done

if [[ $skipped -gt 0 ]]; then echo "$skipped skipped"; fi
echo "$passed passed, $failed failed"
[[ $failed -eq 0 ]]
