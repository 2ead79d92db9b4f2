#!/usr/bin/env bash
# Everything that needs a GPU, in one call, on a machine that may have neither Rust nor a network.
#
#   scripts/gpu-check.sh pack [DIR]        where the project is built: DIR (default .gpu) gets what the other machine needs
#   scripts/gpu-check.sh run DIR OUT       where the GPU is: parity, kernels, bench, PyTorch, and a training; results in OUT
#
# `pack` needs what scripts/cuda-toolkit.sh needs and leaves less than 64 MiB. `run` needs a driver, and Python with
# PyTorch, whose CUDA libraries the program uses too. What fails is written down and does not keep the rest from running.
set -euo pipefail
cd "$(dirname "$0")/.."

pack() {
  local to="${1:-.gpu}" target="${CARGO_TARGET_DIR:-target}"
  local environment
  environment="$(scripts/cuda-toolkit.sh)"
  eval "$environment"
  cargo build --release --locked --bin loev --features loev-pipeline/cuda
  rm -rf "$to" && mkdir -p "$to"
  strip -o "$to/loev" "$target/release/loev"
  xz -T0 -6 "$to/loev"
  cp scripts/gpu-check.sh examples/quickstart.yaml examples/loev-claims.yaml examples/loev_torch.py \
    models/benches/peers/torch_gpu.py "$to/"
  du -sm "$to" | awk '{ print $1 " MiB in '"$to"'"; exit $1 >= 64 }'
}

run() {
  local from out step
  from="$(realpath "$1")" out="$(mkdir -p "$2" && realpath "$2")"
  local work; work="$(mktemp -d)"
  xz -dc "$from/loev.xz" > "$work/loev" && chmod +x "$work/loev"
  cp "$from"/*.yaml "$from"/*.py "$work/"
  # PyTorch's wheels bring the libraries of CUDA that the program is linked with.
  local libraries
  libraries="$(python3 - <<'PY'
import glob, site, sys
roots = [*site.getsitepackages(), site.getusersitepackages(), *sys.path]
print(":".join(sorted({p for root in roots if root for p in glob.glob(root + "/nvidia/*/lib")})))
PY
)"
  export LD_LIBRARY_PATH="$libraries:/usr/local/cuda/lib64:${LD_LIBRARY_PATH:-}"
  cd "$work"
  nvidia-smi > "$out/machine.txt" 2>&1 || true
  nproc >> "$out/machine.txt"
  step() {
    local name="$1"; shift
    echo "== $name"
    local start=$SECONDS code=0
    "$@" > "$out/$name.txt" 2>&1 || code=$?
    echo "$name: exit $code after $((SECONDS - start)) s" | tee -a "$out/steps.txt"
    tail -n 40 "$out/$name.txt"
  }
  step bench timeout 200 ./loev bench gpu --device cuda:0 --seconds 1 --json "$out/bench.json"
  step torch timeout 200 python3 torch_gpu.py "$out/bench.json" --seconds 1 --json "$out/torch.json"
  step quickstart timeout 100 ./loev run quickstart.yaml --out quickstart --device cuda:0
  step quickstart-cpu timeout 60 ./loev run quickstart.yaml --out quickstart-cpu --device cpu
  step compare ./loev compare quickstart quickstart-cpu
  [ -n "${CLAIMS:-}" ] && step claims timeout "$CLAIMS" ./loev run loev-claims.yaml --out claims --device cuda:0
  cp quickstart/run.json "$out/quickstart.json" 2>/dev/null || true
}

case "${1:-}" in
  pack) shift; pack "$@" ;;
  run) shift; run "$@" ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
