//! The rules of the house that the compiler does not hold: who may import whom, where clocks may
//! be read, which licences come in, how long a file may grow, whether the pages' links resolve.
//!
//! Every test lists all breaches at once, each with its file and line.

mod house;

use house::{Source, sources, workspace_root};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// A crate's place in the house, DESIGN section 2.
struct Place {
    name: &'static str,
    /// Crates of ours that it may import.
    ours: &'static [&'static str],
    /// The only packages from outside it may import; `None`: any.
    outside: Option<&'static [&'static str]>,
}

const PLACES: &[Place] = &[
    Place { name: "outlast-model", ours: &[], outside: Some(&["serde", "serde_json"]) },
    Place { name: "outlast-engine", ours: &["outlast-model"], outside: Some(&["fastrand"]) },
    Place {
        name: "outlast-wire",
        ours: &["outlast-model"],
        outside: Some(&["serde", "serde_json", "bytes", "memchr", "jsonschema", "minijinja", "whatlang", "blake3"]),
    },
    Place { name: "outlast-store", ours: &["outlast-model", "outlast-engine"], outside: None },
    Place {
        name: "outlast-drill",
        ours: &["outlast-model", "outlast-engine", "outlast-wire", "outlast-store"],
        outside: Some(&["fastrand", "serde", "serde_json"]),
    },
    Place {
        name: "outlast",
        ours: &["outlast-model", "outlast-engine", "outlast-wire", "outlast-store", "outlast-drill"],
        outside: None,
    },
    Place { name: "xtask", ours: &[], outside: None },
];

/// What must not be reachable, even through others, from the crates that decide, read payloads or
/// rehearse: runtimes, networks and databases.
const NO_IO: &[&str] = &[
    "tokio",
    "hyper",
    "hyper-util",
    "http",
    "http-body",
    "reqwest",
    "axum",
    "socket2",
    "mio",
    "rustls",
    "rusqlite",
    "libsqlite3-sys",
    "tokio-postgres",
    "async-std",
    "smol",
];

#[test]
fn every_crate_imports_only_what_its_place_allows() {
    let mut breaches = Vec::new();
    let mut seen = BTreeSet::new();
    for package in house::workspace() {
        let Some(place) = PLACES.iter().find(|place| place.name == package.name) else {
            breaches.push(format!("{}: a crate without a place in DESIGN section 2; add it to PLACES", package.name));
            continue;
        };
        seen.insert(package.name.clone());
        for dependency in &package.normal_dependencies {
            let is_ours = dependency.starts_with("outlast") || dependency == "xtask";
            let allowed = if is_ours {
                place.ours.contains(&dependency.as_str())
            } else {
                place.outside.is_none_or(|outside| outside.contains(&dependency.as_str()))
            };
            if !allowed {
                breaches.push(format!("{} imports {dependency}", package.name));
            }
        }
    }
    breaches
        .extend(PLACES.iter().filter(|place| !seen.contains(place.name)).map(|place| format!("{}: gone?", place.name)));
    assert_none(&breaches);
}

#[test]
fn engine_wire_model_and_drill_reach_no_io_even_indirectly() {
    let mut breaches = Vec::new();
    for crate_name in ["outlast-model", "outlast-engine", "outlast-wire", "outlast-drill"] {
        for package in house::built(&["--package", crate_name, "--edges", "normal"]) {
            if NO_IO.contains(&package.name.as_str()) {
                let name = &package.name;
                breaches
                    .push(format!("{crate_name} reaches {name}: see `cargo tree -p {crate_name} -e normal -i {name}`"));
            }
        }
    }
    assert_none(&breaches);
}

/// Reading a clock, and waiting for one.
const CLOCKS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    ".elapsed()",
    "thread::sleep",
    "tokio::time",
    "    time::{Sleep",
    "    time::sleep",
];

/// Entropy that no seed controls.
const ENTROPY: &[&str] = &[
    "Rng::new()",
    "fastrand::u",
    "fastrand::i",
    "fastrand::f",
    "fastrand::bool",
    "fastrand::shuffle",
    "thread_rng",
    "rand::rng",
    "getrandom",
    "RandomState",
    "Uuid::now_v7",
    "Uuid::new_v4",
    "SystemRandom",
    "RandomizedNonceKey",
];

/// Entropy that nothing is decided by: a cipher draws its nonces itself, so that none is repeated by mistake.
const NONCES: (&str, &str) = ("crates/store/src/seal.rs", "RandomizedNonceKey");

/// The places that may: the clock itself, and the hosts of rehearsals, which are worlds of their
/// own. (xtask is not searched: it measures.)
const CLOCK_HOMES: &[&str] = &[
    "crates/outlast/src/clock.rs",
    "crates/outlast/src/clock/",
    "crates/outlast/src/fake/",
    "crates/outlast/src/demo/",
];

#[test]
fn clocks_sleeps_and_entropy_live_in_the_clock_only() {
    let mut breaches = Vec::new();
    for source in crate_sources() {
        let is_host = CLOCK_HOMES.iter().any(|home| source.path.starts_with(home));
        if is_host || source.path.contains("/tests/") || source.path.contains("/examples/") {
            continue;
        }
        for (number, line) in source.code_before_tests() {
            breaches.extend(
                CLOCKS
                    .iter()
                    .chain(ENTROPY)
                    .filter(|word| line.contains(**word) && (source.path.as_str(), **word) != NONCES)
                    .map(|word| format!("{}:{number}: {word}", source.path)),
            );
        }
    }
    assert_none(&breaches);
}

