//! Fused attention against the composition, and the op's rules.

mod plain;
mod sample;

use ferrograd_tensor::ops::attention::{AttentionOptions, DropoutStream, causal_mask};
use ferrograd_tensor::random::RngState;
use ferrograd_tensor::{DType, Device, Tensor, catch};
use plain::device as plain;
use proptest::prelude::*;
use sample::{distance, values};

/// A mask that broadcasts over some of the dimensions: bool, or float with some −∞.
fn mask(kind: usize, dims: [usize; 4], broadcast: usize, seed: u64) -> Option<Tensor> {
    let shape: Vec<usize> = (0..4).map(|d| if broadcast >> d & 1 == 1 { 1 } else { dims[d] }).collect();
    let x = values(shape, DType::F64, seed);
    let x = if broadcast & 3 == 3 { x.squeeze(0).squeeze(0) } else { x };
    match kind {
        0 => None,
        1 => Some(x.gt_scalar(-0.4)),
        _ => Some(x.masked_fill(&x.gt_scalar(0.7), f64::NEG_INFINITY)),
    }
}

/// Some of `tk` keys for each batch.
fn lengths(b: usize, tk: usize, seed: u64) -> Tensor {
    Tensor::from_vec((0..b as u64).map(|b| ((seed / 7 + 11 * b) % (tk as u64 + 1)) as i64).collect(), b)
}

