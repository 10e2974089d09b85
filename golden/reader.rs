//! Reads the golden files for tests: `#[path = "../../../golden/reader.rs"] mod golden;`.
//!
//! Keys are described in `golden/README.md`.

use ferrograd_tensor::{DType, Tensor};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One golden file in memory.
pub struct Golden {
    name: String,
    tensors: BTreeMap<String, Tensor>,
    config: Value,
}

impl Golden {
    /// `golden/data/<name>.safetensors`.
    pub fn open(name: &str) -> Golden {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../golden/data/{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let config = header.metadata().as_ref().and_then(|m| m.get("config")).expect("the metadata has a config");
        let read = |(key, view): (&str, safetensors::tensor::TensorView)| {
            let dtype = match view.dtype() {
                safetensors::Dtype::F64 => DType::F64,
                safetensors::Dtype::F32 => DType::F32,
                safetensors::Dtype::I64 => DType::I64,
                safetensors::Dtype::BOOL => DType::Bool,
                other => panic!("{key}: golden files hold no {other:?}"),
            };
            (key.to_string(), Tensor::from_bytes(view.data(), view.shape(), dtype))
        };
        Golden {
            name: name.to_string(),
            tensors: file.iter().map(read).collect(),
            config: serde_json::from_str(config).expect("the config is JSON"),
        }
    }

    /// The names of all cases, sorted.
    pub fn cases(&self) -> Vec<String> {
        let case = |key: &String| key.split_once('/').map_or(key.as_str(), |(case, _)| case).to_string();
        self.tensors.keys().map(case).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The arguments of a case that are no tensors, as JSON (`null` for an argument that is absent from the object).
    pub fn config(&self, case: &str) -> Value {
        match &self.config[case] {
            Value::Null => panic!("{}: no case {case}", self.name),
            config => config.clone(),
        }
    }

    /// The tensor `<case>/<key>`, for instance `get("conv2d", "input.weight")`.
    pub fn get(&self, case: &str, key: &str) -> Option<Tensor> {
        self.tensors.get(&format!("{case}/{key}")).cloned()
    }

    /// [`get`](Golden::get) of a tensor that must be there.
    pub fn expect(&self, case: &str, key: &str) -> Tensor {
        self.get(case, key).unwrap_or_else(|| panic!("{}: no {case}/{key}", self.name))
    }

    /// The keys of a case (without the case's name) that begin with `prefix`, sorted: `keys("conv2d", "input.")`.
    pub fn keys(&self, case: &str, prefix: &str) -> Vec<String> {
        let case = format!("{case}/");
        let key = |key: &String| key.strip_prefix(&case).filter(|k| k.starts_with(prefix)).map(String::from);
        self.tensors.keys().filter_map(key).collect()
    }
}

/// Each test uses the part it needs: none of this is dead code where it is included.
const _: () = {
    let _ = (Golden::open, Golden::cases, Golden::config, Golden::get, Golden::expect, Golden::keys);
};
