// Soft-max attention of short sequences by tensor cores, forward and backward, bf16 with sums in f32.
//
// A block is a (view, head, run of rows); a warp has 16 rows. The other side passes through shared memory, 64 rows at
// a time. Scores stay in registers: soft-max is that of the sequence so far, mended as it goes on (Milakov and
// Gimelshein, arXiv 1805.02867; Dao, arXiv 2307.08691). The way back draws the probabilities again from the
// logarithms of their sums, once by rows of queries and once by rows of keys, so that nothing is summed by atomics: 7
// products of queries x tokens x width instead of 5.
//
// Why so: of 75 to 320 tokens, scores in memory would be most of a block's bytes, and by units other than tensor cores
// 4% of the multiplications would take longer than all the rest. A (view, head) is small: blocks of a few warps, many of
// them at once, hide the loads that a pipeline of copies would.
//
// Bytes of a (view, head), `q` queries, `n` tokens, width `w`: forward 4 w (q + n) + 4 q, backward 12 w (q + n) + 12 q.
// Multiplications and additions: forward 4 q n w, backward 14 q n w.
#include "tensor.cuh"

namespace attention {

struct Attention {
    const bf16* query;       // [views][queries][dim], without its bias
    const float* bias;       // [dim]
    const bf16* key_value;   // [views][tokens][2 dim]
    bf16* mixed;             // [views][queries][dim]
    float* levels;           // [views][heads][queries]: logarithm of the sum that divides
    const bf16* d_mixed;
    float* slopes;           // [views][heads][queries]: the gradient's mean over probabilities
    bf16* d_query;
    bf16* d_key_value;
    int tokens, queries, dim, heads, width;
    float scale;
};

const int STAGED = 64;
const float LOG2E = 1.4426950408889634f;

// STAGED rows from `first` on to shared memory, zero beyond the last and beyond `width`; with a bias where there is one.
template <int N> DEVICE void stage(bf16* to, const bf16* from, int64_t stride, int first, int rows, int width, const float* bias) {
    const int PIECES = N / 8;
    for (int i = threadIdx.x; i < STAGED * PIECES; i += blockDim.x) {
        int row = i / PIECES, column = i % PIECES * 8;
        uint4 x = make_uint4(0, 0, 0, 0);
        if (first + row < rows && column < width) {
            x = *reinterpret_cast<const uint4*>(from + (first + row) * stride + column);
            if (bias) {
                const float* b = bias + column;
                x.x = pack(low_half(x.x) + b[0], high_half(x.x) + b[1]);
                x.y = pack(low_half(x.y) + b[2], high_half(x.y) + b[3]);
                x.z = pack(low_half(x.z) + b[4], high_half(x.z) + b[5]);
                x.w = pack(low_half(x.w) + b[6], high_half(x.w) + b[7]);
            }
        }
        *reinterpret_cast<uint4*>(to + row * (N + 8) + column) = x;
    }
}

// 16 rows from `first` on as left operands, zero beyond the last and beyond `width`.
template <int N> DEVICE void left_rows(unsigned (&a)[N / 16][4], const bf16* from, int64_t stride, int first, int rows, int width, const float* bias) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < N / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = first + lane / 4 + i % 2 * 8, column = k * 16 + lane % 4 * 2 + i / 2 * 8;
            unsigned x = 0;
            if (row < rows && column < width) {
                x = *reinterpret_cast<const unsigned*>(from + row * stride + column);
                if (bias) x = pack(low_half(x) + bias[column], high_half(x) + bias[column + 1]);
            }
            a[k][i] = x;
        }
}

// Results as 16 rows of bf16, times one factor for each of a lane's two rows.
template <int N> DEVICE void put_rows(bf16* to, int64_t stride, const float (&c)[N / 8][4], int first, int rows, int width, float upper, float lower) {
    int lane = threadIdx.x % 32, row = first + lane / 4;
#pragma unroll
    for (int k = 0; k < N / 8; k++) {
        int column = k * 8 + lane % 4 * 2;
        if (column >= width) continue;
        if (row < rows) *reinterpret_cast<unsigned*>(to + row * stride + column) = pack(c[k][0] * upper, c[k][1] * upper);
        if (row + 8 < rows) *reinterpret_cast<unsigned*>(to + (row + 8) * stride + column) = pack(c[k][2] * lower, c[k][3] * lower);
    }
}

