// What all kernels begin with. A kernel is a function of one structure:
//
//   struct Gain { float* x; int n; float factor; };
//   KERNEL(gain, Gain, a) { int i = thread_index(); if (i < a.n) a.x[i] *= a.factor; }
//
// The host declares the same structure (`repr(C)`). nvcc compiles it for the device; with `mirror/mirror.h` in front, a
// C++ compiler makes of the same source a function that runs every thread on the CPU.
#pragma once

#ifndef LOEV_MIRROR
#include <cuda_bf16.h>
#include <stdint.h>

#define KERNEL(name, Arguments, a) extern "C" __global__ void name(const __grid_constant__ Arguments a)
// Dynamic shared memory, from its beginning; 16-byte aligned.
#define SHARED(type, name)                                                                                             \
    extern __shared__ __align__(16) unsigned char loev_shared[];                                                       \
    type* name = reinterpret_cast<type*>(loev_shared)
#endif

#define DEVICE static __device__ __forceinline__

// The number of this thread among all of a one-dimensional launch.
DEVICE int64_t thread_index() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }

// The sum over the 32 lanes of a warp, in every lane; in one fixed order.
DEVICE float warp_sum(float x) {
    for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}
DEVICE double warp_sum(double x) {
    for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}
DEVICE float warp_max(float x) {
    for (int lane = 16; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lane));
    return x;
}

// The sum over a block of whole warps, in every thread; `space` is shared memory for 32 values. In one fixed order.
template <typename T> DEVICE T block_sum(T x, T* space) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) space[warp] = x;
    __syncthreads();
    T sum = 0;
    for (int i = 0; i < warps; i++) sum += space[i];
    return sum;
}
