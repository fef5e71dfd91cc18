//! Judges contracts: each one as it is written, whichever route uses it. What depends on the route is judged in
//! [`super::fit`].

use super::{
    Env,
    confidence::confidence,
    file::File,
    promises::{
        ContractFile, DegradedFile, EvidenceFile, LengthFile, PermissionsFile, RepairFile, ToolsFile, ValidatorFile,
    },
    read::{At, Log, Named, Place, did_you_mean},
    schemas,
    secrets::expand,
    url,
    words::{
        AfterRepairChoice, DuplicatesChoice, FixChoice, KeepChoice, PresetChoice, RefusalChoice, RepairSetting,
        SafetyChoice, ShortenChoice, ToolModeChoice,
    },
};
use outlast_model::policy::{
    AfterRepair, Checks, Contract, ContractNeeds, Evidence, Expression, Fix, HttpValidator, Keep, Length, Permissions,
    RefusalPolicy, Repair, SafetyPolicy, Shorten, StreamContract, ToolMode, ToolPolicy,
};
use outlast_wire::{
    contract::{BadGate, Gates},
    template,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How long an HTTP validator may take where nothing else is said.
const VALIDATOR_TIMEOUT: Duration = Duration::from_secs(5);

/// What a notice may tell of: the host fills these in.
const NOTICE_FACTS: [&str; 6] = ["saved", "next", "gave_up", "actions", "age", "step"];

/// What the expressions of a contract may ask about.
const REPLY_FACTS: [&str; 3] = ["reply", "text", "request"];

/// What judging needs beyond the file.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    /// Relative paths are relative to it.
    pub(super) base: &'a Path,
    pub(super) env: Env<'a>,
    /// The files that were read beside the config, for the one who watches it.
    pub(super) files: &'a RefCell<BTreeSet<PathBuf>>,
}

/// Every contract a route may name: the presets, and the file's own over them. Their streams are still to be decided.
pub(super) fn judge(file: &File, around: Around<'_>, log: &mut Log) -> BTreeMap<String, Contract> {
    let presets = PresetChoice::ALL.into_iter().map(|preset| (preset.name().to_owned(), preset.contract()));
    let mut contracts: BTreeMap<String, Contract> = presets.collect();
    let providers: BTreeSet<&str> =
        file.providers.iter().flat_map(|all| all.value.keys().map(String::as_str)).collect();
    let bodies_stay = file.server.as_ref().and_then(|server| server.value.body_notes.as_ref());
    let bodies_stay = bodies_stay.is_some_and(|notes| !notes.value);
    for (name, written) in file.contracts.iter().flat_map(|all| &all.value) {
        let contract = judge_one(name, written, &providers, around, log);
        if let Some(notes) = written.value.body_notes.as_ref().filter(|notes| notes.value && bodies_stay) {
            let what = "it never takes effect: server.body_notes is false";
            log.error(&notes.place, what, "Remove one of the two");
        }
        contracts.insert(name.clone(), contract);
    }
    contracts
}

