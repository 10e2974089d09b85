//! From the name of a kernel to one that can be launched: sources, compiled for the card once, kept on disk.

use crate::driver::{error, explain};
use crate::nvrtc::{Compiled, Nvrtc};
use crate::ops;
use cudarc::driver::{result, sys};
use ferrograd_tensor::{DType, Error, Result};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
use xxhash_rust::xxh3::Xxh3;

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../kernels/", $name)))),*]
    };
}

/// What kernels include.
const HEADERS: &[(&str, &str)] = files! {
    "ptx.cuh" "types.cuh" "layout.cuh" "elementwise.cuh" "functions.cuh" "integers.cuh" "reduction.cuh" "philox.cuh"
    "matmul.cuh"
};
/// One file for each operation.
const SOURCES: &[(&str, &str)] = files! {
    "unary.cu" "binary.cu" "compare.cu" "select.cu" "copy.cu" "cast.cu" "full.cu" "reduce.cu" "arg_reduce.cu" "cumsum.cu"
    "sort.cu" "matmul.cu" "matmul_mma.cu" "gather.cu" "random.cu"
};

/// A kernel: the file, what is defined for it (`"FUNCTION=gelu"`), its name there, and the dtype that the name ends in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KernelId {
    pub file: &'static str,
    pub define: &'static str,
    pub name: &'static str,
    pub dtype: Option<DType>,
}

/// A kernel that can be launched.
#[derive(Clone, Copy)]
pub struct Kernel(pub(crate) sys::CUfunction);
// SAFETY: a handle that the driver allows any thread to use.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

/// A compiled file.
#[derive(Clone, Copy)]
struct Module(sys::CUmodule);
// SAFETY: a handle that the driver allows any thread to use.
unsafe impl Send for Module {}

/// A file and what is defined for it: what is compiled together.
pub type Program = (&'static str, &'static str);

/// All that has been compiled for a card.
pub struct Programs {
    /// As the compiler wants it: `sm_90a`.
    architecture: String,
    kernels: RwLock<HashMap<KernelId, Kernel>>,
    modules: Mutex<HashMap<Program, Module>>,
}

impl Programs {
    /// For a card of this compute capability.
    ///
    /// # Errors
    /// If there is no compiler, and nothing was compiled ahead of time.
    pub fn new((major, minor): (i32, i32)) -> Result<Programs> {
        // From Hopper on, the architecture's own instructions are behind the "a".
        let architecture = format!("sm_{major}{minor}{}", if major >= 9 { "a" } else { "" });
        let ahead = cache_file(key(("copy.cu", ""), &architecture, None)?, "copy.cu");
        if !ahead.is_some_and(|path| path.exists()) {
            Nvrtc::get()?;
        }
        Ok(Programs { architecture, kernels: RwLock::default(), modules: Mutex::default() })
    }

    /// The kernel, compiled if need be. The card is the calling thread's.
    ///
    /// # Errors
    /// If it does not compile, or the driver does not take it.
    pub fn kernel(&self, id: KernelId) -> Result<Kernel> {
        if let Some(&kernel) = self.kernels.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(kernel);
        }
        let module = self.module((id.file, id.define))?;
        let name = match id.dtype {
            Some(dtype) => format!("{}_{dtype}", id.name),
            None => id.name.to_owned(),
        };
        let c_name = CString::new(name.as_str()).expect("names have no NUL");
        // SAFETY: the module is loaded for good.
        let function = unsafe { result::module::get_function(module.0, c_name) }
            .map_err(|e| explain(&format!("{} has no kernel {name}", id.file), e))?;
        let kernel = Kernel(function);
        self.kernels.write().unwrap_or_else(PoisonError::into_inner).insert(id, kernel);
        Ok(kernel)
    }

    fn module(&self, program: Program) -> Result<Module> {
        // One thread compiles, others that want the same wait for it.
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&module) = modules.get(&program) {
            return Ok(module);
        }
        let cubin = self.cubin(program)?;
        // SAFETY: a whole image, from the compiler or from a file that is written whole or not at all.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) }
            .map_err(|e| explain(&format!("loading {program:?}"), e))?;
        modules.insert(program, Module(module));
        Ok(Module(module))
    }

    /// From the disk, or else from the compiler.
    fn cubin(&self, program: Program) -> Result<Vec<u8>> {
        let cached = |version| Ok::<_, Error>(cache_file(key(program, &self.architecture, version)?, program.0));
        let read = |path: &Option<PathBuf>| path.as_ref().and_then(|path| fs::read(path).ok());
        if let Some(cubin) = read(&cached(None)?) {
            return Ok(cubin);
        }
        let path = cached(Some(Nvrtc::get()?.version))?;
        if let Some(cubin) = read(&path) {
            return Ok(cubin);
        }
        let cubin = compile(program, &self.architecture, &[])?.cubin;
        if let Some(path) = path {
            // Without a cache the program runs all the same, and compiles again next time.
            let _ = keep(&path, &cubin);
        }
        Ok(cubin)
    }
}

