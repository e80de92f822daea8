//! Chat templates: render a conversation to the text format that the model was trained on.
//!
//! A template is a Jinja program shipped with the model. It renders the same bytes as transformers,
//! with one difference: the date that some templates write into the system message is a parameter
//! with a fixed default, so that prompts do not depend on the current date.

use std::error::Error as _;

use chrono::NaiveDate;
use minijinja::Environment;
use minijinja::value::Value;
use serde_json::{Map, Value as Json};

use crate::TextError;
use crate::jinja::{Raised, environment, to_jinja, without_generation_blocks};

const DEFAULT: &str = "chat_template";
const TOOL_USE: &str = "tool_use";

/// Instructions, and data in units of 64 bytes, that a template may use for any conversation: 16 MB
/// of text. A template is a program of the model's publisher, which could otherwise allocate
/// without end. One more unit is granted for each byte of the conversation, up to [`MOST_FUEL`].
const FUEL: u64 = 1 << 18;

/// Four million instructions, for conversations of megabytes.
const MOST_FUEL: u64 = 1 << 22;

/// Longest source of a template, in bytes; published ones have up to 30 KB.
const SOURCE_BYTES: usize = 256 << 10;

/// Stack of a compilation or a rendering. The engine compiles nested operators and compares and
/// drops nested values by recursion, one level for every two bytes of source or three units of
/// fuel. The pages are reserved, and occupied only as far as they are used.
const STACK_BYTES: usize = 1 << 30;

/// 26 July 2024, the date that Llama 3's templates fall back to.
pub fn default_date() -> NaiveDate {
    NaiveDate::from_ymd_opt(2024, 7, 26).unwrap_or_default()
}

/// A compiled chat template with the model's begin and end tokens.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    env: Environment<'static>,
    source: String,
    tool_use: Option<String>,
    bos: Option<String>,
    eos: Option<String>,
}

