//! What the samples from a card say: times, rates, ratios; as Markdown.

use crate::floor::Limits;
use crate::records::Record;
use crate::report::{head, line, number};
use bench_measure::{Sample, Work};
use std::fmt;

/// One case, and who has timed it.
pub struct Case<'a> {
    /// The group's name, the dtype or the direction, and more.
    pub name: &'a str,
    /// What it cannot do without; nothing is known if ferrograd has no sample.
    pub work: Option<Work>,
    /// Ferrograd's.
    pub ours: Option<&'a Sample>,
    /// The others', in the order of the report's names.
    pub others: Vec<Option<&'a Sample>>,
}

impl<'a> Case<'a> {
    /// The group.
    pub fn group(&self) -> &'a str {
        self.name.split(' ').next().unwrap_or(self.name)
    }
    /// The cases whose ratios have a mean in common: the first two words.
    fn series(&self) -> &'a str {
        self.name.match_indices(' ').nth(1).map_or(self.name, |(end, _)| &self.name[..end])
    }
    /// The fastest rival's time, in ferrograd's.
    fn best(&self) -> Option<f64> {
        let rivals = self.others.iter().flatten().filter(|sample| !sample.aside);
        Some(rivals.map(|sample| sample.ms).min_by(f64::total_cmp)? / self.ours?.ms)
    }
}

/// All cases.
pub struct Report<'a> {
    about: Vec<&'a str>,
    /// The best that anybody reached.
    pub limits: Option<Limits>,
    /// The peers, and the kernels of ladders.
    pub names: Vec<&'a str>,
    /// In the order in which they were timed.
    pub cases: Vec<Case<'a>>,
}

impl<'a> Report<'a> {
    /// Sorts the records by case and peer.
    pub fn new(records: &'a [Record]) -> Report<'a> {
        let (mut about, mut limits, mut samples) = (Vec::new(), Vec::new(), Vec::new());
        for record in records {
            match record {
                Record::About { about: text } if about.contains(&text.as_str()) => (),
                Record::About { about: text } => about.push(text.as_str()),
                Record::Limits(measured) => limits.push(*measured),
                Record::Sample(sample) => samples.push(sample),
            }
        }
        let names = distinct(samples.iter().map(|s| s.peer.as_str()).filter(|&name| name != "ferrograd"));
        let of = |case: &str, peer: &str| middle(samples.iter().copied().filter(|s| s.case == case && s.peer == peer));
        let case = |name: &'a str| {
            let ours = of(name, "ferrograd");
            let others = names.iter().map(|peer| of(name, peer)).collect();
            Case { name, work: ours.and_then(|s| s.work), ours, others }
        };
        let cases = distinct(samples.iter().map(|s| s.case.as_str())).into_iter().map(case).collect();
        Report { about, limits: Limits::best(&limits), names, cases }
    }

    /// The groups, each with its cases.
    pub fn groups(&self) -> Vec<(&'a str, Vec<&Case<'a>>)> {
        let of = |group| (group, self.cases.iter().filter(|case| case.group() == group).collect());
        distinct(self.cases.iter().map(Case::group)).into_iter().map(of).collect()
    }

    /// How near ferrograd is to what the card can do at best, in percent.
    fn share(&self, case: &Case) -> Option<f64> {
        Some(100.0 * self.limits?.floor(case.work?)? / case.ours?.ms)
    }
}

/// Each name once, in the order of first appearance.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    names.fold(Vec::new(), |mut all, name| {
        if !all.contains(&name) {
            all.push(name);
        }
        all
    })
}

/// The one of the samples, one for each of the driver's rounds, whose time is the median.
fn middle<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<&'a Sample> {
    let mut sorted: Vec<&Sample> = samples.collect();
    sorted.sort_by(|a, b| a.ms.total_cmp(&b.ms));
    sorted.get(sorted.len() / 2).copied()
}

