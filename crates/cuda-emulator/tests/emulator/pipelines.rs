//! Products of matrices that use all that Hopper has: operands come through a ring of buffers while others are multiplied. They are
//! right under every schedule, and bugs that are seeded in them are found.

use super::common::*;
use super::hopper::{SCHEDULES, tensor_map};
use cudarc::driver::sys::{self, CUdeviceptr};

/// c [M, N] = a [M, K] b [K, N] in bf16 with f32 sums: a block makes 64 × 64 of it, and K comes in slices of 64 through a ring
/// of three buffers. Two blocks of a cluster share the columns of b, and take turns in loading them for both. The capitals
/// are what the seeded bugs change.
const PRODUCT: &str = r#"
#include "hopper.cuh"

constexpr int STAGES = 3, PANEL = 64 * 64;

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(256, 1) product(
        const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, float* c, int M, int N, int K) {
    DYNAMIC_SHARED(unsigned short, ring);
    Mbarrier *full = (Mbarrier*)(ring + STAGES * 2 * PANEL), *empty = full + STAGES;
    int row = blockIdx.x * 64, column = blockIdx.y * 64;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) mbarrier_init(&full[stage], 1), mbarrier_init(&empty[stage], 8);
        if (FENCE) fence_mbarrier_init();
    }
    cluster_arrive();
    cluster_wait();
    if (threadIdx.x == 0) {
        for (int s = 0; s * 64 < K; s++) {
            int stage = s % STAGES, k = s * 64;
            unsigned short *to_a = ring + stage * 2 * PANEL, *to_b = to_a + PANEL;
            mbarrier_wait(&empty[stage], s / STAGES % 2 ^ 1);
            mbarrier_arrive_expect_tx(&full[stage], 2 * PANEL * 2);
            tma_load_2d(to_a, &a, &full[stage], A_ALONG_K ? k : row, A_ALONG_K ? row : k);
            if (s % 2 == cluster_rank())
                tma_load_4d_multicast(to_b, &b, &full[stage], 3, B_ALONG_K ? k : column, B_ALONG_K ? column : k, 0, 0);
        }
    } else if (threadIdx.x >= 128) {
        int warp = threadIdx.x / 32 % 4, lane = lane_id();
        float d[32];
        unsigned f[4][4];
        auto release = [&](int stage) { if (lane < ARRIVE) mbarrier_arrive_cluster(&empty[stage], lane); };
        for (int s = 0; s * 64 < K; s++) {
            int stage = s % STAGES;
            unsigned short* panel = ring + stage * 2 * PANEL;
            if (WAIT_FULL) mbarrier_wait(&full[stage], s / STAGES % 2);
            unsigned long long at_a = matrix_descriptor(panel, 1024, 8192), at_b = matrix_descriptor(panel + PANEL, 1024, 8192);
            if (WGMMA_FENCE) wgmma_fence();
            for (int k = 0; k < 64; k += 16) {
                unsigned long long this_b = advance(at_b, B_ALONG_K ? 2 * k : 128 * k);
                if (A_IN_REGISTERS) {
                    int line = warp * 16 + lane % 16;
                    ldmatrix_x4(f[k / 16], panel + line * 64 + (k / 8 + lane / 16 ^ line % 8) * 8);
                    wgmma_m64n64k16_bf16<!B_ALONG_K>(d, f[k / 16], this_b, s + k > 0);
                } else {
                    unsigned long long this_a = advance(at_a, A_ALONG_K ? 2 * k : 128 * k);
                    wgmma_m64n64k16_bf16<!A_ALONG_K, !B_ALONG_K>(d, this_a, this_b, s + k > 0);
                }
            }
            wgmma_commit();
            wgmma_wait<WAIT>();
            if (WAIT == 0) release(stage);
            else if (s > 0) release((s - 1) % STAGES);
        }
        if (WAIT_LAST) wgmma_wait<0>();
        for (int i = 0; i < 32; i++) {
            int y = row + warp * 16 + lane / 4 + i / 2 % 2 * 8, x = column + i / 4 * 8 + lane % 4 * 2 + i % 2;
            if (y < M && x < N) c[y * N + x] = d[i];
        }
    }
    cluster_arrive();
    cluster_wait();
}
"#;

/// What is defined for the product, `SWIZZLE` apart, which is the maps'.
#[derive(Clone, Copy)]
struct Variant {
    a_along_k: bool,
    b_along_k: bool,
    a_in_registers: bool,
    /// Groups of products that may be unfinished when a buffer is given back.
    wait: u32,
    wait_last: bool,
    wait_full: bool,
    /// Blocks that are told of it.
    arrive: u32,
    fence: bool,
    wgmma_fence: bool,
    swizzle: bool,
}
const RIGHT: Variant = Variant {
    a_along_k: true,
    b_along_k: true,
    a_in_registers: false,
    wait: 1,
    wait_last: true,
    wait_full: true,
    arrive: 2,
    fence: true,
    wgmma_fence: true,
    swizzle: true,
};

