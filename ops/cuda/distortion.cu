// The wet side of the distortion: a saturating curve with little aliasing (`distortion.rs`).
//
// Grid (tiles of 512 outputs, views, channels). A block holds its part of the driven signal, of the points halfway
// between its samples and of the means in shared memory. A view is read and its wet side written once: 384 kB for 3 s at
// 16 kHz; a mean takes some 20 operations in double precision.
#include "audio.cuh"

#define OUTS 512
#define UP 8
#define DOWN 12
// Means on either side of a tile.
#define SIDE (DOWN / 2)

struct DistortionView {
    int64_t at;
    int64_t to;
    double drive;
    int frames;
    int shape;
    int measure;
    int _gap;
};
struct Distortion {
    Arena arena;
    const DistortionView* views;
    const Measure* measures;
};

DEVICE double curve(int shape, double x) {
    if (shape == 0) return tanh(x);
    if (shape == 1) return x / sqrt(1.0 + x * x);
    if (shape == 2) {
        x = fmin(fmax(x, -1.5), 1.5);
        return x - x * x * x * (4.0 / 27.0);
    }
    return fmin(fmax(x, -1.0), 1.0);
}
// The antiderivative.
DEVICE double integral(int shape, double x) {
    x = fabs(x);
    if (shape == 0) return x + log1p(exp(-2.0 * x)) - 0.693147180559945309417;
    if (shape == 1) return sqrt(1.0 + x * x);
    if (shape == 2) {
        double inside = fmin(x, 1.5), square = inside * inside;
        return square / 2.0 - square * square / 27.0 + (x - inside);
    }
    double inside = fmin(x, 1.0);
    return inside * inside / 2.0 + (x - inside);
}
DEVICE float mean_along(int shape, float a, float b) {
    double from = a, to = b;
    if (fabs(from - to) > 1e-5) return (float)((integral(shape, from) - integral(shape, to)) / (from - to));
    return (float)curve(shape, (from + to) / 2.0);
}

// sinc(t) under a raised cosine of half width `reach`.
DEVICE double sinc(double t) { return sinpi(t) / (3.14159265358979323846 * t); }
DEVICE double raised(double t, double reach) {
    double c = cospi(t / reach / 2.0);
    return c * c;
}

KERNEL(distortion, Distortion, a) {
    __shared__ float taps_up[UP], taps_down[DOWN];
    __shared__ float driven[OUTS + 2 * (SIDE + UP)], halfway[OUTS + 2 * SIDE + 1];
    __shared__ float before[OUTS + 2 * SIDE], after[OUTS + 2 * SIDE];
    const DistortionView& view = a.views[blockIdx.y];
    int first = blockIdx.x * OUTS, frames = view.frames;
    if (first >= frames) return;
    double peak = __uint_as_float(a.measures[view.measure].peak);
    double drive = peak > 0.0 ? view.drive / peak : 0.0;
    const float* x = a.arena.samples + view.at + blockIdx.z * a.arena.stride;
    if (threadIdx.x < UP) {
        double t = threadIdx.x + 0.5;
        taps_up[threadIdx.x] = (float)(sinc(t) * raised(t, UP));
    }
    if (threadIdx.x < DOWN) {
        // A mean over half a step droops as cos(w / 4): sharpened by a share of the second difference.
        double t = (threadIdx.x + 0.5) / 2.0, share = 1.0 / 32.0;
        double sharp = (1.0 + 2.0 * share) * sinc(t) - share * (sinc(t - 1.0) + sinc(t + 1.0));
        taps_down[threadIdx.x] = (float)(sharp * raised(t, DOWN / 2.0));
    }
    // Silence on either side. driven[i] is the sample first - SIDE - UP + i.
    for (int i = threadIdx.x; i < OUTS + 2 * (SIDE + UP); i += blockDim.x) {
        int n = first - SIDE - UP + i;
        driven[i] = n >= 0 && n < frames ? (float)((double)x[n] * drive) : 0.0f;
    }
    __syncthreads();
    float up = 0.0f, down = 0.0f;
    for (int j = 0; j < UP; j++) up += taps_up[j];
    for (int j = 0; j < DOWN; j++) down += taps_down[j];
    up = 0.5f / up;
    down = 0.5f / down;
    // halfway[i] lies half a sample before the sample first - SIDE + i.
    for (int i = threadIdx.x; i < OUTS + 2 * SIDE + 1; i += blockDim.x) {
        float sum = 0.0f;
        for (int j = 0; j < UP; j++) sum += taps_up[j] * up * (driven[UP - 1 - j + i] + driven[UP + j + i]);
        halfway[i] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < OUTS + 2 * SIDE; i += blockDim.x) {
        int n = first - SIDE + i;
        bool inside = n >= 0 && n < frames;
        float middle = driven[UP + i];
        before[i] = inside ? mean_along(view.shape, halfway[i], middle) : 0.0f;
        after[i] = inside ? mean_along(view.shape, middle, halfway[i + 1]) : 0.0f;
    }
    __syncthreads();
    float* out = a.arena.samples + view.to + blockIdx.z * a.arena.stride;
    for (int i = threadIdx.x; i < OUTS && first + i < frames; i += blockDim.x) {
        float sum = 0.0f;
        int at = i + SIDE;
        for (int j = 0; j < DOWN / 2; j++) {
            sum += taps_down[2 * j] * down * (after[at + j] + before[at - j]);
            sum += taps_down[2 * j + 1] * down * (before[at + j + 1] + after[at - j - 1]);
        }
        out[first + i] = sum;
    }
}
