#!/usr/bin/env bash
# Everything that needs a GPU, in one go: bash benchmarks/gpu.sh FOLDER
# Builds the core in place, runs the tests of the ops and those marked gpu, times the ops, and
# writes tests.log, ops.csv and gpu.txt to FOLDER. PYTHON names an environment with the build
# requirements of pyproject.toml and the extra `test`; nothing is downloaded.
#   bash benchmarks/gpu.sh FOLDER sanitize
# runs the tests of the compiled CUDA kernels under compute-sanitizer instead.
#   bash benchmarks/gpu.sh FOLDER stages [OPTION...]
# times the stages instead, which needs nvidia-dali too; options as of `python -m benchmarks stages`.
set -euo pipefail
folder=$(mkdir -p "${1:?usage: bash benchmarks/gpu.sh FOLDER}" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv >"$folder/gpu.txt"
$PYTHON -m pip install --quiet --no-deps --no-build-isolation --editable .
if [[ ${2:-} == sanitize ]]; then
  for tool in memcheck racecheck initcheck synccheck; do
    # torch's allocator would hide accesses beyond the ends of blocks.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $tool --error-exitcode 1 \
      $PYTHON -m pytest -q -m gpu tests/ops/test_dense_crf_gpu.py tests/ops/test_random_walk.py \
      >"$folder/$tool.log" 2>&1
  done
  exit
elif [[ ${2:-} == stages ]]; then
  $PYTHON -m benchmarks stages --output "$folder/stages.csv" "${@:3}"
  exit
fi
# What fails is written down and does not keep the ops from being timed.
failed=0
$PYTHON -m pytest -q tests/ops -k "triton or cuda or compiles_for" >"$folder/tests.log" 2>&1 || failed=1
$PYTHON -m pytest -q -m gpu tests >>"$folder/tests.log" 2>&1 || failed=1
for op in extract_cam multi_scale_cam normalize_cam accumulate_global_cam front_door_logits \
  front_door_loss path_affinity affinity_loss displacement_loss; do
  $PYTHON -m benchmarks ops --op $op --budget 1 --output "$folder/ops.csv" || failed=1
done
for op in random_walk dense_crf; do  # beside other packages and this machine's processor
  $PYTHON -m benchmarks ops --op $op --peer --output "$folder/ops.csv" || failed=1
done
grep -E '(passed|failed).* in [0-9.]+s' "$folder/tests.log"
exit $failed