fn judge_one(
    name: &str,
    At { value: file, place }: &At<ContractFile>,
    providers: &BTreeSet<&str>,
    around: Around<'_>,
    log: &mut Log,
) -> Contract {
    let preset = file.preset.as_ref().map(|preset| preset.value).or_else(|| PresetChoice::named(name));
    let base = preset.map_or_else(|| Contract::plain(name, StreamContract::Fail), PresetChoice::contract);
    let checks = checks(file, base.checks, around, log);
    let degraded_schema = file.degraded.as_ref().and_then(|degraded| degraded_schema(degraded, &checks, around, log));
    let contract = Contract {
        name: name.into(),
        stream: base.stream,
        refusal: file.refusal.as_ref().map_or(base.refusal, |refusal| match refusal.value {
            RefusalChoice::Deliver => RefusalPolicy::Deliver,
            RefusalChoice::Reroute => RefusalPolicy::Reroute,
            RefusalChoice::Review => RefusalPolicy::Review,
        }),
        safety: file.safety.as_ref().map_or(base.safety, |safety| match safety.value {
            SafetyChoice::Return => SafetyPolicy::Return,
            SafetyChoice::Review => SafetyPolicy::Review,
        }),
        needs: needs(file, log).unwrap_or(base.needs),
        permissions: file.permissions.as_ref().map_or(base.permissions, |file| permissions(file, providers, log)),
        keeps: keeps(file, log).unwrap_or(base.keeps),
        confidence: confidence(file.confidence.as_ref(), &checks, log).or(base.confidence),
        validators: file.validators.as_ref().map_or(base.validators, |file| validators(file, around, log)),
        repair: repair(file, log).unwrap_or(base.repair),
        tools: file.tools.as_ref().map(|tools| tool_policy(tools, log)).or(base.tools),
        shorten: match file.shorten.as_ref().map(|shorten| shorten.value) {
            None => base.shorten,
            Some(ShortenChoice::Never) => None,
            Some(ShortenChoice::DropOldestTurns) => Some(Shorten::DropOldestTurns),
        },
        degraded_schema,
        notice: file.notice.as_ref().map(|notice| notice.value.as_str().into()).or(base.notice),
        body_notes: file.body_notes.as_ref().map_or(base.body_notes, |notes| notes.value),
        checks,
    };
    super::fit::explicit_stream(&contract, file, log);
    tools_permitted(&contract, file, log);
    compiles(&contract, file, place, log);
    contract
}

fn checks(file: &ContractFile, base: Checks, around: Around<'_>, log: &mut Log) -> Checks {
    let must_include = phrases(file.must_include.as_ref(), log).unwrap_or(base.must_include);
    let must_not = phrases(file.must_not.as_ref(), log).unwrap_or(base.must_not);
    if let Some(list) = &file.must_not {
        for never in &list.value {
            let found = |phrase: &Arc<str>| plain(phrase).contains(&plain(&never.value));
            if let Some(always) = must_include.iter().find(|phrase| found(phrase)) {
                let what = format!("no text can keep this: \"{always}\" has to be in it");
                log.error(&never.place, what, "Remove one of the two");
            }
        }
    }
    Checks {
        schema: match &file.schema {
            Some(setting) => schemas::read(setting, around, log),
            None => base.schema,
        },
        evidence: match &file.evidence {
            Some(file) => evidence(file, log),
            None => base.evidence,
        },
        must_include,
        must_not,
        language: file.language.as_ref().map(|language| Arc::from(language.value.to_lowercase())).or(base.language),
        length: match &file.length {
            Some(file) => length(file, log),
            None => base.length,
        },
        reject_duplicates: match file.duplicates.as_ref().map(|duplicates| duplicates.value) {
            None => base.reject_duplicates,
            Some(DuplicatesChoice::Allow) => false,
            Some(DuplicatesChoice::Reject) => true,
        },
        expressions: match &file.expressions {
            Some(file) => expressions(file, log),
            None => base.expressions,
        },
    }
}

/// A list that says nothing is told; `None`: there is none.
pub(super) fn phrases(file: Option<&At<Vec<At<String>>>>, log: &mut Log) -> Option<Vec<Arc<str>>> {
    let list = file?;
    not_empty(list, log);
    let mut phrases: Vec<Arc<str>> = Vec::new();
    for phrase in &list.value {
        if phrases.iter().any(|earlier| plain(earlier) == plain(&phrase.value)) {
            log.error(&phrase.place, "it is there twice; case and white space do not count", "Remove one of the two");
        }
        phrases.push(phrase.value.trim().into());
    }
    Some(phrases)
}

fn not_empty<T>(list: &At<Vec<T>>, log: &mut Log) {
    if list.value.is_empty() && !log.has_error_under(&list.place.path) {
        log.error(&list.place, "the list is empty, so it says nothing", "Add to it or remove it");
    }
}

