//! One passage of a corpus.

use serde::{Deserialize, Serialize};

/// One passage of a corpus that agents search. Retrievers return passages; a dataset's supporting
/// paragraphs are passages too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// The corpus's own identifier; unique within it.
    pub id: String,
    /// The title of the page that the passage is from; may be empty.
    #[serde(default)]
    pub title: String,
    pub text: String,
}
