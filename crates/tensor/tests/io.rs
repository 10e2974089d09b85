//! Files: every dtype there and back, damaged files, atomic writes, files by others; nested vectors and ndarray.

#[path = "../../../golden/reader.rs"]
mod golden;

use ferrograd_tensor::io::write_atomically;
use ferrograd_tensor::{DType, Error, Tensor, load_safetensors, save_safetensors};
use golden::Golden;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A directory that is removed at the end.
struct Directory(PathBuf);
impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("ferrograd-io-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}
impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn all_dtypes() -> BTreeMap<String, Tensor> {
    let x = Tensor::new([[0.0f64, 1.0, 2.5], [3.0, 100.0, 0.0]]);
    let mut tensors: BTreeMap<String, Tensor> =
        DType::ALL.iter().map(|&dtype| (format!("a tensor of {dtype}"), x.to_dtype(dtype))).collect();
    tensors.insert("transposed".into(), x.t());
    tensors.insert("scalar \"é\"\n".into(), Tensor::scalar(7i64));
    tensors.insert("empty".into(), Tensor::zeros([2, 0, 3]));
    tensors
}

#[test]
fn every_dtype_comes_back() {
    let (directory, tensors) = (Directory::new("roundtrip"), all_dtypes());
    let metadata = BTreeMap::from([("step".to_string(), "12".to_string()), ("note".into(), "\"quoted\"\n".into())]);
    let path = directory.file("x.safetensors");
    save_safetensors(&path, &tensors, &metadata).unwrap();
    let back = load_safetensors(&path).unwrap();
    assert_eq!(back.metadata, metadata);
    assert_eq!(back.tensors.keys().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>());
    for (name, x) in &tensors {
        let y = &back.tensors[name];
        assert_eq!((y.dtype(), y.shape()), (x.dtype(), x.shape()), "{name}");
        assert_eq!(y.to_bytes(), x.to_bytes(), "{name}");
    }
    // The format's own library agrees, and equal contents are equal bytes.
    let bytes = fs::read(&path).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(theirs.len(), tensors.len());
    assert_eq!(theirs.tensor("transposed").unwrap().shape(), [3, 2]);
    save_safetensors(&path, tensors.iter().rev(), &metadata).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(directory.names(), ["x.safetensors"]);
}

#[test]
fn a_file_from_python() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/ops.safetensors");
    let (file, golden) = (load_safetensors(path).unwrap(), Golden::open("ops"));
    assert!(file.metadata.contains_key("config"));
    let x = &file.tensors["conv2d/input.input"];
    assert_eq!(x.to_vec::<f64>(), golden.expect("conv2d", "input.input").to_vec::<f64>());
}

#[test]
fn damaged_files_are_errors_of_one_line() {
    let directory = Directory::new("damaged");
    let path = directory.file("x.safetensors");
    let missing = load_safetensors(&path).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }));
    assert!(missing.to_string().starts_with(&format!("{}: ", path.display())), "{missing}");

    save_safetensors(&path, [("weight", &Tensor::ones([3, 5]))], &BTreeMap::new()).unwrap();
    let good = fs::read(&path).unwrap();
    let error = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = load_safetensors(&path).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error}");
        let text = error.to_string();
        assert!(text.starts_with(&path.display().to_string()) && !text.contains('\n'), "{text}");
        text
    };
    // Cut off anywhere.
    for length in 0..good.len() {
        error(&good[..length]);
    }
    assert!(error(&good[..good.len() - 1]).contains("truncated: the header describes"));
    assert!(error(&good[..3]).contains("too short for a header"));
    assert!(error(&[&good[..], &[0]].concat()).contains("damaged: the header describes"));
    assert!(
        error(&[&u64::MAX.to_le_bytes()[..], &good[8..]].concat()).contains("a header of 18446744073709551615 bytes")
    );
    assert!(error(b"this is a text, and not at all a file of tensors").contains("not a safetensors file"));
    let with_header = |header: &str, data: usize| {
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], header.as_bytes(), &vec![0; data]].concat()
    };
    assert!(error(&with_header("{not json", 0)).contains("header is wrong"));
    let overlap = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#;
    assert!(error(&with_header(overlap, 6)).contains("header is wrong"));
    let size = r#"{"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,4]}}"#;
    assert!(error(&with_header(size, 4)).contains("header is wrong"));
    let dtype = r#"{"layer.0.weight":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}"#;
    let text = error(&with_header(dtype, 4));
    assert!(text.contains("\"layer.0.weight\"") && text.contains("F8_E4M3"), "{text}");
}

