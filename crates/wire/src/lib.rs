//! Opens payloads, never decides.
//!
//! A request comes in through [`inbound`], which reads its top level once and can then *adapt* it to any target:
//! same dialect by splicing bytes, other dialect through the hub form of `outlast_model::turn`. What comes back is
//! read by [`reply`] (whole) or [`stream`] (frame by frame) and leaves in the client's dialect. [`crossing`] says
//! what a crossing cannot carry.

mod adapt;
pub mod agree;
mod anthropic;
mod asked;
pub mod check;
pub mod classify;
pub mod compose;
pub mod contract;
pub mod crossing;
mod document;
pub mod error;
pub mod fingerprint;
pub mod inbound;
mod json;
pub mod judge;
mod lax;
mod mend;
pub mod note;
mod openai_chat;
mod path;
pub mod plan;
pub mod probe;
mod put;
#[cfg(test)]
mod recorded;
mod repair;
pub mod reply;
mod said;
mod scan;
mod schema;
mod shape;
mod shorten;
mod splice;
mod sse;
pub mod stream;
mod strict;
pub mod template;
pub mod tokens;
mod tools;
mod traffic;

pub use adapt::{Adapt, Adapted, Put, Unsupported};
pub use anthropic::MAX_TOKENS_DEFAULT;
pub use asked::{OutlastObject, SOURCES_MAX};
pub use document::DocumentSchema;
pub use inbound::{Inbound, RequestError};
pub use reply::Answer;
pub use said::{ARGUMENTS_BYTES_MAX, COLLECT_BYTES_MAX};
pub use shape::Shape;
pub use sse::EVENT_LEN_MAX;
pub use stream::{HELD_BYTES_MAX, Piece, PieceKind, StreamEnd, StreamReader};
pub use tools::Offer;
