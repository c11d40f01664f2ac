// Exponential, logarithm, powers, hyperbolic tangent and normal distribution: the text of src/tensor/functions.rs, operation by
// operation, so that results have the same bits as on the CPU. No function of CUDA's library is called.
#pragma once

DEVICE float number_in(u32 v) { return float_of(v); }
DEVICE double number_in(u64 v) { return double_of(v); }

// A number's layout and the constants of its polynomials.
template <class T> struct Elementary;

template <> struct Elementary<float> {
    typedef u32 Bits;
    static constexpr int mantissa = 23;
    static constexpr u32 bias = 127, root_of_half = 0x3f3504f3u, lower = 0xfffu;
    static constexpr float whole = 12582912.0f, ln_2 = 0.6933594f, ln_2_rest = -2.1219444e-4f, exp_low = -104.0f,
                           exp_high = 89.0f, normal_end = 14.5f, tiny = 1.17549435e-38f, lift = 33554432.0f,
                           lift_exponent = 25.0f;
};

template <> struct Elementary<double> {
    typedef u64 Bits;
    static constexpr int mantissa = 52;
    static constexpr u64 bias = 1023, root_of_half = 0x3fe6a09e667f3bcdull, lower = 0x7ffffffull;
    static constexpr double whole = 6755399441055744.0, ln_2 = 0.6931471803691238, ln_2_rest = 1.9082149292705877e-10,
                            exp_low = -746.0, exp_high = 710.0, normal_end = 38.7, tiny = 2.2250738585072014e-308,
                            lift = 18014398509481984.0, lift_exponent = 54.0;
};

// c + x (d + x (...)).
template <class T> DEVICE T polynomial(T, T c) { return c; }
template <class T, class... More> DEVICE T polynomial(T x, T c, More... more) { return polynomial(x, more...) * x + c; }

DEVICE float exp_polynomial(float r) {
    return polynomial(r, 5.0e-01f, 1.6666667e-01f, 4.1666464e-02f, 8.3333108e-03f, 1.3933751e-03f, 1.9891103e-04f);
}
DEVICE double exp_polynomial(double r) {
    return polynomial(r, 5.0e-01, 1.666666666666667e-01, 4.166666666666667e-02, 8.33333333332607e-03, 1.3888888888883703e-03, 1.9841269875048905e-04, 2.480158732571076e-05, 2.755725511097889e-06, 2.755727343657049e-07, 2.510533724466521e-08, 2.091477283224809e-09);
}
DEVICE float log_polynomial(float z) {
    return polynomial(z, 6.6666685e-01f, 3.998876e-01f, 2.9580986e-01f);
}
DEVICE double log_polynomial(double z) {
    return polynomial(z, 6.66666666666667e-01, 3.999999999989889e-01, 2.8571428626253836e-01, 2.2222211089379496e-01, 1.818289243253687e-01, 1.5331611722055008e-01, 1.4617807153417325e-01);
}
DEVICE float normal_polynomial(float t) {
    return polynomial(t, 1.8882128e-01f, 1.5197415e-01f, 9.678417e-02f, 4.663075e-02f, 1.5101617e-02f, 1.88180323e-03f, -8.808935e-04f, -3.9232841e-04f, 4.870046e-05f, 3.074579e-05f);
}
DEVICE double normal_polynomial(double t) {
    return polynomial(t, 1.8882128260393788e-01, 1.5197416049297302e-01, 9.678435018555363e-02, 4.66304644899143e-02, 1.509914372273405e-02, 1.8850472416821929e-03, -8.699230918468313e-04, -4.077046144052744e-04, 3.333607808958295e-05, 5.777373386435065e-05, -4.770645707838708e-07, -8.786171892533634e-06, 1.7916653979101183e-07, 1.480044560419998e-06, -1.5742450075770581e-07, -2.553909553803136e-07, 6.79526276275889e-08, 3.874404775589417e-08, -2.1354712612921537e-08, -3.32173485639176e-09, 4.9071383668087435e-09, -4.795527311181672e-10, -6.312946754417929e-10, 1.8180346310882533e-10);
}

template <class T> DEVICE T power_of_two(T n) {
    typedef Elementary<T> E;
    return number_in((bits_of(n + E::whole) + E::bias) << E::mantissa);
}

// The number without the lower half of its bits.
template <class T> DEVICE T upper(T x) { return number_in(bits_of(x) & ~Elementary<T>::lower); }

template <class T> DEVICE T magnitude(T x) { return x < T(0) ? T(0) - x : x; }

