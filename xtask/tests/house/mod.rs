//! What the house rules read: the repository's files, cargo's metadata, Markdown, licences.

use serde_json::Value;
use std::{
    collections::{BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The root of the workspace.
pub(crate) fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace").to_owned()
}

/// A text file of the repository.
pub(crate) struct Source {
    /// Relative to the root, with forward slashes.
    pub(crate) path: String,
    /// Its content.
    pub(crate) text: String,
}

/// Folders that hold no work of ours.
const NOT_OURS: &[&str] = &["target", ".git", "node_modules", ".venv", "__pycache__", ".pytest_cache"];

/// The repository's text files whose extension is among `extensions`; all of them if that is empty.
pub(crate) fn sources(extensions: &[&str]) -> Vec<Source> {
    let root = workspace_root();
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if !NOT_OURS.contains(&name.as_str()) {
                    folders.push(path);
                }
                continue;
            }
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if (extensions.is_empty() && name != ".git") || extensions.contains(&extension) {
                // What is not UTF-8 is not text.
                let Ok(text) = fs::read_to_string(&path) else { continue };
                let relative = path.strip_prefix(&root).expect("inside the root").to_string_lossy().replace('\\', "/");
                found.push(Source { path: relative, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

impl Source {
    /// Every line with its number, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The lines of Rust without those that are only comment.
    pub(crate) fn code(&self) -> Box<dyn Iterator<Item = (usize, &str)> + '_> {
        Box::new(self.lines().filter(|(_, line)| !line.trim_start().starts_with("//")))
    }

    /// The code up to the file's test module, which is its last item by convention.
    pub(crate) fn code_before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.tests_begin();
        self.code().filter(move |(number, _)| *number < end)
    }

    /// The code of the file's test module.
    pub(crate) fn code_of_tests(&self) -> Box<dyn Iterator<Item = (usize, &str)> + '_> {
        let begin = self.tests_begin();
        Box::new(self.code().filter(move |(number, _)| *number >= begin))
    }

    /// The line of `#[cfg(test)]` before `mod tests {`; past the end if there is none. A file
    /// named `tests.rs` is tests from its first line.
    fn tests_begin(&self) -> usize {
        if self.path.ends_with("/tests.rs") {
            return 0;
        }
        let lines: Vec<&str> = self.text.lines().collect();
        let begin = lines.windows(2).position(|pair| {
            pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].trim_end().ends_with('{')
        });
        begin.map_or(usize::MAX, |index| index + 1)
    }

    /// The targets of `[text](target)` outside code, with their lines.
    pub(crate) fn markdown_links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            let mut rest = without_code_spans(line);
            while let Some(at) = rest.find("](") {
                let tail = rest.split_off(at + 2);
                let Some(end) = tail.find(')') else { break };
                let target = tail[..end].split_whitespace().next().unwrap_or_default();
                links.push((number, target.trim_matches(|c| c == '<' || c == '>').to_owned()));
                rest = tail[end..].to_owned();
            }
        }
        links
    }

    /// The anchors of the page's headings, as GitHub makes them, and of its explicit `id`s.
    pub(crate) fn markdown_anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        for (_, line) in self.prose() {
            if let Some(heading) = line.strip_prefix('#') {
                let text = heading.trim_start_matches('#').trim().to_lowercase();
                let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
                anchors.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
            }
            for part in line.split("id=\"").skip(1) {
                anchors.extend(part.split('"').next().map(str::to_owned));
            }
        }
        anchors
    }

    /// The lines outside fenced code.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        self.lines().filter(move |(_, line)| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        })
    }
}

fn without_code_spans(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("")
}

