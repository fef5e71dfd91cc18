//! Targets, routes and how exchanges go.

use outlast_engine::Backstopped;
use outlast_model::{
    Failure, FailureReport, Findings, Gate, Mono, Price, Problem, RouteId, TargetId, policy::*, record::GaveUp,
};
use std::{sync::Arc, time::Duration};

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn at(secs: f64) -> Mono {
    Mono::ZERO + Duration::from_secs_f64(secs)
}

pub const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    header: Duration::from_secs(60),
    first_token: Duration::from_secs(45),
    idle: Duration::from_secs(30),
    total: Duration::from_secs(600),
};

/// A target that can do everything, without probes.
pub fn target(id: &str) -> TargetSpec {
    TargetSpec {
        id: id.into(),
        provider: TargetId::from(id).provider().into(),
        region: None,
        dialect: Dialect::OpenaiChat,
        capabilities: Capabilities { tools: Ability::Yes, images: Ability::Yes, json_schema: Ability::Yes },
        context_window: None,
        max_output: None,
        price: Some(Price::per_million(3.0, 15.0, None, None)),
        timeouts: TIMEOUTS,
        keys: 1,
        probes: false,
    }
}

pub fn probed(id: &str) -> TargetSpec {
    TargetSpec { probes: true, ..target(id) }
}

pub fn tier(attempts: u8, deadline: Duration) -> Arc<Tier> {
    let [none, ..] = Tier::built_in();
    Arc::new(Tier { name: "test".into(), attempts, deadline, ..none })
}

pub fn route(targets: &[&str]) -> Route {
    Route::plain(
        "route".into(),
        targets.iter().map(|id| RouteTarget { target: (*id).into(), weight: 1 }).collect(),
        tier(3, Duration::from_secs(60)),
        Arc::new(Contract::plain("test", StreamContract::Fail)),
    )
}

pub fn stream() -> Needs {
    Needs { stream: true, input_tokens: 100, ..Needs::default() }
}

pub fn whole() -> Needs {
    Needs { input_tokens: 100, ..Needs::default() }
}

/// How one exchange goes.
#[derive(Clone, Debug)]
pub enum Script {
    /// Head and first output after `first`, then `tokens` outputs `gap` apart, then the end and these findings.
    Answer { first: Duration, tokens: u32, gap: Duration, findings: Findings },
    /// This failure, after so long.
    Fail { after: Duration, report: FailureReport },
    /// So many outputs, then this failure.
    Cut { first: Duration, tokens: u32, gap: Duration, report: FailureReport },
    /// Outputs for ever, whatever limit it was given.
    RunAway { first: Duration, gap: Duration },
    /// Silence.
    Hang,
}

pub fn ok() -> Script {
    answer(ms(300), Findings::CLEAN)
}

pub fn answer(first: Duration, findings: Findings) -> Script {
    Script::Answer { first, tokens: 5, gap: ms(20), findings }
}

pub fn bad(failure: Failure) -> Script {
    answer(ms(300), found(failure))
}

pub fn found(failure: Failure) -> Findings {
    Findings { problems: vec![Problem::new(failure, "scripted")], ..Findings::CLEAN }
}

pub fn fail(failure: Failure) -> Script {
    fail_after(ms(50), failure, None)
}

pub fn fail_after(after: Duration, failure: Failure, retry_after: Option<Duration>) -> Script {
    let answered = !matches!(failure, Failure::Timeout(_) | Failure::Connection(_));
    let status = answered.then_some(if failure == Failure::RateLimited { 429 } else { 500 });
    Script::Fail { after, report: FailureReport { status, retry_after, ..FailureReport::of(failure) } }
}

/// A reply that breaks these gates.
pub fn breaks(gates: &[Gate]) -> Script {
    let problems = gates.iter().map(|gate| Problem::at(*gate, "scripted")).collect();
    answer(ms(300), Findings { problems, ..Findings::CLEAN })
}

/// A reply that breaks only the full schema.
pub fn keeps_degraded() -> Script {
    let problems = vec![Problem::at(Gate::Drift, "scripted")];
    answer(ms(300), Findings { problems, keeps_degraded: true, ..Findings::CLEAN })
}

/// The route with this contract.
pub fn under(contract: Contract, targets: &[&str]) -> Route {
    Route { contract: Arc::new(contract), ..route(targets) }
}

/// A contract that judges whole replies.
pub fn gated() -> Contract {
    let schema = Some(Arc::new(Schema { source: "test".into(), json: "{}".into() }));
    Contract { checks: Checks { schema, ..Checks::default() }, ..Contract::plain("gated", StreamContract::Buffer) }
}

pub fn backstop(kind: BackstopKind) -> Arc<Backstop> {
    Arc::new(Backstop { name: kind.name().as_str().into(), kind })
}

pub fn a_static() -> Arc<Backstop> {
    backstop(BackstopKind::Static { reply: "sorry".into() })
}

pub fn a_cache() -> Arc<Backstop> {
    backstop(BackstopKind::Cache { max_age: Duration::from_secs(60) })
}

pub fn a_queue() -> Arc<Backstop> {
    backstop(BackstopKind::Queue { expires: Duration::from_secs(60), webhook: None })
}

pub fn an_escalation() -> Arc<Backstop> {
    backstop(BackstopKind::Escalate { question: "what now?".into() })
}

pub fn a_failure() -> Arc<Backstop> {
    backstop(BackstopKind::Fail { next: None })
}

pub fn a_question() -> Arc<Backstop> {
    let route = RouteId::from("cheaper");
    backstop(BackstopKind::Confirm { question: "cheaper?".into(), route, expires: Duration::from_secs(60) })
}

pub fn said(findings: Findings) -> Backstopped {
    Backstopped::Said { findings, gave_up: GaveUp::Model }
}

pub fn deferred() -> Backstopped {
    Backstopped::Deferred { gave_up: GaveUp::Immediacy }
}
