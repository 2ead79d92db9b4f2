// Into the arena and out of it.
//
//   inspect  one block a segment, reads it once: silent, not finite or good
//   gather   grid (tiles, channels, views), a thread a sample: 2 or 4 bytes read, 4 written, both coalesced
//   measure  one block a view, reads it once
//   collect  one block a view, reads and writes it once; not finite samples are seen on the way
//
// A view of 3 s at 16 kHz is 192 kB: about 1 MB moves here in all.
#include "audio.cuh"

// Samples as f32 or, where `wide` is 0, as i16.
struct Pcm {
    const void* samples;
    int64_t segments;
    int64_t frames;  // of a channel
    int channels;
    int wide;
};
DEVICE float pcm(const Pcm& a, int64_t at) {
    return a.wide ? ((const float*)a.samples)[at] : (float)((const int16_t*)a.samples)[at] * (1.0f / 32768.0f);
}

struct Inspect {
    Pcm pcm;
    unsigned* peaks;  // per segment, the bits of the largest magnitude
};
KERNEL(inspect, Inspect, a) {
    __shared__ unsigned space[32];
    unsigned peak = 0;
    int64_t length = a.pcm.frames * a.pcm.channels;
    for (int64_t i = threadIdx.x; i < length; i += blockDim.x)
        peak = max(peak, magnitude(pcm(a.pcm, blockIdx.x * length + i)));
    peak = block_max(peak, space);
    if (threadIdx.x == 0) a.peaks[blockIdx.x] = peak;
}

struct GatherView {
    int64_t from;  // the first sample of its first channel in the segments
    int64_t to;    // and in the arena
    int frames;
    int _gap;
};
struct Gather {
    Arena arena;
    Pcm pcm;
    const GatherView* views;
};
KERNEL(gather, Gather, a) {
    GatherView view = a.views[blockIdx.z];
    int64_t i = thread_index();
    if (i >= view.frames) return;
    a.arena.samples[view.to + blockIdx.y * a.arena.stride + i] = pcm(a.pcm, view.from + blockIdx.y * a.pcm.frames + i);
}

struct MeasureView {
    int64_t at;
    int64_t stride;  // between its channels
    int frames;
    int _gap;
};
struct MeasureAll {
    const float* samples;
    const MeasureView* views;
    Measure* measures;
    int channels;
    int _gap;
};
KERNEL(measure, MeasureAll, a) {
    __shared__ unsigned peaks[32];
    __shared__ double sums[32];
    MeasureView view = a.views[blockIdx.x];
    unsigned peak = 0;
    double energy = 0.0;
    for (int c = 0; c < a.channels; c++) {
        const float* x = a.samples + view.at + c * view.stride;
        for (int i = threadIdx.x; i < view.frames; i += blockDim.x) {
            float sample = x[i];
            peak = max(peak, magnitude(sample));
            energy += (double)sample * (double)sample;
        }
    }
    peak = block_max(peak, peaks);
    energy = block_sum(energy, sums);
    if (threadIdx.x == 0) a.measures[blockIdx.x] = {energy, peak, 0};
}

struct CollectView {
    int64_t at;  // in the arena
    int segment; // negative: there is nothing in the arena, the view is silence
    int place;   // among the views of the call
};
struct Collect {
    Arena arena;
    const CollectView* views;
    const unsigned* peaks;  // of the segments
    float* samples;         // [views][channels][frames]
    unsigned* states;
    int64_t frames;
    float silent;
    int _gap;
};
KERNEL(collect, Collect, a) {
    __shared__ unsigned space[32];
    CollectView view = a.views[blockIdx.x];
    unsigned peak = 0;
    for (int c = 0; c < a.arena.channels; c++) {
        const float* from = a.arena.samples + view.at + c * a.arena.stride;
        float* to = a.samples + (view.place * (int64_t)a.arena.channels + c) * a.frames;
        for (int64_t i = threadIdx.x; i < a.frames; i += blockDim.x) {
            float sample = view.segment < 0 ? 0.0f : from[i];
            peak = max(peak, magnitude(sample));
            to[i] = sample;
        }
    }
    peak = block_max(peak, space);
    if (threadIdx.x > 0) return;
    const unsigned infinite = 0x7F800000u;
    unsigned source = view.segment < 0 ? 0 : a.peaks[view.segment];
    a.states[view.place] = view.segment < 0             ? 4u
                           : source >= infinite         ? 3u
                           : source < magnitude(a.silent) ? 2u
                           : peak >= infinite           ? 1u
                                                        : 0u;
}
