//! Refusals that come as ordinary text. A heuristic on how a text opens, in English: a model that declines says so in
//! its first sentence, as "I", and about its own doing.
//!
//! A text where JSON was due and that opens so is a refusal rather than broken JSON. Of other replies it is asked only
//! where the contract sends refusals elsewhere: an answer that merely begins politely ("I'm sorry to hear that") or
//! speaks of what somebody else cannot do is none.

/// How far the opening reaches, in characters.
const OPENING: usize = 240;

/// What may come before it.
const LEAD_INS: &[&str] = &[
    "i'm sorry",
    "i am sorry",
    "i'm very sorry",
    "i'm really sorry",
    "sorry",
    "i apologize",
    "i apologise",
    "my apologies",
    "apologies",
    "unfortunately",
    "i understand",
    "i appreciate",
    "thank you",
    "as an ai",
    "as a language model",
    "as an assistant",
    "as an artificial intelligence",
];

/// The model's own doing that it declines.
const DECLINES: &[&str] = &[
    "i can't",
    "i cannot",
    "i can not",
    "i won't",
    "i will not",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "i'm not allowed to",
    "i am not allowed to",
    "i'm not permitted to",
    "i must decline",
    "i have to decline",
    "i need to decline",
    "i decline to",
    "i refuse to",
    "i'm not comfortable",
    "i am not comfortable",
    "i don't feel comfortable",
    "i do not feel comfortable",
];

/// What it declines to do. "I can't see the attachment" is an answer; "I can't help with that" is none.
const DOINGS: &[&str] = &["help", "assist", "comply", "fulfill", "fulfil", "engage", "participate", "discuss"];

/// The same, when it is the request that is spoken of: "I cannot provide a refund" is an answer, "I cannot provide
/// that information" is none.
const DOINGS_OF_THIS: &[&str] = &[
    "do", "provide", "create", "generate", "write", "produce", "share", "give", "support", "respond", "continue",
    "answer", "complete", "process", "perform", "offer",
];
const THIS: &[&str] = &[
    "this",
    "that",
    "these",
    "those",
    "such",
    "any",
    "content",
    "information",
    "instructions",
    "advice",
    "guidance",
    "medical",
    "legal",
    "financial",
    "to",
    "with",
    "your",
];

/// Whether a text opens with a refusal.
pub(super) fn opens(text: &str) -> bool {
    let opening: String = text
        .trim_start()
        .chars()
        .take(OPENING)
        .flat_map(char::to_lowercase)
        .map(|letter| if matches!(letter, '’' | '‘' | '`') { '\'' } else { letter })
        .collect();
    let mut rest = opening.as_str();
    // "Sorry, but ...", "I understand that this is urgent, however ...": the refusal may stand in the next clause.
    for _ in 0..3 {
        if DECLINES.iter().any(|phrase| rest.strip_prefix(phrase).is_some_and(declines)) {
            return true;
        }
        if !LEAD_INS.iter().any(|lead_in| rest.starts_with(lead_in)) {
            return false;
        }
        let Some(end) = rest.find([',', '.', ';', ':', '—', '!', '\n']).or_else(|| rest.find(" but ")) else {
            return false;
        };
        rest = rest[end..].trim_start_matches(|letter: char| !letter.is_alphanumeric());
        rest = ["but ", "however, ", "however ", "and "]
            .into_iter()
            .find_map(|word| rest.strip_prefix(word))
            .unwrap_or(rest);
    }
    false
}

/// What follows "I can't" is the task itself.
fn declines(rest: &str) -> bool {
    let mut words = rest
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .skip_while(|word| matches!(*word, "be" | "able" | "to" | "directly" | "actually" | "really" | "in" | "good"));
    match words.next() {
        // "I must decline." and nothing more.
        None => true,
        Some(word) if DOINGS.contains(&word) => true,
        Some(word) => DOINGS_OF_THIS.contains(&word) && words.next().is_some_and(|word| THIS.contains(&word)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_by_how_it_opens() {
        for text in [
            "I'm sorry, but I can't help with that.",
            "I\u{2019}m sorry, but I can\u{2019}t assist with that request.",
            "Sorry, I cannot provide that information.",
            "I cannot fulfill this request.",
            "Unfortunately, I am unable to help with this.",
            "I apologize, but I'm not able to generate that content.",
            "As an AI language model, I cannot provide legal advice.",
            "I understand this is important to you. However, I won't be able to help with that.",
            "  I must decline.",
            "I won't do that.",
        ] {
            assert!(opens(text), "{text}");
        }
    }

    #[test]
    fn an_answer_that_begins_politely_or_admits_a_gap_is_none() {
        for text in [
            "I'm sorry to hear that your parcel is late. It will arrive tomorrow.",
            "Sorry for the delay! Your order was shipped on Monday.",
            "I can't find order A-17 in the list you gave. Is the number right?",
            "I cannot see an attachment; please send it again.",
            "Unfortunately, the shop is closed on Sundays.",
            "You can't return opened items, sorry.",
            "I'm sorry, but I cannot provide a refund after thirty days.",
            "The system cannot help with that, so please call us.",
            "Here is the summary. I'm sorry, but I can't help with more.",
            "{\"refusal\": \"I'm sorry, but I can't help with that.\"}",
            "",
        ] {
            assert!(!opens(text), "{text}");
        }
    }
}
