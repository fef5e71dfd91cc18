//! What a crossing from one dialect to another can carry. The table is data, `docs/crossings.md` is printed from it,
//! and a request that says something the target's dialect cannot is not sent there.

use outlast_model::{
    policy::Dialect,
    turn::{ImageSource, OutputFormat, Part, Request, Tool, ToolChoice},
};

/// What becomes of a feature in a crossing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, perhaps in other words.
    Carried,
    /// It is left out: a hint, without which the answer is still an answer to what was asked.
    Dropped,
    /// It cannot be left out honestly: the request does not go there.
    Cannot,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Feature {
    /// The dialect of the request.
    pub from: Dialect,
    /// Its name in records and docs.
    pub name: &'static str,
    /// The top-level fields it stands in; empty for what stands within messages.
    pub fields: &'static [&'static str],
    /// What becomes of it.
    pub fate: Fate,
    /// How, or why not.
    pub how: &'static str,
}

/// A request in a form that this crate cannot read: it goes only where it need not be read.
pub const UNREADABLE: &str = "unreadable";
/// The last message is the assistant's, to be continued.
pub const PREFILL: &str = "prefill";

const fn row(
    from: Dialect,
    name: &'static str,
    fields: &'static [&'static str],
    fate: Fate,
    how: &'static str,
) -> Feature {
    Feature { from, name, fields, fate, how }
}

