// The contrastive loss of one subspace over n views, and its gradient.
//
//   z --unit_rows--> u --product--> u u^T --contrast_rows--> G in its place --products--> G u, G^T u --unit_gradient--> dz
//
// A matrix of n x n floats is alive at a time. `contrast_rows` has a block of up to 512 threads for each anchor; it reads
// its row from memory once and again from the caches (two passes, three where positives need the whole row's sum first),
// and writes it once: 8 n^2 bytes in all. `unit_rows` and `unit_gradient` take a warp for each row, 8 and 20 bytes a value.
#include "kernel.cuh"

namespace loss {

constexpr float LOWEST = -3.0e38f;
// Added inside the logarithm by the reference formula.
constexpr double REFERENCE_EPS = 1e-6;
enum { CONTRASTIVE = 0, EXCLUDING = 1, REFERENCE = 2 };

// unit[row] = z[row] / length[row], length = sqrt(|z|^2 + eps).
struct Unit {
    const float* z;
    float* unit;
    float* length;
    int64_t rows;
    int dim;
    float eps;
};
KERNEL(unit_rows, Unit, a) {
    const int64_t row = thread_index() / 32;
    const int lane = threadIdx.x % 32;
    if (row >= a.rows) return;
    const float* z = a.z + row * a.dim;
    float* unit = a.unit + row * a.dim;
    float square = 0.0f;
    for (int i = lane; i < a.dim; i += 32) square += z[i] * z[i];
    const float length = sqrtf(warp_sum(square) + a.eps);
    for (int i = lane; i < a.dim; i += 32) unit[i] = z[i] / length;
    if (lane == 0) a.length[row] = length;
}

// Of anchor i, with cosines c, positives P and scale s: losses[i], and x[i][j] = dL/dc_ij, L the sum of `weight` times the
// losses. Anchors without positives add nothing.
//
//   contrastive   mean over P of ln(sum_k e^(s c_k)) - s c_j
//   excluding     mean over P of ln(1 + N / e^(s c_j)), N the sum of e^(s c_k) over those that are no positives
//   reference     mean over P of -ln(p_j + eps), p the soft-max of s c
struct Contrast {
    float* x;
    const int* group;
    const float* log_scale;
    double* losses;
    double scale;
    double weight;
    int n;
    int form;
};

DEVICE float block_top(float x, float* space) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) space[warp] = x;
    __syncthreads();
    for (int i = 0; i < warps; i++) x = fmaxf(x, space[i]);
    return x;
}

template <int FORM> DEVICE void contrast(const Contrast& a, float* space, double* wide) {
    const int n = a.n, anchor = blockIdx.x, step = blockDim.x, own = a.group[anchor];
    float* row = a.x + (int64_t)anchor * n;
    const double wide_scale = a.log_scale ? exp((double)a.log_scale[0]) : a.scale;
    const float scale = (float)wide_scale;

    // Soft-max in one pass: the sum so far is relative to the largest so far.
    float top = LOWEST, total = 0.0f, mates = 0.0f;
    double similarity = 0.0;
    for (int from = threadIdx.x; from < n; from += 4 * step) {
        float c[4], high = top;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int j = from + k * step;
            c[k] = LOWEST;
            if (j < n && j != anchor) {
                const float x = row[j];
                const bool mate = a.group[j] == own;
                if (mate) {
                    mates += 1.0f;
                    if (FORM == CONTRASTIVE) similarity += x;
                }
                if (FORM != EXCLUDING || !mate) c[k] = x;
            }
            high = fmaxf(high, c[k]);
        }
        total *= expf((top - high) * scale);
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (c[k] != LOWEST) total += expf((c[k] - high) * scale);
        top = high;
    }
    mates = block_sum(mates, space);
    if (mates == 0.0f) {
        for (int j = threadIdx.x; j < n; j += step) row[j] = 0.0f;
        if (threadIdx.x == 0) a.losses[anchor] = 0.0;
        return;
    }
    const float high = block_top(top, space);
    total = block_sum(total * expf((top - high) * scale), space);

    const double weight = a.weight * wide_scale;
    // Minus infinity where there is no negative: nothing to lose, nothing to move.
    const double negatives = (double)high * wide_scale + log((double)total);
    double sum = 0.0, push = 0.0;
    if (FORM == CONTRASTIVE) {
        similarity = block_sum(similarity, wide);
        sum = mates * negatives - similarity * wide_scale;
    } else {
        for (int j = threadIdx.x; j < n; j += step) {
            if (j == anchor || a.group[j] != own) continue;
            if (FORM == EXCLUDING) {
                const double x = negatives - (double)row[j] * wide_scale;
                sum += fmax(x, 0.0) + log1p(exp(-fabs(x)));
                push += 1.0 / (1.0 + exp(-x));
            } else {
                const double p = exp((double)row[j] * wide_scale - negatives);
                sum -= log(p + REFERENCE_EPS);
                push += p / (p + REFERENCE_EPS);
            }
        }
        sum = block_sum(sum, wide);
        push = block_sum(push, wide);
    }
    if (threadIdx.x == 0) a.losses[anchor] = sum / mates;

    const float share = (float)(weight / mates);
    double lift = FORM == CONTRASTIVE ? weight : weight / mates * push;
    const float factor = total == 0.0f ? 0.0f : (float)(lift / total);