// Over the four lanes that share a row.
DEVICE float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
DEVICE float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

// Where the matrices of this block's view and head begin.
struct Corner {
    int64_t query, key, value, row;
};
DEVICE Corner corner(const Attention& a) {
    int64_t view = blockIdx.x, column = (int64_t)blockIdx.y * a.width, key = view * a.tokens * 2 * a.dim + column;
    return {view * a.queries * a.dim + column, key, key + a.dim, (view * a.heads + blockIdx.y) * a.queries};
}
DEVICE int first_row() { return ((int)blockIdx.z * (blockDim.x / 32) + threadIdx.x / 32) * 16; }

// Products of 16 rows with the 16 rows of a staged matrix from `n` on, across its columns: eight and eight of them.
template <int N> DEVICE void add_scores(float (&low)[4], float (&high)[4], const unsigned (&left)[N / 16][4], const bf16* staged, int n) {
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
        unsigned b[4];
        right_across(b, staged, N + 8, n, k * 16);
        tensor_product(low, left[k], b[0], b[1]);
        tensor_product(high, left[k], b[2], b[3]);
    }
}

// Adds the 16 rows of a staged matrix from `n` on, weighted by `left`.
template <int N> DEVICE void add_rows(float (&sums)[N / 8][4], const unsigned (&left)[4], const bf16* staged, int n) {
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
        unsigned b[4];
        right_down(b, staged, N + 8, n, k * 16);
        tensor_product(sums[2 * k], left, b[0], b[1]);
        tensor_product(sums[2 * k + 1], left, b[2], b[3]);
    }
}

template <int N> DEVICE void attend(const Attention& a) {
    SHARED(bf16, keys);
    bf16* values = keys + STAGED * (N + 8);
    const Corner at = corner(a);
    const int lane = threadIdx.x % 32, first = first_row();
    const float unit = a.scale * LOG2E;
    unsigned asks[N / 16][4];
    left_rows<N>(asks, a.query + at.query, a.dim, first, a.queries, a.width, a.bias + blockIdx.y * a.width);
    float sums[N / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, total[2] = {0.0f, 0.0f};
    for (int from = 0; from < a.tokens; from += STAGED) {
        __syncthreads();
        stage<N>(keys, a.key_value + at.key, 2 * a.dim, from, a.tokens, a.width, nullptr);
        stage<N>(values, a.key_value + at.value, 2 * a.dim, from, a.tokens, a.width, nullptr);
        __syncthreads();
        if (first >= a.queries) continue;
        float s[STAGED / 8][4];
#pragma unroll
        for (int n = 0; n < STAGED / 16; n++) {
            if (from + n * 16 >= a.tokens) {
#pragma unroll
                for (int i = 0; i < 4; i++) s[2 * n][i] = s[2 * n + 1][i] = -INFINITY;
                continue;
            }
#pragma unroll
            for (int i = 0; i < 4; i++) s[2 * n][i] = s[2 * n + 1][i] = 0.0f;
            add_scores<N>(s[2 * n], s[2 * n + 1], asks, keys, n * 16);
        }
        float high[2] = {top[0], top[1]};
#pragma unroll
        for (int n = 0; n < STAGED / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (from + n * 8 + lane % 4 * 2 + i % 2 >= a.tokens) s[n][i] = -INFINITY;
                high[i / 2] = fmaxf(high[i / 2], s[n][i]);
            }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            high[r] = row_max(high[r]);
            float mend = exp2f((top[r] - high[r]) * unit);
            top[r] = high[r];
            total[r] *= mend;
#pragma unroll
            for (int k = 0; k < N / 8; k++) sums[k][2 * r] *= mend, sums[k][2 * r + 1] *= mend;
        }
#pragma unroll
        for (int n = 0; n < STAGED / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[n][i] = exp2f((s[n][i] - top[i / 2]) * unit);
                total[i / 2] += s[n][i];
            }
#pragma unroll
        for (int n = 0; n < STAGED / 16; n++) {
            if (from + n * 16 >= a.tokens) continue;
            unsigned p[4];
            as_left(p, s[2 * n], s[2 * n + 1]);
            add_rows<N>(sums, p, values, n * 16);
        }
    }
    if (first >= a.queries) return;
    total[0] = row_sum(total[0]), total[1] = row_sum(total[1]);
    put_rows<N>(a.mixed + at.query, a.dim, sums, first, a.queries, a.width, 1.0f / total[0], 1.0f / total[1]);
    int row = first + lane / 4;
    if (lane % 4 == 0 && row < a.queries) a.levels[at.row + row] = top[0] * a.scale + logf(total[0]);
    if (lane % 4 == 0 && row + 8 < a.queries) a.levels[at.row + row + 8] = top[1] * a.scale + logf(total[1]);
}