/// A phrase as it is compared.
fn plain(phrase: &str) -> String {
    phrase.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Whether a text is a dotted path, such as `answer.citations`. The log has the reason if not.
pub(super) fn is_path(setting: &At<String>, log: &mut Log) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let is_path = setting.value.len() <= 256 && setting.value.split('.').all(word);
    if !is_path {
        let what = format!("\"{}\" is not a path", setting.value);
        log.error(&setting.place, what, "Write names with dots between them, like \"answer.citations\"");
    }
    is_path
}

/// A path that the schema has no place for can never be found in a reply that keeps it.
pub(super) fn is_in_schema(path: &At<String>, checks: &Checks, log: &mut Log) {
    let Some(schema) = &checks.schema else { return };
    if schemas::lacks(schema, &path.value) {
        let what =
            format!("the schema has no field \"{}\", so a reply that keeps it cannot have one either", path.value);
        log.error(&path.place, what, "Correct the path or add the field to the schema");
    }
}

fn evidence(At { value: file, place }: &At<EvidenceFile>, log: &mut Log) -> Option<Evidence> {
    let Some(sources) = &file.sources else {
        if !log.has_error_under(&place.path) {
            let what = "it does not say where a request's sources are, so no citation could be held to them";
            log.error(place, what, "Add sources = \"outlast.sources\"");
        }
        return None;
    };
    let whole = is_path(sources, log) & file.citations.as_ref().is_none_or(|path| is_path(path, log));
    whole.then(|| Evidence {
        sources: sources.value.as_str().into(),
        citations: file.citations.as_ref().map(|path| path.value.as_str().into()),
        min: file.min.as_ref().map_or(1, |min| min.value),
    })
}

fn length(At { value: file, place }: &At<LengthFile>, log: &mut Log) -> Option<Length> {
    let length = Length { min: file.min.as_ref().map(|min| min.value), max: file.max.as_ref().map(|max| max.value) };
    match (length.min, length.max) {
        (None, None) if !log.has_error_under(&place.path) => {
            log.error(place, "it has neither `min` nor `max`, so it says nothing", "Add one or remove it");
        }
        (Some(min), Some(max)) if min > max => {
            log.error(place, format_args!("no text is at least {min} and at most {max} long"), "Swap them");
        }
        (None | Some(_), None | Some(_)) => {}
    }
    Some(length)
}

fn expressions(At { value: file, place }: &At<Named<String>>, log: &mut Log) -> Vec<Expression> {
    if file.is_empty() && !log.has_error_under(&place.path) {
        log.error(place, "it holds no expression", "Add one like short = \"text | length < 400\", or remove it");
    }
    let one = |(name, expression): (&String, &At<String>)| Expression {
        name: name.as_str().into(),
        expression: expression.value.as_str().into(),
    };
    for (name, expression) in file {
        rule_name(name, &expression.place, log);
        let Ok(compiled) = template::Expression::compile(&expression.value) else { continue };
        only_facts(compiled.names(), &REPLY_FACTS, &expression.place, log);
    }
    file.iter().map(one).collect()
}

/// A rule's name goes into findings, records and metrics.
fn rule_name(name: &str, place: &Place, log: &mut Log) {
    if name.is_empty() || name.len() > 64 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        log.error(place, "its name has 1 to 64 characters and no spaces: findings name it", "Rename it");
    }
}

/// A fact that nobody fills in would make a template or expression fail on every call.
pub(super) fn only_facts(names: &[String], known: &[&str], place: &Place, log: &mut Log) {
    let roots: BTreeSet<&str> = names.iter().map(|name| name.split('.').next().unwrap_or(name)).collect();
    for unknown in roots.into_iter().filter(|root| !known.contains(root)) {
        let remedy = match did_you_mean(unknown, known.iter().copied()) {
            Some(near) => format!("Did you mean `{near}`?"),
            None => format!("Known here: {}", known.join(", ")),
        };
        log.error(place, format_args!("`{unknown}` is no fact it could be filled from"), remedy);
    }
}

