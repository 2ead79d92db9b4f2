// Features of views that are on the device already: masks over time and frequency, and whether they are finite.
//
// A block of 256 threads for each view, a warp for each of its frames in turn. `mask_features` writes what is masked (at
// most 4 bytes a value) and reads none of it; `finite_views` reads 4 bytes a value.
#include "kernel.cuh"

namespace mask {

// Puts mean[band] in the place of what lies in a view's ranges: `times` ranges of frames, then `bands` ranges of bands,
// each `[from, to)`.
struct Mask {
    float* features;
    const float* mean;
    const unsigned* ranges;
    int frames, mels;
    int times, bands;
};

DEVICE bool within(const unsigned* ranges, int count, unsigned x) {
    bool any = false;
    for (int i = 0; i < count; i++) any = any || (x >= ranges[2 * i] && x < ranges[2 * i + 1]);
    return any;
}

KERNEL(mask_features, Mask, a) {
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const unsigned* times = a.ranges + (int64_t)blockIdx.x * 2 * (a.times + a.bands);
    const unsigned* bands = times + 2 * a.times;
    float* view = a.features + (int64_t)blockIdx.x * a.frames * a.mels;
    for (int frame = threadIdx.x / 32; frame < a.frames; frame += warps) {
        const bool whole = within(times, a.times, frame);
        for (int mel = lane; mel < a.mels; mel += 32)
            if (whole || within(bands, a.bands, mel)) view[(int64_t)frame * a.mels + mel] = a.mean[mel];
    }
}

// faults[view] = how many threads of the view's block saw a value that is not finite.
struct Finite {
    const float* features;
    float* faults;
    int64_t values;
};
KERNEL(finite_views, Finite, a) {
    __shared__ float space[32];
    const float* view = a.features + (int64_t)blockIdx.x * a.values;
    bool fault = false;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < a.values; i += blockDim.x) {
        float x = view[i];
        fault = fault || x - x != 0.0f;
    }
    float faults = block_sum(fault ? 1.0f : 0.0f, space);
    if (threadIdx.x == 0) a.faults[blockIdx.x] = faults;
}

// first[0] = the number of the first view with a fault, from 1; 0 where there is none. One block.
struct First {
    const float* faults;
    double* first;
    int64_t views;
};
KERNEL(first_fault, First, a) {
    __shared__ int64_t own[1024];
    int64_t mine = a.views;
    for (int64_t i = threadIdx.x; i < a.views; i += blockDim.x)
        if (a.faults[i] > 0.0f) mine = min(mine, i);
    own[threadIdx.x] = mine;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) own[threadIdx.x] = min(own[threadIdx.x], own[threadIdx.x + half]);
    }
    if (threadIdx.x == 0) a.first[0] = own[0] < a.views ? (double)(own[0] + 1) : 0.0;
}

}  // namespace mask
