//! The table that `Module::summary` prints.

use crate::module::{Item, Module, walk};
use std::collections::HashSet;
use std::fmt::Write;

struct Row {
    path: String,
    kind: &'static str,
    shapes: Vec<String>,
    count: usize,
}

pub(crate) fn summary<M: Module + ?Sized>(module: &M) -> String {
    let mut rows: Vec<Row> = vec![Row { path: String::new(), kind: module.type_name(), shapes: vec![], count: 0 }];
    let mut seen = HashSet::new();
    let (mut trainable, mut frozen, mut buffers) = (0, 0, 0);
    walk(module, &mut |item| match item {
        Item::Enter(path, kind, _) => rows.push(Row { path: path.to_string(), kind, shapes: vec![], count: 0 }),
        Item::Param(path, p) => {
            let (n, shape) = (p.tensor().numel(), p.tensor().shape().to_string());
            let own = rows.pop().expect("a parameter is entered before it is met");
            let owner = path.rsplit_once('.').map_or("", |(head, _)| head);
            let Some(row) = rows.iter_mut().rev().find(|r| r.path == owner) else {
                rows.push(own);
                return;
            };
            let name = path.rsplit('.').next().unwrap_or(path);
            if seen.insert(p.id()) {
                row.shapes.push(format!("{name} {shape}"));
                row.count += n;
                *(if p.requires_grad() { &mut trainable } else { &mut frozen }) += n;
            } else {
                row.shapes.push(format!("{name} {shape} (tied)"));
            }
        }
        Item::Buffer(_, b) => {
            rows.pop();
            buffers += b.tensor().numel();
        }
        Item::Mode(_) => {
            rows.pop();
        }
    });
    // Settings and empty containers say nothing.
    let shown: Vec<&Row> = rows.iter().filter(|r| r.count > 0 || !r.shapes.is_empty()).collect();
    let label = |r: &Row| format!("{} ({})", if r.path.is_empty() { "·" } else { &r.path }, r.kind);
    let head = ["Layer (type)", "Parameters", "Number"];
    let w0 = shown.iter().map(|r| label(r).chars().count()).chain([head[0].len()]).max().unwrap_or(0);
    let w1 = shown.iter().map(|r| r.shapes.join(", ").chars().count()).chain([head[1].len()]).max().unwrap_or(0);
    let w2 = shown.iter().map(|r| group(r.count).len()).chain([head[2].len()]).max().unwrap_or(0);
    let line = "─".repeat(w0 + w1 + w2 + 4);
    let mut out = String::new();
    let _ = writeln!(out, "{}\n{line}\n{:w0$}  {:w1$}  {:>w2$}\n{line}", module.type_name(), head[0], head[1], head[2]);
    for r in shown {
        let _ = writeln!(out, "{:w0$}  {:w1$}  {:>w2$}", label(r), r.shapes.join(", "), group(r.count));
    }
    let _ = writeln!(out, "{line}");
    let _ = write!(out, "Parameters: {} trainable, {} frozen", group(trainable), group(frozen));
    if buffers > 0 {
        let _ = write!(out, "; buffers: {}", group(buffers));
    }
    out
}

/// 1234567 as 1,234,567.
pub(crate) fn group(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    out
}
