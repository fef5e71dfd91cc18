//! Runs: durable pieces of agent work, from their start to long after their end.
//!
//! A run belongs to a tenant and is named within it. What decides about it is [`outlast_engine::run`]; a back end carries
//! that out inside the transaction that writes what it comes to.

use crate::{Epoch, Payload, StepView};
use outlast_engine::run::MayNotBegin;
use outlast_model::{
    RunId, TenantId, Usd, Wall,
    policy::Priority,
    run::{EscalationKind, RunState},
};
use std::{sync::Arc, time::Duration};

/// Which run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunRef {
    /// Whose.
    pub tenant: TenantId,
    /// Its name there.
    pub id: RunId,
}

/// What a person is told if a command leads to one. It is kept only then, in the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfParked {
    /// The escalation's id: the caller's, random.
    pub id: Arc<str>,
    /// What the person is asked. May quote the work, so it is kept like a payload.
    pub question: Arc<str>,
    /// What the person needs beside the journal and the effect's state, which are looked up.
    pub context: Payload,
    /// Nobody answered by then: the next level hears of it. None: it waits.
    pub answer_within: Option<Duration>,
}

/// Start a run. Repeated with the same id, or the same key, it starts nothing new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartRun {
    /// Which.
    pub run: RunRef,
    /// The client's `Idempotency-Key`, and the hash of what it asked. The same key with another hash is a mismatch.
    pub key: Option<(Arc<str>, [u8; 32])>,
    /// Whose workers do it.
    pub queue: Arc<str>,
    /// What is to be done: the name of a workflow. It is pinned to this version.
    pub workflow: Arc<str>,
    /// Of which version.
    pub version: Arc<str>,
    /// Its place in the order.
    pub priority: Priority,
    /// Nobody claims it before this has passed.
    pub after: Duration,
    /// Nothing begins later than this after its start.
    pub deadline: Option<Duration>,
    /// Nothing begins once so much is spent.
    pub cost_max: Option<Usd>,
    /// A program journals to it without claims: no worker is given it, and it never waits to be claimed.
    pub unclaimed: bool,
    /// What it works on.
    pub input: Payload,
}

/// Whether it was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// It was.
    New,
    /// It had been: under this id.
    Before(RunId),
    /// The key, or the id, stands for something else.
    Mismatch,
}

/// Claim the most urgent run that is due, then the one that has been due longest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRun {
    /// Whose runs; of all.
    pub tenant: Option<TenantId>,
    /// Who claims: random per process, never a host's name. A worker not seen before is registered by this.
    pub worker: Arc<str>,
    /// Of which queues.
    pub queues: Vec<Arc<str>>,
    /// Which workflows and versions it can do; empty: all.
    pub accepts: Vec<Accepts>,
    /// How long the claim stands unless it is renewed.
    pub lease: Duration,
    /// It only steps in: for runs whose holder was lost, or where no other worker of the queue has been seen for
    /// [`crate::Limits::worker_gone`].
    pub standby: bool,
    /// Entries of the journal to be given along, at most [`JournalPage::LARGEST`].
    pub journal: u32,
    /// If the run turns out to be poison.
    pub if_parked: IfParked,
}

/// What a worker can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// A workflow's name.
    pub workflow: Arc<str>,
    /// These versions; empty: all.
    pub versions: Vec<Arc<str>>,
}

/// A claimed run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedRun {
    /// As it stands now.
    pub run: RunView,
    /// The claim: whatever is written names it.
    pub epoch: Epoch,
    /// What it works on.
    pub input: Payload,
    /// The beginning of its journal.
    pub journal: JournalPage,
}

/// Part of a run's journal, in the order its steps were first begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalPage {
    /// Its entries.
    pub steps: Vec<StepView>,
    /// Where the next page begins, if there is one.
    pub next: Option<i64>,
}

impl JournalPage {
    /// More entries are never given at once.
    pub const LARGEST: u32 = 500;
    /// Nor more bytes of results, the first entry excepted.
    pub const BYTES: u64 = 4 << 20;
}