fn validators(
    At { value: file, place }: &At<Named<ValidatorFile>>,
    around: Around<'_>,
    log: &mut Log,
) -> Vec<HttpValidator> {
    if file.is_empty() && !log.has_error_under(&place.path) {
        log.error(place, "it holds no validator", "Add one like policy = { url = \"http://127.0.0.1:9000/judge\" }");
    }
    let mut validators = Vec::new();
    for (name, At { value: file, place }) in file {
        rule_name(name, place, log);
        let Some(setting) = &file.url else {
            if !log.has_error_under(&place.path) {
                log.error(place, "it has no `url`", "Add url = \"https://judge.example.com/check\"");
            }
            continue;
        };
        let Some(url) = expand(setting, around.env, log) else { continue };
        let url = match url::endpoint(&url.text) {
            Ok(url) => url,
            Err(why) => {
                log.error(&setting.place, why, "Write one like \"https://judge.example.com/check\"");
                continue;
            }
        };
        if url.scheme_str() == Some("http") && !url::is_this_machine(&url) {
            log.warn(
                &setting.place,
                "requests and replies travel to it in clear text: it is http and not this machine",
            );
        }
        let timeout = file.timeout.as_ref().map_or(VALIDATOR_TIMEOUT, |timeout| timeout.value.0);
        validators.push(HttpValidator { name: name.as_str().into(), url: url.to_string().into(), timeout });
    }
    validators
}

fn needs(file: &ContractFile, log: &mut Log) -> Option<ContractNeeds> {
    let At { value: file, place } = file.needs.as_ref()?;
    let on = |setting: &Option<At<bool>>| setting.as_ref().is_some_and(|needed| needed.value);
    let needs = ContractNeeds {
        context: file.context.as_ref().map(|context| context.value),
        tools: on(&file.tools),
        images: on(&file.images),
    };
    if needs == ContractNeeds::default() && !log.has_error_under(&place.path) {
        log.error(place, "it asks for nothing", "Add context, tools = true or images = true, or remove it");
    }
    Some(needs)
}

fn permissions(
    At { value: file, place }: &At<PermissionsFile>,
    providers: &BTreeSet<&str>,
    log: &mut Log,
) -> Permissions {
    let mut list = |setting: &Option<At<Vec<At<String>>>>| {
        let list = setting.as_ref()?;
        if list.value.is_empty() && !log.has_error_under(&list.place.path) {
            log.error(&list.place, "an empty list permits nothing at all", "Add to it, or remove it to permit all");
        }
        Some(list.value.iter().map(|name| Arc::from(name.value.as_str())).collect::<Vec<Arc<str>>>())
    };
    let permissions =
        Permissions { regions: list(&file.regions), providers: list(&file.providers), tools: list(&file.tools) };
    if permissions == Permissions::default() && !log.has_error_under(&place.path) {
        log.error(place, "it limits nothing", "Add regions, providers or tools, or remove it");
    }
    for name in file.providers.iter().flat_map(|list| &list.value).filter(|name| !providers.contains(&*name.value)) {
        let remedy = match did_you_mean(&name.value, providers.iter().copied()) {
            Some(near) => format!("Did you mean \"{near}\"?"),
            None => "Correct or remove it".to_owned(),
        };
        log.error(&name.place, format_args!("there is no provider \"{}\"", name.value), remedy);
    }
    permissions
}

fn keeps(file: &ContractFile, log: &mut Log) -> Option<Vec<Keep>> {
    let list = file.keeps.as_ref()?;
    not_empty(list, log);
    let mut keeps = Vec::new();
    for At { value, place } in &list.value {
        let keep = match value {
            KeepChoice::Step => Keep::Step,
            KeepChoice::ToolResults => Keep::ToolResults,
            KeepChoice::RetryCount => Keep::RetryCount,
            KeepChoice::BudgetUsed => Keep::BudgetUsed,
        };
        if keeps.contains(&keep) {
            log.error(place, "it is there twice", "Remove one of the two");
        }
        keeps.push(keep);
    }
    Some(keeps)
}

