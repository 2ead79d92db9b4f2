//! Matrices as pictures: one pixel a cell, in shades that rise in lightness.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::html::Html;
use super::short;
use crate::error::RunError;

/// Shades of 0 to 1: from a dark blue over green to yellow, told apart by all eyes (stops of matplotlib's viridis).
const STOPS: [[f32; 3]; 9] = [
    [68.0, 1.0, 84.0],
    [71.0, 44.0, 122.0],
    [59.0, 81.0, 139.0],
    [44.0, 113.0, 142.0],
    [33.0, 144.0, 141.0],
    [39.0, 173.0, 129.0],
    [92.0, 200.0, 99.0],
    [170.0, 220.0, 50.0],
    [253.0, 231.0, 37.0],
];

/// What shades stand for: values up to `low` are the darkest, from `high` on the lightest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shades {
    /// See above.
    pub low: f64,
    /// See above.
    pub high: f64,
}

impl Shades {
    /// From the 2nd to the 98th percentile of the finite values.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut finite: Vec<f64> = values.filter(|v| v.is_finite()).collect();
        finite.sort_by(f64::total_cmp);
        let at = |part: f64| finite.get((part * finite.len().saturating_sub(1) as f64) as usize).copied();
        match (at(0.02), at(0.98)) {
            (Some(low), Some(high)) if high > low => Self { low, high },
            (Some(low), _) => Self { low: low - 1.0, high: low },
            _ => Self { low: 0.0, high: 1.0 },
        }
    }
}

/// A square matrix, row by row, as an image in the page. Cells that are not finite are transparent.
///
/// # Errors
/// When the picture cannot be written.
pub fn matrix(values: &[f64], size: usize, shades: Shades, alt: &str) -> Result<Html, RunError> {
    let failed = |e: png::EncodingError| RunError::Engine(format!("a picture of a matrix: {e}"));
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size as u32, size as u32);
    encoder.set_color(png::ColorType::Indexed);
    // The last shade is none.
    encoder.set_palette((0..=255u8).flat_map(shade).collect::<Vec<u8>>());
    encoder.set_trns((0..=255u8).map(|i| if i == 255 { 0 } else { 255 }).collect::<Vec<u8>>());
    let pixel = |value: &f64| match value.is_finite() {
        true => (254.0 * ((value - shades.low) / (shades.high - shades.low)).clamp(0.0, 1.0)) as u8,
        false => 255,
    };
    let pixels: Vec<u8> = (0..size * size).map(|i| values.get(i).map_or(255, pixel)).collect();
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    let mut html = Html::new();
    let source = format!("data:image/png;base64,{}", STANDARD.encode(&file));
    let side = size as f64;
    let image = [
        ("width", side.into()),
        ("height", side.into()),
        ("alt", alt.into()),
        ("src", source.as_str().into()),
    ];
    html.empty("img", &image);
    Ok(html)
}

/// The shades with what they stand for.
pub fn scale_bar(shades: Shades) -> Html {
    let mut html = Html::new();
    html.open("span", &[("class", "scale".into())])
        .text(&short(shades.low))
        .raw("<svg viewBox=\"0 0 64 8\" aria-hidden=\"true\">");
    for step in 0..16 {
        let [r, g, b] = shade(step * 16 + 7);
        let colour = format!("rgb({r},{g},{b})");
        let at = [
            ("x", (f64::from(step) * 4.0).into()),
            ("width", 4.2.into()),
            ("height", 8.0.into()),
            ("fill", colour.as_str().into()),
        ];
        html.empty("rect", &at);
    }
    html.raw("</svg>").text(&short(shades.high)).close("span");
    html
}

fn shade(level: u8) -> [u8; 3] {
    let at = f32::from(level) / 255.0 * (STOPS.len() - 1) as f32;
    let stop = (at as usize).min(STOPS.len() - 2);
    let part = at - stop as f32;
    std::array::from_fn(|i| (STOPS[stop][i] + part * (STOPS[stop + 1][i] - STOPS[stop][i])) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_holds_the_cells() {
        let values = [0.0, 1.0, f64::NAN, 0.5];
        let html = matrix(&values, 2, Shades { low: 0.0, high: 1.0 }, "two \"clips\"").unwrap();
        let source = html.as_str().split("base64,").nth(1).unwrap().split('"').next().unwrap();
        let file = STANDARD.decode(source).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (2, 2));
        assert_eq!(pixels, [0, 254, 255, 127]);
        assert!(html.as_str().contains("alt=\"two &quot;clips&quot;\""));
    }

    #[test]
    fn shades_cover_what_there_is() {
        assert_eq!(Shades::of((0..101).map(f64::from)), Shades { low: 2.0, high: 98.0 });
        assert_eq!(Shades::of([f64::NAN].into_iter()), Shades { low: 0.0, high: 1.0 });
        assert_eq!(Shades::of([3.0, 3.0].into_iter()), Shades { low: 2.0, high: 3.0 });
    }
}
