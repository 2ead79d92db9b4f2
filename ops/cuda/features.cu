// Log-mel frames of views.
//
//   mel_frames  grid (frames, views): mean of channels, reflected edges, window, zeros up to the transform's size
//               -> one forward transform of all
//   mel_bands   a block for up to four frames: power into shared memory, then a thread a band, and decibels
//
// At 2048 samples and 96 bands a frame is 8 kB of samples, as many of spectrum, each written and read: 10 MB for 3 s at
// 16 kHz with a hop of 160. Bytes of the transform bound it.
#include "audio.cuh"

struct Mel {
    const float* samples;  // [views][channels][length]
    const float* window;
    float* frames;         // [rows][fft]
    const float2* spectra; // [rows][fft / 2 + 1]
    const int* firsts;     // per band, its first bin
    const int* starts;     // per band, where its weights begin; one more at the end
    const float* weights;
    float* out;            // [rows of all][mels]
    int64_t length;
    int64_t first_row;     // of these rows among all
    int64_t rows;
    int channels;
    int per_view;          // frames of a view
    int width;             // of the window
    int hop, fft, mels;
    float floor;
    int together;          // frames of a block of mel_bands, up to ROWS
};

DEVICE float mono(const Mel& a, int64_t view, int64_t at) {
    const float* x = a.samples + view * a.channels * a.length + at;
    if (a.channels == 1) return *x;
    float sum = 0.0f;
    for (int c = 0; c < a.channels; c++) sum += x[c * a.length];
    return sum * (1.0f / (float)a.channels);
}

KERNEL(mel_frames, Mel, a) {
    int64_t row = a.first_row + blockIdx.x, view = row / a.per_view;
    int64_t start = row % a.per_view * a.hop - (a.fft / 2 - (a.fft - a.width) / 2);
    float* frame = a.frames + (int64_t)blockIdx.x * a.fft;
    int64_t last = a.length - 1;
    for (int i = threadIdx.x; i < a.fft; i += blockDim.x) {
        float value = 0.0f;
        if (i < a.width && last >= 0) {
            int64_t at = start + i;
            if (at < 0 || at > last) {
                int64_t period = 2 * last;
                at = period > 0 ? (at % period + period) % period : 0;
                if (at > last) at = period - at;
            }
            value = mono(a, view, at) * a.window[i];
        }
        frame[i] = value;
    }
}

#define ROWS 4

KERNEL(mel_bands, Mel, a) {
    SHARED(float, power);
    int bins = a.fft / 2 + 1;
    int64_t first = (int64_t)blockIdx.x * a.together;
    int rows = (int)min((int64_t)a.together, a.rows - first);
    const float2* spectra = a.spectra + first * bins;
    for (int i = threadIdx.x; i < rows * bins; i += blockDim.x) {
        float2 x = spectra[i];
        power[i] = x.x * x.x + x.y * x.y;
    }
    __syncthreads();
    for (int m = threadIdx.x; m < a.mels; m += blockDim.x) {
        const float* bin = power + a.firsts[m];
        float sums[ROWS] = {0, 0, 0, 0};
        for (int i = a.starts[m]; i < a.starts[m + 1]; i++, bin++) {
            float weight = a.weights[i];
            for (int r = 0; r < ROWS; r++)
                if (r < rows) sums[r] += bin[r * bins] * weight;
        }
        for (int r = 0; r < rows; r++)
            a.out[(a.first_row + first + r) * a.mels + m] = 10.0f * log10f(fmaxf(sums[r], a.floor));
    }
}
