//! JSON with templates in its texts: what a tool is given, what a run results in.
//!
//! A text that is one `{{ expression }}` and nothing else becomes that expression's value, with its type: a number
//! stays a number. Every other text is a template and becomes a text. Names of fields are taken as they are.

use crate::template::{Expression, Facts, Template};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// How deep a shape may nest.
const DEPTH_MAX: usize = 32;

/// JSON with templates in its texts, compiled once.
#[derive(Debug)]
pub struct Shape {
    root: Node,
    names: Vec<String>,
}

#[derive(Debug)]
enum Node {
    Fixed(Value),
    Text(Template),
    Value(Expression),
    List(Vec<Node>),
    Fields(Vec<(String, Node)>),
}

impl Shape {
    /// Compiles one.
    /// # Errors
    /// Every text that is wrong: where, as a dotted path, and how.
    pub fn compile(json: &Value) -> Result<Shape, Vec<(String, String)>> {
        let (mut bad, mut names) = (Vec::new(), BTreeSet::new());
        let root = compile(json, &mut String::new(), 0, &mut names, &mut bad);
        if bad.is_empty() { Ok(Shape { root, names: names.into_iter().collect() }) } else { Err(bad) }
    }

    /// The facts it reads, as dotted paths. Sorted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Fills it in.
    /// # Errors
    /// Where it failed and why, without any value.
    pub fn fill(&self, facts: &Facts) -> Result<Value, String> {
        fill(&self.root, facts, "")
    }
}

fn compile(
    json: &Value,
    path: &mut String,
    depth: usize,
    names: &mut BTreeSet<String>,
    bad: &mut Vec<(String, String)>,
) -> Node {
    if depth > DEPTH_MAX {
        bad.push((path.clone(), format!("it nests deeper than {DEPTH_MAX}")));
        return Node::Fixed(Value::Null);
    }
    let length = path.len();
    match json {
        Value::Null | Value::Bool(_) | Value::Number(_) => Node::Fixed(json.clone()),
        Value::String(text) => match compile_text(text) {
            Ok(node) => {
                match &node {
                    Node::Text(template) => names.extend(template.names().iter().cloned()),
                    Node::Value(expression) => names.extend(expression.names().iter().cloned()),
                    Node::Fixed(_) | Node::List(_) | Node::Fields(_) => {}
                }
                node
            }
            Err(why) => {
                bad.push((path.clone(), why));
                Node::Fixed(Value::Null)
            }
        },
        Value::Array(items) => {
            let mut nodes = Vec::with_capacity(items.len());
            for (at, item) in items.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                nodes.push(compile(item, path, depth + 1, names, bad));
                path.truncate(length);
            }
            Node::List(nodes)
        }
        Value::Object(fields) => {
            let mut nodes = Vec::with_capacity(fields.len());
            for (name, field) in fields {
                path.push_str(if path.is_empty() { "" } else { "." });
                path.push_str(name);
                nodes.push((name.clone(), compile(field, path, depth + 1, names, bad)));
                path.truncate(length);
            }
            Node::Fields(nodes)
        }
    }
}

fn compile_text(text: &str) -> Result<Node, String> {
    if !text.contains("{{") && !text.contains("{%") && !text.contains("{#") {
        return Ok(Node::Fixed(Value::String(text.to_owned())));
    }
    match single(text) {
        Some(expression) => Expression::compile(expression).map(Node::Value),
        None => Template::compile(text).map(Node::Text),
    }
}

/// The expression of a text that is nothing but one.
fn single(text: &str) -> Option<&str> {
    let inside = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside);
    let inside = inside.strip_suffix('-').unwrap_or(inside);
    let alone = ["{{", "}}", "{%", "{#"].iter().all(|sign| !inside.contains(sign));
    alone.then_some(inside)
}

fn fill(node: &Node, facts: &Facts, path: &str) -> Result<Value, String> {
    let told = |why: String| if path.is_empty() { why } else { format!("{path}: {why}") };
    match node {
        Node::Fixed(value) => Ok(value.clone()),
        Node::Text(template) => template.render_facts(facts).map(Value::String).map_err(told),
        Node::Value(expression) => expression.value(facts).map_err(told),
        Node::List(nodes) => {
            let items = nodes.iter().enumerate().map(|(at, node)| fill(node, facts, &format!("{path}[{at}]")));
            items.collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        Node::Fields(nodes) => {
            let fields = nodes.iter().map(|(name, node)| {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                fill(node, facts, &path).map(|value| (name.clone(), value))
            });
            fields.collect::<Result<Map<_, _>, _>>().map(Value::Object)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_lone_expression_keeps_its_type_and_other_texts_become_texts() {
        let shape = Shape::compile(&json!({
            "amount": "{{ steps.order.amount }}",
            "half": "{{ steps.order.amount / 2 }}",
            "note": "Order {{ input.id }} of {{ steps.order.amount }}",
            "lines": ["{{- steps.order.lines -}}", "plain", 7, null],
            "nothing": "{{ input.nothing }}",
        }))
        .unwrap();
        let facts = Facts::of(&json!({
            "input": { "id": "o-1", "nothing": null },
            "steps": { "order": { "amount": 120, "lines": [{ "sku": "a" }] } },
        }));
        assert_eq!(
            shape.fill(&facts).unwrap(),
            json!({
                "amount": 120, "half": 60.0, "note": "Order o-1 of 120",
                "lines": [[{ "sku": "a" }], "plain", 7, null], "nothing": null,
            })
        );
        assert_eq!(shape.names(), ["input.id", "input.nothing", "steps.order.amount", "steps.order.lines"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_never_with_a_value() {
        let bad = Shape::compile(&json!({ "a": { "b": ["{{ 1 + }}"] }, "c": "{% if %}" })).unwrap_err();
        let places: Vec<&str> = bad.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(places, ["a.b[0]", "c"]);
        let shape = Shape::compile(&json!({ "a": ["{{ input.missing }}"] })).unwrap();
        let error = shape.fill(&Facts::of(&json!({ "input": { "name": "SECRET" } }))).unwrap_err();
        assert_eq!(error, "a[0]: it reads something that is not there");
        let shape = Shape::compile(&json!("{{ input.name + 1 }}")).unwrap();
        let error = shape.fill(&Facts::of(&json!({ "input": { "name": "SECRET" } }))).unwrap_err();
        assert_eq!(error, "an operation does not fit its values");
    }

    #[test]
    fn two_expressions_in_a_text_are_a_text() {
        let shape = Shape::compile(&json!("{{ input.a }}{{ input.b }}")).unwrap();
        assert_eq!(shape.fill(&Facts::of(&json!({ "input": { "a": 1, "b": 2 } }))).unwrap(), json!("12"));
    }
}
