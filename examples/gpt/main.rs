//! Trains a character-level GPT on a text and lets it write.
//!
//! `cargo run --release --bin gpt` needs nothing: it reads this repository's own book and sources.
//! `cargo run --release --bin gpt -- --help` explains the rest.
#![forbid(unsafe_code)]

mod checkpoint;
mod corpus;
mod options;
mod plot;
mod train;

use clap::Parser;
use ferrograd::Result;
use options::Options;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    // Whatever goes wrong is one line for a person, also where the library panics with an error as payload.
    match ferrograd::on_pool(|| ferrograd::catch(|| run(&options))).and_then(|outcome| outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    match &options.generate {
        Some(prompt) => train::write(options, prompt),
        None => train::train(options),
    }
}
