//! The suites of `tests/clients`: the official client packages of both vendors, in Python and in
//! Node, against real processes: two fake vendors and the gateway before them.
//!
//! Packages are installed once into a folder under the target folder, keyed by what pins them.

mod world;

use crate::{
    process::{target_dir, workspace_root},
    test::installed,
};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use world::World;

/// A suite: one language's packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// `openai` and `anthropic` from PyPI and Outlast's own package, under pytest.
    Python,
    /// `openai` and `@anthropic-ai/sdk` from npm, under Node's own runner.
    Node,
}

impl Suite {
    /// Every suite.
    pub(crate) const ALL: &'static [Suite] = &[Suite::Python, Suite::Node];

    fn name(self) -> &'static str {
        match self {
            Suite::Python => "python",
            Suite::Node => "node",
        }
    }

    fn source(self) -> PathBuf {
        workspace_root().join("tests/clients").join(self.name())
    }
}

/// How many tests passed and failed; a skipped one counts as failed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    /// Whether there was something to pass and nothing failed.
    pub(crate) fn all_passed(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// `cargo xtask clients`: builds the binary, runs the named suites (all if none is named).
///
/// # Errors
/// See [`run_all`]; also a test that failed.
pub(crate) fn run_alone(names: &[&str]) -> Result<(), String> {
    let mut suites = Vec::new();
    for name in names {
        let suite = Suite::ALL.iter().find(|suite| suite.name() == *name);
        suites.push(*suite.ok_or_else(|| format!("no suite {name}; there are python, node"))?);
    }
    if suites.is_empty() {
        suites.extend(Suite::ALL);
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--locked", "--package", "outlast"]).current_dir(workspace_root());
    succeed(&mut build, "the binary does not build")?;
    let tally = run_all(&target_dir().join("debug/outlast"), &suites)?;
    println!("{tally}");
    if tally.all_passed() { Ok(()) } else { Err("client suites failed".to_owned()) }
}

/// Runs each suite against processes of its own.
///
/// # Errors
/// Something is missing and could not be installed (the message says what), or a process did not
/// start. Failed tests are counted, not errors.
pub(crate) fn run_all(outlast: &Path, suites: &[Suite]) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for suite in suites {
        let ready = match suite {
            Suite::Python => install_python(*suite)?,
            Suite::Node => install_node(*suite)?,
        };
        let world = World::start(outlast, &ready.folder)?;
        let one = run_suite(*suite, outlast, &ready, &world)?;
        println!("    {}: {one}", suite.name());
        tally.passed += one.passed;
        tally.failed += one.failed;
    }
    Ok(tally)
}

/// A suite that can run: its folder under the target folder.
struct Installed {
    folder: PathBuf,
}

/// A virtual environment with what `requirements.txt` pins.
fn install_python(suite: Suite) -> Result<Installed, String> {
    let pins = read(&suite.source().join("requirements.txt"))?;
    let folder = target_dir().join("clients").join(suite.name());
    let marker = folder.join("installed");
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == pins) {
        return Ok(Installed { folder });
    }
    let venv = folder.join("venv");
    let _ = fs::remove_dir_all(&venv);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let make_venv = || succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv), "python3 -m venv");
    if make_venv().is_err() {
        debian("python3 python3-venv", "Python 3.10 or later with the venv module")?;
        let _ = fs::remove_dir_all(&venv);
        make_venv()?;
    }
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    pip.arg(suite.source().join("requirements.txt"));
    succeed(
        &mut pip,
        "pip could not install tests/clients/python/requirements.txt; it needs PyPI, or a mirror set in PIP_INDEX_URL",
    )?;
    fs::write(&marker, pins).map_err(|error| format!("{}: {error}", marker.display()))?;
    Ok(Installed { folder })
}