// Gradients of queries, and the slopes.
template <int N> DEVICE void attend_back_queries(const Attention& a) {
    SHARED(bf16, keys);
    bf16* values = keys + STAGED * (N + 8);
    const Corner at = corner(a);
    const int lane = threadIdx.x % 32, first = first_row();
    const float unit = a.scale * LOG2E;
    unsigned asks[N / 16][4], d_mixed[N / 16][4];
    left_rows<N>(asks, a.query + at.query, a.dim, first, a.queries, a.width, a.bias + blockIdx.y * a.width);
    left_rows<N>(d_mixed, a.d_mixed + at.query, a.dim, first, a.queries, a.width, nullptr);
    float slope[2] = {0.0f, 0.0f}, level[2];
    {
        unsigned mixed[N / 16][4];
        left_rows<N>(mixed, a.mixed + at.query, a.dim, first, a.queries, a.width, nullptr);
#pragma unroll
        for (int k = 0; k < N / 16; k++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                slope[i % 2] += low_half(mixed[k][i]) * low_half(d_mixed[k][i]) + high_half(mixed[k][i]) * high_half(d_mixed[k][i]);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = first + lane / 4 + r * 8;
        slope[r] = row_sum(slope[r]);
        level[r] = row < a.queries ? a.levels[at.row + row] * LOG2E : 0.0f;
        if (lane % 4 == 0 && row < a.queries) a.slopes[at.row + row] = slope[r];
    }
    float sums[N / 8][4] = {};
    for (int from = 0; from < a.tokens; from += STAGED) {
        __syncthreads();
        stage<N>(keys, a.key_value + at.key, 2 * a.dim, from, a.tokens, a.width, nullptr);
        stage<N>(values, a.key_value + at.value, 2 * a.dim, from, a.tokens, a.width, nullptr);
        __syncthreads();
        if (first >= a.queries) continue;
        for (int n = 0; n < STAGED && from + n < a.tokens; n += 16) {
            float s[2][4] = {}, d[2][4] = {};
            add_scores<N>(s[0], s[1], asks, keys, n);
            add_scores<N>(d[0], d[1], d_mixed, values, n);
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    bool there = from + n + h * 8 + lane % 4 * 2 + i % 2 < a.tokens;
                    float p = there ? exp2f(s[h][i] * unit - level[i / 2]) : 0.0f;
                    d[h][i] = p * (d[h][i] - slope[i / 2]) * a.scale;
                }
            unsigned left[4];
            as_left(left, d[0], d[1]);
            add_rows<N>(sums, left, keys, n);
        }
    }
    put_rows<N>(a.d_query + at.query, a.dim, sums, first, a.queries, a.width, 1.0f, 1.0f);
}

