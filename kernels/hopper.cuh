// The instructions that Hopper has and no other card (sm_90a), one function each, as in `ptx.cuh`; only kernels for Hopper
// include this. The emulator compiles them with a header of the same name and functions.
//
// Three machines work beside the threads: the copy engine (TMA), which moves boxes of tensors between global and shared
// memory; the tensor cores, which multiply matrices that lie in shared memory (wgmma); and barriers in shared memory
// (mbarrier), by which threads and the copy engine tell each other that something is done.
#pragma once
#include "ptx.cuh"

#ifndef __CUDA_ARCH_FEAT_SM90_ALL
#error "a kernel for Hopper: compile it for sm_90a"
#endif

// ---- barriers in shared memory ------------------------------------------------------------------------------------

// Goes from phase to phase: a phase is over when as many have arrived as it was made for and all the bytes that were
// announced have come. Phases are told apart by their parity: the first is 0.
struct Mbarrier { unsigned long long state; };

__device__ __forceinline__ void mbarrier_init(Mbarrier* barrier, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// After the barriers of a block are made, and before anybody but this thread can use them: threads behind a barrier of the
// block (or the cluster), the copy engine, other blocks of the cluster.
__device__ __forceinline__ void fence_mbarrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ __forceinline__ void mbarrier_arrive(Mbarrier* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(shared_address(barrier)) : "memory");
}
// At the same barrier of another block of the cluster: who has read what that block writes. What this thread has written,
// the other block sees only behind the cluster's barrier: making it visible at each arrival would take long.
__device__ __forceinline__ void mbarrier_arrive_cluster(Mbarrier* barrier, unsigned rank) {
    asm volatile("{\n.reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}"
                 :: "r"(shared_address(barrier)), "r"(rank) : "memory");
}
// Arrives and announces bytes that the copy engine will bring in this phase.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(Mbarrier* barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :: "r"(shared_address(barrier)), "r"(bytes) : "memory");
}
// Waits until the phase of this parity is over; of a new barrier, the one before the first (parity 1) is.
__device__ __forceinline__ void mbarrier_wait(Mbarrier* barrier, unsigned parity) {
    asm volatile("{\n.reg .pred over;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
                 "@!over bra again;\n}"
                 :: "r"(shared_address(barrier)), "r"(parity) : "memory");
}

// ---- the copy engine ----------------------------------------------------------------------------------------------

// A tensor in global memory and the box of it that one instruction moves; made by cuTensorMapEncodeTiled, and passed as
// `const __grid_constant__ TensorMap`. Coordinates are in elements, that of the contiguous dimension first. What of a
// box lies outside the tensor is loaded as zeros and not stored.
struct alignas(64) TensorMap { unsigned long long opaque[16]; };

__device__ __forceinline__ void prefetch_tensor_map(const TensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" :: "l"(map) : "memory");
}

// Loads a box to shared memory, at a multiple of 128 bytes; its bytes count for the barrier's phase.
__device__ __forceinline__ void tma_load_2d(void* to, const TensorMap* map, Mbarrier* barrier, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                 :: "r"(shared_address(to)), "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y) : "memory");
}
__device__ __forceinline__ void tma_load_4d(void* to, const TensorMap* map, Mbarrier* barrier, int x, int y, int z, int w) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];"
                 :: "r"(shared_address(to)), "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}
// The same into each block of the cluster whose bit is set in `ranks`, at the same place there and for the same barrier.
__device__ __forceinline__ void tma_load_4d_multicast(
        void* to, const TensorMap* map, Mbarrier* barrier, unsigned short ranks, int x, int y, int z, int w) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%4, %5, %6, %7}], [%2], %3;"
                 :: "r"(shared_address(to)), "l"(map), "r"(shared_address(barrier)), "h"(ranks), "r"(x), "r"(y), "r"(z), "r"(w)
                 : "memory");
}

// What ordinary instructions of this thread wrote to shared memory is seen by the copy engine and the tensor cores: comes
// before the barrier behind which another thread calls them.
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Stores a box from shared memory.
__device__ __forceinline__ void tma_store_3d(const TensorMap* map, const void* from, int x, int y, int z) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];"
                 :: "l"(map), "r"(shared_address(from)), "r"(x), "r"(y), "r"(z) : "memory");
}
__device__ __forceinline__ void tma_store_4d(const TensorMap* map, const void* from, int x, int y, int z, int w) {
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];"
                 :: "l"(map), "r"(shared_address(from)), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}