impl Variant {
    fn source(self) -> String {
        let flags = [
            ("A_ALONG_K", self.a_along_k as u32),
            ("B_ALONG_K", self.b_along_k as u32),
            ("A_IN_REGISTERS", self.a_in_registers as u32),
            ("WAIT", self.wait),
            ("WAIT_LAST", self.wait_last as u32),
            ("WAIT_FULL", self.wait_full as u32),
            ("ARRIVE", self.arrive),
            ("FENCE", self.fence as u32),
            ("WGMMA_FENCE", self.wgmma_fence as u32),
        ];
        flags.iter().map(|(name, value)| format!("#define {name} {value}\n")).collect::<String>() + PRODUCT
    }
}

/// Small whole numbers, so that every sum is exact and the right result is known to the bit.
fn numbers(count: usize, step: usize) -> Vec<i32> {
    (0..count).map(|i| (i * step % 7) as i32 - 3).collect()
}

/// On the card: `lines` of `length` numbers at multiples of 16 bytes; between them are NaNs.
fn upload_lines(lines: usize, length: usize, number: impl Fn(usize, usize) -> i32) -> CUdeviceptr {
    let pitch = length.next_multiple_of(8);
    let mut bits = vec![0xffffu16; lines * pitch];
    for (line, at) in (0..lines).flat_map(|line| (0..length).map(move |at| (line, at))) {
        bits[line * pitch + at] = ((number(line, at) as f32).to_bits() >> 16) as u16;
    }
    upload(&bits)
}

/// Launches blocks of 256 threads with so much shared memory; an error is the emulator's report.
fn launch_reporting(
    function: sys::CUfunction,
    grid: [u32; 3],
    shared: u32,
    arguments: &mut [*mut std::ffi::c_void],
) -> Result<(), String> {
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the function is loaded.
    check(unsafe { sys::cuFuncSetAttribute(function, attribute, shared as i32) });
    let code = launch_on(std::ptr::null_mut(), function, grid, [256, 1, 1], shared, arguments);
    if code == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let report = error_text(code);
    forgive();
    Err(report)
}

/// Is the kernel's result right under this schedule? An error is the emulator's report.
fn is_right(variant: Variant, schedule: &str) -> Result<bool, String> {
    let product = kernel(&variant.source(), "product");
    let (m, n, k) = (100usize, 72usize, 456usize);
    let (a, b) = (numbers(m * k, 5), numbers(n * k, 3));
    // The lines of an operand, and their length.
    let lines = |along_k: bool, rows: usize| if along_k { (rows, k) } else { (k, rows) };
    let map = |x: &[i32], along_k: bool, rows: usize, rank: usize| {
        let (count, length) = lines(along_k, rows);
        let address = upload_lines(count, length, |line, at| if along_k { x[line * k + at] } else { x[at * k + line] });
        let dims = [length as u64, count as u64, 1, 1];
        tensor_map(address, &dims[..rank], &[64, 64, 1, 1][..rank], if variant.swizzle { 3 } else { 0 })
    };
    let (map_a, map_b) = (map(&a, variant.a_along_k, m, 2), map(&b, variant.b_along_k, n, 4));
    let c = upload(&vec![0f32; m * n]);
    set_schedule(schedule);
    let (mi, ni, ki) = (m as i32, n as i32, k as i32);
    let mut arguments = [
        (&raw const map_a).cast_mut().cast(),
        (&raw const map_b).cast_mut().cast(),
        (&raw const c).cast_mut().cast(),
        (&raw const mi).cast_mut().cast(),
        (&raw const ni).cast_mut().cast(),
        (&raw const ki).cast_mut().cast(),
    ];
    launch_reporting(product, [2, 2, 1], 3 * 2 * 64 * 64 * 2 + 48, &mut arguments)?;
    let c = download::<f32>(c, m * n);
    Ok((0..m * n).all(|i| {
        let (row, column) = (i / n, i % n);
        c[i] == (0..k).map(|j| a[row * k + j] * b[column * k + j]).sum::<i32>() as f32
    }))
}

/// o = (q kᵀ) v of 64 rows of 64 numbers and tiles of so many keys and values, the scores rounded between the products, as
/// attention pipelines it: a tile's scores are made together with the products of the tile before, which come from registers,
/// and tiles of both come through one ring. The capitals are seeded bugs.
const CHAIN: &str = r#"
#include "hopper.cuh"

