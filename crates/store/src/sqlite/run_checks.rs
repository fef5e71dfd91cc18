//! The part of the full check that is about runs: who has a place among those to be claimed, what refers to which blob,
//! whether every payload opens.

use super::{
    blobs::{self, Stored, joined},
    cx::Cx,
    entries::{Column, Owned},
    fault::{Fault, Outcome},
};
use crate::{Checked, Place, RunRef, seal::Owner};
use outlast_model::{RunId, TenantId};

/// What must not be found, and what it means if it is.
const NEVER: &[(&str, &str)] = &[
    (
        "SELECT lane, held, priority, claimable_from, run FROM ready EXCEPT
         SELECT lane, state = 1, priority, CASE state WHEN 1 THEN lease_until ELSE due END, run FROM runs
         WHERE unclaimed = 0 AND state <= 2",
        "a run has a place among those to be claimed that is not its own",
    ),
    (
        "SELECT lane, state = 1, priority, CASE state WHEN 1 THEN lease_until ELSE due END, run FROM runs
         WHERE unclaimed = 0 AND (state = 1 OR (state IN (0, 2) AND due IS NOT NULL)) EXCEPT
         SELECT lane, held, priority, claimable_from, run FROM ready",
        "a run that can be claimed has no place among those to be claimed",
    ),
    (
        "SELECT 1 FROM lanes WHERE runs <> (SELECT count(*) FROM runs WHERE runs.lane = lanes.lane)",
        "the counts of lanes are not what is there",
    ),
    ("SELECT 1 FROM runs WHERE lane NOT IN (SELECT lane FROM lanes)", "a run is in a lane that is not there"),
    (
        "WITH refs AS (
            SELECT payload_blob AS blob FROM run_payloads UNION ALL SELECT payload_blob FROM inbox
            UNION ALL SELECT payload_blob FROM steps UNION ALL SELECT input_blob FROM steps
            UNION ALL SELECT undo_blob FROM steps UNION ALL SELECT decision_blob FROM steps
            UNION ALL SELECT payload_blob FROM effects UNION ALL SELECT input_blob FROM effects
            UNION ALL SELECT undo_blob FROM effects UNION ALL SELECT decision_blob FROM effects)
         SELECT blob, refs FROM blobs EXCEPT
         SELECT blob, count(*) FROM refs WHERE blob IS NOT NULL GROUP BY blob",
        "the references of blobs are not what is there",
    ),
    (
        "SELECT 1 FROM runs WHERE bytes < coalesce((SELECT sum(bytes) FROM steps WHERE steps.run = runs.run), 0)
             + coalesce((SELECT sum(bytes) FROM inbox WHERE inbox.run = runs.run), 0)",
        "a run is said to hold fewer bytes than its journal does",
    ),
];

/// Adds what is wrong to what was found.
pub(super) fn check(cx: Cx<'_>, checked: &mut Checked) -> Outcome<()> {
    for (sql, means) in NEVER {
        if cx.db.prepare(sql)?.exists([])? {
            checked.faults.push((*means).into());
        }
    }
    for column in [Column::Payload, Column::Input, Column::Undo, Column::Decision] {
        entries(cx, column, checked)?;
    }
    of_runs(cx, checked)
}

fn entries(cx: Cx<'_>, column: Column, checked: &mut Checked) -> Outcome<()> {
    let name = column.name();
    let steps = format!(
        "SELECT tenant, id, steps.key, steps.{name}, steps.{name}_blob FROM steps JOIN runs USING (run)
         WHERE steps.{name} IS NOT NULL"
    );
    let effects = format!("SELECT tenant, scope, key, {name}, {name}_blob FROM effects WHERE {name} IS NOT NULL");
    for (sql, of_run) in [(steps, true), (effects, false)] {
        let mut find = cx.db.prepare(&sql)?;
        let mut rows = find.query([])?;
        while let Some(row) = rows.next()? {
            let (tenant, first, key): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (tenant, key) = (TenantId::new(tenant), key.into());
            let place = match of_run {
                true => Place::Step { run: RunRef { tenant, id: RunId::new(first) }, key },
                false => Place::Effect { tenant, scope: first.into(), key },
            };
            opens(cx, Owned::new(&place).of(column), Stored::read(row, 3)?, checked)?;
        }
    }
    Ok(())
}

fn of_runs(cx: Cx<'_>, checked: &mut Checked) -> Outcome<()> {
    let mut find =
        cx.db.prepare("SELECT tenant, id, slot % 2, payload, payload_blob FROM run_payloads JOIN runs USING (run)")?;
    let mut rows = find.query([])?;
    while let Some(row) = rows.next()? {
        let (tenant, id, output): (String, String, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let column = if output { "output" } else { "input" };
        let owner = Owner { table: "run_payloads", tenant: &tenant, id: &id, column };
        opens(cx, owner, Stored::read(row, 3)?, checked)?;
    }
    let mut find = cx.db.prepare(
        "SELECT tenant, id, dedupe, inbox.payload, inbox.payload_blob FROM inbox JOIN runs USING (run)
         WHERE inbox.payload IS NOT NULL",
    )?;
    let mut rows = find.query([])?;
    while let Some(row) = rows.next()? {
        let (tenant, id, dedupe): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let id = joined(&id, &dedupe);
        let owner = Owner { table: "inbox", tenant: &tenant, id: &id, column: "payload" };
        opens(cx, owner, Stored::read(row, 3)?, checked)?;
    }
    Ok(())
}

fn opens(cx: Cx<'_>, owner: Owner<'_>, stored: Stored, checked: &mut Checked) -> Outcome<()> {
    checked.rows += 1;
    match blobs::open(cx, owner, stored) {
        Ok(_) => Ok(()),
        Err(Fault::Store(error)) => {
            checked.faults.push(error.to_string().into());
            Ok(())
        }
        Err(fault) => Err(fault),
    }
}
