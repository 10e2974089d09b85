//! A text as numbers: one token per character.

use ferrograd::Result;
use ferrograd::prelude::*;
use ferrograd::tensor::random::with_seed;
use std::path::{Path, PathBuf};

/// The characters of a text, in order of their code.
#[derive(Clone, Debug, PartialEq)]
pub struct Vocabulary(Vec<char>);

impl Vocabulary {
    /// Of these characters, as [`Vocabulary::characters`] gives them.
    pub fn new(characters: &str) -> Vocabulary {
        let mut all: Vec<char> = characters.chars().collect();
        all.sort_unstable();
        all.dedup();
        Vocabulary(all)
    }
    /// Number of characters.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// All characters.
    pub fn characters(&self) -> String {
        self.0.iter().collect()
    }
    /// A text's tokens.
    ///
    /// # Errors
    /// If it holds a character that is not in the vocabulary.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>> {
        text.chars()
            .map(|c| match self.0.binary_search(&c) {
                Ok(i) => Ok(i as i64),
                Err(_) => {
                    Err(Error::format("prompt", format!("the character {c:?} does not occur in the training text")))
                }
            })
            .collect()
    }
    /// The tokens' text.
    pub fn decode(&self, tokens: &[i64]) -> String {
        tokens.iter().map(|&t| self.0[t as usize]).collect()
    }
}

/// A text's tokens, the first 90 % to learn from and the rest to validate on.
pub struct Corpus {
    pub vocabulary: Vocabulary,
    pub train: Vec<i64>,
    pub validation: Vec<i64>,
    /// Where it came from, for people.
    pub source: String,
    /// CRC-32 of the text, to know it again.
    pub digest: u32,
}

impl Corpus {
    /// From a file.
    ///
    /// # Errors
    /// If the file is missing, empty, too short for `block`, or not UTF-8.
    pub fn load(path: &Path, block: usize) -> Result<Corpus> {
        Corpus::new(&read(path)?, path.display().to_string(), block)
    }

    /// From a text; `source` names it.
    ///
    /// # Errors
    /// If it is too short for `block`.
    pub fn new(text: &str, source: String, block: usize) -> Result<Corpus> {
        let vocabulary = Vocabulary::new(text);
        let tokens = vocabulary.encode(text)?;
        let split = tokens.len() * 9 / 10;
        let (train, validation) = tokens.split_at(split);
        if validation.len() < block + 2 {
            let least = 10 * (block + 2);
            let message =
                format!("{} characters are too few: a context of {block} needs at least {least}", tokens.len());
            return Err(Error::format(source, message));
        }
        Ok(Corpus {
            train: train.to_vec(),
            validation: validation.to_vec(),
            vocabulary,
            source,
            digest: crc32fast::hash(text.as_bytes()),
        })
    }

    /// What a sample goes on from: a new line, or the first character of a text without one.
    pub fn prompt(&self) -> String {
        if self.vocabulary.0.contains(&'\n') { "\n".into() } else { self.vocabulary.decode(&self.train[..1]) }
    }

    /// `batch` random sections of `block` characters and those that follow each: inputs and targets `[B, T]`. The same
    /// for the same `seed`.
    pub fn batch(tokens: &[i64], batch: usize, block: usize, seed: u64) -> (Tensor, Tensor) {
        let last = (tokens.len() - block) as i64;
        let starts = with_seed(seed, || Tensor::randint(0, last, [batch]).to_vec::<i64>());
        sections(tokens, &starts, block)
    }
}

/// The sections of `block` characters at `starts`, and those shifted by one.
pub fn sections(tokens: &[i64], starts: &[i64], block: usize) -> (Tensor, Tensor) {
    let take = |shift: usize| -> Tensor {
        let values: Vec<i64> =
            starts.iter().flat_map(|&s| &tokens[s as usize + shift..s as usize + shift + block]).copied().collect();
        Tensor::from_vec(values, [starts.len(), block])
    };
    (take(0), take(1))
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    if bytes.is_empty() {
        return Err(Error::format(path.display(), "the file is empty"));
    }
    String::from_utf8(bytes).map_err(|e| {
        Error::format(path.display(), format!("not UTF-8 text (byte {} does not fit)", e.utf8_error().valid_up_to()))
    })
}

/// The repository's book and sources, and what they are called.
///
/// Characters beyond ASCII are left out. Four spaces of indentation become a tab: otherwise a third of what a model of
/// characters reads and writes would be spaces.
pub fn own_text() -> Result<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut files = Vec::new();
    for part in ["README.md", "docs", "crates", "examples"] {
        gather(&root.join(part), &mut files);
    }
    files.sort();
    let mut text = String::new();
    for file in &files {
        text.push_str(&read(file)?);
        text.push('\n');
    }
    text.retain(|c| c == '\n' || (' '..='~').contains(&c));
    let text = text.replace("    ", "\t");
    if text.is_empty() {
        return Err(Error::format(
            root.display(),
            "no book and no sources are there to learn from; name a text with --text",
        ));
    }
    Ok((text, format!("this repository's book and sources ({} files)", files.len())))
}

fn gather(path: &Path, files: &mut Vec<PathBuf>) {
    let Ok(meta) = path.metadata() else { return };
    if meta.is_dir() {
        let Ok(entries) = path.read_dir() else { return };
        entries.flatten().for_each(|e| gather(&e.path(), files));
    } else if path.extension().is_some_and(|e| e == "rs" || e == "md") && meta.len() > 0 {
        files.push(path.to_path_buf());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_round_trips() {
        let v = Vocabulary::new("hello, world");
        assert_eq!(v.decode(&v.encode("hold").unwrap()), "hold");
        assert!(v.encode("x").unwrap_err().to_string().contains("'x' does not occur"));
    }

    #[test]
    fn targets_follow_inputs() {
        let tokens: Vec<i64> = (0..100).collect();
        let (x, y) = Corpus::batch(&tokens, 4, 8, 7);
        assert_eq!(x.to_vec::<i64>().iter().map(|t| t + 1).collect::<Vec<_>>(), y.to_vec::<i64>());
        assert_eq!(Corpus::batch(&tokens, 4, 8, 7).0.to_vec::<i64>(), x.to_vec::<i64>());
    }

    #[test]
    fn short_text_is_refused() {
        let error = Corpus::new("abc", "text".into(), 8).err().unwrap().to_string();
        assert_eq!(error, "text: 3 characters are too few: a context of 8 needs at least 100");
    }
}
