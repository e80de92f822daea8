//! One row per rule: name, configuration, kind-specific property, needs.
//!
//! From such a table [`registry!`] generates the enum used in configurations, its `serde` tags, its
//! default (the first row), the list of names for the reference text, the dispatch to the rule's
//! trait, and the list of all rules for tests. A new rule is thus a file that implements the trait,
//! and one row.

/// Generates the enum of a kind of rules; see the module documentation.
///
/// ```text
/// registry! {
///     /// Documentation of the enum.
///     pub enum CreditConfig: CreditRule, CreditKind, "further reference text" {
///         "identical", Identical(IdenticalCredit), Return, [];
///         "gigpo", Gigpo(GigpoCredit), Advantage, [Group, Anchors];
///     }
/// }
/// ```
///
/// The third column is a variant of the enum `CreditKind`, which is specific to the kind of rules;
/// the fourth lists variants of [`crate::needs::Need`].
macro_rules! registry {
    (
        $(#[$meta:meta])*
        pub enum $Config:ident: $Rule:ident, $Trait:ident, $more:literal {
            $first:literal, $First:ident($FirstType:ty), $first_trait:ident, [$($first_need:ident),*];
            $($name:literal, $Variant:ident($Type:ty), $trait:ident, [$($need:ident),*];)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(tag = "name")]
        pub enum $Config {
            #[serde(rename = $first)]
            $First($FirstType),
            $(#[serde(rename = $name)] $Variant($Type),)*
        }

        impl Default for $Config {
            fn default() -> Self {
                Self::$First(Default::default())
            }
        }

        impl $Config {
            /// The names of all rules, as in a configuration.
            pub const NAMES: &'static [&'static str] = &[$first, $($name),*];

            /// The names as text, for the reference of configuration keys.
            pub const REFERENCE: &'static str =
                concat!("name = ", $first, $(", ", $name,)* "; ", $more);

            /// Every rule with its default configuration.
            pub fn all() -> Vec<Self> {
                vec![Self::default(), $(Self::$Variant(Default::default())),*]
            }

            /// The rule's name in a configuration.
            pub fn name(&self) -> &'static str {
                match self {
                    Self::$First(_) => $first,
                    $(Self::$Variant(_) => $name,)*
                }
            }

            /// The rule's needs.
            pub fn needs(&self) -> &'static [$crate::needs::Need] {
                match self {
                    Self::$First(_) => &[$($crate::needs::Need::$first_need),*],
                    $(Self::$Variant(_) => &[$($crate::needs::Need::$need),*],)*
                }
            }

            /// # Errors
            /// The first invalid value.
            pub fn validate(&self) -> Result<(), $crate::error::ConfigError> {
                self.rule().validate()
            }

            /// The third column of the rule's row.
            fn special(&self) -> $Trait {
                match self {
                    Self::$First(_) => $Trait::$first_trait,
                    $(Self::$Variant(_) => $Trait::$trait,)*
                }
            }

            fn rule(&self) -> &dyn $Rule {
                match self {
                    Self::$First(rule) => rule,
                    $(Self::$Variant(rule) => rule,)*
                }
            }

            /// The rule that verl calls `name` in golden files, if any.
            pub fn of_verl(name: &str) -> Option<Self> {
                if let Some(rule) = <$FirstType as $Rule>::of_verl(name) {
                    return Some(Self::$First(rule));
                }
                $(if let Some(rule) = <$Type as $Rule>::of_verl(name) {
                    return Some(Self::$Variant(rule));
                })*
                None
            }
        }
    };
}

pub(crate) use registry;
