//! LiteLLM's names of vendors, and what they are here.

/// How a LiteLLM prefix is reached from here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Vendor {
    /// Known: provider name, kind, where (none: the kind's own, or the deployment's `api_base`), key variable.
    Known { name: &'static str, kind: &'static str, base_url: Option<&'static str>, variable: Option<&'static str> },
    /// It speaks a dialect that Outlast does not have.
    Foreign,
}

const fn compatible(name: &'static str, base_url: &'static str, variable: &'static str) -> Vendor {
    Vendor::Known { name, kind: "openai-compatible", base_url: Some(base_url), variable: Some(variable) }
}

const fn hosted(name: &'static str) -> Vendor {
    Vendor::Known { name, kind: "openai-compatible", base_url: None, variable: None }
}

/// A prefix that is not listed: what has an `api_base` mostly speaks OpenAI's chat completions.
pub(super) const UNKNOWN: Vendor = hosted("unknown");

/// The parts of a model whose vendor is not listed.
pub(super) fn unknown(model: &str) -> Option<(&str, Vendor, &str)> {
    model.split_once('/').map(|(prefix, rest)| (prefix, UNKNOWN, rest))
}

const OPENAI: Vendor =
    Vendor::Known { name: "openai", kind: "openai", base_url: None, variable: Some("OPENAI_API_KEY") };
const ANTHROPIC: Vendor =
    Vendor::Known { name: "anthropic", kind: "anthropic", base_url: None, variable: Some("ANTHROPIC_API_KEY") };
const AZURE: Vendor =
    Vendor::Known { name: "azure", kind: "openai-compatible", base_url: None, variable: Some("AZURE_API_KEY") };
const OLLAMA: Vendor = Vendor::Known {
    name: "ollama",
    kind: "openai-compatible",
    base_url: Some("http://localhost:11434/v1"),
    variable: None,
};

/// The vendor of a `litellm_params.model`, and the model's name there. `None`: no vendor can be told.
pub(super) fn split(model: &str) -> Option<(&str, Vendor, &str)> {
    let Some((prefix, rest)) = model.split_once('/') else {
        let vendor = match model {
            _ if model.starts_with("claude") => ("anthropic", ANTHROPIC),
            _ if ["gpt-", "o1", "o3", "o4", "chatgpt-"].iter().any(|start| model.starts_with(start)) => {
                ("openai", OPENAI)
            }
            _ => return None,
        };
        return Some((vendor.0, vendor.1, model));
    };
    let vendor = match prefix {
        "openai" => OPENAI,
        "anthropic" => ANTHROPIC,
        "azure" | "azure_ai" => AZURE,
        "gemini" => compatible("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
        "groq" => compatible("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
        "mistral" => compatible("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
        "deepseek" => compatible("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
        "xai" => compatible("xai", "https://api.x.ai/v1", "XAI_API_KEY"),
        "together_ai" => compatible("together", "https://api.together.xyz/v1", "TOGETHER_API_KEY"),
        "openrouter" => compatible("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        "perplexity" => compatible("perplexity", "https://api.perplexity.ai", "PERPLEXITYAI_API_KEY"),
        "fireworks_ai" => compatible("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
        "cerebras" => compatible("cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
        "nvidia_nim" => compatible("nvidia", "https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
        "sambanova" => compatible("sambanova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
        "deepinfra" => compatible("deepinfra", "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
        "moonshot" => compatible("moonshot", "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
        "ollama" | "ollama_chat" => OLLAMA,
        "hosted_vllm" | "vllm" => hosted("vllm"),
        "lm_studio" => hosted("lm-studio"),
        "openai_like" | "custom_openai" | "litellm_proxy" | "llamafile" | "xinference" => hosted("hosted"),
        "ai21"
        | "aleph_alpha"
        | "baseten"
        | "bedrock"
        | "bedrock_converse"
        | "cloudflare"
        | "codestral"
        | "cohere"
        | "cohere_chat"
        | "databricks"
        | "huggingface"
        | "nlp_cloud"
        | "petals"
        | "predibase"
        | "replicate"
        | "sagemaker"
        | "sagemaker_chat"
        | "text-completion-openai"
        | "triton"
        | "vertex_ai"
        | "vertex_ai_beta"
        | "voyage"
        | "watsonx" => Vendor::Foreign,
        _ => return None,
    };
    Some((prefix, vendor, rest))
}