#[test]
fn writing_fails_whole() {
    let directory = Directory::new("atomic");
    let path = directory.file("x.safetensors");
    save_safetensors(&path, [("old", &Tensor::ones(3))], &BTreeMap::new()).unwrap();
    let old = fs::read(&path).unwrap();
    let unharmed = || {
        assert_eq!(fs::read(&path).unwrap(), old);
        assert_eq!(directory.names(), ["x.safetensors"]);
    };
    // The disk is full half-way.
    let full = write_atomically(&path, |out| {
        out.write_all(&vec![1; 3 << 20])?;
        Err(std::io::ErrorKind::StorageFull.into())
    });
    assert!(matches!(full, Err(Error::Io { .. })));
    unharmed();
    // The writer panics.
    let outcome = std::panic::catch_unwind(|| write_atomically(&path, |_| panic!("half-way")));
    assert!(outcome.is_err());
    unharmed();
    // Names that cannot be told apart.
    let x = Tensor::ones(1);
    let error = save_safetensors(&path, [("a", &x), ("a", &x)], &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("\"a\" is taken"), "{error}");
    assert!(save_safetensors(&path, [("__metadata__", &x)], &BTreeMap::new()).is_err());
    unharmed();
    // No such directory, a directory in the way, no name at all.
    assert!(save_safetensors(directory.file("no/x"), [("a", &x)], &BTreeMap::new()).is_err());
    fs::create_dir_all(directory.file("taken/inside")).unwrap();
    let error = save_safetensors(directory.file("taken"), [("a", &x)], &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }));
    assert_eq!(directory.names(), ["taken", "x.safetensors"]);
    assert!(write_atomically("/", |_| Ok(())).is_err());
    assert_eq!(fs::read(&path).unwrap(), old);
}

/// Files can be made and renamed in a directory that may not be listed, but the renaming could not be flushed to the disk.
#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_opened_leaves_the_old_file() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new("closed");
    let path = directory.file("x.safetensors");
    save_safetensors(&path, [("old", &Tensor::ones(3))], &BTreeMap::new()).unwrap();
    let old = fs::read(&path).unwrap();
    let mode = |mode| fs::set_permissions(&directory.0, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o300);
    let open = fs::File::open(&directory.0).is_ok(); // root may
    let outcome = save_safetensors(&path, [("new", &Tensor::ones(1))], &BTreeMap::new());
    mode(0o700);
    if open {
        return outcome.unwrap();
    }
    assert!(matches!(outcome, Err(Error::Io { .. })));
    assert_eq!(fs::read(&path).unwrap(), old);
    assert_eq!(directory.names(), ["x.safetensors"]);
}

#[test]
fn a_forbidden_directory_leaves_the_old_file() {
    // Nobody, not even root, may make files here; where there is no such directory there is nothing to test.
    let path = Path::new("/proc/self/status");
    if path.exists() {
        let error = save_safetensors(path, [("a", &Tensor::ones(1))], &BTreeMap::new()).unwrap_err();
        assert!(matches!(error, Error::Io { .. }));
        assert!(fs::read_to_string(path).unwrap().starts_with("Name:"));
    }
}

#[test]
fn nested_vectors() {
    let x = Tensor::arange(0i64, 12, 1).reshape([2, 3, 2]);
    assert_eq!(x.to_vec3::<i64>(), [[[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9], [10, 11]]]);
    assert_eq!(x.select(0, 1).t().to_vec2::<i64>(), [[6, 8, 10], [7, 9, 11]]);
    assert_eq!(Tensor::zeros([2, 0]).to_vec2::<f32>(), [[0.0f32; 0]; 2]);
    let error = ferrograd_tensor::catch(|| x.to_vec2::<i64>()).unwrap_err();
    assert!(error.to_string().starts_with("to_vec2: "), "{error}");
}
