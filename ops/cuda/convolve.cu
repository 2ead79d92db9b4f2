// Convolution of views with responses, by one transform of the whole: sounds, responses, products, and back.
//
//   convolve_pack    grid (tiles, channels, 2 x views): sounds at unit scale, then responses, zeros behind them
//                    -> forward -> convolve_multiply, grid (tiles, rows) -> inverse
//   convolve_unpack  grid (tiles, channels, views): from the response's time zero on
//
// A transform is a power of two, so that few are planned: 65536 for 3 s at 16 kHz and up to a second of response. Then 2 MB
// a view move four times.
#include "audio.cuh"

struct ConvolveView {
    int64_t at;
    int64_t to;
    int64_t response;  // among the tables
    int64_t stride;    // between its channels
    int frames;
    int taps;
    int lead;          // the tap that is time zero
    int measure;
};
struct Convolve {
    Arena arena;
    const ConvolveView* views;
    const Measure* measures;
    const float* responses;
    float* rows;       // [2][views * channels][length]
    float2* spectra;   // [2][views * channels][length / 2 + 1]
    int64_t length;
    int64_t count;     // views * channels
};

KERNEL(convolve_pack, Convolve, a) {
    int number = blockIdx.z % a.arena.views, of_response = blockIdx.z / a.arena.views, c = blockIdx.y;
    const ConvolveView& view = a.views[number];
    int64_t i = thread_index();
    if (i >= a.length) return;
    float value = 0.0f;
    if (of_response) {
        if (i < view.taps) value = a.responses[view.response + c * view.stride + i];
    } else if (i < view.frames) {
        value = a.arena.samples[view.at + c * a.arena.stride + i] * unit_of(a.measures[view.measure].peak);
    }
    a.rows[(of_response * a.count + (int64_t)number * a.arena.channels + c) * a.length + i] = value;
}

KERNEL(convolve_multiply, Convolve, a) {
    int64_t bins = a.length / 2 + 1, i = thread_index(), at = blockIdx.y * bins + i;
    if (i >= bins) return;
    float2 x = a.spectra[at], h = a.spectra[a.count * bins + at];
    a.spectra[at] = make_float2(x.x * h.x - x.y * h.y, x.x * h.y + x.y * h.x);
}

KERNEL(convolve_unpack, Convolve, a) {
    const ConvolveView& view = a.views[blockIdx.z];
    int64_t i = thread_index(), row = (int64_t)blockIdx.z * a.arena.channels + blockIdx.y;
    if (i >= view.frames) return;
    float scale = 1.0f / (float)a.length;
    a.arena.samples[view.to + blockIdx.y * a.arena.stride + i] = a.rows[row * a.length + view.lead + i] * scale;
}
