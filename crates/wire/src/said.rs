//! What a reply has said so far: the facts the checks need, and tool calls until they are whole.

use crate::{
    Answer,
    compose::{self, Called},
    stream::Broken,
    tokens,
};
use outlast_model::turn::{Delta, Finish, Usage};
use serde::de::IgnoredAny;

/// The most bytes of text and reasoning kept for the checks. What comes after is forwarded and not kept;
/// `overflowed` tells, and a reply that had to be validated whole then fails its check.
pub const COLLECT_BYTES_MAX: usize = 8 << 20;
/// The most bytes of arguments of all tool calls of one reply. More is a `malformed_reply`.
pub const ARGUMENTS_BYTES_MAX: usize = 8 << 20;
/// The most choices of one reply; OpenAI's own limit for `n`.
const CHOICES_MAX: u32 = 128;
/// The most tool calls of one reply. More is a `malformed_reply`.
const CALLS_MAX: usize = 128;

/// The facts of one reply.
#[derive(Debug)]
pub(crate) struct Said {
    answers: Vec<Answer>,
    slots: Vec<ToolSlot>,
    collect: bool,
    collected_bytes: usize,
    argument_bytes: usize,
    overflowed: bool,
    noted: bool,
    output_tokens: u32,
    /// Of those, what came after the provider's last account.
    uncounted_tokens: u32,
    usage: Option<Usage>,
    /// Id and model, and the ids of the first choice's calls as they closed: kept only when collecting.
    head: (String, String),
    call_ids: Vec<String>,
}

/// A tool call that is coming in.
#[derive(Debug, Default)]
pub(crate) struct ToolSlot {
    choice: u32,
    index: u32,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
    open: bool,
}

impl ToolSlot {
    /// A call that has come whole.
    pub(crate) fn whole(id: &str, name: &str, arguments: &str) -> Self {
        let arguments = input_or_empty(arguments).to_owned();
        ToolSlot { id: id.to_owned(), name: name.to_owned(), arguments, ..ToolSlot::default() }
    }
}

/// What one frame turned out to be.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Estimated tokens of output in it.
    pub(crate) tokens: u32,
    /// It has output that can be shown at once.
    pub(crate) output: bool,
    /// It has usage.
    pub(crate) usage: bool,
    /// It has a finish reason.
    pub(crate) finish: bool,
    /// It has the terminal mark.
    pub(crate) done: bool,
    /// Tool calls that began in it.
    pub(crate) opened: usize,
}

/// What ended.
#[derive(Clone, Copy)]
enum Mark {
    /// A content block.
    Block,
    /// The choice, for this reason.
    Finish(Finish),
    /// The stream.
    Done,
}

impl Said {
    pub(crate) fn new(choices: u32, collect: bool) -> Self {
        Said {
            answers: vec![Answer::default(); choices as usize],
            slots: Vec::new(),
            collect,
            collected_bytes: 0,
            argument_bytes: 0,
            overflowed: false,
            noted: false,
            output_tokens: 0,
            uncounted_tokens: 0,
            usage: None,
            head: Default::default(),
            call_ids: Vec::new(),
        }
    }

