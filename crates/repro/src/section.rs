//! What an experiment puts into the report.

use std::collections::HashSet;

use serde::Serialize;

use crate::claim::JudgedClaim;
use crate::error::Result;
use crate::statistics::{self, Interval};

/// A paper's part of the report.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// In the order in which they should be read.
    pub claims: Vec<JudgedClaim>,
    /// Line charts.
    pub curves: Vec<Curve>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Pictures, embedded into the page.
    pub pictures: Vec<Picture>,
    /// Files beside the report, such as an interactive page or a CSV.
    pub attachments: Vec<Attachment>,
    /// What a reader must know to read the figures rightly: substitutes, deviations, surprises. A paragraph each.
    pub notes: Vec<String>,
}

/// As many lines as can be told apart.
const MOST_SERIES: usize = 8;

/// A line chart with intervals.
#[derive(Debug, Clone, Serialize)]
pub struct Curve {
    /// The heading.
    pub title: String,
    /// What to see in it, and what the bands are.
    pub caption: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// At most eight, which is as many as can be told apart.
    pub series: Vec<Series>,
    /// Horizontal lines such as a dense network's accuracy or chance.
    pub levels: Vec<Level>,
}

/// An axis.
#[derive(Debug, Clone, Serialize)]
pub struct Axis {
    /// Quantity and unit.
    pub label: String,
    /// Spacing.
    pub scale: Scale,
}

/// How an axis is spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Equal differences.
    Linear,
    /// Equal ratios; positive numbers only.
    Log,
}

/// A line.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// For the legend.
    pub name: String,
    /// From left to right.
    pub points: Vec<Point>,
}

/// A point of a line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Position.
    pub x: f64,
    /// The mean over seeds.
    pub mean: f64,
    /// The mean's 95 % interval; `None` for one seed.
    pub interval: Option<Interval>,
    /// How many seeds.
    pub seeds: usize,
}

/// A horizontal line.
#[derive(Debug, Clone, Serialize)]
pub struct Level {
    /// For the legend.
    pub name: String,
    /// Where.
    pub y: f64,
}

/// A table; the first column names the rows.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// The heading.
    pub title: String,
    /// What to see in it.
    pub caption: String,
    /// Column names.
    pub header: Vec<String>,
    /// Rows, each as long as the header.
    pub rows: Vec<Vec<String>>,
}

/// A picture.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The heading.
    pub title: String,
    /// What to see in it.
    pub caption: String,
    /// For those who do not see it.
    pub alt: String,
    /// The encoded picture.
    pub media: Media,
}

/// An encoded picture.
#[derive(Debug, Clone)]
pub enum Media {
    /// The bytes of a PNG file.
    Png(Vec<u8>),
    /// The text of an SVG file.
    Svg(String),
}

/// A file beside the report.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// A plain file name.
    pub name: String,
    /// For the link.
    pub title: String,
    /// The file's content.
    pub bytes: Vec<u8>,
}

impl Point {
    /// The mean and interval of one number a seed; `None` of nothing.
    pub fn of(x: f64, samples: &[f64]) -> Option<Self> {
        let mean = statistics::mean(samples)?;
        Some(Self { x, mean, interval: statistics::t_interval(samples), seeds: samples.len() })
    }
}

impl Series {
    /// The line through the means of [`crate::Results::history`].
    pub fn over_epochs(name: &str, history: &[(u64, Vec<f64>)]) -> Self {
        let points = history.iter().filter_map(|(epoch, samples)| Point::of(*epoch as f64, samples)).collect();
        Self { name: name.into(), points }
    }
}

impl Axis {
    /// An axis with equal differences.
    pub fn linear(label: &str) -> Self {
        Self { label: label.into(), scale: Scale::Linear }
    }

    /// An axis with equal ratios.
    pub fn log(label: &str) -> Self {
        Self { label: label.into(), scale: Scale::Log }
    }
}

/// `mean ± half width` for tables, with so many decimals; the mean alone for one sample, a dash for none.
pub fn cell(samples: &[f64], decimals: usize) -> String {
    match (statistics::mean(samples), statistics::t_interval(samples)) {
        (None, _) => "–".into(),
        (Some(mean), None) => format!("{mean:.decimals$}"),
        (Some(mean), Some(interval)) => format!("{mean:.decimals$} ± {:.decimals$}", (interval.hi - interval.lo) / 2.0),
    }
}

