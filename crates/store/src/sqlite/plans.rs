//! How the statements find their rows that are carried out again and again, or beside very many others.

use super::{claim, effects, journal, migrate, ready, retention};
use outlast_model::Wall;
use rusqlite::{Connection, StatementStatus, params};

fn blank() -> Connection {
    let mut db = Connection::open_in_memory().unwrap();
    migrate::migrate(&mut db, &"store.db".into(), Wall(0)).unwrap();
    db
}

fn plan(db: &Connection, sql: &str) -> String {
    let mut explain = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    for parameter in 1..=explain.parameter_count() {
        explain.raw_bind_parameter(parameter, 1).unwrap();
    }
    let mut rows = explain.raw_query();
    let mut plan = String::new();
    while let Some(row) = rows.next().unwrap() {
        plan.push_str(&row.get::<_, String>(3).unwrap());
        plan.push('\n');
    }
    plan
}

#[test]
fn no_statement_on_the_way_of_a_run_walks_a_table() {
    let db = blank();
    for (sql, index) in [
        (ready::FIRST, "USING PRIMARY KEY (lane=? AND held=? AND priority=? AND (claimable_from,run)>(?,?)"),
        (claim::LANES, "lanes_by_queue (queue=?)"),
        (claim::LANES_OF_TENANT, "(tenant=? AND queue=?)"),
        (journal::PAGE, "steps_in_order (run=? AND sequence>?)"),
        (effects::STEPS_TO_LOOK_AT, "steps_to_look_at (look_at<?)"),
        (effects::EFFECTS_TO_LOOK_AT, "effects_to_look_at (look_at<?)"),
        (retention::GONE, "runs_by_end (ended_at>? AND ended_at<?)"),
        (retention::BARE, "runs_to_drop (ended_at>? AND ended_at<?)"),
        (retention::GONE_EFFECTS, "effects_by_end (ended_at>? AND ended_at<?)"),
        (retention::BARE_EFFECTS, "effects_to_drop (ended_at>? AND ended_at<?)"),
        ("SELECT 1 FROM inbox WHERE run = ?1 AND dedupe = ?2", "inbox_by_dedupe (run=? AND dedupe=?)"),
        ("SELECT run FROM runs WHERE escalation = ?1", "runs_escalated (escalation=?)"),
        ("SELECT 1 FROM runs WHERE tenant = ?1 AND id = ?2", "(tenant=? AND id=?)"),
        ("SELECT 1 FROM steps WHERE run = ?1 AND key = ?2", "steps_by_key (run=? AND key=?)"),
    ] {
        let plan = plan(&db, sql);
        assert!(plan.contains(index), "{sql}\n{plan}");
        assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
}

/// Waiting, future and foreign runs cost a claim nothing.
#[test]
fn a_claim_takes_as_many_steps_beside_fifty_thousand_runs_as_beside_none() {
    let db = blank();
    let steps = |after: i64| {
        let mut first = db.prepare(ready::FIRST).unwrap();
        assert!(!first.exists(params![1, 0, 2, i64::MIN, i64::MIN, after]).unwrap());
        first.get_status(StatementStatus::VmStep)
    };
    let alone = steps(1_000);
    // Of this lane and later; of another lane and due; held by somebody.
    for values in ["1, 0, 2, 2000 + value", "2, 0, 2, value % 1000", "1, 1, 2, 2000 + value"] {
        db.execute_batch(&format!(
            "WITH RECURSIVE n(value) AS (VALUES (1) UNION ALL SELECT value + 1 FROM n WHERE value < 17000)
             INSERT INTO ready SELECT {values}, value FROM n"
        ))
        .unwrap();
    }
    let beside = steps(1_000);
    assert!(beside <= alone + 10, "{alone} steps alone, {beside} beside others");
}
