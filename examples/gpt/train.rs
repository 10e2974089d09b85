//! Training, validation and writing.

use crate::checkpoint::{Checkpoint, History, path_in, remove_leftovers};
use crate::corpus::{Corpus, Vocabulary, own_text, sections};
use crate::options::{Options, Settings};
use crate::plot;
use ferrograd::Result;
use ferrograd::models::{Gpt, Sampling};
use ferrograd::prelude::*;
use ferrograd::tensor::io::write_atomically;
use ferrograd::tensor::random::{rng_state, set_rng_state};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A run: what changes from step to step, and what it learns from.
struct Run {
    settings: Settings,
    /// The text's file, if it was named; else the copy of this repository's text in the run's folder.
    text: Option<PathBuf>,
    corpus: Corpus,
    model: Gpt,
    optimizer: AdamW,
    step: usize,
    history: History,
}

/// Trains, from scratch or from a checkpoint, and writes a sample.
pub fn train(options: &Options) -> Result<()> {
    let device = ferrograd::device(&options.device)?;
    device.make_default();
    let sampling = options.sampling()?;
    let folder = options.folder();
    let checkpoint = path_in(&folder);
    let mut run = match options.resume {
        Some(_) => Run::resume(options)?,
        None => Run::start(options)?,
    };
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
    remove_leftovers(&folder);
    let stop = interrupted()?;
    let last = options.stop_after.unwrap_or(s.steps).min(s.steps);
    let finished = run.steps(last, &checkpoint, &stop)?;
    run.save(&checkpoint)?;
    if finished && run.step == run.settings.steps {
        let loss = finite("the validation loss", run.validate_all(), run.step)?;
        println!("validation loss over the whole split: {loss:.4}");
    } else {
        println!("stopped after step {}; go on with --resume {}", run.step, checkpoint.display());
    }
    let curve = folder.join("loss.png");
    plot::loss_curve(&run.history, &curve)?;
    println!("checkpoint: {}\nloss curve: {}", checkpoint.display(), curve.display());
    if finished {
        let text = generate(&run.model, &run.corpus.vocabulary, &run.corpus.prompt(), options.length, &sampling)?;
        let sample = folder.join("sample.txt");
        write_atomically(&sample, |file| file.write_all(text.as_bytes()))?;
        println!("sample: {}\n\n{text}", sample.display());
    }
    Ok(())
}

/// Loads a checkpoint and continues `prompt`.
pub fn write(options: &Options, prompt: &str) -> Result<()> {
    ferrograd::device(&options.device)?.make_default();
    let sampling = options.sampling()?;
    let state = Checkpoint::load(&checkpoint_path(options))?;
    let model = Gpt::new(&state.settings.config(state.vocabulary.len()))?;
    model.load_state_dict(&state.model, true)?;
    manual_seed(options.seed.unwrap_or(state.settings.seed));
    println!("{prompt}{}", generate(&model, &state.vocabulary, prompt, options.length, &sampling)?);
    Ok(())
}

fn generate(model: &Gpt, vocabulary: &Vocabulary, prompt: &str, length: usize, sampling: &Sampling) -> Result<String> {
    if prompt.is_empty() {
        return Err(Error::format("prompt", "is empty; give at least one character to go on from"));
    }
    let tokens = vocabulary.encode(prompt)?;
    model.eval();
    let text = vocabulary.decode(&model.generate(&tokens, length, sampling));
    model.train();
    Ok(text)
}

/// The checkpoint that was named, or the one in the run's folder.
fn checkpoint_path(options: &Options) -> PathBuf {
    options.resume.clone().flatten().unwrap_or_else(|| path_in(&options.folder()))
}

/// `value`, or an error if it is not finite: then the weights of the last checkpoint are better than these.
fn finite(what: &str, value: f32, step: usize) -> Result<f32> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(Error::format("training", format!("{what} is {value} at step {step}; try a smaller --lr")))
}

