//! Elections: what holds for any ballots in any order.

use outlast_engine::vote::{Ballot, Election};
use outlast_model::policy::{Disagreement, VoteSpread, Votes};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn rules(ahead: u8, samples: u8, disagreement: Disagreement) -> Votes {
    Votes { ahead, samples, spread: VoteSpread::Samples, fields: Vec::new(), judge: None, disagreement }
}

fn tally(cast: &[Option<usize>]) -> BTreeMap<usize, u8> {
    let mut votes = BTreeMap::new();
    cast.iter().flatten().for_each(|class| *votes.entry(*class).or_insert(0) += 1);
    votes
}

/// The class with the most votes, if it is alone, and its lead over the second.
fn lead(votes: &BTreeMap<usize, u8>) -> (Option<usize>, u8) {
    let mut order: Vec<_> = votes.iter().map(|(class, votes)| (*votes, *class)).collect();
    order.sort_unstable_by(|a, b| b.cmp(a));
    let (best, second) = (order.first().map_or(0, |o| o.0), order.get(1).map_or(0, |o| o.0));
    (order.first().filter(|_| best > second).map(|o| o.1), best - second)
}

/// Everything seen of one election: the outcome, what was cast until then, and what was asked for.
struct Held {
    outcome: Ballot,
    cast: Vec<Option<usize>>,
    asked: u8,
    election: Election,
}

/// Holds an election whose ballots come back one by one, and checks at every step what must hold then.
fn hold(ahead: u8, samples: u8, ballots: &[Option<usize>]) -> Held {
    hold_by(&rules(ahead, samples, Disagreement::Fail), ballots)
}

fn hold_by(rules: &Votes, ballots: &[Option<usize>]) -> Held {
    let (ahead, samples) = (rules.ahead, rules.samples);
    let mut election = Election::new(rules);
    let (mut asked, mut cast) = (0u8, Vec::new());
    loop {
        let (leader, leads) = lead(&tally(&cast));
        let in_flight = asked - cast.len() as u8;
        match election.next() {
            Ballot::Ask(more) => {
                assert!(more > 0 && asked + more <= samples, "asks for {more} beyond {asked} of {samples}");
                asked += more;
                let in_flight = in_flight + more;
                assert!(in_flight <= ahead - leads, "{in_flight} in flight, and {} would do", ahead - leads);
                assert_eq!(election.next(), Ballot::Wait, "what was asked for is on its way");
            }
            Ballot::Wait => {
                assert!(in_flight > 0, "waits for nothing");
                assert!(leads < ahead, "it is decided");
            }
            outcome @ Ballot::Won(class) => {
                assert_eq!((Some(class), true), (leader, leads >= ahead));
                return Held { outcome, cast, asked, election };
            }
            outcome @ Ballot::Undecided { leader: told } => {
                assert!(ahead - leads > samples - cast.len() as u8, "somebody could still win");
                assert_eq!(told, leader);
                let tie_stays = rules.disagreement == Disagreement::Fail || leader.is_some() || asked == samples;
                assert!(tie_stays, "one more would have broken the tie");
                assert!(in_flight == 0 || leads > in_flight, "the leader may still change");
                return Held { outcome, cast, asked, election };
            }
        }
        let ballot = ballots[cast.len()];
        assert!((cast.len() as u8) < asked);
        election.cast(ballot);
        cast.push(ballot);
    }
}

fn ballots() -> impl Strategy<Value = Vec<Option<usize>>> {
    let ballot = prop_oneof![3 => Just(Some(0)), 2 => Just(Some(1)), 1 => Just(Some(2)), 1 => Just(None)];
    proptest::collection::vec(ballot, 12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn an_election_asks_no_more_than_its_samples_and_decides_as_soon_as_it_can(
        ahead in 1u8..4, more in 0u8..6, ballots in ballots(), majority in any::<bool>(),
    ) {
        let samples = ahead + more;
        let disagreement = if majority { Disagreement::Majority } else { Disagreement::Fail };
        let held = hold_by(&rules(ahead, samples, disagreement), &ballots);
        prop_assert!(held.asked <= samples);
        // No earlier ballot had decided it.
        for end in 0..held.cast.len() {
            let (_, leads) = lead(&tally(&held.cast[..end]));
            prop_assert!(leads < ahead, "decided after {end}");
        }
        if let Ballot::Won(class) = held.outcome {
            let agreement = held.election.agreement(class);
            prop_assert_eq!(agreement.votes_for, tally(&held.cast)[&class]);
            prop_assert_eq!(usize::from(agreement.votes + agreement.dropped), held.cast.len());
        }
    }

    #[test]
    fn unanimous_ballots_win_with_the_fewest_that_can(ahead in 1u8..5, more in 0u8..5) {
        let held = hold(ahead, ahead + more, &[Some(7); 12]);
        prop_assert_eq!(held.outcome, Ballot::Won(7));
        prop_assert_eq!(held.asked, ahead);
    }

    #[test]
    fn nobody_wins_on_malformed_ballots(ahead in 1u8..4, more in 0u8..6) {
        let held = hold(ahead, ahead + more, &[None; 12]);
        prop_assert_eq!(held.outcome, Ballot::Undecided { leader: None });
        prop_assert!(held.asked <= ahead + more);
    }
}

#[test]
fn one_dissenting_vote_of_three_is_outvoted_with_four() {
    let held = hold(2, 5, &[Some(0), Some(1), Some(0), Some(0), None]);
    assert_eq!((held.outcome, held.asked), (Ballot::Won(0), 4));
    let agreement = held.election.agreement(0);
    assert_eq!((agreement.votes_for, agreement.votes, agreement.dropped), (3, 4, 0));
}

#[test]
fn a_dropped_ballot_uses_up_a_sample_and_votes_for_nobody() {
    let held = hold(2, 3, &[None, Some(0), Some(0)]);
    assert_eq!((held.outcome, held.asked), (Ballot::Won(0), 3));
    assert_eq!(held.election.agreement(0).dropped, 1);
    let held = hold(2, 3, &[None, None, Some(0)]);
    assert_eq!((held.outcome, held.asked), (Ballot::Undecided { leader: Some(0) }, 3));
}

#[test]
fn a_divided_vote_names_its_leader_and_a_tie_none() {
    let held = hold(2, 3, &[Some(0), Some(1), Some(0)]);
    assert_eq!(held.outcome, Ballot::Undecided { leader: None }, "one more vote could not have made a lead of two");
    let rules = rules(2, 3, Disagreement::Majority);
    let held = hold_by(&rules, &[Some(0), Some(1), Some(0)]);
    assert_eq!((held.outcome, held.asked), (Ballot::Undecided { leader: Some(0) }, 3), "the leader answers");
    let held = hold(3, 5, &[Some(0), Some(1), Some(0), Some(0), Some(1)]);
    assert!(matches!(held.outcome, Ballot::Undecided { leader: Some(0) }), "{:?}", held.outcome);
}

#[test]
fn a_ballot_nobody_asked_for_does_not_count() {
    let mut election = Election::new(&rules(2, 5, Disagreement::Fail));
    assert_eq!(election.next(), Ballot::Ask(2));
    (0..4).for_each(|_| election.cast(Some(0)));
    assert_eq!(election.agreement(0).votes, 2);
}
