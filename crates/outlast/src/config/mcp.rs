//! `[mcp.*]`: the servers that tools are on.

use super::{
    Endpoint, McpServer, McpTransport, SecretKey,
    contracts::Around,
    read::{At, Log, Named, Place},
    secrets::expand,
    tools,
    work_file::{McpFile, ToolFile},
};
use std::{collections::BTreeMap, sync::Arc};

/// Judges them all.
pub(super) fn judge(
    file: Option<&At<Named<McpFile>>>,
    tools: Option<&At<Named<ToolFile>>>,
    around: Around<'_>,
    log: &mut Log,
) -> BTreeMap<Arc<str>, Arc<McpServer>> {
    let mut servers = BTreeMap::new();
    for (name, written) in file.iter().flat_map(|all| &all.value) {
        if name.is_empty() || name.len() > 64 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            log.error(&written.place, "a server's name has 1 to 64 characters and no spaces", "Rename it");
        }
        let mut used = tools.iter().flat_map(|all| all.value.values()).filter_map(|tool| tool.value.server.as_ref());
        if !used.any(|server| server.value == *name) && !log.has_error_under("tools") {
            let what = "nothing can reach it: no tool is on this server";
            let remedy = format!("Add [tools.NAME] with kind = \"mcp\" and server = \"{name}\", or remove it");
            log.error(&written.place, what, remedy);
        }
        if let Some(transport) = transport(&written.value, &written.place, around, log) {
            let name: Arc<str> = name.as_str().into();
            servers.insert(Arc::clone(&name), Arc::new(McpServer { name, transport }));
        }
    }
    servers
}

fn transport(file: &McpFile, place: &Place, around: Around<'_>, log: &mut Log) -> Option<McpTransport> {
    match (&file.command, &file.url) {
        (Some(command), None) => {
            if let Some(headers) = &file.headers {
                log.error(&headers.place, "it never takes effect: a program is started", "Remove `headers`");
            }
            self::command(command, file, around, log)
        }
        (None, Some(url)) => {
            if let Some(env) = &file.env {
                log.error(&env.place, "it never takes effect: no program is started", "Remove `env`");
            }
            let url = tools::endpoint(url, around, log);
            let headers = tools::own_headers(file.headers.as_ref(), around, log);
            Some(McpTransport::Http(Endpoint { url: url?, headers: headers? }))
        }
        (Some(_), Some(url)) => {
            log.error(&url.place, "`command` is there as well", "Keep one of the two");
            None
        }
        (None, None) => {
            if !log.has_error_under(&place.path) {
                let what = "it has neither `command` nor `url`";
                log.error(place, what, "Add command = [\"npx\", \"...\"] or url = \"https://mcp.example.com/mcp\"");
            }
            None
        }
    }
}

fn command(command: &At<Vec<At<String>>>, file: &McpFile, around: Around<'_>, log: &mut Log) -> Option<McpTransport> {
    for word in command.value.iter().filter(|word| word.value.contains("${")) {
        let what = "what a program is started with is seen by everybody on the machine";
        log.error(&word.place, what, "Write `${NAME}` in `env`, which only the program sees");
    }
    let mut complete = true;
    if command.value.is_empty() && !log.has_error_under(&command.place.path) {
        log.error(&command.place, "the list is empty", "Write the program and its arguments: [\"npx\", \"...\"]");
    }
    let mut env = Vec::new();
    for (name, setting) in file.env.iter().flat_map(|env| &env.value) {
        if name.is_empty() || name.contains(['=', '\0']) {
            log.error(&setting.place, format_args!("\"{name}\" is no name of a variable"), "Rename it");
        }
        let Some(value) = expand(setting, around.env, log) else {
            complete = false;
            continue;
        };
        let secret = ["KEY", "TOKEN", "SECRET", "PASSWORD"].iter().any(|word| name.to_uppercase().contains(word));
        if secret && !value.from_env {
            let what = "a secret in the file is seen by whoever sees the file; ${NAME} keeps it in the environment";
            log.warn(&setting.place, what);
        }
        env.push((Arc::from(name.as_str()), SecretKey::new(value.text)));
    }
    let mut words = command.value.iter().map(|word| Arc::<str>::from(word.value.as_str()));
    let program = words.next()?;
    complete.then(|| McpTransport::Command { program, args: words.collect(), env })
}
