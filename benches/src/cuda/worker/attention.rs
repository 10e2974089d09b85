//! Attention, forward and backward.

use super::shapes::Attention;
use super::suite::Suite;
use super::work;
use bench_measure::Work;
use ferrograd::prelude::*;

/// Over all lengths and head dimensions, with and without a causal mask, in bf16.
pub fn attention(suite: &Suite) {
    let Attention { tokens, width, head_dims, times } = &suite.shapes.attention;
    for &d in head_dims {
        for causal in [false, true] {
            for &t in times {
                let shape = [tokens / t, width / d, t, d];
                let options = AttentionOptions { causal, ..Default::default() };
                let name = format!("bf16 d{d} {} T{t}", if causal { "causal" } else { "full" });
                let leaves = || [(); 3].map(|()| Var::leaf(suite.randn(shape, DType::BF16)));
                let work = work::attention(shape, causal);
                suite.case(&format!("attention forward {name}"), work, || {
                    let ([q, k, v], options) = (leaves(), options.clone());
                    move || no_grad(|| drop(q.scaled_dot_product_attention(&k, &v, &options)))
                });
                // Five products where forward has two: the scores, which nobody keeps, are made again. Reads six tensors of
                // forward's size, writes three.
                let backward = Work { flops: 2.5 * work.flops, bytes: 9.0 / 4.0 * work.bytes, ..work };
                suite.backward(&format!("attention backward {name}"), backward, || {
                    let inputs = leaves();
                    ([inputs[0].scaled_dot_product_attention(&inputs[1], &inputs[2], &options)], inputs)
                });
            }
        }
    }
}
