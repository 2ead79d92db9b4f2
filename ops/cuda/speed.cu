// Tape speed: a windowed sinc whose pass band ends at the lower of both Nyquist frequencies (`speed.rs`).
//
//   speed_rows  one block a view, a thread a row of taps: 257 rows of 32 taps and more
//   speed       grid (tiles, views, channels), a thread a sample: reads its taps' samples from the cache
//
// A view of 3 s at 16 kHz is read and written once, 400 kB, and 33 kB of rows are read as often as the cache lets go of them.
#include "audio.cuh"

struct SpeedView {
    int64_t at;
    int64_t to;
    int64_t rows;  // its rows of taps among those of all
    double speed;
    double cutoff;
    int frames_in, frames_out;
    int taps;
    int measure;
};
struct Speed {
    Arena arena;
    const SpeedView* views;
    const Measure* measures;
    const double* window;  // from its middle to its end
    float* rows;
    double loud;           // beyond this, products might overflow
    int phases;
    int entries;           // of the window
};

#define PI 3.14159265358979323846

KERNEL(speed_rows, Speed, a) {
    const SpeedView& view = a.views[blockIdx.x];
    double half = view.taps / 2.0, cutoff = view.cutoff;
    for (int phase = threadIdx.x; phase <= a.phases; phase += blockDim.x) {
        float* row = a.rows + view.rows + (int64_t)phase * view.taps;
        double first = 1.0 - half - (double)phase / a.phases, sum = 0.0;
        for (int j = 0; j < view.taps; j++) {
            double x = first + j;
            double sinc = fabs(x) < 1e-9 ? cutoff : sinpi(cutoff * x) / (PI * x);
            double place = fmin(fabs(x) / half, 1.0) * a.entries;
            int whole = (int)place;
            double here = a.window[whole], next = a.window[min(whole + 1, a.entries)];
            double value = sinc * (here + (place - whole) * (next - here));
            // At full band a whole position is the sample itself.
            float tap = cutoff == 1.0 && x == rint(x) && x != 0.0 ? 0.0f : (float)value;
            row[j] = tap;
            sum += tap;
        }
        float gain = (float)(1.0 / sum);
        for (int j = 0; j < view.taps; j++) row[j] *= gain;
    }
}

KERNEL(speed, Speed, a) {
    const SpeedView& view = a.views[blockIdx.y];
    int n = (int)thread_index();
    if (n >= view.frames_out) return;
    const float* x = a.arena.samples + view.at + blockIdx.z * a.arena.stride;
    float scale = (double)__uint_as_float(a.measures[view.measure].peak) > a.loud ? 5.421010862427522e-20f : 1.0f;
    double start = (view.frames_in - view.frames_out * view.speed) / 2.0;
    double position = __dadd_rn(start, __dmul_rn((double)n, view.speed)), whole = floor(position);
    double phase = (position - whole) * a.phases;
    int row = min((int)phase, a.phases - 1);
    float blend = (float)(phase - row), sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    int first = (int)whole + 1 - view.taps / 2;
    const float* p = a.rows + view.rows + (int64_t)row * view.taps;
    const float* q = p + view.taps;
    for (int j = 0; j < view.taps; j += 8)
        for (int k = 0; k < 8; k++) {
            int at = first + j + k;
            float sample = at >= 0 && at < view.frames_in ? x[at] * scale : 0.0f;
            sums[k] += sample * (p[j + k] + blend * (q[j + k] - p[j + k]));
        }
    float sum = 0.0f;
    for (int k = 0; k < 8; k++) sum += sums[k];
    a.arena.samples[view.to + blockIdx.z * a.arena.stride + n] = bounded(sum / scale);
}
