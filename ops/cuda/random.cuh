// The keyed random numbers of `ops/src/rng.rs`, bit for bit: Philox4x32-10 (Salmon et al., SC 2011).
#pragma once
#include "kernel.cuh"

DEVICE uint4 philox(uint4 counter, uint2 key) {
    for (int round = 0; round < 10; round++) {
        unsigned low_x = 0xD2511F53u * counter.x, high_x = __umulhi(0xD2511F53u, counter.x);
        unsigned low_z = 0xCD9E8D57u * counter.z, high_z = __umulhi(0xCD9E8D57u, counter.z);
        counter = make_uint4(high_z ^ counter.y ^ key.x, low_z, high_x ^ counter.w ^ key.y, low_x);
        key.x += 0x9E3779B9u;
        key.y += 0xBB67AE85u;
    }
    return counter;
}

// `Key::with`: the child numbered `n`.
DEVICE uint64_t key_with(uint64_t key, uint64_t n) {
    uint4 out = philox(make_uint4((unsigned)n, (unsigned)(n >> 32), 0, 2), make_uint2((unsigned)key, (unsigned)(key >> 32)));
    return (uint64_t)out.x | (uint64_t)out.y << 32;
}

// The `block`-th 128 bits of the stream of `key`: what `Rng::next_four` gives as its `block`-th.
DEVICE uint4 key_block(uint64_t key, uint64_t block) {
    return philox(make_uint4((unsigned)block, (unsigned)(block >> 32), 0, 0), make_uint2((unsigned)key, (unsigned)(key >> 32)));
}

// One of the four words of a block; picked by comparison, so that a block stays in registers.
DEVICE unsigned word_of(uint4 block, int i) { return i == 0 ? block.x : i == 1 ? block.y : i == 2 ? block.z : block.w; }

// `Rng::f64` of two words, the low one first: uniform in [0, 1).
DEVICE double key_uniform(unsigned low, unsigned high) {
    return (double)(((uint64_t)low | (uint64_t)high << 32) >> 11) * (1.0 / 9007199254740992.0);
}
