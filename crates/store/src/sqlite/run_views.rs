//! Runs as they are shown: one, a page of them, what they work on and how they ended.

use super::{
    cx::Cx,
    fault::Outcome,
    runs::{self, Part, Row, WIDTH},
    words::{read_names, read_priority, run_state},
};
use crate::{Cursor, Epoch, Page, Payload, RunEnd, RunFilter, RunPage, RunRef, RunView};
use outlast_model::{RunId, TenantId, Wall, run::RunState};
use rusqlite::{Row as SqlRow, ToSql, types::Value};
use std::sync::Arc;

/// What a run was started as.
struct Started {
    queue: Arc<str>,
    workflow: Arc<str>,
    version: Arc<str>,
    created_at: Wall,
}

impl Started {
    fn read(row: &SqlRow<'_>, first: usize) -> rusqlite::Result<Started> {
        Ok(Started {
            queue: row.get::<_, String>(first)?.into(),
            workflow: row.get::<_, String>(first + 1)?.into(),
            version: row.get::<_, String>(first + 2)?.into(),
            created_at: Wall(row.get(first + 3)?),
        })
    }
}

/// A run as it stands in this row.
pub(super) fn of(cx: Cx<'_>, name: &RunRef, row: &Row) -> Outcome<RunView> {
    let mut find = cx.db.prepare_cached(
        "SELECT queue, workflow, version, (SELECT created_at FROM runs WHERE run = ?2) FROM lanes WHERE lane = ?1",
    )?;
    let started = find.query_row([row.lane, row.run], |row| Started::read(row, 0))?;
    view(cx, name.clone(), row, started)
}

fn view(cx: Cx<'_>, run: RunRef, row: &Row, started: Started) -> Outcome<RunView> {
    let Started { queue, workflow, version, created_at } = started;
    let head = &row.head;
    Ok(RunView {
        run,
        queue,
        workflow,
        version,
        priority: read_priority(cx, row.priority)?,
        unclaimed: row.unclaimed,
        state: head.state,
        since: row.since,
        epoch: Epoch(head.epoch),
        worker: row.worker.as_deref().map(Arc::from),
        lease_until: (head.state == RunState::Running).then_some(head.lease_until),
        due: head.due.filter(|_| !row.unclaimed),
        cancelling: head.cancelling,
        barren: head.barren,
        waits_at: row.waits_at.as_deref().map(Arc::from),
        waits_for: row.waits_for.as_deref().map_or_else(|| Ok(Vec::new()), |text| read_names(cx, text))?,
        parked: row.parked.clone(),
        steps: row.steps.unsigned_abs(),
        last_step: row.last_step.clone(),
        spent: head.spent,
        cost_max: head.cost_max,
        deadline: head.deadline,
        created_at,
        updated_at: row.updated_at(),
        ended_at: row.ended_at,
    })
}

pub(super) fn one(cx: Cx<'_>, name: &RunRef) -> Outcome<Option<RunView>> {
    match runs::find(cx, name)? {
        Some(row) => of(cx, name, &row).map(Some),
        None => Ok(None),
    }
}

pub(super) fn input(cx: Cx<'_>, name: &RunRef) -> Outcome<Option<Payload>> {
    match runs::find(cx, name)?.filter(|row| !row.is_bare(cx)) {
        Some(row) => runs::payload(cx, name, row.run, Part::Input).map(Some),
        None => Ok(None),
    }
}

pub(super) fn end(cx: Cx<'_>, name: &RunRef) -> Outcome<Option<RunEnd>> {
    match runs::find(cx, name)?.filter(|row| row.head.state.is_final()) {
        Some(row) => Ok(Some(RunEnd { state: row.head.state, output: runs::output(cx, name, &row)? })),
        None => Ok(None),
    }
}

pub(super) fn list(cx: Cx<'_>, filter: &RunFilter, page: Page) -> Outcome<RunPage> {
    let RunFilter { tenant, state, queue, workflow } = filter;
    let size = page.size.clamp(1, Page::LARGEST) as usize;
    let before = page.after.map_or(i64::MAX, |Cursor(after)| after);
    let mut sql = format!(
        "SELECT {}, runs.tenant, id, queue, workflow, version, created_at FROM runs JOIN lanes USING (lane)
         WHERE run < ?1 AND coalesce(ended_at > ?2, 1)",
        runs::COLUMNS
    );
    let mut values = vec![Value::from(before), Value::from(cx.before(cx.limits.key_keep))];
    let text = |text: &str| Value::from(text.to_owned());
    for (column, value) in [
        ("runs.tenant", tenant.as_ref().map(|tenant| text(tenant.as_str()))),
        ("state", state.map(|state| Value::from(run_state(state)))),
        ("queue", queue.as_deref().map(text)),
        ("workflow", workflow.as_deref().map(text)),
    ] {
        if let Some(value) = value {
            values.push(value);
            sql.push_str(&format!(" AND {column} = ?{}", values.len()));
        }
    }
    values.push(Value::from(size as i64 + 1));
    sql.push_str(&format!(" ORDER BY run DESC LIMIT ?{}", values.len()));
    let values: Vec<&dyn ToSql> = values.iter().map(|value| value as &dyn ToSql).collect();
    let mut find = cx.db.prepare_cached(&sql)?;
    let mut rows = find.query(values.as_slice())?;
    let mut page = RunPage { runs: Vec::new(), next: None };
    let mut last = None;
    while let Some(found) = rows.next()? {
        if page.runs.len() == size {
            page.next = last.map(Cursor);
            break;
        }
        let row = Row::read(cx, found)?;
        let (tenant, id): (String, String) = (found.get(WIDTH)?, found.get(WIDTH + 1)?);
        let name = RunRef { tenant: TenantId::new(tenant), id: RunId::new(id) };
        last = Some(row.run);
        page.runs.push(view(cx, name, &row, Started::read(found, WIDTH + 2)?)?);
    }
    Ok(page)
}