/// A run as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunView {
    /// Which.
    pub run: RunRef,
    /// As it was started.
    pub queue: Arc<str>,
    /// As it was started.
    pub workflow: Arc<str>,
    /// As it was started, or migrated to.
    pub version: Arc<str>,
    /// As it was started.
    pub priority: Priority,
    /// As it was started.
    pub unclaimed: bool,
    /// Where it stands. One whose lease ran out is still `running` until it is claimed: `lease_until` tells.
    pub state: RunState,
    /// When it came to that state, or was claimed last.
    pub since: Wall,
    /// Its last claim.
    pub epoch: Epoch,
    /// Who claimed it last.
    pub worker: Option<Arc<str>>,
    /// That claim stands until then.
    pub lease_until: Option<Wall>,
    /// It can be claimed from then on.
    pub due: Option<Wall>,
    /// It is to be cancelled.
    pub cancelling: bool,
    /// Claims since anything new was written to its journal.
    pub barren: u32,
    /// The wait, approval or effect it waits at: the step's key.
    pub waits_at: Option<Arc<str>>,
    /// The signals it waits for.
    pub waits_for: Vec<Arc<str>>,
    /// Why it waits for a person, and the escalation's id.
    pub parked: Option<(EscalationKind, Arc<str>)>,
    /// Steps in its journal.
    pub steps: u64,
    /// The step begun last.
    pub last_step: Option<Arc<str>>,
    /// What its steps cost.
    pub spent: Usd,
    /// As it was started.
    pub cost_max: Option<Usd>,
    /// Nothing begins later.
    pub deadline: Option<Wall>,
    /// When it was started.
    pub created_at: Wall,
    /// When anything was last written to it, heartbeats apart.
    pub updated_at: Wall,
    /// When it ended.
    pub ended_at: Option<Wall>,
}

/// Keep a run's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeatRun {
    /// Which.
    pub run: RunRef,
    /// The claim.
    pub epoch: Epoch,
    /// How long it stands from now.
    pub lease: Duration,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Beaten {
    /// The lease goes on.
    Held,
    /// It does, and the run is to be cancelled.
    Cancel,
    /// It does, and its worker is to claim nothing more.
    Drain,
    /// It is somebody else's, or over.
    Lost,
}

/// Give a run up until something comes: a signal of one of these names, or the timer. Looked for and registered in one
/// transaction: a signal that came before is not missed. The claim ends with it, unless it is ready at once.
///
/// The wait is a step of the journal: what ended it is its result, and asking again with the same key replays it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitRun {
    /// Which.
    pub run: RunRef,
    /// The claim.
    pub epoch: Epoch,
    /// The step's key.
    pub key: Arc<str>,
    /// The signals' names, any of them.
    pub signals: Vec<Arc<str>>,
    /// When it ends without one. The first one given for the key stands.
    pub timer: Option<Until>,
}

/// When a timer goes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// So long after now.
    In(Duration),
    /// Then.
    At(Wall),
}

/// What became of a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A signal is there, or was when it was first waited for.
    Signal {
        /// Its name.
        name: Arc<str>,
        /// What it carries.
        payload: Payload,
    },
    /// The timer went off.
    Timer,
    /// It waits now, and is given back.
    Parked,
    /// The key stands for another kind of step.
    Mismatch,
    /// No.
    Refused(MayNotBegin),
}

/// Tell a run something. It is kept until it is waited for, however early it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalRun {
    /// Which.
    pub run: RunRef,
    /// The sender's: the same again is the same signal.
    pub dedupe: Arc<str>,
    /// What is waited for.
    pub name: Arc<str>,
    /// What it carries.
    pub payload: Payload,
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// It is kept, or given on.
    Accepted,
    /// It had been.
    Before,
    /// The run is over.
    Over,
    /// There is no such run.
    Unknown,
    /// Too many of its signals wait: [`crate::Limits::signals`].
    Full,
}

/// Give a run back without an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRun {
    /// Which.
    pub run: RunRef,
    /// The claim.
    pub epoch: Epoch,
    /// Nobody claims it before this has passed.
    pub after: Duration,
}

/// End a run. The same end again is [`crate::Fenced::Held`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishRun {
    /// Which.
    pub run: RunRef,
    /// The claim; none for a run that is journaled without claims.
    pub epoch: Option<Epoch>,
    /// How: `done`, `failed` or `cancelled`.
    pub state: RunState,
    /// Its result or its error.
    pub output: Payload,
}

