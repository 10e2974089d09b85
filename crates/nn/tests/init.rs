//! Initial values: moments, bounds, orthogonality, and the defaults of layers.

use ferrograd_nn::init::{self, FanMode, Nonlinearity};
use ferrograd_nn::*;
use ferrograd_tensor::random::with_seed;
use ferrograd_tensor::{DType, Tensor};

fn moments(t: &Tensor) -> (f64, f64, f64) {
    let v = t.to_f64_vec();
    let mean = v.iter().sum::<f64>() / v.len() as f64;
    let var = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
    (mean, var.sqrt(), v.iter().fold(0.0, |m, x| x.abs().max(m)))
}

/// Mean 0 and standard deviation `std` within 5 standard errors, which are `std/√n` and, for a distribution with kurtosis
/// at most 3, at most `std/√(2n)`.
#[track_caller]
fn looks(t: &Tensor, std: f64, bound: Option<f64>) {
    let (mean, s, max) = moments(t);
    let error = 5.0 * std / (t.numel() as f64).sqrt();
    assert!(mean.abs() < error, "mean {mean}");
    assert!((s - std).abs() < error, "standard deviation {s}, expected {std}");
    if let Some(bound) = bound {
        assert!(max <= bound * (1.0 + 1e-6) && max > 0.99 * bound, "largest {max}, expected {bound}");
    }
}

#[test]
fn variances() {
    with_seed(1, || {
        let (o, i) = (60, 90);
        let third = 3f64.sqrt();
        let xavier = (2.0 / (o + i) as f64).sqrt();
        looks(&init::xavier_uniform([o, i], 1.0), xavier, Some(xavier * third));
        looks(&init::xavier_normal([o, i], 2.0), 2.0 * xavier, None);
        let he = (2.0 / i as f64).sqrt();
        looks(&init::kaiming_uniform([o, i], FanMode::FanIn, Nonlinearity::Relu), he, Some(he * third));
        let fan_out = (1.0 / (o * 9) as f64).sqrt();
        looks(&init::kaiming_normal([o, 20, 3, 3], FanMode::FanOut, Nonlinearity::Linear), fan_out, None);
        looks(&init::normal([5000], 0.0, 0.02), 0.02, None);
        looks(&init::uniform([5000], -1.0, 1.0), 1.0 / third, Some(1.0));
    });
    assert!((Nonlinearity::LeakyRelu(5f64.sqrt()).gain() - (1.0f64 / 3.0).sqrt()).abs() < 1e-15);
    assert_eq!(init::fans(&[4, 3, 2, 5].into()), (30, 40));
    assert_eq!(init::eye([2, 3]).to_vec::<f32>(), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    assert_eq!(init::constant([2], 3.0).to_vec::<f32>(), [3.0; 2]);
}

#[test]
fn truncated_normal_stays_inside() {
    with_seed(2, || {
        let t = init::truncated_normal([20_000], 0.0, 0.02, -0.04, 0.04);
        // The standard deviation of a normal cut at ±2 is 0.8796 of the whole one's.
        looks(&t, 0.02 * 0.879_626, Some(0.04));
        let far = init::truncated_normal([100], 0.0, 1.0, 5.0, 6.0).to_vec::<f32>();
        assert!(far.iter().all(|&v| (5.0..=6.0).contains(&v)));
    });
}

#[test]
fn orthogonal_matrices() {
    with_seed(3, || {
        for shape in [[5, 5], [7, 4], [3, 8], [1, 6]] {
            let q = init::orthogonal(shape, 2.0).to_dtype(DType::F64);
            let (small, product) = match shape[0] <= shape[1] {
                true => (shape[0], q.matmul(&q.t())),
                false => (shape[1], q.t().matmul(&q)),
            };
            let expected = Tensor::eye(small).to_dtype(DType::F64).mul_scalar(4.0);
            assert!(product.all_close(&expected, 1e-5, 1e-5), "{shape:?}: {product}");
        }
        assert_eq!(*init::orthogonal([4, 2, 3], 1.0).shape(), [4, 2, 3]);
    });
}

#[test]
fn defaults_of_layers() {
    with_seed(4, || {
        let third = 3f64.sqrt();
        let bound = 1.0 / 10.0;
        looks(&Linear::new(100, 80).weight.tensor(), bound / third, Some(bound));
        let bias = Linear::new(100, 4000).bias.unwrap().tensor();
        looks(&bias, bound / third, Some(bound));
        let bound = 1.0 / (3.0f64 * 25.0).sqrt();
        looks(&Conv2d::new(3, 100, 5).weight.tensor(), bound / third, Some(bound));
        looks(&Conv2d::new(6, 100, 5).groups(2).weight.tensor(), bound / third, Some(bound));
        looks(&Embedding::new(300, 20).weight.tensor(), 1.0, None);
        let bound = 0.25;
        for (name, p) in Lstm::new(40, 16).num_layers(2).bidirectional(true).named_parameters() {
            let (_, _, max) = moments(&p.tensor());
            assert!(max <= bound && max > 0.9 * bound, "{name}: {max}");
        }
        let attention = MultiHeadAttention::new(40, 4);
        let state = attention.state_dict();
        let xavier = (2.0f64 / 160.0).sqrt();
        looks(state.get("in_proj_weight").unwrap(), xavier, Some(xavier * third));
        for zero in ["in_proj_bias", "out_proj.bias"] {
            assert_eq!(state.get(zero).unwrap().abs().max().item::<f64>(), 0.0, "{zero}");
        }
        let layer = Linear::new(3, 4).to_dtype(DType::BF16);
        init::fill(&layer.weight, |shape| init::ones(shape));
        assert_eq!(layer.weight.tensor().dtype(), DType::BF16);
        assert_eq!(layer.weight.tensor().to_f64_vec(), [1.0; 12]);
        init::fill(&layer.weight, |shape| init::xavier_uniform(shape, 1.0));
    });
}
