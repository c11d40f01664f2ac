// Pools and their adjoints, one number written a thread. Adjoints gather: a number of the input sums the windows that
// cover it, in their order, so nothing is added from two sides.
#include "dialect.cuh"

// The number that a thread writes.
struct Element {
    int copy, y, x, c;
    bool there;

    DEVICE Element(const int (&extent)[2], int channels) {
        const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
        copy = blockIdx.y;
        c = (int)(i % channels);
        const i64 pixel = i / channels;
        x = (int)(pixel % extent[1]);
        y = (int)(pixel / extent[1]);
        there = y < extent[0];
    }
};

DEVICE int index_of(const PoolArgs& a, const int (&extent)[2], int y, int x, int c) {
    return (y * extent[1] + x) * a.channels + c;
}

// Position of a tap of a window; may lie outside.
DEVICE int under(const PoolArgs& a, int axis, int window, int tap) {
    return window * a.stride[axis] + tap * a.dilation[axis] - a.pad[axis];
}

DEVICE bool inside(const PoolArgs& a, int axis, int at) { return (u32)at < (u32)a.extent[axis]; }

DEVICE int winner(const PoolArgs& a, const u8* from, i64 at) {
    return a.width == 1 ? from[at] : ((const u16*)from)[at];
}

DEVICE void set_winner(const PoolArgs& a, i64 at, int tap) {
    if (a.width == 1) {
        a.winners[at] = (u8)tap;
    } else {
        ((u16*)a.winners)[at] = (u16)tap;
    }
}

// Where a copy's winners begin, counted in winners.
DEVICE i64 winners_of(const PoolArgs& a, int stride_bytes, int copy) { return (i64)copy * stride_bytes / a.width; }

KERNEL(max_pool, 128, 8, PoolArgs) {
    const Element e(a.out_extent, a.channels);
    if (!e.there) return;
    const float* x = a.x + (i64)e.copy * a.x_stride;
    float best = 0.0f;
    int won = 0;
    bool fresh = true;
    for (int i = 0; i < a.kernel[0]; ++i) {
        const int row = under(a, 0, e.y, i);
        if (!inside(a, 0, row)) continue;
        for (int j = 0; j < a.kernel[1]; ++j) {
            const int column = under(a, 1, e.x, j);
            if (!inside(a, 1, column)) continue;
            const float v = x[index_of(a, a.extent, row, column, e.c)];
            // The first of equals; a NaN wins and stays.
            if (fresh || (!(v <= best) && best == best)) {
                best = v;
                won = i * a.kernel[1] + j;
            }
            fresh = false;
        }
    }
    const int at = index_of(a, a.out_extent, e.y, e.x, e.c);
    a.out[(i64)e.copy * a.out_stride + at] = best;
    if (a.winners) set_winner(a, winners_of(a, a.winners_stride, e.copy) + at, won);
}

// The number under a tap of a window; false where it lies outside.
DEVICE bool number(const PoolArgs& a, const Element& e, int tap, float& v) {
    const int row = under(a, 0, e.y, tap / a.kernel[1]), column = under(a, 1, e.x, tap % a.kernel[1]);
    if (tap / a.kernel[1] >= a.kernel[0] || !inside(a, 0, row) || !inside(a, 1, column)) return false;
    v = a.x[(i64)e.copy * a.x_stride + index_of(a, a.extent, row, column, e.c)];
    return true;
}

KERNEL(prefer_winners, 128, 8, PoolArgs) {
    const Element e(a.out_extent, a.channels);
    if (!e.there) return;
    const int at = index_of(a, a.out_extent, e.y, e.x, e.c);
    const int own = winner(a, a.won, winners_of(a, a.won_stride, e.copy) + at);
    const int preferred = winner(a, a.preferred, winners_of(a, a.preferred_stride, e.copy) + at);
    float v = 0.0f, w = 0.0f;
    const bool tied = number(a, e, own, v) && number(a, e, preferred, w) && v == w;
    set_winner(a, winners_of(a, a.winners_stride, e.copy) + at, tied ? preferred : own);
}