fn repair(file: &ContractFile, log: &mut Log) -> Option<Repair> {
    let At { value, place } = file.repair.as_ref()?;
    let all = Repair { fixes: Fix::ALL.to_vec(), model: true, then: AfterRepair::Reroute };
    match value {
        RepairSetting::Times(times) if times.0 == 0 => Some(Repair::default()),
        RepairSetting::Times(_) => Some(all),
        RepairSetting::Table(file) => Some(repair_table(file, all, place, log)),
    }
}

fn repair_table(file: &RepairFile, all: Repair, place: &Place, log: &mut Log) -> Repair {
    let mut fixes = Vec::new();
    for At { value, place } in file.fixes.iter().flat_map(|fixes| &fixes.value) {
        let fix = match value {
            FixChoice::Fences => Fix::Fences,
            FixChoice::TrailingCommas => Fix::TrailingCommas,
            FixChoice::Closers => Fix::Closers,
        };
        if fixes.contains(&fix) {
            log.error(place, "it is there twice", "Remove one of the two");
        }
        fixes.push(fix);
    }
    fixes.sort_unstable();
    let repair = Repair {
        fixes: if file.fixes.is_some() { fixes } else { all.fixes },
        model: file.model.as_ref().is_none_or(|model| model.value),
        then: match file.then.as_ref().map(|then| then.value) {
            None | Some(AfterRepairChoice::Reroute) => AfterRepair::Reroute,
            Some(AfterRepairChoice::Review) => AfterRepair::Review,
            Some(AfterRepairChoice::Stop) => AfterRepair::Stop,
        },
    };
    let nothing = repair.fixes.is_empty() && !repair.model && repair.then == AfterRepair::Reroute;
    if nothing && !log.has_error_under(&place.path) {
        log.error(place, "it mends nothing and changes nothing", "Write repair = 0, or remove it");
    }
    repair
}

fn tool_policy(At { value: file, place }: &At<ToolsFile>, log: &mut Log) -> ToolPolicy {
    let mode = |setting: &Option<At<ToolModeChoice>>, default| match setting.as_ref().map(|mode| mode.value) {
        None => default,
        Some(ToolModeChoice::Full) => ToolMode::Full,
        Some(ToolModeChoice::PlanOnly) => ToolMode::PlanOnly,
        Some(ToolModeChoice::ReadOnly) => ToolMode::ReadOnly,
        Some(ToolModeChoice::None) => ToolMode::None,
    };
    let read_only = file.read_only.iter().flat_map(|list| &list.value).map(|tool| tool.value.as_str().into());
    let policy = ToolPolicy {
        primary: mode(&file.primary, ToolMode::Full),
        fallback: mode(&file.fallback, ToolMode::PlanOnly),
        read_only: read_only.collect(),
    };
    let reads = [(&file.primary, policy.primary), (&file.fallback, policy.fallback)];
    for (setting, _) in reads.into_iter().filter(|(_, mode)| *mode == ToolMode::ReadOnly && policy.read_only.is_empty())
    {
        let place = setting.as_ref().map_or(place, |setting| &setting.place);
        if !log.has_error_under(&place.path) {
            let what = "in mode read-only only the tools of `read_only` are offered, and it names none";
            log.error(place, what, "Add read_only = [\"search\"] with the tools that only read, or use \"none\"");
        }
    }
    let narrower = |from: ToolMode, to: ToolMode| rank(to) >= rank(from);
    if !narrower(policy.primary, policy.fallback) {
        let place = file.fallback.as_ref().map_or(place, |setting| &setting.place);
        let what =
            format!("a fallback may do more here ({}) than the first target ({})", policy.fallback, policy.primary);
        log.warn(place, what);
    }
    policy
}

