//! Outlast's decisions, sans IO: state machines that are given an event and a time and answer with
//! actions. Nothing here opens a payload, reads a clock, draws entropy or waits.
//!
//! A [`Call`] is one request: its task owns it. The [`Fleet`] is the health of all targets, shared by
//! every call behind one lock that is held for one `handle`. The host performs actions and feeds
//! events back; the simulator does the same in virtual time.

mod backoff;
mod budget;
pub mod call;
pub mod fleet;
pub mod run;
pub mod vote;

pub use call::{Action, Ask, Backstopped, Call, CallId, Event, RetryAdvice, Settlement, Source, Spent, Validated};
pub use fleet::{
    AlarmView, Alert, BoundRoute, Fleet, FleetAction, FleetEvent, QualityView, ReplyQuality, RouteQuality, Signal,
    SignalView, TargetIx, TargetState, TargetView,
};