/// Cancel a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRun {
    /// Which.
    pub run: RunRef,
    /// Who wants it: a caller's hash or a reviewer's name. For the audit.
    pub by: Arc<str>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelling {
    /// It is over.
    Cancelled,
    /// Whoever holds or claims it hears of it, and undoes first.
    Asked,
    /// It was over before.
    Over(RunState),
    /// There is no such run.
    Unknown,
}

/// Pin a run to another version. It must not be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrateRun {
    /// Which.
    pub run: RunRef,
    /// To which version.
    pub version: Arc<str>,
    /// Who wants it. For the audit.
    pub by: Arc<str>,
}

/// Which runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of this tenant; of all.
    pub tenant: Option<TenantId>,
    /// In this state; in any.
    pub state: Option<RunState>,
    /// Of this queue; of any.
    pub queue: Option<Arc<str>>,
    /// Of this workflow; of any.
    pub workflow: Option<Arc<str>>,
}

/// Part of the list of runs, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPage {
    /// The entries.
    pub runs: Vec<RunView>,
    /// Where the next page begins, if there is one.
    pub next: Option<crate::Cursor>,
}

/// A run's result or error, once it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// `done`, `failed` or `cancelled`.
    pub state: RunState,
    /// As [`FinishRun::output`]; empty once it is no longer kept.
    pub output: Payload,
}

/// A worker announces itself, or says once more that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeeWorker {
    /// Whose; none is Outlast's own.
    pub tenant: Option<TenantId>,
    /// Random per process, never a host's name.
    pub worker: Arc<str>,
    /// What it is called by people.
    pub label: Arc<str>,
    /// Of which queues it claims.
    pub queues: Vec<Arc<str>>,
    /// What it can do; empty: all.
    pub accepts: Vec<Accepts>,
    /// It only steps in.
    pub standby: bool,
}

/// Tell a worker to claim nothing more; or forget it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainWorker {
    /// Whose; of all.
    pub tenant: Option<TenantId>,
    /// Which.
    pub worker: Arc<str>,
    /// It is gone: forget it. Its runs are claimed by others when their leases run out.
    pub gone: bool,
}

/// A worker as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Whose; none is Outlast's own.
    pub tenant: Option<TenantId>,
    /// Which.
    pub worker: Arc<str>,
    /// What it is called by people.
    pub label: Arc<str>,
    /// Of which queues it claims.
    pub queues: Vec<Arc<str>>,
    /// What it can do; empty: all.
    pub accepts: Vec<Accepts>,
    /// It only steps in.
    pub standby: bool,
    /// It is to claim nothing more.
    pub draining: bool,
    /// When it was first seen.
    pub since: Wall,
    /// When it last claimed, beat or announced itself.
    pub seen_at: Wall,
    /// The runs it holds, at most 100 of them, with the step each is at.
    pub holds: Vec<(RunRef, Option<Arc<str>>)>,
}

impl WorkerView {
    /// More workers are never given at once.
    pub const AT_ONCE: usize = 1_000;
    /// More workers are never kept: another one is refused with [`crate::StoreError::LimitReached`].
    pub const MOST: usize = 10_000;
    /// More of the runs it holds are never told.
    pub const HOLDS: usize = 100;
    /// A worker is forgotten when it has not been seen for so many times [`crate::Limits::worker_gone`].
    pub const KEPT: u32 = 60;
}

/// What waits and what is late, for the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDepth {
    /// Which queue.
    pub queue: Arc<str>,
    /// Which workflow.
    pub workflow: Arc<str>,
    /// Which version.
    pub version: Arc<str>,
    /// Runs that could be claimed now, lost ones among them.
    pub due: u64,
    /// Since when the oldest of them could be.
    pub oldest_due: Option<Wall>,
    /// Runs that are held.
    pub running: u64,
    /// Runs whose holder's lease ran out and that nobody has claimed yet.
    pub lost: u64,
    /// Runs that wait for a timer or a signal.
    pub waiting: u64,
    /// Runs that wait for a person.
    pub parked: u64,
}

impl QueueDepth {
    /// More of them are never given at once.
    pub const AT_ONCE: usize = 1_000;
}
