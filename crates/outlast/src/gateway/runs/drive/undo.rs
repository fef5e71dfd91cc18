//! When a run fails or is cancelled: what may have taken place is settled first, then what took place is undone.

use super::super::super::tools::ToolCall;
use super::{
    Drive,
    journal::{Begin, lost},
    opened,
};
use outlast_engine::run::{Ended, flow::Outcome};
use outlast_model::{
    Usd,
    run::{EscalationKind, StepKind},
};
use outlast_store::{Place, StepView};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Longer than any wait that is waited out: the run is given back.
const LATER: Duration = Duration::from_secs(3);

impl Drive {
    /// Finds out what became of an effect, as its class says: it is repeated, asked about, or left to a person.
    pub(super) async fn settle(&mut self, key: Arc<str>) -> Outcome {
        let place = Place::Step { run: self.run.clone(), key: key.clone() };
        let view = match self.sure(|| self.shared.store.step(place.clone())).await {
            Ok(Some(view)) => view,
            // Nothing stands there: it is an agent that has not come to its end. Whoever claims the run next finds the
            // tools it called in the journal, and settles those.
            Ok(None) => return Outcome::Unknown(LATER),
            Err(_) => return lost(),
        };
        if !view.class.is_effect() || view.kind != StepKind::Tool {
            // Nothing of it can be left in the world.
            return Outcome::Again(Duration::ZERO);
        }
        let business = view.effect.as_ref().map(|(_, key)| key.clone());
        let arguments = opened(&view.input)["arguments"].take();
        let call = ToolCall { undo: view.undo.clone(), ..self.call(&view.name, arguments, &key, business) };
        match self.called(call).await {
            Ok(_) => Outcome::Done,
            Err(outcome) => outcome,
        }
    }

    /// Undoes what a step did.
    pub(super) async fn undo(&mut self, key: Arc<str>, of: Arc<str>) -> Outcome {
        let Some(view) = self.view(&of).await else { return lost() };
        if view.undo.is_none() {
            // Another run did it, under the same business key. It is not this one's to undo.
            return Outcome::Done;
        }
        let name = of.split('#').next().unwrap_or(&of).to_owned();
        let plan = self.plan.clone();
        let at = plan.spec.step(&name);
        let made =
            at.and_then(|at| Some((plan.spec.steps.get(at)?.undo.as_ref()?, plan.steps.get(at)?.undo.as_ref()?)));
        let Some((undo, texts)) = made else {
            return self.cannot_undo(&key, &of, "the workflow does not say how any more").await;
        };
        let facts = self.facts.with(&of, opened(&view.payload));
        let arguments = match texts.input.fill(&facts) {
            Ok(arguments) => arguments,
            Err(why) => return self.cannot_undo(&key, &of, &why).await,
        };
        let business = match texts.key.as_ref().map(|key| key.render_facts(&facts)) {
            None => None,
            Some(Ok(business)) => Some(business.into()),
            Some(Err(why)) => return self.cannot_undo(&key, &of, &why).await,
        };
        let call = ToolCall { undoes: Some(of.clone()), ..self.call(undo.tool.as_str(), arguments, &key, business) };
        match self.called(call).await {
            Ok(_) => Outcome::Done,
            // Nothing was written down, so nobody has heard of it.
            Err(Outcome::Template) => {
                let why = self.trouble.take().and_then(|it| Some(it["message"].as_str()?.to_owned()));
                self.cannot_undo(&key, &of, why.as_deref().unwrap_or("it cannot be called")).await
            }
            Err(outcome) => outcome,
        }
    }

    /// Hands the undoing to a person.
    async fn cannot_undo(&mut self, key: &Arc<str>, of: &Arc<str>, why: &str) -> Outcome {
        let spec = self.plan.spec.clone();
        let text = format!(
            "What step `{of}` of run `{}` did has to be undone, and cannot be: {why}. Undo it by hand and say that it \
             happened, or leave it as it is.",
            self.run.id
        );
        let context =
            json!({ "run": self.run.id, "workflow": spec.name, "version": spec.version, "step": of, "why": why });
        let question = super::journal::Question { text, context };
        let step = Begin {
            key,
            kind: StepKind::Undo,
            name: of,
            fingerprint: *blake3::hash(format!("undo {of}").as_bytes()).as_bytes(),
            input: super::payload(&Value::Null),
            budget: Default::default(),
            call_deadline: Duration::from_secs(10),
            undo: None,
            undoes: Some(of),
        };
        let attempt = match self.begin(step, &question).await {
            Ok(attempt) => attempt,
            Err(Ok(_)) => return Outcome::Done,
            Err(Err(outcome)) => return outcome,
        };
        let review = Ended::Review(EscalationKind::Compensation);
        match self.end(&attempt, review, json!({ "message": why }), Usd::ZERO, &question).await {
            Ok(_) => Outcome::Done,
            Err(outcome) => outcome,
        }
    }

    async fn view(&self, key: &Arc<str>) -> Option<StepView> {
        let place = Place::Step { run: self.run.clone(), key: key.clone() };
        self.sure(|| self.shared.store.step(place.clone())).await.ok().flatten()
    }
}
