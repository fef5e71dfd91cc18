//! Those who are asked about a reply that has passed everything else: the operator's own validators over HTTP, and a
//! judge, which is a call like any other. Whoever gives no verdict passes nothing.

use super::{
    backstops::Cx,
    body::Pieces,
    inner::{self, Inner},
    live::LiveRoute,
    pool::Reply,
    upstream::{Endpoint, media_type},
};
use crate::clock;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, Uri, header};
use http_body_util::{BodyExt, Limited};
use outlast_model::{
    Findings, Gate, Problem, Usd,
    policy::{Confidence, ConfidenceFrom, Dialect, HttpValidator, Judge},
    record::Role,
};
use outlast_wire::{Inbound, compose::Said, judge, plan::Intent};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// The longest verdict that is read.
const VERDICT_MAX: usize = 64 << 10;
/// The most problems of one verdict that are noted.
const PROBLEMS_MAX: usize = 4;

/// A validator, ready to be asked. Its address comes from the operator's config, never from a client, so that it may
/// name any host; a redirect is not followed.
pub(super) struct Validator {
    spec: HttpValidator,
    endpoint: Endpoint,
}

impl Validator {
    /// `None` when the address cannot be used; the config has checked it.
    pub(super) fn new(spec: &HttpValidator) -> Option<Self> {
        let uri: Uri = spec.url.parse().ok()?;
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(header::HOST, HeaderValue::from_str(uri.authority()?.as_str()).ok()?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("outlast/", env!("CARGO_PKG_VERSION"))));
        let endpoint = Endpoint::new(uri, headers, &[], spec.timeout);
        Some(Validator { spec: spec.clone(), endpoint })
    }

    async fn ask(&self, body: Pieces) -> Option<Verdict> {
        let response = self.endpoint.send(0, [], body).await.ok()?;
        verdict(response).await
    }
}

/// What a validator answers.
#[derive(Deserialize)]
struct Verdict {
    ok: bool,
    #[serde(default)]
    problems: Vec<String>,
}

/// Reads a verdict: a 200 with JSON of bounded length. Anything else, redirects included, is none.
async fn verdict(response: Response<Reply>) -> Option<Verdict> {
    let (head, body) = response.into_parts();
    if head.status != http::StatusCode::OK || media_type(&head.headers) != "application/json" {
        return None;
    }
    let mut read = BytesMut::new();
    let mut body = Limited::new(body, VERDICT_MAX);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            read.extend_from_slice(&data);
        }
    }
    // A list of values would be read as the fields in their order.
    read.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(&read).ok())?
}

/// Whether anybody else is asked about this route's replies.
pub(super) fn asked_for(route: &LiveRoute) -> bool {
    let contract = &route.route().contract;
    !contract.validators.is_empty() || judge_of(contract.confidence.as_ref()).is_some()
}

fn judge_of(confidence: Option<&Confidence>) -> Option<(&Judge, f64)> {
    match confidence.map(|confidence| (&confidence.from, confidence.min)) {
        Some((ConfidenceFrom::Judge(judge), min)) => Some((judge, min)),
        Some((ConfidenceFrom::Field(_) | ConfidenceFrom::Votes, _)) | None => None,
    }
}

/// Asks validators, then the judge, which costs money: only about what passed everything else, and only about answers.
/// Between tool calls, and beside a plan, there is none yet. `budget` is the most the judge may spend.
pub(super) async fn judge(cx: &Cx, said: &Said, plan: &[Intent], findings: Findings, budget: Option<Usd>) -> Findings {
    let findings = validate(cx, said, plan, findings).await;
    let passed = findings.problems.is_empty() || findings.keeps_degraded;
    let answers = said.tool_calls.is_empty() && plan.is_empty();
    match judge_of(cx.route.route().contract.confidence.as_ref()) {
        Some((judge, min)) if passed && answers => ask_judge(cx, said, findings, judge, min, budget).await,
        Some(_) | None => findings,
    }
}

