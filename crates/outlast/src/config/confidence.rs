//! Judges `confidence`: exactly one source that says how sure a reply is.

use super::{
    contracts::{is_in_schema, is_path},
    promises::ConfidenceFile,
    read::{At, Log, did_you_mean},
    schemas,
};
use outlast_model::{
    RouteId, Usd,
    policy::{Checks, Confidence, ConfidenceFrom, Judge},
};
use std::time::Duration;

/// How long a judge may take where nothing else is said.
pub(super) const JUDGE_TIMEOUT: Duration = Duration::from_secs(30);

/// The words of `from` that are no path.
const WORDS: [&str; 3] = ["votes", "judge", "field"];

/// Judges the table. `None`: there is none, or the log has the reason.
pub(super) fn confidence(file: Option<&At<ConfidenceFile>>, checks: &Checks, log: &mut Log) -> Option<Confidence> {
    let At { value: file, place } = file?;
    let unreadable = log.has_error_under(&place.path);
    for (name, missing, remedy) in [
        ("from", file.from.is_none(), "Add from = \"confidence\" (a field of the reply), \"votes\" or \"judge\""),
        ("min", file.min.is_none(), "Add min = 0.7, or what the route can bear"),
    ] {
        if missing && !unreadable {
            log.error(place, format_args!("it has no `{name}`"), remedy);
        }
    }
    let (from, min) = (file.from.as_ref()?, file.min.as_ref()?);
    if min.value > 1.0 {
        log.error(&min.place, format_args!("{} is more than certain", min.value), "Write 0 to 1");
    } else if min.value == 0.0 {
        log.error(&min.place, "everything passes a minimum of 0", "Raise it or remove `confidence`");
    }
    let from = match from.value.as_str() {
        "votes" => {
            belong(file, &[], "votes", log);
            ConfidenceFrom::Votes
        }
        "judge" => judge(file, place, log)?,
        "field" => {
            belong(file, &["field"], "a field", log);
            let Some(field) = &file.field else {
                log.error(place, "it does not say which field", "Add field = \"confidence\"");
                return None;
            };
            path(field, checks, log)?
        }
        _ => {
            belong(file, &[], "a field", log);
            path(from, checks, log)?
        }
    };
    Some(Confidence { from, min: min.value })
}

fn path(setting: &At<String>, checks: &Checks, log: &mut Log) -> Option<ConfidenceFrom> {
    if !is_path(setting, log) {
        return None;
    }
    let slip = did_you_mean(&setting.value, WORDS.into_iter()).filter(|near| *near != setting.value);
    let known = checks.schema.as_ref().is_some_and(|schema| !schemas::lacks(schema, &setting.value));
    match slip {
        Some(near) if !known => {
            let what = format!("no schema says that a reply has a field \"{}\"", setting.value);
            let remedy = format!("Did you mean \"{near}\"? Otherwise add the field to the schema");
            log.error(&setting.place, what, remedy);
        }
        Some(_) | None => is_in_schema(setting, checks, log),
    }
    Some(ConfidenceFrom::Field(setting.value.as_str().into()))
}

fn judge(file: &ConfidenceFile, place: &super::read::Place, log: &mut Log) -> Option<ConfidenceFrom> {
    belong(file, &["route", "instructions", "cost_max_usd", "timeout"], "a judge", log);
    let cost_max = file.cost_max_usd.as_ref().map(|cost| {
        if cost.value == 0.0 {
            log.error(&cost.place, "no verdict is free", "Write what one may cost, like 0.002");
        }
        Usd::from_dollars(cost.value)
    });
    let Some(route) = &file.route else {
        if !log.has_error_under(&place.path) {
            log.error(place, "it does not say which route judges", "Add route = \"judge\" and that route");
        }
        return None;
    };
    Some(ConfidenceFrom::Judge(Judge {
        route: RouteId::from(route.value.as_str()),
        instructions: file.instructions.as_ref().map(|text| text.value.as_str().into()),
        cost_max,
        timeout: file.timeout.as_ref().map_or(JUDGE_TIMEOUT, |timeout| timeout.value.0),
    }))
}

/// A setting of one source says nothing of another.
fn belong(file: &ConfidenceFile, own: &[&str], source: &str, log: &mut Log) {
    let settings = [
        ("field", file.field.as_ref().map(|at| &at.place)),
        ("route", file.route.as_ref().map(|at| &at.place)),
        ("instructions", file.instructions.as_ref().map(|at| &at.place)),
        ("cost_max_usd", file.cost_max_usd.as_ref().map(|at| &at.place)),
        ("timeout", file.timeout.as_ref().map(|at| &at.place)),
    ];
    for (name, place) in settings.into_iter().filter(|(name, _)| !own.contains(name)) {
        if let Some(place) = place {
            let what = format!("it never takes effect: the confidence comes from {source}");
            log.error(place, what, format_args!("Remove `{name}`, or choose its source with `from`"));
        }
    }
}
