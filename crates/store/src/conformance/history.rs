//! Random histories.
//!
//! Commands name small numbers, so that they meet: the same keys, the same requests, claims made a few commands ago. A
//! claim is named by how many claims ago it was made, so that a history can be cut anywhere and still makes sense.

use super::{
    people::{EscalationOp, escalation_op},
    runs::{RunOp, WorkerOp, run_op, worker_op},
    steps::{StepOp, step_op},
};
use fastrand::Rng;
use std::time::Duration;

/// One command, or one thing that happens to a store. The numbers pick from small pools.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum Op {
    Advance { millis: i64 },
    Crash,
    Call(CallOp),
    Queue(QueueOp),
    Outbox(OutboxOp),
    Cache(CacheOp),
    Escalation(EscalationOp),
    Confirm(ConfirmOp),
    Run(RunOp),
    Step(StepOp),
    Worker(WorkerOp),
    Sweep { limit: u32 },
    Health,
}

/// Idempotent calls.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum CallOp {
    Begin { tenant: u8, key: u8, fingerprint: u8, lease: Duration, keep: Duration },
    Renew { claim: u8, lease: Duration },
    End { claim: u8, end: u8, size: u8 },
}

/// The queue.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum QueueOp {
    Enqueue { tenant: u8, id: u8, route: u8, priority: u8, size: u8, expires_in: Duration, webhook: bool },
    Claim { routes: Vec<u8>, lease: Duration },
    Renew { claim: u8, lease: Duration },
    Complete { claim: u8, size: u8 },
    Fail { claim: u8, size: u8 },
    Release { claim: u8, after: Duration },
    View { tenant: u8, id: u8 },
}

/// The webhook outbox.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum OutboxOp {
    Due { lease: Duration, limit: u32 },
    Delivered { claim: u8 },
    Retry { claim: u8, after: Duration },
}

/// Good replies.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum CacheOp {
    Remember { tenant: u8, route: u8, fingerprint: u8, size: u8, keep: Duration },
    Recall { tenant: u8, route: u8, fingerprint: u8, max_age: Duration },
}

/// Questions to users.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum ConfirmOp {
    Ask { token: u8, tenant: u8, fingerprint: u8, expires_in: Duration },
    Take { token: u8, tenant: u8, fingerprint: u8 },
}

/// What a history is about. Each is short enough to meet all of what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Calls, the queue, the cache, escalations of calls.
    Gateway,
    /// Runs, steps, effects, workers, and escalations of those.
    Runs,
}

/// The history of a seed.
pub fn history(theme: Theme, seed: u64, length: usize) -> Vec<Op> {
    let mut rng = Rng::with_seed(seed);
    let mut ops: Vec<Op> = Vec::with_capacity(length);
    for _ in 0..length {
        // An answer that was lost is asked for again.
        let repeated = if rng.u8(..12) == 0 { ops.last().filter(|op| **op != Op::Crash).cloned() } else { None };
        ops.push(repeated.unwrap_or_else(|| match theme {
            Theme::Gateway => op(&mut rng),
            Theme::Runs => op_about_runs(&mut rng),
        }));
    }
    ops
}

fn op(rng: &mut Rng) -> Op {
    match rng.u8(..100) {
        0..14 => Op::Advance { millis: jump(rng) },
        14..16 => Op::Crash,
        16..34 => Op::Call(call_op(rng)),
        34..64 => Op::Queue(queue_op(rng)),
        64..70 => Op::Cache(cache_op(rng)),
        70..85 => Op::Escalation(escalation_op(rng)),
        85..89 => Op::Confirm(confirm_op(rng)),
        89..96 => Op::Outbox(outbox_op(rng)),
        96..98 => Op::Sweep { limit: rng.u32(..12) },
        _ => Op::Health,
    }
}

fn op_about_runs(rng: &mut Rng) -> Op {
    match rng.u8(..100) {
        0..15 => Op::Advance { millis: jump(rng) },
        15..17 => Op::Crash,
        17..52 => Op::Run(run_op(rng)),
        52..89 => Op::Step(step_op(rng)),
        89..93 => Op::Worker(worker_op(rng)),
        93..97 => Op::Escalation(escalation_op(rng)),
        97..99 => Op::Sweep { limit: rng.u32(..12) },
        _ => Op::Health,
    }
}

