//! The stand-in driver and compiler, through the unmodified bindings that the CUDA backend uses.

use super::common::*;
use cudarc::driver::sys::{self, CUresult};

emulated! {
    fn vector_add() {
        init();
        let add = kernel(
            r#"extern "C" __global__ void __launch_bounds__(256) add(const float* a, const float* b, float* c, int n) {
                   int i = blockIdx.x * blockDim.x + threadIdx.x;
                   if (i < n) c[i] = a[i] + b[i];
               }"#,
            "add",
        );
        let n = 1000i32;
        let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let (x, y, z) = (upload(&a), upload(&a), upload(&vec![0f32; n as usize]));
        check(launch!(add, 4, 256, 0; x, y, z, n));
        assert_eq!(download::<f32>(z, n as usize), a.iter().map(|v| 2.0 * v).collect::<Vec<_>>());
        assert_eq!(launch!(add, 4, 512, 0; x, y, z, n), CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
    }

    fn a_reduction_with_shuffles_and_shared_memory() {
        init();
        let total = kernel(
            r#"extern "C" __global__ void total(const float* x, float* out, int n) {
                   __shared__ float partial[32];
                   float sum = 0.f;
                   for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
                   for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
                   if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
                   __syncthreads();
                   if (threadIdx.x < 32) {
                       sum = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.f;
                       for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_down_sync(0xffffffffu, sum, lanes);
                       if (threadIdx.x == 0) atomicAdd(out, sum);
                   }
               }"#,
            "total",
        );
        let n = 5000i32;
        let x = upload(&vec![1f32; n as usize]);
        for schedule in ["", "1", "2", "3", "lazy"] {
            set_schedule(schedule);
            let out = upload(&[0f32]);
            check(launch!(total, 3, 256, 0; x, out, n));
            assert_eq!(download::<f32>(out, 1), [5000.0]);
        }
    }

    fn kernels_are_found_however_they_are_written() {
        init();
        let module = load(
            r#"
            #define KERNEL(type) extern "C" __global__ void twice_##type(type* x) { x[threadIdx.x] *= 2; }
            KERNEL(float) KERNEL(int)
            // extern "C" __global__ void commented_out() {}
            extern "C" {
            __global__ void
            __launch_bounds__(32 * (1 + 1), 2) bounded(int* x) { x[threadIdx.x] = 1; }
            }
            template <int n> __global__ void templated(int* x) { x[0] = n; }
            __global__ void mangled(int* x) { x[0] = 1; }
            __device__ int counter;
            __constant__ float table[4] = {1, 2, 3, 4};
            extern "C" __global__ void count(float* x) { atomicAdd(&counter, 1); x[threadIdx.x] = table[threadIdx.x]; }
            "#,
        );
        let x = upload(&[3f32, 4.0]);
        check(launch!(function(module, "twice_float"), 1, 2, 0; x));
        assert_eq!(download::<f32>(x, 2), [6.0, 8.0]);
        let y = upload(&[3i32, 4]);
        check(launch!(function(module, "twice_int"), 1, 2, 0; y));
        assert_eq!(download::<i32>(y, 2), [6, 8]);
        check(launch!(function(module, "count"), 5, 2, 0; x));
        assert_eq!(download::<f32>(x, 2), [1.0, 2.0]);
        // SAFETY: plain calls with living pointers.
        unsafe {
            let mut found = std::ptr::null_mut();
            for name in [c"commented_out", c"templated", c"mangled", c"missing"] {
                let code = sys::cuModuleGetFunction(&mut found, module, name.as_ptr());
                assert_eq!(code, CUresult::CUDA_ERROR_NOT_FOUND, "{name:?}");
            }
            let mut threads = 0;
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
            check(sys::cuFuncGetAttribute(&mut threads, attribute, function(module, "bounded")));
            assert_eq!(threads, 64);
            let (mut address, mut bytes) = (0, 0);
            check(sys::cuModuleGetGlobal_v2(&mut address, &mut bytes, module, c"counter".as_ptr()));
            assert_eq!((bytes, download::<i32>(address, 1)), (4, vec![10]));
            check(sys::cuModuleUnload(module));
            assert_eq!(sys::cuModuleUnload(module), CUresult::CUDA_ERROR_INVALID_HANDLE);
        }
    }

    fn a_program_that_does_not_compile_has_a_log() {
        let log = compile("extern \"C\" __global__ void k(int* x) {\n    x[0] = y;\n}", &[]).unwrap_err();
        assert!(log.contains("test.cu:2:12: error: ‘y’ was not declared"), "{log}");
        let log = compile("#include \"missing.cuh\"", &[]).unwrap_err();
        assert!(log.contains("missing.cuh"), "{log}");
        compile("#include \"part/a.cuh\"\nint x = A;", &[("part/a.cuh", "#define A 1\n")]).unwrap();
    }

    fn unwritten_memory_is_poison() {
        init();
        let peek = kernel(
            r#"
            #include "ptx.cuh"
            template <int n> __device__ unsigned stale() { __shared__ unsigned in_template[n]; return in_template[0]; }
            extern "C" __global__ void peek(unsigned* out) {
                __shared__ unsigned statically[64];
                DYNAMIC_SHARED(unsigned, dynamically);
                out[threadIdx.x] = statically[threadIdx.x] & dynamically[threadIdx.x] & stale<8>() & out[threadIdx.x];
                statically[threadIdx.x] = dynamically[threadIdx.x] = 0;
            }"#,
            "peek",
        );
        let mut out = 0;
        // SAFETY: a plain call.
        check(unsafe { sys::cuMemAlloc_v2(&mut out, 256) });
        check(launch!(peek, 3, 64, 256; out));
        assert_eq!(download::<u32>(out, 64), [u32::MAX; 64]);
    }

    fn threads_that_wait_for_ever_are_reported() {
        init();
        let halves = kernel(
            "extern \"C\" __global__ void halves(float* x) {\n\
                 float v = x[0];\n\
                 if (threadIdx.x < 32) v = __shfl_sync(0xffffffffu, v, 0);\n\
                 else if (threadIdx.x != 40) v = __shfl_sync(0xffffffffu, v, 0);\n\
                 else __syncthreads();\n\
                 x[threadIdx.x] = v;\n\
             }",
            "halves",
        );
        let x = upload(&[0f32; 64]);
        let code = launch!(halves, 1, 64, 0; x);
        assert_eq!(code, CUresult::CUDA_ERROR_LAUNCH_FAILED);
        assert_eq!(
            error_text(code),
            "deadlock in kernel `halves`:\n  block (0, 0, 0):\n    \
             thread (0, 0, 0) to (31, 0, 0) exited\n    \
             thread (32, 0, 0) to (39, 0, 0) waits at __shfl_sync 0xffffffff (test.cu:4)\n    \
             thread (40, 0, 0) waits at __syncthreads 0 (test.cu:5)\n    \
             thread (41, 0, 0) to (63, 0, 0) waits at __shfl_sync 0xffffffff (test.cu:4)"
        );
        // Nothing works after a failed kernel, as on a card.
        // SAFETY: a plain call.
        assert_eq!(unsafe { sys::cuCtxSynchronize() }, CUresult::CUDA_ERROR_LAUNCH_FAILED);
        forgive();
        // SAFETY: a plain call.
        check(unsafe { sys::cuCtxSynchronize() });
    }

    fn threads_that_have_exited_are_not_waited_for() {
        init();
        let some = kernel(
            r#"extern "C" __global__ void some(float* x, int stay) {
                   if (threadIdx.x >= stay) return;
                   __syncthreads();
                   float v = __shfl_down_sync(0xffffffffu, x[threadIdx.x], 1);
                   __syncthreads();
                   x[threadIdx.x] = v;
               }"#,
            "some",
        );
        for schedule in ["", "1", "2"] {
            set_schedule(schedule);
            let x = upload(&[1f32, 2.0, 3.0, 4.0]);
            check(launch!(some, 1, 50, 0; x, 3i32));
            assert_eq!(download::<f32>(x, 4)[..2], [2.0, 3.0]);
        }
    }

    fn collectives_that_differ_are_reported() {
        init();
        let mixed = kernel(
            r#"extern "C" __global__ void mixed(int* x) {
                   if (threadIdx.x == 0) x[0] = __shfl_sync(0xffffffffu, 1, 0);
                   else x[1] = __any_sync(0xffffffffu, 1);
               }"#,
            "mixed",
        );
        let x = upload(&[0i32; 2]);
        let report = error_text(launch!(mixed, 1, 32, 0; x));
        assert!(report.contains("thread (1, 0, 0): a vote") && report.contains("__shfl_sync"), "{report}");
    }

    fn writes_beside_an_allocation_are_found() {
        init();
        let write = kernel("extern \"C\" __global__ void write(float* x, int i) { x[i] = 0.f; }", "write");
        for (i, text) in [(10, "0 bytes behind the end"), (12, "8 bytes behind the end"), (-1, "1 bytes before")] {
            let x = upload(&[0f32; 10]);
            check(launch!(write, 1, 1, 0; x, i));
            // SAFETY: a plain call.
            let report = error_text(unsafe { sys::cuCtxSynchronize() });
            assert!(report.contains(text), "{report}");
            forgive();
            // SAFETY: `x` is freed once, and the second time is an error.
            unsafe {
                assert_eq!(sys::cuMemFree_v2(x), CUresult::CUDA_ERROR_LAUNCH_FAILED);
                forgive();
                assert_eq!(sys::cuMemFree_v2(x), CUresult::CUDA_ERROR_INVALID_VALUE);
            }
        }
        let shared = kernel(
            "#include \"ptx.cuh\"\nextern \"C\" __global__ void shared(int i) { DYNAMIC_SHARED(char, s); s[i] = 0; }",
            "shared",
        );
        let report = error_text(launch!(shared, 1, 1, 100; 102i32));
        assert!(report.contains("behind its 100 bytes of dynamic shared memory, at byte 102"), "{report}");
    }

    fn faults_name_the_thread() {
        init();
        let module = load(
            r#"
            extern "C" __global__ void wild(int* x) { if (threadIdx.x == 3) *(int*)64 = 0; __syncthreads(); }
            extern "C" __global__ void divide(int* x) { x[threadIdx.x] = 7 / x[threadIdx.x]; }
            extern "C" __global__ void asserted(int* x) { assert(x[0] != 0); }
            __device__ int deep(int* x, int n) { volatile char room[4096]; room[n % 4096] = n; return n < 0 ? 0 : 1 + deep(x, n + 1) + room[0]; }
            extern "C" __global__ void overflow(int* x) { x[0] = deep(x, 0); }
            "#,
        );
        for (name, place, what) in [
            ("wild", "block (0, 0, 0), thread (3, 0, 0)", "memory that is not there"),
            ("divide", "block (0, 0, 0), thread (0, 0, 0)", "division by zero"),
            ("asserted", "block (0, 0, 0), thread (0, 0, 0)", "assertion failed: x[0] != 0 (test.cu:4)"),
            ("overflow", "block (0, 0, 0), thread (0, 0, 0)", "memory that is not there"),
        ] {
            let x = upload(&[0i32; 32]);
            set_schedule("");
            let report = error_text(launch!(function(module, name), 2, 32, 0; x));
            assert!(report.contains(place) && report.contains(what), "{report}");
            forgive();
        }
    }

    fn launches_are_checked() {
        init();
        let k = kernel("extern \"C\" __global__ void k(int* x) { if (x) x[0] = 1; }", "k");
        let x = upload(&[0i32]);
        for (grid, block, shared) in [
            ([0, 1, 1], [32, 1, 1], 0),
            ([1, 1, 1], [0, 1, 1], 0),
            ([1, 1, 1], [1025, 1, 1], 0),
            ([1, 1, 1], [32, 33, 1], 0),
            ([1, 1, 1], [1, 1, 65], 0),
            ([1, 65536, 1], [1, 1, 1], 0),
            ([1, 1, 1], [32, 1, 1], 48 * 1024 + 1),
        ] {
            let code = launch_on(std::ptr::null_mut(), k, grid, block, shared, &mut [(&raw const x).cast_mut().cast()]);
            assert_eq!(code, CUresult::CUDA_ERROR_INVALID_VALUE, "{grid:?} {block:?} {shared}");
        }
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: plain calls.
        unsafe {
            assert_eq!(sys::cuFuncSetAttribute(k, attribute, 232449), CUresult::CUDA_ERROR_INVALID_VALUE);
            check(sys::cuFuncSetAttribute(k, attribute, 232448));
            let mut blocks = 0;
            check(sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, k, 256, 232448));
            assert_eq!(blocks, 1);
            check(sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, k, 256, 0));
            assert_eq!(blocks, 8);
        }
        check(launch!(k, 1, 1, 232448; x));
    }

    fn blocks_of_a_cooperative_launch_run_together() {
        init();
        // Each block adds up what all blocks wrote, behind a barrier of the whole grid; and again.
        let grid_sum = kernel(
            r#"
            #include "ptx.cuh"
            extern "C" __global__ void grid_sum(int* x, int* out, unsigned* arrived) {
                __shared__ int mine;
                mine = blockIdx.x;
                for (int round = 1; round <= 20; round++) {
                    x[blockIdx.x] = blockIdx.x + round;
                    for (int step = 2 * round - 1; step <= 2 * round; step++) {
                        __syncthreads();
                        if (threadIdx.x == 0) {
                            red_release_add(arrived, 1);
                            while (ld_acquire(arrived) < step * gridDim.x) {}
                        }
                        __syncthreads();
                        if (threadIdx.x > 0 || step % 2 == 0) continue;
                        int sum = 0;
                        for (int i = 0; i < gridDim.x; i++) sum += x[i];
                        out[mine] = sum;
                    }
                }
            }"#,
            "grid_sum",
        );
        for schedule in ["", "1", "2", "3", "lazy"] {
            set_schedule(schedule);
            let (x, out, arrived) = (upload(&[0i32; 8]), upload(&[0i32; 8]), upload(&[0u32]));
            check(cooperative!(grid_sum, 8, 64, 0; x, out, arrived));
            assert_eq!(download::<i32>(out, 8), [28 + 8 * 20; 8]);
            let too_many = cooperative!(grid_sum, 1000, 64, 0; x, out, arrived);
            assert_eq!(too_many, CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
        }
        // Blocks that are not resident together would never meet.
        let (x, arrived) = (upload(&[0i32; 8]), upload(&[0u32]));
        let report = error_text(launch!(grid_sum, 8, 64, 0; x, x, arrived));
        assert!(report.contains("spins for ever"), "{report}");
    }

    fn a_lock_between_threads_is_no_deadlock() {
        init();
        let locked = kernel(
            r#"extern "C" __global__ void locked(int* lock, int* sum) {
                   while (atomicExch(lock, 1) != 0) {}
                   int before = *sum;
                   __syncwarp(1u << threadIdx.x % 32);
                   *sum = before + 1;
                   atomicExch(lock, 0);
                   while (atomicAdd(sum, 0) < blockDim.x) {}
               }"#,
            "locked",
        );
        for schedule in ["", "1", "2"] {
            set_schedule(schedule);
            let (lock, sum) = (upload(&[0i32]), upload(&[0i32]));
            check(launch!(locked, 1, 64, 0; lock, sum));
            assert_eq!(download::<i32>(sum, 1), [64]);
        }
    }

    fn threads_of_the_host_share_the_device() {
        init();
        let threads: Vec<_> = (0..8i32)
            .map(|i| {
                std::thread::spawn(move || {
                    init();
                    let text = format!("extern \"C\" __global__ void k(int* x) {{ x[threadIdx.x] += {i}; }}");
                    let k = kernel(&text, "k");
                    let x = upload(&vec![0i32; 100]);
                    for _ in 0..100 {
                        check(launch!(k, 1, 100, 0; x));
                    }
                    assert_eq!(download::<i32>(x, 100), vec![100 * i; 100]);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