constexpr int PLACES = 3, PANEL = 64 * 64;

extern "C" __global__ void __launch_bounds__(256, 1) chain(
        const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v,
        float* o, int tiles) {
    DYNAMIC_SHARED(unsigned short, queries);
    unsigned short* ring = queries + PANEL;
    Mbarrier *there = (Mbarrier*)(ring + PLACES * PANEL), *full = there + 1, *empty = full + PLACES;
    if (threadIdx.x == 0) {
        mbarrier_init(there, 1);
        for (int place = 0; place < PLACES; place++) mbarrier_init(&full[place], 1), mbarrier_init(&empty[place], 4);
        fence_mbarrier_init();
    }
    __syncthreads();
    int turn = 0, warp = threadIdx.x / 32 % 4, lane = lane_id();
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect_tx(there, 2 * PANEL);
        tma_load_2d(queries, &q, there, 0, 0);
        auto load = [&](const TensorMap* rows, int tile) {
            int place = turn % PLACES;
            mbarrier_wait(&empty[place], turn++ / PLACES % 2 ^ 1);
            mbarrier_arrive_expect_tx(&full[place], 2 * PANEL);
            tma_load_2d(ring + place * PANEL, rows, &full[place], 0, 64 * tile);
        };
        for (int tile = 0; tile <= tiles; tile++) {
            if (tile < tiles) load(&k, tile);
            if (tile > 0) load(&v, tile - 1);
        }
    } else if (threadIdx.x >= 128) {
        float s[32], d[32];
        unsigned p[4][4];
        auto next = [&] {
            int place = turn % PLACES;
            mbarrier_wait(&full[place], turn++ / PLACES % 2);
            return place;
        };
        auto release = [&](int place) { if (lane == 0) mbarrier_arrive(&empty[place]); };
        auto scores = [&](int place) {
            unsigned long long a = matrix_descriptor(queries, 1024, 8192), b = matrix_descriptor(ring + place * PANEL, 1024, 8192);
            for (int i = 0; i < 4; i++) wgmma_m64n64k16_bf16<0, 0>(s, advance(a, 32 * i), advance(b, 32 * i), i > 0);
            wgmma_commit();
        };
        auto answers = [&](int place, bool accumulate) {
            unsigned long long b = matrix_descriptor(ring + place * PANEL, 1024, 8192);
            for (int i = 0; i < 4; i++) wgmma_m64n64k16_bf16<1>(d, p[i], advance(b, 2048 * i), accumulate || i > 0);
            wgmma_commit();
        };
        auto round = [&] {
            for (int i = 0; i < 16; i++) p[i / 4][i % 4] = pack_bf16x2_rn(s[2 * i], s[2 * i + 1]);
        };
        mbarrier_wait(there, 0);
        int keys = next();
        wgmma_fence();
        scores(keys);
        wgmma_wait<0>();
        release(keys);
        round();
        for (int tile = 1; tile < tiles; tile++) {
            keys = next();
            int values = next();
            wgmma_fence();
            scores(keys);
            answers(values, tile > 1);
            wgmma_wait<1>();
            release(keys);
            if (RELEASE_EARLY) release(values);
            if (ROUND_EARLY) round();
            __syncwarp();
            wgmma_wait<0>();
            if (!RELEASE_EARLY) release(values);
            if (!ROUND_EARLY) round();
        }
        wgmma_fence();
        answers(next(), tiles > 1);
        wgmma_wait<0>();
        for (int i = 0; i < 32; i++)
            o[(warp * 16 + lane / 4 + i / 2 % 2 * 8) * 64 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
    }
}
"#;

