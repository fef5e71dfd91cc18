//! Judges a route as a whole: whether its targets and its tier can keep its contract, and its backstops end it.

use super::{
    file::RouteFile,
    promises::ContractFile,
    read::{At, Log, Place},
    routes::join,
    words::StreamChoice,
};
use outlast_model::{
    TargetId,
    policy::{
        Ability, AfterRepair, Backstop, BackstopKind, Checks, ConfidenceFrom, Contract, RefusalPolicy, RouteTarget,
        SafetyPolicy, StreamContract, TargetSpec, Tier,
    },
};
use std::{collections::BTreeMap, sync::Arc};

/// A route whose parts have been found.
pub(super) struct Fit<'a> {
    pub(super) file: &'a RouteFile,
    pub(super) place: &'a Place,
    pub(super) contract: &'a Contract,
    /// The contract as the file writes it; absent for presets and for the built-in one.
    pub(super) written: Option<&'a ContractFile>,
    pub(super) tier: &'a Tier,
    pub(super) targets: &'a [RouteTarget],
    pub(super) specs: &'a BTreeMap<TargetId, TargetSpec>,
}

impl Fit<'_> {
    /// Judges it. What comes back are the targets that its contract permits.
    pub(super) fn judge(&self, log: &mut Log) -> Vec<&TargetSpec> {
        let listed: Vec<&TargetSpec> = self.targets.iter().filter_map(|entry| self.specs.get(&entry.target)).collect();
        let permitted = self.permitted(&listed, log);
        self.needs(&permitted, log);
        self.votes(log);
        self.hedge(&permitted, log);
        self.cost(&permitted, log);
        self.sla(log);
        permitted
    }

    /// Where the route names its contract.
    fn at_contract(&self) -> &Place {
        self.file.contract.as_ref().map_or(self.place, |contract| &contract.place)
    }

    /// Where the route names its tier.
    fn at_tier(&self) -> &Place {
        self.file.tier.as_ref().map_or(self.place, |tier| &tier.place)
    }

    /// What a stream promises: `buffer` where only the whole reply can be judged, else as the contract or the tier say.
    pub(super) fn stream(&self, log: &mut Log) -> StreamContract {
        let critical = &*self.tier.name == "critical";
        let whole = self.contract.judges_whole_replies() || self.tier.votes.is_some();
        // That a reply is a refusal is known at its end.
        let refusals_move_on = self.contract.refusal != RefusalPolicy::Deliver;
        let wanted = self.written.and_then(|file| file.stream.as_ref());
        if let Some(wanted) = wanted.filter(|wanted| wanted.value != StreamChoice::Buffer)
            && self.tier.votes.is_some()
            && !self.contract.judges_whole_replies()
        {
            let what = format!("tier \"{}\" votes, and no stream can be shown before the vote", self.tier.name);
            log.error(self.at_tier(), what, format_args!("Remove {}, or use a tier without votes", wanted.place.path));
        }
        let holds = match wanted.map(|stream| stream.value) {
            _ if whole => false,
            Some(StreamChoice::Hold) => true,
            Some(StreamChoice::Buffer | StreamChoice::Fail) => false,
            None => critical && !refusals_move_on,
        };
        let hold = self.written.and_then(|file| file.hold.as_ref());
        if let Some(hold) = hold.filter(|hold| !holds && !log.has_error_under(&hold.place.path)) {
            let remedy = if whole { "Remove it" } else { "Set stream = \"hold\" or remove it" };
            log.error(&hold.place, "it never takes effect: `stream` is not \"hold\"", remedy);
        }
        match wanted.map(|stream| stream.value) {
            _ if whole => StreamContract::Buffer,
            Some(StreamChoice::Buffer) => StreamContract::Buffer,
            None if refusals_move_on => StreamContract::Buffer,
            Some(StreamChoice::Hold) | None if holds => held(self.written),
            Some(StreamChoice::Hold | StreamChoice::Fail) | None => StreamContract::Fail,
        }
    }

    fn permitted<'s>(&self, listed: &[&'s TargetSpec], log: &mut Log) -> Vec<&'s TargetSpec> {
        let permissions = &self.contract.permissions;
        let (mut permitted, mut out) = (Vec::new(), Vec::new());
        for spec in listed {
            let region = spec.region.as_deref();
            if let Some(regions) = permissions.regions.as_ref().filter(|all| !all.iter().any(|r| Some(&**r) == region))
            {
                let allowed = regions.iter().map(|region| &**region).collect::<Vec<_>>().join(", ");
                out.push(match region {
                    Some(region) => format!("{} is in region {region}, not in {allowed}", spec.id),
                    None => format!("{} has no stated region, which is not {allowed}", spec.id),
                });
            } else if permissions
                .providers
                .as_ref()
                .is_some_and(|all| !all.iter().any(|p| **p == *spec.provider.as_str()))
            {
                out.push(format!("{} is of a provider that is not permitted", spec.id));
            } else {
                permitted.push(*spec);
            }
        }
        let why = out.join("; ");
        if permitted.is_empty() && !listed.is_empty() {
            let what = format!("contract \"{}\" permits no target of this route: {why}", self.contract.name);
            let remedy = "Add a target it permits, state [providers.NAME] region, or widen `permissions`";
            log.error(self.at_contract(), what, remedy);
        } else if !out.is_empty() {
            let what = format!("contract \"{}\" leaves out targets of this route: {why}", self.contract.name);
            log.warn(self.at_contract(), what);
        }
        permitted
    }

    /// Some target must be able to take in what the contract says every request may bring.
    fn needs(&self, permitted: &[&TargetSpec], log: &mut Log) {
        let needs = &self.contract.needs;
        let first = self.targets.first().map(|entry| &entry.target);
        let serves_tools = |spec: &&TargetSpec| match &self.contract.tools {
            Some(policy) => policy.mode(Some(&spec.id) == first, spec.capabilities.tools).is_some(),
            None => spec.capabilities.tools != Ability::No,
        };
        let takes = |spec: &&TargetSpec| {
            let window = needs.context.is_none_or(|least| spec.context_window.is_none_or(|window| window >= least));
            let images = !needs.images || spec.capabilities.images != Ability::No;
            window && images && (!needs.tools || serves_tools(spec))
        };
        if permitted.is_empty() {
            return;
        }
        if !permitted.iter().any(takes) {
            let what = format!("no target of this route can take in what contract \"{}\" needs", self.contract.name);
            let remedy = "Add a target that can, or lower `needs`; `outlast explain` shows what each one can";
            log.error(self.at_contract(), what, remedy);
        } else if self.contract.tools.is_some() && !permitted.iter().any(serves_tools) {
            let what =
                format!("no target of this route can serve in a tool mode of contract \"{}\"", self.contract.name);
            log.error(self.at_contract(), what, "Add a target with tools, or set tools.fallback = \"plan-only\"");
        }
    }

    fn votes(&self, log: &mut Log) {
        let from_votes = self.contract.confidence.as_ref().is_some_and(|c| c.from == ConfidenceFrom::Votes);
        if from_votes && self.tier.votes.is_none() {
            let (contract, tier) = (&self.contract.name, &self.tier.name);
            let what =
                format!("contract \"{contract}\" takes its confidence from votes, and tier \"{tier}\" does not vote");
            log.error(self.at_contract(), what, "Use a tier with `votes`, or another source of confidence");
        }
    }

    fn hedge(&self, permitted: &[&TargetSpec], log: &mut Log) {
        if self.tier.hedge.is_some() && permitted.len() == 1 {
            let what = format!("tier \"{}\" hedges, and this route has one target to ask", self.tier.name);
            log.error(self.at_tier(), what, "Add a target, or use a tier without `hedge`");
        }
    }

    /// Under a cap, what an attempt costs has to be known before it starts.
    fn cost(&self, permitted: &[&TargetSpec], log: &mut Log) {
        if self.tier.cost_max.is_none() || permitted.is_empty() {
            return;
        }
        let unknown: Vec<&str> =
            permitted.iter().filter(|spec| spec.price.is_none()).map(|spec| spec.id.as_str()).collect();
        let names = unknown.join(", ");
        if unknown.len() == permitted.len() {
            let what =
                format!("tier \"{}\" caps the cost, and no price of this route is known: {names}", self.tier.name);
            log.error(
                self.at_tier(),
                what,
                format_args!("Add [targets.\"{}\"] price = {{ input = .., output = .. }}", unknown[0]),
            );
        } else if !unknown.is_empty() {
            let what = format!(
                "tier \"{}\" caps the cost, and the price of {names} is unknown, so it is left out; [targets] may say it",
                self.tier.name
            );
            log.warn(self.at_tier(), what);
        }
    }

    fn sla(&self, log: &mut Log) {
        let Some(p95) = self.file.sla.as_ref().and_then(|sla| sla.value.p95.as_ref()) else { return };
        if p95.value.0 > self.tier.deadline {
            let deadline = super::show_duration(self.tier.deadline);
            let what =
                format!("tier \"{}\" ends every call after {deadline}, so this promises nothing", self.tier.name);
            log.error(&p95.place, what, "Lower it, or raise the tier's `deadline`");
        }
    }

    /// A contract that sends something to a person needs somewhere to send it.
    pub(super) fn reviews(&self, backstops: &[Arc<Backstop>], log: &mut Log) {
        let contract = self.contract;
        let reviews = [
            ("refusal", contract.refusal == RefusalPolicy::Review),
            ("safety", contract.safety == SafetyPolicy::Review),
            ("repair.then", contract.repair.then == AfterRepair::Review),
        ];
        let escalates = backstops.iter().any(|backstop| matches!(backstop.kind, BackstopKind::Escalate { .. }));
        if let (Some((setting, _)), false) = (reviews.into_iter().find(|(_, reviews)| *reviews), escalates) {
            let what = format!(
                "contract \"{}\" says {setting} = \"review\", and no backstop hands it to a person",
                contract.name
            );
            log.error(
                self.at_contract(),
                what,
                "Add \"escalate\" to the route's `backstops`, or to its tier's `exhausted`",
            );
        }
    }

    /// The providers that are left must be as many as the tier asks for.
    pub(super) fn distinct_providers(
        &self,
        permitted: &[&TargetSpec],
        tiers: &BTreeMap<String, Arc<Tier>>,
        log: &mut Log,
    ) {
        let providers = permitted.iter().map(|spec| spec.provider.as_str()).collect();
        let needed = usize::from(self.tier.distinct_providers);
        if permitted.is_empty() || std::collections::BTreeSet::len(&providers) >= needed {
            return;
        }
        let lesser = ["standard", "basic", "none"].into_iter().find(|lesser| {
            tiers.get(*lesser).is_some_and(|tier| usize::from(tier.distinct_providers) <= providers.len())
        });
        let or_else = lesser.map(|lesser| format!(", or use tier \"{lesser}\"")).unwrap_or_default();
        let tier = &self.tier.name;
        let what =
            format!("tier \"{tier}\" needs {needed} providers, found {} ({})", providers.len(), join(&providers));
        log.error(self.at_tier(), what, format_args!("Add a target of another provider{or_else}"));
    }
}

