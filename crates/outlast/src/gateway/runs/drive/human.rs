//! A step that asks a person. The question and what is shown with it are written down, then the run waits.

use super::{Drive, journal::Begin, payload};
use outlast_engine::run::{Ended, flow::Outcome};
use outlast_model::{
    Usd,
    policy::WorkflowStep,
    run::{EscalationKind, RetryBudget, StepKind},
};
use outlast_wire::{Shape, template::Template};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Long enough to write down what was asked.
const TO_ASK: Duration = Duration::from_secs(10);

impl Drive {
    /// Its result is what the person approves, the context as it stands, or writes instead.
    ///
    /// # Errors
    /// What became of it, where nobody has decided yet.
    pub(super) async fn human(
        &mut self,
        at: usize,
        spec: &WorkflowStep,
        question: &Template,
        context: Option<&Shape>,
        key: &Arc<str>,
    ) -> Result<Value, Outcome> {
        let text = question.render_facts(self.facts.get()).map_err(|why| {
            self.unmakeable(at, "question", &why);
            Outcome::Template
        })?;
        let shown = match context.map(|context| context.fill(self.facts.get())) {
            None => Value::Null,
            Some(Ok(shown)) => shown,
            Some(Err(why)) => {
                self.unmakeable(at, "context", &why);
                return Err(Outcome::Template);
            }
        };
        let asked = json!({ "question": text, "context": shown });
        let mut question = self.question(spec, text);
        question.context["context"] = shown.clone();
        let step = Begin {
            key,
            kind: StepKind::Human,
            name: spec.name.as_str(),
            fingerprint: *blake3::hash(&serde_json::to_vec(&asked).unwrap_or_default()).as_bytes(),
            input: payload(&asked),
            // Asking costs nothing and changes nothing: it is done until it stands.
            budget: RetryBudget { attempts: u32::MAX, within: None, cost_max: None, ..spec.retry },
            call_deadline: TO_ASK,
            undo: None,
            undoes: None,
        };
        let attempt = match self.begin(step, &question).await {
            Ok(attempt) => attempt,
            Err(became) => return became,
        };
        self.end(&attempt, Ended::Review(EscalationKind::Human), shown, Usd::ZERO, &question).await
    }
}
