//! Compares our renderings of chat templates with those of transformers.

use std::collections::BTreeMap;
use std::path::Path;

use leyden_core::{Family, GoldenReport};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{ChatTemplate, TextError};

/// One rendering by transformers: either a text or an error.
#[derive(Deserialize)]
struct Rendering {
    template: String,
    #[serde(default)]
    conversation: String,
    messages: Vec<Value>,
    tools: Option<Vec<Value>>,
    add_generation_prompt: bool,
    bos_token: Option<String>,
    eos_token: Option<String>,
    date_string: Option<String>,
    text: Option<String>,
    error: Option<String>,
}

/// Renders every case of `file` with the templates in `templates_dir` and compares bytes. Where
/// transformers raised an error, ours must fail too. One family per template.
///
/// # Errors
/// `file` cannot be read or has another structure; a template cannot be read or compiled.
pub fn check_renderings(file: &Path, templates_dir: &Path) -> Result<GoldenReport, TextError> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| TextError::read(path, e));
    let cases: Vec<Rendering> =
        serde_json::from_str(&read(file)?).map_err(|e| TextError::malformed(file.display(), e))?;
    let mut sources: BTreeMap<&str, String> = BTreeMap::new();
    let mut families: BTreeMap<&str, Family> = BTreeMap::new();
    for case in &cases {
        let name = case.template.as_str();
        if !sources.contains_key(name) {
            sources.insert(name, read(&templates_dir.join(name))?);
        }
        let family = families.entry(name).or_insert_with(|| Family::exact(name));
        let ours = render(case, &sources[name])?;
        let same = match (&ours, &case.error, &case.text) {
            (Ok(ours), None, Some(text)) => ours == text,
            (Err(_), Some(_), _) => true,
            _ => false,
        };
        family.agree(same, || describe(case, &ours));
    }
    Ok(GoldenReport { families: families.into_values().collect() })
}

fn render(case: &Rendering, source: &str) -> Result<Result<String, TextError>, TextError> {
    let (bos, eos) = (case.bos_token.as_deref(), case.eos_token.as_deref());
    let template =
        ChatTemplate::new(source, bos, eos).map_err(|e| TextError::malformed(&case.template, e))?;
    let mut variables = Map::new();
    if let Some(date) = &case.date_string {
        variables.insert("date_string".to_owned(), Value::from(date.as_str()));
    }
    let tools = case.tools.as_deref();
    Ok(template.render(&case.messages, tools, case.add_generation_prompt, &variables))
}

/// The first difference, with surrounding characters.
fn describe(case: &Rendering, ours: &Result<String, TextError>) -> String {
    let place = format!(
        "conversation {}{}{}",
        case.conversation,
        if case.tools.is_some() { " with tools" } else { "" },
        if case.add_generation_prompt { " and generation prompt" } else { "" },
    );
    match (ours, &case.text, &case.error) {
        (Err(error), _, None) => format!("{place}: {error}"),
        (Ok(_), _, Some(error)) => format!("{place}: rendered, but transformers says: {error}"),
        (Ok(ours), Some(text), None) => {
            let at = ours.chars().zip(text.chars()).take_while(|(a, b)| a == b).count();
            let from = at.saturating_sub(10);
            let near = |text: &str| text.chars().skip(from).take(40).collect::<String>();
            format!("{place}: {:?} instead of {:?} at character {at}", near(ours), near(text))
        }
        _ => format!("{place}: the case has neither text nor error"),
    }
}
