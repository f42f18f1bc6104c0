#!/usr/bin/env bash
# Everything that needs a GPU, in one go: bash benchmarks/gpu.sh FOLDER
# Builds the core in place, runs the tests of the ops and those marked gpu, times the ops, the stages
# and the training steps in each mode of torch.compile, and writes gpu.txt, logs, CSVs, stages.md
# (the table with the estimate for VOC) and seconds.txt (of each step) to FOLDER.
# PYTHON names an environment with the build requirements of pyproject.toml, torch, torchvision,
# triton, safetensors, rich, scipy, pytest, pytest-timeout, pytest-xdist and hypothesis, and for what
# is beyond the ops the other dependencies of pyproject.toml; nothing is downloaded. C2AM_REVISION
# names the revision of a copy of the tree without its history. Parts of it, each alone:
#   bash benchmarks/gpu.sh FOLDER tests
#   bash benchmarks/gpu.sh FOLDER ops [OP...]
#   bash benchmarks/gpu.sh FOLDER stages [OPTION...]    options of `python -m benchmarks stages`
#   bash benchmarks/gpu.sh FOLDER modes [OPTION...]     to stages-MODE.csv
# and what is no part of it: the tests of the compiled CUDA kernels under compute-sanitizer,
#   bash benchmarks/gpu.sh FOLDER sanitize
set -euo pipefail
folder=$(mkdir -p "${1:?usage: bash benchmarks/gpu.sh FOLDER}" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
# Of cmake and ninja, where they are Python packages, and of nvcc.
PATH=$($PYTHON -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH:/usr/local/cuda/bin

# What fails is named at the end and does not keep the rest from running.
failed=""
step() {
  local name=$1 start=$SECONDS
  shift
  "$@" >>"$folder/${name%%:*}.log" 2>&1 || failed+=" $name"
  echo "$name: $((SECONDS - start)) s" | tee -a "$folder/seconds.txt"
}

build() {
  $PYTHON -m pip install --no-deps --no-build-isolation --editable . &&
    $PYTHON -c 'from c2am import _core; print(f"isa: {_core.isa}, cuda: {_core.has_cuda}")'
}

# The other rooms than the ops cannot be imported without these.
has_all() { $PYTHON -c 'import jsonargparse, nvidia.dali, torchmetrics' 2>/dev/null; }

tests() {
  local rooms=(tests/ops tests/methods/test_compile.py) status=0
  # In several processes, which compile kernels side by side; test_kernels only compiles.
  OMP_NUM_THREADS=2 $PYTHON -m pytest -q -n 8 "${rooms[@]}" --ignore tests/ops/test_kernels.py ||
    status=1
  if has_all; then
    $PYTHON -m pytest -q -m gpu tests --ignore tests/ops --ignore tests/methods/test_compile.py ||
      status=1
  fi
  return $status
}

sanitize() {
  # torch's allocator would hide accesses beyond the ends of blocks.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 1 \
    $PYTHON -m pytest -q -m gpu tests/ops/test_dense_crf_gpu.py \
    tests/ops/test_label_maps.py tests/ops/test_random_walk_gpu.py
}

bench() {
  local peers=()
  case $1 in random_walk | dense_crf) peers=(--peer) ;; esac  # of other packages, and this CPU
  $PYTHON -m benchmarks ops --op "$1" --budget 1 --output "$folder/ops.csv" "${peers[@]}"
}

# The classes' maps of VOC's images at six scales: the recipe's four, and two between them.
SIX="[1.0, 0.5, 1.5, 2.0, 0.75, 1.25]"

stages() {
  $PYTHON -m benchmarks stages --output "$folder/stages.csv" "$@"
}

six_scales() {
  $PYTHON -m benchmarks stages --stage cam --cam.scales "$SIX" \
    --output "$folder/stages-six-scales.csv"
}

markdown() {
  $PYTHON - "$folder"/stages{,-six-scales}.csv >"$folder/stages.md" <<'EOF'
import sys
from pathlib import Path
from benchmarks.results import read_rows
from benchmarks.stages.table import markdown
for name in sys.argv[1:]:
    print(markdown(read_rows(Path(name))))
EOF
}

mode() {
  $PYTHON -m benchmarks stages --stage "$2" --rounds 1 --provider network "--$2.compile_mode" "$1" \
    --output "$folder/stages-$1.csv" "${@:3}"
}

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv >"$folder/gpu.txt"
step build build
[[ -z $failed ]] || { tail -n 40 "$folder/build.log"; exit 1; }
part=${2:-all}
options=("${@:3}")
if [[ $part == all ]] && ! has_all; then
  echo "no jsonargparse, nvidia-dali or torchmetrics: the ops alone"
  part=ops-all
fi
if [[ $part == sanitize ]]; then
  for tool in memcheck racecheck initcheck synccheck; do step "$tool" sanitize "$tool"; done
fi
if [[ $part == @(all|ops-all|tests) ]]; then
  rm -f "$folder/tests.log"
  step tests tests
  grep -E '^(FAILED|ERROR)|(passed|failed).* in [0-9.]+s' "$folder/tests.log" || true
fi
if [[ $part == @(all|ops-all|ops) ]]; then
  ops=("${options[@]}")
  ((${#ops[@]})) || ops=(extract_cam multi_scale_cam affinity_loss front_door_loss
    accumulate_global_cam front_door_logits path_affinity displacement_loss normalize_cam
    label_maps random_walk dense_crf)
  for op in "${ops[@]}"; do step "ops: $op" bench "$op"; done
fi
if [[ $part == stages ]]; then
  step tests-stages $PYTHON -m pytest -q -m gpu tests/stages
fi
if [[ $part == @(all|stages) ]]; then
  step stages stages "${options[@]}"
  # Not where only some stages are asked for.
  ((${#options[@]})) && [[ ${options[*]} == *--stage* ]] || step six-scales six_scales
  step markdown markdown
fi
if [[ $part == @(all|modes) ]]; then
  for each in default reduce-overhead max-autotune-no-cudagraphs; do
    for stage in classifier irn segmenter; do
      step "modes: $stage, $each" mode "$each" "$stage" "${options[@]}"
    done
  done
fi
[[ -z $failed ]] || { echo "failed:$failed"; exit 1; }
