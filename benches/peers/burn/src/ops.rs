//! Single operations.

use crate::{case, inference, randn, training};
use bench_measure::{Bench, shapes};
use burn::nn::LayerNormConfig;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, FloatDType, Tensor, activation, module};

/// Products of bf16 are of `f32` inside: flex converts both operands.
pub fn gemm(bench: &Bench) {
    let device = inference();
    let dtypes = [("f32", FloatDType::F32), ("bf16", FloatDType::BF16)];
    for (name, dtype) in dtypes {
        for (m, k, n) in shapes::GEMM {
            let (a, b) = (randn([m, k], &device).cast(dtype), randn([k, n], &device).cast(dtype));
            case(bench, &format!("gemm {name} {m}×{k}×{n}"), || a.clone().matmul(b.clone()));
        }
    }
    let (m, k, n) = shapes::GEMM_WEIGHT;
    for (name, dtype) in dtypes {
        let (x, w) = (randn([m, k], &device).cast(dtype), randn([n, k], &device).cast(dtype));
        let name = format!("gemm {name} {m}×{k}×{n}, weight N×K");
        case(bench, &name, || x.clone().matmul(w.clone().transpose()));
    }
}

/// Products of operands that are stored transposed and read through views.
pub fn layouts(bench: &Bench) {
    let stored = |rows, columns, transposed| {
        let device = inference();
        if transposed { randn([columns, rows], &device).transpose() } else { randn([rows, columns], &device) }
    };
    for (m, k, n) in shapes::LAYOUT_GEMM {
        for (layout, a_transposed, b_transposed) in shapes::LAYOUTS {
            let (a, b): (Tensor<2>, Tensor<2>) = (stored(m, k, a_transposed), stored(k, n, b_transposed));
            case(bench, &format!("gemm f32 {m}×{k}×{n} {layout}"), || a.clone().matmul(b.clone()));
        }
    }
}

/// Attention: the fused one in inference. In training composed: with backward the fused one is slower.
pub fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, causal: bool) -> Tensor<4> {
    if !q.is_autodiff() {
        let options = AttentionModuleOptions { is_causal: causal, ..Default::default() };
        return module::attention(q, k, v, None, None, options);
    }
    let [b, h, t, d] = q.dims();
    let mut scores = q.matmul(k.transpose()).mul_scalar((d as f64).powf(-0.5));
    if causal {
        let later = Tensor::<2, Bool>::tril_mask([t, t], 0, &scores.device());
        scores = scores.mask_fill(later.reshape([1, 1, t, t]).expand([b, h, t, t]), f32::NEG_INFINITY);
    }
    activation::softmax(scores, 3).matmul(v)
}

/// Forward + backward over 2048 tokens takes seconds: left out.
pub fn attention(bench: &Bench) {
    for (length, shape) in [("", shapes::ATTENTION), (" T2048", shapes::LONG_ATTENTION)] {
        let [q, k, v] = [(); 3].map(|()| randn(shape, &inference()));
        case(bench, &format!("attention causal{length} forward"), || attend(q.clone(), k.clone(), v.clone(), true));
    }
    let [q, k, v] = [(); 3].map(|()| randn(shapes::ATTENTION, &training()).require_grad());
    // A gradient of ones is what backward starts from.
    case(bench, "attention causal forward + backward", || {
        attend(q.clone(), k.clone(), v.clone(), true).backward();
    });
}

pub fn elementwise(bench: &Bench) {
    let rows = shapes::ELEMENTS / 1024;
    let [x, y] = [(); 2].map(|()| randn([rows, 1024], &inference()));
    case(bench, "add 16M", || x.clone() + y.clone());
    case(bench, "gelu 16M", || activation::gelu(x.clone()));
    case(bench, "gelu tanh 16M", || activation::gelu_approximate(x.clone()));
    case(bench, "softmax 16M by 1024", || activation::softmax(x.clone(), 1));
    case(bench, "sum 16M", || x.clone().sum());
    let shape = [shapes::ELEMENTS / 768, 768];
    let (x, norm) = (randn(shape, &inference()), LayerNormConfig::new(768).init(&inference()));
    case(bench, "layer norm 16M by 768, forward", || norm.forward(x.clone()));
    let (x, norm) = (randn(shape, &training()).require_grad(), LayerNormConfig::new(768).init(&training()));
    case(bench, "layer norm 16M by 768, forward + backward", || norm.forward(x.clone()).backward());
}

/// A tensor of one element: burn has none of rank 0.
pub fn overhead(bench: &Bench) {
    case(bench, "30,000 scalar adds, forward + backward", || {
        let x = Tensor::<1>::zeros([1], &training()).require_grad();
        (0..30_000).fold(x, |y, _| y.add_scalar(1.0)).backward()
    });
}
