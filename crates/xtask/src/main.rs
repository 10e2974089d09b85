//! The project's own chores: `cargo xtask --help`.
#![forbid(unsafe_code)]

mod crash;
mod deps;
mod gpu;
mod kernels;
mod resume;
mod sanitize;
mod shell;
mod test_cuda;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Chore {
    /// Count the crates that a user's crate pulls in by depending on `ferrograd`; fails at 60.
    Deps,
    /// Run the unsafe core's tests under AddressSanitizer (Linux, x86-64).
    Sanitize,
    /// Kill a training run at random moments and check that each leaves a checkpoint that loads.
    Crash {
        /// How often.
        #[arg(long, default_value_t = 20)]
        times: usize,
    },
    /// Check that a run stopped half way and resumed ends in the same bits as one that went straight through.
    Resume {
        /// Steps of the straight run.
        #[arg(long, default_value_t = 1000)]
        steps: usize,
    },
    /// Run the CUDA backend's tests, and the other crates' on a CUDA device, without a card: under the emulator (needs g++).
    TestCuda {
        /// Only tests whose name has this in it.
        filter: Option<String>,
    },
    /// Pack the test programs, the comparison suite and a script that runs both on a machine with a card and without Rust.
    Gpu {
        /// Where to.
        #[arg(long, value_name = "DIR", default_value = "target/gpu")]
        out: PathBuf,
    },
    /// Compile every CUDA kernel, without a card (needs NVRTC; FERROGRAD_NVRTC names its folder): prints what each uses, and
    /// fails where one spills registers or the assembler ignores what it asks for.
    Kernels {
        /// For these architectures.
        #[arg(long, value_delimiter = ',', default_value = "sm_80,sm_90a,sm_100,sm_120")]
        arch: Vec<String>,
        /// Keep the machine code here: FERROGRAD_CACHE finds it on a machine without the compiler.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let outcome = match Chore::parse() {
        Chore::Deps => deps::run(),
        Chore::Sanitize => sanitize::run(),
        Chore::Crash { times } => crash::run(times),
        Chore::Resume { steps } => resume::run(steps),
        Chore::TestCuda { filter } => test_cuda::run_suites(filter.as_deref()),
        Chore::Gpu { out } => gpu::pack(&out),
        Chore::Kernels { arch, out } => kernels::run(&arch, out.as_deref()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
