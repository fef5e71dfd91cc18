//! A reload: load again, compare, say what changes. The host watches the file and swaps; a bad file changes nothing.

use super::{Config, ConfigError, ConfigErrors, Env};
use outlast_model::policy::BackstopKind;
use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Watches one config file by its content: this survives replaced symlinks and bind mounts, where file events do not.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    /// What the config names beside itself, as last judged to be good.
    files: Vec<PathBuf>,
    /// BLAKE3 of the bytes last judged, good or bad: a bad file is told once, not at every poll.
    seen: Option<[u8; 32]>,
}

/// A good new config and what is different in it.
#[derive(Debug)]
pub struct Reload {
    /// To be swapped in.
    pub config: Config,
    /// For the log.
    pub changes: Changes,
}

impl Reloader {
    /// Watches the file that `config` came from.
    pub fn new(path: impl Into<PathBuf>, config: &Config) -> Self {
        Reloader { path: path.into(), files: config.files.clone(), seen: config.hash }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the bytes of the file, or of those it names, differ from those last judged. A file that cannot be read counts as unchanged: it may
    /// be in the middle of being replaced.
    pub fn is_changed(&self) -> bool {
        super::read_file(&self.path).is_ok_and(|bytes| Some(super::content_hash(&bytes, &self.files)) != self.seen)
    }

    /// Loads again, changed or not (an environment variable may have changed), and compares with what is running.
    ///
    /// # Errors
    /// Every problem of the new file; what is running goes on.
    pub fn reload(&mut self, running: &Config, env: Env<'_>) -> Result<Reload, ConfigErrors> {
        if let Ok(bytes) = super::read_file(&self.path) {
            self.seen = Some(super::content_hash(&bytes, &self.files));
        }
        let config = Config::load(&self.path, env)?;
        self.files.clone_from(&config.files);
        self.seen = config.hash;
        Reload::of(running, config)
    }
}

impl Reload {
    /// Prepares a new config to take the place of the running one. The listener and the store stand until a restart, so
    /// they are carried over, and what runs says what is true.
    ///
    /// # Errors
    /// When the listener that stands must not go on under the new config: it would be open to everybody. When the new
    /// config acknowledges what only a store could keep, and none runs.
    pub fn of(running: &Config, mut config: Config) -> Result<Reload, ConfigErrors> {
        let changes = Changes::between(running, &config);
        config.server.tls.clone_from(&running.server.tls);
        config.listen_on(running.server.listen)?;
        config.store.clone_from(&running.store);
        config.warnings.extend(unversioned(running, &config));
        match config.unkept() {
            Some(error) if config.store.is_none() => return Err(ConfigErrors(vec![error])),
            Some(_) | None => {}
        }
        Ok(Reload { config, changes })
    }
}

/// Runs that are under way keep their version, so a workflow that changed under the same one is done in two ways.
fn unversioned(running: &Config, new: &Config) -> Vec<Box<str>> {
    let plans = new.workflows.values().filter(|plan| {
        let before = running.workflows.get(&plan.spec.name);
        before.is_some_and(|before| before.spec.version == plan.spec.version && before.spec.hash != plan.spec.hash)
    });
    let told = plans.map(|plan| {
        let (name, version) = (&plan.spec.name, &plan.spec.version);
        let what = format!(
            "{}: workflow \"{name}\" has changed and is still version {version}: runs that are under way go on with the \
             changed one. Give it another version.",
            new.source
        );
        what.into()
    });
    told.collect()
}

impl Config {
    /// A route that acknowledges what must outlive the process.
    fn unkept(&self) -> Option<ConfigError> {
        if let Some(what) = self.keeps_runs() {
            let what = format!("{what} needs the store, and a store is opened only at the start");
            let path = "store".into();
            return Some(ConfigError {
                file: self.source.clone(),
                line: None,
                path,
                what: what.into(),
                remedy: "Restart Outlast".into(),
            });
        }
        let keeps = |kind: &BackstopKind| matches!(kind, BackstopKind::Queue { .. } | BackstopKind::Escalate { .. });
        let mut routes = self.routes.values();
        let (route, backstop) = routes.find_map(|route| {
            route.backstops.iter().find(|backstop| keeps(&backstop.kind)).map(|backstop| (route, backstop))
        })?;
        Some(ConfigError {
            file: self.source.clone(),
            line: None,
            path: "store".into(),
            what: format!(
                "route \"{}\" ends in \"{}\", which needs the store, and a store is opened only at the start",
                route.id, backstop.name
            )
            .into(),
            remedy: "Restart Outlast".into(),
        })
    }

    /// Work that must not be forgotten with the process.
    fn keeps_runs(&self) -> Option<String> {
        let workflow = self.workflows.keys().next().map(|name| format!("workflow \"{name}\""));
        let acts = self.tools.values().find(|tool| tool.spec.class.is_effect() || tool.spec.approval.may_ask());
        workflow.or_else(|| acts.map(|tool| format!("tool \"{}\"", tool.spec.name)))
    }

