//! Tensors in files: the [safetensors](https://github.com/huggingface/safetensors) format, and atomic writes.

use crate::{DType, Error, Result, Tensor};
use safetensors::Dtype as FileDtype;
use safetensors::tensor::Metadata;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The header's length stands in the first 8 bytes.
const LENGTH_BYTES: u64 = 8;
/// No header is longer than this, by the format's own rule.
const MAX_HEADER: u64 = 100_000_000;

/// What a safetensors file holds.
#[derive(Clone, Debug, Default)]
pub struct SafetensorsFile {
    /// The tensors by name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// Text by name.
    pub metadata: BTreeMap<String, String>,
}

/// Reads a safetensors file, tensor by tensor.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Format`] if it is no safetensors file, is truncated, or holds a tensor
/// of a dtype that [`DType`] lacks. The message is one line and names the file.
pub fn load_safetensors(path: impl AsRef<Path>) -> Result<SafetensorsFile> {
    let path = path.as_ref();
    let bad = |message: String| Error::format(path.display(), message.replace('\n', " "));
    let io = |e: std::io::Error| Error::io(path, e);
    let mut file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size < LENGTH_BYTES {
        return Err(bad(format!("not a safetensors file: {size} bytes, too short for a header")));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact(&mut length).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(bad(format!("not a safetensors file: a header of {length} bytes (at most {MAX_HEADER})")));
    }
    if LENGTH_BYTES + length > size {
        return Err(bad(format!("truncated, or not a safetensors file: a header of {length} bytes in {size} bytes")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(io)?;
    let header: Metadata = serde_json::from_slice(&header)
        .map_err(|e| bad(format!("not a safetensors file: its header is wrong ({e})")))?;
    let promised = LENGTH_BYTES + length + header.data_len() as u64;
    if size != promised {
        let what = if size < promised { "truncated" } else { "damaged" };
        return Err(bad(format!("{what}: the header describes {promised} bytes, the file has {size}")));
    }
    let mut infos: Vec<_> = header.tensors().into_iter().collect();
    infos.sort_by(|(a, x), (b, y)| (x.data_offsets, a).cmp(&(y.data_offsets, b)));
    let mut tensors = BTreeMap::new();
    for (name, info) in infos {
        let dtype = from_file_dtype(info.dtype)
            .ok_or_else(|| bad(format!("tensor {name:?} has dtype {:?}, which is not supported", info.dtype)))?;
        let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
        file.read_exact(&mut bytes).map_err(io)?;
        tensors.insert(name, Tensor::from_bytes(&bytes, &info.shape, dtype));
    }
    let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(SafetensorsFile { tensors, metadata })
}

/// Writes tensors by name, and text as metadata, [atomically](write_atomically). Equal contents give equal bytes.
///
/// ```
/// use ferrograd_tensor::{Tensor, load_safetensors, save_safetensors};
/// # let path = std::env::temp_dir().join(format!("ferrograd-doc-{}.safetensors", std::process::id()));
/// save_safetensors(&path, [("weight", &Tensor::ones([2, 3]))], &Default::default())?;
/// assert_eq!(*load_safetensors(&path)?.tensors["weight"].shape(), [2, 3]);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), ferrograd_tensor::Error>(())
/// ```
///
/// # Errors
/// [`Error::Format`] if two tensors have one name, or one has the reserved name `__metadata__`; [`Error::Io`] if writing
/// fails, and then a file that was there before is untouched (but see [`write_atomically`] for the last moment).
pub fn save_safetensors<N: AsRef<str>, T: Borrow<Tensor>>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (N, T)>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    let mut tensors: Vec<(N, T)> = tensors.into_iter().collect();
    // Larger elements first, so that every tensor is aligned to its elements.
    tensors.sort_by(|(a, x), (b, y)| {
        let key = |t: &T| std::cmp::Reverse(t.borrow().dtype().size());
        key(x).cmp(&key(y)).then_with(|| a.as_ref().cmp(b.as_ref()))
    });
    let mut names = BTreeSet::from(["__metadata__"]);
    for (name, _) in &tensors {
        if !names.insert(name.as_ref()) {
            return Err(Error::format(path.display(), format!("the tensor name {:?} is taken", name.as_ref())));
        }
    }
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), metadata.clone().into_iter().collect());
    }
    let mut offset = 0;
    for (name, tensor) in &tensors {
        let tensor = tensor.borrow();
        let end = offset + tensor.numel() * tensor.dtype().size();
        let info = serde_json::json!({
            "dtype": file_dtype(tensor.dtype()),
            "shape": tensor.dims(),
            "data_offsets": [offset, end],
        });
        header.insert(name.as_ref().into(), info);
        offset = end;
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() as u64 > MAX_HEADER {
        return Err(Error::format(path.display(), format!("the header would have {} bytes", header.len())));
    }
    write_atomically(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        tensors.iter().try_for_each(|(_, tensor)| out.write_all(&tensor.borrow().to_bytes()))
    })
}

