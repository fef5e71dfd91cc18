//! Durable facts.
//!
//! [`Store`] is the contract: what Outlast must not forget, as commands of its own domain, each one atomic and safe to
//! repeat. [`MemoryStore`] keeps the facts as long as the process lives and is the model that others are compared with;
//! [`SqliteStore`] keeps them in one file. [`conformance`] is what every back end has to pass. `docs/store.md` says
//! what is promised and what happens at each limit.
//!
//! [`telemetry`] is another file with weaker promises: what happened to calls, without any payload.

pub mod command;
pub mod conformance;
pub mod contract;
pub mod error;
pub mod limits;
pub mod memory;
pub mod seal;
pub mod sqlite;
pub mod telemetry;

pub use command::*;
pub use contract::{Answer, Clock, Epoch, Fenced, Payload, PeopleStore, RunStore, Store};
pub use error::StoreError;
pub use limits::{Bound, Limits, Room};
pub use memory::MemoryStore;
pub use seal::{DataKey, Sealer, Sealing};
pub use sqlite::{Access, SqliteOptions, SqliteStore};
