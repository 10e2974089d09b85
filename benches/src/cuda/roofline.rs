//! The roofline (S. Williams, A. Waterman, D. Patterson 2009) in SVG: what is reached over how much is computed for each byte,
//! beneath what the card can do.

use super::report::{Case, Report};
use crate::chart::{COLOURS, text};
use crate::floor::Limits;
use bench_measure::Sample;
use std::fmt::Write;

/// The plot's edges, in pixels.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 800.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 560.0;

/// A logarithmic scale from powers of ten to pixels.
struct Scale {
    powers: [i32; 2],
    pixels: [f64; 2],
}

impl Scale {
    /// A scale with room for all `values`.
    fn new(values: impl Iterator<Item = f64>, pixels: [f64; 2]) -> Scale {
        let (low, high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x.log10()), h.max(x.log10())));
        // Without values any decade will do.
        let [low, high] = if low <= high { [low.floor() as i32, high.ceil() as i32] } else { [0, 1] };
        Scale { powers: [low, high.max(low + 1)], pixels }
    }
    fn at(&self, value: f64) -> f64 {
        let [low, high] = self.powers.map(f64::from);
        self.pixels[0] + (self.pixels[1] - self.pixels[0]) * (value.log10() - low) / (high - low)
    }
    fn ends(&self) -> [f64; 2] {
        self.powers.map(|power| 10f64.powi(power))
    }
}

/// Operations for each byte, operations a second, and what to say of it.
struct Point<'a> {
    intensity: f64,
    flops: f64,
    case: &'a Case<'a>,
    sample: &'a Sample,
}

/// Filled points are ferrograd's, hollow ones the others', a colour for each group; cases that compute nothing or move nothing
/// have no place here.
pub fn svg(report: &Report) -> String {
    let groups = report.groups();
    let points: Vec<Vec<Point>> =
        groups.iter().map(|(_, cases)| cases.iter().copied().flat_map(points).collect()).collect();
    let all = || points.iter().flatten();
    let x = Scale::new(all().map(|p| p.intensity), [LEFT, RIGHT]);
    let roofs = report.limits.iter().flat_map(|l| [l.flops, l.bf16_flops]);
    let y = Scale::new(all().map(|p| p.flops).chain(roofs), [BOTTOM, TOP]);
    let mut marks = String::new();
    for (group, points) in points.iter().enumerate() {
        let colour = COLOURS[group % COLOURS.len()];
        marks += &text(RIGHT + 16.0, TOP + 18.0 * group as f64, "start", colour, &format!("● {}", groups[group].0));
        points.iter().for_each(|point| marks += &point.mark(&x, &y, colour));
    }
    let roofs = report.limits.map_or(String::new(), |limits| roofs_of(limits, &x, &y));
    let (width, height) = (RIGHT + 140.0, BOTTOM + 50.0);
    let title = "operations a second over operations for each byte; filled: ferrograd, hollow: others; black: the card's limits, as measured";
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}{}{roofs}{marks}</svg>\n",
        text(8.0, 20.0, "start", "#222", title),
        grid(&x, &y)
    )
}

/// Ferrograd's and everybody else's, where the case has a place on the plot.
fn points<'a>(case: &'a Case<'a>) -> Vec<Point<'a>> {
    let Some(work) = case.work.filter(|work| work.flops > 0.0 && work.bytes > 0.0) else { return Vec::new() };
    let samples = case.ours.into_iter().chain(case.others.iter().copied().flatten());
    let point = |sample: &'a Sample| Point {
        intensity: work.flops / work.bytes,
        flops: work.flops / sample.ms * 1e3,
        case,
        sample,
    };
    samples.map(point).collect()
}

impl Point<'_> {
    fn mark(&self, x: &Scale, y: &Scale, colour: &str) -> String {
        let ours = self.sample.peer == "ferrograd";
        let (radius, fill) = if ours { (4, colour) } else { (3, "none") };
        let title = format!("{}: {}: {:.4} TFLOP/s", self.case.name, self.sample.peer, self.flops / 1e12);
        let (x, y) = (x.at(self.intensity), y.at(self.flops));
        format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{fill}\" stroke=\"{colour}\"><title>{title}</title></circle>\n"
        )
    }
}

