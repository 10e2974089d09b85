//! The results: samples and limits, as JSON lines in a file and in memory.

use crate::floor::Limits;
use crate::peer::Result;
use bench_measure::Sample;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::PathBuf;

/// A line of the results.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(untagged)]
pub enum Record {
    /// A case of a peer in a round.
    Sample(Sample),
    /// The machine, before a group.
    Limits(Limits),
    /// Who was timed on what, in words.
    About {
        /// The card, a program's version.
        about: String,
    },
}

/// What was measured so far; the file keeps it if a later peer fails.
pub struct Log {
    /// All of it.
    pub records: Vec<Record>,
    file: Option<std::fs::File>,
}

impl Log {
    /// An empty one, that also writes to a file.
    pub fn new(path: Option<&PathBuf>) -> Result<Log> {
        let create = |path: &PathBuf| std::fs::File::create(path).map_err(|e| format!("{}: {e}", path.display()));
        Ok(Log { records: Vec::new(), file: path.map(create).transpose()? })
    }

    /// Adds some.
    pub fn add(&mut self, records: impl Iterator<Item = Record>) -> Result<()> {
        for record in records {
            if let Some(file) = &mut self.file {
                writeln!(file, "{}", serde_json::to_string(&record)?)?;
            }
            self.records.push(record);
        }
        Ok(())
    }
}

/// What earlier runs wrote.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        for line in text.lines() {
            records.push(serde_json::from_str(line).map_err(|e| format!("{}: {e}", path.display()))?);
        }
    }
    Ok(records)
}
