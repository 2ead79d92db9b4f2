// What the kernels of audio share: samples in an arena, finite numbers, recursions over lanes.
#pragma once
#include "random.cuh"

// Views lie in one arena. A view begins at an offset, and its channels are `stride` samples apart.
struct Arena {
    float* samples;
    int64_t stride;
    int channels;
    int views;  // those of this launch
};

// The energy of all samples of a view, and the bits of the largest magnitude, which order as magnitudes do.
struct Measure {
    double energy;
    unsigned peak;
    unsigned _gap;
};

#define LARGEST 3.402823466e38f

// The nearest finite number; what is no number stays none.
DEVICE float bounded(float x) { return x > LARGEST ? LARGEST : x < -LARGEST ? -LARGEST : x; }
DEVICE float bounded(double x) {
    return x > (double)LARGEST ? LARGEST : x < -(double)LARGEST ? -LARGEST : (float)x;
}

DEVICE unsigned magnitude(float x) { return __float_as_uint(x) & 0x7FFFFFFFu; }

// The power of two that brings a peak near 1 (`wet::unit`); 0 for silence.
DEVICE float unit_of(unsigned peak) {
    if (peak == 0) return 0.0f;
    int exponent = 254 - (int)(peak >> 23);
    return __uint_as_float((unsigned)(exponent < 1 ? 1 : exponent > 253 ? 253 : exponent) << 23);
}

// The largest over a block of whole warps, in every thread; `space` is shared memory for 32 values.
DEVICE unsigned block_max(unsigned x, unsigned* space) {
    for (int lane = 16; lane > 0; lane /= 2) x = max(x, __shfl_xor_sync(0xffffffffu, x, lane));
    __syncthreads();
    if (threadIdx.x % 32 == 0) space[threadIdx.x / 32] = x;
    __syncthreads();
    for (unsigned i = 0; i < blockDim.x / 32; i++) x = max(x, space[i]);
    return x;
}

// The sum of two uniform numbers in -0.5..0.5, one from each half of a word; exact.
DEVICE float triangular(unsigned word) {
    return ((float)(word & 0xFFFFu) + (float)(word >> 16) - 65535.0f) * (1.0f / 65536.0f);
}

// A recursion y = step * y + x over neighbouring lanes, of which `lane` is the number of this one among LANES: what it
// has come to after this lane when it begins at rest, `x` being what each adds.
template <int LANES, typename T> DEVICE T lanes_from_rest(T x, T step, int lane) {
    for (int k = 1; k < LANES; k *= 2) {
        T before = __shfl_up_sync(0xffffffffu, x, k);
        if (lane >= k) x += step * before;
        step *= step;
    }
    return x;
}

// What enters this lane when the first begins at `start`; `ended` is what the above gave.
template <int LANES, typename T> DEVICE T lanes_from(T start, T ended, T step, int lane) {
    T before = __shfl_up_sync(0xffffffffu, ended, 1);
    for (int k = 1; k < LANES; k *= 2) {
        if (lane & k) start *= step;
        step *= step;
    }
    return lane > 0 ? start + before : start;
}
