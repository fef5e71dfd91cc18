//! The payload-opening half of a contract: its schemas, phrases, expressions and templates, compiled once.

use crate::{
    check::{Compiled, KNOWN, Phrase, language_of},
    template::{Expression, Template},
};
use outlast_model::policy::{ConfidenceFrom, Contract, RefusalPolicy, Schema, StreamContract};
use serde::Serialize;
use std::{
    fmt,
    sync::{Arc, LazyLock},
};

/// A contract that is ready to judge replies. Immutable; shared by all calls of its routes.
#[derive(Debug)]
pub struct Gates {
    contract: Arc<Contract>,
    pub(crate) schema: Option<Compiled>,
    pub(crate) degraded: Option<Compiled>,
    pub(crate) must_include: Vec<Phrase>,
    pub(crate) must_not: Vec<Phrase>,
    pub(crate) language: Option<whatlang::Lang>,
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

/// What an expression may read.
const EXPRESSION_FACTS: &[&str] = &["reply", "text", "request"];
/// What a notice may read.
const NOTICE_FACTS: &[&str] = &["saved", "next", "gave_up", "actions", "age", "step"];

/// The languages a contract may demand, as ISO 639-1; sorted.
pub fn languages() -> &'static [&'static str] {
    static CODES: LazyLock<Vec<&str>> = LazyLock::new(|| KNOWN.iter().map(|(code, _)| *code).collect());
    &CODES
}

impl Gates {
    /// Compiles a contract.
    /// # Errors
    /// Every setting that cannot be used, at once.
    pub fn compile(contract: &Arc<Contract>) -> Result<Gates, Vec<BadGate>> {
        let checks = &contract.checks;
        let mut bad = Bad(Vec::new());
        let gates = Gates {
            contract: Arc::clone(contract),
            schema: bad.schema("schema", checks.schema.as_deref()),
            degraded: bad.schema("degraded.schema", contract.degraded_schema.as_deref()),
            must_include: bad.phrases("must_include", &checks.must_include),
            must_not: bad.phrases("must_not", &checks.must_not),
            language: checks.language.as_deref().and_then(|code| bad.language(code)),
            expressions: bad.expressions(contract),
            notice: contract.notice.as_deref().and_then(|source| bad.notice(source)),
        };
        if let Some(evidence) = &checks.evidence {
            bad.path("evidence.sources", &evidence.sources);
            if let Some(citations) = &evidence.citations {
                bad.path("evidence.citations", citations);
            }
        }
        if let Some(ConfidenceFrom::Field(field)) = contract.confidence.as_ref().map(|confidence| &confidence.from) {
            bad.path("confidence.field", field);
        }
        if bad.0.is_empty() { Ok(gates) } else { Err(bad.0) }
    }

    /// The gates of a contract that has none: only what a request itself demands is checked.
    pub fn none() -> &'static Gates {
        static NONE: LazyLock<Gates> = LazyLock::new(|| Gates {
            contract: Arc::new(Contract::plain("none", StreamContract::Fail)),
            schema: None,
            degraded: None,
            must_include: Vec::new(),
            must_not: Vec::new(),
            language: None,
            expressions: Vec::new(),
            notice: None,
        });
        &NONE
    }

    /// The contract they were compiled from.
    pub fn contract(&self) -> &Arc<Contract> {
        &self.contract
    }

    /// Whether the text has to be JSON: for a schema, a field of citations or one of confidence.
    pub fn wants_json(&self) -> bool {
        let cites = self.contract.checks.evidence.as_ref().is_some_and(|evidence| evidence.citations.is_some());
        self.schema.is_some() || cites || self.confidence_field().is_some()
    }

    /// Nothing of the text is judged beyond what the request itself demands.
    pub(crate) fn is_plain(&self) -> bool {
        self.contract.checks.is_empty()
            && self.confidence_field().is_none()
            && self.contract.refusal == RefusalPolicy::Deliver
    }

    pub(crate) fn confidence_field(&self) -> Option<(&str, f64)> {
        let confidence = self.contract.confidence.as_ref()?;
        match &confidence.from {
            ConfidenceFrom::Field(field) => Some((field, confidence.min)),
            ConfidenceFrom::Votes | ConfidenceFrom::Judge(_) => None,
        }
    }

    /// What the end user is told; absent when the contract has no notice, or it cannot be filled from these facts.
    pub fn notice(&self, facts: &impl Serialize) -> Option<String> {
        self.notice.as_ref()?.render(facts).ok()
    }
}

/// What is wrong with a contract.
struct Bad(Vec<BadGate>);

impl Bad {
    fn add(&mut self, setting: impl Into<String>, why: impl Into<String>) {
        self.0.push(BadGate { setting: setting.into(), why: why.into() });
    }

    fn schema(&mut self, setting: &str, schema: Option<&Schema>) -> Option<Compiled> {
        Compiled::new(&schema?.json).map_err(|why| self.add(setting, why)).ok()
    }

