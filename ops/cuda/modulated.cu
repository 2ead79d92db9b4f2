// Effects that an oscillator moves: chorus and phaser (`chorus.rs`, `phaser.rs`).
//
//   chorus  grid (tiles, channels, views), a thread a sample, beside the view: three delayed copies, each a cubic through
//           two samples and two points halfway between samples, of sixteen taps; some 100 loads from the cache a sample
//   phaser  a warp for 32 channels, of any views: a thread a channel, one sample after the other in double precision, as
//           each waits for the one before; tiles of 64 frames in shared memory, so that loads are coalesced
//
// Both read and write a view once, 384 kB for 3 s at 16 kHz.
#include "audio.cuh"

#define VOICES 3
#define HALF_TAPS 8
#define TURN 6.28318530717958647692

struct ChorusView {
    int64_t at;
    int64_t to;
    double phase, step;    // of the oscillator: at the first frame, and from one control to the next
    double centre, depth;  // of the delay, in frames
    float mix;
    int frames;
    int control;           // frames from one value of the oscillator to the next
    int measure;
};
struct Chorus {
    Arena arena;
    const ChorusView* views;
    const Measure* measures;
    float taps[HALF_TAPS];
};

struct Delayed {
    const float* x;
    int frames;
    float scale;
};
DEVICE float whole_at(const Delayed& a, int i) { return i >= 0 && i < a.frames ? a.x[i] * a.scale : 0.0f; }
// The point midway between sample i and the next.
DEVICE float half_at(const Delayed& a, const float* taps, int i) {
    float sum = 0.0f;
    for (int k = 0; k < HALF_TAPS; k++) sum += taps[k] * (whole_at(a, i - k) + whole_at(a, i + 1 + k));
    return sum;
}

// 1 for samples up to 2^20, else a power of two that leaves room for sums.
DEVICE float headroom(unsigned peak) { return __uint_as_float(peak) > 1048576.0f ? 0x1p-108f : 1.0f; }

KERNEL(chorus, Chorus, a) {
    const ChorusView& view = a.views[blockIdx.z];
    int n = (int)thread_index(), channel = blockIdx.y;
    if (n >= view.frames) return;
    float scale = headroom(a.measures[view.measure].peak), wet = 0.0f;
    const float* x = a.arena.samples + view.at + channel * a.arena.stride;
    Delayed line = {x, view.frames, scale / VOICES};
    int block = n / view.control, inside = n % view.control;
    for (int voice = 0; voice < VOICES; voice++) {
        double phase = view.phase + channel * (TURN / 4.0) + voice * TURN / VOICES;
        double now = view.centre + view.depth * sin(phase + view.step * block);
        double next = view.centre + view.depth * sin(phase + view.step * (block + 1));
        double at = 2.0 * (n - now - (next - now) / view.control * inside), whole = floor(at);
        float t = (float)(at - whole);
        int first = (int)whole, i = (first - (first & 1)) / 2;
        float p, q, r, s;
        if (first & 1) {
            p = whole_at(line, i);
            q = half_at(line, a.taps, i);
            r = whole_at(line, i + 1);
            s = half_at(line, a.taps, i + 1);
        } else {
            p = half_at(line, a.taps, i - 1);
            q = whole_at(line, i);
            r = half_at(line, a.taps, i);
            s = whole_at(line, i + 1);
        }
        float c1 = r - p * (1.0f / 3.0f) - q * 0.5f - s * (1.0f / 6.0f);
        float c2 = (p + r) * 0.5f - q;
        float c3 = (s - p) * (1.0f / 6.0f) + (q - r) * 0.5f;
        wet += ((c3 * t + c2) * t + c1) * t + q;
    }
    float dry = x[n] * scale;
    a.arena.samples[view.to + channel * a.arena.stride + n] = bounded((dry + view.mix * (wet - dry)) * (1.0f / scale));
}

#define PHASER_TILE 64

struct PhaserView {
    int64_t at;
    double phase, step;    // of the oscillator
    double cycles, depth;  // the centre, in cycles per frame, and how far it swings, in octaves
    double feedback, mix;
    int frames;
    int control;
};
struct Phaser {
    Arena arena;
    const PhaserView* views;
};

DEVICE double phaser_at(const PhaserView& view, int64_t i) {
    double swing = fmin(fmax(sin(view.phase + view.step * i), -1.0), 1.0);
    double tangent = tan(TURN / 2.0 * fmin(view.cycles * exp2(view.depth * swing), 0.49));
    return (tangent - 1.0) / (tangent + 1.0);
}

KERNEL(phaser, Phaser, a) {
    __shared__ float tile[32][PHASER_TILE + 1];
    int rows = a.arena.views * a.arena.channels, first = blockIdx.x * 32, row = first + threadIdx.x;
    bool mine = row < rows;
    PhaserView view = a.views[mine ? row / a.arena.channels : 0];
    int longest = 0;
    for (int r = first; r < min(first + 32, rows); r++) longest = max(longest, a.views[r / a.arena.channels].frames);
    double s[6] = {0, 0, 0, 0, 0, 0}, last = 0.0, c = phaser_at(view, 0), slope = 0.0, next = 0.0;
    for (int from = 0; from < longest; from += PHASER_TILE) {
        __syncthreads();
        for (int r = 0; r < 32 && first + r < rows; r++) {
            const PhaserView& other = a.views[(first + r) / a.arena.channels];
            const float* x = a.arena.samples + other.at + (first + r) % a.arena.channels * a.arena.stride;
            for (int i = threadIdx.x; i < PHASER_TILE && from + i < other.frames; i += 32) tile[r][i] = x[from + i];
        }
        __syncthreads();
        int count = mine ? min(PHASER_TILE, view.frames - from) : 0;
        for (int i = 0; i < count; i++) {
            if ((from + i) % view.control == 0) {
                if (from + i > 0) c = next;
                next = phaser_at(view, (from + i) / view.control + 1);
                slope = (next - c) / view.control;
            }
            // Six all-passes of first order, one after the other.
            double x = tile[threadIdx.x][i], y = x + view.feedback * last;
            for (int k = 0; k < 6; k++) {
                double out = c * y + s[k];
                s[k] = y - c * out;
                y = out;
            }
            last = y;
            c += slope;
            tile[threadIdx.x][i] = bounded((1.0 - view.mix) * x + view.mix * last);
        }
        __syncthreads();
        for (int r = 0; r < 32 && first + r < rows; r++) {
            const PhaserView& other = a.views[(first + r) / a.arena.channels];
            float* x = a.arena.samples + other.at + (first + r) % a.arena.channels * a.arena.stride;
            for (int i = threadIdx.x; i < PHASER_TILE && from + i < other.frames; i += 32) x[from + i] = tile[r][i];
        }
    }
}
