//! How fast the emulator is, for whoever changes it:
//! `cargo test -p ferrograd-cuda-emulator --features compiler speed -- --nocapture`.

use std::time::Instant;

use super::common::*;

/// The least of a few measurements, each of `times` repetitions.
fn measure(what: &str, times: u32, mut work: impl FnMut()) {
    let least = (0..5).map(|_| {
        let start = Instant::now();
        (0..times).for_each(|_| work());
        start.elapsed() / times
    });
    println!("{what:<44} {:>12.1?}", least.min().unwrap());
}

const KERNELS: &str = r#"
extern "C" __global__ void empty() {}
extern "C" __global__ void add(const float* a, const float* b, float* c, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) c[i] = a[i] + b[i];
}
extern "C" __global__ void barriers() { for (int i = 0; i < 100; i++) __syncthreads(); }
extern "C" __global__ void shuffles(int* x) {
    int sum = threadIdx.x;
    for (int i = 0; i < 100; i++) sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    if (sum == 0) x[0] = 1;
}
"#;

emulated! {
    fn speed() {
        init();
        measure("compile and load four small kernels", 1, || {
            load(KERNELS);
        });
        let module = load(KERNELS);
        let (add, empty) = (function(module, "add"), function(module, "empty"));
        let (barriers, shuffles) = (function(module, "barriers"), function(module, "shuffles"));
        let n = 1i32 << 20;
        let ones = vec![1f32; n as usize];
        let (x, y, z) = (upload(&ones), upload(&ones), upload(&ones));
        measure("launch an empty kernel, one warp", 1000, || check(launch!(empty, 1, 32, 0; x)));
        measure("launch an empty kernel, 256 threads", 1000, || check(launch!(empty, 1, 256, 0; x)));
        measure("add 2^20 elements, a thread each", 1, || check(launch!(add, 4096, 256, 0; x, y, z, n)));
        measure("100 barriers of 256 threads", 1, || check(launch!(barriers, 1, 256, 0; x)));
        measure("100 shuffles of 256 threads", 1, || check(launch!(shuffles, 1, 256, 0; x)));
    }
}
