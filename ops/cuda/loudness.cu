// A view brought to an integrated loudness (`loudness.rs`): its filtered side, beside it, is weighed and the gain applied.
//
// One block a view: a warp sums up a hop of 100 ms at a time, one thread judges the blocks of four hops, of which there are
// few, and all of them apply the gain. Two reads and a write, 576 kB for 3 s at 16 kHz, after the filter's 384 kB.
#include "audio.cuh"

struct LoudnessView {
    int64_t at;
    int64_t filtered;
    double target;
    int frames;
    int hop;
    int width;  // hops of a block
    int hops;
};
struct Loudness {
    Arena arena;
    const LoudnessView* views;
    const double* weights;  // of the channels
    double* energies;       // [views][room]
    double gate;            // power below which nothing counts
    int64_t room;
};

// The mean power of the blocks above a gate; 0 when there is none.
DEVICE double mean_above(const double* energies, const LoudnessView& view, double gate) {
    double sum = 0.0;
    int count = 0;
    for (int i = 0; i + view.width <= view.hops; i++) {
        double power = 0.0;
        for (int k = 0; k < view.width; k++) power += energies[i + k];
        power /= (double)view.width * view.hop;
        if (power > gate) {
            sum += power;
            count++;
        }
    }
    return count > 0 ? sum / count : 0.0;
}

KERNEL(loudness, Loudness, a) {
    __shared__ double gain;
    LoudnessView view = a.views[blockIdx.x];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    double* energies = a.energies + blockIdx.x * a.room;
    for (int hop = warp; hop < view.hops; hop += warps) {
        double energy = 0.0;
        for (int c = 0; c < a.arena.channels; c++) {
            const float* x = a.arena.samples + view.filtered + c * a.arena.stride + (int64_t)hop * view.hop;
            double own = 0.0;
            for (int i = lane; i < view.hop; i += 32) own += (double)x[i] * (double)x[i];
            energy += a.weights[c] * own;
        }
        energy = warp_sum(energy);
        if (lane == 0) energies[hop] = energy;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double mean = mean_above(energies, view, a.gate);
        if (mean > 0.0) mean = mean_above(energies, view, fmax(a.gate, 0.1 * mean));
        gain = mean > 0.0 ? exp10((view.target - (-0.691 + 10.0 * log10(mean))) / 20.0) : 1.0;
    }
    __syncthreads();
    for (int c = 0; c < a.arena.channels; c++) {
        float* x = a.arena.samples + view.at + c * a.arena.stride;
        for (int i = threadIdx.x; i < view.frames; i += blockDim.x) x[i] = bounded((double)x[i] * gain);
    }
}