// Windows that cover a position: from `first` on while the offset is not negative.
struct Covering {
    int window, windows, at, stride, dilation, taps;

    DEVICE Covering(const PoolArgs& a, int axis, int position) {
        stride = a.stride[axis];
        dilation = a.dilation[axis];
        taps = a.kernel[axis];
        windows = a.out_extent[axis];
        at = position + a.pad[axis];
        const int reach = (taps - 1) * dilation;
        window = at > reach ? (at - reach + stride - 1) / stride : 0;
    }

    DEVICE bool more() const { return window < windows && window * stride <= at; }
    // The tap through which the window sees the position, or -1.
    DEVICE int tap() const {
        const int offset = at - window * stride;
        return offset % dilation == 0 && offset / dilation < taps ? offset / dilation : -1;
    }
    DEVICE void next() { ++window; }
};

KERNEL(max_pool_adjoint, 128, 8, PoolArgs) {
    const Element e(a.extent, a.channels);
    if (!e.there) return;
    const float* s = a.x + (i64)e.copy * a.x_stride;
    const i64 won = winners_of(a, a.won_stride, e.copy);
    float sum = 0.0f;
    for (Covering row(a, 0, e.y); row.more(); row.next()) {
        const int i = row.tap();
        if (i < 0) continue;
        for (Covering column(a, 1, e.x); column.more(); column.next()) {
            const int j = column.tap();
            if (j < 0) continue;
            const int at = index_of(a, a.out_extent, row.window, column.window, e.c);
            if (winner(a, a.won, won + at) == i * a.kernel[1] + j) sum += s[at];
        }
    }
    a.out[(i64)e.copy * a.out_stride + index_of(a, a.extent, e.y, e.x, e.c)] = sum;
}

// Elements of a window along an axis: those inside, or those that are not beyond the padding.
DEVICE int elements(const PoolArgs& a, int axis, int window) {
    int n = 0;
    const int end = a.extent[axis] + (a.count_padding ? a.pad_after[axis] : 0);
    for (int i = 0; i < a.kernel[axis]; ++i) {
        const int at = under(a, axis, window, i);
        n += at < end && (a.count_padding || at >= 0);
    }
    return n;
}

DEVICE float share(const PoolArgs& a, int y, int x) {
    return (float)(1.0 / (double)(elements(a, 0, y) * elements(a, 1, x)));
}

KERNEL(avg_pool, 128, 8, PoolArgs) {
    const Element e(a.out_extent, a.channels);
    if (!e.there) return;
    const float* x = a.x + (i64)e.copy * a.x_stride;
    float sum = 0.0f;
    for (int i = 0; i < a.kernel[0]; ++i) {
        const int row = under(a, 0, e.y, i);
        if (!inside(a, 0, row)) continue;
        for (int j = 0; j < a.kernel[1]; ++j) {
            const int column = under(a, 1, e.x, j);
            if (inside(a, 1, column)) sum += x[index_of(a, a.extent, row, column, e.c)];
        }
    }
    a.out[(i64)e.copy * a.out_stride + index_of(a, a.out_extent, e.y, e.x, e.c)] = sum * share(a, e.y, e.x);
}

KERNEL(avg_pool_adjoint, 128, 8, PoolArgs) {
    const Element e(a.extent, a.channels);
    if (!e.there) return;
    const float* s = a.x + (i64)e.copy * a.x_stride;
    float sum = 0.0f;
    for (Covering row(a, 0, e.y); row.more(); row.next()) {
        if (row.tap() < 0) continue;
        for (Covering column(a, 1, e.x); column.more(); column.next()) {
            if (column.tap() < 0) continue;
            sum += s[index_of(a, a.out_extent, row.window, column.window, e.c)] * share(a, row.window, column.window);
        }
    }
    a.out[(i64)e.copy * a.out_stride + index_of(a, a.extent, e.y, e.x, e.c)] = sum;
}

