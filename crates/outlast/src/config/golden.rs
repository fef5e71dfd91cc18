//! `[golden.NAME]`: what every target of a route is asked again and again, to see its quality.

use outlast_model::RouteId;
use outlast_wire::contract::Gates;
use std::{sync::Arc, time::Duration};

/// An input with checkable properties. DESIGN section 9.
#[derive(Clone, Debug)]
pub struct GoldenTask {
    /// Its name.
    pub name: Arc<str>,
    /// Whose targets are asked, each in turn.
    pub route: RouteId,
    /// How often each of them is.
    pub every: Duration,
    /// The request, as an openai-chat body in JSON. Its `model` is the route.
    pub body: Arc<str>,
    /// What the reply has to keep, as a contract of its own.
    pub gates: Arc<Gates>,
}
