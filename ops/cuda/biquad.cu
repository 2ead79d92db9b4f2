// Filters of second order in double precision, up to four one after the other.
//
// One block a channel of a view. It goes over the channel in tiles of 16 samples a thread, held in shared memory so
// that loads and stores are coalesced. A thread runs its 16 samples from rest; the states in which the threads end are
// carried on by a scan with powers of the filter's own matrix; then each thread runs its samples from the state that
// the one before it ended in. A channel is read and written once: 384 kB for 3 s at 16 kHz.
#include "audio.cuh"

#define RUN 16
// Powers of the matrix: 16 samples times 1, 2, 4, 8, 16 and 32.
#define POWERS 6

struct Section {
    double b[3];
    double a[2];
    double powers[POWERS][4];
};
struct BiquadView {
    int64_t at;
    int64_t to;  // where it goes: the same place, or the view's other one
    int frames;
    int first;  // of its sections
    int count;
    int _gap;
};
struct Biquad {
    Arena arena;
    const BiquadView* views;
    const Section* sections;
};

struct State { double x, y; };
DEVICE State times(const double* m, State s) { return {m[0] * s.x + m[1] * s.y, m[2] * s.x + m[3] * s.y}; }
DEVICE State up(State s, int by) {
    return {__shfl_up_sync(0xffffffffu, s.x, by), __shfl_up_sync(0xffffffffu, s.y, by)};
}

KERNEL(biquad, Biquad, a) {
    // A thread's samples are 17 apart from the next one's, so that the threads of a warp meet different banks.
    SHARED(float, tile);
    __shared__ State ends[32];
    __shared__ State carried[4];
    BiquadView view = a.views[blockIdx.x];
    const float* samples = a.arena.samples + view.at + blockIdx.y * a.arena.stride;
    float* filtered = a.arena.samples + view.to + blockIdx.y * a.arena.stride;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    int length = blockDim.x * RUN;
    float* own = tile + threadIdx.x * (RUN + 1);
    if (threadIdx.x < 4) carried[threadIdx.x] = {0.0, 0.0};
    for (int from = 0; from < view.frames; from += length) {
        int count = min(length, view.frames - from);
        __syncthreads();
        for (int i = threadIdx.x; i < length; i += blockDim.x)
            tile[i / RUN * (RUN + 1) + i % RUN] = i < count ? samples[from + i] : 0.0f;
        __syncthreads();
        for (int s = 0; s < view.count; s++) {
            const Section& section = a.sections[view.first + s];
            double b0 = section.b[0], b1 = section.b[1], b2 = section.b[2], a1 = section.a[0], a2 = section.a[1];
            State state = {0.0, 0.0};
            for (int i = 0; i < RUN; i++) {
                double x = own[i], y = b0 * x + state.x;
                state = {b1 * x - a1 * y + state.y, b2 * x - a2 * y};
            }
            // Where this thread's run ends when its warp begins at rest.
            for (int k = 0; k < 5; k++) {
                State before = times(section.powers[k], up(state, 1 << k));
                if (lane >= 1 << k) state = {state.x + before.x, state.y + before.y};
            }
            if (lane == 31) ends[warp] = state;
            __syncthreads();
            State start = carried[s];
            for (int w = 0; w < warp; w++) {
                State moved = times(section.powers[5], start);
                start = {moved.x + ends[w].x, moved.y + ends[w].y};
            }
            // What enters this warp, moved on to this lane, and what the lanes before it add.
            State add = up(state, 1);
            State moved = start;
            for (int k = 0; k < 5; k++)
                if (lane >> k & 1) moved = times(section.powers[k], moved);
            state = lane == 0 ? start : State{moved.x + add.x, moved.y + add.y};
            for (int i = 0; i < RUN; i++) {
                double x = own[i], y = b0 * x + state.x;
                state = {b1 * x - a1 * y + state.y, b2 * x - a2 * y};
                own[i] = bounded(y);
            }
            __syncthreads();
            if ((int)threadIdx.x == 32 * warps - 1) carried[s] = state;
        }
        __syncthreads();
        for (int i = threadIdx.x; i < count; i += blockDim.x)
            filtered[from + i] = tile[i / RUN * (RUN + 1) + i % RUN];
    }
}