// Gradients of keys and values; after those of queries.
template <int N> DEVICE void attend_back_keys(const Attention& a) {
    SHARED(bf16, asks);
    bf16* d_mixed = asks + STAGED * (N + 8);
    float* levels = reinterpret_cast<float*>(d_mixed + STAGED * (N + 8));
    float* slopes = levels + STAGED;
    const Corner at = corner(a);
    const int lane = threadIdx.x % 32, first = first_row();
    const float unit = a.scale * LOG2E;
    unsigned keys[N / 16][4], values[N / 16][4];
    left_rows<N>(keys, a.key_value + at.key, 2 * a.dim, first, a.tokens, a.width, nullptr);
    left_rows<N>(values, a.key_value + at.value, 2 * a.dim, first, a.tokens, a.width, nullptr);
    float d_keys[N / 8][4] = {}, d_values[N / 8][4] = {};
    for (int from = 0; from < a.queries; from += STAGED) {
        __syncthreads();
        stage<N>(asks, a.query + at.query, a.dim, from, a.queries, a.width, a.bias + blockIdx.y * a.width);
        stage<N>(d_mixed, a.d_mixed + at.query, a.dim, from, a.queries, a.width, nullptr);
        for (int i = threadIdx.x; i < STAGED; i += blockDim.x) {
            bool there = from + i < a.queries;
            levels[i] = there ? a.levels[at.row + from + i] * LOG2E : 0.0f;
            slopes[i] = there ? a.slopes[at.row + from + i] : 0.0f;
        }
        __syncthreads();
        if (first >= a.tokens) continue;
        for (int n = 0; n < STAGED && from + n < a.queries; n += 16) {
            float p[2][4] = {}, d[2][4] = {};
            add_scores<N>(p[0], p[1], keys, asks, n);
            add_scores<N>(d[0], d[1], values, d_mixed, n);
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int query = n + h * 8 + lane % 4 * 2 + i % 2;
                    p[h][i] = from + query < a.queries ? exp2f(p[h][i] * unit - levels[query]) : 0.0f;
                    d[h][i] = p[h][i] * (d[h][i] - slopes[query]) * a.scale;
                }
            unsigned left[4], right[4];
            as_left(left, p[0], p[1]);
            as_left(right, d[0], d[1]);
            add_rows<N>(d_values, left, d_mixed, n);
            add_rows<N>(d_keys, right, asks, n);
        }
    }
    put_rows<N>(a.d_key_value + at.key, 2 * a.dim, d_keys, first, a.tokens, a.width, 1.0f, 1.0f);
    put_rows<N>(a.d_key_value + at.value, 2 * a.dim, d_values, first, a.tokens, a.width, 1.0f, 1.0f);
}

#define ATTENTION(N)                                                                                                   \
    KERNEL(attend_##N, Attention, a) { attend<N>(a); }                                                                 \
    KERNEL(attend_back_queries_##N, Attention, a) { attend_back_queries<N>(a); }                                       \
    KERNEL(attend_back_keys_##N, Attention, a) { attend_back_keys<N>(a); }
ATTENTION(16)
ATTENTION(32)
ATTENTION(64)
ATTENTION(128)

// The same by products of matrices, for f32 and for widths that do not fit: the soft-max between them. One warp a row.
struct Softmax {
    const float* scores;  // [rows][columns]
    void* probabilities;
    int64_t rows;
    int columns;
    float scale;
};
template <typename T> DEVICE void softmax(const Softmax& a) {
    int64_t row = thread_index() / 32;
    if (row >= a.rows) return;
    const float* x = a.scores + row * a.columns;
    T* out = (T*)a.probabilities + row * a.columns;
    int lane = threadIdx.x % 32;
    float top = -INFINITY, sum = 0.0f;
    for (int i = lane; i < a.columns; i += 32) top = fmaxf(top, x[i]);
    top = warp_max(top);
    for (int i = lane; i < a.columns; i += 32) sum += expf((x[i] - top) * a.scale);
    sum = 1.0f / warp_sum(sum);
    for (int i = lane; i < a.columns; i += 32) {
        float p[1] = {expf((x[i] - top) * a.scale) * sum};
        store(out + i, p);
    }
}
KERNEL(softmax_f32, Softmax, a) { softmax<float>(a); }
KERNEL(softmax_bf16, Softmax, a) { softmax<bf16>(a); }

struct SoftmaxBack {
    const float* d_probabilities;
    const void* probabilities;
    void* d_scores;
    int64_t rows;
    int columns;
    float scale;
};
template <typename T> DEVICE void softmax_back(const SoftmaxBack& a) {
    int64_t row = thread_index() / 32;
    if (row >= a.rows) return;
    const float* d = a.d_probabilities + row * a.columns;
    const T* p = (const T*)a.probabilities + row * a.columns;
    T* out = (T*)a.d_scores + row * a.columns;
    int lane = threadIdx.x % 32;
    float mean = 0.0f, v[1];
    for (int i = lane; i < a.columns; i += 32) {
        load(v, p + i);
        mean += d[i] * v[0];
    }
    mean = warp_sum(mean);
    for (int i = lane; i < a.columns; i += 32) {
        load(v, p + i);
        v[0] *= (d[i] - mean) * a.scale;
        store(out + i, v);
    }
}
KERNEL(softmax_back_f32, SoftmaxBack, a) { softmax_back<float>(a); }
KERNEL(softmax_back_bf16, SoftmaxBack, a) { softmax_back<bf16>(a); }

}
