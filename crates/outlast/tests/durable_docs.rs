//! The examples of `docs/durable.md` are configs that load.

use outlast::config::Config;

const PROVIDERS: &str = r#"
[providers.openai]
kind = "openai"
api_key = "${KEY}"
[providers.anthropic]
kind = "anthropic"
api_key = "${KEY}"
[providers.gpu1]
kind = "openai-compatible"
base_url = "http://127.0.0.1:8000/v1"
"#;

#[test]
fn every_example_config_of_the_page_loads_as_it_stands() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/durable.md")).unwrap();
    let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let whole = PROVIDERS.to_owned() + &blocks.collect::<Vec<_>>().join("\n");
    assert!(whole.contains("[golden."), "the page has examples");
    let env = |name: &str| match name {
        "OUTLAST_DATA_KEY" => Some("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".to_owned()),
        _ => Some("secret-0123456789abcdef".to_owned()),
    };
    let folder = tempfile::tempdir().unwrap();
    let config = Config::from_text(&whole, "docs/durable.md", folder.path(), &env);
    let config = config.unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let names: Vec<&str> = config.routes["support"].backstops.iter().map(|backstop| &*backstop.name).collect();
    assert_eq!(names, ["cache", "smaller", "later"]);
}
