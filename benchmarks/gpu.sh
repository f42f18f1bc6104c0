#!/usr/bin/env bash
# Everything that needs a GPU, in one go: bash benchmarks/gpu.sh FOLDER
# Builds the core in place, runs the tests of the ops and those marked gpu, times the ops, and
# writes gpu.txt, build.log, tests.log, ops.log, ops.csv and seconds.txt (of each step) to FOLDER.
# PYTHON names an environment with the build requirements of pyproject.toml, torch, torchvision,
# triton, safetensors, rich, scipy, pytest, pytest-timeout, pytest-xdist and hypothesis; nothing is
# downloaded. C2AM_REVISION names the revision of a copy of the tree without its history.
#   bash benchmarks/gpu.sh FOLDER tests
#   bash benchmarks/gpu.sh FOLDER ops [OP...]
# run the tests alone, and time the ops (or some) alone.
#   bash benchmarks/gpu.sh FOLDER sanitize
# runs the tests of the compiled CUDA kernels under compute-sanitizer instead.
#   bash benchmarks/gpu.sh FOLDER stages [OPTION...]
# times the stages instead, which needs nvidia-dali and jsonargparse too, and runs their tests; options
# as of `python -m benchmarks stages`.
#   bash benchmarks/gpu.sh FOLDER modes [OPTION...]
# times the training steps in each mode of torch.compile, to stages-MODE.csv.
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

tests() {
  local rooms=(tests/ops tests/methods/test_compile.py) status=0
  # In several processes, which compile kernels side by side; test_kernels only compiles.
  OMP_NUM_THREADS=2 $PYTHON -m pytest -q -n 8 "${rooms[@]}" --ignore tests/ops/test_kernels.py ||
    status=1
  # The other rooms cannot be collected without these.
  if $PYTHON -c 'import jsonargparse, nvidia.dali' 2>/dev/null; then
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

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv >"$folder/gpu.txt"
step build build
[[ -z $failed ]] || { tail -n 40 "$folder/build.log"; exit 1; }
case ${2:-} in
  sanitize) for tool in memcheck racecheck initcheck synccheck; do step "$tool" sanitize "$tool"; done ;;
  stages)
    step tests-stages $PYTHON -m pytest -q -m gpu tests/stages
    step stages $PYTHON -m benchmarks stages --output "$folder/stages.csv" "${@:3}"
    ;;
  modes)
    for mode in default reduce-overhead max-autotune-no-cudagraphs; do
      for stage in classifier irn segmenter; do
        step "modes: $stage, $mode" $PYTHON -m benchmarks stages --stage $stage --rounds 1 \
          --provider network --$stage.compile_mode $mode --output "$folder/stages-$mode.csv" "${@:3}"
      done
    done
    ;;
esac
if [[ ${2:-tests} == tests ]]; then
  rm -f "$folder/tests.log"
  step tests tests
  grep -E '^(FAILED|ERROR)|(passed|failed).* in [0-9.]+s' "$folder/tests.log" || true
fi
if [[ ${2:-ops} == ops ]]; then
  ops=("${@:3}")
  ((${#ops[@]})) || ops=(extract_cam multi_scale_cam affinity_loss front_door_loss
    accumulate_global_cam front_door_logits path_affinity displacement_loss normalize_cam
    label_maps random_walk dense_crf)
  for op in "${ops[@]}"; do step "ops: $op" bench "$op"; done
fi
[[ -z $failed ]] || { echo "failed:$failed"; exit 1; }
