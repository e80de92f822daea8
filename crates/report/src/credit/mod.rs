//! The report of measured credit rules: how well the credit of each agrees with the true advantages
//! of the same calls ([`leyden_stats::credit`]).

mod charts;
mod measurement;
mod tables;

use std::path::Path;

use serde_json::{Value, json};

use crate::chart::Chart;
use crate::error::ReportError;
use crate::svg::{Theme, render};
use crate::write::Folder;

pub use measurement::{Call, CreditReport, Measurement, Rule, RuleRow};

impl CreditReport<'_> {
    /// The tables, as Markdown.
    pub fn markdown(&self) -> String {
        tables::markdown(self)
    }

    /// Writes `credit.md`, `credit.csv` (one line per rule and call), `credit.json`, and the charts
    /// as `credit.svg` and `credit.png` into `folder`, which is created if missing.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ReportError> {
        let mut files = Folder::create(folder)?;
        let charts: Vec<Chart> = charts::charts(self);
        if !charts.is_empty() {
            files.put_drawing("credit", &render(&charts, 1, Theme::Paper, "credit"))?;
        }
        let picture = if charts.is_empty() { "" } else { "\n![charts](credit.svg)\n" };
        files.put("credit.md", format!("{}{picture}", self.markdown()).as_bytes())?;
        files.put("credit.csv", tables::csv(self.measurement).as_bytes())?;
        files.put("credit.json", format!("{:#}\n", self.json()).as_bytes())?;
        Ok(())
    }

    fn json(&self) -> Value {
        let own = self.measurement;
        let rule = |row: &RuleRow| {
            let mut value = json!({ "name": row.name });
            if let Some(critic) = &row.critic {
                value["critic"] = json!(critic);
            }
            if let Some(difference) = &row.difference {
                value["difference_from_baseline"] = json!(difference);
            }
            match &row.agreement {
                Ok(agreement) => value["agreement"] = json!(agreement),
                Err(why) => value["not_measured"] = json!(why),
            }
            value
        };
        json!({
            "title": own.title,
            "about": own.about,
            "label": own.label,
            "settings": own.settings,
            "counts": own.counts,
            "baseline": self.baseline,
            "rules": self.rules.iter().map(rule).collect::<Vec<_>>(),
            "provenance": own.provenance,
        })
    }
}
