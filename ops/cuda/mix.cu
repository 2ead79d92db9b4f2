// A second sound into a view: another recording, or what an effect made of the view itself.
//
// Grid (tiles, channels, views), a thread a sample; both sounds are read and the view is written, 576 kB for 3 s at
// 16 kHz, coalesced. The levels of both were measured before.
#include "audio.cuh"

enum Level {
    MATCHED,  // at the level of the view; nothing where either is silent
    HELD,     // at the level of the view as far as that is within 20 dB of `nominal`; the sound is at unit scale
    PLAIN     // as it is, at unit scale
};

struct MixView {
    int64_t at;
    int64_t other;   // the second sound in its own memory
    int64_t stride;  // between its channels
    double keep, add, nominal;
    int frames;
    int delay;       // frames after which the second sound begins
    int measure;     // the numbers of their measures
    int other_measure;
    int level;
    int _gap;
};
struct Mix {
    Arena arena;
    const float* others;
    const MixView* views;
    const Measure* measures;
};

KERNEL(mix, Mix, a) {
    const MixView& view = a.views[blockIdx.z];
    int n = (int)thread_index();
    if (n >= view.frames) return;
    Measure own = a.measures[view.measure];
    double unit = unit_of(own.peak), gain = view.add, keep = view.keep;
    if (own.peak == 0) return;
    if (view.level == MATCHED) {
        double other = a.measures[view.other_measure].energy;
        if (!(own.energy > 0.0) || !(other > 0.0)) return;
        gain *= sqrt(own.energy / other);
    } else if (view.level == HELD) {
        double other = a.measures[view.other_measure].energy;
        double measured = other > 0.0 ? sqrt(own.energy * unit * unit / other) : view.nominal;
        gain *= fmin(fmax(measured, 0.1 * view.nominal), 10.0 * view.nominal) / unit;
    } else {
        gain /= unit;
    }
    float* sample = a.arena.samples + view.at + blockIdx.y * a.arena.stride + n;
    double wet = n < view.delay ? 0.0 : (double)a.others[view.other + blockIdx.y * view.stride + n - view.delay];
    *sample = bounded((double)*sample * keep + wet * gain);
}