template <class T> DEVICE T clamped(T x, T low, T high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

template <class T> DEVICE T whole_number(T x) { return (x + Elementary<T>::whole) - Elementary<T>::whole; }

// e^r - 1, and n in place of `n`, with x + rest = n ln 2 + r.
template <class T> DEVICE T reduced(T x, T rest, T& n) {
    n = whole_number(x * T(1.4426950408889634));
    const T r = (x - n * Elementary<T>::ln_2) - (n * Elementary<T>::ln_2_rest - rest);
    return r + r * r * exp_polynomial(r);
}

// 2^n y, rounded once.
template <class T> DEVICE T scaled(T y, T n) {
    const T half = whole_number(n * T(0.5));
    return y * power_of_two(half) * power_of_two(n - half);
}

template <class T> DEVICE T exp_of_sum(T x, T rest) {
    T n;
    const T grown = reduced(clamped(x, Elementary<T>::exp_low, Elementary<T>::exp_high), rest, n);
    return scaled(T(1) + grown, n);
}

template <class T> DEVICE T own_exp(T x) { return exp_of_sum(x, T(0)); }

template <class T> DEVICE T own_expm1(T x) {
    T n;
    const T grown = reduced(clamped(x, T(-60), Elementary<T>::exp_high), T(0), n);
    const T one = power_of_two(T(0) - (n > T(64) ? T(64) : n));
    return scaled(grown + (T(1) - one), n);
}

template <class T> DEVICE T log_of(T x, T rest) {
    typedef Elementary<T> E;
    const bool subnormal = x < E::tiny;
    const auto moved = bits_of(subnormal ? x * E::lift : x) + ((E::bias << E::mantissa) - E::root_of_half);
    typename E::Bits one = 1;
    T k = number_in(bits_of(E::whole) + (moved >> E::mantissa)) - (E::whole + T(E::bias));
    k = subnormal ? k - E::lift_exponent : k;
    const T f = number_in((moved & ((one << E::mantissa) - 1)) + E::root_of_half) - T(1);
    const T s = f / (f + T(2)), square = s * s, half = T(0.5) * f * f;
    const T more = s * (half + square * log_polynomial(square));
    T log = k * E::ln_2 - ((half - (more + (k * E::ln_2_rest + rest))) - f);
    const T infinity = T(1) / T(0);
    log = x < infinity ? log : x;
    log = x < T(0) ? infinity - infinity : log;
    return x == T(0) ? -infinity : log;
}

template <class T> DEVICE T own_log(T x) { return log_of(x, T(0)); }

template <class T> DEVICE T own_log1p(T x) {
    const T sum = T(1) + x, lost = x < T(1) ? x - (sum - T(1)) : T(1) - (sum - x);
    return log_of(sum, lost / sum);
}

template <class T> DEVICE T own_power(T x, double exponent) {
    typedef Elementary<T> E;
    typename E::Bits one = 1;
    const T high = upper((T)exponent), low = (T)(exponent - (double)high), a = magnitude(x) + T(0);
    const bool subnormal = a < E::tiny;
    const auto moved = bits_of(subnormal ? a * E::lift : a) + ((E::bias << E::mantissa) - E::root_of_half);
    T k = number_in(bits_of(E::whole) + (moved >> E::mantissa)) - (E::whole + T(E::bias));
    k = subnormal ? k - E::lift_exponent : k;
    const T m = number_in((moved & ((one << E::mantissa) - 1)) + E::root_of_half);
    const T n_of_power = high * k, n = whole_number(n_of_power), rest = (n_of_power - n) + low * k;
    T more;
    const T grown = reduced(rest * T(0.6931471805599453) + (high + low) * own_log(m), T(0), more);
    const T lowest = whole_number(E::exp_low * T(1.8)), highest = whole_number(E::exp_high * T(1.8));
    const T inside = scaled(T(1) + grown, clamped(n + more, lowest, highest));
    const T infinity = T(1) / T(0), at_the_ends = exponent > 0.0 ? a : T(1) / a;
    const T y = a > T(0) && a < infinity ? inside : at_the_ends;
    const T odd = 2.0 * whole_number(exponent * 0.5) == exponent ? y : T(0) - y;
    const T negative = whole_number(exponent) == exponent ? odd : infinity - infinity;
    return x < T(0) ? negative : y;
}

template <class T> DEVICE T own_tanh(T x) {
    const T t = own_expm1(magnitude(x) * T(-2));
    const T y = (T(0) - t) / (t + T(2));
    return x < T(0) ? T(0) - y : y;
}

// 1 / (1 + e^-x), exact to the last digits where it is small.
template <class T> DEVICE T own_sigmoid(T x) {
    const T e = own_exp(T(0) - magnitude(x));
    return (x < T(0) ? e : T(1)) / (T(1) + e);
}

// The sigmoid, and in place of `rest` what it lacks of 1.
template <class T> DEVICE T own_sigmoids(T x, T& rest) {
    const T e = own_exp(T(0) - magnitude(x));
    const T near = T(1) / (T(1) + e), far = e * near;
    rest = x < T(0) ? near : far;
    return x < T(0) ? far : near;
}

template <class T> DEVICE T own_sigmoid_slope(T x) {
    const T e = own_exp(T(0) - magnitude(x)), sum = T(1) + e;
    return e / (sum * sum);
}

// ln(1 + e^(beta x)) / beta.
template <class T> DEVICE T own_softplus(T x, T beta) {
    return (x < T(0) ? T(0) : x) + own_log1p(own_exp(T(0) - beta * magnitude(x))) / beta;
}

// P(Z <= x), exact to the last digits where it is small, and e^(-x^2/2) in place of `bell`.
template <class T> DEVICE T own_normal(T x, T& bell) {
    typedef Elementary<T> E;
    T a = magnitude(x);
    a = a > E::normal_end ? E::normal_end : a;
    const T square = a * a, high = upper(a), low = a - upper(a);
    const T lost = ((high * high - square) + (high * low + high * low)) + low * low;
    bell = exp_of_sum(square * T(-0.5), lost * T(-0.5));
    const T u = T(4) / (T(4) + a);
    const T t = T(1) - T(0.5) * a * u;
    const T tail = bell * (u * normal_polynomial(t));
    return x < T(0) ? tail : T(1) - tail;
}
