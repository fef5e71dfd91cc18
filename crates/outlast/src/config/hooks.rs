//! `tools.*.verify`: how a receiver is asked whether an effect took place.

use super::{
    Endpoint, Tool, Verify,
    backstops::wanted,
    contracts::{Around, only_facts},
    read::{At, Log, Named, Place},
    tools,
    work_file::{ToolFile, VerifyFile},
    work_words::Fields,
};
use outlast_model::{
    ToolName,
    policy::{HttpMethod, VerifyBy, VerifyHook},
};
use outlast_wire::Shape;
use std::{collections::BTreeMap, sync::Arc};

/// What a hook's expressions may look at.
const ANSWER_FACTS: [&str; 3] = ["response", "arguments", "key"];
/// What a hook's question may be filled from.
const QUESTION_FACTS: [&str; 2] = ["key", "arguments"];

/// Judges one.
pub(super) fn judge(
    At { value: file, place }: &At<VerifyFile>,
    around: Around<'_>,
    log: &mut Log,
) -> Option<(VerifyHook, Verify)> {
    let by = by(file, place, around, log);
    let input = match &file.input {
        Some(input) => Some(Arc::new(shape(input, &QUESTION_FACTS, log)?)),
        None => None,
    };
    let done = wanted(&file.done, "done", "Add done = \"response.status == 'refunded'\"", place, log);
    let compiled = done.and_then(|done| tools::expression(done, &ANSWER_FACTS, log));
    let result = match &file.result {
        Some(result) => Some(Arc::new(tools::expression(result, &ANSWER_FACTS, log)?)),
        None => None,
    };
    let (by, http) = by?;
    let hook = VerifyHook {
        by,
        done: done?.value.trim().into(),
        result: file.result.as_ref().map(|result| result.value.trim().into()),
    };
    let written = file.input.as_ref().map(|input| input.value.0.clone());
    Some((hook, Verify { http, input, done: Arc::new(compiled?), result, written }))
}

fn by(file: &VerifyFile, place: &Place, around: Around<'_>, log: &mut Log) -> Option<(VerifyBy, Option<Endpoint>)> {
    match (&file.url, &file.tool) {
        (Some(url), None) => {
            let method = file.method.as_ref().map_or(HttpMethod::Post, |method| tools::http_method(method.value));
            let url = tools::endpoint(url, around, log);
            let headers = tools::own_headers(file.headers.as_ref(), around, log);
            Some((VerifyBy::Http { method }, Some(Endpoint { url: url?, headers: headers? })))
        }
        (None, Some(tool)) => {
            let inert = [
                ("method", file.method.as_ref().map(|at| &at.place)),
                ("headers", file.headers.as_ref().map(|at| &at.place)),
            ];
            for (name, place) in inert {
                if let Some(place) = place {
                    log.error(place, "it never takes effect: a tool is asked", format_args!("Remove `{name}`"));
                }
            }
            Some((VerifyBy::Tool(tool.value.as_str().into()), None))
        }
        (Some(_), Some(tool)) => {
            log.error(&tool.place, "`url` is there as well", "Keep one of the two");
            None
        }
        (None, None) => {
            if !log.has_error_under(&place.path) {
                let what = "it does not say who is asked";
                log.error(place, what, "Add tool = \"find_it\" or url = \"https://shop.example.com/find\"");
            }
            None
        }
    }
}

/// The tool that is asked must be there, be another one, and change nothing.
pub(super) fn asked_tool(
    name: &str,
    written: &At<ToolFile>,
    all: Option<&At<Named<ToolFile>>>,
    tools: &BTreeMap<ToolName, Arc<Tool>>,
    log: &mut Log,
) {
    let Some(At { value: asked, place }) = written.value.verify.as_ref().and_then(|hook| hook.value.tool.as_ref())
    else {
        return;
    };
    if asked == name {
        log.error(place, "it would be called to find out whether it was called", "Name a tool that only looks");
        return;
    }
    let known = tools::known_tool(asked, place, all, log);
    if let Some(tool) = tools.get(asked.as_str()).filter(|_| known)
        && tool.spec.class.is_effect()
    {
        let what = format!("asking has an effect of its own: `{asked}` is \"{}\"", tool.spec.class.name());
        log.error(place, what, "Name a tool whose effect is \"pure\"");
    }
    if let Some(tool) = tools.get(asked.as_str())
        && tool.spec.approval.may_ask()
    {
        log.error(place, format_args!("`{asked}` waits for a person's approval"), "Name a tool that needs none");
    }
}

/// Compiles JSON with templates whose facts are known.
pub(super) fn shape(At { value: Fields(json), place }: &At<Fields>, facts: &[&str], log: &mut Log) -> Option<Shape> {
    match Shape::compile(json) {
        Ok(shape) => {
            only_facts(shape.names(), facts, place, log);
            Some(shape)
        }
        Err(bad) => {
            told_bad(&bad, place, log);
            None
        }
    }
}

/// Every text of a shape that is no usable template.
pub(super) fn told_bad(bad: &[(String, String)], place: &Place, log: &mut Log) {
    for (path, why) in bad {
        let at = if path.is_empty() { String::new() } else { format!("`{path}`: ") };
        log.error(place, format_args!("{at}it is no usable template: {why}"), "Correct it");
    }
}
