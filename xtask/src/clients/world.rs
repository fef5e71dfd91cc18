//! The processes one suite talks to, and the gateway's config: two healthy routes, and for every
//! fault a route of its own, so that one test's broken target never trips another's breaker.

use crate::process::{Running, free_address};
use std::{fmt::Write, fs, net::SocketAddr, path::Path, process::Command};

/// The caller's key that the gateway asks for.
const CALLER_KEY: &str = "sk-outlast-suite-caller-key-00000000001";

/// Both vendors: the name of the provider, its healthy model and its base URL's path.
const VENDORS: [Vendor; 2] = [
    Vendor { name: "openai", model: "gpt-5.2", path: "/v1", variable: "OPENAI_VENDOR_URL" },
    Vendor { name: "anthropic", model: "claude-sonnet-5", path: "", variable: "ANTHROPIC_VENDOR_URL" },
];

/// A fake vendor. Its name is also its provider's, its kind and its dialect's.
struct Vendor {
    name: &'static str,
    model: &'static str,
    path: &'static str,
    variable: &'static str,
}

/// Faults by the name that tests use, as `docs/faults.md` writes them. `{client}-{vendor}-{name}`
/// is a route of that target alone, `...-then-good` one with a healthy target behind it.
const FAULTS: &[(&str, &str)] = &[
    ("503", "503"),
    ("429", "429:retry-after=2m"),
    ("auth", "auth"),
    ("context", "context-exceeded"),
    ("hang", "hang"),
    ("hang-client", "hang"),
    ("reset", "reset:before-headers"),
    ("empty", "empty"),
    ("malformed", "malformed-chunk:after=0"),
    ("cut-reset", "cut:after=3,how=reset"),
    ("cut-close", "cut:after=3,how=close"),
    ("cut-eof", "cut:after=3,how=eof"),
    ("cut-first", "cut:after=0,how=eof"),
    ("cut-tool", "cut:inside-tool,how=eof"),
    ("no-terminal", "no-terminal"),
    ("error-event", "error-event:after=3"),
    ("error-first", "error-event:after=0"),
    ("stall", "stall:after=3"),
    ("schema-drift", "schema-drift"),
];

/// What the routes under contract are held to.
const CONTRACTS: &str = r#"
[store]
file = "outlast.db"
plaintext_payloads = true

[contracts.triage]
repair = { fixes = ["fences"] }
schema = { type = "object", required = ["summary", "risk", "next_action"], additionalProperties = false, properties = { summary = { type = "string" }, risk = { enum = ["low", "high"] }, next_action = { type = "string" } } }

[contracts.acting]
tools = { primary = "full", fallback = "plan-only" }

[backstops.apology]
kind = "static"
reply = "We are looking into it. Your order is safe."

[backstops.smaller]
kind = "confirm"
question = "May a smaller model answer?"
route = "to-openai"
"#;

/// Two fake vendors and the gateway, running.
pub(super) struct World {
    vendors: Vec<SocketAddr>,
    gateway: SocketAddr,
    _processes: Vec<Running>,
}

impl World {
    /// Starts them and waits until each answers.
    pub(super) fn start(outlast: &Path, folder: &Path) -> Result<Self, String> {
        let mut vendors = Vec::new();
        let mut processes = Vec::new();
        for vendor in &VENDORS {
            let address = free_address()?;
            let mut command = Command::new(outlast);
            command.args(["fake", "--listen", &address.to_string()]);
            let log = folder.join(format!("{}-vendor.log", vendor.name));
            let mut process = Running::start(vendor.name, &mut command, &log)?;
            process.wait_ready(address, "/fake/log")?;
            vendors.push(address);
            processes.push(process);
        }
        let gateway = free_address()?;
        let path = folder.join("outlast.toml");
        fs::write(&path, config(&vendors)).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut command = Command::new(outlast);
        command.args(["serve", "--listen", &gateway.to_string(), "--config"]).arg(&path);
        command.env("SUITE_CALLER_KEY", CALLER_KEY).current_dir(folder);
        let mut process = Running::start("gateway", &mut command, &folder.join("gateway.log"))?;
        process.wait_ready(gateway, "/readyz")?;
        processes.push(process);
        Ok(Self { vendors, gateway, _processes: processes })
    }

