//! Published weights: files, and the names in them.

use ferrograd_nn::{LoadReport, Module, StateDict};
use ferrograd_tensor::{Error, Result};
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

/// Every tensor of a safetensors file.
pub(crate) fn read_file(path: &Path) -> Result<StateDict> {
    StateDict::load(path)
}

/// Every tensor of `model.safetensors`, or of the shards that `model.safetensors.index.json` lists.
pub(crate) fn read_folder(folder: &Path) -> Result<StateDict> {
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        return read_file(&folder.join("model.safetensors"));
    }
    let text = std::fs::read_to_string(&index).map_err(|e| Error::io(&index, e))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::format(index.display(), e))?;
    let map = json["weight_map"].as_object().ok_or_else(|| Error::format(index.display(), "no object weight_map"))?;
    let mut state = StateDict::new();
    for shard in map.values().filter_map(|file| file.as_str()).collect::<BTreeSet<_>>() {
        // A shard lies beside its index: an index may not send us elsewhere.
        if Path::new(shard).file_name() != Some(shard.as_ref()) {
            return Err(Error::format(index.display(), format!("{shard:?} is no file name")));
        }
        read_file(&folder.join(shard))?.iter().for_each(|(name, t)| state.insert(name, t.clone()));
    }
    Ok(state)
}

/// `name` as the model calls it.
///
/// TensorFlow's `gamma` and `beta` become `weight` and `bias`; `prefix` is added or taken away where that makes it one
/// of the `known` names. Position numbers that old files store are dropped.
fn rename(name: &str, prefix: &str, known: &HashSet<String>) -> Option<String> {
    if name == "position_ids" || name.ends_with("embeddings.position_ids") {
        return None;
    }
    let name = match name.rsplit_once('.') {
        Some((path, "gamma")) => format!("{path}.weight"),
        Some((path, "beta")) => format!("{path}.bias"),
        _ => name.to_string(),
    };
    if known.contains(&name) {
        return Some(name);
    }
    let other = name.strip_prefix(prefix).map_or_else(|| format!("{prefix}{name}"), String::from);
    Some(if known.contains(&other) { other } else { name })
}

/// `model` with the values of `state`, in evaluation mode.
///
/// A tied parameter takes the value under its first name. Missing and unexpected names are reported; a shape that does
/// not fit is an error, as is a state with none of the model's names.
pub(crate) fn load<M: Module>(model: M, state: StateDict, prefix: &str, file: &Path) -> Result<(M, LoadReport)> {
    let known: HashSet<String> = model.state_dict().iter().map(|(name, _)| name.to_string()).collect();
    let state = state.rename(|name| rename(name, prefix, &known));
    let mut tied = HashSet::new();
    let mut seen = HashSet::new();
    for (name, parameter) in model.named_parameters() {
        if state.get(&name).is_some() && !seen.insert(parameter.id()) {
            tied.insert(name);
        }
    }
    let state = state.rename(|name| (!tied.contains(name)).then(|| name.to_string()));
    if !state.iter().any(|(name, _)| known.contains(name)) {
        return Err(Error::format(
            file.display(),
            format!("none of its tensors is a parameter of {}", model.type_name()),
        ));
    }
    let report = model.load_state_dict(&state, false)?;
    if !report.mismatched.is_empty() {
        return Err(Error::format(file.display(), &report));
    }
    model.eval();
    Ok((model, report))
}

#[cfg(test)]
mod tests {
    use super::rename;
    use std::collections::HashSet;

    #[test]
    fn names_of_every_age_are_understood() {
        let known: HashSet<String> =
            ["bert.norm.weight", "bert.norm.bias", "cls.bias"].iter().map(|n| n.to_string()).collect();
        let new = |name| rename(name, "bert.", &known);
        assert_eq!(new("norm.gamma").as_deref(), Some("bert.norm.weight"));
        assert_eq!(new("bert.norm.beta").as_deref(), Some("bert.norm.bias"));
        assert_eq!(new("cls.bias").as_deref(), Some("cls.bias"));
        assert_eq!(new("cls.other").as_deref(), Some("cls.other"));
        assert_eq!(new("bert.embeddings.position_ids"), None);
        let known: HashSet<String> = ["norm.weight".to_string()].into();
        assert_eq!(rename("bert.norm.gamma", "bert.", &known).as_deref(), Some("norm.weight"));
    }
}