// Closes the group of this thread's stores since the last one.
__device__ __forceinline__ void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Waits until at most `groups_left` of this thread's latest groups have not read their shared memory yet …
template <int groups_left> __device__ __forceinline__ void bulk_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" :: "n"(groups_left) : "memory");
}
// … or are not done.
template <int groups_left> __device__ __forceinline__ void bulk_wait() {
    asm volatile("cp.async.bulk.wait_group %0;" :: "n"(groups_left) : "memory");
}

// Without a map, a run of bytes: a multiple of 16, as are both addresses. Loads it; its bytes count for the barrier's phase.
__device__ __forceinline__ void bulk_load(void* to, const void* from, unsigned bytes, Mbarrier* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 :: "r"(shared_address(to)), "l"(from), "r"(bytes), "r"(shared_address(barrier)) : "memory");
}
// Stores it, in this thread's group; or adds each of its numbers to that in global memory.
__device__ __forceinline__ void bulk_store(void* to, const void* from, unsigned bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;"
                 :: "l"(to), "r"(shared_address(from)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void bulk_add_f32(float* to, const float* from, unsigned bytes) {
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;"
                 :: "l"(to), "r"(shared_address(from)), "r"(bytes) : "memory");
}
// What this thread knows of global memory (from an acquire) holds for what the copy engine does for it from here on.
__device__ __forceinline__ void fence_proxy_async_global() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

// ---- clusters: blocks that run at the same time and reach each other's shared memory ------------------------------

// This block's number in its cluster.
__device__ __forceinline__ unsigned cluster_rank() {
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
// A barrier among all threads of the cluster, in two halves.
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }

// ---- registers ----------------------------------------------------------------------------------------------------

// This warpgroup gives registers back, or waits for more: all its threads then have so many, a multiple of 8. Only in
// kernels whose __launch_bounds__ name threads and blocks.
template <int registers> __device__ __forceinline__ void setmaxnreg_dec() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(registers));
}
template <int registers> __device__ __forceinline__ void setmaxnreg_inc() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(registers));
}

// The reverse of ldmatrix_x4: stores 8×8 matrices of 16-bit numbers.
__device__ __forceinline__ void stmatrix_x4(void* row, const unsigned (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                 :: "r"(shared_address(row)), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
}

// ---- matrix products of a warpgroup: d += a b ---------------------------------------------------------------------

// How a matrix of 16-bit numbers lies in shared memory, as the tensor cores want to know it: as 128-byte lines of 64
// numbers, whose eight chunks of 16 bytes are swizzled, chunk c of line l lying where chunk c ^ l % 8 would; this is how a
// box of 64 numbers in a map with CU_TENSOR_MAP_SWIZZLE_128B comes. Eight lines, at a multiple of 1024 bytes, are a group.
// Of f32 there are half as many numbers in as many bytes, always along K.
//   Lines along K: each line is a row of A (a column of B). `group_bytes` from one group to the next; a product's 16 of K are
//   32 bytes of each line, so `start` moves by 32 bytes to the next 16. `panel_bytes` is not used.
//   Lines across K (TRANSPOSE = 1): each line is 64 rows of A (columns of B) at one place of K. `group_bytes` from one
//   group of eight places to the next; `panel_bytes` from 64 rows to the next 64.
__device__ __forceinline__ unsigned long long matrix_descriptor(const void* start, unsigned group_bytes, unsigned panel_bytes) {
    constexpr unsigned long long SWIZZLE_128B = 1ull << 62;
    return SWIZZLE_128B | (unsigned long long)(group_bytes >> 4) << 32 | (unsigned long long)(panel_bytes >> 4) << 16 |
           (shared_address(start) & 0x3ffff) >> 4;
}
// The descriptor of what lies `bytes` further on.
__device__ __forceinline__ unsigned long long advance(unsigned long long descriptor, unsigned bytes) {
    return descriptor + (bytes >> 4);
}

// Before the first product, and wherever other instructions have touched the registers of the next.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Closes the group of products since the last one.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `groups_left` of the latest groups are unfinished.
template <int groups_left> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(groups_left) : "memory");
}
// Keeps the compiler from moving other uses of the sums to the other side of a wait or a fence …
template <int N> __device__ __forceinline__ void wgmma_hold(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i]) :: "memory");
}
// … or from giving the registers of left operands to others before the wait.
template <int N> __device__ __forceinline__ void wgmma_hold(unsigned (&a)[N][4]) {
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) asm volatile("" : "+r"(a[i][j]) :: "memory");
}

