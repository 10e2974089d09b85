//! What only Hopper has: the copy engine, barriers in shared memory, clusters.

use super::common::*;
use cudarc::driver::sys::{self, CUdeviceptr, CUtensorMap};

pub const SCHEDULES: [&str; 5] = ["", "1", "2", "3", "lazy"];

/// A tensor of 16-bit numbers, the contiguous dimension first, and boxes of it; `swizzle` is 0 or the power of 2 over 16 bytes.
pub fn tensor_map(address: CUdeviceptr, dims: &[u64], boxes: &[u32], swizzle: usize) -> CUtensorMap {
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
