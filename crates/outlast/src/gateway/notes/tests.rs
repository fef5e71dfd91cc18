use super::*;
use outlast_model::{
    RequestId, RouteId, Usd, Wall,
    policy::{Contract, Dialect, StreamContract},
    record::{BackstopUse, CALL_RECORD_VERSION, Outcome, SchemaStatus, WorkflowState},
};
use std::sync::Arc;

fn record(outcome: Outcome, gave_up: Vec<GaveUp>) -> CallRecord {
    CallRecord {
        version: CALL_RECORD_VERSION,
        request_id: RequestId::new("req_1"),
        trace_id: "0".into(),
        task_id: None,
        run: None,
        tenant_hash: None,
        workflow_step: Some("refund".into()),
        route: RouteId::new("support"),
        dialect: Dialect::OpenaiChat,
        stream: false,
        started: Wall(0),
        latency_us: 1,
        first_output_us: None,
        planned: Vec::new(),
        left_out: Vec::new(),
        attempts: Vec::new(),
        outcome,
        served_by: None,
        degraded: !gave_up.is_empty(),
        gave_up,
        tool_mode: ToolMode::Full,
        backstop: None,
        confidence: None,
        agreement: None,
        tier: None,
        risk: None,
        state: None,
        parent: None,
        schema_status: SchemaStatus::None,
        cost: Usd::ZERO,
        wasted: Usd::ZERO,
    }
}

fn everything_given_up() -> Vec<GaveUp> {
    let modes = [ToolMode::Full, ToolMode::PlanOnly, ToolMode::ReadOnly, ToolMode::None];
    let mut all: Vec<GaveUp> = modes.into_iter().map(|mode| GaveUp::Tools { mode }).collect();
    all.extend([
        GaveUp::Schema,
        GaveUp::Input,
        GaveUp::Freshness { age_s: 7300 },
        GaveUp::Model,
        GaveUp::Agreement,
        GaveUp::Route { route: RouteId::new("gpt-cheap-openai") },
        GaveUp::Immediacy,
    ]);
    all
}

#[test]
fn no_notice_names_a_vendor_a_model_a_target_or_a_status_code() {
    const NEVER: [&str; 14] = [
        "openai",
        "anthropic",
        "claude",
        "gpt",
        "gemini",
        "azure",
        "bedrock",
        "mistral",
        "llama",
        "provider",
        "target",
        "http",
        "model",
        "cheap",
    ];
    let contract = Arc::new(Contract::plain("plain", StreamContract::Fail));
    let gates = Gates::compile(&contract).unwrap();
    for failure in Failure::ALL {
        for gave_up in everything_given_up() {
            for kind in [None, Some(BackstopName::Queue), Some(BackstopName::Escalate), Some(BackstopName::Confirm)] {
                for outcome in [Outcome::Answered, Outcome::Failed(failure), Outcome::Deferred] {
                    let promise = json!({});
                    let record = CallRecord {
                        backstop: kind.map(|kind| BackstopUse { name: "later".into(), kind }),
                        ..record(outcome, vec![gave_up.clone()])
                    };
                    let story = Story {
                        promise: kind.map(|_| &promise),
                        failure: outcome.failure(),
                        ..Story::of(&record, &[])
                    };
                    let told = format!("{} {:?} {}", story.notice(&gates), story.sentences(), still(&gave_up));
                    let lower = told.to_lowercase().replace("refund", "");
                    for word in NEVER {
                        assert!(!lower.contains(word), "{failure} {gave_up:?}: {told}");
                    }
                    let code = lower.as_bytes().windows(3).any(|three| three.iter().all(u8::is_ascii_digit));
                    assert!(!code, "{failure} {gave_up:?}: {told}");
                    for sentence in [story.notice(&gates), after(failure).to_owned(), lost(&gave_up)] {
                        assert!(sentence.ends_with('.') && sentence.len() > 12, "{failure} {gave_up:?}: {sentence}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_contracts_notice_is_filled_from_the_facts() {
    let notice = "{{ gave_up }} {{ saved }} {{ next }}{% if step %} ({{ step }}){% endif %}{{ age }}{{ actions }}";
    let contract = Contract { notice: Some(notice.into()), ..Contract::plain("plain", StreamContract::Fail) };
    let gates = Gates::compile(&Arc::new(contract)).unwrap();
    let record = record(Outcome::Answered, vec![GaveUp::Tools { mode: ToolMode::ReadOnly }]);
    let story = Story::of(&record, &[]);
    assert_eq!(
        story.notice(&gates),
        "Only look-ups work at the moment; nothing can be changed. Nothing was changed. Try again later to change \
         something. (refund)"
    );
}

#[test]
fn a_full_reply_has_no_notice_and_the_state_comes_back_with_what_was_spent() {
    let gates = Gates::compile(&Arc::new(Contract::plain("plain", StreamContract::Fail))).unwrap();
    let mut record = record(Outcome::Answered, Vec::new());
    record.cost = Usd::from_nanos(2_000_000);
    record.state = Some(WorkflowState {
        step: Some("refund".into()),
        retry_count: Some(1),
        budget_used: Some(Usd::from_nanos(1_000_000)),
    });
    let story = Story::of(&record, &[]);
    let object: Value = serde_json::from_str(&story.object(&gates)).unwrap();
    assert!(object.get("notice").is_none() && object["saved"] == false, "{object}");
    assert_eq!(object["state"], json!({ "step": "refund", "retry_count": 1, "budget_used_usd": 0.003 }));
}
