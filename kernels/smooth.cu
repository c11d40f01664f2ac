// Activations and their slopes, element by element: the text of src/graph/activation.rs, operation by operation.
#include "dialect.cuh"

#include "functions.cuh"

// The function's value and its slope, with the parameters p, q and r.
#define SMOOTH(name, value)                                                      \
    KERNEL(name, 128, 8, PointwiseArgs) {                                        \
        const int i = blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y;       \
        if (i >= a.count) return;                                                \
        const float x = a.x[(i64)n * a.x_stride + i];                            \
        const float p = (float)a.p[0], q = (float)a.p[1], r = (float)a.p[2];       \
        (void)p, (void)q, (void)r;                                               \
        a.out[(i64)n * a.out_stride + i] = (value);                              \
    }

// A clamp between `low` and `high` (either may be infinite) with corners of sharpness `beta`.
DEVICE float soft(float x, float low, float high, float beta) {
    const float risen = isfinite(low) ? low + own_softplus(x - low, beta) : x;
    return isfinite(high) ? risen - own_softplus(x - high, beta) : risen;
}

DEVICE float soft_slope(float x, float low, float high, float beta) {
    float low_rest = 0.0f, high_rest = 1.0f;
    const float rising = isfinite(low) ? own_sigmoids(beta * (x - low), low_rest) : 1.0f;
    const float falling = isfinite(high) ? own_sigmoids(beta * (x - high), high_rest) : 0.0f;
    // Above the upper end both are nearly 1: what they lack is subtracted.
    return falling > low_rest ? high_rest - low_rest : rising - falling;
}

DEVICE float silu_slope_at(float x) {
    float rest;
    const float s = own_sigmoids(x, rest);
    return s * (1.0f + x * rest);
}

DEVICE float hard_sigmoid_at(float x) { return clamped(x + 3.0f, 0.0f, 6.0f) / 6.0f; }

DEVICE float hard_swish_slope_at(float x) {
    const float rising = x > -3.0f ? x / 3.0f + 0.5f : 0.0f;
    return x < 3.0f ? rising : 1.0f;
}

DEVICE float normal_at(float x) {
    float bell;
    return own_normal(x, bell);
}

DEVICE float gelu_slope_at(float x) {
    float bell;
    const float below = own_normal(x, bell);
    return below + x * (0.3989422804014327f * bell);
}

#define GELU_SCALE 1.5957691216057308
#define GELU_CUBE 0.044715

// (1 + tanh u) / 2 is the sigmoid of this, 2u.
DEVICE float gelu_twice(float x) { return (float)GELU_SCALE * (x + (float)GELU_CUBE * (x * x * x)); }

DEVICE float gelu_tanh_slope_at(float x) {
    x = clamped(x, -40.0f, 40.0f);
    const float inner = (float)GELU_SCALE * (1.0f + (float)(3.0 * GELU_CUBE) * (x * x));
    return own_sigmoid(gelu_twice(x)) + x * (inner * own_sigmoid_slope(gelu_twice(x)));
}

DEVICE float power_at(float x, double p) {
    if (p == 1.0) return x;
    if (p == 2.0) return x * x;
    if (p == 3.0) return x * x * x;
    if (p == -1.0) return 1.0f / x;
    if (p == 0.5) return sqrtf(x);
    if (p == -0.5) return 1.0f / sqrtf(x);
    if (p == 0.25) return sqrtf(sqrtf(x));
    if (p == 0.75) return sqrtf(x) * sqrtf(sqrtf(x));
    return own_power(x, p);
}

DEVICE float power_slope_at(float x, double p) {
    if (p > 0.0 && p < 1.0 && x == 0.0f) return x;
    if (p == 1.0) return 1.0f;
    if (p == 2.0) return x + x;
    if (p == 3.0) return 3.0f * (x * x);
    if (p == -1.0) return -1.0f / x / x;
    if (p == 0.5) return 0.5f / sqrtf(x);
    if (p == -0.5) return -0.5f / x / sqrtf(x);
    if (p == 0.25) return 0.25f / (sqrtf(x) * sqrtf(sqrtf(x)));
    if (p == 0.75) return 0.75f / sqrtf(sqrtf(x));
    return (float)p * own_power(x, p - 1.0);
}

SMOOTH(soft_clamp, soft(x, p, q, r))
SMOOTH(soft_clamp_slope, soft_slope(x, p, q, r))
SMOOTH(sigmoid, own_sigmoid(x))
SMOOTH(sigmoid_slope, own_sigmoid_slope(x))
SMOOTH(silu, x * own_sigmoid(x))
SMOOTH(silu_slope, silu_slope_at(x))
SMOOTH(hard_sigmoid, hard_sigmoid_at(x))
SMOOTH(hard_sigmoid_slope, x > -3.0f && x < 3.0f ? 1.0f / 6.0f : 0.0f)
SMOOTH(hard_swish, x * hard_sigmoid_at(x))
SMOOTH(hard_swish_slope, hard_swish_slope_at(x))
SMOOTH(hyperbolic_tangent, own_tanh(x))
SMOOTH(tanh_slope, 4.0f * own_sigmoid_slope(x + x))
SMOOTH(gelu, x * normal_at(x))
SMOOTH(gelu_slope, gelu_slope_at(x))
SMOOTH(gelu_tanh, x * own_sigmoid(gelu_twice(x)))
SMOOTH(gelu_tanh_slope, gelu_tanh_slope_at(x))
SMOOTH(leaky_relu, x > 0.0f ? x : p * x)
SMOOTH(leaky_relu_slope, x > 0.0f ? 1.0f : p)
SMOOTH(elu, x > 0.0f ? x : p * own_expm1(x))
SMOOTH(elu_slope, x > 0.0f ? 1.0f : p * own_exp(x))
SMOOTH(softplus, p * x > q ? x : own_softplus(x, p))
SMOOTH(softplus_slope, p * x > q ? 1.0f : own_sigmoid(p * x))
SMOOTH(exponential, own_exp(x))
SMOOTH(exp_slope, own_exp(x))
SMOOTH(logarithm, own_log(x))
SMOOTH(log_slope, 1.0f / x)
SMOOTH(absolute, x > 0.0f ? x : 0.0f - x)
SMOOTH(abs_slope, x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f)
SMOOTH(power, power_at(x, a.p[0]))
SMOOTH(power_slope, power_slope_at(x, a.p[0]))
