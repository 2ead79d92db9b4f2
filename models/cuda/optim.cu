// The step of the optimiser: the norm of all gradients, and AdamW with clipping and the running mean of weights.
//
// Parameters are cut into pieces of 4096 values, one block of 256 threads each; consecutive threads take consecutive
// values, 16 each. Of a weight, `gradient_squares` reads 4 bytes, and `adamw` reads 16 and writes 12, with an average 24
// and 20. `gradient_norm` is one block that reads 8 bytes of a piece. The factor of clipping stays on the device.
#include "kernel.cuh"

namespace optim {

constexpr int PIECE = 4096;

// A parameter: where it is, its moments, its average (or none), and what it is kept within.
struct Slot {
    float* weights;
    float* mean;
    float* square;
    double* average;
    int64_t length;
    float low, high;
};

// What a parameter gets in a step. One without a gradient stays as it is.
struct Turn {
    const float* gradient;
    float keep, rate;
};

struct Piece {
    int slot, number;
};

// squares[piece] = the sum of the squares of a piece's gradients.
struct Squares {
    const Slot* slots;
    const Turn* turns;
    const Piece* pieces;
    double* squares;
};
KERNEL(gradient_squares, Squares, a) {
    __shared__ double space[32];
    const Piece piece = a.pieces[blockIdx.x];
    const float* gradient = a.turns[piece.slot].gradient;
    const int64_t from = (int64_t)piece.number * PIECE, to = min(from + PIECE, a.slots[piece.slot].length);
    double sum = 0.0;
    if (gradient) {
#pragma unroll 4
        for (int64_t i = from + threadIdx.x; i < to; i += blockDim.x) {
            double x = gradient[i];
            sum += x * x;
        }
    }
    sum = block_sum(sum, space);
    if (threadIdx.x == 0) a.squares[blockIdx.x] = sum;
}

// norm[0] = `share` times the norm of all gradients; norm[1] = what gradients are multiplied by, NaN where the norm is not
// finite; norm[2 + slot] = the sum of squares of a parameter. The pieces of a slot are first[slot]..first[slot + 1].
struct Norm {
    const double* squares;
    const int* first;
    double* norm;
    double limit, share;
    int slots;
    int _gap;
};
KERNEL(gradient_norm, Norm, a) {
    __shared__ double space[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    double all = 0.0;
    for (int slot = warp; slot < a.slots; slot += warps) {
        double own = 0.0;
        for (int i = a.first[slot] + lane; i < a.first[slot + 1]; i += 32) own += a.squares[i];
        own = warp_sum(own);
        if (lane == 0) {
            a.norm[2 + slot] = own;
            all += own;
        }
    }
    all = block_sum(all, space);
    if (threadIdx.x == 0) {
        double norm = sqrt(all) * a.share;
        double nothing = norm - norm;
        a.norm[0] = norm;
        a.norm[1] = nothing == 0.0 ? (norm > a.limit ? a.limit / norm : 1.0) * a.share : nothing;
    }
}

// One step of AdamW. Where the norm is not finite, nothing moves.
struct AdamW {
    const Slot* slots;
    const Turn* turns;
    const Piece* pieces;
    const double* norm;
    double drift;
    float mean_keep, mean_take, square_keep, square_take;
    float root, eps;
};
KERNEL(adamw, AdamW, a) {
    const Piece piece = a.pieces[blockIdx.x];
    const Slot slot = a.slots[piece.slot];
    const Turn turn = a.turns[piece.slot];
    const int64_t from = (int64_t)piece.number * PIECE, to = min(from + PIECE, slot.length);
    const double factor = a.norm[1];
    if (factor != factor) return;
    const float clip = (float)factor;
    float* __restrict__ weights = slot.weights;
    double* __restrict__ average = slot.average;
    if (turn.gradient) {
        const float* __restrict__ gradient = turn.gradient;
        float* __restrict__ means = slot.mean;
        float* __restrict__ squares = slot.square;
#pragma unroll 4
        for (int64_t i = from + threadIdx.x; i < to; i += blockDim.x) {
            float g = gradient[i] * clip;
            float mean = means[i] * a.mean_keep + g * a.mean_take;
            float square = squares[i] * a.square_keep + g * g * a.square_take;
            means[i] = mean;
            squares[i] = square;
            float w = weights[i] * turn.keep - mean * turn.rate / (sqrtf(square) * a.root + a.eps);
            weights[i] = w < slot.low ? slot.low : w > slot.high ? slot.high : w;
        }
    }
    // A thread reads back what it wrote itself.
    if (average) {
#pragma unroll 4
        for (int64_t i = from + threadIdx.x; i < to; i += blockDim.x) {
            double mean = average[i];
            average[i] = mean + ((double)weights[i] - mean) * a.drift;
        }
    }
}

// temperatures[head] = e^-x of the one value x of each tensor.
struct Temperatures {
    const float* const* log_scales;
    double* temperatures;
    int heads;
    int _gap;
};
KERNEL(temperatures, Temperatures, a) {
    int64_t head = thread_index();
    if (head < a.heads) a.temperatures[head] = exp(-(double)a.log_scales[head][0]);
}

}  // namespace optim
