//! What a call waits for beside its exchanges: validators and judges of a reply, and backstops.

use super::{
    super::{
        backstops::{self, Cx, Deferral, Ended},
        exchange::unreadable,
        validators,
        votes::Elected,
    },
    Driver,
};
use outlast_engine::{Backstopped, Event};
use outlast_model::{Brief, FailureReport, Findings, Usd, policy::BackstopKind};
use outlast_wire::{check, compose::Said, plan::Intent};
use std::{future::Future, pin::Pin, sync::Arc};

/// One of them, under way. Dropping it cancels it.
pub(super) struct Waiting {
    /// The attempt whose reply is judged, if one is.
    pub(super) attempt: Option<u8>,
    pub(super) future: Pin<Box<dyn Future<Output = Beside> + Send>>,
}

/// What came of it.
pub(super) enum Beside {
    /// A reply has been judged.
    Checked { attempt: u8, findings: Findings },
    /// A backstop has been run.
    Backstopped { at: usize, outcome: Backstopped, prepared: Option<Box<Prepared>> },
    /// A vote is over.
    Elected(Elected),
}

/// What a backstop or a vote has ready for the client.
pub(super) enum Prepared {
    Said(Said, Vec<Intent>),
    Deferred(Deferral),
}

impl Driver {
    /// Judges a complete reply: at once where nobody else is asked.
    pub(super) fn check(&mut self, attempt: u8, budget: Option<Usd>) {
        let Some(exchange) = self.lanes.get(attempt) else {
            return self.feed(Event::Checked { attempt, findings: unreadable() });
        };
        let findings = exchange.check(&self.route.gates);
        let worth_judging = findings.problems.is_empty() || findings.keeps_degraded;
        if !worth_judging || !validators::asked_for(&self.route) {
            return self.feed(Event::Checked { attempt, findings });
        }
        let Some(said) = exchange.said() else {
            return self.feed(Event::Checked { attempt, findings: validators::unjudged(findings, "reply") });
        };
        let plan = exchange.plan().to_vec();
        let cx = self.cx();
        let future = Box::pin(async move {
            Beside::Checked { attempt, findings: validators::judge(&cx, &said, &plan, findings, budget).await }
        });
        self.beside = Some(Waiting { attempt: Some(attempt), future });
    }

    /// Runs a backstop. A call on behalf of another has none: whoever asked decides what comes then.
    pub(super) fn backstop(&mut self, at: usize, cause: FailureReport) {
        let backstop = self.route.route().backstops.get(at).cloned();
        let Some(backstop) = backstop.filter(|_| self.facts.parent.is_none()) else {
            return self.feed(Event::Backstopped { at, outcome: Backstopped::Declined });
        };
        let cx = self.cx();
        let future = Box::pin(async move {
            let (outcome, prepared) = match backstops::run(&cx, &backstop, &cause).await {
                Ended::Declined(_) => (Backstopped::Declined, None),
                Ended::Deferred(deferral) => {
                    let gave_up = deferral.gave_up.clone();
                    (Backstopped::Deferred { gave_up }, Some(Box::new(Prepared::Deferred(deferral))))
                }
                Ended::Said { said, gave_up } => {
                    let asked = check::Asked { inbound: &cx.inbound, gates: &cx.route.gates, brief: &Brief::default() };
                    let checked = check::said(&asked, &said);
                    let said = checked.instead.unwrap_or(said);
                    // A kept reply passed the validators when it was kept; one from a template never met them. No judge is
                    // asked: these are the operator's own words, and are marked as nobody's answer.
                    let kept = matches!(backstop.kind, BackstopKind::Cache { .. });
                    let findings = match checked.findings.problems.is_empty() && !kept {
                        true => validators::validate(&cx, &said, &[], checked.findings).await,
                        false => checked.findings,
                    };
                    (Backstopped::Said { findings, gave_up }, Some(Box::new(Prepared::Said(said, Vec::new()))))
                }
            };
            Beside::Backstopped { at, outcome, prepared }
        });
        self.beside = Some(Waiting { attempt: None, future });
    }

    pub(super) fn hear(&mut self, beside: Beside) {
        match beside {
            Beside::Checked { attempt, findings } => self.feed(Event::Checked { attempt, findings }),
            Beside::Backstopped { at, outcome, prepared } => {
                self.prepared = prepared;
                self.feed(Event::Backstopped { at, outcome });
            }
            Beside::Elected(elected) => self.elected(elected),
        }
    }

    pub(super) fn cx(&self) -> Cx {
        Cx {
            shared: Arc::clone(&self.shared),
            live: Arc::clone(&self.live),
            route: Arc::clone(&self.route),
            inbound: Arc::clone(&self.inbound),
            request_id: self.facts.request_id.clone(),
            tenant: self.facts.tenant_hash.clone(),
            run: self.facts.run.clone(),
            state: self.facts.state.clone(),
            priority: self.facts.priority,
            passed: self.facts.passed.clone(),
            depth: self.facts.depth,
        }
    }
}
