// One sample to one sample: gains, edges, quantisation, and what the two channels of a frame do to each other.
//
// Grid (tiles, views), a thread a frame of all channels; what is done is the same for a whole block. A view is read and
// written once, 384 kB for 3 s at 16 kHz, coalesced.
#include "audio.cuh"

enum Point { GAIN, OFFSET, CLIP, FADE, MASK, REVERSE, PAN, WIDTH, CRUSH };

struct PointView {
    int64_t at;
    uint64_t key;
    double x, y;
    int frames;
    int what;
    int i, j, k;
    int measure;
};
struct Points {
    Arena arena;
    const PointView* views;
    const Measure* measures;
};

// The gain of a fade of `count` samples at its sample `i`: a line, an exponential from -60 dB, a raised cosine.
DEVICE float fade_gain(int i, int count, int curve) {
    double t = (i + 0.5) / count;
    if (curve == 0) return (float)t;
    if (curve == 1) return (float)exp10(3.0 * (t - 1.0));
    return (float)(0.5 - 0.5 * cospi(t));
}

KERNEL(point, Points, a) {
    PointView view = a.views[blockIdx.y];
    int n = (int)thread_index(), frames = view.frames;
    if (n >= frames) return;
    float* first = a.arena.samples + view.at;
    if (view.what == PAN || view.what == WIDTH) {
        double left = first[n], right = first[a.arena.stride + n];
        if (view.what == PAN) {
            left *= view.x;
            right *= view.y;
        } else {
            double middle = 0.5 * (left + right), side = 0.5 * view.x * (left - right);
            left = middle + side;
            right = middle - side;
        }
        first[n] = bounded(left);
        first[a.arena.stride + n] = bounded(right);
        return;
    }
    float gain = (float)view.x;
    if (view.what == CLIP)
        gain = (float)((double)__uint_as_float(a.measures[view.measure].peak) * view.x);
    if (view.what == FADE) {
        gain = 1.0f;
        if (n < view.i) gain = fade_gain(n, view.i, view.k);
        if (frames - 1 - n < view.j) gain *= fade_gain(frames - 1 - n, view.j, view.k);
    }
    if (view.what == MASK) {
        int from_start = n - view.i, from_end = view.i + view.j - 1 - n, inside = min(from_start, from_end);
        gain = inside < 0 ? 1.0f : inside < view.k ? (float)(0.5 + 0.5 * cospi((inside + 0.5) / view.k)) : 0.0f;
    }
    for (int c = 0; c < a.arena.channels; c++) {
        float* x = first + c * a.arena.stride;
        switch (view.what) {
            case GAIN: x[n] = bounded(x[n] * gain); break;
            case OFFSET: x[n] = bounded(x[n] + gain); break;
            case CLIP: x[n] = fmaxf(fminf(x[n], gain), -gain); break;
            case FADE:
            case MASK:
                if (gain != 1.0f) x[n] *= gain;
                break;
            case REVERSE:
                if (n < frames / 2) {
                    float other = x[frames - 1 - n];
                    x[frames - 1 - n] = x[n];
                    x[n] = other;
                }
                break;
            case CRUSH: {
                double noise = 0.0;
                if (view.i) {
                    uint4 words = key_block(view.key, (uint64_t)c * ((frames + 3) / 4) + n / 4);
                    noise = triangular(word_of(words, n % 4));
                }
                x[n] = bounded(rint((double)x[n] * view.x + noise) * view.y);
                break;
            }
        }
    }
}
