//! The work that is timed. The peers have the same cases under the same names.

use crate::timing::{How, Measure};
use crate::work::{self, Transformer};
use bench_measure::{Work, shapes};
use ferrograd::models::bert::{Bert, BertConfig, BertForSequenceClassification};
use ferrograd::models::{Cnn, CnnConfig, Gpt, GptConfig, KvCache, LstmClassifier, LstmClassifierConfig};
use ferrograd::prelude::*;
use std::sync::Mutex;

/// The groups, in order.
pub const GROUPS: [&str; 14] = [
    "gemm",
    "layouts",
    "attention",
    "elementwise",
    "rope",
    "gated",
    "add_norm",
    "feed_forward",
    "lstm",
    "gpt",
    "bert",
    "cnn",
    "decode",
    "overhead",
];

/// The groups whose cases have a process each: the memory of these training steps is compared.
pub const APART: [&str; 2] = ["lstm", "gpt"];

/// The names of a group's cases.
pub fn names(group: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let names = Mutex::default();
    run(group, Measure { how: How::Name(&names), only: None })?;
    Ok(names.into_inner()?)
}

/// Runs one group.
pub fn run(group: &str, measure: Measure) -> Result<(), Box<dyn std::error::Error>> {
    manual_seed(0);
    match group {
        "gemm" => gemm(measure),
        "layouts" => layouts(measure),
        "attention" => attention(measure),
        "lstm" => lstm(measure)?,
        "gpt" => gpt(measure)?,
        "bert" => bert(measure)?,
        "elementwise" => elementwise(measure),
        "rope" => rope(measure),
        "gated" => gated(measure),
        "add_norm" => add_norm(measure),
        "feed_forward" => feed_forward(measure),
        "cnn" => cnn(measure)?,
        "decode" => decode(measure)?,
        "overhead" => overhead(measure),
        other => return Err(format!("no group {other:?}; there are {GROUPS:?}").into()),
    }
    Ok(())
}

fn gemm(measure: Measure) {
    let dtypes = [("f32", DType::F32), ("bf16", DType::BF16)];
    let randn = |shape: [usize; 2], dtype| Tensor::randn(shape).to_dtype(dtype);
    for (name, dtype) in dtypes {
        for (m, k, n) in shapes::GEMM {
            let (a, b) = (randn([m, k], dtype), randn([k, n], dtype));
            let work = work::gemm(m, k, n, dtype == DType::BF16);
            measure.case(&format!("gemm {name} {m}×{k}×{n}"), work, || drop(a.matmul(&b)));
        }
    }
    for (m, k, n) in [(1024, 1024, 1024), (512, 768, 3072), (512, 3072, 768)] {
        let [a, b] = [[m, k], [k, n]].map(|shape| Tensor::randint_on(-128, 128, shape, DType::I8, &Device::CPU));
        measure.case(&format!("gemm int8 {m}×{k}×{n}"), work::int_gemm(m, k, n), || drop(a.int_mm(&b)));
    }
    // A weight as layers store it.
    let (m, k, n) = shapes::GEMM_WEIGHT;
    for (name, dtype) in dtypes {
        let (x, w) = (randn([m, k], dtype), randn([n, k], dtype));
        let work = work::gemm(m, k, n, dtype == DType::BF16);
        measure.case(&format!("gemm {name} {m}×{k}×{n}, weight N×K"), work, || drop(x.matmul(&w.t())));
    }
}

/// Products of operands that are stored transposed and read through views.
fn layouts(measure: Measure) {
    let stored = |shape: [usize; 2], transposed| {
        if transposed { Tensor::randn([shape[1], shape[0]]).t() } else { Tensor::randn(shape) }
    };
    for (m, k, n) in shapes::LAYOUT_GEMM {
        for (layout, a_transposed, b_transposed) in shapes::LAYOUTS {
            let (a, b) = (stored([m, k], a_transposed), stored([k, n], b_transposed));
            let work = work::gemm(m, k, n, false);
            measure.case(&format!("gemm f32 {m}×{k}×{n} {layout}"), work, || drop(a.matmul(&b)));
        }
    }
}

fn attention(measure: Measure) {
    for (length, shape) in [("", shapes::ATTENTION), (" T2048", shapes::LONG_ATTENTION)] {
        attention_of(measure, length, shape);
    }
}

fn attention_of(measure: Measure, length: &str, shape: [usize; 4]) {
    let [q, k, v] = [(); 3].map(|_| Var::leaf(Tensor::randn(shape)));
    let options = AttentionOptions { causal: true, ..Default::default() };
    let forward = work::attention(shape);
    measure.case(&format!("attention causal{length} forward"), forward, || {
        no_grad(|| drop(q.scaled_dot_product_attention(&k, &v, &options)));
    });
    let g = Tensor::ones(shape);
    // Backward has twice the products of forward; recomputing the scores, as flash attention does, is a choice.
    let both = Work { flops: 3.0 * forward.flops, ..work::memory(8, shape.iter().product()) };
    measure.case(&format!("attention causal{length} forward + backward"), both, || {
        drop(q.scaled_dot_product_attention(&k, &v, &options).backward_from(&g));
    });
}

