//! What is asked, whether it may be, and whether it was done before.

use super::{
    super::{Shared, live::Live},
    Denied, Performed, ToolCall,
};
use std::sync::Arc;

/// Calls a tool, or says what became of the same call before.
pub(crate) async fn perform(_shared: &Arc<Shared>, _live: &Arc<Live>, _call: ToolCall) -> Performed {
    Performed::Denied(Denied::NoSuchTool)
}
