// What happens to rows between products: layer norm, bias, GELU, residuals with drops, gathers; and sums over rows.
//
// Tokens and their gradients are f32, what goes into products is f32 or bf16 (`T`), sums are f32. A lane has four
// adjacent columns where sizes allow (`wide`), else one. Row kernels give a warp a row; later passes over it come from
// the first-level cache. Sums over rows are taken in two stages, of fixed strips and of the strips in order, so that
// they never depend on timing. Bytes are given per value of a row, of T = bf16.
#include "drops.cuh"

namespace rows {

// Picks the width that sizes allow.
#define BY_WIDTH(function, T, a)                                                                                       \
    if (a.wide)                                                                                                        \
        function<T, 4>(a);                                                                                             \
    else                                                                                                               \
        function<T, 1>(a);
#define BOTH(name, Arguments)                                                                                          \
    KERNEL(name##_f32, Arguments, a) { BY_WIDTH(name, float, a) }                                                      \
    KERNEL(name##_bf16, Arguments, a) { BY_WIDTH(name, bf16, a) }

// Row `row` of views of `tokens` rows among those of the first `queries` rows of each; -1 when it is not one of them.
DEVICE int64_t asked_row(int64_t row, int tokens, int queries) {
    if (tokens == queries) return row;
    int64_t view = row / tokens, token = row - view * tokens;
    return token < queries ? view * queries + token : -1;
}

// Mean and reciprocal deviation of a row, by its warp.
template <int W> DEVICE void moments(const float* x, int dim, float& mean, float& inverse) {
    float v[W], sum = 0.0f;
    for (int c = threadIdx.x % 32 * W; c < dim; c += 32 * W) {
        load(v, x + c);
#pragma unroll
        for (int i = 0; i < W; i++) sum += v[i];
    }
    mean = warp_sum(sum) / dim;
    sum = 0.0f;
    for (int c = threadIdx.x % 32 * W; c < dim; c += 32 * W) {
        load(v, x + c);
#pragma unroll
        for (int i = 0; i < W; i++) sum += (v[i] - mean) * (v[i] - mean);
    }
    inverse = 1.0f / sqrtf(warp_sum(sum) / dim + 1e-5f);
}

// out = (x - mean) * inverse * weight + bias, W columns of it.
template <int W> DEVICE void normed(float (&v)[W], const float* weight, const float* bias, int c, float mean, float inverse) {
    float w[W], b[W];
    load(w, weight + c);
    load(b, bias + c);
#pragma unroll
    for (int i = 0; i < W; i++) v[i] = (v[i] - mean) * inverse * w[i] + b[i];
}

// Layer norm: 4 bytes read, 2 written. `asked` has the first rows of each view once more, one after the other.
struct Norm {
    const float* x;
    const float* weight;
    const float* bias;
    float* moments;  // [rows][2]
    void* out;
    void* asked;
    int64_t rows;
    int tokens, queries, dim, wide;
};
template <typename T, int W> DEVICE void norm(const Norm& a) {
    int64_t row = thread_index() / 32;
    if (row >= a.rows) return;
    const float* x = a.x + row * a.dim;
    int64_t asked = a.asked ? asked_row(row, a.tokens, a.queries) : -1;
    float mean, inverse, v[W];
    moments<W>(x, a.dim, mean, inverse);
    if (threadIdx.x % 32 == 0) a.moments[2 * row] = mean, a.moments[2 * row + 1] = inverse;
    for (int c = threadIdx.x % 32 * W; c < a.dim; c += 32 * W) {
        load(v, x + c);
        normed(v, a.weight, a.bias, c, mean, inverse);
        store((T*)a.out + row * a.dim + c, v);
        if (asked >= 0) store((T*)a.asked + asked * a.dim + c, v);
    }
}
BOTH(norm, Norm)

// out = x + dropped(y + bias), x being the first rows of each view; then its layer norm where one is asked for. 6 bytes
// read, 4 written; with the norm 6.
struct Residual {
    const void* y;
    const float* bias;
    const float* x;
    float* out;
    const float* norm_weight;
    const float* norm_bias;
    float* moments;
    void* normed;
    Drop drop;
    int64_t rows;
    int tokens, queries, dim, wide;
};
template <typename T, int W> DEVICE void residual(const Residual& a) {
    int64_t row = thread_index() / 32;
    if (row >= a.rows) return;
    int64_t view = row / a.queries, token = row - view * a.queries;
    const float* x = a.x + (view * a.tokens + token) * a.dim;
    float* out = a.out + row * a.dim;
    const Dropping drops = dropping(a.drop, view);
    float v[W], y[W], b[W];
    for (int c = threadIdx.x % 32 * W; c < a.dim; c += 32 * W) {
        load(y, (const T*)a.y + row * a.dim + c);
        load(b, a.bias + c);
        load(v, x + c);
#pragma unroll
        for (int i = 0; i < W; i++) y[i] += b[i];
        drop(y, drops, token * a.dim + c);
#pragma unroll
        for (int i = 0; i < W; i++) v[i] += y[i];
        store(out + c, v);
    }
    if (!a.normed) return;
    // A lane reads what it wrote.
    float mean, inverse;
    moments<W>(out, a.dim, mean, inverse);
    if (threadIdx.x % 32 == 0) a.moments[2 * row] = mean, a.moments[2 * row + 1] = inverse;
    for (int c = threadIdx.x % 32 * W; c < a.dim; c += 32 * W) {
        load(v, out + c);
        normed(v, a.norm_weight, a.norm_bias, c, mean, inverse);
        store((T*)a.normed + row * a.dim + c, v);
    }
}
BOTH(residual, Residual)

// The way back through a layer norm and the sum beside it: d_x = d_beside + the norm's. The normed rows come once more,
// since the products that follow want them, and `added` is what goes on into the residual, with its drops. Sums over
// rows: of d * centred, of d, of `added`. 8 bytes read and 2 for `d_asked`; 4 written, 2 each for normed and added.
// Blocks are strips of rows; every warp has sums of its own in shared memory.
struct NormBack {
    const float* x;
    const float* moments;
    const float* weight;
    const float* bias;
    const void* d;
    const void* d_asked;    // [views * queries][dim], more of d; or none
    const float* d_beside;  // [views * queries][dim]
    float* d_x;
    void* normed;
    void* asked;    // or none
    void* added;    // or none
    float* sums;    // [strips][2 or 3][dim]
    Drop drop;
    int64_t rows, strip;
    int tokens, queries, dim, wide;
};
template <int W> DEVICE void add(float* to, const float (&v)[W]) {
    float sum[W];
    load(sum, to);
#pragma unroll
    for (int i = 0; i < W; i++) sum[i] += v[i];
    store(to, sum);
}
template <typename T, int W> DEVICE void norm_back(const NormBack& a) {
    SHARED(float, space);
    const int kinds = a.added ? 3 : 2, warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* own = space + warp * kinds * a.dim;
    for (int c = lane; c < kinds * a.dim; c += 32) own[c] = 0.0f;
    __syncwarp();
    int64_t last = min(a.rows, ((int64_t)blockIdx.x + 1) * a.strip);
    for (int64_t row = blockIdx.x * a.strip + warp; row < last; row += warps) {
        const int64_t asked = asked_row(row, a.tokens, a.queries);
        const float mean = a.moments[2 * row], inverse = a.moments[2 * row + 1];
        const float* x = a.x + row * a.dim;
        const T* d = (const T*)a.d + row * a.dim;
        const T* d_asked = a.d_asked && asked >= 0 ? (const T*)a.d_asked + asked * a.dim : nullptr;
        float level = 0.0f, slope = 0.0f, v[W], g[W], w[W], more[W];
        for (int c = lane * W; c < a.dim; c += 32 * W) {
            load(v, x + c);
            load(g, d + c);
            load(w, a.weight + c);
            if (d_asked) {
                load(more, d_asked + c);
#pragma unroll
                for (int i = 0; i < W; i++) g[i] += more[i];
            }
#pragma unroll
            for (int i = 0; i < W; i++) {
                float centred = (v[i] - mean) * inverse, weighed = g[i] * w[i];
                level += weighed;
                slope += weighed * centred;
                more[i] = g[i] * centred;
            }
            add(own + c, more);
            add(own + a.dim + c, g);
        }
        level = warp_sum(level) / a.dim;
        slope = warp_sum(slope) / a.dim;
        const Dropping drops = dropping(a.drop, a.added ? row / a.queries : 0);
        for (int c = lane * W; c < a.dim; c += 32 * W) {
            float b[W], beside[W];
            load(v, x + c);
            load(g, d + c);
            load(w, a.weight + c);
            load(b, a.bias + c);
            if (d_asked) {
                load(more, d_asked + c);
#pragma unroll
                for (int i = 0; i < W; i++) g[i] += more[i];
            }
            if (asked >= 0) load(beside, a.d_beside + asked * a.dim + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                float centred = (v[i] - mean) * inverse;
                v[i] = centred * w[i] + b[i];
                g[i] = (g[i] * w[i] - level - centred * slope) * inverse + (asked >= 0 ? beside[i] : 0.0f);
            }
            store(a.d_x + row * a.dim + c, g);
            store((T*)a.normed + row * a.dim + c, v);
            if (a.asked && asked >= 0) store((T*)a.asked + asked * a.dim + c, v);
            if (a.added) {
                drop(g, drops, row % a.queries * a.dim + c);
                store((T*)a.added + row * a.dim + c, g);
                add(own + 2 * a.dim + c, g);
            }
        }
    }
    __syncthreads();
    for (int c = threadIdx.x; c < kinds * a.dim; c += blockDim.x) {
        float sum = 0.0f;
        for (int i = 0; i < warps; i++) sum += space[i * kinds * a.dim + c];
        a.sums[(int64_t)blockIdx.x * kinds * a.dim + c] = sum;
    }
}
BOTH(norm_back, NormBack)

// Every value of some rows by itself, and the sums of columns. A block is a strip of rows and 32 W columns, a lane W
// columns; the warps share the rows and add their sums in order. `value` makes what is summed of (row, column).
template <int W, typename F> DEVICE void columns(int64_t rows, int width, int64_t strip, float* sums, F value) {
    __shared__ float space[8 * 32 * 4];
    const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int c = ((int)blockIdx.y * 32 + lane) * W;
    const int64_t last = min(rows, ((int64_t)blockIdx.x + 1) * strip);
    float sum[W] = {}, v[W];
    if (c < width)
        for (int64_t row = blockIdx.x * strip + warp; row < last; row += warps) {
            value(row, c, v);
#pragma unroll
            for (int i = 0; i < W; i++) sum[i] += v[i];
        }
    if (!sums) return;
    for (int i = 0; i < W; i++) space[(warp * 32 + lane) * W + i] = sum[i];
    __syncthreads();
    for (int i = threadIdx.x; i < 32 * W; i += blockDim.x) {
        float total = 0.0f;
        for (int j = 0; j < warps; j++) total += space[j * 32 * W + i];
        int column = (int)blockIdx.y * 32 * W + i;
        if (column < width) sums[(int64_t)blockIdx.x * width + column] = total;
    }
}

// GELU in its tanh form is x * gate(x); `slope` is what its gradient needs besides. Where the result is rounded to
// bf16, by the units for special functions: exact ones would take longer than the memory.
template <typename T> DEVICE float gate(float x, float& slope) {
    const float linear = -2.0f * 0.7978845608028654f, cubic = linear * 0.044715f;
    slope = -linear - 3.0f * cubic * x * x;
    float power = x * (linear + cubic * x * x);
    if (sizeof(T) == 2) return __fdividef(1.0f, 1.0f + __expf(power));
    return 1.0f / (1.0f + expf(power));
}

// active = gelu(up + bias): 2 bytes read, 2 written.
struct Gelu {
    void* up;
    const float* bias;
    void* active;
    void* d;      // way back: in, the gradient of active; out, that of up
    float* sums;  // way back: [strips][width] of d
    int64_t rows, strip;
    int width, wide;
};
template <typename T, int W> DEVICE void gelu(const Gelu& a) {
    columns<W>(a.rows, a.width, a.strip, nullptr, [&](int64_t row, int c, float (&v)[W]) {
        float b[W], slope;
        load(v, (const T*)a.up + row * a.width + c);
        load(b, a.bias + c);
#pragma unroll
        for (int i = 0; i < W; i++) {
            float x = v[i] + b[i];
            v[i] = x * gate<T>(x, slope);
        }
        store((T*)a.active + row * a.width + c, v);
    });
}
BOTH(gelu, Gelu)

// The way back: 4 bytes read, 4 written; `active` comes once more, and may take the place of `up`.
template <typename T, int W> DEVICE void gelu_back(const Gelu& a) {
    columns<W>(a.rows, a.width, a.strip, a.sums, [&](int64_t row, int c, float (&v)[W]) {
        float x[W], b[W], slope;
        T* d = (T*)a.d + row * a.width + c;
        load(x, (const T*)a.up + row * a.width + c);
        load(b, a.bias + c);
        load(v, d);
#pragma unroll
        for (int i = 0; i < W; i++) {
            x[i] += b[i];
            float g = gate<T>(x[i], slope);
            v[i] *= g + x[i] * g * (1.0f - g) * slope;
            x[i] *= g;
        }
        store(d, v);
        store((T*)a.active + row * a.width + c, x);
    });
}
BOTH(gelu_back, Gelu)

// added = what drops leave of d: 4 bytes read, 2 written; and its sums.
struct DropBack {
    const float* d;
    void* added;
    float* sums;
    Drop drop;
    int64_t rows, strip;
    int queries, width, wide, _gap;
};
template <typename T, int W> DEVICE void drop_back(const DropBack& a) {
    columns<W>(a.rows, a.width, a.strip, a.sums, [&](int64_t row, int c, float (&v)[W]) {
        int64_t view = row / a.queries;
        load(v, a.d + row * a.width + c);
        drop(v, dropping(a.drop, view), (row - view * a.queries) * a.width + c);
        store((T*)a.added + row * a.width + c, v);
    });
}
BOTH(drop_back, DropBack)

// Sums of columns alone: 2 bytes read.
struct Columns {
    const void* x;
    float* sums;
    int64_t rows, strip;
    int width, wide;
};
template <typename T, int W> DEVICE void column_sums(const Columns& a) {
    columns<W>(a.rows, a.width, a.strip, a.sums, [&](int64_t row, int c, float (&v)[W]) {
        load(v, (const T*)a.x + row * a.width + c);
    });
}
BOTH(column_sums, Columns)

// x += bias in every row: 2 bytes read, 2 written.
struct AddBias {
    void* x;
    const float* bias;
    int64_t rows, strip;
    int width, wide;
};
template <typename T, int W> DEVICE void add_bias(const AddBias& a) {
    columns<W>(a.rows, a.width, a.strip, nullptr, [&](int64_t row, int c, float (&v)[W]) {
        float b[W];
        T* x = (T*)a.x + row * a.width + c;
        load(v, x);
        load(b, a.bias + c);
#pragma unroll
        for (int i = 0; i < W; i++) v[i] += b[i];
        store(x, v);
    });
}
BOTH(add_bias, AddBias)

// The second stage of sums over rows, of several at once: a block is 32 columns of one of them, its warps share the
// strips.
struct Part {
    const float* sums;  // [strips], `stride` apart
    float* out;
    int64_t stride;
    int strips, width;
    int first_block, _gap;
};
struct Finish {
    Part parts[8];
    int64_t count;
};
KERNEL(finish_sums, Finish, a) {
    __shared__ float space[32 * 32];
    int part = 0;
    while (part + 1 < a.count && (int)blockIdx.x >= a.parts[part + 1].first_block) part++;
    const Part p = a.parts[part];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const int c = ((int)blockIdx.x - p.first_block) * 32 + lane;
    float sum = 0.0f;
    if (c < p.width)
        for (int i = warp; i < p.strips; i += warps) sum += p.sums[i * p.stride + c];
    space[warp * 32 + lane] = sum;
    __syncthreads();
    if (warp > 0 || c >= p.width) return;
    sum = 0.0f;
    for (int i = 0; i < warps; i++) sum += space[i * 32 + lane];
    p.out[c] = sum;
}

// Rows of each view that a branch keeps: `head` from `start` on, then all from `skip` on. Between a view's `many` rows
// and its `few`; 4 bytes read, 4 written.
struct Pick {
    float* many;
    float* few;
    int64_t items;  // views * few rows * dim
    int many_rows, few_rows, head, start, skip, dim;
    int mode;  // 0: many to few, 1: few to many, 2: few added to many
    int _gap;
};
KERNEL(pick, Pick, a) {
    int64_t i = thread_index();
    if (i >= a.items) return;
    int64_t row = i / a.dim, view = row / a.few_rows;
    int c = (int)(i - row * a.dim), token = (int)(row - view * a.few_rows);
    int from = token < a.head ? a.start + token : a.skip + token - a.head;
    float* many = a.many + (view * a.many_rows + from) * a.dim + c;
    if (a.mode == 0) a.few[i] = *many;
    if (a.mode == 1) *many = a.few[i];
    if (a.mode == 2) *many += a.few[i];
}

}
