//! The command line.

use clap::{Parser, ValueEnum};
use ferrograd::models::{GptConfig, Sampling};
use ferrograd::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Train a character-level GPT on a text and let it write.
///
/// Without arguments it learns from this repository's own book and sources, for about two minutes on two cores, and
/// leaves a checkpoint, the loss curve and a sample in runs/gpt. Ctrl-C ends cleanly with a checkpoint.
#[derive(Parser, Debug)]
#[command(name = "gpt", version)]
pub struct Options {
    /// The text to learn from (UTF-8). Default: this repository's book and sources.
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Sizes and optimiser settings to start from.
    #[arg(long, value_enum, default_value_t = Preset::Quick)]
    pub preset: Preset,
    /// Go on from this checkpoint (without a path: the one in --out), in its folder. Its settings and its text apply;
    /// flags that contradict them are errors.
    #[arg(long, value_name = "FILE")]
    pub resume: Option<Option<PathBuf>>,
    /// Do not train: load the checkpoint (--resume FILE, or the one in --out) and continue this prompt.
    #[arg(long, value_name = "PROMPT")]
    pub generate: Option<String>,
    /// Characters to write.
    #[arg(long, default_value_t = 500)]
    pub length: usize,
    /// Divides the logits before drawing; 0 takes the likeliest character each time.
    #[arg(long, default_value_t = 0.8)]
    pub temperature: f64,
    /// Draw from the K likeliest characters only.
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Where the checkpoint, the curve and the sample go. Default: the folder of --resume's checkpoint, or runs/gpt.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Seed of every random number.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Device to compute on: cpu, or cuda (cuda:1, …) in a build with `--features cuda`.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Stop after this step, with a checkpoint; the schedule stays that of --steps.
    #[arg(long, value_name = "STEP")]
    pub stop_after: Option<usize>,

    /// Number of blocks.
    #[arg(long, help_heading = "Model")]
    pub layers: Option<usize>,
    /// Number of attention heads.
    #[arg(long, help_heading = "Model")]
    pub heads: Option<usize>,
    /// Width of the residual stream.
    #[arg(long, help_heading = "Model")]
    pub width: Option<usize>,
    /// Context: characters the model sees.
    #[arg(long, help_heading = "Model")]
    pub block: Option<usize>,
    /// Dropout probability.
    #[arg(long, help_heading = "Model")]
    pub dropout: Option<f64>,

    /// Training steps.
    #[arg(long, help_heading = "Optimiser")]
    pub steps: Option<usize>,
    /// Sequences per step.
    #[arg(long, help_heading = "Optimiser")]
    pub batch: Option<usize>,
    /// Largest learning rate.
    #[arg(long, help_heading = "Optimiser")]
    pub lr: Option<f64>,
    /// Learning rate at the end of the cosine.
    #[arg(long, help_heading = "Optimiser")]
    pub min_lr: Option<f64>,
    /// Steps over which the learning rate rises.
    #[arg(long, help_heading = "Optimiser")]
    pub warmup: Option<usize>,
    /// Decay of AdamW's second moment.
    #[arg(long, help_heading = "Optimiser")]
    pub beta2: Option<f64>,
    /// Weight decay of matrices.
    #[arg(long, help_heading = "Optimiser")]
    pub weight_decay: Option<f64>,
    /// Largest norm of the gradient; 0 does not clip.
    #[arg(long, help_heading = "Optimiser")]
    pub grad_clip: Option<f64>,
    /// Compute matrix products and attention in this precision: f32 or bf16. Weights stay f32.
    #[arg(long, help_heading = "Optimiser", value_name = "DTYPE")]
    pub autocast: Option<DType>,
    /// Steps between validations and checkpoints.
    #[arg(long, help_heading = "Optimiser")]
    pub eval_every: Option<usize>,
    /// Batches per validation on the way; the last one reads the whole validation split.
    #[arg(long, help_heading = "Optimiser")]
    pub eval_batches: Option<usize>,
}

/// Named settings.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// 4 layers, 128 wide, context 128: about two minutes on two cores.
    Quick,
    /// nanoGPT's CPU run: 4 layers, 4 heads, 128 wide, context 64, batch 12, 2,000 steps, no dropout.
    NanogptCpu,
    /// nanoGPT's GPU run: 6 layers, 6 heads, 384 wide, context 256, batch 64, 5,000 steps, dropout 0.2.
    NanogptGpu,
    /// Two layers, 32 wide, 60 steps: seconds, to see that everything works.
    Tiny,
}

/// Everything that decides how a run goes; kept in its checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub layers: usize,
    pub heads: usize,
    pub width: usize,
    pub block: usize,
    pub dropout: f64,
    pub steps: usize,
    pub batch: usize,
    pub lr: f64,
    pub min_lr: f64,
    pub warmup: usize,
    pub beta2: f64,
    pub weight_decay: f64,
    pub grad_clip: f64,
    pub autocast: String,
    pub eval_every: usize,
    pub eval_batches: usize,
    pub seed: u64,
}

