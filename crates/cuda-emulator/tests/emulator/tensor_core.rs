//! A pipelined matrix product on tensor cores: right under every schedule, and its seeded bugs are found.

use super::common::*;

/// c [M, N] = a [M, K] b [N, K]ᵀ in bf16 with f32 sums: a block makes 32 × 32 of it with four warps, and K comes in
/// slices of 16 through a ring of three buffers that cp.async fills. `WAIT`, `BARRIER` and `SWIZZLE` are what the
/// seeded bugs change.
const MATMUL: &str = r#"
#include "ptx.cuh"

__device__ int offset(int row, int chunk) { return row * 16 + (SWIZZLE ? chunk ^ row / 4 % 2 : chunk) * 8; }

__device__ void load_slice(unsigned short* to, const unsigned short* from, int row0, int rows, int k0, int K) {
    int row = threadIdx.x / 2 % 32, chunk = threadIdx.x % 2;
    bool inside = row0 + row < rows;
    cp_async_16(to + offset(row, chunk), inside ? from + (row0 + row) * K + k0 + 8 * chunk : from, inside ? 16 : 0);
}

extern "C" __global__ void __launch_bounds__(128) matmul(
        const unsigned short* a, const unsigned short* b, float* c, int M, int N, int K) {
    constexpr int stages = 3, slice = 32 * 16;
    DYNAMIC_SHARED(unsigned short, shared);
    int warp = threadIdx.x / 32, lane = lane_id(), m0 = blockIdx.y * 32, n0 = blockIdx.x * 32;
    auto fetch = [&](int s) {
        unsigned short* buffer = shared + s % stages * 2 * slice;
        if (s * 16 < K) {
            if (threadIdx.x < 64) load_slice(buffer, a, m0, M, 16 * s, K);
            else load_slice(buffer + slice, b, n0, N, 16 * s, K);
        }
        cp_async_commit();
    };
    for (int s = 0; s < stages - 1; s++) fetch(s);
    float d[2][4] = {};
    for (int s = 0; s * 16 < K; s++) {
        cp_async_wait<WAIT>();
        if (BARRIER) __syncthreads();
        fetch(s + stages - 1);
        unsigned short* buffer = shared + s % stages * 2 * slice;
        unsigned fa[4], fb[4];
        ldmatrix_x4(fa, buffer + offset(warp / 2 * 16 + lane % 16, lane / 16));
        ldmatrix_x4(fb, buffer + slice + offset(warp % 2 * 16 + lane / 16 * 8 + lane % 8, lane / 8 % 2));
        mma_m16n8k16_bf16(d[0], fa, {fb[0], fb[1]});
        mma_m16n8k16_bf16(d[1], fa, {fb[2], fb[3]});
    }
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < 4; i++) {
            int row = m0 + warp / 2 * 16 + lane / 4 + i / 2 * 8;
            int column = n0 + warp % 2 * 16 + j * 8 + lane % 4 * 2 + i % 2;
            if (row < M && column < N) c[row * N + column] = d[j][i];
        }
}
"#;

#[derive(Clone, Copy)]
struct Variant {
    wait: u32,
    barrier: u32,
    swizzle: u32,
}
const RIGHT: Variant = Variant { wait: 1, barrier: 1, swizzle: 1 };

/// Small whole numbers, so that every sum is exact and the right result is known to the bit.
fn numbers(count: usize, step: usize) -> Vec<i32> {
    (0..count).map(|i| (i * step % 7) as i32 - 3).collect()
}

/// Is the kernel's result right under this schedule?
fn is_right(variant: Variant, schedule: &str) -> bool {
    let Variant { wait, barrier, swizzle } = variant;
    let text = format!("#define WAIT {wait}\n#define BARRIER {barrier}\n#define SWIZZLE {swizzle}\n{MATMUL}");
    let matmul = kernel(&text, "matmul");
    let (m, n, k) = (50usize, 70usize, 96usize);
    let (a, b) = (numbers(m * k, 5), numbers(n * k, 3));
    let bf16 = |x: &[i32]| -> Vec<u16> { x.iter().map(|&v| ((v as f32).to_bits() >> 16) as u16).collect() };
    let (pa, pb, pc) = (upload(&bf16(&a)), upload(&bf16(&b)), upload(&vec![0f32; m * n]));
    set_schedule(schedule);
    let (mi, ni, ki) = (m as i32, n as i32, k as i32);
    let mut arguments = [
        (&raw const pa).cast_mut().cast(),
        (&raw const pb).cast_mut().cast(),
        (&raw const pc).cast_mut().cast(),
        (&raw const mi).cast_mut().cast(),
        (&raw const ni).cast_mut().cast(),
        (&raw const ki).cast_mut().cast(),
    ];
    check(launch_on(std::ptr::null_mut(), matmul, [3, 2, 1], [128, 1, 1], 3 * 2 * 32 * 16 * 2, &mut arguments));
    let c = download::<f32>(pc, m * n);
    (0..m * n).all(|i| {
        let (row, column) = (i / n, i % n);
        c[i] == (0..k).map(|j| a[row * k + j] * b[column * k + j]).sum::<i32>() as f32
    })
}

fn bank_conflicts() -> usize {
    emulator_function::<extern "C" fn() -> usize>("emulator_count_bank_conflicts")()
}

emulated! {
    fn a_pipelined_product_is_right_under_every_schedule() {
        init();
        for schedule in ["", "1", "2", "3", "lazy"] {
            assert!(is_right(RIGHT, schedule), "schedule {schedule:?}");
        }
        assert_eq!(bank_conflicts(), 0);
    }

    fn a_wait_that_is_too_shallow_is_found() {
        init();
        let bug = Variant { wait: 2, ..RIGHT };
        assert!(is_right(bug, ""), "eager copies hide it");
        for schedule in ["1", "2", "3", "lazy"] {
            assert!(!is_right(bug, schedule), "schedule {schedule:?}");
        }
    }

    fn a_missing_barrier_is_found() {
        init();
        for schedule in ["", "1", "2", "3", "lazy"] {
            assert!(!is_right(Variant { barrier: 0, ..RIGHT }, schedule), "schedule {schedule:?}");
        }
    }

    fn a_missing_swizzle_is_counted() {
        init();
        assert!(is_right(Variant { swizzle: 0, ..RIGHT }, ""));
        assert!(bank_conflicts() > 0);
    }

    fn a_misplaced_row_is_reported() {
        init();
        let load = kernel(
            "#include \"ptx.cuh\"\n\
             extern \"C\" __global__ void load(unsigned* x, int global, int offset) {\n\
                 __shared__ unsigned short tile[80];\n\
                 unsigned r[1];\n\
                 ldmatrix_x1(r, global ? (unsigned short*)x : tile + offset);\n\
                 x[threadIdx.x] = r[0];\n\
             }",
            "load",
        );
        let x = upload(&[0u32; 64]);
        for (global, offset, text) in [(1i32, 0i32, "outside shared memory"), (0, 4, "not aligned")] {
            let report = error_text(launch!(load, 1, 32, 0; x, global, offset));
            assert!(report.contains(text) && report.ends_with("(test.cu:5)"), "{report}");
            forgive();
        }
        check(launch!(load, 1, 32, 0; x, 0i32, 8i32));
    }
}
