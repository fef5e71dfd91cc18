//! OpenAI's account of tokens: cached ones are included in the prompt's.

use crate::{json::Writer, lax::Count};
use outlast_model::turn::Usage;
use serde::Deserialize;

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct UsageIn {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    total_tokens: Count,
    #[serde(default)]
    prompt_tokens_details: Option<PromptIn>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionIn>,
    /// DeepSeek's spelling.
    #[serde(default)]
    prompt_cache_hit_tokens: Count,
    /// Moonshot's spelling.
    #[serde(default)]
    cached_tokens: Count,
    #[serde(default)]
    reasoning_tokens: Count,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct PromptIn {
    #[serde(default)]
    cached_tokens: Count,
    #[serde(default)]
    cache_write_tokens: Count,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct CompletionIn {
    #[serde(default)]
    reasoning_tokens: Count,
}

impl UsageIn {
    /// In the hub's account.
    pub(super) fn hub(self) -> Usage {
        let prompt = self.prompt_tokens_details.unwrap_or_default();
        let reasoning =
            self.completion_tokens_details.unwrap_or_default().reasoning_tokens.0.max(self.reasoning_tokens.0);
        let (input, output) = (self.prompt_tokens.0, self.completion_tokens.0);
        // xAI leaves reasoning out of the completion; the total gives it away.
        let apart = reasoning > 0
            && u64::from(self.total_tokens.0) == u64::from(input) + u64::from(output) + u64::from(reasoning);
        let cached = prompt.cached_tokens.0.max(self.prompt_cache_hit_tokens.0).max(self.cached_tokens.0);
        Usage {
            // xAI on Azure leaves cached tokens out of the prompt.
            input_tokens: if cached > input { input.saturating_add(cached) } else { input },
            output_tokens: if apart { output.saturating_add(reasoning) } else { output },
            cache_read_tokens: cached,
            cache_write_tokens: prompt.cache_write_tokens.0,
            reasoning_tokens: reasoning,
            estimated: false,
        }
    }
}

/// Writes a `usage` object's value.
pub(super) fn write(usage: &Usage, w: &mut Writer) {
    w.open(b'{');
    w.key("prompt_tokens").plain(usage.input_tokens);
    w.key("completion_tokens").plain(usage.output_tokens);
    w.key("total_tokens").plain(u64::from(usage.input_tokens) + u64::from(usage.output_tokens));
    w.key("prompt_tokens_details").open(b'{');
    w.key("cached_tokens").plain(usage.cache_read_tokens);
    if usage.cache_write_tokens > 0 {
        w.key("cache_write_tokens").plain(usage.cache_write_tokens);
    }
    w.close(b'}');
    if usage.reasoning_tokens > 0 {
        w.key("completion_tokens_details").open(b'{');
        w.key("reasoning_tokens").plain(usage.reasoning_tokens).close(b'}');
    }
    w.close(b'}');
}
