//! Opens payloads, never decides.
//!
//! A request comes in through [`inbound`], which reads its top level once and can then *adapt* it to any target:
//! same dialect by splicing bytes, other dialect through the hub form of `outlast_model::turn`. What comes back is
//! read by [`reply`] (whole) or [`stream`] (frame by frame) and leaves in the client's dialect. [`crossing`] says
//! what a crossing cannot carry.

pub mod check;
pub mod classify;
pub mod crossing;
pub mod error;
pub mod inbound;
pub mod note;
pub mod probe;
pub mod reply;
pub mod stream;
pub mod tokens;

pub use inbound::{Adapt, Adapted, Inbound, RequestError, Unsupported};
pub use reply::Answer;
pub use stream::{Piece, PieceKind, StreamEnd, StreamReader};
