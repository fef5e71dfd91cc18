//! The payload-opening half of a contract: its schemas, phrases, expressions and templates, compiled once.

use crate::template::{Expression, Template};
use outlast_model::policy::Contract;
use serde::Serialize;
use std::{
    fmt,
    sync::{Arc, LazyLock},
};

/// A contract that is ready to judge replies. Immutable; shared by all calls of its routes.
#[derive(Debug)]
pub struct Gates {
    contract: Arc<Contract>,
    pub(crate) expressions: Vec<(Arc<str>, Expression)>,
    notice: Option<Template>,
}

/// A setting of a contract that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadGate {
    /// Which, below the contract: `schema`, `expressions[0].expression`, `notice`.
    pub setting: String,
    /// Why, in plain English.
    pub why: String,
}

impl fmt::Display for BadGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.why)
    }
}

impl Gates {
    /// Compiles a contract.
    /// # Errors
    /// Every setting that cannot be used, at once.
    pub fn compile(contract: &Arc<Contract>) -> Result<Gates, Vec<BadGate>> {
        let mut bad = Vec::new();
        let mut expressions = Vec::new();
        for (at, expression) in contract.checks.expressions.iter().enumerate() {
            match Expression::compile(&expression.expression) {
                Ok(compiled) => expressions.push((Arc::clone(&expression.name), compiled)),
                Err(why) => bad.push(BadGate { setting: format!("expressions[{at}].expression"), why }),
            }
        }
        let notice = contract.notice.as_deref().and_then(|source| match Template::compile(source) {
            Ok(template) => Some(template),
            Err(why) => {
                bad.push(BadGate { setting: "notice".into(), why });
                None
            }
        });
        if !bad.is_empty() {
            return Err(bad);
        }
        Ok(Gates { contract: Arc::clone(contract), expressions, notice })
    }

    /// The gates of a contract that has none: only what a request itself demands is checked.
    pub fn none() -> &'static Gates {
        static NONE: LazyLock<Gates> = LazyLock::new(|| Gates {
            contract: Arc::new(Contract::plain("none", outlast_model::policy::StreamContract::Fail)),
            expressions: Vec::new(),
            notice: None,
        });
        &NONE
    }

    /// The contract they were compiled from.
    pub fn contract(&self) -> &Arc<Contract> {
        &self.contract
    }

    /// What the end user is told; absent when the contract has no notice, or it cannot be filled from these facts.
    pub fn notice(&self, facts: &impl Serialize) -> Option<String> {
        self.notice.as_ref()?.render(facts).ok()
    }
}
