// The phase-locked vocoder of `vocoder.rs`, a group of views at a time.
//
//   vocoder_map      one block a view: peak, attacks, and where each of its frames begins in the source
//   vocoder_frames   grid (frames, views, channels): the windowed frame, and the one a hop earlier
//                    -> one forward transform of all
//   vocoder_regions  a warp a frame: power, peaks, and the lowest bin between any two of them
//   vocoder_lock     one block a view, one frame after the other: four lanes sum up a region and turn it
//                    -> one inverse transform
//   vocoder_resample grid (tiles, views, channels): overlap-add, gathered, then the windowed sinc
//
// A frame of 1536 samples is 6 kB, a view of 3 s at 16 kHz has some 130. Per frame are written and read 12 kB of frames,
// 12 kB of spectra, 6 kB of turned spectra and 6 kB of synthesised frames: 10 MB a view in all, and 48 MFLOP.
#include "audio.cuh"

struct WarpView {
    double start;  // the moment of the source in the middle of the first frame
    double end;    // and after the last
    double pace;   // samples of source for one of the stretched signal
    double ratio;  // samples of the stretched signal for one of output
    double from;   // where the output begins in the stretched signal
    int64_t at;    // the source in the arena
    int64_t to;    // the output there
    int64_t row;   // its first frame among those of all views
    int frames_in, frames_out;
    int steps;     // frames of the vocoder
    int bins;      // of which so many are kept
};
struct Warp {
    Arena arena;
    const WarpView* views;
    const float* window;
    const float* synthesis;  // the window again, over the sum of all that overlap
    const float* taps;       // [phases + 1][TAPS]
    float* scales;           // per view
    int* begins;             // per frame: its first sample
    float* leaps;            // and the growth of power that counts as an attack
    float* energies;         // [views][blocks], and so are the next two
    float* rises;
    int* attacks;
    float* frames;           // [2][rows][channels][size]: frames now, and a hop earlier
    float2* spectra;         // [2][rows][channels][size / 2 + 1]
    unsigned short* ends;    // [rows][limit]: where regions end
    int* regions;            // [rows]
    int64_t rows;
    double past, ahead;      // an attack so near counts
    double own_pace, least_pace;
    float silence, rise;
    float leap, leap_at_attack;
    int size, hop;
    int block, blocks;       // samples of a block of energy; room for so many
    int before, after, apart;
    int phases;
    int limit;
    int tile;                // outputs of a block
};

#define TAPS 32

// The sum of `count` values one after the other, over `count`.
DEVICE float mean_of(const float* x, int count) {
    float sum = 0.0f;
    for (int i = 0; i < count; i++) sum = __fadd_rn(sum, x[i]);
    return sum / (float)max(count, 1);
}

// The energy of the differences of neighbours, in the order of the CPU: attacks are found by comparing, so that the last
// bit may matter.
DEVICE float difference_energy(const float* x, int count, float scale) {
    float lanes[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    int whole = count / 8 * 8;
    for (int i = 0; i < whole; i += 8)
        for (int k = 0; k < 8; k++) {
            float d = x[i + k + 1] * scale - x[i + k] * scale;
            lanes[k] = __fadd_rn(lanes[k], __fmul_rn(d, d));
        }
    float rest = 0.0f, sum = 0.0f;
    for (int i = whole; i < count; i++) {
        float d = x[i + 1] * scale - x[i] * scale;
        rest = __fadd_rn(rest, __fmul_rn(d, d));
    }
    for (int k = 0; k < 8; k++) sum = __fadd_rn(sum, lanes[k]);
    return __fadd_rn(rest, sum);
}

struct Place { double out, source; };
DEVICE Place attack_at(const Warp& a, const WarpView& view, int attack) {
    double source = (double)(attack * (int64_t)a.block);
    return {a.size / 2 + (source - view.start) / view.pace, source};
}

// The moment of the source at `out`: near attacks at its own pace.
DEVICE double source_at(const Warp& a, const WarpView& view, const int* attacks, int count, double out) {
    int low = 0, high = count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (attack_at(a, view, attacks[middle]).out < out) low = middle + 1;
        else high = middle;
    }
    Place from = {(double)(a.size / 2), view.start};
    Place to = {from.out + (double)view.steps * a.hop, view.end};
    double kept = 0.0, keep = 0.0;
    if (low > 0) from = attack_at(a, view, attacks[low - 1]), kept = a.own_pace;
    if (low < count) to = attack_at(a, view, attacks[low]), keep = a.own_pace;
    if (out > to.out) return to.source;
    double room = (to.source - from.source) * (1.0 - a.least_pace) / 2.0;
    double most = view.pace < 1.0 ? room / (1.0 - a.least_pace * view.pace) : room / (view.pace - a.least_pace);
    double after = fmin(kept, most), before = fmin(keep, most);
    Place left = {from.out + after, from.source + after}, right = {to.out - before, to.source - before};
    Place p = right, q = to;
    if (out <= left.out) p = from, q = left;
    else if (out <= right.out) p = left, q = right;
    if (!(q.out > p.out)) return p.source;
    return __dadd_rn(p.source, __dmul_rn(out - p.out, (q.source - p.source) / (q.out - p.out)));
}

