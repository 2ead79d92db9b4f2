// Numbers of a network on a GPU: f32 or bf16 in memory, f32 in registers; W adjacent ones at a time.
#pragma once
#include "kernel.cuh"

typedef __nv_bfloat16 bf16;

// Two bf16 in one register, the first in the low half.
DEVICE unsigned pack(float low, float high) {
    __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    unsigned bits;
    memcpy(&bits, &both, 4);
    return bits;
}
DEVICE float low_half(unsigned bits) { return __uint_as_float(bits << 16); }
DEVICE float high_half(unsigned bits) { return __uint_as_float(bits & 0xFFFF0000u); }

DEVICE void load(float (&v)[1], const float* at) { v[0] = *at; }
DEVICE void load(float (&v)[1], const bf16* at) { v[0] = __bfloat162float(*at); }
DEVICE void load(float (&v)[4], const float* at) {
    float4 x = *reinterpret_cast<const float4*>(at);
    v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
}
DEVICE void load(float (&v)[4], const bf16* at) {
    uint2 x = *reinterpret_cast<const uint2*>(at);
    v[0] = low_half(x.x), v[1] = high_half(x.x), v[2] = low_half(x.y), v[3] = high_half(x.y);
}
DEVICE void store(float* at, const float (&v)[1]) { *at = v[0]; }
DEVICE void store(bf16* at, const float (&v)[1]) { *at = __float2bfloat16(v[0]); }
DEVICE void store(float* at, const float (&v)[4]) {
    *reinterpret_cast<float4*>(at) = make_float4(v[0], v[1], v[2], v[3]);
}
DEVICE void store(bf16* at, const float (&v)[4]) {
    *reinterpret_cast<uint2*>(at) = make_uint2(pack(v[0], v[1]), pack(v[2], v[3]));
}
