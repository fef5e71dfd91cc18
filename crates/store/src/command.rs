//! What a store can be told and asked, by what it is about, and its answers.

pub mod cache;
pub mod calls;
pub mod confirmations;
pub mod deliveries;
pub mod escalations;
pub mod queue;
pub mod runs;
pub mod steps;
pub mod upkeep;

pub use cache::{Recall, Remember, Remembered};
pub use calls::{BeginCall, Begun, CallEnd, EndCall, RenewCall};
pub use confirmations::{AskConfirmation, Asked, TakeConfirmation, Taken};
pub use deliveries::{Delivered, Delivery, DueDeliveries, Occasion, Retried, RetryDelivery};
pub use escalations::{
    Cursor, DecideEscalation, Decided, Decision, Escalation, EscalationFilter, EscalationPage, EscalationState,
    EscalationSummary, OpenEscalation, Opened, Page,
};
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