/// Asks the validators, one after the other; the first that says no ends it.
pub(super) async fn validate(cx: &Cx, said: &Said, plan: &[Intent], findings: Findings) -> Findings {
    let route = &cx.route;
    if route.validators.len() < route.route().contract.validators.len() {
        return unjudged(findings, "validator");
    }
    for validator in &route.validators {
        let name = &*validator.spec.name;
        let body = question(cx, name, said, plan);
        match clock::timeout(validator.spec.timeout, validator.ask(body)).await {
            Ok(Some(Verdict { ok: true, .. })) => {}
            Ok(Some(Verdict { ok: false, problems })) => {
                return broken(findings, Problem::at(Gate::Validator, named(name, &problems)));
            }
            Ok(None) | Err(_) => return unjudged(findings, name),
        }
    }
    findings
}

/// What a validator is sent. The request is the client's own body.
fn question(cx: &Cx, name: &str, said: &Said, plan: &[Intent]) -> Pieces {
    let calls: Vec<_> =
        said.tool_calls.iter().map(|call| json!({ "name": call.name, "arguments": call.arguments })).collect();
    let head = json!({ "request_id": cx.request_id, "route": cx.route.id(), "validator": name }).to_string();
    let reply = json!({ "text": said.text, "tool_calls": calls, "plan": plan });
    let open = format!("{},\"request\":", head.trim_end_matches('}'));
    let close = format!(",\"reply\":{reply}}}");
    Pieces::of([Bytes::from(open), cx.inbound.body().clone(), Bytes::from(close)])
}

/// The validator's name, and those of its problems that are codes: a sentence may repeat the reply's words, and those
/// are not kept.
fn named(name: &str, problems: &[String]) -> String {
    let is_code = |problem: &&String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        problem.len() <= 48 && problem.starts_with(|c: char| c.is_ascii_alphabetic()) && problem.bytes().all(plain)
    };
    let codes: Vec<&str> = problems.iter().filter(is_code).take(PROBLEMS_MAX).map(String::as_str).collect();
    if codes.is_empty() { name.to_owned() } else { format!("{name}: {}", codes.join(", ")) }
}

async fn ask_judge(
    cx: &Cx,
    said: &Said,
    mut findings: Findings,
    judge: &Judge,
    min: f64,
    budget: Option<Usd>,
) -> Findings {
    let route = cx.live.route(judge.route.as_str()).filter(|_| cx.depth < inner::DEPTH_MAX);
    let question = Inbound::parse(Dialect::OpenaiChat, judge::question(&cx.inbound, &said.text, judge));
    let (Some(route), Ok(question)) = (route, question) else { return unjudged(findings, "judge") };
    let budget = [judge.cost_max, budget].into_iter().flatten().min();
    let answered = inner::ask(
        &cx.shared,
        &cx.live,
        Inner {
            route: Arc::clone(route),
            inbound: Arc::new(question),
            budget,
            deadline: Some(judge.timeout),
            role: Role::Judge,
            parent: cx.request_id.clone(),
            run: cx.run.clone(),
            tenant: cx.tenant.clone(),
            state: None,
            passed: Vec::new(),
            depth: cx.depth + 1,
        },
    )
    .await;
    findings.cost = findings.cost + answered.record.cost;
    match answered.result.ok().and_then(|said| judge::verdict(&said.text)) {
        None => unjudged(findings, "judge"),
        Some(score) => {
            findings.confidence = Some(score);
            match score < min {
                true => broken(findings, Problem::at(Gate::Confidence, "judge")),
                false => findings,
            }
        }
    }
}

/// No verdict.
pub(super) fn unjudged(findings: Findings, who: &str) -> Findings {
    broken(findings, Problem::at(Gate::Unjudged, who))
}

fn broken(mut findings: Findings, problem: Problem) -> Findings {
    findings.problems.push(problem);
    findings.keeps_degraded = false;
    findings
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn only_problems_that_are_codes_are_noted() {
        for (problems, noted) in [
            (&[][..], "prices"),
            (&["wrong_price", "It costs 5, not 7."], "prices: wrong_price"),
            (&["4111111111111111", "", "a b"], "prices"),
            (&["a", "b", "c", "d", "e"], "prices: a, b, c, d"),
        ] {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert_eq!(named("prices", &problems), noted);
        }
    }
}
