//! What a request asks, read from either dialect, and the mistakes a real provider would refuse.

use super::{choose::Directives, told};
use outlast_model::policy::Dialect;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// A request, as far as the fake cares.
#[derive(Debug)]
pub(super) struct Asked {
    /// The model's name and what its suffixes wish for.
    pub(super) model: Directives,
    pub(super) stream: bool,
    /// OpenAI: the client wants the usage chunk. Anthropic always sends usage.
    pub(super) include_usage: bool,
    pub(super) output_limit: Option<u32>,
    pub(super) tools: Vec<Tool>,
    pub(super) choice: ToolChoice,
    pub(super) parallel: bool,
    /// The schema of the structured output demanded; `true` where any JSON object will do, as Anthropic is told in the
    /// system prompt.
    pub(super) format: Option<Value>,
    /// The actions it may plan, where it is told that it cannot act.
    pub(super) plannable: Vec<Tool>,
    /// The last user text, or the tool results that end the conversation.
    pub(super) text: String,
    /// The conversation ends in tool results.
    pub(super) after_tool: bool,
    /// By the usual estimate of four bytes to a token.
    pub(super) input_tokens: u32,
}

#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) schema: Value,
}

#[derive(Debug, PartialEq)]
pub(super) enum ToolChoice {
    Auto,
    Never,
    Any,
    Named(String),
}

/// The client's own mistake.
#[derive(Debug, PartialEq)]
pub(super) struct Mistake {
    pub(super) message: String,
    pub(super) param: Option<&'static str>,
}

impl Mistake {
    fn new(message: impl Into<String>, param: Option<&'static str>) -> Self {
        Mistake { message: message.into(), param }
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<Value>,
    output_config: Option<Value>,
    output_format: Option<Value>,
    system: Option<Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Asked {
    /// Reads a request body.
    ///
    /// # Errors
    /// What a real provider answers with a 400.
    pub(super) fn read(dialect: Dialect, body: &[u8]) -> Result<Asked, Mistake> {
        let parsed: Body<'_> = serde_json::from_slice(body).map_err(|error| {
            Mistake::new(format!("We could not parse the JSON body of your request. ({error})"), None)
        })?;
        let Some(model) = parsed.model.filter(|model| !model.is_empty()) else {
            return Err(Mistake::new("you must provide a model parameter", Some("model")));
        };
        let messages = parsed.messages.unwrap_or_default();
        if messages.is_empty() {
            return Err(Mistake::new("messages: at least one message is required", Some("messages")));
        }
        if dialect == Dialect::Anthropic && parsed.max_tokens.is_none() {
            return Err(Mistake::new("max_tokens: Field required", Some("max_tokens")));
        }
        let mut instructions = parsed.system.as_ref().map(text_of).unwrap_or_default();
        for raw in messages.iter().filter(|raw| told::may_be_in(raw.get())) {
            let message: Value = serde_json::from_str(raw.get()).unwrap_or_default();
            if matches!(message["role"].as_str(), Some("system" | "developer")) {
                instructions += &format!("\n{}", text_of(&message["content"]));
            }
        }
        let messages = Conversation::read(&messages)?;
        messages.check(dialect)?;
        let model = Directives::read(&model).map_err(|error| Mistake::new(error.to_string(), Some("model")))?;
        let anthropic_parallel =
            parsed.tool_choice.as_ref().and_then(|choice| choice["disable_parallel_tool_use"].as_bool());
        Ok(Asked {
            model,
            stream: parsed.stream.unwrap_or(false),
            include_usage: parsed.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
            output_limit: parsed.max_completion_tokens.or(parsed.max_tokens),
            tools: parsed.tools.unwrap_or_default().iter().filter_map(|tool| Tool::read(dialect, tool)).collect(),
            choice: ToolChoice::read(dialect, parsed.tool_choice.as_ref()),
            parallel: parsed.parallel_tool_calls.unwrap_or(true) && !anthropic_parallel.unwrap_or(false),
            format: format(parsed.response_format, parsed.output_config, parsed.output_format)
                .or_else(|| told::schema(&instructions))
                .or_else(|| parsed.system.filter(|system| text_of(system).contains("JSON")).map(|_| true.into())),
            plannable: told::actions(&instructions),
            text: messages.last_text(),
            after_tool: messages.ends_in_tool_results(),
            input_tokens: u32::try_from(body.len() / 4).unwrap_or(u32::MAX).max(1),
        })
    }
}

