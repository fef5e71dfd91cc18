//! Which fault a call gets: by header, by model name, by rule.

use outlast_drill::fault::{Fault, FaultPlan, ParseFaultError, parse_time};
use std::{collections::HashMap, sync::Mutex, time::Duration};

/// What a model's name wishes for: `name~chunks=64~gap=20ms~503:share=0.5`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Directives {
    /// As asked for.
    pub(super) whole: String,
    /// The name without its suffixes.
    pub(super) name: String,
    pub(super) chunks: Option<u32>,
    pub(super) gap: Option<Duration>,
    pub(super) wish: Option<Wish>,
}

/// What a header or a model name wishes for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wish {
    /// `none`: a good reply, whatever the rules say.
    Health,
    /// This, when its plan bites.
    Plan(FaultPlan),
}

impl Wish {
    pub(super) fn read(text: &str) -> Result<Wish, ParseFaultError> {
        if text == "none" { Ok(Wish::Health) } else { Ok(Wish::Plan(text.parse()?)) }
    }
}

impl Directives {
    pub(super) fn read(model: &str) -> Result<Directives, ParseFaultError> {
        let mut parts = model.split('~');
        let name = parts.next().unwrap_or_default().to_owned();
        let mut read = Directives { whole: model.to_owned(), name, chunks: None, gap: None, wish: None };
        for part in parts {
            match part.split_once('=') {
                Some(("chunks", count)) if count.parse::<u32>().is_ok() => read.chunks = count.parse().ok(),
                Some(("gap", time)) if parse_time(time).is_some() => read.gap = parse_time(time),
                Some(_) | None => read.wish = Some(Wish::read(part)?),
            }
        }
        Ok(read)
    }
}

/// One plan for the models its glob names.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) glob: String,
    pub(super) plan: FaultPlan,
    /// Since when, after the fake's start.
    pub(super) set_at: Duration,
    pub(super) bitten: u32,
}

/// The rules in force and the lot they draw.
pub(super) struct Rules {
    state: Mutex<State>,
}

struct State {
    rules: Vec<Rule>,
    /// How often the plans wished for by name or header have bitten, for those with a `first`.
    wished: HashMap<String, u32>,
    random: fastrand::Rng,
}

/// Wished-for plans remembered; past it all counts start again.
const WISHES_MAX: usize = 1024;

impl Rules {
    pub(super) fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Rules { state: Mutex::new(State { rules: Vec::new(), wished: HashMap::new(), random }) }
    }

    /// Sets, or with `None` lifts, the plan of a glob. The newest rule is asked first.
    pub(super) fn set(&self, glob: &str, plan: Option<FaultPlan>, now: Duration) {
        let mut state = self.lock();
        state.rules.retain(|rule| rule.glob != glob);
        if let Some(plan) = plan {
            state.rules.insert(0, Rule { glob: glob.to_owned(), plan, set_at: now, bitten: 0 });
        }
    }

    /// Lifts all.
    pub(super) fn clear(&self) {
        self.lock().rules.clear();
    }

    pub(super) fn list(&self) -> Vec<Rule> {
        self.lock().rules.clone()
    }

    /// The fault of one call: the first wish or rule that bites.
    pub(super) fn choose(&self, wish: Option<&Wish>, model: &Directives, now: Duration) -> Option<Fault> {
        match wish {
            Some(Wish::Health) => None,
            Some(Wish::Plan(plan)) if *plan == FaultPlan::always(plan.fault.clone()) => Some(plan.fault.clone()),
            Some(Wish::Plan(plan)) => self.lock().bite_wished(plan, now),
            None => self.lock().bite_rule(model, now),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn bite_wished(&mut self, plan: &FaultPlan, now: Duration) -> Option<Fault> {
        if self.wished.len() >= WISHES_MAX {
            self.wished.clear();
        }
        let draw = self.random.f64();
        let bitten = self.wished.entry(plan.to_string()).or_default();
        let bites = plan.bites(now, *bitten, draw);
        *bitten += u32::from(bites);
        bites.then(|| plan.fault.clone())
    }

    fn bite_rule(&mut self, model: &Directives, now: Duration) -> Option<Fault> {
        for rule in &mut self.rules {
            let draw = if rule.plan.share < 1.0 { self.random.f64() } else { 0.0 };
            let named = matches(&rule.glob, &model.name) || matches(&rule.glob, &model.whole);
            if named && rule.plan.bites(now.saturating_sub(rule.set_at), rule.bitten, draw) {
                rule.bitten += 1;
                return Some(rule.plan.fault.clone());
            }
        }
        None
    }
}

/// Whether a glob, where `*` stands for any text, names the model.
pub(super) fn matches(glob: &str, model: &str) -> bool {
    let Some((head, rest)) = glob.split_once('*') else { return glob == model };
    let Some(mut left) = model.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_name_models_as_in_a_shell() {
        for (glob, model, named) in [
            ("*", "anything", true),
            ("gpt-*", "gpt-5", true),
            ("gpt-*", "claude", false),
            ("*-mini", "gpt-5-mini", true),
            ("g*t*5", "gpt-x-t-5", true),
            ("a*a", "a", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(matches(glob, model), named, "{glob} {model}");
        }
    }

    #[test]
    fn a_models_suffixes_choose_its_chunks_its_gap_and_its_fault() {
        let read = Directives::read("gpt-x~chunks=64~gap=20ms~cut:after=5,how=eof").unwrap();
        assert_eq!((read.name.as_str(), read.chunks, read.gap), ("gpt-x", Some(64), Some(Duration::from_millis(20))));
        assert_eq!(read.wish, Some(Wish::Plan("cut:after=5,how=eof".parse().unwrap())));
        assert!(Directives::read("gpt-x~chunks=many").is_err());
    }

    #[test]
    fn a_wish_for_the_first_calls_only_is_counted() {
        let rules = Rules::new(1);
        let wish = Wish::read("500:first=1").unwrap();
        let model = Directives::read("m").unwrap();
        let choose = || rules.choose(Some(&wish), &model, Duration::ZERO).is_some();
        assert_eq!([choose(), choose(), choose()], [true, false, false]);
    }

    #[test]
    fn the_newest_rule_that_bites_wins_and_a_wish_for_health_wins_over_all() {
        let rules = Rules::new(1);
        let plan = |text: &str| Some(text.parse::<FaultPlan>().unwrap());
        rules.set("*", plan("500"), Duration::ZERO);
        rules.set("gpt-*", plan("hang:first=1"), Duration::ZERO);
        let choose = |wish, model| {
            rules.choose(wish, &Directives::read(model).unwrap(), Duration::ZERO).map(|fault| fault.to_string())
        };
        assert_eq!(choose(None, "gpt-5").as_deref(), Some("hang"));
        assert_eq!(choose(None, "gpt-5~chunks=3").as_deref(), Some("500"));
        assert_eq!(choose(Some(&Wish::Health), "gpt-5"), None);
        rules.set("*", None, Duration::ZERO);
        assert_eq!(choose(None, "other"), None);
    }
}
