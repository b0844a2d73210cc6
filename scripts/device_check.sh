#!/usr/bin/env bash
# All that needs a GPU, in stages that can be called alone and resumed. Runs inside the folder that device_package.sh made.
# Usage: scripts/device_check.sh [--results FOLDER] [--again] [STAGE ...]     stages: tests python repeat sanitize soak bench;
# and, only when it is named, sweep.
# A stage that this commit has passed is not run again with the same results folder (default: results, beside scripts),
# unless --again is given.
set -uo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
results=$here/results
again=no
stages=()
while (($#)); do
  case $1 in
    --results) results=$2; shift ;;
    --again) again=yes ;;
    tests | python | repeat | sanitize | soak | bench | sweep) stages+=("$1") ;;
    *) echo "device_check: unknown argument '$1'" >&2; exit 2 ;;
  esac
  shift
done
((${#stages[@]})) || stages=(tests python repeat sanitize soak bench)
mkdir -p "$results"
commit=$(cat "$here/share/commit")
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)

# Runs a program with a time limit, its output in a log of its own.
logged() {
  local name=$1 limit=$2
  shift 2
  timeout -k 5 "$limit" "$@" >"$results/$name.log" 2>&1
}

# Says how a program went that wrote this log; shows its end if it failed.
report() {
  local name=$1 status=$2
  grep -q 'SKIPPED ] device tests' "$results/$name.log" && status=1  # there is no GPU to check
  if [ "$status" = 0 ]; then
    echo "  $name: $(grep -E 'PASSED|SKIPPED +\]|passed|steps, all right|rows, drawn evenly' "$results/$name.log" | tail -n 1)"
  else
    echo "  $name: FAILED ($status)"
    grep -hE 'Failure|^\[  FAILED|rror|rows:' "$results/$name.log" | head -n 15
    tail -n 10 "$results/$name.log"
  fi
  return "$status"
}

run_one() {
  logged "$@"
  report "$1" $?
}

# Runs a test program as several processes, each with its share of the tests: much of their time is the host's.
run_shares() {
  local name=$1 limit=$2 shares=$3 share failed=0 jobs=()
  shift 3
  for ((share = 0; share < shares; ++share)); do
    GTEST_TOTAL_SHARDS=$shares GTEST_SHARD_INDEX=$share logged "$name-$share" "$limit" "$@" &
    jobs+=($!)
  done
  for ((share = 0; share < shares; ++share)); do
    wait "${jobs[share]}"
    report "$name-$share" $? || failed=1
  done
  return $failed
}

device_programs() { (cd "$here/bin" && ls -d test_device* 2>/dev/null); }

stage_tests() {
  local failed=0 program
  for program in $(device_programs); do
    run_shares "tests-$program" 220 4 "$here/bin/$program" --gtest_filter='-*Repeat*:*Soak*' --gtest_brief=1 || failed=1
  done
  run_one tests-check 40 "$here/bin/flash-mla" check --backend cuda || failed=1
  run_one tests-replay 40 "$here/bin/flash-mla" replay --backend cuda --layers 2 --pages 4000 --steps 500 --verify 200 ||
    failed=1
  return $failed
}

# The Python package from its wheel, with the PyTorch, CuPy and JAX of this machine's python3. Results in python.json.
stage_python() {
  local failed=0 tests=$here/python/tests/python site file name job jobs=()
  site=$(mktemp -d)
  local pytest=(python3 -m pytest -q -o addopts= -p no:cacheprovider --durations=3)
  python3 -m pip install --quiet --no-index --no-deps --find-links "$here/wheels" --target "$site" flash-mla apache-tvm-ffi &&
    PYTHONPATH=$site python3 -c 'import torch, flash_mla; assert torch.cuda.is_available(), "PyTorch sees no GPU"' || failed=1
  if [ $failed = 0 ]; then
    export PYTHONPATH=$site PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 FLASH_MLA_TEST_DEVICES=cpu,cuda
    export OMP_NUM_THREADS=2  # several at a time, whose threads would wait for one another
    run_one python-arrays 150 "${pytest[@]}" "$tests/numpy" & jobs+=($!)
    for file in "$tests"/torch/test_torch_*.py; do
      name=$(basename "$file" .py) && name=${name#test_torch_}
      [ "$name" = example ] && continue  # on the CPU; it is tested where there is no GPU, too
      run_one "python-$name" 150 "${pytest[@]}" "$file" & jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || failed=1; done
    unset OMP_NUM_THREADS
    run_one python-example 60 python3 "$here/python/examples/deepseek_transformers.py" --device cuda \
      --json "$results/python-example.json" || failed=1
    run_one python-overhead 60 python3 "$here/python/bench/python/overhead.py" --commit "$commit" \
      --example "$results/python-example.json" --out "$results/python.json" || failed=1
    unset PYTHONPATH PYTHONDONTWRITEBYTECODE HF_HUB_OFFLINE FLASH_MLA_TEST_DEVICES
  fi
  rm -rf "$site"
  return $failed
}

stage_repeat() {
  run_one repeat 420 "$here/bin/test_device" --gtest_filter='*Repeat*' --gtest_brief=1
}

# A tool's complaints that share/sanitizer_exceptions.txt lists do not count. The lessons among the tests are about
# global memory, and long under racecheck, which is about shared memory.
stage_sanitize() {
  local failed=0 tool filter log
  for tool in memcheck synccheck racecheck initcheck; do
    filter='*Sanitize*'
    [ "$tool" = racecheck ] && filter='*Sanitize*-*Lessons*'
    run_shares "sanitize-$tool" 110 8 "$sanitizer" --tool "$tool" --print-limit 100000 "$here/bin/test_device" \
      --gtest_filter="$filter" --gtest_brief=1 || failed=1
    for log in "$results/sanitize-$tool"-?.log; do
      python3 "$here/scripts/sanitizer_findings.py" "$tool" "$log" "$here/share/sanitizer_exceptions.txt" || failed=1
    done
  done
  return $failed
}

stage_soak() {
  FLASH_MLA_SOAK_SECONDS=${FLASH_MLA_SOAK_SECONDS:-300} run_one soak 420 "$here/bin/test_device" --gtest_filter='*Soak*'
}

stage_bench() {
  local gpu peers
  gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
  case $gpu in *H200*) peers=h200 ;; *) peers=h100 ;; esac
  timeout 60 "$here/bin/roofline" >"$results/roof.json" || return 1
  timeout 400 "$here/bin/decode_bench" --peers "$here/share/$peers.json" --roof "$results/roof.json" \
    --commit "$commit" --out "$results/$peers.json" >"$results/bench.log" 2>&1
  local status=$?
  cat "$results/bench.log"
  return $status
}

# Pairs of workloads that should take the same time, and batch x length for the plot.
stage_sweep() {
  local gpu peers
  gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
  case $gpu in *H200*) peers=h200 ;; *) peers=h100 ;; esac
  timeout 60 "$here/bin/roofline" >"$results/roof.json" || return 1
  timeout 300 "$here/bin/decode_bench" --sweep --peers "$here/share/$peers.json" --roof "$results/roof.json" \
    --commit "$commit" --out "$results/${peers}_sweep.json"
}

failed=0
for stage in "${stages[@]}"; do
  if [ "$again" = no ] && [ "$(cat "$results/$stage.passed" 2>/dev/null)" = "$commit" ]; then
    echo "$stage: passed before"
    continue
  fi
  rm -f "$results/$stage.passed"
  SECONDS=0
  echo "$stage:"
  if "stage_$stage"; then
    case $commit in *dirty) ;; *) echo "$commit" >"$results/$stage.passed" ;; esac
    echo "$stage: passed in $SECONDS s"
  else
    echo "$stage: FAILED after $SECONDS s"
    failed=1
  fi
done
exit $failed
