//! Rehearsal: the one fault vocabulary, and (growing) the simulator in virtual time.

pub mod fault;
pub mod sim;

pub use fault::{Fault, FaultPlan};
