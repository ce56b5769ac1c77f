#!/usr/bin/env bash
# Writes the table of pipelines/table.yaml: the breast cancer measurements that Debian's package python3-sklearn ships, with a
# line of names in place of its line of counts, and the classes as words.  demo_table.sh OUT.csv
set -euo pipefail
data=$(ls /usr/lib/python3*/dist-packages/sklearn/datasets/data/breast_cancer.csv 2>/dev/null | head -n 1) || true
if [[ -z $data ]]; then
  echo "demo_table.sh: no breast_cancer.csv (hint: apt-get install python3-sklearn)" >&2
  exit 1
fi
mkdir -p "$(dirname "$1")"
awk -F, -v OFS=, '
  NR == 1 {
    split("mean error worst", kinds, " ")
    n = split("radius texture perimeter area smoothness compactness concavity concave_points symmetry fractal_dimension", what, " ")
    for (k = 1; k <= 3; k++) for (i = 1; i <= n; i++) printf "%s_%s,", what[i], kinds[k]
    print "diagnosis"
    class[0] = $3; class[1] = $4
    next
  }
  { $NF = class[$NF + 0]; print }
' "$data" >"$1.new"
mv "$1.new" "$1"
