//! A transformer block, and GPT and BERT made of it.

use crate::CPU;
use crate::ops::attend;
use candle_core::{DType, Module, Result, Tensor};
use candle_nn::{Embedding, Init, Linear, VarBuilder, VarMap, embedding, linear, linear_b, ops};

/// Layer norm: fused in inference; composed in training, where candle's fused one has no backward.
struct Norm {
    weight: Tensor,
    bias: Tensor,
    train: bool,
}

impl Norm {
    fn new(sizes: &Sizes, bias: bool, vb: VarBuilder) -> Result<Norm> {
        let zeros = Tensor::zeros(sizes.width, vb.dtype(), &CPU)?;
        Ok(Norm {
            weight: vb.get_with_hints(sizes.width, "weight", Init::Const(1.0))?,
            // candle has no path without a bias; zeros that are no variable get no gradient.
            bias: if bias { vb.get_with_hints(sizes.width, "bias", Init::Const(0.0))? } else { zeros },
            train: sizes.train,
        })
    }
}

impl Module for Norm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let norm = if self.train { ops::layer_norm_slow } else { ops::layer_norm };
        norm(x, &self.weight, &self.bias, 1e-5)
    }
}

/// The sizes of a model.
pub struct Sizes {
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub positions: usize,
    pub vocab: usize,
    /// Norms before attention and the dense layers, tanh GELU (GPT); else after them, with the exact GELU (BERT).
    pub pre_norm: bool,
    pub bias: bool,
    pub train: bool,
}

/// Keys and values of earlier tokens, in buffers of full length.
pub struct Cache {
    pub keys: Tensor,
    pub values: Tensor,
    pub past: usize,
}

struct Block {
    norms: [Norm; 2],
    qkv: Linear,
    out: Linear,
    up: Linear,
    down: Linear,
    heads: usize,
    pre_norm: bool,
    train: bool,
}

impl Block {
    fn new(s: &Sizes, vb: VarBuilder) -> Result<Block> {
        let dense = |inputs, outputs, name| linear_b(inputs, outputs, s.bias, vb.pp(name));
        Ok(Block {
            norms: [Norm::new(s, s.bias, vb.pp("norm1"))?, Norm::new(s, s.bias, vb.pp("norm2"))?],
            qkv: dense(s.width, 3 * s.width, "qkv")?,
            out: dense(s.width, s.width, "out")?,
            up: dense(s.width, 4 * s.width, "up")?,
            down: dense(4 * s.width, s.width, "down")?,
            heads: s.heads,
            pre_norm: s.pre_norm,
            train: s.train,
        })
    }

    fn attention(&self, x: &Tensor, mask: Option<&Tensor>, cache: Option<&mut Cache>) -> Result<Tensor> {
        let (b, t, c) = x.dims3()?;
        let qkv = self.qkv.forward(x)?;
        let part =
            |i| qkv.narrow(2, i * c, c)?.reshape((b, t, self.heads, c / self.heads))?.transpose(1, 2)?.contiguous();
        let (q, mut k, mut v) = (part(0)?, part(1)?, part(2)?);
        if let Some(cache) = cache {
            cache.keys.slice_set(&k, 2, cache.past)?;
            cache.values.slice_set(&v, 2, cache.past)?;
            cache.past += t;
            (k, v) = (cache.keys.narrow(2, 0, cache.past)?, cache.values.narrow(2, 0, cache.past)?);
        }
        let y = attend(&q, &k, &v, mask, self.train)?;
        self.out.forward(&y.transpose(1, 2)?.reshape((b, t, c))?)
    }

    fn forward(&self, x: &Tensor, mask: Option<&Tensor>, cache: Option<&mut Cache>) -> Result<Tensor> {
        let [norm1, norm2] = &self.norms;
        if self.pre_norm {
            let x = (x + self.attention(&norm1.forward(x)?, mask, cache)?)?;
            let y = self.down.forward(&self.up.forward(&norm2.forward(&x)?)?.gelu()?)?;
            x + y
        } else {
            let x = norm1.forward(&(x + self.attention(x, mask, cache)?)?)?;
            let y = self.down.forward(&self.up.forward(&x)?.gelu_erf()?)?;
            norm2.forward(&(x + y)?)
        }
    }
}

fn blocks(s: &Sizes, vb: &VarBuilder) -> Result<Vec<Block>> {
    (0..s.layers).map(|i| Block::new(s, vb.pp(format!("block{i}")))).collect()
}

fn table(rows: usize, columns: usize, name: &str, vb: &VarBuilder) -> Result<Tensor> {
    vb.get_with_hints((rows, columns), name, Init::Randn { mean: 0.0, stdev: 0.02 })
}

/// Builds a model, twice where it is for inference: from plain tensors no graph is recorded.
pub fn build<M>(train: bool, dtype: DType, new: impl Fn(VarBuilder) -> Result<M>) -> Result<(M, VarMap)> {
    let variables = VarMap::new();
    let model = new(VarBuilder::from_varmap(&variables, DType::F32, &CPU))?;
    if train {
        return Ok((model, variables));
    }
    let plain =
        |(name, var): (&String, &candle_core::Var)| Ok((name.clone(), var.as_detached_tensor().to_dtype(dtype)?));
    let tensors = variables.data().lock().unwrap().iter().map(plain).collect::<Result<_>>()?;
    Ok((new(VarBuilder::from_tensors(tensors, dtype, &CPU))?, variables))
}

