//! What the engine's brief and the contract change of a request for one target.
//!
//! Each change is known in two forms: as a top-level field that becomes another, for a target of the client's dialect,
//! and as a change of the hub form, for one of the other dialect. Turns change in the hub form; for a target of the
//! client's dialect they are written back into the client's own body.

use crate::{
    Adapt, Inbound, Put, Unsupported, anthropic,
    json::{Fields, Writer},
    mend, openai_chat, plan, schema, shorten, tokens,
    tools::Tools,
    traffic,
};
use outlast_model::{
    policy::{Ability, Dialect, Schema, ToolMode},
    turn::{Extra, OutputFormat, Part, Request, Role, Turn},
};
use serde_json::value::RawValue;

/// Why a request cannot be put: not even the oldest turns' leaving makes it fit.
pub(crate) const SHORTEN: &str = "shorten";

/// A top-level field as it becomes; `None`: it is left out.
pub(crate) type Field = (&'static str, Option<String>);

/// What is changed of a request.
pub(crate) struct Changes<'a> {
    inbound: &'a Inbound,
    to: &'a Adapt<'a>,
    tools: Tools<'a>,
    /// The tools are described in words, and the model answers with a plan.
    described: bool,
    /// Earlier calls and results of tools become text.
    traffic_as_text: bool,
    /// The contract's schema, and how the target is told of it.
    schema: Told<'a>,
    /// What a model that mends its reply is told.
    demand: Option<String>,
}

#[derive(Clone, Copy)]
enum Told<'a> {
    Nothing,
    Natively(&'a Schema),
    InWords(&'a Schema),
}

impl Put<'_> {
    /// Nothing is changed.
    pub(crate) fn is_plain(&self) -> bool {
        self.brief.is_plain() && self.contract.checks.schema.is_none() && self.contract.permissions.tools.is_none()
    }
}

