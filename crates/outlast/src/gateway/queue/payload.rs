//! What is kept of a queued request, and of its end.

use super::super::{backstops::Cx, body::ReplyBody, inner::Answered, notes::Story};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use outlast_model::{
    RequestId, TargetId,
    policy::Dialect,
    record::{CallRecord, GaveUp, WorkflowState},
};
use outlast_store::Payload;
use outlast_wire::{Inbound, compose, contract::Gates, error, note};
use serde::{Deserialize, Serialize};

/// A request, as it has to be asked again.
#[derive(Serialize, Deserialize)]
pub(super) struct Asked {
    /// The call that could not be answered.
    pub(super) request_id: RequestId,
    pub(super) dialect: Dialect,
    body: String,
    /// The hash of the caller's key.
    pub(super) tenant: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<WorkflowState>,
    /// Headers that same-dialect targets are given too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    passed: Vec<(String, String)>,
}

impl Asked {
    pub(super) fn of(cx: &Cx) -> Self {
        let passed = cx.passed.iter();
        let passed = passed.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        Asked {
            request_id: cx.request_id.clone(),
            dialect: cx.inbound.dialect(),
            body: String::from_utf8_lossy(cx.inbound.body()).into_owned(),
            tenant: cx.tenant.clone(),
            state: cx.state.clone(),
            passed: passed.collect(),
        }
    }

    pub(super) fn sealed(&self) -> Payload {
        Payload::from(serde_json::to_vec(self).unwrap_or_default())
    }

    pub(super) fn open(payload: &Payload) -> Option<Self> {
        serde_json::from_slice(payload.as_bytes()).ok()
    }

    /// The request, read again.
    pub(super) fn inbound(&self, received_secs: u64) -> Option<Inbound> {
        Some(Inbound::parse(self.dialect, Bytes::from(self.body.clone())).ok()?.received_at(received_secs))
    }

    pub(super) fn passed(&self) -> Vec<(HeaderName, HeaderValue)> {
        let header = |(name, value): &(String, String)| Some((name.parse().ok()?, HeaderValue::from_str(value).ok()?));
        self.passed.iter().filter_map(header).collect()
    }
}

/// The end of a queued request, as its caller fetches it: in the dialect it was asked in.
#[derive(Serialize, Deserialize)]
pub(super) struct Finished {
    status: u16,
    /// The call that ended it: its lineage is under this id.
    request_id: RequestId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<TargetId>,
    attempts: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gave_up: Vec<GaveUp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cost_usd: Option<String>,
    body: String,
}

impl Finished {
    /// What came of asking. `gates` are those of the route, where bodies may carry notes.
    pub(super) fn of(inbound: &Inbound, answered: &Answered, gates: Option<&Gates>) -> Self {
        let record = &*answered.record;
        match &answered.result {
            Ok(said) => {
                let body = compose::whole(inbound, said);
                let notes = gates.filter(|_| record.degraded).map(|gates| {
                    let story = Story { record, plan: &[], promise: None, failure: None, own_next: None };
                    story.object(gates)
                });
                Finished::with(200, record, &notes.iter().fold(body, |body, notes| note::in_body(body, notes)))
            }
            Err(report) => {
                let message = error::message(report, None);
                let reply = error::body(inbound.dialect(), report, &message, record.request_id.as_str());
                Finished::with(reply.status, record, &reply.body)
            }
        }
    }

    fn with(status: u16, record: &CallRecord, body: &Bytes) -> Self {
        let nanos = record.cost.as_nanos();
        let cost = || format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
        Finished {
            status,
            request_id: record.request_id.clone(),
            target: record.served_by.clone(),
            attempts: record.attempts.len(),
            gave_up: record.gave_up.clone(),
            cost_usd: record.cost_is_known().then(cost),
            body: String::from_utf8_lossy(body).into_owned(),
        }
    }

    pub(super) fn sealed(&self) -> Payload {
        Payload::from(serde_json::to_vec(self).unwrap_or_default())
    }

    pub(super) fn open(payload: &Payload) -> Option<Self> {
        serde_json::from_slice(payload.as_bytes()).ok()
    }

    /// Gives it to the caller.
    pub(super) fn respond(self) -> Response<ReplyBody> {
        let mut response = Response::new(ReplyBody::from(Bytes::from(self.body)));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let headers = response.headers_mut();
        *headers = super::super::reply_head::common(&self.request_id, u8::try_from(self.attempts).unwrap_or(u8::MAX));
        let mut set = |name: &'static str, value: Option<&str>| {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("x-outlast-target", self.target.as_ref().map(TargetId::as_str));
        set("x-outlast-cost-usd", self.cost_usd.as_deref());
        let gave_up: Vec<&str> = self.gave_up.iter().map(GaveUp::name).collect();
        set("x-outlast-degraded", (!gave_up.is_empty()).then(|| gave_up.join(",")).as_deref());
        // A poll is not the call: it must not be asked again by the SDK on its own.
        set("x-should-retry", (self.status >= 400).then_some("false"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