fn to_plain(options: &AttentionOptions) -> AttentionOptions {
    let there = |x: &Option<Tensor>| x.as_ref().map(|x| x.to_device(&plain()));
    AttentionOptions { mask: there(&options.mask), key_lengths: there(&options.key_lengths), ..options.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn fused_is_composed(
        (b, hk, group, tq, tk) in (0usize..3, 1usize..3, 1usize..4, 0usize..6, 0usize..6),
        (d, dv) in (1usize..5, 1usize..5),
        (kind, broadcast, causal, offset) in (0usize..3, 0usize..16, any::<bool>(), 0usize..3),
        (drop, scale, dtype, seed) in (any::<bool>(), any::<bool>(), 0usize..4, 0u64..1 << 40),
    ) {
        let dtype = [DType::F64, DType::F32, DType::BF16, DType::F16][dtype];
        let h = hk * group;
        let q = values([b, h, tq, d], dtype, seed);
        let k = values([b, hk, tk, d], dtype, seed / 5);
        let v = values([b, hk, tk, dv], dtype, seed / 25);
        let options = AttentionOptions {
            mask: mask(kind, [b, h, tq, tk], broadcast, seed / 125),
            causal,
            causal_offset: offset,
            window: (causal && seed % 2 == 0).then_some(1 + seed as usize % 3),
            key_lengths: (seed % 3 == 0).then(|| lengths(b, tk, seed)),
            scale: scale.then_some(0.7),
            dropout: drop.then_some(DropoutStream { p: 0.3, state: RngState { seed, offset: 5 } }),
        };
        let (y, lse) = q.attention_forward(&k, &v, &options);
        let [pq, pk, pv] = [&q, &k, &v].map(|x| x.to_device(&plain()));
        let (expected, expected_lse) = pq.attention_forward(&pk, &pv, &to_plain(&options));
        let expected = expected.to_device(&Device::default());
        // Weights of at most 1/(1 − p) and values of at most 1, in sums of at most five; half types round once at the end.
        let tolerance = 8.0 * dtype.accumulator().epsilon() + if dtype.is_half() { 2.0 * dtype.epsilon() } else { 0.0 };
        prop_assert!(distance(&y, &expected) <= tolerance, "{} {}", distance(&y, &expected), dtype);
        prop_assert!(distance(&lse, &expected_lse.to_device(&Device::default())) <= 16.0 * lse.dtype().epsilon());
        let weights = q.attention_weights(&k, &options);
        prop_assert_eq!(weights.dims(), [b, h, tq, tk]);
    }
}

#[test]
fn a_fully_masked_row_gives_zeros() {
    let [q, k, v] = [0, 1, 2].map(|seed| values([1, 2, 3, 4], DType::F32, seed));
    let rows = Tensor::new([[true], [false], [true]]);
    let options = AttentionOptions { mask: Some(rows), ..AttentionOptions::default() };
    let (y, lse) = q.attention_forward(&k, &v, &options);
    assert!(y.select(2, 1).eq_scalar(0.0).all().item::<bool>());
    assert!(y.is_finite().all().item::<bool>());
    assert!(lse.select(2, 1).eq_scalar(f64::NEG_INFINITY).all().item::<bool>());
    assert!(y.select(2, 0).ne_scalar(0.0).all().item::<bool>());
}

#[test]
fn causal_with_an_offset_is_the_last_rows_of_a_longer_sequence() {
    let [q, k, v] = [5, 6, 7].map(|seed| values([2, 2, 7, 4], DType::F64, seed));
    let causal = AttentionOptions { causal: true, ..AttentionOptions::default() };
    let whole = q.scaled_dot_product_attention(&k, &v, &causal);
    let last = q.narrow(2, 4, 3).scaled_dot_product_attention(&k, &v, &AttentionOptions { causal_offset: 4, ..causal });
    assert!(distance(&whole.narrow(2, 4, 3), &last) < 1e-15);
    let mask = |window| causal_mask(2, 3, 1, window, &Device::default()).to_vec::<bool>();
    assert_eq!(mask(None), [true, true, false, true, true, true]);
    assert_eq!(mask(Some(2)), [true, true, false, false, true, true]);
    assert_eq!(mask(Some(usize::MAX)), mask(None));
    assert_eq!(mask(Some(1)), [false, true, false, false, false, true]);
}

#[test]
fn a_window_is_a_mask_of_the_last_keys() {
    let [q, k, v] = [5, 6, 7].map(|seed| values([1, 2, 700, 4], DType::F64, seed));
    let mask = causal_mask(700, 700, 0, Some(90), &Device::default());
    let windowed = AttentionOptions { causal: true, window: Some(90), ..AttentionOptions::default() };
    let masked = AttentionOptions { mask: Some(mask), ..AttentionOptions::default() };
    let [windowed, masked] = [windowed, masked].map(|options| q.scaled_dot_product_attention(&k, &v, &options));
    assert!(distance(&windowed, &masked) < 1e-14);
}

#[test]
fn padding_behind_the_keys_is_not_looked_at() {
    let nan = |x: &Tensor, from: usize| {
        let [b, h, t, d]: [usize; 4] = x.dims_of("test");
        let padding = Tensor::full([b, h, t - from, d], f64::NAN).to_dtype(x.dtype());
        Tensor::cat(&[&x.narrow(2, 0, from), &padding], 2)
    };
    let [q, k, v] = [5, 6, 7].map(|seed| values([1, 2, 700, 4], DType::F64, seed));
    for length in [0, 1, 300, 699] {
        let options = AttentionOptions { key_lengths: Some(Tensor::new([length as i64])), ..Default::default() };
        let want = AttentionOptions::default();
        let want = q.scaled_dot_product_attention(&k.narrow(2, 0, length), &v.narrow(2, 0, length), &want);
        let padded = [&k, &v].map(|x| nan(x, length));
        let (got, lse) = q.attention_forward(&padded[0], &padded[1], &options);
        assert!(distance(&got, &want) < 1e-14, "{length}");
        let found = q.attention_backward(&padded[0], &padded[1], &options, (&got, &lse), &q, false);
        let Some(found) = found else { continue };
        for gradient in [&found.key, &found.value] {
            assert!(gradient.narrow(2, length, 700 - length).eq_scalar(0.0).all().item::<bool>(), "{length}");
        }
        assert!(found.query.is_finite().all().item::<bool>(), "{length}");
    }
}

#[test]
fn dropout_keeps_the_expectation_and_depends_on_its_stream_alone() {
    // Equal scores and values of one: an output is the share of its 400 weights that survived, over 0.75.
    let (q, k, v) = (Tensor::zeros([1, 1, 300, 4]), Tensor::zeros([1, 1, 400, 4]), Tensor::ones([1, 1, 400, 1]));
    let run = |offset: u64| {
        let dropout = Some(DropoutStream { p: 0.25, state: RngState { seed: 3, offset } });
        q.scaled_dot_product_attention(&k, &v, &AttentionOptions { dropout, ..AttentionOptions::default() })
    };
    let y = run(0);
    assert_eq!(y.to_vec::<f32>(), run(0).to_vec::<f32>());
    assert!(distance(&y, &run(1)) > 0.01);
    // 120 000 draws: the mean's standard deviation is √(0.25 / 0.75 / 120000) = 0.0017.
    let mean = y.mean().item::<f64>();
    assert!((mean - 1.0).abs() < 0.008, "{mean}");
}

#[test]
fn errors_name_the_rule() {
    let x = |shape: [usize; 4]| Tensor::zeros(shape);
    let run = |q: &Tensor, k: &Tensor, v: &Tensor, options: &AttentionOptions| {
        catch(|| q.scaled_dot_product_attention(k, v, options)).unwrap_err().to_string()
    };
    let (q, k) = (x([2, 4, 3, 8]), x([2, 2, 5, 8]));
    let plain = AttentionOptions::default();
    let three = Tensor::zeros([2, 3, 8]);
    let cases = [
        (run(&three, &k, &k, &plain), "queries must be [batch, heads, time, size], got [2, 3, 8]"),
        (run(&q, &x([1, 2, 5, 8]), &k, &plain), "batches differ: queries 2, keys 1, values 2"),
        (run(&q, &x([2, 2, 5, 7]), &k, &plain), "differ in size (8 ≠ 7)"),
        (run(&q, &k, &x([2, 2, 6, 8]), &plain), "must agree in heads and time"),
        (
            run(&q, &x([2, 3, 5, 8]), &x([2, 3, 5, 8]), &plain),
            "the number of query heads (4) must be a multiple of the number of key heads (3)",
        ),
        (
            run(&q, &k, &k, &AttentionOptions { mask: Some(Tensor::zeros([3, 4])), ..plain.clone() }),
            "the mask [3, 4] does not broadcast to [batch, heads, queries, keys] = [2, 4, 3, 5]",
        ),
        (
            run(&q, &k, &k, &AttentionOptions { mask: Some(Tensor::new([1i64])), ..plain.clone() }),
            "the mask must be bool (true = may attend) or float (added), got i64",
        ),
        (
            run(&q, &k, &k, &AttentionOptions { key_lengths: Some(Tensor::new([1i64])), ..plain.clone() }),
            "the keys' lengths must be one for each batch, [2], got [1]",
        ),
        (
            run(&q, &k, &k, &AttentionOptions { key_lengths: Some(Tensor::new([1.0, 2.0])), ..plain.clone() }),
            "the keys' lengths must be integers, got f64",
        ),
        (
            run(&q, &k, &k, &AttentionOptions { key_lengths: Some(Tensor::new([5i64, 6])), ..plain.clone() }),
            "there are 5 keys, and one of their lengths is 6",
        ),
        (
            run(&q, &k, &k, &AttentionOptions { window: Some(2), ..plain.clone() }),
            "a window is one of causal attention: set `causal`, too",
        ),
        (
            run(&q, &k, &k, &AttentionOptions { causal: true, window: Some(0), ..plain.clone() }),
            "a window of no keys: it must be at least 1",
        ),
    ];
    for (message, part) in cases {
        assert!(message.starts_with("scaled_dot_product_attention: ") && message.contains(part), "{message}");
    }
}