/// The format's name of a dtype.
fn file_dtype(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "F64",
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::I64 => "I64",
        DType::I32 => "I32",
        DType::I8 => "I8",
        DType::U8 => "U8",
        DType::Bool => "BOOL",
    }
}

fn from_file_dtype(dtype: FileDtype) -> Option<DType> {
    Some(match dtype {
        FileDtype::F64 => DType::F64,
        FileDtype::F32 => DType::F32,
        FileDtype::F16 => DType::F16,
        FileDtype::BF16 => DType::BF16,
        FileDtype::I64 => DType::I64,
        FileDtype::I32 => DType::I32,
        FileDtype::I8 => DType::I8,
        FileDtype::U8 => DType::U8,
        FileDtype::BOOL => DType::Bool,
        _ => return None,
    })
}

/// Writes a file whole or not at all: `write` fills a temporary file in the same directory, which is flushed to the disk
/// and then takes `path`'s place. A reader, or a machine after a power cut, sees the old contents or the new ones.
///
/// # Errors
/// [`Error::Io`] with what `write` or the operating system said. The temporary file is removed, the old file untouched;
/// but for one error, which says so: when the directory cannot be flushed to the disk at the very end, the new contents are
/// in place, and only a power cut could bring the old ones back.
pub fn write_atomically(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let io = |e: std::io::Error| Error::io(path, e);
    let name = path.file_name().ok_or_else(|| Error::io(path, "the path names no file"))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Before anything is written: whoever may not open the directory learns it while the old file is there.
    let renaming = Renaming::open(directory).map_err(io)?;
    let (file, guard) = temporary_file(directory, &name.to_string_lossy()).map_err(io)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write(&mut out).map_err(io)?;
    let file = out.into_inner().map_err(|e| io(e.into_error()))?;
    file.sync_all().map_err(io)?;
    drop(file);
    std::fs::rename(&guard.0, path).map_err(io)?;
    std::mem::forget(guard);
    let flushed = renaming.sync();
    flushed
        .map_err(|e| Error::io(path, format!("written, but a power cut could undo it (flushing its directory: {e})")))
}

/// A new file `.{name}.….tmp`; names that a killed process of the same number left behind are passed over.
fn temporary_file(directory: &Path, name: &str) -> std::io::Result<(File, Temporary)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!(".{name}.{}-{count}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, Temporary(path))),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}

/// A file that disappears unless it was renamed, also when `write` panics.
struct Temporary(PathBuf);
impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the error that led here is the one to report.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes a renaming inside of a directory durable.
#[cfg(unix)]
struct Renaming(File);
#[cfg(unix)]
impl Renaming {
    fn open(directory: &Path) -> std::io::Result<Self> {
        File::open(directory).map(Renaming)
    }
    fn sync(self) -> std::io::Result<()> {
        self.0.sync_all()
    }
}
/// Elsewhere a directory cannot be opened, and renaming is durable by itself.
#[cfg(not(unix))]
struct Renaming;
#[cfg(not(unix))]
impl Renaming {
    fn open(_: &Path) -> std::io::Result<Self> {
        Ok(Renaming)
    }
    fn sync(self) -> std::io::Result<()> {
        Ok(())
    }
}
