//! The stand-in driver and compiler, through the unmodified bindings that the CUDA backend uses.

#[macro_use]
mod common;

use common::*;
use cudarc::driver::sys::CUresult;

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
}
