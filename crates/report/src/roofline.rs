//! Roofline plot of kernels.
//!
//! The roofline model of Williams, Waterman and Patterson (2009): arithmetic intensity (FLOP per
//! byte) on the x axis, throughput (FLOP/s) on the y axis. Memory bandwidth bounds throughput by a
//! slope, matrix products by a ceiling; the distance of a point to the roof is the headroom.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::ReportError;
use crate::page::{DARK, fill_in};
use crate::raster::png;
use crate::svg::SERIES;
use crate::text::escape;
use crate::write::Folder;

/// Contents of a page of kernels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Roofline {
    pub title: String,
    /// Machine, model and number type, in words.
    pub about: String,
    /// Bytes per second of a copy.
    pub copy: f64,
    /// FLOP/s of matrix products.
    pub products: f64,
    pub kernels: Vec<Row>,
}

/// One kernel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub name: String,
    pub shape: String,
    /// FLOP and bytes per run; 0 where they are not counted.
    pub flops: f64,
    pub bytes: f64,
    /// Seconds per run: median, minimum, maximum.
    pub seconds: (f64, f64, f64),
    /// Lower bound of the time over its median.
    pub share: Option<f64>,
}

/// The files of a recording.
const FIGURES: &str = "kernels.json";
const TABLE: &str = "kernels.md";

/// The part of `kernels.json` that is read.
#[derive(Deserialize)]
struct Figures {
    dtype: String,
    roof: FoundRoof,
    kernels: Vec<FoundKernel>,
}

#[derive(Deserialize)]
struct FoundRoof {
    copy: f64,
    products_f32: f64,
    products_bf16: f64,
}

#[derive(Deserialize)]
struct FoundKernel {
    name: String,
    shape: String,
    work: FoundWork,
    time: FoundTime,
    share: Option<f64>,
}

#[derive(Deserialize)]
struct FoundWork {
    flops: f64,
    bytes: f64,
}

#[derive(Deserialize)]
struct FoundTime {
    median: f64,
    least: f64,
    most: f64,
}

/// Width and height in CSS pixels, and the margins of the plot area.
const SIZE: (f64, f64) = (860.0, 460.0);
const AREA: (f64, f64, f64, f64) = (70.0, 36.0, 640.0, 410.0);

impl Row {
    /// The position in the plot: FLOP per byte and FLOP/s.
    fn place(&self) -> Option<(f64, f64)> {
        let counted = self.flops > 0.0 && self.bytes > 0.0 && self.seconds.0 > 0.0;
        counted.then(|| (self.flops / self.bytes, self.flops / self.seconds.0))
    }
}

