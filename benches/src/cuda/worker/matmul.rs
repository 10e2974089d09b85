//! Matrix products.

use super::shapes::Product;
use super::suite::Suite;
use super::work;
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
