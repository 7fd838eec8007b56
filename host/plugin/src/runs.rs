//! Runs: the signals of a call by their order key, and what a plugin answers for each run.
//!
//! What a plugin says was sent, was sent, even behind a failure: that is a fault of the plugin, and it is reported, but to
//! send the signal again would not put it in order. `send` forms the runs, `call` passes them on.

use signalbus_core::settlement::wrong_length;
use signalbus_core::signal::Outcome;

/// Returns the lengths of the runs: of the equal keys that follow one another.
pub(super) fn lengths<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let mut runs: Vec<(&str, usize)> = Vec::new();
    for key in keys {
        match runs.last_mut() {
            Some((last, length)) if *last == key => *length += 1,
            _ => runs.push((key, 1)),
        }
    }
    runs.into_iter().map(|(_, length)| length).collect()
}

/// Splits a list into runs of these lengths.
pub(super) fn split<'a, T>(mut all: &'a [T], lengths: &[usize]) -> Vec<&'a [T]> {
    let run = |&length: &usize| {
        let (run, rest) = all.split_at(length);
        all = rest;
        run
    };
    lengths.iter().map(run).collect()
}

/// The answer for the runs of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// One for each signal.
    pub(super) outcomes: Vec<Outcome>,
    /// The numbers of outcomes, or of lists, and of what they should be one for each, if they differ.
    pub(super) wrong_length: Option<(usize, usize)>,
    /// The position of the first signal that was sent behind one that was not.
    pub(super) out_of_order: Option<usize>,
}

impl Answer {
    /// An answer for signals that are no runs: its length may be wrong.
    pub(super) fn plain(outcomes: Vec<Outcome>, signals: usize) -> Self {
        let wrong_length = Some((outcomes.len(), signals)).filter(|(outcomes, signals)| outcomes != signals);
        Self { outcomes, wrong_length, out_of_order: None }
    }

    /// Reads the lists of a plugin. A list of the wrong length acknowledges nothing.
    pub(super) fn read(lists: Vec<Vec<Outcome>>, lengths: &[usize]) -> Self {
        let mut answer = Self { outcomes: Vec::new(), wrong_length: None, out_of_order: None };
        if lists.len() != lengths.len() {
            answer.wrong_length = Some((lists.len(), lengths.len()));
            answer.outcomes = wrong_length(lengths.iter().sum(), lists.iter().map(Vec::len).sum());
            return answer;
        }
        for (list, &length) in lists.into_iter().zip(lengths) {
            if list.len() == length {
                answer.add(list);
            } else {
                answer.wrong_length.get_or_insert((list.len(), length));
                answer.outcomes.extend(wrong_length(length, list.len()));
            }
        }
        answer
    }

    /// Adds the outcomes of a run. Behind a failure, only what was sent counts.
    fn add(&mut self, list: Vec<Outcome>) {
        let mut failed = false;
        for outcome in list {
            let done = matches!(outcome, Outcome::Sent | Outcome::Skip);
            if failed && done {
                self.out_of_order.get_or_insert(self.outcomes.len());
            }
            self.outcomes.push(if failed && !done { Outcome::Held } else { outcome });
            failed |= !done;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_equal_keys_in_a_row() {
        assert_eq!(lengths(["a", "a", "b", "c", "c", "c"].into_iter()), [2, 1, 3]);
        assert_eq!(lengths(["", ""].into_iter()), [2]);
        assert!(lengths(std::iter::empty()).is_empty());
        assert_eq!(split(&[1, 2, 3], &[2, 1]), [&[1, 2][..], &[3]]);
    }

    #[test]
    fn behind_a_failure_only_what_was_sent_counts() {
        let (sent, retry, held) = (Outcome::Sent, Outcome::retry("full"), Outcome::Held);
        let lists = vec![
            vec![sent.clone(), retry.clone(), retry.clone()],
            vec![held.clone(), sent.clone()],
            vec![Outcome::Reject { reason: "no".into() }, held.clone()],
        ];
        let answer = Answer::read(lists, &[3, 2, 2]);
        let reject = Outcome::Reject { reason: "no".into() };
        assert_eq!(answer.outcomes, [sent.clone(), retry, held.clone(), held.clone(), sent, reject, held]);
        assert_eq!((answer.wrong_length, answer.out_of_order), (None, Some(4)));
    }

    #[test]
    fn a_list_of_the_wrong_length_acknowledges_nothing() {
        let sent = |count| vec![Outcome::Sent; count];
        // As many outcomes as signals, and yet not one for each.
        let answer = Answer::read(vec![sent(1), sent(2)], &[2, 1]);
        assert!(answer.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Retry { .. })));
        assert_eq!((answer.outcomes.len(), answer.wrong_length), (3, Some((1, 2))));
        let answer = Answer::read(vec![sent(2), sent(2)], &[2, 1]);
        assert_eq!(answer.outcomes[..2], sent(2));
        assert!(matches!(answer.outcomes[2], Outcome::Retry { .. }));
        let answer = Answer::read(vec![sent(3)], &[2, 1]);
        assert!(answer.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Retry { .. })));
        assert_eq!((answer.outcomes.len(), answer.wrong_length), (3, Some((1, 2))));
    }
}