impl Roofline {
    /// The plot.
    pub fn svg(&self) -> String {
        let points: Vec<(usize, (f64, f64))> =
            self.kernels.iter().enumerate().filter_map(|(i, k)| Some((i, k.place()?))).collect();
        let ridge = self.products / self.copy;
        let decade = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value.log10().floor()), high.max(value.log10().ceil()))
            })
        };
        let x = decade(&mut points.iter().map(|(_, p)| p.0).chain([ridge / 9.0, ridge * 9.0]));
        let y = decade(&mut points.iter().map(|(_, p)| p.1).chain([self.products]));
        let (left, top, right, bottom) = AREA;
        let across = |value: f64| left + (value.log10() - x.0) / (x.1 - x.0) * (right - left);
        let up = |value: f64| bottom - (value.log10() - y.0) / (y.1 - y.0) * (bottom - top);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" \
             height=\"{1}\" role=\"img\" aria-label=\"{2}\" font-family=\"Helvetica, Arial, \
             sans-serif\" font-size=\"11.5\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
            SIZE.0,
            SIZE.1,
            escape(&self.title)
        );
        let mut text = |x: f64, y: f64, anchor: &str, colour: &str, words: &str| {
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{}</text>",
                escape(words)
            );
        };
        for power in x.0 as i32..=x.1 as i32 {
            let value = 10f64.powi(power);
            text(across(value), bottom + 18.0, "middle", "#6b7280", &number(value));
        }
        for power in y.0 as i32..=y.1 as i32 {
            let value = 10f64.powi(power);
            text(left - 8.0, up(value) + 4.0, "end", "#6b7280", &number(value / 1e9));
        }
        text((left + right) / 2.0, bottom + 38.0, "middle", "#1a1a1a", "FLOP per byte");
        text(left - 50.0, top - 18.0, "start", "#1a1a1a", "GFLOP/s");
        for (place, (index, _)) in points.iter().enumerate() {
            let words = format!("{} {}", index + 1, self.kernels[*index].name);
            text(right + 20.0, top + 12.0 + 18.0 * place as f64, "start", "#1a1a1a", &words);
        }
        let (from, to) = (10f64.powf(x.0), 10f64.powf(x.1));
        // The slope begins where it enters the plot.
        let enters = from.max(10f64.powf(y.0) / self.copy);
        let _ = writeln!(
            out,
            "<path d=\"M{:.1} {:.1}L{:.1} {:.1}L{:.1} {:.1}\" fill=\"none\" stroke=\"#1a1a1a\" \
             stroke-width=\"1.5\"/>",
            across(enters),
            up(enters * self.copy),
            across(ridge),
            up(self.products),
            across(to),
            up(self.products)
        );
        for (index, (intensity, rate)) in points {
            let (x, y) = (across(intensity), up(rate));
            let colour = SERIES[index % SERIES.len()];
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
                x + 7.0,
                y + 4.0,
                index + 1
            );
        }
        out.push_str("</svg>\n");
        out
    }

    /// Whether a folder contains a recording of `leyden kernels`.
    pub fn is_recorded(folder: &Path) -> bool {
        [FIGURES, TABLE].iter().all(|file| folder.join(file).is_file())
    }

    /// Reads the output of `leyden kernels --record`: measurements from `kernels.json`, title and
    /// machine from the head of `kernels.md`.
    ///
    /// # Errors
    /// A file that is missing or has another format.
    pub fn read(folder: &Path) -> Result<Self, ReportError> {
        let text = |path: &PathBuf| {
            fs::read_to_string(path)
                .map_err(|source| ReportError::Read { path: path.clone(), source })
        };
        let (table, figures) = (folder.join(TABLE), folder.join(FIGURES));
        let head = text(&table)?;
        let mut lines = head.lines().filter(|line| !line.is_empty());
        let title = lines.next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
        let about = lines.next().unwrap_or_default();
        let found: Figures = serde_json::from_str(&text(&figures)?)
            .map_err(|error| ReportError::Kernels { path: figures, message: error.to_string() })?;
        let products = match found.dtype.as_str() {
            "bf16" => found.roof.products_bf16,
            _ => found.roof.products_f32,
        };
        let row = |kernel: FoundKernel| Row {
            name: kernel.name,
            shape: kernel.shape,
            flops: kernel.work.flops,
            bytes: kernel.work.bytes,
            seconds: (kernel.time.median, kernel.time.least, kernel.time.most),
            share: kernel.share,
        };
        Ok(Self {
            title: title.to_owned(),
            about: about.to_owned(),
            copy: found.roof.copy,
            products,
            kernels: found.kernels.into_iter().map(row).collect(),
        })
    }

    /// Writes the files for a repository, `kernels.md` and `roofline.png`, next to `kernels.json`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn record(&self, folder: &Path) -> Result<(), ReportError> {
        let mut files = Folder::create(folder)?;
        let picture = png(&self.svg())
            .map_err(|message| ReportError::Raster { figure: "roofline".to_owned(), message })?;
        files.put("roofline.png", &picture)?;
        files.put(TABLE, self.markdown().as_bytes())?;
        Ok(())
    }

    /// Writes `index.html`, `roofline.svg`, `roofline.png` and `kernels.md` into `folder`, which is
    /// created if missing.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ReportError> {
        let mut files = Folder::create(folder)?;
        let svg = self.svg();
        files.put_drawing("roofline", &svg)?;
        let rows: Vec<[String; 6]> = self.rows();
        let page = fill_in(
            "kernels.html",
            PageView {
                title: &self.title,
                about: &self.about,
                light: SERIES,
                dark: DARK,
                svg: &svg,
                rows: &rows,
            },
        )?;
        files.put("index.html", page.as_bytes())?;
        files.put(TABLE, self.markdown().as_bytes())?;
        Ok(())
    }

    /// Header of the table.
    pub const COLUMNS: [&str; 6] =
        ["kernel", "works on", "time", "GFLOP/s", "GB/s", "share of the roof"];

    /// The rows of the table.
    pub fn rows(&self) -> Vec<[String; 6]> {
        let rate = |work: f64, seconds: f64| {
            if work > 0.0 { number(work / seconds / 1e9) } else { "–".to_owned() }
        };
        self.kernels
            .iter()
            .map(|k| {
                let (median, least, most) = k.seconds;
                [
                    k.name.clone(),
                    k.shape.clone(),
                    format!("{} [{}, {}]", time(median), time(least), time(most)),
                    rate(k.flops, median),
                    rate(k.bytes, median),
                    k.share.map_or("–".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
                ]
            })
            .collect()
    }

    fn markdown(&self) -> String {
        let mut out = format!("# {}\n\n{}\n\n", self.title, self.about);
        let _ = writeln!(out, "| {} |\n|---|---|---:|---:|---:|---:|", Self::COLUMNS.join(" | "));
        for row in self.rows() {
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
        out
    }
}

#[derive(Serialize)]
struct PageView<'a> {
    title: &'a str,
    about: &'a str,
    light: [&'static str; 8],
    dark: [&'static str; 8],
    svg: &'a str,
    rows: &'a [[String; 6]],
}

/// Three significant digits.
fn number(value: f64) -> String {
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Seconds in a suitable unit.
fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{} s", number(s)),
        s if s >= 1e-3 => format!("{} ms", number(s * 1e3)),
        s => format!("{} µs", number(s * 1e6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roofline() -> Roofline {
        let row = |name: &str, flops, bytes, seconds, share| Row {
            name: name.to_owned(),
            shape: "[4, <8>]".to_owned(),
            flops,
            bytes,
            seconds: (seconds, seconds / 2.0, seconds * 2.0),
            share,
        };
        Roofline {
            title: "Kernels & co".to_owned(),
            about: "a machine".to_owned(),
            copy: 1e10,
            products: 1e11,
            kernels: vec![
                row("product", 1e9, 1e7, 0.02, Some(0.5)),
                row("copy", 0.0, 1e8, 0.02, Some(0.5)),
            ],
        }
    }

    #[test]
    fn a_kernel_without_operations_is_in_the_table_only() {
        let svg = roofline().svg();
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(svg.contains("1 product") && !svg.contains("2 copy"));
        let rows = roofline().rows();
        assert_eq!(rows[0][2..], ["20 ms [10 ms, 40 ms]", "50", "0.5", "50 %"]);
        assert_eq!(rows[1][3..], ["–", "5", "50 %"]);
    }

    #[test]
    fn the_page_is_complete_and_escapes_its_contents() {
        let folder = tempfile::tempdir().unwrap();
        roofline().write(folder.path()).unwrap();
        let page = std::fs::read_to_string(folder.path().join("index.html")).unwrap();
        assert!(page.contains("<svg") && page.contains("Kernels &amp; co"));
        assert!(page.contains("[4, &lt;8&gt;]") && !page.contains("<8>"));
        for name in ["roofline.svg", "roofline.png", "kernels.md"] {
            assert!(folder.path().join(name).metadata().unwrap().len() > 100);
        }
    }

    #[test]
    fn a_recording_round_trips() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = |kernel: &Row| {
            serde_json::json!({
                "name": kernel.name, "shape": kernel.shape, "share": kernel.share,
                "work": {"flops": kernel.flops, "bytes": kernel.bytes},
                "time": {
                    "median": kernel.seconds.0, "least": kernel.seconds.1,
                    "most": kernel.seconds.2, "repetitions": 5,
                },
            })
        };
        let expected = roofline();
        let figures = serde_json::json!({
            "dtype": "bf16",
            "roof": {"copy": 1e10, "products_f32": 1e9, "products_bf16": 1e11, "dispatch": 1e-6},
            "kernels": expected.kernels.iter().map(kernel).collect::<Vec<_>>(),
        });
        fs::write(folder.path().join(FIGURES), figures.to_string()).unwrap();
        assert!(!Roofline::is_recorded(folder.path()));
        expected.record(folder.path()).unwrap();
        assert!(Roofline::is_recorded(folder.path()));
        assert_eq!(Roofline::read(folder.path()).unwrap(), expected);
        fs::write(folder.path().join(FIGURES), "{}").unwrap();
        let error = Roofline::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("kernels.json is not what"), "{error}");
    }

    #[test]
    fn times_and_numbers_are_short() {
        assert_eq!([time(2.0), time(0.01234), time(1.5e-6)], ["2 s", "12.3 ms", "1.5 µs"]);
        assert_eq!([number(1234.0), number(0.00123)], ["1234", "0.00123"]);
    }
}
