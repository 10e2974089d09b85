//! Every step of the ladders beside the kernel that ships.

use super::suite::Suite;
use super::work;
use bench_measure::Work;
use ferrograd::cuda::ladder::{ATTENTION, LAYER_NORM, MATMUL, RowStep, SOFTMAX};
use ferrograd::prelude::*;

/// All of them.
pub fn ladder(suite: &Suite) {
    [DType::F32, DType::BF16].into_iter().for_each(|dtype| matmul(suite, dtype));
    rows(suite, "softmax", SOFTMAX, suite.shapes.softmax, 5, |x| drop(x.softmax(-1)));
    rows(suite, "layer_norm", LAYER_NORM, suite.shapes.layer_norm, 8, |x| {
        drop(x.layer_norm(&[x.dims()[1]], None, None, 1e-5));
    });
    [DType::F32, DType::BF16].into_iter().for_each(|dtype| attention(suite, dtype));
}

fn matmul(suite: &Suite, dtype: DType) {
    for &n in &suite.shapes.ladder {
        let case = format!("ladder matmul {dtype} {n}×{n}×{n}");
        let operands = || [(); 2].map(|()| suite.randn([n, n], dtype));
        suite.case(&case, work::gemm(n, n, n, dtype.is_half()), || {
            let [a, b] = operands();
            move || drop(a.matmul(&b))
        });
        for step in MATMUL.iter().filter(|step| step.dtype == dtype && step.runs_on(&suite.device)) {
            suite.aside(&case, step.name, || {
                let [a, b] = operands();
                move || drop(step.matmul(&a, &b))
            });
        }
    }
}

/// Of f32, one read and one write of each number.
fn rows(suite: &Suite, name: &str, steps: [RowStep; 5], shape: [usize; 2], operations: usize, ours: fn(&Tensor)) {
    let [rows, width] = shape;
    let case = format!("ladder {name} f32 {rows}×{width}");
    suite.case(&case, work::elements(DType::F32, 2, operations, rows * width), || {
        let x = suite.randn(shape, DType::F32);
        move || ours(&x)
    });
    for step in steps {
        suite.aside(&case, step.name, || {
            let x = suite.randn(shape, DType::F32);
            move || drop(step.apply(&x))
        });
    }
}

/// Over the shortest of attention's lengths, without a mask.
fn attention(suite: &Suite, dtype: DType) {
    let (s, t) = (&suite.shapes.attention, suite.shapes.attention.times[0]);
    let shape = [s.tokens / t, s.width / 64, t, 64];
    let case = format!("ladder attention {dtype} d64 full T{t}");
    let operands = || [(); 3].map(|()| suite.randn(shape, dtype));
    let bf16 = work::attention(shape, false);
    let work = Work { bytes: bf16.bytes * dtype.size() as f64 / 2.0, bf16: dtype.is_half(), ..bf16 };
    suite.case(&case, work, || {
        let [q, k, v] = operands();
        move || drop(q.scaled_dot_product_attention(&k, &v, &Default::default()))
    });
    for step in ATTENTION.iter().filter(|step| step.dtype == dtype) {
        suite.aside(&case, step.name, || {
            let [q, k, v] = operands().map(|x| x.reshape([shape[0] * shape[1], t, 64]));
            move || drop(step.attention(&q, &k, &v))
        });
    }
}
