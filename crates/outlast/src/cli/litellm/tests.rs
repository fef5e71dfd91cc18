use super::*;

fn imported(yaml: &str) -> Imported {
    import(yaml).unwrap_or_else(|why| panic!("{why}"))
}

const TYPICAL: &str = r#"
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-eu
      api_base: https://my-endpoint-europe.openai.azure.com/
      api_key: os.environ/AZURE_EU_KEY
      api_version: "2024-02-01"
      rpm: 6
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-ca
      api_base: os.environ/AZURE_CA_BASE
      api_key: os.environ/AZURE_CA_KEY
      rpm: 9
      weight: 3
  - model_name: claude
    litellm_params:
      model: anthropic/claude-sonnet-4-5
      api_key: os.environ/ANTHROPIC_API_KEY
      timeout: 30
      stream_timeout: 10
    model_info:
      supports_function_calling: true
      max_input_tokens: 200000
  - model_name: anthropic/claude-haiku-4-5
    litellm_params:
      model: anthropic/claude-haiku-4-5
      api_key: os.environ/ANTHROPIC_API_KEY
  - model_name: mini
    litellm_params: {model: gpt-4o-mini, api_key: sk-live-0123456789abcdef, temperature: 0.2}
  - model_name: mini
    litellm_params: {model: openai/gpt-4o-mini, api_key: os.environ/OPENAI_KEY_2}
  - model_name: local
    litellm_params:
      model: hosted_vllm/meta-llama/Llama-3-8B
      api_base: http://gpu1:8000/v1
      api_key: none
      input_cost_per_token: 0.0000001
      output_cost_per_token: 0.0000002
  - model_name: titan
    litellm_params: {model: bedrock/amazon.titan-text-express-v1}
  - model_name: embed
    litellm_params: {model: openai/text-embedding-3-small}
    model_info: {mode: embedding}
router_settings:
  routing_strategy: simple-shuffle
  num_retries: 2
  timeout: 120
  redis_host: os.environ/REDIS_HOST
  model_group_alias: {"gpt-4": "gpt-4o"}
litellm_settings:
  fallbacks: [{"claude": ["mini", "local"]}, {"nobody": ["mini"]}]
  context_window_fallbacks: [{"mini": ["claude"]}]
  content_policy_fallbacks: [{"mini": ["claude"]}]
  success_callback: ["langfuse"]
general_settings:
  master_key: sk-1234-master
  database_url: postgresql://u:p@db/litellm
"#;

#[test]
fn a_typical_config_is_carried_and_what_is_not_is_named() {
    let imported = imported(TYPICAL);
    let expected = include_str!("typical.toml");
    if std::env::var_os("UPDATE").is_some() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/litellm");
        std::fs::write(folder.join("typical.toml"), &imported.toml).unwrap();
        std::fs::write(folder.join("typical.notes"), imported.notes.join("\n") + "\n").unwrap();
    }
    assert_eq!(imported.toml, expected);
    assert_eq!(imported.notes.join("\n") + "\n", include_str!("typical.notes"));
    let all = format!("{}{:?}", imported.toml, imported.notes);
    for secret in ["sk-live", "sk-1234", "u:p@db"] {
        assert!(!all.contains(secret), "{secret} is shown");
    }
}

#[test]
fn what_is_no_litellm_config_is_refused_with_the_reason() {
    for (yaml, why) in [
        ("a: [", "this is not the YAML of a config"),
        ("- 1", "it is no mapping"),
        ("general_settings: {}", "it has no `model_list`"),
        ("model_list: []", "nothing of it can be carried"),
        ("model_list: [{model_name: a, litellm_params: {model: bedrock/x}}]", "bedrock speaks a dialect"),
    ] {
        let error = import(yaml).unwrap_err();
        assert!(error.contains(why), "{yaml}: {error}");
    }
}

#[test]
fn azures_endpoint_is_found_from_whatever_address_the_file_has() {
    for base in ["https://openai-x.openai.azure.com/", "https://openai-x.openai.azure.com/openai/deployments/gpt-4"] {
        let yaml =
            format!("model_list: [{{model_name: a, litellm_params: {{model: azure/gpt-4, api_base: '{base}'}}}}]");
        let toml = imported(&yaml).toml;
        assert!(toml.contains("base_url = \"https://openai-x.openai.azure.com/openai/v1\""), "{base}: {toml}");
    }
}

#[test]
fn wildcards_open_the_catalogue() {
    let imported =
        imported("model_list: [{model_name: 'openai/*', litellm_params: {model: 'openai/*', api_key: os.environ/K}}]");
    assert!(imported.toml.contains("direct = \"catalogue\"") && imported.toml.contains("[providers.openai]"));
}

#[test]
fn a_route_named_like_a_provider_keeps_its_name_and_the_provider_gives_way() {
    let imported = imported(
        "model_list:\n\
         - {model_name: openai/smart, litellm_params: {model: openai/gpt-5.2}}\n\
         - {model_name: openai/smart, litellm_params: {model: anthropic/claude-sonnet-5}}\n",
    );
    assert!(imported.toml.contains("[routes.\"openai/smart\"]"), "{}", imported.toml);
    assert!(imported.toml.contains("\"openai-api/gpt-5.2\""), "{}", imported.toml);
}

#[test]
fn two_keys_in_the_file_become_two_variables_and_dummies_none() {
    let imported = imported(
        "model_list:\n\
         - {model_name: a, litellm_params: {model: gpt-4o, api_key: sk-first-0123456789}}\n\
         - {model_name: a, litellm_params: {model: gpt-4o, api_key: sk-second-0123456789}}\n\
         - {model_name: b, litellm_params: {model: openai/x, api_key: fake-key, api_base: 'http://gpu1:8000'}}\n\
         general_settings: {host: 0.0.0.0, port: 4000}\n",
    );
    assert!(imported.toml.contains("api_keys = [\"${OPENAI_API_KEY}\", \"${OPENAI_API_KEY_2}\"]"), "{}", imported.toml);
    assert!(imported.toml.contains("[providers.gpu1]") && !imported.toml.contains("GPU1_API_KEY"), "{}", imported.toml);
    assert!(!imported.toml.contains("listen"), "an open gateway is not made by an import");
}

#[test]
fn what_does_not_chat_is_left_out_and_an_unknown_vendor_with_an_address_is_taken() {
    let imported = imported(
        "model_list:\n\
         - {model_name: e, litellm_params: {model: openai/text-embedding-3-small}}\n\
         - {model_name: d, litellm_params: {model: azure/, api_base: 'https://x.openai.azure.com'}}\n\
         - {model_name: z, litellm_params: {model: zhipu/glm-4, api_key: os.environ/Z, api_base: 'https://open.bigmodel.cn/api/paas/v4'}, rpm: 3}\n\
         general_settings: {port: 4000}\n",
    );
    assert!(imported.toml.contains("targets = [\"zhipu/glm-4\"]"), "{}", imported.toml);
    assert!(imported.toml.contains("listen = \"127.0.0.1:4000\""), "{}", imported.toml);
    let notes = imported.notes.join("\n");
    for part in ["\"embed\"", "the model has no name", "zhipu is taken to speak", "model_list[2].rpm"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}