KERNEL(vocoder_map, Warp, a) {
    __shared__ unsigned space[32];
    __shared__ float silence;
    __shared__ int found;
    WarpView view = a.views[blockIdx.x];
    unsigned peak = 0;
    for (int c = 0; c < a.arena.channels; c++)
        for (int i = threadIdx.x; i < view.frames_in; i += blockDim.x)
            peak = max(peak, magnitude(a.arena.samples[view.at + c * a.arena.stride + i]));
    peak = block_max(peak, space);
    int exponent = (int)(max(peak, 0x00800000u) >> 23) - 127;
    exponent = exponent < -100 ? -100 : exponent > 100 ? 100 : exponent;
    float scale = __uint_as_float((unsigned)(127 - exponent) << 23);
    if (threadIdx.x == 0) {
        a.scales[blockIdx.x] = scale;
        found = 0;
    }
    int* attacks = a.attacks + (int64_t)blockIdx.x * a.blocks;
    // At the source's own pace there is nothing to find.
    if (view.pace != 1.0) {
        float* energies = a.energies + (int64_t)blockIdx.x * a.blocks;
        float* rises = a.rises + (int64_t)blockIdx.x * a.blocks;
        int blocks = view.frames_in > 0 ? (view.frames_in - 1) / a.block : 0;
        for (int i = threadIdx.x; i < blocks; i += blockDim.x) {
            float energy = 0.0f;
            for (int c = 0; c < a.arena.channels; c++) {
                const float* x = a.arena.samples + view.at + c * a.arena.stride + (int64_t)i * a.block;
                energy = __fadd_rn(energy, difference_energy(x, a.block, scale));
            }
            energies[i] = energy;
        }
        __syncthreads();
        if (threadIdx.x == 0) silence = __fadd_rn(__fmul_rn(a.silence, mean_of(energies, blocks)), 1.175494351e-38f);
        __syncthreads();
        for (int i = threadIdx.x; i < blocks; i += blockDim.x) {
            int first = max(i - a.before, 0), last = min(i + a.after, blocks);
            float before = mean_of(energies + first, i - first), after = mean_of(energies + i, last - i);
            rises[i] = i == 0 ? 0.0f : (after + silence) / (before + silence);
        }
        __syncthreads();
        if (threadIdx.x < 32) {
            int count = 0;
            for (int first = 0; first < blocks; first += 32) {
                int i = first + threadIdx.x;
                double source = (double)(i * (int64_t)a.block);
                bool attack = i < blocks && rises[i] >= a.rise && source > view.start && source < view.end;
                for (int k = max(i - a.apart, 0); attack && k < min(i + a.apart + 1, blocks); k++)
                    attack = rises[k] <= rises[i];
                unsigned all = __ballot_sync(0xffffffffu, attack);
                if (attack) attacks[count + __popc(all & ((1u << threadIdx.x) - 1))] = i;
                count += __popc(all);
            }
            if (threadIdx.x == 0) found = count;
        }
    }
    __syncthreads();
    int count = found;
    for (int step = threadIdx.x; step < view.steps; step += blockDim.x) {
        double source = source_at(a, view, attacks, count, (double)(step * (int64_t)a.hop + a.size / 2));
        int low = 0, high = count;
        while (low < high) {
            int middle = (low + high) / 2;
            if ((double)(attacks[middle] * (int64_t)a.block) < source - a.past) low = middle + 1;
            else high = middle;
        }
        bool attack = low < count && (double)(attacks[low] * (int64_t)a.block) < source + a.ahead;
        a.begins[view.row + step] = (int)floor(source + 0.5) - a.size / 2;
        a.leaps[view.row + step] = attack ? a.leap_at_attack : a.leap;
    }
}

