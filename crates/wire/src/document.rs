//! Documents that are no reply of a model: a tool's arguments, its result, a run's input.

use crate::check::Compiled;
use serde_json::Value;

/// A JSON Schema for documents, compiled once. Nothing is fetched, and what it may cost is bounded.
#[derive(Debug)]
pub struct DocumentSchema(Compiled);

impl DocumentSchema {
    /// Compiles one from JSON.
    /// # Errors
    /// Why it cannot be used, in plain English.
    pub fn compile(schema: &str) -> Result<DocumentSchema, String> {
        Compiled::new(schema).map(DocumentSchema)
    }

    /// Whether a document keeps it. One that would take too much work to judge does not: nothing is done with what
    /// nobody has judged.
    /// # Errors
    /// The first few ways in which it does not, in the schema's own words: never with a value of the document.
    pub fn keeps(&self, document: &Value) -> Result<(), Vec<String>> {
        let problems = self.0.problems(document);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_keeps_its_schema_or_is_told_where_it_does_not() {
        let schema = json!({ "type": "object", "required": ["id"], "properties": { "id": { "type": "string" } } });
        let schema = DocumentSchema::compile(&schema.to_string()).unwrap();
        assert_eq!(schema.keeps(&json!({ "id": "o-1" })), Ok(()));
        let problems = schema.keeps(&json!({ "id": 4711 })).unwrap_err();
        assert_eq!(problems, ["schema /properties/id/type"]);
        assert!(schema.keeps(&json!({})).unwrap_err()[0].contains("id"));
        assert!(DocumentSchema::compile("{").is_err() && DocumentSchema::compile(r#"{"type": "nope"}"#).is_err());
    }
}
