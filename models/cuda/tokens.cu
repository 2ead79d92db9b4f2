// From log-mel frames to tokens and back, around one product with the patch weights. A block is a row; kept patches
// are numbers among all of a view.
#include "number.cuh"

namespace tokeniser {

struct Tokens {
    const float* features;  // [views][frames][mels] in dB
    const float* mean;      // [mels]
    const float* inverse;   // [mels]
    const unsigned* kept;   // [views][per_view], or none: all of them
    void* patches;          // [views][per_view][inside]: normalised
    const void* y;          // [views][per_view][dim]: products
    const float* bias;
    const float* position;  // [patches][dim]
    const float* classes;   // [classes][dim]
    float* out;             // [views][classes + per_view][dim]
    int per_view, class_count, frames, mels, inside, dim;
};
DEVICE int patch_of(const unsigned* kept, int64_t row, int per_view) { return kept ? (int)kept[row] : (int)(row % per_view); }

// Normalised frames of a patch: 4 bytes read, 2 written a value.
template <typename T> DEVICE void patches(const Tokens& a) {
    const int64_t row = blockIdx.x, view = row / a.per_view;
    const float* x = a.features + view * a.frames * a.mels + (int64_t)patch_of(a.kept, row, a.per_view) * a.inside;
    for (int i = threadIdx.x; i < a.inside; i += blockDim.x) {
        int band = i % a.mels;
        float v[1] = {(x[i] - a.mean[band]) * a.inverse[band]};
        store((T*)a.patches + row * a.inside + i, v);
    }
}
KERNEL(patches_f32, Tokens, a) { patches<float>(a); }
KERNEL(patches_bf16, Tokens, a) { patches<bf16>(a); }

// Class tokens, then patches with bias and position: 2 bytes read, 4 written a value.
template <typename T> DEVICE void tokens(const Tokens& a) {
    const int rows = a.class_count + a.per_view;
    const int64_t row = blockIdx.x, view = row / rows;
    const int token = (int)(row - view * rows);
    float* out = a.out + row * a.dim;
    if (token < a.class_count) {
        for (int c = threadIdx.x; c < a.dim; c += blockDim.x) out[c] = a.classes[token * a.dim + c];
        return;
    }
    const int64_t from = view * a.per_view + token - a.class_count;
    const float* position = a.position + (int64_t)patch_of(a.kept, from, a.per_view) * a.dim;
    for (int c = threadIdx.x; c < a.dim; c += blockDim.x) {
        float v[1];
        load(v, (const T*)a.y + from * a.dim + c);
        out[c] = v[0] + (position[c] + a.bias[c]);
    }
}
KERNEL(tokens_f32, Tokens, a) { tokens<float>(a); }
KERNEL(tokens_bf16, Tokens, a) { tokens<bf16>(a); }

struct TokensBack {
    const float* d_out;  // [views][classes + per_view][dim]
    void* d_y;           // [views][per_view][dim]
    const int* places;   // [views][patches]: where a patch is among those kept, or -1; or none: all are kept
    float* sums;         // [strips][classes + patches][dim]
    int64_t views, strip;
    int per_view, class_count, patches, dim;
};

// Gradients of the products: 4 bytes read, 2 written a value.
template <typename T> DEVICE void tokens_back(const TokensBack& a) {
    const int64_t row = blockIdx.x, view = row / a.per_view;
    const float* d = a.d_out + (row + (view + 1) * a.class_count) * a.dim;
    for (int c = threadIdx.x; c < a.dim; c += blockDim.x) {
        float v[1] = {d[c]};
        store((T*)a.d_y + row * a.dim + c, v);
    }
}
KERNEL(tokens_back_f32, TokensBack, a) { tokens_back<float>(a); }
KERNEL(tokens_back_bf16, TokensBack, a) { tokens_back<bf16>(a); }

// Gradients of class tokens and positions, summed over a strip of views along x; a thread has one of their values.
KERNEL(token_sums, TokensBack, a) {
    const int64_t width = (int64_t)(a.class_count + a.patches) * a.dim;
    const int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= width) return;
    const int token = (int)(i / a.dim), c = (int)(i % a.dim);
    const int64_t last = min(a.views, ((int64_t)blockIdx.x + 1) * a.strip);
    float sum = 0.0f;
    for (int64_t view = blockIdx.x * a.strip; view < last; view++) {
        int place = token;
        if (token >= a.class_count && a.places) {
            place = a.places[view * a.patches + token - a.class_count];
            if (place < 0) continue;
            place += a.class_count;
        }
        sum += a.d_out[(view * (a.class_count + a.per_view) + place) * a.dim + c];
    }
    a.sums[blockIdx.x * width + i] = sum;
}

// The rise of each group of bands from frame to frame, for rhythm tokens: 4 bytes read a value of the frames. A thread
// has one (frame, group); those of a frame lie side by side, so that a warp's reads are whole lines.
struct Onsets {
    const float* features;   // [views][frames][mels] in dB
    const float* deviation;  // [mels]
    float* out;              // [views][groups][frames - 1]
    int64_t items;           // views * (frames - 1) * groups
    int frames, mels, groups, _gap;
};
KERNEL(onsets, Onsets, a) {
    const int64_t i = thread_index();
    if (i >= a.items) return;
    const int64_t row = i / a.groups, view = row / (a.frames - 1);
    const int group = (int)(i - row * a.groups), frame = (int)(row - view * (a.frames - 1));
    const int first = (group * a.mels + a.groups - 1) / a.groups, last = ((group + 1) * a.mels + a.groups - 1) / a.groups;
    const float* x = a.features + (view * a.frames + frame) * a.mels;
    float sum = 0.0f;
    for (int band = first; band < last; band++) sum += fmaxf((x[a.mels + band] - x[band]) / a.deviation[band], 0.0f);
    a.out[(view * a.groups + group) * (a.frames - 1) + frame] = sum / (last - first);
}

}