KERNEL(vocoder_frames, Warp, a) {
    const WarpView& view = a.views[blockIdx.y];
    int step = blockIdx.x, channel = blockIdx.z;
    if (step >= view.steps) return;
    const float* samples = a.arena.samples + view.at + channel * a.arena.stride;
    int begin = a.begins[view.row + step], frames = view.frames_in;
    float scale = a.scales[blockIdx.y];
    float* now = a.frames + ((view.row + step) * a.arena.channels + channel) * a.size;
    float* back = now + a.rows * a.arena.channels * a.size;
    for (int i = threadIdx.x; i < a.size; i += blockDim.x) {
        float w = a.window[i];
        int at = begin + i, earlier = at - a.hop;
        now[i] = at >= 0 && at < frames ? samples[at] * scale * w : 0.0f;
        back[i] = earlier >= 0 && earlier < frames ? samples[earlier] * scale * w : 0.0f;
    }
}

KERNEL(vocoder_regions, Warp, a) {
    SHARED(float, space);
    const WarpView& view = a.views[blockIdx.y];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    int step = blockIdx.x * warps + warp;
    if (step >= view.steps) return;
    int bins = view.bins, all = a.size / 2 + 1;
    float* power = space + (int64_t)warp * (all + (a.limit + 1) / 2);
    unsigned short* peaks = reinterpret_cast<unsigned short*>(power + all);
    const float2* spectrum = a.spectra + (view.row + step) * a.arena.channels * all;
    for (int b = lane; b < bins; b += 32) {
        float sum = 0.0f;
        for (int c = 0; c < a.arena.channels; c++) {
            float2 x = spectrum[(int64_t)c * all + b];
            sum += x.x * x.x + x.y * x.y;
        }
        power[b] = sum;
    }
    __syncwarp();
    int count = 0;
    for (int first = 2; first < bins - 2; first += 32) {
        int b = first + lane;
        bool peak = false;
        if (b < bins - 2) {
            float x = power[b];
            peak = x > power[b - 1] && x > power[b - 2] && x >= power[b + 1] && x >= power[b + 2];
        }
        unsigned found = __ballot_sync(0xffffffffu, peak);
        if (peak) peaks[count + __popc(found & ((1u << lane) - 1))] = (unsigned short)b;
        count += __popc(found);
    }
    __syncwarp();
    unsigned short* ends = a.ends + (view.row + step) * a.limit;
    for (int r = lane; r + 1 < count; r += 32) {
        int valley = peaks[r] + 1;
        for (int b = valley + 1; b <= peaks[r + 1]; b++)
            if (power[b] < power[valley]) valley = b;
        ends[r] = (unsigned short)valley;
    }
    count = max(count, 1);
    if (lane == 0) {
        ends[count - 1] = (unsigned short)bins;
        a.regions[view.row + step] = count;
    }
}

// The gain that makes good the power lost where neighbouring frames agree only so far.
DEVICE float make_up(float coherence) {
    float c = fminf(fmaxf(coherence, 0.0f), 1.0f);
    return sqrtf(2.25f / (1.0936f + 1.0608f * c + 0.0956f * c * c));
}

DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

