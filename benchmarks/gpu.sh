#!/usr/bin/env bash
# Everything that needs a GPU, in one go: bash benchmarks/gpu.sh FOLDER
# Builds the core in place, runs the tests of the ops and those marked gpu, times the ops, and
# writes tests.log, ops.csv and gpu.txt to FOLDER. PYTHON names an environment with the build
# requirements of pyproject.toml and the extra `test`; nothing is downloaded.
set -euo pipefail
folder=$(mkdir -p "${1:?usage: bash benchmarks/gpu.sh FOLDER}" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv >"$folder/gpu.txt"
$PYTHON -m pip install --quiet --no-deps --no-build-isolation --editable .
# What fails is written down and does not keep the ops from being timed.
failed=0
$PYTHON -m pytest -q tests/ops -k "triton or cuda or compiles_for" >"$folder/tests.log" 2>&1 || failed=1
$PYTHON -m pytest -q -m gpu tests >>"$folder/tests.log" 2>&1 || failed=1
for op in extract_cam normalize_cam accumulate_global_cam front_door_logits front_door_loss \
  path_affinity affinity_loss displacement_loss; do
  $PYTHON -m benchmarks ops --op $op --budget 2 --output "$folder/ops.csv" || failed=1
done
grep -E '(passed|failed).* in [0-9.]+s' "$folder/tests.log"
exit $failed