/// Milliseconds, and in percent of them how much half of the rounds differed.
fn cell(sample: Option<&Sample>) -> String {
    let Some(sample) = sample else { return "–".into() };
    let spread = sample.rounds.map_or(String::new(), |r| format!(" ± {:.1} %", 100.0 * r.spread / sample.ms));
    format!("{:.4}{spread}", sample.ms)
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for about in &self.about {
            writeln!(f, "- {about}")?;
        }
        if let Some(l) = self.limits {
            let [half, single, bandwidth] = [l.bf16_flops / 1e12, l.flops / 1e12, l.bandwidth / 1e9];
            writeln!(
                f,
                "- the limits, measured in this run: {half:.4} TFLOP/s of bf16, {single:.4} of f32, {bandwidth:.2} GB/s"
            )?;
        }
        for (group, cases) in self.groups() {
            writeln!(f, "\n## {group}\n")?;
            self.table(f, &cases)?;
        }
        Ok(())
    }
}

impl Report<'_> {
    /// A group's table, and the mean ratio of each series.
    fn table(&self, f: &mut fmt::Formatter, cases: &[&Case]) -> fmt::Result {
        let here = |peer: &usize| cases.iter().any(|case| case.others[*peer].is_some());
        let peers: Vec<usize> = (0..self.names.len()).filter(here).collect();
        let mut cells: Vec<String> =
            ["case", "ferrograd ms", "shortest", "TFLOP/s", "GB/s", "of the limit"].map(String::from).into();
        cells.extend(peers.iter().map(|&peer| format!("{} ms", self.names[peer])));
        cells.push("best rival ÷ ferrograd".into());
        head(f, &cells)?;
        for case in cases {
            let rate = |amount: fn(&Work) -> f64| {
                let amount = amount(&case.work?);
                (amount > 0.0).then_some(amount / case.ours?.ms)
            };
            let mut cells = vec![case.name.to_string(), cell(case.ours)];
            cells.push(number(case.ours.and_then(|s| Some(s.rounds?.min)), 4));
            cells.push(number(rate(|work| work.flops / 1e9), 2));
            cells.push(number(rate(|work| work.bytes / 1e6), 1));
            cells.push(self.share(case).map_or("–".into(), |share| format!("{share:.0} %")));
            cells.extend(peers.iter().map(|&peer| cell(case.others[peer])));
            cells.push(number(case.best(), 2));
            line(f, &cells)?;
        }
        for series in distinct(cases.iter().map(|case| case.series())) {
            let ratios: Vec<f64> = cases.iter().filter(|c| c.series() == series).filter_map(|c| c.best()).collect();
            if !ratios.is_empty() {
                let mean = (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp();
                writeln!(
                    f,
                    "\n{series}: the best rival ÷ ferrograd is {mean:.3}, the geometric mean of {}",
                    ratios.len()
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"about":"a card"}
        {"flops":1e12,"bf16_flops":2e12,"bandwidth":1e9}
        {"flops":1e12,"bf16_flops":4e12,"bandwidth":1e9}
        {"case":"matmul bf16 8","peer":"ferrograd","ms":2.0,"work":{"flops":4e9,"bytes":0.0,"bf16":true},"rounds":{"count":20,"min":1.5,"spread":0.2}}
        {"case":"matmul bf16 8","peer":"01_naive","ms":1.0,"aside":true}
        {"case":"matmul bf16 8","peer":"cuBLAS","ms":4.0}
        {"case":"matmul bf16 9","peer":"ferrograd","ms":2.0}
        {"case":"matmul bf16 9","peer":"cuBLAS","ms":1.0}
        {"case":"softmax f32","peer":"torch","ms":1.0}"#;

    #[test]
    fn a_table_for_each_group_with_its_peers() {
        let records: Vec<Record> = LINES.lines().map(|l| serde_json::from_str(l.trim()).unwrap()).collect();
        let text = Report::new(&records).to_string();
        assert!(text.starts_with("- a card\n- the limits"), "{text}");
        let row = "| matmul bf16 8 | 2.0000 ± 10.0 % | 1.5000 | 2.00 | – | 50 % | 1.0000 | 4.0000 | 2.00 |";
        assert!(text.contains(row), "a step of a ladder is no rival: {text}");
        // √(2 · ½)
        assert!(
            text.contains("\nmatmul bf16: the best rival ÷ ferrograd is 1.000, the geometric mean of 2\n"),
            "{text}"
        );
        assert!(
            text.contains("## softmax\n") && text.ends_with("| softmax f32 | – | – | – | – | – | 1.0000 | – |\n"),
            "{text}"
        );
    }
}
