//! The words that settings of [`super::promises`] may be, and the settings that are one thing or another.

use super::{
    promises::{AgreeFile, HedgeFile, MessageFile, RepairFile},
    read::{self, At, FromToml, Log, Place},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use toml::de::DeValue;

choices! {
    /// A contract that is there without being written.
    PresetChoice {
        /// Talk: streams, delivers refusals.
        "chat" => Chat,
        /// JSON from text.
        "extraction" => Extraction,
        /// Answers that name their sources.
        "rag" => Rag,
        /// An agent with tools.
        "agent" => Agent,
    }

    /// What a stream promises.
    StreamChoice {
        /// Nothing is shown before the whole reply has been validated.
        "buffer" => Buffer,
        /// The first tokens are held back.
        "hold" => Hold,
        /// Shown from the first output on; a later cut ends in a typed error event.
        "fail" => Fail,
    }

    /// What happens to text that repeats itself.
    DuplicatesChoice {
        /// Nothing.
        "allow" => Allow,
        /// The reply breaks the contract.
        "reject" => Reject,
    }

    /// Workflow state.
    KeepChoice {
        /// `outlast.state.step`, or the header `x-outlast-step`.
        "step" => Step,
        /// Earlier tool calls and their results.
        "tool_results" => ToolResults,
        /// `outlast.state.retry_count`.
        "retry_count" => RetryCount,
        /// `outlast.state.budget_used_usd`.
        "budget_used_usd" => BudgetUsed,
    }

    /// A syntactic repair.
    FixChoice {
        /// A code fence around the JSON is taken off.
        "fences" => Fences,
        /// Commas before a closing bracket are taken out.
        "trailing_commas" => TrailingCommas,
        /// Missing closing brackets are added, when nothing the schema requires is missing and no value was cut.
        "closers" => Closers,
    }

    /// What comes when repair did not help.
    AfterRepairChoice {
        /// The next target.
        "reroute" => Reroute,
        /// A person: the route's `escalate` backstop.
        "review" => Review,
        /// A typed error, at once.
        "stop" => Stop,
    }

    /// What the model may do with tools.
    ToolModeChoice {
        /// Call them.
        "full" => Full,
        /// Say what it would call; nothing is run.
        "plan-only" => PlanOnly,
        /// Call those that only read.
        "read-only" => ReadOnly,
        /// Nothing.
        "none" => None,
    }

    /// How the input may be made to fit.
    ShortenChoice {
        /// It may not.
        "never" => Never,
        /// The oldest turns go first; instructions and the last user turn stay.
        "drop-oldest-turns" => DropOldestTurns,
    }

    /// What happens to a refusal.
    RefusalChoice {
        /// It is the reply.
        "deliver" => Deliver,
        /// The next target is asked.
        "reroute" => Reroute,
        /// It goes to a person: the route's `escalate` backstop.
        "review" => Review,
    }

    /// What happens to a safety block.
    SafetyChoice {
        /// The client gets the reason.
        "return" => Return,
        /// It goes to a person: the route's `escalate` backstop.
        "review" => Review,
    }

    /// Where votes come from.
    SpreadChoice {
        /// A different target each, as long as there are any.
        "targets" => Targets,
        /// The best target each time.
        "samples" => Samples,
    }

    /// What comes when nobody wins.
    DisagreementChoice {
        /// The backstops.
        "fail" => Fail,
        /// The answer with the most votes, marked degraded; a tie fails.
        "majority" => Majority,
    }

    /// How two values are compared.
    AgreeChoice {
        /// Equal.
        "exact" => Exact,
        /// Texts equal but for case, punctuation and white space.
        "text" => Text,
        /// Lists with the same members in any order.
        "set" => Set,
        /// Not at all.
        "ignore" => Ignore,
    }

    /// What a backstop does.
    BackstopChoice {
        /// A reply made from a template.
        "static" => Static,
        /// The reply of the first rule that holds.
        "rules" => Rules,
        /// The last good reply to the same request of the same caller.
        "cache" => Cache,
        /// Keeps the request and answers it when a target is healthy.
        "queue" => Queue,
        /// Asks the user before another route answers.
        "confirm" => Confirm,
        /// Hands the request to a person.
        "escalate" => Escalate,
        /// A typed error.
        "fail" => Fail,
    }

    /// Who says a message.
    RoleChoice {
        /// The instructions.
        "system" => System,
        /// The user.
        "user" => User,
        /// The model.
        "assistant" => Assistant,
    }
}

either! {
    /// JSON: in a file, or here.
    JsonSetting {
        /// The JSON itself.
        Inline(Json) if |value| value.is_table(),
        /// A file, relative to the config file.
        File(String) if |_| true,
    }

    /// How often a reply may be mended, or how.
    RepairSetting {
        /// How.
        Table(RepairFile) if |value| value.is_table(),
        /// Not, or with everything there is.
        Times(Times) if |_| true,
    }

    /// Whether, or how, a slow first output is raced.
    HedgeSetting {
        /// How.
        Table(HedgeFile) if |value| value.is_table(),
        /// Whether.
        On(bool) if |_| true,
    }

    /// How two values are compared.
    AgreeSetting {
        /// With a number or a key.
        Table(AgreeFile) if |value| value.is_table(),
        /// By a word.
        Word(AgreeChoice) if |_| true,
    }

    /// One name, or several in their order.
    Names {
        /// Several.
        Many(Vec<At<String>>) if |value| value.is_array(),
        /// One.
        One(String) if |_| true,
    }

    /// What is asked.
    InputSetting {
        /// A conversation.
        Messages(Vec<At<MessageFile>>) if |value| value.is_array(),
        /// One user turn.
        Text(String) if |_| true,
    }
}

/// Zero or one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times(pub(super) u8);

impl FromToml for Times {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        let times = value.as_integer().and_then(|integer| match integer.as_str() {
            "0" => Some(Times(0)),
            "1" => Some(Times(1)),
            _ => None,
        });
        if times.is_none() {
            log.error(
                place,
                "0, 1 or a table is wanted here: a reply is mended once at most",
                "Write repair = 1, or a table like { fixes = [\"fences\"], model = true, then = \"reroute\" }",
            );
        }
        times
    }
}

impl JsonSchema for Times {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Times".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "enum": [0, 1] })
    }
}

/// A table that is passed on as JSON.
#[derive(Debug)]
pub(super) struct Json(pub(super) serde_json::Value);

impl FromToml for Json {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        let json = read::json(value);
        if json.is_none() {
            let what = "it holds a date or a number that JSON has no form for";
            log.error(place, what, "Write dates as texts, and finite numbers in decimal digits");
        }
        json.map(Json)
    }
}

impl JsonSchema for Json {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}