#define REGISTERS_32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define REGISTERS_64 \
    REGISTERS_32 ", " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define REGISTERS_128 \
    REGISTERS_64 ", " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define FLOATS_8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), \
                    "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define FLOATS_32(i) FLOATS_8(i), FLOATS_8(i + 8), FLOATS_8(i + 16), FLOATS_8(i + 24)
#define FLOATS_64(i) FLOATS_32(i), FLOATS_32(i + 32)
#define FLOATS_128(i) FLOATS_64(i), FLOATS_64(i + 64)

// d [64, N] f32, 16 rows for each warp: d[4 j] and d[4 j + 1] at (g, 8 j + 2 t) and (g, 8 j + 2 t + 1), the next two 8 rows
// below. a [64, 16] and b [16, N] by descriptors; without `accumulate`, d = a b. In the second form a is in registers, pairs
// along k, in each warp as `mma_m16n8k16` has it. p0 … p6 number the operands behind d's `count` registers.
#define WGMMA(n, count, type, p0, p1, p2, p3, p4, p5, p6)                                                              \
    template <int TRANSPOSE_A, int TRANSPOSE_B>                                                                        \
    __device__ __forceinline__ void wgmma_m64n##n##k16_##type(                                                         \
            float (&d)[count], unsigned long long a, unsigned long long b, bool accumulate) {                          \
        asm volatile("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, " p2 ", 0;\n"                                 \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." #type "." #type " {" REGISTERS_##count "}, "    \
                     p0 ", " p1 ", accumulate, 1, 1, " p3 ", " p4 ";\n}"                                               \
                     : FLOATS_##count(0)                                                                               \
                     : "l"(a), "l"(b), "r"((int)accumulate), "n"(TRANSPOSE_A), "n"(TRANSPOSE_B));                      \
    }                                                                                                                  \
    template <int TRANSPOSE_B>                                                                                         \
    __device__ __forceinline__ void wgmma_m64n##n##k16_##type(                                                         \
            float (&d)[count], const unsigned (&a)[4], unsigned long long b, bool accumulate) {                        \
        asm volatile("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, " p5 ", 0;\n"                                 \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." #type "." #type " {" REGISTERS_##count "}, "    \
                     "{" p0 ", " p1 ", " p2 ", " p3 "}, " p4 ", accumulate, 1, 1, " p6 ";\n}"                          \
                     : FLOATS_##count(0)                                                                               \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)accumulate), "n"(TRANSPOSE_B));    \
    }
#define WGMMA_OF(type)                                                                     \
    WGMMA(64, 32, type, "%32", "%33", "%34", "%35", "%36", "%37", "%38")                   \
    WGMMA(128, 64, type, "%64", "%65", "%66", "%67", "%68", "%69", "%70")                  \
    WGMMA(256, 128, type, "%128", "%129", "%130", "%131", "%132", "%133", "%134")
WGMMA_OF(bf16)
WGMMA_OF(f16)
#undef WGMMA_OF
#undef WGMMA
// The same of f32, of which the tensor cores read what TF32 has: a [64, 8] and b [8, N], both along k.
#define WGMMA(n, count, p0, p1, p2)                                                                                    \
    __device__ __forceinline__ void wgmma_m64n##n##k8_tf32(                                                            \
            float (&d)[count], unsigned long long a, unsigned long long b, bool accumulate) {                          \
        asm volatile("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, " p2 ", 0;\n"                                 \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k8.f32.tf32.tf32 {" REGISTERS_##count "}, "               \
                     p0 ", " p1 ", accumulate, 1, 1;\n}"                                                               \
                     : FLOATS_##count(0)                                                                               \
                     : "l"(a), "l"(b), "r"((int)accumulate));                                                          \
    }
WGMMA(128, 64, "%64", "%65", "%66")
WGMMA(256, 128, "%128", "%129", "%130")
#undef WGMMA
