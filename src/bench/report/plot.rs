//! A plot as SVG: lines or dots over two labelled axes, its legend below it.

use std::fmt::Write;

use super::axis::{Axis, Scale, short};

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Line,
    Dots,
    /// A line with a dot at each point.
    Both,
    /// A thin dashed line: a bound, not a measurement.
    Bound,
}

/// Points with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub name: String,
    pub mark: Mark,
    pub points: Vec<(f64, f64)>,
    /// Shown when the pointer rests on a dot; as many as points, or none.
    pub notes: Vec<String>,
}

/// A plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    pub title: String,
    /// What it shows and how to read it.
    pub caption: String,
    pub x: (String, Scale),
    pub y: (String, Scale),
    pub series: Vec<Series>,
}

/// Colours that stay apart in light, dark and for colour-blind eyes; more series share the last.
pub const COLOURS: usize = 8;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 52.0;

/// Text that may stand in HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Plot {
    pub fn is_empty(&self) -> bool {
        self.series.iter().all(|s| s.points.is_empty())
    }

    /// A `figure` element.
    pub fn html(&self) -> String {
        let all = |f: fn(&(f64, f64)) -> f64| -> Vec<f64> {
            self.series.iter().flat_map(|s| s.points.iter().map(f)).collect()
        };
        let x = Axis::around(&self.x.0, self.x.1, &all(|p| p.0));
        let y = Axis::around(&self.y.0, self.y.1, &all(|p| p.1));
        let mut svg = frame(&self.title, &x, &y);
        for (i, series) in self.series.iter().enumerate() {
            draw(&mut svg, series, i.min(COLOURS - 1), &x, &y);
        }
        svg.push_str("</svg>");
        let (title, caption) = (escape(&self.title), escape(&self.caption));
        let legend = self.legend();
        format!(
            "<figure><h3>{title}</h3>{svg}{legend}<figcaption>{caption}</figcaption></figure>\n"
        )
    }

    fn legend(&self) -> String {
        if self.series.len() < 2 {
            return String::new();
        }
        let mut out = String::from("<ul class=\"legend\">");
        for (i, series) in self.series.iter().enumerate() {
            let class = match series.mark {
                Mark::Bound => "bound".to_string(),
                _ => format!("c{}", i.min(COLOURS - 1)),
            };
            let _ = write!(out, "<li><i class=\"{class}\"></i>{}</li>", escape(&series.name));
        }
        out + "</ul>"
    }
}

fn at(axis_x: &Axis, axis_y: &Axis, (x, y): (f64, f64)) -> (f64, f64) {
    (
        LEFT + axis_x.place(x) * (WIDTH - LEFT - RIGHT),
        HEIGHT - BOTTOM - axis_y.place(y) * (HEIGHT - TOP - BOTTOM),
    )
}

/// Grid, ticks and labels.
fn frame(title: &str, x: &Axis, y: &Axis) -> String {
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(title)
    );
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tick in &y.ticks {
        let (_, at) = at(x, y, (x.low, *tick));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            short(*tick)
        );
    }
    for tick in &x.ticks {
        let (at, _) = at(x, y, (*tick, y.low));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text class=\"tick\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 17.0,
            short(*tick)
        );
    }
    let (middle, centre) = (LEFT + (right - LEFT) / 2.0, TOP + (bottom - TOP) / 2.0);
    let _ = write!(
        svg,
        "<text class=\"label\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
         <text class=\"label\" transform=\"translate(14 {centre}) rotate(-90)\" \
         text-anchor=\"middle\">{}</text>",
        HEIGHT - 10.0,
        escape(&x.label),
        escape(&y.label)
    );
    svg
}

fn draw(svg: &mut String, series: &Series, colour: usize, x: &Axis, y: &Axis) {
    let drawable = |p: &(f64, f64)| {
        let fine = |v: f64, s: Scale| v.is_finite() && (s == Scale::Linear || v > 0.0);
        fine(p.0, x.scale) && fine(p.1, y.scale)
    };
    let points: Vec<(usize, (f64, f64))> = series
        .points
        .iter()
        .enumerate()
        .filter(|(_, p)| drawable(p))
        .map(|(i, p)| (i, at(x, y, *p)))
        .collect();
    if series.mark != Mark::Dots && points.len() > 1 {
        let path: Vec<String> =
            points.iter().map(|(_, (px, py))| format!("{px:.1},{py:.1}")).collect();
        let class = match series.mark {
            Mark::Bound => "bound".to_string(),
            _ => format!("line c{colour}"),
        };
        let _ = write!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", path.join(" "));
    }
    if matches!(series.mark, Mark::Dots | Mark::Both) {
        for (i, (px, py)) in points {
            let (vx, vy) = series.points[i];
            let note = series.notes.get(i).cloned().unwrap_or_default();
            let _ = write!(
                svg,
                "<circle class=\"dot c{colour}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.2\">\
                 <title>{} {}: {}, {}</title></circle>",
                escape(&series.name),
                escape(&note),
                short(vx),
                short(vy)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_labels_marks_and_no_script() {
        let series = |name: &str, mark| Series {
            name: name.into(),
            mark,
            points: vec![(1.0, 2.0), (10.0, f64::NAN), (100.0, 30.0)],
            notes: Vec::new(),
        };
        let plot = Plot {
            title: "a < b".into(),
            caption: "c".into(),
            x: ("x (ms)".into(), Scale::Log),
            y: ("y (tok/s)".into(), Scale::Linear),
            series: vec![series("one", Mark::Line), series("two", Mark::Dots)],
        };
        let html = plot.html();
        assert!(html.contains("x (ms)") && html.contains("y (tok/s)"));
        assert!(html.contains("a &lt; b") && !html.contains("NaN") && !html.contains("<script"));
        assert_eq!(html.matches("<circle").count(), 2, "what is not finite is left out");
        assert_eq!(html.matches("<polyline").count(), 1);
        assert!(html.contains("<li><i class=\"c1\"></i>two</li>"));
    }
}
