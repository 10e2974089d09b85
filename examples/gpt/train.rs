//! Training, validation and writing.

use crate::checkpoint::{Checkpoint, History, path_in};
use crate::corpus::{Corpus, Vocabulary, sections};
use crate::options::{Options, Settings};
use crate::plot;
use ferrograd::Result;
use ferrograd::models::Gpt;
use ferrograd::prelude::*;
use ferrograd::tensor::random::{rng_state, set_rng_state};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A run: what changes from step to step, and what it learns from.
struct Run {
    settings: Settings,
    corpus: Corpus,
    model: Gpt,
    optimizer: AdamW,
    step: usize,
    history: History,
}

/// Trains, from scratch or from a checkpoint, and writes a sample.
pub fn train(options: &Options) -> Result<()> {
    let device = options.device()?;
    let mut run = match &options.resume {
        Some(path) => Run::resume(options, checkpoint_path(options, path.as_deref()))?,
        None => Run::start(options, &device)?,
    };
    let checkpoint = path_in(&options.out);
    println!(
        "{} characters ({} distinct) from {}",
        run.corpus.train.len() + run.corpus.validation.len(),
        run.corpus.vocabulary.len(),
        run.corpus.source
    );
    let s = &run.settings;
    println!(
        "GPT: {} layers, {} heads, {} wide, context {}, {} parameters; {}",
        s.layers,
        s.heads,
        s.width,
        s.block,
        run.model.num_parameters(),
        device.backend().description()
    );
    let stop = interrupted()?;
    let last = options.stop_after.unwrap_or(s.steps).min(s.steps);
    let finished = run.steps(last, &checkpoint, &stop)?;
    run.save(&checkpoint)?;
    if finished && run.step == run.settings.steps {
        let loss = run.validate_all();
        println!("validation loss over the whole split: {loss:.4}");
    } else {
        println!("stopped after step {}; go on with --resume {}", run.step, checkpoint.display());
    }
    let curve = options.out.join("loss.png");
    plot::loss_curve(&run.history, &curve)?;
    println!("checkpoint: {}\nloss curve: {}", checkpoint.display(), curve.display());
    if finished {
        let text = generate(&run.model, &run.corpus.vocabulary, "\n", options)?;
        println!("\nA sample:\n{text}");
    }
    Ok(())
}

/// Loads a checkpoint and continues `prompt`.
pub fn write(options: &Options, prompt: &str) -> Result<()> {
    let path = checkpoint_path(options, options.resume.as_ref().and_then(Option::as_deref));
    let state = Checkpoint::load(&path)?;
    let model = Gpt::new(&state.settings.config(state.vocabulary.len()))?;
    model.load_state_dict(&state.model, true)?;
    manual_seed(options.seed.unwrap_or(state.settings.seed));
    println!("{prompt}{}", generate(&model, &state.vocabulary, prompt, options)?);
    Ok(())
}

fn generate(model: &Gpt, vocabulary: &Vocabulary, prompt: &str, options: &Options) -> Result<String> {
    if prompt.is_empty() {
        return Err(Error::format("prompt", "is empty; give at least one character to go on from"));
    }
    let tokens = vocabulary.encode(prompt)?;
    model.eval();
    let text = vocabulary.decode(&model.generate(&tokens, options.length, &options.sampling()));
    model.train();
    Ok(text)
}

/// The checkpoint that was named, or the one in the output folder.
fn checkpoint_path(options: &Options, named: Option<&std::path::Path>) -> PathBuf {
    named.map_or_else(|| path_in(&options.out), PathBuf::from)
}

/// Set by Ctrl-C and SIGTERM.
fn interrupted() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    ctrlc::set_handler(move || set.store(true, Ordering::Relaxed)).map_err(|e| Error::format("Ctrl-C handler", e))?;
    Ok(flag)
}

/// Matrices decay, vectors (norms, biases) do not.
fn optimizer(model: &Gpt, s: &Settings) -> AdamW {
    let (matrices, vectors): (Vec<Param>, Vec<Param>) =
        model.parameters().into_iter().partition(|p| p.tensor().rank() >= 2);
    AdamW::new(matrices)
        .lr(s.lr)
        .betas(0.9, s.beta2)
        .weight_decay(s.weight_decay)
        .add_group(ParamGroup::new(vectors).weight_decay(0.0))
}

/// Rises linearly over the warm-up, then falls along half a cosine from `lr` to `min_lr`.
fn learning_rate(s: &Settings, step: usize) -> f64 {
    if step < s.warmup {
        return s.lr * (step + 1) as f64 / (s.warmup + 1) as f64;
    }
    let progress = (step - s.warmup) as f64 / (s.steps - s.warmup).max(1) as f64;
    s.min_lr + 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()) * (s.lr - s.min_lr)
}

impl Run {
    fn start(options: &Options, device: &Device) -> Result<Run> {
        let settings = options.settings()?;
        let corpus = Corpus::load(options.text.as_deref(), settings.block)?;
        manual_seed(settings.seed);
        let model = Gpt::new(&settings.config(corpus.vocabulary.len()))?.to(device);
        let optimizer = optimizer(&model, &settings);
        Ok(Run { settings, corpus, model, optimizer, step: 0, history: History::default() })
    }

