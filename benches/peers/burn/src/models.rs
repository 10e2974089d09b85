//! Training steps and inference of whole models.

use crate::transformer::{Bert, Cache, Gpt, Sizes};
use crate::{case, inference, randint, randn, training};
use bench_measure::{Bench, shapes};
use burn::module::{Module, ModuleMapper, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::{BinaryCrossEntropyLossConfig, CrossEntropyLossConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, Lstm, LstmConfig};
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, FloatDType, Tensor, activation};

/// Times training steps: forward, backward, optimiser. A step takes the model and gives a new one.
fn train<M: Module>(
    bench: &Bench,
    name: &str,
    model: M,
    mut optimizer: ModuleOptimizer,
    loss: impl Fn(&M) -> Tensor<1>,
) {
    let mut slot = Some(model);
    bench.case(name, || {
        let model = slot.take().expect("the last step put it back");
        let gradients = GradientsParams::from_grads(loss(&model).backward(), &model);
        slot = Some(optimizer.step(1e-4, model, gradients));
    });
}

#[derive(Module, Debug)]
struct Classifier {
    embed: Embedding,
    lstm: Lstm,
    head: Linear,
}

/// Embedding, LSTM, one logit.
pub fn lstm(bench: &Bench) {
    let device = training();
    for (e, h, t) in shapes::LSTM {
        let name = format!("lstm step E{e} H{h} T{t}");
        if !bench.wants(&name) {
            continue;
        }
        let model = Classifier {
            embed: EmbeddingConfig::new(10_000, e).init(&device),
            lstm: LstmConfig::new(e, h, true).init(&device),
            head: LinearConfig::new(h, 1).init(&device),
        };
        let (x, y) = (randint(10_000, [128, t], &device), randint(2, [128, 1], &device));
        let bce = BinaryCrossEntropyLossConfig::new().with_logits(true).init(&device);
        train(bench, &name, model, AdamConfig::new().init(), |m| {
            let (_, last) = m.lstm.forward(m.embed.forward(x.clone()), None);
            bce.forward(m.head.forward(last.hidden), y.clone())
        });
    }
}

pub fn gpt(bench: &Bench) {
    let device = training();
    let (b, t, vocab) = (12, 256, 65);
    let sizes = Sizes { layers: 6, width: 384, heads: 6, positions: t, vocab, bias: false };
    let (x, y) = (randint(vocab, [b, t], &device), randint(vocab, [b * t], &device));
    let loss = CrossEntropyLossConfig::new().init(&device);
    let adam = AdamWConfig::new().with_weight_decay(0.1).init();
    let model = Gpt::new(&sizes, &device);
    train(bench, "gpt step f32", model, adam, |m| loss.forward(m.forward(x.clone(), None), y.clone()));
}

pub fn bert(bench: &Bench) {
    let sizes = Sizes { layers: 6, width: 384, heads: 12, positions: 512, vocab: 30522, bias: true };
    let tokens = |device: &Device| randint(sizes.vocab, [8, 128], device);
    let (model, x) = (Bert::new(&sizes, &inference()), tokens(&inference()));
    case(bench, "MiniLM-shaped bert inference 8×128", || model.pooled(x.clone()));
    let device = training();
    let (x, y) = (tokens(&device), randint(2, [8], &device));
    let loss = CrossEntropyLossConfig::new().init(&device);
    let adam = AdamWConfig::new().with_weight_decay(0.01).init();
    let model = Bert::new(&sizes, &device);
    let name = "MiniLM-shaped bert training step 8×128";
    train(bench, name, model, adam, |m| loss.forward(m.logits(x.clone()), y.clone()));
}

/// Keras's MNIST example.
#[derive(Module, Debug)]
struct Cnn {
    conv1: Conv2d,
    conv2: Conv2d,
    conv3: Conv2d,
    pool: MaxPool2d,
    fc1: Linear,
    fc2: Linear,
}

impl Cnn {
    fn new(device: &Device) -> Cnn {
        let conv = |i, o| Conv2dConfig::new([i, o], [3, 3]).init(device);
        Cnn {
            conv1: conv(1, 32),
            conv2: conv(32, 64),
            conv3: conv(64, 64),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            fc1: LinearConfig::new(576, 64).init(device),
            fc2: LinearConfig::new(64, 10).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let y = self.pool.forward(activation::relu(self.conv1.forward(x)));
        let y = self.pool.forward(activation::relu(self.conv2.forward(y)));
        let y: Tensor<2> = activation::relu(self.conv3.forward(y)).flatten(1, 3);
        self.fc2.forward(activation::relu(self.fc1.forward(y)))
    }
}

pub fn cnn(bench: &Bench) {
    let device = training();
    let (x, y) = (randn([64, 1, 28, 28], &device), randint(10, [64], &device));
    let loss = CrossEntropyLossConfig::new().init(&device);
    let adam = AdamConfig::new().init();
    train(bench, "cnn training step, batch 64", Cnn::new(&device), adam, |m| {
        loss.forward(m.forward(x.clone()), y.clone())
    });
    let (model, x) = (Cnn::new(&inference()), randn([64, 1, 28, 28], &inference()));
    case(bench, "cnn inference, batch 64", || model.forward(x.clone()));
}

/// Casts every parameter.
struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|x| x.cast(self.0))
    }
}

/// One token of GPT-2 124M after another, at positions 64 to 192.
pub fn decode(bench: &Bench) {
    let device = inference();
    let s = Sizes { layers: 12, width: 768, heads: 12, positions: 1024, vocab: 50257, bias: true };
    let token = randint(s.vocab, [1, 1], &device);
    for (name, dtype) in [("f32", FloatDType::F32), ("bf16", FloatDType::BF16)] {
        let model = Gpt::new(&s, &device).map(&mut Cast(dtype));
        let shape = [1, s.heads, s.positions, s.width / s.heads];
        let empty = || Tensor::<4>::zeros(shape, &device).cast(dtype);
        let cache = |_| Cache { keys: empty(), values: empty(), past: 64 };
        let mut caches: Vec<Cache> = (0..s.layers).map(cache).collect();
        case(bench, &format!("gpt2 decode {name}"), || {
            if caches[0].past >= 192 {
                caches.iter_mut().for_each(|c| c.past = 64);
            }
            model.forward(token.clone(), Some(&mut caches)).argmax(1).into_scalar::<i64>()
        });
    }
}
