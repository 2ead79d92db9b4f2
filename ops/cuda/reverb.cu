// The network of sixteen delay lines of `reverb.rs`: the wet side, beside the view.
//
// One block of 128 threads a view. The shortest line is longer than a block of frames, so a block depends on what is in
// the lines alone: eight threads a line read it and run its low-pass, each an eighth of the frames and a scan; then a
// thread a frame sums up the outputs, mixes the lines by the Hadamard matrix and writes them. Lines lie in global memory,
// some 30 kB a view at 16 kHz, and stay in the cache.
#include "audio.cuh"

#define LINES 16
#define FRAMES 64

struct ReverbView {
    int64_t at;
    int64_t to;
    int64_t lines;  // its memory among that of all
    int frames;     // after the pre-delay
    int measure;
    int length[LINES];
    float gain[LINES];
    float pole[LINES];
};
struct Reverb {
    Arena arena;
    const ReverbView* views;
    const Measure* measures;
    float* lines;
    int inputs[2];   // bits: lines that even and odd channels enter with a minus
    int outputs[2];  // and with which they are summed up
};

DEVICE float signed_by(int minus, int line, float x) { return minus >> line & 1 ? -x : x; }

DEVICE void hadamard(float& a, float& b, float& c, float& d) {
    float sum = a + b, sum2 = c + d, difference = a - b, difference2 = c - d;
    a = sum + sum2;
    b = difference + difference2;
    c = sum - sum2;
    d = difference - difference2;
}

KERNEL(reverb, Reverb, a) {
    __shared__ float blocks[LINES][FRAMES + 1];
    __shared__ int place[LINES];   // where a line begins
    __shared__ int at[LINES];      // where it is read and written
    const ReverbView& view = a.views[blockIdx.x];
    float unit = unit_of(a.measures[view.measure].peak);
    if (threadIdx.x == 0) {
        int next = 0;
        for (int l = 0; l < LINES; l++) {
            place[l] = next;
            at[l] = 0;
            next += view.length[l];
        }
    }
    float* lines = a.lines + view.lines;
    __syncthreads();
    int all = place[LINES - 1] + view.length[LINES - 1];
    for (int i = threadIdx.x; i < all; i += blockDim.x) lines[i] = 0.0f;
    int n = min(view.length[0], FRAMES);
    // Eight threads a line.
    int line = threadIdx.x / 8, part = threadIdx.x % 8, width = FRAMES / 8;
    float gain = view.gain[line], pole = view.pole[line], last = 0.0f, power = 1.0f;
    for (int i = 0; i < width; i++) power *= pole;
    int channels = a.arena.channels, own = min(channels, 2);
    for (int from = 0; from < view.frames; from += n) {
        int count = min(n, view.frames - from);
        __syncthreads();
        for (int i = threadIdx.x; i < LINES * FRAMES; i += blockDim.x) {
            int l = i / FRAMES, k = i % FRAMES, read = at[l] + k;
            if (read >= view.length[l]) read -= view.length[l];
            if (k < count) blocks[l][k] = lines[place[l] + read];
        }
        __syncthreads();
        float out[FRAMES / 8], state = 0.0f;
        for (int i = 0; i < width; i++) {
            int k = part * width + i;
            out[i] = state = gain * (k < count ? blocks[line][k] : 0.0f) + pole * state;
        }
        state = lanes_from_rest<8>(state, power, part);
        float carried = lanes_from<8>(last, state, power, part);
        float decay = pole, final = 0.0f;
        for (int i = 0; i < width; i++) {
            int k = part * width + i;
            float y = out[i] + decay * carried;
            decay *= pole;
            if (k < count) blocks[line][k] = y;
            if (k == count - 1) final = y;
        }
        // The thread that has the last frame tells the others of its line.
        last = __shfl_sync(0xffffffffu, final, threadIdx.x % 32 / 8 * 8 + (count - 1) / width);
        __syncthreads();
        if ((int)threadIdx.x < count) {
            int k = threadIdx.x;
            float x[LINES];
            for (int l = 0; l < LINES; l++) x[l] = blocks[l][k];
            for (int c = 0; c < channels; c++) {
                float sum = 0.0f;
                for (int l = 0; l < LINES; l += 4)
                    sum += (signed_by(a.outputs[c % own], l, x[l]) + signed_by(a.outputs[c % own], l + 1, x[l + 1])) +
                           (signed_by(a.outputs[c % own], l + 2, x[l + 2]) +
                            signed_by(a.outputs[c % own], l + 3, x[l + 3]));
                a.arena.samples[view.to + c * a.arena.stride + from + k] = sum;
            }
            for (int l = 0; l < 4; l++) hadamard(x[l], x[l + 4], x[l + 8], x[l + 12]);
            for (int l = 0; l < LINES; l += 4) hadamard(x[l], x[l + 1], x[l + 2], x[l + 3]);
            float sides[2] = {0.0f, 0.0f};
            for (int c = 0; c < channels; c++) {
                float dry = a.arena.samples[view.at + c * a.arena.stride + from + k] * unit;
                if (c % 2) sides[1] += dry;
                else sides[0] += dry;
            }
            for (int l = 0; l < LINES; l++) {
                int write = at[l] + k;
                if (write >= view.length[l]) write -= view.length[l];
                lines[place[l] + write] =
                    x[l] + (signed_by(a.inputs[0], l, sides[0]) + signed_by(a.inputs[1], l, sides[1]));
            }
        }
        __syncthreads();
        if (threadIdx.x < LINES) at[threadIdx.x] = (at[threadIdx.x] + count) % view.length[threadIdx.x];
    }
}
