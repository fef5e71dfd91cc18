//! What a run does when it fails or is cancelled: unknown effects are settled first, then what was done is undone, the
//! last first, and what cannot be undone goes to a person.

mod common;

use common::desk::{Deal, Desk, QUICK, Shop, workflow};
use outlast_model::run::{EscalationKind, LedgerState, RunState, Verb};
use serde_json::{Value, json};

const UNDO_PAY: &str =
    "undo = { tool = \"refund\", input = { charge = \"{{ steps.pay.id }}\", why = \"{{ input.why }}\" } }";
const UNDO_SHIP: &str = "undo = { tool = \"call_back\", input = { parcel = \"{{ steps.ship.id }}\" } }";

/// Pay, ship, then what the test adds; both can be undone.
fn config(shop: &Shop, last: &str) -> String {
    let pay = format!("name = \"pay\"\nkind = \"tool\"\ntool = \"pay\"\n{UNDO_PAY}\n{QUICK}");
    let ship = format!("name = \"ship\"\nkind = \"tool\"\ntool = \"ship\"\n{UNDO_SHIP}\n{QUICK}");
    shop.tool("pay", "keyed", "")
        + &shop.tool("ship", "once", "")
        + &shop.tool("refund", "keyed", QUICK)
        + &shop.tool("call_back", "keyed", QUICK)
        + &shop.tool("boom", "pure", "")
        + &workflow("sell", "", &[&pay, &ship, last])
}

const BOOM: &str = "name = \"boom\"\nkind = \"tool\"\ntool = \"boom\"";
const WAIT: &str = "name = \"wait\"\nkind = \"wait\"\nsignals = [\"go\"]";

async fn shop(special: impl Fn(&str, usize) -> Option<Deal> + Send + Sync + 'static) -> Shop {
    Shop::open(move |tool, _, nth| {
        special(tool, nth).unwrap_or_else(|| match tool {
            "boom" => Deal::Refuses(422),
            _ => Deal::Answers(json!({ "id": format!("{tool}-{nth}") })),
        })
    })
    .await
}

#[tokio::test]
async fn a_failed_run_undoes_what_it_did_the_last_first() {
    let shop = shop(|_, _| None).await;
    let desk = Desk::open(&config(&shop, BOOM)).await;
    let run = desk.start("sell", json!({ "why": "test" })).await;
    let (state, error) = desk.end(&run).await;
    assert_eq!((state, &error["step"]), (RunState::Failed, &json!("boom")), "{error}");
    assert_eq!(shop.called(), ["pay", "ship", "boom", "call_back", "refund"]);
    assert_eq!(shop.calls("refund"), [json!({ "charge": "pay-0", "why": "test" })]);
    assert_eq!(shop.calls("call_back"), [json!({ "parcel": "ship-0" })]);
    let keys: Vec<String> = desk.steps(&run).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["pay", "ship", "boom", "undo/ship", "undo/pay"]);
    let undone: Vec<_> = desk.journal(&run).await.into_iter().map(|step| step.undoes).collect();
    assert_eq!(undone[3..], [Some("ship".into()), Some("pay".into())]);
}

#[tokio::test]
async fn a_cancelled_run_undoes_what_it_did() {
    let shop = shop(|_, _| None).await;
    let desk = Desk::open(&config(&shop, WAIT)).await;
    let run = desk.start("sell", json!({ "why": "cancelled" })).await;
    desk.until(&run, RunState::Waiting).await;
    desk.cancel(&run).await;
    assert_eq!(desk.end(&run).await.0, RunState::Cancelled);
    assert_eq!(shop.called(), ["pay", "ship", "call_back", "refund"]);
}

