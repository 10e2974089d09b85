//! Single operations.

use crate::{CPU, case, randn};
use bench_measure::{Bench, shapes};
use candle_core::{D, DType, Result, Tensor, Var};
use candle_nn::ops;

/// Products of bf16 are of `f32` inside: candle converts both operands.
pub fn gemm(bench: &Bench) -> Result<()> {
    let dtypes = [("f32", DType::F32), ("bf16", DType::BF16)];
    for (name, dtype) in dtypes {
        for (m, k, n) in shapes::GEMM {
            let (a, b) = (randn(&[m, k])?.to_dtype(dtype)?, randn(&[k, n])?.to_dtype(dtype)?);
            case(bench, &format!("gemm {name} {m}×{k}×{n}"), || a.matmul(&b));
        }
    }
    let (m, k, n) = shapes::GEMM_WEIGHT;
    for (name, dtype) in dtypes {
        let (x, w) = (randn(&[m, k])?.to_dtype(dtype)?, randn(&[n, k])?.to_dtype(dtype)?);
        case(bench, &format!("gemm {name} {m}×{k}×{n}, weight N×K"), || x.matmul(&w.t()?));
    }
    Ok(())
}

/// Products of operands that are stored transposed and read through views.
pub fn layouts(bench: &Bench) -> Result<()> {
    let stored = |rows, columns, transposed| {
        if transposed { randn(&[columns, rows])?.t() } else { randn(&[rows, columns]) }
    };
    for (m, k, n) in shapes::LAYOUT_GEMM {
        for (layout, a_transposed, b_transposed) in shapes::LAYOUTS {
            let (a, b) = (stored(m, k, a_transposed)?, stored(k, n, b_transposed)?);
            case(bench, &format!("gemm f32 {m}×{k}×{n} {layout}"), || a.matmul(&b));
        }
    }
    Ok(())
}

/// What is added to scores: −∞ where a token would see a later one.
pub fn causal_mask(t: usize) -> Result<Tensor> {
    let later = |i: usize| if i % t > i / t { f32::NEG_INFINITY } else { 0.0 };
    Tensor::from_vec((0..t * t).map(later).collect(), (t, t), &CPU)
}

/// Attention composed of products and a softmax; `train` takes the softmax that has a backward.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, train: bool) -> Result<Tensor> {
    let scores = (q.matmul(&k.transpose(2, 3)?)? * (q.dim(3)? as f64).powf(-0.5))?;
    let scores = mask.map_or(Ok(scores.clone()), |mask| scores.broadcast_add(mask))?;
    let weights = if train { ops::softmax(&scores, D::Minus1)? } else { ops::softmax_last_dim(&scores)? };
    weights.matmul(v)
}

/// candle's `flash_attn` on the CPU takes twice as long as the composition, and has no backward. Over 2048 tokens the
/// composition takes seconds, forward alone: left out.
pub fn attention(bench: &Bench) -> Result<()> {
    let shape = shapes::ATTENTION;
    let mask = causal_mask(shape[2])?;
    let [q, k, v] = [randn(&shape)?, randn(&shape)?, randn(&shape)?];
    case(bench, "attention causal forward", || attend(&q, &k, &v, Some(&mask), false));
    let [q, k, v] = [Var::from_tensor(&q)?, Var::from_tensor(&k)?, Var::from_tensor(&v)?];
    // A gradient of ones is what backward starts from.
    case(bench, "attention causal forward + backward", || attend(&q, &k, &v, Some(&mask), true)?.backward());
    Ok(())
}

pub fn elementwise(bench: &Bench) -> Result<()> {
    let rows = shapes::ELEMENTS / 1024;
    let (x, y) = (randn(&[rows, 1024])?, randn(&[rows, 1024])?);
    case(bench, "add 16M", || &x + &y);
    case(bench, "gelu 16M", || x.gelu_erf());
    case(bench, "gelu tanh 16M", || x.gelu());
    case(bench, "softmax 16M by 1024", || ops::softmax_last_dim(&x));
    case(bench, "sum 16M", || x.sum_all());
    let x = randn(&[shapes::ELEMENTS / 768, 768])?;
    let (w, b) = (randn(&[768])?, randn(&[768])?);
    case(bench, "layer norm 16M by 768, forward", || ops::layer_norm(&x, &w, &b, 1e-5));
    let [x, w, b] = [Var::from_tensor(&x)?, Var::from_tensor(&w)?, Var::from_tensor(&b)?];
    let both = || ops::layer_norm_slow(&x, &w, &b, 1e-5)?.backward();
    case(bench, "layer norm 16M by 768, forward + backward", both);
    Ok(())
}

/// candle sorts and frees the graph recursively: 30,000 nodes need more stack than a thread usually has.
pub fn overhead(bench: &Bench) {
    let chain = || {
        let x = Var::zeros((), DType::F32, &CPU)?;
        let mut y = x.as_tensor().clone();
        for _ in 0..30_000 {
            y = (y + 1.0)?;
        }
        y.backward()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(1 << 30);
        let run = || case(bench, "30,000 scalar adds, forward + backward", chain);
        thread.spawn_scoped(scope, run).expect("a thread").join().expect("candle's chain");
    });
}