/// The table. There are two dialects, so the other one is meant.
pub const TABLE: &[Feature] = {
    use {
        Dialect::{Anthropic as A, OpenaiChat as O},
        Fate::{Cannot as No, Carried as Yes, Dropped as Hint},
    };
    &[
        row(
            O,
            "messages",
            &["model", "messages"],
            Yes,
            "text, system and developer prompts, several turns. System prompts move to the top, joined by blank lines; neighbours of one role become one message, blank texts are left out",
        ),
        row(O, "images", &[], Yes, "URLs and data URLs; `detail` is left out"),
        row(
            O,
            "tools",
            &["tools", "tool_choice", "parallel_tool_calls"],
            Yes,
            "function tools, calls and results, parallel ones included; `strict` is left out; ids are cut to letters, digits, `_` and `-`",
        ),
        row(
            O,
            "structured_output",
            &["response_format"],
            Yes,
            "`json_schema` becomes `output_config.format`: objects are closed and constraints Anthropic does not know move into descriptions; `json_object` becomes an instruction. Either way the reply is checked against what the client asked for",
        ),
        row(
            O,
            "limits",
            &["max_tokens", "max_completion_tokens"],
            Yes,
            "`max_tokens`; when absent, the target's own limit, or 8192 if that is unknown",
        ),
        row(O, "temperature", &["temperature"], Yes, "above 1 it becomes 1, the end of Anthropic's range"),
        row(
            O,
            "top_p",
            &["top_p"],
            Yes,
            "unless `temperature` is given too, which current Claude models refuse together",
        ),
        row(O, "top_k", &["top_k"], Yes, "as it is"),
        row(O, "stop", &["stop"], Yes, "`stop_sequences`; a blank one cannot be carried"),
        row(O, "stream", &["stream", "stream_options"], Yes, "the usage chunk comes if it was asked for"),
        row(O, "user", &["user"], Yes, "`metadata.user_id`"),
        row(O, "refusals", &[], Yes, "as text"),
        row(
            O,
            "sampling_hints",
            &["seed", "random_seed", "frequency_penalty", "presence_penalty", "repetition_penalty", "min_p", "top_a"],
            Hint,
            "best effort at their home too",
        ),
        row(
            O,
            "reasoning",
            &[
                "reasoning_effort",
                "reasoning",
                "reasoning_format",
                "include_reasoning",
                "thinking",
                "enable_thinking",
                "thinking_budget",
                "chat_template_kwargs",
                "verbosity",
            ],
            Hint,
            "the target thinks as it does by default",
        ),
        row(
            O,
            "reasoning_content",
            &[],
            Hint,
            "another vendor's thoughts in earlier turns carry no signature that Anthropic would accept",
        ),
        row(
            O,
            "housekeeping",
            &[
                "store",
                "metadata",
                "service_tier",
                "prompt_cache_key",
                "prompt_cache_retention",
                "safety_identifier",
                "prediction",
            ],
            Hint,
            "for the vendor's own storage, caches and queues",
        ),
        row(
            O,
            "routing_hints",
            &["provider", "models", "route", "transforms", "usage", "venice_parameters", "safe_prompt", "safety_model"],
            Hint,
            "for OpenRouter, Mistral and other relays",
        ),
        row(
            O,
            "cache_control",
            &[],
            Hint,
            "caching only; dropped with every other unknown field within messages, such as `name`",
        ),
        row(O, "outlast", &["outlast"], Hint, "for Outlast itself; it goes to no target of either dialect"),
        row(O, "several_choices", &["n"], No, "Anthropic gives one"),
        row(O, "logprobs", &["logprobs", "top_logprobs"], No, "not offered"),
        row(O, "logit_bias", &["logit_bias"], No, "not offered"),
        row(O, "audio", &["audio", "modalities"], No, "no audio in or out"),
        row(O, "documents", &[], No, "`file` parts name files in another form"),
        row(O, "server_tools", &["web_search_options", "plugins", "search_parameters"], No, "run by the vendor"),
        row(O, "custom_tools", &[], No, "grammars and free-text tools are not offered"),
        row(O, "former_functions", &["functions", "function_call"], No, "use `tools`"),
        row(O, "blank_stop", &[], No, "Anthropic refuses a stop sequence of white space only"),
        row(O, "output_grammar", &[], No, "a `response_format` beyond text, `json_object` and `json_schema`"),
        row(O, "tool_choice_subset", &[], No, "`allowed_tools` and custom choices are not offered"),
        row(O, PREFILL, &[], No, "OpenAI answers an assistant message, Anthropic continues or refuses it"),
        row(
            A,
            "messages",
            &["model", "messages", "system"],
            Yes,
            "text, system prompts (blocks joined by blank lines), several turns",
        ),
        row(A, "images", &[], Yes, "URLs and base64, in what the user says"),
        row(
            A,
            "tools",
            &["tools", "tool_choice"],
            Yes,
            "function tools, calls and results, `disable_parallel_tool_use`; a failed result begins with `Error: `",
        ),
        row(
            A,
            "structured_output",
            &["output_config", "output_format"],
            Yes,
            "`response_format`; strict when OpenAI's strict mode would take the schema. A single forced tool stays a forced tool. `effort` is left out",
        ),
        row(A, "limits", &["max_tokens"], Yes, "`max_completion_tokens` for OpenAI's models, `max_tokens` for others"),
        row(A, "temperature", &["temperature"], Yes, "as it is"),
        row(A, "top_p", &["top_p"], Yes, "as it is"),
        row(
            A,
            "stop",
            &["stop_sequences"],
            Yes,
            "`stop`, of which OpenAI takes four; which one ended the reply is not told",
        ),
        row(
            A,
            "stream",
            &["stream"],
            Yes,
            "`message_start` holds an estimate of the input; `message_delta` the provider's usage",
        ),
        row(A, "user", &["metadata"], Yes, "`user`"),
        row(
            A,
            "thinking",
            &["thinking"],
            Hint,
            "the target thinks as it does by default; if the client asked for thinking, reasoning comes as `thinking` blocks with an empty signature, which are taken out again when they come back",
        ),
        row(A, "thinking_blocks", &[], Hint, "thoughts in earlier turns are readable only to their vendor"),
        row(A, "sampling_hints", &["top_k"], Hint, "not offered"),
        row(A, "housekeeping", &["service_tier", "speed"], Hint, "for the vendor's own queues"),
        row(
            A,
            "cache_control",
            &["cache_control"],
            Hint,
            "caching only; dropped with every other unknown field within messages, such as `citations`",
        ),
        row(A, "outlast", &["outlast"], Hint, "for Outlast itself; it goes to no target of either dialect"),
        row(A, "documents", &[], No, "documents and search results (and their citations) have no equal"),
        row(
            A,
            "server_tools",
            &["mcp_servers", "container"],
            No,
            "run by the vendor: web search and fetch, code execution, computer use, MCP servers, and what they said in earlier turns",
        ),
        row(A, "context_management", &["context_management"], No, "the vendor edits the conversation"),
        row(A, "data_residency", &["inference_geo"], No, "a promise only the vendor can keep"),
        row(A, "stored_files", &[], No, "a file's id means something only to its vendor"),
        row(A, "tool_result_images", &[], No, "OpenAI's tool messages are text"),
        row(A, "output_grammar", &[], No, "an output format beyond `json_schema`"),
        row(A, "tool_choice_subset", &[], No, "a choice beyond auto, any, tool and none"),
        row(A, PREFILL, &[], No, "Anthropic continues an assistant message, OpenAI answers it"),
    ]
};