impl Section {
    /// Refuses what a report could not show: attachments without a file name of their own, claims that test nothing or share an
    /// id, charts with numbers that are none or more lines than can be told apart. A report does so itself; an experiment's tests
    /// may ask before.
    ///
    /// # Errors
    /// The first of these.
    pub fn check(&self) -> Result<()> {
        use crate::error::Error;
        let mut names = HashSet::new();
        for attachment in &self.attachments {
            crate::context::check_file_name("attachment", &attachment.name)?;
            // Pictures lie beside them, under numbers.
            if attachment.name.starts_with("picture-") || !names.insert(&attachment.name) {
                return Err(Error::setting("attachment", "a name of its own, no `picture-`", &attachment.name));
            }
        }
        if let Some(vague) = self.claims.iter().find(|claim| claim.test().quantity.is_empty()) {
            return Err(Error::setting("test of a claim", "a quantity", format!("none in {}", vague.id())));
        }
        let mut ids = HashSet::new();
        if let Some(twice) = self.claims.iter().find(|claim| !ids.insert(claim.id())) {
            return Err(Error::setting("id of a claim", "one of its own", twice.id()));
        }
        for curve in &self.curves {
            if curve.series.len() > MOST_SERIES {
                let found = format!("{} in {:?}", curve.series.len(), curve.title);
                return Err(Error::setting("lines of a curve", format!("at most {MOST_SERIES}"), found));
            }
            let place = format!("curve {:?}", curve.title);
            let positive = |axis: &Axis, value: f64| axis.scale == Scale::Linear || value > 0.0;
            let refuse = |name: &str, value| Error::NotFinite { place: place.clone(), name: name.into(), value };
            if let Some(level) = curve.levels.iter().find(|level| !level.y.is_finite() || !positive(&curve.y, level.y))
            {
                return Err(refuse(&level.name, level.y));
            }
            for series in &curve.series {
                for point in &series.points {
                    let ends = point.interval.map_or([point.mean; 2], <[f64; 2]>::from);
                    let numbers = [point.x, point.mean, ends[0], ends[1]];
                    if let Some(&bad) = numbers.iter().find(|number| !number.is_finite()) {
                        return Err(refuse(&series.name, bad));
                    }
                    for (axis, value) in [(&curve.x, point.x), (&curve.y, point.mean)] {
                        if !positive(axis, value) {
                            let setting = "a number on a logarithmic axis";
                            return Err(Error::setting(setting, "above 0", format!("{value} in {place}")));
                        }
                    }
                }
            }
        }
        for table in &self.tables {
            if let Some(row) = table.rows.iter().find(|row| row.len() != table.header.len()) {
                let expected = format!("{} cells, as the header of {:?}", table.header.len(), table.title);
                return Err(Error::setting("table row", expected, format!("{} cells", row.len())));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(scale: Scale, x: f64, mean: f64) -> Section {
        let point = Point { x, mean, interval: None, seeds: 1 };
        let curve = Curve {
            title: "c".into(),
            caption: String::new(),
            x: Axis { label: "x".into(), scale },
            y: Axis::linear("y"),
            series: vec![Series { name: "s".into(), points: vec![point] }],
            levels: vec![],
        };
        Section { curves: vec![curve], ..Section::default() }
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        assert!(curve(Scale::Log, 1.0, 0.0).check().is_ok());
        assert!(curve(Scale::Log, 0.0, 0.0).check().unwrap_err().to_string().contains("logarithmic"));
        assert!(curve(Scale::Linear, 0.0, f64::NAN).check().unwrap_err().to_string().contains("NaN"));
        let table = Table { title: "t".into(), caption: String::new(), header: vec!["a".into()], rows: vec![vec![]] };
        assert!(Section { tables: vec![table], ..Section::default() }.check().is_err());
        let vague = Section { claims: vec![crate::Claim::new("T", "…").not_run("…")], ..Section::default() };
        assert!(vague.check().unwrap_err().to_string().contains("none in T"));
        let claim = || crate::Claim::new("T", "…").test(crate::Test::mean("x", crate::Relation::Above(0.0)), "");
        let twice = Section { claims: vec![claim().not_run("…"), claim().not_run("…")], ..Section::default() };
        assert_eq!(twice.check().unwrap_err().to_string(), "id of a claim is T, expected one of its own");
        let mut crowded = curve(Scale::Linear, 1.0, 1.0);
        let line = crowded.curves[0].series[0].clone();
        crowded.curves[0].series = vec![line.clone(); MOST_SERIES];
        assert!(crowded.check().is_ok());
        crowded.curves[0].series.push(line);
        assert!(crowded.check().unwrap_err().to_string().starts_with("lines of a curve is 9"));
    }

    #[test]
    fn attachments_do_not_take_each_others_place() {
        let section = |names: &[&str]| {
            let attachment = |name: &&str| Attachment { name: (*name).into(), title: "t".into(), bytes: Vec::new() };
            Section { attachments: names.iter().map(attachment).collect(), ..Section::default() }
        };
        assert!(section(&["a.csv", "b.csv"]).check().is_ok());
        for taken in [["a.csv", "a.csv"], ["a.csv", "picture-1.png"]] {
            assert!(section(&taken).check().unwrap_err().to_string().contains("a name of its own"));
        }
    }

    #[test]
    fn cells_say_how_sure_they_are() {
        // n = 3, s = 1: half width 4.302653 / √3 = 2.48.
        assert_eq!(cell(&[1.0, 2.0, 3.0], 2), "2.00 ± 2.48");
        assert_eq!(cell(&[1.5], 1), "1.5");
        assert_eq!(cell(&[], 1), "–");
    }
}