/// A copy of the suite with its `node_modules`, because Node looks for packages beside the file.
fn install_node(suite: Suite) -> Result<Installed, String> {
    if !installed("node") || !installed("npm") {
        debian("nodejs npm", "Node 20 or later with npm")?;
    }
    let folder = target_dir().join("clients").join(suite.name());
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let pins = read(&suite.source().join("package-lock.json"))?;
    for entry in fs::read_dir(suite.source()).map_err(|error| error.to_string())?.flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), folder.join(entry.file_name())).map_err(|error| error.to_string())?;
        }
    }
    let marker = folder.join("installed");
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == pins) {
        return Ok(Installed { folder });
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]).current_dir(&folder);
    succeed(
        &mut npm,
        "npm could not install tests/clients/node/package-lock.json; it needs the npm registry, or a mirror set in npm_config_registry",
    )?;
    fs::write(&marker, pins).map_err(|error| format!("{}: {error}", marker.display()))?;
    Ok(Installed { folder })
}

/// Runs a suite with its output on the terminal and counts from the runner's own report.
fn run_suite(suite: Suite, outlast: &Path, ready: &Installed, world: &World) -> Result<Tally, String> {
    let report = ready.folder.join("report");
    let _ = fs::remove_file(&report);
    let mut command = match suite {
        Suite::Python => {
            let mut command = Command::new(ready.folder.join("venv/bin/python"));
            command.args(["-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "--junitxml"]).arg(&report);
            command.arg(suite.source()).arg(sdk().join("tests"));
            command
                .current_dir(suite.source())
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("PYTHONPATH", sdk().join("src"));
            command
        }
        Suite::Node => {
            let mut command = Command::new("node");
            command.args(["--test", "--test-concurrency=1"]);
            command.args(["--test-reporter=spec", "--test-reporter-destination=stdout", "--test-reporter=tap"]);
            command.arg(format!("--test-reporter-destination={}", report.display())).current_dir(&ready.folder);
            command.args(node_tests(&ready.folder));
            command
        }
    };
    world.tell(&mut command);
    command.env("OUTLAST_BIN", outlast);
    // Its exit status repeats what the report says.
    let _ = command.stdin(Stdio::null()).status().map_err(|error| format!("{command:?}: {error}"))?;
    let text = read(&report).map_err(|error| format!("the {} suite did not run to its end: {error}", suite.name()))?;
    match suite {
        Suite::Python => python_tally(&text),
        Suite::Node => node_tally(&text),
    }
    .ok_or_else(|| format!("{}: not understood", report.display()))
}

/// The Python package of this repository: run as it stands, never installed.
fn sdk() -> PathBuf {
    workspace_root().join("sdk/python")
}

fn node_tests(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(".test.mjs"))
        .collect();
    files.sort();
    files
}

/// From the attributes of JUnit's `<testsuite ...>`.
fn python_tally(xml: &str) -> Option<Tally> {
    let suite = xml.split_once("<testsuite ")?.1.split_once('>')?.0;
    let count = |name: &str| suite.split_once(&format!("{name}=\""))?.1.split_once('"')?.0.parse::<usize>().ok();
    let failed = count("errors")? + count("failures")? + count("skipped")?;
    Some(Tally { passed: count("tests")?.saturating_sub(failed), failed })
}

/// From the closing comments of TAP: `# pass 12`.
fn node_tally(tap: &str) -> Option<Tally> {
    let count = |name: &str| tap.lines().rev().find_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok());
    let failed = count("# fail ")? + count("# cancelled ")? + count("# skipped ")? + count("# todo ")?;
    Some(Tally { passed: count("# pass ")?, failed })
}

/// Installs Debian packages where that is possible, else says what is needed.
fn debian(packages: &str, needed: &str) -> Result<(), String> {
    let why = format!("the client suites need {needed}; on Debian: apt-get install {packages}");
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if !is_root || !installed("apt-get") {
        return Err(why);
    }
    println!("    $ apt-get install {packages}");
    let _ = Command::new("apt-get").args(["update", "-qq"]).status();
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages.split(' '));
    succeed(install.env("DEBIAN_FRONTEND", "noninteractive"), &why)
}

fn succeed(command: &mut Command, or: &str) -> Result<(), String> {
    let status = command.stdin(Stdio::null()).status().map_err(|error| format!("{or} ({error})"))?;
    if status.success() { Ok(()) } else { Err(format!("{or} ({status})")) }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