/// Embedding, LSTM, one logit: a training step of Keras's IMDb classifier.
fn lstm(measure: Measure) -> Result<(), Error> {
    for (e, h, t) in shapes::LSTM {
        let name = format!("lstm step E{e} H{h} T{t}");
        if !measure.wants(&name) {
            continue;
        }
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
        measure.case(&name, work::lstm_step(128, e, h, t), || {
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
    let sizes = Transformer { layers: 6, width: 384, vocab: 65, positions: 256 };
    // A token sees half of the others.
    let forward = sizes.forward(12, 256, 128.0) + sizes.head(12 * 256);
    let work = work::training(forward, sizes.blocks() + sizes.embeddings());
    for (name, dtype) in [("gpt step f32", DType::F32), ("gpt step bf16 autocast", DType::BF16)] {
        measure.case(name, Work { bf16: dtype == DType::BF16, ..work }, || {
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
    let sizes = Transformer { layers: 6, width: 384, vocab: 30522, positions: 512 };
    let forward = sizes.forward(8, 128, 128.0);
    let work = Work { flops: forward, ..work::memory(1, sizes.blocks() as usize) };
    measure.case("MiniLM-shaped bert inference 8×128", work, || no_grad(|| drop(model.forward(&x, None, None))));

    let config = BertConfig { hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0, ..config };
    let model = BertForSequenceClassification::new(&config)?;
    let mut adam = AdamW::new(model.parameters()).lr(1e-5);
    let y = Tensor::randint(0, 2, [8]);
    let work = work::training(forward, sizes.blocks() + sizes.embeddings());
    measure.case("MiniLM-shaped bert training step 8×128", work, || {
        let loss = cross_entropy(&model.forward(&x, None, None), &y);
        adam.step(&loss.backward());
    });
    Ok(())
}

/// Operations that memory limits, on 16 million elements.
fn elementwise(measure: Measure) {
    const N: usize = shapes::ELEMENTS;
    let (x, y) = (Tensor::randn([N / 1024, 1024]), Tensor::randn([N / 1024, 1024]));
    measure.case("add 16M", work::memory(3, N), || drop(x.add(&y)));
    measure.case("gelu 16M", work::memory(2, N), || drop(x.gelu()));
    measure.case("gelu tanh 16M", work::memory(2, N), || drop(x.gelu_tanh()));
    measure.case("softmax 16M by 1024", work::memory(2, N), || drop(x.softmax(-1)));
    measure.case("sum 16M", work::memory(1, N), || drop(x.sum()));
    let x = Var::leaf(Tensor::randn([N / 768, 768]));
    let [w, b] = [(); 2].map(|()| Var::leaf(Tensor::randn(768)));
    let norm = || x.layer_norm(&[768], Some(&w), Some(&b), 1e-5);
    measure.case("layer norm 16M by 768, forward", work::memory(2, N), || no_grad(|| drop(norm())));
    let g = Tensor::ones(x.shape());
    // Forward as above; backward reads x and g and writes the gradient of x.
    measure.case("layer norm 16M by 768, forward + backward", work::memory(5, N), || drop(norm().backward_from(&g)));
}

/// Times what `f` makes of `x` forward without history, and forward and backward, from a gradient of ones of x's shape.
fn both_passes(measure: Measure, name: &str, [forward, both]: [Work; 2], x: &Var, f: impl Fn() -> Var) {
    let g = Tensor::ones(x.shape());
    measure.case(&format!("{name}, forward"), forward, || no_grad(|| drop(f())));
    measure.case(&format!("{name}, forward + backward"), both, || drop(f().backward_from(&g)));
}

/// Rotary embedding of the queries of [`attention`]'s longer case. Backward turns the gradient back.
fn rope(measure: Measure) {
    let shape = shapes::LONG_ATTENTION;
    let (rope, x) = (RotaryEmbedding::new(shape[3], shape[2]), Var::leaf(Tensor::randn(shape)));
    let work = [2, 4].map(|tensors| work::memory(tensors, x.numel()));
    both_passes(measure, "rope 4×12×2048×64", work, &x, || rope.forward(&x));
}

/// Gated activations of 16 million elements. Backward reads both operands and g and writes two gradients.
fn gated(measure: Measure) {
    const N: usize = shapes::ELEMENTS;
    let [x, up] = [(); 2].map(|()| Var::leaf(Tensor::randn([N / 1024, 1024])));
    let work = [3, 8].map(|tensors| work::memory(tensors, N));
    both_passes(measure, "swiglu 16M", work, &x, || x.swiglu(&up));
    both_passes(measure, "geglu 16M", work, &x, || x.geglu(&up));
}

/// Norms of a sum with a residual, which both are results. Backward reads the sum and g and writes the gradient of its terms.
fn add_norm(measure: Measure) {
    const N: usize = shapes::ELEMENTS;
    let [x, residual] = [(); 2].map(|()| Var::leaf(Tensor::randn([N / 768, 768])));
    let [w, b] = [(); 2].map(|()| Var::leaf(Tensor::randn(768)));
    let work = [4, 7].map(|tensors| work::memory(tensors, N));
    both_passes(measure, "add + layer norm 16M by 768", work, &x, || {
        x.add_layer_norm(&residual, &[768], Some(&w), Some(&b), 1e-5).0
    });
    both_passes(measure, "add + rms norm 16M by 768", work, &x, || x.add_rms_norm(&residual, &[768], Some(&w), 1e-5).0);
}

/// GPT-2's, on 512 tokens: two products with a GELU between them, and their gradients, each of which is two products.
fn feed_forward(measure: Measure) {
    let (m, c, h) = (512, 768, 3072);
    let operands = [&[m, c][..], &[h, c], &[h], &[c, h], &[c]];
    let [x, w1, b1, w2, b2] = operands.map(|shape| Var::leaf(Tensor::randn(shape) * 0.02));
    let forward = Work { flops: 2.0 * work::gemm(m, c, h, false).flops, ..work::memory(2, m * c + c * h) };
    let both = Work { flops: 3.0 * forward.flops, ..work::memory(1, 5 * m * c + 6 * c * h) };
    both_passes(measure, "feed forward 512×768×3072", [forward, both], &x, || {
        x.feed_forward([&w1, &w2], [Some(&b1), Some(&b2)], Activation::GeluTanh)
    });
}

/// Keras's MNIST example.
fn cnn(measure: Measure) -> Result<(), Error> {
    let model = Cnn::new(&CnnConfig::default())?;
    let mut adam = Adam::new(model.parameters()).lr(1e-4);
    let (x, y) = (Var::from(Tensor::randn([64, 1, 28, 28])), Tensor::randint(0, 10, [64]));
    measure.case("cnn training step, batch 64", work::cnn_step(64), || {
        let loss = cross_entropy(&model.forward(&x), &y);
        adam.step(&loss.backward());
    });
    measure.case("cnn inference, batch 64", work::cnn_forward(64), || no_grad(|| drop(model.forward(&x))));
    Ok(())
}

/// One token of GPT-2 124M after another, at positions 64 to 192.
fn decode(measure: Measure) -> Result<(), Error> {
    let model = Gpt::new(&GptConfig::default())?;
    model.eval();
    let token = Tensor::randint(0, 50257, [1, 1]);
    let step = |model: &Gpt, cache: &mut KvCache| {
        if cache.len() >= 192 {
            cache.truncate(64);
        }
        std::hint::black_box(model.forward_cached(&token, cache).select(0, 0).select(0, -1).argmax(-1).item::<i64>());
    };
    let prompt = Tensor::randint(0, 50257, [1, 64]);
    let mut cache = KvCache::new(&model);
    model.forward_cached(&prompt, &mut cache);
    measure.case("gpt2 decode f32", decode_work(false), || step(&model, &mut cache));
    let model = model.to_dtype(DType::BF16);
    let mut cache = KvCache::new(&model);
    model.forward_cached(&prompt, &mut cache);
    measure.case("gpt2 decode bf16", decode_work(true), || step(&model, &mut cache));
    Ok(())
}

/// Every weight and, of the cache, 128 keys and values in each layer are read for a token.
fn decode_work(bf16: bool) -> Work {
    let sizes = Transformer { layers: 12, width: 768, vocab: 50257, positions: 0 };
    let numbers = sizes.blocks() + sizes.embeddings() + (2 * 12 * 768 * 128) as f64;
    let bytes = if bf16 { 2.0 } else { 4.0 } * numbers;
    Work { flops: sizes.forward(1, 1, 128.0) + sizes.head(1), bytes, bf16 }
}

/// What an operation costs beside its arithmetic.
fn overhead(measure: Measure) {
    measure.case("30,000 scalar adds, forward + backward", work::NONE, || {
        let x = Var::leaf(Tensor::scalar(0.0f32));
        let y = (0..30_000).fold(x.clone(), |y, _| y + 1.0);
        assert_eq!(y.backward().wrt(&x).item::<f32>(), 1.0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_found_by_its_name() {
        let all = names("lstm").unwrap();
        assert_eq!(all.len(), shapes::LSTM.len());
        let found = Mutex::default();
        run("lstm", Measure { how: How::Name(&found), only: Some(&all[2]) }).unwrap();
        assert_eq!(found.into_inner().unwrap(), all[2..3]);
    }

    #[test]
    fn groups_apart_are_groups() {
        assert!(APART.iter().all(|group| GROUPS.contains(group)));
    }
}
