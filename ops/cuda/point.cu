// One value to one value: gains and the like.
#include "kernel.cuh"

// x[view][i] *= factor[view], kept finite.
struct Scale {
    float* x;
    const float* factor;
    int64_t length;
    int views;
    int _gap;
};
KERNEL(scale, Scale, a) {
    int64_t i = thread_index();
    if (i >= a.length * a.views) return;
    a.x[i] = fminf(fmaxf(a.x[i] * a.factor[i / a.length], -3.402823466e38f), 3.402823466e38f);
}

// sums[view] = the sum of x[view][..]; one block a view.
struct Sum {
    const float* x;
    float* sums;
    int64_t length;
};
KERNEL(sum, Sum, a) {
    __shared__ float space[32];
    float part = 0.0f;
    for (int64_t i = threadIdx.x; i < a.length; i += blockDim.x) part += a.x[blockIdx.x * a.length + i];
    part = block_sum(part, space);
    if (threadIdx.x == 0) a.sums[blockIdx.x] = part;
}
