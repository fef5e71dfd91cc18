//! Which of the tools that a request names the model gets to see, by contract and mode.

use crate::{
    Inbound,
    json::{Fields, Str, Writer},
};
use outlast_model::{
    Brief,
    policy::{Contract, Dialect, ToolMode},
    turn::{Request, Tool},
};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Top-level fields that make the provider itself run something. In a contract each goes by its own name.
const PROVIDER_FIELDS: [&str; 4] = ["web_search_options", "plugins", "search_parameters", "mcp_servers"];

/// Anthropic's own tools that the client runs: their types begin so.
const CLIENT_RUN: [&str; 5] = ["bash_", "text_editor_", "computer_", "memory_", "custom"];

/// What a mode and a contract leave of a request's tools. A function goes by its name, a tool that the provider runs by
/// its name or else its type (`web_search`), or by the top-level field that asks for it (`web_search_options`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The model sees these.
    pub offered: Vec<Box<str>>,
    /// The model does not see these.
    pub withheld: Vec<Box<str>>,
    /// The request's `tool_choice` names a withheld tool, or no tool is left: the model chooses freely.
    pub choice_dropped: bool,
}

/// One tool that a request names.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    name: Box<str>,
    place: Place<'a>,
    provider_runs: bool,
    kept: bool,
}