    /// Listens elsewhere than the file says.
    ///
    /// # Errors
    /// When callers need no key and the address is reachable from other machines.
    pub fn listen_on(&mut self, listen: SocketAddr) -> Result<(), ConfigErrors> {
        if let Some(what) = self.server.refuses(listen) {
            let remedy = "Add `keys` to [server], listen on 127.0.0.1, or set allow_open = true if that is meant";
            let path = "server.keys".into();
            let error =
                ConfigError { file: self.source.clone(), line: None, path, what: what.into(), remedy: remedy.into() };
            return Err(ConfigErrors(vec![error]));
        }
        self.server.listen = listen;
        Ok(())
    }
}

/// What is different between two configs, for people. Prints as `+2 targets (a/b, a/c); ~1 route (chat)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    lines: Vec<String>,
    /// Settings that differ and take effect only after a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Changes {
    /// Compares by what takes effect: a comment or the order of sections is no change.
    pub fn between(old: &Config, new: &Config) -> Changes {
        let mut lines = Vec::new();
        let providers = |config: &Config| config.providers.iter().map(|p| (p.id.to_string(), p.clone())).collect();
        compare("provider", &providers(old), &providers(new), &mut lines);
        let targets = |config: &Config| config.targets.iter().map(|t| (t.id.to_string(), t.clone())).collect();
        compare("target", &targets(old), &targets(new), &mut lines);
        let routes = |config: &Config| config.routes.iter().map(|(id, r)| (id.to_string(), r.clone())).collect();
        compare("route", &routes(old), &routes(new), &mut lines);
        let tools = |config: &Config| config.tools.iter().map(|(name, t)| (name.to_string(), t.clone())).collect();
        compare("tool", &tools(old), &tools(new), &mut lines);
        let servers = |config: &Config| config.mcp.iter().map(|(name, m)| (name.to_string(), m.clone())).collect();
        compare("MCP server", &servers(old), &servers(new), &mut lines);
        let plans = |config: &Config| config.workflows.iter().map(|(name, w)| (name.to_string(), w.clone())).collect();
        compare("workflow", &plans(old), &plans(new), &mut lines);
        let sections = [
            ("server", old.server != new.server),
            ("health", old.health != new.health),
            ("alerts", old.alerts != new.alerts),
            ("telemetry", old.telemetry != new.telemetry),
            ("store", old.store != new.store),
            ("golden", old.golden != new.golden),
            ("backstops", old.webhook_secrets != new.webhook_secrets),
            ("reviewers", old.reviewers != new.reviewers),
            ("notify", old.notify != new.notify),
            ("escalations", old.escalations != new.escalations),
            ("runs", old.runs != new.runs),
        ];
        lines.extend(sections.iter().filter(|(_, differs)| *differs).map(|(name, _)| format!("~{name}")));
        let direct =
            |config: &Config| config.direct.keys().filter(|name| !name.contains(' ')).cloned().collect::<Vec<_>>();
        if direct(old).is_empty() != direct(new).is_empty() {
            lines.push("~server.direct".to_owned());
        }
        let frozen = [
            ("server.listen", old.server.listen != new.server.listen),
            ("server.tls", old.server.tls != new.server.tls),
            ("telemetry.file", old.telemetry.file != new.telemetry.file),
            ("store", old.store != new.store),
        ];
        let needs_restart = frozen.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
        Changes { lines, needs_restart }
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines.as_slice() {
            [] => f.write_str("nothing changed"),
            lines => f.write_str(&lines.join("; ")),
        }?;
        match self.needs_restart.as_slice() {
            [] => Ok(()),
            names => write!(f, " (needs a restart: {})", names.join(", ")),
        }
    }
}

/// `Arc`s compare by content, so an untouched entry is equal whatever load it came from.
fn compare<T: PartialEq>(noun: &str, old: &BTreeMap<String, T>, new: &BTreeMap<String, T>, lines: &mut Vec<String>) {
    let added: Vec<&str> = new.keys().filter(|key| !old.contains_key(*key)).map(String::as_str).collect();
    let removed: Vec<&str> = old.keys().filter(|key| !new.contains_key(*key)).map(String::as_str).collect();
    let differs = |(key, value): &(&String, &T)| old.get(*key).is_some_and(|old| old != *value);
    let changed: Vec<&str> = new.iter().filter(differs).map(|(key, _)| key.as_str()).collect();
    for (sign, names) in [('+', added), ('-', removed), ('~', changed)] {
        const SHOWN: usize = 8;
        let plural = if names.len() == 1 { "" } else { "s" };
        let more = if names.len() > SHOWN { ", ..." } else { "" };
        let shown = names[..names.len().min(SHOWN)].join(", ");
        if !names.is_empty() {
            lines.push(format!("{sign}{} {noun}{plural} ({shown}{more})", names.len()));
        }
    }
}