    /// Takes note of one delta. `whole` gets each tool call at the moment it is known to be whole.
    pub(crate) fn note(
        &mut self,
        choice: u32,
        delta: &Delta<'_>,
        seen: &mut Seen,
        mut whole: impl FnMut(&ToolSlot),
    ) -> Result<(), Broken> {
        if choice >= CHOICES_MAX {
            return Err(Broken::Malformed);
        }
        if choice as usize >= self.answers.len() {
            self.answers.resize(choice as usize + 1, Answer::default());
        }
        let answer = &mut self.answers[choice as usize];
        match delta {
            Delta::Start { id, model, .. } => {
                if self.collect && self.head.0.is_empty() {
                    self.head = (id.to_string(), model.to_string());
                }
                return Ok(());
            }
            Delta::Signature(_) => {}
            Delta::Text(text) => {
                seen.count(text);
                if keep(self.collect, &mut self.collected_bytes, &mut self.overflowed, text) {
                    answer.text.push_str(text);
                }
                answer.spoke = answer.spoke || text.contains(|letter: char| !letter.is_whitespace());
            }
            Delta::Reasoning(text) => {
                seen.count(text);
                answer.reasoned = true;
            }
            Delta::RedactedReasoning(_) => {
                seen.output = true;
                answer.reasoned = true;
            }
            Delta::Refusal(text) => {
                seen.count(text);
                if keep(true, &mut self.collected_bytes, &mut self.overflowed, text) {
                    answer.refusal.push_str(text);
                }
            }
            Delta::Opaque => {
                seen.output = true;
                answer.opaque = true;
            }
            Delta::ToolCall { index, id, name, arguments } => {
                self.tool_call(choice, *index, (id.as_deref(), name.as_deref(), arguments), seen, &mut whole)?;
            }
            Delta::BlockEnd => self.close(choice, Mark::Block, &mut whole)?,
            Delta::Finish { finish, .. } => {
                seen.finish = true;
                let finish =
                    if *finish == Finish::Stop && !answer.refusal.is_empty() { Finish::Refusal } else { *finish };
                answer.finish = Some(finish);
                self.close(choice, Mark::Finish(finish), &mut whole)?;
            }
            Delta::Usage(usage) => {
                seen.usage = true;
                self.usage = Some(*usage);
                return Ok(());
            }
            Delta::Done => {
                seen.done = true;
                // Without a finish reason (Snowflake sends none) the calls are known to be whole only now.
                for choice in 0..self.answers.len() {
                    self.close(choice as u32, Mark::Done, &mut whole)?;
                }
                return Ok(());
            }
        }
        self.noted = true;
        Ok(())
    }

    /// Counts a frame's output.
    pub(crate) fn counted(&mut self, seen: &Seen) {
        self.output_tokens = self.output_tokens.saturating_add(seen.tokens);
        self.uncounted_tokens = if seen.usage { 0 } else { self.uncounted_tokens.saturating_add(seen.tokens) };
    }

    /// How many tool calls are not whole.
    pub(crate) fn open_tools(&self) -> usize {
        self.slots.iter().rev().filter(|slot| slot.open).count()
    }

    /// Every choice that was asked for has its finish reason.
    pub(crate) fn all_finished(&self) -> bool {
        self.answers.iter().all(|answer| answer.finish.is_some())
    }

    /// The terminal mark may be believed: every choice that has begun has its finish reason, and one has (some
    /// servers ignore `n`); or the provider has sent its account (some never send a finish reason).
    pub(crate) fn whole(&self) -> bool {
        if self.noted && self.usage.is_some() {
            return true;
        }
        let pending = |answer: &Answer| answer.finish.is_none() && *answer != Answer::default();
        self.open_tools() == 0
            && self.answers.iter().any(|answer| answer.finish.is_some())
            && !self.answers.iter().any(pending)
    }

    /// There was a choice at all, even an empty one.
    pub(crate) fn begun(&self) -> bool {
        self.noted
    }

    pub(crate) fn finish(&self) -> Option<Finish> {
        self.answers.first().and_then(|answer| answer.finish)
    }

    pub(crate) fn answers(&self) -> &[Answer] {
        &self.answers
    }

    pub(crate) fn into_answers(self) -> Vec<Answer> {
        self.answers
    }

    /// What the first choice said, as far as it was collected.
    pub(crate) fn told(&self, usage: Usage) -> compose::Said {
        let nothing = Answer::default();
        let answer = self.answers.first().unwrap_or(&nothing);
        let calls = answer.tool_calls.iter().enumerate().map(|(at, (name, arguments))| Called {
            id: self.call_ids.get(at).cloned().unwrap_or_default(),
            name: name.clone(),
            arguments: arguments.clone(),
        });
        compose::Said {
            id: self.head.0.clone(),
            model: self.head.1.clone(),
            text: if answer.text.is_empty() { answer.refusal.clone() } else { answer.text.clone() },
            tool_calls: calls.collect(),
            finish: answer.finish.unwrap_or(Finish::Other),
            usage,
        }
    }

    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// The provider's usage; for what it has not accounted for yet, an estimate. Anthropic's streams begin with an
    /// account of the input: a stream that is cut later has not been free.
    pub(crate) fn usage(&self, input_estimate: u32) -> Usage {
        let told = self.usage.unwrap_or(Usage { input_tokens: input_estimate, estimated: true, ..Usage::default() });
        Usage {
            output_tokens: told.output_tokens.saturating_add(self.uncounted_tokens),
            estimated: told.estimated || self.uncounted_tokens > 0,
            ..told
        }
    }