/// `link`, as written in the page at `page`, as a path from the root.
pub(crate) fn resolve(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// The pages that a line names: `docs/errors.md`, `ARCHITECTURE.md`...
pub(crate) fn named_pages(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_')))
        .filter(|word| word.ends_with(".md"))
        .filter(|word| {
            word.starts_with("docs/") || (!word.contains('/') && word.starts_with(|c: char| c.is_ascii_uppercase()))
        })
}

/// The quoted names inside the bracketed list that `opening` begins.
pub(crate) fn quoted_list<'a>(toml: &'a str, opening: &str) -> Vec<&'a str> {
    let list = toml.split_once(opening).and_then(|(_, rest)| rest.split_once("\n]")).map_or("", |(list, _)| list);
    list.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(|line| line.split('"').nth(1)).collect()
}

/// Whether an SPDX expression can be satisfied with `allowed` licences. An exception belongs to
/// its licence: `Apache-2.0 WITH LLVM-exception` is one name.
pub(crate) fn licence_holds(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words: VecDeque<&str> = spaced.split_whitespace().collect();
    any_of(&mut words, allowed) && words.is_empty()
}

fn any_of(words: &mut VecDeque<&str>, allowed: &BTreeSet<&str>) -> bool {
    let mut holds = all_of(words, allowed);
    while words.front() == Some(&"OR") {
        words.pop_front();
        holds |= all_of(words, allowed);
    }
    holds
}

fn all_of(words: &mut VecDeque<&str>, allowed: &BTreeSet<&str>) -> bool {
    let mut holds = one(words, allowed);
    while words.front() == Some(&"AND") {
        words.pop_front();
        holds &= one(words, allowed);
    }
    holds
}

fn one(words: &mut VecDeque<&str>, allowed: &BTreeSet<&str>) -> bool {
    let Some(word) = words.pop_front() else { return false };
    if word == "(" {
        let holds = any_of(words, allowed);
        return words.pop_front() == Some(")") && holds;
    }
    if words.front() == Some(&"WITH") {
        words.pop_front();
        let exception = words.pop_front().unwrap_or_default();
        return allowed.contains(format!("{word} WITH {exception}").as_str());
    }
    allowed.contains(word)
}

/// One of our crates, as its manifest declares it.
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) manifest: PathBuf,
    /// Names of the packages it declares outside dev- and build-dependencies.
    pub(crate) normal_dependencies: Vec<String>,
}

/// The crates of the workspace.
pub(crate) fn workspace() -> Vec<Crate> {
    let json = cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked", "--offline"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    list(&json["packages"]).map(declared).collect()
}

fn declared(json: &Value) -> Crate {
    let normal = list(&json["dependencies"]).filter(|dependency| dependency["kind"].is_null());
    Crate {
        name: text(&json["name"]),
        manifest: text(&json["manifest_path"]).into(),
        normal_dependencies: normal.map(|dependency| text(&dependency["name"])).collect(),
    }
}

fn list(json: &Value) -> impl Iterator<Item = &Value> {
    json.as_array().into_iter().flatten()
}

fn text(json: &Value) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

/// A package that is really built. (`cargo metadata` also names optional ones that are not.)
pub(crate) struct Built {
    pub(crate) name: String,
    pub(crate) licence: String,
    /// What cargo prints behind the version: nothing for crates.io, else a path or an address.
    pub(crate) source: String,
}

/// The packages that `cargo tree` lists for `args` on the platform that builds.
pub(crate) fn built(args: &[&str]) -> Vec<Built> {
    let format = ["tree", "--locked", "--offline", "--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"];
    let lines = cargo(&[&format, args].concat());
    let unique: BTreeSet<&str> = lines.lines().filter(|line| !line.is_empty()).collect();
    unique
        .into_iter()
        .map(|line| {
            let (package, licence) = line.split_once('|').expect("the format asked for");
            let mut words = package.splitn(3, ' ');
            let mut word = || words.next().unwrap_or_default().to_owned();
            let (name, _version, source) = (word(), word(), word());
            Built { name, licence: licence.to_owned(), source }
        })
        .collect()
}

/// Runs cargo offline: what a test needs, its build has fetched.
fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(args).current_dir(workspace_root()).output().expect("cargo");
    assert!(output.status.success(), "cargo {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}
