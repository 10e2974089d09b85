//! Operations that memory limits: norms, softmax, cross-entropy, elementwise.

use super::suite::Suite;
use super::work;
use ferrograd::prelude::*;

/// Of most cases.
pub const DTYPES: [DType; 2] = [DType::BF16, DType::F32];

/// Over rows as wide as GPT-2.
pub fn layer_norm(suite: &Suite) {
    let [rows, width] = suite.shapes.layer_norm;
    for dtype in DTYPES {
        let work = |tensors, operations| work::elements(dtype, tensors, operations, rows * width);
        let make = || {
            let inputs = [[rows, width].into(), Shape::from([width]), Shape::from([width])];
            let [x, w, b] = inputs.map(|shape| Var::leaf(suite.randn(shape, dtype)));
            ([x.layer_norm(&[width], Some(&w), Some(&b), 1e-5)], [x, w, b])
        };
        let name = |pass| format!("layer_norm {dtype} {rows}×{width} {pass}");
        suite.case(&name("forward"), work(2, 8), || {
            let (_, [x, w, b]) = make();
            move || no_grad(|| drop(x.layer_norm(&[width], Some(&w), Some(&b), 1e-5)))
        });
        suite.backward(&name("backward"), work(3, 12), make);
    }
}

/// Over rows.
pub fn softmax(suite: &Suite) {
    let [rows, width] = suite.shapes.softmax;
    for dtype in DTYPES {
        let work = |tensors, operations| work::elements(dtype, tensors, operations, rows * width);
        let name = |pass| format!("softmax {dtype} {rows}×{width} {pass}");
        suite.case(&name("forward"), work(2, 5), || {
            let x = suite.randn([rows, width], dtype);
            move || drop(x.softmax(-1))
        });
        suite.backward(&name("backward"), work(3, 4), || {
            let x = Var::leaf(suite.randn([rows, width], dtype));
            ([x.softmax(-1)], [x])
        });
    }
}

/// Of GPT-2's logits: forward reads them, backward reads them and writes their gradient.
pub fn cross_entropy(suite: &Suite) {
    let [positions, classes] = suite.shapes.cross_entropy;
    for dtype in DTYPES {
        let work = |tensors, operations| work::elements(dtype, tensors, operations, positions * classes);
        let name = |pass| format!("cross_entropy {dtype} {positions}×{classes} {pass}");
        let make = || {
            let x = Var::leaf(suite.randn([positions, classes], dtype));
            (x, suite.randint(classes, [positions]))
        };
        suite.case(&name("forward"), work(1, 4), || {
            let (x, y) = make();
            move || no_grad(|| drop(ferrograd::nn::cross_entropy(&x, &y)))
        });
        suite.backward(&name("backward"), work(2, 4), || {
            let (x, y) = make();
            ([ferrograd::nn::cross_entropy(&x, &y)], [x])
        });
    }
}

/// One number in, one out.
pub fn elementwise(suite: &Suite) {
    let n = suite.shapes.elements;
    for dtype in DTYPES {
        let work = |tensors, operations| work::elements(dtype, tensors, operations, n);
        let randn = || suite.randn([n], dtype);
        suite.case(&format!("elementwise {dtype} copy"), work(2, 0), || {
            let x = randn();
            move || drop(x.copy())
        });
        suite.case(&format!("elementwise {dtype} transposed copy"), work(2, 0), || {
            let x = suite.randn([n.isqrt(); 2], dtype).t();
            move || drop(x.copy())
        });
        suite.case(&format!("elementwise {dtype} add"), work(3, 1), || {
            let (x, y) = (randn(), randn());
            move || drop(x.add(&y))
        });
        suite.case(&format!("elementwise {dtype} gelu tanh"), work(2, 9), || {
            let x = randn();
            move || drop(x.gelu_tanh())
        });
        suite.backward(&format!("elementwise {dtype} gelu tanh backward"), work(3, 17), || {
            let x = Var::leaf(randn());
            ([x.gelu_tanh()], [x])
        });
        suite.case(&format!("elementwise {dtype} sum"), work(1, 1), || {
            let x = randn();
            move || drop(x.sum())
        });
    }
}
