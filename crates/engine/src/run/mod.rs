//! A run: durable agent work, decided one transaction at a time.
//!
//! The files follow its journey: [`claim`] (who may advance it, and until when), [`ledger`] (may this step be done, was
//! it done, what if nobody knows), [`escalate`] (what a person decides, and who is asked), [`flow`] (which step of a workflow is
//! next). The first three are pure, over the few facts that decide. A store carries them out inside the transaction that
//! writes what they come to, so that every back end decides alike, and a process may die between any two of them.

pub mod claim;
pub mod escalate;
pub mod flow;
pub mod ledger;

pub use claim::{Beat, Claimed, Head, MayNotBegin, POISON_CLAIMS};
pub use escalate::{Brings, Look, Patience, Tell, Waiting, brings, look, resolve};
pub use ledger::{Answer, Ask, Ended, Entry, Event, IfUnknown, Proof, Resolution, Why, transition};
