#!/usr/bin/env bash
# The main job on real pictures, as `make demo` runs it, and the recipes for a table, skewed classes and features. DATA=folder
# takes the user's own pictures (a sub-folder for each class) for the main job.
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

# the same pipeline, live: served in the background, read by a trainer that only counts, one batch made again
state=$(mktemp -d) log=$(mktemp)
trap '[[ -z ${server:-} ]] || kill "$server" 2>/dev/null || true; wait; rm -rf "$state" "$log"' EXIT
say "$shardmill" serve "$pipeline" "${source_option[@]}" '&'
"$shardmill" serve "$pipeline" "${source_option[@]}" --bind 'tcp://127.0.0.1:*' --state "$state" --quiet >"$log" &
server=$!
until grep -q '^serving ' "$log"; do
  kill -0 "$server" || exit 1
  sleep 0.1
done
cat "$log"
endpoint=$(sed -n 's/^serving .* at //p' "$log")
run "$shardmill" read demo --broker "$endpoint"
run "$shardmill" replay demo --broker "$endpoint" --step 0 -o "$out-batch.png"

# what else leaves the mill: rows of a table, rare classes as often as the others, pictures as features
table=${BUILD:-build}/tables/breast_cancer.csv
run pipelines/demo_table.sh "$table"
run "$shardmill" explain pipelines/table.yaml --source "$table"
run "$shardmill" expand pipelines/table.yaml --source "$table" -o "$out-table"
run "$shardmill" expand pipelines/skewed.yaml "${source_option[@]}" -o "$out-skewed"
run "$shardmill" expand pipelines/pca.yaml "${source_option[@]}" -o "$out-pca"
say head -n 2 "$out-table/shard-000000.csv"
head -n 2 "$out-table/shard-000000.csv" | cut -c 1-120

cat <<EOF

What there is now:
  $sheet    the contact sheet: sources beside what a trainer would see
  $out/    $(find "$out" -name 'shard-*.tar' | wc -l) WebDataset shards ($(du -sh "$out" | cut -f1)), manifest.json, quarantine.jsonl
  $out-batch.png    the first batch of the epoch that the trainer read, made again
  $out-table/    a table, scaled, in principal components, its rarer class filled up by SMOTE (pipelines/table.yaml)
  $out-skewed/    every class as often as the most frequent one (pipelines/skewed.yaml)
  $out-pca/    pictures as 32 features each, for numpy.load (pipelines/pca.yaml)
  $pipeline    the pipeline that made them: change it and look again

Next, on your own pictures (a folder with a sub-folder for each class):
  make demo DATA=path/to/pictures
or look at one op:
  $shardmill ops ColorJitter
EOF