impl Tool {
    fn read(dialect: Dialect, tool: &Value) -> Option<Tool> {
        let (holder, schema) = match dialect {
            Dialect::OpenaiChat => (&tool["function"], "parameters"),
            Dialect::Anthropic => (tool, "input_schema"),
        };
        Some(Tool { name: holder["name"].as_str()?.to_owned(), schema: holder[schema].clone() })
    }
}

impl ToolChoice {
    fn read(dialect: Dialect, choice: Option<&Value>) -> ToolChoice {
        let Some(choice) = choice else { return ToolChoice::Auto };
        let kind = choice.as_str().or_else(|| choice["type"].as_str()).unwrap_or("auto");
        let name = match dialect {
            Dialect::OpenaiChat => &choice["function"]["name"],
            Dialect::Anthropic => &choice["name"],
        };
        match (kind, name.as_str()) {
            ("none", _) => ToolChoice::Never,
            ("required" | "any", _) => ToolChoice::Any,
            ("function" | "tool", Some(name)) => ToolChoice::Named(name.to_owned()),
            _ => ToolChoice::Auto,
        }
    }
}

/// The structured output demanded: OpenAI's `response_format`, Anthropic's `output_config.format` or `output_format`.
fn format(response_format: Option<Value>, output_config: Option<Value>, output_format: Option<Value>) -> Option<Value> {
    if let Some(format) = response_format {
        return match format["type"].as_str() {
            Some("json_schema") => Some(format["json_schema"]["schema"].clone()),
            Some("json_object") => Some(Value::Bool(true)),
            _ => None,
        };
    }
    let format = output_config.map(|config| config["format"].clone()).or(output_format)?;
    (format["type"] == "json_schema").then(|| format["schema"].clone())
}

/// The end of the conversation, or all of it where tools are spoken of.
struct Conversation {
    messages: Vec<Value>,
    whole: bool,
}

impl Conversation {
    /// Long conversations without tools are common in benches: of those only the last message is opened.
    fn read(raw: &[&RawValue]) -> Result<Self, Mistake> {
        let whole = raw.iter().any(|message| ["tool_call", "tool_use"].iter().any(|word| message.get().contains(word)));
        let opened = if whole { raw } else { &raw[raw.len() - 1..] };
        let messages = opened.iter().map(|message| serde_json::from_str(message.get()));
        match messages.collect() {
            Ok(messages) => Ok(Conversation { messages, whole }),
            Err(error) => Err(Mistake::new(format!("messages: {error}"), Some("messages"))),
        }
    }

    /// A tool result must answer a call of the message before it; both vendors refuse a request that breaks this.
    fn check(&self, dialect: Dialect) -> Result<(), Mistake> {
        if !self.whole {
            return Ok(());
        }
        let mut open: Vec<&str> = Vec::new();
        for message in &self.messages {
            let is_assistant = message["role"] == "assistant";
            let (calls, results): (Vec<&Value>, Vec<&Value>) = match dialect {
                Dialect::OpenaiChat => (
                    message["tool_calls"].as_array().into_iter().flatten().map(|call| &call["id"]).collect(),
                    (message["role"] == "tool").then(|| &message["tool_call_id"]).into_iter().collect(),
                ),
                Dialect::Anthropic => (ids(message, "tool_use", "id"), ids(message, "tool_result", "tool_use_id")),
            };
            for result in &results {
                match open.iter().position(|call| *result == call) {
                    Some(at) => drop(open.remove(at)),
                    None => return Err(stray_result(dialect, result)),
                }
            }
            let answers = !results.is_empty() && (dialect == Dialect::OpenaiChat || open.is_empty());
            if !open.is_empty() && !answers {
                let message =
                    format!("tool calls must be followed by their results; these have none: {}", open.join(", "));
                return Err(Mistake::new(message, Some("messages")));
            }
            if is_assistant {
                open = calls.into_iter().filter_map(Value::as_str).collect();
            }
        }
        Ok(())
    }

