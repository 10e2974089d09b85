//! The work that is timed. `peers/torch_cpu.py` has the same cases under the same names.

use crate::timing::Measure;
use ferrograd::models::bert::{Bert, BertConfig};
use ferrograd::models::{Gpt, GptConfig, LstmClassifier, LstmClassifierConfig};
use ferrograd::prelude::*;

/// The groups, in order.
pub const GROUPS: [&str; 5] = ["gemm", "attention", "lstm", "gpt", "bert"];

/// Runs one group.
pub fn run(group: &str, measure: Measure) -> Result<(), Box<dyn std::error::Error>> {
    manual_seed(0);
    match group {
        "gemm" => gemm(measure),
        "attention" => attention(measure),
        "lstm" => lstm(measure)?,
        "gpt" => gpt(measure)?,
        "bert" => bert(measure)?,
        other => return Err(format!("no group {other:?}; there are {GROUPS:?}").into()),
    }
    Ok(())
}

fn gemm(measure: Measure) {
    let shapes = [
        (64, 64, 64),
        (128, 128, 128),
        (256, 256, 256),
        (512, 512, 512),
        (1024, 1024, 1024),
        (2048, 2048, 2048),
        (512, 768, 3072),
        (512, 3072, 768),
        (2048, 64, 2048),
        (1, 768, 50257),
    ];
    for (m, k, n) in shapes {
        let (a, b) = (Tensor::randn([m, k]), Tensor::randn([k, n]));
        measure.case(&format!("gemm f32 {m}×{k}×{n}"), 2.0 * (m * k * n) as f64, || drop(a.matmul(&b)));
    }
}

fn attention(measure: Measure) {
    let (b, h, t, d) = (4, 12, 512, 64);
    let flops = 4.0 * (b * h * t * t * d) as f64;
    let [q, k, v] = [(); 3].map(|_| Var::leaf(Tensor::randn([b, h, t, d])));
    let options = AttentionOptions { causal: true, ..Default::default() };
    measure.case("attention causal forward", flops / 2.0, || {
        no_grad(|| drop(q.scaled_dot_product_attention(&k, &v, &options)));
    });
    let g = Tensor::ones([b, h, t, d]);
    measure.case("attention causal forward + backward", 1.75 * flops, || {
        drop(q.scaled_dot_product_attention(&k, &v, &options).backward_from(&g));
    });
}

/// Embedding, LSTM, one logit: a training step of Keras's IMDb classifier.
fn lstm(measure: Measure) -> Result<(), Error> {
    for (e, h, t) in [(32, 32, 120), (128, 128, 120), (32, 32, 256), (128, 128, 256)] {
        let model = LstmClassifier::new(&LstmClassifierConfig {
            vocab_size: 10_000,
            embed_dim: e,
            hidden_size: h,
            num_layers: 1,
            bidirectional: false,
            num_classes: 1,
            ..Default::default()
        })?;
        let mut adam = Adam::new(model.parameters()).lr(1e-4);
        let x = Tensor::randint(0, 10_000, [128, t]);
        let y = Tensor::randint(0, 2, [128, 1]).to_dtype(DType::F32);
        measure.case(&format!("lstm step E{e} H{h} T{t}"), 0.0, || {
            let loss = bce_with_logits(&model.forward(&x, None), &y);
            adam.step(&loss.backward());
        });
    }
    Ok(())
}

fn gpt(measure: Measure) -> Result<(), Error> {
    let config = GptConfig {
        vocab_size: 65,
        n_positions: 256,
        n_embd: 384,
        n_layer: 6,
        n_head: 6,
        embd_pdrop: 0.0,
        resid_pdrop: 0.0,
        attn_pdrop: 0.0,
        bias: false,
        ..GptConfig::default()
    };
    let model = Gpt::new(&config)?;
    let mut adam = AdamW::new(model.parameters()).lr(1e-4).weight_decay(0.1);
    let (x, y) = (Tensor::randint(0, 65, [12, 256]), Tensor::randint(0, 65, [12, 256]));
    for (name, dtype) in [("gpt step f32", DType::F32), ("gpt step bf16 autocast", DType::BF16)] {
        measure.case(name, 217e9, || {
            let loss = autocast(dtype, || model.loss(&x, &y));
            adam.step(&loss.backward());
        });
    }
    Ok(())
}

fn bert(measure: Measure) -> Result<(), Error> {
    let config = BertConfig {
        vocab_size: 30522,
        hidden_size: 384,
        num_hidden_layers: 6,
        num_attention_heads: 12,
        intermediate_size: 1536,
        ..BertConfig::default()
    };
    let model = Bert::new(&config)?;
    model.eval();
    let x = Tensor::randint(0, 30522, [8, 128]);
    measure.case("MiniLM-shaped bert inference 8×128", 0.0, || no_grad(|| drop(model.forward(&x, None, None))));
    Ok(())
}
