// Stochastic depth and dropout, by the keys of `models/src/kernels/drop.rs`: nothing that is dropped is stored.
#pragma once
#include "number.cuh"
#include "random.cuh"

struct Drop {
    uint64_t key;
    uint64_t first;  // number of the first view
    double path;
    float scale;     // of what stays
    unsigned below;  // values are zero whose 16 bits are below
    int residual;    // -1: nothing is dropped
    int _gap;
};

// What a row's view drops.
struct Dropping {
    uint64_t key;
    float scale;
    unsigned below;
    bool on;
};
DEVICE Dropping dropping(const Drop& drop, int64_t view) {
    if (drop.residual < 0) return {0, 1.0f, 0, false};
    uint64_t key = key_with(key_with(drop.key, drop.first + view), drop.residual);
    uint4 first = key_block(key, 0);
    if (key_uniform(first.x, first.y) < drop.path) return {0, 0.0f, 0, true};
    return {key, drop.scale, drop.below, true};
}

// Drops of W adjacent values of a view, the first numbered `i`, a multiple of W.
template <int W> DEVICE void drop(float (&v)[W], const Dropping& a, int64_t i) {
    if (!a.on) return;
    if (a.below == 0) {
        for (int j = 0; j < W; j++) v[j] = a.scale == 0.0f ? 0.0f : v[j] * a.scale;
        return;
    }
    uint4 bits = key_block(a.key, 1 + i / 8);
#pragma unroll
    for (int j = 0; j < W; j++) {
        int at = (int)(i % 8) + j;
        unsigned word = word_of(bits, at / 2);
        unsigned number = at % 2 ? word >> 16 : word & 0xFFFFu;
        v[j] = number < a.below ? 0.0f : v[j] * a.scale;
    }
}