/// A tool that is never offered need not be known as one that only reads.
fn tools_permitted(contract: &Contract, file: &ContractFile, log: &mut Log) {
    let (Some(permitted), Some(tools)) = (&contract.permissions.tools, &file.tools) else { return };
    for tool in tools.value.read_only.iter().flat_map(|list| &list.value) {
        if !permitted.iter().any(|name| **name == *tool.value) {
            let what = format!("`{}` is never offered: permissions.tools does not name it", tool.value);
            log.error(&tool.place, what, "Add it there, or remove it here");
        }
    }
}

/// How much a mode lets a model do, most first.
fn rank(mode: ToolMode) -> u8 {
    match mode {
        ToolMode::Full => 0,
        ToolMode::ReadOnly => 1,
        ToolMode::PlanOnly => 2,
        ToolMode::None => 3,
    }
}

fn degraded_schema(
    At { value: file, place }: &At<DegradedFile>,
    checks: &Checks,
    around: Around<'_>,
    log: &mut Log,
) -> Option<Arc<outlast_model::policy::Schema>> {
    let Some(setting) = &file.schema else {
        if !log.has_error_under(&place.path) {
            log.error(place, "it has no `schema`", "Add schema = \"schemas/narrow.json\"");
        }
        return None;
    };
    let narrow = schemas::read(setting, around, log)?;
    let Some(full) = &checks.schema else {
        if !log.has_error_under(&place.path) {
            let what = "there is no full schema it could be less than";
            log.error(&setting.place, what, "Add `schema` to the contract, or make this one it");
        }
        return None;
    };
    if full.json == narrow.json {
        log.error(&setting.place, "it is the full schema, so it changes nothing", "Name a narrower one or remove it");
    }
    Some(narrow)
}

/// Whatever the wire cannot use is told at the setting it came from.
fn compiles(contract: &Contract, file: &ContractFile, place: &Place, log: &mut Log) {
    if let Some(citations) = file.evidence.as_ref().and_then(|evidence| evidence.value.citations.as_ref()) {
        is_in_schema(citations, &contract.checks, log);
    }
    if let Some(notice) = &file.notice
        && let Ok(template) = template::Template::compile(&notice.value)
    {
        only_facts(template.names(), &NOTICE_FACTS, &notice.place, log);
    }
    let Err(bad) = Gates::compile(&Arc::new(contract.clone())) else { return };
    for gate in bad {
        let place = place_of(&gate, file).unwrap_or(place);
        if !log.has_error_under(&place.path) {
            log.error(place, format_args!("it cannot be used: {}", gate.why), remedy_of(&gate));
        }
    }
}

fn place_of<'f>(gate: &BadGate, file: &'f ContractFile) -> Option<&'f Place> {
    let head = gate.setting.split(['.', '[']).next().unwrap_or_default();
    let degraded = file.degraded.as_ref().and_then(|degraded| degraded.value.schema.as_ref());
    match head {
        "schema" => file.schema.as_ref().map(|setting| &setting.place),
        "degraded" | "degraded_schema" => degraded.map(|setting| &setting.place),
        "expressions" => {
            let index = gate.setting.split(['[', ']']).nth(1)?.parse::<usize>().ok()?;
            file.expressions.as_ref()?.value.values().nth(index).map(|expression| &expression.place)
        }
        "notice" => file.notice.as_ref().map(|notice| &notice.place),
        "language" => file.language.as_ref().map(|language| &language.place),
        "evidence" => file.evidence.as_ref().map(|evidence| &evidence.place),
        "must_include" => file.must_include.as_ref().map(|list| &list.place),
        "must_not" => file.must_not.as_ref().map(|list| &list.place),
        "confidence" => file.confidence.as_ref().map(|confidence| &confidence.place),
        _ => None,
    }
}

fn remedy_of(gate: &BadGate) -> &'static str {
    match gate.setting.split(['.', '[']).next().unwrap_or_default() {
        "schema" | "degraded" | "degraded_schema" => "Correct the schema; https://json-schema.org has its rules",
        "expressions" => "Correct it; docs/config.md says what it may use",
        "notice" => "Correct the template; docs/config.md says what it may use",
        "language" => "Use one of those, or remove it",
        _ => "Correct it",
    }
}
