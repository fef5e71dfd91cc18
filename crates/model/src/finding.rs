//! What the checks found in a complete reply. The wire finds, the engine judges.

use crate::{Failure, record::SchemaStatus};
use serde::{Deserialize, Serialize};

/// One thing wrong with a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Its class.
    pub failure: Failure,
    /// What exactly, for the lineage: a path in the schema, a rule's name. Never payload text.
    pub what: Box<str>,
}

impl Problem {
    /// A problem of this class.
    pub fn new(failure: Failure, what: impl Into<Box<str>>) -> Self {
        Problem { failure, what: what.into() }
    }
}

/// Everything the checks found in one complete reply. No problem means it may be delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// What is wrong, worst first or in any order.
    pub problems: Vec<Problem>,
    /// How its structure was judged.
    pub schema: SchemaStatus,
}

impl Findings {
    /// Nothing is wrong and no structure was demanded.
    pub const CLEAN: Findings = Findings { problems: Vec::new(), schema: SchemaStatus::None };
}
