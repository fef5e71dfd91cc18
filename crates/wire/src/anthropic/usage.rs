//! Anthropic's account of tokens: cached ones are apart from the input's.

use crate::{json::Writer, lax::Count};
use outlast_model::turn::Usage;
use serde::Deserialize;

/// A `usage` object. In streams it comes in pieces; a later piece replaces what it names.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct UsageIn {
    #[serde(default)]
    input_tokens: Option<Count>,
    #[serde(default)]
    output_tokens: Option<Count>,
    #[serde(default)]
    cache_read_input_tokens: Option<Count>,
    #[serde(default)]
    cache_creation_input_tokens: Option<Count>,
    #[serde(default)]
    output_tokens_details: Option<DetailsIn>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct DetailsIn {
    #[serde(default)]
    thinking_tokens: Count,
}

impl UsageIn {
    /// Takes over what a later piece says.
    pub(super) fn update(&mut self, later: UsageIn) {
        self.input_tokens = later.input_tokens.or(self.input_tokens);
        self.output_tokens = later.output_tokens.or(self.output_tokens);
        self.cache_read_input_tokens = later.cache_read_input_tokens.or(self.cache_read_input_tokens);
        self.cache_creation_input_tokens = later.cache_creation_input_tokens.or(self.cache_creation_input_tokens);
        self.output_tokens_details = later.output_tokens_details.or(self.output_tokens_details);
    }

    /// In the hub's account.
    pub(super) fn hub(self) -> Usage {
        let count = |count: Option<Count>| count.unwrap_or_default().0;
        let (read, written) = (count(self.cache_read_input_tokens), count(self.cache_creation_input_tokens));
        Usage {
            input_tokens: count(self.input_tokens).saturating_add(read).saturating_add(written),
            output_tokens: count(self.output_tokens),
            cache_read_tokens: read,
            cache_write_tokens: written,
            reasoning_tokens: self.output_tokens_details.unwrap_or_default().thinking_tokens.0,
            estimated: false,
        }
    }
}

/// Writes a `usage` object's value.
pub(super) fn write(usage: &Usage, w: &mut Writer) {
    let cached = usage.cache_read_tokens.saturating_add(usage.cache_write_tokens);
    w.open(b'{');
    w.key("input_tokens").plain(usage.input_tokens.saturating_sub(cached));
    w.key("cache_creation_input_tokens").plain(usage.cache_write_tokens);
    w.key("cache_read_input_tokens").plain(usage.cache_read_tokens);
    w.key("output_tokens").plain(usage.output_tokens).close(b'}');
}