/// Is the chain's result right under this schedule, with these bugs? An error is the emulator's report.
fn chain_is_right(release_early: bool, round_early: bool, schedule: &str) -> Result<bool, String> {
    const TILES: usize = 5;
    const KEYS: usize = 64 * TILES;
    let bugs = [("RELEASE_EARLY", release_early), ("ROUND_EARLY", round_early)];
    let defines: String = bugs.map(|(name, there)| format!("#define {name} {}\n", there as u32)).concat();
    let chain = kernel(&(defines + CHAIN), "chain");
    // Scores that bf16 has exactly.
    let [q, k, v] = [(64, 5), (KEYS, 3), (KEYS, 2)].map(|(rows, step)| numbers(rows * 64, step));
    let q: Vec<i32> = q.iter().map(|x| x.signum()).collect();
    let k: Vec<i32> = k.iter().map(|x| x.signum()).collect();
    let maps = [&q, &k, &v].map(|x| {
        let rows = x.len() / 64;
        tensor_map(upload_lines(rows, 64, |line, at| x[line * 64 + at]), &[64, rows as u64], &[64, 64], 3)
    });
    let o = upload(&vec![0f32; 64 * 64]);
    set_schedule(schedule);
    let tiles = TILES as i32;
    let [map_q, map_k, map_v] = maps.each_ref().map(|map| (&raw const *map).cast_mut().cast());
    let mut arguments = [map_q, map_k, map_v, (&raw const o).cast_mut().cast(), (&raw const tiles).cast_mut().cast()];
    launch_reporting(chain, [1, 1, 1], 4 * 64 * 64 * 2 + 7 * 8, &mut arguments)?;
    let o = download::<f32>(o, 64 * 64);
    let score = |i: usize, j: usize| (0..64).map(|d| q[i * 64 + d] * k[j * 64 + d]).sum::<i32>();
    Ok((0..64).all(|i| {
        let scores: Vec<i32> = (0..KEYS).map(|j| score(i, j)).collect();
        (0..64).all(|d| o[i * 64 + d] == (0..KEYS).map(|j| scores[j] * v[j * 64 + d]).sum::<i32>() as f32)
    }))
}

/// Does the bug hide when all is done in order, and is it found under some other schedule?
#[track_caller]
fn is_found(is_right: impl Fn(&str) -> Result<bool, String>) {
    assert_eq!(is_right(""), Ok(true), "in order it hides");
    let results = SCHEDULES.map(is_right);
    assert!(results.iter().filter(|result| **result != Ok(true)).count() >= 2, "{results:?}");
}

#[track_caller]
fn is_reported(bug: Variant, schedule: &str, text: &str) {
    let report = is_right(bug, schedule).expect_err("a report");
    assert!(report.contains(text), "{report}");
}

emulated! {
    fn a_product_on_hopper_is_right_under_every_schedule() {
        init();
        for (a_along_k, b_along_k) in [(true, true), (true, false), (false, true), (false, false)] {
            for schedule in SCHEDULES {
                let variant = Variant { a_along_k, b_along_k, ..RIGHT };
                assert_eq!(is_right(variant, schedule), Ok(true), "schedule {schedule:?}: {a_along_k} {b_along_k}");
            }
        }
        // Registers are filled while products with others of them are under way.
        let variant = Variant { a_in_registers: true, wait: 0, ..RIGHT };
        SCHEDULES.iter().for_each(|schedule| assert_eq!(is_right(variant, schedule), Ok(true)));
    }

    fn registers_that_change_while_they_are_multiplied_are_found() {
        init();
        let bug = Variant { a_in_registers: true, ..RIGHT };
        is_found(|schedule| is_right(bug, schedule));
        is_reported(bug, "lazy", "registers of a left operand");
    }

    fn a_wait_for_products_that_is_too_shallow_is_found() {
        init();
        is_found(|schedule| is_right(Variant { wait: 2, ..RIGHT }, schedule));
    }

    fn sums_that_are_read_before_they_are_there_are_found() {
        init();
        is_found(|schedule| is_right(Variant { wait_last: false, ..RIGHT }, schedule));
    }

    fn a_missing_wait_for_a_full_buffer_is_found() {
        init();
        is_found(|schedule| is_right(Variant { wait_full: false, ..RIGHT }, schedule));
    }

    fn products_of_products_are_right_under_every_schedule() {
        init();
        for schedule in SCHEDULES {
            assert_eq!(chain_is_right(false, false, schedule), Ok(true), "schedule {schedule:?}");
        }
    }

    fn a_tile_that_is_given_back_before_it_is_multiplied_is_found() {
        init();
        is_found(|schedule| chain_is_right(true, false, schedule));
    }

    fn weights_that_are_rounded_while_others_are_multiplied_are_found() {
        init();
        is_found(|schedule| chain_is_right(false, true, schedule));
        let report = chain_is_right(false, true, "lazy").expect_err("a report");
        assert!(report.contains("registers of a left operand"), "{report}");
    }

    fn a_missing_swizzle_makes_a_wrong_product() {
        init();
        assert_eq!(is_right(Variant { swizzle: false, ..RIGHT }, ""), Ok(false));
    }

    fn a_buffer_that_is_never_given_back_is_a_deadlock() {
        init();
        for schedule in SCHEDULES {
            // Both blocks tell the first one only.
            is_reported(Variant { arrive: 1, ..RIGHT }, schedule, "waits at mbarrier.try_wait");
        }
    }

    fn missing_fences_are_reported() {
        init();
        is_reported(Variant { fence: false, ..RIGHT }, "", "fence.mbarrier_init is missing");
        is_reported(Variant { wgmma_fence: false, ..RIGHT }, "", "without wgmma.fence");
    }
}
