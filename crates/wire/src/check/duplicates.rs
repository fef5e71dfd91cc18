//! Text that repeats itself: what a model does when it is stuck.
//!
//! It fails when
//! - a sentence of 40 letters or more (20 in scripts without spaces) stands there three times, or a paragraph of 200
//!   or more twice;
//! - the same item of a list, of 20 letters or more, comes four times in a row;
//! - the text ends in a loop: the last 200 characters or more are one piece of at most 400 characters, with a letter
//!   in it, five times over or more;
//! - a run of twelve words occurs four times or more and makes up a quarter of the running text.
//!
//! Code, tables and quotations may repeat as they like, and short lines too. In a JSON reply each string is judged
//! for itself: a table of records repeats values by nature. Everything is linear in the text.

use super::prose::{self, Line};
use std::collections::HashMap;

const SENTENCE_LETTERS_MIN: usize = 40;
const DENSE_SENTENCE_LETTERS_MIN: usize = 20;
const SENTENCE_TIMES: u32 = 3;
const PARAGRAPH_LETTERS_MIN: usize = 200;
const PARAGRAPH_TIMES: u32 = 2;
const ITEM_LETTERS_MIN: usize = 20;
const ITEM_TIMES: u32 = 4;
/// How much of the end is looked at for a loop, in characters.
const TAIL: usize = 4000;
const LOOP_LENGTH_MIN: usize = 200;
const LOOP_PERIOD_MAX: usize = 400;
const LOOP_TIMES: usize = 5;
const RUN_WORDS: usize = 12;
const RUN_TIMES: usize = 4;
/// One in so many words.
const RUN_SHARE: usize = 4;

/// How a text repeats itself, if it does.
pub(super) fn find(text: &str) -> Option<&'static str> {
    // Too short to repeat anything.
    text.chars().nth(ITEM_LETTERS_MIN)?;
    let mut seen = Seen::default();
    let mut running = String::new();
    let mut tail = String::new();
    for (line, words) in prose::lines(text) {
        match line {
            Line::Code | Line::Row | Line::Quote => {
                seen.interrupted();
                tail.clear();
            }
            Line::Blank => {
                if seen.paragraph_ended(&mut running) {
                    return Some("a paragraph is repeated");
                }
                tail.push('\n');
            }
            Line::Item => {
                if seen.item(words) {
                    return Some("an item of a list is repeated");
                }
                tail.push_str(words);
                tail.push('\n');
            }
            Line::Prose => {
                seen.last_item = None;
                if !running.is_empty() {
                    running.push(' ');
                }
                running.push_str(words);
                tail.push_str(words);
                tail.push('\n');
                if prose::sentences(words).any(|sentence| seen.sentence(sentence)) {
                    return Some("a sentence is repeated");
                }
            }
        }
    }
    if seen.paragraph_ended(&mut running) {
        return Some("a paragraph is repeated");
    }
    if loops(&tail) {
        return Some("it ends in a loop");
    }
    seen.runs().then_some("a run of words is repeated")
}

/// What has come so far, by the hash of its normal form.
#[derive(Default)]
struct Seen {
    sentences: HashMap<u64, u32, Plain>,
    paragraphs: HashMap<u64, u32, Plain>,
    last_item: Option<(u64, u32)>,
    /// The words of the running text, by hash.
    words: Vec<u64>,
}

/// The keys are hashes already, of text that whoever wrote it can choose; a flood of equal ones is only counted.
type Plain = std::hash::BuildHasherDefault<std::collections::hash_map::DefaultHasher>;

impl Seen {
    fn sentence(&mut self, sentence: &str) -> bool {
        let form = Form::of(sentence, |hash| self.words.push(hash));
        let enough = if form.dense { DENSE_SENTENCE_LETTERS_MIN } else { SENTENCE_LETTERS_MIN };
        form.letters >= enough && counted(&mut self.sentences, form.hash) >= SENTENCE_TIMES
    }

    fn paragraph_ended(&mut self, running: &mut String) -> bool {
        let form = Form::of(running, |_| {});
        running.clear();
        form.letters >= PARAGRAPH_LETTERS_MIN && counted(&mut self.paragraphs, form.hash) >= PARAGRAPH_TIMES
    }

    fn item(&mut self, item: &str) -> bool {
        let form = Form::of(item, |_| {});
        let times = match self.last_item {
            Some((hash, times)) if hash == form.hash => times + 1,
            Some(_) | None => 1,
        };
        self.last_item = Some((form.hash, times));
        form.letters >= ITEM_LETTERS_MIN && times >= ITEM_TIMES
    }

    fn interrupted(&mut self) {
        self.last_item = None;
    }

    /// Whether a run of words makes up too much of the running text.
    fn runs(&self) -> bool {
        let mut runs: HashMap<u64, (usize, usize), Plain> = HashMap::default();
        self.words.windows(RUN_WORDS).enumerate().any(|(at, window)| {
            let hash = window.iter().fold(0, |hash, word| mix(hash, *word));
            let (times, free_from) = runs.entry(hash).or_default();
            if at >= *free_from {
                *times += 1;
                *free_from = at + RUN_WORDS;
            }
            *times >= RUN_TIMES && *times * RUN_WORDS * RUN_SHARE >= self.words.len()
        })
    }
}

fn counted(counts: &mut HashMap<u64, u32, Plain>, hash: u64) -> u32 {
    let count = counts.entry(hash).or_default();
    *count += 1;
    *count
}