#pragma unroll 4
    for (int j = threadIdx.x; j < n; j += step) {
        const float x = row[j];
        float y = expf((x - high) * scale) * factor;
        if (a.group[j] == own) {
            if (FORM == CONTRASTIVE) {
                y -= share;
            } else if (FORM == EXCLUDING) {
                y = -share / (1.0f + (float)exp((double)x * wide_scale - negatives));
            } else {
                const double p = exp((double)x * wide_scale - negatives);
                y -= share * (float)(p / (p + REFERENCE_EPS));
            }
        }
        row[j] = j == anchor ? 0.0f : y;
    }
}

KERNEL(contrast_rows, Contrast, a) {
    __shared__ float space[32];
    __shared__ double wide[32];
    switch (a.form) {
        case CONTRASTIVE: contrast<CONTRASTIVE>(a, space, wide); break;
        case EXCLUDING: contrast<EXCLUDING>(a, space, wide); break;
        default: contrast<REFERENCE>(a, space, wide);
    }
}

// From the gradient d = left + right of unit vectors to that of what was normalised, in the place of `left`;
// along[row] = d . unit.
struct UnitGradient {
    float* left;
    const float* right;
    const float* unit;
    const float* length;
    double* along;
    int64_t rows;
    int dim;
    int _gap;
};
KERNEL(unit_gradient, UnitGradient, a) {
    const int64_t row = thread_index() / 32;
    const int lane = threadIdx.x % 32;
    if (row >= a.rows) return;
    float* left = a.left + row * a.dim;
    const float* right = a.right + row * a.dim;
    const float* unit = a.unit + row * a.dim;
    float along = 0.0f;
    for (int i = lane; i < a.dim; i += 32) along += (left[i] + right[i]) * unit[i];
    along = warp_sum(along);
    const float length = a.length[row];
    for (int i = lane; i < a.dim; i += 32) left[i] = (left[i] + right[i] - unit[i] * along) / length;
    if (lane == 0) a.along[row] = along;
}

// loss = weight x the sum of losses; d_log_scale = half the sum of along; noted = the loss, the sum of lengths. One block.
struct Totals {
    const double* losses;
    const double* along;
    const float* length;
    float* loss;
    float* d_log_scale;
    double* noted;
    double weight;
    int n;
    int _gap;
};
KERNEL(loss_totals, Totals, a) {
    __shared__ double space[32];
    double loss = 0.0, along = 0.0, length = 0.0;
    for (int i = threadIdx.x; i < a.n; i += blockDim.x) {
        loss += a.losses[i];
        along += a.along[i];
        length += a.length[i];
    }
    loss = block_sum(loss, space) * a.weight;
    along = block_sum(along, space);
    length = block_sum(length, space);
    if (threadIdx.x > 0) return;
    a.loss[0] = (float)loss;
    a.d_log_scale[0] = (float)(0.5 * along);
    a.noted[0] = loss;
    a.noted[1] = length;
}

}  // namespace loss
