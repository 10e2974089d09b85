//! How a module looks when printed: its parts, one a line, with their settings, as PyTorch shows them.

use crate::module::{Item, Module, walk};

struct Part {
    name: String,
    kind: &'static str,
    settings: String,
    parts: Vec<Part>,
}

/// `Linear(in_features=4, out_features=2, bias=true)`, or the parts of a composite, indented.
pub(crate) fn describe<M: Module + ?Sized>(module: &M) -> String {
    let root = Part { name: String::new(), kind: module.type_name(), settings: module.extra_repr(), parts: vec![] };
    // The parts from the root to where the walk is, with their paths.
    let mut open: Vec<(String, Part)> = vec![(String::new(), root)];
    walk(module, &mut |item| match item {
        Item::Enter(path, kind, settings) => {
            while !contains(&open[open.len() - 1].0, path) {
                close(&mut open);
            }
            let parent = &open[open.len() - 1].0;
            let name = path[parent.len()..].trim_start_matches('.').to_string();
            open.push((path.to_string(), Part { name, kind, settings: settings(), parts: vec![] }));
        }
        // Parameters, buffers and flags are no parts: what they are, the settings say.
        Item::Param(..) | Item::Buffer(..) | Item::Mode(_) => {
            if open.len() > 1 {
                open.pop();
            }
        }
    });
    while open.len() > 1 {
        close(&mut open);
    }
    let mut out = String::new();
    write(&open[0].1, 0, &mut out);
    out
}

/// Does `path` lie under `parent`?
fn contains(parent: &str, path: &str) -> bool {
    parent.is_empty() || path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('.'))
}

/// Puts the innermost open part into the one around it; plain numbers, empty options and empty lists are left out.
fn close(open: &mut Vec<(String, Part)>) {
    let Some((_, part)) = open.pop() else { return };
    let is_module = part.kind.starts_with(|c: char| c.is_ascii_uppercase()) && !LEAVES.contains(&part.kind);
    if let Some((_, parent)) = open.last_mut()
        && (is_module || !part.parts.is_empty())
    {
        parent.parts.push(part);
    }
}
/// Types that are no layers themselves.
const LEAVES: [&str; 6] = ["None", "String", "PhantomData", "DType", "Device", LIST];
/// What a vector, an array or a tuple of modules is called.
pub(crate) const LIST: &str = "ModuleList";

fn write(part: &Part, indent: usize, out: &mut String) {
    out.push_str(part.kind);
    out.push('(');
    out.push_str(&part.settings);
    for p in &part.parts {
        out.push('\n');
        out.push_str(&" ".repeat(indent + 2));
        out.push_str(&format!("({}): ", p.name));
        write(p, indent + 2, out);
    }
    if !part.parts.is_empty() {
        out.push('\n');
        out.push_str(&" ".repeat(indent));
    }
    out.push(')');
}

/// `Debug` and `Display` of layers: [`Module::describe`].
macro_rules! printed {
    ($($layer:ty),+ $(,)?) => {$(
        impl std::fmt::Debug for $layer {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str(&$crate::Module::describe(self))
            }
        }
        impl std::fmt::Display for $layer {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str(&$crate::Module::describe(self))
            }
        }
    )+};
}
pub(crate) use printed;
