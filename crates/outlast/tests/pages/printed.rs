//! What a page shows against what was printed.

/// Whether what is shown is what was printed, `...` standing for anything.
pub(crate) fn matches(shown: &str, got: &str) -> bool {
    fn lines(shown: &[&str], got: &[&str]) -> bool {
        match shown {
            [] => got.is_empty(),
            [rest, tail @ ..] if rest.trim() == "..." => (0..=got.len()).any(|skip| lines(tail, &got[skip..])),
            [first, tail @ ..] => match got {
                [line, more @ ..] => is_line(first, line) && lines(tail, more),
                [] => false,
            },
        }
    }
    lines(&split(shown), &split(got))
}

fn split(text: &str) -> Vec<&str> {
    text.trim_end().lines().map(str::trim_end).collect()
}

fn is_line(shown: &str, got: &str) -> bool {
    let mut parts = shown.split("...");
    let Some(mut rest) = got.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// What was printed, with what changes from run to run left open.
pub(crate) fn steady(got: &str) -> String {
    let line = |line: &str| {
        let mut line = line.trim_end().to_owned();
        for prefix in ["req_", "q_", "esc_", "chatcmpl-", "msg_"] {
            line = cut_after(&line, prefix, |c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        }
        for field in [
            "latency_ms",
            "ms",
            "created",
            "enqueued_at",
            "expires_at",
            "token",
            "age_s",
            "retry_after_ms",
            "deadline_ms",
        ] {
            line = value_open(&line, &format!("\"{field}\":"));
        }
        line
    };
    got.trim_end().lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Opens the number or text after each occurrence of a field's name.
fn value_open(line: &str, field: &str) -> String {
    let mut parts = line.split(field);
    let mut open = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let value = part.trim_start();
        let space = &part[..part.len() - value.len()];
        let (text, rest) = match value.strip_prefix('"') {
            Some(quoted) => ("\"...\"", quoted.split_once('"').map_or("", |(_, rest)| rest)),
            None => ("...", value.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')),
        };
        let open_value = if rest.len() == value.len() { "" } else { text };
        open += &format!("{field}{space}{open_value}{rest}");
    }
    open
}

fn cut_after(line: &str, prefix: &str, of_it: impl Fn(char) -> bool) -> String {
    let mut parts = line.split(prefix);
    let mut cut = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(&of_it);
        // A short one is a word, not an id.
        let id = if part.len() - rest.len() < 12 { &part[..part.len() - rest.len()] } else { "..." };
        cut += &format!("{prefix}{id}{rest}");
    }
    cut
}

#[test]
fn dots_stand_for_anything_and_nothing_else_does() {
    for (shown, got, same) in [
        ("a b", "a b", true),
        ("a b", "a c", false),
        ("a ... c", "a b b c", true),
        ("a ...", "a ", false),
        ("a...", "a ", true),
        ("x\n...\ny", "x\n1\n2\ny", true),
        ("x\n...\ny", "x\ny", true),
        ("x\n...", "x\n1", true),
        ("x", "x\n1", false),
        ("...: 1...2", "a: 1 and 2", true),
        ("...: 1...2", "a: 1 and 2 3", false),
    ] {
        assert_eq!(matches(shown, got), same, "{shown:?} {got:?}");
    }
}