/// A field nobody has told this crate about: it may be what the request is about.
pub const UNKNOWN_FIELD: &str = "unknown_field";

/// What becomes of a top-level field with this JSON value: its feature's name and fate. `null` counts as absent.
pub(crate) fn of_field(from: Dialect, key: &[u8], value: &[u8]) -> (&'static str, Fate) {
    let harmless = match key {
        _ if value == b"null" => true,
        b"n" => value == b"1",
        b"logprobs" => value == b"false",
        b"top_logprobs" => value == b"0",
        b"logit_bias" => is_empty(value),
        b"modalities" => matches!(serde_json::from_slice::<Vec<String>>(value), Ok(list) if list == ["text"]),
        b"functions" | b"plugins" | b"mcp_servers" => is_empty(value),
        b"stop" => {
            let list = serde_json::from_slice::<Vec<String>>(value)
                .or_else(|_| serde_json::from_slice::<String>(value).map(|one| vec![one]));
            if list.is_ok_and(|list| list.iter().any(|stop| stop.trim().is_empty())) {
                return ("blank_stop", Fate::Cannot);
            }
            true
        }
        _ => false,
    };
    if harmless {
        return ("harmless", Fate::Carried);
    }
    TABLE
        .iter()
        .find(|feature| feature.from == from && feature.fields.iter().any(|field| field.as_bytes() == key))
        .map_or((UNKNOWN_FIELD, Fate::Cannot), |feature| (feature.name, feature.fate))
}

/// What of the messages and tools the other dialect cannot carry.
pub(crate) fn of_request(request: &Request, found: &mut Vec<&'static str>) {
    for turn in &request.turns {
        of_parts(request.origin, &turn.parts, found);
    }
    for tool in &request.tools {
        if let Tool::Opaque { .. } = tool {
            found.push(match request.origin {
                Dialect::OpenaiChat => "custom_tools",
                Dialect::Anthropic => "server_tools",
            });
        }
    }
    if let Some(ToolChoice::Opaque(_)) = request.tool_choice {
        found.push("tool_choice_subset");
    }
    if let OutputFormat::Opaque(_) = request.output {
        found.push("output_grammar");
    }
}

fn of_parts(from: Dialect, parts: &[Part], found: &mut Vec<&'static str>) {
    for part in parts {
        match part {
            Part::Image { source: ImageSource::File(_), .. } => found.push("stored_files"),
            Part::ToolResult { content, .. } => {
                let image = |part: &Part| matches!(part, Part::Image { .. });
                if from == Dialect::Anthropic && content.iter().any(image) {
                    found.push("tool_result_images");
                }
                of_parts(from, content, found);
            }
            Part::Opaque { kind, .. } => found.push(of_kind(from, kind)),
            Part::Image { .. }
            | Part::Text { .. }
            | Part::ToolCall(_)
            | Part::Reasoning { .. }
            | Part::RedactedReasoning { .. }
            | Part::Refusal { .. } => {}
        }
    }
}

