//! Training steps and inference of whole models.

use crate::ops::causal_mask;
use crate::transformer::{Bert, Cache, Gpt, Sizes, build};
use crate::{CPU, adam, case, randint, randn};
use bench_measure::{Bench, shapes};
use candle_core::{D, DType, Module, Result, Tensor};
use candle_nn::{Optimizer, RNN, VarBuilder, VarMap, conv2d, embedding, linear, loss};

/// Embedding, LSTM, one logit.
pub fn lstm(bench: &Bench) -> Result<()> {
    for (e, h, t) in shapes::LSTM {
        let name = format!("lstm step E{e} H{h} T{t}");
        if !bench.wants(&name) {
            continue;
        }
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &CPU);
        let embed = embedding(10_000, e, vb.pp("embed"))?;
        let lstm = candle_nn::lstm(e, h, Default::default(), vb.pp("lstm"))?;
        let head = linear(h, 1, vb.pp("head"))?;
        let mut adam = adam(&variables, 0.0)?;
        let x = randint(10_000, &[128, t])?;
        let y = randint(2, &[128, 1])?.to_dtype(DType::F32)?;
        case(bench, &name, || {
            let states = lstm.seq(&embed.forward(&x)?)?;
            let last = states.last().expect("there are steps").h();
            adam.backward_step(&loss::binary_cross_entropy_with_logit(&head.forward(last)?, &y)?)
        });
    }
    Ok(())
}

pub fn gpt(bench: &Bench) -> Result<()> {
    let (b, t, vocab) = (12, 256, 65);
    let s = Sizes { layers: 6, width: 384, heads: 6, positions: t, vocab, pre_norm: true, bias: false, train: true };
    let (model, variables) = build(true, DType::F32, |vb| Gpt::new(&s, vb))?;
    let mut adam = adam(&variables, 0.1)?;
    let (x, y) = (randint(vocab as u32, &[b, t])?, randint(vocab as u32, &[b * t])?);
    let mask = causal_mask(t)?;
    case(bench, "gpt step f32", || {
        adam.backward_step(&loss::cross_entropy(&model.forward(&x, Some(&mask), None)?, &y)?)
    });
    Ok(())
}

pub fn bert(bench: &Bench) -> Result<()> {
    let vocab = 30522;
    let sizes =
        |train| Sizes { layers: 6, width: 384, heads: 12, positions: 512, vocab, pre_norm: false, bias: true, train };
    let x = randint(vocab as u32, &[8, 128])?;
    let (model, _) = build(false, DType::F32, |vb| Bert::new(&sizes(false), vb))?;
    case(bench, "MiniLM-shaped bert inference 8×128", || model.pooled(&x));
    let (model, variables) = build(true, DType::F32, |vb| Bert::new(&sizes(true), vb))?;
    let mut adam = adam(&variables, 0.01)?;
    let y = randint(2, &[8])?;
    case(bench, "MiniLM-shaped bert training step 8×128", || {
        adam.backward_step(&loss::cross_entropy(&model.logits(&x)?, &y)?)
    });
    Ok(())
}

/// Keras's MNIST example.
pub fn cnn(bench: &Bench) -> Result<()> {
    let new = |vb: VarBuilder| {
        let conv = |i, o, name| conv2d(i, o, 3, Default::default(), vb.pp(name));
        let convs = [conv(1, 32, "conv1")?, conv(32, 64, "conv2")?, conv(64, 64, "conv3")?];
        let (fc1, fc2) = (linear(576, 64, vb.pp("fc1"))?, linear(64, 10, vb.pp("fc2"))?);
        Ok(move |x: &Tensor| {
            let y = convs[0].forward(x)?.relu()?.max_pool2d(2)?;
            // Max pooling has a backward only where it leaves no remainder.
            let y = convs[1].forward(&y)?.relu()?.narrow(2, 0, 10)?.narrow(3, 0, 10)?.contiguous()?.max_pool2d(2)?;
            let y = convs[2].forward(&y)?.relu()?.flatten_from(1)?;
            fc2.forward(&fc1.forward(&y)?.relu()?)
        })
    };
    let (x, y) = (randn(&[64, 1, 28, 28])?, randint(10, &[64])?);
    let (model, variables) = build(true, DType::F32, new)?;
    let mut adam = adam(&variables, 0.0)?;
    case(bench, "cnn training step, batch 64", || adam.backward_step(&loss::cross_entropy(&model(&x)?, &y)?));
    let (model, _) = build(false, DType::F32, new)?;
    case(bench, "cnn inference, batch 64", || model(&x));
    Ok(())
}

/// One token of GPT-2 124M after another, at positions 64 to 192.
pub fn decode(bench: &Bench) -> Result<()> {
    let s = Sizes {
        layers: 12,
        width: 768,
        heads: 12,
        positions: 1024,
        vocab: 50257,
        pre_norm: true,
        bias: true,
        train: false,
    };
    let token = randint(50257, &[1, 1])?;
    for (name, dtype) in [("f32", DType::F32), ("bf16", DType::BF16)] {
        let (model, _) = build(false, dtype, |vb| Gpt::new(&s, vb))?;
        let empty = || Tensor::zeros((1, s.heads, s.positions, s.width / s.heads), dtype, &CPU);
        let cache = |_| Ok(Cache { keys: empty()?, values: empty()?, past: 64 });
        let mut caches = (0..s.layers).map(cache).collect::<Result<Vec<_>>>()?;
        case(bench, &format!("gpt2 decode {name}"), || {
            if caches[0].past >= 192 {
                caches.iter_mut().for_each(|c| c.past = 64);
            }
            model.forward(&token, None, Some(&mut caches))?.argmax(D::Minus1)?.to_vec1::<u32>()
        });
    }
    Ok(())
}
