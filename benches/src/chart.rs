//! The ratios as a bar chart in SVG.

use crate::report::Report;
use std::fmt::Write;

/// Colours that colour-blind readers tell apart (Okabe & Ito 2008, then Tol), for the peers in order.
pub const COLOURS: [&str; 10] =
    ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b8a800", "#000000", "#882255", "#999999"];
/// Where the bars begin and end, in pixels.
const LEFT: f64 = 300.0;
const RIGHT: f64 = 880.0;
/// Height of the legend, of a bar, and between cases.
const TOP: f64 = 50.0;
const BAR: f64 = 8.0;
const GAP: f64 = 8.0;

/// A scale on which equal ratios have equal lengths.
struct Scale {
    /// Powers of two at its ends.
    low: i32,
    high: i32,
}

impl Scale {
    /// A scale with room for all `ratios`, and for 1.
    fn new(ratios: impl Iterator<Item = f64>) -> Scale {
        let (low, high) = ratios.fold((-1.0f64, 1.0f64), |(l, h), r| (l.min(r.log2()), h.max(r.log2())));
        Scale { low: low.floor() as i32, high: high.ceil() as i32 }
    }
    fn x(&self, ratio: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (ratio.log2() - f64::from(self.low)) / f64::from(self.high - self.low)
    }
}

/// A bar for each case and peer: to the right of the line at 1 where ferrograd is faster, to the left where it is slower.
pub fn svg(report: &Report) -> String {
    let rows: Vec<_> = report.rows.iter().filter(|r| r.ratios().iter().any(Option::is_some)).collect();
    let scale = Scale::new(rows.iter().flat_map(|r| r.ratios()).flatten());
    let mut y = TOP;
    let mut bars = String::new();
    for row in rows {
        let ratios: Vec<_> = row.ratios().into_iter().enumerate().filter_map(|(i, r)| Some((i, r?))).collect();
        let middle = y + BAR * ratios.len() as f64 / 2.0 + 4.0;
        bars += &text(LEFT - 8.0, middle, "end", "#222", &row.case);
        for (peer, ratio) in ratios {
            let (one, end) = (scale.x(1.0), scale.x(ratio));
            let (x, width, colour) = (one.min(end), (one - end).abs(), COLOURS[peer % COLOURS.len()]);
            let title = format!("{}: {ratio:.2}", report.names[peer + 1]);
            writeln!(
                bars,
                r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{BAR}" fill="{colour}"><title>{title}</title></rect>"#
            )
            .expect("a string takes all");
            y += BAR;
        }
        y += GAP;
    }
    let (width, height) = (RIGHT + 20.0, y + 24.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}{}{bars}</svg>\n",
        legend(&report.names[1..]),
        grid(&scale, y)
    )
}

fn legend(peers: &[String]) -> String {
    let mut out =
        text(8.0, 16.0, "start", "#222", "time of a peer ÷ time of ferrograd; right of 1 ferrograd is faster");
    for (i, peer) in peers.iter().enumerate() {
        out += &text(LEFT + 90.0 * i as f64, 32.0, "start", COLOURS[i % COLOURS.len()], &format!("■ {peer}"));
    }
    out
}

/// A line at each power of two, the one at 1 black.
fn grid(scale: &Scale, bottom: f64) -> String {
    let mut out = String::new();
    for power in scale.low..=scale.high {
        let ratio = f64::from(power).exp2();
        let (x, colour) = (scale.x(ratio), if power == 0 { "black" } else { "#ddd" });
        writeln!(out, r#"<line x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{bottom}" stroke="{colour}"/>"#)
            .expect("a string takes all");
        out += &text(x, bottom + 16.0, "middle", "#222", &ratio.to_string());
    }
    out
}

/// A line of text, at this end or the middle of it.
pub fn text(x: f64, y: f64, anchor: &str, colour: &str, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_logarithmic() {
        let scale = Scale::new([0.3, 7.0].into_iter());
        assert_eq!((scale.low, scale.high), (-2, 3));
        assert_eq!((scale.x(0.25), scale.x(8.0)), (LEFT, RIGHT));
        assert_eq!(scale.x(2.0) - scale.x(1.0), scale.x(8.0) - scale.x(4.0));
    }
}
