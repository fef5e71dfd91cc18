//! Templates and expressions of the config: minijinja on a short leash.
//!
//! What they may cost is bounded: the source, the steps of one evaluation (fuel), the recursion and the output. There
//! is nothing to include, import or load, a name that is not known is an error rather than nothing, and nothing is
//! escaped: a notice is plain text, and a template that writes JSON uses the filter `tojson`.
//!
//! Errors say on which line and why. They never hold a value: values are payloads.

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value, escape_formatter, value::Serde};
use serde::Serialize;
use std::{fmt, io, sync::LazyLock};

/// The longest source of a template or expression, in bytes.
pub const SOURCE_BYTES_MAX: usize = 64 << 10;
/// The longest output of a template, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// The steps one evaluation may take. A notice takes some dozens; a loop over 10,000 things some 100,000.
const FUEL: u64 = 200_000;
/// How deep an evaluation may nest.
const RECURSION_MAX: usize = 64;
/// The name of a template in its own environment.
const NAME: &str = "template";

/// A template, compiled once.
pub struct Template {
    env: Environment<'static>,
    names: Vec<String>,
}

impl Template {
    /// Compiles a template.
    /// # Errors
    /// On which line it is wrong, and how, in plain English.
    pub fn compile(source: &str) -> Result<Template, String> {
        bounded(source)?;
        let mut env = environment();
        env.add_template_owned(NAME, source.to_owned()).map_err(|error| of_source(&error))?;
        known_words(source, false, &env)?;
        let names = match env.get_template(NAME) {
            Ok(template) => template.undeclared_variables(true),
            Err(error) => return Err(of_source(&error)),
        };
        let mut names: Vec<String> = names.into_iter().filter(|name| !is_global(name)).collect();
        names.sort_unstable();
        Ok(Template { env, names })
    }

    /// The facts it reads, as dotted paths: `age`, `request.model`. Sorted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Fills it in.
    /// # Errors
    /// On which line it failed, and why, without any value: a fact is missing, it took too long, or grew too large.
    pub fn render(&self, facts: &impl Serialize) -> Result<String, String> {
        self.render_facts(&Facts::of(facts))
    }

    /// As [`Template::render`], of facts that have been made once for several evaluations.
    /// # Errors
    /// The same.
    pub fn render_facts(&self, facts: &Facts) -> Result<String, String> {
        let template = self.env.get_template(NAME).map_err(|error| of_values(&error))?;
        let mut out = Bounded { written: Vec::new(), full: false };
        let done = template.render_captured_to(facts.0.clone(), &mut out);
        if out.full {
            return Err(format!("it wrote more than {OUTPUT_BYTES_MAX} bytes"));
        }
        done.map_err(|error| of_values(&error))?;
        String::from_utf8(out.written).map_err(|_| "it wrote something that is not text".to_owned())
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("names", &self.names).finish_non_exhaustive()
    }
}

/// An expression that is true or false, compiled once.
pub struct Expression {
    compiled: minijinja::Expression<'static, 'static>,
    names: Vec<String>,
}

impl Expression {
    /// Compiles an expression.
    /// # Errors
    /// How it is wrong, in plain English.
    pub fn compile(source: &str) -> Result<Expression, String> {
        // One environment serves all expressions: it is never written to.
        static SHARED: LazyLock<Environment<'static>> = LazyLock::new(environment);
        bounded(source)?;
        if source.trim().is_empty() {
            return Err("it is empty".into());
        }
        let compiled = SHARED.compile_expression_owned(source.to_owned()).map_err(|error| of_source(&error))?;
        known_words(source, true, &SHARED)?;
        let mut names: Vec<String> =
            compiled.undeclared_variables(true).into_iter().filter(|name| !is_global(name)).collect();
        names.sort_unstable();
        Ok(Expression { compiled, names })
    }

    /// The facts it reads, as dotted paths: `reply.total`, `text`. Sorted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether it is true of these facts.
    /// # Errors
    /// Why it cannot be said, without any value: a fact is missing, two do not go together, or it took too long.
    pub fn holds(&self, facts: &impl Serialize) -> Result<bool, String> {
        self.of(self::facts(facts))
    }

    /// As [`Expression::holds`], of facts that have been made once for several evaluations.
    /// # Errors
    /// The same.
    pub fn holds_of(&self, facts: &Facts) -> Result<bool, String> {
        self.of(facts.0.clone())
    }

    /// Its value, as JSON.
    /// # Errors
    /// As [`Expression::holds`], and when it is nothing that JSON has a form for.
    pub fn value(&self, facts: &Facts) -> Result<serde_json::Value, String> {
        let value = self.compiled.eval(facts.0.clone()).map_err(|error| in_words(error.kind()).to_owned())?;
        if value.is_undefined() {
            return Err(in_words(ErrorKind::UndefinedError).into());
        }
        serde_json::to_value(&value).map_err(|_| "its value has no form in JSON".to_owned())
    }

