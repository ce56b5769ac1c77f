#!/usr/bin/env bash
# The main job on real pictures, as `make demo` runs it. DATA=folder takes the user's own (a sub-folder for each class).
set -euo pipefail
cd "$(dirname "$0")/.."
shardmill=${BUILD:-build}/shardmill out=${OUT:-out/demo} pipeline=pipelines/demo.yaml
source_option=()
if [[ -n ${DATA:-} ]]; then
  source_option=(--source "$DATA") out=${OUT:-out/demo-$(basename "$DATA")}
fi
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
run() { say "$@"; "$@"; }
sheet=$out.png
mkdir -p "$(dirname "$out")"
run "$shardmill" check "$pipeline"
run "$shardmill" explain "$pipeline" "${source_option[@]}"
run "$shardmill" preview "$pipeline" "${source_option[@]}" -o "$sheet"
run "$shardmill" expand "$pipeline" "${source_option[@]}" -o "$out"
cat <<EOF

What there is now:
  $sheet    the contact sheet: sources beside what a trainer would see
  $out/    $(find "$out" -name 'shard-*.tar' | wc -l) WebDataset shards ($(du -sh "$out" | cut -f1)), manifest.json, quarantine.jsonl
  $pipeline    the pipeline that made them: change it and look again

Next, on your own pictures (a folder with a sub-folder for each class):
  make demo DATA=path/to/pictures
or look at one op:
  $shardmill ops ColorJitter
EOF