    fn tool_call(
        &mut self,
        choice: u32,
        index: u32,
        (id, name, arguments): (Option<&str>, Option<&str>, &str),
        seen: &mut Seen,
        whole: &mut impl FnMut(&ToolSlot),
    ) -> Result<(), Broken> {
        seen.tokens = seen.tokens.saturating_add(tokens::estimate(arguments.as_bytes()));
        self.argument_bytes += arguments.len();
        if self.argument_bytes > ARGUMENTS_BYTES_MAX {
            return Err(Broken::Malformed);
        }
        let known = self.slots.iter().rposition(|slot| slot.choice == choice && slot.index == index);
        let at = match known {
            Some(at) => at,
            None => {
                // A new call: those before it are whole if they are whole objects now. One that is not may be
                // interleaved with the new one and stays open.
                for at in 0..self.slots.len() {
                    let slot = &self.slots[at];
                    let may_be_whole = slot.arguments.starts_with('{') && slot.arguments.ends_with('}');
                    if slot.open && slot.choice == choice && may_be_whole && is_json(&slot.arguments) {
                        self.close_slot(at, whole);
                    }
                }
                if self.slots.len() == CALLS_MAX {
                    return Err(Broken::Malformed);
                }
                seen.opened += 1;
                self.slots.push(ToolSlot { choice, index, open: true, ..ToolSlot::default() });
                self.slots.len() - 1
            }
        };
        let slot = &mut self.slots[at];
        if !slot.open && !arguments.trim().is_empty() {
            // It was shown as whole already.
            return Err(Broken::Tool);
        }
        if slot.id.is_empty()
            && let Some(id) = id
        {
            id.clone_into(&mut slot.id);
        }
        if slot.name.is_empty()
            && let Some(name) = name
        {
            name.clone_into(&mut slot.name);
        }
        slot.arguments.push_str(arguments);
        Ok(())
    }

    /// The block, the choice or the stream ended: its open calls must be whole.
    fn close(&mut self, choice: u32, mark: Mark, whole: &mut impl FnMut(&ToolSlot)) -> Result<(), Broken> {
        for at in 0..self.slots.len() {
            let slot = &mut self.slots[at];
            if !slot.open || slot.choice != choice {
                continue;
            }
            let is_empty = slot.arguments.trim().is_empty();
            let is_whole = !is_empty && is_json(&slot.arguments);
            match mark {
                // A call without arguments, or one that its limit cut: only the finish reason will tell. Later calls
                // wait with it, to keep their order.
                Mark::Block if !is_whole => return Ok(()),
                Mark::Finish(Finish::Length) if !is_whole => return Err(Broken::Truncated),
                Mark::Finish(Finish::ContentFilter) if !is_whole => return Err(Broken::Filtered),
                Mark::Block | Mark::Finish(_) | Mark::Done if is_empty => "{}".clone_into(&mut slot.arguments),
                Mark::Block | Mark::Finish(_) | Mark::Done if !is_whole => return Err(Broken::Tool),
                Mark::Block | Mark::Finish(_) | Mark::Done => {}
            }
            if slot.name.is_empty() {
                return Err(Broken::Tool);
            }
            self.close_slot(at, whole);
        }
        Ok(())
    }

    fn close_slot(&mut self, at: usize, whole: &mut impl FnMut(&ToolSlot)) {
        let slot = &mut self.slots[at];
        slot.open = false;
        whole(slot);
        if self.collect && slot.choice == 0 {
            self.call_ids.push(slot.id.clone());
        }
        if let Some(answer) = self.answers.get_mut(slot.choice as usize) {
            answer.tool_calls.push((std::mem::take(&mut slot.name), std::mem::take(&mut slot.arguments)));
        }
    }
}

impl Seen {
    fn count(&mut self, text: &str) {
        self.output = true;
        self.tokens = self.tokens.saturating_add(tokens::estimate(text.as_bytes()));
    }
}

fn keep(collect: bool, collected: &mut usize, overflowed: &mut bool, text: &str) -> bool {
    if !collect || *overflowed {
        return false;
    }
    *collected += text.len();
    *overflowed = *collected > COLLECT_BYTES_MAX;
    !*overflowed
}

/// Whether a text is one JSON value.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Arguments as JSON text, for dialects that carry them as text.
pub(crate) fn input_or_empty(arguments: &str) -> &str {
    if arguments.trim().is_empty() { "{}" } else { arguments }
}
