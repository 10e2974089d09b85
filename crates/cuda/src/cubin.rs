//! Machine code: from the disk, or else from the compiler.

use crate::nvrtc::{Compiled, Nvrtc};
use crate::programs::HEADERS;
use ferrograd_tensor::Result;
use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use xxhash_rust::xxh3::Xxh3;

/// What is compiled together.
pub struct Unit<'a> {
    /// For messages, and in the name of the file that keeps the machine code.
    pub name: &'a str,
    pub source: &'a str,
    /// What is defined for it, separated by spaces: `FUNCTION=gelu INTEGERS`.
    pub define: Cow<'a, str>,
}

impl Unit<'_> {
    fn options(&self, architecture: &str) -> Vec<String> {
        let defines = self.define.split(' ').filter(|d| !d.is_empty()).map(|d| format!("-D{d}"));
        [format!("--gpu-architecture={architecture}"), "--std=c++17".into()].into_iter().chain(defines).collect()
    }

    /// Is it for Hopper and no other architecture? Its source says so by what it includes, itself or through other headers.
    pub fn is_for_hopper(&self) -> bool {
        includes(self.source, "hopper.cuh")
    }

    /// Machine code for an architecture, with more options.
    pub fn compile(&self, architecture: &str, more: &[&str]) -> Result<Compiled> {
        let mut options = self.options(architecture);
        options.extend(more.iter().map(|o| o.to_string()));
        Nvrtc::get()?.compile(self.name, self.source, HEADERS, &options)
    }

    /// Machine code for an architecture, compiled if it is not on the disk.
    pub fn cubin(&self, architecture: &str) -> Result<Vec<u8>> {
        let file = |version| Some(folder()?.join(self.file_name(architecture, version)));
        let read = |path: &Option<PathBuf>| path.as_ref().and_then(|path| fs::read(path).ok());
        if let Some(cubin) = read(&file(None)) {
            return Ok(cubin);
        }
        let path = file(Some(Nvrtc::get()?.version));
        if let Some(cubin) = read(&path) {
            return Ok(cubin);
        }
        let cubin = self.compile(architecture, &[])?.cubin;
        if let Some(path) = path {
            // Without a cache the program runs all the same, and compiles again next time.
            let _ = keep(&path, &cubin);
        }
        Ok(cubin)
    }

    /// Was it compiled ahead of time?
    pub fn is_ahead(&self, architecture: &str) -> bool {
        folder().is_some_and(|folder| folder.join(self.file_name(architecture, None)).exists())
    }

    /// By all that the machine code depends on. Without the compiler's version: what was compiled ahead of time, for machines
    /// that have no compiler.
    pub fn file_name(&self, architecture: &str, version: Option<(i32, i32)>) -> String {
        let mut hash = Xxh3::new();
        let (options, version) = (self.options(architecture), format!("{version:?}"));
        let headers = HEADERS.iter().flat_map(|(name, text)| [*name, *text]);
        let parts = [self.name, self.source, &version].into_iter().chain(headers);
        for part in parts.chain(options.iter().map(String::as_str)) {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        format!("{}-{:032x}.cubin", self.name.trim_end_matches(".cu"), hash.digest128())
    }
}

/// Does a source include one of [`HEADERS`], itself or through others?
fn includes(source: &str, header: &str) -> bool {
    let mut included = source.lines().filter_map(|line| line.strip_prefix("#include \"")?.split('"').next());
    let text = |name| HEADERS.iter().find(|(header, _)| *header == name).map_or("", |(_, text)| text);
    included.any(|name| name == header || includes(text(name), header))
}

/// `FERROGRAD_CACHE`, or the user's cache folder; none if there is neither.
fn folder() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("FERROGRAD_CACHE")
        .or_else(|| Some(var("XDG_CACHE_HOME")?.join("ferrograd")))
        .or_else(|| Some(var("HOME")?.join(".cache/ferrograd")))
        .or_else(|| Some(var("LOCALAPPDATA")?.join("ferrograd")))
}

/// Writes a file whole or not at all, whoever else writes it at the same time.
pub fn keep(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let unique = format!("{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let part = path.with_extension(unique);
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, path)).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}
