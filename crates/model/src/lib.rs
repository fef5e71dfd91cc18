//! The vocabulary of Outlast, valid by construction.
//!
//! Every other crate speaks in these words and none of them is imported here: no IO, no clock, no
//! decision. `docs/glossary.md` sets each word beside the field's.

pub mod failure;
pub mod finding;
pub mod id;
pub mod money;
pub mod policy;
pub mod record;
pub mod run;
pub mod time;
pub mod turn;

pub use failure::{Failure, FailureReport};
pub use finding::{Brief, Findings, Gate, Mend, Problem};
pub use id::{ProviderId, RequestId, RouteId, RunId, StepName, TargetId, TenantId, ToolName, WorkflowName};
pub use money::{Price, Usd};
pub use time::{Mono, Wall};
