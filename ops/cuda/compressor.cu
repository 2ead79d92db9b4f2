// The compressor: one gain for all channels of a view (`compressor.rs`).
//
// One block a view. It goes over the view in tiles of 16 frames a thread. What holds the reduction, max(r, k h + (1 - k) r),
// is of the form max(c, K h + d), and so is one after the other: runs are carried on by a scan over the threads, as is the
// low-pass behind it. The channels are read twice, the second time from the cache, and written once: 384 kB for 3 s at
// 16 kHz.
#include "audio.cuh"

#define HOLD_RUN 16

struct CompressorView {
    int64_t at;
    double keep_attack;
    double keep_release;
    int frames;
    float threshold, half_knee, slope, bend;  // of the curve, in octaves
    float makeup;
};
struct Compressor {
    Arena arena;
    const CompressorView* views;
};

DEVICE float reduction(const CompressorView& view, float level) {
    float over = log2f(fmaxf(level, 1e-20f)) - view.threshold;
    float in_knee = fminf(fmaxf(over + view.half_knee, 0.0f), 2.0f * view.half_knee);
    return view.bend * in_knee * in_knee + view.slope * fmaxf(over - view.half_knee, 0.0f);
}

DEVICE double raised_to(double x, int n) {
    double product = 1.0;
    for (; n > 0; n /= 2) {
        if (n % 2) product *= x;
        x *= x;
    }
    return product;
}

KERNEL(compressor, Compressor, a) {
    SHARED(float, tile);
    __shared__ double held_ends[32], fed_ends[32], smooth_ends[32];
    __shared__ double carried[2];
    CompressorView view = a.views[blockIdx.x];
    float* samples = a.arena.samples + view.at;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, length = blockDim.x * HOLD_RUN;
    float* own = tile + threadIdx.x * (HOLD_RUN + 1);
    double release = view.keep_release, attack = view.keep_attack;
    double release_run = raised_to(release, HOLD_RUN), attack_run = raised_to(attack, HOLD_RUN);
    double release_lane = raised_to(release_run, lane), attack_lane = raised_to(attack_run, lane);
    double release_warp = raised_to(release_run, 32), attack_warp = raised_to(attack_run, 32);
    if (threadIdx.x < 2) carried[threadIdx.x] = 0.0;
    for (int from = 0; from < view.frames; from += length) {
        int count = min(length, view.frames - from);
        __syncthreads();
        for (int i = threadIdx.x; i < length; i += blockDim.x) {
            float level = 0.0f;
            for (int c = 0; c < a.arena.channels && i < count; c++)
                level = fmaxf(level, fabsf(samples[c * a.arena.stride + from + i]));
            tile[i / HOLD_RUN * (HOLD_RUN + 1) + i % HOLD_RUN] = reduction(view, level);
        }
        __syncthreads();
        // What is held after this run for any that is held before: max(held, K before + fed).
        double held = 0.0, fed = 0.0;
        for (int i = 0; i < HOLD_RUN; i++) {
            double r = own[i], add = (1.0 - release) * r;
            held = fmax(r, release * held + add);
            fed = release * fed + add;
        }
        double power = release_run;
        for (int k = 1; k < 32; k *= 2) {
            double held_before = __shfl_up_sync(0xffffffffu, held, k), fed_before = __shfl_up_sync(0xffffffffu, fed, k);
            if (lane >= k) {
                held = fmax(held, power * held_before + fed);
                fed = power * fed_before + fed;
            }
            power *= power;
        }
        if (lane == 31) {
            held_ends[warp] = held;
            fed_ends[warp] = fed;
        }
        __syncthreads();
        double start = carried[0];
        for (int w = 0; w < warp; w++) start = fmax(held_ends[w], release_warp * start + fed_ends[w]);
        double held_before = __shfl_up_sync(0xffffffffu, held, 1), fed_before = __shfl_up_sync(0xffffffffu, fed, 1);
        if (lane > 0) start = fmax(held_before, release_lane * start + fed_before);
        double smooth = 0.0;
        for (int i = 0; i < HOLD_RUN; i++) {
            double r = own[i];
            start = fmax(r, release * start + (1.0 - release) * r);
            own[i] = (float)start;
            smooth = attack * smooth + (1.0 - attack) * start;
        }
        smooth = lanes_from_rest<32>(smooth, attack_run, lane);
        if (lane == 31) smooth_ends[warp] = smooth;
        __syncthreads();
        double state = carried[1];
        for (int w = 0; w < warp; w++) state = attack_warp * state + smooth_ends[w];
        double before = __shfl_up_sync(0xffffffffu, smooth, 1);
        if (lane > 0) state = attack_lane * state + before;
        for (int i = 0; i < HOLD_RUN; i++) {
            state = attack * state + (1.0 - attack) * own[i];
            own[i] = exp2f(fmaxf(view.makeup - (float)state, -125.0f));
        }
        __syncthreads();
        if (threadIdx.x == blockDim.x - 1) {
            carried[0] = start;
            carried[1] = state;
        }
        for (int c = 0; c < a.arena.channels; c++)
            for (int i = threadIdx.x; i < count; i += blockDim.x) {
                float* sample = samples + c * a.arena.stride + from + i;
                *sample = bounded(*sample * tile[i / HOLD_RUN * (HOLD_RUN + 1) + i % HOLD_RUN]);
            }
    }
}
