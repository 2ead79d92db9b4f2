// Coloured noise: a spectrum from the counter stream of a view, one inverse transform of the whole length, its level.
//
//   noise_levels    a thread for each of some 250 knots of a view's power law
//   noise_spectrum  grid (blocks of the stream, channels, views), a thread a block of Philox: writes two bins, 16 bytes
//   noise_mix       one block a view: noise twice, view once read and written
//
// Noise of 3 s at 16 kHz: 192 kB of spectrum and as many of samples are written and read, 1.2 MB with the transform.
#include "audio.cuh"

struct NoiseView {
    uint64_t key;
    int64_t at;
    double exponent;
    double gain;     // of the noise over the music, by level
    int measure;     // the number of its measure
    int frames;
};
struct Noise {
    Arena arena;
    const NoiseView* views;
    const Measure* measures;
    const int2* blocks;   // per block of the stream: its first bin, and the knot before it, twice, plus 1 for two bins
    const int* knots;     // bins at which the power law is worked out
    float* levels;        // [views][knots]
    float2* spectra;      // [views * channels][bins]
    const float* samples; // [views * channels][length]
    double flat;          // the bin below which the density is flat
    int block_count;
    int knot_count;
    int bins;
    int length;
};

KERNEL(noise_levels, Noise, a) {
    int64_t i = thread_index();
    if (i >= (int64_t)a.arena.views * a.knot_count) return;
    double bin = fmax((double)a.knots[i % a.knot_count], a.flat);
    a.levels[i] = (float)pow(bin, -a.views[i / a.knot_count].exponent / 2.0);
}

KERNEL(noise_spectrum, Noise, a) {
    int k = (int)thread_index();
    if (k >= a.block_count) return;
    int channel = blockIdx.y, view = blockIdx.z;
    uint4 words = key_block(a.views[view].key, (uint64_t)channel * a.block_count + k);
    int2 block = a.blocks[k];
    int first = block.x, knot = block.y / 2, count = 1 + block.y % 2;
    const float* levels = a.levels + (int64_t)view * a.knot_count;
    int from = a.knots[knot], to = a.knots[knot + 1];
    float slope = (levels[knot + 1] - levels[knot]) / (float)(to - from);
    float2* spectrum = a.spectra + ((int64_t)view * a.arena.channels + channel) * a.bins;
    for (int i = 0; i < count; i++) {
        int bin = first + i;
        float scale = levels[knot] + slope * (float)(bin - from);
        float re = triangular(word_of(words, 2 * i)) * scale, im = triangular(word_of(words, 2 * i + 1)) * scale;
        // A real signal has real ends; the mean of the noise is zero.
        if (bin == 0) re = im = 0.0f;
        if (bin == a.bins - 1) im = 0.0f;
        spectrum[bin] = make_float2(re, im);
    }
}

KERNEL(noise_mix, Noise, a) {
    __shared__ double sums[32];
    NoiseView view = a.views[blockIdx.x];
    double music = a.measures[view.measure].energy;
    if (!(music > 0.0)) return;
    double level = sqrt(music / ((double)view.frames * a.arena.channels)) * view.gain;
    for (int c = 0; c < a.arena.channels; c++) {
        const float* noise = a.samples + ((int64_t)blockIdx.x * a.arena.channels + c) * a.length;
        double energy = 0.0;
        for (int i = threadIdx.x; i < view.frames; i += blockDim.x) energy += (double)noise[i] * (double)noise[i];
        double power = block_sum(energy, sums) / view.frames;
        if (!(power > 0.0)) continue;
        double scale = level / sqrt(power);
        float* samples = a.arena.samples + view.at + c * a.arena.stride;
        for (int i = threadIdx.x; i < view.frames; i += blockDim.x)
            samples[i] = bounded((double)samples[i] + (double)noise[i] * scale);
    }
}
