//! The pages that walk a user through something are run: every config in them is loaded, every command is performed
//! against fake providers, and what the page shows is what was printed.
//!
//! A page's blocks: ` ```toml outlast.toml ` starts a gateway on that config; ` ```json FILE ` writes a file beside it;
//! ` ```console ` holds commands (`$ ...`) and what they print. In what is printed, `...` stands for anything: for a part
//! of a line, or alone on its line for any number of lines. `UPDATE=1` rewrites what differs.

mod command;
#[path = "../common/mod.rs"]
mod common;
mod page;
mod printed;
mod world;

use page::{Block, Page};
use world::World;

async fn run(path: &str) {
    let file = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut page = Page::read(&text);
    let mut world = World::default();
    let mut wrong = Vec::new();
    let mut ran = 0;
    for block in &mut page.blocks {
        match block {
            Block::Prose(_) => {}
            Block::File { name, text } => world.write(name, text),
            Block::Console(steps) => {
                for step in steps {
                    ran += 1;
                    let got = world.perform(step).await;
                    if !printed::matches(&step.shown, &got) {
                        wrong.push(format!("$ {}\n--- the page shows\n{}\n--- printed\n{got}", step.typed, step.shown));
                        step.shown = printed::steady(&got);
                    }
                }
            }
        }
    }
    world.stop().await;
    assert!(ran > 0, "{path} runs nothing");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, page.write()).unwrap();
    } else {
        assert!(wrong.is_empty(), "{path} differs from what is printed:\n\n{}", wrong.join("\n\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_on_contracts_shows_is_what_is_printed() {
    run("docs/contracts.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_on_degradation_shows_is_what_is_printed() {
    run("docs/degradation.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_on_the_worker_protocol_shows_is_what_is_printed() {
    run("docs/worker-protocol.md").await;
}
