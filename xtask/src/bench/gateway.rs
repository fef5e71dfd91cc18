//! How the gateway is set up for a benchmark: as a user would, with nothing switched off.

use std::net::SocketAddr;

/// The route that requests name as `model`.
pub(crate) const ROUTE: &str = "bench";

/// The environment variable that holds [`super::load::CALLER_KEY`] for the gateway.
pub(crate) const KEY_VARIABLE: &str = "OUTLAST_BENCH_KEY";

/// The config file: caller keys on, two targets behind one route, call records in a file.
pub(crate) fn config(listen: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        r#"[server]
listen = "{listen}"
keys = ["${{{KEY_VARIABLE}}}"]

[telemetry]
file = "telemetry.db"

[providers.main]
kind = "openai-compatible"
base_url = "http://{upstream}/v1"
api_key = "sk-upstream-main"

[providers.spare]
kind = "openai-compatible"
base_url = "http://{upstream}/v1"
api_key = "sk-upstream-spare"

[routes.{ROUTE}]
targets = ["main/bench-1", "spare/bench-1"]
tier = "standard"
"#
    )
}
