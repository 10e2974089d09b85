//! A stand-in for the CUDA driver (`libcuda.so.1`) and for NVRTC (`libnvrtc.so`), for tests without a GPU.
//!
//! A program that loads both libraries at run time, as `cudarc` does, runs its kernels on the CPU without knowing it:
//! kernels are compiled by g++, each CUDA thread is a fiber, and the blocks of a launch run one after another on the
//! thread that launched them. What hardware leaves open the emulator makes visible: memory is poisoned until it is
//! written, allocations have red zones, asynchronous copies may be as late as their wait allows, and threads may run
//! in any order (see the README beside this crate).
//!
//! ```no_run
//! let folder = ferrograd_cuda_emulator::build("target/cuda-emulator".as_ref())?;
//! let status = std::process::Command::new("the-test-program").env("LD_LIBRARY_PATH", folder).status()?;
//! # Ok::<(), std::io::Error>(())
//! ```

#![forbid(unsafe_code)]

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// The folders of C++ sources in this crate: the driver, the compiler, and the headers that kernels are compiled with.
const SOURCES: [&str; 3] = ["driver", "nvrtc", "device"];

/// Compiles the stand-ins into a folder in `dir`, unless it is there already, and returns that folder, which belongs on
/// `LD_LIBRARY_PATH`. Its name is a hash of the sources; processes that build at the same time do not disturb each
/// other.
///
/// # Errors
/// If g++ is missing or fails, or a file cannot be written.
pub fn build(dir: &Path) -> io::Result<PathBuf> {
    let sources = sources()?;
    let mut hasher = DefaultHasher::new();
    sources.hash(&mut hasher);
    let hash = hasher.finish();
    let dir = std::path::absolute(dir)?;
    let folder = dir.join(format!("{hash:016x}"));
    if folder.exists() {
        return Ok(folder);
    }
    // One builds, the others wait for it; a build that was cut short is never taken for a whole one.
    fs::create_dir_all(&dir)?;
    let lock = File::create(dir.join("lock"))?;
    lock.lock()?;
    if !folder.exists() {
        let unfinished = dir.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir(&unfinished)?;
        compile(&sources, hash, &unfinished)?;
        fs::rename(&unfinished, &folder)?;
    }
    Ok(folder)
}

/// A source file: its path in the crate, and its text.
type Source = (PathBuf, String);

fn sources() -> io::Result<Vec<Source>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in SOURCES {
        for entry in fs::read_dir(root.join(folder))? {
            let name = entry?.file_name();
            sources.push((Path::new(folder).join(&name), fs::read_to_string(root.join(folder).join(&name))?));
        }
    }
    sources.sort();
    Ok(sources)
}

fn compile(sources: &[Source], hash: u64, out: &Path) -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir(out.join("device"))?;
    let (mut driver, mut nvrtc) = (Vec::new(), Vec::new());
    let mut compilers = Vec::new();
    for (path, text) in sources {
        if path.starts_with("device") {
            fs::write(out.join(path), text)?;
        }
        if path.extension().is_some_and(|e| e == "cpp") {
            let object = out.join(path.with_extension("o").file_name().expect("a file has a name"));
            let mut compiler = Command::new("g++");
            compiler.args(["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-c"]);
            compiler.arg(format!("-DFERROGRAD_EMULATOR_VERSION={}", hash & 0x7fff_ffff));
            compiler.arg(root.join(path)).arg("-o").arg(&object);
            compilers.push(compiler);
            if path.starts_with("driver") { driver.push(object) } else { nvrtc.push(object) }
        }
    }
    run(compilers)?;
    // Kernels call the mathematical library, and find it through the driver that they are linked to.
    let link = |name: &str, objects: &[PathBuf]| {
        let mut linker = Command::new("g++");
        linker.args(["-shared", "-Wl,-z,defs", "-Wl,--no-as-needed"]).arg(format!("-Wl,-soname,{name}"));
        linker.args(objects).args(["-lm", "-o"]).arg(out.join(name));
        linker
    };
    run(vec![link("libcuda.so.1", &driver), link("libnvrtc.so", &nvrtc)])?;
    symlink("libcuda.so.1", out.join("libcuda.so"))?;
    symlink("libnvrtc.so", out.join("libnvrtc.so.12"))?;
    symlink("libnvrtc.so", out.join("libnvrtc.so.13"))?;
    driver.iter().chain(&nvrtc).try_for_each(fs::remove_file)
}

/// Runs commands, as many at a time as there are processors.
fn run(commands: Vec<Command>) -> io::Result<()> {
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let mut running: Vec<Child> = Vec::new();
    let mut result = Ok(());
    for mut command in commands {
        if running.len() == at_once {
            result = result.and(wait(running.remove(0)));
        }
        match command.spawn() {
            Ok(child) => running.push(child),
            Err(e) => result = result.and(Err(io::Error::new(e.kind(), format!("the CUDA emulator needs g++: {e}")))),
        }
    }
    running.into_iter().map(wait).fold(result, Result::and)
}

fn wait(mut child: Child) -> io::Result<()> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("g++ failed on the CUDA emulator: {status}"))) }
}
