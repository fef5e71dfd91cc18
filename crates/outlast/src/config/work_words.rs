//! The words that settings of [`super::work_file`] may be, and the settings that are one thing or another.

use super::{
    read::{self, FromToml, Log, Place},
    work_file::{ApprovalFile, WorkflowFile},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use toml::de::DeValue;

choices! {
    /// How a tool is reached.
    ToolKindChoice {
        /// By HTTP.
        "http" => Http,
        /// By MCP.
        "mcp" => Mcp,
        /// A worker does it.
        "worker" => Worker,
    }

    /// How a tool is asked over HTTP.
    MethodChoice {
        /// Arguments go into the query.
        "GET" => Get,
        /// Arguments are the JSON body; so with the rest.
        "POST" => Post,
        /// The same.
        "PUT" => Put,
        /// The same.
        "PATCH" => Patch,
        /// The same.
        "DELETE" => Delete,
    }

    /// What happens in the world when it is done twice.
    EffectChoice {
        /// Nothing: look-ups.
        "pure" => Pure,
        /// The receiver commits our key with the effect, and keeps it forever.
        "tx" => Tx,
        /// The receiver keeps our key for a time and answers a repetition with the first result.
        "keyed" => Keyed,
        /// The receiver can be asked whether it happened.
        "verify" => Verify,
        /// Nobody can tell: a person decides.
        "once" => Once,
    }

    /// What becomes of a step whose budget is spent.
    ExhaustedChoice {
        /// A person decides.
        "escalate" => Escalate,
        /// It has failed.
        "fail" => Fail,
    }

    /// Whether a person has to agree.
    ApprovalChoice {
        /// No.
        "never" => Never,
        /// Yes.
        "always" => Always,
    }

    /// What a step does.
    StepChoice {
        /// Asks a model.
        "model" => Model,
        /// Calls a tool.
        "tool" => Tool,
        /// Lets a model call tools until it is done.
        "agent" => Agent,
        /// Asks a person.
        "human" => Human,
        /// Waits for a signal or a time.
        "wait" => Wait,
    }

    /// How somebody is told.
    NotifyChoice {
        /// A signed POST.
        "webhook" => Webhook,
        /// A POST that Slack's incoming webhooks understand.
        "slack" => Slack,
        /// A mail.
        "email" => Email,
    }

    /// What follows when nobody decided.
    UnansweredChoice {
        /// It goes on waiting.
        "wait" => Wait,
        /// What waits for an approval is denied; everything else goes on waiting.
        "deny" => Deny,
    }
}

either! {
    /// Whether a person has to agree.
    ApprovalSetting {
        /// If this is true.
        Table(ApprovalFile) if |value| value.is_table(),
        /// Always or never.
        Word(ApprovalChoice) if |_| true,
    }
}

/// Any value that JSON has a form for; texts in it are templates.
#[derive(Debug)]
pub(super) struct AnyJson(pub(super) serde_json::Value);

impl FromToml for AnyJson {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        let json = read::json(value);
        if json.is_none() {
            let what = "it holds a date or a number that JSON has no form for";
            log.error(place, what, "Write dates as texts, and finite numbers in decimal digits");
        }
        json.map(AnyJson)
    }
}

impl JsonSchema for AnyJson {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AnyJson".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["object", "array", "string", "number", "boolean"] })
    }
}

/// A workflow with all that is written of it, so that a change is noticed whatever it is in.
#[derive(Debug)]
pub(super) struct WorkflowSection {
    pub(super) file: WorkflowFile,
    /// As JSON; none if it holds something that JSON has no form for, which has been told.
    pub(super) written: Option<serde_json::Value>,
}

impl FromToml for WorkflowSection {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        let file = WorkflowFile::from_toml(value, place, log)?;
        Some(WorkflowSection { file, written: read::json(value) })
    }
}

impl JsonSchema for WorkflowSection {
    fn inline_schema() -> bool {
        WorkflowFile::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        WorkflowFile::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        WorkflowFile::json_schema(generator)
    }
}

/// A table as JSON, none for a value that is no table.
#[derive(Debug)]
pub(super) struct Fields(pub(super) serde_json::Value);

impl FromToml for Fields {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        if !value.is_table() {
            log.error(place, "a table is wanted here", "Write it in braces: { order_id = \"{{ input.order_id }}\" }");
            return None;
        }
        AnyJson::from_toml(value, place, log).map(|json| Fields(json.0))
    }
}

impl JsonSchema for Fields {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Fields".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}
