//! Promises that need all parts together.

use ferrograd::models::{Gpt, GptConfig};
use ferrograd::prelude::*;

/// Resident memory of this process in bytes, where the system says.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

#[test]
fn a_hundred_thousand_steps_do_not_grow_the_process() {
    let (weight, bias) = (Param::new(Tensor::zeros([4, 4])), Param::new(Tensor::zeros([4])));
    let mut adam = Adam::new([weight.clone(), bias.clone()]).lr(1e-3);
    let (x, y) = with_seed(1, || (Var::from(Tensor::randn([2, 4])), Var::from(Tensor::randn([2, 4]))));
    let mut step = || {
        let loss = mse(&(x.matmul(&weight.var()) + bias.var()).tanh(), &y);
        adam.step(&loss.backward());
    };
    (0..2_000).for_each(|_| step());
    let before = resident();
    (0..100_000).for_each(|_| step());
    if let (Some(before), Some(after)) = (before, resident()) {
        assert!(after < before + (4 << 20), "resident memory grew from {before} to {after} bytes");
    }
}

/// The losses of the last steps of one and the same training, in f32 or with bf16 products.
fn train(dtype: DType) -> f64 {
    with_seed(5, || {
        let config = GptConfig {
            vocab_size: 16,
            n_positions: 16,
            n_embd: 32,
            n_layer: 2,
            n_head: 4,
            embd_pdrop: 0.0,
            resid_pdrop: 0.0,
            attn_pdrop: 0.0,
            ..GptConfig::default()
        };
        let model = Gpt::new(&config).unwrap();
        let mut adam = AdamW::new(model.parameters()).lr(3e-3);
        let mut losses = Vec::new();
        for _ in 0..60 {
            // Each token follows from the last: t → 3t + 1 (mod 16), with a random start.
            let start = Tensor::randint(0, 16, [8]).to_vec::<i64>();
            let rows: Vec<i64> = start
                .iter()
                .flat_map(|&s| (0..17).scan(s, |t, _| std::mem::replace(t, (3 * *t + 1) % 16).into()))
                .collect();
            let rows = Tensor::from_vec(rows, [8, 17]);
            let loss = autocast(dtype, || model.loss(&rows.narrow(1, 0, 16), &rows.narrow(1, 1, 16)));
            let grads = loss.backward();
            for p in model.parameters() {
                assert_eq!((p.tensor().dtype(), grads.wrt(&p).dtype()), (DType::F32, DType::F32));
            }
            adam.step(&grads);
            losses.push(loss.item::<f64>());
        }
        losses[40..].iter().sum::<f64>() / 20.0
    })
}

#[test]
fn bf16_autocast_trains_to_the_same_loss() {
    let (single, mixed) = (train(DType::F32), train(DType::BF16));
    assert!(single < 2.0, "f32 did not learn: {single}");
    assert!((mixed / single - 1.0).abs() < 0.01, "f32 {single}, bf16 {mixed}");
}

#[test]
fn every_parameter_gets_its_gradient() {
    let model = Sequential::new().add(Linear::new(3, 4)).add(LayerNorm::new([4])).add(Linear::new(4, 2));
    let x = Var::from(Tensor::randn([5, 3]));
    let grads = model.forward(&x).square().sum().backward();
    for (name, p) in model.named_parameters() {
        let g = grads.get(&p).unwrap_or_else(|| panic!("{name} has no gradient"));
        assert!(g.abs().sum().item::<f32>() > 0.0, "the gradient of {name} is zero");
    }
}

#[test]
fn gradients_that_meet_are_added_in_any_order() {
    let gradient = |swapped: bool| {
        let x = Var::leaf(Tensor::ones([1, 1, 2, 2]));
        let (up, plain) = (x.interpolate(&[4, 4], Interpolation::Nearest).sum(), x.sum());
        let y = if swapped { &plain + &up } else { &up + &plain };
        y.backward().wrt(&x).to_vec::<f32>()
    };
    assert_eq!(gradient(false), [5.0; 4]);
    assert_eq!(gradient(true), [5.0; 4]);
}
