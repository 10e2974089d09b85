//! Everything that a run needs to go on, in one safetensors file.
//!
//! The file is written under another name, flushed to disk and renamed, so that a crash at any moment leaves the last
//! good checkpoint.

use crate::corpus::Vocabulary;
use crate::options::Settings;
use ferrograd::Result;
use ferrograd::prelude::*;
use ferrograd::tensor::io::{load_safetensors, save_safetensors};
use ferrograd::tensor::random::RngState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FORMAT: &str = "ferrograd-gpt-2";

/// A run at one moment.
pub struct Checkpoint {
    pub settings: Settings,
    pub vocabulary: Vocabulary,
    /// The text's file, if it was named.
    pub text: Option<PathBuf>,
    /// A checksum of the text.
    pub digest: u32,
    /// Steps done.
    pub step: usize,
    pub rng: RngState,
    pub history: History,
    pub model: StateDict,
    pub optimizer: StateDict,
}

/// The losses so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Training loss of each step.
    pub train: Vec<f32>,
    /// Steps done and validation loss.
    pub validation: Vec<(usize, f32)>,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    settings: Settings,
    text: Option<PathBuf>,
    digest: u32,
    step: usize,
    rng: (u64, u64),
    vocabulary: String,
    /// Of all tensors, so that a flipped bit is noticed.
    checksum: u32,
}

/// CRC-32 of the tensors' bytes, in the order of their names.
fn checksum<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    tensors.for_each(|t| hash.update(&t.to_bytes()));
    hash.finalize()
}

/// Removes the half-written checkpoints of runs in `folder` that were killed.
pub fn remove_leftovers(folder: &Path) {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.starts_with(".checkpoint.safetensors.") && file.ends_with(".tmp") {
            // One that stays costs disk space, not a result.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Where a run in `folder` keeps its checkpoint.
pub fn path_in(folder: &Path) -> PathBuf {
    folder.join("checkpoint.safetensors")
}

impl Checkpoint {
    /// Writes it in place of the last one.
    pub fn save(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        tensors.extend(self.model.iter().map(|(n, t)| (format!("model.{n}"), t.clone())));
        tensors.extend(self.optimizer.iter().map(|(n, t)| (format!("optimizer.{n}"), t.clone())));
        let v = &self.history.validation;
        tensors.insert("history.train".into(), Tensor::from_slice(&self.history.train, self.history.train.len()));
        tensors.insert("history.steps".into(), Tensor::from_vec(v.iter().map(|&(s, _)| s as i64).collect(), v.len()));
        tensors.insert(
            "history.validation".into(),
            Tensor::from_vec(v.iter().map(|&(_, l)| l).collect::<Vec<f32>>(), v.len()),
        );
        let meta = Meta {
            settings: self.settings.clone(),
            text: self.text.clone(),
            digest: self.digest,
            step: self.step,
            rng: (self.rng.seed, self.rng.offset),
            vocabulary: self.vocabulary.characters(),
            checksum: checksum(tensors.values()),
        };
        let meta = serde_json::to_string(&meta).map_err(|e| Error::format(path.display(), e))?;
        let metadata = BTreeMap::from([("format".to_string(), FORMAT.to_string()), ("run".to_string(), meta)]);
        save_safetensors(path, &tensors, &metadata)
    }

    /// Reads one.
    ///
    /// # Errors
    /// If it is missing, damaged, or not one of this program's.
    pub fn load(path: &Path) -> Result<Checkpoint> {
        let file = load_safetensors(path)?;
        let foreign = || Error::format(path.display(), "not a checkpoint of this program");
        if file.metadata.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(foreign());
        }
        let meta = file.metadata.get("run").ok_or_else(foreign)?;
        let meta: Meta =
            serde_json::from_str(meta).map_err(|e| Error::format(path.display(), format!("damaged: {e}")))?;
        if checksum(file.tensors.values()) != meta.checksum {
            return Err(Error::format(path.display(), "damaged: the checksum does not fit"));
        }
        let all: StateDict = file.tensors.into_iter().collect();
        let history = all.strip_prefix("history.");
        let series =
            |name: &str| history.get(name).ok_or_else(|| Error::format(path.display(), format!("no history.{name}")));
        let steps = series("steps")?.to_vec::<i64>();
        let losses = series("validation")?.to_vec::<f32>();
        Ok(Checkpoint {
            settings: meta.settings,
            vocabulary: Vocabulary::new(&meta.vocabulary),
            text: meta.text,
            digest: meta.digest,
            step: meta.step,
            rng: RngState { seed: meta.rng.0, offset: meta.rng.1 },
            history: History {
                train: series("train")?.to_vec(),
                validation: steps.into_iter().map(|s| s as usize).zip(losses).collect(),
            },
            model: all.strip_prefix("model."),
            optimizer: all.strip_prefix("optimizer."),
        })
    }
}
