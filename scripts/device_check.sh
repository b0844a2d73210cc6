#!/usr/bin/env bash
# All that needs a GPU, in stages that can be called alone and resumed. Runs inside the folder that device_package.sh made.
# Usage: scripts/device_check.sh [--results FOLDER] [--again] [STAGE ...]     stages: tests repeat sanitize soak bench
# A stage that has passed is not run again with the same results folder, unless --again is given.
set -uo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
results=$PWD/device-results
again=no
stages=()
while (($#)); do
  case $1 in
    --results) results=$2; shift ;;
    --again) again=yes ;;
    tests | repeat | sanitize | soak | bench) stages+=("$1") ;;
    *) echo "device_check: unknown argument '$1'" >&2; exit 2 ;;
  esac
  shift
done
((${#stages[@]})) || stages=(tests repeat sanitize soak bench)
mkdir -p "$results"

# Runs a program with a time limit, its output in a log of its own; prints the log's end when it fails.
logged() {
  local name=$1 limit=$2
  shift 2
  if timeout -k 5 "$limit" "$@" >"$results/$name.log" 2>&1; then
    echo "  $name: $(grep -E 'PASSED|SKIPPED|ERROR SUMMARY' "$results/$name.log" | tail -n 1)"
  else
    echo "  $name: FAILED ($?)"
    tail -n 25 "$results/$name.log"
    return 1
  fi
}

device_programs() { (cd "$here/bin" && ls -d test_device* 2>/dev/null); }

stage_tests() {
  local failed=0
  for program in $(device_programs); do
    logged "tests-$program" 240 "$here/bin/$program" --gtest_filter='-*Repeat*:*Soak*' --gtest_brief=1 || failed=1
  done
  logged tests-check 120 "$here/bin/flash-mla" check --backend cuda || failed=1
  return $failed
}

stage_repeat() {
  local failed=0
  for program in $(device_programs); do
    logged "repeat-$program" 420 "$here/bin/$program" --gtest_filter='*Repeat*' --gtest_brief=1 || failed=1
  done
  return $failed
}

stage_sanitize() {
  local failed=0 tool program
  for tool in memcheck synccheck racecheck initcheck; do
    for program in $(device_programs); do
      logged "sanitize-$tool-$program" 220 compute-sanitizer --tool "$tool" --error-exitcode 1 --kernel-regex kns=flash_mla \
        "$here/bin/$program" --gtest_filter='*Sanitize*' --gtest_brief=1 || failed=1
    done
  done
  return $failed
}

stage_soak() {
  local failed=0
  for program in $(device_programs); do
    FLASH_MLA_SOAK_SECONDS=${FLASH_MLA_SOAK_SECONDS:-300} \
      logged "soak-$program" 420 "$here/bin/$program" --gtest_filter='*Soak*' --gtest_brief=1 || failed=1
  done
  return $failed
}

stage_bench() {
  local gpu peers
  gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
  case $gpu in *H200*) peers=h200 ;; *) peers=h100 ;; esac
  timeout 60 "$here/bin/roofline" >"$results/roof.json" || return 1
  timeout 400 "$here/bin/decode_bench" --peers "$here/share/$peers.json" --roof "$results/roof.json" \
    --commit "$(cat "$here/share/commit")" --out "$results/$peers.json" >"$results/bench.log" 2>&1
  local status=$?
  cat "$results/bench.log"
  return $status
}

failed=0
for stage in "${stages[@]}"; do
  if [ "$again" = no ] && [ -e "$results/$stage.passed" ]; then
    echo "$stage: passed before"
    continue
  fi
  rm -f "$results/$stage.passed"
  SECONDS=0
  echo "$stage:"
  if "stage_$stage"; then
    touch "$results/$stage.passed"
    echo "$stage: passed in $SECONDS s"
  else
    echo "$stage: FAILED after $SECONDS s"
    failed=1
  fi
done
exit $failed