impl ChatTemplate {
    /// Compiles `source`; the template sees `bos` and `eos` as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// A syntax error, with its line; a source longer than 256 KiB.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, TextError> {
        let mut template = Self {
            env: environment(default_date()),
            source: source.to_owned(),
            tool_use: None,
            bos: bos.map(str::to_owned),
            eos: eos.map(str::to_owned),
        };
        template.compile()?;
        Ok(template)
    }

    /// Compiles the value of `chat_template` in a `tokenizer_config.json`: a string, or a list of
    /// `{"name", "template"}` of which `default` is used, and `tool_use` if there are tools. `file`
    /// is named in errors.
    ///
    /// # Errors
    /// Neither form, no `default` in the list, a syntax error.
    pub fn from_config(
        value: &Json,
        bos: Option<&str>,
        eos: Option<&str>,
        file: &str,
    ) -> Result<Self, TextError> {
        if let Some(source) = value.as_str() {
            return Self::new(source, bos, eos);
        }
        let entries = value.as_array().ok_or_else(|| {
            TextError::malformed(file, "chat_template is neither a string nor a list of templates")
        })?;
        let named = |name: &str| {
            let entry = entries.iter().find(|entry| entry["name"] == name)?;
            entry["template"].as_str()
        };
        let source = named("default").ok_or_else(|| {
            TextError::malformed(file, "the list chat_template has no template named default")
        })?;
        let mut template = Self::new(source, bos, eos)?;
        template.tool_use = named(TOOL_USE).map(str::to_owned);
        template.compile()?;
        Ok(template)
    }

    /// The same template with another date.
    ///
    /// # Errors
    /// None beyond those of the first compilation.
    pub fn with_date(mut self, date: NaiveDate) -> Result<Self, TextError> {
        self.env = environment(date);
        self.compile()?;
        Ok(self)
    }

    fn compile(&mut self) -> Result<(), TextError> {
        let sources = [(DEFAULT, Some(&self.source)), (TOOL_USE, self.tool_use.as_ref())];
        for (name, source) in sources {
            let Some(source) = source else { continue };
            if source.len() > SOURCE_BYTES {
                let bytes = source.len();
                let what = format!("it has {bytes} bytes; at most {SOURCE_BYTES} are compiled");
                return Err(TextError::Template(what));
            }
            let env = &mut self.env;
            stacker::grow(STACK_BYTES, || {
                env.add_template_owned(name, without_generation_blocks(source))
            })
            .map_err(|e| TextError::Template(e.to_string()))?;
        }
        Ok(())
    }

    /// The template's source; of a list, the one used with tools.
    pub fn source(&self) -> &str {
        self.tool_use.as_deref().unwrap_or(&self.source)
    }

    /// The value of `chat_template` in `tokenizer_config.json`.
    pub fn to_config(&self) -> Json {
        match &self.tool_use {
            None => Json::from(self.source.as_str()),
            Some(tool_use) => serde_json::json!([
                {"name": "default", "template": self.source},
                {"name": TOOL_USE, "template": tool_use},
            ]),
        }
    }

    /// Renders a conversation.
    ///
    /// `messages` and `tools` are JSON in the format of transformers' `apply_chat_template`;
    /// `variables` are further variables of the template (`date_string`, `enable_thinking`, …).
    ///
    /// # Errors
    /// [`TextError::Refused`] with the message of a `raise_exception`, otherwise
    /// [`TextError::Template`]; also for a template that computes far more than it is given.
    pub fn render(
        &self,
        messages: &[Json],
        tools: Option<&[Json]>,
        add_generation_prompt: bool,
        variables: &Map<String, Json>,
    ) -> Result<String, TextError> {
        let tools_bytes: usize = tools.into_iter().flatten().map(bytes_of).sum();
        let list = |items: &[Json]| Value::from(items.iter().map(to_jinja).collect::<Vec<_>>());
        let tools = tools.map_or_else(|| Value::from(()), list);
        let name = if self.tool_use.is_some() && tools.is_true() { TOOL_USE } else { DEFAULT };
        let mut context = vec![
            ("messages", list(messages)),
            ("tools", tools),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        context.extend(self.bos.iter().map(|bos| ("bos_token", Value::from(bos))));
        context.extend(self.eos.iter().map(|eos| ("eos_token", Value::from(eos))));
        context.extend(variables.iter().map(|(key, value)| (key.as_str(), to_jinja(value))));
        let given = messages.iter().chain(variables.values()).map(bytes_of);
        let given: usize = given.sum::<usize>() + tools_bytes;
        let mut env = self.env.clone();
        env.set_fuel(Some((FUEL + given as u64).min(MOST_FUEL)));
        stacker::grow(STACK_BYTES, || {
            env.get_template(name)
                .and_then(|template| template.render(Value::from_pairs(context)))
                .map_err(|error| typed(&error))
        })
    }
}

/// The text in a JSON value, in bytes, with a few for each value.
fn bytes_of(value: &Json) -> usize {
    const EACH: usize = 8;
    match value {
        Json::String(text) => EACH + text.len(),
        Json::Array(items) => EACH + items.iter().map(bytes_of).sum::<usize>(),
        Json::Object(object) => {
            EACH + object.iter().map(|(key, value)| key.len() + bytes_of(value)).sum::<usize>()
        }
        _ => EACH,
    }
}

