// Kernels with the faults that the mirror is there to find; only its own test runs them.
#include "kernel.cuh"

struct Values {
    float* x;
    int64_t length;
};

// Each thread takes its neighbour's value from shared memory, without waiting for it to be there.
KERNEL(no_barrier, Values, a) {
    SHARED(float, space);
    int64_t i = thread_index();
    space[threadIdx.x] = a.x[i];
    a.x[i] = space[(threadIdx.x + 1) % blockDim.x];
}

KERNEL(with_barrier, Values, a) {
    SHARED(float, space);
    int64_t i = thread_index();
    space[threadIdx.x] = a.x[i];
    __syncthreads();
    a.x[i] = space[(threadIdx.x + 1) % blockDim.x];
}

// Each block reads what the block before it may not have written yet.
KERNEL(across_blocks, Values, a) {
    int64_t i = thread_index();
    a.x[i] = i >= blockDim.x ? a.x[i - blockDim.x] + 1.0f : 0.0f;
}

KERNEL(beyond_the_end, Values, a) {
    if (thread_index() == 0) a.x[a.length] = 0.0f;
}

// Half of the threads wait for the block, the others for their warp.
KERNEL(different_barriers, Values, a) {
    if (threadIdx.x % 2) __syncthreads();
    else __syncwarp();
}