impl<'a> Changes<'a> {
    pub(crate) fn of(inbound: &'a Inbound, to: &'a Adapt<'a>) -> Changes<'a> {
        let (brief, contract) = (to.put.brief, to.put.contract);
        let tools = Tools::of(inbound, brief, contract);
        // Words serve a target of unknown ability too: it may be asked for a plan because it has just refused tools.
        let unsure = to.put.can_call_tools != Ability::Yes;
        let described = brief.tool_mode == ToolMode::PlanOnly && unsure && tools.any_left();
        let sends_none = described || (!tools.any_left() && (tools.withholds() || brief.tool_mode != ToolMode::Full));
        // Both vendors take earlier calls and results without tools beside them; others may not.
        let traffic_as_text = sends_none && unsure;
        let schema = match (&contract.checks.schema, inbound.output()) {
            (None, _) | (_, OutputFormat::JsonSchema { .. } | OutputFormat::Opaque(_)) => Told::Nothing,
            (Some(schema), OutputFormat::Text) if to.put.native_schema == Ability::Yes && !described => {
                Told::Natively(schema)
            }
            (Some(schema), OutputFormat::Text | OutputFormat::Json) => Told::InWords(schema),
        };
        let demand = brief.mend.as_ref().map(mend::demand);
        Changes { inbound, to, tools, described, traffic_as_text, schema, demand }
    }

    /// Turns other than the last ones change, so that they have to be written anew.
    pub(crate) fn rewrites_turns(&self) -> bool {
        let signs = self.inbound.scan().signs;
        self.described
            || matches!(self.schema, Told::InWords(_))
            || self
                .to
                .put
                .brief
                .shorten_to
                .is_some_and(|limit| self.inbound.input_tokens().saturating_add(self.added()) > limit)
            || (self.traffic_as_text && (signs.tool_traffic || signs.unusual))
    }

    /// The top-level fields that change, for a target of the client's dialect.
    pub(crate) fn fields(&self) -> Vec<Field> {
        let mut fields = self.tools.fields(self.described);
        fields.extend(self.limit_fields());
        if self.described {
            fields.extend(self.form_fields());
        }
        fields.extend(self.schema_field());
        fields
    }

    /// What comes after the last message, each with a comma before it.
    pub(crate) fn more_messages(&self) -> Option<Vec<u8>> {
        let demand = self.demand.clone()?;
        let mut messages = Vec::new();
        for turn in mend::turns(self.to.put.mend.unwrap_or_default(), demand) {
            let role = if turn.role == Role::Assistant { "assistant" } else { "user" };
            let mut w = Writer::default();
            w.open(b'{').key("role").str(role).key("content").str(&text_of(&turn)).close(b'}');
            messages.push(b',');
            messages.extend(w.finish());
        }
        Some(messages)
    }

    /// The turns as they become.
    pub(crate) fn turns(&self, request: &Request) -> Result<Vec<Turn>, Unsupported> {
        let mut turns = request.turns.clone();
        if let Some(limit) = self.to.put.brief.shorten_to {
            let gone = shorten::dropped(self.inbound, request, self.to.put.contract, limit, self.added());
            let gone = gone.ok_or_else(|| Unsupported { features: vec![SHORTEN] })?;
            let mut gone = gone.into_iter();
            turns.retain(|_| !gone.next().unwrap_or_default());
        }
        let records = self.traffic_as_text && traffic::is_in(&turns);
        if records {
            traffic::as_text(&mut turns);
        }
        if let Some(words) = self.instruction(request, records) {
            instruct(&mut turns, words);
        }
        if let Some(demand) = &self.demand {
            turns.extend(mend::turns(self.to.put.mend.unwrap_or_default(), demand.clone()));
        }
        Ok(turns)
    }

    /// Makes the same changes in the hub form, for a target of the other dialect.
    pub(crate) fn apply(&self, request: &mut Request) -> Result<(), Unsupported> {
        request.turns = self.turns(request)?;
        self.tools.filter(request, self.described);
        if let Some(limit) = self.to.put.brief.max_output_tokens {
            let said = request.max_output_tokens;
            request.max_output_tokens = Some(said.map_or_else(|| self.limit_unset(limit), |said| said.min(limit)));
        }
        self.apply_output(request);
        Ok(())
    }

    /// Estimated tokens that a repair adds.
    fn added(&self) -> u32 {
        let demand = self.demand.as_ref().map_or(0, |demand| tokens::estimate(demand.as_bytes()));
        let broken = if self.demand.is_some() { self.to.put.mend.unwrap_or_default() } else { "" };
        demand.saturating_add(tokens::estimate(broken.as_bytes()))
    }

    /// What the limit is when the client has set none.
    fn limit_unset(&self, limit: u32) -> u32 {
        let own = match self.to.dialect {
            Dialect::OpenaiChat => self.to.max_output,
            Dialect::Anthropic => Some(self.to.max_output.unwrap_or(anthropic::MAX_TOKENS_DEFAULT)),
        };
        own.map_or(limit, |own| own.min(limit))
    }

    fn limit_fields(&self) -> Vec<Field> {
        let Some(limit) = self.to.put.brief.max_output_tokens else { return Vec::new() };
        let names: &[&'static str] = match self.inbound.dialect() {
            Dialect::OpenaiChat => &["max_completion_tokens", "max_tokens"],
            Dialect::Anthropic => &["max_tokens"],
        };
        let said = |name: &&'static str| Some((*name, self.inbound.value(name).filter(|value| *value != "null")?));
        let said: Vec<_> = names.iter().filter_map(said).collect();
        let mut fields: Vec<Field> = said
            .iter()
            .filter(|(_, value)| value.parse::<f64>().is_ok_and(|value| value > f64::from(limit)))
            .map(|(name, _)| (*name, Some(limit.to_string())))
            .collect();
        if said.is_empty() {
            let name = match self.inbound.dialect() {
                Dialect::OpenaiChat => openai_chat::limit_name(self.to.model),
                Dialect::Anthropic => "max_tokens",
            };
            fields.push((name, Some(self.limit_unset(limit).to_string())));
        }
        fields.extend(self.thinking_field(limit));
        fields
    }

    /// Anthropic wants the thinking budget below the limit and at least 1,024: half of the limit, or no thinking.
    fn thinking_field(&self, limit: u32) -> Option<Field> {
        const LEAST: u32 = 1024;
        if self.inbound.dialect() != Dialect::Anthropic {
            return None;
        }
        let thinking: &RawValue = serde_json::from_str(self.inbound.value("thinking")?).ok()?;
        let mut fields = Fields::of(thinking, "thinking").ok()?;
        let budget = fields.count("budget_tokens").ok()??;
        if budget < limit {
            return None;
        }
        let half = limit / 2;
        let lower = (half >= LEAST).then(|| {
            let mut w = Writer::default();
            w.open(b'{').extra(&fields.rest()).key("budget_tokens").plain(half).close(b'}');
            w.text()
        });
        Some(("thinking", lower))
    }

    /// The field that demands the contract's schema of a target of the client's dialect.
    fn schema_field(&self) -> Option<Field> {
        let Told::Natively(schema) = self.schema else { return None };
        let mut w = Writer::default();
        w.open(b'{');
        match self.inbound.dialect() {
            Dialect::OpenaiChat => {
                w.key("type").str("json_schema").key("json_schema").open(b'{').key("name").str(SCHEMA_NAME);
                w.key("schema").raw(&schema.json);
                if schema::is_openai_strict(&schema.json) {
                    w.key("strict").plain(true);
                }
                w.close(b'}').close(b'}');
                Some(("response_format", Some(w.text())))
            }
            Dialect::Anthropic => {
                let config =
                    self.inbound.value("output_config").and_then(|raw| serde_json::from_str::<Fields<'_>>(raw).ok());
                let mut config = config.unwrap_or_default();
                config.raw("format");
                w.extra(&config.rest()).key("format").open(b'{').key("type").str("json_schema");
                w.key("schema").raw(&schema::for_anthropic(&schema.json)).close(b'}').close(b'}');
                Some(("output_config", Some(w.text())))
            }
        }
    }

    /// The fields of a request whose answer is to be a plan in words: what the client demands of it is told in words too.
    fn form_fields(&self) -> Vec<Field> {
        match self.inbound.dialect() {
            Dialect::OpenaiChat => vec![("response_format", self.plan_is_json().then(|| JSON_OBJECT.to_owned()))],
            Dialect::Anthropic => {
                let config = self.inbound.value("output_config");
                let config =
                    config.and_then(|raw| serde_json::from_str::<Fields<'_>>(raw).ok()).and_then(|mut config| {
                        config.raw("format")?;
                        let mut w = Writer::default();
                        w.open(b'{').extra(&config.rest()).close(b'}');
                        Some(("output_config", Some(w.text())))
                    });
                config.into_iter().chain([("output_format", None)]).collect()
            }
        }
    }

    /// The target has a field that makes it answer in JSON.
    fn plan_is_json(&self) -> bool {
        self.to.dialect == Dialect::OpenaiChat && self.to.put.native_schema == Ability::Yes
    }

    fn apply_output(&self, request: &mut Request) {
        if self.described {
            request.output = if self.plan_is_json() { OutputFormat::Json } else { OutputFormat::Text };
        } else if let Told::Natively(schema) = self.schema
            && let Ok(raw) = RawValue::from_string(schema.json.to_string())
        {
            request.output = OutputFormat::JsonSchema {
                name: Some(SCHEMA_NAME.into()),
                description: None,
                schema: raw,
                strict: schema::is_openai_strict(&schema.json).then_some(true),
                extra: Extra::default(),
            };
        }
    }

    /// What is added to the instructions.
    fn instruction(&self, request: &Request, records: bool) -> Option<String> {
        let form = match (self.schema, &request.output) {
            (Told::InWords(schema), _) => Some(&*schema.json),
            (Told::Nothing | Told::Natively(_), OutputFormat::JsonSchema { schema, .. }) => Some(schema.get()),
            (Told::Nothing | Told::Natively(_), OutputFormat::Text | OutputFormat::Json | OutputFormat::Opaque(_)) => {
                None
            }
        };
        if self.described {
            let kept = (0..).zip(&request.tools).filter(|(at, _)| self.tools.keeps(*at)).map(|(_, tool)| tool);
            let choice = request.tool_choice.as_ref().filter(|_| self.tools.choice.is_none());
            return Some(plan::description(kept, choice, form, records));
        }
        let Told::InWords(schema) = self.schema else { return None };
        let when =
            if self.tools.any_left() { "When you give an answer rather than call a tool, reply" } else { "Reply" };
        Some(format!(
            "{when} with one JSON value that keeps this JSON Schema, and nothing else: no code fence, no comment.\n{}",
            schema.json
        ))
    }
}

/// OpenAI's `response_format` for any JSON.
const JSON_OBJECT: &str = r#"{"type":"json_object"}"#;
/// What OpenAI's `json_schema` wants as a name.
const SCHEMA_NAME: &str = "answer";

/// Puts words at the end of the instructions the conversation begins with.
fn instruct(turns: &mut Vec<Turn>, words: String) {
    let is_instruction = |turn: &&Turn| matches!(turn.role, Role::System | Role::Developer);
    let leading = turns.iter().take_while(is_instruction).count();
    let Some(turn) = leading.checked_sub(1).map(|last| &mut turns[last]) else {
        let parts = vec![Part::Text { text: words.into(), extra: Extra::default() }];
        turns.insert(0, Turn { role: Role::System, parts, extra: Extra::default() });
        return;
    };
    match turn.parts.last_mut() {
        // Many servers take a system prompt only as one string. A part with more to it, such as a cache mark, stays.
        Some(Part::Text { text, extra }) if extra.is_empty() => *text = format!("{text}\n\n{words}").into(),
        Some(_) | None => turn.parts.push(Part::Text { text: words.into(), extra: Extra::default() }),
    }
}

fn text_of(turn: &Turn) -> String {
    openai_chat::joined(&turn.parts, "\n\n")
}
