//! A transformer block, and GPT and BERT made of it.

use crate::ops::attend;
use burn::module::{Initializer, Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, activation};

/// The sizes of a model.
pub struct Sizes {
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub positions: usize,
    pub vocab: usize,
    pub bias: bool,
}

/// Keys and values of earlier tokens, in buffers of full length.
pub struct Cache {
    pub keys: Tensor<4>,
    pub values: Tensor<4>,
    pub past: usize,
}

impl Cache {
    /// Adds those of more tokens; all so far.
    fn extend(&mut self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let (start, end) = (self.past, self.past + k.dims()[2]);
        self.past = end;
        // Nobody else holds the buffer while it is written, so that it is written in place.
        let write = |buffer: &mut Tensor<4>, new: Tensor<4>| {
            let device = new.device();
            let taken = std::mem::replace(buffer, Tensor::empty([1, 1, 1, 1], &device));
            *buffer = taken.slice_assign([0..1, 0..new.dims()[1], start..end, 0..new.dims()[3]], new);
            buffer.clone().narrow(2, 0, end)
        };
        (write(&mut self.keys, k), write(&mut self.values, v))
    }
}

#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    norm2: LayerNorm,
    qkv: Linear,
    out: Linear,
    up: Linear,
    down: Linear,
    heads: usize,
}

impl Block {
    fn new(s: &Sizes, device: &Device) -> Block {
        let norm = || LayerNormConfig::new(s.width).with_bias(s.bias).init(device);
        let dense = |inputs, outputs| LinearConfig::new(inputs, outputs).with_bias(s.bias).init(device);
        Block {
            norm1: norm(),
            norm2: norm(),
            qkv: dense(s.width, 3 * s.width),
            out: dense(s.width, s.width),
            up: dense(s.width, 4 * s.width),
            down: dense(4 * s.width, s.width),
            heads: s.heads,
        }
    }

    fn attention(&self, x: Tensor<3>, causal: bool, cache: Option<&mut Cache>) -> Tensor<3> {
        let [b, t, c] = x.dims();
        let qkv = self.qkv.forward(x);
        let part = |i| qkv.clone().narrow(2, i * c, c).reshape([b, t, self.heads, c / self.heads]).swap_dims(1, 2);
        let (q, k, v) = (part(0), part(1), part(2));
        let y = match cache {
            // One token, that sees all earlier ones.
            Some(cache) => {
                let (k, v) = cache.extend(k, v);
                attend(q, k, v, false)
            }
            None => attend(q, k, v, causal),
        };
        self.out.forward(y.swap_dims(1, 2).reshape([b, t, c]))
    }

    /// GPT's: norms before, tanh GELU.
    fn pre_norm(&self, x: Tensor<3>, cache: Option<&mut Cache>) -> Tensor<3> {
        let x = x.clone() + self.attention(self.norm1.forward(x), true, cache);
        let y = activation::gelu_approximate(self.up.forward(self.norm2.forward(x.clone())));
        x + self.down.forward(y)
    }

    /// BERT's: norms after, exact GELU.
    fn post_norm(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.norm1.forward(x.clone() + self.attention(x, false, None));
        let y = self.down.forward(activation::gelu(self.up.forward(x.clone())));
        self.norm2.forward(x + y)
    }
}

