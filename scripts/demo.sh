#!/bin/sh
# Builds the flash-mla program and serves the built-in trace for about a minute; see `flash-mla replay --help`.
set -eu
cd "$(dirname "$0")/.."

scripts/build.sh release flash-mla

folder=out/demo
mkdir -p "$folder"
cat <<'TEXT'

A language model with Multi-head Latent Attention is served here, its attention part alone: requests with the context and
answer lengths of a real service share one paged cache. Each step appends one token to every running request and decodes
all of them in one batch. This takes about a minute.

TEXT
build/release/tools/flash-mla replay --verify 200 --json "$folder/replay.json" --html "$folder/replay.html" "$@"
cat <<TEXT

What this showed: requests of very different lengths were decoded in one batch without padding; the cache handed out pages
as they grew and took them back when they finished; and sampled rows of the results were compared with a reference in
double precision.

The page with the pictures (batch size, pages in use against padded, step time):
  file://$PWD/$folder/replay.html
The figures as JSON:
  $PWD/$folder/replay.json
TEXT