    /// Tells a suite where everything is, and hides the developer's own accounts and proxies.
    pub(super) fn tell(&self, command: &mut Command) {
        command.env("OUTLAST_URL", format!("http://{}", self.gateway)).env("OUTLAST_KEY", CALLER_KEY);
        for (vendor, address) in VENDORS.iter().zip(&self.vendors) {
            command.env(vendor.variable, format!("http://{address}"));
        }
        for proxy in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        for prefix in ["OPENAI", "ANTHROPIC"] {
            for name in ["API_KEY", "BASE_URL", "AUTH_TOKEN", "ORG_ID", "PROJECT_ID"] {
                command.env_remove(format!("{prefix}_{name}"));
            }
        }
    }
}

/// The gateway's config.
fn config(vendors: &[SocketAddr]) -> String {
    let mut text = String::from(
        "[server]\nkeys = [\"${SUITE_CALLER_KEY}\"]\nmax_body = \"2MB\"\n\n[telemetry]\nfile = \"telemetry.db\"\nsample = 1.0\n",
    );
    for (vendor, address) in VENDORS.iter().zip(vendors) {
        let Vendor { name, path, .. } = vendor;
        let address = address.to_string();
        // A rejected key takes all its provider's targets out, so each client that tests it has an account of its
        // own. Port 9 is reserved for discarding: nobody listens there.
        let own = VENDORS.map(|client| format!("{}-clients-", client.name));
        let accounts = [("", address.as_str()), (&own[0], &address), (&own[1], &address), ("dead-", "127.0.0.1:9")];
        for (prefix, address) in accounts {
            let _ = write!(
                text,
                r#"
[providers.{prefix}{name}]
kind = "{name}"
base_url = "http://{address}{path}"
api_key = "sk-suite"
probes = false
timeouts = {{ connect = "1s", header = "2s", first_token = "2s", idle = "2s", total = "10s" }}
"#
            );
        }
        let _ = write!(text, "\n[routes.to-{name}]\ntargets = [\"{name}/{}\"]\n", vendor.model);
    }
    for client in &VENDORS {
        for (at, vendor) in VENDORS.iter().enumerate() {
            let other = &VENDORS[1 - at];
            let good = format!("{}/{}", other.name, other.model);
            for (fault, plan) in FAULTS {
                let account = if *fault == "auth" { format!("{}-clients-", client.name) } else { String::new() };
                let route = format!("{}-{}-{fault}", client.name, vendor.name);
                add_route(&mut text, &route, &[&format!("{account}{}/{route}~{plan}", vendor.name)]);
                let route = format!("{route}-then-good");
                add_route(&mut text, &route, &[&format!("{account}{}/{route}~{plan}", vendor.name), &good]);
            }
            add_contract_routes(&mut text, client.name, vendor.name, &good);
            let route = format!("{}-{}-dead-then-good", client.name, vendor.name);
            add_route(&mut text, &route, &[&format!("dead-{}/{route}", vendor.name), &good]);
        }
    }
    text += CONTRACTS;
    for client in &VENDORS {
        let client = client.name;
        for (end, backstop) in [("static", "apology"), ("confirm", "smaller"), ("queue", "queue")] {
            let route = format!("{client}-{end}");
            let more = format!("backstops = [\"{backstop}\"]\n");
            add_route_with(&mut text, &route, &[&format!("openai/{route}~503")], &more, true);
        }
    }
    text
}

/// Adds a route and says that its first target can do everything: what is not known to be able
/// comes after what is, and the fault would never show.
fn add_route(text: &mut String, route: &str, targets: &[&str]) {
    add_route_with(text, route, targets, "", true);
}

/// The same with more settings of the route, and a first target that can call tools or cannot.
fn add_route_with(text: &mut String, route: &str, targets: &[&str], more: &str, tools: bool) {
    let quoted: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
    let _ = write!(
        text,
        "\n[routes.\"{route}\"]\ntargets = [{}]\n{more}\n[targets.\"{}\"]\ncapabilities = {{ tools = {tools}, images = true, json_schema = true }}\n",
        quoted.join(", "),
        targets[0]
    );
}

/// Routes that are held to a contract, with a healthy target of the other vendor behind.
fn add_contract_routes(text: &mut String, client: &str, vendor: &str, good: &str) {
    for (name, plan) in [("drift", "schema-drift"), ("fenced", "json-slip:fences"), ("filtered", "content-filter")] {
        let route = format!("{client}-{vendor}-{name}-under-contract");
        let target = format!("{vendor}/{route}~{plan}");
        add_route_with(text, &route, &[&target, good], "contract = \"triage\"\n", true);
    }
    let route = format!("{client}-{vendor}-plan");
    add_route_with(text, &route, &[&format!("{vendor}/{route}")], "contract = \"acting\"\n", false);
}