// Bin `i` of `out` over `size` elements.
DEVICE int bin_start(int i, int size, int out) { return (int)((i64)i * size / out); }
DEVICE int bin_end(int i, int size, int out) { return (int)(((i64)(i + 1) * size + out - 1) / out); }

DEVICE float bin_share(const PoolArgs& a, int y, int x) {
    const int rows = bin_end(y, a.extent[0], a.out_extent[0]) - bin_start(y, a.extent[0], a.out_extent[0]);
    const int columns = bin_end(x, a.extent[1], a.out_extent[1]) - bin_start(x, a.extent[1], a.out_extent[1]);
    return (float)(1.0 / (double)(rows * columns));
}

KERNEL(adaptive_avg_pool, 128, 8, PoolArgs) {
    const Element e(a.out_extent, a.channels);
    if (!e.there) return;
    const float* x = a.x + (i64)e.copy * a.x_stride;
    float sum = 0.0f;
    const int rows = bin_end(e.y, a.extent[0], a.out_extent[0]), columns = bin_end(e.x, a.extent[1], a.out_extent[1]);
    for (int row = bin_start(e.y, a.extent[0], a.out_extent[0]); row < rows; ++row) {
        for (int column = bin_start(e.x, a.extent[1], a.out_extent[1]); column < columns; ++column) {
            sum += x[index_of(a, a.extent, row, column, e.c)];
        }
    }
    a.out[(i64)e.copy * a.out_stride + index_of(a, a.out_extent, e.y, e.x, e.c)] = sum * bin_share(a, e.y, e.x);
}

KERNEL(adaptive_avg_pool_adjoint, 128, 8, PoolArgs) {
    const Element e(a.extent, a.channels);
    if (!e.there) return;
    const float* s = a.x + (i64)e.copy * a.x_stride;
    float sum = 0.0f;
    // Bins overlap by one element at most, so those of a position follow one another.
    for (int y = 0; y < a.out_extent[0]; ++y) {
        if (e.y < bin_start(y, a.extent[0], a.out_extent[0]) || e.y >= bin_end(y, a.extent[0], a.out_extent[0])) continue;
        for (int x = 0; x < a.out_extent[1]; ++x) {
            if (e.x < bin_start(x, a.extent[1], a.out_extent[1]) || e.x >= bin_end(x, a.extent[1], a.out_extent[1])) continue;
            sum += s[index_of(a, a.out_extent, y, x, e.c)] * bin_share(a, y, x);
        }
    }
    a.out[(i64)e.copy * a.out_stride + index_of(a, a.extent, e.y, e.x, e.c)] = sum;
}

// Weighted sums over rows, and of these over columns; one number a thread.
KERNEL(resample, 128, 8, ResampleArgs) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.channels * a.extent[0] * a.extent[1]) return;
    const int c = i % a.channels, pixel = i / a.channels, row = pixel / a.extent[1], column = pixel % a.extent[1];
    const float* x = a.x + (i64)blockIdx.y * a.x_stride + c;
    const float *rows = a.rows + a.extent[0] + 1, *columns = a.columns + a.extent[1] + 1;
    float sum = 0.0f;
    for (int r = (int)a.rows[row]; r < (int)a.rows[row + 1]; ++r) {
        float along = 0.0f;
        for (int k = (int)a.columns[column]; k < (int)a.columns[column + 1]; ++k) {
            const int at = (int)rows[2 * r] * a.from_columns + (int)columns[2 * k];
            along = fmaf(columns[2 * k + 1], x[(i64)at * a.channels], along);
        }
        sum = fmaf(rows[2 * r + 1], along, sum);
    }
    a.out[(i64)blockIdx.y * a.out_stride + i] = sum;
}
