//! The loss curve as a picture.

use crate::checkpoint::History;
use ferrograd::Result;
use ferrograd::prelude::*;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::path::Path;

/// Training loss (its running mean) and validation loss by step, as a PNG.
pub fn loss_curve(history: &History, path: &Path) -> Result<()> {
    // The only font that is sure to be there is one in the program.
    let _ = register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    draw(history, path).map_err(|e| Error::io(path, e))
}

fn draw(history: &History, path: &Path) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (train, validation) = (smooth(&history.train), &history.validation);
    let values = || train.iter().copied().chain(validation.iter().map(|&(_, l)| l)).filter(|l| l.is_finite());
    let (low, high) = (values().fold(f32::INFINITY, f32::min), values().fold(0.0, f32::max));
    if low > high {
        return Err("there is no finite loss to draw".into());
    }
    let margin = ((high - low) * 0.05).max(0.01);
    let root = BitMapBackend::new(path, (960, 540)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Cross-entropy per character", ("sans-serif", 24))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(0..history.train.len().max(1), low - margin..high + margin)?;
    chart.configure_mesh().x_desc("step").y_desc("nats").label_style(("sans-serif", 16)).draw()?;
    chart
        .draw_series(LineSeries::new(train.iter().copied().enumerate().map(|(i, l)| (i + 1, l)), &BLUE))?
        .label("training (running mean)")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], BLUE));
    chart
        .draw_series(LineSeries::new(validation.iter().copied(), RED.stroke_width(3)).point_size(3))?
        .label("validation")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], RED.stroke_width(3)));
    chart
        .configure_series_labels()
        .border_style(BLACK)
        .background_style(WHITE)
        .label_font(("sans-serif", 16))
        .draw()?;
    root.present()?;
    Ok(())
}

/// The exponential running mean over about 20 steps, without the bias of its start.
fn smooth(losses: &[f32]) -> Vec<f32> {
    let (mut mean, mut weight) = (0.0, 0.0);
    losses
        .iter()
        .map(|&l| {
            mean = 0.95 * mean + 0.05 * l;
            weight = 0.95 * weight + 0.05;
            mean / weight
        })
        .collect()
}
