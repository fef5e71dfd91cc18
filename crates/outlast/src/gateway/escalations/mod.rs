//! Work that waits for a person. Requests that no path could answer are handed over here ([`open`]); runs, steps and
//! effects come to wait in the command that parks them. [`decide`] takes the decision, [`watch`] sees to it that
//! somebody hears of what waits, [`view`] and [`mod@lineage`] are what that person is shown.

mod audit;
mod decide;
mod lineage;
mod serve;
mod view;
mod watch;

pub(super) use serve::answer;
pub(crate) use {
    audit::{page as audit_page, verified as audit_verified},
    lineage::lineage,
    view::{summary, whole},
};

use super::{
    Shared,
    backstops::{Cx, Deferral, Ended},
    store::tenant,
};
use crate::notify;
use outlast_model::{FailureReport, policy::Backstop, record::GaveUp};
use outlast_store::{OpenEscalation, Payload};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, task::JoinHandle};

/// When a client may look for the first time: a person takes a while.
const LOOK_AFTER: Duration = Duration::from_secs(60);

/// How those who look after escalations hear that there is something to do.
#[derive(Debug, Default)]
pub(crate) struct People {
    /// One was opened.
    opened: Notify,
    /// There is something to tell.
    pub(crate) told: Notify,
}

impl People {
    /// Something waits for a person since just now. Without this it is found a little later.
    pub(crate) fn nudge(&self) {
        self.opened.notify_one();
    }
}

/// The tasks that look after them. Dropping it ends them; what they were at is taken up again by whoever comes next.
pub(super) struct Watchers(Vec<JoinHandle<()>>);

impl Watchers {
    pub(super) fn start(shared: &Arc<Shared>) -> Watchers {
        Watchers(vec![tokio::spawn(watch::watch(shared.clone())), tokio::spawn(notify::tell(shared.clone()))])
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// What a person needs beside the question. The attempts are in the call's record.
#[derive(Serialize, Deserialize)]
struct Context {
    request: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<outlast_model::record::WorkflowState>,
    cause: FailureReport,
}

/// The backstop.
pub(super) async fn open(cx: &Cx, backstop: &Backstop, cause: &FailureReport) -> Ended {
    let Some(question) = cx.text_of(backstop) else { return Ended::Declined("the question cannot be put") };
    let Some(secret) = cx.shared.clock.secret() else { return Ended::Declined("the system gives no entropy") };
    let Ok(request) = serde_json::from_slice(cx.inbound.body()) else { return Ended::Declined("no context") };
    let id = format!("esc_{secret}");
    let context = Context { request, state: cx.state.clone(), cause: cause.clone() };
    let opened = OpenEscalation {
        id: id.as_str().into(),
        tenant: tenant(cx.tenant.as_deref()),
        route: cx.route.id().clone(),
        request_id: cx.request_id.clone(),
        failure: cause.failure,
        question: question.into(),
        payload: Payload::from(serde_json::to_vec(&context).unwrap_or_default()),
        answer_within: cx.live.config.escalations.answer_within,
    };
    match cx.shared.stored(cx.shared.store.open_escalation(opened)).await {
        Ok(_) => {
            cx.shared.people.nudge();
            let poll_url = format!("/v1/escalations/{id}");
            Ended::Deferred(Deferral {
                // The text is the notice: the contract may word it.
                said: cx.say(""),
                facts: json!({ "escalation": { "id": id, "poll_url": poll_url } }),
                location: Some(poll_url),
                retry_after: Some(LOOK_AFTER),
                gave_up: GaveUp::Immediacy,
            })
        }
        Err(_) => Ended::Declined("the store does not answer"),
    }
}
