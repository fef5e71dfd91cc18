//! The rules that hold for every call, checked at each of its actions.

use outlast_engine::*;
use outlast_model::{
    Brief, Failure, FailureReport, Findings, Mono, TargetId, Usd,
    policy::*,
    record::{AttemptReason, AttemptRecord, Decision, GaveUp, Outcome},
    turn::Usage,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long a backstop may run beyond the deadline.
const GRACE: Duration = Duration::from_secs(2);

/// Everything seen of one call.
#[derive(Debug)]
pub struct Seen {
    pub call: Call,
    pub deadline: Mono,
    pub needs: Needs,
    pub route: BoundRoute,
    /// (time, target, key) of each start.
    pub starts: Vec<(Mono, TargetId, u8)>,
    pub briefs: Vec<Brief>,
    /// The exchanges in flight, and how many tokens have come of each.
    pub(super) live: BTreeMap<u8, u32>,
    /// The attempt that was started beside another one.
    pub raced: Option<u8>,
    pub(super) checking: Option<u8>,
    /// What the checks will find.
    pub(super) checks: BTreeMap<u8, Findings>,
    /// What they have found.
    found: BTreeMap<u8, Findings>,
    pub kept: Option<u8>,
    /// Those that were run, and what for.
    pub backstops: Vec<(usize, FailureReport)>,
    pub(super) said: Option<(usize, Findings)>,
    pub released: Option<(u8, Mono)>,
    pub delivered: Option<(Source, Mono)>,
    pub gave_up: Vec<GaveUp>,
    pub deferred: Option<usize>,
    pub rejected: Option<(FailureReport, Option<FailureReport>, RetryAdvice, bool, Mono)>,
    pub settled: Option<Settlement>,
    pub(super) gone: bool,
    /// Per attempt what could be reserved for it, and its bill.
    money: Vec<(Usd, Option<Usd>)>,
    judged: Usd,
}

impl Seen {
    pub fn new(call: Call, route: BoundRoute, needs: Needs, now: Mono) -> Self {
        Seen {
            call,
            deadline: now + route.route().tier.deadline,
            needs,
            route,
            starts: Vec::new(),
            briefs: Vec::new(),
            live: BTreeMap::new(),
            raced: None,
            checking: None,
            checks: BTreeMap::new(),
            found: BTreeMap::new(),
            kept: None,
            backstops: Vec::new(),
            said: None,
            released: None,
            delivered: None,
            gave_up: Vec::new(),
            deferred: None,
            rejected: None,
            settled: None,
            gone: false,
            money: Vec::new(),
            judged: Usd::ZERO,
        }
    }

    pub fn cap(&self) -> Option<Usd> {
        self.route.route().tier.cost_max.into_iter().chain(self.needs.budget).min()
    }

    fn taken(&self) -> Usd {
        self.money.iter().map(|(reserved, bill)| bill.unwrap_or(*reserved)).sum::<Usd>() + self.judged
    }

    fn contract(&self) -> &Contract {
        &self.route.route().contract
    }

    /// Before every action.
    pub fn watch_time(&self, id: u64, action: &Action, now: Mono) {
        assert!(self.settled.is_none(), "call {id}: an action after its settlement: {action:?}");
        let backstops = u32::try_from(self.route.route().backstops.len()).unwrap();
        assert!(now <= self.deadline + GRACE * backstops, "call {id}: it outlives its deadline");
        let working = matches!(action, Action::Start { .. } | Action::Check { .. } | Action::Release { .. });
        assert!(!working || now <= self.deadline, "call {id}: work after its deadline");
    }

    fn ended(&self) -> bool {
        self.delivered.is_some() || self.rejected.is_some() || self.deferred.is_some()
    }

    pub fn watch_start(&mut self, id: u64, attempt: u8, spec: &TargetSpec, key: u8, brief: &Brief, now: Mono) {
        assert_eq!(usize::from(attempt), self.starts.len(), "call {id}: attempts are numbered in order");
        let tier = &self.route.route().tier;
        assert!(self.starts.len() < usize::from(tier.attempts), "call {id}: more attempts than its tier has");
        assert!(self.checking.is_none(), "call {id}: an attempt beside a check");
        if !self.live.is_empty() {
            self.watch_race(id, attempt, spec, brief);
        }
        assert!(!self.ended() && self.backstops.is_empty(), "call {id}: an attempt after its end");
        assert!(self.released.is_none(), "call {id}: an attempt after the commit point");
        if let Some(mend) = &brief.mend {
            assert!(self.briefs.iter().all(|earlier| earlier.mend.is_none()), "call {id}: mended twice");
            assert_eq!(self.found.keys().last(), Some(&mend.attempt), "call {id}: mends another reply");
            assert_eq!(self.starts[usize::from(mend.attempt)].1, spec.id, "call {id}: another target mends");
            assert!(self.contract().repair.model && !mend.problems.is_empty());
        }
        self.watch_permission(id, spec, brief);
        self.starts.push((now, spec.id.clone(), key));
        let firsts = self.starts.iter().zip(self.briefs.iter().chain([brief]));
        let plain: Vec<_> = firsts.filter(|(_, brief)| brief.mend.is_none()).map(|((_, t, k), _)| (t, k)).collect();
        let repeated = plain.len() - plain.iter().collect::<BTreeSet<_>>().len();
        assert!(repeated <= 1, "call {id}: more than one same-target retry");
        self.reserve(id, spec, brief);
        self.briefs.push(brief.clone());
        self.live.insert(attempt, 0);
    }

    /// A second exchange starts beside the first.
    fn watch_race(&mut self, id: u64, attempt: u8, spec: &TargetSpec, brief: &Brief) {
        assert!(self.route.route().tier.hedge.is_some() && !self.needs.provider_effects, "call {id}: two at once");
        assert_eq!(self.live, BTreeMap::from([(0, 0)]), "call {id}: only a first attempt that is silent is raced");
        assert_ne!(self.starts[0].1, spec.id, "call {id}: races itself");
        assert_eq!(self.briefs[0].tool_mode, brief.tool_mode, "call {id}: races for less");
        assert!(self.raced.replace(attempt).is_none(), "call {id}: raced twice");
    }

    fn watch_permission(&self, id: u64, spec: &TargetSpec, brief: &Brief) {
        let permissions = &self.contract().permissions;
        let allowed = |list: &Option<Vec<std::sync::Arc<str>>>, it: Option<&str>| {
            list.as_ref().is_none_or(|list| list.iter().any(|one| Some(&**one) == it))
        };
        assert!(allowed(&permissions.providers, Some(spec.provider.as_str())), "call {id}: a forbidden provider");
        assert!(allowed(&permissions.regions, spec.region.as_deref()), "call {id}: a forbidden region");
        let calls = self.needs.tools && matches!(brief.tool_mode, ToolMode::Full | ToolMode::ReadOnly);
        assert!(!calls || spec.capabilities.tools != Ability::No, "call {id}: tools for a target that has none");
        assert!(brief.shorten_to.is_none() || self.contract().shorten.is_some(), "call {id}: shortened unasked");
    }

    /// What an attempt may cost fits what is left, before it starts.
    fn reserve(&mut self, id: u64, spec: &TargetSpec, brief: &Brief) {
        let Some(cap) = self.cap() else {
            self.money.push((Usd::ZERO, None));
            return;
        };
        let price = spec.price.expect("with a cap, nobody of unknown price is asked");
        let limits = [brief.max_output_tokens, self.needs.max_output_tokens, spec.max_output];
        let each = limits.into_iter().flatten().min().expect("with a cap there is a limit");
        let output_tokens = each * (self.needs.more_choices + 1);
        let extra = brief.mend.as_ref().map_or(0, |_| 512);
        let input_tokens = brief.shorten_to.unwrap_or(self.needs.input_tokens) + extra;
        let reserve = price.cost(&Usage { input_tokens, output_tokens, ..Usage::default() });
        assert!(self.taken() + reserve <= cap, "call {id}: {reserve} do not fit: {} of {cap} are taken", self.taken());
        self.money.push((reserve, None));
    }

    pub fn bill(&mut self, attempt: u8, spec: &TargetSpec, usage: &Usage) {
        self.money[usize::from(attempt)].1 = Some(spec.price.map_or(Usd::ZERO, |price| price.cost(usage)));
    }

    /// The answer to a check: what it costs fits the judges' budget.
    pub fn answer_check(&mut self, attempt: u8, budget: Option<Usd>) -> Findings {
        assert!(self.live.is_empty(), "a reply is checked while another exchange runs");
        let mut findings = self.checks.remove(&attempt).expect("only an ended reply is checked");
        assert_eq!(budget.is_some(), self.cap().is_some());
        findings.cost = budget.map_or(findings.cost, |left| findings.cost.min(left));
        findings
    }

    pub fn was_checked(&mut self, attempt: u8, findings: &Findings) {
        self.judged = self.judged + findings.cost;
        self.found.insert(attempt, findings.clone());
    }

    pub fn watch_release(&mut self, id: u64, attempt: u8, now: Mono) {
        let buffered = self.needs.output != OutputNeed::Text || self.contract().judges_whole_replies();
        assert!(self.needs.stream && !buffered, "call {id}: released a buffered reply");
        let mode = self.briefs[usize::from(attempt)].tool_mode;
        assert_eq!(mode, ToolMode::Full, "call {id}: released what may have to be rewritten");
        assert!(self.released.replace((attempt, now)).is_none(), "call {id}: released twice");
        assert!(self.live.keys().eq([&attempt]), "call {id}: released what is not alone in flight");
    }

    pub fn watch_keep(&mut self, id: u64, attempt: u8) {
        assert!(self.kept.replace(attempt).is_none(), "call {id}: kept two");
        assert!(self.found[&attempt].keeps_degraded, "call {id}: kept what keeps nothing");
    }

    pub fn watch_backstop(&mut self, id: u64, at: usize, cause: FailureReport) {
        assert!(self.live.is_empty() && self.checking.is_none(), "call {id}: a backstop while work goes on");
        assert!(self.released.is_none() && !self.ended(), "call {id}: a backstop after the commit point");
        assert!(self.kept.is_none(), "call {id}: a backstop before the kept reply");
        assert!(self.backstops.last().is_none_or(|(last, _)| *last < at), "call {id}: backstops in order");
        let kind = self.route.route().backstops[at].kind.name();
        let review = kind == BackstopName::Escalate;
        let blocked = matches!(cause.failure, Failure::SafetyBlock | Failure::InvalidRequest | Failure::Cancelled);
        let to_review = cause.failure == Failure::SafetyBlock && self.contract().safety == SafetyPolicy::Review;
        assert!(!blocked || (review && to_review), "call {id}: a backstop got round {cause:?}");
        self.backstops.push((at, cause));
    }

    pub fn watch_delivery(&mut self, id: u64, validated: &Validated, now: Mono) {
        let refusal = self.contract().refusal != RefusalPolicy::Review;
        let passes = |findings: &Findings| match findings.problems.as_slice() {
            [] => true,
            [only] if only.failure == Failure::Refusal => refusal,
            _ => findings.keeps_degraded && validated.gave_up().contains(&GaveUp::Schema),
        };
        let passed = match validated.source() {
            Source::Attempt(attempt) => self.found.get(&attempt).is_some_and(passes),
            Source::Kept(attempt) => self.kept == Some(attempt) && passes(&self.found[&attempt]),
            Source::Backstop(at) => self.said.as_ref().is_some_and(|(said, found)| *said == at && passes(found)),
        };
        let streamed_refusal = self.released.is_some() && !refusal;
        assert!(passed || streamed_refusal, "call {id}: delivered what did not pass its checks");
        let of = |attempt| Source::Attempt(attempt) == validated.source();
        assert!(self.released.is_none_or(|(released, _)| of(released)), "call {id}: mixed two replies");
        if let Source::Attempt(attempt) | Source::Kept(attempt) = validated.source() {
            let brief = &self.briefs[usize::from(attempt)];
            let policy = self.contract().tools.as_ref();
            let lesser = policy.is_some_and(|policy| brief.tool_mode > policy.primary);
            let marked = |wanted: &dyn Fn(&GaveUp) -> bool| validated.gave_up().iter().any(wanted);
            assert_eq!(marked(&|it| matches!(it, GaveUp::Tools { .. })), lesser, "call {id}: tools");
            assert_eq!(marked(&|it| *it == GaveUp::Input), brief.shorten_to.is_some(), "call {id}: input");
        } else {
            assert!(validated.degraded(), "call {id}: a backstop's reply is not marked");
        }
        assert!(!self.ended(), "call {id}: ended twice");
        self.delivered = Some((validated.source(), now));
        self.gave_up = validated.gave_up().to_vec();
    }

    pub fn watch_deferral(&mut self, id: u64, at: usize) {
        assert!(!self.ended(), "call {id}: ended twice");
        assert_eq!(self.backstops.last().unwrap().0, at, "call {id}: deferred by another backstop");
        self.deferred = Some(at);
    }

    pub fn watch_settlement(&mut self, id: u64, settlement: Settlement) {
        assert!(self.live.is_empty() && self.checking.is_none(), "call {id}: settled with an exchange in flight");
        assert_eq!(settlement.attempts.len(), self.starts.len());
        let cancelled = settlement.outcome == Outcome::Cancelled;
        let deferred = settlement.outcome == Outcome::Deferred;
        let ended = [self.delivered.is_some(), self.rejected.is_some(), cancelled, self.deferred.is_some()];
        assert_eq!(ended.iter().filter(|ended| **ended).count(), 1, "call {id}: one ending: {ended:?}");
        assert_eq!(deferred, self.deferred.is_some());
        assert_eq!(settlement.degraded, !settlement.gave_up.is_empty());
        if self.delivered.is_some() {
            assert_eq!(settlement.gave_up, self.gave_up, "call {id}: the record tells what the client was told");
        }
        assert!(settlement.wasted <= settlement.cost);
        let made_for = |reason| settlement.attempts.iter().filter(|a| a.reason == reason).count();
        assert!(made_for(AttemptReason::SameTarget) <= 1, "call {id}: more than one same-target retry");
        assert!(made_for(AttemptReason::Repair) <= 1, "call {id}: more than one repair");
        let block = settlement.attempts.iter().position(|a| {
            let failure = a.failure.as_ref().map(|report| report.failure);
            matches!(failure, Some(Failure::SafetyBlock | Failure::InvalidRequest))
        });
        let after = block.map_or(&[][..], |at| &settlement.attempts[at + 1..]);
        let before = |a: &AttemptRecord| a.reason == AttemptReason::Hedge && a.decision != Decision::Deliver;
        assert!(after.iter().all(before), "call {id}: got round a block");
        let hedge = settlement.attempts.iter().position(|a| a.reason == AttemptReason::Hedge);
        assert_eq!(hedge, self.raced.map(usize::from), "call {id}: a race is recorded as one");
        let outrun = settlement.attempts.iter().filter(|a| a.decision == Decision::Outrun).count();
        assert!(outrun <= usize::from(hedge.is_some()), "call {id}: outrun by nobody");
        self.watch_spending(id, &settlement);
        self.settled = Some(settlement);
    }

    fn watch_spending(&self, id: u64, settlement: &Settlement) {
        let bills = self.money.iter().map(|(_, bill)| bill.expect("every attempt has its bill"));
        assert_eq!(settlement.cost, bills.sum::<Usd>() + self.judged, "call {id}: the sum of its bills");
        let Some(cap) = self.cap() else { return };
        let beyond = |(reserved, bill): &(Usd, Option<Usd>)| {
            bill.map_or(0, |bill| bill.as_nanos().saturating_sub(reserved.as_nanos()))
        };
        let overrun = Usd::from_nanos(self.money.iter().map(beyond).sum());
        let cost = settlement.cost;
        assert!(cost <= cap + overrun, "call {id}: {cost} of {cap}, and {overrun} beyond what was reserved");
    }
}