    fn phrases(&mut self, setting: &str, phrases: &[Arc<str>]) -> Vec<Phrase> {
        let mut compiled = Vec::with_capacity(phrases.len());
        for (at, phrase) in phrases.iter().enumerate() {
            match Phrase::of(phrase) {
                Some(phrase) => compiled.push(phrase),
                None => self.add(format!("{setting}[{at}]"), "the phrase is empty"),
            }
        }
        compiled
    }

    fn language(&mut self, code: &str) -> Option<whatlang::Lang> {
        let language = language_of(code);
        if language.is_none() {
            let known = languages().join(", ");
            self.add("language", format!("`{code}` is no language that can be told apart; those are: {known}"));
        }
        language
    }

    fn expressions(&mut self, contract: &Contract) -> Vec<(Arc<str>, Expression)> {
        let mut compiled = Vec::new();
        for (at, expression) in contract.checks.expressions.iter().enumerate() {
            let setting = format!("expressions[{at}].expression");
            match Expression::compile(&expression.expression) {
                Ok(one) => {
                    self.facts(&setting, one.names(), EXPRESSION_FACTS);
                    compiled.push((Arc::clone(&expression.name), one));
                }
                Err(why) => self.add(setting, why),
            }
        }
        compiled
    }

    fn notice(&mut self, source: &str) -> Option<Template> {
        let template = Template::compile(source).map_err(|why| self.add("notice", why)).ok()?;
        self.facts("notice", template.names(), NOTICE_FACTS);
        Some(template)
    }

    /// Every fact that is read has to be one that is there.
    fn facts(&mut self, setting: &str, names: &[String], known: &[&str]) {
        let stranger =
            names.iter().map(|name| name.split('.').next().unwrap_or(name)).find(|name| !known.contains(name));
        if let Some(name) = stranger {
            self.add(setting, format!("it reads `{name}`, which is not there; there are: {}", known.join(", ")));
        }
    }

    fn path(&mut self, setting: &str, path: &str) {
        if path.split('.').any(|name| name.trim().is_empty()) {
            self.add(setting, "it is no path: names with dots between them, such as `outlast.sources`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_model::policy::{Checks, Evidence, Expression as Rule};
    use serde_json::json;

    fn plain() -> Contract {
        Contract::plain("c", StreamContract::Buffer)
    }

    #[test]
    fn everything_wrong_with_a_contract_is_said_at_once() {
        let rule = |name: &str, expression: &str| Rule { name: name.into(), expression: expression.into() };
        let schema = |json: &str| Some(Arc::new(Schema { source: "s.json".into(), json: json.into() }));
        let contract = Contract {
            checks: Checks {
                schema: schema("{\n\"type\": \"objekt\"}"),
                evidence: Some(Evidence { sources: "outlast..sources".into(), citations: None, min: 1 }),
                must_include: vec!["fine".into(), "  ".into()],
                language: Some("xx".into()),
                expressions: vec![rule("a", "reply.total =="), rule("b", "total > 1"), rule("c", "text|length > 1")],
                ..Checks::default()
            },
            degraded_schema: schema("{"),
            notice: Some("Sorry.\n{% if %}".into()),
            ..plain()
        };
        let bad = Gates::compile(&Arc::new(contract)).unwrap_err();
        let settings: Vec<&str> = bad.iter().map(|bad| bad.setting.as_str()).collect();
        assert_eq!(
            settings,
            [
                "schema",
                "degraded.schema",
                "must_include[1]",
                "language",
                "expressions[0].expression",
                "expressions[1].expression",
                "notice",
                "evidence.sources"
            ]
        );
        assert!(bad[1].why.starts_with("it is not JSON (line 1"), "{}", bad[1]);
        assert!(bad[5].why.contains("`total`"), "{}", bad[5]);
        assert!(bad[6].why.starts_with("line 2: "), "{}", bad[6]);
    }

    #[test]
    fn a_notice_is_filled_from_its_facts_and_absent_when_it_cannot_be() {
        let contract = Contract {
            notice: Some(
                "Live actions are limited. {{ saved }}{% if actions %} Not done: {{ actions|join(', ') }}.{% endif %}"
                    .into(),
            ),
            ..plain()
        };
        let gates = Gates::compile(&Arc::new(contract)).unwrap();
        let facts = json!({"saved": "Your draft is saved.", "actions": ["refund_order"]});
        let notice = "Live actions are limited. Your draft is saved. Not done: refund_order.";
        assert_eq!(gates.notice(&facts).as_deref(), Some(notice));
        assert_eq!(gates.notice(&json!({"saved": null, "actions": []})).as_deref(), Some("Live actions are limited. "));
        assert_eq!(gates.notice(&json!({})), None);
    }

    #[test]
    fn languages_are_known_by_their_two_letters() {
        assert!(["de", "en", "ja", "no", "zh"].iter().all(|code| languages().contains(code)));
        assert!(languages().is_sorted());
    }
}
