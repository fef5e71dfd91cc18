//! `cargo xtask vendor-prices`: makes `crates/outlast/data/prices.json` from the genai-prices package.
//!
//! The package's version and hash are pinned here, so the same commit makes the same file everywhere. To take newer
//! prices: change the three constants, run it, read the difference, run the tests (the models that environment
//! auto-configuration names must be known), commit.

use crate::process::{target_dir, workspace_root};
use std::{fs, process::Command};

const VERSION: &str = "0.2.3";
const SHA256: &str = "56976ce2b04ec206117f7d0e53f4849211a6724ab3a12119afec304eba63ee25";
/// Prices by date are those in force on this day.
const AS_OF: &str = "2026-11-21";

/// Downloads, verifies, converts; with `--check` compares with what is there instead of writing it. Needs Python with
/// pip, which verifies the hash; nothing of the package is installed.
///
/// # Errors
/// What could not be run or read, or that the file there is another one.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let check = match args {
        [] => false,
        ["--check"] => true,
        _ => return Err("usage: cargo xtask vendor-prices [--check]".to_owned()),
    };
    let folder = target_dir().join("vendor-prices");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let pin = folder.join("requirements.txt");
    let line = format!("genai-prices=={VERSION} --hash=sha256:{SHA256}\n");
    fs::write(&pin, line).map_err(|error| format!("{}: {error}", pin.display()))?;
    let unpacked = folder.join("unpacked");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]);
    output(pip.arg("--require-hashes").arg("-r").arg(&pin).arg("--target").arg(&unpacked))?;

    let script = workspace_root().join("xtask/src/vendor_prices.py");
    let catalogue = output(Command::new("python3").arg(script).arg(&unpacked).arg(AS_OF))?;
    let license = find_license(&unpacked)?;
    let data = workspace_root().join("crates/outlast/data");
    for (name, bytes) in [("prices.json", catalogue), ("prices.LICENSE", license)] {
        let path = data.join(name);
        let there = fs::read(&path).unwrap_or_default();
        match (there == bytes, check) {
            (true, _) => println!("{}: unchanged, {} bytes", path.display(), bytes.len()),
            (false, true) => return Err(format!("{} is not what genai-prices {VERSION} makes", path.display())),
            (false, false) => {
                fs::write(&path, &bytes).map_err(|error| format!("{}: {error}", path.display()))?;
                println!("{}: written, {} bytes", path.display(), bytes.len());
            }
        }
    }
    Ok(())
}

fn find_license(unpacked: &std::path::Path) -> Result<Vec<u8>, String> {
    let path = unpacked.join(format!("genai_prices-{VERSION}.dist-info/licenses/LICENSE"));
    fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Runs a command; its standard error goes to ours, its standard output comes back.
fn output(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.success() { Ok(output.stdout) } else { Err(format!("{command:?} failed: {}", output.status)) }
}
