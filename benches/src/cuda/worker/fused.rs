//! Operations of Transformers that are fused of simpler ones: rotary embedding, gated activations, norms of a sum, feed-forward parts.

use super::rows::DTYPES;
use super::suite::Suite;
use super::work;
use bench_measure::Work;
use ferrograd::prelude::*;
use ferrograd::tensor::Epilogue;

/// Of queries as Llama has them. Both passes read and write the features; the tables of angles are small.
pub fn rope(suite: &Suite) {
    let shape = suite.shapes.rope;
    let [b, h, t, d] = shape;
    for dtype in DTYPES {
        let work = work::elements(dtype, 2, 3, shape.iter().product());
        let make = || (RotaryEmbedding::new(d, t), Var::leaf(suite.randn(shape, dtype)));
        let name = |pass| format!("rope {dtype} {b}×{h}×{t}×{d} {pass}");
        suite.case(&name("forward"), work, || {
            let (rope, x) = make();
            move || no_grad(|| drop(rope.forward(&x)))
        });
        suite.backward(&name("backward"), work, || {
            let (rope, x) = make();
            ([rope.forward(&x)], [x])
        });
    }
}

/// SwiGLU and GEGLU: forward reads the gate and what it gates, backward these and a gradient, and writes two.
pub fn gated(suite: &Suite) {
    let [rows, width] = suite.shapes.gated;
    for dtype in DTYPES {
        for (gate, activation) in [("swiglu", Activation::Silu), ("geglu", Activation::Gelu)] {
            let work = |tensors, operations| work::elements(dtype, tensors, operations, rows * width);
            let make = || [(); 2].map(|()| Var::leaf(suite.randn([rows, width], dtype)));
            let name = |pass| format!("gated {dtype} {gate} {rows}×{width} {pass}");
            suite.case(&name("forward"), work(3, 5), || {
                let [x, up] = make();
                move || no_grad(|| drop(x.gated(&up, activation)))
            });
            suite.backward(&name("backward"), work(5, 10), || {
                let [x, up] = make();
                ([x.gated(&up, activation)], [x, up])
            });
        }
    }
}

/// Layer and RMS norm of a sum with a residual.
pub fn add_norm(suite: &Suite) {
    for dtype in DTYPES {
        add_and_norm(suite, dtype, "layer_norm", [9, 13], |[x, residual, w, b]| {
            x.add_layer_norm(residual, &[w.dims()[0]], Some(w), Some(b), 1e-5)
        });
        add_and_norm(suite, dtype, "rms_norm", [6, 11], |[x, residual, w]| {
            x.add_rms_norm(residual, &[w.dims()[0]], Some(w), 1e-5)
        });
    }
}

/// Over rows as wide as GPT-2. Forward reads the terms, writes the sum and its norm; backward reads the sum and the gradients of both, and
/// writes that of the terms.
fn add_and_norm<const N: usize>(
    suite: &Suite,
    dtype: DType,
    norm: &str,
    operations: [usize; 2],
    f: fn([&Var; N]) -> (Var, Var),
) {
    let [rows, width] = suite.shapes.layer_norm;
    let [forward, backward] = operations.map(|n| work::elements(dtype, 4, n, rows * width));
    let make = || {
        let shape = |i| if i < 2 { Shape::from([rows, width]) } else { Shape::from([width]) };
        std::array::from_fn(|i| Var::leaf(suite.randn(shape(i), dtype)))
    };
    let name = |pass| format!("add_norm {dtype} {norm} {rows}×{width} {pass}");
    suite.case(&name("forward"), forward, || {
        let inputs = make();
        move || no_grad(|| drop(f(inputs.each_ref())))
    });
    suite.backward(&name("backward"), backward, || {
        let inputs = make();
        let (y, sum) = f(inputs.each_ref());
        ([y, sum], inputs)
    });
}

/// GPT-2's: two products with a GELU between them, and the first alone; for a batch and for one token, as when text is generated.
pub fn feed_forward(suite: &Suite) {
    let s = &suite.shapes.gpt2;
    for dtype in DTYPES {
        for rows in [s.batch * s.time, 1] {
            products(suite, dtype, [rows, s.width, 4 * s.width]);
        }
    }
}

fn products(suite: &Suite, dtype: DType, [rows, width, hidden]: [usize; 3]) {
    let name = |pass| format!("feed_forward {dtype} {rows}×{width}×{hidden} {pass}");
    let make = || {
        let shapes = [&[rows, width][..], &[hidden, width], &[hidden], &[width, hidden], &[width]];
        shapes.map(|shape| Var::leaf(suite.randn(shape, dtype)))
    };
    let activation = Activation::GeluTanh;
    let product = work::gemm(rows, width, hidden, dtype.is_half());
    suite.case(&name("linear, bias, gelu"), product, || {
        let [x, w, b, ..] = make().map(Var::into_tensor);
        move || {
            let after = Epilogue { bias: Some(&b), activation, residual: None };
            drop(x.linear_with(&w, &after));
        }
    });
    // What is between the products may stay in a cache.
    let moved =
        |inputs: usize, weights: usize| work::elements(dtype, 1, 0, inputs * rows * width + weights * width * hidden);
    let forward = Work { flops: 2.0 * product.flops, bf16: product.bf16, ..moved(2, 2) };
    let f = move |[x, w1, b1, w2, b2]: [&Var; 5]| x.feed_forward([w1, w2], [Some(b1), Some(b2)], activation);
    suite.case(&name("forward"), forward, || {
        let inputs = make();
        move || no_grad(|| drop(f(inputs.each_ref())))
    });
    if rows > 1 {
        // Each product's two gradients are products.
        suite.backward(
            &name("backward"),
            Work { flops: 2.0 * forward.flops, bf16: forward.bf16, ..moved(3, 4) },
            || {
                let inputs = make();
                ([f(inputs.each_ref())], inputs)
            },
        );
    }
}