    fn ends_in_tool_results(&self) -> bool {
        let Some(last) = self.messages.last() else { return false };
        last["role"] == "tool" || !ids(last, "tool_result", "tool_use_id").is_empty()
    }

    fn last_text(&self) -> String {
        self.messages.last().map(|message| text_of(&message["content"])).unwrap_or_default()
    }
}

fn stray_result(dialect: Dialect, id: &Value) -> Mistake {
    let message = match dialect {
        Dialect::OpenaiChat => {
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                .to_owned()
        }
        Dialect::Anthropic => format!(
            "messages: unexpected `tool_use_id` found in `tool_result` blocks: {}. Each `tool_result` block must have a corresponding `tool_use` block in the previous message.",
            id.as_str().unwrap_or("null")
        ),
    };
    Mistake::new(message, Some("messages"))
}

/// The `id` fields of a message's content blocks of one kind.
fn ids<'a>(message: &'a Value, kind: &str, id: &str) -> Vec<&'a Value> {
    message["content"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|block| block["type"] == kind)
        .map(|block| &block[id])
        .collect()
}

/// All text in a content: a string, or text blocks, also those inside tool results.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts = blocks.iter().map(|block| match block["type"].as_str() {
                Some("text") => block["text"].as_str().unwrap_or_default().to_owned(),
                Some("tool_result") => text_of(&block["content"]),
                _ => String::new(),
            });
            texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tool_result_without_its_call_is_refused_as_the_vendors_do() {
        let openai = json!({"model": "m", "messages": [{"role": "tool", "tool_call_id": "a", "content": "1"}]});
        let mistake = Asked::read(Dialect::OpenaiChat, openai.to_string().as_bytes()).unwrap_err();
        assert!(mistake.message.contains("preceeding message with 'tool_calls'"), "{mistake:?}");
        let anthropic = json!({"model": "m", "max_tokens": 5, "messages": [
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "1"}]}]});
        let mistake = Asked::read(Dialect::Anthropic, anthropic.to_string().as_bytes()).unwrap_err();
        assert!(mistake.message.contains("corresponding `tool_use` block"), "{mistake:?}");
    }

    #[test]
    fn parallel_tool_results_are_accepted_in_both_dialects() {
        let openai = json!({"model": "m", "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "tool_calls": [{"id": "a"}, {"id": "b"}]},
            {"role": "tool", "tool_call_id": "b", "content": "2"},
            {"role": "tool", "tool_call_id": "a", "content": "1"}]});
        let asked = Asked::read(Dialect::OpenaiChat, openai.to_string().as_bytes()).unwrap();
        assert!(asked.after_tool);
        let anthropic = json!({"model": "m", "max_tokens": 5, "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a"}, {"type": "tool_use", "id": "b"}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "1"},
                {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "2"}]}]}]});
        let asked = Asked::read(Dialect::Anthropic, anthropic.to_string().as_bytes()).unwrap();
        assert_eq!((asked.after_tool, asked.text.as_str()), (true, "1 2"));
    }

    #[test]
    fn anthropic_demands_a_token_limit() {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}).to_string();
        let mistake = Asked::read(Dialect::Anthropic, body.as_bytes()).unwrap_err();
        assert_eq!(mistake.message, "max_tokens: Field required");
        assert!(Asked::read(Dialect::OpenaiChat, body.as_bytes()).is_ok());
    }
}
