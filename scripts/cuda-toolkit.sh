#!/usr/bin/env bash
# A CUDA 13.0 toolkit from PyPI's wheels, for building where there is neither a GPU nor a system toolkit.
#
#   eval "$(scripts/cuda-toolkit.sh)"            # installs once into ~/.cache/loev/cuda-13.0, prints the environment
#   cargo build --release --features cuda
#
# Needs Python with pip and a C compiler. 13.0, because code of a later minor version does not load on driver 580.
set -euo pipefail
root="${LOEV_CUDA:-${LOEV_CACHE:-$HOME/.cache/loev}/cuda-13.0}"
home="$root/nvidia/cu13"

install() {
  rm -rf "$root.part"
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$root.part" \
    nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 \
    nvidia-cuda-cccl==13.0.85 nvidia-cublas==13.0.2.14 nvidia-curand==10.4.0.35 nvidia-cuda-nvrtc==13.0.88 \
    nvidia-cufft==12.0.0.61 >&2
  local part="$root.part/nvidia/cu13"
  # Linkers look for the names without versions, which wheels do not have.
  (cd "$part/lib" && for library in lib*.so.*; do ln -sf "$library" "${library%%.so.*}.so"; done)
  chmod +x "$part"/bin/* "$part"/nvvm/bin/* 2>/dev/null || true
  driver "$part"
  rm -rf "$root"
  mv "$root.part" "$root"
}

# The driver's library comes with a driver alone: a stub of the same soname, with every name that may be asked for.
driver() {
  local stubs="$1/lib/stubs"
  mkdir -p "$stubs"
  grep -ohE '\bcu[A-Z][A-Za-z0-9_]*\b' "$1/include/cuda.h" | sort -u | sed 's/.*/void &(void) {}/' > "$stubs/cuda.c"
  "${CC:-cc}" -w -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$stubs/libcuda.so" "$stubs/cuda.c"
}

[ -x "$home/bin/nvcc" ] && [ -e "$home/lib/stubs/libcuda.so" ] || install
cat <<END
export CUDA_HOME='$home' CUDA_PATH='$home' CUDA_ROOT='$home'
export PATH='$home/bin':"\$PATH" LIBRARY_PATH='$home/lib:$home/lib/stubs'\${LIBRARY_PATH:+:"\$LIBRARY_PATH"}
export CUDA_COMPUTE_CAP='${CUDA_COMPUTE_CAP:-90}' CUDARC_CUDA_VERSION=13000 CUDAFORGE_THREADS=2
END