/// Up the slope of the bandwidth to the ridge, then level: for 16-bit floats and for f32.
fn roofs_of(limits: Limits, x: &Scale, y: &Scale) -> String {
    let mut out = String::new();
    let [from, to] = x.ends();
    let bottom = y.ends()[0];
    for (name, peak) in [("bf16", limits.bf16_flops), ("f32", limits.flops)] {
        let ridge = (peak / limits.bandwidth).clamp(from, to);
        let start = from.max(bottom / limits.bandwidth).min(ridge);
        let corners = [start, ridge, to].map(|i| (x.at(i), y.at((i * limits.bandwidth).clamp(bottom, peak))));
        let corners = corners.map(|(x, y)| format!("{x:.1},{y:.1}")).join(" ");
        writeln!(out, r#"<polyline points="{corners}" fill="none" stroke="black"/>"#).expect("a string takes all");
        let label = format!("{name}: {:.3} TFLOP/s", peak / 1e12);
        out += &text(RIGHT - 4.0, y.at(peak) - 4.0, "end", "#222", &label);
    }
    let label = format!("{:.1} GB/s", limits.bandwidth / 1e9);
    let i = from.max(bottom / limits.bandwidth);
    out + &text(x.at(i) + 4.0, y.at((i * limits.bandwidth).max(bottom)) - 10.0, "start", "#222", &label)
}

/// A line at each power of ten.
fn grid(x: &Scale, y: &Scale) -> String {
    let mut out = String::new();
    let mut line = |[x1, y1, x2, y2]: [f64; 4]| {
        writeln!(out, r##"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="#ddd"/>"##)
            .expect("a string takes all");
    };
    let decades =
        |scale: &Scale| (scale.powers[0]..=scale.powers[1]).map(|power| 10f64.powi(power)).collect::<Vec<_>>();
    decades(x).into_iter().for_each(|v| line([x.at(v), TOP, x.at(v), BOTTOM]));
    decades(y).into_iter().for_each(|v| line([LEFT, y.at(v), RIGHT, y.at(v)]));
    for value in decades(x) {
        out += &text(x.at(value), BOTTOM + 18.0, "middle", "#222", &value.to_string());
    }
    for value in decades(y) {
        out += &text(LEFT - 6.0, y.at(value) + 4.0, "end", "#222", &format!("{value:.0e}"));
    }
    out + &text((LEFT + RIGHT) / 2.0, BOTTOM + 38.0, "middle", "#222", "operations / byte")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Record;

    #[test]
    fn points_lie_beneath_the_roof() {
        let lines = r#"{"flops":1e12,"bf16_flops":1e13,"bandwidth":1e12}
            {"case":"matmul bf16","peer":"ferrograd","ms":1.0,"work":{"flops":1e9,"bytes":1e7,"bf16":true}}
            {"case":"matmul bf16","peer":"cuBLAS","ms":2.0}
            {"case":"copy","peer":"ferrograd","ms":2.0,"work":{"flops":0.0,"bytes":1e7,"bf16":true}}"#;
        let records: Vec<Record> = lines.lines().map(|l| serde_json::from_str(l.trim()).unwrap()).collect();
        let svg = svg(&Report::new(&records));
        assert_eq!(svg.matches("<circle").count(), 2, "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
        assert!(svg.contains("matmul bf16: cuBLAS: 0.5000 TFLOP/s"), "{svg}");
        // Nothing at all is drawn too.
        assert!(super::svg(&Report::new(&[])).ends_with("</svg>\n"));
    }

    #[test]
    fn a_decade_is_as_long_as_the_next() {
        let scale = Scale::new([2.0, 300.0].into_iter(), [0.0, 90.0]);
        assert_eq!(scale.ends(), [1.0, 1000.0]);
        assert!((scale.at(10.0) - 30.0).abs() < 1e-9 && (scale.at(1000.0) - 90.0).abs() < 1e-9);
    }
}
