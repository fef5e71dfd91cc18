//! The few forms of commands that pages use: `curl`, `| jq PATH`, `NAME=$(...)`, and `outlast` itself.

use serde_json::Value;

/// Splits as a shell does, as far as pages need: spaces, single and double quotes, line continuation.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quote, mut open) = (None, false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(end), _) if letter == end => quote = None,
            (Some(_), _) => word.push(letter),
            (None, '\'' | '"') => (quote, open) = (Some(letter), true),
            (None, '\\') if letters.peek() == Some(&'\n') => {
                letters.next();
            }
            (None, _) if letter.is_whitespace() => {
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                    open = false;
                }
            }
            (None, _) => word.push(letter),
        }
    }
    assert!(quote.is_none(), "an open quote in {line}");
    if open || !word.is_empty() {
        words.push(word);
    }
    words
}

/// What `curl` was told.
#[derive(Debug, Default)]
pub(crate) struct Curl {
    pub(crate) method: Option<&'static str>,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<String>,
    /// `-i`: the head is printed too.
    pub(crate) head: bool,
}

impl Curl {
    /// Reads its words.
    pub(crate) fn read(words: &[String]) -> Curl {
        let mut curl = Curl::default();
        let mut words = words.iter().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} wants a value")).clone();
            match word.as_str() {
                "-s" | "-N" | "-sN" => {}
                "-i" | "-si" => curl.head = true,
                "-X" => {
                    curl.method = Some(match value().as_str() {
                        "POST" => "POST",
                        "DELETE" => "DELETE",
                        "GET" => "GET",
                        other => panic!("no method {other} here"),
                    });
                }
                "-H" => {
                    let header = value();
                    let (name, value) = header.split_once(": ").unwrap_or_else(|| panic!("no header: {header}"));
                    curl.headers.push((name.to_lowercase(), value.into()));
                }
                "-d" | "--json" => curl.body = Some(value()),
                url if url.starts_with("http") => curl.url = url.into(),
                other => panic!("curl {other} is not understood here"),
            }
        }
        curl
    }
}

/// `jq [-r|-c] PATH`: a path of fields and places, or several joined by commas.
pub(crate) fn jq(words: &[String], input: &str) -> String {
    let options: Vec<&str> = words[1..].iter().map(String::as_str).filter(|word| word.starts_with('-')).collect();
    let paths: Vec<&str> = words[1..].iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let paths = if paths.is_empty() { ".".to_owned() } else { paths.concat() };
    let root: Value = serde_json::from_str(input).unwrap_or_else(|error| panic!("jq: {error}: {input}"));
    let shown = |value: &Value| match value.as_str().filter(|_| options.contains(&"-r")) {
        Some(text) => text.to_owned(),
        None if options.contains(&"-c") => value.to_string(),
        None => serde_json::to_string_pretty(value).expect("JSON"),
    };

    paths.split(',').map(|path| shown(at(&root, path))).collect::<Vec<_>>().join("\n")
}

/// The value at a path such as `.choices[0].message.content`.
fn at<'a>(root: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|part| !part.is_empty()).fold(root, |value, part| {
        let (name, places) = part.split_once('[').unwrap_or((part, ""));
        let value = if name.is_empty() { value } else { &value[name] };
        let places = places.split(['[', ']']).filter_map(|place| place.parse::<usize>().ok());
        places.fold(value, |value, place| &value[place])
    })
}

#[test]
fn words_are_split_as_a_shell_does() {
    assert_eq!(words("curl -d '{\"a\": 1}' \\\n  x"), ["curl", "-d", "{\"a\": 1}", "x"]);
}
