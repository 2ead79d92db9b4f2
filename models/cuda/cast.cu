// Copies of the parameters, rounded to bf16: four values a thread; 6 bytes a value.
#include "number.cuh"

namespace cast {

struct Cast {
    const float* from;
    bf16* to;
    int64_t length;
};
KERNEL(cast_bf16, Cast, a) {
    int64_t i = thread_index() * 4;
    if (i + 4 <= a.length) {
        float v[4];
        load(v, a.from + i);
        store(a.to + i, v);
        return;
    }
    for (; i < a.length; i++) a.to[i] = __float2bfloat16(a.from[i]);
}

}
