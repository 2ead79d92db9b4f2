// What the kernels of audio share: samples in an arena, Philox, finite numbers.
#pragma once
#include "kernel.cuh"

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

struct Words { unsigned at[4]; };

// Philox4x32-10, as `rng.rs` has it: block `counter` of the stream of `key`.
DEVICE Words philox(uint64_t counter, uint64_t key) {
    unsigned c0 = (unsigned)counter, c1 = (unsigned)(counter >> 32), c2 = 0, c3 = 0;
    unsigned k0 = (unsigned)key, k1 = (unsigned)(key >> 32);
    for (int round = 0; round < 10; round++) {
        unsigned a = __umulhi(0xD2511F53u, c0), a_low = 0xD2511F53u * c0;
        unsigned b = __umulhi(0xCD9E8D57u, c2), b_low = 0xCD9E8D57u * c2;
        c0 = b ^ c1 ^ k0;
        c1 = b_low;
        c2 = a ^ c3 ^ k1;
        c3 = a_low;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// The sum of two uniform numbers in -0.5..0.5, one from each half of a word; exact.
DEVICE float triangular(unsigned word) {
    return ((float)(word & 0xFFFFu) + (float)(word >> 16) - 65535.0f) * (1.0f / 65536.0f);
}