fn of_kind(from: Dialect, kind: &str) -> &'static str {
    match (from, kind) {
        (Dialect::OpenaiChat, "input_audio" | "audio") => "audio",
        (Dialect::OpenaiChat, "custom") => "custom_tools",
        (Dialect::OpenaiChat, "function_call") => "former_functions",
        (Dialect::OpenaiChat, _) | (Dialect::Anthropic, "document" | "search_result") => "documents",
        (Dialect::Anthropic, "container_upload" | "image") => "stored_files",
        (Dialect::Anthropic, _) => "server_tools",
    }
}

fn is_empty(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'{' | b'}' | b'[' | b']') || byte.is_ascii_whitespace())
}

/// The table as Markdown, for `docs/crossings.md`.
pub fn markdown() -> String {
    let mut text = String::new();
    for (from, title) in [
        (Dialect::OpenaiChat, "From OpenAI chat completions to Anthropic messages"),
        (Dialect::Anthropic, "From Anthropic messages to OpenAI chat completions"),
    ] {
        text += &format!("### {title}\n\n| feature | fields | | how |\n|---|---|---|---|\n");
        for feature in TABLE.iter().filter(|feature| feature.from == from) {
            let fields: Vec<String> = feature.fields.iter().map(|field| format!("`{field}`")).collect();
            let fate = match feature.fate {
                Fate::Carried => "carried",
                Fate::Dropped => "dropped",
                Fate::Cannot => "**cannot**",
            };
            text += &format!("| {} | {} | {fate} | {} |\n", feature.name, fields.join(", "), feature.how);
        }
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_hold_the_table_as_it_is() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/crossings.md");
        let (begin, end) = ("<!-- table: printed from crates/wire/src/crossing.rs -->\n", "<!-- end of table -->");
        let docs = std::fs::read_to_string(path).unwrap();
        let (before, rest) = docs.split_once(begin).unwrap();
        let (table, after) = rest.split_once(end).unwrap();
        if std::env::var_os("OUTLAST_WRITE_DOCS").is_some() {
            std::fs::write(path, format!("{before}{begin}\n{}{end}{after}", markdown())).unwrap();
        } else {
            assert_eq!(table.trim(), markdown().trim(), "set OUTLAST_WRITE_DOCS=1 and run this test again to print it");
        }
    }

    #[test]
    fn a_field_stands_in_one_row_and_every_reason_has_one() {
        for from in Dialect::ALL {
            let mut fields: Vec<_> = TABLE.iter().filter(|row| row.from == from).flat_map(|row| row.fields).collect();
            fields.sort();
            assert!(fields.windows(2).all(|two| two[0] != two[1]));
            for kind in ["input_audio", "custom", "function_call", "document", "image", "video_url", "server_tool_use"]
            {
                let name = of_kind(from, kind);
                assert!(
                    TABLE.iter().any(|row| row.from == from && row.name == name && row.fate == Fate::Cannot),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn fields_that_say_nothing_do_no_harm() {
        let fate = |key: &str, value: &str| of_field(Dialect::OpenaiChat, key.as_bytes(), value.as_bytes());
        assert_eq!(fate("n", "1").1, Fate::Carried);
        assert_eq!(fate("n", "2"), ("several_choices", Fate::Cannot));
        assert_eq!(fate("logprobs", "false").1, Fate::Carried);
        assert_eq!(fate("logprobs", "true"), ("logprobs", Fate::Cannot));
        assert_eq!(fate("logit_bias", "{ }").1, Fate::Carried);
        assert_eq!(fate("whatever", "null").1, Fate::Carried);
        assert_eq!(fate("whatever", "0"), (UNKNOWN_FIELD, Fate::Cannot));
        assert_eq!(fate("stop", r#"["\n"]"#), ("blank_stop", Fate::Cannot));
        assert_eq!(fate("modalities", r#"["text"]"#).1, Fate::Carried);
    }
}
