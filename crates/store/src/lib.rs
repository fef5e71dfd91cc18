//! Durable facts. The telemetry file is the first of them: what happened to each call that was not plain, and exact
//! counts of all of them. No payload is ever stored here.

pub mod telemetry;
