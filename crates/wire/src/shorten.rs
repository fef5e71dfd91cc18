//! An input made to fit: the oldest turns go first.

use crate::{Inbound, inbound::object_estimate};
use outlast_model::{
    policy::{Contract, Keep},
    turn::{Part, Request, Role, Turn},
};
use serde_json::value::RawValue;

/// The turns that go, oldest first, so that the input is at most `limit` tokens by this crate's own estimate; `more`
/// tokens are added to the request besides. `None`: it cannot be made to fit.
///
/// What goes goes as a round: what a user said and everything up to the next thing a user said, so that a tool's
/// result never loses its call and the conversation still begins with the user. Instructions and the last round stay,
/// and where the contract keeps tool results every round with tool traffic does.
pub(crate) fn dropped(
    inbound: &Inbound,
    hub: &Request,
    contract: &Contract,
    limit: u32,
    more: u32,
) -> Option<Vec<bool>> {
    let mut left = inbound.input_tokens().saturating_add(more);
    let mut gone = vec![false; hub.turns.len()];
    if left <= limit {
        return Some(gone);
    }
    let messages: Vec<&RawValue> = serde_json::from_str(inbound.value("messages")?).ok()?;
    // Anthropic's `system` is a turn of the hub form and no message.
    let shift = hub.turns.len().checked_sub(messages.len())?;
    let keeps_tools = contract.keeps.contains(&Keep::ToolResults);
    let rounds = rounds(&hub.turns);
    for round in rounds.split_last().map_or(&[][..], |(_, earlier)| earlier) {
        let turns = || round.clone().filter(|at| !is_instruction(&hub.turns[*at]));
        if keeps_tools && turns().any(|at| hub.turns[at].parts.iter().any(is_tool_traffic)) {
            continue;
        }
        for at in turns().filter(|at| *at >= shift) {
            gone[at] = true;
            // Rounded down: many small messages must not free more than they had together.
            left = left.saturating_sub(object_estimate(messages[at - shift].get()).saturating_sub(1));
        }
        if left <= limit {
            return Some(gone);
        }
    }
    None
}

/// Where each round begins and ends. What comes before the first user turn is a round too.
fn rounds(turns: &[Turn]) -> Vec<std::ops::Range<usize>> {
    let begins = |turn: &Turn| turn.role == Role::User && !turn.parts.iter().any(is_tool_traffic);
    let mut starts: Vec<usize> = (0..turns.len()).filter(|at| begins(&turns[*at])).collect();
    if starts.first() != Some(&0) {
        starts.insert(0, 0);
    }
    let ends = starts.iter().skip(1).copied().chain([turns.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

fn is_instruction(turn: &Turn) -> bool {
    matches!(turn.role, Role::System | Role::Developer)
}

/// Whether a part is a call or a result of a tool, the provider's own included.
pub(crate) fn is_tool_traffic(part: &Part) -> bool {
    match part {
        Part::ToolCall(_) | Part::ToolResult { .. } => true,
        Part::Opaque { kind, .. } => {
            ["custom", "function_call"].contains(&&**kind) || kind.contains("tool_use") || kind.contains("tool_result")
        }
        Part::Text { .. }
        | Part::Image { .. }
        | Part::Reasoning { .. }
        | Part::RedactedReasoning { .. }
        | Part::Refusal { .. } => false,
    }
}