#[derive(Debug)]
enum Place<'a> {
    /// An item of `tools`.
    Tools(&'a RawValue),
    /// An item of OpenAI's former `functions`.
    Functions(&'a RawValue),
    /// A field of its own.
    Field(&'static str),
}

/// The tools of a request, each judged.
#[derive(Debug, Default)]
pub(crate) struct Tools<'a> {
    items: Vec<Item<'a>>,
    /// What `tool_choice` becomes, if it changes; `None` within: it is left out.
    pub(crate) choice: Option<Option<String>>,
}

impl Inbound {
    /// What a mode and a contract leave of the request's tools.
    pub fn offer(&self, brief: &Brief, contract: &Contract) -> Offer {
        let tools = Tools::of(self, brief, contract);
        let names =
            |kept: bool| tools.items.iter().filter(|item| item.kept == kept).map(|item| item.name.clone()).collect();
        Offer { offered: names(true), withheld: names(false), choice_dropped: tools.choice.is_some() }
    }

    /// Whether the provider itself runs something for this request, as far as its fields and tools tell. `hub`: the
    /// request as decoded, which tools of unusual types make it be.
    pub(crate) fn has_provider_effects(&self, hub: Option<&Request>) -> bool {
        let opaque = |tool: &Tool| match tool {
            Tool::Function(_) => false,
            Tool::Opaque { kind, .. } => !is_client_run(kind),
        };
        let body = self.body();
        let mut names = self.scan().fields.iter().map(|field| &body[field.key.clone()]);
        let named = names.any(|key| PROVIDER_FIELDS.iter().any(|name| name.as_bytes() == key));
        hub.is_some_and(|hub| hub.tools.iter().any(opaque))
            || (named && PROVIDER_FIELDS.iter().any(|name| self.value(name).is_some_and(asks_something)))
    }
}

impl<'a> Tools<'a> {
    /// Reads and judges them.
    pub(crate) fn of(inbound: &'a Inbound, brief: &Brief, contract: &Contract) -> Tools<'a> {
        let mut tools = Tools { items: named(inbound), choice: None };
        let read_only = contract.tools.as_ref().map_or(&[][..], |policy| &policy.read_only);
        let lists = |list: &[std::sync::Arc<str>], name: &str| list.iter().any(|one| **one == *name);
        for item in &mut tools.items {
            let permitted = contract.permissions.tools.as_ref().is_none_or(|list| lists(list, &item.name));
            item.kept = permitted
                && match brief.tool_mode {
                    ToolMode::Full => true,
                    // What the provider runs cannot be planned, only done.
                    ToolMode::PlanOnly => !item.provider_runs,
                    ToolMode::ReadOnly => lists(read_only, &item.name),
                    ToolMode::None => false,
                };
        }
        if tools.withholds() {
            tools.choice = tools.new_choice(inbound);
        }
        tools
    }

    /// Some tool is withheld.
    pub(crate) fn withholds(&self) -> bool {
        self.items.iter().any(|item| !item.kept)
    }

    /// The model sees a tool that the client runs.
    pub(crate) fn any_left(&self) -> bool {
        self.items.iter().any(|item| item.kept && !matches!(item.place, Place::Field(_)))
    }

    /// Whether the tool of this place in `tools` is kept.
    pub(crate) fn keeps(&self, raw_at: usize) -> bool {
        let mut listed = self.items.iter().filter(|item| matches!(item.place, Place::Tools(_)));
        listed.nth(raw_at).is_none_or(|item| item.kept)
    }

    /// The top-level fields as they become: replaced, or (`None`) left out. `described`: no tool is sent at all.
    pub(crate) fn fields(&self, described: bool) -> Vec<(&'static str, Option<String>)> {
        let mut fields = Vec::new();
        let list = |is: fn(&Place<'a>) -> Option<&'a RawValue>| {
            let items: Vec<_> = self.items.iter().filter_map(|item| Some((is(&item.place)?, item.kept))).collect();
            if items.iter().all(|(_, kept)| *kept && !described) {
                return None;
            }
            let mut w = Writer::default();
            w.open(b'[');
            items.iter().filter(|(_, kept)| *kept && !described).for_each(|(raw, _)| {
                w.raw(raw.get());
            });
            w.close(b']');
            Some(Some(w.text()).filter(|text| text != "[]"))
        };
        let in_tools = list(|place| if let Place::Tools(raw) = place { Some(raw) } else { None });
        let in_functions = list(|place| if let Place::Functions(raw) = place { Some(raw) } else { None });
        if matches!(in_tools, Some(None)) {
            fields.push(("parallel_tool_calls", None));
        }
        if matches!(in_functions, Some(None)) {
            fields.push(("function_call", None));
        }
        fields.extend(in_tools.map(|value| ("tools", value)));
        fields.extend(in_functions.map(|value| ("functions", value)));
        for item in self.items.iter().filter(|item| !item.kept) {
            if let Place::Field(name) = item.place {
                fields.push((name, None));
            }
        }
        let provider_runs = |kept: bool| self.items.iter().any(|item| item.provider_runs && item.kept == kept);
        if provider_runs(false) && !provider_runs(true) {
            // Anthropic's container is what its own tools run in.
            fields.push(("container", None));
        }
        if described {
            fields.push(("tool_choice", None));
        } else if let Some(choice) = &self.choice {
            fields.push(("tool_choice", choice.clone()));
        }
        fields
    }

    /// Takes the withheld ones out of a decoded request.
    pub(crate) fn filter(&self, request: &mut Request, described: bool) {
        let mut at = 0;
        request.tools.retain(|_| {
            at += 1;
            !described && self.keeps(at - 1)
        });
        if described || self.choice.is_some() {
            request.tool_choice = None;
        }
        if request.tools.is_empty() {
            request.parallel_tool_calls = None;
        }
    }

    /// What `tool_choice` has to become now that tools are withheld; `None`: it may stay.
    fn new_choice(&self, inbound: &Inbound) -> Option<Option<String>> {
        let choice = inbound.value("tool_choice").filter(|choice| *choice != "null")?;
        if self.any_left() && !self.is_withheld_named(choice) {
            return None;
        }
        let one_at_a_time = inbound.dialect() == Dialect::Anthropic
            && serde_json::from_str::<AnthropicChoice>(choice)
                .is_ok_and(|choice| choice.disable_parallel_tool_use == Some(true));
        Some((one_at_a_time && self.any_left()).then(|| r#"{"type":"auto","disable_parallel_tool_use":true}"#.into()))
    }

    fn is_withheld_named(&self, choice: &str) -> bool {
        let Ok(choice) = serde_json::from_str::<serde_json::Value>(choice) else { return false };
        let mut names = Vec::new();
        let subset = choice.pointer("/allowed_tools/tools").or_else(|| choice.get("tools"));
        for named in subset.and_then(|list| list.as_array()).into_iter().flatten().chain([&choice]) {
            let paths = ["/name", "/function/name", "/custom/name", "/type"];
            names.extend(paths.iter().filter_map(|path| named.pointer(path)?.as_str()));
        }
        self.items.iter().any(|item| !item.kept && names.contains(&&*item.name))
    }
}

#[derive(Deserialize)]
struct AnthropicChoice {
    disable_parallel_tool_use: Option<bool>,
}

/// Every tool that a request names. A list that cannot be read is one nameless tool, so that nothing permits it.
fn named(inbound: &Inbound) -> Vec<Item<'_>> {
    let item = |name, place, provider_runs| Item { name, place, provider_runs, kept: true };
    let mut items = Vec::new();
    for list in ["tools", "functions"] {
        let Some(value) = inbound.value(list).filter(|value| *value != "null") else { continue };
        match serde_json::from_str::<Vec<&RawValue>>(value) {
            Ok(tools) => items.extend(tools.into_iter().map(|raw| {
                let (name, provider_runs) = name_of(raw);
                let place = if list == "tools" { Place::Tools(raw) } else { Place::Functions(raw) };
                item(name, place, provider_runs && list == "tools")
            })),
            Err(_) => items.push(item("".into(), Place::Field(list), true)),
        }
    }
    let asked = |name: &&&str| inbound.value(name).is_some_and(asks_something);
    items.extend(PROVIDER_FIELDS.iter().filter(asked).map(|name| item((*name).into(), Place::Field(name), true)));
    items
}

/// A tool's name, and whether the provider runs it. One without a name goes by its type; one that cannot be read, or that
/// says one thing twice, has no name, so that nothing permits it.
fn name_of(raw: &RawValue) -> (Box<str>, bool) {
    let ambiguous =
        |fields: &Fields<'_>| ["type", "name", "function", "custom"].iter().any(|name| fields.gives_twice(name));
    let Some(fields) = Fields::of(raw, "tools").ok().filter(|fields| !ambiguous(fields)) else {
        return ("".into(), true);
    };
    let kind = text(fields.look("type"));
    let inner = ["function", "custom"].iter().find_map(|name| Fields::of(fields.look(name)?, "tools").ok());
    if inner.as_ref().is_some_and(|inner| inner.gives_twice("name")) {
        return ("".into(), true);
    }
    let provider_runs =
        inner.is_none() && kind.as_ref().is_some_and(|kind| !is_client_run(&kind.0) && kind.0 != "function");
    let named = text(fields.look("name")).or_else(|| text(inner.and_then(|inner| inner.look("name"))));
    (named.or(kind).map_or("".into(), |name| name.0.into()), provider_runs)
}

fn text(raw: Option<&RawValue>) -> Option<Str<'_>> {
    serde_json::from_str(raw?.get()).ok()
}

fn is_client_run(kind: &str) -> bool {
    CLIENT_RUN.iter().any(|begin| kind.starts_with(begin)) || kind.starts_with("function")
}

/// A field's value that asks for something.
fn asks_something(value: &str) -> bool {
    !matches!(value, "null" | "[]" | "false")
}
