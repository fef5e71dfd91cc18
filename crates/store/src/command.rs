//! What a store can be told and asked, by what it is about, and its answers.

pub mod audit;
pub mod cache;
pub mod calls;
pub mod confirmations;
pub mod deliveries;
pub mod escalations;
pub mod notices;
pub mod queue;
pub mod runs;
pub mod steps;
pub mod upkeep;

pub use audit::{AuditEntry, AuditFilter, AuditPage, AuditVerified, Audited};
pub use cache::{Recall, Remember, Remembered};
pub use calls::{BeginCall, Begun, CallEnd, EndCall, RenewCall};
pub use confirmations::{AskConfirmation, Asked, TakeConfirmation, Taken};
pub use deliveries::{Delivered, Delivery, DueDeliveries, Occasion, Retried, RetryDelivery};
pub use escalations::{
    About, Cursor, DecideEscalation, Decided, Decision, DueEscalation, DueEscalations, Escalation, EscalationFilter,
    EscalationMoved, EscalationPage, EscalationState, EscalationSummary, OpenEscalation, Opened, Origin, Page, Parking,
};
pub use notices::{DueNotices, Notice, Noticed, RetryNotice};
pub use queue::{
    ClaimQueued, ClaimedItem, CompleteQueued, Enqueue, Enqueued, FailQueued, QueueState, QueuedView, ReleaseQueued,
    RenewQueued,
};
pub use runs::{
    Accepts, BeatRun, Beaten, CancelRun, Cancelling, ClaimRun, ClaimedRun, DrainWorker, FinishRun, IfParked,
    JournalPage, MigrateRun, QueueDepth, ReleaseRun, RunEnd, RunFilter, RunPage, RunRef, RunView, SeeWorker, SignalRun,
    Signalled, StartRun, Started, Until, WaitRun, Waited, WorkerView,
};
pub use steps::{BeginStep, ClaimUnknown, EndStep, Place, RenewStep, StepBegun, StepEnded, StepView, UnknownEffect};
pub use upkeep::{BackedUp, Checked, StoreHealth, Swept};
