//! Matrix products, and the ladder that leads to ours.

use super::shapes::Product;
use super::suite::Suite;
use super::work;
use ferrograd::cuda::ladder;
use ferrograd::prelude::*;

/// Squares in all dtypes; GPT-2's products in all three passes.
pub fn matmul(suite: &Suite) {
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        for &n in &suite.shapes.squares {
            product(suite, dtype, Product { layout: "NN", m: n, k: n, n });
        }
        if dtype != DType::F16 {
            suite.shapes.gpt2.products().into_iter().for_each(|p| product(suite, dtype, p));
        }
    }
}

fn product(suite: &Suite, dtype: DType, Product { layout, m, k, n }: Product) {
    let stored = |rows, columns, letter| match letter {
        "T" => suite.randn([columns, rows], dtype).t(),
        _ => suite.randn([rows, columns], dtype),
    };
    let work = work::gemm(m, k, n, dtype.is_half());
    suite.case(&format!("matmul {dtype} {layout} {m}×{k}×{n}"), work, || {
        let (a, b) = (stored(m, k, &layout[..1]), stored(k, n, &layout[1..]));
        move || drop(a.matmul(&b))
    });
}

/// Every step of the ladder beside the kernel that ships.
pub fn ladder(suite: &Suite) {
    for dtype in [DType::F32, DType::BF16] {
        for &n in &suite.shapes.ladder {
            let case = format!("ladder {dtype} {n}×{n}×{n}");
            let operands = || [(); 2].map(|()| suite.randn([n, n], dtype));
            suite.case(&case, work::gemm(n, n, n, dtype.is_half()), || {
                let [a, b] = operands();
                move || drop(a.matmul(&b))
            });
            for step in ladder::MATMUL.iter().filter(|step| step.dtype == dtype) {
                suite.aside(&case, step.name, || {
                    let [a, b] = operands();
                    move || drop(step.matmul(&a, &b))
                });
            }
        }
    }
}
