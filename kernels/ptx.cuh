// Every PTX instruction that the kernels use and CUDA C++ has no word for: one function each, named after the
// instruction. Needs sm_80 or later. The emulator compiles kernels with a header of the same name and functions.
//
// Fragments of the matrix instructions are spread over a warp's lanes; g = lane / 4 and t = lane % 4 throughout.
#pragma once

// The block's dynamic shared memory as `type* name`, aligned to 1024 bytes as swizzled tiles need.
#define DYNAMIC_SHARED(type, name)                                            \
    extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];  \
    type* name = reinterpret_cast<type*>(dynamic_shared_memory)

// The address of a shared variable as instructions take it.
__device__ __forceinline__ unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

// The lane of this thread in its warp.
__device__ __forceinline__ unsigned lane_id() {
    unsigned lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

// ---- asynchronous copies from global to shared memory -------------------------------------------------------------

// Copies the first `bytes` of 4, 8 or 16 bytes and fills the rest with zeros; with `bytes` = 0 nothing is read. Both
// addresses are aligned to the size. The data may be used after cp_async_wait and, by other threads, a barrier.
__device__ __forceinline__ void cp_async_4(void* to_shared, const void* from_global, int bytes = 4) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 :: "r"(shared_address(to_shared)), "l"(from_global), "r"(bytes) : "memory");
}
__device__ __forceinline__ void cp_async_8(void* to_shared, const void* from_global, int bytes = 8) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;"
                 :: "r"(shared_address(to_shared)), "l"(from_global), "r"(bytes) : "memory");
}
// Past L1, which a tile that lands in shared memory would only pollute.
__device__ __forceinline__ void cp_async_16(void* to_shared, const void* from_global, int bytes = 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 :: "r"(shared_address(to_shared)), "l"(from_global), "r"(bytes) : "memory");
}

// Closes the group of this thread's copies since the last one.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `groups_left` of this thread's latest groups are unfinished.
template <int groups_left>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" :: "n"(groups_left) : "memory");
}

// Waits for all of this thread's copies, in groups or not.
__device__ __forceinline__ void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// ---- matrix fragments ---------------------------------------------------------------------------------------------