fn call_op(rng: &mut Rng) -> CallOp {
    match rng.u8(..9) {
        0..5 => CallOp::Begin {
            tenant: rng.u8(..3),
            key: rng.u8(..4),
            fingerprint: u8::from(rng.u8(..8) == 0),
            lease: short(rng),
            keep: long(rng),
        },
        5 => CallOp::Renew { claim: recent(rng), lease: short(rng) },
        _ => CallOp::End { claim: recent(rng), end: rng.u8(..4), size: size(rng) },
    }
}

fn queue_op(rng: &mut Rng) -> QueueOp {
    match rng.u8(..35) {
        0..9 => QueueOp::Enqueue {
            tenant: rng.u8(..3),
            id: rng.u8(..12),
            route: rng.u8(..3),
            priority: rng.u8(..4),
            size: size(rng),
            expires_in: long(rng),
            webhook: rng.u8(..3) != 0,
        },
        9..18 => {
            let routes = (0..3).filter(|_| rng.u8(..4) != 0).collect();
            QueueOp::Claim { routes, lease: short(rng) }
        }
        18..20 => QueueOp::Renew { claim: recent(rng), lease: short(rng) },
        20..26 => QueueOp::Complete { claim: recent(rng), size: size(rng) },
        26..28 => QueueOp::Fail { claim: recent(rng), size: size(rng) },
        28..30 => QueueOp::Release { claim: recent(rng), after: short(rng) },
        _ => QueueOp::View { tenant: rng.u8(..3), id: rng.u8(..12) },
    }
}

fn outbox_op(rng: &mut Rng) -> OutboxOp {
    match rng.u8(..7) {
        0..3 => OutboxOp::Due { lease: short(rng), limit: rng.u32(..3) },
        3..5 => OutboxOp::Delivered { claim: recent(rng) },
        _ => OutboxOp::Retry { claim: recent(rng), after: short(rng) },
    }
}

fn cache_op(rng: &mut Rng) -> CacheOp {
    let (tenant, route, fingerprint) = (rng.u8(..3), rng.u8(..2), rng.u8(..3));
    if rng.u8(..7) < 4 {
        CacheOp::Remember { tenant, route, fingerprint, size: size(rng), keep: long(rng) }
    } else {
        CacheOp::Recall { tenant, route, fingerprint, max_age: long(rng) }
    }
}

fn confirm_op(rng: &mut Rng) -> ConfirmOp {
    let (token, tenant, fingerprint) = (rng.u8(..6), rng.u8(..3), rng.u8(..2));
    if rng.bool() {
        ConfirmOp::Ask { token, tenant, fingerprint, expires_in: long(rng) }
    } else {
        ConfirmOp::Take { token, tenant, fingerprint }
    }
}

/// Mostly a little forward; now and then far, or back, as clocks do that are set.
fn jump(rng: &mut Rng) -> i64 {
    match rng.u8(..20) {
        0..8 => rng.i64(0..50),
        8..16 => rng.i64(50..1_500),
        16..18 => rng.i64(1_500..12_000),
        18 => 100_000,
        _ => -rng.i64(0..2_000),
    }
}

pub(super) fn short(rng: &mut Rng) -> Duration {
    Duration::from_millis([0, 40, 300, 1_000, 4_000][rng.usize(..5)])
}

pub(super) fn long(rng: &mut Rng) -> Duration {
    Duration::from_millis([0, 500, 2_000, 10_000, 60_000, 60_000][rng.usize(..6)])
}

/// Mostly the last claim, sometimes one long lost.
pub(super) fn recent(rng: &mut Rng) -> u8 {
    if rng.u8(..3) == 0 { rng.u8(..8) } else { 0 }
}

/// Bytes of payload; now and then one too many.
pub(super) fn size(rng: &mut Rng) -> u8 {
    if rng.u8(..40) == 0 { 65 } else { rng.u8(..60) }
}
