//! The config: one TOML file, or the API keys found in the environment. Everything is judged at load, all problems are
//! told at once, and what comes out is valid: the rest of the program never checks it again.
//!
//! Nothing here reads the environment, a clock or the network: the caller passes a look-up for variables, and only
//! [`Config::load`] opens the file. JSON files that it names (schemas, golden tasks) are read beside it.

#[macro_use]
mod grammar;

mod backstops;
mod catalogue;
mod confidence;
mod contracts;
mod ends;
mod env;
mod error;
mod facts;
mod file;
mod fit;
mod flow;
mod golden;
mod hooks;
mod judge;
mod mcp;
mod people;
mod presets;
mod promises;
mod providers;
mod read;
mod reload;
mod routes;
mod runs;
mod schema;
mod schemas;
mod secret;
mod secrets;
mod settings;
mod step_routes;
mod steps;
mod store;
mod targets;
mod tiers;
mod tools;
mod units;
mod url;
mod words;
mod work;
mod work_file;
mod work_words;
mod workflows;

pub use env::toml_from_env;
pub use error::{ConfigError, ConfigErrors};
pub use golden::GoldenTask;
pub use reload::{Changes, Reload, Reloader};
pub use schema::schema;
pub use secret::{KeyHash, SecretKey};
pub use settings::DEFAULT_TIMEOUTS;
pub use settings::{AlertEvent, Alerts, Config, Kind, LogFormat, Provider, Server, Telemetry, TlsFiles};
pub use store::{DataKey, Sealing, StoreConfig};
pub(crate) use tools::horizon;
pub use units::show_duration;
pub use url::BaseUrl;
pub use work::{
    Endpoint, Escalations, Level, McpServer, McpTransport, Notify, NotifyKind, Reviewer, RunsConfig, Smtp, SmtpTls,
    StepPlan, StepTexts, Tool, Unanswered, UndoPlan, Verify, WorkflowPlan,
};

use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// Looks up an environment variable. The process passes the real one, tests pass a table.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The longest config file that is read: a config is written by hand.
const FILE_BYTES_MAX: u64 = 4 << 20;

impl Config {
    /// Reads and judges a file. Errors name it as `path` does; relative paths in it are relative to it.
    ///
    /// # Errors
    /// Every problem of the file, in the order of its lines.
    pub fn load(path: &Path, env: Env<'_>) -> Result<Config, ConfigErrors> {
        let source = path.display().to_string();
        let whole = |what: String, remedy: &str| {
            let (what, remedy) = (what.into(), remedy.into());
            ConfigErrors(vec![ConfigError { file: source.as_str().into(), line: None, path: "".into(), what, remedy }])
        };
        let bytes = read_file(path)
            .map_err(|why| whole(format!("it cannot be read: {why}"), "Check the path and the permissions"))?;
        let text =
            str::from_utf8(&bytes).map_err(|why| whole(format!("it is not UTF-8 text: {why}"), "Save it as UTF-8"))?;
        let base = path.parent().unwrap_or(Path::new(""));
        let config = Config::from_text(text, &source, base, env)?;
        Ok(Config { hash: Some(content_hash(&bytes, &config.files)), ..config })
    }

    /// Reads and judges a config's text. `source` names it in errors; relative paths in it are relative to `base`.
    ///
    /// # Errors
    /// Every problem of the text, in the order of its lines.
    pub fn from_text(text: &str, source: &str, base: &Path, env: Env<'_>) -> Result<Config, ConfigErrors> {
        judge::config(text, source, base, env)
    }
}

/// A file that cannot be read counts as none: it may be in the middle of being replaced.
fn content_hash(bytes: &[u8], files: &[PathBuf]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes);
    for bytes in files.iter().filter_map(|file| read_file(file).ok()) {
        hasher.update(blake3::hash(&bytes).as_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other("it is longer than 4 MiB"));
    }
    Ok(bytes)
}
