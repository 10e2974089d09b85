// Philox 4×32-10 (J. K. Salmon et al. 2011), laid out as in `crates/tensor/src/cpu/random.rs`: the same numbers on every device.
#pragma once
#include "types.cuh"

struct Words { u32 at[4]; };

// Stream `offset` under `seed`. In a graph, the seed of a replay and its first stream are at `live`, and `offset` counts from there.
struct RandomStream {
    u64 seed, offset;
    const u64* live;

    // The one that is meant now.
    __device__ __forceinline__ RandomStream now() const {
        return live ? RandomStream{live[0], live[1] + offset, nullptr} : *this;
    }
};

// The four words of block `block` of a stream.
__device__ __forceinline__ Words philox(const RandomStream& stream, u64 block) {
    u32 k0 = (u32)stream.seed, k1 = (u32)(stream.seed >> 32);
    u32 c0 = (u32)block, c1 = (u32)(block >> 32), c2 = (u32)stream.offset, c3 = (u32)(stream.offset >> 32);
    for (int round = 0; round < 10; round++) {
        u64 a = (u64)c0 * 0xd2511f53u, b = (u64)c2 * 0xcd9e8d57u;
        c0 = (u32)(b >> 32) ^ c1 ^ k0;
        c1 = (u32)b;
        c2 = (u32)(a >> 32) ^ c3 ^ k1;
        c3 = (u32)a;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return Words{{c0, c1, c2, c3}};
}

__device__ __forceinline__ u64 pair_of(const Words& w, int i) { return (u64)w.at[2 * i] | (u64)w.at[2 * i + 1] << 32; }