/// A test waits for a condition (the helpers in `tests/common` poll), not for a time. Where a pause is itself what is
/// tested, the line before says so.
#[test]
fn tests_do_not_sleep_without_saying_why() {
    let mut breaches = Vec::new();
    for source in crate_sources() {
        if source.path.contains("/tests/common/") || CLOCK_HOMES.iter().any(|home| source.path.starts_with(home)) {
            continue;
        }
        let lines: Vec<&str> = source.text.lines().collect();
        let tests = if source.path.contains("/tests/") { source.code() } else { source.code_of_tests() };
        breaches.extend(
            tests
                .filter(|(_, line)| line.contains("thread::sleep") || line.contains("time::sleep("))
                .filter(|(number, _)| *number < 2 || !lines[number - 2].trim_start().starts_with("//"))
                .map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim())),
        );
    }
    assert_none(&breaches);
}

#[test]
fn no_source_file_is_longer_than_800_lines() {
    let long = sources(&["rs", "py", "mjs", "ts", "js"])
        .into_iter()
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > 800)
        .map(|(lines, path)| format!("{path}: {lines} lines; split it by what a reader looks for"))
        .collect::<Vec<_>>();
    assert_none(&long);
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let mut breaches = Vec::new();
    for package in house::workspace() {
        let manifest = fs::read_to_string(&package.manifest).unwrap_or_default();
        if !manifest.contains("[lints]\nworkspace = true") {
            breaches.push(format!("{}: no `[lints] workspace = true`", package.name));
        }
    }
    let root = fs::read_to_string(workspace_root().join("Cargo.toml")).unwrap_or_default();
    for lint in [r#"unsafe_code = "forbid""#, r#"wildcard_enum_match_arm = "warn""#, r#"missing_docs = "warn""#] {
        if !root.contains(lint) {
            breaches.push(format!("Cargo.toml: the lint {lint} is gone"));
        }
    }
    assert_none(&breaches);
}

#[test]
fn no_machine_path_is_in_the_repository() {
    let root = workspace_root().display().to_string();
    let homes = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), root.as_str()];
    let mut breaches = Vec::new();
    for source in sources(&[]) {
        for (number, line) in source.lines() {
            breaches.extend(
                homes
                    .iter()
                    .filter(|home| line.contains(**home))
                    .map(|home| format!("{}:{number}: {home}", source.path)),
            );
        }
    }
    assert_none(&breaches);
}

#[test]
fn every_link_between_pages_resolves() {
    let pages: BTreeMap<String, Source> =
        sources(&["md"]).into_iter().map(|source| (source.path.clone(), source)).collect();
    let mut breaches = Vec::new();
    for page in pages.values() {
        for (number, link) in page.markdown_links() {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.path.clone() } else { house::resolve(&page.path, file) };
            if !workspace_root().join(&target).exists() {
                breaches.push(format!("{}:{number}: {link}: no such file", page.path));
            } else if !anchor.is_empty()
                && let Some(target) = pages.get(&target)
                && !target.markdown_anchors().contains(anchor)
            {
                breaches.push(format!("{}:{number}: {link}: no such heading", page.path));
            }
        }
    }
    assert_none(&breaches);
}

/// Comments and messages send readers to pages by path; a page that moved must take them along.
#[test]
fn every_page_that_code_and_config_name_exists() {
    let mut breaches = Vec::new();
    for source in sources(&["rs", "toml", "py", "mjs", "html"]) {
        for (number, line) in source.lines() {
            for page in house::named_pages(line) {
                if !workspace_root().join(page).exists() {
                    breaches.push(format!("{}:{number}: {page}", source.path));
                }
            }
        }
    }
    assert_none(&breaches);
}

/// The same list as `deny.toml`, which cargo-deny applies to every platform; this test holds it
/// on the platform that builds, without cargo-deny.
#[test]
fn every_dependency_has_an_allowed_licence_and_source() {
    let deny = fs::read_to_string(workspace_root().join("deny.toml")).expect("deny.toml");
    let allowed: BTreeSet<&str> = house::quoted_list(&deny, "allow = [").into_iter().collect();
    let banned: BTreeSet<&str> = house::quoted_list(&deny, "deny = [").into_iter().collect();
    assert!(allowed.contains("MIT") && banned.contains("ring"), "deny.toml was not understood");
    let mut breaches = Vec::new();
    for package in house::built(&["--workspace"]) {
        if !house::licence_holds(&package.licence, &allowed) {
            breaches.push(format!("{}: licence {}", package.name, package.licence));
        }
        if banned.contains(package.name.as_str()) {
            breaches.push(format!("{}: banned in deny.toml", package.name));
        }
        if package.source.contains("://") {
            breaches.push(format!("{}: not from crates.io but {}", package.name, package.source));
        }
    }
    assert_none(&breaches);
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed: BTreeSet<&str> = ["MIT", "Apache-2.0 WITH LLVM-exception", "ISC"].into_iter().collect();
    for (expression, holds) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("GPL-3.0/MIT", true),
        ("ISC AND (GPL-3.0 OR MIT)", true),
        ("MIT AND (GPL-3.0 OR BSL-1.0)", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
        ("Apache-2.0", false),
        ("none stated", false),
    ] {
        assert_eq!(house::licence_holds(expression, &allowed), holds, "{expression}");
    }
}

fn crate_sources() -> Vec<Source> {
    sources(&["rs"]).into_iter().filter(|source| source.path.starts_with("crates/")).collect()
}

#[track_caller]
fn assert_none(breaches: &[String]) {
    assert!(breaches.is_empty(), "\n  {}\n", breaches.join("\n  "));
}