fn held(file: Option<&ContractFile>) -> StreamContract {
    let hold = file.and_then(|file| file.hold.as_ref()).map(|hold| &hold.value);
    let StreamContract::Hold { tokens, after } = StreamContract::CRITICAL else { return StreamContract::CRITICAL };
    StreamContract::Hold {
        tokens: hold.and_then(|hold| hold.tokens.as_ref()).map_or(tokens, |tokens| tokens.value),
        after: hold.and_then(|hold| hold.after.as_ref()).map_or(after, |after| after.value.0),
    }
}

/// What a contract checks on the whole reply, in its own settings' words.
pub(super) fn whole_reply_gates(contract: &Contract) -> Vec<&'static str> {
    let Checks { schema, evidence, must_include, must_not, language, length, reject_duplicates, expressions } =
        &contract.checks;
    let gates = [
        ("schema", schema.is_some()),
        ("evidence", evidence.is_some()),
        ("must_include", !must_include.is_empty()),
        ("must_not", !must_not.is_empty()),
        ("language", language.is_some()),
        ("length", length.is_some()),
        ("duplicates", *reject_duplicates),
        ("expressions", !expressions.is_empty()),
        ("confidence", contract.confidence.is_some()),
        ("validators", !contract.validators.is_empty()),
    ];
    gates.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

/// A contract that is judged whole cannot show any of its reply before its end. DESIGN section 6.
pub(super) fn explicit_stream(contract: &Contract, file: &ContractFile, log: &mut Log) {
    let gates = whole_reply_gates(contract);
    let Some(At { value, place }) = &file.stream else { return };
    let shown = match value {
        StreamChoice::Buffer => return,
        StreamChoice::Hold => "hold",
        StreamChoice::Fail => "fail",
    };
    if let [first, rest @ ..] = gates.as_slice() {
        let more = if rest.is_empty() { "" } else { " and more" };
        let what =
            format!("`{first}`{more} can only be judged on a whole reply, so no stream can be shown before its end");
        log.error(place, what, format_args!("Remove stream = \"{shown}\" (such streams are buffered), or the checks"));
    }
}