/// GPT-2, whose head is the token embedding.
pub struct Gpt {
    tokens: Embedding,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
}

impl Gpt {
    pub fn new(s: &Sizes, vb: VarBuilder) -> Result<Gpt> {
        Ok(Gpt {
            tokens: embedding(s.vocab, s.width, vb.pp("tokens"))?,
            positions: table(s.positions, s.width, "positions", &vb)?,
            blocks: blocks(s, &vb)?,
            norm: Norm::new(s, s.bias, vb.pp("norm"))?,
        })
    }

    /// Tokens `[B, T]` to logits `[B · T, V]`.
    pub fn forward(&self, x: &Tensor, mask: Option<&Tensor>, mut caches: Option<&mut [Cache]>) -> Result<Tensor> {
        let past = caches.as_ref().map_or(0, |c| c[0].past);
        let positions = self.positions.narrow(0, past, x.dim(1)?)?;
        let mut y = self.tokens.forward(x)?.broadcast_add(&positions)?;
        for (i, block) in self.blocks.iter().enumerate() {
            y = block.forward(&y, mask, caches.as_mut().map(|c| &mut c[i]))?;
        }
        self.norm.forward(&y)?.flatten_to(1)?.matmul(&self.tokens.embeddings().t()?)
    }
}

/// BERT with its pooler and a classifier of two classes. candle-transformers' own cannot be trained: its layer norm has
/// no backward.
pub struct Bert {
    words: Embedding,
    positions: Tensor,
    kinds: Embedding,
    norm: Norm,
    blocks: Vec<Block>,
    pooler: Linear,
    classifier: Linear,
}

impl Bert {
    pub fn new(s: &Sizes, vb: VarBuilder) -> Result<Bert> {
        Ok(Bert {
            words: embedding(s.vocab, s.width, vb.pp("words"))?,
            positions: table(s.positions, s.width, "positions", &vb)?,
            kinds: embedding(2, s.width, vb.pp("kinds"))?,
            norm: Norm::new(s, true, vb.pp("norm"))?,
            blocks: blocks(s, &vb)?,
            pooler: linear(s.width, s.width, vb.pp("pooler"))?,
            classifier: linear(s.width, 2, vb.pp("classifier"))?,
        })
    }

    /// Tokens `[B, T]` to the pooled first one, `[B, C]`.
    pub fn pooled(&self, x: &Tensor) -> Result<Tensor> {
        let y = (self.words.forward(x)? + self.kinds.forward(&x.zeros_like()?)?)?;
        let mut y = self.norm.forward(&y.broadcast_add(&self.positions.narrow(0, 0, x.dim(1)?)?)?)?;
        for block in &self.blocks {
            y = block.forward(&y, None, None)?;
        }
        self.pooler.forward(&y.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)?.tanh()
    }

    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        self.classifier.forward(&self.pooled(x)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::causal_mask;
    use crate::randint;

    fn sizes(pre_norm: bool, bias: bool, train: bool) -> Sizes {
        Sizes { layers: 2, width: 8, heads: 2, positions: 4, vocab: 5, pre_norm, bias, train }
    }

    /// candle says nothing when an operation without a backward cuts the graph.
    #[test]
    fn every_variable_gets_a_gradient() -> Result<()> {
        let x = randint(5, &[2, 4])?;
        let check = |logits: Tensor, variables: VarMap| {
            let gradients = logits.sqr()?.backward()?;
            assert!(variables.all_vars().iter().all(|v| gradients.get(v).is_some()));
            Result::Ok(())
        };
        let (gpt, variables) = build(true, DType::F32, |vb| Gpt::new(&sizes(true, false, true), vb))?;
        check(gpt.forward(&x, Some(&causal_mask(4)?), None)?, variables)?;
        let (bert, variables) = build(true, DType::F32, |vb| Bert::new(&sizes(false, true, true), vb))?;
        check(bert.logits(&x)?, variables)
    }

    #[test]
    fn a_cache_changes_nothing() -> Result<()> {
        let (gpt, _) = build(false, DType::F32, |vb| Gpt::new(&sizes(true, true, false), vb))?;
        let x = randint(5, &[1, 4])?;
        let whole = gpt.forward(&x, Some(&causal_mask(4)?), None)?;
        let empty = || Tensor::zeros((1, 2, 4, 4), DType::F32, &CPU);
        let cache = |_| Ok(Cache { keys: empty()?, values: empty()?, past: 0 });
        let mut caches = (0..2).map(cache).collect::<Result<Vec<_>>>()?;
        for t in 0..4 {
            let step = gpt.forward(&x.narrow(1, t, 1)?, None, Some(&mut caches))?;
            let off = (step - whole.narrow(0, t, 1)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(off < 1e-5, "token {t}: {off}");
        }
        Ok(())
    }
}
