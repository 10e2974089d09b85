//! What only Hopper has: the copy engine, barriers in shared memory, matrix products of a warpgroup, clusters. A pipelined
//! product that uses them all is right under every schedule, and its seeded bugs are found.

use super::common::*;
use cudarc::driver::sys::{self, CUdeviceptr, CUtensorMap};

const SCHEDULES: [&str; 5] = ["", "1", "2", "3", "lazy"];

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

/// A tensor of 16-bit numbers, the contiguous dimension first, and boxes of it; `swizzle` is 0 or the power of 2 over 16 bytes.
fn tensor_map(address: CUdeviceptr, dims: &[u64], boxes: &[u32], swizzle: usize) -> CUtensorMap {
    use sys::CUtensorMapSwizzle::*;
    let kinds =
        [CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_SWIZZLE_32B, CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_SWIZZLE_128B];
    // Rows begin at multiples of 16 bytes.
    let row = dims[0].next_multiple_of(8) * 2;
    let strides: Vec<u64> = (1..dims.len()).map(|d| row * dims[1..d].iter().product::<u64>()).collect();
    let mut map = CUtensorMap { opaque: [0; 16] };
    // SAFETY: arrays of as many entries as the map has dimensions.
    check(unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            dims.len() as u32,
            address as *mut _,
            dims.as_ptr(),
            strides.as_ptr(),
            boxes.as_ptr(),
            [1; 5].as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            kinds[swizzle],
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    });
    map
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

/// Loads the box at (x, y, z), shows how it lies in shared memory, and stores it elsewhere.
const BOXES: &str = r#"
#include "hopper.cuh"

extern "C" __global__ void move(const __grid_constant__ TensorMap from, const __grid_constant__ TensorMap to,
                                unsigned short* seen, int count, int x, int y, int z, int wait) {
    DYNAMIC_SHARED(unsigned short, tile);
    __shared__ Mbarrier there;
    if (threadIdx.x == 0) mbarrier_init(&there, 1), fence_mbarrier_init();
    __syncthreads();
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect_tx(&there, 2 * count);
        tma_load_4d(tile, &from, &there, x, y, z, 0);
    }
    mbarrier_wait(&there, 0);
    for (int i = threadIdx.x; i < count; i += blockDim.x) seen[i] = tile[i];
    __syncthreads();
    if (threadIdx.x == 0) {
        tma_store_3d(&to, tile, x, y, z);
        bulk_commit();
        if (wait) bulk_wait_read<0>();
    }
}
"#;

/// Packs two numbers in each register, and stores a tile of 16 × 16 in which each row knows its number.
const TILES: &str = r#"
#include "hopper.cuh"

extern "C" __global__ void tiles(const __grid_constant__ TensorMap to, int fence) {
    __shared__ __align__(128) unsigned short tile[16 * 16];
    unsigned g = threadIdx.x / 4, t = threadIdx.x % 4, pair = (100 * g + 2 * t) | (100 * g + 2 * t + 1) << 16;
    unsigned r[4] = {pair, pair + 800 * 0x00010001, pair + 8 * 0x00010001, pair + 808 * 0x00010001};
    stmatrix_x4(tile + threadIdx.x % 16 * 16 + threadIdx.x / 16 * 8, r);
    if (fence) fence_proxy_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        tma_store_4d(&to, tile, 0, 0, 0, 0);
        bulk_commit();
        bulk_wait_read<0>();
    }
}
"#;

/// Each block loads a run, and when it is its turn stores it, or adds it to what was stored. What a block tells the next one is that its
/// own is there, which is so only once it has waited.
const TURNS: &str = r#"
#include "hopper.cuh"

extern "C" __global__ void take_turns(const float* from, float* to, unsigned* turn, int bytes, int wait) {
    DYNAMIC_SHARED(float, run);
    Mbarrier* there = (Mbarrier*)(run + 1024);
    if (threadIdx.x == 0) {
        mbarrier_init(there, 1);
        fence_mbarrier_init();
        mbarrier_arrive_expect_tx(there, bytes);
        bulk_load(run, from + blockIdx.x * 1024, bytes, there);
        mbarrier_wait(there, 0);
        while (ld_acquire(turn) != blockIdx.x) {}
        if (wait < 2) fence_proxy_async_global();
        if (blockIdx.x == 0) bulk_store(to, run, bytes);
        else bulk_add_f32(to, run, bytes);
        bulk_commit();
        if (wait) bulk_wait<0>();
        st_release(turn, blockIdx.x + 1);
        bulk_wait_read<0>();
    }
}
"#;

