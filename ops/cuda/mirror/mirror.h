// CUDA's words for a C++ compiler: blocks run one after the other, the threads of a block as fibers that run in turn
// until they meet at a barrier. Included before every kernel when the mirror is compiled; only tests use it.
//
// A device runs blocks and threads in any order. Here the order turns around from launch to launch, from block to block
// and from barrier to barrier, so that what counts on one of them comes out wrong.
#pragma once
#define LOEV_MIRROR

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <vector>

struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct double2 { double x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

namespace mirror {

enum class Wait { none, warp, block, done };

struct Fiber {
    ucontext_t context;
    dim3 index;
    Wait wait = Wait::none;
    // What the thread shows the others of its warp.
    unsigned char shown[32];
};

struct Block {
    dim3 grid_size, block_size, block_index;
    std::vector<Fiber> fibers;
    std::vector<std::vector<char>> stacks;
    std::vector<unsigned char> shared_memory;
    ucontext_t scheduler;
    Fiber* running = nullptr;
    const std::function<void()>* body = nullptr;
    // Whether this block's threads begin with the last, and whether this launch does with the last block.
    bool backward = false, turned = false;
};

inline Block& block() {
    static thread_local Block block;
    return block;
}

inline void pause(Wait wait) {
    Block& b = block();
    Fiber* self = b.running;
    self->wait = wait;
    swapcontext(&self->context, &b.scheduler);
}

inline void enter() {
    Block& b = block();
    (*b.body)();
    b.running->wait = Wait::done;
    swapcontext(&b.running->context, &b.scheduler);
}

// Lets everybody go on who waits for `wait` together with all of `from..to` that are not done.
inline bool release(Block& b, size_t from, size_t to, Wait wait) {
    bool any = false;
    for (size_t i = from; i < to; i++) {
        if (b.fibers[i].wait == Wait::done) continue;
        if (b.fibers[i].wait != wait) return false;
        any = true;
    }
    for (size_t i = from; any && i < to; i++)
        if (b.fibers[i].wait == wait) b.fibers[i].wait = Wait::none;
    return any;
}

// 0 when all threads have ended, 2 when they wait for one another.
inline int run_block(Block& b) {
    const size_t stack = 128 << 10, count = b.fibers.size();
    for (size_t i = 0; i < count; i++) {
        Fiber& fiber = b.fibers[i];
        b.stacks[i].resize(stack);
        fiber.wait = Wait::none;
        fiber.index = {(unsigned)i, 0, 0};
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = b.stacks[i].data();
        fiber.context.uc_stack.ss_size = stack;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
    for (bool backward = b.backward;; backward = !backward) {
        bool ran = false, ended = true;
        for (size_t turn = 0; turn < count; turn++) {
            size_t i = backward ? count - 1 - turn : turn;
            if (b.fibers[i].wait == Wait::none) {
                b.running = &b.fibers[i];
                swapcontext(&b.scheduler, &b.fibers[i].context);
                ran = true;
            }
            ended = ended && b.fibers[i].wait == Wait::done;
        }
        if (ended) return 0;
        for (size_t i = 0; i < count; i += 32) ran = release(b, i, std::min(count, i + 32), Wait::warp) || ran;
        if (release(b, 0, count, Wait::block)) ran = true;
        if (!ran) return 2;
    }
}

inline int run(const unsigned* grid, unsigned threads, unsigned shared, const std::function<void()>& body) {
    Block& b = block();
    b.grid_size = {grid[0], grid[1], grid[2]};
    b.block_size = {threads, 1, 1};
    b.body = &body;
    b.fibers.resize(threads);
    b.stacks.resize(threads);
    b.turned = !b.turned;
    const uint64_t blocks = (uint64_t)grid[0] * grid[1] * grid[2];
    for (uint64_t turn = 0; turn < blocks; turn++) {
        uint64_t i = b.turned ? blocks - 1 - turn : turn;
        b.block_index = {(unsigned)(i % grid[0]), (unsigned)(i / grid[0] % grid[1]), (unsigned)(i / grid[0] / grid[1])};
        b.backward = turn % 2;
        // Shared memory holds NaN until it is written.
        b.shared_memory.assign(shared + 16, 0xFF);
        if (int code = run_block(b)) return code;
    }
    return 0;
}

template <typename T> T shuffle(T value, int from) {
    static_assert(sizeof(T) <= sizeof(Fiber::shown), "too large to show");
    Block& b = block();
    Fiber* self = b.running;
    memcpy(self->shown, &value, sizeof(T));
    pause(Wait::warp);
    size_t me = self - b.fibers.data(), at = me - me % 32 + (size_t)from;
    T other = value;
    if (at < b.fibers.size()) memcpy(&other, b.fibers[at].shown, sizeof(T));
    pause(Wait::warp);
    return other;
}

// One bit of each lane of the warp that has not ended.
inline unsigned ballot(bool yes) {
    Block& b = block();
    Fiber* self = b.running;
    self->shown[0] = yes;
    pause(Wait::warp);
    size_t me = self - b.fibers.data(), first = me - me % 32;
    unsigned bits = 0;
    for (size_t i = first; i < std::min(first + 32, b.fibers.size()); i++)
        if (b.fibers[i].wait != Wait::done && b.fibers[i].shown[0]) bits |= 1u << (i - first);
    pause(Wait::warp);
    return bits;
}

// What the `lane`-th thread of this warp shows.
template <typename T> T seen(int lane) {
    Block& b = block();
    size_t me = b.running - b.fibers.data(), at = me - me % 32 + (size_t)lane;
    T value{};
    if (at < b.fibers.size()) memcpy(&value, b.fibers[at].shown, sizeof(T));
    return value;
}

template <typename T> void show(const T& value) {
    static_assert(sizeof(T) <= sizeof(Fiber::shown), "too large to show");
    memcpy(block().running->shown, &value, sizeof(T));
}

inline int lane() { return (int)(block().running->index.x % 32); }

inline unsigned char* dynamic() {
    auto address = (uintptr_t)block().shared_memory.data();
    return (unsigned char*)((address + 15) / 16 * 16);
}

}  // namespace mirror

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
// Blocks of one launch run on one thread of the host.
#define __shared__ static thread_local
#define __constant__ static const
#define threadIdx (mirror::block().running->index)
#define blockIdx (mirror::block().block_index)
#define blockDim (mirror::block().block_size)
#define gridDim (mirror::block().grid_size)
#define __syncthreads() mirror::pause(mirror::Wait::block)
#define __syncwarp(...) mirror::pause(mirror::Wait::warp)
#define __threadfence()
#define SHARED(type, name) type* name = reinterpret_cast<type*>(mirror::dynamic())
#define KERNEL(name, Arguments, a)                                                                                     \
    static void name##_thread(const Arguments& a);                                                                     \
    extern "C" int name(const unsigned* grid, unsigned threads, unsigned shared, const void* arguments, size_t size) { \
        if (size != sizeof(Arguments)) return 1;                                                                       \
        Arguments copy;                                                                                                \
        memcpy(&copy, arguments, size);                                                                                \
        return mirror::run(grid, threads, shared, [&] { name##_thread(copy); });                                       \
    }                                                                                                                  \
    static void name##_thread(const Arguments& a)

template <typename T> T __shfl_xor_sync(unsigned, T x, int mask) { return mirror::shuffle(x, mirror::lane() ^ mask); }
template <typename T> T __shfl_sync(unsigned, T x, int lane) { return mirror::shuffle(x, lane & 31); }
template <typename T> T __shfl_down_sync(unsigned, T x, int by) {
    int lane = mirror::lane() + by;
    return mirror::shuffle(x, lane < 32 ? lane : mirror::lane());
}
template <typename T> T __shfl_up_sync(unsigned, T x, int by) {
    int lane = mirror::lane() - by;
    return mirror::shuffle(x, lane >= 0 ? lane : mirror::lane());
}
inline unsigned __ballot_sync(unsigned, bool yes) { return mirror::ballot(yes); }
template <typename T> T __ldg(const T* at) { return *at; }
template <typename T> T atomicAdd(T* at, T x) { T old = *at; *at += x; return old; }
template <typename T> T atomicMax(T* at, T x) { T old = *at; *at = std::max(*at, x); return old; }
template <typename T> T atomicOr(T* at, T x) { T old = *at; *at |= x; return old; }

using std::max;
using std::min;
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double cospi(double x) { return cos(3.14159265358979323846 * x); }
inline double sinpi(double x) { return sin(3.14159265358979323846 * x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }
inline unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
inline float __uint_as_float(unsigned u) { float x; memcpy(&x, &u, 4); return x; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }

// bfloat16, rounded to nearest, ties to even.
struct __nv_bfloat16 { uint16_t bits; };
struct __nv_bfloat162 { __nv_bfloat16 x, y; };
inline float __bfloat162float(__nv_bfloat16 b) { return __uint_as_float((unsigned)b.bits << 16); }
inline __nv_bfloat16 __float2bfloat16(float x) {
    unsigned u = __float_as_uint(x);
    if (x != x) return {0x7FFF};
    return {(uint16_t)((u + 0x7FFF + ((u >> 16) & 1)) >> 16)};
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __float2bfloat16(x); }
inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) { return {__float2bfloat16(low), __float2bfloat16(high)}; }

// Tensor cores, as PTX lays them out over the lanes of a warp (ISA, "mma.m16n8k16" and "ldmatrix").
namespace mirror {
inline float half(unsigned bits, int which) { return __uint_as_float(which ? bits & 0xFFFF0000u : bits << 16); }
struct Operands { unsigned a[4], b[2]; };
}

// c[16][8] += a[16][16] b[16][8], bf16 into f32.
inline void tensor_product(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    mirror::show(mirror::Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    mirror::pause(mirror::Wait::warp);
    int group = mirror::lane() / 4, place = mirror::lane() % 4;
    mirror::Operands left[4], right[2][4];
    for (int i = 0; i < 4; i++) {
        left[i] = mirror::seen<mirror::Operands>(group * 4 + i);
        for (int j = 0; j < 2; j++) right[j][i] = mirror::seen<mirror::Operands>((place * 2 + j) * 4 + i);
    }
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 16; k++) {
            unsigned x = left[k % 8 / 2].a[i / 2 + k / 8 * 2], y = right[i % 2][k % 8 / 2].b[k / 8];
            c[i] += mirror::half(x, k % 2) * mirror::half(y, k % 2);
        }
    mirror::pause(mirror::Wait::warp);
}

// Four matrices of 8 x 8 bf16 from shared memory; lane 8 m + i says where row i of matrix m begins. Lane 4 i + j gets
// elements 2 j and 2 j + 1 of row i, or, turned, of column i.
inline void tensor_load(unsigned (&r)[4], const void* row, bool turned) {
    mirror::show(row);
    mirror::pause(mirror::Wait::warp);
    int i = mirror::lane() / 4, j = mirror::lane() % 4 * 2;
    for (int m = 0; m < 4; m++) {
        uint16_t pair[2];
        for (int k = 0; k < 2; k++) {
            int at = turned ? j + k : i, element = turned ? i : j + k;
            memcpy(&pair[k], mirror::seen<const char*>(m * 8 + at) + element * 2, 2);
        }
        r[m] = pair[0] | (unsigned)pair[1] << 16;
    }
    mirror::pause(mirror::Wait::warp);
}
inline void tensor_load(unsigned (&r)[4], const void* row) { tensor_load(r, row, false); }
inline void tensor_load_turned(unsigned (&r)[4], const void* row) { tensor_load(r, row, true); }
