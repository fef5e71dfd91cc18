//! What is wrong with a config, where, and what to do: every problem at once.

use serde::Serialize;
use std::fmt;

/// One problem. Prints as `outlast.toml:41 routes.chat.targets[1]: what is wrong. What to do.`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// The file as it was named, or `environment`.
    pub file: Box<str>,
    /// The line, counted from 1; absent when the problem is the file itself or the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The setting, as a dotted path; empty for the file as a whole.
    pub path: Box<str>,
    /// What is wrong and why: a sentence without its full stop.
    pub what: Box<str>,
    /// What to do: a sentence without its full stop, or a question with its mark.
    pub remedy: Box<str>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.path.is_empty() {
            write!(f, " {}", self.path)?;
        }
        let stop = if self.remedy.ends_with('?') { "" } else { "." };
        write!(f, ": {}. {}{stop}", self.what, self.remedy)
    }
}

/// Every problem of a config, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
