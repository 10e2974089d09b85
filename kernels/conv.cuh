// A convolution as a matrix product that is never written down (implicit GEMM): per group of channels,
//
//     Y [O, P] = W [O, K] · X̂ [K, P],
//
// with a column of X̂ for each pixel p = (n, i, j) of the output and a row for each k = (c, a, b), a tap of the kernel in an input
// channel. X̂ is found in the image when a tile of it is copied to shared memory:
//
//     X̂[(c, a, b), (n, i, j)] = x[n, c, i·step + a·tap + shift, j·step + b·tap + shift],    0 outside of the image.
//
// The gradient of the image is a convolution too, or several (crates/cuda/src/ops/conv.rs); that of the weight is dW = dY · X̂ᵀ.
#pragma once
#include "matmul.cuh"

// Division by a number that the host knows, of numbers below 2³¹, without a division: ⌊n / d⌋ = ⌊(⌊n·m / 2³²⌋ + n) / 2ˢ⌋ (T. Granlund,
// P. Montgomery 1994).
struct Divisor {
    u32 d, m, s;
    __device__ __forceinline__ u32 quotient(u32 n) const { return (__umulhi(n, m) + n) >> s; }
};

// Where a tensor [N, C, H, W] has its elements: how far it is to the next along each dimension.
struct Image { i64 image, channel, row, column; };

// X̂, but for the order of K: `crates/cuda/src/ops/conv.rs` fills it in. Of two numbers, the first is the vertical one.
struct Patches {
    // The image, and its extents.
    Image x;
    i32 size[2];
    i32 step[2], tap[2], shift[2];
    // Of a group.
    i32 channels;
    // Pixels of an output plane, and of one of its rows; taps of the kernel, and of one of its rows; channels of a group with the
    // zeros behind them, where channels are last.
    Divisor plane, width, taps, kernel_width, depth;
};

// A pixel of the output: its image, and where in the image its tap (0, 0) lies.
struct Window {
    u32 n;
    i32 top, left;

    __device__ __forceinline__ Window() {}
    // Who has no pixel looks outside of every image.
    __device__ __forceinline__ Window(const Patches& p, u32 pixel, bool there) {
        pixel = there ? pixel : 0;
        n = p.plane.quotient(pixel);
        u32 in_plane = pixel - n * p.plane.d, i = p.width.quotient(in_plane), j = in_plane - i * p.width.d;
        top = there ? (i32)i * p.step[0] + p.shift[0] : -(1 << 30);
        left = (i32)j * p.step[1] + p.shift[1];
    }
};

// A tap, as it lies in every window.
struct Tap {
    i32 down, right;

    __device__ __forceinline__ Tap() {}
    __device__ __forceinline__ Tap(i32 down, i32 right) : down(down), right(right) {}
    __device__ __forceinline__ Tap(const Patches& p, u32 tap) {
        u32 a = p.kernel_width.quotient(tap);
        down = (i32)a * p.tap[0];
        right = (i32)(tap - a * p.kernel_width.d) * p.tap[1];
    }
};

// What a window sees at a tap: is it inside of the image, and how far is it from the first element of the channel?
struct Seen {
    bool inside;
    i64 offset;

    __device__ __forceinline__ Seen(const Patches& p, const Window& window, const Tap& tap) {
        i32 u = window.top + tap.down, v = window.left + tap.right;
        inside = (u32)u < (u32)p.size[0] && (u32)v < (u32)p.size[1];
        offset = inside ? u * p.x.row + v * p.x.column : 0;
    }
};

// Where pixel `pixel` of the output lies in Y, for channel 0.
__device__ __forceinline__ i64 place_of(const Image& y, const Divisor& plane, const Divisor& width, u32 pixel) {
    u32 n = plane.quotient(pixel), in_plane = pixel - n * plane.d, i = width.quotient(in_plane);
    return n * y.image + i * y.row + (in_plane - i * width.d) * y.column;
}