/// The normal form of some text: its words in lower case, nothing between them.
struct Form {
    hash: u64,
    letters: usize,
    /// Written without spaces: most letters are CJK or the like.
    dense: bool,
}

impl Form {
    fn of(text: &str, mut word: impl FnMut(u64)) -> Form {
        let (mut hash, mut letters, mut dense) = (0, 0, 0);
        for part in text.split(|letter: char| !letter.is_alphanumeric()).filter(|part| !part.is_empty()) {
            let mut of_word = 0;
            for letter in part.chars().flat_map(char::to_lowercase) {
                of_word = mix(of_word, u64::from(letter));
                letters += 1;
                dense += usize::from(is_dense(letter));
            }
            word(of_word);
            hash = mix(hash, of_word);
        }
        Form { hash, letters, dense: 2 * dense > letters }
    }
}

/// CJK ideographs, kana, Thai, Lao, Khmer and Burmese: words are not set apart by spaces.
pub(super) fn is_dense(letter: char) -> bool {
    matches!(letter, '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// One step of a hash; the multiplier is splitmix64's.
fn mix(hash: u64, next: u64) -> u64 {
    let mixed = (hash.rotate_left(5) ^ next).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

/// Whether a text ends in a loop. The failure function of its end, read backwards, has every period.
fn loops(text: &str) -> bool {
    let end: Vec<char> = text.trim_end().chars().rev().take(TAIL).collect();
    let mut border = vec![0usize; end.len()];
    let mut matched = 0;
    for at in 1..end.len() {
        while matched > 0 && end[at] != end[matched] {
            matched = border[matched - 1];
        }
        matched += usize::from(end[at] == end[matched]);
        border[at] = matched;
        let (length, period) = (at + 1, at + 1 - matched);
        if length >= LOOP_LENGTH_MIN && period <= LOOP_PERIOD_MAX && length >= LOOP_TIMES * period {
            return end[..period].iter().any(|letter| letter.is_alphabetic());
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "The delivery is delayed because the customs office asks for one more document.";

    #[test]
    fn what_a_stuck_model_writes_is_found() {
        let filler = |n: usize| format!("Sentence number {n} says something of its own about the weather in town {n}.");
        let paragraph = (0..6).map(filler).collect::<Vec<_>>().join(" ");
        for (text, expected) in [
            (format!("{LONG} {} {LONG}\n\n{} {LONG}", filler(1), filler(2)), "a sentence is repeated"),
            (format!("{paragraph}\n\nMore.\n\n{paragraph}"), "a paragraph is repeated"),
            (format!("{}\n", "- Ask the customs office again\n".repeat(4)), "an item of a list is repeated"),
            (format!("Well: {}", "and so on ".repeat(40)), "it ends in a loop"),
            (format!("So {}", "ha".repeat(200)), "it ends in a loop"),
            (format!("答案是：{}", "我不知道该怎么办".repeat(60)), "it ends in a loop"),
            (
                (1..9).map(|n| format!("{n}. Ask the office\n   and wait\n")).collect::<String>()
                    + &"Then call them, ask them\nand go on. ".repeat(12),
                "it ends in a loop",
            ),
            (
                (0..8)
                    .map(|n| format!("Case {n} is such that the office in question has to be asked for the missing document and {} ", filler(n)))
                    .collect(),
                "a run of words is repeated",
            ),
            (format!("{} {LONG} {LONG} {LONG}", filler(3)).to_uppercase(), "a sentence is repeated"),
        ] {
            assert_eq!(find(&text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_repeats_by_nature_is_left_alone() {
        let row = "| Widget | in stock in the central warehouse | 12.00 |\n";
        for text in [
            format!("| a | b | c |\n|---|---|---|\n{}", row.repeat(50)),
            format!("```\n{}```\n", "let x = compute_the_answer_of_everything_again();\n".repeat(50)),
            format!("{}\nDone.", "> He said it again and again, and it was all he ever said to us.\n".repeat(9)),
            "- yes\n- no\n- yes\n- yes\n- yes\n- yes\n".to_owned(),
            (1..30).map(|n| format!("- [ ] Check the order number {n} and sign it\n")).collect(),
            "Line one.\nLine two.\nYes.\nYes.\nYes.\nYes.\nYes.\n".to_owned(),
            format!("{}\n\n{}\n\n{}\n", "=".repeat(300), "-".repeat(300), "0".repeat(300)),
            format!("{LONG} In short: {LONG}"),
            "## Monday\nOpen from 9 to 5.\n## Tuesday\nOpen from 9 to 5.\n## Wednesday\nOpen from 9 to 5.\n".repeat(3),
            (1..40)
                .map(|n| format!("The price of item {n} is {} dollars and its weight is {} kilograms.\n", n * 3, n * 7))
                .collect(),
            "ok".to_owned(),
            String::new(),
        ] {
            assert_eq!(find(&text), None, "{text}");
        }
    }

    #[test]
    fn a_megabyte_of_anything_takes_no_time_to_speak_of() {
        for text in ["a".repeat(1 << 20), "ab ".repeat(1 << 18), "a. ".repeat(1 << 18), "- a\n".repeat(1 << 18)] {
            let _ = find(&text);
        }
        let distinct: String = (0..60_000).map(|n| format!("word{n} and ")).collect();
        assert_eq!(find(&distinct), None);
    }
}
