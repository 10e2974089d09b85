//! The optimiser's step, recurrent layers, and a whole training step of GPT-2.

use super::shapes;
use super::suite::Suite;
use super::work::{self, Transformer};
use bench_measure::Work;
use ferrograd::cuda::CudaGraph;
use ferrograd::models::{Gpt, GptConfig};
use ferrograd::prelude::*;

fn gpt(suite: &Suite) -> Gpt {
    let s = &suite.shapes.gpt2;
    let config = GptConfig {
        vocab_size: s.vocab,
        n_positions: s.time,
        n_embd: s.width,
        n_layer: s.layers,
        n_head: s.heads,
        embd_pdrop: 0.0,
        resid_pdrop: 0.0,
        attn_pdrop: 0.0,
        ..GptConfig::default()
    };
    Gpt::new(&config).expect("sizes of a GPT")
}

/// One step over GPT-2's parameters in f32, whose gradients are at hand.
pub fn adamw(suite: &Suite) {
    let s = &suite.shapes.gpt2;
    let count = sizes(s).blocks() + sizes(s).embeddings();
    // Reads the parameter, its gradient and two moments, writes all but the gradient.
    let work = work::elements(DType::F32, 7, 14, count as usize);
    suite.case(&format!("adamw f32 {} layers × {}", s.layers, s.width), work, || {
        let parameters = gpt(suite).parameters();
        let mut gradients = Gradients::default();
        for p in &parameters {
            gradients.insert(p, suite.randn(p.tensor().shape().clone(), DType::F32));
        }
        let mut adam = AdamW::new(parameters).lr(1e-4).weight_decay(0.1);
        move || adam.step(&gradients)
    });
}

/// Layers of an LSTM over a batch of sequences.
pub fn lstm(suite: &Suite) {
    for shapes::Lstm { name, batch, time, embed, hidden, layers } in &suite.shapes.lstm {
        for dtype in [DType::F32, DType::BF16] {
            let name = |pass| format!("lstm {dtype} {name}, B{batch} T{time} {pass}");
            let forward = work::lstm([*batch, *time, *embed, *hidden, *layers], dtype);
            let make = || {
                let layer = Lstm::new(*embed, *hidden).num_layers(*layers).to(&suite.device).to_dtype(dtype);
                (layer, Var::leaf(suite.randn([*batch, *time, *embed], dtype)))
            };
            suite.case(&name("forward"), forward, || {
                let (layer, x) = make();
                move || no_grad(|| drop(layer.forward(&x)))
            });
            let both = Work { flops: 3.0 * forward.flops, bytes: 3.0 * forward.bytes, ..forward };
            suite.step(&name("forward + backward"), both, || {
                let (layer, x) = make();
                let g = suite.randn([*batch, *time, *hidden], dtype);
                move || drop(layer.forward(&x).0.backward_from(&g))
            });
        }
    }
}

/// Forward, backward and AdamW, with bf16 products: as a graph, and launch by launch.
pub fn gpt2(suite: &Suite) {
    let s = &suite.shapes.gpt2;
    let sizes = sizes(s);
    // A token sees half of the others.
    let forward = sizes.forward(s.batch, s.time, s.time as f64 / 2.0) + sizes.head(s.batch * s.time);
    let work = Work { bf16: true, ..work::training(forward, sizes.blocks() + sizes.embeddings()) };
    let case = format!("gpt2 training step bf16 B{} T{}", s.batch, s.time);
    let prepare = || {
        let model = gpt(suite);
        let mut adam = AdamW::new(model.parameters()).lr(1e-4).weight_decay(0.1);
        let step = move |x: &Tensor, y: &Tensor| {
            let loss = autocast(DType::BF16, || model.loss(x, y));
            adam.step(&loss.backward());
            loss.into_tensor()
        };
        (step, [(); 2].map(|()| suite.randint(s.vocab, [s.batch, s.time])))
    };
    suite.step(&case, work, || {
        let (mut step, [x, y]) = prepare();
        step(&x, &y);
        let captured = CudaGraph::capture(&suite.device, &[&x, &y], |inputs| step(&inputs[0], &inputs[1]));
        let (mut graph, _) = captured.unwrap_or_else(|error| panic!("{error}"));
        // What the step holds, the graph reads and writes.
        move || {
            let _ = &step;
            drop(graph.replay(&[&x, &y]));
        }
    });
    suite.step(&format!("{case} without a graph"), work, || {
        let (mut step, [x, y]) = prepare();
        move || drop(step(&x, &y))
    });
}

fn sizes(s: &shapes::Gpt2) -> Transformer {
    Transformer { layers: s.layers, width: s.width, vocab: s.vocab, positions: s.time }
}
