// Echoes of echoes, each duller than the last (`delay.rs`): the wet side, beside the view.
//
// One block a channel of a view. Chunks no longer than the delay depend on what is done already alone: each is a
// low-pass of one pole over the line, four samples a thread and a scan over the block. Sounds and echoes are read and
// written once, the delayed ones a second time from the cache: 384 kB for 3 s at 16 kHz.
#include "audio.cuh"

struct DelayView {
    int64_t at;
    int64_t to;
    double pole;
    double feedback;
    int frames;
    int time;
    int measure;
    int _gap;
};
struct Delay {
    Arena arena;
    const DelayView* views;
    const Measure* measures;
};

KERNEL(delay, Delay, a) {
    __shared__ double ends[32];
    __shared__ double last;
    const DelayView view = a.views[blockIdx.x];
    const float* x = a.arena.samples + view.at + blockIdx.y * a.arena.stride;
    float* echoes = a.arena.samples + view.to + blockIdx.y * a.arena.stride;
    float unit = unit_of(a.measures[view.measure].peak);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    double pole = view.pole, gain = 1.0 - pole, four = pole * pole * pole * pole, whole = four;
    for (int k = 0; k < 5; k++) whole *= whole;
    int chunk = min(view.time, (int)(4 * blockDim.x));
    for (int i = threadIdx.x; i < min(view.time, view.frames); i += blockDim.x) echoes[i] = 0.0f;
    if (threadIdx.x == 0) last = 0.0;
    __syncthreads();
    for (int from = view.time; from < view.frames; from += chunk) {
        int count = min(chunk, view.frames - from), first = 4 * threadIdx.x;
        double out[4], state = 0.0;
        for (int i = 0; i < 4; i++) {
            int n = from + first + i - view.time;
            double line = first + i < count ? (double)x[n] * unit + view.feedback * echoes[n] : 0.0;
            out[i] = state = gain * line + pole * state;
        }
        // Where this thread ends when its warp begins at rest.
        state = lanes_from_rest<32>(state, four, lane);
        if (lane == 31) ends[warp] = state;
        __syncthreads();
        double start = last;
        for (int w = 0; w < warp; w++) start = whole * start + ends[w];
        double carried = lanes_from<32>(start, state, four, lane);
        __syncthreads();
        double decay = pole;
        for (int i = 0; i < 4; i++) {
            double y = out[i] + decay * carried;
            decay *= pole;
            if (first + i < count) echoes[from + first + i] = (float)y;
            if (first + i == count - 1) last = y;
        }
        __syncthreads();
    }
}