/// Set by Ctrl-C and SIGTERM; a second one ends the program at once.
fn interrupted() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    let handler = move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130)
        }
    };
    ctrlc::set_handler(handler).map_err(|e| Error::format("Ctrl-C handler", e))?;
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
    fn start(options: &Options) -> Result<Run> {
        let settings = options.settings()?;
        let folder = options.folder();
        let (text, corpus) = match &options.text {
            Some(path) => (Some(absolute(path)?), Corpus::load(path, settings.block)?),
            None => {
                let (text, source) = own_text()?;
                let corpus = Corpus::new(&text, source, settings.block)?;
                std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
                write_atomically(own_copy(&folder), |file| file.write_all(text.as_bytes()))?;
                (None, corpus)
            }
        };
        set_aside(&path_in(&folder))?;
        manual_seed(settings.seed);
        let model = Gpt::new(&settings.config(corpus.vocabulary.len()))?;
        let optimizer = optimizer(&model, &settings);
        Ok(Run { settings, text, corpus, model, optimizer, step: 0, history: History::default() })
    }

    fn resume(options: &Options) -> Result<Run> {
        let path = checkpoint_path(options);
        let state = Checkpoint::load(&path)?;
        let mut wanted = state.settings.clone();
        options.apply(&mut wanted);
        let different = wanted.differences(&state.settings);
        if !different.is_empty() {
            let flags = different.join(", ");
            let message = format!("the checkpoint was made with other values of {flags}; leave these flags out");
            return Err(Error::format(path.display(), message));
        }
        let settings = state.settings;
        let text = options.text.as_deref().map(absolute).transpose()?.or(state.text);
        let beside = own_copy(path.parent().unwrap_or(Path::new("")));
        let file = text.as_deref().unwrap_or(&beside);
        let corpus = Corpus::load(file, settings.block)?;
        if corpus.vocabulary != state.vocabulary || corpus.digest != state.digest {
            let message = format!("made on another text than what {} holds now", file.display());
            return Err(Error::format(path.display(), message));
        }
        let copy = own_copy(&options.folder());
        if text.is_none() && !copy.exists() {
            std::fs::create_dir_all(options.folder()).map_err(|e| Error::io(options.folder(), e))?;
            std::fs::copy(&beside, &copy).map_err(|e| Error::io(&copy, e))?;
        }
        let model = Gpt::new(&settings.config(corpus.vocabulary.len()))?;
        model.load_state_dict(&state.model, true)?;
        let mut optimizer = optimizer(&model, &settings);
        optimizer.load_state_dict(&state.optimizer)?;
        set_rng_state(state.rng);
        Ok(Run { settings, text, corpus, model, optimizer, step: state.step, history: state.history })
    }

    fn save(&self, path: &Path) -> Result<()> {
        let state = Checkpoint {
            settings: self.settings.clone(),
            vocabulary: self.corpus.vocabulary.clone(),
            text: self.text.clone(),
            digest: self.corpus.digest,
            step: self.step,
            rng: rng_state(),
            history: self.history.clone(),
            model: self.model.state_dict(),
            optimizer: self.optimizer.state_dict(),
        };
        state.save(path)
    }

    /// Trains up to step `last`. False if it was interrupted.
    fn steps(&mut self, last: usize, checkpoint: &Path, stop: &AtomicBool) -> Result<bool> {
        let bar = ProgressBar::new(last as u64).with_position(self.step as u64);
        let style = "{bar:30} step {pos}/{len}  {msg}  {eta} left";
        bar.set_style(ProgressStyle::with_template(style).map_err(|e| Error::format("progress bar", e))?);
        bar.reset_eta();
        let (start, first) = (Instant::now(), self.step);
        let tokens = self.settings.batch * self.settings.block;
        while self.step < last && !stop.load(Ordering::Relaxed) {
            let loss = self.train_step();
            let loss = finite("the loss", loss, self.step)?;
            let speed = (self.step - first) as f64 * tokens as f64 / start.elapsed().as_secs_f64();
            bar.set_message(format!("loss {loss:.4}  {speed:.0} tokens/s"));
            bar.inc(1);
            if self.step % self.settings.eval_every == 0 || self.step == self.settings.steps {
                let validation = finite("the validation loss", self.validate(), self.step)?;
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

/// Where a run keeps its copy of this repository's text, which will have changed when the run is resumed.
fn own_copy(folder: &Path) -> PathBuf {
    folder.join("text.txt")
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|e| Error::io(path, e))
}

/// Renames what an earlier run left under this name: a new run does not cost anybody an old one.
fn set_aside(checkpoint: &Path) -> Result<()> {
    if !checkpoint.exists() {
        return Ok(());
    }
    let old = checkpoint.with_extension("previous.safetensors");
    std::fs::rename(checkpoint, &old).map_err(|e| Error::io(&old, e))?;
    println!("the last run's checkpoint is now {}", old.display());
    Ok(())
}