/// GPT-2, whose head is the token embedding.
#[derive(Module, Debug)]
pub struct Gpt {
    tokens: Embedding,
    positions: Param<Tensor<2>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Gpt {
    pub fn new(s: &Sizes, device: &Device) -> Gpt {
        Gpt {
            tokens: EmbeddingConfig::new(s.vocab, s.width).init(device),
            positions: Initializer::Normal { mean: 0.0, std: 0.02 }.init([s.positions, s.width], device),
            blocks: (0..s.layers).map(|_| Block::new(s, device)).collect(),
            norm: LayerNormConfig::new(s.width).with_bias(s.bias).init(device),
        }
    }

    /// Tokens `[B, T]` to logits `[B · T, V]`.
    pub fn forward(&self, x: Tensor<2, Int>, mut caches: Option<&mut [Cache]>) -> Tensor<2> {
        let t = x.dims()[1];
        let past = caches.as_ref().map_or(0, |c| c[0].past);
        let mut y = self.tokens.forward(x) + self.positions.val().narrow(0, past, t).unsqueeze();
        for (i, block) in self.blocks.iter().enumerate() {
            y = block.pre_norm(y, caches.as_mut().map(|c| &mut c[i]));
        }
        self.norm.forward(y).flatten::<2>(0, 1).matmul(self.tokens.weight.val().transpose())
    }
}

/// BERT with its pooler and a classifier of two classes.
#[derive(Module, Debug)]
pub struct Bert {
    words: Embedding,
    positions: Embedding,
    kinds: Embedding,
    norm: LayerNorm,
    blocks: Vec<Block>,
    pooler: Linear,
    classifier: Linear,
}

impl Bert {
    pub fn new(s: &Sizes, device: &Device) -> Bert {
        let table = |rows| EmbeddingConfig::new(rows, s.width).init(device);
        Bert {
            words: table(s.vocab),
            positions: table(s.positions),
            kinds: table(2),
            norm: LayerNormConfig::new(s.width).init(device),
            blocks: (0..s.layers).map(|_| Block::new(s, device)).collect(),
            pooler: LinearConfig::new(s.width, s.width).init(device),
            classifier: LinearConfig::new(s.width, 2).init(device),
        }
    }

    /// Tokens `[B, T]` to the pooled first one, `[B, C]`.
    pub fn pooled(&self, x: Tensor<2, Int>) -> Tensor<2> {
        let positions = self.positions.weight.val().narrow(0, 0, x.dims()[1]).unsqueeze();
        let y = self.words.forward(x.clone()) + positions + self.kinds.forward(x.zeros_like());
        let y = self.blocks.iter().fold(self.norm.forward(y), |y, block| block.post_norm(y));
        self.pooler.forward(y.narrow(1, 0, 1).squeeze_dim(1)).tanh()
    }

    pub fn logits(&self, x: Tensor<2, Int>) -> Tensor<2> {
        self.classifier.forward(self.pooled(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{inference, randint, training};
    use burn::optim::GradientsParams;

    const SIZES: Sizes = Sizes { layers: 2, width: 8, heads: 2, positions: 4, vocab: 5, bias: true };

    #[test]
    fn every_parameter_gets_a_gradient() {
        let device = training();
        let x = randint(5, [2, 4], &device);
        let gpt = Gpt::new(&SIZES, &device);
        let gradients = GradientsParams::from_grads(gpt.forward(x.clone(), None).square().backward(), &gpt);
        // Two embeddings, twelve tensors in each block, the last norm.
        assert_eq!(gradients.len(), 2 + 2 * 12 + 2);
        let bert = Bert::new(&SIZES, &device);
        let gradients = GradientsParams::from_grads(bert.logits(x).square().backward(), &bert);
        // Three embeddings and a norm, the blocks, pooler and classifier.
        assert_eq!(gradients.len(), 5 + 2 * 12 + 4);
    }

    #[test]
    fn a_cache_changes_nothing() {
        let device = inference();
        let gpt = Gpt::new(&SIZES, &device);
        let x = randint(5, [1, 4], &device);
        let whole = gpt.forward(x.clone(), None);
        let empty = || Tensor::zeros([1, 2, 4, 4], &device);
        let mut caches: Vec<_> = (0..2).map(|_| Cache { keys: empty(), values: empty(), past: 0 }).collect();
        for t in 0..4 {
            let step = gpt.forward(x.clone().narrow(1, t, 1), Some(&mut caches));
            let off: f32 = (step - whole.clone().narrow(0, t, 1)).abs().max().into_scalar();
            assert!(off < 1e-5, "token {t}: {off}");
        }
    }
}
