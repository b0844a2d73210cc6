#!/bin/sh
# Builds the flash-mla program and serves the built-in trace for about a minute; see `flash-mla replay --help`.
set -eu
cd "$(dirname "$0")/.."

scripts/build.sh release flash-mla

folder=$PWD/out/demo
mkdir -p "$folder"
cat <<'TEXT'

The attention of a language model (Multi-head Latent Attention, 128 heads, one layer) now serves requests whose lengths are
those of a real chat service. Each step appends one token to every running request and decodes all of them as one batch.
This takes about a minute.

TEXT
build/release/tools/flash-mla replay --verify 200 --json "$folder/replay.json" --html "$folder/replay.html" "$@"
python3 scripts/demo_summary.py "$folder/replay.json" "$folder/replay.html"