    /// As [`Expression::holds`], of facts that have been made once for several expressions.
    pub(crate) fn of(&self, facts: Value) -> Result<bool, String> {
        let value = self.compiled.eval(facts).map_err(|error| in_words(error.kind()).to_owned())?;
        if value.is_undefined() {
            return Err(in_words(ErrorKind::UndefinedError).into());
        }
        Ok(value.is_true())
    }
}

/// Facts made once for several evaluations. Cheap to clone.
#[derive(Clone)]
pub struct Facts(Value);

impl Facts {
    /// Makes them.
    pub fn of(facts: &impl Serialize) -> Facts {
        Facts(self::facts(facts))
    }
}

impl fmt::Debug for Facts {
    /// Facts are payloads: they are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Facts(..)")
    }
}

/// Facts made once for several evaluations.
pub(crate) fn facts(facts: &impl Serialize) -> Value {
    Value::from(Serde(facts))
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expression").field("names", &self.names).finish_non_exhaustive()
    }
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(RECURSION_MAX);
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    // A fact that is known to be nothing reads as nothing, not as the word "none".
    env.set_formatter(|out, state, value| if value.is_none() { Ok(()) } else { escape_formatter(out, state, value) });
    env
}

fn bounded(source: &str) -> Result<(), String> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(format!("it is longer than {SOURCE_BYTES_MAX} bytes"));
    }
    Ok(())
}

fn is_global(name: &str) -> bool {
    matches!(name, "range" | "dict" | "namespace" | "debug")
}

/// Filters and tests that do not exist would only be noticed when they are reached: they are looked for in the source,
/// which has been parsed, outside its strings (and, in a template, outside its plain text).
fn known_words(source: &str, all_code: bool, env: &Environment<'_>) -> Result<(), String> {
    let mut before = "";
    for word in code_words(source, all_code) {
        let probe = match before {
            "|" => format!("1|{word}"),
            "is" if word != "not" => format!("1 is {word}"),
            _ => String::new(),
        };
        // `is not defined` reads as `is defined`.
        if !(before == "is" && word == "not") {
            before = word;
        }
        if !probe.is_empty()
            && let Ok(probe) = env.compile_expression_owned(probe)
            && let Err(error) = probe.eval(())
            && matches!(error.kind(), ErrorKind::UnknownFilter | ErrorKind::UnknownTest)
        {
            return Err(format!("{}: `{word}`", in_words(error.kind())));
        }
    }
    Ok(())
}

/// The words and signs of the code in a source, without its strings.
fn code_words(source: &str, all_code: bool) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = source;
    let mut in_code = all_code;
    while let Some(first) = rest.chars().next() {
        let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let length = match first {
            _ if !in_code => match rest.find("{{").into_iter().chain(rest.find("{%")).min() {
                Some(open) => {
                    in_code = true;
                    open + 2
                }
                None => break,
            },
            '\'' | '"' => 1 + rest[1..].find(first).map_or(rest.len() - 1, |end| end + 1),
            _ if !all_code && (rest.starts_with("}}") || rest.starts_with("%}")) => {
                in_code = false;
                2
            }
            _ if is_word(first) => rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (word, later) = rest.split_at(length);
        if in_code && !word.trim().is_empty() {
            words.push(word);
        }
        rest = later;
    }
    words
}

/// Output that ends at [`OUTPUT_BYTES_MAX`].
struct Bounded {
    written: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written.len() + bytes.len() > OUTPUT_BYTES_MAX {
            self.full = true;
            return Err(io::Error::other("full"));
        }
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error of the source, which is the operator's own: all that is known of it.
fn of_source(error: &Error) -> String {
    let why = error.detail().map_or_else(|| in_words(error.kind()).to_owned(), str::to_owned);
    at_line(error, why)
}

/// An error while evaluating: its details may hold values, so only its kind is told.
fn of_values(error: &Error) -> String {
    at_line(error, in_words(error.kind()).to_owned())
}

fn at_line(error: &Error, why: String) -> String {
    match error.line() {
        Some(line) => format!("line {line}: {why}"),
        None => why,
    }
}

fn in_words(kind: ErrorKind) -> &'static str {
    // The kinds are another crate's and may grow: what is not named here is said in general.
    match kind {
        ErrorKind::UndefinedError => "it reads something that is not there",
        ErrorKind::InvalidOperation => "an operation does not fit its values",
        ErrorKind::SyntaxError => "the syntax is wrong",
        ErrorKind::TooManyArguments => "a function gets too many arguments",
        ErrorKind::MissingArgument => "a function gets too few arguments",
        ErrorKind::UnknownFilter => "there is no such filter",
        ErrorKind::UnknownTest => "there is no such test",
        ErrorKind::UnknownFunction => "there is no such function",
        ErrorKind::UnknownMethod => "there is no such method",
        ErrorKind::BadEscape => "an escape in a string is wrong",
        ErrorKind::CannotUnpack => "a value cannot be taken apart as written",
        ErrorKind::OutOfFuel => "it takes too many steps",
        ErrorKind::WriteFailure => "its output grew too large",
        ErrorKind::NonPrimitive | ErrorKind::NonKey => "a value is not of the kind that is needed there",
        ErrorKind::TemplateNotFound
        | ErrorKind::BadSerialization
        | ErrorKind::CannotDeserialize
        | ErrorKind::BadInclude
        | ErrorKind::EvalBlock
        | ErrorKind::InvalidDelimiter
        | _ => "it cannot be evaluated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, facts: serde_json::Value) -> Result<String, String> {
        Template::compile(source)?.render(&facts)
    }

