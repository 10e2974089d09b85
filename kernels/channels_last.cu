// A copy of 16-bit numbers [N, C, H, W] with the channels last, [N, H, W, G, D]: those of each group side by side and zeros up to D, a
// multiple of 8, so that a pixel's channels are runs of whole 16 bytes. For conv_mma.cu.
//
// A transposition: a block reads 32 pixels of 32 channels, pixel by pixel, and writes them channel by channel, so that
// neighbouring threads always have neighbours in memory.
#include "layout.cuh"
#include "reduction.cuh"

constexpr u32 TILE = 32, THREADS = 256;

// `pixels`: of x, in channel 0. `channels` and `depth`: of a group, without and with the zeros.
extern "C" __global__ void __launch_bounds__(THREADS)
    channels_last(const u16* x, u16* y, Layout<1> pixels, i64 groups, i64 channels, i64 depth, i64 channel_stride) {
    // A line is an odd number of banks longer than its numbers: neither way do two lanes meet in one.
    __shared__ u16 tile[TILE][TILE + 2];
    u32 lane = threadIdx.x % TILE, first = threadIdx.x / TILE, strips = (u32)((depth + TILE - 1) / TILE);
    u32 strip = blockIdx.x % strips, group = blockIdx.x / strips % (u32)groups;
    i64 pixel = (i64)(blockIdx.x / strips / (u32)groups) * TILE, c = strip * TILE, at[1];
    pixels.find(pixel + lane < pixels.numel ? pixel + lane : 0, at);
    for (u32 i = first; i < TILE; i += THREADS / TILE) {
        bool there = c + i < channels && pixel + lane < pixels.numel;
        tile[i][lane] = there ? x[at[0] + (group * channels + c + i) * channel_stride] : 0;
    }
    __syncthreads();
    for (u32 i = first; i < TILE; i += THREADS / TILE)
        if (c + lane < depth && pixel + i < pixels.numel) y[((pixel + i) * groups + group) * depth + c + lane] = tile[lane][i];
}