/// Finds the message of a `raise_exception` among an error's causes.
fn typed(error: &minijinja::Error) -> TextError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return TextError::Refused(message.clone());
        }
        cause = inner.source();
    }
    TextError::Template(error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::{ChatTemplate, default_date};
    use crate::TextError;

    #[test]
    fn raised_exceptions_keep_their_message() {
        let source = "{%- if messages|length > 1 %}{{ raise_exception('one at a time, please') }}{% endif %}ok";
        let template = ChatTemplate::new(source, None, None).unwrap();
        let one = [json!({"role": "user", "content": "a"})];
        let two = [one[0].clone(), one[0].clone()];
        assert_eq!(template.render(&one, None, true, &Map::new()).unwrap(), "ok");
        match template.render(&two, None, true, &Map::new()) {
            Err(TextError::Refused(message)) => assert_eq!(message, "one at a time, please"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_failing_template_and_a_broken_one_are_errors() {
        let template = ChatTemplate::new("{{ 'a' + messages[0].content }}", None, None).unwrap();
        let message = [json!({"role": "user", "content": null})];
        let error = template.render(&message, None, true, &Map::new()).unwrap_err();
        assert!(matches!(error, TextError::Template(_)), "{error}");
        assert!(ChatTemplate::new("{% if %}", None, None).is_err());
    }

    /// Each of these exhausted a thread's stack of 8 MB.
    #[test]
    fn deep_templates_end_in_a_text_or_an_error() {
        let operators = format!("{{{{ {}1 }}}}", "not ".repeat(60_000));
        let sum = format!("{{{{ 1{} }}}}", "+1".repeat(125_000));
        let filters = format!("{{{{ 1{} }}}}", "|abs".repeat(60_000));
        let doubled = |then: &str| {
            format!(
                "{{% set ns = namespace(x=[], y=[]) %}}{{% for i in range(20000) %}}\
                 {{% set ns.x = [ns.x] %}}{{% set ns.y = [ns.y] %}}{{% endfor %}}{then}"
            )
        };
        let unrolled = "{%set x=[x]%}".repeat(19_000) + "{{ x }}";
        for source in [
            operators,
            sum,
            filters,
            doubled("{{ ns.x == ns.y }}"),
            doubled("{{ ns.x }}"),
            doubled("{{ ns.x|tojson }}"),
            doubled("{{ ns.x|string|length }}"),
            doubled("{{ [ns.x, ns.y]|sort|length }}"),
            doubled("{{ [ns.x, ns.y]|unique|list|length }}"),
            doubled("{{ ns.x in [ns.y] }}"),
            unrolled,
            "[".repeat(100_000),
        ] {
            let start: String = source.chars().take(30).collect();
            let rendered = ChatTemplate::new(&source, None, None)
                .and_then(|template| template.render(&[], None, false, &Map::new()));
            if let Err(error) = rendered {
                assert!(matches!(error, TextError::Template(_)), "{start}: {error}");
            }
        }
        let long = ChatTemplate::new(&" ".repeat(super::SOURCE_BYTES + 1), None, None);
        let error = long.unwrap_err().to_string();
        assert!(error.contains("262145 bytes"), "{error}");
    }

    #[test]
    fn the_list_form_has_a_default_and_one_for_tools() {
        let list = json!([
            {"name": "default", "template": "plain"},
            {"name": "tool_use", "template": "{{ tools | length }} tools"},
        ]);
        let template = ChatTemplate::from_config(&list, None, None, "f.json").unwrap();
        let tools = [json!({"type": "function"})];
        assert_eq!(template.render(&[], None, false, &Map::new()).unwrap(), "plain");
        assert_eq!(template.render(&[], Some(&tools), false, &Map::new()).unwrap(), "1 tools");
        assert_eq!(template.to_config(), list);
        let error =
            ChatTemplate::from_config(&json!([]), None, None, "f.json").unwrap_err().to_string();
        assert!(error.contains("f.json") && error.contains("default"), "{error}");
    }

    #[test]
    fn the_date_and_the_tokens_are_parameters() {
        let source = "{{ bos_token }}|{{ eos_token }}|{{ strftime_now('%Y-%m-%d') }}|{{ mood }}";
        let template = ChatTemplate::new(source, Some("<s>"), None).unwrap();
        let mut variables = Map::new();
        variables.insert("mood".into(), json!("calm"));
        let text = template.render(&[], None, false, &variables).unwrap();
        assert_eq!(text, "<s>||2024-07-26|calm");
        let later = template.with_date(default_date().succ_opt().unwrap()).unwrap();
        assert!(later.render(&[], None, false, &variables).unwrap().contains("2024-07-27"));
    }
}
