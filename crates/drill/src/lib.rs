//! Rehearsal: the one fault vocabulary, and (growing) the simulator in virtual time.

pub mod fault;

pub use fault::{Fault, FaultPlan};
