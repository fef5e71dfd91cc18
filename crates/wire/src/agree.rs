//! When do replies agree? Votes are sorted into classes; the engine counts them without reading any.

use outlast_model::policy::Votes;
use serde_json::Value;

/// The ballots of one vote, sorted into classes of replies that agree.
#[derive(Debug)]
pub struct Tally {
    rules: Votes,
    json: bool,
    /// The first ballot of each class, and every ballot in it by number.
    classes: Vec<(Ballot, Vec<usize>)>,
    cast: usize,
}

#[derive(Debug, PartialEq)]
enum Ballot {
    Json(Value),
    Text(String),
}

impl Tally {
    /// An empty ballot box under a tier's rules. Text until [`Tally::of_json`] says otherwise.
    pub fn new(votes: &Votes) -> Tally {
        Tally { rules: votes.clone(), json: !votes.fields.is_empty(), classes: Vec::new(), cast: 0 }
    }

    /// Ballots have to be JSON: the contract or the request demands it.
    pub fn of_json(mut self, demanded: bool) -> Tally {
        self.json |= demanded;
        self
    }

    /// Adds a ballot. The class it agrees with, or a new one; `None`: it is malformed (not JSON where JSON is due) and
    /// does not count.
    pub fn add(&mut self, text: &str) -> Option<usize> {
        let ballot = if self.json {
            Ballot::Json(serde_json::from_str(text).ok()?)
        } else {
            Ballot::Text(text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
        };
        let number = self.cast;
        self.cast += 1;
        let at = match self.classes.iter().position(|(first, _)| *first == ballot) {
            Some(at) => at,
            None => {
                self.classes.push((ballot, Vec::new()));
                self.classes.len() - 1
            }
        };
        self.classes[at].1.push(number);
        Some(at)
    }

    /// The ballot that stands for a class: never a mix of several. Ballots are numbered from 0 in the order in which
    /// [`Tally::add`] took them.
    pub fn whole(&self, class: usize) -> usize {
        self.classes.get(class).and_then(|(_, ballots)| ballots.first().copied()).unwrap_or_default()
    }
}
