//! Every step of the ladder makes the same product.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{cuda, is_product, there};
use ferrograd_cuda::ladder::MATMUL;
use layouts::Random;

#[test]
fn steps_make_products() {
    let mut random = Random(1);
    for step in MATMUL.iter().filter(|step| step.runs_on(&cuda())) {
        let allowed = |x: usize| x.next_multiple_of(step.multiple);
        for (m, n, k) in [(1, 1, 1), (7, 15, 17), (33, 63, 65), (129, 130, 31), (70, 200, 127), (0, 8, 8), (8, 8, 0)] {
            let (n, k) = (allowed(n), allowed(k));
            let a = random.values(&[m, k], step.dtype);
            let b = random.values(&[n, k], step.dtype).transpose(0, 1);
            is_product(step.name, &step.matmul(&there(&a), &there(&b)), &a, &b, None);
        }
    }
}

#[test]
fn steps_say_what_they_cannot_take() {
    let mut random = Random(2);
    for step in MATMUL.iter().filter(|step| step.multiple > 1 && step.runs_on(&cuda())) {
        let [a, b] = [[8, 9], [9, 8]].map(|shape| there(&random.values(&shape, step.dtype)));
        let error = layouts::error(|| step.matmul(&a, &b));
        assert!(error.contains(&format!("multiples of {}", step.multiple)), "{error}");
    }
}
