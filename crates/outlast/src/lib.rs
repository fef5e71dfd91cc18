//! Outlast: the server and the command line. The only crate that touches the world.

pub mod cli;
pub mod config;
