//! What messages say, in any provider's words. Lower case; typographic apostrophes are already plain.

use super::said::Said;
use outlast_model::Failure;

/// Any of these words occurs.
fn any(said: &Said, words: &[&str]) -> bool {
    words.iter().any(|word| said.message.contains(word))
}

/// "Too many requests" means one of three things: come back soon, come back when you have paid (or tomorrow), or
/// never with this payload.
pub(super) fn rate_limit(said: &Said) -> Failure {
    if any(said, &["request too large", "input or output tokens must be reduced", "reduce your message size"]) {
        return Failure::ContextExceeded;
    }
    if let Some(money) = no_money(said) {
        return money;
    }
    // The quota's id is the only honest part: the message and the delay are the same for a minute's and a day's.
    if said.quota.per_day || said.quota.zero {
        return Failure::QuotaExhausted;
    }
    if said.quota.per_minute || said.stated_wait().is_some() {
        return Failure::RateLimited;
    }
    let for_long = any(said, &["per day", "per-day", "(rpd)", "(tpd)", "daily", "exceeded your current quota"]);
    if for_long { Failure::QuotaExhausted } else { Failure::RateLimited }
}

/// The account is out of money or of a quota that no short wait restores.
pub(super) fn no_money(said: &Said) -> Option<Failure> {
    const WORDS: &[&str] = &[
        "credit balance",
        "insufficient balance",
        "insufficient credit",
        "insufficient quota",
        "insufficient funds",
        "insufficient_quota",
        "out of credits",
        "out of call volume quota",
        "no credits",
        "any credits",
        "available credits",
        "requires more credits",
        "not enough credits",
        "never purchased credits",
        "spending limit",
        "spend limit",
        "billing hard limit",
        "billing limit",
        "billing to be enabled",
        "billing is not active",
        "billing is disabled",
        "account is not active",
        "payment required",
        "api usage limits",
        "usage limit",
        "key limit exceeded",
        "monthly limit",
        "monthly quota",
        "monthly usage",
        "per month",
        "/ month",
        "recharge",
        "arrears",
        "overdue payment",
        "budget has been exceeded",
    ];
    any(said, WORDS).then_some(Failure::QuotaExhausted)
}

/// The credential is at fault, whatever the status.
pub(super) fn bad_key(said: &Said) -> Option<Failure> {
    const WORDS: &[&str] = &[
        "api key not valid",
        "api key not found",
        "api key expired",
        "api key has expired",
        "api key has been",
        "api key was reported",
        "api key is invalid",
        "api key is missing",
        "invalid api key",
        "invalid api-key",
        "invalid api_key",
        "invalid x-api-key",
        "invalid authentication",
        "invalid bearer token",
        "incorrect api key",
        "valid api key",
        "no api key",
        "missing api key",
        "provide an api key",
        "no auth credentials",
        "authentication fail",
        "authentication failed",
        "unregistered callers",
        "token has expired",
        "token is expired",
        "token included in the request is",
        "organization has been disabled",
        "account has been deactivated",
        "has been suspended",
    ];
    any(said, WORDS).then_some(Failure::Auth)
}

/// Stopped by a policy on content. Never to be taken to another model.
pub(super) fn unsafe_content(said: &Said) -> Option<Failure> {
    const WORDS: &[&str] = &[
        "content management policy",
        "content filter",
        "content_filter",
        "content policy",
        "content exists risk",
        "content violates",
        "filtering policy",
        "usage policy",
        "usage policies",
        "usage guidelines",
        "safety system",
        "safety filter",
        "safety_check",
        "flagged as potentially",
        "was flagged",
        "requires moderation",
        "flagged by moderation",
        "moderation system",
        "inappropriate content",
        "prohibited content",
        "prohibited_content",
        "sensitive content",
        "considered high risk",
        "blocked by our",
        "blocked token",
        "deny-listed",
        "blocked by guardrail",
        "guardrail intervened",
        "guardrail_intervened",
    ];
    (said.flagged || any(said, WORDS)).then_some(Failure::SafetyBlock)
}

/// Prompt or payload does not fit.
pub(super) fn too_long(said: &Said) -> Option<Failure> {
    const WORDS: &[&str] = &[
        "context length",
        "context_length",
        "context window",
        "context size",
        "context limit",
        "maximum context",
        "max_model_len",
        "maximum model length",
        "prompt is too long",
        "prompt too long",
        "prompt exceeds",
        "maximum prompt length",
        "input is too long",
        "input too long",
        "input is too large",
        "input tokens exceeded",
        "input length and",
        "input token count",
        "range of input length",
        "number of input tokens exceeds",
        "maximum number of tokens allowed",
        "maximum input length",
        "maximum allowed input",
        "exceeded model token limit",
        "model token limit",
        "model's token limit",
        "messages is too long",
        "messages too long",
        "too many tokens",
        "too many input tokens",
        "too many prompt tokens",
        "reduce the length of the",
        "reduce your prompt",
        "shorten your prompt",
        "max_tokens must be at least 1, got -",
        "`max_new_tokens` must be <=",
        "request too large",
        "request exceeds the maximum size",
        "payload size exceeds",
        "request entity too large",
    ];
    any(said, WORDS).then_some(Failure::ContextExceeded)
}

