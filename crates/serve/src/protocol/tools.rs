//! Tools, tool choice and response format, in OpenAI's two notations: chat completions nest what
//! responses keep flat.

use leyden_core::{ResponseFormat, ToolChoice, ToolSpec};
use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::schema;

/// Maximum tools per request, as at OpenAI.
pub(super) const MOST_TOOLS: usize = 128;

/// Maximum length of a tool's name.
const LONGEST_NAME: usize = 128;

/// The notation of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// `{"type": "function", "function": {"name", …}}`
    Nested,
    /// `{"type": "function", "name", …}`
    Flat,
}

/// Tools, tool choice, and whether one call ends the response.
#[derive(Debug, Default)]
pub(super) struct Tools {
    pub specs: Vec<ToolSpec>,
    pub choice: ToolChoice,
    pub single_call: bool,
}

impl Tools {
    pub fn read(fields: &mut Fields, spelling: Spelling) -> Result<Self, ApiError> {
        let path = fields.path("tools");
        let listed = fields.list("tools")?.unwrap_or_default();
        let specs = specs(listed, &path, |value, place| spec(value, place, spelling))?;
        let single_call = fields.flag("parallel_tool_calls")? == Some(false);
        let path = fields.path("tool_choice");
        let choice = match fields.value("tool_choice") {
            None => ToolChoice::Auto,
            Some(value) => choice(value, path, spelling)?,
        };
        check_choice(&choice, &specs, &fields.path("tool_choice"))?;
        Ok(Self { specs, choice, single_call })
    }
}

/// Reads a list of tools; rejects too many or duplicate names.
pub(super) fn specs(
    values: &[Value],
    path: &str,
    read: impl Fn(&Value, String) -> Result<ToolSpec, ApiError>,
) -> Result<Vec<ToolSpec>, ApiError> {
    if values.len() > MOST_TOOLS {
        let message =
            format!("`{path}` has {} tools, and at most {MOST_TOOLS} can be offered", values.len());
        return Err(ApiError::invalid(Some(path.to_owned()), message));
    }
    let mut specs: Vec<ToolSpec> = Vec::with_capacity(values.len());
    for (i, value) in values.iter().enumerate() {
        let place = format!("{path}[{i}]");
        let spec = read(value, place.clone())?;
        if specs.iter().any(|known| known.name == spec.name) {
            let message = format!("`{place}` duplicates the tool name {:?}", spec.name);
            return Err(ApiError::invalid(Some(place), message));
        }
        specs.push(spec);
    }
    Ok(specs)
}

/// Reads a tool, checking that every template can render its name and that its schema is valid.
pub(super) fn tool(fields: &mut Fields, schema_field: &'static str) -> Result<ToolSpec, ApiError> {
    let name = fields.needed_text("name")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(plain) {
        let rule =
            format!("must be 1 to {LONGEST_NAME} letters, digits, underscores, hyphens or dots");
        return Err(fields.error("name", rule));
    }
    let path = fields.path(schema_field);
    let parameters = match fields.value(schema_field) {
        None => json!({"type": "object", "properties": {}}),
        Some(schema) => {
            schema::check_arguments(schema, &path)?;
            schema.clone()
        }
    };
    Ok(ToolSpec {
        name: name.to_owned(),
        description: fields.text("description")?.unwrap_or_default().to_owned(),
        parameters,
    })
}

fn spec(value: &Value, place: String, spelling: Spelling) -> Result<ToolSpec, ApiError> {
    let mut outer = Fields::at(value, place)?;
    function_type(&mut outer)?;
    let spec = match spelling {
        Spelling::Nested => {
            let Some(mut inner) = outer.object("function")? else {
                return Err(outer.error("function", "is missing"));
            };
            let spec = described(&mut inner)?;
            inner.finish()?;
            spec
        }
        Spelling::Flat => described(&mut outer)?,
    };
    outer.finish()?;
    Ok(spec)
}

/// `strict` requires arguments to follow the schema, which only a grammar can guarantee; if the
/// model chooses the tool itself, they are generated freely, as by OpenAI's models without it.
fn described(fields: &mut Fields) -> Result<ToolSpec, ApiError> {
    let spec = tool(fields, "parameters")?;
    fields.flag("strict")?;
    fields.neutral("defer_loading", |v| v == false, "all tools are shown to the model")?;
    Ok(spec)
}

fn function_type(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.needed_text("type")? {
        "function" => Ok(()),
        other => Err(fields.error(
            "type",
            format_args!("is {other:?}, but only tools of type \"function\" can be offered"),
        )),
    }
}

fn choice(value: &Value, path: String, spelling: Spelling) -> Result<ToolChoice, ApiError> {
    match value {
        Value::String(word) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            // LangChain's name, which not all of its versions translate.
            "required" | "any" => Ok(ToolChoice::Required),
            _ => Err(wrong(path, "auto, none, required or a function", value)),
        },
        _ => {
            let mut outer = Fields::at(value, path)?;
            function_type(&mut outer)?;
            let name = match spelling {
                Spelling::Flat => outer.needed_text("name")?,
                Spelling::Nested => {
                    let Some(mut inner) = outer.object("function")? else {
                        return Err(outer.error("function", "is missing"));
                    };
                    let name = inner.needed_text("name")?;
                    inner.finish()?;
                    name
                }
            };
            outer.finish()?;
            Ok(ToolChoice::Named(name.to_owned()))
        }
    }
}

/// Checks that a required tool is offered.
pub(super) fn check_choice(
    choice: &ToolChoice,
    specs: &[ToolSpec],
    path: &str,
) -> Result<(), ApiError> {
    let message = match choice {
        ToolChoice::Required if specs.is_empty() => {
            format!("`{path}` requires a call, but no tools are offered")
        }
        ToolChoice::Named(name) if specs.iter().all(|spec| spec.name != *name) => {
            format!("`{path}` names {name:?}, which is not among the tools")
        }
        _ => return Ok(()),
    };
    Err(ApiError::invalid(Some(path.to_owned()), message))
}

/// The response format: nested in `json_schema` for chat completions, flat for responses.
pub(super) fn format(
    fields: Option<Fields>,
    spelling: Spelling,
) -> Result<ResponseFormat, ApiError> {
    let Some(mut fields) = fields else { return Ok(ResponseFormat::Text) };
    let format = match fields.needed_text("type")? {
        "text" => ResponseFormat::Text,
        "json_object" => ResponseFormat::JsonObject,
        "json_schema" => match spelling {
            Spelling::Flat => schema_format(&mut fields)?,
            Spelling::Nested => {
                let Some(mut inner) = fields.object("json_schema")? else {
                    return Err(fields.error("json_schema", "is missing"));
                };
                let format = schema_format(&mut inner)?;
                inner.finish()?;
                format
            }
        },
        other => {
            let rule = format!("is {other:?}, not text, json_object or json_schema");
            return Err(fields.error("type", rule));
        }
    };
    fields.finish()?;
    Ok(format)
}

/// Responses follow the schema whether or not `strict` is set.
fn schema_format(fields: &mut Fields) -> Result<ResponseFormat, ApiError> {
    fields.skip(&["name", "description"]);
    fields.flag("strict")?;
    let path = fields.path("schema");
    let Some(schema) = fields.value("schema") else {
        return Err(fields.error("schema", "is missing"));
    };
    schema::check(schema, &path)?;
    Ok(ResponseFormat::JsonSchema(schema.clone()))
}
