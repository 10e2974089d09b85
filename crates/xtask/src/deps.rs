//! How much a user's crate pulls in.

use crate::shell::{Outcome, cargo, read};
use std::collections::BTreeSet;

/// The promise: fewer crates than this.
const LIMIT: usize = 60;

pub fn run() -> Outcome {
    let tree =
        read(cargo().args(["tree", "-p", "ferrograd", "-e", "normal,build", "--prefix", "none", "--target", "all"]))?;
    let crates: BTreeSet<&str> = tree.lines().filter_map(|l| l.split_whitespace().next()).collect();
    println!("{} crates: {}", crates.len(), crates.iter().copied().collect::<Vec<_>>().join(" "));
    if crates.len() < LIMIT { Ok(()) } else { Err(format!("{} crates, the limit is {LIMIT}", crates.len()).into()) }
}