/// Each block of a cluster arrives at barriers of every block, and goes on when all have arrived at its own.
const CLUSTER: &str = r#"
#include "hopper.cuh"

extern "C" __global__ void meet(unsigned* ranks, int together) {
    __shared__ Mbarrier fixed;
    DYNAMIC_SHARED(Mbarrier, dynamic);
    if (threadIdx.x == 0) mbarrier_init(&fixed, 4), mbarrier_init(dynamic + 1, 4), fence_mbarrier_init();
    if (together) cluster_arrive(), cluster_wait();
    else __syncthreads();
    if (threadIdx.x < 4) mbarrier_arrive_cluster(&fixed, threadIdx.x), mbarrier_arrive_cluster(dynamic + 1, threadIdx.x);
    mbarrier_wait(&fixed, 0);
    mbarrier_wait(dynamic + 1, 0);
    if (threadIdx.x == 0) ranks[blockIdx.x] = cluster_rank();
    cluster_arrive();
    cluster_wait();
}
"#;

emulated! {
    fn boxes_are_swizzled_and_cut_off_at_the_edges() {
        init();
        let function = kernel(BOXES, "move");
        let dims = [20u64, 5, 3, 1];
        let pitch = 24;
        let values: Vec<u16> = (0..pitch * 5 * 3).map(|i| if i % pitch < 20 { i as u16 } else { 0xffff }).collect();
        for (swizzle, schedule) in (0..4).flat_map(|s| SCHEDULES.map(|schedule| (s, schedule))) {
            set_schedule(schedule);
            let width = if swizzle == 0 { 24 } else { 8 << swizzle };
            let boxes = [width as u32, 4, 2, 1];
            let (from, to) = (upload(&values), upload(&vec![7u16; values.len()]));
            let maps = [(from, 4), (to, 3)].map(|(at, rank)| tensor_map(at, &dims[..rank], &boxes[..rank], swizzle));
            let count = width * 8;
            let seen = upload(&vec![0u16; count]);
            // Beyond the end in all dimensions, and before the beginning of one.
            let at = [8i32, -1, 2];
            check(launch!(function, 1, 64, 4096; maps[0], maps[1], seen, count as i32, at[0], at[1], at[2], 1i32));
            let (seen, stored) = (download::<u16>(seen, count), download::<u16>(to, values.len()));
            let mut want = vec![7u16; values.len()];
            for i in 0..count {
                let [x, y, z] = [at[0] + (i % width) as i32, at[1] + (i / width % 4) as i32, at[2] + (i / width / 4) as i32];
                let inside = (0..20).contains(&x) && (0..5).contains(&y) && (0..3).contains(&z);
                let index = || (z as usize * 5 + y as usize) * pitch + x as usize;
                // Chunks of 16 bytes change places by the number of the 128 bytes that they lie in.
                let place = (2 * i) ^ ((((2 * i) >> 7) & ((1 << swizzle) - 1)) << 4);
                assert_eq!(seen[place / 2], if inside { values[index()] } else { 0 }, "swizzle {swizzle}, {x} {y} {z}");
                if inside {
                    want[index()] = values[index()];
                }
            }
            assert_eq!(stored, want, "swizzle {swizzle}, schedule {schedule:?}");
        }
    }

    fn shared_memory_that_is_left_before_it_is_read_is_found() {
        init();
        let function = kernel(BOXES, "move");
        let (from, to, seen) = (upload(&[0u16; 64]), upload(&[0u16; 64]), upload(&[0u16; 64]));
        let maps = [(from, 4), (to, 3)].map(|(at, rank)| tensor_map(at, &[8, 4, 2, 1][..rank], &[8, 4, 2, 1][..rank], 0));
        set_schedule("lazy");
        let report = error_text(launch!(function, 1, 32, 4096; maps[0], maps[1], seen, 64i32, 0i32, 0i32, 0i32, 0i32));
        assert!(report.contains("the copy engine may still read shared memory"), "{report}");
    }

    fn stored_matrices_lie_as_loaded_ones_and_need_a_fence() {
        init();
        let function = kernel(TILES, "tiles");
        let to = upload(&[0u16; 256]);
        let map = tensor_map(to, &[16, 16, 1, 1], &[16, 16, 1, 1], 0);
        check(launch!(function, 1, 32, 0; map, 1i32));
        let want: Vec<u16> = (0..256).map(|i| 100 * (i / 16) + i % 16).collect();
        assert_eq!(download::<u16>(to, 256), want);
        let report = error_text(launch!(function, 1, 32, 0; map, 0i32));
        assert!(report.contains("fence.proxy.async is missing"), "{report}");
    }

    fn runs_are_stored_and_added_when_somebody_waits_for_it() {
        init();
        let function = kernel(TURNS, "take_turns");
        let values: Vec<f32> = (0..3 * 1024).map(|i| i as f32).collect();
        let sums = |schedule: &str, count: usize, wait: i32| {
            set_schedule(schedule);
            let (from, to, turn) = (upload(&values), upload(&vec![-1f32; 1024]), upload(&[0u32]));
            check(cooperative!(function, 3, 32, 8192; from, to, turn, 4 * count as i32, wait));
            download::<f32>(to, 1024)
        };
        for (schedule, count) in SCHEDULES.into_iter().zip([4, 8, 100, 1000, 1024]) {
            let want = |i: usize| if i < count { 3.0 * i as f32 + 3.0 * 1024.0 } else { -1.0 };
            assert_eq!(sums(schedule, count, 1), (0..1024).map(want).collect::<Vec<_>>(), "schedule {schedule:?}");
        }
        assert_eq!(sums("", 4, 0)[1], 3.0 + 3.0 * 1024.0);
        // Who stores last has stored over what others have added.
        let wrong = ["1", "2", "3", "4", "5", "6", "7", "8"].iter().filter(|seed| sums(seed, 4, 0)[1] != 3.0 + 3.0 * 1024.0);
        assert!(wrong.count() > 0, "a missing wait is not found");
        let report = error_text(cooperative!(function, 1, 32, 8192; upload(&values), upload(&values), upload(&[0u32]), 24i32, 1i32));
        assert!(report.contains("no multiple of 16 bytes"), "{report}");
        forgive();
        let report = error_text(cooperative!(function, 1, 32, 8192; upload(&values), upload(&values), upload(&[0u32]), 16i32, 2i32));
        assert!(report.contains("fence.proxy.async.global is missing"), "{report}");
    }

    fn blocks_of_a_cluster_use_each_others_barriers() {
        init();
        let function = kernel(&CLUSTER.replace("void meet", "void __cluster_dims__(4, 1, 1) meet"), "meet");
        for schedule in SCHEDULES {
            set_schedule(schedule);
            let ranks = upload(&[9u32; 8]);
            check(launch!(function, 8, 64, 64; ranks, 1i32));
            assert_eq!(download::<u32>(ranks, 8), [0, 1, 2, 3, 0, 1, 2, 3], "schedule {schedule:?}");
        }
        let ranks = upload(&[9u32; 8]);
        // Five blocks are no whole number of clusters.
        assert_eq!(launch!(function, 5, 64, 64; ranks, 1i32), sys::CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE);
        // Without the cluster's barrier some block comes to a barrier that is not made yet.
        set_schedule("");
        let report = error_text(launch!(function, 8, 64, 64; ranks, 0i32));
        assert!(report.contains("no mbarrier.init was here"), "{report}");
        forgive();
        // Without a cluster there is no block but this.
        let alone = kernel(CLUSTER, "meet");
        let report = error_text(launch!(alone, 4, 64, 64; ranks, 1i32));
        assert!(report.contains("the cluster has no block 1"), "{report}");
    }
}
