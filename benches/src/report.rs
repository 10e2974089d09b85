//! What the samples say: medians, ratios, floors; as Markdown.

use crate::floor::Limits;
use crate::records::Record;
use bench_measure::{Sample, Work, median};
use std::fmt;

/// One case; the first of each list is ferrograd, the others are the peers in order.
pub struct Row {
    /// Name.
    pub case: String,
    /// Median milliseconds.
    pub ms: Vec<Option<f64>>,
    /// Most memory in any round, MiB.
    pub peak_mib: Vec<Option<f64>>,
    /// The least milliseconds that this machine takes.
    pub floor: Option<f64>,
}

impl Row {
    /// How many times as long each peer takes as ferrograd.
    pub fn ratios(&self) -> Vec<Option<f64>> {
        let ours = self.ms[0];
        self.ms[1..].iter().map(|theirs| Some((*theirs)? / ours?)).collect()
    }
    /// The ratio of the fastest peer.
    fn best(&self) -> Option<f64> {
        self.ratios().into_iter().flatten().min_by(f64::total_cmp)
    }
    /// How near ferrograd is to the floor, in percent.
    fn share(&self) -> Option<f64> {
        Some(100.0 * self.floor? / self.ms[0]?)
    }
}

/// All cases.
pub struct Report {
    /// Ferrograd, then the peers.
    pub names: Vec<String>,
    /// In the order in which they were timed.
    pub rows: Vec<Row>,
    limits: Option<Limits>,
}

impl Report {
    /// Sorts the records by case and peer.
    pub fn new(records: &[Record]) -> Report {
        let samples = || records.iter().filter_map(|r| if let Record::Sample(s) = r { Some(s) } else { None });
        let limits = records.iter().filter_map(|r| if let Record::Limits(l) = r { Some(*l) } else { None });
        let limits = Limits::best(&limits.collect::<Vec<_>>());
        let mut names = vec!["ferrograd".to_string()];
        let mut cases: Vec<&str> = Vec::new();
        for s in samples() {
            if !names.contains(&s.peer) {
                names.push(s.peer.clone());
            }
            if !cases.contains(&&*s.case) {
                cases.push(&s.case);
            }
        }
        let row = |case: &str| {
            let of = |peer: &String| samples().filter(|s| s.case == case && s.peer == *peer).collect::<Vec<_>>();
            let work: Option<Work> = samples().filter(|s| s.case == case).find_map(|s| s.work);
            Row {
                case: case.into(),
                ms: names.iter().map(|n| middle(&of(n))).collect(),
                peak_mib: names.iter().map(|n| of(n).iter().filter_map(|s| s.peak_mib).reduce(f64::max)).collect(),
                floor: limits.zip(work).and_then(|(l, w)| l.floor(w)),
            }
        };
        Report { rows: cases.into_iter().map(row).collect(), names, limits }
    }
}

fn middle(samples: &[&Sample]) -> Option<f64> {
    let ms: Vec<f64> = samples.iter().map(|s| s.ms).collect();
    (!ms.is_empty()).then(|| median(&ms))
}

/// A row of a Markdown table.
pub fn line(f: &mut fmt::Formatter, cells: &[String]) -> fmt::Result {
    writeln!(f, "| {} |", cells.join(" | "))
}

/// A heading, and the rule beneath it that aligns numbers to the right.
pub fn head(f: &mut fmt::Formatter, cells: &[String]) -> fmt::Result {
    line(f, cells)?;
    writeln!(f, "|---{}|", "|--:".repeat(cells.len() - 1))
}

/// So many digits after the point, or a dash.
pub fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".into(), |v| format!("{v:.digits$}"))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.times(f)?;
        if let Some(l) = self.limits {
            let [flops, bf16, bandwidth] = [l.flops, l.bf16_flops, l.bandwidth].map(|x| x / 1e9);
            writeln!(
                f,
                "\nThe floor: {flops:.0} GFLOP/s of f32, {bf16:.0} of bf16, {bandwidth:.1} GB/s, as measured."
            )?;
        }
        self.memory(f)
    }
}

impl Report {
    fn times(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let peers = self.names.len() > 1;
        let mut cells = vec!["case".to_string()];
        cells.extend(self.names.iter().map(|n| format!("{n} ms")));
        cells.extend(peers.then(|| "best peer ÷ ferrograd".into()));
        cells.extend(["floor ms".into(), "floor ÷ ferrograd".into()]);
        head(f, &cells)?;
        for row in &self.rows {
            let mut cells = vec![row.case.clone()];
            cells.extend(row.ms.iter().map(|&ms| number(ms, 3)));
            cells.extend(peers.then(|| number(row.best(), 2)));
            cells.push(number(row.floor, 3));
            cells.push(row.share().map_or("–".into(), |s| format!("{s:.0} %")));
            line(f, &cells)?;
        }
        Ok(())
    }

    /// The most memory that each process held.
    fn memory(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.rows.iter().flat_map(|r| &r.peak_mib).all(Option::is_none) {
            return Ok(());
        }
        writeln!(f, "\nThe most memory that the process held during a case, MiB:\n")?;
        let names = self.names.iter().cloned();
        head(f, &std::iter::once("case".to_string()).chain(names).collect::<Vec<_>>())?;
        for row in self.rows.iter().filter(|r| r.peak_mib.iter().any(Option::is_some)) {
            let cells = row.peak_mib.iter().map(|&p| number(p, 0));
            line(f, &std::iter::once(row.case.clone()).chain(cells).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"flops":1e9,"bf16_flops":2e9,"bandwidth":1e9}
        {"case":"a","peer":"ferrograd","ms":2.0,"peak_mib":10.0,"work":{"flops":1e6,"bytes":0.0,"bf16":false}}
        {"case":"b","peer":"ferrograd","ms":1.0}
        {"case":"a","peer":"torch","ms":3.0,"peak_mib":500.0}
        {"case":"a","peer":"torch","ms":5.0,"peak_mib":400.0}
        {"case":"a","peer":"torch","ms":4.0}"#;

    #[test]
    fn a_table_has_medians_ratios_and_floors() {
        let records: Vec<Record> = LINES.lines().map(|l| serde_json::from_str(l.trim()).unwrap()).collect();
        let report = Report::new(&records);
        assert_eq!(report.names, ["ferrograd", "torch"]);
        assert_eq!(report.rows[0].ratios(), [Some(2.0)]);
        let text = report.to_string();
        assert!(text.contains("| a | 2.000 | 4.000 | 2.00 | 1.000 | 50 % |"), "{text}");
        assert!(text.contains("| b | 1.000 | – | – | – | – |"), "{text}");
        assert!(text.ends_with("| a | 10 | 500 |\n"), "b has no memory: {text}");
    }
}
