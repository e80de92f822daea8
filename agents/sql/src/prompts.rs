//! The prompt templates, two per role, from `prompts/`.

use minijinja::{Environment, UndefinedBehavior, context};

use crate::Prompt;

/// The template values. Values that a role does not use stay empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    pub schema: String,
    pub question: String,
    pub query: String,
    pub result: String,
    pub feedback: String,
}

/// The templates of one style, by `role.system` and `role.user`.
#[derive(Debug, Clone)]
pub(crate) struct Prompts(&'static [(&'static str, &'static str)]);

macro_rules! templates {
    ($folder:literal) => {
        &[
            ("write.system", include_str!(concat!("../prompts/", $folder, "/write.system.txt"))),
            ("write.user", include_str!(concat!("../prompts/", $folder, "/write.user.txt"))),
            ("check.system", include_str!(concat!("../prompts/", $folder, "/check.system.txt"))),
            ("check.user", include_str!(concat!("../prompts/", $folder, "/check.user.txt"))),
            (
                "rewrite.system",
                include_str!(concat!("../prompts/", $folder, "/rewrite.system.txt")),
            ),
            ("rewrite.user", include_str!(concat!("../prompts/", $folder, "/rewrite.user.txt"))),
        ]
    };
}

impl Prompts {
    pub fn new(prompt: Prompt) -> Self {
        Self(match prompt {
            Prompt::Full => templates!("full"),
            Prompt::Compact => templates!("compact"),
        })
    }

    /// The system and the user message of a role.
    ///
    /// # Errors
    /// If a template uses an undefined value, which is a bug in the template.
    pub fn render(&self, role: &str, shown: &Shown) -> Result<(String, String), minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        for (name, source) in self.0 {
            environment.add_template(name, source.trim_ascii_end())?;
        }
        let Shown { schema, question, query, result, feedback } = shown;
        let values = context! { schema, question, query, result, feedback };
        let message =
            |part: &str| environment.get_template(&format!("{role}.{part}"))?.render(&values);
        Ok((message("system")?, message("user")?))
    }
}