KERNEL(vocoder_lock, Warp, a) {
    WarpView view = a.views[blockIdx.x];
    int all = a.size / 2 + 1, channels = a.arena.channels;
    int lane = threadIdx.x % 4, quads = blockDim.x / 4;
    int64_t back_rows = a.rows * channels * all;
    for (int step = 0; step < view.steps; step++) {
        float2* now = a.spectra + (view.row + step) * channels * all;
        const float2* back = now + back_rows;
        const float2* out = now - (int64_t)channels * all;
        int count = step == 0 ? 0 : a.regions[view.row + step];
        const unsigned short* ends = a.ends + (view.row + step) * a.limit;
        float leap = a.leaps[view.row + step];
        // All lanes of a warp go around together: they sum up for one another.
        for (int first = threadIdx.x / 32 * 8; first < count; first += quads) {
            int r = first + threadIdx.x % 32 / 4;
            int from = r < count && r > 0 ? ends[r - 1] : 0, to = r < count ? ends[r] : 0;
            float re = 0.0f, im = 0.0f, before = 0.0f, behind = 0.0f, power = 0.0f;
            for (int c = 0; c < channels; c++)
                for (int b = from + lane; b < to; b += 4) {
                    int64_t i = (int64_t)c * all + b;
                    float2 p = out[i], q = back[i], x = now[i];
                    re += p.x * q.x + p.y * q.y;
                    im += p.y * q.x - p.x * q.y;
                    before += p.x * p.x + p.y * p.y;
                    behind += q.x * q.x + q.y * q.y;
                    power += x.x * x.x + x.y * x.y;
                }
            re = quad_sum(re);
            im = quad_sum(im);
            before = quad_sum(before);
            behind = quad_sum(behind);
            power = quad_sum(power);
            float cross = sqrtf(re * re + im * im), turn_re = 1.0f, turn_im = 0.0f;
            if (cross > 0.0f && power <= leap * behind) {
                float gain = make_up(cross / (sqrtf(before) * sqrtf(behind)));
                turn_re = re / cross * gain;
                turn_im = im / cross * gain;
            }
            for (int c = 0; c < channels; c++)
                for (int b = from + lane; b < to; b += 4) {
                    int64_t i = (int64_t)c * all + b;
                    float2 x = now[i];
                    now[i] = make_float2(x.x * turn_re - x.y * turn_im, x.x * turn_im + x.y * turn_re);
                }
        }
        // What resampling would alias.
        for (int c = 0; c < channels; c++)
            for (int b = view.bins + threadIdx.x; b < all; b += blockDim.x)
                now[(int64_t)c * all + b] = make_float2(0.0f, 0.0f);
        __syncthreads();
    }
}

KERNEL(vocoder_resample, Warp, a) {
    SHARED(float, stretched);
    const WarpView& view = a.views[blockIdx.y];
    int channel = blockIdx.z, first_out = blockIdx.x * a.tile;
    if (first_out >= view.frames_out) return;
    int outs = min(a.tile, view.frames_out - first_out);
    double ratio = view.ratio;
    int begin = (int)__dadd_rn(view.from, __dmul_rn(ratio, (double)first_out)) - (TAPS / 2 - 1);
    int end = (int)__dadd_rn(view.from, __dmul_rn(ratio, (double)(first_out + outs - 1))) + TAPS / 2 + 1;
    int64_t row_length = (int64_t)a.arena.channels * a.size;
    const float* frames = a.frames + (view.row * a.arena.channels + channel) * a.size;
    for (int i = threadIdx.x; i < end - begin; i += blockDim.x) {
        int at = begin + i;
        float sum = 0.0f;
        for (int step = max((at - a.size) / a.hop + 1, 0); step <= at / a.hop && step < view.steps; step++) {
            int inside = at - step * a.hop;
            if (inside < a.size) sum += frames[step * row_length + inside] * a.synthesis[inside];
        }
        stretched[i] = sum;
    }
    __syncthreads();
    // Scales are powers of two.
    float unscale = 1.0f / a.scales[blockIdx.y];
    float* output = a.arena.samples + view.to + channel * a.arena.stride + first_out;
    for (int n = threadIdx.x; n < outs; n += blockDim.x) {
        double position = __dadd_rn(view.from, __dmul_rn(ratio, (double)(first_out + n)));
        int whole = (int)position;
        double phase = (position - whole) * a.phases;
        int row = (int)phase;
        float blend = (float)(phase - row);
        const float* x = stretched + (whole - (TAPS / 2 - 1) - begin);
        const float4* p = reinterpret_cast<const float4*>(a.taps + row * TAPS);
        const float4* q = p + TAPS / 4;
        float sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        for (int k = 0; k < TAPS / 4; k++) {
            float4 u = __ldg(p + k), v = __ldg(q + k);
            int s = k % 2 * 4;
            sums[s] += x[4 * k] * (u.x + blend * (v.x - u.x));
            sums[s + 1] += x[4 * k + 1] * (u.y + blend * (v.y - u.y));
            sums[s + 2] += x[4 * k + 2] * (u.z + blend * (v.z - u.z));
            sums[s + 3] += x[4 * k + 3] * (u.w + blend * (v.w - u.w));
        }
        float sum = 0.0f;
        for (int k = 0; k < 8; k++) sum += sums[k];
        output[n] = bounded(sum * unscale);
    }
}
