//! A heat map as SVG: one figure over two settings of a sweep, each cell with its number.

use std::fmt::Write;

use super::axis::short;
use super::plot::escape;

/// A heat map.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat {
    pub title: String,
    pub caption: String,
    pub x_label: String,
    pub y_label: String,
    /// `(x, y, value)`; settings are shown in ascending order.
    pub cells: Vec<(f64, f64, f64)>,
}

const LEFT: f64 = 76.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 50.0;
const CELL_HEIGHT: f64 = 34.0;
const WIDTH: f64 = 560.0;

fn ascending(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut v: Vec<f64> = values.collect();
    v.sort_by(f64::total_cmp);
    v.dedup();
    v
}

impl Heat {
    /// There are at least two settings on both axes.
    pub fn is_worth_it(&self) -> bool {
        let xs = ascending(self.cells.iter().map(|c| c.0));
        let ys = ascending(self.cells.iter().map(|c| c.1));
        xs.len() > 1 && ys.len() > 1
    }

    /// A `figure` element.
    pub fn html(&self) -> String {
        let xs = ascending(self.cells.iter().map(|c| c.0));
        let ys = ascending(self.cells.iter().map(|c| c.1));
        let most = self.cells.iter().map(|c| c.2).fold(0.0, f64::max);
        let width = (WIDTH - LEFT - 10.0) / xs.len().max(1) as f64;
        let bottom = TOP + CELL_HEIGHT * ys.len() as f64;
        let height = bottom + BOTTOM;
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.title)
        );
        for (x, y, value) in &self.cells {
            let column = xs.iter().position(|v| v == x).unwrap_or(0) as f64;
            // The smallest setting stands at the bottom, as on an axis.
            let row = (ys.len() - 1 - ys.iter().position(|v| v == y).unwrap_or(0)) as f64;
            let share = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
            let (px, py) = (LEFT + column * width, TOP + row * CELL_HEIGHT);
            // Dark ink reads best on the middle shades of both themes.
            let class = match share {
                s if s > 0.85 => "on-strong",
                s if s > 0.6 => "on-middle",
                _ => "on-weak",
            };
            let _ = write!(
                svg,
                "<rect class=\"heat\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 fill-opacity=\"{:.3}\"/><text class=\"cell {class}\" x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{}</text>",
                px + 1.0,
                py + 1.0,
                width - 2.0,
                CELL_HEIGHT - 2.0,
                0.06 + 0.94 * share,
                px + width / 2.0,
                py + CELL_HEIGHT / 2.0 + 4.0,
                short(*value)
            );
        }
        for (i, x) in xs.iter().enumerate() {
            let at = LEFT + (i as f64 + 0.5) * width;
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 17.0,
                short(*x)
            );
        }
        for (i, y) in ys.iter().rev().enumerate() {
            let at = TOP + (i as f64 + 0.5) * CELL_HEIGHT + 4.0;
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{}\" y=\"{at:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                short(*y)
            );
        }
        let _ = write!(
            svg,
            "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"label\" transform=\"translate(14 {:.1}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text></svg>",
            LEFT + (WIDTH - LEFT - 10.0) / 2.0,
            height - 10.0,
            escape(&self.x_label),
            TOP + (bottom - TOP) / 2.0,
            escape(&self.y_label)
        );
        let (title, caption) = (escape(&self.title), escape(&self.caption));
        format!("<figure><h3>{title}</h3>{svg}<figcaption>{caption}</figcaption></figure>\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_ticks_and_labels() {
        let heat = Heat {
            title: "t".into(),
            caption: "c".into(),
            x_label: "input (tokens)".into(),
            y_label: "batch".into(),
            cells: vec![(64.0, 1.0, 10.0), (256.0, 1.0, 20.0), (64.0, 4.0, 30.0)],
        };
        assert!(heat.is_worth_it());
        let html = heat.html();
        assert_eq!(html.matches("class=\"heat\"").count(), 3);
        assert_eq!(html.matches("class=\"tick\"").count(), 4);
        assert!(html.contains("input (tokens)") && html.contains(">30<"));
        assert!(!Heat { cells: vec![(1.0, 1.0, 1.0)], ..heat }.is_worth_it());
    }
}