    #[test]
    fn a_template_is_filled_from_its_facts() {
        let source = "{{ saved }} {% for action in actions %}{{ action }};{% endfor %} <{{ name }}>";
        let facts = json!({"saved": "Saved.", "actions": ["a", "b"], "name": "<Ann & Co>"});
        assert_eq!(render(source, facts).unwrap(), "Saved. a;b; <<Ann & Co>>", "nothing is escaped");
        assert_eq!(Template::compile(source).unwrap().names(), ["actions", "name", "saved"]);
        assert_eq!(render("{{ request.user }}: {{ x }}", json!({"request": {"user": "u"}, "x": null})).unwrap(), "u: ");
    }

    #[test]
    fn json_is_written_by_a_filter() {
        let out = render(r#"{"answer": {{ text|tojson }}}"#, json!({"text": "a \"b\"\n<c>"})).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), json!({"answer": "a \"b\"\n<c>"}));
    }

    #[test]
    fn an_error_says_where_and_why_and_never_a_value() {
        for (source, expected) in [
            ("a\n{{ missing }}", "line 2: it reads something that is not there"),
            ("{{ name.first }}", "line 1: it reads something that is not there"),
            ("{{ name + 1 }}", "line 1: an operation does not fit its values"),
        ] {
            assert_eq!(render(source, json!({"name": "SECRET"})).unwrap_err(), expected, "{source}");
        }
        let wrong = Template::compile("fine\n{% if %}").unwrap_err();
        assert!(wrong.starts_with("line 2: "), "{wrong}");
    }

    #[test]
    fn what_a_template_may_cost_is_bounded() {
        let nested = "{% for a in range(9999) %}".repeat(4) + "x" + &"{% endfor %}".repeat(4);
        assert!(render(&nested, json!({})).unwrap_err().contains("too many steps"));
        let long = "{% for a in range(99) %}{{ text }}{% endfor %}";
        assert!(render(long, json!({"text": "x".repeat(20_000)})).unwrap_err().contains("wrote more than"));
        assert!(Template::compile(&"x".repeat(SOURCE_BYTES_MAX + 1)).is_err());
        assert!(Template::compile(&format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000))).is_err());
    }

    #[test]
    fn there_is_nothing_to_include_and_no_unknown_filter() {
        for (source, word) in [
            ("{% include 'x' %}", "include"),
            ("{% import 'x' as y %}", "import"),
            ("{% macro m() %}{% endmacro %}", "macro"),
            ("{% if a %}{{ b|nope }}{% endif %}", "`nope`"),
            ("{{ a is nope }}", "`nope`"),
            ("{{ a is not nope }}", "`nope`"),
        ] {
            let error = Template::compile(source).unwrap_err();
            assert!(error.contains(word), "{source}: {error}");
        }
        assert!(
            Template::compile(
                "a |nope {{ '|nope' ~ x|upper|default('is nope') }} {% if x is not defined %}{% endif %}"
            )
            .is_ok()
        );
        assert_eq!(Template::compile("{{ nope() }}").unwrap().names(), ["nope"], "told as a fact that is not there");
    }

    #[test]
    fn an_expression_is_true_false_or_cannot_be_told() {
        let facts = json!({"reply": {"total": 3, "items": [1, 2], "name": "SECRET"}, "text": "hello"});
        for (source, expected) in [
            ("reply.total == 3", Ok(true)),
            ("reply['items']|sum == reply.total", Ok(true)),
            ("reply.total > 3 or 'bye' in text", Ok(false)),
            ("reply.missing is defined", Ok(false)),
            ("reply.missing == 3", Err("it reads something that is not there")),
            ("reply.missing", Err("it reads something that is not there")),
            ("reply.missing > 3", Err("it reads something that is not there")),
            ("reply.name > 3", Ok(true)),
            ("reply.name + 3 == 4", Err("an operation does not fit its values")),
        ] {
            let holds = Expression::compile(source).unwrap().holds(&facts);
            assert_eq!(holds, expected.map_err(str::to_owned), "{source}");
        }
        for source in ["", " ", "reply.total ==", "text|nope", "{{ text }}"] {
            assert!(Expression::compile(source).is_err(), "{source}");
        }
    }
}