#[tokio::test]
async fn an_unknown_effect_of_a_cancelled_run_is_decided_before_anything_is_undone() {
    let shop = shop(|tool, _| (tool == "ship").then_some(Deal::Loses)).await;
    let desk = Desk::open(&config(&shop, WAIT)).await;
    let run = desk.start("sell", json!({ "why": "cancelled" })).await;
    assert_eq!(desk.parked(&run).await.0, EscalationKind::UnknownEffect);
    desk.cancel(&run).await;
    assert_eq!(desk.view(&run).await.state, RunState::Parked, "nobody knows yet what there is to undo");
    desk.decide(&run, Verb::Happened, Some(json!({ "id": "found" })), json!({})).await;
    assert_eq!(desk.end(&run).await.0, RunState::Cancelled);
    assert_eq!(shop.called(), ["pay", "ship", "call_back", "refund"]);
    assert_eq!(shop.calls("call_back"), [json!({ "parcel": "found" })]);
}

#[tokio::test]
async fn an_effect_that_may_have_happened_is_settled_in_a_cancelled_run_and_then_undone() {
    let shop = shop(|tool, nth| (tool == "pay" && nth == 0).then_some(Deal::Loses)).await;
    let pay = format!(
        "name = \"pay\"\nkind = \"tool\"\ntool = \"pay\"\n{UNDO_PAY}\nretry = {{ base = \"6s\", cap = \"6s\" }}"
    );
    let toml =
        shop.tool("pay", "keyed", "") + &shop.tool("refund", "keyed", QUICK) + &workflow("sell", "", &[&pay, WAIT]);
    let desk = Desk::open(&toml).await;
    let run = desk.start("sell", json!({ "why": "cancelled" })).await;
    // Its outcome is unknown, and it is given back until it can be looked into.
    common::until("the payment to be sent", || shop.called().len() == 1).await;
    desk.until(&run, RunState::Ready).await;
    desk.cancel(&run).await;
    assert_eq!(desk.end(&run).await.0, RunState::Cancelled);
    assert_eq!(shop.called(), ["pay", "pay", "refund"]);
    let keys = shop.keys("pay");
    assert_eq!(keys[0], keys[1], "it is asked for under the same key");
}

#[tokio::test]
async fn what_cannot_be_undone_goes_to_a_person_and_the_rest_is_undone_all_the_same() {
    let shop = shop(|tool, _| (tool == "call_back").then_some(Deal::Refuses(422))).await;
    let desk = Desk::open(&config(&shop, BOOM)).await;
    let run = desk.start("sell", json!({ "why": "test" })).await;
    assert_eq!(desk.parked(&run).await.0, EscalationKind::Compensation);
    assert_eq!(shop.called(), ["pay", "ship", "boom", "call_back"]);
    desk.decide(&run, Verb::Happened, Some(Value::Null), json!({})).await;
    assert_eq!(desk.end(&run).await.0, RunState::Failed);
    assert_eq!(shop.called(), ["pay", "ship", "boom", "call_back", "refund"]);
    assert!(desk.steps(&run).await.iter().all(|(_, state)| *state != LedgerState::Parked));
}

#[tokio::test]
async fn a_run_that_shares_an_effect_with_another_does_not_undo_it() {
    let shop = shop(|_, _| None).await;
    let pay = |last: &str| {
        let pay =
            format!("name = \"pay\"\nkind = \"tool\"\ntool = \"pay\"\nkey = \"pay/{{{{ input.order }}}}\"\n{UNDO_PAY}");
        [pay, last.to_owned()]
    };
    let (good, bad) = (pay(WAIT), pay(BOOM));
    let toml = shop.tool("pay", "keyed", "")
        + &shop.tool("refund", "keyed", QUICK)
        + &shop.tool("boom", "pure", "")
        + &workflow("good", "", &[&good[0], &good[1]])
        + &workflow("bad", "", &[&bad[0], &bad[1]]);
    let desk = Desk::open(&toml).await;
    let input = json!({ "order": "o-1", "why": "test" });
    let first = desk.start("good", input.clone()).await;
    desk.until(&first, RunState::Waiting).await;
    let second = desk.start("bad", input).await;
    assert_eq!(desk.end(&second).await.0, RunState::Failed);
    assert_eq!(shop.called(), ["pay", "boom"], "paid once, and the first run still counts on it");
}
