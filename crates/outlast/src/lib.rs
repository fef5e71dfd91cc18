//! Outlast: the server and the command line. The only crate that touches the world.

pub mod alerts;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod failpoint;
pub mod fake;
pub mod gateway;
pub(crate) mod notify;
pub mod telemetry;