/// The target cannot call tools, or not in the way asked for.
pub(super) fn ability(said: &Said) -> Option<Failure> {
    const WORDS: &[&str] = &[
        "requires --jinja",
        "tools param requires",
        "grammar constraints with tools",
        "--enable-auto-tool-choice",
        "tool-call-parser",
        "support tools",
        "support tool",
        "support function",
        "supports tool",
        "tools are not supported",
        "tools is not supported",
        "tool use is not",
        "tool calls are not",
        "tool calling is not",
        "tool choice is required, but",
        "function calling is not",
        "function calling with",
        "function calling config",
        "tool_choice is not supported",
        "not support this tool_choice",
        "'tools' is not supported",
        "`tools` is not supported",
    ];
    any(said, WORDS).then_some(Failure::ToolMismatch)
}

/// The target rejects how the tools are defined or chosen; another may take them. Faults in the *history* of tool
/// calls (an unpaired result...) are the client's and are not meant here.
pub(super) fn tool_definition(said: &Said) -> Option<Failure> {
    const WORDS: &[&str] = &[
        "tool schema",
        "input_schema",
        "inputschema",
        "schema for function",
        "function_declarations",
        "function_declaration",
        "function declaration",
        "functiondeclaration",
        "toolconfig",
        "tool_choice",
        "tool choice",
        "tool_config",
        "tool name",
        "tool names",
        "tool definition",
        "functions.name",
        "function.name",
        "parallel_tool_calls",
    ];
    const PARAMS: &[&str] = &["tools", "tool_choice", "functions", "function_call", "parallel_tool_calls"];
    if said.param.starts_with("messages") || said.message.starts_with("messages") {
        return None;
    }
    let by_param = PARAMS.iter().any(|param| said.param.starts_with(param));
    // "tools.0.custom.input_schema...", "tools[0].function.parameters..."
    let by_path =
        ["tools.", "tools[", "tools/", "tools:", "'tools'", "`tools`"].iter().any(|word| said.message.contains(word));
    (by_param || by_path || any(said, WORDS)).then_some(Failure::ToolMismatch)
}

/// No such model, or not for this account.
pub(super) fn no_model(said: &Said) -> Option<Failure> {
    const WHOLE: &[&str] = &[
        "invalid model",
        "unknown model",
        "unsupported model",
        "no such model",
        "not a valid model",
        "not found the model",
        "model identifier is invalid",
        "on-demand throughput isn't supported",
        "on-demand throughput is not supported",
        "no endpoints found",
        "no allowed providers",
        "access to the model",
        "access to model",
        "access to this model",
        "reached the end of its life",
        "must be verified to",
    ];
    const AFTER_MODEL: &[&str] = &[
        "not found",
        "does not exist",
        "doesn't exist",
        "not exist",
        "is not available",
        "not available in",
        "is not supported in this",
        "decommissioned",
        "been deprecated",
        "is deprecated",
        "been retired",
        "no longer available",
        "no longer supported",
    ];
    let after = said.message.find("model").is_some_and(|at| {
        let rest = &said.message[at..];
        AFTER_MODEL.iter().any(|word| rest.contains(word))
    });
    (after || any(said, WHOLE)).then_some(Failure::AccessDenied)
}

/// Not from here.
pub(super) fn no_region(said: &Said) -> Option<Failure> {
    const WORDS: &[&str] = &[
        "location is not supported",
        "country, region",
        "not available in your",
        "not supported in your",
        "unsupported region",
        "unsupported country",
        "not authorized to perform",
        "not allowed for your organization",
    ];
    any(said, WORDS).then_some(Failure::AccessDenied)
}

/// A 404 about something of the client's, not about the model or the path.
pub(super) fn other_resource(said: &Said) -> Option<Failure> {
    const WORDS: &[&str] = &[
        "item with id",
        "previous response",
        "previous_response",
        "conversation with id",
        "file with id",
        "no such file object",
        "vector store",
        "container with id",
        "file not found: ",
        "cached content",
        "cachedcontent",
    ];
    any(said, WORDS).then_some(Failure::InvalidRequest)
}

/// The target cannot take this kind of input. Some servers answer 500 for it, but no retry will help.
pub(super) fn unable_input(said: &Said) -> Option<Failure> {
    const WORDS: &[&str] = &[
        "image input is not supported",
        "audio input is not supported",
        "does not support image",
        "does not support audio",
        "doesn't support the image",
        "support image input",
        "image_url is only supported",
        "unknown variant `image_url`",
        "does not support vision",
        "not support multimodal",
        "not a multimodal model",
        "provide the mmproj",
        "unsupported content",
        "failed to load image",
    ];
    any(said, WORDS).then_some(Failure::InvalidRequest)
}

/// Too busy.
pub(super) fn overloaded(said: &Said) -> Option<Failure> {
    const WORDS: &[&str] = &[
        "overloaded",
        "at capacity",
        "over capacity",
        "server busy",
        "server is busy",
        "high demand",
        "loading model",
        "currently loading",
        "no capacity",
        "out of capacity",
        "maximum pending requests",
    ];
    any(said, WORDS).then_some(Failure::Overloaded)
}