impl Preset {
    fn settings(self) -> Settings {
        let nanogpt_cpu = Settings {
            layers: 4,
            heads: 4,
            width: 128,
            block: 64,
            dropout: 0.0,
            steps: 2000,
            batch: 12,
            lr: 1e-3,
            min_lr: 1e-4,
            warmup: 100,
            beta2: 0.99,
            weight_decay: 0.1,
            grad_clip: 1.0,
            autocast: "f32".into(),
            eval_every: 250,
            eval_batches: 20,
            seed: 1337,
        };
        match self {
            Preset::NanogptCpu => nanogpt_cpu,
            Preset::Quick => Settings { block: 128, steps: 1500, ..nanogpt_cpu },
            Preset::NanogptGpu => Settings {
                layers: 6,
                heads: 6,
                width: 384,
                block: 256,
                batch: 64,
                steps: 5000,
                dropout: 0.2,
                eval_batches: 200,
                ..nanogpt_cpu
            },
            Preset::Tiny => Settings {
                layers: 2,
                heads: 2,
                width: 32,
                block: 32,
                batch: 8,
                steps: 60,
                warmup: 10,
                lr: 3e-3,
                eval_every: 20,
                eval_batches: 4,
                ..nanogpt_cpu
            },
        }
    }
}

impl Options {
    /// The preset with the flags applied, checked.
    pub fn settings(&self) -> ferrograd::Result<Settings> {
        let mut s = self.preset.settings();
        self.apply(&mut s);
        s.check()?;
        Ok(s)
    }
    /// Overwrites what the flags name.
    pub fn apply(&self, s: &mut Settings) {
        fn put<T: Clone>(slot: &mut T, flag: &Option<T>) {
            if let Some(v) = flag {
                *slot = v.clone();
            }
        }
        put(&mut s.layers, &self.layers);
        put(&mut s.heads, &self.heads);
        put(&mut s.width, &self.width);
        put(&mut s.block, &self.block);
        put(&mut s.dropout, &self.dropout);
        put(&mut s.steps, &self.steps);
        put(&mut s.batch, &self.batch);
        put(&mut s.lr, &self.lr);
        put(&mut s.min_lr, &self.min_lr);
        put(&mut s.warmup, &self.warmup);
        put(&mut s.beta2, &self.beta2);
        put(&mut s.weight_decay, &self.weight_decay);
        put(&mut s.grad_clip, &self.grad_clip);
        put(&mut s.autocast, &self.autocast.map(|d| d.to_string()));
        put(&mut s.eval_every, &self.eval_every);
        put(&mut s.eval_batches, &self.eval_batches);
        put(&mut s.seed, &self.seed);
    }
    /// How characters are drawn.
    pub fn sampling(&self) -> ferrograd::Result<Sampling> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::format("--temperature", format!("must be at least 0, got {}", self.temperature)));
        }
        if self.top_k == Some(0) {
            return Err(Error::format("--top-k", "must be at least 1"));
        }
        Ok(Sampling { temperature: self.temperature, top_k: self.top_k })
    }
    /// The run's folder.
    pub fn folder(&self) -> PathBuf {
        let resumed = || self.resume.as_ref()?.as_ref()?.parent().map(PathBuf::from);
        self.out.clone().or_else(resumed).unwrap_or_else(|| "runs/gpt".into())
    }
}

impl Settings {
    /// The names of the flags whose values differ between the two.
    pub fn differences(&self, other: &Settings) -> Vec<String> {
        let fields = |s: &Settings| serde_json::to_value(s).unwrap_or_default();
        let (a, b) = (fields(self), fields(other));
        let names = a.as_object().into_iter().flat_map(|fields| fields.keys());
        names.filter(|name| a[*name] != b[*name]).map(|name| format!("--{}", name.replace('_', "-"))).collect()
    }
    fn check(&self) -> ferrograd::Result<()> {
        let bad = |flag: &str, rule: String| Err(Error::format(flag, rule));
        let positive = [
            ("--steps", self.steps),
            ("--batch", self.batch),
            ("--block", self.block),
            ("--eval-every", self.eval_every),
        ];
        for (flag, n) in positive {
            if n == 0 {
                return bad(flag, "must be at least 1".into());
            }
        }
        if !(self.lr > 0.0 && self.min_lr >= 0.0 && self.min_lr <= self.lr) {
            return bad("--lr", format!("needs 0 ≤ min-lr ≤ lr, got {} and {}", self.min_lr, self.lr));
        }
        if !(0.0..1.0).contains(&self.beta2) {
            return bad("--beta2", format!("{} lies outside [0, 1)", self.beta2));
        }
        if !["f32", "bf16"].contains(&self.autocast.as_str()) {
            return bad("--autocast", format!("{} is neither f32 nor bf16", self.autocast));
        }
        self.config(1).check()
    }
    /// The model's sizes for a vocabulary.
    pub fn config(&self, vocab_size: usize) -> GptConfig {
        GptConfig {
            vocab_size,
            n_positions: self.block,
            n_embd: self.width,
            n_layer: self.layers,
            n_head: self.heads,
            embd_pdrop: self.dropout,
            resid_pdrop: self.dropout,
            attn_pdrop: self.dropout,
            bias: false,
            ..GptConfig::default()
        }
    }
    /// The precision of matrix products.
    pub fn precision(&self) -> DType {
        if self.autocast == "bf16" { DType::BF16 } else { DType::F32 }
    }
}