fn source((file, _): Program) -> Result<&'static str> {
    let found = SOURCES.iter().find(|(name, _)| *name == file);
    found.map(|(_, source)| *source).ok_or_else(|| error(format!("there is no kernel file {file}")))
}

fn options((_, define): Program, architecture: &str) -> Vec<String> {
    let defines = define.split(' ').filter(|d| !d.is_empty()).map(|d| format!("-D{d}"));
    [format!("--gpu-architecture={architecture}"), "--std=c++17".into()].into_iter().chain(defines).collect()
}

/// Machine code for an architecture.
pub(crate) fn compile(program: Program, architecture: &str, more: &[&str]) -> Result<Compiled> {
    let mut options = options(program, architecture);
    options.extend(more.iter().map(|o| o.to_string()));
    Nvrtc::get()?.compile(program.0, source(program)?, HEADERS, &options)
}

/// Of all that the machine code depends on. Without the compiler's version: of what was compiled ahead of time, where
/// there may be no compiler.
fn key(program: Program, architecture: &str, version: Option<(i32, i32)>) -> Result<u128> {
    let mut hash = Xxh3::new();
    let options = options(program, architecture);
    let version = format!("{version:?}");
    let headers = HEADERS.iter().flat_map(|(name, text)| [*name, *text]);
    let parts = [program.0, source(program)?, &version].into_iter().chain(headers);
    for part in parts.chain(options.iter().map(String::as_str)) {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    Ok(hash.digest128())
}

/// Compiles every program for an architecture (`sm_90a`), and calls `report(program, what the compiler said)`; with a folder,
/// the machine code is kept there, where `FERROGRAD_CACHE` finds it on a machine without the compiler.
///
/// # Errors
/// The first program that does not compile or cannot be written.
pub fn compile_all(architecture: &str, folder: Option<&Path>, mut report: impl FnMut(&str, &str)) -> Result<()> {
    for program in ops::programs() {
        let compiled = compile(program, architecture, &["--ptxas-options=-v"])?;
        let (file, define) = program;
        report(&if define.is_empty() { file.to_owned() } else { format!("{file} {define}") }, &compiled.log);
        if let Some(folder) = folder {
            let path = folder.join(cubin_name(key(program, architecture, None)?, file));
            keep(&path, &compiled.cubin).map_err(|e| Error::io(&path, &e))?;
        }
    }
    Ok(())
}

fn cubin_name(key: u128, file: &str) -> String {
    format!("{}-{key:032x}.cubin", file.trim_end_matches(".cu"))
}

/// `FERROGRAD_CACHE`, or the user's cache folder; none if there is neither.
fn cache_file(key: u128, file: &str) -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = var("FERROGRAD_CACHE")
        .or_else(|| Some(var("XDG_CACHE_HOME")?.join("ferrograd")))
        .or_else(|| Some(var("HOME")?.join(".cache/ferrograd")))
        .or_else(|| Some(var("LOCALAPPDATA")?.join("ferrograd")))?;
    Some(folder.join(cubin_name(key, file)))
}

/// Writes a file whole or not at all, whoever else writes it at the same time.
fn keep(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    fs::create_dir_all(path.parent().expect("a folder"))?;
    let unique = format!("{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let part = path.with_extension(unique);
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, path)).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}
