//! The way through a workflow: where each step leads, what may have run before it, and that every run ends.

use outlast_model::policy::{Branch, Goto};
use std::collections::BTreeSet;

/// Where a workflow's steps lead. Positions are those of the file.
pub(super) struct Flow {
    /// For each step, the steps that may follow at once; the position after the last stands for the end.
    after: Vec<BTreeSet<usize>>,
}

/// What the graph needs of a step.
pub(super) struct Node<'s> {
    pub(super) next: &'s [Branch],
    /// It may be skipped.
    pub(super) conditional: bool,
}

impl Flow {
    /// Draws it.
    pub(super) fn of(steps: &[Node<'_>]) -> Flow {
        let end = steps.len();
        let after = steps.iter().enumerate().map(|(at, step)| {
            let mut to: BTreeSet<usize> = BTreeSet::new();
            for branch in step.next {
                match branch.to {
                    Goto::Step(step) => {
                        to.insert(step);
                    }
                    Goto::End => {
                        to.insert(end);
                    }
                    Goto::Fail => {}
                }
            }
            // Where no branch holds, and where it is skipped, the step written after it follows.
            if step.conditional || step.next.last().is_none_or(|last| last.when.is_some()) {
                to.insert(at + 1);
            }
            to
        });
        Flow { after: after.collect() }
    }

    fn end(&self) -> usize {
        self.after.len()
    }

    /// Every position that may come after a step, the step itself only if it is in a loop.
    pub(super) fn behind(&self, step: usize) -> BTreeSet<usize> {
        self.behind_without(step, &|_| false)
    }

    /// The same, without going through some steps.
    fn behind_without(&self, step: usize, closed: &dyn Fn(usize) -> bool) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<usize> = self.after.get(step).into_iter().flatten().copied().collect();
        while let Some(at) = open.pop() {
            if !closed(at) && seen.insert(at) {
                open.extend(self.after.get(at).into_iter().flatten().copied());
            }
        }
        seen
    }

    /// Whether a run can come to a step.
    pub(super) fn is_reached(&self, step: usize) -> bool {
        step == 0 || self.behind(0).contains(&step)
    }

    /// Whether a run can end well.
    pub(super) fn ends(&self) -> bool {
        self.behind(0).contains(&self.end())
    }

    /// Whether a run may come to a step again.
    pub(super) fn is_in_loop(&self, step: usize) -> bool {
        self.behind(step).contains(&step)
    }

    /// The steps that are in a loop together with this one, itself included.
    pub(super) fn loop_of(&self, step: usize) -> Vec<usize> {
        let behind = self.behind(step);
        (0..self.end()).filter(|other| behind.contains(other) && self.behind(*other).contains(&step)).collect()
    }

    /// Whether a step is in a loop that goes through no step of `bounded`.
    pub(super) fn is_in_endless_loop(&self, step: usize, bounded: &dyn Fn(usize) -> bool) -> bool {
        !bounded(step) && self.behind_without(step, bounded).contains(&step)
    }

    /// Whether a run can have come through `first` before it comes to `step`.
    pub(super) fn may_precede(&self, first: usize, step: usize) -> bool {
        self.behind(first).contains(&step)
    }

    /// Whether a run always comes through `first` before it comes to `step`.
    pub(super) fn always_precedes(&self, first: usize, step: usize) -> bool {
        let around = |at: usize| at == first;
        let reached_without = step == 0 || (first != 0 && self.behind_without(0, &around).contains(&step));
        first != step && !reached_without
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(to: Goto) -> Branch {
        Branch { when: None, to }
    }

    fn maybe(to: Goto) -> Branch {
        Branch { when: Some("true".into()), to }
    }

    fn flow(steps: &[(&[Branch], bool)]) -> Flow {
        let nodes: Vec<Node<'_>> =
            steps.iter().map(|(next, conditional)| Node { next, conditional: *conditional }).collect();
        Flow::of(&nodes)
    }

    #[test]
    fn what_a_run_must_and_may_come_through_is_known() {
        // 0 -> 1 | 2, 1 -> 3, 2 -> 3, 3 -> end, 4 is written and never reached
        let first = [maybe(Goto::Step(2))];
        let second = [to(Goto::Step(3))];
        let last = [to(Goto::End)];
        let flow = flow(&[(&first, false), (&second, false), (&[], false), (&last, false), (&[], false)]);
        assert!(flow.ends() && flow.is_reached(3) && !flow.is_reached(4));
        assert!(flow.may_precede(1, 3) && !flow.may_precede(1, 2) && !flow.may_precede(3, 0));
        assert!(flow.always_precedes(0, 3) && !flow.always_precedes(1, 3) && !flow.always_precedes(2, 3));
        assert!(!(0..5).any(|step| flow.is_in_loop(step)));
    }

    #[test]
    fn a_loop_is_endless_unless_a_bounded_step_is_in_it() {
        // 0 -> 1 -> 2 -> 0 | end
        let back = [maybe(Goto::Step(0))];
        let flow = flow(&[(&[], false), (&[], false), (&back, false)]);
        assert_eq!(flow.loop_of(1), [0, 1, 2]);
        assert!(flow.is_in_endless_loop(1, &|_| false));
        assert!(!flow.is_in_endless_loop(1, &|step| step == 2));
        assert!(flow.ends());
    }

    #[test]
    fn a_skipped_step_leads_to_the_one_written_after_it() {
        let failing = [to(Goto::Fail)];
        let flow = flow(&[(&failing, true), (&[], false)]);
        assert!(flow.ends() && flow.is_reached(1));
        let dead = [to(Goto::Fail)];
        let flow = self::flow(&[(&dead, false), (&[], false)]);
        assert!(!flow.ends() && !flow.is_reached(1));
    }
}