    fn resume(options: &Options, path: PathBuf) -> Result<Run> {
        let state = Checkpoint::load(&path)?;
        let mut wanted = state.settings.clone();
        options.apply(&mut wanted);
        if wanted != state.settings {
            let message = "the checkpoint was made with other settings; leave out the flags that change them";
            return Err(Error::format(path.display(), message));
        }
        let settings = state.settings;
        let corpus = Corpus::load(options.text.as_deref(), settings.block)?;
        if corpus.vocabulary != state.vocabulary || digest(&corpus) != state.source {
            let message = "the checkpoint was made on another text; name that one with --text";
            return Err(Error::format(path.display(), message));
        }
        let model = Gpt::new(&settings.config(corpus.vocabulary.len()))?;
        model.load_state_dict(&state.model, true)?;
        let mut optimizer = optimizer(&model, &settings);
        optimizer.load_state_dict(&state.optimizer)?;
        set_rng_state(state.rng);
        Ok(Run { settings, corpus, model, optimizer, step: state.step, history: state.history })
    }

    fn save(&self, path: &std::path::Path) -> Result<()> {
        let state = Checkpoint {
            settings: self.settings.clone(),
            vocabulary: self.corpus.vocabulary.clone(),
            source: digest(&self.corpus),
            step: self.step,
            rng: rng_state(),
            history: self.history.clone(),
            model: self.model.state_dict(),
            optimizer: self.optimizer.state_dict(),
        };
        state.save(path)
    }

    /// Trains up to step `last`. False if it was interrupted.
    fn steps(&mut self, last: usize, checkpoint: &std::path::Path, stop: &AtomicBool) -> Result<bool> {
        let bar = ProgressBar::new(last as u64).with_position(self.step as u64);
        let style = "{bar:30} step {pos}/{len}  {msg}  {eta} left";
        bar.set_style(ProgressStyle::with_template(style).map_err(|e| Error::format("progress bar", e))?);
        bar.reset_eta();
        let (start, first) = (Instant::now(), self.step);
        let tokens = self.settings.batch * self.settings.block;
        while self.step < last && !stop.load(Ordering::Relaxed) {
            let loss = self.train_step();
            if !loss.is_finite() {
                let message = format!("the loss is {loss} at step {}; try a smaller --lr", self.step);
                return Err(Error::format("training", message));
            }
            let speed = (self.step - first) as f64 * tokens as f64 / start.elapsed().as_secs_f64();
            bar.set_message(format!("loss {loss:.4}  {speed:.0} tokens/s"));
            bar.inc(1);
            if self.step % self.settings.eval_every == 0 || self.step == last {
                let validation = self.validate();
                self.history.validation.push((self.step, validation));
                let line = format!(
                    "step {:>5}  training loss {:.4}  validation loss {validation:.4}  {speed:.0} tokens/s",
                    self.step,
                    self.recent()
                );
                // The bar hides itself where nobody watches; the lines do not.
                if bar.is_hidden() {
                    println!("{line}")
                } else {
                    bar.println(line)
                }
                self.save(checkpoint)?;
            }
        }
        bar.finish_and_clear();
        Ok(!stop.load(Ordering::Relaxed))
    }

    /// One step of AdamW on one batch; returns the loss before it.
    fn train_step(&mut self) -> f32 {
        let s = &self.settings;
        // The batch depends on the step alone, so that a resumed run sees what the straight one would have.
        let (x, y) = Corpus::batch(&self.corpus.train, s.batch, s.block, batch_seed(s.seed, self.step));
        let loss = autocast(s.precision(), || self.model.loss(&x, &y));
        let mut grads = loss.backward();
        if s.grad_clip > 0.0 {
            clip_grad_norm(&mut grads, &self.model.parameters(), s.grad_clip, 2.0);
        }
        self.optimizer.set_lr(learning_rate(s, self.step));
        self.optimizer.step(&grads);
        self.step += 1;
        let loss = loss.item();
        self.history.train.push(loss);
        loss
    }

    /// Mean training loss of the last steps.
    fn recent(&self) -> f32 {
        let n = self.history.train.len().min(20);
        self.history.train[self.history.train.len() - n..].iter().sum::<f32>() / n as f32
    }

    /// Loss on some fixed batches of the validation split.
    fn validate(&self) -> f32 {
        let s = &self.settings;
        let loss = |i: usize| {
            let (x, y) = Corpus::batch(&self.corpus.validation, s.batch, s.block, batch_seed(!s.seed, i));
            self.model.loss(&x, &y).item::<f32>() as f64
        };
        self.without_training(|| {
            (0..s.eval_batches.max(1)).map(loss).sum::<f64>() as f32 / s.eval_batches.max(1) as f32
        })
    }

    /// Loss on the whole validation split, cut into sections of one context each.
    fn validate_all(&self) -> f32 {
        let (block, tokens) = (self.settings.block, &self.corpus.validation);
        let starts: Vec<i64> = (0..(tokens.len() - 1) / block).map(|i| (i * block) as i64).collect();
        let total: f64 = self.without_training(|| {
            starts
                .chunks(32)
                .map(|starts| {
                    let (x, y) = sections(tokens, starts, block);
                    self.model.loss(&x, &y).item::<f32>() as f64 * starts.len() as f64
                })
                .sum()
        });
        (total / starts.len() as f64) as f32
    }

    fn without_training<T>(&self, f: impl FnOnce() -> T) -> T {
        self.model.eval();
        let out = no_grad(|| autocast(self.settings.precision(), f));
        self.model.train();
        out
    }
}

fn batch_seed(seed: u64, step: usize) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step as u64)
}

/// The corpus' name and an FNV-1a hash of its tokens, to know it again.
fn digest(corpus: &Corpus) -> String {
    let tokens = corpus.train.iter().chain(&corpus.validation);
    let hash = tokens.fold(0xcbf2_9ce4_8422_2325u64, |h, &t| (h ^ t as u64).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}