// Loads 8×8 matrices of 16-bit numbers from shared memory: lane i gives the address of row i % 8 of matrix i / 8 (16
// bytes, aligned), and receives of each matrix the numbers (g, 2t) and (g, 2t+1); transposed, (2t, g) and (2t+1, g).
__device__ __forceinline__ void ldmatrix_x1(unsigned (&r)[1], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(r[0]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(unsigned (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x1_trans(unsigned (&r)[1], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(r[0]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(unsigned (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// ---- matrix products on tensor cores: d += a b --------------------------------------------------------------------

// d [16, 8] f32: d0 d1 at (g, 2t) (g, 2t+1), d2 d3 at (g+8, 2t) (g+8, 2t+1).
// a [16, 16], pairs along k: a0 at (g, 2t), a1 at (g+8, 2t), a2 at (g, 2t+8), a3 at (g+8, 2t+8).
// b [16, 8], pairs along k: b0 at (2t, g), b1 at (2t+8, g).
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// a [16, 8] tf32: a0 at (g, t), a1 at (g+8, t), a2 at (g, t+4), a3 at (g+8, t+4); b [8, 8]: b0 at (t, g), b1 at
// (t+4, g); d as above.
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// d [16, 8] i32, as above; a [16, 32] i8, four along k: a0 at (g, 4t), a1 at (g+8, 4t), a2 at (g, 4t+16), a3 at (g+8, 4t+16);
// b [32, 8]: b0 at (4t, g), b1 at (4t+16, g). Sums wrap.
__device__ __forceinline__ void mma_m16n8k32_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// d [8, 8]: d0 d1 at (g, 2t) (g, 2t+1); a [8, 4] at (g, t); b [4, 8] at (t, g).
__device__ __forceinline__ void mma_m8n8k4_f64(double (&d)[2], double a, double b) {
    asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
            : "+d"(d[0]), "+d"(d[1]) : "d"(a), "d"(b));
}

// ---- conversions --------------------------------------------------------------------------------------------------

// Rounded to tf32, ties away from zero, as the bits that mma_m16n8k8_tf32 takes.
__device__ __forceinline__ unsigned f32_to_tf32(float x) {
    unsigned r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
}
__device__ __forceinline__ float f16_to_f32(unsigned short x) {
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x));
    return r;
}
__device__ __forceinline__ unsigned short f32_to_f16_rn(float x) {
    unsigned short r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
    return r;
}
__device__ __forceinline__ unsigned short f32_to_bf16_rn(float x) {
    unsigned short r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
    return r;
}
// Two numbers in one register, `low` in the lower half, which is the first in memory.
__device__ __forceinline__ unsigned pack_bf16x2_rn(float low, float high) {
    unsigned r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
__device__ __forceinline__ unsigned pack_f16x2_rn(float low, float high) {
    unsigned r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

// ---- the special function unit ------------------------------------------------------------------------------------

// 2^x to 2 ulp; subnormal results are zero.
__device__ __forceinline__ float ex2_approx(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
__device__ __forceinline__ float lg2_approx(float x) {
    float r;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
__device__ __forceinline__ float rcp_approx(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
// tanh(x) with an error of 2^-11: enough for 16-bit results only.
__device__ __forceinline__ float tanh_approx(float x) {
    float r;
    asm("tanh.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// ---- global memory ------------------------------------------------------------------------------------------------

// 16 bytes that no thread writes during the kernel and that are read once: they take no room in L1.
__device__ __forceinline__ uint4 ld_streaming(const uint4* p) {
    uint4 r;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "l"(p));
    return r;
}
__device__ __forceinline__ float4 ld_streaming(const float4* p) {
    float4 r;
    asm volatile("ld.global.nc.L1::no_allocate.v4.f32 {%0, %1, %2, %3}, [%4];"
                  : "=f"(r.x), "=f"(r.y), "=f"(r.z), "=f"(r.w) : "l"(p));
    return r;
}
// 16 bytes that are not read again soon: the first to leave the caches.
__device__ __forceinline__ void st_streaming(uint4* p, uint4 v) {
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};"
                 :: "l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
__device__ __forceinline__ void st_streaming(float4* p, float4 v) {
    asm volatile("st.global.cs.v4.f32 [%0], {%1, %2, %3, %4};"
                 :: "l"(p), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
}

// *p += v without the old value. The wide forms are one instruction on sm_90 and are not atomic as a whole.
__device__ __forceinline__ void red_add_f32(float* p, float v) {
    asm volatile("red.global.add.f32 [%0], %1;" :: "l"(p), "f"(v) : "memory");
}
__device__ __forceinline__ void red_add_f32x4(float4* p, float4 v) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};"
                 :: "l"(p), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
#else
    red_add_f32(&p->x, v.x);
    red_add_f32(&p->y, v.y);
    red_add_f32(&p->z, v.z);
    red_add_f32(&p->w, v.w);
#endif
}
#if __CUDA_ARCH__ >= 900
// Two bf16 at once, each sum rounded to nearest.
__device__ __forceinline__ void red_add_bf16x2(unsigned* p, unsigned v) {
    asm volatile("red.global.add.noftz.bf16x2 [%0], %1;" :: "l"(p), "r"(v) : "memory");
}
#endif

// A flag between blocks: what was written before the release is seen after an acquire that reads its value. A loop
// that waits for a flag reads it with ld_acquire.
__device__ __forceinline__ unsigned ld_acquire(const unsigned* p) {
    unsigned r;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(r) : "l"(p) : "memory");
    return r;
}
__device__ __forceinline__ void st_release(unsigned* p, unsigned v) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" :: "l"(p), "r"(v) : "memory");
}
__device__ __forceinline__ void red_release_add(unsigned* p, unsigned v) {
    asm volatile("red.release.gpu.global.add.u32 [%0], %1;" :: "l"(p), "r"(v) : "memory");
}

// ---- registers ----------------------------------------------------------------------------------------------------

// The compiler no longer knows what x is: what it has computed from x it computes again, and so need not keep.
__device__ __forceinline__ void forget(int& x) { asm volatile("" : "+r"(x)); }
__device__ __forceinline__ void forget(unsigned& x) { asm volatile("" : "+r"(x)); }

// ---- barriers among some warps of a block -------------------------------------------------------------------------

// Barrier `id` (1…15; 0 is __syncthreads) for `threads` threads in all, a multiple of 32: waits for them …
__device__ __forceinline__ void bar_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" :: "r"(id), "r"(threads) : "memory");
}
// … or only tells them.
__device__ __forceinline__ void bar_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" :: "r"(id), "r"(threads) : "memory");
}
